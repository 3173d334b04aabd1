"""`gateway explain`: why nothing is to be seen of a topic."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gateway.cli.flags import Token, Url, fail
from gateway.client.connection import http_url

MARKS = {True: "ok", False: "NO", None: "-"}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("explain")(explain)


def explain(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic or a topic filter.", show_default=False)],
    url: Url = "ws://127.0.0.1:8000",
    token: Token = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Say why nothing is to be seen of a topic: ask a running gateway about each step of a message's way.

    The exit code is 0 if every step is in order, 1 if one is not, and 2 if the gateway can't be asked.
    """
    answer = _ask(topic, url, token)
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        for step in answer["steps"]:
            typer.echo(f"{MARKS[step['ok']]:<3} {step['step']:<13} {step['text']}")
        for near in answer["near"]:
            typer.echo(f"    {'near miss':<13} {near['topic']!r}: {near['why']}")
    raise typer.Exit(0 if answer["ok"] else 1)


def _ask(topic: str, url: str, token: str | None) -> dict[str, Any]:
    try:
        base = http_url(url)
    except ValueError as error:
        fail(error, 2)
    address = f"{base}/explain?{urlencode({'topic': topic})}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # the scheme is one of two, made above
    request = urllib.request.Request(address, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(10_000).decode(errors="replace")
        try:
            detail = json.loads(text)["detail"]
        except (ValueError, KeyError, TypeError):
            detail = f"what answers there is not this gateway ({error.code})"
        fail(detail, 2)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        fail(f"can't reach a gateway at {base}: {reason}", 2)
    return answer

"""`gateway revoke`: calls tokens back at running gateways."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated, Any

import typer

from gateway.cli.flags import ConfigFile, fail


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("revoke")(revoke)


def revoke(
    subject: Annotated[
        str | None, typer.Option(metavar="NAME", help="All tokens that it has been given so far.", show_default=False)
    ] = None,
    jti: Annotated[
        str | None, typer.Option(metavar="ID", help="The token with this `jti`.", show_default=False)
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="This token; - reads it from standard input.", show_default=False),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The longest time that such tokens are good for; then it is forgotten."),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url", "-u", envvar="GATEWAY_URL", metavar="URL", help="A gateway; repeat it for each of several."
        ),
    ] = None,
    credential: Annotated[
        str | None,
        typer.Option(
            envvar="GATEWAY_TOKEN",
            metavar="TOKEN",
            help="A token that may publish to $gateway/revocations; unset, one is made with the gateway's key.",
            show_envvar=True,
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Call tokens back: they are refused from now on, and connections that were opened with them end.

    One node of a cluster tells the others.

    Exit code: 0 done at all gateways, 1 refused, not reachable or not told to other nodes yet, 2 wrong arguments.
    """
    import time

    from gateway.core.durations import parse_duration

    named = {name: value for name, value in (("subject", subject), ("jti", jti), ("token", token)) if value}
    if len(named) != 1:
        fail("give one of --subject, --jti and --token", 2)
    asked: dict[str, Any] = dict(named)
    if token == "-":  # noqa: S105 - standard input
        asked["token"] = typer.get_text_stream("stdin").read().strip()
    if ttl is not None:
        if token is not None:
            fail("--ttl: a token says itself when it ends", 2)
        try:
            asked["expires"] = int((time.time() + parse_duration(ttl)) * 1000)
        except ValueError as error:
            fail(f"--ttl {ttl!r}: {error}", 2)
    bearer = credential or (None if token is not None else _made(config))
    failed = [text for each in url or ["ws://127.0.0.1:8000"] if (text := _ask(each, asked, bearer)) is not None]
    if failed:
        fail("; ".join(failed))


def _made(config: Any) -> str:
    """A token that is good for this and for a minute."""
    from gateway.access.grants import AccessError
    from gateway.access.revocations import REVOKE_TOPIC
    from gateway.access.tokens import mint
    from gateway.runtime import signing_key
    from gateway.settings.loading import load_settings
    from gateway.settings.problems import SettingsError

    try:
        settings = load_settings({}, config)
        return mint(
            signing_key(settings),
            ttl_seconds=60,
            publish=[REVOKE_TOPIC],
            audience=settings.access_audience,
            issuer=settings.access_issuer,
        )
    except (SettingsError, AccessError) as error:
        fail(error, 2)


def _ask(url: str, asked: dict[str, Any], bearer: str | None) -> str | None:
    """Asks one gateway and tells its answer; why that failed, else None."""
    from gateway.client.connection import http_url

    try:
        address = f"{http_url(url)}/tokens/revoke"
    except ValueError as error:
        fail(error, 2)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    # the scheme is one of two, made above
    request = urllib.request.Request(address, json.dumps(asked).encode(), headers, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(10_000).decode(errors="replace")
        try:
            return f"{url}: {json.loads(text)['detail']}"
        except (ValueError, KeyError, TypeError):
            return f"{url}: what answers there is not this gateway ({error.code})"
    except (OSError, ValueError) as error:
        return f"can't reach a gateway at {url}: {getattr(error, 'reason', None) or error}"
    kept = "" if answer["kept"] else "; it is forgotten when that gateway ends (GATEWAY_ACCESS_REVOCATIONS)"
    typer.echo(f"{url}: {answer['ended']} connections ended{kept}")
    if answer.get("told") is False:
        return f"{url}: the other nodes of its cluster are told when their server can be reached again"
    return None

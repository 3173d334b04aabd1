"""`gateway pub`: publishes as `mosquitto_pub` does, through a running gateway."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.flags import Token, Url, fail

if TYPE_CHECKING:
    from websockets.sync.connection import Connection

RETRY_SECONDS = 0.2


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("pub")(pub)


def pub(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic; no wildcards.", show_default=False)],
    payload: Annotated[
        str | None, typer.Argument(metavar="PAYLOAD", help="The payload, as text.", show_default=False)
    ] = None,
    url: Url = "ws://127.0.0.1:8000",
    token: Token = None,
    qos: Annotated[int, typer.Option("--qos", "-q", min=0, max=2, help="MQTT quality of service.")] = 0,
    retain: Annotated[bool, typer.Option("--retain", "-r", help="The broker keeps it for later subscribers.")] = False,
    stdin_line: Annotated[
        bool, typer.Option("--stdin-line", "-l", help="Publish each line of standard input.")
    ] = False,
    stdin_file: Annotated[
        bool, typer.Option("--stdin-file", "-s", help="Publish all of standard input as one message.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Publish what is in a file.")
    ] = None,
    null: Annotated[
        bool, typer.Option("--null-message", "-n", help="Publish an empty payload; with -r, clears the topic.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", "-W", min=0.1, metavar="SECONDS", help="Wait so long for each answer.")
    ] = 15,
) -> None:
    """Publish a message and wait until the broker has it (QoS 1 and 2) or it is sent (QoS 0).

    Exit code: 0 done, 1 refused or not reachable, 2 wrong arguments, 27 out of time.
    """
    sources = [payload is not None, stdin_line, stdin_file, file is not None, null]
    if sum(sources) != 1:
        fail("give one payload: PAYLOAD, -l, -s, -f FILE or -n", 2)
    if payload is not None:
        payloads: Iterator[bytes] = iter([payload.encode(errors="surrogateescape")])
    elif stdin_line:
        payloads = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    elif file is not None:
        try:
            payloads = iter([file.read_bytes()])
        except OSError as error:
            fail(f"{file} can't be read: {error.strerror}", 2)
    else:
        payloads = iter([sys.stdin.buffer.read() if stdin_file else b""])
    _publish(topic, payloads, url, token, qos, retain, timeout)


def _publish(
    topic: str, payloads: Iterator[bytes], url: str, token: str | None, qos: int, retain: bool, timeout: float
) -> None:
    from websockets.exceptions import ConnectionClosed

    from gateway.cli.sub import TIMED_OUT
    from gateway.client.connection import LostError, RefusedError, explain_close, open_connection, socket_url
    from gateway.core.topics import TopicError, validate_topic

    try:
        validate_topic(topic)
        address = socket_url(url)
    except (TopicError, ValueError) as error:
        fail(error, 2)
    try:
        with open_connection(address, token) as connection:
            for number, payload in enumerate(payloads, 1):
                command: dict[str, object] = {
                    "command": "publish",
                    "id": number,
                    "topic": topic,
                    "qos": qos,
                    "retain": retain,
                }
                try:
                    command["payload"] = payload.decode()
                except UnicodeDecodeError:
                    import base64

                    command |= {"payload": base64.b64encode(payload).decode(), "encoding": "base64"}
                _confirmed(connection, command, timeout)
    except ConnectionClosed as error:
        fail(explain_close(error))
    except (LostError, RefusedError) as error:
        fail(error)
    except TimeoutError:
        fail(f"the gateway gave no answer within {timeout:g} s; the message may have been published", TIMED_OUT)


def _confirmed(connection: Connection, command: dict[str, object], timeout: float) -> None:
    """Publishes one message and waits for the answer.

    Raises:
        TimeoutError: none came.
        RefusedError: the gateway or the broker refuses.
        LostError: the gateway has no broker now.
    """
    import time

    import msgspec

    from gateway.client.connection import Event, LostError, RefusedError, decode

    deadline = time.monotonic() + timeout
    text = msgspec.json.encode(command).decode()
    connection.send(text)
    while True:
        received = decode(connection.recv(timeout=max(0.0, deadline - time.monotonic()), decode=False))
        if not isinstance(received, Event):
            continue
        # an answer to a command that was too many comes without its id
        if received.id != command["id"] and not (received.event == "error" and received.id is None):
            continue
        if received.event == "published":
            return
        if received.code == "limit" and time.monotonic() + RETRY_SECONDS < deadline:
            # too many at once: slower is what the gateway asks for
            time.sleep(RETRY_SECONDS)
            connection.send(text)
        elif received.event == "error":
            error = LostError if received.code == "upstream_unavailable" else RefusedError
            raise error(received.message or received.code or "", received.code or "internal")

"""`gateway sub`: prints messages as they come, as `mosquitto_sub -v` does."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.flags import Token, Url, fail

if TYPE_CHECKING:
    from gateway.cli.connection import Received

# as mosquitto_sub -W
TIMED_OUT = 27


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("sub")(sub)


def sub(
    filters: Annotated[list[str], typer.Argument(metavar="FILTER", help="Topic filters.", show_default=False)],
    url: Url = "ws://127.0.0.1:8000",
    token: Token = None,
    json: Annotated[bool, typer.Option("--json", help="Print each message as the JSON object it came in.")] = False,
    payload_only: Annotated[bool, typer.Option("--payload-only", "-p", help="Leave the topic out.")] = False,
    count: Annotated[
        int | None, typer.Option("--count", "-C", min=1, metavar="N", help="End after so many messages.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", "-W", min=0, metavar="SECONDS", help=f"End after this time, with code {TIMED_OUT}."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="SINCE", help="Where to begin: last, now, a time back such as 10m, or a position."),
    ] = None,
    reconnect: Annotated[
        bool, typer.Option(help="After a cut, come back and go on where it was.", show_default=False)
    ] = True,
) -> None:
    """Print messages as they come, one a line: topic and payload.

    Begins with the last value of each topic, as a new subscription to a broker begins with retained messages. Text is
    printed as it is, line breaks included, and a JSON string as its text; --json keeps one line for each message.
    Losses and cuts are told on standard error. Exit code: 0 done, 1 refused or not reachable, 2 wrong arguments,
    27 out of time.
    """
    subscriber = Subscriber(filters, url, token, since, None if timeout is None else time.monotonic() + timeout)
    try:
        subscriber.run(Printer(json, payload_only), count, reconnect)
    except BrokenPipeError:
        # `gateway sub … | head` is done; nothing may be flushed into the pipe when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def visible(text: bytes) -> bytes:
    """Text for a terminal: what would steer it, such as an escape sequence in a payload, is written as an escape."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text.decode(errors="backslashreplace")
    ).encode()


class Printer:
    """Writes messages to standard output.

    Args:
        json: as they came.
        payload_only: without the topic.
    """

    def __init__(self, json: bool, payload_only: bool) -> None:
        self.json = json
        self.payload_only = payload_only
        self._is_terminal = sys.stdout.isatty()

    def write(self, frame: bytes, message: Received) -> None:
        """Writes one message as one line; it may stay in the buffer until `flush`."""
        from gateway.core.frames import json_line

        if self.json:
            line = json_line(frame)
        else:
            line = self._payload(message)
            if not self.payload_only:
                line = f"{message.topic} ".encode() + line
        sys.stdout.buffer.write((visible(line) if self._is_terminal else line) + b"\n")

    def _payload(self, message: Received) -> bytes:
        import base64

        import msgspec

        from gateway.core.frames import json_line

        raw = bytes(message.payload)
        if not raw.startswith(b'"'):
            return json_line(raw)
        text = msgspec.json.decode(raw, type=str)
        return base64.b64decode(text) if message.encoding == "base64" else text.encode()

    def flush(self) -> None:
        """Makes what was written visible."""
        sys.stdout.buffer.flush()


class Subscriber:
    """Messages of some filters, across reconnects.

    Args:
        filters: topic filters.
        url: the gateway's address.
        token: an access token or None.
        since: where to begin; None leaves it to the gateway (`last`).
        deadline: when to end, on the monotonic clock; None never.
        properties: whether MQTT 5 properties are asked for.
    """

    def __init__(
        self,
        filters: list[str],
        url: str,
        token: str | None,
        since: str | None,
        deadline: float | None,
        *,
        properties: bool = False,
    ) -> None:
        from gateway.cli.connection import socket_url
        from gateway.core.protocol import ProtocolError
        from gateway.core.resume import Resume
        from gateway.core.since import parse_since
        from gateway.core.topics import TopicError, validate_filter

        try:
            self.filters = [validate_filter(text) for text in filters]
            parse_since(since)
            socket_url(url)
        except (ProtocolError, TopicError, ValueError) as error:
            fail(error, 2)
        self.url = url
        self.token = token
        self.resume = Resume(since)
        self.deadline = deadline
        self.properties = properties

    def run(self, printer: Printer, count: int | None, reconnect: bool) -> None:
        """Prints until `count` messages or the deadline; ends the command where it can't go on."""
        from gateway.cli.connection import LostError, RefusedError

        left = count
        delay = 0.5
        connected_once = False
        while True:
            try:
                for frame, message in self._receive(printer):
                    connected_once = True
                    delay = 0.5
                    if message.topic is None:
                        continue
                    printer.write(frame, message)
                    if left is not None:
                        left -= 1
                        if left == 0:
                            printer.flush()
                            return
            except TimeoutError:
                printer.flush()
                raise typer.Exit(TIMED_OUT) from None
            except RefusedError as error:
                printer.flush()
                fail(error)
            except LostError as error:
                printer.flush()
                if not (reconnect and connected_once):
                    fail(error)
                print(f"gateway: {error}; trying again", file=sys.stderr)
                # jitter, so that many that were cut at once don't come back at once
                self._sleep(delay * random.uniform(0.5, 1))  # noqa: S311
                delay = min(delay * 2, 15)

    def _sleep(self, seconds: float) -> None:
        if self.deadline is not None and time.monotonic() + seconds > self.deadline:
            time.sleep(max(0.0, self.deadline - time.monotonic()))
            raise typer.Exit(TIMED_OUT)
        time.sleep(seconds)

    def _left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def _receive(self, printer: Printer) -> Iterator[tuple[bytes, Received]]:
        """What comes over one connection.

        Raises:
            TimeoutError: the deadline has come.
            LostError: it was cut.
            RefusedError: the gateway refuses.
        """
        import json

        from websockets.exceptions import ConnectionClosed

        from gateway.cli.connection import LostError, RefusedError, decode, explain_close, open_connection, socket_url

        # a subscription by command, for the end of its replay is told
        members: dict[str, Any] = {"command": "subscribe", "id": 1, "topics": self.filters, "since": self.resume.since}
        if self.properties:
            members["properties"] = True
        left = self._left()
        try:
            connection = open_connection(socket_url(self.url), self.token, 10 if left is None else min(10, left))
        except LostError:
            if self._left() == 0:
                raise TimeoutError from None
            raise
        with connection:
            try:
                connection.send(json.dumps(members))
                while True:
                    try:
                        frame = connection.recv(timeout=0, decode=False)
                    except TimeoutError:
                        # nothing more for now: show what there is before waiting
                        printer.flush()
                        frame = connection.recv(timeout=self._left(), decode=False)
                    received = decode(frame)
                    self._note(received)
                    if received.event == "error":
                        raise RefusedError(received.message or received.code)
                    yield frame, received
            except ConnectionClosed as error:
                raise explain_close(error) from None

    def _note(self, received: Received) -> None:
        """Keeps the position, and tells of what is no message."""
        if received.topic is not None:
            self.resume.heard(received.seq)
        elif received.event == "subscribed" and received.position is not None:
            self.resume.subscribed(received.position, received.after)
        elif received.event == "replayed":
            self.resume.replayed()
        elif received.event == "gap":
            lost = "an unknown number of" if received.lost is None else received.lost
            print(f"gateway: gap: {lost} messages are missing ({received.reason})", file=sys.stderr)
        elif received.event == "upstream":
            state = "connected to" if received.connected else "not connected to"
            print(f"gateway: the gateway is {state} the broker", file=sys.stderr)

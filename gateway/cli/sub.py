"""`gateway sub`: prints messages as they come, as `mosquitto_sub -v` does."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.flags import Token, Url, fail

if TYPE_CHECKING:
    from gateway.client import Event, Live, Message

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

    def write(self, message: Message) -> None:
        """Writes one message as one line; it may stay in the buffer until `flush`."""
        from gateway.core.frames import json_line

        if self.json:
            line = json_line(message.frame)
        else:
            line = message.data if message.is_text else json_line(message.data)
            if not self.payload_only:
                line = f"{message.topic} ".encode() + line
        sys.stdout.buffer.write((visible(line) if self._is_terminal else line) + b"\n")

    def flush(self) -> None:
        """Makes what was written visible."""
        sys.stdout.buffer.flush()


class Subscriber:
    """Messages of some filters, printed until something ends it.

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
        self.filters = filters
        self.url = url
        self.token = token
        self.since = since
        self.deadline = deadline
        self.properties = properties
        self._connect(None, True)  # says now what is wrong with it

    def _connect(self, printer: Printer | None, reconnect: bool) -> Live:
        from gateway.client import connect

        try:
            return connect(
                self.url,
                self.filters,
                token=self.token,
                since=self.since,
                reconnect="after_first" if reconnect else "never",
                on_wait=None if printer is None else printer.flush,
                properties=self.properties or None,
            )
        except ValueError as error:
            fail(error, 2)

    def run(self, printer: Printer, count: int | None, reconnect: bool) -> None:
        """Prints until `count` messages or the deadline; ends the command where it can't go on."""
        from gateway.client import ClientError

        try:
            asyncio.run(self._run(printer, count, reconnect))
        except TimeoutError:
            printer.flush()
            raise typer.Exit(TIMED_OUT) from None
        except ClientError as error:
            printer.flush()
            fail(error)

    async def _run(self, printer: Printer, count: int | None, reconnect: bool) -> None:
        live = self._connect(printer, reconnect)
        for event in ("gap", "upstream", "state"):
            live.on(event, self._note)
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        async with asyncio.timeout(left), live:
            async for message in live:
                printer.write(message)
                if count is not None:
                    count -= 1
                    if count == 0:
                        printer.flush()
                        return

    @staticmethod
    def _note(event: Event) -> None:
        """Tells of what is no message."""
        if event.event == "gap":
            lost = "an unknown number of" if event.lost is None else event.lost
            print(f"gateway: gap: {lost} messages are missing ({event.reason})", file=sys.stderr)
        elif event.event == "upstream":
            state = "connected to" if event.connected else "not connected to"
            print(f"gateway: the gateway is {state} the broker", file=sys.stderr)
        elif event.state == "waiting":
            print(f"gateway: {event.reason}; trying again", file=sys.stderr)

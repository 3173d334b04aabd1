"""`gateway record`: writes messages to a file, for `sensors-sim replay`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from gateway.cli.flags import Token, Url, fail
from gateway.cli.sub import TIMED_OUT, Printer, Subscriber
from gateway.settings import parse_duration

if TYPE_CHECKING:
    from gateway.cli.connection import Received


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("record")(record)


def record(
    filters: Annotated[list[str], typer.Argument(metavar="FILTER", help="Topic filters.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; otherwise standard output.", dir_okay=False),
    ] = None,
    url: Url = "ws://127.0.0.1:8000",
    token: Token = None,
    append: Annotated[bool, typer.Option("--append", help="Add to the file instead of replacing it.")] = False,
    count: Annotated[
        int | None, typer.Option("--count", "-C", min=1, metavar="N", help="End after so many messages.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="End after this time, such as 90s, 10m or 1h.")
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="SINCE", help="Where to begin: now, last, a time back such as 10m, or a position.")
    ] = "now",
) -> None:
    """Write messages to a file: one JSON object a line, as they come over the WebSocket.

    Ends with Ctrl-C, or as --count and --for say. Across a cut it goes on where it was. `sensors-sim replay FILE`
    plays it. Exit code: 0 done, 1 refused or not reachable, 2 wrong arguments.
    """
    deadline = None if duration is None else time.monotonic() + _parse(duration)
    subscriber = Subscriber(filters, url, token, since, deadline)
    # asked to end, it ends as with Ctrl-C: with a whole last line
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _open(output, append) as file:
        recorder = Recorder(file)
        try:
            subscriber.run(recorder, count, True)
        except KeyboardInterrupt:
            pass
        except typer.Exit as ended:
            if ended.exit_code != TIMED_OUT:
                raise
        finally:
            recorder.flush()
            where = "" if output is None else f" in {output}"
            print(f"gateway: {recorder.count} messages{where}", file=sys.stderr)


class Recorder(Printer):
    """Writes messages as they came, one a line.

    Args:
        file: where to.

    Attributes:
        count: how many so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(json=True, payload_only=False)
        self.file = file
        self.count = 0

    def write(self, frame: bytes, message: Received) -> None:  # noqa: ARG002
        """Writes one message; it may stay in the buffer until `flush`."""
        from gateway.messages import json_line

        self.file.write(json_line(frame) + b"\n")
        self.count += 1

    def flush(self) -> None:
        """Hands what was written to the system."""
        self.file.flush()


@contextmanager
def _open(output: Path | None, append: bool) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        return
    try:
        file = output.open("ab" if append else "wb")
    except OSError as error:
        fail(f"can't write {output}: {error.strerror or error}", 2)
    with file:
        yield file


def _parse(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        fail(f"--for {text}: expected a time such as 90s, 10m or 1h", 2)

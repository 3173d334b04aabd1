"""`gateway record`: writes messages to a file, for `sensors-sim replay`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.flags import Token, Url, fail
from gateway.cli.sub import TIMED_OUT, Printer, Subscriber
from gateway.core.durations import parse_duration

if TYPE_CHECKING:
    from gateway.client import Message

MAX_PENDING_BYTES = 64 * 1024
"""What is collected for one write while messages come without a pause."""


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
    plays it. Where the disk is full, it ends, and what was written stays in whole lines. Exit code: 0 done, 1 refused,
    not reachable or not writable any more, 2 wrong arguments.
    """
    deadline = None if duration is None else time.monotonic() + _parse(duration)
    subscriber = Subscriber(filters, url, token, since, deadline, properties=True)
    # asked to end, it ends as with Ctrl-C: with a whole last line
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _open(output, append) as file:
        recorder = Recorder(file)
        try:
            try:
                subscriber.run(recorder, count, True)
            except KeyboardInterrupt:
                pass
            except typer.Exit as ended:
                if ended.exit_code != TIMED_OUT:
                    raise
            finally:
                recorder.flush()
        except WriteError as error:
            fail(f"can't write {output or 'to standard output'}: {error}")
        finally:
            where = "" if output is None else f" in {output}"
            print(f"gateway: {recorder.count} messages{where}", file=sys.stderr)


class WriteError(Exception):
    """The file takes no more; the text says why."""


class Recorder(Printer):
    """Writes messages as they came, one a line, and never leaves a part of one.

    Args:
        file: where to; it has no buffer of its own, which could neither be counted nor be cut.

    Attributes:
        count: how many are written.
    """

    def __init__(self, file: FileIO) -> None:
        super().__init__(json=True, payload_only=False)
        self.file = file
        self.count = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def write(self, message: Message) -> None:
        """Takes one message; it may wait until `flush`.

        Raises:
            WriteError: the file takes no more.
        """
        from gateway.core.frames import json_line

        line = json_line(message.frame) + b"\n"
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes > MAX_PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hands what was taken to the system.

        Raises:
            WriteError: the file takes no more.
        """
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        written = 0
        try:
            while written < len(data):
                written += self.file.write(memoryview(data)[written:]) or 0
        except OSError as error:
            whole = data.rfind(b"\n", 0, written) + 1
            if whole < written:  # half a message
                with suppress(OSError):
                    self.file.truncate(self.file.tell() - (written - whole))
            written = whole
            raise WriteError(error.strerror or str(error)) from None
        finally:
            self.count += data.count(b"\n", 0, written)


@contextmanager
def _open(output: Path | None, append: bool) -> Iterator[FileIO]:
    if output is None:
        yield FileIO(sys.stdout.fileno(), "wb", closefd=False)
        return
    try:
        file = FileIO(output, "ab" if append else "wb")
    except OSError as error:
        fail(f"can't write {output}: {error.strerror or error}", 2)
    with file:
        yield file


def _parse(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        fail(f"--for {text}: expected a time such as 90s, 10m or 1h", 2)

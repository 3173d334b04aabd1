"""What the board has to say: on its console, to the broker, and after a reset the last lines of the life before.

One invariant: nothing here grows: lines are cut, those that wait for the broker are the newest of a bounded number, and
what is left out shows as a hole in their numbers.

It leaves to others: when lines are handed over (app.py), and the memory that outlives a reset (hardware.py).
"""

import payloads

from .ticks import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

_LINE_BYTES = const(160)
_WAITING = const(20)  # lines
_TAIL = const(8)  # lines that outlive a reset


class Log:
    """Takes lines of text; call it with one.

    Args:
        sensor_id: As in the topics.
        console: Takes one line of text; it gets every line.
        board: Keeps the last lines through a reset, see hardware.py.
        boot: The number of this start.
        clock: Gives milliseconds since 1970, or None.
        level: Lines below it are for the console alone; one of payloads.LOG_LEVELS.
    """

    def __init__(
        self,
        sensor_id: str,
        console: "Callable[[str], None]",
        board: "Any",
        boot: int,
        clock: "Callable[[], int | None]",
        level: str = "info",
    ) -> None:
        self.topic = payloads.log_topic(sensor_id)
        self.console = console
        self.board = board
        self.boot = boot
        self.clock = clock
        self.level = level
        self.waiting: "list[bytes]" = []
        self._tail: "list[str]" = []
        self._number = 0
        for line in board.last_log():
            head, _, text = line.partition(" ")
            uptime, _, text = text.partition(" ")
            if head in payloads.LOG_LEVELS and uptime.isdigit():
                self._wait(payloads.log_payload(head, text, self._number, boot - 1, int(uptime), None, True))

    def __call__(self, text: str, level: str = "info") -> None:
        self.console(text)
        levels = payloads.LOG_LEVELS
        if levels.index(level) < levels.index(self.level):
            return
        try:
            self._keep(_cut(text), level)
        except MemoryError:  # a line that is lost must not end what it tells of
            self._number += 1

    def _keep(self, text: str, level: str) -> None:
        uptime_ms = int(self.board.uptime_seconds() * 1000)
        self._tail = self._tail[1 - _TAIL :]
        self._tail.append("%s %d %s" % (level, uptime_ms, text.replace("\n", " ")))
        self.board.keep_log(self._tail)
        self._wait(payloads.log_payload(level, text, self._number, self.boot, uptime_ms, self.clock()))

    def trouble(self, text: str) -> None:
        """Take a line that somebody should look at."""
        self(text, "warning")

    def detail(self, text: str) -> None:
        """Take a line that is of use to whoever looks for a fault."""
        self(text, "debug")

    def forget(self) -> None:
        """An orderly end: nothing of this life is to be told after it."""
        self._tail = []
        self.board.keep_log(self._tail)

    def _wait(self, payload: bytes) -> None:
        self._number += 1
        if len(self.waiting) >= _WAITING:
            self.waiting.pop(0)
        self.waiting.append(payload)


def _cut(text: str) -> str:
    """The beginning of a text, in _LINE_BYTES at most and in whole characters."""
    data = text.encode()
    end = _LINE_BYTES
    if len(data) <= end:
        return text
    while data[end] & 0xC0 == 0x80:  # inside a character of UTF-8
        end -= 1
    return data[:end].decode() + "…"

"""What the simulator shows: a live table in a terminal, plain lines elsewhere."""

import json
import shutil
import sys
import time
from typing import Protocol, TextIO

from sensors_sim.runner import Progress, Runner

TABLE_SECONDS = 0.5
LINE_SECONDS = 5.0
_UNIT = {"temperature": "°C", "humidity": "%", "co2": "ppm", "power": "W", "battery": "%", "pressure": "hPa"}


class Running(Protocol):
    """What a display shows."""

    @property
    def progress(self) -> Progress:
        """How it goes."""


class Display:
    """Shows a running fleet.

    Args:
        stream: Where to.
        live: Whether to draw a table over itself; None asks the stream whether it is a terminal.
    """

    def __init__(self, stream: TextIO = sys.stdout, *, live: bool | None = None) -> None:
        self._stream = stream
        self.live = stream.isatty() if live is None else live
        self._started = time.monotonic()
        self._next = 0.0
        self._last_at = self._started
        self._last_count = 0
        self._rate = 0.0
        self._rows = 0

    def tick(self, runner: Running) -> None:
        """Show the present state, when it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        if now - self._last_at >= 0.2:
            count = runner.progress.published
            self._rate = (count - self._last_count) / (now - self._last_at)
            self._last_at, self._last_count = now, count
        if self.live and isinstance(runner, Runner):
            self._next = now + TABLE_SECONDS
            runner.keep_last = True
            self._draw(self.table(runner))
        else:
            # The first line comes soon, so that one sees that it works.
            first = self._next == 0.0
            self._next = now + (1.0 if first else LINE_SECONDS)
            if not first:
                self._stream.write(self.line(runner) + "\n")
                self._stream.flush()

    def line(self, runner: Running) -> str:
        """One line on how it goes."""
        progress = runner.progress
        parts = [
            f"{progress.devices} devices",
            f"{progress.up}/{progress.clients} clients up",
            f"{progress.published} messages",
            f"{self._rate:.0f}/s",
            f"{progress.dropped} dropped",
            f"{progress.failures} connection failures",
        ]
        if progress.late_seconds > 1:
            parts.append(f"{progress.late_seconds:.0f} s behind")
        if progress.last_error and progress.up < progress.clients:
            parts.append(f"last: {progress.last_error}")
        return ", ".join(parts)

    def table(self, runner: Runner) -> list[str]:
        """The lines of the table, as many and as wide as the terminal allows."""
        width, height = shutil.get_terminal_size((100, 24))
        devices = list(runner.fleet.devices.values())
        room = max(1, height - 4)
        name_width = min(24, max([6, *(len(device.id) for device in devices[:room])]))
        lines = [f"{'device':{name_width}}  {'kind':11}  {'state':8}  {'messages':>8}  newest reading"]
        for device in devices[:room]:
            state = "asleep" if device.connected and device.sleeps else "online" if device.connected else "offline"
            faults = device.faults.names
            message = runner.last_of.get(device.id)
            reading = _summary(message.payload) if message is not None else ""
            if faults:
                reading = f"[{', '.join(faults)}] {reading}"
            row = f"{device.id[:name_width]:{name_width}}  {device.kind.name:11}  {state:8}  "
            lines.append(f"{row}{runner.published_by[device.id]:>8}  {reading}")
        if len(devices) > room:
            lines.append(f"… and {len(devices) - room} more")
        clock = time.strftime("%a %Y-%m-%d %H:%M:%S", time.gmtime(runner.model_time))
        lines.append(f"{clock}  {self.line(runner)}  (Ctrl-C ends)")
        return [line[: width - 1] for line in lines]

    def _draw(self, lines: list[str]) -> None:
        # Back to the first row of the last table, and each row overwritten to its end.
        up = f"\x1b[{self._rows}A" if self._rows else ""
        self._stream.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._rows = len(lines)


def _summary(payload: bytes) -> str:
    try:
        value = json.loads(payload)
    except ValueError:
        return repr(payload[:60])[2:-1]
    if not isinstance(value, dict):
        return str(value)
    return "  ".join(
        f"{name} {item}{_UNIT.get(name, '')}"
        for name, item in value.items()
        if name not in ("ts", "seq", "boot") and isinstance(item, (int, float))
    )

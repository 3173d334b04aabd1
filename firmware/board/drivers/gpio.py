"""A contact at a pin: a door, a motion detector, a button. A change is published at once.

The pin is looked at every 10 ms, and a level counts when it has stayed for `debounce` ms: no interrupt can storm the
board, however a contact bounces.
"""

import asyncio

from ..ticks import const, ticks_diff, ticks_ms
from . import Sensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LOOK_MS = const(10)


def create(spec: "dict[str, Any]", board: "Any") -> "Gpio":
    """Make it from an entry such as {"driver": "gpio", "pin": 27, "field": "motion", "pull": "down"}."""
    pin = board.input(spec["pin"], spec.get("pull", "up"))
    return Gpio(pin, spec.get("field", "contact"), spec.get("inverted", False), spec.get("debounce", 50))


class Gpio(Sensor):
    """1 while the pin is high, 0 while it is low; the other way round with `inverted`.

    Args:
        pin: Called for its level.
        field: What it is published as.
        inverted: True where a closed contact pulls the pin low and closed is 1.
        debounce_ms: How long a level must stay.
    """

    kind = "gpio"
    model = "contact"

    def __init__(self, pin: "Any", field: str = "contact", inverted: bool = False, debounce_ms: int = 50) -> None:
        self.pin = pin
        self.fields = (field,)
        self.inverted = inverted
        self.debounce_ms = debounce_ms
        self.level = 0
        self._other_since: "int | None" = None
        self._changes = 0  # since the last reading
        self._task: "Any" = None

    async def start(self) -> None:
        if self._task is None:
            self.level = self.pin()
            self._task = asyncio.create_task(self._watch())

    async def read(self) -> "dict[str, float]":
        level = self.level
        if self._changes > 1 and self._changes % 2 == 0:
            level = 1 - level  # it has been the other way in between: that is told first, what it is now at once after
            self._changes = 1
            self.changed()
        else:
            self._changes = 0
        return {self.fields[0]: level ^ self.inverted}

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_MS / 1000)
            self.look()

    def look(self) -> None:
        """Look at the pin once."""
        if self.pin() == self.level:
            self._other_since = None
            return
        now = ticks_ms()
        if self._other_since is None:
            self._other_since = now
        if ticks_diff(now, self._other_since) >= self.debounce_ms:
            self.level = 1 - self.level
            self._other_since = None
            self._changes += 1
            self.changed()

"""Pulses of a meter: what has gone through since the start, and how much goes through now.

Source: what a pulse stands for is printed on the meter (imp/kWh, pulses per litre); EN 62053-31 (S0): 30 ms at least.
"""

from ..ticks import ticks_diff, ticks_ms
from . import Sensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# what is measured: (field of the total, field of the rate or None, what an hour of one unit each hour is in the rate)
QUANTITIES = {
    "water": ("water", "flow", 1 / 60),  # L, and L/min
    "energy": ("energy", "power", 1000),  # kWh, and W
    "count": ("pulses", None, 0),
}
_STILL_MS = 300_000  # a meter that gave no pulse for this long stands


def create(spec: "dict[str, Any]", board: "Any") -> "Pulse":
    """Make it from an entry such as {"driver": "pulse", "pin": 27, "measures": "water", "per_unit": 450}."""
    sensor = Pulse(spec.get("measures", "count"), spec.get("per_unit", 1), spec.get("debounce", 2))
    board.on_falling(spec["pin"], sensor.edge)
    return sensor


class Pulse(Sensor):
    """Counts while the board is awake.

    Args:
        measures: One of `QUANTITIES`.
        per_unit: Pulses for each litre, kWh, or thing that is counted.
        debounce_ms: What comes sooner after an edge is the same contact, bouncing.
    """

    kind = "pulse"

    def __init__(self, measures: str = "count", per_unit: float = 1, debounce_ms: int = 2) -> None:
        total, rate, self.scale = QUANTITIES[measures]
        self.model = "pulse counter"
        self.fields = (total,) if rate is None else (total, rate)
        self.per_unit = per_unit
        self.debounce_ms = debounce_ms
        self.count = 0
        self._edge_at: "int | None" = None  # the last one, bouncing or not
        self._pulse_at: "int | None" = None  # the last one that counted
        self._told: "tuple[int, int] | None" = None  # count and time of the last pulse that a rate was made of
        self._rate_ms = 0.0  # milliseconds between two pulses, of that rate

    def edge(self, _pin: object = None) -> None:
        """The contact has closed; called for every falling edge."""
        now = ticks_ms()
        last, self._edge_at = self._edge_at, now
        if last is None or ticks_diff(now, last) >= self.debounce_ms:
            self.count += 1
            self._pulse_at = now

    async def read(self) -> "dict[str, float]":
        count, at = self.count, self._pulse_at
        values = {self.fields[0]: count / self.per_unit}
        if len(self.fields) > 1:
            between_ms = self._between(count, at)
            values[self.fields[1]] = 3_600_000 / between_ms / self.per_unit * self.scale if between_ms else 0
        return values

    def _between(self, count: int, at: "int | None") -> float:
        """Milliseconds between two pulses now; 0 when it stands.

        A rate is made of the time between pulses, not of their number in an interval: a meter of 1000 imp/kWh gives one
        in 36 s at 100 W, and would seem to be at 0 W in most intervals of 10 s.
        """
        if at is None:
            return 0
        since = ticks_diff(ticks_ms(), at)
        if since > _STILL_MS:
            self._told, self._rate_ms = None, 0
            return 0
        if self._told is None:
            self._told = (count, at)
        elif count > self._told[0]:
            self._rate_ms = max(1, ticks_diff(at, self._told[1])) / (count - self._told[0])
            self._told = (count, at)
        return max(self._rate_ms, since) if self._rate_ms else 0

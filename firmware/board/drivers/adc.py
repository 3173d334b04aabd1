"""A voltage at an analogue pin, and what it stands for: a battery, soil moisture, light.

Source of the pin's range: Espressif, ESP-IDF Programming Guide, "ADC Oneshot Mode Driver" (11 dB attenuation).
"""

from ..ticks import const
from . import Sensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SAMPLES = const(16)


def create(spec: "dict[str, Any]", board: "Any") -> "Adc":
    """Make it from an entry such as {"driver": "adc", "pin": 34, "field": "voltage", "factor": 2}."""
    return Adc(board.adc(spec["pin"]), spec.get("field", "voltage"), spec.get("factor", 1), spec.get("points"))


class Adc(Sensor):
    """The mean of 16 samples.

    Args:
        adc: Has `read_uv()`, which gives calibrated microvolts.
        field: What the reading is published as; "adc" is in millivolts.
        factor: What the volts at the pin are multiplied by: 2 for a divider of two equal resistors.
        points: None, or [[volts, value], [volts, value]]: a straight line through both, ended at both.
    """

    kind = "adc"
    model = "ADC"

    def __init__(
        self, adc: "Any", field: str = "voltage", factor: float = 1, points: "list[list[float]] | None" = None
    ) -> None:
        self.adc = adc
        self.fields: "tuple[str, ...]" = (field,)
        self.factor = factor
        self.points = points

    def volts(self) -> float:
        """What is measured now, times the factor."""
        total = 0
        for _ in range(_SAMPLES):
            total += self.adc.read_uv()
        return total / _SAMPLES / 1e6 * self.factor

    async def read(self) -> "dict[str, float]":
        volts = self.volts()
        if self.points:
            return {self.fields[0]: on_line(volts, self.points)}
        return {self.fields[0]: volts * 1000 if self.fields[0] == "adc" else volts}


def on_line(volts: float, points: "list[list[float]]") -> float:
    """The value at `volts` on the line through two points, kept between their values."""
    (x1, y1), (x2, y2) = points
    share = (volts - x1) / (x2 - x1)
    return y1 + (y2 - y1) * min(1, max(0, share))

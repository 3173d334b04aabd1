"""Soil moisture from a capacitive probe at an analogue pin, between what it gave in dry and in wet soil.

The probes differ from each other, so both values are measured: `adc` says the millivolts at the pin.
"""

from . import SensorError
from .adc import Adc, on_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DRY, WET = 2.6, 1.1  # volts of a common probe ("v1.2") at 3.3 V
_BEYOND_VOLTS = 0.5


def create(spec: "dict[str, Any]", board: "Any") -> "Soil":
    """Make it from an entry such as {"driver": "soil", "pin": 34, "dry": 2.6, "wet": 1.1}."""
    return Soil(board.adc(spec["pin"]), spec.get("dry", DRY), spec.get("wet", WET))


class Soil(Adc):
    """One probe.

    Args:
        adc: Has `read_uv()`, which gives calibrated microvolts.
        dry: Volts in dry soil, 0 %.
        wet: Volts in wet soil, 100 %.
    """

    kind = "soil"
    model = "soil probe"

    def __init__(self, adc: "Any", dry: float = DRY, wet: float = WET) -> None:
        Adc.__init__(self, adc)
        self.fields = ("moisture", "adc")
        self.dry = dry
        self.wet = wet

    async def read(self) -> "dict[str, float]":
        volts = self.volts()
        low, high = sorted((self.dry, self.wet))
        if not low - _BEYOND_VOLTS <= volts <= high + _BEYOND_VOLTS:
            raise SensorError("soil: %.2f V is far from what it gave in dry and in wet soil: is it connected?" % volts)
        return {"moisture": on_line(volts, [[self.dry, 0], [self.wet, 100]]), "adc": volts * 1000}

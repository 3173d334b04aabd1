"""A battery's charge in percent, from its voltage at an analogue pin and what kind of cell it is.

It is an estimate: cells differ, and a voltage under load or in the cold says less than is there. Lead-acid's figures
are a maker's table; the others are the usual shape of a slow discharge at 20 °C.

Source: Trojan Battery, User's Guide, table "State of charge as related to specific gravity and open-circuit voltage";
Energizer, Alkaline Handbook, and Nickel Metal Hydride Handbook, typical discharge curves.
"""

from . import SensorError
from .adc import Adc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# chemistry: (volts of a cell, %), falling; those of lead-acid are of a cell of 2 V
CURVES = {
    "li-ion": ((4.2, 100), (4.06, 90), (3.98, 80), (3.92, 70), (3.87, 60), (3.82, 50), (3.79, 40), (3.77, 30),
               (3.74, 20), (3.68, 10), (3.45, 5), (3.0, 0)),
    "lifepo4": ((3.4, 100), (3.35, 90), (3.32, 80), (3.3, 60), (3.27, 40), (3.22, 20), (3.12, 10), (2.5, 0)),
    "alkaline": ((1.58, 100), (1.45, 90), (1.37, 75), (1.28, 50), (1.2, 30), (1.1, 15), (1.0, 5), (0.9, 0)),
    "nimh": ((1.4, 100), (1.33, 90), (1.29, 75), (1.26, 50), (1.23, 25), (1.18, 10), (1.0, 0)),
    "lead-acid": ((2.122, 100), (2.103, 90), (2.083, 80), (2.062, 70), (2.04, 60), (2.017, 50), (1.993, 40),
                  (1.969, 30), (1.943, 20), (1.918, 10), (1.89, 0)),
}  # fmt: skip


def create(spec: "dict[str, Any]", board: "Any") -> "Battery":
    """Make it from an entry such as {"driver": "battery", "pin": 34, "chemistry": "li-ion", "cells": 1}."""
    return Battery(board.adc(spec["pin"]), spec["chemistry"], spec.get("cells", 1), spec.get("factor", 2))


class Battery(Adc):
    """Charge and voltage of a battery.

    Args:
        adc: Has `read_uv()`, which gives calibrated microvolts.
        chemistry: One of `CURVES`.
        cells: In series.
        factor: What the volts at the pin are multiplied by: 2 for a divider of two equal resistors.
    """

    kind = "battery"
    model = "battery"

    def __init__(self, adc: "Any", chemistry: str, cells: int = 1, factor: float = 2) -> None:
        Adc.__init__(self, adc, "voltage", factor)
        self.fields = ("battery", "voltage")
        self.curve = CURVES[chemistry]
        self.cells = cells

    async def read(self) -> "dict[str, float]":
        volts = self.volts()
        if volts < 0.1 * self.cells:
            raise SensorError("battery: %.2f V: is it connected?" % volts)
        return {"battery": percent(volts / self.cells, self.curve), "voltage": volts}


def percent(volts: float, curve: "tuple[tuple[float, float], ...]") -> float:
    """Charge in %, 0 to 100, on the lines between the points of a curve.

    Args:
        volts: Of one cell.
        curve: Points with falling volts.
    """
    above = curve[0]
    if volts >= above[0]:
        return above[1]
    for point in curve:
        if volts >= point[0]:
            return point[1] + (above[1] - point[1]) * (volts - point[0]) / (above[0] - point[0])
        above = point
    return above[1]

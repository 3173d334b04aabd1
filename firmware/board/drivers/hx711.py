"""HX711 with a load cell: weight.

Source: Avia Semiconductor, HX711 data sheet: "Serial Interface" (25 pulses for channel A with gain 128, two's
complement, ends of the range), table "Reset and Power-Down" (high for over 60 µs), settling time (400 ms).
"""

import asyncio

from ..ticks import const
from . import Sensor, SensorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SAMPLES = const(5)
_LOWEST, _HIGHEST = const(-0x800000), const(0x7FFFFF)


def create(spec: "dict[str, Any]", board: "Any") -> "Hx711":
    """Make it from an entry such as {"driver": "hx711", "sck": 18, "dout": 19, "zero": 84210, "factor": 420000}."""
    return Hx711(board.clocked(spec["sck"], spec["dout"]), spec.get("zero", 0), spec.get("factor", 1))


class Hx711(Sensor):
    """The middle one of five samples.

    Args:
        line: `ready()`, and `read(pulses)`, which gives the first 24 bits; see hardware.py.
        zero: What it counts without a load.
        factor: Counts for each kilogram; 1 publishes the counts themselves, with which one finds both.
    """

    kind = "hx711"
    model = "HX711"
    fields = ("weight",)

    def __init__(self, line: "Any", zero: float = 0, factor: float = 1) -> None:
        self.line = line
        self.zero = zero
        self.factor = factor

    async def start(self) -> None:
        await self._sample()  # the first one after power-on may be of another gain

    async def read(self) -> "dict[str, float]":
        samples: "list[int]" = []
        while len(samples) < _SAMPLES:
            samples.append(await self._sample())
        return {"weight": (sorted(samples)[_SAMPLES // 2] - self.zero) / self.factor}

    async def _sample(self) -> int:
        for _ in range(60):
            if self.line.ready():
                break
            await asyncio.sleep(0.01)
        else:
            raise SensorError("HX711: it is never ready: look at DT and SCK")
        value = signed(self.line.read(25))
        if value in (_LOWEST, _HIGHEST):
            raise SensorError("HX711: beyond its range: is the load cell connected?")
        return value


def signed(bits: int) -> int:
    """The number of 24 bits in two's complement."""
    return bits - 0x1000000 if bits & 0x800000 else bits

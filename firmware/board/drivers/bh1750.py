"""Rohm BH1750 over I²C: illuminance.

Source: Rohm, BH1750FVI data sheet (2011.11 Rev.D): "Instruction Set Architecture", "Measurement sequence example",
"Change the influence of light window" (measurement time), "Electrical Characteristics" (180 ms at most with MTreg 69).
"""

import asyncio

from ..ticks import const
from . import Sensor, SensorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POWER_ON = const(0x01)
_ONE_TIME = const(0x20)  # steps of 1 lx; then it powers down
_USUAL = const(69)
_SHORTEST = const(31)
_FULL = const(0xFFFF)


def create(spec: "dict[str, Any]", board: "Any") -> "Bh1750":
    """Make it from an entry such as {"driver": "bh1750", "scl": 22, "sda": 21, "address": 92}."""
    return Bh1750(board.i2c(spec["scl"], spec["sda"]), spec.get("address", 0x23))


class Bh1750(Sensor):
    """One measurement per reading; where the light is too strong for it, a second and shorter one.

    Args:
        i2c: Has `writeto` and `readfrom`.
        address: 0x23, or 0x5C with ADDR at the supply.
    """

    kind = "bh1750"
    model = "BH1750"
    fields = ("illuminance",)

    def __init__(self, i2c: "Any", address: int = 0x23) -> None:
        self.i2c = i2c
        self.address = address

    async def read(self) -> "dict[str, float]":
        raw = await self._measure(_USUAL)
        if raw < _FULL:
            return {"illuminance": lux(raw, _USUAL)}
        raw = await self._measure(_SHORTEST)
        if raw == _FULL:
            raise SensorError("BH1750: more light than the %d lx that it can measure" % lux(_FULL, _SHORTEST))
        return {"illuminance": lux(raw, _SHORTEST)}

    async def _measure(self, time: int) -> int:
        # the time is written in two halves, its upper three bits first
        for command in (_POWER_ON, 0x40 | time >> 5, 0x60 | time & 0x1F, _ONE_TIME):
            self.i2c.writeto(self.address, bytes([command]))
        await asyncio.sleep(0.18 * time / _USUAL)
        data = self.i2c.readfrom(self.address, 2)
        raw: int = data[0] << 8 | data[1]
        return raw


def lux(raw: int, time: int) -> float:
    """Illuminance in lx of what was read after a measurement of this time (MTreg, 31 to 254)."""
    return raw / 1.2 * _USUAL / time

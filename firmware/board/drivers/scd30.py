"""Sensirion SCD30 over I²C: CO₂, temperature, humidity.

Source: Sensirion, Interface Description SCD30: §1.4.1 (continuous measurement), §1.4.3 (interval), §1.4.4 (data ready),
§1.4.5 (reading, with an example), §1.1 (an answer needs 3 ms).
"""

import asyncio
import struct

from ..ticks import const
from . import Sensor, SensorError
from .sensirion import ask, packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ADDRESS = const(0x61)
_START = const(0x0010)
_SET_INTERVAL = const(0x4600)
_DATA_READY = const(0x0202)
_READ = const(0x0300)
_INTERVAL_SECONDS = const(2)
_ANSWER_SECONDS = 0.004


def create(spec: "dict[str, Any]", board: "Any") -> "Scd30":
    """Make it from an entry such as {"driver": "scd30", "scl": 22, "sda": 21}."""
    return Scd30(board.i2c(spec["scl"], spec["sda"]))


class Scd30(Sensor):
    """Measures every two seconds by itself.

    Args:
        i2c: Has `writeto` and `readfrom_into`.
    """

    kind = "scd30"
    model = "SCD30"
    fields = ("co2", "temperature", "humidity")
    minimum_interval_seconds = 2.0
    limit_seconds = 8.0

    def __init__(self, i2c: "Any") -> None:
        self.i2c = i2c

    async def start(self) -> None:
        self.i2c.writeto(_ADDRESS, packet(_SET_INTERVAL, _INTERVAL_SECONDS))
        await asyncio.sleep(_ANSWER_SECONDS)
        self.i2c.writeto(_ADDRESS, packet(_START, 0))  # 0: air pressure is not compensated
        await asyncio.sleep(_ANSWER_SECONDS)

    async def read(self) -> "dict[str, float]":
        for _ in range(50):
            if await self._ask(_DATA_READY, 1) == [1]:
                return convert(await self._ask(_READ, 6))
            await asyncio.sleep(0.1)
        raise SensorError("SCD30: no measurement within 5 s")

    async def _ask(self, command: int, count: int) -> "list[int]":
        return await ask(self.i2c, _ADDRESS, packet(command), count, _ANSWER_SECONDS, "SCD30")


def convert(words: "list[int]") -> "dict[str, float]":
    """CO₂ in ppm, temperature in °C and relative humidity in % of the six words, two for each number.

    Raises:
        SensorError: CO₂ is 0 or no number, which the sensor gives when it measured none.
    """
    co2, temperature, humidity = struct.unpack(">fff", struct.pack(">HHHHHH", *words))
    if not co2 > 0:
        raise SensorError("SCD30: no CO₂ measurement")
    return {"co2": co2, "temperature": temperature, "humidity": humidity}

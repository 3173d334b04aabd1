"""Sensirion SHT30, SHT31 and SHT35 over I²C: temperature and humidity.

Source: Sensirion, Datasheet SHT3x-DIS: §4.3 (single shot), §2.2 (it takes 15.5 ms at most), §4.13 (conversion).
"""

from . import Sensor
from .sensirion import ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SINGLE_SHOT = b"\x24\x00"  # high repeatability, without holding the clock


def create(spec: "dict[str, Any]", board: "Any") -> "Sht3x":
    """Make it from an entry such as {"driver": "sht3x", "scl": 22, "sda": 21, "address": 69}."""
    return Sht3x(board.i2c(spec["scl"], spec["sda"]), spec.get("address", 0x44))


class Sht3x(Sensor):
    """One measurement per reading; it sleeps in between.

    Args:
        i2c: Has `writeto` and `readfrom_into`.
        address: 0x44, or 0x45 with ADDR at the supply.
    """

    kind = "sht3x"
    model = "SHT3x"
    fields = ("temperature", "humidity")

    def __init__(self, i2c: "Any", address: int = 0x44) -> None:
        self.i2c = i2c
        self.address = address

    async def read(self) -> "dict[str, float]":
        return convert(await ask(self.i2c, self.address, _SINGLE_SHOT, 2, 0.016, "SHT3x"))


def convert(measurement: "list[int]") -> "dict[str, float]":
    """Temperature in °C and relative humidity in % of the two words."""
    temperature, humidity = measurement
    return {"temperature": -45 + 175 * temperature / 65535, "humidity": 100 * humidity / 65535}

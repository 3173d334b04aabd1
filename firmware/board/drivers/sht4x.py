"""Sensirion SHT40, SHT41 and SHT45 over I²C: temperature and humidity.

Source: Sensirion, Datasheet SHT4x: §4.5 (commands), §3.1 (measurement takes 8.3 ms at most), §4.6 (conversion).
"""

from . import Sensor
from .sensirion import ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MEASURE = b"\xfd"  # high precision, heater off


def create(spec: "dict[str, Any]", board: "Any") -> "Sht4x":
    """Make it from an entry such as {"driver": "sht4x", "scl": 22, "sda": 21}."""
    return Sht4x(board.i2c(spec["scl"], spec["sda"]), spec.get("address", 0x44))


class Sht4x(Sensor):
    """One measurement per reading; it sleeps in between.

    Args:
        i2c: Has `writeto` and `readfrom_into`.
        address: 0x44, 0x45 or 0x46, by what is printed on it (A, B, C).
    """

    kind = "sht4x"
    model = "SHT4x"
    fields = ("temperature", "humidity")

    def __init__(self, i2c: "Any", address: int = 0x44) -> None:
        self.i2c = i2c
        self.address = address

    async def read(self) -> "dict[str, float]":
        return convert(await ask(self.i2c, self.address, _MEASURE, 2, 0.01, "SHT4x"))


def convert(measurement: "list[int]") -> "dict[str, float]":
    """Temperature in °C and relative humidity in % of the two words.

    The humidity can come out below 0 or above 100: the data sheet says to cut it there.
    """
    temperature, humidity = measurement
    return {
        "temperature": -45 + 175 * temperature / 65535,
        "humidity": min(100.0, max(0.0, -6 + 125 * humidity / 65535)),
    }

"""DHT11: temperature and humidity over one wire.

Source: Aosong, DHT11 product manual, "Data format": 40 bits, whole numbers and one decimal in bytes of their own, the
sign of the temperature in the uppermost bit of its decimal; 0 to 60 °C (-20 in newer ones), 5 to 95 %.
"""

from . import SensorError
from .dht22 import Dht22

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def create(spec: "dict[str, Any]", board: "Any") -> "Dht11":
    """Make it from an entry such as {"driver": "dht11", "pin": 4}."""
    return Dht11(board.dht22(spec["pin"]))


class Dht11(Dht22):
    """One sensor, which is asked as a DHT22 is and answers otherwise."""

    kind = "dht11"
    model = "DHT11"

    async def read(self) -> "dict[str, float]":
        temperature, humidity = decode(await self._answer())
        return {"temperature": temperature, "humidity": humidity}


def decode(data: "bytes | bytearray") -> "tuple[float, float]":
    """Temperature in °C and relative humidity in % of the sensor's five bytes.

    Raises:
        SensorError: Wrong checksum, or a value that the sensor can't measure.
    """
    if sum(data[:4]) & 0xFF != data[4]:
        raise SensorError("DHT11: wrong checksum")
    humidity = data[0] + data[1] / 10
    temperature = data[2] + (data[3] & 0x7F) / 10
    if data[3] & 0x80:
        temperature = -temperature
    if data[1] > 9 or data[3] & 0x7F > 9 or humidity > 100 or not -20 <= temperature <= 60:
        raise SensorError("DHT11: %g °C, %g %% is out of range: is it a DHT22?" % (temperature, humidity))
    return temperature, humidity

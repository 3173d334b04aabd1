"""DHT22 (AM2302): temperature and humidity over one wire.

Source: Aosong, AM2302 product manual, "Single-bus communication": the format, its example, one reading in 2 s; Aosong,
DHT11 product manual: whole numbers and one decimal in bytes of their own, 0 to 60 °C, up to 100 %.
"""

from . import Sensor, SensorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def create(spec: "dict[str, Any]", board: "Any") -> "Dht22":
    """Make it from an entry such as {"driver": "dht22", "pin": 4}."""
    return Dht22(board.dht22(spec["pin"]))


class Dht22(Sensor):
    """One sensor.

    Args:
        dht: MicroPython's `dht.DHT22`: `measure()` fills the five bytes of `buf`.
    """

    kind = "dht22"
    model = "DHT22"
    fields = ("temperature", "humidity")
    minimum_interval_seconds = 2.0

    def __init__(self, dht: "Any") -> None:
        self.dht = dht

    async def read(self) -> "dict[str, float]":
        temperature, humidity = decode(await self._answer())
        return {"temperature": temperature, "humidity": humidity}

    async def _answer(self) -> "bytes | bytearray":
        try:
            self.dht.measure()
        except OSError:
            raise
        except Exception as error:  # MicroPython's driver raises a bare Exception for a wrong checksum
            raise SensorError(self.model + ": " + str(error)) from None
        data: "bytearray" = self.dht.buf
        return data


def decode(data: "bytes | bytearray") -> "tuple[float, float]":
    """Temperature in °C and relative humidity in % of the sensor's five bytes.

    Raises:
        SensorError: Wrong checksum, the whole numbers of a DHT11, or a value that the sensor can't measure (-40 to
            80 °C, 0 to 100 %).
    """
    if sum(data[:4]) & 0xFF != data[4]:
        raise SensorError("DHT22: wrong checksum")
    humidity = (data[0] << 8 | data[1]) / 10
    raw = data[2] << 8 | data[3]
    if raw & 0x8000:
        # The manual has a sign bit and a magnitude; some copies of the sensor send two's complement instead.
        raw = -(raw & 0x7FFF) if raw & 0x7000 == 0 else raw - 0x10000
    temperature = raw / 10
    if not -40 <= temperature <= 80 or not 0 <= humidity <= 100:
        if data[0] <= 100 and data[2] <= 60 and data[1] < 10 and data[3] & 0x7F < 10:
            raise SensorError("DHT22: this is a DHT11 (%d °C, %d %%): its driver is dht11" % (data[2], data[0]))
        raise SensorError("DHT22: %g °C, %g %% is out of range" % (temperature, humidity))
    return temperature, humidity

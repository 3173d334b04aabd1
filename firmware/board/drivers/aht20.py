"""Aosong AHT20 (and AHT21) over I²C: temperature and humidity.

Source: Aosong, Data Sheet AHT20: §5.3 (status), §5.4 (reading: calibration bit, 80 ms, CRC 0x31 from 0xFF), §6
(conversion).
"""

import asyncio

from ..ticks import const
from . import Sensor, SensorError, crc8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ADDRESS = const(0x38)
_BUSY = const(0x80)
_CALIBRATED = const(0x08)


def create(spec: "dict[str, Any]", board: "Any") -> "Aht20":
    """Make it from an entry such as {"driver": "aht20", "scl": 22, "sda": 21}."""
    return Aht20(board.i2c(spec["scl"], spec["sda"]))


class Aht20(Sensor):
    """One measurement per reading.

    Args:
        i2c: Has `writeto` and `readfrom`.
    """

    kind = "aht20"
    model = "AHT20"
    fields = ("temperature", "humidity")

    def __init__(self, i2c: "Any") -> None:
        self.i2c = i2c

    async def start(self) -> None:
        await asyncio.sleep(0.04)  # after power-on
        if not self.i2c.readfrom(_ADDRESS, 1)[0] & _CALIBRATED:
            self.i2c.writeto(_ADDRESS, b"\xbe\x08\x00")
            await asyncio.sleep(0.01)

    async def read(self) -> "dict[str, float]":
        self.i2c.writeto(_ADDRESS, b"\xac\x33\x00")
        for _ in range(5):
            await asyncio.sleep(0.08)
            data = self.i2c.readfrom(_ADDRESS, 7)
            if not data[0] & _BUSY:
                return decode(data)
        raise SensorError("AHT20: it stays busy")


def decode(data: "bytes | bytearray") -> "dict[str, float]":
    """Temperature in °C and relative humidity in % of the seven bytes.

    Raises:
        SensorError: Wrong checksum, or the sensor has lost its calibration.
    """
    if crc8(data[:6], 0x31, 0xFF) != data[6]:
        raise SensorError("AHT20: wrong checksum")
    if not data[0] & _CALIBRATED:
        raise SensorError("AHT20: it is not calibrated")
    humidity = data[1] << 12 | data[2] << 4 | data[3] >> 4
    temperature = (data[3] & 0x0F) << 16 | data[4] << 8 | data[5]
    return {"temperature": temperature * 200 / 1048576 - 50, "humidity": humidity * 100 / 1048576}

"""Bosch BME280 over I²C: temperature, humidity, pressure. A BMP280 works too, without humidity.

The measured numbers mean nothing without the trimming values in the chip; the formulas below use integers as the data
sheet's do, because a board's floats have 24 bits and pressure needs more.

Source: Bosch Sensortec, BME280 Combined humidity and pressure sensor, BST-BME280-DS002: §3.5.3 (recommended settings),
§4.2.2 (trimming values), §4.2.3 (compensation formulas), §5 (registers), §9.1 (measurement time).
"""

import asyncio

from ..ticks import const
from . import Sensor, SensorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ID = const(0xD0)
_RESET = const(0xE0)
_HUMIDITY_CONTROL = const(0xF2)
_STATUS = const(0xF3)
_CONTROL = const(0xF4)
_CONFIG = const(0xF5)
_DATA = const(0xF7)
_BME280_ID = const(0x60)
_BMP280_IDS = (0x56, 0x57, 0x58)
_OTHERS = {0x61: "it is a BME680, whose driver is bme680", 0x55: "it is a BMP180, for which there is no driver"}
_FORCED = const(0x25)  # once each of temperature and pressure, then sleep again
_NOT_MEASURED = const(0x80000)  # what the registers hold after a reset


def create(spec: "dict[str, Any]", board: "Any") -> "Bme280":
    """Make it from an entry such as {"driver": "bme280", "scl": 22, "sda": 21, "address": 118}."""
    return Bme280(board.i2c(spec["scl"], spec["sda"]), spec.get("address", 0x76))


class Trimming:
    """The values that the factory wrote into one chip, and the formulas that use them.

    Args:
        low: Registers 0x88 to 0xA1, 26 bytes.
        high: Registers 0xE1 to 0xE7, 7 bytes; None for a BMP280.
    """

    def __init__(self, low: "bytes | bytearray", high: "bytes | bytearray | None") -> None:
        words = [low[2 * n] | low[2 * n + 1] << 8 for n in range(12)]
        self.t = [words[0]] + [_signed(word, 16) for word in words[1:3]]
        self.p = [words[3]] + [_signed(word, 16) for word in words[4:12]]
        self.h: "list[int]" = []
        if high is not None:
            self.h = [
                low[25],
                _signed(high[0] | high[1] << 8, 16),
                high[2],
                _signed(high[3] << 4 | high[4] & 0x0F, 12),
                _signed(high[5] << 4 | high[4] >> 4, 12),
                _signed(high[6], 8),
            ]

    def fine(self, raw: int) -> int:
        """The temperature in 1/5120 °C, which the other two formulas need."""
        t1, t2, t3 = self.t
        linear = (((raw >> 3) - (t1 << 1)) * t2) >> 11
        offset = (raw >> 4) - t1
        return linear + ((offset * offset >> 12) * t3 >> 14)

    def temperature(self, fine: int) -> float:
        """°C in steps of 0.01."""
        return ((fine * 5 + 128) >> 8) / 100

    def pressure(self, raw: int, fine: int) -> float:
        """hPa.

        Raises:
            SensorError: The trimming values are all zero, so nothing can be computed.
        """
        p1, p2, p3, p4, p5, p6, p7, p8, p9 = self.p
        x = fine - 128000
        offset = x * x * p6 + (x * p5 << 17) + (p4 << 35)
        scale = (((1 << 47) + (x * x * p3 >> 8) + (x * p2 << 12)) * p1) >> 33
        if scale == 0:
            raise SensorError("BME280: the trimming values are missing")
        p = (((1048576 - raw) << 31) - offset) * 3125 // scale
        p = ((p + (p9 * (p >> 13) * (p >> 13) >> 25) + (p8 * p >> 19)) >> 8) + (p7 << 4)
        # p is in 1/256 Pa; dividing before the float is made keeps its 24 bits for what matters
        return ((p * 10 + 128) >> 8) / 1000

    def humidity(self, raw: int, fine: int) -> float:
        """Relative humidity in %, 0 to 100."""
        h1, h2, h3, h4, h5, h6 = self.h
        x = fine - 76800
        measured = ((raw << 14) - (h4 << 20) - h5 * x + 16384) >> 15
        slope = ((((x * h6 >> 10) * ((x * h3 >> 11) + 32768) >> 10) + 2097152) * h2 + 8192) >> 14
        h = measured * slope
        h -= ((h >> 15) * (h >> 15) >> 7) * h1 >> 4
        return (min(max(h, 0), 419430400) >> 12) / 1024


class Bme280(Sensor):
    """One measurement per reading (forced mode), so that the chip doesn't warm itself.

    Args:
        i2c: Has `readfrom_mem` and `writeto_mem`.
        address: 0x76, or 0x77 with SDO at the supply.
    """

    kind = "bme280"
    model = "BME280"
    fields: "tuple[str, ...]" = ("temperature", "humidity", "pressure")

    def __init__(self, i2c: "Any", address: int = 0x76) -> None:
        self.i2c = i2c
        self.address = address
        self.trimming: "Trimming | None" = None

    async def start(self) -> None:
        identity = self._read(_ID, 1)[0]
        if identity != _BME280_ID and identity not in _BMP280_IDS:
            other = _OTHERS.get(identity, "its id is 0x%02x" % identity)
            raise SensorError("no BME280 at 0x%02x: %s" % (self.address, other))
        self._write(_RESET, 0xB6)
        await self._wait(0x01)  # until the trimming values are copied
        has_humidity = identity == _BME280_ID
        self.model = "BME280" if has_humidity else "BMP280"
        self.fields = ("temperature", "humidity", "pressure") if has_humidity else ("temperature", "pressure")
        self.trimming = Trimming(self._read(0x88, 26), self._read(0xE1, 7) if has_humidity else None)
        self._write(_CONFIG, 0)  # no filter

    async def read(self) -> "dict[str, float]":
        trimming = self.trimming
        if trimming is None:
            raise SensorError("BME280: not started")
        self._write(_HUMIDITY_CONTROL, 1)  # takes effect with the next write to _CONTROL
        self._write(_CONTROL, _FORCED)
        await self._wait(0x08)
        data = self._read(_DATA, 8)
        pressure = data[0] << 12 | data[1] << 4 | data[2] >> 4
        temperature = data[3] << 12 | data[4] << 4 | data[5] >> 4
        if temperature == _NOT_MEASURED:
            raise SensorError("BME280: it did not measure; is its supply steady?")
        fine = trimming.fine(temperature)
        values = {"temperature": trimming.temperature(fine), "pressure": trimming.pressure(pressure, fine)}
        if trimming.h:
            values["humidity"] = trimming.humidity(data[6] << 8 | data[7], fine)
        return values

    async def _wait(self, busy: int) -> None:
        for _ in range(20):  # a measurement takes 9.3 ms at most with these settings (§9.1)
            await asyncio.sleep(0.01)
            if not self._read(_STATUS, 1)[0] & busy:
                return
        raise SensorError("BME280: it stays busy")

    def _read(self, register: int, count: int) -> bytes:
        data: bytes = self.i2c.readfrom_mem(self.address, register, count)
        return data

    def _write(self, register: int, value: int) -> None:
        self.i2c.writeto_mem(self.address, register, bytes([value]))


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value

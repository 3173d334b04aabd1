"""Bosch BME680 and BME688 over I²C: temperature, humidity, pressure, and the resistance of a layer that gases change.

Less resistance means more organic vapours. It is no air quality in known units: that takes Bosch's closed library and
days of observation. The layer needs some minutes of readings after power-on to settle.

Source: Bosch Sensortec, BME680 Low power gas, pressure, temperature & humidity sensor, BST-BME680-DS001: §3.2.1 (quick
start), §3.3 (compensation formulas, trimming values), §3.4.1 (gas resistance), §5 (registers); BME688 data sheet,
BST-BME688-DS000, §3.4.1 and §5.2 (its variant and its gas formula). Integers as in §3.3, because a board's floats have
24 bits; numbers to compare with: pimoroni/bme680-python, tests.
"""

import asyncio

from ..ticks import const
from . import Sensor, SensorError
from .bme280 import _signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ID = const(0xD0)
_RESET = const(0xE0)
_VARIANT = const(0xF0)
_STATUS = const(0x1D)
_HEATER_RESISTANCE = const(0x5A)
_HEATER_TIME = const(0x64)
_HEATER_ON = const(0x71)
_HUMIDITY_CONTROL = const(0x72)
_CONTROL = const(0x74)
_CONFIG = const(0x75)
_BME680_ID = const(0x61)
_NEW_DATA = const(0x80)
_GAS_VALID = const(0x20)
_HEATER_STABLE = const(0x10)
_NOT_MEASURED = const(0x80000)
_FORCED = const(0x54 | 0x01)  # temperature ×2, pressure ×16, then sleep again
_HEATER_CELSIUS = const(320)
_HEATER_MS = const(150)

# §3.4.1, tables of the BME680's gas ranges: per mille of the deviation
_DEVIATION_1 = (0, 0, 0, 0, 0, -10, 0, -8, 0, 0, -2, -5, 0, -10, 0, 0)
_DEVIATION_2 = (0, 0, 0, 0, 1, 7, 0, -8, -1, 0, 0, 0, 0, 0, 0, 0)


def create(spec: "dict[str, Any]", board: "Any") -> "Bme680":
    """Make it from an entry such as {"driver": "bme680", "scl": 22, "sda": 21, "address": 119}."""
    return Bme680(board.i2c(spec["scl"], spec["sda"]), spec.get("address", 0x76))


class Trimming:
    """The values that the factory wrote into one chip, and the formulas that use them.

    Args:
        low: Registers 0x8A to 0xA0, 23 bytes.
        high: Registers 0xE1 to 0xEE, 14 bytes.
        heater: Registers 0x00 to 0x04, 5 bytes.
    """

    def __init__(self, low: "bytes | bytearray", high: "bytes | bytearray", heater: "bytes | bytearray") -> None:
        def word(data: "bytes | bytearray", at: int) -> int:
            return data[at] | data[at + 1] << 8

        self.t = (word(high, 8), _signed(word(low, 0), 16), _signed(low[2], 8))
        self.p = (
            word(low, 4),
            _signed(word(low, 6), 16),
            _signed(low[8], 8),
            _signed(word(low, 10), 16),
            _signed(word(low, 12), 16),
            _signed(low[15], 8),
            _signed(low[14], 8),
            _signed(word(low, 18), 16),
            _signed(word(low, 20), 16),
            low[22],
        )
        self.h = (
            high[2] << 4 | high[1] & 0x0F,
            high[0] << 4 | high[1] >> 4,
            _signed(high[3], 8),
            _signed(high[4], 8),
            _signed(high[5], 8),
            high[6],
            _signed(high[7], 8),
        )
        self.g = (_signed(high[12], 8), _signed(word(high, 10), 16), _signed(high[13], 8))
        self.heater_value = _signed(heater[0], 8)
        self.heater_range = heater[2] >> 4 & 0x03
        self.range_error = _signed(heater[4] >> 4, 4)

    def fine(self, raw: int) -> int:
        """The temperature in 1/5120 °C, which the other formulas need."""
        t1, t2, t3 = self.t
        offset = (raw >> 3) - (t1 << 1)
        half = offset >> 1
        return (offset * t2 >> 11) + ((half * half >> 12) * (t3 << 4) >> 14)

    def temperature(self, fine: int) -> float:
        """°C in steps of 0.01."""
        return ((fine * 5 + 128) >> 8) / 100

    def pressure(self, raw: int, fine: int) -> float:
        """hPa.

        Raises:
            SensorError: The trimming values are all zero, so nothing can be computed.
        """
        p1, p2, p3, p4, p5, p6, p7, p8, p9, p10 = self.p
        x = (fine >> 1) - 64000
        square = (x >> 2) * (x >> 2)
        offset = ((square >> 11) * p6 >> 2) + (x * p5 << 1)
        offset = (offset >> 2) + (p4 << 16)
        scale = (((square >> 13) * (p3 << 5) >> 3) + (p2 * x >> 1)) >> 18
        scale = (32768 + scale) * p1 >> 15
        if scale == 0:
            raise SensorError("BME680: the trimming values are missing")
        p = (1048576 - raw - (offset >> 12)) * 3125
        p = (p << 1) // scale
        a = p9 * ((p >> 3) * (p >> 3) >> 13) >> 12
        b = (p >> 2) * p8 >> 13
        c = (p >> 8) * (p >> 8) * (p >> 8) * p10 >> 17
        return (p + ((a + b + c + (p7 << 7)) >> 4)) / 100

    def humidity(self, raw: int, fine: int) -> float:
        """Relative humidity in %, 0 to 100."""
        h1, h2, h3, h4, h5, h6, h7 = self.h
        t = (fine * 5 + 128) >> 8
        a = raw - h1 * 16 - (t * h3 // 100 >> 1)
        b = h2 * (t * h4 // 100 + ((t * (t * h5 // 100) >> 6) // 100) + 16384) >> 10
        c = a * b
        d = ((h6 << 7) + t * h7 // 100) >> 4
        e = d * ((c >> 14) * (c >> 14) >> 10) >> 1
        return min(max(((c + e) >> 10) * 1000 >> 12, 0), 100000) / 1000

    def heater(self, celsius: int, ambient: float) -> int:
        """What to write so that the layer gets this warm.

        Args:
            celsius: Up to 400.
            ambient: Temperature around the sensor, in °C.
        """
        g1, g2, g3 = self.g
        slope = (g1 / 16 + 49) * (1 + (g2 / 32768 * 0.0005 + 0.00235) * celsius)
        resistance = slope + g3 / 1024 * ambient
        value = 3.4 * (resistance * (4 / (4 + self.heater_range)) / (1 + self.heater_value * 0.002) - 25)
        return min(255, max(0, int(value)))

    def gas(self, raw: int, gas_range: int, variant: int) -> float:
        """Resistance in Ω.

        Args:
            raw: Ten bits.
            gas_range: 0 to 15.
            variant: 0 for a BME680, 1 for a BME688.
        """
        if variant:
            return 1e6 * (262144 >> gas_range) / (4096 + 3 * (raw - 512))
        scale = (1340 + 5 * self.range_error) * (1 + _DEVIATION_1[gas_range] / 1000)
        share = (raw - 512) / scale + 1
        return 8e6 / ((1 + _DEVIATION_2[gas_range] / 1000) * (1 << gas_range) * share)


class Bme680(Sensor):
    """One measurement per reading: first the three others, then the layer, which is heated for 150 ms.

    Args:
        i2c: Has `readfrom_mem` and `writeto_mem`.
        address: 0x76, or 0x77 with SDO at the supply.
    """

    kind = "bme680"
    model = "BME680"
    fields = ("temperature", "humidity", "pressure", "gas_resistance")

    def __init__(self, i2c: "Any", address: int = 0x76) -> None:
        self.i2c = i2c
        self.address = address
        self.trimming: "Trimming | None" = None
        self.variant = 0
        self.ambient = 25.0

    async def start(self) -> None:
        identity = self._read(_ID, 1)[0]
        if identity != _BME680_ID:
            other = "it is a BME280" if identity == 0x60 else "its id is 0x%02x" % identity
            raise SensorError("no BME680 at 0x%02x: %s" % (self.address, other))
        self._write(_RESET, 0xB6)
        await asyncio.sleep(0.01)
        self.variant = self._read(_VARIANT, 1)[0] & 1
        self.model = "BME688" if self.variant else "BME680"
        self.trimming = Trimming(self._read(0x8A, 23), self._read(0xE1, 14), self._read(0x00, 5))
        self._write(_CONFIG, 0)  # no filter

    async def read(self) -> "dict[str, float]":
        trimming = self.trimming
        if trimming is None:
            raise SensorError("BME680: not started")
        self._write(_HEATER_RESISTANCE, trimming.heater(_HEATER_CELSIUS, self.ambient))
        self._write(_HEATER_TIME, heater_time(_HEATER_MS))
        self._write(_HEATER_ON, 0x20 if self.variant else 0x10)
        self._write(_HUMIDITY_CONTROL, 1)
        self._write(_CONTROL, _FORCED)
        for _ in range(20):
            await asyncio.sleep(0.05)
            data = self._read(_STATUS, 17)
            if data[0] & _NEW_DATA:
                return self._convert(trimming, data)
        raise SensorError("BME680: it stays busy")

    def _convert(self, trimming: Trimming, data: "bytes | bytearray") -> "dict[str, float]":
        pressure = data[2] << 12 | data[3] << 4 | data[4] >> 4
        temperature = data[5] << 12 | data[6] << 4 | data[7] >> 4
        if temperature == _NOT_MEASURED:
            raise SensorError("BME680: it did not measure; is its supply steady?")
        fine = trimming.fine(temperature)
        self.ambient = trimming.temperature(fine)
        values = {
            "temperature": self.ambient,
            "humidity": trimming.humidity(data[8] << 8 | data[9], fine),
            "pressure": trimming.pressure(pressure, fine),
        }
        high, low = data[15:17] if self.variant else data[13:15]
        if low & _GAS_VALID and low & _HEATER_STABLE:  # otherwise the layer was not warm: the others are good
            values["gas_resistance"] = trimming.gas(high << 2 | low >> 6, low & 0x0F, self.variant)
        return values

    def _read(self, register: int, count: int) -> bytes:
        data: bytes = self.i2c.readfrom_mem(self.address, register, count)
        return data

    def _write(self, register: int, value: int) -> None:
        self.i2c.writeto_mem(self.address, register, bytes([value]))


def heater_time(milliseconds: int) -> int:
    """The time as the chip wants it: six bits, times 1, 4, 16 or 64."""
    factor = 0
    while milliseconds > 63:
        milliseconds //= 4
        factor += 1
    return milliseconds | factor << 6

"""Sensirion SCD41 over I²C: CO₂, temperature, humidity.

Source: Sensirion, Datasheet SCD4x, §3: table of commands, signal conversion, and the examples of set_sensor_altitude,
set_temperature_offset and perform_forced_recalibration, whose figures the tests have.
"""

import asyncio

from ..ticks import const
from . import Sensor, SensorError
from .sensirion import ask, packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ADDRESS = const(0x62)
_START_PERIODIC = const(0x21B1)
_READ_MEASUREMENT = const(0xEC05)
_STOP_PERIODIC = const(0x3F86)
_DATA_READY = const(0xE4B8)
_SINGLE_SHOT = const(0x219D)
_SERIAL_NUMBER = const(0x3682)
_SET_OFFSET, _GET_OFFSET = const(0x241D), const(0x2318)
_SET_ALTITUDE, _GET_ALTITUDE = const(0x2427), const(0x2322)
_CALIBRATE = const(0x362F)
_PERSIST = const(0x3615)
# what can be tuned: lowest and highest value; metres, °C that it is warmer than the air, ppm around it now
TUNABLE = {"altitude": (0, 3000), "offset": (0, 20), "co2": (400, 2000)}


def create(spec: "dict[str, Any]", board: "Any") -> "Scd41":
    """Make it from an entry such as {"driver": "scd41", "scl": 22, "sda": 21}."""
    return Scd41(board.i2c(spec["scl"], spec["sda"]), spec.get("single_shot", False))


class Scd41(Sensor):
    """Measures every five seconds by itself, or once per reading.

    Args:
        i2c: Has `writeto` and `readfrom_into`.
        single_shot: One measurement of five seconds when asked: for sensors on a battery. An SCD40 can't do it.
    """

    kind = "scd41"
    model = "SCD41"
    fields = ("co2", "temperature", "humidity")
    minimum_interval_seconds = 5.0
    limit_seconds = 12.0

    def __init__(self, i2c: "Any", single_shot: bool = False) -> None:
        self.i2c = i2c
        self.single_shot = single_shot
        self.measuring = False
        self.tuned: "dict[str, float]" = {}
        self._wanted: "dict[str, float]" = {}

    def tune(self, wanted: "Any") -> None:
        if not isinstance(wanted, dict) or not wanted:
            raise ValueError('tune: scd41 takes an object such as {"altitude": 500}')
        for name in wanted:
            if name not in TUNABLE:
                raise ValueError("tune: scd41 has altitude, offset and co2, not '%s'" % name)
            (low, high), value = TUNABLE[name], wanted[name]
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError("tune: %s of scd41 is a number from %d to %d" % (name, low, high))
        self._wanted.update(wanted)

    async def start(self) -> None:
        try:
            self._command(_STOP_PERIODIC)  # it may still measure since before our restart, and then takes no other
        except OSError:
            pass
        self.measuring = False
        await asyncio.sleep(0.5)
        await self._words(_SERIAL_NUMBER, 3)
        if not self.single_shot:
            self._command(_START_PERIODIC)
            self.measuring = True

    async def _tune(self) -> None:
        """Do what `tune` took; the sensor must not measure meanwhile.

        Raises:
            SensorError: It did not take the value, or could not calibrate.
        """
        wanted, self._wanted = self._wanted, {}  # once: what fails is not tried for ever
        if self.measuring:
            self._command(_STOP_PERIODIC)
            await asyncio.sleep(0.5)
        for name, setter, getter, scale in (
            ("altitude", _SET_ALTITUDE, _GET_ALTITUDE, 1),
            ("offset", _SET_OFFSET, _GET_OFFSET, 65535 / 175),
        ):
            if name in wanted:
                word = int(wanted[name] * scale + 0.5)
                if await self._words(getter, 1) != [word]:  # it keeps them in flash that wears
                    self.i2c.writeto(_ADDRESS, packet(setter, word))
                    await asyncio.sleep(0.002)
                    if await self._words(getter, 1) != [word]:
                        raise SensorError("SCD41: it did not take %s" % name)
                    self._command(_PERSIST)
                    await asyncio.sleep(0.8)
                self.tuned[name] = round(word / scale, 2)
        if "co2" in wanted:
            (answer,) = await ask(self.i2c, _ADDRESS, packet(_CALIBRATE, int(wanted["co2"])), 1, 0.4, "SCD41")
            if answer == 0xFFFF:
                raise SensorError("SCD41: it could not calibrate: it must have measured for three minutes before")
            self.tuned["correction"] = answer - 0x8000
        if self.measuring:
            self._command(_START_PERIODIC)

    async def read(self) -> "dict[str, float]":
        if self._wanted:
            await self._tune()
        if self.single_shot:
            self._command(_SINGLE_SHOT)
            await asyncio.sleep(5)
        for _ in range(60):  # a periodic measurement is ready every 5 s
            if (await self._words(_DATA_READY, 1))[0] & 0x07FF:
                break
            await asyncio.sleep(0.1)
        else:
            raise SensorError("SCD41: no measurement within 6 s")
        return convert(await self._words(_READ_MEASUREMENT, 3))

    def _command(self, command: int) -> None:
        self.i2c.writeto(_ADDRESS, packet(command))

    async def _words(self, command: int, count: int) -> "list[int]":
        # at least 1 ms between command and answer
        return await ask(self.i2c, _ADDRESS, packet(command), count, 0.002, "SCD41")


def convert(measurement: "list[int]") -> "dict[str, float]":
    """CO₂ in ppm, temperature in °C and relative humidity in % of the three words.

    Raises:
        SensorError: CO₂ is 0, which the sensor gives when it measured none.
    """
    co2, temperature, humidity = measurement
    if co2 == 0:
        raise SensorError("SCD41: no CO₂ measurement")
    return {
        "co2": co2,
        "temperature": -45 + 175 * temperature / 65535,
        "humidity": 100 * humidity / 65535,
    }

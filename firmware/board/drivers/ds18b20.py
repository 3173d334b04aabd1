"""DS18B20: temperature probes on a 1-Wire bus.

Source: Maxim Integrated, DS18B20 Programmable Resolution 1-Wire Digital Thermometer: table 1 (temperature and data),
table 2 (conversion time, 750 ms with 12 bits), figure 9 (scratchpad), "CRC generation"; DS18S20 (family code, table 2).
"""

import asyncio

from ..ticks import const
from . import Sensor, SensorError, crc8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POWER_ON = const(0x0550)  # 85 °C: what the scratchpad holds before the first conversion
_DS18S20 = const(0x10)  # the first byte of its address
_CONVERSION_SECONDS = 0.75


def create(spec: "dict[str, Any]", board: "Any") -> "Ds18b20":
    """Make it from an entry such as {"driver": "ds18b20", "pin": 4, "probes": 2}."""
    return Ds18b20(board.ds18x20(spec["pin"]), spec.get("probes", 1))


class Ds18b20(Sensor):
    """The probes of one bus, in the order of their addresses: temperature, temperature_2, …

    Args:
        bus: MicroPython's `ds18x20.DS18X20`.
        probes: How many there are. It is said, not found, so that a probe that fell off is an error, and so that its
            neighbour's readings are never published under its name.
    """

    kind = "ds18b20"
    model = "DS18B20"

    def __init__(self, bus: "Any", probes: int = 1) -> None:
        self.bus = bus
        self.probes = probes
        self.fields = ("temperature",) + tuple("temperature_%d" % n for n in range(2, probes + 1))
        self.roms: "list[bytes | bytearray]" = []
        self.last: "dict[str, float]" = {}

    async def start(self) -> None:
        roms = sorted(bytes(rom) for rom in self.bus.scan())
        if len(roms) != self.probes:
            raise SensorError("DS18B20: %d of %d probes found" % (len(roms), self.probes))
        if any(rom[0] == _DS18S20 for rom in roms):
            raise SensorError("DS18B20: a probe is a DS18S20, which counts half degrees: there is no driver for it")
        self.roms = list(roms)

    async def read(self) -> "dict[str, float]":
        self.bus.convert_temp()
        await asyncio.sleep(_CONVERSION_SECONDS)
        values = {}
        for field, rom in zip(self.fields, self.roms):
            scratchpad = self.bus.read_scratch(rom)
            near = abs(self.last.get(field, 0.0) - 85) < 5
            values[field] = decode(scratchpad, near)
        self.last = values
        return values


def decode(scratchpad: "bytes | bytearray", may_be_85: bool = False) -> float:
    """Temperature in °C of the nine bytes of the scratchpad.

    Args:
        scratchpad: As read.
        may_be_85: The last reading was near 85 °C, so that exactly this value is a measurement.

    Raises:
        SensorError: Wrong checksum, or the value of a probe that was without power during the conversion.
    """
    if crc8(scratchpad[:8], 0x31, 0, True) != scratchpad[8]:
        raise SensorError("DS18B20: wrong checksum")
    if not any(scratchpad):  # an all-zero answer passes the CRC: the wire is shorted to ground
        raise SensorError("DS18B20: the data wire is held low")
    raw = scratchpad[0] | scratchpad[1] << 8
    if raw == _POWER_ON and not may_be_85:
        raise SensorError("DS18B20: 85 °C, its value after power-on: is its supply steady?")
    return (raw - 0x10000 if raw & 0x8000 else raw) / 16

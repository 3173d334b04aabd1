"""Plantower PMS5003 (and PMS7003, PMSA003) over a serial line: fine dust.

Source: Plantower, PMS5003 series data manual, Appendix I (9600 baud, a frame of 32 bytes every
0.2 to 0.8 s, its sum) and Appendix II (commands).
"""

import asyncio

from ..ticks import const
from . import Sensor, SensorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FRAME_BYTES = const(32)
_START = b"\x42\x4d"
_WAKE = b"\x42\x4d\xe4\x00\x01\x01\x74"
_BY_ITSELF = b"\x42\x4d\xe1\x00\x01\x01\x71"


def create(spec: "dict[str, Any]", board: "Any") -> "Pms5003":
    """Make it from an entry such as {"driver": "pms5003", "rx": 27, "tx": 26}."""
    return Pms5003(board.serial(spec["rx"], spec["tx"], 9600))


class Pms5003(Sensor):
    """It tells by itself what it measures; what was told before a reading is forgotten.

    Its fan needs 30 s after power-on to give steady values.

    Args:
        uart: Has `write`, and `read()`, which gives what has come, or None.
    """

    kind = "pms5003"
    model = "PMS5003"
    fields = ("pm1", "pm25", "pm10")
    minimum_interval_seconds = 1.0

    def __init__(self, uart: "Any") -> None:
        self.uart = uart

    async def start(self) -> None:
        for command in (_WAKE, _BY_ITSELF):  # another program may have left it asleep, or waiting to be asked
            self.uart.write(command)
            await asyncio.sleep(0.1)

    async def read(self) -> "dict[str, float]":
        self.uart.read()
        found = b""
        for _ in range(40):
            await asyncio.sleep(0.1)
            found += self.uart.read() or b""
            frame = first_frame(found)
            if frame is not None:
                return decode(frame)
        if found:
            raise SensorError("PMS5003: what it sends is no measurement")
        raise SensorError("PMS5003: it sends nothing")


def first_frame(data: bytes) -> "bytes | None":
    """The first whole frame whose sum is right; None when there is none yet."""
    at = data.find(_START)
    while 0 <= at <= len(data) - FRAME_BYTES:
        frame = data[at : at + FRAME_BYTES]
        if frame[2] << 8 | frame[3] == FRAME_BYTES - 4 and sum(frame[:-2]) == frame[-2] << 8 | frame[-1]:
            return frame
        at = data.find(_START, at + 1)
    return None


def decode(frame: bytes) -> "dict[str, float]":
    """Fine dust in µg/m³ of a frame: the values for air outside a laboratory."""
    return {name: frame[at] << 8 | frame[at + 1] for name, at in (("pm1", 10), ("pm25", 12), ("pm10", 14))}

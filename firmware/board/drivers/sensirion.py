"""What Sensirion's sensors have in common: commands of 16 bits, and answers of words with a checksum behind each.

Source: Sensirion, data sheets SHT3x-DIS §4.12, SCD4x §3.12 and SCD30 interface description §1.1.3: CRC-8, 0x31, 0xFF.
"""

import asyncio

from . import SensorError, crc8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def packet(command: int, *arguments: int) -> bytes:
    """A command, and words as its arguments, each with its checksum."""
    data = bytes([command >> 8, command & 0xFF])
    for word in arguments:
        pair = bytes([word >> 8, word & 0xFF])
        data += pair + bytes([crc8(pair, 0x31, 0xFF)])
    return data


async def ask(i2c: "Any", address: int, command: bytes, count: int, wait_seconds: float, name: str) -> "list[int]":
    """Send a command, wait, and read words.

    Args:
        i2c: Has `writeto` and `readfrom_into`.
        address: Of the sensor.
        command: As sent.
        count: How many words it answers.
        wait_seconds: What it needs until it can answer.
        name: Of the sensor, for the error.

    Raises:
        SensorError: A checksum is wrong.
    """
    i2c.writeto(address, command)
    await asyncio.sleep(wait_seconds)
    data = bytearray(3 * count)
    i2c.readfrom_into(address, data)
    return words(data, name)


def words(data: "bytes | bytearray", name: str) -> "list[int]":
    """The 16-bit words of an answer, in which a checksum follows each.

    Raises:
        SensorError: A checksum is wrong.
    """
    found = []
    for at in range(0, len(data), 3):
        if crc8(data[at : at + 2], 0x31, 0xFF) != data[at + 2]:
            raise SensorError(name + ": wrong checksum")
        found.append(data[at] << 8 | data[at + 1])
    return found

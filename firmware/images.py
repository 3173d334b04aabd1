"""MicroPython images for the chips of the ESP32 family: whether a file is whole, and for which chip it was made.

One invariant: an image that `check` accepts was made for this chip, and every byte of its bootloader and program is
covered by a hash that fits, so that neither a broken download nor the image of another chip is ever written.

It leaves to others: writing (esptool) and whether the makers of the image deserve trust: compare `sha256` for that.

Sources: Espressif, esptool documentation, "Firmware Image Format"; ESP-IDF Programming Guide, "Partition Tables";
esptool, `IMAGE_CHIP_ID` of each target, `FLASH_SIZES`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from .chips import CHIPS, Chip

IMAGE_MAGIC = 0xE9
PARTITIONS_AT = 0x8000  # in flash
PARTITIONS_BYTES = 0xC00  # at most
PARTITION_MAGIC, PARTITION_MD5_MAGIC = 0x50AA, 0xEBEB
APP_TYPE, DATA_TYPE = 0, 1


class ImageError(Exception):
    """The image can't be used; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Image:
    """A file that was found to be whole.

    Attributes:
        path: Where it is.
        sha256: Of the whole file, hexadecimal.
        size: In bytes.
    """

    path: Path
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of the flash, as the partition table has it.

    Attributes:
        label: Its name.
        kind: `APP_TYPE`, `DATA_TYPE`, or one of a maker's own.
        subtype: What of that kind.
        offset: Where it begins in flash.
        size: In bytes.
    """

    label: str
    kind: int
    subtype: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where it ends in flash."""
        return self.offset + self.size


def digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        ImageError: It can't be read.
    """
    return hashlib.sha256(_read(path)).hexdigest()


def check(path: Path, chip: Chip, sha256: str | None = None) -> Image:
    """Read an image and check all the hashes that are in it.

    Args:
        path: The file, as downloaded.
        chip: What it is going to be written to.
        sha256: What the whole file must have, hexadecimal; None when nobody said.

    Raises:
        ImageError: It can't be read, is for another chip, is cut short or altered.
    """
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.strip().lower():
        raise ImageError(f"{path.name} has the SHA-256 {found}, expected {sha256}: download it again")
    if data[:1] != bytes([IMAGE_MAGIC]):
        raise ImageError(f"{path.name} is no ESP32 image: take the .bin file from {chip.download}")
    made_for = _chip_number(data, 0)
    if made_for != chip.number:
        other = next((known.name for known in CHIPS.values() if known.number == made_for), f"chip number {made_for}")
        raise ImageError(f"{path.name} is for {other}, the board has {chip.name}: take the .bin from {chip.download}")
    _check_part(data, 0, f"the bootloader in {path.name}")
    program = next((part for part in partitions(data, chip, path.name) if part.kind == APP_TYPE), None)
    if program is None:
        raise ImageError(f"{path.name} has no partition table: an update (.app-bin) is not enough, take the .bin file")
    start = program.offset - chip.offset
    _check_part(data, start, f"the program in {path.name}")
    if _chip_number(data, start) != chip.number:
        raise ImageError(f"the program in {path.name} is for another chip than its bootloader")
    return Image(path, found, len(data))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None


def _chip_number(data: bytes, start: int) -> int:
    return int.from_bytes(data[start + 12 : start + 14], "little") if len(data) >= start + 24 else -1


def _check_part(data: bytes, start: int, what: str) -> None:
    """Check the SHA-256 at the end of one image inside the file."""
    if len(data) < start + 24 or data[start] != IMAGE_MAGIC:
        raise ImageError(f"{what} is missing: the file is cut short, download it again")
    if data[start + 23] != 1:
        raise ImageError(f"{what} carries no hash, so it can't be checked")
    end = start + 24
    for _ in range(data[start + 1]):
        if len(data) < end + 8:
            raise ImageError(f"{what} is cut short: download it again")
        end += 8 + int.from_bytes(data[end + 4 : end + 8], "little")
    end += 16 - (end - start) % 16  # padding, of which the last byte is a checksum
    if len(data) < end + 32:
        raise ImageError(f"{what} is cut short: download it again")
    if hashlib.sha256(data[start:end]).digest() != data[end : end + 32]:
        raise ImageError(f"{what} does not fit its SHA-256: download it again")


def partitions(data: bytes, chip: Chip, name: str) -> list[Partition]:
    """The partition table in an image; empty when it has none.

    Args:
        data: The image.
        chip: What it is for.
        name: What errors call it.

    Raises:
        ImageError: The table does not fit the MD5 that it carries.
    """
    start = at = PARTITIONS_AT - chip.offset
    found = []
    while len(data) >= at + 32:
        magic, kind, subtype, offset, size, label = struct.unpack_from("<HBBII16s", data, at)
        if magic == PARTITION_MD5_MAGIC:
            table = hashlib.md5(data[start:at], usedforsecurity=False).digest()
            if table != data[at + 16 : at + 32]:
                raise ImageError(f"the partition table in {name} does not fit its MD5: download it again")
            break
        if magic != PARTITION_MAGIC:
            break
        found.append(Partition(label.rstrip(b"\0").decode(errors="replace"), kind, subtype, offset, size))
        at += 32
    return found


def partition_table(rows: list[Partition]) -> bytes:
    """A partition table as it lies in flash, with its MD5.

    Raises:
        ImageError: More rows than it has room for.
    """
    table = b"".join(
        struct.pack("<HBBII16sI", PARTITION_MAGIC, row.kind, row.subtype, row.offset, row.size, row.label.encode(), 0)
        for row in rows
    )
    digest = hashlib.md5(table, usedforsecurity=False).digest()
    table += struct.pack("<H14s", PARTITION_MD5_MAGIC, b"\xff" * 14) + digest
    if len(table) > PARTITIONS_BYTES:
        raise ImageError("the partition table has no room for another row")
    return table


def flash_bytes(data: bytes) -> int:
    """How much flash the image expects at least: the fourth byte of its bootloader says it."""
    return 1 << 20 << (data[3] >> 4)

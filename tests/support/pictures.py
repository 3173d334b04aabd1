"""Small pictures, made without a library."""

from __future__ import annotations

import struct
import zlib

__all__ = ["png"]


def png(width: int, height: int, colour: tuple[int, int, int] = (30, 120, 140)) -> bytes:
    """A PNG of one colour with a lighter diagonal (RFC 2083)."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            rows += bytes(min(255, part + 60) for part in colour) if x * height // width == y else bytes(colour)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    )

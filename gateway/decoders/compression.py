"""gzip (RFC 1952) and zlib (RFC 1950): bytes within bytes.

Invariant: no more than `MAX_INFLATED_BYTES` are ever inflated, whatever a payload says of itself.
"""

from __future__ import annotations

import zlib

from gateway.decoders.failures import DecodeError

__all__ = ["MAX_INFLATED_BYTES", "Compressed", "inflate"]

MAX_INFLATED_BYTES = 128 * 1024
"""As JSON of the shortest numbers it takes 14 ms to be looked through."""

GZIP, ZLIB, DEFLATE = 31, 15, -15
"""The forms, as zlib numbers them."""


def inflate(data: bytes, form: int) -> bytes:
    """What was compressed; one stream, and nothing behind it.

    Raises:
        DecodeError: it is none, or too long.
    """
    stream = zlib.decompressobj(form)
    try:
        found = stream.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise DecodeError(f"it can't be inflated: {error}") from None
    if not stream.eof:
        if len(found) == MAX_INFLATED_BYTES:
            raise DecodeError(f"inflated it has more than {MAX_INFLATED_BYTES} bytes")
        raise DecodeError("what is compressed is cut short")
    if stream.unused_data:
        raise DecodeError("more bytes come behind what is compressed")
    return found


class Compressed:
    """Inflates what others read."""

    max_bytes = MAX_INFLATED_BYTES
    is_plain = False

    def __init__(self, form: int) -> None:
        self._form = form

    def decode(self, _topic: str, data: bytes) -> bytes:
        """The bytes within."""
        return inflate(data, self._form)

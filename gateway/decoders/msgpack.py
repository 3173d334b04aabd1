"""MessagePack, read by msgspec.

Invariant: a type of an application (`ext`) stays the bytes that it is; a timestamp is one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.decoders.failures import DecodeError

__all__ = ["MessagePack"]

MAX_BYTES = 64 * 1024
"""An array of as many empty maps takes 15 ms."""


class MessagePack:
    """One value."""

    max_bytes = MAX_BYTES
    is_plain = False

    def __init__(self) -> None:
        self._decode = msgspec.msgpack.Decoder(ext_hook=lambda _code, data: bytes(data)).decode

    def decode(self, _topic: str, data: bytes) -> Any:
        """The value."""
        try:
            return self._decode(data)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise DecodeError(str(error)) from None

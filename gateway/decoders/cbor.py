"""CBOR (RFC 8949), read by cbor2.

Invariant: of the tags only those of long whole numbers are followed. Any other is passed over, and what it is on stays:
cbor2 would make patterns, messages of e-mail and sets of it. What refers to something before it fails.
"""

from __future__ import annotations

import io
from typing import Any

from gateway.decoders.failures import DecodeError
from gateway.decoders.values import MAX_DEPTH

__all__ = ["Cbor"]

MAX_BYTES = 32 * 1024
"""An array of as many empty maps takes 13 ms."""

SHARED, SHARED_REFERENCE, STRINGS, STRING_REFERENCE = 28, 29, 256, 25


class Cbor:
    """One data item."""

    max_bytes = MAX_BYTES
    is_plain = False

    def __init__(self) -> None:
        import cbor2

        self._decoder = cbor2.CBORDecoder
        self._undefined = cbor2.undefined
        self._simple = cbor2.CBORSimpleValue
        # whatever is built in and not said otherwise: RFC 8949 §3.4, and what cbor2 has beyond it
        self._tags: dict[int, Any] = dict.fromkeys(
            (0, 1, 4, 5, 30, 35, 36, 37, 52, 54, 100, 258, 260, 261, 1004), _inner
        )
        self._tags |= dict.fromkeys((SHARED, STRINGS, 43000, 55799), _inner)
        self._tags |= {2: _positive, 3: _negative}
        self._tags |= dict.fromkeys((SHARED_REFERENCE, STRING_REFERENCE), _reference)

    def decode(self, _topic: str, data: bytes) -> Any:
        """The value."""
        file = io.BytesIO(data)
        value = self._decoder(
            file,
            tag_hook=self._untagged,
            semantic_decoders=self._tags,
            max_depth=MAX_DEPTH,
        ).decode()
        if file.tell() != len(data):
            raise DecodeError("more bytes come behind the data item")
        return self._without_oddities(value) if self._has_oddities(data) else value

    @staticmethod
    def _untagged(tag: Any, _immutable: bool) -> Any:
        return tag.value

    @staticmethod
    def _has_oddities(data: bytes) -> bool:
        """Whether there may be a value that JSON has no word for: `undefined`, or a simple one without a name."""
        return any(byte >> 5 == 7 and (byte & 31 < 20 or byte & 31 in (23, 24)) for byte in data)

    def _without_oddities(self, value: Any) -> Any:
        if value is self._undefined or isinstance(value, self._simple):
            return None
        if isinstance(value, dict):
            return {key: self._without_oddities(item) for key, item in value.items()}
        return [self._without_oddities(item) for item in value] if isinstance(value, list) else value


def _inner(value: Any, _immutable: bool) -> Any:
    return value


def _positive(value: Any, _immutable: bool) -> Any:
    return int.from_bytes(value, "big")


def _negative(value: Any, _immutable: bool) -> Any:
    return -1 - int.from_bytes(value, "big")


def _reference(_value: Any, _immutable: bool) -> Any:
    raise DecodeError("it refers to what came before it, which is not followed")

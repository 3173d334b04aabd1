"""What a decoder has read, as JSON: bounded, and with words for what JSON has none for.

- NaN and both infinities are null.
- A whole number of up to 64 bits is a number with all its digits (JavaScript rounds it beyond 2^53); a longer one is
  text.
- Bytes are base64, a time is ISO 8601, a decimal is its text.
- A key that is no text is the text that it has as a JSON value; bytes are base64.

Invariant: what `to_json` returns is valid JSON of at most `MAX_JSON_BYTES`, with at most `MAX_ITEMS` values and
`MAX_DEPTH` levels, whatever the value is made of.
"""

from __future__ import annotations

import binascii
import datetime
import decimal
import math
import struct
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core.messages import encode_json
from gateway.core.paths import MAX_DEPTH
from gateway.decoders.failures import DecodeError

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "MAX_JSON_BYTES", "Singles", "shortest", "to_json"]

MAX_ITEMS = 10_000
"""Values of one payload, objects and arrays among them: 4 ms."""

MAX_JSON_BYTES = 512 * 1024
"""Of the JSON that a payload becomes."""

MAX_BITS = 4_096
"""Of a whole number: its digits take a time that grows with the square of their number."""


def to_json(value: Any, *, is_plain: bool = False) -> bytes:
    """A value as JSON.

    Args:
        value: what was read.
        is_plain: it is bounded already, and of what JSON has words for, and bytes; numbers have up to 64 bits.

    Raises:
        DecodeError: it has too much, or something that has no form in JSON.
    """
    try:
        # of itself the encoder makes null of NaN and infinities, and base64 of bytes
        token = encode_json(value if is_plain else _Room().plain(value, MAX_DEPTH))
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError, TypeError) as error:
        raise DecodeError(f"it has no form in JSON: {error}") from None
    if len(token) > MAX_JSON_BYTES:
        raise DecodeError(f"it is JSON of more than {MAX_JSON_BYTES} bytes")
    return token


class Singles:
    """A value whose fractions are all of single precision (`shortest`)."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Room:
    """What is left of the bounds while one value is walked through."""

    __slots__ = ("bytes", "has_singles", "items")

    def __init__(self) -> None:
        self.items = MAX_ITEMS
        self.bytes = MAX_JSON_BYTES
        self.has_singles = False

    def plain(self, value: Any, depth: int) -> Any:
        """The same of what JSON has words for."""
        self.items -= 1
        if self.items < 0:
            raise DecodeError(f"it has more than {MAX_ITEMS} values")
        kind = value.__class__
        if kind is float:
            if not math.isfinite(value):
                return None
            return shortest(value) if self.has_singles else value
        if kind is int:
            return value if -(2**63) <= value < 2**64 else self._take(_digits(value))
        if kind is str:
            return self._take(value)
        if value is None or kind is bool:
            return value
        if kind is dict or kind is list:
            if depth == 0:
                raise DecodeError(f"it is nested deeper than {MAX_DEPTH} levels")
            if kind is list:
                return [self.plain(item, depth - 1) for item in value]
            return {self._key(key, depth): self.plain(item, depth - 1) for key, item in value.items()}
        return self._rare(value, depth)

    def _rare(self, value: Any, depth: int) -> Any:
        match value:
            case bytes() | bytearray() | memoryview():
                self._check(len(value))
                return self._take(binascii.b2a_base64(value, newline=False).decode())
            case datetime.datetime() | datetime.date() | datetime.time():
                return self._take(value.isoformat())
            case datetime.timedelta():
                return value.total_seconds()
            case decimal.Decimal() | uuid.UUID():
                return self._take(str(value))
            case Mapping():
                return self.plain(dict(value), depth)
            case Singles():
                self.has_singles = True
                return self.plain(value.value, depth)
            case tuple() | set() | frozenset():
                return self.plain(list(value), depth)
        raise DecodeError(f"it has a {type(value).__name__}, which has no form in JSON")

    def _key(self, key: Any, depth: int) -> str:
        if key.__class__ is str:
            return self._take(key)
        shown = self.plain(key, depth - 1)
        return shown if shown.__class__ is str else self._take(encode_json(shown).decode())

    def _take(self, text: str) -> str:
        self._check(len(text))
        self.bytes -= len(text)
        return text

    def _check(self, size: int) -> None:
        if size > self.bytes:
            raise DecodeError(f"it is JSON of more than {MAX_JSON_BYTES} bytes")


def _digits(number: int) -> str:
    if number.bit_length() > MAX_BITS:
        raise DecodeError(f"it has a whole number of more than {MAX_BITS} bits")
    return str(number)


_pack_single = struct.Struct("<f").pack


def shortest(number: float) -> float:
    """A number of single precision with the fewest digits that stand for it: 21.1, not 21.100000381469727."""
    if not math.isfinite(number):
        return number
    same = _pack_single(number)
    for digits in (6, 7, 8):
        text = float(f"{number:.{digits}g}")
        # rounded up, the largest numbers are beyond what single precision has
        if abs(text) < 3.4e38 and _pack_single(text) == same:
            return text
    return number

r"""InfluxDB line protocol: `weather,city=Ulm temperature=21.5,rain=f 1790000000000000000`.

A line becomes `{"measurement":…,"tags":{…},"fields":{…},"timestamp":…}`; tags and timestamp only where there are some.
One line is an object, several are an array of them. A timestamp stays the number that it is: its unit is the
publisher's.

Invariant: what the protocol does not allow fails as a whole; nothing of a payload is left out in silence. Of two
repetitions in a row no character fits both, so that what fails does so in a time that grows with its length only.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.decoders.failures import DecodeError

__all__ = ["Lines"]

MAX_BYTES = 32 * 1024
MAX_PARTS = 4_000
"""Measurements, and names and values of tags and fields: 12 ms."""

_NAME = r"[^\\,= \n]*(?:\\.[^\\,= \n]*)*"
_MEASUREMENT = re.compile(r"[^\\, \n]*(?:\\.[^\\, \n]*)*")
_TAG = re.compile(rf",({_NAME})=({_NAME})")
_FIELD = re.compile(rf'({_NAME})=(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^", \r\n]+))(,?)', re.DOTALL)
_END = re.compile(r" *(?:(-?[0-9]{1,19}) *)?\r?(?:\n|\Z)")
_ESCAPED = re.compile(r"\\([,= \\])")
_QUOTED = re.compile(r'\\(["\\])')
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WHOLE = re.compile(r"(-?[0-9]{1,20})[iu]")
_OTHERS = re.compile(r"(?:[ \t\r]*(?:#[^\n]*)?\n)*[ \t\r]*(?:#[^\n]*\Z)?")
_BOOLEANS = {"t": True, "T": True, "true": True, "True": True, "TRUE": True} | {
    "f": False, "F": False, "false": False, "False": False, "FALSE": False
}  # fmt: skip


class Lines:
    """The lines of one payload."""

    max_bytes = MAX_BYTES
    is_plain = True

    def decode(self, _topic: str, data: bytes) -> Any:
        """An object for a line, an array of them for several."""
        try:
            reader = _Reader(data.decode())
        except UnicodeDecodeError:
            raise DecodeError("it is not UTF-8") from None
        lines = list(iter(reader.line, None))
        if not lines:
            raise DecodeError("it has no line")
        return lines[0] if len(lines) == 1 else lines


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._parts = 0

    def line(self) -> dict[str, Any] | None:
        """The next line, empty ones and comments passed over; None at the end."""
        self._need(_OTHERS, "")
        return self._point() if self._at < len(self._text) else None

    def _point(self) -> dict[str, Any]:
        found: dict[str, Any] = {"measurement": self._named(self._need(_MEASUREMENT, "a measurement")[0])}
        tags: dict[str, str] = {}
        while self._text.startswith(",", self._at):
            tag = self._need(_TAG, "a tag")
            tags[self._named(tag[1])] = self._named(tag[2])
        if tags:
            found["tags"] = tags
        if not self._text.startswith(" ", self._at):
            raise self._fault("a space before the fields")
        while self._text.startswith(" ", self._at):
            self._at += 1
        found["fields"] = fields = {}
        has_more = ","
        while has_more:
            _, quoted, bare, has_more = (field := self._need(_FIELD, "a field")).groups()
            key = self._named(field[1])
            fields[key] = self._value(bare, field.start(3)) if quoted is None else _QUOTED.sub(r"\1", quoted)
        end = self._need(_END, "a timestamp or the end of the line")
        if end[1]:
            found["timestamp"] = int(end[1])
        return found

    def _value(self, bare: str, at: int) -> Any:
        if _NUMBER.fullmatch(bare) is not None:
            return float(bare)
        if bare in _BOOLEANS:
            return _BOOLEANS[bare]
        if _WHOLE.fullmatch(bare) is not None and -(2**63) <= (number := int(bare[:-1])) < 2**64:
            return number
        self._at = at
        raise self._fault("a number, a boolean or a text in quotes")

    def _named(self, name: str) -> str:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise DecodeError(f"it has more than {MAX_PARTS} names")
        if not name:
            raise self._fault("a name that is not empty")
        return _ESCAPED.sub(r"\1", name) if "\\" in name else name

    def _need(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._fault(what)
        self._at = found.end()
        return found

    def _fault(self, expected: str) -> DecodeError:
        number = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        return DecodeError(f"line {number}, character {column}: expected {expected}")

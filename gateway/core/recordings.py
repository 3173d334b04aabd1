"""Recordings: messages in a file, as `gateway record` writes them and `/topics/{filter}` offers them for download.

NDJSON has one envelope a line; other lines, such as those of a gap, are passed over. CSV has a row for each message,
with its payload, or with a column for each field.

Invariant: a line at a time is held, so that a recording may be of any length; a line that is wrong is named.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, TextIO

import msgspec

from gateway.core.fields import Field, nest
from gateway.core.paths import Path, PathError
from gateway.core.topics import TopicError, validate_topic

__all__ = ["Recorded", "csv_line", "is_csv", "read_csv", "read_ndjson"]


class Recorded(NamedTuple):
    """One message of a recording.

    Attributes:
        line: where it stands.
        seconds: when it came, since 1970.
        topic, payload, qos, retained: as it was published.
        properties: of MQTT 5, as they stand in an envelope; None without any.
    """

    line: int
    seconds: float
    topic: str
    payload: bytes
    qos: int
    retained: bool
    properties: dict[str, Any] | None


class _Properties(msgspec.Struct, omit_defaults=True):
    """What the gateway relays of MQTT 5 properties."""

    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: str | None = None
    user_properties: list[tuple[str, str]] | None = None
    message_expiry_interval: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None


class _Envelope(msgspec.Struct):
    topic: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"null")
    time: float | str = 0.0
    encoding: str | None = None
    qos: int = 0
    retained: bool = False
    properties: _Properties | None = None


_decode_properties = msgspec.json.Decoder(_Properties).decode
_decode = msgspec.json.Decoder(_Envelope).decode
_decode_text = msgspec.json.Decoder(str).decode


def is_csv(name: str, head: bytes) -> bool:
    """Whether a file is CSV: by the end of its name, or, where that is `-`, by how it begins."""
    return name.endswith(".csv") or (name == "-" and head.lstrip()[:1] not in (b"{", b""))


def read_ndjson(lines: Iterable[bytes]) -> Iterator[Recorded]:
    """The messages of NDJSON.

    Raises:
        ValueError: a line is wrong; the text names it.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            envelope = _decode(line)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise ValueError(f"line {number}: {error}") from None
        except RecursionError:
            raise ValueError(f"line {number}: nested too deep") from None
        if envelope.topic is None:
            continue  # an event, such as a gap
        payload = bytes(envelope.payload)
        if payload.startswith(b'"'):
            payload = _unpack(_decode_text(payload), envelope.encoding, number)
        properties = _told(envelope.properties)
        yield _checked(
            Recorded(
                number,
                _seconds(envelope.time, number),
                envelope.topic,
                payload,
                envelope.qos,
                envelope.retained,
                properties,
            )
        )


def read_csv(file: TextIO) -> Iterator[Recorded]:
    """The messages of CSV; the file must be opened with `newline=""`.

    Raises:
        ValueError: a line is wrong; the text names it.
    """
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(file)
    try:
        yield from _from_rows(reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def _from_rows(reader: csv.DictReader[str]) -> Iterator[Recorded]:
    columns = reader.fieldnames or []
    for name in ("time", "topic"):
        if name not in columns:
            raise ValueError(f"no column {name!r}: expected time, topic and payload")
    known = ("time", "seq", "topic", "payload", "encoding", "qos", "retained", "properties")
    fields = {name: _path(name) for name in columns if name not in known}
    for row in reader:
        number = reader.line_num
        qos = int(row.get("qos") or 0) if (row.get("qos") or "0").isdecimal() else -1
        if "payload" in columns:
            payload = _unpack(row["payload"] or "", row.get("encoding"), number)
        else:
            values = {path: _value(row[name] or "") for name, path in fields.items() if row[name]}
            payload = json.dumps(nest(values), ensure_ascii=False, separators=(",", ":")).encode()
        retained = (row.get("retained") or "").lower() in ("1", "true", "yes")
        try:
            told = _decode_properties(row["properties"]) if row.get("properties") else None
        except msgspec.MsgspecError as error:
            raise ValueError(f"line {number}: properties: {error}") from None
        seconds = _seconds(row["time"] or "", number)
        yield _checked(Recorded(number, seconds, row["topic"] or "", payload, qos, retained, _told(told)))


def _path(column: str) -> Path:
    """Where the values of a column belong; a heading that is no path is a name."""
    try:
        return Field.at(column).path
    except PathError:
        return (column,)


def _told(properties: _Properties | None) -> dict[str, Any] | None:
    return msgspec.to_builtins(properties) or None if properties is not None else None


def _checked(message: Recorded) -> Recorded:
    try:
        validate_topic(message.topic)
    except TopicError as error:
        raise ValueError(f"line {message.line}: {error}") from None
    if message.qos not in (0, 1, 2):
        raise ValueError(f"line {message.line}: qos is 0, 1 or 2")
    return message


def _unpack(text: str, encoding: str | None, number: int) -> bytes:
    if encoding != "base64":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"line {number}: payload is no base64") from None


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _seconds(value: float | str, number: int) -> float:
    """Seconds of milliseconds since 1970, or of a date and time (ISO 8601)."""
    try:
        seconds = float(value) / 1000
    except ValueError:
        try:
            moment = datetime.fromisoformat(str(value))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            seconds = math.nan
    if not abs(seconds) < 1e12:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:60] + "…"
        raise ValueError(f"line {number}: time {shown}: milliseconds since 1970, or a date and time")
    return seconds


_SPECIAL = re.compile('[",\r\n]')


def csv_line(cells: Sequence[str]) -> str:
    """A row of a table by RFC 4180; the standard library looks at each character: 20 ms for one of a million."""
    return ",".join(_quoted(cell) if _SPECIAL.search(cell) else cell for cell in cells) + "\r\n"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'

"""Publishes a recording again, with its original spacing.

Reads what ``gateway record`` writes and what ``/topics/{filter}`` offers for download: NDJSON with one envelope a line,
and CSV.
"""

import base64
import csv
import datetime
import io
import json
import logging
import math
import secrets
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Annotated, Any, NamedTuple

import msgspec

from gateway.core.fields import Field, nest
from gateway.core.paths import Path, PathError
from sensors_sim.address import BrokerAddress
from sensors_sim.checks import shown
from sensors_sim.custom import checked_topic
from sensors_sim.links import Link, Links, LinkState, packed_properties
from sensors_sim.messages import Message

logger = logging.getLogger(__name__)

MAX_UNCONFIRMED = 1000
"""Messages on their way to the broker; further ones wait, since a recording must arrive whole."""


class Recorded(NamedTuple):
    """One message of a recording."""

    offset: float
    """Seconds since the first message."""
    message: Message


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


def read_recording(path: str) -> list[Recorded]:
    """All messages of a file, in their order.

    Args:
        path: A name that ends in ``.csv`` is CSV, all else NDJSON; ``-`` is standard input.

    Raises:
        ValueError: It can't be read, or a line is wrong (the text names it), or there is no message in it.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else FilePath(path).read_bytes()
    except OSError as error:
        raise ValueError(f"recording {path}: {error.strerror or error}") from None
    try:
        timed = list(_from_csv(data) if _is_csv(path, data) else _from_ndjson(data))
    except ValueError as error:
        raise ValueError(f"recording {path}: {error}") from None
    if not timed:
        raise ValueError(f"recording {path}: no message in it")
    first = timed[0][0]
    recording = []
    latest = 0.0
    for moment, message in timed:
        # The order of the file counts: a clock that was set back while recording must not reorder messages.
        latest = max(latest, moment - first)
        recording.append(Recorded(latest, message))
    return recording


def _is_csv(path: str, data: bytes) -> bool:
    if path.endswith(".csv"):
        return True
    head = data.lstrip()[:1]
    return path == "-" and head not in (b"{", b"")


def _from_ndjson(data: bytes) -> Iterable[tuple[float, Message]]:
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            envelope = _decode(line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"line {number}: {error}") from None
        except RecursionError:
            raise ValueError(f"line {number}: nested too deep") from None
        if envelope.topic is None:
            continue  # an event, such as a gap
        _check(envelope.topic, envelope.qos, number)
        payload = bytes(envelope.payload)
        if payload.startswith(b'"'):
            text = msgspec.json.decode(payload, type=str)
            payload = _unpack(text, envelope.encoding, number)
        properties = _checked_properties(envelope.properties, number)
        message = Message(envelope.topic, payload, envelope.qos, envelope.retained, properties)
        yield _seconds(envelope.time, number), message


def _from_csv(data: bytes) -> Iterable[tuple[float, Message]]:
    csv.field_size_limit(max(len(data), csv.field_size_limit()))
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    try:
        yield from _from_rows(reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def _from_rows(reader: "csv.DictReader[str]") -> Iterable[tuple[float, Message]]:
    columns = reader.fieldnames or []
    for name in ("time", "topic"):
        if name not in columns:
            raise ValueError(f"no column {name!r}: expected time, topic and payload")
    known = ("time", "seq", "topic", "payload", "encoding", "qos", "retained", "properties")
    fields = {name: _path(name) for name in columns if name not in known}
    for row in reader:
        number = reader.line_num
        topic = row["topic"] or ""
        qos = int(row.get("qos") or 0) if (row.get("qos") or "0").isdecimal() else -1
        _check(topic, qos, number)
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
        properties = _checked_properties(told, number)
        yield _seconds(row["time"] or "", number), Message(topic, payload, qos, retained, properties)


def _path(column: str) -> Path:
    """Where the values of a column belong; a heading that is no path is a name."""
    try:
        return Field.at(column).path
    except PathError:
        return (column,)


def _checked_properties(properties: _Properties | None, number: int) -> dict[str, Any] | None:
    if properties is None:
        return None
    told: dict[str, Any] = msgspec.to_builtins(properties)
    try:
        packed_properties(told)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    return told or None


def _check(topic: str, qos: int, number: int) -> None:
    try:
        checked_topic(topic)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    if qos not in (0, 1, 2):
        raise ValueError(f"line {number}: qos is 0, 1 or 2")


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
            moment = datetime.datetime.fromisoformat(str(value))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
        except (ValueError, OverflowError):
            seconds = math.nan
    if not abs(seconds) < 1e12:
        raise ValueError(f"line {number}: time {shown(value)}: milliseconds since 1970, or a date and time")
    return seconds


class Replay:
    """Publishes a recording.

    Args:
        recording: What.
        address: Where to.
        speed: Seconds of the recording in a second.
        loop: Whether to begin again at the end; the gap between two rounds is the mean spacing.
        prefix: Put in front of every topic.
        max_gap: Longer silences are shortened to so many seconds of the recording; None: they are kept.
    """

    def __init__(
        self,
        recording: list[Recorded],
        address: BrokerAddress,
        *,
        speed: float = 1.0,
        loop: bool = False,
        prefix: str = "",
        max_gap: float | None = None,
    ) -> None:
        self._recording = _shortened(recording, max_gap) if max_gap is not None else recording
        self._speed = speed
        self._loop = loop
        self._prefix = prefix
        self._links = Links(address, speaks_5=any(recorded.message.properties for recorded in recording))
        self._link = Link(f"sensors-sim-replay-{secrets.token_hex(4)}", None, [], "replay")
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Make ``run`` return; may be called from a signal handler."""
        self._stopped.set()

    def run(self) -> int:
        """Publish it all, or until stopped; returns how many messages."""
        self._links.open(self._link)
        count = 0
        try:
            while self._link.state is not LinkState.UP and not self._stopped.is_set():
                self._links.turn(0.05)
            start = time.monotonic()
            while not self._stopped.is_set():
                for recorded in self._recording:
                    self._wait_until(start + recorded.offset / self._speed)
                    if self._stopped.is_set():
                        break
                    self._publish(recorded.message)
                    count += 1
                    if count % 100 == 0:
                        self._links.turn(0)
                if not self._loop:
                    break
                length = self._recording[-1].offset
                start += (length + length / max(1, len(self._recording) - 1)) / self._speed
                # A recording of no length would loop without a pause.
                start = max(start, time.monotonic() - 1.0) if length else time.monotonic() + 1.0
            while self._link.backlog and not self._stopped.is_set():
                self._links.turn(0.02)
        finally:
            self._links.close()
        return count

    def _publish(self, message: Message) -> None:
        while not self._stopped.is_set():
            if self._link.state is LinkState.UP and self._link.backlog < MAX_UNCONFIRMED:
                self._links.publish(self._link, message._replace(topic=self._prefix + message.topic))
                return
            self._links.turn(0.02)

    def _wait_until(self, due: float) -> None:
        while not self._stopped.is_set():
            left = due - time.monotonic()
            if left <= 0:
                return
            self._links.turn(min(0.05, left))


def _shortened(recording: list[Recorded], max_gap: float) -> list[Recorded]:
    shortened = []
    last = now = 0.0
    for recorded in recording:
        now += min(max_gap, recorded.offset - last)
        last = recorded.offset
        shortened.append(Recorded(now, recorded.message))
    return shortened

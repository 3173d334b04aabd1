"""One arrival and its bytes: the JSON envelope, WebSocket and SSE frames.

Invariant: a message is encoded once, when it arrives, into the WebSocket text frame that most subscribers get; the
payload is kept inside that frame and every other form is cut from it. Nothing here knows subscribers or sockets.
"""

from __future__ import annotations

import binascii
import enum
import json
from collections.abc import Mapping
from typing import Any, TypedDict, cast

import msgspec

from gateway.core.frames import TEXT_HEADERS, frame_binary, frame_text, text_header

__all__ = ["DecodedMessage", "Kind", "Message", "Properties", "decode_properties", "encode_properties", "encode_topic"]


class Properties(TypedDict, total=False):
    """MQTT 5 properties of a PUBLISH that are relayed (MQTT 5 §3.3.2.3); only those that were set are there."""

    content_type: str
    response_topic: str
    correlation_data: bytes
    user_properties: list[tuple[str, str]]
    message_expiry_interval: int  # seconds


class Kind(enum.IntEnum):
    """How a payload stands in the envelope."""

    JSON = 0
    """Strictly valid JSON, as it came or as a decoder made it."""
    TEXT = 1
    """UTF-8 but not JSON, or JSON that not every client can read: a JSON string."""
    BASE64 = 2
    """Neither, or what no decoder could read: a string of base64, with `"encoding":"base64"`."""


MAX_DIGITS = 4_300
"""Of a whole number in JSON: clients in Python refuse the whole message for a longer one (`sys.int_info`)."""

# Decoding to Raw checks the grammar without building objects (a third of the time of a whole decode), but not the UTF-8
# inside strings: that is what `bytes.decode` is for.
_check_json = msgspec.json.Decoder(msgspec.Raw).decode
_decode_json = msgspec.json.Decoder().decode
encode_json = msgspec.json.Encoder().encode
# a member of an enumeration takes 0.1 µs to look up
_JSON, _BASE64 = Kind.JSON, Kind.BASE64
_RETAINED = b',"retained":true'
_TAIL = b"}"
_BASE64_TAIL = b',"encoding":"base64"}'


def encode_topic(topic: str) -> bytes:
    """The start of every envelope of this topic: `{"topic":"…","payload":`."""
    return b'{"topic":%b,"payload":' % encode_json(topic)


def _encode_payload(payload: bytes) -> tuple[bytes, Kind]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return b'"%b"' % binascii.b2a_base64(payload, newline=False), Kind.BASE64
    try:
        _check_json(payload)
        if len(payload) > MAX_DIGITS:
            _check_numbers(payload)
    except (msgspec.DecodeError, RecursionError, _TooManyDigitsError):
        return encode_json(text), Kind.TEXT
    return payload, Kind.JSON


class _TooManyDigitsError(Exception):
    pass


def _check_numbers(payload: bytes) -> None:
    """Finds a whole number of more than `MAX_DIGITS`, in a time that is nothing beside that of `_check_json`."""
    # wherever so many digits stand in a row, one of them is in each stretch of that length
    if any(48 <= byte <= 57 for byte in payload[MAX_DIGITS :: MAX_DIGITS + 1]):
        json.loads(payload, parse_int=_check_digits, parse_float=len, parse_constant=len)


def _check_digits(number: str) -> int:
    if len(number) - number.startswith("-") > MAX_DIGITS:
        raise _TooManyDigitsError
    return 0


def encode_properties(properties: Properties, waited_ms: int = 0) -> dict[str, Any]:
    """Properties as they stand in an envelope: correlation data as base64, user properties as pairs.

    `waited_ms` is how long the message has been here, by which its expiry interval is shorter (MQTT 5 §3.3.2.3.3).
    """
    shown: dict[str, Any] = dict(properties)
    if (interval := properties.get("message_expiry_interval")) is not None:
        shown["message_expiry_interval"] = max(interval - max(waited_ms, 0) // 1000, 0)
    if (correlation := properties.get("correlation_data")) is not None:
        shown["correlation_data"] = binascii.b2a_base64(correlation, newline=False).decode()
    return shown


def decode_properties(shown: Mapping[str, Any]) -> Properties:
    """Properties again, from what stands in an envelope.

    Raises:
        ValueError: correlation data is no base64.
    """
    found: dict[str, Any] = dict(shown)
    if (correlation := found.get("correlation_data")) is not None:
        found["correlation_data"] = binascii.a2b_base64(correlation, strict_mode=True)
    if (pairs := found.get("user_properties")) is not None:
        found["user_properties"] = [(name, value) for name, value in pairs]
    return cast("Properties", found)


# Hundreds of thousands live for hours; a collector that looked at each of them would stop the loop for 0.6 s.
class Message(msgspec.Struct, gc=False, eq=False):
    """One arrival: topic, payload, QoS, retained flag, time and the sequence number that history gave it.

    Attributes:
        seq: position in the log, from 1.
        topic: topic name.
        time: milliseconds since 1970, when the gateway received it.
        qos: 0, 1 or 2, as the broker delivered it.
        retained: the broker keeps it, now, as the topic's retained message.
        properties: MQTT 5 properties, None when there were none.
        kind: how the payload stands in the envelope.
        frame: the WebSocket text frame of the envelope.
    """

    seq: int
    topic: str
    time: int
    qos: int
    retained: bool
    properties: Properties | None
    kind: Kind
    frame: bytes
    _head: int
    _start: int
    _end: int

    @classmethod
    def arrived(
        cls,
        seq: int,
        topic: str,
        payload: bytes,
        time: int,
        qos: int = 0,
        retained: bool = False,
        properties: Properties | None = None,
        topic_head: bytes | None = None,
    ) -> Message:
        """Encodes an arrival. `topic_head` is `encode_topic(topic)`, for callers that kept it."""
        head = encode_topic(topic) if topic_head is None else topic_head
        # most payloads are short JSON in ASCII, and there are up to 100,000 a second (benchmark S9): no call more
        token, kind = payload, _JSON
        if payload.isascii() and len(payload) <= MAX_DIGITS:
            try:
                _check_json(payload)
            except (msgspec.DecodeError, RecursionError):
                token, kind = encode_json(payload.decode()), Kind.TEXT
        else:
            token, kind = _encode_payload(payload)
        tail = _TAIL if kind is not _BASE64 else _BASE64_TAIL
        if retained or qos:
            if qos:
                tail = b',"qos":%d%b' % (qos, tail)
            if retained:
                tail = _RETAINED + tail
        rest = b',"time":%d,"seq":%d%b' % (time, seq, tail)
        end = len(head) + len(token)
        size = end + len(rest)
        header = TEXT_HEADERS[size] if size < 1_024 else text_header(size)
        at = len(header)
        frame = b"".join((header, head, token, rest))
        return cls(seq, topic, time, qos, retained, properties, kind, frame, at, at + len(head), at + end)

    def let_go(self) -> None:
        """The broker keeps it no longer: neither the object nor its frame says so from now on."""
        body = self.frame[self._head :]
        at = body.index(_RETAINED, self._end - self._head)  # behind the payload
        frame = frame_text(body[:at] + body[at + len(_RETAINED) :])
        shift = len(frame) - (len(body) - len(_RETAINED)) - self._head
        self.retained, self.frame = False, frame
        self._head += shift
        self._start += shift
        self._end += shift

    @property
    def body(self) -> bytes:
        """The JSON envelope."""
        return self.frame[self._head :]

    @property
    def token(self) -> bytes:
        """The payload as it stands in the envelope: a JSON value."""
        return self.frame[self._start : self._end]

    @property
    def payload(self) -> bytes:
        """The payload as it arrived."""
        token = self.frame[self._start : self._end]
        if self.kind is Kind.JSON:
            return token
        if self.kind is Kind.TEXT:
            text: str = _decode_json(token)
            return text.encode()
        return binascii.a2b_base64(token[1:-1])

    @property
    def decoded(self) -> bytes | None:
        """The JSON that a decoder made of the payload, empty where that failed; None where none was to."""
        return None

    @property
    def shown(self) -> bytes:
        """What is looked at for values: the JSON that a decoder made, empty where that failed; else the payload."""
        return self.payload if self.decoded is None else self.decoded

    @property
    def is_text(self) -> bool:
        """Whether the payload as it arrived is UTF-8."""
        return self.kind is not Kind.BASE64

    @property
    def text(self) -> bytes:
        """The payload as it arrived where that is UTF-8, else in base64."""
        return self.payload if self.kind is not Kind.BASE64 else self.token[1:-1]

    @property
    def is_empty(self) -> bool:
        """Whether the payload has no bytes, by which a retained message is cleared."""
        return self.kind is Kind.TEXT and self._end - self._start == 2

    def value(self) -> Any:
        """The payload as a JSON value: an object, a number, …; the text or base64 of what is not JSON.

        A number beyond the range of a float (`1e999`) and a nesting that only just fitted come back as None.
        """
        try:
            return _decode_json(self.token)
        except (msgspec.MsgspecError, RecursionError):
            return None

    def with_members(self, members: Mapping[str, Any], *, token: bytes | None = None) -> bytes:
        """The envelope with more members at its end, and with another payload if `token` (JSON) is given."""
        body = self.body if token is None else self.frame[self._head : self._start] + token + self.frame[self._end :]
        if token is not None and self.kind is Kind.BASE64:
            body = body.removesuffix(_BASE64_TAIL) + _TAIL
        return body[:-1] + b"," + encode_json(members)[1:] if members else body

    def raw_frame(self) -> bytes:
        """Only the payload: a text frame when it is UTF-8, else a binary one."""
        return frame_binary(self.payload) if self.kind is Kind.BASE64 else frame_text(self.payload)


_NO_PROPERTIES: Properties = {}
_FAILED_TAIL = b',"decode":"failed"' + _BASE64_TAIL  # base64 last, as in every envelope that has it


class DecodedMessage(Message, gc=False, eq=False):
    """A message whose payload a decoder was to make JSON of; the payload as it came is kept beside it.

    It always has `properties`, be they empty: so the log looks for what else a message costs only where it has any.

    Attributes:
        origin: the payload as it came.
    """

    origin: bytes

    @classmethod
    def made(
        cls,
        seq: int,
        topic: str,
        payload: bytes,
        time: int,
        qos: int,
        retained: bool,
        properties: Properties | None,
        topic_head: bytes,
        decoded: bytes,
    ) -> DecodedMessage:
        """Encodes it; the arguments are those of `Message.arrived` and `decoded`."""
        token = decoded or b'"%b"' % binascii.b2a_base64(payload, newline=False)
        flags = _RETAINED if retained else b""
        if qos:
            flags += b',"qos":%d' % qos
        rest = b',"time":%d,"seq":%d%b%b' % (time, seq, flags, _TAIL if decoded else _FAILED_TAIL)
        frame = frame_text(topic_head + token + rest)
        at = len(frame) - len(topic_head) - len(token) - len(rest)
        start = at + len(topic_head)
        kind = Kind.JSON if decoded else Kind.BASE64
        known = properties or _NO_PROPERTIES
        return cls(seq, topic, time, qos, retained, known, kind, frame, at, start, start + len(token), payload)

    @property
    def payload(self) -> bytes:
        """See `Message.payload`."""
        return self.origin

    @property
    def is_empty(self) -> bool:
        """See `Message.is_empty`."""
        return not self.origin

    @property
    def decoded(self) -> bytes:
        """See `Message.decoded`."""
        return self.token if self.kind is Kind.JSON else b""

    @property
    def is_text(self) -> bool:
        """See `Message.is_text`."""
        try:
            self.origin.decode()
        except UnicodeDecodeError:
            return False
        return True

    @property
    def text(self) -> bytes:
        """See `Message.text`."""
        return self.origin if self.is_text else binascii.b2a_base64(self.origin, newline=False)

    def raw_frame(self) -> bytes:
        """See `Message.raw_frame`."""
        return frame_text(self.origin) if self.is_text else frame_binary(self.origin)

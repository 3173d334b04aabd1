"""What is said over a connection: commands in, events out, `since`, error codes and close codes.

Invariant: any input gives either a command or a `ProtocolError` with a documented code, never another exception.
Carrying the words is for routes; acting on them for the hub.
"""

from __future__ import annotations

import enum
import itertools
import re
from typing import Annotated, Any

import msgspec

from gateway.core.messages import Properties

__all__ = [
    "ALERT_EVENTS",
    "CLOSE_CODES",
    "COMMANDS",
    "DEVICE_EVENTS",
    "ERROR_CODES",
    "EVENTS",
    "EVENT_STREAM_EVENTS",
    "GAP_REASONS",
    "SUBPROTOCOLS",
    "Authenticate",
    "CloseCode",
    "Command",
    "Ping",
    "ProtocolError",
    "Publish",
    "Subscribe",
    "Unsubscribe",
    "command_id",
    "encode_event",
    "error_event",
    "parse_command",
]


ERROR_CODES = {
    "bad_request": "The address has an unknown parameter or path, or a header or token is there twice.",
    "bad_command": "The command is not valid JSON, has no known `command`, or a member has the wrong type.",
    "bad_topic": "A topic or topic filter breaks a rule of MQTT.",
    "bad_since": "`since` is neither last, now, a time back, an ISO time nor a position of this log.",
    "bad_shape": "max_hz, mode, fields, deadband, where or format can't be had.",
    "bad_payload": "The payload to publish can't be encoded, or is too large.",
    "unknown_stream": "No stream of that name is configured.",
    "unauthorized": "A token is needed, or this one is not valid.",
    "forbidden": "No grant covers this topic or filter.",
    "limit": "A limit was reached; the text names it.",
    "upstream_unavailable": "The gateway is not connected to the broker now.",
    "publish_refused": "The broker refused the message.",
    "stopping": "The gateway stops or restarts: it no longer waits for the rest of this request. Come back.",
    "internal": "A fault of the gateway; its log says more.",
}
"""Code of every `error` event and problem document, and what it means."""

EVENTS = {
    "subscribed": "Answer to subscribe, and the first frame when the address names topics.",
    "replayed": "All that a subscribe command with an `id` asked for of the past has come.",
    "unsubscribed": "Answer to unsubscribe.",
    "published": "Answer to publish: the broker has the message (QoS 1 and 2), or it was handed over (QoS 0).",
    "authenticated": "Answer to authenticate.",
    "pong": "Answer to ping.",
    "gap": "Messages that this subscriber will not get, how many and why.",
    "upstream": "The gateway's link to the broker went down or came back.",
    "archive": "What arrives is no longer kept in the gateway's archive, or is kept again.",
    "expiring": "The token ends soon: authenticate with a new one to stay.",
    "error": "A command failed; the connection lives unless a close follows.",
}

EVENT_STREAM_EVENTS = {
    "position": "Its id is the position up to which everything has come: after the replay, and in a silence.",
}
"""What only server-sent events have besides `EVENTS`."""

ALERT_EVENTS = {
    "alert": "How it is with an alert, as far as the asker may know: each at first, then each that changes.",
}
"""What the event stream of `/alerts` has."""

DEVICE_EVENTS = {
    "devices": "The stream begins: all devices follow.",
    "device": "A device, as it is now.",
    "gone": "The device of this id is known no longer, or by another id.",
    "known": "All devices that are known have come; from here on changes come.",
}
"""What the stream of changes of devices has besides `expiring`."""


GAP_REASONS = {
    "slow": "The connection took data more slowly than history could keep it.",
    "evicted": "The bounds of history have been reached since the position, or during the replay.",
    "epoch": "The gateway was restarted; its log began anew.",
    "limit": "`since` reaches back further than one replay may.",
    "crash": "The gateway ended without warning; what it had not yet written to its archive is gone.",
}
"""Why a subscriber will not get messages."""


SUBPROTOCOLS = ("gateway.v1", "json")
"""Sub-protocols (RFC 6455 §1.9) that a handshake may ask for; each means what is said here, as asking for none does."""


class CloseCode(enum.IntEnum):
    """Why the gateway closes a WebSocket; from 4000 up our own (RFC 6455 §7.4.2)."""

    NORMAL = 1000
    PROTOCOL = 1002
    NOT_UTF8 = 1007
    RESTART = 1012
    TOO_LARGE = 1009
    INTERNAL = 1011
    BUSY = 1013
    BAD_REQUEST = 4000
    UNAUTHORIZED = 4001
    FORBIDDEN = 4003
    UNKNOWN_STREAM = 4004
    TOKEN_EXPIRED = 4005
    FLOOD = 4008
    SLOW = 4100
    IDLE = 4101

    @property
    def is_reconnectable(self) -> bool:
        """Whether a client should come back, after a growing and jittered delay."""
        return CLOSE_CODES[self][0]


CLOSE_CODES: dict[CloseCode, tuple[bool, str]] = {
    CloseCode.NORMAL: (False, "The client asked to close."),
    CloseCode.PROTOCOL: (False, "The client broke the WebSocket protocol."),
    CloseCode.NOT_UTF8: (False, "A text frame of the client was not UTF-8."),
    CloseCode.RESTART: (True, "The gateway stops or restarts; come back with the last position."),
    CloseCode.TOO_LARGE: (False, "A command was larger than the limit."),
    CloseCode.INTERNAL: (True, "A fault of the gateway."),
    CloseCode.BUSY: (True, "The gateway has as many connections as it may have, in all or from this address."),
    CloseCode.BAD_REQUEST: (
        False,
        "A bad filter, since, shape or parameter in the address, or a command to a stream; the reason says which.",
    ),
    CloseCode.UNAUTHORIZED: (False, "A token is needed, or the one given is not valid."),
    CloseCode.FORBIDDEN: (False, "No grant covers the topics, or a page of this origin may not connect."),
    CloseCode.UNKNOWN_STREAM: (False, "No stream of that name is configured."),
    CloseCode.TOKEN_EXPIRED: (False, "The token has ended; come back with a new one."),
    CloseCode.FLOOD: (False, "Far more commands than allowed."),
    CloseCode.SLOW: (True, "The connection took no data for too long."),
    CloseCode.IDLE: (True, "The client answered no ping for too long."),
}
"""For each code whether to come back, and what it means."""


class ProtocolError(ValueError):
    """What a client sent can't be followed.

    Attributes:
        code: a key of `ERROR_CODES`.
        id: the command's id, None when it had none or could not be read.
        reason: what in particular is wrong, as it is counted: the name of a limit, the code of a token's error; None
            where `code` says all.
    """

    def __init__(
        self,
        code: str,
        message: str,
        id: int | str | None = None,  # noqa: A002 - the protocol's word
        *,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.id = id
        self.reason = reason


MAX_ID_LENGTH = 1_024

Id = int | Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)]
"""An `id` of a command: what every answer to it repeats, so it is short."""


class Command(msgspec.Struct, tag_field="command", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What every command has: an `id` that its answer repeats."""

    id: Id | None = None


class Subscribe(Command, tag="subscribe", frozen=True, kw_only=True):
    """Adds filters; with shape members, changes the shape of the whole subscriber."""

    topics: list[str] = []
    since: str | None = None
    max_hz: float | msgspec.UnsetType | None = msgspec.UNSET
    mode: str | msgspec.UnsetType | None = msgspec.UNSET
    fields: list[str] | str | msgspec.UnsetType | None = msgspec.UNSET
    deadband: float | msgspec.UnsetType | None = msgspec.UNSET
    where: str | msgspec.UnsetType | None = msgspec.UNSET
    properties: bool | msgspec.UnsetType = msgspec.UNSET

    def shape_parameters(self) -> dict[str, Any]:
        """The shape members that were given."""
        names = ("max_hz", "mode", "fields", "deadband", "where", "properties")
        return {name: value for name in names if (value := getattr(self, name)) is not msgspec.UNSET}


class Unsubscribe(Command, tag="unsubscribe", frozen=True, kw_only=True):
    """Takes filters away."""

    topics: list[str]


class PublishProperties(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """MQTT 5 properties of a message to publish; `correlation_data` is base64."""

    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: list[tuple[str, str]] | dict[str, str] | None = None
    message_expiry_interval: int | None = None

    def to_properties(self) -> Properties | None:
        """As the rest of the gateway has them; None when none was set."""
        properties: Properties = {}
        if self.content_type is not None:
            properties["content_type"] = self.content_type
        if self.response_topic is not None:
            properties["response_topic"] = self.response_topic
        if self.correlation_data is not None:
            properties["correlation_data"] = self.correlation_data
        if self.user_properties is not None:
            pairs = self.user_properties
            properties["user_properties"] = list(pairs.items()) if isinstance(pairs, dict) else list(pairs)
        if self.message_expiry_interval is not None:
            properties["message_expiry_interval"] = self.message_expiry_interval
        return properties or None


class Publish(Command, tag="publish", frozen=True, kw_only=True):
    """Publishes to the broker. A JSON string is sent as its text, any other payload as the JSON it is written in."""

    topic: str
    payload: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b'""'))
    encoding: str | None = None
    qos: int = 0
    retain: bool = False
    properties: PublishProperties | None = None

    def payload_bytes(self) -> bytes:
        """The bytes to publish.

        Raises:
            ProtocolError: `encoding` is unknown or the payload does not fit it.
        """
        token = bytes(self.payload)
        try:
            if self.encoding == "base64":
                return msgspec.json.decode(token, type=bytes)
            if self.encoding is not None:
                raise ProtocolError(
                    "bad_payload", f"encoding {self.encoding[:40]!r}: must be base64 or absent", self.id
                )
            if token[:1] == b'"':
                return msgspec.json.decode(token, type=str).encode()
            token.decode()
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise ProtocolError("bad_payload", f"payload: {error}", self.id) from None
        return token


class Authenticate(Command, tag="authenticate", frozen=True, kw_only=True):
    """Gives or renews the access token."""

    token: str

    def __repr__(self) -> str:
        return "Authenticate(token=…)"


class Ping(Command, tag="ping", frozen=True, kw_only=True):
    """Asks for a `pong`: shows that both directions work."""


class _Head(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"null")
    command: msgspec.Raw = msgspec.Raw(b"null")


AnyCommand = Subscribe | Unsubscribe | Publish | Authenticate | Ping

COMMANDS: dict[str, type[AnyCommand]] = {
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "publish": Publish,
    "authenticate": Authenticate,
    "ping": Ping,
}
"""What a client may send, by its `command`."""

_command_decoder: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_id = msgspec.json.Decoder(Id | None).decode
_encode = msgspec.json.Encoder().encode


def parse_command(text: str | bytes, max_short: int | None = None) -> AnyCommand:
    """Reads one command.

    Args:
        text: the whole of it.
        max_short: so long any but `publish` may be, in characters or bytes; None: as long as it is.

    Raises:
        ProtocolError: it is not JSON, no known command, or a member is missing, unknown or of the wrong type; or it is
            too long for what it says. `id` is the command's own where that could be read.
    """
    if max_short is not None and len(text) > max_short:
        # nothing of it is built before this is known
        head = _head(text)
        if head is None or bytes(head.command) != b'"publish"':
            limit = f"limit: a command other than publish of at most {max_short} bytes"
            raise ProtocolError("limit", limit, command_id(text))
    try:
        command = _command_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        is_half = _HALF.search(_as_text(text)) is not None
        fault = "a string holds half of a surrogate pair, which is no character" if is_half else _plain(error)
        raise ProtocolError("bad_command", f"command: {fault}", command_id(text)) from None
    if isinstance(command, Publish):
        if not 0 <= command.qos <= 2:
            raise ProtocolError("bad_command", f"qos {command.qos}: must be 0, 1 or 2", command.id)
        expiry = command.properties.message_expiry_interval if command.properties else None
        if expiry is not None and not 0 <= expiry <= 0xFFFFFFFF:
            raise ProtocolError(
                "bad_command", f"message_expiry_interval {expiry}: must be from 0 to 4294967295 seconds", command.id
            )
    return command


def command_id(text: str | bytes) -> int | str | None:
    """The `id` of what is perhaps no command: whoever waits for its answer is told, whatever else is wrong with it.

    None where it has none, or none that can be told again.
    """
    head = _head(text)
    if head is None:
        text = _as_text(text)
        # half of a surrogate pair, as JSON.stringify makes of a cut emoji: the rest may be read all the same
        head = _head(_HALF.sub(r"\\ufffd", text)) or _Head(id=msgspec.Raw(_scan_id(text)))
    token = bytes(head.id)
    if b"\\ufffd" in token:
        return None
    try:
        found: int | str | None = _decode_id(token)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    return found


# the first half without the second, or the second without the first (RFC 8259 §8.2)
_HALF = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{\[]++|[}\]]++|[,:]|[^\s{}\[\],:"]++|"', re.DOTALL)
_MAX_TOKENS = 4_000
"""So many tokens of what is no JSON are looked at for its `id`: some milliseconds."""


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")


def _head(text: str | bytes) -> _Head | None:
    """What every command has, read without building the rest; None where it is no JSON object."""
    try:
        return _decode_head(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _scan_id(text: str) -> bytes:
    """The value of `id` in an outermost object that is broken or too deep to be read."""
    found = b"null"
    depth = 0
    key = previous = ""
    for match in itertools.islice(_TOKEN.finditer(text), _MAX_TOKENS):
        piece = match[0]
        if piece[0] in "{[":  # several may stand together
            if depth == 0 and piece[0] == "[":
                break
            depth += len(piece)
        elif piece[0] in "}],":
            # a value is whole when something follows
            if depth == 1 and key == '"id"' and previous[-1] not in ":}]":
                found = previous.encode(errors="replace")
            depth -= 0 if piece == "," else len(piece)
            key = ""
            if depth < 1:
                break
        elif piece == ":" and depth == 1:
            key = previous
        previous = piece
    return found


def _plain(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = str(error)
    if "`command`" in text or "`$.command`" in text:
        text += f"; known are {', '.join(COMMANDS)}"
    return text[:300]


def encode_event(event: str, **members: Any) -> bytes:
    """One event as JSON; members that are None are left out."""
    return _encode({"event": event, **{name: value for name, value in members.items() if value is not None}})


def error_event(error: ProtocolError) -> bytes:
    """The `error` event for a failed command."""
    reason = None if error.reason == error.code else error.reason
    return encode_event("error", id=error.id, code=error.code, reason=reason, message=str(error))

"""Why a connection to the broker came to nothing, and whether the version of MQTT is to blame.

Invariant: each failure is told for people, by its cause, without a secret. What follows from it is for `upstream`.
"""

from __future__ import annotations

import enum
import errno
import socket
import ssl
from collections.abc import Mapping

from paho.mqtt.reasoncodes import ReasonCode

from gateway.upstream.config import MQTT_3_1_1, MQTT_5, UpstreamConfig, Version

__all__ = [
    "RIVAL_SECONDS",
    "SILENT",
    "Blame",
    "Failure",
    "Reason",
    "VersionChoice",
    "connack_failure",
    "describe_break",
    "describe_failure",
    "disconnect_failure",
]


SILENT = "the broker does not answer: it was silent for longer than the keep-alive time"

RIVAL_SECONDS = 5.0
"""The least delay when another client has our client id: whoever hurries throws the other one out."""

UNCLEAR_FAILURES = 2
"""How often MQTT 5 may come to nothing, for no reason given, before MQTT 3.1.1 is tried; a broker that is just
starting does that once."""

PROBE_SECONDS = 3.0
"""How long to wait for an answer to MQTT 5 that may never come."""

RETRY_MQTT_5_SECONDS = 3600.0


class Blame(enum.Enum):
    """Whether the version of MQTT is to blame for a failure."""

    NO = enum.auto()
    PERHAPS = enum.auto()
    LIKELY = enum.auto()
    CERTAINLY = enum.auto()


class Failure(Exception):  # noqa: N818 - it never leaves this module
    """This connection has come to nothing or to its end.

    Attributes:
        version: whether the broker doesn't speak the version of MQTT that was tried.
        wait_seconds: the least delay before the next attempt.
        reason: the reason code that the broker gave, None for none.
        is_closed: the broker closed the connection without a reason.
    """

    def __init__(
        self,
        text: str,
        *,
        version: Blame = Blame.NO,
        wait_seconds: float = 0.0,
        reason: int | None = None,
        is_closed: bool = False,
    ) -> None:
        super().__init__(text)
        self.version = version
        self.wait_seconds = wait_seconds
        self.reason = reason
        self.is_closed = is_closed


class Reason(enum.IntEnum):
    """Reason codes of CONNACK and DISCONNECT (MQTT 5 §2.4) from which something follows."""

    UNSPECIFIED = 0x80
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION = 0x83
    VERSION = 0x84
    CLIENT_ID = 0x85
    LOGIN = 0x86
    NOT_AUTHORIZED = 0x87
    UNAVAILABLE = 0x88
    BUSY = 0x89
    BANNED = 0x8A
    SHUTTING_DOWN = 0x8B
    AUTH_METHOD = 0x8C
    KEEP_ALIVE = 0x8D
    TAKEN_OVER = 0x8E
    TOPIC_FILTER = 0x8F
    TOPIC_NAME = 0x90
    RECEIVE_MAXIMUM = 0x93
    TOPIC_ALIAS = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE = 0x96
    QUOTA = 0x97
    ADMINISTRATIVE = 0x98
    PAYLOAD_FORMAT = 0x99
    RETAIN = 0x9A
    QOS = 0x9B
    ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED = 0x9E
    CONNECTION_RATE = 0x9F
    CONNECT_TIME = 0xA0
    IDENTIFIERS = 0xA1
    WILDCARDS = 0xA2


_ELSEWHERE = "put the address of the other one into GATEWAY_MQTT_URL"

_REASONS: Mapping[int, tuple[str, str, float]] = {
    Reason.UNSPECIFIED: ("Unspecified error", "its log may say more", 0.0),
    Reason.MALFORMED: ("Malformed packet", "it does not understand what it was sent", 0.0),
    Reason.PROTOCOL_ERROR: ("Protocol error", "it takes what it was sent for a breach of MQTT", 0.0),
    Reason.IMPLEMENTATION: ("Implementation specific error", "its log may say more", 0.0),
    Reason.VERSION: ("Unsupported protocol version", "", 0.0),
    Reason.CLIENT_ID: ("Client identifier not valid", "set another one with GATEWAY_MQTT_CLIENT_ID", 2.0),
    Reason.LOGIN: ("Bad user name or password", "", 2.0),
    Reason.NOT_AUTHORIZED: ("Not authorized", "", 2.0),
    Reason.UNAVAILABLE: ("Server unavailable", "it runs, and takes nobody for now", 0.0),
    Reason.BUSY: ("Server busy", "it has too much to do for now", 5.0),
    Reason.BANNED: ("Banned", "its administrator has shut this client out", 60.0),
    Reason.SHUTTING_DOWN: ("Server shutting down", "", 0.0),
    Reason.AUTH_METHOD: ("Bad authentication method", "it wants another login than user name and password", 60.0),
    Reason.KEEP_ALIVE: ("Keep alive timeout", "it heard nothing for longer than GATEWAY_MQTT_KEEPALIVE", 0.0),
    Reason.TAKEN_OVER: ("Session taken over", "", RIVAL_SECONDS),
    Reason.TOPIC_FILTER: ("Topic filter invalid", "", 0.0),
    Reason.TOPIC_NAME: ("Topic name invalid", "", 0.0),
    Reason.RECEIVE_MAXIMUM: ("Receive maximum exceeded", "", 0.0),
    Reason.TOPIC_ALIAS: ("Topic alias invalid", "", 0.0),
    Reason.PACKET_TOO_LARGE: ("Packet too large", "a message or the list of filters is longer than it takes", 0.0),
    Reason.MESSAGE_RATE: ("Message rate too high", "more was published than it allows", 0.0),
    Reason.QUOTA: ("Quota exceeded", "a limit of this user or of the broker is reached", 5.0),
    Reason.ADMINISTRATIVE: ("Administrative action", "somebody ended it by hand", 5.0),
    Reason.PAYLOAD_FORMAT: ("Payload format invalid", "", 0.0),
    Reason.RETAIN: ("Retain not supported", "", 0.0),
    Reason.QOS: ("QoS not supported", "", 0.0),
    Reason.ANOTHER_SERVER: ("Use another server", _ELSEWHERE, 60.0),
    Reason.SERVER_MOVED: ("Server moved", _ELSEWHERE, 60.0),
    Reason.SHARED: ("Shared subscription not supported", "", 0.0),
    Reason.CONNECTION_RATE: ("Connection rate exceeded", "it takes no more connections for now", 30.0),
    Reason.CONNECT_TIME: ("Maximum connect time", "it ends every connection after a while", 0.0),
    Reason.IDENTIFIERS: ("Subscription identifiers not supported", "", 0.0),
    Reason.WILDCARDS: ("Wildcard subscription not supported", "", 0.0),
}
"""For each reason code its name (MQTT 5 §2.4), what it means here, and the least delay in seconds before the next
attempt."""


class VersionChoice:
    """Which version of MQTT to try: 5, until a broker shows that it needs 3.1.1, and 5 again from time to time."""

    def __init__(self) -> None:
        self._version: Version = MQTT_5
        self._has_spoken_5 = False
        self._unclear = 0
        self._pinned = False
        self._tried_5_at = float("-inf")

    def next(self, now: float) -> Version:
        """The version for the next attempt; `now` in seconds."""
        if self._version == MQTT_3_1_1 and self._pinned:
            # A broker that said nothing may just have been starting: look again each time that a connection has ended.
            certain = self._unclear < UNCLEAR_FAILURES
            if not certain or now - self._tried_5_at >= RETRY_MQTT_5_SECONDS:
                self._version, self._pinned = MQTT_5, False
        if self._version == MQTT_5:
            self._tried_5_at = now
        return self._version

    def patience(self, version: Version, limit: float) -> float:
        """How many seconds to wait for CONNACK: amqtt waits for more when it doesn't understand MQTT 5."""
        return limit if version == MQTT_3_1_1 or self._has_spoken_5 else min(limit, PROBE_SECONDS)

    def worked(self, version: Version) -> None:
        """A connection of this version was made."""
        self._pinned = version == MQTT_3_1_1
        if version == MQTT_5:
            self._has_spoken_5, self._unclear = True, 0

    def refused(self, blame: Blame) -> bool:
        """A connection of the version tried last was not made, or has ended; whether to try another one at once."""
        if blame is Blame.NO:
            return False
        if self._version == MQTT_3_1_1:
            self._version, self._pinned = MQTT_5, False
            return False
        if blame is Blame.CERTAINLY:
            self._unclear = 0
        else:
            self._unclear += UNCLEAR_FAILURES if blame is Blame.LIKELY else 1
            # one that spoke MQTT 5 before is only being restarted
            if self._has_spoken_5 or self._unclear < UNCLEAR_FAILURES:
                return False
        self._version = MQTT_3_1_1
        return True


def describe_failure(error: BaseException, config: UpstreamConfig) -> str:
    """Why there is no connection, for people."""
    where = f"{config.host}:{config.port}"
    if isinstance(error, socket.gaierror):
        return f"the name {config.host!r} has no address ({error.strerror})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the broker's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        if "wrong version number" in reason or "record layer" in reason:
            return f"TLS: {where} does not speak TLS: mqtt:// instead of mqtts://?"
        if "certificate" in reason or "handshake failure" in reason:
            return f"TLS: the broker refused our certificate, or wants one: {reason}"
        return f"TLS: {reason}"
    # several addresses, several errors: asyncio joins their texts
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return f"connection refused: nothing listens on {where}"
    if isinstance(error, ConnectionError) and config.is_tls:
        return f"{where} closed the connection during the TLS handshake: mqtt:// instead of mqtts://?"
    if isinstance(error, FileNotFoundError):
        return f"TLS: {error.filename or 'a file'} is not there"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"


def connack_failure(code: int, config: UpstreamConfig, *, said: str | None = None) -> Failure:
    """What a refusing CONNACK comes to.

    Args:
        code: the reason code (MQTT 5 §3.2.2.2); those of 3.1.1 (§3.2.2.3) as their equals in MQTT 5.
        config: which broker, and as whom.
        said: the broker's Reason String or Server Reference, if it gave one.
    """
    user, _ = config.credentials
    who = f"user {user!r}" if user is not None else "no user name was given"
    match code:
        case Reason.CLIENT_ID:
            what = f"the client id {config.client_id!r}"
        case Reason.LOGIN:
            what = f"the login ({who})"
        case Reason.NOT_AUTHORIZED:
            what = f"the login, the client id or this address ({who}, client id {config.client_id!r})"
        case Reason.TOPIC_NAME | Reason.PAYLOAD_FORMAT | Reason.RETAIN | Reason.QOS:
            what = f"the last will on {config.status_topic!r}"
        case _:
            what = ""
    version = Blame.CERTAINLY if code == Reason.VERSION else Blame.NO
    return _coded(f"the broker refused{f' {what}' if what else ''}: ", code, said, version=version)


def disconnect_failure(code: int | None, config: UpstreamConfig, *, said: str | None = None) -> Failure:
    """What a DISCONNECT of the broker (MQTT 5 §3.14.2.1) comes to.

    Args:
        code: the reason code; None where it gave none.
        config: which broker, and as whom.
        said: the broker's Reason String or Server Reference, if it gave one.
    """
    if code == Reason.TAKEN_OVER:
        # the other one will come back, too: whoever hurries takes it again
        hint = "give each gateway its own client id"
        text = f"another client took over the client id {config.client_id!r}: {hint}"
        return Failure(text, wait_seconds=RIVAL_SECONDS, reason=code)
    if code is None:
        return Failure("the broker ended the connection: no reason given", is_closed=True)
    return _coded("the broker ended the connection: ", code, said)


def _coded(start: str, code: int, said: str | None, *, version: Blame = Blame.NO) -> Failure:
    name, hint, wait_seconds = _REASONS.get(code, (f"reason code 0x{code:02X}", "", 0.0))
    text = start + name + (f", and says {said[:200]!r}" if said else "") + (f": {hint}" if hint else "")
    return Failure(text, version=version, wait_seconds=wait_seconds, reason=code)


def describe_break(code: ReasonCode) -> str:
    """How the connection ended, for people."""
    if str(code) == "Keep alive timeout":
        return SILENT
    return f"the connection broke: {code}"

"""Why a connection to the broker came to nothing, and whether the version of MQTT is to blame.

Invariant: each failure is told for people, by its cause, without a secret. What follows from it is for `upstream`.
"""

from __future__ import annotations

import enum
import errno
import socket
import ssl

from paho.mqtt.reasoncodes import ReasonCode

from gateway.upstream.config import MQTT_3_1_1, MQTT_5, UpstreamConfig, Version

__all__ = [
    "RIVAL_SECONDS",
    "SILENT",
    "Blame",
    "Failure",
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
"""So many times MQTT 5 may come to nothing, for no reason given, before MQTT 3.1.1 is tried; a broker that is just
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
    """

    def __init__(self, text: str, *, version: Blame = Blame.NO, wait_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.version = version
        self.wait_seconds = wait_seconds


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


def connack_failure(code: ReasonCode, config: UpstreamConfig) -> Failure:
    """What a refusing CONNACK (MQTT 5 §3.2.2.2) comes to."""
    text = str(code)
    if text == "Unsupported protocol version":
        return Failure(f"the broker refused: {text}", version=Blame.CERTAINLY)
    if text in ("Bad user name or password", "Not authorized"):
        user, _ = config.credentials
        who = f"user {user!r}" if user is not None else "no user name was given"
        return Failure(f"the broker refused the login: {text} ({who})", wait_seconds=2.0)
    return Failure(f"the broker refused: {text}")


def disconnect_failure(code: ReasonCode | None, config: UpstreamConfig) -> Failure:
    """What a DISCONNECT of the broker (MQTT 5 §3.14.2.1) comes to; `code` is None where it gave no reason."""
    text = str(code) if code is not None else "no reason given"
    if text == "Session taken over":
        # the other one will come back, too: whoever hurries takes it again
        hint = "give each gateway its own client id"
        text = f"another client took over the client id {config.client_id!r}: {hint}"
        return Failure(text, wait_seconds=RIVAL_SECONDS)
    return Failure(f"the broker ended the connection: {text}")


def describe_break(code: ReasonCode) -> str:
    """How the connection ended, for people."""
    if str(code) == "Keep alive timeout":
        return SILENT
    return f"the connection broke: {code}"

"""Where a replay starts: `since`, read once into a kind and its value.

Invariant: whatever a client wrote becomes a `Since` or a `ProtocolError` that names the rule and the value. What
history makes of it is for those who read it.
"""

from __future__ import annotations

import enum
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, assert_never

from gateway.core.durations import parse_duration
from gateway.core.protocol import ProtocolError

__all__ = [
    "BEHIND", "SINCE_LAST", "SINCE_NOW", "Since", "SinceKind", "Start", "parse_position", "parse_since", "start_of",
]  # fmt: skip


class SinceKind(enum.Enum):
    """Where a replay starts."""

    LAST = enum.auto()
    NOW = enum.auto()
    TIME = enum.auto()
    POSITION = enum.auto()


@dataclass(frozen=True, slots=True)
class Since:
    """A parsed `since`.

    Attributes:
        kind: which of the forms it is.
        time: for TIME, milliseconds since 1970.
        epoch: for POSITION, the life of the log.
        seq: for POSITION, the number of the last message that was seen.
    """

    kind: SinceKind
    time: int = 0
    epoch: str = ""
    seq: int = 0


SINCE_LAST = Since(SinceKind.LAST)
SINCE_NOW = Since(SinceKind.NOW)

_MILLISECONDS = re.compile(r"\d{12,14}", re.ASCII)  # what `time` of a message holds: from 1973 to the year 5138
_POSITION = re.compile(r"([a-z0-9]{1,16}):(\d{1,19})", re.ASCII)


def parse_position(text: str) -> tuple[str, int]:
    """Takes `epoch:seq` apart.

    Raises:
        ProtocolError: it is no position.
    """
    found = _POSITION.fullmatch(text)
    if found is None:
        raise ProtocolError("bad_since", f"position {text[:80]!r}: must be epoch:seq, such as k3f9:18273")
    return found[1], int(found[2])


def parse_since(text: str | None, *, now_ms: int | None = None) -> Since:
    """Reads what a client wrote; None is `last`.

    There are `last`, `now`, a time back (`90s`, `10m`, `1h30m`), an ISO 8601 time, milliseconds since 1970 (as
    `time` of a message) and a position. A time without a zone is UTC.

    Raises:
        ProtocolError: it is none of these.
    """
    if text is None or text in ("", "last"):
        return SINCE_LAST
    if text == "now":
        return SINCE_NOW
    if (found := _POSITION.fullmatch(text)) is not None:
        return Since(SinceKind.POSITION, epoch=found[1], seq=int(found[2]))
    if _MILLISECONDS.fullmatch(text):
        return Since(SinceKind.TIME, time=int(text))
    try:
        back_ms = int(parse_duration(text, needs_unit=True) * 1000)
        now = int(time.time() * 1000) if now_ms is None else now_ms
        return Since(SinceKind.TIME, time=max(now - back_ms, 0))
    except ValueError:
        pass
    try:
        # in a query '+' means a space: '2026-11-22T10:00:00 01:00'
        moment = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text).upper())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return Since(SinceKind.TIME, time=max(int(moment.timestamp() * 1000), 0))
    except (ValueError, OverflowError):
        raise ProtocolError(
            "bad_since",
            f"since {text[:80]!r}: must be last, now, a time back (10m), an ISO time, milliseconds since 1970 or a "
            "position (k3f9:18273)",
        ) from None


@dataclass(frozen=True, slots=True)
class Start:
    """Where a replay starts in a log.

    Attributes:
        after: the number behind which it reads.
        is_last: whether last values are asked for, not history.
        is_promise: whether what has been evicted since `after` is to be told.
        is_other_epoch: the position is of another life of the log: nobody knows what is missing, and all that this one
            has comes.
    """

    after: int
    is_last: bool = False
    is_promise: bool = False
    is_other_epoch: bool = False


BEHIND = "behind"
"""Why a position is refused that this node of a cluster has not read up to yet, or can't judge before it has."""


class Log(Protocol):
    """What is asked of `history.History`."""

    epoch: str
    seq: int
    is_followed: bool
    is_filling: bool

    @property
    def position(self) -> str:
        """`epoch:seq` of the newest message."""

    def before_time(self, time: int) -> int:
        """The number behind which all messages are that arrived at or after this time."""


def start_of(since: Since, log: Log) -> Start:
    """What `since` means in this log, on every way in.

    Raises:
        ProtocolError: the position is ahead of the log (`bad_since`); for the reason `behind` if another node may
            have given it, and this one will have it, too.
    """
    match since.kind:
        case SinceKind.LAST:
            return Start(0, is_last=True)
        case SinceKind.NOW:
            return Start(log.seq)
        case SinceKind.TIME:
            return Start(log.before_time(since.time), is_promise=True)
        case SinceKind.POSITION:
            if since.epoch != log.epoch:
                if log.is_filling:
                    text = f"since {since.epoch}:{since.seq}: this node has not read the shared log yet; come back"
                    raise ProtocolError("bad_since", text, reason=BEHIND)
                return Start(0, is_other_epoch=True)
            if since.seq > log.seq:
                text = f"since {since.epoch}:{since.seq}: is ahead of the log, which is at {log.position}"
                if not log.is_followed:
                    raise ProtocolError("bad_since", text)
                raise ProtocolError("bad_since", f"{text} on this node; come back", reason=BEHIND)
            return Start(since.seq, is_promise=True)
        case _:
            assert_never(since.kind)

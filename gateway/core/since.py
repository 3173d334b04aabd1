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

from gateway.core.protocol import ProtocolError

__all__ = ["SINCE_LAST", "SINCE_NOW", "Since", "SinceKind", "parse_position", "parse_since"]


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

_BACK = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|m|h|d)", re.ASCII)
_POSITION = re.compile(r"([a-z0-9]{1,16}):(\d{1,19})", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


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
    """Reads `last`, `now`, a time back (`90s`, `10m`, `2h`), an ISO 8601 time or a position; None is `last`.

    A time without a zone is UTC.

    Raises:
        ProtocolError: it is none of these.
    """
    if text is None or text in ("", "last"):
        return SINCE_LAST
    if text == "now":
        return SINCE_NOW
    if (found := _POSITION.fullmatch(text)) is not None:
        return Since(SinceKind.POSITION, epoch=found[1], seq=int(found[2]))
    if (found := _BACK.fullmatch(text)) is not None:
        now = int(time.time() * 1000) if now_ms is None else now_ms
        return Since(SinceKind.TIME, time=max(now - int(float(found[1]) * _UNIT_MS[found[2]]), 0))
    try:
        # in a query '+' means a space: '2026-11-22T10:00:00 01:00'
        moment = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return Since(SinceKind.TIME, time=max(int(moment.timestamp() * 1000), 0))
    except (ValueError, OverflowError):
        raise ProtocolError(
            "bad_since",
            f"since {text[:80]!r}: must be last, now, a time back (10m), an ISO time or a position (k3f9:18273)",
        ) from None

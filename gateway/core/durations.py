"""Durations as people write them: `250ms`, `90s`, `10m`, `1h30m`, `7d`, `1y`.

Invariant: one reading of them for settings, `since`, and every program of ours.
"""

from __future__ import annotations

import re

__all__ = ["duration_text", "parse_duration"]

MAX_SECONDS = 1e10
"""Three centuries: what is added to a clock must leave it a date."""

_MAX_LENGTH = 1000
"""Characters of a text that are looked at: nobody writes so many, and reading digits costs."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 365 * 86_400}
"""A year has 365 days."""
_NUMBER = r"\d+(?:\.\d+)?"
_PARTS = re.compile(rf"(?:{_NUMBER}(?:ms|[smhdwy]))+", re.ASCII)
_PART = re.compile(r"([\d.]+)([a-z]+)", re.ASCII)


def parse_duration(value: object, *, needs_unit: bool = False) -> float:
    """Seconds from a number of seconds, or from text: a number, or numbers with units; white space is passed over.

    Args:
        value: what was given.
        needs_unit: whether a bare number is refused.

    Raises:
        ValueError: it is no duration.
    """
    given = value
    if isinstance(value, str):
        text = "".join(value[: _MAX_LENGTH + 1].split())
        if len(value) > _MAX_LENGTH:
            value = None
        elif _PARTS.fullmatch(text):
            value = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
            needs_unit = False
        else:
            value = float(text) if re.fullmatch(_NUMBER, text, re.ASCII) else None
    if needs_unit or isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"duration {repr(given)[:80]}: must be such as 250ms, 90s, 10m, 1h30m or 7d")
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"duration {repr(given)[:80]}: must be from 0 to 300 years")
    return float(value)


def duration_text(seconds: float) -> str:
    """The shortest exact text that `parse_duration` reads: `24h`."""
    for unit in ("d", "h", "m"):
        count, rest = divmod(seconds, _UNITS[unit])
        # a day is more familiar as 24h
        if count > (unit == "d") and not rest:
            return f"{count:.0f}{unit}"
    return f"{seconds * 1000:.10g}ms" if 0 < seconds < 1 else f"{seconds:.10g}s"

"""Durations as people write them."""

import math
import re

MAX_SECONDS = 1e10
"""Three centuries: what is added to a clock must leave it a date."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhd])")


def parse_duration(value: object) -> float:
    """Seconds of ``10``, ``"90s"``, ``"1h30m"`` or ``"500ms"``; not negative.

    Raises:
        ValueError: It is no duration.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if 0 <= value <= MAX_SECONDS:
            return float(value)
    elif isinstance(value, str):
        text = value.strip()
        seconds = math.inf
        if re.fullmatch(r"\d+(\.\d+)?", text):
            seconds = float(text)
        elif text and not _PART.sub("", text).strip():
            seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        if seconds <= MAX_SECONDS:
            return seconds
    raise ValueError(f"{value!r} is no duration: expected seconds, or text such as 90s, 5m or 1h30m")


def duration_text(seconds: float) -> str:
    """The shortest of those texts: ``90s``, ``5m``, ``2h``, ``0.5s``."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds / _UNITS[unit])}{unit}"
    return f"{seconds:g}s"

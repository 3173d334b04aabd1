"""What an archive takes in bytes, for a rate: rules of thumb from measurements.

The constants are those of `python -m benchmarks.archiving write` (its docstring has the commands): readings with a
time, a count and two numbers that walk a little. What compresses worse takes more.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.archive.keeping import LEVEL_NAMES, Keep

__all__ = ["Flow"]

BLOCK_PART = 0.13
"""Bytes of a block for each byte of payload, at 200 to 2,000 messages a second."""

SLOW_RATE, SLOW_PART = 50.0, 0.29
"""The same at fewer than so many a second: measured over 50 hours at 1.7 a second, small blocks joined by then."""

ONE_READING = 4.5
"""Bytes of a roll-up by minute of one number, where one reading came in that minute."""

MANY_READINGS = 25.0
"""The same with many readings; so much takes one by hour, too."""

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Flow:
    """What comes.

    Attributes:
        rate: messages a second, of all topics.
        payload_bytes: bytes of a payload.
        topics: how many topics there are.
        fields: numbers in a payload.
    """

    rate: float
    payload_bytes: float
    topics: int
    fields: int

    def bytes_a_day(self, level: str) -> float:
        """What a day takes of a level of `LEVEL_NAMES`."""
        if level == LEVEL_NAMES[0]:
            return self.rate * DAY * self.payload_bytes * (BLOCK_PART if self.rate >= SLOW_RATE else SLOW_PART)
        readings_a_minute = self.rate / self.topics * 60
        series = self.topics * self.fields
        if level == LEVEL_NAMES[1]:
            points = min(readings_a_minute, 1.0) * DAY / 60
            return series * points * (ONE_READING if readings_a_minute < 2 else MANY_READINGS)
        return (
            series
            * min(readings_a_minute * 60, 1.0)
            * 24
            * (ONE_READING if readings_a_minute < 1 / 30 else MANY_READINGS)
        )

    def bytes_of(self, keep: Keep, level: str) -> float | None:
        """What a level takes under a rule, if all came to its topics; None where it has no end."""
        age = keep.of(level)
        return None if age is None else self.bytes_a_day(level) * age / 1000 / DAY

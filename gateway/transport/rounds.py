"""Who is pinged when: each connection once in an interval, a part of them at a time.

Invariant: a connection stays in its part as long as it lives, so two of its pings are one interval apart, and a step
costs what its own part costs, however many connections there are. The clock is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["AT_ONCE", "Rounds"]


T = TypeVar("T")

AT_ONCE = 64
"""Connections that are pinged in one turn of the loop: a millisecond, and about two for their answers."""


class Rounds(Generic[T]):
    """Connections in parts."""

    def __init__(self, parts: int) -> None:
        self._parts: list[set[T]] = [set() for _ in range(parts)]

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._parts)

    def _part_of(self, connection: T) -> set[T]:
        # an object keeps its address
        return self._parts[(id(connection) >> 6) % len(self._parts)]

    def add(self, connection: T) -> None:
        """A connection takes part from now on."""
        self._part_of(connection).add(connection)

    def discard(self, connection: T) -> None:
        """It no longer does, if it did."""
        self._part_of(connection).discard(connection)

    def step(self, number: int) -> Iterator[list[T]]:
        """The connections of the part whose turn it is, `AT_ONCE` at a time."""
        part = list(self._parts[number % len(self._parts)])
        for start in range(0, len(part), AT_ONCE):
            yield part[start : start + AT_ONCE]

"""Texts over time as points: of each stretch of time the first and the last one, and how often the text changed.

A device's mode, a door, a phase of washing: few texts that come again and again. Each field numbers its own, from 1 on;
so texts lie in `Points` as numbers do, and merge as these do.

Invariant: a field has at most `MAX_TEXTS` texts; 0 is the number of all others, and `OTHER` is shown for them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gateway.core.points import Grid, Points

__all__ = ["MAX_TEXTS", "OTHER", "TextPoints", "number_in", "numbered"]

MAX_TEXTS = 32
"""Different texts of one field."""

OTHER = "…"
"""Stands for the texts beyond these."""


def number_in(numbers: dict[str, int], text: str) -> int:
    """The number of a text in a field's own; it gets the next one if there is room, else it has 0."""
    number = numbers.get(text, 0)
    if not number and len(numbers) < MAX_TEXTS:
        number = numbers[text] = len(numbers) + 1
    return number


def numbered(times: array[int], numbers: array[float], before: float | None) -> Points:
    """Each text as a point of its own.

    Args:
        times: milliseconds since 1970, rising; it is kept.
        numbers: of the texts; it is kept.
        before: the number of the text that came before; None where that isn't known.
    """
    changes = array("d", bytes(8 * len(numbers)))
    for place, number in enumerate(numbers):
        changes[place] = before is not None and number != before
        before = number
    points = Points.of_numbers(times, numbers)
    points.sums = changes
    return points


class TextPoints(NamedTuple):
    """Points of the texts of one field.

    Attributes:
        points: sums are how often the text changed; firsts and lasts are numbers of texts; mins and maxs mean nothing.
        numbers: the texts' numbers.
    """

    points: Points
    numbers: dict[str, int]

    def _texts(self, numbers: Iterable[float]) -> Iterator[str]:
        names = dict(zip(self.numbers.values(), self.numbers, strict=True))
        return (names.get(int(number), OTHER) for number in numbers)

    def shown(self) -> Iterator[dict[str, Any]]:
        """Each as an object: `time`, `first`, `last`, `changes`, `count`."""
        points = self.points
        columns = (points.times, self._texts(points.firsts), self._texts(points.lasts), points.sums, points.counts)
        for time, first, last, changes, count in zip(*columns, strict=True):
            yield {"time": time, "first": first, "last": last, "changes": int(changes), "count": count}

    def columns(self, grid: Grid) -> dict[str, list[Any]]:
        """The same by column, with an entry for each stretch of the grid that they are on: None or 0 where none is."""
        found: dict[str, list[Any]] = {"first": [], "last": [], "changes": [], "count": []}
        for name, column in found.items():
            column += [0 if name in ("changes", "count") else None] * grid.count
        for point in self.shown():
            place = (point["time"] - grid.start) // grid.step
            for name, column in found.items():
                column[place] = point[name]
        return found

"""Numbers over time as points: of each stretch of time the first, least, greatest and last number, their sum and count.

Points are mergeable: those of an hour make that of the hour, so that any width can be drawn from narrower ones; the
first, least, greatest and last number of each column of pixels draw the line as all numbers would (M4, Jugel et al.,
2014).

Invariant: nothing is lost by merging but where within a stretch a number stood. What numbers a payload has is decided
in `fields`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import fsum
from operator import lt
from typing import Any

__all__ = ["MAX_POINTS", "Grid", "Points"]


MAX_POINTS = 5_000
"""Points of one series in one answer."""

AT_ONCE = 100
"""Stretches of time that one step merges: some hundred microseconds."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Stretches of time of one length, one behind the other.

    Attributes:
        start: of the first one, milliseconds since 1970; a multiple of `step`, so that charts that move on do not jump.
        step: length, milliseconds.
        count: how many there are.
    """

    start: int
    step: int
    count: int

    @classmethod
    def over(cls, since: int, until: int, points: int, unit: int = 1) -> Grid:
        """A grid over a time that has at most `points` stretches, each of whole `unit`s.

        Args:
            since: milliseconds since 1970.
            until: the end, not included; later than `since`.
            points: from 1.
            unit: milliseconds.
        """
        if points == 1:
            start = since // unit * unit
            return cls(start, -(-(until - start) // unit) * unit, 1)
        # one more stretch is begun where the time doesn't begin with one
        step = -(-(until - since) // ((points - 1) * unit)) * unit
        start = since // step * step
        return cls(start, step, -(-(until - start) // step))

    @property
    def end(self) -> int:
        """Where the last one ends, milliseconds since 1970."""
        return self.start + self.step * self.count


class Points:
    """Points of one series in the order of their time, column by column.

    Attributes:
        times: where each stretch begins, milliseconds since 1970; those of single numbers when these came.
        counts: how many numbers each has.
        sums, mins, maxs, firsts, lasts: what they make.
    """

    __slots__ = ("counts", "firsts", "lasts", "maxs", "mins", "sums", "times")

    def __init__(self) -> None:
        self.times: array[int] = array("q")
        self.counts: array[int] = array("Q")
        self.sums: array[float] = array("d")
        self.mins: array[float] = array("d")
        self.maxs: array[float] = array("d")
        self.firsts: array[float] = array("d")
        self.lasts: array[float] = array("d")

    @classmethod
    def of_numbers(cls, times: array[int], numbers: array[float]) -> Points:
        """Each number as a point of its own; both arrays are kept, and must not change any more."""
        found = cls()
        found.times = times
        found.counts = array("Q", [1]) * len(times)
        found.sums = found.mins = found.maxs = found.firsts = found.lasts = numbers
        return found

    @property
    def are_numbers(self) -> bool:
        """Whether each is one number, and the columns that would all be alike are one array."""
        return self.sums is self.lasts

    def part_columns(self) -> None:
        """Gives each column an array of its own, so that other points can be added."""
        if self.are_numbers:
            numbers = self.lasts
            self.sums, self.mins, self.maxs, self.firsts = numbers[:], numbers[:], numbers[:], numbers[:]

    def __len__(self) -> int:
        return len(self.times)

    def add(self, time: int, count: int, total: float, least: float, most: float, first: float, last: float) -> None:
        """Adds a point that is not before the last one."""
        self.times.append(time)
        self.counts.append(count)
        self.sums.append(total)
        self.mins.append(least)
        self.maxs.append(most)
        self.firsts.append(first)
        self.lasts.append(last)

    def extend(self, other: Points) -> None:
        """Adds all points of others, none of which is before the last one here."""
        self.times += other.times
        self.counts += other.counts
        self.sums += other.sums
        self.mins += other.mins
        self.maxs += other.maxs
        self.firsts += other.firsts
        self.lasts += other.lasts

    @classmethod
    def merged(cls, parts: Sequence[Points]) -> Points:
        """All points of several in the order of their time; of one time, what is first in `parts` came first.

        A part that is the only one, and in order, comes back as it is.
        """
        if len(parts) == 1:
            found = parts[0]
        else:
            found = cls()
            for part in parts:
                found.extend(part)
        times = found.times
        if all(map(lt, times, islice(times, 1, None))):
            return found
        order = sorted(range(len(times)), key=times.__getitem__)  # stable
        result = cls()
        for index in order:
            if result.times and result.times[-1] == times[index]:
                result._join(*found.row(index))
            else:
                result.add(times[index], *found.row(index))
        return result

    def _join(self, count: int, total: float, least: float, most: float, _first: float, last: float) -> None:
        self.counts[-1] += count
        self.sums[-1] += total
        self.mins[-1] = min(self.mins[-1], least)
        self.maxs[-1] = max(self.maxs[-1], most)
        self.lasts[-1] = last

    def on(self, grid: Grid) -> Generator[None, None, Points]:
        """The points of each stretch of a grid in one, whose time is where that begins; empty ones are left out.

        It yields now and then, so that others may have a turn.
        """
        found = Points()
        times, numbers = self.times, self.lasts if self.are_numbers else None
        low = bisect_left(times, grid.start)
        end = bisect_left(times, grid.end, low)
        while low < end:
            start = grid.start + (times[low] - grid.start) // grid.step * grid.step
            high = bisect_left(times, start + grid.step, low, end)
            if high == low + 1:
                found.add(start, *self.row(low))
            elif numbers is not None:
                part = numbers[low:high].tolist()
                found.add(start, high - low, fsum(part), min(part), max(part), part[0], part[-1])
            else:
                found.add(
                    start,
                    sum(self.counts[low:high]),
                    fsum(self.sums[low:high]),
                    min(self.mins[low:high]),
                    max(self.maxs[low:high]),
                    self.firsts[low],
                    self.lasts[high - 1],
                )
            low = high
            if len(found) % AT_ONCE == 0:
                yield
        return found

    def row(self, index: int) -> tuple[int, float, float, float, float, float]:
        """Count, sum, least, greatest, first and last of one point."""
        return (
            self.counts[index],
            self.sums[index],
            self.mins[index],
            self.maxs[index],
            self.firsts[index],
            self.lasts[index],
        )

    def shown(self) -> Iterator[dict[str, Any]]:
        """Each as an object: `time`, `first`, `min`, `max`, `last`, `mean`, `count`."""
        for index, time in enumerate(self.times):
            yield {
                "time": time,
                "first": plain(self.firsts[index]),
                "min": plain(self.mins[index]),
                "max": plain(self.maxs[index]),
                "last": plain(self.lasts[index]),
                "mean": mean(self.sums[index], self.counts[index]),
                "count": self.counts[index],
            }

    def columns(self, grid: Grid) -> dict[str, list[Any]]:
        """The same by column, with an entry for each stretch of the grid that they are on: None or 0 where none is."""
        start, step = grid.start, grid.step
        places = [(time - start) // step for time in self.times]
        columns: dict[str, Iterable[Any]] = {
            "first": map(plain, self.firsts),
            "min": map(plain, self.mins),
            "max": map(plain, self.maxs),
            "last": map(plain, self.lasts),
            "mean": map(mean, self.sums, self.counts),
            "count": self.counts,
        }
        found: dict[str, list[Any]] = {}
        for name, numbers in columns.items():
            column = found[name] = [0 if name == "count" else None] * grid.count
            for place, number in zip(places, numbers, strict=True):
                column[place] = number
        return found


def plain(number: float) -> float | int:
    """A number as people write it: whole ones without `.0`."""
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def mean(total: float, count: int) -> float | int:
    """Nine digits of it, which is more than sensors have: it is not longer than what it was made of."""
    return plain(float(f"{total / count:.9g}"))

"""Roll-ups: what the numbers of each minute and each hour were, so that a year is drawn as fast as a minute.

A *series* is one number in the payloads of one topic, or one text (`core.texts`). Its points lie in two forms: a *slab*
has the points that all series have in one stretch of time, as they come to be known; a *chunk* has the points that one
series has in many stretches, as they are read. When the stretches of a chunk are over, their slabs are turned into
chunks, and what each chunk makes as a whole becomes a point of the next level.

Invariant: points are only ever merged, so that it makes no difference in how many parts they came. Nothing here knows
tables, threads or settings.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import fsum
from typing import Any, Protocol

import msgspec

from gateway.archive.blocks import BlockError
from gateway.core.fields import BOOKKEEPING, LARGEST, Path, numbers_of, state_of, texts_of
from gateway.core.points import Points

__all__ = [
    "LEVELS", "Level", "OpenMinutes", "Slab", "chunks_of", "decode_chunk", "encode_chunk", "place_of",
    "sum_of", "widest",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Level:
    """One width of points.

    Attributes:
        name: what it is called in answers.
        unit: how long each is, milliseconds.
        chunk: how long the stretch is whose points lie together, milliseconds: the unit of the next level.
    """

    name: str
    unit: int
    chunk: int


LEVELS = (Level("minute", 60_000, 3_600_000), Level("hour", 3_600_000, 86_400_000))
"""From the narrowest."""

PACKING = 6
"""Of zlib."""

SIZES = {code: array(code).itemsize for code in "IQd"}

ONES = array("Q", [1]) * 128
"""As many as most chunks have points."""

NUMBERS: list[None] = [None] * 5
"""The columns of points each of which is one number."""

_UNKNOWN: list[Any] = []
"""Stands for the row of a member whose row is not known."""

KNOWN_BYTES = 512
"""Keys that take no more are remembered: those of a chunk have 240 or 96 bytes at most, those of a slab many more."""

QUICK_MEMBERS = 100
"""An object with more members is taken apart as a whole, so that there is one bound on what is drawn of a payload."""


def widest(step: int) -> int:
    """The place of the widest level whose points are no wider than `step` milliseconds, else of the narrowest."""
    return max((place for place, level in enumerate(LEVELS) if level.unit <= step), default=0)


def place_of(name: str) -> int:
    """The place of a level by its name."""
    return next(place for place, level in enumerate(LEVELS) if level.name == name)


_decode_value = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Encoder().encode
_unpack: Callable[[bytes], tuple[int, bytes, bytes, list[bytes | None]]]
_unpack = msgspec.msgpack.Decoder(tuple[int, bytes, bytes, list[bytes | None]]).decode


def _shuffled(column: array[Any]) -> bytes:
    """The first bytes of all numbers, then the second ones: neighbours are alike, which compresses better."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    plain = column.tobytes()
    return b"".join(plain[place :: column.itemsize] for place in range(column.itemsize))


def _in_order(code: str, data: bytes, count: int) -> bytearray:
    """The bytes of numbers again, as an array of this machine has them."""
    size = SIZES[code]
    if len(data) != size * count:
        raise BlockError("a column of a roll-up is cut short")
    plain = bytearray(len(data))
    for place in range(size):
        plain[place::size] = data[place * count : (place + 1) * count]
    if sys.byteorder == "big":
        numbers = array(code, bytes(plain))
        numbers.byteswap()
        return bytearray(numbers.tobytes())
    return plain


def _encode(keys: Iterable[int], points: Points) -> bytes:
    """Points under rising keys. Columns that are like the last values, or all ones, take nothing."""
    count = len(points)
    key_bytes = _shuffled(array("I", _differences(keys)))
    lasts = _shuffled(points.lasts)
    ones = points.counts == array("Q", [1]) * count
    others = (points.firsts, points.mins, points.maxs, points.sums)
    columns = [None if ones else _shuffled(points.counts)]
    columns += [None if column == points.lasts else _shuffled(column) for column in others]
    return zlib.compress(_pack((count, key_bytes, lasts, columns)), PACKING)


def _differences(numbers: Iterable[int]) -> Iterator[int]:
    before = 0
    for number in numbers:
        yield number - before
        before = number


def _keys(key_bytes: bytes, count: int) -> array[int]:
    try:
        return array("I", accumulate(array("I", bytes(_in_order("I", key_bytes, count)))))
    except OverflowError:
        raise BlockError("the keys of a roll-up are too large") from None


_known_keys = lru_cache(maxsize=64)(_keys)
"""Most chunks have the same keys, all of their stretch; a month of a series has 720. They must not be changed."""


def _decode(data: bytes, points: Points) -> array[int]:
    """Adds the points that are in some bytes; their times are for the caller.

    Returns:
        Their keys.

    Raises:
        BlockError: these are not their bytes.
    """
    try:
        count, key_bytes, last_bytes, columns = _unpack(zlib.decompress(data))
    except (zlib.error, msgspec.MsgspecError, UnicodeError) as error:
        raise BlockError(f"a roll-up is damaged: {error}") from None
    if len(columns) != 5:
        raise BlockError("a roll-up has not its columns")
    keys = (_known_keys if len(key_bytes) <= KNOWN_BYTES else _keys)(key_bytes, count)
    lasts = _in_order("d", last_bytes, count)
    if points.are_numbers:
        if columns == NUMBERS:
            points.counts += _ones(count)
            points.lasts.frombytes(lasts)
            return keys
        points.part_columns()
    counts, *others = columns
    firsts, mins, maxs, sums = (lasts if column is None else _in_order("d", column, count) for column in others)
    if counts is not None:
        points.counts.frombytes(_in_order("Q", counts, count))
    else:
        points.counts += _ones(count)
    points.lasts.frombytes(lasts)
    points.firsts.frombytes(firsts)
    points.mins.frombytes(mins)
    points.maxs.frombytes(maxs)
    points.sums.frombytes(sums)
    return keys


def _ones(count: int) -> array[int]:
    return ONES[:count] if count <= len(ONES) else array("Q", [1]) * count


class Slab:
    """What all series had in one stretch of time.

    Attributes:
        series: their ids, rising.
        points: the point of each.
    """

    __slots__ = ("points", "series")

    def __init__(self, series: array[int], points: Points) -> None:
        self.series = series
        self.points = points

    @classmethod
    def of(cls, start: int, rows: Mapping[int, tuple[int, float, float, float, float, float]]) -> Slab:
        """From the row of each series by its id; `start` is where the stretch begins, milliseconds since 1970."""
        points = Points()
        series = array("I", sorted(rows))
        for number in series:
            points.add(start, *rows[number])
        return cls(series, points)

    def encode(self) -> bytes:
        """As bytes, without where the stretch begins."""
        return _encode(self.series, self.points)

    @classmethod
    def decode(cls, start: int, data: bytes) -> Slab:
        """The slab again.

        Raises:
            BlockError: these are not its bytes.
        """
        points = Points()
        series = _decode(data, points)
        points.times = array("q", [start]) * len(series)
        return cls(series, points)

    def row(self, series: int) -> tuple[int, float, float, float, float, float] | None:
        """Count, sum, least, greatest, first and last of one series, None where it had nothing."""
        place = bisect_left(self.series, series)
        if place == len(self.series) or self.series[place] != series:
            return None
        return self.points.row(place)


def encode_chunk(level: Level, start: int, points: Points) -> bytes:
    """The points of one series in the stretch of a chunk that begins at `start`, milliseconds since 1970."""
    return _encode(((time - start) // level.unit for time in points.times), points)


def decode_chunk(level: Level, start: int, data: bytes, points: Points | None = None) -> Points:
    """The points again, behind others where there are any.

    Raises:
        BlockError: these are not their bytes.
    """
    if points is None:
        points = Points()
    keys = _decode(data, points)
    unit = level.unit
    if keys and keys[-1] - keys[0] == len(keys) - 1:  # without a gap, as most are: in one go
        points.times.extend(range(start + keys[0] * unit, start + (keys[-1] + 1) * unit, unit))
    else:
        points.times.extend([start + key * unit for key in keys])
    return points


def chunks_of(slabs: Iterable[Slab]) -> Iterator[dict[int, Points]]:
    """The points of each series in some slabs, in the order of these; yields the same again while it goes on."""
    found: dict[int, Points] = {}
    for slab in slabs:
        for place, number in enumerate(slab.series):
            points = found.get(number)
            if points is None:
                points = found[number] = Points()
            points.add(slab.points.times[place], *slab.points.row(place))
        yield found


def sum_of(points: Points) -> tuple[int, float, float, float, float, float]:
    """What points make as a whole: count, sum, least, greatest, first and last. There must be one."""
    return (
        sum(points.counts),
        fsum(points.sums),
        min(points.mins),
        max(points.maxs),
        points.firsts[0],
        points.lasts[-1],
    )


class _Text:
    """A text in the payloads of one topic: what is known of it beyond the minute that is under way.

    Attributes:
        series: its id.
        numbers: of its texts, those that come up as well.
        last: number of the text that came last; None where that isn't known.
    """

    __slots__ = ("last", "numbers", "series")

    def __init__(self, series: int, numbers: dict[str, int]) -> None:
        self.series = series
        self.numbers = numbers
        self.last: int | None = None


class Names(Protocol):
    """Who has the ids of series and the numbers of texts."""

    def series(self, topic: str, path: Path, is_text: bool) -> int | None:
        """The id of a number or a text in the payloads of a topic; None where there is no room for it."""

    def texts(self, series: int) -> dict[str, int]:
        """The numbers of the texts that a series has had, and will have."""

    def text(self, series: int, text: str) -> int:
        """The number of a text that may be new to a series; 0 where there is no room for it."""


class OpenMinutes:
    """The minute that is under way: what its numbers and texts have made so far.

    Attributes:
        start: where it begins, milliseconds since 1970; None before the first number.
        first_seq: number of the first message in it: what came before is in minutes that are over.
        left_out: numbers and texts that were left out, since there are as many series as there may be.
    """

    def __init__(self, names: Names) -> None:
        """Begins with nothing; `names` has the ids of series and the numbers of texts."""
        self.start: int | None = None
        self.first_seq = 0
        self.left_out = 0
        self._names = names
        self._rows: dict[int, list[Any]] = {}
        self._ids: dict[str, dict[Path, int | None]] = {}
        self._texts: dict[str, dict[Path, _Text | None]] = {}
        self._quick: dict[str, dict[Any, list[Any] | None]] = {}  # by topic and member; None for bookkeeping
        self._quick_texts: dict[str, dict[Any, _Text]] = {}

    def add(self, seq: int, topic: str, payload: bytes, time: int) -> tuple[int, Slab] | None:
        """Takes a message. Returns the minute that it ends, if it ends one: where that began, and what it had."""
        ended = None
        start = time - time % LEVELS[0].unit
        if start != self.start:
            ended = self.end()
            self.start, self.first_seq = start, seq
        try:
            value: Any = _decode_value(payload)
        except (msgspec.MsgspecError, RecursionError):
            try:
                value = payload.decode()
            except UnicodeDecodeError:
                return ended
        rows = self._quick.get(topic)
        if rows is None:
            rows = self._quick[topic] = dict.fromkeys(BOOKKEEPING)  # None: passed over
            self._quick_texts.setdefault(topic, {})
        if value.__class__ is dict and len(value) <= QUICK_MEMBERS:
            value = self._add_known(rows, self._quick_texts[topic], value)
            if not value:
                return ended
        for path, number in numbers_of(value, with_states=True):
            self._add_number(topic, path, number, rows)
        for path, text in texts_of(value):
            self._add_text(topic, path, text)
        return ended

    def _add_known(
        self, rows: Mapping[Any, list[Any] | None], texts: Mapping[Any, _Text], members: dict[str, Any]
    ) -> dict[str, Any]:
        """Takes the numbers and texts of members that are known, which most are; returns the others."""
        others = {}
        for name, number in members.items():
            row = rows.get(name, _UNKNOWN)
            kind = number.__class__
            if row and (kind is float or kind is int) and -LARGEST < number < LARGEST:
                row[0] += 1
                row[1] += number
                if number < row[2]:
                    row[2] = number
                elif number > row[3]:
                    row[3] = number
                row[5] = number
            elif kind is str and name in texts and number in texts[name].numbers and state_of(number) is None:
                self._count_text(texts[name], number)
            elif row is not None or kind is dict or kind is list:
                others[name] = number
        return others

    def _add_number(self, topic: str, path: Path, number: float, known: dict[Any, list[Any] | None]) -> None:
        ids = self._ids.get(topic)
        if ids is None:
            ids = self._ids[topic] = {}
        series = ids.get(path, 0)
        if series == 0:
            if path and path[-1] in BOOKKEEPING:
                return
            series = ids[path] = self._names.series(topic, path, False)
        if series is None:
            self.left_out += 1
            return
        row = self._rows.get(series)
        if row is None:
            row = self._rows[series] = [1, number, number, number, number, number]
        else:
            row[0] += 1
            row[1] += number
            if number < row[2]:
                row[2] = number
            if number > row[3]:
                row[3] = number
            row[5] = number
        if len(path) == 1:
            known[path[0]] = row

    def _add_text(self, topic: str, path: Path, text: str) -> None:
        if path and path[-1] in BOOKKEEPING:
            return
        known = self._texts.setdefault(topic, {})
        if path not in known:
            series = self._names.series(topic, path, True)
            known[path] = None if series is None else _Text(series, self._names.texts(series))
        found = known[path]
        if found is None:
            self.left_out += 1
            return
        self._count_text(found, text)
        if len(path) == 1:
            self._quick_texts[topic][path[0]] = found

    def _count_text(self, found: _Text, text: str) -> None:
        number = found.numbers.get(text) or self._names.text(found.series, text)
        change = found.last is not None and number != found.last
        found.last = number
        row = self._rows.get(found.series)
        if row is None:
            self._rows[found.series] = [1, change, 0.0, 0.0, number, number]
        else:
            row[0] += 1
            row[1] += change
            row[5] = number

    def end(self) -> tuple[int, Slab] | None:
        """The minute so far, which is over by this; what comes of the same minute later is a part of its own."""
        if self.start is None:
            return None
        start, rows = self.start, self._rows
        self.start, self._rows = None, {}
        self._quick.clear()
        return (start, Slab.of(start, rows)) if rows else None  # type: ignore[arg-type]

    def row(self, series: int) -> tuple[int, float, float, float, float, float] | None:
        """What the minute that is under way has of one series."""
        row = self._rows.get(series)
        return None if row is None else tuple(row)

    def left_out_of(self, topic: str) -> list[Path]:
        """What is left out of a topic, as far as that is remembered; from any thread."""
        numbers, texts = self._ids.get(topic, {}).copy(), self._texts.get(topic, {}).copy()
        found = [path for path, number in numbers.items() if number is None]
        return [*found, *(path for path, text in texts.items() if text is None and path not in found)]

    def forget_ids(self) -> None:
        """Forgets which series has which id, where that may have changed or takes too much."""
        self._ids.clear()
        self._texts.clear()
        self._quick.clear()
        self._quick_texts.clear()

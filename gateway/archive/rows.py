"""What is asked of the file's tables, by whoever reads them.

Invariant: rows come in the order of their numbers, one at a time, so that nothing large is held; bytes that are damaged
raise `BlockError`, tables that are damaged what SQLite raises. Threads and turns are for the caller.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.archive.blocks import Block
from gateway.archive.keeping import Thinned

__all__ = ["BlockRow", "Rows", "Stretch"]

MAX_NAMES = 200_000
"""Names of topics that are remembered: about 40 MB."""


_COLUMNS = "first_seq, last_seq, topics, count"


NAMES_AT_ONCE = 500
"""Names that are looked up in one go."""


class Stretch(NamedTuple):
    """A block, without what is in it."""

    first_seq: int
    last_seq: int
    min_time: int
    max_time: int
    is_thinned: bool


class BlockRow(NamedTuple):
    """A block, without its messages.

    Attributes:
        left: how many of its messages it still has; None: all of them.
    """

    first_seq: int
    last_seq: int
    topics: bytes
    left: int | None


class Rows:
    """Questions to one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._names: dict[int, str] = {}

    def name_of(self, number: int) -> str:
        """The name of a topic."""
        name = self._names.get(number)
        if name is None:
            row = self._connection.execute("SELECT name FROM topics WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise sqlite3.DatabaseError(f"the archive has no topic {number}")
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            name = self._names[number] = row[0]
        return name

    def names_of(self, numbers: Sequence[int]) -> list[str]:
        """The names of topics; of many that have to be looked up, some hundred in one go."""
        new = [number for number in numbers if number not in self._names]
        if len(new) > 8:
            if len(self._names) + len(new) > MAX_NAMES:
                self._names.clear()
                new = list(numbers)
            for at in range(0, len(new), NAMES_AT_ONCE):
                some = new[at : at + NAMES_AT_ONCE]
                query = f"SELECT id, name FROM topics WHERE id IN ({','.join(map(str, some))})"  # noqa: S608
                self._names.update(self._connection.execute(query))
        return [self.name_of(number) for number in numbers]

    def newest_first(self) -> Iterator[Stretch]:
        """The blocks from the newest back."""
        query = """SELECT first_seq, last_seq, min_time, max_time, count IS NOT NULL FROM blocks
            ORDER BY first_seq DESC"""
        return map(Stretch._make, self._connection.execute(query))

    def blocks_from(self, seq: int, until: int) -> Iterator[BlockRow]:
        """The blocks that have a number from `seq` to `until`, rising."""
        start = self._connection.execute(
            "SELECT first_seq FROM blocks WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1", (seq,)
        ).fetchone()
        query = f"SELECT {_COLUMNS} FROM blocks WHERE first_seq BETWEEN ? AND ? ORDER BY first_seq"  # noqa: S608
        rows = map(BlockRow._make, self._connection.execute(query, (start[0] if start else seq, until)))
        return (row for row in rows if row.last_seq >= seq)

    def blocks_back_from(self, seq: int, after: int) -> Iterator[BlockRow]:
        """The blocks that have a number up to `seq` and above `after`, falling."""
        query = f"SELECT {_COLUMNS} FROM blocks WHERE first_seq <= ? ORDER BY first_seq DESC"  # noqa: S608
        for row in map(BlockRow._make, self._connection.execute(query, (seq,))):
            if row.last_seq <= after:
                return
            yield row

    def row(self, first_seq: int) -> BlockRow:
        """The block that begins with this number."""
        query = f"SELECT {_COLUMNS} FROM blocks WHERE first_seq = ?"  # noqa: S608
        row = self._connection.execute(query, (first_seq,)).fetchone()
        if row is None:
            raise sqlite3.DatabaseError(f"the archive has no block {first_seq}")
        return BlockRow._make(row)

    @property
    def begins_after(self) -> int:
        """The number before the oldest block; 0 where there is none."""
        row = self._connection.execute("SELECT min(first_seq) FROM blocks").fetchone()
        return row[0] - 1 if row[0] else 0

    def thinned(self) -> tuple[Thinned, ...]:
        """What rules of retention have taken, as far as it would be there without them."""
        query = "SELECT topics, others, level, until FROM thinned WHERE until > 0"
        return tuple(
            Thinned(tuple(json.loads(topics)), tuple(json.loads(others)), level, until)
            for topics, others, level, until in self._connection.execute(query)
        )

    def steps(self) -> list[int]:
        """First numbers behind which the clock had been set back."""
        return [row[0] for row in self._connection.execute("SELECT first_seq FROM steps ORDER BY first_seq")]

    def first_block_at(self, time: int, start: int, end: int | None) -> int | None:
        """The first block with a message at or after a time, from number `start` to before `end`; times rise there."""
        if end is None:
            newest = self._connection.execute("SELECT max(first_seq) FROM blocks").fetchone()[0]
            end = (newest or 0) + 1
        query = (
            "SELECT first_seq, max_time FROM blocks WHERE first_seq >= ? AND first_seq < ? ORDER BY first_seq LIMIT 1"
        )
        found = None
        low, high = start, end
        while low < high:
            middle = (low + high) // 2
            row = self._connection.execute(query, (middle, end)).fetchone()
            if row is None:
                high = middle
            elif row[1] >= time:
                found, high = row[0], middle
            else:
                low = row[0] + 1
        return found

    def read(self, first_seq: int) -> Block:
        """The block that begins with this number."""
        row = self._connection.execute("SELECT topics, data FROM blocks WHERE first_seq = ?", (first_seq,)).fetchone()
        if row is None:
            raise sqlite3.DatabaseError(f"the archive has no block {first_seq}")
        return Block(first_seq, *row)

    def snapshot(self) -> Iterator[bytes]:
        """The parts of the snapshot."""
        return (row[0] for row in self._connection.execute("SELECT data FROM snapshot ORDER BY part"))

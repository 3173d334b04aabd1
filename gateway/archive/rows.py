"""What is asked of the file's tables, by whoever reads them.

Invariant: rows come in the order of their numbers, one at a time, so that nothing large is held; bytes that are damaged
raise `BlockError`, tables that are damaged what SQLite raises. Threads and turns are for the caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from gateway.archive.blocks import Block

__all__ = ["Rows", "Stretch"]

MAX_NAMES = 200_000
"""Names of topics that are remembered: about 40 MB."""


class Stretch(NamedTuple):
    """A block, without what is in it."""

    first_seq: int
    last_seq: int
    min_time: int
    max_time: int


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

    def newest_first(self) -> Iterator[Stretch]:
        """The blocks from the newest back."""
        query = "SELECT first_seq, last_seq, min_time, max_time FROM blocks ORDER BY first_seq DESC"
        return map(Stretch._make, self._connection.execute(query))

    def block_at(self, seq: int) -> tuple[int, int, bytes] | None:
        """The first block that ends at or behind a number: first number, last number, topics."""
        row = self._connection.execute(
            "SELECT first_seq, last_seq, topics FROM blocks WHERE first_seq <= ? AND last_seq >= ?"
            " ORDER BY first_seq DESC LIMIT 1",
            (seq, seq),
        ).fetchone()
        if row is None:
            row = self._connection.execute(
                "SELECT first_seq, last_seq, topics FROM blocks WHERE first_seq > ? ORDER BY first_seq LIMIT 1", (seq,)
            ).fetchone()
        return row and tuple(row)

    def read(self, first_seq: int) -> Block:
        """The block that begins with this number."""
        row = self._connection.execute("SELECT topics, data FROM blocks WHERE first_seq = ?", (first_seq,)).fetchone()
        if row is None:
            raise sqlite3.DatabaseError(f"the archive has no block {first_seq}")
        return Block(first_seq, *row)

    def snapshot(self) -> Iterator[bytes]:
        """The parts of the snapshot."""
        return (row[0] for row in self._connection.execute("SELECT data FROM snapshot ORDER BY part"))

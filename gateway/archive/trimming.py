"""The bound of the file: the oldest goes when it is reached, in small steps, and the room is given back.

Messages go first, then the roll-ups of minutes, then those of hours: what is summed up stays longest. The newest
messages stay whatever the bound, since memory is filled from them.

Invariant: one step takes some ten milliseconds; what is left is a log without a hole, behind a number that is told.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from gateway.archive.rollups import LEVELS

__all__ = ["Trimmer"]

BLOCKS_AT_ONCE = 20
"""Blocks that one step takes away: 2 MiB or less each."""

KEPT_BLOCKS = 120
"""The newest blocks stay: about two minutes."""

SERIES_AT_ONCE = 500
"""Series whose oldest chunks one step takes away."""

CHUNKS_AT_ONCE = 24
"""So many of its chunks each series loses before the room is looked at again: a day of minutes, 24 days of hours."""

PAGES_AT_ONCE = 500
"""Pages that one step gives back to the file system: 2 MiB."""


class Trimmer:
    """Keeps one file within its bound; for the thread that writes.

    Attributes:
        max_bytes: the bound.
        since: for each level of roll-ups the time from which on they are there, milliseconds since 1970; none: all are.
    """

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: of the file, without what is written ahead of it (16 MiB at most); 0: no bound."""
        self.max_bytes = max_bytes
        self._level = 0
        self._before = 0  # chunks that begin before this time go, milliseconds since 1970
        self._series = 0  # those of series up to this id are gone
        self._is_under_way = False
        self.since: Mapping[str, int] = {}

    def load(self, connection: sqlite3.Connection) -> None:
        """Reads what went before; another file may have been begun."""
        self._is_under_way = False
        query = "SELECT substr(key, 7), value FROM meta WHERE key LIKE 'since!_%' ESCAPE '!'"
        self.since = dict(connection.execute(query))

    def note(self, connection: sqlite3.Connection, since: Mapping[str, int]) -> None:
        """Writes down that roll-ups of some levels may be missing before a time."""
        for level, moment in since.items():
            self.since = {**self.since, level: max(self.since.get(level, 0), moment)}
            row = f"since_{level}", self.since[level]
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    def step(self, connection: sqlite3.Connection) -> bool:
        """Takes a step, within a transaction; whether there was anything to do."""
        if not self.max_bytes:
            return False
        if self._is_under_way:
            self._trim_chunks(connection)
            return True
        if self.used(connection) <= self.max_bytes:
            return False
        return self._trim_blocks(connection) or self._begin_chunks(connection)

    @staticmethod
    def used(connection: sqlite3.Connection) -> int:
        """Bytes of the pages that are in use."""
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    @staticmethod
    def give_back(connection: sqlite3.Connection) -> bool:
        """Gives some unused pages back, not within a transaction; whether there were any."""
        if connection.execute("PRAGMA freelist_count").fetchone()[0] < PAGES_AT_ONCE:
            return False  # they are used again soon
        connection.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
        return True

    def _trim_blocks(self, connection: sqlite3.Connection) -> bool:
        query = "SELECT first_seq FROM blocks ORDER BY first_seq DESC LIMIT 1 OFFSET ?"
        kept = connection.execute(query, (KEPT_BLOCKS - 1,)).fetchone()
        if kept is None:
            return False
        connection.execute(
            """DELETE FROM blocks WHERE first_seq IN
                (SELECT first_seq FROM blocks WHERE first_seq < ? ORDER BY first_seq LIMIT ?)""",
            (kept[0], BLOCKS_AT_ONCE),
        )
        if not connection.execute("SELECT changes()").fetchone()[0]:
            return False
        (first,) = connection.execute("SELECT min(first_seq) FROM blocks").fetchone()
        if connection.execute("DELETE FROM holes WHERE last_seq < ?", (first,)).rowcount:
            # roll-ups reach further back: of these it is known from now on only when that was over
            (moment,) = connection.execute("SELECT min_time FROM blocks WHERE first_seq = ?", (first,)).fetchone()
            self.note(connection, dict.fromkeys((level.name for level in LEVELS), moment))
        connection.execute("DELETE FROM steps WHERE first_seq < ?", (first,))
        return True

    def _begin_chunks(self, connection: sqlite3.Connection) -> bool:
        """Finds out which chunks are oldest, from the narrowest level on; whether there are any."""
        oldest = """SELECT min(start) FROM (SELECT (SELECT start FROM chunks WHERE level = ? AND series = series.id
            ORDER BY start LIMIT 1) AS start FROM series)"""
        for number, level in enumerate(LEVELS):
            (start,) = connection.execute(oldest, (number,)).fetchone()
            if start is not None:
                self._level, self._before, self._series = number, start + CHUNKS_AT_ONCE * level.chunk, 0
                self._is_under_way = True
                self.note(connection, {level.name: self._before})
                return True
        return False

    def _trim_chunks(self, connection: sqlite3.Connection) -> None:
        ids = [
            row[0]
            for row in connection.execute(
                "SELECT id FROM series WHERE id > ? ORDER BY id LIMIT ?", (self._series, SERIES_AT_ONCE)
            )
        ]
        connection.executemany(
            "DELETE FROM chunks WHERE level = ? AND series = ? AND start < ?",
            ((self._level, number, self._before) for number in ids),
        )
        self._is_under_way = len(ids) == SERIES_AT_ONCE
        self._series = ids[-1] if ids else 0

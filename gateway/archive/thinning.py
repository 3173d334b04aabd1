"""Retention by rule, and small blocks joined: what is old goes or moves together, in small steps with rests between.

A block holds many topics, of which each may have another rule: it is written anew without the messages that are due,
under the same numbers, and says which of them it still has. A block of which nothing is left stays as a stretch of
numbers until it is joined with its neighbours: so a replay of other topics still knows that it missed nothing there.

Invariant: what goes is older than its rule says, and is in the snapshot and in the roll-ups; how far each rule came is
written in the same transaction. A time that has not come yet counts as the one to which the clock was set back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from gateway.archive.blocks import Block, BlockError, decode_ids, repack
from gateway.archive.keeping import RAW, Rules, Thinned
from gateway.archive.rollups import LEVELS
from gateway.archive.rows import Rows

__all__ = ["Thinner"]

logger = logging.getLogger(__name__)

STEP_SECONDS = 0.03
"""A step ends with the block that it is at after so long."""

BLOCKS_AT_ONCE = 50
SERIES_AT_ONCE = 500

PASS_MS = 300_000
"""How often it is looked whether messages are due; roll-ups once in the stretch of one of their chunks."""

JOINED_AGE_MS = 3_600_000
JOINED_SPAN_MS = 3_600_000
"""Blocks are joined when they are an hour old, to blocks of an hour at most."""

SMALL_BYTES = 4_096
"""Smaller blocks are joined: what they would have of a page is mostly empty."""

MAX_JOINED = 240
"""Blocks that are joined at once."""

MAX_JOINED_BYTES = 65_536
MAX_JOINED_MESSAGES = 5_000

MAX_PLACES = 200_000
"""Topics of which it is remembered which rule counts."""


class Thinner:
    """Lets go of what rules say, and joins small blocks; for the thread that writes.

    Attributes:
        rules: what is kept how long.
        thinned: what has been taken so far.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.thinned: tuple[Thinned, ...] = ()
        self._jobs: deque[Callable[[sqlite3.Connection], bool]] = deque()
        self._passes: dict[str, int] = {}
        self._places: dict[int, int | None] = {}
        self._now = self._safe = 0

    def load(self, connection: sqlite3.Connection) -> None:
        """Reads what was taken before; another file may have been begun."""
        self.thinned = Rows(connection).thinned()
        self._places.clear()
        self.forget()

    def forget(self) -> None:
        """Begins anew with what it was at."""
        self._jobs.clear()
        self._passes.clear()

    def step(self, connection: sqlite3.Connection, now_ms: int, safe_seq: int) -> bool:
        """Takes a step, within a transaction; whether there was anything to do.

        Args:
            connection: to the file.
            now_ms: milliseconds since 1970.
            safe_seq: the number up to which messages are in the snapshot and in the roll-ups.
        """
        if not self._jobs:
            self._plan(now_ms)
            if not self._jobs:
                return False
            self._now, self._safe = now_ms, safe_seq
        before = connection.total_changes
        end = time.monotonic() + STEP_SECONDS
        while self._jobs and time.monotonic() < end:
            if self._jobs[0](connection):
                self._jobs.popleft()
        return bool(self._jobs) or connection.total_changes > before

    def _plan(self, now: int) -> None:
        for name, unit in ((RAW, PASS_MS), *((level.name, level.chunk) for level in LEVELS)):
            if self._passes.get(name) == now // unit:
                continue
            self._passes[name] = now // unit
            due = dict(self.rules.of(name))
            if name == RAW:
                for age in sorted(set(due.values())):
                    self._jobs.append(partial(self._thin, age, {place for place in due if due[place] == age}))
                self._jobs.append(self._join_old)
            elif due:
                number = next(place for place, level in enumerate(LEVELS) if level.name == name)
                self._jobs.append(_Chunks(self, number, due).step)

    # messages

    def _thin(self, age: int, places: set[int], connection: sqlite3.Connection) -> bool:
        """Takes what some rules say from the next blocks; whether that is all for now."""
        cursors = [self._cursor(connection, place) for place in places]
        cursor = begun = min(cursors)
        cutoff = self._now - age
        until: dict[int, int] = {}
        is_done = False
        end = time.monotonic() + STEP_SECONDS
        steps = _steps(connection)
        query = """SELECT first_seq, last_seq, max_time, topics FROM blocks WHERE first_seq > ?
            ORDER BY first_seq LIMIT ?"""
        rows = Rows(connection)
        while not is_done and time.monotonic() < end:
            some = connection.execute(query, (cursor, BLOCKS_AT_ONCE)).fetchall()
            is_done = not some
            for first, last, max_time, topics in some:
                arrived = max_time
                if arrived > self._now:  # of a clock that was wrong: it came before the clock was set back
                    arrived = min([arrived, *(moment for step, moment in steps if step > first)])
                if last > self._safe or arrived >= cutoff:
                    is_done = True
                    break
                try:
                    until.update(dict.fromkeys(self._take(connection, rows, first, last, topics, places), last))
                except BlockError as error:
                    logger.error("the messages %d to %d of the archive can't be thinned: %s", first, last, error)
                cursor = last
                if time.monotonic() > end:
                    break
                time.sleep(0)  # the loop's thread waits for this one's lock on the interpreter
        if cursor > begun:
            for place in places:
                self._note(connection, place, RAW, until.get(place, 0), cursor)
            self._jobs.insert(1, partial(self._join, self._empty_before(connection, begun), cursor))
        return is_done

    def _take(
        self, connection: sqlite3.Connection, rows: Rows, first: int, last: int, topics: bytes, places: set[int]
    ) -> set[int]:
        """Takes the topics of some rules out of a block; which of these rules had any."""
        ids = decode_ids(topics)
        due: dict[int, int] = {}
        for number in ids:
            if (place := self._place(rows, number)) is not None and place in places:
                due[number] = place
        if not due:
            return set()
        block: tuple[bytes, bytes, int]
        if len(due) == len(ids):
            block = repack([], first, last)
        else:
            found = rows.read(first)
            block = repack([(found, found.select(lambda number: number not in due, 0, last))], first, last)
        connection.execute("UPDATE blocks SET topics = ?, data = ?, count = ? WHERE first_seq = ?", (*block, first))
        return set(due.values())

    def _place(self, rows: Rows, number: int) -> int | None:
        """Which rule counts for a topic."""
        if number not in self._places:
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            self._places[number] = self.rules.place_of(rows.name_of(number))
        return self._places[number]

    def _cursor(self, connection: sqlite3.Connection, place: int) -> int:
        found = self.rules.thinned(place, RAW, 0)
        query = "SELECT cursor FROM thinned WHERE topics = ? AND others = ? AND level = ?"
        row = connection.execute(query, (_text(found.topics), _text(found.others), RAW)).fetchone()
        return int(row[0]) if row else 0

    def _note(self, connection: sqlite3.Connection, place: int, level: str, until: int, cursor: int) -> None:
        """Writes down how far a rule came."""
        found = self.rules.thinned(place, level, until)
        connection.execute(
            """INSERT INTO thinned VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until),
                cursor = max(cursor, excluded.cursor)""",
            (_text(found.topics), _text(found.others), level, until, cursor),
        )
        if until:
            self.thinned = Rows(connection).thinned()

    # blocks

    @staticmethod
    def _empty_before(connection: sqlite3.Connection, seq: int) -> int:
        """The number behind which blocks are joined that come behind `seq`: an empty one before takes part."""
        query = "SELECT first_seq, count FROM blocks WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1"
        row = connection.execute(query, (seq,)).fetchone()
        return row[0] - 1 if row and row[1] == 0 else seq

    def _join_old(self, connection: sqlite3.Connection) -> bool:
        """Joins the next blocks that have come to the age for it; whether that is all for now."""
        row = connection.execute("SELECT value FROM meta WHERE key = 'joined'").fetchone()
        cursor = row[0] if row else 0
        following = self._join_next(connection, cursor, self._safe, self._now - JOINED_AGE_MS)
        if following is None:
            return True
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('joined', ?)", (following,))
        return False

    def _join(self, after: int, until: int, connection: sqlite3.Connection) -> bool:
        """Joins small blocks of a stretch, the next of them; whether that is all."""
        following = self._join_next(connection, after, until, None)
        if following is None:
            return True
        self._jobs[0] = partial(self._join, following, until)
        return False

    def _join_next(self, connection: sqlite3.Connection, after: int, until: int, before: int | None) -> int | None:
        """Joins the first small blocks behind `after` that are neighbours.

        Args:
            connection: to the file.
            after: the number behind which to begin.
            until: the last number that may be touched.
            before: the time that they must be older than, and that has to have passed the end of what is joined, so
                that nothing is joined twice; None: what there is.

        Returns:
            The number behind which to go on; None where there is nothing to be done, or not yet.
        """
        query = """SELECT first_seq, last_seq, min_time, max_time, length(data) + length(topics),
            ifnull(count, last_seq - first_seq + 1) FROM blocks WHERE first_seq > ? ORDER BY first_seq LIMIT ?"""
        steps = {row[0] for row in connection.execute("SELECT first_seq FROM steps WHERE first_seq > ?", (after,))}
        group: list[tuple[int, int, int, int]] = []
        passed: int | None = None
        size = messages = 0
        is_closed = before is None
        with contextlib.closing(connection.execute(query, (after, MAX_JOINED + 1))) as found:
            for first, last, low, high, bytes_, count in found:
                if last > until or (before is not None and high >= before):
                    break
                is_small = bytes_ < SMALL_BYTES
                if group and not (
                    is_small
                    and first == group[-1][1] + 1
                    and first not in steps
                    and high - group[0][2] <= JOINED_SPAN_MS
                    and size + bytes_ <= MAX_JOINED_BYTES
                    and messages + count <= MAX_JOINED_MESSAGES
                    and len(group) < MAX_JOINED
                ):
                    is_closed = True
                    break
                if not is_small:
                    passed = last
                    continue
                group.append((first, last, low, high))
                size += bytes_
                messages += count
        if not group or not is_closed:
            return passed
        if len(group) > 1:
            self._write_joined(connection, group)
        return group[-1][1]

    @staticmethod
    def _write_joined(connection: sqlite3.Connection, group: list[tuple[int, int, int, int]]) -> None:
        first, last = group[0][0], group[-1][1]
        rows = Rows(connection)
        parts: list[tuple[Block, range]] = []
        try:
            for start, *_ in group:
                block = rows.read(start)
                parts.append((block, range(len(block))))
                if len(parts) % 16 == 0:
                    time.sleep(0)
        except BlockError as error:
            logger.error("the messages %d to %d of the archive can't be joined: %s", first, last, error)
            return
        topics, data, count = repack(parts, first, last)
        connection.execute("DELETE FROM blocks WHERE first_seq > ? AND first_seq <= ?", (first, last))
        times = min(each[2] for each in group), max(each[3] for each in group)
        connection.execute(
            """UPDATE blocks SET last_seq = ?, min_time = ?, max_time = ?, topics = ?, data = ?, count = ?
                WHERE first_seq = ?""",
            (last, *times, topics, data, None if count == last - first + 1 else count, first),
        )


class _Chunks:
    """One pass through the chunks of a level."""

    def __init__(self, thinner: Thinner, level: int, due: dict[int, int]) -> None:
        self._thinner = thinner
        self._level = level
        self._due = due
        self._series = 0

    def step(self, connection: sqlite3.Connection) -> bool:
        """Takes what rules say of the next series; whether that was all."""
        thinner, level = self._thinner, LEVELS[self._level]
        query = "SELECT id, topic FROM series WHERE id > ? ORDER BY id LIMIT ?"
        some = connection.execute(query, (self._series, SERIES_AT_ONCE)).fetchall()
        had: set[int] = set()
        for number, topic in some:
            place = thinner.rules.place_of(topic)
            if place in self._due:
                before = thinner._now - self._due[place] - level.chunk
                found = connection.execute(
                    "DELETE FROM chunks WHERE level = ? AND series = ? AND start < ?", (self._level, number, before)
                )
                if found.rowcount:
                    had.add(place)
            time.sleep(0)
        for place in had:
            thinner._note(connection, place, level.name, thinner._now - self._due[place], 0)
        self._series = some[-1][0] if some else 0
        return len(some) < SERIES_AT_ONCE


def _steps(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Where the clock was set back: the first number behind that, and its time."""
    query = "SELECT steps.first_seq, min_time FROM steps JOIN blocks USING (first_seq) ORDER BY first_seq"
    return list(connection.execute(query))


def _text(filters: tuple[str, ...]) -> str:
    return json.dumps(filters)

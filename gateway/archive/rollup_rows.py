"""The roll-ups' tables: what the writer's thread puts in, and what a reader's thread takes out.

- `series`: an id for each number and each text in the payloads of a topic: topic name, path, and which of the two.
- `texts`: the texts that a series has had, by the number that stands for each in points.
- `slabs`: what all series had in one minute or hour. `part`: a minute that came again, after the clock had been set
  back, or in two runs of the gateway.
- `chunks`: the points of one series, an hour of minutes or a day of hours to a row.

Invariant: each message is in one place: in slabs and chunks up to the number `rolled` (in `meta`), behind it in the
minute that is under way, and from `next_seq` on nowhere yet. A reader sees one state of all three.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from gateway.archive.rollups import (
    LEVELS,
    Level,
    OpenMinutes,
    Slab,
    chunks_of,
    decode_chunk,
    encode_chunk,
    sum_of,
)
from gateway.core.fields import Path
from gateway.core.paths import path_text
from gateway.core.points import Points
from gateway.core.texts import number_in

__all__ = ["MAX_SERIES", "ROLLUP_TABLES", "TEXT_TABLES", "RollupReader", "RollupWriter", "Series"]

logger = logging.getLogger(__name__)

ROLLUP_TABLES = (
    "CREATE TABLE series (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, field TEXT NOT NULL, UNIQUE (topic, field))",
    """CREATE TABLE slabs (level INTEGER NOT NULL, start INTEGER NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (level, start, part))""",
    """CREATE TABLE chunks (level INTEGER NOT NULL, series INTEGER NOT NULL, start INTEGER NOT NULL,
        data BLOB NOT NULL, PRIMARY KEY (level, series, start)) WITHOUT ROWID""",
)

TEXT_TABLES = (
    "ALTER TABLE series RENAME TO series_of_numbers",
    """CREATE TABLE series (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, field TEXT NOT NULL, is_text INTEGER NOT NULL,
        UNIQUE (topic, field, is_text))""",
    "INSERT INTO series SELECT id, topic, field, 0 FROM series_of_numbers",
    "DROP TABLE series_of_numbers",
    """CREATE TABLE texts (series INTEGER NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL,
        PRIMARY KEY (series, number)) WITHOUT ROWID""",
)
"""What came later."""

MAX_SERIES = 50_000
"""Numbers and texts of which roll-ups are made, unless it is said otherwise."""

MAX_REMEMBERED = 100_000
"""Series whose ids are remembered: about 20 MB. Others are looked up."""

MAX_TEXTS_IN_ALL = 100_000
"""Texts of all series: about 20 MB. More have no number of their own."""

BREATH = 64
"""Messages after which the thread lets others go on: half a millisecond."""


class Series(NamedTuple):
    """A number or a text in the payloads of a topic."""

    id: int
    topic: str
    field: str
    is_text: bool


class _Names:
    """The ids of series and the numbers of texts: those of the file, and those that it will have.

    Attributes:
        connection: to the file.
        newest_id: as many series as there are.
        new: ids of series that the file has not yet.
        texts_by_series: the numbers of texts, of the series that are remembered.
        remembered: how many series and texts were looked up.
        max_series: as many series as there may be.
    """

    def __init__(self, connection: sqlite3.Connection, max_series: int) -> None:
        self.connection = connection
        self.newest_id = int(connection.execute("SELECT ifnull(max(id), 0) FROM series").fetchone()[0])
        self.new: dict[tuple[str, str, bool], int] = {}
        self.texts_by_series: dict[int, dict[str, int]] = {}
        self.remembered = 0
        self.max_series = max_series
        self._new_texts: list[tuple[int, int, str]] = []
        self._texts = int(connection.execute("SELECT count(*) FROM texts").fetchone()[0])
        self._is_warned = False

    def series(self, topic: str, path: Path, is_text: bool) -> int | None:
        """See `Names.series`."""
        key = topic, path_text(path), is_text
        found = self.new.get(key)
        if found is not None:
            return found
        query = "SELECT id FROM series WHERE topic = ? AND field = ? AND is_text = ?"
        row = self.connection.execute(query, key).fetchone()
        self.remembered += 1
        if row is not None:
            return int(row[0])
        if self.newest_id >= self.max_series:
            if not self._is_warned:
                text = (
                    "the archive makes roll-ups of %d numbers and texts and no more (GATEWAY_ARCHIVE_SERIES): "
                    "the first that is left out is %r of %s"
                )
                logger.warning(text, self.max_series, key[1], topic)
                self._is_warned = True
            return None
        self.newest_id += 1
        self.new[key] = self.newest_id
        return self.newest_id

    def texts(self, series: int) -> dict[str, int]:
        """See `Names.texts`."""
        found = self.texts_by_series.get(series)
        if found is None:
            found = self.texts_by_series[series] = _texts(self.connection, series)
            self.remembered += len(found)
        return found

    def text(self, series: int, text: str) -> int:
        """See `Names.text`."""
        numbers = self.texts_by_series[series]
        is_new = text not in numbers
        if is_new and self._texts >= MAX_TEXTS_IN_ALL:
            return 0
        number = number_in(numbers, text)
        if is_new and number:
            self._texts += 1
            self._new_texts.append((series, number, text))
        return number

    def write(self) -> None:
        """Puts what is new into the file, within a transaction; `written` comes after its end."""
        rows = ((number, *key) for key, number in self.new.items())
        self.connection.executemany("INSERT INTO series VALUES (?, ?, ?, ?)", rows)
        self.connection.executemany("INSERT INTO texts VALUES (?, ?, ?)", self._new_texts)

    def written(self) -> None:
        """What is new is on the disk."""
        self.new.clear()
        self._new_texts.clear()

    def forget(self) -> None:
        """Forgets what the file has."""
        new = {series for series, _, _ in self._new_texts} | set(self.new.values())
        self.texts_by_series = {series: texts for series, texts in self.texts_by_series.items() if series in new}
        self.remembered = 0


class RollupWriter:
    """Makes roll-ups of what is written, in the thread that writes.

    Attributes:
        next_seq: the number of the message that is to come next.
        rolled: the number up to which slabs and chunks have everything.
        lock: held while what belongs together changes.
    """

    def __init__(self, connection: sqlite3.Connection, rolled: int, max_series: int = MAX_SERIES) -> None:
        """Goes on where another run ended.

        Args:
            connection: to the file; only the thread that writes uses this.
            rolled: the number up to which slabs and chunks have everything.
            max_series: the most series that there may be.
        """
        self.lock = threading.Lock()
        self.next_seq = rolled + 1
        self.rolled = rolled
        self._rolling: int | None = None  # the same when what is written now is on the disk
        self._connection = connection
        self._names = _Names(connection, max_series)
        self._open = OpenMinutes(self._names)
        self._ended: list[tuple[int, Slab]] = []

    @property
    def left_out(self) -> int:
        """How often a number was left out, since there are as many series as there may be."""
        return self._open.left_out

    @property
    def series_count(self) -> int:
        """Series that there are."""
        return self._names.newest_id

    @property
    def max_series(self) -> int:
        """As many series as there may be."""
        return self._names.max_series

    def left_out_of(self, topic: str) -> list[str]:
        """The numbers of a topic that are left out, by path, as far as that is remembered; from any thread."""
        return [path_text(path) for path in self._open.left_out_of(topic)]

    def reconnect(self, connection: sqlite3.Connection) -> None:
        """Goes on with another connection to the same file."""
        self._connection = self._names.connection = connection

    def take(self, first_seq: int, topics: Sequence[str], payloads: Sequence[bytes], times: Sequence[int]) -> None:
        """Takes messages with numbers in a row; those that it has already are passed over."""
        with self.lock:
            add = self._open.add
            skipped = max(self.next_seq - first_seq, 0)
            for place in range(skipped, len(topics)):
                ended = add(first_seq + place, topics[place], payloads[place], times[place])
                if ended is not None:
                    self._ended.append(ended)
                if place % BREATH == 0:
                    time.sleep(0)  # the loop's thread waits for this one's lock on the interpreter
            self.next_seq = max(self.next_seq, first_seq + len(topics))
            if self._names.remembered > MAX_REMEMBERED:
                self._names.forget()
                self._open.forget_ids()

    def skip(self, last_seq: int) -> None:
        """There are no messages up to this number."""
        with self.lock:
            self.next_seq = max(self.next_seq, last_seq + 1)

    def fall_back(self, last_seq: int) -> None:
        """What had a higher number is gone, and the next message has the one behind this; what was made of it stays."""
        with self.lock:
            self.next_seq = min(self.next_seq, last_seq + 1)
            self.rolled = min(self.rolled, last_seq)

    def end(self) -> None:
        """The minute that is under way is over: nothing more comes, or something else than what came so far."""
        with self.lock:
            ended = self._open.end()
            if ended is not None:
                self._ended.append(ended)

    @property
    def has_more(self) -> bool:
        """Whether there is something to `write`."""
        return bool(self._ended)

    def write(self) -> int:
        """Puts the minutes that are over into the file, within a transaction; `written` comes after its end.

        Returns:
            The number for `rolled`.
        """
        self._names.write()
        for start, slab in self._ended:
            self._insert(0, start, slab)
        self._rolling = self.next_seq - 1 if self._open.start is None else self._open.first_seq - 1
        return self._rolling

    def _insert(self, level: int, start: int, slab: Slab) -> None:
        query = """INSERT INTO slabs SELECT ?1, ?2, ifnull(max(part), 0) + 1, ?3 FROM slabs
            WHERE level = ?1 AND start = ?2"""
        self._connection.execute(query, (level, start, slab.encode()))

    def written(self) -> None:
        """What was written, if anything was, is on the disk."""
        if self._rolling is not None:
            self.rolled, self._rolling = self._rolling, None
            with self.lock:
                self._ended.clear()
                self._names.written()

    def pack(self) -> bool:
        """Turns the slabs of one stretch that is over into chunks, within a transaction; whether there was one."""
        horizon = self._open.start
        for number, level in enumerate(LEVELS):
            oldest = self._connection.execute("SELECT min(start) FROM slabs WHERE level = ?", (number,)).fetchone()[0]
            if oldest is None:
                continue
            start = oldest - oldest % level.chunk
            if horizon is not None and start + level.chunk > horizon:
                continue
            self._pack(number, level, start)
            return True
        return False

    def _pack(self, number: int, level: Level, start: int) -> None:
        connection = self._connection
        found: dict[int, Points] = {}
        for so_far in chunks_of(_slabs(connection, number, start, start + level.chunk)):
            found = so_far
            time.sleep(0)
        rows = {}
        for place, (series, points) in enumerate(found.items()):
            query = "SELECT data FROM chunks WHERE level = ? AND series = ? AND start = ?"
            row = connection.execute(query, (number, series, start)).fetchone()
            before = [] if row is None else [decode_chunk(level, start, row[0])]
            whole = Points.merged([*before, points])
            connection.execute(
                "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)",
                (number, series, start, encode_chunk(level, start, whole)),
            )
            rows[series] = sum_of(points)  # what was there before is in the next level already
            if place % BREATH == 0:
                time.sleep(0)
        if rows and number + 1 < len(LEVELS):
            self._insert(number + 1, start, Slab.of(start, rows))
        query = "DELETE FROM slabs WHERE level = ? AND start >= ? AND start < ?"
        connection.execute(query, (number, start, start + level.chunk))

    def new_series(self) -> list[Series]:
        """Those that the file has no name of yet."""
        with self.lock:
            return [Series(number, *names) for names, number in self._names.new.items()]

    def texts_of(self, series: int) -> dict[str, int]:
        """The numbers of the texts of a series, as far as they are remembered; from any thread."""
        with self.lock:
            return self._names.texts_by_series.get(series, {}).copy()

    def open_rows(self, ids: Iterable[int], since: int, until: int) -> dict[int, Points]:
        """What is in memory of some series: minutes that are not written yet, and the one under way. Under `lock`."""
        found: dict[int, Points] = {}
        under_way = self._open.start
        for number in ids:
            points = Points()
            for start, slab in self._ended:
                if since <= start < until and (row := slab.row(number)) is not None:
                    points.add(start, *row)
            row = self._open.row(number)
            if row is not None and under_way is not None and since <= under_way < until:
                points.add(under_way, *row)
            if points:
                found[number] = points
        return found


def _slabs(connection: sqlite3.Connection, level: int, since: int, until: int) -> Iterator[Slab]:
    query = "SELECT start, data FROM slabs WHERE level = ? AND start >= ? AND start < ? ORDER BY start, part"
    for start, data in connection.execute(query, (level, since, until)):
        yield Slab.decode(start, data)


def _texts(connection: sqlite3.Connection, series: int) -> dict[str, int]:
    query = "SELECT text, number FROM texts WHERE series = ? ORDER BY number"
    return dict(connection.execute(query, (series,)))


def _as_they_are(points: Points) -> Points:
    return points


class RollupReader:
    """Reads roll-ups, in a thread and over a connection of its own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def series_of(self, topic: str) -> list[Series]:
        """The series of a topic, in the order in which they came up."""
        query = "SELECT id, topic, field, is_text FROM series WHERE topic = ? ORDER BY id"
        rows = self._connection.execute(query, (topic,))
        return [Series(number, name, field, bool(is_text)) for number, name, field, is_text in rows]

    def texts_of(self, series: int) -> dict[str, int]:
        """The numbers of the texts of a series."""
        return _texts(self._connection, series)

    def read(
        self,
        writer: RollupWriter,
        ids: Sequence[int],
        level: int,
        since: int,
        until: int,
        fold: Callable[[Points], Points] = _as_they_are,
    ) -> tuple[dict[int, Points], int]:
        """The points of some series, in a time.

        Args:
            writer: has what is not in the file yet.
            ids: of the series.
            level: the place in `LEVELS` of the width that is wanted. What has not been made so wide yet comes narrower.
            since: milliseconds since 1970; a point counts by where it begins.
            until: the end, not included.
            fold: makes fewer of the points of a series, before those of the next one are read.

        Returns:
            The points of each that has any, and the number of the message up to which they have everything.
        """
        connection = self._connection
        with writer.lock:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM meta LIMIT 1").fetchone()  # from here on the file stands still
            memory = writer.open_rows(ids, since, until)
            seq = writer.next_seq - 1
        try:
            found = {}
            for number, chunks, newest in self._parts(ids, level, since, until):
                if whole := _whole(chunks, newest, memory.get(number)):
                    found[number] = fold(whole)
        finally:
            connection.execute("COMMIT")
        return found, seq

    def read_file(self, ids: Sequence[int], level: int, since: int, until: int) -> dict[int, Points]:
        """The same without what is in memory, where no writer is at hand."""
        parts = self._parts(ids, level, since, until)
        return {number: whole for number, chunks, newest in parts if (whole := _whole(chunks, newest))}

    def _parts(self, ids: Sequence[int], level: int, since: int, until: int) -> Iterator[tuple[int, Points, Points]]:
        """What the chunks have of each series, and what the slabs have, one series after the other."""
        newest: dict[int, Points] = {number: Points() for number in ids}
        # a slab of this level is made when the chunks of the narrower one are
        for narrower in range(level, -1, -1):
            for slab in _slabs(self._connection, narrower, since, until):
                for number in ids:
                    if (row := slab.row(number)) is not None:
                        newest[number].add(slab.points.times[0], *row)
        for number in ids:
            yield number, self._of(number, level, since, until), newest[number]

    def _of(self, series: int, level: int, since: int, until: int) -> Points:
        width = LEVELS[level]
        query = """SELECT start, data FROM chunks WHERE level = ? AND series = ? AND start > ? AND start < ?
            ORDER BY start"""
        found = Points.of_numbers(array("q"), array("d"))  # until there is more than one in a minute
        for start, data in self._connection.execute(query, (level, series, since - width.chunk, until)):
            decode_chunk(width, start, data, found)
        return found


def _whole(chunks: Points, *others: Points | None) -> Points:
    """All points of a series. Those of chunks alone are in order: chunks don't overlap, and are merged when written."""
    parts = [part for part in others if part]
    return Points.merged([chunks, *parts]) if parts else chunks

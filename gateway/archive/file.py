"""The file: opened by one gateway at a time, written in whole transactions, brought up to the form of now.

Invariant: what `append` wrote is there after the process or the power is cut, whole blocks only; no number up to
`reserved` is ever given to other contents; a damaged file is set aside under a name that is told, never emptied. Who
calls from which thread is for `writer` and `reader`.

It is long because opening, writing and going on under another epoch keep one account of what the file has.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gateway.archive.blocks import Batch, BlockError, encode_batch
from gateway.archive.cutting import cut
from gateway.archive.failures import ArchiveError, Trouble, trouble_of
from gateway.archive.keeping import Extent, Rules, rules_text
from gateway.archive.rollup_rows import MAX_SERIES, RollupWriter
from gateway.archive.rollups import LEVELS
from gateway.archive.rows import Rows
from gateway.archive.schema import APPLICATION_ID, UPGRADES
from gateway.archive.thinning import Thinner
from gateway.archive.trimming import Trimmer
from gateway.core.history import EPOCH_LETTERS

__all__ = ["RESERVED", "ArchiveFile", "Hole", "SnapshotParts", "connect", "new_epoch", "wall_clock_ms"]

logger = logging.getLogger(__name__)

RESERVED = 1 << 24
"""Numbers reserved ahead: two hours at 2,000 messages a second. A crash makes a hole of as many at most."""

MAX_IDS = 200_000
"""Names of topics whose id is remembered: about 40 MB. Others are looked up."""

BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Hole:
    """Numbers of which the file has no message.

    Attributes:
        first: the first of them.
        last: the last one.
        reason: `crash`: nobody knows which were given; `overload`: the disk was too slow; `lost`: a file was damaged;
            `away`: this node of a cluster was away for longer than the shared log reaches back.
    """

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotParts:
    """What memory knows of each topic, as bytes that `blocks` makes.

    Attributes:
        seq: the number that it is as of.
        parts: the bytes, some hundred topics to a part, not yet compressed.
    """

    seq: int
    parts: list[bytes]


def new_epoch() -> str:
    """A name for the life of a log."""
    return "".join(secrets.choice(EPOCH_LETTERS) for _ in range(6))


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def connect(path: Path) -> sqlite3.Connection:
    """A connection that a thread may take over; transactions are begun and ended by hand."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


class ArchiveFile:
    """An archive that is open for writing.

    Attributes:
        path: where it is.
        epoch: the name of the log's life, as long as the file's.
        seq: the number after which this run goes on.
        first_seq: number of the oldest message in it; 0 while there is none.
        last_seq: number of the newest message in it; 0 while there is none.
        last_time: the latest time of any block; 0 while there is none.
        reserved: no number beyond it may be given before `reserve` or `append` has raised it.
        holes: the numbers between that it has not.
        set_aside: where the file went that was damaged; None if it was sound.
        snapshot_seq: the number that the snapshot is as of; 0 where there is none.
        is_shared: whether numbers and epoch are those of a log that others write, too.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 0,
        rules: Rules | None = None,
        max_series: int = MAX_SERIES,
        wall_clock_ms: Callable[[], int] = wall_clock_ms,
        is_synced: bool = True,
        is_shared: bool | None = False,
    ) -> None:
        """Opens or makes it.

        Args:
            path: where it is.
            max_bytes: beyond it the oldest goes; 0 is without a bound.
            rules: what is kept how long; None: those that the file was opened with before are told as if in force.
            max_series: numbers and texts of which roll-ups are made.
            wall_clock_ms: milliseconds since 1970.
            is_synced: whether each commit waits for the disk; without it a cut of power may take the last ones.
            is_shared: numbers and epoch are those of a log that others write, too; nothing is reserved. If not, a file
                of such a log goes on with an epoch of its own. None: whatever it was before.

        Raises:
            ArchiveError: it can't be used. A damaged file is no reason: it is set aside, and a new one is made.
        """
        self.path = path
        self.trimmer = Trimmer(max_bytes)
        self._rules = rules
        self._thinner = Thinner(rules or Rules())
        self._max_series = max_series
        self._synchronous = "FULL" if is_synced else "NORMAL"
        self._wall_clock_ms = wall_clock_ms
        self.set_aside: Path | None = None
        self._is_shared = is_shared
        self._ids: dict[str, int] = {}
        self._lock = _lock(path)
        try:
            try:
                self._open(None, 0)
            except (sqlite3.Error, OSError) as error:
                found = trouble_of(error)
                if found.trouble is not Trouble.CORRUPT:
                    raise found from error
                self._close_connection()
                self._set_aside()
                try:
                    self._open(None, 0)
                except (sqlite3.Error, OSError) as again:
                    raise trouble_of(again) from again
        except BaseException:
            self._close_connection()
            self._lock.close()
            raise

    def _open(self, epoch: str | None, seq: int) -> None:
        """Opens what is there or makes a new file; a new one takes over `epoch` and `seq`, if it is given these."""
        is_new = not self.path.exists() or self.path.stat().st_size == 0
        self._connection = connection = connect(self.path)
        if is_new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # so that retention can give pages back
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        elif connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise ArchiveError(Trouble.FOREIGN, f"{self.path} is a database, but no archive of the gateway")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(UPGRADES):
            text = f"{self.path} has the form {version}, made by a newer gateway; this one knows {len(UPGRADES)}"
            raise ArchiveError(Trouble.NEWER, text)
        connection.execute("PRAGMA journal_mode = WAL")
        # each commit, once a second, is synced: what is acknowledged to the broker survives a cut of power, too
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        with self._transaction():
            for upgrade in UPGRADES[version:]:
                upgrade(connection)
            if version < len(UPGRADES):
                connection.execute(f"PRAGMA user_version = {len(UPGRADES)}")
            if is_new and seq:
                self.trimmer.note(connection, dict.fromkeys((level.name for level in LEVELS), self._wall_clock_ms()))
            self._begin_run(epoch, seq)
        self._ids.clear()

    def _begin_run(self, epoch: str | None, seq: int) -> None:
        connection = self._connection
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        was_shared = bool(meta.get("shared"))
        self.is_shared = was_shared if self._is_shared is None else self._is_shared
        known = None if was_shared and not self.is_shared else meta.get("epoch")
        self.epoch: str = known or epoch or new_epoch()
        self._load()
        end = meta.get("end")
        if self.is_shared or was_shared:
            # what else was given is in the shared log, or was under another epoch
            query = "SELECT ifnull(max(last_seq), 0) FROM holes WHERE reason != 'crash'"
            (noted,) = connection.execute(query).fetchone()
            self.seq: int = max(self.last_seq, noted, seq)
            self._insert_hole(Hole(self.seq + 1, self.snapshot_seq, "overload"))
            self.seq = max(self.seq, self.snapshot_seq)
            connection.execute("DELETE FROM holes WHERE first_seq > ?", (self.seq,))
        elif end is None and (reserved := meta.get("reserved")):
            # the last run did not end in order: any of these may have been given
            self._insert_hole(Hole(self.last_seq + 1, reserved, "crash"))
            self.seq = reserved
        else:
            self.seq = max(end or 0, self.last_seq, seq)
        self._load()  # with the holes of now
        self.rollups = RollupWriter(connection, meta.get("rolled", 0), self._max_series)
        self.trimmer.load(connection)
        self._thinner.load(connection)
        if self._rules is not None:
            self._set_meta("keep", rules_text(self._rules))
        self._set_meta("epoch", self.epoch)
        self._set_meta("shared", int(self.is_shared))
        connection.execute("DELETE FROM meta WHERE key = 'end'")
        self._reserve(self.seq)

    def _set_aside(self, why: str = "damaged") -> Path:
        """Renames the file, with what belongs to it."""
        name = f"{self.path.name}.{why}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        target = self.path.with_name(name)
        number = 1
        while target.exists():
            number += 1
            target = self.path.with_name(f"{name}-{number}")
        self.path.rename(target)
        for ending in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + ending).rename(target.with_name(target.name + ending))
        if why == "damaged":
            self.set_aside = target
            logger.error("the archive %s is damaged: it was set aside as %s, and a new one is begun", self.path, target)
        return target

    def replace_damaged(self, seq: int) -> None:
        """Sets the file aside while the gateway runs, and begins a new one that goes on behind the number `seq`.

        Raises:
            ArchiveError: that can't be done.
        """
        self._close_connection()
        try:
            self._set_aside()
            self._open(self.epoch, seq)
        except (sqlite3.Error, OSError) as error:
            raise trouble_of(error) from error

    def go_on_under(self, epoch: str, until: int | None, seq: int, time_ms: int) -> None:
        """Goes on with a log of another epoch, or one that ends before this one did.

        Args:
            epoch: the name of the log's life from now on.
            until: the number up to which the file has what that log has; what is behind it goes. None: nothing is the
                same: the file is set aside, and a new one begun.
            seq: where the log of a new file begins, or of one that is empty so far: the number before its first.
            time_ms: up to when that came, milliseconds since 1970.

        Raises:
            ArchiveError: that can't be done, and nothing was.
        """
        try:
            if until is None:
                self._close_connection()
                if self.path.exists():  # else it was set aside by an attempt that failed later
                    target = self._set_aside("other-epoch")
                    logger.warning("the archive %s is of another log: it was set aside as %s", self.path, target)
                self._let_go_of_old()
                self._open(epoch, seq)
                return
            with self._transaction():
                if until < max(self.last_seq, self.snapshot_seq, self.holes[-1].last if self.holes else 0):
                    self.rollups.end()
                    self._write_rollups()
                    cut(self._connection, until)
                if not self.last_seq and seq:
                    self.trimmer.note(self._connection, dict.fromkeys((level.name for level in LEVELS), time_ms))
                self._set_meta("epoch", epoch)
            self.rollups.written()
            self.rollups.fall_back(until)
            self.epoch = epoch
            self._load()
        except (sqlite3.Error, OSError) as error:
            raise trouble_of(error) from error

    def _load(self) -> None:
        """Reads what the tables have."""
        connection = self._connection
        oldest = connection.execute("SELECT first_seq FROM blocks ORDER BY first_seq LIMIT 1").fetchone()
        newest = connection.execute("SELECT last_seq, max_time FROM blocks ORDER BY first_seq DESC LIMIT 1").fetchone()
        self.first_seq: int = oldest[0] if oldest else 0
        self.last_seq: int = newest[0] if newest else 0
        self.last_time: int = newest[1] if newest else 0
        meta = dict(connection.execute("SELECT key, value FROM meta WHERE key = 'snapshot'"))
        self.snapshot_seq: int = meta.get("snapshot", 0)
        self.holes = [Hole(*row) for row in connection.execute("SELECT * FROM holes ORDER BY first_seq")]
        self.steps = [row[0] for row in connection.execute("SELECT first_seq FROM steps ORDER BY first_seq")]

    def _let_go_of_old(self) -> None:
        """Files of other epochs together keep to the bound of one: beyond it the oldest goes."""
        most = self.trimmer.max_bytes
        if not most:
            return
        old = sorted(self.path.parent.glob(f"{self.path.name}.other-epoch-*"), key=lambda each: each.stat().st_mtime)
        sizes = [each.stat().st_size for each in old]
        while len(old) > 1 and sum(sizes) > most:
            logger.warning("files of other epochs take more than archive_bytes: %s is removed", old[0])
            old.pop(0).unlink()
            sizes.pop(0)

    def reopen(self) -> None:
        """Makes the connection anew: after an error of the system the old one may be of no more use.

        Raises:
            ArchiveError: that can't be done.
        """
        self._close_connection()
        try:
            self._connection = connect(self.path)
            self._connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._connection.execute("PRAGMA journal_size_limit = 16777216")
            self.rollups.reconnect(self._connection)
        except sqlite3.Error as error:
            raise trouble_of(error) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # what could not be written may have ended it already
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _set_meta(self, key: str, value: object) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _reserve(self, seq: int) -> None:
        self.reserved = seq + RESERVED
        self._set_meta("reserved", self.reserved)

    def _insert_hole(self, hole: Hole) -> None:
        if hole.first <= hole.last:
            self._connection.execute(
                "INSERT OR REPLACE INTO holes VALUES (?, ?, ?)", (hole.first, hole.last, hole.reason)
            )

    def append(
        self,
        batches: Sequence[Batch],
        holes: Sequence[Hole] = (),
        snapshot: SnapshotParts | None = None,
        end: int | None = None,
        *,
        is_hurried: bool = False,
    ) -> int:
        """Writes in one transaction, and returns when it is on the disk.

        Args:
            batches: in the order of their numbers; within each the times rise.
            holes: what is missing between.
            snapshot: takes the place of the one before.
            end: the last number that was given, where this is the last of an orderly end.
            is_hurried: more waits: roll-ups are made later, as a chore.

        Returns:
            The bytes of the blocks that were written.

        Raises:
            ArchiveError: nothing was written.
        """
        connection = self._connection
        size = 0
        reserved, last_time, steps = self.reserved, self.last_time, list(self.steps)
        new: dict[str, int] = {}
        is_behind = self.has_behind
        try:
            with self._transaction():
                for batch in batches:
                    low, high = batch.times[0], batch.times[-1]
                    if low < last_time:
                        connection.execute("INSERT OR REPLACE INTO steps VALUES (?)", (batch.first_seq,))
                        steps.append(batch.first_seq)
                    last_time = high
                    topics, data = encode_batch(batch, lambda name: self._id_of(name, new))
                    row = (batch.first_seq, batch.last_seq, low, high, topics, data)
                    connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
                    size += len(topics) + len(data)
                    if not is_hurried and not is_behind:
                        self.rollups.take(batch.first_seq, batch.topics, batch.shown, batch.times)
                    is_behind = self.rollups.next_seq <= batch.last_seq
                for hole in holes:
                    self._insert_hole(hole)
                if snapshot is not None:
                    connection.execute("DELETE FROM snapshot")
                    parts = ((number, zlib.compress(part)) for number, part in enumerate(snapshot.parts))
                    connection.executemany("INSERT INTO snapshot VALUES (?, ?)", parts)
                    self._set_meta("snapshot", snapshot.seq)
                last = max((batches[-1].last_seq if batches else 0), (holes[-1].last if holes else 0))
                if last > reserved - RESERVED // 2:
                    reserved = last + RESERVED
                    self._set_meta("reserved", reserved)
                if end is not None:
                    self._set_meta("end", end)
                    if not is_behind:
                        self.rollups.end()
                self._write_rollups()
        except (sqlite3.Error, OSError) as error:
            raise trouble_of(error) from error
        self.rollups.written()
        self._remember(new)
        self.reserved, self.last_time, self.steps = reserved, last_time, steps
        self.holes += holes
        if batches:
            self.first_seq = self.first_seq or batches[0].first_seq
            self.last_seq = batches[-1].last_seq
        if snapshot is not None:
            self.snapshot_seq = snapshot.seq
        return size

    def _write_rollups(self) -> None:
        if self.rollups.has_more:
            self._set_meta("rolled", self.rollups.write())

    @property
    def has_behind(self) -> bool:
        """Whether there are messages of which no roll-ups have been made."""
        return self.rollups.next_seq <= self.last_seq

    @property
    def extent(self) -> Extent:
        """What it has, and what it has no longer."""
        return Extent(self.first_seq, self._thinner.thinned, self.trimmer.since)

    def do_chore(self) -> bool:
        """Does a part of what has time: makes roll-ups, packs them, lets go of what is old; whether there was anything.

        Raises:
            ArchiveError: it can't be done now.
        """
        try:
            if self.has_behind:
                self._catch_up()
                return True
            with self._transaction():
                did = self.rollups.pack() or self.trimmer.step(self._connection)
                if not did:
                    safe = min(self.snapshot_seq, self.rollups.rolled)
                    did = self._thinner.step(self._connection, self._wall_clock_ms(), safe)
                (oldest,) = self._connection.execute("SELECT min(first_seq) FROM blocks").fetchone()
            self.first_seq = oldest or 0
            return did or self.trimmer.give_back(self._connection)
        except (sqlite3.Error, OSError) as error:
            self._thinner.forget()  # what it did is undone
            raise trouble_of(error) from error
        except BlockError as error:
            raise ArchiveError(Trouble.CORRUPT, f"{self.path}: {error}") from error

    def _catch_up(self) -> None:
        """Makes roll-ups of the next block that has none."""
        rows = self.rows()
        found = next(rows.blocks_from(self.rollups.next_seq, self.last_seq), None)
        if found is None:
            self.rollups.skip(self.last_seq)
            return
        block = rows.read(found.first_seq)
        names = rows.names_of(block.ids)
        arrived = list(block.arrivals(names, self.rollups.next_seq - 1, block.last_seq))
        if arrived:
            columns = zip(*((each.topic, each.shown, each.time) for each in arrived), strict=True)
            self.rollups.take(arrived[0].seq, *map(list, columns))
        with self._transaction():
            self._write_rollups()
        self.rollups.written()

    def _id_of(self, name: str, new: dict[str, int]) -> int:
        found = self._ids.get(name) or new.get(name)
        if found is not None:
            return found
        row = self._connection.execute("SELECT id FROM topics WHERE name = ?", (name,)).fetchone()
        if row is None:
            row = self._connection.execute("INSERT INTO topics (name) VALUES (?) RETURNING id", (name,)).fetchone()
        new[name] = number = int(row[0])
        return number

    def _remember(self, new: dict[str, int]) -> None:
        """Ids count from now on: before the commit they could still have been taken back."""
        if len(self._ids) + len(new) > MAX_IDS:
            self._ids.clear()
        self._ids.update(new)

    def rows(self) -> Rows:
        """Questions to the file, before somebody writes to it."""
        return Rows(self._connection)

    @property
    def size(self) -> int:
        """Bytes of the file and of what is written ahead of it."""
        total = 0
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """Closes it; another gateway may open it."""
        self._close_connection()
        self._lock.close()

    def _close_connection(self) -> None:
        with contextlib.suppress(sqlite3.Error, AttributeError):
            self._connection.close()


def _lock(path: Path) -> IO[bytes]:
    """Holds the file for this process: the system lets go of it when the process ends, however it ends.

    Raises:
        ArchiveError: another gateway has it, or there is no place for it.
    """
    if not path.parent.is_dir():
        raise ArchiveError(Trouble.IO, f"there is no folder {path.parent}")
    try:
        held = path.with_name(path.name + ".lock").open("ab")
    except OSError as error:
        raise trouble_of(error) from error
    try:
        _lock_whole(held)
    except OSError:
        held.close()
        raise ArchiveError(Trouble.IN_USE, f"another gateway has the archive {path} open") from None
    return held


def _lock_whole(file: IO[bytes]) -> None:
    if os.name == "nt":  # pragma: no cover
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

"""What is done with an archive apart from a running gateway: told, checked, copied, written out, filled.

Invariant: reading never changes a file, and does not hold up a gateway that has it open; only `Importer` writes, and
takes the file as a gateway does. What people see of it is for `cli/archive`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.archive.blocks import Batch, Block, BlockError, decode_ids, decode_states
from gateway.archive.failures import ArchiveError, Trouble, trouble_of
from gateway.archive.file import ArchiveFile, SnapshotParts, new_epoch
from gateway.archive.keeping import LEVEL_NAMES, RAW, Rules, rules_from
from gateway.archive.restoring import States, messages_of
from gateway.archive.rollup_rows import RollupReader, Series
from gateway.archive.rollups import LEVELS, Slab, decode_chunk
from gateway.archive.rows import Rows
from gateway.archive.schema import APPLICATION_ID, UPGRADES
from gateway.core.filters import FilterSet
from gateway.core.messages import Message, Properties
from gateway.core.points import Points
from gateway.core.snapshots import Arrived
from gateway.core.texts import TextPoints
from gateway.core.topic import seq_of

__all__ = ["Importer", "Info", "Offline"]

SAMPLED_SERIES = 40
"""Series of each rule that are looked at for the same."""

SAMPLED_BLOCKS = 400
"""Blocks that are looked into to estimate which topics take the room, spread evenly."""

IMPORT_BATCH = 5_000
"""Messages of an import in one block."""

BACKUP_PAGES = 2_000
"""Pages that a backup copies in one go, 8 MB."""


@dataclass
class Info:
    """What an archive has.

    Attributes:
        epoch: its name.
        first_seq, last_seq: numbers of its oldest and its newest message; 0 without any.
        first_time, last_time: when these arrived, milliseconds since 1970; 0 without any.
        blocks: of messages.
        messages: in these.
        topics: names that it knows.
        series: numbers of which there are roll-ups.
        bytes_by_kind: bytes of messages, of roll-ups by level, of what else there is.
        holes: missing numbers by reason.
        is_clean: whether the gateway that had it last ended in order.
    """

    epoch: str
    first_seq: int = 0
    last_seq: int = 0
    first_time: int = 0
    last_time: int = 0
    blocks: int = 0
    messages: int = 0
    topics: int = 0
    series: int = 0
    bytes_by_kind: dict[str, int] = field(default_factory=dict)
    holes: dict[str, int] = field(default_factory=dict)
    is_clean: bool = False


class Offline:
    """An archive that is open for reading; a gateway may go on writing to it."""

    def __init__(self, path: Path) -> None:
        """Opens it.

        Raises:
            ArchiveError: it can't be read, or is none.
        """
        self.path = path
        if not path.exists():
            raise ArchiveError(Trouble.IO, f"{path}: there is no such file")
        try:
            self.connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
            if self.connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise ArchiveError(Trouble.FOREIGN, f"{path} is a database, but no archive of the gateway")
            version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            found = trouble_of(error)
            raise ArchiveError(found.trouble, f"{path} can't be read as an archive: {found}") from error
        if version > len(UPGRADES):
            text = f"{path} has the form {version}, made by a newer gateway; this one knows {len(UPGRADES)}"
            raise ArchiveError(Trouble.NEWER, text)
        self.rows = Rows(self.connection)

    def close(self) -> None:
        """Closes it."""
        self.connection.close()

    def _one(self, query: str, *values: int) -> tuple[int, ...]:
        row: tuple[int, ...] = self.connection.execute(query, values).fetchone()
        return tuple(value or 0 for value in row)

    def info(self) -> Info:
        """What it has."""
        meta = dict(self.connection.execute("SELECT key, value FROM meta"))
        info = Info(meta.get("epoch", ""), is_clean="end" in meta)
        info.first_seq, info.last_seq, info.first_time, info.last_time, info.blocks, info.messages = self._one(
            """SELECT min(first_seq), max(last_seq), min(min_time), max(max_time), count(*),
                sum(ifnull(count, last_seq - first_seq + 1)) FROM blocks"""
        )
        info.topics, info.series = self._one("SELECT (SELECT count(*) FROM topics), (SELECT count(*) FROM series)")
        pages, size = self._one("PRAGMA page_count")[0], self._one("PRAGMA page_size")[0]
        kinds = {"messages": self._one("SELECT sum(length(data) + length(topics)) FROM blocks")[0]}
        for number, level in enumerate(LEVELS):
            query = """SELECT (SELECT ifnull(sum(length(data)), 0) FROM slabs WHERE level = ?1) +
                (SELECT ifnull(sum(length(data)), 0) FROM chunks WHERE level = ?1)"""
            kinds[f"{level.name}s"] = self._one(query, number)[0]
        free = self._one("PRAGMA freelist_count")[0] * size
        info.bytes_by_kind = {**kinds, "other": max(pages * size - free - sum(kinds.values()), 0), "free": free}
        for reason, count in self.connection.execute(
            "SELECT reason, sum(last_seq - first_seq + 1) FROM holes GROUP BY reason"
        ):
            info.holes[reason] = count
        return info

    def room(self) -> Counter[str]:
        """About which bytes of payload the topics take, by the first two levels of their names: of a sample, scaled."""
        firsts = [row[0] for row in self.connection.execute("SELECT first_seq FROM blocks ORDER BY first_seq")]
        step = max(len(firsts) / SAMPLED_BLOCKS, 1.0)
        found: Counter[str] = Counter()
        place = 0.0
        while int(place) < len(firsts):
            block = self.rows.read(firsts[int(place)])
            names = ["/".join(self.rows.name_of(number).split("/")[:2]) for number in block.ids]
            for arrived in block.arrivals(names, 0, block.last_seq):
                found[arrived.topic] += len(arrived.payload) + 20
            place += step
        return Counter({name: int(size * step) for name, size in found.items()})

    def rules(self) -> Rules:
        """The rules of retention with which a gateway had it open last."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = 'keep'").fetchone()
        return rules_from(row[0]) if row else Rules()

    def costs(self, rules: Rules) -> list[dict[str, int]]:
        """About which bytes what each rule counts for takes, by level; the last for topics without one. Of samples."""
        found = [dict.fromkeys(LEVEL_NAMES, 0) for _ in (*rules.keeps, None)]
        payloads: Counter[int] = Counter()
        places: dict[int, int] = {}
        for block in self._sampled():
            sizes = block.sizes_by_id()
            for number, size in sizes.items():
                if number not in places:
                    places[number] = _place(rules, self.rows.name_of(number))
                payloads[places[number]] += size
        (whole,) = self._one("SELECT sum(length(data) + length(topics)) FROM blocks")
        for place, size in payloads.items():
            found[place][RAW] = whole * size // payloads.total()
        series: dict[int, list[int]] = {}
        for number, topic in self.connection.execute("SELECT id, topic FROM series"):
            series.setdefault(_place(rules, topic), []).append(number)
        query = "SELECT ifnull(sum(length(data)), 0) FROM chunks WHERE level = ? AND series = ?"
        for place, numbers in series.items():
            some = numbers[:: -(-len(numbers) // SAMPLED_SERIES)]
            for number, level in enumerate(LEVELS):
                total = sum(self._one(query, number, one)[0] for one in some)
                found[place][level.name] = total * len(numbers) // len(some)
        return found

    def _sampled(self) -> Iterator[Block]:
        """Some blocks, spread evenly."""
        firsts = [row[0] for row in self.connection.execute("SELECT first_seq FROM blocks ORDER BY first_seq")]
        step = max(len(firsts) / SAMPLED_BLOCKS, 1.0)
        for number in range(min(len(firsts), SAMPLED_BLOCKS)):
            yield self.rows.read(firsts[int(number * step)])

    def messages(
        self, filters: FilterSet, since: int, until: int, step: Callable[[], None] = lambda: None
    ) -> Iterator[Message]:
        """The messages that filters match, with `since` <= time < `until`, milliseconds since 1970, by number.

        `step` is called for each block.

        Raises:
            BlockError: a block is damaged.
        """
        wanted: dict[int, bool] = {}
        query = "SELECT first_seq FROM blocks WHERE max_time >= ? AND min_time < ? ORDER BY first_seq"
        for first in [row[0] for row in self.connection.execute(query, (since, until))]:
            step()
            block = self.rows.read(first)
            for number in block.ids:
                if number not in wanted:
                    wanted[number] = filters.matches(self.rows.name_of(number))
            for place in block.select(wanted.__getitem__, 0, block.last_seq):
                if since <= block.times[place] < until:
                    yield block.message_at(place, self.rows.name_of(block.id_at(place)))

    def arrivals(self, since: int, until: int) -> Iterator[Arrived]:
        """All messages with `since` <= time < `until`, milliseconds since 1970, by number.

        Raises:
            BlockError: a block is damaged.
        """
        query = "SELECT first_seq FROM blocks WHERE max_time >= ? AND min_time < ? ORDER BY first_seq"
        for first in [row[0] for row in self.connection.execute(query, (since, until))]:
            block = self.rows.read(first)
            for message in block.arrivals(self.rows.names_of(block.ids), 0, block.last_seq):
                if since <= message.time < until:
                    yield message

    def last_values(self, time: int) -> list[Arrived]:
        """Of each topic that is known now the newest message that came before a time, as far as it is there, by number.

        Raises:
            BlockError: a block is damaged.
        """
        (snapshot,) = self._one("SELECT ifnull((SELECT value FROM meta WHERE key = 'snapshot'), 0)")
        (newest,) = self._one("SELECT ifnull(max(last_seq), 0) FROM blocks")
        states = States(self.rows)
        for message in messages_of(self.rows, snapshot, newest):
            states.note(message)
        found: list[Arrived] = []
        missing: set[str] = set()  # they have a newer one
        for name, state in states.by_topic.items():
            if state.last.time < time:
                found.append(state.last)
            elif state.first_time < time:
                missing.add(name)
        query = "SELECT first_seq, topics FROM blocks WHERE min_time < ? ORDER BY first_seq DESC"
        for first, topics in self.connection.execute(query, (time,)):
            if not missing:
                break
            names = self.rows.names_of(decode_ids(topics))
            if missing.isdisjoint(names):
                continue
            block = self.rows.read(first)
            newer = {
                message.topic: message
                for message in block.arrivals(names, 0, block.last_seq)
                if message.time < time and message.topic in missing
            }
            missing.difference_update(newer)
            found += newer.values()
        return sorted(found, key=seq_of)

    def points(
        self, filters: FilterSet, level: int, since: int, until: int
    ) -> Iterator[tuple[Series, Points | TextPoints]]:
        """The roll-ups of the numbers and texts of topics that filters match, of a level of `LEVELS`."""
        reader = RollupReader(self.connection)
        names = [row[0] for row in self.connection.execute("SELECT DISTINCT topic FROM series ORDER BY topic")]
        for name in names:
            if filters.matches(name):
                known = reader.series_of(name)
                found = reader.read_file([one.id for one in known], level, since, until)
                for one in known:
                    if one.id in found:
                        points = found[one.id]
                        yield one, TextPoints(points, reader.texts_of(one.id)) if one.is_text else points

    def blocks_between(self, since: int, until: int) -> int:
        """How many blocks have messages of a time."""
        query = "SELECT count(*) FROM blocks WHERE max_time >= ? AND min_time < ?"
        return int(self.connection.execute(query, (since, until)).fetchone()[0])

    def verify(self) -> Iterator[str | None]:
        """Checks everything; yields a text for each fault, and None now and then."""
        for (text,) in self.connection.execute("PRAGMA integrity_check(20)"):
            yield None if text == "ok" else f"the database: {text}"
        holes = list(self.connection.execute("SELECT first_seq, last_seq FROM holes ORDER BY first_seq"))
        due = 0
        query = "SELECT first_seq, last_seq, ifnull(count, last_seq - first_seq + 1) FROM blocks ORDER BY first_seq"
        for first, last, count in self.connection.execute(query):
            yield None
            if due and first < due:
                yield f"block {first}: its numbers are those of another block, up to {due - 1}"
            elif due and first > due and not _is_told(holes, due, first - 1):
                yield f"the messages {due} to {first - 1} are missing, and no hole says so"
            due = last + 1
            try:
                block = self.rows.read(first)
                if (len(block), block.last_seq) != (count, last):
                    yield f"block {first}: has {len(block)} messages in place of {count}"
                for number in block.ids:
                    self.rows.name_of(number)
            except (BlockError, sqlite3.DatabaseError) as error:
                yield f"block {first}: {error}"
        for part in self.rows.snapshot():
            try:
                decode_states(part)
            except BlockError as error:
                yield str(error)
        yield from self._verify_rollups()

    def _verify_rollups(self) -> Iterator[str | None]:
        for start, data in self.connection.execute("SELECT start, data FROM slabs"):
            yield None
            try:
                Slab.decode(start, data)
            except BlockError as error:
                yield f"the roll-ups of {start}: {error}"
        for number, series, start, data in self.connection.execute("SELECT level, series, start, data FROM chunks"):
            yield None
            try:
                decode_chunk(LEVELS[number], start, data)
            except BlockError as error:
                yield f"the roll-ups of series {series} at {start}: {error}"

    def backup(self, target: Path, progress: Callable[[int, int], None]) -> None:
        """Copies it, as of one moment, to a new file; a gateway may go on writing.

        The copy has an epoch of its own: of both files may come further messages with the same numbers.

        Args:
            target: where to.
            progress: hears how many pages are copied, and of how many.

        Raises:
            ArchiveError: there is such a file already, or it can't be written.
        """
        if target.exists():
            raise ArchiveError(Trouble.IO, f"{target}: is there already")
        try:
            with contextlib.closing(sqlite3.connect(target)) as copy:
                self.connection.execute("BEGIN")
                self.connection.execute("SELECT 1 FROM meta LIMIT 1").fetchone()  # what is written later is not in it
                self.connection.backup(
                    copy, pages=BACKUP_PAGES, progress=lambda _, left, whole: progress(whole - left, whole)
                )
                self.connection.execute("COMMIT")
                _end_in_order(copy)
        except sqlite3.Error as error:
            target.unlink(missing_ok=True)
            raise trouble_of(error) from error


def _end_in_order(connection: sqlite3.Connection) -> None:
    """Makes of a copy the end of a log, behind which another one may begin."""
    query = """SELECT max(ifnull((SELECT max(last_seq) FROM blocks), 0), ifnull((SELECT max(last_seq) FROM holes), 0),
        ifnull((SELECT value FROM meta WHERE key = 'snapshot'), 0))"""
    (end,) = connection.execute(query).fetchone()
    rows = (("epoch", new_epoch()), ("end", end))
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
    connection.commit()


def _is_told(holes: list[tuple[int, int]], first: int, last: int) -> bool:
    """Whether holes, in order, cover all these numbers."""
    for low, high in holes:
        if low <= first <= high:
            first = high + 1
    return first > last


def _place(rules: Rules, topic: str) -> int:
    """Which rule counts for a topic; the one behind the last for none."""
    found = rules.place_of(topic)
    return len(rules.keeps) if found is None else found


class Importer:
    """Adds messages to an archive that no gateway has open, behind those that it has."""

    def __init__(self, path: Path) -> None:
        """Opens or makes it.

        Raises:
            ArchiveError: it can't be used.
        """
        # what is cut off is imported again: nobody waits for the disk with each block
        self._file = ArchiveFile(path, is_synced=False, is_shared=None)
        if self._file.is_shared:
            self._file.close()
            text = f"{path} is the archive of a node: its numbers are those of the log that the cluster shares"
            raise ArchiveError(Trouble.FOREIGN, text)
        self._seq = self._file.seq
        self._batch: Batch | None = None
        self.count = 0
        try:
            rows = self._file.rows()
            self._states = States(rows)
            for message in messages_of(rows, self._file.snapshot_seq, self._file.last_seq):
                self._states.note(message)
        except (sqlite3.Error, BlockError) as error:
            self._file.close()
            raise trouble_of(error) from error

    def add(
        self, topic: str, payload: bytes, time: int, qos: int = 0, retained: bool = False,
        properties: Properties | None = None,
    ) -> None:  # fmt: skip
        """Adds a message that arrived at `time`, milliseconds since 1970.

        Raises:
            ArchiveError: it can't be written.
        """
        batch = self._batch
        if batch is not None and (len(batch) >= IMPORT_BATCH or time < batch.times[-1]):
            self._write()
            batch = None
        self._seq += 1
        if batch is None:
            batch = self._batch = Batch(self._seq)
        batch.add(Message.arrived(self._seq, topic, payload, time, qos, retained, properties), payload)
        self._states.note(Arrived(self._seq, topic, payload, time, qos, retained, properties))
        self.count += 1

    def _write(self) -> None:
        if self._batch is not None:
            self._file.append([self._batch])
            self._batch = None
        while self._file.do_chore():
            pass

    def close(self) -> None:
        """Writes what is left, and ends in order.

        Raises:
            ArchiveError: it can't be written.
        """
        try:
            self._write()
            # what memory is filled from at the next start: without it all that was imported would be read for that
            self._file.append([], snapshot=SnapshotParts(self._seq, self._states.parts()), end=self._seq)
            while self._file.do_chore():
                pass
        finally:
            self._file.close()

"""The archive of one gateway: the file, its threads, and the log that is kept in it.

Invariant: a message that got a number is handed to the writer in the same call, so that the file's numbers are the
log's. What the gateway does while the archive has trouble is told by `trouble`, and is for its owner.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.archive.blocks import BlockError, encode_states
from gateway.archive.failures import ArchiveError
from gateway.archive.file import ArchiveFile, SnapshotParts, wall_clock_ms
from gateway.archive.keeping import Extent, Rules
from gateway.archive.reader import Reader
from gateway.archive.restoring import forget_before, restore, take_back_last_values
from gateway.archive.rollup_rows import MAX_SERIES, RollupWriter
from gateway.archive.rollups import LEVELS, place_of, widest
from gateway.archive.writer import Turn, Writer, WriterCounters
from gateway.core.beyond import Asked, Drawn, Part, Width
from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.messages import Message, Properties
from gateway.core.points import Grid
from gateway.core.snapshots import topic_states

__all__ = ["Archive", "KeptHistory", "common_seq"]

logger = logging.getLogger(__name__)

SNAPSHOT_SECONDS = 30.0
"""The least time between two snapshots."""

SNAPSHOT_LATEST_SECONDS = 600.0
"""After so long there is another one if anything was written."""

SNAPSHOT_PART = 10
"""There is another one when ten times as much was written as the last one took: it adds a tenth to what is written."""

HURRY_SECONDS = 0.2
"""The least time between two writes for the sake of somebody who reads what is not on the disk yet."""

JOIN_SECONDS = 4.0
"""So long the writer may take for the last messages when the gateway stops."""


class KeptHistory(History):
    """A log whose messages are kept as they are appended.

    Attributes:
        keep: gets each message and its payload as it came; None while the log is only in memory.
        go_on: hears in the place of `begin_anew` that the log goes on elsewhere; None while it is only in memory.
    """

    keep: Callable[[Message, bytes], None] | None = None
    go_on: Callable[[str, int, int, Mapping[str, int]], None] | None = None

    def begin_anew(self, epoch: str, seq: int, time: int, before: Mapping[str, int] | None = None) -> None:
        """See `History.begin_anew`; what the file has of it stays, and memory with that where it is the same."""
        if self.go_on is not None:
            self.go_on(epoch, seq, time, before or {})
        else:
            super().begin_anew(epoch, seq, time, before)

    def append(
        self,
        topic: str,
        payload: bytes,
        time: int,
        qos: int = 0,
        retained: bool = False,
        properties: Properties | None = None,
        repeat: int = 0,
    ) -> Message | None:
        """See `History.append`."""
        message = super().append(topic, payload, time, qos, retained, properties, repeat)
        if message is not None and self.keep is not None:
            self.keep(message, payload)
        return message


def common_seq(epoch: str, seq: int, new: str, before: Mapping[str, int]) -> int | None:
    """The number up to which a log is the same as another one; None if nobody knows that of any.

    Args:
        epoch: of the one.
        seq: up to which it goes.
        new: the epoch of the other.
        before: epochs that the other goes on from, each with the number up to which.
    """
    if not seq or epoch == new:
        return seq
    return min(seq, before[epoch]) if epoch in before else None


class Archive:
    """The file of one gateway, open, and its log.

    Attributes:
        history: the log that is kept.
        path: where the file is.
        begins_after: the number before the oldest message of the file.
        extent: what the file has and has no longer.
        set_aside: where the last damaged file went; None if there was none.
    """

    def __init__(
        self,
        path: Path,
        history: KeptHistory,
        *,
        now_ms: int,
        max_bytes: int = 0,
        rules: Rules | None = None,
        max_series: int = MAX_SERIES,
        wall_clock_ms: Callable[[], int] = wall_clock_ms,
        is_shared: bool = False,
    ) -> None:
        """Opens the file and fills the log from it; `start` begins to keep what comes.

        Args:
            path: where the file is.
            history: the log that is kept.
            now_ms: milliseconds since 1970.
            max_bytes: beyond it the oldest in the file goes; 0 is without a bound.
            rules: what is kept how long.
            max_series: numbers and texts of which roll-ups are made.
            wall_clock_ms: milliseconds since 1970, for the thread that writes.
            is_shared: the log is one that others write, too (`ArchiveFile`).

        Raises:
            ArchiveError: it can't be used; the log is untouched.
        """
        self.path = path
        self.history = history
        self._file = ArchiveFile(
            path, max_bytes=max_bytes, rules=rules or Rules(), max_series=max_series, wall_clock_ms=wall_clock_ms,
            is_shared=is_shared,
        )  # fmt: skip
        try:
            self._restore(now_ms)
        except BaseException:
            self._file.close()
            raise
        self.begins_after = self._file.first_seq - 1 if self._file.first_seq else self._file.seq
        for hole in reversed(self._file.holes):
            if hole.reason == "crash" and hole.first <= self.begins_after <= hole.last:
                self.begins_after = hole.first - 1  # what a crash took is told by itself
        self.extent = self._file.extent
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._waiting: list[Callable[[], None]] = []  # for more to be on the disk
        self._hurried_at = float("-inf")
        self._is_hurrying = False
        self._snapshot_at = 0.0
        self._snapshot_size = 0
        self._written_bytes = 0
        self._epoch = self._file.epoch
        self._known_seq = 0  # what is appended up to it is in the file already

    def _restore(self, now_ms: int) -> None:
        file, history = self._file, self.history
        try:
            restore(history, file, now_ms)
        except (sqlite3.Error, BlockError) as error:
            logger.error("the archive %s can't be read: %s", self.path, error)
            seq = file.seq
            file.replace_damaged(seq)
            history.epoch, history.seq = file.epoch, seq
            forget_before(history, seq + 1, now_ms)

    @property
    def set_aside(self) -> Path | None:
        """Where a damaged file was put; None if none was."""
        return self._file.set_aside

    def start(
        self,
        *,
        flush_seconds: float,
        max_bytes: int,
        call_soon_threadsafe: Callable[..., Any],
        call_later: Callable[[float, Callable[[], None]], Any],
        clock: Callable[[], float],
        on_trouble: Callable[[ArchiveError | None], None],
    ) -> None:
        """Keeps what is appended from now on; the arguments are those of `Writer`."""
        self._clock = clock
        self._call_later = call_later
        self._snapshot_at = clock()
        self._writer = Writer(
            self._file,
            flush_seconds=flush_seconds,
            max_bytes=max_bytes,
            call_soon_threadsafe=call_soon_threadsafe,
            call_later=call_later,
            clock=clock,
            on_written=self._go_on,
            on_trouble=self._changed,
            on_replaced=self._replaced,
            on_trimmed=self._trimmed,
            on_turned=self._turned,
        )
        self._tell_trouble = on_trouble
        self._reader = Reader(self.path, call_soon_threadsafe=call_soon_threadsafe)
        self.history.keep = self._writer.append
        self.history.beyond = self
        if self._file.is_shared:
            self.history.go_on = self._log_goes_on

    def _changed(self, trouble: ArchiveError | None) -> None:
        self._go_on()
        self._tell_trouble(trouble)

    def _replaced(self, seq: int) -> None:
        """A damaged file was set aside, and a new one begun behind a number."""
        self.begins_after, self.extent = seq, self._file.extent
        self.reader.reopen()

    def _turned(self, begins_after: int, extent: Extent) -> None:
        """The file goes on under another epoch, perhaps without its newest messages, or is a new one."""
        self.begins_after, self.extent = begins_after, extent
        self.reader.reopen()

    # a log that others write, too

    def _log_goes_on(self, epoch: str, seq: int, time: int, before: Mapping[str, int]) -> None:
        """The log comes from behind the number `seq` on; see `KeptHistory.begin_anew`.

        The file keeps what it has of that log, and what is missing between is a hole; if it has nothing of it, it is
        set aside. Memory stays where nothing is missing, and else keeps last values.
        """
        history, writer = self.history, self.writer
        had = writer.seq
        until = common_seq(self._epoch, had, epoch, before)
        if epoch != self._epoch:
            writer.turn(Turn(epoch, until, seq, time))
            self._epoch = epoch
        if until is None:
            History.begin_anew(history, epoch, seq, time)
            self._known_seq, self.begins_after, history.keep = 0, seq, writer.append
            return
        if not until:
            writer.begin_at(seq)
            self.begins_after = seq
        elif seq > until:
            writer.pass_over(seq, "away")
            logger.warning("the archive %s lacks the messages %d to %d: this node was away", self.path, until + 1, seq)
        if until == had == history.seq and seq <= until:
            history.epoch = epoch
        else:
            states = [state for part in topic_states(history) for state in part]
            History.begin_anew(history, epoch, 0, 0)
            take_back_last_values(history, states, min(seq, until), seq, time)
        self._known_seq = until
        history.keep = writer.append if history.seq >= until else self._pass_over

    def _pass_over(self, message: Message, payload: bytes) -> None:
        """Memory is filled with what the file has already."""
        if message.seq > self._known_seq:
            self.history.keep = self.writer.append
            self.writer.append(message, payload)

    @property
    def lacking(self) -> int:
        """Numbers that passed while this node of a cluster was away, and that no file has here."""
        return sum(hole.last + 1 - hole.first for hole in self.writer.holes if hole.reason == "away")

    def _trimmed(self, extent: Extent) -> None:
        """Something went: by the bound of the file, or by rules."""
        self.begins_after = max(self.begins_after, extent.first_seq - 1)
        self.extent = extent

    # reading

    def read(
        self, filters: FilterSet, after: int, until: int, *, max_bytes: int, key: str | None, backwards: bool = False
    ) -> Asked[Part]:
        """See `Beyond.read`; what is not yet on the disk is waited for."""
        written = self.writer.settled_seq
        if (until if backwards else after + 1) <= written:
            return self.reader.read(filters, after, min(until, written), max_bytes, key, backwards)
        asked: Asked[Part] = Asked()

        def go_on() -> None:
            if self.trouble is not None and self.writer.settled_seq <= after:
                asked.set(Part([], after if backwards else until, is_whole=False))
                return
            found = self.read(filters, after, until, max_bytes=max_bytes, key=key, backwards=backwards)
            found.then(lambda: asked.set(found.answer, found.seconds))

        if self.trouble is not None:
            if backwards and written > after:
                # what is above may be in memory still, and if not it is lost
                asked.set(Part([], written, is_whole=False))
            else:
                go_on()
        else:
            self._waiting.append(go_on)
            self._hurry()
        return asked

    def _hurry(self) -> None:
        """Has what was appended written soon, but not too often for the disk."""
        if self._is_hurrying:
            return
        self._is_hurrying = True
        wait = self._hurried_at + HURRY_SECONDS - self._clock()
        if wait > 0:
            self._call_later(wait, self._hurry_now)
        else:
            self._hurry_now()

    def _hurry_now(self) -> None:
        self._is_hurrying = False
        self._hurried_at = self._clock()
        self.writer.hurry()

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def find(self, time: int, key: str | None) -> Asked[int]:
        """See `Beyond.find`; where the file has not come so far yet, that is waited for."""
        written = self.writer.settled_seq
        found = self.reader.find(time, key, written)
        if written >= self.history.seq or self.trouble is not None:
            return found
        asked: Asked[int] = Asked()

        def judge() -> None:
            if found.answer < written or self.trouble is not None:
                asked.set(found.answer, found.seconds)
                return
            self._waiting.append(again)
            self._hurry()

        def again() -> None:
            if self.writer.settled_seq == written and self.trouble is None and self.history.beyond is not None:
                judge()  # it was something else that was written
                return
            later = self.find(time, key) if self.writer.settled_seq > written else found
            later.then(lambda: asked.set(later.answer, later.seconds))

        found.then(judge)
        return asked

    def draw(
        self, topics: Sequence[str], fields: Sequence[str], grid: Grid, level: str, key: str | None
    ) -> Asked[Drawn | None]:
        """See `Beyond.draw`."""
        return self.reader.draw(self._file.rollups, topics, fields, place_of(level), grid, key)

    def width(self, filters: FilterSet, since: int, step: int) -> Width:
        """See `Beyond.width`."""
        begins = [self.extent.begins(level.name, filters) for level in LEVELS]
        place = widest(step)
        while begins[place] > since and place + 1 < len(LEVELS) and begins[place + 1] < begins[place]:
            place += 1
        return Width(LEVELS[place].name, LEVELS[place].unit, begins[place] <= since)

    def is_whole(self, filters: FilterSet, after: int, until: int) -> bool:
        """See `Beyond.is_whole`."""
        is_there = after >= self.begins_after and not self.extent.is_thinned(filters, after)
        return is_there and not self.has_holes(after, until)

    def has_holes(self, after: int, until: int) -> bool:
        """See `Beyond.has_holes`."""
        return any(hole.reason != "crash" and hole.first <= until and hole.last > after for hole in self.writer.holes)

    @property
    def reader(self) -> Reader:
        """The thread that reads; there once it has started."""
        assert self._reader is not None  # noqa: S101 - nobody asks before
        return self._reader

    @property
    def writer(self) -> Writer:
        """The thread that writes; there once it has started."""
        assert self._writer is not None  # noqa: S101 - nobody asks before
        return self._writer

    @property
    def trouble(self) -> ArchiveError | None:
        """Why nothing can be written now; None if all is well."""
        return None if self._writer is None else self._writer.trouble

    @property
    def counters(self) -> WriterCounters:
        """What the writer counts."""
        return self.writer.counters

    @property
    def rollups(self) -> RollupWriter:
        """Who makes roll-ups, for those who ask how many."""
        return self._file.rollups

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def maybe_snapshot(self) -> Iterator[None]:
        """Hands a snapshot over if one is due, some hundred topics at a step."""
        written = self.counters.bytes
        waited = self._clock() - self._snapshot_at
        is_worth_it = written - self._written_bytes >= SNAPSHOT_PART * self._snapshot_size
        is_due = waited >= SNAPSHOT_LATEST_SECONDS or (waited >= SNAPSHOT_SECONDS and is_worth_it)
        if not is_due or written == self._written_bytes or self.trouble is not None or not self._is_memory_whole:
            return
        self._snapshot_at, self._written_bytes = self._clock(), written
        seq = self.history.seq
        parts = []
        for part in self._parts():
            parts.append(part)
            yield
        self._snapshot_size = sum(map(len, parts)) // 4  # about what is left of it, compressed
        # it tells of messages up to now: it must not be there before them
        self.writer.hand_over()
        self.writer.save(SnapshotParts(seq, parts))

    @property
    def _is_memory_whole(self) -> bool:
        """Whether memory knows what the file has, and not a beginning of it."""
        return self.history.seq >= self._known_seq

    def _parts(self) -> Iterator[bytes]:
        history = self.history
        return (encode_states(history.retained_as_published, states) for states in topic_states(history))

    def close(self) -> None:
        """Hands over all that there is: nothing may be appended from now on. `wait_closed` waits."""
        self.history.keep = self.history.beyond = self.history.go_on = None
        if self._reader is not None:
            self._reader.close()
        self._go_on()
        if self._writer is not None:
            parts = SnapshotParts(self.history.seq, list(self._parts())) if self._is_memory_whole else None
            self._writer.close(parts)

    def wait_closed(self) -> None:
        """Waits for the disk, `JOIN_SECONDS` at most, and closes the file; not in the loop."""
        if self._writer is not None and not self._writer.join(JOIN_SECONDS):
            logger.error("the archive %s could not be ended in %g s: the disk is too slow", self.path, JOIN_SECONDS)
            return
        if self._reader is not None:
            self._reader.join(JOIN_SECONDS)
        self._file.close()

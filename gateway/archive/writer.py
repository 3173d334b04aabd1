"""The writer: a thread that writes what was appended, about once a second, and tells how far the disk is.

Invariant: the loop never waits for it, and what waits for it has a bound in bytes. Beyond that bound, or while nothing
can be written, messages are relayed all the same: what is not kept is counted, and noted in the file as a hole.

`append`, `when_settled` and whatever is called back belong to the loop; the file belongs to the thread. A number is
*settled* when its message is on the disk, or when nobody should wait for that any more: it was dropped, or the archive
has trouble. The file as of a moment after a crash is a beginning of what was appended, in whole batches.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.archive.blocks import Batch
from gateway.archive.failures import ArchiveError, Trouble
from gateway.archive.file import ArchiveFile, Hole, SnapshotParts
from gateway.archive.keeping import Extent
from gateway.core.messages import Message

__all__ = ["MAX_BATCH_BYTES", "MAX_LAG_SECONDS", "Turn", "Writer", "WriterCounters"]

logger = logging.getLogger(__name__)

MAX_BATCH_BYTES = 1 << 20
"""A batch is handed over when it takes so many bytes, however young it is."""

MAX_BATCH_SPAN = 60_000
"""Milliseconds of arrivals in one batch at most, however long the flush interval."""

RETRY_SECONDS = 2.0
"""Time after which it is tried again to write what could not be written."""

MAX_LAG_SECONDS = 10.0
"""So long messages may wait for the disk before nobody waits for it any more: it is said to be in trouble."""

HURRIED_BATCHES = 2
"""With more batches at once the disk is behind: roll-ups wait until it is not."""

CHORE_REST = 2.0
"""After a chore the thread rests, as a multiple of what it took: with the loop it shares the interpreter's lock."""

IDLE_SECONDS = 60.0
"""So long after the last chore it is looked again whether there is one, where nothing arrives."""


@dataclass(slots=True)
class WriterCounters:
    """Plain numbers that `metrics` reads; they only grow.

    Attributes:
        blocks: blocks written.
        bytes: bytes of these blocks, compressed.
        messages: messages in these blocks.
        commits: transactions.
        commit_seconds: time that these took.
        dropped: messages that were relayed and not kept.
        failures: attempts to write that failed, by trouble.
    """

    blocks: int = 0
    bytes: int = 0
    messages: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    dropped: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(map(str, Trouble), 0))


@dataclass(frozen=True, slots=True)
class Turn:
    """The log goes on under another epoch; see `ArchiveFile.go_on_under`."""

    epoch: str
    until: int | None
    seq: int
    time_ms: int

    @property
    def end(self) -> int:
        """The number behind which the file goes on; one that has nothing begins where the log does."""
        return self.until or self.seq


@dataclass(slots=True)
class _Work:
    """What is handed over at a time: a batch, a hole, a snapshot, a turn, or the end (the last number given)."""

    batch: Batch | None = None
    hole: Hole | None = None
    snapshot: SnapshotParts | None = None
    end: int | None = None
    turn: Turn | None = None


class Writer:
    """Writes the log to a file from a thread of its own.

    Attributes:
        written_seq: number up to which the file has what it will have, holes left out.
        max_bytes: what may wait for the disk, in memory.
        holes: numbers that the file has not, or will not have.
        trouble: why nothing can be written now; None if all is well.
        counters: what is counted.
    """

    def __init__(
        self,
        file: ArchiveFile,
        *,
        flush_seconds: float,
        max_bytes: int,
        call_soon_threadsafe: Callable[..., Any],
        call_later: Callable[[float, Callable[[], None]], Any],
        clock: Callable[[], float] = time.monotonic,
        on_written: Callable[[], None] = lambda: None,
        on_trouble: Callable[[ArchiveError | None], None] = lambda _: None,
        on_replaced: Callable[[int], None] = lambda _: None,
        on_trimmed: Callable[[Extent], None] = lambda _: None,
        on_turned: Callable[[int, Extent], None] = lambda *_: None,
    ) -> None:
        """Starts the thread.

        Args:
            file: where to; only the thread uses it from now on.
            flush_seconds: how long a message may wait before it is handed over.
            max_bytes: what may wait for the disk, in memory.
            call_soon_threadsafe: runs a function in the loop, with arguments.
            call_later: runs a function in the loop after a number of seconds.
            clock: monotonic seconds.
            on_written: hears that `written_seq` has risen.
            on_trouble: hears that the archive got into trouble, got into another one or is well again (None).
            on_replaced: hears that a damaged file was set aside, and behind which number a new one begins.
            on_trimmed: hears that something went, by the bound or by rules, and what the file has now.
            on_turned: hears that the file goes on under another epoch, the number before its oldest message, and what
                it has now.
        """
        self.written_seq = file.seq
        self.holes = list(file.holes)
        self.trouble: ArchiveError | None = None
        self.counters = WriterCounters()
        self._file = file
        self._flush_seconds = flush_seconds
        self.max_bytes = max_bytes
        self._call_soon_threadsafe = call_soon_threadsafe
        self._call_later = call_later
        self._clock = clock
        self._on_written = on_written
        self._on_trouble = on_trouble
        self._on_replaced = on_replaced
        self._on_trimmed = on_trimmed
        self._on_turned = on_turned
        # the loop's
        self._batch: Batch | None = None
        self._timer: Any = None
        self._waiting: deque[tuple[int, int, float]] = deque()  # first number, bytes, since when: handed over
        self._waiting_bytes = 0
        self._hole: Hole | None = None  # that goes with what is handed over next
        self._seq = file.seq
        self._unsettled: deque[tuple[int, Callable[[], None]]] = deque()
        self._is_closed = False
        self._turning: deque[int] = deque()  # of each turn that is to come, up to where all is as it was
        # between loop and thread
        self._queue: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._told_seq = file.seq  # the thread's
        self._thread = threading.Thread(target=self._run, name="archive writer", daemon=True)
        self._thread.start()

    # the loop's side

    def append(self, message: Message, payload: bytes) -> None:
        """Takes the message with the next number, which will be on the disk within about `flush_seconds`."""
        batch = self._batch
        if batch is None or message.time < batch.times[-1] or message.time - batch.times[0] > MAX_BATCH_SPAN:
            batch = self._begin_batch(message.seq)
        batch.add(message, payload)
        self._seq = message.seq
        if batch.size > MAX_BATCH_BYTES:
            self.hand_over()

    def _begin_batch(self, seq: int) -> Batch:
        if self._batch is not None:
            self.hand_over()
        if self._timer is None:
            self._timer = self._call_later(self._flush_seconds, self._flush)
        self._batch = batch = Batch(seq)
        return batch

    def _flush(self) -> None:
        self._timer = None
        self.hand_over()

    def hand_over(self) -> None:
        """Gives the thread what has been appended, now."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # one batch may always wait, however large: nothing is too large to be kept
        if self._is_closed or (self._waiting and self._waiting_bytes + batch.size > self.max_bytes):
            self._drop(batch)
            return
        if self._hole is not None:
            hole, self._hole = self._hole, None
            self._queue.put(_Work(hole=hole))
        self._waiting.append((batch.first_seq, batch.size, self._clock()))
        self._waiting_bytes += batch.size
        self._queue.put(_Work(batch=batch))
        self._watch_lag()

    def _drop(self, batch: Batch) -> None:
        first = batch.first_seq
        if self._hole is not None:
            first = self._hole.first
            self.holes.pop()
        self._hole = Hole(first, batch.last_seq, "overload")
        self.holes.append(self._hole)
        self.counters.dropped += len(batch)
        if self.trouble is None:
            text = f"more than {self.max_bytes} bytes wait for the disk: what comes now is not kept"
            self._set_trouble(ArchiveError(Trouble.SLOW, text))
        self._settle()

    def _watch_lag(self) -> None:
        if self.trouble is None and self.lag_seconds > MAX_LAG_SECONDS:
            text = f"messages have waited for the disk for more than {MAX_LAG_SECONDS:g} s"
            self._set_trouble(ArchiveError(Trouble.SLOW, text))

    @property
    def seq(self) -> int:
        """Number of the last message that was appended or passed over."""
        return self._seq

    def turn(self, turn: Turn) -> None:
        """The log goes on under another epoch, behind `turn.end`."""
        self._hand_over_all()
        until = turn.until or 0
        self.holes = [
            Hole(hole.first, min(hole.last, until), hole.reason) for hole in self.holes if hole.first <= until
        ]
        self._turning.append(until)
        self.written_seq = min(self.written_seq, until)
        self._seq = turn.end
        self._queue.put(_Work(turn=turn))

    def begin_at(self, seq: int) -> None:
        """The file is empty, and the first message that it gets has the number behind this one."""
        self._seq = seq

    def pass_over(self, seq: int, reason: str) -> None:
        """Notes that the file will not have what comes up to a number."""
        self._hand_over_all()
        hole = Hole(self._seq + 1, seq, reason)
        self.holes.append(hole)
        self._seq = seq
        self._queue.put(_Work(hole=hole))

    def _hand_over_all(self) -> None:
        self.hand_over()
        if self._hole is not None:
            hole, self._hole = self._hole, None
            self._queue.put(_Work(hole=hole))

    def save(self, snapshot: SnapshotParts) -> None:
        """Writes a snapshot with what is written next."""
        self._queue.put(_Work(snapshot=snapshot))

    def when_settled(self, call: Callable[[], None]) -> None:
        """Calls a function when all that was appended so far is settled: at once, if it is already."""
        if self.trouble is not None or self.written_seq >= self._seq:
            call()
        else:
            self._unsettled.append((self._seq, call))

    def rest_seconds(self, *, has_all: bool = False) -> float:  # noqa: ARG002 - for a log that is shared
        """See `Keeper.rest_seconds`: who subscribes gets messages before they are written."""
        return 0

    def hurry(self) -> None:
        """Somebody waits: what was appended is written as soon as may be."""
        self.hand_over()

    def identify(self, _packets: list[bytes]) -> None:
        """Nothing: packet identifiers are remembered by the process that got them."""

    def end_exchanges(self, _identifiers: list[bytes]) -> None:
        """Nothing, for the same reason."""

    def begin_session(self) -> None:
        """Nothing, for the same reason."""

    @property
    def settled_seq(self) -> int:
        """Number up to which everything is on the disk or was dropped."""
        if self._turning:
            return min(self._waiting[0][0] - 1, *self._turning) if self._waiting else min(self._turning)
        if self._waiting:
            return self._waiting[0][0] - 1
        return self._seq if self._batch is None else self._batch.first_seq - 1

    @property
    def lag_seconds(self) -> float:
        """How long what waits for the disk has been waiting; 0 when nothing waits."""
        return self._clock() - self._waiting[0][2] if self._waiting else 0.0

    @property
    def waiting_bytes(self) -> int:
        """Bytes of memory of what waits for the disk."""
        return self._waiting_bytes + (self._batch.size if self._batch is not None else 0)

    def _written(self, last_seq: int, count: int) -> None:
        """In the loop: the first `count` batches that waited are on the disk."""
        for _ in range(count):
            self._waiting_bytes -= self._waiting.popleft()[1]
        self.written_seq = min(last_seq, *self._turning) if self._turning else last_seq
        if self.trouble is not None and self.lag_seconds < MAX_LAG_SECONDS / 2:
            self._set_trouble(None)
        self._on_written()
        self._settle()

    def _turned(self, turn: Turn, begins_after: int, extent: Extent) -> None:
        """In the loop: the file goes on under another epoch."""
        self._turning.popleft()
        self.written_seq = min(turn.end, *self._turning) if self._turning else turn.end
        if self.trouble is not None and self.lag_seconds < MAX_LAG_SECONDS / 2:
            self._set_trouble(None)
        self._on_turned(begins_after, extent)
        self._on_written()

    def _failed(self, error: ArchiveError) -> None:
        """In the loop: an attempt to write has failed."""
        self.counters.failures[error.trouble] += 1
        self._set_trouble(error)

    def _set_trouble(self, trouble: ArchiveError | None) -> None:
        before, self.trouble = self.trouble, trouble
        if (before and (before.trouble, str(before))) != (trouble and (trouble.trouble, str(trouble))):
            self._on_trouble(trouble)
        self._settle()

    def _settle(self) -> None:
        """Calls those back who wait for what is settled."""
        while self._unsettled and (self.trouble is not None or self._unsettled[0][0] <= self.written_seq):
            call = self._unsettled.popleft()[1]
            try:
                call()
            except Exception:
                logger.exception("what waited for the archive failed")

    def close(self, snapshot: SnapshotParts | None = None) -> None:
        """Hands over everything, notes that the log ends here in order, and lets the thread end; `join` waits."""
        if self._is_closed:
            return
        self.hand_over()
        self._is_closed = True
        self._stopping.set()
        self._queue.put(_Work(snapshot=snapshot, hole=self._hole, end=self._seq))

    def join(self, timeout_seconds: float) -> bool:
        """Waits for the thread, not in the loop; whether it has ended."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    # the thread's side

    def _run(self) -> None:
        work: list[_Work] = []
        while True:
            if not work:
                work.append(self._next())
            while not self._queue.empty():
                work.append(self._queue.get())
            is_last = work[-1].end is not None
            count = next((at for at, each in enumerate(work) if each.turn is not None), len(work))
            if self._write(work[:count]) if count else self._turn(work[0].turn):
                del work[: count or 1]
                is_last = is_last and not work
            elif not is_last:
                # what comes meanwhile waits; when the gateway stops, it is tried once more and given up
                self._stopping.wait(RETRY_SECONDS)
            if is_last:
                return

    def _next(self) -> _Work:
        """What is to be written next. While nothing is, chores are done, with rests between."""
        rest = 0.0
        while True:
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=rest) if rest else self._queue.get_nowait()
            known = self._file.extent
            began = time.monotonic()
            try:
                if self._stopping.is_set():
                    return self._queue.get()
                # what comes to the age for a chore does so although nothing arrives
                rest = CHORE_REST * (time.monotonic() - began) if self._file.do_chore() else IDLE_SECONDS
                if (extent := self._file.extent) != known:
                    self._tell(self._on_trimmed, extent)
            except ArchiveError as error:
                # whether the archive works is found out by what has to be written; a chore has time until then
                logger.warning("the archive puts off a chore: %s", error)
                return self._queue.get()

    def _write(self, work: list[_Work]) -> bool:
        """Writes it in one transaction; whether that worked."""
        batches = [each.batch for each in work if each.batch is not None]
        holes = [each.hole for each in work if each.hole is not None]
        snapshots = [each.snapshot for each in work if each.snapshot is not None]
        began = time.monotonic()
        try:
            try:
                size = self._file.append(
                    batches,
                    holes,
                    snapshot=snapshots[-1] if snapshots else None,
                    end=work[-1].end,
                    is_hurried=len(batches) > HURRIED_BATCHES,
                )
            except ArchiveError as error:
                if error.trouble is Trouble.CORRUPT:
                    self._replace(batches)
                elif error.trouble is Trouble.IO:
                    self._file.reopen()
                raise
        except ArchiveError as error:
            self._tell(self._failed, error)
            return False
        except Exception as error:
            logger.exception("writing the archive failed in a way that was not foreseen")
            self._tell(self._failed, ArchiveError(Trouble.IO, repr(error)))
            return False
        counters = self.counters
        counters.commits += 1
        counters.commit_seconds += time.monotonic() - began
        counters.blocks += len(batches)
        counters.bytes += size
        counters.messages += sum(map(len, batches))
        if batches:
            self._told_seq = batches[-1].last_seq
        elif holes:
            self._told_seq = max(self._told_seq, holes[-1].last)
        if batches or holes or snapshots:
            self._tell(self._written, self._told_seq, len(batches))
        return True

    def _turn(self, turn: Turn | None) -> bool:
        """Goes on under another epoch; whether that worked."""
        assert turn is not None  # noqa: S101 - it is what comes next
        file = self._file
        try:
            file.go_on_under(turn.epoch, turn.until, turn.seq, turn.time_ms)
        except ArchiveError as error:
            self._tell(self._failed, error)
            return False
        except Exception as error:
            logger.exception("the archive could not go on under another epoch in a way that was not foreseen")
            self._tell(self._failed, ArchiveError(Trouble.IO, repr(error)))
            return False
        self._told_seq = turn.end
        begins_after = file.first_seq - 1 if file.first_seq else self._told_seq
        self._tell(self._turned, turn, begins_after, file.extent)
        return True

    def _replace(self, batches: list[Batch]) -> None:
        """The file is damaged: what waits goes into a new one, at the next attempt."""
        seq = batches[0].first_seq - 1 if batches else self._file.last_seq
        self._file.replace_damaged(seq)
        self._tell(self._on_replaced, seq)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            logger.debug("the loop has ended before the archive")

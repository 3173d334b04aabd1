"""Replays: each subscriber that is behind reads history from its own position, at the pace of its socket.

Invariant: a replay gives what its selection promises, once and in order, or tells how much of it is lost; replays take
turns of two milliseconds, between which the live path runs. Who is live, and what is flushed to them, is the hub's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.memory import MemoryBudget
from gateway.core.messages import Message
from gateway.core.rotation import Rotation
from gateway.core.selection import Promise, Selection
from gateway.core.shaper import Shaper
from gateway.core.shapes import Shape
from gateway.core.since import Since, SinceKind, Start
from gateway.core.subscribers import HubCounters, Job, Kind, State, Subscriber
from gateway.core.walks import reaches

__all__ = ["MAX_JOBS", "Replays"]

logger = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
"""Bytes that one step of a replay writes: about what a socket takes in one system call."""

CATCH_UP_SECONDS = 0.002
"""Time for replays in one turn of the loop; then the live path has its turn."""

WORK_SECONDS = 0.001
"""Time for finding out, in one turn, what one replay has to give; then others have theirs."""

MAX_CHUNKS_BYTES = 4 * 2**20
"""Bytes of chunks that are kept for those who come back together."""

MAX_JOBS = 64
"""Replays that one subscriber may have waiting, so that a loop of commands can't grow memory."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What one step of a replay reads.

    Attributes:
        cursor: number at which it ends.
        count: number of messages.
        messages: the messages, if they have yet to be shaped; else none.
        data: their frames, if they are shaped already.
        delivered: number of frames in `data`.
        skipped: messages that the shape left out.
    """

    cursor: int
    count: int
    messages: list[Message]
    data: bytes
    delivered: int
    skipped: int


class Replays:
    """Everyone who is behind, and what they have still to be given."""

    def __init__(
        self,
        history: History,
        counters: HubCounters,
        budget: MemoryBudget,
        *,
        call_soon: Callable[[Callable[[], None]], Any],
        clock: Callable[[], float],
        cost_clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        fail: Callable[[Subscriber], None],
        max_messages: int,
    ) -> None:
        """Nobody is behind.

        Args:
            history: the log that is read.
            counters: what is counted.
            budget: charged with what shapes hold.
            call_soon: runs a function in the loop's next turn.
            clock: monotonic seconds.
            cost_clock: processor seconds used by this thread.
            wall_clock_ms: milliseconds since 1970.
            fail: ends a subscriber whose replay failed: a fault of ours.
            max_messages: how far back a subscription may reach, in messages of the whole log.
        """
        self.history = history
        self.counters = counters
        self.max_messages = max_messages
        self._budget = budget
        self._call_soon = call_soon
        self._clock = clock
        self._cost_clock = cost_clock
        self._wall_clock_ms = wall_clock_ms
        self._fail = fail
        self._behind: Rotation[Subscriber] = Rotation()
        self._is_catch_up_due = False
        self._chunks: dict[Any, _Chunk] = {}
        self._chunks_bytes = 0
        self._chunks_evicted = 0  # how much history had evicted when they were read

    def first_job(
        self, added: FilterSet, before: tuple[Promise, ...], since: Since, start: Start, now: int, shape: Shape
    ) -> tuple[Job | None, Promise]:
        """The replay that a subscription starts with, None when there is none; and what it promises."""
        history = self.history
        if since.kind is SinceKind.NOW:
            return None, Promise(added, now)
        selection = Selection(added, before)
        if start.is_last:
            return Job(Kind.LAST, selection, shape, 0, now), Promise(added, now, now)
        first = max(history.newest(self.max_messages), start.after)
        job = Job(Kind.RESUME, selection, shape, first, now)
        job.work = self._account(job, since, start)
        return job, Promise(added, start.after)

    def _account(self, job: Job, since: Since, start: Start) -> Generator[None, None, None]:
        """Finds out what a replay has to give, and what is missing before it begins."""
        history, selection = self.history, job.selection
        first = job.cursor
        reason = "epoch" if start.is_other_epoch else "evicted"
        job.expected, lost = yield from selection.tally(history, first, job.until)
        if start.is_other_epoch:
            lost = None
        elif since.kind is SinceKind.TIME:
            # after they were counted: what went meanwhile is missing
            lost = 0 if (yield from reaches(history, selection.filters, since.time)) else None
        if first > start.after and not start.is_other_epoch:
            reason = "limit"
            kept, evicted = yield from selection.tally(history, start.after, first)
            if since.kind is SinceKind.TIME:
                evicted = 0
            lost = None if lost is None or evicted is None else lost + kept + evicted
        if not start.is_other_epoch and history.crashed_between(start.after, job.until):
            reason, lost = "crash", None
        if lost != 0:
            job.gap = {"reason": reason, "lost": lost, "from": since.seq, "to": job.until}
            if since.kind is SinceKind.TIME:
                del job.gap["from"]

    def work(self, job: Job) -> bool:
        """Goes on finding out what a replay must know, for `WORK_SECONDS`; whether that is done."""
        end = self._clock() + WORK_SECONDS
        while job.work is not None:
            try:
                next(job.work)
            except StopIteration:
                job.work = None
                answer, job.answer = job.answer, None
                if answer is not None:
                    answer.know(job.gap is None)
            else:
                if self._clock() > end:
                    return False
        return True

    def narrow(self, subscriber: Subscriber, job: Job, gone: list[str]) -> bool:
        """Takes out of a replay what only the filters `gone` want; False if nothing is left of it."""
        narrowed = job.selection.narrowed(gone, subscriber.promises, job.cursor, job.until)
        if narrowed == job.selection:
            return True
        if job.shaper is not None and (frames := self._take_counted(subscriber, job.shaper)):
            subscriber.sink.write(b"".join(frames))  # what waits for an interval's end would be too late
        if narrowed is None:
            if job.answer is not None:
                job.answer.know(True)
            return False
        job.selection = narrowed
        self.recount(job)
        return True

    def recount(self, job: Job) -> None:
        """Asks history again how much a replay has still to give, since its selection has changed."""
        if job.kind is not Kind.LAST:
            job.work = self._recount(job, job.work)
            self.work(job)

    def _recount(self, job: Job, before: Generator[None, None, None] | None) -> Generator[None, None, None]:
        if before is not None:
            yield from before  # it says what is missing of what was asked for first
        history, selection = self.history, job.selection
        kept, lost = yield from selection.tally(history, job.cursor, job.until, last_only=job.last_only)
        job.expected = job.seen + kept
        if job.last_only:
            return  # what is lost of this stretch has been told
        job.kind = Kind.RESUME
        if job.gap is None:
            if lost != 0:
                job.gap = {"reason": "slow", "lost": lost, "from": job.cursor, "to": job.until}
        elif job.gap["lost"] is not None and (start := job.gap.get("from")) is not None:
            kept, evicted = yield from selection.tally(history, start, job.cursor)
            job.gap["lost"] = None if lost is None or evicted is None else kept + evicted + lost

    def add_job(self, subscriber: Subscriber, job: Job) -> None:
        """Puts a stretch of history behind those that a subscriber has still to be given; `wake` starts it."""
        if subscriber.jobs is None:
            subscriber.jobs = deque()
        subscriber.jobs.append(job)

    def wake(self, subscriber: Subscriber) -> None:
        """Puts a subscriber into the next turn of replays, unless it is live, paused, or has nothing to read."""
        # a subscriber without filters may still be owed what it had before
        if subscriber.has_turn or subscriber.is_paused or subscriber.state not in (State.BEHIND, State.IDLE):
            return
        if subscriber.state is State.IDLE and not subscriber.jobs:
            return
        subscriber.has_turn = True
        self._behind.add(None if subscriber.payer is None else subscriber.payer.key, subscriber)
        if not self._is_catch_up_due:
            self._is_catch_up_due = True
            self._call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """One turn of replays: a chunk for each subscriber that waits, until `CATCH_UP_SECONDS` have passed.

        Addresses take turns, so that one with many replays holds up its own.
        """
        self._is_catch_up_due = False
        deadline = self._clock() + CATCH_UP_SECONDS
        if self._chunks_evicted != self.history.evicted:
            self._forget_chunks()
        again: list[Subscriber] = []
        while self._behind.size:
            subscriber = self._behind.next()
            subscriber.has_turn = False
            if not subscriber.is_paused and subscriber.state in (State.BEHIND, State.IDLE):
                try:
                    if self._advance(subscriber):
                        again.append(subscriber)
                except Exception:
                    logger.exception("%s: a replay failed", subscriber.label)
                    self._fail(subscriber)
            if self._clock() > deadline:
                break
        for subscriber in again:
            self.wake(subscriber)
        if not self._behind.size:
            self._forget_chunks()
        if self._behind.size and not self._is_catch_up_due:
            self._is_catch_up_due = True
            self._call_soon(self._catch_up)

    def _advance(self, subscriber: Subscriber) -> bool:
        """Writes the next chunk of a subscriber's replay, or makes it live; True if it wants another turn."""
        while not subscriber.jobs:
            group = subscriber.group
            if group is None:
                subscriber.jobs = None
                return False
            group.settle_if_quiet(self.history.seq, self.counters)
            if subscriber.position > group.flushed_seq:
                # what its group has pending it got in a replay
                group.waiting[subscriber] = None
                if subscriber.on_live is not None:
                    subscriber.on_live(subscriber.position)
                return False
            if subscriber.position == group.flushed_seq or group.settled_matched == subscriber.mark:
                subscriber.position = group.flushed_seq
                group.join(subscriber)
                return False
            job = Job(
                Kind.CATCH_UP, Selection(subscriber.filters), subscriber.shape, subscriber.position, group.flushed_seq,
                expected=group.settled_matched - subscriber.mark,
            )  # fmt: skip
            subscriber.position = group.flushed_seq
            subscriber.mark = group.settled_matched
            self.add_job(subscriber, job)
        job = subscriber.jobs[0]
        if job.work is None and self._may_miss(job):
            job.work = self._check_catch_up(subscriber, job)
        if job.work is not None:
            is_answered = job.answer is not None
            if not self.work(job) or is_answered:
                return True  # whoever was answered may have changed everything
        if job.gap is not None:
            gap, job.gap = job.gap, None
            subscriber.tell_gap(gap.pop("reason"), gap.pop("lost"), self.counters, **gap)
        chunk = self._read(job)
        job.cursor = chunk.cursor
        job.seen += chunk.count
        is_done = chunk.cursor >= job.until
        if job.shape.is_stateless:
            data = chunk.data
            self._count_replayed(subscriber, chunk.delivered, chunk.skipped)
        else:
            began = self._cost_clock()
            data = b"".join(self._shape_chunk(subscriber, job, chunk.messages, is_done))
            if subscriber.payer is not None:
                subscriber.payer.spend(self._cost_clock() - began)  # what nobody else gets
        if is_done:
            subscriber.jobs.popleft()
            group = subscriber.group
            if job.shaper is not None and group is not None and group.shaper is not None and group.shape == job.shape:
                group.shaper.welcome(job.shaper)
            if job.expected is not None and job.seen < job.expected:
                is_slow = job.kind is Kind.CATCH_UP and subscriber.was_paused
                subscriber.tell_gap(
                    "slow" if is_slow else "evicted", job.expected - job.seen, self.counters, to=job.until
                )
        if data:
            self.counters.bytes_written += len(data)
            subscriber.sink.write(data)
        if is_done:
            self.tell_replayed(subscriber, job)
        return subscriber.state is not State.CLOSED

    def _read(self, job: Job) -> _Chunk:
        """A job's next chunk.

        Those who come back together want the same of history: as long as it evicts nothing, each chunk is read, shaped
        and joined once for all of them (benchmarks S6).
        """
        shape = job.shape
        key = None
        if shape.is_stateless:
            key = (job.selection, shape, job.cursor, job.until if job.last_only else 0)
            if (found := self._chunks.get(key)) is not None and job.cursor < found.cursor <= job.until:
                return found
        # what other replays promised has to be looked up for each topic
        max_bytes = CHUNK_BYTES if job.selection.is_plain else CHUNK_BYTES // 4
        cursor, messages = job.selection.read(
            self.history, job.cursor, job.until, last_only=job.last_only, max_bytes=max_bytes
        )
        if key is None:
            return _Chunk(cursor, len(messages), messages, b"", 0, 0)
        if shape.is_plain:
            frames, skipped = [message.frame for message in messages], 0
        else:
            shaper = Shaper(shape, self.history.epoch, None, self.counters.count_too_large, self._wall_clock_ms)
            for message in messages:
                shaper.offer(message)
            frames, skipped = shaper.take(), shaper.skipped
        chunk = _Chunk(cursor, len(messages), [], b"".join(frames), len(frames), skipped)
        self._chunks_bytes += len(chunk.data)
        if self._chunks_bytes > MAX_CHUNKS_BYTES:
            self._forget_chunks()
        self._chunks_evicted = self.history.evicted
        self._chunks[key] = chunk
        return chunk

    def _forget_chunks(self) -> None:
        self._chunks.clear()
        self._chunks_bytes = 0

    def _shape_chunk(self, subscriber: Subscriber, job: Job, messages: list[Message], is_done: bool) -> list[bytes]:
        """The frames of a chunk for a shape that isn't plain, counted."""
        if job.shaper is None:
            job.shaper = Shaper(
                job.shape, self.history.epoch, self._budget, self.counters.count_too_large, self._wall_clock_ms
            )
        shaper = job.shaper
        frames: list[bytes] = []
        if job.shape.max_hz is None or job.last_only:
            for message in messages:
                shaper.offer(message)
            frames = self._take_counted(subscriber, shaper)
            self._keep_half(shaper)
            return frames
        interval_ms = max(int(1000 / job.shape.max_hz), 1)
        for message in messages:
            if message.time >= job.window_end or shaper.is_full:
                frames += self._take_counted(subscriber, shaper)
                job.window_end = message.time - message.time % interval_ms + interval_ms
            shaper.offer(message)
        if is_done or shaper.is_heavy() or self._budget.used * 2 > self._budget.limit:
            frames += self._take_counted(subscriber, shaper)
        self._keep_half(shaper)
        return frames

    def _keep_half(self, shaper: Shaper) -> None:
        """Starts the deadband of a replay anew once all shapers hold more than half of what they may.

        A replay of a slow socket can hold memory for long; the other half is for the groups.
        """
        if self._budget.used * 2 > self._budget.limit and shaper.cost:
            self.counters.shapes_shed += 1
            shaper.forget()

    def _take_counted(self, subscriber: Subscriber, shaper: Shaper) -> list[bytes]:
        frames = shaper.take()
        self._count_replayed(subscriber, *shaper.settle())
        return frames

    def _count_replayed(self, subscriber: Subscriber, delivered: int, skipped: int) -> None:
        subscriber.delivered += delivered
        subscriber.skipped += skipped
        self.counters.delivered += delivered
        self.counters.replayed += delivered
        self.counters.skipped += skipped

    def _may_miss(self, job: Job) -> bool:
        """Whether something of a catch-up may have been evicted before it was read."""
        if job.kind is not Kind.CATCH_UP or job.last_only or job.expected is None:
            return False
        return job.cursor < self.history.evicted_seq

    def _check_catch_up(self, subscriber: Subscriber, job: Job) -> Generator[None, None, None]:
        """Turns a catch-up of which something was evicted into a gap and the last values."""
        assert job.expected is not None  # noqa: S101 - `_may_miss` looked
        left = job.expected - job.seen
        kept, _ = yield from job.selection.tally(self.history, job.cursor, job.until)
        if kept >= left:
            return
        job.last_only = True
        lasts, _ = yield from job.selection.tally(self.history, job.cursor, job.until, last_only=True)
        lost = left - lasts
        job.expected -= lost
        if job.shaper is not None and (frames := self._take_counted(subscriber, job.shaper)):
            subscriber.sink.write(b"".join(frames))
        if lost > 0:
            reason = "slow" if subscriber.was_paused else "evicted"
            subscriber.tell_gap(reason, lost, self.counters, **{"from": job.cursor, "to": job.until})

    def tell_replayed(self, subscriber: Subscriber, job: Job) -> None:
        """Tells of the end of a replay, if somebody wants to hear of it."""
        if job.id is not None:
            subscriber.tell("replayed", id=job.id)

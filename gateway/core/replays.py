"""Replays: each subscriber that is behind reads the log from its own position, at the pace of its socket.

What memory has let go is read beyond it, where somebody has it: up to the job's floor, and from there on in memory.

Invariant: a replay gives what its selection promises, once and in order, or tells how much of it is lost; replays take
turns of two milliseconds, between which the live path runs. Who is live, and what is flushed to them, is the hub's.

It is long because what a replay has to give, where it is read and what of it is lost are one account.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.core.beyond import Asked, Beyond, Part, as_of_now
from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.jobs import Job, Kind, Work
from gateway.core.memory import MemoryBudget
from gateway.core.messages import Message
from gateway.core.rotation import Rotation
from gateway.core.selection import Promise, Selection
from gateway.core.shaper import Shaper
from gateway.core.shapes import Shape
from gateway.core.since import Since, SinceKind, Start
from gateway.core.subscribers import HubCounters, Payer, State, Subscriber
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

MAX_PARTS = 32
"""Parts read beyond memory, 64 KiB each, that are kept for the same."""

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
        self._parts: dict[Any, Asked[Part]] = {}  # of what is beyond memory
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
        if history.beyond is not None and since.kind is SinceKind.TIME:
            # what memory has let go between is older than that, or the replay begins beyond memory
            start = replace(start, after=history.past_evicted(start.after))
        first = start.after
        if history.beyond is None or start.is_other_epoch:
            first = max(history.newest(self.max_messages), first)
        job = Job(Kind.RESUME, selection, shape, first, now)
        job.work = self._account(job, since, start)
        promise = Promise(added, start.after)
        if history.beyond is not None and since.kind is SinceKind.TIME:
            job.promise = promise
        return job, promise

    def _account(self, job: Job, since: Since, start: Start) -> Work:
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
        if history.beyond is not None and lost != 0 and not start.is_other_epoch:
            lost = yield from self._begin_beyond(job, since, history.beyond, lost)
        elif first > start.after and not start.is_other_epoch:
            reason = "limit"
            kept, evicted = yield from selection.tally(history, start.after, first)
            if since.kind is SinceKind.TIME:
                evicted = 0
            lost = None if lost is None or evicted is None else lost + kept + evicted
        if not start.is_other_epoch and history.crashed_between(job.cursor, job.until):
            reason, lost = "crash", None
        if lost != 0:
            job.gap = {"reason": reason, "lost": lost, "from": since.seq, "to": job.until}
            if since.kind is SinceKind.TIME:
                del job.gap["from"]

    def _begin_beyond(
        self, job: Job, since: Since, beyond: Beyond, lost: int | None
    ) -> Generator[Asked[int] | None, None, int | None]:
        """A replay begins where memory has not all that it asks for.

        Args:
            job: the replay; `expected` is what memory has of it.
            since: where it starts.
            beyond: where the rest may be.
            lost: how many messages memory has not; None where nobody knows.

        Returns:
            How many messages are lost; None where nobody knows.
        """
        history = self.history
        is_known = True
        if since.kind is SinceKind.TIME:
            asked = beyond.find(since.time, None)
            yield asked
            job.cursor = asked.answer
            # what came before the oldest message there may have come later than that
            is_known = job.cursor > beyond.begins_after or beyond.begins_after == 0
            if job.answer is not None:
                job.answer.after = job.cursor
        job.floor = history.floor(job.selection.filters, job.cursor, job.until)
        is_whole = is_known and beyond.is_whole(job.selection.filters, job.cursor, job.floor)
        job.expected = None if job.expected is None or lost is None or not is_whole else job.expected + lost
        return 0 if is_whole else None

    def _go_on_beyond(self, job: Job) -> Work:
        """Memory may have let go of what a replay has still to give: then that is read beyond it."""
        history, selection = self.history, job.selection
        kept, lost = yield from selection.tally(history, job.cursor, job.until)
        if lost == 0:
            if job.expected is None:
                job.expected = job.seen + kept
            return
        if job.expected is not None and kept >= job.expected - job.seen:
            return
        job.floor = history.floor(selection.filters, job.cursor, job.until)
        beyond = history.beyond
        is_whole = beyond is not None and beyond.is_whole(selection.filters, job.cursor, job.floor)
        if job.expected is None and not is_whole:
            job.gap = {"reason": "evicted", "lost": None, "from": job.cursor, "to": job.until}

    def work(self, job: Job) -> bool:
        """Goes on finding out what a replay must know, for `WORK_SECONDS`; whether that is done."""
        if job.asked is not None:
            if not job.asked.is_answered:
                return False
            job.asked = None
        end = self._clock() + WORK_SECONDS
        while job.work is not None:
            try:
                asked = next(job.work)
                if asked is not None and not asked.is_answered:
                    job.asked = asked
                    return False
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
        job.floor = 0
        self.recount(job)
        return True

    def recount(self, job: Job) -> None:
        """Asks history again how much a replay has still to give, since its selection has changed."""
        if job.kind is not Kind.LAST:
            job.work = self._recount(job, job.work)
            self.work(job)

    def _recount(self, job: Job, before: Work | None) -> Work:
        if before is not None:
            yield from before  # it says what is missing of what was asked for first
        history, selection = self.history, job.selection
        kept, lost = yield from selection.tally(history, job.cursor, job.until, last_only=job.last_only)
        job.expected = job.seen + kept
        if job.last_only:
            return  # what is lost of this stretch has been told
        job.kind = Kind.RESUME
        if history.beyond is not None and lost != 0:
            job.floor = history.floor(selection.filters, job.cursor, job.until)
            job.expected = None
            if job.gap is None and not history.beyond.is_whole(selection.filters, job.cursor, job.floor):
                job.gap = {"reason": "slow", "lost": None, "from": job.cursor, "to": job.until}
            return
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
            self._parts = {key: asked for key, asked in self._parts.items() if not asked.is_answered}
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
                shown = subscriber.shown
                if shown is not None and group.shaper is not None and group.is_of_one and shown.shape == group.shape:
                    group.shaper.adopt(shown)
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
            job.work = self._check(subscriber, job)
        if job.work is not None:
            is_answered = job.answer is not None
            is_done = self.work(job)
            if job.asked is not None:
                job.asked.then(partial(self.wake, subscriber))
                return False
            if job.promise is not None and is_done:
                self._promise(subscriber, job.promise, job.cursor)
                job.promise = None
            if not is_done or is_answered:
                return True  # whoever was answered may have changed everything
        if job.gap is not None:
            gap, job.gap = job.gap, None
            job.is_torn |= gap["lost"] is None
            subscriber.tell_gap(gap.pop("reason"), gap.pop("lost"), self.counters, **gap)
        found = self._read_beyond(subscriber, job) if job.cursor < job.floor else self._read(job)
        if found is None:
            return False
        chunk = found
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
                subscriber.shown = job.shaper
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

    @staticmethod
    def _promise(subscriber: Subscriber, promise: Promise, after: int) -> None:
        """What was promised begins elsewhere than memory knew."""
        if after != promise.after:
            found = replace(promise, after=after)
            subscriber.promises = tuple(found if each is promise else each for each in subscriber.promises)

    def _read_beyond(self, subscriber: Subscriber, job: Job) -> _Chunk | None:
        """A job's next chunk from where memory has no longer all of it; None while that is being read.

        Those who come back together ask together: each part is read once for all of them.
        """
        history, selection = self.history, job.selection
        if history.beyond is None:  # it has just ended
            job.floor = 0
            return _Chunk(job.cursor, 0, [], b"", 0, 0)
        key = (selection.filters, job.cursor, job.floor)
        asked = self._parts.get(key)
        if asked is None:
            payer = None if subscriber.payer is None else subscriber.payer.key
            asked = history.beyond.read(selection.filters, job.cursor, job.floor, max_bytes=CHUNK_BYTES, key=payer)
            self._parts[key] = asked
            if subscriber.payer is not None:
                asked.then(partial(self._charge, subscriber.payer, asked))
            while len(self._parts) > MAX_PARTS:
                del self._parts[next(iter(self._parts))]
        if not asked.is_answered:
            asked.then(partial(self.wake, subscriber))
            return None
        part = history.patched(selection.filters, job.cursor, asked.answer.cursor, asked.answer)
        is_torn = part.is_thinned or not part.is_whole
        if is_torn and job.expected is None and not job.is_torn:
            job.is_torn = True
            subscriber.tell_gap("evicted", None, self.counters, **{"from": job.cursor, "to": job.floor})
        if part.cursor >= job.floor:
            job.work = self._go_on_beyond(job)
            job.floor = 0
        messages = as_of_now(part.messages, self._wall_clock_ms(), history.is_kept)
        return self._shaped(job.shape, part.cursor, selection.pick(history, messages, job.until))

    @staticmethod
    def _charge(payer: Payer, asked: Asked[Part]) -> None:
        payer.spend(asked.seconds)

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
        chunk = self._shaped(shape, cursor, messages)
        if key is None:
            return chunk
        self._chunks_bytes += len(chunk.data)
        if self._chunks_bytes > MAX_CHUNKS_BYTES:
            self._forget_chunks()
        self._chunks_evicted = self.history.evicted
        self._chunks[key] = chunk
        return chunk

    def _shaped(self, shape: Shape, cursor: int, messages: list[Message]) -> _Chunk:
        """A chunk of these messages: their frames where the shape needs no more than each of them, else themselves."""
        if not shape.is_stateless:
            return _Chunk(cursor, len(messages), messages, b"", 0, 0)
        if shape.is_plain:
            frames, skipped = [message.frame for message in messages], 0
        else:
            shaper = Shaper(shape, self.history.epoch, None, self.counters.count_too_large, self._wall_clock_ms)
            for message in messages:
                shaper.offer(message)
            frames, skipped = shaper.take(), shaper.skipped
        return _Chunk(cursor, len(messages), [], b"".join(frames), len(frames), skipped)

    def forget(self) -> None:
        """Forgets what was read: the log is another one."""
        self._forget_chunks()
        self._parts.clear()

    def _forget_chunks(self) -> None:
        self._chunks.clear()
        self._chunks_bytes = 0

    def _shape_chunk(self, subscriber: Subscriber, job: Job, messages: list[Message], is_done: bool) -> list[bytes]:
        """The frames of a chunk for a shape that isn't plain, counted."""
        if job.shaper is None and (shown := subscriber.shown) is not None and shown.shape == job.shape:
            job.shaper = shown
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
        """Whether something of what was promised may have been evicted before it was read."""
        if job.last_only or job.expected is None or job.cursor < job.floor:
            return False
        if job.kind is not Kind.CATCH_UP and self.history.beyond is None:
            return False
        return job.cursor < self.history.evicted_seq

    def _check(self, subscriber: Subscriber, job: Job) -> Work:
        """Sees to what was evicted before it was read: beyond memory it is there, else it is lost."""
        return self._check_catch_up(subscriber, job) if self.history.beyond is None else self._go_on_beyond(job)

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

"""Who gets a message, and when: groups, the flush that writes for all of them, slow sockets.

A subscriber has no queue. It is live, and gets the bytes that its whole group gets, or behind, and reads history at the
pace of its socket (`replays`).

Invariant: for every subscriber *received = delivered + skipped + lost*, and every lost message is told in a `gap`. The
loop's clock, `call_soon` and `call_later` are given; sockets are `Sink`s.

It is long because publishing, flushing and membership of groups share one state, and each call between them would be
made for every message.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import length_hint
from typing import Any

from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.jobs import Job, Kind, Subscription
from gateway.core.memory import MemoryBudget
from gateway.core.messages import Message, Properties
from gateway.core.onlookers import Onlooker
from gateway.core.protocol import CloseCode, ProtocolError
from gateway.core.readings import Readings
from gateway.core.replays import MAX_JOBS, Replays
from gateway.core.rotation import Rotation
from gateway.core.selection import Selection, overlapping, without
from gateway.core.shaper import Shaper
from gateway.core.shapes import Mode, Shape
from gateway.core.shaping import SHAPING_SECONDS, Shaping
from gateway.core.since import Since, start_of
from gateway.core.subscribers import Group, HubCounters, Payer, Sink, State, Subscriber, Timer
from gateway.core.tries import FilterTrie

__all__ = ["Hub"]

logger = logging.getLogger(__name__)


FLUSH_FACTOR = 1.0
"""The next flush waits as long as the last one took, so that flushing takes at most half of the processor. Under load
the wait grows until messages share writes."""

SHARING_FACTOR = 12.0
SHARING_SECONDS = 0.010
"""Where a wait lets messages share a write, it is 12 times as long as the last flush took, at most 10 ms: that saves
most of the processor's time (benchmarks S1, S2). Elsewhere it would only delay (S3, S4)."""

JOIN_PART = 0.45
FEW_FRAMES = 4
"""Where a wait brings fewer than 4 messages for each write, one that comes after 45 % of it goes at once, with those
before it: the rest of the wait would seldom bring another."""

PART_WRITES = 128
PART_BYTES = 16_384
"""How many writes one turn of the loop has room for, one to two milliseconds with what the system does for them (four
times that on a busy machine); larger ones count once more for each 16 KiB. What is left of a flush goes on in the next
turns (benchmarks.many)."""

PART_GROUPS = 1_000
"""How many groups one turn has room to look at, some 300 µs, whether something is to be written to them."""

PART_EVENTS = 64
"""How many are told of the broker in one turn: each event is made for its subscriber."""

MAX_BATCH_BYTES = 1 << 20
"""When more bytes than this wait for the next flush, it comes at once."""


def _cost_of(group: Group) -> int:
    return 0 if group.shaper is None else group.shaper.cost


class Hub:
    """Gives every message to the groups that want it; a subscriber whose socket is too slow reads history instead."""

    def __init__(
        self,
        history: History,
        *,
        call_soon: Callable[[Callable[[], None]], Any],
        call_later: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        cost_clock: Callable[[], float] | None = None,
        flush_interval_seconds: float | None = None,
        stall_seconds: float = 30.0,
        max_replay_messages: int = 100_000,
        max_shape_bytes: int = 64 * 2**20,
    ) -> None:
        """Creates a hub on a log.

        Args:
            history: the log.
            call_soon: runs a function in the loop's next turn.
            call_later: runs a function after a number of seconds, and returns what cancels it.
            clock: monotonic seconds.
            wall_clock_ms: milliseconds since 1970.
            cost_clock: processor seconds used by this thread, so that waiting for a busy machine does not count as the
                cost of a flush; None takes `clock`. It may leave out work that others pay for, and then stand still.
            flush_interval_seconds: a fixed time between flushes; None adapts it to what a flush costs.
            stall_seconds: time without progress after which a subscriber whose socket is full is closed.
            max_replay_messages: how far back a subscription may reach, in messages of the whole log.
            max_shape_bytes: memory for the intervals and deadbands of all shapes, about; above it the largest intervals
                end early and their deadbands start anew.
        """
        self.history = history
        self.counters = HubCounters()
        self.stall_seconds = stall_seconds
        self._call_soon = call_soon
        self._call_later = call_later
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._cost_clock = cost_clock or clock
        self._flush_interval_seconds = flush_interval_seconds
        self._trie: FilterTrie[Group] = FilterTrie()
        self._groups: dict[tuple[FilterSet, Shape], Group] = {}
        self._subscribers: dict[Subscriber, None] = {}
        self._dirty: list[Group] = []
        self._shaped: Rotation[Group] = Rotation()  # those of a flush that have a shape
        self._is_flush_due = False
        self._flush_started = 0.0
        self._cost_before = 0.0
        self._writes = 0  # of the last flush
        self._sharing_writes = 0  # those whose group gets several messages within SHARING_SECONDS
        self._sharing_frames = 0
        self._is_joinable = False  # the next message is worth a flush
        self._joining: Timer | None = None
        self._flushing: Timer | None = None
        self._waiting_since = 0.0
        self._next_flush = 0.0
        self._room = 0  # for writes, in this part of a flush
        self._leaving: deque[Group] = deque()  # groups of a flush that had no room yet
        self._unwritten: deque[Group] = deque()  # those of which only some members were written to
        self._is_part_due = False
        self._telling: deque[tuple[str, dict[str, Any], Iterator[Subscriber]]] = deque()  # to whom
        self._unflushed_bytes = 0
        self._window_bytes = 0  # published since the intervals were last looked at
        self._budget = MemoryBudget(max_shape_bytes)
        self._shaping = Shaping(
            history,
            self._budget,
            call_soon=call_soon,
            call_later=call_later,
            clock=self._cost_clock,
            has_more=self._queue_once,
            give_up=self._give_up,
            fail=self._fail,
            make_room=self._make_room,
        )
        self._replays = Replays(
            history,
            self.counters,
            self._budget,
            call_soon=call_soon,
            clock=clock,
            cost_clock=self._cost_clock,
            wall_clock_ms=wall_clock_ms,
            fail=self._fail_subscriber,
            max_messages=max_replay_messages,
        )
        self._paused: dict[Subscriber, None] = {}
        self._sweeping: Timer | None = None

    # the way of a message

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retained: bool = False,
        properties: Properties | None = None,
        repeat: int = 0,
        time: int | None = None,
    ) -> Message | None:
        """Takes one arrival: numbered, kept, and on its way to everyone who wants it.

        The arguments are those of `History.append`; without a time it has arrived now.

        Returns:
            The message, or None if it is a retained message that the broker only repeated.
        """
        if time is None:
            time = self._wall_clock_ms()
        message = self.history.append(topic, payload, time, qos, retained, properties, repeat)
        if message is None:
            return None
        self.counters.received += 1
        groups = self._trie.match(topic)
        if groups:
            frame = message.frame
            for group in groups:
                try:
                    if group.shaper is None:
                        group.note(frame)
                    else:
                        self._shaping.offer(group, message)
                except Exception as error:  # noqa: BLE001 - logged there
                    self._fail(group, error)
                    continue
                if not group.is_queued:
                    self._queue(group)
            if self._budget.is_crowded and not self._shaping.is_full:
                self._make_room()
            self._unflushed_bytes += len(frame)
            if self._is_joinable:
                self._join()
            if self._unflushed_bytes > MAX_BATCH_BYTES:
                self._flush_now()
        return message

    def _queue_once(self, group: Group) -> None:
        if not group.is_queued:
            self._queue(group)

    def _queue(self, group: Group) -> None:
        group.is_queued = True
        if group.shaper is not None and group.shape.is_windowed:
            wait = group.next_tick - self._clock()
            if wait > 0:

                def tick() -> None:
                    group.ticking = None
                    self._dirty.append(group)
                    self._schedule_flush()

                group.ticking = self._call_later(wait, tick)
                return
        self._dirty.append(group)
        if not self._is_flush_due:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._is_flush_due:
            return
        self._is_flush_due = True
        self._waiting_since = self._clock()
        wait = self._next_flush - self._waiting_since
        if wait <= 0 or self._is_joinable:
            self._call_soon(self._flush)  # at the end of this turn, with whatever else it brings
        else:
            self._flushing = self._call_later(wait, self._flush)

    def _join(self) -> None:
        """Flushes what waits, since a message has come with which it may go."""
        self._is_joinable = False
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
            self._call_soon(self._flush)

    def _become_joinable(self) -> None:
        self._joining = None
        self._is_joinable = True

    def _flush(self) -> None:
        self._flushing = None
        self._is_joinable = False
        if self._joining is not None:
            self._joining.cancel()
            self._joining = None
        self._flush_started = self._clock()
        self._cost_before = self._own_cost()
        self._writes = self._sharing_writes = self._sharing_frames = 0
        self._flush_now()
        # the loop hands the bytes to the system at the end of this turn, so the cost is known in the next one
        self._call_soon(self._after_flush)

    def _own_cost(self) -> float:
        """Processor time so far less that of shapes, which their owners pay for."""
        return self._cost_clock() - self._shaping.unpaid

    def _after_flush(self) -> None:
        if self._leaving or self._unwritten:
            self._call_soon(self._after_flush)
            return
        now = self._clock()
        took = max(0.0, self._own_cost() - self._cost_before)
        self.counters.flushes += 1
        self.counters.flush_seconds += took
        self.counters.delays.add(now - self._waiting_since)
        if self._flush_interval_seconds is not None:
            self._next_flush = self._flush_started + self._flush_interval_seconds
        else:
            wait = took * FLUSH_FACTOR
            if self._sharing_writes * 2 > self._writes:
                wait = max(wait, min(took * SHARING_FACTOR, SHARING_SECONDS))
                if self._sharing_frames < FEW_FRAMES * self._sharing_writes:
                    self._joining = self._call_later(wait * JOIN_PART, self._become_joinable)
            self._next_flush = now + wait
        self._is_flush_due = False
        if self._dirty or self._shaped.size:
            self._schedule_flush()
            self._waiting_since = self._flush_started  # they came during this flush

    def _flush_now(self) -> None:
        dirty, self._dirty = self._dirty, []
        self._window_bytes += self._unflushed_bytes
        self._unflushed_bytes = 0
        if self._window_bytes > MAX_BATCH_BYTES:
            self._window_bytes = 0
            dirty += self._end_heavy_intervals()
        self._room = PART_WRITES
        if self._leaving or self._unwritten:
            self._leaving.extend(dirty)  # behind those of the flush before
        else:
            for number, group in enumerate(dirty):
                if group.shaper is not None:
                    self._shaped.add(group.payer_key, group)
                elif self._room > 0:
                    self._try_to_flush(group)
                else:
                    self._leaving.extend(dirty[number:])
                    break
        self._flush_shaped()
        self._see_to_the_rest()

    def _flush_shaped(self) -> None:
        if self._shaped.size:
            until = self._shaping.spent + SHAPING_SECONDS
            while self._shaped.size and self._room > 0 and self._shaping.spent < until:
                self._try_to_flush(self._shaped.next())
            if self._shaped.size:
                self._schedule_flush()

    def _see_to_the_rest(self) -> None:
        if (self._leaving or self._unwritten) and not self._is_part_due:
            self._is_part_due = True
            self._call_soon(self._flush_part)

    def _flush_part(self) -> None:
        """Goes on with a flush that one turn had no room for."""
        self._is_part_due = False
        self._room = PART_WRITES
        while self._unwritten and self._room > 0:
            self._write_on(self._unwritten[0])
        while self._leaving and self._room > 0:
            group = self._leaving.popleft()
            if group.shaper is not None:
                self._shaped.add(group.payer_key, group)
            else:
                self._try_to_flush(group)
        self._flush_shaped()
        self._see_to_the_rest()

    def _write_on(self, group: Group) -> None:
        """Writes to members of a group who have yet to get what the others got, as many as there is room for."""
        unwritten, data = group.unwritten, group.unwritten_data
        cost = 1 + len(data) // PART_BYTES
        room = self._room
        while unwritten and room > 0:
            subscriber, write = unwritten.popitem()
            room -= cost
            try:
                write(data)
            except Exception as error:  # noqa: BLE001 - logged there
                self._socket_failed(subscriber, error)
        self._room = room
        if not unwritten:
            group.unwritten_data = b""
            self._unwritten.remove(group)

    def _socket_failed(self, subscriber: Subscriber, error: Exception) -> None:
        logger.error("%s: its socket failed", subscriber.label, exc_info=error)
        self._fail_subscriber(subscriber)

    def _write_rest(self, subscriber: Subscriber) -> None:
        """Writes to a member at once what its group's flush has yet to write to it."""
        group = subscriber.group
        if group is not None and group.unwritten and (write := group.unwritten.pop(subscriber, None)) is not None:
            try:
                write(group.unwritten_data)
            except Exception as error:  # noqa: BLE001 - logged there
                self._socket_failed(subscriber, error)

    def _write_all_rest(self, group: Group) -> None:
        while group.unwritten:
            self._room = PART_WRITES
            self._write_on(group)

    def _try_to_flush(self, group: Group) -> bool:
        try:
            self._flush_group(group)
        except Exception as error:  # noqa: BLE001 - logged there
            self._fail(group, error)
            return False
        return True

    def _end_heavy_intervals(self) -> list[Group]:
        """The groups whose interval holds more than one may, and has to end now."""
        heavy: list[Group] = []
        for group in self._groups.values():
            if group.ticking is not None and group.shaper is not None and group.shaper.is_heavy():
                group.ticking.cancel()
                group.ticking = None
                heavy.append(group)
        return heavy

    def _make_room(self) -> None:
        """Ends intervals and starts deadbands anew, those that hold most first, until half the room is free.

        When this turn of the loop has no more room for it, the budget stays crowded, and nothing is added meanwhile.
        """
        groups = [group for group in self._groups.values() if group.shaper is not None and group.shaper.cost]
        for group in sorted(groups, key=_cost_of, reverse=True):
            if self._budget.used * 2 <= self._budget.limit:
                break
            if self._shaping.is_full:
                return
            assert group.shaper is not None  # noqa: S101 - chosen so
            self._write_all_rest(group)
            self.counters.shapes_shed += 1
            if group.ticking is not None:
                group.ticking.cancel()
                group.ticking = None
            if self._try_to_flush(group):
                group.shaper.forget()
        self._budget.is_crowded = False

    def _give_up(self, group: Group) -> None:
        """History has evicted what a group was put off for: its members read what is left, and are told of the rest."""
        waiting, group.waiting = group.waiting, {}
        members = [*group.writers, *waiting]
        for subscriber in list(group.writers):
            self._go_behind(subscriber)
        group.settle_if_quiet(self.history.seq, self.counters)
        for subscriber in members:
            self._replays.wake(subscriber)

    def _fail(self, group: Group, error: Exception) -> None:
        """Closes the members of a group whose shape failed: a fault of ours, which must not reach other groups."""
        logger.error(
            "%d subscribers are closed, since their shape failed: %s", len(group.members), group.shape, exc_info=error
        )
        for subscriber in list(group.members):
            self._fail_subscriber(subscriber)

    def _fail_subscriber(self, subscriber: Subscriber) -> None:
        self.remove(subscriber)
        subscriber.sink.close(CloseCode.INTERNAL, "a fault of the gateway")

    def _flush_group(self, group: Group) -> None:
        if group.unwritten:
            self._dirty.append(group)  # what it has now goes behind what is under way
            return
        group.is_queued = False
        if group.shape.max_hz is not None:
            group.next_tick = self._clock() + 1 / group.shape.max_hz
        skipped = group.settled_skipped
        frames = group.take() if group.shaper is None else self._shaping.take(group)
        group.settle(self.history.seq)
        if group.writers:
            counters = self.counters
            counters.skipped += (group.settled_skipped - skipped) * len(group.writers)
            if frames:
                data = frames[0] if len(frames) == 1 else b"".join(frames)
                count = len(group.writers)
                counters.delivered += len(frames) * count
                counters.batches += count
                counters.bytes_written += len(data) * count
                self._writes += count
                if self._flush_started - group.flushed_at < SHARING_SECONDS * len(frames):
                    self._sharing_writes += count
                    self._sharing_frames += count * len(frames)
                group.flushed_at = self._flush_started
                cost = count * (1 + len(data) // PART_BYTES)
                if cost > PART_WRITES:
                    group.unwritten, group.unwritten_data = group.writers.copy(), data
                    self._unwritten.append(group)
                    self._write_on(group)
                    self._see_to_the_rest()
                else:
                    self._room -= cost
                    for write in tuple(group.writers.values()):  # a write may pause its own subscriber
                        try:
                            write(data)
                        except Exception as error:  # noqa: BLE001 - logged there
                            self._fail_writer(group, write, error)
        if group.waiting:
            waiting, group.waiting = group.waiting, {}
            for subscriber in waiting:
                if subscriber.position > group.flushed_seq:
                    group.waiting[subscriber] = None  # what it has yet to be given was put off
                elif group.shaper is None or not self._join_interval(subscriber, group, group.shaper, frames):
                    self._replays.wake(subscriber)

    def _join_interval(self, subscriber: Subscriber, group: Group, shaper: Shaper, frames: list[bytes]) -> bool:
        """Gives a joiner the part of the interval just ended that it was not shown; False if it has to read history."""
        # an aggregate of what is new to it nobody has made: it reads that from history
        is_ready = subscriber.state is State.BEHIND and not subscriber.is_paused and not subscriber.jobs
        if not is_ready or group.shape.mode is not Mode.LATEST:
            return False
        matched = group.settled_matched - subscriber.mark
        seqs = shaper.taken_seqs
        new = [frame for frame, seq in zip(frames, seqs, strict=True) if seq > subscriber.position]
        subscriber.position = group.flushed_seq
        subscriber.mark = group.settled_matched
        subscriber.delivered += len(new)
        subscriber.skipped += matched - len(new)
        self.counters.delivered += len(new)
        self.counters.skipped += matched - len(new)
        if new:
            data = b"".join(new)
            self.counters.bytes_written += len(data)
            try:
                subscriber.sink.write(data)
            except Exception as error:  # noqa: BLE001 - logged there
                self._socket_failed(subscriber, error)
                return True
        if subscriber.state is State.BEHIND and not subscriber.is_paused:
            group.join(subscriber)
        return True

    def _fail_writer(self, group: Group, write: Callable[[bytes], None], error: Exception) -> None:
        for subscriber in [one for one, known in group.writers.items() if known == write]:
            self._socket_failed(subscriber, error)

    def flush(self) -> Iterator[None]:
        """Writes everything that is pending, intervals included, as much in each step as a turn has room for.

        It is for the end: nothing may be published meanwhile. The loop has to turn between two steps.
        """
        self._room = PART_WRITES
        for number, group in enumerate(list(self._groups.values()), start=1):
            while group.unwritten:
                yield
            if group.has_pending:
                if group.ticking is not None:
                    group.ticking.cancel()
                    group.ticking = None
                self._try_to_flush(group)
            if self._room <= 0 or number % PART_GROUPS == 0:
                yield
                self._room = PART_WRITES
        while self._unwritten:
            yield
        self._dirty = [group for group in self._dirty if group.is_queued]

    # subscribers

    def add(
        self,
        sink: Sink,
        *,
        shape: Shape | None = None,
        tell: Callable[[dict[str, Any]], None] | None = None,
        label: str = "",
        owner: object = None,
        payer: Payer | None = None,
        on_live: Callable[[int], None] | None = None,
    ) -> Subscriber:
        """Makes a subscriber without filters.

        Args:
            sink: where its bytes go.
            shape: what it wants; every message as JSON by default.
            tell: sends an event in band; None for those who get data only.
            label: what it is called in logs.
            owner: whose it is, for those who ask for their own.
            payer: who pays for what its shape and its replays take; None: nobody.
            on_live: called at the end of its replays, with the number up to which it was given everything; what comes
                next comes live.
        """
        subscriber = Subscriber(sink, shape or Shape(), tell, label)
        subscriber.owner = owner
        subscriber.payer = payer
        subscriber.on_live = on_live
        self._subscribers[subscriber] = None
        return subscriber

    def watch(
        self, filters: Iterable[str], look: Callable[[Message, Readings], None], miss: Callable[[int], None]
    ) -> Group:
        """Has every message that these filters match looked at inside the gateway, from now on and for good.

        It is done in the order of their numbers and in the turns of shapes, so some may come late. Nothing is flushed
        for it.

        Args:
            filters: valid topic filters.
            look: gets each message, and what payloads say; raises nothing.
            miss: hears how many messages history has evicted before they could be looked at.

        Returns:
            Its group: `put_off` says how many messages it has yet to be given.
        """
        shape, readings = Shape(), self._shaping.readings
        found = FilterSet(filters)
        history, clock = self.history, self._wall_clock_ms
        group = Group(found, shape, history.epoch, self._budget, self.counters, clock, readings)
        group.shaper = Onlooker(look, miss, readings)
        group.is_onlooker = True
        group.is_queued = True  # so it never is: there is nothing to flush
        for topic_filter in found.filters:
            self._trie.add(topic_filter, group)
        return group

    def silence(self, subscriber: Subscriber) -> None:
        """Writes nothing more to a subscriber whose connection is gone; `remove`, which takes longer, follows.

        Its counts are those of the last flush. Thousands may be silenced in one turn (benchmarks.many): 2 µs each.
        """
        group = subscriber.group
        if group is not None:
            if group.unwritten:
                group.unwritten.pop(subscriber, None)  # there is nobody to write it to
            if group.waiting:
                group.waiting.pop(subscriber, None)
            if subscriber.state is State.LIVE:
                group.leave(subscriber)
        subscriber.is_paused = True  # so that it reads no history
        if self._paused:
            self._paused.pop(subscriber, None)

    def remove(self, subscriber: Subscriber) -> None:
        """Forgets a subscriber whose connection is gone; a second call does nothing."""
        if subscriber.state is State.CLOSED:
            return
        if subscriber.group is not None:
            subscriber.group.unwritten.pop(subscriber, None)  # there is nobody to write it to
        self._go_behind(subscriber)
        self._leave_group(subscriber)
        subscriber.state = State.CLOSED
        subscriber.let_go()
        del self._subscribers[subscriber]
        self._paused.pop(subscriber, None)

    def subscribe(
        self,
        subscriber: Subscriber,
        filters: Iterable[str],
        since: Since,
        *,
        shape: Shape | None = None,
        replay_id: int | str | None = None,
    ) -> Subscription:
        """Adds filters, and replays what they want from `since` on.

        It is one synchronous step, so that no message falls between replay and live; only how much there is to replay,
        and how much of it is missing, may take longer to find out. Filters that are there already are not replayed: a
        subscriber gets a message once.

        Args:
            subscriber: whose filters they are.
            filters: valid topic filters.
            since: where the replay starts.
            shape: its shape from now on, for all its filters; None leaves the one that it has.
            replay_id: id of the `replayed` event that tells of the end of the replay; None: no event.

        Raises:
            ProtocolError: the position is ahead of the log, or too many replays wait.
        """
        history = self.history
        now = history.seq
        start = start_of(since, history)
        if subscriber.jobs is not None and len(subscriber.jobs) >= MAX_JOBS:
            raise ProtocolError("limit", f"limit: {MAX_JOBS} replays wait for this subscriber already")
        old = subscriber.filters
        wanted = frozenset(filters)
        added = FilterSet(f for f in wanted if f not in old)
        self._move(subscriber, old | added.filters if old else added, shape or subscriber.shape, keep=old)
        if not old:
            added = subscriber.filters
        job = None
        after = now
        if added:
            promises = subscriber.promises
            before = overlapping(promises, added)
            job, promise = self._replays.first_job(added, before, since, start, now, subscriber.shape)
            subscriber.promises = (*promises, promise)
            if len(added) == len(wanted):
                after = promise.after
        answer = Subscription(history.position, after, job is not None)
        if job is not None:
            job.id = replay_id
            self._replays.add_job(subscriber, job)
        if job is None or job.work is None:
            answer.know(True)
        else:
            job.answer = answer
            self._replays.work(job)
        self._replays.wake(subscriber)
        return answer

    def unsubscribe(self, subscriber: Subscriber, filters: Iterable[str]) -> list[str]:
        """Takes filters away; a message that only they match is not written after this.

        Returns:
            Those of `filters` that were there.
        """
        gone = [f for f in dict.fromkeys(filters) if f in subscriber.filters]
        if gone:
            rest = subscriber.filters - gone
            subscriber.promises = without(subscriber.promises, gone)
            if jobs := subscriber.jobs:
                left: deque[Job] = deque()
                for job in jobs:
                    if self._replays.narrow(subscriber, job, gone):
                        left.append(job)
                    else:
                        self._replays.tell_replayed(subscriber, job)
                subscriber.jobs = left
            self._move(subscriber, rest, subscriber.shape, keep=rest)
            self._replays.wake(subscriber)
        return gone

    def _move(self, subscriber: Subscriber, filters: FilterSet, shape: Shape, *, keep: FilterSet) -> None:
        """Gives a subscriber other filters or another shape; what `keep` matched up to now is still owed."""
        if subscriber.state is State.CLOSED or (filters == subscriber.filters and shape == subscriber.shape):
            return
        self._go_behind(subscriber)
        if subscriber not in self._subscribers:
            return  # its socket failed
        history = self.history
        group = subscriber.group
        if group is not None and keep and subscriber.position < history.seq:
            job = Job(
                Kind.CATCH_UP, Selection(keep), subscriber.shape, subscriber.position, history.seq,
                expected=group.matched - subscriber.mark,
            )  # fmt: skip
            if keep != subscriber.filters:
                self._replays.recount(job)
            self._replays.add_job(subscriber, job)
        self._leave_group(subscriber)
        subscriber.filters = filters
        subscriber.shape = shape
        subscriber.position = history.seq
        if not filters:
            subscriber.state = State.IDLE
            return
        subscriber.state = State.BEHIND
        key = (filters, shape)
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = Group(
                filters,
                shape,
                history.epoch,
                self._budget,
                self.counters,
                self._wall_clock_ms,
                self._shaping.readings,
            )
            found.phase = len(self._groups)
            found.settle(history.seq)
            for topic_filter in filters.filters:
                self._trie.add(topic_filter, found)
        # one object for all members: with 100,000 of them that is 130 MiB (benchmarks.many)
        subscriber.filters, subscriber.shape = found.filters, found.shape
        found.members[subscriber] = None
        subscriber.group = found
        subscriber.mark = found.matched

    def _go_behind(self, subscriber: Subscriber) -> None:
        """Takes a live subscriber off its group's flushes; from here on it reads history."""
        group = subscriber.group
        if subscriber.state is State.LIVE and group is not None:
            self._write_rest(subscriber)
            if subscriber not in group.writers:
                return  # its socket was full, or has failed
            group.settle_if_quiet(self.history.seq, self.counters)
            group.leave(subscriber)

    def _leave_group(self, subscriber: Subscriber) -> None:
        group = subscriber.group
        if group is None:
            return
        subscriber.group = None
        group.charge_one(subscriber)
        del group.members[subscriber]
        group.waiting.pop(subscriber, None)
        if not group.members:
            if group.ticking is not None:
                group.ticking.cancel()
            del self._groups[(group.filters, group.shape)]
            for topic_filter in group.filters.filters:
                self._trie.remove(topic_filter, group)

    # slow sockets

    def pause(self, subscriber: Subscriber) -> None:
        """The socket's buffer is over its limit: the subscriber leaves the live path."""
        if subscriber.is_paused or subscriber.state is State.CLOSED:
            return
        subscriber.is_paused = subscriber.was_paused = True
        if subscriber.state is State.LIVE:
            self.counters.slow += 1
            subscriber.slow_count += 1
            self._go_behind(subscriber)
        subscriber.progress = (self._clock(), subscriber.sink.buffered())
        self._paused[subscriber] = None
        if self._sweeping is None:
            self._sweeping = self._call_later(min(self.stall_seconds / 4, 1.0), self._sweep)

    def resume(self, subscriber: Subscriber) -> None:
        """The socket takes data again: replay goes on."""
        if not subscriber.is_paused:
            return
        subscriber.is_paused = False
        self._paused.pop(subscriber, None)
        self._replays.wake(subscriber)

    def _sweep(self) -> None:
        """Closes those who made no progress for too long."""
        self._sweeping = None
        now = self._clock()
        for subscriber in list(self._paused):
            since, before = subscriber.progress
            buffered = subscriber.sink.buffered()
            if buffered < before:
                subscriber.progress = (now, buffered)
            elif now - since >= self.stall_seconds:
                self.counters.closed_slow += 1
                self.remove(subscriber)
                subscriber.sink.close(CloseCode.SLOW, f"took no data for {self.stall_seconds:g} s")
        if self._paused:
            self._sweeping = self._call_later(min(self.stall_seconds / 4, 1.0), self._sweep)

    # catching up

    # for those who watch

    def counts(self, subscriber: Subscriber) -> tuple[int, int, int]:
        """Delivered, skipped and lost messages of a subscriber, up to its group's last flush."""
        delivered, skipped = subscriber.delivered, subscriber.skipped
        if subscriber.state is State.LIVE and subscriber.group is not None:
            subscriber.group.settle_if_quiet(self.history.seq, self.counters)
            delivered += subscriber.group.settled_delivered - subscriber.base_delivered
            skipped += subscriber.group.settled_skipped - subscriber.base_skipped
        return delivered, skipped, subscriber.lost

    def position_of(self, subscriber: Subscriber) -> str | None:
        """The position up to which everything has been written to it; None while a replay is under way."""
        self._write_rest(subscriber)
        group = subscriber.group
        if subscriber.state is State.LIVE and group is not None:
            group.settle_if_quiet(self.history.seq, self.counters)
            return f"{self.history.epoch}:{group.flushed_seq}"
        is_owed = subscriber.state is not State.IDLE or subscriber.jobs
        return None if is_owed else self.history.position

    def subscribers(self) -> Iterator[Subscriber]:
        """Everyone who is connected."""
        return iter(self._subscribers)

    @property
    def subscriber_count(self) -> int:
        """The number of those who are connected."""
        return len(self._subscribers)

    @property
    def group_count(self) -> int:
        """The number of different sets of filters and shapes in use."""
        return len(self._groups)

    @property
    def paused_count(self) -> int:
        """The number of sockets that take no more for now."""
        return len(self._paused)

    def upstream_changed(self, connected: bool, reason: str | None = None, lost_at: int | None = None) -> None:
        """Tells everyone that the link to the broker went down or came back; `lost_at` in milliseconds since 1970."""
        self._tell_all("upstream", connected=connected, reason=reason, lost_at=lost_at)

    def archive_changed(self, kept: bool, reason: str | None = None) -> None:
        """Tells everyone that what arrives is no longer kept, or is again."""
        self._tell_all("archive", kept=kept, reason=reason)

    def begin_anew(self) -> None:
        """The log is another one: everyone comes back with the position that it has, and is told what is missing."""
        for _ in self.flush():
            self._flush_part()  # here and now: positions of this log are told by nobody afterwards
        for subscriber in list(self._subscribers):
            self.remove(subscriber)
            subscriber.sink.close(CloseCode.RESTART, "the log begins anew")
        self._replays.forget()

    def _tell_all(self, event: str, **members: Any) -> None:
        told = {name: value for name, value in members.items() if value is not None}
        self._telling.append((event, told, iter(list(self._subscribers))))
        if len(self._telling) == 1:
            self._tell_on()

    def _tell_on(self) -> None:
        """Tells as many as one turn has room for."""
        event, members, left = self._telling[0]
        for subscriber in islice(left, PART_EVENTS):
            subscriber.tell(event, **members)
        if not length_hint(left):
            self._telling.popleft()
        if self._telling:
            self._call_soon(self._tell_on)

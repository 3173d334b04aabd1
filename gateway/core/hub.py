"""Fan-out: groups, one flush for all of them, and subscribers that are replayed from their own position.

Invariant: for every subscriber *received = delivered + skipped + lost*, and every lost message is told in a `gap`. A
subscriber has no queue: it is either live, and gets the bytes that its whole group gets, or behind, and is read from
history at the pace of its socket. The loop's clock, `call_soon` and `call_later` are given; sockets are `Sink`s.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.core.distribution import Distribution
from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.memory import MemoryBudget
from gateway.core.messages import Message, Properties
from gateway.core.protocol import CloseCode, ProtocolError
from gateway.core.selection import Claim, Selection, overlapping, without
from gateway.core.shaper import Shaper
from gateway.core.shapes import Mode, Shape
from gateway.core.since import Since, SinceKind
from gateway.core.tries import FilterTrie

__all__ = ["Group", "Hub", "HubCounters", "Sink", "State", "Subscriber", "Subscription", "Timer"]

logger = logging.getLogger(__name__)


FLUSH_FACTOR = 3.0
"""After a flush that took d the next one waits this many times d: flushing takes at most a quarter of the processor,
and when that is not enough the wait grows until messages share writes."""

SHARING_FACTOR = 12.0
SHARING_SECONDS = 0.012
"""Where messages come so fast that a wait lets them share a write, it is so many times d, up to so long: that saves
most of the processor's time (benchmarks S1, S2). Elsewhere it would only delay (S3, S4)."""

MAX_BATCH_BYTES = 1 << 20
"""So many bytes waiting for the next flush bring it at once."""

CHUNK_BYTES = 64 * 1024
"""What one step of a replay writes: about what a socket takes in one system call."""

CATCH_UP_SECONDS = 0.002
"""How long one turn of the loop may go on with replays before the live path gets its turn."""

MAX_CHUNKS_BYTES = 4 * 2**20
"""So many bytes of chunks are kept for those who come back together."""

MAX_JOBS = 64
"""Replays that one subscriber may have waiting, so that a loop of commands can't grow memory."""


class Sink(Protocol):
    """Where a subscriber's bytes go. It reports to the hub by `Hub.pause`, `Hub.resume` and `Hub.remove`."""

    def write(self, data: bytes) -> None:
        """Takes joined frames; never blocks. Above its limit it calls `Hub.pause`, before or after returning."""

    def buffered(self) -> int:
        """Bytes that were taken and not yet given to the system."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Closes the connection; `Hub.remove` follows."""


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Takes the call back."""


class State(enum.Enum):
    """Where a subscriber gets its messages from."""

    IDLE = "idle"
    """It has no filters."""
    LIVE = "live"
    """Every flush of its group."""
    BEHIND = "behind"
    """History, from its own position."""
    CLOSED = "closed"


class _Kind(enum.Enum):
    LAST = enum.auto()
    """Last values, when subscribing."""
    RESUME = enum.auto()
    """From a time or position, when subscribing."""
    CATCH_UP = enum.auto()
    """What a subscriber missed while it was behind."""


class _Job:
    """One stretch of history that a subscriber still has to be given."""

    __slots__ = (
        "cursor",
        "expected",
        "gap",
        "id",
        "kind",
        "last_only",
        "seen",
        "selection",
        "shape",
        "shaper",
        "until",
        "window_end",
    )

    def __init__(
        self,
        kind: _Kind,
        selection: Selection,
        shape: Shape,
        cursor: int,
        until: int,
        *,
        expected: int | None = None,
    ) -> None:
        self.kind = kind
        self.selection = selection
        self.shape = shape
        self.cursor = cursor
        self.until = until
        self.expected = expected  # messages that must come out or be told as lost; None: not promised
        self.gap: dict[str, Any] | None = None  # told before anything else
        self.id: int | str | None = None  # of whoever wants to hear of its end
        self.last_only = kind is _Kind.LAST
        self.seen = 0
        self.shaper: Shaper | None = None
        self.window_end = 0


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What one step of a replay reads: where it ends, its messages (if they have yet to be shaped), or their frames."""

    cursor: int
    count: int
    messages: list[Message]
    data: bytes
    delivered: int
    skipped: int


class Subscriber:
    """One browser, event stream or script.

    Attributes:
        sink: where its bytes go.
        shape: what it wants of its messages.
        filters: its topic filters.
        state: where its messages come from now.
        position: everything up to this number is delivered, skipped, lost, or in a replay that is under way.
        is_paused: its socket takes no more for now.
        delivered, skipped, lost: settled counts; `Hub.counts` adds what its group did since.
        label: what it is called in logs.
        owner: whose it is, as its route says; nothing here looks at it.
    """

    __slots__ = (
        "_base_delivered",
        "_base_skipped",
        "_claims",
        "_jobs",
        "_mark",
        "_on_live",
        "_queued",
        "_tell",
        "_was_paused",
        "delivered",
        "filters",
        "group",
        "is_paused",
        "label",
        "lost",
        "owner",
        "position",
        "progress",
        "shape",
        "sink",
        "skipped",
        "slow_count",
        "state",
    )

    def __init__(self, sink: Sink, shape: Shape, tell: Callable[[dict[str, Any]], None] | None, label: str) -> None:
        self.sink = sink
        self.shape = shape
        self.filters = FilterSet(())
        self.state = State.IDLE
        self.group: Group | None = None
        self.position = 0
        self.is_paused = False
        self.progress: tuple[float, int] = (0.0, 0)  # when its buffer last shrank, and to what
        self.delivered = 0
        self.skipped = 0
        self.lost = 0
        self.slow_count = 0
        self.label = label
        self.owner: object = None
        self._tell = tell
        self._on_live: Callable[[int], None] | None = None
        self._claims: tuple[Claim, ...] = ()  # what its filters were promised
        self._jobs: deque[_Job] | None = None
        self._queued = False
        self._was_paused = False  # since it was live
        # the group's count of matched messages at `position`, and its other counts when this one became live
        self._mark = 0
        self._base_delivered = 0
        self._base_skipped = 0

    def tell(self, event: str, **members: Any) -> None:
        """Sends an event in band, if this subscriber gets events."""
        if self._tell is not None and self.state is not State.CLOSED:
            self._tell({"event": event, **members})


class Group:
    """The subscribers with the same filters and shape: their messages are matched, shaped and encoded once.

    Attributes:
        filters, shape: what they have in common.
        members: all of them; those behind do not get its flushes.
        flushed_seq: everything that matched up to this number has been written to the live ones.
    """

    __slots__ = (
        "_frames",
        "_matched",
        "_settled_delivered",
        "_settled_skipped",
        "filters",
        "flushed_at",
        "flushed_seq",
        "is_queued",
        "members",
        "next_tick",
        "settled_matched",
        "shape",
        "shaper",
        "ticking",
        "waiting",
        "writers",
    )

    def __init__(self, filters: FilterSet, shape: Shape, epoch: str, budget: MemoryBudget) -> None:
        self.filters = filters
        self.shape = shape
        self.members: dict[Subscriber, None] = {}
        self.writers: dict[Subscriber, Callable[[bytes], None]] = {}
        self.waiting: dict[Subscriber, None] = {}
        self.shaper = None if shape.is_plain else Shaper(shape, epoch, budget)
        self.flushed_seq = 0
        self.flushed_at = 0.0
        self.is_queued = False
        self.next_tick = 0.0
        self.ticking: Timer | None = None
        self._frames: list[bytes] = []
        self._matched = 0
        # the counts as of `flushed_seq`
        self.settled_matched = 0
        self._settled_delivered = 0
        self._settled_skipped = 0

    @property
    def matched(self) -> int:
        """Messages that matched so far."""
        return self._matched + len(self._frames) if self.shaper is None else self.shaper.offered

    @property
    def has_pending(self) -> bool:
        """Whether something that matched has not been written yet."""
        return bool(self._frames) if self.shaper is None else self.shaper.is_waiting

    def offer(self, message: Message) -> None:
        """Takes a message that matches; it goes out with the next flush."""
        if self.shaper is None:
            self._frames.append(message.frame)
        else:
            self.shaper.offer(message)

    def take(self) -> list[bytes]:
        """What is to be written now."""
        if self.shaper is not None:
            return self.shaper.take()
        frames = self._frames
        self._frames = []
        self._matched += len(frames)
        return frames

    def settle(self, seq: int) -> None:
        """Notes that nothing is pending up to `seq`."""
        self.flushed_seq = seq
        if self.shaper is None:
            self.settled_matched = self._settled_delivered = self._matched
        else:
            self.settled_matched = self.shaper.offered
            self._settled_delivered = self.shaper.delivered
            self._settled_skipped = self.shaper.skipped

    @property
    def settled_delivered(self) -> int:
        """Frames written up to `flushed_seq`."""
        return self._settled_delivered

    @property
    def settled_skipped(self) -> int:
        """Messages left out up to `flushed_seq`."""
        return self._settled_skipped


def _cost_of(group: Group) -> int:
    return 0 if group.shaper is None else group.shaper.cost


@dataclass(frozen=True, slots=True)
class Subscription:
    """The answer to `Hub.subscribe`.

    Attributes:
        position: `epoch:seq` up to which the replay goes; what comes later comes live.
        recovered: whether the replay is complete; if not, a `gap` event comes first.
        after: every message of these filters with a higher number comes, with this replay, an earlier one or live.
        is_replaying: whether there is a replay, of whose end `subscribe`'s `replay_id` is told.
    """

    position: str
    recovered: bool
    after: int
    is_replaying: bool


class HubCounters:
    """Plain numbers that `metrics` reads; they only grow."""

    __slots__ = (
        "batches",
        "bytes_written",
        "closed_slow",
        "delays",
        "delivered",
        "flush_seconds",
        "flushes",
        "lost",
        "received",
        "replayed",
        "shapes_shed",
        "skipped",
        "slow",
    )

    def __init__(self) -> None:
        self.received = 0
        """Messages published to the hub that were new arrivals."""
        self.delivered = 0
        """Messages written, summed over subscribers."""
        self.skipped = 0
        """Messages conflated or filtered away, summed over subscribers."""
        self.lost: dict[str, int] = {"slow": 0, "evicted": 0, "epoch": 0, "limit": 0}
        """Messages told as lost, by reason, where their number is known; summed over subscribers."""
        self.replayed = 0
        """Messages of `delivered` that came from history."""
        self.slow = 0
        """How often a subscriber left the live path because its socket was full."""
        self.shapes_shed = 0
        """How often a group had to end its interval and forget its deadband, since all of them held too much."""
        self.closed_slow = 0
        """Subscribers closed because they made no progress."""
        self.flushes = 0
        self.batches = 0
        """Writes to sinks by flushes."""
        self.bytes_written = 0
        self.flush_seconds = 0.0
        self.delays = Distribution()
        """Seconds from the first message of a flush to its end, asked-for intervals not included."""


class Hub:
    """Publishes every message to the groups that want it, and keeps subscribers that can't keep up on history."""

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
            call_later: runs a function after so many seconds.
            clock: monotonic seconds.
            wall_clock_ms: milliseconds since 1970.
            cost_clock: processor seconds that were used, so that a busy machine is not taken for a costly flush; None
                takes `clock`.
            flush_interval_seconds: a fixed time between flushes; None adapts it to what a flush costs.
            stall_seconds: a subscriber whose socket takes nothing for so long is closed.
            max_replay_messages: how far back a subscription may reach, in messages of the whole log.
            max_shape_bytes: about what intervals and deadbands of all shapes may hold; above it the largest end
                early and forget.
        """
        self.history = history
        self.counters = HubCounters()
        self.stall_seconds = stall_seconds
        self.max_replay_messages = max_replay_messages
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
        self._is_flush_due = False
        self._flush_started = 0.0
        self._cost_before = 0.0
        self._writes = 0  # of the last flush
        self._sharing_writes = 0  # those whose group gets several messages within SHARING_SECONDS
        self._waiting_since = 0.0
        self._next_flush = 0.0
        self._unflushed_bytes = 0
        self._window_bytes = 0  # published since the intervals were last looked at
        self._behind: deque[Subscriber] = deque()
        self._is_catch_up_due = False
        self._budget = MemoryBudget(max_shape_bytes)
        self._chunks: dict[Any, _Chunk] = {}
        self._chunks_bytes = 0
        self._chunks_evicted = 0  # how much history had evicted when they were read
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
    ) -> Message | None:
        """Takes one arrival: numbered, kept, and on its way to everyone who wants it.

        The arguments are those of `History.append`.

        Returns:
            The message, or None if it is a retained message that the broker only repeated.
        """
        message = self.history.append(topic, payload, self._wall_clock_ms(), qos, retained, properties, repeat)
        if message is None:
            return None
        self.counters.received += 1
        groups = self._trie.match(topic)
        if groups:
            for group in groups:
                try:
                    group.offer(message)
                except Exception as error:  # noqa: BLE001 - logged there
                    self._fail(group, error)
                    continue
                if not group.is_queued:
                    self._queue(group)
            if self._budget.is_crowded:
                self._make_room()
            self._unflushed_bytes += len(message.frame)
            if self._unflushed_bytes > MAX_BATCH_BYTES:
                self._flush_now()
        return message

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
        if wait <= 0:
            self._call_soon(self._flush)  # at the end of this turn, with whatever else it brings
        else:
            self._call_later(wait, self._flush)

    def _flush(self) -> None:
        self._flush_started = self._clock()
        self._cost_before = self._cost_clock()
        self._writes = self._sharing_writes = 0
        self._flush_now()
        # the loop hands the bytes to the system at the end of this turn, so the cost is known in the next one
        self._call_soon(self._after_flush)

    def _after_flush(self) -> None:
        now = self._clock()
        took = self._cost_clock() - self._cost_before
        self.counters.flushes += 1
        self.counters.flush_seconds += took
        self.counters.delays.add(now - self._waiting_since)
        if self._flush_interval_seconds is not None:
            self._next_flush = self._flush_started + self._flush_interval_seconds
        else:
            wait = took * FLUSH_FACTOR
            if self._sharing_writes * 2 > self._writes:
                wait = max(wait, min(took * SHARING_FACTOR, SHARING_SECONDS))
            self._next_flush = now + wait
        self._is_flush_due = False
        if self._dirty:
            self._schedule_flush()
            self._waiting_since = self._flush_started  # they came during this flush

    def _flush_now(self) -> None:
        dirty, self._dirty = self._dirty, []
        self._window_bytes += self._unflushed_bytes
        self._unflushed_bytes = 0
        if self._window_bytes > MAX_BATCH_BYTES:
            self._window_bytes = 0
            dirty += self._end_heavy_intervals()
        for group in dirty:
            try:
                self._flush_group(group)
            except Exception as error:  # noqa: BLE001 - logged there
                self._fail(group, error)

    def _end_heavy_intervals(self) -> list[Group]:
        """The groups whose interval holds so much that it has to end now."""
        heavy: list[Group] = []
        for group in self._groups.values():
            if group.ticking is not None and group.shaper is not None and group.shaper.is_heavy():
                group.ticking.cancel()
                group.ticking = None
                heavy.append(group)
        return heavy

    def _make_room(self) -> None:
        """Lets the shapers that hold most end their intervals and forget, until half of what they may hold is free."""
        self._budget.is_crowded = False
        groups = [group for group in self._groups.values() if group.shaper is not None and group.shaper.cost]
        for group in sorted(groups, key=_cost_of, reverse=True):
            if self._budget.used * 2 <= self._budget.limit:
                return
            assert group.shaper is not None  # noqa: S101 - chosen so
            self.counters.shapes_shed += 1
            if group.ticking is not None:
                group.ticking.cancel()
                group.ticking = None
            try:
                self._flush_group(group)
            except Exception as error:  # noqa: BLE001 - logged there
                self._fail(group, error)
                continue
            group.shaper.forget()

    def _fail(self, group: Group, error: Exception) -> None:
        """Ends a group whose shape can't take a message: a fault of ours, which must not reach its neighbours."""
        logger.error(
            "%d subscribers are closed, since their shape failed: %s", len(group.members), group.shape, exc_info=error
        )
        for subscriber in list(group.members):
            self._fail_subscriber(subscriber)

    def _fail_subscriber(self, subscriber: Subscriber) -> None:
        self.remove(subscriber)
        subscriber.sink.close(CloseCode.INTERNAL, "a fault of the gateway")

    def _flush_group(self, group: Group) -> None:
        group.is_queued = False
        if group.shape.max_hz is not None:
            group.next_tick = self._clock() + 1 / group.shape.max_hz
        skipped = group.settled_skipped
        frames = group.take()
        group.settle(self.history.seq)
        if group.writers:
            counters = self.counters
            counters.skipped += (group.settled_skipped - skipped) * len(group.writers)
            if frames:
                data = frames[0] if len(frames) == 1 else b"".join(frames)
                writers = tuple(group.writers.values())  # a write may pause its own subscriber
                counters.delivered += len(frames) * len(writers)
                counters.batches += len(writers)
                counters.bytes_written += len(data) * len(writers)
                self._writes += len(writers)
                if self._flush_started - group.flushed_at < SHARING_SECONDS * len(frames):
                    self._sharing_writes += len(writers)
                group.flushed_at = self._flush_started
                for write in writers:
                    try:
                        write(data)
                    except Exception as error:  # noqa: BLE001 - logged there
                        self._fail_writer(group, write, error)
        if group.waiting:
            waiting, group.waiting = group.waiting, {}
            for subscriber in waiting:
                if group.shaper is None or not self._join_interval(subscriber, group, group.shaper, frames):
                    self._wake(subscriber)

    def _join_interval(self, subscriber: Subscriber, group: Group, shaper: Shaper, frames: list[bytes]) -> bool:
        """Gives a joiner what is new to it of the interval that has ended now; whether that could be done."""
        # an aggregate of what is new to it nobody has made: it reads that from history
        is_ready = subscriber.state is State.BEHIND and not subscriber.is_paused and not subscriber._jobs
        if not is_ready or group.shape.mode is not Mode.LATEST:
            return False
        matched = group.settled_matched - subscriber._mark
        seqs = shaper.taken_seqs
        new = [frame for frame, seq in zip(frames, seqs, strict=True) if seq > subscriber.position]
        subscriber.position = group.flushed_seq
        subscriber._mark = group.settled_matched
        subscriber.delivered += len(new)
        subscriber.skipped += matched - len(new)
        self.counters.delivered += len(new)
        self.counters.skipped += matched - len(new)
        if new:
            data = b"".join(new)
            self.counters.bytes_written += len(data)
            try:
                subscriber.sink.write(data)
            except Exception:
                logger.exception("%s: its socket failed", subscriber.label)
                self._fail_subscriber(subscriber)
                return True
        if subscriber.state is State.BEHIND and not subscriber.is_paused:
            self._join(subscriber, group)
        return True

    def _fail_writer(self, group: Group, write: Callable[[bytes], None], error: Exception) -> None:
        for subscriber in [one for one, known in group.writers.items() if known == write]:
            logger.error("%s: its socket failed", subscriber.label, exc_info=error)
            self._fail_subscriber(subscriber)

    def flush(self) -> None:
        """Writes everything that is pending now, intervals included; for shutdown."""
        for group in list(self._groups.values()):
            if group.has_pending:
                if group.ticking is not None:
                    group.ticking.cancel()
                    group.ticking = None
                try:
                    self._flush_group(group)
                except Exception as error:  # noqa: BLE001 - logged there
                    self._fail(group, error)
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
        on_live: Callable[[int], None] | None = None,
    ) -> Subscriber:
        """Makes a subscriber without filters.

        Args:
            sink: where its bytes go.
            shape: what it wants; every message as JSON by default.
            tell: sends an event in band; None for those who get data only.
            label: what it is called in logs.
            owner: whose it is, for those who ask for their own.
            on_live: called whenever it has been given all that history has for it, with the number up to which; what
                comes next comes live.
        """
        subscriber = Subscriber(sink, shape or Shape(), tell, label)
        subscriber.owner = owner
        subscriber._on_live = on_live
        self._subscribers[subscriber] = None
        return subscriber

    def remove(self, subscriber: Subscriber) -> None:
        """Forgets a subscriber whose connection is gone; twice is once."""
        if subscriber.state is State.CLOSED:
            return
        self._leave(subscriber)
        self._leave_group(subscriber)
        subscriber.state = State.CLOSED
        subscriber._jobs = None
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
        """Adds filters, and replays what they want from `since` on; one synchronous step, so nothing falls between.

        Filters that are there already are not replayed: a subscriber gets a message once.

        Args:
            subscriber: whose filters they are.
            filters: valid topic filters.
            since: where the replay starts.
            shape: from now on its shape for all its filters; None leaves it.
            replay_id: if there is a replay, a `replayed` event with this id tells of its end; None: nothing does.

        Raises:
            ProtocolError: the position is ahead of the log, or too many replays wait.
        """
        history = self.history
        now = history.seq
        if since.kind is SinceKind.POSITION and since.epoch == history.epoch and since.seq > now:
            raise ProtocolError(
                "bad_since", f"since {since.epoch}:{since.seq}: is ahead of the log, which is at {history.position}"
            )
        if subscriber._jobs is not None and len(subscriber._jobs) >= MAX_JOBS:
            raise ProtocolError("limit", f"limit: {MAX_JOBS} replays wait for this subscriber already")
        old = subscriber.filters
        wanted = frozenset(filters)
        added = FilterSet(f for f in wanted if f not in old)
        self._move(subscriber, old | added.filters, shape or subscriber.shape, keep=old)
        job = None
        after = now
        if added:
            claims = subscriber._claims
            job, claim = self._first_job(added, overlapping(claims, added), since, now, subscriber.shape)
            subscriber._claims = (*claims, claim)
            if len(added) == len(wanted):
                after = claim.after
        if job is not None:
            job.id = replay_id
            self._add_job(subscriber, job)
        self._wake(subscriber)
        return Subscription(history.position, job is None or job.gap is None, after, job is not None)

    def unsubscribe(self, subscriber: Subscriber, filters: Iterable[str]) -> list[str]:
        """Takes filters away; nothing that only they matched is written after this.

        Returns:
            Those of `filters` that were there.
        """
        gone = [f for f in dict.fromkeys(filters) if f in subscriber.filters]
        if gone:
            rest = subscriber.filters - gone
            subscriber._claims = without(subscriber._claims, gone)
            if jobs := subscriber._jobs:
                left: deque[_Job] = deque()
                for job in jobs:
                    if self._narrow(subscriber, job, gone):
                        left.append(job)
                    else:
                        self._tell_replayed(subscriber, job)
                subscriber._jobs = left
            self._move(subscriber, rest, subscriber.shape, keep=rest)
            self._wake(subscriber)
        return gone

    def _first_job(
        self, added: FilterSet, before: tuple[Claim, ...], since: Since, now: int, shape: Shape
    ) -> tuple[_Job | None, Claim]:
        """The replay that a subscription starts with, None when there is none; and what it promises."""
        history = self.history
        if since.kind is SinceKind.NOW:
            return None, Claim(added, now)
        lost: int | None = 0
        reason = "evicted"
        after = 0
        selection = Selection(added, before)
        if since.kind is SinceKind.TIME:
            after = history.before_time(since.time)
            if not history.reaches(added, since.time):
                lost = None
        elif since.kind is SinceKind.POSITION and since.epoch != history.epoch:
            lost, reason = None, "epoch"
        elif since.kind is SinceKind.POSITION:
            after = since.seq
            lost = selection.lost(history, after, now)
        if since.kind is SinceKind.LAST or reason == "epoch":
            claim = Claim(added, now, now)
            job = _Job(_Kind.LAST, selection, shape, 0, now)
        else:
            claim = Claim(added, after)
            start = max(history.newest(self.max_replay_messages), after)
            if start > after:
                reason = "limit"
                lost = None if lost is None else lost + selection.count(history, after, start)
            expected = selection.count(history, start, now)
            job = _Job(_Kind.RESUME, selection, shape, start, now, expected=expected)
        if lost != 0:
            job.gap = {"reason": reason, "lost": lost, "from": since.seq, "to": now}
            if since.kind is SinceKind.TIME:
                del job.gap["from"]
        return job, claim

    def _move(self, subscriber: Subscriber, filters: FilterSet, shape: Shape, *, keep: FilterSet) -> None:
        """Gives a subscriber other filters or another shape from now on; what `keep` still has coming stays owed."""
        if subscriber.state is State.CLOSED or (filters == subscriber.filters and shape == subscriber.shape):
            return
        self._leave(subscriber)
        history = self.history
        group = subscriber.group
        if group is not None and keep and subscriber.position < history.seq:
            job = _Job(
                _Kind.CATCH_UP, Selection(keep), subscriber.shape, subscriber.position, history.seq,
                expected=group.matched - subscriber._mark,
            )  # fmt: skip
            if keep != subscriber.filters:
                self._recount(job)
            self._add_job(subscriber, job)
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
            found = self._groups[key] = Group(filters, shape, history.epoch, self._budget)
            found.settle(history.seq)
            for topic_filter in filters.filters:
                self._trie.add(topic_filter, found)
        found.members[subscriber] = None
        subscriber.group = found
        subscriber._mark = found.matched

    def _narrow(self, subscriber: Subscriber, job: _Job, gone: list[str]) -> bool:
        """Takes from a replay what only these filters want; whether anything is left of it."""
        narrowed = job.selection.narrowed(gone, subscriber._claims, job.cursor, job.until)
        if narrowed == job.selection:
            return True
        if job.shaper is not None and (frames := self._take_counted(subscriber, job.shaper)):
            subscriber.sink.write(b"".join(frames))  # what waits for an interval's end would be too late
        if narrowed is None:
            return False
        job.selection = narrowed
        self._recount(job)
        return True

    def _recount(self, job: _Job) -> None:
        """Notes how much a replay whose selection has changed has still to give: history alone knows it now."""
        if job.kind is _Kind.LAST:
            return
        history, selection = self.history, job.selection
        job.expected = job.seen + selection.count(history, job.cursor, job.until, last_only=job.last_only)
        if job.last_only:
            return  # what is lost of this stretch has been told
        job.kind = _Kind.RESUME
        if job.gap is None:
            lost = selection.lost(history, job.cursor, job.until)
            if lost != 0:
                job.gap = {"reason": "slow", "lost": lost, "from": job.cursor, "to": job.until}
        elif job.gap["lost"] is not None and (start := job.gap.get("from")) is not None:
            lost = selection.lost(history, start, job.until)
            job.gap["lost"] = None if lost is None else lost + selection.count(history, start, job.cursor)

    def _leave_group(self, subscriber: Subscriber) -> None:
        group = subscriber.group
        if group is None:
            return
        subscriber.group = None
        del group.members[subscriber]
        group.waiting.pop(subscriber, None)
        if not group.members:
            if group.ticking is not None:
                group.ticking.cancel()
            del self._groups[(group.filters, group.shape)]
            for topic_filter in group.filters.filters:
                self._trie.remove(topic_filter, group)

    def _settle(self, group: Group) -> None:
        """Brings a group's settled counts up to date where nothing is pending."""
        if not group.has_pending:
            skipped = group.settled_skipped
            group.settle(self.history.seq)
            self.counters.skipped += (group.settled_skipped - skipped) * len(group.writers)
        elif not group.writers and not group.waiting:
            group.take()  # nobody waits for it: whoever joins reads it from history
            group.settle(self.history.seq)

    def _leave(self, subscriber: Subscriber) -> None:
        """Takes a live subscriber off its group's flushes; from here on it reads history."""
        group = subscriber.group
        if subscriber.state is not State.LIVE or group is None:
            return
        self._settle(group)
        del group.writers[subscriber]
        subscriber.state = State.BEHIND
        subscriber.position = group.flushed_seq
        subscriber._mark = group.settled_matched
        subscriber.delivered += group.settled_delivered - subscriber._base_delivered
        subscriber.skipped += group.settled_skipped - subscriber._base_skipped

    def _join(self, subscriber: Subscriber, group: Group) -> None:
        group.writers[subscriber] = subscriber.sink.write
        subscriber.state = State.LIVE
        subscriber._base_delivered = group.settled_delivered
        subscriber._base_skipped = group.settled_skipped
        subscriber._jobs = None
        subscriber._was_paused = False
        if subscriber._on_live is not None:
            subscriber._on_live(subscriber.position)

    # slow sockets

    def pause(self, subscriber: Subscriber) -> None:
        """The socket's buffer is over its limit: the subscriber leaves the live path."""
        if subscriber.is_paused or subscriber.state is State.CLOSED:
            return
        subscriber.is_paused = subscriber._was_paused = True
        if subscriber.state is State.LIVE:
            self.counters.slow += 1
            subscriber.slow_count += 1
            self._leave(subscriber)
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
        self._wake(subscriber)

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

    def _add_job(self, subscriber: Subscriber, job: _Job) -> None:
        if subscriber._jobs is None:
            subscriber._jobs = deque()
        subscriber._jobs.append(job)

    def _wake(self, subscriber: Subscriber) -> None:
        # a subscriber without filters may still be owed what it had before
        if subscriber._queued or subscriber.is_paused or subscriber.state not in (State.BEHIND, State.IDLE):
            return
        if subscriber.state is State.IDLE and not subscriber._jobs:
            return
        subscriber._queued = True
        self._behind.append(subscriber)
        if not self._is_catch_up_due:
            self._is_catch_up_due = True
            self._call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """One turn of replays: a chunk for each subscriber that waits, for as long as a turn may take."""
        self._is_catch_up_due = False
        deadline = self._clock() + CATCH_UP_SECONDS
        if self._chunks_evicted != self.history.evicted:
            self._forget_chunks()
        again: list[Subscriber] = []
        while self._behind:
            subscriber = self._behind.popleft()
            subscriber._queued = False
            if not subscriber.is_paused and subscriber.state in (State.BEHIND, State.IDLE):
                try:
                    if self._advance(subscriber):
                        again.append(subscriber)
                except Exception:
                    logger.exception("%s: a replay failed", subscriber.label)
                    self._fail_subscriber(subscriber)
            if self._clock() > deadline:
                break
        for subscriber in again:
            self._wake(subscriber)
        if not self._behind:
            self._forget_chunks()
        if self._behind and not self._is_catch_up_due:
            self._is_catch_up_due = True
            self._call_soon(self._catch_up)

    def _advance(self, subscriber: Subscriber) -> bool:
        """Writes the next chunk of a subscriber's replay, or makes it live; whether it wants another turn."""
        while not subscriber._jobs:
            group = subscriber.group
            if group is None:
                subscriber._jobs = None
                return False
            self._settle(group)
            if subscriber.position > group.flushed_seq:
                # what its group has pending it got in a replay
                group.waiting[subscriber] = None
                if subscriber._on_live is not None:
                    subscriber._on_live(subscriber.position)
                return False
            if subscriber.position == group.flushed_seq or group.settled_matched == subscriber._mark:
                subscriber.position = group.flushed_seq
                self._join(subscriber, group)
                return False
            job = _Job(
                _Kind.CATCH_UP, Selection(subscriber.filters), subscriber.shape, subscriber.position, group.flushed_seq,
                expected=group.settled_matched - subscriber._mark,
            )  # fmt: skip
            subscriber.position = group.flushed_seq
            subscriber._mark = group.settled_matched
            self._add_job(subscriber, job)
        job = subscriber._jobs[0]
        if job.gap is not None:
            gap, job.gap = job.gap, None
            self._tell_gap(subscriber, gap.pop("reason"), gap.pop("lost"), **gap)
        self._check_catch_up(subscriber, job)
        chunk = self._read(job)
        job.cursor = chunk.cursor
        job.seen += chunk.count
        is_done = chunk.cursor >= job.until
        if job.shape.is_stateless:
            data = chunk.data
            self._count_replayed(subscriber, chunk.delivered, chunk.skipped)
        else:
            data = b"".join(self._shape_chunk(subscriber, job, chunk.messages, is_done))
        if is_done:
            subscriber._jobs.popleft()
            group = subscriber.group
            if job.shaper is not None and group is not None and group.shaper is not None and group.shape == job.shape:
                group.shaper.welcome(job.shaper)
            if job.expected is not None and job.seen < job.expected:
                is_slow = job.kind is _Kind.CATCH_UP and subscriber._was_paused
                self._tell_gap(subscriber, "slow" if is_slow else "evicted", job.expected - job.seen, to=job.until)
        if data:
            self.counters.bytes_written += len(data)
            subscriber.sink.write(data)
        if is_done:
            self._tell_replayed(subscriber, job)
        return subscriber.state is not State.CLOSED

    def _read(self, job: _Job) -> _Chunk:
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
        cursor, messages = job.selection.read(
            self.history, job.cursor, job.until, last_only=job.last_only, max_bytes=CHUNK_BYTES
        )
        if key is None:
            return _Chunk(cursor, len(messages), messages, b"", 0, 0)
        if shape.is_plain:
            frames, skipped = [message.frame for message in messages], 0
        else:
            shaper = Shaper(shape, self.history.epoch)
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

    def _shape_chunk(self, subscriber: Subscriber, job: _Job, messages: list[Message], is_done: bool) -> list[bytes]:
        """The frames of a chunk for a shape that isn't plain, counted."""
        if job.shaper is None:
            job.shaper = Shaper(job.shape, self.history.epoch, self._budget)
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
        """Replays, which may be stuck with what they hold, leave half of the room to the groups."""
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

    def _check_catch_up(self, subscriber: Subscriber, job: _Job) -> None:
        """If what a slow subscriber missed has been evicted: a gap, and then only the last values."""
        if job.kind is not _Kind.CATCH_UP or job.last_only or job.expected is None:
            return
        if job.cursor >= self.history.evicted_seq:
            return
        left = job.expected - job.seen
        if job.selection.count(self.history, job.cursor, job.until) >= left:
            return
        job.last_only = True
        lasts = job.selection.count(self.history, job.cursor, job.until, last_only=True)
        lost = left - lasts
        job.expected -= lost
        if job.shaper is not None and (frames := self._take_counted(subscriber, job.shaper)):
            subscriber.sink.write(b"".join(frames))
        if lost > 0:
            reason = "slow" if subscriber._was_paused else "evicted"
            self._tell_gap(subscriber, reason, lost, **{"from": job.cursor, "to": job.until})

    def _tell_replayed(self, subscriber: Subscriber, job: _Job) -> None:
        if job.id is not None:
            subscriber.tell("replayed", id=job.id)

    def _tell_gap(self, subscriber: Subscriber, reason: str, lost: int | None, **members: Any) -> None:
        if lost is not None:
            subscriber.lost += lost
            self.counters.lost[reason] += lost
        subscriber.tell("gap", reason=reason, lost=lost, **members)

    # for those who watch

    def counts(self, subscriber: Subscriber) -> tuple[int, int, int]:
        """Delivered, skipped and lost messages of a subscriber, up to its group's last flush."""
        delivered, skipped = subscriber.delivered, subscriber.skipped
        if subscriber.state is State.LIVE and subscriber.group is not None:
            self._settle(subscriber.group)
            delivered += subscriber.group.settled_delivered - subscriber._base_delivered
            skipped += subscriber.group.settled_skipped - subscriber._base_skipped
        return delivered, skipped, subscriber.lost

    def position_of(self, subscriber: Subscriber) -> str | None:
        """The position up to which everything has been written to it; None while a replay is under way."""
        group = subscriber.group
        if subscriber.state is State.LIVE and group is not None:
            self._settle(group)
            return f"{self.history.epoch}:{group.flushed_seq}"
        is_owed = subscriber.state is not State.IDLE or subscriber._jobs
        return None if is_owed else self.history.position

    def subscribers(self) -> Iterator[Subscriber]:
        """Everyone who is connected."""
        return iter(self._subscribers)

    @property
    def subscriber_count(self) -> int:
        """How many are connected."""
        return len(self._subscribers)

    @property
    def group_count(self) -> int:
        """How many different sets of filters and shapes are in use."""
        return len(self._groups)

    @property
    def paused_count(self) -> int:
        """How many sockets take no more for now."""
        return len(self._paused)

    def upstream_changed(self, connected: bool, reason: str | None = None) -> None:
        """Tells everyone that the link to the broker went down or came back."""
        members: dict[str, Any] = {"connected": connected}
        if reason is not None:
            members["reason"] = reason
        for subscriber in list(self._subscribers):
            subscriber.tell("upstream", **members)

"""Who gets messages: subscribers, the groups of those who want the same, and what is counted of both.

Counts are kept per group and not per subscriber, so that a flush costs one write each and nothing more. A group's
counts are *settled*: they are as of `flushed_seq`, the last number that was written to its live members. A subscriber
notes them when it joins, and adds the difference to its own when it leaves.

Invariant: for every subscriber *received = delivered + skipped + lost*. Who is matched, flushed and replayed is for
`hub` and `replays`.

It is long because a subscriber, its group and its jobs count the same messages, and know each other.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from gateway.core.distribution import Distribution
from gateway.core.filters import NO_FILTERS, FilterSet
from gateway.core.jobs import Job
from gateway.core.memory import MemoryBudget
from gateway.core.protocol import GAP_REASONS, CloseCode
from gateway.core.readings import Readings
from gateway.core.selection import Promise
from gateway.core.shaper import Shaper
from gateway.core.shapes import Shape

__all__ = ["Group", "HubCounters", "Payer", "Sink", "State", "Subscriber", "Timer"]


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


class Payer(Protocol):
    """Who pays for the processor time that a subscriber's wishes take."""

    @property
    def key(self) -> str | None:
        """What counts as its address."""

    def spend(self, processor: float) -> None:
        """Counts what was used, in seconds."""

    def wait(self) -> float:
        """Seconds until more may be used; 0 for now."""


class State(enum.Enum):
    """Where a subscriber gets its messages from."""

    IDLE = "idle"
    """It has no filters."""
    LIVE = "live"
    """Every flush of its group."""
    BEHIND = "behind"
    """History, from its own position."""
    CLOSED = "closed"


class Subscriber:
    """One browser, event stream or script.

    Attributes:
        sink: where its bytes go.
        shape: what it wants of its messages.
        filters: its topic filters.
        state: where its messages come from now.
        position: number up to which every message is delivered, skipped, lost, or in a replay that is under way.
        is_paused: its socket takes no more for now.
        delivered, skipped, lost: its own counts, without its group's since it joined; `Hub.counts` adds those.
        label: what it is called in logs.
        owner: whose it is, as its route says; nothing here looks at it.
        payer: who pays for its shape and its replays; None: nobody.
    """

    __slots__ = (
        "_tell",
        "base_delivered",
        "base_skipped",
        "delivered",
        "filters",
        "group",
        "has_turn",
        "is_paused",
        "jobs",
        "label",
        "lost",
        "mark",
        "on_live",
        "owner",
        "payer",
        "position",
        "progress",
        "promises",
        "shape",
        "shown",
        "sink",
        "skipped",
        "slow_count",
        "state",
        "was_paused",
    )

    def __init__(self, sink: Sink, shape: Shape, tell: Callable[[dict[str, Any]], None] | None, label: str) -> None:
        self.sink = sink
        self.shape = shape
        self.filters = NO_FILTERS
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
        self.payer: Payer | None = None
        self._tell = tell
        self.on_live: Callable[[int], None] | None = None
        self.promises: tuple[Promise, ...] = ()  # what its filters were promised
        self.jobs: deque[Job] | None = None
        self.shown: Shaper | None = None  # what its replays have shown, until it is live
        self.has_turn = False
        self.was_paused = False  # since it was live
        # the group's count of matched messages at `position`, and its other counts when this one became live
        self.mark = 0
        self.base_delivered = 0
        self.base_skipped = 0

    def let_go(self) -> None:
        """It is gone: it holds on to nobody who may hold it."""
        self.jobs = self.shown = None
        self._tell = self.on_live = None

    def tell(self, event: str, **members: Any) -> None:
        """Sends an event in band, if this subscriber gets events."""
        if self._tell is not None and self.state is not State.CLOSED:
            self._tell({"event": event, **members})

    def tell_gap(self, reason: str, lost: int | None, counters: HubCounters, **members: Any) -> None:
        """Counts and tells the messages that it will not get and why; `lost` is None where nobody knows the number."""
        counters.gaps[reason] += 1
        if lost is not None:
            self.lost += lost
            counters.lost[reason] += lost
        self.tell("gap", reason=reason, lost=lost, **members)


class Group:
    """The subscribers with the same filters and shape: their messages are matched, shaped and encoded once.

    Attributes:
        filters, shape: what they have in common.
        members: all of them; those behind do not get its flushes.
        flushed_seq: everything that matched up to this number has been written to the live ones.
        put_off: messages that matched and that its shaper has yet to be given, from history.
        cursor: number up to which its shaper was given everything, while some are put off.
        is_in_line: it waits for its turn to be given them.
        is_onlooker: it has no members: somebody inside the gateway looks at what matches.
        unwritten, unwritten_data: live members to whom a flush has yet to write, and what. By the counts they have it.
        cost: seconds of processor time for which nobody was charged yet.
        owes: all its members owed when they were charged last.
        phase: a number by which groups differ, for those who take samples.
    """

    __slots__ = (
        "_frames",
        "_matched",
        "_settled_delivered",
        "_settled_skipped",
        "cost",
        "cursor",
        "filters",
        "flushed_at",
        "flushed_seq",
        "is_in_line",
        "is_onlooker",
        "is_queued",
        "members",
        "next_tick",
        "owes",
        "phase",
        "put_off",
        "settled_matched",
        "shape",
        "shaper",
        "ticking",
        "unwritten",
        "unwritten_data",
        "waiting",
        "writers",
    )

    def __init__(
        self,
        filters: FilterSet,
        shape: Shape,
        epoch: str,
        budget: MemoryBudget,
        counters: HubCounters,
        wall_clock_ms: Callable[[], int],
        readings: Readings,
    ) -> None:
        self.filters = filters
        self.shape = shape
        self.members: dict[Subscriber, None] = {}
        self.writers: dict[Subscriber, Callable[[bytes], None]] = {}
        self.waiting: dict[Subscriber, None] = {}
        self.unwritten: dict[Subscriber, Callable[[bytes], None]] = {}
        self.unwritten_data = b""
        self.shaper = (
            None if shape.is_plain else Shaper(shape, epoch, budget, counters.count_too_large, wall_clock_ms, readings)
        )
        self.put_off = 0
        self.cursor = 0
        self.is_in_line = False
        self.is_onlooker = False
        self.cost = 0.0
        self.owes = False
        self.phase = 0
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
        """Messages that matched since the group was made."""
        return self._matched + len(self._frames) if self.shaper is None else self.shaper.offered + self.put_off

    @property
    def has_pending(self) -> bool:
        """Whether something that matched has not been written yet."""
        return bool(self._frames) if self.shaper is None else bool(self.put_off) or self.shaper.is_waiting

    def note(self, frame: bytes) -> None:
        """Takes the frame of a message that matches a group without a shape; it goes out with the next flush."""
        self._frames.append(frame)

    def take(self) -> list[bytes]:
        """What is to be written now."""
        if self.shaper is not None:
            return self.shaper.take()
        frames = self._frames
        self._frames = []
        self._matched += len(frames)
        return frames

    def settle(self, seq: int) -> None:
        """Notes that nothing is pending up to `seq`, or to what its shaper was given: the counts of now are settled."""
        self.flushed_seq = self.cursor if self.put_off else seq
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

    def settle_if_quiet(self, seq: int, counters: HubCounters) -> None:
        """Brings the settled counts up to `seq` where nothing is pending for live members."""
        if not self.has_pending:
            skipped = self._settled_skipped
            self.settle(seq)
            counters.skipped += (self._settled_skipped - skipped) * len(self.writers)
        elif not self.writers and not self.waiting:
            self.take()  # nobody waits for it: whoever joins reads it from history
            if self.shaper is not None:
                self.shaper.pass_over(self.put_off)
                self.put_off = 0
            self.settle(seq)

    @property
    def is_of_one(self) -> bool:
        """Whether it has a single member."""
        return len(self.members) == 1

    @property
    def payer_key(self) -> str | None:
        """What counts as the address of those who pay for it: that of the member who was there first."""
        payer = next((member.payer for member in self.members), None)
        return None if payer is None else payer.key

    def share_out(self) -> None:
        """Charges its members for what it has cost, in equal parts."""
        share, self.cost = self.cost / max(len(self.members), 1), 0.0
        for member in self.members:
            if member.payer is not None:
                member.payer.spend(share)
        self.owes = self.wait() > 0

    def charge_one(self, member: Subscriber) -> None:
        """Charges a member that leaves for its part."""
        if self.cost and member.payer is not None:
            share = self.cost / len(self.members)
            member.payer.spend(share)
            self.cost -= share

    def wait(self) -> float:
        """Seconds until the first of its members may use more; 0 for now."""
        return min((0.0 if member.payer is None else member.payer.wait() for member in self.members), default=0.0)

    def join(self, subscriber: Subscriber) -> None:
        """Makes a member live: from now on it gets the flushes."""
        self.writers[subscriber] = subscriber.sink.write
        subscriber.state = State.LIVE
        subscriber.base_delivered = self._settled_delivered
        subscriber.base_skipped = self._settled_skipped
        subscriber.jobs = subscriber.shown = None
        subscriber.was_paused = False
        if subscriber.on_live is not None:
            subscriber.on_live(subscriber.position)

    def leave(self, subscriber: Subscriber) -> None:
        """Takes a live member off the flushes; from `flushed_seq` on it reads history. The counts must be settled."""
        del self.writers[subscriber]
        subscriber.state = State.BEHIND
        subscriber.position = self.flushed_seq
        subscriber.mark = self.settled_matched
        subscriber.delivered += self._settled_delivered - subscriber.base_delivered
        subscriber.skipped += self._settled_skipped - subscriber.base_skipped


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
        "gaps",
        "lost",
        "received",
        "replayed",
        "shapes_shed",
        "skipped",
        "slow",
        "too_large_for_where",
    )

    def __init__(self) -> None:
        self.received = 0
        """Messages published to the hub that were new arrivals."""
        self.delivered = 0
        """Messages written, summed over subscribers."""
        self.skipped = 0
        """Messages conflated or filtered away, summed over subscribers."""
        self.lost: dict[str, int] = dict.fromkeys(GAP_REASONS, 0)
        """Messages told as lost, by reason, where their number is known; summed over subscribers."""
        self.gaps: dict[str, int] = dict.fromkeys(GAP_REASONS, 0)
        """Gaps, by reason, those of which nobody knows the number of messages among them; summed over subscribers."""
        self.too_large_for_where = 0
        """Messages of `skipped` that were too large to be compared with a `where`, once for each group."""
        self.replayed = 0
        """Messages of `delivered` that came from history."""
        self.slow = 0
        """How often a subscriber left the live path because its socket was full."""
        self.shapes_shed = 0
        """How often an interval ended early or a deadband started anew, because all shapes held too much."""
        self.closed_slow = 0
        """Subscribers closed because they made no progress."""
        self.flushes = 0
        self.batches = 0
        """Writes to sinks by flushes."""
        self.bytes_written = 0
        self.flush_seconds = 0.0
        self.delays = Distribution()
        """Seconds from the first message of a flush to its end, asked-for intervals not included."""

    def count_too_large(self) -> None:
        """One more message was too large for a `where`."""
        self.too_large_for_where += 1

"""What has arrived at the leader and is on its way into the stream, and what waits until it is there.

Invariant: one append is under way at a time; until its answer is known it is asked for again with the same bytes. Only
what was appended is handed to the log and acknowledged. Who asks the server is `member`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from zlib import crc32

from gateway.cluster.entries import FORM, Entry, Id, Row, encode, flags_of
from gateway.core.history import History
from gateway.core.messages import Properties

__all__ = ["Leading"]

ENTRY_ROWS = 500
"""An entry has about so many messages at most: nodes take one in some milliseconds."""

AHEAD_SECONDS = 0.001
"""So long before an append what the broker has is read: one more packet may have to come from it."""

ROW_BYTES = 300
"""What a message takes besides its payload while it waits for the server."""


class Packet(enum.IntEnum):
    """First bytes of packets that acknowledge (MQTT 5 §2.1.2)."""

    PUBACK = 0x40
    PUBREC = 0x50
    PUBCOMP = 0x70


class _Pending:
    """What an entry will be made of."""

    __slots__ = ("begins_session", "calls", "completed", "published", "received", "released", "rows", "size", "time")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.time = 0
        self.size = 0
        self.published: list[bytes] = []
        self.received: list[bytes] = []
        self.completed: list[bytes] = []
        self.released: list[str] = []
        self.begins_session = False
        self.calls: list[Callable[[], None]] = []

    @property
    def is_worth_an_entry(self) -> bool:
        """Whether there is anything that others have to know."""
        named = self.published or self.received or self.completed
        return bool(self.rows or named or self.released or self.begins_session)


class Leading:
    """The leader's part of a node, for one time of leading.

    Attributes:
        token: what it leads with.
        since: when it began, milliseconds since 1970.
        tail: the entry that was appended last.
        waiting_bytes: memory of what is not in the stream yet.
        gather: seconds between the last append and the next one, if there is enough for it.
        gathers_until: when that is, by the node's clock.
        is_gathering: whether that is waited for, so that what arrives wakes nobody.
        ends_at: when its lease ends unless it is renewed, by the node's clock.
        appended_at: when something was appended last, milliseconds since 1970; 0 before the first.
        as_published: whether every message says if it is retained; see `History.retained_as_published`.
    """

    def __init__(
        self,
        history: History,
        *,
        epoch: str,
        token: str,
        tail: Id,
        since: int,
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        """Begins behind `tail`, which this node has read; `wake` is called when there is something to append."""
        self.token = token
        self.since = since
        self.tail = tail
        self.waiting_bytes = 0
        self.gather = 0.0
        self.gathers_until = 0.0
        self.is_gathering = False
        self.ends_at = 0.0
        self.appended_at = 0
        self.as_published = history.retained_as_published
        self._history = history
        self._epoch = epoch
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._wake = wake
        self._next = _Pending()
        self._full: deque[_Pending] = deque()
        self._under_way: tuple[_Pending, Entry, Id, bytes] | None = None
        self._unidentified = False  # messages at QoS 1 or 2 whose packet identifiers have yet to be told
        self._retained: dict[str, tuple[int | None, int, Row]] = {}  # hash, `repeat` and message of what is on its way

    # what arrives

    def take(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retained: bool = False,
        properties: Properties | None = None,
        repeat: int = 0,
    ) -> None:
        """Takes an arrival; the arguments are those of `History.append`."""
        if retained and repeat and self._is_repetition(topic, payload, repeat):
            return
        pending = self._next
        rows = pending.rows
        if not rows:
            pending.time = self._wall_clock_ms()
            row = Row(topic, payload, 0, flags_of(qos, retained), properties)
            if not self._full and self._under_way is None and not self.is_gathering:
                self._wake()
        else:
            if len(rows) >= ENTRY_ROWS and not self._unidentified:
                self._close()
                self.take(topic, payload, qos, retained, properties, repeat)
                return
            time = self._wall_clock_ms() - pending.time
            row = Row(topic, payload, time, flags_of(qos, retained), properties)
        if qos:
            self._unidentified = True
        rows.append(row)
        size = len(payload) + ROW_BYTES
        pending.size += size
        self.waiting_bytes += size
        if retained or not self.as_published:
            before = self._retained.get(topic)
            if before is not None:
                number = repeat if retained and repeat and not self.as_published else before[1]
            else:
                known = self._history.topic(topic)
                number = 0 if known is None else known.repeat
            self._retained[topic] = crc32(payload), number, row

    def rest_seconds(self, *, has_all: bool = False) -> float:
        """See `Keeper.rest_seconds`: until shortly before the next append, or before the one after it."""
        left = self.gathers_until - self._clock() - AHEAD_SECONDS
        if left > 0:
            return left
        if has_all:
            self.gathers_until = 0.0
            self._wake()
        return max(left + self.gather, 0)

    def _is_repetition(self, topic: str, payload: bytes, repeat: int) -> bool:
        """As `History.is_repetition`, with what is on its way taken for what history has."""
        before = self._retained.get(topic)
        if before is None:
            return self._history.is_repetition(topic, payload, repeat)
        known, number, row = before
        if number == repeat or known != crc32(payload):
            return False
        self._retained[topic] = known, repeat, row
        self._history.repeated += 1
        return True

    def identify(self, packets: Sequence[bytes]) -> None:
        """Takes the packets that will acknowledge what has been taken: PUBACK, PUBREC, PUBCOMP."""
        pending = self._next
        for packet in packets:
            match packet[0]:
                case Packet.PUBACK:
                    pending.published.append(packet[2:4])
                case Packet.PUBREC:
                    pending.received.append(packet[2:4])
                case Packet.PUBCOMP:
                    pending.completed.append(packet[2:4])
        self._unidentified = False
        if len(pending.rows) >= ENTRY_ROWS:
            self._close()

    def end_exchanges(self, identifiers: Sequence[bytes]) -> None:
        """See `Keeper.end_exchanges`: a successor must not take what comes under these identifiers for known."""
        self._next.completed += identifiers
        self._wake()

    def begin_session(self) -> None:
        """See `Keeper.begin_session`: what has been identified so far is nothing to a successor."""
        if self._next.is_worth_an_entry:
            self._close()
        self._next.begins_session = True
        self._wake()

    def release(self, topics: list[str]) -> None:
        """The broker keeps nothing of these topics any more, but for what is on its way."""
        released = [topic for topic in topics if topic not in self._retained]
        if released:
            self._next.released += released
            self._wake()

    def when_settled(self, call: Callable[[], None]) -> None:
        """Calls a function when what has arrived so far is in the stream; never, if this leadership ends before."""
        last = self._next if self._next.is_worth_an_entry or not self._full else self._full[-1]
        if not last.is_worth_an_entry:
            if self._under_way is None:
                call()
                return
            last = self._under_way[0]
        last.calls.append(call)
        if not last.rows:  # messages woke whoever appends as they came
            self._wake()

    def hurry(self) -> None:
        """See `Keeper.hurry`: what has arrived is appended as soon as may be in any case."""

    def _close(self) -> None:
        self._full.append(self._next)
        self._next = _Pending()

    # what is appended

    @property
    def has_more(self) -> bool:
        """Whether there is something to append."""
        return self._under_way is not None or bool(self._full) or self._next.is_worth_an_entry

    def next(self) -> tuple[Id, bytes] | None:
        """The next append, or the one under way again: its id and bytes; None if there is nothing."""
        if self._under_way is None:
            if not self.has_more:
                return None
            if not self._full:
                self._close()
            self._begin(self._full.popleft())
        assert self._under_way is not None  # noqa: S101 - just begun
        return self._under_way[2], self._under_way[3]

    def _begin(self, pending: _Pending, is_end: bool = False) -> None:
        entry = Entry(
            FORM,
            self._epoch,
            self.token,
            self.tail.seq + 1,
            pending.time,
            pending.rows,
            b"".join(pending.published),
            b"".join(pending.received),
            b"".join(pending.completed),
            self.as_published,
            pending.released,
            is_end,
            pending.begins_session,
        )
        at = Id(entry.last) if pending.rows else self.tail.following
        self._under_way = pending, entry, at, encode(entry)

    def nothing(self, *, is_end: bool = False) -> tuple[Id, bytes]:
        """An append without anything, where nothing else is to be appended; `is_end`: the lease is free behind it."""
        if self._under_way is None:
            self._begin(_Pending(), is_end)
        assert self._under_way is not None  # noqa: S101 - just begun
        return self._under_way[2], self._under_way[3]

    def appended(self) -> tuple[Id, Entry]:
        """What was under way is in the stream; when the log has it, `settle` is to be called."""
        assert self._under_way is not None  # noqa: S101 - it was asked for
        _, entry, at, _ = self._under_way
        self.tail = at
        self.appended_at = self._wall_clock_ms()
        return at, entry

    def settle(self) -> None:
        """The log has what was appended: who waits for that is called."""
        assert self._under_way is not None  # noqa: S101 - it was appended
        pending = self._under_way[0]
        self._under_way = None
        self.waiting_bytes -= pending.size
        if self._retained:
            for row in pending.rows:
                waiting = self._retained.get(row.topic)
                if waiting is not None and waiting[2] is row:
                    self._history.note_repeat(row.topic, waiting[1])
                    del self._retained[row.topic]
        for call in pending.calls:
            call()

    @property
    def ends(self) -> tuple[Id, ...]:
        """Ids one of which the stream must end with."""
        return (self.tail,) if self._under_way is None else (self.tail, self._under_way[2])

"""Where a node is in the stream: what it has read, and whether what comes next fits.

Invariant: entries are taken in a row: each begins behind the one before, in one epoch. What does not fit is refused by
`MisfitError`, and the log of this node has to begin anew.
"""

from __future__ import annotations

import enum
from collections import deque

from gateway.cluster.entries import NOTHING, Entry, Id
from gateway.cluster.views import EPOCHS, Meta, View

__all__ = ["Extent", "Follower", "Inherited", "MisfitError", "Standing"]

INHERITED_IDENTIFIERS = 20_000
"""Packet identifiers of the newest messages at QoS 1 that a successor takes for known. A broker that counts them up
(Mosquitto) uses one again after 65,535 others, at the earliest."""


CHUNK_BYTES = 64 * 1024
"""Entries are dropped from the stream by so many bytes at a time."""

ENTRY_BYTES = 60
"""About what an entry takes in the stream beside its bytes."""


class MisfitError(Exception):
    """An entry that doesn't follow what was read: the log of this node has to begin anew."""


class Standing(enum.Enum):
    """How what was read stands to the stream."""

    FITS = "fits"
    ANEW = "anew"
    """It is of another epoch, or too old: the log of this node begins anew."""
    WAIT = "wait"
    """The stream lacks what was read; whoever leads next begins another epoch."""


class Inherited:
    """Packet identifiers that the broker may send again to a successor.

    Attributes:
        exchanges: those at QoS 2 whose message is in the stream and whose PUBREL has not come.
    """

    def __init__(self) -> None:
        """Begins with none."""
        self.exchanges: set[bytes] = set()
        self._published: deque[bytes] = deque()  # those of one entry in one string
        self._count = 0

    def add(self, entry: Entry) -> None:
        """Takes what an entry tells."""
        if entry.begins_session:
            self._published.clear()
            self._count = 0
            self.exchanges.clear()
        if entry.published:
            self._published.append(entry.published)
            self._count += len(entry.published) // 2
            while self._count - len(self._published[0]) // 2 >= INHERITED_IDENTIFIERS:
                self._count -= len(self._published.popleft()) // 2
        if entry.completed or entry.received:
            self.exchanges.difference_update(_apart(entry.completed))
            self.exchanges.update(_apart(entry.received))

    @property
    def published(self) -> list[list[bytes]]:
        """Those at QoS 1, as they came in one entry each, oldest first."""
        return [_apart(identifiers) for identifiers in self._published]


def _apart(identifiers: bytes) -> list[bytes]:
    return [identifiers[at : at + 2] for at in range(0, len(identifiers), 2)]


class Extent:
    """How long the stream is, as far as it was read, and what of it is to go.

    Attributes:
        bytes: what its entries take, about.
    """

    def __init__(self, max_bytes: int, max_age_ms: int) -> None:
        """Empty; at least the newest chunk stays, however large."""
        self.bytes = 0
        self._max_bytes = max_bytes
        self._max_age_ms = max_age_ms
        self._chunks: deque[tuple[Id, int, int]] = deque()  # first entry, bytes, time of the newest entry

    def add(self, at: Id, size: int, time: int) -> None:
        """Takes the next entry, of so many bytes."""
        size += ENTRY_BYTES
        self.bytes += size
        if self._chunks and self._chunks[-1][1] < CHUNK_BYTES:
            first, before, latest = self._chunks[-1]
            self._chunks[-1] = first, before + size, max(latest, time)
        else:
            self._chunks.append((at, size, time))

    def trim(self, now_ms: int) -> Id | None:
        """The oldest entry that stays, once each time that it is another one; None while all stay."""
        chunks, gone = self._chunks, False
        while len(chunks) > 1 and (self.bytes > self._max_bytes or chunks[0][2] < now_ms - self._max_age_ms):
            self.bytes -= chunks.popleft()[1]
            gone = True
        return chunks[0][0] if gone else None

    def clear(self) -> None:
        """Nothing has been read."""
        self._chunks.clear()
        self.bytes = 0


class Follower:
    """What one node has read.

    Attributes:
        epoch: of what it reads; empty before the first.
        base: the entry at which that began.
        before: epochs before it, and the number up to which it has what each had.
        position: the entry that it took last.
        cursor: the entry behind which it reads on.
        token: of who appended that.
        inherited: what the broker may send again.
        extent: how long the stream is.
    """

    def __init__(self, extent: Extent) -> None:
        """Has read nothing."""
        self.extent = extent
        self.epoch = ""
        self.before: dict[str, int] = {}
        self.base = self.position = self.cursor = NOTHING
        self.token = ""
        self.inherited = Inherited()

    @property
    def is_at_beginning(self) -> bool:
        """Whether nothing has been read of this epoch."""
        return self.position == NOTHING

    def begin(self, meta: Meta) -> None:
        """Forgets what was read: reads this epoch from the oldest entry on."""
        self.epoch, self.base, self.before = meta.epoch, meta.base, dict(meta.before)
        self.begin_behind(NOTHING)

    def begin_behind(self, at: Id) -> None:
        """Forgets what was read of this epoch: the log of this node begins behind an entry, which is none of it."""
        self.position, self.cursor, self.token = NOTHING, at, ""
        self.inherited = Inherited()
        self.extent.clear()

    def stands(self, view: View, found: Entry | None) -> Standing:
        """How what was read stands to the stream.

        Args:
            view: of the stream.
            found: the entry that is there at `position`; None if there is none.
        """
        if view.meta is None:
            return Standing.WAIT
        if view.meta.epoch != self.epoch:
            return Standing.ANEW
        if self.is_at_beginning:
            return Standing.FITS
        if found is not None:
            return Standing.FITS if found.token == self.token else Standing.WAIT
        is_trimmed = view.first is not None and self.position < view.first
        return Standing.ANEW if is_trimmed else Standing.WAIT

    def _is_before(self, at: Id, entry: Entry) -> bool:
        """Whether an entry of another epoch belongs to this one, as far as that is known."""
        if not self.before or len(self.before) >= EPOCHS:
            return True
        return at.seq <= self.before.get(entry.epoch, -1)

    def take(self, at: Id, entry: Entry, size: int) -> None:
        """Takes the next entry, of so many bytes.

        Raises:
            MisfitError: it isn't the next one.
        """
        if entry.epoch != self.epoch and (at >= self.base or not self._is_before(at, entry)):
            raise MisfitError(f"the entry {at} is of the epoch {entry.epoch}, not {self.epoch}")
        if entry.last != at.seq:
            raise MisfitError(f"the entry {at} ends with number {entry.last}")
        before = self.position
        if (entry.first != before.seq + 1 or at <= before) and before != NOTHING:
            raise MisfitError(f"the entry {at} begins with number {entry.first}, read was up to {before}")
        self.position = self.cursor = at
        self.token = entry.token
        self.inherited.add(entry)
        self.extent.add(at, size, entry.time)

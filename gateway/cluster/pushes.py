"""Entries that the server pushes as they are appended, and whether they are all that comes behind what was read.

A node that has read the stream to its end is told each entry behind it, and needs not ask for them one by one.

Invariant: what `read` gives follows what was read, entry by entry; where a push is missing, or was never sent, it gives
None, and the stream is to be asked. It knows no socket: that pushes and answers come in the order in which the server
did what they are about is the connection's.
"""

from __future__ import annotations

from gateway.cluster.entries import NOTHING, Id

__all__ = ["PUSHED_ENTRIES", "Pushes"]

PUSHED_ENTRIES = 64
"""Entries that wait at most, until something else has been answered: with more the stream is asked."""


class Pushes:
    """What was pushed on one connection.

    Each push is the id of the entry before, that of the entry, and its bytes, with spaces between.

    Attributes:
        is_near: whether the stream was read to its end, so that what comes behind that may be pushed.
    """

    def __init__(self) -> None:
        """Nothing has been read."""
        self.is_near = False
        self._at: Id | None = None  # behind this entry all are pushed; None: not that anybody knows
        self._end = b""  # id of the last of them
        self._entries: list[tuple[Id, bytes]] = []

    def stop(self) -> None:
        """Nothing is known of what is pushed from now on: the stream is to be read to its end first."""
        self.is_near = False
        self._at = None
        self._entries = []

    def begin(self, at: Id) -> None:
        """The stream ended with this entry, and whatever comes behind it will be pushed."""
        self.is_near = True
        self._at = at
        self._end = str(at).encode()
        self._entries = []

    def take(self, pushed: bytes) -> None:
        """Takes a push; other bytes than that are none."""
        if self._at is None:
            return
        parts = pushed.split(b" ", 2)
        if len(parts) < 3 or parts[0] != self._end or len(self._entries) >= PUSHED_ENTRIES:
            self.stop()
            return
        try:
            at = Id.parse(parts[1])
        except ValueError:
            self.stop()
            return
        self._end = parts[1]
        self._entries.append((at, parts[2]))

    def check(self, tail: Id | None) -> None:
        """The server says with what the stream ends: all up to there must have been pushed."""
        if self._at is not None and str(tail or NOTHING).encode() != self._end:
            self.stop()

    def read(self, after: Id, count: int) -> list[tuple[Id, bytes]] | None:
        """The entries behind one, so many at most; none if there are none yet; None: the stream is to be asked."""
        if self._at is None:
            return None
        if after != self._at:
            self.stop()
            return None
        found, self._entries = self._entries[:count], self._entries[count:]
        if found:
            self._at = found[-1][0]
        return found

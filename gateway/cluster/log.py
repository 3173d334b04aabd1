"""The log of one node, written from the stream.

Invariant: what subscribers of this node get is what the stream has, number by number.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.cluster.entries import QOS, RETAINED, Entry
from gateway.core.history import History
from gateway.core.hub import Hub

__all__ = ["HubLog"]


class HubLog:
    """A hub and its history, as `member.SharedLog` wants them."""

    def __init__(self, hub: Hub) -> None:
        """Nothing has been read."""
        self._hub = hub

    @property
    def history(self) -> History:
        """What has been read."""
        return self._hub.history

    def begin(self, epoch: str, seq: int, time: int, before: Mapping[str, int]) -> None:
        """See `member.SharedLog.begin`; whoever is connected is sent away, and comes back with its position."""
        self._hub.begin_anew()
        self.history.begin_anew(epoch, seq, time, before)
        self.history.is_filling = True

    def fill(self, entry: Entry) -> None:
        """See `member.SharedLog.fill`."""
        history, start = self.history, entry.time
        known = history.seq + 1 - entry.first
        if known and known >= len(entry.rows):
            return  # a file had it already
        self._prepare(entry, is_known=known > 0)
        for row in entry.rows[known:]:
            history.append(row.topic, row.payload, start + row.time, row.qos, row.retained, row.properties)

    def complete(self) -> None:
        """See `member.SharedLog.complete`; whoever came while it was filled comes back."""
        self.history.is_filling = False
        self._hub.begin_anew()

    def take(self, entry: Entry) -> None:
        """See `member.SharedLog.take`."""
        publish, start = self._hub.publish, entry.time
        self._prepare(entry)
        for row in entry.rows:
            flags = row.flags
            publish(row.topic, row.payload, flags & QOS, flags & RETAINED != 0, row.properties, 0, start + row.time)

    def _prepare(self, entry: Entry, *, is_known: bool = False) -> None:
        self.history.retained_as_published = entry.as_published
        if entry.released and not is_known:
            self.history.release(entry.released)

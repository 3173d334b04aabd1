"""Acknowledgements that wait until their messages are kept, where somebody keeps them.

Invariant: a PUBACK or PUBREC is written after all messages that came before it are settled, in the order of their
messages (MQTT 5 §4.6), to the connection that brought them. If that has ended it is not written, and if it ends then,
what was written may not have arrived: the broker sends the messages again, and they are known by their packet
identifiers. When something is settled is for who keeps it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

__all__ = ["PINGREQ", "RECEIVE_MAXIMUM", "Acknowledgements", "Keeper", "Unacknowledged"]

logger = logging.getLogger(__name__)

RECEIVE_MAXIMUM = 65_535
"""How many messages may await acknowledgement (MQTT 5 §3.1.2.11.3): at 2,000 a second those of half a minute. Mosquitto
takes it in place of its 20; with 20, and a disk that is written once a second, 20 messages a second would come."""

LEAST_WINDOW = 10
SILENT_SECONDS = 0.05
"""A broker that sends nothing for so long while at least 10 messages await acknowledgement has perhaps no more to send
than it may: from then on what was appended is written as soon as that many wait."""

HURRY_SECONDS = 0.05
"""The least time between two such writes: each costs some pages of the disk."""

PINGREQ = b"\xc0\x00"
"""A broker reads in order: its answer says that all acknowledgements which were written before have arrived."""

PING_SECONDS = 0.05
"""Time between the first acknowledgement that isn't known to have arrived and a PINGREQ."""

WRAP = 1_000
"""Identifiers that rise begin again at 1 after 65,535; so many of the last and of the first may be passed over."""

_PUBACK = 0x40
_PUBCOMP = 0x70


class Keeper(Protocol):
    """Who keeps what arrives."""

    def when_settled(self, call: Callable[[], None]) -> None:
        """Calls a function once all that has arrived so far is kept, or nobody should wait for that any more."""

    def hurry(self) -> None:
        """Somebody waits: what has arrived is to be kept as soon as may be."""

    def rest_seconds(self, *, has_all: bool = False) -> float:
        """How long nothing need be read: what comes meanwhile would have to wait anyway. 0: it is awaited.

        `has_all`: all that the broker has at present has been taken, and need not wait for more.
        """

    def identify(self, packets: list[bytes]) -> None:
        """These packets will acknowledge what has arrived since the last call."""

    def end_exchanges(self, identifiers: list[bytes]) -> None:
        """The broker knows of these exchanges at QoS 2 no more, although no PUBREL has come."""

    def begin_session(self) -> None:
        """The broker has begun another session: nothing that was identified before is sent again."""


class Unacknowledged:
    """Packet identifiers at QoS 1 that the broker may send again, as of a session (MQTT 5 §4.1).

    Their PUBACK waits, or it is not known whether it has arrived. The broker gives an identifier to another message
    once it has the PUBACK: so in the second case a message that is sent again is only taken for the same one where
    identifiers rise, as Mosquitto's do, and an old one comes back after 65,535 others at the earliest.
    """

    def __init__(self) -> None:
        """Begins with none."""
        self._batches: dict[bytes, int] = {}  # the number of the batch that it came in
        self._batch = 0
        self._written = 0  # the last batch whose PUBACKs were written
        self._rises = True

    def __contains__(self, identifier: object) -> bool:
        """Whether a message that is sent again under it has been taken."""
        batch = self._batches.get(identifier)  # type: ignore[call-overload]
        return batch is not None and (batch > self._written or self._rises)

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, identifiers: list[bytes], before: bytes | None) -> int:
        """Takes the identifiers of a batch; `before` is the last one that came on this connection. Its number."""
        self._batch += 1
        self._batches.update(dict.fromkeys(identifiers, self._batch))
        if before is not None and self._rises and identifiers and identifiers[0] <= before:
            low, high = int.from_bytes(identifiers[0], "big"), int.from_bytes(before, "big")
            self._rises = high > 65_535 - WRAP and low < WRAP
        return self._batch

    def written(self, batch: int) -> None:
        """The PUBACKs of this batch, and of those before it, have been written."""
        self._written = batch

    def arrived(self, batch: int, identifiers: list[bytes]) -> None:
        """The broker has the PUBACKs of a batch: under these identifiers other messages may come."""
        batches = self._batches
        for identifier in identifiers:
            if batches.get(identifier) == batch:
                del batches[identifier]

    @property
    def last_batch(self) -> int:
        """The number of the last batch that was added."""
        return self._batch

    def forget(self, last_batch: int) -> None:
        """The broker has sent all again that it was to send of what came up to this batch."""
        self._batches = {identifier: batch for identifier, batch in self._batches.items() if batch > last_batch}

    def clear(self) -> None:
        """Another session begins."""
        self._batches.clear()
        self._rises = True


class Acknowledgements:
    """Those of one connection.

    Attributes:
        window: how many messages the broker seems to let wait; None: as many as there are.
    """

    def __init__(
        self,
        keeper: Keeper,
        unacknowledged: Unacknowledged,
        *,
        write: Callable[[bytes], None],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        """None waits.

        Args:
            keeper: who keeps what arrives.
            unacknowledged: packet identifiers at QoS 1 that the broker may send again; they belong to the session.
            write: writes to the connection; who writes a PINGREQ otherwise says so (`pinged`).
            clock: monotonic seconds.
            call_later: runs a function after a number of seconds.
        """
        self.window: int | None = None
        self._keeper = keeper
        self._unacknowledged = unacknowledged
        self._write = write
        self._clock = clock
        self._call_later = call_later
        self._is_closed = False
        self._waiting = 0
        self._arrived_at = 0.0
        self._hurried_at = float("-inf")
        self._hurrying: Any = None
        self._pinging: Any = None
        self._earlier = unacknowledged.last_batch  # of earlier connections; 0 when that is settled
        self._last: bytes | None = None
        self._written: list[tuple[int, list[bytes]]] = []  # batches whose PUBACKs were written after the last PINGREQ
        self._pings: deque[list[tuple[int, list[bytes]]]] = deque()  # the same for each that isn't answered

    def hold(self, packets: list[bytes], sent_again: list[bytes] | None = None) -> None:
        """Takes packets that are to be written when what has arrived by now is settled.

        Args:
            packets: PUBACK, PUBREC and PUBCOMP packets.
            sent_again: identifiers of messages at QoS 1 among them that had been taken. The keeper has these already:
                named once more, they would look like identifiers that don't rise.
        """
        if sent_again:
            known = {b"\x40\x02" + identifier for identifier in sent_again}
            self._keeper.identify([packet for packet in packets if packet not in known])
        else:
            self._keeper.identify(packets)
        # the message of a PUBCOMP was kept before its PUBREC was written
        at_once = [packet for packet in packets if packet[0] == _PUBCOMP]
        if at_once:
            self._write(b"".join(at_once))
            packets = [packet for packet in packets if packet[0] != _PUBCOMP]
            if not packets:
                return
        identifiers = [packet[2:4] for packet in packets if packet[0] == _PUBACK]
        batch = self._unacknowledged.add(identifiers, self._last)
        if identifiers:
            self._last = identifiers[-1]
        self._waiting += len(packets)
        self._arrived_at = self._clock()
        if self.window is not None:
            if self._waiting > self.window:
                self.window = None  # there was none
            elif self._waiting == self.window:
                self._hurry()
        self._keeper.when_settled(partial(self._release, b"".join(packets), len(packets), batch, identifiers))

    def _release(self, packets: bytes, count: int, batch: int, identifiers: list[bytes]) -> None:
        if self._is_closed:
            return
        is_silent = self._clock() - self._arrived_at >= SILENT_SECONDS
        if is_silent and self.window is None and self._waiting >= LEAST_WINDOW:
            self.window = self._waiting
            logger.debug("the broker seems to let %d messages await acknowledgement", self.window)
        self._waiting -= count
        self._unacknowledged.written(batch)
        self._write(packets)
        if identifiers:
            self._written.append((batch, identifiers))
            self._ping_soon()

    def _ping_soon(self) -> None:
        if self._pinging is None and not self._pings:
            self._pinging = self._call_later(PING_SECONDS, self._ping)

    def _ping(self) -> None:
        self._pinging = None
        if self._written and not self._pings:
            self._write(PINGREQ)
            self.pinged()

    def pinged(self) -> None:
        """A PINGREQ has been written."""
        self._pings.append(self._written)
        self._written = []

    def answered(self, ended: list[bytes]) -> None:
        """A PINGRESP has come: what was written before its PINGREQ has arrived.

        Args:
            ended: packet identifiers of exchanges at QoS 2 that the broker was to send again, and has not.
        """
        if ended:
            self._keeper.end_exchanges(ended)
        if self._pings:
            if self._earlier:
                # what is sent again comes first
                self._unacknowledged.forget(self._earlier)
                self._earlier = 0
            for batch, identifiers in self._pings.popleft():
                self._unacknowledged.arrived(batch, identifiers)
            if self._written:
                self._ping_soon()

    def _hurry(self) -> None:
        """Has what has arrived kept soon."""
        if self._hurrying is not None:
            return
        wait = self._hurried_at + HURRY_SECONDS - self._clock()
        if wait > 0:
            self._hurrying = self._call_later(wait, self._hurry_now)
        else:
            self._hurry_now()

    def _hurry_now(self) -> None:
        self._hurrying = None
        if not self._is_closed:
            self._hurried_at = self._clock()
            # after this call: what is being held now is to be among what is kept
            self._call_later(0, self._keeper.hurry)

    def close(self) -> None:
        """The connection is gone: nothing is written any more."""
        self._is_closed = True
        for timer in (self._hurrying, self._pinging):
            if timer is not None:
                timer.cancel()

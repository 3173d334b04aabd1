"""Acknowledgements that wait until their messages are kept, where somebody keeps them.

Invariant: a PUBACK or PUBREC is written after all messages that came before it are settled, in the order of their
messages (MQTT 5 §4.6), to the connection that brought them. If that has ended it is not written: the broker sends the
messages again, and they are known by their packet identifiers. When something is settled is for who keeps it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

__all__ = ["RECEIVE_MAXIMUM", "Acknowledgements", "Keeper"]

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

_PUBACK = 0x40
_PUBCOMP = 0x70


class Keeper(Protocol):
    """Who keeps what arrives."""

    def when_settled(self, call: Callable[[], None]) -> None:
        """Calls a function once all that has arrived so far is kept, or nobody should wait for that any more."""

    def hurry(self) -> None:
        """Somebody waits: what has arrived is to be kept as soon as may be."""


class Acknowledgements:
    """Those of one connection.

    Attributes:
        window: how many messages the broker seems to let wait; None: as many as there are.
    """

    def __init__(
        self,
        keeper: Keeper,
        unacknowledged: set[bytes],
        *,
        write: Callable[[bytes], None],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        """None waits.

        Args:
            keeper: who keeps what arrives.
            unacknowledged: packet identifiers at QoS 1 that are not acknowledged; they belong to the session.
            write: writes to the connection.
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

    def hold(self, packets: list[bytes]) -> None:
        """Takes packets that are to be written when what has arrived by now is settled."""
        # the message of a PUBCOMP was kept before its PUBREC was written
        at_once = [packet for packet in packets if packet[0] == _PUBCOMP]
        if at_once:
            self._write(b"".join(at_once))
            packets = [packet for packet in packets if packet[0] != _PUBCOMP]
            if not packets:
                return
        identifiers = [packet[2:4] for packet in packets if packet[0] == _PUBACK]
        self._unacknowledged.update(identifiers)
        self._waiting += len(packets)
        self._arrived_at = self._clock()
        if self.window is not None:
            if self._waiting > self.window:
                self.window = None  # there was none
            elif self._waiting == self.window:
                self._hurry()
        self._keeper.when_settled(partial(self._release, b"".join(packets), len(packets), identifiers))

    def _release(self, packets: bytes, count: int, identifiers: list[bytes]) -> None:
        if self._is_closed:
            return
        is_silent = self._clock() - self._arrived_at >= SILENT_SECONDS
        if is_silent and self.window is None and self._waiting >= LEAST_WINDOW:
            self.window = self._waiting
            logger.debug("the broker seems to let %d messages await acknowledgement", self.window)
        self._waiting -= count
        self._unacknowledged.difference_update(identifiers)
        self._write(packets)

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
        if self._hurrying is not None:
            self._hurrying.cancel()
            self._hurrying = None

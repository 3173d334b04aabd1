"""The end of a token while its connection is open.

Invariant: wall-clock time decides, so a clock that is set only makes the timer look again. What an end means is for its
owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.access.grants import Principal
from gateway.door.guard import Guard

__all__ = ["EXPIRY_WARNING_SECONDS", "Expiry"]


EXPIRY_WARNING_SECONDS = 60.0
"""Time before the end of its token at which a subscriber is warned; at most a quarter of the token's time."""

MAX_TIMER_SECONDS = 86_400.0
"""A timer for longer than this is set in steps: a token may be good for centuries."""


class Expiry:
    """The timer of one connection's token: a warning some time before it ends, and then the end.

    Wall-clock time decides, so a clock that is set or a timer that would be too long only make it look again.
    """

    __slots__ = ("_call_later", "_end", "_guard", "_principal", "_timer", "_warn")

    def __init__(
        self,
        guard: Guard,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        warn: Callable[[float], None],
        end: Callable[[], None],
    ) -> None:
        """`warn` gets the seconds that are left."""
        self._guard = guard
        self._call_later = call_later
        self._warn = warn
        self._end = end
        self._principal: Principal
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, principal: Principal) -> None:
        """Waits for the end of this principal's token from now on."""
        self.cancel()
        self._principal = principal
        left = self._guard.seconds_left(principal)
        if left is not None:
            wait = left - min(EXPIRY_WARNING_SECONDS, left / 4)
            self._timer = self._call_later(min(wait, MAX_TIMER_SECONDS), self._near)

    def cancel(self) -> None:
        """Waits no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _near(self) -> None:
        left = self._guard.seconds_left(self._principal) or 0.0
        if left > EXPIRY_WARNING_SECONDS + 1:
            self.watch(self._principal)
            return
        self._warn(left)
        self._timer = self._call_later(left, self._over)

    def _over(self) -> None:
        if self._guard.seconds_left(self._principal):
            self.watch(self._principal)
        else:
            self._end()

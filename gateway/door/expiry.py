"""The end of a token while its connection is open, whether its time is over or it was called back.

Invariant: wall-clock time decides, so a clock that is set only makes the timer look again. What an end means is for its
owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.access.grants import Principal
from gateway.core.protocol import CloseCode
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

    __slots__ = ("_call_later", "_end", "_guard", "_number", "_principal", "_timer", "_warn")

    def __init__(
        self,
        guard: Guard,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        warn: Callable[[float], None],
        end: Callable[[CloseCode, str], None],
    ) -> None:
        """`warn` gets the seconds that are left, `end` how a WebSocket is closed over it."""
        self._guard = guard
        self._call_later = call_later
        self._warn = warn
        self._end = end
        self._principal: Principal
        self._timer: asyncio.TimerHandle | None = None
        self._number: int | None = None

    def watch(self, principal: Principal) -> None:
        """Waits for the end of this principal's token from now on."""
        self.cancel()
        self._principal = principal
        if not principal.anonymous:
            self._number = self._guard.revocations.watch(principal, self._revoked)
            if self._guard.revocations.covers(principal):  # since it was judged
                self._timer = self._call_later(0, self._revoked)
                return
        left = self._guard.seconds_left(principal)
        if left is not None:
            wait = left - min(EXPIRY_WARNING_SECONDS, left / 4)
            self._timer = self._call_later(min(wait, MAX_TIMER_SECONDS), self._near)

    def cancel(self) -> None:
        """Waits no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._number is not None:
            self._guard.revocations.forget(self._number)
            self._number = None

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
            self._end(CloseCode.TOKEN_EXPIRED, "the token has expired")

    def _revoked(self) -> None:
        self.cancel()
        self._end(CloseCode.UNAUTHORIZED, "the token was called back")

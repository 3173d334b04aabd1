"""A lock for which addresses take turns.

Invariant: whoever waits is passed by no more than one of each other address. What is done under the lock is for those
who hold it.
"""

from __future__ import annotations

import asyncio

from gateway.core.rotation import Rotation
from gateway.door.asker import asker

__all__ = ["FairLock"]


class FairLock:
    """A lock for which addresses take turns."""

    __slots__ = ("_is_held", "_waiting")

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: Rotation[asyncio.Future[None]] = Rotation()

    async def __aenter__(self) -> None:
        """Waits for its turn."""
        if not self._is_held:
            self._is_held = True
            return
        budget = asker()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(None if budget is None else budget.key, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting.size:
            turn = self._waiting.next()
            if not turn.done():
                turn.set_result(None)
                return
        self._is_held = False

"""Whose bytes are looked at next: a little of each connection's, address by address, and the loop between.

Invariant: in one turn of the loop no more than `TURN_SECONDS` and one step go into what clients sent, whatever lies in
their sockets; and an address waits for no more than one step of each other one. What a step is, and who has to wait
because of what it used, is for the protocols and their `access.budget.Budget`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.core.rotation import Rotation

__all__ = ["TURN_SECONDS", "Steps", "Turns"]

TURN_SECONDS = 0.002
"""Processor time for clients' bytes in one turn of the loop."""


class Steps(Protocol):
    """A connection whose bytes are handled in steps."""

    def key(self) -> str | None:
        """What counts as its address."""

    def step(self) -> bool:
        """Handles a little of what has come; whether there is more that can be handled now.

        It raises nothing, and tells `Turns.spend` what it used.
        """


class Turns:
    """Lets connections take turns."""

    def __init__(self) -> None:
        self._waiting: Rotation[Steps] = Rotation()
        self._used = 0.0
        self._is_scheduled = False

    def ask(self, connection: Steps, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """Handles what a connection has, now if nobody waits and this turn has room, else in one of the next turns.

        A connection asks again only after `step` has returned False.
        """
        if not self._is_scheduled:
            self._used = 0.0
            self._is_scheduled = True
            call_soon(lambda: self._next(call_soon))
        while not self._waiting.size and self._used < TURN_SECONDS:
            if not connection.step():
                return
        self._waiting.add(connection.key(), connection)

    def spend(self, seconds: float) -> None:
        """Counts processor time of a step: who measures it for a budget need not measure it again."""
        self._used += seconds

    def _next(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._used = 0.0
        while self._waiting.size and self._used < TURN_SECONDS:
            connection = self._waiting.next()
            if connection.step():
                self._waiting.add(connection.key(), connection)
        self._is_scheduled = self._waiting.size > 0
        if self._is_scheduled:
            call_soon(lambda: self._next(call_soon))

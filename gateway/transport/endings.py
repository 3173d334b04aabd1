"""What is left to do for connections that have ended: a little in each turn of the loop, in the order of their ends.

Invariant: where thousands end together, as behind a proxy that is restarted, no turn gives them more than
`TURN_SECONDS` and one piece of work; where few end, it is done at once. What has to be done at once in any case, so
that nothing is delivered to a socket that is gone, is for whoever asks.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

__all__ = ["TURN_SECONDS", "Endings"]

logger = logging.getLogger(__name__)

TURN_SECONDS = 0.002
"""Processor time for ended connections in one turn of the loop, which takes about as long again to close their files
(benchmarks.many)."""


class Endings:
    """Work for connections that have ended."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """`clock` counts processor seconds of this thread."""
        self._clock = clock
        self._waiting: deque[Callable[[], object]] = deque()
        self._used = 0.0
        self._is_scheduled = False

    def __len__(self) -> int:
        """How many pieces of work wait."""
        return len(self._waiting)

    def ask(self, work: Callable[[], object], call_soon: Callable[[Callable[[], None]], object]) -> None:
        """Does a piece of work: now if none waits and this turn has room, else in one of the next turns."""
        if not self._is_scheduled:
            self._used = 0.0
            self._is_scheduled = True
            call_soon(lambda: self._next(call_soon))
        if self._waiting or self._used >= TURN_SECONDS:
            self._waiting.append(work)
        else:
            self._do(work)

    def _do(self, work: Callable[[], object]) -> None:
        began = self._clock()
        try:
            work()
        except Exception:
            logger.exception("the end of a connection failed")
        self._used += self._clock() - began

    def _next(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._used = 0.0
        while self._waiting and self._used < TURN_SECONDS:
            self._do(self._waiting.popleft())
        self._is_scheduled = bool(self._waiting)
        if self._is_scheduled:
            call_soon(lambda: self._next(call_soon))

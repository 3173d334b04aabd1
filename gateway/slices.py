"""Long work in short turns of the loop, so that nobody waits for one who asks for much, nor for many who do.

Invariant: between two turns the loop runs everything else, and all such work together takes at most a quarter of the
processor: whoever asks waits for its turn behind those who asked before. What the work walks over may change
meanwhile: it walks over a copy, or looks again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar
from weakref import WeakKeyDictionary

__all__ = ["SLICE_SECONDS", "in_slices"]

T = TypeVar("T")

SLICE_SECONDS = 0.002
"""How long one turn goes on with it."""

REST = 3
"""How many times as long the loop is then left to others."""


class _Turns:
    """Who has the next turn of a loop.

    Attributes:
        queue: held by whoever is next, while it waits for its turn; those behind it get it in the order they came.
        free_at: when the rest after the last turn is over.
    """

    __slots__ = ("free_at", "queue")

    def __init__(self) -> None:
        self.queue = asyncio.Lock()
        self.free_at = 0.0


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


async def in_slices(work: Generator[None, None, T]) -> T:
    """Does work that yields where it may be interrupted, at least every few hundred microseconds.

    Args:
        work: yields None again and again, and returns the result.

    Returns:
        What the work returned.
    """
    turns = _turns.setdefault(asyncio.get_running_loop(), _Turns())
    while True:
        async with turns.queue:
            if (rest := turns.free_at - time.monotonic()) > 0:
                await asyncio.sleep(rest)
            began = time.monotonic()
            try:
                while time.monotonic() - began < SLICE_SECONDS:
                    next(work)
            except StopIteration as done:
                result: T = done.value
                return result
            finally:
                ended = time.monotonic()
                turns.free_at = ended + (ended - began) * REST

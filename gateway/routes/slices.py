"""Long work in short turns of the loop, so that nobody waits for one who asks for much, nor for many who do.

Invariant: between two turns the loop runs everything else, and all work in slices together takes at most a quarter of
the processor: whoever asks waits for its turn behind those who asked before. Of those who stride, one goes on in each
turn. What the work walks over may change meanwhile: it walks over a copy, or looks again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar
from weakref import WeakKeyDictionary

__all__ = ["SLICE_SECONDS", "Stride", "in_slices"]


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
        striding: the same as `queue` for those who stride.
    """

    __slots__ = ("free_at", "queue", "striding")

    def __init__(self) -> None:
        self.queue = asyncio.Lock()
        self.striding = asyncio.Lock()
        self.free_at = 0.0


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


def _turns_here() -> _Turns:
    return _turns.setdefault(asyncio.get_running_loop(), _Turns())


class Stride:
    """How long a coroutine goes on in one turn of the loop, with work that its reader's pace bounds anyway.

    It asks `is_over` after every step, and awaits `rest()` when it is.
    """

    __slots__ = ("_end",)

    def __init__(self) -> None:
        """Begins now."""
        self._end = time.monotonic() + SLICE_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether others should have a turn."""
        return time.monotonic() >= self._end

    async def rest(self) -> None:
        """Lets the loop run everything else, and the others who stride go on before it."""
        async with _turns_here().striding:
            await asyncio.sleep(0)
        self._end = time.monotonic() + SLICE_SECONDS


async def in_slices(work: Generator[None, None, T]) -> T:
    """Does work that yields where it may be interrupted, at least every few hundred microseconds.

    Args:
        work: yields None again and again, and returns the result.

    Returns:
        What the work returned.
    """
    turns = _turns_here()
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

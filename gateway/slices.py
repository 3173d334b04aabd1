"""Long work in short turns of the loop, so that nobody waits for one who asks for much.

Invariant: between two turns the loop runs everything else, and the work takes at most a quarter of the processor. What
it walks over may change meanwhile: the work walks over a copy, or looks again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar

__all__ = ["in_slices"]

T = TypeVar("T")

SLICE_SECONDS = 0.002
"""How long one turn goes on with it."""

REST = 3
"""How many times as long it then leaves the loop to others."""


async def in_slices(work: Generator[None, None, T]) -> T:
    """Does work that yields where it may be interrupted, at least every few hundred microseconds.

    Args:
        work: yields None again and again, and returns the result.

    Returns:
        What the work returned.
    """
    while True:
        began = time.monotonic()
        while (took := time.monotonic() - began) < SLICE_SECONDS:
            try:
                next(work)
            except StopIteration as done:
                result: T = done.value
                return result
        await asyncio.sleep(took * REST)

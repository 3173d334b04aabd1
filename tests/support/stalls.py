"""How long the event loop goes on before anyone else gets a turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Turns:
    """The turns of a loop while it was watched.

    Attributes:
        longest: processor time of the longest one, in seconds; waiting for events is none.
        count: how many there were.
    """

    longest: float = 0.0
    count: int = 0


@contextmanager
def turns_watched() -> Iterator[Turns]:
    """Measures each turn of asyncio's own loops in this thread from now on."""
    turns = Turns()
    run_once: Callable[[asyncio.BaseEventLoop], None] = asyncio.BaseEventLoop._run_once  # type: ignore[attr-defined]

    def measured(loop: asyncio.BaseEventLoop) -> None:
        began = time.thread_time()
        try:
            run_once(loop)
        finally:
            turns.longest = max(turns.longest, time.thread_time() - began)
            turns.count += 1

    asyncio.BaseEventLoop._run_once = measured  # type: ignore[attr-defined]
    try:
        yield turns
    finally:
        asyncio.BaseEventLoop._run_once = run_once  # type: ignore[attr-defined]

"""The registry's turns of the loop.

Invariant: a turn takes about two milliseconds, and all of them together a quarter of the processor at most, whatever is
announced. What is read is the registry's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from gateway.devices.registry import Registry

__all__ = ["feed"]

logger = logging.getLogger(__name__)


TURN_SECONDS = 0.002
"""How long one turn of the loop goes on with it."""

REST = 3
"""How many times as long the loop is then left to others."""

SILENCE_SECONDS = 10.0
"""How often silent devices are looked for."""


async def feed(registry: Registry, wall_clock_ms: Callable[[], int]) -> None:
    """Reads what is announced, whenever something is, for ever."""
    awake = asyncio.Event()
    registry.inbox.wake = awake.set
    awake.set()
    silences_at = time.monotonic() + SILENCE_SECONDS
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, silences_at - time.monotonic())):
                await awake.wait()
        awake.clear()
        try:
            if time.monotonic() >= silences_at:
                silences_at = time.monotonic() + SILENCE_SECONDS
                await _in_turns(registry.silences(wall_clock_ms()))
            await _in_turns(registry.work())
        except Exception:
            # it would take the relay with it
            logger.exception("devices can't be read")


async def _in_turns(work: Iterator[None]) -> None:
    began = time.monotonic()
    for _ in work:
        took = time.monotonic() - began
        if took >= TURN_SECONDS:
            await asyncio.sleep(took * REST)
            began = time.monotonic()

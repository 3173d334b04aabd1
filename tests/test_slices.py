"""Long work in short turns: much of it at a time takes no more of the loop than one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator

import pytest

from gateway.routes.slices import SLICE_SECONDS, in_slices

pytestmark = pytest.mark.anyio


def toil(slices: int) -> Generator[None, None, int]:
    """Takes the processor for so many slices."""
    for _ in range(slices * 10):
        end = time.thread_time() + SLICE_SECONDS / 10
        while time.thread_time() < end:
            pass
        yield
    return slices


async def test_much_work_at_a_time_leaves_the_loop_to_others_as_one_does() -> None:
    turns: list[float] = []

    async def neighbour() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            turns.append(time.thread_time() - began)

    others = asyncio.create_task(neighbour())
    began = time.monotonic()
    results = await asyncio.gather(*(in_slices(toil(1 + number % 3)) for number in range(60)))
    spent = time.monotonic() - began
    others.cancel()
    assert results == [1 + number % 3 for number in range(60)]
    # of the turns of its neighbour, none has more than a few slices of them all
    assert max(turns) < 15 * SLICE_SECONDS
    # and the neighbour has most of the processor
    assert spent > 3 * 120 * SLICE_SECONDS


async def test_short_work_waits_for_a_turn_not_for_the_end_of_long_work() -> None:
    long = [asyncio.create_task(in_slices(toil(100))) for _ in range(3)]
    await asyncio.sleep(0)
    assert await in_slices(toil(1)) == 1
    assert not any(task.done() for task in long)
    for task in long:
        task.cancel()
    await asyncio.gather(*long, return_exceptions=True)
    assert await in_slices(toil(0)) == 0


async def test_work_that_fails_or_is_given_up_leaves_the_turn_to_the_next() -> None:
    def fails() -> Generator[None, None, int]:
        yield
        raise ValueError("it failed")

    given_up = asyncio.create_task(in_slices(toil(10)))
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="it failed"):
        await in_slices(fails())
    given_up.cancel()
    assert await asyncio.wait_for(in_slices(toil(2)), 20) == 2

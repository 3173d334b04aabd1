"""Long work in short turns: much of it at a time takes no more of the loop than one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Generator
from dataclasses import replace
from typing import Any

import pytest

from gateway.access.budget import ADDRESS, Accounts
from gateway.core.beyond import Asked
from gateway.door.asker import asks, metered
from gateway.door.lines import FairLock
from gateway.door.refusals import Refusal
from gateway.routes.question import answered
from gateway.routes.slices import MAX_PLACES, MAX_WAITING, SLICE_SECONDS, in_slices, place
from tests.fakes import finished

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


def from_address(address: str, work: Coroutine[Any, Any, Any], accounts: Accounts | None = None) -> asyncio.Task[Any]:
    """A task of a request from there."""

    async def request() -> Any:
        asks((ACCOUNTS if accounts is None else accounts).payer(address))
        return await work

    return asyncio.create_task(request())


ACCOUNTS = Accounts(time.monotonic)

TIGHT = replace(ADDRESS, burst_seconds=0.2)


async def test_addresses_take_turns_however_many_requests_each_has() -> None:
    done: list[str] = []

    async def request(address: str) -> None:
        await in_slices(toil(2))
        done.append(address)

    many = [from_address("10.0.0.1", request("10.0.0.1")) for _ in range(60)]
    await asyncio.sleep(0)
    await asyncio.wait_for(from_address("10.0.0.2", request("10.0.0.2")), 20)
    assert len(done) <= 2 * MAX_PLACES
    await asyncio.gather(*many)


async def test_one_address_has_so_many_places_and_so_many_that_wait() -> None:
    started: list[int] = []
    end = asyncio.Event()

    async def request(number: int) -> None:
        async with place(), place():
            started.append(number)
            await end.wait()

    tasks = [from_address("10.0.0.1", request(number)) for number in range(MAX_PLACES + MAX_WAITING)]
    other = from_address("10.0.0.2", request(-1))
    await asyncio.sleep(0.01)
    assert started == [*range(MAX_PLACES), -1]
    with pytest.raises(Refusal) as caught:
        await from_address("10.0.0.1", request(-2))
    assert (caught.value.status, caught.value.reason) == (429, "places")
    tasks[MAX_PLACES].cancel()  # one that waits
    tasks[0].cancel()  # one that has a place
    await asyncio.sleep(0.01)
    assert started == [*range(MAX_PLACES), -1, MAX_PLACES + 1]
    end.set()
    await asyncio.gather(*tasks, other, return_exceptions=True)
    assert len(started) == MAX_PLACES + MAX_WAITING
    await from_address("10.0.0.1", request(-3))


async def test_a_lock_is_passed_on_address_by_address_and_by_those_who_gave_up() -> None:
    lock, order = FairLock(), list[str]()

    async def hold(name: str) -> None:
        async with lock:
            order.append(name)
            await asyncio.sleep(0)

    tasks = [from_address(f"10.0.0.{ord(name[0])}", hold(name)) for name in ("a1", "a2", "a3", "a4", "b1", "c1")]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a1", "a2", "b1", "c1", "a4"]
    await asyncio.wait_for(from_address("10.0.0.1", hold("d")), 1)


async def test_long_work_rests_while_little_is_left_of_what_its_address_may_use() -> None:
    now = [0.0]
    accounts = Accounts(lambda: now[0])
    accounts.spend("10.0.0.1", processor=(ADDRESS.burst_seconds - 1) * ADDRESS.processor)
    assert accounts.wait("10.0.0.1") == 0
    task = from_address("10.0.0.1", in_slices(toil(1)), accounts)
    await asyncio.sleep(0.05)
    assert not task.done()
    assert await from_address("10.0.0.2", in_slices(toil(1)), accounts) == 1
    task.cancel()


async def test_what_a_request_does_is_charged_to_its_address_also_in_tasks_of_its_own() -> None:
    accounts = Accounts(lambda: 0.0)

    async def work() -> str:
        finished(toil(10))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(10)
        finished(toil(10))
        return "done"

    assert await from_address("10.0.0.1", metered(work()), accounts) == "done"
    spent = ADDRESS.burst_seconds - 20 * SLICE_SECONDS / ADDRESS.processor
    assert accounts.wait("10.0.0.1", spent + 0.02) > 0
    assert accounts.wait("10.0.0.1", spent - 0.2) == 0

    async def fails() -> None:
        finished(toil(1))
        raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"):
        await from_address("10.0.0.3", metered(fails()), accounts)
    assert accounts.wait("10.0.0.3", ADDRESS.burst_seconds) > 0
    given_up = from_address("10.0.0.1", metered(asyncio.sleep(10)), accounts)
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_who_asked_the_archive_for_much_owes_nothing_once_it_is_answered() -> None:
    accounts = Accounts(time.monotonic, tariff=TIGHT)
    asked: Asked[str] = Asked()
    waiting = from_address("192.0.2.1", answered(asked), accounts)
    await asyncio.sleep(0)
    # two tenths of a second are there, and a tenth more comes within a tenth of a second
    asked.set("points", seconds=0.3 * TIGHT.processor)
    assert accounts.wait("192.0.2.1") == 0
    began = time.monotonic()
    assert await waiting == "points"
    assert time.monotonic() - began >= 0.09
    assert accounts.wait("192.0.2.1") == 0

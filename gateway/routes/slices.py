"""Long work in short turns of the loop, so that nobody waits for one who asks for much, nor for many who do.

Invariant: between two turns the loop runs everything else, and all work in slices together takes at most a quarter of
the processor. Addresses take turns: whoever asks waits for no more than one slice of each other address, and one
address has so many places in which something is worked out for it, and so many more in which requests wait. Of those
who stride, one goes on in each turn. Who has little left of what an address may use rests until there is more. What the
work walks over may change meanwhile: it walks over a copy, or looks again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TypeVar
from weakref import WeakKeyDictionary

from gateway.door.asker import asker
from gateway.door.lines import FairLock
from gateway.door.refusals import Refusal

__all__ = ["MAX_PLACES", "MAX_WAITING", "SLICE_SECONDS", "Stride", "in_slices", "place", "rest_while_little_is_left"]


T = TypeVar("T")

SLICE_SECONDS = 0.002
"""How long one turn goes on with it."""

REST = 3
"""How many times as long the loop is then left to others."""

MAX_PLACES = 4
"""Answers that are worked out for one address at a time; each may hold some megabytes."""

MAX_WAITING = 100
"""Requests of one address that wait for such a place; more are refused (429)."""

RESERVE_SECONDS = 2.0
"""Long work rests while less of the budget of its address is left, so that short requests are not refused for it."""


class _Address:
    """The places of one address.

    Attributes:
        taken: places that are taken.
        waiting: those who wait for one.
    """

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class _Turns:
    """Who has the next turn of a loop.

    Attributes:
        queue: held by whoever is next, while it waits for its turn.
        free_at: when the rest after the last turn is over.
        striding: the same as `queue` for those who stride.
        addresses: those that have places.
    """

    __slots__ = ("addresses", "free_at", "queue", "striding")

    def __init__(self) -> None:
        self.queue = FairLock()
        self.striding = FairLock()
        self.free_at = 0.0
        self.addresses: dict[str | None, _Address] = {}


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


def _turns_here() -> _Turns:
    return _turns.setdefault(asyncio.get_running_loop(), _Turns())


_has_place: ContextVar[bool] = ContextVar("has_place", default=False)


@asynccontextmanager
async def place() -> AsyncIterator[None]:
    """A place in which an answer is worked out; where its address has none left, it waits. A task has one at most.

    Raises:
        Refusal: too many of this address wait already (429).
    """
    if _has_place.get():
        yield
        return
    budget, addresses = asker(), _turns_here().addresses
    key = None if budget is None else budget.key
    address = addresses.setdefault(key, _Address())
    if address.taken < MAX_PLACES:
        address.taken += 1
    elif len(address.waiting) >= MAX_WAITING:
        text = f"limit: {MAX_WAITING} requests from this address wait for their turn: wait for one"
        raise Refusal(429, "limit", "places", text, [("retry-after", "2")])
    else:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        address.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                _leave(addresses, key, address)
            raise
    _has_place.set(True)
    try:
        yield
    finally:
        _has_place.set(False)
        _leave(addresses, key, address)


def _leave(addresses: dict[str | None, _Address], key: str | None, address: _Address) -> None:
    while address.waiting:
        turn = address.waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            return
    address.taken -= 1
    if not address.taken:
        del addresses[key]


async def rest_while_little_is_left() -> None:
    """Waits until the address of who asks has something left, before long work is begun for it."""
    budget = asker()
    if budget is not None and (wait := budget.wait(RESERVE_SECONDS)) > 0:
        await asyncio.sleep(wait)


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
        await rest_while_little_is_left()
        async with _turns_here().striding:
            await asyncio.sleep(0)
        self._end = time.monotonic() + SLICE_SECONDS


async def in_slices(work: Generator[None, None, T]) -> T:
    """Does work that yields where it may be interrupted, at least every few hundred microseconds.

    Args:
        work: yields None again and again, and returns the result.

    Returns:
        What the work returned.

    Raises:
        Refusal: too many requests of this address wait for their turn (429).
    """
    async with place():
        return await _in_slices(work, _turns_here())


async def _in_slices(work: Generator[None, None, T], turns: _Turns) -> T:
    while True:
        await rest_while_little_is_left()
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

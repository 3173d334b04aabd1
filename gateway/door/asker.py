"""Who asks, for those who work for a request: what it takes of the processor is charged to its address.

Invariant: whatever a route does before it waits for something is counted, without the route's help. Deliveries of event
streams are not: like those of WebSockets they are not what somebody did, but what came.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Generator
from contextvars import ContextVar
from typing import Any, TypeVar

from gateway.access.budget import Budget

__all__ = ["asker", "asks", "metered"]

T = TypeVar("T")

LEAST_CHARGE_SECONDS = 0.0002
"""Processor time that is charged at once: charging costs some microseconds."""

_asker: ContextVar[Budget | None] = ContextVar("asker", default=None)


def asks(budget: Budget) -> None:
    """Says who asks, in this task and in those that it starts."""
    _asker.set(budget)


def asker() -> Budget | None:
    """The budget of who asks; None outside of a request."""
    return _asker.get()


class _Metered:
    """Something to wait for, each step of which is timed."""

    __slots__ = ("_budget", "_work")

    def __init__(self, work: Awaitable[T], budget: Budget) -> None:
        self._work = work
        self._budget = budget

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        failure: BaseException | None = None
        spent = 0.0
        try:
            while True:
                began = time.thread_time()
                try:
                    waited_for = next(steps) if failure is None else steps.throw(failure)
                except StopIteration as done:
                    return done.value
                finally:
                    spent += time.thread_time() - began
                    if spent >= LEAST_CHARGE_SECONDS:
                        self._budget.spend(spent)
                        spent = 0.0
                failure = None
                try:
                    yield waited_for
                except BaseException as error:  # noqa: BLE001 - it is the work's to handle
                    failure = error
        finally:
            self._budget.spend(spent)


async def metered(work: Awaitable[T]) -> T:
    """Waits for work that is done for who asks, and charges it."""
    budget = asker()
    result: T = await (work if budget is None else _Metered(work, budget))
    return result

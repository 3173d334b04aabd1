"""Waiting for a condition with a deadline, free ports, and saying what a machine lacks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

import pytest

T = TypeVar("T")

PATIENCE_SECONDS = 25.0
"""The shortest deadline: what comes at once on an idle machine may take so long on a busy one."""

REQUIRE_ALL = os.environ.get("GATEWAY_TEST_REQUIRE_ALL") == "1"


def missing(what: str) -> NoReturn:
    """Skips the test because this machine lacks something, or fails it where CI must have everything."""
    if REQUIRE_ALL:
        pytest.fail(f"missing: {what} (GATEWAY_TEST_REQUIRE_ALL=1 turns this skip into a failure)", pytrace=False)
    pytest.skip(f"missing: {what}")


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now, below those that the system gives to outgoing connections.

    A broker that a test stops and starts keeps its port: from the system's range, somebody's outgoing connection might
    take it meanwhile. None is given twice, nor to another worker of the same run: between this look at it and its use,
    and while its broker is stopped, nobody listens there.
    """
    while True:
        port = _PORTS.start + _CHANCE.randrange(len(_PORTS))
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


def _own_ports() -> range:
    """The ports of this worker of pytest-xdist, or all: below 32768, from where Linux gives them out (others 49152)."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    each = (32_000 - 15_000) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return range(15_000 + number * each, 15_000 + (number + 1) * each)


_PORTS = _own_ports()
_CHANCE = random.SystemRandom()
_given: set[int] = set()


def eventually(condition: Callable[[], T], timeout_seconds: float = 10.0, what: str = "") -> T:
    """The first true result of `condition`, asked every few milliseconds; the deadline is at least `PATIENCE_SECONDS`.

    Raises:
        AssertionError: it stayed false until the deadline; names the last result, or the last exception.
    """
    timeout_seconds = max(timeout_seconds, PATIENCE_SECONDS)
    deadline = time.monotonic() + timeout_seconds
    delay = 0.001
    while True:
        error: Exception | None = None
        result: T | None = None
        try:
            result = condition()
            if result:
                return result
        except (AssertionError, LookupError, OSError) as caught:
            error = caught
        if time.monotonic() >= deadline:
            raise AssertionError(_too_late(what, timeout_seconds, error, result)) from error
        time.sleep(delay)
        delay = min(delay * 2, 0.05)


async def eventually_async(condition: Callable[[], T], timeout_seconds: float = 10.0, what: str = "") -> T:
    """`eventually` for tests whose event loop must go on running meanwhile."""
    timeout_seconds = max(timeout_seconds, PATIENCE_SECONDS)
    deadline = time.monotonic() + timeout_seconds
    delay = 0.001
    while True:
        error: Exception | None = None
        result: T | None = None
        try:
            result = condition()
            if result:
                return result
        except (AssertionError, LookupError, OSError) as caught:
            error = caught
        if time.monotonic() >= deadline:
            raise AssertionError(_too_late(what, timeout_seconds, error, result)) from error
        await asyncio.sleep(delay)
        delay = min(delay * 2, 0.05)


def _too_late(what: str, timeout_seconds: float, error: Exception | None, result: object) -> str:
    last = f"raised {error!r}" if error is not None else f"was {result!r}"
    return f"{what or 'the condition'}: not within {timeout_seconds:g} s; the last answer {last}"


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts TCP connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0

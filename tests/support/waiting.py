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

REQUIRE_ALL = os.environ.get("GATEWAY_TEST_REQUIRE_ALL") == "1"


def missing(what: str) -> NoReturn:
    """Skips the test because this machine lacks something, or fails it where CI must have everything."""
    if REQUIRE_ALL:
        pytest.fail(f"missing: {what} (GATEWAY_TEST_REQUIRE_ALL=1 turns this skip into a failure)", pytrace=False)
    pytest.skip(f"missing: {what}")


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now, below those that the system gives to outgoing connections.

    A broker that a test stops and starts keeps its port: from the system's range, somebody's outgoing connection might
    take it meanwhile.
    """
    while True:
        port = random.randrange(15_000, 32_000)  # Linux gives out 32768 and more, others 49152 and more
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def eventually(condition: Callable[[], T], timeout_seconds: float = 10.0, what: str = "") -> T:
    """The first true result of `condition`, asked every few milliseconds.

    Raises:
        AssertionError: it stayed false until the deadline; names the last result, or the last exception.
    """
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

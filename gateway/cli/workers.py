"""Several gateways on one machine that share a port: the nodes of a cluster, each a process on a core of its own.

Invariant: the supervisor serves nothing and holds no thread. A worker that ends is started again, later each time that
it ends soon; a signal to stop is passed on, and the supervisor ends after the last worker. If the supervisor dies, the
workers stop in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

__all__ = ["Crew", "supervise", "until_orphaned"]

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 10.0
SETTLED_SECONDS = 30.0
"""A worker that ran for so long is started again as soon as one that never ended."""

WRONG_SETTINGS = 2
"""The exit code of a worker that can't be started with these settings."""

LOOK_SECONDS = 0.5


@dataclass
class _Place:
    pid: int | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    short_lives: int = 0


@dataclass
class Crew:
    """Which workers run, and when one that ended is started again; it starts none itself.

    Attributes:
        count: how many there are to be.
        exit_code: what the supervisor ends with.
        is_stopping: none is started any more.
    """

    count: int
    exit_code: int = 0
    is_stopping: bool = False
    _has_settled: bool = False
    _places: list[_Place] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = [_Place() for _ in range(self.count)]

    @property
    def running(self) -> list[int]:
        """The process ids of those that run."""
        return [place.pid for place in self._places if place.pid is not None]

    def due(self, now: float) -> Iterator[int]:
        """The numbers, from 0, of those that are to be started now."""
        for number, place in enumerate(self._places):
            if place.pid is None and not self.is_stopping and place.start_at <= now:
                yield number

    def next_start(self) -> float | None:
        """When the next one is to be started; None if none is."""
        waiting = [place.start_at for place in self._places if place.pid is None]
        return min(waiting, default=None) if not self.is_stopping else None

    def started(self, number: int, pid: int, now: float) -> None:
        """Worker `number` runs."""
        self._places[number].pid = pid
        self._places[number].started_at = now

    def ended(self, pid: int, code: int, now: float) -> float | None:
        """A worker has ended; after how many seconds it is started again, None for never."""
        place = next((place for place in self._places if place.pid == pid), None)
        if place is None:
            return None
        place.pid = None
        has_settled = now - place.started_at >= SETTLED_SECONDS
        self._has_settled |= has_settled
        if code == WRONG_SETTINGS and not self._has_settled:
            # none of them will ever serve
            self.exit_code, self.is_stopping = code, True
        if self.is_stopping:
            return None
        place.short_lives = 0 if has_settled else place.short_lives + 1
        wait = min(FIRST_WAIT_SECONDS * 2.0 ** max(place.short_lives - 1, 0), LONGEST_WAIT_SECONDS)
        place.start_at = now + wait
        return wait


def supervise(count: int, work: Callable[[int], int]) -> int:
    """Runs `work(number)` in so many processes until SIGTERM or SIGINT; gives the exit code.

    Args:
        count: how many.
        work: serves until SIGTERM and gives an exit code; it runs in a process of its own.
    """
    crew = Crew(count)
    alive, kept_open = os.pipe()  # ends when this process does
    noticed, told = socket.socketpair()
    noticed.setblocking(False)
    told.setblocking(False)
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            asked.append(number)

    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    before = {number: signal.signal(number, note) for number in handled}
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)

    def become(number: int) -> int:
        """What a new process does."""
        signal.set_wakeup_fd(-1)
        for each in handled:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        os.setpgid(0, 0)  # a signal from the terminal comes by way of the supervisor, once
        os.close(kept_open)
        noticed.close()
        told.close()
        os.set_inheritable(alive, False)
        _alive.append(alive)
        return work(number)

    try:
        while not crew.is_stopping or crew.running:
            for number in list(crew.due(time.monotonic())):
                # what is asked of the new process before it hears for itself must not be lost
                signal.pthread_sigmask(signal.SIG_BLOCK, handled)
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        code = become(number)
                    except SystemExit as ended:
                        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
                    except BaseException:
                        logger.exception("worker %d failed", number)
                    finally:
                        os._exit(code)
                crew.started(number, pid, time.monotonic())
                signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
            start = crew.next_start()
            wait = LOOK_SECONDS if start is None else max(min(start - time.monotonic(), LOOK_SECONDS), 0.0)
            select.select([noticed], [], [], wait)
            with contextlib.suppress(BlockingIOError):
                noticed.recv(4096)
            for number in _taken(asked):
                crew.is_stopping |= number != signal.SIGHUP
                _tell(crew, number if number == signal.SIGHUP else signal.SIGTERM)
            for pid, status in _ended():
                code = os.waitstatus_to_exitcode(status)
                was_stopping = crew.is_stopping
                again = crew.ended(pid, code, time.monotonic())
                if again is not None:
                    logger.error("worker %d has ended (%d); it is started again in %.1f s", pid, code, again)
                elif crew.is_stopping and not was_stopping:
                    _tell(crew, signal.SIGTERM)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(alive)
        os.close(kept_open)
        noticed.close()
        told.close()
    return crew.exit_code


_alive: list[int] = []  # of a worker: what can be read when the supervisor is gone


def until_orphaned() -> None:
    """In a worker, once its loop runs: stops it in order when the supervisor is gone."""
    if _alive:
        loop, alive = asyncio.get_running_loop(), _alive[0]

        def gone() -> None:
            loop.remove_reader(alive)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(alive, gone)


def _taken(asked: list[int]) -> list[int]:
    found, asked[:] = list(asked), []
    return found


def _tell(crew: Crew, number: int) -> None:
    for pid in crew.running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _ended() -> Iterator[tuple[int, int]]:
    """Children that have ended, and their status."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status

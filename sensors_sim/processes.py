"""Runs a fleet in several processes, each a part of the devices, and tells how it goes with all of them.

One invariant: a process ends when the one that started it does, or tells it to.

It leaves to others: what a process does (``cli`` gives the function).
"""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable
from functools import reduce
from multiprocessing.connection import Connection, wait
from operator import add

from sensors_sim.runner import Progress, Runner

REPORT_SECONDS = 0.5

Work = Callable[[tuple[int, int], Callable[[Runner], None]], Runner]
"""Runs a part of how many, calls what it is given with its runner about twenty times a second, and returns that."""


class Processes:
    """Processes that run a fleet together.

    Args:
        work: What each does; at the top of a module, so that a new process finds it.
        count: How many.

    Attributes:
        progress: Of all together.
    """

    def __init__(self, work: Work, count: int) -> None:
        # Forked processes would share this one's sockets and locks.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_child, args=(work, (number, count), theirs), name=f"part {number + 1}")
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._told = [Progress(0, 0, 0, 0, 0, 0, 0.0, "")] * count
        self._stopping = False

    @property
    def progress(self) -> Progress:
        """How it goes with all of them."""
        return reduce(add, self._told)

    def stop(self) -> None:
        """Make ``run`` end them all; may be called from a signal handler."""
        self._stopping = True

    def run(self, on_tick: Callable[["Processes"], None] | None = None) -> bool:
        """Wait until all have ended.

        Args:
            on_tick: Called about ten times a second.

        Returns:
            Whether all ended well; the first that doesn't ends the others.
        """
        running = dict(enumerate(self._pipes))
        is_told = False
        while running:
            for number in [number for number, pipe in running.items() if pipe in wait(list(running.values()), 0.1)]:
                try:
                    self._told[number] = running[number].recv()
                except (EOFError, ConnectionError):
                    running.pop(number).close()
                    self._processes[number].join()
                    self._stopping = self._stopping or self._processes[number].exitcode != 0
            if self._stopping and not is_told:
                is_told = True
                for pipe in running.values():
                    with contextlib.suppress(ConnectionError):
                        pipe.send(None)
            if on_tick is not None:
                on_tick(self)
        return all(process.exitcode == 0 for process in self._processes)


def _child(work: Work, part: tuple[int, int], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the first process hears it and tells
    next_report = 0.0

    def tick(runner: Runner) -> None:
        nonlocal next_report
        try:
            if pipe.poll():
                pipe.recv()
                runner.stop()
            if time.monotonic() >= next_report:
                next_report = time.monotonic() + REPORT_SECONDS
                pipe.send(runner.progress)
        except (EOFError, ConnectionError):  # who started it is gone
            runner.stop()

    runner = work(part, tick)
    with contextlib.suppress(ConnectionError):
        pipe.send(runner.progress)

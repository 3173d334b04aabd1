"""A loop for the threads of an archive, and files that fail or dawdle when told to."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.archive.blocks import Batch
from gateway.archive.failures import ArchiveError
from gateway.archive.file import ArchiveFile, Hole, SnapshotParts
from tests.fakes import FakeLoop

__all__ = ["FaultyFile", "ThreadedLoop"]


class ThreadedLoop(FakeLoop):
    """A `FakeLoop` that real threads may call back into; its clock moves only when told."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def call_soon_threadsafe(self, call: Callable[..., None], *arguments: object) -> None:
        self._calls.put(lambda: call(*arguments))

    def until(self, is_so: Callable[[], bool], what: str = "it happens", timeout_seconds: float = 20.0) -> None:
        """Runs what is due, and what threads ask for, until something is so; the clock stands still."""
        end = time.monotonic() + timeout_seconds
        while not is_so():
            self.run()
            try:
                self._calls.get(timeout=0.05)()
            except queue.Empty:
                assert time.monotonic() < end, f"waited in vain until {what}"
        self.run()


class FaultyFile(ArchiveFile):
    """A file whose next writes fail, or wait.

    Attributes:
        error: what every write says; None: it works.
        gate: writes wait for it.
        appends: how many were begun.
    """

    def __init__(self, path: Path) -> None:
        self.error: ArchiveError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.appends = 0
        super().__init__(path)

    def append(
        self,
        batches: Sequence[Batch],
        holes: Sequence[Hole] = (),
        snapshot: SnapshotParts | None = None,
        end: int | None = None,
    ) -> int:
        self.appends += 1
        self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return super().append(batches, holes, snapshot, end)

"""A loop for the threads of an archive, and files that fail or dawdle when told to."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.archive.archive import Archive, KeptHistory
from gateway.archive.blocks import Batch
from gateway.archive.failures import ArchiveError, Trouble
from gateway.archive.file import ArchiveFile, Hole, SnapshotParts
from gateway.archive.keeping import Rules
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.core.messages import Message
from tests.fakes import FakeLoop, make_hub

NOW = 1_700_000_000_000

__all__ = ["NOW", "FaultyFile", "Life", "ThreadedLoop", "seen"]


class ThreadedLoop(FakeLoop):
    """A `FakeLoop` that real threads may call back into; its clock moves only when told."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def wall_clock_ms(self) -> int:
        return round(self.now * 1000)

    def call_soon_threadsafe(self, call: Callable[..., None], *arguments: object) -> None:
        self._calls.put(lambda: call(*arguments))

    def until(self, is_so: Callable[[], bool], what: str = "it happens", timeout_seconds: float = 20.0) -> None:
        """Runs what is due, and what threads ask for, until something is so; while it waits for them the clock goes."""
        end = time.monotonic() + timeout_seconds
        while not is_so():
            self.run()
            try:
                self._calls.get(timeout=0.02)()
            except queue.Empty:
                self.run(0.5)
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
        **more: bool,
    ) -> int:
        self.appends += 1
        self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return super().append(batches, holes, snapshot, end, **more)


class Life:
    """One run of a gateway on a file, as far as its log is concerned."""

    def __init__(
        self,
        path: Path,
        *,
        now_ms: int = NOW,
        max_bytes: int = 10**7,
        rules: Rules | None = None,
        is_shared: bool = False,
        **bounds: Any,
    ) -> None:
        self.loop = ThreadedLoop()
        self.loop.now = now_ms / 1000
        self.now = now_ms
        self.history = KeptHistory(**bounds)
        self.archive = Archive(
            path, self.history, now_ms=now_ms, rules=rules, wall_clock_ms=self.loop.wall_clock_ms, is_shared=is_shared
        )
        self.restored = seen(self.history)
        self.troubles: list[ArchiveError | None] = []
        self.archive.start(
            flush_seconds=1.0,
            max_bytes=max_bytes,
            call_soon_threadsafe=self.loop.call_soon_threadsafe,
            call_later=self.loop.call_later,
            clock=self.loop.clock,
            on_trouble=self.troubles.append,
        )
        self.hub: Hub = make_hub(self.loop, history=self.history)

    def publish(self, topic: str, payload: bytes = b"1", **more: Any) -> Message | None:
        self.now = max(self.now, self.loop.wall_clock_ms()) + 1
        self.loop.now = self.now / 1000
        return self.hub.publish(topic, payload, **more)

    def flush(self) -> None:
        self.archive.writer.hand_over()
        self.loop.until(lambda: self.archive.writer.written_seq == self.history.seq)

    def snapshot(self) -> None:
        self.archive.writer.save(SnapshotParts(self.history.seq, list(self.archive._parts())))
        self.flush()

    def close(self) -> None:
        self.archive.close()
        self.archive.wait_closed()
        self.loop.run()

    def crash(self) -> None:
        """The process is gone: what is on the disk stays, what is not is lost."""
        self.history.keep = None
        file = self.archive._file
        file.append = lost  # type: ignore[method-assign]
        self.archive.close()
        self.archive.wait_closed()


def lost(*_: object, **__: object) -> int:
    raise ArchiveError(Trouble.IO, "the process has ended")


def seen(history: History) -> dict[str, Any]:
    """Everything that others can see of a log."""
    topics = {
        topic.name: (
            topic.count,
            topic.first_seq,
            topic.retained_hash,
            topic.last and topic.last.frame,
            [message.frame for message in topic.after(0)],
        )
        for topic in history.topics()
    }
    return {"position": history.position, "topics": topics}

"""A loop with a clock of its own and a socket with a buffer of its own, for tests of the hub."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from gateway.core.filters import FilterSet
from gateway.core.frames import frame_text, unframe
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.core.protocol import CloseCode
from gateway.core.selection import Selection
from gateway.core.shapes import Format, Framing, Shape
from gateway.core.subscribers import Subscriber

HUB_BOUNDS = ("max_replay_messages", "max_shape_bytes")

__all__ = ["FakeLoop", "FakeSocket", "count_kept", "count_lost", "finished", "make_hub"]


T = TypeVar("T")


def finished(work: Generator[None, None, T]) -> T:
    """What work that is made for `slices.in_slices` returns."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result


def count_kept(history: History, filters: FilterSet, after: int, until: int, *, last_only: bool = False) -> int:
    """How many messages a replay of this stretch would give now."""
    return finished(Selection(filters).tally(history, after, until, last_only=last_only))[0]


def count_lost(history: History, filters: FilterSet, after: int) -> int | None:
    """How many messages beyond `after` are evicted; None if nobody knows."""
    return finished(Selection(filters).tally(history, after, history.seq))[1]


class FakeTimer:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    """`call_soon`, `call_later` and a clock that moves only when told, and by `cost` for every call."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cost = 0.0
        self._soon: list[Callable[[], None]] = []
        self._later: list[tuple[float, int, FakeTimer, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def clock(self) -> float:
        return self.now

    def wall_clock_ms(self) -> int:
        return int(self.now * 1000)

    def call_soon(self, function: Callable[[], None]) -> None:
        self._soon.append(function)

    def call_later(self, seconds: float, function: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer()
        heapq.heappush(self._later, (self.now + seconds, next(self._numbers), timer, function))
        return timer

    def turn(self) -> bool:
        """One turn: due timers, then what was to be called soon. False when there was nothing."""
        due = []
        while self._later and self._later[0][0] <= self.now:
            due.append(heapq.heappop(self._later))
        soon, self._soon = self._soon, []
        for _, _, timer, function in due:
            if not timer.is_cancelled:
                function()
        for function in soon:
            self.now += self.cost
            function()
        return bool(due or soon)

    def run(self, seconds: float = 0.0) -> None:
        """Turns until nothing is left to do within so many seconds."""
        end = self.now + seconds
        for _ in range(100_000):
            if self.turn():
                continue
            if not self._later or self._later[0][0] > end:
                break
            self.now = self._later[0][0]
        else:
            raise AssertionError("the loop does not come to rest")
        self.now = max(self.now, end)


class FakeSocket:
    """A client and the socket between: what is written stays in the buffer until it is drained."""

    def __init__(self, hub: Hub, *, shape: Shape | None = None, capacity: int = 10**9, stuck: bool = False) -> None:
        self.hub = hub
        self.capacity = capacity
        self.is_stuck = stuck
        self.buffer: list[bytes] = []
        self.size = 0
        self.writes: list[bytes] = []
        self.bodies: list[bytes] = []
        self.closed: tuple[CloseCode, str] | None = None
        shape = shape or Shape()
        tell = self._tell if shape.format is Format.JSON else None
        self.subscriber: Subscriber = hub.add(self, shape=shape, tell=tell)

    def _tell(self, event: dict[str, Any]) -> None:
        self.write(frame_text(json.dumps(event).encode()))

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        if not self.is_stuck:
            self._arrive(data)
            return
        self.buffer.append(data)
        self.size += len(data)
        if self.size > self.capacity:
            self.hub.pause(self.subscriber)

    def buffered(self) -> int:
        return self.size

    def close(self, code: CloseCode, reason: str) -> None:
        self.closed = (code, reason)

    def drain(self, writes: int = 10**9) -> None:
        """The client reads so many writes."""
        for data in self.buffer[:writes]:
            self.size -= len(data)
            self._arrive(data)
        del self.buffer[:writes]
        if self.size <= self.capacity // 4:
            self.hub.resume(self.subscriber)

    def _arrive(self, data: bytes) -> None:
        if self.subscriber.shape.framing is not Framing.WEBSOCKET:
            return
        self.bodies += [body for _, body in unframe(data)]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Everything that arrived, decoded."""
        return [json.loads(body) for body in self.bodies]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [body for body in self.objects if "event" not in body]

    @property
    def seqs(self) -> list[int]:
        return [message["seq"] for message in self.messages]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [body for body in self.objects if body.get("event") == name]

    @property
    def told_lost(self) -> int:
        return sum(gap["lost"] or 0 for gap in self.events("gap"))


def make_hub(loop: FakeLoop, **options: Any) -> Hub:
    history = options.pop("history", None) or History(
        epoch="k3f9",
        **{k: options.pop(k) for k in list(options) if k.startswith("max_") and k not in HUB_BOUNDS},
    )
    return Hub(
        history,
        call_soon=loop.call_soon,
        call_later=loop.call_later,
        clock=loop.clock,
        wall_clock_ms=loop.wall_clock_ms,
        **options,
    )

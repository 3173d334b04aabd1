"""A sink that is read by a coroutine: for everything but our own WebSocket transport (SSE, other ASGI servers).

Invariant: what waits here never exceeds the limit by more than one write of the hub, since a full sink pauses its
subscriber. The hub decides what is written; the coroutine that reads decides when. Once it is closed nothing more is
taken, however long the reader is busy with what is here: its subscriber leaves the hub at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from gateway.core.hub import Hub
from gateway.core.protocol import CloseCode
from gateway.core.subscribers import Subscriber

__all__ = ["PulledSink"]


class PulledSink:
    """Collects what the hub writes until its reader takes it.

    Attributes:
        subscriber: whose sink it is; set by whoever made it.
        closed: the code and reason with which it was closed, None while it is open.
    """

    __slots__ = ("_hub", "_max_bytes", "_parts", "_ready", "_size", "_unsent", "closed", "subscriber")

    def __init__(self, hub: Hub, max_bytes: int, *, unsent: Callable[[], int] | None = None) -> None:
        """Creates an empty sink.

        Args:
            hub: where its subscriber belongs.
            max_bytes: bytes not yet taken above which its subscriber is slow.
            unsent: how many bytes the server has taken and not given to the system; None where nobody can say.
        """
        self.subscriber: Subscriber | None = None
        self.closed: tuple[CloseCode, str] | None = None
        self._hub = hub
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._unsent = unsent
        self._ready = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Keeps the data for the reader; nothing once it is closed."""
        if self.closed is not None:
            return
        self._parts.append(data)
        self._size += len(data)
        self._ready.set()
        if self._size > self._max_bytes and self.subscriber is not None:
            self._hub.pause(self.subscriber)

    def buffered(self) -> int:
        """Bytes that the reader has not taken, and those that its server has not sent."""
        return self._size if self._unsent is None else self._size + self._unsent()

    def close(self, code: CloseCode, reason: str) -> None:
        """Ends the reading after what is here already, and the subscription now."""
        if self.closed is None:
            self.closed = (code, reason)
            self._ready.set()
            if self.subscriber is not None:
                self._hub.remove(self.subscriber)

    async def parts(
        self, keep_alive_seconds: float | None = None, *, max_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        """What is written, joined, until the sink is closed; b"" when nothing came for `keep_alive_seconds`.

        With `max_bytes` it is cut into parts of at most that size, wherever that is: a slow reader is then seen to make
        progress.
        """
        while True:
            if not self._parts:
                if self.closed is not None:
                    return
                self._ready.clear()
                try:
                    async with asyncio.timeout(keep_alive_seconds):
                        await self._ready.wait()
                except TimeoutError:
                    yield b""
                continue
            data = b"".join(self._parts)
            self._parts.clear()
            step = max_bytes or len(data)
            for start in range(0, len(data), step):
                part = data[start : start + step]
                # the bytes count until the consumer comes back for more: only then has the server taken them
                yield part
                self._size -= len(part)
                if self.subscriber is not None and self._size <= self._max_bytes // 4:
                    self._hub.resume(self.subscriber)

"""A sink that is read by a coroutine: for everything but our own WebSocket transport (SSE, other ASGI servers).

Invariant: what waits here never exceeds the limit by more than one write of the hub, since a full sink pauses its
subscriber. The hub decides what is written; the coroutine that reads decides when.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from gateway.protocol import CloseCode

if TYPE_CHECKING:
    from gateway.hub import Hub, Subscriber

__all__ = ["PulledSink"]


class PulledSink:
    """Collects what the hub writes until its reader takes it.

    Attributes:
        subscriber: whose sink it is; set by whoever made it.
        closed: the code and reason with which the hub closed it, None while it is open.
    """

    __slots__ = ("_hub", "_max_bytes", "_parts", "_ready", "_size", "closed", "subscriber")

    def __init__(self, hub: Hub, max_bytes: int) -> None:
        """`max_bytes`: above so much its subscriber is slow."""
        self.subscriber: Subscriber | None = None
        self.closed: tuple[CloseCode, str] | None = None
        self._hub = hub
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._ready = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Keeps the data for the reader."""
        self._parts.append(data)
        self._size += len(data)
        self._ready.set()
        if self._size > self._max_bytes and self.subscriber is not None:
            self._hub.pause(self.subscriber)

    def buffered(self) -> int:
        """Bytes that the reader has not taken."""
        return self._size

    def close(self, code: CloseCode, reason: str) -> None:
        """Ends the reading after what is here already."""
        if self.closed is None:
            self.closed = (code, reason)
            self._ready.set()

    async def parts(self, keep_alive_seconds: float | None = None) -> AsyncIterator[bytes]:
        """What is written, joined, until the sink is closed; b"" when nothing came for `keep_alive_seconds`."""
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
            # the bytes count until the consumer comes back for more: only then has the server taken them
            yield data
            self._size -= len(data)
            if self.subscriber is not None and self._size <= self._max_bytes // 4:
                self._hub.resume(self.subscriber)

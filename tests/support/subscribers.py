"""A WebSocket client for tests, over the `websockets` package: it reads all the time and keeps what it read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from .gateways import GatewayProcess
from .waiting import eventually_async


class Subscriber:
    """One connection to `/ws` or a stream.

    Use it as an async context manager. `messages` holds the messages as dictionaries, `events` the events, `frames`
    everything as it came; `code` and `reason` are set when the connection has closed.
    """

    def __init__(
        self,
        gateway: GatewayProcess | str,
        *topics: str,
        path: str = "/ws",
        small_buffers: bool = False,
        headers: dict[str, str] | None = None,
        address: str | None = None,
        **query: object,
    ) -> None:
        """Prepares a connection.

        Args:
            gateway: the gateway, or its address such as `ws://127.0.0.1:8000`.
            topics: topic filters for the query.
            path: `/ws` or `/ws/<stream>/`.
            small_buffers: gives the socket a receive buffer of a few KiB, so that a reader that stalls is soon felt.
            headers: further request headers.
            address: where it connects from.
            query: further parameters such as `since="now"`.
        """
        base = gateway if isinstance(gateway, str) else gateway.ws
        pairs = [("topic", topic) for topic in topics] + [(name, str(value)) for name, value in query.items()]
        self.url = base + path + ("?" + urlencode(pairs) if pairs else "")
        self._headers = headers or {}
        self._address = address
        self._small_buffers = small_buffers
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._may_read = asyncio.Event()
        self._may_read.set()
        self.messages: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.frames: list[str | bytes] = []
        self.code: int | None = None
        self.reason = ""

    async def __aenter__(self) -> Self:
        options: dict[str, Any] = {}
        if self._small_buffers:
            options = {"sock": await self._small_socket(), "max_queue": 1}
        elif self._address is not None:
            options = {"local_addr": (self._address, 0)}
        self._socket = await connect(
            self.url,
            additional_headers=self._headers,
            max_size=None,
            compression=None,
            ping_interval=None,
            open_timeout=20,
            close_timeout=2,
            **options,
        )
        self._reader = asyncio.create_task(self._read(), name=f"subscriber {self.url}")
        return self

    async def _small_socket(self) -> socket.socket:
        host, _, port = self.url.split("/")[2].rpartition(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        return sock

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._reader is not None
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        if self._socket is not None:
            await self._socket.close()

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            while True:
                await self._may_read.wait()
                self._take(await self._socket.recv())
        except ConnectionClosed as closed:
            received = closed.rcvd
            self.code, self.reason = (received.code, received.reason) if received else (1006, "")

    def _take(self, frame: str | bytes) -> None:
        self.frames.append(frame)
        if isinstance(frame, bytes):
            return
        try:
            decoded = json.loads(frame)
        except ValueError:
            return
        if isinstance(decoded, dict):
            (self.events if "event" in decoded else self.messages).append(decoded)

    def pause(self) -> None:
        """Stops reading, as a browser does that has no time; what is under way in a frame is still taken."""
        self._may_read.clear()

    def resume(self) -> None:
        """Reads on."""
        self._may_read.set()

    async def send(self, command: str, **arguments: Any) -> None:
        """Sends a command of the protocol."""
        await self.send_raw(json.dumps({"command": command, **arguments}))

    async def send_raw(self, frame: str | bytes) -> None:
        """Sends a frame as it is."""
        assert self._socket is not None
        await self._socket.send(frame)

    async def wait(self, condition: Callable[[], Any], timeout_seconds: float = 10, what: str = "") -> Any:
        """Waits for a condition on what has been received."""
        return await eventually_async(condition, timeout_seconds, what or f"{self.url}: {self.summary()}")

    async def wait_messages(self, count: int, timeout_seconds: float = 10) -> list[dict[str, Any]]:
        """The messages, as soon as there are `count` of them."""
        await self.wait(lambda: len(self.messages) >= count, timeout_seconds, f"{count} messages on {self.url}")
        return self.messages

    async def wait_event(self, name: str, timeout_seconds: float = 10, **fields: Any) -> dict[str, Any]:
        """The first event of that name in which these fields have these values."""

        def found() -> dict[str, Any] | None:
            wanted = {"event": name, **fields}
            return next((event for event in self.events if wanted.items() <= event.items()), None)

        event: dict[str, Any] = await self.wait(
            found, timeout_seconds, f"event {name} {fields}, got {self.events[-5:]}"
        )
        return event

    async def wait_closed(self, timeout_seconds: float = 10) -> int:
        """The close code, when the connection has closed; 1006 when it just broke."""
        await self.wait(lambda: self.code is not None, timeout_seconds, f"{self.url} closes")
        assert self.code is not None
        return self.code

    @property
    def lost(self) -> int:
        """How many messages gap events say were lost, where the number is known."""
        return sum(event.get("lost") or 0 for event in self.events if event["event"] == "gap")

    @property
    def skipped(self) -> int:
        """How many messages were conflated away."""
        return sum(message.get("skipped", 0) for message in self.messages)

    def payloads(self, topic: str | None = None) -> list[Any]:
        """The payloads, of one topic or of all."""
        return [message["payload"] for message in self.messages if topic in (None, message["topic"])]

    def summary(self) -> str:
        """For an assertion's text."""
        return f"{len(self.messages)} messages, {len(self.events)} events, closed: {self.code}"


async def close_all(subscribers: Iterable[Subscriber]) -> None:
    """Closes many at once."""
    await asyncio.gather(*(subscriber.__aexit__(None, None, None) for subscriber in subscribers))

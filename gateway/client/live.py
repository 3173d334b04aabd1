"""`connect`: messages of some topics for as long as they are wanted, over as many connections as it takes.

Invariant: every message that matches comes once and in the order of numbers, or a `gap` says how many do not; where to
go on after a cut is `core/resume`'s rule, whether to come back the close code's. It reads no faster than it is asked
for messages, so whoever is slow holds up the gateway's writing and nothing else, and it is the gateway that says what a
slow reader misses.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from websockets.exceptions import ConnectionClosed

from gateway.client.connection import (
    ClientError,
    Event,
    LostError,
    Message,
    RefusedError,
    Socket,
    decode,
    explain_close,
    open_async,
    socket_url,
)
from gateway.core.protocol import CloseCode
from gateway.core.resume import Resume
from gateway.core.since import parse_since
from gateway.core.topics import validate_filter

__all__ = ["Live", "Token", "connect", "token_of"]

Token = str | Callable[[], str | Awaitable[str]] | None
Handler = Callable[[Event], object]

SETTLED_SECONDS = 10.0
"""After a connection that lived for so long the delays start from the beginning."""

TOKEN_REFUSED = (CloseCode.UNAUTHORIZED, CloseCode.TOKEN_EXPIRED)

_SHAPE = ("max_hz", "mode", "fields", "deadband", "where", "properties")


async def token_of(token: Token) -> str | None:
    """The token to show now.

    Raises:
        LostError: the function that fetches it failed.
    """
    if not callable(token):
        return token
    try:
        found = token()
        return await found if inspect.isawaitable(found) else found
    except Exception as error:
        raise LostError(f"no token could be fetched: {error}", "token") from error


def connect(
    url: str,
    topics: str | Sequence[str],
    *,
    token: Token = None,
    since: str | None = None,
    reconnect: Literal["always", "after_first", "never"] = "always",
    timeout: float = 10.0,
    silence: float = 15.0,
    max_delay: float = 30.0,
    on_wait: Callable[[], object] | None = None,
    **shape: Any,
) -> Live:
    """Messages of these topics, to be iterated over with `async for`.

    Args:
        url: the gateway's address, such as `http://127.0.0.1:8000` or `wss://example.org/mqtt/ws`.
        topics: a topic filter or several.
        token: an access token, or a function that fetches one: it is called for every connection, before a token
            ends, and after one was refused. A token that does not change and is refused ends it.
        since: where to begin: `last` (unless told), `now`, a time back such as `10m`, an ISO time or a position.
        reconnect: `always`; `after_first`, once it was connected; or `never`.
        timeout: seconds that a handshake or an answer may take.
        silence: seconds without a word until the gateway is asked whether it is there.
        max_delay: the longest delay between two attempts, in seconds.
        on_wait: called before it waits for what comes next.
        shape: `max_hz`, `mode`, `fields`, `deadband`, `where` and `properties`, as in docs/protocol.md.

    Raises:
        ValueError: an argument is none that it can work with; TopicError and ProtocolError are such errors.
    """
    return Live(url, topics, token, since, reconnect, timeout, silence, max_delay, on_wait, shape)


class Live:
    """What `connect` makes: an iterator of messages that comes back by itself.

    Attributes:
        state: `connecting`, `open`, `waiting` or `closed`.
    """

    def __init__(
        self,
        url: str,
        topics: str | Sequence[str],
        token: Token,
        since: str | None,
        reconnect: str,
        timeout: float,
        silence: float,
        max_delay: float,
        on_wait: Callable[[], object] | None,
        shape: Mapping[str, Any],
    ) -> None:
        """See `connect`."""
        if unknown := set(shape) - set(_SHAPE):
            raise ValueError(f"{', '.join(sorted(unknown))}: not known; a shape has {', '.join(_SHAPE)}")
        self._topics = [validate_filter(text) for text in ([topics] if isinstance(topics, str) else topics)]
        parse_since(since)
        self._url = socket_url(url)
        self._token = token
        self._resume = Resume(since)
        self._reconnect = reconnect
        self._timeout, self._silence, self._max_delay = timeout, silence, max_delay
        self._on_wait = on_wait
        self._shape = {name: value for name, value in shape.items() if value is not None}
        self._handlers: dict[str, list[Handler]] = {}
        self._socket: Socket | None = None
        self._messages: AsyncGenerator[Message] | None = None
        self._is_broker_away = False
        self._was_open = False
        self._told = ""  # the text of the last error that the gateway told of
        self.state = "connecting"

    @property
    def position(self) -> str:
        """Where another one would go on: a `since`."""
        return self._resume.since

    @property
    def topics(self) -> list[str]:
        """The filters."""
        return list(self._topics)

    def on(self, event: str, handler: Handler) -> Callable[[], None]:
        """Calls the handler for each event of a name (`gap`, `upstream`, `state`, …); returns what takes it away."""
        handlers = self._handlers.setdefault(event, [])
        handlers.append(handler)
        return lambda: handlers.remove(handler)

    def _tell(self, event: Event) -> None:
        for handler in list(self._handlers.get(event.event, ())):
            handler(event)

    def _become(self, state: str, **more: Any) -> None:
        self.state = state
        self._tell(Event("state", state=state, **more))

    # iterating

    def __aiter__(self) -> AsyncGenerator[Message]:
        if self._messages is None:
            self._messages = self._run()
        return self._messages

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends it for good, once whoever iterates has stopped."""
        if self._messages is not None:
            await self._messages.aclose()
        if self.state != "closed":
            self._become("closed")

    async def _run(self) -> AsyncGenerator[Message]:
        attempt = 0
        try:
            while True:
                opened_at = None
                self._become("connecting")
                try:
                    self._socket = await open_async(self._url, await token_of(self._token), self._timeout)
                    opened_at = time.monotonic()
                    async for message in self._read(self._socket):
                        yield message
                except ClientError as error:
                    await self._hang_up()
                    if not self._comes_back(error):
                        raise
                    if opened_at is not None and time.monotonic() - opened_at > SETTLED_SECONDS:
                        attempt = 0
                    if error.close_code == CloseCode.BUSY:
                        attempt = max(attempt, 3)
                    # jitter, so that many that were cut at once don't come back at once
                    delay = min(self._max_delay, 2.0 ** min(attempt, 30)) * random.uniform(0.25, 1)  # noqa: S311
                    attempt += 1
                    self._become("waiting", reason=str(error), delay=delay)
                    await asyncio.sleep(delay)
        except ClientError as error:
            self._become("closed", reason=str(error))
            raise
        finally:
            await self._hang_up()

    def _comes_back(self, error: ClientError) -> bool:
        if self._reconnect == "never" or (self._reconnect == "after_first" and not self._was_open):
            return False
        return isinstance(error, LostError) or (callable(self._token) and error.close_code in TOKEN_REFUSED)

    async def _hang_up(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            try:
                await socket.close()
            finally:
                socket.transport.abort()

    async def _read(self, socket: Socket) -> AsyncGenerator[Message]:
        """What comes over one connection."""
        is_first = True
        try:
            # by a command with an id: only then is the end of its replay told
            command = {"command": "subscribe", "id": 1, "topics": self._topics, "since": self._resume.since}
            await socket.send(json.dumps({**command, **self._shape}))
            while True:
                received = decode(await self._next(socket))
                upstream = received if isinstance(received, Event) and received.event == "upstream" else None
                if upstream is not None:
                    self._is_broker_away = not upstream.connected
                elif is_first and self._is_broker_away:
                    # a gateway without its broker says so first of all, and otherwise says nothing
                    self._is_broker_away = False
                    self._tell(Event("upstream", connected=True))
                is_first = False
                if isinstance(received, Message):
                    self._resume.heard(received.seq)
                    yield received
                else:
                    await self._hear(received, socket)
        except ConnectionClosed as error:
            found = explain_close(error)
            if isinstance(found, RefusedError) and self._told:
                found = RefusedError(self._told, found.code, found.close_code)
            raise found from None

    async def _hear(self, event: Event, socket: Socket) -> None:
        match event.event:
            case "subscribed" if event.position is not None:
                self._resume.subscribed(event.position, event.after)
                self._was_open, self._told = True, ""
                self._become("open")
            case "replayed":
                self._resume.replayed()
            case "expiring" if callable(self._token):
                try:
                    token = await token_of(self._token)
                    await socket.send(json.dumps({"command": "authenticate", "token": token}))
                except LostError:
                    pass  # it is fetched again when the connection has ended
            case "error":
                self._told = event.message or event.code or ""
                if event.id == 1:
                    raise RefusedError(self._told, event.code or "internal")
        self._tell(event)

    async def _next(self, socket: Socket) -> bytes:
        """The next frame.

        Raises:
            LostError: the gateway says nothing, and does not answer either.
            ConnectionClosed: it ended.
        """
        if self._on_wait is not None:
            try:
                async with asyncio.timeout(0):
                    return await socket.recv(decode=False)
            except TimeoutError:
                self._on_wait()
        try:
            async with asyncio.timeout(self._silence):
                return await socket.recv(decode=False)
        except TimeoutError:
            await socket.send('{"command":"ping"}')
        try:
            async with asyncio.timeout(self._timeout):
                return await socket.recv(decode=False)
        except TimeoutError:
            raise LostError("the gateway does not answer any more", "disconnected", 1006) from None

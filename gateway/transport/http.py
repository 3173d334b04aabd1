"""uvicorn's HTTP protocol with what it lacks: an end to waiting for a client.

Invariant: a connection that has not sent a whole request head within `head_seconds` is closed, at its start as well as
between two requests, however often it sends a byte; one that has taken no byte of its answer for `stall_seconds` is
cut. Connections whose request `guard` doesn't count, since there is none or it asks for our health, are limited here.
Bytes are parsed in small pieces, in turns with those of others, and charged to whoever sent them. What a request may
be is for `guard`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from gateway.access.budget import Accounts, Budget
from gateway.access.limits import Connections, LimitError, Refusals
from gateway.core.collector import Collections
from gateway.transport.handshakes import Handshake, plain_handshake
from gateway.transport.records import Records, let_go
from gateway.transport.scopes import is_health
from gateway.transport.turns import Turns
from gateway.transport.websockets import WebSocketProtocol

__all__ = ["EXTENSION", "USED_INTERNALS", "HttpProtocol", "origin_form"]

logger = logging.getLogger(__name__)


EXTENSION = "gateway.pace"
"""Key of `scope["extensions"]`: a function for answers that go at the client's pace. It takes how many bytes the system
may buffer, and returns a function that says how many bytes wait before it."""

PIECE_BYTES = 64 * 1024
"""Bytes of an answer that are handed to the transport at a time."""

STEP_BYTES = 4 * 1024
"""Bytes of a request that are parsed in one step: chunks may be a byte each."""

BACKLOG_BYTES = 64 * 1024
"""Bytes waiting for their turn at which no more is read."""

USED_INTERNALS = (
    "app", "app_state", "client", "config", "conn", "connection_lost", "connection_made", "connections", "cycle",
    "data_received", "flow", "handle_events", "handle_websocket_upgrade", "headers", "loop", "on_response_complete",
    "pause_writing", "resume_writing", "root_path", "scheme", "scope", "send_400_response", "server_state",
    "timeout_keep_alive_handler", "transport", "ws_protocol_class",
)  # fmt: skip
"""What of uvicorn's class this module relies on (uvicorn 0.54)."""


_ABSOLUTE = re.compile(rb"(?:https?|wss?)://([^/?#]+)(/[^?]*)?(\?.*)?", re.IGNORECASE | re.DOTALL)


def origin_form(target: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A request target without scheme and host, and the headers with that host in place of theirs (RFC 9112 §3.2.2).

    Proxies, and programs that take us for one, send `GET http://host/path`. Where Host is there twice it stays so: what
    two parties could read differently is refused.
    """
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return target, headers
    if sum(name == b"host" for name, _ in headers) == 1:
        headers = [(name, found[1] if name == b"host" else value) for name, value in headers]
    return (found[2] or b"/") + (found[3] or b""), headers


def _in_pieces(app: Any) -> Any:
    """An ASGI application whose answers are sent in pieces, each when there is room for it."""

    async def cut(scope: Any, receive: Any, send: Any) -> None:
        async def send_pieces(message: Any) -> None:
            body = message.get("body", b"")
            if len(body) > PIECE_BYTES:
                for start in range(0, len(body), PIECE_BYTES):
                    piece = body[start : start + PIECE_BYTES]
                    await send({"type": message["type"], "body": piece, "more_body": True})
                message = {**message, "body": b""}
            await send(message)

        await app(scope, receive, send_pieces)

    return cut


class _Flow(FlowControl):
    """Reading that goes on with what is here already, when the application wants more of a body."""

    def __init__(self, transport: asyncio.Transport, go_on: Callable[[], None]) -> None:
        super().__init__(transport)
        self._go_on = go_on

    def resume_reading(self) -> None:
        """The application waits for more."""
        super().resume_reading()
        self._go_on()

    def let_go(self) -> None:
        """The connection has left: nothing here goes on, and the protocol is free."""
        self._go_on = _nothing


def _nothing() -> None:
    pass


class HttpProtocol(H11Protocol):
    """HTTP/1.1 whose clients have to get to the point.

    Attributes:
        head_seconds: how long a request head may take, from the connection or from its first byte.
        stall_seconds: how long a client may take nothing of an answer that waits for it.
        max_buffer_bytes: how much of an answer the system may buffer, so that a slow reader's progress is seen.
        inherits_options: whether its socket has that from the one that listened.
        pending: counts connections that wait for a request, from their start and between two, or end.
        refusals: counts what was closed for it.
        accounts: who owes for what is read.
        turns: whose bytes are looked at next.
        collections: hears of answers that were cut off.
    """

    head_seconds = 10.0
    stall_seconds = 30.0
    max_buffer_bytes = 256 * 1024
    inherits_options = False
    pending = Connections(10_000, 1_000)
    refusals = Refusals()
    accounts: Accounts | None = None
    turns: Turns | None = None
    collections: Collections | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._pending_key: str | None = None
        self._has_left = False
        self._is_new = True  # nothing of it was parsed
        self._stall: asyncio.TimerHandle | None = None
        self._stalled_at = 0
        self._turns = self.turns or Turns()
        # not `or`: accounts of which nobody has used anything are empty
        self._budget = Budget(Accounts(time.monotonic) if self.accounts is None else self.accounts, None)
        self._backlog = bytearray()
        self._is_queued = False
        self._has_rest = False  # the parser has the beginning of a further request
        self._is_completing = False  # an answer ends
        self._pause: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connected."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self._was_taken)
        address = self.client[0] if self.client else None
        # who is behind a proxy is known when a request says so
        self._budget.charge_to(None if self.pending.is_shared(address) else address)
        try:
            self._pending_key = self.pending.open(address)
        except LimitError as error:
            self.refusals.count(error.limit)
            transport.abort()
            return
        # now: what the system has taken for a slow reader before it is bounded it doesn't give back
        if not self.inherits_options:
            self.pace(self.max_buffer_bytes)
        # an answer waits with whoever made it, and counts there, until there is room for its next piece
        self.app = _in_pieces(self.app)
        if self.scheme == "https":
            # the end of TLS has its time, so an answer has to have left before: a piece at a time, none before the last
            transport.set_write_buffer_limits(1, 0)
            if isinstance(tls := transport.get_extra_info("ssl_object"), Records):
                tls.take_turns(self._turns, self._budget, transport)
        else:
            transport.set_write_buffer_limits(self.max_buffer_bytes, self.max_buffer_bytes // 4)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        self._backlog += data
        self._budget.spend(size=len(data))
        self._count_unfinished()
        if not self._is_busy and self._deadline is None and not self.transport.is_closing():
            # the first bytes of a further request: uvicorn's own timer ends with them
            self._expect_head()
        self._go_on()

    def key(self) -> str | None:
        """What counts as its address."""
        return self._budget.key

    def step(self) -> bool:
        """Parses a piece of what has come; whether there is more that can be parsed now."""
        self._is_queued = False
        if self._is_over() or self._pause is not None:
            return False
        began = time.thread_time()
        try:
            self._parse_some()
        except Exception:
            logger.exception("what a client sent could not be parsed")
            self.transport.abort()
        self._recount()
        if self._is_busy:
            self._head_is_here()
        used = time.thread_time() - began
        self._turns.spend(used)
        self._budget.spend(used)
        if self._is_over():
            return False
        if (wait := self._budget.wait()) > 0:
            self.refusals.count("processor")
            self._pause = self.loop.call_later(wait, self._paid)
            self.transport.pause_reading()
        self._count_unfinished()
        self._is_queued = self._has_more() and self._may_step()
        if not self._is_queued:
            self._read_on()
        return self._is_queued

    def _parse_some(self) -> None:
        if self._has_rest:
            self._has_rest = False
            self.handle_events()
            return
        piece = bytes(self._backlog[:STEP_BYTES])
        del self._backlog[:STEP_BYTES]
        is_new, self._is_new = self._is_new, False
        if is_new and not self._backlog and (handshake := plain_handshake(piece)) is not None:
            self._upgrade(handshake)
        else:
            super().data_received(piece)

    def _has_more(self) -> bool:
        return self._has_rest or bool(self._backlog)

    def _is_over(self) -> bool:
        """Whether nothing more is to be parsed here."""
        return self._has_left or self.transport.is_closing()

    def _may_step(self) -> bool:
        # a body that its application does not take yet, or a further request before the answer to the last one
        return self._pause is None and not self._is_completing and (self._has_rest or not self.flow.read_paused)

    def _go_on(self) -> None:
        if not self._is_queued and self._has_more() and self._may_step() and not self.transport.is_closing():
            self._is_queued = True
            self._turns.ask(self, self.loop.call_soon)
        if len(self._backlog) > BACKLOG_BYTES and not self.transport.is_closing():
            self.transport.pause_reading()

    def _was_taken(self) -> None:
        """The application has taken what there was of a body, and wants more."""
        self._count_unfinished()
        self._go_on()

    def _paid(self) -> None:
        self._pause = None
        self._go_on()
        self._read_on()

    def _read_on(self) -> None:
        if len(self._backlog) <= BACKLOG_BYTES and self._may_step() and not self.transport.is_closing():
            self.transport.resume_reading()

    def _count_unfinished(self) -> None:
        """Counts what waits here: of requests, and of a body that its application does not take."""
        if self._is_over():
            return
        size = len(self._backlog) + (len(self.cycle.body) if self._is_busy else 0)
        if not self._budget.hold(size):
            self._refuse(503, "unfinished_bytes")

    def handle_events(self) -> None:
        """The scope of a request gets our extension, before its task runs."""
        if self._is_completing:
            # a further request waits for its turn, however many of them came in one piece
            self._has_rest = bool(self.conn.trailing_data[0])
            return
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            scope = cast("dict[str, Any]", self.scope)
            scope.setdefault("extensions", {})[EXTENSION] = self.pace
            if not scope["raw_path"].startswith(b"/", len(self.root_path)):
                self._take_origin_form(scope)

    def _take_origin_form(self, scope: dict[str, Any]) -> None:
        target, headers = origin_form(scope["raw_path"][len(self.root_path) :], scope["headers"])
        scope["path"] = self.root_path + unquote(target.decode("ascii"))
        scope["raw_path"] = self.root_path.encode("ascii") + target
        self.headers[:] = headers  # the scope's own list

    def send_400_response(self, msg: str) -> None:
        """What can't be read as a request, or as the rest of one."""
        self.refusals.count("bad_request")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        self._end()

    def pace(self, max_bytes: int) -> Callable[[], int]:
        """Bounds the system's buffer, as `transport` does for WebSockets; returns what says how much waits before it.

        Left alone it would grow to megabytes for a slow reader, whose progress then can't be seen for minutes.
        """
        # one that was closed since its request came has none any more
        found = None if self.transport.is_closing() else self.transport.get_extra_info("socket")
        if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max_bytes)
        return self.transport.get_write_buffer_size

    def on_response_complete(self) -> None:
        """A request is answered: the connection waits for the next one, or ends."""
        self._is_completing = True
        super().on_response_complete()
        self._is_completing = False
        self._recount()
        self._count_unfinished()
        self._go_on()
        if self.transport.is_closing() and self._stall is None and self.transport.get_write_buffer_size():
            self._watch_stall()

    def _upgrade(self, handshake: Handshake) -> None:
        """A whole handshake came, as browsers send it: it is answered without being parsed again."""
        self._leave()
        self.connections.discard(self)
        protocol = cast("type[WebSocketProtocol]", self.ws_protocol_class)(
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        protocol.take_over(self, handshake)
        self.transport.set_protocol(protocol)
        self._hand_over(protocol)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Another protocol takes over, which counts the connection itself."""
        self._leave()
        target, self.headers = origin_form(event.target, self.headers)
        if target is not event.target:  # of the event its method and its target are looked at
            event = h11.Request(
                method=event.method, target=target, headers=self.headers, http_version=event.http_version
            )
        super().handle_websocket_upgrade(event)
        self._hand_over(self.transport.get_protocol())

    def _leave(self) -> None:
        self._has_left = True
        self._budget.hold(0)
        self._head_is_here()
        self.transport.set_write_buffer_limits()

    def _hand_over(self, protocol: asyncio.BaseProtocol) -> None:
        if isinstance(protocol, WebSocketProtocol):
            protocol.expect_handshake(self._budget, self.pending, self._pending_key)
            self._pending_key = None
        self._uncount()
        cast("_Flow", self.flow).let_go()

    def cut(self) -> None:
        """Ends the connection at once; to who answers on it the client has gone."""
        self._say_that_it_left()
        self.transport.abort()

    def _say_that_it_left(self) -> None:
        if self._is_busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _refuse(self, status: int, reason: str) -> None:
        """Ends the connection with an answer of ours, unless another one is under way."""
        self.refusals.count(reason)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
            self.transport.write(line.encode() + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self._end()

    def _end(self) -> None:
        """Closes the connection when what was written has left; to who answers on it the client has gone."""
        self._say_that_it_left()
        self._backlog.clear()
        self.transport.close()
        self._cut_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._has_left = True
        self._head_is_here()
        let_go(self.transport)
        self._budget.hold(0)
        self._uncount()
        self._stop_stall()
        if self._pause is not None:
            self._pause.cancel()
        if self.collections is not None and self._is_busy:
            self.collections.cut_off()
        super().connection_lost(exc)
        # what holds itself would stay until the collector comes
        if isinstance(self.flow, _Flow):
            self.flow.let_go()
        self.cycle = self.scope = cast("Any", None)

    def pause_writing(self) -> None:
        """The write buffer is full: the client reads more slowly than we write, or not at all."""
        super().pause_writing()
        if self._stall is None:
            self._watch_stall()

    def resume_writing(self) -> None:
        """The write buffer has drained."""
        self._stop_stall()
        super().resume_writing()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._watch_stall()

    def _watch_stall(self) -> None:
        self._stalled_at = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self.stall_seconds, self._check_stall)

    def _check_stall(self) -> None:
        self._stall = None
        if self.transport.get_write_buffer_size() < self._stalled_at:
            self._watch_stall()  # slow, but it reads
            return
        self.refusals.count("stall_seconds")
        # not close(): that would wait for the buffer
        self.transport.abort()

    def _stop_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came after the last answer."""
        super().timeout_keep_alive_handler()
        self._cut_later()

    def _cut_later(self) -> None:
        """Sees to it that a connection that is being closed ends, though the client may never read the rest."""
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._stop_stall()
            self._stall = self.loop.call_later(self.stall_seconds, self.transport.abort)

    @property
    def _is_busy(self) -> bool:
        """Whether a request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and not cycle.response_complete

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _recount(self) -> None:
        """Counts the connection as pending unless a request is being answered that `guard` counts."""
        if self._has_left:
            return
        if self._is_busy and not is_health(cast("dict[str, Any]", self.scope)):
            self._uncount()
        elif self._pending_key is None:
            try:
                self._pending_key = self.pending.open(self.client[0] if self.client else None)
            except LimitError as error:
                # it has its answer; a client whose connection ends between two requests opens another
                self.refusals.count(error.limit)
                self.transport.close()

    def _uncount(self) -> None:
        if self._pending_key is not None:
            self.pending.close(self._pending_key)
            self._pending_key = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing() or self._is_busy:
            return
        self._refuse(408, "handshake_seconds")

"""The only subclass of uvicorn's WebSocket protocol: it lends the connection to a sink after the handshake.

Invariant: bytes of the hub go to the transport as they are, and uvicorn stays in charge of everything else: handshake,
frames of the client, close handshake. The internals used are listed in `USED_INTERNALS` and held by a contract test.

After the handshake the ASGI application may return and leave the connection to a `Receiver`: no task, no coroutine, no
queue and no request stay behind for an idle browser (benchmark S4: memory per connection).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

from gateway.access.limits import Refusals
from gateway.core.protocol import CloseCode

__all__ = ["EXTENSION", "ON_LOST", "PING", "USED_INTERNALS", "Receiver", "SocketSink", "WebSocketProtocol"]

logger = logging.getLogger(__name__)


EXTENSION = "gateway.adopt"
"""Key of `scope["extensions"]`: a function that takes a `Receiver` and returns a sink."""

ON_LOST = "gateway.on_lost"
"""Key of `scope["extensions"]`: a function that takes what to call when the socket is gone, not only closing."""

LINGER_SECONDS = 2.0
"""Time for which what follows a broken frame is read and dropped."""

CLOSE_SECONDS = 3.0
"""How long a close frame may wait for its echo; the socket counts as a connection until then."""

USED_INTERNALS = (
    "app",
    "close_sent",
    "close_timer",
    "close_timeout",
    "conn",
    "connection_lost",
    "curr_msg_data_type",
    "data_received",
    "disconnected",
    "frames",
    "handle_close",
    "handle_connect",
    "handle_parser_exception",
    "handshake_complete",
    "handshake_initiated",
    "loop",
    "pause_writing",
    "queue",
    "read_paused",
    "receive",
    "request",
    "response",
    "resume_writing",
    "run_asgi",
    "scope",
    "send",
    "send_500_response",
    "send_receive_event_to_app",
    "shutdown",
    "transport",
)
"""What of uvicorn's class, beyond ASGI, this module relies on (uvicorn 0.54)."""

PING = b"\x89\x00"
"""A ping without payload (RFC 6455 §5.5.2)."""

# A peer that vanished without a word is noticed by the kernel: nothing to do here for each connection and interval.
TCP_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))

VANISHED = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}
"""How the system says that it has given up a connection itself."""


class Receiver(Protocol):
    """Who gets what the client sends, and hears of the socket's state."""

    def receive(self, data: str | bytes) -> None:
        """One whole message of the client."""

    def socket_full(self) -> None:
        """The write buffer is over its limit."""

    def socket_drained(self) -> None:
        """The write buffer is down to a quarter of its limit."""

    def disconnected(self) -> None:
        """The connection is gone or going; nothing may be written any more."""


class _NoQueue:
    """Takes the place of the ASGI queue of an adopted connection: nobody reads it."""

    def put_nowait(self, event: object) -> None:
        pass


_NO_QUEUE = _NoQueue()


class SocketSink:
    """The write side of one WebSocket connection."""

    __slots__ = ("_protocol", "write")

    def __init__(self, protocol: WebSocketProtocol) -> None:
        self._protocol: WebSocketProtocol = protocol
        # the transport's own method: a flush calls it for every member of a group
        self.write: Callable[[bytes], None] = protocol.transport.write

    def buffered(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._protocol.transport.get_write_buffer_size()

    def close(self, code: CloseCode, reason: str) -> None:
        """Starts the closing handshake; a socket that takes nothing is cut."""
        self._protocol.close(code, reason)

    def pause_reading(self) -> None:
        """Takes no more commands for now."""
        self._protocol.transport.pause_reading()

    def resume_reading(self) -> None:
        """Takes commands again."""
        if not self._protocol.transport.is_closing():
            self._protocol.transport.resume_reading()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's sans-I/O WebSocket protocol whose connections can be adopted."""

    max_buffer_bytes = 256 * 1024
    """Unsent bytes above which a subscriber is slow; `server.serve` sets it."""

    gone_seconds = 90.0
    """Time without progress after which a socket that is sent something is given up; `server.serve` sets it."""

    refusals: Refusals | None = None
    """Counts commands that were too large, and clients that were silent; `server.serve` sets it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receiver: Receiver | None = None
        self._is_adopted = False  # the application is done with the connection
        self._is_pinged = False  # nothing has come since the last ping
        self._unsent = 0  # what waited in the buffer at the last round of pings, if it has not drained since
        self._on_lost: Callable[[], None] | None = None
        self.close_timeout = CLOSE_SECONDS

    def handle_connect(self, event: Any) -> None:
        """The scope of an opening handshake gets our extension."""
        super().handle_connect(event)
        if self.handshake_initiated and not self.close_sent:
            cast("dict[str, Any]", self.scope["extensions"]).update(
                {EXTENSION: self.adopt, ON_LOST: self.call_when_lost}
            )

    def call_when_lost(self, function: Callable[[], None]) -> None:
        """Calls a function, one for each connection, when the socket is gone."""
        if self.disconnected:
            function()
        else:
            self._on_lost = function

    def adopt(self, receiver: Receiver) -> SocketSink:
        """Hands the accepted connection over; the ASGI application returns after this."""
        if not self.handshake_complete or self.disconnected or self.transport.is_closing():
            raise ClientDisconnected
        self._receiver = receiver
        self.transport.set_write_buffer_limits(high=self.max_buffer_bytes, low=self.max_buffer_bytes // 4)
        found = self.transport.get_extra_info("socket")
        if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
            # the system would let its own buffer grow to megabytes for a reader that doesn't read: memory that nobody
            # counts, and news that are old before they leave
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.max_buffer_bytes)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # keep-alive is silent while data is under way; and if too little is to make it slow, nobody else looks
            gone = ("TCP_USER_TIMEOUT", int(self.gone_seconds * 1000))
            for name, value in (*TCP_KEEPALIVE, gone):
                if hasattr(socket, name):
                    found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return SocketSink(self)

    async def run_asgi(self) -> None:
        """Runs the application; an adopted connection outlives it."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            logger.exception("WebSocket endpoint failed")
            if self.handshake_complete:
                self.close(CloseCode.INTERNAL, "")
            else:
                self.send_500_response()
        if self._receiver is None:
            if self.close_timer is None:
                self.transport.close()
            return
        # what only the handshake needed
        while not self.queue.empty():
            event = self.queue.get_nowait()
            if event["type"] == "websocket.receive":
                self._deliver(event.get("text") or event.get("bytes") or "")
        self.queue = cast("Any", _NO_QUEUE)
        self._is_adopted = True
        del self.scope, self.request, self.response
        if self.read_paused:
            self.read_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client, which is therefore there."""
        self._is_pinged = False
        if self.conn.parser_exc is None:  # what follows a broken frame means nothing
            super().data_received(data)

    async def send(self, message: Any) -> None:
        """What the application sends; a close waits for no room in the buffer."""
        if message["type"] == "websocket.close" and self.handshake_complete and not self.disconnected:
            self.close(message.get("code", CloseCode.NORMAL), message.get("reason") or "")
        else:
            await super().send(message)

    def ping(self) -> None:
        """One round of keep-alive: a client that has been silent since the last one is closed."""
        if not self.handshake_complete or self._receiver is _GONE or self.close_sent or self.transport.is_closing():
            return
        unsent, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if self._unsent:
            # a ping would wait behind the data; whether a subscriber's make progress the hub watches
            if self._receiver is None and unsent == self._unsent:
                self._count("stall_seconds")
                self.close(CloseCode.SLOW, "took no data for too long")
            return
        if not self.transport.is_reading():
            self._is_pinged = False  # it is we who don't listen
            return
        if self._is_pinged:
            self._count("idle_seconds")
            self.close(CloseCode.IDLE, "no answer to a ping")
            return
        self._is_pinged = True
        self.transport.write(PING)

    def send_receive_event_to_app(self) -> None:
        """A whole message of the client: straight to the receiver."""
        if not self._is_adopted:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "text":
            try:
                self._deliver(data.decode())
            except UnicodeDecodeError:  # RFC 6455 §8.1
                self._count("bad_frame")
                self.close(CloseCode.NOT_UTF8, "text that is not UTF-8")
                # failing a connection is not waiting for an answer (RFC 6455 §7.1.7)
                self.transport.close()
        else:
            self._deliver(bytes(data))

    def _deliver(self, data: str | bytes) -> None:
        if self._receiver is not None and not self.close_sent:
            self._receiver.receive(data)

    def close(self, code: int, reason: str) -> None:
        """Sends a close frame after what is buffered, and waits a while for its echo."""
        if self.close_sent or self.transport.is_closing():
            return
        if self.conn.state is not OPEN:
            return  # what ends it came in the same piece as what we complain about, and is handled next
        self._detach()
        encoded = reason.encode()[:120].decode(errors="ignore")  # RFC 6455 §5.5: 125 bytes with the code
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": encoded})
        self.conn.send_close(code, encoded)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # a full buffer means that the close frame will not leave either
        is_stuck = self.transport.get_write_buffer_size() > self.max_buffer_bytes // 4
        self.close_timer = self.loop.call_later(1.0 if is_stuck else self.close_timeout, self._end)

    def _end(self) -> None:
        """The closing handshake has taken long enough."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # close() would wait for a client that doesn't read
        else:
            self.transport.close()

    def _count(self, reason: str) -> None:
        if self.refusals is not None:
            self.refusals.count(reason)

    def _detach(self) -> None:
        receiver, self._receiver = self._receiver, _GONE if self._receiver is not None else None
        if receiver is not None and receiver is not _GONE:
            receiver.disconnected()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if isinstance(exc, OSError) and exc.errno in VANISHED:
            self._count("idle_seconds")
        self._detach()
        super().connection_lost(exc)
        if self._on_lost is not None:
            self._on_lost()
            self._on_lost = None

    def handle_close(self, event: Any) -> None:
        """The client closes, or answers our close."""
        self._detach()
        super().handle_close(event)

    def handle_parser_exception(self) -> None:
        """The client broke the protocol: it gets the close code of the rule, and time to read it.

        Closed at once, with a part of the frame still on its way, the system would reset the connection, and the page
        would see 1006 in place of the reason.
        """
        sent = self.conn.close_sent
        assert sent is not None  # noqa: S101 - whatever the parser objects to it has also answered
        self._count("command_bytes" if sent.code == CloseCode.TOO_LARGE else "bad_frame")
        self._detach()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if not self.transport.is_reading():
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self._end)

    def shutdown(self) -> None:
        """The server stops: a reconnectable close."""
        if self._receiver is not None and self.handshake_complete and not self.close_sent:
            self.close(CloseCode.RESTART, "the gateway stops")
            if self.transport.get_write_buffer_size() > self.max_buffer_bytes // 4:
                self.transport.abort()  # it doesn't read: it won't read the close either
            else:
                self.transport.close()
            return
        self._detach()
        super().shutdown()

    def pause_writing(self) -> None:
        """The transport's buffer is over the limit."""
        super().pause_writing()
        if self._receiver is not None:
            self._receiver.socket_full()

    def resume_writing(self) -> None:
        """The transport's buffer has drained."""
        super().resume_writing()
        self._unsent = 0
        if self._receiver is not None:
            self._receiver.socket_drained()


class _Gone:
    """Receiver of a connection that is closing."""

    def receive(self, data: str | bytes) -> None:
        pass

    def socket_full(self) -> None:
        pass

    def socket_drained(self) -> None:
        pass

    def disconnected(self) -> None:
        pass


_GONE: Receiver = _Gone()

"""The only subclass of uvicorn's WebSocket protocol: it lends the connection to a sink after the handshake.

Invariant: bytes of the hub go to the transport as they are, and uvicorn stays in charge of everything else: handshake,
frames of the client, close handshake. The internals used are listed in `USED_INTERNALS` and held by a contract test.

After the handshake the ASGI application may return and leave the connection to a `Receiver`: no task, no coroutine, no
queue and no request stay behind for an idle browser (benchmark S4: memory per connection).

It is long because frames, keep-alive, limits and both ends of a connection share the state of one subclass, of which
there may be only one.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, Literal, Protocol, cast
from urllib.parse import unquote

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CTRL_OPCODES, Frame
from websockets.protocol import OPEN
from websockets.protocol import Protocol as FramesOnly
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from gateway.access.budget import Accounts, Budget, Pace
from gateway.access.limits import Client, Connections, Refusals
from gateway.core.protocol import CloseCode
from gateway.transport.endings import Endings
from gateway.transport.handshakes import Handshake, accepted
from gateway.transport.records import let_go
from gateway.transport.rounds import Rounds
from gateway.transport.sockets import bound
from gateway.transport.turns import Turns

__all__ = ["CHARGE", "EXTENSION", "ON_LOST", "PING", "USED_INTERNALS", "Receiver", "SocketSink", "WebSocketProtocol"]

logger = logging.getLogger(__name__)


EXTENSION = "gateway.adopt"
"""Key of `scope["extensions"]`: a function that takes a `Receiver` and returns a sink. Where the connection is not
accepted yet it accepts it, with the subprotocol that is its second argument."""

ON_LOST = "gateway.on_lost"
"""Key of `scope["extensions"]`: a function that takes what to call when the socket is gone, not only closing."""

CHARGE = "gateway.charge"
"""Key of `scope["extensions"]`: a function that takes the address that pays for what the connection uses."""

STEP_FRAMES = 32
"""Pings, pongs and fragments that are one step; a whole message is one, too."""

BACKLOG_BYTES = 64 * 1024
"""Bytes waiting for their turn at which no more is read."""

MAX_FRAGMENTS = 1_024
"""A message in more pieces than that is none that a browser sends."""

FRAGMENT_BYTES = 96
"""What a fragment takes beside its bytes."""

LINGER_SECONDS = 2.0
"""Time for which what follows a broken frame is read and dropped."""

CLOSE_SECONDS = 3.0
"""How long a close frame may wait for its echo; the socket counts as a connection until then."""

USED_INTERNALS = (
    "app",
    "app_state",
    "asgi_version",
    "client",
    "close_sent",
    "close_timeout",
    "close_timer",
    "conn",
    "connection_lost",
    "connection_made",
    "connections",
    "curr_msg_data_type",
    "data_received",
    "default_headers",
    "disconnected",
    "eof_received",
    "frames",
    "handle_close",
    "handle_connect",
    "handle_cont",
    "handle_events",
    "handle_parser_exception",
    "handshake_complete",
    "handshake_initiated",
    "initial_response",
    "loop",
    "on_task_complete",
    "pause_writing",
    "queue",
    "read_paused",
    "receive",
    "request",
    "response",
    "resume_writing",
    "root_path",
    "run_asgi",
    "scheme",
    "scope",
    "send",
    "send_500_response",
    "send_receive_event_to_app",
    "server",
    "shutdown",
    "tasks",
    "transport",
)
"""What of uvicorn's class, beyond ASGI, this module relies on (uvicorn 0.54)."""

PING = b"\x89\x00"
"""A ping without payload (RFC 6455 §5.5.2)."""

PONG_HEAD = b"\x8a\x80"
PONG_BYTES = 6
"""Its answer (RFC 6455 §5.5.3): this head and a mask."""

VANISHED = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}
"""How the system says that it has given up a connection itself."""


class HttpConnection(Protocol):
    """What is known of a connection whose request was read."""

    transport: asyncio.Transport
    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: Literal["http", "https"] | None


class Receiver(Protocol):
    """Who gets what the client sends, and hears of the socket's state."""

    def receive(self, data: str | bytes) -> None:
        """One whole message of the client."""

    def socket_full(self) -> None:
        """The write buffer is over its limit."""

    def socket_drained(self) -> None:
        """The write buffer is down to a quarter of its limit."""

    def disconnected(self) -> None:
        """The connection is gone or going: nothing may be written any more. Thousands may go in one turn."""

    def end(self) -> None:
        """What else is to be done then: after `disconnected`, in a later turn where many go at once."""


class _Reader(StreamReader):
    """Lets the parser stop where a step ends: between two frames, although more are there.

    Attributes:
        is_held: it has stopped there.
        is_between: it waits for the first byte of a frame.
    """

    def __init__(self, conn: ServerProtocol) -> None:
        super().__init__()
        self._conn = conn
        self.is_held = False
        self.is_between = False

    def let_go(self) -> None:
        """The connection is gone: nothing is parsed any more, and parser and protocol no longer hold each other.

        What holds itself would stay until the collector comes, which with many connections it does not (`collector`).
        """
        self._conn.parser.close()
        self._conn.reader = StreamReader()
        del self._conn

    def at_eof(self) -> Generator[None, None, bool]:
        """What the parser asks before each frame."""
        while self.buffer and (events := self._conn.events):
            last = events[-1]
            is_part = isinstance(last, Frame) and (last.opcode in CTRL_OPCODES or not last.fin)
            if is_part and len(events) < STEP_FRAMES:
                break
            self.is_held = True
            yield
        self.is_held = False
        self.is_between = True
        at_end = yield from super().at_eof()
        self.is_between = False
        return at_end


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

    def greet(self, greeting: bytes) -> None:
        """Sends this together with what is written first, or when the application returns: one packet for both."""

        def write(data: bytes) -> None:
            self.write = self._protocol.transport.write
            self._protocol.has_greeted()
            self.write(greeting + data)

        self.write = write

    def buffered(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._protocol.transport.get_write_buffer_size()

    def close(self, code: CloseCode, reason: str) -> None:
        """Starts the closing handshake; a socket that takes nothing is cut."""
        self._protocol.close(code, reason)

    def pause_reading(self) -> None:
        """Takes no more commands for now."""
        self._protocol.hold_input(True)

    def resume_reading(self) -> None:
        """Takes commands again."""
        self._protocol.hold_input(False)

    def allow_message(self, max_bytes: int) -> None:
        """Says how large a message of the client may be from here on."""
        self._protocol.allow_message(max_bytes)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's sans-I/O WebSocket protocol whose connections can be adopted."""

    max_buffer_bytes = 256 * 1024
    """Unsent bytes above which a subscriber is slow; `server.serve` sets it."""

    gone_seconds = 90.0
    """Time without progress after which a socket that is sent something is given up; `server.serve` sets it."""

    inherits_options = False
    """Whether its socket has what `sockets.bound` sets from the one that listened; `server.serve` sets it."""

    refusals: Refusals | None = None
    """Counts commands that were too large, and clients that were silent; `server.serve` sets it."""

    head_seconds = 10.0
    """How long a handshake may take to be answered, and a message to be finished beside the time for its size;
    `server.serve` sets it."""

    accounts: Accounts | None = None
    """Who owes for what is read; `server.serve` sets it."""

    turns: Turns | None = None
    """Whose bytes are looked at next; `server.serve` sets it."""

    rounds: Rounds[WebSocketProtocol] | None = None
    """Who is pinged when; `server.serve` sets it."""

    endings: Endings | None = None
    """What is left to do for those who have gone; `server.serve` sets it."""

    _key = b""  # of the handshake
    _silent_sink: SocketSink | None = None  # on which its answer has yet to be written

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        conn = self.conn
        self._reader = conn.reader = _Reader(conn)
        self._turns = self.turns or Turns()
        # not `or`: endings of which none waits are empty
        self._endings = Endings() if self.endings is None else self.endings
        # not `or`: accounts of which nobody has used anything are empty
        self._budget = Budget(Accounts(time.monotonic) if self.accounts is None else self.accounts, None)
        self._is_queued = False  # it has asked for a turn
        self._is_held = False  # its receiver takes nothing for now
        self._is_full = False  # the write buffer is over its limit: an answer would need room, too
        self._reads = True
        self._pause: asyncio.TimerHandle | None = None  # until what it used is paid off
        self._pace: Pace | None = None  # of a message that is not finished
        self._pace_timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._pending: Connections | None = None
        self._pending_key = ""
        self._receiver: Receiver | None = None
        self._is_adopted = False  # the application is done with the connection
        self._has_ended = False  # the client sends nothing more, and the socket is closed when there is time
        self._is_pinged = False  # nothing has come since the last ping
        self._unsent = 0  # what waited in the buffer at the last round of pings, if it has not drained since
        self._on_lost: Callable[[], None] | None = None
        self.close_timeout = CLOSE_SECONDS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The bytes of a handshake follow, to be parsed."""
        super().connection_made(transport)
        self._parse_with(self.conn.parse())

    def take_over(self, http: HttpConnection, handshake: Handshake) -> None:
        """Goes on with a connection whose handshake was read already, and is in order."""
        self._parse_with(FramesOnly.parse(self.conn))
        self.connections.add(self)
        self.transport, self.server, self.client = http.transport, http.server, http.client
        self.scheme = "wss" if http.scheme == "https" else "ws"
        if self.rounds is not None:
            self.rounds.add(self)
        self._key = handshake.key
        self.request = self.response = cast("Any", None)  # nobody has to read or to make them
        path, _, query = handshake.target.partition(b"?")
        self.scope = {
            "type": "websocket",
            "asgi": {"version": self.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": self.root_path + unquote(path.decode("ascii")),
            "raw_path": self.root_path.encode("ascii") + path,
            "query_string": query,
            "headers": handshake.headers,
            "subprotocols": handshake.subprotocols,
            "state": self.app_state.copy(),
            "extensions": cast("Any", {"websocket.http.response": {}}),
        }
        self._extend(self.scope)
        self.handshake_initiated = True
        self.queue.put_nowait({"type": "websocket.connect"})
        task = self.loop.create_task(self.run_asgi())
        task.add_done_callback(self.on_task_complete)
        self.tasks.add(task)

    def _parse_with(self, parser: Generator[None]) -> None:
        self.conn.parser = parser
        next(parser)

    def _extend(self, scope: Any) -> None:
        scope["extensions"].update({EXTENSION: self.adopt, ON_LOST: self.call_when_lost, CHARGE: self.charge_to})

    def handle_connect(self, event: Any) -> None:
        """The scope of an opening handshake gets our extension; another version is told ours (RFC 6455 §4.2.2)."""
        if event.headers.get_all("Sec-WebSocket-Version") != ["13"]:
            text = "Only version 13 of the WebSocket protocol is spoken here.\n"
            self._refuse_handshake(426, text, Upgrade="websocket", Sec_WebSocket_Version="13")
            return
        super().handle_connect(event)
        if self.rounds is not None:
            self.rounds.add(self)
        if self.response.status_code != 101:
            self._count("headers")
        if self.handshake_initiated and not self.close_sent:
            self._key = event.headers["Sec-WebSocket-Key"].encode("ascii")
            self._extend(self.scope)

    def expect_handshake(self, budget: Budget, pending: Connections, key: str | None) -> None:
        """Takes over from the protocol that read the request: until a route has counted it, the connection is pending.

        Args:
            budget: what the connection uses.
            pending: counts connections that wait for something.
            key: under which this one is counted there.
        """
        self._budget = budget
        if key is not None:
            self._pending, self._pending_key = pending, key
        self._deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def charge_to(self, address: Client) -> None:
        """Says who pays from here on: the client that a proxy names."""
        self._budget.charge_to(address)

    def _too_slow(self) -> None:
        self._deadline = None
        self._count("handshake_seconds")
        self.transport.abort()

    def _uncount(self) -> None:
        if self._pending is not None:
            self._pending.close(self._pending_key)
            self._pending = None

    def call_when_lost(self, function: Callable[[], None]) -> None:
        """Calls a function, one for each connection, when the socket is gone."""
        self._uncount()
        if self.disconnected:
            function()
        else:
            self._on_lost = function

    def adopt(self, receiver: Receiver, subprotocol: str | None = None) -> SocketSink:
        """Hands the connection over, accepted now if it is not yet; the ASGI application returns after this.

        It must not wait for anything in between.
        """
        if self.disconnected or self.transport.is_closing():
            raise ClientDisconnected
        sink = SocketSink(self)
        if not self.handshake_complete:
            sink.greet(self._opening(subprotocol))
            self._silent_sink = sink
        self._receiver = receiver
        self.transport.set_write_buffer_limits(high=self.max_buffer_bytes, low=self.max_buffer_bytes // 4)
        if not self.inherits_options:
            bound(self.transport.get_extra_info("socket"), self.max_buffer_bytes, self.gone_seconds)
        return sink

    def has_greeted(self) -> None:
        """The answer to the handshake is written."""
        self._silent_sink = None

    def _greet(self) -> None:
        if self._silent_sink is not None and not self.transport.is_closing():
            self._silent_sink.write(b"")

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
        self._greet()
        # what only the handshake needed
        early: list[str | bytes] = []
        while not self.queue.empty():
            event = self.queue.get_nowait()
            if event["type"] == "websocket.receive":
                early.append(event.get("text") or event.get("bytes") or "")
        self.queue = cast("Any", _NO_QUEUE)
        self._is_adopted = True
        for data in early:
            self._deliver(data)
        del self.scope, self.request, self.response
        self.read_paused = False
        self._go_on()

    # input

    def data_received(self, data: bytes) -> None:
        """Bytes of the client, which is therefore there."""
        if self._is_pinged:
            self._is_pinged = False
            if self._is_pong(data):
                return
        if self.conn.parser_exc is not None:  # what follows a broken frame means nothing
            return
        self._reader.feed_data(data)
        self._budget.spend(size=len(data))
        self._go_on()

    def _is_pong(self, data: bytes) -> bool:
        """Whether this is the answer to our ping and nothing else: it need not be parsed, and one for each is free."""
        if len(data) != PONG_BYTES or not data.startswith(PONG_HEAD):
            return False
        return self._reader.is_between and not self._reader.buffer and self.conn.state is OPEN

    def key(self) -> str | None:
        """What counts as its address."""
        return self._budget.key

    def step(self) -> bool:
        """Handles one message, or a few frames of other kinds; whether there is more that can be handled now."""
        self._is_queued = False
        if not self._may_step() or self._is_over():
            self._update_reading()
            return False
        began = time.thread_time()
        self.conn.receive_data(b"")
        frames = len(self.conn.events)
        try:
            if self.conn.parser_exc is not None:
                self.handle_parser_exception()
            elif self.conn.handshake_exc is not None and not self.handshake_initiated:
                self._refuse_handshake(400, "This can't be read as the handshake of a WebSocket.\n")
            else:
                self.handle_events()
        except Exception:
            logger.exception("what a client sent could not be handled")
            self.transport.abort()
        used = time.thread_time() - began
        self._turns.spend(used)
        self._budget.spend(used, frames)
        if (wait := self._budget.wait()) > 0 and self._pause is None:
            self._count("processor")
            self._pause = self.loop.call_later(wait, self._paid)
        self._watch_unfinished()
        self._is_queued = self._reader.is_held and self._may_step()
        self._update_reading()
        return self._is_queued

    def hold_input(self, is_held: bool) -> None:
        """Takes nothing of the client for now, or again."""
        self._is_held = is_held
        self._go_on()

    def allow_message(self, max_bytes: int) -> None:
        """Says how large a message may be from here on."""
        self.conn.max_size = max_bytes

    async def receive(self) -> Any:
        """What the client sent, for an application that asks; the next message is taken when this one is."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._go_on()
        return message

    def _is_over(self) -> bool:
        """Whether nothing more is to be read here."""
        return self._has_ended or self.transport.is_closing()

    def _may_step(self) -> bool:
        if self._pause is not None:
            return False
        return self.close_sent or not (self._is_held or self._is_full or self.read_paused)

    def _go_on(self) -> None:
        if not self._is_queued and self._reader.buffer and self._may_step() and not self._is_over():
            self._is_queued = True
            self._turns.ask(self, self.loop.call_soon)
        self._update_reading()

    def _paid(self) -> None:
        self._pause = None
        self._go_on()

    def _update_reading(self) -> None:
        """Reads unless there is enough that waits, or nothing may be done with more."""
        if self._is_over():
            return
        reads = self._may_step() and not (self._is_queued and len(self._reader.buffer) > BACKLOG_BYTES)
        if reads != self._reads:
            self._reads = reads
            (self.transport.resume_reading if reads else self.transport.pause_reading)()

    def _watch_unfinished(self) -> None:
        """Counts what is held of a message that is not finished, and gives it a time."""
        size = self._unfinished()
        if not self._budget.hold(size):
            self._count("unfinished_bytes")
            self._fail(CloseCode.BUSY, "too much that is not finished waits here; come back later")
            return
        if not size or self._reader.is_held:
            if self._pace_timer is not None:
                self._pace_timer.cancel()
            self._pace = self._pace_timer = None
        elif self._pace is None:
            self._pace = Pace(self.loop.time(), self.head_seconds)
            self._pace_timer = self.loop.call_later(self.head_seconds, self._check_pace)

    def _unfinished(self) -> int:
        return len(self._reader.buffer) + sum(map(len, self.frames)) + FRAGMENT_BYTES * len(self.frames)

    def _check_pace(self) -> None:
        if self._has_ended:
            return
        assert self._pace is not None  # noqa: S101 - the timer is cancelled with it
        now = self.loop.time()
        if not self._reads:
            self._pace.began = now  # it is we who don't listen
        left = self._pace.deadline(self._unfinished()) - now
        if left > 0:
            self._pace_timer = self.loop.call_later(left, self._check_pace)
            return
        self._pace_timer = None
        self._count("message_seconds")
        self._fail(CloseCode.IDLE, "a message was not finished in time")

    def _refuse_handshake(self, status: int, text: str, **headers: str) -> None:
        """What is no handshake that we know, though another parser took it for a request, is answered and closed."""
        self._count("headers")
        answer = self.conn.reject(status, text)
        for name, value in headers.items():
            answer.headers[name.replace("_", "-")] = value
        self.close_sent = True
        self.transport.write(answer.serialize())
        self.transport.close()

    def handle_cont(self, event: Any) -> None:
        """A further piece of a message."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self._count("command_bytes")
            self._fail(CloseCode.TOO_LARGE, f"a message in more than {MAX_FRAGMENTS} pieces")

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Ends the connection as one that broke a rule: nothing that follows is looked at."""
        self.frames = []
        self._reader.discard()
        self._budget.hold(0)
        if not self.close_sent and self.conn.state is OPEN:
            self.conn.fail(code, reason)
            self._linger()

    async def send(self, message: Any) -> None:
        """What the application sends; a close waits for no room in the buffer."""
        if message["type"] == "websocket.close" and self.handshake_complete and not self.disconnected:
            self.close(message.get("code", CloseCode.NORMAL), message.get("reason") or "")
        else:
            if message["type"] == "websocket.accept" and not self.handshake_complete:
                self.transport.write(self._opening(message.get("subprotocol"), message.get("headers", ())))
                self._go_on()
            else:
                await super().send(message)

    def _opening(self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """The answer that opens the connection, which is open from here on."""
        if self.disconnected or self.transport.is_closing():
            raise ClientDisconnected
        if self.initial_response is not None:
            raise RuntimeError("the handshake is refused already")
        headers = [*self.default_headers, *headers]
        if subprotocol:
            headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
        self.handshake_complete = True
        self.conn.state = OPEN
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return accepted(self._key, headers)

    def ping(self) -> None:
        """One round of keep-alive: a client that has been silent since the last one is closed."""
        if not self.handshake_complete or self._receiver is _GONE or self.close_sent or self._is_over():
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
        """A whole message of the client: straight to the receiver, or to the application, which takes one at a time."""
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "text":
            try:
                text = data.decode()
            except UnicodeDecodeError:  # RFC 6455 §8.1
                self._count("bad_frame")
                self.close(CloseCode.NOT_UTF8, "text that is not UTF-8")
                # failing a connection is not waiting for an answer (RFC 6455 §7.1.7)
                self.transport.close()
            else:
                self._deliver(text)
        else:
            self._deliver(bytes(data))

    def _deliver(self, data: str | bytes) -> None:
        if self.close_sent:
            return
        if not self._is_adopted:
            kind = "text" if isinstance(data, str) else "bytes"
            self.queue.put_nowait(cast("Any", {"type": "websocket.receive", kind: data}))
            self.read_paused = True
        elif self._receiver is not None:
            self._receiver.receive(data)

    def close(self, code: int, reason: str) -> None:
        """Sends a close frame after what is buffered, and waits a while for its echo."""
        if self.close_sent or self._is_over():
            return
        if self.conn.state is not OPEN:
            return  # what ends it came in the same piece as what we complain about, and is handled next
        self._greet()
        self._detach()
        encoded = reason.encode()[:120].decode(errors="ignore")  # RFC 6455 §5.5: 125 bytes with the code
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": encoded})
        self.conn.send_close(code, encoded)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._go_on()
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
            self._endings.ask(receiver.end, self.loop.call_soon)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client ends the connection: it is written nothing from here on, and closed when there is time.

        Closing takes the loop and the system ten times as long as noticing the end, and thousands may end in one turn.
        """
        if not self._is_adopted or self.scheme == "wss":
            return False  # the loop closes it; over TLS it does so in any case
        self._has_ended = True
        receiver, self._receiver = self._receiver or _GONE, _GONE
        receiver.disconnected()
        self._endings.ask(partial(self._close_ended, receiver), self.loop.call_soon)
        return True

    def _close_ended(self, receiver: Receiver) -> None:
        receiver.end()
        self._reader.let_go()
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: who was served on it is written nothing from here on, the rest is done in its turn."""
        if isinstance(exc, OSError) and exc.errno in VANISHED:
            self._count("idle_seconds")
        has_let_go, self._has_ended = self._has_ended, True
        if not self._is_adopted:
            self._forget(exc)  # its application waits for something
            self._reader.let_go()
            return
        self.disconnected = True
        receiver, self._receiver = self._receiver or _GONE, _GONE
        receiver.disconnected()
        if self._on_lost is not None:
            self._on_lost()
            self._on_lost = None
        self._endings.ask(partial(self._forget_ended, exc, receiver, has_let_go), self.loop.call_soon)

    def _forget_ended(self, exc: Exception | None, receiver: Receiver, has_let_go: bool) -> None:
        receiver.end()
        self._forget(exc)
        if not has_let_go:
            self._reader.let_go()

    def _forget(self, exc: Exception | None) -> None:
        for timer in (self._pause, self._pace_timer, self._deadline):
            if timer is not None:
                timer.cancel()
        let_go(self.transport)
        self._budget.hold(0)
        self._uncount()
        self._detach()
        super().connection_lost(exc)
        if self.rounds is not None:
            self.rounds.discard(self)
        if self._on_lost is not None:
            self._on_lost()
            self._on_lost = None

    def handle_close(self, event: Any) -> None:
        """The client closes, or answers our close."""
        self.frames = []
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
        self._linger()

    def _linger(self) -> None:
        sent = self.conn.close_sent
        assert sent is not None  # noqa: S101 - it has failed the connection
        self._detach()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._update_reading()
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
        self._is_full = True
        self._update_reading()
        if self._receiver is not None:
            self._receiver.socket_full()

    def resume_writing(self) -> None:
        """The transport's buffer has drained."""
        super().resume_writing()
        self._unsent = 0
        self._is_full = False
        self._go_on()
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

    def end(self) -> None:
        pass


_GONE: Receiver = _Gone()

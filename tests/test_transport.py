"""transport: what it relies on in uvicorn, and what it does with a connection; no socket anywhere."""

from __future__ import annotations

import ast
import asyncio
import inspect
import itertools
import socket
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from gateway.access.budget import Accounts, Budget
from gateway.access.limits import Connections, Refusals
from gateway.core.frames import frame_text, unframe
from gateway.core.protocol import CloseCode
from gateway.transport import http
from gateway.transport import websockets as transport
from gateway.transport.endings import TURN_SECONDS as ENDINGS_SECONDS
from gateway.transport.endings import Endings
from gateway.transport.rounds import AT_ONCE, Rounds
from gateway.transport.sockets import INHERITS_OPTIONS, TCP_KEEPALIVE, bound
from gateway.transport.turns import TURN_SECONDS, Turns
from gateway.transport.websockets import EXTENSION, ON_LOST, PING, USED_INTERNALS, SocketSink, WebSocketProtocol
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def turns_until(condition: Callable[[], bool]) -> None:
    """Lets the loop turn a few times."""
    for _ in range(50):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it has not happened")


class FakeTransport(asyncio.Transport):
    def __init__(self, protocol: WebSocketProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written: list[bytes] = []
        self.stuck = 0
        self.limits: tuple[int | None, int | None] = (None, None)
        self.is_closed = self.is_aborted = False
        self.reads = True
        self.is_ended = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def abort(self) -> None:
        self.is_aborted = self.is_closed = True

    def is_reading(self) -> bool:
        return self.reads

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class FakeReceiver:
    def __init__(self) -> None:
        self.received: list[str | bytes] = []
        self.happened: list[str] = []

    def receive(self, data: str | bytes) -> None:
        self.received.append(data)

    def socket_full(self) -> None:
        self.happened.append("full")

    def socket_drained(self) -> None:
        self.happened.append("drained")

    def disconnected(self) -> None:
        self.happened.append("disconnected")

    def end(self) -> None:
        self.happened.append("ended")


def client_frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A masked frame (RFC 6455 §5.3), masked with zeros."""
    assert len(payload) < 126
    return bytes(((0x80 if fin else 0) | opcode, 0x80 | len(payload))) + b"\0\0\0\0" + payload


class Connection:
    """An adopted connection."""

    def __init__(self) -> None:
        self.receiver = FakeReceiver()
        self.sink: SocketSink
        config = uvicorn.Config(
            self.app, interface="asgi3", ws=WebSocketProtocol, ws_per_message_deflate=False, ws_ping_interval=None
        )
        config.load()
        self.protocol = WebSocketProtocol(config=config, server_state=ServerState(), app_state={})
        self.transport = FakeTransport(self.protocol)
        self.protocol.connection_made(self.transport)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.sink = scope["extensions"][EXTENSION](self.receiver)

    async def open(self) -> Connection:
        self.protocol.data_received(HANDSHAKE)
        await turns_until(lambda: self.protocol._is_adopted)
        assert self.transport.written.pop(0).startswith(b"HTTP/1.1 101 ")
        return self


@pytest.fixture
async def connection() -> Connection:
    return await Connection().open()


def names_used(module: ModuleType, *classes: type) -> set[str]:
    """The members that these classes' code defines, or takes from `self` or a `protocol`."""
    tree = ast.parse(inspect.getsource(module))
    wanted = {found.__name__ for found in classes}
    names: set[str] = set()
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name not in wanted:
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(part.name)
            elif isinstance(part, ast.Attribute):
                owner = ast.unparse(part.value)
                if owner in ("self", "super()", "protocol", "self._protocol"):
                    names.add(part.attr)
    return {name for name in names if not name.startswith("__")}


def of_uvicorn(base: Any, set_later: set[str]) -> set[str]:
    """What a plain instance of a class of uvicorn has, and what it gets with a request."""
    config = uvicorn.Config(lambda: None, ws_per_message_deflate=False)
    config.load()
    loop = asyncio.new_event_loop()
    try:
        plain = base(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    finally:
        loop.close()
    return set(dir(plain)) | set_later


@pytest.mark.parametrize(
    ("module", "classes", "base", "set_later", "listed"),
    [
        (
            transport, (WebSocketProtocol, SocketSink), WebSocketsSansIOProtocol, {"request", "response", "scope"},
            USED_INTERNALS,
        ),
        (http, (http.HttpProtocol,), H11Protocol, set(), http.USED_INTERNALS),
    ],
)  # fmt: skip
def test_uvicorn_still_has_what_we_build_on_and_all_of_it_is_listed(
    module: ModuleType, classes: tuple[type, ...], base: type, set_later: set[str], listed: tuple[str, ...]
) -> None:
    has = of_uvicorn(base, set_later)
    missing = set(listed) - has
    assert not missing, f"uvicorn {uvicorn.__version__} has no {missing}"
    assert names_used(module, *classes) & has == set(listed)


async def test_an_adopted_connection_keeps_nothing_of_its_handshake(connection: Connection) -> None:
    assert not connection.protocol.tasks
    for name in ("scope", "request", "response"):
        assert not hasattr(connection.protocol, name)
    assert connection.transport.limits == (256 * 1024, 64 * 1024)
    assert not connection.transport.is_closed


async def test_bytes_of_the_hub_go_to_the_transport_as_they_are(connection: Connection) -> None:
    data = frame_text(b"one") + frame_text(b"two")
    connection.sink.write(data)
    assert connection.transport.written == [data]
    assert [body for _, body in unframe(data)] == [b"one", b"two"]


async def test_messages_of_the_client_reach_the_receiver_whole(connection: Connection) -> None:
    connection.protocol.data_received(client_frame(1, b"hel", fin=False) + client_frame(0, b"lo"))
    both = client_frame(2, b"\x00\xff") + client_frame(1, "zü".encode())
    for byte in both:
        connection.protocol.data_received(bytes([byte]))
    assert connection.receiver.received == ["hello", b"\x00\xff", "zü"]


async def test_a_ping_is_answered_and_text_that_is_not_utf_8_closes(connection: Connection) -> None:
    connection.protocol.data_received(client_frame(9, b"are you there"))
    assert connection.transport.written == [b"\x8a\x0dare you there"]
    connection.protocol.data_received(client_frame(1, b"\xff"))
    assert connection.transport.written[-1][:4] == b"\x88" + connection.transport.written[-1][1:2] + b"\x03\xef"
    assert connection.receiver.happened == ["disconnected", "ended"]


async def test_the_client_that_closes_gets_its_echo_and_the_hub_hears_once(connection: Connection) -> None:
    connection.protocol.data_received(client_frame(8, b"\x03\xe8"))
    assert connection.transport.written == [b"\x88\x02\x03\xe8"]
    assert connection.transport.is_closed
    connection.protocol.connection_lost(None)
    assert connection.receiver.happened == ["disconnected", "ended"]


async def test_a_client_that_breaks_the_protocol_is_closed_with_the_code_of_the_rule(connection: Connection) -> None:
    connection.sink.pause_reading()
    connection.protocol.data_received(b"\x81\x02hi")  # not masked: RFC 6455 §5.1
    assert not connection.transport.written
    connection.sink.resume_reading()
    assert connection.transport.written[-1][2:4] == (1002).to_bytes(2, "big")
    assert connection.receiver.happened == ["disconnected", "ended"]
    # what is still on its way is read, so that the close is not overtaken by a reset; but not for ever
    assert connection.transport.is_ended
    assert connection.transport.reads
    assert not connection.transport.is_closed
    connection.protocol.data_received(b"\x81\x02hi")
    assert len(connection.transport.written) == 1
    timer = connection.protocol.close_timer
    assert timer is not None
    timer._run()
    assert connection.transport.is_closed


async def test_closing_sends_code_and_reason_and_nothing_after(connection: Connection) -> None:
    connection.sink.close(CloseCode.SLOW, "ü" * 100)
    [frame] = connection.transport.written
    assert frame[0] == 0x88
    assert frame[2:4] == (4100).to_bytes(2, "big")
    assert frame[1] <= 125
    frame[4:].decode()
    connection.sink.close(CloseCode.NORMAL, "again")
    assert len(connection.transport.written) == 1


async def test_a_socket_that_takes_nothing_is_cut_when_the_server_stops(connection: Connection) -> None:
    connection.transport.stuck = 200_000
    connection.protocol.shutdown()
    assert connection.transport.is_aborted
    other = await Connection().open()
    other.protocol.shutdown()
    assert not other.transport.is_aborted
    assert other.transport.is_closed
    assert other.transport.written[-1][2:4] == (1012).to_bytes(2, "big")


async def test_the_receiver_hears_of_a_full_and_a_drained_socket(connection: Connection) -> None:
    connection.protocol.pause_writing()
    connection.protocol.resume_writing()
    assert connection.receiver.happened == ["full", "drained"]


async def test_a_silent_client_is_pinged_and_then_closed_but_a_slow_one_is_left_to_the_hub(
    connection: Connection,
) -> None:
    connection.protocol.ping()
    assert connection.transport.written == [PING]
    connection.protocol.data_received(client_frame(10, b""))
    connection.protocol.ping()
    assert connection.transport.written == [PING, PING]
    connection.transport.stuck = 10
    connection.protocol.ping()
    assert len(connection.transport.written) == 2
    connection.transport.stuck = 0
    connection.protocol.ping()
    assert connection.transport.written[-1][2:4] == int(CloseCode.IDLE).to_bytes(2, "big")
    assert CloseCode.IDLE.is_reconnectable


async def test_the_answer_to_a_ping_is_not_parsed_and_another_pong_is_charged(connection: Connection) -> None:
    protocol = connection.protocol

    def is_charged() -> bool:
        return protocol._budget._bucket is not None

    pong = client_frame(10, b"")
    protocol._budget._bucket = None  # what the handshake was charged to
    for _ in range(3):
        protocol.ping()
        protocol.data_received(pong)
    assert not is_charged()
    protocol.data_received(pong)  # nobody asked for it
    assert is_charged()
    protocol.ping()
    assert connection.transport.written == [PING] * 4
    assert not connection.transport.is_closed


async def test_what_looks_like_the_answer_to_a_ping_within_a_message_belongs_to_it(connection: Connection) -> None:
    pong = client_frame(10, b"")
    message = client_frame(2, b"<" + pong + b">")
    protocol = connection.protocol
    for piece in (message[:6], message[6:7], pong, message[13:]):
        protocol.ping()
        protocol.data_received(piece)
    protocol.data_received(client_frame(2, pong)[:6])  # all of the head, and nothing waits in the buffer
    protocol.ping()
    protocol.data_received(pong)
    assert connection.receiver.received[1:] == [pong]
    protocol.ping()
    protocol.data_received(pong + client_frame(2, b"next"))
    assert connection.receiver.received == [b"<" + pong + b">", pong, b"next"]
    assert CloseCode.IDLE.to_bytes(2, "big") not in b"".join(connection.transport.written)


class Kept(Connection):
    """A connection that its endpoint keeps for itself, as a pipe does."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol.refusals = self.refusals = Refusals()
        self.lost: list[str] = []
        self.done = asyncio.Event()
        self.events: list[Any] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][ON_LOST](lambda: self.lost.append("lost"))
        await receive()
        await send({"type": "websocket.accept"})
        self.events.append(await receive())
        self.done.set()
        await send({"type": "websocket.close", "code": 4005, "reason": "over"})

    async def open(self) -> Kept:
        self.protocol.data_received(HANDSHAKE)
        await turns_until(lambda: self.protocol.handshake_complete)
        assert self.transport.written.pop(0).startswith(b"HTTP/1.1 101 ")
        return self


async def test_a_connection_that_its_endpoint_keeps_is_pinged_and_closed_when_silent() -> None:
    kept = await Kept().open()
    kept.protocol.ping()
    assert kept.transport.written == [PING]
    kept.protocol.ping()
    assert kept.transport.written[-1][2:4] == int(CloseCode.IDLE).to_bytes(2, "big")
    assert kept.refusals.by_reason == {"idle_seconds": 1}
    await turns_until(kept.done.is_set)
    assert kept.events == [{"type": "websocket.disconnect", "code": 4101, "reason": "no answer to a ping"}]


async def test_a_client_that_we_do_not_listen_to_is_not_called_silent() -> None:
    kept = await Kept().open()
    kept.protocol.ping()
    kept.transport.reads = False
    kept.protocol.ping()
    kept.transport.reads = True
    kept.protocol.ping()
    assert kept.transport.written == [PING, PING]
    assert not kept.protocol.close_sent


async def test_a_kept_connection_that_takes_nothing_is_cut_and_one_that_takes_a_little_is_not() -> None:
    kept = await Kept().open()
    for unsent in (70_000, 60_000, 50_000):
        kept.transport.stuck = unsent
        kept.protocol.ping()
    kept.protocol.pause_writing()
    kept.protocol.resume_writing()  # all of that was taken, and as much is there again
    kept.protocol.ping()
    assert kept.transport.written == []
    kept.protocol.pause_writing()  # what the application sends has to wait from here on, but a close does not
    kept.protocol.ping()
    assert kept.protocol.close_sent
    assert kept.refusals.by_reason == {"stall_seconds": 1}


async def test_a_connection_counts_until_its_socket_is_gone() -> None:
    kept = await Kept().open()
    kept.protocol.data_received(client_frame(1, b"hello"))
    await turns_until(lambda: kept.protocol.close_sent)
    assert kept.transport.written[-1] == b"\x88\x06\x0f\xa5over"
    assert kept.lost == []
    assert not kept.transport.is_closed
    kept.transport.stuck = 10
    kept.protocol._end()
    assert kept.transport.is_aborted
    kept.protocol.connection_lost(None)
    assert kept.lost == ["lost"]


async def test_an_endpoint_that_fails_gives_an_answer_and_no_open_connection(caplog: pytest.LogCaptureFixture) -> None:
    connection = Connection()

    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("broken endpoint")

    connection.protocol.app = broken
    connection.protocol.data_received(HANDSHAKE)
    await turns_until(lambda: connection.transport.is_closed)
    assert connection.transport.written[0].startswith(b"HTTP/1.1 500 ")
    assert "broken endpoint" in caplog.text


async def test_what_only_one_of_two_parsers_takes_for_a_handshake_is_answered_and_closed() -> None:
    for more in (b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"X: " + b"x" * 9_000 + b"\r\n"):
        connection = Connection()
        connection.protocol.data_received(HANDSHAKE[:-2] + more + b"\r\n")
        assert connection.transport.written[0].startswith(b"HTTP/1.1 400 ")
        assert connection.transport.is_closed


async def test_a_handshake_that_nobody_answers_is_cut_and_counts_until_then() -> None:
    connection = Connection()
    pending = Connections(10, 10)
    connection.protocol.head_seconds = 0.0

    async def silent(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass

    connection.protocol.app = silent
    connection.protocol.data_received(HANDSHAKE)
    connection.protocol.expect_handshake(Budget(Accounts(time.monotonic), None), pending, pending.open("10.0.0.1"))
    await eventually_async(lambda: connection.transport.is_aborted)
    assert pending.total == 1
    connection.protocol.connection_lost(None)
    assert pending.total == 0


async def test_what_follows_a_message_waits_until_its_receiver_takes_more(connection: Connection) -> None:
    def stop_after_each(data: str | bytes) -> None:
        connection.receiver.received.append(data)
        connection.sink.pause_reading()

    connection.receiver.receive = stop_after_each  # type: ignore[method-assign]
    connection.protocol.data_received(client_frame(1, b"one") + client_frame(1, b"two") + client_frame(1, b"three"))
    assert connection.receiver.received == ["one"]
    connection.sink.resume_reading()
    assert connection.receiver.received == ["one", "two"]
    assert not connection.transport.is_reading()


async def test_pings_are_not_answered_while_nobody_reads_the_answers(connection: Connection) -> None:
    connection.protocol.pause_writing()
    connection.protocol.data_received(client_frame(9, b"1") * 1_000)
    assert not connection.transport.written
    assert not connection.transport.is_reading()
    connection.protocol.resume_writing()
    await turns_until(lambda: b"".join(connection.transport.written) == b"\x8a\x011" * 1_000)


async def test_a_message_in_too_many_pieces_is_refused(connection: Connection) -> None:
    connection.protocol.data_received(client_frame(1, b"", fin=False))
    for _ in range(transport.MAX_FRAGMENTS // 100 + 1):
        connection.protocol.data_received(client_frame(0, b"", fin=False) * 100)
        await asyncio.sleep(0)
    await turns_until(lambda: connection.transport.is_ended)
    assert connection.transport.written[-1][2:4] == (1009).to_bytes(2, "big")


async def test_a_message_that_is_not_finished_is_given_up(connection: Connection) -> None:
    connection.protocol.head_seconds = 0.0
    connection.protocol.data_received(client_frame(1, b"never the end")[:-1])
    await eventually_async(lambda: connection.transport.is_ended)
    assert connection.transport.written[-1][2:4] == int(CloseCode.IDLE).to_bytes(2, "big")


@pytest.mark.parametrize("protocol", [WebSocketProtocol, http.HttpProtocol])
async def test_what_is_read_is_charged_to_the_accounts_that_were_given_though_they_are_empty(
    protocol: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = Accounts(time.monotonic)
    monkeypatch.setattr(protocol, "accounts", accounts)
    config = uvicorn.Config(lambda: None, ws_per_message_deflate=False)
    config.load()
    made = protocol(config=config, server_state=ServerState(), app_state={})
    made._budget.charge_to("10.0.0.1")
    made._budget.spend(processor=1.0)
    assert len(accounts) == 1


class Asking:
    """A connection with so many steps to take, each of which takes a millisecond."""

    def __init__(self, name: str, address: str, steps: int, taken: list[str], turns: Turns) -> None:
        self.name, self.address, self.steps = name, address, steps
        self.taken, self.turns = taken, turns

    def key(self) -> str | None:
        return self.address

    def step(self) -> bool:
        self.taken.append(self.name)
        self.turns.spend(0.001)
        self.steps -= 1
        return self.steps > 0


def test_addresses_take_turns_and_no_turn_is_long() -> None:
    taken: list[str] = []
    turns = Turns()
    soon: list[Callable[[], None]] = []
    for name, address, steps in (("a1", "a", 9), ("a2", "a", 9), ("b", "b", 2)):
        turns.ask(Asking(name, address, steps, taken, turns), soon.append)
    assert taken == ["a1", "a1"]
    while soon:
        before = len(taken)
        soon.pop(0)()
        assert (len(taken) - before) * 0.001 <= TURN_SECONDS + 0.001
    assert taken[:6] == ["a1", "a1", "a1", "b", "a2", "b"]
    assert sorted(taken) == ["a1"] * 9 + ["a2"] * 9 + ["b"] * 2


async def test_a_handshake_is_one_step_and_an_idle_connection_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    step = WebSocketProtocol.step

    def counted(self: WebSocketProtocol) -> bool:
        nonlocal steps
        steps += 1
        return step(self)

    monkeypatch.setattr(WebSocketProtocol, "step", counted)
    connection = await Connection().open()
    connection.sink.pause_reading()
    connection.sink.resume_reading()
    assert steps == 1
    connection.protocol.data_received(client_frame(1, b"one") + client_frame(1, b"two"))
    assert connection.receiver.received == ["one", "two"]
    assert steps == 3


@pytest.mark.skipif(not INHERITS_OPTIONS, reason="here each connection has to be given its options")
async def test_a_connection_has_its_options_from_the_socket_that_listened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        bound(listening, 50_000, 7.5)
        with socket.create_connection(listening.getsockname()) as client, listening.accept()[0] as served:
            plain = client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert plain == 0
            assert served.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert served.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 100_000  # Linux counts what it adds itself
            assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7_500
            for name, value in TCP_KEEPALIVE:
                assert served.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value


def test_what_is_left_of_connections_that_ended_is_done_at_once_or_in_parts_and_in_order() -> None:
    now = 0.0
    done: list[int] = []
    soon: list[Callable[[], None]] = []

    def work(number: int) -> None:
        nonlocal now
        now += ENDINGS_SECONDS / 4
        done.append(number)
        if number == 7:
            raise RuntimeError("one that fails")

    endings = Endings(lambda: now)
    for number in range(20):
        endings.ask(partial(work, number), soon.append)
    parts = [len(done)]
    assert len(endings) == 20 - parts[0]
    while soon:
        before = len(done)
        soon.pop(0)()
        parts.append(len(done) - before)
    assert done == list(range(20))
    assert parts == [4, 4, 4, 4, 4]
    endings.ask(partial(work, 20), soon.append)
    assert done[-1] == 20


async def test_who_ends_is_written_nothing_more_and_closed_when_there_is_time(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, transport = connection.protocol, connection.transport
    endings = Endings(lambda: float("inf"))  # this turn has no more room
    endings.ask(lambda: None, lambda _: None)
    endings._used = 1.0
    monkeypatch.setattr(protocol, "_endings", endings)
    assert protocol.eof_received()
    happened = connection.receiver.happened
    assert happened == ["disconnected"]
    assert not transport.is_closed
    protocol.data_received(client_frame(1, b"what came before"))
    protocol.ping()
    protocol.close(1000, "")
    connection.sink.resume_reading()
    assert connection.receiver.received == []
    assert transport.written == []
    endings._waiting.popleft()()
    assert happened == ["disconnected", "ended"]
    assert transport.is_closing()
    protocol.connection_lost(None)
    endings._waiting.popleft()()
    assert happened == ["disconnected", "ended"]
    assert protocol.disconnected
    assert protocol not in protocol.connections


async def test_over_tls_the_loop_closes_who_ends(connection: Connection) -> None:
    connection.protocol.scheme = "wss"
    assert not connection.protocol.eof_received()
    assert connection.receiver.happened == []


def test_each_connection_has_its_turn_once_in_a_round_and_a_few_at_a_time() -> None:
    rounds = Rounds[FakeReceiver](5)
    members = [FakeReceiver() for _ in range(1_000)]
    for each in members:
        rounds.add(each)
    first = [[each for some in rounds.step(number) for each in some] for number in range(5)]
    assert sorted(map(id, itertools.chain(*first))) == sorted(map(id, members))
    assert [[each for some in rounds.step(number) for each in some] for number in range(5, 10)] == first
    assert max(len(some) for number in range(5) for some in rounds.step(number)) == AT_ONCE
    rounds.discard(members[0])
    rounds.discard(members[0])
    assert members[0] not in [each for number in range(5) for some in rounds.step(number) for each in some]


async def test_a_connection_is_pinged_from_its_handshake_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds[WebSocketProtocol](1)
    monkeypatch.setattr(WebSocketProtocol, "rounds", rounds)
    connection = await Connection().open()
    assert list(rounds.step(0)) == [[connection.protocol]]
    connection.protocol.connection_lost(None)
    assert list(rounds.step(0)) == []

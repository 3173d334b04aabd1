"""transport.handshakes: the short way answers as the long one does, and takes only what it surely understands."""

from __future__ import annotations

import asyncio
import copy
import re
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams
from uvicorn.server import ServerState

from gateway.access.budget import Accounts
from gateway.access.limits import Client as Payer
from gateway.access.limits import Connections, Refusals
from gateway.core.protocol import CloseCode
from gateway.routes import websocket
from gateway.routes.websocket import query_of
from gateway.transport import websockets
from gateway.transport.handshakes import MAX_FIELDS, accepted, plain_handshake
from gateway.transport.http import STEP_BYTES, HttpProtocol
from gateway.transport.rounds import Rounds
from gateway.transport.websockets import WebSocketProtocol
from tests.test_transport import FakeReceiver, FakeTransport, client_frame

pytestmark = pytest.mark.anyio

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
USUAL = {
    "Host": "localhost:8000",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
FIREFOX = {
    "Host": "localhost:8000",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "*/*",
    "Accept-Language": "en-US,en;q=0.5",
    "Sec-WebSocket-Version": "13",
    "Origin": "http://localhost:8000",
    "Sec-WebSocket-Extensions": "permessage-deflate",
    "Sec-WebSocket-Key": KEY,
    "Connection": "keep-alive, Upgrade",
    "Cookie": "a=1; b=2",
    "Upgrade": "websocket",
}


def request(
    target: str = "/ws?topic=a%2F%23&since=now",
    *lines: str,
    but: dict[str, str | None] | None = None,
    start: str | None = None,
    end: str = "\r\n",
    usual: dict[str, str] = USUAL,
) -> bytes:
    """A handshake, with some fields other than usual (None: without), and further lines."""
    fields = {**usual, **(but or {})}
    head = [start or f"GET {target} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items() if v is not None), *lines]
    return ("\r\n".join(head) + end * 2).encode("latin-1")


PLAIN = {
    "a program": request(),
    "Firefox": request(usual=FIREFOX),
    "a proxy that writes names in lower case": request(usual={name.lower(): text for name, text in USUAL.items()}),
    "no space behind colons": request().replace(b": ", b":"),
    "other cases": request(but={"Upgrade": "WebSocket", "Connection": "upgrade"}),
    "a subprotocol": request(but={"Sec-WebSocket-Protocol": "mqtt"}),
    "subprotocols": request(but={"Sec-WebSocket-Protocol": "gateway, mqtt,other"}),
    "extensions": request(but={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits, x-other"}),
    "extensions that are none": request(but={"Sec-WebSocket-Extensions": ";;"}),
    "an escaped path": request("/topics/a%2Fb/%23?x=%zz&y=+"),
    "a path of its own kind": request("//ws/../%00;a=b?"),
    "a fragment": request("/ws#a?b#c"),
    "two questions": request("/ws?a?b"),
    "a token": request(but={"Authorization": "Bearer a.b.c"}),
    "forwarded": request("/ws", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https", "Forwarded: for=10.0.0.1"),
    "a host that is none": request(but={"Host": "a b"}),
}
LONG = {
    "nothing": b"",
    "no handshake": request(but={name: None for name in USUAL if name != "Host"}),
    "no host": request(but={"Host": None}),
    "two hosts": request("/ws", "Host: other"),
    "an empty host": request(but={"Host": ""}),
    "no key": request(but={"Sec-WebSocket-Key": None}),
    "a short key": request(but={"Sec-WebSocket-Key": "AAAA"}),
    "a key that is none": request(but={"Sec-WebSocket-Key": "!" * 22 + "=="}),
    "two keys": request("/ws", f"sec-websocket-key: {KEY}"),
    "no version": request(but={"Sec-WebSocket-Version": None}),
    "another version": request(but={"Sec-WebSocket-Version": "8"}),
    "two versions": request("/ws", "Sec-WebSocket-Version: 13"),
    "another upgrade": request(but={"Upgrade": "h2c"}),
    "two upgrades": request(but={"Upgrade": "websocket, h2c"}),
    "no upgrade": request(but={"Upgrade": None}),
    "no connection": request(but={"Connection": None}),
    "another connection": request(but={"Connection": "close"}),
    "two connections": request("/ws", "Connection: keep-alive"),
    "more of the connection": request(but={"Connection": "Upgrade, x-other"}),
    "subprotocols that are none": request(but={"Sec-WebSocket-Protocol": "a b"}),
    "an empty subprotocol": request(but={"Sec-WebSocket-Protocol": ""}),
    "subprotocols on two lines": request("/ws", "Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b"),
    "cookies on two lines": request("/ws", "Cookie: a=1", "Cookie: b=2"),
    "a body": request("/ws", "Content-Length: 3") + b"abc",
    "no body": request("/ws", "Content-Length: 0"),
    "chunks": request("/ws", "Transfer-Encoding: chunked"),
    "something expected": request("/ws", "Expect: 100-continue"),
    "HTTP/1.0": request(start="GET /ws HTTP/1.0"),
    "HTTP/2": request(start="GET /ws HTTP/2.0"),
    "a POST": request(start="POST /ws HTTP/1.1"),
    "an address": request("http://localhost:8000/ws"),
    "a target that is none": request("ws"),
    "a space in it": request("/ws /"),
    "bytes beyond ASCII in it": request("/w\xfc"),
    "bytes beyond ASCII in a value": request("/ws", "X-Name: J\xfcrgen"),
    "a tab in a value": request("/ws", "X-Name: a\tb"),
    "a control character": request("/ws", "X-Name: a\x01b"),
    "an empty value": request("/ws", "X-Name: "),
    "white space behind a value": request("/ws", "X-Name: a "),
    "white space before a colon": request("/ws", "X-Name : a"),
    "a folded line": request("/ws", "X-Name: a", " b"),
    "a line without a colon": request("/ws", "X-Name"),
    "a name that is none": request("/ws", "X(Name): a"),
    "line feeds only": request().replace(b"\r\n", b"\n"),
    "an empty line before": b"\r\n" + request(),
    "a frame behind": request() + client_frame(1, b"hello"),
    "many fields": request("/ws", *(f"X-{number}: 1" for number in range(MAX_FIELDS))),
    "more than websockets takes": request("/ws", *(f"X-{number}: 1" for number in range(130))),
    "a long value": request("/ws", "X-Name: " + "a" * STEP_BYTES),
}


class Transport(FakeTransport):
    """That of one connection, to whichever protocol has it."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.current: asyncio.BaseProtocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.current = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.current

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5000), "sockname": ("127.0.0.1", 8000)}.get(name, default)


class Client:
    """What one connection shows: what is written, and what the application sees of it."""

    def __init__(self, answers: str = "accept", root_path: str = "") -> None:
        self.answers = answers
        self.scopes: list[dict[str, Any]] = []
        self.receiver = FakeReceiver()
        self.transport = Transport()
        self.refusals = Refusals()
        self.accounts = Accounts(lambda: 0.0)

        class Socket(WebSocketProtocol):
            refusals = self.refusals
            accounts = self.accounts
            rounds = Rounds[WebSocketProtocol](1)

        class Http(HttpProtocol):
            refusals = self.refusals
            accounts = self.accounts
            pending = Connections(10, 10)

        config = uvicorn.Config(
            self.app, interface="asgi3", http=Http, ws=Socket, ws_per_message_deflate=False, ws_ping_interval=None,
            root_path=root_path, lifespan="off", server_header=False,
        )  # fmt: skip
        config.load()
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
        self.pending, self.rounds = Http.pending, Socket.rounds
        protocol = Http(config=config, server_state=self.state, app_state={"of": "the server"})
        self.transport.current = protocol
        protocol.connection_made(self.transport)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        extensions = dict(scope.get("extensions", {}))
        seen = {**scope, "extensions": sorted(extensions), "headers": list(scope["headers"])}
        self.scopes.append(copy.deepcopy(seen))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return
        assert (await receive())["type"] == "websocket.connect"
        if self.answers == "accept":
            asked = scope["subprotocols"]
            await send({"type": "websocket.accept", "subprotocol": asked[0] if asked else None, "headers": []})
            extensions[websockets.EXTENSION](self.receiver)
        elif self.answers.startswith("adopt"):
            sink = extensions[websockets.EXTENSION](self.receiver, next(iter(scope["subprotocols"]), None))
            if self.answers == "adopt and write":
                sink.write(b"first")
                sink.write(b"second")
            elif self.answers == "adopt and close":
                sink.close(CloseCode.FORBIDDEN, "no")
            elif self.answers == "adopt and fail":
                raise ValueError("this route is broken")
        elif self.answers == "accept with headers":
            await send({"type": "websocket.accept", "headers": [(b"x-request-id", b"1")]})
            await receive()
        elif self.answers == "close":
            await send({"type": "websocket.close", "code": 1008})
        elif self.answers == "deny":
            headers = [(b"content-type", b"text/plain"), (b"date", b"today")]
            await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b"no"})
        elif self.answers == "accept twice":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.accept"})
        elif self.answers == "fail":
            raise ValueError("this route is broken")

    def send(self, data: bytes) -> None:
        self.transport.current.data_received(data)  # type: ignore[attr-defined]

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def shows(self, *pieces: bytes, then: bytes = b"") -> dict[str, Any]:
        """All that can be seen of a connection on which these bytes came."""
        for piece in pieces:
            self.send(piece)
        await self.settle()
        if then and not self.transport.is_closed:
            self.send(then)
            await self.settle()
        return {
            "protocol": type(self.transport.current).__name__,
            "written": re.sub(rb"Date: [^\r]*", b"Date: now", b"".join(self.transport.written)),
            "closed": self.transport.is_closed,
            "limits": self.transport.limits,
            "scopes": self.scopes,
            "received": self.receiver.received,
            "happened": self.receiver.happened,
            "refusals": dict(self.refusals.by_reason),
            "connections": len(self.state.connections),
            "pending": self.pending.total,
            "pinged": sum(map(len, self.rounds.step(0))),
            "tasks": len(self.state.tasks),
        }


THEN = client_frame(1, b"hello") + client_frame(9, b"ping")


@pytest.mark.parametrize("name", [*PLAIN, *LONG])
@pytest.mark.parametrize("answers", ["accept", "deny"])
async def test_whichever_way_a_request_is_read_it_is_answered_alike(name: str, answers: str) -> None:
    data = {**PLAIN, **LONG}[name]
    # in two pieces it is not whole when it is looked at first
    split = await Client(answers).shows(data[:3], data[3:], then=THEN)
    assert await Client(answers).shows(data, then=THEN) == split
    if name in PLAIN:
        assert split["protocol"] == "Socket"


ANSWERS = [
    "adopt", "adopt and write", "adopt and close", "adopt and fail", "accept with headers", "close", "accept twice",
    "fail",
]  # fmt: skip


@pytest.mark.parametrize("answers", ANSWERS)
async def test_whatever_the_application_says_both_ways_answer_alike(answers: str) -> None:
    data = PLAIN["subprotocols"]
    split = await Client(answers, "/root").shows(data[:3], data[3:], then=client_frame(8, b"\x03\xe8"))
    whole = await Client(answers, "/root").shows(data, then=client_frame(8, b"\x03\xe8"))
    assert whole == split
    assert whole["scopes"][0]["path"] == "/root/ws"


async def test_the_short_way_is_taken_where_it_is_said_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    monkeypatch.setattr(WebSocketProtocol, "handle_connect", lambda *_: parsed.append("again"))
    for name, data in PLAIN.items():
        assert plain_handshake(data) is not None, name
        assert b"HTTP/1.1 101 " in (await Client().shows(data))["written"]
    assert not parsed
    for name, data in LONG.items():
        assert plain_handshake(data[:STEP_BYTES]) is None, name
    await Client().shows(LONG["cookies on two lines"])
    assert parsed


@pytest.mark.parametrize("data", [PLAIN["a subprotocol"], LONG["cookies on two lines"]])
async def test_the_first_bytes_of_the_application_leave_with_the_answer(data: bytes) -> None:
    client = Client("adopt and write")
    await client.shows(data)
    answer, second = client.transport.written
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\r\n\r\nfirst")
    assert second == b"second"


async def test_an_application_that_says_nothing_yet_has_answered() -> None:
    client = Client("adopt")
    await client.shows(PLAIN["a subprotocol"], then=client_frame(9, b"ping"))
    answer, pong = client.transport.written
    assert answer.endswith(b"Sec-WebSocket-Protocol: mqtt\r\n\r\n")
    assert pong == b"\x8a\x04ping"


async def test_a_further_request_of_a_connection_is_read_the_long_way() -> None:
    client = Client()
    ordinary = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    first = await client.shows(ordinary)
    assert first["written"].startswith(b"HTTP/1.1 200 ")
    both = await client.shows(PLAIN["a program"], then=THEN)
    assert both["protocol"] == "Socket"
    assert both["received"] == ["hello"]


async def test_the_bytes_of_a_handshake_are_charged_once() -> None:
    client, data = Client(), PLAIN["Firefox"]
    spent: list[int] = []
    spend = client.accounts.spend

    def note(address: Payer, processor: float = 0.0, frames: int = 0, size: int = 0) -> None:
        spent.append(size)
        spend(address, processor, frames, size)

    client.accounts.spend = note  # type: ignore[method-assign]
    await client.shows(data)
    assert sum(spent) == len(data)


@given(st.text(alphabet="aZ09 :;,=/\t\r\n\x00\x7f\xff", max_size=40), st.integers(0, 400), st.integers(0, 10))
def test_what_is_read_at_once_is_a_request_and_nothing_else(text: str, at: int, cut: int) -> None:
    plain = PLAIN["Firefox"]
    data = plain[:at] + text.encode("latin-1") + plain[at + cut :]
    found = plain_handshake(data)
    if found is not None:
        start, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
        assert start.split(b" ") == [b"GET", found.target, b"HTTP/1.1"]
        fields = [line.partition(b":") for line in lines]
        assert [(name.lower(), value.removeprefix(b" ")) for name, _, value in fields] == found.headers


@given(st.text(alphabet="a=&;%+2C0é\x00", max_size=60))
def test_parameters_that_are_read_once_are_those_that_starlette_reads(text: str) -> None:
    query = text.encode("latin-1")
    expected = QueryParams(query).multi_items()
    assert query_of({"query_string": query}).multi_items() == expected
    assert query_of({"query_string": query}).multi_items() == expected


def test_a_long_parameter_which_may_be_a_token_is_not_kept() -> None:
    before = websocket._cached.cache_info().currsize
    token = "e" * (websocket.CACHED_CHARACTERS + 1)
    assert query_of({"query_string": f"token={token}".encode()})["token"] == token
    assert websocket._cached.cache_info().currsize == before


def test_the_answer_is_that_of_the_rfc() -> None:
    answer = accepted(KEY.encode(), [(b"date", b"today")])
    assert answer == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\ndate: today\r\n\r\n"
    )

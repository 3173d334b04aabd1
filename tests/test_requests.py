"""transport.http: what a connection sends beside whole requests, one after the other, is bounded and ends quietly."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from gateway.access.budget import Memory
from gateway.transport.http import STEP_BYTES, HttpProtocol
from tests.test_handshakes import Client

pytestmark = pytest.mark.anyio

CHUNKED = b"GET /stream HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def http_of(client: Client) -> HttpProtocol:
    protocol = client.transport.current
    assert isinstance(protocol, HttpProtocol)
    return protocol


async def test_requests_in_a_row_stay_where_they_are_counted() -> None:
    """Each answer had taken 4 KiB more into the parser, where nothing bounds them."""
    client = Client()
    protocol = http_of(client)
    rounds = 50
    for _ in range(rounds):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 400)
        await client.settle()
    assert len(client.scopes) > rounds
    assert len(protocol.conn.trailing_data[0]) <= 2 * STEP_BYTES
    assert not client.transport.reads
    assert not client.transport.is_closed


async def test_requests_in_a_row_are_all_answered_in_order() -> None:
    client = Client()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(500)))
    for _ in range(200):
        await client.settle()
    assert [scope["path"] for scope in client.scopes] == [f"/{number}" for number in range(500)]
    assert client.transport.reads


async def test_one_who_owes_waits_between_two_requests_of_one_piece() -> None:
    client = Client()
    protocol = http_of(client)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
    protocol._budget.spend(processor=10.0)
    for _ in range(20):
        await client.settle()
    assert len(client.scopes) <= 2
    assert client.refusals.by_reason["processor"] == 1
    client.transport.abort()
    protocol.connection_lost(None)


async def stream(_scope: Any, receive: Any, send: Any) -> None:
    """An answer that goes on."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


async def starlettes(scope: Any, receive: Any, send: Any) -> None:
    """An answer of Starlette's that goes on."""

    async def parts() -> Any:
        yield b"first"
        while (await receive())["type"] != "http.disconnect":
            pass

    await StreamingResponse(parts())(scope, receive, send)


async def at_once(_scope: Any, _receive: Any, send: Any) -> None:
    """An answer that is whole before its request is."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("app", [stream, starlettes, at_once])
@pytest.mark.parametrize(
    "pieces", [(CHUNKED, b"ZZZ\r\n"), (CHUNKED + b"ZZZ\r\n",), (CHUNKED, b"1\r\nx\r\n", b"\0\r\n")]
)
async def test_what_is_not_the_rest_of_a_request_ends_its_answer_quietly(
    app: Any, pieces: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    protocol = http_of(client)
    protocol.app = app
    with caplog.at_level(logging.INFO):
        for piece in pieces:
            client.send(piece)
            await client.settle()
    assert client.transport.is_closed
    assert client.refusals.by_reason == {"bad_request": 1}
    assert len(client.state.tasks) == 0
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    first = client.transport.written[0]
    assert first.startswith(b"HTTP/1.1 400 " if len(pieces) == 1 else b"HTTP/1.1 200 ")


async def test_what_waits_here_is_held_and_beyond_its_bound_the_connection_ends() -> None:
    client = Client()
    protocol = http_of(client)
    client.accounts.memory = protocol._budget._memory = Memory(max_total=200_000, max_per_address=50_000)
    memory = client.accounts.memory
    taken: list[bytes] = []

    async def never(_scope: Any, receive: Any, _send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            taken.append(message["body"])

    protocol.app = never
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(20):
        client.send(b"x" * 30_000)
        for _ in range(5):
            await client.settle()
    assert sum(map(len, taken)) == 600_000
    assert memory.total == 0
    client.send(b"x" * 60_000)
    await client.settle()
    assert client.transport.is_closed
    assert client.refusals.by_reason == {"unfinished_bytes": 1}
    assert len(client.state.tasks) == 0
    protocol.connection_lost(None)
    assert memory.total == 0


async def test_what_waits_before_a_request_is_answered_with_a_status() -> None:
    client = Client()
    protocol = http_of(client)
    protocol._budget._memory = Memory(max_total=10_000)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000)
    assert client.transport.is_closed
    assert client.transport.written == [
        b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    ]


async def test_an_answer_that_begins_when_its_client_has_gone_asks_nothing_of_the_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client()
    protocol = http_of(client)
    asked: list[str] = []
    monkeypatch.setattr(client.transport, "get_extra_info", asked.append)
    client.transport.abort()
    assert protocol.pace(1_000)() == 0
    assert not asked

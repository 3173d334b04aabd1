"""A refusal is one line of the log and one count, with the same reason on whatever way in it was met."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from starlette.applications import Starlette

from gateway.access.budget import TokenBucket
from gateway.access.keys import Keys, secret_key
from gateway.access.redaction import redact, without_query
from gateway.access.tokens import TokenError, Verifier, mint

from .test_topics_api import ask, running

pytestmark = pytest.mark.anyio

SECRET = "a secret of more than thirty-two bytes"
BOB = mint(secret_key(SECRET), ttl_seconds=86_400, subject="bob", subscribe=["bob/#"], publish=["bob/#"])


async def connect(app: Starlette, address: str, *commands: dict[str, Any], token: str | None = None) -> list[Any]:
    """What a WebSocket without a transport of ours is sent; it says its commands, and goes."""
    parts = urlsplit(address)
    headers = [(b"host", b"localhost")] + ([(b"authorization", f"Bearer {token}".encode())] if token else [])
    scope = {
        "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "ws",
        "path": unquote(parts.path), "root_path": "", "raw_path": parts.path.encode(), "client": ("127.0.0.1", 1),
        "query_string": parts.query.encode(), "server": ("127.0.0.1", 80), "headers": headers, "state": {},
        "subprotocols": ["mqtt"] if parts.path == "/mqtt" else [], "extensions": {"websocket.http.response": {}},
    }  # fmt: skip
    sent: list[Any] = []
    said = [{"type": "websocket.receive", "text": json.dumps(command)} for command in commands]
    messages = iter([{"type": "websocket.connect"}, *said])

    async def receive() -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
        return next(messages, {"type": "websocket.disconnect", "code": 1000})

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("reason", "token", "ways"),
    [
        (
            "no_token",
            None,
            [
                "ws /ws?topic=a", "/topics/a?format=sse", "/topics/a", "/topics/a?format=csv", "ws /ws/temperature/",
                "ws /topics/a", "ws /mqtt", "POST /topics/a", {"command": "subscribe", "topics": ["a"]},
                {"command": "publish", "topic": "a"},
            ],
        ),
        (
            "grant",
            BOB,
            [
                "ws /ws?topic=a", "/topics/a?format=sse", "/topics/a", "ws /ws/temperature/", "ws /topics/a",
                "ws /mqtt", "POST /topics/a", {"command": "subscribe", "topics": ["a"]},
                {"command": "publish", "topic": "a"},
            ],
        ),
        (
            "malformed",
            "nonsense",
            [
                "ws /ws?topic=a", "/topics/a?format=sse", "/topics/a", "ws /mqtt", "ws /elsewhere", "POST /topics/a",
                {"command": "authenticate", "token": "nonsense"},
            ],
        ),
        (
            "bad_topic",
            BOB,
            [
                "ws /ws?topic=bob/%23/x", "/topics/bob/%23/x?format=sse", "/topics/bob/%23/x", "ws /topics/bob/%23/x",
                {"command": "subscribe", "topics": ["bob/#/x"]}, {"command": "publish", "topic": "bob/+"},
                "POST /topics/bob/%2B",
            ],
        ),
        (
            "bad_since",
            BOB,
            [
                "ws /ws?topic=bob/a&since=xyz", "/topics/bob/a?format=sse&since=xyz", "/topics/bob/a?since=xyz",
                {"command": "subscribe", "topics": ["bob/a"], "since": "xyz"},
            ],
        ),
        (
            "bad_shape",
            BOB,
            [
                "ws /ws?topic=bob/a&max_hz=-1", "/topics/bob/a?format=sse&max_hz=-1", "/topics/bob/a?where=1%2B",
                {"command": "subscribe", "topics": ["bob/a"], "max_hz": -1},
            ],
        ),
        ("bad_request", BOB, ["ws /ws?topic=bob/a&tpoic=b", "/topics/bob/a?format=sse&tpoic=b", "/topics/bob/a?x=1=b"]),
        (
            "filters",
            BOB,
            [
                "ws /ws?topic=bob/a&topic=bob/b&topic=bob/c", "/topics/bob/a?format=sse&topic=bob/b&topic=bob/c",
                "/topics/bob/a?topic=bob/b&topic=bob/c",
                {"command": "subscribe", "topics": ["bob/a", "bob/b", "bob/c"]},
            ],
        ),
        ("unknown_stream", BOB, ["ws /ws/nothing/"]),
        ("path", BOB, ["ws /elsewhere"]),
        ("bad_command", BOB, [{"command": "nope"}]),
        (
            "upstream_unavailable",
            mint(secret_key(SECRET), ttl_seconds=86_400, subscribe=["#", "$SYS/#"], publish=["#", "$SYS/#"]),
            ["POST /topics/a", "ws /mqtt", {"command": "publish", "topic": "a"}],
        ),
    ],
)  # fmt: skip
async def test_a_refusal_is_one_line_and_one_count_on_every_way_in(
    reason: str, token: str | None, ways: list[str | dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    async with running(access_secret=SECRET, mqtt_websocket=True, limit_filters=2) as (app, gateway):
        gateway.guard._log_bucket = TokenBucket(1e6, 1_000_000)
        for way in ways:
            gateway.refusals.by_reason.clear()
            caplog.clear()
            if isinstance(way, dict):
                sent = await connect(app, "/ws", {"id": 1, **way}, token=None if "token" in way else token)
                [told] = [json.loads(one["text"]) for one in sent if '"event":"error"' in one.get("text", "")]
                assert told["id"] == 1
                assert reason in (told["code"], told.get("reason"))
            elif way.startswith("ws "):
                await connect(app, way.removeprefix("ws "), token=token)
            else:
                method, _, address = way.rpartition(" ")
                headers = {"authorization": f"Bearer {token}"} if token else {}
                answer = await ask(app, address, method or "GET", **headers)  # type: ignore[arg-type]
                assert answer.status >= 400
            await asyncio.sleep(0)
            assert gateway.refusals.by_reason == {reason: 1}, way
            lines = [record for record in caplog.records if record.getMessage().startswith("refused ")]
            assert [getattr(record, "reason", None) for record in lines] == [reason], way
            if not isinstance(way, dict):
                assert "closed after" not in caplog.text, way


async def test_a_place_that_is_not_there_is_a_refusal_on_every_way_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway")
    async with running(limit_connections=1, mqtt_websocket=True) as (app, gateway):
        gateway.connections.open("127.0.0.9")
        for way in ("/ws", "/ws/temperature/", "/ws/nothing/", "/mqtt"):
            [start, _] = await connect(app, way)
            assert start["status"] == 503
            assert (b"retry-after", b"10") in start["headers"]
        assert (await ask(app, "/topics/a?format=sse")).status == 503
        assert gateway.refusals.by_reason == {"limit_connections": 5}
        assert caplog.text.count("refused ") == 5


async def test_the_text_of_a_refused_token_stays_whole_in_the_log() -> None:
    verifier = Verifier([Keys([secret_key(SECRET)])])
    for token in ("nonsense", "a.b", "a.b.c", "ü", f"{BOB}x", mint(secret_key(SECRET + "!"), ttl_seconds=60)):
        with pytest.raises(TokenError) as refused:
            await verifier.verify(token)
        assert redact(str(refused.value)) == str(refused.value)


def test_a_text_quotes_nothing_of_the_query() -> None:
    query = b"topic=house/attic&since=x%27y&odd%20one=1"
    assert without_query("topic filter 'house/attic': not granted to 'bob'", query) == (
        "topic filter '…': not granted to 'bob'"
    )
    assert without_query("""since "x'y": must be last""", query) == 'since "…": must be last'
    assert without_query("query parameter 'odd one': is not known", query) == "query parameter '…': is not known"
    assert without_query("'#' must be the last level", query) == "'#' must be the last level"
    assert without_query("'house/attic'", b"") == "'house/attic'"

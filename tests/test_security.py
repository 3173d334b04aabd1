"""What attackers try on a real gateway: the rows of docs/security.md that no other file has a test for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.faults import upgrade
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber
from tests.support.waiting import PATIENCE_SECONDS, eventually

SECRET = "0123456789abcdef0123456789abcdef"
ROOT = "sec"
MANUAL = Path(__file__).parents[1] / "docs" / "security.md"

pytestmark = pytest.mark.anyio


def token(subject: str = "alice", **claims: Any) -> str:
    claims = {"subscribe": [f"{ROOT}/a/#"], "publish": [f"{ROOT}/a/#"], **claims}
    return mint(secret_key(SECRET), ttl_seconds=300, subject=subject, **claims)


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**claims)}"}


@pytest.fixture(scope="module")
def closed(mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway whose policy gives nothing without a token, with a few messages in it."""
    process = GatewayProcess(
        tmp_path_factory.mktemp("closed"),
        mosquitto.url,
        mqtt_client_id=f"closed-{os.getpid()}",
        mqtt_status_topic=f"{ROOT}/status",
        mqtt_topics=[f"{ROOT}/#"],
        mqtt_websocket=True,
        access_secret=SECRET,
        access_cookie="session",
        access_origins=["https://app.example"],
        log_format="json",
    )
    with process:
        with Publisher(mosquitto.url) as publisher:
            for topic in ("a/1", "a/2", "b/secret", "$hidden/x"):
                publisher.publish(f"{ROOT}/{topic}", json.dumps({"value": topic}))
        eventually(
            lambda: process.metrics(bearer(subscribe=["$SYS/#"]))["gateway_history_messages"] >= 4, 10, "messages"
        )
        yield process


@pytest.fixture(scope="module")
def opened(mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway without a policy, as it runs on a laptop."""
    process = GatewayProcess(
        tmp_path_factory.mktemp("opened"),
        mosquitto.url,
        mqtt_client_id=f"opened-{os.getpid()}",
        mqtt_status_topic=f"{ROOT}/opened",
        log_format="json",
    )
    with process:
        yield process


def exchange(gateway: GatewayProcess, request: bytes, timeout_seconds: float = 5) -> bytes:
    """Sends bytes as they are; what comes back until the gateway closes or falls silent."""
    data = b""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout_seconds) as sock:
        sock.settimeout(timeout_seconds)
        with contextlib.suppress(OSError):
            sock.sendall(request)
            while chunk := sock.recv(65_536):
                data += chunk
    return data


async def answer_to(subscriber: Subscriber, command_id: int) -> dict[str, Any]:
    """The event that answers a command."""

    def found() -> dict[str, Any] | None:
        return next((event for event in subscriber.events if event.get("id") == command_id), None)

    answer: dict[str, Any] = await subscriber.wait(found)
    return answer


# Reading what one may not


@pytest.mark.parametrize(
    "accept", ["application/json", "application/x-ndjson", "text/csv", "image/svg+xml", "text/event-stream"]
)
@pytest.mark.parametrize("query", ["", "?since=1h", "?since=1h&order=desc", "?limit=1"])
def test_every_representation_asks_for_the_grant(closed: GatewayProcess, accept: str, query: str) -> None:
    for asked in (
        f"{ROOT}/b/secret",
        f"{ROOT}/%23",
        "%23",
        "%2B/%23",
        f"{ROOT}/%2B/secret",
        f"{ROOT}/a/1?topic={ROOT}/b/secret",
    ):
        path = f"/topics/{asked}" + (query.replace("?", "&") if "?" in asked else query)
        for headers, status in ((bearer(), 403), ({}, 401), ({"Authorization": "Bearer x.y.z"}, 401)):
            found, body = closed.get(path, {"Accept": accept, **headers})
            assert found in (status, 429), (path, found)
            assert b'secret"' not in body


@pytest.mark.slow
def test_the_metrics_are_for_those_who_may_read_the_brokers_statistics(
    mosquitto: Broker, closed: GatewayProcess, opened: GatewayProcess, make_gateway: MakeGateway
) -> None:
    assert closed.get("/metrics")[0] == 401
    for headers in (bearer(), bearer(subscribe=["#"]), bearer(subscribe=["$SYS/broker/#"]), bearer(publish=["$SYS/#"])):
        assert closed.get("/metrics", headers)[0] == 403
    status, body = closed.get("/metrics", {"Authorization": "Bearer x.y.z"})
    assert status in (401, 429)
    assert b"gateway_" not in body
    assert closed.metrics(bearer(subscribe=["$SYS/#"]))["gateway_upstream_connected"] == 1
    assert opened.metrics()["gateway_upstream_connected"] == 1
    public = make_gateway(mosquitto, access_secret=SECRET, access_public_metrics=True)
    assert public.metrics()["gateway_upstream_connected"] == 1
    # a role for everybody that is granted something else opens nothing
    guests: dict[str, Any] = {"access_anonymous_role": "guest", "roles": {"guest": {"subscribe": ["public/#"]}}}
    status, body = make_gateway(mosquitto, access_secret=SECRET, **guests).get("/metrics")
    assert status in (401, 403)
    assert b"gateway_subscribers" not in body


def test_a_head_request_and_an_etag_tell_nothing_either(closed: GatewayProcess) -> None:
    assert closed.request("HEAD", f"/topics/{ROOT}/b/secret", headers=bearer())[0] in (403, 405)
    status, _ = closed.get(f"/topics/{ROOT}/b/secret", {**bearer(), "If-None-Match": "*"})
    assert status == 403


def test_the_list_of_topics_holds_only_what_one_may_read(closed: GatewayProcess) -> None:
    def listed(query: str, headers: dict[str, str]) -> list[str]:
        status, body = closed.get(f"/topics{query}", {"Accept": "application/json", **headers})
        assert status == 200
        found = json.loads(body)
        assert found["total"] == len(found["topics"])
        return [topic["topic"] for topic in found["topics"]]

    for query in ("", "?filter=%23", f"?filter={ROOT}/b/%23&filter={ROOT}/a/%23", f"?prefix={ROOT}"):
        assert listed(query, bearer()) == [f"{ROOT}/a/1", f"{ROOT}/a/2"]
        assert listed(query, {}) == []
    assert listed(f"?prefix={ROOT}/b", bearer()) == []


def test_an_explanation_tells_nothing_of_what_one_may_not_read(closed: GatewayProcess) -> None:
    for asked in (f"{ROOT}/b/secret", f"{ROOT}/B/secret", f"{ROOT}/b/secre", f"/{ROOT}/b/secret", f"{ROOT}/b", "#"):
        status, body = closed.get(f"/explain?topic={quote(asked)}", bearer())
        assert status == 200
        answer = json.loads(body)
        assert answer["failed"] == "grant"
        assert answer["near"] == []
        assert "ago" not in body.decode()
        assert "mqtt://" not in body.decode()


async def test_an_upgrade_of_a_topics_address_asks_for_the_grant(closed: GatewayProcess) -> None:
    async with Subscriber(closed, path=f"/topics/{ROOT}/b/secret", token=token()) as refused:
        assert await refused.wait_closed() == 4003
        assert refused.messages == []
    async with Subscriber(closed, path=f"/topics/{ROOT}/a/1", token=token()) as granted:
        await granted.wait_messages(1)


async def test_the_mqtt_pipe_is_no_way_around_grants(closed: GatewayProcess) -> None:
    from websockets.asyncio.client import connect

    several = [
        {},
        bearer(),
        bearer(subscribe=["#"]),
        bearer(publish=["#"], subscribe=[f"{ROOT}/#"]),
        # `#` stands for no topic that begins with `$`, and the pipe would lead there
        bearer(subscribe=["#"], publish=["#"]),
        bearer(subscribe=["#", "$SYS/#"], publish=["#"]),
        bearer(subscribe=["#"], publish=["#", "$SYS/#"]),
    ]
    for headers in several:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"{closed.ws}/mqtt", subprotocols=["mqtt"], additional_headers=headers):  # type: ignore[list-item]
                pass
        assert caught.value.response.status_code in (401, 403)
    everything = bearer(subscribe=["#", "$SYS/#"], publish=["#", "$SYS/#"])
    async with connect(f"{closed.ws}/mqtt", subprotocols=["mqtt"], additional_headers=everything) as websocket:  # type: ignore[list-item]
        assert websocket.subprotocol == "mqtt"


@pytest.mark.slow
def test_who_shows_no_token_is_not_told_where_the_broker_is(make_gateway: MakeGateway) -> None:
    """Why the link is down names the broker's host in a private network."""
    from websockets.sync.client import connect

    upstream: dict[str, Any] = {"ready": False, "mqtt_topics": [f"{ROOT}/#"]}
    secret = make_gateway("mqtt://127.0.0.1:1", access_secret=SECRET, **upstream)
    public = make_gateway("mqtt://127.0.0.1:1", **upstream)
    for gateway, is_told in ((secret, False), (public, True)):

        def reason(gateway: GatewayProcess = gateway) -> bool:
            with connect(f"{gateway.ws}/ws", proxy=None) as websocket:
                event = json.loads(websocket.recv(10))
            assert (event["event"], event["connected"]) == ("upstream", False)
            return "127.0.0.1:1" in event.get("reason", "")

        eventually(lambda gateway=gateway: b"waiting" in gateway.get("/health/ready")[1], 10)  # type: ignore[misc]
        if is_told:
            eventually(reason, 10, "an open gateway says why")
        else:
            eventually(lambda: "127.0.0.1:1" in secret.log(), 10, "the link failed, the log says why")
            assert not reason()


# Writing what one may not


def test_publishing_by_http_asks_for_the_grant(closed: GatewayProcess) -> None:
    cases = {
        f"{ROOT}/a/x": 202,
        f"{ROOT}/b/x": 403,
        "%24SYS/x": 403,
        "%24share/g/x": 403,
        f"{ROOT}/a/%2B": 400,
        f"{ROOT}/a/%23": 400,
        f"{ROOT}/a/%00": 400,
        "": 400,
    }
    for topic, status in cases.items():
        found, _ = closed.request("POST", f"/topics/{topic}", b"1", bearer())
        assert found == status or (topic == "" and found in (400, 404, 405)), topic
        assert closed.request("POST", f"/topics/{topic}", b"1")[0] in (401, 400, 404, 405)


async def test_an_answer_cannot_be_asked_for_where_one_may_not_go(closed: GatewayProcess) -> None:
    """A responder would publish there with its own rights."""
    async with Subscriber(closed, token=token()) as subscriber:
        for number, (topic, allowed) in enumerate(
            {f"{ROOT}/a/answer": True, f"{ROOT}/b/secret": False, "#": False}.items()
        ):
            properties = {"response_topic": topic}
            await subscriber.send("publish", id=number, topic=f"{ROOT}/a/x", payload=1, properties=properties)
            event = await answer_to(subscriber, number)
            assert (event["event"] == "published") is allowed, event


# Other people's pages


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "https://app.example.evil.example"]
)
async def test_a_page_of_another_origin_gets_no_socket_no_events_and_no_publish(
    closed: GatewayProcess, opened: GatewayProcess, origin: str
) -> None:
    for gateway in (closed, opened):
        for path in ("/ws", "/ws/temperature/", "/topics/a", "/mqtt"):
            with pytest.raises(InvalidStatus) as caught:
                async with Subscriber(gateway, path=path, headers={"Origin": origin}):
                    pass
            assert caught.value.response.status_code == 403
        for method in ("GET", "POST", "HEAD", "OPTIONS"):
            body = b"1" if method == "POST" else None
            headers = {"Origin": origin, "Content-Type": "text/plain", "Access-Control-Request-Method": "POST"}
            assert gateway.request(method, f"/topics/{ROOT}/a/x", body, headers)[0] == 403


async def test_a_listed_page_and_our_own_get_a_socket(closed: GatewayProcess) -> None:
    for origin in ("https://app.example", closed.http):
        async with Subscriber(closed, f"{ROOT}/a/1", headers={"Origin": origin}, token=token()) as subscriber:
            await subscriber.wait_messages(1)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
async def test_a_name_of_the_attackers_that_points_at_us_gets_nothing(opened: GatewayProcess, host: str) -> None:
    """DNS rebinding: the page is then of the same origin as the gateway."""
    same_origin = {"Host": host, "Origin": f"http://{host}"}
    for path in ("/topics/%23", "/topics", "/", "/metrics", "/explain?topic=a"):
        assert opened.get(path, same_origin)[0] == 403
        assert opened.get(path, {"Host": host})[0] == 403
    assert opened.request("POST", f"/topics/{ROOT}/a", b"1", same_origin)[0] == 403
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = (
        f"GET /ws?topic=%23 HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    assert exchange(opened, upgrade.encode(), 2).startswith(b"HTTP/1.1 403")


async def test_a_cookie_opens_no_socket_for_another_page(closed: GatewayProcess) -> None:
    cookie = {"Cookie": f"session={token()}"}
    async with Subscriber(closed, f"{ROOT}/a/1", headers={**cookie, "Origin": closed.http}) as own:
        await own.wait_messages(1)
    with pytest.raises(InvalidStatus):
        async with Subscriber(closed, f"{ROOT}/a/1", headers={**cookie, "Origin": "https://evil.example"}):
            pass
    # a form of another page, sent by a browser that names no origin
    assert closed.request("POST", f"/topics/{ROOT}/a/x", b"1", cookie)[0] == 401
    assert closed.request("POST", f"/topics/{ROOT}/a/x", b"1", {**cookie, "Origin": closed.http})[0] == 202


def test_a_page_cannot_be_framed_or_made_to_run_foreign_code(opened: GatewayProcess) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", opened.port, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/", headers={"Accept": "text/html"})
    response = connection.getresponse()
    response.read()
    connection.close()
    policy = response.getheader("Content-Security-Policy") or ""
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "unsafe-eval" not in policy
    assert response.getheader("X-Content-Type-Options") == "nosniff"
    assert response.getheader("Referrer-Policy") == "no-referrer"


def test_what_a_sensor_sends_is_never_a_page(mosquitto: Broker, opened: GatewayProcess, prefix: str) -> None:
    """A payload or a topic with a script in it, opened by itself in a browser."""
    script = "<script>alert(1)</script>"
    topic = f"{prefix}/{script}/x"
    with Publisher(mosquitto.url) as publisher:
        publisher.publish(topic, script)
        publisher.publish(f"{prefix}/n", "1")
    path = f"/topics/{prefix}/%23"
    eventually(lambda: len(opened.json(path)["messages"]) == 2, 10, "the messages")
    import http.client

    for accept in ("application/json", "text/csv", "application/x-ndjson", "image/svg+xml"):
        connection = http.client.HTTPConnection("127.0.0.1", opened.port, timeout=PATIENCE_SECONDS)
        title = f"&title={quote(script)}" if accept == "image/svg+xml" else ""
        connection.request("GET", f"{path}?since=1h{title}", headers={"Accept": accept})
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        assert response.getheader("Content-Type", "").startswith(accept)
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert "default-src 'none'" in (response.getheader("Content-Security-Policy") or "")
        if accept == "image/svg+xml":
            assert "<script" not in body


# Tricks with requests


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/assets/../../app.py",
        "/assets/..%2f..%2fapp.py",
        "/assets/%252e%252e/app.py",
        "//etc/passwd",
        "/%5c..%5c..%5capp.py",
        "/client.js%00.txt",
        "/\u00e9".encode().decode("latin-1"),
        "/assets/",
        "/.git/config",
        "/gateway.toml",
        "/app.py",
    ],
)
def test_no_path_leads_to_a_file_that_is_not_served(opened: GatewayProcess, path: str) -> None:
    answer = exchange(opened, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1"))
    status = answer.split(b" ")[1]
    assert status in (b"404", b"400", b"405"), answer[:300]
    for secret in (b"root:", b"pydantic", b"import ", b"[core]"):
        assert secret not in answer


@pytest.mark.parametrize(
    "path",
    [
        f"/topics/{ROOT}/a/../b/secret",
        f"/topics/{ROOT}/a/..%2fb/secret",
        f"/topics/{ROOT}/a/%2e%2e/b/secret",
        f"/topics//{ROOT}/b/secret",
        f"/topics/{ROOT}//b/secret",
        f"/topics/{ROOT}/b/secret/",
        f"/topics/{ROOT}/a%2f%2e%2e%2fb%2fsecret",
        f"/topics/{ROOT}/a/%252e%252e/b/secret",
        f"/topics/{ROOT}%2fb%2fsecret",
        f"/topics/{ROOT}/a/1%00/../b/secret",
        f"/topics/{ROOT}/a/1;/../../b/secret",
        f"/./topics/{ROOT}/b/secret",
        "/topics/%2523",
    ],
)
def test_no_path_leads_to_a_topic_that_is_not_granted(closed: GatewayProcess, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token()}\r\nConnection: close\r\n\r\n"
    answer = exchange(closed, request.encode())
    assert b'"b/secret"' not in answer
    body = answer.partition(b"\r\n\r\n")[2]
    if answer.startswith(b"HTTP/1.1 200"):
        # a topic of its own, whatever it looks like: MQTT knows no '..'
        assert json.loads(body)["messages"] == []


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"POST /topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1_0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\nX: a\rb\n\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x10\x0c\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00",
        b"A" * 70_000,
    ],
)
def test_a_request_that_two_parties_could_read_differently_is_refused(opened: GatewayProcess, head: bytes) -> None:
    answer = exchange(opened, head + b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n", 1)
    assert answer.count(b"HTTP/1.1 ") <= 1, answer
    assert b"HTTP/1.1 2" not in answer
    assert opened.get("/health/live")[0] == 200


def test_no_header_of_an_answer_can_be_written_by_a_client(closed: GatewayProcess) -> None:
    hostile = quote("x\r\nSet-Cookie: owned=1\r\n\r\n<script>")
    paths = [
        f"/topics/{ROOT}/a/1?since={hostile}",
        f"/topics/{hostile}",
        f"/topics/{ROOT}/a/%23?since=1h&limit=1&x={hostile}",
        f"/topics/{ROOT}/a/%23?since=1h&title={hostile}&format=csv",
        f"/{hostile}",
        f"/explain?topic={hostile}",
        f"/ws/{hostile}/",
        f"/topics/{ROOT}/a/1?token={hostile}",
    ]
    for path in paths:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token()}\r\nConnection: close\r\n\r\n"
        )
        head = exchange(closed, request.encode()).partition(b"\r\n\r\n")[0].lower()
        assert b"\nset-cookie" not in head, path
    for name in ("Origin", "Authorization", "Last-Event-ID", "Accept", "If-None-Match"):
        start = f"GET /topics/{ROOT}/a/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        request = f"{start}{name}: a\rSet-Cookie: owned=1\r\n\r\n"
        answer = exchange(closed, request.encode()).partition(b"\r\n\r\n")[0].lower()
        assert b"set-cookie" not in answer.replace(b"a\rset-cookie", b"")


async def test_no_line_of_the_log_can_be_written_by_a_client(
    mosquitto: Broker, closed: GatewayProcess, make_gateway: MakeGateway
) -> None:
    human = make_gateway(mosquitto, log_format="human", access_secret=SECRET)
    forged = '\n2026-01-01T00:00:00Z CRITICAL gateway: forged\r\x1b[31m\u2028{"level":"critical"}'
    for gateway in (human, closed):
        for path in (
            f"/topics/{quote(forged)}",
            f"/{quote(forged)}",
            f"/ws/{quote(forged)}/",
            f"/explain?topic={quote(forged)}",
        ):
            gateway.get(path, {"Origin": "https://evil.example"})
            gateway.get(path)
        name = token(subject=f"x{forged}", subscribe=["#"])
        async with Subscriber(gateway, "a", headers={"Authorization": f"Bearer {name}"}) as subscriber:
            await subscriber.send("subscribe", topics=[forged])
            await subscriber.send_raw(forged)
            await subscriber.wait_event("subscribed")
        eventually(lambda gateway=gateway: "closed after" in gateway.log(), 10, "the log")  # type: ignore[misc]
        for line in gateway.log().split("\n"):
            assert not line.startswith("2026-01-01")
            assert "\x1b" not in line
            assert "\r" not in line
            if gateway is closed and line:
                assert json.loads(line)["level"] != "critical"


def test_forwarded_headers_of_just_anybody_are_not_believed(closed: GatewayProcess, opened: GatewayProcess) -> None:
    """Neither to be somebody else's address, nor to be on a secure or another host."""
    spoofed = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    for _ in range(3):
        closed.get("/topics/%23", {**spoofed, "Origin": "https://evil.example"})
    assert "203.0.113.9" not in closed.log()
    # an http page must not pass for a secure one
    assert opened.get("/topics/a", {**spoofed, "Origin": "https://evil.example"})[0] == 403
    assert opened.get("/topics/a", {"X-Forwarded-Host": "localhost", "Host": "evil.example"})[0] == 403


# Bombs


def test_nothing_is_unpacked(closed: GatewayProcess) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    before = closed.memory()
    for encoding in ("gzip", "deflate", "br", "zstd"):
        status, body = closed.request("POST", f"/topics/{ROOT}/a/x", bomb, {**bearer(), "Content-Encoding": encoding})
        assert status == 415
        assert json.loads(body)["reason"] == "content_encoding"
    assert closed.memory() - before < 20e6


def frame(opcode: int, payload: bytes, *, first: int = 0x80, masked: bool = True) -> bytes:
    """A client's frame (RFC 6455 §5.2)."""
    length = len(payload)
    head = bytes([first | opcode])
    flag = 0x80 if masked else 0
    if length < 126:
        head += bytes([flag | length])
    elif length < 65_536:
        head += bytes([flag | 126]) + struct.pack("!H", length)
    else:
        head += bytes([flag | 127]) + struct.pack("!Q", length)
    if not masked:
        return head + payload
    mask = b"\x01\x02\x03\x04"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def test_compressed_frames_are_not_taken(opened: GatewayProcess) -> None:
    """permessage-deflate is not agreed to, so a compressed frame breaks the protocol."""
    with socket.create_connection(("127.0.0.1", opened.port), PATIENCE_SECONDS) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        sock.sendall(upgrade("/ws")[:-2] + extension)
        head = sock.recv(65_536).partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 101")
        assert b"permessage-deflate" not in head
        sock.sendall(frame(1, zlib.compress(b'{"command":"ping"}' * 1_000)[2:-4], first=0xC0))
        data = b""
        while chunk := sock.recv(65_536):
            data += chunk
    # a close frame with 1002, protocol error
    assert data[:4] == b"\x88" + data[1:2] + struct.pack("!H", 1002)


async def test_deep_and_odd_json_costs_an_error_and_no_more(opened: GatewayProcess) -> None:
    bombs = [
        "[" * 500_000,
        '{"command":' * 80_000,
        '{"command":"subscribe","topics":' + "[" * 500_000,
        '{"command":"ping","id":' + "9" * 400_000 + "}",
        '{"command":"ping","id":1e999}',
        '{"command":"publish","topic":"a","payload":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"command":"ping","command":"publish"}',
        '{"command":"subscribe","topics":["' + "a/" * 200_000 + '"]}',
        '{"command":"subscribe","topics":["\\ud800"]}',
        '{"command":"subscribe","topics":["a"],"since":"' + "9" * 100_000 + 'm"}',
        '{"command":"subscribe","topics":["a"],"where":"' + "(" * 400_000 + '"}',
        '{"command":"subscribe","topics":["a"],"fields":"' + "a." * 200_000 + '"}',
        '{"command":"authenticate","token":"' + "e" * 500_000 + '"}',
        "\x00",
        "null",
        "",
    ]
    async with Subscriber(opened) as subscriber, Subscriber(opened) as neighbour:
        for bomb in bombs:
            await subscriber.send_raw(bomb)
        await subscriber.send("ping", id="last")
        async with asyncio.timeout(20):
            await subscriber.wait_event("pong", id="last", timeout_seconds=20)
        await neighbour.send("ping", id=1)
        await neighbour.wait_event("pong", id=1)
        allowed = {"bad_command", "bad_topic", "bad_since", "bad_shape", "bad_payload", "limit"}
        assert {event["code"] for event in subscriber.events if event["event"] == "error"} <= allowed
    assert "Traceback" not in opened.log()


async def test_one_subscribers_condition_cannot_stop_the_others(
    mosquitto: Broker, opened: GatewayProcess, prefix: str
) -> None:
    queries: list[dict[str, Any]] = [
        {"where": "1/0 == 1"},
        {"where": "x % 0 > 1"},
        {"mode": "mean", "max_hz": 10},
        {"deadband": 0.1},
    ]
    async with contextlib.AsyncExitStack() as stack:
        for query in queries:
            await stack.enter_async_context(Subscriber(opened, f"{prefix}/#", **query))
        plain = await stack.enter_async_context(Subscriber(opened, f"{prefix}/#"))
        await plain.wait_event("subscribed")
        with Publisher(mosquitto.url) as publisher:
            for payload in ("1", "9" * 400, '{"x":1}', '{"x":' + "9" * 400 + "}", "1e400", "2"):
                publisher.publish(f"{prefix}/a", payload)
        await plain.wait_messages(6)
    assert "Traceback" not in opened.log()


# The listening address


@pytest.mark.slow
def test_without_a_policy_only_loopback_is_listened_on(tmp_path: Path) -> None:
    import subprocess
    import sys

    root = str(Path(__file__).parents[1])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "serve", "--host", host, "--port", "0"],
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 2
        assert "without an access policy the gateway listens on loopback addresses only" in done.stderr
        assert "--allow-anonymous" in done.stderr


# The table


def rows() -> list[tuple[str, str]]:
    """Each attempt of docs/security.md with each of its tests."""
    section = MANUAL.read_text(encoding="utf-8").partition("## Attempts")[2].partition("\n## ")[0]
    found = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and len(cells) == 3 and not set(cells[0]) <= {"-", ":"} and cells[0] != "attempt":
            found += [(cells[0], test) for test in re.findall(r"`([\w/.]+::\w+)`", cells[2])]
    return found


@pytest.mark.parametrize(("attempt", "test"), rows())
def test_every_row_of_the_table_has_its_test(attempt: str, test: str) -> None:
    file, _, name = test.partition("::")
    path = Path(__file__).parent / file
    assert path.exists(), f"{attempt}: {path} is not there"
    assert re.search(rf"^(async )?def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE), f"{attempt}: {test}"


def test_every_attempt_made_here_is_in_the_table() -> None:
    named = {test for _, test in rows()}
    source = Path(__file__).read_text(encoding="utf-8")
    for name in re.findall(r"^(?:async )?def (test_\w+)\(", source, re.MULTILINE):
        if "table" not in name:
            assert f"test_security.py::{name}" in named, f"docs/security.md has no row for {name}"

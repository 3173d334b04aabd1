"""Every limit on a real gateway: what the one over it gets, its counter, and that a neighbour notices nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import psutil
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

pytestmark = pytest.mark.anyio

# Nothing listens there: what is tested here needs no broker.
NO_BROKER = "mqtt://127.0.0.1:1"
SECRET = "0123456789abcdef0123456789abcdef"


@contextlib.contextmanager
def connection(gateway: GatewayProcess, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A bare connection, from an address of loopback of its own if need be."""
    # its patience ends before a limit that was left at 10 s
    with socket.create_connection(("127.0.0.1", gateway.port), 8, source_address=(source, 0)) as sock:
        yield sock


def ended(sock: socket.socket) -> bytes:
    """Everything until the gateway closes the connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(65_536):
            data += chunk
    return data


def trickle(sock: socket.socket, data: bytes, pause_seconds: float) -> bytes:
    """Sends a byte at a time until the gateway has enough of it; what it said."""
    sock.settimeout(pause_seconds)
    said = b""
    for number in range(len(data)):
        try:
            sock.sendall(data[number : number + 1])
        except OSError:
            return said
        try:
            said += sock.recv(65_536)
        except TimeoutError:
            continue
        except ConnectionResetError:
            return said
        if said:
            return said
    raise AssertionError(f"all {len(data)} bytes were taken")


def refused(gateway: GatewayProcess, reason: str) -> float:
    return gateway.metrics().get(f'gateway_refused_total{{reason="{reason}"}}', 0)


# Time


@pytest.mark.slow
async def test_a_connection_that_says_nothing_is_closed(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_handshake_seconds=0.5)
    began = time.monotonic()
    with connection(gateway) as sock:
        assert b"408" in ended(sock)
    assert time.monotonic() - began > 0.4
    assert refused(gateway, "handshake_seconds") == 1


@pytest.mark.slow
async def test_a_request_that_comes_byte_by_byte_is_given_up(make_gateway: MakeGateway) -> None:
    """Slow loris: each byte in time, the request never."""
    gateway = make_gateway(NO_BROKER, ready=False, limit_handshake_seconds=0.5)
    # so few bytes that they take less than a limit that was left at 10 s, and more than this one
    head = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 4
    with connection(gateway) as sock:
        assert b"408" in trickle(sock, head, 0.05)
    # also as the second request of a connection, where the timer between two requests has been answered by a byte
    with connection(gateway) as sock:
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b'"ok"' not in answer:
            answer += sock.recv(65_536)
        assert b"408" in trickle(sock, head, 0.05)


@pytest.mark.slow
async def test_a_body_that_comes_byte_by_byte_is_given_up(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_handshake_seconds=0.5)
    with connection(gateway) as sock:
        sock.sendall(b"POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        assert b"408" in ended(sock)
    assert refused(gateway, "body_seconds") == 1


@pytest.mark.slow
async def test_those_who_do_connect_may_stay(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_handshake_seconds=0.3)
    async with Subscriber(gateway, "a") as subscriber:
        await subscriber.wait_event("subscribed")
        began = time.monotonic()
        while time.monotonic() - began < 1:
            await subscriber.send("ping", id=1)
            await asyncio.sleep(0.1)
        assert subscriber.code is None


@pytest.mark.slow
async def test_a_reader_that_takes_nothing_is_cut(mosquitto: Broker, make_gateway: MakeGateway, prefix: str) -> None:
    gateway = make_gateway(mosquitto, limit_stall_seconds=1, mqtt_topics=[f"{prefix}/#"])
    with Publisher(mosquitto.url) as publisher:
        publisher.publish_all((f"{prefix}/{number}", b"x" * 100_000) for number in range(300))
    eventually(lambda: gateway.metrics()["gateway_history_messages"] >= 300, 20, "history")
    before = gateway.memory()
    sockets = []
    for accept in ("application/x-ndjson", "text/csv", "text/event-stream", "application/json"):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect(("127.0.0.1", gateway.port))
        request = f"GET /topics/{prefix}/%23?since=1h HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
        sock.sendall(request.encode())
        sockets.append(sock)
    eventually(lambda: refused(gateway, "stall_seconds") >= 3, 20, "stalled readers are cut")
    assert gateway.memory() - before < 100e6
    for sock in sockets:
        sock.close()


# Numbers


async def test_one_address_cannot_take_all_connections(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_connections_per_address=3)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(Subscriber(gateway, "a"))
        with pytest.raises(InvalidStatus) as caught:
            await stack.enter_async_context(Subscriber(gateway, "a"))
        assert caught.value.response.status_code == 503
        assert caught.value.response.headers["Retry-After"] == "10"
        with connection(gateway, "127.0.0.2") as neighbour:
            neighbour.sendall(
                b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert neighbour.recv(65_536).startswith(b"HTTP/1.1 101")
        assert refused(gateway, "limit_connections_per_address") >= 1

    async def again() -> bool:
        async with Subscriber(gateway, "a") as subscriber:
            return bool(await subscriber.wait_event("subscribed"))

    assert await again()


@pytest.mark.slow
async def test_there_are_only_so_many_connections_in_all(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_connections=2)
    async with Subscriber(gateway, "a"), Subscriber(gateway, "a"):
        with pytest.raises(InvalidStatus):
            async with Subscriber(gateway, "a"):
                pass
        events = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
        events.request("GET", "/topics/a", headers={"Accept": "text/event-stream"})
        assert events.getresponse().status == 503
        events.close()
        assert gateway.get("/health/live")[0] == 200


def answered(sock: socket.socket, path: str) -> bool:
    """Whether a request on a connection that is kept alive has an answer, with a body of `Content-Length`."""
    try:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        return answer.status == 200 and bool(answer.read())
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.slow
async def test_connections_that_are_kept_alive_count_between_requests(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_connections_per_address=5, limit_connections=20)
    idle_files = psutil.Process(gateway.pid).num_fds()
    with contextlib.ExitStack() as stack:
        for path in ("/health/live", "/topics/a"):
            sockets = [stack.enter_context(connection(gateway, "127.0.0.6")) for _ in range(30)]
            kept = [sock for sock in sockets if answered(sock, path)]
            kept = [sock for sock in kept if answered(sock, path)]
            assert len(kept) <= 5
            with connection(gateway, "127.0.0.7") as neighbour:
                assert answered(neighbour, path)
        eventually(lambda: psutil.Process(gateway.pid).num_fds() - idle_files <= 6, 10, "the others are closed")
        assert refused(gateway, "limit_connections_per_address") >= 50
    eventually(lambda: psutil.Process(gateway.pid).num_fds() <= idle_files, 10, "all are closed")
    with contextlib.ExitStack() as stack:
        again = [stack.enter_context(connection(gateway, "127.0.0.6")) for _ in range(5)]
        assert all(answered(sock, "/topics/a") for sock in again)


@pytest.mark.slow
async def test_neither_a_browser_nor_a_proxy_is_held_up_by_the_connections_it_keeps(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(
        NO_BROKER, ready=False, limit_connections_per_address=3, forwarded_allow_ips="127.0.0.8, 10.0.0.0/8"
    )
    with contextlib.ExitStack() as stack:
        # WebSockets are no connections that wait for a request
        for _ in range(3):
            sock = stack.enter_context(connection(gateway, "127.0.0.9"))
            sock.sendall(upgrade("/ws", "localhost"))
            assert sock.recv(12) == b"HTTP/1.1 101"
        browser = [stack.enter_context(connection(gateway, "127.0.0.9")) for _ in range(3)]
        for _ in range(3):
            assert all(answered(sock, "/topics/a") for sock in browser)
        pool = [stack.enter_context(connection(gateway, "127.0.0.8")) for _ in range(20)]
        for _ in range(2):
            assert all(answered(sock, "/topics/a") for sock in pool)


@pytest.mark.slow
async def test_there_are_only_so_many_requests_a_second(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_requests_per_second=10)
    statuses = [gateway.get("/topics/a")[0] for _ in range(60)]
    assert statuses[:5] == [200] * 5
    assert 429 in statuses
    assert {gateway.get("/health/live")[0] for _ in range(60)} == {200}
    with connection(gateway, "127.0.0.3") as neighbour:
        neighbour.sendall(b"GET /topics/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert neighbour.recv(65_536).startswith(b"HTTP/1.1 200")
    async with Subscriber(gateway, "a") as subscriber:
        await subscriber.wait_event("subscribed")


@pytest.mark.slow
async def test_there_are_only_so_many_handshakes_a_second(make_gateway: MakeGateway) -> None:
    """As many at once as connections are allowed, and then as many a second as requests; guesses at tokens count."""
    gateway = make_gateway(
        NO_BROKER,
        ready=False,
        limit_requests_per_second=5,
        limit_connections_per_address=20,
        access_secret=SECRET,
    )
    answers = []
    for _ in range(60):
        with connection(gateway, "127.0.0.4") as sock:
            sock.sendall(upgrade("/nowhere?token=bad.bad.bad", "localhost"))
            answers.append(ended(sock)[9:12])
    assert answers[0] == b"401"
    assert answers[10:20] == [b"429"] * 10  # too many bad tokens
    with connection(gateway, "127.0.0.4") as sock:
        # and then too many handshakes, with or without one
        sock.sendall(upgrade("/ws?topic=a", "localhost"))
        said = ended(sock)
    assert b"WebSocket handshakes a second" in said
    assert b"retry-after: 1" in said.lower()
    watcher = mint(secret_key(SECRET), ttl_seconds=300, subscribe=["$SYS/#"])
    samples = gateway.metrics({"Authorization": f"Bearer {watcher}"})
    assert samples['gateway_refused_total{reason="failed_tokens"}'] >= 10
    assert samples['gateway_refused_total{reason="requests_per_second"}'] >= 20
    with connection(gateway, "127.0.0.5") as neighbour:
        neighbour.sendall(upgrade("/ws", "localhost"))
        assert neighbour.recv(65_536).startswith(b"HTTP/1.1 101")


@pytest.mark.slow
async def test_a_connection_that_is_refused_counts_until_it_is_gone(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_connections_per_address=4)
    for path in ("/ws/nostream/", "/ws?topic=a/%23/b"):
        with contextlib.ExitStack() as stack:
            heads = []
            for _ in range(12):
                sock = stack.enter_context(connection(gateway))
                sock.sendall(upgrade(path, "localhost"))
                heads.append(sock.recv(12))
            # the close of the first four is not answered, so they are still there
            assert heads == [b"HTTP/1.1 101"] * 4 + [b"HTTP/1.1 503"] * 8
            eventually(lambda: gateway.metrics()["gateway_connections"] == 0, 20, "given up without an answer")
            files = psutil.Process(gateway.pid).num_fds()
        assert files < 40


@pytest.mark.slow
async def test_there_are_only_so_many_downloads_at_a_time(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    """Readers that take a little now and then are not stalled, so their number is what is limited."""
    gateway = make_gateway(mosquitto, limit_connections_per_address=5, mqtt_topics=[f"{prefix}/#"])
    with Publisher(mosquitto.url) as publisher:
        publisher.publish_all((f"{prefix}/{number}", b"x" * 100_000) for number in range(100))
    eventually(lambda: gateway.metrics()["gateway_history_messages"] >= 100, 20, "history")
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            sock.connect(("127.0.0.1", gateway.port))
            request = f"GET /topics/{prefix}/%23?since=1h&format=csv HTTP/1.1\r\nHost: localhost\r\n\r\n"
            sock.sendall(request.encode())
            assert sock.recv(12) == b"HTTP/1.1 200"
        status, body = gateway.get("/topics/a")
        assert status == 503
        assert json.loads(body)["reason"] == "limit_connections_per_address"
    eventually(lambda: gateway.get("/topics/a")[0] == 200, 10, "those who left make room")


@pytest.mark.slow
async def test_there_are_only_so_many_filters(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_filters=3)
    async with Subscriber(gateway, "a", "b") as subscriber:
        await subscriber.send("subscribe", id=1, topics=["c"])
        await subscriber.wait_event("subscribed", id=1)
        await subscriber.send("subscribe", id=2, topics=["d"])
        error = await subscriber.wait_event("error", id=2)
        assert error["code"] == "limit"
        assert "more than 3 topic filters" in error["message"]
        await subscriber.send("subscribe", id=3, topics=["a", "c"])
        await subscriber.wait_event("subscribed", id=3)
    async with Subscriber(gateway, *"abcd") as many:
        assert await many.wait_closed() == 4000
    assert gateway.get("/topics/a?topic=b&topic=c&topic=d")[0] == 400
    assert refused(gateway, "filters") >= 2


async def test_there_are_only_so_many_commands_a_second(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_commands_per_second=5)
    async with Subscriber(gateway) as eager, Subscriber(gateway) as neighbour:
        for number in range(12):
            await eager.send("ping", id=number)
        error = await eager.wait_event("error")
        assert error["code"] == "limit"
        assert "at most 5 commands a second" in error["message"]
        await neighbour.send("ping", id=1)
        await neighbour.wait_event("pong", id=1)
        for number in range(200):
            with contextlib.suppress(Exception):
                await eager.send("ping", id=number)
        assert await eager.wait_closed() == 4008
        assert neighbour.code is None
    assert refused(gateway, "commands_per_second") >= 50


@pytest.mark.slow
async def test_whoever_uses_much_of_the_processor_waits_for_it(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(
        NO_BROKER, ready=False, limit_filters=10_000, limit_filter_bytes="16MiB", limit_commands_per_second=1_000
    )
    topics = [f"{number}/" + "+/" * 100 + "#" for number in range(1_000)]
    async with Subscriber(gateway) as costly, Subscriber(gateway) as cheap:
        for number in range(10):
            await costly.send("subscribe", id=2 * number, topics=topics, since="now")
            await costly.send("unsubscribe", id=2 * number + 1, topics=topics)
        await cheap.send("ping", id=1)
        await cheap.wait_event("pong", id=1)
        await costly.wait_event("unsubscribed", id=19, timeout_seconds=60)  # nothing is lost by it
    assert refused(gateway, "processor") >= 1


@pytest.mark.slow
async def test_there_are_only_so_many_publishes_a_second(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    gateway = make_gateway(mosquitto, limit_publishes_per_second=5)
    async with Subscriber(gateway) as eager:
        for number in range(12):
            await eager.send("publish", id=number, topic=f"{prefix}/a", payload=number)
        error = await eager.wait_event("error")
        assert error["code"] == "limit"
        await eager.wait(lambda: len([e for e in eager.events if e["event"] == "published"]) >= 10)
    statuses = [gateway.request("POST", f"/topics/{prefix}/a", b"1")[0] for _ in range(15)]
    assert 429 in statuses
    assert statuses[0] == 202
    assert refused(gateway, "publishes_per_second") >= 3


# Sizes


@pytest.mark.slow
async def test_a_large_command_closes_its_connection_only(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_command_bytes="8KiB", limit_payload_bytes="1KiB")
    async with Subscriber(gateway) as large, Subscriber(gateway) as neighbour:
        await large.send_raw(json.dumps({"command": "ping", "id": "x" * 9_000}))
        assert await large.wait_closed() == 1009
        assert refused(gateway, "command_bytes") == 1
        await neighbour.send_raw(json.dumps({"command": "ping", "id": "x" * 1_000}))
        await neighbour.wait_event("pong")


@pytest.mark.slow
async def test_a_large_payload_is_refused(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_payload_bytes=1_000)
    async with Subscriber(gateway) as subscriber:
        await subscriber.send("publish", id=1, topic="a", payload="x" * 1_001)
        assert (await subscriber.wait_event("error", id=1))["code"] == "bad_payload"
    status, body = gateway.request("POST", "/topics/a", b"x" * 1_001)
    assert status == 413
    assert json.loads(body)["code"] == "bad_payload"
    assert refused(gateway, "payload_bytes") == 2


@pytest.mark.slow
async def test_a_payload_of_just_the_limit_can_be_published_as_text_and_as_bytes(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"])
    size = 1_048_576
    binary = base64.b64encode(b"\xff" * size).decode()
    async with Subscriber(gateway) as subscriber:
        await subscriber.send("publish", id=1, topic=f"{prefix}/text", payload="x" * size, qos=1)
        await subscriber.wait_event("published", id=1)
        await subscriber.send("publish", id=2, topic=f"{prefix}/bytes", payload=binary, encoding="base64", qos=1)
        await subscriber.wait_event("published", id=2)
        await subscriber.send("publish", id=3, topic=f"{prefix}/over", payload="x" * (size + 1))
        assert (await subscriber.wait_event("error", id=3))["code"] == "bad_payload"

    def sizes() -> list[int]:
        return sorted(topic["bytes"] for topic in gateway.json("/topics")["topics"])

    eventually(lambda: sizes() == sorted([size + 2, len(binary) + 2]), 10, "both have arrived whole")


async def test_filters_take_only_so_much_memory(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False)
    long = ["a/" + letter * 8_000 for letter in "xyz"]
    async with Subscriber(gateway) as subscriber:
        await subscriber.send("subscribe", id=1, topics=long[:2])
        await subscriber.wait_event("subscribed", id=1)
        await subscriber.send("subscribe", id=2, topics=long[2:])
        error = await subscriber.wait_event("error", id=2)
        assert error["code"] == "limit"
        assert error["message"] == "limit: topic filters of more than 16384 bytes in all, that is the most allowed"
        await subscriber.send("unsubscribe", id=3, topics=long[:1])
        await subscriber.send("subscribe", id=4, topics=long[2:])
        await subscriber.wait_event("subscribed", id=4)
    assert refused(gateway, "filter_bytes") == 1


@pytest.mark.slow
async def test_a_long_url_is_refused(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(NO_BROKER, ready=False, limit_url_bytes=300)
    assert gateway.get("/topics/" + "a" * 200)[0] == 200
    for path in ("/topics/" + "a" * 300, "/topics/a?topic=" + "b" * 300):
        status, body = gateway.get(path)
        assert status == 414
        assert json.loads(body)["code"] == "limit"
    with pytest.raises(InvalidStatus) as caught:
        async with Subscriber(gateway, "a" * 300):
            pass
    assert caught.value.response.status_code == 414
    assert gateway.get("/topics/" + "a" * 60_000)[0] in (400, 414)
    assert refused(gateway, "url_bytes") >= 3


@pytest.mark.slow
async def test_answers_that_nobody_reads_do_not_pile_up(make_gateway: MakeGateway) -> None:
    """A client that asks for large answers and reads none: its commands have to wait."""
    limits: dict[str, Any] = {
        "limit_buffer_bytes": "64KiB",
        "limit_commands_per_second": 100_000,
        "limit_stall_seconds": 4,
        "limit_filter_bytes": "1MiB",
    }
    gateway = make_gateway(NO_BROKER, ready=False, **limits)
    before = gateway.memory()
    async with Subscriber(gateway, small_buffers=True) as silent:
        silent.pause()
        topics = ["t" + "x" * 60_000 + str(number) for number in range(5)]
        command = json.dumps({"command": "unsubscribe", "topics": topics})

        async def flood() -> None:
            for number in range(1_000):
                await silent.send_raw(json.dumps({"command": "subscribe", "id": number, "topics": topics}))
                await silent.send_raw(command)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await flood()
        assert gateway.memory() - before < 60e6
        assert gateway.get("/health/live")[0] == 200

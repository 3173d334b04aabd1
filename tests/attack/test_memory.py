"""The sum of worst memory in docs/operations.md, held by a gateway that is as full as its settings let it be."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.faults import client_frame, upgrade
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

IDLE, STALLED, UNFINISHED, SHAPED, UNREAD = 5_000, 500, 100, 50, 100
HISTORY_BYTES, BUFFER_BYTES, COMMAND_BYTES, SHAPE_BYTES = 32 * 2**20, 64 * 2**10, 2 * 2**20, 16 * 2**20

# docs/operations.md, Sizing
PROCESS, IDLE_BYTES, UNFINISHED_BYTES = 80_000_000, 10_000, 64 * 2**20
ANSWER_BYTES, ANSWERS_BYTES = 128 * 2**10, 128 * 2**20


def opened(gateway: GatewayProcess, number: int, path: str, buffer: int | None = None) -> socket.socket:
    """A WebSocket from one of many addresses, whose answer is not read."""
    sock = connected(gateway, number, buffer)
    sock.sendall(upgrade(path, "localhost"))
    assert sock.recv(12) == b"HTTP/1.1 101"
    return sock


def connected(gateway: GatewayProcess, number: int, buffer: int | None = None) -> socket.socket:
    """A connection from one of many addresses."""
    sock = socket.socket()
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(20)
    sock.bind((f"127.0.1.{number % 200 + 1}", 0))
    sock.connect(("127.0.0.1", gateway.port))
    return sock


@pytest.mark.timeout(300)
def test_a_full_gateway_stays_below_the_sum_of_what_its_settings_allow(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    gateway = make_gateway(
        mosquitto,
        mqtt_topics=[f"{prefix}/#"],
        history_bytes=str(HISTORY_BYTES),
        limit_buffer_bytes=str(BUFFER_BYTES),
        limit_command_bytes=str(COMMAND_BYTES),
        limit_shape_bytes=str(SHAPE_BYTES),
        limit_stall_seconds=600,
        limit_idle_seconds=600,
        limit_handshake_seconds=300,
    )
    with contextlib.ExitStack() as stack, Publisher(mosquitto.url) as publisher:
        for number in range(IDLE):
            stack.enter_context(opened(gateway, number, "/ws?topic=quiet&since=now"))
        for number in range(STALLED):
            stack.enter_context(opened(gateway, number, f"/ws?topic={prefix}/%23&since=now", 4_096))
        for number in range(SHAPED):
            shape = f"deadband={number + 1}" if number % 2 else f"mode=minmax&max_hz={0.01 + number / 1_000}"
            stack.enter_context(opened(gateway, number, f"/ws?topic={prefix}/%23&since=now&{shape}", 4_096))
        message = client_frame(1, b"x" * (COMMAND_BYTES - 1_024))[:-1]
        for number in range(UNFINISHED):
            sock = stack.enter_context(opened(gateway, number, "/ws"))
            with contextlib.suppress(OSError):
                sock.sendall(message)  # beyond what may be held they are closed
        numbers = b",".join(b'"number%d":%d' % (number, number) for number in range(400))
        payload = b'{"text":"%b",%b}' % (b"x" * 4_000, numbers)
        publisher.publish_all(((f"{prefix}/{number % 100}", payload) for number in range(6_000)), qos=0)
        eventually(lambda: gateway.metrics()["gateway_subscribers_slow"] >= STALLED, 60, "all readers have stalled")
        eventually(lambda: gateway.metrics()["gateway_history_bytes"] >= 0.9 * HISTORY_BYTES, 60, "history is full")
        request = f"GET /topics/{prefix}/%23?since=1h&limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for number in range(UNREAD):
            sock = stack.enter_context(connected(gateway, number, 4_096))
            sock.sendall(request.encode())
        eventually(lambda: gateway.metrics()['gateway_refused_total{reason="answer_bytes"}'] > 0, 60, "no more room")
        metrics = gateway.metrics()
        assert metrics["gateway_shapes_shed_total"] > 0
        assert metrics["gateway_connections"] >= IDLE + STALLED
        allowed = PROCESS + 1.1 * HISTORY_BYTES + (IDLE + STALLED + UNFINISHED + SHAPED + UNREAD) * IDLE_BYTES
        allowed += (STALLED + SHAPED + UNREAD) * (BUFFER_BYTES + ANSWER_BYTES) + UNFINISHED_BYTES
        allowed += SHAPE_BYTES + ANSWERS_BYTES
        assert gateway.memory() <= allowed, f"{gateway.memory() / 1e6:.0f} MB, {allowed / 1e6:.0f} MB allowed"
        print(f"{gateway.memory() / 1e6:.0f} MB, {allowed / 1e6:.0f} MB allowed")

"""An event stream is as patient with a slow reader as a WebSocket is."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.faults import raw_websocket
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

PACE = 100_000
"""Bytes a second: a megabyte in the system's buffer would take it longer than the gateway waits for progress."""


def raw_events(gateway: GatewayProcess, topic: str) -> socket.socket:
    """An event stream on which nobody reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", gateway.port))
    head = f"GET /topics/{topic.replace('#', '%23')}?since=now HTTP/1.1\r\nHost: localhost\r\n"
    sock.sendall(f"{head}Accept: text/event-stream\r\n\r\n".encode())
    return sock


def read_slowly(sock: socket.socket, taken: Counter[str], name: str, is_over: Callable[[], bool]) -> None:
    while not is_over():
        try:
            data = sock.recv(2_000)
            if not data:
                return
            taken[name] += len(data)
        except TimeoutError:
            continue
        except OSError:
            return
        time.sleep(2_000 / PACE)


@pytest.mark.slow
def test_a_slow_reader_of_an_event_stream_is_not_taken_for_one_that_does_not_read(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], limit_stall_seconds=3, limit_buffer_bytes="64KiB")
    events = raw_events(gateway, f"{prefix}/#")
    websocket = raw_websocket(gateway, f"{prefix}/#", receive_buffer=4096, since="now")
    stuck = raw_events(gateway, f"{prefix}/#")
    taken: Counter[str] = Counter()
    is_over = threading.Event()
    with events, websocket, stuck:
        eventually(lambda: gateway.metrics()["gateway_subscribers"] == 3)
        readers = [
            threading.Thread(target=read_slowly, args=(sock, taken, name, is_over.is_set))
            for sock, name in ((events, "events"), (websocket, "WebSocket"))
        ]
        for reader in readers:
            reader.start()
        try:
            for number in range(1_200):
                publisher.publish(f"{prefix}/{number % 7}", b"." * 5_000)
            eventually(lambda: gateway.metrics()["gateway_subscribers_slow"] == 3, 20, "all are slow")
            # who reads nothing is closed; those who read would have been, too, had nobody seen it
            eventually(lambda: gateway.metrics()["gateway_subscribers"] == 2, 30, "the stuck one is closed")
            eventually(lambda: min(taken["events"], taken["WebSocket"]) > 7 * PACE, 60, "the others go on for long")
        finally:
            is_over.set()
            for reader in readers:
                reader.join(25)
        assert gateway.metrics()["gateway_subscribers"] == 2


@pytest.mark.parametrize("accept", ["application/x-ndjson", "application/json"])
@pytest.mark.slow
def test_a_slow_reader_of_a_download_is_not_taken_for_one_that_does_not_read(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str, accept: str
) -> None:
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], limit_stall_seconds=1, limit_buffer_bytes="64KiB")
    publisher.publish_all((f"{prefix}/a", b"." * 10_000) for _ in range(700))
    eventually(lambda: gateway.metrics()["gateway_history_messages"] >= 700, 20, "history")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", gateway.port))
        head = f"GET /topics/{prefix}/a?since=1h&limit=1000 HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
        sock.sendall(head.encode())
        size = 0
        began = time.monotonic()
        # slower than the system would empty a buffer of its own size in the time, and longer than that
        while time.monotonic() - began < 6:
            data = sock.recv(12_000)
            assert data, f"closed after {size} bytes"
            size += len(data)
            time.sleep(0.025)
    assert 'reason="stall_seconds"' not in "".join(gateway.metrics())

"""How a gateway is started and stopped by those who don't do it the usual way."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.waiting import eventually

from .test_cli import Running, environment, is_clean, running

SETTINGS = {"GATEWAY_MQTT_URL": "mqtt://127.0.0.1:1", "GATEWAY_LOG_FORMAT": "human"}
LISTENS = re.compile(r"listening on (http://127\.0\.0\.1:(\d+))$")


@contextlib.contextmanager
def serving(**settings: str) -> Iterator[tuple[Running, int]]:
    """A gateway on a port that only its log tells."""
    with running("serve", "--port", "0", environ=SETTINGS | settings) as gateway:
        [found] = eventually(lambda: [found for line in gateway.err if (found := LISTENS.search(line))], 30)
        yield gateway, int(found[2])


def asking(port: int, head: str, body: bytes = b"") -> socket.socket:
    """A request whose answer is read by the test, if at all."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", port))
    sock.sendall(f"{head} HTTP/1.1\r\nHost: localhost\r\n".encode() + body)
    return sock


def read_all(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65_536):
            received += data
    return received


@pytest.mark.slow
def test_a_free_port_is_said_in_the_log() -> None:
    with serving() as (gateway, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=30) as answer:
            assert answer.status == 200
        assert gateway.stop() == 0


@pytest.mark.slow
def test_a_free_port_is_said_by_the_demo() -> None:
    with running("demo", "--broker", "mqtt://127.0.0.1:1", "--devices", "0", "--port", "0") as demo:
        [found] = eventually(
            lambda: [found for line in demo.out if (found := re.search(r"the page +http://127.0.0.1:(\d+)/", line))], 30
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/health/live", timeout=30) as answer:
            assert answer.status == 200
        assert demo.stop() == 0
    assert is_clean(demo)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_half_a_body_is_no_reason_to_stay(number: signal.Signals) -> None:
    with serving() as (gateway, port):
        whole = asking(port, "GET /health/live", b"\r\n")
        assert whole.recv(15).endswith(b"200 OK")
        half_body = asking(port, "POST /topics/a", b"Content-Length: 100\r\n\r\nabc")
        half_head = asking(port, "GET /topics", b"Accept: ")
        waits = asking(port, "POST /topics/a", b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        assert waits.recv(100).startswith(b"HTTP/1.1 100")
        assert gateway.stop(number) == 0
        for sock in (half_body, waits):
            with sock:
                answer = read_all(sock)
                assert answer.startswith(b"HTTP/1.1 503")
                assert b"retry-after: 2\r\n" in answer
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "stopping"
        whole.close()
        half_head.close()
    # who had waited for them until the end would have cut them off, without an answer
    assert is_clean(gateway)


def test_asked_twice_it_stops_at_once_and_in_order(mosquitto: Broker, prefix: str, tmp_path: Path) -> None:
    # one that would wait for ten minutes for answers that nobody reads
    (tmp_path / "sitecustomize.py").write_text("import gateway.server\ngateway.server.SHUTDOWN_SECONDS = 600\n")
    path = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    settings = {"GATEWAY_MQTT_URL": mosquitto.url, "GATEWAY_MQTT_CLIENT_ID": prefix, "PYTHONPATH": path}
    with serving(**settings) as (gateway, port):
        eventually(lambda: any("connected to the broker" in line for line in gateway.err), 15)
        unread = asking(
            port, "GET /asyncapi.json", b"\r\n" + b"GET /asyncapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500
        )
        half = asking(port, "POST /topics/a", b"Content-Length: 100\r\n\r\nabc")
        eventually(lambda: len(unread.recv(1, socket.MSG_PEEK)))
        gateway.process.send_signal(signal.SIGINT)
        assert read_all(half).startswith(b"HTTP/1.1 503")
        assert gateway.process.poll() is None
        assert gateway.stop(signal.SIGINT, 60) == 0
        for sock in (unread, half):
            sock.close()
    assert is_clean(gateway)
    assert not [line for line in gateway.err if "ERROR" in line]


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "1>&- 2>&-", "<&- 1>&- 2>&-", "<&-"])
def test_it_serves_without_standard_streams(closed: str) -> None:
    """As programs start it that close what they don't need; what it opens must not take their numbers."""
    script = f'exec "$0" -m gateway serve --port 0 {closed}'
    command = ["sh", "-c", script, sys.executable]
    with subprocess.Popen(
        command, env=environment(**SETTINGS), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            port = eventually(lambda: listening_port(process.pid), 30)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=30) as answer:
                assert answer.status == 200
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    # what would go to a standard error that is missing goes to standard output
    said = {"2>&-": out, "<&-": err}.get(closed)
    assert said is None or b"listening on" in said


def listening_port(pid: int) -> int | None:
    import psutil

    found = [c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return found[0] if found else None


@pytest.mark.parametrize("closed", ["2>&-", "1>&-"])
def test_other_commands_say_what_is_wrong_without_a_stream(closed: str) -> None:
    script = f'exec "$0" -m gateway sub a --url ws://127.0.0.1:1 {closed}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "can't connect" in (done.stdout if closed == "2>&-" else done.stderr)
    assert "Traceback" not in done.stderr

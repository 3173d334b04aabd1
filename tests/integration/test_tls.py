"""The gateway's own TLS: what it speaks, and a certificate that is renewed under it."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from websockets.sync.client import connect

from tests.support.brokers import Broker
from tests.support.certificates import Authority, KeyPair
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import PATIENCE_SECONDS, eventually

NO_BROKER = "mqtt://127.0.0.1:1"


class TlsGateway(GatewayProcess):
    """A gateway that speaks HTTPS with its own certificate."""

    def __init__(self, folder: Path, authority: Authority, pair: KeyPair, **settings: object) -> None:
        super().__init__(folder, NO_BROKER, tls_cert=str(pair.cert), tls_key=str(pair.key), **settings)
        self.context = ssl.create_default_context(cafile=authority.ca_file)

    def _serves(self) -> bool:
        if not self.is_alive:
            raise RuntimeError(f"the gateway ended:\n{self.log()}")
        with contextlib.suppress(ssl.SSLError):
            return self.serial() > 0
        return False

    def wrapped(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)
        try:
            return (context or self.context).wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise

    def serial(self) -> int:
        """The serial number of the certificate that a new connection gets."""
        with self.wrapped() as sock:
            data = sock.getpeercert(binary_form=True)
        assert data is not None
        return x509.load_der_x509_certificate(data).serial_number

    def scraped(self) -> str:
        with self.wrapped() as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = b""
            while chunk := sock.recv(65_536):
                text += chunk
        return text.decode()


def put(pair: KeyPair, at: KeyPair) -> None:
    """Puts a pair of files in the place of another, as a renewal does."""
    for source, target in ((pair.key, at.key), (pair.cert, at.cert)):
        new = target.with_suffix(".new")
        shutil.copy(source, new)
        new.replace(target)


@pytest.fixture
def used(tmp_path: Path, authority: Authority) -> KeyPair:
    used = KeyPair(tmp_path / "used.pem", tmp_path / "used.key")
    put(authority.issue("first", hosts=("localhost",)), used)
    return used


@pytest.fixture
def gateway_tls(tmp_path: Path, authority: Authority, used: KeyPair) -> Iterator[TlsGateway]:
    gateway = TlsGateway(tmp_path / "tls", authority, used)
    try:
        gateway.start(ready=False)
        yield gateway
    finally:
        gateway.close()


def test_https_and_wss_are_spoken_and_nothing_old(gateway_tls: TlsGateway) -> None:
    with gateway_tls.wrapped() as sock:
        assert sock.version() == "TLSv1.3"
    with connect(f"wss://localhost:{gateway_tls.port}/ws?topic=a", ssl=gateway_tls.context) as websocket:
        assert "event" in str(websocket.recv(10))
    weak = ssl.create_default_context(cafile=None)
    weak.check_hostname = False
    weak.verify_mode = ssl.CERT_NONE
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-SHA:AES256-SHA:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        gateway_tls.wrapped(weak)


def test_a_renewed_certificate_is_taken_without_a_restart(
    gateway_tls: TlsGateway, authority: Authority, used: KeyPair
) -> None:
    first = gateway_tls.serial()
    pid = gateway_tls.pid
    with connect(f"wss://localhost:{gateway_tls.port}/ws?topic=a", ssl=gateway_tls.context) as websocket:
        # a pair that doesn't fit, as in the middle of a renewal or after a mistake
        second = authority.issue("second", hosts=("localhost",))
        shutil.copy(second.key, used.key)
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: "can't be used" in gateway_tls.log(), 10, "the mistake is noticed")
        assert gateway_tls.serial() == first
        put(second, used)
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: gateway_tls.serial() != first, 10, "the new certificate is in use")
        # who was connected still is
        websocket.send('{"command":"ping","id":7}')
        assert any('"pong"' in str(websocket.recv(10)) for _ in range(4))
    assert gateway_tls.pid == pid
    assert gateway_tls.is_alive


@pytest.mark.slow
def test_a_renewed_certificate_is_noticed_without_being_told(
    gateway_tls: TlsGateway, authority: Authority, used: KeyPair
) -> None:
    first = gateway_tls.serial()
    put(authority.issue("later", hosts=("localhost",)), used)
    eventually(lambda: gateway_tls.serial() != first, 20, "the new certificate is in use")


def test_the_end_of_the_certificate_is_measured(gateway_tls: TlsGateway, used: KeyPair) -> None:
    end = x509.load_pem_x509_certificate(used.cert.read_bytes()).not_valid_after_utc.timestamp()
    line = next(line for line in gateway_tls.scraped().splitlines() if line.startswith("gateway_tls_expiry"))
    assert float(line.split()[1]) == pytest.approx(end)


@pytest.mark.slow
def test_connections_without_a_handshake_count_and_are_given_up(
    tmp_path: Path, authority: Authority, used: KeyPair
) -> None:
    gateway = TlsGateway(tmp_path / "tls", authority, used, limit_handshake_seconds=1, limit_connections_per_address=5)
    gateway.start(ready=False)
    try:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), 20)) for _ in range(30)]
            # a neighbour gets in all the same
            neighbour = socket.create_connection(("127.0.0.1", gateway.port), 20, source_address=("127.0.0.2", 0))
            with gateway.context.wrap_socket(neighbour, server_hostname="localhost") as sock:
                assert sock.version() == "TLSv1.3"
            for sock_ in silent:
                with contextlib.suppress(ConnectionResetError):
                    assert sock_.recv(10) == b""
        scraped = gateway.scraped()
        assert 'gateway_refused_total{reason="limit_connections_per_address"} 25' in scraped
        assert 'gateway_refused_total{reason="handshake_seconds"} 5' in scraped
    finally:
        gateway.close()


@pytest.mark.slow
def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(gateway_tls: TlsGateway) -> None:
    """In TLS 1.3 the client speaks right after its Finished: one piece for the gateway."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = gateway_tls.context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", gateway_tls.port), PATIENCE_SECONDS) as sock:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                if sent := outgoing.read():
                    sock.sendall(sent)
                incoming.write(sock.recv(65_536))
        client.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        sock.sendall(outgoing.read())
        said = b""
        while b'"ok"' not in said:
            incoming.write(sock.recv(65_536))
            with contextlib.suppress(ssl.SSLWantReadError):
                while chunk := client.read(65_536):
                    said += chunk
        assert said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
def test_a_gateway_stops_while_handshakes_are_under_way(gateway_tls: TlsGateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway_tls.port), PATIENCE_SECONDS) as sock:
        assert gateway_tls.serial() > 0
        assert gateway_tls.stop() == 0
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(10) == b""
    assert "Traceback" not in gateway_tls.log()


@pytest.mark.slow
def test_hanging_up_does_not_end_a_gateway_without_tls(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, NO_BROKER)
    gateway.start(ready=False)
    try:
        os.kill(gateway.pid, signal.SIGHUP)
        assert gateway.get("/health/live")[0] == 200
        assert gateway.is_alive
    finally:
        gateway.close()


@pytest.mark.slow
def test_who_does_not_end_tls_is_cut_soon_and_who_reads_slowly_gets_all(
    tmp_path: Path, authority: Authority, used: KeyPair, mosquitto: Broker, publisher: Publisher, prefix: str
) -> None:
    gateway = TlsGateway(
        tmp_path / "tls",
        authority,
        used,
        mqtt_url=mosquitto.url,
        mqtt_topics=[f"{prefix}/#"],
        limit_buffer_bytes="64KiB",
    )
    gateway.start(ready=False)
    try:
        eventually(lambda: "gateway_upstream_connected 1.0" in gateway.scraped(), 20, "the broker")
        publisher.publish_all((f"{prefix}/a", b"." * 10_000) for _ in range(150))
        eventually(lambda: "gateway_history_messages 150.0" in gateway.scraped(), 20, "history")
        process = psutil.Process(gateway.pid)
        before = process.num_fds()
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                sock = stack.enter_context(gateway.wrapped())
                sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert sock.recv(12) == b"HTTP/1.1 200"
            # a loop's own patience is 30 s
            eventually(lambda: process.num_fds() <= before, 25, "their connections are cut")
        # the end of an answer is not the end of its reader's time
        with gateway.wrapped() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
            path = f"/topics/{prefix}/a?since=1h&limit=1000"
            slow.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(slow)
            answer.begin()
            length = int(answer.headers["content-length"])
            size = 0
            while data := answer.read(8_000):
                size += len(data)
                time.sleep(0.03)
            assert size == length > 1_500_000
    finally:
        gateway.close()

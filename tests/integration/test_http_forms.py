"""Forms of requests that browsers don't send, and others do: over a plain socket, to a real gateway."""

from __future__ import annotations

import json
import socket

import pytest
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from gateway.transport.http import origin_form
from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess

HANDSHAKE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def answer(gateway: GatewayProcess, request: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and what follows of the answer to a request that is the last of its connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as sock:
        sock.sendall(request.encode())
        received = b""
        while b"\r\n\r\n" not in received or b" 101 " not in received[:13]:
            data = sock.recv(65_536)
            if not data:
                break
            received += data
    head, _, body = received.decode("latin-1").partition("\r\n\r\n")
    lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body


def get(
    gateway: GatewayProcess, target: str, more: str = "Host: localhost\r\n", method: str = "GET"
) -> tuple[int, str]:
    status, _, body = answer(gateway, f"{method} {target} HTTP/1.1\r\n{more}Connection: close\r\n\r\n")
    return status, body


@pytest.mark.slow
def test_a_target_with_scheme_and_host_is_the_one_without(gateway: GatewayProcess) -> None:
    """RFC 9112 §3.2.2: a server MUST accept the absolute form."""
    for origin in (f"http://localhost:{gateway.port}", "HTTP://127.0.0.1", "https://localhost"):
        status, body = get(gateway, f"{origin}/topics?limit=1&prefix=%2Fx")
        assert status == 200
        assert json.loads(body)["total"] == 0
        assert get(gateway, f"{origin}/health/live")[0] == 200
        assert get(gateway, f"{origin}/topics?tpoic=1")[0] == 400
    assert get(gateway, "http://localhost")[0] == get(gateway, "/")[0]
    assert get(gateway, "http://localhost?x=1")[0] == get(gateway, "/?x=1")[0]
    assert get(gateway, "ftp://localhost/topics")[0] == 404
    assert get(gateway, "*", method="OPTIONS")[0] in (404, 405)


def test_the_host_of_such_a_target_is_the_one_that_is_judged(gateway: GatewayProcess) -> None:
    assert get(gateway, "http://localhost/topics", "Host: evil.example\r\n")[0] == 200  # MUST ignore it
    for host in (
        "evil.example",
        "evil.example:80",
        "localhost@evil.example",
        "evil.example@x",
        "localhost.evil.example",
    ):
        for target in (f"http://{host}/topics", f"http://{host}/ws", f"http://{host}/topics?a=/ws"):
            status, body = get(gateway, target)
            assert status == 403, target
            assert '"reason": "host"' in body
        upgrade = f"GET http://{host}/ws HTTP/1.1\r\nHost: localhost\r\n{HANDSHAKE}Sec-WebSocket-Version: 13\r\n\r\n"
        assert answer(gateway, upgrade)[0] == 403
    assert get(gateway, "http://localhost/topics", "Host: localhost\r\nHost: localhost\r\n")[0] == 400


def test_an_origin_is_compared_with_the_host_of_the_target(gateway: GatewayProcess) -> None:
    page = f"Origin: http://localhost:{gateway.port}\r\n"
    assert get(gateway, f"http://localhost:{gateway.port}/topics", f"Host: x\r\n{page}")[0] == 200
    foreign = "Origin: http://evil.example\r\n"
    assert get(gateway, f"http://localhost:{gateway.port}/topics", f"Host: evil.example\r\n{foreign}")[0] == 403


def test_a_websocket_opens_at_such_a_target(gateway: GatewayProcess) -> None:
    request = f"GET http://localhost/ws?topic=a HTTP/1.1\r\nHost: x\r\n{HANDSHAKE}Sec-WebSocket-Version: 13\r\n\r\n"
    assert answer(gateway, request)[0] == 101


@pytest.mark.slow
def test_the_root_path_stays_before_such_a_target(mosquitto: Broker, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(mosquitto, root_path="/house")
    assert get(gateway, "/topics")[0] == get(gateway, "http://localhost/topics")[0] == 200


@pytest.mark.parametrize("version", ["Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 13, 8\r\n", ""])
def test_another_version_of_websockets_is_told_ours(gateway: GatewayProcess, version: str) -> None:
    """RFC 6455 §4.2.2."""
    before = gateway.metrics().get('gateway_refused_total{reason="headers"}', 0)
    status, headers, _ = answer(gateway, f"GET /ws HTTP/1.1\r\nHost: localhost\r\n{HANDSHAKE}{version}\r\n")
    assert (status, headers["sec-websocket-version"], headers["upgrade"]) == (426, "13", "websocket")
    assert gateway.metrics()['gateway_refused_total{reason="headers"}'] == before + 1


@pytest.mark.parametrize("path", ["/ws?topic=a", "/ws/temperature/", "/topics/a"])
def test_the_first_sub_protocol_that_is_known_is_answered(gateway: GatewayProcess, path: str) -> None:
    for asked, answered in {
        ("json",): "json",
        ("gateway.v1", "json"): "gateway.v1",
        ("v12.stomp", "json", "gateway.v1"): "json",
        ("v12.stomp",): None,
        (): None,
    }.items():
        names = [Subprotocol(name) for name in asked] or None
        with connect(f"{gateway.ws}{path}", subprotocols=names, open_timeout=20) as socket_:
            assert socket_.subprotocol == answered


def test_a_refusal_in_band_reaches_a_page_that_asks_for_a_sub_protocol(gateway: GatewayProcess) -> None:
    with connect(f"{gateway.ws}/ws/nothing/", subprotocols=[Subprotocol("json")], open_timeout=20) as socket_:
        assert socket_.subprotocol == "json"
        with pytest.raises(Exception, match="4004"):
            socket_.recv(20)
    with pytest.raises(InvalidHandshake), connect(f"{gateway.ws}/mqtt", subprotocols=[Subprotocol("json")]):
        pass


def test_what_is_no_absolute_form_is_left_alone() -> None:
    headers = [(b"host", b"a")]
    for target in (b"/http://b/c", b"*", b"a:80", b"http:///c", b"http:/c", b"ftp://b/c", b""):
        assert origin_form(target, headers) == (target, headers)
    assert origin_form(b"http://b:1/c%20d?e?f", headers) == (b"/c%20d?e?f", [(b"host", b"b:1")])
    assert origin_form(b"wss://b", headers) == (b"/", [(b"host", b"b")])

"""/mqtt: clients that speak MQTT over WebSocket reach the broker through the gateway's port."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as ws_connect
from websockets.typing import Subprotocol

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.support.brokers import Broker
from tests.support.faults import client_frame, upgrade
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher, leave
from tests.support.waiting import eventually, missing

CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04pipe"
CONNACK = b"\x20\x02\x00\x00"


@pytest.fixture
def piped(make_gateway: Any, mosquitto: Broker) -> GatewayProcess:
    gateway: GatewayProcess = make_gateway(mosquitto, mqtt_websocket=True)
    return gateway


def subscribe_to(topic_filter: str, qos: int) -> Any:
    """What subscribes as soon as there is a connection."""

    def on_connect(client: paho.Client, *_: object) -> None:
        client.subscribe(topic_filter, qos)

    return on_connect


def connect(gateway: GatewayProcess, path: str = "/mqtt") -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, transport="websockets")
    client.ws_set_options(path=path)
    client.connect("127.0.0.1", gateway.port)
    return client


@pytest.mark.slow
def test_paho_subscribes_and_publishes_through_the_gateway(
    piped: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    received: list[bytes] = []
    subscribed = threading.Event()
    client = connect(piped)
    client.on_message = lambda _c, _d, message: received.append(bytes(message.payload))
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_connect = subscribe_to(f"{prefix}/#", 1)
    client.loop_start()
    try:
        assert subscribed.wait(30)
        client.publish(f"{prefix}/out", b"\x00" * 100_000, 1).wait_for_publish(10)
        publisher.publish(f"{prefix}/in", b"\xff" * 100_000)
        eventually(lambda: sorted(map(len, received)) == [100_000, 100_000])
    finally:
        leave(client)


def test_a_client_that_does_not_read_holds_back_the_broker_not_the_gateway(
    piped: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    client = connect(piped)
    client.on_connect = subscribe_to(f"{prefix}/#", 0)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not client.is_connected():
        client.loop(0.1)
    for _ in range(5):
        client.loop(0.1)
    before = piped.memory()
    # 60 MB for a client that has stopped reading
    publisher.publish_all(((f"{prefix}/flood", b"x" * 60_000) for _ in range(1_000)), qos=0)
    eventually(lambda: piped.json(f"/topics?prefix={prefix}/flood")["topics"][0]["count"] >= 990, 30)
    # history holds its share of these; the pipe holds next to nothing
    history = sum(60_000 for _ in range(1_000))
    assert piped.memory() - before < history + 40 * 2**20
    leave(client)


@pytest.mark.slow
def test_a_pipe_ends_with_the_token_that_opened_it(make_gateway: Any, mosquitto: Broker) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    gateway = make_gateway(mosquitto, mqtt_websocket=True, access_secret=secret)
    all_topics = ["#", "$SYS/#"]
    token = mint(secret_key(secret), ttl_seconds=2, subject="operator", subscribe=all_topics, publish=all_topics)
    with ws_connect(f"{gateway.ws}/mqtt?token={token}", subprotocols=[Subprotocol("mqtt")]) as websocket:
        websocket.send(CONNECT)
        assert websocket.recv(10) == CONNACK
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4005


@pytest.mark.slow
def test_a_silent_pipe_is_pinged_and_one_that_does_not_answer_is_closed(make_gateway: Any, mosquitto: Broker) -> None:
    gateway = make_gateway(mosquitto, mqtt_websocket=True, limit_idle_seconds=2)
    handshake = upgrade("/mqtt")[:-2] + b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    with (
        ws_connect(f"{gateway.ws}/mqtt", subprotocols=[Subprotocol("mqtt")], ping_interval=None) as answering,
        socket.create_connection(("127.0.0.1", gateway.port), 20) as silent,
    ):
        answering.send(CONNECT)
        assert answering.recv(10) == CONNACK
        silent.sendall(handshake + client_frame(2, CONNECT.replace(b"pipe", b"mute")))
        said = b""
        while chunk := silent.recv(65_536):
            said += chunk
        # a ping, and then the close with its code
        assert b"\x89\x00" in said
        assert (4101).to_bytes(2, "big") in said
        assert gateway.metrics()['gateway_refused_total{reason="idle_seconds"}'] == 1
        # the one that answers pings is still there
        answering.send(b"\xc0\x00")
        assert answering.recv(10) == b"\xd0\x00"


def test_it_is_off_unless_a_setting_turns_it_on(gateway: GatewayProcess) -> None:
    with pytest.raises(InvalidStatus) as refused, ws_connect(f"{gateway.ws}/mqtt", subprotocols=[Subprotocol("mqtt")]):
        pass
    assert refused.value.response.status_code == 404
    assert b"GATEWAY_MQTT_WEBSOCKET" in (refused.value.response.body or b"")


def test_mqtt_js_works_through_the_gateway(piped: GatewayProcess, publisher: Publisher, prefix: str) -> None:
    node = shutil.which("node")
    package = Path(__file__).parents[2] / "web" / "node_modules" / "mqtt"
    if node is None or not package.exists():
        missing("Node.js and the package mqtt (cd web && npm ci)")
    script = f"""
        const mqtt = require({json.dumps(str(package))});
        const client = mqtt.connect("ws://127.0.0.1:{piped.port}/mqtt", {{ protocolVersion: 5 }});
        client.on("connect", () => client.subscribe("{prefix}/#", {{ qos: 1 }}, () => {{
            client.publish("{prefix}/js", "from node", {{ qos: 1 }});
        }}));
        client.on("message", (topic, payload) => {{
            console.log(topic + " " + payload);
            if (topic === "{prefix}/answer") client.end();
        }});
        setTimeout(() => process.exit(1), 15000).unref();
    """
    with subprocess.Popen([node, "-e", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{prefix}/js from node\n"
            publisher.publish(f"{prefix}/answer", "to node")
            assert process.stdout.readline() == f"{prefix}/answer to node\n"
            assert process.wait(30) == 0
        finally:
            process.kill()

"""`docker compose --profile secure up` as it is: TLS between all parts, and what attackers on the network try."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.integration.test_secure_broker import Client
from tests.support.certificates import Authority
from tests.support.waiting import PATIENCE_SECONDS, eventually, free_port

ROOT = Path(__file__).parents[2]
# a sensor that nobody plays: a second connection of the simulator's would end its first
PROBE = "esp32-8"

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


class Stack:
    """The Compose file under a name and on ports of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.name = f"gateway-secure-{uuid.uuid4().hex[:8]}"
        self.http_port, self.mqtts_port, self.mqtt_port = free_port(), free_port(), free_port()
        ports = {"HTTP_PORT": self.http_port, "MQTTS_PORT": self.mqtts_port, "MQTT_PORT": self.mqtt_port}
        self.environment = {**os.environ, **{name: str(port) for name, port in ports.items()}}
        self.ca_file = folder / "ca.pem"
        self.passwords: dict[str, str] = {}

    def compose(self, *arguments: str, profile: str = "secure", stdin: str = "") -> str:
        done = subprocess.run(
            ["docker", "compose", "-p", self.name, "--profile", profile, *arguments],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4_000:] + done.stdout[-2_000:]
        return done.stdout

    def http(self, path: str, token: str | None = None, body: bytes | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(f"https://127.0.0.1:{self.http_port}{path}", body)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS, context=self.tls()) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def tls(self) -> ssl.SSLContext:
        """What a browser that trusts the authority trusts."""
        return ssl.create_default_context(cafile=self.ca_file)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self.http("/health/ready")[0] == 200
        return False

    def token(self, *arguments: str) -> str:
        return self.compose("exec", "-T", "gateway", "gateway", "token", *arguments).strip()

    def has_left(self) -> float:
        """How often the gateway has come back to the broker."""
        address = f"https://127.0.0.1:{self.http_port}/metrics"
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS, context=self.tls()) as response:
            (line,) = re.findall(rb"^gateway_upstream_reconnects_total (\S+)$", response.read(), re.MULTILINE)
        return float(line)

    def let_in(self, sensor: str) -> str:
        """Gives a further sensor a password, which the broker has yet to read."""
        script = ("python", "/scripts/make_passwords.py", "/secrets", sensor, "--show")
        shown = self.compose("run", "--rm", "--no-deps", "secrets", *script)
        return shown.strip().removeprefix(f"{sensor}:")

    def gets_in(self, sensor: str) -> bool:
        client = self.client(sensor)
        client.close()
        return client.reason == "Success"

    def client(self, user: str | None = PROBE, password: str | None = None, **options: Any) -> Client:
        options.setdefault("ca_file", self.ca_file)
        options.setdefault("port", self.mqtts_port)
        return Client(user=user, password=password or self.passwords.get(user or ""), **options)


@pytest.fixture(scope="module")
def stack(compose: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.compose("up", "--no-build", "--detach")
        stack.ca_file.write_text(stack.compose("run", "--rm", "--no-deps", "secrets", "cat", "/secrets/sensors/ca.pem"))
        eventually(stack.is_ready, 120, "the gateway is connected to the broker")
        stack.let_in(PROBE)
        stack.compose("kill", "--signal", "HUP", "mosquitto")
        lines = stack.compose("run", "--rm", "--no-deps", "secrets", "cat", "/secrets/sensors/passwords").splitlines()
        stack.passwords = dict(line.split(":", 1) for line in lines)
        eventually(lambda: stack.gets_in(PROBE), 10, "the probe gets in")
        yield stack
    finally:
        subprocess.run(
            ["docker", "compose", "-p", stack.name, "--profile", "*", "down", "--volumes", "--timeout", "1"],
            cwd=ROOT,
            env=stack.environment,
            capture_output=True,
            timeout=120,
            check=False,
        )


def test_readings_reach_a_browser_that_has_a_token(stack: Stack) -> None:
    token = stack.token("--subscribe", "sensors/+/state", "--ttl", "5m")
    with connect(
        f"wss://127.0.0.1:{stack.http_port}/ws?topic=sensors/%2B/state&token={token}", ssl=stack.tls()
    ) as websocket:
        topics: set[str] = set()
        while len(topics) < 12:
            message = json.loads(websocket.recv(20))
            if "topic" in message:
                topics.add(message["topic"])
    assert topics == {f"sensors/{sensor}/state" for sensor in stack.passwords if sensor != PROBE}


def test_browsers_come_by_https_and_by_nothing_else(stack: Stack) -> None:
    with pytest.raises((OSError, HTTPException)):
        urllib.request.urlopen(f"http://127.0.0.1:{stack.http_port}/health/live", timeout=PATIENCE_SECONDS)
    with urllib.request.urlopen(
        f"https://127.0.0.1:{stack.http_port}/", timeout=PATIENCE_SECONDS, context=stack.tls()
    ) as response:
        assert b"<!doctype html>" in response.read().lower()


def test_without_a_token_nothing_is_to_be_seen(stack: Stack) -> None:
    assert stack.http("/topics/%23")[0] == 401
    assert stack.http("/topics")[1]["topics"] == []
    assert stack.http("/topics/sensors/living-climate/cmd", body=b"{}")[0] == 401
    with connect(f"wss://127.0.0.1:{stack.http_port}/ws?topic=%23", ssl=stack.tls()) as websocket:
        assert json.loads(websocket.recv(10))["code"] == "unauthorized"
        with pytest.raises(ConnectionClosedError, match="4001"):
            websocket.recv(10)


def test_a_command_goes_all_the_way_and_nothing_else_does(stack: Stack) -> None:
    token = stack.token("--subscribe", "#", "--publish", "#")
    command = "/topics/sensors/living-climate/cmd?qos=1&confirm=1"
    status, answer = stack.http(command, token, b'{"interval":2}')
    assert status == 202
    assert answer["position"]
    # the broker allows the gateway no more than that, whatever its own tokens grant
    for topic in ("sensors/living-climate/state", "alerts/fire", "homeassistant/device/x/config"):
        status, answer = stack.http(f"/topics/{topic}?qos=1", token, b"1")
        assert status == 502
        assert answer["code"] == "publish_refused"


def test_all_parts_speak_tls_and_nothing_else(stack: Stack) -> None:
    for service in ("gateway", "sensors"):
        table = stack.compose("exec", "-T", service, "cat", "/proc/net/tcp", "/proc/net/tcp6")
        remote = [line.split()[2].rpartition(":")[2] for line in table.splitlines() if " 01 " in line[:60]]
        established = {int(port, 16) for port in remote if re.fullmatch(r"[0-9A-F]{4}", port)}
        assert 8883 in established, (service, established)
        assert 1883 not in established
    listening = stack.compose("exec", "-T", "mosquitto", "cat", "/proc/net/tcp", "/proc/net/tcp6")
    ports = {int(line.split()[1].rpartition(":")[2], 16) for line in listening.splitlines() if " 0A " in line}
    assert 8883 in ports
    assert 1883 not in ports


def test_a_wrong_password_and_a_foreign_topic_are_refused(stack: Stack) -> None:
    for user, password in ((PROBE, "wrong"), (PROBE, stack.passwords["living-climate"]), ("root", "x"), (None, None)):
        client = stack.client(user, password)
        assert client.reason == "Not authorized"
        client.close()
    client = stack.client()
    assert client.reason == "Success"
    assert client.publish("sensors/living-climate/state") == "Not authorized"
    assert client.publish(f"sensors/{PROBE}/cmd") == "Not authorized"
    assert client.publish(f"sensors/{PROBE}/state") in ("Success", "No matching subscribers")
    client.close()


def test_a_sensors_password_takes_neither_the_place_of_the_gateway_nor_what_it_reads(stack: Stack) -> None:
    before = stack.has_left()
    token = stack.token("--subscribe", f"sensors/{PROBE}/state", "--ttl", "5m")
    with connect(
        f"wss://127.0.0.1:{stack.http_port}/ws?topic=sensors/{PROBE}/state&since=now&token={token}", ssl=stack.tls()
    ) as websocket:
        client = stack.client(client_id="gateway", keeps=True)
        assert client.had_session is False
        client.subscribe("#")
        client.publish(f"sensors/{PROBE}/state", "still heard")
        while "still heard" not in str(websocket.recv(20)):
            pass
        eventually(lambda: client.payloads == ["still heard"], 10, "its own reading and nobody else's")
        client.close()
    assert stack.has_left() == before


def test_nobody_gets_in_without_tls_or_with_another_authority(stack: Stack, tmp_path: Path) -> None:
    for port in (stack.mqtts_port, stack.mqtt_port):
        plain = stack.client(ca_file=None, port=port)
        assert plain.reason is None
        plain.close()
    context = ssl.create_default_context(cafile=Authority(tmp_path).ca_file)
    refused = pytest.raises(ssl.SSLCertVerificationError)
    with socket.create_connection(("127.0.0.1", stack.mqtts_port), 10) as sock, refused:
        context.wrap_socket(sock, server_hostname="localhost")


def test_each_part_sees_only_its_own_secrets(stack: Stack) -> None:
    named = "-name '*.key' -o -name passwords -o -name gateway.toml"
    command = f"find / \\( -path /proc -o -path /sys -o -path /usr \\) -prune -o -type f \\( {named} \\) -print; true"

    def found(service: str) -> set[str]:
        return set(stack.compose("exec", "-T", "--user", "0", service, "sh", "-c", command).split())

    # what it puts together of them in memory, in /run/gateway, not even root without rights can list
    assert found("gateway") == {f"/etc/gateway/{name}" for name in ("gateway.toml", "server.key", "node.key")}
    assert found("sensors") == {"/secrets/passwords"}
    assert found("mosquitto") == {"/mosquitto/secrets/passwords", "/mosquitto/secrets/server.key"}


def test_no_secret_is_in_a_log(stack: Stack) -> None:
    log = stack.compose("logs", "--no-color")
    toml = stack.compose("exec", "-T", "gateway", "cat", "gateway.toml")
    secrets = [*stack.passwords.values(), *re.findall(r'(?:password|secret) = "(.+)"', toml)]
    assert len(secrets) >= 12
    assert not [secret for secret in secrets if secret in log]
    assert "world readable" not in log
    assert "Future versions will refuse" not in log


def test_another_sensor_gets_in_after_it_was_added(stack: Stack) -> None:
    stack.passwords["esp32-1"] = stack.let_in("esp32-1")
    assert not stack.gets_in("esp32-1")
    stack.compose("kill", "--signal", "HUP", "mosquitto")
    eventually(lambda: stack.gets_in("esp32-1"), 10, "the new sensor gets in")


def test_it_stays_secure_without_the_profile(stack: Stack) -> None:
    """The last test of this file: what was made secure is not opened by the shorter command."""
    stack.compose("up", "--detach", "--force-recreate", "mosquitto", "gateway", profile="demo")
    eventually(stack.is_ready, 60, "the gateway is connected again")
    assert stack.http("/topics/%23")[0] == 401
    assert stack.client(ca_file=None, port=stack.mqtt_port).reason is None

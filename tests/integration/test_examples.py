"""examples/compose: each file brought up as it is, and one message through all of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import ssl
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import PATIENCE_SECONDS, eventually, free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "compose").glob("*.yml"))
OWN_BROKER = """
services:
  broker:
    image: eclipse-mosquitto:2.0
    command: [mosquitto, -c, /own.conf]
    volumes: ["CONF:/own.conf:ro"]
"""
SECRET = "0123456789abcdef0123456789abcdef"

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow, pytest.mark.docker]


class Stack:
    """One example under a name and on ports of the test's own."""

    def __init__(self, file: Path, folder: Path, **environment: str) -> None:
        self.name = f"gateway-example-{uuid.uuid4().hex[:8]}"
        self.files = ["-f", str(file)]
        if environment.get("MQTT_URL"):
            own = folder / "broker.yml"
            (folder / "own.conf").write_text("listener 1883\nallow_anonymous true\n")
            own.write_text(OWN_BROKER.replace("CONF", str(folder / "own.conf")))
            self.files += ["-f", str(own)]
        names = ("HTTP_PORT", "HTTPS_PORT", "MQTT_PORT", "MQTTS_PORT", "PROMETHEUS_PORT")
        self.ports = {name: free_port() for name in names}
        images = {"VALKEY_VERSION": ("valkey/valkey", "8"), "CADDY_VERSION": ("caddy", "2")}
        images["PROMETHEUS_VERSION"] = ("prom/prometheus", "latest")
        # where there is no registry, the images that there are
        versions = {
            name: tag
            for name, (image, tag) in images.items()
            if subprocess.run(["docker", "image", "inspect", f"{image}:{tag}"], capture_output=True).returncode == 0  # noqa: PLW1510
        }
        ports = {name: str(port) for name, port in self.ports.items()}
        self.environment = {**os.environ, **ports, **versions, **environment}
        self.scheme, self.port = "http", self.ports["HTTP_PORT"]
        self.token = ""

    def compose(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", "compose", "-p", self.name, *self.files, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4_000:]
        return done.stdout

    def ask(self, path: str, body: bytes | None = None) -> Any:
        context = None
        if self.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(f"{self.scheme}://localhost:{self.port}{path}", body)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS, context=context) as response:
            data = response.read()
            return json.loads(data) if "json" in response.headers["Content-Type"] else data

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, HTTPException):
            return bool(self.ask("/health/ready"))
        return False


@pytest.fixture
def stack(compose: None, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stack]:
    file: Path = request.param
    environment = {"GATEWAY_ACCESS_SECRET": SECRET}
    if "MQTT_URL" in file.read_text():
        environment["MQTT_URL"] = "mqtt://broker:1883"
    found = Stack(file, tmp_path, **environment)
    if file.stem in ("caddy", "mosquitto-tls"):
        found.scheme = "https"
        found.port = found.ports["HTTPS_PORT"] if file.stem == "caddy" else found.ports["HTTP_PORT"]
    try:
        found.compose("up", "--no-build", "--detach")
        yield found
    finally:
        found.compose("down", "--volumes", "--timeout", "1")


@pytest.mark.parametrize("stack", EXAMPLES, indirect=True, ids=lambda path: path.stem)
def test_a_message_goes_all_the_way(stack: Stack) -> None:
    eventually(stack.is_ready, 120, "the gateway is connected")
    if stack.scheme == "https":
        words = ("gateway", "token", "--subscribe", "#", "--publish", "#", "--ttl", "5m")
        stack.token = stack.compose("exec", "-T", "gateway", *words).strip()
    assert stack.ask("/topics/sensors/here/cmd?qos=1", b'{"interval":5}')
    eventually(lambda: stack.ask("/topics/sensors/here/cmd")["messages"], 20, "it comes back from the broker")
    assert b"<!doctype html>" in stack.ask("/").lower()
    if "prometheus" in stack.compose("config", "--services").split():

        def targets() -> list[str]:
            address = f"http://127.0.0.1:{stack.ports['PROMETHEUS_PORT']}/api/v1/targets"
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as response:
                return [target["health"] for target in json.load(response)["data"]["activeTargets"]]
            return []

        eventually(lambda: targets() == ["up"], 60, "Prometheus reads the gateway's numbers")


def test_every_example_says_how_it_is_started() -> None:
    assert len(EXAMPLES) >= 6
    for file in EXAMPLES:
        text = file.read_text()
        assert re.search(rf"docker compose -f examples/compose/{file.name} up", text), file.name

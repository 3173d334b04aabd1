"""docker-compose.yml as it is: built, brought up, looked at from outside, and hurt."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from gateway.settings.rows import SETTINGS
from scripts.images import base_name
from tests.support.brokers import IMAGE
from tests.support.waiting import PATIENCE_SECONDS, eventually, free_port, missing

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


class Project:
    """The Compose file under a name and on ports of the test's own."""

    def __init__(self, settings: Path) -> None:
        self.name = f"gateway-test-{uuid.uuid4().hex[:8]}"
        self.http_port = free_port()
        ports = {name: str(free_port()) for name in ("MQTT_PORT", "MQTTS_PORT")}
        settings.write_text('[[alerts]]\nname = "hot"\ntopics = ["sensors/+/state"]\nwhere = "temperature > 90"\n')
        own = {"SETTINGS_FILE": str(settings), "GATEWAY_ACCESS_ORIGINS": "http://localhost:5173"}
        self.environment = {**os.environ, "HTTP_PORT": str(self.http_port), **ports, **own}

    def compose(self, *arguments: str) -> str:
        result = subprocess.run(
            ["docker", "compose", "-p", self.name, "--profile", "demo", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-4000:]
        return result.stdout

    def container(self, service: str) -> str:
        return self.compose("ps", "-a", "-q", service).strip()

    def inspect(self, service: str) -> dict[str, dict[str, object]]:
        output = subprocess.run(
            ["docker", "inspect", self.container(service)], capture_output=True, check=True, timeout=30
        ).stdout
        found: dict[str, dict[str, object]] = json.loads(output)[0]
        return found

    def is_healthy(self, service: str) -> bool:
        health = self.inspect(service)["State"].get("Health")
        return isinstance(health, dict) and health["Status"] == "healthy"

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, HTTPException), urlopen(self.url + "health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/"

    def position(self) -> str:
        with urlopen(self.url + "topics?limit=1", timeout=PATIENCE_SECONDS) as answer:
            return str(json.load(answer)["position"])

    def readings(self, count: int) -> list[tuple[str, object]]:
        """The next readings, as a browser gets them."""
        address = f"ws://127.0.0.1:{self.http_port}/ws?topic=sensors/%2B/state&since=now"
        found: list[tuple[str, object]] = []
        with connect(address, open_timeout=PATIENCE_SECONDS) as socket:
            while len(found) < count:
                message = json.loads(socket.recv(timeout=20))
                if "topic" in message:
                    found.append((message["topic"], message["payload"]))
        return found


def configuration(**environment: str) -> dict[str, Any]:
    """The Compose file with all profiles, as Compose reads it in this environment."""
    command = ["docker", "compose", "--profile", "*", "config", "--format", "json"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=True, timeout=60
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.usefixtures("compose")
def test_every_image_says_which_version_it_is() -> None:
    images = [service["image"] for service in configuration()["services"].values() if "build" not in service]
    stages = re.findall(r"^FROM (?:--\S+ )?(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(stages) == {"${BUILD_BASE}", "${BASE}", "scratch"}
    images.append(base_name())
    assert len(images) >= 4
    for image in images:
        assert re.search(r":v?\d+\.\d+", image), image


@pytest.mark.usefixtures("compose")
def test_monitoring_stays_on_loopback_when_the_rest_is_opened() -> None:
    def addresses(**environment: str) -> dict[str, set[str]]:
        services = configuration(**environment)["services"].items()
        return {name: {port["host_ip"] for port in service.get("ports", ())} for name, service in services}

    opened = addresses(BIND="0.0.0.0")
    assert opened["gateway"] == opened["mosquitto"] == {"0.0.0.0"}
    assert opened["prometheus"] == opened["grafana"] == {"127.0.0.1"}
    assert addresses(MONITORING_BIND="192.0.2.1")["grafana"] == {"192.0.2.1"}


SET_BY_THE_FILE = {"GATEWAY_HOST", "GATEWAY_PORT", "GATEWAY_CLUSTER_NODE"}
"""Where it listens in its container, and a name that each node has to itself."""


@pytest.mark.usefixtures("compose")
@pytest.mark.parametrize("service", ["gateway", "gateway-2", "gateway-3"])
def test_every_setting_can_be_given_in_the_environment(service: str) -> None:
    wanted = {row.variable for row in SETTINGS.values()} - SET_BY_THE_FILE
    given = configuration(**dict.fromkeys(wanted, "as it was given"))["services"][service]["environment"]
    assert {name for name, value in given.items() if value == "as it was given"} == wanted
    # and what is not given stays with the image's defaults and the file's own
    assert configuration()["services"][service]["environment"]["GATEWAY_MQTT_TOPICS"] is None


@pytest.mark.usefixtures("compose")
def test_grafana_starts_with_the_password_that_was_given_and_not_without_one(tmp_path: Path) -> None:
    assert "admin" not in str(configuration()["services"]["grafana"]["environment"])
    # another image in its place, which tells what Grafana would read
    override = tmp_path / "override.yml"
    override.write_text(
        f'services: {{grafana: {{image: "{IMAGE}", entrypoint: ["cat", "/run/secrets/grafana_password"]}}}}'
    )
    name = f"gateway-test-{uuid.uuid4().hex[:8]}"
    compose = ["docker", "compose", "-p", name, "-f", str(ROOT / "docker-compose.yml"), "-f", str(override)]
    environment = {key: value for key, value in os.environ.items() if key != "GRAFANA_PASSWORD"}
    environment["GRAFANA_PORT"] = str(free_port())

    def start(**more: str) -> subprocess.CompletedProcess[str]:
        command = [*compose, "--profile", "monitoring", "run", "--rm", "grafana"]
        env = {**environment, **more}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)

    try:
        without = start()
        assert without.returncode != 0
        assert 'environment variable "GRAFANA_PASSWORD" required' in without.stderr
        given = start(GRAFANA_PASSWORD="a password of one's own")
        assert given.stdout == "a password of one's own", given.stderr
    finally:
        subprocess.run([*compose, "down", "--volumes"], env=environment, capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def project(compose: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("project") / "own.toml")
    try:
        project.compose("up", "--no-build", "--detach", "--wait", "--wait-timeout", "120")
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5")


def test_sensors_are_seen_from_outside(project: Project) -> None:
    readings = project.readings(20)
    # those that README's commands name
    assert "sensors/living-climate/state" in {topic for topic, _ in readings}
    assert all(isinstance(payload, dict) for _, payload in readings)
    with urlopen(project.url, timeout=PATIENCE_SECONDS) as answer:
        assert b"<!doctype html>" in answer.read().lower()


def test_check_in_the_container_sees_what_the_service_sees(project: Project) -> None:
    shown = project.compose("exec", "-T", "gateway", "gateway", "check")
    rows = dict(line.split(None, 1) for line in shown.splitlines() if re.match(r"[a-z_]+ {2,}", line))
    assert rows["mqtt_url"].startswith("mqtt://mosquitto:1883")
    assert rows["access_origins"].startswith("http://localhost:5173")
    assert rows["access_allow_anonymous"].startswith("true")
    assert rows["view_topic"].startswith("gateway/views")
    with urlopen(project.url + "alerts", timeout=PATIENCE_SECONDS) as answer:
        assert [alert["name"] for alert in json.load(answer)["alerts"]] == ["hot"]


@pytest.mark.parametrize("service", ["mosquitto", "gateway", "sensors"])
def test_every_part_says_that_it_is_healthy(project: Project, service: str) -> None:
    eventually(lambda: project.is_healthy(service), 30, f"{service} is healthy")


def test_ports_are_published_on_loopback_only(project: Project) -> None:
    ports = [project.inspect(service)["NetworkSettings"]["Ports"] for service in ("mosquitto", "gateway")]
    addresses = [binding["HostIp"] for found in ports for bindings in found.values() for binding in bindings or []]  # type: ignore[attr-defined]
    assert addresses == ["127.0.0.1"] * 3


def test_the_gateway_is_not_root_and_cannot_write(project: Project) -> None:
    script = "import os; print(os.getuid()); open('/etc/gateway/x', 'w')"
    result = subprocess.run(
        ["docker", "exec", project.container("gateway"), "python", "-c", script],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert int(result.stdout) > 0
    assert b"Read-only file system" in result.stderr


def test_readings_come_again_after_the_broker_was_restarted(project: Project) -> None:
    project.compose("restart", "--timeout", "5", "mosquitto")
    eventually(project.is_ready, 60, "the gateway is connected again")
    assert project.readings(5)


def test_history_survives_the_container(project: Project) -> None:
    before = project.position()
    project.compose("up", "--detach", "--no-deps", "--force-recreate", "gateway")
    eventually(project.is_ready, 60, "the gateway is connected")
    epoch, seq = project.position().split(":")
    assert epoch == before.split(":")[0]
    assert int(seq) >= int(before.split(":")[1])


@pytest.mark.parametrize("service", ["gateway", "sensors", "mosquitto"])
def test_a_part_that_dies_is_started_again(project: Project, service: str) -> None:
    before = project.inspect(service)["State"]["Pid"]
    assert isinstance(before, int)
    try:
        os.kill(before, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        missing("the Docker engine on this machine, under our user: its processes can't be killed")
    eventually(lambda: project.inspect(service)["State"]["Pid"] not in (0, before), 60, "another process runs")
    eventually(project.is_ready, 60, "the gateway is connected")
    assert project.readings(5)


def test_it_stops_in_order(project: Project) -> None:
    project.compose("stop", "--timeout", "8")
    for service in ("gateway", "sensors", "mosquitto"):
        assert project.inspect(service)["State"]["ExitCode"] == 0, service

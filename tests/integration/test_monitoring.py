"""The profile `monitoring` on a real gateway: Prometheus scrapes it, takes the alarms, and knows every metric named."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.waiting import PATIENCE_SECONDS, eventually, free_port
from tests.test_metrics import expressions

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

# What has no samples until it happens: such an expression may give nothing, but must be one.
RARE = {
    "gateway_announcements_broken_total",
    "gateway_archive_failures_total",
    "gateway_messages_lost_total",
    "gateway_authentications_total",
    "gateway_publishes_total",
    "gateway_refused_total",
    "gateway_revocations",
    "gateway_upstream_dropped_total",
    "gateway_tls_expiry_timestamp_seconds",
}
# What a gateway has whose settings ask for it: this Compose stack has no alerts, no decoders and no cluster.
ASKED_FOR = ("gateway_alert_", "gateway_cluster_", "gateway_webhook_", "gateway_decode_", "gateway_decoded_")


class Monitored:
    """Broker, gateway, sensors and Prometheus under a name and on ports of the test's own."""

    def __init__(self) -> None:
        self.name = f"gateway-monitored-{uuid.uuid4().hex[:8]}"
        names = ("HTTP_PORT", "MQTT_PORT", "MQTTS_PORT", "PROMETHEUS_PORT")
        self.ports = {name: free_port() for name in names}
        # where there is no registry, the Prometheus that there is
        has_any = subprocess.run(
            ["docker", "image", "inspect", "prom/prometheus:latest"], capture_output=True, check=False
        )
        self.version = {"PROMETHEUS_VERSION": "latest"} if has_any.returncode == 0 else {}

    def compose(self, *arguments: str) -> None:
        done = subprocess.run(
            ["docker", "compose", "-p", self.name, "--profile", "demo", "--profile", "monitoring", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.version, **{name: str(port) for name, port in self.ports.items()}},
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4_000:]

    def ask(self, path: str, **query: str) -> Any:
        address = f"http://127.0.0.1:{self.ports['PROMETHEUS_PORT']}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as response:
            return json.load(response)["data"]

    def value(self, expression: str) -> float | None:
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None


@pytest.fixture(scope="module")
def monitored(compose: None) -> Iterator[Monitored]:
    stack = Monitored()
    try:
        # Grafana is left out: its image is large, and what it shows is asked of Prometheus here
        stack.compose("up", "--no-build", "--detach", "mosquitto", "gateway", "sensors", "prometheus")

        def scraped() -> bool:
            with contextlib.suppress(OSError):
                return (
                    stack.value('up{job="gateway"}') == 1 and (stack.value("gateway_messages_received_total") or 0) > 0
                )
            return False

        eventually(scraped, 120, "Prometheus has scraped the gateway")
        with connect(f"ws://127.0.0.1:{stack.ports['HTTP_PORT']}/ws?topic=%23") as websocket:
            websocket.recv(10)
            eventually(lambda: stack.value("gateway_subscribers") == 1, 30, "the subscriber is counted")
            # a rate needs two scrapes
            eventually(lambda: stack.value("rate(gateway_messages_delivered_total[1m])"), 40, "a rate")
            yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "1")


def test_the_gateway_is_scraped_without_an_error(monitored: Monitored) -> None:
    targets = monitored.ask("targets")["activeTargets"]
    assert [(target["labels"]["job"], target["health"], target["lastError"]) for target in targets] == [
        ("gateway", "up", "")
    ]


def test_the_alarms_are_taken_and_silent(monitored: Monitored) -> None:
    def judged() -> list[Any]:
        rules = [rule for group in monitored.ask("rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] == "ok" for rule in rules) else []

    rules = eventually(judged, 40, "every alarm was evaluated")
    assert len(rules) >= 10
    assert [rule["name"] for rule in rules if rule["state"] != "inactive"] == []


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_expression_has_an_answer(monitored: Monitored, where: str, expression: str) -> None:
    # of an alarm what it compares: the comparison itself is empty while all is well
    plain = expression
    if where.startswith("alarm"):
        for comparison in (" == 0", " > 0", " > 300", " > 1", " > 0.85", " > 0.1", " > 0.9", " > 5"):
            plain = plain.partition(comparison)[0]
        plain = plain.partition(" - time()")[0]
    found = monitored.ask("query", query=plain)["result"]
    assert found or any(name in expression for name in (*RARE, *ASKED_FOR)), f"{where}: {plain} gives nothing"


def test_a_broker_that_dies_sets_off_its_alarm(monitored: Monitored) -> None:
    """The last test of this file."""
    monitored.compose("kill", "mosquitto")
    eventually(lambda: monitored.value("gateway_upstream_connected") == 0, 60, "the metric tells it")

    def pending() -> bool:
        rules = [rule for group in monitored.ask("rules")["groups"] for rule in group["rules"]]
        return any(rule["name"] == "BrokerDisconnected" and rule["state"] in ("pending", "firing") for rule in rules)

    eventually(pending, 60, "the alarm is pending")

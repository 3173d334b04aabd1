"""Alerts of a real gateway: what it publishes, and what a restart keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually


def state_of(gateway: GatewayProcess, topic: str) -> dict[str, Any]:
    """The retained message of an alert, as browsers have it; empty where there is none."""
    messages = gateway.json(f"/topics/{topic}")["messages"]
    return messages[0]["payload"] if messages else {}


@pytest.mark.parametrize("kept", ["broker", "archive"])
@pytest.mark.slow
def test_an_alert_fires_is_published_and_survives_a_restart(
    kept: str, mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str, tmp_path: Path
) -> None:
    archive = str(tmp_path / "archive.db") if kept == "archive" else ""
    alerts = [
        {"name": "hot", "topics": f"{prefix}/+", "where": "payload.t > 30", "for": "2s", "summary": "{payload.t}!"},
        {"name": "quiet", "topics": f"{prefix}/a", "silent": "4s"},
    ]
    own = f"{prefix}-alerts"
    gateway = make_gateway(
        mosquitto,
        mqtt_topics=[f"{prefix}/+"],
        alert_topic=own,
        alert_discovery=f"{prefix}-ha",
        alerts=alerts,
        archive_file=archive,
    )
    publisher.subscribe(f"{prefix}-ha/#")
    publisher.publish(f"{prefix}/a", b'{"t":31}')
    eventually(lambda: state_of(gateway, f"{own}/hot").get("state") == "firing", 30, "it fires")
    eventually(lambda: state_of(gateway, f"{own}/quiet").get("state") == "firing", 30, "it is silent")
    before = state_of(gateway, f"{own}/hot")
    assert (before["value"], before["summary"]) == (31, "31!")
    configs = [json.loads(payload) for _, payload in publisher.received]
    assert {config["state_topic"] for config in configs} == {f"{own}/hot", f"{own}/quiet"}
    gateway.stop()
    gateway.start()
    publisher.publish(f"{prefix}/b", b'{"t":35}')
    eventually(lambda: state_of(gateway, f"{own}/hot").get("firing") == 2, 30, "another one fires, too")
    after = state_of(gateway, f"{own}/hot")
    assert after["since"] == before["since"]
    assert [item["topic"] for item in after["topics"]] == [f"{prefix}/a", f"{prefix}/b"]
    assert state_of(gateway, f"{own}/quiet")["state"] == "firing"
    publisher.publish(f"{prefix}/a", b'{"t":20}')
    eventually(lambda: state_of(gateway, f"{own}/hot")["firing"] == 1, 30, "one has ended")
    eventually(lambda: state_of(gateway, f"{own}/quiet")["state"] == "ok", 30, "it was heard")

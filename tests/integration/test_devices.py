"""Devices over a real broker: what was retained before the gateway came, what comes and goes while it is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.event_streams import EventStream
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually


def device_of(gateway: GatewayProcess, identifier: str) -> dict[str, Any] | None:
    found = [device for device in gateway.json("/devices")["devices"] if device["id"] == identifier]
    return found[0] if found else None


@pytest.mark.slow
def test_a_device_is_there_before_its_first_value_and_goes_with_its_announcement(
    make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str
) -> None:
    config = {
        "name": "Temperature",
        "dev_cla": "temperature",
        "unit_of_meas": "°C",
        "stat_t": f"{prefix}/state",
        "val_tpl": "{{ value_json.t | round(1) }}",
        "uniq_id": f"{prefix}-t",
        "avty_t": f"{prefix}/status",
        "dev": {"ids": [prefix], "name": "Attic", "mdl": "T1"},
    }
    topic = f"homeassistant/sensor/{prefix}/config"
    publisher.publish(topic, json.dumps(config), retain=True)
    publisher.publish(f"{prefix}/status", "online", retain=True)
    gateway = make_gateway(mosquitto)
    eventually(lambda: (device_of(gateway, prefix) or {}).get("availability") == "online", 10, "it is announced")
    stream = EventStream(gateway, "/devices")
    eventually(lambda: any(event["event"] == "known" for event in stream.events), 10, "all devices have come")
    publisher.publish(f"{prefix}/state", json.dumps({"t": 21.5}))
    publisher.publish(f"{prefix}/status", "offline", retain=True)

    def told() -> list[str]:
        devices = [event["data"] for event in stream.events if event["event"] == "device"]
        return [device["availability"] for device in devices if device["id"] == prefix]

    eventually(lambda: told() == ["online", "offline"], 10, "the change is told")
    values = gateway.json(f"/devices/{prefix}")["values"]
    assert [(value["id"], value["value"]) for value in values] == [(f"{prefix}-t", 21.5)]
    publisher.publish(topic, "", retain=True)
    eventually(lambda: device_of(gateway, prefix) is None, 10, "it is gone")
    eventually(lambda: stream.events[-1] == {"event": "gone", "data": {"id": prefix}}, 10, "that is told")
    stream.cut()

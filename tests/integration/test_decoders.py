"""Payloads of real programs, through a real broker: subscribers get names and values."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.peers import edge_node, metric
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

RULES = [{"topics": ["spBv1.0/#"], "as": "sparkplug"}]


def newest(gateway: GatewayProcess, topic: str) -> Any:
    messages = gateway.json(f"/topics/{topic}")["messages"]
    return messages[0]["payload"] if messages else None


def arrives(gateway: GatewayProcess, topic: str, name: str, value: object) -> Any:
    """Waits until a metric has a value."""
    return eventually(
        lambda: (found := newest(gateway, topic)) is not None and found["values"].get(name) == value and found,
        15,
        f"{name} of {topic} is {value}",
    )


PROPERTIES = {"Quality": {"type": "Int32", "value": 192}, "engUnit": {"type": "String", "value": "°C"}}
BIRTH = {
    "timestamp": 1_790_000_000_000,
    "metrics": [
        metric("Temperature", 21.1, "Float", 1, properties=PROPERTIES),
        metric("Level", -4, "Int8", 2),
        metric("Big", 2**53 - 1, "UInt64", 3),
        metric("Door", True, "Boolean", 4),
        metric("Label", "ä", "String", 5),
    ],
}


async def test_an_edge_node_is_read_by_name(mosquitto: Broker, make_gateway: MakeGateway, prefix: str) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, decode=RULES, mqtt_topics=["spBv1.0/#"])
    group = prefix.replace("/", "-")
    data = f"spBv1.0/{group}/NDATA/press"
    where = "payload.values.Temperature > 22.0"
    with edge_node(mosquitto, group, "press") as call:
        async with (
            Subscriber(gateway, "spBv1.0/#") as all_of_it,
            Subscriber(gateway, data, where=where, fields="values.Temperature") as chosen,
            Subscriber(gateway, data, format="raw") as raw,
        ):
            call("publishNodeBirth", BIRTH)
            call("publishNodeData", {"timestamp": 1, "metrics": [metric(None, 21.5, "Float", 1)]})
            call("publishNodeData", {"timestamp": 2, "metrics": [metric(None, 22.5, "Float", 1)]}, {"compress": True})
            call("publishDeviceBirth", "oil", {"timestamp": 3, "metrics": [metric("Oil", 1.5, "Double", 1)]})
            call("publishDeviceData", "oil", {"timestamp": 4, "metrics": [metric(None, 2.5, "Double", 1)]})
            await all_of_it.wait_messages(5, 20)
            await chosen.wait_messages(1, 20)
            payloads = [message["payload"] for message in all_of_it.messages]
            assert payloads[0]["values"].items() >= {
                "Temperature": 21.1, "Level": -4, "Big": 2**53 - 1, "Door": True, "Label": "ä",
            }.items()  # fmt: skip
            by_name = {one["name"]: one for one in payloads[0]["metrics"]}
            assert by_name["Temperature"].items() >= {
                "alias": 1, "dataType": "Float", "value": 21.1,
                "properties": {"Quality": 192, "engUnit": "°C"},
            }.items()  # fmt: skip
            assert "bdSeq" in by_name
            assert [payload["values"] for payload in payloads[1:3]] == [{"Temperature": 21.5}, {"Temperature": 22.5}]
            assert payloads[4]["values"] == {"Oil": 2.5}
            assert [message["payload"] for message in chosen.messages] == [{"values": {"Temperature": 22.5}}]
            assert all(isinstance(frame, bytes) or frame for frame in raw.frames)
    points = gateway.json(f"/topics/{data}?since=1h&points=10&field=values.Temperature")
    assert points["series"][0]["points"]
    # it is a device, with what it measures and the unit that its BIRTH says
    node = await asyncio.to_thread(eventually, lambda: gateway.json(f"/devices/sparkplug_{group}%2Fpress"), 10, "it")
    assert (node["name"], node["area"]) == ("press", group)
    fields = {field["name"]: (field["device_class"], field["unit"]) for field in node["fields"]}
    assert fields["Temperature"] == ("temperature", "°C")
    values = {value["id"]: value["value"] for value in node["values"]}
    assert (values["Temperature"], values["Door"]) == (22.5, True)
    listed = {device["id"] for device in gateway.json("/devices")["devices"]}
    assert {f"sparkplug_{group}/press", f"sparkplug_{group}/press/oil"} <= listed


@pytest.mark.parametrize("has_archive", [True, False])
def test_a_gateway_that_restarts_knows_names_by_its_archive(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, tmp_path: Path, has_archive: bool
) -> None:
    group = prefix.replace("/", "-")
    archive: dict[str, Any] = {"archive_file": str(tmp_path / "archive.db")} if has_archive else {}
    gateway = make_gateway(mosquitto, decode=RULES, mqtt_topics=["spBv1.0/#"], **archive)
    data = f"spBv1.0/{group}/NDATA/press"
    with edge_node(mosquitto, group, "press") as call:
        call("publishNodeBirth", BIRTH)
        call("publishNodeData", {"timestamp": 1, "metrics": [metric(None, -5, "Int8", 2)]})
        arrives(gateway, data, "Level", -5)
        before = gateway.json("/topics/spBv1.0/%23?since=1h")["messages"]
        gateway.stop()
        gateway.start()
        call("publishNodeData", {"timestamp": 2, "metrics": [metric(None, -6, "Int8", 2)]})
        if has_archive:
            arrives(gateway, data, "Level", -6)
            again = gateway.json("/topics/spBv1.0/%23?since=1h")["messages"]
            assert again[: len(before)] == before
            return
        found = eventually(lambda: newest(gateway, data), 15, "it comes")
        assert found["values"] == {}
        assert found["unknown"] == {"2": -6}
        assert gateway.metrics()["gateway_decode_unknown_aliases_total"] == 1
        answer = gateway.json(f"/explain?topic={data}")
        assert answer["failed"] == "decode"
        assert "no BIRTH explained 1 aliases (2)" in answer["answer"]
        call("publishNodeBirth", BIRTH)
        call("publishNodeData", {"timestamp": 3, "metrics": [metric(None, -7, "Int8", 2)]})
        arrives(gateway, data, "Level", -7)


def test_what_cannot_be_read_is_told_everywhere(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    rules = [{"topics": [f"{prefix}/#"], "as": ["gzip", "cbor"]}]
    gateway = make_gateway(mosquitto, decode=rules, mqtt_topics=[f"{prefix}/#"])
    publisher.publish(f"{prefix}/a", b"\xff\xfe")
    [message] = eventually(lambda: gateway.json(f"/topics/{prefix}/a")["messages"], 15, "it is there")
    assert (message["payload"], message["encoding"], message["decode"]) == ("//4=", "base64", "failed")
    answer = gateway.json(f"/explain?topic={prefix}/a")
    assert answer["failed"] == "decode"
    assert "gzip: it can't be inflated" in answer["answer"]
    assert gateway.metrics()['gateway_decode_failed_total{decoder="gzip+cbor"}'] == 1

"""What Home Assistant is told of the gateway itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.upstream.announcing import Announcer, entities
from gateway.upstream.state import PublishRefused, UpstreamUnavailable
from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.waiting import eventually


class Told:
    """A broker that takes, loses or refuses what is published, and a clock."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any], bool]] = []
        self.error: Exception | None = None
        self.now, self.received, self.subscribers, self.is_there = 0.0, 0, 0, True
        topic, configs = entities("homeassistant", "gate/way", "gateway/status", "1.2.3")
        self.announcer = Announcer(
            topic,
            configs,
            publish=self.publish,
            may_tell=lambda: self.is_there,
            received=lambda: self.received,
            subscribers=lambda: self.subscribers,
            clock=lambda: self.now,
        )

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        if self.error is not None:
            raise self.error
        self.messages.append((topic, json.loads(payload), retain))

    def tell(self) -> list[tuple[str, dict[str, Any], bool]]:
        self.messages.clear()
        asyncio.run(self.announcer.tell())
        return self.messages


def test_entities_come_once_and_numbers_each_time() -> None:
    told = Told()
    told.now, told.received, told.subscribers = 10.0, 205, 3
    first = told.tell()
    assert [topic for topic, _, _ in first] == [
        "homeassistant/sensor/gate_way/messages/config",
        "homeassistant/sensor/gate_way/subscribers/config",
        "homeassistant/binary_sensor/gate_way/connected/config",
        "gateway/status/numbers",
    ]
    assert first[-1][1:] == ({"messages": 20.5, "subscribers": 3}, True)
    told.now, told.received = 40.0, 235
    assert told.tell() == [("gateway/status/numbers", {"messages": 1.0, "subscribers": 3}, True)]


def test_entities_are_of_one_device_and_go_when_the_gateway_goes() -> None:
    _, configs = entities("homeassistant", "gateway", "gateway/status", "1.2.3")
    assert {config["device"]["identifiers"][0] for config in configs.values()} == {"mqtt_browser_gateway_gateway"}
    assert len({config["unique_id"] for config in configs.values()}) == 3
    numbers = [config for config in configs.values() if "value_template" in config]
    assert all(config["availability_topic"] == "gateway/status" for config in numbers)
    # without a status topic nothing says whether it is there
    _, without = entities("homeassistant", "gateway", "", "1.2.3")
    assert len(without) == 2
    assert not any("availability_topic" in config for config in without.values())


def test_what_was_lost_is_announced_again_and_what_is_refused_is_not() -> None:
    told = Told()
    told.tell()
    told.error = UpstreamUnavailable("gone")
    told.tell()
    told.error = None
    assert len(told.tell()) == 4
    told.error = PublishRefused("no")
    told.tell()
    told.error = None

    async def run_a_little() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await told.announcer.run(every_seconds=0.01)

    told.messages.clear()
    asyncio.run(run_a_little())
    assert told.messages == []


@pytest.mark.slow
@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_gateway_announces_itself_where_it_is_told_to(
    is_wanted: bool, make_gateway: MakeGateway, mosquitto: Broker, prefix: str
) -> None:
    settings: dict[str, Any] = {"mqtt_discovery": f"{prefix}/ha"} if is_wanted else {}
    status = f"{prefix}/status"
    process = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], mqtt_status_topic=status, **settings)

    def payloads(filter_: str) -> dict[str, Any]:
        found = process.json(f"/topics/{prefix}/{filter_}")["messages"]
        return {message["topic"].removeprefix(f"{prefix}/"): message["payload"] for message in found}

    if is_wanted:
        eventually(lambda: "status/numbers" in payloads("%23"), 15, "the numbers come")
        assert len(payloads("ha/%23")) == 3
        assert payloads("status/numbers")["status/numbers"]["subscribers"] == 0
    else:
        eventually(lambda: "status" in payloads("%23"), 15, "its status comes")
        assert set(payloads("%23")) == {"status"}

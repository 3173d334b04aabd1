"""What the broker keeps and what has expired, told by a gateway on a real broker."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber
from tests.support.waiting import eventually_async


@pytest.mark.slow
async def test_a_value_goes_when_it_has_expired_and_its_interval_counts_down(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"])
    with Publisher(mosquitto.url) as publisher:
        for topic, seconds in (("short", 3), ("long", 1_000)):
            publisher.publish(f"{prefix}/{topic}", b"1", retain=True, properties={"MessageExpiryInterval": seconds})

    def left(topic: str) -> list[int]:
        messages = gateway.json(f"/topics/{prefix}/{topic}?properties=1")["messages"]
        return [message["properties"]["message_expiry_interval"] for message in messages]

    await eventually_async(lambda: left("long") and left("long")[0] < 1_000, what="it counts down")
    await eventually_async(lambda: left("short") == [], what="the value has gone")
    async with Subscriber(gateway, f"{prefix}/#") as client:
        await client.wait_event("subscribed")
        await client.wait_messages(1)
        assert [message["topic"] for message in client.messages] == [f"{prefix}/long"]


@pytest.mark.slow
async def test_what_the_broker_keeps_no_longer_is_not_told_as_retained(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway
) -> None:
    broker = make_mosquitto()
    gateway = await asyncio.to_thread(make_gateway, broker, mqtt_topics=["a/#"])

    def retained(topic: str) -> list[bool]:
        messages = gateway.json(f"/topics/a/{topic}?since=1h")["messages"]
        return [message.get("retained", False) for message in messages]

    with Publisher(broker.url) as publisher:
        for payload in (b"1", b"2", b""):
            publisher.publish("a/cleared", payload, retain=True)
        publisher.publish("a/lost", b"1", retain=True)
    await eventually_async(lambda: retained("lost") == [True])
    assert retained("cleared") == [False, False, False]
    await asyncio.to_thread(broker.restart, keep=False)
    await eventually_async(lambda: retained("lost") == [False], 40, "that the broker has lost it")

"""The whole road on real parts: publisher, broker, gateway process, WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import re
from typing import Any

import pytest

from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher, publishing
from tests.support.subscribers import Subscriber
from tests.support.waiting import eventually_async


def naive_matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5 §4.7 as one regular expression, without looking at how the gateway does it."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    levels = topic_filter.split("/")
    expression = "/".join({"+": "[^/]*", "#": ".*"}.get(level, re.escape(level)) for level in levels)
    if expression.endswith("/.*"):
        expression = expression.removesuffix("/.*") + "(/.*)?"
    return re.fullmatch(expression, topic) is not None


async def test_fifty_subscribers_of_different_filters_each_get_what_the_naive_matcher_says(
    gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    chance = random.Random(20)
    names = ["a", "b", "c", ""]
    topics = {"/".join(chance.choice(names) for _ in range(chance.randint(1, 4))) for _ in range(60)} - {""}
    filters: set[str] = set()
    while len(filters) < 50:
        levels = [chance.choice([*names, "+", "+"]) for _ in range(chance.randint(1, 4))]
        filters.add("/".join([*levels, *chance.choice([[], ["#"]])]))
    ordered = sorted(filters)
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            f: await stack.enter_async_context(Subscriber(gateway, f"{prefix}/{f}", since="now")) for f in ordered
        }
        everything = await stack.enter_async_context(Subscriber(gateway, f"{prefix}/#", since="now"))
        for client in (*clients.values(), everything):
            await client.wait_event("subscribed")
        sent = [(f"{prefix}/{topic}", b"%d" % number) for number, topic in enumerate(sorted(topics) * 3)]
        await asyncio.to_thread(publisher.publish_all, sent, qos=1)
        await everything.wait_messages(len(sent))
        for topic_filter, client in clients.items():
            # one flush serves all: what the answer doesn't follow won't come any more
            await client.send("ping", id=1)
            await client.wait_event("pong", id=1)
            wanted = [(t, int(p)) for t, p in sent if naive_matches(f"{prefix}/{topic_filter}", t)]
            assert [(m["topic"], m["payload"]) for m in client.messages] == wanted, topic_filter


async def test_ten_thousand_messages_at_qos_0_reach_one_subscriber_in_order(
    gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    async with Subscriber(gateway, f"{prefix}/#", since="now") as client:
        await client.wait_event("subscribed")
        messages = [(f"{prefix}/{number % 10}", b"%d" % number) for number in range(10_000)]
        # evenly, a little below what one publisher can: Mosquitto drops QoS 0 for whoever is behind
        await asyncio.to_thread(publisher.publish_all, messages, per_second=5_000)
        received = await client.wait_messages(10_000, 30)
        assert [message["payload"] for message in received] == list(range(10_000))
        seqs = [message["seq"] for message in received]
        assert seqs == sorted(set(seqs))
        assert client.lost == 0


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(b"", {"payload": ""}, id="empty"),
        pytest.param(b"NaN", {"payload": "NaN"}, id="NaN"),
        pytest.param(b'{"t": NaN}', {"payload": '{"t": NaN}'}, id="NaN inside"),
        pytest.param(b"\x00\xff\xfe", {"payload": "AP/+", "encoding": "base64"}, id="binary"),
        pytest.param(b"21.5\xc3", {"payload": base64.b64encode(b"21.5\xc3").decode(), "encoding": "base64"}, id="cut"),
        pytest.param("21,5 °C".encode(), {"payload": "21,5 °C"}, id="text"),
        pytest.param(b'{"a": [1, null]}', {"payload": {"a": [1, None]}}, id="JSON"),
        pytest.param(b"x" * 2**20, {"payload": "x" * 2**20}, id="1 MiB"),
    ],
)
async def test_payloads_of_every_kind(
    any_gateway: GatewayProcess, any_publisher: Publisher, prefix: str, payload: bytes, expected: dict[str, Any]
) -> None:
    await eventually_async(lambda: any_gateway.metrics()["gateway_subscribers"] == 0)
    async with (
        Subscriber(any_gateway, f"{prefix}/#", since="now") as client,
        Subscriber(any_gateway, f"{prefix}/#", since="now", format="raw") as raw,
    ):
        # no event tells a raw subscriber that it is one
        await eventually_async(lambda: any_gateway.metrics()["gateway_subscribers"] == 2)
        await asyncio.to_thread(any_publisher.publish, f"{prefix}/x", payload)
        [message] = await client.wait_messages(1)
        assert {key: message[key] for key in expected} == expected
        assert ("encoding" in message) == ("encoding" in expected)
        await raw.wait(lambda: raw.frames)
        assert [frame.encode() if isinstance(frame, str) else frame for frame in raw.frames] == [payload]


async def test_overlapping_filters_deliver_once(
    any_gateway: GatewayProcess, any_publisher: Publisher, prefix: str
) -> None:
    async with Subscriber(any_gateway, f"{prefix}/a/+", f"{prefix}/+/b", f"{prefix}/#", since="now") as client:
        await client.wait_event("subscribed")
        sent = [(f"{prefix}/a/b", b"%d" % number) for number in range(20)]
        await asyncio.to_thread(any_publisher.publish_all, sent, qos=1)
        await asyncio.to_thread(any_publisher.publish, f"{prefix}/end", b"-1")
        await client.wait_messages(21)
        assert [message["payload"] for message in client.messages] == [*range(20), -1]


async def test_overlapping_filters_of_the_gateway_deliver_once(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/a/+", f"{prefix}/+/b"])
    async with Subscriber(gateway, "#", since="now") as client:
        await client.wait_event("subscribed")
        sent = [(f"{prefix}/a/b", b"%d" % number) for number in range(20)]
        await asyncio.to_thread(publisher.publish_all, sent, qos=1)
        await asyncio.to_thread(publisher.publish, f"{prefix}/a/end", b"-1")
        await client.wait(lambda: client.payloads(f"{prefix}/a/end"))
        assert client.payloads(f"{prefix}/a/b") == list(range(20))


@pytest.mark.slow
async def test_a_subscriber_that_never_reads_harms_nobody(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, history_bytes="16MiB", limit_buffer_bytes="64KiB", limit_stall_seconds=3
    )
    async with (
        Subscriber(gateway, f"{prefix}/#", since="now", small_buffers=True) as idle,
        Subscriber(gateway, f"{prefix}/#", since="now") as client,
    ):
        await idle.wait_event("subscribed")
        await client.wait_event("subscribed")
        idle.pause()
        before = gateway.memory()
        # 40 MiB, which would be held somewhere if anything were held for it
        messages = [(f"{prefix}/x", b"%06d" % number + b"." * 20_000) for number in range(2_000)]
        await asyncio.to_thread(publisher.publish_all, messages, qos=1, per_second=1_000)
        received = await client.wait_messages(2_000, 30)
        assert [int(message["payload"][:6]) for message in received] == list(range(2_000))
        assert client.lost == 0
        assert gateway.memory() - before < 40 * 2**20
        idle.resume()
        # it got everything or was told of what it did not get, or it was closed to come again
        await idle.wait(lambda: idle.code is not None or len(idle.messages) + idle.lost >= 2_000, 30)


# restarts


@pytest.mark.slow
async def test_qos_1_messages_published_while_the_broker_restarts_arrive(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway
) -> None:
    broker = make_mosquitto()
    gateway = await asyncio.to_thread(make_gateway, broker)
    async with Subscriber(gateway, "a", since="now") as client:
        await client.wait_event("subscribed")
        with publishing(broker.url, [("a", b"%d" % number) for number in range(1_500)], qos=1, per_second=300):
            await client.wait_messages(200)
            await asyncio.to_thread(broker.restart)
            assert (await client.wait_event("upstream", connected=False))["connected"] is False
            await client.wait_event("upstream", 20, connected=True)
            await client.wait(lambda: len(set(client.payloads("a"))) == 1_500, 30)
        # twice is allowed at QoS 1, and the order is the publisher's, who sends again what was not acknowledged
        assert set(client.payloads("a")) == set(range(1_500))
        seqs = [message["seq"] for message in client.messages]
        assert seqs == sorted(set(seqs))
        assert client.lost == 0


@pytest.mark.slow
async def test_qos_1_messages_published_while_the_gateway_is_away_arrive(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto)
    await asyncio.to_thread(publisher.publish, f"{prefix}/a", b"-1")
    assert await asyncio.to_thread(gateway.stop) == 0
    messages = [(f"{prefix}/a", b"%d" % number) for number in range(1_000)]
    await asyncio.to_thread(publisher.publish_all, messages, qos=1)
    await asyncio.to_thread(gateway.start)
    async with Subscriber(gateway, f"{prefix}/a", since="1h") as client:
        await client.wait_messages(1_000)
        assert client.payloads() == list(range(1_000))


@pytest.mark.slow
async def test_retained_messages_after_a_reconnect_are_no_new_arrivals(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway
) -> None:
    broker = make_mosquitto()
    with Publisher(broker.url) as publisher:
        publisher.publish("d/same", b"1", retain=True)
        publisher.publish("d/passing", b"1", retain=True)
        publisher.publish("d/changing", b"1", retain=True)
    gateway = await asyncio.to_thread(make_gateway, broker, mqtt_topics=["d/#"])
    async with Subscriber(gateway, "d/#") as client:
        await client.wait_messages(3)
        # what is not retained does not change what the broker keeps
        await asyncio.to_thread(publish, broker, "d/passing", b"2")
        await client.wait_messages(4)
        for number in (2, 3):
            await asyncio.to_thread(broker.restart)
            await asyncio.to_thread(gateway.wait_ready)
            await asyncio.to_thread(publish, broker, "d/changing", b"%d" % number, retain=True)
            await client.wait(lambda number=number: number in client.payloads("d/changing"), 20)  # type: ignore[misc]
        assert client.payloads("d/same") == [1]
        assert client.payloads("d/passing") == [1, 2]
        assert client.payloads("d/changing") == [1, 2, 3]


def publish(broker: Broker, topic: str, payload: bytes, *, retain: bool = False) -> None:
    with Publisher(broker.url) as publisher:
        publisher.publish(topic, payload, retain=retain)


@pytest.mark.slow
async def test_a_gateway_starts_and_serves_while_the_broker_is_down_and_says_so(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway
) -> None:
    broker = make_mosquitto()
    await asyncio.to_thread(broker.stop)
    gateway = await asyncio.to_thread(make_gateway, broker, ready=False)
    assert gateway.get("/health/live")[0] == 200
    status, body = gateway.get("/health/ready")
    assert status == 503
    assert b"false" in body
    async with Subscriber(gateway, "a") as client:
        assert "lost_at" not in await client.wait_event("upstream", connected=False), "it was never there"
        await asyncio.to_thread(broker.start)
        await client.wait_event("upstream", 20, connected=True)
        await asyncio.to_thread(publish, broker, "a", b"1")
        assert (await client.wait_messages(1))[0]["payload"] == 1
    assert gateway.get("/health/ready")[0] == 200


@pytest.mark.slow
async def test_a_broker_of_mqtt_3_1_1_only(amqtt: Broker, make_gateway: MakeGateway) -> None:
    gateway = await asyncio.to_thread(make_gateway, amqtt)
    async with Subscriber(gateway, "a/#") as client:

        def run() -> None:
            with Publisher(amqtt.url, protocol=4) as publisher:
                for number in range(100):
                    publisher.publish("a/b", b"%d" % number)

        await asyncio.to_thread(run)
        await client.wait_messages(100)
        assert client.payloads("a/b") == list(range(100))
        await client.send("publish", id=1, topic="a/c", payload="from the browser", qos=1)
        await client.wait_event("published", id=1)
        await client.wait(lambda: client.payloads("a/c") == ["from the browser"])

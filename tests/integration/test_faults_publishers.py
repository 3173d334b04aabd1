"""Publishers that send too much, too many topics or too large payloads: memory keeps its ceiling, losses are told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Awaitable, Callable

import pytest

from benchmarks.ingest import packets
from benchmarks.wire import mqtt_connect, mqtt_publish
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker
from tests.support.faults import assert_accounted, assert_sound, neighbour
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber
from tests.support.yardsticks import yardstick_seconds


def flood(broker: Broker, prefix: str, count: int) -> None:
    """Writes QoS 0 messages as fast as the broker takes them, and returns when it has read all of them."""
    import socket

    batch = b"".join(mqtt_publish(f"{prefix}/{number % 100}", b'{"temperature":21.5}') for number in range(500))
    with socket.create_connection((broker.host, broker.port)) as sock:
        sock.sendall(mqtt_connect("flood"))
        sock.recv(4)
        for _ in range(count // 500):
            sock.sendall(batch)
        sock.sendall(b"\xe0\x00")
        # what lies in the socket when another publishes would come behind what that one says
        assert sock.recv(1) == b"", "a broker closes after a DISCONNECT"


@pytest.mark.slow
async def test_a_flood_above_capacity(make_mosquitto: MakeMosquitto, make_gateway: MakeGateway) -> None:
    broker = make_mosquitto()
    gateway = await asyncio.to_thread(make_gateway, broker, history_bytes="64MiB")
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(Subscriber(gateway, "#", since="now"))
        end = await stack.enter_async_context(Subscriber(gateway, "end", since="now"))
        # each of these costs something for every message, and none is sent any: without them the gateway may keep up
        judges = [
            await stack.enter_async_context(
                Subscriber(gateway, "#", since="now", where=f"payload.temperature > {limit}")
            )
            for limit in range(100, 105)
        ]
        for each in (client, end, *judges):
            await each.wait_event("subscribed")
        began = gateway.processor_seconds()
        sent = taken = 0.0
        while sent - taken < 100_000:
            assert sent < 2_000_000, f"the gateway keeps up, it has {taken:,.0f} already: this is no flood"
            await asyncio.to_thread(flood, broker, "f", 200_000)
            sent += 200_000
            taken = (await asyncio.to_thread(gateway.metrics))["gateway_messages_received_total"]
        with Publisher(broker.url) as publisher:
            await asyncio.to_thread(publisher.publish, "end", b"1")
        # it comes behind all that is queued: the flood is over when it is there
        await end.wait_messages(1, 90)
        assert (await asyncio.to_thread(gateway.get, "/health/ready"))[0] == 200
        assert_sound(gateway, ceiling_mib=64 * 1.5 + 200)
        await assert_accounted(gateway, client, timeout_seconds=60)
        before = gateway.processor_seconds()
        with Publisher(broker.url) as publisher:
            await asyncio.to_thread(publisher.publish, "end", b"2")
        await end.wait_messages(2)
        rest = gateway.processor_seconds() - before
        assert rest < (before - began) / 10, "nothing of the flood is left to do"
        samples = await asyncio.to_thread(gateway.metrics)
        # what the broker could not queue for the gateway was lost there; what came, every number speaks of
        assert samples["gateway_messages_received_total"] == end.messages[-1]["seq"]
        assert samples["gateway_upstream_received_total"] == samples["gateway_messages_received_total"]
        assert samples["gateway_history_evicted_total"] > 0
        delivered = len(client.messages) + len(end.messages)
        await client.wait(lambda: gateway.metrics()["gateway_messages_delivered_total"] >= delivered)
        counted = sum(v for name, v in samples.items() if name.startswith("gateway_messages_lost_total"))
        assert counted == sum(each.lost for each in (client, end, *judges))
        assert samples["gateway_delivery_delay_seconds_count"] > 0


def wide_filters() -> list[str]:
    """Nearly a hundred that match all of `t/<n>/a/b/c/d/e`, each in its own way."""
    choices = [(level, "+") for level in ("t", "a", "b", "c", "d", "e")]
    names = ["/".join((first, "+", *rest)) for first, *rest in itertools.product(*choices)]
    return [*names, *(f"{name.rpartition('/')[0]}/#" for name in names if name.endswith("/+"))][:100]


@pytest.mark.slow
@pytest.mark.timing
async def test_a_hundred_thousand_topics_and_who_asks_for_all_of_them(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway
) -> None:
    """Memory keeps its ceiling, topics are let go and counted, and no question about them is felt by a neighbour."""
    broker = make_mosquitto()
    topics = ["t/#", "steady"]
    gateway = await asyncio.to_thread(
        make_gateway, broker, mqtt_topics=topics, history_topics=90_000, history_bytes="256MiB"
    )
    count = 100_000
    with Publisher(broker.url) as publisher:
        await asyncio.to_thread(publisher.publish, "steady", b"1", retain=True)
        async with Subscriber(gateway, "#", since="now") as client:
            await client.wait_event("subscribed")
            messages = ((f"t/{number:06d}/a/b/c/d/e", b"%d" % number) for number in range(count))
            await asyncio.to_thread(publisher.publish_all, messages, per_second=15_000)
            await client.wait(lambda: client.payloads()[-1:] == [count - 1] or client.lost, 60)
            await assert_accounted(gateway, client, timeout_seconds=60)
    samples = await asyncio.to_thread(gateway.metrics)
    kept = samples["gateway_history_topics"]
    assert 80_000 < kept <= 90_000
    assert samples["gateway_messages_received_total"] == count + 1
    assert samples["gateway_history_dropped_topics_total"] == count + 1 - kept
    assert samples["gateway_history_evicted_total"] == count + 1 - samples["gateway_history_messages"]
    assert_sound(gateway, ceiling_mib=256 * 1.5 + 150)
    # the one that is used was not pushed out by those seen once
    last = await asyncio.to_thread(gateway.json, "/topics/steady")
    assert last["messages"][0]["payload"] == 1

    def ask(path: str) -> None:
        status, _ = gateway.get(path, {"Accept": "application/json"})
        assert status == 200

    async def subscribe() -> None:
        async with Subscriber(gateway) as everything:
            await everything.send("subscribe", topics=wide_filters(), since="1h")
            await everything.wait(lambda: everything.payloads()[-1:] == [count - 1], 60)

    questions: dict[str, Callable[[], Awaitable[None]]] = {
        "a hundred wide filters since 1h": subscribe,
    }
    for path in (
        "/explain?topic=sensors/" + "%2B/" * 126 + "x",
        "/explain?topic=T/%2B/A/b/c/d/e",
        "/topics?filter=t/%2B/a/%23",
        "/topics?filter=" + "%2B/" * 126 + "x",
        "/topics/t/%2B/a/%23?since=1h&order=desc&limit=10000",
    ):
        questions[path] = functools.partial(asyncio.to_thread, ask, path)
    for name, question in questions.items():
        worst = []
        for _ in range(3):  # the best of three: what else runs here takes the caches now and then
            with neighbour(gateway) as waits:
                await question()
            worst.append(max(waits) / yardstick_seconds())
        # 0.3 s where a yardstick takes 12 µs
        assert min(worst) < 25_000, f"{name[:40]}: the gateway did {worst} yardsticks of work before it answered"
    assert_sound(gateway, ceiling_mib=256 * 1.5 + 150)


@pytest.mark.slow
async def test_payloads_at_the_limit_and_above(make_mosquitto: MakeMosquitto, make_gateway: MakeGateway) -> None:
    broker = make_mosquitto()
    gateway = await asyncio.to_thread(make_gateway, broker, history_bytes="64MiB", limit_buffer_bytes="1MiB")
    just_fits, too_large = b"x" * (16 * 2**20 - 100), b"x" * (17 * 2**20)
    async with Subscriber(gateway, "#", since="now", format="raw") as client, Subscriber(gateway, "small") as small:
        await small.wait_event("subscribed")
        with Publisher(broker.url) as publisher:
            for payload in (just_fits, too_large, just_fits):
                await asyncio.to_thread(publisher.publish, "large", payload)
            await asyncio.to_thread(publisher.publish, "small", b"1")
        await small.wait_messages(1, 20)
        await client.wait(lambda: len([f for f in client.frames if len(f) == len(just_fits)]) == 2, 20)
    samples = await asyncio.to_thread(gateway.metrics)
    assert samples['gateway_upstream_dropped_total{reason="too_large"}'] == 1
    assert samples["gateway_messages_received_total"] == small.messages[-1]["seq"]
    assert samples["gateway_messages_delivered_total"] >= 3
    assert_sound(gateway, ceiling_mib=64 * 1.5 + 300)


def test_the_benchmark_writes_packets_that_a_broker_takes() -> None:
    """What floods here and measures there: both are written by hand."""
    first = next(packets(1, 1))
    assert first[0] == 0x32
    assert first[1] == len(first) - 2

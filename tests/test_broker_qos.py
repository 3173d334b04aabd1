"""Messages that a broker delivers at QoS 2: relayed once, their exchange completed, nothing of them kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.peers import AedesBroker
from tests.support.publishers import Publisher
from tests.support.relays import Answer, Relay
from tests.support.waiting import eventually_async
from tests.test_broker import Linked, linked, publish


@pytest.fixture
def aedes(tmp_path: Path) -> Iterator[Broker]:
    """A broker that delivers at the QoS of the publisher what a wildcard matches."""
    broker = AedesBroker(tmp_path / "aedes")
    with broker:
        yield broker


def leave_subscription(url: str, client_id: str, topic_filter: str) -> None:
    """What an earlier program under our client id leaves on the broker: a session with a subscription at QoS 2."""
    with Publisher(url, protocol=4, client_id=client_id, clean_session=False) as earlier:
        earlier.subscribe(topic_filter, qos=2)


def assert_nothing_is_kept(link: Linked) -> None:
    connection = link.upstream._link
    assert connection is not None
    assert not connection._paho._in_messages
    assert connection._client._queue.empty()


async def test_aedes_delivers_at_qos_2_and_each_message_arrives_once(aedes: Broker) -> None:
    async with linked(aedes.url, "#") as link:
        await publish(aedes.url, *(("q/2", b"%d" % number) for number in range(200)), qos=2, protocol=4)
        assert await link.payloads("q/2", 200) == [b"%d" % number for number in range(200)]
        assert {arrival.qos for arrival in link.arrivals if arrival.topic == "q/2"} == {2}
        assert_nothing_is_kept(link)
        relayed, state = len(link.arrivals), link.upstream.state
        assert state.received == relayed + sum(state.dropped.values())


@pytest.mark.slow
async def test_the_gateway_says_at_which_qos_it_came(aedes: Broker, make_gateway: MakeGateway) -> None:
    gateway = await asyncio.to_thread(make_gateway, aedes.url, mqtt_topics=["q/#"])
    await publish(aedes.url, ("q/2", b"21"), qos=2, protocol=4)
    await eventually_async(lambda: gateway.json("/topics/q/2")["messages"], what="the message")
    (message,) = gateway.json("/topics/q/2")["messages"]
    assert (message["payload"], message["qos"]) == (21, 2)
    assert gateway.metrics()["gateway_messages_received_total"] == 1


@pytest.mark.parametrize("answer", [Answer.PASS, Answer.REFUSE_5])
async def test_what_an_earlier_subscription_at_qos_2_kept_arrives(
    mosquitto: Broker, prefix: str, answer: Answer
) -> None:
    client_id = f"earlier-{prefix}"
    async with Relay(mosquitto.port, answer).running() as relay:
        await asyncio.to_thread(leave_subscription, mosquitto.url, client_id, f"{prefix}/#")
        await publish(mosquitto.url, *((f"{prefix}/a", b"%d" % number) for number in range(100)), qos=2)
        async with linked(relay.url, f"{prefix}/#", client_id=client_id) as link:
            assert await link.payloads(f"{prefix}/a", 100) == [b"%d" % number for number in range(100)]
            assert {arrival.qos for arrival in link.arrivals} == {2}
            assert_nothing_is_kept(link)
        # the exchanges are complete: nothing is sent again
        async with linked(relay.url, f"{prefix}/#", client_id=client_id) as link:
            await publish(mosquitto.url, (f"{prefix}/a", b"last"))
            assert await link.payloads(f"{prefix}/a", 1) == [b"last"]


async def test_at_qos_2_what_arrives_while_it_is_held_comes_over_the_next_connection(aedes: Broker) -> None:
    async with linked(aedes.url, "q/#", client_id="held") as first:
        await publish(aedes.url, ("q/2", b"0"), qos=2, protocol=4)
        await first.payloads("q/2", 1)
        first.upstream.hold()
        await publish(aedes.url, *(("q/2", b"%d" % number) for number in range(1, 20)), qos=2, protocol=4)
        assert await first.payloads("q/2", 1) == [b"0"]
    async with linked(aedes.url, "q/#", client_id="held") as second:
        assert sorted(await second.payloads("q/2", 19), key=int) == [b"%d" % number for number in range(1, 20)]


async def test_a_connection_that_breaks_within_the_exchange_brings_no_second_copy(
    mosquitto: Broker, prefix: str
) -> None:
    client_id = f"cut-{prefix}"
    await asyncio.to_thread(leave_subscription, mosquitto.url, client_id, f"{prefix}/#")
    await publish(mosquitto.url, *((f"{prefix}/a", b"%d" % number) for number in range(50)), qos=2)
    async with Relay(mosquitto.port).running() as relay:
        relay.swallows_answers = True
        async with linked(relay.url, f"{prefix}/#", client_id=client_id, wait=False) as link:
            await link.payloads(f"{prefix}/a", 1)
            relay.swallows_answers = False
            relay.cut()
            await link.connected()
            await publish(mosquitto.url, (f"{prefix}/a", b"last"))
            await eventually_async(lambda: link.arrivals[-1].payload == b"last")
            assert [arrival.payload for arrival in link.arrivals] == [*(b"%d" % n for n in range(50)), b"last"]
            assert link.upstream.state.dropped["duplicate"] > 0

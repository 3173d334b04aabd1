"""The broker is killed, frozen, cut off, refuses or talks nonsense; the gateway stays up, says so and comes back."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker, BrokerOptions, MosquittoContainer
from tests.support.faults import assert_accounted, assert_sound
from tests.support.publishers import Publisher, publishing
from tests.support.relays import Answer, Relay
from tests.support.subscribers import Subscriber
from tests.support.waiting import eventually_async

CEILING_MIB = 200


def send(broker: Broker, *numbers: int, topic: str = "a", retain: bool = False) -> None:
    with Publisher(broker.url) as publisher:
        for number in numbers:
            publisher.publish(topic, b"%d" % number, retain=retain)


@pytest.mark.parametrize("keep", [True, False], ids=["with its persistence", "without it"])
@pytest.mark.slow
async def test_killed_mid_stream_and_started_again(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway, keep: bool
) -> None:
    broker = make_mosquitto(BrokerOptions(autosave=True))
    gateway = await asyncio.to_thread(make_gateway, broker, mqtt_topics=["a/#"])
    async with Subscriber(gateway, "#", since="now") as client:
        await client.wait_event("subscribed")
        await asyncio.to_thread(send, broker, 1, topic="a/kept", retain=True)
        await client.wait_messages(1)
        # the broker writes each to its disk with all that lie there: more would take minutes where disks are slow
        messages = [("a/stream", b"%d" % number) for number in range(1_000)]
        with publishing(broker.url, messages, qos=1, per_second=400):
            await client.wait_messages(300)
            await asyncio.to_thread(broker.kill)
            await client.wait_event("upstream", connected=False)
            assert (await asyncio.to_thread(gateway.get, "/health/ready"))[0] == 503
            if not keep:
                await asyncio.to_thread(broker.forget)
            await asyncio.to_thread(broker.start)
            await client.wait_event("upstream", 30, connected=True)
        if keep:
            await client.wait(lambda: client.payloads("a/stream")[-1:] == [999], 60)
            # what the broker had acknowledged and took with it into death is at most what it had not sent yet
            assert len(set(range(1_000)) - set(client.payloads("a/stream"))) <= 20
        # without its persistence it knows no subscriber until we are back: only what comes then is promised
        await asyncio.to_thread(send, broker, *range(1_000, 1_050), topic="a/stream")
        await client.wait(lambda: set(range(1_000, 1_050)) <= set(client.payloads("a/stream")))
        assert client.payloads("a/kept") == [1]
        await assert_accounted(gateway, client)
    samples = await asyncio.to_thread(gateway.metrics)
    assert samples["gateway_upstream_connected"] == 1
    assert samples["gateway_upstream_reconnects_total"] >= 1
    assert_sound(gateway, ceiling_mib=CEILING_MIB)


@pytest.mark.parametrize("fault", ["frozen", pytest.param("cut off", marks=pytest.mark.docker)])
@pytest.mark.slow
async def test_silent_for_longer_than_the_keep_alive(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway, fault: str
) -> None:
    broker = make_mosquitto(kind="container" if fault == "cut off" else None)
    gateway = await asyncio.to_thread(make_gateway, broker, mqtt_topics=["a"], mqtt_keepalive=1)
    async with Subscriber(gateway, "#", since="now") as client:
        await client.wait_event("subscribed")
        await asyncio.to_thread(send, broker, 1)
        await client.wait_messages(1)
        if isinstance(broker, MosquittoContainer) and fault == "cut off":
            harm, heal = broker.cut, broker.mend
        else:
            harm, heal = broker.freeze, broker.thaw
        await asyncio.to_thread(harm)
        told = await client.wait_event("upstream", 20, connected=False)
        assert told["reason"]
        assert (await asyncio.to_thread(gateway.get, "/health/ready"))[0] == 503
        # the last values are there all the same
        assert (await asyncio.to_thread(gateway.json, "/topics/a"))["messages"][0]["payload"] == 1
        away = await asyncio.to_thread(gateway.metrics)
        assert away["gateway_upstream_connected"] == 0
        if fault == "frozen":  # Docker may end the connections of a container that it cuts off
            assert away["gateway_upstream_last_message_age_seconds"] > 1, "longer than the keep-alive"
        await eventually_async(
            lambda: gateway.metrics()["gateway_upstream_attempts"] >= 1, 30, "the metrics tell that it tries again"
        )
        await asyncio.to_thread(heal)
        await client.wait_event("upstream", 30, connected=True)
        await asyncio.to_thread(send, broker, 2)
        await client.wait(lambda: client.payloads() == [1, 2])
        await assert_accounted(gateway, client)
        assert_back(await asyncio.to_thread(gateway.metrics), received=2)
    assert_sound(gateway, ceiling_mib=CEILING_MIB)


def assert_back(samples: dict[str, float], *, received: int) -> None:
    """The metrics tell that the broker was away and is back, and how much came in all."""
    assert samples["gateway_upstream_connected"] == 1
    assert samples["gateway_upstream_reconnects_total"] >= 1
    assert samples["gateway_upstream_attempts"] == 0
    assert samples['gateway_upstream_filters{granted="no"}'] == 0
    assert samples["gateway_messages_received_total"] == received
    assert samples["gateway_upstream_received_total"] >= received


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer.GARBAGE, "no MQTT broker"),
        (Answer.MALFORMED, ""),
        (Answer.CLOSE_ON_5, ""),
        (Answer.NOT_AUTHORIZED, "refused the login"),
        (Answer.NOT_AUTHORIZED_3, "refused the login"),
        (Answer.UNAVAILABLE, "unavailable"),
    ],
)
@pytest.mark.slow
async def test_refusing_or_talking_nonsense(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, answer: Answer, said: str
) -> None:
    async with Relay(mosquitto.port).running() as relay:
        gateway = await asyncio.to_thread(make_gateway, relay.url, mqtt_topics=[f"{prefix}/#"])
        async with Subscriber(gateway, "#", since="now") as client:
            await client.wait_event("subscribed")
            relay.answer = answer
            relay.cut()
            await client.wait_event("upstream", connected=False)
            attempts = len(relay.versions)
            await eventually_async(lambda: len(relay.versions) >= attempts + 2, 15, "it tries again")
            if said:
                status, body = await asyncio.to_thread(gateway.get, "/health/ready")
                assert status == 503
                assert said in body.decode()
                away = await asyncio.to_thread(gateway.metrics)
                assert away["gateway_upstream_connected"] == 0
                assert away["gateway_upstream_attempts"] >= 1
            relay.answer = Answer.PASS
            await client.wait_event("upstream", 30, connected=True)
            await asyncio.to_thread(send, mosquitto, 1, topic=f"{prefix}/a")
            await client.wait_messages(1)
            await assert_accounted(gateway, client)
            samples = await asyncio.to_thread(gateway.metrics)
            assert_back(samples, received=1)
        assert_sound(gateway, ceiling_mib=CEILING_MIB)


@pytest.mark.slow
async def test_publishers_in_browsers_are_told_while_it_is_away(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    async with Relay(mosquitto.port).running() as relay:
        gateway = await asyncio.to_thread(make_gateway, relay.url, mqtt_topics=[f"{prefix}/#"])
        async with Subscriber(gateway, f"{prefix}/#", since="now") as client:
            await client.wait_event("subscribed")
            relay.answer = Answer.GARBAGE
            relay.cut()
            await client.wait_event("upstream", connected=False)
            await client.send("publish", id=7, topic=f"{prefix}/a", payload=1, qos=1)
            error = await client.wait_event("error", id=7)
            assert error["code"] == "upstream_unavailable"
            relay.answer = Answer.PASS
            await client.wait_event("upstream", 30, connected=True)
            await client.send("publish", id=8, topic=f"{prefix}/a", payload=2, qos=1)
            await client.wait_event("published", id=8)
            await client.wait(lambda: client.payloads() == [2])
            await assert_accounted(gateway, client)
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples['gateway_publishes_total{result="upstream_unavailable"}'] == 1
        assert samples['gateway_publishes_total{result="ok"}'] == 1
        assert_back(samples, received=1)
        assert_sound(gateway, ceiling_mib=CEILING_MIB)


@pytest.mark.slow
async def test_ten_restarts_in_a_row_leave_nothing_behind(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway
) -> None:
    broker = make_mosquitto(kind="process")
    gateway = await asyncio.to_thread(make_gateway, broker, mqtt_topics=["a"])
    async with Subscriber(gateway, "#", since="now") as client:
        await client.wait_event("subscribed")
        before, files = gateway.memory(), open_files(gateway.pid)
        for number in range(10):
            await asyncio.to_thread(broker.kill if number % 2 else broker.stop)
            await asyncio.to_thread(broker.start)
            await asyncio.to_thread(send, broker, number)
            with contextlib.suppress(AssertionError):
                await client.wait(lambda number=number: number in client.payloads(), 1)  # type: ignore[misc]
        await asyncio.to_thread(gateway.wait_ready)
        await asyncio.to_thread(send, broker, 99)
        await client.wait(lambda: client.payloads()[-1:] == [99], 20)
        await assert_accounted(gateway, client)
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples["gateway_upstream_connected"] == 1
        assert samples["gateway_upstream_reconnects_total"] >= 1
    await eventually_async(lambda: open_files(gateway.pid) <= files, what=f"no more than {files} open files")
    assert gateway.memory() - before < 20 * 2**20
    assert_sound(gateway, ceiling_mib=CEILING_MIB)


def open_files(pid: int) -> int:
    import psutil

    count: int = psutil.Process(pid).num_fds()
    return count

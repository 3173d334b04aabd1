"""The gateway is stopped, killed and started again while everything is under way."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.protocol import CloseCode
from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.faults import assert_accounted, assert_sound, assert_unbroken
from tests.support.publishers import publishing
from tests.support.subscribers import Subscriber


@pytest.mark.slow
async def test_sigterm_under_load_closes_reconnectably_and_loses_no_qos_1_message(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"])
    count = 6_000
    messages = [(f"{prefix}/{number % 5}", b"%d" % number) for number in range(count)]
    async with Subscriber(gateway, "#", since="now") as before:
        await before.wait_event("subscribed")
        with publishing(mosquitto.url, messages, qos=1, per_second=2_000):
            await before.wait_messages(1_500, 20)
            assert await asyncio.to_thread(gateway.stop) == 0
            assert await before.wait_closed() == CloseCode.RESTART
            await asyncio.to_thread(gateway.start)
    assert_unbroken(before)
    seen = {message["payload"] for message in before.messages}
    assert len(seen) < count, "it was not under load when it stopped"
    async with Subscriber(gateway, "#", since="1h") as after:

        def missing() -> set[int]:
            return set(range(count)) - seen - {message["payload"] for message in after.messages}

        await after.wait(lambda: not missing(), 20, "every message at QoS 1 was seen before or after")
        await assert_accounted(gateway, after, from_the_start=True)
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples["gateway_messages_received_total"] == len(after.messages)
        assert samples["gateway_messages_delivered_total"] == len(after.messages)
        assert samples["gateway_upstream_connected"] == 1
        assert samples["gateway_subscribers"] == 1
    assert_sound(gateway, ceiling_mib=200)


@pytest.mark.slow
async def test_sigkill_and_a_restart(mosquitto: Broker, make_gateway: MakeGateway, prefix: str) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"])
    async with Subscriber(gateway, "#") as before:
        await asyncio.to_thread(publish_numbers, mosquitto, prefix, 0, 100)
        await before.wait_messages(100)
        position = f"{before.events[0]['position'].partition(':')[0]}:{before.messages[-1]['seq']}"
        await asyncio.to_thread(gateway.kill)
        assert await before.wait_closed() == 1006
    assert_unbroken(before)
    await asyncio.to_thread(publish_numbers, mosquitto, prefix, 100, 200)
    await asyncio.to_thread(gateway.start)
    async with Subscriber(gateway, "#", since=position) as after:
        gap = await after.wait_event("gap")
        assert gap["reason"] == "epoch"
        assert after.events.index(gap) <= 1
        # what the last value of the one topic is
        await after.wait(lambda: after.messages and after.messages[-1]["payload"] == 199)
    async with Subscriber(gateway, "#", since="1h") as history:
        await history.wait(lambda: set(range(100, 200)) <= set(history.payloads()))
        await assert_accounted(gateway, history, from_the_start=True)
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples["gateway_messages_received_total"] == len(history.messages)
        assert samples["gateway_upstream_connected"] == 1
        # it counts what it knows: nobody knows how much a reader of another life has missed
        assert samples['gateway_messages_lost_total{reason="epoch"}'] == 0
    assert_sound(gateway, ceiling_mib=200)


def publish_numbers(broker: Broker, prefix: str, start: int, stop: int) -> None:
    with publishing(broker.url, [(f"{prefix}/n", b"%d" % n) for n in range(start, stop)], qos=1, per_second=0):
        pass


@pytest.mark.slow
async def test_a_gateway_that_was_frozen_goes_on_and_accounts_for_everything(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"])
    messages = [(f"{prefix}/a", b"%d" % number) for number in range(2_000)]
    async with Subscriber(gateway, "#", since="now") as client:
        await client.wait_event("subscribed")
        with publishing(mosquitto.url, messages, qos=1, per_second=1_000):
            await client.wait_messages(200)
            gateway.freeze()
            await asyncio.sleep(1.5)  # the fault
            gateway.thaw()
            await client.wait(lambda: client.payloads()[-1:] == [1_999], 20)
        assert client.payloads() == list(range(2_000))
        await assert_accounted(gateway, client)
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples["gateway_messages_received_total"] == samples["gateway_messages_delivered_total"] == 2_000
        assert samples["gateway_upstream_connected"] == 1
    assert_sound(gateway, ceiling_mib=200)


@pytest.mark.slow
async def test_a_full_disk_under_its_log_does_not_stop_it(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    gateway = make_gateway(mosquitto, start=False, mqtt_topics=[f"{prefix}/#"], log_level="debug")
    (gateway.folder / "gateway.log").symlink_to("/dev/full")
    await asyncio.to_thread(gateway.start)
    async with Subscriber(gateway, "#", since="now") as client:
        await client.wait_event("subscribed")
        await asyncio.to_thread(publish_numbers, mosquitto, prefix, 0, 100)
        await client.wait_messages(100)
        await assert_accounted(gateway, client)
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples["gateway_messages_received_total"] == samples["gateway_messages_delivered_total"] == 100
    # no assert_sound, which reads the log: reading /dev/full never ends
    assert gateway.is_alive
    assert gateway.memory() < 200 * 2**20
    assert gateway.get("/health/ready")[0] == 200
    assert await asyncio.to_thread(gateway.stop) == 0

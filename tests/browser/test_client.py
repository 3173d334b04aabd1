"""The client library in a real browser, against a real gateway and a real broker."""

from __future__ import annotations

import pytest

from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher

from .conftest import MakeNetwork, OpenPage


def test_shows_messages(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    publisher.publish(f"{prefix}/a", '{"temperature": 21.5}')
    page.wait("messages.length === 1")
    message = page.page.evaluate("messages[0]")
    assert message["topic"] == f"{prefix}/a"
    assert message["payload"] == {"temperature": 21.5}


def test_goes_on_when_the_gateway_is_restarted(
    mosquitto: Broker,
    publisher: Publisher,
    prefix: str,
    make_gateway: MakeGateway,
    network_to: MakeNetwork,
    open_page: OpenPage,
) -> None:
    gateway = make_gateway(mosquitto)
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    publisher.publish(f"{prefix}/a", "1", retain=True)
    page.wait_payload(f"{prefix}/a", 1)
    gateway.stop()
    page.wait("live.state !== 'open'")
    gateway.start()
    page.wait("events.filter((event) => event.type === 'subscribed').length === 2")
    publisher.publish(f"{prefix}/a", "2")
    page.wait_payload(f"{prefix}/a", 2)
    assert [gap["reason"] for gap in page.events("gap")] == ["epoch"]
    assert page.events("error") == []


def test_is_told_of_a_broker_that_is_restarted(
    make_mosquitto: MakeMosquitto, prefix: str, make_gateway: MakeGateway, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    broker.stop()
    page.wait("events.some((event) => event.type === 'upstream' && !event.connected)")
    broker.start()
    page.wait("events.some((event) => event.type === 'upstream' && event.connected)", 40)
    with Publisher(broker.url) as publisher:
        publisher.publish(f"{prefix}/a", "1")
    page.wait_payload(f"{prefix}/a", 1)
    assert page.states() == ["open"]


def test_misses_nothing_while_its_network_is_gone(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    publisher.publish_all([(f"{prefix}/a", str(number)) for number in range(20)], qos=1)
    page.wait_payload(f"{prefix}/a", 19)
    tools = page.cdp()
    tools.send("Network.enable")
    gone = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    tools.send("Network.emulateNetworkConditions", gone)
    publisher.publish_all([(f"{prefix}/a", str(number)) for number in range(20, 100)], qos=1)
    page.wait("live.state === 'waiting'")
    tools.send("Network.emulateNetworkConditions", {**gone, "offline": False})
    page.wait_payload(f"{prefix}/a", 99)
    assert page.payloads(f"{prefix}/a") == list(range(100))
    assert page.events("gap") == []


def test_notices_a_connection_that_died_without_a_word(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    network = network_to(gateway.port)
    page = open_page(network)
    page.connect(topics=f"{prefix}/#", silence=1, timeout=1)
    page.wait_open()
    publisher.publish(f"{prefix}/a", "1")
    page.wait_payload(f"{prefix}/a", 1)
    network.silence()
    page.wait("live.state === 'waiting'", 10)
    publisher.publish(f"{prefix}/a", "2")
    network.mend()
    page.wait_payload(f"{prefix}/a", 2)
    assert page.payloads(f"{prefix}/a") == [1, 2]


@pytest.mark.parametrize("limit", [1_500, 5_000, 20_000])
def test_a_replay_that_is_cut_again_and_again_is_complete(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage, limit: int
) -> None:
    count = 900
    topics = [f"{prefix}/a", f"{prefix}/b", f"{prefix}/c/d"]
    publisher.publish_all([(topics[number % 3], str(number)) for number in range(count)], qos=1)
    watch = f"{prefix}/#"
    network = network_to(gateway.port)
    page = open_page(network)
    network.limit = limit
    page.connect(topics=f"{prefix}/a", since="10m", maxDelay=0.05)
    page.page.evaluate(
        "([wide, narrow]) => { live.subscribe(wide, { since: '10m' }); live.subscribe(narrow, { since: '10m' }); }",
        [watch, f"{prefix}/c/#"],
    )
    last = [count - 3, count - 2, count - 1]
    for topic, payload in zip(topics, last, strict=True):
        page.wait_payload(topic, payload, 60)
    for number, topic in enumerate(topics):
        assert page.payloads(topic) == list(range(number, count, 3)), topic
    assert page.events("gap") == []
    assert network.websockets > 2

"""The test brokers do what tests rely on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.conftest import MakeMosquitto
from tests.support.brokers import Broker, BrokerOptions, MosquittoContainer
from tests.support.certificates import Authority
from tests.support.publishers import Publisher
from tests.support.waiting import eventually, is_listening


@pytest.mark.parametrize("kind", ["process", "container"])
def test_a_broker_keeps_port_and_retained_messages_over_a_restart_until_told_to_forget(
    make_mosquitto: MakeMosquitto, kind: str
) -> None:
    broker = make_mosquitto(kind=kind)
    with Publisher(broker.url) as publisher:
        publisher.publish("a", b"kept", retain=True)
    port = broker.port
    broker.restart()
    assert broker.port == port
    with Publisher(broker.url) as reader:
        reader.subscribe("a")
        reader.wait_for("a", b"kept")
    broker.restart(keep=False)
    with Publisher(broker.url) as reader:
        reader.subscribe("a")
        reader.publish("b", b"afterwards")
        reader.subscribe("b")
        reader.publish("b", b"again")
        reader.wait_for("b", b"again")
        assert ("a", b"kept") not in reader.received


@pytest.mark.parametrize("kind", ["process", "container"])
def test_killed_with_autosave_it_has_lost_at_most_the_newest_message(make_mosquitto: MakeMosquitto, kind: str) -> None:
    broker = make_mosquitto(BrokerOptions(autosave=True), kind=kind)
    with Publisher(broker.url) as publisher:
        publisher.publish("a", b"kept", retain=True)
        publisher.publish("b", b"newest", retain=True)
        broker.kill()
        eventually(lambda: not is_listening(broker.port))
    broker.start()
    with Publisher(broker.url) as reader:
        reader.subscribe("a")
        reader.wait_for("a", b"kept")


@pytest.mark.parametrize("kind", ["process", "container"])
def test_a_frozen_broker_answers_nobody_until_it_thaws(make_mosquitto: MakeMosquitto, kind: str) -> None:
    broker = make_mosquitto(kind=kind)
    with Publisher(broker.url) as publisher:
        broker.freeze()
        done = threading.Event()

        def publish() -> None:
            publisher.publish("a", b"x")
            done.set()

        thread = threading.Thread(target=publish)
        thread.start()
        assert not done.wait(0.5)
        broker.thaw()
        assert done.wait(10)
        thread.join()


@pytest.mark.parametrize("kind", ["process", "container"])
def test_users_and_tls_are_demanded(make_mosquitto: MakeMosquitto, authority: Authority, kind: str) -> None:
    server = authority.issue("broker", hosts=("localhost", "127.0.0.1"))
    broker = make_mosquitto(BrokerOptions(users={"ann": "secret"}, server=server), kind=kind)
    url = broker.url.replace("//", "//ann:secret@")
    with Publisher(url, ca_certs=str(authority.ca_file)) as publisher:
        publisher.publish("a", b"x")


def test_a_container_can_lose_its_network_and_get_it_back(make_mosquitto: MakeMosquitto) -> None:
    broker = make_mosquitto(kind="container")
    assert isinstance(broker, MosquittoContainer)
    broker.cut()
    with pytest.raises((OSError, TimeoutError)), Publisher(broker.url):
        pass
    broker.mend()
    with Publisher(broker.url) as publisher:
        publisher.publish("a", b"x")


def test_amqtt_speaks_3_1_1(amqtt: Broker, tmp_path: Path) -> None:
    with Publisher(amqtt.url, protocol=4) as publisher:
        publisher.subscribe("a")
        publisher.publish("a", b"x")
        publisher.wait_for("a", b"x")

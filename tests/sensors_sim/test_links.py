"""sensors_sim/links.py against a real Mosquitto."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import MQTTMessage

from sensors_sim.address import BrokerAddress
from sensors_sim.links import Link, Links, LinkState, raise_file_limit
from sensors_sim.messages import Message
from tests.support.brokers import Broker, BrokerOptions
from tests.support.certificates import Authority
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

WILL = Message("will/x", b"dead", 1, True)


class Harness:
    """Links and what they told."""

    def __init__(self, address: BrokerAddress) -> None:
        self.came_up: list[Link] = []
        self.arrived: list[MQTTMessage] = []
        self.links = Links(address, self.came_up.append, self.arrived.append)

    def until(self, condition: Callable[[], Any], what: str = "", timeout: float = 10) -> None:
        def turned() -> Any:
            self.links.turn(0.01)
            return condition()

        eventually(turned, timeout, what or self.links.counters.last_error)

    def up(self, link: Link) -> Link:
        self.links.open(link)
        self.until(lambda: link.state is LinkState.UP, f"{link} up")
        return link


@pytest.fixture
def harness() -> Iterator[Callable[..., Harness]]:
    made: list[Harness] = []

    def make(broker: Broker | str, **overrides: Any) -> Harness:
        url = broker if isinstance(broker, str) else broker.url
        made.append(Harness(BrokerAddress.parse(url, **overrides)))
        return made[-1]

    yield make
    for one in made:
        one.links.close(timeout=1)


MakeMosquitto = Callable[..., Broker]
MakeHarness = Callable[..., Harness]


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "username"),
    [
        ("mqtt://localhost", "localhost", 1883, False, None),
        ("mqtt://a.example:1884/", "a.example", 1884, False, None),
        ("mqtts://u%40x:p@[::1]", "::1", 8883, True, "u@x"),
    ],
)
def test_addresses_are_read(url: str, host: str, port: int, tls: bool, username: str | None) -> None:
    address = BrokerAddress.parse(url)
    assert (address.host, address.port, address.tls, address.username) == (host, port, tls, username)


@pytest.mark.parametrize(
    "url", ["localhost:1883", "http://x", "mqtt://", "mqtt://x:0x", "mqtt://x/path", "mqtt://x:99999"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="broker"):
        BrokerAddress.parse(url)


def test_a_password_shows_neither_in_text_nor_in_errors() -> None:
    assert "geheim" not in repr(BrokerAddress.parse("mqtt://u:geheim@x"))
    assert "geheim" not in str(BrokerAddress.parse("mqtt://u:geheim@x"))
    with pytest.raises(ValueError, match="expected") as raised:
        BrokerAddress.parse("http://u:geheim@x")
    assert "geheim" not in str(raised.value)


# Mosquitto 2.0 hands no more than its 20 messages in flight to a subscriber at QoS 2, whoever publishes them.
@pytest.mark.parametrize(("qos", "count"), [(0, 900), (1, 900), (2, 15)])
def test_messages_arrive_in_order(mosquitto: Broker, harness: MakeHarness, prefix: str, qos: int, count: int) -> None:
    links = harness(mosquitto)
    link = links.up(Link(f"{prefix}-c", None, [], ""))
    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"{prefix}/#", qos=qos)
        for number in range(count):
            links.links.publish(link, Message(f"{prefix}/t", b"%d" % number, qos))
        links.until(lambda: len(listener.received) == count)
    assert [int(payload) for _, payload in listener.received] == list(range(count))
    assert {message.qos for message in listener.messages} == {qos}
    links.until(lambda: link.backlog == 0)


def test_a_message_of_a_megabyte_passes_whole(mosquitto: Broker, harness: MakeHarness, prefix: str) -> None:
    links = harness(mosquitto)
    link = links.up(Link(f"{prefix}-c", None, [], ""))
    payload = bytes(range(256)) * 4096
    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"{prefix}/#")
        links.links.publish(link, Message(f"{prefix}/t", payload, 1))
        links.until(lambda: listener.received)
    assert listener.received == [(f"{prefix}/t", payload)]


def test_commands_arrive(mosquitto: Broker, harness: MakeHarness, prefix: str) -> None:
    links = harness(mosquitto)
    filters = [f"{prefix}/{number}/cmd" for number in range(120)]  # more than one SUBSCRIBE
    links.up(Link(f"{prefix}-c", None, filters, ""))
    with Publisher(mosquitto.url) as publisher:
        for qos in (0, 1, 2):
            publisher.publish(f"{prefix}/119/cmd", b"x", qos=qos)
    links.until(lambda: len(links.arrived) == 3)
    assert [(message.topic, message.payload, message.retain) for message in links.arrived] == [
        (f"{prefix}/119/cmd", b"x", False)
    ] * 3


def test_a_cut_fires_the_will_and_leaving_does_not(make_mosquitto: MakeMosquitto, harness: MakeHarness) -> None:
    broker = make_mosquitto()
    links = harness(broker)
    with Publisher(broker.url) as listener:
        listener.subscribe("#")
        left = links.up(Link("leaves", Message("will/left", b"dead", 1), [], ""))
        links.links.publish(left, Message("said", b"bye", 1))
        links.links.leave(left)
        links.until(lambda: left.state is LinkState.CLOSED)
        cut = links.up(Link("cut", WILL, [], ""))
        links.links.cut(cut)
        listener.wait_for("will/x", b"dead")
    assert listener.received == [("said", b"bye"), ("will/x", b"dead")]


def test_a_link_may_be_told_to_leave_before_it_is_up(mosquitto: Broker, harness: MakeHarness, prefix: str) -> None:
    links = harness(mosquitto)
    link = Link(f"{prefix}-sleeper", None, [], "")
    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"{prefix}/#")
        links.links.open(link)
        links.links.publish(link, Message(f"{prefix}/state", b"1", 1))
        links.links.leave(link)
        links.until(lambda: link.state is LinkState.CLOSED)
        listener.wait_for(f"{prefix}/state", b"1")


def test_what_an_outage_held_back_comes_later_and_what_a_crash_held_is_lost(
    mosquitto: Broker, harness: MakeHarness, prefix: str
) -> None:
    links = harness(mosquitto)
    link = links.up(Link(f"{prefix}-c", None, [], ""))
    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"{prefix}/#")
        links.links.cut(link, keeps=True)
        links.links.publish(link, Message(f"{prefix}/t", b"kept", 1))
        links.up(link)
        links.links.cut(link)
        links.links.publish(link, Message(f"{prefix}/t", b"lost", 1))
        links.up(link)
        links.links.publish(link, Message(f"{prefix}/t", b"last", 1))
        links.until(lambda: (f"{prefix}/t", b"last") in listener.received)
    assert [payload for _, payload in listener.received] == [b"kept", b"last"]


def test_messages_survive_a_broker_that_dies_before_it_acknowledged(
    make_mosquitto: MakeMosquitto, harness: MakeHarness
) -> None:
    broker = make_mosquitto(kind="process")
    links = harness(broker)
    link = links.up(Link("c", None, [], ""))
    broker.freeze()
    for number in range(50):
        links.links.publish(link, Message("t", b"%d" % number, 1, True))
    links.until(lambda: link.backlog == 50)
    broker.kill()
    broker.start()
    with Publisher(broker.url) as listener:
        listener.subscribe("t")
        links.until(lambda: (("t", b"49") in listener.received) and not link.backlog, "the last message", 20)
    assert [int(payload) for _, payload in listener.received][-1] == 49


def test_a_device_without_a_connection_keeps_its_newest_messages(harness: MakeHarness) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        links = harness(f"mqtt://127.0.0.1:{nobody.getsockname()[1]}")
        link = Link("c", None, [], "")
        links.links.open(link)
        for number in range(150):
            links.links.publish(link, Message("t", b"%d" % number, 1))
        assert [int(message.payload) for message in link.waiting] == list(range(50, 150))
        assert links.links.counters.dropped == 50
        links.until(lambda: links.links.counters.failures >= 2, "two attempts")
        assert "refused" in links.links.counters.last_error.lower()


@pytest.mark.slow
def test_a_frozen_broker_is_noticed_and_does_not_fill_the_memory(
    make_mosquitto: MakeMosquitto, harness: MakeHarness
) -> None:
    broker = make_mosquitto(kind="process")
    links = harness(broker, keepalive=2)
    link = links.up(Link("c", None, [], ""))
    broker.freeze()
    for number in range(30_000):
        links.links.publish(link, Message("t", b"%d" % number, 1))
    assert links.links.counters.dropped == 10_000
    links.until(lambda: links.links.counters.failures, "the ping is missed", 10)
    assert "ping" in links.links.counters.last_error
    broker.thaw()
    links.until(lambda: link.state is LinkState.UP and not link.backlog, "everything arrives", 30)


def test_tls_with_the_right_authority_connects(
    make_mosquitto: MakeMosquitto, harness: MakeHarness, authority: Authority
) -> None:
    server = authority.issue("localhost", hosts=("localhost", "127.0.0.1"))
    broker = make_mosquitto(BrokerOptions(server=server))
    links = harness(broker, ca_file=str(authority.ca_file))
    link = links.up(Link("c", None, [], ""))
    for _ in range(500):
        links.links.publish(link, Message("t", b"x" * 2000, 1))
    links.until(lambda: not link.backlog, "500 messages of 2 kB over TLS")


def test_tls_with_another_authority_is_refused_and_says_so(
    make_mosquitto: MakeMosquitto, harness: MakeHarness, authority: Authority, tmp_path: Path
) -> None:
    broker = make_mosquitto(BrokerOptions(server=authority.issue("localhost", hosts=("127.0.0.1",))))
    links = harness(broker, ca_file=str(Authority(tmp_path / "other").ca_file))
    link = Link("c", None, [], "")
    links.links.open(link)
    links.until(lambda: links.links.counters.failures)
    assert "certificate is not trusted" in links.links.counters.last_error
    assert link.state is not LinkState.UP


def test_tls_with_a_certificate_of_another_host_is_refused(
    make_mosquitto: MakeMosquitto, harness: MakeHarness, authority: Authority
) -> None:
    broker = make_mosquitto(BrokerOptions(server=authority.issue("x", hosts=("other.example",))))
    links = harness(broker, ca_file=str(authority.ca_file))
    links.links.open(Link("c", None, [], ""))
    links.until(lambda: links.links.counters.failures)
    assert "not valid for" in links.links.counters.last_error


def test_a_missing_authority_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"CA file /nowhere\.pem"):
        Links(BrokerAddress.parse("mqtts://x", ca_file="/nowhere.pem"), lambda _: None, lambda _: None)


def test_each_device_has_its_own_user(make_mosquitto: MakeMosquitto, harness: MakeHarness) -> None:
    broker = make_mosquitto(
        BrokerOptions(
            users={"dev-a": "pa", "dev-b": "pb"}, acl="pattern write sensors/%u/#\nuser dev-a\ntopic read #\n"
        )
    )
    links = harness(broker, username="dev-{id}", passwords={"dev-a": "pa", "dev-b": "pb"})
    a, b = Link("a", None, ["sensors/#"], "a"), Link("b", None, [], "b")
    links.up(a)
    links.up(b)
    links.links.publish(b, Message("sensors/dev-a/state", b"forbidden", 1))
    links.links.publish(b, Message("sensors/dev-b/state", b"allowed", 1))
    links.until(lambda: links.arrived)
    assert [delivery.payload for delivery in links.arrived] == [b"allowed"]


def test_a_wrong_password_is_told(make_mosquitto: MakeMosquitto, harness: MakeHarness, caplog: Any) -> None:
    broker = make_mosquitto(BrokerOptions(users={"u": "right"}))
    links = harness(broker, username="u", password="wrong")
    for number in range(5):
        links.links.open(Link(f"c{number}", None, [], ""))
    links.until(lambda: links.links.counters.failures >= 5)
    assert "refuse" in links.links.counters.last_error or "authorise" in links.links.counters.last_error
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1, "a thousand devices would say the same"
    assert "wrong" not in caplog.text


def test_a_name_that_nobody_knows_is_told(harness: MakeHarness) -> None:
    links = harness("mqtt://broker.invalid")
    links.links.open(Link("c", None, [], ""))
    links.until(lambda: links.links.counters.failures, timeout=20)
    assert "broker.invalid" in links.links.counters.last_error


def test_something_that_is_no_broker_is_told(harness: MakeHarness) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        links = harness(f"mqtt://127.0.0.1:{server.getsockname()[1]}")
        links.links.open(Link("c", None, [], ""))
        links.links.turn(0.1)
        server.settimeout(5)
        peer, _ = server.accept()
        with peer:
            peer.sendall(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\nServer: something-else\r\n\r\n"
            )
            links.until(lambda: links.links.counters.failures)
    assert "no MQTT broker" in links.links.counters.last_error


def test_many_links_come_up_together(mosquitto: Broker, harness: MakeHarness, prefix: str) -> None:
    links = harness(mosquitto)
    raise_file_limit(1000)
    many = [Link(f"{prefix}-{number}", None, [], "") for number in range(300)]
    for link in many:
        links.links.open(link)
    links.until(lambda: links.links.up == 300, "300 links", 30)


def test_the_farewell_arrives_before_the_end(mosquitto: Broker, harness: MakeHarness, prefix: str) -> None:
    links = harness(mosquitto)
    up = links.up(Link(f"{prefix}-up", None, [], ""))
    down = Link(f"{prefix}-down", None, [], "")  # as that of a sleeping device
    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"{prefix}/#")
        links.links.close([(up, Message(f"{prefix}/up", b"off", 1)), (down, Message(f"{prefix}/down", b"off", 1))])
        listener.wait_for(f"{prefix}/up", b"off")
        listener.wait_for(f"{prefix}/down", b"off")

"""The link to the broker, on real brokers: connecting, what arrives, publishing, faults and leaving."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway.core.messages import Properties
from gateway.upstream import link as link_module
from gateway.upstream import upstream
from gateway.upstream.acknowledging import Keeper
from gateway.upstream.config import UpstreamConfig
from gateway.upstream.state import PublishRefused, UpstreamState, UpstreamUnavailable
from gateway.upstream.upstream import Upstream
from tests.conftest import MakeMosquitto
from tests.support.brokers import Broker, BrokerOptions
from tests.support.certificates import Authority
from tests.support.publishers import Publisher, leave
from tests.support.relays import Answer, Relay
from tests.support.waiting import PATIENCE_SECONDS, eventually_async, free_port, missing

BOTH_LOOPS = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ],
)
QUICK = {"reconnect_min_seconds": 0.05, "reconnect_max_seconds": 0.3}


class Arrival(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retained: bool = False
    properties: Properties | None = None
    repeat: int = 0


class Linked:
    """An upstream and what it handed over."""

    def __init__(self, config: UpstreamConfig) -> None:
        self.arrivals: list[Arrival] = []
        self.states: list[UpstreamState] = []
        self.on_arrival: Callable[[Arrival], None] = self.arrivals.append
        self.upstream = Upstream(config, on_message=self._take, on_change=self.states.append)
        self.task: asyncio.Task[None] | None = None

    def _take(self, *message: Any) -> None:
        self.on_arrival(Arrival(*message))

    async def connected(self, timeout_seconds: float = 10) -> None:
        await eventually_async(lambda: self.upstream.state.connected, timeout_seconds, f"connected: {self.states[-1:]}")

    async def disconnected(self, timeout_seconds: float = 10) -> str:
        await eventually_async(lambda: not self.upstream.state.connected, timeout_seconds, "disconnected")
        return self.upstream.state.last_error or ""

    async def error(self, part: str, timeout_seconds: float = 10) -> None:
        await eventually_async(
            lambda: any(part in (state.last_error or "") for state in self.states),
            timeout_seconds,
            f"an error with {part!r}, got {[state.last_error for state in self.states]}",
        )

    async def payloads(self, topic: str, count: int, timeout_seconds: float = 10) -> list[bytes]:
        def of_topic() -> list[bytes]:
            return [arrival.payload for arrival in self.arrivals if arrival.topic == topic]

        await eventually_async(lambda: len(of_topic()) >= count, timeout_seconds, f"{count} messages on {topic}")
        return of_topic()

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait((self.task,))
            self.task = None


@asynccontextmanager
async def linked(url: str, *topics: str, wait: bool = True, **options: Any) -> AsyncIterator[Linked]:
    """An upstream that runs while the block does."""
    config = UpstreamConfig(
        url, topics or ("#",), **{"client_id": f"test-{free_port()}", "status_topic": "", **QUICK, **options}
    )
    link = Linked(config)
    link.task = asyncio.create_task(link.upstream.run(), name="upstream")
    try:
        if wait:
            await link.connected()
        yield link
    finally:
        await link.stop()


async def publish(url: str, *messages: tuple[str, bytes], **options: Any) -> None:
    """Publishes from a thread of its own, so that the link's loop goes on."""

    def run() -> None:
        with Publisher(url, protocol=options.pop("protocol", 5)) as publisher:
            for topic, payload in messages:
                publisher.publish(topic, payload, **options)

    await asyncio.to_thread(run)


# what arrives


@BOTH_LOOPS
async def test_a_message_arrives_with_all_that_it_has(mosquitto: Broker, prefix: str) -> None:
    began = time.time()
    async with linked(mosquitto.url, f"{prefix}/#") as link:
        properties = {
            "ContentType": "text/plain",
            "ResponseTopic": f"{prefix}/answer",
            "CorrelationData": b"\x00\xff",
            "UserProperty": [("a", "1"), ("a", "2")],
            "MessageExpiryInterval": 60,
        }
        await publish(mosquitto.url, (f"{prefix}/x", b"\x00\xff"), qos=1, properties=properties)
        await link.payloads(f"{prefix}/x", 1)
        (arrival,) = link.arrivals
        assert arrival == Arrival(
            f"{prefix}/x",
            b"\x00\xff",
            1,
            False,
            {
                "content_type": "text/plain",
                "response_topic": f"{prefix}/answer",
                "correlation_data": b"\x00\xff",
                "user_properties": [("a", "1"), ("a", "2")],
                "message_expiry_interval": 60,
            },
            0,
        )
        state = link.upstream.state
        assert (state.protocol, state.received, state.retained_as_published) == ("5", 1, True)
        assert state.last_message_at is not None
        assert began <= state.last_message_at <= time.time()


@pytest.mark.slow
@BOTH_LOOPS
@pytest.mark.parametrize("qos", [0, 1])
async def test_ten_thousand_messages_arrive_once_and_in_order(mosquitto: Broker, prefix: str, qos: int) -> None:
    async with linked(mosquitto.url, f"{prefix}/#") as link:

        def run() -> None:
            with Publisher(mosquitto.url) as publisher:
                publisher.publish_all(((f"{prefix}/{n % 7}", b"%d" % n) for n in range(10_000)), qos=qos)

        await asyncio.to_thread(run)
        await eventually_async(lambda: len(link.arrivals) >= 10_000, 30)
        for number in range(7):
            numbers = [int(a.payload) for a in link.arrivals if a.topic == f"{prefix}/{number}"]
            assert numbers == list(range(number, 10_000, 7))


@BOTH_LOOPS
async def test_a_backlog_leaves_turns_of_the_loop_to_others(mosquitto: Broker, prefix: str) -> None:
    """uvloop by itself reads up to 32 times in one turn."""
    payload, count = b"x" * 1_000, 2_000
    turns = [0]
    async with linked(mosquitto.url, f"{prefix}/#") as link:
        loop = asyncio.get_running_loop()
        stalled = False

        def next_turn() -> None:
            turns.append(0)
            if sum(turns) < count:
                loop.call_soon(next_turn)

        def take(arrival: Arrival) -> None:
            nonlocal stalled
            if not stalled:
                stalled = True
                time.sleep(0.5)  # so that a backlog is there
                loop.call_soon(next_turn)
            turns[-1] += 1

        link.on_arrival = take

        def run() -> None:
            with Publisher(mosquitto.url) as publisher:
                publisher.publish_all(((f"{prefix}/a", payload) for _ in range(count)), qos=0)

        await asyncio.to_thread(run)
        await eventually_async(lambda: sum(turns) >= count)
        assert max(turns) * len(payload) <= 2 * link_module.READ_BYTES


async def test_payloads_of_a_mebibyte_and_of_nothing_arrive_whole(mosquitto: Broker, prefix: str) -> None:
    large = bytes(range(256)) * 4096
    async with linked(mosquitto.url, f"{prefix}/#") as link:
        await publish(mosquitto.url, (f"{prefix}/a", large), (f"{prefix}/a", b""), (f"{prefix}/a", large[::-1]))
        assert await link.payloads(f"{prefix}/a", 3) == [large, b"", large[::-1]]


async def test_a_message_over_the_limit_is_dropped_counted_and_said(
    mosquitto: Broker, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(mosquitto.url, f"{prefix}/#", max_message_bytes=10_000) as link:
        await publish(mosquitto.url, (f"{prefix}/a", b"x" * 100_000), (f"{prefix}/a", b"small"))
        assert await link.payloads(f"{prefix}/a", 1) == [b"small"]
        assert link.upstream.state.dropped["too_large"] == 1
        assert "too large" in caplog.text


async def test_a_message_that_the_receiver_fails_on_does_not_end_the_link(mosquitto: Broker, prefix: str) -> None:
    async with linked(mosquitto.url, f"{prefix}/#") as link:

        def take(arrival: Arrival) -> None:
            if arrival.payload == b"bad":
                raise ValueError("no")
            link.arrivals.append(arrival)

        link.on_arrival = take
        await publish(mosquitto.url, (f"{prefix}/a", b"bad"), (f"{prefix}/a", b"good"))
        assert await link.payloads(f"{prefix}/a", 1) == [b"good"]
        assert link.upstream.state.dropped["failed"] == 1
        assert link.upstream.state.reconnects == 0


@pytest.mark.parametrize("answer", [Answer.PASS, Answer.REFUSE_5])
async def test_overlapping_filters_bring_one_copy(mosquitto: Broker, prefix: str, answer: Answer) -> None:
    await publish(mosquitto.url, (f"{prefix}/a/b", b"kept"), retain=True)
    async with (
        Relay(mosquitto.port, answer).running() as relay,
        linked(relay.url, f"{prefix}/a/+", f"{prefix}/+/b", f"{prefix}/a/#") as link,
    ):
        await publish(mosquitto.url, (f"{prefix}/a/b", b"1"), (f"{prefix}/c/b", b"2"), (f"{prefix}/c/d", b"not wanted"))
        await publish(mosquitto.url, (f"{prefix}/a/b", b"last"))
        assert await link.payloads(f"{prefix}/a/b", 3) == [b"kept", b"1", b"last"]
        assert await link.payloads(f"{prefix}/c/b", 1) == [b"2"]
        assert not [a for a in link.arrivals if a.topic == f"{prefix}/c/d"]


# sessions and repetitions


@BOTH_LOOPS
@pytest.mark.parametrize("answer", [Answer.PASS, Answer.REFUSE_5])
async def test_qos_1_messages_published_while_it_is_away_arrive_before_new_ones(
    mosquitto: Broker, prefix: str, answer: Answer
) -> None:
    client_id = f"away-{prefix}"
    async with Relay(mosquitto.port, answer).running() as relay:
        async with linked(relay.url, f"{prefix}/#", client_id=client_id):
            pass
        await publish(mosquitto.url, *((f"{prefix}/a", b"%d" % number) for number in range(500)))
        async with linked(relay.url, f"{prefix}/#", client_id=client_id) as link:
            assert link.upstream.state.session_resumed
            await publish(mosquitto.url, (f"{prefix}/a", b"500"))
            assert await link.payloads(f"{prefix}/a", 501) == [b"%d" % number for number in range(501)]
            assert {arrival.repeat for arrival in link.arrivals} == {0}


@pytest.mark.parametrize("answer", [Answer.PASS, Answer.REFUSE_5])
async def test_what_arrives_while_it_is_held_comes_over_the_next_connection(
    mosquitto: Broker, prefix: str, answer: Answer
) -> None:
    client_id = f"held-{prefix}"
    async with Relay(mosquitto.port, answer).running() as relay:
        async with linked(relay.url, f"{prefix}/#", client_id=client_id) as first:
            await publish(mosquitto.url, (f"{prefix}/a", b"0"))
            await first.payloads(f"{prefix}/a", 1)
            first.upstream.hold()
            # more than the broker sends without an acknowledgement
            await publish(mosquitto.url, *((f"{prefix}/a", b"%d" % number) for number in range(1, 100)))
            assert first.upstream.state.connected
        assert await first.payloads(f"{prefix}/a", 1) == [b"0"]
        async with linked(relay.url, f"{prefix}/#", client_id=client_id) as second:
            assert await second.payloads(f"{prefix}/a", 99) == [b"%d" % number for number in range(1, 100)]


async def test_retained_messages_that_may_be_repetitions_have_the_number_of_the_subscription(
    mosquitto: Broker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "REPEAT_SECONDS", 0.3)
    await publish(mosquitto.url, (f"{prefix}/a", b"kept"), retain=True)
    async with Relay(mosquitto.port).running() as relay, linked(relay.url, f"{prefix}/#") as link:
        await link.payloads(f"{prefix}/a", 1)
        await asyncio.sleep(0.35)  # the time is what is tested
        await publish(mosquitto.url, (f"{prefix}/a", b"changed"), retain=True)
        await link.payloads(f"{prefix}/a", 2)
        relay.cut()
        await eventually_async(lambda: link.upstream.state.reconnects == 1, what="subscribed again")
        await link.payloads(f"{prefix}/a", 3)
        seen = [(a.payload, a.retained, a.repeat) for a in link.arrivals]
        first, second = seen[0][2], seen[2][2]
        assert 0 < first < second
        assert seen == [(b"kept", True, first), (b"changed", True, 0), (b"changed", True, second)]


async def test_no_two_repetitions_have_one_number_even_if_a_subscription_is_cut_short(
    mosquitto: Broker, prefix: str
) -> None:
    await publish(mosquitto.url, (f"{prefix}/a/1", b"kept"), retain=True)
    async with (
        Relay(mosquitto.port).running() as relay,
        linked(relay.url, f"{prefix}/a/#", f"{prefix}/b/#") as link,
    ):
        await link.payloads(f"{prefix}/a/1", 1)
        relay.max_subscribes = 1
        relay.cut()
        await link.payloads(f"{prefix}/a/1", 3)
        relay.max_subscribes = None
        await link.connected()
        await link.payloads(f"{prefix}/a/1", 4)
        numbers = [arrival.repeat for arrival in link.arrivals]
        # history takes for news what has number 0, and the second of two with one number
        assert len(set(numbers)) == len(numbers)
        assert min(numbers) > 0


async def test_in_mqtt_3_1_1_every_retained_flag_is_a_repetition(mosquitto: Broker, prefix: str) -> None:
    await publish(mosquitto.url, (f"{prefix}/a", b"kept"), retain=True)
    async with (
        Relay(mosquitto.port, Answer.REFUSE_5).running() as relay,
        linked(relay.url, f"{prefix}/#") as link,
    ):
        await publish(mosquitto.url, (f"{prefix}/a", b"live"), retain=True)
        await link.payloads(f"{prefix}/a", 2)
        number = link.upstream.state.subscription
        assert [(a.payload, a.retained, a.repeat) for a in link.arrivals] == [
            (b"kept", True, number),
            (b"live", False, 0),
        ]
        assert not link.upstream.state.retained_as_published


@pytest.mark.parametrize("answer", [Answer.PASS, Answer.REFUSE_5])
async def test_subscriptions_of_an_earlier_configuration_are_thrown_away(
    mosquitto: Broker, prefix: str, answer: Answer
) -> None:
    client_id = f"earlier-{prefix}"
    async with Relay(mosquitto.port, answer).running() as relay:
        async with linked(relay.url, f"{prefix}/#", client_id=client_id):
            pass
        async with linked(relay.url, f"{prefix}/a/#", client_id=client_id) as link:
            await publish(mosquitto.url, (f"{prefix}/b/1", b"x"))
            await eventually_async(lambda: link.upstream.state.reconnects == 1, what="it starts its session anew")
            await link.connected()
            await publish(mosquitto.url, (f"{prefix}/b/1", b"x"), (f"{prefix}/a/1", b"wanted"))
            assert await link.payloads(f"{prefix}/a/1", 1) == [b"wanted"]
            state = link.upstream.state
            assert {arrival.topic for arrival in link.arrivals} == {f"{prefix}/a/1"}
            # the broker sends what is not wanted no more
            assert (state.received, state.reconnects) == (2, 1)
            assert state.dropped["not_wanted"] == 1
            # and only once was it started anew
            relay.cut()
            await eventually_async(lambda: link.upstream.state.reconnects == 2)
            assert link.upstream.state.session_resumed


@pytest.mark.parametrize("answer", [Answer.PASS, Answer.REFUSE_5])
async def test_no_session_is_left_behind_where_none_is_wanted(mosquitto: Broker, prefix: str, answer: Answer) -> None:
    options: dict[str, Any] = {"client_id": f"passing-{prefix}", "session_expiry_seconds": 0}
    async with Relay(mosquitto.port, answer).running() as relay:
        async with linked(relay.url, f"{prefix}/#", **options):
            pass
        await publish(mosquitto.url, (f"{prefix}/a", b"while nobody listens"), qos=1)
        async with linked(relay.url, f"{prefix}/#", **options) as link:
            assert not link.upstream.state.session_resumed
            await publish(mosquitto.url, (f"{prefix}/a", b"now"), qos=1)
            assert await link.payloads(f"{prefix}/a", 1) == [b"now"]


# which version


@pytest.mark.parametrize("answer", [Answer.REFUSE_5, Answer.REFUSE_5_AS_3, Answer.CLOSE_ON_5])
async def test_a_broker_that_refuses_mqtt_5_is_spoken_to_in_3_1_1(
    mosquitto: Broker, prefix: str, answer: Answer
) -> None:
    async with Relay(mosquitto.port, answer).running() as relay, linked(relay.url, f"{prefix}/#") as link:
        assert link.upstream.state.protocol == "3.1.1"
        await publish(mosquitto.url, (f"{prefix}/a", b"x"))
        assert await link.payloads(f"{prefix}/a", 1) == [b"x"]
        assert relay.versions == ([5, 5, 4] if answer is Answer.CLOSE_ON_5 else [5, 4])


async def test_what_a_broker_clearly_refused_is_not_tried_at_each_reconnect(mosquitto: Broker) -> None:
    async with Relay(mosquitto.port, Answer.REFUSE_5).running() as relay, linked(relay.url) as link:
        for count in (1, 2):
            relay.cut()
            await eventually_async(lambda count=count: link.upstream.state.reconnects == count)  # type: ignore[misc]
        assert relay.versions == [5, 4, 4, 4]


async def test_what_may_have_been_chance_is_tried_again_after_the_connection_ends(mosquitto: Broker) -> None:
    async with Relay(mosquitto.port, Answer.CLOSE_ON_5).running() as relay, linked(relay.url) as link:
        assert link.upstream.state.protocol == "3.1.1"
        relay.answer = Answer.PASS
        relay.cut()
        await eventually_async(lambda: link.upstream.state.protocol == "5")


async def test_a_broker_that_spoke_mqtt_5_is_not_suspected_for_closing(mosquitto: Broker) -> None:
    async with Relay(mosquitto.port).running() as relay, linked(relay.url) as link:
        relay.answer = Answer.CLOSE_ON_5
        relay.cut()
        await eventually_async(lambda: len(relay.versions) >= 5)
        relay.answer = Answer.PASS
        await eventually_async(lambda: link.upstream.state.reconnects == 1)
        assert set(relay.versions) == {5}


async def test_amqtt_is_spoken_to_in_3_1_1(amqtt: Broker) -> None:
    async with linked(amqtt.url, "a/#", status_topic="gateway/status") as link:
        assert link.upstream.state.protocol == "3.1.1"
        await publish(amqtt.url, ("a/b", b"x"), protocol=4)
        assert await link.payloads("a/b", 1) == [b"x"]
        await link.upstream.publish("a/c", b"y", qos=1)
        assert await link.payloads("a/c", 1) == [b"y"]


# why not


async def test_it_starts_while_nothing_listens_says_so_and_connects_when_a_broker_comes(
    make_mosquitto: MakeMosquitto,
) -> None:
    broker = make_mosquitto()
    await asyncio.to_thread(broker.stop)
    async with linked(broker.url, wait=False) as link:
        await link.error("connect") if broker.kind == "container" else await link.error("connection refused")
        await asyncio.to_thread(broker.start)
        await link.connected(20)
        assert link.upstream.state.last_error is None
        assert link.upstream.state.reconnects == 0


async def test_a_name_without_an_address_is_said() -> None:
    async with linked("mqtt://no-such-host.invalid", wait=False) as link:
        await link.error("the name 'no-such-host.invalid' has no address", 20)


async def test_a_refused_password_is_said_and_never_shown(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = make_mosquitto(BrokerOptions(users={"ann": "right"}))
    url = f"mqtt://ann:wr%40ng@127.0.0.1:{broker.port}"
    async with linked(url, wait=False) as link:
        await link.error("refused the login")
        await link.error("user 'ann'")
        shown = caplog.text + repr(link.states) + repr(UpstreamConfig(url)) + repr(UpstreamConfig(password="wr@ng"))
    assert "wr" not in shown.replace("written", "").replace("write", "").replace("wrap", "")


async def test_user_and_password_from_the_url_or_of_their_own(make_mosquitto: MakeMosquitto) -> None:
    broker = make_mosquitto(BrokerOptions(users={"ann": "p@ss"}))
    async with linked(f"mqtt://ann:p%40ss@127.0.0.1:{broker.port}"):
        pass
    async with linked(broker.url, username="ann", password="p@ss"):
        pass


@BOTH_LOOPS
async def test_tls_with_our_certificate(
    make_mosquitto: MakeMosquitto, authority: Authority, anyio_backend: object
) -> None:
    options = BrokerOptions(server=authority.issue("tls", hosts=("127.0.0.1",)), client_ca=authority.ca_file)
    broker = make_mosquitto(options)
    mine = authority.issue("gateway", client=True)
    large = b"x" * 300_000
    async with linked(broker.url, ca_file=authority.ca_file, cert_file=mine.cert, key_file=mine.key) as link:
        for number in range(50):
            await link.upstream.publish("a", b"%d" % number, qos=1)
        await link.upstream.publish("large", large, qos=1)
        assert await link.payloads("a", 50) == [b"%d" % number for number in range(50)]
        assert await link.payloads("large", 1) == [large]


async def test_each_way_in_which_tls_fails_is_said(
    make_mosquitto: MakeMosquitto, authority: Authority, tmp_path: Path
) -> None:
    options = BrokerOptions(server=authority.issue("strict", hosts=("127.0.0.1",)), client_ca=authority.ca_file)
    broker = make_mosquitto(options)
    mine = authority.issue("me", client=True)
    trusting = {"ca_file": authority.ca_file, "cert_file": mine.cert, "key_file": mine.key}
    async with linked(broker.url, wait=False) as link:
        await link.error("certificate is not trusted")
    async with linked(broker.url, wait=False, ca_file=Authority(tmp_path / "other").ca_file) as link:
        await link.error("certificate is not trusted")
    async with linked(broker.url.replace("127.0.0.1", "localhost"), wait=False, **trusting) as link:
        await link.error("Hostname mismatch")
    async with linked(broker.url, wait=False, ca_file=authority.ca_file) as link:
        await link.error("wants one")
    async with linked(broker.url, wait=False, ca_file=tmp_path / "gone.pem") as link:
        await link.error("is not there")


async def test_tls_and_no_tls_mixed_up_is_said(
    make_mosquitto: MakeMosquitto, mosquitto: Broker, authority: Authority
) -> None:
    async with linked(f"mqtts://127.0.0.1:{mosquitto.port}", wait=False) as link:
        await link.error("TLS handshake: mqtt:// instead of mqtts://?")
    broker = make_mosquitto(BrokerOptions(server=authority.issue("plain", hosts=("127.0.0.1",))))
    async with linked(f"mqtt://127.0.0.1:{broker.port}", wait=False) as link:
        await link.error("closed the connection before it answered")


@pytest.mark.slow
async def test_an_answer_in_another_protocol_is_said_and_survived(mosquitto: Broker) -> None:
    async with Relay(mosquitto.port, Answer.GARBAGE).running() as relay, linked(relay.url, wait=False) as link:
        await link.error("is no MQTT broker: b'HTTP/1.1 400 Bad Req'")
        relay.answer = Answer.MALFORMED
        await link.error("what the broker sent is not MQTT")
        relay.answer = Answer.PASS
        await link.connected()


async def test_a_broker_that_never_answers_is_given_up(mosquitto: Broker) -> None:
    async with (
        Relay(mosquitto.port, Answer.SILENCE).running() as relay,
        linked(relay.url, wait=False, connect_timeout_seconds=0.2) as link,
    ):
        await link.error("sent no CONNACK within 0.2 s")
        relay.answer = Answer.PASS
        await link.connected()


async def test_repeated_failures_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    async with linked(f"mqtt://127.0.0.1:{port}", wait=False) as link:
        await eventually_async(lambda: link.upstream.state.attempts >= 5)
    said = [record for record in caplog.records if "connection refused" in record.getMessage()]
    assert len(said) == 1


def dynamic_security_plugin() -> Path | None:
    return next(Path("/usr/lib").glob("**/mosquitto_dynamic_security.so"), None)


async def test_a_refused_subscription_is_visible(make_mosquitto: MakeMosquitto, tmp_path: Path) -> None:
    plugin = dynamic_security_plugin()
    if plugin is None:
        missing("Mosquitto's dynamic security plugin")
    access = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    config = tmp_path / "dynamic-security.json"
    config.write_text(
        json.dumps(
            {
                "defaultACLAccess": access,
                "anonymousGroup": "all",
                "clients": [],
                "groups": [{"groupname": "all", "roles": [{"rolename": "reader"}], "clients": []}],
                "roles": [
                    {
                        "rolename": "reader",
                        "acls": [{"acltype": "subscribePattern", "topic": "open/#", "priority": 0, "allow": True}],
                    }
                ],
            }
        )
    )
    broker = make_mosquitto(
        BrokerOptions(extra=(f"plugin {plugin}", f"plugin_opt_config_file {config}")), kind="process"
    )
    async with linked(broker.url, "open/#", "closed/#") as link:
        assert link.upstream.state.filters == {"open/#": 1, "closed/#": "Not authorized"}
        assert link.upstream.state.last_error == "subscription to 'closed/#' refused: Not authorized"
        await publish(broker.url, ("open/a", b"x"))
        assert await link.payloads("open/a", 1) == [b"x"]


# losing it


@BOTH_LOOPS
async def test_a_restarted_broker_is_found_again_and_what_was_published_meanwhile_arrives(
    make_mosquitto: MakeMosquitto, anyio_backend: object
) -> None:
    broker = make_mosquitto()
    async with linked(broker.url, "a/#") as link:
        await publish(broker.url, ("a/1", b"before"))
        await link.payloads("a/1", 1)
        await asyncio.to_thread(broker.stop)
        await link.error("the broker")
        await asyncio.to_thread(broker.start)
        await publish(broker.url, ("a/1", b"after"))
        assert await link.payloads("a/1", 2, 20) == [b"before", b"after"]
        await link.connected()  # what the session kept comes before the subscription is answered
        assert link.upstream.state.reconnects == 1


async def test_a_frozen_broker_is_noticed_and_found_again(make_mosquitto: MakeMosquitto) -> None:
    broker = make_mosquitto()
    async with linked(broker.url, keepalive_seconds=1, connect_timeout_seconds=1) as link:
        await asyncio.to_thread(broker.freeze)
        assert "does not answer" in await link.disconnected()
        await asyncio.to_thread(broker.thaw)
        await link.connected()


async def test_a_network_that_swallows_everything_is_noticed(mosquitto: Broker) -> None:
    async with Relay(mosquitto.port).running() as relay, linked(relay.url, keepalive_seconds=1) as link:
        relay.swallows = True
        assert "does not answer" in await link.disconnected()
        relay.swallows = False
        await link.connected()


async def test_silence_is_measured_against_the_keep_alive(mosquitto: Broker) -> None:
    async with linked(mosquitto.url, keepalive_seconds=30) as link:
        connection = link.upstream._link
        assert connection is not None
        for silent, is_given_up in ((44.0, False), (46.0, True)):
            connection._heard_at = asyncio.get_running_loop().time() - silent
            connection._tick()
            assert connection.closed.done() is is_given_up


@pytest.mark.slow
async def test_an_idle_connection_is_kept_by_pings(mosquitto: Broker, prefix: str) -> None:
    async with linked(mosquitto.url, f"{prefix}/#", keepalive_seconds=1) as link:
        await asyncio.sleep(4)  # longer than the broker and we ourselves wait for a silent peer
        assert (link.upstream.state.connected, link.upstream.state.reconnects) == (True, 0)


async def test_two_with_one_client_id_do_not_fight(mosquitto: Broker, prefix: str) -> None:
    async with linked(mosquitto.url, client_id=prefix) as link:
        other = paho.Client(CallbackAPIVersion.VERSION2, client_id=prefix, protocol=paho.MQTTv5)
        other.connect("127.0.0.1", mosquitto.port)
        other.loop_start()
        try:
            await link.error("another client")  # not every Mosquitto says so: 2.0.11 only closes
            attempts = link.upstream.state.attempts
            await asyncio.sleep(2)  # it stays away
            assert link.upstream.state.attempts == attempts
            await eventually_async(other.is_connected)
        finally:
            leave(other)


def test_delays_grow_to_a_bound_and_start_over() -> None:
    backoff = upstream._Backoff(0.5, 30.0)
    delays = [backoff.next() for _ in range(12)]
    for number, delay in enumerate(delays):
        most = min(0.5 * 2**number, 30.0)
        assert most / 2 <= delay <= most
    backoff.reset()
    assert backoff.next() <= 0.5


# publishing


@BOTH_LOOPS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_is_published_arrives_with_its_properties(mosquitto: Broker, prefix: str, qos: int) -> None:
    properties: Properties = {
        "content_type": "text/plain",
        "response_topic": "answers",
        "correlation_data": b"\x00\xff",
        "user_properties": [("a", "1")],
        "message_expiry_interval": 60,
    }
    with Publisher(mosquitto.url) as reader:
        reader.subscribe(f"{prefix}/#", qos=2)
        async with linked(mosquitto.url, f"{prefix}/#") as link:
            await link.upstream.publish(f"{prefix}/x", b"hello", qos=qos, retain=True, properties=properties)
            await link.payloads(f"{prefix}/x", 1)
            assert link.arrivals[0].properties == properties
            assert link.arrivals[0].retained
        await asyncio.to_thread(reader.wait_for, f"{prefix}/x", b"hello")
        assert reader.messages[0].qos == qos


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_three_thousand_at_once_arrive_once_each_and_nothing_complains(
    mosquitto: Broker, prefix: str, qos: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(mosquitto.url, f"{prefix}/#") as link:
        names = [f"{prefix}/{number}" for number in range(3_000)]
        await asyncio.gather(*(link.upstream.publish(name, b"x", qos=qos, timeout_seconds=60) for name in names))
        await eventually_async(lambda: len(link.arrivals) >= len(names), 20)
        assert sorted(arrival.topic for arrival in link.arrivals) == sorted(names)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_without_a_broker_publishing_fails_at_once() -> None:
    async with linked(f"mqtt://127.0.0.1:{free_port()}", wait=False) as link:
        await link.error("connection refused")
        with pytest.raises(UpstreamUnavailable, match="connection refused"):
            await link.upstream.publish("a", b"x", qos=1)


async def test_publishing_has_a_time_limit(mosquitto: Broker) -> None:
    async with Relay(mosquitto.port).running() as relay, linked(relay.url) as link:
        relay.swallows = True
        with pytest.raises(UpstreamUnavailable, match=r"not acknowledge within 0\.2 s"):
            await link.upstream.publish("a", b"x", qos=1, timeout_seconds=0.2)


async def test_a_lost_connection_ends_publishing_at_once(mosquitto: Broker) -> None:
    async with Relay(mosquitto.port).running() as relay, linked(relay.url) as link:
        relay.swallows = True
        publishing = [
            asyncio.create_task(link.upstream.publish("a", b"x", qos=1, timeout_seconds=60)) for _ in range(50)
        ]
        await asyncio.sleep(0)
        relay.cut()
        async with asyncio.timeout(PATIENCE_SECONDS):
            outcomes = await asyncio.gather(*publishing, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {UpstreamUnavailable}


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_the_broker_refuses_is_refused_and_the_next_is_not(make_mosquitto: MakeMosquitto, qos: int) -> None:
    broker = make_mosquitto(BrokerOptions(acl="topic readwrite open/#\ntopic read closed/#\n"))
    async with linked(broker.url, "open/#") as link:
        for _ in range(30):  # more than the broker's window: a refusal must give its place back
            with pytest.raises(PublishRefused, match="Not authorized"):
                await link.upstream.publish("closed/a", b"x", qos=qos)
        await link.upstream.publish("open/a", b"y", qos=qos)
        assert await link.payloads("open/a", 1) == [b"y"]


async def test_an_exchange_at_qos_2_ends_with_its_refusal() -> None:
    """MQTT 5 §4.3.3: after a PUBREC that refuses there is no PUBREL, which paho would send."""
    heard: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, size = await reader.readexactly(2)  # every packet here is short
                body = await reader.readexactly(size)
                heard.append(head >> 4)
                match head >> 4:
                    case 1:
                        writer.write(b"\x20\x03\x00\x00\x00")
                    case 8:
                        writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
                    case 3:
                        topic = int.from_bytes(body[:2], "big")
                        writer.write(b"\x50\x04" + body[2 + topic : 4 + topic] + b"\x87\x00")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, linked(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}") as link:
        for _ in range(2):
            with pytest.raises(PublishRefused, match="Not authorized"):
                await link.upstream.publish("a", b"x", qos=2)
    await eventually_async(lambda: heard[-1:] == [14])
    assert heard == [1, 8, 3, 3, 14]


async def test_a_message_that_the_broker_has_no_room_for_is_refused_before_it_costs_the_connection(
    make_mosquitto: MakeMosquitto,
) -> None:
    broker = make_mosquitto(BrokerOptions(extra=("max_packet_size 1000",)))
    async with linked(broker.url, "a") as link:
        with pytest.raises(PublishRefused, match="up to 1000 bytes"):
            await link.upstream.publish("a", b"x" * 1000, qos=1)
        await link.upstream.publish("a", b"x" * 900, qos=1)
        assert link.upstream.state.reconnects == 0


async def test_properties_that_can_not_be_sent_are_refused(mosquitto: Broker) -> None:
    async with linked(mosquitto.url, "none") as link:
        with pytest.raises(PublishRefused, match="can't be encoded"):
            await link.upstream.publish("a", b"x", qos=1, properties={"content_type": "x" * 70_000})
        await link.upstream.publish("a", b"x", qos=1)
    async with Relay(mosquitto.port, Answer.REFUSE_5).running() as relay, linked(relay.url) as link:
        with pytest.raises(PublishRefused, match=r"3\.1\.1"):
            await link.upstream.publish("a", b"x", properties={"content_type": "text/plain"})


# its own status, and leaving


async def test_online_while_it_is_there_offline_when_it_leaves_or_dies(mosquitto: Broker, prefix: str) -> None:
    status = f"{prefix}/status"
    with Publisher(mosquitto.url) as reader:
        reader.subscribe(status)
        async with Relay(mosquitto.port).running() as relay:
            async with linked(relay.url, "none", status_topic=status, reconnect_min_seconds=60.0) as link:
                await asyncio.to_thread(reader.wait_for, status, b"online")
                relay.cut()
                await link.disconnected()
                await asyncio.to_thread(reader.wait_for, status, b"offline")
            reader.received.clear()
            async with linked(relay.url, "none", status_topic=status):
                await asyncio.to_thread(reader.wait_for, status, b"online")
            await asyncio.to_thread(reader.wait_for, status, b"offline")
    with Publisher(mosquitto.url) as reader:
        reader.subscribe(status)
        reader.wait_for(status, b"offline")


@pytest.mark.parametrize("extra", [(), ("max_queued_messages 0",)], ids=["refusing", "closing the connection over it"])
async def test_it_works_where_its_status_may_not_be_published(
    make_mosquitto: MakeMosquitto, extra: tuple[str, ...]
) -> None:
    broker = make_mosquitto(BrokerOptions(acl="topic read #\ntopic write a/#\n", extra=extra))
    async with linked(broker.url, status_topic="gateway/status") as link:
        await asyncio.sleep(0.5)  # time for more than one connection, if each were lost
        await link.connected()
        assert link.upstream.state.reconnects <= 1
        await publish(broker.url, ("a/1", b"x"))
        assert await link.payloads("a/1", 1) == [b"x"]


async def test_leaving_is_quick_even_when_the_broker_does_not_answer(mosquitto: Broker, prefix: str) -> None:
    async with (
        Relay(mosquitto.port).running() as relay,
        linked(relay.url, status_topic=f"{prefix}/status", connect_timeout_seconds=60) as link,
    ):
        relay.swallows = True
        async with asyncio.timeout(PATIENCE_SECONDS):  # what waits for an answer would wait for 60 s
            await link.stop()


async def test_leaving_while_connecting_leaves_nothing_behind(mosquitto: Broker) -> None:
    async with Relay(mosquitto.port, Answer.SILENCE).running() as relay:
        async with linked(relay.url, wait=False):
            await eventually_async(lambda: relay.versions)
        await eventually_async(lambda: not relay._tasks, what="the connection is closed")


async def test_what_on_change_raises_stops_nothing(mosquitto: Broker) -> None:
    def fail(_: UpstreamState) -> None:
        raise ValueError("no")

    upstream = Upstream(
        UpstreamConfig(mosquitto.url, client_id=f"fails-{free_port()}", status_topic=""),
        on_message=lambda *_: None,
        on_change=fail,
    )
    task = asyncio.create_task(upstream.run(), name="upstream")
    await eventually_async(lambda: upstream.state.connected)
    task.cancel()
    await asyncio.wait((task,))


# the contract with aiomqtt and paho, on whose internals `_Link` stands


async def test_contract_aiomqtt_keeps_paho_in_client_and_connects_through_create_socket() -> None:
    client = aiomqtt.Client("127.0.0.1", 1883, identifier="contract")
    mqtt = client._client
    assert isinstance(mqtt, paho.Client)
    here, there = socket.socketpair()
    with here, there:
        calls: list[str] = []

        def create_socket() -> socket.socket:
            calls.append("_create_socket")
            return here

        mqtt._create_socket = create_socket  # type: ignore[method-assign]
        mqtt.on_socket_open = None
        mqtt.on_socket_close = None
        mqtt.on_socket_register_write = lambda *_: calls.append("on_socket_register_write")
        mqtt.on_socket_unregister_write = None
        mqtt.connect("127.0.0.1", 1883)
        assert calls == ["_create_socket", "on_socket_register_write"]
        mqtt.loop_write()
        assert there.recv(4096).startswith(b"\x10")


async def test_contract_paho_reads_one_packet_from_a_socket_that_has_one_packet() -> None:
    mqtt = paho.Client(CallbackAPIVersion.VERSION2, client_id="contract")
    asked: list[int] = []

    class OnePacket:
        window = b"\x20\x02\x00\x00"

        def recv(self, size: int) -> bytes:
            asked.append(size)
            if not self.window:
                raise BlockingIOError
            taken, self.window = self.window[:size], self.window[size:]
            return taken

        def send(self, data: bytes) -> int:
            return len(data)

        def close(self) -> None: ...

        def fileno(self) -> int:
            return -1

        def setblocking(self, flag: bool) -> None: ...

    sock = OnePacket()
    mqtt._create_socket = lambda: sock  # type: ignore[method-assign, assignment, return-value]
    mqtt.connect("127.0.0.1", 1883)
    connected: list[object] = []
    mqtt.on_connect = lambda *args: connected.append(args[3])
    assert mqtt.loop_read() == 0
    assert len(connected) == 1
    assert sock.window == b""
    # it has not given up at the end of the window
    assert mqtt.socket() is not None
    assert inspect.signature(paho.Client._create_socket).parameters.keys() == {"self"}


def test_the_more_a_read_brings_the_sooner_comes_the_next() -> None:
    sizes = (0, 1_000, 32_768, 65_535)
    parts = [link_module.pause_part(size) for size in sizes]
    assert parts[0] == 1
    assert parts == sorted(parts, reverse=True)
    assert link_module.pause_part(link_module.READ_BYTES) == link_module.pause_part(2 * link_module.READ_BYTES) == 0


def _packet(topic: str, payload: bytes) -> bytes:
    """PUBLISH of MQTT 5 at QoS 0 (§3.3)."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + b"\0" + payload
    return bytes((0x30, len(body))) + body


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux acknowledges when it is asked to")
@pytest.mark.parametrize("tls", [False, True])
@BOTH_LOOPS
async def test_what_the_broker_held_back_until_its_packets_were_acknowledged_comes_with_them(
    make_mosquitto: MakeMosquitto, authority: Authority, prefix: str, anyio_backend: object, tls: bool
) -> None:
    server_side = BrokerOptions(server=authority.issue("tls", hosts=("127.0.0.1",))) if tls else BrokerOptions()
    broker = make_mosquitto(server_side)
    options: dict[str, Any] = {"ca_file": authority.ca_file} if tls else {}
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as here:
        here.setblocking(False)
        there, _ = server.accept()
        with there:
            async with linked(broker.url, f"{prefix}/#", **options) as link:
                found = link.upstream._link
                assert found is not None
                assert found._may_read is not tls  # what TLS has encrypted only TLS can read
                found._socket, socket_before = here, found._socket
                came = _packet(f"{prefix}/a", b"1") + _packet(f"{prefix}/a", b"2")
                found._view[: len(came)] = came
                there.sendall(_packet(f"{prefix}/a", b"3") + _packet(f"{prefix}/a", b"4"))
                found.buffer_updated(len(came))
                found._socket = socket_before
                expected = [b"1", b"2"] if tls else [b"1", b"2", b"3", b"4"]
                assert [arrival.payload for arrival in link.arrivals if arrival.topic == f"{prefix}/a"] == expected
                await link.upstream.publish(f"{prefix}/b", b"5", qos=1)
                await link.payloads(f"{prefix}/b", 1)  # reading goes on


class Gatherer:
    """Keeps what comes with the next of its appends, each of which is followed by a rest."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def rest_seconds(self, *, has_all: bool = False) -> float:
        self.asked.append(has_all)
        return 30


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux acknowledges when it is asked to")
@BOTH_LOOPS
async def test_nothing_is_read_while_nothing_would_be_kept_but_what_the_broker_holds_back_is_waited_for(
    make_mosquitto: MakeMosquitto, prefix: str, anyio_backend: object
) -> None:
    async with linked(make_mosquitto().url, f"{prefix}/#") as link:
        found = link.upstream._link
        assert found is not None
        assert found._transport is not None
        keeper = Gatherer()
        found._keeper = cast("Keeper", keeper)
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as here:
            here.setblocking(False)
            there, _ = server.accept()
            found._socket, socket_before = here, found._socket

            def read(count: int) -> None:
                came = _packet(f"{prefix}/a", b"1") * count
                found._view[: len(came)] = came
                found.buffer_updated(len(came))

            with there:
                for count in (3, 1):
                    read(count)
                    assert found._transport.is_reading(), "something may be under way"
                    read(count)
                    assert not found._transport.is_reading()
                    found._read_on()
                assert keeper.asked == [False] * 4
                there.sendall(_packet(f"{prefix}/a", b"2"))
                read(1)
                assert not found._transport.is_reading(), "that was all"
                assert keeper.asked[4:] == [False, True]
                found._read_on()
            found._socket = socket_before
        found._keeper = None
        await link.upstream.publish(f"{prefix}/b", b"5", qos=1)
        await link.payloads(f"{prefix}/b", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="how large buffers are is each system's own")
def test_the_system_takes_more_from_the_broker_than_two_segments() -> None:
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        link_module.widen(sock)
        after = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert after >= max(before, min(link_module.RECEIVE_BYTES, most))
        assert sock.getsockopt(socket.SOL_SOCKET, link_module.SO_BUF_LOCK) == 0  # it may still grow by itself

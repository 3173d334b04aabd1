"""Brokers that refuse something, by closing the connection or by saying so: found out, told, and done without."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.upstream import terms as terms_module
from gateway.upstream.config import UpstreamConfig
from gateway.upstream.failures import Failure, Reason, connack_failure, disconnect_failure
from gateway.upstream.state import PublishRefused, UpstreamUnavailable
from gateway.upstream.terms import ForbiddenPublishes, Form, Pace, Stage, Terms, Verdict
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker, BrokerOptions
from tests.support.peers import AedesBroker
from tests.support.publishers import Publisher
from tests.support.relays import Answer, Relay
from tests.support.waiting import eventually_async
from tests.test_broker import Linked, linked, publish

MakeAedes = Callable[..., Broker]
STATUS = "gateway/status"


@pytest.fixture
def make_aedes(tmp_path: Path) -> Iterator[MakeAedes]:
    """Starts a broker that closes the connection over what its rules forbid (tests/peers/aedes.mjs)."""
    brokers: list[Broker] = []

    def make(**rules: Any) -> Broker:
        broker = AedesBroker(tmp_path / f"aedes{len(brokers)}", rules)
        brokers.append(broker)
        broker.start()
        return broker

    yield make
    for broker in brokers:
        broker.close()


async def settled(link: Linked, url: str, topic: str) -> None:
    """Returns when messages come through and the connection has lasted longer than a refusal would take to show."""

    async def came() -> None:
        number = 0
        while not any(arrival.topic == topic for arrival in link.arrivals):
            number += 1
            await publish(url, (topic, b"%d" % number), protocol=4)
            with contextlib.suppress(AssertionError):
                await link.payloads(topic, 1, 0.5)

    async with asyncio.timeout(20):
        await came()
    await eventually_async(
        lambda: link.upstream.state.connected and link.upstream._stage is Stage.LIVE, 20, "everything was asked"
    )
    assert "client id" not in " ".join(state.last_error or "" for state in link.states)


@pytest.mark.parametrize(
    ("rules", "reconnects"),
    [
        pytest.param({"publish": ["gateway/"]}, 3, id="the topic"),
        pytest.param({"retain": True, "will": True}, 2, id="what is retained"),
        pytest.param({"qos": 1, "will": True}, 0, id="a will"),
    ],
)
async def test_where_a_broker_closes_over_its_status_it_goes_on_without(
    make_aedes: MakeAedes, rules: dict[str, Any], reconnects: int, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_aedes(**rules)
    async with linked(broker.url, "a/#", status_topic=STATUS) as link:
        await settled(link, broker.url, "a/1")
        assert link.upstream.state.reconnects <= reconnects
        assert link.upstream.state.last_error is None
    assert 0 < caplog.text.count("; on 'gateway/status': ") <= 2


async def test_where_nothing_may_be_retained_the_status_is_published_all_the_same(make_aedes: MakeAedes) -> None:
    broker = make_aedes(retain=True)
    with Publisher(broker.url, protocol=4) as reader:
        reader.subscribe(STATUS)
        async with linked(broker.url, "a/#", status_topic=STATUS) as link:
            await settled(link, broker.url, "a/1")
            await asyncio.to_thread(reader.wait_for, STATUS, b"online")
        await asyncio.to_thread(reader.wait_for, STATUS, b"offline")


@pytest.mark.parametrize("status_topic", ["", STATUS])
async def test_a_filter_that_a_broker_closes_over_is_named_and_the_others_work(
    make_aedes: MakeAedes, status_topic: str
) -> None:
    broker = make_aedes(subscribe=["closed/"], publish=["gateway/"])
    async with linked(broker.url, "closed/1/#", "open/#", "closed/2/#", status_topic=status_topic) as link:
        await settled(link, broker.url, "open/1")
        why = "the broker closed the connection over it"
        assert link.upstream.state.filters == {"closed/1/#": why, "closed/2/#": why, "open/#": 1}
        assert "subscription to 'closed/2/#' refused" in (link.upstream.state.last_error or "")


async def test_a_refused_filter_leaves_the_ones_that_it_covered(make_aedes: MakeAedes) -> None:
    broker = make_aedes(subscribe=["#"])
    async with linked(broker.url, "#", "a/#", "b/+") as link:
        await settled(link, broker.url, "a/1")
        assert link.upstream.state.filters == {"#": "the broker closed the connection over it", "a/#": 1, "b/+": 1}


async def test_where_a_broker_closes_over_qos_1_all_is_asked_at_qos_0(make_aedes: MakeAedes) -> None:
    broker = make_aedes(qos=0)
    async with linked(broker.url, "a/#", "b/#", status_topic=STATUS) as link:

        def run() -> None:
            with Publisher(broker.url, protocol=4) as publisher:
                publisher.publish("a/1", b"x", qos=0)

        await eventually_async(lambda: link.upstream._stage is Stage.LIVE, 20, "everything was asked")
        await asyncio.to_thread(run)
        assert await link.payloads("a/1", 1) == [b"x"]
        assert link.upstream.state.filters == {"a/#": 0, "b/#": 0}
        assert link.upstream._terms.status == Form(0, True)


@pytest.mark.slow
async def test_a_gateway_that_is_refused_much_is_ready_all_the_same(
    make_aedes: MakeAedes, make_gateway: MakeGateway
) -> None:
    broker = make_aedes(subscribe=["closed/"], publish=["gateway-"], will=True)
    gateway = await asyncio.to_thread(make_gateway, broker.url, mqtt_topics=["closed/#", "open/#"])
    await publish(broker.url, ("open/1", b"1"), protocol=4)
    await eventually_async(lambda: gateway.json("/topics/open/1")["messages"], what="the message")
    assert gateway.metrics()['gateway_upstream_filters{granted="no"}'] == 1


async def test_a_message_that_the_broker_closes_over_twice_is_refused_and_others_are_not(
    make_aedes: MakeAedes,
) -> None:
    broker = make_aedes(publish=["closed/"])
    async with linked(broker.url, "open/#") as link:
        for _ in range(2):
            await link.connected()
            with pytest.raises(UpstreamUnavailable):
                await link.upstream.publish("closed/a", b"x", qos=1)
            await link.disconnected()
        await link.connected()
        with pytest.raises(PublishRefused, match="closes the connection over messages to 'closed/a'"):
            await link.upstream.publish("closed/a", b"x", qos=1)
        await link.upstream.publish("open/a", b"y", qos=1)
        assert await link.payloads("open/a", 1) == [b"y"]
        assert link.upstream.state.reconnects == 2


@pytest.mark.slow
@pytest.mark.parametrize("answer", [Answer.PASS, Answer.REFUSE_5])
@pytest.mark.parametrize(
    ("extra", "offered"),
    [
        (("max_qos 0",), Form(0, True)),
        (("retain_available false",), Form(1, False)),
        (("max_qos 0", "retain_available false"), Form(0, False)),
    ],
    ids=["QoS 0", "nothing retained", "both"],
)
async def test_it_comes_down_to_what_the_broker_offers_and_says_so_once(
    make_mosquitto: MakeMosquitto,
    answer: Answer,
    extra: tuple[str, ...],
    offered: Form,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # max_qos is the listener's, whose line is the last one
    broker = make_mosquitto(
        BrokerOptions(extra=tuple(e for e in extra if "qos" not in e), listener=tuple(e for e in extra if "qos" in e))
    )
    with Publisher(broker.url) as reader:
        reader.subscribe(STATUS, qos=0)
        async with (
            Relay(broker.port, answer).running() as relay,
            linked(relay.url, "a/#", status_topic=STATUS) as link,
        ):
            await eventually_async(lambda: link.upstream._stage is Stage.LIVE, 20, "everything was asked")
            await asyncio.to_thread(reader.wait_for, STATUS, b"online")
            assert link.upstream.state.last_error is None
            if answer is Answer.PASS:
                assert link.upstream._terms.status == link.upstream._terms.will == offered
                assert link.upstream.state.reconnects == 0
            said = [record for record in caplog.records if "on 'gateway/status'" in record.getMessage()]
            before = link.upstream.state.reconnects
            relay.cut()
            await eventually_async(
                lambda: link.upstream.state.reconnects > before and link.upstream._stage is Stage.LIVE
            )
            again = [record for record in caplog.records if "on 'gateway/status'" in record.getMessage()]
            assert said
            assert again == said


# what no broker at hand does: a stand-in that answers byte by byte


@asynccontextmanager
async def standing_in(connack: bytes, subscribe: Callable[[bytes, bytes], bytes]) -> AsyncIterator[str]:
    """A listener that answers CONNECT with this and each SUBSCRIBE with what is returned for its id and its filter."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head, size = await reader.readexactly(2)  # every packet here is short
                body = await reader.readexactly(size)
                if head >> 4 == 1:
                    writer.write(connack)
                    if connack[3]:
                        break
                elif head >> 4 == 8:
                    start = 2 + 1 + body[2]
                    answer = subscribe(body[:2], body[start + 2 : -1])
                    writer.write(answer)
                    if not answer or answer[0] == 0xE0:
                        break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_without_wildcard_subscriptions_only_names_are_asked_for() -> None:
    asked: list[bytes] = []

    def subscribe(mid: bytes, topic_filter: bytes) -> bytes:
        asked.append(topic_filter)
        return b"\x90\x04" + mid + b"\x00\x01"

    async with standing_in(b"\x20\x05\x00\x00\x02\x28\x00", subscribe) as url, linked(url, "a/#", "a/b", "c") as link:
        assert link.upstream.state.filters == {
            "a/#": "the broker offers no wildcard subscriptions",
            "a/b": 1,
            "c": 1,
        }
        assert sorted(asked) == [b"a/b", b"c"]


async def test_without_subscription_identifiers_none_is_sent() -> None:
    def subscribe(mid: bytes, topic_filter: bytes) -> bytes:
        return b"\x90\x04" + mid + b"\x00\x01" if topic_filter == b"a" else b"\xe0\x02\xa1\x00"

    # the property 0x29, Subscription Identifier Available, is 0
    async with standing_in(b"\x20\x05\x00\x00\x02\x29\x00", subscribe) as url, linked(url, "a") as link:
        assert link.upstream.state.reconnects == 0


@pytest.mark.parametrize(("code", "attempts"), [(0x87, 2), (0x8F, 2), (0xA2, 2)])
async def test_a_reason_that_names_the_filter_counts_at_once(code: int, attempts: int) -> None:
    connects = 0

    def subscribe(mid: bytes, topic_filter: bytes) -> bytes:
        nonlocal connects
        connects += topic_filter == b"open"
        return b"\x90\x04" + mid + b"\x00\x01" if topic_filter == b"open" else b"\xe0\x02" + bytes([code]) + b"\x00"

    async with standing_in(b"\x20\x03\x00\x00\x00", subscribe) as url, linked(url, "open", "closed") as link:
        assert link.upstream.state.filters["open"] == 1
        assert "the broker ended the connection" in str(link.upstream.state.filters["closed"])
        assert connects == attempts


# the rules alone


CLOSED = Failure("the broker closed the connection", is_closed=True)


def test_a_connection_that_closes_once_at_its_status_proves_nothing() -> None:
    terms = Terms(STATUS)
    seen = [(terms.judge(Stage.STATUS, "", CLOSED), terms.status)]
    terms.said()
    seen += [(terms.judge(Stage.STATUS, "", CLOSED), terms.status) for _ in range(3)]
    assert seen == [
        (Verdict.SUSPECTED, Form(1, True)),
        (Verdict.SUSPECTED, Form(1, True)),
        (Verdict.CONCEDED, Form(0, False)),
        (Verdict.CONCEDED, None),
    ]
    assert terms.will == Form(1, True)


def test_a_broker_that_accepts_by_chance_after_a_close_keeps_the_will() -> None:
    terms = Terms(STATUS)
    assert terms.judge(Stage.CONNECT, "", CLOSED) is Verdict.NOTHING
    wills = [terms.will]
    assert terms.accepted(max_qos=2, retains=True), "once more, with the will"
    wills.append(terms.will)
    assert not terms.accepted(max_qos=2, retains=True)
    assert [*wills, terms.will] == [None, Form(1, True), Form(1, True)]


def test_a_broker_that_is_down_is_asked_with_the_will_every_other_time() -> None:
    terms = Terms(STATUS)
    asked = []
    for _ in range(4):
        asked.append(terms.will)
        terms.judge(Stage.CONNECT, "", CLOSED)
    assert asked == [Form(1, True), None] * 2


def test_what_was_given_up_is_tried_again_after_an_hour() -> None:
    terms = Terms(STATUS)
    terms.begin(0.0)
    terms.judge(Stage.SUBSCRIBE, "a", Failure("no", reason=Reason.NOT_AUTHORIZED))
    terms.may_not_say("no")
    terms.begin(terms_module.RETRY_SECONDS)
    assert (list(terms.refused), terms.status) == (["a"], None)
    terms.begin(terms_module.RETRY_SECONDS + 1)
    assert (list(terms.refused), terms.status) == ([], Form(1, True))


@pytest.mark.parametrize("reason", [Reason.SHUTTING_DOWN, Reason.TAKEN_OVER, Reason.BUSY, Reason.ADMINISTRATIVE])
@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.SUBSCRIBE, Stage.STATUS])
def test_a_reason_of_another_kind_blames_nothing_that_was_asked(stage: Stage, reason: Reason) -> None:
    terms = Terms(STATUS)
    for _ in range(5):
        assert terms.judge(stage, "a", Failure("no", reason=reason)) is Verdict.NOTHING
    assert (terms.refused, terms.status, terms.will) == ({}, Form(1, True), Form(1, True))


def test_messages_are_refused_only_after_two_closes_without_one_that_worked() -> None:
    forbidden = ForbiddenPublishes()
    key, other = ("a", 1, False), ("b", 1, False)
    assert forbidden.closed_over({key, other}, 0.0) is Verdict.SUSPECTED
    forbidden.worked(other)
    assert forbidden.closed_over({key, other}, 1.0) is Verdict.CONCEDED
    assert forbidden.is_refused(key, 2.0)
    assert not forbidden.is_refused(other, 2.0)
    assert not forbidden.is_refused(key, 1.0 + terms_module.REFUSED_SECONDS)
    for number in range(3 * terms_module.MAX_KEYS):
        forbidden.closed_over({(str(number), 0, False)}, 0.0)
    assert len(forbidden._strikes) <= terms_module.MAX_KEYS + 1


def test_after_too_many_messages_a_second_half_as_many_are_published() -> None:
    pace = Pace()
    assert [pace.wait(number / 100) for number in range(100)] == [0] * 100
    pace.was_too_fast(1.0)
    waits = [pace.wait(1.0) for _ in range(100)]
    assert waits[0] == 0
    assert waits[-1] == pytest.approx(99 / 49.5)
    assert pace.wait(2.0 + terms_module.RETRY_SECONDS) == 0
    assert pace.wait(2.0 + terms_module.RETRY_SECONDS) == 0


async def test_a_broker_that_finds_the_rate_too_high_is_published_to_more_slowly() -> None:
    """A stand-in takes at most ten messages a connection at once, and any number that come one by one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head, size = await reader.readexactly(2)
                body = await reader.readexactly(size)
                if head >> 4 == 1:
                    writer.write(b"\x20\x03\x00\x00\x00")
                elif head >> 4 == 8:
                    writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
                elif head >> 4 == 3:
                    times.append(loop.time())
                    if sum(at > times[-1] - 0.2 for at in times) > 10:
                        writer.write(b"\xe0\x02\x96\x00")
                        break
                    topic = int.from_bytes(body[:2], "big")
                    writer.write(b"\x40\x02" + body[2 + topic : 4 + topic])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, linked(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}") as link:

        async def burst() -> list[BaseException]:
            answers = await asyncio.gather(
                *(link.upstream.publish("a", b"x", qos=1) for _ in range(20)), return_exceptions=True
            )
            return [each for each in answers if isinstance(each, BaseException)]

        assert await burst()
        await link.error("Message rate too high")
        await link.connected()
        assert not await burst()
        assert link.upstream.state.reconnects == 1


# each refusal by its cause


CONFIG = UpstreamConfig(username="ann", client_id="gw", status_topic=STATUS)


@pytest.mark.parametrize(
    ("code", "says", "says_not"),
    [
        (0x80, "Unspecified error", "login"),
        (0x81, "does not understand", "login"),
        (0x82, "Protocol error", "login"),
        (0x83, "Implementation specific error", "login"),
        (0x84, "Unsupported protocol version", "login"),
        (0x85, "refused the client id 'gw': Client identifier not valid: set another one", "login"),
        (0x86, "refused the login (user 'ann'): Bad user name or password", "client id"),
        (0x87, "the login, the client id or this address (user 'ann', client id 'gw'): Not authorized", "will"),
        (0x88, "Server unavailable", "login"),
        (0x89, "Server busy", "login"),
        (0x8A, "Banned", "login ("),
        (0x8C, "another login than user name and password", "client id"),
        (0x90, "the last will on 'gateway/status': Topic name invalid", "login"),
        (0x95, "Packet too large", "login"),
        (0x97, "Quota exceeded", "login"),
        (0x99, "the last will on 'gateway/status': Payload format invalid", "login"),
        (0x9A, "the last will on 'gateway/status': Retain not supported", "login"),
        (0x9B, "the last will on 'gateway/status': QoS not supported", "login"),
        (0x9C, "Use another server, and says 'other:1883'", "login"),
        (0x9D, "Server moved, and says 'other:1883'", "login"),
        (0x9F, "Connection rate exceeded", "login"),
        (0xC1, "reason code 0xC1", "login"),
    ],
)
def test_each_reason_to_refuse_a_connection_is_told_by_its_cause(code: int, says: str, says_not: str) -> None:
    said = "other:1883" if code in (0x9C, 0x9D) else None
    failure = connack_failure(code, CONFIG, said=said)
    assert says in str(failure)
    assert says_not not in str(failure)
    assert failure.reason == code


@pytest.mark.parametrize("code", [reason for reason in Reason if reason is not Reason.VERSION])
def test_each_reason_to_end_a_connection_has_a_name(code: Reason) -> None:
    assert "0x" not in str(disconnect_failure(code, CONFIG))


@pytest.mark.parametrize(
    ("code", "says"),
    [(2, "the client id"), (3, "Server unavailable"), (4, "the login ("), (5, "the login, the client id")],
)
async def test_in_mqtt_3_1_1_too(code: int, says: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connect = await reader.read(1000)
        version = connect[connect.index(b"MQTT") + 4]
        writer.write(b"\x20\x03\x00\x84\x00" if version == 5 else b"\x20\x02\x00" + bytes([code]))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, linked(url, wait=False, client_id="gw") as link:
        await link.error(says)


async def test_a_reason_string_of_the_broker_is_shown() -> None:
    connack = b"\x20\x0b\x00\x97\x08\x1f\x00\x05\x66\x75\x6c\x6c\x21"
    async with standing_in(connack, lambda *_: b"") as url, linked(url, wait=False) as link:
        await link.error("Quota exceeded, and says 'full!'")


async def test_a_client_id_that_mosquitto_does_not_let_in_is_not_told_as_a_login_alone(
    make_mosquitto: MakeMosquitto,
) -> None:
    broker = make_mosquitto(BrokerOptions(extra=("clientid_prefixes sensor-",)))
    async with linked(broker.url, wait=False, client_id="gw", status_topic=STATUS) as link:
        await link.error("client id 'gw'")

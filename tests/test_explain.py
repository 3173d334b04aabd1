"""Why somebody sees nothing: each step of the way, near misses, and what is told to whom."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.grants import Grant, Owner, Principal
from gateway.access.policy import Policy
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.core.protocol import CloseCode
from gateway.core.shapes import Format, Shape
from gateway.core.since import Since, SinceKind
from gateway.core.subscribers import Subscriber
from gateway.ops.explain import Explanation, explain_topic
from tests.fakes import FakeLoop, finished

NOW_MS = 1_790_000_000_000
ANYONE = Policy.open().anonymous()


@dataclass
class Upstream:
    connected: bool = True
    filters: Mapping[str, int | str] = field(default_factory=lambda: {"#": 1})


class NoSink:
    """Takes everything and keeps nothing."""

    def write(self, data: bytes) -> None:
        pass

    def buffered(self) -> int:
        return 0

    def close(self, code: CloseCode, reason: str) -> None:
        pass


class World:
    """A hub with some messages in it."""

    def __init__(self, *topics: str) -> None:
        self.now_ms = NOW_MS
        self.loop = loop = FakeLoop()
        self.hub = Hub(
            History(),
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            clock=loop.clock,
            wall_clock_ms=lambda: self.now_ms,
        )
        for topic in topics:
            self.hub.publish(topic, b"1")

    def subscribe(
        self,
        *filters: str,
        shape: Shape | None = None,
        principal: Principal = ANYONE,
        address: str = "127.0.0.1",
        name: str = "f00-1",
    ) -> Subscriber:
        owner = Owner(principal, address)
        subscriber = self.hub.add(NoSink(), shape=shape, label=f"{name} {address}:5", owner=owner)
        self.hub.subscribe(subscriber, list(filters), Since(SinceKind.LAST))
        self.turn()
        return subscriber

    def turn(self) -> None:
        while self.loop.turn():
            pass

    def ask(
        self,
        topic: str,
        principal: Principal = ANYONE,
        upstream: Upstream | None = None,
        address: str = "127.0.0.1",
        upstream_reason: str | None = None,
    ) -> Explanation:
        return finished(
            explain_topic(
                topic,
                Owner(principal, address),
                upstream=upstream or Upstream(),
                upstream_reason=upstream_reason,
                hub=self.hub,
                now_ms=self.now_ms,
                started_ms=NOW_MS - 60_000,
            )
        )


def text_of(answer: Explanation, name: str) -> str:
    return next(step.text for step in answer.steps if step.name == name)


def test_where_all_is_well_every_step_says_so() -> None:
    world = World("sensors/a/state")
    world.subscribe("sensors/+/state")
    world.now_ms += 3_000
    answer = world.ask("sensors/a/state")
    assert answer.failure is None
    assert [step.name for step in answer.steps] == [
        "filter",
        "upstream",
        "subscription",
        "grant",
        "messages",
        "delivery",
    ]
    assert text_of(answer, "messages") == "the newest message came 3.0 s ago, 1 came in all"
    assert "connection f00-1 subscribes to 'sensors/+/state': 1 messages delivered" in text_of(answer, "delivery")
    assert answer.to_json()["ok"] is True
    assert answer.to_json()["answer"] == "every step is in order"


def test_a_filter_that_is_none_is_the_first_to_fail() -> None:
    answer = World().ask("a/#/b")
    assert answer.to_json()["failed"] == "filter"
    assert "'#' must be the last level" in answer.to_json()["answer"]
    assert len(answer.steps) == 1


def test_a_broker_that_is_away_is_named_with_its_reason() -> None:
    answer = World().ask("a", upstream=Upstream(connected=False), upstream_reason="connection refused")
    assert answer.to_json()["answer"] == "the gateway is not connected to the broker: connection refused"


def test_a_filter_that_the_broker_refused_is_named() -> None:
    answer = World().ask("a/b", upstream=Upstream(filters={"a/#": "Not authorized"}))
    assert answer.to_json()["answer"] == "the broker refused 'a/#': Not authorized"


def test_a_topic_that_is_not_relayed_is_named() -> None:
    answer = World().ask("alerts/x", upstream=Upstream(filters={"sensors/#": 1}))
    assert answer.to_json()["failed"] == "subscription"
    assert "relays only 'sensors/#' (GATEWAY_MQTT_TOPICS)" in answer.to_json()["answer"]
    partly = World("sensors/x").ask("#", upstream=Upstream(filters={"sensors/#": 1}))
    assert "of '#' only 'sensors/#'" in text_of(partly, "subscription")


def test_of_what_is_relayed_only_what_the_asker_is_granted_a_part_of_is_named() -> None:
    anna = Principal("anna", (Grant("public/#", "the token"),))
    upstream = Upstream(filters={"public/b": 1, "vault/door/#": 1})
    assert text_of(World().ask("public/a", anna, upstream), "subscription") == (
        "the gateway relays 'public/b' (GATEWAY_MQTT_TOPICS), which is not 'public/a'"
    )
    partly = text_of(World("public/b").ask("public/#", anna, upstream), "subscription")
    assert partly == "the gateway relays 'public/b', so of 'public/#' only 'public/b'"
    nothing = World().ask("public/a", anna, Upstream(filters={"vault/door/#": 1}))
    assert text_of(nothing, "subscription") == "the gateway relays nothing of 'public/a' (GATEWAY_MQTT_TOPICS)"


def test_one_who_is_not_granted_it_learns_that_and_nothing_of_the_topic() -> None:
    world = World("secret/a", "secret/b")
    stranger = Principal("eve", (Grant("public/#", "the token"),))
    upstream = Upstream(connected=False, filters={"secret/#": 1})
    reason = "secret-broker.example refused"
    for asked in ("secret/a", "secret/none", "#", "Secret/a"):
        answer = world.ask(asked, stranger, upstream, upstream_reason=reason)
        assert not answer.near
        told = " ".join(step.text for step in answer.steps)
        assert "secret-broker" not in told
        assert "secret/#" not in told
        assert "not granted to 'eve'" in text_of(answer, "grant")
        assert world.ask("secret/none", stranger).to_json()["failed"] == "grant"


def test_no_message_since_the_start_says_how_long_that_is() -> None:
    answer = World().ask("sensors/+/state")
    assert answer.to_json()["failed"] == "messages"
    assert "no message that matches 'sensors/+/state' has come in the 60 s" in answer.to_json()["answer"]


def test_an_old_message_makes_one_think_of_its_publisher() -> None:
    world = World("a")
    world.now_ms += 3 * 3_600_000
    assert "came 3 h ago" in text_of(world.ask("a"), "messages")
    assert "has its publisher stopped?" in text_of(world.ask("a"), "messages")


def test_the_askers_own_connection_and_shape_are_told() -> None:
    world = World()
    world.hub.publish("a", b'{"x":2}')
    world.subscribe("a", shape=Shape(max_hz=0.5, fields=("x",), deadband=2, where="payload.x > 1"))
    told = text_of(world.ask("a"), "delivery")
    assert "at most 0.5 messages a second" in told
    assert "only the fields x" in told
    assert "payload.x > 1" in told
    assert world.ask("a").failure is None


def test_who_has_no_connection_open_is_told_that_and_it_is_no_failure() -> None:
    answer = World("a").ask("a")
    assert answer.failure is None
    assert "no connection open" in text_of(answer, "delivery")


def test_a_connection_that_is_not_subscribed_to_it_is_the_failure() -> None:
    world = World("a", "b")
    world.subscribe("b")
    answer = world.ask("a").to_json()
    assert (answer["ok"], answer["failed"]) == (False, "delivery")
    assert "1 connection open, and none subscribes to 'a' (f00-1 subscribes to 'b')" in answer["answer"]
    assert "send the command subscribe" in answer["answer"]
    # a second one that does is all it needs
    world.subscribe("a", name="f00-2")
    assert world.ask("a").failure is None


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Shape(where="payload.x > 100"), "or with a `where` that holds for them"),
        (Shape(fields=("y",)), "ask for fields that are there"),
    ],
)
def test_a_shape_that_lets_nothing_through_is_the_failure(shape: Shape, said: str) -> None:
    world = World()
    world.subscribe("#", shape=shape)
    for number in range(30):
        world.hub.publish("a", b'{"x":%d}' % number)
    world.hub.publish("b", b'{"x":200,"y":1}')  # what it lets through of another topic says nothing of this one
    world.turn()
    answer = world.ask("a").to_json()
    assert (answer["ok"], answer["failed"]) == (False, "delivery")
    assert "none of the newest 20 messages to 'a' is let through" in answer["answer"]
    assert said in answer["answer"]
    assert world.ask("b").failure is None


def test_a_stream_whose_field_is_in_no_message_is_the_failure() -> None:
    world = World()
    world.subscribe("a", shape=Shape(format=Format.STREAM, field="temperature"))
    world.hub.publish("a", b'{"humidity":44}')
    world.turn()
    answer = world.ask("a").to_json()
    assert answer["failed"] == "delivery"
    assert "everything was left out by what it asked for" in answer["answer"]


def test_losses_are_the_failure() -> None:
    world = World("a")
    subscriber = world.subscribe("a")
    assert world.ask("a").failure is None
    subscriber.lost += 7
    answer = world.ask("a").to_json()
    assert (answer["ok"], answer["failed"]) == (False, "delivery")
    assert "7 lost" in answer["answer"]
    assert "make history larger" in answer["answer"]


def test_a_socket_that_takes_no_more_is_the_failure() -> None:
    world = World("a")
    subscriber = world.subscribe("a")
    world.hub.pause(subscriber)
    answer = world.ask("a").to_json()
    assert (answer["ok"], answer["failed"]) == (False, "delivery")
    assert "its socket takes no more (0 bytes wait)" in answer["answer"]
    world.hub.resume(subscriber)
    world.turn()
    assert world.ask("a").failure is None


def test_of_several_connections_the_one_in_trouble_is_named() -> None:
    world = World("a")
    world.subscribe("a", name="f00-1")
    world.subscribe("#", name="f00-2").lost = 1
    world.subscribe("b", name="f00-3")
    answer = world.ask("a").to_json()["answer"]
    assert "your connection f00-2" in answer
    assert "one of your 2 connections" in answer


EVERYTHING = (Grant("#", "the token"),)
LONG = "https://idp.example.com/realms/a-very-long-tenant-name/users/0000"


@pytest.mark.parametrize(
    ("theirs", "mine", "address"),
    [
        (Principal(f"{LONG}alice", EVERYTHING), Principal(f"{LONG}bob", EVERYTHING), "127.0.0.1"),
        (Principal(None, EVERYTHING), ANYONE, "127.0.0.1"),
        (ANYONE, Principal(None, EVERYTHING), "127.0.0.1"),
        (Principal(None, EVERYTHING), Principal(None, (Grant("a", "the token"),)), "127.0.0.1"),
        (Principal("alice", EVERYTHING), ANYONE, "127.0.0.1"),
        (Principal("alice", EVERYTHING), Principal(None, EVERYTHING), "127.0.0.1"),
        (ANYONE, ANYONE, "127.0.0.2"),
        (Principal(None, EVERYTHING), Principal(None, EVERYTHING), "127.0.0.2"),
    ],
)
def test_connections_of_others_are_not_told(theirs: Principal, mine: Principal, address: str) -> None:
    world = World("a")
    world.subscribe("a", shape=Shape(where="payload == 42"), principal=theirs)
    answer = world.ask("a", mine, address=address)
    assert "no connection open" in text_of(answer, "delivery")
    assert "f00-1" not in str(answer.to_json())
    assert "42" not in str(answer.to_json())


@pytest.mark.parametrize("principal", [ANYONE, Principal(None, EVERYTHING), Principal(f"{LONG}alice", EVERYTHING)])
def test_ones_own_connections_are_told(principal: Principal) -> None:
    world = World("a")
    world.subscribe("a", principal=principal)
    assert "connection f00-1" in text_of(world.ask("a", principal), "delivery")


def test_the_same_subject_is_the_same_whatever_its_token_and_address() -> None:
    world = World("a")
    world.subscribe("a", principal=Principal("alice", EVERYTHING, expires_at=1))
    renewed = Principal("alice", (Grant("a", "the token"),), expires_at=2)
    assert "connection f00-1" in text_of(world.ask("a", renewed, address="::1"), "delivery")


@pytest.mark.parametrize(
    ("asked", "there", "why"),
    [
        ("sensors/A/state", "sensors/a/state", "upper and lower case differ"),
        ("Sensors/+/state", "sensors/a/state", "upper and lower case differ"),
        ("/sensors/a", "sensors/a", "no leading slash"),
        ("sensors/a", "/sensors/a", "a leading slash"),
        ("sensors/a/", "sensors/a", "no trailing slash"),
        ("sensors/a", "sensors/a/", "a trailing slash"),
        ("sensors/a", "sensors/a/state", "a level deeper"),
        ("sensors/a/state/x", "sensors/a/state", "a level shorter"),
        ("sensor/a/state", "sensors/a/state", "level 1 is spelt nearly like 'sensor'"),
        ("sensors/+/stat", "sensors/a/state", "level 3 is spelt nearly like 'stat'"),
        ("a/state", "sensors/a/state", "a level more in front"),
        ("home/sensors/a", "sensors/a", "a level less in front"),
        ("sensors/a ", "sensors/a", "a space before or after"),
        (" a", "a", "a space before or after"),
    ],
)
def test_what_was_probably_meant_is_offered(asked: str, there: str, why: str) -> None:
    world = World(there, "other/b/c")
    answer = world.ask(asked)
    found = {near.topic: near.why for near in answer.near}
    assert why in found[there]


def test_only_what_the_asker_may_read_is_offered() -> None:
    world = World("sensors/a", "Sensors/A", "sensors/a/b")
    principal = Principal("alice", (Grant("sensors/A", "the token"), Grant("sensors/a/b", "the token")))
    answer = world.ask("sensors/A", principal)
    assert answer.to_json()["failed"] == "messages"
    assert {near.topic for near in answer.near} <= {"sensors/a/b"}


def test_what_is_spelt_alike_is_offered_first() -> None:
    last = ("meta", "cmd", "air", "co2", "light", "noise", "status", "state")
    world = World(*(f"sensors/living-climate/{level}" for level in last), "sensors/living-climate")
    assert [near.topic for near in world.ask("sensors/living-climate/stat").near[:2]] == [
        "sensors/living-climate/state",
        "sensors/living-climate/status",
    ]
    world = World("sensors/kitchen-climate/state", "sensors/living-climat/state", "sensors/living-climate/stat")
    near = [near.topic for near in world.ask("sensors/living-climate/state").near]
    assert near == ["sensors/living-climat/state", "sensors/living-climate/stat", "sensors/kitchen-climate/state"]


def test_long_names_are_not_compared_letter_by_letter() -> None:
    world = World("a/" + "x" * 60_000)
    [near] = world.ask("a/" + "x" * 59_999 + "y").near
    assert "differs from" in near.why


def test_there_are_a_few_offers_and_not_all() -> None:
    assert len(World(*(f"sensors/{n}/state" for n in range(50))).ask("sensors/x/state").near) == 5


@given(
    st.text(max_size=20),
    st.lists(st.text(min_size=1, max_size=6).filter(lambda t: not set(t) & set("+#\0")), max_size=4),
)
def test_every_question_gets_an_answer(asked: str, topics: list[str]) -> None:
    world = World(*(topic for topic in topics if topic.encode("utf-8", "ignore").decode() == topic))
    assert world.ask(asked).to_json()["steps"]


def test_messages_may_come_while_the_work_rests() -> None:
    world = World(*(f"sensors/{n}" for n in range(200)))
    work = explain_topic(
        "+/x/y",
        Owner(ANYONE, None),
        upstream=Upstream(),
        upstream_reason=None,
        hub=world.hub,
        now_ms=NOW_MS,
        started_ms=NOW_MS,
    )

    def interrupted() -> Generator[None, None, Explanation]:
        for number in range(200 // 16):
            next(work)
            world.hub.publish(f"new/{number}", b"1")
            world.subscribe("a")
            yield
        return (yield from work)

    assert finished(interrupted()).to_json()["failed"] == "messages"


def test_a_question_costs_one_pass_however_many_wildcards_it_has() -> None:
    """Turns of work are counted, not seconds: one for each AT_ONCE topics, for the message and for near misses."""
    world = World(*(f"sensors/{n}/state" for n in range(2_000)))
    work = explain_topic(
        "sensors/" + "+/" * 126 + "x",
        Owner(ANYONE, None),
        upstream=Upstream(),
        upstream_reason=None,
        hub=world.hub,
        now_ms=NOW_MS,
        started_ms=NOW_MS,
    )
    assert sum(1 for _ in work) <= 2 * (2_000 // 16 + 1)

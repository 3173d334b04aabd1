from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.alerts.alerts import MAX_LISTED, Alerts, Notice, encode_report
from gateway.alerts.machine import SPARE_DATES, Change, Machine, State
from gateway.alerts.rules import Rule, rules_of
from gateway.alerts.runner import Discovery
from gateway.alerts.trial import Trial
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.core.messages import Message
from gateway.core.onlookers import Onlooker
from gateway.core.templates import Template, TemplateError
from gateway.devices.registry import Registry
from gateway.settings.alerting import AlertSettings
from tests.fakes import FakeLoop, finished

OK, PENDING, FIRING = State.OK, State.PENDING, State.FIRING


def verdict(holds: bool | None) -> Any:
    return lambda _state: holds


# the machine


TOPICS = st.sampled_from(["a", "b", "c"])
STEPS = st.integers(0, 7)
HOLD = 10
SILENCE = 10


def expected_where(events: list[tuple[int, bool | None]], now: int) -> tuple[State, int | None]:
    """The state that messages of one topic lead to: since when does the condition hold without a break?"""
    since = None
    for time, holds in events:
        if holds and since is None:
            since = time
        elif holds is False:
            since = None
    if since is None:
        return OK, None
    return (FIRING if now - since >= HOLD else PENDING), since


class Conditions(RuleBasedStateMachine):
    """A condition that has to hold for some time, against a look at all messages."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000
        self.changes: list[Change] = []
        self.machine = Machine(hold_ms=HOLD, on_change=self.changes.append)
        self.events: dict[str, list[tuple[int, bool | None]]] = {}

    @rule(topic=TOPICS, step=STEPS, holds=st.sampled_from([True, False, None]))
    def message(self, topic: str, step: int, holds: bool | None) -> None:
        self.now += step
        self.events.setdefault(topic, []).append((self.now, holds))
        self.machine.hear(topic, self.now, verdict(holds))

    @rule(step=st.integers(0, 30))
    def wait(self, step: int) -> None:
        self.now += step

    @rule()
    def restart(self) -> None:
        """What is written down of it is enough to go on."""
        self.machine.tick(self.now)
        again = Machine(hold_ms=HOLD, on_change=self.changes.append)
        for topic, entry in self.machine.entries():
            again.restore(topic, entry.state, entry.since, entry.value)
        self.machine = again

    @invariant()
    def is_as_expected(self) -> None:
        self.machine.tick(self.now)
        for topic, events in self.events.items():
            state, since = expected_where(events, self.now)
            entry = self.machine.entry(topic)
            assert (OK if entry is None else entry.state) is state
            assert entry is None or entry.since == since

    @invariant()
    def counts_are_those_of_the_topics(self) -> None:
        states = [entry.state for _, entry in self.machine.entries()]
        assert self.machine.counts == {state: states.count(state) for state in State}
        assert len(self.machine._queue) <= 2 * len(states) + SPARE_DATES + 1

    @invariant()
    def changes_follow_each_other(self) -> None:
        last: dict[str, State] = {}
        for change in self.changes:
            assert last.get(change.topic, OK) is change.before
            assert change.after is not change.before
            last[change.topic] = change.after


class Silences(RuleBasedStateMachine):
    """Silence, against the time of the last message."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000
        self.machine = Machine(silent_ms=SILENCE)
        self.due: dict[str, int] = {}
        self.heard: dict[str, int] = {}
        self.fired: set[str] = set()

    def note(self) -> None:
        self.fired |= {topic for topic, due in self.due.items() if due <= self.now}

    @rule(topic=TOPICS, step=STEPS)
    def message(self, topic: str, step: int) -> None:
        self.now += step
        self.note()
        self.fired.discard(topic)
        self.heard[topic], self.due[topic] = self.now, self.now + SILENCE
        self.machine.hear_from(topic, self.now)

    @rule(topic=TOPICS)
    def gone(self, topic: str) -> None:
        self.due.pop(topic, None)
        self.fired.discard(topic)
        self.machine.forget(topic, self.now)

    @rule(step=st.integers(0, 30))
    def wait(self, step: int) -> None:
        self.now += step

    @rule(step=st.integers(1, 30))
    def outage(self, step: int) -> None:
        """The broker is away: the clock goes on, and nothing can be heard."""
        self.machine.tick(self.now)
        self.note()
        before = self.now
        self.now += step
        for topic in self.due.keys() - self.fired:
            self.due[topic] += step
        self.machine.postpone(step, before)

    @invariant()
    def is_as_expected(self) -> None:
        self.machine.tick(self.now)
        self.note()
        states = {topic: (entry.state, entry.since) for topic, entry in self.machine.entries()}
        assert states == {topic: (FIRING if topic in self.fired else OK, self.heard[topic]) for topic in self.due}


TestConditions = Conditions.TestCase
TestSilences = Silences.TestCase
TestConditions.settings = TestSilences.settings = hypothesis_settings(max_examples=30, stateful_step_count=30)


def test_a_condition_that_held_long_enough_fired_even_if_a_message_says_that_it_is_over() -> None:
    changes: list[Change] = []
    machine = Machine(hold_ms=300, on_change=changes.append)
    machine.hear("a", 1000, verdict(True), lambda: 31)
    machine.hear("a", 1400, verdict(False))
    assert [(c.before, c.after, c.time, c.since) for c in changes] == [
        (OK, PENDING, 1000, 1000),
        (PENDING, FIRING, 1300, 1000),
        (FIRING, OK, 1400, 1400),
    ]
    assert changes[1].value == 31


def test_topics_beyond_the_bound_are_counted_and_others_go_on() -> None:
    machine = Machine(max_topics=2)
    for topic in "abcc":
        machine.hear(topic, 1, verdict(True))
    assert (machine.left_out, machine.counts[FIRING]) == (2, 2)
    machine.hear("a", 2, verdict(False))
    machine.hear("c", 3, verdict(True))
    assert machine.entry("c") is not None


def test_topics_that_are_ok_take_no_room_where_a_condition_is_watched() -> None:
    machine = Machine(hold_ms=100)
    for number in range(10_000):
        machine.hear(f"t/{number}", number, verdict(True))
        machine.hear(f"t/{number}", number, verdict(False))
    assert not list(machine.entries())
    assert len(machine._queue) <= SPARE_DATES + 1


# rules


def rule_of(**settings: Any) -> AlertSettings:
    return AlertSettings.model_validate({"name": "hot", "topics": ["s/+"], **settings})


class World:
    """Alerts on a hub with a loop and a clock of their own."""

    def __init__(
        self, *alerts: AlertSettings, history: History | None = None, settled: bool = True, is_shared: bool = False
    ) -> None:
        self.loop = FakeLoop()
        self.loop.now = 1_000_000.0 if history is None else max(t.last.time for t in history.topics() if t.last) / 1000
        self.history = history or History()
        self.hub = Hub(
            self.history,
            call_soon=self.loop.call_soon,
            call_later=self.loop.call_later,
            clock=self.loop.clock,
            wall_clock_ms=self.loop.wall_clock_ms,
            cost_clock=lambda: 0.0,
        )
        self.notices: list[Notice] = []
        self.registry = Registry(self.history)
        self.alerts = Alerts(
            rules_of(alerts),
            history=self.history,
            prefix="gateway/alerts",
            wall_clock_ms=self.loop.wall_clock_ms,
            clock=self.loop.clock,
            registry=self.registry,
            is_shared=is_shared,
        )
        self.alerts.on_notice = self.notices.append
        for _ in self.alerts.begin():
            pass
        self.alerts.watch(self.hub)
        self.alerts.tick(True)
        if settled:
            self.alerts.settle()

    def say(self, topic: str, payload: object, **members: Any) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.hub.publish(topic, data, **members)

    def wait(self, seconds: float, connected: bool = True) -> None:
        """So long nothing comes, with a look at the clock each second."""
        end = self.loop.now + seconds
        while self.loop.now < end:
            self.loop.now = min(self.loop.now + 1, end)
            self.loop.run()
            for _ in self.registry.work():
                pass
            for _ in self.registry.silences(self.loop.wall_clock_ms()):
                pass
            self.alerts.tick(connected)

    def report(self, name: str = "hot") -> dict[str, Any]:
        return self.alerts.report(self.alerts.alerts[name])

    def states(self, name: str = "hot") -> dict[str, str]:
        return {item["topic"]: item["state"] for item in self.report(name)["topics"]}

    def publish_reports(self) -> None:
        """As the runner does."""
        for alert in self.alerts.alerts.values():
            self.say(self.alerts.topic_of(alert), encode_report(self.alerts.report(alert)), retained=True)


def test_a_condition_fires_when_it_has_held_and_ends_when_it_no_longer_holds() -> None:
    world = World(rule_of(where="payload.t > 30", **{"for": "5m"}, summary="{topic[1]} has {payload.t} °C"))
    world.say("s/a", {"t": 31})
    world.say("s/b", {"t": 29})
    assert world.states() == {"s/a": "pending"}
    world.wait(299)
    assert world.report()["state"] == "pending"
    world.say("s/a", {"t": 32.5})
    world.wait(1)
    report = world.report()
    assert (report["state"], report["since"], report["value"]) == ("firing", 1_000_000_000, 32.5)
    assert report["summary"] == "a has 32.5 °C"
    assert "reason" not in report, "its words are its own"
    world.say("s/a", {"t": 30})
    assert (world.report()["state"], world.report()["since"]) == ("ok", 1_000_300_000)
    assert [(n.change.after, n.summary) for n in world.notices] == [(FIRING, "a has 32.5 °C"), (OK, "a has 30 °C")]


def test_with_until_it_fires_on_between_the_two() -> None:
    world = World(rule_of(where="t > 30", until="t < 28"))
    for number, state in ((29, "ok"), (31, "firing"), (29, "firing"), (28, "firing"), (27.9, "ok"), (29, "ok")):
        world.say("s/a", {"t": number})
        assert world.report()["state"] == state, number


def test_while_pending_what_is_between_the_two_begins_the_time_anew() -> None:
    world = World(rule_of(where="t > 30", until="t < 28", **{"for": "10s"}))
    world.say("s/a", {"t": 31})
    world.wait(9)
    world.say("s/a", {"t": 29})
    world.wait(9)
    assert world.states() == {}


def test_a_message_that_says_nothing_of_the_condition_changes_nothing() -> None:
    world = World(rule_of(where="t > 30"))
    world.say("s/a", {"t": 31})
    others: list[object] = [{"battery": 3}, {"t": "hot"}, [], b"\xff", {"t": None}]
    for payload in others:
        world.say("s/a", payload)
        assert world.states() == {"s/a": "firing"}, payload


def test_a_topic_that_is_cleared_is_forgotten() -> None:
    world = World(rule_of(where="t > 30"), rule_of(name="quiet", silent="10s"))
    world.say("s/a", {"t": 31}, retained=True)
    world.wait(11)
    assert (world.states(), world.states("quiet")) == ({"s/a": "firing"}, {"s/a": "firing"})
    world.say("s/a", b"")
    assert (world.states(), world.states("quiet")) == ({}, {})


def test_silence_fires_and_ends_with_the_next_message_which_may_be_empty() -> None:
    world = World(rule_of(silent="10m"))
    world.say("s/a", 1)
    world.wait(300)
    world.say("s/b", 1)
    world.wait(300)
    assert world.states() == {"s/a": "firing"}
    assert world.report()["since"] == 1_000_000_000
    report = world.report()
    assert (report["summary"], report["reason"], report["silent"]) == ("s/a: silent for 10m", "silent", "10m")
    world.say("s/a", b"")
    assert world.states() == {}


def test_a_topic_that_is_named_and_never_came_is_silent_too() -> None:
    world = World(rule_of(silent="10m", topics=["s/a", "s/+"]))
    world.wait(601)
    assert world.states() == {"s/a": "firing"}


def test_while_the_broker_is_away_nobody_is_silent() -> None:
    world = World(rule_of(silent="10s"))
    world.say("s/a", 1)
    world.wait(5)
    world.wait(60, connected=False)
    world.wait(4)
    assert world.states() == {}
    world.wait(3)
    assert world.states() == {"s/a": "firing"}


def test_a_clock_that_is_set_forward_makes_nothing_silent_and_nothing_fire() -> None:
    world = World(rule_of(where="t > 30", **{"for": "60s"}), rule_of(name="quiet", silent="10s"))
    world.say("s/a", {"t": 31})
    world.wait(2)
    step = 0
    world.alerts._wall_clock_ms = lambda: world.loop.wall_clock_ms() + step
    step = 3_600_000
    world.alerts.tick(True)
    assert (world.states(), world.states("quiet")) == ({"s/a": "pending"}, {})
    world.wait(9)
    assert (world.states(), world.states("quiet")) == ({"s/a": "pending"}, {"s/a": "firing"})


def test_what_was_put_off_is_looked_at_before_the_clock_goes_on() -> None:
    world = World(rule_of(where="t > 30", **{"for": "5s"}))
    world.say("s/a", {"t": 31})
    world.hub._shaping.is_full = True
    world.say("s/a", {"t": 20})
    world.loop.now += 6
    world.alerts.tick(True)
    assert world.states() == {"s/a": "pending"}
    world.loop.run()
    assert world.states() == {}
    assert not world.notices


def test_what_history_let_go_before_it_was_looked_at_is_counted() -> None:
    world = World(rule_of(where="t > 30"))
    world.history.max_messages = 1
    world.hub._shaping.is_full = True
    for number in (31, 20, 32):
        world.say("s/a", {"t": number})
    world.loop.run()
    alert = world.alerts.alerts["hot"]
    assert alert.missed == 3
    world.say("s/a", {"t": 33})
    assert world.states() == {"s/a": "firing"}


def test_alerts_do_not_watch_themselves() -> None:
    world = World(rule_of(silent="10s", topics=["#"]))
    world.publish_reports()
    world.wait(20)
    assert world.states() == {}


def test_clearing_the_topic_of_an_alert_begins_it_anew() -> None:
    world = World(rule_of(silent="10s"))
    world.say("s/a", 1)
    world.wait(11)
    world.say("gateway/alerts/hot", b"")
    assert world.states() == {}
    world.wait(60)
    assert world.states() == {}


# restarts


def stopped(world: World) -> History:
    """What another gateway finds: the retained messages, new to it."""
    history = History()
    for topic in world.history.topics():
        if topic.last is not None and topic.last.retained:
            history.append(topic.name, topic.last.payload, topic.last.time, retained=True)
    return history


def test_since_when_it_fires_survives_a_restart_and_nobody_is_told_twice() -> None:
    rule = rule_of(where="t > 30", **{"for": "60s"})
    first = World(rule)
    first.say("s/a", {"t": 31})
    first.say("s/b", {"t": 31})
    first.wait(30)
    first.say("s/c", {"t": 33})
    first.wait(31)
    first.say("s/b", {"t": 20})
    first.publish_reports()
    second = World(rule, history=stopped(first), settled=False)
    second.say("s/c", {"t": 34})
    second.wait(10)
    assert not second.notices
    second.alerts.settle()
    assert second.states() == {"s/a": "firing", "s/c": "pending"}
    assert [item["since"] for item in second.report()["topics"]] == [1_000_000_000, 1_000_030_000]
    assert not second.notices
    second.wait(21)
    assert [(n.change.topic, n.change.after) for n in second.notices] == [("s/c", FIRING)]


class Nodes:
    """Two nodes of a cluster, of which the first leads."""

    def __init__(self, *rules: AlertSettings) -> None:
        self.worlds = [World(*rules, settled=False, is_shared=True) for _ in range(2)]
        self.leader, self.follower = self.worlds
        self.leader.alerts.settle()

    def say(self, topic: str, payload: object, **members: Any) -> None:
        for world in self.worlds:
            world.say(topic, payload, **members)

    def wait(self, seconds: float) -> None:
        for world in self.worlds:
            world.wait(seconds)

    def publish_reports(self) -> None:
        for alert in self.leader.alerts.alerts.values():
            report = encode_report(self.leader.alerts.report(alert))
            self.say(self.leader.alerts.topic_of(alert), report, retained=True)

    def fail_over(self) -> None:
        self.leader, self.follower = self.follower, self.leader
        self.follower.alerts.unsettle()
        self.leader.alerts.settle()

    def told(self) -> list[tuple[str, State]]:
        return [(n.change.topic, n.change.after) for world in self.worlds for n in world.notices]


def test_all_nodes_of_a_cluster_judge_the_same_and_the_leader_tells() -> None:
    nodes = Nodes(rule_of(where="t > 30"), rule_of(name="quiet", silent="60s"))
    nodes.say("s/a", {"t": 31}, retained=True)
    nodes.wait(30)
    nodes.say("s/a", {"t": 32}, retained=True)
    nodes.wait(40)
    for world in nodes.worlds:
        assert world.states() == {"s/a": "firing"}
        assert world.states("quiet") == {}
    nodes.publish_reports()
    nodes.say("gateway/alerts/hot", b"")
    assert [world.states() for world in nodes.worlds] == [{}, {}]
    assert not nodes.follower.notices
    assert nodes.told() == [("s/a", FIRING), ("s/a", OK)]


def test_a_successor_tells_what_the_leader_did_not_and_nothing_twice() -> None:
    nodes = Nodes(rule_of(where="t > 30"))
    nodes.say("s/a", {"t": 31})
    nodes.say("s/b", {"t": 31})
    nodes.publish_reports()
    nodes.leader.alerts.unsettle()  # it is dead, and nobody leads
    nodes.say("s/b", {"t": 20})
    nodes.say("s/c", {"t": 40})
    nodes.fail_over()
    assert sorted(nodes.told()) == [("s/a", FIRING), ("s/b", FIRING), ("s/b", OK), ("s/c", FIRING)]
    assert [alert.is_due for alert in nodes.leader.alerts.alerts.values()] == [True]
    nodes.publish_reports()
    nodes.fail_over()
    assert len(nodes.told()) == 4
    assert [alert.is_due for alert in nodes.leader.alerts.alerts.values()] == [False]
    assert [world.states() for world in nodes.worlds] == [{"s/a": "firing", "s/c": "firing"}] * 2


def test_a_node_that_starts_later_takes_up_what_the_leader_has_told() -> None:
    rule = rule_of(where="t > 30", until="t < 28")
    first = World(rule)
    first.say("s/a", {"t": 31})
    first.say("s/a", {"t": 29})
    first.publish_reports()
    late = World(rule, settled=False, is_shared=True)
    for topic in first.history.topics():
        assert topic.last is not None
        late.history.append(topic.name, topic.last.payload, topic.last.time, retained=topic.last.retained)
    for _ in late.alerts.begin():
        pass
    late.alerts.take_up()
    assert late.states() == {"s/a": "firing"}
    late.alerts.settle()
    assert not late.notices


def test_what_ended_while_the_gateway_was_away_is_told_after_the_restart() -> None:
    rule = rule_of(where="t > 30")
    first = World(rule)
    first.say("s/a", {"t": 31})
    first.publish_reports()
    second = World(rule, history=stopped(first), settled=False)
    second.say("s/a", {"t": 20})
    second.say("s/b", {"t": 40})
    second.alerts.settle()
    assert second.states() == {"s/b": "firing"}
    assert {(n.change.topic, n.change.after) for n in second.notices} == {("s/a", OK), ("s/b", FIRING)}
    assert second.alerts.alerts["hot"].is_due


def test_with_an_archive_silence_goes_on_without_the_time_that_the_gateway_was_away() -> None:
    history = History()
    history.append("s/a", b"1", 1_000_000)
    history.append("s/b", b"1", 1_005_000)
    world = World(rule_of(silent="10s"), history=history, settled=False)
    world.loop.now += 3600
    world = World(rule_of(silent="10s"), history=history, settled=False)
    world.alerts.settle()
    assert world.states() == {}
    world.wait(6)
    assert world.states() == {"s/a": "firing"}
    assert world.report()["since"] == 1_000_000


def test_a_silence_that_was_told_goes_on_whatever_the_broker_kept() -> None:
    rule = rule_of(silent="10s")
    first = World(rule)
    first.say("s/a", 1, retained=True)
    first.wait(11)
    first.publish_reports()
    second = World(rule, history=stopped(first), settled=False)
    second.say("s/a", 1, retained=True)
    second.alerts.settle()
    assert second.states() == {"s/a": "firing"}
    assert not second.notices
    second.say("s/a", 2, retained=True)
    assert second.states() == {}


@pytest.mark.parametrize(
    "payload",
    [
        b"firing",
        b'{"topics": 3}',
        b'{"topics":[{"topic":"s/a","state":"x"}]}',
        b"[[[",
        b'{"topics":[{"topic":"\xff"}]}',
    ],
)
def test_a_report_that_is_none_is_passed_over(payload: bytes) -> None:
    history = History()
    history.append("gateway/alerts/hot", payload, 1_000_000, retained=True)
    world = World(rule_of(where="t > 30"), history=history)
    assert world.states() == {}


def test_a_report_names_a_thousand_topics_at_most_and_counts_all() -> None:
    world = World(rule_of(where="t > 30"))
    for number in range(MAX_LISTED + 5):
        world.say(f"s/{number}", {"t": 31})
        world.loop.run()
    report = world.report()
    assert (report["firing"], len(report["topics"])) == (MAX_LISTED + 5, MAX_LISTED)
    assert report["summary"].endswith(f" and {MAX_LISTED + 4} more")


def test_a_report_for_somebody_is_of_the_topics_that_he_may_read() -> None:
    world = World(rule_of(where="t > 30"))
    world.say("s/a", {"t": 31})
    alert = world.alerts.alerts["hot"]
    report = finished(world.alerts.report_in_steps(alert, lambda topic: topic == "s/b"))
    assert (report["state"], report["since"], report["firing"], report["topics"]) == ("ok", None, 0, [])
    assert "s/a" not in json.dumps(report)


# what it costs


def test_a_topic_without_an_alert_costs_nothing_and_nothing_is_flushed_for_one_with() -> None:
    world = World(rule_of(where="t > 30"))
    assert world.hub._trie.match("other/a") == ()
    flushes = world.hub.counters.flushes
    world.say("s/a", {"t": 1})
    world.loop.run()
    assert world.hub.counters.flushes == flushes
    [group] = world.hub._trie.match("s/a")
    assert isinstance(group.shaper, Onlooker)


def test_a_payload_is_read_once_for_all_alerts_and_viewers() -> None:
    world = World(rule_of(where="t > 30"), rule_of(name="cold", where="t < 5"))
    shaper = world.hub._trie.match("s/a")[0].shaper
    assert shaper is not None
    for group in world.hub._trie.match("s/a"):
        assert group.shaper is not None
        assert group.shaper._readings is shaper._readings is world.hub._shaping.readings


# templates


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{topic} {topic[1]} {topic[7]}", "s/a/state a ?"),
        ("{payload.o.t} {payload.l[1]} {payload.none}", "21.5 2 ?"),
        ("{{{value}}}", "{7}"),
        ("{payload.s}", "line two"),
        ("{payload.b} {payload.o}", 'true {"t":21.5}'),
    ],
)
def test_a_template_is_filled(text: str, shown: str) -> None:
    payload = {"o": {"t": 21.5}, "l": [1, 2], "s": "line\ntwo", "b": True}
    assert Template(text, ["value"]).fill("s/a/state", payload, {"value": 7}) == shown


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("{tpoic}", "did you mean {topic}"),
        ("{temperature}", "{payload.temperature}"),
        ("{", "write it twice"),
        ("a } b", "write it twice"),
        ("{}", "there are"),
        ("{payload.}", "{payload.temperature}"),
        ("x" * 1001, "shorter"),
    ],
)
def test_a_template_that_means_nothing_is_refused_with_a_way_out(text: str, way_out: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text, ["value"])
    assert way_out in caught.value.way_out


def test_a_value_from_a_stranger_is_cut() -> None:
    assert len(Template("{payload}", []).fill("a", "x" * 10_000, {})) == 200


def test_home_assistant_is_told_where_the_state_is() -> None:
    topic, payload = Discovery("homeassistant", "gate way", "gateway/status", "1.0").message(
        "hot", "gateway/alerts/hot"
    )
    config = msgspec.json.decode(payload)
    assert topic == "homeassistant/binary_sensor/gate_way_alert_hot/config"
    assert (config["device_class"], config["state_topic"]) == ("problem", "gateway/alerts/hot")
    assert config["availability_topic"] == "gateway/status"


# what it would have done


READINGS = [(0, "s/a", 31), (100, "s/b", 32), (400, "s/a", 32), (500, "s/a", 20), (600, "s/b", 33), (900, "other", 1)]


def past() -> list[Message]:
    return [
        Message.arrived(number, topic, b'{"t":%d}' % value, 1_000_000 + seconds * 1000)
        for number, (seconds, topic, value) in enumerate(READINGS, start=1)
    ]


def tried(since: int, until: int | None, **settings: Any) -> list[tuple[int, str, str, str]]:
    trial = Trial(Rule.of(rule_of(**settings)))
    found = trial.run(past(), since and 1_000_000 + since * 1000, until and 1_000_000 + until * 1000)
    return [(one.change.time // 1000 - 1000, one.change.topic, one.change.after.value, one.summary) for one in found]


def test_a_trial_has_the_changes_that_there_would_have_been() -> None:
    assert tried(0, None, where="t > 30", summary="{payload.t}", **{"for": "5m"}) == [
        (0, "s/a", "pending", "31"),
        (100, "s/b", "pending", "32"),
        (300, "s/a", "firing", "31"),
        (400, "s/b", "firing", "32"),
        (500, "s/a", "ok", "20"),
    ]


def test_a_trial_looks_at_what_came_before_its_time_and_tells_what_came_about_in_it() -> None:
    found = tried(350, None, where="t > 30", summary="{payload.t}", **{"for": "5m"})
    assert found == [(400, "s/b", "firing", "32"), (500, "s/a", "ok", "20")]


def test_a_trial_of_silence_goes_on_up_to_now() -> None:
    found = [(at, topic, state) for at, topic, state, _ in tried(0, 1_300, silent="350s", topics=["s/+", "s/never"])]
    assert found == [
        (350, "s/a", "firing"),
        (350, "s/never", "firing"),
        (400, "s/a", "ok"),
        (450, "s/b", "firing"),
        (600, "s/b", "ok"),
        (850, "s/a", "firing"),
        (950, "s/b", "firing"),
    ]

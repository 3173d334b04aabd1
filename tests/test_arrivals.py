"""Exactly one copy of each message, whatever subscriptions it came by; and what may be a repetition."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.messages import Properties
from gateway.core.topics import covers, disjoint_cover, matches, minimal_cover, overlap
from gateway.upstream.arrivals import Arrivals
from gateway.upstream.packets import encode_varint

levels = st.sampled_from(["a", "b", "+"])
filters = st.builds(
    lambda parts, tail: "/".join([*parts, *tail]), st.lists(levels, max_size=3), st.sampled_from([[], ["#"]])
).filter(bool)
topics = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map("/".join)
ALL_TOPICS = [
    "/".join(parts)
    for parts in [
        [first, *rest]
        for first in "abc"
        for rest in [
            [],
            *([x] for x in "abc"),
            *([x, y] for x in "abc" for y in "abc"),
            ["a", "a", "a"],
            ["b", "b", "b"],
        ]
    ]
]


class Desk:
    """An `Arrivals` with a clock of its own, and everything that it hands on, drops or finds stale."""

    def __init__(self, *wanted: str, version: int = 5, number: int = 1) -> None:
        self.now = 0.0
        self.handed: list[tuple[Any, ...]] = []
        self.dropped: list[str] = []
        self.stale: list[str] = []
        self.arrivals = Arrivals(
            wanted,
            version,
            number=number,
            numbers=itertools.count(10),
            on_message=self.take,
            on_drop=lambda reason, _: self.dropped.append(reason),
            on_stale=self.stale.append,
            clock=lambda: self.now,
        )

    def take(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retained: bool = False,
        properties: Properties | None = None,
        repeat: int = 0,
        /,
    ) -> None:
        self.handed.append((topic, payload, qos, retained, properties, repeat))

    def subscribe(self, offers_identifiers: bool = True) -> dict[str, int]:
        wanted = self.arrivals.subscriptions(offers_identifiers)
        self.arrivals.is_subscribed = True
        return wanted

    def arrive(self, topic: str, payload: bytes, *identifiers: int, retained: bool = False, dup: bool = False) -> None:
        """As `PacketReader` would call it."""
        section = b"".join(b"\x0b" + encode_varint(i) for i in identifiers)
        if not self.arrivals.accepts(topic):
            return
        if retained or section not in self.arrivals.plain_sections:
            self.arrivals.special(topic, payload, 1, retained, section, dup)
        else:
            self.arrivals.plain(topic, payload, 1)


@given(st.lists(filters, min_size=1, max_size=4), topics)
def test_one_copy_is_handed_on_when_the_broker_sends_one_for_each_subscription(wanted: list[str], topic: str) -> None:
    desk = Desk(*wanted)
    for topic_filter, identifier in desk.subscribe().items():
        if matches(topic_filter, topic):
            desk.arrive(topic, b"x", identifier)
    expected = any(matches(f, topic) for f in wanted)
    assert [message[:2] for message in desk.handed] == [(topic, b"x")] * expected


@given(st.lists(filters, min_size=1, max_size=4), topics)
def test_one_copy_is_handed_on_when_it_names_all_subscriptions(wanted: list[str], topic: str) -> None:
    desk = Desk(*wanted)
    identifiers = [i for f, i in desk.subscribe().items() if matches(f, topic)]
    if identifiers:
        desk.arrive(topic, b"x", *identifiers)
        assert len(desk.handed) == 1


@given(st.lists(filters, min_size=1, max_size=4), topics)
def test_without_identifiers_one_subscription_at_most_matches_a_topic_and_none_is_lost(
    wanted: list[str], topic: str
) -> None:
    desk = Desk(*wanted, version=4)
    by = [f for f in desk.subscribe() if matches(f, topic)]
    assert len(by) <= 1
    for _ in by:
        desk.arrive(topic, b"x")
    assert len(desk.handed) == any(matches(f, topic) for f in wanted)
    # a message that came only because its filter was widened is nobody's fault
    assert not desk.stale


@given(filters, filters)
def test_overlap_is_having_a_topic_in_common(a: str, b: str) -> None:
    assert overlap(a, b) == any(matches(a, topic) and matches(b, topic) for topic in ALL_TOPICS)


@given(st.lists(filters, min_size=1, max_size=5))
def test_a_disjoint_cover_covers_and_is_disjoint(wanted: list[str]) -> None:
    cover = disjoint_cover(minimal_cover(wanted))
    assert all(any(covers(wide, narrow) for wide in cover) for narrow in wanted)
    assert not any(overlap(a, b) for number, a in enumerate(cover) for b in cover[number + 1 :])


def test_a_leading_wildcard_and_a_dollar_topic_have_nothing_in_common() -> None:
    assert not overlap("#", "$SYS/#")
    assert not overlap("$SYS/a", "+/a")
    assert overlap("$SYS/#", "$SYS/+/a")


def test_filters_that_do_not_overlap_need_no_look_at_each_message() -> None:
    desk = Desk("a/#", "b/+")
    sections = {b"\x0b" + encode_varint(i) for i in desk.subscribe().values()}
    assert desk.arrivals.plain_sections == sections


def test_a_broker_that_leaves_identifiers_out_is_believed() -> None:
    desk = Desk("a/+", "+/b")
    desk.subscribe()
    desk.arrive("a/b", b"x")
    assert len(desk.handed) == 1


def test_identifiers_are_the_same_for_the_same_filter_in_every_run() -> None:
    assert Desk("a/+", "+/b").subscribe()["+/b"] == Desk("+/b").subscribe()["+/b"]


def test_a_copy_of_an_earlier_configuration_is_dropped_and_reported_once_ours_are_there() -> None:
    earlier = Desk("#").subscribe()["#"]
    desk = Desk("a/#")
    desk.arrive("a/1", b"queued", earlier)
    desk.subscribe()
    desk.arrive("a/1", b"live", earlier)
    assert [message[1] for message in desk.handed] == [b"queued"]
    assert desk.dropped == ["not_wanted"]
    assert desk.stale == ["a/1"]


@pytest.mark.parametrize("version", [4, 5])
def test_a_topic_that_no_filter_matches_is_dropped_and_reported(version: int) -> None:
    desk = Desk("a/#", version=version)
    desk.subscribe()
    desk.arrive("b/1", b"x")
    assert (desk.handed, desk.stale) == ([], ["b/1"])


def test_in_mqtt_5_a_retained_message_may_be_a_repetition_only_for_a_while() -> None:
    desk = Desk("a", number=3)
    identifier = desk.subscribe()["a"]
    desk.arrive("a", b"queued", identifier, retained=True)
    desk.arrive("a", b"not acknowledged", identifier, retained=True, dup=True)
    desk.arrivals.number = 4
    desk.arrivals.repeat_until = 10.0
    desk.now = 9.9
    desk.arrive("a", b"repeated?", identifier, retained=True)
    desk.arrive("a", b"live", identifier)
    desk.now = 10.1
    desk.arrive("a", b"new", identifier, retained=True)
    assert [(m[1], m[3], m[5]) for m in desk.handed] == [
        (b"queued", True, 0),
        (b"not acknowledged", True, 10),
        (b"repeated?", True, 4),
        (b"live", False, 0),
        (b"new", True, 0),
    ]


@pytest.mark.parametrize("version", [4, 5])
def test_what_is_sent_again_after_subscribe_shares_no_number_with_the_repetition(version: int) -> None:
    desk = Desk("a", version=version, number=3)
    identifier = [i for i in desk.subscribe().values() if i]
    desk.arrivals.repeat_until = 10.0
    desk.arrive("a", b"kept", *identifier, retained=True, dup=True)
    desk.arrive("a", b"kept", *identifier, retained=True, dup=True)
    desk.arrive("a", b"kept", *identifier, retained=True)
    assert [message[5] for message in desk.handed] == [10, 11, 3]


def test_in_mqtt_3_1_1_a_retained_message_is_always_a_repetition() -> None:
    desk = Desk("a", version=4, number=2)
    desk.subscribe()
    desk.now = 1e6
    desk.arrive("a", b"x", retained=True)
    assert desk.handed == [("a", b"x", 1, True, None, 2)]


def test_properties_are_handed_on_without_the_identifier() -> None:
    desk = Desk("a")
    identifier = desk.subscribe()["a"]
    section = b"\x0b" + encode_varint(identifier) + b"\x03\x00\x04text" + b"\x26\x00\x01k\x00\x01v"
    desk.arrivals.special("a", b"x", 0, False, section, False)
    assert desk.handed == [("a", b"x", 0, False, {"content_type": "text", "user_properties": [("k", "v")]}, 0)]

"""What is told as retained is what the broker keeps now; what has expired is gone, and its interval counts down."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.messages import Message, Properties
from gateway.core.shaper import Shaper, pick
from gateway.core.shapes import Shape
from gateway.core.snapshots import restore_counts, take_back, topic_states
from gateway.core.walks import describe_topics, reaches
from tests.fakes import count_kept, count_lost, finished

ALL = FilterSet(["#"])


def kept(history: History) -> list[tuple[str, bytes, bool]]:
    """Of everything in the log: topic, payload, and whether it is told as retained; by the object and by its frame."""
    found = history.read(ALL, 0, history.seq, max_bytes=1 << 30).messages
    told = []
    for message in found:
        body = json.loads(message.body)
        assert body.get("retained", False) is message.retained
        assert json.loads(message.token) == body["payload"]
        assert body["seq"] == message.seq
        told.append((message.topic, message.payload, message.retained))
    return told


def with_expiry(seconds: int) -> Properties:
    return {"message_expiry_interval": seconds}


def mqtt_5(**options: Any) -> History:
    history = History(**options)
    history.retained_as_published = True
    return history


def test_only_the_newest_retained_message_is_told_as_retained() -> None:
    history = mqtt_5()
    for payload in (b"1", b'"\xc2\xbd ,\\"retained\\":true"', b"x" * 200):
        history.append("a", payload, 0, retained=True)
    history.append("a", b"live", 0)
    assert [retained for _, _, retained in kept(history)] == [False, False, True, False]


def test_a_message_that_clears_the_topic_is_not_retained_and_nothing_before_it_is() -> None:
    history = mqtt_5()
    history.append("a", b"1", 0, retained=True)
    clearing = history.append("a", b"", 0, retained=True)
    assert clearing is not None
    assert not clearing.retained
    assert kept(history) == [("a", b"1", False), ("a", b"", False)]
    # what clears again is news and not a repetition
    assert history.append("a", b"", 0, retained=True, repeat=7) is not None


def listed(history: History) -> dict[str, tuple[bool, bool]]:
    """Of each topic, as the list of topics has it: whether something is retained, and whether it was cleared."""
    names = [topic.name for topic in history.topics()]
    found = finished(describe_topics(history, names, 1))
    return {each["topic"]: (each["retained"], each.get("cleared", False)) for each in found}


def test_the_list_tells_what_is_retained_and_what_was_cleared() -> None:
    for history in (mqtt_5(), History()):
        for topic in ("cleared", "back"):
            history.append(topic, b"1", 0, retained=True, repeat=1)
            history.append(topic, b"", 0, retained=history.retained_as_published)
        history.append("event", b"", 0)  # nothing was kept of it
        history.append("back", b"2", 0, retained=True)
        history.append("kept", b"1", 0, retained=True)
        assert listed(history) == {
            "cleared": (False, True),
            "event": (False, False),
            "back": (True, False),
            "kept": (True, False),
        }
    # what came after it leaves it retained
    history = mqtt_5()
    history.append("kept", b"1", 0, retained=True)
    history.append("kept", b"2", 0)
    assert listed(history) == {"kept": (True, False)}


def test_what_was_cleared_is_known_after_a_restart() -> None:
    history = mqtt_5()
    for topic in ("cleared", "kept"):
        history.append(topic, b"1", 0, retained=True)
    history.append("cleared", b"", 0, retained=True)
    [states] = [part for part in topic_states(history) if part]
    later = mqtt_5()
    for state in sorted(states, key=lambda each: each.last.seq):
        take_back(later, state.last)
    restore_counts(later, states)
    assert listed(later) == listed(history) == {"cleared": (False, True), "kept": (True, False)}


def test_in_mqtt_3_1_1_nobody_knows_what_is_kept_after_a_message_without_the_flag() -> None:
    history = History()
    history.append("a", b"1", 0, retained=True, repeat=1)
    assert kept(history) == [("a", b"1", True)]
    history.append("a", b"2", 0)
    assert kept(history) == [("a", b"1", False), ("a", b"2", False)]


def test_what_a_new_subscription_does_not_bring_again_the_broker_keeps_no_longer() -> None:
    history = mqtt_5()
    for topic in ("a", "b", "c"):
        history.append(topic, b"1", 0, retained=True, repeat=1)
    history.append("e", b"1", 0, retained=True)
    history.subscription = 2
    history.append("a", b"1", 0, retained=True, repeat=2)
    history.append("b", b"2", 0, retained=True, repeat=2)
    history.append("d", b"1", 0, retained=True)
    for names in history.unkept():
        history.release(names)
    assert kept(history) == [
        ("a", b"1", True), ("b", b"1", False), ("c", b"1", False), ("e", b"1", False), ("b", b"2", True),
        ("d", b"1", True),
    ]  # fmt: skip


def test_the_last_value_goes_when_it_has_expired_and_the_topic_goes_on() -> None:
    history = mqtt_5()
    history.append("a", b"before", 0)
    history.append("a", b"short", 1_000, properties=with_expiry(10), retained=True)
    history.append("b", b"alone", 1_000, properties=with_expiry(10))
    assert not history.expire(10_999)
    assert [m.payload for m in history.read(ALL, 0, 3, last_only=True).messages] == [b"short", b"alone"]
    history.expire(11_000)
    assert kept(history) == [("a", b"before", False)]
    assert history.read(ALL, 0, 3, last_only=True).messages == []
    assert count_kept(history, ALL, 0, 3, last_only=True) == 0
    assert count_kept(history, ALL, 0, 3) == 1
    assert count_lost(history, ALL, 0) == 2
    # what expired is no sign of a history that is too short
    assert finished(reaches(history, ALL, 500))
    history.append("b", b"again", 12_000)
    history.append("a", b"again", 12_000)
    assert [m.payload for m in history.read(ALL, 0, 5, last_only=True).messages] == [b"again", b"again"]


@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.sampled_from([3_000, 8_000, 10**9]))
def test_the_log_stays_in_order_whatever_expires(seed: int, count: int, max_bytes: int) -> None:
    choose = random.Random(seed)
    history = mqtt_5(max_bytes=max_bytes, max_messages=4, max_topics=5)
    everything: list[tuple[Message, int]] = []
    now = 0
    for number in range(count):
        now += choose.choice([0, 500, 3_000])
        history.expire(now)
        seconds = choose.choice([0, 1, 5, 10**6])
        message = history.append(
            choose.choice("abcdefg"), b"%d" % number, now, retained=choose.random() < 0.5,
            properties=with_expiry(seconds) if choose.random() < 0.5 else None,
        )  # fmt: skip
        assert message is not None
        everything.append((message, now + seconds * 1000 if message.properties else 10**12))
        assert history.bytes <= max_bytes
    history.expire(now)
    found = history.read(ALL, 0, history.seq, max_bytes=1 << 30).messages
    gone = {id(message) for message, at in everything if at <= now}
    assert not gone.intersection(map(id, found))
    assert count_kept(history, ALL, 0, history.seq) == len(found) == history.message_count
    lost = count_lost(history, ALL, 0)
    assert lost is None or lost == len(everything) - len(found)
    for state in history.topics():
        assert list(state.evicted) == sorted(state.evicted)
        kept_now = [message for message in state.after(0) if message.retained]
        assert len(kept_now) <= 1
    # nothing is left of the memory of what is gone
    assert len(history._expiring) <= 2 * len(found) + 1_024


def test_messages_that_are_gone_do_not_wait_in_memory_for_their_expiry() -> None:
    history = mqtt_5(max_messages=10)
    for number in range(10_000):
        history.append("a", b"%d" % number, 0, properties=with_expiry(10**6))
    assert len(history._expiring) < 2_000


def test_the_interval_that_is_relayed_counts_down() -> None:
    message = Message.arrived(1, "a", b"1", 10_000, properties=with_expiry(60))
    shape = Shape(properties=True)
    for now, left in ((10_000, 60), (10_999, 60), (11_000, 59), (69_999, 1), (10**9, 0), (0, 60)):
        body = pick(shape, message, now)
        assert body is not None
        assert json.loads(body)["properties"] == {"message_expiry_interval": left}
        shaper = Shaper(shape, wall_clock_ms=lambda now=now: now)  # type: ignore[misc]
        shaper.offer(message)
        (frame,) = shaper.take()
        assert b'"message_expiry_interval":%d}' % left in frame
    assert message.properties == {"message_expiry_interval": 60}

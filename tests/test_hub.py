"""hub: who gets which bytes and when, and that nothing is lost in silence."""

from __future__ import annotations

import gc
import itertools
import json
import tracemalloc
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

import gateway.core.history as history_module
import gateway.core.hub as hub_module
import gateway.core.replays as replays_module
import gateway.core.selection as selection_module
import gateway.core.shaping as shaping_module
from gateway.core.frames import unframe
from gateway.core.hub import Hub
from gateway.core.protocol import CloseCode, ProtocolError
from gateway.core.shapes import Format, Framing, Mode, Shape
from gateway.core.shaping import SHAPING_SECONDS
from gateway.core.since import SINCE_LAST, SINCE_NOW, Since, SinceKind, parse_since
from gateway.core.subscribers import State
from gateway.core.topics import matches
from tests.fakes import FakeLoop, FakeSocket, make_hub


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def position(seq: int) -> Since:
    return Since(SinceKind.POSITION, epoch="k3f9", seq=seq)


def publish(hub: Hub, topic: str, value: object, count: int = 1) -> None:
    for _ in range(count):
        hub.publish(topic, value if isinstance(value, bytes) else json.dumps(value).encode())


# live


def test_members_of_a_group_get_the_same_bytes_in_one_write(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    one, two = FakeSocket(hub), FakeSocket(hub)
    for client in (one, two):
        hub.subscribe(client.subscriber, ["a/+", "b"], SINCE_NOW)
    loop.run()
    publish(hub, "a/1", 1)
    publish(hub, "b", 2)
    publish(hub, "c", 3)
    loop.run()
    assert hub.group_count == 1
    [data] = one.writes
    assert two.writes[0] is data
    assert one.seqs == [1, 2]


@pytest.mark.parametrize("leaving", ["gone", "paused"])
def test_who_joins_in_mid_interval_loses_nothing_when_the_others_leave(loop: FakeLoop, leaving: str) -> None:
    hub = make_hub(loop)
    shape = Shape(max_hz=0.2)
    first, joiner = FakeSocket(hub, shape=shape), FakeSocket(hub, shape=shape)
    hub.subscribe(first.subscriber, ["a/#"], SINCE_LAST)
    loop.run(0.1)
    publish(hub, "a/x", 1)
    loop.run(0.1)
    publish(hub, "a/y", 2)
    hub.subscribe(joiner.subscriber, ["a/#"], SINCE_LAST)
    loop.run(0.1)
    publish(hub, "a/z", 3)
    loop.run(0.1)
    if leaving == "gone":
        hub.remove(first.subscriber)
        other = FakeSocket(hub, shape=shape)
        hub.subscribe(other.subscriber, ["a/#"], SINCE_LAST)
    else:
        hub.pause(first.subscriber)
        hub.resume(first.subscriber)
    loop.run(20)
    assert joiner.seqs == [1, 2, 3]
    assert hub.counts(joiner.subscriber) == (3, 0, 0)


def test_what_intervals_hold_is_bounded_also_where_history_has_let_go_of_it(loop: FakeLoop) -> None:
    groups = 20
    hub = make_hub(loop, max_bytes=2**20, max_shape_bytes=2**20)
    for number in range(groups):
        client = FakeSocket(hub, shape=Shape(max_hz=0.001, where=f"n == {number}"))
        hub.subscribe(client.subscriber, ["a/#"], SINCE_NOW)
    loop.run(1)
    for topic in range(40):
        for number in range(groups):
            publish(hub, f"a/{topic}", {"n": number, "text": "x" * 10_000})
        loop.run(0.01)
    held = {id(due.message): len(due.message.frame) for group in hub._groups.values() if group.shaper is not None
            for due in group.shaper._due.values()}  # fmt: skip
    assert sum(held.values()) <= 2**20
    assert hub.counters.shapes_shed > 0


def test_the_end_of_a_replay_is_told_to_whom_has_an_id_for_it(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    publish(hub, "a/1", "x" * 1000, 200)  # more than one chunk
    client = FakeSocket(hub)
    wide = hub.subscribe(client.subscriber, ["a/#"], position(20), replay_id="wide")
    assert (wide.after, wide.is_replaying) == (20, True)
    quiet = hub.subscribe(client.subscriber, ["b"], position(30))
    assert (quiet.after, quiet.is_replaying) == (30, True)
    now = hub.subscribe(client.subscriber, ["c"], SINCE_NOW, replay_id="now")
    assert (now.after, now.is_replaying) == (200, False)
    again = hub.subscribe(client.subscriber, ["a/#", "d"], position(10), replay_id="again")
    # of a/# it is promised nothing
    assert (again.after, again.is_replaying) == (200, True)
    narrow = hub.subscribe(client.subscriber, ["e"], SINCE_LAST, replay_id=7)
    assert (narrow.after, narrow.is_replaying) == (200, True)
    hub.unsubscribe(client.subscriber, ["e"])
    assert client.events("replayed") == [{"event": "replayed", "id": 7}]
    loop.run()
    assert client.seqs == list(range(21, 201))
    texts = [body.decode() for body in client.bodies]
    ends = [index for index, text in enumerate(texts) if "replayed" in text]
    assert [json.loads(texts[index])["id"] for index in ends] == [7, "wide", "again"]
    assert json.loads(texts[ends[1] - 1])["seq"] == 200


def test_overlapping_filters_deliver_a_message_once(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["a/#", "a/+", "#"], SINCE_NOW)
    hub.subscribe(client.subscriber, ["a/1"], SINCE_LAST)
    loop.run()
    publish(hub, "a/1", 1)
    loop.run()
    assert client.seqs == [1]


def test_an_idle_gateway_flushes_at_once_and_a_busy_one_waits_by_the_cost_of_a_flush(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()
    publish(hub, "a", 1)
    loop.turn()
    assert client.seqs == [1]
    loop.now += 0.001  # the system took a millisecond for it
    loop.turn()
    publish(hub, "a", 2)
    for _ in range(5):
        loop.turn()
    assert client.seqs == [1]
    loop.run(0.00101 * hub_module.FLUSH_FACTOR)
    assert client.seqs == [1, 2]
    loop.run(1)
    publish(hub, "a", 3)
    loop.turn()
    assert client.seqs == [1, 2, 3]


def test_where_a_write_is_shared_by_few_the_message_that_comes_late_takes_the_earlier_one_along(loop: FakeLoop) -> None:
    """200 messages a second: the second one goes at once, and takes along the first, which waited for it."""
    hub = make_hub(loop)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()
    delays: list[float] = []
    sent: list[float] = []
    for number in range(100):
        publish(hub, "a", number)
        sent.append(loop.now)
        before = len(client.seqs)
        loop.turn()
        if len(client.seqs) > before:
            loop.now += 0.001  # the system took a millisecond for it
            loop.turn()
        loop.run(0.005 - (loop.now - sent[-1]))
        delays += [loop.now - at for at in sent[len(delays) : len(client.seqs)]]
    assert len(client.seqs) >= 98
    assert 45 <= len(client.writes) <= 60, "two messages a write"
    assert max(delays) < 0.0115


def test_a_fixed_interval_is_kept(loop: FakeLoop) -> None:
    hub = make_hub(loop, flush_interval_seconds=0.05)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run(1)
    for _ in range(100):
        publish(hub, "a", 1)
        loop.run(0.01)
    assert 20 <= len(client.writes) <= 22
    assert len(client.seqs) >= 96


def test_a_large_batch_does_not_wait(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()
    publish(hub, "a", b"x" * 300_000, count=5)
    assert len(client.seqs) == 4


# since


def test_last_gives_the_newest_value_of_every_topic_in_order_then_live(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    for value in range(3):
        publish(hub, "a", value)
        publish(hub, "b", value)
    client = FakeSocket(hub)
    answer = hub.subscribe(client.subscriber, ["#"], SINCE_LAST)
    publish(hub, "a", 9)
    loop.run()
    assert (answer.position, answer.recovered) == ("k3f9:6", True)
    assert [(m["topic"], m["payload"]) for m in client.messages] == [("a", 2), ("b", 2), ("a", 9)]
    assert client.seqs == [5, 6, 7]


def test_now_gives_only_what_comes(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    publish(hub, "a", 1)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    publish(hub, "a", 2)
    loop.run()
    assert client.seqs == [2]


def test_a_position_gives_everything_after_it_once(loop: FakeLoop) -> None:
    hub = make_hub(loop, flush_interval_seconds=0.05)
    early = FakeSocket(hub)
    hub.subscribe(early.subscriber, ["#"], SINCE_NOW)
    loop.run()
    publish(hub, "a", 1)
    loop.run()
    publish(hub, "a", 1, count=4)
    client = FakeSocket(hub)
    # the group of `early` has frames waiting at this moment, and for some turns to come
    answer = hub.subscribe(client.subscriber, ["#"], position(2))
    assert answer.recovered
    for _ in range(5):
        loop.turn()
    assert early.seqs == [1]
    publish(hub, "a", 1, count=2)
    loop.run(1)
    assert client.seqs == [3, 4, 5, 6, 7]
    assert early.seqs == [1, 2, 3, 4, 5, 6, 7]


def test_a_time_gives_what_arrived_since(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    for value in range(10):
        publish(hub, "a", value)
        loop.run(60)
    client = FakeSocket(hub)
    since = parse_since("3m", now_ms=loop.wall_clock_ms())
    assert hub.subscribe(client.subscriber, ["a"], since).recovered
    loop.run()
    assert [m["payload"] for m in client.messages] == [7, 8, 9]


def test_what_was_evicted_is_told_before_anything_else(loop: FakeLoop) -> None:
    hub = make_hub(loop, max_messages=3)
    publish(hub, "a", 1, count=10)
    publish(hub, "b", 1, count=2)
    client = FakeSocket(hub)
    answer = hub.subscribe(client.subscriber, ["a"], position(4))
    assert not answer.recovered
    loop.run()
    assert client.objects[0] == {"event": "gap", "reason": "evicted", "lost": 3, "from": 4, "to": 12}
    assert client.seqs == [8, 9, 10]


def test_a_gap_whose_number_nobody_knows_is_counted_as_a_gap(loop: FakeLoop) -> None:
    hub = make_hub(loop, max_topics=2)
    for number in range(5):
        publish(hub, f"a/{number}", number)
    client = FakeSocket(hub)
    answer = hub.subscribe(client.subscriber, ["#"], position(1))
    loop.run()
    assert not answer.recovered
    assert [(gap["reason"], gap["lost"]) for gap in client.events("gap")] == [("evicted", None)]
    assert (hub.counters.gaps["evicted"], hub.counters.lost["evicted"]) == (1, 0)
    assert sum(hub.counters.gaps.values()) == 1


def test_another_epoch_is_a_gap_and_then_all_that_this_one_has(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    publish(hub, "a", 1, count=3)
    client = FakeSocket(hub)
    answer = hub.subscribe(client.subscriber, ["a"], Since(SinceKind.POSITION, epoch="old", seq=70))
    assert not answer.recovered
    loop.run()
    assert client.objects[0]["event"] == "gap"
    assert (client.objects[0]["reason"], client.objects[0]["lost"]) == ("epoch", None)
    assert client.seqs == [1, 2, 3]
    assert answer.after == 0


def test_a_replay_is_limited_in_messages(loop: FakeLoop) -> None:
    hub = make_hub(loop, max_replay_messages=4)
    publish(hub, "a", 1, count=10)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["a"], position(1))
    loop.run()
    assert client.objects[0] == {"event": "gap", "reason": "limit", "lost": 5, "from": 1, "to": 10}
    assert client.seqs == [7, 8, 9, 10]


def test_a_position_ahead_of_the_log_is_refused(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub)
    with pytest.raises(ProtocolError, match="ahead of the log, which is at k3f9:0"):
        hub.subscribe(client.subscriber, ["a"], position(1))


def test_a_large_replay_comes_in_chunks_between_which_live_goes_on(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    publish(hub, "a", b"x" * 1_000, count=1_000)
    other = FakeSocket(hub)
    hub.subscribe(other.subscriber, ["b"], SINCE_NOW)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["#"], position(0))
    loop.run()
    assert max(map(len, client.writes)) < 2 * replays_module.CHUNK_BYTES
    assert client.seqs == list(range(1, 1_001))
    slow = FakeSocket(hub, capacity=100_000, stuck=True)
    hub.subscribe(slow.subscriber, ["#"], position(0))
    loop.run()
    assert slow.size < 100_000 + 2 * replays_module.CHUNK_BYTES
    publish(hub, "b", 1)
    loop.run()
    assert other.seqs == [1001]
    while slow.subscriber.state is not State.LIVE:
        slow.drain()
        loop.run()
    slow.drain()
    assert slow.seqs == list(range(1, 1_002))


# filters that change


def test_added_filters_are_replayed_without_repeating_what_came_by_others(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    publish(hub, "a/1", 1)
    publish(hub, "b/1", 1)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["a/#"], SINCE_LAST)
    publish(hub, "a/2", 1)
    hub.subscribe(client.subscriber, ["#"], SINCE_LAST)
    publish(hub, "a/3", 1)
    loop.run()
    assert sorted(client.seqs) == [1, 2, 3, 4]
    hub.subscribe(client.subscriber, ["a/#"], SINCE_LAST)
    loop.run()
    assert sorted(client.seqs) == [1, 2, 3, 4]


def test_after_unsubscribing_nothing_more_of_it_comes_and_the_rest_goes_on(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["a", "b"], SINCE_NOW)
    loop.run()
    publish(hub, "a", 1)
    publish(hub, "b", 1)
    assert hub.unsubscribe(client.subscriber, ["a", "z"]) == ["a"]
    publish(hub, "a", 1)
    publish(hub, "b", 1)
    loop.run()
    assert client.seqs == [2, 4]
    hub.unsubscribe(client.subscriber, ["b"])
    publish(hub, "b", 1)
    loop.run()
    assert client.seqs == [2, 4]
    assert hub.group_count == 0
    assert client.subscriber.state is State.IDLE


def test_what_a_remaining_filter_is_owed_survives_the_end_of_a_wider_one(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    publish(hub, "a/1", 1, count=3)
    publish(hub, "a/2", 1, count=3)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["a/#"], position(0))
    hub.subscribe(client.subscriber, ["a/1"], position(0))
    hub.unsubscribe(client.subscriber, ["a/#"])
    publish(hub, "a/1", 1)
    publish(hub, "a/2", 1)
    loop.run()
    assert client.seqs == [1, 2, 3, 7]


def test_what_a_wider_filter_is_owed_survives_the_end_of_a_narrower_one(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    for value in range(5):
        publish(hub, "a", value)
        publish(hub, "b", value)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["a"], position(0))
    assert hub.subscribe(client.subscriber, ["#"], position(4)).recovered
    hub.unsubscribe(client.subscriber, ["a"])
    loop.run()
    assert sorted(client.seqs) == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("since", [SINCE_NOW, position(0)])
@pytest.mark.parametrize(("first", "then"), [("b/#", "#"), ("b/+", "+/c")])
def test_a_slow_subscriber_may_change_its_filters_and_misses_nothing(
    loop: FakeLoop, since: Since, first: str, then: str
) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub, capacity=100, stuck=True)
    filters = [first] if since.kind is SinceKind.POSITION else [first, then]
    hub.subscribe(client.subscriber, filters, SINCE_NOW)
    loop.run()
    for number in range(30):
        publish(hub, "b/c", number)
        loop.run(0.01)
    hub.subscribe(client.subscriber, [then], since)
    hub.unsubscribe(client.subscriber, [first])
    while client.subscriber.state is not State.LIVE:
        client.drain()
        loop.run()
    assert client.seqs == list(range(1, 31))


def test_what_a_filter_gave_as_its_last_value_is_not_given_again_by_a_wider_one(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    publish(hub, "a", 1, count=5)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["a"], SINCE_LAST)
    loop.run()
    assert hub.subscribe(client.subscriber, ["#"], position(0)).recovered
    publish(hub, "a", 2)
    loop.run()
    assert client.seqs == [5, 1, 2, 3, 4, 6]


def test_a_loss_that_was_told_stays_told_when_a_filter_is_taken_away(loop: FakeLoop) -> None:
    hub = make_hub(loop, max_messages=5)
    client = FakeSocket(hub, capacity=50_000, stuck=True)
    hub.subscribe(client.subscriber, ["s/#", "x"], SINCE_NOW)
    loop.run()
    publish(hub, "s/c", "p" * 2_000, count=30)
    loop.run()
    for number in range(100):
        publish(hub, f"s/{number}", "p" * 2_000)
    publish(hub, "s/c", "p" * 2_000, count=100)
    client.drain()
    loop.run()
    assert (client.subscriber.lost, client.subscriber.is_paused) == (99, True)
    hub.unsubscribe(client.subscriber, ["x"])
    while client.subscriber.state is not State.LIVE:
        client.drain()
        loop.run()
    assert hub.counts(client.subscriber) == (131, 0, 99)
    assert len(client.events("gap")) == 1


def test_a_loop_of_subscribing_and_unsubscribing_ends_in_a_limit_not_in_memory(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub, capacity=10, stuck=True)
    client.write(b"x" * 20)
    with pytest.raises(ProtocolError, match="replays wait"):  # noqa: PT012
        for number in range(1_000):
            publish(hub, "a", number)
            hub.subscribe(client.subscriber, [f"a{number}", "a"], SINCE_LAST)


def test_another_shape_holds_from_then_on_for_all_filters(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub)
    hub.subscribe(client.subscriber, ["a"], SINCE_NOW)
    loop.run()
    publish(hub, "a", {"x": 1, "y": 1})
    hub.subscribe(client.subscriber, [], SINCE_LAST, shape=Shape(fields=("x",)))
    publish(hub, "a", {"x": 2, "y": 2})
    loop.run()
    assert [m["payload"] for m in client.messages] == [{"x": 1, "y": 1}, {"x": 2}]
    assert client.subscriber.state is State.LIVE


# slow


def test_a_slow_subscriber_leaves_the_live_path_and_misses_nothing_that_is_kept(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    fast, slow = FakeSocket(hub), FakeSocket(hub, capacity=500, stuck=True)
    for client in (fast, slow):
        hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()
    for number in range(200):
        publish(hub, "a", number)
        loop.run(0.001)
    assert slow.subscriber.state is State.BEHIND
    assert slow.size < 700
    assert fast.seqs == list(range(1, 201))
    slow.drain()
    loop.run()
    slow.drain()
    loop.run(1)
    assert slow.seqs == list(range(1, 201))
    slow.drain()
    loop.run(1)
    assert hub.counts(slow.subscriber) == (200, 0, 0)


def test_what_a_slow_subscriber_missed_and_history_lost_is_a_gap_and_then_last_values(loop: FakeLoop) -> None:
    hub = make_hub(loop, max_messages=5)
    slow = FakeSocket(hub, capacity=100, stuck=True)
    hub.subscribe(slow.subscriber, ["#"], SINCE_NOW)
    loop.run()
    publish(hub, "a", 0, count=3)
    loop.run(1)
    publish(hub, "a", 1, count=50)
    publish(hub, "b", 1, count=2)
    loop.run(1)
    slow.drain()
    loop.run(1)
    slow.drain()
    loop.run(1)
    [gap] = slow.events("gap")
    assert gap == {"event": "gap", "reason": "slow", "lost": 50, "from": 3, "to": 55}
    assert slow.seqs == [1, 2, 3, 53, 55]
    assert hub.counts(slow.subscriber) == (5, 0, 50)
    assert hub.counters.lost["slow"] == 50


def test_a_subscriber_without_progress_is_closed_with_a_code_to_come_back(loop: FakeLoop) -> None:
    hub = make_hub(loop, stall_seconds=30)
    stuck, slow = (FakeSocket(hub, capacity=100, stuck=True) for _ in range(2))
    for client in (stuck, slow):
        hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()
    for _ in range(10):
        publish(hub, "a", 1, count=10)
        loop.run(5)
        slow.drain(1)
    assert stuck.closed is not None
    assert stuck.closed[0] is CloseCode.SLOW
    assert CloseCode.SLOW.is_reconnectable
    assert slow.closed is None
    assert hub.subscriber_count == 1


# shapes


def test_max_hz_lets_the_latest_win_and_says_how_many_it_stands_for(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub, shape=Shape(max_hz=2))
    hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()
    for number in range(40):
        publish(hub, "a" if number % 2 else "b", number)
        loop.run(0.05)
    loop.run(1)
    by_topic = {topic: [m for m in client.messages if m["topic"] == topic] for topic in "ab"}
    for topic, messages in by_topic.items():
        assert 4 <= len(messages) <= 6, topic
        assert sum(1 + m.get("skipped", 0) for m in messages) == 20
    assert client.seqs == sorted(client.seqs)
    assert client.messages[-1]["payload"] == 39
    delivered, skipped, lost = hub.counts(client.subscriber)
    assert (delivered + skipped, lost) == (40, 0)


def test_mean_and_minmax_keep_what_a_sample_hides(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    mean = FakeSocket(hub, shape=Shape(mode=Mode.MEAN, max_hz=1))
    minmax = FakeSocket(hub, shape=Shape(mode=Mode.MINMAX, max_hz=1))
    for client in (mean, minmax):
        hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run(2)
    publish(hub, "n", 5)
    loop.run()
    for value in (1, 99, 2):
        publish(hub, "n", value)
        publish(hub, "o", {"t": value, "seq": 1, "in": {"x": value * 2}, "name": "s"})
        loop.run(0.1)
    loop.run(2)
    n = [m for m in mean.messages if m["topic"] == "n"][-1]
    assert (n["payload"], n["count"], n["interval"], n["mode"]) == (34, 3, 1, "mean")
    o = [m for m in minmax.messages if m["topic"] == "o"][-1]
    assert o["payload"] == {"t": {"min": 1, "max": 99}, "in": {"x": {"min": 2, "max": 198}}}
    for client in (mean, minmax):
        delivered, skipped, _ = hub.counts(client.subscriber)
        assert delivered + skipped == 7


def test_fields_where_and_deadband(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    shape = Shape(fields=("t", "in.x"), where="t > 10 && h < 50", deadband=0.5)
    client = FakeSocket(hub, shape=shape)
    hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()
    for t, h in ((5, 1), (20, 60), (20, 1), (20.2, 1), (20.4, 1), (20.6, 1)):
        publish(hub, "a", {"t": t, "h": h, "in": {"x": 1, "y": 2}})
    publish(hub, "a", "text")
    loop.run()
    assert [m["payload"] for m in client.messages] == [{"t": 20, "in": {"x": 1}}, {"t": 20.6, "in": {"x": 1}}]
    assert client.messages[1]["skipped"] == 2
    assert hub.counts(client.subscriber) == (2, 5, 0)


def test_raw_and_stream_formats_carry_data_only(loop: FakeLoop) -> None:
    hub = make_hub(loop, max_messages=1)
    raw = FakeSocket(hub, shape=Shape(format=Format.RAW))
    stream = FakeSocket(hub, shape=Shape(format=Format.STREAM, field="temperature"))
    for client in (raw, stream):
        hub.subscribe(client.subscriber, ["#"], Since(SinceKind.POSITION, epoch="old", seq=1))
    loop.run()
    publish(hub, "s/1/state", {"temperature": 21.5, "humidity": 40})
    publish(hub, "s/1/state", {"humidity": 40})
    publish(hub, "plain", 7)
    hub.upstream_changed(False)
    loop.run()
    assert raw.bodies == [b'{"temperature": 21.5, "humidity": 40}', b'{"humidity": 40}', b"7"]
    assert [(o["temperature"], o["topic"]) for o in stream.objects] == [(21.5, "s/1/state"), (7, "plain")]


def test_sse_frames_carry_the_position(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub, shape=Shape(framing=Framing.SSE))
    hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()
    publish(hub, "a", b'{"x":\n1}')
    loop.run()
    assert client.writes == [b'id: k3f9:1\ndata: {"topic":"a","payload":{"x": 1},"time":100000,"seq":1}\n\n']


def test_ten_thousand_viewers_of_one_shape_cost_one_evaluation(loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub(loop)
    for _ in range(10_000):
        hub.subscribe(FakeSocket(hub, shape=Shape(where="payload > 3")).subscriber, ["#"], SINCE_NOW)
    loop.run()
    from gateway.core.conditions import Condition

    calls: list[str] = []
    holds = Condition.holds

    def counted(self: Condition, topic: str, value: Any) -> bool | None:
        calls.append(topic)
        return holds(self, topic, value)

    monkeypatch.setattr(Condition, "holds", counted)
    publish(hub, "a", 5)
    loop.run()
    assert len(calls) == 1
    assert hub.counters.delivered == 10_000


def test_an_interval_that_holds_too_much_ends_early(loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub(loop, max_bytes=100_000)
    client = FakeSocket(hub, shape=Shape(max_hz=0.001))
    plain = FakeSocket(hub)
    for one in (client, plain):
        hub.subscribe(one.subscriber, ["#"], SINCE_NOW)
    loop.run()
    publish(hub, "first", 1)
    loop.run(1)
    [group] = [group for group in hub._groups.values() if group.shaper is not None]
    assert group.shaper is not None
    monkeypatch.setattr("gateway.core.shaper.MAX_WINDOW_BYTES", 500_000)
    for number in range(200):
        publish(hub, f"flood/{number}", b"x" * 100_000)
        loop.run(0.05)
        assert sum(len(i.message.frame) for i in group.shaper._due.values()) < 2_000_000
    loop.run(1_000)
    assert client.seqs == list(range(1, 202))


@pytest.mark.parametrize("shape", [Shape(max_hz=0.1), Shape(max_hz=0.1, where="payload >= 0")])
def test_who_joins_in_the_middle_of_an_interval_loses_nothing_that_the_others_do_not(
    loop: FakeLoop, shape: Shape
) -> None:
    hub = make_hub(loop, max_messages=1_000)
    early, late = FakeSocket(hub, shape=shape), FakeSocket(hub, shape=shape)
    hub.subscribe(early.subscriber, ["t", "u", "v"], SINCE_NOW)
    loop.run()
    publish(hub, "t", 0)
    loop.run(0.1)
    publish(hub, "u", 1)
    hub.subscribe(late.subscriber, ["t", "u", "v"], SINCE_LAST)
    loop.run(0.1)
    for number in range(2_000):
        publish(hub, "t", number)
        publish(hub, "v", -1)
        loop.run(0.001)
    loop.run(10)
    for client in (early, late):
        assert client.messages[-2 if shape.where is None else -1]["payload"] == 1_999
        assert client.seqs == sorted(set(client.seqs))
        assert client.events("gap") == []
    assert sum(hub.counts(late.subscriber)) == 2 + 4_000
    publish(hub, "t", 1)
    loop.run(10)
    assert late.messages[-1] == early.messages[-1]


@pytest.mark.parametrize("mode", [Mode.MEAN, Mode.MINMAX])
def test_an_interval_that_is_cut_between_two_frames_is_resumed_with_its_spike(loop: FakeLoop, mode: Mode) -> None:
    hub = make_hub(loop)
    shape = Shape(mode=mode, max_hz=1)
    first = FakeSocket(hub, shape=shape)
    hub.subscribe(first.subscriber, ["#"], SINCE_NOW)
    loop.run(5)
    publish(hub, "b", 0)
    loop.run(0.01)
    for topic, value in (("a", 1), ("c", "text"), ("a", 999), ("b", 1), ("a", 2)):
        publish(hub, topic, value)
        loop.run(0.01)
    loop.run(2)
    whole = first.messages[1:]
    assert [m["topic"] for m in whole] == ["a", "c", "b"]
    assert first.seqs == sorted(set(first.seqs))
    assert first.seqs[-1] == 6
    for seen in range(1, len(first.messages)):
        again = FakeSocket(hub, shape=shape)
        hub.subscribe(again.subscriber, ["#"], position(first.messages[seen - 1]["seq"]))
        loop.run(2)
        got = {m["topic"]: m["payload"] for m in again.messages}
        assert all(got[m["topic"]] == m["payload"] for m in first.messages[seen:])
        assert again.seqs[-1] == 6


def test_the_id_of_an_event_in_an_interval_is_a_position_to_come_back_to(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub, shape=Shape(mode=Mode.MINMAX, max_hz=1, framing=Framing.SSE))
    hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run(5)
    publish(hub, "z", 0)
    loop.run(0.01)
    for topic in "aba":
        publish(hub, topic, 1)
    loop.run(2)
    assert [line for line in b"".join(client.writes).split(b"\n") if line.startswith(b"id:")] == [
        b"id: k3f9:1", b"id: k3f9:2", b"id: k3f9:4",
    ]  # fmt: skip


@pytest.mark.parametrize("framing", Framing)
def test_a_hundred_who_come_back_with_one_shape_cost_one_evaluation(
    loop: FakeLoop, monkeypatch: pytest.MonkeyPatch, framing: Framing
) -> None:
    from gateway.core.conditions import Condition

    calls = 0
    holds = Condition.holds

    def counted(self: Condition, topic: str, value: Any) -> bool | None:
        nonlocal calls
        calls += 1
        loop.now += 0.000_01  # so that they take more than one turn
        return holds(self, topic, value)

    monkeypatch.setattr(Condition, "holds", counted)
    hub = make_hub(loop)
    publish(hub, "t", 5, count=900)
    publish(hub, "t", 1, count=100)
    clients = [FakeSocket(hub, shape=Shape(where="payload > 3", framing=framing)) for _ in range(100)]
    for client in clients:
        hub.subscribe(client.subscriber, ["t"], position(0))
    loop.run()
    assert calls == 1_000
    assert {hub.counts(client.subscriber) for client in clients} == {(900, 100, 0)}
    assert len({b"".join(client.writes) for client in clients}) == 1


def test_a_deadband_counts_from_what_each_was_shown(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    early, late = (FakeSocket(hub, shape=Shape(deadband=1.0)) for _ in range(2))
    hub.subscribe(early.subscriber, ["t"], SINCE_NOW)
    loop.run()
    for value in (10, 10.9):
        publish(hub, "t", value)
        loop.run()
    hub.subscribe(late.subscriber, ["t"], SINCE_LAST)
    loop.run()
    for value in (10.4, 9.1, 9.3, 10.05):
        publish(hub, "t", value)
        loop.run()
    assert [m["payload"] for m in late.messages] == [10.9, 9.1]
    assert [m["payload"] for m in early.messages] == [10, 9.1]


@pytest.mark.parametrize("start", ["last", "position"])
def test_what_a_replay_showed_is_what_was_sent_last_to_who_is_alone(loop: FakeLoop, start: str) -> None:
    hub = make_hub(loop)
    publish(hub, "t", 20)
    client = FakeSocket(hub, shape=Shape(deadband=1.0))
    hub.subscribe(client.subscriber, ["t"], SINCE_LAST if start == "last" else position(0))
    loop.run()
    for value in (20.1, 20.2, 21.5):
        publish(hub, "t", value)
        loop.run()
    assert [(m["payload"], m.get("skipped")) for m in client.messages] == [(20, None), (21.5, 2)]


def test_what_a_deadband_left_out_of_a_replay_is_told_once(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    client = FakeSocket(hub, shape=Shape(deadband=1.0), capacity=10)
    hub.subscribe(client.subscriber, ["t"], SINCE_NOW)
    loop.run()
    client.is_stuck = True
    for value in (20, 20.1, 20.2, 20.3):
        publish(hub, "t", value)
        loop.run()
    assert client.subscriber.is_paused
    client.is_stuck = False
    client.drain()
    loop.run()
    publish(hub, "t", 30)
    loop.run()
    # what is read after a slow moment begins with a value
    assert [(m["payload"], m.get("skipped")) for m in client.messages] == [(20, None), (20.1, None), (30, 2)]
    assert hub.counts(client.subscriber) == (3, 2, 0)


@pytest.mark.parametrize("shape", [Shape(max_hz=0.001), Shape(mode=Mode.MINMAX, max_hz=0.001), Shape(deadband=0.5)])
def test_all_shapes_together_have_a_ceiling(loop: FakeLoop, shape: Shape) -> None:
    limit = 1_000_000
    hub = make_hub(loop, max_shape_bytes=limit)
    plain = FakeSocket(hub)
    hub.subscribe(plain.subscriber, ["#"], SINCE_NOW)
    shaped = [FakeSocket(hub, shape=replace(shape, fields=(f"x{n}", "x"))) for n in range(20)]
    for client in shaped:
        hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()
    for number in range(1_000):
        publish(hub, f"t/{number}", {"x": number, "y": 1})
        assert hub._budget.used <= limit
        loop.run(0.001)
    assert hub.counters.shapes_shed
    loop.run(2_000)
    assert len(plain.seqs) == 1_000
    for client in shaped:
        assert hub.counts(client.subscriber) == (1_000, 0, 0)
        hub.remove(client.subscriber)
    assert (hub._budget.used, hub.group_count) == (0, 1)


def test_who_leaves_before_its_group_is_flushed_is_forgotten(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    shape = Shape(max_hz=0.001)
    stays = FakeSocket(hub, shape=shape)
    hub.subscribe(stays.subscriber, ["a"], SINCE_NOW)
    loop.run()
    publish(hub, "a", 1, count=2)
    loop.run(1)
    publish(hub, "a", 1, count=2)
    for _ in range(100):
        short = FakeSocket(hub, shape=shape)
        hub.subscribe(short.subscriber, ["a"], SINCE_LAST)
        loop.run(0.1)
        hub.remove(short.subscriber)
    [group] = hub._groups.values()
    assert not group.waiting


# faults


class Broken(FakeSocket):
    """A socket that raises once it is used, as uvloop's does when it is closed."""

    is_broken = False

    def write(self, data: bytes) -> None:
        if self.is_broken:
            raise RuntimeError("the handler is closed")
        super().write(data)


def test_a_socket_that_raises_takes_nobody_with_it(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    clients = [FakeSocket(hub), Broken(hub), FakeSocket(hub)]
    other = FakeSocket(hub)
    for client in clients:
        hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    hub.subscribe(other.subscriber, ["a"], SINCE_NOW)
    loop.run()
    Broken.is_broken = True
    publish(hub, "a", 1)
    loop.run(1)
    publish(hub, "a", 2)
    loop.run(1)
    late = [FakeSocket(hub), Broken(hub), FakeSocket(hub)]
    for client in late:
        hub.subscribe(client.subscriber, ["#"], SINCE_LAST)
    loop.run(1)
    publish(hub, "a", 3)
    loop.run(1)
    assert [clients[0].seqs, clients[2].seqs, other.seqs] == [[1, 2, 3]] * 3
    assert [late[0].seqs, late[2].seqs] == [[2, 3]] * 2
    for client in (clients[1], late[1]):
        assert client.closed is not None
        assert client.closed[0] is CloseCode.INTERNAL
    assert hub.subscriber_count == 5


@pytest.mark.parametrize("method", ["offer", "take"])
def test_a_shape_that_raises_sends_its_group_away_and_nobody_else(
    loop: FakeLoop, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    hub = make_hub(loop)
    ill, well = FakeSocket(hub, shape=Shape(mode=Mode.MEAN)), FakeSocket(hub)
    for client in (ill, well):
        hub.subscribe(client.subscriber, ["#"], SINCE_NOW)
    loop.run()

    def fail(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(f"gateway.core.shaper.Shaper.{method}", fail)
    publish(hub, "a", 1)
    loop.run(5)
    publish(hub, "a", 2)
    loop.run(5)
    assert well.seqs == [1, 2]
    assert ill.closed is not None
    assert ill.closed[0] is CloseCode.INTERNAL
    assert (hub.subscriber_count, hub.group_count) == (1, 1)


# the invariant


SHAPES = [
    Shape(),
    Shape(),
    Shape(max_hz=10),
    Shape(mode=Mode.MINMAX, max_hz=5),
    Shape(where="payload > 3"),
    Shape(deadband=2.0),
    Shape(fields=("x",)),
]
TOPICS = ["a", "a/b", "a/c", "b/c", "d"]
FILTERS = [("#",), ("#",), ("#",), ("a/#",), ("+/c",), ("a", "b/#"), ("a/b", "a/+"), ("a/+",), ("a",), ("d",)]
STARTS = st.sampled_from(["last", "now"]) | st.integers(0, 15)
MAX_RESHAPES = 40


class Client(FakeSocket):
    """A socket with the model of what it must get.

    Attributes:
        claims: for each filter what it was promised: everything above a number, and single messages.
        owed: what its filters want of what they were promised.
        times: how often each message was promised; a filter that is taken away and added again promises it again.
        lasts: the messages that were promised as last values.
        unwanted: what was promised to filters that are gone, so that it must not be written any more.
    """

    def __init__(self, hub: Hub, shape: Shape, **options: Any) -> None:
        self.unwanted: set[int] = set()
        super().__init__(hub, shape=shape, **options)
        self.claims: dict[str, tuple[int, set[int]]] = {}
        self.owed: set[int] = set()
        self.times: Counter[int] = Counter()
        self.lasts: set[int] = set()
        self.has_changed = self.has_removed = self.has_company = self.has_another_shape = False
        self.is_plain = shape.is_plain
        self.may_aggregate = shape.mode is not Mode.LATEST

    def write(self, data: bytes) -> None:
        written = [json.loads(body).get("seq") for _, body in unframe(data)]
        assert self.may_aggregate or self.unwanted.isdisjoint(written), "nothing of a filter that is gone"
        super().write(data)

    def wants(self, topic: str, seq: int) -> bool:
        return any(matches(f, topic) and (seq > after or seq in one) for f, (after, one) in self.claims.items())

    @property
    def heard(self) -> int:
        """What its messages say that they stand for."""
        return sum(message.get("count", 1) + message.get("skipped", 0) for message in self.messages)

    def promise(self, seqs: set[int]) -> None:
        self.owed |= seqs
        self.times.update(seqs)
        self.unwanted -= seqs


def _sum(*counts: tuple[int, int, int]) -> tuple[int, int, int]:
    delivered, skipped, lost = (sum(column) for column in zip(*counts, strict=True))
    return delivered, skipped, lost


class Invariant(RuleBasedStateMachine):
    """*received = delivered + skipped + lost*, for every subscriber, whatever happens in whatever order."""

    clients = Bundle("clients")
    options: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.loop = FakeLoop()
        self.loop.cost = 0.0001
        bounds = {"max_messages": 4, "max_bytes": 12_000, "max_topics": 4, **self.options}
        self.hub = make_hub(self.loop, stall_seconds=10**9, cost_clock=self.cost_clock, **bounds)
        self.counts_of_the_gone = (0, 0, 0)
        self.gaps_of_the_gone = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(replays_module, "CHUNK_BYTES", 250)
        self.log: list[tuple[int, str]] = []
        self.open: list[Client] = []

    def teardown(self) -> None:
        self.patch.undo()

    @rule(topic=st.sampled_from(TOPICS), value=st.integers(0, 6), size=st.sampled_from([0, 0, 0, 300]))
    def publish(self, topic: str, value: int, size: int) -> None:
        payload = json.dumps({"x": value, "pad": "p" * size} if size else value).encode()
        seq = self.hub.history.seq + 1
        self.log.append((seq, topic))
        for client in self.open:
            if client.wants(topic, seq):
                client.promise({seq})
        message = self.hub.publish(topic, payload)
        assert message is not None
        assert message.seq == seq

    @rule(topic=st.sampled_from(TOPICS), count=st.integers(5, 12))
    def burst(self, topic: str, count: int) -> None:
        for value in range(count):
            self.publish(topic, value % 7, 0)

    def _subscribe(self, client: Client, filters: tuple[str, ...], since: Since) -> Client:
        added = [f for f in filters if f not in client.claims]
        after, lasts = self.hub.history.seq, set[int]()
        if since.kind is SinceKind.POSITION:
            after = since.seq
        elif since.kind is SinceKind.LAST:
            lasts = {t.last.seq for t in self.hub.history.topics() if t.last is not None}
        try:
            self.hub.subscribe(client.subscriber, filters, since)
        except ProtocolError:  # too many replays wait
            return client
        found = {
            seq
            for seq, topic in self.log
            if (seq > after or seq in lasts) and any(matches(f, topic) for f in added) and not client.wants(topic, seq)
        }
        client.promise(found)
        client.lasts |= found & lasts
        client.claims.update(dict.fromkeys(added, (after, lasts)))
        if client not in self.open:
            self.open.append(client)
        return client

    def _since(self, start: str | int) -> Since:
        if isinstance(start, int):
            return position(max(self.hub.history.seq - start, 0))
        return SINCE_LAST if start == "last" else SINCE_NOW

    @rule(
        target=clients,
        filters=st.sampled_from(FILTERS),
        shape=st.sampled_from(SHAPES),
        stuck=st.booleans(),
        start=STARTS,
    )
    def connect(self, filters: tuple[str, ...], shape: Shape, stuck: bool, start: str | int) -> Client:
        client = Client(self.hub, shape, stuck=stuck, capacity=300)
        return self._subscribe(client, filters, self._since(start))

    @rule(client=clients, filters=st.sampled_from(FILTERS), start=STARTS)
    def add(self, client: Client, filters: tuple[str, ...], start: str | int) -> None:
        """It asks for more, whatever it is still owed."""
        client.has_changed = True
        self._subscribe(client, filters, self._since(start))

    @rule(client=clients, which=st.integers(0, 5))
    def take_away(self, client: Client, which: int) -> None:
        """It wants less, whatever it is still owed."""
        if not client.claims:
            return
        topic_filter = sorted(client.claims)[which % len(client.claims)]
        client.has_changed = client.has_removed = True
        assert self.hub.unsubscribe(client.subscriber, [topic_filter, "never/there"]) == [topic_filter]
        del client.claims[topic_filter]
        topics = dict(self.log)
        client.owed = {seq for seq in client.owed if client.wants(topics[seq], seq)}
        client.unwanted = set(client.times) - client.owed

    @rule(client=clients, shape=st.sampled_from(SHAPES))
    def reshape(self, client: Client, shape: Shape) -> None:
        """It wants its messages otherwise, from now on."""
        with suppress(ProtocolError):
            self.hub.subscribe(client.subscriber, [], SINCE_LAST, shape=shape)
        client.has_another_shape = True
        client.is_plain &= shape.is_plain
        client.may_aggregate |= shape.mode is not Mode.LATEST

    @rule(target=clients, client=consumes(clients), stuck=st.booleans())
    def reconnect(self, client: Client, stuck: bool) -> Client:
        """The connection is cut; the browser comes back with what it saw last."""
        self.disconnect(client)
        starts = [after for after, _ in client.claims.values()]
        # while several replays were under way, the number that was seen last says nothing
        seen = self.hub.history.seq if client.has_changed else max([*starts, *client.seqs])
        again = Client(self.hub, client.subscriber.shape, stuck=stuck, capacity=300)
        return self._subscribe(again, tuple(client.claims) or ("#",), position(seen))

    @rule(client=consumes(clients))
    def leave(self, client: Client) -> None:
        self.disconnect(client)

    def disconnect(self, client: Client) -> None:
        client.drain()
        self.hub.remove(client.subscriber)
        self.counts_of_the_gone = _sum(self.counts_of_the_gone, self.hub.counts(client.subscriber))
        self.gaps_of_the_gone += len(client.events("gap"))
        self.hub.remove(client.subscriber)
        self.open.remove(client)
        self.check_order(client)

    @rule(client=clients, stuck=st.booleans())
    def stick(self, client: Client, stuck: bool) -> None:
        client.is_stuck = stuck
        if not stuck:
            client.drain()

    @rule(client=clients, writes=st.integers(1, 3))
    def drain(self, client: Client, writes: int) -> None:
        client.drain(writes)

    @rule(turns=st.integers(1, 4))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.turn()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3]))
    def wait(self, seconds: float) -> None:
        self.loop.run(seconds)

    def cost_clock(self) -> float:
        """Work takes no time: none is put off."""
        return 0.0

    @invariant()
    def who_has_company_is_known(self) -> None:
        for client in self.open:
            group = client.subscriber.group
            client.has_company |= group is not None and len(group.members) > 1

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.hub.history.bytes <= 12_000
        for client in self.open:
            assert client.has_changed or len(client.subscriber.jobs or ()) <= 3 + MAX_RESHAPES

    def check_order(self, client: Client) -> None:
        seqs = client.seqs
        if client.has_changed:
            # one replay after the other; an aggregate's number is no message's
            assert client.may_aggregate or Counter(seqs) <= client.times, "no more often than promised"
        else:
            assert seqs == sorted(set(seqs)), "in order and once"
            assert client.may_aggregate or set(seqs) <= set(client.times)

    @rule()
    def settle_and_count(self) -> None:
        for client in self.open:
            client.is_stuck = False
        for _ in range(3):
            for client in self.open:
                client.drain()
            self.loop.run(2)
        for client in self.open:
            assert client.subscriber.state is (State.LIVE if client.claims else State.IDLE)
            self.check_order(client)
            delivered, skipped, lost = self.hub.counts(client.subscriber)
            seqs = client.seqs
            assert delivered == len(seqs)
            assert lost == client.told_lost, "every loss is told"
            shape = client.subscriber.shape
            is_told = not (client.has_changed or client.has_company or client.has_another_shape)
            if is_told and not shape.where and not shape.fields:
                # what a deadband left out is told with what comes next
                assert client.heard <= delivered + skipped
                assert client.heard == delivered + skipped or shape.deadband is not None
            has_unknown = any(gap["lost"] is None for gap in client.events("gap"))
            # a last value that was superseded and evicted before it could be written was not promised
            missing_lasts = len(client.lasts.difference(seqs)) if client.is_plain else len(client.lasts)
            total = delivered + skipped + lost
            assert total <= client.times.total()
            if not has_unknown:
                assert len(client.owed) - missing_lasts <= total
                if not client.lasts and not client.has_removed:
                    assert total == client.times.total()
                if client.is_plain and not lost:
                    assert client.owed - client.lasts <= set(seqs)
        counted = self.hub.counters
        counts = [self.hub.counts(client.subscriber) for client in self.open]
        everybody = _sum(self.counts_of_the_gone, *counts)
        assert (counted.delivered, counted.skipped, sum(counted.lost.values())) == everybody, "metrics are their sum"
        gaps = self.gaps_of_the_gone + sum(len(client.events("gap")) for client in self.open)
        assert sum(counted.gaps.values()) == gaps


Invariant.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestInvariant = Invariant.TestCase


class InvariantWherePutOff(Invariant):
    """The same while shapes take long, so that nearly every group is put off nearly every time."""

    def __init__(self) -> None:
        self.spent = itertools.count()
        super().__init__()
        self.patch.setattr(shaping_module, "SAMPLE", 1)

    def cost_clock(self) -> float:
        return next(self.spent) * SHAPING_SECONDS / 2


InvariantWherePutOff.TestCase.settings = Invariant.TestCase.settings
TestInvariantWherePutOff = pytest.mark.slow(InvariantWherePutOff.TestCase)


class InvariantInSteps(Invariant):
    """The same where a replay can't find out at once how much it has to give: each topic takes it a turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patch.setattr(replays_module, "WORK_SECONDS", -1.0)
        self.patch.setattr(selection_module, "AT_ONCE", 1)
        self.patch.setattr(history_module, "SCAN_LIMIT", 1)


InvariantInSteps.TestCase.settings = Invariant.TestCase.settings
TestInvariantInSteps = pytest.mark.slow(InvariantInSteps.TestCase)


class InvariantInParts(Invariant):
    """The same where one turn has room for one write, so that a flush goes on for several, and shapes for little."""

    options: ClassVar[dict[str, int]] = {"max_shape_bytes": 2_000}

    def __init__(self) -> None:
        super().__init__()
        self.patch.setattr(hub_module, "PART_WRITES", 1)


InvariantInParts.TestCase.settings = Invariant.TestCase.settings
TestInvariantInParts = pytest.mark.slow(InvariantInParts.TestCase)


def crowd(loop: FakeLoop, hub: Hub, count: int) -> list[FakeSocket]:
    """So many live members of one group."""
    sockets = [FakeSocket(hub) for _ in range(count)]
    for each in sockets:
        hub.subscribe(each.subscriber, ["a/#"], SINCE_NOW)
    loop.run(1)
    return sockets


def test_a_flush_to_many_leaves_room_for_others_between_its_parts(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    sockets = crowd(loop, hub, 1_000)
    hub.publish("a/1", b"1")
    written = [0]
    while loop.turn():
        written.append(sum(len(each.writes) for each in sockets))
        assert written[-1] - written[-2] <= hub_module.PART_WRITES
    assert written[-1] == 1_000
    assert all(each.seqs == [1] for each in sockets)
    assert hub.counters.delivered == hub.counters.batches == 1_000
    assert hub.counters.flushes == 1


def test_room_that_is_made_for_shapes_between_a_flush_and_its_end_stops_nobody(loop: FakeLoop) -> None:
    hub = make_hub(loop, max_shape_bytes=20_000)
    shape = Shape(max_hz=1)
    many = [FakeSocket(hub, shape=shape) for _ in range(hub_module.PART_WRITES + 1)]
    for each in many:
        hub.subscribe(each.subscriber, ["a/#"], SINCE_NOW)
    other = FakeSocket(hub)
    hub.subscribe(other.subscriber, ["b"], SINCE_NOW)
    loop.run(1)
    for number in range(100):
        publish(hub, "b", number)
        loop.turn()
        publish(hub, f"a/{number}", "x" * 100)
        loop.turn()
    assert hub.counters.shapes_shed
    loop.run(2)
    assert len(other.seqs) == 100
    assert {hub.counts(each.subscriber) for each in many} == {(100, 0, 0)}


def test_large_writes_are_fewer_in_a_turn(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    sockets = crowd(loop, hub, 100)
    hub.publish("a/1", b'"%b"' % bytes(b"x" * 16 * hub_module.PART_BYTES))
    most, before = 0, 0
    while loop.turn():
        now = sum(len(each.writes) for each in sockets)
        most, before = max(most, now - before), now
    assert before == 100
    assert most <= hub_module.PART_WRITES // 17 + 1


def test_what_comes_between_two_parts_goes_out_behind_them(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    sockets = crowd(loop, hub, 600)
    hub.publish("a/1", b"1")
    loop.turn()
    loop.turn()
    assert 0 < sum(len(each.writes) for each in sockets) < 600
    hub.publish("a/2", b"2")
    loop.run(1)
    assert all(each.seqs == [1, 2] for each in sockets)
    assert {hub.counts(each.subscriber) for each in sockets} == {(2, 0, 0)}


def test_whoever_leaves_or_asks_between_two_parts_has_what_the_others_have(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    sockets = crowd(loop, hub, 600)
    hub.publish("a/1", b"1")
    loop.turn()
    waiting = [each for each in sockets if not each.writes]
    asks, leaves, is_full, moves, goes = waiting[:5]
    assert hub.position_of(asks.subscriber) == f"{hub.history.epoch}:1"
    assert asks.seqs == [1]
    hub.unsubscribe(leaves.subscriber, ["a/#"])
    hub.pause(is_full.subscriber)
    hub.subscribe(moves.subscriber, ["b"], SINCE_NOW)
    hub.remove(goes.subscriber)
    hub.publish("a/2", b"2")
    hub.resume(is_full.subscriber)
    loop.run(1)
    assert (leaves.seqs, is_full.seqs, moves.seqs, goes.seqs) == ([1], [1, 2], [1, 2], [])
    assert all(each.seqs == [1, 2] for each in sockets if each not in (leaves, goes))


def test_a_gateway_that_stops_writes_what_a_flush_has_left(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    sockets = crowd(loop, hub, 600)
    hub.publish("a/1", b"1")
    loop.turn()
    hub.publish("a/2", b"2")
    steps = [[sum(map(len, (each.seqs for each in sockets))), loop.turn()] for _ in hub.flush()]
    assert all(each.seqs == [1, 2] for each in sockets)
    written = [count for count, _ in steps]
    assert max(after - before for before, after in itertools.pairwise(written)) <= 2 * hub_module.PART_WRITES


@pytest.mark.parametrize("moment", ["live", "pending", "in a part", "behind", "paused", "waiting"])
def test_who_is_silenced_is_written_nothing_more_and_its_account_is_right(loop: FakeLoop, moment: str) -> None:
    hub = make_hub(loop)
    shape = Shape(max_hz=1) if moment == "waiting" else Shape()
    others = crowd(loop, hub, 300) if moment == "in a part" else []
    gone = FakeSocket(hub, shape=shape, stuck=moment == "paused", capacity=10)
    stays = FakeSocket(hub, shape=shape)
    hub.publish("a/1", b"0")
    for each in (stays, gone):
        hub.subscribe(each.subscriber, ["a/#"], SINCE_LAST if moment == "behind" else SINCE_NOW)
    if moment != "behind":
        loop.run(0.5)
    received = hub.history.seq
    for number in range(3):
        hub.publish("a/1", b"%d" % number)
        if moment not in ("pending", "behind"):
            loop.turn()
            received = hub.history.seq
    before = len(gone.writes)
    hub.silence(gone.subscriber)
    for number in range(3):
        hub.publish("a/1", b"%d" % number)
        loop.run(5)
    assert len(gone.writes) == before
    assert sum(hub.counts(gone.subscriber)) <= received
    assert all(hub.counts(each.subscriber)[0] == len(each.seqs) for each in (stays, *others))
    everybody = (gone, stays, *others)
    assert hub.counters.delivered == sum(hub.counts(each.subscriber)[0] for each in everybody)
    hub.remove(gone.subscriber)
    hub.remove(gone.subscriber)
    loop.run(5)
    assert stays.seqs[-1] == hub.history.seq
    for each in (stays, *others):
        hub.remove(each.subscriber)
    assert hub.group_count == hub.subscriber_count == hub.paused_count == 0


@pytest.mark.slow
def test_a_topic_of_its_own_costs_a_subscriber_less_than_two_kilobytes(loop: FakeLoop) -> None:
    count = 512

    def bytes_each(topics: int) -> float:
        hub = make_hub(loop)
        sockets: list[FakeSocket] = []

        def join(numbers: range) -> None:
            for number in numbers:
                sockets.append(FakeSocket(hub))
                hub.subscribe(sockets[-1].subscriber, [f"many/{number % topics}", "all"], SINCE_NOW)
            loop.run(1)

        join(range(count))
        gc.collect()
        tracemalloc.start(1)
        try:
            before = tracemalloc.get_traced_memory()[0]
            join(range(count, 2 * count))
            gc.collect()
            return (tracemalloc.get_traced_memory()[0] - before) / count
        finally:
            tracemalloc.stop()

    bytes_each(1)  # what is made once
    shared, own = bytes_each(1), bytes_each(10**9)
    assert own - shared < 1_900


def test_many_are_told_of_the_broker_in_parts_and_in_order(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    sockets = crowd(loop, hub, 600)
    hub.upstream_changed(False, "gone")
    assert sum(len(each.writes) for each in sockets) == hub_module.PART_EVENTS
    hub.upstream_changed(True)
    loop.run(1)
    for each in sockets:
        assert [event["connected"] for event in each.events("upstream")] == [False, True]


def test_members_of_a_group_share_what_they_asked_for(loop: FakeLoop) -> None:
    hub = make_hub(loop)
    one, two = FakeSocket(hub), FakeSocket(hub)
    hub.subscribe(one.subscriber, ["a/#", "b"], SINCE_LAST)
    hub.subscribe(two.subscriber, ["b", "a/#"], SINCE_LAST)
    assert one.subscriber.filters is two.subscriber.filters
    assert one.subscriber.shape is two.subscriber.shape
    assert two.subscriber.promises[0].filters is one.subscriber.filters

"""history: the log against a plain list, and its bounds against everything that tries to pass them."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.filters import FilterSet
from gateway.core.history import (
    EVICTED_COST,
    EVICTED_NUMBERS,
    EVICTED_PART,
    EXPIRED_AT_ONCE,
    MATCH_LISTS,
    History,
    room_for_messages,
)
from gateway.core.messages import Message
from gateway.core.topic import Topic
from gateway.core.topics import matches
from gateway.core.tries import TopicTree
from gateway.core.walks import reaches
from tests.fakes import count_kept, count_lost, finished

TOPICS = ["a", "a/b", "a/c", "b", "b/c", "$s/x"]
FILTERS = ["#", "+", "a/#", "+/c", "b", "$s/#", "a/b"]
filter_sets = st.lists(st.sampled_from(FILTERS), min_size=1, max_size=3).map(FilterSet)


def read_all(history: History, filters: FilterSet, after: int, until: int, **options: object) -> list[Message]:
    found: list[Message] = []
    cursor = after
    for _ in range(10_000):
        chunk = history.read(filters, cursor, until, max_bytes=100, **options)  # type: ignore[arg-type]
        assert chunk.cursor > cursor or chunk.cursor == until
        found += chunk.messages
        cursor = chunk.cursor
        if cursor == until:
            return found
    raise AssertionError("the replay does not end")


def seqs(messages: list[Message]) -> list[int]:
    return [message.seq for message in messages]


@settings(max_examples=150, deadline=None)
@given(
    arrivals=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=80),
    max_messages=st.integers(1, 6),
    max_topics=st.integers(1, 6),
    max_bytes=st.sampled_from([2_000, 5_000, 20_000, 10**9]),
    max_age_ms=st.sampled_from([5, 30, 10**9]),
    after=st.integers(0, 80),
    until_back=st.integers(0, 20),
    filters=filter_sets,
    narrow=st.sampled_from([0, 32]),
)
def test_the_log_reads_as_a_list_of_what_was_not_evicted(
    arrivals: list[str],
    max_messages: int,
    max_topics: int,
    max_bytes: int,
    max_age_ms: int,
    after: int,
    until_back: int,
    filters: FilterSet,
    narrow: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.core.history.NARROW_TOPICS", narrow)
        patch.setattr("gateway.core.history.SCAN_LIMIT", 7)
        history = History(
            max_messages=max_messages, max_topics=max_topics, max_bytes=max_bytes, max_age_ms=max_age_ms, epoch="e"
        )
        everything: list[Message] = []
        for time, topic in enumerate(arrivals, start=1):
            message = history.append(topic, b"x" * (time % 50), time)
            assert message is not None
            assert message.seq == time
            everything.append(message)
            assert history.bytes <= max_bytes
            assert history.topic_count <= max_topics
        kept = {m.seq for m in history._log}
        assert len(kept) == history.message_count == history.seq - history.evicted
        until = max(history.seq - until_back, 0)

        def wanted(message: Message) -> bool:
            return any(matches(f, message.topic) for f in filters.filters)

        span = [m for m in everything if wanted(m) and after < m.seq <= until]
        expected = [m.seq for m in span if m.seq in kept]
        assert seqs(read_all(history, filters, after, until)) == expected
        assert count_kept(history, filters, after, until) == len(expected)

        newest = {m.topic: m.seq for m in everything if wanted(m) and m.seq <= until}
        lasts = sorted(seq for seq in newest.values() if seq in kept and seq > after)
        assert seqs(read_all(history, filters, after, until, last_only=True)) == lasts
        assert count_kept(history, filters, after, until, last_only=True) == len(lasts)

        lost = count_lost(history, filters, after)
        gone = sum(1 for m in everything if wanted(m) and m.seq > after and m.seq not in kept)
        assert lost is None or lost == gone
        if history.dropped_topics == 0 and max_messages > 2 and max_bytes == 10**9:
            assert lost == gone

        # the bounds, by their own definition
        for name in {m.topic for m in everything}:
            state = history.topic(name)
            if state is not None:
                assert len(state) <= max_messages
                assert state.last is not None
                assert state.last.seq == max(m.seq for m in everything if m.topic == name)
        oldest_time = history.seq - max_age_ms
        for seq in kept:
            message = everything[seq - 1]
            state = history.topic(message.topic)
            assert state is not None
            assert message.time >= oldest_time or state.last is message


def test_eviction_by_bytes_is_oldest_first_but_keeps_last_values() -> None:
    history = History(max_bytes=40_000)
    history.append("quiet", b"still here", 0)
    for number in range(1_000):
        history.append("busy", b"%d" % number, number)
    quiet = history.topic("quiet")
    assert quiet is not None
    assert quiet.last is not None
    assert quiet.last.payload == b"still here"
    busy = FilterSet(["busy"])
    kept = read_all(history, busy, 0, history.seq)
    assert seqs(kept) == list(range(history.seq - len(kept) + 1, history.seq + 1))
    assert count_lost(history, busy, kept[0].seq - 1) == 0
    assert count_lost(history, busy, kept[0].seq - 51) == 50
    # the survivor goes as soon as it is no longer the last value
    history.append("quiet", b"news", 2_000)
    assert [m.payload for m in read_all(history, FilterSet(["quiet"]), 0, history.seq)] == [b"news"]


@pytest.mark.slow
def test_a_flood_of_new_topics_pushes_out_itself_before_what_is_used() -> None:
    history = History(max_topics=100)
    history.append("sensors/a/meta", b"retained", 0, retained=True)
    history.append("sensors/a/state", b"1", 0)
    history.append("sensors/a/state", b"2", 0)
    for number in range(100_000):
        history.append(f"flood/{number}", b"x", 1)
    assert history.topic_count <= 100
    for name, payload in (("sensors/a/meta", b"retained"), ("sensors/a/state", b"2")):
        state = history.topic(name)
        assert state is not None
        assert state.last is not None
        assert state.last.payload == payload
    assert history.topic("flood/99999") is not None
    assert count_lost(history, FilterSet(["sensors/#"]), 0) is None


@pytest.mark.parametrize("retained", [False, True])
@pytest.mark.parametrize("payload", [b"x", b"x" * 20_000])
@pytest.mark.parametrize("messages", [[1], [2], [20], [1, 1]])
def test_what_is_known_before_a_flood_survives_it(messages: list[int], payload: bytes, retained: bool) -> None:
    history = History(max_topics=400, max_messages=50, max_bytes=4_000_000)
    time = 0
    for name in (f"sensors/{number}" for number in range(100)):
        history.append(f"{name}/meta", b"{}", time, retained=True)
    for _ in range(5):
        for name in (f"sensors/{number}" for number in range(100)):
            time += 10
            history.append(f"{name}/state", b"1", time)
    for count in messages:
        for number in range(700):
            for _ in range(count):
                time += 1
                history.append(f"flood/{number}", payload, time, retained=retained)
                assert history.bytes <= 4_000_000
    assert history.dropped_topics > 400
    assert len(finished(history.match(FilterSet(["sensors/#"])))) == 200
    assert len(finished(history.match(FilterSet(["flood/#"])))) > 50


@pytest.mark.parametrize("payload", [b"x", b"x" * 300_000])
@pytest.mark.parametrize("retained", [False, True])
def test_what_is_in_use_survives_a_flood_that_finds_hardly_any_room(payload: bytes, retained: bool) -> None:
    history = History(max_topics=500, max_messages=3, max_bytes=1_500_000)
    names = [f"sensors/{number}" for number in range(470)]
    time = 0
    for _ in range(13):
        time += 60_000
        for name in names:
            history.append(name, b"1", time)
    for number in range(1_000):
        time += 1
        history.append(f"flood/{number}", payload, time, retained=retained)
        if number % 100 == 0:
            history.append(names[number // 100], b"1", time)
    assert history.dropped_topics > 900
    assert all(history.topic(name) is not None for name in names)


@pytest.mark.slow
def test_a_new_topic_in_use_stays_during_a_flood_and_takes_the_place_of_what_the_flood_left() -> None:
    history = History(max_topics=400, max_messages=5)
    names = [f"sensors/{number}" for number in range(100)]
    for name in names[:50]:
        history.append(name, b"1", 0)
    flood = 0

    def turn(time: int, used: list[str], flooding: int) -> None:
        nonlocal flood
        for _ in range(flooding):
            flood += 1
            history.append(f"flood/{flood}", b"x", time)
        for name in used:
            history.append(name, b"2", time)

    for second in range(100):
        turn(second * 1_000, names[:50], 20)
    # 20 new ones, while the flood goes on for longer than it takes to settle
    for second in range(100, 1_000):
        turn(second * 1_000, names[:70], 20)
        assert all(history.topic(name) is not None for name in names[:70])
    assert all(name in history._settled for name in names[:70])
    # 30 more, one after the other
    for second in range(1_000, 2_300):
        turn(second * 1_000, names[: min(70 + second // 20 - 50, 100)], 20)
    assert all(name in history._settled for name in names)
    assert history.topic_count == 400
    assert set(history._new) | set(history._settled) == set(history._topics)
    assert not set(history._new) & set(history._settled)


def test_the_numbers_of_what_was_evicted_leave_the_room_to_messages() -> None:
    history = History(max_bytes=400_000)
    kept: list[int] = []
    topics = [f"sensors/{number}/state" for number in range(150)]
    for turn in range(600):
        for name in topics:
            history.append(name, b"21.5", turn)
        kept.append(history.message_count)
        assert history.bytes <= 400_000
    assert history.dropped_topics == 0
    assert history.topic_count == 150
    assert kept[-1] > 0.9 * kept[50]
    assert sum(len(state.evicted) for state in history.topics()) * EVICTED_COST <= 400_000 / EVICTED_PART
    # the numbers of all topics go back about as far: who was away for a short time is told how much is lost
    oldest = history.seq - kept[-1] - 500
    assert count_lost(history, FilterSet(["#"]), oldest) == history.evicted_seq - oldest
    assert count_lost(history, FilterSet(["#"]), 0) is None
    # a topic of which all numbers are forgotten still says that some are lost
    state = history.topic(topics[0])
    assert state is not None
    history._forget_numbers(state, len(state.evicted))
    assert count_lost(history, FilterSet([topics[0]]), state.forgotten_seq - 1) is None
    assert count_lost(history, FilterSet([topics[0]]), state.forgotten_seq) == 0


@pytest.mark.parametrize("max_messages", [1, 3, 1_000])
def test_how_many_are_lost_is_known_however_few_are_kept(max_messages: int) -> None:
    history = History(max_messages=max_messages)
    for turn in range(EVICTED_NUMBERS + max_messages):
        history.append("a", b"21.5", turn)
    assert count_lost(history, FilterSet(["#"]), 0) == EVICTED_NUMBERS
    # beyond so many half of them go
    history.append("a", b"21.5", 0)
    assert count_lost(history, FilterSet(["#"]), 0) is None
    assert count_lost(history, FilterSet(["#"]), EVICTED_NUMBERS // 2 + 1) == EVICTED_NUMBERS // 2


def test_what_is_said_to_fit_fits() -> None:
    for topics in (1, 10, 100, 400):
        history = History(max_bytes=1_000_000)
        for number in range(3_000):
            history.append(f"sensors/esp32-{number % topics:010d}/state", b"x" * 100, number)
        promised = room_for_messages(1_000_000, topics, 1_000)
        assert promised * 0.9 < history.message_count < promised * 1.2
    assert room_for_messages(1_000_000, 1_000, 1_000) == 0


def test_a_message_above_the_whole_bound_is_numbered_but_not_kept() -> None:
    history = History(max_bytes=10_000)
    message = history.append("big", b"x" * 20_000, 0)
    assert message is not None
    assert len(message.payload) == 20_000
    assert history.message_count == 0
    assert history.bytes == 0
    assert count_lost(history, FilterSet(["#"]), 0) is None


def test_a_repeated_retained_message_is_no_new_arrival() -> None:
    history = History()
    history.retained_as_published = True
    assert history.append("d/status", b"online", 1, retained=True, repeat=1) is not None
    # the broker repeats it after the second and third subscription
    assert history.append("d/status", b"online", 2, retained=True, repeat=2) is None
    assert history.append("d/status", b"online", 3, retained=True, repeat=3) is None
    # once for each subscription: the device said it again
    assert history.append("d/status", b"online", 4, retained=True, repeat=3) is not None
    # it changed while the gateway was away, and changed back
    assert history.append("d/status", b"offline", 5, retained=True) is not None
    assert history.append("d/status", b"online", 6, retained=True, repeat=4) is not None
    # a message that is not retained leaves what is retained alone
    assert history.append("d/status", b"passing", 7) is not None
    assert history.append("d/status", b"online", 8, retained=True, repeat=5) is None
    assert (history.repeated, history.seq) == (3, 5)


def test_without_retain_as_published_a_repetition_is_what_equals_the_last_value() -> None:
    history = History()
    assert history.append("d/status", b"online", 1) is not None
    assert history.append("d/status", b"online", 2, retained=True, repeat=1) is None
    assert history.append("d/status", b"offline", 3) is not None
    assert history.append("d/status", b"online", 4, retained=True, repeat=2) is not None
    assert history.append("d/status", b"online", 5, retained=True, repeat=3) is None


def test_times_find_their_place_in_the_log() -> None:
    history = History(max_messages=2)
    for time in range(10, 110, 10):
        history.append("x" if time % 20 else "y", b"", time)
    assert history.before_time(0) == 0
    assert history.before_time(80) == 7
    assert history.before_time(85) == 8
    assert history.before_time(1_000) == 10
    assert history.newest(2) == 8
    assert history.newest(100) == 0
    assert not finished(reaches(history, FilterSet(["x"]), 50))
    assert finished(reaches(history, FilterSet(["x"]), 51))


def test_filter_sets_are_equal_whatever_the_order() -> None:
    a, b = FilterSet(["x", "y/#"]), FilterSet(["y/#", "x", "x"])
    assert a == b
    assert hash(a) == hash(b)
    assert len(b) == 2
    assert (a | ["z"]) - ["x"] == FilterSet(["y/#", "z"])
    assert a.matches("y/1")
    assert a.matches("x")
    assert not a.matches("z")
    assert "x" in a
    assert "z" not in a


LEVELS = st.sampled_from(["", "a", "b", "$x", "a.c", "(", "\n", "a|b", "ü"])
TOPIC_NAMES = st.lists(LEVELS, min_size=1, max_size=3).map("/".join).filter(bool)
ANY_FILTERS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(LEVELS | st.just("+"), max_size=3),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@pytest.mark.slow
@settings(max_examples=500)
@given(filters=st.lists(ANY_FILTERS, min_size=1, max_size=4), topic=TOPIC_NAMES)
def test_a_filter_set_matches_what_one_of_its_filters_matches(filters: list[str], topic: str) -> None:
    assert FilterSet(filters).matches(topic) is any(matches(f, topic) for f in filters)


def test_epochs_differ() -> None:
    assert History().epoch != History().epoch
    assert History(epoch="k3f9").position == "k3f9:0"


@pytest.mark.parametrize(
    ("topics", "payload_size", "form"),
    [
        (1, 100, "sensors/device-{}/state"),
        (2_000, 20, "sensors/device-{}/state"),
        (20_000, 100, "sensors/device-{}/state"),
        (3_000, 20, "{}" + "/level" * 127),
        (3_000, 20, "{}" + "/" * 127),
    ],
)
@pytest.mark.slow
def test_the_counted_bytes_are_what_the_memory_is(topics: int, payload_size: int, form: str) -> None:
    generator = random.Random(1)
    names = [form.format(number) for number in range(topics)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    history = History(max_bytes=12 * 2**20)
    for number in range(30_000 if "device" in form else 1_500):
        history.append(
            generator.choice(names), bytes(generator.randbytes(payload_size // 2).hex(), "ascii"), number * 1_000
        )
    gc.collect()
    real = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"{history.topic_count} topics, {history.message_count} messages: counted {history.bytes}, real {real}")
    assert real <= history.bytes * 1.05
    assert real >= history.bytes * 0.5


def test_what_matches_is_found_once_and_kept_up_as_topics_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.history.NEW_TOPICS", 20)
    walks: list[int] = []
    find = TopicTree.find

    def counted(tree: TopicTree[Topic], *arguments: Any) -> Generator[list[Topic], None, bool]:
        walks.append(1)
        return find(tree, *arguments)

    monkeypatch.setattr(TopicTree, "find", counted)
    history = History(max_topics=300, max_messages=2)
    filters = FilterSet(["s/+/x", "s/1/#", "+/9/#"])

    def check() -> None:
        names = list(history._topics)
        wanted = {name for name in names if any(matches(f, name) for f in filters.filters)}
        found = finished(history.match(filters))
        assert len(found) == len(wanted)
        assert {state.name for state in found} == wanted
        assert count_kept(history, filters, 0, history.seq) == sum(len(history._topics[name]) for name in wanted)
        read = read_all(history, filters, 0, history.seq)
        assert {message.topic for message in read} == wanted

    generator = random.Random(3)
    monkeypatch.setattr("gateway.core.history.SCAN_LIMIT", 4)
    for step in range(300):
        for _ in range(generator.choice([1, 1, 1, 5, 30])):
            history.append(f"s/{generator.randrange(300)}/{generator.choice('xy')}", b"1", step)
        check()
    assert history.dropped_topics > 50
    # with hardly any new topics: not one walk for all of it
    walks.clear()
    for step in range(50):
        history.append(f"s/new-{step % 10}/x", b"1", 2_000 + step)
        check()
        assert count_lost(history, filters, 0) is None
        finished(reaches(history, filters, 0))
    assert not walks


def test_the_lists_of_matching_topics_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.history.MATCH_LIST_TOPICS", 350)
    history = History()
    for number in range(100):
        history.append(f"s/{number}", b"1", number)
    for number in range(200):
        assert len(finished(history.match(FilterSet(["s/+", f"x/{number}"])))) == 100
        assert len(finished(history.match(FilterSet([f"s/{number}/#"])))) == (number < 100)
        assert len(history._match_lists) <= MATCH_LISTS
        assert sum(len(each.topics) for each in history._match_lists.values()) <= 350


@settings(max_examples=300, deadline=None)
@given(
    ticks=st.lists(st.sampled_from([0, 1, 700, 4_000, -1, -900, -1_000, -5_000, -60_000]), min_size=1, max_size=60),
    topics=st.lists(st.sampled_from(["a", "b", "c"]), min_size=60, max_size=60),
    max_messages=st.integers(1, 10),
    max_steps=st.sampled_from([0, 2, 64]),
)
@pytest.mark.slow
def test_a_clock_that_is_set_back_hides_no_message(
    ticks: list[int], topics: list[str], max_messages: int, max_steps: int
) -> None:
    everything: list[Message] = []
    steps: list[tuple[int, int]] = []
    now = 10_000_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.core.history.MAX_STEPS", max_steps)
        history = History(max_messages=max_messages)
        for tick, topic in zip(ticks, topics, strict=False):
            now += tick
            message = history.append(topic, b"", now)
            assert message is not None
            if everything and message.time < everything[-1].time:
                steps.append((message.seq, message.time))
            # what clients are shown is what the clock says, or said before a small step
            assert message.time == now or everything[-1].time == message.time > now
            assert message.time == now or message.time - now < 1_000 or max_steps < 64
            everything.append(message)
    kept = {message.seq for message in history._log}
    for time in {message.time + offset for message in everything for offset in (-1, 0, 1)}:
        after = history.before_time(time)
        assert all(m.seq > after for m in everything if m.seq in kept and m.time >= time)
        if not steps:
            assert all(m.time >= time for m in everything if m.seq in kept and m.seq > after)
        arrived = [m for m in everything if min([m.time, *(t for seq, t in steps if seq > m.seq)]) >= time]
        assert finished(reaches(history, FilterSet(["#"]), time)) == all(m.seq in kept for m in arrived)


def test_an_age_is_counted_on_after_the_clock_was_set_back() -> None:
    history = History(max_age_ms=60_000)
    for time in (10_000_000, 10_001_000, 5_000_000, 5_001_000):
        history.append("a", b"", time)
    history.expire(5_059_000)
    assert history.message_count == 4
    history.expire(5_060_500)
    assert history.message_count == 1
    assert finished(reaches(history, FilterSet(["a"]), 5_000_500))
    assert not finished(reaches(history, FilterSet(["a"]), 5_000_000))


def test_messages_expire_although_no_more_arrive_and_in_small_steps() -> None:
    history = History(max_age_ms=1_000, max_messages=10_000)
    for time in range(5_000):
        history.append("a", b"", time)
    history.append("b", b"", 4_999)
    assert history.message_count == 1_002
    assert not history.expire(5_000)
    assert history.message_count == 1_001
    assert history.expire(1_000_000, at_most=100)
    assert history.message_count == 901
    while history.expire(1_000_000):
        pass
    assert [state.last.payload for state in history.topics() if state.last is not None] == [b"", b""]
    assert history.message_count == 2  # the last values
    assert count_lost(history, FilterSet(["#"]), history.seq - 101) == 99
    # the clock jumps ahead: one append doesn't take out all of it
    history = History(max_age_ms=1_000_000, max_messages=10_000)
    for time in range(5_000):
        history.append("a", b"", time)
    history.append("a", b"", 10_000_000)
    assert history.message_count == 5_000 - EXPIRED_AT_ONCE


@pytest.mark.slow
def test_an_evicted_message_is_not_held_any_more() -> None:
    def names(topics: int) -> list[str]:
        return [f"s/{number}" for number in range(topics)]

    for topics, max_messages in ((100, 1_000), (3, 50)):
        history = History(max_bytes=300_000, max_messages=max_messages)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(60):
            for name in names(topics):
                history.append(name, b"x" * 1_000, number)
        real = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert history.evicted > 0
        assert real <= history.bytes * 1.05


def test_a_log_that_begins_anew_decodes_as_before() -> None:
    history = History()
    history.decode_by(lambda _: lambda _topic, _payload: b'{"x":1}')
    history.append("a", b"\x01", 1)
    history.begin_anew("e2", 5, 1)
    message = history.append("a", b"\x01", 2)
    assert message is not None
    assert (message.seq, message.decoded) == (6, b'{"x":1}')

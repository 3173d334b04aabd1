"""Replays that reach beyond memory: file, memory and live messages follow each other without a seam."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.shapes import Shape
from gateway.core.since import Since, SinceKind
from gateway.core.topics import matches
from tests.fakes import FakeSocket
from tests.support.archives import NOW, Life

Lives = Callable[..., Life]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Lives]:
    lives: list[Life] = []

    def begin(**options: Any) -> Life:
        lives.append(Life(tmp_path / "archive.db", **options))
        return lives[-1]

    yield begin
    for life in lives:
        life.close()


def position(life: Life, seq: int) -> Since:
    return Since(SinceKind.POSITION, epoch=life.history.epoch, seq=seq)


def join(life: Life, since: Since, *filters: str, shape: Shape | None = None) -> FakeSocket:
    """A subscriber, when its replay is over."""
    client = FakeSocket(life.hub, shape=shape)
    life.hub.subscribe(client.subscriber, filters, since, replay_id=1)
    life.loop.until(lambda: bool(client.events("replayed")), "the replay is over")
    return client


def fill(life: Life, count: int, topics: int = 1) -> list[int]:
    for number in range(count):
        life.publish(f"a/{number % topics}", b"%d" % number)
    return list(range(1, count + 1))


def test_a_position_that_memory_has_forgotten_is_recovered_from_the_file(live: Lives) -> None:
    life = live(max_messages=5)
    numbers = fill(life, 100)
    life.flush()
    client = join(life, position(life, 10), "#")
    assert client.seqs == numbers[10:]
    assert client.events("gap") == []
    life.publish("a/0")
    life.loop.run()
    assert client.seqs == [*numbers[10:], 101]


def test_what_is_not_on_the_disk_yet_is_waited_for(live: Lives) -> None:
    life = live(max_messages=5)
    numbers = fill(life, 30)
    client = join(life, position(life, 0), "#")
    assert client.seqs == numbers
    assert client.events("gap") == []


@pytest.mark.parametrize("at", [0, 1, 37, 94, 95, 99, 100, 200])
def test_a_time_reaches_as_far_back_as_the_file(live: Lives, at: int) -> None:
    life = live(max_messages=5)
    numbers = fill(life, 100)
    life.flush()
    client = FakeSocket(life.hub)
    since = Since(SinceKind.TIME, time=NOW + 1 + at)
    answer = life.hub.subscribe(client.subscriber, ["#"], since, replay_id=1)
    told: list[bool | None] = []
    answer.when_known(lambda known: told.append(known.recovered))
    life.loop.until(lambda: bool(client.events("replayed")))
    assert client.seqs == numbers[at:]
    assert told == [True]
    assert answer.after == min(at, 100)
    assert client.events("gap") == []


def test_topics_that_memory_has_whole_are_not_read_from_the_file(live: Lives) -> None:
    life = live(max_messages=5)
    life.publish("rare")
    fill(life, 50)
    life.publish("rare")
    life.flush()
    client = join(life, position(life, 0), "rare")
    assert client.seqs == [1, 52]
    assert life.archive.reader.questions == 0
    # and a client that asks for all
    assert join(life, position(life, 40), "#").seqs == list(range(41, 53))


def test_the_log_of_the_run_before_is_there(live: Lives) -> None:
    first = live(max_messages=5)
    numbers = fill(first, 60, topics=3)
    where = position(first, 7)
    first.close()
    second = live(max_messages=5, now_ms=NOW + 1_000)
    for number in range(10):
        second.publish("a/1", b"%d" % number)
    client = join(second, where, "a/1")
    assert client.seqs == [seq for seq in numbers if seq > 7 and seq % 3 == 2] + list(range(61, 71))
    assert client.events("gap") == []


def test_frames_from_the_file_are_byte_for_byte_those_that_live_subscribers_got(live: Lives) -> None:
    life = live(max_messages=2)
    watcher = FakeSocket(life.hub)
    life.hub.subscribe(watcher.subscriber, ["#"], Since(SinceKind.NOW))
    for payload in (b"21.5", b'{"a": 1}', b"on", b"\xff\x00", b"", b'"\xc3\xa4"', b"1e999"):
        life.publish("a/b", payload, qos=1, properties={"content_type": "x", "user_properties": [("k", "v")]})
        life.loop.run(0.01)
    life.flush()
    client = join(life, position(life, 0), "#")
    assert [body for body in client.bodies if b'"seq"' in body] == watcher.bodies


def test_only_the_message_that_the_broker_keeps_says_so(live: Lives) -> None:
    life = live(max_messages=2)
    life.history.retained_as_published = True
    for number in range(5):
        life.publish("a", b"%d" % number, retained=True)
    life.flush()
    client = join(life, position(life, 0), "#")
    assert [message.get("retained", False) for message in client.messages] == [False, False, False, False, True]


def test_what_has_expired_is_not_shown(live: Lives) -> None:
    life = live(max_messages=2)
    life.publish("a", b"short", properties={"message_expiry_interval": 5})
    fill(life, 10)
    life.flush()
    life.now += 6_000
    life.loop.now = life.now / 1000
    client = join(life, Since(SinceKind.TIME, time=NOW), "#")
    assert client.seqs == list(range(2, 12))


def test_a_slow_reader_loses_nothing_that_the_file_has(live: Lives) -> None:
    life = live(max_messages=5)
    client = FakeSocket(life.hub, capacity=100, stuck=True)
    life.hub.subscribe(client.subscriber, ["a/#"], Since(SinceKind.NOW))
    life.loop.run()
    for _ in range(20):
        fill(life, 20, topics=2)
        life.loop.run(0.01)
    client.is_stuck = False
    client.drain()
    life.loop.until(lambda: len(client.messages) == 400, "it has caught up")
    assert client.seqs == list(range(1, 401))
    assert client.events("gap") == []
    assert life.hub.counts(client.subscriber) == (400, 0, 0)
    life.publish("a/1")
    life.loop.run()
    assert client.seqs[-1] == 401


def test_what_the_disk_was_too_slow_for_is_told_with_its_number(live: Lives) -> None:
    life = live(max_messages=5, max_bytes=1)
    client = FakeSocket(life.hub, capacity=100, stuck=True)
    life.hub.subscribe(client.subscriber, ["a/#"], Since(SinceKind.NOW))
    life.loop.run()
    for _ in range(6):
        fill(life, 10)
        life.archive.writer.hand_over()
        life.loop.run(0.01)
    assert life.archive.writer.counters.dropped > 0
    client.is_stuck = False
    client.drain()
    life.publish("a/0")
    life.archive.writer.hand_over()
    life.loop.until(lambda: 61 in client.seqs, "it has caught up")
    delivered, skipped, lost = life.hub.counts(client.subscriber)
    assert (delivered + lost, skipped) == (61, 0)
    assert lost == client.told_lost > 0
    assert len(client.seqs) == len(set(client.seqs)) == delivered
    # who comes with a position is told, too, before anything else
    late = join(life, position(life, 0), "#")
    assert late.objects[0]["event"] == "gap"
    assert late.seqs == client.seqs


def test_a_block_that_can_not_be_read_is_a_gap(live: Lives, tmp_path: Path) -> None:
    import sqlite3

    life = live(max_messages=29)
    for _ in range(5):
        fill(life, 10)
        life.flush()
    connection = sqlite3.connect(tmp_path / "archive.db")
    connection.execute("UPDATE blocks SET data = x'01ff' WHERE first_seq = 21")
    connection.commit()
    connection.close()
    client = join(life, position(life, 0), "#")
    assert client.seqs == [*range(1, 21), *range(22, 51)]
    assert client.told_lost == 1  # of the others memory has still a copy
    assert [gap["reason"] for gap in client.events("gap")] == ["evicted"]
    by_time = join(life, Since(SinceKind.TIME, time=NOW), "#")
    assert by_time.seqs == client.seqs
    assert [gap["reason"] for gap in by_time.events("gap")] == ["evicted"]


def test_a_shape_is_made_of_the_file_as_of_memory(live: Lives) -> None:
    life = live(max_messages=5)
    fill(life, 100)
    life.flush()
    client = join(life, position(life, 0), "#", shape=Shape(max_hz=10))
    assert client.messages[-1]["payload"] == 99
    assert len(client.messages) < 10
    delivered, skipped, lost = life.hub.counts(client.subscriber)
    assert (delivered + skipped, lost) == (100, 0)


def test_those_who_come_back_together_are_read_for_once(live: Lives) -> None:
    life = live(max_messages=5)
    fill(life, 500)
    life.flush()
    clients = []
    for _ in range(20):
        clients.append(FakeSocket(life.hub))
        life.hub.subscribe(clients[-1].subscriber, ["#"], position(life, 10), replay_id=1)
    life.loop.until(lambda: all(client.events("replayed") for client in clients))
    assert all(client.seqs == list(range(11, 501)) for client in clients)
    assert life.archive.reader.messages == 485


def test_overlapping_filters_give_each_message_once(live: Lives) -> None:
    life = live(max_messages=3)
    fill(life, 60, topics=4)
    life.flush()
    client = FakeSocket(life.hub)
    for number, topic_filter in enumerate(["a/1", "a/+", "#"]):
        since = Since(SinceKind.TIME, time=NOW + 40 - 15 * number)
        life.hub.subscribe(client.subscriber, [topic_filter], since, replay_id=number)
        life.loop.until(lambda n=number: len(client.events("replayed")) == n + 1)  # type: ignore[misc]
    assert sorted(client.seqs) == list(range(10, 61))


def test_a_filter_that_is_taken_away_while_the_file_is_read(live: Lives) -> None:
    life = live(max_messages=3)
    fill(life, 200, topics=4)
    life.flush()
    client = FakeSocket(life.hub)
    life.hub.subscribe(client.subscriber, ["a/1", "a/2"], position(life, 0), replay_id=1)
    life.hub.unsubscribe(client.subscriber, ["a/1"])
    life.loop.until(lambda: bool(client.events("replayed")))
    assert client.seqs == [seq for seq in range(1, 201) if (seq - 1) % 4 == 2]


def test_the_end_of_the_archive_ends_what_waits_for_it(live: Lives) -> None:
    life = live(max_messages=3)
    fill(life, 50)
    client = FakeSocket(life.hub)
    life.hub.subscribe(client.subscriber, ["#"], position(life, 0), replay_id=1)
    life.close()
    life.loop.until(lambda: bool(client.events("replayed")))
    [gap] = client.events("gap")
    assert (client.seqs, gap["reason"], gap["lost"]) == ([48, 49, 50], "evicted", 47)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["a/1", "a/2", "b", "c"]), max_size=40),
    st.sampled_from(["#", "a/#", "b", "+/2"]),
    st.integers(0, 41),
    st.integers(0, 41),
)
def test_above_the_floor_memory_has_everything(topics: list[str], wanted: str, after: int, until: int) -> None:
    history = History(max_messages=2, max_topics=3)
    for number, topic in enumerate(topics):
        history.append(topic, b"", number)
    after, until = min(after, history.seq), min(until, history.seq)
    floor = history.floor(FilterSet([wanted]), after, until)
    assert after <= floor <= max(after, until)
    found = history.read(FilterSet([wanted]), floor, until).messages
    expected = [seq for seq, topic in enumerate(topics, start=1) if floor < seq <= until and matches(wanted, topic)]
    assert [message.seq for message in found] == expected


def test_a_crash_before_anything_was_written_is_no_sign_that_the_file_begins_late(live: Lives) -> None:
    live().crash()
    life = live(max_messages=2)
    fill(life, 10)
    life.flush()
    client = join(life, Since(SinceKind.TIME, time=NOW), "#")
    assert len(client.seqs) == 10
    assert client.events("gap") == []


filters = st.lists(st.sampled_from(["#", "a/#", "a/1", "+/2", "b"]), min_size=1, max_size=2, unique=True)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(filters, st.integers(0, 120), st.booleans()), min_size=1, max_size=3), st.integers(0, 2**32))
def test_whatever_is_asked_for_comes_whole_and_once(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[list[str], int, bool]], seed: int
) -> None:
    chance = random.Random(seed)
    life = Life(tmp_path_factory.mktemp("any") / "archive.db", max_messages=chance.choice([1, 3, 20]), max_topics=3)
    try:
        topics: dict[int, str] = {}
        times: dict[int, int] = {}  # a flush may take its time

        def publish(count: int) -> None:
            for _ in range(count):
                topic = chance.choice(["a/1", "a/2", "b", "c/2"])
                message = life.publish(topic)
                assert message is not None
                topics[message.seq] = topic
                times[message.seq] = message.time
                if chance.random() < 0.05:
                    life.flush()

        publish(120)
        clients: list[tuple[FakeSocket, list[str], int]] = []
        for wanted, seq, is_time in asked:
            client = FakeSocket(life.hub)
            time = NOW + seq + 1
            since = Since(SinceKind.TIME, time=time) if is_time else position(life, seq)
            life.hub.subscribe(client.subscriber, wanted, since, replay_id=1)
            after = max((n for n in times if times[n] < time), default=0) if is_time else seq
            clients.append((client, wanted, after))
            publish(chance.randrange(30))
            if chance.random() < 0.5:
                life.loop.run()
        life.loop.until(lambda: all(client.events("replayed") for client, _, _ in clients))
        publish(5)
        for client, wanted, after in clients:
            expected = [n for n, topic in topics.items() if n > after and any(matches(f, topic) for f in wanted)]
            for _ in range(10):
                # what memory has let go in between is read when it is on the disk
                life.loop.run(1.0)
                life.loop.until(lambda: life.archive.reader.is_idle and not life.archive.writer.waiting_bytes)
            assert client.seqs == expected
            assert client.events("gap") == []
    finally:
        life.close()

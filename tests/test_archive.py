"""The archive: a log that was closed and opened again is the log that it was; after a crash it is a beginning of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.archive import archive as archive_module
from gateway.archive import restoring
from tests.support.archives import Life, seen

NOW = 1_700_000_000_000


Lives = Callable[..., Life]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


@pytest.fixture
def live(path: Path) -> Iterator[Lives]:
    lives: list[Life] = []

    def begin(**options: Any) -> Life:
        lives.append(Life(path, **options))
        return lives[-1]

    yield begin
    for life in lives:
        life.close()


def test_after_an_orderly_end_the_log_is_what_it_was(live: Lives) -> None:
    first = live()
    first.history.retained_as_published = True
    for number in range(50):
        first.publish(f"a/{number % 7}", b"%d" % number, qos=number % 3)
    first.publish("kept", b"on", retained=True, properties={"content_type": "text/plain"})
    first.publish("binary", b"\xff\x00")
    before = seen(first.history)
    first.close()
    second = live(now_ms=NOW + 10_000)
    assert second.restored == before
    assert second.history.crashes == []
    assert second.history.evicted_seq == 0


@pytest.mark.parametrize("published", [True, False])
def test_a_retained_message_that_the_broker_sends_again_is_no_news_to_the_next(live: Lives, published: bool) -> None:
    first = live()
    first.history.retained_as_published = published
    first.publish("a", b"on", retained=True)
    if published:
        first.publish("a", b"passing")  # the broker still keeps the one before
    first.close()
    second = live()
    second.history.retained_as_published = published
    assert second.publish("a", b"on", retained=True, repeat=1) is None
    assert second.publish("a", b"off", retained=True, repeat=2) is not None


def test_after_a_crash_the_log_is_what_was_written_and_goes_on_behind_the_reservation(
    live: Lives,
) -> None:
    first = live()
    for number in range(20):
        first.publish(f"a/{number % 3}", b"%d" % number)
    first.flush()
    before = seen(first.history)
    first.publish("a/0", b"never written")
    first.crash()
    second = live()
    assert second.restored["topics"] == before["topics"]
    assert second.history.seq > 20
    assert second.history.crashes == [(21, second.history.seq)]
    assert second.history.epoch == first.history.epoch
    message = second.publish("a/0")
    assert message is not None
    assert message.seq == second.history.crashes[0][1] + 1
    assert second.history.crashed_between(20, second.history.seq)
    assert second.history.crashed_between(25, second.history.seq)
    assert not second.history.crashed_between(message.seq - 1, message.seq)
    assert not second.history.crashed_between(0, 20)


def test_counts_and_last_values_survive_a_crash_between_snapshots(live: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "FILL_MESSAGES", 3)
    first = live()
    for number in range(30):
        first.publish(f"a/{number % 10}", b"%d" % number)
    first.flush()
    first.loop.run(archive_module.SNAPSHOT_SECONDS)
    for _ in first.archive.maybe_snapshot():
        first.publish("a/during")  # a walk over many topics takes some turns
    for number in range(30, 33):
        first.publish(f"a/{number % 10}", b"%d" % number)
        first.flush()
    first.publish("b", b"new")
    first.flush()
    expected = {topic.name: (topic.count, topic.last and topic.last.frame) for topic in first.history.topics()}
    first.crash()
    second = live()
    assert second.archive._file.snapshot_seq == 30
    assert {t.name: (t.count, t.last and t.last.frame) for t in second.history.topics()} == expected
    # memory has the last three messages whole, and says that before them it has not
    assert second.history.evicted_seq == second.history.dropped_seq == first.history.seq - 3
    assert second.history.evicted_time >= NOW + 30


def test_what_is_too_old_for_memory_is_not_taken_into_it(live: Lives) -> None:
    first = live()
    for _ in range(5):
        first.publish("a")
    first.flush()
    first.close()
    second = live(now_ms=NOW + 3_600_000, max_age_ms=60_000)
    state = second.history.topic("a")
    assert state is not None
    assert (state.count, len(state), state.last and state.last.seq) == (5, 1, 5)
    assert second.history.evicted_seq == 5


def test_a_message_whose_interval_has_ended_meanwhile_is_not_shown(live: Lives) -> None:
    first = live()
    first.publish("a", properties={"message_expiry_interval": 5})
    first.close()
    second = live(now_ms=NOW + 6_000)
    state = second.history.topic("a")
    assert state is None or state.last is None


def test_a_block_that_is_damaged_costs_no_more_than_itself(live: Lives, path: Path) -> None:
    first = live()
    for _ in range(3):
        first.publish("a")
        first.publish("b")
        first.flush()
    first.crash()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE blocks SET data = x'00' WHERE first_seq = 3")
    connection.commit()
    connection.close()
    second = live()
    assert second.archive.set_aside is None
    assert [m.seq for m in second.history.topic("a").after(0)] == [1, 5]  # type: ignore[union-attr]


def test_a_file_that_is_damaged_inside_is_set_aside_and_the_numbers_go_on(live: Lives, path: Path) -> None:
    first = live()
    for _ in range(400):
        first.publish("a", b"x" * 50)
    first.flush()
    first.close()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM topics")
    connection.commit()
    connection.close()
    second = live()
    assert second.archive.set_aside is not None
    assert second.history.epoch == first.history.epoch
    message = second.publish("a")
    assert message is not None
    assert message.seq == 401
    second.flush()
    second.close()
    third = live()
    assert third.history.seq == 401


def test_snapshots_are_rare_where_they_would_be_most_of_what_is_written(live: Lives) -> None:
    life = live()

    def take() -> bool:
        before = life.archive._snapshot_at
        list(life.archive.maybe_snapshot())
        return life.archive._snapshot_at != before

    for number in range(1_000):
        life.publish(f"topic/{number}", b"x" * 20)
    life.flush()
    assert not take()  # too soon
    life.loop.run(archive_module.SNAPSHOT_SECONDS)
    assert take()
    life.loop.run(archive_module.SNAPSHOT_SECONDS)
    assert not take()  # nothing was written since
    life.publish("topic/1")
    life.flush()
    assert not take()  # too little
    life.loop.run(archive_module.SNAPSHOT_LATEST_SECONDS)
    assert take()

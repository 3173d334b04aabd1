"""Retention by rule: what is due goes and nothing else, in small steps, and nobody is told that it is still there."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.archive import thinning
from gateway.archive.blocks import Batch, encode_states
from gateway.archive.file import ArchiveFile, SnapshotParts
from gateway.archive.keeping import Extent, Keep, Rules, rules_from, rules_text
from gateway.archive.offline import Offline
from gateway.core.filters import FilterSet
from gateway.core.messages import Message
from gateway.core.since import Since, SinceKind
from gateway.core.topics import matches
from tests.fakes import FakeSocket
from tests.support.archives import NOW, Life
from tests.test_topics_api import ask, running

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
START = 1_700_006_400_000  # a day begins
NAMES = ("a/x", "a/y", "b/x", "c")
FIRST_FORM = (
    "DROP TABLE thinned",
    "DROP TABLE texts",
    "ALTER TABLE series RENAME TO newer",
    "CREATE TABLE series (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, field TEXT NOT NULL, UNIQUE (topic, field))",
    "INSERT INTO series SELECT id, topic, field FROM newer WHERE NOT is_text",
    "DROP TABLE newer",
    "ALTER TABLE blocks DROP COLUMN count",
    "PRAGMA user_version = 1",
)
"""What makes a file that has nothing newer one of the first form."""


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


class Kept:
    """A file with rules, and all that was ever written to it."""

    def __init__(self, path: Path, *keeps: Keep) -> None:
        self.path, self.clock, self.rules = path, Clock(), Rules(keeps)
        self.log: list[tuple[int, str, int]] = []
        self.open()

    def open(self) -> None:
        self.file = ArchiveFile(self.path, rules=self.rules, wall_clock_ms=self.clock)
        self.file._connection.execute("PRAGMA synchronous = OFF")  # no power is cut here

    def write(self, names: Sequence[str], *, span: int = 0, blocks: int = 1) -> None:
        """Blocks of a message to each topic, `span` milliseconds from one to the next."""
        for _ in range(blocks):
            first = max(self.file.last_seq, self.file.seq) + 1
            batch = Batch(first)
            for seq, name in enumerate(names, first):
                payload = json.dumps({"v": seq}).encode()
                batch.add(Message.arrived(seq, name, payload, self.clock.now), payload)
                self.log.append((seq, name, self.clock.now))
            self.file.append([batch])
            self.clock.now += span
        self.snapshot()

    def snapshot(self) -> None:
        self.file.append([], snapshot=SnapshotParts(self.file.last_seq, [encode_states(False, [])]))

    def end(self) -> None:
        self.file.append([], end=self.file.last_seq)
        self.file.close()

    def chores(self, most: int = 10_000) -> int:
        return next(number for number in range(most) if not self.file.do_chore())

    def left(self, topic_filter: str = "#") -> list[int]:
        found = Offline(self.path)
        assert [fault for fault in found.verify() if fault] == []
        seqs = [message.seq for message in found.messages(FilterSet([topic_filter]), 0, 2**62)]
        assert found.info().messages == len(seqs) or topic_filter != "#"
        found.close()
        return seqs

    def seqs(self, name: str, before: int | None = None, since: int = 0) -> list[int]:
        return [seq for seq, topic, at in self.log if topic == name and at >= since and (before is None or at < before)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


def test_of_a_topic_the_first_rule_counts() -> None:
    rules = Rules([Keep(("a/x",), raw=5), Keep(("a/#", "b/#"), raw=7, minute=9), Keep(("#",), hour=3)])
    assert [rules.place_of(name) for name in NAMES] == [0, 1, 1, 2]
    assert Rules([Keep(("a",))]).place_of("b") is None
    assert list(rules.of("raw")) == [(0, 5), (1, 7)]
    assert rules_from(rules_text(rules)).keeps == rules.keeps
    taken = rules.thinned(1, "raw", 100)
    asked = {"a/x": False, "a/y": True, "a/+": True, "+/x": True, "c": False, "#": True, "b/#": True}
    assert {text: taken.may_meet(FilterSet([text])) for text in asked} == asked
    assert not Rules([Keep(("a/#",)), Keep(("#",), raw=1)]).thinned(1, "raw", 5).may_meet(FilterSet(["a/x", "a/b/#"]))
    extent = Extent(1, (taken, rules.thinned(1, "minute", 50)), {"minute": 20})
    assert (extent.begins("minute", FilterSet(["b/x"])), extent.begins("minute", FilterSet(["c"]))) == (50, 20)
    assert extent.is_thinned(FilterSet(["b/x"]), 99)
    assert not extent.is_thinned(FilterSet(["b/x"]), 100)


def test_what_is_due_goes_out_of_blocks_of_many_topics_and_nothing_else(path: Path) -> None:
    kept = Kept(path, Keep(("a/x",), raw=HOUR), Keep(("a/#",), raw=3 * HOUR))
    kept.write(NAMES, span=20 * SECOND, blocks=900)  # five hours
    kept.clock.now += 10 * MINUTE
    kept.chores()
    now = kept.clock.now
    for name, age in (("a/x", HOUR), ("a/y", 3 * HOUR)):
        left = kept.left(name)
        wanted = kept.seqs(name, since=now - age)
        assert left[-len(wanted) :] == wanted
        assert len(left) - len(wanted) <= 180  # a block goes as a whole, and has an hour at most
    for name in ("b/x", "c"):
        assert kept.left(name) == kept.seqs(name)
    one, two = kept.file.extent.thinned
    assert {one.topics, two.topics} == {("a/x",), ("a/#",)}
    kept.file.close()


def test_blocks_of_which_nothing_is_left_are_joined_to_stretches_of_numbers(path: Path) -> None:
    kept = Kept(path, Keep(("a/#",), raw=HOUR))
    kept.write(["c"], span=SECOND)
    kept.write(["a/x"], span=20 * SECOND, blocks=1_000)
    kept.clock.now += 2 * HOUR
    kept.write(["c"])
    kept.chores()
    assert kept.left() == [1, 1_002]
    assert kept.file._connection.execute("SELECT count(*) FROM blocks").fetchone()[0] < 20
    # of others it is known that nothing is missing
    assert not kept.file.extent.is_thinned(FilterSet(["c"]), 0)
    assert kept.file.extent.is_thinned(FilterSet(["#"]), 0)
    assert kept.file.first_seq == 1
    kept.file.close()


def test_small_blocks_are_joined_when_they_are_an_hour_old(path: Path) -> None:
    kept = Kept(path)
    kept.write(["a/x", "c"], span=5 * SECOND, blocks=3_000)
    before = path.stat().st_size
    kept.chores()
    count = kept.file._connection.execute("SELECT count(*) FROM blocks").fetchone()[0]
    assert count < 3_000 / 3
    assert kept.left() == list(range(1, 6_001))
    young = kept.clock.now - HOUR
    query = "SELECT max(max_time - min_time), max(max_time) FROM blocks WHERE last_seq > first_seq + 1"
    span, newest = kept.file._connection.execute(query).fetchone()
    assert span <= thinning.JOINED_SPAN_MS
    assert newest < young
    # and once more there is nothing to do
    kept.clock.now += thinning.PASS_MS
    assert kept.chores() == 0
    kept.file.close()
    assert path.stat().st_size < before + 10**6


def test_blocks_are_joined_neither_over_holes_nor_where_the_clock_was_set_back(path: Path) -> None:
    kept = Kept(path)
    kept.write(["c"], span=SECOND, blocks=5)
    kept.file.close()  # a crash
    kept.open()
    kept.write(["c"], span=SECOND, blocks=5)
    kept.clock.now -= 3 * HOUR
    kept.write(["c"], span=SECOND, blocks=5)
    kept.clock.now += 3 * HOUR
    kept.write(["c"], span=2 * HOUR, blocks=2)
    kept.chores()
    assert kept.left() == [seq for seq, *_ in kept.log]
    rows = list(kept.file._connection.execute("SELECT first_seq, last_seq FROM blocks ORDER BY first_seq"))
    second, third = kept.log[5][0], kept.log[10][0]
    assert rows[:3] == [(1, 5), (second, second + 4), (third, third + 4)]
    kept.file.close()


def test_nothing_goes_that_the_snapshot_or_the_roll_ups_do_not_have(path: Path) -> None:
    kept = Kept(path, Keep(("#",), raw=MINUTE))
    kept.write(["c"], span=SECOND, blocks=3)
    first = kept.file.snapshot_seq
    batch = Batch(4)
    batch.add(Message.arrived(4, "c", b"{}", kept.clock.now), b"{}")
    kept.file.append([batch])
    kept.clock.now += DAY
    kept.chores()
    assert first == 3
    assert kept.left() == [1, 2, 3, 4]  # the minute is still under way
    kept.write(["c"])
    kept.clock.now += thinning.PASS_MS
    kept.chores()
    assert kept.left() == [5]
    assert sum(points["count"] for points in rolled(kept, "c", 0)) == 3  # one of them is without
    kept.file.close()


def rolled(kept: Kept, topic: str, level: int) -> Iterator[dict[str, Any]]:
    found = Offline(kept.path)
    for _, points in found.points(FilterSet([topic]), level, 0, 2**62):
        yield from points.shown()
    found.close()


def test_roll_ups_go_by_level_and_live_longer_than_messages(path: Path) -> None:
    kept = Kept(path, Keep(("a/#",), raw=HOUR, minute=2 * DAY, hour=10 * DAY), Keep(("b/#",), minute=5 * DAY))
    for _ in range(15 * 24):
        kept.write(NAMES, span=HOUR)
    kept.chores()
    now = kept.clock.now
    assert len(kept.left("a/#")) < 10
    counts = {
        (name, level): sum(point["count"] for point in rolled(kept, name, level)) / 24
        for name in ("a/x", "b/x", "c")
        for level in (0, 1)
    }
    assert counts["a/x", 0] == pytest.approx(2, abs=0.2)
    assert counts["a/x", 1] == pytest.approx(10, abs=2.1)
    assert counts["b/x", 0] == pytest.approx(5, abs=0.2)
    assert counts["b/x", 1] == counts["c", 1] == pytest.approx(15, abs=1)
    extent = kept.file.extent
    assert now - 2 * DAY - HOUR <= extent.begins("minute", FilterSet(["a/x"])) <= now - 2 * DAY
    assert now - 11 * DAY <= extent.begins("hour", FilterSet(["a/x"])) <= now - 10 * DAY
    assert extent.begins("hour", FilterSet(["b/x", "c"])) == extent.begins("minute", FilterSet(["c"])) == 0
    kept.file.close()


def test_what_went_stays_told_when_the_rule_is_gone(path: Path) -> None:
    kept = Kept(path, Keep(("a/#",), raw=HOUR))
    kept.write(NAMES, span=MINUTE, blocks=200)
    kept.chores()
    until = max(each.until for each in kept.file.extent.thinned)
    kept.file.close()
    kept.rules = Rules()
    kept.open()
    assert kept.file.extent.is_thinned(FilterSet(["a/x"]), until - 1)
    assert not kept.file.extent.is_thinned(FilterSet(["b/x"]), 0)
    kept.file.close()


def test_a_clock_that_was_wrong_for_a_while_takes_nothing_too_early_and_keeps_nothing_for_ever(path: Path) -> None:
    kept = Kept(path, Keep(("#",), raw=DAY))
    kept.clock.now = 1_000  # before it was set
    kept.write(["c"], span=SECOND, blocks=2)
    kept.clock.now = START
    kept.write(["c"], span=SECOND, blocks=2)
    kept.clock.now = START + 400 * DAY  # a year too late
    kept.write(["c"], span=SECOND, blocks=2)
    kept.clock.now = START + MINUTE
    kept.write(["c"], span=MINUTE, blocks=2)
    kept.chores()
    assert kept.left() == [3, 4, 5, 6, 7, 8]
    kept.clock.now += DAY
    kept.write(["c"], span=MINUTE, blocks=2)
    kept.chores()
    assert kept.left() == [9, 10]
    kept.file.close()


def test_a_damaged_block_holds_up_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(path, Keep(("a/#",), raw=HOUR))
    kept.write(NAMES, span=MINUTE, blocks=3)
    kept.file._connection.execute("UPDATE blocks SET data = x'00' WHERE first_seq = 5")
    kept.clock.now += DAY
    kept.write(["c"])
    kept.chores()
    assert "can't be thinned" in caplog.text
    rows = dict(kept.file._connection.execute("SELECT first_seq, count FROM blocks"))
    assert rows[1] == rows[9] == 2
    kept.file.close()


def test_a_step_is_short_and_there_are_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) * 0.01)
    kept = Kept(path, Keep(("a/#",), raw=HOUR))
    kept.write(NAMES, span=MINUTE, blocks=300)
    written = [0]

    def count(statement: str) -> None:
        written[0] += statement.startswith("UPDATE blocks SET topics")

    kept.chores()
    kept.write(NAMES, span=MINUTE, blocks=300)
    kept.file._connection.set_trace_callback(count)
    most = steps = 0
    kept.clock.now += HOUR
    while kept.file.do_chore():
        steps += 1
        most, written[0] = max(most, written[0]), 0
    assert steps > 50
    assert 0 < most <= 4
    kept.file.close()


@pytest.fixture
def thinned(path: Path) -> Iterator[Life]:
    """A gateway whose rule has taken the first fifty messages of `a/x`, of which memory has the newest five."""
    life = Life(path, max_messages=5, rules=Rules([Keep(("a/#",), raw=HOUR)]))
    for _ in range(50):
        for name in ("a/x", "b/x"):
            life.publish(name)
    life.flush()
    life.now += 2 * HOUR
    for _ in range(10):
        for name in ("a/x", "b/x"):
            life.publish(name)
    life.snapshot()
    life.loop.now += 2 * thinning.PASS_MS / SECOND
    life.snapshot()  # there is something to do, and it is time to look for it
    life.loop.until(lambda: bool(life.archive.extent.thinned), "the rule has taken what it may")
    yield life
    life.close()


OLD, NEW = list(range(1, 101)), list(range(101, 121))


def replayed(life: Life, since: Since, *filters: str) -> FakeSocket:
    client = FakeSocket(life.hub)
    life.hub.subscribe(client.subscriber, filters, since, replay_id=1)
    life.loop.until(lambda: bool(client.events("replayed")), "the replay is over")
    return client


@pytest.mark.parametrize("is_told_late", [False, True])
@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("text", ["a/x", "a/#", "#", "b/x"])
def test_a_replay_of_what_a_rule_took_says_so_once(thinned: Life, text: str, by_time: bool, is_told_late: bool) -> None:
    if is_told_late:  # the thread has thinned the file, and the loop has still to hear of it
        thinned.archive.extent = Extent(1)
    history = thinned.history
    since = Since(SinceKind.TIME, time=NOW) if by_time else Since(SinceKind.POSITION, epoch=history.epoch, seq=0)
    client = replayed(thinned, since, text)
    wanted = [seq for seq in (*OLD, *NEW) if text in ("#", "b/x" if seq % 2 == 0 else "a/x", "a/#" if seq % 2 else "")]
    assert client.seqs == [seq for seq in wanted if seq % 2 == 0 or seq > 100]
    gaps = client.events("gap")
    if text == "b/x":
        assert gaps == []
    else:
        [gap] = gaps
        assert gap["reason"] == "evicted"
        assert gap["lost"] in ((50, None) if is_told_late else (None,))


def test_what_comes_behind_what_a_rule_took_is_whole(thinned: Life) -> None:
    client = replayed(thinned, Since(SinceKind.POSITION, epoch=thinned.history.epoch, seq=100), "#")
    assert (client.seqs, client.events("gap")) == (NEW, [])
    client = replayed(thinned, Since(SinceKind.TIME, time=thinned.now - HOUR), "a/#")
    assert (client.seqs, client.events("gap")) == ([seq for seq in NEW if seq % 2], [])


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["json", "json&order=desc", "ndjson", "ndjson&order=desc", "csv"])
async def test_pages_and_downloads_of_what_a_rule_took_say_so_once(path: Path, form: str) -> None:
    kept = Kept(path, Keep(("a/#",), raw=HOUR))
    kept.clock.now = int(time.time() * 1000) - 3 * HOUR
    kept.write(NAMES, span=90 * SECOND, blocks=100)
    kept.chores()
    kept.end()
    settings = {"archive_file": str(path), "history_messages": 5}
    async with running(**settings, archive_keep=[{"topics": ["a/#"], "raw": "1h"}]) as (app, _):
        for text, is_whole in (("a/x", False), ("%23", False), ("b/x", True), ("c", True)):
            answer = await ask(app, f"/topics/{text}?since={kept.log[0][2]}&limit=9000&format={form}")
            body = answer.body.decode()
            match form[:3]:
                case "jso":
                    assert answer.json()["recovered"] is is_whole
                    assert answer.json().get("gap") == (None if is_whole else {"reason": "evicted", "lost": None})
                case "ndj":
                    gaps = [line for line in body.splitlines() if '"event":"gap"' in line]
                    assert len(gaps) == (not is_whole)
                case "csv":
                    assert ("gateway-gap" in answer.headers) is not is_whole
            if text == "c":
                assert body.count('"c"' if form != "csv" else ",c,") == 100


@pytest.mark.slow
@pytest.mark.anyio
async def test_charts_speak_of_the_level_that_they_are_drawn_from(path: Path) -> None:
    kept = Kept(path, Keep(("a/#",), raw=HOUR, minute=5 * DAY), Keep(("b/#",), raw=HOUR, minute=5 * DAY, hour=20 * DAY))
    kept.clock.now = int(time.time() * 1000) - 30 * DAY
    for _ in range(30 * 24):
        kept.write(NAMES, span=HOUR)
    kept.chores()
    rules = [
        {"topics": ["a/#"], "raw": "1h", "minute": "5d"},
        {"topics": ["b/#"], "raw": "1h", "minute": "5d", "hour": "20d"},
    ]
    kept.end()
    async with running(archive_file=str(path), history_messages=5, archive_keep=rules) as (app, _):
        for text, since, level, is_whole in (
            ("a/x", "4d", "minute", True),
            ("a/x", "8d", "hour", True),  # minutes do not reach back so far
            ("a/x", "29d", "hour", True),
            ("c", "8d", "minute", True),
            ("b/x", "19d", "hour", True),
            ("b/x", "29d", "hour", False),
        ):
            address = f"/topics/{text}?since={since}&points={1_200 if since != '29d' else 100}"
            answer = (await ask(app, address)).json()
            [series] = answer["series"]
            told = (text, since, series["level"], answer["recovered"])
            assert told == (text, since, level, is_whole)
            days = int(since[:-1]) if is_whole else 20
            assert sum(point["count"] for point in series["points"]) == pytest.approx(days * 24, abs=26)


@pytest.mark.anyio
async def test_a_chart_without_messages_of_its_time_is_whole_where_roll_ups_are(path: Path) -> None:
    """The bound of the file took the messages."""
    kept = Kept(path)
    kept.clock.now = int(time.time() * 1000) - 10 * DAY
    kept.write(["c"], span=HOUR, blocks=240)
    kept.chores()
    kept.file._connection.execute("DELETE FROM blocks WHERE first_seq < 200")
    kept.end()
    async with running(archive_file=str(path), history_messages=5) as (app, _):
        answer = (await ask(app, "/topics/c?since=9d&points=50")).json()
        assert answer["recovered"] is True
        assert (await ask(app, "/topics/c?since=9d")).json()["recovered"] is False


def test_an_archive_of_before_gets_the_tables(path: Path) -> None:
    kept = Kept(path)
    kept.write(NAMES, blocks=3)
    kept.file.append([], end=12)
    kept.file.close()
    _bring_back(path)
    kept.open()
    assert kept.left() == list(range(1, 13))
    assert kept.file.extent == Extent(1)
    kept.file._connection.execute("DELETE FROM blocks WHERE first_seq < 5")
    kept.file.close()
    _bring_back(path)
    kept.open()
    assert kept.file.extent.begins("hour", FilterSet(["a"])) == START
    kept.file.close()


def _bring_back(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in FIRST_FORM:
            connection.execute(statement)
        connection.commit()


steps = st.lists(
    st.one_of(
        st.tuples(
            st.lists(st.sampled_from(NAMES), min_size=1, max_size=5), st.sampled_from([0, 20, 600, 4_000, 90_000])
        ),
        st.sampled_from(["chores", "chore", "crash", "wait"]),
    ),
    max_size=40,
)
ages = st.sampled_from([None, HOUR, 2 * HOUR, DAY])


@settings(max_examples=60, deadline=None)
@given(steps=steps, one=ages, two=ages, back=st.booleans())
def test_whatever_happens_nothing_goes_too_early_and_all_that_went_is_told(
    steps: list[Any], one: int | None, two: int | None, back: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rules = [Keep(("a/x", "b/#"), raw=one), Keep(("#",), raw=two)]
    kept = Kept(tmp_path_factory.mktemp("kept") / "archive.db", *rules)
    for step in steps:
        match step:
            case "chores":
                kept.chores()
            case "chore":
                kept.file.do_chore()
            case "crash":
                kept.file.close()
                kept.open()
            case "wait":
                kept.clock.now += DAY
            case (list() as names, int() as seconds):
                kept.write(names)
                kept.clock.now += seconds * SECOND * (-1 if back and seconds == 20 else 1)
    kept.chores()
    left = set(kept.left())
    extent: Extent = kept.file.extent
    assert left <= {seq for seq, *_ in kept.log}
    for seq, name, at in kept.log:
        age = one if any(matches(text, name) for text in rules[0].topics) else two
        if age is None or at >= kept.clock.now - age:
            # a clock that was set back by twenty seconds may make it look a little older
            assert seq in left or (back and age is not None and at < kept.clock.now - age + HOUR)
        if seq not in left:
            assert extent.is_thinned(FilterSet([name]), seq - 1)
    kept.file.close()

"""Roll-ups against all numbers: whatever was written, packed, lost with the process and written again."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.archive.blocks import Batch, BlockError
from gateway.archive.failures import ArchiveError
from gateway.archive.file import ArchiveFile, connect
from gateway.archive.rollup_rows import ROLLUP_TABLES, TEXT_TABLES, RollupReader, RollupWriter
from gateway.archive.rollups import LEVELS, OpenMinutes, Slab, decode_chunk, encode_chunk
from gateway.core.fields import Path as FieldPath
from gateway.core.fields import numbers_of, text_of, texts_of
from gateway.core.messages import Message
from gateway.core.points import Grid, Points
from gateway.core.texts import MAX_TEXTS, OTHER, TextPoints, number_in, numbered
from tests.fakes import finished

MINUTE, HOUR = LEVELS
START = 1_700_000_000_000 - 1_700_000_000_000 % HOUR.chunk


def open_file(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value)")
    if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'series'").fetchone():
        for statement in (*ROLLUP_TABLES, *TEXT_TABLES):
            connection.execute(statement)
    return connection


class File:
    """A file with nothing but roll-ups, the writer that writes it, and all messages that it should have."""

    def __init__(self, max_series: int = 1_000) -> None:
        self.connection = open_file(":memory:")
        self.max_series = max_series
        self.log: list[tuple[str, bytes, int]] = []
        self.restart()

    def restart(self) -> None:
        """The process dies: what was not committed is given again from the log."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = 'rolled'").fetchone()
        self.writer = RollupWriter(self.connection, row[0] if row else 0, self.max_series)
        self.take(self.writer.next_seq)

    def take(self, first_seq: int) -> None:
        rows = self.log[first_seq - 1 :]
        if rows:
            self.writer.take(first_seq, *map(list, zip(*rows, strict=True)))

    def add(self, *rows: tuple[str, bytes, int]) -> None:
        first = len(self.log) + 1
        self.log += rows
        self.take(first)

    def commit(self) -> None:
        self.connection.execute("BEGIN")
        rolled = self.writer.write()
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES ('rolled', ?)", (rolled,))
        self.connection.execute("COMMIT")
        self.writer.written()

    def pack(self) -> bool:
        self.connection.execute("BEGIN")
        did = self.writer.pack()
        self.connection.execute("COMMIT")
        return did

    def read(self, topic: str, field: str, level: int, since: int, until: int) -> Points:
        reader = RollupReader(self.connection)
        known = {one.field: one.id for one in reader.series_of(topic)}
        if field not in known:
            return Points()
        found, seq = reader.read(self.writer, [known[field]], level, since, until)
        assert seq == len(self.log)
        return found.get(known[field], Points())

    def numbers(self, topic: str) -> Iterator[tuple[int, float]]:
        for name, payload, time in self.log:
            if name == topic:
                yield time, json.loads(payload)["v"]


steps = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.integers(-1_000, 1_000),
            st.sampled_from([0, 1_000, 20_000, 59_000, 600_000, 3_600_000, 40_000_000]),
        ),
        st.sampled_from(["commit", "restart", "pack", "end"]),
    ),
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(steps=steps, level=st.sampled_from([0, 1]), set_back=st.booleans(), points=st.integers(1, 30))
def test_roll_ups_are_what_all_numbers_make(steps: list[object], level: int, set_back: bool, points: int) -> None:
    file = File()
    now = START
    for step in steps:
        match step:
            case "commit":
                file.commit()
            case "restart":
                file.restart()
            case "pack":
                file.commit()
                file.pack()
            case "end":
                file.writer.end()
            case (str() as topic, int() as number, int() as tick):
                now += -tick if set_back and number % 3 == 0 else tick
                file.add((topic, json.dumps({"v": number}).encode(), now))
    file.commit()
    grid = Grid.over(START - 10 * HOUR.chunk, now + 10 * HOUR.chunk, points, LEVELS[level].unit)
    for topic in ("a", "b"):
        found = file.read(topic, "v", level, grid.start, grid.end)
        assert list(found.times) == sorted(set(found.times))
        rows = sorted(file.numbers(topic), key=lambda row: row[0])
        wanted = Points.of_numbers(*_columns(rows))
        got, expected = (list(finished(each.on(grid)).shown()) for each in (found, wanted))
        if set_back:
            # what came first in a minute that came twice is not asked
            for point in (*got, *expected):
                del point["first"], point["last"]
        assert got == expected


def _columns(rows: list[tuple[int, float]]) -> tuple[array[int], array[float]]:
    return array("q", (time for time, _ in rows)), array("d", (number for _, number in rows))


def test_everything_is_packed_into_chunks_that_are_read_in_the_end() -> None:
    file = File()
    for minute in range(3 * 24 * 60):
        file.add(("a", b'{"v":%d}' % minute, START + minute * 60_000))
        if minute % 60 == 59:
            file.commit()
            while file.pack():
                pass
    counts = dict(file.connection.execute("SELECT level, count(*) FROM chunks GROUP BY level"))
    assert counts == {0: 71, 1: 2}
    day = file.read("a", "v", 1, START, START + 86_400_000)
    assert list(day.times) == [START + hour * HOUR.unit for hour in range(24)]
    assert list(day.counts) == [60] * 24
    hour = file.read("a", "v", 0, START + HOUR.unit, START + 2 * HOUR.unit)
    assert list(hour.lasts) == list(range(60, 120))


def test_there_are_as_many_series_as_there_may_be_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    file = File(max_series=2)
    file.add(("a", b'{"x":1,"y":2,"z":3}', START), ("b", b'{"x":1}', START))
    file.commit()
    assert file.writer.left_out == 2
    [record] = caplog.records
    assert record.getMessage().endswith("(GATEWAY_ARCHIVE_SERIES): the first that is left out is 'z' of a")
    assert (file.writer.left_out_of("a"), file.writer.left_out_of("b"), file.writer.left_out_of("c")) == (
        ["z"],
        ["x"],
        [],
    )
    assert (file.writer.series_count, file.writer.max_series) == (2, 2)
    assert [one.field for one in RollupReader(file.connection).series_of("a")] == ["x", "y"]
    assert RollupReader(file.connection).series_of("b") == []


def batch_of(first: int, count: int, minute: int = 0) -> Batch:
    batch = Batch(first)
    for seq in range(first, first + count):
        payload = b'{"v":%d}' % seq
        batch.add(Message.arrived(seq, "a", payload, START + minute * MINUTE.unit), payload)
    return batch


def counts(file: ArchiveFile) -> dict[int, int]:
    """How many numbers each minute has, by its place."""
    reader = RollupReader(connect(file.path))
    ids = [one.id for one in reader.series_of("a")] or [1]  # the file has its name with the first minute that is over
    found, _ = reader.read(file.rollups, ids, 0, START, START + HOUR.chunk)
    points = found.get(ids[0], Points())
    return {(time - START) // MINUTE.unit: count for time, count in zip(points.times, points.counts, strict=True)}


def test_roll_ups_that_died_with_the_process_are_made_again_of_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    file = ArchiveFile(path)
    file.append([batch_of(1, 3), batch_of(4, 5, minute=1)])
    assert counts(file) == {0: 3, 1: 5}
    file.close()  # in no order
    file = ArchiveFile(path)
    assert file.has_behind
    while file.do_chore():
        pass
    assert counts(file) == {0: 3, 1: 5}
    first = file.seq + 1
    file.append([batch_of(first, 2, minute=1)])
    file.append([], end=first + 1)
    file.close()
    file = ArchiveFile(path)
    assert not file.has_behind
    file.append([batch_of(first + 2, 7, minute=1)])
    assert counts(file) == {0: 3, 1: 14}
    file.close()


def test_who_is_hurried_makes_roll_ups_later(tmp_path: Path) -> None:
    file = ArchiveFile(tmp_path / "archive.db")
    file.append([batch_of(1, 3)], is_hurried=True)
    file.append([batch_of(4, 5)])  # not without those before
    assert file.has_behind
    assert counts(file) == {}
    while file.do_chore():
        pass
    assert counts(file) == {0: 8}
    file.append([batch_of(9, 1)])
    assert counts(file) == {0: 9}
    file.close()


def test_what_came_up_in_the_middle_of_a_minute_is_named_in_the_file(tmp_path: Path) -> None:
    file = ArchiveFile(tmp_path / "archive.db")
    for seq in range(1, 181):  # a block a second, as they come
        batch = Batch(seq)
        payload = b'{"%s":%d}' % (b"v" if seq < 90 else b"w", seq)
        batch.add(Message.arrived(seq, "a" if seq % 2 else "b", payload, START + seq * 1_000), payload)
        file.append([batch])
    reader = RollupReader(connect(file.path))
    series = [(one.topic, one.field) for name in ("a", "b") for one in reader.series_of(name)]
    assert series == [("a", "v"), ("a", "w"), ("b", "v"), ("b", "w")]
    found, _ = reader.read(file.rollups, [one.id for one in reader.series_of("a")], 0, START, START + HOUR.chunk)
    assert sum(sum(points.counts) for points in found.values()) == 90
    file.close()


def test_what_could_not_be_written_counts_once(tmp_path: Path) -> None:
    file = ArchiveFile(tmp_path / "archive.db")
    file.append([batch_of(1, 3)])
    locked = connect(file.path)
    locked.execute("BEGIN IMMEDIATE")
    file._connection.execute("PRAGMA busy_timeout = 10")
    for _ in range(2):
        with pytest.raises(ArchiveError):
            file.append([batch_of(4, 2, minute=1)])
    locked.execute("ROLLBACK")
    file.append([batch_of(4, 2, minute=1)])
    assert counts(file) == {0: 3, 1: 2}
    file.append([], end=5)
    assert counts(file) == {0: 3, 1: 2}
    file.close()


def test_what_is_given_again_counts_once() -> None:
    file = File()
    file.add(("a", b'{"v":1}', START), ("a", b'{"v":2}', START))
    file.take(1)
    file.log.append(("a", b'{"v":3}', START))
    file.take(2)
    file.commit()
    assert list(file.read("a", "v", 0, START, START + HOUR.chunk).counts) == [3]


members = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.integers(-(2**53), 2**53),
    st.booleans(),
    st.sampled_from(["1.5", "on", "off", "text", "2026-01-01T00:00:00Z"]),
    st.none(),
    st.dictionaries(st.sampled_from(["x", "ts"]), st.integers(0, 9), max_size=2),
)
payloads = st.one_of(
    st.dictionaries(st.sampled_from(["a", "b", "ts", "seq"]), members, max_size=4),
    st.lists(st.integers(0, 9), max_size=2),
    st.integers(0, 9),
)


class Named:
    """Ids and numbers without a file."""

    def __init__(self) -> None:
        self.ids: dict[object, int] = {}
        self._texts: dict[int, dict[str, int]] = {}

    def series(self, topic: str, path: FieldPath, is_text: bool) -> int:
        return self.ids.setdefault((topic, path, is_text), len(self.ids) + 1)

    def texts(self, series: int) -> dict[str, int]:
        return self._texts.setdefault(series, {})

    def text(self, series: int, text: str) -> int:
        return number_in(self.texts(series), text)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("tu"), payloads), max_size=30), st.sets(st.integers(0, 29)))
def test_members_that_are_known_make_what_the_whole_payload_would(
    messages: list[tuple[str, object]], forgotten: set[int]
) -> None:
    names = Named()
    minute = OpenMinutes(names)
    expected: dict[object, list[float]] = {}
    changes: dict[object, list[bool]] = {}
    last: dict[object, float] = {}
    for seq, (topic, payload) in enumerate(messages):
        if seq in forgotten:
            minute.forget_ids()
            last.clear()
        minute.add(seq, topic, json.dumps(payload).encode(), seq)
        for path, number in numbers_of(payload, with_states=True):
            if not path or path[-1] not in ("ts", "seq", "boot"):
                expected.setdefault((topic, path, False), []).append(number)
        for path, text in texts_of(payload):
            if not path or path[-1] not in ("ts", "seq", "boot"):
                key = (topic, path, True)
                found = names.text(names.ids[key], text)
                expected.setdefault(key, []).append(found)
                changes.setdefault(key, []).append(last.get(key, found) != found)
                last[key] = found
    assert names.ids.keys() == expected.keys()
    for one, numbers in expected.items():
        row = minute.row(names.ids[one])
        if one in changes:
            assert row == (len(numbers), sum(changes[one]), 0, 0, numbers[0], numbers[-1])
        else:
            assert row == (len(numbers), sum(numbers), min(numbers), max(numbers), numbers[0], numbers[-1])


def test_what_is_no_number_has_no_series() -> None:
    file = File()
    payloads = (b"\xff\xfe", b"text", b'{"ts":5,"on":true,"deep":[{"t":"21.5"}]}', b"[" * 2_000, b"NaN", b"", b"19.5 C")
    for payload in payloads:
        file.add(("a", payload, START))
    file.commit()
    series = RollupReader(file.connection).series_of("a")
    assert sorted(one.field for one in series if not one.is_text) == ["", "deep[0].t", "on"]
    assert sorted(one.field for one in series if one.is_text) == ["", "on"]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.integers(1, 2**32 - 1),
        st.tuples(st.integers(1, 2**40), *[st.floats(allow_nan=False, allow_infinity=False)] * 5),
        min_size=1,
    )
)
def test_slabs_and_chunks_come_back(rows: dict[int, tuple[int, float, float, float, float, float]]) -> None:
    slab = Slab.decode(START, Slab.of(START, rows).encode())
    assert {number: slab.row(number) for number in rows} == rows
    points = Points()
    for place, row in enumerate(rows.values()):
        points.add(START + place * MINUTE.unit, *row)
    again = decode_chunk(MINUTE, START, encode_chunk(MINUTE, START, points))
    assert list(again.times) == list(points.times)
    assert [again.row(place) for place in range(len(again))] == list(rows.values())


@pytest.mark.parametrize("kinds", ["nn", "m", "nmn", "mn"])
def test_chunks_of_single_numbers_and_of_more_follow_each_other(kinds: str) -> None:
    level, rows = LEVELS[0], []
    read, plain = Points.of_numbers(array("q"), array("d")), Points()
    for place, kind in enumerate(kinds):
        start, points = place * level.chunk, Points()
        for minute in range(3):
            number = place + minute / 4
            row = (1, number, number, number, number, number) if kind == "n" else (2, 9.0, 4.0, 5.0, 4.5, number)
            points.add(start + minute * level.unit, *row)
            rows.append((start + minute * level.unit, *row))
        data = encode_chunk(level, start, points)
        decode_chunk(level, start, data, read)
        decode_chunk(level, start, data, plain)
    assert read.are_numbers == (set(kinds) == {"n"})
    for found in (read, plain):
        assert [(time, *found.row(index)) for index, time in enumerate(found.times)] == rows


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_said_to_be_damaged(data: st.DataObject) -> None:
    rows = {number: (1, 2.0 * number, 2.0, 2.0, float(number), 2.0) for number in range(1, 50)}
    good = Slab.of(START, rows).encode()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    try:
        found = Slab.decode(START, bad[: data.draw(st.sampled_from([len(bad), place]))])
    except BlockError:
        return
    # another way to write the same, as the sum over it says
    assert {number: found.row(number) for number in rows} == rows


words = st.sampled_from(["idle", "heating", "on", "off", "true", "19.5", "2026-01-02T03:04:05", "x" * 41, ""])
text_steps = st.lists(
    st.one_of(
        st.tuples(
            st.one_of(words, st.booleans(), st.integers(0, 99)), st.sampled_from([0, 20_000, 600_000, 40_000_000])
        ),
        st.sampled_from(["commit", "pack", "end", "forget"]),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps=text_steps, level=st.sampled_from([0, 1]), points=st.integers(1, 30), is_nested=st.booleans())
def test_roll_ups_of_texts_are_what_all_texts_make(
    steps: list[object], level: int, points: int, is_nested: bool
) -> None:
    file = File()
    now, known = START, True
    times, numbers, names = array("q"), array("d"), dict[str, int]()
    changes: list[float] = []
    for step in steps:
        match step:
            case "commit":
                file.commit()
            case "pack":
                file.commit()
                file.pack()
            case "end":
                file.writer.end()
            case "forget":
                file.commit()
                file.writer._names.forget()
                file.writer._open.forget_ids()
                known = False
            case (value, int() as tick):
                now += tick
                payload = {"v": {"w": value} if is_nested else value, "ts": "now"}
                file.add(("a", json.dumps(payload).encode(), now))
                text = text_of(value)
                if text is not None:
                    number = number_in(names, text)
                    changes.append(float(known and bool(numbers) and number != numbers[-1]))
                    known = True
                    times.append(now)
                    numbers.append(number)
    file.commit()
    grid = Grid.over(START - 10 * HOUR.chunk, now + 10 * HOUR.chunk, points, LEVELS[level].unit)
    reader = RollupReader(file.connection)
    series = [one for one in reader.series_of("a") if one.is_text]
    assert [one.field for one in series] == (["v.w" if is_nested else "v"] if numbers else [])
    if not numbers:
        return
    found, _ = reader.read(file.writer, [series[0].id], level, grid.start, grid.end)
    got = TextPoints(finished(found[series[0].id].on(grid)), reader.texts_of(series[0].id))
    wanted = numbered(times, numbers, None)
    wanted.sums = array("d", changes)
    assert list(got.shown()) == list(TextPoints(finished(wanted.on(grid)), names).shown())


def test_texts_beyond_their_bounds_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.archive.rollup_rows.MAX_TEXTS_IN_ALL", MAX_TEXTS + 5)
    file = File()
    for number in range(50):
        file.add(("a", b'"name %d."' % number, START), ("b", b'"name %d."' % number, START))
    file.commit()
    file.restart()
    for number in range(50, 60):
        file.add(("b", b'"name %d."' % number, START))
    file.commit()
    counts = dict(file.connection.execute("SELECT series, count(*) FROM texts GROUP BY series"))
    assert sum(counts.values()) == MAX_TEXTS + 5
    assert max(counts.values()) <= MAX_TEXTS
    reader = RollupReader(file.connection)
    (series,) = reader.series_of("a")
    found, _ = reader.read(file.writer, [series.id], 0, START, START + HOUR.chunk)
    (point,) = TextPoints(found[series.id], reader.texts_of(series.id)).shown()
    assert point == {"time": START, "first": "name 0.", "last": OTHER, "changes": point["changes"], "count": 50}

"""Charts that reach back into the archive: as if all messages were in memory, however many they are."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from array import array
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from gateway.archive.file import ArchiveFile
from gateway.archive.offline import Importer
from gateway.archive.rollups import Level, decode_chunk
from gateway.core.points import Grid, Points
from tests.fakes import finished
from tests.test_topics_api import ask, running

pytestmark = pytest.mark.anyio

MINUTE = 60_000
DAYS = 3


def fill(path: Path, now: int) -> list[tuple[int, float, bool]]:
    """A reading a minute, for three days until now, with a night without any."""
    importer = Importer(path)
    rows = []
    for number in range(DAYS * 1_440):
        at = now - (DAYS * 1_440 - number) * MINUTE
        if 700 < number < 1_400:
            continue
        row = (at, 20 + number % 97 / 10, number % 3 == 0)
        rows.append(row)
        importer.add("sensors/a/state", json.dumps({"t": row[1], "on": row[2]}).encode(), at)
        importer.add("sensors/b/state", b"%d" % number, at)
    importer.close()
    return rows


def expected(rows: list[tuple[int, float]], grid: Grid) -> list[dict[str, Any]]:
    points = Points.of_numbers(array("q", (at for at, _ in rows)), array("d", (number for _, number in rows)))
    return list(finished(points.on(grid)).shown())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("since", "points", "level"), [("3d", 1_200, "minute"), ("3d", 40, "hour"), ("6h", 5_000, "minute")]
)
async def test_a_chart_of_the_archive_is_what_all_messages_make(
    tmp_path: Path, since: str, points: int, level: str
) -> None:
    path = tmp_path / "archive.db"
    rows = fill(path, int(time.time() * 1000))
    async with running(archive_file=str(path), history_messages=5) as (app, gateway):
        answer = (await ask(app, f"/topics/sensors/%2B/state?since={since}&points={points}")).json()
        grid = Grid(answer["start"], answer["step"], answer["points"])
        assert grid.count <= points
        found = {(one["topic"], one["field"]): one for one in answer["series"]}
        assert {one["level"] for one in found.values()} == {level}
        assert found["sensors/a/state", "t"]["points"] == expected([(at, number) for at, number, _ in rows], grid)
        assert found["sensors/a/state", "on"]["points"] == expected([(at, float(on)) for at, _, on in rows], grid)
        assert set(found) == {("sensors/a/state", "t"), ("sensors/a/state", "on"), ("sensors/b/state", "")}
        assert answer["recovered"] is True
        assert answer["position"] == gateway.history.position


async def test_the_loop_has_no_more_points_to_merge_than_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a month takes four times as long as its work: in the loop that has a quarter of the time, in slices."""
    path = tmp_path / "archive.db"
    fill(path, int(time.time() * 1000))
    merged: dict[str, int] = {}
    on = Points.on

    def watched(self: Points, grid: Grid) -> Generator[None, None, Points]:
        name = threading.current_thread().name
        merged[name] = merged.get(name, 0) + len(self)
        return on(self, grid)

    monkeypatch.setattr(Points, "on", watched)
    async with running(archive_file=str(path), history_messages=5) as (app, _):
        answer = (await ask(app, "/topics/sensors/a/state?since=3d&points=400&field=t")).json()
        assert len(answer["series"][0]["points"]) > 200
    assert merged.pop("archive reader") > 3_000
    assert sum(merged.values()) <= 5


async def test_what_has_just_come_is_in_it_once(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    rows = [(at, number) for at, number, _ in fill(path, int(time.time() * 1000))]
    async with running(archive_file=str(path), history_messages=500, archive_flush_interval="50ms") as (app, gateway):
        for number in range(40):
            gateway.hub.publish("sensors/a/state", b'{"t":%d}' % number)
            rows.append((gateway.wall_clock_ms(), float(number)))
            if number % 10 == 0:
                await asyncio.sleep(0.06)
        answer = (await ask(app, "/topics/sensors/a/state?since=3d&points=40&field=t")).json()
        grid = Grid(answer["start"], answer["step"], answer["points"])
        (series,) = answer["series"]
        got, wanted = series["points"], expected(rows, grid)
        assert sum(point["count"] for point in got) == sum(point["count"] for point in wanted)
        assert got == wanted
        assert answer["recovered"] is True


async def test_what_has_come_for_less_than_a_minute_is_in_it(tmp_path: Path) -> None:
    settings = {"archive_file": str(tmp_path / "archive.db"), "history_messages": 5, "archive_flush_interval": "50ms"}
    async with running(**settings) as (app, gateway):
        for number in range(40):
            gateway.hub.publish("sensors/a/state", b'{"t":%d}' % number)
        await asyncio.sleep(0.2)
        (series,) = (await ask(app, "/topics/sensors/a/state?since=3d&points=40")).json()["series"]
        assert sum(point["count"] for point in series["points"]) == 40


async def test_a_topic_that_memory_has_whole_is_drawn_from_memory(tmp_path: Path) -> None:
    async with running(archive_file=str(tmp_path / "archive.db")) as (app, gateway):
        gateway.hub.publish("a", b"1")
        (series,) = (await ask(app, "/topics/a?since=30d&points=100")).json()["series"]
        assert series["level"] == "raw"


async def test_what_the_archive_cannot_read_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    fill(path, int(time.time() * 1000))
    file = ArchiveFile(path)
    file._connection.execute("UPDATE slabs SET data = x'00'")
    file._connection.execute("UPDATE chunks SET data = x'00'")
    file.append([], end=file.seq)
    file.close()
    async with running(archive_file=str(path), history_messages=5) as (app, _):
        answer = (await ask(app, "/topics/sensors/a/state?since=3d&points=40")).json()
        assert answer["gap"] == {"reason": "evicted", "lost": None}


async def test_twenty_series_take_few_turns(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    importer = Importer(path)
    now = int(time.time() * 1000)
    for number in range(600):
        for topic in range(20):
            importer.add(f"t/{topic}", b"%d" % number, now - (600 - number) * MINUTE)
    importer.close()
    async with running(archive_file=str(path), history_messages=5) as (app, _):
        answer = (await ask(app, "/topics/t/%2B?since=10h&points=100&format=columns")).json()
        assert len(answer["series"]) == 20
        assert {sum(one["count"]) for one in answer["series"]} <= {599, 600}


@pytest.mark.slow
async def test_a_chart_reads_only_the_rows_of_its_series_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many topics there are, and however much of each; `python -m benchmarks.archiving ask` takes the time."""
    path = tmp_path / "archive.db"
    importer = Importer(path)
    now = int(time.time() * 1000)
    hours = [*range(370 * 24, 31 * 24, -12), *range(31 * 24, 0, -1)]
    for hour in hours:
        for name in ("a", "b", "c"):
            importer.add(name, b'{"t":%.2f,"u":1}' % (20 + hour % 97 / 100), now - hour * 60 * MINUTE)
    importer.close()
    decoded: list[int] = []

    def counted(width: Level, start: int, data: bytes, points: Points) -> Points:
        decoded.append(start)
        return decode_chunk(width, start, data, points)

    monkeypatch.setattr("gateway.archive.rollup_rows.decode_chunk", counted)
    async with running(archive_file=str(path), history_messages=5) as (app, _):
        for since, level, rows in ((365, "hour", 366), (30, "minute", 721), (1, "minute", 25)):
            decoded.clear()
            answer = await ask(app, f"/topics/b?since={since}d&points=1200&field=t&format=columns")
            [series] = answer.json()["series"]
            assert (series["level"], answer.json()["recovered"]) == (level, True)
            assert 0 < len(decoded) <= rows
            assert len(answer.body) < 60_000
            assert sum(series["count"]) >= len([hour for hour in hours if hour < since * 24 - 1])


async def test_what_memory_let_go_before_roll_ups_were_made_of_it_is_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "archive.db"
    fill(path, int(time.time() * 1000))
    async with running(archive_file=str(path), history_messages=5) as (app, gateway):
        monkeypatch.setattr("gateway.archive.rollup_rows.RollupWriter.take", lambda *_: None)
        for number in range(20):
            gateway.hub.publish("sensors/a/state", b'{"t":%d}' % number)
        answer = (await ask(app, "/topics/sensors/a/state?since=3d&points=40&field=t")).json()
        assert answer["gap"] == {"reason": "evicted", "lost": None}


async def test_texts_are_drawn_from_file_and_memory_without_a_seam(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    now = int(time.time() * 1000)
    start = now - now % (120 * MINUTE) - DAYS * 1_440 * MINUTE
    importer = Importer(path)
    modes = ("idle", "heating", "idle", "defrosting")
    for number in range(DAYS * 1_440):
        payload = {"mode": modes[number // 120 % 4], "on": number % 2 == 0, "ts": "none", "text": "x" * 41}
        importer.add("a", json.dumps(payload).encode(), start + number * MINUTE)
    importer.close()
    async with running(archive_file=str(path), history_messages=5) as (app, gateway):
        gateway.hub.publish("a", b'{"mode":"defrosting"}')
        gateway.hub.publish("a", b'{"mode":"standby","on":false}')
        query = f"/topics/a?since={start}&points=72"
        answer = (await ask(app, query)).json()
        found = {one["field"]: one for one in answer["texts"]}
        assert set(found) == {"mode", "on"}
        assert found["mode"]["level"] == "hour"
        points = found["mode"]["points"]
        wanted = [(modes[number % 4], modes[number % 4], int(number > 0)) for number in range(DAYS * 12)]
        assert [(point["first"], point["last"], point["changes"]) for point in points[:-1]] == wanted
        assert (points[-1]["first"], points[-1]["last"]) == ("defrosting", "standby")
        assert (points[-1]["changes"], points[-1]["count"]) == (1, 2)
        assert [point["changes"] for point in found["on"]["points"][1:3]] == [120, 120]
        assert {one["field"] for one in answer["series"]} == {"on"}

        (mode,) = (await ask(app, f"{query}&field=mode&format=columns")).json()["texts"]
        assert mode["first"][:2] == ["idle", "heating"]
        assert sum(mode["count"]) == DAYS * 1_440 + 2
        assert mode["last"][-1] == "standby"
        table = (await ask(app, f"{query}&format=csv")).body.decode().splitlines()
        assert table[0] == "time,topic,field,first,min,max,last,mean,count,changes"
        assert any(line.endswith(",a,mode,heating,,,heating,,120,1") for line in table)

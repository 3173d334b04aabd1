"""`GET /topics/{filter}?points=…`: charts of what memory has."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from urllib.parse import quote

import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.support.stalls import turns_watched
from tests.support.yardsticks import YARDSTICK_SECONDS, yardstick_seconds
from tests.test_topics_api import ask, running

pytestmark = pytest.mark.anyio

HOUR = 3_600_000


async def test_a_chart_has_a_series_for_each_number_and_goes_on_live_behind_its_position() -> None:
    async with running() as (app, gateway):
        for number in range(30):
            payload = {"temperature": 20 + number / 10, "seq": number, "outdoor": {"t": -number}, "on": number % 2 == 0}
            gateway.hub.publish("sensors/a/state", json.dumps(payload).encode())
        gateway.hub.publish("sensors/b/state", b"7")
        gateway.hub.publish("other", b"1")
        answer = (await ask(app, "/topics/sensors/%2B/state?since=1h&points=2")).json()
        assert answer["position"] == gateway.history.position
        assert answer["recovered"] is True
        found = {(one["topic"], one["field"]): one for one in answer["series"]}
        assert list(found) == [
            ("sensors/a/state", "temperature"),
            ("sensors/a/state", "outdoor.t"),
            ("sensors/a/state", "on"),
            ("sensors/b/state", ""),
        ]
        assert answer["start"] <= gateway.wall_clock_ms() - HOUR
        assert answer["step"] >= HOUR
        (point,) = found["sensors/a/state", "temperature"]["points"]
        assert point["time"] in range(answer["start"], gateway.wall_clock_ms(), answer["step"])
        assert {name: point[name] for name in ("first", "min", "max", "last", "mean", "count")} == {
            "first": 20, "min": 20, "max": 22.9, "last": 22.9, "mean": 21.45, "count": 30,
        }  # fmt: skip
        assert found["sensors/a/state", "on"]["points"][0]["mean"] == 0.5
        assert found["sensors/b/state", ""]["points"][0]["last"] == 7


async def test_columns_and_csv_say_the_same_as_json() -> None:
    async with running() as (app, gateway):
        gateway.hub.publish('a,"b', b'{"x":1.5,"y":true}')
        gateway.hub.publish('a,"b', b'{"x":2.5}')
        address = "/topics/%23?since=1h&points=10&field=x,y"
        whole = (await ask(app, address)).json()
        columns = (await ask(app, f"{address}&format=columns")).json()
        table = await ask(app, f"{address}&format=csv")
        assert table.headers["content-type"] == "text/csv; charset=utf-8"
        assert table.body == (await ask(app, address, accept="text/csv")).body
        rows = list(csv.DictReader(io.StringIO(table.body.decode())))
        assert [row["topic"] for row in rows] == ['a,"b'] * 3
        text = rows.pop()
        assert (text["field"], text["first"], text["mean"], text["changes"]) == ("y", "true", "", "0")
        for one, dense, row in zip(whole["series"], columns["series"], rows, strict=True):
            (point,) = one["points"]
            place = (point["time"] - columns["start"]) // columns["step"]
            for name in ("first", "min", "max", "last", "mean", "count"):
                assert dense[name][place] == point[name] == float(row[name])
                assert len(dense[name]) == columns["points"] <= 10
            assert sum(dense["count"]) == point["count"]


async def test_what_memory_has_no_more_is_a_gap_and_pages_follow_each_other() -> None:
    async with running(history_messages=2) as (app, gateway):
        for number in range(3):
            for name in ("a", "b", "c"):
                gateway.hub.publish(name, b"%d" % number)
        first = (await ask(app, "/topics/%23?since=1h&points=5&limit=2")).json()
        assert first["recovered"] is False
        assert first["gap"] == {"reason": "evicted", "lost": None}
        assert [one["topic"] for one in first["series"]] == ["a", "b"]
        assert (first["more"], first["next"]) == (True, "b")
        second = (await ask(app, f"/topics/%23?since=1h&points=5&limit=2&after={first['next']}")).json()
        assert [one["topic"] for one in second["series"]] == ["c"]
        assert "more" not in second


async def test_only_the_time_that_is_asked_for() -> None:
    async with running() as (app, gateway):
        gateway.hub.publish("a", b"1")
        now = gateway.wall_clock_ms()
        early = (await ask(app, f"/topics/a?since={now - 2 * HOUR}&until={now - HOUR}&points=5")).json()
        assert early["series"] == []
        assert early["start"] + early["step"] * early["points"] >= now - HOUR


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("points=0&since=1h", "points '0': must be a whole number from 1 to 5000"),
        ("points=5001&since=1h", "from 1 to 5000"),
        ("points=10", "since '': with points it must be a time back"),
        ("points=10&since=last", "with points it must be a time back"),
        ("points=10&since=k3f9:12", "with points it must be a time back"),
        ("points=10&since=1h&until=2h", "must be earlier than until"),
        ("points=10&since=1h&until=x", "until 'x': must be"),
        ("points=10&since=1h&format=ndjson", "with points it must be json, columns or csv"),
        ("points=10&since=1h&field=a..b", "field"),
        ("points=10&since=1h&max_hz=1", "query parameter 'max_hz': is not known"),
        ("points=10&since=1h&where=a", "query parameter 'where': is not known"),
    ],
)
async def test_what_has_no_meaning_is_refused(query: str, words: str) -> None:
    async with running() as (app, _):
        answer = await ask(app, f"/topics/a?{query}")
        assert answer.status == 400
        assert words in json.loads(answer.body)["detail"]


async def test_a_chart_needs_the_grant_of_its_topics() -> None:
    secret = "a secret of more than thirty-two bytes"
    token = mint(secret_key(secret), ttl_seconds=60, subscribe=["public/#"])
    async with running(access_secret=secret) as (app, _):
        address = "/topics/{}?since=1h&points=10"
        for name, status in (("public/a", 200), ("secret/a", 403), ("%23", 403)):
            answer = await ask(app, address.format(quote(name, safe="%/")), authorization=f"Bearer {token}")
            assert answer.status == status
        assert (await ask(app, address.format("public/a"))).status == 401


@pytest.mark.slow
@pytest.mark.timing
async def test_no_chart_holds_the_loop() -> None:
    async with running(history_messages=20_000, history_bytes="1GiB") as (app, gateway):
        for number in range(20_000):
            gateway.hub.publish("a", b'{"t":%d,"u":{"v":%d,"w":[1,2,3]}}' % (number % 100, number))
        before = yardstick_seconds()
        with turns_watched() as turns:
            for form in ("json", "columns", "csv"):
                answer = await ask(app, f"/topics/a?since=1m&points=5000&format={form}")
                assert answer.status == 200
        slowness = max(1.0, (before + yardstick_seconds()) / 2 / YARDSTICK_SECONDS)
        assert turns.longest < 0.020 * slowness, turns


@pytest.mark.slow
@pytest.mark.timing
async def test_neither_does_one_of_a_message_with_many_numbers_and_texts() -> None:
    async with running(history_bytes="1GiB") as (app, gateway):
        numbers, texts = {f"n{number}": number for number in range(100)}, {f"t{number}": "a" for number in range(100)}
        began = gateway.wall_clock_ms() - HOUR // 2
        for number in range(200):
            payload = json.dumps({**numbers, **texts, "n0": number}).encode()
            gateway.hub.publish("wide", payload, time=began + number * 5_000)
        for form in ("json", "columns", "csv"):
            before = yardstick_seconds()
            with turns_watched() as turns:
                answer = await ask(app, f"/topics/wide?since=1h&points=5000&format={form}")
                assert answer.status == 200
            slowness = max(1.0, (before + yardstick_seconds()) / 2 / YARDSTICK_SECONDS)
            assert turns.longest < 0.020 * slowness, (form, turns, slowness)


async def test_what_is_evicted_while_a_chart_is_made_is_a_gap_and_no_error() -> None:
    async with running(history_messages=20_000, history_bytes="1GiB") as (app, gateway):

        def publish(count: int) -> None:
            for _ in range(count):
                gateway.hub.publish("a", b'{"t":1}')

        publish(20_000)
        asked = asyncio.create_task(ask(app, "/topics/a?since=1h&points=10&field=t"))
        while not asked.done():
            publish(1_500)
            await asyncio.sleep(0)
        answer = asked.result()
        assert answer.status == 200
        body = answer.json()
        assert (body["recovered"], body["gap"]) == (False, {"reason": "evicted", "lost": None})
        counted = sum(point["count"] for point in body["series"][0]["points"])
        assert 0 < counted < 20_000


async def test_a_chart_that_nothing_was_evicted_from_is_whole_however_many_turns_it_takes() -> None:
    async with running(history_messages=40_000, history_bytes="1GiB") as (app, gateway):
        for _ in range(20_000):
            gateway.hub.publish("a", b'{"t":1}')
        body = (await ask(app, "/topics/a?since=1h&points=10&field=t")).json()
        assert body["recovered"] is True
        assert sum(point["count"] for point in body["series"][0]["points"]) == 20_000

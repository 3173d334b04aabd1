"""`/topics` of a gateway with an archive: pages, downloads and streams reach beyond memory, without a seam."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from gateway.archive.failures import ArchiveError, Trouble
from gateway.routes.sinks import PulledSink
from gateway.runtime import Gateway
from tests.support.waiting import eventually_async
from tests.test_topics_api import Answer, ask, running

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def archived(path: Path, **settings: object) -> AsyncIterator[tuple[Starlette, Gateway]]:
    """A gateway that keeps five messages of each topic in memory."""
    options = {"archive_file": str(path / "archive.db"), "history_messages": 5, **settings}
    async with running(**options) as (app, gateway):
        yield app, gateway


def fill(gateway: Gateway, count: int, topics: int = 2) -> None:
    for number in range(count):
        gateway.hub.publish(f"a/{number % topics}", b"%d" % number, 0, False, None, 0)


async def written(gateway: Gateway) -> None:
    archive = gateway.archive
    assert archive is not None
    archive.writer.hand_over()
    await eventually_async(lambda: archive.writer.written_seq == gateway.history.seq, 10, "all is written")


def payloads(answer: Answer) -> list[Any]:
    return [message["payload"] for message in answer.json()["messages"]]


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.body.splitlines()]


@pytest.mark.parametrize("is_written", [True, False])
async def test_pages_follow_each_other_from_the_file_into_memory(tmp_path: Path, is_written: bool) -> None:
    async with archived(tmp_path) as (app, gateway):
        fill(gateway, 100)
        if is_written:
            await written(gateway)
        found: list[int] = []
        address: str | None = f"/topics/a/%2B?since={gateway.history.epoch}:10&limit=17"
        while address is not None:
            answer = await ask(app, address)
            assert answer.json()["recovered"] is True
            found += payloads(answer)
            address = answer.next_page
        assert found == list(range(10, 100))


async def test_pages_from_the_newest_back(tmp_path: Path) -> None:
    async with archived(tmp_path) as (app, gateway):
        fill(gateway, 100)
        found: list[int] = []
        address: str | None = f"/topics/%23?since={gateway.history.epoch}:10&order=desc&limit=17"
        while address is not None:
            answer = await ask(app, address)
            assert answer.json()["recovered"] is True, answer.json()
            found += payloads(answer)
            address = answer.next_page
        assert found == list(range(99, 9, -1))


async def test_a_time_reaches_as_far_back_as_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with archived(tmp_path) as (app, gateway):
        start = gateway.wall_clock_ms()
        now = start

        def clock() -> int:
            return now

        gateway.hub._wall_clock_ms = clock
        for number in range(60):
            now = start + number
            gateway.hub.publish("a", b"%d" % number)
        for at in (0, 20, 54, 58, 59):
            answer = await ask(app, f"/topics/a?since={start + at}")
            assert payloads(answer) == list(range(at, 60))
            assert answer.json()["recovered"] is True
        answer = await ask(app, f"/topics/a?since={start + 5_000}")
        assert payloads(answer) == []


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_downloads_have_all_that_the_file_has(tmp_path: Path, order: str) -> None:
    async with archived(tmp_path) as (app, gateway):
        fill(gateway, 3_000)
        expected = list(range(3_000))[:: 1 if order == "asc" else -1]
        position = f"{gateway.history.epoch}:0"
        found = lines(await ask(app, f"/topics/%23?format=ndjson&since={position}&order={order}"))
        assert [message["payload"] for message in found] == expected
        table = await ask(app, f"/topics/%23?format=csv&order={order}")
        assert "gateway-gap" not in table.headers
        rows = table.body.decode().splitlines()[1:]
        assert [int(row.split(",")[3]) for row in rows] == expected


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_download_whose_reader_takes_its_time_loses_nothing(tmp_path: Path, order: str) -> None:
    async with archived(tmp_path) as (app, gateway):
        for number in range(1_000):
            gateway.hub.publish(f"a/{number % 200}", b'"%d %b"' % (number, b"x" * 200))

        def more(_: Answer) -> None:
            fill(gateway, 200, topics=200)

        position = f"{gateway.history.epoch}:0"
        answer = await ask(app, f"/topics/%23?format=ndjson&since={position}&order={order}", on_part=more)
        found = [message["seq"] for message in lines(answer)]
        assert len(answer.parts) > 3
        assert found == list(range(1, 1_001))[:: 1 if order == "asc" else -1]


async def test_an_event_stream_goes_on_from_the_file(tmp_path: Path) -> None:
    async with archived(tmp_path) as (app, gateway):
        fill(gateway, 100)
        seen: list[int] = []

        def on_part(answer: Answer) -> None:
            events = [part for part in answer.body.split(b"\n\n") if part.startswith(b"id: ") and b'"payload"' in part]
            seen[:] = [json.loads(event.partition(b"data: ")[2])["payload"] for event in events]
            if len(seen) == 90:
                raise ConnectionResetError

        with contextlib.suppress(ConnectionResetError):
            await ask(app, "/topics/a/%2B", on_part=on_part, accept="text/event-stream",
                      last_event_id=f"{gateway.history.epoch}:10")  # fmt: skip
        assert seen == list(range(10, 100))


async def test_what_a_crash_took_and_what_could_not_be_kept_is_told(tmp_path: Path) -> None:
    async with archived(tmp_path) as (app, gateway):
        fill(gateway, 50)
        await written(gateway)
        position = f"{gateway.history.epoch}:40"
        assert gateway.archive is not None
        gateway.archive._file.close = lambda: None  # type: ignore[method-assign]
        file = gateway.archive._file
        file._connection.execute("DELETE FROM meta WHERE key = 'end'")
    file._connection.execute("DELETE FROM meta WHERE key = 'end'")
    file._close_connection()
    file._lock.close()
    async with archived(tmp_path) as (app, gateway):
        fill(gateway, 20)
        page = (await ask(app, f"/topics/%23?since={position}")).json()
        assert page["gap"] == {"reason": "crash", "lost": None}
        assert [message["payload"] for message in page["messages"]] == [*range(40, 50), *range(20)]
        table = await ask(app, f"/topics/%23?since={position}&format=csv")
        assert table.headers["gateway-gap"] == "reason=crash, lost=unknown"


async def test_trouble_is_told_everywhere_and_the_relay_goes_on(tmp_path: Path) -> None:
    async with archived(tmp_path) as (app, gateway):
        archive = gateway.archive
        assert archive is not None
        told: list[dict[str, Any]] = []
        sink = PulledSink(gateway.hub, 10**6)
        sink.subscriber = gateway.hub.add(sink, tell=told.append)
        assert (await ask(app, "/health/ready")).body.find(b'"archive":{"kept":true,"error":null}') > 0

        def fail(*_: object, **__: object) -> int:
            raise ArchiveError(Trouble.FULL, "database or disk is full")

        works, archive._file.append = archive._file.append, fail  # type: ignore[method-assign]
        fill(gateway, 10)
        archive.writer.hand_over()
        await eventually_async(lambda: gateway.archive_trouble, 10, "it has failed")
        assert told[-1] == {"event": "archive", "kept": False, "reason": "full"}
        body = (await ask(app, "/health/ready")).body
        assert b'"archive":{"kept":false,"error":"database or disk is full"}' in body
        steps = json.loads((await ask(app, "/explain?topic=a/1")).body)["steps"]
        assert steps[-1]["step"] == "archive"
        assert "database or disk is full" in steps[-1]["text"]
        samples = (await ask(app, "/metrics")).body.decode()
        assert "gateway_archive_kept 0.0" in samples
        assert 'gateway_archive_failures_total{reason="full"} ' in samples
        page = (await ask(app, f"/topics/%23?since={gateway.history.epoch}:0")).json()
        assert (len(page["messages"]), page["recovered"]) == (10, True)
        fill(gateway, 20)
        page = (await ask(app, f"/topics/%23?since={gateway.history.epoch}:0")).json()
        assert (len(page["messages"]), page["gap"]["reason"]) == (10, "evicted")
        # what memory has is still shown, and whoever comes now hears of it
        assert payloads(await ask(app, f"/topics/a/1?since={gateway.history.epoch}:25")) == [15, 17, 19]
        archive._file.append = works  # type: ignore[method-assign]
        await eventually_async(lambda: gateway.archive_trouble is None, 10, "it works again")
        assert told[-1] == {"event": "archive", "kept": True}
        assert "gateway_archive_kept 1.0" in (await ask(app, "/metrics")).body.decode()
        answer = await ask(app, f"/topics/%23?since={gateway.history.epoch}:0")
        assert payloads(answer) == [*range(10), *range(20)]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("form", ["json", "ndjson"])
async def test_what_memory_has_is_whole_although_the_archive_can_not_be_written(
    tmp_path: Path, order: str, form: str
) -> None:
    async with archived(tmp_path) as (app, gateway):
        archive = gateway.archive
        assert archive is not None

        def full(*_: object, **__: object) -> int:
            raise ArchiveError(Trouble.FULL, "no room")

        archive._file.append = full  # type: ignore[method-assign]
        for number in range(40):
            gateway.hub.publish(f"t/{number}", b"%d" % number)
            gateway.hub.publish("x", b"1")  # of which memory lets go
        archive.writer.hand_over()
        await eventually_async(lambda: gateway.archive_trouble is not None, 10, "it can't be written")
        address = f"since={gateway.history.epoch}:0&limit=100&format={form}&order={order}"
        answer = await ask(app, f"/topics/t/%23?{address}")
        expected = list(range(40))[:: 1 if order == "asc" else -1]
        if form == "json":
            assert payloads(answer) == expected
            assert answer.json()["recovered"] is True
        else:
            assert [message.get("payload", message) for message in lines(answer)] == expected
        answer = await ask(app, f"/topics/%23?{address}")
        if form == "json":
            assert (len(payloads(answer)), answer.json()["recovered"]) == (45, False)
        else:
            assert len(lines(answer)) == 46


async def test_who_may_not_know_more_hears_only_of_which_kind_the_trouble_is(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "archive.db"
    async with running(archive_file=str(nowhere), access_anonymous_role="all",
                       roles={"all": {"subscribe": ["#"]}}) as (app, _):  # fmt: skip
        body = (await ask(app, "/health/ready")).body
        assert b'"archive":{"kept":false,"error":"io"}' in body


async def test_numbers_for_which_there_is_no_room_are_counted_and_named(tmp_path: Path) -> None:
    async with archived(tmp_path, archive_series=2) as (app, gateway):
        gateway.hub.publish("a", b'{"t":1,"u":2,"v":3,"deep":{"w":4}}')
        gateway.hub.publish("b", b"5")
        gateway.hub.publish("c", b'"a text that is too long to be a state of anything"')
        await written(gateway)
        metrics = (await ask(app, "/metrics")).body.decode()
        assert "gateway_archive_series 2.0" in metrics
        assert "gateway_archive_series_limit 2.0" in metrics
        assert "gateway_archive_left_out_total 3.0" in metrics

        async def told(topic: str) -> list[str]:
            steps = (await ask(app, f"/explain?topic={topic}")).json()["steps"]
            return [step["text"] for step in steps if step["step"] == "archive" and step["ok"] is False]

        [text] = await told("a")
        assert "of 'a' the archive makes no roll-ups of 'v', 'deep.w'," in text
        assert "GATEWAY_ARCHIVE_SERIES" in text
        [text] = await told("b")
        assert "no roll-ups of the payload itself" in text
        assert await told("c") == []

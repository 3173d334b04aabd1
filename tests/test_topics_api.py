"""`/topics` in one loop with its reader, who takes each part of an answer when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from gateway.app import create_app
from gateway.core.frames import unframe
from gateway.core.messages import Properties
from gateway.core.protocol import ProtocolError
from gateway.core.since import parse_since
from gateway.routes import event_stream
from gateway.routes.sinks import PulledSink
from gateway.runtime import Gateway
from gateway.settings.loading import load_settings
from sensors_sim.replay import read_recording

pytestmark = pytest.mark.anyio

Publish = Callable[..., object]


@dataclass
class Answer:
    """What came of a request."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    is_complete: bool = False
    address: str = ""

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    def json(self) -> Any:
        assert self.status == 200, self.body
        return json.loads(self.body)

    @property
    def next_page(self) -> str | None:
        link = self.headers.get("link")
        return urljoin(self.address, link.partition("<")[2].partition(">")[0]) if link else None


@contextlib.asynccontextmanager
async def running(**settings: object) -> AsyncIterator[tuple[Starlette, Gateway]]:
    """The application, without a broker: what arrives is published to its hub by the test."""
    app = create_app(load_settings({"mqtt_url": "mqtt://127.0.0.1:1", **settings}, environ={}))
    async with app.router.lifespan_context(app):
        yield app, app.state.gateway


async def ask(
    app: Starlette,
    address: str,
    method: str = "GET",
    on_part: Callable[[Answer], object] | None = None,
    data: bytes = b"",
    version: str = "2.3",
    has_gone: bool = False,
    **headers: str,
) -> Answer:
    """Asks, and calls `on_part` for each part of the body before the next one may be sent.

    By `version` 2.4 of the ASGI specification, sending to a client that `has_gone` is an error.
    """
    parts = urlsplit(address)
    answer = Answer(address=address)
    gone = asyncio.Event()
    named = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": version}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": unquote(parts.path), "root_path": "",
        "raw_path": parts.path.encode(), "query_string": parts.query.encode(), "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "headers": [(b"host", b"localhost"), *named], "state": {}, "extensions": {},
    }  # fmt: skip
    requests: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def receive() -> dict[str, Any]:
        if (message := next(requests, None)) is not None:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if has_gone:
            gone.set()
            if version == "2.4":
                raise OSError("the client has gone")
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            return
        answer.parts.append(message.get("body", b""))
        answer.is_complete = not message.get("more_body", False)
        if on_part is not None and on_part(answer) == "go":
            gone.set()
        await asyncio.sleep(0)

    await asyncio.wait_for(app(scope, receive, send), 20)
    return answer


def payloads(answer: Answer) -> list[Any]:
    return [message["payload"] for message in answer.json()["messages"]]


# event streams


def ids(answer: Answer) -> list[str]:
    return [line[4:] for line in answer.body.decode().splitlines() if line.startswith("id: ")]


@pytest.mark.parametrize("query", ["", "since=now", "since=1h", "where=n%20%3E%205"])
async def test_an_event_source_that_is_cut_before_its_first_message_misses_nothing(
    monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 3_600)
    async with running() as (app, gateway):
        gateway.hub.publish("q/before", b'{"n": 1}')
        topic = "q/%2B" if "where" in query else "q/a"
        cut = await ask(app, f"/topics/{topic}?{query}&format=sse", on_part=lambda a: "go" if ids(a) else None)
        assert ids(cut) == [gateway.history.position]
        for number in range(7, 10):
            gateway.hub.publish("q/a", b'{"n": %d}' % number)
        again = await ask(
            app,
            f"/topics/{topic}?{query}&format=sse",
            on_part=lambda a: "go" if a.body.count(b'"n"') == 3 else None,
            last_event_id=ids(cut)[-1],
        )
        assert [n for n in range(10) if b'{"n": %d}' % n in again.body] == [7, 8, 9]
        assert b"event: gap" not in again.body


async def test_an_event_source_that_joins_a_long_interval_knows_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 3_600)
    address = "/topics/q/a?format=sse&since=now&max_hz=0.01"
    async with running() as (app, gateway):
        first_is_there = asyncio.Event()
        last = asyncio.Event()

        async def open_first() -> None:
            def on_part(answer: Answer) -> str | None:
                if ids(answer):
                    first_is_there.set()
                return "go" if last.is_set() else None

            await ask(app, address, on_part=on_part)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(open_first())
            await first_is_there.wait()
            gateway.hub.publish("q/a", b"1")
            for _ in gateway.hub.flush():
                await asyncio.sleep(0)
            gateway.hub.publish("q/a", b"2")  # waits for the end of the interval
            second = await ask(app, address, on_part=lambda a: "go" if ids(a) else None)
            assert ids(second) == [gateway.history.position]
            last.set()
            for _ in gateway.hub.flush():
                await asyncio.sleep(0)


async def test_a_long_quiet_event_source_comes_back_within_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.02)
    async with running(history_messages=2) as (app, gateway):
        hub = gateway.hub

        def others_go_on(answer: Answer) -> str | None:
            if len(ids(answer)) == 1:
                for _ in range(50):
                    hub.publish("busy", b"1")
            return "go" if gateway.history.position in ids(answer)[1:] else None

        quiet = await ask(app, "/topics/q/%23?format=sse", on_part=others_go_on)
        assert b"\n: \nevent: position\n" in quiet.body
        assert ids(quiet)[-1] == gateway.history.position


async def test_the_id_of_a_silent_stream_never_overtakes_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.001)
    async with running() as (app, gateway):

        def publish(answer: Answer) -> str | None:
            if len(ids(answer)) < 10:
                gateway.hub.publish("q/a", b"1")
            return "go" if len(ids(answer)) >= 20 else None

        seqs = [
            int(found.partition(":")[2]) for found in ids(await ask(app, "/topics/q/a?format=sse", on_part=publish))
        ]
        assert seqs == sorted(seqs)


@pytest.mark.parametrize("version", ["2.3", "2.4"])
async def test_an_event_stream_whose_client_has_gone_before_its_first_event_gives_back_its_place(version: str) -> None:
    async with running() as (app, gateway):
        with contextlib.suppress(ClientDisconnect):
            await ask(app, "/topics/a?format=sse", version=version, has_gone=True)
        assert gateway.connections.total == 0
        assert (len(gateway.event_streams), gateway.hub.subscriber_count) == (0, 0)


async def test_an_empty_last_event_id_is_none() -> None:
    async with running() as (app, _):
        assert (await ask(app, "/topics/a?format=sse", "HEAD", last_event_id="")).status == 200
        assert (await ask(app, "/topics/a?format=sse", "HEAD", last_event_id="nonsense")).status == 400


@pytest.mark.parametrize("name", ["lastEventId", "last-event-id", "Last-Event-Id", "Last-Event-ID", "last_event_id"])
async def test_a_polyfill_of_event_source_goes_on_by_its_address(name: str) -> None:
    async with running() as (app, gateway):
        for number in range(3):
            gateway.hub.publish("q/a", b"%d" % number)
        position = f"{gateway.history.epoch}:1"

        async def payloads(query: str, last_event_id: str = "") -> list[Any]:
            address = f"/topics/q/a?format=sse&{query}"
            answer = await ask(app, address, on_part=lambda a: "go" if ids(a) else None, last_event_id=last_event_id)
            assert answer.status == 200, answer.body
            data = (line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: "))
            return [message["payload"] for message in map(json.loads, data) if "topic" in message]

        assert await payloads(f"{name}={position}") == [1, 2]
        assert await payloads(f"since=now&{name}={position}") == [1, 2]
        assert await payloads(f"{name}=") == [2]
        # its address is that of the first attempt
        assert await payloads(f"{name}=old:9&{name}={position}") == [1, 2]
        assert await payloads(f"{name}={position}", last_event_id=f"{gateway.history.epoch}:2") == [2]
        refused = await ask(app, f"/topics/q/a?format=sse&{name}=nonsense")
        assert (refused.status, json.loads(refused.body)["code"]) == (400, "bad_since")
        assert (await ask(app, f"/topics/q/a?format=ndjson&{name}={position}")).status == 400


async def test_no_event_of_a_stream_is_without_data() -> None:
    """Clients that are less strict than a browser give their users what has none as an empty text."""
    async with running() as (app, gateway):
        gateway.hub.publish("q/a", b"1")
        answer = await ask(app, "/topics/q/a?format=sse", on_part=lambda a: "go" if b"position" in a.body else None)
        for event in answer.body.decode().removesuffix("\n\n").split("\n\n"):
            assert "\ndata: {" in f"\n{event}", event
        assert answer.body.startswith(b"retry: 2000\nevent: subscribed\n")


async def test_an_event_stream_takes_nothing_after_the_end_of_its_token_however_slow_its_reader() -> None:
    secret = "a secret of more than thirty-two bytes"
    token = mint(secret_key(secret), ttl_seconds=2, subscribe=["q/#"])
    async with running(access_secret=secret) as (app, gateway):
        last_in_time = 0
        late = 0

        def publish_more_than_was_read(answer: Answer) -> str | None:
            nonlocal last_in_time, late
            if answer.is_complete:
                return None
            [sink] = gateway.event_streams
            assert isinstance(sink, PulledSink)
            if sink.closed is None:
                last_in_time = gateway.history.seq + 3
            else:
                late += 1
                assert sink.closed[0] == 4005
                assert gateway.hub.subscriber_count == 0
            for _ in range(3):
                gateway.hub.publish("q/a", b'"%b"' % (b"." * 30_000))
            for _ in gateway.hub.flush():
                pass
            return "go" if late > 200 else None

        stream = await ask(
            app, "/topics/q/a?format=sse", on_part=publish_more_than_was_read, authorization=f"Bearer {token}"
        )
        assert stream.is_complete
        assert late < 200  # and none where the reader had just caught up
        assert 3 < int(ids(stream)[-1].partition(":")[2]) <= last_in_time


# downloads


def fill(gateway: Gateway, messages: int, topics: int, size: int = 1) -> None:
    for number in range(messages):
        for topic in range(topics):
            gateway.hub.publish(f"t/{topic}", b"%0*d" % (size, number))


def evicting(gateway: Gateway, messages: int, topics: int) -> Callable[[Answer], None]:
    """A reader who, after the first part, waits until so much more has arrived."""

    def on_part(answer: Answer) -> None:
        if len(answer.parts) == 1:
            fill(gateway, messages, topics)

    return on_part


async def test_a_download_says_what_was_evicted_while_its_reader_took_its_time() -> None:
    async with running(history_messages=100) as (app, gateway):
        fill(gateway, 100, 40)
        answer = await ask(app, "/topics/t/%23?format=ndjson", on_part=evicting(gateway, 100, 40))
        *messages, last = [json.loads(line) for line in answer.body.splitlines()]
        assert 0 < len(messages) < 4_000
        assert last == {"event": "gap", "reason": "evicted", "lost": 4_000 - len(messages)}
        assert answer.is_complete

        until = gateway.history.position
        limited = await ask(app, "/topics/t/%23?format=ndjson&limit=1500", on_part=evicting(gateway, 60, 40))
        *messages, last = [json.loads(line) for line in limited.body.splitlines()]
        assert (len(messages), last) == (1_500, {"event": "gap", "reason": "evicted", "lost": None})
        since = await ask(app, f"/topics/t/%23?format=ndjson&since={until}")
        assert [line for line in since.body.splitlines() if b"event" in line] == []


async def test_what_had_gone_before_a_download_is_said_at_its_start() -> None:
    async with running(history_messages=10, access_origins=["https://page.example"]) as (app, gateway):
        gateway.hub.publish("t/0", b"0")
        start = gateway.history.position
        fill(gateway, 25, 2)
        answer = await ask(app, f"/topics/t/%23?format=ndjson&since={start}")
        first, *messages = [json.loads(line) for line in answer.body.splitlines()]
        assert first == {"event": "gap", "reason": "evicted", "lost": 30}
        assert len(messages) == 20
        table = await ask(app, f"/topics/t/%23?format=csv&since={start}")
        assert table.headers["gateway-gap"] == "reason=evicted, lost=30"
        assert len(table.body.splitlines()) == 21
        foreign = await ask(app, "/topics/t/%23?format=csv&until=old:5", origin="https://page.example")
        assert foreign.headers["gateway-gap"] == "reason=epoch, lost=unknown"
        assert "gateway-gap" in foreign.headers["access-control-expose-headers"]


async def test_a_table_that_lost_rows_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    async with running(history_messages=100) as (app, gateway):
        fill(gateway, 100, 40)
        whole = await ask(app, "/topics/t/%23?format=csv")
        assert whole.is_complete
        assert "gateway-gap" not in whole.headers
        assert len(whole.body.splitlines()) == 4_001
        broken = await ask(app, "/topics/t/%23?format=csv", on_part=evicting(gateway, 100, 40))
        assert not broken.is_complete
        assert "broken off" in caplog.text
        # of what has lost its beginning already, a table holds what is left
        rest = await ask(app, "/topics/t/%23?format=csv", on_part=evicting(gateway, 1, 1))
        assert rest.is_complete
        assert rest.headers["gateway-gap"].startswith("reason=evicted")


async def test_a_table_gives_back_what_was_published(tmp_path: Path) -> None:
    payloads = [
        b'{"a": 1,\r\n"b":"x,y"}\n',
        b"on",
        b'"on"',
        b" 21.5 ",
        b"\xff\x00",
        b"",
        b"a\0b\rc",
        b"/wA=",
        '"é"'.encode(),
    ]
    properties: list[Properties | None] = [
        None,
        {"content_type": "text/plain", "correlation_data": b"\xff", "user_properties": [("a", "1"), ("a", ",")]},
    ]
    async with running() as (app, gateway):
        for number, payload in enumerate(payloads * 2):
            told = properties[number // len(payloads)]
            gateway.hub.publish(f"t/{number}", payload, qos=number % 3, retained=number % 2 == 0, properties=told)
        table = await ask(app, "/topics/t/%23?format=csv&properties=1")
        plain = await ask(app, "/topics/t/%23?format=csv")
    (tmp_path / "x.csv").write_bytes(table.body)
    again = [recorded.message for recorded in read_recording(str(tmp_path / "x.csv"))]
    assert [message.payload for message in again] == payloads * 2
    assert [message.qos for message in again] == [number % 3 for number in range(len(again))]
    # an empty message clears what was retained, and isn't itself
    kept = [number % 2 == 0 and bool(message.payload) for number, message in enumerate(again)]
    assert [message.retain for message in again] == kept
    shown = {"content_type": "text/plain", "correlation_data": "/w==", "user_properties": [("a", "1"), ("a", ",")]}
    assert [message.properties for message in again] == [None] * len(payloads) + [shown] * len(payloads)
    assert plain.body.splitlines()[0] == b"time,seq,topic,payload,encoding,qos,retained"


async def test_a_table_of_fields_is_read_by_its_paths(tmp_path: Path) -> None:
    async with running() as (app, gateway):
        gateway.hub.publish("t/0", b'{"SDS0X1":{"PM2.5":4},"rx":[1,{"rssi":-60}],"time":"12:30","seq":3}')
        table = await ask(app, "/topics/t/0?format=csv&fields=" + quote(r"SDS0X1.PM2\.5,rx[1].rssi,time,seq"))
    assert table.body.splitlines()[0] == rb"time,seq,topic,SDS0X1.PM2\.5,rx[1].rssi,\time,\seq"
    (tmp_path / "x.csv").write_bytes(table.body)
    [recorded] = read_recording(str(tmp_path / "x.csv"))
    assert json.loads(recorded.message.payload) == {
        "SDS0X1": {"PM2.5": 4},
        "rx": [None, {"rssi": -60}],
        "time": "12:30",
        "seq": 3,
    }


@pytest.mark.parametrize("name", ["ndjson", "csv"])
async def test_downloads_honour_limit_order_and_since_last(name: str) -> None:
    async with running() as (app, gateway):
        fill(gateway, 10, 3)

        async def numbers(query: str) -> list[int]:
            answer = await ask(app, f"/topics/t/%23?format={name}&{query}")
            lines = answer.body.decode().splitlines()
            assert answer.is_complete
            return (
                [json.loads(x)["seq"] for x in lines] if name == "ndjson" else [int(x.split(",")[1]) for x in lines[1:]]
            )

        assert await numbers("") == list(range(1, 31))
        assert await numbers("limit=3") == [1, 2, 3]
        assert await numbers("limit=3&order=desc") == [30, 29, 28]
        assert await numbers("since=last") == [28, 29, 30]
        assert await numbers("since=last&limit=2") == [28, 29]
        assert await numbers("since=1h&limit=20000") == list(range(1, 31))
        head = await ask(app, f"/topics/t/%23?format={name}", "HEAD")
        assert head.body == b""
        assert "content-length" not in head.headers


# pages


async def test_a_snapshot_has_every_topic_whatever_arrives_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(history_messages=1, history_topics=20_000) as (app, gateway):
        fill(gateway, 1, 3_000)
        sleep = asyncio.sleep
        turns = 0

        async def busy_sleep(seconds: float) -> None:
            nonlocal turns
            turns += 1
            if turns < 8:
                for topic in range(3_000):
                    gateway.hub.publish(f"t/{topic}", b"2")
            await sleep(seconds)

        monkeypatch.setattr(asyncio, "sleep", busy_sleep)
        answer = (await ask(app, "/topics/t/%23?limit=10000")).json()
        assert turns > 3
        assert {m["topic"] for m in answer["messages"]} == {f"t/{topic}" for topic in range(3_000)}
        assert len(answer["messages"]) == 3_000


async def test_last_values_come_in_pages() -> None:
    async with running() as (app, gateway):
        fill(gateway, 1, 2_500)
        found: list[str] = []
        address: str | None = "/topics/t/%23"
        sizes = []
        while address is not None:
            answer = await ask(app, address)
            page = answer.json()
            assert page.get("more", False) == (answer.next_page is not None) == ("next" in page)
            found += [m["topic"] for m in page["messages"]]
            sizes.append(len(page["messages"]))
            address = answer.next_page
        assert sizes == [1_000, 1_000, 500]
        assert sorted(found) == sorted(f"t/{topic}" for topic in range(2_500))
        sparse = await ask(app, "/topics/t/%23?limit=2&where=" + quote("topic.endsWith('99')"))
        rest = await ask(app, sparse.next_page or "")
        assert [m["topic"] for m in sparse.json()["messages"] + rest.json()["messages"]] == [
            "t/1099", "t/1199", "t/1299", "t/1399",
        ]  # fmt: skip
        assert (await ask(app, "/topics/t/%23?since=1h&after=t/1")).status == 400


async def test_a_page_is_bounded_in_bytes() -> None:
    async with running() as (app, gateway):
        fill(gateway, 10, 2, 1_000_000)
        for query, count in (("since=1h", 20), ("since=last", 2), ("order=desc", 20)):
            address: str | None = f"/topics/t/%23?{query}"
            seqs: list[int] = []
            while address is not None:
                answer = await ask(app, address)
                assert len(answer.body) < 9e6
                seqs += [m["seq"] for m in answer.json()["messages"]]
                address = answer.next_page
            assert len(set(seqs)) == len(seqs) == count


async def test_a_link_keeps_the_end_of_a_window() -> None:
    async with running() as (app, gateway):
        fill(gateway, 30, 1)
        epoch = gateway.history.epoch
        address: str | None = f"/topics/t/0?since=1h&until={epoch}:10&limit=4&token=secret"
        found: list[int] = []
        while address is not None:
            answer = await ask(app, address)
            found += payloads(answer)
            address = answer.next_page
            assert "secret" not in (address or "")
        assert found == list(range(10))


@pytest.mark.parametrize("query", ["order=desc&until=old:500", "since=1h&until=old:500", "since=old:5"])
async def test_a_position_of_another_epoch_is_a_gap(query: str) -> None:
    async with running() as (app, gateway):
        fill(gateway, 3, 1)
        answer = (await ask(app, f"/topics/t/0?{query}")).json()
        assert (answer["recovered"], answer["gap"]) == (False, {"reason": "epoch", "lost": None})


async def test_pages_tell_each_lost_message_once_and_a_new_gap_is_a_new_answer() -> None:
    async with running(history_messages=10) as (app, gateway):
        gateway.hub.publish("t/0", b"0")
        start = gateway.history.position
        gateway.hub.publish("t/1", b"1")
        address = f"/topics/t/%23?since={start}&where=" + quote("payload > 90")
        empty = await ask(app, address)
        assert payloads(empty) == []
        assert (await ask(app, address, if_none_match="*")).status == 304
        assert (await ask(app, address, if_none_match=f'"x", {empty.headers["etag"][2:]}')).status == 304
        fill(gateway, 20, 2)
        changed = await ask(app, address, if_none_match=empty.headers["etag"])
        assert changed.json()["gap"] == {"reason": "evicted", "lost": 21}
        for order in ("asc", "desc"):
            lost, seqs = 0, []
            page: str | None = f"/topics/t/%23?since={start}&limit=3&order={order}"
            while page is not None:
                answer = await ask(app, page)
                lost += answer.json().get("gap", {"lost": 0})["lost"]
                seqs += [m["seq"] for m in answer.json()["messages"]]
                page = answer.next_page
            assert (lost, len(seqs)) == (21, 20)


@pytest.mark.parametrize(
    ("address", "method", "status"),
    [
        ("/topics/a?topics=b", "GET", 400),
        ("/topics/a?format=csv&sinc=1h", "GET", 400),
        ("/topics/a?format=sse&limit=5", "HEAD", 400),
        ("/topics/a?format=sse&max_hz=5&where=n%20%3E%205", "HEAD", 200),
        ("/topics/a?format=svg&field=n&title=t&unit=u&theme=dark&where=n%20%3E%205&since=1h", "GET", 200),
        ("/topics/a?format=svg&limit=5", "GET", 400),
        ("/topics/a?format=html&embed&anything=1", "GET", 200),
        ("/topics/a?_=1790000000123", "GET", 200),
        ("/topics?filters=a", "GET", 400),
        ("/topics/a?retained=1", "POST", 400),
    ],
)
async def test_a_parameter_without_effect_is_refused(address: str, method: str, status: int) -> None:
    async with running() as (app, _):
        answer = await ask(app, address, method)
        assert answer.status == status
        if status == 400 and method != "HEAD":
            assert json.loads(answer.body)["code"] == "bad_request"
            assert "known are" in json.loads(answer.body)["detail"]


async def test_a_badge_honours_where() -> None:
    async with running() as (app, gateway):
        for number in (1, 7, 2):
            gateway.hub.publish("t/0", b'{"n": %d}' % number)
        answer = await ask(app, "/topics/t/0?format=svg&where=n%20%3E%205")
        assert b"t/0 n: 7<" in answer.body


async def test_a_message_that_is_left_out_now_makes_a_new_answer() -> None:
    async with running() as (app, gateway):
        for topic in "adebc":
            gateway.hub.publish(f"t/{topic}", b'{"v":1}')
        address = "/topics/t/%23?limit=3&where=" + quote("v > 0")
        first = await ask(app, address)
        assert [m["topic"] for m in first.json()["messages"]] == ["t/a", "t/b", "t/c"]
        assert (await ask(app, address, if_none_match=first.headers["etag"])).status == 304
        gateway.hub.publish("t/b", b'{"v":0}')  # the third one now is between the other two
        again = await ask(app, address, if_none_match=first.headers["etag"])
        assert [m["topic"] for m in again.json()["messages"]] == ["t/a", "t/c", "t/d"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", "text/csv"),
        ("image/*", "image/svg+xml"),
        ("image/*, text/csv", "image/svg+xml"),
        ("image/*;q=0.5, text/csv", "text/csv"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("*/*, application/json;q=0, application/*;q=0.1", "text/csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "text/html"),
        ("text/csv;q=0.5, application/json;q=0.7", "application/json"),
        ("text/csv, application/json", "text/csv"),
        ("text/csv;header=present;Q=0.1, application/x-ndjson;q=0.2", "application/x-ndjson"),
        ("text/csv;q=much, image/svg+xml;q=nan, text/html;q=-1, */*;q=0", None),
        ("image/png", None),
        (";;;,,", None),
    ],
)
async def test_what_is_accepted_most_is_what_comes(accept: str, expected: str | None) -> None:
    async with running() as (app, _):
        answer = await ask(app, "/topics/a", accept=accept)
        if expected is None:
            assert answer.status == 406
        else:
            assert answer.headers["content-type"].partition(";")[0] == expected


@pytest.mark.parametrize("payload", ["1" + "0" * 400, "-1" + "0" * 400, '{"a":1' + "0" * 400 + "}"])
async def test_a_badge_passes_over_numbers_that_no_float_holds(payload: str) -> None:
    async with running() as (app, gateway):
        for text in ("7", payload):
            gateway.hub.publish("t/0", text.encode())
        answer = await ask(app, "/topics/t/0?format=svg")
        assert answer.status == 200
        assert b": 7<" in answer.body


@pytest.mark.parametrize(
    ("payloads", "query", "shown"),
    [
        ([b'{"battery":90,"linkquality":80,"id":3,"e":{"co2":611}}'], "", "t/0 e.co2: 611"),
        ([b'{"battery":90,"linkquality":80,"id":3}'], "", "t/0: no data"),
        ([b'{"battery":90,"linkquality":80,"id":3}'], "&field=battery", "t/0 battery: 90"),
        ([b'{"tempc":"19.2"}'], "&unit=C", "t/0 tempc: 19.2 C"),
        ([b'{"POWER":"OFF"}', b'{"POWER":" ON "}'], "", "t/0 POWER: ON"),
        ([b"open", b"closed"], "", "t/0: closed"),
        ([b'{"leak":true}'], "", "t/0 leak: true"),
        ([b"19.5 \xc2\xb0C"], "", "t/0: 19.5"),
        ([b'{"SDS0X1":{"PM2.5":4}}'], "&field=" + quote(r"SDS0X1.PM2\.5"), "t/0 SDS0X1.PM2.5: 4"),
        ([b'[{"v":1},{"v":2}]'], "&field=[1].v", "t/0 [1].v: 2"),
        ([b"\xd7\x6d\xf8"], "", "t/0: no data"),
    ],
)
async def test_a_badge_shows_the_number_or_state_that_is_looked_for_first(
    payloads: list[bytes], query: str, shown: str
) -> None:
    async with running() as (app, gateway):
        for payload in payloads:
            gateway.hub.publish("t/0", payload)
        body = (await ask(app, f"/topics/t/0?format=svg{query}")).body.decode()
        assert f"<title>{shown}</title>" in body


@pytest.mark.parametrize("field", ["a" + ".a" * 32, "a" * 4_097])
async def test_the_field_of_a_badge_is_bounded(field: str) -> None:
    async with running() as (app, gateway):
        gateway.hub.publish("t/0", b'{"a": {"b": 5}, "c.d": 6}')
        refused = await ask(app, f"/topics/t/0?format=svg&field={field}")
        assert (refused.status, json.loads(refused.body)["code"]) == (400, "bad_shape")
        for name, shown in (("a.b", b"t/0 a.b: 5<"), ("c.d", b"t/0 c.d: 6<"), ("", b"t/0 a.b: 5<")):
            assert shown in (await ask(app, f"/topics/t/0?format=svg&field={name}")).body


# publishing


async def test_pages_behind_two_gateways_end_instead_of_going_round() -> None:
    async with running() as (one, first), running() as (two, second):
        for gateway in (first, second):
            for number in range(5):
                gateway.hub.publish("a", b"%d" % number, 0, False, None, 0)
        for order in ("asc", "desc"):
            answer = await ask(one, f"/topics/a?since=1h&limit=2&order={order}")
            assert (await ask(one, answer.next_page or "")).status == 200
            other = await ask(two, answer.next_page or "")
            assert other.status == 409
            problem = json.loads(other.body)
            assert (problem["code"], problem["reason"]) == ("bad_since", "epoch")
        # whoever comes back with a position still gets what there is
        resumed = (await ask(two, f"/topics/a?since={first.history.epoch}:2")).json()
        assert resumed["gap"] == {"reason": "epoch", "lost": None}
        assert len(resumed["messages"]) == 5
        last = (await ask(one, "/topics/%23?limit=1")).json()
        assert "next" not in last or "epoch" not in last["next"]


async def test_other_methods_get_a_problem_document_that_names_those_there_are() -> None:
    async with running() as (app, _):
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
            refused = await ask(app, "/topics/a/b", method)
            assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, POST")
            assert refused.headers["content-type"] == "application/problem+json"


async def test_a_confirmation_is_of_this_very_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever members its payload has, one that only begins as it does is another one."""
    mine, other = b'{"a":1,"time":5}', b'{"a":1,"time":6,"b":7}'

    async with running() as (app, gateway):

        async def publish(topic: str, payload: bytes, **_: object) -> None:
            for found in (other, payload):
                gateway.hub.publish(topic, found)

        monkeypatch.setattr(gateway, "publish", publish)
        answer = await ask(app, "/topics/a?confirm=1", "POST", data=mine)
        assert answer.status == 202
        assert json.loads(answer.body)["position"] == gateway.history.position


async def test_a_flag_is_understood_or_refused() -> None:
    async with running() as (app, _):
        for text, status in (("True", 503), ("YES", 503), ("0", 503), ("FALSE", 503), ("on", 400), ("2", 400)):
            for name in ("retain", "confirm", "properties"):
                assert (await ask(app, f"/topics/a?{name}={text}", "POST")).status == status, (name, text)


async def test_a_confirmation_takes_a_grant_to_read_and_a_broker_is_named_to_nobody_without_a_token() -> None:
    secret = "a secret of more than thirty-two bytes"
    token = mint(secret_key(secret), ttl_seconds=60, subscribe=["b"], publish=["a"])
    bearer = f"Bearer {token}"
    async with running(access_secret=secret) as (app, gateway):
        assert (await ask(app, "/topics/a", "POST", authorization=bearer)).status == 503
        assert (await ask(app, "/topics/a?confirm=1", "POST", authorization=bearer)).status == 403

        def reconnect_in_vain(answer: Answer) -> str | None:
            if answer.body.count(b'"connected":false') == 2:
                return "go"
            gateway._was_connected = True
            gateway._upstream_changed(gateway.upstream.state)
            return None

        while gateway.upstream.state.last_error is None:  # noqa: ASYNC110 - it is no event
            await asyncio.sleep(0.01)
        stream = await ask(app, "/topics/b?format=sse", on_part=reconnect_in_vain, authorization=bearer)
        assert b"127.0.0.1" not in stream.body
        assert b"reason" not in stream.body


async def test_a_broker_is_told_as_lost_only_where_it_was_there_before() -> None:
    async with running() as (app, gateway):

        def lose(answer: Answer) -> str | None:
            if answer.body.count(b'"connected":false') == 2:
                return "go"
            gateway._was_connected = True
            gateway._upstream_changed(gateway.upstream.state)
            return None

        before = gateway.wall_clock_ms()
        stream = await ask(app, "/topics/b?format=sse", on_part=lose)
        told = [json.loads(line[6:]) for line in stream.body.decode().splitlines() if '"upstream"' in line]
        assert "lost_at" not in told[0]
        assert before <= told[1]["lost_at"] <= gateway.wall_clock_ms()
        # who comes later is told of the same moment
        later = await ask(app, "/topics/b?format=sse", on_part=lambda a: "go" if b'"connected"' in a.body else None)
        assert f'"lost_at":{told[1]["lost_at"]}'.encode() in later.body


# the list of topics


async def test_the_list_counts_all_on_every_page_and_a_silent_topic_slows_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as (app, gateway):
        fill(gateway, 2, 25)
        first = (await ask(app, "/topics?prefix=t/&limit=10")).json()
        second = (await ask(app, f"/topics?prefix=t/&limit=10&after={first['next']}")).json()
        assert (first["total"], second["total"]) == (25, 25)
        assert not {t["topic"] for t in first["topics"]} & {t["topic"] for t in second["topics"]}
        now = gateway.wall_clock_ms()
        monkeypatch.setattr(Gateway, "wall_clock_ms", staticmethod(lambda: now + 100_000))
        later = (await ask(app, "/topics?prefix=t/&limit=1")).json()
        assert later["topics"][0]["rate"] == pytest.approx(0.01, rel=0.05)


async def test_the_list_counts_as_of_a_position_to_which_live_messages_are_added() -> None:
    async with running(history_messages=10) as (app, gateway):
        fill(gateway, 7, 2)
        then = gateway.history.position
        # more than is kept of one topic, and one that is new
        for number in range(25):
            gateway.hub.publish("t/1", b"%d" % number)
        gateway.hub.publish("t/2", b"new")

        async def counts(query: str) -> dict[str, int]:
            answer = (await ask(app, f"/topics?prefix=t/{query}")).json()
            assert answer["position"] == gateway.history.position
            return {topic["topic"]: topic["count"] for topic in answer["topics"]}

        assert await counts("") == {"t/0": 7, "t/1": 32, "t/2": 1}
        assert await counts(f"&until={then}") == {"t/0": 7, "t/1": 7, "t/2": 0}
        assert await counts("&until=anotherlife:3") == await counts("")
        assert (await ask(app, "/topics?until=now")).status == 400


@pytest.mark.parametrize(
    "query",
    ["format=svg", "order=desc&fields=y", "since=1h&fields=y&limit=10", "format=csv&fields=y"],
)
async def test_turns_are_as_short_for_large_payloads(query: str) -> None:
    count = 40
    async with running() as (app, gateway):
        for number in range(count):
            gateway.hub.publish(f"t/{number}", b'{"x":[%b]}' % b",".join([b'"4f3a5b"'] * 50_000))
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(count_turns())
        await asyncio.sleep(0)
        before = turns
        answers = await asyncio.gather(*(ask(app, f"/topics/t/%23?{query}") for _ in range(2)))
        others.cancel()
        assert [answer.status for answer in answers] == [200, 200]
        # each takes a millisecond or so to decode
        assert turns - before > count // 3


async def test_the_list_is_kept_apart_by_what_is_accepted() -> None:
    async with running() as (app, _):
        for accept in ("application/json", "text/html"):
            for address in ("/topics", "/topics/a"):
                answer = await ask(app, address, accept=accept)
                assert answer.headers["content-type"].startswith(accept)
                assert "Accept" in answer.headers["vary"].split(", ")


async def test_too_many_filters_are_refused_and_counted_as_such() -> None:
    async with running(limit_filters=5, limit_filter_bytes=256) as (app, gateway):
        many = "&".join(f"filter=a/{number}" for number in range(6))
        refused = await ask(app, f"/topics?{many}")
        assert (refused.status, json.loads(refused.body)["code"]) == (400, "limit")
        assert (await ask(app, "/topics/a?" + many.replace("filter", "topic"))).status == 400
        assert gateway.refusals.by_reason == {"filters": 2}
        assert (await ask(app, f"/topics/{'a' * 200}?topic={'b' * 57}")).status == 400
        assert gateway.refusals.by_reason == {"filters": 2, "filter_bytes": 1}


async def test_a_refused_event_stream_is_counted_once() -> None:
    async with running(limit_connections=1) as (app, gateway):
        gateway.connections.open("127.0.0.9")
        assert (await ask(app, "/topics/a?format=sse")).status == 503
        assert gateway.refusals.by_reason == {"limit_connections": 1}


@pytest.mark.parametrize(
    "since", ["last", "now", "1h", "1790000000000", "old:7", "{epoch}:0", "{epoch}:3", "{epoch}:6"]
)
async def test_since_means_the_same_over_websocket_events_and_pages(since: str) -> None:
    async with running() as (app, gateway):
        for number in range(6):
            gateway.hub.publish(f"a/{number % 2}", b"%d" % number)
        text = since.format(epoch=gateway.history.epoch)
        heard: list[bytes] = []

        class Ear:
            def write(self, data: bytes) -> None:
                heard.append(data)

            def buffered(self) -> int:
                return 0

            def close(self, code: object, reason: str) -> None: ...

        subscriber = gateway.hub.add(Ear())
        answer = gateway.hub.subscribe(subscriber, ["a/+"], parse_since(text))
        await asyncio.sleep(0.02)
        over_websocket = [json.loads(body)["seq"] for data in heard for _, body in unframe(data)]

        def has_subscribed(stream: Answer) -> str | None:
            return "go" if b"event: subscribed" in stream.body and stream.body.endswith(b"\n\n") else None

        events = await ask(app, f"/topics/a/%2B?format=sse&since={text}", on_part=has_subscribed)
        page = (await ask(app, f"/topics/a/%2B?since={text}")).json()
        assert [message["seq"] for message in page["messages"]] == over_websocket
        assert page["recovered"] == answer.recovered
        assert (b'"recovered":true' in events.body) == answer.recovered
        gap = page.get("gap")
        assert (gap and gap["reason"]) == ("epoch" if since.startswith("old") else None)


async def test_a_position_ahead_of_the_log_is_refused_alike() -> None:
    async with running() as (app, gateway):
        text = f"{gateway.history.epoch}:9"
        page = await ask(app, f"/topics/a?since={text}")
        assert page.status == 400
        with pytest.raises(ProtocolError) as refused:
            gateway.hub.subscribe(gateway.hub.add(PulledSink(gateway.hub, 1)), ["a"], parse_since(text))
        assert json.loads(page.body)["detail"] == str(refused.value)


async def test_who_is_ahead_of_this_node_of_a_cluster_is_told_to_come_back() -> None:
    async with running() as (app, gateway):
        gateway.history.is_followed = True
        gateway.history.begin_anew("k3f9", 0, 0)  # as a node does when it has found the shared log
        text = "k3f9:9"
        page = await ask(app, f"/topics/a?since={text}")
        assert page.status == 503
        assert page.headers["retry-after"] == "1"
        problem = json.loads(page.body)
        assert (problem["code"], problem["reason"]) == ("bad_since", "behind")
        # any other status than 200 would end an EventSource for good
        events = await ask(app, f"/topics/a?since={text}", accept="text/event-stream")
        assert events.status == 200
        assert b"retry: 2000" in events.body
        assert b"is ahead of the log" in events.body
        # one of a log that it may yet find
        gateway.history.is_filling = True
        assert (await ask(app, "/topics/a?since=k0:1")).status == 503
        gateway.history.is_filling = False
        # nothing that this node has stands between
        gateway.hub.publish("a", b"1")
        gateway.history.seq = 9
        assert (await ask(app, f"/topics/a?since={text}")).status == 200


async def test_who_may_read_nothing_learns_no_position() -> None:
    async with running(access_secret="a secret of more than thirty-two bytes") as (app, gateway):
        gateway.hub.publish("a", b"1")
        nothing = (await ask(app, "/topics")).json()
        assert nothing == {"position": None, "total": 0, "topics": []}

"""`gateway.client` on a real gateway: over cuts, restarts and ends of tokens nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from gateway.client import (
    Chart,
    Event,
    History,
    Live,
    LostError,
    Message,
    RefusedError,
    alerts,
    connect,
    devices,
    history,
    last,
    publish,
)
from gateway.core.protocol import CloseCode
from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually, eventually_async, free_port

pytestmark = pytest.mark.anyio

SECRET = "more than thirty-two bytes of a secret"
PAGE = Path(__file__).parents[2] / "docs/python.md"


class Reader:
    """A client that is read all the time."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.messages: list[Message] = []
        self.events: list[Event] = []
        self.error: Exception | None = None
        for event in ("gap", "state", "subscribed", "upstream", "expiring", "error"):
            live.on(event, self.events.append)

    async def read(self) -> None:
        try:
            async for message in self.live:
                self.messages.append(message)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def states(self) -> list[str | None]:
        return [event.state for event in self.events if event.event == "state"]

    def named(self, event: str) -> list[Event]:
        return [each for each in self.events if each.event == event]


@asynccontextmanager
async def reading(live: Live) -> AsyncIterator[Reader]:
    reader = Reader(live)
    task = asyncio.create_task(reader.read())
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await live.close()


def token(**claims: object) -> str:
    return mint(secret_key(SECRET), **{"ttl_seconds": 3600, "subject": "me", "subscribe": ["#"], **claims})  # type: ignore[arg-type]


@pytest.mark.slow
async def test_over_restarts_with_an_archive_nothing_is_lost_and_nothing_comes_twice(
    make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, archive_file=str(tmp_path / "a.db"))
    async with reading(connect(gateway.http, f"{prefix}/#", since="now", max_delay=0.2)) as reader:
        await eventually_async(lambda: reader.named("subscribed"))
        for number in range(400):
            publisher.publish(f"{prefix}/{number % 3}", str(number).encode(), qos=1)
            if number in (100, 250):
                await asyncio.to_thread(gateway.stop)
            if number in (150, 300):
                await asyncio.to_thread(gateway.start)
            await asyncio.sleep(0.001)
        await eventually_async(lambda: len(reader.messages) >= 400)
    assert sorted(message.payload for message in reader.messages) == list(range(400))
    assert [message.seq for message in reader.messages] == sorted({message.seq for message in reader.messages})
    assert reader.named("gap") == []
    assert reader.states().count("open") == 3


@pytest.mark.slow
async def test_what_a_restart_without_an_archive_loses_is_told(
    make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto)
    async with reading(connect(gateway.ws, f"{prefix}/#", max_delay=0.2)) as reader:
        publisher.publish(f"{prefix}/a", b"1")
        await eventually_async(lambda: reader.messages)
        await asyncio.to_thread(gateway.stop)
        await eventually_async(lambda: "waiting" in reader.states())
        await asyncio.to_thread(gateway.start)
        await eventually_async(lambda: reader.named("gap"))
        [gap] = reader.named("gap")
        assert (gap.reason, gap.lost) == ("epoch", None)
        publisher.publish(f"{prefix}/a", b"2")
        await eventually_async(lambda: reader.messages[-1].payload == 2)


@pytest.mark.slow
async def test_a_gateway_that_hangs_is_noticed_and_come_back_to(
    make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto)
    live = connect(gateway.ws, f"{prefix}/#", silence=0.2, timeout=1, max_delay=0.2)
    async with reading(live) as reader:
        publisher.publish(f"{prefix}/a", b"1")
        await eventually_async(lambda: reader.messages)
        gateway.freeze()
        try:
            await eventually_async(lambda: "waiting" in reader.states())
            assert "does not answer" in str(next(e.reason for e in reader.named("state") if e.state == "waiting"))
            for number in range(2, 10):
                publisher.publish(f"{prefix}/a", str(number).encode(), qos=1)
        finally:
            gateway.thaw()
        await eventually_async(lambda: len(reader.messages) == 9)
        assert [message.payload for message in reader.messages] == list(range(1, 10))
        assert reader.named("gap") == []


@pytest.mark.slow
async def test_a_token_that_ends_and_one_that_is_renewed(make_gateway: MakeGateway, mosquitto: Broker) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, access_secret=SECRET)
    fetched: list[str] = []

    async def fetch() -> str:
        fetched.append(token(ttl_seconds=6))  # a quarter of which is time enough to renew it
        return fetched[-1]

    async with (
        reading(connect(gateway.http, "a/#", token=token(ttl_seconds=2))) as ending,
        reading(connect(gateway.http, "a/#", token=fetch)) as renewed,
    ):
        await eventually_async(lambda: ending.error)
        assert isinstance(ending.error, RefusedError)
        assert ending.error.close_code == CloseCode.TOKEN_EXPIRED
        assert ending.states()[-1] == "closed"
        await eventually_async(lambda: len(fetched) >= 3)
        assert renewed.states() == ["connecting", "open"], "the connection stays"


@pytest.mark.slow
async def test_a_bad_token_and_a_filter_without_a_grant_end_it_with_the_gateways_words(
    make_gateway: MakeGateway, mosquitto: Broker
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, access_secret=SECRET)
    with pytest.raises(RefusedError, match="JSON Web Token") as bad:
        await anext(aiter(connect(gateway.http, "a/#", token="x")))
    assert bad.value.close_code == CloseCode.UNAUTHORIZED
    narrow = token(subscribe=["b/#"])
    with pytest.raises(RefusedError, match="not granted to 'me'") as forbidden:
        await anext(aiter(connect(gateway.http, "a/#", token=narrow)))
    assert forbidden.value.code == "forbidden"
    with pytest.raises(RefusedError, match="not granted to 'me'"):
        await last(gateway.http, "a/#", token=narrow)


@pytest.mark.slow
async def test_limits_are_told_and_a_full_gateway_is_come_back_to(
    make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, limit_connections_per_address=1)
    with pytest.raises(RefusedError, match="at most 100"):
        await anext(aiter(connect(gateway.ws, [f"a/{number}" for number in range(101)])))
    async with reading(connect(gateway.ws, f"{prefix}/#")) as first:
        await eventually_async(lambda: first.named("subscribed"))
        async with reading(connect(gateway.ws, f"{prefix}/#", max_delay=0.2)) as second:
            await eventually_async(lambda: "waiting" in second.states())
            publisher.publish(f"{prefix}/x", b"1")
            await eventually_async(lambda: first.messages)
            assert second.messages == []
        assert second.error is None


async def test_nobody_there_is_tried_again_unless_told_otherwise() -> None:
    nobody = f"ws://127.0.0.1:{free_port()}"
    for reconnect in ("never", "after_first"):
        with pytest.raises(LostError, match="Connection refused") as error:
            await anext(aiter(connect(nobody, "a", reconnect=reconnect)))
        assert error.value.code == "unreachable"
    async with reading(connect(nobody, "a", max_delay=0.01)) as reader:
        await eventually_async(lambda: reader.states().count("waiting") > 3)
    with pytest.raises(LostError, match="no answer from"):
        await last(nobody, "a")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"topics": "a/#/b"}, "'#' must be the last level"),
        ({"url": "ftp://x"}, "is not the address of a gateway"),
        ({"since": "yesterday"}, "since 'yesterday'"),
        ({"maxhz": 3}, "maxhz: not known; a shape has max_hz"),
    ],
)
def test_what_it_cannot_work_with_is_refused_at_once(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        connect(**{"url": "ws://127.0.0.1:1", "topics": "a", **arguments})  # type: ignore[arg-type]


async def test_questions(gateway: GatewayProcess, publisher: Publisher, prefix: str) -> None:
    for number in range(25):
        publisher.publish(f"{prefix}/{number % 2}", json.dumps({"t": number, "o": {"x": 1}}))
    publisher.publish(f"{prefix}/bytes", b"\xff\x00")
    publisher.publish(f"sensors/{prefix}/meta", json.dumps({"name": "Kitchen"}))
    answer = await publish(gateway.ws, f"{prefix}/ä b", "text", qos=1, confirm=True)
    newest = await last(gateway.http, f"{prefix}/#")
    assert [(message.topic, message.payload) for message in newest] == [
        (f"{prefix}/0", {"t": 24, "o": {"x": 1}}),
        (f"{prefix}/1", {"t": 23, "o": {"x": 1}}),
        (f"{prefix}/bytes", b"\xff\x00"),
        (f"{prefix}/ä b", "text"),
    ]
    found = await history(gateway.http, [f"{prefix}/0", f"{prefix}/1"], where="t >= 20")
    assert isinstance(found, History)
    assert [message.payload["t"] for message in found.messages] == [20, 21, 22, 23, 24]
    assert (found.recovered, found.gap, found.more, found.position) == (True, None, False, answer["position"])
    few = await history(gateway.http, f"{prefix}/#", order="desc", limit=2)
    assert isinstance(few, History)
    assert few.more
    assert len(few.messages) == 2
    chart = await history(gateway.http, f"{prefix}/0", since="1h", points=2, fields=["t"])
    assert isinstance(chart, Chart)
    assert [one["field"] for one in chart.series] == ["t"]
    # what other tests announce on the same broker is there as well
    own = [device for device in await devices(gateway.http) if device["id"] == f"sensors_{prefix}"]
    assert [device["name"] for device in own] == ["Kitchen"]
    assert await alerts(gateway.http) == []
    with pytest.raises(RefusedError, match="qos") as refused:
        await publish(gateway.http, f"{prefix}/a", b"", qos=3)
    assert refused.value.code == "limit"


async def test_pages_follow_each_other(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.client.questions.PAGE", 4)
    for number in range(11):
        publisher.publish(f"{prefix}/{number:02}", str(number).encode())
    eventually(lambda: len(gateway.json(f"/topics/{prefix}/%23")["messages"]) == 11)
    assert [message.payload for message in await last(gateway.http, f"{prefix}/#")] == list(range(11))
    for order, expected in (("asc", list(range(11))), ("desc", list(range(10, -1, -1)))):
        whole = await history(gateway.http, f"{prefix}/#", order=order, limit=100)
        assert isinstance(whole, History)
        assert [message.payload for message in whole.messages] == expected


async def test_frames_of_pandas(gateway: GatewayProcess, publisher: Publisher, prefix: str) -> None:
    pytest.importorskip("pandas")
    empty = await history(gateway.http, f"{prefix}/none")
    assert len(empty.frame()) == 0
    for number in range(4):
        publisher.publish(f"{prefix}/a", json.dumps({"t": number, "o": {"x": "on"}}))
    publisher.publish(f"{prefix}/b", b"7")
    eventually(lambda: len(gateway.json(f"/topics/{prefix}/%23")["messages"]) == 2)
    frame = (await history(gateway.http, f"{prefix}/#")).frame()
    assert list(frame.columns) == ["topic", "seq", "t", "o.x", "payload"]
    assert list(frame["t"].dropna()) == [0, 1, 2, 3]
    assert str(frame.index.tz) == "UTC"
    chart = (await history(gateway.http, f"{prefix}/#", since="1h", points=5)).frame()
    assert chart[chart["field"] == "t"]["count"].sum() == 4
    assert set(chart["topic"]) == {f"{prefix}/a", f"{prefix}/b"}


@pytest.mark.slow
def test_every_snippet_of_its_page_runs(gateway: GatewayProcess, publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish("sensors/kitchen/state", b'{"temperature":21.5}', retain=True)
    eventually(lambda: gateway.json("/topics/sensors/kitchen/state")["messages"])
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(snippets) == 3
    for snippet in snippets:
        text = snippet.replace("http://127.0.0.1:8000", gateway.http)
        run = subprocess.run(
            [sys.executable, "-c", text], cwd=PAGE.parents[1], capture_output=True, text=True, timeout=120, check=False
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout


async def test_a_question_and_its_connection_share_a_position(
    gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    publisher.publish(f"{prefix}/a", b"1")
    eventually(lambda: gateway.json(f"/topics/{prefix}/%23")["messages"])
    found = await history(gateway.http, f"{prefix}/#")
    async with reading(connect(gateway.http, f"{prefix}/#", since=found.position)) as reader:
        publisher.publish(f"{prefix}/a", b"2")
        await eventually_async(lambda: reader.messages)
        assert [message.payload for message in reader.messages] == [2]

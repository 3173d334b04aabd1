"""Nothing that a client, publisher or operator can ask holds the loop, however much there is to look through."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.shapes import Shape
from gateway.core.since import SINCE_LAST, Since, SinceKind
from gateway.runtime import Gateway
from tests.fakes import FakeSocket
from tests.support.stalls import turns_watched
from tests.support.yardsticks import YARDSTICK_SECONDS, yardstick_seconds
from tests.test_topics_api import ask, running

pytestmark = [pytest.mark.slow, pytest.mark.timing]

TOPICS = 100_000

STALL_SECONDS = 0.020
"""The most that a turn may take on a quiet machine."""


def fill(gateway: Gateway, rounds: int) -> None:
    """Publishes to all topics, of which each one keeps its last two messages."""
    for number in range(rounds):
        payload = json.dumps({"temperature": 20 + number, "unit": "°C"}).encode()
        for device in range(TOPICS // 10):
            for quantity in range(10):
                gateway.hub.publish(f"house/{device}/q{quantity}", payload)


ADDRESSES = [
    "/topics?limit=10000",
    "/topics?filter=house/%2B/q1&limit=100",
    "/topics?filter=house/%2B/q1&filter=%2B/77/%23&filter=house/5/%2B&prefix=house/7",
    "/topics/house/%2B/q2",
    "/topics/house/%2B/q3?since=1h&limit=100",
    "/topics/%2B/%2B/q4?since=1h&limit=100&order=desc",
    "/topics/house/%2B/q5?since=1h&format=csv",
    "/topics/house/%2B/%2B?since=1h&format=ndjson&limit=2000",
    "/topics/%23?since=1h&format=csv&limit=100",
    "/topics/%23?limit=100",
    "/explain?topic=house/7/q1",
    "/explain?topic=house/%2B/q1",
    "/explain?topic=" + "%2B/" * 126 + "x",
    "/badge/house/7/q1",
    "/metrics",
    "/health/ready",
    "/asyncapi.json",
]


@pytest.mark.anyio
async def test_no_question_holds_the_loop() -> None:
    async with running(history_messages=2, history_bytes="1GiB", limit_filters=200) as (app, gateway):
        fill(gateway, 3)
        assert gateway.history.evicted > 0
        assert gateway.history.topic_count == TOPICS

        async def over_http(address: str) -> None:
            answer = await ask(app, address)
            assert answer.status in (200, 404, 503), (address, answer.body)

        async def until_live(socket: FakeSocket) -> None:
            while gateway.hub.position_of(socket.subscriber) is None:  # noqa: ASYNC110 - it is no event
                await asyncio.sleep(0)

        async def subscribe(filters: list[str], since: Since, shape: Shape | None = None) -> None:
            socket = FakeSocket(gateway.hub, shape=shape)
            gateway.hub.subscribe(socket.subscriber, filters, since)
            await until_live(socket)
            gateway.hub.remove(socket.subscriber)

        async def cross() -> None:
            """Subscribes to one after the other of filters that cross those before."""
            socket = FakeSocket(gateway.hub)
            for level in range(8):
                gateway.hub.subscribe(socket.subscriber, [f"house/+/q{level}", f"+/{level}/#"], past)
                await asyncio.sleep(0)
            gateway.hub.subscribe(socket.subscriber, ["+/+/#"], past)
            await asyncio.sleep(0)
            gateway.hub.unsubscribe(socket.subscriber, ["+/+/#"])
            await until_live(socket)
            gateway.hub.remove(socket.subscriber)

        async def fall_behind() -> None:
            """Stops reading, and misses what is evicted meanwhile."""
            socket = FakeSocket(gateway.hub)
            gateway.hub.subscribe(socket.subscriber, ["house/+/+"], Since(SinceKind.NOW))
            await until_live(socket)
            gateway.hub.pause(socket.subscriber)
            for device in range(0, TOPICS // 10, 5):
                for _ in range(3):
                    gateway.hub.publish(f"house/{device}/q1", b'{"temperature":1}')
                if device % 100 == 0:
                    await asyncio.sleep(0)
            gateway.hub.resume(socket.subscriber)
            await until_live(socket)
            assert socket.events("gap")
            gateway.hub.remove(socket.subscriber)

        past = Since(SinceKind.POSITION, epoch=gateway.history.epoch, seq=1)
        questions: dict[str, Callable[[], Awaitable[None]]] = {
            address: lambda address=address: over_http(address)  # type: ignore[misc]
            for address in ADDRESSES
        }
        questions |= {
            "first match": lambda: subscribe(["house/+/q6"], Since(SinceKind.NOW)),
            "last values": lambda: subscribe(["house/+/q7"], SINCE_LAST),
            "resume": lambda: subscribe(["house/+/q8"], past),
            "resume everything": lambda: subscribe(["+/+/+"], past),
            "since": lambda: subscribe(["house/+/q9"], Since(SinceKind.TIME, time=gateway.wall_clock_ms() - 3_600_000)),
            "hundred": lambda: subscribe([f"house/+/q{n}" for n in range(10)] + [f"+/{n}/+" for n in range(90)], past),
            "cross": cross,
            "fall behind": fall_behind,
        }
        stalls: dict[str, float] = {}
        await asyncio.sleep(0.1)
        for name, question in questions.items():
            before = yardstick_seconds()
            with turns_watched() as turns:
                await question()
                await asyncio.sleep(0)
            slowness = max(1.0, (before + yardstick_seconds()) / 2 / YARDSTICK_SECONDS)
            stalls[name] = turns.longest / slowness
            print(f"{turns.longest * 1000:7.1f} ms of {turns.count:6} turns, {slowness:.1f}: {name}")
        assert {name: seconds for name, seconds in stalls.items() if seconds > STALL_SECONDS} == {}


def in_turns(stalls: dict[str, float], name: str, longest: float, slowness: float) -> None:
    stalls[name] = longest / slowness
    print(f"{longest * 1000:7.1f} ms, {slowness:.1f}: {name}")


LARGE = 1_000_000

PAYLOADS = {
    "text": b'it said "so", and\nso ' * (LARGE // 20),
    "binary": b"\xff\x00\x80" * (LARGE // 3),
    "numbers": b"[%b]" % b",".join(b"%d" % number for number in range(LARGE // 7)),
    "object": json.dumps({f"field{number}": number / 8 for number in range(LARGE // 20)}).encode(),
    "deep": b'{"a":' * 400 + json.dumps("x" * LARGE).encode() + b"}" * 400,
}


@pytest.mark.anyio
async def test_no_large_payload_holds_the_loop() -> None:
    async with running(history_bytes="1GiB") as (app, gateway):
        for name, payload in PAYLOADS.items():
            for _ in range(5):
                gateway.hub.publish(f"large/{name}", payload)
        await asyncio.sleep(0.1)
        stalls: dict[str, float] = {}
        for name in PAYLOADS:
            for question in (
                f"/topics/large/{name}",
                f"/topics/large/{name}?since=1h&format=csv",
                f"/topics/large/{name}?since=1h&format=csv&fields=field7,a.a.a",
                f"/topics/large/{name}?since=1h&format=ndjson",
                f"/topics/large/{name}?since=1h&format=ndjson&fields=field7",
                f"/topics/large/{name}?since=1h&limit=5&fields=field7",
                f"/badge/large/{name}",
                f"/explain?topic=large/{name}",
            ):
                before = yardstick_seconds()
                with turns_watched() as turns:
                    answer = await ask(app, question)
                    assert answer.status in (200, 404), (question, answer.body[:200])
                    await asyncio.sleep(0)
                slowness = max(1.0, (before + yardstick_seconds()) / 2 / YARDSTICK_SECONDS)
                in_turns(stalls, question, turns.longest, slowness)
        assert {name: seconds for name, seconds in stalls.items() if seconds > STALL_SECONDS} == {}


def test_nothing_that_a_message_brings_about_in_the_log_holds_the_loop() -> None:
    """A log of a million entries is full, is asked for times, loses messages by age and expiry and its clock is set."""
    now = 1_700_000_000_000
    names = [f"sensors/{number}/state" for number in range(1_000)]
    history = History(max_messages=10_000, max_bytes=330_000_000)
    stalls: dict[str, float] = {}

    def step(name: str, work: Callable[[], object]) -> None:
        began = time.thread_time()
        work()
        taken = time.thread_time() - began
        stalls[name] = max(stalls.get(name, 0.0), taken)

    before = yardstick_seconds()
    # the clock of this thread alone: what others take of the processor is no stall
    for number in range(2_000_000):
        topic = names[number * 7 % 1_000]
        step("append", lambda topic=topic, at=now + number // 10: history.append(topic, b"21.5", at))  # type: ignore[misc]
    assert history.message_count > 800_000
    assert history.evicted > 800_000
    for part in range(0, 200_000, 10_000):
        step("before_time", lambda at=now + part: history.before_time(at))  # type: ignore[misc]
        step("newest", lambda count=part * 10: history.newest(count))  # type: ignore[misc]
    everything = FilterSet(["#"])
    step("count", lambda: history.count_at_once(everything, history.evicted_seq, history.seq))
    step("read", lambda: history.read(FilterSet(["+/+/state"]), history.evicted_seq, history.seq))
    step("set back", lambda: history.append("a", b"1", now))
    history.max_age_ms = 10_000
    while history.message_count > 1_001:
        step("expire", lambda: history.expire(now + 10_000_000))
    assert history.message_count <= 1_001
    slowness = max(1.0, (before + yardstick_seconds()) / 2 / YARDSTICK_SECONDS)
    print({name: f"{seconds * 1000 / slowness:.1f} ms" for name, seconds in stalls.items()}, slowness)
    assert {name: seconds for name, seconds in stalls.items() if seconds > STALL_SECONDS * slowness} == {}

"""The same `since` means the same on every way in: WebSocket, server-sent events, pages and downloads."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.event_streams import EventStream
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

WAYS = ("websocket", "events", "page", "download")
REACH = 6
"""How far back a subscription may reach, in messages."""

Answer = tuple[list[int], dict[str, Any] | None]
"""The numbers of the messages that came, and the reason and number of those that did not."""


def gap_of(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The gap that is told, once at most, less what only some ways in say of it."""
    assert len(found) <= 1
    return {name: found[0][name] for name in ("reason", "lost")} if found else None


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [message["seq"] for message in messages]


async def asked(gateway: GatewayProcess, publisher: Publisher, prefix: str, since: str) -> dict[str, Answer]:
    """What each way in answers; a further message is published after that."""
    query = f"/topics/{prefix}/%23?since={quote(since, safe='')}"
    page = await asyncio.to_thread(gateway.json, query)
    head = int(page["position"].partition(":")[2])
    body = (await asyncio.to_thread(gateway.get, query, {"Accept": "application/x-ndjson"}))[1]
    lines = [json.loads(line) for line in body.splitlines()]
    assert page["recovered"] == ("gap" not in page)
    found: dict[str, Answer] = {
        "page": (numbers(page["messages"]), page.get("gap")),
        "download": (
            numbers([line for line in lines if "event" not in line]),
            gap_of([line for line in lines if "event" in line]),
        ),
    }
    stream = await asyncio.to_thread(EventStream, gateway, query)
    async with Subscriber(gateway, f"{prefix}/#", since=since) as client:
        await client.wait_event("subscribed")
        await eventually_async(lambda: stream.events)
        # what is live follows the replay
        await asyncio.to_thread(publisher.publish, f"{prefix}/end", b"1")
        await client.wait(lambda: client.messages and client.messages[-1]["seq"] > head)
        await eventually_async(lambda: stream.messages and stream.messages[-1]["data"]["seq"] > head)
    stream.cut()
    told = [event["data"] | {"event": event["event"]} for event in stream.events if "event" in event]
    seen = [message["data"] for message in stream.messages]
    for way, messages, events in (("websocket", client.messages, client.events), ("events", seen, told)):
        gap = gap_of([event for event in events if event["event"] == "gap"])
        [begun] = [event for event in events if event["event"] == "subscribed"]
        assert begun["recovered"] == (gap is None)
        found[way] = [number for number in numbers(messages) if number <= head], gap
    return found


async def filled(gateway: GatewayProcess, publisher: Publisher, prefix: str) -> list[dict[str, Any]]:
    """Ten messages of two topics, which are all that the log has; the first four came before the others."""
    address = f"/topics/{prefix}/%23?since=1h"
    found: list[dict[str, Any]] = []
    for numbers in (range(4), range(4, 10)):
        messages = [(f"{prefix}/{number % 2}", b"%d" % number) for number in numbers]
        await asyncio.to_thread(publisher.publish_all, messages, qos=1)
        await eventually_async(lambda end=numbers.stop: len(gateway.json(address)["messages"]) == end)  # type: ignore[misc]
        found = gateway.json(address)["messages"]
        last = found[-1]["time"]
        await eventually_async(lambda last=last: time.time() * 1000 > last + 2)  # type: ignore[misc]
    return found


async def test_every_way_in_gives_the_same_for_a_since(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"])
    began = (await filled(gateway, publisher, prefix))[4]["time"]
    for form in ("last", "now", "back", "iso", "milliseconds", "position", "newest", "other epoch"):
        page = gateway.json(f"/topics/{prefix}/%23?since=1h")
        epoch, _, head = page["position"].partition(":")
        newest = {message["topic"]: message["seq"] for message in page["messages"]}
        everything = numbers(page["messages"])
        later = [message["seq"] for message in page["messages"] if message["time"] >= began]
        assert len(later) == len(everything) - 4
        expected: dict[str, tuple[str, list[int]]] = {
            "last": ("last", sorted(newest.values())),
            "now": ("now", []),
            "back": ("1h30m", everything),
            "iso": (datetime.fromtimestamp(began / 1000, UTC).isoformat(), later),
            "milliseconds": (str(began), later),
            "position": (f"{epoch}:{everything[2]}", everything[3:]),
            "newest": (f"{epoch}:{head}", []),
            "other epoch": ("zzz:3", everything),
        }
        since, wanted = expected[form]
        gap = {"reason": "epoch", "lost": None} if form == "other epoch" else None
        found = await asked(gateway, publisher, prefix, since)
        if form == "last":  # a page has them by topic
            found = {way: (sorted(came), missing) for way, (came, missing) in found.items()}
        assert found == dict.fromkeys(WAYS, (wanted, gap)), form


async def test_beyond_what_a_subscription_may_reach_it_is_told_and_pages_bound_each_answer(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], limit_replay_messages=REACH)
    everything = numbers(await filled(gateway, publisher, prefix))
    part = gateway.json(f"/topics/{prefix}/%23?since=1h30m&limit={REACH}")
    assert (numbers(part["messages"]), part["recovered"], part["more"]) == (everything[:REACH], True, True)
    found = await asked(gateway, publisher, prefix, "1h30m")
    gap = {"reason": "limit", "lost": len(everything) - REACH}
    assert found["websocket"] == found["events"] == (everything[-REACH:], gap)
    assert found["page"] == found["download"] == (everything, None)


async def test_every_way_in_refuses_the_same_since_with_the_same_words(
    gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    await asyncio.to_thread(publisher.publish, f"{prefix}/a", b"1")
    await eventually_async(lambda: gateway.json(f"/topics/{prefix}/%23")["messages"])
    epoch, _, seq = gateway.json(f"/topics/{prefix}/%23")["position"].partition(":")
    for since in ("soon", f"{epoch}:{int(seq) + 1_000_000}"):
        said = set()
        async with Subscriber(gateway) as client:
            await client.send("subscribe", id=1, topics=[f"{prefix}/#"], since=since)
            error = await client.wait_event("error", id=1)
            said.add((error["code"], error["message"].partition(", which is at")[0]))
        path = f"/topics/{prefix}/%23?since={quote(since, safe='')}"
        for accept in ("application/json", "application/x-ndjson", "text/event-stream"):
            status, body = await asyncio.to_thread(gateway.get, path, {"Accept": accept})
            assert status == 400
            refused = json.loads(body)
            said.add((refused["code"], refused["detail"].partition(", which is at")[0]))
        assert len(said) == 1, said
        assert said.pop()[0] == "bad_since"

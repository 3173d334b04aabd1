"""The AsyncAPI description is valid, and real traffic is as it says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from gateway.core.parameters import parameters_of
from gateway.core.protocol import CLOSE_CODES, ERROR_CODES, EVENTS
from gateway.ops.asyncapi import describe
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.event_streams import EventStream
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio


def validator(document: dict[str, Any], name: str) -> jsonschema.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(document["components"]["schemas"][name])
    return jsonschema.Draft202012Validator(schema)


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        return [v for k, v in part.items() if k == "$ref"] + [r for v in part.values() for r in references(v)]
    return [r for v in part for r in references(v)] if isinstance(part, list) else []


def test_every_reference_leads_somewhere_and_every_table_is_there() -> None:
    document = describe("1.2.3")
    for reference in references(document):
        part: Any = document
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]
    assert set(EVENTS) <= set(document["channels"]["ws"]["messages"])
    assert document["x-error-codes"] == ERROR_CODES
    assert {int(code) for code in document["x-close-codes"]} == set(CLOSE_CODES)
    parameters = {
        name: set(channel["bindings"]["ws"]["query"]["properties"])
        for name, channel in document["channels"].items()
        if "bindings" in channel
    }
    assert parameters == {"ws": set(parameters_of("ws")), "stream": set(parameters_of("stream"))}
    watched = document["operations"]["watch"]["bindings"]["http"]["query"]["properties"]
    assert set(watched) == set(parameters_of("sse"))


async def test_real_traffic_is_as_described(gateway: GatewayProcess, publisher: Publisher, prefix: str) -> None:
    document = gateway.json("/asyncapi.json")
    assert document["asyncapi"] == "3.0.0"
    publisher.publish(f"{prefix}/a", b"\xff\xfe", retain=True)
    commands: list[dict[str, Any]] = [
        {"command": "subscribe", "id": 1, "topics": [f"{prefix}/#"], "since": "old:5", "properties": True},
        {
            "command": "publish", "id": "two", "topic": f"{prefix}/b", "payload": {"n": 1}, "qos": 1, "retain": False,
            "properties": {"content_type": "application/json", "user_properties": [["a", "b"]]},
        },
        {"command": "subscribe", "topics": [], "max_hz": 20, "mode": "mean"},
        {"command": "publish", "id": 3, "topic": f"{prefix}/b", "payload": {"n": 2}},
        {"command": "ping", "id": 4},
        {"command": "authenticate", "id": 5, "token": "x"},
        {"command": "unsubscribe", "id": 6, "topics": [f"{prefix}/none"]},
    ]  # fmt: skip
    async with Subscriber(gateway) as client:
        for command in commands:
            validator(document, command["command"].title()).validate(command)
            name = command.pop("command")
            before = len(client.events)
            await client.send(name, **command)
            await client.wait(lambda before=before: len(client.events) > before)  # type: ignore[misc]
        await client.send_raw("{")
        await client.wait(lambda: [event for event in client.events if event["event"] == "error"])
        await client.wait(lambda: any("mode" in message for message in client.messages))
        assert any("properties" in message for message in client.messages)
        assert any("encoding" in message for message in client.messages)
        seen = {event["event"] for event in client.events}
        assert {"subscribed", "gap", "published", "pong", "authenticated", "unsubscribed", "error"} <= seen
        for message in client.messages:
            validator(document, "Message").validate(message)
        for event in client.events:
            validator(document, f"{event['event'].title()}Event").validate(event)
    for wrong in ({"topic": "a"}, {"topic": "a", "payload": 1, "time": 1, "seq": 1, "surprise": 1}):
        with pytest.raises(jsonschema.ValidationError):
            validator(document, "Message").validate(wrong)


SECRET = "more than thirty-two bytes of a secret"


@pytest.mark.slow
async def test_streams_and_event_streams_are_as_described(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway
) -> None:
    """With what seldom happens: a broker that goes, a token that ends, messages that are left out."""
    broker = await asyncio.to_thread(make_mosquitto)
    roles = {"guest": {"subscribe": ["#"]}}
    gateway = await asyncio.to_thread(
        make_gateway, broker, access_secret=SECRET, access_anonymous_role="guest", roles=roles
    )
    document = gateway.json("/asyncapi.json")
    short = mint(secret_key(SECRET), ttl_seconds=3, subject="alice", subscribe=["#"])
    address = "/topics/sensors/%2B/state?deadband=1"
    ending = await asyncio.to_thread(EventStream, gateway, address, Authorization=f"Bearer {short}")
    events = await asyncio.to_thread(EventStream, gateway, f"{address}&since=old:5")
    async with (
        Subscriber(gateway, "#", token=short) as ending_socket,
        Subscriber(gateway, "sensors/#", deadband=1) as client,
        Subscriber(gateway, path="/ws/temperature/") as stream,
    ):
        with Publisher(broker.url) as publisher:
            for temperature in (20, 20.1, "warm", 25):
                publisher.publish("sensors/a/state", json.dumps({"temperature": temperature, "ts": 1}))
        await stream.wait_messages(4)
        await client.wait(lambda: any("skipped" in message for message in client.messages))
        await eventually_async(lambda: any("skipped" in message["data"] for message in events.messages))
        await ending_socket.wait_event("expiring")
        await eventually_async(lambda: any(event.get("event") == "expiring" for event in ending.events))
        await asyncio.to_thread(broker.stop)
        await client.wait_event("upstream")
        await eventually_async(lambda: any(event.get("event") == "upstream" for event in events.events))
        assert stream.events == []
        for reading in stream.messages:
            validator(document, "Reading").validate(reading)
        for message in [*client.messages, *(event["data"] for event in events.messages)]:
            validator(document, "Message").validate(message)
        told = [event["data"] for event in [*events.events, *ending.events] if "event" in event]
        assert {event["event"] for event in told} <= set(document["channels"]["events"]["messages"])
        assert {"subscribed", "gap", "expiring", "upstream"} <= {event["event"] for event in told}
        for event in [*client.events, *ending_socket.events, *told]:
            validator(document, f"{event['event'].title()}Event").validate(event)
    events.cut()

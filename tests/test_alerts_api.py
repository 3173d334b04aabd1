"""`/alerts`, and what else is told of alerts to whoever asks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema

from gateway.ops.asyncapi import event_schema
from gateway.ops.samples import samples
from tests.support.waiting import PATIENCE_SECONDS
from tests.test_topics_api import Answer, ask, running
from tests.test_webhooks import receiving

HOT = {"name": "hot", "topics": ["s/+"], "where": "t > 30", "summary": "{topic[1]}: {payload.t}"}
QUIET = {"name": "quiet", "topics": ["q"], "silent": 60}
ROLES = {"viewer": {"subscribe": ["s/b", "s/c"]}}


def events_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]


async def test_alerts_are_told_with_a_tag() -> None:
    async with running(alerts=[HOT, QUIET]) as (app, gateway):
        gateway.hub.publish("s/a", b'{"t":31}')
        first = await ask(app, "/alerts")
        hot, quiet = first.json()["alerts"]
        assert (hot["state"], hot["summary"], quiet["state"]) == ("firing", "a: 31", "ok")
        assert hot["topics"] == [{"topic": "s/a", "state": "firing", "since": hot["since"], "value": 31}]
        for report in (hot, quiet):
            jsonschema.validate({"event": "alert", **report}, event_schema("alert"))
        again = await ask(app, "/alerts", if_none_match=first.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        gateway.hub.publish("s/a", b'{"t":20}')
        assert (await ask(app, "/alerts", if_none_match=first.headers["etag"])).json()["alerts"][0]["state"] == "ok"


async def test_without_alerts_there_are_none() -> None:
    async with running() as (app, gateway):
        assert gateway.alerts is None
        assert (await ask(app, "/alerts")).json() == {"alerts": []}
        assert (await ask(app, "/alerts?where=1")).status == 400
        assert not any(name.startswith("gateway_alert") for name in samples(gateway))


async def test_a_grant_covers_what_is_told() -> None:
    async with running(alerts=[HOT, QUIET], roles=ROLES, access_anonymous_role="viewer") as (app, gateway):
        for name, value in (("a", 40), ("b", 20), ("c", 31)):
            gateway.hub.publish(f"s/{name}", b'{"t":%d}' % value)
        answer = await ask(app, "/alerts")
        [hot] = answer.json()["alerts"]
        assert (hot["name"], hot["firing"], [item["topic"] for item in hot["topics"]]) == ("hot", 1, ["s/c"])
        assert b"s/a" not in answer.body
        assert hot["value"] == 31


async def test_changes_are_told_as_events() -> None:
    async with running(alerts=[HOT, QUIET]) as (app, gateway):
        seen: list[tuple[str, str]] = []

        def on_part(answer: Answer) -> str | None:
            seen[:] = [(event["name"], event["state"]) for event in events_of(b"".join(answer.parts))]
            if len(seen) == 2:
                gateway.hub.publish("s/a", b'{"t":31}')
                gateway.hub.publish("s/b", b'{"t":31}')
            return "go" if len(seen) == 3 else None

        await ask(app, "/alerts", on_part=on_part, accept="text/event-stream")
        assert seen == [("hot", "ok"), ("quiet", "ok"), ("hot", "firing")]
        assert not gateway.event_streams
        assert gateway.alerts is not None
        assert len(gateway.alerts.alerts.listeners) == 1  # the runner's own
        assert gateway.connections.total == 0


async def test_a_stream_ends_with_the_gateway() -> None:
    async with running(alerts=[HOT]) as (app, gateway):
        stops: list[asyncio.Task[None]] = []
        stop = lambda _: stops.append(asyncio.create_task(gateway.stop()))  # noqa: E731
        answer = await ask(app, "/alerts?format=sse", on_part=stop)
        assert answer.is_complete
        await asyncio.gather(*stops)


async def test_explain_names_the_alerts_of_a_topic() -> None:
    async with running(alerts=[HOT, QUIET]) as (app, gateway):
        gateway.hub.publish("s/a", b'{"t":31}')
        steps = {step["step"]: step for step in (await ask(app, "/explain?topic=s/a")).json()["steps"]}
        assert steps["alerts"]["text"] == "watched by 'hot' (t > 30): it is firing"
        assert steps["alerts"]["ok"] is True
        steps = {step["step"]: step for step in (await ask(app, "/explain?topic=s/%2B")).json()["steps"]}
        assert steps["alerts"]["text"] == "watched by 'hot' (t > 30): 1 of these topics fire"
        assert "alerts" not in {step["step"] for step in (await ask(app, "/explain?topic=x")).json()["steps"]}


async def test_metrics_tell_of_states_and_changes() -> None:
    async with running(alerts=[HOT, QUIET]) as (_, gateway):
        gateway.hub.publish("s/a", b'{"t":31}')
        found: Any = samples(gateway)
        assert found["gateway_alert_topics"]["hot", "firing"] == 1
        assert found["gateway_alert_changes_total"]["hot", "firing"] == 1
        assert found["gateway_alert_left_out_total"] == {"hot": 0, "quiet": 0}


async def test_a_webhook_is_told_what_began_and_what_ended() -> None:
    async with receiving() as receiver:
        hook = {"url": f"http://localhost:{receiver.port}/hook", "allow_private": True}
        async with running(alerts=[HOT | {"webhook": "w"}], webhooks={"w": hook}) as (_, gateway):
            assert gateway.alerts is not None
            assert gateway.alerts.webhooks is not None
            gateway.alerts.alerts.settle()
            for value in (31, 20):
                gateway.hub.publish("s/a", b'{"t":%d}' % value)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(receiver.requests) < 2:
                    receiver.news.clear()
                    await receiver.news.wait()
            bodies = [json.loads(body) for _, _, body in receiver.requests]
            assert [(body["state"], body["summary"]) for body in bodies] == [("firing", "a: 31"), ("ok", "a: 20")]
            found: Any = samples(gateway)
            assert found["gateway_webhook_waiting"] == {"w": 0}

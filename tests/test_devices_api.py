"""`/devices` in one loop with its reader: the list, one device, the stream of changes, what grants leave of them."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.access.budget import Budget, Memory
from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from gateway.ops.asyncapi import device_schema
from gateway.routes import devices as devices_module
from gateway.runtime import Gateway
from tests.support.stalls import turns_watched
from tests.support.yardsticks import YARDSTICK_SECONDS, yardstick_seconds
from tests.test_devices import LAMP, SINGLE
from tests.test_topics_api import Answer, ask, running

pytestmark = pytest.mark.anyio

STALL_SECONDS = 0.020
"""The most that a turn may take on a quiet machine."""

SECRET = "a-secret-of-tests-0123456789abcdef"


def say(gateway: Gateway, topic: str, payload: Any) -> None:
    data = payload if isinstance(payload, bytes) else payload.encode() if isinstance(payload, str) else None
    gateway.hub.publish(topic, json.dumps(payload).encode() if data is None else data, 0, True)


async def settled(gateway: Gateway) -> None:
    """Waits until all that was announced has been read."""
    async with asyncio.timeout(20):
        while gateway.devices.has_work:  # noqa: ASYNC110 - it is no event
            await asyncio.sleep(0.001)


def token(*subscribe: str, publish: tuple[str, ...] = ()) -> str:
    return mint(secret_key(SECRET), subject="somebody", subscribe=subscribe, publish=publish, ttl_seconds=600)


async def test_the_list_of_devices_has_pages_and_a_tag() -> None:
    async with running() as (app, gateway):
        for number in range(5):
            say(gateway, f"garden/{number}/temperature", str(number))
        say(gateway, "homeassistant/sensor/attic/temp/config", SINGLE)
        await settled(gateway)
        answer = await ask(app, "/devices?limit=4")
        page = answer.json()
        assert [device["id"] for device in page["devices"]] == ["attic", *(f"topic_garden/{n}" for n in range(3))]
        assert (page["total"], page["next"]) == (6, "topic_garden/2")
        for device in page["devices"]:
            jsonschema.validate(device, device_schema)
        rest = (await ask(app, "/devices?limit=4&after=topic_garden/2")).json()
        assert [device["id"] for device in rest["devices"]] == ["topic_garden/3", "topic_garden/4"]
        assert "next" not in rest
        tag = answer.headers["etag"]
        assert (await ask(app, "/devices?limit=4", if_none_match=tag)).status == 304
        say(gateway, "garden/0/temperature", "7")  # a value is no change
        assert (await ask(app, "/devices?limit=4", if_none_match=tag)).status == 304
        say(gateway, "home/attic/lwt", "down")
        await settled(gateway)
        assert (await ask(app, "/devices?limit=4", if_none_match=tag)).status == 200


async def test_one_device_has_the_values_of_its_fields() -> None:
    async with running() as (app, gateway):
        say(gateway, "zigbee2mqtt/bridge/devices", [LAMP])
        say(gateway, "zigbee2mqtt/living/lamp", {"state": "ON", "brightness": 7, "color": {"x": 0.5}})
        await settled(gateway)
        device = (await ask(app, "/devices/zigbee2mqtt_0x00158d0001a2b3c4")).json()
        values = {value["id"]: value["value"] for value in device.pop("values")}
        assert values == {"state": "ON", "brightness": 7, "color.x": 0.5, "linkquality": None}
        jsonschema.validate(device, device_schema)
        answer = await ask(app, "/devices/nobody")
        assert (answer.status, json.loads(answer.body)["code"]) == (404, "bad_request")


async def test_a_device_says_what_announces_it_and_nothing_else() -> None:
    async with running() as (app, gateway):
        say(gateway, "zigbee2mqtt/bridge/devices", [LAMP])
        say(gateway, "homeassistant/sensor/attic/temp/config", SINGLE)
        await settled(gateway)
        told = {device["id"]: device["announcements"] for device in (await ask(app, "/devices")).json()["devices"]}
        assert told == {"attic": ["homeassistant/sensor/attic/temp/config"], "zigbee2mqtt_0x00158d0001a2b3c4": []}


async def test_a_badge_has_the_name_and_the_unit_that_its_device_announces() -> None:
    async with running() as (app, gateway):
        say(gateway, "homeassistant/sensor/attic/temp/config", SINGLE)
        say(gateway, "home/attic/state", {"temp": 19.25})
        scaled = {
            **SINGLE,
            "uniq_id": "v",
            "name": "Volt",
            "val_tpl": "{{ value_json.mv / 1000 }}",
            "unit_of_meas": "V",
        }
        say(gateway, "homeassistant/sensor/attic/volt/config", scaled)
        await settled(gateway)

        async def shown(query: str = "") -> str:
            body = (await ask(app, f"/topics/home/attic/state?format=svg{query}")).body.decode()
            return body.partition("<title>")[2].partition("</title>")[0]

        assert await shown() == "Attic Temperature: 19.25 °C"
        assert await shown("&title=Here&unit=K") == "Here: 19.25 K"
        assert await shown("&unit=") == "Attic Temperature: 19.25"
        say(gateway, "home/attic/state", {"mv": 3300})
        # what stands there is not in the unit of what is made of it
        assert await shown("&field=mv") == "Attic Volt: 3300"


async def test_what_has_no_effect_is_refused() -> None:
    async with running() as (app, _):
        for address, status in (
            ("/devices?since=1h", 400),
            ("/devices?format=csv", 400),
            ("/devices?format=sse&limit=1", 400),
            ("/devices/x?after=1", 400),
            ("/devices?limit=0", 400),
            ("/devices", 200),
        ):
            assert (await ask(app, address)).status == status, address
        assert (await ask(app, "/devices", "POST")).status == 405


async def test_grants_apply_to_what_a_device_is_made_of() -> None:
    async with running(access_secret=SECRET) as (app, gateway):
        say(gateway, "zigbee2mqtt/bridge/devices", [LAMP])
        say(gateway, "zigbee2mqtt/bridge/state", "online")
        say(gateway, "homeassistant/sensor/attic/temp/config", SINGLE)
        await settled(gateway)

        async def ids(*subscribe: str, publish: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
            answer = await ask(app, "/devices", authorization=f"Bearer {token(*subscribe, publish=publish)}")
            page = answer.json()
            assert page["total"] == len(page["devices"])
            return {device["id"]: device for device in page["devices"]}

        assert set(await ids("#")) == {"attic", "zigbee2mqtt_0x00158d0001a2b3c4"}
        assert set(await ids("zigbee2mqtt/#")) == {"zigbee2mqtt_0x00158d0001a2b3c4"}
        assert await ids("home/attic/#") == {}
        assert await ids("homeassistant/#") == {}
        assert set(await ids("homeassistant/#", "home/+/state")) == {"attic"}
        lamp = (await ids("zigbee2mqtt/#"))["zigbee2mqtt_0x00158d0001a2b3c4"]
        assert lamp["commands"] == []
        lamp = (await ids("zigbee2mqtt/#", publish=("zigbee2mqtt/+/+/set",)))["zigbee2mqtt_0x00158d0001a2b3c4"]
        assert {command["topic"] for command in lamp["commands"]} == {"zigbee2mqtt/living/lamp/set"}
        bearer = f"Bearer {token('zigbee2mqtt/#')}"
        assert (await ask(app, "/devices/attic", authorization=bearer)).status == 404
        assert (await ask(app, "/devices/zigbee2mqtt_0x00158d0001a2b3c4", authorization=bearer)).status == 200


def events(answer: Answer) -> list[tuple[str, Any]]:
    found = []
    for block in answer.body.decode().split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in block.splitlines() if line and not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def test_a_stream_tells_all_devices_and_then_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "CHANGE_SECONDS", 0.001)
    async with running() as (app, gateway):
        say(gateway, "homeassistant/sensor/attic/temp/config", SINGLE)
        await settled(gateway)
        steps = iter(
            [
                ("home/attic/lwt", "up"),
                ("garden/temperature", "1"),
                ("homeassistant/sensor/attic/temp/config", b""),
                None,
            ]
        )
        seen = 0

        def on_part(answer: Answer) -> object:
            nonlocal seen
            told = events(answer)
            if len(told) > seen and told[-1][0] != "devices":
                seen = len(told)
                step = next(steps)
                if step is None:
                    return "go"
                say(gateway, *step)
            return None

        answer = await ask(app, "/devices?format=sse", on_part=on_part)
        told = [
            (event, data.get("availability") or data.get("count") or data.get("id")) for event, data in events(answer)
        ]
        assert told == [
            ("devices", None),
            ("device", "unknown"),
            ("known", 1),
            ("device", "online"),
            ("device", "unknown"),
            ("gone", "attic"),
        ]
        assert not gateway.devices.listeners
        assert not gateway.event_streams
        assert gateway.connections.total == 0


async def test_what_streams_of_devices_remember_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "CHANGE_SECONDS", 0.001)

    def announce(numbers: range) -> None:
        for number in numbers:
            config = {**SINGLE, "uniq_id": f"u{number}", "dev": {"ids": f"d{number}", "name": "D"}}
            say(gateway, f"homeassistant/sensor/d{number}/temp/config", config)

    async with running() as (app, gateway):
        announce(range(150))
        await settled(gateway)
        assert gateway.devices.count == 150
        size = 150 * devices_module.DEVICE_BYTES - Budget.FREE_BYTES
        memory = gateway.guard.accounts.streams = Memory(size, size)
        held: list[int] = []

        def on_part(answer: Answer) -> object:
            if b"event: known" in answer.body:
                held.append(memory.total)
                announce(range(150, 300))
            return None

        # with more devices there is no room: it ends, and its client is told so when it comes back
        answer = await ask(app, "/devices?format=sse", on_part=on_part)
        assert held[0] == size
        assert answer.is_complete
        assert memory.total == 0
        await settled(gateway)
        answer = await ask(app, "/devices?format=sse")
        assert (answer.status, json.loads(answer.body)["reason"]) == (503, "stream_bytes")
        assert answer.headers["retry-after"] == "10"
        assert not gateway.devices.listeners
        assert gateway.connections.total == 0


async def test_explain_says_to_which_device_a_topic_belongs() -> None:
    async with running() as (app, gateway):
        say(gateway, "homeassistant/sensor/attic/temp/config", SINGLE)
        say(gateway, "homeassistant/sensor/broken/config", "[]")
        say(gateway, "home/attic/state", {"temp": 1})
        await settled(gateway)

        async def steps(topic: str) -> list[tuple[bool | None, str]]:
            answer = (await ask(app, f"/explain?topic={topic}")).json()
            return [(step["ok"], step["text"]) for step in answer["steps"] if step["step"] == "device"]

        assert await steps("home/attic/state") == [(True, "device 'Attic' (attic): this topic has its Temperature")]
        [(is_well, text)] = await steps("homeassistant/sensor/broken/config")
        assert (is_well, text) == (
            False,
            "not all that it announces can be read: expected an object, got list",
        )
        assert await steps("home/attic/other") == []


async def test_devices_are_there_again_after_a_restart_with_an_archive(tmp_path: Path) -> None:
    settings = {"archive_file": str(tmp_path / "archive.db")}
    async with running(**settings) as (app, gateway):
        say(gateway, "homeassistant/sensor/attic/temp/config", SINGLE)
        say(gateway, "home/attic/state", {"temp": 1})
        say(gateway, "home/attic/lwt", "up")
        await settled(gateway)
        [before] = (await ask(app, "/devices")).json()["devices"]
    async with running(**settings) as (app, gateway):
        await settled(gateway)
        [after] = (await ask(app, "/devices")).json()["devices"]
        assert after == before
        assert after["availability"] == "online"


@pytest.fixture
def frozen() -> Iterator[None]:
    """The collector looks at nothing that was here before, as in a gateway that serves."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.timing
async def test_five_thousand_devices_over_a_hundred_thousand_topics_hold_nobody_up(frozen: None) -> None:
    most = STALL_SECONDS * max(1.0, yardstick_seconds() / YARDSTICK_SECONDS)
    async with running(history_messages=2, history_topics=250_000, history_bytes="2GiB") as (app, gateway):
        network = [
            {**LAMP, "ieee_address": f"0x{number:016x}", "friendly_name": f"room/{number}"} for number in range(200)
        ]
        say(gateway, "zigbee2mqtt/bridge/devices", network)
        for number in range(4_800):
            for entity in range(20):
                config = {
                    "name": f"E{entity}",
                    "stat_t": f"x/{number}/{entity}",
                    "uniq_id": f"{number}-{entity}",
                    "unit_of_meas": "W",
                    "dev": {"ids": [f"d{number}"], "name": f"D{number}"},
                }
                say(gateway, f"homeassistant/sensor/{number}/{entity}/config", config)
                say(gateway, f"x/{number}/{entity}", "1")
        with turns_watched() as turns:
            async with asyncio.timeout(200):
                while gateway.devices.has_work:  # noqa: ASYNC110 - it is no event
                    await asyncio.sleep(0.01)
        assert gateway.devices.count == 5_000
        assert turns.longest < most
        after: str | None = ""
        found = 0
        while after is not None:
            with turns_watched() as turns:
                answer = await ask(app, f"/devices?after={after}&limit=250")
            assert turns.longest < most
            page = answer.json()
            found += len(page["devices"])
            assert page["total"] == 5_000
            after = page.get("next")
        assert found == 5_000

"""The list of devices with fleets that are not ours: by name, with units, in groups, each by its own rule."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from sensors_sim.dialects.all import DIALECTS
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Fleet, FleetSpec
from sensors_sim.messages import Message
from sensors_sim.payloads import discovery_parts
from tests.browser.test_dashboard_views import AXE, axe
from tests.browser.watched import NARROW, Watched, meta, rows
from tests.conftest import MakeGateway, MakeMosquitto
from tests.firmware.observers import listening
from tests.support.gateways import GatewayProcess
from tests.support.peers import edge_node, metric
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

KINDS = ("climate", "outdoor", "plug", "soil")


def fleet_of(dialect: str) -> list[Message]:
    specs = tuple(DeviceSpec(f"{dialect[:3]}-{kind}", kind, f"{dialect} {kind}", place="hall") for kind in KINDS)
    fleet = Fleet(FleetSpec(specs), 7, SEEDED_START, dialect=dialect)
    said = [*DIALECTS[dialect].fleet_birth(fleet.devices.values())]
    said += [message for device in fleet.devices.values() for message in device.dialect.birth(device)]
    return said + [event.what for event in fleet.take(SEEDED_START + 400) if isinstance(event.what, Message)]


@pytest.mark.slow
def test_foreign_fleets_are_listed_with_names_units_and_values(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        for dialect in ("zigbee2mqtt", "tasmota", "homie", "shelly"):
            for message in fleet_of(dialect):
                publisher.publish(message.topic, message.payload, retain=message.retain)
        lamp = {
            "name": "Lamp",
            "uniq_id": "lamp",
            "cmd_t": "lamp/set",
            "stat_t": "lamp/state",
            "dev": {"ids": ["lamp"], "name": "Ceiling lamp", "sa": "Kitchen"},
        }
        publisher.publish("homeassistant/light/lamp/config", json.dumps(lamp), retain=True)
        page = watched.open(f"{gateway.http}/")
        expect(rows(page)).to_have_count(17)
        tasmota = rows(page).filter(has_text="tasmota climate")
        expect(tasmota.locator(".reading").filter(has_text="Temperature").locator(".unit")).to_have_text("°C")
        expect(tasmota.locator(".status .word")).to_have_text("Online")
        expect(rows(page).filter(has_text="zig-plug").locator(".reading").first).to_contain_text("W")
        expect(rows(page).filter(has_text="homie outdoor").locator(".reading .value").first).to_contain_text("°C")
        # the same quantity has the same name, whatever the payload calls it
        page.get_by_role("combobox", name="Trend").select_option("temperature")
        expect(tasmota.locator(".spark path[d^=M]")).to_have_count(1)
        page.get_by_role("combobox", name="Group").select_option("area")
        expect(rows(page).first).to_contain_text("Ceiling lamp")
        expect(rows(page).first.locator(".group")).to_have_text("Kitchen")
        page.get_by_label("Search devices").fill("tas climate")
        expect(rows(page)).to_have_count(1)
        publisher.publish("tele/tas-climate/LWT", "Offline", retain=True)
        expect(tasmota.locator(".status .word")).to_have_text("Offline")
        page.get_by_label("Search devices").fill("lamp")
        expect(rows(page)).to_have_count(1)
        publisher.publish("homeassistant/light/lamp/config", "", retain=True)
        expect(rows(page)).to_have_count(0)


PLUG: dict[str, object] = {
    "name": "Relay",
    "uniq_id": "plug_relay",
    "cmd_t": "plug/set",
    "stat_t": "plug/state",
    "dev": {"ids": ["plug"], "name": "Desk plug", "mf": "Maker", "mdl": "P1"},
}
DEVICE: dict[str, object] = {"ids": ["plug"], "name": "Desk plug"}
LEVEL: dict[str, object] = {
    "name": "Level",
    "uniq_id": "plug_level",
    "cmd_t": "plug/level/set",
    "stat_t": "plug/level",
    "min": 5,
    "max": 30,
    "unit_of_meas": "W",
    "dev": DEVICE,
}
MODE: dict[str, object] = {
    "name": "Mode",
    "uniq_id": "plug_mode",
    "cmd_t": "plug/mode/set",
    "dev": DEVICE,
    "options": ["eco", "full"],
}
RESET: dict[str, object] = {
    "name": "Reset",
    "uniq_id": "plug_reset",
    "cmd_t": "plug/reset",
    "pl_prs": "now",
    "dev": DEVICE,
}
ANNOUNCED = {"switch/relay": PLUG, "number/level": LEVEL, "select/mode": MODE, "button/reset": RESET}


def announce_plug(publisher: Publisher) -> None:
    for path, said in ANNOUNCED.items():
        publisher.publish(f"homeassistant/{path}/config", json.dumps(said), retain=True)
    publisher.publish("plug/state", "OFF", retain=True)
    publisher.publish("plug/level", "7", retain=True)


def payloads(gateway: GatewayProcess, topic: str) -> list[object]:
    return [message["payload"] for message in gateway.json(f"/topics/{topic}?since=1h")["messages"]]


@pytest.mark.slow
def test_a_device_is_told_by_the_controls_that_its_discovery_names(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        announce_plug(publisher)
        page = watched.open(f"{gateway.http}/")
        rows(page).get_by_role("link", name="Desk plug").click()
        expect(page.get_by_role("heading", name="Desk plug")).to_be_visible()
        relay = page.get_by_role("group", name="Relay")
        expect(relay.get_by_role("button", name="Off")).to_have_attribute("aria-pressed", "true")
        relay.get_by_role("button", name="On").click()
        eventually(lambda: payloads(gateway, "plug/set") == ["ON"], 10, "the switch")
        # the control shows what the device says, not what it was told
        expect(relay.get_by_role("button", name="Off")).to_have_attribute("aria-pressed", "true")
        publisher.publish("plug/state", "ON", retain=True)
        expect(relay.get_by_role("button", name="On")).to_have_attribute("aria-pressed", "true")
        level = page.get_by_role("textbox", name="Level")
        expect(level).to_have_value("7")
        level.fill("31")
        page.get_by_role("button", name="Set", exact=True).click()
        expect(page.get_by_text("Expected a number, 5 to 30 W.")).to_be_visible()
        level.fill("12.5")
        page.get_by_role("button", name="Set", exact=True).click()
        eventually(lambda: payloads(gateway, "plug/level/set") == [12.5], 10, "the number")
        page.get_by_role("combobox", name="Mode").select_option("eco")
        eventually(lambda: payloads(gateway, "plug/mode/set") == ["eco"], 10, "the select")
        page.get_by_role("button", name="Press Reset").click()
        eventually(lambda: payloads(gateway, "plug/reset") == ["now"], 10, "the button")
        # what announces it is cleared, and the device goes
        page.get_by_role("button", name="Clear its announcement…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading")).to_have_text("Clear 4 retained messages?")
        dialog.get_by_role("button", name="Clear 4").click()
        expect(page.get_by_text("Nothing announces it any more")).to_be_visible()
        page.get_by_role("link", name="Devices", exact=True).click()
        expect(page.get_by_role("link", name="Desk plug")).to_have_count(0)


@pytest.mark.slow
def test_who_may_not_publish_sees_no_control(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    roles = {"guest": {"subscribe": ["#"], "publish": ["plug/mode/set"]}}
    gateway = make_gateway(broker, access_anonymous_role="guest", roles=roles)
    with Publisher(broker.url) as publisher:
        announce_plug(publisher)
        page = watched.open(f"{gateway.http}/devices/plug")
        expect(page.get_by_role("combobox", name="Mode")).to_be_visible()
        expect(page.get_by_role("group", name="Relay")).to_have_count(0)
        expect(page.get_by_role("button", name="Clear", exact=False)).to_have_count(0)
        expect(page.get_by_role("link", name="Publish here")).to_have_count(0)


@pytest.mark.slow
def test_what_is_retained_is_cleared_where_it_is_seen(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        for topic in ("old/a", "old/b/c", "old/b/d"):
            publisher.publish(topic, "1", retain=True)
        publisher.publish("old/live", "1")
        eventually(lambda: payloads(gateway, "old/live") == [1], 10, "all of it")
        page = watched.open(f"{gateway.http}/?view=topics")
        expect(page.locator(".t-row .t-name .cut").last).to_have_text("live")
        page.locator(".t-row").filter(has_text="old").first.click()
        page.get_by_role("button", name="Clear all below…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading")).to_have_text("Clear 3 retained messages?")
        dialog.get_by_role("button", name="Keep").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        # one of them, from its chart
        page.goto(f"{gateway.http}/topics/old/a")
        page.get_by_role("button", name="Clear retained…").click()
        page.get_by_role("dialog").get_by_role("button", name="Clear 1").click()
        eventually(lambda: payloads(gateway, "old/a") == [1, ""], 10, "the empty message")
        page.goto(f"{gateway.http}/?view=topics&q=old")
        expect(page.locator(".t-row .t-name .cut")).to_have_text(["old/b/c", "old/b/d", "old/live"])
        page.get_by_label("Search topics").fill("")
        expect(page.locator(".t-row .t-name .cut").last).to_have_text("live")
        page.locator(".t-row").filter(has_text="old").first.click()
        page.get_by_role("button", name="Clear all below…").click()
        page.get_by_role("dialog").get_by_role("button", name="Clear 2").click()
        expect(page.locator(".t-row .t-name .cut")).to_have_text([re.compile("^gateway"), "status", "old", "live"])


@pytest.mark.slow
def test_one_quantity_of_all_fleets_is_one_chart_in_two_clicks(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker, decode=[{"topics": ["spBv1.0/#"], "as": "sparkplug"}])
    with Publisher(broker.url) as publisher, edge_node(broker, "plant", "press") as call:
        celsius = {"engUnit": {"type": "String", "value": "°C"}}
        born = metric("Oven/Temperature", 21.5, "Float", 1, properties=celsius)
        call("publishNodeBirth", {"timestamp": 1, "metrics": [born, metric("Level", 4, "Int8", 2)]})
        for dialect in ("zigbee2mqtt", "tasmota", "homie", "shelly", "esphome"):
            for message in fleet_of(dialect):
                publisher.publish(message.topic, message.payload, retain=message.retain)
        announced = {
            "name": "Outside",
            "uniq_id": "outside",
            "stat_t": "house/outside",
            "val_tpl": "{{ value_json.t }}",
            "dev_cla": "temperature",
            "unit_of_meas": "°C",
            "dev": {"ids": ["outside"], "name": "Announced"},
        }
        publisher.publish("homeassistant/sensor/outside/config", json.dumps(announced), retain=True)
        publisher.publish("house/outside", '{"t": 11.5}', retain=True)
        publisher.publish("sensors/own/meta", meta("Own", temperature=("°C", "temperature")), retain=True)
        publisher.publish("sensors/own/state", '{"temperature": 19.5}')
        page = watched.open(f"{gateway.http}/")
        page.get_by_role("link", name=re.compile("^Temperature")).click()
        expect(page.get_by_role("heading", name="Temperature of all devices")).to_be_visible()
        legend = page.locator(".legend .entry")
        expect(legend.filter(has_text="Own")).to_contain_text("19.5°C")
        expect(legend.filter(has_text="tasmota climate")).to_contain_text(re.compile(r"\d°C"))
        expect(legend.filter(has_text="homie outdoor")).to_contain_text(re.compile(r"\d°C"))
        expect(legend.filter(has_text="zig-climate")).to_contain_text(re.compile(r"\d°C"))
        expect(legend.filter(has_text="she-outdoor")).to_contain_text(re.compile(r"\d°C"))
        expect(legend.filter(has_text="Announced")).to_contain_text("11.5°C")
        expect(legend.filter(has_text="press")).to_contain_text("21.5°C")
        call("publishNodeData", {"timestamp": 2, "metrics": [metric(None, 22.5, "Float", 1)]})  # by its alias
        expect(legend.filter(has_text="press")).to_contain_text("22.5°C")
        expect(page.locator(".panel-title")).to_contain_text("Temperature °C")
        publisher.publish("sensors/own/state", '{"temperature": 23.5}')
        expect(legend.filter(has_text="Own")).to_contain_text("23.5°C")
        # a longer time comes in columns, each device by its own path
        page.get_by_role("button", name="24 h").click()
        expect(legend.filter(has_text="Own")).to_contain_text("19.5 to 23.5")
        for name in ("tasmota climate", "zig-climate", "she-climate", "esphome climate", "press"):
            line = legend.filter(has_text=name)
            button = line.get_by_role("button").first
            if button.get_attribute("aria-pressed") != "true":  # the first eight are drawn by themselves
                button.click()
            expect(line.locator(".stats")).to_contain_text("mean")


@pytest.mark.slow
def test_a_device_that_says_one_thing_at_a_time_keeps_all_its_values_up_to_date(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        for name, unit in (("temperature", "°C"), ("humidity", "%")):
            said = {
                "name": name.title(), "uniq_id": name, "stat_t": "parts/state", "unit_of_meas": unit, "dev_cla": name,
                "val_tpl": f"{{{{ value_json.{name} }}}}", "dev": {"ids": ["parts"], "name": "Parts"},
            }  # fmt: skip
            publisher.publish(f"homeassistant/sensor/{name}/config", json.dumps(said), retain=True)
        publisher.publish("sensors/own/meta", meta("Own", temperature=("°C", "temperature")), retain=True)
        publisher.publish("sensors/own/state", '{"temperature": 19.5}')

        def talk(page: Page, last: float) -> None:
            """Temperature is the one of the two that the next message always comes right behind."""
            for number in range(12):
                publisher.publish("parts/state", json.dumps({"temperature": last if number > 3 else 20.25}))
                publisher.publish("parts/state", json.dumps({"humidity": 50}))
                page.wait_for_timeout(250)

        page = watched.open(f"{gateway.http}/")
        expect(rows(page)).to_have_count(2)
        talk(page, 21.5)
        row = rows(page).filter(has_text="Parts")
        expect(row.locator(".reading").filter(has_text="Temperature")).to_contain_text("21.5", timeout=1000)
        expect(row.locator(".reading").filter(has_text="Humidity")).to_contain_text("50", timeout=1000)
        row.get_by_role("link", name="Parts").click()
        expect(page.get_by_role("main")).to_contain_text("21.5 °C")
        expect(page.get_by_role("main")).to_contain_text("50 %")
        page.goto(f"{gateway.http}/?view=quantity&of=temperature")
        legend = page.locator(".legend .entry").filter(has_text="Parts")
        expect(legend).to_contain_text("21.5")
        talk(page, 22.5)
        expect(legend).to_contain_text("22.5")


@pytest.mark.slow
def test_topics_and_charts_have_the_names_and_units_of_devices(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        announce_plug(publisher)
        publisher.publish("other/level", "3")
        page = watched.open(f"{gateway.http}/?view=topics&q=level")
        row = page.locator(".t-row").filter(has_text=re.compile("^plug/level"))
        expect(row.locator(".t-value .unit")).to_have_text("W")
        expect(row.locator(".owner")).to_have_text("Desk plug Level")
        expect(page.locator(".t-row").filter(has_text="other/level").locator(".unit, .owner")).to_have_count(0)
        row.click()
        page.get_by_label("Selected topic").get_by_role("link", name="Desk plug").click()
        expect(page.get_by_role("heading", name="Desk plug")).to_be_visible()
        page.goto(f"{gateway.http}/topics/plug/level")
        expect(page.locator(".panel-value")).to_contain_text("7W")
        expect(page.locator(".device-name")).to_have_text("Desk plug Level")
        # the lines of a filter have them, too
        page.goto(f"{gateway.http}/topics/+/level")
        expect(page.locator(".legend .entry").filter(has_text="Desk plug Level")).to_contain_text("7W")


@pytest.mark.slow
def test_the_page_can_be_installed(watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto) -> None:
    gateway = make_gateway(make_mosquitto())
    # at any depth of the address
    page = watched.open(f"{gateway.http}/topics/a/b")
    session = page.context.new_cdp_session(page)
    told = session.send("Page.getAppManifest")
    assert told["url"] == f"{gateway.http}/manifest.webmanifest"
    assert told["errors"] == []
    manifest = json.loads(told["data"])
    assert manifest["display"] == "standalone"
    for icon in manifest["icons"]:
        answer = page.request.get(f"{gateway.http}/{icon['src']}")
        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, icon["type"])


@pytest.mark.slow
def test_a_message_that_no_rule_can_read_says_so(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker, decode=[{"topics": ["packed/#"], "as": "msgpack"}])
    with Publisher(broker.url) as publisher:
        publisher.publish("packed/a", b"\xc1")
        page = watched.open(f"{gateway.http}/topics/packed/a")
        expect(page.locator(".m-row .unreadable")).to_have_text("unreadable")
        expect(page.locator(".inspector")).to_contain_text("The gateway is to make JSON of it, and can’t")


@pytest.mark.slow
def test_a_board_tells_how_it_is_and_is_asked_to_update_where_one_may(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    diag = {"started_by": "watchdog", "uptime": 7200, "boot": 17, "heap_free": 61440, "rssi": -61, "wifi_quality": 78}
    line = {"n": 0, "boot": 17, "up": 1.5, "level": "warning", "text": "wifi: lost HOME"}
    with Publisher(broker.url) as publisher, listening(broker.port, "sensors/kitchen/cmd") as told:
        publisher.publish("sensors/kitchen/meta", meta("Kitchen", 10, temperature=("°C", "temperature")), retain=True)
        publisher.publish("sensors/kitchen/state", json.dumps({"temperature": 21.5}))
        publisher.publish("sensors/kitchen/diag", json.dumps(diag), retain=True)
        publisher.publish("sensors/kitchen/log", json.dumps(line))
        found = b"".join(discovery_parts("kitchen", "Kitchen", "m", "f", 10, ["temperature"]))
        publisher.publish("homeassistant/device/kitchen/config", found, retain=True)
        of_itself = {
            "dev": {"ids": ["sensors_kitchen"]},
            "o": {"name": "sensors"},
            "state_topic": "sensors/kitchen/diag",
            "cmps": {
                name: {
                    "p": "sensor",
                    "name": name.replace("_", " ").capitalize(),
                    "unique_id": f"sensors_kitchen_{name}",
                    "entity_category": "diagnostic",
                    "value_template": f"{{{{ value_json.{name} }}}}",
                }
                for name in ("uptime", "heap_free")
            },
        }
        publisher.publish("homeassistant/device/kitchen/diag/config", json.dumps(of_itself), retain=True)
        eventually(lambda: "home_assistant" in gateway.json("/devices")["devices"][0]["announced_by"])
        eventually(lambda: gateway.json("/topics/sensors/kitchen/log?since=1h")["messages"])
        [device] = gateway.json("/devices")["devices"]
        page = watched.open(f"{gateway.http}/devices/{device['id']}")
        board = page.locator("section", has=page.get_by_role("heading", name="The board"))
        expect(board).to_contain_text("the watchdog: the program hung")
        expect(board).to_contain_text("78 %, -61 dBm")
        values = page.locator("section", has=page.get_by_role("heading", name="Values"))
        expect(values.get_by_text("21.5")).to_be_visible()
        expect(values.get_by_text("Heap free")).to_be_hidden()
        values.get_by_text("About the device itself").click()
        expect(values.get_by_text("Heap free")).to_be_visible()
        log = page.locator("section.log")
        expect(log.locator("li")).to_have_text(re.compile("warning: wifi: lost HOME"))
        publisher.publish(
            "sensors/kitchen/log", json.dumps({**line, "n": 1, "level": "error", "text": "bme280: ENODEV"})
        )
        expect(log.locator("li").first).to_contain_text("error: bme280: ENODEV")
        page.get_by_role("button", name="Update its program").click()
        eventually(lambda: [json.loads(message.payload) for message in told] == [{"update": True}])
        for width, scheme in ((1280, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        if AXE.exists():
            assert axe(page) == []

        page = watched.open(f"{gateway.http}/devices/{device['id']}?lang=de", viewport=NARROW)
        button = page.get_by_role("button", name="Sein Programm aktualisieren")
        button.scroll_into_view_if_needed()
        button.click()
        eventually(lambda: len(told) == 2)
        said = page.get_by_text("Gefragt. Das Board holt es von dem, der „sensors-flash update --serve“ laufen lässt.")
        expect(said).to_be_visible()
        for each in (button, said):  # all of it is on the screen, and large enough for a thumb
            box = each.bounding_box()
            assert box is not None
            assert 0 <= box["x"] <= box["x"] + box["width"] <= NARROW["width"]
            assert box["height"] >= 30
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]

"""The list of devices with fleets that are not ours: by name, with units, in groups, each by its own rule."""

from __future__ import annotations

import json

from playwright.sync_api import expect

from sensors_sim.dialects.all import DIALECTS
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Fleet, FleetSpec
from sensors_sim.messages import Message
from tests.browser.watched import Watched, rows
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.publishers import Publisher

KINDS = ("climate", "outdoor", "plug", "soil")


def fleet_of(dialect: str) -> list[Message]:
    specs = tuple(DeviceSpec(f"{dialect[:3]}-{kind}", kind, f"{dialect} {kind}", place="hall") for kind in KINDS)
    fleet = Fleet(FleetSpec(specs), 7, SEEDED_START, dialect=dialect)
    said = [*DIALECTS[dialect].fleet_birth(fleet.devices.values())]
    said += [message for device in fleet.devices.values() for message in device.dialect.birth(device)]
    return said + [event.what for event in fleet.take(SEEDED_START + 400) if isinstance(event.what, Message)]


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

"""Devices: what each habit makes of the messages of its project, and what the registry keeps of them."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.history import History
from gateway.core.snapshots import restore_counts, take_back, topic_states
from gateway.devices import feed as feeding
from gateway.devices import records, views
from gateway.devices import registry as registry_module
from gateway.devices.habits import HABITS, claim_of
from gateway.devices.model import Presence, label_of, mac_key, text_of
from gateway.devices.quantities import quantity_of
from gateway.devices.records import Device
from gateway.devices.registry import Registry
from gateway.devices.views import Asker, about_topic, first_devices, tell, tell_all, values_of

EVERYBODY = Asker(lambda _: True, lambda _: True)
NOW = 1_700_000_000_000


class World:
    """A log and what is known of it."""

    def __init__(self, **bounds: int) -> None:
        self.history = History(
            max_topics=bounds.pop("max_topics", 100_000), max_messages=bounds.pop("max_messages", 1_000)
        )
        self.registry = Registry(self.history, **bounds)
        self.now = NOW

    def say(self, topic: str, payload: Any, *, retained: bool = True) -> None:
        data = payload if isinstance(payload, bytes) else payload.encode() if isinstance(payload, str) else None
        self.history.append(topic, json.dumps(payload).encode() if data is None else data, self.now, 0, retained)

    def work(self) -> None:
        for _ in self.registry.work():
            pass

    def devices(self, asker: Asker = EVERYBODY) -> dict[str, dict[str, Any]]:
        self.work()
        found = [tell(device, asker, self.history, self.now) for device in self.registry.devices()]
        return {told.id: msgspec.json.decode(told.whole) for told in found if told is not None}

    def one(self, asker: Asker = EVERYBODY) -> dict[str, Any]:
        [device] = self.devices(asker).values()
        return device

    def values(self) -> dict[str, Any]:
        self.work()
        return {
            value["id"]: value["value"]
            for device in self.registry.devices()
            for value in finished(values_of(device, EVERYBODY, self.history))
        }


def fields(device: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {each["name"]: (each["unit"], each["topic"], each["path"]) for each in device["fields"]}


def commands(device: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in device["commands"]}


# our own


def test_our_own_meta() -> None:
    world = World()
    world.say("sensors/hall/status", "online")
    world.say(
        "sensors/hall/meta",
        {
            "name": "Hall",
            "model": "ESP32 + BME280",
            "firmware": "1.2",
            "interval": 10,
            "fields": {"temperature": {"unit": "°C", "device_class": "temperature"}, "co2": {"unit": "ppm"}},
        },
    )
    world.say("sensors/hall/state", {"ts": 1, "seq": 1, "temperature": 21.5}, retained=False)
    device = world.one()
    assert (device["name"], device["model"], device["version"]) == ("Hall", "ESP32 + BME280", "1.2")
    assert fields(device) == {
        "Temperature": ("°C", "sensors/hall/state", "temperature"),
        "CO₂": ("ppm", "sensors/hall/state", "co2"),
    }
    assert (device["availability"], device["seen"]) == ("online", NOW)
    assert set(commands(device)) == {"Interval", "Restart"}
    assert world.values() == {"temperature": 21.5, "co2": None}
    world.now += 31_000
    assert world.one()["availability"] == "offline"  # silent for three intervals
    world.say("sensors/hall/status", "sleeping")
    assert world.one()["availability"] == "sleeping"


def test_a_sensor_without_a_meta_has_what_its_state_has_and_takes_over_what_a_later_meta_says() -> None:
    world = World()
    world.say("sensors/hall/state", {"seq": 1, "temperature": 21.5})
    assert fields(world.one()) == {"Temperature": ("", "sensors/hall/state", "temperature")}
    world.say("sensors/hall/meta", {"name": "Hall", "fields": {"temperature": {"unit": "°F"}}})
    assert world.one()["name"] == "Hall"
    assert fields(world.one())["Temperature"][0] == "°F"
    world.say("sensors/hall/meta", b"")
    assert world.one()["name"] == "hall"


# Home Assistant


SINGLE = {
    "name": "Temperature",
    "dev_cla": "temperature",
    "unit_of_meas": "°C",
    "stat_t": "~/state",
    "~": "home/attic",
    "val_tpl": "{{ value_json.temp | round(1) }}",
    "uniq_id": "attic_temp",
    "avty_t": "~/lwt",
    "pl_avail": "up",
    "pl_not_avail": "down",
    "exp_aft": 600,
    "dev": {"ids": "attic", "name": "Attic", "mf": "Acme", "mdl": "T1", "sw": "3", "sa": "Upstairs"},
}


def test_discovery_of_a_single_component_with_abbreviations_and_a_base_topic() -> None:
    world = World()
    world.say("homeassistant/sensor/attic/temp/config", SINGLE)
    world.say("home/attic/lwt", "up")
    world.say("home/attic/state", {"temp": 19.25})
    device = world.one()
    assert {name: device[name] for name in ("id", "name", "model", "manufacturer", "area", "version")} == {
        "id": "attic",
        "name": "Attic",
        "model": "T1",
        "manufacturer": "Acme",
        "area": "Upstairs",
        "version": "3",
    }
    assert fields(device) == {"Temperature": ("°C", "home/attic/state", "temp")}
    assert device["availability"] == "online"
    assert device["announced_by"] == ["home_assistant"]
    world.say("home/attic/lwt", "down")
    assert world.one()["availability"] == "offline"
    world.say("home/attic/lwt", "up")
    world.now += 601_000
    assert world.one()["availability"] == "offline"


def test_entities_of_one_device_are_one_device_and_a_cleared_one_goes() -> None:
    world = World()
    for name in ("temp", "hum"):
        world.say(f"homeassistant/sensor/attic/{name}/config", {**SINGLE, "uniq_id": name, "name": name})
    assert len(world.one()["fields"]) == 1  # both read the same place
    world.say("homeassistant/sensor/attic/hum/config", {**SINGLE, "uniq_id": "hum", "val_tpl": "{{ value_json.hum }}"})
    assert len(world.one()["fields"]) == 2
    world.say("homeassistant/sensor/attic/hum/config", b"")
    assert len(world.one()["fields"]) == 1
    world.say("homeassistant/sensor/attic/temp/config", b"")
    assert world.devices() == {}
    assert world.registry.count == 0


@pytest.mark.parametrize("platform", ["button", "scene", "notify"])
def test_what_has_no_state_takes_none_of_the_devices_topic(platform: str) -> None:
    """A board of ours says one topic of states for all its entities, and has a button that restarts it."""
    button = {"p": platform, "name": "Restart", "unique_id": "restart", "command_topic": "x/cmd", "payload_press": "1"}
    reading = {"p": "sensor", "name": "Temperature", "value_template": "{{ value_json.temperature }}"}
    components = {"restart": button, "temperature": reading}
    world = World()
    world.say("homeassistant/device/x/config", {"dev": {"ids": ["x"]}, "state_topic": "x/state", "cmps": components})
    world.say("x/state", {"temperature": 21.5})
    assert list(fields(world.one())) == ["Temperature"]
    if platform == "button":
        assert "Restart" in commands(world.one())


def test_discovery_of_a_whole_device() -> None:
    world = World()
    world.say(
        "homeassistant/device/0AFFD2/config",
        {
            "dev": {"ids": ["ea334450945afc"], "name": "Kitchen", "cns": [["mac", "02:5b:26:a8:dc:12"]]},
            "o": {"name": "bla2mqtt", "sw": "2.1", "url": "https://example.com"},
            "cmps": {
                "t1": {
                    "p": "sensor",
                    "device_class": "temperature",
                    "unit_of_measurement": "°C",
                    "value_template": "{{ value_json.temperature}}",
                    "unique_id": "temp01ae_t",
                },
                "h1": {"p": "sensor", "device_class": "humidity", "val_tpl": "{{ value_json['humidity'] }}"},
                "gone": {"p": "sensor"},
                "broken": 7,
                "plug": {"p": "switch", "name": "Plug", "cmd_t": "k/set", "stat_t": "k/power"},
            },
            "state_topic": "k/state",
            "availability": [
                {"topic": "k/a", "value_template": "{{ 'online' if value_json.ok else 'offline' }}"},
                {"t": "k/b"},
            ],
            "avty_mode": "all",
            "qos": 2,
        },
    )
    world.say("k/a", {"ok": True})
    device = world.one()
    assert device["id"] == "ea334450945afc"
    assert device["version"] == "2.1"
    assert fields(device) == {
        "Temperature": ("°C", "k/state", "temperature"),
        "Humidity": ("", "k/state", "humidity"),
        "Plug": ("", "k/power", ""),
    }
    assert commands(device)["Plug"]["payloads"] == {"on": "ON", "off": "OFF"}
    assert device["availability"] == "online"
    world.say("k/b", "offline")
    assert world.one()["availability"] == "offline"
    [text] = world.registry.problems_of("homeassistant/device/0AFFD2/config")
    assert text == "components: broken is no object"


def test_a_button_has_no_value_where_all_components_share_a_state_topic() -> None:
    world = World()
    button = {"p": "button", "name": "Restart", "unique_id": "k_restart", "cmd_t": "k/cmd", "pl_prs": "restart"}
    config = {"dev": {"ids": ["k"]}, "o": {"name": "k"}, "stat_t": "k/state", "cmps": {"restart": button}}
    world.say("homeassistant/device/k/config", config)
    world.say("k/state", {"temperature": 21.5})
    device = world.one()
    assert fields(device) == {}
    assert commands(device)["Restart"]["payloads"] == {"press": "restart"}


ENTITIES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("button", {"cmd_t": "x/c", "pl_prs": "go"}, {"kind": "button", "payloads": {"press": "go"}}),
    (
        "number",
        {"cmd_t": "x/c", "stat_t": "x/s", "min": 5, "max": 30, "step": 0.5, "cmd_tpl": '{"t":{{ value }}}'},
        {"kind": "number", "before": '{"t":', "after": "}", "min": 5, "max": 30, "step": 0.5},
    ),
    (
        "select",
        {"cmd_t": "x/c", "stat_t": "x/s", "ops": ["a", "b"], "cmd_tpl": '{"m":"{{ value }}"}'},
        {"kind": "select", "payloads": {"a": '{"m":"a"}', "b": '{"m":"b"}'}},
    ),
    ("text", {"cmd_t": "x/c", "stat_t": "x/s"}, {"kind": "text", "before": "", "after": ""}),
    (
        "light",
        {"schema": "json", "cmd_t": "x/c", "stat_t": "x/s", "brightness": True},
        {"kind": "switch", "payloads": {"on": '{"state":"ON"}', "off": '{"state":"OFF"}'}},
    ),
    ("lock", {"cmd_t": "x/c", "stat_t": "x/s"}, {"kind": "select", "payloads": {"lock": "LOCK", "unlock": "UNLOCK"}}),
    ("cover", {"cmd_t": "x/c", "pos_t": "x/p", "pl_stop": "S"}, {"kind": "select"}),
    ("switch", {"cmd_t": "x/c", "pl_on": "1", "pl_off": 0}, {"kind": "switch", "payloads": {"on": "1", "off": "0"}}),
    (
        "climate",
        {"temp_cmd_t": "x/c", "temp_stat_t": "x/s", "curr_temp_t": "x/t", "min_temp": 5},
        {"kind": "number", "min": 5, "max": 35},
    ),
    (
        "number",
        {"cmd_t": "x/c", "cmd_tpl": "{{ states('x') }}"},
        {"problem": "template"},
    ),
]


@pytest.mark.parametrize(("component", "config", "expected"), ENTITIES)
def test_commands_of_entities(component: str, config: dict[str, Any], expected: dict[str, Any]) -> None:
    world = World()
    world.say(f"homeassistant/{component}/thing/config", {"name": "Thing", "uniq_id": "u1", **config})
    device = world.one()
    command = device["commands"][0]
    assert command["topic"] == "x/c"
    for name, value in expected.items():
        assert str(command[name]).startswith(str(value)), (name, command)
    assert device["name"] == "Thing"
    if component in ("light", "lock", "cover", "switch", "climate"):
        assert device["kind"] == component


def test_a_template_that_is_no_path_is_computed_and_one_that_is_not_understood_is_named() -> None:
    world = World()
    world.say(
        "homeassistant/device/x/config",
        {
            "dev": {"ids": ["x"], "name": "X"},
            "stat_t": "x/s",
            "cmps": {
                "a": {"p": "binary_sensor", "name": "A", "val_tpl": "{{ 'ON' if value_json.p > 5 else 'OFF' }}"},
                "b": {"p": "sensor", "name": "B", "unit_of_meas": "V", "val_tpl": "{{ value_json.mv / 1000 }}"},
                "c": {"p": "sensor", "name": "C", "val_tpl": "{{ now() - value_json.t }}"},
            },
        },
    )
    world.say("x/s", {"p": 7, "mv": 3300, "t": 1})
    shown = {each["name"]: each for each in world.one()["fields"]}
    assert (shown["A"]["path"], shown["A"]["kind"]) == (None, "state")
    assert (shown["B"]["path"], shown["B"]["scale"]) == ("mv", 0.001)
    assert shown["C"]["problem"].endswith("the function 'now' is not known here")
    assert world.values() == {"a": "ON", "b": pytest.approx(3.3), "c": None}


# Zigbee2MQTT


LAMP = {
    "ieee_address": "0x00158d0001a2b3c4",
    "type": "Router",
    "network_address": 29159,
    "supported": True,
    "disabled": False,
    "friendly_name": "living/lamp",
    "description": None,
    "endpoints": {"1": {"bindings": [], "clusters": {"input": ["genOnOff"], "output": []}}},
    "definition": {
        "model": "LED1545G12",
        "vendor": "IKEA",
        "description": "TRADFRI bulb",
        "exposes": [
            {
                "type": "light",
                "features": [
                    {"type": "binary", "name": "state", "property": "state", "access": 7, "value_on": "ON",
                     "value_off": "OFF", "value_toggle": "TOGGLE", "label": "State"},
                    {"type": "numeric", "name": "brightness", "property": "brightness", "access": 7, "value_min": 0,
                     "value_max": 254},
                    {"type": "composite", "name": "color_xy", "property": "color", "access": 7,
                     "features": [{"type": "numeric", "name": "x", "property": "x", "access": 7}]},
                ],
            },
            {"type": "enum", "name": "effect", "property": "effect", "access": 2, "values": ["blink", "okay"]},
            {"type": "enum", "name": "identify", "property": "identify", "access": 2, "values": ["identify"]},
            {"type": "numeric", "name": "linkquality", "property": "linkquality", "access": 1, "unit": "lqi"},
        ],
    },
    "power_source": "Mains (single phase)",
    "software_build_id": "1.2.214",
}  # fmt: skip

COORDINATOR = {"ieee_address": "0x00124b00120144ae", "type": "Coordinator", "friendly_name": "Coordinator"}


def test_what_a_zigbee_device_exposes_is_its_fields_and_commands() -> None:
    world = World()
    world.say("zigbee2mqtt/bridge/state", {"state": "online"})
    world.say("zigbee2mqtt/bridge/info", {"version": "2.1.0", "config": {"availability": {"enabled": True}}})
    world.say("zigbee2mqtt/bridge/devices", [COORDINATOR, LAMP, {"friendly_name": "broken"}, 5])
    world.say("zigbee2mqtt/living/lamp/availability", {"state": "online"})
    world.say("zigbee2mqtt/living/lamp", {"state": "ON", "brightness": 100, "color": {"x": 0.4}, "linkquality": 90})
    device = world.one()
    assert (device["name"], device["model"], device["manufacturer"]) == ("living/lamp", "LED1545G12", "IKEA")
    assert (device["kind"], device["availability"]) == ("light", "online")
    assert fields(device) == {
        "State": ("", "zigbee2mqtt/living/lamp", "state"),
        "Brightness": ("", "zigbee2mqtt/living/lamp", "brightness"),
        "X": ("", "zigbee2mqtt/living/lamp", "color.x"),
        "Linkquality": ("lqi", "zigbee2mqtt/living/lamp", "linkquality"),
    }
    told = commands(device)
    assert told["State"]["payloads"] == {"on": '{"state":"ON"}', "off": '{"state":"OFF"}'}
    assert told["State"]["topic"] == "zigbee2mqtt/living/lamp/set"
    assert (told["Brightness"]["before"], told["Brightness"]["max"]) == ('{"brightness":', 254)
    assert (told["X"]["before"], told["X"]["after"]) == ('{"color":{"x":', "}}")
    assert told["Effect"]["payloads"]["blink"] == '{"effect":"blink"}'
    assert (told["Identify"]["kind"], "field" in told["Identify"]) == ("button", False)
    assert len(world.registry.problems_of("zigbee2mqtt/bridge/devices")) == 2
    assert world.values()["color.x"] == 0.4
    world.say("zigbee2mqtt/bridge/state", {"state": "offline"})
    assert world.one()["availability"] == "offline"
    world.say("zigbee2mqtt/bridge/state", "online")  # as older versions write it
    world.say("zigbee2mqtt/living/lamp/availability", "offline")
    assert world.one()["availability"] == "offline"


def test_a_zigbee_device_and_its_discovery_for_home_assistant_are_one() -> None:
    world = World()
    world.say("zigbee2mqtt/bridge/devices", [COORDINATOR, LAMP])
    world.say(
        "homeassistant/light/0x00158d0001a2b3c4/light/config",
        {
            "schema": "json",
            "brightness": True,
            "brightness_scale": 254,
            "command_topic": "zigbee2mqtt/living/lamp/set",
            "state_topic": "zigbee2mqtt/living/lamp",
            "unique_id": "0x00158d0001a2b3c4_light_zigbee2mqtt",
            "name": None,
            "device": {
                "identifiers": ["zigbee2mqtt_0x00158d0001a2b3c4"],
                "name": "living/lamp",
                "suggested_area": "Living room",
                "via_device": "zigbee2mqtt_bridge_0x00124b00120144ae",
            },
            "origin": {"name": "Zigbee2MQTT", "sw": "2.1.0", "url": "https://www.zigbee2mqtt.io"},
        },
    )
    device = world.one()
    assert device["announced_by"] == ["zigbee2mqtt", "home_assistant"]
    assert device["area"] == "Living room"
    assert [each["path"] for each in device["fields"]].count("state") == 1
    assert [each["id"] for each in device["commands"]].count("state") == 1
    assert all(each["payloads"] != {} for each in device["commands"] if each["kind"] == "switch")
    world.say("zigbee2mqtt/bridge/devices", [COORDINATOR])
    assert world.one()["announced_by"] == ["home_assistant"]


def test_a_zigbee_group_takes_what_all_its_members_take() -> None:
    world = World()
    other = {**LAMP, "ieee_address": "0x2", "friendly_name": "other"}
    other["definition"] = {"exposes": [LAMP["definition"]["exposes"][0]["features"][0]]}  # type: ignore[index]
    world.say("home/zigbee/bridge/devices", [LAMP, other])
    members = [{"ieee_address": LAMP["ieee_address"], "endpoint": 1}, {"ieee_address": "0x2", "endpoint": 1}]
    world.say("home/zigbee/bridge/groups", [{"id": 4, "friendly_name": "all", "scenes": [], "members": members}])
    group = next(each for each in world.devices().values() if each["kind"] == "group")
    assert [each["path"] for each in group["fields"]] == ["state"]
    assert commands(group)["State"]["topic"] == "home/zigbee/all/set"


# Tasmota


CONFIG = {
    "ip": "192.168.15.10", "dn": "Tasmota", "fn": ["Pump", None], "hn": "tasmota-1234", "mac": "00000049A3BC",
    "md": "Sonoff Basic", "ty": 0, "if": 0, "ofln": "Offline", "onln": "Online",
    "state": ["OFF", "ON", "TOGGLE", "HOLD"], "sw": "9.4.0.4", "t": "tasmota_49A3BC", "ft": "%topic%/%prefix%/",
    "tp": ["cmnd", "stat", "tele"], "rl": [1, 0, 0, 0, 0, 0, 0, 0], "swc": [-1], "swn": [None], "btn": [0],
    "so": {"4": 0}, "lk": 0, "lt_st": 0, "sho": [], "ver": 1,
}  # fmt: skip


def test_tasmota_by_its_discovery() -> None:
    world = World()
    world.say("tasmota/discovery/00000049A3BC/config", CONFIG)
    world.say(
        "tasmota/discovery/00000049A3BC/sensors",
        {
            "sn": {
                "Time": "2021-01-01T00:00:00",
                "AM2301": {"Temperature": 22.5, "Humidity": 61.2, "DewPoint": 14.6},
                "ENERGY": {"Total": 1.2, "Power": [10, 20], "Factor": 0.9},
                "TempUnit": "F",
            },
            "ver": 1,
        },
    )
    world.say("tasmota_49A3BC/tele/LWT", "Online")
    device = world.one()
    assert (device["id"], device["model"], device["kind"]) == ("mac:00000049a3bc", "Sonoff Basic", "switch")
    sensor = "tasmota_49A3BC/tele/SENSOR"
    shown = fields(device)
    assert shown["Temperature"] == ("°F", sensor, "AM2301.Temperature")
    assert shown["Total"] == ("kWh", sensor, "ENERGY.Total")
    assert shown["Power 2"] == ("W", sensor, "ENERGY.Power[1]")
    assert shown["Pump"] == ("", "tasmota_49A3BC/stat/POWER", "")
    assert commands(device)["Pump"]["topic"] == "tasmota_49A3BC/cmnd/POWER"
    assert device["availability"] == "online"
    world.say("tasmota/discovery/00000049A3BC/config", b"")
    world.say("tasmota/discovery/00000049A3BC/sensors", b"")
    assert world.devices() == {}


def test_tasmota_without_discovery_has_what_its_telemetry_has() -> None:
    world = World()
    world.say("tele/pond/SENSOR", {"Time": "x", "DS18B20": {"Id": "01", "Temperature": 7.1}, "TempUnit": "C"})
    world.say("tele/pond/LWT", "Offline")
    device = world.one()
    assert fields(device) == {"Temperature": ("°C", "tele/pond/SENSOR", "DS18B20.Temperature")}
    assert (device["name"], device["availability"]) == ("pond", "offline")
    world.say("tele/pond/SENSOR", {"DS18B20-1": {"Temperature": 7.1}, "DS18B20-2": {"Temperature": 8}}, retained=False)
    assert set(fields(world.one())) == {"DS18B20-1 Temperature", "DS18B20-2 Temperature"}


def test_the_temperature_of_the_device_itself_is_no_measurement() -> None:
    world = World()
    world.say("tele/hall/SENSOR", {"AM2301": {"Temperature": 21.5}, "ESP32": {"Temperature": 53.3}, "TempUnit": "C"})
    base = "shellyplus1-a8032ab12345"
    world.say(f"{base}/status/switch:0", {"id": 0, "output": True, "temperature": {"tC": 50.1}}, retained=False)
    world.say(f"{base}/status/temperature:100", {"id": 100, "tC": 21.5}, retained=False)
    world.say("shellies/shelly1pm-B929CC/temperature", "48.2", retained=False)
    world.say("shellies/shelly1pm-B929CC/ext_temperature/0", "20.1", retained=False)
    told = {
        each["path"] or each["topic"]: (each["name"], each.get("diagnostic", False))
        for device in world.devices().values()
        for each in device["fields"]
        if each["device_class"] == "temperature"
    }
    assert told == {
        "AM2301.Temperature": ("Temperature", False),
        "ESP32.Temperature": ("ESP32 Temperature", True),
        "temperature.tC": ("Device temperature", True),
        "tC": ("Temperature", False),
        "shellies/shelly1pm-B929CC/temperature": ("Device temperature", True),
        "shellies/shelly1pm-B929CC/ext_temperature/0": ("Temperature", False),
    }


# ESPHome


def test_esphome_by_its_topics() -> None:
    world = World()
    world.say("livingroom/sensor/outside_humidity/state", "41.2")
    world.say("livingroom/sensor/humidity/state", "41.2")
    world.say("livingroom/switch/fan/state", "ON")
    world.say("livingroom/status", "online")
    world.say("esphome/discover/livingroom", {"name": "livingroom", "friendly_name": "Living", "mac": "c0ffee000001"})
    device = world.one()
    assert (device["id"], device["name"], device["availability"]) == ("mac:c0ffee000001", "Living", "online")
    assert fields(device)["Humidity"] == ("%", "livingroom/sensor/humidity/state", "")
    assert commands(device)["Fan"]["topic"] == "livingroom/switch/fan/command"
    world.say("livingroom/switch/fan/state", b"")
    world.say("livingroom/switch/lamp/state", "OFF")
    assert {"Fan", "Lamp"} <= set(fields(world.one()))


# Shelly


def test_shelly_of_the_first_generation() -> None:
    world = World()
    world.say("shellies/shelly1pm-B929CC/relay/0", "on", retained=False)
    world.say("shellies/shelly1pm-B929CC/relay/0/power", "23.4", retained=False)
    world.say("shellies/shelly1pm-B929CC/relay/0/energy", "120", retained=False)
    world.say("shellies/shelly1pm-B929CC/relay/0/command", "on", retained=False)
    world.say("shellies/shelly1pm-B929CC/online", "true")
    world.say(
        "shellies/shelly1pm-B929CC/announce",
        {"id": "shelly1pm-B929CC", "model": "SHSW-PM", "mac": "84CCA8B929CC", "ip": "10.0.0.2", "fw_ver": "v1.14.0"},
    )
    device = world.one()
    assert (device["model"], device["availability"], device["kind"]) == ("SHSW-PM", "online", "switch")
    assert fields(device)["Power"] == ("W", "shellies/shelly1pm-B929CC/relay/0/power", "")
    assert world.values()["relay/energy 0"] == 2.0  # watt-minutes as watt-hours
    assert commands(device)["Switch"]["topic"] == "shellies/shelly1pm-B929CC/relay/0/command"


def test_shelly_of_the_second_generation() -> None:
    world = World()
    base = "home/shellyplus2pm-a8032ab12345"
    for number in (0, 1):
        status = {"id": number, "output": False, "apower": 0.0, "voltage": 230.1, "aenergy": {"total": 5.2}}
        world.say(f"{base}/status/switch:{number}", status, retained=False)
    world.say(f"{base}/status/sys", {"mac": "A8032AB12345", "uptime": 5}, retained=False)
    world.say(f"{base}/status/wifi", {"rssi": -50}, retained=False)
    world.say(f"{base}/online", "false")
    device = world.one()
    assert (device["id"], device["model"], device["availability"]) == ("mac:a8032ab12345", "shellyplus2pm", "offline")
    assert fields(device)["Energy 2"] == ("Wh", f"{base}/status/switch:1", "aenergy.total")
    assert commands(device)["Switch 1"]["topic"] == f"{base}/command/switch:0"


# Homie


def test_homie_of_the_third_and_fourth_version_in_any_order() -> None:
    world = World()
    attributes = {
        "$homie": "4.0.0",
        "$name": "Super car",
        "$state": "ready",
        "$nodes": "wheels,engine",
        "$mac": "DE:AD:BE:EF:FE:ED",
        "engine/$name": "Car engine",
        "engine/$properties": "temperature,mode",
        "engine/temperature/$name": "Engine temperature",
        "engine/temperature/$settable": "true",
        "engine/temperature/$unit": "°C",
        "engine/temperature/$datatype": "float",
        "engine/temperature/$format": "-20:120",
        "engine/temperature": "21.5",
        "engine/mode/$datatype": "enum",
        "engine/mode/$format": "eco,sport",
        "engine/mode/$settable": "true",
    }
    for name, value in sorted(attributes.items(), reverse=True):
        world.say(f"homie/super-car/{name}", value)
        world.work()
    device = world.one()
    assert (device["name"], device["availability"]) == ("Super car", "online")
    assert fields(device)["Engine temperature"] == ("°C", "homie/super-car/engine/temperature", "")
    command = commands(device)["Engine temperature"]
    assert (command["topic"], command["min"], command["max"]) == (
        "homie/super-car/engine/temperature/set",
        -20,
        120,
    )
    assert commands(device)["Mode"]["payloads"] == {"eco": "eco", "sport": "sport"}
    world.say("homie/super-car/$state", "lost")
    assert world.one()["availability"] == "offline"


def test_homie_of_the_fifth_version() -> None:
    world = World()
    world.say("homie/5/lamp/$state", "sleeping")
    properties = {"on": {"datatype": "boolean", "settable": True}, "power": {"datatype": "float", "unit": "W"}}
    nodes = {"light": {"properties": properties}}
    world.say("homie/5/lamp/$description", {"homie": "5.0", "version": 7, "name": "Lamp", "nodes": nodes})
    device = world.one()
    assert (device["name"], device["availability"]) == ("Lamp", "sleeping")
    assert fields(device)["Power"] == ("W", "homie/5/lamp/light/power", "")
    assert commands(device)["On"]["payloads"] == {"on": "true", "off": "false"}


# Sparkplug


def test_sparkplug_as_json() -> None:
    world = World()
    metrics = [
        {"name": "bdSeq", "value": 0, "dataType": "Int64"},
        {"name": "Properties/Hardware Make", "value": "Pi", "dataType": "String"},
        {
            "name": "Inlet/Temperature",
            "timestamp": 1,
            "dataType": "Float",
            "value": 20.5,
            "properties": {"engUnit": {"type": "String", "value": "°C"}},
        },
        {"name": "Running", "dataType": "Boolean", "value": True},
    ]
    world.say("spBv1.0/Plant/DBIRTH/edge/pump", {"timestamp": 1, "metrics": metrics, "seq": 1}, retained=False)
    device = world.one()
    assert (device["name"], device["area"], device["manufacturer"]) == ("pump", "Plant", "Pi")
    assert device["availability"] == "online"
    [temperature, running] = device["fields"]
    assert (temperature["metric"], temperature["path"], temperature["unit"]) == ("Inlet/Temperature", None, "°C")
    assert running["kind"] == "state"
    data = [{"name": "Running", "value": False}, {"name": "Inlet/Temperature", "value": 21.5}]
    world.say("spBv1.0/Plant/DDATA/edge/pump", {"timestamp": 2, "metrics": data, "seq": 2}, retained=False)
    assert world.values() == {"Inlet/Temperature": 21.5, "Running": False}
    world.say("spBv1.0/Plant/NDEATH/edge", {"timestamp": 3, "metrics": []}, retained=False)
    assert world.one()["availability"] == "offline"
    world.say("spBv1.0/Plant/DBIRTH/edge/pump", {"timestamp": 4, "metrics": metrics, "seq": 1}, retained=False)
    assert world.one()["availability"] == "online"


def test_a_metric_that_did_not_change_keeps_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    metrics = [{"name": name, "value": 1.5, "dataType": "Float"} for name in ("A", "B", "C")]
    world.say("spBv1.0/Plant/DBIRTH/edge/pump", {"metrics": metrics}, retained=False)
    assert world.values() == {"A": 1.5, "B": 1.5, "C": 1.5}
    data = "spBv1.0/Plant/DDATA/edge/pump"
    world.say(data, {"values": {"A": 2}}, retained=False)
    for value in (3, 4):
        world.say(data, {"values": {"B": value, "D": 0}}, retained=False)
    assert world.values() == {"A": 2, "B": 4, "C": 1.5}
    # a BIRTH says all of it again
    world.say("spBv1.0/Plant/DBIRTH/edge/pump", {"metrics": metrics}, retained=False)
    assert world.values() == {"A": 1.5, "B": 1.5, "C": 1.5}
    # what is not found within the bounds, or came before what the log has let go, is not guessed
    for value in range(3):
        world.say(data, {"values": {"B": value}}, retained=False)
    with monkeypatch.context() as patched:
        patched.setattr(views, "LOOKED_BACK", 3)
        assert world.values() == {"A": None, "B": 2, "C": None}
    assert world.values() == {"A": 1.5, "B": 2, "C": 1.5}
    few = World(max_messages=2)
    few.say("spBv1.0/Plant/DBIRTH/edge/pump", {"metrics": metrics}, retained=False)
    for name in ("A", "B", "B"):
        few.say(data, {"values": {name: 7}}, retained=False)
    assert few.values() == {"A": None, "B": 7, "C": None}


def test_a_member_that_the_newest_message_lacks_is_that_of_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for name in ("t", "h", "never"):
        said = {"name": name, "uniq_id": name, "stat_t": "x", "val_tpl": f"{{{{ value_json.{name} }}}}"}
        world.say(f"homeassistant/sensor/{name}/config", {**said, "dev": {"ids": ["x"], "name": "X"}})
    for payload in ({"t": 1, "h": 5}, {"t": 2}, {"h": 6}, "text", {"h": 7}):
        world.now += 1000
        world.say("x", payload, retained=False)
    world.work()
    [device] = world.registry.devices()
    told = {each["id"].rpartition(" ")[2]: each for each in finished(values_of(device, EVERYBODY, world.history))}
    assert [told[name]["value"] for name in ("t", "h", "never")] == [2, 7, None], told
    assert world.now - told["t"]["time"] == 3000
    with monkeypatch.context() as patched:
        patched.setattr(views, "LOOKED_BACK_FOR_MEMBERS", 2)
        assert list(world.values().values()).count(None) == 2
    # one that is null is there
    world.say("x", {"t": None}, retained=False)
    assert sorted(map(str, world.values().values())) == ["7", "None", "None"]


def test_metrics_of_sparkplug_that_end_alike_are_told_apart() -> None:
    world = World()
    names = ("Inlet/Temperature", "Outlet/Temperature", "Line 1/Pressure", "Temperature/Set")
    metrics = [{"name": name, "value": 1.5, "dataType": "Float"} for name in names]
    world.say("spBv1.0/Plant/DBIRTH/edge/pump", {"metrics": metrics}, retained=False)
    shown = [field["name"] for field in world.one()["fields"]]
    assert sorted(shown) == ["Inlet Temperature", "Outlet Temperature", "Pressure", "Set"]


def test_a_birth_that_nobody_decoded_is_no_device() -> None:
    world = World()
    world.say("spBv1.0/Plant/NBIRTH/edge", b"\x08\xff\x01\x02", retained=False)
    assert world.devices() == {}


# home-made


def test_a_topic_whose_last_level_is_a_quantity_is_a_field_of_what_is_above_it() -> None:
    world = World()
    world.say("garden/bed/temperature", "21.5 °C")
    world.say("garden/bed/humidity", "40")
    world.say("garden/bed/soilMoisture", {"value": 30, "unit": "vol%"})
    world.say("garden/bed/co2", {"raw": 7})
    world.say("garden/bed/colour", "red")
    device = world.one()
    assert (device["name"], device["availability"]) == ("garden/bed", "unknown")
    assert fields(device) == {
        "Humidity": ("%", "garden/bed/humidity", ""),
        "Soil moisture": ("vol%", "garden/bed/soilMoisture", "value"),
        "Temperature": ("°C", "garden/bed/temperature", ""),
    }


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_announced_goes_before_what_is_guessed(order: int) -> None:
    world = World()
    said: list[tuple[str, Any]] = [
        ("garden/bed/temperature", "21.5"),
        ("garden/bed/humidity", "40"),
        ("homeassistant/sensor/bed/config", {"name": "Bed", "stat_t": "garden/bed/temperature", "uniq_id": "b"}),
    ]
    for topic, payload in said[::order]:
        world.say(topic, payload)
        world.work()
    named = {device["name"]: set(fields(device)) for device in world.devices().values()}
    assert named == {"Bed": {"Bed"}, "garden/bed": {"Humidity"}}
    world.say("homeassistant/sensor/bed/config", b"")
    assert set(fields(world.one())) == {"Humidity", "Temperature"}


# the registry


def test_a_topic_that_nobody_claims_has_nobody_who_is_told() -> None:
    world = World()
    for topic in ("a", "house/1/q7", "$SYS/broker/uptime", "x/config", "a/b/c/d/status", "sensors/a/cmd"):
        world.say(topic, "1")
        state = world.history.topic(topic)
        assert state is not None
        assert state.watch is None
    assert not world.registry.has_work


def test_the_form_of_values_is_looked_at_less_and_less_often() -> None:
    world = World()
    read = 0
    for number in range(1, 1_001):
        world.say("garden/temperature", str(number), retained=False)
        read += world.registry.has_work
        world.work()
    assert read == 10  # 1, 2, 4 … 512


def test_what_is_published_again_is_not_read_again() -> None:
    world = World()
    for _ in range(5):
        world.say("homeassistant/sensor/attic/temp/config", SINGLE)
        world.work()
    assert world.registry.read == {"home_assistant": 1}


def test_who_listens_is_told_of_changes_alone() -> None:
    world = World()
    told: list[str] = []

    def note(device: Device) -> None:
        told.append("gone" if device.is_gone else str(device.presence))

    world.registry.listeners[note] = None
    world.say("homeassistant/sensor/attic/temp/config", SINGLE)
    world.work()
    assert told == ["unknown"]
    world.say("home/attic/lwt", "up")
    world.say("home/attic/state", {"temp": 20}, retained=False)
    world.work()
    world.say("home/attic/lwt", "up")
    world.work()
    assert told == ["unknown", "online"]
    world.now += 700_000
    for _ in world.registry.silences(world.now):
        pass
    assert told == ["unknown", "online", "offline"]
    world.say("homeassistant/sensor/attic/temp/config", b"")
    world.work()
    assert told[-1] == "gone"


def test_devices_that_an_announcement_joined_are_apart_again_without_it() -> None:
    world = World()
    for name in ("a", "b"):
        config = {**SINGLE, "~": name, "uniq_id": name, "dev": {"ids": [name], "name": name}}
        world.say(f"homeassistant/sensor/{name}/t/config", config)
    assert len(world.devices()) == 2
    both = {**SINGLE, "~": "c", "uniq_id": "c", "dev": {"ids": ["a", "b"], "name": "both"}}
    world.say("homeassistant/sensor/c/t/config", both)
    assert len(world.one()["fields"]) == 3
    world.say("homeassistant/sensor/c/t/config", b"")
    assert {device["name"] for device in world.devices().values()} == {"a", "b"}
    assert world.registry.device("b") is not world.registry.device("a")


def test_what_the_log_forgets_is_forgotten() -> None:
    world = World(max_topics=1)
    world.say("homeassistant/sensor/attic/temp/config", SINGLE)
    assert world.one()
    world.say("another", "1")
    assert world.history.topic("homeassistant/sensor/attic/temp/config") is None
    assert world.devices() == {}
    assert world.registry.bytes == 0


def test_devices_are_bounded_and_those_that_were_only_guessed_go_first() -> None:
    world = World(max_devices=10)
    for number in range(30):
        world.say(f"flood/{number}/temperature", "1")
    world.work()
    assert world.registry.count == 10
    assert world.registry.refused == 20
    for number in range(12):
        config = {**SINGLE, "~": f"h/{number}", "uniq_id": str(number), "dev": {"ids": [str(number)]}}
        world.say(f"homeassistant/sensor/{number}/t/config", config)
    world.work()
    assert world.registry.count == 10
    assert all(device.parts[0].habit == "home_assistant" for device in world.registry.devices())


def test_bytes_are_bounded() -> None:
    world = World(max_bytes=200_000)
    for number in range(400):
        dev = {"ids": [str(number)], "name": "n" * 5_000}
        world.say(f"homeassistant/sensor/{number}/t/config", {**SINGLE, "uniq_id": str(number), "dev": dev})
        if number % 50 == 0:
            world.work()
    world.work()
    assert 10 < world.registry.count < 200
    assert world.registry.bytes <= 200_000 + records.BUNDLE_COST * 200
    assert world.registry.refused > 100


def test_one_device_has_so_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "MAX_PARTS", 50)
    world = World()
    for number in range(80):
        world.say(f"homeassistant/sensor/{number}/t/config", {**SINGLE, "~": str(number), "uniq_id": str(number)})
    assert len(world.one()["fields"]) == 50
    assert world.registry.refused == 30


def test_an_announcement_that_is_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "MAX_ANNOUNCEMENT_BYTES", 100)
    world = World()
    world.say("homeassistant/sensor/attic/temp/config", SINGLE)
    assert world.devices() == {}
    [text] = world.registry.problems_of("homeassistant/sensor/attic/temp/config")
    assert "at most 100" in text
    assert world.registry.broken == {"home_assistant": 1}


BROKEN: list[tuple[str, Any, str]] = [
    ("homeassistant/sensor/x/config", [1], "expected an object, got list"),
    ("homeassistant/sensor/x/config", "nonsense", "expected an object, got str"),
    ("homeassistant/sensor/x/config", {"stat_t": "a/#"}, "state_topic: topic"),
    ("homeassistant/sensor/x/config", {"stat_t": 5}, "state_topic: expected the name of a topic, got int"),
    ("homeassistant/device/x/config", {"dev": {}}, "components: expected an object"),
    ("homeassistant/device/x/config", {"cmps": {"a": {"p": "x", "q": 1}}}, "components: a: platform 'x' is not known"),
    ("tasmota/discovery/AABB/config", {"t": "x"}, "tp: expected the three prefixes"),
    ("zigbee2mqtt/bridge/devices", {"a": 1}, "expected a list of objects"),
    ("homie/5/x/$description", 5, "expected an object, got int"),
    ("spBv1.0/g/NBIRTH/n", {"metrics": 5}, "expected an object with metrics"),
    ("sensors/x/meta", {"fields": 5}, "fields: expected an object"),
]


@pytest.mark.parametrize(("topic", "payload", "text"), BROKEN)
def test_a_broken_announcement_is_named(topic: str, payload: Any, text: str) -> None:
    world = World()
    world.say(topic, payload)
    assert world.devices() == {}
    [found] = world.registry.problems_of(topic)
    assert found.startswith(text)
    assert about_topic(world.registry, topic, EVERYBODY) == [(False, f"not all that it announces can be read: {found}")]
    assert sum(world.registry.broken.values()) == 1


NAMES = (
    "stat_t", "name", "dev", "ids", "cmps", "p", "t", "tp", "ft", "rl", "fn", "sn", "definition", "exposes",
    "type", "property", "access", "features", "values", "ieee_address", "friendly_name", "members", "nodes",
    "properties", "datatype", "format", "metrics", "value", "dataType", "fields", "unit", "interval", "cmd_t",
    "ops", "availability", "avty_t", "val_tpl", "~", "state", "mac", "config", "availability", "enabled",
    "value_on", "min", "max", "device", "connections",
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8)
    | st.sampled_from(["{{ value_json.a }}", "%topic%/%prefix%/", "a/b", "~/x", "sensor", "numeric", "enum", "light"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=25,
)  # fmt: skip
TOPICS = (
    "sensors/x/meta", "sensors/x/state", "homeassistant/sensor/x/config", "homeassistant/device/x/config",
    "homeassistant/light/n/x/config", "zigbee2mqtt/bridge/devices", "zigbee2mqtt/bridge/groups",
    "zigbee2mqtt/bridge/info", "tasmota/discovery/AABBCCDDEEFF/config", "tasmota/discovery/AABBCCDDEEFF/sensors",
    "tele/x/SENSOR", "tele/x/STATE", "homie/5/x/$description", "homie/x/$nodes", "homie/x/n/$properties",
    "spBv1.0/g/NBIRTH/n", "spBv1.0/g/DBIRTH/n/d", "shellies/x/announce", "shellies/x/relay/0", "x/status/switch:0",
    "x/status/sys", "esphome/discover/x", "x/sensor/y/state", "x/temperature",
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TOPICS), ANYTHING), min_size=1, max_size=6))
def test_nothing_that_is_announced_raises_and_all_that_is_taken_is_given_back(said: list[tuple[str, Any]]) -> None:
    world = World()
    for topic, payload in said:
        world.say(topic, payload)
        world.work()
    assert not world.registry.broken.get("internal")
    for device in list(world.registry.devices()):
        assert tell(device, EVERYBODY, world.history, NOW) is not None
        finished(values_of(device, EVERYBODY, world.history))
    for topic in {topic for topic, _ in said}:
        assert not [text for text in world.registry.problems_of(topic) if "fault" in text]
        world.say(topic, b"")
    world.work()
    kept = [part.source for device in world.registry.devices() for part in device.parts]
    assert not [source for source in kept if "shellies" not in source and "/sensor/" not in source], kept


# who is told what


def reader(*topics: str) -> Asker:
    return Asker(set(topics).__contains__, lambda _: False)


def test_of_a_device_is_told_what_its_asker_may_read() -> None:
    world = World()
    world.say("zigbee2mqtt/bridge/devices", [LAMP])
    config = {**SINGLE, "dev": {"ids": ["zigbee2mqtt_0x00158d0001a2b3c4"], "name": "Secret", "sa": "Vault"}}
    world.say("homeassistant/sensor/attic/temp/config", config)
    world.say("zigbee2mqtt/bridge/state", {"state": "online"})
    assert world.one(reader("zigbee2mqtt/bridge/devices", "zigbee2mqtt/living/lamp"))["availability"] == "unknown"
    device = world.one(reader("zigbee2mqtt/bridge/devices", "zigbee2mqtt/living/lamp", "zigbee2mqtt/bridge/state"))
    assert (device["name"], device["area"], device["availability"]) == ("living/lamp", "", "online")
    assert device["commands"] == []
    assert {each["topic"] for each in device["fields"]} == {"zigbee2mqtt/living/lamp"}
    # the announcement without a topic, and a topic without the announcement, are nothing
    assert world.devices(reader("zigbee2mqtt/bridge/devices")) == {}
    assert world.devices(reader("zigbee2mqtt/living/lamp", "home/attic/state")) == {}
    topic = "home/attic/state"
    assert about_topic(world.registry, topic, reader(topic)) == []
    [(_, text)] = about_topic(world.registry, topic, reader(topic, "homeassistant/sensor/attic/temp/config"))
    assert "Secret" in text
    assert "living/lamp" not in text


def test_pages_have_every_device_once_and_the_digest_is_that_of_what_devices_are() -> None:
    world = World()
    for number in range(25):
        world.say(f"garden/{number:02}/temperature", "1")
    world.work()

    def page(after: str) -> list[tuple[str, Device]]:
        found: list[tuple[str, Device]] = finished(first_devices(world.registry, EVERYBODY, after, 10))[0]
        return found

    ids: list[str] = []
    while some := page(ids[-1] if ids else ""):
        ids += [identifier for identifier, _ in some]
    assert ids == sorted(f"topic_garden/{number:02}" for number in range(25))
    _, digest = finished(tell_all(page(""), EVERYBODY, world.history, NOW))
    world.now += 5
    world.say("garden/00/temperature", "2")
    _, same = finished(tell_all(page(""), EVERYBODY, world.history, NOW))
    assert digest == same
    world.say("garden/00/humidity", "2")
    world.work()
    _, other = finished(tell_all(page(""), EVERYBODY, world.history, NOW))
    assert digest != other


def finished(work: Any) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def test_values_that_templates_compute_are_computed_in_steps() -> None:
    world = World()
    components = {
        f"c{number}": {"p": "sensor", "unique_id": f"c{number}", "value_template": "{{ value ~ " + f"'{number}' }}}}"}
        for number in range(20)
    }
    world.say("homeassistant/device/d/config", {"dev": {"ids": ["d"]}, "stat_t": "s", "cmps": components})
    world.say("s", 1)
    world.work()
    (device,) = world.registry.devices()
    assert len(list(values_of(device, EVERYBODY, world.history))) == 20


@pytest.mark.anyio
async def test_a_fault_in_looking_for_silent_devices_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world, asked = World(), asyncio.Event()
    count = 0

    def fault(_now_ms: int) -> Iterator[None]:
        nonlocal count
        count += 1
        if count == 2:
            asked.set()
        raise OverflowError("a fault")

    monkeypatch.setattr(feeding, "SILENCE_SECONDS", 0.001)
    monkeypatch.setattr(world.registry, "silences", fault)
    running = asyncio.create_task(feeding.feed(world.registry, lambda: NOW))
    async with asyncio.timeout(10):
        await asked.wait()
    assert not running.done()
    running.cancel()


# small things


@pytest.mark.parametrize("name", ["PM2.5", "pm_2_5", "Pm25", "pm25", "PM2_5"])
def test_a_quantity_has_many_spellings(name: str) -> None:
    found = quantity_of(name)
    assert found is not None
    assert found.device_class == "pm25"


def test_texts_are_cut_and_cleaned() -> None:
    assert text_of("a\x00b\u2028c") == "a b c"
    assert len(text_of("x" * 10**6)) == 200
    assert text_of(None) == text_of(True) == text_of([1]) == ""
    assert label_of("soil_moisture") == "Soil moisture"
    assert label_of("DewPoint") == "Dew point"
    assert mac_key("AA:BB:CC:00:11:22") == mac_key("aabbcc001122") == "mac:aabbcc001122"
    assert mac_key("kitchen") is None


def test_each_habit_has_a_rank() -> None:
    assert {habit.name for habit in HABITS} == records.RANKS.keys()
    assert claim_of("a/" * 200 + "temperature") is None


def measured(topics: Iterable[tuple[str, Any]]) -> tuple[int, int]:
    """What devices take, by their own counting and by Python's."""
    plain, world = World(max_devices=0), World()
    said = list(topics)
    sizes = []
    for each in (plain, world):
        gc.collect()
        tracemalloc.start()
        for topic, payload in said:
            each.say(topic, payload)
        each.work()
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    return world.registry.bytes, sizes[1] - sizes[0]


@pytest.mark.slow
def test_what_devices_take_is_counted() -> None:
    entities = [
        (
            f"homeassistant/sensor/{number}/{entity}/config",
            {
                **SINGLE,
                "~": f"home/{number}",
                "uniq_id": f"u{number}-{entity}",
                "val_tpl": f"{{{{ value_json.v{entity} }}}}",
                "dev": {"ids": [f"d{number}"], "name": f"Device {number}", "mdl": "Model"},
            },
        )
        for number in range(20)
        for entity in range(10)
    ]
    guessed = [(f"garden/{number}/temperature", "1") for number in range(200)]
    network = [{**LAMP, "ieee_address": hex(number), "friendly_name": str(number)} for number in range(60)]
    lamps = [("zigbee2mqtt/bridge/devices", network)]
    for some in (entities, guessed, lamps):
        counted, taken = measured(some)
        assert 0.7 * taken < counted < 2 * taken, (counted, taken, sys.version)


def test_presence_is_an_enum_of_words() -> None:
    assert [str(each) for each in Presence] == ["online", "offline", "sleeping", "unknown"]


def test_an_announcement_that_was_cleared_while_the_gateway_was_away_takes_its_device_along_until_it_comes_again() -> (
    None
):
    world = World()
    topic = "homeassistant/sensor/attic/temp/config"
    world.say(topic, {**SINGLE, "uniq_id": "temp"})
    assert len(world.devices()) == 1
    world.history.subscription += 1  # a new connection, which brings nothing of it
    for names in world.history.unkept():
        world.history.release(names)
    assert world.devices() == {}
    # and it stays away from who restores what was known
    [states] = [part for part in topic_states(world.history) if part]
    later = World()
    for state in states:
        take_back(later.history, state.last)
    restore_counts(later.history, states)
    assert later.devices() == {}
    later.say(topic, {**SINGLE, "uniq_id": "temp"})
    assert len(later.devices()) == 1


@pytest.mark.parametrize(
    ("component", "config", "topic"),
    [
        ("camera", {"t": "cam/door"}, "cam/door"),
        ("image", {"img_t": "cam/door", "cont_type": "image/png"}, "cam/door"),
        ("camera", {"t": "cam/door", "img_e": "b64"}, None),  # a text, which is no picture by its bytes
        ("image", {"url_t": "cam/door"}, None),  # it is on another host
    ],
)
def test_the_picture_of_a_camera_is_a_field_that_has_no_value(
    component: str, config: dict[str, Any], topic: str | None
) -> None:
    world = World()
    world.say(
        f"homeassistant/{component}/door/config", {**config, "uniq_id": "cam", "name": "Door", "dev": {"ids": ["door"]}}
    )
    world.say("cam/door", b"\x89PNG\r\n\x1a\n")
    if topic is None:
        assert world.devices() == {}
        return
    [field] = world.one()["fields"]
    assert (field["kind"], field["topic"], field["path"]) == ("image", topic, None)
    assert world.values() == {"cam": None}

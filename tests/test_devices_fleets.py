"""Fleets of the simulator's dialects: each of their devices is there with its name and its units."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.core.history import History
from gateway.devices.registry import Registry
from gateway.devices.views import Asker, tell, values_of
from sensors_sim.dialects.all import DIALECTS
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Fleet, FleetSpec
from sensors_sim.messages import Message
from tests.fakes import finished

EVERYBODY = Asker(lambda _: True, lambda _: True)
NOW = 1_700_000_000_000
KINDS = ("climate", "plug", "outdoor", "soil", "motion", "air")


def told(history: History, registry: Registry) -> dict[str, dict[str, Any]]:
    for _ in registry.work():
        pass
    found = [tell(device, EVERYBODY, history, NOW) for device in registry.devices()]
    return {each["name"]: each for one in found if one is not None for each in [msgspec.json.decode(one.whole)]}


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"senml"}))
@pytest.mark.parametrize("announced", ["first", "last", "never"])
def test_every_device_of_a_simulated_fleet_is_there_with_names_units_and_values(dialect: str, announced: str) -> None:
    specs = tuple(DeviceSpec(f"{kind}-1", kind, f"The {kind}", place="hall") for kind in KINDS)
    fleet = Fleet(FleetSpec(specs), 7, SEEDED_START, dialect=dialect)
    speaks = DIALECTS[dialect]
    births = [*speaks.fleet_birth(fleet.devices.values())]
    births += [message for device in fleet.devices.values() for message in device.dialect.birth(device)]
    readings: list[Message] = []
    for event in fleet.take(SEEDED_START + 400):
        if isinstance(event.what, Message):
            is_reading = not event.what.retain or "/sensor/" in event.what.topic or "/readings/" in event.what.topic
            (readings if is_reading else births).append(event.what)
    status = [message for message in births if len(message.payload) < 40]
    if announced == "never":
        if dialect in ("zigbee2mqtt", "homie"):
            pytest.skip("without its announcements nobody knows what it is")
        births = status
    history = History()
    registry = Registry(history)
    for message in births + readings if announced == "first" else readings + births:
        history.append(message.topic, message.payload, NOW, message.qos, message.retain)
    devices = told(history, registry)
    assert len(devices) == len(fleet.devices), sorted(devices)
    for device in fleet.devices.values():
        # some name no device but by its id
        names = device.id if dialect in ("shelly", "zigbee2mqtt") or announced == "never" else device.name
        one = devices[names]
        assert one["availability"] in ("online", "sleeping")
        assert one["seen"] == NOW
        measured = [field for field in one["fields"] if field["device_class"] == "temperature"]
        if device.kind_name in ("climate", "outdoor"):
            assert measured
        for field in one["fields"]:
            if field["kind"] == "number" and (announced != "never" or dialect in ("tasmota", "shelly")):
                # what Shelly has no component for has none of its units either
                is_plain = "factor" in field["name"] or field["name"] in PLAIN or field["id"].startswith("number:")
                assert field["unit"] or is_plain, (dialect, field)
    for found in registry.devices():
        values = finished(values_of(found, EVERYBODY, history))
        missing = [value["id"] for value in values if value["value"] is None]
        assert not [each for each in missing if each not in SILENT], missing


PLAIN = ("Occupancy", "Factor", "Motion", "Tvoc")
"""Numbers without a unit, and one for which Tasmota has no chip."""

SILENT = ("POWER", "Wifi.Signal")
"""Fields that are told when they change."""

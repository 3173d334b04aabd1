"""How Zigbee2MQTT speaks."""

# ruff: noqa: ARG002, D102  the base describes the methods

from collections.abc import Iterable, Mapping
from typing import ClassVar

from sensors_sim import payloads
from sensors_sim.dialects.base import Dialect, Speaker, as_float, json_bytes, label, mac, tidy, whole
from sensors_sim.kind import Readings
from sensors_sim.messages import Message


class Zigbee2Mqtt(Dialect):
    """Zigbee2MQTT with ``zigbee2mqtt`` as base topic.

    ``zigbee2mqtt/<id>`` with one object, ``zigbee2mqtt/<id>/availability`` and ``zigbee2mqtt/bridge/state`` with
    ``{"state": …}``, retained, and the retained list ``zigbee2mqtt/bridge/devices``. Voltage of a battery is in mV.

    Source: Zigbee2MQTT documentation, "MQTT Topics and Messages", "Device-Availability", and pages of devices
    (WSDCGQ11LM: battery, temperature, humidity, pressure, voltage, linkquality).
    """

    name = "zigbee2mqtt"

    _NAMES: ClassVar[dict[str, str]] = {
        "moisture": "soil_moisture",
        "tvoc": "voc",
        "frequency": "ac_frequency",
    }

    def topics(self, device: Speaker) -> list[str]:
        return [f"zigbee2mqtt/{device.id}", f"zigbee2mqtt/{device.id}/availability"]

    def will(self, device: Speaker) -> Message | None:
        return Message(f"zigbee2mqtt/{device.id}/availability", b'{"state":"offline"}', 1, True)

    def birth(self, device: Speaker) -> list[Message]:
        return [Message(f"zigbee2mqtt/{device.id}/availability", b'{"state":"online"}', 1, True)]

    def readings(self, device: Speaker, readings: Readings, ts_ms: int) -> list[Message]:
        state: dict[str, object] = {}
        runs_on_battery = "battery" in readings
        for name, value in readings.items():
            if name == "rssi":
                continue
            if name == "voltage" and runs_on_battery:
                state["voltage"] = round(as_float(value) * 1000)
            elif name == "occupancy":
                continue
            elif name == "motion":
                state["occupancy"] = bool(value)
            else:
                state[self._NAMES.get(name, name)] = tidy(name, value)
        state["linkquality"] = min(255, max(0, round((whole(readings.get("rssi"), -65) + 100) * 3.6)))
        return [Message(f"zigbee2mqtt/{device.id}", json_bytes(state))]

    def fleet_topics(self) -> list[str]:
        return ["zigbee2mqtt/bridge/#"]

    def fleet_birth(self, devices: Iterable[Speaker]) -> list[Message]:
        known: list[object] = [
            {
                "ieee_address": "0x00124b0012014400",
                "type": "Coordinator",
                "network_address": 0,
                "supported": False,
                "friendly_name": "Coordinator",
                "endpoints": {},
                "definition": None,
                "power_source": None,
                "date_code": None,
                "model_id": None,
                "scenes": [],
                "interviewing": False,
                "interview_completed": True,
            }
        ]
        for number, device in enumerate(devices, 1):
            known.append(
                {
                    "ieee_address": "0x00158d00" + mac(device.id)[4:],
                    "type": "EndDevice" if device.runs_on_battery else "Router",
                    "network_address": number,
                    "supported": True,
                    "friendly_name": device.id,
                    "endpoints": {"1": {"bindings": [], "configured_reportings": [], "clusters": {}}},
                    "definition": {
                        "model": device.model,
                        "vendor": "Simulated",
                        "description": device.name,
                        "options": [],
                        "exposes": [self._exposed(field, meta or {}) for field, meta in device.fields.items()],
                    },
                    "power_source": "Battery" if "battery" in device.fields else "Mains (single phase)",
                    "date_code": "",
                    "model_id": device.kind_name,
                    "scenes": [],
                    "interviewing": False,
                    "interview_completed": True,
                }
            )
        return [
            Message("zigbee2mqtt/bridge/state", b'{"state":"online"}', 1, True),
            Message("zigbee2mqtt/bridge/devices", json_bytes(known), 1, True),
        ]

    def fleet_death(self) -> list[Message]:
        return [Message("zigbee2mqtt/bridge/state", b'{"state":"offline"}', 1, True)]

    def _exposed(self, field: str, differences: Mapping[str, object]) -> dict[str, object]:
        meta = payloads.field_meta(field, dict(differences))
        name = {"rssi": "linkquality", "motion": "occupancy"}.get(field, self._NAMES.get(field, field))
        # access 1: published in the state
        exposed: dict[str, object] = {"access": 1, "name": name, "property": name, "label": label(name)}
        if field == "motion":
            return exposed | {"type": "binary", "value_on": True, "value_off": False}
        exposed["type"] = "numeric"
        if field == "rssi":
            return exposed | {"unit": "lqi", "value_min": 0, "value_max": 255}
        if "unit" in meta:
            exposed["unit"] = meta["unit"]
        return exposed

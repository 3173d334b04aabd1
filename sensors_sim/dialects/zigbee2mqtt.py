"""How Zigbee2MQTT speaks."""

# ruff: noqa: ARG002, D102  the base describes the methods

from collections.abc import Iterable, Mapping
from typing import ClassVar

from sensors_sim import payloads
from sensors_sim.dialects.base import Dialect, Speaker, as_float, json_bytes, label, mac, tidy, whole
from sensors_sim.kind import Readings
from sensors_sim.messages import Message

_CLUSTERS = {
    "battery": "genPowerCfg",
    "temperature": "msTemperatureMeasurement",
    "humidity": "msRelativeHumidity",
    "pressure": "msPressureMeasurement",
    "illuminance": "msIlluminanceMeasurement",
    "moisture": "msSoilMoisture",
    "motion": "msOccupancySensing",
    "co2": "msCO2",
    "pm25": "pm25Measurement",
    "power": "haElectricalMeasurement",
    "energy": "seMetering",
}
"""Field to the cluster of the Zigbee Cluster Library that measures it."""


class Zigbee2Mqtt(Dialect):
    """Zigbee2MQTT with ``zigbee2mqtt`` as base topic.

    ``zigbee2mqtt/<id>`` with one object, ``zigbee2mqtt/<id>/availability`` and ``zigbee2mqtt/bridge/state`` with
    ``{"state": …}``, retained, and retained ``devices``, ``info`` and ``groups`` of the bridge. Voltage of a battery
    is in mV.

    Source: Zigbee2MQTT documentation, "MQTT Topics and Messages", "Device-Availability", and pages of devices
    (WSDCGQ11LM: battery, temperature, humidity, pressure, voltage, linkquality); types of its API in version 2.
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
        coordinator = self._device("Coordinator", "0x00124b0012014400", 0) | {"definition": None, "supported": False}
        known = [coordinator]
        for number, device in enumerate(devices, 1):
            role = "EndDevice" if device.runs_on_battery else "Router"
            endpoint = {
                "bindings": [],
                "configured_reportings": [],
                "clusters": {
                    "input": ["genBasic", *(name for field, name in _CLUSTERS.items() if field in device.fields)],
                    "output": ["genOta"],
                },
                "scenes": [],
            }
            known.append(
                self._device(role, "0x00158d00" + mac(device.id)[4:], number)
                | {
                    "friendly_name": device.id,
                    "endpoints": {"1": endpoint},
                    "definition": {
                        "source": "native",
                        "model": device.model,
                        "vendor": "Simulated",
                        "description": device.name,
                        "supports_ota": False,
                        "options": [],
                        "exposes": [self._exposed(field, meta or {}) for field, meta in device.fields.items()],
                    },
                    "manufacturer": "Simulated",
                    "power_source": "Battery" if "battery" in device.fields else "Mains (single phase)",
                    "date_code": "",
                    "model_id": device.kind_name,
                }
            )
        return [
            Message("zigbee2mqtt/bridge/state", b'{"state":"online"}', 1, True),
            Message("zigbee2mqtt/bridge/info", json_bytes(self._info(known)), 1, True),
            Message("zigbee2mqtt/bridge/devices", json_bytes(known), 1, True),
            Message("zigbee2mqtt/bridge/groups", b"[]", 1, True),
        ]

    @staticmethod
    def _device(role: str, address: str, number: int) -> dict[str, object]:
        """What every device of the network says, the coordinator included."""
        return {
            "ieee_address": address,
            "type": role,
            "network_address": number,
            "supported": True,
            "disabled": False,
            "friendly_name": role,
            "endpoints": {},
            "definition": None,
            "manufacturer": None,
            "power_source": None,
            "software_build_id": None,
            "date_code": None,
            "model_id": None,
            "interviewing": False,
            "interview_completed": True,
            "interview_state": "SUCCESSFUL",
        }

    @staticmethod
    def _info(known: list[dict[str, object]]) -> dict[str, object]:
        channel, pan_id, extended = 11, 6754, [0xDD] * 8
        names = {str(device["ieee_address"]): {"friendly_name": device["friendly_name"]} for device in known[1:]}
        return {
            "version": "2.1.0",
            "commit": "simulated",
            "zigbee_herdsman_converters": {"version": "21.0.0"},
            "zigbee_herdsman": {"version": "3.2.0"},
            "coordinator": {"ieee_address": known[0]["ieee_address"], "type": "Simulated", "meta": {"revision": 1}},
            "network": {"channel": channel, "pan_id": pan_id, "extended_pan_id": "0x" + bytes(extended).hex()},
            "log_level": "info",
            "permit_join": False,
            "restart_required": False,
            "config": {
                "advanced": {
                    "channel": channel,
                    "ext_pan_id": extended,
                    "pan_id": pan_id,
                    "last_seen": "disable",
                    "elapsed": False,
                    "output": "json",
                },
                "availability": {"enabled": True},
                "devices": names,
                "groups": {},
                "homeassistant": {"enabled": False},
                "mqtt": {"base_topic": "zigbee2mqtt"},
            },
            "config_schema": {},
        }

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

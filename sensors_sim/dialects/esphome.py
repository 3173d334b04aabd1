"""How ESPHome speaks."""

# ruff: noqa: ARG002, D102  the base describes the methods

from sensors_sim import payloads
from sensors_sim.dialects.base import Dialect, Speaker, json_bytes, label, mac, plain
from sensors_sim.kind import Readings
from sensors_sim.messages import Message


class EspHome(Dialect):
    """ESPHome's MQTT component with its defaults: the node's name as prefix.

    ``<id>/status`` online or offline, retained; ``<id>/sensor/<name>/state`` with the bare number, QoS 0, retained;
    discovery messages for Home Assistant, retained, with abbreviations. Unique ids are those of its generator ``mac``
    (address, component, FNV-1 hash of the name), for those of ``legacy`` differ only inside one device.

    Source: ESPHome documentation, "MQTT Client Component".
    """

    name = "esphome"

    def topics(self, device: Speaker) -> list[str]:
        return [f"{device.id}/#", f"homeassistant/+/{device.id}/+/config"]

    def will(self, device: Speaker) -> Message | None:
        return Message(f"{device.id}/status", b"offline", 0, True)

    def birth(self, device: Speaker) -> list[Message]:
        messages = [Message(f"{device.id}/status", b"online", 0, True)]
        address = mac(device.id)
        about = {
            "ids": address,
            "name": device.name,
            "sw": "sensors-sim",
            "mdl": device.model,
            "mf": "Simulated",
            "cns": [["mac", address]],
        }
        for field, differences in device.fields.items():
            component, name = self._component(field), self._object_id(field)
            meta = payloads.field_meta(field, dict(differences or {}))
            config: dict[str, object] = {}
            if "device_class" in meta and component == "sensor":
                config["dev_cla"] = meta["device_class"]
            if component == "binary_sensor":
                config["dev_cla"] = "motion"
            else:
                if "unit" in meta:
                    config["unit_of_meas"] = meta["unit"]
                config["stat_cla"] = "total_increasing" if field == "energy" else "measurement"
            config |= {
                "name": label(name),
                "stat_t": f"{device.id}/{component}/{name}/state",
                "avty_t": f"{device.id}/status",
                "uniq_id": f"{address}-{component}-{_fnv1(label(name)):08x}",
                "dev": about,
            }
            topic = f"homeassistant/{component}/{device.id}/{name}/config"
            messages.append(Message(topic, json_bytes(config), 0, True))
        return messages

    def readings(self, device: Speaker, readings: Readings, ts_ms: int) -> list[Message]:
        messages = []
        for name, value in readings.items():
            if name == "motion":
                payload = b"ON" if value else b"OFF"
            else:
                payload = plain(name, value)
            topic = f"{device.id}/{self._component(name)}/{self._object_id(name)}/state"
            messages.append(Message(topic, payload, 0, True))
        return messages

    @staticmethod
    def _component(field: str) -> str:
        return "binary_sensor" if field == "motion" else "sensor"

    @staticmethod
    def _object_id(field: str) -> str:
        return {"rssi": "wifi_signal", "pm25": "pm_2_5"}.get(field, field)


def _fnv1(text: str) -> int:
    """The 32-bit hash of Fowler, Noll and Vo, first variant."""
    value = 2_166_136_261
    for byte in text.encode():
        value = value * 16_777_619 & 0xFFFF_FFFF ^ byte
    return value

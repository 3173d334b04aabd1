"""How Homie 5 speaks."""

# ruff: noqa: ARG002, D102  the base describes the methods

import hashlib

from sensors_sim import payloads
from sensors_sim.dialects.base import Dialect, Speaker, json_bytes, label, plain
from sensors_sim.kind import Readings
from sensors_sim.messages import Message


class Homie(Dialect):
    """Homie 5: every property a retained topic, the device described in ``$description``.

    ``homie/5/<id>/$state`` init, ready, sleeping, disconnected or, by will, lost. Ids have no underscore.

    Source: The Homie Convention, version 5, sections on topic ids, device attributes, life cycle, properties and units.
    """

    name = "homie"
    knows_sleep = True
    NODE = "readings"

    def topics(self, device: Speaker) -> list[str]:
        return [f"{self._base(device)}/#"]

    def will(self, device: Speaker) -> Message | None:
        return Message(f"{self._base(device)}/$state", b"lost", 1, True)

    def birth(self, device: Speaker) -> list[Message]:
        properties: dict[str, object] = {}
        for field, differences in device.fields.items():
            meta = payloads.field_meta(field, dict(differences or {}))
            known: dict[str, object] = {"name": label(field), "datatype": self._datatype(field)}
            if field != "motion":
                if "min" in meta and "max" in meta:
                    known["format"] = f"{meta['min']}:{meta['max']}"
                if "unit" in meta:
                    known["unit"] = "#" if meta["unit"] == "persons" else meta["unit"]
            properties[_homie_id(field)] = known
        description: dict[str, object] = {
            "homie": "5.0",
            "version": 1,
            "name": device.name,
            "nodes": {self.NODE: {"name": "Readings", "properties": properties}},
        }
        # A new version whenever it changes; the text itself tells that.
        description["version"] = int(hashlib.sha256(json_bytes(description)).hexdigest()[:8], 16)
        base = self._base(device)
        return [
            Message(f"{base}/$state", b"init", 1, True),
            Message(f"{base}/$description", json_bytes(description), 1, True),
            Message(f"{base}/$state", b"ready", 1, True),
        ]

    def readings(self, device: Speaker, readings: Readings, ts_ms: int) -> list[Message]:
        base = f"{self._base(device)}/{self.NODE}"
        messages = []
        for name, value in readings.items():
            payload = (b"true" if value else b"false") if name == "motion" else plain(name, value)
            messages.append(Message(f"{base}/{_homie_id(name)}", payload, 1, True))
        return messages

    def sleep(self, device: Speaker) -> list[Message]:
        return [Message(f"{self._base(device)}/$state", b"sleeping", 1, True)]

    def death(self, device: Speaker) -> list[Message]:
        return [Message(f"{self._base(device)}/$state", b"disconnected", 1, True)]

    @staticmethod
    def _base(device: Speaker) -> str:
        return f"homie/5/{_homie_id(device.id)}"

    @staticmethod
    def _datatype(field: str) -> str:
        if field == "motion":
            return "boolean"
        return "integer" if field in payloads.FIELDS and payloads.FIELDS[field][4] == 0 else "float"


def _homie_id(text: str) -> str:
    return text.replace("_", "-")

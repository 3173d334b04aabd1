"""Sensor Measurement Lists."""

# ruff: noqa: D102  the base describes the methods

import math
from typing import ClassVar

from sensors_sim import payloads
from sensors_sim.dialects.base import Dialect, Speaker, as_float, json_bytes, mac, tidy
from sensors_sim.kind import Readings
from sensors_sim.messages import Message


class SenML(Dialect):
    """Sensor Measurement Lists as JSON on ``senml/<id>``; ``senml/<id>/status`` is that of the native dialect.

    A pack begins with a record that has the base name ``urn:dev:mac:…:`` and the base time in seconds; names are the
    fields, units those of the SenML registry, into which values are converted where it has no unit of ours. MQTT topics
    are not part of the standard.

    Source: RFC 8428, sections 4.1, 4.3, 5 and 12.1; secondary units of RFC 8798; names of devices of RFC 9039.
    """

    name = "senml"
    knows_sleep = True

    UNITS: ClassVar[dict[str, tuple[str, float]]] = {
        "°C": ("Cel", 1),
        "hPa": ("hPa", 1),
        "ppm": ("ppm", 1),
        "lx": ("lx", 1),
        "dB": ("dB", 1),
        "V": ("V", 1),
        "A": ("A", 1),
        "W": ("W", 1),
        "kWh": ("kWh", 1),
        "Hz": ("Hz", 1),
        "dBm": ("dBm", 1),
        "m": ("m", 1),
        "mm": ("mm", 1),
        "km/h": ("km/h", 1),
        "µg/m³": ("ug/m3", 1),
        "mm/s": ("m/s", 0.001),
        "g": ("m/s2", 9.80665),
        "rpm": ("1/min", 1),
        "persons": ("count", 1),
        "mV": ("mV", 1),
        "L/min": ("l/s", 1 / 60),
    }
    """Our unit to the registry's, and by what to multiply."""

    BY_FIELD: ClassVar[dict[str, tuple[str, float]]] = {
        "humidity": ("%RH", 1),
        "battery": ("%EL", 1),
        "moisture": ("/100", 1),
        "latitude": ("lat", 1),
        "longitude": ("lon", 1),
        "heading": ("rad", math.pi / 180),
        "tvoc": ("ppm", 0.001),
        "power_factor": ("/", 1),
    }

    def topics(self, device: Speaker) -> list[str]:
        return [f"senml/{device.id}", f"senml/{device.id}/status"]

    def will(self, device: Speaker) -> Message | None:
        return self._status(device, payloads.OFFLINE)

    def birth(self, device: Speaker) -> list[Message]:
        return [self._status(device, payloads.ONLINE)]

    def sleep(self, device: Speaker) -> list[Message]:
        return [self._status(device, payloads.SLEEPING)]

    @staticmethod
    def _status(device: Speaker, status: str) -> Message:
        return Message(f"senml/{device.id}/status", status.encode(), 1, True)

    def readings(self, device: Speaker, readings: Readings, ts_ms: int) -> list[Message]:
        pack: list[dict[str, object]] = []
        for name, value in readings.items():
            record: dict[str, object] = {"n": name}
            if name == "motion":
                record["vb"] = bool(value)
            elif isinstance(value, bool):
                record["vb"] = value
            elif isinstance(value, (int, float)):
                unit, factor = self._unit(name, device)
                if unit:
                    record["u"] = unit
                record["v"] = tidy(name, value) if factor == 1 else float(f"{as_float(value) * factor:.6g}")
            else:
                record["vs"] = str(value)
            pack.append(record)
        if pack:
            pack[0] = {"bn": f"urn:dev:mac:{_eui64(device.id)}:", "bt": ts_ms / 1000, **pack[0]}
        return [Message(f"senml/{device.id}", json_bytes(pack), 1)]

    def _unit(self, field: str, device: Speaker) -> tuple[str, float]:
        if field in self.BY_FIELD:
            return self.BY_FIELD[field]
        meta = payloads.field_meta(field, dict(device.fields.get(field) or {}))
        return self.UNITS.get(str(meta.get("unit")), ("", 1))


def _eui64(device_id: str) -> str:
    address = mac(device_id)
    return f"{address[:6]}fffe{address[6:]}"

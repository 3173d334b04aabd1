"""Tasmota: `tasmota/discovery/<mac>/…`, and without it what `tele/<topic>/SENSOR` and `STATE` say.

After Tasmota's documentation, pages MQTT, Commands and Discovery (the form for Home Assistant since version 9).

Invariant: the topics of a device are those that its own discovery spells out (full topic and prefixes).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.core.paths import Path
from gateway.devices.model import (
    AnnouncementError,
    Availability,
    Command,
    CommandKind,
    Field,
    FieldKind,
    Known,
    Part,
    Problem,
    StateTopic,
    label_of,
    states_of,
    text_of,
    topic_of,
)
from gateway.devices.quantities import quantity_of

__all__ = ["NAME", "claim", "owner", "read"]

NAME = "tasmota"

MAX_FIELDS = 200
MAX_RELAYS = 32

UNITS = {
    "Total": "kWh", "Today": "kWh", "Yesterday": "kWh", "Period": "Wh", "Power": "W", "Voltage": "V", "Current": "A",
    "ApparentPower": "VA", "ReactivePower": "var", "Frequency": "Hz", "SeaPressure": "hPa", "Distance": "cm",
}  # fmt: skip
CLASSES = {"Total": "energy", "Today": "energy", "Yesterday": "energy", "Period": "energy"}
BOOKKEEPING = frozenset({"Time", "TempUnit", "PressureUnit", "SpeedUnit", "TotalStartTime", "Id", "ver"})
ENDS = frozenset({"SENSOR", "STATE", "LWT"})
PROCESSOR = "ESP32"
"""The chip on which Tasmota itself runs: its temperature is no measurement."""


def claim(levels: list[str]) -> tuple[str, bool] | None:
    """The device that a topic belongs to, and whether only the form of its messages matters."""
    if len(levels) == 4 and levels[:2] == ["tasmota", "discovery"] and levels[3] in ("config", "sensors"):
        return f"tasmota/discovery/{levels[2]}", False
    if len(levels) >= 3 and levels[-1] in ENDS and "tele" in (levels[0], levels[-2]):
        return "/".join(levels[:-1]), levels[-1] != "LWT"
    return None


def owner(levels: list[str]) -> str | None:
    """The key of the device whose topic it is."""
    if len(levels) >= 3 and "tele" in (levels[0], levels[-2]):
        return f"tasmota_{_base_name(levels[:-1])}"
    return None


def _base_name(levels: list[str]) -> str:
    return "/".join(level for level in levels if level not in ("tele", "stat", "cmnd"))


def read(key: str, known: Known) -> Iterator[Part | Problem | None]:
    """The device of a discovery, or of a telemetry topic without one."""
    if key.startswith("tasmota/discovery/"):
        yield from _announced(key, known)
    else:
        yield from _bare(key, known)


def _bare(base: str, known: Known) -> Iterator[Part]:
    name = _base_name(base.split("/"))
    sensor, state = known.value(f"{base}/SENSOR"), known.value(f"{base}/STATE")
    if not isinstance(sensor, dict) and not isinstance(state, dict):
        return
    fields = _fields(f"{base}/SENSOR", sensor) + _signal(f"{base}/STATE", state)
    yield Part(
        NAME,
        f"{base}/SENSOR" if isinstance(sensor, dict) else f"{base}/STATE",
        (f"tasmota_{name}",),
        name=text_of(name),
        manufacturer="Tasmota",
        fields=tuple(fields),
        availability=_availability(f"{base}/LWT", "Online", "Offline"),
    )


def _availability(topic: str, online: str, offline: str) -> Availability:
    return Availability((StateTopic(topic, states_of(online, offline)),))


def _announced(key: str, known: Known) -> Iterator[Part]:
    config = known.value(f"{key}/config")
    if config is None:
        return
    if not isinstance(config, dict):
        raise AnnouncementError(f"expected an object, got {type(config).__name__}")
    topic = topic_of(config.get("t"), "t")
    prefixes = config.get("tp")
    if not isinstance(prefixes, list) or len(prefixes) < 3 or not all(isinstance(each, str) for each in prefixes):
        raise AnnouncementError("tp: expected the three prefixes")
    full = config.get("ft")
    if not isinstance(full, str) or "%topic%" not in full:
        raise AnnouncementError("ft: expected a full topic with %topic%")
    command, stat, tele = (
        topic_of(full.replace("%topic%", topic).replace("%prefix%", prefix).rstrip("/"), "ft")
        for prefix in prefixes[:3]
    )
    sensors = known.value(f"{key}/sensors")
    sensor = sensors.get("sn") if isinstance(sensors, dict) else None
    if not isinstance(sensor, dict):
        sensor = known.value(f"{tele}/SENSOR")
    mac = text_of(config.get("mac")).lower()
    fields = _fields(f"{tele}/SENSOR", sensor) + _signal(f"{tele}/STATE", {"Wifi": {"Signal": 0}})
    commands: list[Command] = []
    kind = ""
    states = config.get("state")
    words = [text_of(word) for word in states] if isinstance(states, list) else []
    off, on = (words[0] or "OFF", words[1] or "ON") if len(words) >= 2 else ("OFF", "ON")
    relays = config.get("rl")
    kinds = (
        [int(each) if isinstance(each, int) else 0 for each in relays[:MAX_RELAYS]] if isinstance(relays, list) else []
    )
    names = config.get("fn")
    used = [number for number, relay in enumerate(kinds, start=1) if relay in (1, 2)]
    for number in used:
        is_light = kinds[number - 1] == 2
        kind = "light" if is_light else kind or "switch"
        word = "POWER" if len(used) == 1 else f"POWER{number}"
        label = text_of(names[number - 1]) if isinstance(names, list) and number <= len(names) else ""
        label = label or ("Light" if is_light else "Switch")
        fields.append(Field(word, label, f"{stat}/{word}", (), kind=FieldKind.STATE))
        payloads = (("on", on), ("off", off))
        commands.append(Command(word, label, CommandKind.SWITCH, f"{command}/{word}", payloads, field=word))
        if is_light and isinstance(config.get("lt_st"), int) and config["lt_st"] > 0 and number == used[-1]:
            dimmer = f"{command}/Dimmer"
            commands.append(Command("Dimmer", "Dimmer", CommandKind.NUMBER, dimmer, least=0, most=100, unit="%"))
    if any(relay == 3 for relay in kinds):
        kind = kind or "cover"
        for word in ("open", "close", "stop"):
            shutter = f"{command}/Shutter{word.title()}1"
            commands.append(Command(f"shutter_{word}", word.title(), CommandKind.BUTTON, shutter, (("press", ""),)))
    yield Part(
        NAME,
        f"{key}/config",
        (*((f"mac:{mac}",) if len(mac) == 12 else ()), f"tasmota_{_base_name(tele.split('/'))}"),
        name=text_of(config.get("dn")) or text_of(config.get("hn")) or topic,
        model=text_of(config.get("md")),
        manufacturer="Tasmota",
        version=text_of(config.get("sw")),
        kind=kind,
        fields=tuple(fields),
        commands=tuple(commands),
        availability=_availability(
            f"{tele}/LWT", text_of(config.get("onln")) or "Online", text_of(config.get("ofln")) or "Offline"
        ),
    )


def _signal(topic: str, state: Any) -> list[Field]:
    wifi = state.get("Wifi") if isinstance(state, dict) else None
    if not isinstance(wifi, dict) or "Signal" not in wifi:
        return []
    field = Field("Wifi.Signal", "Signal", topic, ("Wifi", "Signal"), "dBm", "signal_strength", is_diagnostic=True)
    return [field]


def _fields(topic: str, sensor: Any) -> list[Field]:
    """A field for each number of a telemetry: chips as objects of their own, with the units beside them."""
    if not isinstance(sensor, dict):
        return []
    degree, pressure = text_of(sensor.get("TempUnit"), 5) or "C", text_of(sensor.get("PressureUnit"), 8) or "hPa"
    fields: list[Field] = []
    counts: dict[str, int] = {}
    chips = [(name, value) for name, value in sensor.items() if isinstance(value, dict)]
    for chip, value in chips:
        for name in value if chip != PROCESSOR else ():
            counts[name] = counts.get(name, 0) + 1
    for chip, value in [("", sensor), *chips]:
        for name, number in value.items():
            many = isinstance(number, list) and 0 < len(number) <= 8 and all(_is_number(each) for each in number)
            if name in BOOKKEEPING or not (_is_number(number) or many) or len(fields) >= MAX_FIELDS:
                continue
            for index in range(len(number)) if many else (None,):
                path: Path = (chip, name) if chip else (name,)
                label = label_of(name)
                if chip == PROCESSOR or (chip and counts[name] > 1):
                    label = f"{text_of(chip, 40)} {label}"
                if index is not None:
                    path, label = (*path, index), f"{label} {index + 1}"
                known = quantity_of(name)
                unit = UNITS.get(name) or (known.unit if known else "")
                device_class = CLASSES.get(name) or (known.device_class if known else "")
                if device_class == "temperature":
                    unit = f"°{degree}"
                elif device_class == "atmospheric_pressure":
                    unit = pressure
                text = ".".join(map(str, path))
                is_own = chip == PROCESSOR
                fields.append(Field(text_of(text), label, topic, path, unit, device_class, is_diagnostic=is_own))
    return fields


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

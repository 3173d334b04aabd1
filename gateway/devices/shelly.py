"""Shelly: `shellies/<id>/…` of the first generation, `<id>/status/<component>` of the second and later.

After Shelly's API documentation, generation 1 (MQTT, of each device) and generation 2 (Mqtt, of each component).

Invariant: which components a device has is seen by its messages; each has the units of that documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gateway.core.paths import Path
from gateway.devices.model import (
    Availability,
    Command,
    CommandKind,
    Field,
    FieldKind,
    Known,
    Part,
    Presence,
    Problem,
    StateTopic,
    label_of,
    mac_key,
    text_of,
)
from gateway.devices.quantities import quantity_of

__all__ = ["NAME", "claim", "owner", "read"]

NAME = "shelly"

STATES = (("true", Presence.ONLINE), ("false", Presence.OFFLINE))
MOVES = (("open", "open"), ("close", "close"), ("stop", "stop"))
MAX_FIELDS = 200
OF_ITSELF = "Device temperature"
"""That of the relay in its box: no measurement."""

_COMPONENT = re.compile(r"([a-z0-9_]+):(\d{1,4})")
_MODEL = re.compile(r"-([0-9a-fA-F]{6}|[0-9a-fA-F]{12})$")

SECOND: dict[str, tuple[tuple[Path, str, str, str, FieldKind], ...]] = {
    "switch": (
        (("output",), "Switch", "", "", FieldKind.STATE),
        (("apower",), "Power", "W", "power", FieldKind.NUMBER),
        (("voltage",), "Voltage", "V", "voltage", FieldKind.NUMBER),
        (("current",), "Current", "A", "current", FieldKind.NUMBER),
        (("freq",), "Frequency", "Hz", "frequency", FieldKind.NUMBER),
        (("pf",), "Power factor", "", "power_factor", FieldKind.NUMBER),
        (("aenergy", "total"), "Energy", "Wh", "energy", FieldKind.NUMBER),
        (("temperature", "tC"), OF_ITSELF, "°C", "temperature", FieldKind.NUMBER),
    ),
    "temperature": ((("tC",), "Temperature", "°C", "temperature", FieldKind.NUMBER),),
    "humidity": ((("rh",), "Humidity", "%", "humidity", FieldKind.NUMBER),),
    "illuminance": ((("lux",), "Illuminance", "lx", "illuminance", FieldKind.NUMBER),),
    "devicepower": (
        (("battery", "percent"), "Battery", "%", "battery", FieldKind.NUMBER),
        (("battery", "V"), "Battery voltage", "V", "voltage", FieldKind.NUMBER),
    ),
    "voltmeter": ((("voltage",), "Voltage", "V", "voltage", FieldKind.NUMBER),),
    "light": (
        (("output",), "Light", "", "", FieldKind.STATE),
        (("brightness",), "Brightness", "%", "", FieldKind.NUMBER),
        (("apower",), "Power", "W", "power", FieldKind.NUMBER),
        (("aenergy", "total"), "Energy", "Wh", "energy", FieldKind.NUMBER),
    ),
    "cover": (
        (("state",), "Cover", "", "", FieldKind.TEXT),
        (("current_pos",), "Position", "%", "", FieldKind.NUMBER),
        (("apower",), "Power", "W", "power", FieldKind.NUMBER),
        (("aenergy", "total"), "Energy", "Wh", "energy", FieldKind.NUMBER),
    ),
    "input": (
        (("state",), "Input", "", "", FieldKind.STATE),
        (("percent",), "Input", "%", "", FieldKind.NUMBER),
    ),
    "smoke": ((("alarm",), "Smoke", "", "smoke", FieldKind.STATE),),
    "flood": ((("alarm",), "Flood", "", "moisture", FieldKind.STATE),),
    "presence": ((("state",), "Presence", "", "occupancy", FieldKind.STATE),),
    "number": ((("value",), "Number", "", "", FieldKind.NUMBER),),
    "boolean": ((("value",), "Boolean", "", "", FieldKind.STATE),),
    "text": ((("value",), "Text", "", "", FieldKind.TEXT),),
    "em": (
        *(
            ((f"{phase}_{name}",), f"{label} {phase.upper()}", unit, device_class, FieldKind.NUMBER)
            for phase in "abc"
            for name, label, unit, device_class in (
                ("voltage", "Voltage", "V", "voltage"),
                ("current", "Current", "A", "current"),
                ("act_power", "Power", "W", "power"),
            )
        ),
        (("total_act_power",), "Power", "W", "power", FieldKind.NUMBER),
    ),
    "em1": (
        (("act_power",), "Power", "W", "power", FieldKind.NUMBER),
        (("voltage",), "Voltage", "V", "voltage", FieldKind.NUMBER),
        (("current",), "Current", "A", "current", FieldKind.NUMBER),
    ),
    "emdata": ((("total_act",), "Energy", "Wh", "energy", FieldKind.NUMBER),),
    "em1data": ((("total_act_energy",), "Energy", "Wh", "energy", FieldKind.NUMBER),),
    "pm1": (
        (("apower",), "Power", "W", "power", FieldKind.NUMBER),
        (("voltage",), "Voltage", "V", "voltage", FieldKind.NUMBER),
        (("current",), "Current", "A", "current", FieldKind.NUMBER),
        (("aenergy", "total"), "Energy", "Wh", "energy", FieldKind.NUMBER),
    ),
}
"""By component of the second generation: where a value stands, its name, unit, device class and kind."""

FIRST: dict[str, tuple[str, str, str, FieldKind, float]] = {
    "relay": ("Switch", "", "", FieldKind.STATE, 1),
    "relay/power": ("Power", "W", "power", FieldKind.NUMBER, 1),
    # watt-minutes, as they say themselves
    "relay/energy": ("Energy", "Wh", "energy", FieldKind.NUMBER, 1 / 60),
    "light": ("Light", "", "", FieldKind.STATE, 1),
    "light/power": ("Power", "W", "power", FieldKind.NUMBER, 1),
    "light/energy": ("Energy", "Wh", "energy", FieldKind.NUMBER, 1 / 60),
    "roller": ("Cover", "", "", FieldKind.TEXT, 1),
    "roller/pos": ("Position", "%", "", FieldKind.NUMBER, 1),
    "roller/power": ("Power", "W", "power", FieldKind.NUMBER, 1),
    "emeter/power": ("Power", "W", "power", FieldKind.NUMBER, 1),
    "emeter/voltage": ("Voltage", "V", "voltage", FieldKind.NUMBER, 1),
    "emeter/current": ("Current", "A", "current", FieldKind.NUMBER, 1),
    "emeter/pf": ("Power factor", "", "power_factor", FieldKind.NUMBER, 1),
    "emeter/total": ("Energy", "Wh", "energy", FieldKind.NUMBER, 1),
    "input": ("Input", "", "", FieldKind.STATE, 1),
    "temperature": (OF_ITSELF, "°C", "temperature", FieldKind.NUMBER, 1),
    "voltage": ("Voltage", "V", "voltage", FieldKind.NUMBER, 1),
    "sensor/temperature": ("Temperature", "", "temperature", FieldKind.NUMBER, 1),
    "sensor/humidity": ("Humidity", "%", "humidity", FieldKind.NUMBER, 1),
    "sensor/battery": ("Battery", "%", "battery", FieldKind.NUMBER, 1),
    "sensor/lux": ("Illuminance", "lx", "illuminance", FieldKind.NUMBER, 1),
    "sensor/motion": ("Motion", "", "motion", FieldKind.STATE, 1),
    "sensor/flood": ("Flood", "", "moisture", FieldKind.STATE, 1),
    "sensor/smoke": ("Smoke", "", "smoke", FieldKind.STATE, 1),
    "sensor/gas": ("Gas", "", "gas", FieldKind.TEXT, 1),
    "sensor/concentration": ("Concentration", "ppm", "", FieldKind.NUMBER, 1),
    "sensor/state": ("Contact", "", "opening", FieldKind.STATE, 1),
    "sensor/tilt": ("Tilt", "°", "", FieldKind.NUMBER, 1),
    "ext_temperature": ("Temperature", "°C", "temperature", FieldKind.NUMBER, 1),
    "ext_humidity": ("Humidity", "%", "humidity", FieldKind.NUMBER, 1),
}
"""By what stands behind the device in a topic of the first generation, its number left out: name, unit, device class,
kind, and by what to multiply."""


def claim(levels: list[str]) -> tuple[str, bool] | None:
    """The device that a topic belongs to, and whether only the form of its messages matters."""
    if levels[0] == "shellies":
        if len(levels) < 3:
            return None
        rest = _first(levels)[0]
        if rest in FIRST:
            return f"shellies/{levels[1]}", True
        return (f"shellies/{levels[1]}", False) if rest in ("announce", "info") else None
    if len(levels) >= 3 and levels[-2] == "status":
        component = _COMPONENT.fullmatch(levels[-1])
        if (component is not None and component[1] in SECOND) or levels[-1] == "sys":
            return "/".join(levels[:-2]), True
    return None


def _first(levels: list[str]) -> tuple[str, str]:
    """What stands behind the device in a topic, and the number in it."""
    number = next((level for level in levels[2:] if level.isdigit()), "")
    return "/".join(level for level in levels[2:] if not level.isdigit()), number


def owner(levels: list[str]) -> str | None:
    """The key of the device whose topic it is."""
    found = claim(levels)
    return None if found is None else f"shelly_{found[0]}"


def read(key: str, known: Known) -> Iterator[Part | Problem | None]:
    """The device of that id, or with that prefix of its topics."""
    part = _first_generation(key, known) if key.startswith("shellies/") else _second_generation(key, known)
    if part is not None:
        yield part


def _part(key: str, source: str, about: dict[str, Any], fields: list[Field], commands: list[Command]) -> Part:
    name = key.rpartition("/")[2]
    found = _MODEL.search(name)
    address = mac_key(text_of(about.get("mac")) or (found[1] if found else ""))
    kinds = {command.id.partition(":")[0].partition(" ")[0] for command in commands}
    kind = next((each for each in ("light", "cover", "switch") if each in kinds), "")
    return Part(
        NAME,
        source,
        (*((address,) if address else ()), f"shelly_{key}"),
        name=text_of(about.get("name")) or text_of(name),
        model=text_of(about.get("model")) or (text_of(name[: found.start()]) if found else ""),
        manufacturer="Shelly",
        version=text_of(about.get("fw_ver") or about.get("fw")),
        kind=kind,
        fields=tuple(fields[:MAX_FIELDS]),
        commands=tuple(commands[:MAX_FIELDS]),
        availability=Availability((StateTopic(f"{key}/online", STATES),)),
    )


def _first_generation(key: str, known: Known) -> Part | None:
    fields: list[Field] = []
    commands: list[Command] = []
    source = ""
    topics = sorted(known.topics())
    have = [_first(topic.split("/")) for topic in topics]
    for topic, (rest, number) in zip(topics, have, strict=True):
        if rest not in FIRST:
            continue
        name, unit, device_class, kind, scale = FIRST[rest]
        if number and sum(other == rest for other, _ in have) > 1:
            name = f"{name} {int(number[:4]) + 1}"
        identifier = text_of(f"{rest} {number}".strip())
        if rest == "sensor/temperature":
            unit = "°C"
        source = source or topic
        is_own = name == OF_ITSELF
        fields.append(Field(identifier, name, topic, (), unit, device_class, kind, scale, is_diagnostic=is_own))
        words = (("on", "on"), ("off", "off"))
        if rest in ("relay", "light"):
            identifier = f"switch {number}" if rest == "relay" else identifier
            commands.append(
                Command(identifier, name, CommandKind.SWITCH, f"{topic}/command", words, field=fields[-1].id)
            )
        elif rest == "roller":
            commands.append(
                Command(f"cover {number}", name, CommandKind.SELECT, f"{topic}/command", MOVES, field=identifier)
            )
    about = known.value(f"{key}/announce") or known.value(f"{key}/info")
    about = about if isinstance(about, dict) else {}
    if not source and not about:
        return None
    return _part(key, source or f"{key}/announce", about, fields, commands)


def _second_generation(key: str, known: Known) -> Part | None:
    fields: list[Field] = []
    commands: list[Command] = []
    source = ""
    found = [(topic, _COMPONENT.fullmatch(topic.rpartition("/")[2])) for topic in sorted(known.topics())]
    components = [(topic, each[1], int(each[2]), each[0]) for topic, each in found if each is not None]
    for topic, component, number, identifier in components:
        status = known.value(topic)
        if not isinstance(status, dict):
            continue
        source = source or topic
        number_of_kind = [each for each in components if each[1] == component]
        suffix = f" {number + 1}" if len(number_of_kind) > 1 and component not in ("number", "boolean", "text") else ""
        for path, label, unit, device_class, kind in SECOND.get(component, ()):
            value: Any = status
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
            if value is None:
                continue
            if component in ("number", "boolean", "text"):
                # those that a user added have no name in their status; some firmware tells one as their source
                source_name = text_of(status.get("source"))
                quantity = quantity_of(source_name)
                label = label_of(source_name) if quantity else f"{label} {number}"
                unit, device_class = (quantity.unit, quantity.device_class) if quantity else (unit, device_class)
            fields.append(
                Field(
                    f"{identifier}.{'.'.join(map(str, path))}",
                    f"{label}{suffix}",
                    topic,
                    path,
                    unit,
                    device_class,
                    kind,
                    is_diagnostic=label == OF_ITSELF,
                )
            )
        label = f"{label_of(component)}{suffix}"
        command = f"{key}/command/{identifier}"
        if component in ("switch", "light"):
            words = (("on", "on"), ("off", "off"))
            shown = f"{identifier}.output"
            commands.append(Command(identifier, label, CommandKind.SWITCH, command, words, field=shown))
        elif component == "cover":
            commands.append(Command(identifier, label, CommandKind.SELECT, command, MOVES, field=f"{identifier}.state"))
    about = known.value(f"{key}/status/sys")
    if not source:
        return None
    return _part(key, source, about if isinstance(about, dict) else {}, fields, commands)

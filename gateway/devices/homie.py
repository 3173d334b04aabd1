"""Homie: `homie/<id>/$…` with a topic for each attribute (3 and 4), `<prefix>/5/<id>/$description` (5).

After the Homie convention, versions 3.0.1, 4.0.0 and 5.0, "Topology" and "Device life cycle".

Invariant: a device is read again from all of its attributes whenever one comes, so that their order doesn't matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.devices.model import (
    AnnouncementError,
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

NAME = "homie"

MAX_PROPERTIES = 500

STATES = (
    ("init", Presence.ONLINE),
    ("ready", Presence.ONLINE),
    ("alert", Presence.ONLINE),
    ("sleeping", Presence.SLEEPING),
    ("disconnected", Presence.OFFLINE),
    ("lost", Presence.OFFLINE),
)
KINDS = {"integer": FieldKind.NUMBER, "float": FieldKind.NUMBER, "boolean": FieldKind.STATE}


def claim(levels: list[str]) -> tuple[str, bool] | None:
    """The device that an attribute belongs to."""
    if not levels[-1].startswith("$"):
        return None
    if len(levels) == 4 and levels[1] == "5" and levels[3] == "$description":
        return "/".join(levels[:3]), False
    if levels[0] == "homie" and 3 <= len(levels) <= 5 and levels[1] != "5":
        if levels[-1].startswith(("$stats", "$fw", "$implementation")) and levels[-1] != "$fw":
            return None
        return "/".join(levels[:2]), False
    return None


def owner(levels: list[str]) -> str | None:
    """The key of the device whose topic it is."""
    if len(levels) == 5 and levels[1] == "5":
        return f"homie_{'/'.join(levels[:3])}"
    if len(levels) >= 4 and levels[0] == "homie":
        return f"homie_{'/'.join(levels[:2])}"
    return None


def read(key: str, known: Known) -> Iterator[Part | Problem | None]:
    """The device with that base topic."""
    levels = key.split("/")
    part = _described(key, known) if len(levels) == 3 and levels[1] == "5" else _by_attributes(key, known)
    if part is not None:
        yield part


def _text(known: Known, topic: str) -> str:
    return text_of(known.value(topic))


def _described(key: str, known: Known) -> Part | None:
    about = known.value(f"{key}/$description")
    if about is None:
        return None
    if not isinstance(about, dict):
        raise AnnouncementError(f"expected an object, got {type(about).__name__}")
    fields: list[Field] = []
    commands: list[Command] = []
    nodes = about.get("nodes")
    for node, inside in nodes.items() if isinstance(nodes, dict) else ():
        properties = inside.get("properties") if isinstance(inside, dict) else None
        for name, each in properties.items() if isinstance(properties, dict) else ():
            if isinstance(each, dict) and len(fields) < MAX_PROPERTIES and _is_level(node) and _is_level(name):
                label = text_of(each.get("name")) or label_of(name)
                settable = each.get("settable") is True
                _add(fields, commands, key, node, name, label, each, settable)
    return _part(
        key, f"{key}/$description", text_of(about.get("name")), fields, commands, text_of(about.get("type")), ""
    )


def _by_attributes(key: str, known: Known) -> Part | None:
    name = _text(known, f"{key}/$name")
    nodes = _text_list(known.value(f"{key}/$nodes"))
    if not name and not nodes and known.value(f"{key}/$homie") is None:
        return None
    fields: list[Field] = []
    commands: list[Command] = []
    for node in nodes:
        for each in _text_list(known.value(f"{key}/{node}/$properties")):
            if len(fields) >= MAX_PROPERTIES:
                break
            base = f"{key}/{node}/{each}"
            about = {
                "unit": known.value(f"{base}/$unit"),
                "datatype": known.value(f"{base}/$datatype"),
                "format": known.value(f"{base}/$format"),
            }
            settable = known.value(f"{base}/$settable") in (True, "true")
            _add(fields, commands, key, node, each, _text(known, f"{base}/$name") or label_of(each), about, settable)
    return _part(key, f"{key}/$homie", name, fields, commands, "", _text(known, f"{key}/$mac"))


def _text_list(value: Any) -> list[str]:
    """The names of a list, without what says that they are arrays (version 3)."""
    if not isinstance(value, str):
        value = str(value) if isinstance(value, (int, float)) else ""
    names = [name.strip().removesuffix("[]") for name in value[:20_000].split(",")]
    return [name for name in names if _is_level(name)][:MAX_PROPERTIES]


def _is_level(name: str) -> bool:
    return 0 < len(name) <= 200 and not set(name) & set("/+#\0")


def _part(key: str, source: str, name: str, fields: list[Field], commands: list[Command], model: str, mac: str) -> Part:
    address = mac_key(mac)
    return Part(
        NAME,
        source,
        (*((address,) if address else ()), f"homie_{key}"),
        name=name or key.rpartition("/")[2],
        model=model,
        fields=tuple(fields),
        commands=tuple(commands),
        availability=Availability((StateTopic(f"{key}/$state", STATES),)),
    )


def _add(
    fields: list[Field],
    commands: list[Command],
    key: str,
    node: str,
    name: str,
    label: str,
    about: dict[str, Any],
    settable: bool,
) -> None:
    datatype, unit = text_of(about.get("datatype")), text_of(about.get("unit"), 20)
    known = quantity_of(name)
    identifier, topic = f"{node}.{name}", f"{key}/{node}/{name}"
    fields.append(
        Field(
            identifier,
            label,
            topic,
            (),
            "" if unit == "#" else unit,
            known.device_class if known else "",
            KINDS.get(datatype, FieldKind.TEXT),
        )
    )
    if not settable:
        return
    form = text_of(about.get("format"))
    target = f"{topic}/set"
    match datatype:
        case "boolean":
            words = (("on", "true"), ("off", "false"))
            commands.append(Command(identifier, label, CommandKind.SWITCH, target, words, field=identifier))
        case "integer" | "float":
            bounds = [_float(part) for part in [*form.split(":"), "", "", ""][:3]]
            commands.append(
                Command(
                    identifier,
                    label,
                    CommandKind.NUMBER,
                    target,
                    least=bounds[0],
                    most=bounds[1],
                    step=bounds[2],
                    unit=unit,
                    field=identifier,
                )
            )
        case "enum":
            choices = tuple((word, word) for word in form.split(",") if word)
            commands.append(Command(identifier, label, CommandKind.SELECT, target, choices, field=identifier))
        case "string":
            commands.append(Command(identifier, label, CommandKind.TEXT, target, field=identifier))


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

"""ESPHome without discovery: `<node>/<component>/<name>/state`, `<node>/status`, `esphome/discover/<node>`.

After ESPHome's documentation, "MQTT Client Component". What it announces for Home Assistant is read there.

Invariant: nothing but the form of a topic says that it is ESPHome's, so units stand here only where a name has but one.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.devices.model import (
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
    mac_key,
    states_of,
    text_of,
)
from gateway.devices.quantities import quantity_of

__all__ = ["NAME", "claim", "owner", "read"]

NAME = "esphome"

KINDS = {
    "sensor": FieldKind.NUMBER,
    "binary_sensor": FieldKind.STATE,
    "switch": FieldKind.STATE,
    "light": FieldKind.STATE,
    "fan": FieldKind.STATE,
    "cover": FieldKind.TEXT,
    "climate": FieldKind.TEXT,
    "lock": FieldKind.TEXT,
    "number": FieldKind.NUMBER,
    "select": FieldKind.TEXT,
    "text_sensor": FieldKind.TEXT,
}
MAX_FIELDS = 200


def claim(levels: list[str]) -> tuple[str, bool] | None:
    """The node that a topic belongs to, and whether only the form of its messages matters."""
    if len(levels) >= 4 and levels[-1] == "state" and levels[-3] in KINDS:
        return "/".join(levels[:-3]), True
    if len(levels) == 3 and levels[:2] == ["esphome", "discover"]:
        return levels[2], False
    return None


def owner(levels: list[str]) -> str | None:
    """The key of the node whose topic it is."""
    found = claim(levels)
    return f"esphome_{found[0]}" if found is not None and found[1] else None


def read(key: str, known: Known) -> Iterator[Part | Problem | None]:
    """The node with that prefix of its topics."""
    about = known.value(f"esphome/discover/{key}")
    about = about if isinstance(about, dict) else {}
    fields: list[Field] = []
    commands: list[Command] = []
    kind = ""
    source = f"esphome/discover/{key}" if about else ""
    for topic in sorted(known.topics()):
        levels = topic.split("/")
        if levels[-1] != "state" or len(fields) >= MAX_FIELDS:
            continue
        component, name = levels[-3], levels[-2]
        source = source or topic
        quantity = quantity_of(name) if component == "sensor" else None
        identifier = text_of(f"{component}.{name}")
        is_json = component == "light"
        fields.append(
            Field(
                identifier,
                label_of(name),
                topic,
                ("state",) if is_json else (),
                quantity.unit if quantity else "",
                quantity.device_class if quantity else "",
                KINDS[component],
            )
        )
        base = f"{key}/{component}/{name}/command"
        if component in ("switch", "light", "fan"):
            kind = component if component != "switch" or not kind else kind
            words = (
                (("on", '{"state":"ON"}'), ("off", '{"state":"OFF"}')) if is_json else (("on", "ON"), ("off", "OFF"))
            )
            commands.append(Command(identifier, label_of(name), CommandKind.SWITCH, base, words, field=identifier))
        elif component == "number":
            commands.append(Command(identifier, label_of(name), CommandKind.NUMBER, base, field=identifier))
    if not source:
        return
    address = mac_key(text_of(about.get("mac")))
    yield Part(
        NAME,
        source,
        (*((address,) if address else ()), f"esphome_{key}"),
        name=text_of(about.get("friendly_name")) or text_of(about.get("name")) or text_of(key),
        model=text_of(about.get("board")),
        manufacturer="ESPHome",
        version=text_of(about.get("version")),
        kind=kind,
        fields=tuple(fields),
        commands=tuple(commands),
        availability=Availability((StateTopic(f"{key}/status", states_of("online", "offline")),)),
    )

"""Zigbee2MQTT: `<base>/bridge/devices`, `groups` and `info`; what a device exposes is its fields and commands.

After Zigbee2MQTT's documentation, pages "MQTT Topics and Messages", "Exposes" and "Device Availability".

Invariant: each device of the list is read by itself, so that one that is broken is named and the others are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

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
    Presence,
    Problem,
    StateTopic,
    label_of,
    text_of,
    topic_of,
)
from gateway.devices.quantities import quantity_of

__all__ = ["NAME", "claim", "owner", "read"]

NAME = "zigbee2mqtt"

MAX_DEVICES = 5_000
MAX_FEATURES = 200
MAX_NESTING = 4

PUBLISHED, SETTABLE = 1, 2
"""Bits of `access`."""

KINDS = frozenset({"light", "switch", "fan", "cover", "lock", "climate"})
STATES = (("online", Presence.ONLINE), ("offline", Presence.OFFLINE))
CLASSES = {"contact": "opening", "occupancy": "occupancy", "water_leak": "moisture", "smoke": "smoke"}

_encode = msgspec.json.Encoder().encode


class _Device(msgspec.Struct, gc=False):
    """What is read of a device of the list; all else is passed over without building it."""

    friendly_name: Any = None
    ieee_address: Any = None
    type: Any = None
    disabled: Any = False
    definition: Any = None
    model_id: Any = None
    manufacturer: Any = None
    software_build_id: Any = None
    description: Any = None


class _Group(msgspec.Struct, gc=False):
    id: Any = None
    friendly_name: Any = None
    members: Any = None


_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_device = msgspec.json.Decoder(_Device).decode
_decode_group = msgspec.json.Decoder(_Group).decode


def claim(levels: list[str]) -> tuple[str, bool] | None:
    """The bridge that a topic belongs to, by its base topic."""
    if len(levels) >= 3 and levels[-2] == "bridge" and levels[-1] in ("devices", "groups", "info"):
        return "/".join(levels[:-2]), False
    return None


def owner(_levels: list[str]) -> str | None:
    """None: by its topic alone nobody knows whose it is."""
    return None


def read(key: str, known: Known) -> Iterator[Part | Problem | None]:
    """All devices and groups of a bridge."""
    source = f"{key}/bridge/devices"
    info = known.value(f"{key}/bridge/info")
    config = info.get("config") if isinstance(info, dict) else None
    asks = config.get("availability") if isinstance(config, dict) else None
    has_availability = bool(asks.get("enabled", True)) if isinstance(asks, dict) else bool(asks)
    features: dict[str, list[dict[str, Any]]] = {}
    for number, raw in enumerate(_items(source, known)):
        if number >= MAX_DEVICES:
            yield Problem(source, f"more than {MAX_DEVICES} devices: the others are left out")
            break
        try:
            part = _device(key, source, _decode_device(raw), known, features, has_availability)
        except (AnnouncementError, msgspec.MsgspecError, RecursionError) as error:
            yield Problem(source, f"device {number + 1}: {error}")
            continue
        yield part
    source = f"{key}/bridge/groups"
    for number, raw in enumerate(_items(source, known)):
        if number >= MAX_DEVICES:
            break
        try:
            group = _decode_group(raw)
            found = _group(key, source, group, features)
        except (AnnouncementError, msgspec.MsgspecError, RecursionError) as error:
            yield Problem(source, f"group {number + 1}: {error}")
            continue
        yield found


def _items(topic: str, known: Known) -> list[msgspec.Raw]:
    message = known.last(topic)
    if message is None or message.is_empty:
        return []
    try:
        return _decode_list(message.token)
    except msgspec.MsgspecError as error:
        raise AnnouncementError(f"expected a list of objects: {error}") from None


def _device(
    base: str,
    source: str,
    device: _Device,
    known: Known,
    features: dict[str, list[dict[str, Any]]],
    has_availability: bool,
) -> Part | None:
    address, name = text_of(device.ieee_address), device.friendly_name
    if device.type == "Coordinator" or device.disabled is True:
        return None
    if not address:
        raise AnnouncementError("ieee_address: expected a text")
    topic = topic_of(f"{base}/{name}" if isinstance(name, str) else None, "friendly_name")
    definition = device.definition if isinstance(device.definition, dict) else {}
    found, kind = _features(definition.get("exposes"))
    features[address] = found
    fields, commands = _made(topic, found)
    topics = [StateTopic(f"{base}/bridge/state", STATES, ("state",))]
    own = f"{topic}/availability"
    if has_availability or known.last(own) is not None:
        topics.append(StateTopic(own, STATES, ("state",)))
    return Part(
        NAME,
        source,
        (f"zigbee2mqtt_{address}",),
        name=text_of(name),
        model=text_of(definition.get("model")) or text_of(device.model_id),
        manufacturer=text_of(definition.get("vendor")) or text_of(device.manufacturer),
        version=text_of(device.software_build_id),
        kind=kind,
        fields=tuple(fields),
        commands=tuple(commands),
        availability=Availability(tuple(topics)),
        via=f"zigbee2mqtt_{base}",
    )


def _group(base: str, source: str, group: _Group, features: dict[str, list[dict[str, Any]]]) -> Part:
    """A group: what all its members have."""
    topic = topic_of(f"{base}/{group.friendly_name}" if isinstance(group.friendly_name, str) else None, "friendly_name")
    members = group.members if isinstance(group.members, list) else []
    common: dict[Any, dict[str, Any]] | None = None
    for member in members[:MAX_DEVICES]:
        address = member.get("ieee_address") if isinstance(member, dict) else None
        have = {each.get("property"): each for each in features.get(str(address), ())}
        common = have if common is None else {name: each for name, each in common.items() if name in have}
    shared = [each for each in (common or {}).values() if _access(each) & SETTABLE]
    fields, commands = _made(topic, shared)
    # its own discovery has the base topic in this form, so that both are one
    encoded = "".join(str(ord(character)) for character in base)
    return Part(
        NAME,
        source,
        (f"zigbee2mqtt_{encoded}_{text_of(group.id)}",),
        name=text_of(group.friendly_name),
        model="Group",
        manufacturer="Zigbee2MQTT",
        kind="group",
        fields=tuple(fields),
        commands=tuple(commands),
        availability=Availability((StateTopic(f"{base}/bridge/state", STATES, ("state",)),)),
        via=f"zigbee2mqtt_{base}",
    )


def _features(exposes: Any) -> tuple[list[dict[str, Any]], str]:
    """The single values that a device exposes, and what kind of device it is by that."""
    found: list[dict[str, Any]] = []
    kind = ""

    def collect(some: Any, path: Path, depth: int) -> None:
        nonlocal kind
        if not isinstance(some, list) or depth > MAX_NESTING:
            return
        for each in some:
            if not isinstance(each, dict) or len(found) >= MAX_FEATURES:
                continue
            inner = each.get("features")
            if each.get("type") in KINDS:
                kind = kind or str(each["type"])
            if isinstance(inner, list):
                name = each.get("property")
                collect(
                    inner,
                    (*path, name) if each.get("type") == "composite" and isinstance(name, str) else path,
                    depth + 1,
                )
            elif isinstance(each.get("property"), str) and each["property"]:
                found.append({**each, "path": (*path, each["property"])})

    collect(exposes, (), 0)
    return found, kind


def _access(feature: dict[str, Any]) -> int:
    access = feature.get("access")
    return access if isinstance(access, int) else PUBLISHED


def _made(topic: str, features: list[dict[str, Any]]) -> tuple[list[Field], list[Command]]:
    fields: list[Field] = []
    commands: list[Command] = []
    seen: set[Path] = set()
    for feature in features:
        path = feature["path"]
        if path in seen:
            continue
        seen.add(path)
        access, kind = _access(feature), feature.get("type")
        name = text_of(path[-1])
        label = text_of(feature.get("label")) or label_of(name)
        known = quantity_of(text_of(feature.get("name")) or name)
        unit = text_of(feature.get("unit"), 20)
        identifier = text_of(".".join(path))
        if access & PUBLISHED:
            fields.append(
                Field(
                    identifier,
                    label,
                    topic,
                    path,
                    unit,
                    CLASSES.get(name) or (known.device_class if known else ""),
                    {"numeric": FieldKind.NUMBER, "binary": FieldKind.STATE}.get(str(kind), FieldKind.TEXT),
                    is_diagnostic=feature.get("category") == "diagnostic"
                    or name in ("linkquality", "battery", "voltage"),
                )
            )
        if access & SETTABLE and (command := _command(f"{topic}/set", identifier, label, unit, feature)) is not None:
            commands.append(command if access & PUBLISHED else msgspec.structs.replace(command, field=""))
    return fields, commands


def _command(topic: str, identifier: str, label: str, unit: str, feature: dict[str, Any]) -> Command | None:
    path: Path = feature["path"]
    before = "".join("{" + _encode(step).decode() + ":" for step in path)
    after = "}" * len(path)

    def payload(value: Any) -> str:
        return f"{before}{_encode(value).decode()}{after}"

    match feature.get("type"):
        case "binary":
            choices = ("on", feature.get("value_on", True)), ("off", feature.get("value_off", False))
            payloads = tuple((name, payload(value)) for name, value in choices)
            return Command(identifier, label, CommandKind.SWITCH, topic, payloads, field=identifier)
        case "numeric":
            least, most, step = (_number(feature.get(name)) for name in ("value_min", "value_max", "value_step"))
            return Command(
                identifier,
                label,
                CommandKind.NUMBER,
                topic,
                (),
                before,
                after,
                False,
                least,
                most,
                step,
                unit,
                identifier,
            )
        case "enum" if isinstance(feature.get("values"), list):
            values = [value for value in feature["values"][:MAX_FEATURES] if text_of(value)]
            payloads = tuple((text_of(value), payload(value)) for value in values)
            if len(payloads) == 1:
                pressed = (("press", payloads[0][1]),)
                return Command(identifier, label, CommandKind.BUTTON, topic, pressed, field=identifier)
            return Command(identifier, label, CommandKind.SELECT, topic, payloads, field=identifier)
        case "text":
            return Command(identifier, label, CommandKind.TEXT, topic, (), before, after, True, field=identifier)
    return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

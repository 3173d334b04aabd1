"""Sparkplug B, as JSON that a decoder made of it: BIRTH says what a device has, DEATH that it is gone.

After the Sparkplug specification 3.0, chapters "Topics" and "Payloads"; the JSON is that of Eclipse Tahu.

Invariant: a value is found by the name of its metric, since a DATA message has only those that changed. Bytes that
nobody decoded are no BIRTH.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gateway.devices.model import (
    AnnouncementError,
    Availability,
    Field,
    FieldKind,
    Known,
    Part,
    Presence,
    Problem,
    StateTopic,
    label_of,
    text_of,
)
from gateway.devices.quantities import quantity_of

__all__ = ["NAME", "claim", "owner", "read"]

NAME = "sparkplug"

MAX_METRICS = 500
NUMBERS = frozenset({
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float", "double",
})  # fmt: skip
HOUSEKEEPING = ("bdSeq", "Node Control/", "Device Control/", "Properties/")
ONLINE, OFFLINE = (("*", Presence.ONLINE),), (("*", Presence.OFFLINE),)


def claim(levels: list[str]) -> tuple[str, bool] | None:
    """The edge node or device of a BIRTH."""
    if levels[0] == "spBv1.0" and len(levels) in (4, 5) and levels[2] == ("NBIRTH" if len(levels) == 4 else "DBIRTH"):
        return "/".join((levels[1], *levels[3:])), False
    return None


def owner(_levels: list[str]) -> str | None:
    """None: who finds a metric by its name knows whose it is."""
    return None


def read(key: str, known: Known) -> Iterator[Part | Problem | None]:
    """The node `<group>/<node>`, or the device `<group>/<node>/<device>`."""
    group, node, *device = key.split("/")
    letter, rest = ("D", f"{node}/{device[0]}") if device else ("N", node)
    birth = f"spBv1.0/{group}/{letter}BIRTH/{rest}"
    about = known.value(birth)
    if about is None:
        return
    metrics = about.get("metrics") if isinstance(about, dict) else None
    if not isinstance(metrics, list):
        raise AnnouncementError("expected an object with metrics: is a decoder set for spBv1.0/#?")
    data = f"spBv1.0/{group}/{letter}DATA/{rest}"
    values = {
        each["name"]: each.get("value")
        for each in metrics
        if isinstance(each, dict) and isinstance(each.get("name"), str)
    }
    ends = Counter(name.rpartition("/")[2] for name in values)
    fields = [
        field
        for each in metrics[:MAX_METRICS]
        if isinstance(each, dict) and (field := _field(data, each, ends)) is not None
    ]
    topics = [StateTopic(birth, ONLINE), StateTopic(f"spBv1.0/{group}/{letter}DEATH/{rest}", OFFLINE)]
    if device:
        topics.append(StateTopic(f"spBv1.0/{group}/NDEATH/{node}", OFFLINE))
    yield Part(
        NAME,
        birth,
        (f"sparkplug_{key}",),
        name=text_of(device[0] if device else node),
        model=text_of(values.get("Properties/Hardware Model") or values.get("Properties/Hardware Make")),
        manufacturer=text_of(values.get("Properties/Hardware Make")),
        area=text_of(group),
        version=text_of(values.get("Properties/FW")),
        fields=tuple(fields),
        availability=Availability(tuple(topics), "latest"),
        via=f"sparkplug_{group}/{node}" if device else "",
    )


def _field(topic: str, metric: dict[str, Any], ends: Counter[str]) -> Field | None:
    name = metric.get("name")
    if not isinstance(name, str) or not name or name.startswith(HOUSEKEEPING):
        return None
    properties = metric.get("properties")
    unit = _property(properties, "engUnit") or _property(properties, "unit") or _property(properties, "Unit")
    above, _, last = name.rpartition("/")
    known = quantity_of(last)
    label = label_of(text_of(last))
    if above and ends[last] > 1:
        label = f"{text_of(above, 40)} {label}"
    datatype = text_of(metric.get("dataType")).lower()
    kind = FieldKind.NUMBER if datatype in NUMBERS else FieldKind.STATE if datatype == "boolean" else FieldKind.TEXT
    return Field(
        text_of(name),
        label,
        topic,
        None,
        text_of(unit, 20) or (known.unit if known else ""),
        known.device_class if known else "",
        kind,
        metric=name[:1_000],
    )


def _property(properties: Any, name: str) -> str:
    value = properties.get(name) if isinstance(properties, dict) else None
    return text_of(value.get("value") if isinstance(value, dict) else value)

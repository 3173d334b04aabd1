"""Home-made habits: a topic whose last level is a quantity (`garden/bed/temperature`) is a field of what is above it.

Invariant: the weakest habit. A topic that another device reads is none of these, whichever of both came first.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.core.fields import is_number, number_and_unit
from gateway.devices.model import Field, FieldKind, Known, Part, Problem, label_of, text_of
from gateway.devices.quantities import quantity_of

__all__ = ["NAME", "claim", "owner", "read"]

NAME = "home_made"

MAX_FIELDS = 100


def claim(levels: list[str]) -> tuple[str, bool] | None:
    """The topic above one whose last level is a quantity."""
    return ("/".join(levels[:-1]), True) if len(levels) >= 2 and quantity_of(levels[-1]) is not None else None


def owner(_levels: list[str]) -> str | None:
    """None: it gives way to whoever announces a device."""
    return None


def read(key: str, known: Known) -> Iterator[Part | Problem | None]:
    """What is above these topics, as a device."""
    fields: list[Field] = []
    for topic in sorted(known.topics())[:MAX_FIELDS]:
        name = topic.rpartition("/")[2]
        quantity = quantity_of(name)
        value = known.value(topic)
        if quantity is None or value is None:
            continue
        path: tuple[str, ...] = ()
        unit = quantity.unit
        if isinstance(value, dict):
            if not is_number(value.get("value")):
                continue
            path, unit = ("value",), text_of(value.get("unit"), 20) or unit
        elif isinstance(value, str) and (found := number_and_unit(value)) is not None:
            unit = text_of(found[1], 20) or unit
        elif not isinstance(value, (int, float)):
            if isinstance(value, list):
                continue
            unit = ""
        is_state = isinstance(value, (bool, str)) and not (isinstance(value, str) and number_and_unit(value))
        kind = FieldKind.STATE if is_state else FieldKind.NUMBER
        fields.append(Field(text_of(name), label_of(name), topic, path, unit, quantity.device_class, kind))
    if fields:
        yield Part(NAME, fields[0].topic, (f"topic_{key}",), name=text_of(key), fields=tuple(fields))

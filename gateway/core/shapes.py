"""What a subscriber wants of its messages: format, rate, mode, fields, deadband, condition.

Invariant: a `Shape` that exists can be had; equal shapes with equal filters share one group. What is made of messages
by it is for `shaper`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.conditions import ShapeError, compile_condition
from gateway.core.fields import Field
from gateway.core.paths import PathError, split_paths, without_space
from gateway.core.topics import quoted

__all__ = [
    "MAX_FIELDS_LENGTH",
    "MAX_HZ",
    "MIN_HZ",
    "SHAPE_PARAMETERS",
    "SWITCHES",
    "Format",
    "Framing",
    "Mode",
    "Shape",
    "field_at",
    "shape_from",
]


MAX_FIELDS = 50

MAX_FIELDS_LENGTH = 4_096
"""Characters of all paths of `fields` together."""

MIN_HZ, MAX_HZ = 0.001, 1_000.0

SWITCHES = {"1": True, "true": True, "yes": True, "": False, "0": False, "false": False, "no": False}
"""What a parameter that is on or off may be, in any case."""

SHAPE_PARAMETERS = frozenset({"max_hz", "mode", "fields", "deadband", "where", "format", "properties"})
"""What a query or a command may say of a shape."""


class Format(enum.StrEnum):
    """What a message looks like to the subscriber."""

    JSON = "json"
    """The envelope."""
    RAW = "raw"
    """The payload only."""
    STREAM = "stream"
    """One object with one field of the payload under its own name, for pages that know nothing of MQTT."""


class Framing(enum.StrEnum):
    """What carries a message: bytes that can be joined with the next ones."""

    WEBSOCKET = "websocket"
    SSE = "sse"


class Mode(enum.StrEnum):
    """What stands for the messages of an interval."""

    LATEST = "latest"
    MEAN = "mean"
    MINMAX = "minmax"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a subscriber wants; equal shapes with equal filters share one group.

    Attributes:
        format: the form of a message.
        framing: what carries it.
        properties: whether MQTT 5 properties are relayed.
        field: for streams: the path that is shown.
        max_hz: the greatest number of messages a second for each topic; None is every message.
        mode: what stands for an interval of `1 / max_hz` seconds.
        fields: paths in a JSON payload that are kept; empty is all.
        deadband: least change of a number that is news; None is every message.
        where: condition in the Common Expression Language; None is every message.
        kept: `fields`, taken apart.
        shown: `field`, taken apart.
    """

    format: Format = Format.JSON
    framing: Framing = Framing.WEBSOCKET
    properties: bool = False
    field: str | None = None
    max_hz: float | None = None
    mode: Mode = Mode.LATEST
    fields: tuple[str, ...] = ()
    deadband: float | None = None
    where: str | None = None
    kept: tuple[Field, ...] = dataclasses.field(init=False, repr=False, compare=False)
    shown: Field | None = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_hz is not None and not MIN_HZ <= self.max_hz <= MAX_HZ:
            raise ShapeError(f"max_hz {self.max_hz:g}: must be between {MIN_HZ:g} and {MAX_HZ:g}")
        if self.mode is not Mode.LATEST and self.max_hz is None:
            object.__setattr__(self, "max_hz", 1.0)
        if self.mode is not Mode.LATEST and self.format is not Format.JSON:
            raise ShapeError(f"mode {self.mode}: needs format=json, an aggregate is no payload that was published")
        if self.deadband is not None and not (math.isfinite(self.deadband) and self.deadband >= 0):
            raise ShapeError(f"deadband {self.deadband:g}: must be a number from 0 up")
        if len(self.fields) > MAX_FIELDS:
            raise ShapeError(f"fields: {len(self.fields)} are named, at most {MAX_FIELDS} are allowed")
        if (length := sum(map(len, self.fields))) > MAX_FIELDS_LENGTH:
            raise ShapeError(f"fields: have {length} characters together, at most {MAX_FIELDS_LENGTH} are allowed")
        object.__setattr__(self, "kept", tuple(field_at("fields", text) for text in self.fields))
        object.__setattr__(self, "shown", None if self.field is None else field_at("field", self.field))
        if self.where is not None:
            compile_condition(self.where)

    @property
    def is_plain(self) -> bool:
        """Whether every message goes out as the frame that history made."""
        return self == _PLAIN

    @property
    def is_sample(self) -> bool:
        """Whether a message's value need not be known: what it shows is as it came."""
        return self.mode is Mode.LATEST and self.format is not Format.STREAM

    @property
    def is_stateless(self) -> bool:
        """Whether what is made of a message depends on that message alone."""
        return self.max_hz is None and self.deadband is None

    @property
    def is_windowed(self) -> bool:
        """Whether messages wait for the end of an interval."""
        return self.max_hz is not None


_PLAIN = Shape()


def field_at(parameter: str, text: str) -> Field:
    """The field at a written path.

    Raises:
        ShapeError: it is none; the text names the parameter.
    """
    try:
        return Field.at(text)
    except PathError as error:
        raise ShapeError(f"{parameter} {quoted(text)}: {error}") from None


def shape_from(parameters: Mapping[str, Any], base: Shape = _PLAIN) -> Shape:
    """Builds a shape from the parameters of a query or a command, over what `base` already says.

    Args:
        parameters: any of max_hz, mode, fields, deadband, where, format, properties; strings as in a query or JSON
            values. An empty string or None means the default.
        base: where parameters that are absent come from.

    Raises:
        ShapeError: a parameter is malformed or out of its range.
    """
    changes: dict[str, Any] = {}
    for name in ("max_hz", "deadband"):
        if name in parameters:
            changes[name] = _number(name, parameters[name])
    if "mode" in parameters:
        changes["mode"] = _choice("mode", parameters["mode"], Mode, Mode.LATEST)
    if "format" in parameters:
        chosen = _choice("format", parameters["format"], Format, Format.JSON)
        if chosen is Format.STREAM:
            raise ShapeError("format 'stream': must be json or raw; a stream has an address of its own, /ws/<stream>/")
        changes["format"] = chosen
    if "fields" in parameters:
        given = parameters["fields"] or ()
        given = split_paths(given) if isinstance(given, str) else map(without_space, given)
        changes["fields"] = tuple(dict.fromkeys(given))
    if "where" in parameters:
        changes["where"] = parameters["where"] or None
    if "properties" in parameters:
        changes["properties"] = _switch("properties", parameters["properties"])
    if not changes:
        return base
    return dataclasses.replace(base, **changes)


def _number(name: str, value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ShapeError(f"{name} {quoted(str(value))}: must be a number") from None
    if not math.isfinite(number):
        raise ShapeError(f"{name} {quoted(str(value))}: must be a finite number")
    return number


def _switch(name: str, value: Any) -> bool:
    found = SWITCHES.get(str(value or "").lower())
    if found is None:
        raise ShapeError(f"{name} {quoted(str(value))}: must be 1 or 0, true or false")
    return found


def _choice(name: str, value: Any, kind: type[Format | Mode], default: Any) -> Any:
    if value is None or value == "":
        return default
    for member in kind:
        if member.value == value:
            return member
    allowed = [member.value for member in kind if member is not Format.STREAM]
    raise ShapeError(f"{name} {quoted(str(value))}: must be one of {', '.join(allowed)}")

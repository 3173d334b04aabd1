"""Devices that are described field by field, as ``sensors-sim clone`` learns them from live ones.

A device has streams (topics), each a JSON object, a bare number or a text, whose fields follow simple statistics.

It leaves to others: topics and payloads (``dialects.raw``).
"""

import base64
import collections
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from gateway.core.durations import parse_duration
from gateway.core.paths import Path, PathError, parse_path
from sensors_sim import checks
from sensors_sim.kind import Readings, Setting
from sensors_sim.model.noise import Drifting

MODELS = ("value", "counter", "choice", "constant", "constant-json", "seq", "boot", "clock", "iso-clock")
_OF_DEVICE = ("seq", "boot", "clock", "iso-clock")
MAX_TOPIC_BYTES = 60_000
"""MQTT allows 65,535, of which a prefix may take the rest."""

FORMATS = ("json", "number", "text", "base64")


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """How one field behaves.

    Attributes:
        name: Written path in the JSON (``gateway.core.paths``). ``value`` where the payload is bare.
        model: ``value`` (AR(1) around a mean), ``counter`` (grows), ``choice`` (one of some), ``constant``,
            ``constant-json`` (``start`` is JSON), ``seq`` and ``boot`` (the device's own), ``clock`` (the time as a
            number), ``iso-clock`` (the time as text).
        mean: Of a value.
        deviation: Standard deviation of a value.
        memory: Seconds in which a deviation shrinks to 37 %.
        low: Lowest value; None: unbounded.
        high: Highest value; None: unbounded.
        decimals: To which a value or counter is rounded.
        rate: Growth of a counter per second, or ticks of a clock per second (1, or 1000 for milliseconds).
        start: Where a counter begins; the value of a constant.
        choices: Of a choice.
        hold: Seconds that a choice lasts on average.
        text: Whether a number is written as text.
        suffix: What stands behind such a number, such as its unit.
    """

    name: str
    model: str = "value"
    mean: float = 0.0
    deviation: float = 0.0
    memory: float = 60.0
    low: float | None = None
    high: float | None = None
    decimals: int = 2
    rate: float = 1.0
    start: object = 0
    choices: tuple[object, ...] = ()
    hold: float = 60.0
    text: bool = False
    suffix: str = ""
    path: Path = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Takes the name apart.

        Raises:
            ValueError: It is no path.
        """
        object.__setattr__(self, "path", parse_path(self.name))

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> Self:
        """Read a table of a fleet file.

        Raises:
            ValueError: A name is unknown or a value is wrong.
        """
        values = dict(checks.table(described, "field"))
        checks.known_names(values, tuple(name for name in cls.__slots__ if name != "path"), "field")
        what = f"field {checks.text(values.get('name'), 'name of a field')}: "
        if values.get("model", "value") not in MODELS:
            raise ValueError(f"{what}unknown model {checks.shown(values['model'])}: known are {', '.join(MODELS)}")
        for name in ("mean", "deviation", "low", "high", "rate"):
            if name in values:
                values[name] = checks.number(values[name], what + name)
        if values.get("low", -math.inf) > values.get("high", math.inf):
            raise ValueError(f"{what}low {values['low']:g} is over high {values['high']:g}")
        checks.whole(values.get("decimals", 0), what + "decimals", 0, 15)
        _flag(values.get("text", False), what + "text")
        checks.text(values.get("suffix", ""), what + "suffix")
        for name in ("memory", "hold"):
            if name in values:
                values[name] = parse_duration(values[name])
        if "choices" in values:
            if not isinstance(values["choices"], (list, tuple)):
                raise ValueError(f"{what}choices is a list, not {checks.shown(values['choices'])}")
            values["choices"] = tuple(_scalar(item, what + "a choice") for item in values["choices"])
        if values.get("model") == "choice" and not values.get("choices"):
            raise ValueError(f"{what}a choice needs choices")
        start = _scalar(values.get("start", 0), what + "start")
        if values.get("model") == "constant-json":
            try:
                json.loads(str(start))
            except (ValueError, RecursionError):
                raise ValueError(f"{what}start is no JSON: {checks.shown(start)}") from None
        try:
            return cls(**values)
        except PathError as error:
            raise ValueError(f"{what}its name {error}") from None


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One topic with readings. ``{id}`` and ``{name}`` in the topic stand for the device's."""

    topic: str
    fields: tuple[FieldSpec, ...]
    format: str = "json"
    qos: int = 0
    retain: bool = False
    every: int = 1
    """It is published at each so many readings of the device."""

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> Self:
        """Read a table of a fleet file.

        Raises:
            ValueError: A name is unknown or a value is wrong.
        """
        checks.known_names(described, ("topic", "format", "qos", "retain", "every", "field"), "stream")
        topic = checked_topic(described.get("topic"))
        what = f"stream {topic}: "
        if described.get("format", "json") not in FORMATS:
            unknown = checks.shown(described["format"])
            raise ValueError(f"{what}unknown format {unknown}: known are {', '.join(FORMATS)}")
        every = checks.whole(described.get("every", 1), what + "every", 1)
        fields = tuple(FieldSpec.parse(item) for item in checks.tables(described.get("field", ()), what + "field"))
        if not fields and described.get("format", "json") != "json":
            raise ValueError(f"{what}no field")
        if described.get("format") == "base64":
            for encoded in (choice for item in fields for choice in (item.choices or (item.start,))):
                decoded(str(encoded))
        return cls(
            topic,
            fields,
            described.get("format", "json"),
            checks.whole(described.get("qos", 0), what + "qos", 0, 2),
            _flag(described.get("retain", False), what + "retain"),
            every,
        )


@dataclass(frozen=True, slots=True)
class ConstantSpec:
    """A message that is published once at each birth, such as a description."""

    topic: str
    payload: str
    qos: int = 0
    retain: bool = True
    encoding: str = ""
    """``base64`` for what is no text."""


@dataclass(frozen=True, slots=True)
class StatusSpec:
    """Where the device says that it lives; ``offline`` is its will."""

    topic: str
    online: str = "online"
    offline: str = "offline"
    qos: int = 1
    retain: bool = True


@dataclass(frozen=True, slots=True)
class CustomSpec:
    """Everything about one such device."""

    streams: tuple[StreamSpec, ...]
    vary: bool = False
    """Whether it differs from what was learned, as a lookalike: means are shifted by up to some deviations."""
    status: StatusSpec | None = None
    constants: tuple[ConstantSpec, ...] = ()
    units: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Field to what its meta says: unit, device class, range."""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Self:
        """Read the options of a device.

        Raises:
            ValueError: A name is unknown or a value is wrong.
        """
        streams = tuple(StreamSpec.parse(item) for item in checks.tables(options.get("stream", ()), "stream"))
        if not streams:
            raise ValueError("a custom device has at least one stream")
        status = StatusSpec(**_told(options["status"], StatusSpec, "status")) if "status" in options else None
        told = checks.tables(options.get("constant", ()), "constant")
        constants = tuple(ConstantSpec(**_told(item, ConstantSpec, "constant")) for item in told)
        for constant in constants:
            if constant.encoding not in ("", "base64"):
                raise ValueError(f"constant {constant.topic}: unknown encoding {constant.encoding!r}: known is base64")
            if constant.encoding:
                decoded(constant.payload)
        units = {
            name: {key: _scalar(value, f"units: {key}") for key, value in checks.table(about, "units").items()}
            for name, about in checks.table(options.get("units", {}), "units").items()
        }
        return cls(streams, _flag(options.get("vary", False), "vary"), status, constants, units)


def decoded(text: str) -> bytes:
    """The bytes of base64.

    Raises:
        ValueError: It is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no base64") from None


def _told(described: object, kind: type, what: str) -> dict[str, Any]:
    """The members of a status or a constant."""
    values = dict(checks.table(described, what))
    checks.known_names(values, tuple(kind.__slots__), what)  # type: ignore[attr-defined]
    checked_topic(values.get("topic"))
    for name, value in values.items():
        if name == "qos":
            checks.whole(value, f"{what}: qos", 0, 2)
        elif name == "retain":
            _flag(value, f"{what}: retain")
        else:
            checks.text(value, f"{what}: {name}")
    if what == "constant" and "payload" not in values:
        raise ValueError("constant: no payload")
    return values


def checked_topic(value: object) -> str:
    """A topic that can be published to.

    Raises:
        ValueError: It is none.
    """
    is_topic = isinstance(value, str) and value and not set(value) & set("+#\0")
    if isinstance(value, str) and is_topic and len(value.encode(errors="replace")) <= MAX_TOPIC_BYTES:
        return value
    raise ValueError(f"topic {checks.shown(value)}: a text without wildcards, at most {MAX_TOPIC_BYTES} bytes")


def _scalar(value: object, what: str) -> object:
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value
    return checks.number(value, f"{what}, where it is no text or boolean,")


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{what} is true or false, not {checks.shown(value)}")
    return value


def reading_names(spec: CustomSpec) -> list[dict[str, str]]:
    """For each stream: field to the name of its reading, which is unique in the device.

    It is the field's, or the last level of a topic with a bare value; where several are alike, levels before it follow.
    """
    paths: dict[tuple[int, str], list[str]] = {}
    for number, stream in enumerate(spec.streams):
        levels = [level for level in stream.topic.split("/") if level and "{" not in level]
        for item in stream.fields:
            is_bare = item.name == "value" and stream.format != "json" and levels
            paths[number, item.name] = levels if is_bare else [*levels, item.name]
    names: list[dict[str, str]] = [{} for _ in spec.streams]
    left = dict(paths)
    for length in range(1, max(map(len, paths.values()), default=0) + 1):
        ends = {key: ".".join(path[-length:]) for key, path in left.items()}
        counts = collections.Counter(ends.values())
        for (number, field_name), end in ends.items():
            if counts[end] == 1:
                names[number][field_name] = end
                del left[number, field_name]
    for number, field_name in left:  # topics that differ in nothing but the device
        names[number][field_name] = f"{number}.{field_name}"
    return names


def fields_of(setting: Setting) -> Mapping[str, Mapping[str, object] | None]:
    """Names and meta of the readings of a custom device."""
    spec = CustomSpec.parse(setting.options)
    fields: dict[str, Mapping[str, object] | None] = {}
    for stream, names in zip(spec.streams, reading_names(spec), strict=True):
        for item in stream.fields:
            if item.model in _OF_DEVICE:
                continue
            meta: dict[str, object] = dict(spec.units.get(item.name, {}))
            if item.low is not None and item.high is not None:
                meta.setdefault("min", item.low)
                meta.setdefault("max", item.high)
            fields[names[item.name]] = meta
    return fields


def make(setting: Setting) -> Callable[[float], Readings]:
    """The reader of a custom device."""
    spec = CustomSpec.parse(setting.options)
    start = setting.world.start
    models: dict[str, Callable[[float], object]] = {}
    for stream, names in zip(spec.streams, reading_names(spec), strict=True):
        for item in stream.fields:
            if item.model not in _OF_DEVICE:
                models[names[item.name]] = _model(item, setting.rng, start, spec.vary)

    def read(t: float) -> Readings:
        return {name: model(t) for name, model in models.items()}

    return read


def _model(item: FieldSpec, rng: random.Random, start: float, vary: bool) -> Callable[[float], object]:
    if item.model == "constant":
        return lambda _t: item.start
    if item.model == "constant-json":
        constant = json.loads(str(item.start))
        return lambda _t: constant
    if item.model == "choice":
        return _choice(item, rng)
    if item.model == "counter":
        base = item.start if isinstance(item.start, (int, float)) else 0
        if vary:
            base *= rng.uniform(0.5, 1.5)

        def count(t: float) -> object:
            value = base + item.rate * (t - start)
            return round(value, item.decimals) if item.decimals else math.floor(value)

        return count
    mean = item.mean + (rng.uniform(-1.5, 1.5) * item.deviation if vary else 0.0)
    drifting = Drifting(rng, item.deviation, max(1e-3, item.memory))
    low = -math.inf if item.low is None else item.low
    high = math.inf if item.high is None else item.high

    def value(t: float) -> object:
        number = min(high, max(low, mean + drifting.at(t)))
        return round(number, item.decimals) if item.decimals else round(number)

    return value


def _choice(item: FieldSpec, rng: random.Random) -> Callable[[float], object]:
    current = rng.choice(item.choices)
    last: float | None = None

    def choose(t: float) -> object:
        nonlocal current, last
        if last is not None and rng.random() < 1 - math.exp(-(t - last) / max(1e-3, item.hold)):
            current = rng.choice(item.choices)
        last = t
        return current

    return choose

"""Sparkplug B (Eclipse Sparkplug 3.0; 2.2 is the same on the wire): metrics with names and values.

Every message becomes `{"timestamp":…,"seq":…,"values":{name:value}}`. A BIRTH or DEATH has `metrics` as well, in the
form that Eclipse Tahu writes: `[{"name":…,"alias":…,"dataType":…,"value":…}]`. Other messages have `details` by name
of those metrics that say more than a value, `earlier` for values before the last one of a name and for historical
ones, and `unknown` for what came under an alias that nobody explained, by alias.

Aliases are those of the newest BIRTH of the node or device, in which each has a name and a data type. What came before
this decoder is looked up once for each of them: `birth_of` finds it where the log still has it, an archive's among it.

Invariant: a value is never shown under a name that a newer BIRTH, readable or not, may have taken from it; a node's
BIRTH ends what was known of its devices. What is remembered is bounded by `MAX_NAMES`.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.decoders.compression import DEFLATE, GZIP, ZLIB, inflate
from gateway.decoders.failures import DecodeError, NotMeantError
from gateway.decoders.sparkplug_form import ARRAYS, TYPES, payload_class
from gateway.decoders.values import MAX_DEPTH, shortest

__all__ = ["BirthOf", "Sparkplug", "TooManyError"]

MAX_BYTES = 384 * 1024
"""As many empty metrics as there is room for take 17 ms to be told from others."""

MAX_PARTS = 2_500
"""Metrics, properties, elements of data sets and parameters of one payload that are shown: 15 ms."""

MAX_METRICS = 10_000
"""Metrics of a BIRTH that are named, be they too many to be shown: 15 ms."""

MAX_NAMES = 200_000
"""Metrics whose names and types are remembered, of all nodes: about 40 MB."""

MAX_SENDERS = 20_000
"""Nodes and devices that are remembered, be it only that nothing is known of them."""

COMPRESSED = "SPBV1.0_COMPRESSED"

BirthOf = Callable[[str], tuple[int, bytes] | None]
"""The number and the payload of the newest message of a topic, None where there is none."""

NAME, ALIAS, TIMESTAMP, DATATYPE, HISTORICAL, TRANSIENT, NULL, METADATA, PROPERTIES = range(1, 10)
FIRST_VALUE, BYTES, DATA_SET, TEMPLATE = 10, 16, 17, 18
"""Fields of a metric, by number."""

FLOAT = 9
"""The data type of single precision."""

_BITS = {1: 8, 2: 16, 3: 32, 4: 64}
_KINDS = ("NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH", "NCMD", "DCMD")
_LOOKED_INTO = ("DATA", "CMD")


class TooManyError(DecodeError):
    """A BIRTH has more than is shown, but what it names is known."""


class _Sender(NamedTuple):
    """A node, or a device of it."""

    namespace: str
    group: str
    node: str
    device: str | None

    @property
    def key(self) -> tuple[str, str, str]:
        """Its node."""
        return self[:3]

    @property
    def birth_topic(self) -> str:
        """Where its BIRTH comes."""
        device = "" if self.device is None else f"/{self.device}"
        kind = "NBIRTH" if self.device is None else "DBIRTH"
        return f"{self.namespace}/{self.group}/{kind}/{self.node}{device}"


class _Birth:
    """What a BIRTH said: names by alias, data types by name."""

    __slots__ = ("names", "types")

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.types: dict[str, int] = {}

    def note(self, name: str, alias: int | None, datatype: int) -> None:
        """A metric of the BIRTH."""
        self.types[name] = datatype
        if alias is not None:
            self.names[alias] = name


class Sparkplug:
    """Reads the payloads of all nodes of one rule.

    Attributes:
        birth_of: finds what came before.
        unknown_aliases: how many values came under an alias that is not known.
    """

    max_bytes = MAX_BYTES
    is_plain = True

    def __init__(self) -> None:
        """Nothing is known yet.

        Raises:
            ImportError: protobuf is not installed.
        """
        self._payload = payload_class()
        self._births = _Births()
        self.birth_of: BirthOf = lambda _topic: None
        self.unknown_aliases = 0

    def decode(self, topic: str, data: bytes) -> Any:
        """The payload as an object.

        Raises:
            NotMeantError: by its topic it is no Sparkplug payload, such as that of STATE.
            DecodeError: it is none by its bytes.
        """
        sender, kind = _sender_of(topic)
        if sender is None:
            raise NotMeantError
        payload = self._parse(data)
        is_birth = kind.endswith("BIRTH")
        if is_birth and len(payload.metrics) > MAX_PARTS:
            self._births.born(sender, _named(payload))
            text = f"it has {len(payload.metrics)} metrics, and at most {MAX_PARTS} are shown"
            raise TooManyError(f"{text}; their names are known all the same")
        birth = _Birth() if is_birth else self._birth(sender) if kind.endswith(_LOOKED_INTO) else None
        reader = _Reader(birth, is_birth=is_birth)
        shown = reader.payload(payload, lists=kind.endswith(("BIRTH", "DEATH")))
        if is_birth:
            self._births.born(sender, birth)
        self.unknown_aliases += reader.unknown
        return shown

    def missed(self, topic: str) -> None:
        """A payload could not be read, nor named: if it was a BIRTH, nobody knows what aliases mean now."""
        sender, kind = _sender_of(topic)
        if sender is not None and kind.endswith("BIRTH"):
            self._births.born(sender, None)

    def _parse(self, data: bytes) -> Any:
        payload = self._payload.FromString(data)
        if payload.uuid == COMPRESSED and payload.HasField("body"):
            named = (one.string_value.upper() for one in payload.metrics if one.name == "algorithm")
            # what Java and JavaScript call deflate is zlib's form
            form = GZIP if next(named, "DEFLATE") == "GZIP" else ZLIB if payload.body[:1] == b"\x78" else DEFLATE
            payload = self._payload.FromString(inflate(payload.body, form))
        return payload

    def _birth(self, sender: _Sender) -> _Birth | None:
        if not self._births.has(sender):
            self._births.put(sender, self._look_up(sender))
        return self._births.get(sender)

    def _look_up(self, sender: _Sender) -> _Birth | None:
        found = self.birth_of(sender.birth_topic)
        if found is None or len(found[1]) > MAX_BYTES:
            return None
        if sender.device is not None:
            node = self.birth_of(sender._replace(device=None).birth_topic)
            if node is not None and node[0] > found[0]:
                return None
        try:
            return _named(self._parse(found[1]))
        except Exception:  # noqa: BLE001 - whatever it was, it explains nothing; that is told with each value
            return None


class _Births:
    """What is known of nodes and their devices; of the node that was silent for longest that is forgotten first."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[tuple[str, str, str], dict[str | None, _Birth | None]] = OrderedDict()
        self._names = 0
        self._senders = 0

    def has(self, sender: _Sender) -> bool:
        """Whether it is known what is known of it, be it nothing."""
        return sender.device in self._nodes.get(sender.key, ())

    def get(self, sender: _Sender) -> _Birth | None:
        """Its BIRTH; it is there."""
        self._nodes.move_to_end(sender.key)
        return self._nodes[sender.key][sender.device]

    def born(self, sender: _Sender, birth: _Birth | None) -> None:
        """There was a BIRTH; None: one that could not be read."""
        if sender.device is None and sender.key in self._nodes:
            self._drop(sender.key)
        self.put(sender, birth)

    def put(self, sender: _Sender, birth: _Birth | None) -> None:
        """Notes what is known."""
        node = self._nodes.setdefault(sender.key, {})
        self._nodes.move_to_end(sender.key)
        self._senders += sender.device not in node
        self._names += _size(birth) - _size(node.get(sender.device))
        node[sender.device] = birth
        for key in list(self._nodes)[:-1] if self._names > MAX_NAMES else ():
            # not taken out: it would be looked up again for each of its messages
            self._names -= sum(map(_size, self._nodes[key].values()))
            self._nodes[key] = dict.fromkeys(self._nodes[key])
            if self._names <= MAX_NAMES:
                break
        while self._senders > MAX_SENDERS:
            self._drop(next(iter(self._nodes)))

    def _drop(self, key: tuple[str, str, str]) -> None:
        gone = self._nodes.pop(key)
        self._senders -= len(gone)
        self._names -= sum(map(_size, gone.values()))


def _size(birth: _Birth | None) -> int:
    return 0 if birth is None else len(birth.types)


def _named(payload: Any) -> _Birth:
    """What a BIRTH says of names and types alone."""
    if len(payload.metrics) > MAX_METRICS:
        raise DecodeError(f"it has more than {MAX_METRICS} metrics")
    birth = _Birth()
    for metric in payload.metrics:
        fields = {field.number: value for field, value in metric.ListFields()}
        if fields.get(NAME):
            birth.note(fields[NAME], fields.get(ALIAS), fields.get(DATATYPE, 0))
    return birth


def _sender_of(topic: str) -> tuple[_Sender | None, str]:
    levels = topic.split("/")
    if len(levels) not in (4, 5) or levels[2] not in _KINDS or (levels[2][0] == "D") != (len(levels) == 5):
        return None, ""
    namespace, group, kind, node, *device = levels
    return _Sender(namespace, group, node, device[0] if device else None), kind


class _Reader:
    """Reads one payload."""

    def __init__(self, birth: _Birth | None, *, is_birth: bool) -> None:
        self._birth = birth
        self._is_birth = is_birth
        self._left = MAX_PARTS
        self.unknown = 0

    def _count(self, number: int = 1) -> None:
        self._left -= number
        if self._left < 0:
            raise DecodeError(f"it has more than {MAX_PARTS} metrics, properties and elements")

    def payload(self, payload: Any, *, lists: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        if payload.HasField("timestamp"):
            shown["timestamp"] = payload.timestamp
        if payload.HasField("seq"):
            shown["seq"] = payload.seq
        if payload.uuid:
            shown["uuid"] = payload.uuid
        values: dict[str, Any] = {}
        details: dict[str, Any] = {}
        earlier: list[dict[str, Any]] = []
        unknown: dict[str, Any] = {}
        listed: list[dict[str, Any]] = []
        self._count(len(payload.metrics))
        for metric in payload.metrics:
            # asked for one by one its fields would cost four times as much
            fields = {field.number: value for field, value in metric.ListFields()}
            name, datatype = self._name_of(fields)
            value = self._value(fields, datatype, MAX_DEPTH)
            if name is None:
                self.unknown += 1
                unknown[str(fields[ALIAS])] = value
                continue
            more = self._more(fields, payload.timestamp)
            if lists:
                one: dict[str, Any] = {"name": name}
                if ALIAS in fields:
                    one["alias"] = fields[ALIAS]
                one["dataType"] = TYPES.get(datatype, datatype)
                one["value"] = value
                listed.append(one | more if more else one)
            elif fields.get(HISTORICAL):
                earlier.append({"name": name, "value": value} | more)
                continue
            elif name in values:
                earlier.append({"name": name, "value": values[name]} | details.pop(name, {}))
            values[name] = value
            if more and not lists:
                details[name] = more
        shown["values"] = values
        extras = {"metrics": listed, "details": details, "earlier": earlier, "unknown": unknown}
        shown |= {member: found for member, found in extras.items() if found}
        if payload.HasField("body"):
            shown["body"] = payload.body
        return shown

    def _name_of(self, fields: dict[int, Any]) -> tuple[str | None, int]:
        birth = self._birth
        name: str | None = fields.get(NAME)
        alias: int | None = fields.get(ALIAS)
        datatype: int = fields.get(DATATYPE, 0)
        if name:
            if self._is_birth and birth is not None:
                birth.note(name, alias, datatype)
        elif alias is None:
            raise DecodeError("a metric has neither name nor alias")
        else:
            name = None if birth is None else birth.names.get(alias)
        if not datatype and birth is not None and name is not None:
            datatype = birth.types.get(name, 0)
        return name, datatype

    def _more(self, fields: dict[int, Any], timestamp: int) -> dict[str, Any]:
        """What a metric says beside name and value."""
        more: dict[str, Any] = {}
        if fields.get(TIMESTAMP, timestamp) != timestamp:
            more["timestamp"] = fields[TIMESTAMP]
        if fields.get(HISTORICAL):
            more["isHistorical"] = True
        if fields.get(TRANSIENT):
            more["isTransient"] = True
        if METADATA in fields:
            more["metaData"] = {field.name: value for field, value in fields[METADATA].ListFields()}
        if PROPERTIES in fields:
            more["properties"] = self._properties(fields[PROPERTIES], MAX_DEPTH)
        return more

    def _value(self, fields: dict[int, Any], datatype: int, depth: int) -> Any:
        kind = next(reversed(fields), 0)  # values have the highest numbers
        if kind < FIRST_VALUE or fields.get(NULL):
            return None
        value = fields[kind]
        if kind == DATA_SET:
            return self._data_set(value)
        if kind == TEMPLATE:
            return self._template(value, depth)
        if kind == BYTES and datatype in (*ARRAYS, 32, 33):
            return self._array(value, datatype)
        return _plain(value, datatype)

    def _array(self, data: bytes, datatype: int) -> list[Any]:
        if datatype == 33:
            self._count(data.count(b"\0"))
            return [text.decode() for text in data.removesuffix(b"\0").split(b"\0")] if data else []
        if datatype == 32:
            count = int.from_bytes(data[:4], "little")
            self._count(count)
            if len(data) != 4 + -(-count // 8):
                raise DecodeError("an array of booleans is cut short")
            return [bool(data[4 + at // 8] & 0x80 >> at % 8) for at in range(count)]
        code = ARRAYS[datatype]
        count, rest = divmod(len(data), struct.calcsize("<" + code))
        if rest:
            raise DecodeError(f"an array of type {TYPES[datatype]} is cut short")
        self._count(count)
        found = list(struct.unpack(f"<{count}{code}", data))
        return [shortest(number) for number in found] if code == "f" else found

    def _properties(self, properties: Any, depth: int) -> dict[str, Any]:
        if depth == 0:
            raise DecodeError(f"it is nested deeper than {MAX_DEPTH} levels")
        self._count(len(properties.keys))
        if len(properties.keys) != len(properties.values):
            raise DecodeError("a set of properties has not as many values as keys")
        found: dict[str, Any] = {}
        for key, one in zip(properties.keys, properties.values, strict=True):
            kind = None if one.is_null else one.WhichOneof("value")
            if kind == "propertyset_value":
                found[key] = self._properties(one.propertyset_value, depth - 1)
            elif kind == "propertysets_value":
                sets = one.propertysets_value.propertyset
                self._count(len(sets))
                found[key] = [self._properties(each, depth - 1) for each in sets]
            else:
                found[key] = None if kind is None else _plain(getattr(one, kind), one.type)
        return found

    def _data_set(self, data: Any) -> dict[str, Any]:
        self._count(len(data.columns))
        rows = []
        types = list(data.types)
        for row in data.rows:
            self._count(1 + len(row.elements))
            if len(row.elements) != len(types):
                raise DecodeError("a row of a data set has not as many elements as there are types")
            rows.append([_element(one, of) for one, of in zip(row.elements, types, strict=True)])
        return {"columns": list(data.columns), "types": [TYPES.get(of, of) for of in types], "rows": rows}

    def _template(self, template: Any, depth: int) -> dict[str, Any]:
        if depth == 0:
            raise DecodeError(f"it is nested deeper than {MAX_DEPTH} levels")
        shown: dict[str, Any] = {}
        if template.template_ref:
            shown["templateRef"] = template.template_ref
        if template.version:
            shown["version"] = template.version
        if template.is_definition:
            shown["isDefinition"] = True
        self._count(len(template.metrics) + len(template.parameters))
        # members of a template have names of their own; aliases would be those of the node
        values = {}
        for metric in template.metrics:
            fields = {field.number: value for field, value in metric.ListFields()}
            name, datatype = self._member_of(fields)
            values[name] = self._value(fields, datatype, depth - 1)
        shown["values"] = values
        if template.parameters:
            shown["parameters"] = {one.name: _element(one, one.type) for one in template.parameters}
        return shown

    def _member_of(self, fields: dict[int, Any]) -> tuple[str, int]:
        if fields.get(NAME):
            return fields[NAME], fields.get(DATATYPE, 0)
        name, datatype = self._name_of(fields)
        return f"alias {fields[ALIAS]}" if name is None else name, datatype


def _element(one: Any, datatype: int) -> Any:
    kind = one.WhichOneof("value")
    return None if kind is None else _plain(getattr(one, kind), datatype)


def _plain(value: Any, datatype: int) -> Any:
    """A single value; whole numbers with a sign lie in fields without one, as two's complement (§6.4.16)."""
    if value.__class__ is float:
        return shortest(value) if datatype == FLOAT else value
    if value.__class__ is int and (bits := _BITS.get(datatype)) is not None:
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value
    return value

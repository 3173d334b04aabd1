"""What is told of a device, and to whom: as JSON, of what its asker may read.

Invariant: a part of a device is told only to who may read the topic that announces it, a field only to who may read its
topic, a command only to who may publish it. A device of which nothing is left is not told at all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from gateway.core.fields import is_number
from gateway.core.history import History
from gateway.core.messages import Kind, Message
from gateway.core.paths import Path, path_text
from gateway.core.topic import Topic
from gateway.devices.model import Availability, Command, Field, FieldKind, Part, Presence
from gateway.devices.presence import presence_of, seen_of
from gateway.devices.records import Device
from gateway.devices.registry import Registry
from gateway.devices.templates import TemplateError

__all__ = ["Asker", "Told", "about_topic", "first_devices", "id_of", "tell", "tell_all", "values_of", "words_for"]


AT_ONCE = 16
"""Devices that are looked at before the work may be interrupted."""

MAX_VALUE_BYTES = 256 * 1024
"""The longest message in which the value of a field is looked for."""

LOOKED_BACK = 200
"""Messages in which a metric is looked for that is not in the newest one."""

LOOKED_BACK_FOR_MEMBERS = 20
"""The same for a member: many are announced that never come."""

MAX_TOLD = 5
"""Devices that are named of a topic."""

_encode = msgspec.json.Encoder().encode


class Asker(NamedTuple):
    """Who asks.

    Attributes:
        may_read, may_publish: whether it may, of a topic.
    """

    may_read: Callable[[str], bool]
    may_publish: Callable[[str], bool]


class Told(NamedTuple):
    """What is told of a device.

    Attributes:
        id: its id for this asker.
        body: a JSON object, all but when it was heard last.
        seen: that; None before.
    """

    id: str
    body: bytes
    seen: int | None

    @property
    def whole(self) -> bytes:
        """The JSON object with `seen`."""
        return b'%b,"seen":%b}' % (self.body[:-1], b"null" if self.seen is None else b"%d" % self.seen)


def _parts_for(device: Device, asker: Asker) -> list[Part]:
    parts = [part for part in device.parts if asker.may_read(part.source)]
    if any(part.fields for part in parts) and not any(
        asker.may_read(field.topic) for part in parts for field in part.fields
    ):
        return []
    return parts


def id_of(device: Device, asker: Asker) -> str | None:
    """The id of a device for this asker; None where nothing of it may be told."""
    parts = _parts_for(device, asker)
    return parts[0].keys[0] if parts else None


def tell(device: Device, asker: Asker, history: History, now_ms: int) -> Told | None:
    """What is told of a device; None where nothing may be.

    Args:
        device: the device.
        asker: who asks.
        history: where its values are.
        now_ms: milliseconds since 1970.
    """
    parts = _parts_for(device, asker)
    if not parts:
        return None
    fields = _fields_of(parts, asker)
    commands = _commands_of(parts, asker, {field.id: shown.id for field, shown in fields})
    shown_fields = [shown for _, shown in fields]
    topics = {field.topic for field in shown_fields}
    body = {
        "id": parts[0].keys[0],
        "name": _first(parts, "name") or parts[0].keys[0],
        "kind": _first(parts, "kind") or ("sensor" if shown_fields else ""),
        "model": _first(parts, "model"),
        "manufacturer": _first(parts, "manufacturer"),
        "area": _first(parts, "area"),
        "version": _first(parts, "version"),
        "announced_by": list(dict.fromkeys(part.habit for part in parts)),
        "availability": str(_presence_for(device, asker, history, topics, now_ms)),
        "fields": [_field_json(field) for field in shown_fields],
        "commands": [_command_json(command) for command in commands],
        # Zigbee2MQTT's list is of all its devices
        "announcements": list(dict.fromkeys(part.source for part in parts if part.habit != "zigbee2mqtt")),
    }
    return Told(parts[0].keys[0], _encode(body), seen_of(topics, history.topic))


def values_of(device: Device, asker: Asker, history: History) -> Generator[None, None, list[dict[str, Any]]]:
    """The newest value of each field, in the order of `fields`, with when it came; null where there is none.

    A member that the newest message lacks is looked for in those before it: some devices say one thing at a time. It
    yields after each that a template computes, and after each topic that is looked into so.
    """
    found: list[dict[str, Any]] = []
    decoded: dict[str, Any] = {}
    earlier: dict[str, list[tuple[Message, Any]]] = {}
    parts = _parts_for(device, asker)
    metrics = _metrics_of(parts, asker, history)
    for _, field in _fields_of(parts, asker):
        if field.metric:
            value, time = metrics.get(field.topic, {}).get(field.metric, (None, None))
            found.append({"id": field.id, "value": value, "time": time})
            continue
        topic = history.topic(field.topic)
        message = None if topic is None else topic.last
        if field.topic not in decoded:
            is_read = message is not None and message.kind is not Kind.BASE64 and len(message.token) <= MAX_VALUE_BYTES
            decoded[field.topic] = message.value() if message is not None and is_read else None
        is_short = message is not None and len(message.token) <= MAX_VALUE_BYTES
        value = _value(field, message, decoded[field.topic]) if message is not None and is_short else None
        if topic is not None and _lacks(field, decoded[field.topic]):
            if field.topic not in earlier:
                earlier[field.topic] = list(_earlier(topic))
                yield
            for message_before, value_before in earlier[field.topic]:
                if not _lacks(field, value_before):
                    message, value = message_before, _value(field, message_before, value_before)
                    break
        found.append({"id": field.id, "value": value, "time": None if message is None else message.time})
        if field.template is not None:
            yield
    return found


def _metrics_of(parts: list[Part], asker: Asker, history: History) -> dict[str, dict[str, tuple[Any, int]]]:
    """The newest value of each metric, and when it came, by topic and name.

    A message has only metrics that changed, so they are looked for in those before it, back to what announced them.
    """
    found: dict[str, dict[str, tuple[Any, int]]] = {}
    for part in parts:
        names = {field.metric for field in part.fields if field.metric}
        announced = history.topic(part.source)
        for name in {
            field.topic for field in part.fields if field.metric and asker.may_read(field.topic)
        } - found.keys():
            values = found[name] = {}
            left = MAX_VALUE_BYTES
            messages = _back_to(None if announced is None else announced.last, history.topic(name))
            for message in islice(messages, LOOKED_BACK):
                left -= len(message.token)
                if left < 0 or len(values) == len(names):
                    break
                if message.kind is not Kind.BASE64:
                    for metric, value in _named(message.value()):
                        if metric in names:
                            values.setdefault(metric, (value, message.time))
    return found


def _back_to(birth: Message | None, topic: Topic | None) -> Iterator[Message]:
    """The messages of a topic after its BIRTH, newest first, and that, unless the log let go of what came between."""
    after = 0 if birth is None else birth.seq
    if topic is not None and topic.last is not None and topic.last.seq > after:
        yield topic.last
        yield from topic.before(topic.last.seq - 1, after)
    if birth is not None and (topic is None or topic.newest_evicted <= after):
        yield birth


def first_devices(
    registry: Registry, asker: Asker, after: str, count: int
) -> Generator[None, None, tuple[list[tuple[str, Device]], int]]:
    """The first `count` devices with an id behind `after`, by id, and how many there are in all."""
    found: list[tuple[str, Device]] = []
    total = 0
    for number, device in enumerate(list(registry.devices()), start=1):
        if not device.is_gone and (identifier := id_of(device, asker)) is not None:
            total += 1
            if identifier > after:
                found.append((identifier, device))
        if number % AT_ONCE == 0:
            yield
    found.sort(key=lambda each: each[0])
    return found[:count], total


def tell_all(
    devices: list[tuple[str, Device]], asker: Asker, history: History, now_ms: int
) -> Generator[None, None, tuple[list[bytes], str]]:
    """What is told of each of these, and a digest of it; when they were heard last is not in that."""
    digest = blake2b(digest_size=12)
    found: list[bytes] = []
    for number, (_, device) in enumerate(devices, start=1):
        told = tell(device, asker, history, now_ms)
        if told is not None:
            digest.update(told.body)
            found.append(told.whole)
        if number % 4 == 0:
            yield
    return found, digest.hexdigest()


def about_topic(registry: Registry, topic: str, asker: Asker) -> list[tuple[bool, str]]:
    """Sentences about what a topic is to devices, and what of the announcement that it is can't be read.

    Each with whether that is in order.
    """
    found: list[tuple[bool, str]] = []
    for device in registry.devices_of(topic):
        parts = _parts_for(device, asker)
        if not parts or len(found) >= MAX_TOLD:
            continue
        name = _first(parts, "name") or parts[0].keys[0]
        roles: list[str] = []
        fields = [field for _, field in _fields_of(parts, asker) if field.topic == topic]
        if fields:
            shown = ", ".join(field.name for field in fields[:MAX_TOLD]) + (", …" if len(fields) > MAX_TOLD else "")
            roles.append(f"has its {shown}")
        if any(part.source == topic for part in parts) and not fields:
            roles.append("announces it")
        if topic in device.states:
            roles.append("says whether it is there")
        if any(command.topic == topic for command in _commands_of(parts, asker, {})):
            roles.append("takes its commands")
        problems = [field.problem for field in fields if field.problem]
        text = f"device {name!r} ({parts[0].keys[0]}): this topic {' and '.join(roles) or 'belongs to it'}"
        found.append((not problems, text + "".join(f"; {problem}" for problem in problems[:MAX_TOLD])))
    if asker.may_read(topic):
        problems = registry.problems_of(topic)[:MAX_TOLD]
        found += [(False, f"not all that it announces can be read: {text}") for text in problems]
    return found


def words_for(registry: Registry, topic: str, path: Path, asker: Asker) -> tuple[str, str] | None:
    """What to call the value at a place in the payload of a topic, and its unit; None where no device has it.

    A value of several devices has the words of the first. One that is scaled has no unit: it is not what stands there.
    """
    for device in registry.devices_of(topic):
        parts = _parts_for(device, asker)
        for _, field in _fields_of(parts, asker):
            if (field.topic, field.path) == (topic, path):
                is_plain = (field.scale, field.offset) == (1.0, 0.0)
                title = f"{_first(parts, 'name') or parts[0].keys[0]} {field.name}"
                return title, field.unit if is_plain else ""
    return None


def _first(parts: list[Part], member: str) -> str:
    return next((text for part in parts if (text := str(getattr(part, member)))), "")


def _presence_for(device: Device, asker: Asker, history: History, topics: set[str], now_ms: int) -> Presence:
    rule = device.rule
    if rule is None:
        return Presence.UNKNOWN
    allowed = tuple(state for state in rule.topics if asker.may_read(state.topic))
    if rule.topics and not allowed:
        return Presence.UNKNOWN
    return presence_of(Availability(allowed, rule.mode, rule.silence_seconds), history.topic, topics, now_ms)


def _fields_of(parts: list[Part], asker: Asker) -> list[tuple[Field, Field]]:
    """The fields of all parts, each value once: as it was announced, and as it is told."""
    places: dict[Any, int] = {}
    found: list[tuple[Field, Field]] = []
    ids: set[str] = set()
    described: dict[str, str] = {}  # by topic, whose word went first
    for part in parts:
        for field in part.fields:
            if not asker.may_read(field.topic):
                continue
            if described.setdefault(field.topic, part.habit) != part.habit and field.path is None and not field.metric:
                continue  # what computes of values that are here already
            source = None if field.template is None else field.template.source
            place = (field.topic, field.path, field.metric, source, field.scale, field.offset)
            at = places.get(place)
            if at is not None:
                before, shown = found[at]
                unit, device_class = shown.unit or field.unit, shown.device_class or field.device_class
                if unit != shown.unit or device_class != shown.device_class:
                    found[at] = before, msgspec.structs.replace(shown, unit=unit, device_class=device_class)
                continue
            places[place] = len(found)
            shown = field
            number = 1
            while shown.id in ids:
                number += 1
                shown = msgspec.structs.replace(field, id=f"{field.id}-{number}")
            ids.add(shown.id)
            found.append((field, shown))
    return found


def _commands_of(parts: list[Part], asker: Asker, shown: dict[str, str]) -> list[Command]:
    found: list[Command] = []
    ids: set[str] = set()
    described: dict[str, str] = {}
    for part in parts:
        for command in part.commands:
            # who knows the device better has said already what it can be told there
            if described.setdefault(command.topic, part.habit) != part.habit or command.id in ids:
                continue
            if asker.may_publish(command.topic):
                ids.add(command.id)
                field = shown.get(command.field, "")
                found.append(command if field == command.field else msgspec.structs.replace(command, field=field))
    return found


def _field_json(field: Field) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": field.id,
        "name": field.name,
        "kind": str(field.kind),
        "unit": field.unit,
        "device_class": field.device_class,
        "topic": field.topic,
        "path": None if field.path is None else path_text(field.path),
    }
    if field.scale != 1.0:
        found["scale"] = field.scale
    if field.offset != 0.0:
        found["offset"] = field.offset
    if field.metric:
        found["metric"] = field.metric
    if field.template is not None:
        found["template"] = field.template.source
    if field.problem:
        found["problem"] = field.problem
    if field.is_diagnostic:
        found["diagnostic"] = True
    return found


def _command_json(command: Command) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": command.id,
        "name": command.name,
        "kind": str(command.kind),
        "topic": command.topic,
    }
    if command.payloads:
        found["payloads"] = dict(command.payloads)
    elif not command.problem:
        found |= {"before": command.before, "after": command.after}
    if command.is_json:
        found["json"] = True
    for name, value in (("min", command.least), ("max", command.most), ("step", command.step)):
        if value is not None:
            found[name] = value
    if command.unit:
        found["unit"] = command.unit
    if command.field:
        found["field"] = command.field
    if command.retain:
        found["retain"] = True
    if command.problem:
        found["problem"] = command.problem
    return found


def _value(field: Field, message: Message, value: Any) -> Any:
    """The value of a field in a message; None where it isn't there."""
    if field.problem or field.kind is FieldKind.IMAGE:
        return None
    if field.template is not None:
        if message.kind is Kind.BASE64:
            return None
        try:
            found = field.template.evaluate(message.shown.decode(), value)
        except (TemplateError, RecursionError):
            return None
        return found if isinstance(found, (int, float, bool, str)) else None
    found = _at(value, field.path or ())
    if (field.scale != 1.0 or field.offset != 0.0) and is_number(found):
        return found * field.scale + field.offset
    return found


def _lacks(field: Field, value: Any) -> bool:
    """Whether an object has no such member; one that is null is there."""
    if field.template is not None or not field.path or not isinstance(value, dict):
        return False
    for step in field.path:
        if not isinstance(value, dict):
            return False
        if step not in value:
            return True
        value = value[step]
    return False


def _earlier(topic: Topic) -> Iterator[tuple[Message, Any]]:
    """Objects that a topic had before its newest message, newest first."""
    left = MAX_VALUE_BYTES
    if topic.last is not None:
        for message in islice(topic.before(topic.last.seq - 1, 0), LOOKED_BACK_FOR_MEMBERS):
            left -= len(message.token)
            if left < 0:
                return
            if message.kind is Kind.JSON and isinstance(value := message.value(), dict):
                yield message, value


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """Metrics by name: as our decoder writes them, else as Eclipse Tahu does."""
    if not isinstance(value, dict):
        return
    if isinstance(named := value.get("values"), dict):
        yield from named.items()
    metrics = value.get("metrics")
    for each in metrics if isinstance(metrics, list) else ():
        if isinstance(each, dict) and isinstance(name := each.get("name"), str):
            yield name, each.get("value")


def _at(value: Any, path: Path) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value

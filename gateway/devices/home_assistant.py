"""Home Assistant's discovery: a retained message for one entity, or for a device with all of its components.

After Home Assistant's documentation of its MQTT integration, "MQTT discovery" and the pages of each platform.

Invariant: abbreviations, `~` and what a device shares with its components are written out before anything is read, so
that both forms are read by the same code; a template is followed as far as `templates` can, and named where it can't.

It is long because the platforms differ in little, and what they share is said once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from gateway.devices.model import (
    AnnouncementError,
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
    topic_of,
)
from gateway.devices.templates import Template, TemplateError, template_of

__all__ = ["COMPONENTS", "NAME", "claim", "owner", "read"]

NAME = "home_assistant"

COMPONENTS = frozenset({
    "alarm_control_panel", "binary_sensor", "button", "camera", "climate", "cover", "date", "datetime",
    "device_automation", "device_tracker", "event", "fan", "humidifier", "image", "lawn_mower", "light", "lock",
    "notify", "number", "scene", "select", "sensor", "siren", "switch", "tag", "text", "time", "update",
    "vacuum", "valve", "water_heater",
})  # fmt: skip
"""What an entity can be; `device` in the place of one announces several."""

MAX_ENTITIES = 500
MAX_TOPICS = 8
"""Topics of one availability that are looked at."""

MAX_KEYS = 8
"""Identifiers and connections of one device that are looked at."""

ABBREVIATIONS = {
    "act_t": "action_topic", "act_tpl": "action_template", "avty": "availability", "avty_mode": "availability_mode",
    "avty_t": "availability_topic", "avty_tpl": "availability_template", "bri_cmd_t": "brightness_command_topic",
    "bri_cmd_tpl": "brightness_command_template", "bri_scl": "brightness_scale",
    "bri_stat_t": "brightness_state_topic", "bri_val_tpl": "brightness_value_template", "cmd_t": "command_topic",
    "cmd_tpl": "command_template", "cmps": "components", "curr_hum_t": "current_humidity_topic",
    "curr_hum_tpl": "current_humidity_template", "curr_temp_t": "current_temperature_topic",
    "curr_temp_tpl": "current_temperature_template", "dev": "device", "dev_cla": "device_class",
    "ent_cat": "entity_category", "exp_aft": "expire_after", "fan_mode_cmd_t": "fan_mode_command_topic",
    "fan_mode_stat_t": "fan_mode_state_topic", "fan_mode_stat_tpl": "fan_mode_state_template",
    "hum_cmd_t": "target_humidity_command_topic", "hum_cmd_tpl": "target_humidity_command_template",
    "hum_stat_t": "target_humidity_state_topic", "hum_state_tpl": "target_humidity_state_template",
    "img_e": "image_encoding", "img_t": "image_topic",
    "json_attr_t": "json_attributes_topic", "max_temp": "max_temp", "min_temp": "min_temp",
    "mode_cmd_t": "mode_command_topic", "mode_cmd_tpl": "mode_command_template", "mode_stat_t": "mode_state_topic",
    "mode_stat_tpl": "mode_state_template", "o": "origin", "obj_id": "object_id", "ops": "options", "p": "platform",
    "pct_cmd_t": "percentage_command_topic", "pct_cmd_tpl": "percentage_command_template",
    "pct_stat_t": "percentage_state_topic", "pct_val_tpl": "percentage_value_template", "pl_avail": "payload_available",
    "pl_cls": "payload_close", "pl_lock": "payload_lock", "pl_not_avail": "payload_not_available",
    "pl_off": "payload_off", "pl_on": "payload_on", "pl_open": "payload_open", "pl_prs": "payload_press",
    "pl_stop": "payload_stop", "pl_unlk": "payload_unlock", "pos_t": "position_topic", "pos_tpl": "position_template",
    "pr_mode_cmd_t": "preset_mode_command_topic", "pr_mode_stat_t": "preset_mode_state_topic",
    "pr_mode_val_tpl": "preset_mode_value_template", "pr_modes": "preset_modes", "ret": "retain",
    "set_pos_t": "set_position_topic", "set_pos_tpl": "set_position_template", "stat_cla": "state_class",
    "stat_off": "state_off", "stat_on": "state_on", "stat_t": "state_topic", "stat_tpl": "state_template",
    "stat_val_tpl": "state_value_template", "t": "topic", "temp_cmd_t": "temperature_command_topic",
    "temp_cmd_tpl": "temperature_command_template", "temp_stat_t": "temperature_state_topic",
    "temp_stat_tpl": "temperature_state_template", "temp_unit": "temperature_unit", "uniq_id": "unique_id",
    "unit_of_meas": "unit_of_measurement", "val_tpl": "value_template",
}  # fmt: skip
"""Of those members that are read here."""

DEVICE_ABBREVIATIONS = {
    "cns": "connections", "ids": "identifiers", "mf": "manufacturer", "mdl": "model", "sa": "suggested_area",
    "sw": "sw_version",
}  # fmt: skip

_VALUES: dict[str, tuple[tuple[str, str, str, FieldKind, str], ...]] = {
    "climate": (
        ("", "current_temperature_topic", "current_temperature_template", FieldKind.NUMBER, "temperature"),
        ("humidity", "current_humidity_topic", "current_humidity_template", FieldKind.NUMBER, "humidity"),
        ("target_temperature", "temperature_state_topic", "temperature_state_template", FieldKind.NUMBER,
         "temperature"),
        ("mode", "mode_state_topic", "mode_state_template", FieldKind.TEXT, ""),
        ("action", "action_topic", "action_template", FieldKind.TEXT, ""),
        ("fan_mode", "fan_mode_state_topic", "fan_mode_state_template", FieldKind.TEXT, ""),
        ("preset", "preset_mode_state_topic", "preset_mode_value_template", FieldKind.TEXT, ""),
    ),
    "light": (
        ("", "state_topic", "state_value_template", FieldKind.STATE, ""),
        ("brightness", "brightness_state_topic", "brightness_value_template", FieldKind.NUMBER, ""),
    ),
    "fan": (
        ("", "state_topic", "state_value_template", FieldKind.STATE, ""),
        ("speed", "percentage_state_topic", "percentage_value_template", FieldKind.NUMBER, ""),
        ("preset", "preset_mode_state_topic", "preset_mode_value_template", FieldKind.TEXT, ""),
    ),
    "cover": (
        ("", "state_topic", "value_template", FieldKind.TEXT, ""),
        ("position", "position_topic", "position_template", FieldKind.NUMBER, ""),
    ),
    "humidifier": (
        ("", "state_topic", "state_value_template", FieldKind.STATE, ""),
        ("humidity", "current_humidity_topic", "current_humidity_template", FieldKind.NUMBER, "humidity"),
        ("target_humidity", "target_humidity_state_topic", "target_humidity_state_template", FieldKind.NUMBER,
         "humidity"),
    ),
}  # fmt: skip
_VALUES["water_heater"] = _VALUES["climate"]
_USUAL = (("", "state_topic", "value_template", FieldKind.TEXT, ""),)

_NUMBERS: dict[str, tuple[tuple[str, str, str, str, str, str], ...]] = {
    "number": (("", "command_topic", "command_template", "min", "max", "step"),),
    "climate": (
        ("target_temperature", "temperature_command_topic", "temperature_command_template", "min_temp", "max_temp",
         "temp_step"),
    ),
    "light": (("brightness", "brightness_command_topic", "brightness_command_template", "", "brightness_scale", ""),),
    "fan": (("speed", "percentage_command_topic", "percentage_command_template", "", "", ""),),
    "cover": (("position", "set_position_topic", "set_position_template", "", "", ""),),
    "humidifier": (
        ("target_humidity", "target_humidity_command_topic", "target_humidity_command_template", "min_humidity",
         "max_humidity", ""),
    ),
}  # fmt: skip
_NUMBERS["water_heater"] = _NUMBERS["climate"]

_SELECTS: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "select": (("", "command_topic", "command_template", "options"),),
    "climate": (
        ("mode", "mode_command_topic", "mode_command_template", "modes"),
        ("fan_mode", "fan_mode_command_topic", "fan_mode_command_template", "fan_modes"),
        ("preset", "preset_mode_command_topic", "preset_mode_command_template", "preset_modes"),
    ),
    "fan": (("preset", "preset_mode_command_topic", "preset_mode_command_template", "preset_modes"),),
}

_SWITCHES = frozenset({"switch", "light", "fan", "siren", "humidifier"})
_CHOICES = {
    "lock": (("lock", "payload_lock", "LOCK"), ("unlock", "payload_unlock", "UNLOCK")),
    "cover": (("open", "payload_open", "OPEN"), ("close", "payload_close", "CLOSE"), ("stop", "payload_stop", "STOP")),
    "valve": (("open", "payload_open", "OPEN"), ("close", "payload_close", "CLOSE")),
}
_KINDS = frozenset({
    "light", "switch", "fan", "cover", "lock", "climate", "humidifier", "vacuum", "valve", "camera", "siren",
    "water_heater",
})  # fmt: skip

_STATELESS = frozenset({"button", "camera", "device_automation", "image", "notify", "scene", "tag"})
"""Platforms without a value: the `state_topic` that a device gives for all of its components is none of theirs."""

_IMAGES = {"camera": "topic", "image": "image_topic"}
"""Where the picture of an entity is, as bytes."""

_NUMERIC_LESS = frozenset({"enum", "timestamp", "date"})


def claim(levels: list[str]) -> tuple[str, bool] | None:
    """The announcement that a topic is, `<prefix>/<component>/[<node>/]<object>/config`."""
    if (
        levels[-1] == "config"
        and len(levels) >= 4
        and any(
            level in COMPONENTS or level == "device" for level in (levels[-3], levels[-4] if len(levels) > 4 else "")
        )
    ):
        return "/".join(levels), False
    return None


def owner(_levels: list[str]) -> str | None:
    """None: these announcements are about topics of others."""
    return None


def read(key: str, known: Known, owner_of: Callable[[str], str | None]) -> Iterator[Part | Problem | None]:
    """The device of an announcement; `owner_of` knows the key of the device whose topic one is, by its form."""
    config = known.value(key)
    if config is None:
        return
    if not isinstance(config, dict):
        raise AnnouncementError(f"expected an object, got {type(config).__name__}")
    config = _written_out(config, ABBREVIATIONS)
    levels = key.split("/")
    component = next(
        level
        for level in (levels[-3], levels[-4] if len(levels) > 4 else "")
        if level in COMPONENTS or level == "device"
    )
    entities: list[tuple[str, str, dict[str, Any]]] = []
    if component == "device":
        components = config.get("components")
        if not isinstance(components, dict):
            raise AnnouncementError("components: expected an object")
        shared = {name: value for name, value in config.items() if name not in ("components", "device", "origin")}
        for identifier, about in list(components.items())[:MAX_ENTITIES]:
            if not isinstance(about, dict):
                yield Problem(key, f"components: {text_of(identifier, 40)} is no object")
                continue
            about = _written_out(about, ABBREVIATIONS)
            if len(about) > 1:  # nothing but its platform: it was taken away
                entities.append((identifier, text_of(about.get("platform")), {**shared, **about}))
    else:
        entities.append((levels[-2], component, config))
    device = config.get("device")
    about_device = _written_out(device, DEVICE_ABBREVIATIONS) if isinstance(device, dict) else {}
    fields: list[Field] = []
    commands: list[Command] = []
    kind = ""
    for identifier, platform, entity in entities:
        try:
            entity = _with_base(entity)
            some, more = _entity(identifier, platform, entity, about_device)
        except AnnouncementError as error:
            where = f"components: {text_of(identifier, 40)}: " if component == "device" else ""
            yield Problem(key, f"{where}{error}")
            continue
        fields += some
        commands += more
        if platform in _KINDS:
            kind = kind or platform
    if not fields and not commands:
        return
    first = _with_base(entities[0][2])
    # what a device says of itself comes more rarely than what it measures, and does not make it silent
    measured = [field for field in fields if not field.is_diagnostic] or fields
    telling = [entity for _, _, entity in entities if measured is fields or entity.get("entity_category") is None]
    silences = [seconds for entity in telling if (seconds := _number(entity.get("expire_after")))]
    silence = max(silences) if silences and len(silences) == len(measured) else None
    keys = _keys(about_device)
    named = text_of(about_device.get("name"))
    if not keys:
        # an entity without a device is one for itself
        keys = [f"entity:{text_of(first.get('unique_id')) or key}"]
        named = named or text_of(first.get("name")) or text_of(levels[-2])
    owners = {found for field in fields if (found := owner_of(field.topic)) is not None}
    origin = config.get("origin")
    yield Part(
        NAME,
        key,
        (*keys, *(owners if len(owners) == 1 else ())),
        name=named,
        model=text_of(about_device.get("model")),
        manufacturer=text_of(about_device.get("manufacturer")),
        area=text_of(about_device.get("suggested_area")),
        version=text_of(about_device.get("sw_version") or (origin.get("sw") if isinstance(origin, dict) else "")),
        kind=kind,
        fields=tuple(fields),
        commands=tuple(commands),
        availability=_availability(first, silence),
        via=text_of(about_device.get("via_device")),
    )


def _written_out(config: dict[str, Any], table: dict[str, str]) -> dict[str, Any]:
    return {table.get(name, name): value for name, value in config.items()}


def _with_base(config: dict[str, Any]) -> dict[str, Any]:
    """With the base topic in the place of each `~` that begins or ends a topic."""
    base = config.get("~")
    if not isinstance(base, str):
        return config

    def topic(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("~"):
            value = base + value[1:]
        if isinstance(value, str) and value.endswith("~"):
            value = value[:-1] + base
        return value

    found = {name: topic(value) if name.endswith("topic") else value for name, value in config.items()}
    listed = found.get("availability")
    if isinstance(listed, list):
        found["availability"] = [
            {name: topic(value) if name in ("topic", "t") else value for name, value in each.items()}
            for each in listed[:MAX_TOPICS]
            if isinstance(each, dict)
        ]
    return found


def _keys(device: dict[str, Any]) -> list[str]:
    identifiers = device.get("identifiers")
    found = [text_of(each) for each in (identifiers if isinstance(identifiers, list) else [identifiers])[:MAX_KEYS]]
    connections = device.get("connections")
    pairs = connections[:MAX_KEYS] if isinstance(connections, list) else []
    named = [(text_of(pair[0], 20), text_of(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2]
    found += [mac_key(value) or f"{kind}:{value}" for kind, value in named if value]
    return list(dict.fromkeys(mac_key(each) or each for each in found if each))


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15
    return float(value) if is_number else None


def _followed(source: Any) -> tuple[Template | None, str]:
    """A template, and why it can't be followed."""
    if source is None or source == "":
        return None, ""
    if not isinstance(source, str):
        return None, f"template: expected a text, got {type(source).__name__}"
    try:
        return template_of(source), ""
    except (TemplateError, RecursionError) as error:
        return None, f"template {text_of(source, 60)!r}: {error}"


def _label(identifier: str, platform: str, entity: dict[str, Any], device: dict[str, Any]) -> str:
    name = text_of(entity.get("name"))
    if name:
        own = text_of(device.get("name"))
        return name.removeprefix(own).lstrip(" -:") or name if own else name
    device_class = text_of(entity.get("device_class"))
    return label_of(device_class or (platform if "name" in entity else identifier))


def _entity(
    identifier: str, platform: str, entity: dict[str, Any], device: dict[str, Any]
) -> tuple[list[Field], list[Command]]:
    """The values and commands of an entity."""
    if platform not in COMPONENTS:
        raise AnnouncementError(f"platform {platform[:40]!r} is not known here")
    name = text_of(entity.get("unique_id")) or text_of(identifier)
    label = _label(identifier, platform, entity, device)
    is_json_light = platform == "light" and entity.get("schema") == "json"
    fields: list[Field] = []
    if platform in _IMAGES and entity.get(_IMAGES[platform]) is not None and not entity.get("image_encoding"):
        where = topic_of(entity[_IMAGES[platform]], _IMAGES[platform])
        fields.append(Field(name, label, where, None, kind=FieldKind.IMAGE))
    for role, topic_member, template_member, kind, device_class in _VALUES.get(platform, _USUAL):
        topic = entity.get(topic_member)
        if topic is None and platform == "device_tracker":
            topic = entity.get("json_attributes_topic")
        if topic is None or platform in _STATELESS:
            continue
        source = entity.get(template_member) or (entity.get("value_template") if role == "" else None)
        template, problem = _followed("{{ value_json.state }}" if is_json_light else source)
        if role == "":
            device_class = text_of(entity.get("device_class")) or device_class
            kind = _kind(platform, entity, device_class, kind)
        linear = template.linear if template is not None else None
        is_place = template is None and not problem
        fields.append(
            Field(
                f"{name}.{role}" if role else name,
                label_of(role) if role else label,
                topic_of(topic, topic_member),
                () if is_place else None if linear is None else linear.path,
                text_of(entity.get("unit_of_measurement") or _unit(device_class, entity, platform), 20),
                device_class,
                kind,
                1.0 if linear is None else linear.scale,
                0.0 if linear is None else linear.offset,
                "",
                None if is_place or linear is not None else template,
                problem,
                entity.get("entity_category") is not None,
            )
        )
    return fields, _commands(name, label, platform, entity, is_json_light)


def _unit(device_class: str, entity: dict[str, Any], platform: str) -> str:
    if platform in ("climate", "water_heater") and device_class == "temperature":
        return f"°{text_of(entity.get('temperature_unit'), 1) or 'C'}"
    return "%" if device_class == "humidity" and platform == "humidifier" else ""


def _kind(platform: str, entity: dict[str, Any], device_class: str, usual: FieldKind) -> FieldKind:
    if platform in ("binary_sensor", "switch", "siren"):
        return FieldKind.STATE
    if platform == "number":
        return FieldKind.NUMBER
    if platform == "sensor":
        is_number = entity.get("unit_of_measurement") or entity.get("state_class") or device_class
        return FieldKind.NUMBER if is_number and device_class not in _NUMERIC_LESS else FieldKind.TEXT
    return usual


def _commands(name: str, label: str, platform: str, entity: dict[str, Any], is_json_light: bool) -> list[Command]:
    found: list[Command] = []
    retain = entity.get("retain") is True

    def add(role: str, topic: Any, member: str, kind: CommandKind, payloads: Any = (), **more: Any) -> None:
        identifier = f"{name}.{role}" if role else name
        shown = label_of(role) if role else label
        where = topic_of(topic, member)
        found.append(Command(identifier, shown, kind, where, tuple(payloads), field=identifier, retain=retain, **more))

    topic = entity.get("command_topic")
    if is_json_light and topic is not None:
        add("", topic, "command_topic", CommandKind.SWITCH, (("on", '{"state":"ON"}'), ("off", '{"state":"OFF"}')))
        if entity.get("brightness") is True:
            most = _number(entity.get("brightness_scale")) or 255.0
            around = {"before": '{"brightness":', "after": "}", "least": 0.0, "most": most}
            add("brightness", topic, "command_topic", CommandKind.NUMBER, **around)
        return found
    if platform in _SWITCHES and topic is not None and entity.get("schema", "basic") == "basic":
        words = [(each, _payload(entity, f"payload_{each}", each.upper())) for each in ("on", "off")]
        add("", topic, "command_topic", CommandKind.SWITCH, words)
    elif platform in ("button", "scene") and topic is not None:
        word = (
            _payload(entity, "payload_press", "PRESS") if platform == "button" else _payload(entity, "payload_on", "ON")
        )
        payloads, problem = _filled([("press", word)], entity.get("command_template"))
        add("", topic, "command_topic", CommandKind.BUTTON, payloads, problem=problem)
    elif platform in _CHOICES and topic is not None:
        words = [(word, _payload(entity, member, usual)) for word, member, usual in _CHOICES[platform]]
        add("", topic, "command_topic", CommandKind.SELECT, words)
    elif platform in ("text", "notify") and topic is not None:
        before, after, problem = _around(entity.get("command_template"))
        add("", topic, "command_topic", CommandKind.TEXT, before=before, after=after, problem=problem)
    for role, member, template, *names in _NUMBERS.get(platform, ()):
        if (topic := entity.get(member)) is not None:
            before, after, problem = _around(entity.get(template))
            usual = {"number": (1.0, 100.0), "light": (0.0, 255.0), "climate": (7.0, 35.0)}.get(platform, (0.0, 100.0))
            bounds = [_number(entity.get(each)) for each in names]
            add(
                role,
                topic,
                member,
                CommandKind.NUMBER,
                before=before,
                after=after,
                problem=problem,
                least=usual[0] if bounds[0] is None else bounds[0],
                most=usual[1] if bounds[1] is None else bounds[1],
                step=bounds[2],
                unit=text_of(entity.get("unit_of_measurement"), 20),
            )
    for role, member, template, options in _SELECTS.get(platform, ()):
        if (topic := entity.get(member)) is not None and isinstance(choices := entity.get(options), list):
            words = [(text_of(each), text_of(each)) for each in choices[:100] if text_of(each)]
            payloads, problem = _filled(words, entity.get(template))
            add(role, topic, member, CommandKind.SELECT, payloads, problem=problem)
    return found


def _payload(entity: dict[str, Any], member: str, usual: str) -> str:
    value = entity.get(member, usual)
    if isinstance(value, str):
        return value[:10_000]
    return msgspec.json.encode(value).decode()


def _around(source: Any) -> tuple[str, str, str]:
    """What a template for payloads puts around the value, and why that can't be said."""
    template, problem = _followed(source)
    if template is None:
        return "", "", problem
    if template.around is None:
        return "", "", f"template {text_of(source, 60)!r}: more than the value is put into it"
    return *template.around, ""


def _filled(words: list[tuple[str, str]], source: Any) -> tuple[list[tuple[str, str]], str]:
    """The payload for each word, by a template."""
    template, problem = _followed(source)
    if template is None:
        return (words, "") if not problem else ([], problem)
    try:
        filled = template.fill([payload for _, payload in words])
        return [(word, payload) for (word, _), payload in zip(words, filled, strict=True)], ""
    except (TemplateError, RecursionError) as error:
        return [], f"template {text_of(source, 60)!r}: {error}"


def _availability(entity: dict[str, Any], silence: float | None) -> Availability | None:
    listed = entity.get("availability")
    topics: list[StateTopic] = []
    if isinstance(listed, list):
        for each in listed[:MAX_TOPICS]:
            if isinstance(each, dict):
                each = _written_out(each, ABBREVIATIONS)
                topics.append(_state_topic(each.get("topic"), each.get("value_template"), each))
    elif entity.get("availability_topic") is not None:
        topics.append(_state_topic(entity["availability_topic"], entity.get("availability_template"), entity))
    if not topics and silence is None:
        return None
    mode = text_of(entity.get("availability_mode"))
    return Availability(tuple(topics), mode if mode in ("all", "any", "latest") else "latest", silence)


def _state_topic(topic: Any, source: Any, about: dict[str, Any]) -> StateTopic:
    template, _ = _followed(source)
    states = states_of(
        _payload(about, "payload_available", "online"), _payload(about, "payload_not_available", "offline")
    )
    return StateTopic(topic_of(topic, "availability"), states, (), template)

"""Topics and payloads of a sensor: what the simulator publishes and what a board publishes.

One invariant: the same arguments give the same JSON, digit by digit, on CPython and on MicroPython (1.20 or later).
So nothing is imported but ``json``, and numbers are written from integers, for a board's floats have 32 bits. The order
of an object's members may differ, because MicroPython's dicts have none. The firmware carries a copy of this file.

It leaves to others: when something is published, with which QoS, and whether it is retained.
"""

import json

ONLINE = "online"
OFFLINE = "offline"
SLEEPING = "sleeping"

LOG_LEVELS = ("debug", "info", "warning", "error")

SCHEMA = 1
# A shorter interval would be a loop without a pause: on a board for its only processor, in a simulator for all others.
MIN_INTERVAL_SECONDS = 0.01
MAX_INTERVAL_SECONDS = 86_400

# field: (unit, Home Assistant device class, lowest and highest believable value, decimals)
FIELDS = {
    "temperature": ("°C", "temperature", -40, 85, 2),
    "humidity": ("%", "humidity", 0, 100, 1),
    "dew_point": ("°C", "temperature", -40, 60, 2),
    "pressure": ("hPa", "atmospheric_pressure", 300, 1100, 2),
    "co2": ("ppm", "carbon_dioxide", 0, 40000, 0),
    "tvoc": ("ppb", "volatile_organic_compounds_parts", 0, 60000, 0),
    "gas_resistance": ("Ω", None, 0, 200000000, 0),
    "pm1": ("µg/m³", "pm1", 0, 1000, 1),
    "pm25": ("µg/m³", "pm25", 0, 1000, 1),
    "pm10": ("µg/m³", "pm10", 0, 1000, 1),
    "illuminance": ("lx", "illuminance", 0, 120000, 0),
    "moisture": ("%", "moisture", 0, 100, 1),
    "sound_pressure": ("dB", "sound_pressure", 0, 140, 1),
    "battery": ("%", "battery", 0, 100, 0),
    "voltage": ("V", "voltage", 0, 480, 3),
    "current": ("A", "current", 0, 1000, 3),
    "power": ("W", "power", 0, 1000000, 1),
    "energy": ("kWh", "energy", 0, 10000000, 3),
    "power_factor": (None, "power_factor", 0, 1, 2),
    "frequency": ("Hz", "frequency", 0, 1000, 2),
    "vibration": ("mm/s", None, 0, 100, 3),
    "acceleration": ("g", None, 0, 50, 3),
    "rpm": ("rpm", None, 0, 60000, 0),
    "flow": ("L/min", "volume_flow_rate", 0, 10000, 2),
    "water": ("L", "water", 0, 10000000, 3),
    "pulses": (None, None, 0, 1000000000, 0),
    "weight": ("kg", "weight", -1000, 10000, 3),
    "rssi": ("dBm", "signal_strength", -120, 0, 0),
    "latitude": ("°", None, -90, 90, 6),
    "longitude": ("°", None, -180, 180, 6),
    "altitude": ("m", None, -500, 10000, 1),
    "speed": ("km/h", "speed", 0, 1000, 1),
    "heading": ("°", None, 0, 360, 1),
    "distance": ("mm", "distance", 0, 10000, 0),
    "adc": ("mV", "voltage", 0, 5000, 0),
    "occupancy": (None, None, 0, 10000, 0),
    "motion": (None, None, 0, 1, 0),
    "contact": (None, None, 0, 1, 0),
}

TOTALS = ("energy", "water", "pulses")  # they only grow, and start again from 0 with the sensor

_ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789_-"


def is_valid_id(sensor_id: str) -> bool:
    """Whether ``sensor_id`` names a sensor: one or more of ``a-z``, ``0-9``, ``_`` and ``-``."""
    return len(sensor_id) > 0 and all(character in _ID_CHARACTERS for character in sensor_id)


def state_topic(sensor_id: str) -> str:
    """Where readings go (QoS 1, not retained)."""
    return "sensors/" + sensor_id + "/state"


def status_topic(sensor_id: str) -> str:
    """Where ``online``, ``offline`` (the will) or ``sleeping`` goes (retained)."""
    return "sensors/" + sensor_id + "/status"


def meta_topic(sensor_id: str) -> str:
    """Where the sensor describes itself (retained)."""
    return "sensors/" + sensor_id + "/meta"


def cmd_topic(sensor_id: str) -> str:
    """Where the sensor takes commands."""
    return "sensors/" + sensor_id + "/cmd"


def diag_topic(sensor_id: str) -> str:
    """Where the sensor says how it is (retained)."""
    return "sensors/" + sensor_id + "/diag"


def log_topic(sensor_id: str) -> str:
    """Where the sensor's log goes, a line each (QoS 0, not retained)."""
    return "sensors/" + sensor_id + "/log"


def update_topic(sensor_id: str) -> str:
    """Where the sensor asks for pieces of a new program."""
    return "sensors/" + sensor_id + "/update"


def piece_topic(sensor_id: str) -> str:
    """Where it gets them."""
    return "sensors/" + sensor_id + "/piece"


def discovery_topic(sensor_id: str) -> str:
    """Where Home Assistant looks for the sensor's device discovery message (retained)."""
    return "homeassistant/device/" + sensor_id + "/config"


def state_payload(
    readings: dict[str, object], seq: int, boot: int, ts: float | None = None, ts_ms: int | None = None
) -> bytes:
    """One state message.

    Args:
        readings: Field to value. Numbers of a field in ``FIELDS`` are rounded to its decimals; a value that is None,
            NaN or infinite is left out, because a reading that failed is not a reading.
        seq: Number of this message since the last restart, from 0.
        boot: Number of restarts so far.
        ts: Time of measurement in seconds since 1970; None when the clock is not set.
        ts_ms: The same in whole milliseconds, for boards whose floats can't hold it. It wins over ``ts``.
    """
    if ts_ms is None and ts is not None:
        ts_ms = round(ts * 1000)
    text = '{"seq":%d,"boot":%d' % (seq, boot)
    if ts_ms is not None:
        text = '{"ts":%d.%03d,"seq":%d,"boot":%d' % (ts_ms // 1000, ts_ms % 1000, seq, boot)
    for name, value in readings.items():
        if value is None or not _is_finite(value):
            continue
        if name in FIELDS and isinstance(value, (int, float)) and not isinstance(value, bool):
            # No field of the table needs escaping.
            text += ',"' + name + '":' + number_text(value, FIELDS[name][4])
        else:
            text += "," + _string_text(name) + ":" + json_text(value)
    return (text + "}").encode()


def log_payload(
    level: str, text: str, number: int, boot: int, uptime_ms: int, ts_ms: int | None = None, before: bool = False
) -> bytes:
    """One line of a sensor's log.

    Args:
        level: One of ``LOG_LEVELS``.
        text: For people.
        number: Number of the line since the start, from 0; a hole is a loss.
        boot: Number of restarts so far, when it was written.
        uptime_ms: Milliseconds since the start, when it was written.
        ts_ms: Milliseconds since 1970; None when the clock is not set.
        before: It was kept through a reset: one of the last lines of the life before.
    """
    head = '{"n":%d,"boot":%d,"up":%d.%03d' % (number, boot, uptime_ms // 1000, uptime_ms % 1000)
    if ts_ms is not None:
        head += ',"ts":%d.%03d' % (ts_ms // 1000, ts_ms % 1000)
    if before:
        head += ',"before":true'
    return (head + ',"level":' + _string_text(level) + ',"text":' + _string_text(text) + "}").encode()


def meta_payload(
    name: str,
    model: str,
    firmware: str,
    interval: float,
    fields: object,
    simulated: bool = False,
    errors: object = None,
    extra: dict[str, object] | None = None,
) -> bytes:
    """The sensor's description of itself.

    Args:
        name: For people, such as ``Living room``.
        model: Kind of device, such as ``ESP32 + BME280``.
        firmware: Name and version of what runs on it.
        interval: Seconds between two readings.
        fields: Names of its fields; or a dict of name to what differs from ``FIELDS`` (or None), such as
            ``{"temperature": {"max": 60}}``.
        simulated: True adds ``"simulated": true``: no instrument stands behind the readings.
        errors: Sensor to error text, or a list of texts; left out when empty.
        extra: Further members, at the end.
    """
    meta = {
        "schema": SCHEMA,
        "name": name,
        "model": model,
        "firmware": firmware,
        "interval": interval,
        "fields": {field: field_meta(field, _differences(fields, field)) for field in fields},  # type: ignore[attr-defined]
    }
    if simulated:
        meta["simulated"] = True
    if errors:
        meta["errors"] = errors
    if extra:
        meta.update(extra)
    return json_text(meta).encode()


def field_meta(field: str, differences: dict[str, object] | None = None) -> dict[str, object]:
    """Unit, device class, minimum and maximum of a field, those that it has.

    An unknown field has only what ``differences`` says.
    """
    meta: dict[str, object] = {}
    if field in FIELDS:
        unit, device_class, lowest, highest, _ = FIELDS[field]
        if unit is not None:
            meta["unit"] = unit
        if device_class is not None:
            meta["device_class"] = device_class
        meta["min"] = lowest
        meta["max"] = highest
    if differences:
        meta.update(differences)
    return meta


def discovery_parts(
    sensor_id: str,
    name: str,
    model: str,
    firmware: str,
    interval: float,
    fields: object,
    manufacturer: str = "MQTT-to-browser gateway",
    always_listens: bool = True,
    more: dict[str, dict[str, object]] | None = None,
) -> list[bytes]:
    """Home Assistant's device discovery: one retained message for all of the sensor's fields, in parts.

    A board may have no room for all of it in one piece.

    ``sleeping`` counts as available: a battery sensor between two readings is well. An entity turns unavailable by
    itself when nothing came for three intervals (at least 30 s).

    Source: Home Assistant's documentation of the MQTT integration, "Device discovery payload", and of MQTT Sensor.

    Args:
        sensor_id: As in its topics.
        name: As in ``meta_payload``, and so are model, firmware, interval and fields.
        model: Kind of device.
        firmware: Name and version.
        interval: Seconds between two readings.
        fields: Names, or a dict of name to differences.
        manufacturer: Who made the device.
        always_listens: False for a sensor that sleeps: it gets no restart button, for nobody would hear the press.
        more: What can be told to it: name to its component, which gets the name and the topic for commands.
    """
    prefix = "sensors_" + sensor_id + "_"
    device: dict[str, object] = {"name": name, "mf": manufacturer, "mdl": model, "sw": firmware}
    # Component by component: all of them as one object and as one text would take a board four times the memory.
    between = ""
    parts = [discovery_head(sensor_id, state_topic(sensor_id), firmware, device)]
    for field in fields:  # type: ignore[attr-defined]
        meta = field_meta(field, _differences(fields, field))
        component: dict[str, object] = {"p": "sensor", "name": label(field), "unique_id": prefix + field}
        if "device_class" in meta:
            component["device_class"] = meta["device_class"]
        if "unit" in meta:
            component["unit_of_measurement"] = meta["unit"]
        component["state_class"] = "total_increasing" if field in TOTALS else "measurement"
        # what is no name to Jinja, such as living-room_temperature, has to stand in quotes
        is_name = "-" not in field and not field[0].isdigit()
        component["value_template"] = "{{ value_json" + ("." + field if is_name else "['" + field + "']") + " }}"
        component["expire_after"] = max(30, int(3 * interval))
        if field in FIELDS:
            component["suggested_display_precision"] = FIELDS[field][4]
        if field in ("rssi", "battery", "voltage"):
            component["entity_category"] = "diagnostic"
        parts.append((between + _string_text(field) + ":" + json_text(component)).encode())
        between = ","
    for key in more or {}:
        component = {"name": label(key), "unique_id": prefix + key, "command_topic": cmd_topic(sensor_id)}
        component.update(more[key])  # type: ignore[index]
        if "brightness_scale" in component:
            component["brightness_command_topic"] = cmd_topic(sensor_id)
            component["brightness_state_topic"] = state_topic(sensor_id)
        parts.append((between + _string_text(key) + ":" + json_text(component)).encode())
        between = ","
    if always_listens:
        button = {
            "p": "button",
            "name": "Restart",
            "unique_id": prefix + "restart",
            "device_class": "restart",
            "entity_category": "config",
            "command_topic": cmd_topic(sensor_id),
            "payload_press": '{"reboot":true}',
        }
        parts.append((between + '"restart":' + json_text(button)).encode())
    parts.append(b"}}")
    return parts


def discovery_head(sensor_id: str, topic: str, firmware: str, device: dict[str, object]) -> bytes:
    """How a device message begins, up to its first component; ``}}`` ends it.

    Args:
        sensor_id: As in its topics.
        topic: Where the values are of components that name no other.
        firmware: Name and version.
        device: What is said of the device besides its identifier.
    """
    described = {
        "dev": dict(device, ids=["sensors_" + sensor_id]),
        "o": {"name": "sensors", "sw": firmware},
        "state_topic": topic,
        "availability": [
            {
                "topic": status_topic(sensor_id),
                "value_template": "{{ 'offline' if value == 'offline' else 'online' }}",
            }
        ],
        "qos": 1,
    }
    return (json_text(described)[:-1] + ',"cmps":{').encode()


def parse_command(payload: bytes, also: tuple[str, ...] = ()) -> dict[str, object]:
    """What ``sensors/<id>/cmd`` asks for, such as ``{"interval": 5}`` or ``{"reboot": true}``.

    Args:
        payload: As received.
        also: Names of further commands, which the caller checks itself.

    Raises:
        ValueError: Not a JSON object, empty, a name that is unknown, or a value that is out of range.
    """
    try:
        command = json.loads(bytes(payload).decode())
    except (ValueError, UnicodeError, RuntimeError):  # the last: nested too deep
        raise ValueError('a command is a JSON object such as {"interval": 5}') from None
    if not isinstance(command, dict) or not command:
        raise ValueError('a command is a JSON object such as {"interval": 5}')
    known = ["interval", "reboot"]
    known.extend(also)
    for name in command:
        if name not in known:
            raise ValueError("unknown command " + json_text(name) + ": known are " + ", ".join(known))
    if "interval" in command:
        interval = command["interval"]
        if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not _is_finite(interval):
            raise ValueError("interval is a number of seconds, not " + json_text(interval))
        if not MIN_INTERVAL_SECONDS <= interval <= MAX_INTERVAL_SECONDS:
            limits = (MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS, json_text(interval))
            raise ValueError("interval is from %g to %d seconds, not %s" % limits)
    if "reboot" in command and command["reboot"] is not True:
        raise ValueError("reboot takes true, not " + json_text(command["reboot"]))
    return command


def number_text(value: float, decimals: int) -> str:
    """``value`` in decimal notation, rounded, with one trailing zero at most: ``21.5``, ``21.0`` and ``21``.

    Built from an integer, because a 32-bit float would print as 21.53000068 or lose its last digit to ``round``.
    """
    scaled = round(value * 10**decimals)
    if decimals == 0:
        return str(scaled)
    sign = "-" if scaled < 0 else ""
    digits = str(abs(scaled))
    digits = "0" * (decimals + 1 - len(digits)) + digits
    fraction = digits[-decimals:].rstrip("0")
    return sign + digits[:-decimals] + "." + (fraction or "0")


def json_text(value: object) -> str:
    """``value`` as JSON without spaces, the same text on every interpreter; NaN and infinities become null."""
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return _string_text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return json.dumps(value) if _is_finite(value) else "null"
    if isinstance(value, dict):
        return "{" + ",".join([_string_text(str(key)) + ":" + json_text(value[key]) for key in value]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([json_text(item) for item in value]) + "]"
    raise TypeError("no JSON for " + str(type(value)))


def _string_text(text: str) -> str:
    # MicroPython's json.dumps writes UTF-8 and CPython's escapes it: neither is asked.
    # And characters are looked at one by one only where it must be: MicroPython keeps each kind of them for ever, and a
    # list of those of a line of the log takes 2 KiB in one piece, which a heap in use may not have.
    for code in text.encode():
        if code < 0x20:
            break
    else:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    parts = ['"']
    for character in text:
        code = ord(character)
        if character == '"' or character == "\\":
            parts.append("\\" + character)
        elif code < 0x20:
            parts.append("\\u%04x" % code)
        else:
            parts.append(character)
    parts.append('"')
    return "".join(parts)


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or value - value == 0


def _differences(fields: object, field: str) -> dict[str, object] | None:
    return fields[field] if isinstance(fields, dict) else None


def label(field: str) -> str:
    """A field's name for people."""
    known = {
        "co2": "CO₂",
        "pm1": "PM1",
        "pm25": "PM2.5",
        "pm10": "PM10",
        "tvoc": "TVOC",
        "rssi": "Signal",
        "rpm": "Speed",
        "adc": "ADC",
    }
    text = known.get(field, field.replace("_", " "))
    return text[0].upper() + text[1:]

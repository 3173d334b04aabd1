"""What a board must know: Wi-Fi, broker, sensors. Read from settings.json, and checked as a whole.

One invariant: `check` finds the same problems on the computer that flashes and on the board that starts, and its texts
never contain a password.

It leaves to others: asking people for the values (flash.py) and using them (app.py).
"""

import json

from .mqtt import parse_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "settings.json"
PROFILES = ("mains", "battery")

# driver: the names that an entry needs, and those that it may have
DRIVERS = {
    "adc": (("pin",), ("field", "factor", "points")),
    "bme280": (("scl", "sda"), ("address",)),
    "dht22": (("pin",), ()),
    "ds18b20": (("pin",), ("probes",)),
    "fake": ((), ()),
    "scd41": (("scl", "sda"), ("single_shot",)),
}

# name: what it is when it isn't said
DEFAULTS = {
    "id": None,  # from the MAC address
    "name": None,  # the id
    "wifi": None,  # {"ssid": …, "password": …}; None where the network is not ours to start
    "mqtt": None,  # {"url": …, "username": …, "password": …, "ca": file of the CA certificate}
    "sensors": [{"driver": "fake"}],
    "interval": 10,  # seconds
    "profile": "mains",
    "ntp": "pool.ntp.org",  # host or host:port; "" for none
    "discovery": False,  # Home Assistant
    "keepalive": 30,  # seconds
    "timeout": 10,  # seconds, for each wait of the MQTT client
    "buffer_messages": 100,  # readings kept while the broker is away
    "buffer_bytes": 16384,
    "watchdog": 180,  # seconds without verified progress before a reset; 0 for none
    "reboot_after": 3600,  # seconds without an answer from the broker before a reset; 0 for never
    "awake": 30,  # seconds that a battery sensor stays awake at most
}


class SettingsError(ValueError):
    """The settings can't be used. The text has one line for every problem."""


def load(path: str = FILE) -> "dict[str, Any]":
    """Read, check and complete the settings.

    Raises:
        SettingsError: No such file, not JSON, or what `check` finds.
    """
    try:
        with open(path) as file:
            given = json.load(file)
    except OSError:
        raise SettingsError("there is no %s: run sensors-flash" % path) from None
    except ValueError:
        raise SettingsError("%s is not JSON" % path) from None
    return complete(given)


def complete(given: "dict[str, Any]") -> "dict[str, Any]":
    """The settings with the default of everything that was not said.

    Raises:
        SettingsError: What `check` finds.
    """
    problems = check(given)
    if problems:
        raise SettingsError("\n".join(problems))
    return {name: DEFAULTS[name] if given.get(name) is None else given[name] for name in DEFAULTS}


def check(given: "Any") -> "list[str]":
    """Every problem of the settings, one line each; empty when they are good."""
    if not isinstance(given, dict):
        return ["settings: expected an object"]
    given = {name: given[name] for name in given if given[name] is not None}
    problems = ["unknown setting '%s'" % name for name in given if name not in DEFAULTS]
    sensor_id = given.get("id")
    if sensor_id is not None and not _is_id(sensor_id):
        problems.append("id: expected only a-z, 0-9, _ and -, got '%s'" % sensor_id)
    for name, low, high in (
        ("interval", 0.01, 86400),
        ("keepalive", 1, 65535),
        ("timeout", 0.1, 60),
        ("buffer_messages", 1, 10000),
        ("buffer_bytes", 256, 1 << 22),
        ("watchdog", 0, 3600),
        ("reboot_after", 0, 31 * 86400),
        ("awake", 1, 600),
    ):
        value = given.get(name)
        if value is not None and not (_is_number(value) and low <= value <= high):
            problems.append("%s: expected a number from %g to %g, got %s" % (name, low, high, json.dumps(value)))
    if given.get("profile", "mains") not in PROFILES:
        problems.append("profile: expected mains or battery, got %s" % json.dumps(given["profile"]))
    wifi = given.get("wifi")
    if wifi is not None:
        problems += _check_wifi(wifi)
    problems += _check_mqtt(given.get("mqtt"))
    problems += _check_sensors(given.get("sensors", DEFAULTS["sensors"]))
    return problems


def _check_wifi(wifi: "Any") -> "list[str]":
    if not isinstance(wifi, dict) or not wifi.get("ssid"):
        return ["wifi: expected an object with ssid and password"]
    password = wifi.get("password") or ""
    # IEEE 802.11: a WPA passphrase has 8 to 63 characters; 64 hexadecimal digits are the key itself
    if password and not 8 <= len(password) <= 64:
        return ["wifi: a password has 8 to 63 characters, this one has %d" % len(password)]
    return []


def _check_mqtt(mqtt: "Any") -> "list[str]":
    if not isinstance(mqtt, dict) or not mqtt.get("url"):
        return ["mqtt: expected an object with a url such as mqtt://192.168.1.10"]
    try:
        _, _, tls = parse_url(mqtt["url"])
    except ValueError as error:
        return ["mqtt: %s" % error]
    problems = []
    if mqtt.get("password") and not mqtt.get("username"):
        problems.append("mqtt: a password needs a username")
    if tls and not mqtt.get("ca"):
        problems.append("mqtt: mqtts:// needs ca, the file with the certificate of the authority")
    return problems


def _check_sensors(sensors: "Any") -> "list[str]":
    if not isinstance(sensors, list) or not sensors:
        return ['sensors: expected a list such as [{"driver": "dht22", "pin": 4}]']
    problems = []
    for position, spec in enumerate(sensors):
        place = "sensors[%d]" % position
        driver = spec.get("driver") if isinstance(spec, dict) else None
        if driver not in DRIVERS:
            problems.append("%s: expected a driver of %s" % (place, ", ".join(sorted(DRIVERS))))
            continue
        needed, possible = DRIVERS[driver]
        known = ("driver", "label") + needed + possible
        problems += ["%s: %s needs %s" % (place, driver, name) for name in needed if name not in spec]
        problems += ["%s: %s has no %s" % (place, driver, name) for name in spec if name not in known]
        for name in ("pin", "scl", "sda", "probes", "address"):
            if name in spec and not _is_count(spec[name]):
                problems.append("%s: %s: expected a whole number" % (place, name))
        label = spec.get("label")
        if label is not None and not _is_id(label):
            problems.append("%s: label: expected only a-z, 0-9, _ and -, got '%s'" % (place, label))
    return problems


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_id(text: object) -> bool:
    return isinstance(text, str) and len(text) > 0 and not text.strip("abcdefghijklmnopqrstuvwxyz0123456789_-")

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
LOG_LEVELS = ("debug", "info", "warning", "error")  # as in payloads.py, which `sensors-flash` has elsewhere

# driver: the names that an entry needs, and those that it may have
DRIVERS = {
    "adc": (("pin",), ("field", "factor", "points")),
    "aht20": (("scl", "sda"), ()),
    "battery": (("pin", "chemistry"), ("cells", "factor")),
    "bh1750": (("scl", "sda"), ("address",)),
    "bme280": (("scl", "sda"), ("address",)),
    "bme680": (("scl", "sda"), ("address",)),
    "dht11": (("pin",), ()),
    "dht22": (("pin",), ()),
    "ds18b20": (("pin",), ("probes",)),
    "fake": ((), ()),
    "gpio": (("pin",), ("field", "inverted", "pull", "debounce")),
    "hx711": (("sck", "dout"), ("zero", "factor")),
    "pms5003": (("rx", "tx"), ()),
    "pulse": (("pin",), ("measures", "per_unit", "debounce")),
    "scd30": (("scl", "sda"), ()),
    "scd41": (("scl", "sda"), ("single_shot",)),
    "sht3x": (("scl", "sda"), ("address",)),
    "sht4x": (("scl", "sda"), ("address",)),
    "soil": (("pin",), ("dry", "wet")),
}

# options that are pins, and those of them that the board only listens to
PINS = ("pin", "scl", "sda", "rx", "tx", "sck", "dout")
INPUTS = (("gpio", "pin"), ("pulse", "pin"), ("pms5003", "rx"), ("hx711", "dout"))
ANALOGUE = ("adc", "battery", "soil")

# option of a driver: lowest and highest whole number. No chip has more pins than the ESP32-S3
RANGES = dict.fromkeys(PINS, (0, 48))
RANGES.update({"probes": (1, 16), "cells": (1, 16), "debounce": (0, 1000)})
ADDRESSES = {
    "bh1750": (0x23, 0x5C),
    "bme280": (0x76, 0x77),
    "bme680": (0x76, 0x77),
    "sht3x": (0x44, 0x45),
    "sht4x": (0x44, 0x45, 0x46),
}
CHOICES = {
    "chemistry": ("li-ion", "lifepo4", "alkaline", "nimh", "lead-acid"),
    "measures": ("water", "energy", "count"),
    "pull": ("up", "down", "none"),
}
VOLTS = ("dry", "wet")

# kind of an output: the names that its entry may have beside output, pin and name
OUTPUTS = {
    "relay": ("inverted", "safe", "safe_after"),
    "led": ("inverted", "safe", "safe_after", "frequency"),
    "pwm": ("inverted", "safe", "safe_after", "frequency"),
}

# setting: lowest and highest value. Spans in milliseconds must stay below 2**29, see ticks.py: hence six days
LIMITS = (
    ("interval", 0.01, 86400),
    ("keepalive", 1, 65535),
    ("timeout", 0.1, 60),
    ("buffer_messages", 1, 10000),
    ("buffer_bytes", 256, 1 << 22),
    ("watchdog", 3, 3600),
    ("reboot_after", 0, 6 * 86400),
    ("awake", 1, 600),
    ("diag", 0, 6 * 86400),
    ("trial", 5, 86400),
    ("revision", 0, 100000),
    ("battery_mah", 0, 1000000),
    ("ap_after", 0, 6 * 86400),
)
WHOLE = ("revision", "keepalive", "buffer_messages", "buffer_bytes")

# name: what it is when it isn't said
DEFAULTS = {
    "id": None,  # from the MAC address
    "name": None,  # the id
    "wifi": None,  # {"ssid": …, "password": …}; None where the network is not ours to start
    "wifi2": None,  # another network, for when the first one can't be joined
    "mqtt": None,  # {"url": …, "username": …, "password": …, "ca": file of the CA certificate}
    "sensors": [{"driver": "fake"}],
    "outputs": [],  # such as {"output": "relay", "pin": 26, "name": "pump"}
    "interval": 10,  # seconds
    "profile": "mains",
    "ntp": "pool.ntp.org",  # host or host:port; "" for none
    "discovery": True,  # Home Assistant
    "keepalive": 30,  # seconds
    "timeout": 10,  # seconds, for each wait of the MQTT client
    "buffer_messages": 100,  # readings kept while the broker is away
    "buffer_bytes": 16384,
    "watchdog": 180,  # seconds without verified progress before a reset; 0 for none
    "reboot_after": 3600,  # seconds without an answer from the broker before a reset; 0 for never
    "awake": 30,  # seconds that a battery sensor stays awake at most
    "battery_mah": 2000,  # charge of its full cell; 0 where it is not known
    "diag": 300,  # seconds between two reports of how the board is; 0 for none
    "trial": 300,  # seconds that a new program has to reach the broker
    "revision": 0,  # how often a command has changed the settings
    "update_key": None,  # the board's secret, in 64 hexadecimal digits, which signs updates; None for no updates
    "log_level": "info",  # lines below it stay on the console
    "ap_after": 600,  # seconds without a network before the board opens an access point of its own; 0 for never
    "ap_password": None,  # of that; "" for none; None for one that the key gives, or that is made
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
    if sensor_id is not None and not (_is_id(sensor_id) and len(sensor_id) <= 64):
        problems.append("id: expected only a-z, 0-9, _ and -, 64 at most, got %s" % json.dumps(sensor_id))
    for name, low, high in LIMITS:
        value = given.get(name)
        if value is None or (name == "watchdog" and value == 0 and _is_number(value)):
            continue
        if not (_is_number(value) and low <= value <= high) or (name in WHOLE and value != int(value)):
            kind = "a whole number" if name in WHOLE else "0, or a number" if name == "watchdog" else "a number"
            problems.append("%s: expected %s from %g to %g, got %s" % (name, kind, low, high, json.dumps(value)))
    if given.get("profile", "mains") not in PROFILES:
        problems.append("profile: expected mains or battery, got %s" % json.dumps(given["profile"]))
    if given.get("log_level", "info") not in LOG_LEVELS:
        problems.append("log_level: expected one of %s" % ", ".join(LOG_LEVELS))
    key = given.get("update_key", "0" * 64)
    if not isinstance(key, str) or len(key) != 64 or key.strip("0123456789abcdef"):
        problems.append("update_key: expected 64 hexadecimal digits")
    secret = given.get("ap_password", "")
    if not isinstance(secret, str) or (secret and not 8 <= len(secret.encode()) <= 63):  # IEEE 802.11
        problems.append("ap_password: expected a text of 8 to 63 bytes, or an empty one for none")
    name = given.get("name", "")
    if not isinstance(name, str) or len(name) > 100:
        problems.append("name: expected a text of up to 100 characters")
    if not isinstance(given.get("discovery", False), bool):
        problems.append("discovery: expected true or false, got %s" % json.dumps(given["discovery"]))
    problems += _check_ntp(given.get("ntp", ""))
    for name in ("wifi", "wifi2"):
        if given.get(name) is not None:
            problems += [name + problem[4:] for problem in _check_wifi(given[name])]
    if given.get("wifi2") is not None and given.get("wifi") is None:
        problems.append("wifi2: there is no wifi that it could stand in for")
    problems += _check_mqtt(given.get("mqtt"))
    problems += _check_sensors(given.get("sensors", DEFAULTS["sensors"]), given.get("profile") == "battery")
    problems += _check_outputs(given.get("outputs", []), given.get("profile") == "battery")
    return problems


def _check_ntp(server: "Any") -> "list[str]":
    if isinstance(server, str):
        host, colon, port = server.partition(":")
        if not colon or (host and port.isdigit() and 0 < int(port) < 65536):
            return []
    return ["ntp: expected host, host:port, or nothing for none, got %s" % json.dumps(server)]


def _check_wifi(wifi: "Any") -> "list[str]":
    if not isinstance(wifi, dict) or not wifi.get("ssid"):
        return ["wifi: expected an object with ssid and password"]
    problems = []
    ssid, password = wifi["ssid"], wifi.get("password") or ""
    if not isinstance(ssid, str) or len(ssid.encode()) > 32:  # IEEE 802.11
        problems.append("wifi: ssid: expected a text of up to 32 bytes, got %s" % json.dumps(ssid))
    if not isinstance(password, str):
        problems.append("wifi: password: expected a text: put it in quotes")
    # IEEE 802.11: a WPA passphrase has 8 to 63 bytes; 64 hexadecimal digits are the key itself
    elif password:
        count = len(password.encode())
        if not 8 <= count <= 63 and (count != 64 or password.strip("0123456789abcdefABCDEF")):
            problems.append("wifi: a password has 8 to 63 bytes, or 64 hexadecimal digits; this one has %d" % count)
    static = wifi.get("static")
    if static is not None and not (
        isinstance(static, list) and len(static) == 4 and all(_is_address(address) for address in static)
    ):
        problems.append("wifi: static: expected address, netmask, gateway and name server, got %s" % json.dumps(static))
    return problems


def _is_address(text: "Any") -> bool:
    """Whether it is an IPv4 address."""
    if not isinstance(text, str):
        return False
    parts = text.split(".")
    return len(parts) == 4 and all(part.isdigit() and int(part) < 256 for part in parts)


def _check_mqtt(mqtt: "Any") -> "list[str]":
    if not isinstance(mqtt, dict) or not mqtt.get("url"):
        return ["mqtt: expected an object with a url such as mqtt://192.168.1.10"]
    texts = ("url", "username", "password", "ca")
    problems = [
        "mqtt: %s: expected a text: put it in quotes" % name
        for name in texts
        if mqtt.get(name) and not isinstance(mqtt[name], str)
    ]
    if mqtt.get("password") and not mqtt.get("username"):
        problems.append("mqtt: a password needs a username")
    if not isinstance(mqtt["url"], str):
        return problems
    try:
        _, _, tls = parse_url(mqtt["url"])
    except ValueError as error:
        return problems + ["mqtt: %s" % error]
    if tls and not mqtt.get("ca"):
        problems.append("mqtt: mqtts:// needs ca, the file with the certificate of the authority")
    return problems


def _check_sensors(sensors: "Any", sleeps: bool) -> "list[str]":
    if not isinstance(sensors, list) or not sensors:
        return ['sensors: expected a list such as [{"driver": "dht22", "pin": 4}]']
    problems = []
    for position, spec in enumerate(sensors):
        place = "sensors[%d]: " % position
        driver = spec.get("driver") if isinstance(spec, dict) else None
        if not isinstance(driver, str) or driver not in DRIVERS:
            problems.append("%sexpected a driver of %s" % (place, ", ".join(sorted(DRIVERS))))
            continue
        needed, possible = DRIVERS[driver]
        known = ("driver", "label") + needed + possible
        problems += ["%s%s needs %s" % (place, driver, name) for name in needed if name not in spec]
        problems += ["%s%s has no %s" % (place, driver, name) for name in spec if name not in known]
        for name in spec:
            expected = _expected(driver, name, spec[name])
            if expected is not None and name in known:
                problems.append("%s%s: expected %s, got %s" % (place, name, expected, json.dumps(spec[name])))
        for one, other in (("scl", "sda"), ("rx", "tx"), ("sck", "dout")):
            if one in spec and spec[one] == spec.get(other):
                problems.append(
                    "%s%s and %s are two pins, got %s for both" % (place, one, other, json.dumps(spec[one]))
                )
        if driver == "soil" and not problems and abs(spec.get("dry", 2.6) - spec.get("wet", 1.1)) < 0.1:
            problems.append("%sdry and wet are two voltages, at least 0.1 V apart" % place)
        if driver == "pulse" and sleeps:
            problems.append("%spulse counts only while the board is awake: not with the profile battery" % place)
    return problems


def _check_outputs(outputs: "Any", sleeps: bool) -> "list[str]":
    if not isinstance(outputs, list):
        return ['outputs: expected a list such as [{"output": "relay", "pin": 26, "name": "pump"}]']
    problems = []
    names: "list[Any]" = []
    for position, spec in enumerate(outputs):
        place = "outputs[%d]: " % position
        kind = spec.get("output") if isinstance(spec, dict) else None
        if not isinstance(kind, str) or kind not in OUTPUTS:
            problems.append("%sexpected an output of %s" % (place, ", ".join(sorted(OUTPUTS))))
            continue
        known = ("output", "pin", "name") + OUTPUTS[kind]
        problems += ["%s%s needs %s" % (place, kind, name) for name in ("pin", "name") if name not in spec]
        problems += ["%s%s has no %s" % (place, kind, name) for name in spec if name not in known]
        for name in spec:
            expected = _expected_of_output(kind, name, spec[name]) if name in known else None
            if expected is not None:
                problems.append("%s%s: expected %s, got %s" % (place, name, expected, json.dumps(spec[name])))
        if spec.get("name") in names:
            problems.append("%sname: %s is another output already" % (place, json.dumps(spec["name"])))
        names.append(spec.get("name"))
    if outputs and sleeps:
        problems.append("outputs: a board that sleeps can't hold them: not with the profile battery")
    return problems


def _expected_of_output(kind: str, name: str, value: "Any") -> "str | None":
    """What an option of an output should be; None when it is."""
    if name == "pin":
        return _expected("", "pin", value)
    if name == "name":
        return _expected("", "field", value)
    if name == "inverted" or (name == "safe" and kind == "relay"):
        return None if isinstance(value, bool) else "true or false"
    ranges = {"safe": (0, 100), "frequency": (1, 40000), "safe_after": (1, 6 * 86400)}
    if name in ranges:
        low, high = ranges[name]
        if not (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high):
            return "a whole number from %d to %d" % (low, high)
    return None


def _expected(driver: str, name: str, value: "Any") -> "str | None":
    """What the option of a driver should be; None when it is."""
    if name == "address":
        known = ADDRESSES.get(driver, ())
        if value not in known or isinstance(value, bool):
            return "one of " + ", ".join(["0x%02x" % address for address in known])
    elif name in CHOICES:
        if value not in CHOICES[name]:
            return "one of " + ", ".join(CHOICES[name])
    elif name in VOLTS:
        if not (_is_number(value) and 0 <= value <= 5):
            return "volts from 0 to 5"
    elif name == "per_unit":
        if not (_is_number(value) and 0 < value < 1e9):
            return "a number above 0"
    elif name == "zero":
        if not (_is_number(value) and abs(value) <= 0x800000):
            return "a number of counts"
    elif name in RANGES:
        low, high = RANGES[name]
        if not (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high):
            return "a whole number from %d to %d" % (low, high)
    elif name == "label":
        if not _is_id(value):
            return "only a-z, 0-9, _ and -"
    elif name == "field":
        # it goes into Home Assistant's templates as it is
        if not _is_id(value) or "-" in value or value[0] in "0123456789_" or value in ("ts", "seq", "boot", "rssi"):
            return "a name such as voltage or soil_moisture (a-z, 0-9 and _), not ts, seq, boot or rssi"
    elif name == "factor":
        if not _is_number(value) or value - value != 0 or value == 0:
            return "a number other than 0"
    elif name in ("single_shot", "inverted"):
        if not isinstance(value, bool):
            return "true or false"
    elif name == "points":
        pairs: "list[Any]" = value if isinstance(value, list) and len(value) == 2 else [None]
        for pair in pairs:
            if not (isinstance(pair, list) and len(pair) == 2 and _is_number(pair[0]) and _is_number(pair[1])):
                return "two points such as [[3.3, 0], [4.2, 100]]"
        if abs(pairs[0][0] - pairs[1][0]) < 0.001:
            return "two points with different volts, such as [[3.3, 0], [4.2, 100]]"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_id(text: object) -> bool:
    return isinstance(text, str) and len(text) > 0 and not text.strip("abcdefghijklmnopqrstuvwxyz0123456789_-")

"""What `sensors-flash` is asked for: options, a file of settings, and what is typed.

One invariant: a Wi-Fi or broker password is never on a command line, where other users could read it, never shown, and
never read from a file that git tracks.

It leaves to others: what good settings are (board/settings.py) and doing what was asked for (flash.py).
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import chips
from .board import mqtt
from .board import settings as board_settings
from .tools import FlashError, say

DEFAULT_WAIT_SECONDS = 90.0

# environment variables for what must not stand on a command line
WIFI_PASSWORD = "SENSORS_WIFI_PASSWORD"  # noqa: S105 - the name of a variable
MQTT_PASSWORD = "SENSORS_MQTT_PASSWORD"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, after the settings were read and checked."""

    port: str | None
    chip: chips.Chip | None
    image: Path | None
    sha256: str | None
    erase: bool
    settings: dict[str, Any]
    ca: Path | None
    wait_seconds: float  # 0: neither wait nor try the broker
    dry_run: bool


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    options = argparse.ArgumentParser(
        prog="sensors-flash",
        description="Makes a sensor of an ESP32 board: writes MicroPython, copies the sensor program, tells it about "
        "Wi-Fi and broker, and waits for its first reading.",
        epilog=f"Passwords are asked for, or read from {WIFI_PASSWORD} and {MQTT_PASSWORD}, or from --settings. "
        "See docs/firmware.md for wiring and troubleshooting.",
    )
    board = options.add_argument_group("board")
    board.add_argument("--port", help="serial port, such as /dev/ttyUSB0 or COM5; found when only one board is there")
    board.add_argument("--chip", help="such as ESP32-C3; asked of the board when not given")
    board.add_argument("--firmware", type=Path, metavar="FILE", help="MicroPython image (.bin) to write first")
    board.add_argument("--sha256", metavar="HEX", help="the image must have this SHA-256")
    board.add_argument("--no-erase", action="store_true", help="keep what else is in flash when writing the image")
    network = options.add_argument_group("network")
    network.add_argument("--wifi", metavar="SSID", help="name of the Wi-Fi network (2.4 GHz)")
    network.add_argument("--mqtt", metavar="URL", help="broker, as the board sees it: mqtt://192.168.1.10")
    network.add_argument("--mqtt-username", metavar="NAME", help="user name at the broker")
    network.add_argument("--ca", type=Path, metavar="FILE", help="with mqtts://: certificate of the authority, PEM")
    sensor = options.add_argument_group("sensor")
    sensor.add_argument("--name", help="for people, such as 'Living room'")
    sensor.add_argument("--id", help="in topics; otherwise from the MAC address, or the user name")
    sensor.add_argument(
        "--sensor",
        action="append",
        metavar="DRIVER[:KEY=VALUE,…]",
        help="such as dht22:pin=4 or bme280:scl=22,sda=21; repeat it for several; fake when none is given",
    )
    sensor.add_argument(
        "--output",
        action="append",
        metavar="KIND:KEY=VALUE,…",
        help="such as relay:pin=26,name=pump, led:pin=25,name=lamp or pwm:pin=27,name=fan; repeat it for several",
    )
    sensor.add_argument("--interval", type=float, metavar="SECONDS", help="between two readings (10)")
    sensor.add_argument("--battery", action="store_true", help="sleep between readings")
    sensor.add_argument(
        "--discovery",
        action=argparse.BooleanOptionalAction,
        help="announce it to Home Assistant, as it does unless told",
    )
    sensor.add_argument("--ntp", metavar="HOST", help="time server (pool.ntp.org)")
    options.add_argument("--settings", type=Path, metavar="FILE", help="all of these and more, as TOML or JSON")
    options.add_argument(
        "--wait",
        type=float,
        default=DEFAULT_WAIT_SECONDS,
        metavar="SECONDS",
        help=f"for the first reading ({DEFAULT_WAIT_SECONDS:g}); 0 neither waits nor tries the broker",
    )
    options.add_argument("--dry-run", action="store_true", help="print each step and do nothing")
    return options


def add_broker(options: argparse.ArgumentParser) -> None:
    """The options that say which broker, for commands that need nothing else."""
    options.add_argument("--mqtt", metavar="URL", default="mqtt://localhost", help="broker (mqtt://localhost)")
    options.add_argument("--mqtt-username", metavar="NAME", help="user name at the broker")
    options.add_argument("--ca", type=Path, metavar="FILE", help="with mqtts://: certificate of the authority, PEM")


def broker_access(options: argparse.Namespace) -> tuple[dict[str, Any], Path | None]:
    """What `add_broker` was told, as `mqtt` of the settings, and the authority's certificate.

    Raises:
        FlashError: A password is missing, or the certificate.
    """
    access: dict[str, Any] = {"url": options.mqtt}
    if options.mqtt_username:
        access["username"] = options.mqtt_username
        access["password"] = _secret(MQTT_PASSWORD, f"password of {options.mqtt_username}", dry_run=False)
    if options.ca is not None:
        access["ca"] = "ca.pem"
        if not options.ca.is_file():
            raise FlashError(f"--ca: there is no file {options.ca}")
    problems = board_settings.check({"mqtt": access})
    if problems:
        raise FlashError("\n".join(problems))
    return access, options.ca


def make(options: argparse.Namespace) -> Plan:
    """What to do, from options, file, environment and terminal.

    Raises:
        FlashError: Something is missing, or can't work.
        chips.ChipError: A chip that is of no use.
    """
    given = _read_settings(options.settings) if options.settings else {}
    wifi = {**(given.get("wifi") or {})}
    access = {**(given.get("mqtt") or {})}
    for target, key, value in (
        (wifi, "ssid", options.wifi),
        (access, "url", options.mqtt),
        (access, "username", options.mqtt_username),
        (given, "name", options.name),
        (given, "id", options.id),
        (given, "interval", options.interval),
        (given, "ntp", options.ntp),
        (given, "profile", "battery" if options.battery else None),
        (given, "discovery", options.discovery),
        (given, "sensors", [parse_sensor(text) for text in options.sensor] if options.sensor else None),
        (given, "outputs", [parse_output(text) for text in options.output] if options.output else None),
    ):
        if value is not None:
            target[key] = value
    if not wifi.get("ssid"):
        wifi["ssid"] = _ask("Wi-Fi network", "--wifi", options.dry_run)
    if not access.get("url"):
        access["url"] = _ask("broker, such as mqtt://192.168.1.10", "--mqtt", options.dry_run)
    if "password" not in wifi:
        wifi["password"] = _secret(WIFI_PASSWORD, f"password of {wifi['ssid']}", options.dry_run)
    if access.get("username") and not access.get("password"):
        access["password"] = _secret(MQTT_PASSWORD, f"password of {access['username']}", options.dry_run)
    ca = options.ca
    if ca is None and access.get("ca") and options.settings:
        ca = options.settings.parent / access["ca"]
    if ca is not None:
        access["ca"] = "ca.pem"
        if not options.dry_run and not ca.is_file():
            raise FlashError(f"--ca: there is no file {ca}")
    given["wifi"], given["mqtt"] = wifi, access
    problems = board_settings.check(given)
    if problems:
        raise FlashError("these settings can't work:\n  " + "\n  ".join(problems))
    host, _, _ = mqtt.parse_url(access["url"])
    if host in ("localhost", "127.0.0.1", "::1"):
        say(f"note     to the board, {host} is itself: give the address that this computer has in your network")
    return Plan(
        port=options.port,
        chip=chips.find_chip(options.chip) if options.chip else None,
        image=options.firmware,
        sha256=options.sha256,
        erase=not options.no_erase,
        settings=given,
        ca=ca,
        wait_seconds=max(0, options.wait),
        dry_run=options.dry_run,
    )


def parse_sensor(text: str) -> dict[str, Any]:
    """A sensor's entry in the settings, from `driver:key=value,…`.

    Raises:
        FlashError: It has another form.
    """
    return _parse_entry(text, "driver", "--sensor", "dht22:pin=4")


def parse_output(text: str) -> dict[str, Any]:
    """An output's entry in the settings, from `kind:key=value,…`.

    Raises:
        FlashError: It has another form.
    """
    return _parse_entry(text, "output", "--output", "relay:pin=26,name=pump")


def _parse_entry(text: str, first: str, option: str, example: str) -> dict[str, Any]:
    kind, _, rest = text.partition(":")
    spec: dict[str, Any] = {first: kind}
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise FlashError(f"{option} {text}: expected {first}:key=value, such as {example}")
        try:
            spec[key] = json.loads(value)
        except ValueError:
            spec[key] = int(value, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", value) else value
    return spec


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        read: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise FlashError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise FlashError(f"{path}: {error}") from None
    if not isinstance(read, dict):
        raise FlashError(f"{path}: expected a table of settings")
    for name in ("wifi", "mqtt"):
        if not isinstance(read.get(name) or {}, dict):
            raise FlashError(f"{path}: {name}: expected a table: a line [{name}], and its settings below it")
    has_secret = any(isinstance(table, dict) and table.get("password") for table in read.values())
    if has_secret and _is_tracked(path):
        raise FlashError(
            f"{path} holds a password and is tracked by git: take it out of both, then change the password"
        )
    return read


def _is_tracked(path: Path) -> bool:
    command = ["git", "-C", str(path.parent), "ls-files", "--error-unmatch", path.name]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:  # no git
        return False


def _ask(what: str, option: str, dry_run: bool) -> str:
    if dry_run or not sys.stdin.isatty():
        raise FlashError(f"{option} is missing: {what}")
    return input(f"{what}: ").strip()


def _secret(variable: str, what: str, dry_run: bool) -> str:
    if variable in os.environ:
        return os.environ[variable]
    if dry_run:
        return ""
    if not sys.stdin.isatty():
        raise FlashError(f"{what}: set {variable}, or run it in a terminal and type it")
    return getpass.getpass(f"{what} (not shown): ")


def hide(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with dots for every password."""
    shown: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            shown[key] = hide(value)
        else:
            shown[key] = "…" if key in ("password", "update_key") else value
    return shown

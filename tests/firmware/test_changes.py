"""Settings by command: what may change, and that a change which does not work is forgotten by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firmware.board import changes
from firmware.board.wifi import Wifi
from tests.conftest import MakeMosquitto
from tests.firmware.boards import PLENTY, RESET, STANDINS, Board, Interpreter
from tests.firmware.observers import Observer
from tests.firmware.test_over_the_air import mains
from tests.support.brokers import Broker, BrokerOptions
from tests.support.certificates import Authority
from tests.support.waiting import eventually

GIVEN = {"wifi": {"ssid": "home", "password": "correct horse"}, "mqtt": {"url": "mqtt://h"}, "interval": 5}


@pytest.fixture
def flash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The board's flash, with settings that a cable brought."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(GIVEN))
    return tmp_path


def kept(flash: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((flash / "settings.json").read_text())
    return read


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"interval": 7}, {**GIVEN, "interval": 7}),
        ({"interval": None}, {name: GIVEN[name] for name in ("wifi", "mqtt")}),
        ({"wifi": {"ssid": "attic"}}, {**GIVEN, "wifi": {"ssid": "attic", "password": "correct horse"}}),
        ({"wifi": {"password": None}}, {**GIVEN, "wifi": {"ssid": "home"}}),
        ({"sensors": [{"driver": "fake"}]}, {**GIVEN, "sensors": [{"driver": "fake"}]}),
        ({"wifi2": {"ssid": "b"}}, {**GIVEN, "wifi2": {"ssid": "b"}}),
    ],
)
def test_a_change_leaves_what_it_does_not_name(change: dict[str, Any], result: dict[str, Any]) -> None:
    assert changes.merged(GIVEN, change) == result


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, "takes an object"),
        ([], "takes an object"),
        ("x", "takes an object"),
        ({"update_key": "00" * 32}, "update_key is not changed by command"),
        ({"revision": 5}, "revision is not changed by command"),
        ({"colour": "red"}, "unknown setting 'colour'"),
        ({"interval": 0}, "interval: expected"),
        ({"mqtt": {"url": "http://h"}}, "mqtt: expected a url"),
        ({"mqtt": None}, "mqtt: expected an object"),
        ({"wifi": {"static": ["10.0.0.5"]}}, "wifi: static: expected address, netmask"),
        ({"wifi": {"static": ["10.0.0.5", "255.255.255.0", "10.0.0.1", "10.0.0.256"]}}, "wifi: static"),
        ({"wifi2": {"ssid": "x" * 40}}, "wifi2: ssid: expected"),
        ({"wifi": None, "wifi2": {"ssid": "x"}}, "wifi2: there is no wifi"),
        ({"sensors": [{"driver": "dht22"}]}, "dht22 needs pin"),
    ],
)
def test_a_change_that_is_no_good_is_refused_as_a_whole(flash: Path, change: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        changes.propose(change)
    assert kept(flash) == GIVEN
    assert changes.begin() is None


def test_a_change_is_tried_and_kept_when_it_has_proved_itself(flash: Path) -> None:
    changes.propose({"interval": 7})
    assert kept(flash) == GIVEN
    tried = changes.begin()
    assert tried == {**GIVEN, "interval": 7, "revision": 1}
    assert changes.on_trial()
    changes.confirm()
    assert kept(flash) == tried
    assert changes.begin() is None
    changes.propose({"name": "Kitchen"})
    assert (changes.begin() or {})["revision"] == 2


def test_a_change_that_does_not_work_is_forgotten_after_three_starts(flash: Path) -> None:
    changes.propose({"mqtt": {"url": "mqtt://nowhere"}})
    for _ in range(3):
        assert (changes.begin() or {})["mqtt"] == {"url": "mqtt://nowhere"}
    assert changes.begin() is None
    assert changes.failed() == "the broker was not reached in 3 starts"
    assert kept(flash) == GIVEN
    assert not changes.on_trial()


def test_power_may_fail_before_each_rename_and_removal(flash: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step on the way from a proposal to its end, with the power gone at it."""
    real: dict[str, Callable[..., None]] = {"rename": os.rename, "remove": os.remove}

    class Cut(BaseException):
        pass

    for end in range(12):
        (flash / "settings.json").write_text(json.dumps(GIVEN))
        (flash / "trial.json").unlink(missing_ok=True)
        left = [end]

        def burning(name: str, left: list[int] = left) -> Callable[..., None]:
            def step(*arguments: str) -> None:
                if left[0] == 0:
                    raise Cut
                left[0] -= 1
                real[name](*arguments)

            return step

        for name in real:
            monkeypatch.setattr(os, name, burning(name))
        try:
            changes.propose({"interval": 7})
            changes.begin()
            changes.confirm()
        except Cut:
            pass
        left[0] = -1
        (flash / "settings.json.new").write_text('{"half')  # what a write leaves that was cut off
        assert kept(flash)["interval"] in (5, 7)
        if changes.begin() is not None:
            changes.confirm()
        assert kept(flash)["interval"] == (5 if end == 0 else 7)
        assert changes.begin() is None


@pytest.mark.slow
def test_power_may_fail_at_every_write_of_the_settings(
    interpreter: Interpreter, flash_image: Path, tmp_path: Path
) -> None:
    """On real MicroPython: a LittleFS whose block device stops at the n-th write or erase, for each n, and again."""
    folder = tmp_path / "computer"
    shutil.copytree(flash_image, folder)
    shutil.copy(STANDINS / "changes_on_lfs.py", folder / "script.py")
    shutil.copy(STANDINS / "lfs.py", folder)
    command = interpreter.command(folder, STANDINS, f"changes-{tmp_path.name[-12:]}", *PLENTY, "script.py")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    # finalisers of files on a flash without power say OSError, too
    good, bad = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert (good["end"], bad["end"]) == ("new", "old")
    for told in (good, bad):
        counts = told["counts"]
        assert counts["broken"] == 0, done.stderr
        assert counts["old"] + counts["new"] == told["cuts"]
        assert 0 < counts["trial"] < told["cuts"]
    assert good["counts"]["new"] > 0
    assert bad["counts"]["new"] == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"left":true}', '{"left":2}', '{"left":"x","settings":{}}'])
def test_a_trial_that_can_not_be_read_is_none(flash: Path, content: str) -> None:
    (flash / "trial.json").write_text(content)
    assert changes.begin() is None
    assert kept(flash) == GIVEN


class Radio:
    """A radio for which one network is there.

    Attributes:
        there: Its name.
        addresses: What `ifconfig` was told.
    """

    def __init__(self, there: str) -> None:
        self.there = there
        self.tried: list[str] = []
        self.addresses: list[tuple[str, ...]] = []
        self._on = False

    def active(self, on: bool | None = None) -> bool:
        if on is not None:
            self._on = on
        return self._on

    def disconnect(self) -> None: ...

    def connect(self, ssid: str, password: str | None) -> None:
        self.tried.append(ssid)

    def isconnected(self) -> bool:
        return bool(self.tried) and self.tried[-1] == self.there

    def status(self) -> int:
        return 201

    def ifconfig(self, addresses: tuple[str, ...] | None = None) -> tuple[str, ...]:
        if addresses is not None:
            self.addresses.append(addresses)
        return ("192.0.2.7",)


PEM = "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ca_pem": 5}, "expected a certificate of up to 4096"),
        ({"ca_pem": PEM % ("A" * 4096)}, "expected a certificate of up to 4096"),
        ({"ca_pem": "nothing"}, "expected a certificate, from BEGIN"),
        ({"ca_pem": PEM % "AAAA"}, "expected a certificate, from BEGIN"),
        ({"mqtt": None}, "mqtt is an object without ca"),
        ({"mqtt": {"ca": "../settings.json"}}, "mqtt is an object without ca"),
        ({"interval": 0}, "interval: expected"),
    ],
)
def test_a_certificate_that_is_none_changes_nothing(
    flash: Path, change: dict[str, Any], why: str, authority: Authority
) -> None:
    with pytest.raises(ValueError, match=why):
        changes.propose({"ca_pem": authority.ca_file.read_text(), **change})
    assert kept(flash) == GIVEN
    assert sorted(path.name for path in flash.iterdir()) == ["settings.json"]


@pytest.mark.parametrize(("used", "free"), [(None, "ca.pem"), ("ca.pem", "ca2.pem"), ("ca2.pem", "ca.pem")])
def test_a_certificate_lies_beside_the_one_in_use(
    flash: Path, used: str | None, free: str, authority: Authority
) -> None:
    mqtt = {"url": "mqtts://h", **({"ca": used} if used else {"url": "mqtt://h"})}
    (flash / "settings.json").write_text(json.dumps({**GIVEN, "mqtt": mqtt}))
    for name in changes.CERTIFICATES:
        (flash / name).write_text("before")
    changes.propose({"ca_pem": authority.ca_file.read_text(), "mqtt": {"url": "mqtts://h"}})
    assert (flash / free).read_text() == authority.ca_file.read_text()
    assert {(flash / name).read_text() for name in changes.CERTIFICATES if name != free} == {"before"}
    assert (changes.begin() or {})["mqtt"] == {"url": "mqtts://h", "ca": free}
    changes.back("it did not work")
    assert kept(flash)["mqtt"] == mqtt


def test_a_flash_without_room_is_told(flash: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: str) -> None:
        raise OSError(28, "no room")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ValueError, match="file system"):
        changes.propose({"interval": 7})
    assert kept(flash) == GIVEN


async def test_networks_take_turns_until_one_is_there() -> None:
    radio = Radio("attic")
    wifi = Wifi(radio, "home", "", 0.05, second={"ssid": "attic", "password": "12345678"})
    assert [await wifi.ready() for _ in range(2)] == [False, True]
    assert radio.tried == ["home", "attic"]
    radio.there = "home"
    assert [await wifi.ready() for _ in range(2)] == [False, True]
    assert radio.tried == ["home", "attic", "attic", "home"]


async def test_a_static_address_is_of_its_network_alone() -> None:
    static = ["10.0.0.5", "255.255.255.0", "10.0.0.1", "10.0.0.1"]
    radio = Radio("attic")
    wifi = Wifi(radio, "home", "", 0.05, static=static, second={"ssid": "attic"})
    assert [await wifi.ready() for _ in range(2)] == [False, True]
    assert radio.addresses == [tuple(static)]
    assert wifi.static is None


MakeBoard = Callable[..., Board]
Observe = Callable[..., Observer]


@pytest.mark.slow
def test_everything_that_was_flashed_changes_by_command(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    board = make_board(mosquitto.port)
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    with mains(board) as ended:
        observer.send({"settings": {"name": "Attic", "interval": 0.3, "sensors": [{"driver": "dht22", "pin": 4}]}})
        eventually(lambda: observer.metas()[-1].get("revision") == 1 and "trial" not in observer.metas()[-1], 25)
        meta = observer.metas()[-1]
        assert (meta["name"], meta["interval"], meta["model"].split(" + ")[-1]) == ("Attic", 0.3, "DHT22")
        eventually(lambda: observer.states()[-1].get("humidity") == 55.2)
        assert ended == [RESET]
        observer.send({"settings": {"sensors": [{"driver": "dht22", "pin": 99}]}})
        eventually(lambda: "pin: expected" in observer.metas()[-1].get("errors", {}).get("cmd", ""))
        assert ended == [RESET]
    said = json.loads((board.folder / "settings.json").read_text())
    assert said["wifi"]["password"] == "correct horse"
    assert "correct horse" not in board.log() + str(observer.payloads("log"))


@pytest.mark.slow
def test_a_broker_that_is_not_reached_is_forgotten(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    board = make_board(mosquitto.port, trial=5)
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    with mains(board) as ended:
        observer.send({"settings": {"mqtt": {"url": "mqtt://127.0.0.1:1"}}})

        def back() -> bool:
            error = observer.metas()[-1].get("errors", {}).get("settings", "")
            assert error == "back to the settings before: it did not reach the broker within 5 s", board.log()[-900:]
            return True

        eventually(back, 40, "the settings before")
        assert ended == [RESET, RESET]
        assert "revision" not in observer.metas()[-1]
        count = len(observer.states())
        observer.wait_states(count + 2)


@pytest.mark.slow
def test_a_hidden_network_is_joined_by_its_name(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    """However the board is told of it; nothing waits to see it in a scan first."""
    board = make_board(mosquitto.port, wifi={"ssid": "cellar", "password": "correct pony"})
    hidden = {"cellar": {"password": "correct pony", "hidden": True}, "loft": {"hidden": True}, "home": {}}
    (board.folder / "wifi-networks").write_text(json.dumps(hidden))
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    assert "wifi: joined cellar" in board.log()
    with mains(board) as ended:
        observer.send({"settings": {"wifi": {"ssid": "loft", "password": None}}})
        eventually(lambda: observer.metas()[-1].get("revision") == 1 and "trial" not in observer.metas()[-1], 25)
        assert ended == [RESET]
    assert "wifi: joined loft" in board.log()


@pytest.mark.slow
def test_a_certificate_comes_by_command_and_goes_when_the_broker_is_not_reached_with_it(
    mosquitto: Broker,
    make_mosquitto: MakeMosquitto,
    make_board: MakeBoard,
    observe: Observe,
    authority: Authority,
    tmp_path: Path,
) -> None:
    server = authority.issue("server-by-command", hosts=("127.0.0.1", "localhost"))
    secure = make_mosquitto(BrokerOptions(server=server), kind="process")
    board = make_board(mosquitto.port, timeout=5, trial=6)
    observer, secured = observe(board), observe(board, secure, authority.ca_file)
    pem = authority.ca_file.read_text()
    board.power_on(heap=192 * 1024)  # what test_fits_into_152_kib has, and the 40 KiB that TLS takes
    observer.wait_states(1)

    def kept() -> Any:
        return json.loads((board.folder / "settings.json").read_text())["mqtt"].get("ca")

    with mains(board) as ended:
        observer.send({"settings": {"mqtt": {"url": f"mqtts://localhost:{secure.port}"}, "ca_pem": pem}})

        def there() -> bool:
            assert secured.metas(), board.log()[-1500:]
            assert "trial" not in secured.metas()[-1]
            return True

        eventually(there, 30, "the broker with TLS")
        assert (ended, kept()) == ([RESET], "ca.pem")
        assert (board.folder / "ca.pem").read_text() == pem

        secured.send({"settings": {"ca_pem": Authority(tmp_path / "other").ca_file.read_text()}})
        note = "back to the settings before: it did not reach the broker within 6 s"
        eventually(lambda: secured.metas()[-1].get("errors", {}).get("settings") == note, 60, "the one before")
        assert (ended, kept()) == ([RESET] * 3, "ca.pem")

        secured.send({"settings": {"ca_pem": pem}})
        eventually(lambda: secured.metas()[-1].get("revision") == 2 and "trial" not in secured.metas()[-1], 40)
        assert (ended, kept()) == ([RESET] * 4, "ca2.pem")
    assert "MemoryError" not in board.log()
    assert sorted(path.name for path in board.folder.glob("*.pem*")) == ["ca.pem", "ca2.pem"]

"""The board's settings: every problem at once, the same texts on the computer and on the board, never a password."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firmware import plan
from firmware.board import settings
from sensors_sim import payloads

GOOD: dict[str, Any] = {
    "wifi": {"ssid": "home", "password": "correct horse"},
    "mqtt": {"url": "mqtt://192.168.1.10"},
    "sensors": [{"driver": "dht22", "pin": 4}],
}


def adc(**options: Any) -> dict[str, Any]:
    return {"driver": "adc", "pin": 34, **options}


def test_good_settings_are_completed() -> None:
    completed = settings.complete(GOOD)
    assert completed["interval"] == 10
    assert completed["profile"] == "mains"
    assert completed["discovery"] is True
    assert completed["wifi"] == GOOD["wifi"]


def test_null_means_the_default() -> None:
    assert settings.complete({**GOOD, "interval": None, "profile": None, "sensors": None})["interval"] == 10


def test_every_problem_is_listed_at_once() -> None:
    problems = settings.check(
        {
            "id": "Kitchen!",
            "wifi": {"ssid": "home", "password": "short"},
            "mqtt": {"url": "mqtts://broker", "password": "hunter22"},
            "interval": 0,
            "profile": "solar",
            "sensors": [{"driver": "dht22"}, {"driver": "tea"}, {"driver": "fake", "pin": 3}],
            "colour": "red",
        }
    )
    text = "\n".join(problems)
    for expected in (
        "unknown setting 'colour'",
        "id: expected only a-z",
        "interval: expected a number from 0.01 to 86400, got 0",
        "profile: expected mains or battery",
        "8 to 63 bytes, or 64 hexadecimal digits; this one has 5",
        "a password needs a username",
        "mqtts:// needs ca",
        "sensors[0]: dht22 needs pin",
        "sensors[1]: expected a driver",
        "sensors[2]: fake has no pin",
    ):
        assert expected in text
    assert len(problems) == 10
    assert "hunter22" not in text
    assert "short" not in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"mqtt": None}, "mqtt: expected an object"),
        ({"mqtt": {"url": "http://x"}}, "mqtt: expected a url"),
        ({"mqtt": {"url": "mqtt://user:secret@x"}}, "not part of the url"),
        ({"wifi": {"password": "x"}}, "wifi: expected an object"),
        ({"sensors": []}, "sensors: expected a list"),
        ({"sensors": ["dht22"]}, "expected a driver"),
        ({"sensors": [{"driver": "dht22", "pin": "D4"}]}, 'pin: expected a whole number from 0 to 48, got "D4"'),
        ({"sensors": [{"driver": "dht22", "pin": 99}]}, "pin: expected a whole number from 0 to 48, got 99"),
        ({"sensors": [{"driver": ["dht22"]}]}, "expected a driver"),
        ({"sensors": [{"driver": "ds18b20", "pin": 4, "probes": 0}]}, "probes: expected a whole number from 1 to 16"),
        ({"sensors": [{"driver": "bme280", "scl": 5, "sda": 5}]}, "scl and sda are two pins, got 5 for both"),
        (
            {"sensors": [{"driver": "bme280", "scl": 5, "sda": 4, "address": 1}]},
            "address: expected one of 0x76, 0x77, got 1",
        ),
        ({"sensors": [{"driver": "scd41", "scl": 5, "sda": 4, "single_shot": "yes"}]}, "expected true or false"),
        ({"sensors": [adc(field='Soil "x')]}, r"field: expected a name such as voltage"),
        ({"sensors": [adc(field="seq")]}, "not ts, seq, boot or rssi"),
        ({"sensors": [adc(factor="two")]}, 'factor: expected a number other than 0, got "two"'),
        ({"sensors": [adc(factor=float("inf"))]}, "factor: expected a number other than 0"),
        ({"sensors": [adc(points=[[3, 0], [3, 100]])]}, "points: expected two points with different volts"),
        ({"sensors": [adc(points=[[3, 0]])]}, "points: expected two points such as"),
        ({"sensors": [adc(points=[3, 4])]}, "points: expected two points such as"),
        ({"wifi": {"ssid": "home", "password": 12345678}}, "wifi: password: expected a text: put it in quotes"),
        ({"wifi": {"ssid": 5}}, "ssid: expected a text of up to 32 bytes"),
        ({"mqtt": {"url": 5}}, "mqtt: url: expected a text"),
        ({"mqtt": {"url": "mqtt://x", "username": "u", "password": 1234}}, "mqtt: password: expected a text"),
        ({"id": "a" * 65}, "64 at most"),
        ({"name": 5}, "name: expected a text"),
        ({"discovery": "yes"}, 'discovery: expected true or false, got "yes"'),
        ({"ntp": "pool:ntp"}, "ntp: expected host, host:port"),
        ({"keepalive": 2.5}, "keepalive: expected a whole number from 1 to 65535, got 2.5"),
        ({"watchdog": 1}, "watchdog: expected 0, or a number from 3 to 3600, got 1"),
        ({"reboot_after": 7 * 86400}, "reboot_after: expected a number from 0 to 518400"),
        ({"sensors": [{"driver": "fake", "label": "My Room"}]}, "label: expected only a-z"),
        ({"interval": True}, "interval: expected a number"),
    ],
)
def test_one_problem(changes: dict[str, Any], text: str) -> None:
    (problem,) = settings.check({**GOOD, **changes})
    assert text in problem
    assert "secret" not in problem
    assert "1234" not in problem


@pytest.mark.parametrize(
    ("is_good", "passwords"),
    [
        (True, ["a" * 8, "a" * 63, "ä" * 31, "0aF" * 21 + "0", "ä" * 4, ""]),
        (False, ["a" * 7, "ä" * 60, "ä" * 32, "g" * 64, "0" * 65, "€€"]),
    ],
)
def test_a_password_is_counted_in_bytes_as_the_radio_does(is_good: bool, passwords: list[str]) -> None:
    for password in passwords:
        assert (settings.check({**GOOD, "wifi": {"ssid": "home", "password": password}}) == []) is is_good, password


@pytest.mark.parametrize(("ssid", "is_good"), [("ü" * 16, True), ("ü" * 17, False), ("a" * 32, True)])
def test_a_networks_name_is_counted_in_bytes(ssid: str, is_good: bool) -> None:
    assert (settings.check({**GOOD, "wifi": {"ssid": ssid}}) == []) is is_good


def test_spans_fit_into_the_boards_counter() -> None:
    longest = max(high for name, _, high in settings.LIMITS if not name.startswith(("buffer", "battery")))
    assert longest * 1000 < 1 << 29  # half of MicroPython's 30 bits


@pytest.mark.parametrize("interval", [0.0001, 0.0099, 0.01, 10, 86400, 86400.5])
def test_a_command_may_set_what_the_settings_may(interval: float) -> None:
    try:
        taken = bool(payloads.parse_command(json.dumps({"interval": interval}).encode()))
    except ValueError:
        taken = False
    assert taken == (settings.check({**GOOD, "interval": interval}) == [])


@pytest.mark.parametrize("given", [[], "text", 3, None])
def test_settings_are_an_object(given: object) -> None:
    assert settings.check(given) == ["settings: expected an object"]


def test_load_tells_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    with pytest.raises(settings.SettingsError, match="run sensors-flash"):
        settings.load(str(file))
    file.write_text("{")
    with pytest.raises(settings.SettingsError, match="is not JSON"):
        settings.load(str(file))
    file.write_text(json.dumps(GOOD))
    assert settings.load(str(file))["mqtt"]["url"] == "mqtt://192.168.1.10"


@pytest.mark.parametrize(("options", "expected"), [([], None), (["--discovery"], True), (["--no-discovery"], False)])
def test_discovery_is_on_until_it_is_turned_off(
    options: list[str], expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plan.WIFI_PASSWORD, "12345678")
    given = ["--wifi", "home", "--mqtt", "mqtt://192.168.1.10", *options]
    made = plan.make(plan.parser().parse_args(given)).settings
    assert made.get("discovery") is expected
    assert settings.complete(made)["discovery"] is (expected is not False)

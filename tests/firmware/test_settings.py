"""The board's settings: every problem at once, the same texts on the computer and on the board, never a password."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firmware.board import settings
from sensors_sim import payloads

GOOD: dict[str, Any] = {
    "wifi": {"ssid": "home", "password": "correct horse"},
    "mqtt": {"url": "mqtt://192.168.1.10"},
    "sensors": [{"driver": "dht22", "pin": 4}],
}


def test_good_settings_are_completed() -> None:
    completed = settings.complete(GOOD)
    assert completed["interval"] == 10
    assert completed["profile"] == "mains"
    assert completed["discovery"] is False
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
        "8 to 63 characters, this one has 5",
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
        ({"sensors": [{"driver": "dht22", "pin": "D4"}]}, "pin: expected a whole number"),
        ({"sensors": [{"driver": "fake", "label": "My Room"}]}, "label: expected only a-z"),
        ({"interval": True}, "interval: expected a number"),
    ],
)
def test_one_problem(changes: dict[str, Any], text: str) -> None:
    (problem,) = settings.check({**GOOD, **changes})
    assert text in problem
    assert "secret" not in problem


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

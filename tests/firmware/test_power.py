"""How long a battery lasts: docs/firmware.md has the code's own figures, and a board tells where a waking went."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware.board import REPORT_WAKINGS, battery, diag, drivers, settings, wifi
from tests.firmware.boards import DEEP_SLEEP, Board
from tests.firmware.observers import Observer
from tests.support.brokers import Broker

TEXT = (Path(__file__).parents[2] / "docs" / "firmware.md").read_text()
SECTION = TEXT[TEXT.index("### How long a battery lasts") : TEXT.index("### The broker's name")]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if line.startswith("|")]


def test_the_days_are_those_that_the_board_estimates() -> None:
    [head, *rows] = [row for row in ROWS if re.match(r"interval|\d", row[0])]
    awake = [float(cell.removesuffix(" s awake")) for cell in head[1:]]
    assert awake == [2, 4, 8, settings.DEFAULTS["awake"]]
    capacity = settings.DEFAULTS["battery_mah"]
    assert isinstance(capacity, int)
    assert f"{capacity} mAh" in SECTION
    assert len(rows) == 5
    for interval, *days in rows:
        number, unit = interval.split()
        seconds = float(number) * {"min": 60, "h": 3600}[unit]
        assert days == [f"{diag.battery_days(capacity, each, seconds):.0f}" for each in awake], interval


def test_the_phases_and_their_limits_are_the_programs() -> None:
    limits = {row[0].strip("`"): row[2] for row in ROWS if row[0].strip("`") in diag.PHASES}
    for name in settings.DRIVERS:
        importlib.import_module(f"firmware.board.drivers.{name}")
    slowest = max(sensor.limit_seconds for sensor in drivers.Sensor.__subclasses__() if "drivers" in sensor.__module__)
    join = inspect.signature(wifi.Wifi).parameters["limit_seconds"].default
    timeout = settings.DEFAULTS["timeout"]
    assert list(limits) == list(diag.PHASES)
    assert limits["sensors"] == f"{drivers.Sensor.limit_seconds:g} s for each, {slowest:g} at most"
    assert limits["wifi"] == f"{join:g} s for each attempt"
    assert limits["broker"] == f"{timeout} s (`timeout`) for each answer"
    assert limits["delivery"] == f"{settings.DEFAULTS['awake']} s (`awake`) since the start"
    assert limits["rest"] == f"{battery._LINGER_SECONDS:g} s for commands, up to 2 s for the goodbye"
    assert f"{diag.AWAKE_MA:g} mA awake and {diag.ASLEEP_MA:g} mA asleep" in SECTION
    assert f"{diag.USABLE * 100:.0f} % of the cell" in SECTION


@pytest.mark.slow
def test_a_board_tells_where_a_waking_went(
    mosquitto: Broker, make_board: Callable[..., Board], observe: Callable[..., Observer]
) -> None:
    board = make_board(mosquitto.port, profile="battery", interval=60)
    observer = observe(board)
    board.power_on()
    assert board.wait_off() == DEEP_SLEEP
    kept = (board.folder / "rtc-memory").read_bytes()
    memory = json.loads(kept[2:].split(b"\n")[0])
    assert set(memory["phases"]) == set(diag.PHASES)
    assert memory["phases"]["rest"] >= battery._LINGER_SECONDS * 1000
    memory["wakings"] = REPORT_WAKINGS  # the next report is due
    (board.folder / "rtc-memory").write_bytes(kept[:2] + json.dumps(memory).encode())
    board.power_on("deep sleep")
    assert board.wait_off() == DEEP_SLEEP
    said = json.loads(observer.payloads("diag")[-1])
    assert said["awake_by"] == pytest.approx({name: memory["phases"][name] / 1000 for name in diag.PHASES})
    assert said["awake"] == pytest.approx(sum(said["awake_by"].values()))
    assert said["battery_days"] == int(diag.battery_days(2000, said["awake"], 60))
    print({name: memory["phases"][name] for name in diag.PHASES})

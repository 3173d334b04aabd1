"""What a board says of itself: its log, bounded and kept through a reset, and how it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firmware.board import diag, logs, settings
from sensors_sim import payloads
from tests.firmware.test_app import FakeBoard, make_app
from tests.test_devices import World


def make_log(board: FakeBoard | None = None, boot: int = 7, level: str = "info") -> logs.Log:
    return logs.Log("a", lambda _: None, board or FakeBoard(), boot, lambda: 1_790_000_000_123, level)


def lines(log: logs.Log) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in log.waiting]


def test_a_line_says_when_and_how_bad() -> None:
    log = make_log()
    log.trouble("wifi: lost home")
    assert lines(log) == [
        {"n": 0, "boot": 7, "up": 0.0, "ts": 1790000000.123, "level": "warning", "text": "wifi: lost home"}
    ]


def test_lines_below_the_level_are_for_the_console_alone() -> None:
    heard: list[str] = []
    log = logs.Log("a", heard.append, FakeBoard(), 1, lambda: None, "warning")
    log("quiet")
    log.detail("quieter")
    log("loud", "error")
    assert heard == ["quiet", "quieter", "loud"]
    assert [line["text"] for line in lines(log)] == ["loud"]


def test_the_newest_lines_wait_and_a_hole_shows_how_many_went() -> None:
    log = make_log()
    for number in range(50):
        log(f"line {number}")
    assert [line["n"] for line in lines(log)] == list(range(30, 50))


def test_a_line_without_memory_for_it_is_lost_and_shows_as_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    board = FakeBoard()
    log = make_log(board)
    log("first")

    def full(_lines: list[str]) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(board, "keep_log", full)
        log("second")
    log("third")
    assert [(line["n"], line["text"]) for line in lines(log)] == [(0, "first"), (2, "third")]


@pytest.mark.parametrize("text", ["x" * 500, "µ" * 300, "x" + "€" * 200, "\U0001f600" * 99, '"\\\n' * 99])
def test_a_long_line_is_cut_in_whole_characters(text: str) -> None:
    log = make_log()
    log(text)
    (said,) = lines(log)
    assert said["text"].endswith("…")
    assert text.startswith(said["text"][:-1])
    assert len(said["text"].encode()) <= 163


def test_the_last_lines_of_a_life_are_told_in_the_next() -> None:
    board = FakeBoard()
    log = make_log(board)
    for number in range(12):
        log(f"line {number}")
    log("two\nlines", "error")
    after = make_log(board, boot=8)
    after("hello")
    said = lines(after)
    assert [line["text"] for line in said] == [*(f"line {number}" for number in range(5, 12)), "two lines", "hello"]
    assert [(line["boot"], line.get("before")) for line in said] == [(7, True)] * 8 + [(8, None)]
    assert said[7]["level"] == "error"
    assert [line["n"] for line in said] == list(range(9))


@pytest.mark.parametrize("kept", ["", "nonsense", "info x y", "shout 5 y", "\x00\xff"])
def test_memory_that_holds_something_else_is_no_log(kept: str) -> None:
    board = FakeBoard()
    board.kept = [kept]
    assert lines(make_log(board)) == []


def test_an_orderly_end_leaves_nothing() -> None:
    board = FakeBoard()
    log = make_log(board)
    log("x")
    log.forget()
    assert board.kept == []


def test_the_levels_of_settings_and_payloads_are_the_same() -> None:
    assert settings.LOG_LEVELS == payloads.LOG_LEVELS


def test_a_command_asks_for_more_lines() -> None:
    app = make_app()
    app._on_message("cmd", b'{"log":"debug"}', False)
    app._publish(b'{"temperature":1}')
    assert json.loads(app.log.waiting[-1])["text"] == 'reading: {"temperature":1}'
    app._on_message("cmd", b'{"log":"loud"}', False)
    assert "log takes one of debug, info" in app.errors()["cmd"]
    assert app.log.level == "debug"


def test_how_a_board_is() -> None:
    board = FakeBoard()
    board.free = [60_000, 50_000, 70_000]
    app = make_app(board)
    app.client.connects = 3
    first, second, third = (json.loads(app.diag().whole()) for _ in range(3))
    assert first == {
        "boot": 7,
        "started_by": "power",
        "uptime": 0,
        "heap_free": 60_000,
        "heap_used": 40_000,
        "heap_lowest": 60_000,
        "reconnects": 2,
        "dropped": 0,
        "ts": first["ts"],
    }
    assert [second["heap_lowest"], third["heap_lowest"]] == [50_000, 50_000]
    assert app.diag().retain


def test_a_battery_is_estimated_from_what_a_waking_took() -> None:
    # 2 s of 100 mA in 300 s are 0.667 mA, and 0.15 mA asleep: 0.816 mA of 1,600 mAh are 81 days
    assert diag.battery_days(2000, 2, 300) == pytest.approx(81.7, abs=0.1)
    assert diag.battery_days(2000, 2, 300, 50) == pytest.approx(40.8, abs=0.1)
    assert diag.battery_days(2000, 10, 1) == pytest.approx(0.667, abs=0.001)  # never asleep
    app = make_app(
        FakeBoard({"boot": 5, "phases": {"rest": 500, "sensors": 1500}, "wakings": 3}), profile="battery", interval=300
    )
    said = json.loads(app.diag().whole())
    assert (said["awake"], said["battery_days"], said["wakings"]) == (2, 81, 4)
    assert list(said["awake_by"].items()) == [("sensors", 1.5), ("rest", 0.5)]
    app.settings["battery_mah"] = 0
    assert "battery_days" not in json.loads(app.diag().whole())


@pytest.mark.parametrize(("rssi", "percent"), [(None, None), (-120, 0), (-100, 0), (-61, 78), (-50, 100), (-30, 100)])
def test_the_quality_of_the_wifi(rssi: int | None, percent: int | None) -> None:
    assert diag.quality(rssi) == percent


def test_lines_that_wait_make_room_when_there_is_no_memory_for_a_connection() -> None:
    app = make_app()
    app.log.waiting.clear()
    for number in range(5):
        app.log(f"line {number}")
    app._on_progress("memory")
    assert [json.loads(line)["text"] for line in app.log.waiting] == ["line 3", "line 4"]


def of_itself(**settings: Any) -> dict[str, dict[str, Any]]:
    """What Home Assistant is told of the board itself, by name."""
    said = json.loads(make_app(**settings)._discovery_of_itself().whole())
    return {name: {"state_topic": said["state_topic"], **each} for name, each in said["cmps"].items()}


def test_home_assistant_has_entities_for_how_the_board_is() -> None:
    found = of_itself(diag=300, id="a")
    assert set(found) == {"firmware", "started_by", "heap_free", "uptime"}
    for name, each in found.items():
        assert each["entity_category"] == "diagnostic"
        assert each["unique_id"] == f"sensors_a_{name}"
        assert each["state_topic"] == ("sensors/a/meta" if name == "firmware" else "sensors/a/diag")
        said = json.loads(make_app().diag().whole())
        assert each["value_template"] == f"{{{{ value_json.{name} }}}}"
        assert name == "firmware" or name in said
    assert {name: each.get("expire_after") for name, each in found.items()} == {
        "firmware": None,
        "started_by": None,
        "heap_free": 900,
        "uptime": 900,
    }


def test_a_board_on_a_battery_tells_of_days_and_a_report_every_ten_wakings() -> None:
    found = of_itself(profile="battery", interval=60)
    assert set(found) == {"firmware", "started_by", "heap_free", "battery_days"}
    assert found["battery_days"]["expire_after"] == 1800
    assert "battery_days" not in of_itself(profile="battery", battery_mah=0)
    assert set(of_itself(diag=0)) == {"firmware"}


def test_the_gateway_reads_it_as_one_device_that_is_silent_when_its_readings_are() -> None:
    app, world = make_app(id="a", name="Attic", diag=300, interval=10), World()
    app.client.connected = True
    for message in (*app.births(), app._discovery(), app._discovery_of_itself()):
        world.say(message.topic, message.whole(), retained=message.retain)
    world.say("sensors/a/state", payloads.state_payload({"temperature": 21.5}, 0, 7), retained=False)
    device = world.one()
    assert (device["name"], device["announced_by"]) == ("Attic", ["meta", "home_assistant"])
    of_board = {field["name"]: field for field in device["fields"] if field.get("diagnostic")}
    assert {name: field["topic"] for name, field in of_board.items()} == {
        "Firmware": "sensors/a/meta",
        "Started by": "sensors/a/diag",
        "Heap free": "sensors/a/diag",
        "Uptime": "sensors/a/diag",
    }
    assert of_board["Started by"]["kind"] == "text"
    measured = [field["name"] for field in device["fields"] if not field.get("diagnostic")]
    assert measured == ["Temperature", "Humidity"]
    values = world.values()
    assert values[of_board["Started by"]["id"]] == "power"
    assert values[of_board["Heap free"]["id"]] == 60_000
    rules = [each.rule for each in world.registry.devices()]
    assert [rule.silence_seconds for rule in rules if rule is not None] == [30]
    alone = World()  # of which Home Assistant's message is all that is known
    alone.say(app._discovery().topic, app._discovery().whole())
    alone.work()
    [rule] = [each.rule for each in alone.registry.devices()]
    assert rule is not None
    assert rule.silence_seconds == 30

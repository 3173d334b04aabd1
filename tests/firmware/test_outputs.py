"""Relays, lights and pulses: safe from the first moment, told as the pin is, and known to Home Assistant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firmware import chips, plan, tools
from firmware.board import settings
from firmware.board.outputs import Outputs
from sensors_sim import payloads
from tests.firmware.test_app import FakeBoard, make_app

PUMP = {"output": "relay", "pin": 26, "name": "pump"}
LAMP = {"output": "led", "pin": 25, "name": "lamp"}
FAN = {"output": "pwm", "pin": 27, "name": "fan", "safe": 30}


class Pin:
    """An output; `stuck` is the level that it has whatever is written."""

    def __init__(self, level: int) -> None:
        self.levels = [level]
        self.stuck: int | None = None

    def __call__(self, level: int | None = None) -> int:
        if level is not None:
            self.levels.append(level)
        return self.levels[-1] if self.stuck is None else self.stuck

    def duty_u16(self, duty: int | None = None) -> int:
        return self(duty)


class Pins(FakeBoard):
    """A board with outputs; `made` has them in the order of their making, beside what else was made."""

    def __init__(self) -> None:
        super().__init__()
        self.pins: dict[int, Pin] = {}

    def output(self, pin: int, level: int) -> Pin:
        return self.pins.setdefault(pin, Pin(level))

    def pwm(self, pin: int, frequency: int, duty: int) -> Pin:
        assert frequency == 1000
        return self.output(pin, duty)


def test_an_output_is_safe_from_its_first_moment() -> None:
    board = Pins()
    specs = [PUMP, {**PUMP, "pin": 5, "name": "heater", "inverted": True}, LAMP, FAN]
    outputs = Outputs(specs, board)
    assert {pin: each.levels for pin, each in board.pins.items()} == {26: [0], 5: [1], 25: [0], 27: [19661]}
    assert outputs.readings() == {"pump": 0, "heater": 0, "lamp": 0, "fan": 30}


def test_what_is_told_is_what_the_pin_says() -> None:
    board = Pins()
    outputs = Outputs([PUMP], board)
    board.pins[26].stuck = 0  # a short circuit
    outputs.set(outputs.check({"pump": True}))
    assert board.pins[26].levels == [0, 1]
    assert outputs.readings() == {"pump": 0}


@pytest.mark.parametrize("inverted", [False, True])
def test_every_percent_is_told_as_it_was_asked_for(inverted: bool) -> None:
    board = Pins()
    outputs = Outputs([{**LAMP, "inverted": inverted}], board)
    for percent in range(101):
        outputs.set(outputs.check({"lamp": percent}))
        assert outputs.readings() == {"lamp": percent}
    assert board.pins[25].levels[-1] == (0 if inverted else 65535)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ([], "set takes an object"),
        ({}, "set takes an object"),
        ({"pmp": 1}, "there is no output 'pmp': known are lamp, pump"),
        ({"pump": 2}, "pump takes 0, 1, false or true"),
        ({"pump": 0.5}, "pump takes 0, 1, false or true"),
        ({"pump": "on"}, "pump takes 0, 1, false or true"),
        ({"lamp": 101}, "lamp takes a number from 0 to 100"),
        ({"lamp": True}, "lamp takes a number from 0 to 100"),
        ({"lamp": -1, "pump": 1}, "lamp takes a number from 0 to 100"),
    ],
)
def test_a_command_that_is_wrong_changes_nothing(wanted: Any, text: str) -> None:
    board = Pins()
    app = make_app(board, outputs=[PUMP, LAMP])
    app._on_message("", json.dumps({"set": wanted}).encode(), False)
    assert text in app.notes["cmd"]
    assert [pin.levels for pin in board.pins.values()] == [[0], [0]]


async def test_a_command_is_carried_out_and_its_state_comes_with_the_readings() -> None:
    board = Pins()
    app = make_app(board, outputs=[PUMP, LAMP])
    app._on_message("", b'{"set":{"pump":true,"lamp":40.4}}', False)
    assert app.retime.is_set()  # at once, not after the interval
    state = json.loads(await app.measure() or b"")
    assert (state["pump"], state["lamp"]) == (1, 40)
    fields = json.loads(app.meta().whole())["fields"]
    assert fields["pump"] == {"min": 0, "max": 1, "output": "relay"}
    assert fields["lamp"] == {"unit": "%", "min": 0, "max": 100, "output": "led"}


def test_a_retained_set_is_ignored_and_without_outputs_there_is_none() -> None:
    board = Pins()
    app = make_app(board, outputs=[PUMP])
    app._on_message("", b'{"set":{"pump":1}}', True)
    assert board.pins[26].levels == [0]
    bare = make_app()
    bare._on_message("", b'{"set":{"pump":1}}', False)
    assert "unknown command" in bare.notes["cmd"]


def test_an_output_that_is_long_without_the_broker_goes_back_to_its_safe_value() -> None:
    board = Pins()
    outputs = Outputs([{**PUMP, "safe_after": 60}, {**FAN, "safe_after": 90}, LAMP], board)
    outputs.set({"pump": 1, "fan": 80, "lamp": 50})
    assert outputs.make_safe(60) == []
    assert outputs.make_safe(61) == ["pump"]
    assert outputs.make_safe(61) == []
    assert outputs.make_safe(91) == ["fan"]
    assert outputs.readings() == {"pump": 0, "fan": 30, "lamp": 50}


def test_a_sensor_does_not_take_the_name_of_an_output() -> None:
    app = make_app(Pins(), outputs=[{**PUMP, "name": "temperature"}])
    assert list(app.sources[0].names.values()) == ["temperature_2", "humidity"]


def test_home_assistant_gets_a_switch_a_light_and_a_number() -> None:
    app = make_app(Pins(), outputs=[PUMP, LAMP, FAN], discovery=True)
    components = json.loads(app._discovery().whole())["cmps"]
    pump, lamp, fan = components["pump"], components["lamp"], components["fan"]
    assert [each["p"] for each in (pump, lamp, fan)] == ["switch", "light", "number"]
    assert {each["command_topic"] for each in (pump, lamp, fan)} == {"sensors/esp32-abcdef/cmd"}
    assert len({each["unique_id"] for each in components.values()}) == len(components)
    assert lamp["brightness_state_topic"] == payloads.state_topic("esp32-abcdef")
    for text in (
        pump["payload_on"],
        pump["payload_off"],
        lamp["payload_on"],
        lamp["payload_off"],
        lamp["brightness_command_template"].replace("{{ value }}", "40"),
        fan["command_template"].replace("{{ value }}", "40.0"),
    ):
        command = payloads.parse_command(text.encode(), also=("set",))
        assert app.outputs.check(command["set"])
    assert "temperature" in components
    assert "restart" in components


OUTPUT_PROBLEMS: list[tuple[Any, str]] = [
    ("relay", "outputs: expected a list"),
    (["relay"], "expected an output of led, pwm, relay"),
    ([{"output": "motor", "pin": 4, "name": "m"}], "expected an output of led, pwm, relay"),
    ([{"output": "relay", "pin": 4}], "relay needs name"),
    ([{**PUMP, "frequency": 5}], "relay has no frequency"),
    ([{**PUMP, "pin": 99}], "pin: expected a whole number from 0 to 48, got 99"),
    ([{**PUMP, "name": "Pump"}], "name: expected a name such as voltage"),
    ([{**PUMP, "name": "rssi"}], "not ts, seq, boot or rssi"),
    ([{**PUMP, "safe": 1}], "safe: expected true or false, got 1"),
    ([{**FAN, "safe": 101}], "safe: expected a whole number from 0 to 100"),
    ([{**FAN, "frequency": 0}], "frequency: expected a whole number from 1 to 40000"),
    ([{**PUMP, "safe_after": 0}], "safe_after: expected a whole number from 1 to 518400"),
    ([PUMP, {**PUMP, "pin": 5}], 'outputs[1]: name: "pump" is another output already'),
]


@pytest.mark.parametrize(("outputs", "text"), OUTPUT_PROBLEMS)
def test_one_problem_of_the_outputs(outputs: Any, text: str) -> None:
    (problem,) = settings.check({"mqtt": {"url": "mqtt://h"}, "outputs": outputs})
    assert text in problem


def test_a_board_that_sleeps_has_no_outputs() -> None:
    given = {"mqtt": {"url": "mqtt://h"}, "outputs": [PUMP, LAMP, FAN]}
    assert settings.check(given) == []
    (problem,) = settings.check({**given, "profile": "battery"})
    assert "a board that sleeps" in problem


def test_pins_of_outputs_are_checked() -> None:
    esp32 = chips.CHIPS["ESP32"]
    sensors = [{"driver": "dht22", "pin": 4}]
    assert chips.check_pins(esp32, sensors, [PUMP, LAMP]) == ([], [])
    for outputs, text in (
        ([{**PUMP, "pin": 34}], "outputs[0]: pin: pin 34 of an ESP32 is an input only"),
        ([{**PUMP, "pin": 4}], "pin 4 is the pin of sensors[0] already"),
        ([PUMP, {**LAMP, "pin": 26}], "outputs[1]: pin: pin 26 is the pin of outputs[0] already"),
    ):
        problems, _ = chips.check_pins(esp32, sensors, outputs)
        assert problems == [problem for problem in problems if text in problem]
        assert problems
    assert "decides at a reset" in chips.check_pins(esp32, [], [{**PUMP, "pin": 12}])[1][0]


def test_outputs_can_be_given_on_the_command_line() -> None:
    assert plan.parse_output("relay:pin=26,name=pump,safe=true") == {**PUMP, "safe": True}
    with pytest.raises(tools.FlashError, match=r"--output relay:pump: expected output:key=value, such as relay:pin=26"):
        plan.parse_output("relay:pump")

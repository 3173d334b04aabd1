"""Which pins of which chip a sensor may have, and that `sensors-flash` asks before it changes the board."""

from __future__ import annotations

from typing import Any

import pytest

from firmware import chips, flash, plan, tools

SUITABLE = [chip for chip in chips.CHIPS.values() if not chip.unsuitable]


def dht22(pin: int, **more: Any) -> dict[str, Any]:
    return {"driver": "dht22", "pin": pin, **more}


def adc(pin: int) -> dict[str, Any]:
    return {"driver": "adc", "pin": pin}


def bus(scl: int, sda: int, driver: str = "bme280") -> dict[str, Any]:
    return {"driver": driver, "scl": scl, "sda": sda}


@pytest.mark.parametrize(
    ("name", "sensor", "text"),
    [
        ("ESP32-C3", adc(34), "has no pin 34"),
        ("ESP32", dht22(20), "has no pin 20"),
        ("ESP32", dht22(24), "has no pin 24"),
        ("ESP32-S2", dht22(22), "has no pin 22"),
        ("ESP32-S2", dht22(47), "has no pin 47"),
        ("ESP32-C6", dht22(31), "has no pin 31"),
        ("ESP32", dht22(6), "belongs to its flash"),
        ("ESP32-S3", bus(9, 30), "sda: pin 30 of an ESP32-S3 belongs to its flash"),
        ("ESP32-C2", dht22(14), "belongs to its flash"),
        ("ESP32-C3", dht22(11), "belongs to its flash"),
        ("ESP32-C5", dht22(16), "belongs to its flash"),
        ("ESP32-C6", dht22(24), "belongs to its flash"),
        ("ESP32", dht22(34), "is an input only"),
        ("ESP32", bus(39, 21), "scl: pin 39 of an ESP32 is an input only"),
        ("ESP32-S2", {"driver": "ds18b20", "pin": 46}, "is an input only"),
        ("ESP32", adc(4), "measures with ADC2, which does not work beside Wi-Fi: 32–39 do"),
        ("ESP32-S3", adc(11), "measures with ADC2, which does not work beside Wi-Fi: 1–10 do"),
        ("ESP32-C3", adc(5), "measures with ADC2"),
        ("ESP32", adc(21), "is no analogue input: 32–39 are"),
        ("ESP32-C6", adc(7), "is no analogue input: 0–6 are"),
        ("ESP32-C5", adc(0), "is no analogue input: 1–6 are"),
    ],
)
def test_a_pin_that_can_not_work_is_refused(name: str, sensor: dict[str, Any], text: str) -> None:
    (problem,), _ = chips.check_pins(chips.CHIPS[name], [sensor])
    assert text in problem
    assert problem.startswith("sensors[0]: ")


@pytest.mark.parametrize(
    ("name", "sensor", "text"),
    [
        ("ESP32", dht22(12), "pin 12 decides at a reset how the chip starts"),
        ("ESP32-C3", adc(2), "pin 2 decides at a reset how the chip starts"),
        ("ESP32-S3", dht22(45), "pin 45 decides at a reset how the chip starts"),
        ("ESP32", dht22(16), "pin 16 belongs to the memory of boards that have some beside the flash"),
        ("ESP32-S3", dht22(35), "pin 35 belongs to the memory"),
        ("ESP32", dht22(1), "pin 1 is the board's USB or serial port"),
        ("ESP32-C6", dht22(13), "pin 13 is the board's USB or serial port"),
    ],
)
def test_a_pin_that_may_be_meant_is_taken_with_a_warning(name: str, sensor: dict[str, Any], text: str) -> None:
    problems, (warning,) = chips.check_pins(chips.CHIPS[name], [sensor])
    assert problems == []
    assert text in warning


def test_a_pin_can_not_be_two_sensors_but_a_bus_can_be_shared() -> None:
    esp32 = chips.CHIPS["ESP32"]
    assert chips.check_pins(esp32, [bus(22, 21), bus(22, 21, "scd41"), adc(34), dht22(4)]) == ([], [])
    for sensors in ([dht22(4), dht22(4)], [bus(22, 21), dht22(22)], [bus(22, 21), bus(21, 22)]):
        problems, _ = chips.check_pins(esp32, sensors)
        assert problems
        assert all("sensors[1]" in problem and "already" in problem for problem in problems)


@pytest.mark.parametrize("chip", SUITABLE, ids=[chip.name for chip in SUITABLE])
def test_each_pin_of_the_table_is_one_of_the_chip(chip: chips.Chip) -> None:
    there = chips.numbers(chip.pins)
    for use in ("flash", "memory", "strapping", "console", "inputs", "adc1", "adc2"):
        assert chips.numbers(getattr(chip, use)) <= there, use
    assert chip.boot_pin in chips.numbers(chip.strapping)
    assert not chips.numbers(chip.adc1) & (chips.numbers(chip.adc2) | chips.numbers(chip.flash))


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("Generic ESP32 module with ESP32", "ESP32"),
        ("Generic ESP32C3 module with ESP32C3", "ESP32-C3"),
        ("Generic ESP32S3 module with Octal-SPIRAM with ESP32S3", "ESP32-S3"),
        ("M5Stack Atom with ESP32-PICO-D4", "ESP32"),
        ("linux [GCC 12.2.0] version", None),
        ("Raspberry Pi Pico W with RP2040", None),
    ],
)
def test_the_chip_is_known_from_what_micropython_says(machine: str, name: str | None) -> None:
    found = chips.in_machine(machine)
    assert (found.name if found else None) == name


def carry_out(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], *arguments: str) -> tuple[str, list[str]]:
    """Runs the command with tools that answer this; returns why it ended, and which tools it called for what."""
    asked: list[str] = []

    def answer(command: tools.Command) -> str:
        asked.append(command.what)
        return answers[command.what]

    monkeypatch.setattr(tools.Command, "run", answer)
    monkeypatch.setenv(plan.WIFI_PASSWORD, "12345678")
    with pytest.raises(SystemExit) as end:
        flash.main(["--wifi", "home", "--mqtt", "mqtt://127.0.0.1:1", "--wait", "0", "--port", "/dev/x", *arguments])
    return str(end.value), asked


def test_the_pins_are_checked_before_the_board_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    has = {"asking for its version": "MICROPYTHON 1 29 Generic ESP32C3 module with ESP32C3\r\n"}
    text, asked = carry_out(monkeypatch, has, "--sensor", "adc:pin=34", "--sensor", "dht22:pin=12")
    assert "sensors[0]: pin: an ESP32-C3 has no pin 34" in text
    assert "sensors[1]: pin: pin 12 of an ESP32-C3 belongs to its flash" in text
    assert asked == ["asking for its version"]


def test_a_board_with_another_chip_than_was_said_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    has = {"asking for its version": "MICROPYTHON 1 29 Generic ESP32C3 module with ESP32C3\r\n"}
    text, asked = carry_out(monkeypatch, has, "--chip", "esp32")
    assert "the board has an ESP32-C3, no ESP32: see --chip" in text
    assert asked == ["asking for its version"]


def test_a_rehearsal_checks_the_pins_of_a_chip_that_was_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, asked = carry_out(monkeypatch, {}, "--dry-run", "--chip", "esp32", "--sensor", "dht22:pin=6")
    assert "pin 6 of an ESP32 belongs to its flash" in text
    assert asked == []
    assert "see whether the sensors' pins suit the chip" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sensor", "text"),
    [
        ({"driver": "pulse", "pin": 34}, None),
        ({"driver": "pms5003", "rx": 35, "tx": 26}, None),
        ({"driver": "pms5003", "rx": 26, "tx": 35}, "tx: pin 35 of an ESP32 is an input only"),
        ({"driver": "hx711", "sck": 18, "dout": 34}, None),
        ({"driver": "gpio", "pin": 34, "pull": "none"}, None),
        ({"driver": "gpio", "pin": 34}, "has no resistor of its own"),
        ({"driver": "soil", "pin": 27}, "measures with ADC2"),
        ({"driver": "battery", "pin": 22, "chemistry": "li-ion"}, "is no analogue input"),
        ({"driver": "hx711", "sck": 6, "dout": 34}, "sck: pin 6 of an ESP32 belongs to its flash"),
    ],
)
def test_a_pin_that_is_only_listened_to_may_be_an_input(sensor: dict[str, Any], text: str | None) -> None:
    problems, _ = chips.check_pins(chips.CHIPS["ESP32"], [sensor])
    assert len(problems) == (text is not None)
    assert text is None or text in problems[0]


def test_only_the_pins_of_a_bus_are_shared() -> None:
    dust = {"driver": "pms5003", "rx": 26, "tx": 27}
    problems, _ = chips.check_pins(chips.CHIPS["ESP32"], [dust, dust])
    assert len(problems) == 2

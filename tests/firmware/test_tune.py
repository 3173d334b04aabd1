"""Commands that adjust a sensor itself, against the examples in the SCD41's data sheet."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import pytest

from firmware.board.drivers import SensorError, crc8, scd41
from tests.firmware.test_app import make_app
from tests.firmware.test_drivers import Scd41Chip


class Tunable(Scd41Chip):
    """An SCD41 with memory; `frames` is all that was written to it."""

    def __init__(self, correction: int = 0x7FCE, takes: bool = True) -> None:
        super().__init__()
        self.kept = {0x2322: 0, 0x2318: 0}
        self.correction = correction
        self.takes = takes
        self.frames: list[str] = []

    def writeto(self, address: int, data: bytes) -> None:
        super().writeto(address, data[:2])
        self.frames.append(data.hex())
        setter = {0x2427: 0x2322, 0x241D: 0x2318}.get(self.commands[-1])
        if setter is not None and self.takes:
            self.kept[setter] = data[2] << 8 | data[3]

    def readfrom_into(self, address: int, buffer: bytearray) -> None:
        word = {**self.kept, 0x362F: self.correction}.get(self.commands[-1])
        if word is None:
            super().readfrom_into(address, buffer)
            return
        pair = struct.pack(">H", word)
        buffer[:] = pair + bytes([crc8(pair, 0x31, 0xFF)])


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted and not waited for."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


async def tuned(chip: Tunable, wanted: Any) -> scd41.Scd41:
    sensor = scd41.Scd41(chip)
    await sensor.start()
    sensor.tune(wanted)
    assert (await sensor.read())["co2"] == 500
    return sensor


async def test_scd41_examples_of_its_data_sheet(slept: list[float]) -> None:
    chip = Tunable()
    sensor = await tuned(chip, {"altitude": 1950, "offset": 5.4, "co2": 480})
    assert {"2427079e09", "241d07e648", "362f01e0b4"} <= set(chip.frames)
    assert sensor.tuned == {"altitude": 1950, "offset": 5.4, "correction": -50}
    assert slept.count(0.8) == 2  # persist_settings
    assert 0.4 in slept  # perform_forced_recalibration


async def test_scd41_does_not_measure_while_it_is_tuned_and_its_flash_is_spared(slept: list[float]) -> None:
    chip = Tunable()
    sensor = await tuned(chip, {"altitude": 500})
    at = chip.commands.index(0x2427)
    assert 0x3F86 in chip.commands[chip.commands.index(0x21B1) : at]
    assert 0x21B1 in chip.commands[at:]
    sensor.tune({"altitude": 500})
    await sensor.read()
    assert chip.commands.count(0x3615) == 1  # what it has already is not written again
    before = len(chip.commands)
    await sensor.read()
    assert 0x2322 not in chip.commands[before:]  # and a command is carried out once


@pytest.mark.parametrize(
    ("chip", "wanted", "text"),
    [
        (Tunable(correction=0xFFFF), {"co2": 420}, "three minutes"),
        (Tunable(takes=False), {"offset": 3}, "did not take offset"),
    ],
)
async def test_scd41_says_what_it_did_not_do(slept: list[float], chip: Tunable, wanted: Any, text: str) -> None:
    with pytest.raises(SensorError, match=text):
        await tuned(chip, wanted)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (5, "tune takes an object"),
        ({"scd40": {}}, "there is no sensor 'scd40': known are fake, scd41"),
        ({"fake": {"altitude": 5}}, "fake has nothing to tune"),
        ({"scd41": 500}, "scd41 takes an object"),
        ({"scd41": {"height": 5}}, "scd41 has altitude, offset and co2, not 'height'"),
        ({"scd41": {"altitude": 9000}}, "altitude of scd41 is a number from 0 to 3000"),
        ({"scd41": {"co2": True}}, "co2 of scd41 is a number from 400 to 2000"),
    ],
)
def test_what_can_not_be_tuned_is_told(wanted: Any, text: str) -> None:
    app = make_app(sensors=[{"driver": "fake"}, {"driver": "scd41", "scl": 22, "sda": 21}])
    app._on_message("", json.dumps({"tune": wanted}).encode(), False)
    assert text in app.notes["cmd"]


async def test_what_the_sensor_took_stands_in_meta(slept: list[float]) -> None:
    app = make_app(sensors=[{"driver": "scd41", "scl": 22, "sda": 21, "label": "cellar"}])
    sensor: Any = app.sources[0].sensor
    sensor.i2c = Tunable()
    app._on_message("", b'{"tune":{"cellar":{"altitude":500}}}', False)
    assert app.retime.is_set()
    assert "tuned" not in json.loads(app.meta().whole())
    await app.measure()
    assert json.loads(app.meta().whole())["tuned"] == {"cellar": {"altitude": 500}}

"""What the drivers make of what the sensors send, against the figures in the sensors' data sheets."""

from __future__ import annotations

import asyncio
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.board.drivers import KINDS, SensorError, bme280, crc8, create, dht22, ds18b20, scd41, sensirion
from firmware.board.drivers import adc as adc_driver
from firmware.board.drivers.fake import Fake
from firmware.board.settings import DRIVERS
from sensors_sim import payloads

# -- BME280

# Bosch, BMP280 data sheet (BST-BMP280-DS001), §3.12: trimming values, raw measurements and what they mean. The BME280
# has the same formulas for temperature and pressure, and no example of its own.
EXAMPLE = (27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
EXAMPLE_TEMPERATURE, EXAMPLE_PRESSURE = 519888, 415148

# of a BME280: H1 to H6
HUMIDITY = (75, 365, 0, 313, 50, 30)


def trimming(tp: tuple[int, ...] = EXAMPLE, h: tuple[int, ...] | None = HUMIDITY) -> bme280.Trimming:
    """The registers of a chip with these values, read as the driver reads them (data sheet, table 16)."""
    low = struct.pack("<HhhHhhhhhhhh", *tp) + bytes([0, h[0] if h else 0])
    if h is None:
        return bme280.Trimming(low, None)
    _, h2, h3, h4, h5, h6 = h
    high = struct.pack("<hB", h2, h3) + bytes([h4 >> 4 & 0xFF, (h4 & 0x0F) | (h5 & 0x0F) << 4, h5 >> 4 & 0xFF])
    return bme280.Trimming(low, high + struct.pack("b", h6))


def test_bme280_gives_the_data_sheets_figures() -> None:
    chip = trimming()
    fine = chip.fine(EXAMPLE_TEMPERATURE)
    assert fine == 128422
    assert chip.temperature(fine) == 25.08
    assert chip.pressure(EXAMPLE_PRESSURE, fine) == pytest.approx(1006.5327, abs=0.001)


def test_bme280_reads_its_trimming_values_in_the_right_order() -> None:
    chip = trimming(h=(201, -32768, 255, -2048, 2047, -128))
    assert chip.t == [27504, 26435, -1000]
    assert chip.p == list(EXAMPLE[3:])
    assert chip.h == [201, -32768, 255, -2048, 2047, -128]


def exact(tp: tuple[int, ...], h: tuple[int, ...], raw_t: int, raw_p: int, raw_h: int) -> tuple[float, float, float]:
    """Temperature, pressure and humidity by the data sheet's formulas in real numbers (BST-BME280-DS002, §8.1)."""
    t1, t2, t3, p1, p2, p3, p4, p5, p6, p7, p8, p9 = tp
    h1, h2, h3, h4, h5, h6 = h
    x = raw_t / 16384 - t1 / 1024
    y = raw_t / 131072 - t1 / 8192
    fine = x * t2 + y * y * t3
    a = fine / 2 - 64000
    b = (a * a * p6 / 32768 + a * p5 * 2) / 4 + p4 * 65536
    c = (1 + (p3 * a * a / 524288 + p2 * a) / 524288 / 32768) * p1
    p = (1048576 - raw_p - b / 4096) * 6250 / c
    p += (p9 * p * p / 2147483648 + p * p8 / 32768 + p7) / 16
    v = fine - 76800
    humidity = (raw_h - (h4 * 64 + h5 / 16384 * v)) * (h2 / 65536 * (1 + h6 / 67108864 * v * (1 + h3 / 67108864 * v)))
    humidity *= 1 - h1 * humidity / 524288
    return fine / 5120, p / 100, min(100.0, max(0.0, humidity))


@given(st.integers(400_000, 620_000), st.integers(200_000, 600_000), st.integers(10_000, 50_000))
def test_bme280_agrees_with_the_formulas_in_real_numbers(raw_t: int, raw_p: int, raw_h: int) -> None:
    chip = trimming()
    fine = chip.fine(raw_t)
    temperature, pressure, humidity = exact(EXAMPLE, HUMIDITY, raw_t, raw_p, raw_h)
    assert chip.temperature(fine) == pytest.approx(temperature, abs=0.01)
    assert chip.pressure(raw_p, fine) == pytest.approx(pressure, abs=0.02)
    assert chip.humidity(raw_h, fine) == pytest.approx(humidity, abs=0.05)


def test_bme280_without_trimming_values_is_an_error_not_a_division_by_zero() -> None:
    chip = trimming((0,) * 12)
    with pytest.raises(SensorError, match="trimming"):
        chip.pressure(EXAMPLE_PRESSURE, 0)


class Registers:
    """An I²C device with registers, such as a BME280."""

    def __init__(self, identity: int, data: bytes, busy: int = 0) -> None:
        self.memory = bytearray(256)
        self.memory[0xD0] = identity
        self.memory[0x88 : 0x88 + 26] = struct.pack("<HhhHhhhhhhhh", *EXAMPLE) + bytes([0, 75])
        self.memory[0xE1 : 0xE1 + 7] = bytes([0x6D, 0x01, 0x00, 0x13, 0x29, 0x03, 0x1E])
        self.memory[0xF7 : 0xF7 + 8] = data
        self.memory[0xF3] = busy
        self.written: list[tuple[int, int]] = []

    def readfrom_mem(self, address: int, register: int, count: int) -> bytes:
        assert address == 0x76
        return bytes(self.memory[register : register + count])

    def writeto_mem(self, address: int, register: int, data: bytes) -> None:
        assert address == 0x76
        self.written.append((register, data[0]))


DATA = bytes([0x65, 0x5A, 0xC0, 0x7E, 0xED, 0x00, 0x6E, 0x00])  # the example's raw values, and a humidity


async def measure(sensor: Any) -> dict[str, float]:
    """What the program does with a sensor."""
    await sensor.start()
    values: dict[str, float] = await sensor.read()
    return values


async def test_bme280_measures_once_and_sleeps() -> None:
    bus = Registers(0x60, DATA)
    values = await measure(bme280.Bme280(bus))
    assert values["temperature"] == 25.08
    assert 40 < values["humidity"] < 70
    assert (0xF4, 0x25) in bus.written
    assert bus.written.index((0xF2, 1)) < bus.written.index((0xF4, 0x25))  # §5.4.3: the order matters


async def test_a_bmp280_works_without_humidity() -> None:
    sensor = bme280.Bme280(Registers(0x58, DATA))
    assert set(await measure(sensor)) == {"temperature", "pressure"} == set(sensor.fields)
    assert sensor.model == "BMP280"


@pytest.mark.parametrize(
    ("bus", "text"),
    [
        (Registers(0xFF, DATA), "id is 0xff"),
        (Registers(0x61, DATA), "it is a BME680, whose driver is bme680"),
        (Registers(0x55, DATA), "it is a BMP180, for which there is no driver"),
        (Registers(0x60, bytes([0x80, 0, 0] * 2 + [0x80, 0])), "did not measure"),
        (Registers(0x60, DATA, busy=0x08), "stays busy"),
    ],
)
async def test_bme280_says_what_is_wrong(bus: Registers, text: str) -> None:
    with pytest.raises(SensorError, match=text):
        await measure(bme280.Bme280(bus))


# -- DHT22


# Aosong, AM2302 product manual: its two examples, and the values around zero
@pytest.mark.parametrize(
    ("humidity", "temperature", "expected"),
    [
        (0x028C, 0x015F, (35.1, 65.2)),
        (0x028C, 0x8065, (-10.1, 65.2)),
        (0x0000, 0x0000, (0.0, 0.0)),
        (0x03E8, 0x8000, (0.0, 100.0)),
        (0x028C, 0xFF9B, (-10.1, 65.2)),  # a copy of the sensor that sends two's complement
        (0x028C, 0xFFFF, (-0.1, 65.2)),
    ],
)
def test_dht22_examples(humidity: int, temperature: int, expected: tuple[float, float]) -> None:
    data = struct.pack(">HH", humidity, temperature)
    assert dht22.decode(data + bytes([sum(data) & 0xFF])) == expected


def test_dht22_refuses_a_wrong_checksum_and_impossible_values() -> None:
    with pytest.raises(SensorError, match="checksum"):
        dht22.decode(bytes([0x02, 0x8C, 0x01, 0x5F, 0xEF]))
    for data in (bytes([0x02, 0x8C, 0x7F, 0x72]), bytes([0x0F, 0xFF, 0x00, 0xD6])):
        with pytest.raises(SensorError, match="out of range"):
            dht22.decode(data + bytes([sum(data) & 0xFF]))


@pytest.mark.parametrize("data", [(45, 0, 23, 0), (20, 0, 0, 9), (95, 0, 60, 0), (33, 0, 5, 0x81)])
def test_a_dht11_in_place_of_a_dht22_is_named(data: tuple[int, ...]) -> None:
    with pytest.raises(SensorError, match=rf"this is a DHT11 \({data[2]} °C, {data[0]} %\): its driver is dht11"):
        dht22.decode(bytes([*data, sum(data) & 0xFF]))


async def test_dht22_tells_a_bare_exception_apart_from_an_absent_sensor() -> None:
    class Bad:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def measure(self) -> None:
            raise self.error

    with pytest.raises(SensorError, match="checksum error"):
        await measure(dht22.Dht22(Bad(Exception("checksum error"))))
    with pytest.raises(OSError, match="110"):
        await measure(dht22.Dht22(Bad(OSError(110))))


# -- DS18B20


# Maxim, DS18B20 data sheet, table 1
@pytest.mark.parametrize(
    ("raw", "temperature"),
    [
        (0x07D0, 125),
        (0x0550, 85),
        (0x0191, 25.0625),
        (0x00A2, 10.125),
        (0x0008, 0.5),
        (0x0000, 0),
        (0xFFF8, -0.5),
        (0xFF5E, -10.125),
        (0xFE6F, -25.0625),
        (0xFC90, -55),
    ],
)
def test_ds18b20_table(raw: int, temperature: float) -> None:
    assert ds18b20.decode(scratchpad(raw), may_be_85=True) == temperature


def scratchpad(raw: int) -> bytes:
    """Nine bytes as the probe sends them."""
    data = struct.pack("<H", raw) + bytes([0x4B, 0x46, 0x7F, 0xFF, 0x0C, 0x10])
    return data + bytes([crc8(data, 0x31, 0, True)])


def test_one_wire_checksum_of_a_real_rom() -> None:
    # Maxim, Application Note 27: 1-Wire address 02 1C B8 01 00 00 00 has the checksum A2
    assert crc8(bytes.fromhex("021cb801000000"), 0x31, 0, True) == 0xA2


def test_ds18b20_refuses_what_is_no_measurement() -> None:
    with pytest.raises(SensorError, match="power-on"):
        ds18b20.decode(scratchpad(0x0550))
    with pytest.raises(SensorError, match="checksum"):
        ds18b20.decode(scratchpad(0x0191)[:8] + b"\x00")
    with pytest.raises(SensorError, match="held low"):
        ds18b20.decode(bytes(9))


class Bus:
    """A 1-Wire bus with probes."""

    def __init__(self, readings: dict[bytes, int]) -> None:
        self.readings = readings

    def scan(self) -> list[bytearray]:
        return [bytearray(rom) for rom in self.readings]

    def convert_temp(self) -> None:
        pass

    def read_scratch(self, rom: bytes) -> bytes:
        return scratchpad(self.readings[bytes(rom)])


async def test_ds18b20_probes_keep_their_names() -> None:
    bus = Bus({b"\x28bbbbbbb": 0x00A2, b"\x28aaaaaaa": 0x0191})
    sensor = ds18b20.Ds18b20(bus, 2)
    assert await measure(sensor) == {"temperature": 25.0625, "temperature_2": 10.125}
    del bus.readings[b"\x28aaaaaaa"]
    with pytest.raises(SensorError, match="1 of 2 probes"):
        await sensor.start()


async def test_a_ds18s20_is_named_and_its_half_degrees_are_not_read_as_sixteenths() -> None:
    with pytest.raises(SensorError, match="a probe is a DS18S20"):
        await measure(ds18b20.Ds18b20(Bus({b"\x10aaaaaaa": 0x0032})))


# -- SCD41


def test_sensirions_checksum() -> None:
    assert crc8(b"\xbe\xef", 0x31, 0xFF) == 0x92  # Sensirion, SCD4x data sheet, "Checksum calculation"


def test_scd41_example() -> None:
    # Sensirion, SCD4x data sheet, example of read_measurement: 500 ppm, 25 °C, 37 %
    values = scd41.convert(sensirion.words(bytes.fromhex("01f4336667a25eb93c"), "SCD41"))
    assert values["co2"] == 500
    assert values["temperature"] == pytest.approx(25, abs=0.01)
    assert values["humidity"] == pytest.approx(37, abs=0.01)


def test_scd41_refuses_a_wrong_checksum_and_no_measurement() -> None:
    with pytest.raises(SensorError, match="checksum"):
        sensirion.words(bytes.fromhex("01f434"), "SCD41")
    with pytest.raises(SensorError, match="no CO₂"):
        scd41.convert([0, 0x6667, 0x5EB9])


class Scd41Chip:
    """Answers an SCD41's commands."""

    def __init__(self, ready_after: int = 0) -> None:
        self.commands: list[int] = []
        self.ready_after = ready_after

    def writeto(self, address: int, data: bytes) -> None:
        assert address == 0x62
        self.commands.append(data[0] << 8 | data[1])

    def readfrom_into(self, address: int, buffer: bytearray) -> None:
        command = self.commands[-1]
        words = {scd41._SERIAL_NUMBER: [0xF896, 0x9F07, 0x3BBE], scd41._READ_MEASUREMENT: [500, 0x6667, 0x5EB9]}
        if command == scd41._DATA_READY:
            words[command] = [0x8006 if self.ready_after <= 0 else 0x8000]
            self.ready_after -= 1
        raw = b"".join(
            struct.pack(">H", word) + bytes([crc8(struct.pack(">H", word), 0x31, 0xFF)]) for word in words[command]
        )
        buffer[:] = raw


async def test_scd41_measures_periodically_from_its_start() -> None:
    chip = Scd41Chip(ready_after=2)
    sensor = scd41.Scd41(chip)
    values = await measure(sensor)
    assert values["co2"] == 500
    assert chip.commands[0] == scd41._STOP_PERIODIC  # it may have been measuring since before the restart
    assert scd41._START_PERIODIC in chip.commands
    assert chip.commands.count(scd41._DATA_READY) == 3


async def test_scd41_single_shot(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = Scd41Chip()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await measure(scd41.Scd41(chip, single_shot=True))
    assert scd41._SINGLE_SHOT in chip.commands
    assert scd41._START_PERIODIC not in chip.commands
    assert 5 in slept


# -- ADC and fake


class Microvolts:
    def __init__(self, *values: int) -> None:
        self.values = values
        self.reads = 0

    def read_uv(self) -> int:
        self.reads += 1
        return self.values[self.reads % len(self.values)]


async def test_adc_averages_and_scales() -> None:
    assert await measure(adc_driver.Adc(Microvolts(1_800_000, 2_000_000), "voltage", 2)) == {"voltage": 3.8}
    assert await measure(adc_driver.Adc(Microvolts(1_234_000), "adc")) == {"adc": pytest.approx(1234)}


@pytest.mark.parametrize(("volts", "value"), [(3.3, 0), (3.75, 50), (4.2, 100), (3.0, 0), (4.5, 100)])
def test_adc_on_a_line(volts: float, value: float) -> None:
    assert adc_driver.on_line(volts, [[3.3, 0], [4.2, 100]]) == pytest.approx(value)
    falling = adc_driver.on_line(volts, [[3.3, 100], [4.2, 0]])
    assert falling == pytest.approx(100 - value)


async def test_fake_is_believable_and_marked() -> None:
    for uptime in range(0, 1200, 7):
        values = await measure(Fake(lambda uptime=uptime: uptime))
        assert 18 < values["temperature"] < 25
        assert 36 < values["humidity"] < 54
    assert Fake(None).simulated


# -- all of them


class Pins:
    """Gives every driver what it asks for."""

    uptime_seconds = staticmethod(lambda: 0.0)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


SPECS: dict[str, dict[str, Any]] = {
    "adc": {"pin": 34},
    "battery": {"pin": 34, "chemistry": "li-ion"},
    "bme280": {"scl": 22, "sda": 21},
    "dht22": {"pin": 4},
    "ds18b20": {"pin": 4, "probes": 2},
    "fake": {},
    "hx711": {"sck": 18, "dout": 19},
    "pms5003": {"rx": 27, "tx": 26},
    "soil": {"pin": 34},
}
SPECS.update(dict.fromkeys(("aht20", "bh1750", "bme680", "scd30", "scd41", "sht3x", "sht4x"), SPECS["bme280"]))
SPECS.update(dict.fromkeys(("dht11", "gpio", "pulse"), SPECS["dht22"]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_driver_is_made_from_settings_and_names_known_fields(kind: str) -> None:
    sensor = create({"driver": kind, **SPECS[kind]}, Pins())
    assert sensor.kind == kind
    assert sensor.fields
    for field in sensor.fields:
        assert field.removesuffix("_2") in payloads.FIELDS
    assert not math.isnan(sensor.minimum_interval_seconds)


def test_settings_know_every_driver() -> None:
    assert set(DRIVERS) == set(KINDS) == set(SPECS)


def test_an_unknown_driver_is_refused() -> None:
    with pytest.raises(ValueError, match="no driver 'os'"):
        create({"driver": "os"}, Pins())

"""Drivers for dust, gas, light, weight, meters, contacts and batteries, against the figures in the data sheets."""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import Any

import pytest

from firmware.board import settings
from firmware.board.drivers import (
    SensorError,
    adc,
    aht20,
    battery,
    bh1750,
    bme680,
    crc8,
    dht11,
    gpio,
    hx711,
    pms5003,
    pulse,
    scd30,
    sensirion,
    sht3x,
    sht4x,
    soil,
)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted and not waited for."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


class Line:
    """An I²C device that keeps what is written to it and answers from a list."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.written: list[bytes] = []

    def writeto(self, address: int, data: bytes) -> None:
        self.written.append(bytes(data))

    def readfrom(self, address: int, count: int) -> bytes:
        answer = self.answers.pop(0)
        assert len(answer) == count
        return answer

    def readfrom_into(self, address: int, buffer: bytearray) -> None:
        buffer[:] = self.readfrom(address, len(buffer))


def with_checksums(*numbers: int) -> bytes:
    pairs = [struct.pack(">H", number) for number in numbers]
    return b"".join(pair + bytes([crc8(pair, 0x31, 0xFF)]) for pair in pairs)


# -- DHT11


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # Aosong, DHT11 product manual: its example, 53 %RH and 24.4 °C, and that of a temperature below zero
        ((0x35, 0x00, 0x18, 0x04, 0x51), (24.4, 53)),
        ((0x35, 0x00, 0x0A, 0x81, 0xC0), (-10.1, 53)),
    ],
)
def test_dht11_examples(data: tuple[int, ...], expected: tuple[float, float]) -> None:
    assert dht11.decode(bytes(data)) == expected


def test_dht11_refuses_a_wrong_checksum_and_a_dht22() -> None:
    with pytest.raises(SensorError, match="DHT11: wrong checksum"):
        dht11.decode(bytes([0x35, 0x00, 0x18, 0x04, 0x49]))
    with pytest.raises(SensorError, match="is it a DHT22"):
        dht11.decode(bytes([0x02, 0x8C, 0x01, 0x5F, 0xEE]))


async def test_a_dht11_is_asked_as_a_dht22_is() -> None:
    class Wire:
        buf = bytes([0x35, 0x00, 0x18, 0x04, 0x51])

        def measure(self) -> None:
            pass

    assert await dht11.Dht11(Wire()).read() == {"temperature": 24.4, "humidity": 53}


# -- Sensirion


def test_arguments_of_a_command_have_checksums() -> None:
    # Sensirion, Interface Description SCD30, §1.4.1: start with 0 mbar, §1.4.3: an interval of 2 s
    assert sensirion.packet(0x0010, 0) == bytes.fromhex("0010000081")
    assert sensirion.packet(0x4600, 2) == bytes.fromhex("46000002e3")
    assert sensirion.packet(0x2400) == b"\x24\x00"


@pytest.mark.parametrize(
    ("word", "temperature", "at_3x", "at_4x"),
    # the ends of the ranges, and the middle: SHT3x-DIS §4.13, SHT4x §4.6
    [(0, -45, 0, 0), (0xFFFF, 130, 100, 100), (0x8000, 42.5, 50, 56.5), (0x6666, 25, 40, 44)],
)
async def test_sht_conversion(slept: list[float], word: int, temperature: float, at_3x: float, at_4x: float) -> None:
    line = Line(with_checksums(word, word), with_checksums(word, word))
    third, fourth = await sht3x.Sht3x(line).read(), await sht4x.Sht4x(line).read()
    assert third == {"temperature": pytest.approx(temperature, abs=0.01), "humidity": pytest.approx(at_3x, abs=0.01)}
    assert fourth == {"temperature": pytest.approx(temperature, abs=0.01), "humidity": pytest.approx(at_4x, abs=0.01)}
    assert line.written == [b"\x24\x00", b"\xfd"]
    assert slept[0] >= 0.0155  # SHT3x-DIS, table 4
    assert slept[1] >= 0.0083  # SHT4x, table 5


@pytest.mark.parametrize("driver", [sht3x.Sht3x, sht4x.Sht4x])
async def test_sht_refuses_a_wrong_checksum(slept: list[float], driver: Any) -> None:
    with pytest.raises(SensorError, match=r"SHT.x: wrong checksum"):
        await driver(Line(bytes.fromhex("beef92beef93"))).read()


def test_scd30_example() -> None:
    # Sensirion, Interface Description SCD30, §1.4.5: 439 ppm, 27.2 °C, 48.8 %
    words = sensirion.words(bytes.fromhex("43dbcb8c2e8f41d970e7fff54243bf3a1b74"), "SCD30")
    assert scd30.convert(words) == {
        "co2": pytest.approx(439.1, abs=0.1),
        "temperature": pytest.approx(27.24, abs=0.01),
        "humidity": pytest.approx(48.81, abs=0.01),
    }


async def test_scd30_waits_until_there_is_something_and_refuses_nothing(slept: list[float]) -> None:
    line = Line(with_checksums(0), with_checksums(1), with_checksums(0, 0, 0x41D9, 0xE7FF, 0x4243, 0x3A1B))
    sensor = scd30.Scd30(line)
    await sensor.start()
    with pytest.raises(SensorError, match="no CO₂"):
        await sensor.read()
    assert line.written[:2] == [bytes.fromhex("46000002e3"), bytes.fromhex("0010000081")]
    assert line.written[2:] == [b"\x02\x02", b"\x02\x02", b"\x03\x00"]
    assert min(slept) >= 0.003
    with pytest.raises(SensorError, match="within 5 s"):
        await scd30.Scd30(Line(*[with_checksums(0)] * 50)).read()


# -- AHT20


def aht(humidity: int, temperature: int, status: int = 0x18) -> bytes:
    data = bytes([status]) + (humidity << 20 | temperature).to_bytes(5, "big")
    return data + bytes([crc8(data, 0x31, 0xFF)])


async def test_aht20_is_calibrated_once_and_asked_again_while_it_is_busy(slept: list[float]) -> None:
    # Aosong, AHT20 data sheet, §6: half of 2^20 is 50 % and 50 °C
    line = Line(b"\x10", aht(0, 0, 0x98), aht(1 << 19, 1 << 19))
    sensor = aht20.Aht20(line)
    await sensor.start()
    assert await sensor.read() == {"temperature": 50, "humidity": 50}
    assert line.written == [b"\xbe\x08\x00", b"\xac\x33\x00"]
    assert slept == [0.04, 0.01, 0.08, 0.08]
    calibrated = Line(b"\x18")
    await aht20.Aht20(calibrated).start()
    assert calibrated.written == []


def test_aht20_ends_of_the_range_and_what_it_refuses() -> None:
    assert aht20.decode(aht(0, 0)) == {"temperature": -50, "humidity": 0}
    assert aht20.decode(aht(1 << 18, 393216)) == {"temperature": 25, "humidity": 25}
    with pytest.raises(SensorError, match="checksum"):
        aht20.decode(aht(5, 5)[:6] + b"\x00")
    with pytest.raises(SensorError, match="calibrated"):
        aht20.decode(aht(5, 5, 0x10))


# -- BH1750


@pytest.mark.parametrize(("data", "lux"), [("8390", 28067), ("0110", 227), ("0000", 0)])
async def test_bh1750_examples(slept: list[float], data: str, lux: int) -> None:
    # Rohm, BH1750FVI data sheet, "Measurement sequence example": 28067 lx and 227 lx
    line = Line(bytes.fromhex(data))
    assert await bh1750.Bh1750(line).read() == {"illuminance": pytest.approx(lux, abs=0.5)}
    assert line.written == [b"\x01", b"\x42", b"\x65", b"\x20"]  # MTreg 69 is 0100_0101: 010 and 00101
    assert slept == [0.18]


async def test_bh1750_measures_bright_light_for_a_shorter_time(slept: list[float]) -> None:
    line = Line(b"\xff\xff", b"\x80\x00")
    assert await bh1750.Bh1750(line).read() == {"illuminance": pytest.approx(32768 / 1.2 * 69 / 31)}
    assert line.written[4:] == [b"\x01", b"\x40", b"\x7f", b"\x20"]
    with pytest.raises(SensorError, match="more light than the 121556 lx"):
        await bh1750.Bh1750(Line(b"\xff\xff", b"\xff\xff")).read()


# -- BME680

# of a real chip, and what Bosch's formulas make of its raw values: pimoroni/bme680-python, tests
T, P = (26041, 26469, 3), (36673, -10515, 88, 7310, -129, 30, 46, -3177, -2379, 30)
H, G = (676, 1029, 0, 45, 20, 120, -100), (-30, -24754, 18)


def bme680_registers() -> bytearray:
    """The registers of that chip (BST-BME680-DS001, §3.3 and §5)."""
    memory = bytearray(256)
    memory[0xD0] = 0x61
    memory[0x8A:0xA1] = struct.pack("<hbxHhbxhhbbxxhhB", T[1], T[2], *P[:5], P[6], P[5], *P[7:])
    memory[0xE1:0xEF] = bytes([H[1] >> 4, (H[1] & 0x0F) << 4 | H[0] & 0x0F, H[0] >> 4]) + struct.pack(
        "<bbbBbHhbb", *H[2:], T[0], G[1], G[0], G[2]
    )
    memory[0x00], memory[0x02], memory[0x04] = 48, 1 << 4, 0
    return memory


def trimming() -> bme680.Trimming:
    memory = bme680_registers()
    return bme680.Trimming(memory[0x8A:0xA1], memory[0xE1:0xEF], memory[0:5])


def test_bme680_reads_its_trimming_values_in_the_right_order() -> None:
    chip = trimming()
    assert (chip.t, chip.p, chip.h, chip.g) == (T, P, H, G)
    assert (chip.heater_value, chip.heater_range, chip.range_error) == (48, 1, 0)


def test_bme680_gives_the_figures_of_a_real_chip() -> None:
    chip = trimming()
    fine = chip.fine(501240)
    assert fine == 136667
    assert chip.temperature(fine) == 26.69
    assert chip.pressure(353485, fine) == 987.12
    assert chip.humidity(19019, fine) == 42.402
    assert round(chip.gas(0, 0, 0)) == 12946860
    assert int(chip.gas(0, 0, 1)) == 102400000


def test_bme680_heater_agrees_with_the_formula_in_integers() -> None:
    chip = trimming()
    for ambient in (-20, 0, 25, 60):  # BST-BME680-DS001, §3.3.5
        one = ambient * 100 * G[2] // 10 * 256  # its ambient temperature is in hundredths
        two = (G[0] + 784) * (((G[1] + 154009) * 320 * 5 // 100 + 3276800) // 10)
        three = (one + two // 2) // (1 + 4)
        assert chip.heater(320, ambient) == pytest.approx((three // (131 * 48 + 65536) - 250) * 34 / 100, abs=1.5)


@pytest.mark.parametrize(("milliseconds", "written"), [(63, 0x3F), (100, 0x59), (150, 0x65), (4032, 0xFF)])
def test_bme680_heater_time(milliseconds: int, written: int) -> None:
    assert bme680.heater_time(milliseconds) == written  # §5.3.3.3: 100 ms is 25 times 4, 0x59


class Bme680Chip:
    """Registers, and a measurement that is ready after a while."""

    def __init__(self, variant: int = 0, ready: bool = True, gas: int = 0x34) -> None:
        self.memory = bme680_registers()
        self.memory[0xF0] = variant
        data = bytearray(17)
        data[0] = 0x80 if ready else 0x20
        data[2:8] = (353485 << 4).to_bytes(3, "big") + (501240 << 4).to_bytes(3, "big")
        data[8:10] = (19019).to_bytes(2, "big")
        at = 15 if variant else 13
        data[at : at + 2] = bytes([600 >> 2, (600 & 3) << 6 | gas])
        self.memory[0x1D : 0x1D + 17] = data
        self.written: list[tuple[int, int]] = []

    def readfrom_mem(self, address: int, register: int, count: int) -> bytes:
        return bytes(self.memory[register : register + count])

    def writeto_mem(self, address: int, register: int, data: bytes) -> None:
        self.written.append((register, data[0]))


@pytest.mark.parametrize(("variant", "model", "switch"), [(0, "BME680", 0x10), (1, "BME688", 0x20)])
async def test_bme680_measures_all_four(slept: list[float], variant: int, model: str, switch: int) -> None:
    chip = Bme680Chip(variant)
    sensor = bme680.Bme680(chip)
    await sensor.start()
    values = await sensor.read()
    assert sensor.model == model
    assert (values["temperature"], values["pressure"], values["humidity"]) == (26.69, 987.12, 42.402)
    assert values["gas_resistance"] == trimming().gas(600, 4, variant)
    assert [register for register, _ in chip.written][-5:] == [0x5A, 0x64, 0x71, 0x72, 0x74]  # the start is the last
    assert (0x71, switch) in chip.written
    assert sum(slept) > 0.01


async def test_bme680_leaves_out_the_gas_of_a_cold_layer(slept: list[float]) -> None:
    sensor = bme680.Bme680(Bme680Chip(gas=0x24))
    await sensor.start()
    assert set(await sensor.read()) == {"temperature", "humidity", "pressure"}


async def test_bme680_says_what_is_wrong(slept: list[float]) -> None:
    busy = bme680.Bme680(Bme680Chip(ready=False))
    await busy.start()
    with pytest.raises(SensorError, match="stays busy"):
        await busy.read()
    other = Bme680Chip()
    other.memory[0xD0] = 0x60
    with pytest.raises(SensorError, match="it is a BME280"):
        await bme680.Bme680(other).start()
    with pytest.raises(SensorError, match="trimming"):
        bme680.Trimming(bytes(23), bytes(14), bytes(5)).pressure(353485, 0)


# -- PMS5003


def dust(*words: int) -> bytes:
    data = struct.pack(">2sH13H", b"BM", 28, *words, *[0] * (13 - len(words)))
    return data + struct.pack(">H", sum(data))


class Serial:
    """A line on which pieces arrive."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def read(self) -> bytes | None:
        return self.pieces.pop(0) if self.pieces else None


async def test_pms5003_finds_the_frame_between_rubbish_and_in_pieces(slept: list[float]) -> None:
    old, now = dust(9, 9, 9, 9, 9, 9), dust(4, 11, 19, 5, 12, 20)
    sensor = pms5003.Pms5003(line := Serial(old, b"\x42\x42\x4d\x00" + old[7:] + now[:13], now[13:]))
    await sensor.start()
    assert await sensor.read() == {"pm1": 5, "pm25": 12, "pm10": 20}
    # Appendix II: wake up (E4, 1), measure by itself (E1, 1); the last two bytes are the sum of those before
    assert line.written == [bytes.fromhex("424de400010174"), bytes.fromhex("424de100010171")]


async def test_pms5003_believes_no_broken_frame_and_says_what_it_got(slept: list[float]) -> None:
    broken = bytearray(dust(1, 2, 3, 4, 5, 6))
    broken[11] ^= 1
    with pytest.raises(SensorError, match="no measurement"):
        await pms5003.Pms5003(Serial(b"", bytes(broken) * 3)).read()
    with pytest.raises(SensorError, match="sends nothing"):
        await pms5003.Pms5003(Serial()).read()
    assert sum(slept[-40:]) == pytest.approx(4)  # within the limit of a reading, over four frames long


# -- HX711


class Cell:
    """A load cell: what it counts, one after the other."""

    def __init__(self, *counts: int, after: int = 0) -> None:
        self.counts = list(counts)
        self.after = after
        self.pulses: list[int] = []

    def ready(self) -> bool:
        self.after -= 1
        return self.after < 0

    def read(self, pulses: int) -> int:
        self.pulses.append(pulses)
        return self.counts.pop(0) & 0xFFFFFF


async def test_hx711_takes_the_middle_of_five_and_weighs(slept: list[float]) -> None:
    cell = Cell(0, 1_050_000, 1_050_010, -5, 9_000, 1_050_000 + 4, after=3)
    sensor = hx711.Hx711(cell, zero=10_000, factor=420_000)
    await sensor.start()
    assert await sensor.read() == {"weight": pytest.approx((1_050_000 - 10_000) / 420_000)}
    assert set(cell.pulses) == {25}  # channel A, gain 128


@pytest.mark.parametrize(("bits", "number"), [(0x7FFFFE, 8388606), (0x800001, -8388607), (0xFFFFFF, -1), (0, 0)])
def test_hx711_twos_complement(bits: int, number: int) -> None:
    assert hx711.signed(bits) == number


async def test_hx711_says_what_is_wrong(slept: list[float]) -> None:
    with pytest.raises(SensorError, match="never ready"):
        await hx711.Hx711(Cell(after=1000)).start()
    assert sum(slept) > 0.4  # settling time at 10 samples a second
    for end in (0x7FFFFF, -0x800000):  # data sheet: what it gives beyond its range
        with pytest.raises(SensorError, match="beyond its range"):
            await hx711.Hx711(Cell(end)).start()


# -- soil and battery


class Volts:
    """A pin with these volts."""

    def __init__(self, volts: float) -> None:
        self.volts = volts

    def read_uv(self) -> int:
        return round(self.volts * 1e6)


@pytest.mark.parametrize(("volts", "moisture"), [(2.6, 0), (1.85, 50), (1.1, 100), (2.9, 0), (0.8, 100)])
async def test_soil_between_dry_and_wet(volts: float, moisture: float) -> None:
    assert await soil.Soil(Volts(volts)).read() == {
        "moisture": pytest.approx(moisture),
        "adc": pytest.approx(volts * 1000),
    }


async def test_soil_takes_its_own_calibration_and_refuses_an_open_pin() -> None:
    assert (await soil.Soil(Volts(1.5), 2.0, 1.0).read())["moisture"] == pytest.approx(50)
    for volts in (0.02, 3.2):
        with pytest.raises(SensorError, match="is it connected"):
            await soil.Soil(Volts(volts)).read()


@pytest.mark.parametrize("chemistry", sorted(battery.CURVES))
def test_curves_fall_from_full_to_empty(chemistry: str) -> None:
    curve = battery.CURVES[chemistry]
    assert (curve[0][1], curve[-1][1]) == (100, 0)
    for (high, more), (low, less) in itertools.pairwise(curve):
        assert high > low
        assert more > less
        assert battery.percent(high, curve) == more
        assert battery.percent((high + low) / 2, curve) == pytest.approx((more + less) / 2)
    assert battery.percent(99, curve) == 100
    assert battery.percent(0.1, curve) == 0


@pytest.mark.parametrize(("volts", "charge"), [(12.73, 100), (12.5, 80), (12.1, 50), (11.66, 20), (10, 0)])
async def test_a_lead_acid_battery_of_six_cells(volts: float, charge: float) -> None:
    # Trojan Battery, User's Guide: open-circuit voltage of a battery of 12 V
    sensor = battery.Battery(Volts(volts / 6), "lead-acid", 6, 6)
    assert await sensor.read() == {"battery": pytest.approx(charge, abs=1), "voltage": pytest.approx(volts)}


async def test_a_battery_that_is_not_there_is_not_an_empty_one() -> None:
    with pytest.raises(SensorError, match="is it connected"):
        await battery.Battery(Volts(0.01), "li-ion").read()


# -- pulses and contacts


class Clock:
    """Milliseconds that a test sets."""

    now = 1000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ticks = Clock()
    monkeypatch.setattr(pulse, "ticks_ms", ticks)
    monkeypatch.setattr(gpio, "ticks_ms", ticks)
    return ticks


async def test_pulses_are_litres_and_litres_a_minute(clock: Clock) -> None:
    sensor = pulse.Pulse("water", 450)  # YF-S201: 7.5 Hz at 1 L/min are 450 pulses a litre
    assert await sensor.read() == {"water": 0, "flow": 0}
    sensor.edge()
    await sensor.read()
    for _ in range(75):
        clock.now += 133
        sensor.edge()
    assert await sensor.read() == {"water": pytest.approx(76 / 450), "flow": pytest.approx(1.0, abs=0.01)}


async def test_power_is_made_of_the_time_between_pulses(clock: Clock) -> None:
    sensor = pulse.Pulse("energy", 1000)
    seen = []
    for second in range(1, 181):
        clock.now += 1000
        if second % 36 == 0:
            sensor.edge()
        if second % 10 == 0:
            seen.append((await sensor.read())["power"])
    assert seen[8:] == [pytest.approx(100)] * 10  # 1 Wh in 36 s; in most of the intervals there was no pulse
    clock.now += 72_000
    assert (await sensor.read())["power"] == pytest.approx(50)  # no more than one pulse in this time
    clock.now += 300_000
    assert await sensor.read() == {"energy": 0.005, "power": 0}


async def test_a_bouncing_contact_is_one_pulse(clock: Clock) -> None:
    sensor = pulse.Pulse("count", 1, debounce_ms=5)
    for pause in (0, 1, 3, 4, 4, 4):  # it bounces for longer than the limit, never quiet for so long
        clock.now += pause
        sensor.edge()
    clock.now += 30  # EN 62053-31: the shortest pulse
    sensor.edge()
    assert await sensor.read() == {"pulses": 2}
    assert sensor.fields == ("pulses",)


class Contact:
    """A pin."""

    level = 1

    def __call__(self) -> int:
        return self.level


async def test_a_contact_counts_when_it_is_quiet_and_tells_at_once(clock: Clock) -> None:
    pin = Contact()
    told: list[Any] = []
    sensor = gpio.Gpio(pin, "contact", inverted=True, debounce_ms=50)
    sensor.changed = lambda: told.append(clock.now)  # type: ignore[method-assign]
    await sensor.start()
    assert await sensor.read() == {"contact": 0}
    for level in (0, 1, 0, 1, 0):
        clock.now += 20
        pin.level = level
        sensor.look()
    assert told == []
    since = clock.now
    while not told:
        clock.now += 10
        sensor.look()
    assert told == [since + 50]
    assert await sensor.read() == {"contact": 1}
    sensor._task.cancel()


async def test_a_press_between_two_readings_is_not_lost(clock: Clock) -> None:
    pin = Contact()
    told: list[Any] = []
    sensor = gpio.Gpio(pin, "contact", debounce_ms=0)
    sensor.changed = lambda: told.append(None)  # type: ignore[method-assign]
    await sensor.start()
    for level in (0, 1):
        pin.level = level
        sensor.look()
    assert len(told) == 2
    assert await sensor.read() == {"contact": 0}
    assert len(told) == 3  # and once more at once
    assert await sensor.read() == {"contact": 1}
    assert await sensor.read() == {"contact": 1}
    assert len(told) == 3
    sensor._task.cancel()


async def test_a_contact_is_watched_by_one_task_however_often_it_is_set_up() -> None:
    sensor = gpio.Gpio(Contact())
    await sensor.start()
    task = sensor._task
    await sensor.start()
    assert sensor._task is task
    task.cancel()


# -- settings


def test_the_choices_of_the_settings_are_the_drivers() -> None:
    assert {
        "chemistry": tuple(battery.CURVES),
        "measures": tuple(pulse.QUANTITIES),
        "pull": ("up", "down", "none"),  # what `Hardware.input` knows
    } == settings.CHOICES
    assert set(settings.ADDRESSES) == {name for name, (_, more) in settings.DRIVERS.items() if "address" in more}
    assert set(settings.ANALOGUE) == {
        name
        for name, driver in {"adc": adc.Adc, "battery": battery.Battery, "soil": soil.Soil}.items()
        if issubclass(driver, adc.Adc)
    }


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"driver": "battery", "pin": 34, "chemistry": "coal"}, "chemistry: expected one of li-ion, lifepo4"),
        ({"driver": "battery", "pin": 34}, "battery needs chemistry"),
        ({"driver": "battery", "pin": 34, "chemistry": ["li-ion"]}, "chemistry: expected one of"),
        ({"driver": "soil", "pin": 34, "dry": 9}, "dry: expected volts from 0 to 5"),
        ({"driver": "soil", "pin": 34, "dry": 1.12}, "dry and wet are two voltages"),
        ({"driver": "pulse", "pin": 27, "per_unit": 0}, "per_unit: expected a number above 0"),
        ({"driver": "pulse", "pin": 27, "measures": "gas"}, "measures: expected one of water, energy, count"),
        ({"driver": "gpio", "pin": 27, "pull": True}, "pull: expected one of up, down, none"),
        ({"driver": "gpio", "pin": 27, "debounce": 2000}, "debounce: expected a whole number from 0 to 1000"),
        ({"driver": "gpio", "pin": 27, "inverted": 1}, "inverted: expected true or false"),
        ({"driver": "hx711", "sck": 18, "dout": 18}, "sck and dout are two pins, got 18 for both"),
        ({"driver": "hx711", "sck": 18, "dout": 19, "zero": "0"}, "zero: expected a number of counts"),
        ({"driver": "pms5003", "rx": 27}, "pms5003 needs tx"),
        ({"driver": "sht3x", "scl": 22, "sda": 21, "address": 0x46}, "address: expected one of 0x44, 0x45, got 70"),
    ],
)
def test_one_problem_of_a_sensor(spec: dict[str, Any], text: str) -> None:
    (problem,) = settings.check({"mqtt": {"url": "mqtt://h"}, "sensors": [spec]})
    assert text in problem
    assert problem.startswith("sensors[0]: ")


def test_pulses_are_not_counted_in_sleep() -> None:
    given = {"mqtt": {"url": "mqtt://h"}, "sensors": [{"driver": "pulse", "pin": 27}]}
    assert settings.check(given) == []
    (problem,) = settings.check({**given, "profile": "battery"})
    assert "only while the board is awake" in problem

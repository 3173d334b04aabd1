"""Noise, batteries, loads, machines, vehicles, and the kinds of device made of them."""

import itertools
import json
import math
import statistics

import pytest

from sensors_sim import payloads
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Fleet, FleetSpec
from sensors_sim.kind import Setting
from sensors_sim.kinds import KINDS, setting_generator
from sensors_sim.messages import Message
from sensors_sim.model.battery import CELLS, Battery
from sensors_sim.model.electricity import APPLIANCES, Appliance, Grid, Load, Meter
from sensors_sim.model.machine import SKF_6205, Machine
from sensors_sim.model.noise import Drifting, Waves, generator, unit_hash, white_noise
from sensors_sim.model.track import EARTH_RADIUS, Vehicle
from sensors_sim.model.weather import DAY, HOUR, Weather
from sensors_sim.model.world import World

MONDAY = SEEDED_START - 7 * HOUR


def test_noise_of_a_name_is_its_own_and_repeats() -> None:
    assert generator(1, "a").random() == generator(1, "a").random()
    assert generator(1, "a").random() != generator(1, "b").random()
    assert generator(1, "a").random() != generator(2, "a").random()


def test_white_noise_has_mean_0_and_variance_1() -> None:
    rng = generator(1, "white")
    values = [white_noise(rng) for _ in range(20_000)]
    assert statistics.fmean(values) == pytest.approx(0, abs=0.03)
    assert statistics.pstdev(values) == pytest.approx(1, abs=0.02)


def test_unit_hash_is_even() -> None:
    values = [unit_hash(12345, number) for number in range(10_000)]
    assert all(0 <= value < 1 for value in values)
    assert statistics.fmean(values) == pytest.approx(0.5, abs=0.01)


def test_waves_have_mean_0_and_variance_1() -> None:
    waves = Waves(generator(3, "w"), 60, 3600)
    values = [waves.at(t) for t in range(0, 400_000, 37)]
    assert statistics.fmean(values) == pytest.approx(0, abs=0.1)
    assert statistics.pstdev(values) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("step", [1.0, 10.0, 60.0])
def test_drift_has_the_deviation_and_memory_that_were_asked_for(step: float) -> None:
    drifting = Drifting(generator(5, "d", step), 2.0, 60.0)
    values = [drifting.at(number * step) for number in range(60_000)]
    assert statistics.pstdev(values) == pytest.approx(2.0, rel=0.1)
    assert statistics.correlation(values[:-1], values[1:]) == pytest.approx(math.exp(-step / 60.0), abs=0.03)


def battery(charge: float = 1.0) -> Battery:
    return Battery(CELLS["2xAA"], charge, 0.0, sleep_current=0.01, wake_charge=200, wake_current=120)


def drained(cell: Battery, start: float, end: float, interval: float) -> float:
    for number in range(1, round((end - start) / interval) + 1):
        cell.read(start + number * interval)
    return cell.charge


def test_a_battery_lasts_as_long_as_its_charge_and_load_say() -> None:
    # 0.01 mA asleep and 200 mA·s each 60 s are 3.343 mA on average; 2600 mAh last 777.7 h
    hours = 2600 / (0.01 + 200 / 60)
    assert drained(battery(), 0, 0.5 * hours * HOUR, 60) == pytest.approx(0.5, abs=1e-4)
    assert drained(battery(), 0, 0.999 * hours * HOUR, 60) == pytest.approx(0.001, abs=1e-4)
    assert drained(battery(), 0, 1.25 * hours * HOUR, 60) == pytest.approx(0.75, abs=1e-4), "replaced"


def test_a_battery_loses_voltage_with_charge_and_cold() -> None:
    volts = [battery(charge / 100).voltage() for charge in range(1, 101)]
    assert volts == sorted(volts)
    assert 1.7 < volts[0] < 2.2
    assert 2.9 < volts[-1] < 3.2
    assert battery().voltage(-10.0) < battery().voltage(20.0)


def test_each_stretch_drains_the_battery_by_its_own_interval() -> None:
    cell = battery()
    seldom = 1 - drained(cell, 0, DAY, 600)
    often = cell.charge - drained(cell, DAY, 2 * DAY, 60)
    seldom_again = cell.charge - drained(cell, 2 * DAY, 3 * DAY, 600)
    assert (0.01 + 200 / 600) * 24 / 2600 == pytest.approx(seldom) == pytest.approx(seldom_again)
    assert often == pytest.approx((0.01 + 200 / 60) * 24 / 2600)


def test_a_command_for_other_intervals_changes_what_the_battery_loses() -> None:
    def charge_after(command: bytes | None) -> float:
        spec = DeviceSpec("a", "thermometer", "A", options={"charge": 0.9})
        fleet = Fleet(FleetSpec((spec,)), 7, MONDAY, interval=600)
        if command is not None:
            fleet.command("sensors/a/cmd", command, MONDAY)
        last = b""
        for event in fleet.take(MONDAY + 5 * DAY):
            if isinstance(event.what, Message) and event.what.topic == "sensors/a/state":
                last = event.what.payload
        return float(json.loads(last)["battery"])

    # 210 mA·s each minute instead of each ten are 3.15 mA more; over five days 378 mAh of 2600
    assert charge_after(None) - charge_after(b'{"interval":60}') == pytest.approx(100 * 378 / 2600, abs=1.01)


@pytest.mark.parametrize("name", sorted(APPLIANCES))
def test_every_appliance_runs_and_rests(name: str) -> None:
    appliance = APPLIANCES[name]
    load = Load(7, name, appliance, Weather(7))
    watts = [load.watts(MONDAY + t) for t in range(0, int(7 * DAY), 20)]
    assert min(watts) >= 0
    assert max(watts) > 0.85 * appliance.watts
    assert max(watts) < 1.25 * appliance.watts * (1 + appliance.surge)


def test_a_fridge_cycles_with_its_duty() -> None:
    load = Load(7, "f", APPLIANCES["fridge"], Weather(7))
    watts = [load.watts(MONDAY + t) for t in range(0, int(DAY), 10)]
    on = [value > 40 for value in watts]
    assert sum(on) / len(on) == pytest.approx(0.34, abs=0.05)
    starts = sum(1 for before, after in itertools.pairwise(on) if after and not before)
    assert 28 <= starts <= 34


def test_a_load_is_the_same_whoever_measures_it() -> None:
    world = World(7)
    assert world.load("flat", "tv") is world.load("flat", "tv")
    assert Load(7, "flat/tv", APPLIANCES["tv"], Weather(7)).watts(MONDAY) == world.load("flat", "tv").watts(MONDAY)
    with pytest.raises(ValueError, match="unknown appliance"):
        world.load("flat", "time machine")


def test_energy_is_the_integral_of_power() -> None:
    meter = Meter(lambda t: 1000.0 + t, 5.0)
    meter.read(0.0)
    for t in range(60, 3601, 60):
        meter.read(float(t))
    assert meter.energy == pytest.approx(5.0 + (1000 + 1800) / 1000)


@pytest.mark.parametrize("name", ["kettle", "fridge", "washer", "oven"])
def test_energy_does_not_depend_on_how_often_it_is_read(name: str) -> None:
    counted = {}
    for interval in (10, 60, HOUR, 4 * HOUR, DAY):
        meter = Meter(Load(7, "k", APPLIANCES[name], Weather(7)).watts, 0.0)
        for number in range(int(2 * DAY / interval) + 1):
            meter.read(MONDAY + number * interval)
        counted[interval] = meter.energy
    assert all(energy == pytest.approx(counted[10], rel=1e-6) for energy in counted.values()), counted


def test_a_meter_knows_today_and_yesterday_from_the_first_reading_on() -> None:
    meter = Meter(lambda t: 1000.0 if t < MONDAY + DAY else 500.0, 7.0)
    meter.read(MONDAY + DAY + 6 * HOUR)
    assert meter.energy - meter.at_midnight() == pytest.approx(3.0, rel=0.01)
    assert meter.yesterday() == pytest.approx(24.0, rel=0.01)
    meter.read(MONDAY + 4 * DAY)
    assert meter.energy - meter.at_midnight() == 0
    assert meter.yesterday() == pytest.approx(12.0)
    assert meter.energy == pytest.approx(7.0 + 0.5 * 66)


def test_a_steady_load_of_one_kilowatt_is_a_kilowatt_hour_an_hour() -> None:
    load = Load(1, "x", Appliance(1000, 0, 1.0), Weather(1))
    meter = Meter(load.watts, 0.0)
    for t in range(0, 3601, 10):
        meter.read(MONDAY + t)
    assert meter.energy == pytest.approx(1.0, rel=0.08), "loads differ by up to 7 % from their name plate"


def test_the_grid_keeps_to_the_standard_and_sags_under_load() -> None:
    grid = Grid(7)
    volts = [grid.voltage(MONDAY + t) for t in range(0, int(DAY), 60)]
    assert min(volts) > 230 * 0.9
    assert max(volts) < 230 * 1.1
    assert grid.voltage(MONDAY, 3000) == pytest.approx(grid.voltage(MONDAY) - 0.28 * 3000 / grid.voltage(MONDAY))
    hertz = [grid.frequency(MONDAY + t) for t in range(0, int(DAY), 60)]
    assert max(abs(value - 50) for value in hertz) < 0.08


def test_the_bearing_has_the_published_passing_frequency() -> None:
    # Case Western Reserve University Bearing Data Center, 6205-2RS JEM SKF: 3.5848 times the speed
    assert SKF_6205.outer_race_order == pytest.approx(3.5848, abs=0.002)


def test_a_defect_grows_exponentially_in_running_hours() -> None:
    machine = Machine(7, "m", MONDAY, onset_hours=10, growth_hours=24)
    hours = [machine.running_hours(MONDAY + n * HOUR / 4) for n in range(4 * 24 * 14)]
    steps = [after - before for before, after in itertools.pairwise(hours)]
    assert all(-1e-9 <= step <= 0.25 + 1e-9 for step in steps), "never back, never faster than the clock"
    # two shifts of about 7.6 hours on weekdays
    assert hours[4 * 24 * 5] == pytest.approx(5 * 15.2, rel=0.04)
    assert hours[4 * 24 * 7] == hours[4 * 24 * 5], "at the weekend it stands"
    times = [MONDAY + n * HOUR / 4 for n in range(4 * 24 * 14)]
    for time, ran in zip(times, hours, strict=True):
        expected = 0.0 if ran < 10 else min(9.0, 0.02 * math.exp((ran - 10) / 24))
        assert machine.defect(time) == pytest.approx(expected)
        assert (machine.at(time).rpm > 0) <= (ran > 0)
    assert machine.defect(MONDAY + 10_000 * HOUR) == 9
    again = Machine(7, "m", MONDAY, onset_hours=10, growth_hours=24)
    assert again.running_hours(times[-1]) == pytest.approx(hours[-1]), "however often it is asked"
    assert machine.running_hours(times[100]) == pytest.approx(hours[100]), "and whenever"


def test_a_machine_at_rest_wears_no_further() -> None:
    machine = Machine(7, "m", MONDAY, onset_hours=-60, growth_hours=24)
    saturday, sunday = MONDAY + 5 * DAY + 2 * HOUR, MONDAY + 6 * DAY + 20 * HOUR
    assert machine.defect(saturday) == machine.defect(sunday) > machine.defect(MONDAY)


def test_a_failing_machine_shows_in_acceleration_before_velocity() -> None:
    healthy = Machine(7, "m", MONDAY, onset_hours=1e6)
    failing = Machine(7, "m", MONDAY, onset_hours=-60, growth_hours=24)
    t = MONDAY + 10 * HOUR
    sound, worn = healthy.at(t), failing.at(t)
    assert sound.bearing == 0
    assert worn.acceleration / sound.acceleration > worn.vibration / sound.vibration > 1
    assert worn.heat > sound.heat


def test_overall_vibration_is_the_root_of_the_sum_of_squares() -> None:
    motion = Machine(7, "m", MONDAY, onset_hours=-60).at(MONDAY + 10 * HOUR)
    parts = [*motion.harmonics, motion.bearing, motion.bearing / 4, 0.12]
    assert motion.vibration == pytest.approx(math.sqrt(sum(part**2 for part in parts)))


def test_a_machine_rests_at_night_and_slips_under_load() -> None:
    machine = Machine(7, "m", MONDAY)
    assert machine.at(MONDAY + 3 * HOUR).rpm == 0
    assert 1440 < machine.at(MONDAY + 10 * HOUR).rpm < 1500


def test_a_vehicle_moves_as_fast_as_it_says() -> None:
    vehicle = Vehicle(generator(7, "v"), 50.0, 8.6)
    fixes = [vehicle.at(MONDAY + t) for t in range(3600)]
    metres = 0.0
    for before, after in itertools.pairwise(fixes[::30]):  # over 30 s the receiver's error is small
        north = math.radians(after.latitude - before.latitude) * EARTH_RADIUS
        east = math.radians(after.longitude - before.longitude) * EARTH_RADIUS * math.cos(math.radians(50))
        metres += math.hypot(north, east)
    said = sum(fix.speed for fix in fixes[: len(fixes) // 30 * 30]) / 3.6
    assert metres == pytest.approx(said, rel=0.12)
    assert max(fix.speed for fix in fixes) < 80
    assert any(fix.speed < 2 for fix in fixes), "it stops now and then"


def test_a_vehicle_stays_near_its_centre() -> None:
    vehicle = Vehicle(generator(8, "v"), 50.0, 8.6, radius=1000)
    for t in range(7200):
        assert abs(vehicle.at(MONDAY + t).latitude - 50) * 111_195 < 1800


@pytest.mark.parametrize("seed", [2, 8])
@pytest.mark.parametrize(("radius", "cruise"), [(2500.0, 42.0), (180.0, 9.0), (4200.0, 55.0), (300.0, 60.0)])
def test_a_vehicle_keeps_to_the_accelerations_that_it_states(radius: float, cruise: float, seed: int) -> None:
    vehicle = Vehicle(generator(seed, "v"), 50.0, 8.6, radius=radius, cruise=cruise)
    fixes = [vehicle.at(MONDAY + t) for t in range(5400)]
    stopped = [fix.speed <= 1.0 for fix in fixes]
    assert any(before and not after for before, after in itertools.pairwise(stopped))
    assert any(after and not before for before, after in itertools.pairwise(stopped))
    for before, after in itertools.pairwise(fixes):
        # at rest the receiver reports up to 1 km/h
        slack = 1 / 3.6 if min(before.speed, after.speed) <= 1.0 else 1e-6
        assert abs(after.speed - before.speed) / 3.6 <= 1.2 + slack
        turn = math.radians(abs((after.heading - before.heading + 180) % 360 - 180))
        assert (before.speed + after.speed) / 2 / 3.6 * turn < 2
        if before.speed > 1 or after.speed > 1:
            # Nothing turns on the spot: no bend is tighter than 5 % of the radius.
            assert turn <= (before.speed + after.speed) / 2 / 3.6 / (0.05 * radius)


def test_a_journey_does_not_depend_on_how_often_it_is_asked_for() -> None:
    often, seldom = (Vehicle(generator(3, "v"), 50.0, 8.6, radius=800) for _ in range(2))
    seldom.at(MONDAY)
    for tenth in range(20 * 60 * 10):
        often.at(MONDAY + tenth / 10)
    end = MONDAY + 20 * 60
    assert often.at(end).heading == seldom.at(end).heading
    assert often.at(end).speed == pytest.approx(seldom.at(end).speed, abs=1.0)


def test_a_vehicle_moves_between_two_seconds_too() -> None:
    vehicle = Vehicle(generator(3, "v"), 50.0, 8.6, radius=800)
    speeds = [vehicle.at(MONDAY + tenth / 10).speed / 3.6 for tenth in range(1200)]
    steps = [after - before for before, after in itertools.pairwise(speeds) if min(before, after) > 0.3]
    assert len(steps) > 500
    assert max(abs(step) for step in steps) <= 0.12 + 1e-6


def test_a_long_silence_does_not_take_long() -> None:
    vehicle = Vehicle(generator(3, "v"), 50.0, 8.6, radius=800)
    vehicle.at(MONDAY)
    fix = vehicle.at(MONDAY + 3650 * DAY)
    assert abs(fix.latitude - 50) * 111_195 < 1500


OPTIONS: dict[str, dict[str, object]] = {
    "custom": {"stream": [{"topic": "x/{id}", "field": [{"name": "value", "mean": 1, "low": 0, "high": 2}]}]}
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("season", [0, 140])
def test_readings_of_every_kind_stay_within_their_meta(kind: str, season: int) -> None:
    start = MONDAY + season * DAY
    world = World(7, start)
    made = KINDS[kind]
    options = OPTIONS.get(kind, {})
    setting = Setting("x", "x", made.room, world, options, setting_generator(7, "x"))
    fields = made.fields_of(setting)
    read = made.make(setting)
    for minute in range(2 * 1440):
        readings = read(start + minute * 60)
        assert list(readings) == list(fields), "fields in the order of the meta"
        for name, value in readings.items():
            assert isinstance(value, (int, float))
            meta = payloads.field_meta(name, dict(fields[name] or {}))
            assert meta["min"] <= value <= meta["max"], name  # type: ignore[operator]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"custom"}))
def test_neighbouring_readings_differ_and_repeat_with_the_seed(kind: str) -> None:
    def payloads_of(seed: int) -> list[bytes]:
        fleet = Fleet(FleetSpec((DeviceSpec("x", kind, "X"),)), seed, SEEDED_START + 3 * HOUR, interval=1)
        return [
            event.what.payload for event in fleet.take(SEEDED_START + 3 * HOUR + 30) if hasattr(event.what, "payload")
        ]

    first = payloads_of(7)
    assert len(set(first)) == len(first) == 30
    assert first == payloads_of(7)
    assert first != payloads_of(8)


def test_a_plug_and_the_meter_before_it_agree() -> None:
    specs = (
        DeviceSpec("plug", "plug", "P", place="flat", options={"appliance": "kettle"}),
        DeviceSpec("meter", "meter", "M", place="flat", options={"appliances": ["kettle"], "base": 50}),
    )
    fleet = Fleet(FleetSpec(specs), 7, MONDAY, interval=10)
    read = {device.id: device._read for device in fleet.devices.values()}
    for t in range(0, int(DAY), 10):
        plug = float(read["plug"](MONDAY + t)["power"])  # type: ignore[arg-type]
        meter = float(read["meter"](MONDAY + t)["power"])  # type: ignore[arg-type]
        assert meter - plug == pytest.approx(50, abs=0.02 * plug + 15)

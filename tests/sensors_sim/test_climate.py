"""sensors_sim/model/climate.py and weather.py: physics against tables, and rooms that behave."""

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors_sim.fleet import DeviceSpec, Fleet, FleetSpec
from sensors_sim.messages import Message
from sensors_sim.model import climate, weather
from sensors_sim.model.climate import PROFILES, Room, Schedule, Window
from sensors_sim.model.weather import DAY, HOUR, Weather

MONDAY = 1_772_409_600.0  # 2 March 2026, 0:00


@pytest.mark.parametrize(
    ("temperature", "expected"),
    # Vapour pressure over water in hPa. Source: WMO No. 8, Annex 4.B, and any psychrometric table.
    [(-20.0, 1.254), (0.0, 6.112), (10.0, 12.28), (20.0, 23.39), (30.0, 42.46), (40.0, 73.85)],
)
def test_saturation_vapour_pressure_agrees_with_tables(temperature: float, expected: float) -> None:
    assert weather.saturation_vapour_pressure(temperature) == pytest.approx(expected, rel=0.005)


@given(st.floats(min_value=-30, max_value=45))
def test_the_dew_point_of_saturated_air_is_its_temperature(temperature: float) -> None:
    pressure = weather.saturation_vapour_pressure(temperature)
    assert weather.dew_point(pressure) == pytest.approx(temperature, abs=1e-6)
    assert weather.vapour_pressure_of(temperature, weather.vapour_density(temperature, pressure)) == pytest.approx(
        pressure
    )


def test_the_sun_is_highest_at_noon_in_june_and_gone_at_midnight() -> None:
    june = 1_781_956_800.0  # 20 June 2026, 12:00
    height = math.degrees(math.asin(weather.sine_of_sun_height(june, 50.0)))
    assert height == pytest.approx(90 - 50 + 23.44, abs=0.2)
    assert weather.sine_of_sun_height(june - 12 * HOUR, 50.0) < 0
    assert weather.clear_sky_irradiance(weather.sine_of_sun_height(june, 50.0)) == pytest.approx(919, abs=10)
    assert weather.clear_sky_irradiance(-0.5) == 0


def test_july_is_warmer_than_january_and_afternoon_than_dawn() -> None:
    weather = Weather(7)

    def mean(start: float, hour: float) -> float:
        return sum(weather.at(start + day * DAY + hour * HOUR).temperature for day in range(28)) / 28

    january, july = 1_767_225_600.0, 1_782_864_000.0
    assert mean(july, 15) > mean(january, 15) + 12
    assert mean(july, 15) > mean(july, 5) + 4
    assert mean(january, 15) > mean(january, 7)


@given(st.integers(min_value=0, max_value=100), st.floats(min_value=0, max_value=3e9))
def test_weather_stays_within_what_happens(seed: int, t: float) -> None:
    outside = Weather(seed).at(t)
    assert -30 < outside.temperature < 45
    assert 0 < outside.humidity < 100
    assert 960 < outside.pressure < 1060
    assert 0 <= outside.cloud <= 1
    assert 0 <= outside.irradiance < 1100


def test_a_window_of_weekdays_is_shut_on_sunday() -> None:
    schedule = Schedule(1, "x", (Window("weekday", 9, 17, 3, 1.0, 0),))
    assert [schedule.count(MONDAY + day * DAY + 12 * HOUR) for day in range(7)] == [3, 3, 3, 3, 3, 0, 0]
    assert schedule.count(MONDAY + 8.9 * HOUR) == 0
    assert schedule.count(MONDAY + 17.1 * HOUR) == 0


def test_what_is_short_stays_short_however_much_it_moves() -> None:
    schedule = Schedule(1, "kettle", (Window("daily", 12.0, 12.05, jitter=40),))
    for day in range(50):
        on = sum(schedule.count(MONDAY + day * DAY + second) for second in range(11 * 3600, 13 * 3600, 2)) * 2
        assert 140 <= on <= 220


def test_a_window_may_reach_into_the_next_day() -> None:
    schedule = Schedule(1, "x", (Window("daily", 22, 31, 2, 1.0, 0),))
    assert schedule.count(MONDAY + 3 * HOUR) == 2
    assert schedule.count(MONDAY + 12 * HOUR) == 0


def run(profile: str, days: float = 2, seed: int = 7, start: float = MONDAY) -> list[climate.Inside]:
    room = Room(profile, PROFILES[profile], Weather(seed), seed)
    return [room.at(start + minute * 60) for minute in range(int(days * 1440))]


def correlation(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return covariance / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_room_stays_within_what_happens(profile: str) -> None:
    for start in (MONDAY, MONDAY + 130 * DAY):
        for inside in run(profile, 2, start=start):
            assert -10 < inside.temperature < 40
            assert 5 < inside.humidity <= 100
            assert 280 < inside.co2 < 5500


def test_co2_settles_where_the_mass_balance_says() -> None:
    profile = climate.RoomProfile(50, 30, 1000, infiltration=0.5, people=(Window("daily", 0, 24, 2, 1.0, 0),))
    room = Room("x", profile, Weather(1), 1)
    room._scale = 1.0
    settled = climate.OUTDOOR_CO2_PPM + 1e6 * (2 * 0.0052e-3) / (50 * 0.5 / 3600)
    assert room.at(MONDAY + 20 * HOUR).co2 == pytest.approx(settled, rel=0.001)


def test_co2_rises_with_people_and_decays_without() -> None:
    office = run("office", 1)
    night, late_morning = office[5 * 60].co2, office[11 * 60 + 30].co2
    assert night < 480
    assert late_morning > 650
    evening = [inside.co2 for inside in office[19 * 60 :]]
    assert evening == sorted(evening, reverse=True)


def test_humidity_falls_when_a_room_warms_up() -> None:
    # Where nobody adds water, relative humidity follows from temperature alone.
    outside = [Weather(7).at(MONDAY + 130 * DAY + minute * 600) for minute in range(3 * 144)]
    assert correlation([o.temperature for o in outside], [o.humidity for o in outside]) < -0.7


def test_a_shower_shows() -> None:
    humidity = [inside.humidity for inside in run("bathroom", 1)]
    assert max(humidity[6 * 60 : 8 * 60]) > humidity[5 * 60] + 15


def test_a_room_is_the_same_however_often_it_is_asked() -> None:
    seldom = Room("a", PROFILES["living"], Weather(3), 3)
    often = Room("a", PROFILES["living"], Weather(3), 3)
    seldom.at(MONDAY)
    for second in range(0, 7200, 7):
        often.at(MONDAY + second)
    assert seldom.at(MONDAY + 7200) == often.at(MONDAY + 7200)


def test_the_thermostat_keeps_a_home_warm_in_winter() -> None:
    january = 1_767_225_600.0
    evening = [
        inside.temperature for inside in run("living", 3, start=january)[2 * 1440 + 12 * 60 : 2 * 1440 + 21 * 60]
    ]
    assert min(evening) > 19.5
    assert max(evening) < 24


JANUARY = 1_767_225_600.0  # 1 January 2026, 0:00


def test_the_ground_is_near_the_yearly_mean_and_late() -> None:
    weather = Weather(7, mean=10.5, yearly=9.0)
    year = [weather.soil(JANUARY + day * DAY) for day in range(365)]
    assert sum(year) / 365 == pytest.approx(10.5, abs=0.05)
    assert (max(year) - min(year)) / 2 == pytest.approx(9.0 * 0.443, abs=0.05)
    assert 60 < year.index(min(year)) < 75, "coldest in March"
    assert 240 < year.index(max(year)) < 260, "warmest in September"


def test_a_cellar_neither_freezes_nor_gets_warm() -> None:
    weather = Weather(7)
    cellar = Room("cellar", PROFILES["cellar"], weather, 7)
    days = [JANUARY + day * DAY + 15 * HOUR for day in range(0, 365, 7)]
    inside = [cellar.at(t).temperature for t in days]
    outside = [weather.at(t).temperature for t in days]
    assert 4 < min(inside) < 9
    assert 13 < max(inside) < 18
    assert max(inside) - min(inside) < 0.5 * (max(outside) - min(outside))


def published(kind: str, start: float, days: float, seed: int = 7, **described: str) -> list[dict[str, float]]:
    spec = DeviceSpec("x", kind, "X", **described)  # type: ignore[arg-type]
    fleet = Fleet(FleetSpec((spec,)), seed, start, interval=300)
    return [
        json.loads(event.what.payload)
        for event in fleet.take(start + days * DAY)
        if isinstance(event.what, Message) and event.what.topic.endswith("/state")
    ]


@pytest.mark.parametrize("start", [JANUARY, JANUARY + 180 * DAY])
@pytest.mark.parametrize("room", ["living", "study", "meeting"])
def test_published_humidity_falls_where_published_temperature_rises(room: str, start: float) -> None:
    states = published("climate", start, 4, room=room)
    half_hour = list(zip(states, states[6:], strict=False))
    warmer = [after["temperature"] - before["temperature"] for before, after in half_hour]
    drier = [after["humidity"] - before["humidity"] for before, after in half_hour]
    assert correlation(warmer, drier) < -0.3


@pytest.mark.slow
def test_a_bed_in_a_greenhouse_is_as_warm_as_its_house() -> None:
    air = [state["temperature"] for state in published("climate", JANUARY, 4, room="greenhouse", place="house")]
    bed = [state["temperature"] for state in published("soil", JANUARY, 4, room="greenhouse", place="house")]
    assert sum(bed) / len(bed) == pytest.approx(sum(air) / len(air), abs=2)
    assert min(bed) > 12
    assert max(abs(after - before) for before, after in itertools.pairwise(bed)) < 0.3, "soil is slow"


def test_a_bed_outdoors_is_as_cold_as_the_weather() -> None:
    weather = Weather(7)
    outside = [weather.at(JANUARY + hour * HOUR).temperature for hour in range(96)]
    bed = [state["temperature"] for state in published("soil", JANUARY, 4)]
    assert sum(bed) / len(bed) == pytest.approx(sum(outside) / len(outside), abs=1.5)
    assert max(bed) - min(bed) < max(outside) - min(outside)


def test_a_bed_reads_the_same_whoever_else_is_in_its_house() -> None:
    def bed(*others: DeviceSpec) -> list[bytes]:
        specs = (*others, DeviceSpec("bed", "soil", "B", place="house", room="greenhouse"))
        fleet = Fleet(FleetSpec(specs), 7, JANUARY, interval=90)
        return [
            event.what.payload
            for event in fleet.take(JANUARY + DAY / 2)
            if isinstance(event.what, Message) and event.what.topic == "sensors/bed/state"
        ]

    assert len(bed()) == 480
    assert bed() == bed(DeviceSpec("air", "climate", "A", place="house", room="greenhouse"))

"""Rooms: temperature, water vapour, CO₂ and people that hang together.

Time is local time in seconds since 1970, as a wall clock shows it (no zones, no leap seconds). A room advances on a
fixed grid of steps, so that its state does not depend on how often it is asked for.

It leaves to others: the weather (``weather``), and what an instrument makes of it (``kinds``).
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from sensors_sim.model.noise import generator, unit_hash
from sensors_sim.model.weather import (
    DAY,
    HOUR,
    Outside,
    Weather,
    relative_humidity,
    saturation_vapour_pressure,
    vapour_density,
    vapour_pressure_of,
)

OUTDOOR_CO2_PPM = 425.0
"""Source: NOAA Global Monitoring Laboratory, Mauna Loa annual mean of 2024, rounded."""

CO2_LITRES_PER_SECOND_PER_PERSON = 0.0052
"""An adult at light office work (1.2 met).

Source: Persily and de Jonge, "Carbon dioxide generation rates for building occupants", Indoor Air 27 (2017).
"""

VAPOUR_GRAMS_PER_HOUR_PER_PERSON = 55.0
"""Breath and skin of a person at rest or light work. Source: EN 15251 and ASHRAE Fundamentals give 40 to 90."""

HEAT_WATTS_PER_PERSON = 75.0
"""Sensible heat of a seated person. Source: ASHRAE Fundamentals, nonresidential cooling load, table of heat gains."""

AIR_HEAT_CAPACITY = 1_210.0
"""J/(m³·K) of air at 20 °C and 1013 hPa."""


MASS_HEAT_CAPACITY = 60_000.0
"""J/K of walls and floor for each m³ of room."""

MASS_COUPLING = 10.0
"""W/K between air and walls for each m³ of room."""


class Window(NamedTuple):
    """When something happens, day by day: people come, a shower runs, a window is opened."""

    days: str
    """``weekday``, ``weekend`` or ``daily``."""
    start: float
    """Hour of the day."""
    end: float
    """Hour of the day; over 24 reaches into the next day."""
    times: int = 1
    """How many, such as persons; each has times of its own."""
    probability: float = 1.0
    """That one takes place on a day."""
    jitter: float = 20.0
    """Start and end each vary by up to this many minutes; what is shorter than two hours moves as a whole instead, and
    its length varies by up to a fifth."""


class Schedule:
    """How many of the windows' things are going on at a time: a pure function of seed, name and time."""

    __slots__ = ("_day", "_key", "_spans", "_windows")

    def __init__(self, seed: int, name: str, windows: tuple[Window, ...]) -> None:
        self._key = generator(seed, "schedule", name).getrandbits(64)
        self._windows = windows
        self._day = -1
        self._spans: list[tuple[float, float]] = []

    def count(self, t: float) -> int:
        """How many at ``t``."""
        if not self._windows:
            return 0
        self._turn_to(t)
        count = 0
        for start, end in self._spans:
            if start <= t < end:
                count += 1
        return count

    def started(self, t: float) -> float | None:
        """When what is going on at ``t`` began; None when nothing is."""
        self._turn_to(t)
        for start, end in self._spans:
            if start <= t < end:
                return start
        return None

    def seconds(self, start: float, end: float) -> float:
        """For how many seconds from ``start`` to ``end`` something is going on."""
        total, reached = 0.0, start
        for day in range(int(start // DAY) - 1, int(end // DAY) + 1):
            # Spans may overlap, and reach into the next day: what was counted is not counted again.
            for first, last in sorted(self._spans_of(day)):
                total += max(0.0, min(last, end) - max(first, reached))
                reached = max(reached, min(last, end))
        return total

    def _turn_to(self, t: float) -> None:
        day = int(t // DAY)
        if day != self._day:
            self._day = day
            self._spans = self._spans_of(day - 1) + self._spans_of(day)

    def _spans_of(self, day: int) -> list[tuple[float, float]]:
        weekend = (day + 3) % 7 >= 5  # 1 January 1970, day 0, was a Thursday
        spans = []
        number = day * 1000
        for window in self._windows:
            applies = window.days == "daily" or (window.days == "weekend") == weekend
            for _ in range(window.times):
                number += 3
                if not applies or unit_hash(self._key, number) >= window.probability:
                    continue
                jitter = 60 * window.jitter
                length = (window.end - window.start) * HOUR
                first = jitter * (2 * unit_hash(self._key, number + 1) - 1)
                second = 2 * unit_hash(self._key, number + 2) - 1
                start = day * DAY + window.start * HOUR + first
                if length < 2 * HOUR:
                    end = start + length + min(jitter, 0.2 * length) * second
                else:
                    end = day * DAY + window.end * HOUR + jitter * second
                spans.append((start, max(start + 30, end)))
        return spans


@dataclass(frozen=True, slots=True)
class RoomProfile:
    """What kind of room it is."""

    volume: float
    """m³."""
    loss: float
    """Heat lost to the air outside through walls and windows, W/K."""
    heater: float
    """Greatest heating power, W."""
    day_setpoint: float = 21.0
    """°C from 6:00 to 22:00."""
    night_setpoint: float = 18.5
    """°C at night."""
    cooling: float = 0.0
    """Greatest cooling power, W; 0 has none."""
    cooling_setpoint: float = 25.0
    """°C."""
    window_area: float = 2.0
    """m² that let in the sun."""
    infiltration: float = 0.55
    """Air changes an hour with windows shut, half of it through the door to the rest of the building."""
    ventilation: float = 0.0
    """Air changes an hour that fans add while people are in."""
    airing: tuple[Window, ...] = ()
    """When windows are opened wide: 7 air changes an hour."""
    people: tuple[Window, ...] = ()
    wetting: tuple[Window, ...] = ()
    """When cooking, a shower or watering wets the air."""
    wetting_grams_per_hour: float = 700.0
    equipment: float = 0.0
    """Heat of machines and computers, W."""
    equipment_follows_people: bool = True
    transpiration: float = 0.0
    """Grams of water an hour that plants give off for each W/m² of sun."""
    indoors: bool = False
    """Whether 20 °C and 45 % surround it, as a cold store in a building, and not the weather."""
    vents_above: float = 99.0
    """°C over which roof vents open in proportion."""
    ground: float = 0.0
    """Heat lost to the soil around it, W/K."""

    @property
    def daylight(self) -> float:
        """Share of the sun's light on the floor: 45 % of what meets its windows, and 65 % under glass all around."""
        return 0.65 if self.transpiration else min(0.65, 0.45 * self.window_area / (self.volume / 2.6))


_AIRING = (Window("daily", 7.1, 7.3, probability=0.8), Window("daily", 21.6, 21.8, probability=0.5))

PROFILES: dict[str, RoomProfile] = {
    "living": RoomProfile(
        62, 24, 1300, airing=_AIRING, window_area=4.0, equipment=80,
        people=(Window("daily", 17.6, 22.7, 2), Window("weekend", 9.5, 17.0, 2, 0.6, 60), Window("weekday", 6.9, 7.5)),
    ),
    "bedroom": RoomProfile(
        38, 15, 800, day_setpoint=18.5, night_setpoint=17.0, window_area=1.6, airing=_AIRING,
        people=(Window("daily", 22.6, 30.6, 2),),
    ),
    "kitchen": RoomProfile(
        34, 14, 750, window_area=1.6, equipment=150, wetting_grams_per_hour=900,
        people=(
            Window("daily", 6.6, 7.4, 2), Window("daily", 18.0, 19.3, 2), Window("weekend", 11.8, 13.2, 2),
        ),
        wetting=(Window("daily", 6.7, 6.9), Window("daily", 18.1, 18.8), Window("weekend", 12.0, 12.7)),
        airing=(Window("daily", 18.6, 18.9, probability=0.7),),
    ),
    "bathroom": RoomProfile(
        16, 8, 700, day_setpoint=22.0, night_setpoint=19.0, window_area=0.5, wetting_grams_per_hour=1700,
        infiltration=1.2,
        people=(Window("daily", 6.4, 6.8, 1), Window("daily", 7.0, 7.25, 1), Window("daily", 21.9, 22.2, 2)),
        wetting=(Window("daily", 6.45, 6.65, jitter=10), Window("daily", 21.95, 22.1, probability=0.6)),
        airing=(Window("daily", 7.3, 7.7), Window("daily", 22.2, 22.4, probability=0.8)),
    ),
    "study": RoomProfile(
        30, 12, 700, window_area=2.0, equipment=120, airing=_AIRING,
        people=(Window("weekday", 8.7, 12.1), Window("weekday", 12.9, 17.3), Window("weekend", 14.0, 16.0, 1, 0.3)),
    ),
    "child": RoomProfile(
        32, 12, 700, window_area=1.8, airing=_AIRING,
        people=(Window("daily", 20.4, 30.4), Window("weekday", 14.8, 18.0), Window("weekend", 9.0, 18.0, 1, 0.7, 60)),
    ),
    "cellar": RoomProfile(80, 15, 0, window_area=0.2, infiltration=0.2, ground=60),
    "office": RoomProfile(
        420, 210, 9000, cooling=9000, window_area=16, ventilation=1.0, equipment=160,
        people=(Window("weekday", 8.3, 12.2, 12, 0.85, 45), Window("weekday", 13.0, 17.4, 12, 0.85, 50)),
    ),
    "meeting": RoomProfile(
        75, 38, 2200, cooling=2500, window_area=5, ventilation=0.9, equipment=40,
        people=(
            Window("weekday", 9.0, 10.0, 6, 0.7, 4), Window("weekday", 10.5, 11.5, 5, 0.5, 4),
            Window("weekday", 13.5, 15.0, 7, 0.6, 4), Window("weekday", 15.5, 16.5, 4, 0.5, 4),
        ),
    ),
    "server": RoomProfile(
        60, 30, 0, cooling=9000, cooling_setpoint=22.0, window_area=0, infiltration=0.1, equipment=4200,
        equipment_follows_people=False, indoors=True,
    ),
    "hall": RoomProfile(
        6000, 2600, 160_000, day_setpoint=18.0, night_setpoint=14.0, window_area=70, infiltration=0.5, ventilation=0.8,
        equipment=900,
        people=(Window("weekday", 6.0, 14.0, 22, 0.92, 10), Window("weekday", 14.0, 22.0, 18, 0.92, 10)),
    ),
    "greenhouse": RoomProfile(
        520, 1500, 90_000, day_setpoint=18.0, night_setpoint=15.0, window_area=95, infiltration=0.8,
        wetting_grams_per_hour=14_000, transpiration=14.0, vents_above=25.0,
        people=(Window("daily", 7.5, 9.5, 2, 0.8), Window("daily", 15.0, 16.5, 1, 0.6)),
        wetting=(Window("daily", 6.5, 6.8), Window("daily", 13.0, 13.25)),
    ),
    "cold": RoomProfile(
        45, 12, 0, cooling=2600, cooling_setpoint=4.0, window_area=0, infiltration=0.05, equipment=60,
        equipment_follows_people=False, indoors=True, airing=(Window("weekday", 8.0, 8.05, 3, 0.9, 90),),
    ),
}  # fmt: skip


class Inside(NamedTuple):
    """A room at one moment."""

    temperature: float
    """°C."""
    vapour_pressure: float
    """hPa."""
    co2: float
    """ppm."""
    people: float
    heating: float
    """W; negative while cooling."""

    @property
    def humidity(self) -> float:
        """Relative humidity in %."""
        return relative_humidity(self.temperature, self.vapour_pressure)


INDOORS = Outside(20.0, 0.45 * saturation_vapour_pressure(20.0), 1013.0, 1.0, 0.0)
"""What surrounds a room inside a building."""


@dataclass(slots=True)
class _State:
    temperature: float
    mass: float
    density: float
    co2: float
    heating: float = 0.0
    heater_is_on: bool = False
    people: float = 0.0


@dataclass(slots=True)
class Room:
    """One room under one weather.

    Three balances are integrated, each exactly for inputs that are constant over a step (30 s):

        C·dT/dt   = (UA + ρc·V·λ)·(T_out − T) + UA_ground·(T_soil − T) + H·(T_mass − T)
                    + P_heating/2 + 75 W·n + P_equipment + sun
        dT_mass/dt = (H·(T − T_mass) + P_heating/2) / C_mass
        β·dA/dt   = λ·(A_out − A) + (55 g/h·n + wetting) / V                                A in g/m³, β = 2.5
        dCO₂/dt   = λ·(CO₂_out − CO₂) + 10⁶·G·n / V                                         G = 0.0052 L/s

    with λ the air changes an hour. C = 5·ρc·V is air and furniture, T_mass the walls with C_mass = 60 kJ/(m³·K)
    (165 kJ/(m²·K) of floor: the class "medium" of ISO 13790), H = 10 W/(m³·K) the way between the two; radiators
    heat both by halves. β stands for plaster, which holds moisture. Over 24.5 °C people open windows if that cools,
    and let blinds down to 30 % of the sun. The mass balance of CO₂ is that of ASTM D6245.
    """

    name: str
    profile: RoomProfile
    weather: Weather
    seed: int
    _people: Schedule = field(init=False, repr=False)
    _airing: Schedule = field(init=False, repr=False)
    _wetting: Schedule = field(init=False, repr=False)
    _scale: float = field(init=False, repr=False)
    _offset: float = field(init=False, repr=False)
    _grid: int | None = field(init=False, default=None, repr=False)
    _state: _State = field(init=False, repr=False)
    _before: Inside = field(init=False, repr=False)
    _after: Inside = field(init=False, repr=False)

    STEP = 30.0
    WARM_UP_STEP = 600.0
    WARM_UP = 1.5 * DAY

    def __post_init__(self) -> None:
        rng = generator(self.seed, "room", self.name)
        self._people = Schedule(self.seed, self.name + "/people", self.profile.people)
        self._airing = Schedule(self.seed, self.name + "/airing", self.profile.airing)
        self._wetting = Schedule(self.seed, self.name + "/wetting", self.profile.wetting)
        self._scale = rng.uniform(0.85, 1.15)
        self._offset = rng.gauss(0, 0.4)

    def at(self, t: float) -> Inside:
        """The room at ``t``, not earlier than the last step that somebody asked for (earlier gives that step's)."""
        index = int(t // self.STEP)
        if self._grid is None or index - self._grid > 2 * DAY / self.STEP:
            self._warm_up(index)
        while self._grid is not None and self._grid <= index:
            self._before = self._after
            self._advance(self._grid * self.STEP, self.STEP)
            self._grid += 1
            self._after = self._snapshot()
        before, after = self._before, self._after
        share = min(1.0, max(0.0, t / self.STEP - ((self._grid or 0) - 1)))
        return Inside(
            before.temperature + share * (after.temperature - before.temperature),
            before.vapour_pressure + share * (after.vapour_pressure - before.vapour_pressure),
            before.co2 + share * (after.co2 - before.co2),
            before.people,
            before.heating,
        )

    @property
    def mass(self) -> float:
        """Temperature in °C of walls and floor at the last step that somebody asked for."""
        return self._state.mass

    def light(self, t: float) -> float:
        """The sun on its floor at ``t``, W/m²."""
        return 0.0 if self.profile.indoors else self.profile.daylight * self.weather.at(t).irradiance

    def people(self, t: float) -> int:
        """How many are in at ``t``."""
        return self._people.count(t)

    def _snapshot(self) -> Inside:
        state = self._state
        return Inside(
            state.temperature,
            vapour_pressure_of(state.temperature, state.density),
            state.co2,
            state.people,
            state.heating,
        )

    def _warm_up(self, index: int) -> None:
        end = index * self.STEP
        # Starting on a multiple of the long step keeps the history of a room the same for nearby starts.
        t = (end - self.WARM_UP) // self.WARM_UP_STEP * self.WARM_UP_STEP
        outside = self.weather.at(t)
        start = self.profile.night_setpoint if self.profile.heater else outside.temperature
        if self.profile.cooling and not self.profile.heater:
            start = self.profile.cooling_setpoint
        if self.profile.ground:
            start = self.weather.soil(t)
        self._state = _State(
            start, start, vapour_density(outside.temperature, outside.vapour_pressure), OUTDOOR_CO2_PPM
        )
        while t < end:
            step = min(self.WARM_UP_STEP, end - t)
            self._advance(t, step)
            t += step
        self._grid = index
        self._after = self._snapshot()

    def _advance(self, t: float, step: float) -> None:
        profile, state = self.profile, self._state
        outside = INDOORS if profile.indoors else self.weather.at(t)
        volume = profile.volume * self._scale
        people = self._people.count(t)

        air_changes = profile.infiltration + 7.0 * self._airing.count(t)
        if people:
            air_changes += profile.ventilation
        sun = 0.45 * profile.window_area * outside.irradiance
        if state.temperature > profile.vents_above:
            air_changes += min(25.0, 6.0 * (state.temperature - profile.vents_above))
        elif state.temperature > 24.5 and profile.window_area and not profile.transpiration:
            sun *= 0.3
            if outside.temperature < state.temperature and not profile.cooling:
                air_changes += min(3.0, 2.0 * (state.temperature - 24.5))
        exchange = air_changes / HOUR

        gain = HEAT_WATTS_PER_PERSON * people + sun
        gain += profile.equipment * (people if profile.equipment_follows_people else 1)
        gain += 0.5 * self._heating(t, step, outside.temperature)
        conductance = profile.loss + AIR_HEAT_CAPACITY * volume * exchange
        coupling = MASS_COUPLING * volume
        if profile.ground:
            gain += profile.ground * self.weather.soil(t)
        total = conductance + coupling + profile.ground
        settled = (conductance * outside.temperature + coupling * state.mass + gain) / total
        weight = math.exp(-step * total / (5 * AIR_HEAT_CAPACITY * volume))
        state.temperature = settled + (state.temperature - settled) * weight
        weight = math.exp(-step * MASS_COUPLING / MASS_HEAT_CAPACITY)
        warmth = state.temperature + 0.5 * state.heating / coupling
        state.mass = warmth + (state.mass - warmth) * weight

        source = VAPOUR_GRAMS_PER_HOUR_PER_PERSON * people
        source += profile.wetting_grams_per_hour * self._wetting.count(t)
        source += profile.transpiration * outside.irradiance
        density_outside = vapour_density(outside.temperature, outside.vapour_pressure)
        settled = density_outside + source / HOUR / (volume * exchange)
        state.density = settled + (state.density - settled) * math.exp(-step * exchange / 2.5)
        # What is over saturation condenses on the coldest surface.
        limit = 0.97 * vapour_density(state.temperature, saturation_vapour_pressure(state.temperature))
        if profile.cooling and state.heating < 0:
            limit *= 0.82
        state.density = min(state.density, limit)

        settled = OUTDOOR_CO2_PPM + 1e3 * CO2_LITRES_PER_SECOND_PER_PERSON * people / (volume * exchange)
        if profile.transpiration:
            settled -= min(120.0, 0.25 * outside.irradiance)
        state.co2 = settled + (state.co2 - settled) * math.exp(-step * exchange)
        state.people = people

    def _heating(self, t: float, step: float, outside: float) -> float:
        """A thermostat with 0.3 K of hysteresis and a radiator that follows within ten minutes."""
        profile, state = self.profile, self._state
        if profile.cooling and state.temperature > profile.cooling_setpoint:
            wanted = -min(profile.cooling, profile.cooling * (state.temperature - profile.cooling_setpoint))
        else:
            hour = (t % DAY) / HOUR
            setpoint = profile.day_setpoint if 6 <= hour < 22 else profile.night_setpoint
            setpoint += self._offset
            if state.temperature < setpoint - 0.3:
                state.heater_is_on = True
            elif state.temperature > setpoint:
                state.heater_is_on = False
            # The boiler's water is hotter on cold days, as a heating curve makes it.
            curve = min(1.0, max(0.15, (setpoint + 2 - outside) / 30))
            wanted = profile.heater * curve if state.heater_is_on else 0.0
        state.heating = wanted + (state.heating - wanted) * math.exp(-step / 600)
        return state.heating

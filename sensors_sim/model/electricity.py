"""Electrical loads and the grid: what a plug and a meter measure.

Every load is a pure function of seed, name and time, so that a meter and a plug behind it agree.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from sensors_sim.model.climate import Schedule, Window
from sensors_sim.model.noise import Waves, generator, unit_hash
from sensors_sim.model.weather import DAY, HOUR, Weather


@dataclass(frozen=True, slots=True)
class Appliance:
    """What draws power.

    While it is on, it runs in cycles: a share ``duty`` of each ``period`` at ``watts``, the rest at ``idle``.
    """

    watts: float
    standby: float
    """W while nobody uses it."""
    power_factor: float
    windows: tuple[Window, ...] = ()
    """When it is used; empty: always."""
    period: float = 0.0
    """Seconds of a cycle; 0 has none."""
    duty: float = 1.0
    idle: float = 0.0
    """W between the active parts of cycles."""
    surge: float = 0.0
    """Further share of ``watts`` at the start of a cycle, gone after some seconds."""
    phases: tuple[tuple[float, float], ...] = ()
    """A programme instead of cycles: minutes and W, in turn."""
    follows_dark: bool = False
    """Whether it is on only while it is dark outside."""


APPLIANCES: dict[str, Appliance] = {
    "fridge": Appliance(82, 1.2, 0.92, period=2700, duty=0.34, idle=1.2, surge=1.6),
    "freezer": Appliance(96, 1.0, 0.9, period=3300, duty=0.42, idle=1.0, surge=1.6),
    "router": Appliance(9.5, 9.5, 0.55),
    "tv": Appliance(104, 0.4, 0.93, (Window("daily", 19.6, 22.5, 1, 0.85, 40), Window("weekend", 15, 17, 1, 0.4, 60))),
    "computer": Appliance(
        118, 2.1, 0.95,
        (Window("weekday", 8.7, 12.1), Window("weekday", 12.9, 17.3), Window("weekend", 14, 16, 1, 0.4)),
        period=420, duty=0.45, idle=61,
    ),
    "lamp": Appliance(46, 0.3, 0.62, (Window("daily", 6.4, 8.2), Window("daily", 16.4, 22.7)), follows_dark=True),
    "kettle": Appliance(2050, 0.0, 1.0, (
        Window("daily", 6.9, 6.95, jitter=12), Window("daily", 10.2, 10.25, 1, 0.6, 40),
        Window("daily", 15.5, 15.55, 1, 0.7, 50),
    )),
    "oven": Appliance(2350, 1.5, 0.99, (Window("daily", 17.9, 18.7, 1, 0.7, 30), Window("weekend", 11.6, 12.6, 1, 0.6)),
                      period=170, duty=0.46, idle=32),
    "washer": Appliance(
        2100, 0.8, 0.97, (Window("daily", 9.5, 11.2, 1, 0.45, 90),),
        phases=((4, 65), (17, 2080), (38, 190), (6, 95), (14, 160), (7, 90), (9, 520), (3, 40)),
    ),
    "dishwasher": Appliance(
        2000, 0.6, 0.98, (Window("daily", 20.2, 22.1, 1, 0.75, 30),),
        phases=((8, 45), (15, 1960), (32, 62), (6, 40), (14, 1950), (9, 55), (24, 12)),
    ),
    "heater": Appliance(
        1500, 0.5, 1.0, (Window("daily", 6.2, 8.0), Window("daily", 18.5, 22.0)), period=600, duty=0.55,
    ),
    "pump": Appliance(58, 0.9, 0.88, period=5400, duty=0.4, idle=0.9, surge=0.6),
    "printer": Appliance(610, 7.5, 0.7, (Window("weekday", 8.5, 17.0, 1, 1.0, 25),), period=1500, duty=0.05, idle=14),
    "coffee": Appliance(1420, 1.1, 1.0, (Window("weekday", 8.0, 16.5),), period=1100, duty=0.11, idle=3.0),
    "compressor": Appliance(
        7400, 40, 0.86, (Window("weekday", 5.8, 22.0, jitter=10),), period=260, duty=0.58, idle=2150, surge=1.2,
    ),
    "conveyor": Appliance(
        2900, 25, 0.79, (Window("weekday", 6.0, 13.8, jitter=8), Window("weekday", 14.1, 21.8, jitter=8)), surge=0.8,
    ),
    "grow-light": Appliance(
        640, 2.0, 0.97, (Window("daily", 5.0, 9.0, jitter=1), Window("daily", 16.0, 20.0, jitter=1)),
        follows_dark=True,
    ),
    "server": Appliance(320, 320, 0.98, period=900, duty=0.4, idle=255),
}  # fmt: skip


class Load:
    """One appliance in one place: active power as a function of time.

    A cycle k of period P begins at k·P and lasts on for duty·P, both varied by ±15 % and ±25 % of a hash of k. A motor
    starts with surge·P_n·exp(−t/2 s) on top.

    Args:
        seed: Of the fleet.
        name: Of this very load.
        appliance: What it is.
        weather: Tells when it is dark.
    """

    __slots__ = ("_key", "_schedule", "_spread", "_wander", "_weather", "appliance")

    def __init__(self, seed: int, name: str, appliance: Appliance, weather: Weather) -> None:
        rng = generator(seed, "load", name)
        self.appliance = appliance
        self._key = rng.getrandbits(64)
        self._schedule = Schedule(seed, "load/" + name, appliance.windows)
        self._spread = rng.uniform(0.93, 1.07)
        self._wander = Waves(rng, 40, 900, 4)
        self._weather = weather

    def watts(self, t: float) -> float:
        """Active power in W at ``t``."""
        appliance = self.appliance
        if appliance.windows:
            started = self._schedule.started(t)
            if started is None:
                return appliance.standby
        else:
            started = 0.0
        if appliance.follows_dark and self._weather.at(t // 60 * 60).irradiance > 60:
            return appliance.standby
        if appliance.phases:
            watts = appliance.standby
            minutes = (t - started) / 60
            for length, power in appliance.phases:
                if minutes < length:
                    watts = power
                    break
                minutes -= length
        elif appliance.period:
            watts = self._cycle(t)
        else:
            watts = appliance.watts * (1 + appliance.surge * math.exp(-min(60.0, (t - started) / 2)))
        return watts * self._spread * (1 + 0.012 * self._wander.at(t))

    def _cycle(self, t: float) -> float:
        appliance = self.appliance
        number = int(t // appliance.period)
        begin = number * appliance.period + 0.15 * appliance.period * unit_hash(self._key, 2 * number)
        length = appliance.period * appliance.duty * (0.75 + 0.5 * unit_hash(self._key, 2 * number + 1))
        since = t - begin
        if not 0 <= since < min(length, appliance.period - (begin - number * appliance.period)):
            return appliance.idle
        return appliance.watts * (1 + appliance.surge * math.exp(-min(60.0, since / 2)))


class Grid:
    """The public supply, 230 V and 50 Hz.

    Voltage wanders within a few volts (EN 50160 allows ±10 %) and sags by the drop along the line, R·I with R = 0.28 Ω.
    Frequency stays within ±0.05 Hz nearly always, as published for the synchronous area of continental Europe.
    """

    LINE_RESISTANCE = 0.28

    def __init__(self, seed: int) -> None:
        rng = generator(seed, "grid")
        self._voltage = Waves(rng, 90, 3 * HOUR, 7)
        self._frequency = Waves(rng, 25, 1200, 7)

    def voltage(self, t: float, watts: float = 0.0) -> float:
        """Volts under a load of ``watts``, with the evening's lower voltage."""
        evening = math.cos(2 * math.pi * ((t % DAY) / HOUR - 19) / 24)
        volts = 231.5 + 1.3 * self._voltage.at(t) - 1.2 * evening
        return volts - self.LINE_RESISTANCE * watts / volts

    def frequency(self, t: float) -> float:
        """Hz."""
        return 50.0 + 0.016 * self._frequency.at(t)


class Meter:
    """Energy as the integral of power, by trapezoids of at most ten seconds, however seldom it is read.

    Args:
        watts: Power in W as a pure function of time: the meter asks for the hours before its first reading as well.
        energy: kWh on the counter at the start.
    """

    __slots__ = ("_at_midnight", "_last", "_t", "_watts", "_yesterday", "energy", "gained")

    STEP = 10.0
    PAST_STEP = 60.0
    """Seconds of a trapezoid where the past before the first reading is made up."""

    def __init__(self, watts: Callable[[float], float], energy: float) -> None:
        self._watts = watts
        self._t: float | None = None
        self._last = 0.0
        self._at_midnight: float | None = None
        self._yesterday: float | None = None
        self.energy = energy
        """kWh on the counter."""
        self.gained = 0.0
        """kWh between the last two readings."""

    def read(self, t: float) -> float:
        """Power in W at ``t``; ``energy`` has grown since the last reading."""
        before = self.energy
        if self._t is None:
            self._t, self._last = t, self._watts(t)
        while self._t < t:
            midnight = (self._t // DAY + 1) * DAY
            self._integrate_to(min(t, midnight))
            if self._t == midnight:
                self._yesterday = None if self._at_midnight is None else self.energy - self._at_midnight
                self._at_midnight = self.energy
        self.gained = self.energy - before
        return self._last

    def at_midnight(self) -> float:
        """The counter in kWh when the day of the last reading began."""
        if self._at_midnight is None:
            if self._t is None:
                return self.energy
            self._at_midnight = self.energy - self._past(self._t // DAY * DAY, self._t)
        return self._at_midnight

    def yesterday(self) -> float:
        """Energy in kWh of the day before that of the last reading."""
        if self._yesterday is None:
            if self._t is None:
                return 0.0
            midnight = self._t // DAY * DAY
            self._yesterday = self._past(midnight - DAY, midnight)
        return self._yesterday

    def last_minutes(self) -> tuple[float, float, float] | None:
        """Energy in kWh of the three whole minutes before the last reading, the latest first; None before the first."""
        if self._t is None:
            return None
        now = self._t // 60 * 60
        powers = [self._watts(now - second) for second in range(0, 181, 10)]
        first, second, third = (
            (sum(powers[start : start + 7]) - (powers[start] + powers[start + 6]) / 2) / 6 / 60 / 1000
            for start in (0, 6, 12)
        )
        return first, second, third

    def _integrate_to(self, t: float) -> None:
        start = t if self._t is None else self._t
        count = max(1, math.ceil((t - start) / self.STEP))
        step = (t - start) / count
        for number in range(1, count + 1):
            watts = self._watts(t if number == count else start + number * step)
            self.energy += (watts + self._last) / 2 * step / 3.6e6
            self._last = watts
        self._t = t

    def _past(self, start: float, end: float) -> float:
        count = max(1, math.ceil((end - start) / self.PAST_STEP))
        step = (end - start) / count
        inner = sum(self._watts(start + number * step) for number in range(1, count))
        return (inner + (self._watts(start) + self._watts(end)) / 2) * step / 3.6e6

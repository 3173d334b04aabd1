"""A rotating machine: speed, load, vibration with harmonics, and a bearing that fails."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from sensors_sim.model.climate import Schedule, Window
from sensors_sim.model.noise import Waves, generator
from sensors_sim.model.weather import DAY, HOUR


@dataclass(frozen=True, slots=True)
class Bearing:
    """A rolling bearing's geometry."""

    balls: int
    ball_diameter: float
    """mm."""
    pitch_diameter: float
    """mm."""
    contact_angle: float = 0.0
    """Degrees."""

    @property
    def outer_race_order(self) -> float:
        """Passes of balls over a defect of the outer race per turn of the shaft (BPFO / f_r).

            n/2 · (1 − d/D·cos φ)

        Source: Randall and Antoni, "Rolling element bearing diagnostics - a tutorial", Mechanical Systems and Signal
        Processing 25 (2011).
        """
        ratio = self.ball_diameter / self.pitch_diameter * math.cos(math.radians(self.contact_angle))
        return self.balls / 2 * (1 - ratio)


SKF_6205 = Bearing(9, 7.94, 39.04)
"""Its order is 3.585, as the Case Western Reserve University Bearing Data Center gives it."""

SHIFTS = (Window("weekday", 6.0, 13.7, 1, 1.0, 10), Window("weekday", 14.2, 21.7, 1, 0.95, 10))


class Motion(NamedTuple):
    """A machine at one moment."""

    rpm: float
    load: float
    """Share of the rated power, 0 to about 1."""
    harmonics: tuple[float, float, float]
    """Velocity at one, two and three times the speed of rotation, mm/s RMS."""
    bearing: float
    """Velocity at the passing frequency of the bearing's outer race, mm/s RMS."""
    vibration: float
    """Overall velocity 10 to 1000 Hz, mm/s RMS; ISO 20816-3 calls over 2.8 unsatisfactory for a medium machine on a
    rigid base, and over 4.5 damaging."""
    acceleration: float
    """Peak acceleration in g, in which a bearing shows first."""
    heat: float
    """K that the bearing is over the room's temperature when warm."""
    watts: float


class Machine:
    """An induction motor of four poles with what it drives.

    Speed is 1500 rpm less slip, which grows with load to 3 %. Each harmonic's RMS is a fixed pattern (unbalance at 1×,
    misalignment at 2×, looseness at 3×) that grows with the square of speed and a little with load:

        v_k = a_k·(n/n₀)²·(0.8 + 0.3·load)·(1 + 0.04·x_k(t))

    A defect of the outer race adds b at BPFO and a quarter of it at 2·BPFO. It grows exponentially in the hours h that
    the machine has run since the start, as bearings do once spalled; while it stands, nothing wears:

        b = b₀·exp((h − h_onset)/τ),  b₀ = 0.02 mm/s, at most 9 mm/s

    Overall velocity is the root of the sum of squares with 0.12 mm/s of background. Peak acceleration takes each line's
    velocity times 2π·f·√2, and impacts add a crest factor that grows with b.

    Source: the exponential degradation model of Gebraeel, Lawley, Li and Ryan, IIE Transactions 37 (2005).

    Args:
        seed: Of the fleet.
        name: Of the machine.
        start: When the device starts; hours count from there.
        onset_hours: After how many running hours the defect begins; negative: it had begun before.
        growth_hours: τ, running hours in which it grows by e.
        rated_watts: Electrical power at full load.
        shifts: When it runs.
    """

    FULL_SPEED = 1500.0

    def __init__(
        self,
        seed: int,
        name: str,
        start: float,
        *,
        onset_hours: float = 72.0,
        growth_hours: float = 24.0,
        rated_watts: float = 5500.0,
        shifts: tuple[Window, ...] = SHIFTS,
        bearing: Bearing = SKF_6205,
    ) -> None:
        rng = generator(seed, "machine", name)
        self._shifts = Schedule(seed, "machine/" + name, shifts)
        self._load = Waves(rng, 20, 1800, 6)
        self._jitter = [Waves(rng, 5, 240, 4) for _ in range(3)]
        self._pattern = (rng.uniform(0.5, 1.1), rng.uniform(0.15, 0.4), rng.uniform(0.05, 0.16))
        self._start = start
        self._onset = onset_hours
        self._growth = growth_hours
        self._day_start = start
        self._hours_before_day = 0.0
        self._rated = rated_watts
        self._order = bearing.outer_race_order

    def running_hours(self, t: float) -> float:
        """Hours that it has run from the start to ``t``."""
        if t < self._day_start:
            self._day_start, self._hours_before_day = self._start, 0.0
        today = t // DAY * DAY
        if today > self._day_start:
            self._hours_before_day += self._shifts.seconds(self._day_start, today) / HOUR
            self._day_start = today
        return self._hours_before_day + self._shifts.seconds(self._day_start, max(t, self._day_start)) / HOUR

    def defect(self, t: float) -> float:
        """The defect b at full speed in mm/s RMS; 0 before its onset."""
        hours = self.running_hours(t) - self._onset
        if hours < 0:
            return 0.0
        return min(9.0, 0.02 * math.exp(min(50.0, hours / self._growth)))

    def at(self, t: float) -> Motion:
        """The machine at ``t``."""
        started = self._shifts.started(t)
        if started is None:
            return Motion(0.0, 0.0, (0.0, 0.0, 0.0), 0.0, 0.02, 0.004, 0.0, 14.0)
        load = min(1.05, max(0.15, 0.66 + 0.13 * self._load.at(t)))
        run_up = 1 - math.exp(-min(60.0, (t - started) / 4))
        speed = run_up * (1 - 0.03 * load)
        rpm = self.FULL_SPEED * speed
        scale = speed * speed * (0.8 + 0.3 * load)
        first, second, third = (
            amplitude * scale * (1 + 0.04 * jitter.at(t))
            for amplitude, jitter in zip(self._pattern, self._jitter, strict=True)
        )
        defect = self.defect(t) * scale
        vibration = math.sqrt(first**2 + second**2 + third**2 + defect**2 * (1 + 1 / 16) + 0.12**2)
        omega = 2 * math.pi * rpm / 60
        lines = ((first, 1.0), (second, 2.0), (third, 3.0), (defect, self._order), (defect / 4, 2 * self._order))
        smooth = math.sqrt(sum((velocity * order) ** 2 for velocity, order in lines)) * omega * math.sqrt(2) / 9806.65
        acceleration = 0.05 * speed + smooth * (1 + 1.2 * min(1.0, defect))
        heat = 18 * load + 6 * defect
        return Motion(
            rpm, load, (first, second, third), defect, vibration, acceleration, heat, self._rated * load * run_up
        )

"""A vehicle on a round trip, as a satellite receiver sees it."""

import bisect
import math
import random
from typing import NamedTuple

from sensors_sim.noise import Drifting

EARTH_RADIUS = 6_371_008.8
"""Mean radius in m (IUGG)."""


class Fix(NamedTuple):
    """One position."""

    latitude: float
    longitude: float
    altitude: float
    """m."""
    speed: float
    """km/h over ground."""
    heading: float
    """Degrees from north, clockwise."""


class Vehicle:
    """Drives a closed route again and again.

    The route is r(θ) = R·(1 + Σ aₖ·cos(kθ + φₖ)), k = 2…6, around its centre, as a line of 240 points. Speed follows a
    wish that changes from one stretch to the next (AR(1) in distance), slows down in bends so that the sideways
    acceleration v²·κ stays under 2 m/s², changes by at most 1.2 m/s², and rests for a while at stops. The receiver's
    error is AR(1) in each direction, 1.8 m with a memory of 40 s, as that of a single-frequency receiver.

    Offsets in metres become degrees on a sphere: Δφ = y/R_E, Δλ = x/(R_E·cos φ), good to 0.1 % within some 10 km.

    Args:
        rng: The device's generator.
        latitude: Of the centre, degrees.
        longitude: Of the centre, degrees.
        radius: R in m, mean radius of the route.
        cruise: Mean speed wished for, km/h.
        stops: How many stops on the way.
        altitude: m over the sea.
    """

    POINTS = 240
    STEP = 1.0
    MAX_STEPS = 300

    def __init__(
        self,
        rng: random.Random,
        latitude: float,
        longitude: float,
        *,
        radius: float = 2500.0,
        cruise: float = 42.0,
        stops: int = 6,
        altitude: float = 110.0,
    ) -> None:
        self._rng = rng
        self._latitude = latitude
        self._longitude = longitude
        self._metres_to_degrees = 180 / math.pi / EARTH_RADIUS
        self._stretch = 1 / math.cos(math.radians(latitude))
        self._altitude = altitude
        self._cruise = cruise / 3.6
        waves = [(k, rng.uniform(0, 0.32) / k, rng.uniform(0, 2 * math.pi)) for k in range(2, 7)]
        self._x: list[float] = []
        self._y: list[float] = []
        for number in range(self.POINTS + 1):
            theta = 2 * math.pi * number / self.POINTS
            r = radius * (1 + sum(a * math.cos(k * theta + phase) for k, a, phase in waves))
            self._x.append(r * math.sin(theta))
            self._y.append(r * math.cos(theta))
        self._along = [0.0]
        for number in range(self.POINTS):
            step = math.hypot(self._x[number + 1] - self._x[number], self._y[number + 1] - self._y[number])
            self._along.append(self._along[-1] + step)
        self._length = self._along[-1]
        self._bends = [self._bend(number) for number in range(self.POINTS)]
        self._stops = sorted(rng.uniform(0, self._length) for _ in range(stops))
        self._distance = rng.uniform(0, self._length)
        self._speed = 0.0
        self._resting = 0.0
        self._wish = Drifting(rng, 0.22, 700)
        self._hills = rng.uniform(0, 2 * math.pi)
        self._errors = [Drifting(rng, 1.8, 40), Drifting(rng, 1.8, 40), Drifting(rng, 3.4, 60)]
        self._t: float | None = None

    def at(self, t: float) -> Fix:
        """The fix at ``t``, not before the last one."""
        if self._t is None:
            self._t = t
        steps = min(self.MAX_STEPS, int((t - self._t) / self.STEP))
        step = (t - self._t) / steps if steps else 0.0
        for _ in range(steps):
            self._drive(step)
        if steps:
            self._t = t
        distance = self._distance % self._length
        number = min(self.POINTS - 1, bisect.bisect_right(self._along, distance) - 1)
        share = (distance - self._along[number]) / (self._along[number + 1] - self._along[number])
        dx = self._x[number + 1] - self._x[number]
        dy = self._y[number + 1] - self._y[number]
        east, north, up = (error.at(t) for error in self._errors)
        x = self._x[number] + share * dx + east
        y = self._y[number] + share * dy + north
        height = self._altitude + 14 * math.sin(2 * math.pi * distance / self._length + self._hills)
        return Fix(
            self._latitude + y * self._metres_to_degrees,
            self._longitude + x * self._metres_to_degrees * self._stretch,
            height + up,
            # A resting receiver still reports a little speed.
            max(0.0, self._speed * 3.6 + abs(0.25 * self._rng.gauss(0, 1)) * (self._speed < 0.5)),
            math.degrees(math.atan2(dx, dy)) % 360,
        )

    def _bend(self, number: int) -> float:
        """Curvature in 1/m at a point, from the change of heading."""
        before = math.atan2(
            self._x[number] - self._x[number - 1 if number else self.POINTS - 1],
            self._y[number] - self._y[number - 1 if number else self.POINTS - 1],
        )
        after = math.atan2(self._x[number + 1] - self._x[number], self._y[number + 1] - self._y[number])
        turn = abs((after - before + math.pi) % (2 * math.pi) - math.pi)
        return turn / (self._along[number + 1] - self._along[number])

    def _drive(self, step: float) -> None:
        if self._resting > 0:
            self._resting -= step
            self._speed = 0.0
            return
        place = self._distance % self._length
        number = min(self.POINTS - 1, bisect.bisect_right(self._along, place) - 1)
        wanted = self._cruise * min(1.6, max(0.35, 1 + self._wish.at(self._distance)))
        wanted = min(wanted, math.sqrt(2.0 / max(1e-4, self._bends[number])))
        ahead = min(((stop - place) % self._length for stop in self._stops), default=1e9)
        wanted = min(wanted, math.sqrt(2 * 0.9 * ahead) + 0.4)
        change = min(1.2 * step, max(-1.6 * step, wanted - self._speed))
        self._speed = max(0.0, self._speed + change)
        travelled = self._speed * step
        self._distance += travelled
        if travelled >= ahead or ahead < 1.5:
            self._distance += ahead + 2.0
            self._speed = 0.0
            self._resting = self._rng.uniform(15, 120)

"""A vehicle on a round trip, as a satellite receiver sees it."""

import bisect
import math
import random
from typing import NamedTuple

from sensors_sim.model.noise import Drifting

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


class Place(NamedTuple):
    """A point of the route."""

    x: float
    """m east of the centre."""
    y: float
    """m north of the centre."""
    heading: float
    """Radians from north, clockwise."""
    curvature: float
    """1/m, not negative."""


class Route:
    """A closed line around a centre, driven clockwise.

        r(θ) = R·(1 + Σ aₖ·cos(kθ + φₖ)),  k = 2…6,  x = r·sin θ,  y = r·cos θ

    Heading is atan2(x', y') and curvature |r² + 2r'² − r·r''| / (r² + r'²)^1.5, so that both change smoothly.

    Args:
        rng: Where its form comes from.
        radius: R in m.
    """

    POINTS = 720

    def __init__(self, rng: random.Random, radius: float) -> None:
        self._radius = radius
        self._waves = [(k, rng.uniform(0, 0.32) / k, rng.uniform(0, 2 * math.pi)) for k in range(2, 7)]
        self.along = [0.0]
        """Metres from the start to each of its points."""
        for number in range(self.POINTS):
            # Simpson's rule over one point, good to millimetres a round
            ends = self._pace(number) + self._pace(number + 1)
            step = (ends + 4 * self._pace(number + 0.5)) / 6 * 2 * math.pi / self.POINTS
            self.along.append(self.along[-1] + step)
        self.length = self.along[-1]
        """m."""

    def at(self, distance: float) -> Place:
        """The point that many metres from the start, 0 to ``length``."""
        number = min(self.POINTS - 1, bisect.bisect_right(self.along, distance) - 1)
        share = (distance - self.along[number]) / (self.along[number + 1] - self.along[number])
        theta = 2 * math.pi * (number + share) / self.POINTS
        r, slope, bend = self._r(theta)
        sine, cosine = math.sin(theta), math.cos(theta)
        heading = math.atan2(slope * sine + r * cosine, slope * cosine - r * sine)
        curvature = abs(r * r + 2 * slope * slope - r * bend) / (r * r + slope * slope) ** 1.5
        return Place(r * sine, r * cosine, heading, curvature)

    def _r(self, theta: float) -> tuple[float, float, float]:
        """The radius and its first two derivatives by θ, in m."""
        r, slope, bend = 1.0, 0.0, 0.0
        for k, amplitude, phase in self._waves:
            cosine = amplitude * math.cos(k * theta + phase)
            r += cosine
            slope -= k * amplitude * math.sin(k * theta + phase)
            bend -= k * k * cosine
        return self._radius * r, self._radius * slope, self._radius * bend

    def _pace(self, number: float) -> float:
        """Metres of the line for each radian of θ."""
        r, slope, _ = self._r(2 * math.pi * number / self.POINTS)
        return math.hypot(r, slope)


class Vehicle:
    """Drives a closed route again and again.

    Speed follows a wish that changes from one stretch to the next (AR(1) in distance). It changes by at most 1.2 m/s²,
    and in bends v²·κ stays under 2 m/s²: the driver looks ahead, brakes with 1 m/s² in time for each bend and stop,

        v(s)² ≤ v_max(s')² + 2·1 m/s²·(s' − s)  for every place s' ahead,  v_max = sqrt(1.85/κ), 0 at a stop

    comes to rest there and stays for a while. It drives on a grid of a second, whoever asks, and evenly accelerated
    between; a silence of more than an hour is driven as if it were an hour. The receiver's error is AR(1) in each
    direction, 1.8 m with a memory of 40 s, as that of a single-frequency receiver; at rest it reports up to 1 km/h.

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

    STEP = 1.0
    LONGEST_DRIVE = 3600.0
    ACCELERATION = 1.2
    BRAKING = 1.0
    SIDEWAYS = 1.85

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
        self._route = Route(rng, radius)
        self._limits = self._limits_of_bends()
        length = self._route.length
        self._stops = sorted(rng.uniform(0, length) for _ in range(stops))
        self._driver = random.Random(rng.getrandbits(64))  # noqa: S311  its own: fixes don't change the journey
        self._wish = Drifting(self._driver, 0.22, 700)
        self._hills = rng.uniform(0, 2 * math.pi)
        self._errors = [Drifting(rng, 1.8, 40), Drifting(rng, 1.8, 40), Drifting(rng, 3.4, 60)]
        self._place = rng.uniform(0, length)
        self._travelled = 0.0
        self._speed = self._next_speed = 0.0
        self._resting = 0.0
        self._stop = bisect.bisect(self._stops, self._place) % stops if stops else -1
        self._grid: int | None = None

    def at(self, t: float) -> Fix:
        """The fix at ``t``, not before the last one."""
        index = int(t // self.STEP)
        if self._grid is None or index - self._grid > self.LONGEST_DRIVE / self.STEP:
            self._grid = index if self._grid is None else index - int(self.LONGEST_DRIVE / self.STEP)
            self._next_speed = self._decide()
        while self._grid < index:
            self._move()
            self._grid += 1
            self._next_speed = self._decide()
        since = t - self._grid * self.STEP
        change = (self._next_speed - self._speed) / self.STEP
        speed = self._speed + change * since
        distance = (self._place + self._speed * since + change * since * since / 2) % self._route.length
        place = self._route.at(distance)
        east, north, up = (error.at(t) for error in self._errors)
        height = self._altitude + 14 * math.sin(2 * math.pi * distance / self._route.length + self._hills)
        return Fix(
            self._latitude + (place.y + north) * self._metres_to_degrees,
            self._longitude + (place.x + east) * self._metres_to_degrees * self._stretch,
            height + up,
            # A resting receiver still reports a little speed.
            speed * 3.6 + min(1.0, abs(0.25 * self._rng.gauss(0, 1))) * (speed < 0.1),
            math.degrees(place.heading) % 360,
        )

    def _limits_of_bends(self) -> list[float]:
        """Square of the highest speed at each point of the route from which no bend ahead is too fast."""
        along = self._route.along
        limits = [self.SIDEWAYS / max(1e-4, self._route.at(distance).curvature) for distance in along]
        # Twice around, for the first bend limits the end of the round before.
        for number in [*range(len(along) - 2, -1, -1)] * 2:
            step = along[number + 1] - along[number]
            limits[number] = min(limits[number], limits[number + 1] + 2 * self.BRAKING * step)
            limits[-1] = min(limits[-1], limits[0])
        return limits

    def _highest(self, ahead: float) -> float:
        """The highest speed that is allowed so many metres ahead; 0 at the next stop and beyond."""
        to_stop = self._to_stop() - ahead
        if to_stop <= 0:
            return 0.0
        distance = (self._place + ahead) % self._route.length
        along = self._route.along
        number = min(len(along) - 2, bisect.bisect_right(along, distance) - 1)
        share = (distance - along[number]) / (along[number + 1] - along[number])
        limit = self._limits[number] + share * (self._limits[number + 1] - self._limits[number])
        return math.sqrt(min(limit, 2 * self.BRAKING * to_stop))

    def _to_stop(self) -> float:
        return (self._stops[self._stop] - self._place) % self._route.length if self._stops else math.inf

    def _decide(self) -> float:
        """The speed in a second: the highest that wish and way allow, within what engine and brakes can."""
        if self._resting > 0:
            return 0.0
        wish = self._cruise * min(1.6, max(0.35, 1 + self._wish.at(self._travelled)))
        low = max(0.0, self._speed - self.ACCELERATION * self.STEP)
        high = max(low, min(wish, self._speed + self.ACCELERATION * self.STEP))
        if high <= self._highest((self._speed + high) / 2 * self.STEP):
            return high
        for _ in range(12):
            middle = (low + high) / 2
            if middle <= self._highest((self._speed + middle) / 2 * self.STEP):
                low = middle
            else:
                high = middle
        return low

    def _move(self) -> None:
        """Drive on for a second."""
        if self._resting > 0:
            self._resting -= self.STEP
            if self._resting <= 0:
                self._stop = (self._stop + 1) % len(self._stops)
            return
        travelled = (self._speed + self._next_speed) / 2 * self.STEP
        self._place = (self._place + travelled) % self._route.length
        self._travelled += travelled
        self._speed = self._next_speed
        if self._stops and self._speed < 0.2 and self._to_stop() < 2.0:
            self._resting = self._driver.uniform(15, 120)

"""The soil of a bed: its water and its temperature."""

import math
import random

from sensors_sim.model.climate import Room
from sensors_sim.model.weather import HOUR
from sensors_sim.model.world import World


class Ground:
    """The soil of a bed; its water on a grid of ten minutes.

        dθ/dt = −k·(0.1 + G/400)·(θ − θ_wilt) while it dries;  θ rises to field capacity when watered
        dT/dt = (T_air + 0.01·G − T) / 5 h

    θ in % of volume: θ_wilt = 8, field capacity 38 (loam; FAO Irrigation and Drainage Paper 56), k = 0.5 a day. T_air
    and the light G in W/m² are those of the room at its place, if there is one, else those of the weather.

    Args:
        world: Where it is.
        place: Whose room it may be in.
        rng: The device's generator.
    """

    STEP = 600.0
    WARM_UP = 3 * 86_400.0
    MEMORY = 5 * HOUR

    def __init__(self, world: World, place: str, rng: random.Random) -> None:
        self._world = world
        self._place = place
        self._threshold = rng.uniform(17, 22)
        self._moisture = rng.uniform(20, 34)
        self._temperature = 0.0
        self._t: float | None = None
        self._grid: int | None = None
        self._is_wetting = False

    def at(self, t: float) -> tuple[float, float]:
        """Moisture in % and temperature in °C at ``t``, not before the last time that was asked for."""
        room = self._world.room_at(self._place)
        index = int(t // self.STEP)
        if self._grid is None:
            self._grid = index - int(self.WARM_UP / self.STEP)
        while self._grid <= index:
            self._dry(self._grid * self.STEP, room)
            self._grid += 1
        air = self._world.weather.at(t).temperature if room is None else room.at(t).temperature
        target = air + 0.01 * self._light(t, room)
        if self._t is None:
            self._temperature = self._mean_of_the_day_before(t) if room is None else room.mass
        else:
            self._temperature += (target - self._temperature) * -math.expm1((self._t - t) / self.MEMORY)
        self._t = t
        return self._moisture, self._temperature

    def _light(self, t: float, room: Room | None) -> float:
        return self._world.weather.at(t).irradiance if room is None else room.light(t)

    def _mean_of_the_day_before(self, t: float) -> float:
        hours = [self._world.weather.at(t - hour * HOUR) for hour in range(24)]
        return sum(outside.temperature + 0.01 * outside.irradiance for outside in hours) / len(hours)

    def _dry(self, t: float, room: Room | None) -> None:
        drying = 0.5 / 86_400 * (0.1 + self._light(t, room) / 400)
        self._moisture -= drying * self.STEP * (self._moisture - 8)
        hour = t % 86_400 / HOUR
        # Watered in the morning when dry; the water takes half an hour to come down.
        if self._moisture < self._threshold and 6 <= hour < 8:
            self._is_wetting = True
        if self._is_wetting:
            self._moisture += 5.5
            self._is_wetting = self._moisture < 36

"""Kinds of device: which fields each has, and how its readings come from the world.

A kind is a factory: it gets a ``Setting`` and gives a function of time to readings. Instruments add what real ones add:
a fixed offset within the data sheet's tolerance, and noise with memory.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sensors_sim.climate import PROFILES, Room, Weather
from sensors_sim.noise import Drifting, generator

Readings = dict[str, object]
Reader = Callable[[float], Readings]


class World:
    """What devices share: the weather and the rooms of one fleet.

    Args:
        seed: Of the fleet.
        weather: The site's weather; None takes that of a town in the middle of Europe.
    """

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self.seed = seed
        self.weather = weather or Weather(seed)
        self._rooms: dict[str, Room] = {}

    def room(self, place: str, profile: str) -> Room:
        """The room at ``place``, made on first use.

        Raises:
            ValueError: No such profile.
        """
        room = self._rooms.get(place)
        if room is None:
            if profile not in PROFILES:
                raise ValueError(f"unknown room {profile!r}: known are {', '.join(PROFILES)}")
            room = self._rooms[place] = Room(place, PROFILES[profile], self.weather, self.seed)
        return room


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a device stands and what was asked of it."""

    id: str
    place: str
    room: str
    interval: float
    """Seconds between readings."""
    world: World
    options: Mapping[str, object]
    rng: random.Random

    def number(self, name: str, default: float) -> float:
        """An option that is a number.

        Raises:
            ValueError: It is something else.
        """
        value = self.options.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"option {name} is a number, not {value!r}")
        return float(value)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of device."""

    name: str
    model: str
    fields: Mapping[str, Mapping[str, object] | None]
    """Field to what differs from ``payloads.FIELDS``; the order is that of the readings."""
    make: Callable[[Setting], Reader]
    room: str = "living"
    """The profile of its room when none is named."""
    interval: float = 10.0
    """Seconds between readings when none are named."""
    options: frozenset[str] = field(default_factory=frozenset)
    sleeps: bool = False
    """Whether it runs on a battery and sleeps between readings."""


class Instrument:
    """What a sensor makes of the true value: offset and noise.

        measured = true + offset + drift(t) + white noise

    Args:
        rng: The device's generator.
        tolerance: Standard deviation of the fixed offset, as a data sheet's accuracy over two.
        noise: Standard deviation of noise from one reading to the next.
        wander: Standard deviation of the slow part, which forgets within ``memory`` seconds.
    """

    __slots__ = ("_noise", "_offset", "_rng", "_wander")

    def __init__(self, rng: random.Random, tolerance: float, noise: float, wander: float, memory: float = 300) -> None:
        self._offset = rng.gauss(0, tolerance)
        self._noise = noise
        self._rng = rng
        self._wander = Drifting(rng, wander, memory)

    def measure(self, true: float, t: float) -> float:
        """The reading at ``t`` of ``true``."""
        return true + self._offset + self._wander.at(t) + self._noise * self._rng.gauss(0, 1)


def _climate(setting: Setting) -> Reader:
    """A room sensor; tolerances are those of Sensirion's SCD41 data sheet, halved (±0.8 K, ±6 %, ±(50 ppm + 5 %))."""
    room = setting.world.room(setting.place, setting.room)
    temperature = Instrument(setting.rng, 0.2, 0.015, 0.05)
    humidity = Instrument(setting.rng, 1.5, 0.08, 0.2)
    co2 = Instrument(setting.rng, 15, 2.5, 6, 120)
    rssi = Instrument(setting.rng, 8, 0.8, 1.5, 60)

    def read(t: float) -> Readings:
        inside = room.at(t)
        return {
            "temperature": temperature.measure(inside.temperature, t),
            "humidity": min(100.0, max(0.0, humidity.measure(inside.humidity, t))),
            "co2": max(380.0, co2.measure(inside.co2, t)),
            "rssi": min(-30.0, rssi.measure(-61, t)),
        }

    return read


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "climate",
            "ESP32 + SCD41",
            {"temperature": {"min": -10, "max": 60}, "humidity": None, "co2": {"max": 5000}, "rssi": None},
            _climate,
        ),
    )
}


def setting_generator(seed: int, device_id: str) -> random.Random:
    """The generator that belongs to one device."""
    return generator(seed, "device", device_id)

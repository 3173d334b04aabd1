"""What a kind of device is made of: its setting, its instruments, and how both become readings.

A kind is a factory: it gets a ``Setting`` and gives a function of time to readings. Instruments add what real ones add:
a fixed offset within the data sheet's tolerance, and noise with memory.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sensors_sim import checks
from sensors_sim.model.battery import CELLS, Battery
from sensors_sim.model.noise import SQRT_6, Drifting
from sensors_sim.model.world import World

Readings = dict[str, object]


Reader = Callable[[float], Readings]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a device stands and what was asked of it."""

    id: str
    place: str
    room: str
    world: World
    options: Mapping[str, object]
    rng: random.Random

    def number(self, name: str, default: float, low: float = -1e6, high: float = 1e6) -> float:
        """An option that is a number in a range.

        Raises:
            ValueError: It is something else.
        """
        return checks.number(self.options.get(name, default), f"option {name}", low, high)

    def text(self, name: str, default: str) -> str:
        """An option that is a text.

        Raises:
            ValueError: It is something else.
        """
        return checks.text(self.options.get(name, default), f"option {name}")

    def texts(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """An option that is a list of texts.

        Raises:
            ValueError: It is something else.
        """
        value = self.options.get(name, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"option {name} is a list of texts, not {value!r}")
        return tuple(value)

    def battery(self, cell: str, *, sleep_current: float, wake_charge: float, wake_current: float) -> Battery:
        """The device's battery, somewhere in its life unless option ``charge`` says where."""
        charge = self.number("charge", round(self.rng.uniform(0.35, 1.0), 4))
        if not 0 < charge <= 1:
            raise ValueError(f"option charge is over 0 and at most 1, not {charge:g}")
        return Battery(
            CELLS[cell],
            charge,
            self.world.start,
            sleep_current=sleep_current,
            wake_charge=wake_charge,
            wake_current=wake_current,
        )


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of device."""

    name: str
    model: str
    fields: Mapping[str, Mapping[str, object] | None]
    """Field to what differs from ``payloads.FIELDS``; the order is that of the readings."""
    make: Callable[[Setting], Reader]
    room: str = "living"
    """The profile of its room when none is named; empty: it needs none."""
    interval: float = 10.0
    """Seconds between readings when none are named."""
    options: frozenset[str] = frozenset()
    """Names of its options."""
    sleeps: bool = False
    """Whether it runs on a battery and leaves the broker between readings."""
    dialect: str = ""
    """The only dialect that it speaks; empty: any."""
    fields_from: "Callable[[Setting], Mapping[str, Mapping[str, object] | None]] | None" = None
    """Where its fields come from when they differ from device to device."""

    def fields_of(self, setting: Setting) -> Mapping[str, Mapping[str, object] | None]:
        """The fields of one device of this kind."""
        return self.fields if self.fields_from is None else self.fields_from(setting)


class Instrument:
    """What a sensor makes of the true value: offset and noise.

        measured = true + offset + drift(t) + white noise

    Args:
        rng: The device's generator.
        tolerance: Standard deviation of the fixed offset, as a data sheet's accuracy over two.
        noise: Standard deviation of noise from one reading to the next.
        wander: Standard deviation of the slow part.
        memory: Seconds in which the slow part forgets.
        low: Lowest value that it can show.
        high: Highest value that it can show.
    """

    __slots__ = ("_high", "_low", "_noise", "_offset", "_random", "_wander")

    def __init__(
        self,
        rng: random.Random,
        tolerance: float,
        noise: float,
        wander: float = 0.0,
        memory: float = 300,
        low: float = -1e9,
        high: float = 1e9,
    ) -> None:
        self._offset = rng.gauss(0, tolerance)
        self._noise = noise * SQRT_6  # see white_noise, which is written out below
        self._random = rng.random
        self._wander = Drifting(rng, wander, memory) if wander else None
        self._low = low
        self._high = high

    def measure(self, true: float, t: float) -> float:
        """The reading at ``t`` of ``true``."""
        random = self._random
        value = true + self._offset + self._noise * (random() - random())
        if self._wander is not None:
            value += self._wander.at(t)
        return min(self._high, max(self._low, value))

"""Seeded randomness: the same seed and name give the same values, whoever asks and in whatever order.

Two kinds: functions of time (``Waves``, ``unit_hash``), which several devices may read at any moment, and ``Drifting``,
which remembers its last value and belongs to one owner that reads it in order of time.
"""

import math
import random

_MASK = (1 << 64) - 1


def generator(seed: int, *names: object) -> random.Random:
    """A generator of its own for ``names`` under ``seed``."""
    return random.Random("/".join(str(part) for part in (seed, *names)))  # noqa: S311


def unit_hash(key: int, number: int) -> float:
    """A number in [0, 1) that depends only on ``key`` and ``number``.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    """
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)


SQRT_6 = math.sqrt(6)


def white_noise(rng: random.Random) -> float:
    """A number of mean 0 and variance 1, from -2.45 to 2.45, with a triangular distribution.

    A fifth of the cost of ``gauss``, which at 5,000 readings a second is a twelfth of a core; where a sensor adds up
    several such numbers, nobody can tell.
    """
    return SQRT_6 * (rng.random() - rng.random())


class Waves:
    """Smooth noise of mean 0 and variance 1 as a function of time.

        x(t) = sqrt(2/n) · sum over i of sin(2πt/Pᵢ + φᵢ)

    with n periods Pᵢ spread evenly on a logarithmic scale and random phases φᵢ.

    Source: the spectral representation of a stationary process (Shinozuka and Deodatis 1991).

    Args:
        rng: Where phases come from.
        shortest: Shortest period in seconds.
        longest: Longest period in seconds.
        count: Number of waves.
    """

    __slots__ = ("_amplitude", "_waves")

    def __init__(self, rng: random.Random, shortest: float, longest: float, count: int = 6) -> None:
        ratio = longest / shortest
        self._waves = [
            (
                2 * math.pi / (shortest * ratio ** ((index + rng.uniform(-0.3, 0.3)) / max(1, count - 1))),
                rng.uniform(0, 2 * math.pi),
            )
            for index in range(count)
        ]
        self._amplitude = math.sqrt(2 / count)

    def at(self, t: float) -> float:
        """The value at ``t`` seconds, within about ±3."""
        return self._amplitude * sum([math.sin(frequency * t + phase) for frequency, phase in self._waves])


class Drifting:
    """Noise with memory: AR(1) where readings are evenly spaced, and correct where they are not.

        x(t+Δ) = x(t)·a + σ·sqrt(1−a²)·n,  a = exp(−Δ/τ)

    with ``white_noise`` for n.

    Source: the Ornstein-Uhlenbeck process, sampled exactly (Gillespie, Physical Review E 54, 1996).

    Args:
        rng: The owner's generator.
        sigma: Standard deviation, in the unit of what it disturbs.
        tau: Seconds after which a deviation has shrunk to 37 %.
    """

    __slots__ = ("_random", "_scale", "_sigma", "_step", "_t", "_tau", "_value", "_weight")

    def __init__(self, rng: random.Random, sigma: float, tau: float) -> None:
        self._random = rng.random
        self._sigma = sigma
        self._tau = tau
        self._t = -math.inf
        self._step = math.nan
        self._weight = 0.0
        self._scale = sigma
        self._value = 0.0

    def at(self, t: float) -> float:
        """The value at ``t`` seconds, which is not before the last one asked for."""
        step = t - self._t
        if step != self._step:
            self._step = step
            self._weight = math.exp(-max(0.0, step) / self._tau)
            self._scale = self._sigma * math.sqrt(1 - self._weight * self._weight)
        self._t = t
        random = self._random
        self._value = self._value * self._weight + self._scale * SQRT_6 * (random() - random())
        return self._value

"""Numbers counted in buckets, for what an average would hide.

Invariant: one number costs one bisection and two additions, whatever came before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["DELAYS", "STALLS", "Distribution"]


DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for delays, in seconds: from what nobody notices to what everybody does."""

STALLS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds for what everyone waits because of one, in seconds: nothing may take more than 0.02."""


class Distribution:
    """How many numbers fell into each bucket.

    Attributes:
        bounds: upper ends, included, of all buckets but the last; rising.
        counts: one more than bounds; the last is of what is larger than them all.
        sum: of all numbers.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = DELAYS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Counts a number."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many numbers there were."""
        return sum(self.counts)

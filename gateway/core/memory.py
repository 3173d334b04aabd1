"""What intervals and deadbands hold in memory, counted while they hold it.

Invariant: the budget's `used` is the sum of all shares, whatever becomes of their holders. Who has to let go when it is
passed is the hub's to say.
"""

from __future__ import annotations

__all__ = ["MemoryBudget", "MemoryShare"]


class MemoryBudget:
    """What all shapers of a gateway together hold, and may hold.

    Attributes:
        used: bytes that are held, about. Frames of an interval are counted although history may have them, too: it may
            let go of them before the interval ends.
        limit: above it somebody has to let go.
        is_crowded: somebody has gone above it; whoever sees to that takes it back.
    """

    __slots__ = ("is_crowded", "limit", "used")

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self.limit = limit
        self.used = 0
        self.is_crowded = False


class MemoryShare:
    """One holder's part of a budget, given back when nobody holds it any more.

    Attributes:
        cost: bytes that it holds, about.
    """

    __slots__ = ("_budget", "cost")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.cost = 0

    def __del__(self) -> None:
        self._budget.used -= self.cost

    def charge(self, cost: int) -> None:
        """Takes more bytes, or gives some back where the number is negative."""
        self.cost += cost
        budget = self._budget
        budget.used += cost
        if budget.used > budget.limit:
            budget.is_crowded = True

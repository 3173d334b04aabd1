"""`deadband`: the least change of a number that is news; any change of something else is.

Invariant: what is shown differs from what every subscriber was shown last by at least the deadband in one number at
least, or in a state or text; what holds memory is charged to the share that is given. What becomes of a message that is
no news is the shaper's.
"""

from __future__ import annotations

from gateway.core.fields import Contents, Path
from gateway.core.memory import MemoryShare

__all__ = ["Deadband"]

MAX_TOPICS = 10_000
"""Topics that are remembered; beyond it the longest known ones are forgotten."""

BASELINE_COST = 170
"""Bytes that a deadband takes for a topic, and for each number of it."""

MAX_BASELINE_NUMBERS = 100_000
"""Numbers that the deadband of one group remembers, of all topics; beyond it the longest known topics are forgotten."""


class Deadband:
    """What each topic was shown as last, for the subscribers of one group or for one replay."""

    __slots__ = ("_baseline", "_least", "_numbers", "_share", "_spread", "_suppressed")

    def __init__(self, least: float, share: MemoryShare) -> None:
        """`least`: changes below it are no news."""
        self._least = least
        self._share = share
        # what each topic sent last
        self._baseline: dict[str, Contents] = {}
        self._numbers = 0
        # where subscribers were shown different numbers: the least and the greatest
        self._spread: dict[str, dict[Path, tuple[float, float]]] = {}
        self._suppressed: dict[str, int] = {}

    def is_news(self, topic: str, now: Contents) -> bool:
        """Whether this differs enough from what was sent last; then it counts as sent."""
        least = self._least
        before = self._baseline.get(topic)
        if before is not None and _is_comparable(before, now):
            numbers, earlier = now.numbers, before.numbers
            if all(abs(numbers[path] - earlier[path]) < least for path in numbers):
                spread = self._spread.get(topic) if self._spread else None
                if spread is None or all(
                    numbers[path] - low < least and high - numbers[path] < least for path, (low, high) in spread.items()
                ):
                    return False
        if before is not None:
            self._forget(topic)
        self._remember(topic, now)
        while len(self._baseline) > MAX_TOPICS or (self._numbers > MAX_BASELINE_NUMBERS and len(self._baseline) > 1):
            oldest = next(iter(self._baseline))
            self._forget(oldest)
            self._suppressed.pop(oldest, None)
        return True

    def suppress(self, topic: str, count: int) -> None:
        """Notes that `count` messages were no news."""
        self._suppressed[topic] = self._suppressed.get(topic, 0) + count

    def take_suppressed(self, topic: str) -> int:
        """How many were no news since the last that was; starts over."""
        return self._suppressed.pop(topic, 0) if self._suppressed else 0

    def _remember(self, topic: str, now: Contents) -> None:
        self._baseline[topic] = now
        size = len(now.numbers)
        self._numbers += size
        self._share.charge(BASELINE_COST * (size + 1))

    def _forget(self, topic: str) -> None:
        """Its next message is news again."""
        size = len(self._baseline.pop(topic).numbers)
        self._numbers -= size
        self._share.charge(-BASELINE_COST * (size + 1))
        if self._spread and (spread := self._spread.pop(topic, None)) is not None:
            self._share.charge(-BASELINE_COST * len(spread))

    def forget(self) -> None:
        """Lets go of what was sent last: the next message of every topic is news."""
        for topic in list(self._baseline):
            self._forget(topic)
        self._suppressed.clear()

    def adopt(self, other: Deadband) -> None:
        """Goes on where `other` ended: nobody else is there who was shown anything."""
        self.forget()
        self._baseline, self._suppressed = dict(other._baseline), dict(other._suppressed)
        self._spread = dict(other._spread)
        self._numbers = other._numbers
        spread = sum(map(len, self._spread.values()))
        self._share.charge(BASELINE_COST * (len(self._baseline) + self._numbers + spread))

    def welcome(self, other: Deadband) -> None:
        """Somebody joins who was shown what `other` let through: changes count from there as well."""
        for topic, shown in other._baseline.items():
            before = self._baseline.get(topic)
            if before is None or before == shown:
                continue
            if not _is_comparable(before, shown):
                self._forget(topic)
                continue
            spread = self._spread.get(topic)
            if spread is None:
                spread = {path: (number, number) for path, number in before.numbers.items()}
                self._share.charge(BASELINE_COST * len(spread))
            numbers = shown.numbers
            self._spread[topic] = {
                path: (min(low, numbers[path]), max(high, numbers[path])) for path, (low, high) in spread.items()
            }


def _is_comparable(one: Contents, other: Contents) -> bool:
    """Whether they differ in the size of numbers at most."""
    return one.others == other.others and one.numbers.keys() == other.numbers.keys()

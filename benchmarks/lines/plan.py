"""What happens in a run, and when. Pure.

Invariant: no cut overlaps another event, so that every event has a time of its own to come back from.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum

__all__ = ["Event", "Line", "Plan", "What"]


@dataclass(frozen=True, slots=True)
class Line:
    """What a line does to every packet, in each direction.

    Attributes:
        delay_ms: How long a packet takes.
        jitter_ms: How much it may take less or more, each value as likely; packets may overtake one another.
        loss: The part of packets that never arrive, 0 to 1.
    """

    delay_ms: float = 80.0
    jitter_ms: float = 20.0
    loss: float = 0.02

    def __str__(self) -> str:
        return f"{self.delay_ms:g} ms ± {self.jitter_ms:g} and {100 * self.loss:g} % lost, each way"


class What(Enum):
    """A kind of trouble, by the name that tables have."""

    CUT = "cut"
    MOVE = "new address"
    SERVER = "server restarted"
    BROKER = "broker restarted"


@dataclass(frozen=True, slots=True)
class Event:
    """One trouble; `at` and `seconds` say when it begins, after publishing began, and how long it is meant to last."""

    at: float
    seconds: float
    what: What


@dataclass(frozen=True, slots=True)
class Plan:
    """When lines are cut and servers restarted.

    Attributes:
        seconds: How long there may be trouble.
        every: Seconds from the beginning of one cut to that of the next one.
        cut: Seconds that a cut lasts.
        moves: Whether after every second cut the client has another address, as behind another network.
    """

    seconds: float = 150.0
    every: float = 30.0
    cut: float = 5.0
    moves: bool = True

    def events(self) -> list[Event]:
        """All events in the order of time.

        The first cut comes after half of `every`; servers are restarted midway between the first two cuts, the broker
        midway between later ones where there are three cuts or more.
        """
        starts: list[float] = []
        while (start := self.every * (len(starts) + 0.5)) + self.cut < self.seconds:
            starts.append(start)
        cuts = [
            Event(at, self.cut, What.MOVE if self.moves and number % 2 else What.CUT)
            for number, at in enumerate(starts)
        ]
        quiet = [(one + self.cut + other) / 2 for one, other in itertools.pairwise(starts)]
        restarts = [Event(at, 0.0, What.SERVER) for at in quiet[:1]]
        if len(quiet) > 1:
            restarts.append(Event(quiet[len(quiet) // 2], 0.0, What.BROKER))
        return sorted([*cuts, *restarts], key=lambda event: event.at)

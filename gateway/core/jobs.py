"""Jobs: stretches of history that a subscriber has still to be given, and the answer to what made the first of them.

Invariant: plain values; what is done with them is for `replays`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway.core.beyond import Asked
from gateway.core.selection import Promise, Selection
from gateway.core.shaper import Shaper
from gateway.core.shapes import Shape

__all__ = ["Job", "Kind", "Subscription", "Work"]

Work: TypeAlias = "Generator[Asked[Any] | None, None, None]"
"""Finds something out, in steps; what a step gives, if anything, has to be answered before the next one."""


class Kind(enum.Enum):
    """Why there is a replay."""

    LAST = enum.auto()
    """Last values, when subscribing."""
    RESUME = enum.auto()
    """From a time or position, when subscribing."""
    CATCH_UP = enum.auto()
    """What its group wrote while it was behind."""


class Job:
    """One stretch of history that a subscriber still has to be given."""

    __slots__ = (
        "answer",
        "asked",
        "cursor",
        "expected",
        "floor",
        "gap",
        "id",
        "is_torn",
        "kind",
        "last_only",
        "promise",
        "seen",
        "selection",
        "shape",
        "shaper",
        "until",
        "window_end",
        "work",
    )

    def __init__(
        self,
        kind: Kind,
        selection: Selection,
        shape: Shape,
        cursor: int,
        until: int,
        *,
        expected: int | None = None,
    ) -> None:
        self.kind = kind
        self.selection = selection
        self.shape = shape
        self.cursor = cursor
        self.until = until
        self.expected = expected  # messages that must come out or be told as lost; None: not promised
        self.gap: dict[str, Any] | None = None  # told before anything else
        self.id: int | str | None = None  # of whoever wants to hear of its end
        self.last_only = kind is Kind.LAST
        self.floor = 0  # up to this number it is read beyond memory
        self.is_torn = False  # it was told that nobody knows how much of it is missing
        self.asked: Asked[Any] | None = None  # what `work` waits for
        self.promise: Promise | None = None  # which `work` may find to reach further back
        self.seen = 0
        self.shaper: Shaper | None = None
        self.window_end = 0
        self.work: Work | None = None  # finds out, in steps, what must be known to go on
        self.answer: Subscription | None = None  # which the first such work completes


@dataclass(slots=True)
class Subscription:
    """The answer to `Hub.subscribe`.

    Attributes:
        position: `epoch:seq` up to which the replay goes; what comes later comes live.
        after: every message of these filters with a higher number comes, with this replay, an earlier one or live.
        is_replaying: whether there is a replay; its end is told by a `replayed` event, if an id was given.
        recovered: whether the replay is complete; if not, a `gap` event comes first. None: that is still found out.
    """

    position: str
    after: int
    is_replaying: bool
    recovered: bool | None = None
    _then: Callable[[Subscription], None] | None = None

    def when_known(self, call: Callable[[Subscription], None]) -> None:
        """Calls a function, one at most, with this as soon as `recovered` is known, and before the replay begins."""
        if self.recovered is None:
            self._then = call
        else:
            call(self)

    def know(self, recovered: bool) -> None:
        """Says what was found out."""
        self.recovered = recovered
        if self._then is not None:
            self._then(self)

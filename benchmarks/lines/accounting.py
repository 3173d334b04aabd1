"""What a client heard, counted against what was published. Pure.

Messages have running numbers, so a story of what came in which order says what is missing, came twice or came late.
Whoever was told of a loss was told between two messages: what is missing between those two counts as told.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["CURRENT_SECONDS", "Heard", "Span", "Story", "Tally", "Told", "quantile", "read", "tally"]

CURRENT_SECONDS = 2.0
"""A client is current that has a message not older than this."""


class Span(NamedTuple):
    """When an event began and ended, in seconds since 1970."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A message came: its number, and when, in seconds since 1970."""

    number: int
    at: float


@dataclass(frozen=True, slots=True)
class Told:
    """The client was told that messages will not come.

    Attributes:
        lost: How many; None where that was not said.
        why: What said so.
        at: When, in seconds since 1970.
    """

    lost: int | None
    why: str
    at: float


@dataclass(slots=True)
class Story:
    """What one client heard, in order, and the states that it went through with their times."""

    events: list[Heard | Told] = field(default_factory=list)
    states: list[tuple[float, str]] = field(default_factory=list)

    @property
    def newest(self) -> int:
        """The highest number that came, -1 before the first."""
        return max((event.number for event in self.events if isinstance(event, Heard)), default=-1)


def read(lines: Iterable[str]) -> Story:
    """Return the story that a client wrote: a JSON list a line, `[ms, "message" | "gap" | "state", …]`.

    A last line that is not whole is left out: the client was ended as it wrote.
    """
    story = Story()
    for line in lines:
        if not line.endswith("\n"):
            break
        ms, kind, *rest = json.loads(line)
        at = ms / 1000
        if kind == "message":
            story.events.append(Heard(int(rest[0]), at))
        elif kind == "gap":
            story.events.append(Told(rest[0], rest[1], at))
        else:
            story.states.append((at, rest[0]))
    return story


@dataclass(slots=True)
class Tally:
    """The account of one client or, added up, of several.

    Attributes:
        published: Messages that were published while it was subscribed.
        delivered: Those of them that came, each counted once.
        outstanding: Those after the newest one that came, of whose loss nothing was said: they may still come.
        told: Missing ones that the client was told of.
        untold: Missing ones of which nothing was said.
        told_number: The sum of the losses that were told with their number.
        unknown: How often a loss was told without its number.
        counted_wrong: By how much told numbers differ from what is missing where each loss was told with its number.
        duplicates: Deliveries beyond the first of each message.
        out_of_order: First deliveries after that of a message with a higher number.
        delays: Seconds from publishing to the first delivery.
        back: For each kind of event the seconds from its end until a message that was published later came; None
            where none came. Without events that met a client which had not come back from the one before.
        line_bytes: Bytes that went over its line, both ways, with the headers of IP and TCP.
    """

    published: int = 0
    delivered: int = 0
    outstanding: int = 0
    told: int = 0
    untold: int = 0
    told_number: int = 0
    unknown: int = 0
    counted_wrong: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    delays: list[float] = field(default_factory=list)
    back: dict[str, list[float | None]] = field(default_factory=dict)
    line_bytes: int = 0

    @property
    def missing(self) -> int:
        """Messages that did not come, and will not."""
        return self.told + self.untold

    def add(self, other: Tally) -> None:
        """Take in the account of one more client."""
        for name in (
            *("published", "delivered", "outstanding", "told", "untold", "told_number", "unknown", "counted_wrong"),
            *("duplicates", "out_of_order", "line_bytes"),
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.delays += other.delays
        for what, times in other.back.items():
            self.back.setdefault(what, []).extend(times)


def tally(
    story: Story, published: Sequence[float], events: Mapping[str, Sequence[Span]], *, line_bytes: int = 0
) -> Tally:
    """Return the account of a client.

    Args:
        story: what it heard.
        published: for each number when it was published, in seconds since 1970; rising.
        events: for each kind of event when each of them began and ended.
        line_bytes: bytes on its line.

    Raises:
        ValueError: it heard a number that was never published.
    """
    result = Tally(published=len(published), line_bytes=line_bytes)
    first: dict[int, float] = {}
    highest = -1
    stretches: list[_Stretch] = []  # of what was told, by the messages before and after
    is_open = False
    for event in story.events:
        if isinstance(event, Told):
            if not is_open:
                stretches.append(_Stretch(after=highest, before=len(published)))
                is_open = True
            stretches[-1].hear(event)
            continue
        number = event.number
        if not 0 <= number < len(published):
            raise ValueError(f"number {number} came, of {len(published)} that were published")
        if number in first:
            result.duplicates += 1
            continue
        first[number] = event.at
        result.delays.append(event.at - published[number])
        if number < highest:
            result.out_of_order += 1
            continue
        highest = number
        if is_open:
            stretches[-1].before = number
            is_open = False
    result.delivered = len(first)
    for stretch in stretches:
        gone = sum(number not in first for number in range(stretch.after + 1, stretch.before))
        result.told += gone
        result.told_number += stretch.lost
        result.unknown += stretch.unknown
        if not stretch.unknown:
            result.counted_wrong += abs(stretch.lost - gone)
    if not is_open:
        result.outstanding = len(published) - 1 - highest
    result.untold = len(published) - result.delivered - result.outstanding - result.told
    for what, spans in events.items():
        result.back[what] = [
            _back(first, bisect_left(published, ended), ended)
            for began, ended in spans
            if _is_current(first, published, began)
        ]
    return result


def _back(first: Mapping[int, float], later: int, end: float) -> float | None:
    """Return how long after `end` the first message came of those from number `later` on."""
    at = min((at for number, at in first.items() if number >= later), default=None)
    return None if at is None else at - end


def _is_current(first: Mapping[int, float], published: Sequence[float], now: float) -> bool:
    """Return whether a message that was published shortly before `now` had come, or none was published then."""
    recent = range(bisect_left(published, now - CURRENT_SECONDS), bisect_left(published, now))
    return not recent or any(first.get(number, math.inf) <= now for number in recent)


@dataclass(slots=True)
class _Stretch:
    """Where in the order of numbers a loss was told: between two messages."""

    after: int
    before: int
    lost: int = 0
    unknown: int = 0

    def hear(self, told: Told) -> None:
        if told.lost is None:
            self.unknown += 1
        else:
            self.lost += told.lost


def quantile(values: Sequence[float], part: float) -> float | None:
    """Return the value that `part` of all reach at most (nearest rank), None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]

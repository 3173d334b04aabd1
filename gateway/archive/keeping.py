"""How long what came to which topics is kept, and what is no longer there because of that.

Of a topic the first rule counts whose filters match it; without one everything stays until the bound of the file takes
it. What was taken is remembered as *thinned*: by rule and level, up to where. Whoever asks for more is told that some
of it may be missing, even where nothing was: which messages there were nobody remembers.

Invariant: pure values; who takes what is due is `thinning`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gateway.core.filters import FilterSet
from gateway.core.topics import covers

__all__ = ["LEVEL_NAMES", "RAW", "Extent", "Keep", "Rules", "Thinned", "is_thinned", "rules_from", "rules_text"]

RAW = "raw"
"""The level of messages."""

LEVEL_NAMES = (RAW, "minute", "hour")
"""What a rule speaks of: messages, and the levels of roll-ups."""

MAX_PAIRS = 1_000
"""Pairs of filters that are looked at one by one, some 500 µs; more are taken to meet."""


@dataclass(frozen=True, slots=True)
class Keep:
    """A rule.

    Attributes:
        topics: its topic filters.
        raw, minute, hour: how long messages and their roll-ups are kept, milliseconds; None: until there is no room.
    """

    topics: tuple[str, ...]
    raw: int | None = None
    minute: int | None = None
    hour: int | None = None

    def of(self, level: str) -> int | None:
        """How long it keeps what is of a level of `LEVEL_NAMES`."""
        found: int | None = getattr(self, level)
        return found


@dataclass(frozen=True)
class Thinned:
    """What a rule has taken.

    Attributes:
        topics: the filters of the rule.
        others: those of the rules before it, whose topics are not its own.
        level: one of `LEVEL_NAMES`.
        until: of messages the number up to which they may be gone; of roll-ups the time before which they may be,
            milliseconds since 1970.
    """

    topics: tuple[str, ...]
    others: tuple[str, ...]
    level: str
    until: int

    @cached_property
    def _topics(self) -> FilterSet:
        return FilterSet(self.topics)

    @cached_property
    def _others(self) -> FilterSet:
        return FilterSet(self.others)

    def may_meet(self, filters: FilterSet) -> bool:
        """Whether a topic that the filters match may be one of which something was taken."""
        if len(filters) * (len(self.topics) + len(self.others)) > MAX_PAIRS:
            return True
        return any(self._may_meet(text) for text in filters.filters)

    def _may_meet(self, text: str) -> bool:
        is_other = any(covers(other, text) for other in self.others)
        return not is_other and self._topics.may_meet(FilterSet([text]))


@dataclass(frozen=True, slots=True)
class Extent:
    """What a file has, and what it has no longer.

    Attributes:
        first_seq: number of the oldest message; 0 without any.
        thinned: what rules have taken.
        since: for each level of roll-ups the time from which on they are there, rules apart, milliseconds since 1970.
    """

    first_seq: int = 0
    thinned: tuple[Thinned, ...] = ()
    since: Mapping[str, int] = field(default_factory=dict)

    def begins(self, level: str, filters: FilterSet) -> int:
        """The time from which on the roll-ups of a level are there of what the filters match."""
        taken = (each.until for each in self.thinned if each.level == level and each.may_meet(filters))
        return max(self.since.get(level, 0), *taken, 0)

    def is_thinned(self, filters: FilterSet, after: int) -> bool:
        """Whether messages that the filters match, with numbers above `after`, may have been taken by rules."""
        return is_thinned(self.thinned, filters, after)


def is_thinned(thinned: Iterable[Thinned], filters: FilterSet, after: int) -> bool:
    """Whether messages that the filters match, with numbers above `after`, may have been taken by rules."""
    return any(each.level == RAW and each.until > after and each.may_meet(filters) for each in thinned)


def rules_text(rules: Rules) -> str:
    """The rules as JSON, for who reads the file without its settings."""
    return json.dumps([[keep.topics, keep.raw, keep.minute, keep.hour] for keep in rules.keeps])


def rules_from(text: str) -> Rules:
    """The rules again."""
    return Rules([Keep(tuple(topics), *ages) for topics, *ages in json.loads(text)])


class Rules:
    """Rules in their order.

    Attributes:
        keeps: the rules.
    """

    def __init__(self, keeps: Sequence[Keep] = ()) -> None:
        self.keeps = tuple(keeps)
        self._filters = [FilterSet(keep.topics) for keep in keeps]

    def place_of(self, topic: str) -> int | None:
        """Which rule counts for a topic; None: none."""
        return next((place for place, filters in enumerate(self._filters) if filters.matches(topic)), None)

    def others(self, place: int) -> tuple[str, ...]:
        """The filters of the rules before one."""
        return tuple(text for keep in self.keeps[:place] for text in keep.topics)

    def thinned(self, place: int, level: str, until: int) -> Thinned:
        """That a rule has taken what it may."""
        return Thinned(self.keeps[place].topics, self.others(place), level, until)

    def of(self, level: str) -> Iterator[tuple[int, int]]:
        """The rules that end the life of what is of a level: which, and after how many milliseconds."""
        for place, keep in enumerate(self.keeps):
            if (age := keep.of(level)) is not None:
                yield place, age

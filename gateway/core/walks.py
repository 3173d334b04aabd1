"""Long walks over the log, in steps: generators that yield where others may have a turn.

Invariant: a step takes some hundred microseconds, and what is walked over may change between two of them. Who gives the
turns is for the caller.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, TypeAlias

from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.selection import AT_ONCE

__all__ = ["describe_topics", "first_names", "reaches", "readable_names", "topic_names"]

Names: TypeAlias = "Generator[None, None, Iterator[str | None]]"
"""Finds out, in steps, which names there are; None is none."""


def topic_names(history: History, filters: FilterSet) -> Names:
    """The names of the topics that the filters match, as of its last step."""
    states = yield from history.match(filters)
    return (state.name for state in states)


def first_names(search: Names, after: str, count: int) -> Generator[None, None, tuple[list[str], int]]:
    """The first `count` of these names behind `after`, sorted, and how many names there are in all."""
    names = yield from search
    total = 0
    first: list[str] = []
    more: list[str] = []
    for number, name in enumerate(names, start=1):
        if name is not None:
            total += 1
            if name > after and (len(first) < count or name < first[-1]):
                more.append(name)
        if number % AT_ONCE == 0:
            if len(more) > 5 * AT_ONCE:
                first = sorted(first + more)[:count]
                more = []
            yield
    return sorted(first + more)[:count], total


def reaches(history: History, filters: FilterSet, time: int) -> Generator[None, None, bool]:
    """Whether no matching message that arrived at or after `time` (milliseconds since 1970) has been evicted."""
    if history.evicted_time >= time:
        states = yield from history.match(filters)
        for number, state in enumerate(states, start=1):
            if state.evicted_time >= time:
                return False
            if number % AT_ONCE == 0:
                yield
    return history.dropped_time < time


def readable_names(history: History, wanted: FilterSet | None, allowed: FilterSet, prefix: str) -> Names:
    """The names of the topics that are wanted and allowed; None for each that isn't.

    Who may read little is shown from that little, however much is asked for.
    """
    if not allowed:
        return iter(())
    reads_all = "#" in allowed
    source = wanted if reads_all else allowed
    states = list(history.topics()) if source is None else (yield from history.match(source))

    def names() -> Iterator[str | None]:
        for state in states:
            name = state.name
            is_allowed = (reads_all and name[0] != "$") or allowed.matches(name)
            is_wanted = name.startswith(prefix) and (wanted is None or wanted.matches(name))
            yield name if is_allowed and is_wanted else None

    return names()


def describe_topics(
    history: History, names: list[str], now: int, until: int | None = None
) -> Generator[None, None, list[dict[str, Any]]]:
    """What the list of topics tells of each of these.

    Args:
        history: the log.
        names: which topics.
        now: milliseconds since 1970.
        until: the number up to which messages are counted; None counts all.
    """
    listed: list[dict[str, Any]] = []
    for number, name in enumerate(names, start=1):
        topic = history.topic(name)
        if topic is not None and (last := topic.last) is not None:
            # once it is silent, its silence is all that is known of its rate
            rate = min(topic.rate(), 1000 / max(now - last.time, 1))
            listed.append(
                {
                    "topic": name,
                    "count": topic.count if until is None else topic.count_as_of(until),
                    "kept": len(topic),
                    "rate": float(f"{rate:.4g}"),
                    "time": last.time,
                    "retained": topic.kept is not None,
                    "bytes": len(last.token),
                }
            )
            if topic.is_cleared:
                listed[-1]["cleared"] = True
        if number % AT_ONCE == 0:
            yield
    return listed

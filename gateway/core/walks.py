"""Long walks over the log, in steps: generators that yield where others may have a turn.

Invariant: a step takes some hundred microseconds, and what is walked over may change between two of them. Who gives the
turns is for the caller.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

from gateway.core.filters import FilterSet
from gateway.core.history import History

__all__ = ["account", "describe_topics", "first_names", "reaches", "readable_names", "topic_names"]


AT_ONCE = 200
"""Topics that are looked at before the loop may get a turn."""

SHORT_STRETCH = 2_000
"""Numbers of the log up to which walking them is quicker than walking the topics."""


def topic_names(history: History, filters: FilterSet) -> Iterator[str]:
    """The names of the topics that the filters match, as of its first turn."""
    for state in list(history.topics(filters)):
        yield state.name


def first_names(names: Iterable[str | None], after: str, count: int) -> Generator[None, None, tuple[list[str], int]]:
    """The first `count` of these names behind `after`, sorted, and how many names there are in all; None is none."""
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


def _parts(history: History, filters: FilterSet) -> Iterator[FilterSet]:
    """The same topics in parts that are each soon looked through."""
    if filters.is_exact:
        yield filters
        return
    states = list(history.topics(filters))
    for at in range(0, max(len(states), 1), AT_ONCE):
        yield FilterSet(state.name for state in states[at : at + AT_ONCE])


def reaches(history: History, filters: FilterSet, time: int) -> Generator[None, None, bool]:
    """`History.reaches`."""
    for part in _parts(history, filters):
        if not history.reaches(part, time):
            return False
        yield
    return True


def account(
    history: History, filters: FilterSet, after: int, until: int
) -> Generator[None, None, tuple[int, int | None]]:
    """How many matching messages with `after` < seq <= `until` are kept, and how many evicted (None: unknown).

    For each topic the sum of both stays the same whatever is evicted meanwhile, so the answer may take its time.
    """
    if after >= until:
        return 0, 0
    if after >= history.evicted_seq and until - after <= SHORT_STRETCH:
        return history.count(filters, after, until), 0
    kept = 0
    lost: int | None = 0
    for part in _parts(history, filters):
        kept += history.count(part, after, until)
        if lost is not None:
            found = history.lost(part, after, until)
            lost = None if found is None else lost + found
        yield
    return kept, lost


def readable_names(history: History, wanted: FilterSet | None, allowed: FilterSet, prefix: str) -> Iterator[str | None]:
    """The names of the topics that are wanted and allowed; None for each that isn't.

    Who may read little is shown from that little, however much is asked for.
    """
    if not allowed:
        return
    reads_all = "#" in allowed
    for state in list(history.topics(wanted if reads_all else allowed)):
        name = state.name
        is_allowed = (reads_all and name[0] != "$") or allowed.matches(name)
        is_wanted = name.startswith(prefix) and (wanted is None or wanted.matches(name))
        yield name if is_allowed and is_wanted else None


def describe_topics(history: History, names: list[str], now: int) -> Generator[None, None, list[dict[str, Any]]]:
    """What the list of topics tells of each of these; `now` in milliseconds since 1970."""
    listed: list[dict[str, Any]] = []
    for number, name in enumerate(names, start=1):
        topic = history.topic(name)
        if topic is not None and (last := topic.last) is not None:
            # once it is silent, its silence is all that is known of its rate
            rate = min(topic.rate(), 1000 / max(now - last.time, 1))
            listed.append(
                {
                    "topic": name,
                    "count": topic.count,
                    "kept": len(topic),
                    "rate": float(f"{rate:.4g}"),
                    "time": last.time,
                    "retained": last.retained,
                    "bytes": len(last.token),
                }
            )
        if number % AT_ONCE == 0:
            yield
    return listed

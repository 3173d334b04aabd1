"""Which messages of the log a replay gives: what its filters match, less what an earlier promise covers.

An example, with the log at 100. Subscribing `a/#` since 50 promises `a/#` above 50; its replay reads 51 to 100.
Subscribing `+/x` since 20 promises `+/x` above 20; its replay reads 21 to 100, but of `a/x` only 21 to 50. If `a/#` is
taken away before its replay ran, that replay goes on with `a/x` alone: `+/x` was promised it, and relies on it.

Invariant: a message that two of a subscriber's filters match comes once, with the first replay that promised it; and it
comes as long as one of these filters is there. How fast a replay is read is for `replays`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.messages import Message
from gateway.core.topic import Topic
from gateway.core.tries import FilterTrie

__all__ = ["AT_ONCE", "Promise", "Selection", "overlapping", "without"]

AT_ONCE = 200
"""Topics that are looked at before the loop may get a turn."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What some filters of a subscriber were promised when they were added.

    Attributes:
        filters: these filters.
        after: every message with a higher number is promised, from history or live.
        last_as_of: each topic's newest message as of this number is promised as well; 0: none is.
    """

    filters: FilterSet
    after: int
    last_as_of: int = 0


def without(promises: Iterable[Promise], gone: Iterable[str]) -> tuple[Promise, ...]:
    """The promises that are left when some filters are taken away."""
    gone = frozenset(gone)
    left = (replace(promise, filters=promise.filters - gone) for promise in promises)
    return tuple(promise for promise in left if promise.filters)


def overlapping(promises: Iterable[Promise], filters: FilterSet) -> tuple[Promise, ...]:
    """The promises that may match a topic that `filters` match."""
    return tuple(promise for promise in promises if promise.filters.may_meet(filters))


def _last_seq(state: Topic | None, until: int) -> int:
    """The number of a topic's newest message as of `until`, evicted or not; 0 when nobody knows."""
    if state is None:
        return 0
    message = state.last_as_of(until)
    if message is not None:
        return message.seq
    index = bisect_right(state.evicted, until)
    return state.evicted[index - 1] if index else 0


class _Part:
    """What is selected of one topic: `low` < seq <= `high` less `removed`, and the single numbers `added`."""

    __slots__ = ("added", "high", "low", "removed")

    def __init__(self, low: int, high: int, removed: set[int], added: set[int]) -> None:
        self.low = low
        self.high = high
        self.removed = {seq for seq in removed if low < seq <= high}
        self.added = {seq for seq in added if seq <= min(low, high) and seq not in removed}

    def __contains__(self, seq: int) -> bool:
        return (self.low < seq <= self.high and seq not in self.removed) or seq in self.added


@dataclass(frozen=True, slots=True)
class Selection:
    """The messages of one replay; equal selections select the same.

    Attributes:
        filters: what is matched.
        exclude: promises made before: their messages come with an earlier replay, or have come.
        only: after filters were taken away, the promises that still rely on this replay; None: all of it.
    """

    filters: FilterSet
    exclude: tuple[Promise, ...] = ()
    only: tuple[Promise, ...] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it selects whatever the filters match."""
        return not self.exclude and self.only is None

    def narrowed(self, gone: Iterable[str], promises: Iterable[Promise], cursor: int, until: int) -> Selection | None:
        """What is left of it when filters are taken away.

        Args:
            gone: the filters that are taken away.
            promises: the subscriber's promises without them.
            cursor: number up to which the replay was given already.
            until: number at which the replay ends.

        Returns:
            The selection; None when no promise needs anything of it.
        """
        if self.only is not None:
            only = without(self.only, gone)
            return replace(self, only=only) if only else None
        own = self.filters - gone
        if len(own) == len(self.filters):
            return self
        wanting = tuple(c for c in overlapping(promises, self.filters) if c.after < until or c.last_as_of > cursor)
        if any(f not in own for promise in wanting for f in promise.filters.filters):
            return replace(self, only=wanting)
        return replace(self, filters=own) if own else None

    def _part(self, state: Topic | None, until: int, exclude: Iterable[Promise], only: Iterable[Promise]) -> _Part:
        """What is selected of a topic; `exclude` and `only` are those of the promises that match it."""
        high = until
        removed: set[int] = set()
        added: set[int] = set()
        for promise in exclude:
            high = min(high, promise.after)
            if promise.last_as_of:
                removed.add(_last_seq(state, promise.last_as_of))
        low = 0 if self.only is None else until
        for promise in only:
            low = min(low, promise.after)
            if promise.last_as_of:
                added.add(_last_seq(state, promise.last_as_of))
        return _Part(low, high, removed, added)

    def read(
        self, history: History, after: int, until: int, *, last_only: bool, max_bytes: int
    ) -> tuple[int, list[Message]]:
        """The next part, as `History.read` gives it: where it ends, and its messages."""
        chunk = history.read(self.filters, after, until, last_only=last_only, max_bytes=max_bytes)
        return chunk.cursor, self.pick(history, chunk.messages, until)

    def pick(self, history: History, found: list[Message], until: int) -> list[Message]:
        """Which of the messages that the filters match are selected, where the replay ends at `until`."""
        if self.is_plain:
            return found
        exclude, only = _by_topic(self.exclude), _by_topic(self.only or ())
        parts: dict[str, _Part] = {}
        messages: list[Message] = []
        for message in found:
            topic = message.topic
            part = parts.get(topic)
            if part is None:
                # None where memory has forgotten the topic
                state = history.topic(topic)
                part = parts[topic] = self._part(state, until, exclude.match(topic), only.match(topic))
            if message.seq in part:
                messages.append(message)
        return messages

    def tally(
        self, history: History, after: int, until: int, *, last_only: bool = False
    ) -> Generator[None, None, tuple[int, int | None]]:
        """How many of its messages with `after` < seq <= `until` are kept, and how many evicted (None: unknown).

        A step takes some hundred microseconds. For each topic the sum of both stays the same whatever is evicted
        meanwhile, so the answer may take its time.

        Args:
            history: the log.
            after: the number that was read last.
            until: the number to stop at.
            last_only: only what was each topic's newest message as of `until` counts as kept.
        """
        if after >= until:
            return 0, 0
        if self.is_plain:
            at_once = history.count_at_once(self.filters, after, until, last_only=last_only)
            if at_once is not None:
                return at_once, 0
        exclude, only = _by_topic(self.exclude), _by_topic(self.only or ())
        everything = _Part(after, until, set(), set())
        kept = 0
        lost: int | None = 0
        states = yield from history.match(self.filters)
        for number, state in enumerate(states, start=1):
            part = None
            if not self.is_plain and ((excluding := exclude.match(state.name)) or self.only is not None):
                part = self._part(state, until, excluding, only.match(state.name))
            if last_only:
                last = state.last_as_of(until)
                kept += last is not None and last.seq > after and (part is None or last.seq in part)
            elif part is None:
                kept += state.count_between(after, until)
            else:
                kept += _kept(state, part, after)
            if lost is not None and (state.evicted or state.forgotten_seq):
                found = _lost(state, part or everything, after)
                lost = None if found is None else lost + found
            if number % AT_ONCE == 0:
                yield
        return kept, None if after < history.dropped_seq else lost


@lru_cache(maxsize=64)
def _by_topic(promises: tuple[Promise, ...]) -> FilterTrie[Promise]:
    """Finds the promises that match a topic, at a cost that hardly depends on how many there are."""
    trie: FilterTrie[Promise] = FilterTrie(cache_size=1)
    for promise in promises:
        for topic_filter in promise.filters.filters:
            trie.add(topic_filter, promise)
    return trie


def _kept(state: Topic, part: _Part, after: int) -> int:
    """How many of the messages selected of a topic, beyond `after`, are in the log."""
    low = max(part.low, after)
    found = 0
    if low < part.high:
        found = state.count_between(low, part.high)
        found -= sum(state.count_between(seq - 1, seq) for seq in part.removed if seq > low)
    return found + sum(state.count_between(seq - 1, seq) for seq in part.added if seq > after)


def _lost(state: Topic, part: _Part, after: int) -> int | None:
    """How many of them are evicted; None: some, uncountable."""
    evicted = state.evicted
    low = max(part.low, after)
    found = 0
    if low < part.high:
        if low < state.forgotten_seq:
            return None
        if evicted and evicted[-1] > low:
            start = bisect_right(evicted, low)
            found = bisect_right(evicted, part.high, start) - start
            found -= sum(_holds(evicted, seq) for seq in part.removed if seq > low)
    return found + sum(_holds(evicted, seq) for seq in part.added if seq > after)


def _holds(numbers: Sequence[int], seq: int) -> bool:
    """Whether a sorted sequence has the number."""
    index = bisect_right(numbers, seq)
    return index > 0 and numbers[index - 1] == seq

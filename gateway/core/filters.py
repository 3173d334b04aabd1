"""Many topic filters as one test.

Invariant: a test costs about one step for each level of a topic, however many the filters are, and equal sets are equal
whatever their order. What a single filter means is in `topics`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from gateway.core.topics import has_wildcard, overlap

__all__ = ["NO_FILTERS", "FilterSet", "FilterUnion"]


class FilterSet:
    """A subscriber's topic filters as one test; equal sets are equal, whatever the order."""

    __slots__ = ("_exact", "_key", "_union", "filters", "is_exact")

    def __init__(self, filters: Iterable[str]) -> None:
        self.filters = tuple(dict.fromkeys(filters))
        self._key = frozenset(self.filters)
        exact = [f for f in self.filters if not has_wildcard(f)]
        self._union: FilterUnion | None = None
        self.is_exact = len(exact) == len(self.filters)
        self._exact = self._key if self.is_exact else frozenset(exact)  # with a topic for each browser 216 bytes each

    def matches(self, topic: str) -> bool:
        """Whether at least one of the filters matches."""
        if topic in self._exact:
            return True
        return not self.is_exact and self.union.matches(topic)

    def may_meet(self, other: FilterSet) -> bool:
        """Whether a topic may exist that both match; surely not, where it is False."""
        if self.is_exact:
            return any(other.matches(topic) for topic in self.filters)
        if other.is_exact:
            return any(self.matches(topic) for topic in other.filters)
        if len(self) * len(other) > MAX_PAIRS:
            return True
        return any(overlap(one, two) for one in self.filters for two in other.filters)

    @property
    def union(self) -> FilterUnion:
        """The filters as one test; made when first asked for, since most are only looked up."""
        if self._union is None:
            self._union = FilterUnion(self.filters)
        return self._union

    def __contains__(self, topic_filter: object) -> bool:
        return topic_filter in self._key

    def __or__(self, filters: Iterable[str]) -> FilterSet:
        return FilterSet((*self.filters, *filters))

    def __sub__(self, filters: Iterable[str]) -> FilterSet:
        gone = set(filters)
        return FilterSet(f for f in self.filters if f not in gone)

    def __len__(self) -> int:
        return len(self.filters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FilterSet) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"FilterSet({list(self.filters)!r})"


NO_FILTERS = FilterSet(())
"""What a subscriber has before it asks for something."""


_Levels: TypeAlias = "dict[str, _Levels]"
"""Filters as a tree of their levels, wildcards included; `_END` marks where one ends."""

_END = "/"  # what no level can be
_SPECIAL = frozenset({"+", "#", _END})

MAX_PAIRS = 1_000
"""Pairs of filters that are looked at one by one, some 500 µs; more are taken to meet."""

MAX_STATES = 4_096
"""How many states a union of filters remembers: far more than any that isn't made to have many."""


class _State:
    """Where a union of filters is after the first levels of a topic.

    Attributes:
        nodes: where in the tree of filters, at once: `a` and `+` both go on after a level `a`.
        takes_all: everything that begins like this matches.
        ends: a topic that ends here matches.
        named: the state after each level that some filter names; empty until it is opened.
        otherwise: the state after any other level, None if no filter goes on.
    """

    __slots__ = ("ends", "is_open", "named", "nodes", "otherwise", "takes_all")

    def __init__(self, nodes: list[_Levels]) -> None:
        self.nodes = nodes
        self.takes_all = self.ends = False
        for node in nodes:
            if "#" in node:
                self.takes_all = self.ends = True  # 'sport/#' matches 'sport'
            elif _END in node:
                self.ends = True
        self.named: dict[str, _State] = {}
        self.otherwise: _State | None = None
        self.is_open = False

    def open(self) -> None:
        self.is_open = True
        anything = [node["+"] for node in self.nodes if "+" in node]
        named: dict[str, list[_Levels]] = {}
        for node in self.nodes:
            for level, following in node.items():
                if level not in _SPECIAL:
                    named.setdefault(level, []).append(following)
        self.named = {level: _State(nodes + anything) for level, nodes in named.items()}
        self.otherwise = _State(anything) if anything else None


class FilterUnion:
    """Topic filters as one test, whose cost hardly depends on how many they are.

    A state for each beginning of a topic says which filters are still possible (an automaton made by the subset
    construction, and only as far as topics have led). `TopicTree.find` goes through a tree of topics by these states.
    """

    __slots__ = ("_opened", "_start", "_system")

    def __init__(self, filters: Iterable[str]) -> None:
        """`filters`: valid topic filters, any number."""
        levels: _Levels = {}
        for topic_filter in filters:
            node = levels
            for level in topic_filter.split("/"):
                node = node.setdefault(level, {})
            node[_END] = {}
        self._start = _State([levels])
        self._system = _State([{name: node for name, node in levels.items() if name not in ("+", "#")}])
        self._opened = 0

    def matches(self, topic: str) -> bool:
        """Whether at least one of the filters matches a valid topic."""
        state: _State | None = self._start if topic[0] != "$" else self._system  # MQTT-4.7.2-1
        for level in topic.split("/"):
            if state is None or state.takes_all:
                break
            if not state.is_open:
                state = self._open(state)
            state = state.named.get(level, state.otherwise)
        return state is not None and state.ends

    def start(self, *, system: bool) -> _State:
        """The state before the first level, of a topic that begins with `$` or of another."""
        return self._system if system else self._start

    def _open(self, state: _State) -> _State:
        """The state, or a copy for one use, that knows what follows."""
        if self._opened >= MAX_STATES:
            state = _State(state.nodes)
        self._opened += 1
        state.open()
        return state

"""Topics and filters as trees of levels: which filters match a topic, and which topics a set of filters.

Invariant: matching costs one step for each level and branch, however much is stored; each value is found once. Filters
and names that are stored are valid: that is the caller's to see to.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

import msgspec

from gateway.core.filters import FilterUnion

__all__ = ["FilterTrie", "TopicTree"]


V = TypeVar("V")

MAX_CACHE_BYTES = 32 * 2**20
"""About what the cache of a filter trie may take: names have up to 64 KiB, and a name may have any number of values."""

CACHED_COST = 200
"""Bytes that a cached topic takes besides its name and its values."""


# no cycle leads through them, and a command may make thousands: the collector would look at each several times
class _Node(msgspec.Struct, Generic[V], gc=False, eq=False):
    # most have one of the two: an empty dictionary costs more than the node
    children: dict[str, _Node[V]] | None = None
    values: dict[V, None] | None = None


class FilterTrie(Generic[V]):
    """Which values are subscribed to a topic: filters in a tree of levels, with a bounded cache of whole topics.

    Matching costs one step for each level and branch, whatever the number of filters; a cached topic costs one look-up.
    A value may be added under several filters and is still found once.
    """

    __slots__ = ("_cache", "_cache_bytes", "_cache_size", "_root")

    def __init__(self, cache_size: int = 65_536) -> None:
        """`cache_size`: how many topics are remembered; when full, the cache starts over."""
        self._root: _Node[V] = _Node()
        self._cache: dict[str, tuple[V, ...]] = {}
        self._cache_bytes = 0
        self._cache_size = cache_size

    def add(self, topic_filter: str, value: V) -> None:
        """Adds a value under a valid filter; adding it twice is adding it once."""
        node = self._root
        for level in topic_filter.split("/"):
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        if node.values is None:
            node.values = {}
        node.values[value] = None
        self._forget_cached()

    def remove(self, topic_filter: str, value: V) -> None:
        """Takes the value away from this filter; what isn't there is no error. Empty branches go with it."""
        node = self._root
        path: list[tuple[dict[str, _Node[V]], str]] = []
        for level in topic_filter.split("/"):
            child = None if node.children is None else node.children.get(level)
            if node.children is None or child is None:
                return
            path.append((node.children, level))
            node = child
        if node.values is not None:
            node.values.pop(value, None)
        for children, level in reversed(path):
            if children[level].values or children[level].children:
                break
            del children[level]
        self._forget_cached()

    def match(self, topic: str) -> tuple[V, ...]:
        """The values whose filters match this valid topic, each once."""
        found = self._cache.get(topic)
        if found is None:
            found = self._match(topic)
            if len(self._cache) >= self._cache_size or self._cache_bytes > MAX_CACHE_BYTES:
                self._forget_cached()
            self._cache[topic] = found
            self._cache_bytes += CACHED_COST + len(topic) + 8 * len(found)
        return found

    def _forget_cached(self) -> None:
        self._cache.clear()
        self._cache_bytes = 0

    def _match(self, topic: str) -> tuple[V, ...]:
        found: dict[V, None] = {}
        nodes = [self._root]
        wildcards = topic[0] != "$"  # MQTT-4.7.2-1, for the first level only
        for level in topic.split("/"):
            following: list[_Node[V]] = []
            for node in nodes:
                children = node.children
                if children is None:
                    continue
                if (child := children.get(level)) is not None:
                    following.append(child)
                if wildcards:
                    if (child := children.get("+")) is not None:
                        following.append(child)
                    if (child := children.get("#")) is not None and child.values is not None:
                        found.update(child.values)
            if not following:
                return tuple(found)
            nodes = following
            wildcards = True
        for node in nodes:
            if node.values is not None:
                found.update(node.values)
            children = node.children
            if children is not None and (child := children.get("#")) is not None and child.values is not None:
                found.update(child.values)  # 'sport/#' matches 'sport'
        return tuple(found)


VISITED_AT_ONCE = 512
"""Topics of a tree that go on to the next level together."""

FEW_NAMES = 8
"""The most names of a next level that are looked up one after the other; more are looked up together."""


# a hundred thousand of them are nothing that the collector should look at
class _Leaf(msgspec.Struct, Generic[V], gc=False, eq=False):
    # most nodes are leaves: an empty dictionary in each would cost more than the node
    children: dict[str, _Leaf[V]] | None = None
    value: V | None = None


class TopicTree(Generic[V]):
    """One value for each topic name, found by filters: the reverse of `FilterTrie`.

    Attributes:
        size: how many nodes it has: one for each different beginning of a topic.
    """

    __slots__ = ("_root", "_system", "size")

    def __init__(self) -> None:
        self._root: _Leaf[V] = _Leaf()
        self._system: _Leaf[V] = _Leaf()  # topics that begin with '$': a wildcard at the start finds none of them
        self.size = 0

    def add(self, topic: str, value: V) -> None:
        """Stores the value of a valid topic name, in the place of an earlier one."""
        node = self._system if topic[0] == "$" else self._root
        for level in topic.split("/"):
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Leaf()
                self.size += 1
            node = child
        node.value = value

    def remove(self, topic: str) -> None:
        """Takes the topic's value away; empty branches go with it."""
        node = self._system if topic[0] == "$" else self._root
        path: list[tuple[dict[str, _Leaf[V]], str]] = []
        for level in topic.split("/"):
            child = None if node.children is None else node.children.get(level)
            if node.children is None or child is None:
                return
            path.append((node.children, level))
            node = child
        node.value = None
        for children, level in reversed(path):
            if children[level].value is not None or children[level].children:
                break
            del children[level]
            self.size -= 1

    def find(self, filters: FilterUnion, max_visited: int | None = None) -> Generator[list[V], None, bool]:
        """The values of every topic that at least one filter matches, each once, in parts, some of them empty.

        One pass, however many the filters are: it visits what they can reach, and no node twice. Between two parts the
        tree may change: what is taken away or added meanwhile may be found or not.

        Args:
            filters: what to look for.
            max_visited: nodes, about, after which it stops as if there were no more; None for no limit. 100,000 take 10
                to 30 ms.

        Returns:
            Whether it looked everywhere.
        """
        left = sys.maxsize if max_visited is None else max_visited
        # all nodes at which the filters are in the same state go on together
        stack = [([self._root], filters.start(system=False)), ([self._system], filters.start(system=True))]
        while stack and left > 0:
            nodes, state = stack.pop()
            some = min(left, VISITED_AT_ONCE)  # so that a limited search comes to the bottom, too
            if len(nodes) > some:
                stack.append((nodes, state))
                nodes = nodes[-some:]
                del stack[-1][0][-some:]
            left -= len(nodes)
            yield [node.value for node in nodes if node.value is not None] if state.ends else []
            families = [node.children for node in nodes if node.children]
            if not families:
                continue
            if state.takes_all:
                stack.append((list(islice(_members(families), left)), state))
                continue
            if not state.is_open:
                state = filters._open(state)
            named, otherwise = state.named, state.otherwise
            if otherwise is not None and not named:
                stack.append((list(islice(_members(families), left)), otherwise))
                continue
            if otherwise is not None:
                others = [child for family in families for level, child in family.items() if level not in named]
                stack.append((others, otherwise))
            if len(named) <= FEW_NAMES:
                for level, following in named.items():
                    stack.append(([family[level] for family in families if level in family], following))
            else:
                found: dict[str, list[_Leaf[V]]] = {}
                for family in families:
                    for level in family if len(family) < len(named) else named:
                        if level in named and level in family:
                            found.setdefault(level, []).append(family[level])
                stack += [(children, named[level]) for level, children in found.items()]
        return not stack


def _members(families: list[dict[str, V]]) -> Iterator[V]:
    return chain.from_iterable(map(dict.values, families))

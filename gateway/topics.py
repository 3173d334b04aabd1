"""Topic names and topic filters: validation, matching, covering, and the two trees that make both fast.

Invariant: every function here that relates a filter to topics agrees with `matches`, which follows MQTT 5 §4.7 to the
letter, `$`-topics included. Who may use a filter (`access`) and what is stored under a topic (`history`) is theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Generic, TypeAlias, TypeVar

__all__ = [
    "FilterTrie",
    "FilterUnion",
    "TopicError",
    "TopicTree",
    "check_characters",
    "covers",
    "has_wildcard",
    "matches",
    "minimal_cover",
    "validate_filter",
    "validate_topic",
]

V = TypeVar("V")

# MQTT 5 §1.5.4: a UTF-8 string has a two byte length.
MAX_BYTES = 65_535

MAX_CACHE_BYTES = 32 * 2**20
"""About what the cache of a filter trie may take: names have up to 64 KiB, and a name may have any number of values."""

CACHED_COST = 200
"""Bytes that a cached topic takes besides its name and its values."""

# MQTT sets no bound on levels; ours keeps a hostile name from costing more than its length should.
MAX_LEVELS = 128


class TopicError(ValueError):
    """A topic name or filter breaks a rule of MQTT 5 §4.7; the text names the name, the rule and the place."""

    code = "bad_topic"


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _check_string(kind: str, text: str) -> None:
    if not text:
        raise TopicError(f"{kind} '': must have at least one character")  # MQTT-4.7.3-1
    if "\0" in text:
        raise TopicError(f"{kind} {_shortened(text)}: must not contain U+0000")  # MQTT-4.7.3-2
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise TopicError(f"{kind} {_shortened(text)}: must not contain a lone surrogate") from None  # MQTT-1.5.4-1
    if size > MAX_BYTES:
        raise TopicError(
            f"{kind} {_shortened(text)}: has {size} bytes, at most {MAX_BYTES} are allowed"
        )  # MQTT-4.7.3-3
    if text.count("/") >= MAX_LEVELS:
        raise TopicError(
            f"{kind} {_shortened(text)}: has {text.count('/') + 1} levels, at most {MAX_LEVELS} are allowed"
        )


# A receiver may close the connection for control characters and for code points that are no characters (MQTT 5
# §1.5.4), and Mosquitto does.
_REFUSED = re.compile(
    "[\0-\x1f\x7f-\x9f\ufdd0-\ufdef" + "".join(chr(p << 16 | e) for p in range(17) for e in (0xFFFE, 0xFFFF)) + "]"
)


def check_characters(kind: str, text: str) -> None:
    """Refuses what a broker may close the connection for: that would be everyone's connection.

    Raises:
        TopicError: a control character or a code point that is no character (MQTT 5 §1.5.4); `kind` names the text.
    """
    if (found := _REFUSED.search(text)) is not None:
        raise TopicError(f"{kind} {_shortened(text)}: must not contain U+{ord(found[0]):04X}")


def validate_topic(topic: str) -> str:
    """Returns the topic name unchanged if a message can be published to it.

    Raises:
        TopicError: it is empty, too long or too deep, contains U+0000 or a wildcard (MQTT 5 §4.7.1, §4.7.3).
    """
    _check_string("topic", topic)
    for wildcard in "+#":
        if wildcard in topic:  # MQTT-3.3.2-2
            raise TopicError(f"topic {_shortened(topic)}: '{wildcard}' is allowed only in a topic filter")
    return topic


def validate_filter(topic_filter: str) -> str:
    """Returns the topic filter unchanged if it can be subscribed to.

    Raises:
        TopicError: it is empty, too long or too deep, has a misplaced wildcard (MQTT 5 §4.7.1), or is a shared
            subscription (`$share/…`), which has no meaning for a browser.
    """
    _check_string("topic filter", topic_filter)
    if topic_filter == "$share" or topic_filter.startswith("$share/"):
        raise TopicError(f"topic filter {_shortened(topic_filter)}: shared subscriptions ('$share') are not supported")
    levels = topic_filter.split("/")
    for position, level in enumerate(levels):
        if "#" in level:
            if level != "#":  # MQTT-4.7.1-1
                raise TopicError(f"topic filter {_shortened(topic_filter)}: '#' must fill a whole level")
            if position != len(levels) - 1:
                raise TopicError(f"topic filter {_shortened(topic_filter)}: '#' must be the last level")
        elif "+" in level and level != "+":  # MQTT-4.7.1-2
            raise TopicError(f"topic filter {_shortened(topic_filter)}: '+' must fill a whole level")
    return topic_filter


def has_wildcard(topic_filter: str) -> bool:
    """Whether a valid filter can match more than one topic."""
    return "+" in topic_filter or "#" in topic_filter


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a message to this topic goes to a subscription with this filter (MQTT 5 §4.7); both must be valid."""
    if topic_filter == topic:
        return True
    if topic[0] == "$" and topic_filter[0] in "+#":  # MQTT-4.7.2-1
        return False
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        # 'sport/#' matches 'sport' too (§4.7.1.2), but never less than that
        if len(levels) < len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(want in ("+", level) for want, level in zip(wanted, levels, strict=False))


def covers(allowed: str, requested: str) -> bool:
    """Whether every topic that `requested` matches is matched by `allowed`; both must be valid filters.

    This is the one test for a grant: `sensors/a/#` covers neither `sensors/+/x` nor `#`, and a leading wildcard
    covers no `$`-topic.
    """
    if allowed[0] in "+#" and requested[0] == "$":
        return False
    if allowed == "+/#":  # the same set as '#': every topic has a first level, and '/#' matches its parent
        allowed = "#"
    have = allowed.split("/")
    want = requested.split("/")
    for position, level in enumerate(have):
        if level == "#":
            return True
        if position == len(want) or want[position] == "#":
            # `requested` also matches the topic that ends here, `allowed` asks for one level more
            return False
        if level not in ("+", want[position]):
            return False
    return len(have) == len(want)


def minimal_cover(filters: Iterable[str]) -> list[str]:
    """The fewest of these filters that together match the same topics, in their first order.

    One subscription a message: a broker may send a message once for each overlapping subscription (MQTT 5 §3.3.4).
    Filters that overlap without one covering the other (`a/+` and `+/b`) both stay.
    """
    kept: list[str] = []
    for candidate in dict.fromkeys(filters):
        if not any(covers(other, candidate) for other in kept):
            kept = [other for other in kept if not covers(candidate, other)]
            kept.append(candidate)
    return kept


class _Node(Generic[V]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.values: dict[V, None] = {}


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
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        node.values[value] = None
        self._forget_cached()

    def remove(self, topic_filter: str, value: V) -> None:
        """Takes the value away from this filter; what isn't there is no error. Empty branches go with it."""
        node = self._root
        path: list[tuple[_Node[V], str]] = []
        for level in topic_filter.split("/"):
            child = node.children.get(level)
            if child is None:
                return
            path.append((node, level))
            node = child
        node.values.pop(value, None)
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.values or child.children:
                break
            del parent.children[level]
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
                if (child := children.get(level)) is not None:
                    following.append(child)
                if wildcards:
                    if (child := children.get("+")) is not None:
                        following.append(child)
                    if (child := children.get("#")) is not None:
                        found.update(child.values)
            if not following:
                return tuple(found)
            nodes = following
            wildcards = True
        for node in nodes:
            found.update(node.values)
            if (child := node.children.get("#")) is not None:  # 'sport/#' matches 'sport'
                found.update(child.values)
        return tuple(found)


_Levels: TypeAlias = "dict[str, _Levels]"
"""Filters as a tree of their levels, wildcards included; `_END` marks where one ends."""

_END = "/"  # what no level can be
_SPECIAL = frozenset({"+", "#", _END})

MAX_STATES = 4_096
"""How many states a union of filters remembers: far more than any that isn't made to have many."""


VISITED_AT_ONCE = 512
"""So many topics of a tree go on to the next level together."""


FEW_NAMES = 8
"""Up to so many names of a next level are looked up one after the other, more of them together."""


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


class _Leaf(Generic[V]):
    __slots__ = ("children", "value")

    def __init__(self) -> None:
        # most nodes are leaves: an empty dictionary in each would cost more than the node
        self.children: dict[str, _Leaf[V]] | None = None
        self.value: V | None = None


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

    def find(self, filters: FilterUnion, max_visited: int | None = None) -> Iterator[V]:
        """The values of every topic that at least one filter matches, each once, in no order.

        One pass, however many the filters are: it visits what they can reach, and no node twice.

        Args:
            filters: what to look for.
            max_visited: it stops, as if nothing more were there, after about so many nodes (`size` is all of them);
                None for no limit. 100,000 take 10 to 30 ms.
        """
        left = self.size + 2 if max_visited is None else max_visited
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
            if state.ends:
                yield from [node.value for node in nodes if node.value is not None]
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


def _members(families: list[dict[str, V]]) -> Iterator[V]:
    return chain.from_iterable(map(dict.values, families))

"""topics: the specification's examples, and every fast structure against a matcher that is too simple to be wrong."""

from __future__ import annotations

import re
import sys
from itertools import chain, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.filters import FilterUnion
from gateway.core.topics import (
    MAX_BYTES,
    TopicError,
    check_characters,
    covers,
    has_wildcard,
    matches,
    minimal_cover,
    validate_filter,
    validate_topic,
)
from gateway.core.tries import FilterTrie, TopicTree

# few names, so that matches are common; the empty level and '$' are where mistakes live
LEVEL_NAMES = ["", "a", "b", "$x"]
topic_names = st.lists(st.sampled_from(LEVEL_NAMES), min_size=1, max_size=4).map("/".join).filter(bool)
filter_levels = st.lists(st.sampled_from([*LEVEL_NAMES, "+"]), min_size=0, max_size=4)
topic_filters = st.builds(
    lambda levels, tail: "/".join(levels + tail), filter_levels, st.sampled_from([[], ["#"]])
).filter(bool)


def naive_matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5 §4.7 as one regular expression."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    if topic_filter == "#":
        return True
    expression = re.escape(topic_filter).replace(r"\+", "[^/]*").replace("+", "[^/]*")
    if topic_filter.endswith("/#"):
        expression = re.escape(topic_filter[:-2]).replace(r"\+", "[^/]*") + "(/.*)?"
    return re.fullmatch(expression, topic, re.DOTALL) is not None


ALL_TOPICS = [
    "/".join(levels)
    for depth in range(1, 6)
    for levels in product([*LEVEL_NAMES, "c"], repeat=depth)
    if any(levels) or depth > 1
]


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        # MQTT 5 §4.7.1.2
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        # §4.7.1.3
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        # §4.7.2
        ("#", "$SYS/monitor/Clients", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor/Clients", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        # §4.7.3: case and spaces count, a leading slash is a level
        ("ACCOUNTS", "Accounts", False),
        ("Accounts payable", "Accounts payable", True),
        ("/finance", "finance", False),
    ],
)
def test_matches_follows_the_specifications_examples(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected
    assert naive_matches(topic_filter, topic) is expected


@given(topic_filters, topic_names)
def test_matches_agrees_with_the_naive_matcher(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == naive_matches(topic_filter, topic)


@pytest.mark.parametrize("topic_filter", ["#", "+", "+/tennis/#", "sport/+/player1", "/", "//", "$SYS/#", "a b/ü/💧"])
def test_valid_filters_are_returned_unchanged(topic_filter: str) -> None:
    assert validate_filter(topic_filter) == topic_filter


@pytest.mark.parametrize(
    ("topic_filter", "rule"),
    [
        ("", "at least one character"),
        ("sport/tennis#", "'#' must fill a whole level"),
        ("sport/tennis/#/ranking", "'#' must be the last level"),
        ("sport+", "'+' must fill a whole level"),
        ("a/+b/c", "'+' must fill a whole level"),
        ("a\0b", "U+0000"),
        ("a\ud800", "surrogate"),
        ("$share/group/a", "$share"),
        ("$share", "$share"),
        ("x" * (MAX_BYTES + 1), "at most 65535"),
        ("ü" * 40_000, "has 80000 bytes"),
        ("/" * 200, "at most 128"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_rule(topic_filter: str, rule: str) -> None:
    with pytest.raises(TopicError, match=re.escape(rule)):
        validate_filter(topic_filter)


def test_an_error_names_the_filter_but_shortens_it() -> None:
    with pytest.raises(TopicError, match=re.escape("topic filter 'a/#/b': '#' must be the last level")):
        validate_filter("a/#/b")
    with pytest.raises(TopicError) as caught:
        validate_filter("y" * 100_000)
    assert len(str(caught.value)) < 200


def test_a_topic_must_not_contain_wildcards() -> None:
    assert validate_topic("sensors/esp32-1/state") == "sensors/esp32-1/state"
    for topic in ("a/+", "a#", "#"):
        with pytest.raises(TopicError, match="only in a topic filter"):
            validate_topic(topic)
    with pytest.raises(TopicError):
        validate_topic("")


@given(topic_filters, topic_filters)
def test_covers_exactly_when_every_topic_of_the_one_is_matched_by_the_other(allowed: str, requested: str) -> None:
    # ALL_TOPICS holds a level name ('c') that no filter here names and one level more than any filter has: enough
    # witnesses for every difference between two such filters
    expected = all(matches(allowed, topic) for topic in ALL_TOPICS if matches(requested, topic))
    assert covers(allowed, requested) == expected


@pytest.mark.parametrize(
    ("allowed", "requested", "expected"),
    [
        ("sensors/#", "sensors/+/state", True),
        ("sensors/a/#", "sensors/+/x", False),
        ("sensors/a/#", "#", False),
        ("sensors/a/#", "sensors/a", True),
        ("sensors/+", "sensors/#", False),
        ("#", "$SYS/#", False),
        ("+/#", "#", True),
        ("$SYS/#", "$SYS/broker/+", True),
    ],
)
def test_covers_on_the_cases_that_grants_meet(allowed: str, requested: str, expected: bool) -> None:
    assert covers(allowed, requested) is expected


@given(st.lists(topic_filters, max_size=6), topic_names)
def test_a_minimal_cover_matches_the_same_topics_with_no_filter_to_spare(filters: list[str], topic: str) -> None:
    kept = minimal_cover(filters)
    assert any(matches(f, topic) for f in kept) == any(matches(f, topic) for f in filters)
    assert not any(covers(a, b) for a in kept for b in kept if a is not b)


@given(
    st.lists(st.tuples(st.booleans(), topic_filters, st.integers(0, 4)), max_size=30),
    st.lists(topic_names, min_size=1, max_size=5),
)
def test_the_trie_agrees_with_the_naive_matcher_through_adds_and_removes(
    steps: list[tuple[bool, str, int]], topics: list[str]
) -> None:
    trie: FilterTrie[int] = FilterTrie(cache_size=3)
    model: set[tuple[str, int]] = set()
    for add, topic_filter, value in steps:
        if add:
            trie.add(topic_filter, value)
            model.add((topic_filter, value))
        else:
            trie.remove(topic_filter, value)
            model.discard((topic_filter, value))
        for topic in topics:
            expected = {value for f, value in model if naive_matches(f, topic)}
            found = trie.match(topic)
            assert len(found) == len(set(found))
            assert set(found) == expected


def test_the_trie_keeps_no_empty_branches_and_its_cache_is_bounded() -> None:
    trie: FilterTrie[int] = FilterTrie(cache_size=10)
    trie.add("a/b/+", 1)
    trie.add("a/#", 2)
    for number in range(100):
        assert set(trie.match(f"a/b/{number}")) == {1, 2}
        assert len(trie._cache) <= 10
    trie.remove("a/b/+", 1)
    trie.remove("a/#", 2)
    trie.remove("never/there", 2)
    assert trie._root.children == {}


def test_the_cache_of_the_trie_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.tries.MAX_CACHE_BYTES", 1_000_000)
    trie: FilterTrie[int] = FilterTrie()
    trie.add("#", -1)
    for number in range(200):
        assert trie.match(f"{number}" * 20_000) == (-1,)
        assert sum(map(len, trie._cache)) <= 1_100_000
    for number in range(500):
        trie.add("a/+", number)
    for number in range(1_000):
        assert len(trie.match(f"a/{number}")) == 501
        assert sum(map(len, trie._cache.values())) * 8 <= 1_000_000


def naive_matches_any(filters: list[str], topic: str) -> bool:
    return any(naive_matches(topic_filter, topic) for topic_filter in filters)


@settings(max_examples=300)
@given(
    steps=st.lists(st.tuples(st.booleans(), topic_names), max_size=30),
    filters=st.lists(topic_filters, max_size=12),
    at_once=st.integers(1, 4),
    few_names=st.integers(0, 2),
    max_states=st.sampled_from([0, 2, 4_096]),
)
@pytest.mark.slow
def test_the_topic_tree_finds_what_the_naive_matcher_finds(
    steps: list[tuple[bool, str]], filters: list[str], at_once: int, few_names: int, max_states: int
) -> None:
    tree: TopicTree[str] = TopicTree()
    model: set[str] = set()
    for add, topic in steps:
        if add:
            tree.add(topic, topic)
            model.add(topic)
        else:
            tree.remove(topic)
            model.discard(topic)
    assert tree.size == len({name[:end] for name in (f"{topic}/" for topic in model) for end in _level_ends(name)})
    expected = {topic for topic in model if naive_matches_any(filters, topic)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.core.tries.VISITED_AT_ONCE", at_once)
        patch.setattr("gateway.core.tries.FEW_NAMES", few_names)
        patch.setattr("gateway.core.filters.MAX_STATES", max_states)
        union = FilterUnion(filters)
        for _ in range(2):  # the second time by the states that the first has made
            found = list(chain.from_iterable(tree.find(union)))
            assert len(found) == len(set(found))
            assert set(found) == expected
        for max_visited in range(tree.size + 3):
            some = list(chain.from_iterable(tree.find(union, max_visited)))
            assert len(some) == len(set(some)) <= max_visited
            assert set(some) <= expected
        assert set(chain.from_iterable(tree.find(union, tree.size + 2))) == expected


def _level_ends(name: str) -> list[int]:
    return [place for place, character in enumerate(name) if character == "/"]


@settings(max_examples=300)
@given(filters=st.lists(topic_filters, max_size=12), topics=st.lists(topic_names, max_size=10))
def test_a_union_of_filters_matches_what_one_of_them_matches(filters: list[str], topics: list[str]) -> None:
    union = FilterUnion(filters)
    for topic in topics:
        assert union.matches(topic) is naive_matches_any(filters, topic)


def test_a_hundred_filters_cost_about_as_much_as_one() -> None:
    tree: TopicTree[int] = TopicTree()
    for number in range(20_000):
        tree.add(f"site/{number}/x/state", number)
    many = [f"site/+/{name}/{end}" for name in ("x", "y") for end in (*range(50), "#")]

    def steps(filters: list[str]) -> tuple[int, int]:
        count = 0

        def trace(_frame: object, _event: str, _argument: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(trace)
        try:
            found = sum(1 for _ in chain.from_iterable(tree.find(FilterUnion(filters))))
        finally:
            sys.setprofile(None)
        return found, count

    found, one = steps(["site/+/x/#"])
    assert found == 20_000
    found, hundred = steps(many)
    assert found == 20_000
    assert hundred < 2 * one


@pytest.mark.parametrize("text", ["a\0", "a/\x1f", "\x7f", "\x85", "\ufdd0", "\uffff", "\U0001fffe", "\U0010ffff"])
def test_what_a_broker_may_close_the_connection_for_is_refused(text: str) -> None:
    with pytest.raises(TopicError, match=r"must not contain U\+[0-9A-F]{4}"):
        check_characters("topic", text)
    check_characters("topic", "sensors/küche/🌡/ 21 °C")


def test_has_wildcard() -> None:
    assert has_wildcard("a/+")
    assert has_wildcard("#")
    assert not has_wildcard("a/b")

"""Topic names and topic filters: validation, matching, covering, and the two trees that make both fast.

Invariant: every function here that relates a filter to topics agrees with `matches`, which follows MQTT 5 §4.7 to the
letter, `$`-topics included. Who may use a filter (`access`) and what is stored under a topic (`history`) is theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "MAX_BYTES",
    "TopicError",
    "check_characters",
    "covers",
    "disjoint_cover",
    "has_overlap",
    "has_wildcard",
    "intersection",
    "matches",
    "minimal_cover",
    "overlap",
    "quoted",
    "validate_filter",
    "validate_topic",
]


# MQTT 5 §1.5.4: a UTF-8 string has a two byte length.
MAX_BYTES = 65_535

# MQTT sets no bound on levels; ours keeps a hostile name from costing more than its length should.
MAX_LEVELS = 128


class TopicError(ValueError):
    """A topic name or filter breaks a rule of MQTT 5 §4.7; the text names the name, the rule and the place."""

    code = "bad_topic"


def quoted(text: str) -> str:
    """What a client wrote, for a message to it: at most 80 characters, so that no answer grows with a question."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _check_string(kind: str, text: str) -> None:
    if not text:
        raise TopicError(f"{kind} '': must have at least one character")  # MQTT-4.7.3-1
    if "\0" in text:
        raise TopicError(f"{kind} {quoted(text)}: must not contain U+0000")  # MQTT-4.7.3-2
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise TopicError(f"{kind} {quoted(text)}: must not contain a lone surrogate") from None  # MQTT-1.5.4-1
    if size > MAX_BYTES:
        raise TopicError(f"{kind} {quoted(text)}: has {size} bytes, at most {MAX_BYTES} are allowed")  # MQTT-4.7.3-3
    if text.count("/") >= MAX_LEVELS:
        raise TopicError(f"{kind} {quoted(text)}: has {text.count('/') + 1} levels, at most {MAX_LEVELS} are allowed")


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
        raise TopicError(f"{kind} {quoted(text)}: must not contain U+{ord(found[0]):04X}")


def validate_topic(topic: str) -> str:
    """Returns the topic name unchanged if a message can be published to it.

    Raises:
        TopicError: it is empty, too long or too deep, contains U+0000 or a wildcard (MQTT 5 §4.7.1, §4.7.3).
    """
    _check_string("topic", topic)
    for wildcard in "+#":
        if wildcard in topic:  # MQTT-3.3.2-2
            raise TopicError(f"topic {quoted(topic)}: '{wildcard}' is allowed only in a topic filter")
    return topic


def validate_filter(topic_filter: str) -> str:
    """Returns the topic filter unchanged if it can be subscribed to.

    Raises:
        TopicError: it is empty, too long or too deep, has a misplaced wildcard (MQTT 5 §4.7.1), or is a shared
            subscription (`$share/…`), which has no meaning for a browser.
    """
    _check_string("topic filter", topic_filter)
    if topic_filter == "$share" or topic_filter.startswith("$share/"):
        raise TopicError(f"topic filter {quoted(topic_filter)}: shared subscriptions ('$share') are not supported")
    levels = topic_filter.split("/")
    for position, level in enumerate(levels):
        if "#" in level:
            if level != "#":  # MQTT-4.7.1-1
                raise TopicError(f"topic filter {quoted(topic_filter)}: '#' must fill a whole level")
            if position != len(levels) - 1:
                raise TopicError(f"topic filter {quoted(topic_filter)}: '#' must be the last level")
        elif "+" in level and level != "+":  # MQTT-4.7.1-2
            raise TopicError(f"topic filter {quoted(topic_filter)}: '+' must fill a whole level")
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


def intersection(one: str, other: str) -> str | None:
    """The filter that matches exactly the topics that both of two valid filters match; None if there are none."""
    if (one[0] == "$" and other[0] in "+#") or (other[0] == "$" and one[0] in "+#"):
        return None  # MQTT-4.7.2-1
    left = one.split("/")
    right = other.split("/")
    common: list[str] = []
    for position in range(max(len(left), len(right))):
        mine = left[position] if position < len(left) else None
        theirs = right[position] if position < len(right) else None
        if mine == "#":
            return "/".join([*common, *right[position:]]) or None
        if theirs == "#":
            return "/".join([*common, *left[position:]]) or None  # the empty topic, parent of '/#', can't exist
        if mine is None or theirs is None:
            return None
        if mine == theirs or theirs == "+":
            common.append(mine)
        elif mine == "+":
            common.append(theirs)
        else:
            return None
    return "/".join(common)


def has_overlap(filters: list[str]) -> bool:
    """Whether a topic exists that two of these filters match."""
    return any(overlap(a, b) for number, a in enumerate(filters) for b in filters[number + 1 :])


def overlap(a: str, b: str) -> bool:
    """Whether a topic exists that both filters match."""
    if (a[0] == "$" and b[0] in "+#") or (b[0] == "$" and a[0] in "+#"):
        return False
    left, right = a.split("/"), b.split("/")
    for mine, theirs in zip(left, right, strict=False):
        if "#" in (mine, theirs):
            return True
        if mine != theirs and "+" not in (mine, theirs):
            return False
    longer = max(left, right, key=len)
    # 'a/#' matches 'a'
    return len(left) == len(right) or longer[min(len(left), len(right))] == "#"


def join(a: str, b: str) -> str:
    """A filter that covers both."""
    left, right = a.split("/"), b.split("/")
    levels: list[str] = []
    for mine, theirs in zip(left, right, strict=False):
        if "#" in (mine, theirs):
            return "/".join([*levels, "#"])
        levels.append(mine if mine == theirs else "+")
    return "/".join(levels if len(left) == len(right) else [*levels, "#"])


def disjoint_cover(filters: list[str]) -> list[str]:
    """Filters that cover these and of which no two match the same topic."""
    cover = list(filters)
    while True:
        pair = next(
            ((a, b) for number, a in enumerate(cover) for b in cover[number + 1 :] if overlap(a, b)),
            None,
        )
        if pair is None:
            return cover
        joined = join(*pair)
        cover = [joined, *(f for f in cover if not covers(joined, f))]

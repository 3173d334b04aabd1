"""Topics that may have been meant, where somebody asks for one without messages.

Invariant: only what the asker may read is offered, and the work yields every few topics, so that it can be done in
turns (`slices`). What is said of them is in `explain`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice

from gateway.access.grants import Principal, may_read
from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.topic import Topic
from gateway.core.topics import TopicError, matches, validate_filter

__all__ = ["AT_ONCE", "MAX_LOOKED_AT", "NearMiss", "looked_at", "near_misses"]


MAX_NEAR = 5
"""Near misses that are offered."""

ALIKE, MAX_COMPARED = 0.6, 40
"""Two names of a level are alike from this ratio on (difflib's own bound for close matches). They are compared up to
this length: the work grows with the square of it."""

MAX_LOOKED_AT = 100_000
"""Topics that are looked at; each takes some microseconds."""

AT_ONCE = 16
"""Topics that are looked at before the work may be interrupted."""


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A topic that has messages and is nearly what was asked for."""

    topic: str
    why: str


def looked_at(history: History) -> list[Topic]:
    """The topics that are looked at. A copy: messages come while the work rests."""
    return list(islice(history.topics(), MAX_LOOKED_AT))


def near_misses(asked: str, principal: Principal, history: History) -> Generator[None, None, list[NearMiss]]:
    """Topics with messages that differ from what was asked for in a usual way, and that the asker may read.

    One pass over all topics, whatever the number of ways to differ; the likeliest come first.
    """
    folded, bare = asked.casefold(), asked.strip().casefold()
    is_folded = FilterSet([folded]).matches
    is_bare = FilterSet([bare]).matches if bare else None
    variants = list(_variants(asked))
    is_variant = FilterSet(text for text, _ in variants).matches
    levels = asked.split("/")
    # the matcher keeps what it knows of its second text, here of what was asked for
    alike = [SequenceMatcher(None, "", level, autojunk=False) for level in levels]
    found: dict[tuple[float, str], list[str]] = {}  # by how likely, and why
    for number, topic in enumerate(looked_at(history)):
        if number % AT_ONCE == 0:
            yield
        name = topic.name
        lower = name.casefold()
        if is_folded(lower):
            reason = (0.0, "upper and lower case differ")
        elif is_bare is not None and (stripped := lower.strip()) and is_bare(stripped):
            reason = (1.0, "there is a space before or after one of them")
        elif is_variant(name):
            rank, why = next((n, why) for n, (text, why) in enumerate(variants, start=3) if matches(text, name))
            reason = (float(rank), why)
        elif (position := _one_level_differs(levels, name)) is not None:
            level = f"level {position + 1}"
            given = name.split("/")[position]
            is_short = max(len(given), len(levels[position])) <= MAX_COMPARED
            ratio = _ratio(alike[position], given) if is_short else 0
            # what is spelt alike was meant, sooner than a topic of another length
            if ratio:
                reason = (2 + (1 - ratio), f"{level} is spelt nearly like {levels[position]!r}")
            else:
                reason = (1_000.0 + position, f"{level} differs from {levels[position]!r}")
        else:
            continue
        few = found.setdefault(reason, [])
        if topic.last is not None and len(few) < MAX_NEAR and may_read(principal, name):
            few.append(name)
    offers = [NearMiss(name, why) for (_, why), names in sorted(found.items()) for name in names]
    return offers[:MAX_NEAR]


def _ratio(wanted: SequenceMatcher[str], level: str) -> float:
    """How alike a level is to the one that was asked for, from `ALIKE` to 1; 0 if it is not alike."""
    wanted.set_seq1(level)
    if wanted.real_quick_ratio() < ALIKE or wanted.quick_ratio() < ALIKE:
        return 0
    ratio = wanted.ratio()
    return ratio if ratio >= ALIKE else 0


def _one_level_differs(levels: list[str], topic: str) -> int | None:
    """The position of the only level of a filter that a topic doesn't match; None if there are none or several."""
    given = topic.split("/")
    if levels[-1] == "#":
        if len(given) < len(levels) - 1:
            return None
    elif len(given) != len(levels):
        return None
    different: int | None = None
    for position, (wanted, level) in enumerate(zip(levels, given, strict=False)):
        if wanted in (level, "+", "#"):
            continue
        if different is not None:
            return None
        different = position
    if topic[0] == "$" and (different == 0 or levels[0] in ("+", "#")):  # MQTT-4.7.2-1
        return None
    return different


def _variants(asked: str) -> Iterator[tuple[str, str]]:
    """Filters with a level more or less than this one, the likeliest first, and how they differ."""
    levels = asked.split("/")
    changed: list[tuple[list[str], str]] = []
    if asked.startswith("/"):
        changed.append((levels[1:], "it has no leading slash"))
    else:
        changed.append((["", *levels], "it has a leading slash"))
    if asked.endswith("/"):
        changed.append((levels[:-1], "it has no trailing slash"))
    elif levels[-1] != "#":
        changed.append(([*levels, ""], "it has a trailing slash"))
        changed.append(([*levels, "+"], "it is a level deeper"))
    if len(levels) > 1 and levels[-1] != "#":
        changed.append((levels[:-1], "it is a level shorter"))
    changed.append((["+", *levels], "it has a level more in front"))
    if len(levels) > 1:
        changed.append((levels[1:], "it has a level less in front"))
    for parts, why in changed:
        text = "/".join(parts)
        try:
            yield validate_filter(text), why
        except TopicError:
            continue

"""Why does somebody see nothing of a topic? Walks a message's way and names the first step that fails.

Invariant: the answer tells of a topic only what the asker's grants cover; who is not granted it learns that and how the
gateway's link to the broker is, no more. It reads and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol

from gateway.access import Principal, intersection, may_read, may_subscribe
from gateway.access import explain as explain_grant
from gateway.history import FilterSet, History, Topic
from gateway.hub import Hub, Subscriber
from gateway.topics import TopicError, covers, has_wildcard, matches, validate_filter

__all__ = ["Explanation", "NearMiss", "Step", "UpstreamFacts", "explain_topic"]

MAX_NEAR = 5
"""Near misses that are offered."""

MAX_LOOKED_AT = 20_000
"""Topics among which the newest message is looked for."""

MAX_COMPARED = 5_000
"""Topics that are compared letter by letter, a few milliseconds."""

STALE_MS = 10 * 60_000


class UpstreamFacts(Protocol):
    """What is asked of the link to the broker (`broker.UpstreamState`)."""

    @property
    def connected(self) -> bool:
        """Whether it is there."""

    @property
    def last_error(self) -> str | None:
        """Why not."""

    @property
    def filters(self) -> Mapping[str, int | str]:
        """What was subscribed to: the QoS granted, or why it was refused."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way.

    Attributes:
        name: `filter`, `upstream`, `subscription`, `grant`, `messages` or `delivery`.
        ok: whether it is in order; None where that isn't known, or wasn't asked because an earlier step fails.
        text: what was found, for people.
    """

    name: str
    ok: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A topic that has messages and is nearly what was asked for."""

    topic: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer.

    Attributes:
        topic: what was asked for.
        steps: all steps, in the order in which a message takes them.
        near: topics that may have been meant.
    """

    topic: str
    steps: tuple[Step, ...]
    near: tuple[NearMiss, ...] = ()

    @property
    def failure(self) -> Step | None:
        """The first step that fails."""
        return next((step for step in self.steps if step.ok is False), None)

    def to_json(self) -> dict[str, Any]:
        """As `/explain` answers."""
        failure = self.failure
        return {
            "topic": self.topic,
            "ok": failure is None,
            "answer": failure.text if failure else "every step is in order",
            "failed": failure.name if failure else None,
            "steps": [{"step": step.name, "ok": step.ok, "text": step.text} for step in self.steps],
            "near": [{"topic": near.topic, "why": near.why} for near in self.near],
        }


def explain_topic(
    asked: str,
    principal: Principal,
    *,
    upstream: UpstreamFacts,
    hub: Hub,
    own: Iterable[Subscriber],
    now_ms: int,
    started_ms: int,
) -> Explanation:
    """Walks the way of the messages of a topic or filter to somebody.

    Args:
        asked: a topic or a topic filter, valid or not.
        principal: who asks.
        upstream: how it is with the broker.
        hub: history and subscribers.
        own: the asker's own subscribers.
        now_ms: milliseconds since 1970.
        started_ms: when the gateway began to keep history.
    """
    try:
        validate_filter(asked)
    except TopicError as error:
        return Explanation(asked[:200], (Step("filter", False, str(error)),))
    steps = [Step("filter", True, f"{asked!r} is a valid topic {'filter' if has_wildcard(asked) else 'name'}")]
    granted = may_subscribe(principal, asked)
    steps.append(_upstream_step(upstream, in_full=granted))
    grant = Step("grant", granted, explain_grant(principal, asked))
    if not granted:
        text = "what is relayed and was received is told only to those who are granted it"
        return Explanation(asked, (*steps, grant, Step("messages", None, text)))
    steps += [_subscription_step(asked, upstream), grant]
    history = hub.history
    found = newest(history, asked)
    if found is None:
        steps.append(Step("messages", False, _no_message_text(asked, now_ms - started_ms)))
        return Explanation(asked, tuple(steps), tuple(near_misses(asked, principal, history)))
    steps.append(_message_step(asked, found, now_ms))
    steps.append(_delivery_step(asked, hub, own))
    return Explanation(asked, tuple(steps))


def _upstream_step(upstream: UpstreamFacts, in_full: bool) -> Step:
    if upstream.connected:
        return Step("upstream", True, "the gateway is connected to the broker")
    why = f": {upstream.last_error}" if upstream.last_error and in_full else ""
    return Step("upstream", False, f"the gateway is not connected to the broker{why}")


def _subscription_step(asked: str, upstream: UpstreamFacts) -> Step:
    filters = upstream.filters
    if not filters:
        return Step("subscription", None, "nothing has been subscribed to on the broker yet")
    covering = [text for text in filters if covers(text, asked)]
    for text in covering:
        if isinstance(filters[text], int):
            return Step("subscription", True, f"the broker granted {text!r}, with QoS {filters[text]}")
    for text in covering:
        return Step("subscription", False, f"the broker refused {text!r}: {filters[text]}")
    shown = ", ".join(repr(text) for text in filters)
    within = [common for text in filters if (common := intersection(text, asked)) is not None]
    if within:
        text = f"the gateway relays only {shown}, so of {asked!r} only {', '.join(map(repr, within))}"
        return Step("subscription", True, text)
    return Step("subscription", False, f"the gateway relays only {shown} (GATEWAY_MQTT_TOPICS), which is not {asked!r}")


def newest(history: History, asked: str) -> Topic | None:
    """The matching topic with the newest message, of the first so many."""
    some = islice(history.topics(FilterSet([asked])), MAX_LOOKED_AT)
    known = (topic for topic in some if topic.last is not None)
    return max(known, key=lambda topic: topic.last.seq if topic.last else 0, default=None)


def _no_message_text(asked: str, running_ms: int) -> str:
    if not has_wildcard(asked):
        subject = f"no message to {asked!r} has come"
    else:
        subject = f"no message that matches {asked!r} has come"
    return f"{subject} in the {_duration(running_ms)} since the gateway started, and the broker had no retained one"


def _message_step(asked: str, topic: Topic, now_ms: int) -> Step:
    last = topic.last
    assert last is not None  # noqa: S101 - `newest` returns no other
    age = max(0, now_ms - last.time)
    where = f" to {topic.name!r}" if topic.name != asked else ""
    text = f"the newest message{where} came {_duration(age)} ago, {topic.count} came in all"
    if age > STALE_MS:
        text += "; has its publisher stopped?"
    return Step("messages", True, text)


def _delivery_step(asked: str, hub: Hub, own: Iterable[Subscriber]) -> Step:
    seen = 0
    for subscriber in own:
        seen += 1
        wanted = [text for text in subscriber.filters.filters if intersection(text, asked) is not None]
        if not wanted:
            continue
        delivered, skipped, lost = hub.counts(subscriber)
        text = (
            f"your connection {subscriber.label.partition(' ')[0]} subscribes to {', '.join(map(repr, wanted))}: "
            f"{delivered} messages delivered, {skipped} skipped, {lost} lost"
        )
        if (shape := _shape_text(subscriber)) is not None:
            text += f"; it asked for {shape}"
        if subscriber.is_paused:
            text += "; it is behind, because it reads more slowly than messages come"
        return Step("delivery", True, text)
    if seen:
        return Step("delivery", None, f"you have {seen} connections open, and none of them subscribes to {asked!r}")
    return Step("delivery", None, "you have no connection open now")


def _shape_text(subscriber: Subscriber) -> str | None:
    shape = subscriber.shape
    parts = []
    if shape.max_hz is not None:
        parts.append(f"at most {shape.max_hz:g} messages a second of each topic")
    if shape.where is not None:
        parts.append(f"only those with {shape.where}")
    if shape.deadband is not None:
        parts.append(f"only changes of {shape.deadband:g} and more")
    if shape.fields:
        parts.append(f"only the fields {', '.join(shape.fields)}")
    return ", ".join(parts) or None


# Near misses


def near_misses(asked: str, principal: Principal, history: History) -> Iterator[NearMiss]:
    """Topics with messages that differ from what was asked for in a usual way, and that the asker may read."""
    seen: set[str] = set()
    for topic, why in chain(_same_but_for_case(asked, history), _of_variants(asked, history)):
        if topic not in seen and may_read(principal, topic):
            seen.add(topic)
            yield NearMiss(topic, why)
            if len(seen) >= MAX_NEAR:
                return


def _same_but_for_case(asked: str, history: History) -> Iterator[tuple[str, str]]:
    folded, bare = asked.casefold(), asked.strip().casefold()
    for topic in islice(history.topics(), MAX_COMPARED):
        name = topic.name.casefold()
        if matches(folded, name):
            yield topic.name, "upper and lower case differ"
        elif bare and name.strip() and matches(bare, name.strip()):
            yield topic.name, "there is a space before or after one of them"


def _of_variants(asked: str, history: History) -> Iterator[tuple[str, str]]:
    for variant, why in _variants(asked):
        for topic in islice(history.topics(FilterSet([variant])), MAX_COMPARED):
            yield topic.name, why


def _variants(asked: str) -> Iterator[tuple[str, str]]:
    """Filters that are nearly this one, the likeliest first, and how they differ."""
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
    for position, level in enumerate(levels):
        if level not in ("+", "#"):
            other = [*levels[:position], "+", *levels[position + 1 :]]
            changed.append((other, f"level {position + 1} differs from {level!r}"))
    for parts, why in changed:
        text = "/".join(parts)
        try:
            yield validate_filter(text), why
        except TopicError:
            continue


def _duration(milliseconds: int) -> str:
    """`3 s`, `12 min`, `5 h`, `2 days`."""
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} days"

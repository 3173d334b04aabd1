"""Why does somebody see nothing of a topic? Walks a message's way and names the first step that fails.

Invariant: the answer tells of a topic only what the asker's grants cover, and of connections only the asker's own; who
is not granted it learns that and how the gateway's link to the broker is, no more. It reads and changes nothing, and
yields all along, so that it can be done in turns (`slices`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from gateway.access.grants import Owner, Principal, may_subscribe
from gateway.access.grants import explain as explain_grant
from gateway.core.filters import FilterSet
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.core.shaper import pick
from gateway.core.subscribers import State, Subscriber
from gateway.core.topic import Topic
from gateway.core.topics import TopicError, covers, has_wildcard, intersection, validate_filter
from gateway.decoders.decoding import Decoding, Rule
from gateway.ops.near_misses import AT_ONCE, MAX_LOOKED_AT, NearMiss, looked_at, near_misses

__all__ = ["Explanation", "NearMiss", "Step", "UpstreamFacts", "explain_topic"]


MAX_NAMED = 10
"""Numbers without roll-ups that are named."""

MAX_TRIED = 20
"""Newest messages of a topic that are tried with the asker's shape."""

STALE_MS = 10 * 60_000


class UpstreamFacts(Protocol):
    """What is asked of the link to the broker (`broker.UpstreamState`)."""

    @property
    def connected(self) -> bool:
        """Whether it is there."""

    @property
    def filters(self) -> Mapping[str, int | str]:
        """What was subscribed to: the QoS granted, or why it was refused."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way.

    Attributes:
        name: `filter`, `upstream`, `cluster`, `subscription`, `grant`, `messages`, `decode`, `delivery`, `archive`,
            `device` or `alerts`.
        ok: whether it is in order; None where that isn't known, or wasn't asked because an earlier step fails.
        text: what was found, for people.
    """

    name: str
    ok: bool | None
    text: str


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
    asker: Owner,
    *,
    upstream: UpstreamFacts,
    upstream_reason: str | None,
    hub: Hub,
    now_ms: int,
    started_ms: int,
    cluster: tuple[bool, str] | None = None,
    archive: str | None = None,
    archive_lacks: int = 0,
    left_out_of: Callable[[str], list[str]] = lambda _: [],
    alerts: Sequence[str] = (),
    devices: Sequence[tuple[bool, str]] = (),
    decoding: Decoding | None = None,
) -> Generator[None, None, Explanation]:
    """Walks the way of the messages of a topic or filter to somebody; the answer is what the generator returns.

    Args:
        asked: a topic or a topic filter, valid or not.
        asker: who asks: connections of the same one are looked at.
        upstream: how it is with the broker.
        upstream_reason: why it is not connected, as far as that may be told; None for nothing.
        hub: history and subscribers.
        now_ms: milliseconds since 1970.
        started_ms: when the gateway began to keep history.
        cluster: what this node does in its cluster, and whether that is in order; None: there is none.
        archive: why what arrives is not kept in the archive, as far as that may be told; None if it is, or needn't be.
        archive_lacks: so many messages passed while this node of a cluster was away, and are not in its archive.
        left_out_of: the numbers and texts of a topic of which the archive makes no roll-ups.
        alerts: what is to be said of the alerts that watch it.
        devices: what the topic is to devices, as far as that may be told, each with whether it is in order.
        decoding: the rules by which payloads are read.
    """
    try:
        validate_filter(asked)
    except TopicError as error:
        return Explanation(asked[:200], (Step("filter", False, str(error)),))
    principal = asker.principal
    steps = [Step("filter", True, f"{asked!r} is a valid topic {'filter' if has_wildcard(asked) else 'name'}")]
    granted = may_subscribe(principal, asked)
    steps.append(_upstream_step(upstream, upstream_reason if granted else None))
    grant = Step("grant", granted, explain_grant(principal, asked))
    if not granted:
        text = "what is relayed and was received is told only to those who are granted it"
        return Explanation(asked, (*steps, grant, Step("messages", None, text)))
    if cluster is not None:
        steps.append(Step("cluster", *cluster))
    steps += [_subscription_step(asked, principal, upstream), grant]
    history = hub.history
    found = yield from _newest(history, asked)
    if found is None:
        steps.append(_no_message_step(asked, history, now_ms - started_ms))
        near = yield from near_misses(asked, principal, history)
        return Explanation(asked, tuple(steps), tuple(near))
    steps.append(_message_step(asked, found, now_ms))
    if decoding is not None and (rule := decoding.rule_of(found.name)) is not None:
        steps.append(_decode_step(found, rule))
    delivery = yield from _delivery_step(asked, found, hub, asker)
    steps.append(delivery)
    if archive is not None:
        text = f"it is relayed, but not kept in the archive: {archive}"
        steps.append(Step("archive", False, text))
    elif left_out := left_out_of(found.name):
        steps.append(Step("archive", False, _left_out_text(found.name, left_out)))
    elif archive_lacks:
        text = f"{archive_lacks:,} messages of all topics are not in this node's archive: it was away for too long"
        steps.append(Step("archive", True, text))
    steps += [Step("device", is_well, text) for is_well, text in devices]
    if alerts:
        steps.append(Step("alerts", True, f"watched by {'; '.join(alerts)}"))
    return Explanation(asked, tuple(steps))


def _left_out_text(name: str, left_out: list[str]) -> str:
    shown = ", ".join(repr(text) if text else "the payload itself" for text in left_out[:MAX_NAMED])
    more = f" and {len(left_out) - MAX_NAMED} more" if len(left_out) > MAX_NAMED else ""
    return (
        f"of {name!r} the archive makes no roll-ups of {shown}{more}, so charts of these reach no further back than "
        "memory: it makes them of so many numbers and no more; raise GATEWAY_ARCHIVE_SERIES, or relay fewer topics "
        "(GATEWAY_MQTT_TOPICS)"
    )


def _upstream_step(upstream: UpstreamFacts, reason: str | None) -> Step:
    if upstream.connected:
        return Step("upstream", True, "the gateway is connected to the broker")
    why = f": {reason}" if reason else ""
    return Step("upstream", False, f"the gateway is not connected to the broker{why}")


def _subscription_step(asked: str, principal: Principal, upstream: UpstreamFacts) -> Step:
    filters = upstream.filters
    if not filters:
        return Step("subscription", None, "nothing has been subscribed to on the broker yet")
    covering = [text for text in filters if covers(text, asked)]
    for text in covering:
        if isinstance(filters[text], int):
            return Step("subscription", True, f"the broker granted {text!r}, with QoS {filters[text]}")
    for text in covering:
        return Step("subscription", False, f"the broker refused {text!r}: {filters[text]}")
    # a filter names topics: the asker hears of those only that are its own business
    granted = [grant.topic_filter for grant in principal.subscribe]
    told = [text for text in filters if any(intersection(text, grant) is not None for grant in granted)]
    if not told:
        return Step("subscription", False, f"the gateway relays nothing of {asked!r} (GATEWAY_MQTT_TOPICS)")
    shown = ("" if len(told) < len(filters) else "only ") + ", ".join(map(repr, told))
    within = [common for text in filters if (common := intersection(text, asked)) is not None]
    if within:
        text = f"the gateway relays {shown}, so of {asked!r} only {', '.join(map(repr, within))}"
        return Step("subscription", True, text)
    return Step("subscription", False, f"the gateway relays {shown} (GATEWAY_MQTT_TOPICS), which is not {asked!r}")


def _newest(history: History, asked: str) -> Generator[None, None, Topic | None]:
    """The matching topic with the newest message."""
    if not has_wildcard(asked):
        topic = history.topic(asked)
        return topic if topic is not None and topic.last is not None else None
    # one pass over all names: a walk down the tree of topics costs more for a filter of many wildcards
    is_match = FilterSet([asked]).matches
    best: Topic | None = None
    best_seq = 0
    for number, topic in enumerate(looked_at(history)):
        if number % AT_ONCE == 0:
            yield
        if topic.last is not None and topic.last.seq > best_seq and is_match(topic.name):
            best, best_seq = topic, topic.last.seq
    return best if best is not None and best.last is not None else None


def _no_message_step(asked: str, history: History, running_ms: int) -> Step:
    if has_wildcard(asked) and history.topic_count > MAX_LOOKED_AT:
        text = f"among the first {MAX_LOOKED_AT} of {history.topic_count} topics none matches {asked!r}"
        return Step("messages", False, text)
    subject = f"no message that matches {asked!r}" if has_wildcard(asked) else f"no message to {asked!r}"
    text = f"{subject} has come in the {_duration(running_ms)} since the gateway started"
    return Step("messages", False, f"{text}, and the broker had no retained one")


def _message_step(asked: str, topic: Topic, now_ms: int) -> Step:
    last = topic.last
    assert last is not None  # noqa: S101 - `_newest` returns no other
    age = max(0, now_ms - last.time)
    where = f" to {topic.name!r}" if topic.name != asked else ""
    text = f"the newest message{where} came {_duration(age)} ago, {topic.count} came in all"
    if age > STALE_MS:
        text += "; has its publisher stopped?"
    return Step("messages", True, text)


def _decode_step(topic: Topic, rule: Rule) -> Step:
    """What the rule for a topic made of its newest message."""
    last, named = topic.last, f"of {topic.name!r} {rule.name!r} is decoded"
    decoded = None if last is None else last.decoded
    if decoded is None:
        return Step("decode", True, f"{named}; the newest message is none, and stays as it came")
    if not decoded:
        reason = rule.failure(topic.name) or "it came before this start; see `gateway check --payload`"
        text = f"{named}, but the newest message could not be: {reason}"
        return Step("decode", False, f'{text}; it comes as base64 with "decode":"failed"')
    value = None if last is None else last.value()
    unknown = value.get("unknown") if rule.sparkplug is not None and isinstance(value, dict) else None
    if unknown:
        names = ", ".join(list(unknown)[:5])
        text = f"{named}, but of the newest message no BIRTH explained {len(unknown)} aliases ({names})"
        return Step("decode", False, f"{text}: ask the node for one, by the command Node Control/Rebirth")
    return Step("decode", True, f"{named}, the newest message, too")


def _delivery_step(asked: str, found: Topic, hub: Hub, asker: Owner) -> Generator[None, None, Step]:
    """How it is with the asker's connections: the first that is in trouble, else the first that subscribes to it."""
    connections = wanting = 0
    other: Subscriber | None = None
    troubled = well = ""
    for number, subscriber in enumerate(list(hub.subscribers())):
        if number % AT_ONCE == 0:
            yield
        if not isinstance(subscriber.owner, Owner) or not subscriber.owner.is_same(asker):
            continue
        if subscriber.state is State.CLOSED:
            continue
        yield
        connections += 1
        wanted = [text for text in subscriber.filters.filters if intersection(text, asked) is not None]
        if not wanted:
            other = other or subscriber
            continue
        wanting += 1
        trouble = _trouble(subscriber, found, hub)
        if trouble and not troubled:
            troubled = f"{_connection_text(subscriber, wanted, hub)}; {trouble}"
        elif not trouble and not well:
            well = _connection_text(subscriber, wanted, hub)
    if troubled:
        if wanting > 1:
            troubled += f" (it is one of your {wanting} connections that subscribe to this)"
        return Step("delivery", False, troubled)
    if well:
        return Step("delivery", True, well)
    if other is None:
        text = "you have no connection open now: open one that subscribes to it, and ask again while it is open"
        return Step("delivery", None, text)
    has = ", ".join(map(repr, islice(other.filters.filters, 5))) or "nothing"
    text = (
        f"you have {connections} connection{'s' if connections > 1 else ''} open, and none subscribes to {asked!r} "
        f"({_id_of(other)} subscribes to {has}): send the command subscribe, or connect with ?topic="
    )
    return Step("delivery", False, text)


def _connection_text(subscriber: Subscriber, wanted: list[str], hub: Hub) -> str:
    delivered, skipped, lost = hub.counts(subscriber)
    shown = ", ".join(map(repr, wanted[:5])) + (", …" if len(wanted) > 5 else "")
    text = (
        f"your connection {_id_of(subscriber)} subscribes to {shown}: "
        f"{delivered} messages delivered, {skipped} skipped, {lost} lost"
    )
    if (shape := _shape_text(subscriber)) is not None:
        text += f"; it asked for {shape}"
    if subscriber.state is State.BEHIND and not subscriber.is_paused:
        text += "; it is being given older messages first"
    return text


def _id_of(subscriber: Subscriber) -> str:
    return subscriber.label.partition(" ")[0]


def _trouble(subscriber: Subscriber, found: Topic, hub: Hub) -> str | None:
    """Why it may see nothing of this topic, and what to do; None if that isn't so."""
    if subscriber.is_paused:
        return (
            f"its socket takes no more ({subscriber.sink.buffered()} bytes wait), because what reads it is slower than "
            "messages come: read on, or ask for less (max_hz, fields, narrower filters)"
        )
    shape = subscriber.shape
    if (shape.where is not None or shape.fields) and subscriber.filters.matches(found.name):
        tried = list(islice(found.before(hub.history.seq, 0), MAX_TRIED))
        if tried and all(pick(shape, message) is None for message in tried):
            newest = "the newest message" if len(tried) == 1 else f"none of the newest {len(tried)} messages"
            verb = "is not" if len(tried) == 1 else "is"
            return (
                f"{newest} to {found.name!r} {verb} let through by what it asked for: ask for fields that are there, "
                "or with a `where` that holds for them"
            )
    delivered, skipped, lost = hub.counts(subscriber)
    if lost:
        return (
            "what is lost was let go from history before it could be sent: read faster, ask for less (max_hz, fields, "
            "narrower filters), come back sooner, or make history larger (GATEWAY_HISTORY_…)"
        )
    if skipped and not delivered:
        return "everything was left out by what it asked for: ask for more"
    return None


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


def _duration(milliseconds: int) -> str:
    """`3 s`, `12 min`, `5 h`, `2 days`."""
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} days"

"""Who may read and write which topics: principals, grants, and the one test for them.

Invariant: an answer is yes only when a single grant *covers* what is asked for (`topics.covers`); what nobody granted
is refused. How somebody came by grants is `policy`'s, whether a token is genuine `tokens`', where a request carries it
the door's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.core.messages import Properties
from gateway.core.topics import covers, intersection, matches, validate_topic

__all__ = [
    "AccessError",
    "Action",
    "ForbiddenError",
    "Grant",
    "Owner",
    "Principal",
    "check_publication",
    "explain",
    "may_publish",
    "may_read",
    "may_subscribe",
    "require_publish",
    "require_subscribe",
    "shortened",
]


class AccessError(Exception):
    """Something about access is wrong or refused; `code` is stable, the text names the rule and the value."""

    code = "forbidden"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ForbiddenError(AccessError):
    """The principal has no grant for what it asks."""


class Action(enum.StrEnum):
    """What a grant is for."""

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to use every topic that a filter matches.

    Attributes:
        topic_filter: a valid topic filter, its placeholder filled in.
        source: who says so, for people: "role 'viewer'" or "the token".
    """

    topic_filter: str
    source: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what it was granted.

    Attributes:
        subject: the token's `sub`; None for one that showed no token, or whose token names nobody.
        subscribe: grants for reading.
        publish: grants for writing.
        roles: the roles that it has and that the policy knows.
        expires_at: when the token ends, in seconds since 1970; None if it never does.
        notes: why something that it might expect was not granted, a sentence each.
        token_id: what names its token among all, None without one. Two tokens of the same rights are one principal.
        issued_at: when the token was made, in seconds since 1970; None if it doesn't say.
        lineage: of what its token was made, where that is a link: names of tokens and of their subjects (`names_of`),
            the first first.
    """

    subject: str | None = None
    subscribe: tuple[Grant, ...] = ()
    publish: tuple[Grant, ...] = ()
    roles: tuple[str, ...] = ()
    expires_at: float | None = None
    notes: tuple[str, ...] = ()
    anonymous: bool = False
    token_id: str | None = field(default=None, compare=False)
    issued_at: float | None = field(default=None, compare=False)
    lineage: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """How texts call it: the quoted subject, or words."""
        if self.subject is not None:
            return repr(shortened(self.subject))
        return "an anonymous client" if self.anonymous else "this token"

    def grants(self, action: Action) -> tuple[Grant, ...]:
        """The grants for one action."""
        return self.subscribe if action is Action.SUBSCRIBE else self.publish


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a connection is.

    Attributes:
        principal: who it is.
        address: the client's address; None where there is none.
    """

    principal: Principal
    address: str | None

    def is_same(self, other: Owner) -> bool:
        """Whether two connections are of one and the same: of one subject; else of the same rights and address.

        A token that names nobody is neither an anonymous client nor another such token.
        """
        mine, theirs = self.principal, other.principal
        if mine.subject is not None or theirs.subject is not None:
            return mine.subject == theirs.subject
        return self.address == other.address and mine == theirs


def shortened(text: str, length: int = 80) -> str:
    """A text cut to `length` characters, with a mark where it was."""
    return text if len(text) <= length else text[: length - 3] + "..."


def may_subscribe(principal: Principal, topic_filter: str) -> bool:
    """Whether one of its grants covers every topic that this valid filter matches.

    `sensors/a/#` allows neither `sensors/+/x` nor `#`, and no leading wildcard allows a `$`-topic (MQTT 5 §4.7.2).
    """
    return any(covers(grant.topic_filter, topic_filter) for grant in principal.subscribe)


def may_read(principal: Principal, topic: str) -> bool:
    """Whether it may learn of this one topic: its messages, its last value, that it exists."""
    return any(matches(grant.topic_filter, topic) for grant in principal.subscribe)


def may_publish(principal: Principal, topic: str) -> bool:
    """Whether it may publish to this valid topic name; `$`-topics only where a grant names them."""
    return any(matches(grant.topic_filter, topic) for grant in principal.publish)


def require_subscribe(principal: Principal, topic_filters: Iterable[str]) -> None:
    """Returns if all these valid filters are granted.

    Raises:
        ForbiddenError: the first one is not; the text is that of `explain`.
    """
    for topic_filter in topic_filters:
        if not may_subscribe(principal, topic_filter):
            raise ForbiddenError(explain(principal, topic_filter))


def require_publish(principal: Principal, topic: str) -> None:
    """Returns if it may publish to this valid topic name.

    Raises:
        ForbiddenError: it may not; the text is that of `explain`.
    """
    if not may_publish(principal, topic):
        raise ForbiddenError(explain(principal, topic, Action.PUBLISH))


def check_publication(principal: Principal, topic: str, properties: Properties | None = None) -> None:
    """Returns if the principal may publish a message with these properties to this topic.

    Whoever answers a message does so with rights of its own, which one could borrow to write where one may not go: so a
    response topic has to be one that the principal may read or write itself.

    Raises:
        TopicError: a topic is no topic.
        ForbiddenError: no grant covers one.
    """
    require_publish(principal, validate_topic(topic))
    if properties and "response_topic" in properties:
        answer = validate_topic(properties["response_topic"])
        if not may_read(principal, answer):
            require_publish(principal, answer)


def explain(principal: Principal, asked: str, action: Action = Action.SUBSCRIBE) -> str:
    """Why it may or may not use a valid filter (or, for publishing, a topic): one or two sentences for people.

    Names the rule, the value and the grant that decides, or else the nearest grant and what it would allow instead.
    """
    kind = "topic filter" if action is Action.SUBSCRIBE else "topic"
    verb = "subscribe to" if action is Action.SUBSCRIBE else "publish to"
    shown = repr(shortened(asked))
    grants = principal.grants(action)
    for grant in grants:
        if covers(grant.topic_filter, asked):
            return f"{kind} {shown}: granted to {principal.name} by {grant.topic_filter!r} ({grant.source})"
    refused = f"{kind} {shown}: not granted to {principal.name}"
    if not grants:
        text = f"{refused}, which may {verb} nothing"
        return text + "".join(f"; {note}" for note in principal.notes)
    nearest = max(grants, key=lambda grant: _nearness(grant.topic_filter, asked))
    text = f"{refused}; the nearest grant is {nearest.topic_filter!r} ({nearest.source})"
    within = intersection(nearest.topic_filter, asked)
    if within is not None:
        text += f", which does not cover all of it: ask for {within!r}"
    elif asked[0] == "$" and nearest.topic_filter[0] in "+#":
        text += ", and a leading wildcard never stands for a '$'-topic"
    return text + "".join(f"; {note}" for note in principal.notes)


def _nearness(granted: str, asked: str) -> tuple[bool, int, int]:
    """Orders grants by how likely the asker meant them: overlapping ones first, then by equal leading levels."""
    have = granted.split("/")
    want = asked.split("/")
    same = 0
    for mine, theirs in zip(have, want, strict=False):
        if mine != theirs and "+" not in (mine, theirs) and mine.casefold() != theirs.casefold():
            break
        same += 1
    return intersection(granted, asked) is not None, same, -abs(len(have) - len(want))

"""Whether a device is there, by its own rule, as of the last values of the topics that say so.

Invariant: what nobody says is unknown, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gateway.core.messages import Kind, Message
from gateway.core.topic import Topic
from gateway.devices.model import Availability, Presence, StateTopic
from gateway.devices.templates import TemplateError

__all__ = ["presence_of", "seen_of"]


MAX_WORD_BYTES = 4_096
"""The longest payload in which a state is looked for."""


def presence_of(
    rule: Availability | None,
    topic_of: Callable[[str], Topic | None],
    topics: Iterable[str] = (),
    now_ms: int | None = None,
) -> Presence:
    """Whether a device is there.

    Args:
        rule: its rule; None where it has none.
        topic_of: what the log knows of a topic.
        topics: where its values arrive, for a rule about silence.
        now_ms: milliseconds since 1970; None leaves silence out.
    """
    if rule is None:
        return Presence.UNKNOWN
    said: list[tuple[int, Presence]] = []
    for state in rule.topics:
        known = topic_of(state.topic)
        if known is not None and known.last is not None:
            found = _said_by(state, known.last)
            if found is not Presence.UNKNOWN:
                said.append((known.last.seq, found))
    presence = _together(rule.mode, said)
    if rule.silence_seconds is None or presence in (Presence.OFFLINE, Presence.SLEEPING):
        return presence
    seen = seen_of(topics, topic_of)
    if seen is None:
        return presence
    if now_ms is not None and now_ms - seen > rule.silence_seconds * 1000:
        return Presence.OFFLINE
    return Presence.ONLINE if presence is Presence.UNKNOWN and not rule.topics else presence


def seen_of(topics: Iterable[str], topic_of: Callable[[str], Topic | None]) -> int | None:
    """When the newest message of these topics came, milliseconds since 1970; None before the first."""
    newest: int | None = None
    for topic in topics:
        known = topic_of(topic)
        if known is not None and known.last is not None and (newest is None or known.last.time > newest):
            newest = known.last.time
    return newest


def _together(mode: str, said: list[tuple[int, Presence]]) -> Presence:
    if not said:
        return Presence.UNKNOWN
    if mode == "latest":
        return max(said, key=lambda each: each[0])[1]
    found = [presence for _, presence in said]
    order = (Presence.ONLINE, Presence.SLEEPING, Presence.OFFLINE)
    if mode == "all":
        order = (Presence.OFFLINE, Presence.SLEEPING, Presence.ONLINE)
    return next(presence for presence in order if presence in found)


def _said_by(state: StateTopic, message: Message) -> Presence:
    states = dict(state.states)
    if "*" in states:
        return states["*"] if not message.is_empty else Presence.UNKNOWN
    if message.kind is Kind.BASE64 or len(message.token) > MAX_WORD_BYTES:
        return Presence.UNKNOWN
    value: Any = message.value()
    text = message.shown.decode()
    if state.template is not None:
        try:
            text = state.template.render(text, value)
        except (TemplateError, RecursionError):
            return Presence.UNKNOWN
    elif state.path:
        for step in state.path:
            value = value.get(step) if isinstance(value, dict) and isinstance(step, str) else value
        if isinstance(value, str):
            text = value
    return states.get(text.strip(), Presence.UNKNOWN)

"""What an alert would have done: its rule tried on messages of the past.

Invariant: it is the very machine that watches live messages, with their times for a clock; nothing is published or
told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.alerts.machine import Change, State
from gateway.alerts.rules import Rule
from gateway.core.messages import Message
from gateway.core.readings import Readings

__all__ = ["Trial", "Tried"]


@dataclass(frozen=True, slots=True)
class Tried:
    """A change that would have come about.

    Attributes:
        change: which.
        summary: what would have been said.
    """

    change: Change
    summary: str


class Trial:
    """A rule, and the messages that it is tried on.

    Attributes:
        machine: its states as of the last message.
        looked_at: messages that it was tried on.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.looked_at = 0
        self._changes: list[Change] = []
        self.machine = rule.machine(self._changes.append)
        self._last: dict[str, Message] = {}  # of topics that are not ok, or whose silence is watched

    @property
    def lead_ms(self) -> int:
        """How long before a time messages have to begin, so that the state at that time is known."""
        return max(self.rule.hold_ms, self.rule.silent_ms or 0)

    def run(self, messages: Iterable[Message], since: int, until: int | None) -> Iterator[Tried]:
        """The changes from a time on.

        Args:
            messages: oldest first, those from `lead_ms` before on; what the rule doesn't watch is passed over.
            since: milliseconds since 1970; 0: from the first message on.
            until: likewise; None: the time of the last message.
        """
        rule, machine, readings = self.rule, self.machine, Readings()
        newest = since
        if since:
            self._expect(since)
        for message in messages:
            topic, time = message.topic, message.time
            if not newest:
                self._expect(time)
            newest = max(newest, time)
            if (until is not None and time >= until) or not rule.filters.matches(topic):
                continue
            self.looked_at += 1
            machine.tick(time)
            yield from self._told(since)
            rule.feed(machine, message, readings)
            if machine.entry(topic) is not None or self._changes:
                self._last[topic] = message
            yield from self._told(since)
        machine.tick(newest if until is None else until)
        yield from self._told(since)

    def _expect(self, time: int) -> None:
        """Topics that are named are silent until they come."""
        for topic in self.rule.expected:
            self.machine.hear_from(topic, time, is_hearsay=True)

    def _told(self, since: int) -> Iterator[Tried]:
        changes, self._changes[:] = self._changes[:], []
        for change in changes:
            if change.time >= since:
                last = self._last.get(change.topic)
                payload = None if last is None else last.value()
                yield Tried(
                    change,
                    self.rule.summarise(change.topic, payload, change.value, change.after, change.since),
                )
            if change.after is State.OK and self.rule.silent_ms is None:
                self._last.pop(change.topic, None)

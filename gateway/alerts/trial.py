"""What an alert would have done: its rule tried on messages of the past.

Invariant: it is the very machine that watches live messages, with their times for a clock; nothing is published or
told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.alerts.absences import Absences, place_in
from gateway.alerts.machine import Change, State
from gateway.alerts.rules import Rule
from gateway.core.history import History
from gateway.core.messages import Message
from gateway.core.readings import Readings
from gateway.core.snapshots import Arrived, take_back
from gateway.devices.model import Presence
from gateway.devices.presence import presence_of, seen_of
from gateway.devices.registry import Registry

__all__ = ["QUIET_MS", "DeviceTrial", "Trial", "Tried"]

QUIET_MS = 60_000
"""So long nothing comes of any topic, and it may be the gateway that was away, or the broker."""


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


class DeviceTrial:
    """A rule about devices, and a log of the past in which they are announced and speak.

    The broker is taken to have been there all the time, since a past without messages doesn't say who was away.

    Attributes:
        machine: its states as of the last message.
        looked_at: messages that came in the time that is asked for.
        quiet: how often it fired while nothing came of any topic for `QUIET_MS` or longer.
    """

    def __init__(self, rule: Rule, *, max_devices: int, max_bytes: int, max_topics: int, history_bytes: int) -> None:
        """Nothing is known.

        Args:
            rule: which.
            max_devices: as `Registry` has it.
            max_bytes: likewise.
            max_topics: as `History` has it.
            history_bytes: its `max_bytes`.
        """
        self.rule = rule
        self.looked_at = 0
        self.quiet = 0
        self._now = self._newest = self._fired = 0
        self._changes: list[Change] = []
        self.machine = rule.machine(self._changes.append)
        # of each topic the newest message counts, however old it is
        self._history = History(max_messages=1, max_topics=max_topics, max_bytes=history_bytes, max_age_ms=1 << 50)
        self._history.retained_as_published = True
        self._registry = Registry(self._history, max_devices=max_devices, max_bytes=max_bytes)
        self._absences = Absences(
            [(rule, self.machine)], registry=self._registry, history=self._history, wall_clock_ms=lambda: self._now
        )

    def devices(self) -> tuple[int, int]:
        """Devices that it watches, as of the last message; and how many of them never said whether they are there."""
        topic_of, count, unknown = self._history.topic, 0, 0
        for device in self._registry.devices():
            if place_in(self.rule, device) is None:
                continue
            count += 1
            rule = device.rule
            is_timed = rule is not None and rule.silence_seconds is not None
            if presence_of(rule, topic_of, device.values) is Presence.UNKNOWN:
                unknown += not (is_timed and seen_of(device.values, topic_of))
        return count, unknown

    @property
    def refused(self) -> int:
        """Parts of devices that had no room."""
        return self._registry.refused

    def run(self, messages: Iterable[Arrived], since: int, until: int | None) -> Iterator[Tried]:
        """The changes from a time on.

        Args:
            messages: of all topics, in their order; before those that came from `since` on the newest ones of each
                topic that came before.
            since: milliseconds since 1970.
            until: likewise; None: the time of the last message.
        """
        for message in messages:
            if until is not None and message.time >= until:
                continue
            yield from self._wait_until(message.time, since)
            self._is_heard()
            self.looked_at += message.time >= since
            take_back(self._history, message)
            for _ in self._registry.work():
                pass
            for device in self._registry.devices_of(message.topic):
                if self._absences.stands(device):
                    self._absences.note(device)
            yield from self._look(since)
        if until is not None:
            yield from self._wait_until(until, since)
            self._is_heard()

    def _wait_until(self, time: int, since: int) -> Iterator[Tried]:
        """Lets come about what is due until then, each at its time."""
        while True:
            due = self.machine.next_due
            date = min(self._absences.next_date, float("inf") if due is None else due, self._history.next_expiry)
            if date > time:
                break
            self._now = max(self._now, int(date))
            self._history.expire(self._now)
            for _ in self._registry.work():
                pass
            yield from self._look(since)
        self._now = max(self._now, time)

    def _is_heard(self) -> None:
        """Something comes, or the end."""
        if self._now - self._newest >= QUIET_MS:
            self.quiet += self._fired
        self._newest, self._fired = self._now, 0

    def _look(self, since: int) -> Iterator[Tried]:
        self.machine.tick(self._now)
        self._absences.step(is_connected=True)
        while self._absences.has_work:
            self._absences.step(is_connected=True)
        changes, self._changes[:] = self._changes[:], []
        for change in changes:
            if change.time >= since:
                self._fired += change.after is State.FIRING and change.time > self._newest
                known = self._history.topic(change.topic)
                payload = None if known is None or known.last is None else known.last.value()
                yield Tried(
                    change,
                    self.rule.summarise(change.topic, payload, change.value, change.after, change.since),
                )

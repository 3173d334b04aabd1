"""The states of one alert, topic by topic: ok, pending, firing.

An alert is about a condition that holds (`where`, perhaps for some time), or about silence. Times of messages and the
clock are handed in, in milliseconds since 1970.

Invariant: what becomes due before a message comes first, so that the states do not depend on how often the clock is
looked at. Topics that are ok take no room, except where silence is watched; the number of the others is bounded, and
what had no room is counted. What a message says of the condition is for `rules`, who is told for `alerts`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any

__all__ = ["MAX_TOPICS", "Change", "Entry", "Machine", "State"]

MAX_TOPICS = 10_000
"""Topics of one alert whose state is known."""

SPARE_DATES = 64
"""Dates of topics that are gone, beside as many as there are topics, before the queue is cleared up."""


class State(enum.StrEnum):
    """How it is with an alert, for one topic or in all."""

    OK = "ok"
    PENDING = "pending"
    """The condition holds, but not yet for as long as it has to."""
    FIRING = "firing"


@dataclass(frozen=True, slots=True)
class Change:
    """A topic has another state.

    Attributes:
        topic: its name.
        before, after: the states.
        time: when it came about.
        since: when that began which `after` is about: the condition held, or the last message came; or, for ok, ended.
        value: what was read last; None where there is none.
    """

    topic: str
    before: State
    after: State
    time: int
    since: int
    value: Any


class Entry:
    """What is known of one topic.

    Attributes:
        state: its state.
        since: when the condition began to hold, or the last message came.
        due: when it fires, if nothing comes between.
        queued: the date under which it stands in the queue; 0 for none.
        value: what was read last.
        is_hearsay: nothing came but what the broker kept: it may be as old as it likes.
        is_retained: the broker keeps its last message.
    """

    __slots__ = ("due", "is_hearsay", "is_retained", "queued", "since", "state", "value")

    def __init__(self, since: int) -> None:
        self.state = State.OK
        self.since = since
        self.due = since
        self.value: Any = None
        self.queued = 0
        self.is_hearsay = False
        self.is_retained = False


class Machine:
    """The topics of one alert.

    Attributes:
        counts: topics by state; of those that are ok only those whose silence is watched.
        left_out: messages that would have given another topic a state, had there been room.
        changes: how often a topic came into each state.
        changed_at: when the last one did; 0 for never.
    """

    def __init__(
        self,
        *,
        hold_ms: int = 0,
        silent_ms: int | None = None,
        max_topics: int = MAX_TOPICS,
        on_change: Callable[[Change], None] = lambda _: None,
    ) -> None:
        """No topic is known.

        Args:
            hold_ms: how long the condition has to hold.
            silent_ms: how long a silence has to last; None: it is about a condition.
            max_topics: topics whose state is known at most.
            on_change: hears of every change, when it is done.
        """
        self.counts = dict.fromkeys(State, 0)
        self.changes = dict.fromkeys(State, 0)
        self.left_out = 0
        self.changed_at = 0
        self._hold = hold_ms
        self._silence = silent_ms
        self._max_topics = max_topics
        self._on_change = on_change
        self._entries: dict[str, Entry] = {}
        self._queue: list[tuple[int, str]] = []  # when to look at a topic: never later than it is due

    @property
    def state(self) -> State:
        """The worst state of any topic."""
        if self.counts[State.FIRING]:
            return State.FIRING
        return State.PENDING if self.counts[State.PENDING] else State.OK

    @property
    def next_due(self) -> int | None:
        """No topic fires before this; None: none is going to."""
        return self._queue[0][0] if self._queue else None

    def entry(self, topic: str) -> Entry | None:
        """What is known of a topic; None where it is ok, or not known."""
        return self._entries.get(topic)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """What is known, in the order in which it came to be known."""
        return iter(self._entries.items())

    def hear(
        self,
        topic: str,
        time: int,
        judge: Callable[[State], bool | None],
        read: Callable[[], Any] = lambda: None,
    ) -> None:
        """Takes a message to a topic whose condition is watched.

        Args:
            topic: its name.
            time: when it came.
            judge: says whether the condition holds, as far as that matters in a state; None where that can't be said,
                which changes nothing.
            read: what the message shows; asked only where that is kept.
        """
        entry = self._entries.get(topic)
        if entry is None:
            if not judge(State.OK) or (entry := self._add(topic, time)) is None:
                return
            holds: bool | None = True
        else:
            self._come_due(topic, entry, time)
            holds = judge(entry.state)
        if holds or (holds is None and entry.state is State.FIRING):
            value = read()
            entry.value = entry.value if value is None else value
        if holds:
            if entry.state is State.OK:
                entry.since, entry.due = time, time + self._hold
                self._put(topic, entry, State.FIRING if not self._hold else State.PENDING, time)
                if self._hold:
                    self._enqueue(topic, entry)
        elif holds is False:
            self._end(topic, entry, time)

    def hear_from(self, topic: str, time: int, *, is_retained: bool = False, is_hearsay: bool = False) -> None:
        """Takes a message to a topic whose silence is watched.

        Args:
            topic: its name.
            time: when it came.
            is_retained: the broker keeps it.
            is_hearsay: it came because the broker kept it: that breaks no silence.
        """
        silence = self._silence or 0
        entry = self._entries.get(topic)
        if entry is None:
            if (entry := self._add(topic, time)) is None:
                return
            entry.is_hearsay = is_hearsay
        elif is_hearsay:
            return
        else:
            self._come_due(topic, entry, time)
            entry.is_hearsay = False
            if entry.state is not State.OK:
                self._put(topic, entry, State.OK, time, since=time)
            entry.since = time
        entry.is_retained = is_retained
        entry.due = time + silence
        self._enqueue(topic, entry)

    def forget(self, topic: str, time: int) -> None:
        """A topic is gone: there is nothing more to say of it."""
        if (entry := self._entries.get(topic)) is not None:
            if entry.state is not State.OK:
                self._put(topic, entry, State.OK, time, since=time)
            self._remove(topic)

    def forget_all(self, time: int) -> None:
        """Begins anew; a silence that is watched is so from now on."""
        for topic in list(self._entries):
            self.forget(topic, time)

    def tick(self, now: int) -> None:
        """The clock says `now`."""
        while self._queue and self._queue[0][0] <= now:
            at, topic = heappop(self._queue)
            entry = self._entries.get(topic)
            if entry is None or entry.queued != at:
                continue  # it has gone, or stands under another date
            entry.queued = 0
            self._come_due(topic, entry, now)
            if self._is_waiting(entry):
                self._enqueue(topic, entry)

    def postpone(self, by_ms: int, heard_until: int) -> None:
        """A stretch of time doesn't count: what is waited for comes so much later.

        Args:
            by_ms: its length.
            heard_until: topics that came after this are not concerned.
        """
        for entry in self._entries.values():
            if entry.since <= heard_until and self._is_waiting(entry):
                entry.due += by_ms

    def restore(self, topic: str, state: State, since: int, value: Any) -> None:
        """Gives a topic the state that it had before a restart; nobody is told.

        What has been heard of it since stands, where its silence is watched.
        """
        if state is State.OK:
            return
        entry = self._entries.get(topic)
        if entry is None:
            if (entry := self._add(topic, since)) is None:
                return
            if self._silence is not None:
                entry.is_hearsay = True
        elif self._silence is not None and not entry.is_hearsay and entry.since > since:
            return
        entry.since = min(entry.since, since)
        entry.value = value if entry.value is None else entry.value
        wait = self._hold if self._silence is None else self._silence
        entry.due = entry.since + wait
        if entry.state is not State.FIRING:
            self.counts[entry.state] -= 1
            entry.state = state if state is State.FIRING or self._silence is None else State.OK
            self.counts[entry.state] += 1
        if self._is_waiting(entry):
            self._enqueue(topic, entry)

    def _is_waiting(self, entry: Entry) -> bool:
        return entry.state is (State.PENDING if self._silence is None else State.OK)

    def _add(self, topic: str, time: int) -> Entry | None:
        if len(self._entries) >= self._max_topics:
            self.left_out += 1
            return None
        entry = self._entries[topic] = Entry(time)
        self.counts[State.OK] += 1
        return entry

    def _remove(self, topic: str) -> None:
        entry = self._entries.pop(topic)
        self.counts[entry.state] -= 1

    def _end(self, topic: str, entry: Entry, time: int) -> None:
        if entry.state is not State.OK:
            self._put(topic, entry, State.OK, time, since=time)
        self._remove(topic)

    def _come_due(self, topic: str, entry: Entry, time: int) -> None:
        if self._is_waiting(entry) and entry.due <= time:
            self._put(topic, entry, State.FIRING, entry.due)

    def _put(self, topic: str, entry: Entry, state: State, time: int, since: int | None = None) -> None:
        before = entry.state
        self.counts[before] -= 1
        self.counts[state] += 1
        self.changes[state] += 1
        entry.state = state
        self.changed_at = time
        self._on_change(Change(topic, before, state, time, entry.since if since is None else since, entry.value))

    def _enqueue(self, topic: str, entry: Entry) -> None:
        """Has a topic looked at when it is due, or sooner: that the date has moved on is found out then."""
        if entry.queued and entry.queued <= entry.due:
            return
        entry.queued = max(entry.due, 1)
        heappush(self._queue, (entry.queued, topic))
        if len(self._queue) > 2 * len(self._entries) + SPARE_DATES:
            self._queue = [(one.queued, name) for name, one in self._entries.items() if one.queued]
            heapify(self._queue)

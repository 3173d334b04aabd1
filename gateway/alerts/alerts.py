"""All alerts of one gateway: fed with messages and the clock, kept over restarts, reported.

What is kept is what is published: the retained message of each alert, `gateway/alerts/<name>`. It is in the log after a
restart, from the archive where there is one, else from the broker, which sends it again. Until it must be there
(`settle`), nothing is published or told.

Invariant: nothing here waits, and nothing that a message holds stops it. Publishing is `runner`'s, telling `webhooks`'.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import msgspec

from gateway.access.budget import TokenBucket
from gateway.alerts.absences import Absences
from gateway.alerts.machine import Change, Entry, State
from gateway.alerts.rules import Rule, is_cleared
from gateway.core.durations import duration_text
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.core.messages import Message
from gateway.core.readings import Readings
from gateway.core.subscribers import Group
from gateway.core.topics import has_wildcard, matches, overlap
from gateway.devices.registry import Registry

__all__ = ["MAX_LISTED", "Alert", "Alerts", "Notice"]

logger = logging.getLogger(__name__)

MAX_LISTED = 1_000
"""Topics of one alert that are named where its state is told. Those beyond begin anew after a restart."""

MAX_TOLD = 5
"""Alerts of which `explain` speaks."""

AT_ONCE = 64
"""Topics that are looked at before the work may be interrupted."""

LOGGED_PER_SECOND = 5.0
LOGGED_AT_ONCE = 100
"""Changes that are logged; others are counted."""

_LARGEST_STEP_MS = 2_000
"""The wall clock may be that far from what has passed; beyond it was set."""


class _StoredTopic(msgspec.Struct):
    topic: str
    state: State
    since: int
    value: bool | int | float | str | None = None


class _Stored(msgspec.Struct):
    """What is read back of a report."""

    topics: list[_StoredTopic] = []


@dataclass(frozen=True, slots=True)
class Notice:
    """A topic began or ceased to fire, and somebody is to be told.

    Attributes:
        rule: of which alert.
        change: what came about.
        summary: what is said of it.
    """

    rule: Rule
    change: Change
    summary: str


class Alert:
    """One alert that is watched.

    Attributes:
        rule: what it is about.
        machine: its states.
        missed: messages that history had evicted before they could be looked at.
        is_due: its report is to be published.
    """

    __slots__ = ("group", "is_due", "machine", "missed", "rule")

    def __init__(self, rule: Rule, on_change: Callable[[Alert, Change], None]) -> None:
        self.rule = rule
        self.machine = rule.machine(partial(on_change, self))
        self.missed = 0
        self.is_due = False
        self.group: Group | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        return self.rule.name

    def miss(self, count: int) -> None:
        """Messages are gone that it was to look at."""
        self.missed += count


class Alerts:
    """The alerts that are set.

    Attributes:
        alerts: them, by name.
        prefix: the levels before the name in the topic of an alert.
        is_settled: what was known before a restart is known again: from now on changes are told.
        failures: messages that could not be looked at, for a fault of ours.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        *,
        history: History,
        prefix: str,
        wall_clock_ms: Callable[[], int],
        clock: Callable[[], float],
        registry: Registry,
        is_shared: bool = False,
    ) -> None:
        """Nothing is known yet.

        Args:
            rules: what to watch.
            history: the log.
            prefix: the levels before the name in the topic of an alert.
            wall_clock_ms: milliseconds since 1970.
            clock: monotonic seconds.
            registry: which devices there are.
            is_shared: the log is that of a cluster: each node judges, and the leader, which alone is settled, tells.
                What the broker repeats is no news already where it is written.
        """
        self.alerts: Mapping[str, Alert] = {rule.name: Alert(rule, self._changed) for rule in rules}
        self.prefix = prefix
        self.is_settled = False
        self.failures = 0
        self.on_notice: Callable[[Notice], None] = lambda _: None
        self.listeners: set[Callable[[Alert], None]] = set()
        """They hear of each alert with another state, or another topic in one."""
        self._history = history
        self._own = f"{prefix}/"
        self._is_shared = is_shared
        self._wall_clock_ms = wall_clock_ms
        self._clock = clock
        self._logged = TokenBucket(LOGGED_PER_SECOND, LOGGED_AT_ONCE)
        self._unheard_since: float | None = clock()  # by `clock`; None while the broker is there
        self._heard_ms = 0  # when anything was heard before this start
        self._ticked: tuple[float, int] = (clock(), wall_clock_ms())
        about = [(alert.rule, alert.machine) for alert in self.alerts.values() if alert.rule.is_about_devices]
        self._absences = (
            Absences(about, registry=registry, history=history, wall_clock_ms=wall_clock_ms) if about else None
        )

    def watch(self, hub: Hub) -> None:
        """Looks at every message from now on."""
        for alert in self._about_messages():
            alert.group = hub.watch(alert.rule.filters.filters, partial(self._look, alert), alert.miss)
        hub.watch([f"{self.prefix}/+"], self._look_at_own, lambda _: None)

    def _about_messages(self) -> list[Alert]:
        return [alert for alert in self.alerts.values() if not alert.rule.is_about_devices]

    def begin(self) -> Iterator[None]:
        """Looks at what the log has already, some topics at each step; nothing may come meanwhile."""
        readings = Readings()
        for number, topic in enumerate(list(self._history.topics())):
            if number % AT_ONCE == 0:
                yield
            if topic.last is None:
                continue
            self._heard_ms = max(self._heard_ms, topic.last.time)
            for alert in self._about_messages():
                if alert.rule.filters.matches(topic.name):
                    self._look(alert, topic.last, readings, is_live=False)
        now = self._wall_clock_ms()
        for alert in self.alerts.values():
            for text in alert.rule.expected:
                if alert.machine.entry(text) is None:
                    alert.machine.hear_from(text, now, is_hearsay=True)

    # messages

    def _look(self, alert: Alert, message: Message, readings: Readings, *, is_live: bool = True) -> None:
        if message.topic.startswith(self._own):
            return
        is_hearsay = is_live and message.retained and not (self.is_settled or self._is_shared)
        try:
            alert.rule.feed(alert.machine, message, readings, is_hearsay=is_hearsay)
        except Exception:  # whatever it is, other messages and others who look at this one go on
            self.failures += 1
            if self.failures == 1:
                logger.exception("alert %s: a message could not be looked at", alert.name)

    def _look_at_own(self, message: Message, _readings: Readings) -> None:
        """An empty message to the topic of an alert begins it anew."""
        alert = self.alerts.get(message.topic.removeprefix(self._own))
        if alert is not None and (self.is_settled or self._is_shared) and is_cleared(message):
            logger.info("alert %s: begun anew, since its topic was cleared", alert.name)
            alert.machine.forget_all(message.time)
            self._is_news(alert)
            if self._absences is not None and alert.rule.is_about_devices:
                self._absences.look_at_all()

    # the clock

    def tick(self, is_connected: bool) -> None:
        """Lets what is due come about, as far as everything before has been looked at."""
        now, now_ms = self._clock(), self._wall_clock_ms()
        before, before_ms = self._ticked
        self._ticked = now, now_ms
        step = now_ms - before_ms - int((now - before) * 1000)
        if step > _LARGEST_STEP_MS:
            for alert in self.alerts.values():  # the clock was set forward, or the machine slept
                alert.machine.postpone(step, before_ms)
        if not is_connected:
            if self._unheard_since is None:
                self._unheard_since = now
        elif self._unheard_since is not None:
            waited = int((now - self._unheard_since) * 1000)
            if self._heard_ms:
                waited = max(waited, now_ms - self._heard_ms)
                self._heard_ms = 0
            self._unheard_since = None
            for alert in self.alerts.values():
                if alert.rule.silent_ms is not None:
                    alert.machine.postpone(waited, now_ms - waited)
        if self._absences is not None:
            self._absences.step(is_connected=is_connected)
        for alert in self.alerts.values():
            # who can't be heard isn't silent, and what has yet to be looked at may have said that it is over
            if (is_connected or alert.rule.silent_ms is None) and not (alert.group and alert.group.put_off):
                alert.machine.tick(now_ms)

    def wait_seconds(self) -> float:
        """How long nothing becomes due; infinite where nothing will."""
        if self._absences is not None and self._absences.has_work:
            return 0.0
        dates = [due for alert in self.alerts.values() if (due := alert.machine.next_due) is not None]
        return max((min(dates) - self._wall_clock_ms()) / 1000, 0.0) if dates else float("inf")

    # restarts

    def settle(self) -> None:
        """Takes up what was known before a restart; from now on changes are told. A second call does nothing."""
        if self.is_settled:
            return
        readings = Readings()
        for alert in self.alerts.values():
            machine = alert.machine
            fired = self._take_up(alert, readings)
            # the loop above told nobody: what is different from before is told now
            for topic, entry in list(machine.entries()):
                if entry.state is State.FIRING and topic not in fired:
                    self._tell(alert, Change(topic, State.OK, State.FIRING, entry.due, entry.since, entry.value))
            for topic, stored in fired.items():
                left = machine.entry(topic)
                if left is None or left.state is not State.FIRING:
                    at = machine.changed_at or self._wall_clock_ms()
                    self._tell(alert, Change(topic, State.FIRING, State.OK, at, at, stored.value))
            alert.is_due = self._last_report(alert) != encode_report(self.report(alert))
        self.is_settled = True
        if self._absences is not None:
            self._absences.look_at_all()

    def take_up(self) -> None:
        """Takes the state over that others have told, as far as it isn't known here; nobody is told of anything."""
        readings = Readings()
        for alert in self.alerts.values():
            self._take_up(alert, readings)
        if self._absences is not None:
            self._absences.look_at_all()

    def unsettle(self) -> None:
        """Others tell from now on, until `settle`."""
        self.is_settled = False

    def _take_up(self, alert: Alert, readings: Readings) -> dict[str, _StoredTopic]:
        """Restores what was told last, and looks at what came since; the topics that fired."""
        rule, fired = alert.rule, {}
        for stored in self._stored(alert):
            if not rule.filters.matches(stored.topic):
                continue
            alert.machine.restore(stored.topic, stored.state, stored.since, stored.value)
            if stored.state is State.FIRING:
                fired[stored.topic] = stored
            known = self._history.topic(stored.topic)
            if rule.where is not None and known is not None and known.last is not None:
                self._look(alert, known.last, readings)
        return fired

    def _last_report(self, alert: Alert) -> bytes | None:
        known = self._history.topic(self.topic_of(alert))
        return None if known is None or known.last is None else known.last.payload

    def _stored(self, alert: Alert) -> list[_StoredTopic]:
        """What the last report says; nothing where there is none that can be read."""
        payload = self._last_report(alert)
        try:
            return msgspec.json.decode(payload, type=_Stored).topics if payload else []
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            logger.warning("alert %s: what %s says can't be read: %s", alert.name, self.topic_of(alert), error)
            return []

    # what came about

    def _changed(self, alert: Alert, change: Change) -> None:
        self._is_news(alert)
        if self.is_settled and State.FIRING in (change.before, change.after):
            self._tell(alert, change)

    def _is_news(self, alert: Alert) -> None:
        alert.is_due = True
        for listener in list(self.listeners):
            listener(alert)

    def _tell(self, alert: Alert, change: Change) -> None:
        notice = Notice(
            alert.rule, change, self.summarise(alert, change.topic, change.after, change.since, change.value)
        )
        if self._logged.take(self._clock()):
            logger.info("alert %s: %s: %s", alert.name, change.after, notice.summary)
        self.on_notice(notice)

    def summarise(self, alert: Alert, topic: str, state: State, since: int, value: Any) -> str:
        """What is said of a topic now."""
        known = self._history.topic(topic)
        last = None if known is None else known.last
        return alert.rule.summarise(topic, None if last is None else last.value(), value, state, since)

    # reports

    def topic_of(self, alert: Alert) -> str:
        """Where its state is published."""
        return self._own + alert.name

    def report(self, alert: Alert) -> dict[str, Any]:
        """How it is with an alert."""
        steps = self.report_in_steps(alert)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                found: dict[str, Any] = done.value
                return found

    def report_in_steps(
        self, alert: Alert, may_read: Callable[[str], bool] | None = None
    ) -> Generator[None, None, dict[str, Any]]:
        """How it is with an alert, as far as somebody may know; yields all along, so that it can be done in turns.

        Args:
            alert: which.
            may_read: whether a topic may be told of, None for all; the state is that of these topics.
        """
        machine = alert.machine
        known: list[tuple[bool, int, str, Entry]] = []
        for number, (topic, entry) in enumerate(list(machine.entries())):
            if number % AT_ONCE == AT_ONCE - 1:
                yield
            if entry.state is not State.OK and (may_read is None or may_read(topic)):
                known.append((entry.state is not State.FIRING, entry.since, topic, entry))
        known.sort(key=itemgetter(0, 1, 2))
        firing = sum(not is_pending for is_pending, *_ in known)
        report: dict[str, Any] = {
            "name": alert.name,
            "state": State.OK.value if not known else (State.FIRING if firing else State.PENDING).value,
            "since": known[0][1] if known else (machine.changed_at or None) if may_read is None else None,
            "firing": firing,
            "pending": len(known) - firing,
            "left_out": machine.left_out,
        }
        if known:
            _, since, topic, entry = known[0]
            summary = self.summarise(alert, topic, entry.state, since, entry.value)
            more = (firing or len(known)) - 1
            report |= {
                "topic": topic,
                "value": entry.value,
                "summary": summary if more <= 0 else f"{summary} and {more} more",
            }
            if alert.rule.reason is not None:
                report["reason"] = alert.rule.reason
            if alert.rule.reason == "silent":
                report["silent"] = duration_text((alert.rule.silent_ms or 0) / 1000)
        report["topics"] = [
            {
                "topic": topic,
                "state": (State.PENDING if is_pending else State.FIRING).value,
                "since": since,
                "value": entry.value,
            }
            for is_pending, since, topic, entry in known[:MAX_LISTED]
        ]
        return report

    def told_of(self, asked: str) -> list[str]:
        """What is to be said of the alerts that watch a topic, or topics that a filter matches; five at most."""
        found: list[str] = []
        for alert in self.alerts.values():
            rule, machine = alert.rule, alert.machine
            if not any(overlap(text, asked) for text in rule.filters.filters):
                continue
            if len(found) == MAX_TOLD:
                return [*found, "…"]
            if has_wildcard(asked):
                firing = (topic for topic, entry in machine.entries() if entry.state is State.FIRING)
                state = f"{sum(matches(asked, topic) for topic in firing)} of these topics fire"
            else:
                entry = machine.entry(asked)
                state = f"it is {State.OK if entry is None else entry.state}"
            found.append(f"{alert.name!r} ({rule.text}): {state}")
        return found


def encode_report(report: Mapping[str, Any]) -> bytes:
    """A report as it is published."""
    return msgspec.json.encode(report)

"""What an alert is about: its rule, and what a message says of it.

Invariant: a rule is a value that never changes; whatever a payload holds, judging it raises nothing and costs what a
viewer's `where` costs. States are `machine`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gateway.alerts.machine import Change, Machine, State
from gateway.core.conditions import Condition, compile_condition
from gateway.core.durations import duration_text
from gateway.core.filters import FilterSet
from gateway.core.messages import Kind, Message
from gateway.core.readings import Readings
from gateway.core.templates import MAX_VALUE_LENGTH, Template
from gateway.core.topics import has_wildcard
from gateway.settings.alerting import AlertSettings
from gateway.settings.values import SUMMARY_NAMES, negated

__all__ = ["Rule", "is_cleared", "rules_of"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert, as it is set.

    Attributes:
        name: what it is called.
        filters: topics that it watches.
        where: the condition; None where it watches for silence, or devices.
        until: what ends it once it fires; None: that `where` no longer holds.
        hold_ms: how long the condition has to hold, or a device to be away.
        silent_ms: how long a silence has to last; None where it watches a condition.
        is_about_devices: whether it is about devices that are offline: no message is shown to it.
        summary: what is said of a topic that fires.
        reason: `where`, `silent` or `offline`, where `summary` is the gateway's own wording of that; else None.
        webhooks: names of those that are told.
    """

    name: str
    filters: FilterSet
    where: Condition | None
    until: Condition | None
    hold_ms: int
    silent_ms: int | None
    summary: Template
    webhooks: tuple[str, ...] = ()
    is_about_devices: bool = False
    reason: str | None = None
    _not_where: Condition | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: AlertSettings) -> Rule:
        """The rule that these settings describe."""
        where, silent = settings.where, settings.silent
        summary, reason = settings.summary, None
        if summary is None:
            reason = "offline" if settings.offline else "where" if silent is None else "silent"
            escaped = (where or "").replace("{", "{{").replace("}", "}}")
            summary = f"{{topic}}: {escaped} ({{value}})" if silent is None else "{topic}: silent for {silent}"
            if settings.offline:
                summary = "{value} is offline ({topic})"
        return cls(
            name=settings.name,
            filters=FilterSet(settings.topics),
            where=None if where is None else compile_condition(where),
            until=None if settings.until is None else compile_condition(settings.until),
            hold_ms=int(settings.hold * 1000),
            silent_ms=None if silent is None else int(silent * 1000),
            summary=Template(summary, SUMMARY_NAMES),
            webhooks=settings.webhook,
            is_about_devices=settings.offline,
            reason=reason,
            _not_where=None if where is None else compile_condition(negated(where)),
        )

    @property
    def text(self) -> str:
        """What it watches for, for people."""
        if self.silent_ms is not None:
            return f"silent for {duration_text(self.silent_ms / 1000)}"
        about = "offline" if self.where is None else self.where.text
        return about + (f" for {duration_text(self.hold_ms / 1000)}" if self.hold_ms else "")

    @property
    def expected(self) -> tuple[str, ...]:
        """Topics that are silent until they come: those that are named where silence is watched."""
        return () if self.silent_ms is None else tuple(f for f in self.filters.filters if not has_wildcard(f))

    def machine(self, on_change: Callable[[Change], None]) -> Machine:
        """The states of this alert; no topic is known. `on_change` hears of every change."""
        return Machine(hold_ms=self.hold_ms, silent_ms=self.silent_ms, on_change=on_change)

    def feed(self, machine: Machine, message: Message, readings: Readings, *, is_hearsay: bool = False) -> None:
        """Shows a message that the rule watches to its machine.

        Args:
            machine: as `machine` made it.
            message: which.
            readings: what payloads say.
            is_hearsay: it came because the broker kept it: that breaks no silence.
        """
        topic = message.topic
        if self.silent_ms is not None:
            if is_cleared(message) and (entry := machine.entry(topic)) is not None and entry.is_retained:
                machine.forget(topic, message.time)
                return
            machine.hear_from(topic, message.time, is_retained=message.retained, is_hearsay=is_hearsay)
        elif is_cleared(message):
            machine.forget(topic, message.time)
        else:
            machine.hear(
                topic,
                message.time,
                lambda state: self.judge(state, message, readings),
                lambda: self.value_of(message, readings),
            )

    def judge(self, state: State, message: Message, readings: Readings) -> bool | None:
        """Whether the condition holds, as far as it matters in this state; None where that can't be said."""
        assert self.where is not None  # noqa: S101 - a silence is not judged
        if state is State.FIRING and self.until is not None:
            return False if _holds(self.until, message, readings) else None
        if _holds(self.where, message, readings):
            return True
        if state is State.OK:
            return False
        # a message that lacks the member says nothing of it
        return False if _holds(self._not_where or self.where, message, readings) else None

    def value_of(self, message: Message, readings: Readings) -> Any:
        """What a message shows of what the alert is about: a number, a state, a short text; None for anything else."""
        if message.kind is Kind.BASE64:
            return None
        found = readings.value(message)
        subject = None if self.where is None else self.where.subject
        for step in subject or ():
            try:
                found = found[step]
            except (LookupError, TypeError):
                return None
        if isinstance(found, str):
            return found[:MAX_VALUE_LENGTH]
        return found if isinstance(found, bool | int | float) else None

    def summarise(self, topic: str, payload: Any, value: Any, state: State, since: int) -> str:
        """What is said of a topic.

        Args:
            topic: its name.
            payload: the value of its last message; None where there is none.
            value: what `value_of` gave.
            state: its state.
            since: milliseconds since 1970.
        """
        values = {
            "name": self.name,
            "value": value,
            "state": state.value,
            "since": datetime.fromtimestamp(since / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "for": duration_text(self.hold_ms / 1000),
            "silent": duration_text((self.silent_ms or 0) / 1000),
        }
        return self.summary.fill(topic, payload, values)


def is_cleared(message: Message) -> bool:
    """Whether it has no payload: such a message takes a retained one away."""
    return message.kind is Kind.TEXT and message.token == b'""'


def _holds(condition: Condition, message: Message, readings: Readings) -> bool:
    if condition.is_too_large(message):
        return False
    return condition.holds(message.topic, readings.value(message)) is True


def rules_of(settings: tuple[AlertSettings, ...]) -> tuple[Rule, ...]:
    """The rules that are set."""
    return tuple(map(Rule.of, settings))

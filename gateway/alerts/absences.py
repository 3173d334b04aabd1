"""Devices whose absence is watched: what the registry knows of them, as states of alerts.

A device is away when its own rule says so (`devices/presence`). It stands in an alert under one of its topics that the
alert names, its values first, so that whoever may not read that learns nothing of it.

Invariant: who can't be heard isn't away: nothing is judged while the broker is away, and a silence begins anew when it
is back. A step looks at `AT_ONCE` devices at most, and at one that may only not have been heard when that can be said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from gateway.alerts.machine import Machine, State
from gateway.alerts.rules import Rule
from gateway.core.history import History
from gateway.devices.model import Presence
from gateway.devices.presence import presence_of, seen_of
from gateway.devices.records import Device
from gateway.devices.registry import Registry

__all__ = ["Absences", "place_in"]

AT_ONCE = 100
"""Devices that are looked at in one step."""


class Absences:
    """The devices that alerts watch.

    Attributes:
        looked_at: how often a device was.
    """

    def __init__(
        self,
        watched: Iterable[tuple[Rule, Machine]],
        *,
        registry: Registry,
        history: History,
        wall_clock_ms: Callable[[], int],
    ) -> None:
        """Hears of devices from now on.

        Args:
            watched: rules about absence, with their states.
            registry: which devices there are.
            history: the log.
            wall_clock_ms: milliseconds since 1970.
        """
        self.looked_at = 0
        self._watched = tuple(watched)
        self._registry = registry
        self._history = history
        self._wall_clock_ms = wall_clock_ms
        self._pending: dict[Device, None] = {}
        self._dates: list[tuple[int, int]] = []  # when a silence is too long, if it lasts, and the device's number
        self._dated: dict[int, tuple[int, Device]] = {}  # by number: under which date it stands in that heap
        self._places: dict[int, list[str | None]] = {}  # by number: under which topic it stands in each alert
        self._heard_from: int | None = None  # since when the broker has been there; None while it is away
        self._is_to_prune = False
        registry.listeners[self.note] = None
        self.look_at_all()

    @property
    def has_work(self) -> bool:
        """Whether devices wait to be looked at."""
        return bool(self._pending) and self._heard_from is not None

    @property
    def next_date(self) -> float:
        """When the next device is away that says nothing more, milliseconds since 1970; infinity where none will be."""
        return self._dates[0][0] if self._dates else float("inf")

    def stands(self, device: Device) -> bool:
        """Whether an alert has a state for it: it is away, or was when it was looked at last."""
        places = self._places.get(device.number, ())
        return any(
            place is not None and machine.entry(place) is not None
            for place, (_, machine) in zip(places, self._watched, strict=False)
        )

    def note(self, device: Device) -> None:
        """A device has changed, come or gone."""
        self._pending[device] = None

    def look_at_all(self) -> None:
        """Looks at every device again, and lets go of what no device stands for."""
        self._pending.update(dict.fromkeys(self._registry.devices()))
        self._is_to_prune = True

    def step(self, *, is_connected: bool) -> None:
        """Looks at some of what has changed.

        Args:
            is_connected: whether the broker is there.
        """
        now = self._wall_clock_ms()
        if not is_connected:
            self._heard_from = None
            return
        if self._heard_from is None:
            self._heard_from = now
        while self._dates and self._dates[0][0] <= now:
            date, number = heappop(self._dates)
            known = self._dated.get(number)
            if known is not None and known[0] == date:
                del self._dated[number]
                self._pending[known[1]] = None
        for device in list(self._pending)[:AT_ONCE]:
            del self._pending[device]
            self._look(device, now)
        if self._is_to_prune and not self._pending and not self._registry.has_work:
            self._is_to_prune = False
            self._prune(now)

    def _look(self, device: Device, now: int) -> None:
        self.looked_at += 1
        before = self._places.pop(device.number, None) or [None] * len(self._watched)
        places = [None if device.is_gone else place_in(rule, device) for rule, _ in self._watched]
        is_away = None
        if any(places):
            self._places[device.number] = places
            is_away = self._is_away(device, now)
        else:
            self._dated.pop(device.number, None)
        for (_, machine), old, new in zip(self._watched, before, places, strict=True):
            if old is not None and old != new:
                machine.forget(old, now)
            if new is not None and is_away is not None:
                machine.hear(new, now, _verdict(is_away), lambda: _name_of(device))

    def _is_away(self, device: Device, now: int) -> bool | None:
        """Whether it is; None where it may only not have been heard."""
        said = presence_of(device.rule, self._history.topic, device.values)
        if said is Presence.OFFLINE:
            return True
        rule = device.rule
        if rule is None or rule.silence_seconds is None or said is Presence.SLEEPING:
            return False
        seen = seen_of(device.values, self._history.topic)
        longest = int(rule.silence_seconds * 1000)
        heard = now if seen is None else max(seen, self._heard_from or now)
        if now - heard > longest:
            return True
        date, known = heard + longest + 1, self._dated.get(device.number)
        if known is None or date < known[0]:  # one that stands there sooner is only looked at once more
            self._dated[device.number] = date, device
            heappush(self._dates, (date, device.number))
        return None if seen is not None and now - seen > longest else False

    def _prune(self, now: int) -> None:
        """What a report from before a restart names, and no device is any more, is over."""
        for number, (_, machine) in enumerate(self._watched):
            known = {places[number] for places in self._places.values()}
            for topic in [topic for topic, _ in machine.entries() if topic not in known]:
                machine.forget(topic, now)


def _verdict(is_away: bool) -> Callable[[State], bool]:
    return lambda _: is_away


def place_in(rule: Rule, device: Device) -> str | None:
    """The topic under which a device stands in an alert; None where the alert isn't about it."""
    for topics in (device.values, device.topics):
        found = [topic for topic in topics if rule.filters.matches(topic)]
        if found:
            return min(found)
    return None


def _name_of(device: Device) -> str:
    parts = device.parts
    return next((part.name for part in parts if part.name), parts[0].keys[0])

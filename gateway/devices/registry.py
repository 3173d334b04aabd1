"""Which devices there are: what habits read of the log's last values, put together by the keys that parts share.

A topic is decided once, when the log meets it (`claims`). A message of a topic that no habit claims costs nothing here;
one of a topic that is claimed is noted, and what it belongs to is read again in `work`, in short steps. So a device is
always what the last values say: what the log brings back after a restart, or forgets, the registry does, too.

Invariant: whatever is announced, `work` raises nothing, and devices, parts and bytes stay within their bounds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from gateway.core.collector import untracked
from gateway.core.history import History
from gateway.core.messages import Kind, Message
from gateway.devices.habits import claim_of
from gateway.devices.model import AnnouncementError, Part, Problem
from gateway.devices.presence import presence_of
from gateway.devices.records import (
    BUNDLE_COST,
    DEVICE_COST,
    RANKS,
    WEAK,
    Bundle,
    Claim,
    Device,
    Inbox,
    Record,
    cost_of,
    rank_of,
    rule_of,
)

__all__ = ["Registry"]

logger = logging.getLogger(__name__)


MAX_ANNOUNCEMENT_BYTES = 8 * 2**20
"""The longest announcement that is read; Zigbee2MQTT tells all devices of a network in one."""

MAX_VALUE_BYTES = 256 * 1024
"""The longest message that is read for its form."""

MAX_PARTS = 1_000
"""Parts of one device."""

MAX_PROBLEMS = 20
"""Problems that are remembered of what belongs together."""

TOUCHED_AT_ONCE = 64
"""Announcements that are read before the devices that they are of are put in order."""


class Registry:
    """All devices.

    Attributes:
        bytes: what they take, by the counting of `max_bytes`.
        read: how often something announced was read, by habit.
        broken: how often it could not be, by habit.
        refused: parts that had no room.
        listeners: called with each device that has changed, come or gone.
    """

    def __init__(self, history: History, *, max_devices: int = 10_000, max_bytes: int = 64 * 2**20) -> None:
        """Begins to watch a log, which is best empty yet.

        Args:
            history: the log.
            max_devices: devices known at a time; 0 for none at all.
            max_bytes: memory for all of them.
        """
        self.history = history
        self.max_devices = max_devices
        self.max_bytes = max_bytes
        self.bytes = 0
        self.read: dict[str, int] = {}
        self.broken: dict[str, int] = {}
        self.refused = 0
        self.listeners: dict[Callable[[Device], None], None] = {}
        self.inbox = Inbox()
        self._bundles: dict[tuple[str, str], Bundle] = {}
        self._by_key: dict[str, Device] = {}
        self._devices: dict[int, Device] = {}
        self._weak: dict[Device, None] = {}
        self._is_working = False
        self._touched: dict[Device, None] = {}
        self._number = 0
        self._topics: dict[str, Device | dict[Device, None]] = {}
        self._states: dict[str, Device | dict[Device, None]] = {}
        if max_devices:
            history.watcher = self.claims

    # what the log tells

    def claims(self, name: str) -> Claim | None:
        """What a topic is that the log has just met; None: its messages need not be told."""
        claimed = claim_of(name)
        is_state = name in self._states
        if claimed is None:
            return Claim(self.inbox, None, False, True) if is_state else None
        at = (claimed.habit.name, claimed.key)
        bundle = self._bundles.get(at)
        if bundle is None:
            if self.bytes > self.max_bytes:
                self.refused += 1
                return Claim(self.inbox, None, False, True) if is_state else None
            bundle = self._bundles[at] = Bundle(claimed.habit, claimed.key)
            self.bytes += BUNDLE_COST + 2 * len(claimed.key)
        bundle.topics[name] = None
        return Claim(self.inbox, bundle, claimed.is_learned, is_state)

    @property
    def has_work(self) -> bool:
        """Whether something is to be looked at, or is being looked at."""
        return self._is_working or bool(self.inbox.bundles or self.inbox.states or self._touched)

    def work(self) -> Iterator[None]:
        """Looks at all that is to be looked at, in steps of some hundred microseconds."""
        self._is_working = True
        try:
            while self.inbox.bundles or self.inbox.states or self._touched:
                # what is taken from the beginning of a long dictionary one by one leaves a gap that is walked each time
                bundles, self.inbox.bundles = self.inbox.bundles, {}
                states, self.inbox.states = self.inbox.states, {}
                for number, bundle in enumerate(bundles, start=1):
                    yield from self._read(bundle)
                    if number % TOUCHED_AT_ONCE == 0:
                        yield from self._put_touched_in_order()
                yield from self._put_touched_in_order()
                for topic in states:
                    for number, device in enumerate(_several(self._states.get(topic)), start=1):
                        self._look_whether_there(device)
                        if number % 16 == 0:
                            yield
                    yield
        finally:
            self._is_working = False

    def _put_touched_in_order(self) -> Iterator[None]:
        touched, self._touched = self._touched, {}
        for device in touched:
            self._put_in_order(device)
            yield

    def silences(self, now_ms: int) -> Iterator[None]:
        """Looks at all devices for which nothing may be silent for too long, in steps."""
        for number, device in enumerate(list(self._devices.values()), start=1):
            if device.rule is not None and device.rule.silence_seconds is not None and not device.is_gone:
                self._look_whether_there(device, now_ms)
            if number % 16 == 0:
                yield

    # what is asked

    @property
    def count(self) -> int:
        """Devices known now."""
        return len(self._devices)

    def devices(self) -> Iterator[Device]:
        """All devices."""
        return iter(self._devices.values())

    def device(self, key: str) -> Device | None:
        """The device with that key."""
        return self._by_key.get(key)

    def devices_of(self, topic: str) -> list[Device]:
        """The devices that a topic belongs to."""
        return list(_several(self._topics.get(topic)))

    def problems_of(self, topic: str) -> list[str]:
        """What of the announcement that a topic is could not be read."""
        state = self.history.topic(topic)
        claim = None if state is None else state.watch
        if not isinstance(claim, Claim) or claim.bundle is None:
            return []
        return [problem.text for problem in claim.bundle.problems if problem.source == topic]

    # reading

    def _read(self, bundle: Bundle) -> Iterator[None]:
        known = _Known(self.history, bundle)
        digest = known.digest()
        if digest is not None and digest == bundle.digest:
            return  # it was only published again
        bundle.digest = digest
        name = bundle.habit.name
        found: dict[str, Part] = {}
        counts: dict[str, int] = {}
        problems: list[Problem] = []
        try:
            for item in bundle.habit.read(bundle.key, known):
                if isinstance(item, Part):
                    if RANKS[name] == WEAK:
                        fields = tuple(field for field in item.fields if not self._is_read_by_others(field.topic))
                        if not fields:
                            continue
                        if len(fields) < len(item.fields):
                            item = msgspec.structs.replace(item, fields=fields)
                    number = counts[item.keys[0]] = counts.get(item.keys[0], 0) + 1
                    # no tuple: it would have the collector look at each dictionary that it is a key of
                    found[item.keys[0] if number == 1 else f"{item.keys[0]} {number}"] = item
                elif item is not None:
                    problems.append(item)
                yield
        except AnnouncementError as error:
            problems.append(Problem(known.asked or bundle.key, str(error)))
        except Exception:
            logger.exception("an announcement of %s can't be read", name)
            problems.append(Problem(known.asked or bundle.key, "a fault of the gateway, see its log"))
        self.read[name] = self.read.get(name, 0) + 1
        if problems:
            self.broken[name] = self.broken.get(name, 0) + len(problems)
            if not bundle.problems:
                logger.info("%s: %s (%s)", problems[0].source, problems[0].text, name)
        bundle.problems = tuple(problems[:MAX_PROBLEMS])
        yield from self._take(bundle, found)
        if not bundle.topics and not bundle.records and self._bundles.pop((name, bundle.key), None) is not None:
            self.bytes -= BUNDLE_COST + 2 * len(bundle.key)

    def _is_read_by_others(self, topic: str) -> bool:
        return any(not device.is_weak for device in _several(self._topics.get(topic)))

    def _take(self, bundle: Bundle, found: dict[str, Part]) -> Iterator[None]:
        """Puts what was read in the place of what was read before."""
        for at in [at for at in bundle.records if at not in found]:
            if at in bundle.records:  # it may have had to make room meanwhile
                self._remove(bundle.records.pop(at))
            yield
        for at, part in found.items():
            record = bundle.records.get(at)
            if record is not None:
                if record.part == part:
                    continue
                if record.part.keys == part.keys:
                    self.bytes -= record.cost
                    record.part, record.cost = part, cost_of(part)
                    self.bytes += record.cost
                    self._changed(record.device)
                    if self.bytes > self.max_bytes:
                        self._remove(bundle.records.pop(at))
                        self.refused += 1
                    yield
                    continue
                self._remove(bundle.records.pop(at))
            self._add(bundle, at, part)
            yield

    # putting together

    def _add(self, bundle: Bundle, at: str, part: Part) -> None:
        devices = list(dict.fromkeys(found for key in part.keys if (found := self._by_key.get(key)) is not None))
        cost = cost_of(part)
        is_new = not devices
        self._make_room(cost + (DEVICE_COST if is_new else 0), is_new, rank_of(part) == WEAK)
        # some of them may have had to go
        devices = [device for device in devices if not device.is_gone]
        is_full = len(self._devices) >= self.max_devices and not devices
        if is_full or self.bytes + cost > self.max_bytes or sum(len(each.records) for each in devices) >= MAX_PARTS:
            self.refused += 1
            bundle.digest = None  # there may be room the next time
            return
        device = max(devices, key=lambda each: len(each.records)) if devices else self._new()
        record = bundle.records[at] = Record(bundle, part, cost, device)
        self.bytes += cost
        for other in devices:
            if other is not device:
                for moved in other.records:
                    moved.device = device
                    device.records[moved] = None
                self._by_key.update((key, device) for moved in other.records for key in moved.part.keys)
                other.records.clear()
                self._end(other)
        device.records[record] = None
        self._by_key.update((key, device) for key in part.keys)
        self._changed(device)

    def _new(self) -> Device:
        self._number += 1
        device = self._devices[self._number] = Device(self._number)
        self.bytes += DEVICE_COST
        return device

    def _make_room(self, cost: int, is_new: bool, is_weak: bool) -> None:
        """Lets devices go that were only guessed, the oldest first, for one that was announced."""
        while (
            not is_weak
            and self._weak
            and (self.bytes + cost > self.max_bytes or (is_new and len(self._devices) >= self.max_devices))
        ):
            for record in list(next(iter(self._weak)).records):
                record.bundle.records = {at: each for at, each in record.bundle.records.items() if each is not record}
                record.bundle.digest = None
                self._remove(record)
            self.refused += 1

    def _remove(self, record: Record) -> None:
        device = record.device
        del device.records[record]
        self.bytes -= record.cost
        kept: set[str] = set()
        for each in device.records:
            kept.update(each.part.keys)
        for key in record.part.keys:
            if key not in kept and self._by_key.get(key) is device:
                del self._by_key[key]
        if not device.records:
            self._end(device)
            return
        for some in self._split(device)[1:]:
            other = self._new()
            for each in some:
                del device.records[each]
                other.records[each] = None
                each.device = other
                self._by_key.update((key, other) for key in each.part.keys)
            self._changed(other)
        self._changed(device)

    def _split(self, device: Device) -> list[list[Record]]:
        """The parts of a device that still belong together, the most of them first."""
        groups: list[tuple[set[str], list[Record]]] = []
        for record in device.records:
            keys = set(record.part.keys)
            some = [record]
            apart: list[tuple[set[str], list[Record]]] = []
            for group in groups:
                if group[0].isdisjoint(keys):
                    apart.append(group)
                else:
                    keys |= group[0]
                    some += group[1]
            groups = [*apart, (keys, some)]
        return sorted((some for _, some in groups), key=len, reverse=True)

    def _end(self, device: Device) -> None:
        device.is_gone = True
        del self._devices[device.number]
        self.bytes -= DEVICE_COST
        self._weak.pop(device, None)
        self._changed(device)

    def _changed(self, device: Device) -> None:
        """Notes that a device is to be put in order: its entities are often announced one after the other."""
        self._touched[device] = None

    def _put_in_order(self, device: Device) -> None:
        """Makes anew what follows from the parts of a device, and tells who listens."""
        parts = device.parts
        topics: set[str] = set()
        values: set[str] = set()
        states: set[str] = set()
        for part in parts:
            topics.add(part.source)
            values.update(field.topic for field in part.fields)
            topics.update(command.topic for command in part.commands)
            if part.availability is not None:
                states.update(each.topic for each in part.availability.topics)
        device.rule = rule_of(parts)
        is_weak = bool(parts) and device.is_weak
        if is_weak:
            self._weak[device] = None
        else:
            self._weak.pop(device, None)
        before = device.topics
        device.values = untracked(frozenset(values))
        device.topics = self._index(self._topics, device, device.topics, untracked(frozenset(topics | values | states)))
        device.states = self._index(self._states, device, device.states, untracked(frozenset(states)))
        for topic in device.states:
            state = self.history.topic(topic)
            if state is not None:
                if isinstance(state.watch, Claim):
                    state.watch.is_state = True
                else:
                    state.watch = Claim(self.inbox, None, False, True)
        if not is_weak:
            # what was guessed from a topic gives way, or comes back
            for topic in before ^ device.topics:
                state = self.history.topic(topic)
                claim = None if state is None else state.watch
                if isinstance(claim, Claim) and claim.bundle is not None and RANKS[claim.bundle.habit.name] == WEAK:
                    self.inbox.look_at(claim.bundle)
        device.presence = presence_of(device.rule, self.history.topic, device.values)
        for listener in list(self.listeners):
            listener(device)

    @staticmethod
    def _index(
        index: dict[str, Device | dict[Device, None]], device: Device, before: frozenset[str], now: frozenset[str]
    ) -> frozenset[str]:
        for topic in now - before:
            have = index.get(topic)
            if have is None:
                index[topic] = device
            elif isinstance(have, dict):
                have[device] = None
            elif have is not device:
                index[topic] = {have: None, device: None}
        for topic in before - now:
            have = index.get(topic)
            if isinstance(have, dict):
                have.pop(device, None)
                if not have:
                    del index[topic]
            elif have is device:
                del index[topic]
        return now

    def _look_whether_there(self, device: Device, now_ms: int | None = None) -> None:
        presence = presence_of(device.rule, self.history.topic, device.values, now_ms)
        if presence is not device.presence:
            device.presence = presence
            for listener in list(self.listeners):
                listener(device)


class _Known:
    """What the log knows of the topics of a bundle."""

    def __init__(self, history: History, bundle: Bundle) -> None:
        self.asked = ""
        self._history = history
        self._bundle = bundle

    def digest(self) -> int | None:
        """Of the payload where there is one topic that an announcement is; None elsewhere."""
        if len(self._bundle.topics) != 1:
            return None
        state = self._history.topic(next(iter(self._bundle.topics)))
        if state is None or state.last is None or not isinstance(state.watch, Claim) or state.watch.is_learned:
            return None
        if state.is_released:
            return None
        return hash(state.last.token)

    def last(self, topic: str) -> Message | None:
        self.asked = topic
        state = self._history.topic(topic)
        message = None if state is None else state.last
        if message is not None and state is not None:
            claim = state.watch
            is_announced = isinstance(claim, Claim) and claim.bundle is not None and not claim.is_learned
            if is_announced and state.is_released:
                return None  # it was taken back while the gateway was away
            most = MAX_ANNOUNCEMENT_BYTES if is_announced else MAX_VALUE_BYTES
            if len(message.token) > most:
                raise AnnouncementError(f"it has {len(message.token)} bytes, at most {most} are read")
        return message

    def value(self, topic: str) -> Any:
        message = self.last(topic)
        if message is None or message.kind is Kind.BASE64 or message.is_empty:
            return None
        return message.value()

    def topics(self) -> Iterator[str]:
        return iter(list(self._bundle.topics))


def _several(found: Device | dict[Device, None] | None) -> tuple[Device, ...]:
    if found is None:
        return ()
    return tuple(found) if isinstance(found, dict) else (found,)

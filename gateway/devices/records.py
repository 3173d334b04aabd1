"""What the registry keeps: topics that are read together, their parts, the devices that these are, what is to be read.

Invariant: none of it has the collector's eye on it, and what leads from one to another and back is taken apart when
something goes. Who puts it together is `registry`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway.core.topic import Topic
from gateway.devices.habits import Habit
from gateway.devices.model import Availability, Part, Presence, Problem

__all__ = [
    "BUNDLE_COST",
    "DEVICE_COST",
    "RANKS",
    "WEAK",
    "Bundle",
    "Claim",
    "Device",
    "Inbox",
    "Record",
    "cost_of",
    "rank_of",
    "rule_of",
]


PART_COST, ITEM_COST, DEVICE_COST, BUNDLE_COST = 700, 450, 900, 500
"""Bytes that a part, each of its fields and commands, a device, and what is read together take, about, beside their
texts (`tests/test_devices.py` measures)."""

WEAK = 9
"""The rank of what was only guessed from the name of a topic: it gives way to everything else."""

RANKS = {
    "meta": 0, "zigbee2mqtt": 1, "tasmota": 2, "homie": 3, "sparkplug": 4, "home_assistant": 5, "shelly": 6,
    "esphome": 7, "home_made": WEAK,
}  # fmt: skip
"""Whose word goes before whose."""


# Hundreds of thousands live for hours: the collector need not look at them. What leads from one to another and back is
# taken apart when something goes (`_remove`, `_end`).


class Bundle(msgspec.Struct, gc=False, eq=False):
    """Topics that are read together.

    Attributes:
        habit, key: by whom, and with what.
        topics: their names.
        records: the parts that were read, by their first key and how often that came before.
        problems: what could not be read.
        digest: of the payload that was read last, where it is one of one topic.
    """

    habit: Habit
    key: str
    topics: dict[str, None] = msgspec.field(default_factory=dict)
    records: dict[str, Record] = msgspec.field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    digest: int | None = None


class Record(msgspec.Struct, gc=False, eq=False):
    """A part, what it takes, and the device that it is of."""

    bundle: Bundle
    part: Part
    cost: int
    device: Device


class Device(msgspec.Struct, gc=False, eq=False):
    """What parts that share a key are.

    Attributes:
        number: names it as long as it is known.
        records: its parts.
        topics: all that it reads, is announced by, takes commands at, or is there by.
        values: those where its values arrive.
        states: those that say whether it is there.
        rule: when it is there.
        presence: whether it was, when that was looked at last.
        is_gone: nothing announces it any more.
    """

    number: int
    records: dict[Record, None] = msgspec.field(default_factory=dict)
    topics: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    rule: Availability | None = None
    presence: Presence = Presence.UNKNOWN
    is_gone: bool = False

    @property
    def parts(self) -> list[Part]:
        """Its parts, those first whose word goes before that of others."""
        return sorted((record.part for record in self.records), key=lambda part: (rank_of(part), part.source))

    @property
    def is_weak(self) -> bool:
        """Whether only names of topics say that there is such a device."""
        return all(rank_of(record.part) == WEAK for record in self.records)


def rank_of(part: Part) -> int:
    """Whose word goes first: the lower."""
    return RANKS[part.habit]


class Inbox:
    """What is to be looked at again.

    Attributes:
        bundles: what is to be read.
        states: topics that say whether devices are there.
        wake: called when there is something, after there was nothing.
    """

    __slots__ = ("bundles", "states", "wake")

    def __init__(self) -> None:
        self.bundles: dict[Bundle, None] = {}
        self.states: dict[str, None] = {}
        self.wake: Callable[[], None] = _do_nothing

    def look_at(self, bundle: Bundle) -> None:
        """What belongs together is to be read again."""
        if not self.bundles and not self.states:
            self.wake()
        self.bundles[bundle] = None

    def look_at_state(self, topic: str) -> None:
        """Whether devices are there is to be looked at again."""
        if not self.bundles and not self.states:
            self.wake()
        self.states[topic] = None


class Claim(msgspec.Struct, gc=False, eq=False):
    """What a topic is to the registry: the log calls `note` with each of its messages."""

    inbox: Inbox
    bundle: Bundle | None
    is_learned: bool
    is_state: bool

    def note(self, topic: Topic) -> None:
        """A message of it has come, its last value has ended, or the log has forgotten it."""
        bundle = self.bundle
        # the form of values is looked at again after twice as many of them, or when they end
        if bundle is not None and (
            not self.is_learned
            or topic.count & (topic.count - 1) == 0
            or topic.last is None
            or topic.is_dropped
            or topic.last.is_empty
        ):
            if topic.is_dropped:
                bundle.topics.pop(topic.name, None)
            self.inbox.look_at(bundle)
        if self.is_state:
            self.inbox.look_at_state(topic.name)


def rule_of(parts: list[Part]) -> Availability | None:
    """The rule of the parts whose word goes first and that have one, put together."""
    having = [part for part in parts if part.availability is not None]
    if not having:
        return None
    first = [part.availability for part in having if rank_of(part) == rank_of(having[0]) and part.availability]
    topics = tuple(dict.fromkeys(topic for each in first for topic in each.topics))
    silences = [each.silence_seconds for each in first]
    silence = max((each for each in silences if each is not None), default=None)
    return Availability(topics, first[0].mode, None if None in silences else silence)


def cost_of(part: Part) -> int:
    """Bytes that a part takes, about."""
    texts = len(part.source) + len(part.name) + len(part.model) + len(part.manufacturer) + sum(map(len, part.keys))
    for field in part.fields:
        texts += len(field.id) + len(field.name) + len(field.topic) + len(field.problem)
    for command in part.commands:
        texts += len(command.id) + len(command.name) + len(command.topic) + len(command.before)
        texts += sum(len(word) + len(payload) + 160 for word, payload in command.payloads)
    return PART_COST + ITEM_COST * (len(part.fields) + len(part.commands)) + 2 * texts


def _do_nothing() -> None:
    pass

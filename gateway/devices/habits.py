"""All habits in one table: who claims a topic, how what is claimed is read, whose topic one is by its form.

Invariant: a topic is claimed by one habit at most, the first of the table; claiming looks at the name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from gateway.devices import (
    esphome,
    home_assistant,
    home_made,
    homie,
    native,
    shelly,
    sparkplug,
    tasmota,
    zigbee2mqtt,
)
from gateway.devices.model import Known, Part, Problem

__all__ = ["HABITS", "Claimed", "Habit", "claim_of", "owner_of"]


MAX_LEVELS = 24
"""Levels of a topic that a habit may claim."""


class Habit(NamedTuple):
    """A habit.

    Attributes:
        name: as devices tell by what they were announced.
        claim: of the levels of a topic: what it belongs to, and whether only the form of its messages matters.
        owner: of the levels of a topic: the key of the device whose it is.
        read: the devices of what belongs together; what it yields that is None is a pause.
    """

    name: str
    claim: Callable[[list[str]], tuple[str, bool] | None]
    owner: Callable[[list[str]], str | None]
    read: Callable[[str, Known], Iterator[Part | Problem | None]]


class Claimed(NamedTuple):
    """What a topic belongs to.

    Attributes:
        habit: whose it is.
        key: with what it is read.
        is_learned: whether only the form of its messages matters, not what each of them says.
    """

    habit: Habit
    key: str
    is_learned: bool


def owner_of(topic: str) -> str | None:
    """The key of the device whose topic it is, where its form says so."""
    levels = topic.split("/")
    if len(levels) > MAX_LEVELS:
        return None
    for habit in HABITS:
        if (found := habit.owner(levels)) is not None:
            return found
    return None


HABITS: tuple[Habit, ...] = (
    Habit(native.NAME, native.claim, native.owner, native.read),
    Habit(
        home_assistant.NAME,
        home_assistant.claim,
        home_assistant.owner,
        partial(home_assistant.read, owner_of=owner_of),
    ),
    *(
        Habit(module.NAME, module.claim, module.owner, module.read)
        for module in (zigbee2mqtt, tasmota, sparkplug, homie, shelly, esphome, home_made)
    ),
)


def claim_of(topic: str) -> Claimed | None:
    """Who claims a topic; None where nobody does, and for topics of the broker itself."""
    if topic[0] == "$":
        return None
    levels = topic.split("/")
    if len(levels) > MAX_LEVELS:
        return None
    for habit in HABITS:
        if (found := habit.claim(levels)) is not None:
            return Claimed(habit, *found)
    return None

"""When the work of shapes is done: at once while a turn of the loop has room for it, else in one of the next turns.

A group that has to wait is *put off*: what matches is counted, and read from history when its turn has come. It is a
position, as a slow subscriber is. Those who asked for a group pay for it in equal parts, and wait while they owe.

Invariant: in one turn of the loop no more than `SHAPING_SECONDS` and the work of one group for one message go into what
comes in, and as much into what goes out; and an address waits for no more than one step of each other one. What a group
makes of messages is its shaper's, who is written to the hub's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gateway.core.history import History
from gateway.core.memory import MemoryBudget
from gateway.core.messages import Message
from gateway.core.readings import Readings
from gateway.core.rotation import Rotation
from gateway.core.subscribers import Group

__all__ = ["SHAPING_SECONDS", "Shaping"]

SHAPING_SECONDS = 0.004
"""Processor time of shapes in one turn of the loop: a thousand small messages, or one or two with the most numbers."""

STEP_SECONDS = 0.002
"""Processor time after which a group that was put off lets the next one have its turn."""

SAMPLE = 16
LARGE_BYTES = 512
"""One in 16 messages is timed, and each with more bytes: the clock costs a tenth of a small message. Of the groups that
want the same messages another part is timed each time."""

LEAST_SHARE_SECONDS = 0.001
"""What each member of a group owes at least before it is charged: charging costs some microseconds."""

LONGEST_WAIT_SECONDS = 1.0
"""After so long it is asked again whether a group's members still owe."""


class Shaping:
    """The groups that have a shape, and the line of those that were put off.

    Attributes:
        spent: processor time of shapes in this turn of the loop, in seconds.
        is_full: this turn has no more room for what comes in.
        unpaid: processor time for which nobody was charged yet, in seconds.
        readings: what payloads say, read once for all groups.
    """

    def __init__(
        self,
        history: History,
        budget: MemoryBudget,
        *,
        call_soon: Callable[[Callable[[], None]], Any],
        call_later: Callable[[float, Callable[[], None]], Any],
        clock: Callable[[], float],
        has_more: Callable[[Group], None],
        give_up: Callable[[Group], None],
        fail: Callable[[Group, Exception], None],
        make_room: Callable[[], None],
    ) -> None:
        """Nobody is put off.

        Args:
            history: where those who were put off read.
            budget: what shapes hold; while it is passed all are put off.
            call_soon: runs a function in the loop's next turn.
            call_later: runs a function after a number of seconds.
            clock: processor seconds used by this thread.
            has_more: hears of a group that has got further.
            give_up: hears of a group that can't read on: history has evicted what comes next.
            fail: hears of a group whose shape failed.
            make_room: lets go of what shapes hold, as far as this turn has room.
        """
        self.readings = Readings()
        self.spent = 0.0
        self.is_full = False
        self.unpaid = 0.0
        self._history = history
        self._budget = budget
        self._call_soon = call_soon
        self._call_later = call_later
        self._clock = clock
        self._has_more = has_more
        self._give_up = give_up
        self._fail = fail
        self._make_room = make_room
        self._line: Rotation[Group] = Rotation()
        self._is_due = False

    def offer(self, group: Group, message: Message) -> None:
        """Gives a message that matches to a group with a shape, now or later."""
        shaper = group.shaper
        assert shaper is not None  # noqa: S101 - only those are given here
        if group.put_off or self.is_full or group.owes or self._budget.is_crowded:
            if not group.put_off:
                group.cursor = message.seq - 1
                self._stand_in_line(group)
            group.put_off += 1
        elif (shaper.offered + group.phase) % SAMPLE and len(message.frame) <= LARGE_BYTES:
            shaper.offer(message)
        else:
            began = self._clock()
            shaper.offer(message)
            took = self._clock() - began
            self.charge(group, took if len(message.frame) > LARGE_BYTES else took * SAMPLE)

    def take(self, group: Group) -> list[bytes]:
        """What is to be written of a group now."""
        began = self._clock()
        frames = group.take()
        self.charge(group, self._clock() - began)
        return frames

    def charge(self, group: Group, seconds: float) -> None:
        """Counts what was done for a group: its members owe it."""
        self.spent += seconds
        self.is_full = self.spent >= SHAPING_SECONDS
        self._see_to_the_next_turn()
        group.cost += seconds
        self.unpaid += seconds
        if group.cost >= LEAST_SHARE_SECONDS * len(group.members):
            self.unpaid -= group.cost
            group.share_out()

    def _see_to_the_next_turn(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._call_soon(self._turn)

    def _stand_in_line(self, group: Group) -> None:
        if not group.is_in_line:
            group.is_in_line = True
            self._line.add(group.payer_key, group)
            self._see_to_the_next_turn()

    def _turn(self) -> None:
        """Begins a turn: those who were put off go on, address by address."""
        self._is_due = False
        self.spent = 0.0
        self.is_full = False
        if self._budget.is_crowded:
            self._make_room()
        while self._line.size and not self.is_full and not self._budget.is_crowded:
            group = self._line.next()
            group.is_in_line = False
            if not group.put_off or not (group.members or group.is_onlooker):
                continue
            if (wait := group.wait()) > 0:
                group.is_in_line = True
                self._call_later(
                    max(LEAST_SHARE_SECONDS, min(wait, LONGEST_WAIT_SECONDS)), partial(self._come_back, group)
                )
                continue
            try:
                self._go_on(group)
            except Exception as error:  # noqa: BLE001 - logged there
                self._fail(group, error)
        self.readings.forget()
        if self._line.size or self._budget.is_crowded:
            self._see_to_the_next_turn()

    def _come_back(self, group: Group) -> None:
        group.is_in_line = False
        self._stand_in_line(group)

    def _go_on(self, group: Group) -> None:
        """Gives a group some of what it was put off for."""
        history, shaper = self._history, group.shaper
        assert shaper is not None  # noqa: S101 - only those are put off
        if group.cursor < max(history.evicted_seq, history.dropped_seq):
            self._give_up(group)
            return
        began = now = self._clock()
        chunk = history.read(group.filters, group.cursor, history.seq)
        for message in chunk.messages:
            shaper.offer(message)
            group.cursor = message.seq
            group.put_off -= 1
            now = self._clock()
            if now - began >= STEP_SECONDS or not group.put_off:
                break
        else:
            group.cursor = chunk.cursor
        self.charge(group, now - began)
        if group.put_off and group.cursor >= history.seq:
            self._give_up(group)  # something has been evicted since it was counted
            return
        self._has_more(group)
        if group.put_off:
            self._stand_in_line(group)
        else:
            group.owes = False

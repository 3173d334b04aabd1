"""Somebody inside the gateway who looks at messages as they come, in the turns of shapes and beside those of viewers.

Invariant: it is given every message that its filters match, in the order of their numbers, or told how many it was not
given; it writes nothing. What is looked for is for who made it.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.messages import Message
from gateway.core.readings import Readings
from gateway.core.shaper import Shaper
from gateway.core.shapes import Shape

__all__ = ["Onlooker"]


class Onlooker(Shaper):
    """Takes the place of a group's shaper: messages go in, and no frames come out."""

    __slots__ = ("_look", "_miss")

    def __init__(
        self, look: Callable[[Message, Readings], None], miss: Callable[[int], None], readings: Readings
    ) -> None:
        """Nothing was seen yet.

        Args:
            look: gets each message, and what payloads say.
            miss: hears how many messages are gone before they could be looked at.
            readings: shared with those who have a shape, so that a payload is read once.
        """
        super().__init__(Shape(), readings=readings)
        self._look = look
        self._miss = miss

    def offer(self, message: Message) -> None:
        """Looks at a message."""
        self.offered += 1
        self.skipped += 1
        self._look(message, self._readings)

    def pass_over(self, count: int) -> None:
        """Messages are gone that were put off."""
        super().pass_over(count)
        self._miss(count)

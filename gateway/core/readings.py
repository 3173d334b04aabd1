"""What a payload says, read once for all who look into the same message one after the other.

Invariant: one message at a time is held. Nobody who is given a value or numbers changes them.
"""

from __future__ import annotations

from typing import Any

from gateway.core.fields import Path, numbers_of
from gateway.core.messages import Message

__all__ = ["MAX_NUMBERS", "Readings", "few_numbers"]

MAX_NUMBERS = 1_000
"""A payload with more numbers counts as one without any, for aggregates and deadbands. A group takes about 3 ms for so
many."""


def few_numbers(value: Any) -> dict[Path, float]:
    """The numbers of a value by path; none where there are more than `MAX_NUMBERS`."""
    found: dict[Path, float] = {}
    for path, number in numbers_of(value):
        if len(found) == MAX_NUMBERS:
            return {}
        found[path] = number
    return found


class Readings:
    """The message that was looked into last."""

    __slots__ = ("_message", "_numbers", "_value")

    def __init__(self) -> None:
        self._message: Message | None = None
        self._value: Any = None
        self._numbers: dict[Path, float] | None = None

    def value(self, message: Message) -> Any:
        """`Message.value`."""
        if message is not self._message:
            self._value = message.value()
            self._message, self._numbers = message, None
        return self._value

    def numbers(self, message: Message) -> dict[Path, float]:
        """`few_numbers` of its value."""
        value = self.value(message)
        if self._numbers is None:
            self._numbers = few_numbers(value)
        return self._numbers

    def forget(self) -> None:
        """Lets go of the message: its value may take ten times as much as its bytes."""
        self._message = self._value = self._numbers = None

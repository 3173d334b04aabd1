"""What a payload says, read once for all who look into the same message one after the other.

Invariant: one message at a time is held. Nobody who is given a value or numbers changes them.
"""

from __future__ import annotations

from typing import Any

from gateway.core.fields import Contents, Path, contents_of, numbers_of
from gateway.core.messages import Kind, Message

__all__ = ["Readings"]


class Readings:
    """The message that was looked into last."""

    __slots__ = ("_contents", "_message", "_numbers", "_value")

    def __init__(self) -> None:
        self._message: Message | None = None
        self._value: Any = None
        self._numbers: dict[Path, float] | None = None
        self._contents: Contents | None = None

    def value(self, message: Message) -> Any:
        """`Message.value`."""
        if message is not self._message:
            self._value = message.value()
            self._message, self._numbers, self._contents = message, None, None
        return self._value

    def numbers(self, message: Message) -> dict[Path, float]:
        """`numbers_of` its value."""
        value = self.value(message)
        if self._numbers is None:
            self._numbers = dict(numbers_of(value))
        return self._numbers

    def contents(self, message: Message) -> Contents:
        """`contents_of` its value; of bytes that are no text there is none."""
        value = self.value(message)
        if self._contents is None:
            self._contents = contents_of(None if message.kind is Kind.BASE64 else value, message.token)
        return self._contents

    def forget(self) -> None:
        """Lets go of the message: its value may take ten times as much as its bytes."""
        self._message = self._value = self._numbers = self._contents = None

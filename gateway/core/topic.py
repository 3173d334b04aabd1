"""What the log knows of one topic: its messages, and the numbers of those that are evicted.

Invariant: messages and evicted numbers are in the order of their numbers. Which are evicted, and when, is `history`'s.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Protocol

import msgspec

from gateway.core.collector import untracked
from gateway.core.messages import Message

__all__ = ["Topic", "Watch", "seq_of"]


seq_of = attrgetter("seq")

_NEVER = (0, 0)


class Watch(Protocol):
    """Who is to be told of a topic's messages; decided once, when the log meets the topic."""

    def note(self, topic: Topic) -> None:
        """A message has come, the last value has expired, or the topic is forgotten. Quick, and raises nothing."""


class Topic(msgspec.Struct, gc=False, eq=False):
    """What is known of one topic.

    Attributes:
        name: its name.
        last: its newest message, kept even when the log has evicted it.
        count: messages since the gateway first saw it, evicted ones included.
        evicted: numbers of its newest evicted messages, oldest first.
        forgotten_seq: evicted messages up to this number are no longer listed in `evicted`.
        evicted_time: latest time of an evicted message, milliseconds since 1970; 0 when there is none.
        expired: number and time of its newest message if that has expired, and there is no `last` for it.
        kept: the message that the broker keeps, as far as is known, and that is in the log.
        cleared_seq: number of the newest message after which the broker kept none; 0 before.
        released_seq: number of the newest message that the broker was found to keep no longer; 0 before.
        is_dropped: the log has forgotten it.
        make: makes a message of an arrival; another one than `Message.arrived` where a decoder is to read it.
        first_seq: number of its first message.
        first_time: time of its first message, milliseconds since 1970.
        retained_hash: CRC-32 of the payload that the broker retains, as far as is known; None before.
        repeat: number of the broker subscription that repeated its retained message last.
        watch: who is told of its messages; None: nobody.
    """

    name: str
    head: bytes
    first_seq: int
    first_time: int
    last: Message | None = None
    count: int = 0
    # a list with a moving start: a deque's first block alone would take 600 bytes a topic
    _messages: list[Message] = msgspec.field(default_factory=lambda: untracked([]))
    _start: int = 0
    evicted: array[int] = msgspec.field(default_factory=lambda: untracked(array("Q")))
    forgotten_seq: int = 0
    evicted_time: int = 0
    retained_hash: int | None = None
    repeat: int = 0
    expired: tuple[int, int] = _NEVER
    kept: Message | None = None
    cleared_seq: int = 0
    released_seq: int = 0
    kept_as_of: int = 0  # the number of the subscription that brought it
    is_dropped: bool = False
    watch: Watch | None = None
    make: Callable[..., Message] = Message.arrived

    def __len__(self) -> int:
        return len(self._messages) - self._start

    @property
    def newest_evicted(self) -> int:
        """The number of its newest evicted message; 0 when there is none."""
        return max(self.evicted[-1] if self.evicted else 0, self.forgotten_seq)

    def after(self, seq: int) -> Iterator[Message]:
        """Its messages in the log with higher numbers, oldest first; of use until the next one is evicted."""
        start = bisect_right(self._messages, seq, self._start, key=seq_of)
        return map(self._messages.__getitem__, range(start, len(self._messages)))

    def before(self, until: int, after: int) -> Iterator[Message]:
        """Its messages in the log with `after` < seq <= `until`, newest first, as of now."""
        start = bisect_right(self._messages, after, self._start, key=seq_of)
        end = bisect_right(self._messages, until, start, key=seq_of)
        return iter(self._messages[start:end][::-1])

    def count_between(self, after: int, until: int) -> int:
        """The number of its messages in the log with `after` < seq <= `until`."""
        messages, start, end = self._messages, self._start, len(self._messages)
        if start < end and messages[start].seq <= after:
            start = bisect_right(messages, after, start, key=seq_of)
        if start < end and messages[-1].seq > until:
            end = bisect_right(messages, until, start, key=seq_of)
        return end - start

    def count_as_of(self, until: int) -> int:
        """The number of its messages with seq <= `until`, as far as the numbers of the later ones are known."""
        newest, _ = self.heard
        if newest <= until:
            return self.count
        evicted = len(self.evicted) - bisect_right(self.evicted, until)
        return self.count - evicted - self.count_between(until, newest)

    def last_as_of(self, until: int) -> Message | None:
        """Its newest kept message with seq <= `until`; None if there was none or it is evicted or has expired."""
        if self.last is not None and self.last.seq <= until:
            return self.last
        if self.last is None and self.expired[0] <= until:
            return None
        index = bisect_right(self._messages, until, self._start, key=seq_of)
        return self._messages[index - 1] if index > self._start else None

    @property
    def is_cleared(self) -> bool:
        """Whether its newest message is the empty one that took away what the broker kept (MQTT 5 §3.3.1.3)."""
        return self.last is not None and self.last.seq == self.cleared_seq and self.last.is_empty

    @property
    def is_released(self) -> bool:
        """Whether the broker kept its newest message, and was found not to: it was cleared while nobody listened."""
        return self.last is not None and self.last.seq == self.released_seq

    @property
    def heard(self) -> tuple[int, int]:
        """Number and time of its newest message, also when that has expired."""
        return self.expired if self.last is None else (self.last.seq, self.last.time)

    def rate(self) -> float:
        """Messages a second over the messages that the log keeps of it; 0.0 for fewer than two."""
        if len(self) < 2:
            return 0.0
        newest, oldest = self._messages[-1], self._messages[self._start]
        return (len(self) - 1) * 1000 / max(newest.time - oldest.time, 1)

    def _pop(self) -> Message:
        message = self._messages[self._start]
        # its memory is free at once, though its place is not; nobody looks at what is before the start
        self._messages[self._start] = None  # type: ignore[call-overload]
        self._start += 1
        if self._start >= 32 and self._start * 2 >= len(self._messages):
            del self._messages[: self._start]
            self._start = 0
        return message

    def _take_out(self, message: Message) -> None:
        """Takes a message out that need not be the oldest."""
        if self._oldest() is message:
            self._pop()
        else:
            del self._messages[bisect_left(self._messages, message.seq, self._start, key=seq_of)]

    def _oldest(self) -> Message:
        return self._messages[self._start]

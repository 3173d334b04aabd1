"""What the log has beyond memory: asked for in the loop, answered in a later turn of it.

Invariant: an answer comes once, and nobody waits for it by holding the loop. Where the log goes on is for who answers;
that it goes on without a seam is for who asks: below `History.floor` it is read here, above it in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from gateway.core.filters import FilterSet
from gateway.core.messages import Message
from gateway.core.points import Grid, Points
from gateway.core.texts import TextPoints

__all__ = ["Asked", "Beyond", "Drawn", "Part", "Width", "as_of_now"]

T = TypeVar("T")


class Part:
    """Part of what was asked for.

    Attributes:
        messages: those that match, in the order that was asked for, as they arrived.
        cursor: number up to which (backwards: down to which) nothing more is to come.
        is_whole: False where some of it could not be read.
        is_thinned: whether some of it may have been let go.
    """

    __slots__ = ("cursor", "is_thinned", "is_whole", "messages")

    def __init__(self, messages: list[Message], cursor: int, is_whole: bool = True, is_thinned: bool = False) -> None:
        self.messages = messages
        self.cursor = cursor
        self.is_whole = is_whole
        self.is_thinned = is_thinned


class Drawn(NamedTuple):
    """Points of numbers and texts over time, of what was asked for.

    Attributes:
        points: by topic, of each number in its payloads by its path; those first that came up first.
        texts: the same of texts.
        seq: number of the message up to which they have everything.
    """

    points: dict[str, dict[str, Points]]
    texts: dict[str, dict[str, TextPoints]]
    seq: int


class Width(NamedTuple):
    """Points of one width, beyond memory.

    Attributes:
        level: their name.
        unit: how wide they are, milliseconds.
        is_whole: whether they reach back as far as was asked.
    """

    level: str
    unit: int
    is_whole: bool


class Asked(Generic[T]):
    """A question whose answer comes later.

    Attributes:
        seconds: processor time that the answer took; whoever asked pays for it.
    """

    __slots__ = ("_answer", "_then", "is_answered", "seconds")

    def __init__(self) -> None:
        self._answer: list[T] = []
        self._then: list[Callable[[], None]] = []
        self.is_answered = False
        self.seconds = 0.0

    @property
    def answer(self) -> T:
        """The answer; there when `is_answered`."""
        return self._answer[0]

    def set(self, answer: T, seconds: float = 0.0) -> None:
        """Answers, in the loop; a second answer does nothing."""
        if self.is_answered:
            return
        self._answer.append(answer)
        self.seconds = seconds
        self.is_answered = True
        then, self._then = self._then, []
        for call in then:
            call()

    def then(self, call: Callable[[], None]) -> None:
        """Calls a function when there is an answer; at once, if there is one."""
        if self.is_answered:
            call()
        else:
            self._then.append(call)


class Beyond(Protocol):
    """Who has the log beyond memory."""

    def read(
        self, filters: FilterSet, after: int, until: int, *, max_bytes: int, key: str | None, backwards: bool = False
    ) -> Asked[Part]:
        """Messages that match with `after` < seq <= `until`, a part at a time.

        Args:
            filters: what is wanted.
            after: the number that was read last; backwards, where to stop.
            until: the number to stop at; backwards, where to begin.
            max_bytes: about how much to read.
            key: what counts as the address of who asks; addresses take turns.
            backwards: newest first.
        """

    def draw(
        self, topics: Sequence[str], fields: Sequence[str], grid: Grid, level: str, key: str | None
    ) -> Asked[Drawn | None]:
        """Points of the numbers and texts in the payloads of some topics, those of a grid; None if it can't.

        Args:
            topics: their names.
            fields: the paths that are wanted; none: all.
            grid: of what each point is made.
            level: of which points they are made (`width`); the grid's steps are whole ones of these.
            key: what counts as the address of who asks.
        """

    def width(self, filters: FilterSet, since: int, step: int) -> Width:
        """The points of which a chart is made: the widest that are no wider than `step`, or the narrowest.

        Where these do not reach back so far, and wider ones reach further, it is those.

        Args:
            filters: of what there is to be a chart.
            since: how far back, milliseconds since 1970.
            step: milliseconds.
        """

    def find(self, time: int, key: str | None) -> Asked[int]:
        """The number behind which all messages are that arrived at or after a time (milliseconds since 1970)."""

    def is_whole(self, filters: FilterSet, after: int, until: int) -> bool:
        """Whether all messages that match with `after` < seq <= `until` are there, as far as no crash took any."""

    def has_holes(self, after: int, until: int) -> bool:
        """Whether messages with `after` < seq <= `until` were never kept, but for what a crash took."""

    @property
    def begins_after(self) -> int:
        """The number before its oldest message."""


def as_of_now(messages: Iterable[Message], now_ms: int, is_kept: Callable[[Message], bool]) -> list[Message]:
    """What may be shown of messages that were kept as they arrived.

    Args:
        messages: they are changed where they say of themselves what is no longer so.
        now_ms: a message whose expiry interval ended before is left out (MQTT 5 §3.3.2.3.3).
        is_kept: whether the broker still retains a message.
    """
    shown: list[Message] = []
    for message in messages:
        if message.properties is not None:
            interval = message.properties.get("message_expiry_interval")
            if interval is not None and message.time + 1000 * interval <= now_ms:
                continue
        if message.retained and not is_kept(message):
            message.let_go()
        shown.append(message)
    return shown

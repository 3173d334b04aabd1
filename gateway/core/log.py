"""Messages in the order of their numbers, with holes where some were evicted out of turn.

Invariant: nothing here takes longer the more there is: the log lies in segments, and what an eviction leaves behind is
cleared up in one of them. What is kept, and for how long, is `history`'s.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter

from gateway.core.collector import untracked
from gateway.core.messages import Message
from gateway.core.topic import seq_of

__all__ = ["SEGMENT", "Log", "Segment"]


SEGMENT = 4_096
"""Entries of a segment: to copy one takes less than half a millisecond."""

MIN_HOLES = 256
"""A segment with fewer holes is left as it is, unless it has nothing else."""

_time_of = attrgetter("time")


class Segment:
    """A part of the log, at most `SEGMENT` entries.

    Attributes:
        messages: the messages, None where one was evicted.
        seqs: their numbers, also of those evicted, rising.
        times: when they arrived, milliseconds since 1970.
        holes: how many were evicted.
    """

    __slots__ = ("holes", "messages", "seqs", "times")

    def __init__(self) -> None:
        self.messages: list[Message | None] = untracked([])
        self.seqs: array[int] = array("Q")
        self.times: array[int] = array("Q")
        self.holes = 0

    def kept(self, start: int, end: int) -> int:
        """How many of the entries from `start` to before `end` are no holes."""
        if not self.holes:
            return end - start
        return end - start - self.messages[start:end].count(None)


class Log:
    """All messages, oldest first. Entries are found by number, places within a segment by their index."""

    def __init__(self) -> None:
        self.segments = [Segment()]
        self._last = self.segments[0]
        # a number up to the first of each segment, beyond the last of the one before
        self._firsts: array[int] = array("Q", [0])
        self._next = self._last, 0
        self.count = 0
        """Messages in it, without holes."""
        self.moves = 0
        """How often entries have moved to other places."""

    def append(self, message: Message) -> None:
        """Adds a message whose number is higher than all before."""
        segment = self._last
        if len(segment.seqs) >= SEGMENT:
            self._last = segment = Segment()
            self.segments.append(segment)
            self._firsts.append(message.seq)
        segment.messages.append(message)
        segment.seqs.append(message.seq)
        segment.times.append(message.time)
        self.count += 1

    def remove(self, seq: int) -> None:
        """Leaves a hole where the message of this number is, and clears up its segment if that is mostly holes."""
        segment, index = self._next
        # where topics have taken turns, it is the one behind that which went last (benchmark S9)
        if index >= len(segment.seqs) or segment.seqs[index] != seq:
            segment = self.segments[bisect_right(self._firsts, seq) - 1]
            index = bisect_left(segment.seqs, seq)
        self._next = segment, index + 1
        self.remove_at(segment, index)

    def remove_at(self, segment: Segment, index: int) -> None:
        """The same where the place is known."""
        segment.messages[index] = None
        segment.holes = holes = segment.holes + 1
        self.count -= 1
        entries = len(segment.messages)
        if holes * 2 > entries and (holes > MIN_HOLES or holes == entries):
            self._clear_up(bisect_right(self._firsts, segment.seqs[index]) - 1)

    def _clear_up(self, at: int) -> None:
        """Takes the holes out of a segment, and joins it with the one before where both have become small."""
        self.moves += 1
        self._next = self._last, 0  # the one that it named may be taken apart now
        segment = self.segments[at]
        segment.messages = untracked([message for message in segment.messages if message is not None])
        segment.seqs = array("Q", map(seq_of, segment.messages))
        segment.times = array("Q", map(_time_of, segment.messages))
        segment.holes = 0
        if segment is self._last:
            return
        if at and len(segment.seqs) + len(self.segments[at - 1].seqs) <= SEGMENT // 2:
            before = self.segments[at - 1]
            before.messages += segment.messages
            before.seqs += segment.seqs
            before.times += segment.times
        elif segment.seqs:
            return
        del self.segments[at]
        del self._firsts[at]

    def place(self, seq: int) -> tuple[int, int]:
        """Where the first entry is whose number is `seq` or higher: its segment, and its index there.

        Behind the last entry it is the number of segments, and 0.
        """
        at = max(bisect_right(self._firsts, seq) - 1, 0)
        index = bisect_left(self.segments[at].seqs, seq)
        if index == len(self.segments[at].seqs):
            at, index = at + 1, 0
            if at < len(self.segments) and not self.segments[at].seqs:
                at += 1  # only the last one can be empty
        return at, index

    def find(self, seq: int) -> Message | None:
        """The message of that number if it is there."""
        at, index = self.place(seq)
        if at == len(self.segments) or self.segments[at].seqs[index] != seq:
            return None
        return self.segments[at].messages[index]

    def newest_before(self, seq: int) -> tuple[int, Message | None] | None:
        """The last entry whose number is below `seq`: its number, and its message if it is no hole."""
        at, index = self.place(seq)
        while not index:
            at -= 1
            if at < 0:
                return None
            index = len(self.segments[at].seqs)
        return self.segments[at].seqs[index - 1], self.segments[at].messages[index - 1]

    def entries(self, after: int, at_most: int) -> tuple[list[Message | None], int | None]:
        """The next `at_most` entries behind a number, and the number up to which there are no others.

        That is None where the log ends.
        """
        found: list[Message | None] = []
        start, index = self.place(after + 1)
        for at in range(start, len(self.segments)):
            segment = self.segments[at]
            end = index + at_most - len(found)
            found += segment.messages[index:end]
            if end < len(segment.seqs):
                return found, segment.seqs[end] - 1
            index = 0
        return found, None

    def count_between(self, after: int, until: int) -> tuple[int, int]:
        """The number of entries with `after` < seq <= `until`, and how many of them are no holes."""
        at, index = self.place(after + 1)
        last, end = self.place(until + 1)
        if (at, index) >= (last, end):
            return 0, 0
        segments = self.segments
        if at == last:
            return end - index, segments[at].kept(index, end)
        entries = len(segments[at].seqs) - index
        kept = segments[at].kept(index, len(segments[at].seqs))
        for segment in segments[at + 1 : last]:
            entries += len(segment.seqs)
            kept += len(segment.seqs) - segment.holes
        if end:
            entries += end
            kept += segments[last].kept(0, end)
        return entries, kept

    def first_at(self, time: int, after: int, until: int | None = None) -> int | None:
        """The number of the first entry behind `after` that arrived at `time` or later, None if there is none.

        Times must not go back between `after` and `until`, a number, by default the newest.
        """
        at, index = self.place(after + 1)
        last, end = (len(self.segments), 0) if until is None else self.place(until + 1)
        segments = self.segments
        if (at, index) >= (last, end):
            return None
        if at < last and segments[at].times[-1] < time:
            # the first of the others that ends late enough
            index = 0
            at = bisect_left(segments, time, at + 1, min(last, len(segments)), key=_ends)
            if at == len(segments) or not segments[at].seqs:
                return None
        if at == last:
            index = bisect_left(segments[at].times, time, index, end)
            return segments[at].seqs[index] if index < end else None
        return segments[at].seqs[bisect_left(segments[at].times, time, index)]

    def first_kept(self, after: int) -> int | None:
        """The number of the first entry behind `after` that is no hole, None if there is none."""
        start, index = self.place(after + 1)
        for segment in self.segments[start:]:
            for place in range(index, len(segment.seqs)):
                if segment.messages[place] is not None:
                    return segment.seqs[place]
            index = 0
        return None

    def before_newest(self, count: int) -> int:
        """The number of the entry behind which there are `count`, 0 if there are not more than that."""
        for segment in reversed(self.segments):
            entries = len(segment.seqs)
            if count < entries:
                return segment.seqs[entries - 1 - count]
            count -= entries
        return 0

    @property
    def first(self) -> int | None:
        """The number of the first entry."""
        at, index = self.place(0)
        return self.segments[at].seqs[index] if at < len(self.segments) else None

    def __iter__(self) -> Iterator[Message]:
        for segment in self.segments:
            for message in segment.messages:
                if message is not None:
                    yield message


def _ends(segment: Segment) -> int:
    # the last segment is empty for a moment
    return segment.times[-1] if segment.times else 2**64 - 1

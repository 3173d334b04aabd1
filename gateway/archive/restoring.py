"""Memory filled from the file before anybody is served.

Invariant: every topic has its last value and its count, and memory the newest messages without a hole; what is older is
told as evicted. How long it takes does not depend on the length of the file: it reads the snapshot, what came after it,
and the newest blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from zlib import crc32

from gateway.archive.blocks import BlockError, decode_states, encode_states
from gateway.archive.file import ArchiveFile
from gateway.archive.rows import Rows
from gateway.core.history import History
from gateway.core.snapshots import Arrived, TopicState, restore_counts, take_back
from gateway.core.topic import seq_of

__all__ = ["FILL_MESSAGES", "States", "forget_before", "messages_of", "restore", "take_back_last_values"]

logger = logging.getLogger(__name__)

PART_TOPICS = 200
"""Topics in one part of a snapshot."""

FILL_MESSAGES = 40_000
"""The newest messages that are taken into memory, in half a second; older ones are read from the file when needed."""


def restore(history: History, file: ArchiveFile, now_ms: int) -> None:
    """Fills an empty log from a file.

    Args:
        history: the log; it goes on under the file's epoch and numbers.
        file: nobody writes to it meanwhile.
        now_ms: milliseconds since 1970.

    Raises:
        sqlite3.Error: the file is damaged. The log has a beginning of what the file has.
    """
    history.epoch = file.epoch
    rows = file.rows()
    known = States(rows, history.retained_as_published)
    note, states = known.note, known.by_topic
    start, floor_time = _start(history, file, rows, now_ms)
    for message in messages_of(rows, file.snapshot_seq, start - 1):
        note(message)
    history.retained_as_published = known.retained_as_published
    lasts = sorted((state.last for state in states.values()), key=seq_of)
    for last in lasts:
        if last.seq < start:
            take_back(history, last)
    for message in messages_of(rows, start - 1, file.last_seq):
        note(message)
        take_back(history, message)
    for last in lasts:
        if last.seq > file.last_seq:  # the disk was too slow for all but this
            take_back(history, last)
    restore_counts(history, states.values())
    history.retained_as_published = False
    history.seq = file.seq
    history.crashes = [(hole.first, hole.last) for hole in file.holes if hole.reason == "crash"]
    forget_before(history, start, floor_time)
    history.evicted = 0
    while history.expire(now_ms):
        pass


class States:
    """What is known of each topic: from the snapshot, and from what came after it.

    Attributes:
        by_topic: the states.
        retained_as_published: `History.retained_as_published`, as it was.
    """

    def __init__(self, rows: Rows, retained_as_published: bool = False) -> None:
        """What the snapshot says; the flag where there is none."""
        self.by_topic: dict[str, TopicState] = {}
        self.retained_as_published = retained_as_published
        for part in rows.snapshot():
            self.retained_as_published, some = decode_states(part)
            self.by_topic.update((state.last.topic, state) for state in some)
        self._known = {name: state.last.seq for name, state in self.by_topic.items()}

    def note(self, message: Arrived) -> None:
        """Counts a message, if the snapshot doesn't know it."""
        if message.seq <= self._known.get(message.topic, 0):
            return
        state = self.by_topic.get(message.topic)
        if state is None:
            state = TopicState(message.seq, message.time, 0, None, message)
            self.by_topic[message.topic] = state
        state.last = message
        state.count += 1
        if message.retained or not self.retained_as_published:
            state.retained_hash = crc32(message.payload)

    def parts(self) -> list[bytes]:
        """As a snapshot, some hundred topics to a part."""
        states = list(self.by_topic.values())
        return [
            encode_states(self.retained_as_published, states[at : at + PART_TOPICS])
            for at in range(0, len(states), PART_TOPICS)
        ]


def take_back_last_values(history: History, states: list[TopicState], until: int, seq: int, time: int) -> None:
    """Gives an empty log last values up to a number.

    Args:
        history: the log.
        states: of each topic.
        until: the number up to which they count.
        seq: the log goes on behind this one.
        time: the latest that it can have arrived, milliseconds since 1970.
    """
    known = sorted((state for state in states if state.last.seq <= until), key=lambda state: state.last.seq)
    for state in known:
        take_back(history, state.last)
    restore_counts(history, known)
    history.seq = seq
    history.evicted = 0
    forget_before(history, seq + 1, time)


def forget_before(history: History, start: int, floor_time: int) -> None:
    """Notes that memory has only last values of what came before a number; `floor_time` is the latest time of these."""
    if start > 1:
        history.evicted_seq = max(history.evicted_seq, start - 1)
        history.dropped_seq = max(history.dropped_seq, start - 1)
        history.evicted_time = max(history.evicted_time, floor_time)
        history.dropped_time = max(history.dropped_time, floor_time)


def _start(history: History, file: ArchiveFile, rows: Rows, now_ms: int) -> tuple[int, int]:
    """The number from which on messages are taken into memory, and the latest time of one before it."""
    start = file.last_seq + 1
    if any(hole.reason != "crash" and hole.last >= start for hole in file.holes):
        start = file.seq + 1  # the newest are missing
    messages = 0
    for stretch in rows.newest_first():
        messages += stretch.last_seq + 1 - stretch.first_seq
        # what a crash took is told by itself; beyond another hole memory would not be whole
        is_next = stretch.last_seq + 1 == start or any(
            hole.reason == "crash" and hole.first <= stretch.last_seq + 1 and hole.last >= start - 1
            for hole in file.holes
        )
        if (
            stretch.is_thinned
            or messages > FILL_MESSAGES
            or stretch.max_time < now_ms - history.max_age_ms
            or not is_next
        ):
            return start, stretch.max_time
        start = stretch.first_seq
    return start, 0


def messages_of(rows: Rows, after: int, until: int) -> Iterator[Arrived]:
    """The messages of the file with `after` < seq <= `until`; a damaged block is left out."""
    for row in rows.blocks_from(after + 1, until):
        try:
            block = rows.read(row.first_seq)
        except BlockError as error:
            text = "the messages %d to %d of the archive can't be read: %s"
            logger.error(text, row.first_seq, row.last_seq, error)
        else:
            names = rows.names_of(block.ids)
            yield from block.arrivals(names, after, until)

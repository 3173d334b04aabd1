"""What memory knows of its topics, as plain values, and memory made anew from such values and messages.

Invariant: a log that was restored has for each topic the last value, the count and the knowledge of what the broker
retains that the log before had; numbers and times are those of then. Where the values are kept is for `archive`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from gateway.core.history import History
from gateway.core.messages import Message, Properties
from gateway.core.selection import AT_ONCE

__all__ = ["Arrived", "TopicState", "arrived", "restore_counts", "take_back", "topic_states"]


class Arrived(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A message as it came, and what it got when it did.

    Attributes:
        decoded: what a decoder made of it (`Message.decoded`). It is kept, not made again: that would take the rules
            and schemas of then, and what had been said before it.
    """

    seq: int
    topic: str
    payload: bytes
    time: int
    qos: int = 0
    retained: bool = False
    properties: Properties | None = None
    decoded: bytes | None = None

    @property
    def shown(self) -> bytes:
        """What is looked at for values: what a decoder made of it, else the payload."""
        return self.payload if self.decoded is None else self.decoded


class TopicState(msgspec.Struct, array_like=True, gc=False):
    """What is known of one topic.

    Attributes:
        first_seq, first_time, count, retained_hash: those of `Topic`.
        last: its newest message.
        is_cleared, is_released: those of `Topic`; False in what older versions wrote.
    """

    first_seq: int
    first_time: int
    count: int
    retained_hash: int | None
    last: Arrived
    is_cleared: bool = False
    is_released: bool = False


def arrived(message: Message) -> Arrived:
    """A message of memory; its payload is cut out of its frame, so it is called where frames are changed."""
    return Arrived(
        message.seq,
        message.topic,
        message.payload,
        message.time,
        message.qos,
        message.retained,
        message.properties or None,
        message.decoded,
    )


def topic_states(history: History) -> Iterator[list[TopicState]]:
    """The topics that have a last value, some at a time; each as of when it is yielded."""
    states: list[TopicState] = []
    for number, topic in enumerate(list(history.topics()), start=1):
        if topic.last is not None and not topic.is_dropped:
            last = arrived(topic.last)
            known = topic.first_seq, topic.first_time, topic.count, topic.retained_hash
            states.append(TopicState(*known, last, topic.is_cleared, topic.is_released))
        if number % AT_ONCE == 0:
            yield states
            states = []
    yield states


def take_back(history: History, message: Arrived) -> None:
    """Puts a message into the log under the number that it had; numbers rise from one to the next."""
    history.seq = message.seq - 1
    came = message.topic, message.payload, message.time, message.qos, message.retained, message.properties
    # not through what a subclass makes of an arrival: it is none
    if message.decoded is None:
        History.append(history, *came)
    else:
        history.append_decoded(message.decoded, *came)


def restore_counts(history: History, states: Iterable[TopicState]) -> None:
    """Gives topics back what their messages don't say, after these have been taken back."""
    for state in states:
        topic = history.topic(state.last.topic)
        if topic is not None:
            topic.count = state.count
            topic.first_seq, topic.first_time = state.first_seq, state.first_time
            topic.retained_hash = state.retained_hash
            if state.is_cleared:
                topic.cleared_seq = state.last.seq
            if state.is_released:
                topic.released_seq = state.last.seq
                if topic.watch is not None:
                    topic.watch.note(topic)

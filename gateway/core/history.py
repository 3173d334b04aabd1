"""The log: every message with its sequence number, bounded in messages, topics, bytes and age; replay and last values.

Invariant: `bytes` never exceeds `max_bytes` after `append` returns, and what was evicted is remembered well enough to
tell a reader that it missed something. Who reads, and how fast, is the hub's business; time is given by the caller.

It is long because writing, eviction and reading share one state: the log, its numbers, and two orders of topics.
"""

from __future__ import annotations

import secrets
import string
from bisect import bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush, merge
from itertools import takewhile
from typing import Any, TypeAlias
from zlib import crc32

from gateway.core.beyond import Beyond, Part
from gateway.core.collector import untracked
from gateway.core.filters import FilterSet
from gateway.core.log import Log, Segment
from gateway.core.messages import DecodedMessage, Message, Properties, encode_topic
from gateway.core.topic import Topic, Watch, seq_of
from gateway.core.tries import TopicTree

__all__ = [
    "EVICTED_COST",
    "EVICTED_NUMBERS",
    "EVICTED_PART",
    "EXPIRED_AT_ONCE",
    "MATCH_LISTS",
    "Chunk",
    "Decode",
    "History",
    "make_epoch",
    "room_for_messages",
]


MESSAGE_COST = 256
"""Bytes that a kept message takes besides its frame: the object, its numbers and places (test_history measures)."""

TOPIC_COST = 800
"""Bytes that a known topic takes besides its name, three times, and its levels: state, orders, caches."""

DECODED_COST = 64
"""Bytes that a message takes more whose payload is kept as it came, beside what a decoder made of it."""

NODE_COST = 300
"""Bytes that each level takes that a topic doesn't share with the beginning of another."""

EVICTED_COST = 9
"""Bytes that the number of an evicted message takes."""

_EVICTED_GAIN = MESSAGE_COST - EVICTED_COST

EVICTED_NUMBERS = 2_000
"""The most numbers of evicted messages that are kept of a topic, however few messages."""

EVICTED_PART = 20
"""The numbers of all evicted messages together take at most this part (a twentieth) of `max_bytes`."""

NARROW_TOPICS = 32
"""The most topics whose own lists a replay merges; for more it walks the log."""

MAX_LOOKED_AT = 4_096
"""Nodes of the tree of topics that are looked at in one go to find out that few match: some 400 µs."""

SCAN_LIMIT = 4_096
"""Entries of the log that one chunk may walk past: about a millisecond."""

NEWEST_PART = 8
"""An eighth of all topics, the youngest, are new; one of these is forgotten when there are too many."""

SETTLING_MS = 10 * 60 * 1000
"""Ten minutes: a new topic that has been in use for this time settles, in the place of one that is silent."""

EXPIRED_AT_ONCE = 1_000
"""The most messages that one step evicts for their age: about two milliseconds."""

SMALL_STEP_MS = 1_000
"""After a clock was set back by less than this, time stands still until the clock is there again."""

MAX_STEPS = 64
"""Larger steps back that are remembered while messages from before them are kept; at one more, time stands still."""

MATCH_LISTS = 64
MATCH_LIST_TOPICS = 1_000_000
"""The most lists of matching topics that are remembered, and the most topics in all of them: 8 MB."""

NEW_TOPICS = 1_024
"""When more topics than this are new, a remembered list is made anew; fewer are matched one by one."""

Decode: TypeAlias = Callable[[str, bytes], bytes | None]
"""Makes JSON of a payload: gets topic and payload; empty where it can't, None for one that is as it should be."""

EPOCH_LETTERS = string.ascii_lowercase + string.digits


def make_epoch() -> str:
    """A name for one life of a log."""
    return "".join(secrets.choice(EPOCH_LETTERS) for _ in range(6))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part of a replay: messages in seq order, and the number up to which nothing more is to come."""

    messages: list[Message]
    cursor: int


class _MatchList:
    """The topics that some filters match; `added` and `dropped` count the topics that had come and gone by then."""

    __slots__ = ("added", "dropped", "topics")

    def __init__(self, topics: list[Topic], added: int, dropped: int) -> None:
        self.topics = topics
        self.added = added
        self.dropped = dropped


class History:
    """The bounded log of all topics.

    Messages are evicted oldest first, over all topics, but each topic keeps its newest message (its last value).

    Whole topics are forgotten when there are more than `max_topics`, or when last values alone take more than
    `max_bytes`. Each topic is *new* or *settled*. The youngest eighth is new, except topics that have been known for
    `SETTLING_MS` while nothing was forgotten. The new topic that has been silent for longest goes first. So a flood of
    new topics pushes out itself, and a new topic stays if it is heard before an eighth of `max_topics` others are.

    A flood that came while there was room has settled. It loses its places in two ways:

    - A new topic that has been in use for `SETTLING_MS` changes places with a settled one that was silent meanwhile.
    - While less than an eighth of the topics are new, settled ones that were silent for `SETTLING_MS` go first.
    """

    def __init__(
        self,
        *,
        max_messages: int = 1_000,
        max_topics: int = 100_000,
        max_bytes: int = 256 * 2**20,
        max_age_ms: int = 24 * 3600 * 1000,
        epoch: str | None = None,
    ) -> None:
        """Creates an empty log.

        Args:
            max_messages: messages kept for each topic, at least 1.
            max_topics: topics known at a time, at least 1.
            max_bytes: memory for the log, its topics and evicted numbers, counted with the costs above.
            max_age_ms: messages older than this are evicted (last values are not); milliseconds.
            epoch: names this life of the log; random by default.
        """
        self.max_messages = max_messages
        self.max_topics = max_topics
        self.max_bytes = max_bytes
        self.max_age_ms = max_age_ms
        self.epoch = epoch or make_epoch()
        self.seq = 0
        """Number of the newest message, 0 before the first."""
        self.bytes = 0
        """Memory in use by the counting of `max_bytes`."""
        self.evicted = 0
        """Messages evicted since the start."""
        self.evicted_seq = 0
        """Highest number among evicted messages: a reader beyond it has missed nothing."""
        self.evicted_time = 0
        """Latest time of an evicted message."""
        self.dropped_topics = 0
        """Topics forgotten since the start."""
        self.dropped_seq = 0
        """Highest number among the messages of forgotten topics, whose names are gone."""
        self.dropped_time = 0
        self.repeated = 0
        """Retained messages that a broker sent again and that were no new arrivals."""
        self.subscription = 0
        """The number of the subscription by which live messages arrive."""
        self.crashes: list[tuple[int, int]] = []
        """Stretches of numbers, both ends included, of which a crash took what they were."""
        self.beyond: Beyond | None = None
        """Who has the log where memory ends; None: nobody."""
        self.watcher: Callable[[str], Watch | None] | None = None
        """Asked once for each topic that the log meets, who is to be told of its messages; None: nobody is."""
        self.retained_as_published = False
        """Whether the broker says of every message if it is retained (MQTT 5), or only when it repeats one (3.1.1)."""
        self.is_followed = False
        """Whether it is read from a log that others have, too, who may be further."""
        self.is_filling = False
        """Whether it has yet to be read as far as others are: it does not know which positions are good there."""
        self._decoder_of: Callable[[str], Decode | None] = _no_decoder
        self._log = Log()
        self._passed = 0  # up to this number, only last values are left of what has been evicted
        self._place = self._log.segments[0], 0, 0  # where the next eviction looks, and `Log.moves` then
        self._oldest_time = 0  # no later message that may be evicted arrived before it
        self._numbers = 0  # of evicted messages, of all topics
        self._max_numbers = max_bytes // EVICTED_PART // EVICTED_COST
        self._forgetting: list[Topic] = []  # whose older half of these has yet to go in this round
        self._topics: dict[str, Topic] = {}
        self._tree: TopicTree[Topic] = TopicTree()
        self._system_topics: dict[str, Topic] = {}  # those that '#' doesn't match
        self._added_topics = 0
        self._newest_topics: deque[Topic] = deque(maxlen=NEW_TOPICS)
        self._match_lists: OrderedDict[FilterSet, _MatchList] = OrderedDict()
        self._newest_time = 0
        # where the clock was set back: the first number after it, and its time
        self._steps: list[tuple[int, int]] = []
        self._expiring: list[tuple[int, int]] = []  # when, and the number: a heap
        self._mortal = 0  # messages in the log that have an expiry interval
        self._last_drop = 0  # the number that was the newest when a topic had to be forgotten
        # each topic is in one of these, both in the order of the last message
        self._new: OrderedDict[str, Topic] = untracked(OrderedDict())
        self._settled: OrderedDict[str, Topic] = untracked(OrderedDict())

    def begin_anew(
        self,
        epoch: str,
        seq: int,
        time: int,
        before: Mapping[str, int] | None = None,  # noqa: ARG002 - for a log that is kept
    ) -> None:
        """Forgets everything: the log goes on under another epoch, or where nobody knows what came before.

        Args:
            epoch: names this life of the log.
            seq: the number before the next one; what has it, or a lower one, is gone.
            time: the latest that it can have arrived, milliseconds since 1970.
            before: epochs of which the log goes on, each with the number up to which; memory makes no use of it.
        """
        subscription, beyond, watcher, decoder_of = self.subscription, self.beyond, self.watcher, self._decoder_of
        is_followed, is_filling = self.is_followed, self.is_filling
        topics = self._topics.values()
        History.__init__(
            self,
            max_messages=self.max_messages,
            max_topics=self.max_topics,
            max_bytes=self.max_bytes,
            max_age_ms=self.max_age_ms,
            epoch=epoch,
        )
        self.subscription, self.beyond, self.watcher, self._decoder_of = subscription, beyond, watcher, decoder_of
        self.is_followed, self.is_filling = is_followed, is_filling
        for state in topics:
            state.last, state.is_dropped = None, True
            if state.watch is not None:
                state.watch.note(state)
        self.seq = seq
        if seq:
            self.evicted_seq = self.dropped_seq = seq
            self.evicted_time = self.dropped_time = time

    # writing

    def append(
        self,
        topic: str,
        payload: bytes,
        time: int,
        qos: int = 0,
        retained: bool = False,
        properties: Properties | None = None,
        repeat: int = 0,
    ) -> Message | None:
        """Gives an arrival the next number and keeps it; returns None if it is a retained message that is no news.

        Args:
            topic: a valid topic name.
            payload: the bytes as they came.
            time: arrival, milliseconds since 1970; the clock may be set back, but see `SMALL_STEP_MS`.
            qos: 0, 1 or 2.
            retained: the retain flag as the broker sent it.
            properties: MQTT 5 properties or None.
            repeat: 0 for what is surely new; else the number of the broker subscription that may be repeating its
                retained messages now. A retained message whose payload is that of the topic's known one is then
                swallowed, once for each topic and number.
        """
        state = self._topics.get(topic)
        if retained and repeat and state is not None and self._is_repeated(state, payload, repeat):
            return None
        if time < self._newest_time:
            time = self._set_back(time)
        self._newest_time = time
        if state is None:
            state = self._add_topic(topic, time)
        elif topic in self._settled:
            self._settled.move_to_end(topic)
        else:
            self._new.move_to_end(topic)
            if time - state.first_time >= SETTLING_MS:
                self._maybe_settle(state)
        if retained or not self.retained_as_published:
            state.retained_hash = crc32(payload)
            if retained or state.kept is not None:
                retained = self._keeps(state, retained and payload != b"", repeat)
        self.seq = seq = self.seq + 1
        message = state.make(seq, topic, payload, time, qos, retained, properties, state.head)
        if retained:
            state.kept = message
        previous = state.last
        state.last = message
        state.count += 1
        messages = state._messages
        messages.append(message)
        self._log.append(message)
        self.bytes += len(message.frame) + MESSAGE_COST
        if properties is not None:
            self.bytes += _properties_cost(properties)
            if "message_expiry_interval" in properties:
                self._expire_at(time + 1000 * properties["message_expiry_interval"], message)
        if len(messages) - state._start > self.max_messages:
            self._evict(state._pop(), state)
        elif previous is not None and previous.seq <= self._passed:
            # it was kept beyond its time only as the last value
            self._evict(state._pop(), state)
        if self.bytes > self.max_bytes:
            self._shrink()
        if self._oldest_time < time - self.max_age_ms and self._evict_oldest(time - self.max_age_ms):
            self.expire(time)
        if state.watch is not None:
            state.watch.note(state)
        return message

    def _is_repeated(self, state: Topic, payload: bytes, repeat: int) -> bool:
        if state.repeat == repeat:
            return False
        if state.retained_hash == crc32(payload):
            state.repeat = repeat
            state.kept_as_of = repeat
            self.repeated += 1
            return True
        if not self.retained_as_published:
            state.repeat = repeat
        return False

    def is_repetition(self, topic: str, payload: bytes, repeat: int) -> bool:
        """Whether `append` would swallow a retained message, and notes that it was; for who appends it later."""
        state = self._topics.get(topic)
        return state is not None and self._is_repeated(state, payload, repeat)

    def note_repeat(self, topic: str, repeat: int) -> None:
        """The retained message of a topic has been repeated for this subscription: it won't be again."""
        if (state := self._topics.get(topic)) is not None:
            state.repeat = repeat

    def decode_by(self, decoder_of: Callable[[str], Decode | None]) -> None:
        """Names what is to read the payloads of a topic, None for nothing; asked once for each topic."""
        self._decoder_of = decoder_of
        for state in self._topics.values():
            self._choose_make(state)

    def _choose_make(self, state: Topic) -> None:
        decode = self._decoder_of(state.name)
        state.make = Message.arrived if decode is None else partial(self._decoded, decode)

    def append_decoded(self, decoded: bytes, topic: str, payload: bytes, time: int, *rest: Any) -> Message | None:
        """`append` of a message of which is known what a decoder made of it (`Message.decoded`)."""
        state = self._topics.get(topic) or self._add_topic(topic, time)
        make, state.make = state.make, partial(self._decoded, lambda *_: decoded)
        try:
            return History.append(self, topic, payload, time, *rest)
        finally:
            state.make = make

    def _decoded(
        self, decode: Decode, seq: int, topic: str, payload: bytes, time: int, qos: int, retained: bool,
        properties: Properties | None, head: bytes,
    ) -> Message:  # fmt: skip
        """A message of a topic with a decoder. An empty payload clears what is retained; there is nothing to read."""
        decoded = decode(topic, payload) if payload else None
        if decoded is None:
            return Message.arrived(seq, topic, payload, time, qos, retained, properties, head)
        self.bytes += DECODED_COST + len(payload)
        return DecodedMessage.made(seq, topic, payload, time, qos, retained, properties, head, decoded)

    def _keeps(self, state: Topic, retains: bool, repeat: int) -> bool:
        """Notes that the broker keeps another message of a topic than before, or none; returns `retains`."""
        if state.kept is not None:
            self._let_go(state.kept, state)
        if not retains:
            state.cleared_seq = self.seq + 1
            # the broker repeats nothing of what it doesn't keep
            state.retained_hash = None if self.retained_as_published else state.retained_hash
        state.kept_as_of = repeat or self.subscription
        return retains

    def _let_go(self, message: Message, state: Topic) -> None:
        """What is told of a message in the log is no longer that the broker keeps it."""
        size = len(message.frame)
        message.let_go()
        self.bytes -= size - len(message.frame)
        state.kept = None

    def unkept(self) -> Iterator[list[str]]:
        """Every retained message has come that `subscription` was to bring: the topics of which older ones are known.

        The broker keeps them no longer. It walks all topics, and yields after each thousand; `release` is to follow.
        """
        found: list[str] = []
        for number, state in enumerate(list(self._topics.values()), start=1):
            if state.kept is not None and state.kept_as_of < self.subscription:
                found.append(state.name)
            if number % 1_000 == 0:
                yield found
                found = []
        yield found

    def release(self, topics: Iterable[str]) -> None:
        """The broker keeps nothing of these topics any more."""
        for name in topics:
            state = self._topics.get(name)
            if state is not None and state.kept is not None:
                state.released_seq = state.kept.seq
                self._let_go(state.kept, state)
                state.retained_hash = None
                if state.watch is not None:
                    state.watch.note(state)

    def _expire_at(self, at: int, message: Message) -> None:
        """Notes when a message expires; forgets those that are gone, when they are most."""
        heappush(self._expiring, (at, message.seq))
        self._mortal += 1
        if len(self._expiring) > 2 * self._mortal + 1_024:
            self._expiring = [item for item in self._expiring if self._log.find(item[1]) is not None]
            heapify(self._expiring)

    def _expire_next(self) -> None:
        """Evicts the message whose expiry interval ended first, last value or not (MQTT 5 §3.3.2.3.3)."""
        message = self._log.find(heappop(self._expiring)[1])
        if message is None:
            return
        state = self._topics[message.topic]
        state._take_out(message)
        if state.last is message:
            state.last, state.expired = None, (message.seq, message.time)
        if message.retained:
            state.retained_hash = None
        times = state.evicted_time, self.evicted_time
        self._evict(message, state)
        # whoever asks for the last ten minutes gets all of them that may still be shown
        state.evicted_time, self.evicted_time = times
        if state.watch is not None:
            state.watch.note(state)

    @property
    def next_expiry(self) -> float:
        """When the next message expires, milliseconds since 1970; infinity if none does."""
        return self._expiring[0][0] if self._expiring else float("inf")

    def expire(self, now: int, at_most: int = EXPIRED_AT_ONCE) -> bool:
        """Evicts messages whose expiry interval has ended, and, last values excepted, those older than `max_age_ms`.

        `append` evicts the old ones, too; who may have to wait long for the next message calls this now and then.

        Args:
            now: milliseconds since 1970.
            at_most: the most messages to evict, so that it takes no longer than a turn of the loop may.

        Returns:
            Whether there may be more.
        """
        for _ in range(at_most):
            if not self._expiring or self._expiring[0][0] > now:
                break
            self._expire_next()
        else:
            return True
        oldest = now - self.max_age_ms
        return all(self._evict_oldest(oldest) for _ in range(at_most))

    def _set_back(self, time: int) -> int:
        """The time to go on with after the clock was set back to `time`; none is before 1970."""
        steps, time = self._steps, max(time, 0)
        if self._newest_time - time < SMALL_STEP_MS:
            return self._newest_time
        self._forget_steps()
        if len(steps) == MAX_STEPS:
            return self._newest_time
        steps.append((self.seq + 1, time))
        back = self._newest_time - time
        self._expiring = [(at - back, seq) for at, seq in self._expiring]
        self._oldest_time = 0
        # what arrived before arrived no later than now
        self.evicted_time = min(self.evicted_time, time)
        self.dropped_time = min(self.dropped_time, time)
        for state in self._topics.values():
            state.evicted_time = min(state.evicted_time, time)
        return time

    def _forget_steps(self) -> None:
        """Forgets where the clock was set back before the oldest message that is kept."""
        first = self._log.first
        while self._steps and (first is None or self._steps[0][0] <= first):
            del self._steps[0]

    def _arrival(self, message: Message) -> int:
        """The latest time, by the clock of now, at which a message can have arrived; `time` is by the clock of then."""
        return min([message.time, *(time for seq, time in self._steps if message.seq < seq)])

    def _add_topic(self, name: str, time: int) -> Topic:
        if len(self._topics) >= self.max_topics:
            self._drop_topic(self._less_used(time))
        state = Topic(name, encode_topic(name), self.seq + 1, time)
        if self._decoder_of is not _no_decoder:
            self._choose_make(state)
        self._topics[name] = state
        nodes = self._tree.size
        self._tree.add(name, state)
        if name[0] == "$":
            self._system_topics[name] = state
        if self.watcher is not None:
            state.watch = self.watcher(name)
        self._added_topics += 1
        self._newest_topics.append(state)
        self.bytes += TOPIC_COST + 3 * len(state.head) + NODE_COST * (self._tree.size - nodes)
        self._new[name] = state
        most = max(1, len(self._topics) // NEWEST_PART)
        while silent := _first(self._new):
            is_known = silent.first_seq > self._last_drop and time - silent.first_time >= SETTLING_MS
            if not is_known and len(self._new) <= most:
                break
            del self._new[silent.name]
            self._settled[silent.name] = silent
        return state

    def _maybe_settle(self, state: Topic) -> None:
        """Settles a new topic that has been in use for `SETTLING_MS`.

        If topics were forgotten since this one came, the number of settled ones is bounded: it changes places with a
        settled topic that has been silent since before it came, or stays new where there is none.
        """
        if self._last_drop >= state.first_seq:
            silent = _first(self._settled)
            if silent is None or silent.heard[0] >= state.first_seq:
                return
            del self._settled[silent.name]
            self._new[silent.name] = silent
            self._new.move_to_end(silent.name, last=False)
        del self._new[state.name]
        self._settled[state.name] = state

    def _less_used(self, time: int) -> OrderedDict[str, Topic]:
        """The order, new or settled, whose first topic is to be forgotten."""
        if len(self._new) < self.max_topics // NEWEST_PART:
            silent = _first(self._settled)
            if silent is not None and time - silent.heard[1] >= SETTLING_MS:
                return self._settled
        return self._new or self._settled

    def _evict(self, message: Message, state: Topic, segment: Segment | None = None, index: int = 0) -> None:
        """Takes a message, already off its topic's list, out of the log and notes its number."""
        seq = message.seq
        if segment is None:
            self._log.remove(seq)
        else:
            self._log.remove_at(segment, index)
        self.bytes -= len(message.frame) + _EVICTED_GAIN
        if message.properties is not None:
            self.bytes -= _extras_cost(message)
            self._mortal -= "message_expiry_interval" in message.properties
        if message.retained:
            state.kept = None
        self.evicted += 1
        if seq > self.evicted_seq:
            self.evicted_seq = seq
            state.evicted.append(seq)
        else:
            insort(state.evicted, seq)  # one that expired may have gone before it
        time = message.time if not self._steps else self._arrival(message)
        if time > state.evicted_time:
            state.evicted_time = time
            if time > self.evicted_time:
                self.evicted_time = time
        self._numbers += 1
        if len(state.evicted) > EVICTED_NUMBERS:
            self._forget_numbers(state)
        if self._numbers > self._max_numbers:
            self._forget_more_numbers()

    def _forget_numbers(self, state: Topic, count: int | None = None) -> None:
        """Forgets the oldest `count` numbers of a topic's evicted messages, by default half of them."""
        count = (len(state.evicted) + 1) // 2 if count is None else count
        if count:
            state.forgotten_seq = max(state.forgotten_seq, state.evicted[count - 1])
            del state.evicted[:count]
            self._numbers -= count
            self.bytes -= count * EVICTED_COST

    def _forget_more_numbers(self) -> None:
        """Halves the numbers of one topic after the other, so that all go back to about the same time."""
        while self._numbers > self._max_numbers:
            if not self._forgetting:
                # far fewer than the numbers that the last round made room for: a topic alone costs more than they do
                self._forgetting = [state for state in self._topics.values() if state.evicted]
                if not self._forgetting:
                    return
            self._forget_numbers(self._forgetting.pop())

    def _evict_oldest(self, before_time: int | None = None) -> bool:
        """Evicts the oldest message that is no last value (and older than `before_time`); False if there is none."""
        segment, index, moves = self._place
        while True:
            if moves != self._log.moves or index >= len(segment.messages):
                moves = self._log.moves
                at, index = self._log.place(self._passed + 1)
                if at == len(self._log.segments):
                    break
                segment = self._log.segments[at]
            message = segment.messages[index]
            if message is not None:
                if before_time is not None:
                    time = message.time if not self._steps else self._arrival(message)
                    if time >= before_time:
                        self._place = segment, index, moves
                        self._oldest_time = time
                        return False
                state = self._topics[message.topic]
                if state.last is not message:
                    self._passed = message.seq
                    self._place = segment, index + 1, moves
                    self._evict(state._pop(), state, segment, index)
                    return True
            self._passed = segment.seqs[index]
            index += 1
        self._place = segment, len(segment.messages), moves
        self._oldest_time = self._newest_time
        return False

    def _shrink(self) -> None:
        while self.bytes > self.max_bytes and (self._evict_oldest() or self._drop_topic()):
            pass

    def _drop_topic(self, order: OrderedDict[str, Topic] | None = None) -> bool:
        """Forgets the topic that has been silent for longest, by default a new one; False if there is none."""
        order = order or self._new or self._settled
        if not order:
            return False
        name, state = order.popitem(last=False)
        while len(state):
            self._evict(state._pop(), state)
        self._forget_numbers(state, len(state.evicted))
        nodes = self._tree.size
        self._tree.remove(name)
        self.bytes -= TOPIC_COST + 3 * len(state.head) + NODE_COST * (nodes - self._tree.size)
        self.dropped_topics += 1
        self._last_drop = self.seq
        self.dropped_seq = max(self.dropped_seq, state.heard[0])
        if state.last is not None:
            self.dropped_time = max(self.dropped_time, self._arrival(state.last))
        state.last = None
        state.is_dropped = True
        del self._topics[name]
        self._system_topics.pop(name, None)
        if state.watch is not None:
            state.watch.note(state)
        return True

    # positions

    @property
    def position(self) -> str:
        """The position of the newest message, `epoch:seq`."""
        return f"{self.epoch}:{self.seq}"

    def floor(self, filters: FilterSet, after: int, until: int) -> int:
        """A number such that above it everything that matches is here, up to `until`; `after` if all of it is."""
        if after >= max(self.evicted_seq, self.dropped_seq):
            return after
        few = self._few_topics(filters)
        if few is None:
            return min(max(self.evicted_seq, self.dropped_seq), until)
        found = max(after, min(self.dropped_seq, until))
        for state in few:
            index = bisect_right(state.evicted, until)
            found = max(found, state.evicted[index - 1] if index else min(state.forgotten_seq, until))
        return found

    def patched(self, filters: FilterSet, after: int, until: int, part: Part, *, backwards: bool = False) -> Part:
        """A part that was read beyond memory, with what memory has where some could not be read.

        Args:
            filters: what is wanted.
            after: the number behind which it was read.
            until: the number up to which it was read.
            part: what was read.
            backwards: it is newest first.
        """
        if part.is_whole:
            return part
        if backwards:
            back = {message.seq: message for message in part.messages}
            cursor = after
            for step, message in enumerate(self.backwards(filters, after, until), start=1):
                if message is not None:
                    back[message.seq] = message
                    if step >= SCAN_LIMIT:
                        cursor = message.seq - 1
                        break
            left = sorted((seq for seq in back if seq > cursor), reverse=True)
            return Part([back[seq] for seq in left], cursor, is_whole=False, is_thinned=part.is_thinned)
        chunk = self.read(filters, after, until)
        found = {message.seq: message for message in part.messages if message.seq <= chunk.cursor}
        found.update((message.seq, message) for message in chunk.messages)
        return Part(sorted(found.values(), key=seq_of), chunk.cursor, is_whole=False, is_thinned=part.is_thinned)

    def is_kept(self, message: Message) -> bool:
        """Whether the broker keeps a message, as far as is known."""
        state = self._topics.get(message.topic)
        return state is not None and state.kept is not None and state.kept.seq == message.seq

    def crashed_between(self, after: int, until: int) -> bool:
        """Whether messages with `after` < seq <= `until` may have been lost by a crash; nobody knows how many."""
        return any(first <= until and last > after for first, last in self.crashes)

    def before_time(self, time: int) -> int:
        """A number such that no kept message up to it arrived at or after `time` (milliseconds since 1970).

        While the clock is not set back, every message after it arrived at or after `time`.
        """
        start = 0
        for seq, _ in self._steps:
            found = self._log.first_at(time, start, seq - 1)
            if found is not None:
                return found - 1
            start = seq - 1
        found = self._log.first_at(time, start)
        return self.seq if found is None else found - 1

    def past_evicted(self, after: int) -> int:
        """The highest number that has no kept message between `after` and itself."""
        found = self._log.first_kept(after)
        return self.seq if found is None else found - 1

    def newest(self, count: int) -> int:
        """The number after which the log has at most `count` messages, of all topics."""
        return self._log.before_newest(count) if count else self.seq

    # reading

    def topics(self) -> Iterator[Topic]:
        """All known topics, in no order; `match` finds those that filters match."""
        return iter(self._topics.values())

    def match(self, filters: FilterSet) -> Generator[None, None, list[Topic]]:
        """The known topics that the filters match, each once, in no order; not to be changed.

        A step takes some hundred microseconds. The list is remembered for later calls of this, and of all that reads.
        What comes or goes meanwhile may be in it or not.
        """
        known = self._known_match(filters)
        if known is not None:
            return known
        added, dropped = self._added_topics, self.dropped_topics
        found: list[Topic] = untracked([])
        for some in self._tree.find(filters.union):
            found += some
            yield
        if self._added_topics - added <= NEW_TOPICS:
            if added < self._added_topics:
                later = set(self._added_since(added))
                found = untracked([state for state in found if state not in later])
            self._remember(filters, _MatchList(found, added, dropped))
            return self._known_match(filters) or []
        return found

    def _known_match(self, filters: FilterSet) -> list[Topic] | None:
        """The same if it need not be searched for."""
        if filters.is_exact:
            return [state for name in filters.filters if (state := self._topics.get(name)) is not None]
        known = self._match_lists.get(filters)
        if known is None or self._added_topics - known.added > NEW_TOPICS:
            return None
        self._match_lists.move_to_end(filters)
        if known.added < self._added_topics:
            new = self._added_since(known.added)
            known.topics = untracked(known.topics + [state for state in new if filters.matches(state.name)])
            known.added = self._added_topics
        if known.dropped != self.dropped_topics:
            known.topics = untracked([state for state in known.topics if not state.is_dropped])
            known.dropped = self.dropped_topics
        return known.topics

    def _added_since(self, added: int) -> list[Topic]:
        """The topics that came after that many had, at most `NEW_TOPICS`."""
        return list(self._newest_topics)[added - self._added_topics :]

    def _remember(self, filters: FilterSet, found: _MatchList) -> None:
        lists = self._match_lists
        lists[filters] = found
        lists.move_to_end(filters)
        while len(lists) > 1 and (
            len(lists) > MATCH_LISTS or sum(len(each.topics) for each in lists.values()) > MATCH_LIST_TOPICS
        ):
            lists.popitem(last=False)

    def topic(self, name: str) -> Topic | None:
        """The topic of that name, None while no message of it is known."""
        return self._topics.get(name)

    def _few_topics(self, filters: FilterSet) -> list[Topic] | None:
        """The matching topics if they are known to be few, else None."""
        known = self._match_lists.get(filters)
        if known is not None and len(known.topics) > 2 * NARROW_TOPICS:
            return None  # even if the list has aged: both ways read the same
        found = self._known_match(filters)
        if found is not None:
            return found if len(found) <= NARROW_TOPICS else None
        # nobody who counted them was here before: a look at a part of the tree has to do
        search = self._tree.find(filters.union, MAX_LOOKED_AT)
        found = []
        while len(found) <= NARROW_TOPICS:
            try:
                found += next(search)
            except StopIteration as end:
                if not end.value:
                    return None
                self._remember(filters, _MatchList(found, self._added_topics, self.dropped_topics))
                return found
        return None

    def read(
        self,
        filters: FilterSet,
        after: int,
        until: int,
        *,
        last_only: bool = False,
        max_bytes: int = 65_536,
    ) -> Chunk:
        """The next part of a replay: messages that match, `after` < seq <= `until`, oldest first.

        Args:
            filters: what is wanted.
            after: the number that was read last.
            until: the number to stop at.
            last_only: only what was each topic's newest message as of `until`.
            max_bytes: about how much to read; at least one message comes if any is left.

        Returns:
            The messages and a cursor for the next call; the replay is over when the cursor is `until`. A chunk may be
            empty although more is to come: a chunk walks only a bounded part of the log.
        """
        if after >= until:
            return Chunk([], until)
        few = self._few_topics(filters)
        source: Iterator[Message]
        scan_end = until
        if few is not None:
            if last_only:
                lasts = (state.last_as_of(until) for state in few)
                source = iter(sorted((m for m in lasts if m is not None and m.seq > after), key=seq_of))
            elif len(few) == 1:
                source = few[0].after(after)
            else:
                source = merge(*(state.after(after) for state in few), key=seq_of)
        else:
            entries, reached = self._log.entries(after, SCAN_LIMIT)
            if reached is not None:
                scan_end = min(until, reached)
            source = self._scan(entries, until, filters, last_only)
        messages: list[Message] = []
        size = 0
        for message in source:
            if message.seq > until:
                break
            messages.append(message)
            size += len(message.frame)
            if size >= max_bytes:
                return Chunk(messages, message.seq)
        return Chunk(messages, scan_end)

    def _scan(
        self, entries: Iterable[Message | None], until: int, filters: FilterSet, last_only: bool
    ) -> Iterator[Message]:
        wanted: dict[str, bool] = {}
        for message in entries:
            if message is None:
                continue
            topic = message.topic
            want = wanted.get(topic)
            if want is None:
                want = wanted[topic] = filters.matches(topic)
            if want and not (last_only and self._topics[topic].last_as_of(until) is not message):
                yield message

    def backwards(self, filters: FilterSet, after: int, until: int) -> Iterator[Message | None]:
        """Matching messages with `after` < seq <= `until`, newest first; None for a step that found none.

        Reads as it goes: what is evicted meanwhile is left out.
        """
        few = self._few_topics(filters)
        if few is not None:
            found = merge(*(state.before(until, after) for state in few), key=seq_of, reverse=True)
            yield from found
            return
        wanted: dict[str, bool] = {}
        seq = until + 1
        while (entry := self._log.newest_before(seq)) is not None and entry[0] > after:
            seq, message = entry
            if message is not None and message.topic not in wanted:
                wanted[message.topic] = filters.matches(message.topic)
            yield message if message is not None and wanted[message.topic] else None

    def count_at_once(self, filters: FilterSet, after: int, until: int, *, last_only: bool = False) -> int | None:
        """The number of messages that `read` would give if it read everything now.

        None where something of it may be evicted, or counting would take longer than a millisecond or so: then each
        topic has to be asked (`Selection.tally`).
        """
        if after < self.evicted_seq:
            return None
        entries, kept = self._log.count_between(after, until)
        if entries < SCAN_LIMIT and not filters.is_exact:
            messages = takewhile(lambda m: m is None or m.seq <= until, self._log.entries(after, SCAN_LIMIT)[0])
            return sum(1 for _ in self._scan(messages, until, filters, last_only))
        if "#" in filters and not last_only:
            others = (state for state in self._system_topics.values() if not filters.matches(state.name))
            return kept - sum(state.count_between(after, until) for state in others)
        return None

    # for those who watch

    @property
    def message_count(self) -> int:
        """Messages kept now."""
        return self._log.count

    @property
    def topic_count(self) -> int:
        """Topics known now."""
        return len(self._topics)


def _no_decoder(_topic: str) -> None:
    """Every payload is as it should be."""


def _first(topics: OrderedDict[str, Topic]) -> Topic | None:
    return next(iter(topics.values()), None)


def room_for_messages(max_bytes: int, topics: int, max_messages: int) -> int:
    """About how many messages of 100 bytes a log keeps, last values included, with topics like `sensors/a/state`."""
    topic = TOPIC_COST + 2 * NODE_COST + 90
    # the envelope adds about as much to a short payload as that has itself
    room = max(max_bytes - max_bytes // EVICTED_PART - topics * topic, 0) // (MESSAGE_COST + 200)
    return min(room, topics * max_messages)


def _extras_cost(message: Message) -> int:
    """What is charged of a message beside its frame."""
    cost = DECODED_COST + len(message.origin) if isinstance(message, DecodedMessage) else 0
    return cost + _properties_cost(message.properties) if message.properties else cost


def _properties_cost(properties: Properties) -> int:
    cost = 232
    for value in properties.values():
        match value:
            case str() | bytes():
                cost += 60 + len(value)
            case list():
                cost += sum(200 + len(name) + len(text) for name, text in value)
            case _:
                cost += 32 + 2 * 130  # the expiry interval: up to two places in the heap
    return cost

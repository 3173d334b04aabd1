"""Blocks: messages in a row as two byte strings, and back.

Invariant: `decode(encode(batch))` gives every message with all that it came with, so that its frame can be made again
byte for byte. Which topic has which id, and where blocks are kept, is for `file`.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from gateway.core.messages import DecodedMessage, Message, Properties, encode_topic
from gateway.core.snapshots import Arrived, TopicState

__all__ = [
    "MESSAGE_BYTES",
    "Batch",
    "Block",
    "BlockError",
    "decode_ids",
    "decode_states",
    "encode_batch",
    "encode_ids",
    "encode_states",
    "repack",
]

FORM = 1
"""The first byte of a block's data."""

THINNED = 2
"""The same of a block in which numbers are missing: two columns more say which it has."""

DECODED = 3
"""The same of a block with what decoders made of payloads, in one column more; numbers may be missing."""

LEVEL = 5
"""Of zlib: a block of 2,000 readings takes 1.5 ms, without the interpreter's lock, and a quarter less room than 1."""

MESSAGE_BYTES = 160
"""What a message takes besides its payload while it waits to be written: its places, its payload's object."""

_QOS = 0b11
_RETAINED = 0b100

_pack = msgspec.msgpack.Encoder().encode


class BlockError(ValueError):
    """Bytes that are no block: the file is damaged."""


class Batch:
    """Messages with numbers in a row, column by column, while they wait to be written.

    Attributes:
        first_seq: number of the first one.
        size: about how many bytes of memory it takes.
    """

    __slots__ = ("decoded", "first_seq", "flags", "payloads", "properties", "size", "times", "topics")

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.times: list[int] = []
        self.flags: list[int] = []
        self.properties: list[tuple[int, Properties]] = []
        self.decoded: list[tuple[int, bytes]] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self.topics)

    @property
    def last_seq(self) -> int:
        """Number of the last one."""
        return self.first_seq + len(self.topics) - 1

    def add(self, message: Message, payload: bytes) -> None:
        """Takes the message with the next number. Its payload is given, since cutting it out again would cost."""
        if message.properties is not None:
            if message.properties:
                self.properties.append((len(self.topics), message.properties))
                self.size += 500
            if (decoded := message.decoded) is not None:  # whoever has that has properties, be they empty
                self.decoded.append((len(self.topics), decoded))
                self.size += len(decoded) + 150
        self.topics.append(message.topic)
        self.payloads.append(payload)
        self.times.append(message.time)
        self.flags.append(message.qos | _RETAINED if message.retained else message.qos)
        self.size += len(payload) + MESSAGE_BYTES

    @property
    def shown(self) -> list[bytes]:
        """What is looked at for values: what decoders made of the payloads, else these."""
        if not self.decoded:
            return self.payloads
        found = self.payloads.copy()
        for at, decoded in self.decoded:
            found[at] = decoded
        return found


def encode_ids(ids: list[int]) -> bytes:
    """Different ids in rising order as bytes: their differences, compressed where that is shorter."""
    plain = _to_bytes(array("Q" if ids and ids[-1] >> 32 else "I", _differences(ids)))
    form = b"\x01" if ids and ids[-1] >> 32 else b"\x00"
    packed = zlib.compress(plain, LEVEL)
    return bytes([form[0] | 2]) + packed if len(packed) < len(plain) else form + plain


def decode_ids(data: bytes) -> list[int]:
    """The ids again.

    Raises:
        BlockError: these are not their bytes.
    """
    if not data or data[0] > 3:
        raise BlockError("the topics of a block are in no known form")
    try:
        plain = zlib.decompress(data[1:]) if data[0] & 2 else data[1:]
    except zlib.error as error:
        raise BlockError(f"the topics of a block are damaged: {error}") from None
    return list(accumulate(_from_bytes("Q" if data[0] & 1 else "I", plain)))


def _differences(numbers: Iterable[int]) -> Iterator[int]:
    before = 0
    for number in numbers:
        yield number - before
        before = number


def encode_batch(batch: Batch, id_of: Callable[[str], int]) -> tuple[bytes, bytes]:
    """The topics and the data of a block.

    Args:
        batch: at least one message.
        id_of: the id of a topic, from 1.
    """
    names = dict.fromkeys(batch.topics)
    ids = {name: id_of(name) for name in names}
    ordered = sorted(ids.values())
    place_of_id = {number: place for place, number in enumerate(ordered)}
    place = {name: place_of_id[number] for name, number in ids.items()}
    columns = (
        _to_bytes(array("H" if len(ordered) <= 65_536 else "I", map(place.__getitem__, batch.topics))),
        _to_bytes(array("q", _differences(batch.times))),
        bytes(batch.flags),
        _to_bytes(array("I", map(len, batch.payloads))),
        batch.properties,
        b"".join(batch.payloads),
    )
    return encode_ids(ordered), _packed(columns, None, 0, batch.decoded)


def _packed(columns: tuple[Any, ...], numbers: bytes | None, span: int, decoded: list[tuple[int, bytes]]) -> bytes:
    """The data of a block, in the oldest form that has room for it: gateways of then can read that."""
    if decoded:
        form, columns = DECODED, (*columns, numbers, span, decoded)
    elif numbers is not None:
        form, columns = THINNED, (*columns, numbers, span)
    else:
        form = FORM
    return bytes([form]) + zlib.compress(_pack(columns), LEVEL)


class _Columns(msgspec.Struct, array_like=True):
    places: bytes
    times: bytes
    flags: bytes
    sizes: bytes
    properties: list[tuple[int, Properties]]
    payloads: bytes
    numbers: bytes | None = None
    span: int = 0
    decoded: list[tuple[int, bytes]] = []


_unpack = msgspec.msgpack.Decoder(_Columns).decode
_FORMS = (FORM, THINNED, DECODED)


class Block:
    """A block that has been read.

    Attributes:
        first_seq: number of its first message, whether it still has that or not.
        last_seq: that of its last one.
        ids: the ids of its topics, rising.
        times: when each message arrived, milliseconds since 1970.
    """

    __slots__ = ("_data", "_decoded", "_flags", "_numbers", "_places", "_properties", "_starts", "first_seq", "ids",
                 "last_seq", "times")  # fmt: skip

    def __init__(self, first_seq: int, topics: bytes, data: bytes) -> None:
        """Reads a block.

        Raises:
            BlockError: it is damaged.
        """
        self.first_seq = first_seq
        self.ids = decode_ids(topics)
        if not data or data[0] not in _FORMS:
            raise BlockError(f"a block has the form {data[:1].hex() or 'of nothing'}, known are 1 to {DECODED}")
        try:
            columns = _unpack(zlib.decompress(data[1:]))
        except (zlib.error, msgspec.MsgspecError, UnicodeError) as error:
            raise BlockError(f"a block is damaged: {error}") from None
        self._places = _from_bytes("H" if len(self.ids) <= 65_536 else "I", columns.places)
        self._flags = columns.flags
        self._properties = dict(columns.properties)
        self._decoded = dict(columns.decoded)
        self._data = columns.payloads
        self._starts = array("Q", accumulate(_from_bytes("I", columns.sizes), initial=0))
        self.times = array("q", accumulate(_from_bytes("q", columns.times)))
        # of each message how far its number is from the first, where some are missing
        numbers = columns.numbers
        self._numbers = None if numbers is None else array("Q", accumulate(_from_bytes("I", numbers)))
        self.last_seq = first_seq + (len(self._flags) if self._numbers is None else columns.span) - 1
        counts = {len(self._places), len(self.times), len(self._flags), len(self._starts) - 1}
        if self._numbers is not None:
            counts.add(len(self._numbers))
        if (
            len(counts) != 1
            or self._starts[-1] != len(self._data)
            or max(self._places, default=0) >= max(len(self.ids), 1)
            or (self._numbers and first_seq + self._numbers[-1] > self.last_seq)
        ):
            raise BlockError("the columns of a block do not fit each other")

    def __len__(self) -> int:
        return len(self._flags)

    @property
    def is_thinned(self) -> bool:
        """Whether numbers are missing in it."""
        return self._numbers is not None

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        decoded = sum(100 + len(each) for each in self._decoded.values())
        return len(self._data) + decoded + len(self) * (24 if self._numbers is None else 32)

    def sizes_by_id(self) -> dict[int, int]:
        """Bytes of payload, and twenty for what is kept with each, by the id of the topic."""
        found = dict.fromkeys(self.ids, 0)
        for at, place in enumerate(self._places):
            found[self.ids[place]] += self._starts[at + 1] - self._starts[at] + 20
        return found

    def seq_at(self, at: int) -> int:
        """The number of a message."""
        return self.first_seq + (at if self._numbers is None else self._numbers[at])

    def before_time(self, moment: int) -> int:
        """A number behind which all its messages are that arrived at or after a time, those that are missing, too."""
        at = bisect_left(self.times, moment)
        if self._numbers is None:
            return self.first_seq - 1 + at
        return self.seq_at(at - 1) if at else self.first_seq - 1

    def _between(self, after: int, until: int) -> tuple[int, int]:
        """The places of messages with `after` < seq <= `until`: the first one, and the one behind the last."""
        low, high = max(after + 1 - self.first_seq, 0), max(until + 1 - self.first_seq, 0)
        if self._numbers is None:
            return low, min(high, len(self))
        return bisect_left(self._numbers, low), bisect_left(self._numbers, high)

    def select(self, wanted: Callable[[int], bool], after: int, until: int) -> list[int]:
        """The places of messages whose topic's id is wanted, with `after` < seq <= `until`, rising."""
        low, high = self._between(after, until)
        places = {place for place, number in enumerate(self.ids) if wanted(number)}
        if len(places) == len(self.ids):
            return list(range(low, high))
        if not places:
            return []
        return [at for at, place in enumerate(self._places[low:high], low) if place in places]

    def id_at(self, at: int) -> int:
        """The id of a message's topic."""
        place: int = self._places[at]
        return self.ids[place]

    def message_at(self, at: int, topic: str, head: bytes | None = None) -> Message:
        """The message at a place as it arrived; `topic` is the name that `id_at` stands for, `head` is made of it."""
        flags = self._flags[at]
        came = (
            self.seq_at(at),
            topic,
            self._data[self._starts[at] : self._starts[at + 1]],
            self.times[at],
            flags & _QOS,
            bool(flags & _RETAINED),
            self._properties.get(at),
        )
        if (decoded := self._decoded.get(at)) is not None:
            return DecodedMessage.made(*came, encode_topic(topic) if head is None else head, decoded)
        return Message.arrived(*came, head)

    def arrivals(self, names: Sequence[str], after: int, until: int) -> Iterator[Arrived]:
        """The messages with `after` < seq <= `until`, not encoded; `names` are those of `ids`, in their order."""
        data, starts, flags, places, properties = self._data, self._starts, self._flags, self._places, self._properties
        for at in range(*self._between(after, until)):
            yield Arrived(
                self.seq_at(at),
                names[places[at]],
                data[starts[at] : starts[at + 1]],
                self.times[at],
                flags[at] & _QOS,
                bool(flags[at] & _RETAINED),
                properties.get(at),
                self._decoded.get(at),
            )


def repack(parts: Sequence[tuple[Block, Sequence[int]]], first_seq: int, last_seq: int) -> tuple[bytes, bytes, int]:
    """Messages of one or more blocks as one.

    Args:
        parts: blocks in the order of their numbers, each with the places of the messages that stay, rising.
        first_seq: the number with which it begins.
        last_seq: the number with which it ends.

    Returns:
        Its topics, its data, and how many messages it has.
    """
    ids = sorted({block.ids[place] for block, places in parts for place in {block._places[at] for at in places}})
    place_of_id = {number: place for place, number in enumerate(ids)}
    columns: tuple[list[int], ...] = ([], [], [], [])
    flags, payloads = bytearray(), []
    properties: list[tuple[int, Properties]] = []
    decoded: list[tuple[int, bytes]] = []
    topics, times, sizes, numbers = columns
    for block, places in parts:
        new_place = [place_of_id.get(number, 0) for number in block.ids]
        starts, data = block._starts, block._data
        for at in places:
            if (found := block._properties.get(at)) is not None:
                properties.append((len(flags), found))
            if (made := block._decoded.get(at)) is not None:
                decoded.append((len(flags), made))
            flags.append(block._flags[at])
            payloads.append(data[starts[at] : starts[at + 1]])
        topics += [new_place[block._places[at]] for at in places]
        times += [block.times[at] for at in places]
        sizes += [starts[at + 1] - starts[at] for at in places]
        numbers += [block.seq_at(at) - first_seq for at in places]
    packed: tuple[Any, ...] = (
        _to_bytes(array("H" if len(ids) <= 65_536 else "I", topics)),
        _to_bytes(array("q", _differences(times))),
        bytes(flags),
        _to_bytes(array("I", sizes)),
        properties,
        b"".join(payloads),
    )
    span = last_seq - first_seq + 1
    missing = _to_bytes(array("I", _differences(numbers))) if len(flags) < span else None
    return encode_ids(ids), _packed(packed, missing, span, decoded), len(flags)


_pack_states = msgspec.msgpack.Encoder().encode
_unpack_states = msgspec.msgpack.Decoder(tuple[bool, list[TopicState]]).decode


def encode_states(retained_as_published: bool, states: list[TopicState]) -> bytes:
    """A part of a snapshot, not yet compressed; the flag is `History.retained_as_published`."""
    return _pack_states((retained_as_published, states))


def decode_states(data: bytes) -> tuple[bool, list[TopicState]]:
    """A part of a snapshot again, as the file has it: compressed.

    Raises:
        BlockError: it is damaged.
    """
    try:
        return _unpack_states(zlib.decompress(data))
    except (zlib.error, msgspec.MsgspecError, UnicodeError) as error:
        raise BlockError(f"a snapshot is damaged: {error}") from None


def _to_bytes(numbers: array[Any]) -> bytes:
    if sys.byteorder == "big":  # files go from one machine to another
        numbers.byteswap()
    return numbers.tobytes()


def _from_bytes(code: str, data: bytes) -> array[Any]:
    numbers = array(code)
    if len(data) % numbers.itemsize:
        raise BlockError("a column of a block is cut short")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers

"""What is in an entry of the stream, as bytes and back.

Invariant: `decode(encode(entry))` gives every message with all that it came with, and what it gives for other bytes has
numbers and times that a log can hold: who else can write to the server ends no node. Where entries lie is for others.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from gateway.core.messages import Properties

__all__ = ["FORM", "NOTHING", "QOS", "RETAINED", "Entry", "EntryError", "Id", "Row", "decode", "encode"]

FORM = 1
"""The form of entries; a node that meets another one says so and follows no further."""

_LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999, since 1970: no clock is there, and sums of two have room everywhere."""

Topic = Annotated[str, msgspec.Meta(min_length=1, max_length=65_535)]
Time = Annotated[int, msgspec.Meta(ge=0, le=_LATEST)]
Distance = Annotated[int, msgspec.Meta(ge=-_LATEST, le=_LATEST)]
Flags = Annotated[int, msgspec.Meta(ge=0, le=0b111)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

QOS = 0b11
"""Of a row's flags."""

RETAINED = 0b100
"""The same."""


class EntryError(ValueError):
    """These bytes are no entry, or one of a form that this version doesn't know."""


class Id(NamedTuple):
    """The id of an entry: the number of the last message up to it, and a count of entries without messages."""

    seq: int
    sub: int = 0

    @classmethod
    def parse(cls, text: str | bytes) -> Id:
        """The id that stands in a stream."""
        seq, _, sub = (text.decode() if isinstance(text, bytes) else text).partition("-")
        return cls(int(seq), int(sub or 0))

    def __str__(self) -> str:
        return f"{self.seq}-{self.sub}"

    @property
    def following(self) -> Id:
        """The id of an entry without messages behind it."""
        return Id(self.seq, self.sub + 1)


NOTHING = Id(0, 0)
"""Before the first entry; no entry has this id."""


class Row(msgspec.Struct, array_like=True, gc=False):
    """A message as it came; `time` is in milliseconds after that of the entry, and may be negative."""

    topic: Topic
    payload: bytes
    time: Distance = 0
    flags: Flags = 0
    properties: Properties | None = None

    @property
    def qos(self) -> int:
        """0, 1 or 2."""
        return self.flags & QOS

    @property
    def retained(self) -> bool:
        """The retain flag as the broker sent it."""
        return bool(self.flags & RETAINED)


def flags_of(qos: int, retained: bool) -> int:
    """The flags of a row."""
    return qos | RETAINED if retained else qos


class Entry(msgspec.Struct, array_like=True, gc=False):
    """What one append puts into the stream.

    Attributes:
        form: `FORM`.
        epoch: of the log, as its leader knew it.
        token: the leader's, another one for each time that somebody leads.
        first: number of the first message, or of the one that comes next where there is none.
        time: milliseconds since 1970, of the first message.
        rows: the messages.
        published: packet identifiers at QoS 1 that await PUBACK, two bytes each.
        received: packet identifiers at QoS 2 that await PUBREC.
        completed: packet identifiers at QoS 2 whose PUBREL has come.
        as_published: whether every message says if it is retained (MQTT 5), or only a repetition does (3.1.1).
        released: topics of which the broker was found to keep nothing any more.
        is_end: the leader leaves: the lease is free at once.
        begins_session: the broker has begun another session: identifiers in entries before this one are over.
    """

    form: int
    epoch: str
    token: str
    first: Number
    time: Time = 0
    rows: list[Row] = []
    published: bytes = b""
    received: bytes = b""
    completed: bytes = b""
    as_published: bool = False
    released: list[str] = []
    is_end: bool = False
    begins_session: bool = False

    @property
    def last(self) -> int:
        """Number of the last message up to its end."""
        return self.first + len(self.rows) - 1


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_decode_form = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def decode(data: bytes) -> Entry:
    """An entry again.

    Raises:
        EntryError: it is none.
    """
    try:
        entry = _decode(data)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise EntryError(f"an entry of the stream can't be read: {error}{_hint(data)}") from None
    if entry.form != FORM:
        raise EntryError(f"an entry of the stream can't be read{_hint(data)}")
    return entry


def _hint(data: bytes) -> str:
    """What the form says, where that can still be read."""
    try:
        form = msgspec.msgpack.decode(_decode_form(data)[0], type=int)
    except (msgspec.MsgspecError, UnicodeError, IndexError):
        return ""
    return "" if form == FORM else f": it has the form {form}, known is {FORM}; all nodes must be of one version"

"""The hot half of MQTT: takes PUBLISH packets out of a stream of bytes, and leaves every other packet whole to others.

Invariant: however the stream is cut into pieces, the same calls are made in the same order, and every PUBLISH that is
counted as received is handed over or told as dropped, once. What a connection is, and all packets but PUBLISH and
PUBREL, belong to `link` and the client library under it.

Why it exists: the client library makes three calls to the socket and builds an object with 27 properties for each
message; reading whole buffers here costs a tenth of that (benchmarks/ingest.py).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Container

from gateway.core.messages import Properties

__all__ = ["PacketError", "PacketReader", "Property", "encode_varint", "parse_properties"]


# MQTT 5 §2.1.2: packet types in the high half of the first byte
PUBLISH = 0x30
PUBREL = 0x60

QOS_BITS = 0b0110
QOS_1 = 0b0010
QOS_2 = 0b0100
RETAIN = 0b0001
DUP = 0b1000
MAY_BE_REPEATED = QOS_2 | DUP

MAX_NAMES = 16_384
"""How many topic names are remembered; together with `MAX_NAME_BYTES` this is at most a few MiB."""

MAX_NAME_BYTES = 256

MAX_OTHER_BYTES = 1 << 20
"""A packet that is no PUBLISH and larger than this is no honest one: the largest are SUBACK and CONNACK."""


class Property(enum.IntEnum):
    """The properties that a PUBLISH can have (MQTT 5 §2.2.2.2)."""

    PAYLOAD_FORMAT = 1
    MESSAGE_EXPIRY = 2
    CONTENT_TYPE = 3
    RESPONSE_TOPIC = 8
    CORRELATION_DATA = 9
    SUBSCRIPTION_ID = 11
    TOPIC_ALIAS = 35
    USER_PROPERTY = 38


class PacketError(ValueError):
    """The bytes are not MQTT; the text says what was expected."""


class PacketReader:
    """Cuts a stream into packets.

    Attributes:
        received: PUBLISH packets so far, those included that were too large, not accepted or sent again.
        unwanted: those that `accepts` refused.
        repeated: those at QoS 1 and 2 that were sent again although they had arrived (MQTT 5 §4.3.2, §4.3.3).
        held: those at QoS 0 that came while `is_held`; nobody will send them again.
        acknowledgements: PUBACK, PUBREC and PUBCOMP packets that the caller sends and clears; a message is handed over
            before.
        sent_again: packet identifiers of messages at QoS 1 that had been taken, among `acknowledgements`; the caller
            clears them, too.
        is_held: while True, PUBLISH packets are neither handed over nor acknowledged, and those at QoS 1 and 2 not
            counted: the broker will send them again over the next connection.
        plain: property sections, without their length, that nobody has to look at. A message with another one, or with
            the retain flag, goes to `on_special`.
    """

    def __init__(
        self,
        *,
        version: int,
        on_message: Callable[[str, bytes, int], object],
        on_special: Callable[[str, bytes, int, bool, bytes, bool], object],
        on_packet: Callable[[bytes], object],
        on_error: Callable[[str, Exception], object],
        on_oversize: Callable[[int], object],
        accepts: Callable[[str], bool],
        max_message_bytes: int,
        exchanges: set[bytes] | None = None,
        unacknowledged: Container[bytes] = frozenset(),
    ) -> None:
        """Makes a reader for one connection.

        Args:
            version: 5, or 4 for MQTT 3.1.1.
            on_message: gets topic, payload and QoS of most messages.
            on_special: gets topic, payload, QoS, retain flag, property section and DUP flag of the others.
            on_packet: gets every other packet, whole.
            on_error: gets the topic and what `on_message` or `on_special` raised, which stops nothing; or a topic that
                is not UTF-8, as far as it can be shown.
            on_oversize: gets the size of a PUBLISH that was thrown away for its size, in bytes.
            accepts: asked about a topic when it is first seen; a message that it refuses is dropped (its sender asks
                for an acknowledgement all the same).
            max_message_bytes: larger PUBLISH packets are skipped without being held in memory.
            exchanges: packet identifiers of messages at QoS 2 that have arrived and whose PUBREL has not: at most
                65,535. They belong to the session (MQTT 5 §4.1), so the next connection gets the same set.
            unacknowledged: packet identifiers of messages at QoS 1 that have arrived, and whose PUBACK perhaps hasn't.
                One of these that is sent again is no new message. They belong to the session, too.
        """
        self.received = 0
        self.unwanted = 0
        self.repeated = 0
        self.held = 0
        self.acknowledgements: list[bytes] = []
        self.sent_again: list[bytes] = []
        self.is_held = False
        self.plain: frozenset[bytes] = frozenset()
        self._is_v5 = version == 5
        self._on_message = on_message
        self._on_special = on_special
        self._on_packet = on_packet
        self._on_error = on_error
        self._on_oversize = on_oversize
        self._accepts = accepts
        self._max_message_bytes = max_message_bytes
        self._exchanges = set() if exchanges is None else exchanges
        self._earlier = set(self._exchanges)  # those of earlier connections that were not sent again over this one
        self._unacknowledged = unacknowledged
        self._names: dict[bytes, str] = {}
        self._partial = bytearray()
        self._needed = 0
        self._skip = 0

    @property
    def missing(self) -> int:
        """How many bytes at least complete the packet that has begun, 0 between packets."""
        return self._skip or max(self._needed - len(self._partial), 0)

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the stream.

        Raises:
            PacketError: they are not MQTT; the reader can't go on.
        """
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial.clear()
        self._needed = 0
        rest = self._take(data)
        if rest < len(data):
            self._partial += data[rest:]

    def _take(self, data: bytes) -> int:
        """Takes all whole packets; returns where the first incomplete one starts, after noting what it needs."""
        end = len(data)
        position = 0
        is_v5 = self._is_v5
        on_message = self._on_message
        names = self._names
        plain = self.plain
        while end - position >= 2:
            head = data[position]
            size = data[position + 1]
            start = position + 2
            if size > 127:
                found = _varint(data, position + 1, end)
                if found is None:
                    break
                size, start = found
            stop = start + size
            if head & 0xF0 != PUBLISH:
                if size > MAX_OTHER_BYTES:
                    raise PacketError(f"a packet of type {head >> 4} says that it has {size} bytes")
                if stop > end:
                    self._needed = stop - position
                    return position
                if head & 0xF0 == PUBREL:
                    self._end_exchange(data[start:stop])
                else:
                    self._on_packet(data[position:stop])
                # what has arrived in answer may change it
                plain = self.plain
                position = stop
                continue
            if size > self._max_message_bytes and not self.is_held:
                begun = self._skip_message(data, position, start, stop)
                if begun is None:
                    return position
                position = begun
                continue
            if stop > end:
                self._needed = stop - position
                return position
            if self.is_held:
                self._hold(head)
                position = stop
                continue
            name_end = start + 2 + (data[start] << 8 | data[start + 1]) if size >= 2 else stop + 1
            body = name_end
            if head & QOS_BITS:
                body += 2
                if head & MAY_BE_REPEATED:
                    if self._is_repeated(head, data[name_end : min(body, stop)]):
                        position = stop
                        continue
                else:
                    self.acknowledgements.append(b"\x40\x02" + data[name_end:body])
            if is_v5 and body < stop:
                length = data[body]
                body += 1
                if length > 127:
                    found = _varint(data, body - 1, stop)
                    if found is None:
                        raise PacketError("a PUBLISH has a malformed property length")
                    length, body = found
                properties = data[body : body + length]
                body += length
            elif is_v5:
                raise PacketError("a PUBLISH ends before its properties")
            else:
                properties = b""
            if body > stop:
                raise PacketError("a PUBLISH ends within its header")
            raw = data[start + 2 : name_end]
            topic = names.get(raw)
            if topic is None:
                topic = self._name(raw)
            self.received += 1
            position = stop
            if not topic:
                self.unwanted += topic is not None
                continue
            try:
                if head & RETAIN or (is_v5 and properties not in plain):
                    qos = (head & QOS_BITS) >> 1
                    self._on_special(topic, data[body:stop], qos, bool(head & RETAIN), properties, bool(head & DUP))
                else:
                    on_message(topic, data[body:stop], (head & QOS_BITS) >> 1)
            except Exception as error:  # noqa: BLE001 - one message must not end the connection that would bring it again
                self._on_error(topic, error)
        if position < end and not self._needed:
            self._needed = end - position + 1
        return position

    def _skip_message(self, data: bytes, position: int, start: int, stop: int) -> int | None:
        """Throws a message away unread, but not its packet identifier; None while that hasn't arrived."""
        end = len(data)
        header = start + 2
        if header <= end:
            header += data[start] << 8 | data[start + 1]
            if data[position] & QOS_BITS:
                header += 2
        if header > end:
            self._needed = header - position
            return None
        self._skip = max(stop - end, 0)
        if data[position] & QOS_2:
            if self._is_repeated(data[position], data[header - 2 : header]):
                return min(stop, end)
        elif data[position] & QOS_1:
            self.acknowledgements.append(b"\x40\x02" + data[header - 2 : header])
        self.received += 1
        self._on_oversize(stop - start)
        return min(stop, end)

    def _is_repeated(self, head: int, identifier: bytes) -> bool:
        """Answers a PUBLISH that may have arrived before; whether it has, and is no more than counted."""
        if head & QOS_BITS == QOS_BITS:
            raise PacketError("a PUBLISH has QoS 3")  # MQTT-3.3.1-4
        if len(identifier) < 2:
            raise PacketError("a PUBLISH ends within its header")
        if head & QOS_1:
            self.acknowledgements.append(b"\x40\x02" + identifier)
            if identifier not in self._unacknowledged:
                return False
            self.sent_again.append(identifier)
            self.received += 1
            self.repeated += 1
            return True
        self.acknowledgements.append(b"\x50\x02" + identifier)
        self._earlier.discard(identifier)
        if identifier not in self._exchanges:
            self._exchanges.add(identifier)
            return False
        self.received += 1
        self.repeated += 1
        return True

    def end_earlier(self) -> list[bytes]:
        """Forgets the exchanges of earlier connections that were not sent again, and gives them.

        A broker sends again what is open as soon as it has accepted the connection (MQTT 5 §4.4). What it has not sent
        again when it answers a PINGREQ it will not: it gives the identifier to another message.
        """
        ended = [identifier for identifier in self._earlier if identifier in self._exchanges]
        self._exchanges.difference_update(ended)
        self._earlier.clear()
        return ended

    def _end_exchange(self, body: bytes) -> None:
        """Answers a PUBREL by PUBCOMP, whether its message is known or came to an earlier run (MQTT 5 §4.3.3)."""
        if len(body) < 2:
            raise PacketError("a PUBREL has no packet identifier")
        self._exchanges.discard(body[:2])
        self._earlier.discard(body[:2])
        self.acknowledgements.append(b"\x70\x02" + body[:2])

    def _hold(self, head: int) -> None:
        if not head & QOS_BITS:
            self.received += 1
            self.held += 1

    def _name(self, raw: bytes) -> str | None:
        """The topic name; empty if its messages are not wanted, None if it is none."""
        try:
            topic = raw.decode()
        except UnicodeDecodeError as error:
            # the broker should have refused it (MQTT-1.5.4-1); to close the connection would only bring it again
            self._on_error(raw[:80].decode(errors="backslashreplace"), error)
            return None
        if not topic:
            raise PacketError("a PUBLISH has no topic, and no topic alias was agreed on")  # MQTT-3.3.2-8
        if not self._accepts(topic):
            topic = ""
        if len(raw) <= MAX_NAME_BYTES:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            self._names[raw] = topic
        return topic


def _varint(data: bytes, position: int, end: int) -> tuple[int, int] | None:
    """A variable byte integer (MQTT 5 §1.5.5) and where it ends; None if it goes on after `end`."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= end:
            return None
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise PacketError("a length has more than four bytes")


def encode_varint(value: int) -> bytes:
    """A variable byte integer (MQTT 5 §1.5.5) from 0 to 268,435,455."""
    encoded = bytearray()
    while True:
        value, low = value >> 7, value & 127
        encoded.append(low | 128 if value else low)
        if not value:
            return bytes(encoded)


def parse_properties(section: bytes) -> tuple[Properties, list[int]]:
    """What a property section says (MQTT 5 §3.3.2.3).

    Returns:
        Those properties that are relayed, and the subscription
        identifiers.

    Raises:
        PacketError: it is malformed.
    """
    relayed: Properties = {}
    pairs: list[tuple[str, str]] = []
    ids: list[int] = []
    position, end = 0, len(section)

    def block(at: int) -> tuple[bytes, int]:
        stop = at + 2
        if stop <= end:
            stop += section[at] << 8 | section[at + 1]
        if stop > end:
            raise PacketError("a property is cut short")
        return section[at + 2 : stop], stop

    try:
        while position < end:
            identifier = section[position]
            position += 1
            match identifier:
                case Property.PAYLOAD_FORMAT:  # the payload shows by itself whether it is UTF-8
                    position += 1
                case Property.MESSAGE_EXPIRY:
                    relayed["message_expiry_interval"] = int.from_bytes(section[position : position + 4], "big")
                    position += 4
                case Property.CONTENT_TYPE:
                    value, position = block(position)
                    relayed["content_type"] = value.decode()
                case Property.RESPONSE_TOPIC:
                    value, position = block(position)
                    relayed["response_topic"] = value.decode()
                case Property.CORRELATION_DATA:
                    relayed["correlation_data"], position = block(position)
                case Property.SUBSCRIPTION_ID:
                    found = _varint(section, position, end)
                    if found is None:
                        raise PacketError("a property is cut short")
                    ids.append(found[0])
                    position = found[1]
                case Property.TOPIC_ALIAS:
                    raise PacketError("a topic alias was used, and none was agreed on")  # MQTT-3.3.2-9
                case Property.USER_PROPERTY:
                    name, position = block(position)
                    value, position = block(position)
                    pairs.append((name.decode(), value.decode()))
                case _:
                    raise PacketError(f"a PUBLISH has the property {identifier}")
    except UnicodeDecodeError as error:
        raise PacketError(f"a property is not UTF-8: {error.reason}") from None
    if position > end:
        raise PacketError("a property is cut short")
    if pairs:
        relayed["user_properties"] = pairs
    return relayed, ids

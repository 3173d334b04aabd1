"""Packets cut from a stream, held against paho's own packing and against any way of cutting the stream."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from gateway.upstream.packet_counts import PacketCounter
from gateway.upstream.packets import PacketError, PacketReader, encode_varint, parse_properties

PINGRESP = b"\xd0\x00"


def publish(
    topic: bytes, payload: bytes, *, qos: int = 0, retain: bool = False, mid: int = 7, properties: bytes | None = None
) -> bytes:
    """A PUBLISH; `properties` is the section without its length, None for MQTT 3.1.1."""
    body = struct.pack("!H", len(topic)) + topic
    if qos:
        body += struct.pack("!H", mid)
    if properties is not None:
        body += encode_varint(len(properties)) + properties
    body += payload
    return bytes([0x30 | qos << 1 | retain]) + encode_varint(len(body)) + body


class Calls:
    """A reader and everything that it calls, in order."""

    def __init__(
        self,
        version: int = 5,
        max_message_bytes: int = 1 << 20,
        accepts: Callable[[str], bool] | None = None,
        exchanges: set[bytes] | None = None,
    ) -> None:
        self.made: list[tuple[Any, ...]] = []
        note = self.made.append
        self.reader = PacketReader(
            version=version,
            on_message=lambda *call: note(("message", *call)),
            on_special=lambda *call: note(("special", *call)),
            on_packet=lambda packet: note(("packet", packet)),
            on_error=lambda topic, error: note(("error", topic, type(error).__name__)),
            on_oversize=lambda size: note(("oversize", size)),
            accepts=accepts or bool,
            max_message_bytes=max_message_bytes,
            exchanges=exchanges,
        )
        self.reader.plain = frozenset({b""})

    def feed(self, *pieces: bytes) -> list[tuple[Any, ...]]:
        for piece in pieces:
            self.reader.feed(piece)
        return self.made


def test_a_message_of_mqtt_3_1_1() -> None:
    assert Calls(4).feed(publish(b"a/b", b"21.5")) == [("message", "a/b", b"21.5", 0)]


def test_a_message_of_mqtt_5_whose_properties_nobody_has_to_see() -> None:
    calls = Calls()
    calls.reader.plain = frozenset({b"\x0b\x01"})
    assert calls.feed(publish(b"a", b"x", properties=b"\x0b\x01")) == [("message", "a", b"x", 0)]


def test_retained_messages_and_unknown_properties_are_special() -> None:
    expiry = b"\x02\x00\x00\x00\x09"
    made = Calls().feed(publish(b"a", b"x", retain=True, properties=b""), publish(b"b", b"y", qos=1, properties=expiry))
    assert made == [("special", "a", b"x", 0, True, b"", False), ("special", "b", b"y", 1, False, expiry, False)]


def test_qos_1_is_acknowledged_after_the_hand_over() -> None:
    calls = Calls(4)
    calls.feed(publish(b"a", b"x", qos=1, mid=0x1234), publish(b"a", b"y"))
    assert calls.reader.acknowledgements == [b"\x40\x02\x12\x34"]


def test_while_held_messages_are_left_to_the_broker_and_other_packets_are_not() -> None:
    calls = Calls(4)
    calls.reader.is_held = True
    calls.feed(publish(b"a", b"x", qos=1) + PINGRESP + publish(b"a", b"y"))
    assert calls.made == [("packet", PINGRESP)]
    # nobody sends again what was at QoS 0
    assert (calls.reader.acknowledgements, calls.reader.received, calls.reader.held) == ([], 1, 1)


def test_an_empty_payload_is_a_message() -> None:
    assert Calls().feed(publish(b"a", b"", properties=b"")) == [("message", "a", b"", 0)]
    assert Calls(4).feed(publish(b"a", b"", qos=1)) == [("message", "a", b"", 1)]


def test_other_packets_come_whole() -> None:
    suback = b"\x90\x04\x00\x01\x00\x01"
    assert Calls().feed(PINGRESP + suback) == [("packet", PINGRESP), ("packet", suback)]


def pubrel(mid: int) -> bytes:
    return b"\x62\x02" + struct.pack("!H", mid)


def test_qos_2_is_handed_over_once_and_its_exchange_completed() -> None:
    calls = Calls(4)
    again = bytes([0x3C]) + publish(b"a", b"x", qos=2)[1:]
    calls.feed(publish(b"a", b"x", qos=2) + again + pubrel(7) + publish(b"a", b"y", qos=2))
    assert calls.made == [("message", "a", b"x", 2), ("message", "a", b"y", 2)]
    received, complete = b"\x50\x02\x00\x07", b"\x70\x02\x00\x07"
    assert calls.reader.acknowledgements == [received, received, complete, received]
    assert (calls.reader.received, calls.reader.repeated) == (3, 1)


def test_the_session_and_not_the_connection_remembers_what_arrived_at_qos_2() -> None:
    exchanges: set[bytes] = set()
    Calls(4, exchanges=exchanges).feed(publish(b"a", b"x", qos=2))
    again = Calls(4, exchanges=exchanges)
    again.feed(publish(b"a", b"x", qos=2) + pubrel(7))
    assert again.made == []
    assert exchanges == set()


def test_what_is_not_sent_again_when_a_ping_is_answered_is_over() -> None:
    exchanges = {b"\0\5", b"\0\6", b"\0\7", b"\0\x08"}
    calls = Calls(4, exchanges=exchanges)
    calls.feed(publish(b"a", b"known", qos=2) + pubrel(6))
    assert calls.made == []
    assert sorted(calls.reader.end_earlier()) == [b"\0\5", b"\0\x08"]
    assert exchanges == {b"\0\7"}
    # that identifier has come over this connection: no later answer ends its exchange
    assert calls.reader.end_earlier() == []
    assert exchanges == {b"\0\7"}


def test_while_held_qos_2_is_left_to_the_broker_and_what_was_handed_over_is_completed() -> None:
    calls = Calls(4)
    calls.feed(publish(b"a", b"x", qos=2, mid=1))
    calls.reader.acknowledgements.clear()
    calls.reader.is_held = True
    calls.feed(publish(b"a", b"y", qos=2, mid=2) + pubrel(1))
    assert calls.made == [("message", "a", b"x", 2)]
    assert calls.reader.acknowledgements == [b"\x70\x02\x00\x01"]


def test_a_pubrel_that_nothing_is_known_of_is_answered() -> None:
    calls = Calls()
    calls.feed(pubrel(9))
    assert calls.reader.acknowledgements == [b"\x70\x02\x00\x09"]


def test_a_message_that_a_callback_fails_on_is_acknowledged_and_the_next_one_arrives() -> None:
    calls = Calls(4)

    def fail(topic: str, payload: bytes, qos: int) -> None:
        calls.made.append(("message", topic, payload, qos))
        raise ValueError(payload)

    calls.reader._on_message = fail
    calls.feed(publish(b"a", b"1", qos=1) + publish(b"a", b"2", qos=1))
    assert [call[0] for call in calls.made] == ["message", "error", "message", "error"]
    assert len(calls.reader.acknowledgements) == 2


def test_a_topic_that_is_not_utf8_is_dropped_and_the_next_one_arrives() -> None:
    calls = Calls()
    calls.feed(publish(b"\xff/a", b"x", qos=1, properties=b"") + publish(b"b", b"y", properties=b""))
    assert calls.made == [("error", "\\xff/a", "UnicodeDecodeError"), ("message", "b", b"y", 0)]
    # it was counted as an error already
    assert calls.reader.unwanted == 0


def test_a_topic_is_judged_once_and_its_messages_dropped() -> None:
    asked: list[str] = []

    def accepts(topic: str) -> bool:
        asked.append(topic)
        return topic != "no"

    calls = Calls(4, accepts=accepts)
    calls.feed(*[publish(b"no", b"x", qos=1), publish(b"yes", b"y")] * 3)
    assert asked == ["no", "yes"]
    assert calls.made == [("message", "yes", b"y", 0)] * 3
    assert (calls.reader.received, calls.reader.unwanted) == (6, 3)
    assert len(calls.reader.acknowledgements) == 3


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("piece", [1, 2, 3, 5, 1000, 1 << 20])
def test_a_message_over_the_limit_is_skipped_without_being_held(piece: int, qos: int) -> None:
    calls = Calls(4, max_message_bytes=100)
    large = publish(b"big", b"x" * 5_000, qos=qos, mid=9)
    stream = publish(b"a", b"1") + large + publish(b"b", b"2")
    held = 0
    for start in range(0, len(stream), piece):
        calls.reader.feed(stream[start : start + piece])
        held = max(held, len(calls.reader._partial))
    assert calls.made == [("message", "a", b"1", 0), ("oversize", 5_007), ("message", "b", b"2", 0)]
    assert calls.reader.acknowledgements == [{1: b"\x40", 2: b"\x50"}[qos] + b"\x02\x00\x09"]
    assert held <= 110


def test_a_million_bytes_arrive_whole() -> None:
    payload = bytes(range(256)) * 4096
    stream = publish(b"big", payload, properties=b"")
    pieces = [stream[start : start + 65_536] for start in range(0, len(stream), 65_536)]
    assert Calls(max_message_bytes=2 << 20).feed(*pieces) == [("message", "big", payload, 0)]


names = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=20)
sections = st.sampled_from([b"", b"\x0b\x01", b"\x02\x00\x00\x00\x09", b"\x26\x00\x01a\x00\x01b" * 20])
packets = st.one_of(
    st.builds(
        lambda topic, payload, qos, retain, mid, section: publish(
            topic.encode(), payload, qos=qos, retain=retain, mid=mid, properties=section
        ),
        names,
        st.binary(max_size=300),
        st.integers(0, 2),
        st.booleans(),
        st.integers(1, 3),
        sections,
    ),
    st.builds(pubrel, st.integers(1, 3)),
    st.just(PINGRESP),
    st.just(b"\x90\x05\x00\x01\x00\x01\x01"),
)


@given(st.lists(packets, max_size=8), st.lists(st.integers(1, 40), max_size=60))
def test_the_same_calls_however_the_stream_is_cut(stream: list[bytes], sizes: list[int]) -> None:
    data = b"".join(stream)
    whole = Calls(max_message_bytes=250)
    whole.feed(data)
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    cut = Calls(max_message_bytes=250)
    cut.feed(*pieces, data)
    assert cut.made == whole.made
    assert cut.reader.acknowledgements == whole.reader.acknowledgements
    assert cut.reader.received == whole.reader.received
    assert cut.reader.missing == whole.reader.missing == 0


@given(st.lists(packets, max_size=8), st.integers(0, 8))
def test_what_is_received_is_handed_over_or_told_as_dropped_once(stream: list[bytes], held_from: int) -> None:
    calls = Calls(max_message_bytes=250, accepts=lambda topic: len(topic) % 3 != 0)
    for number, packet in enumerate(stream):
        calls.reader.is_held = number >= held_from
        calls.reader.feed(packet)
    reader = calls.reader
    told = sum(call[0] in ("message", "special", "error", "oversize") for call in calls.made)
    assert reader.received == told + reader.unwanted + reader.repeated + reader.held


@given(st.binary(max_size=200), st.sampled_from([4, 5]))
def test_garbage_raises_one_error_only(data: bytes, version: int) -> None:
    calls = Calls(version, max_message_bytes=1000)
    with contextlib.suppress(PacketError):
        calls.feed(data)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x34\x03\x00\x01a",  # QoS 2 and no packet identifier
        b"\x62\x01\x00",  # a PUBREL without one
        b"\x30\x03\x00\x09a",  # the topic is longer than the packet
        b"\x30\x01\x00",  # no room for a topic
        b"\x32\x03\x00\x01a",  # no packet identifier
        b"\x30\x03\x00\x01a",  # MQTT 5 without a property length
        b"\x30\x05\x00\x01a\x09x",  # properties longer than the packet
        b"\x30\x03\x00\x00\x00",  # no topic
        b"\x20\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x20\xff\xff\xff\x7f",  # a CONNACK of 256 MiB
    ],
)
def test_malformed_packets_are_refused(garbage: bytes) -> None:
    with pytest.raises(PacketError):
        Calls().feed(garbage)


utf8 = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "PayloadFormatIndicator": st.integers(0, 1),
            "MessageExpiryInterval": st.integers(0, 2**32 - 1),
            "ContentType": utf8,
            "ResponseTopic": utf8,
            "CorrelationData": st.binary(max_size=30),
            "SubscriptionIdentifier": st.lists(st.integers(1, 268_435_455), min_size=1, max_size=3),
            "UserProperty": st.lists(st.tuples(utf8, utf8), min_size=1, max_size=3),
        },
    )
)
def test_properties_are_what_paho_packed(given_values: dict[str, Any]) -> None:
    properties = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in given_values.items():
        setattr(properties, name, value)
    packed: bytes = properties.pack()  # type: ignore[no-untyped-call]
    section = packed[2:] if packed[0] > 127 else packed[1:]
    relayed, ids = parse_properties(section)
    assert ids == given_values.get("SubscriptionIdentifier", [])
    expected = {
        name: given_values[theirs]
        for name, theirs in [
            ("message_expiry_interval", "MessageExpiryInterval"),
            ("content_type", "ContentType"),
            ("response_topic", "ResponseTopic"),
            ("correlation_data", "CorrelationData"),
            ("user_properties", "UserProperty"),
        ]
        if theirs in given_values
    }
    assert relayed == expected


@pytest.mark.parametrize(
    "section",
    [b"\x02\x00", b"\x03\x00\x05a", b"\x26\x00\x01a", b"\x0b\xff", b"\x23\x00\x01", b"\x7f", b"\x03\x00\x01\xff"],
)
def test_malformed_properties_are_refused(section: bytes) -> None:
    with pytest.raises(PacketError):
        parse_properties(section)


@given(st.integers(0, 268_435_455))
def test_a_variable_byte_integer_is_read_as_it_was_written(value: int) -> None:
    section = b"\x0b" + encode_varint(value)
    assert parse_properties(section)[1] == [value]


def test_a_message_at_qos_1_that_still_awaits_its_acknowledgement_is_not_handed_over_again() -> None:
    unacknowledged = {b"\x00\x07"}
    handed: list[str] = []
    reader = PacketReader(
        version=4,
        on_message=lambda topic, *_: handed.append(topic),
        on_special=lambda *_: None,
        on_packet=lambda _: None,
        on_error=lambda *_: None,
        on_oversize=lambda _: None,
        accepts=lambda _: True,
        max_message_bytes=1_000,
        unacknowledged=unacknowledged,
    )
    again, other, first = (bytes([head, 6, 0, 1]) + b"a" + number + b"x" for head, number in (
        (0x3A, b"\x00\x07"), (0x3A, b"\x00\x08"), (0x32, b"\x00\x07")
    ))  # fmt: skip
    reader.feed(again)
    assert (handed, reader.repeated, reader.received) == ([], 1, 1)
    assert reader.acknowledgements == [b"\x40\x02\x00\x07"]
    # another one, or a new message under an identifier that is free again
    reader.feed(other)
    reader.feed(first)
    assert (handed, reader.repeated, reader.received) == (["a", "a"], 1, 3)
    assert reader.acknowledgements == [b"\x40\x02\x00\x07", b"\x40\x02\x00\x08", b"\x40\x02\x00\x07"]
    assert reader.sent_again == [b"\x00\x07"]


# Packets that go on unread


def _packet(head: int, size: int) -> bytes:
    return bytes([head]) + encode_varint(size) + b"\xff" * size


PACKETS = st.lists(st.tuples(st.integers(1, 15), st.sampled_from([0, 1, 5, 127, 128, 300, 20_000])), max_size=12)


@given(PACKETS, st.integers(1, 5), st.lists(st.integers(0, 60_000), max_size=8))
def test_packets_are_counted_however_they_are_cut(kinds: list[tuple[int, int]], most: int, cuts: list[int]) -> None:
    data = b"".join(_packet(kind << 4, size) for kind, size in kinds)
    charged = [kind for kind, _ in kinds if kind not in (4, 5, 6, 7)]
    counter, found, passed = PacketCounter(), 0, b""
    for start, stop in itertools.pairwise([0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]):
        piece, at = data[start:stop], 0
        while at < len(piece):
            end, count = counter.take(piece, at, most)
            assert end > at
            assert count <= most
            passed += piece[at:end]
            at, found = end, found + count
    assert passed == data
    assert found == len(charged)


def test_what_can_be_no_packet_is_passed_on_for_the_broker_to_end_it() -> None:
    counter = PacketCounter()
    assert counter.take(b"\x30\x00\x30\x80\x80\x80\x80\x01" + b"\x30\x00" * 10, 0, 100) == (28, 2)
    assert counter.take(b"\x30\x00" * 10, 0, 100) == (20, 0)

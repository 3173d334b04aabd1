"""sensors_sim/packets.py: the bytes of MQTT 3.1.1, and a client's side of a session."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors_sim import packets
from sensors_sim.messages import Message
from sensors_sim.packets import Delivery, PacketError, Session, Type


@dataclass
class Broker:
    """What a session tells, and the session."""

    codes: list[int] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = Session(self.codes.append, self.deliveries.append, self.refused.append)

    def taken(self) -> bytes:
        out = b"".join(self.session.out)
        self.session.out.clear()
        return out


@pytest.mark.parametrize(
    ("length", "encoded"),
    # MQTT 3.1.1, table 2.4: the first and last value of each size.
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xff\xff\x7f"),
        (2_097_152, b"\x80\x80\x80\x01"),
        (268_435_455, b"\xff\xff\xff\x7f"),
    ],
)
def test_remaining_length_is_that_of_the_specification(length: int, encoded: bytes) -> None:
    assert packets.encode_length(length) == encoded


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(PacketError, match="268435456"):
        packets.encode_length(268_435_456)
    with pytest.raises(PacketError, match="70000"):
        packets.encode_text("x" * 70_000)


def test_connect_has_will_user_and_password_in_the_order_of_the_specification() -> None:
    # §3.1.3: client id, will topic, will message, user name, password
    packet = packets.encode_connect(
        "dev", keepalive=10, will=Message("a/b", b"offline", 1, True), username="u", password="p"
    )
    assert packet == (b"\x10\x23\x00\x04MQTT\x04\xee\x00\x0a\x00\x03dev\x00\x03a/b\x00\x07offline\x00\x01u\x00\x01p")


def test_connect_without_extras_asks_for_a_clean_session() -> None:
    assert packets.encode_connect("d", keepalive=30) == b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x1e\x00\x01d"


def test_a_password_is_not_sent_without_a_user_name() -> None:
    assert packets.encode_connect("d", keepalive=30, password="p") == packets.encode_connect("d", keepalive=30)


@pytest.mark.parametrize(
    ("message", "packet"),
    [
        (Message("a/b", b"", 0), b"\x30\x05\x00\x03a/b"),
        # §3.3: the specification's own example of a variable header has topic a/b and packet id 10
        (Message("a/b", b"x", 1), b"\x32\x08\x00\x03a/b\x00\x0ax"),
        (Message("a/b", b"x", 2, True), b"\x35\x08\x00\x03a/b\x00\x0ax"),
        (Message("é", b"\xff" * 130, 1, True), b"\x33\x88\x01\x00\x02\xc3\xa9\x00\x0a" + b"\xff" * 130),
    ],
)
def test_publish(message: Message, packet: bytes) -> None:
    assert packets.encode_publish(message, 10) == packet


def test_subscribe() -> None:
    assert packets.encode_subscribe(10, ["a/b", "c/d"]) == b"\x82\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/d\x01"


def test_a_message_at_qos_1_is_remembered_until_it_is_acknowledged() -> None:
    broker = Broker()
    for number in range(3):
        broker.session.publish(Message("t", b"%d" % number, 1))
    assert list(broker.session.unacknowledged) == [1, 2, 3]
    broker.session.feed(b"\x40\x02\x00\x02")
    assert list(broker.session.unacknowledged) == [1, 3]
    broker.session.feed(b"\x40\x02\x00\x01\x40\x02\x00\x03\x40\x02\x00\x03")
    assert not broker.session.unacknowledged


def test_a_message_at_qos_0_is_not() -> None:
    broker = Broker()
    broker.session.publish(Message("t", b"x", 0))
    assert not broker.session.unacknowledged
    assert broker.session.out_bytes == len(broker.taken())


def test_qos_2_goes_through_its_four_steps() -> None:
    broker = Broker()
    broker.session.publish(Message("t", b"x", 2))
    broker.taken()
    broker.session.feed(b"\x50\x02\x00\x01")
    assert broker.taken() == b"\x62\x02\x00\x01"
    assert broker.session.unacknowledged
    broker.session.feed(b"\x70\x02\x00\x01")
    assert not broker.session.unacknowledged


def test_packet_ids_in_use_are_passed_over_and_0_never_used() -> None:
    session = Broker().session
    session.publish(Message("t", b"first", 1))
    for _ in range(65_534):
        session.publish(Message("t", b"", 1))
        session.unacknowledged.popitem()
    session.publish(Message("t", b"again", 1))
    assert {packet_id: message.payload for packet_id, message in session.unacknowledged.items()} == {
        1: b"first",
        2: b"again",
    }


def test_more_messages_than_ids_are_refused() -> None:
    session = Broker().session
    session.unacknowledged.update(dict.fromkeys(range(1, 65_535), Message("t", b"", 1)))
    with pytest.raises(PacketError, match="all packet ids"):
        session.publish(Message("t", b"", 1))


def test_deliveries_are_acknowledged_as_their_qos_asks() -> None:
    broker = Broker()
    broker.session.feed(b"\x30\x04\x00\x01tx\x33\x06\x00\x01t\x00\x07y\x34\x06\x00\x01t\x00\x08z")
    assert broker.deliveries == [
        Delivery("t", b"x", 0, False),
        Delivery("t", b"y", 1, True),
        Delivery("t", b"z", 2, False),
    ]
    assert broker.taken() == b"\x40\x02\x00\x07\x50\x02\x00\x08"
    broker.session.feed(b"\x3c\x06\x00\x01t\x00\x08z")  # sent again, because our PUBREC was lost
    assert len(broker.deliveries) == 3
    broker.taken()
    broker.session.feed(b"\x62\x02\x00\x08")
    assert broker.taken() == b"\x70\x02\x00\x08"


def test_connack_and_refused_subscriptions_are_told() -> None:
    broker = Broker()
    broker.session.feed(b"\x20\x02\x00\x05\x90\x05\x00\x01\x00\x80\x80\xd0\x00")
    assert (broker.codes, broker.refused) == ([5], [2])


@pytest.mark.parametrize(
    "data",
    [
        b"\x20\x01\x00",
        b"\x40\x03\x00\x01\x02",
        b"\x30\x00",
        b"\x30\x03\x00\x09t",
        b"\x36\x05\x00\x01t\x00\x01",
        b"\x30\x03\x00\x01\xff",
        b"\x30\xff\xff\xff\xff\x01",
        b"\x30\xff\xff\xff\x7f",
        b"\x10\x00",
        b"\x50\x01\x00",
        b"HTTP/1.1 400",
    ],
)
def test_what_is_not_mqtt_is_refused(data: bytes) -> None:
    with pytest.raises(PacketError):
        Broker().session.feed(data)


@given(st.binary(max_size=40))
def test_no_bytes_do_worse_than_a_packet_error(data: bytes) -> None:
    try:
        Broker().session.feed(data)
    except PacketError:
        pass


incoming = st.lists(
    st.one_of(
        st.integers(1, 5).map(lambda number: bytes((Type.PUBACK, 2, 0, number))),
        st.just(b"\xd0\x00"),
        st.builds(
            lambda payload, qos, retained: packets.encode_publish(Message("a/b", payload, qos, retained), 3),
            st.binary(max_size=200),
            st.integers(0, 1),
            st.booleans(),
        ),
    ),
    max_size=20,
)


@given(incoming, st.data())
def test_it_does_not_matter_how_the_stream_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    whole, cut = Broker(), Broker()
    for broker in (whole, cut):
        for _ in range(5):
            broker.session.publish(Message("t", b"", 1))
        broker.taken()
    whole.session.feed(stream)
    position = 0
    while position < len(stream):
        size = data.draw(st.integers(1, 30))
        cut.session.feed(stream[position : position + size])
        position += size
    assert cut.deliveries == whole.deliveries
    assert cut.session.unacknowledged == whole.session.unacknowledged
    assert cut.taken() == whole.taken()

"""Blocks: what goes in comes out, byte for byte; what is damaged is said to be."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.archive.blocks import (
    Batch,
    Block,
    BlockError,
    decode_ids,
    decode_states,
    encode_batch,
    encode_ids,
    encode_states,
    repack,
)
from gateway.core.messages import Message, Properties
from gateway.core.snapshots import TopicState, arrived

Item = tuple[str, bytes, int, int, bool, Properties | None]

properties = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "content_type": st.text(max_size=5),
        "response_topic": st.text(max_size=5),
        "correlation_data": st.binary(max_size=5),
        "user_properties": st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), min_size=1, max_size=3),
        "message_expiry_interval": st.integers(0, 2**32 - 1),
    },
)
payloads = st.binary(max_size=30) | st.sampled_from([b"", b"21.5", b'{"t": 1}', b"\xff\x00", b"on", b'"\xed\xa0\x80"'])
arrivals = st.tuples(
    st.sampled_from(["a", "a/b", "ä/ß", "$SYS/x"]),
    payloads,
    st.integers(0, 10**6),
    st.integers(0, 2),
    st.booleans(),
    properties,
)


def batch_of(first_seq: int, items: list[Item]) -> tuple[Batch, list[Message]]:
    batch, messages = Batch(first_seq), []
    time = 1_700_000_000_000
    for seq, (topic, payload, step, qos, retained, found) in enumerate(items, first_seq):
        time += step
        message = Message.arrived(seq, topic, payload, time, qos, retained, found or None)
        batch.add(message, payload)
        messages.append(message)
    return batch, messages


@given(st.lists(arrivals, min_size=1, max_size=30), st.integers(1, 2**53), st.data())
def test_every_message_comes_out_as_it_went_in(items: list[Item], first: int, data: st.DataObject) -> None:
    batch, messages = batch_of(first, items)
    ids: dict[str, int] = {}
    block = Block(first, *encode_batch(batch, lambda name: ids.setdefault(name, 7 * len(ids) + 1)))
    names = {number: name for name, number in ids.items()}
    assert (len(block), block.last_seq) == (len(items), batch.last_seq)
    found = [block.message_at(at, names[block.id_at(at)]) for at in range(len(block))]
    assert [(m.seq, m.frame, m.topic, m.time, m.qos, m.retained, m.properties, m.payload) for m in found] == [
        (m.seq, m.frame, m.topic, m.time, m.qos, m.retained, m.properties, m.payload) for m in messages
    ]
    wanted = data.draw(st.sets(st.sampled_from(sorted(names))))
    after, until = data.draw(st.integers(first - 3, first + 33)), data.draw(st.integers(first - 3, first + 33))
    assert [block.first_seq + at for at in block.select(wanted.__contains__, after, until)] == [
        m.seq for m in messages if after < m.seq <= until and ids[m.topic] in wanted
    ]


@given(
    st.lists(st.lists(st.tuples(arrivals, st.booleans()), min_size=1, max_size=9), min_size=1, max_size=4), st.data()
)
def test_what_is_left_of_blocks_goes_into_one_under_the_same_numbers(
    parts: list[list[tuple[Item, bool]]], data: st.DataObject
) -> None:
    first, ids = (
        data.draw(st.integers(1, 2**53)),
        {name: 3 + place for place, name in enumerate(("a", "a/b", "ä/ß", "$SYS/x"))},
    )
    blocks, left, seq = [], [], first
    for items in parts:
        batch, messages = batch_of(seq, [item for item, _ in items])
        block = Block(seq, *encode_batch(batch, ids.__getitem__))
        blocks.append((block, [at for at, (_, stays) in enumerate(items) if stays]))
        left += [message for message, (_, stays) in zip(messages, items, strict=True) if stays]
        seq += len(items)
    topics, packed, count = repack(blocks, first, seq - 1)
    found = Block(first, topics, packed)
    names = {number: name for name, number in ids.items()}
    assert (len(found), count, found.last_seq, found.is_thinned) == (len(left), count, seq - 1, len(left) < seq - first)
    assert [found.seq_at(at) for at in range(len(found))] == [message.seq for message in left]
    assert [found.message_at(at, names[found.id_at(at)]).frame for at in range(len(found))] == [m.frame for m in left]
    assert {names[number] for number in found.ids} == {message.topic for message in left}
    after, until = data.draw(st.integers(first - 3, seq + 3)), data.draw(st.integers(first - 3, seq + 3))
    wanted = [message.seq for message in left if after < message.seq <= until]
    assert [found.seq_at(at) for at in found.select(lambda _: True, after, until)] == wanted
    known = [names[number] for number in found.ids]
    assert [each.seq for each in found.arrivals(known, after, until)] == wanted
    if len(parts) == 1:
        moment = data.draw(st.integers(1_700_000_000_000, 1_700_010_000_000))
        before = found.before_time(moment)
        assert [message.seq for message in left if message.time >= moment] == [m.seq for m in left if m.seq > before]


@given(st.sets(st.integers(1, 2**40), max_size=50))
def test_ids_of_topics_come_out_as_they_went_in(ids: set[int]) -> None:
    assert decode_ids(encode_ids(sorted(ids))) == sorted(ids)


def test_the_ids_of_a_thousand_topics_in_a_row_take_less_than_a_hundred_bytes() -> None:
    assert len(encode_ids(list(range(5_000, 6_000)))) < 100


@given(st.data())
def test_damaged_bytes_are_told_or_give_whole_messages_never_another_error(data: st.DataObject) -> None:
    batch, _ = batch_of(1, [("a", b"1", 0, 0, False, None), ("b", b"xyz", 5, 1, True, {"content_type": "x"})])
    parts = list(encode_batch(batch, {"a": 1, "b": 2}.__getitem__))
    which = data.draw(st.integers(0, 1))
    damaged = bytearray(parts[which])
    match data.draw(st.sampled_from(["flip", "cut", "add"])):
        case "flip":
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
        case "add":
            damaged += data.draw(st.binary(min_size=1, max_size=9))
    parts[which] = bytes(damaged)
    try:
        block = Block(1, *parts)
    except BlockError:
        return
    assert [block.message_at(at, "t").seq for at in range(len(block))] == [1, 2]


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_are_told_as_damaged(topics: bytes, data: bytes) -> None:
    with pytest.raises(BlockError):
        Block(1, topics, b"\x01" + data)


def test_texts_that_are_no_utf_8_are_told_as_damaged() -> None:
    message = Message.arrived(1, "kitchen", b"1", 1)
    good = encode_states(False, [TopicState(1, 1, 1, None, arrived(message))])
    assert decode_states(zlib.compress(good))[1][0].last.topic == "kitchen"
    bad = zlib.compress(good.replace(b"kitchen", b"kit\xffhen"))
    with pytest.raises(BlockError, match="damaged"):
        decode_states(bad)

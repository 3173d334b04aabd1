"""The board's MQTT client on CPython: its packets byte by byte, and what it does when a broker plays tricks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.board.mqtt import (
    Backoff,
    Client,
    Message,
    ProtocolError,
    Ring,
    connect_packet,
    describe,
    parse_publish,
    parse_url,
    publish_pieces,
    subscribe_packet,
    tls_context,
)
from tests.conftest import MakeMosquitto
from tests.support.brokers import Broker, BrokerOptions
from tests.support.certificates import Authority
from tests.support.waiting import PATIENCE_SECONDS, eventually_async

Play = Callable[["Wire"], Awaitable[None]]


def publish_packet(message: Message, again: bool = False) -> bytes:
    return b"".join(publish_pieces(message, again))


# -- packets


def test_connect_with_everything() -> None:
    will = Message("s/a/status", b"offline", 1, True)
    packet = connect_packet("a", "user", "word", will, 60, clean_session=True)
    assert packet == (
        b"\x10\x2e\x00\x04MQTT\x04\xee\x00\x3c\x00\x01a\x00\x0as/a/status\x00\x07offline\x00\x04user\x00\x04word"
    )


def test_connect_with_nothing() -> None:
    assert connect_packet("a") == b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x1e\x00\x01a"


def test_a_password_without_a_user_name_is_not_sent() -> None:  # MQTT-3.1.2-22
    assert connect_packet("a", None, "word") == connect_packet("a")


def test_publish_sets_its_flags() -> None:
    message = Message("a/b", b"x", 1, True)
    message.packet_id = 0x1234
    assert publish_packet(message) == b"\x33\x08\x00\x03a/b\x12\x34x"
    assert publish_packet(message, again=True) == b"\x3b\x08\x00\x03a/b\x12\x34x"
    assert publish_packet(Message("a/b", b"x", 0)) == b"\x30\x06\x00\x03a/bx"


def test_subscribe_has_reserved_bits() -> None:  # MQTT-3.8.1-1
    assert subscribe_packet(10, "a/#", 1) == b"\x82\x08\x00\x0a\x00\x03a/#\x01"


@pytest.mark.parametrize(
    ("length", "header"),
    [(126, b"\x30\x7f"), (127, b"\x30\x80\x01"), (16382, b"\x30\xff\x7f"), (16383, b"\x30\x80\x80\x01")],
)
def test_remaining_length(length: int, header: bytes) -> None:  # MQTT 3.1.1 table 2.4
    packet = publish_packet(Message("", b"x" * (length - 1), 0))
    assert packet.startswith(header + b"\x00\x00")


def test_a_long_payload_is_written_as_it_stands() -> None:
    payload = b"x" * 1025
    head, body = publish_pieces(Message("a", payload, 0))
    assert head == b"\x30\x84\x08\x00\x01a"
    assert body is payload
    assert len(publish_pieces(Message("a", payload[1:], 0))) == 1


def test_a_payload_in_parts_is_written_part_by_part() -> None:
    in_parts, in_one = Message("a", [b"one", b"three"], 0), Message("a", b"onethree", 0)
    head, *parts = publish_pieces(in_parts)
    assert parts == [b"one", b"three"]
    assert [head + b"onethree"] == publish_pieces(in_one)
    assert in_parts.size() == in_one.size()


@given(st.text(max_size=50), st.binary(max_size=1_500), st.integers(0, 1), st.booleans(), st.integers(1, 65535))
def test_what_is_published_is_what_is_parsed(
    topic: str, payload: bytes, qos: int, retain: bool, packet_id: int
) -> None:
    message = Message(topic, payload, qos, retain)
    message.packet_id = packet_id
    packet = publish_packet(message)
    body = packet[2:] if packet[1] < 128 else packet[3:]
    assert parse_publish(packet[0], body) == (topic, payload, packet_id if qos else 0)


@given(st.integers(0, 15), st.binary(max_size=30))
def test_any_bytes_are_parsed_or_refused(flags: int, body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        topic, payload, packet_id = parse_publish(0x30 | flags, body)
        assert len(topic.encode()) + len(payload) + 2 + (2 if flags & 6 else 0) == len(body)
        assert 0 <= packet_id <= 0xFFFF


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker", ("broker", 1883, False)),
        ("mqtts://broker.example/", ("broker.example", 8883, True)),
        ("mqtts://raspberrypi.local", ("raspberrypi.local", 8883, True)),
        ("mqtt://192.168.1.10:11883", ("192.168.1.10", 11883, False)),
        ("mqtt://[fe80::1]:1884", ("fe80::1", 1884, False)),
        ("mqtt://[fe80::1]", ("fe80::1", 1883, False)),
    ],
)
def test_urls(url: str, expected: tuple[str, int, bool]) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url", ["broker", "http://broker", "mqtt://", "mqtt://a:b", "mqtt://a:0", "mqtt://u:p@h", "mqtt://a/b"]
)
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(url)


# -- ring and delays


@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 10), st.integers(50, 300))
def test_the_ring_keeps_the_newest_and_counts_the_rest(sizes: list[int], max_messages: int, max_bytes: int) -> None:
    ring = Ring(max_messages, max_bytes)
    messages = [Message("t", bytes(size)) for size in sizes]
    for message in messages:
        ring.push(message)
        assert len(ring.messages) <= max_messages
        assert ring.bytes == sum(kept.size() for kept in ring.messages) <= max_bytes
    fitting = [message for message in messages if message.size() <= max_bytes]
    assert ring.messages == fitting[len(fitting) - len(ring.messages) :]
    assert ring.dropped == len(messages) - len(ring.messages)


def test_a_message_larger_than_the_ring_is_refused_and_displaces_none() -> None:
    ring = Ring(10, 100)
    assert ring.push(Message("t", b"small"))
    assert not ring.push(Message("t", bytes(200)))
    assert [message.payload for message in ring.messages] == [b"small"]
    assert ring.dropped == 1


def test_delays_grow_to_their_limit_with_jitter_and_start_again() -> None:
    random.seed(1)
    backoff = Backoff(1, 60)
    delays = [backoff.next() for _ in range(12)]
    for number, delay in enumerate(delays):
        assert min(60, 2**number) / 2 <= delay <= min(60, 2**number)
    assert len(set(delays)) == 12
    backoff.reset()
    assert backoff.next() <= 1


def test_errors_are_told_in_one_line() -> None:
    assert describe(ValueError("\nnot the\nname\n")) == "ValueError: not the name"
    assert describe(EOFError()) == "the broker closed the connection"
    assert describe(OSError()) == "OSError"


@pytest.mark.parametrize(
    "error",
    [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), OSError(-2), OSError(-200), OSError(-202)],
)
def test_a_name_without_an_address_is_told_as_that(error: OSError) -> None:
    assert describe(error) == "no address for this name: is it spelt right, and is its computer on?"
    assert "MBEDTLS" in describe(OSError(-2, "MBEDTLS_ERR_MPI_FILE_IO_ERROR"))
    assert describe(OSError(113)) == "OSError: 113"


# -- against a broker that is told what to do


class Wire:
    """A broker's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def packet(self) -> tuple[int, bytes]:
        """The next packet: first byte, and what follows the length."""
        first = (await self.reader.readexactly(1))[0]
        length, shift = 0, 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 128:
                return first, await self.reader.readexactly(length)

    async def expect(self, kind: int) -> bytes:
        """The next packet, which must be of this type."""
        first, body = await self.packet()
        assert first & 0xF0 == kind, f"expected 0x{kind:02x}, got 0x{first:02x}"
        return body

    def send(self, *data: int | bytes) -> None:
        """Write bytes."""
        self.writer.write(b"".join(bytes([part]) if isinstance(part, int) else part for part in data))

    async def accept(self, session_present: bool = False) -> bytes:
        """Take CONNECT and answer it."""
        body = await self.expect(0x10)
        self.send(0x20, 2, int(session_present), 0)
        return body

    async def subscribed(self) -> None:
        """Take SUBSCRIBE and answer it."""
        body = await self.expect(0x80)
        self.send(0x90, 3, body[:2], 1)

    async def publish(self, acknowledge: bool = True) -> tuple[int, int, bytes]:
        """The next PUBLISH: first byte, packet id, payload."""
        first, body = await self.packet()
        assert first & 0xF0 == 0x30, f"expected PUBLISH, got 0x{first:02x}"
        _, payload, packet_id = parse_publish(first, body)
        if acknowledge:
            self.send(0x40, 2, packet_id >> 8, packet_id & 0xFF)
        return first, packet_id, payload

    async def hang(self) -> None:
        """Say nothing more until the client goes."""
        while await self.reader.read(1000):
            pass


@asynccontextmanager
async def playing(*plays: Play, **options: Any) -> AsyncIterator[Client]:
    """A client whose connections are answered by these plays, one after the other; failures in them are raised."""
    failures: list[BaseException] = []
    waiting = list(plays)
    connections: list[asyncio.Task[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.append(task)
        try:
            if waiting:
                await waiting.pop(0)(Wire(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    chosen: dict[str, Any] = {"client_id": "c", "timeout_seconds": 0.4, "backoff": Backoff(0.01, 0.05), **options}
    client = Client("127.0.0.1", port, **chosen)
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        server.close()
        await server.wait_closed()
        await asyncio.gather(*connections, return_exceptions=True)
    if failures:
        raise failures[0]


async def test_unacknowledged_messages_of_a_kept_session_come_again_first_with_their_ids() -> None:
    second: list[tuple[int, int, bytes]] = []

    async def lose_two(wire: Wire) -> None:
        await wire.accept()
        await wire.publish()
        await wire.publish(acknowledge=False)
        await wire.publish(acknowledge=False)

    async def take_all(wire: Wire) -> None:
        await wire.accept(session_present=True)
        second.extend([await wire.publish() for _ in range(3)])
        await wire.hang()

    async with playing(lose_two, take_all) as client:
        for payload in (b"1", b"2", b"3"):
            client.publish("t", payload)
        await eventually_async(lambda: client.connects == 2)
        client.publish("t", b"4")
        assert await client.wait_delivered(PATIENCE_SECONDS)
        assert client.resumed
    # MQTT-4.4.0-1, MQTT-4.6.0-1, MQTT-3.3.1-1
    assert second == [(0x3A, 2, b"2"), (0x3A, 3, b"3"), (0x32, 4, b"4")]


async def test_in_a_new_session_they_come_again_as_new_messages() -> None:
    second: list[tuple[int, int, bytes]] = []

    async def lose(wire: Wire) -> None:
        await wire.accept()
        await wire.subscribed()
        await wire.publish(acknowledge=False)

    async def take(wire: Wire) -> None:
        await wire.accept(session_present=False)
        await wire.subscribed()
        second.append(await wire.publish())
        await wire.hang()

    async with playing(lose, take) as client:
        client.subscribe("cmd")
        client.publish("t", b"1")
        await eventually_async(lambda: client.connects == 2)
        assert await client.wait_delivered(PATIENCE_SECONDS)
        assert not client.resumed
    assert second[0][0] == 0x32
    assert second[0][2] == b"1"


async def test_a_resumed_session_is_not_subscribed_again() -> None:
    packets: list[int] = []

    async def first(wire: Wire) -> None:
        await wire.accept(session_present=True)
        await wire.subscribed()

    async def second(wire: Wire) -> None:
        await wire.accept(session_present=True)
        packets.append((await wire.packet())[0])
        await wire.hang()

    async with playing(first, second) as client:
        client.subscribe("cmd")
        await eventually_async(lambda: client.connects == 2)
        client.publish("t", b"x", 0)
        await eventually_async(lambda: packets)
    assert packets == [0x30]


async def test_a_subscription_that_the_broker_has_not_taken_is_made_again_although_the_session_is_resumed() -> None:
    filters: list[bytes] = []

    async def take_none(wire: Wire) -> None:
        await wire.accept(session_present=True)
        await wire.expect(0x80)  # and the connection is gone before SUBACK, perhaps before SUBSCRIBE has arrived

    async def take_one(wire: Wire) -> None:
        await wire.accept(session_present=True)
        filters.append((await wire.expect(0x80))[4:-1])
        wire.send(0x90, 3, 0, 2, 1)
        body = await wire.expect(0x80)
        filters.append(body[4:-1])
        wire.send(0x90, 3, body[:2], 0x80)  # refused
        await wire.expect(0x30)

    async def take_the_other(wire: Wire) -> None:
        await wire.accept(session_present=True)
        body = await wire.expect(0x80)
        filters.append(body[4:-1])
        wire.send(0x90, 3, body[:2], 1)
        await wire.hang()

    async with playing(take_none, take_one, take_the_other) as client:
        client.subscribe("cmd")
        await eventually_async(lambda: client.connects == 2)
        assert await client.wait_delivered(PATIENCE_SECONDS)
        client.subscribe("piece")
        await eventually_async(lambda: len(filters) == 2)
        client.publish("t", b"x", 0)
        await eventually_async(lambda: client.connects == 3 and client.listens())
    assert filters == [b"cmd", b"piece", b"piece"]


async def test_births_go_ahead_of_what_waits_and_are_made_anew_for_every_connection() -> None:
    seen: list[bytes] = []
    births = iter([[Message("s", b"online 1")], [Message("s", b"online 2")]])

    async def play(wire: Wire) -> None:
        await wire.accept()
        seen.append((await wire.publish(acknowledge=len(seen) > 0))[2])
        if len(seen) > 1:
            seen.append((await wire.publish())[2])
            await wire.hang()

    async with playing(play, play, births=lambda: next(births)) as client:
        client.publish("t", b"reading")
        assert await client.wait_delivered(PATIENCE_SECONDS)
    assert seen == [b"online 1", b"online 2", b"reading"]


async def test_the_window_bounds_what_is_under_way() -> None:
    taken: list[bytes] = []

    async def play(wire: Wire) -> None:
        await wire.accept()
        ids = []
        for _ in range(3):
            _, packet_id, payload = await wire.publish(acknowledge=False)
            taken.append(payload)
            ids.append(packet_id)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.packet(), 0.1)
        wire.send(0x40, 2, 0, ids[0])
        taken.append((await wire.publish())[2])
        await wire.hang()

    async with playing(play, window=3) as client:
        for number in range(6):
            client.publish("t", b"%d" % number)
        await eventually_async(lambda: len(taken) == 4)
    assert taken == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("silence", ["CONNACK", "PUBACK", "SUBACK", "PINGRESP"])
@pytest.mark.slow
async def test_no_answer_in_time_ends_the_connection(silence: str) -> None:
    lines: list[str] = []

    async def play(wire: Wire) -> None:
        if silence != "CONNACK":
            await wire.accept()
        if silence == "PINGRESP":
            assert (await wire.packet())[0] == 0xC0
        await wire.hang()

    async def again(wire: Wire) -> None:
        await wire.hang()

    async with playing(play, again, log=lines.append, keepalive_seconds=1) as client:
        if silence == "SUBACK":
            client.subscribe("cmd")
        if silence == "PUBACK":
            client.publish("t", b"x")
        await eventually_async(lambda: any(silence in line for line in lines), 3)


async def test_a_peer_that_stops_reading_ends_the_connection() -> None:
    lines: list[str] = []
    told = asyncio.Event()

    async def play(wire: Wire) -> None:
        await wire.accept()
        await told.wait()

    async with playing(play, log=lines.append, ring=Ring(10, 100_000_000)) as client:
        client.publish("t", bytes(40_000_000), 0)  # more than any socket buffer
        await eventually_async(lambda: any("writing took longer" in line for line in lines), 4)
        told.set()


async def test_pings_keep_a_quiet_connection_alive() -> None:
    pings: list[str] = []

    async def play(wire: Wire) -> None:
        await wire.accept()
        while True:
            assert await wire.packet() == (0xC0, b"")
            pings.append("ping")
            wire.send(0xD0, 0)

    proofs: list[str] = []
    async with playing(play, keepalive_seconds=1, on_progress=proofs.append) as client:
        await eventually_async(lambda: len(pings) >= 3, 4)
        assert client.connected
        assert client.connects == 1
    assert proofs.count("pong") >= 2


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 77])
async def test_a_refusal_is_told_and_tried_again(code: int) -> None:
    lines: list[str] = []

    async def refuse(wire: Wire) -> None:
        await wire.expect(0x10)
        wire.send(0x20, 2, 0, code)
        await wire.hang()

    async def accept(wire: Wire) -> None:
        await wire.accept()
        await wire.hang()

    async with playing(refuse, accept, log=lines.append) as client:
        await eventually_async(lambda: client.connected)
    assert "connection refused" in lines[0]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x00",
        b"\x30\xff\xff\xff\xff\x01",
        b"\x36\x05\x00\x01a\x00\x01",
        b"\x30\x02\x00\x09",
        b"\x40\x01\x00",
        b"\x90\x00",
    ],
)
async def test_nonsense_from_the_broker_ends_the_connection_and_nothing_else(nonsense: bytes) -> None:
    async def bad(wire: Wire) -> None:
        await wire.accept()
        wire.send(nonsense)
        await wire.hang()

    async def good(wire: Wire) -> None:
        await wire.accept()
        await wire.publish()
        await wire.hang()

    async with playing(bad, good) as client:
        await eventually_async(lambda: client.connects == 2)
        client.publish("t", b"x")
        assert await client.wait_delivered(PATIENCE_SECONDS)


async def test_messages_arrive_and_are_acknowledged_even_when_their_handler_fails(
    called: tuple[list[tuple[Any, ...]], Callable[..., None]],
) -> None:
    acknowledged: list[bytes] = []
    calls, note = called

    def handle(topic: str, payload: bytes, retained: bool) -> None:
        note(topic, payload, retained)
        if payload == b"bad":
            raise ValueError("bad")

    async def play(wire: Wire) -> None:
        await wire.accept()
        wire.send(b"\x31\x06\x00\x03cmd1")
        wire.send(b"\x32\x0a\x00\x03cmd\x00\x07bad")
        acknowledged.append(await wire.expect(0x40))
        for byte in b"\x32\x0b\x00\x03cmd\x00\x08good":  # in pieces
            wire.send(byte)
            await wire.writer.drain()
        acknowledged.append(await wire.expect(0x40))
        await wire.hang()

    async with playing(play, on_message=handle):
        await eventually_async(lambda: len(acknowledged) == 2)
    assert calls == [("cmd", b"1", True), ("cmd", b"bad", False), ("cmd", b"good", False)]
    assert acknowledged == [b"\x00\x07", b"\x00\x08"]


@pytest.mark.parametrize("topic_length", [3, 255, 256, 257, 3000])
async def test_a_message_too_large_for_memory_is_skipped_and_acknowledged(topic_length: int) -> None:
    seen: list[bytes] = []
    done: list[bytes] = []

    async def play(wire: Wire) -> None:
        await wire.accept()
        message = Message("t" * topic_length, bytes(5000), 1)
        message.packet_id = 300
        wire.send(publish_packet(message))
        done.append(await wire.expect(0x40))
        wire.send(b"\x30\x06\x00\x03cmdx")
        await wire.hang()

    async with playing(play, on_message=lambda _topic, payload, _retained: seen.append(payload)) as client:
        await eventually_async(lambda: seen)
        assert client.skipped == 1
    assert seen == [b"x"]
    assert done == [b"\x01\x2c"]


async def test_every_packet_is_one_write() -> None:
    writes: list[bytes] = []

    class Counting(asyncio.StreamWriter):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            writes.append(bytes(data))
            super().write(data)

    async def play(wire: Wire) -> None:
        await wire.accept()
        await wire.subscribed()
        await wire.publish()
        wire.send(b"\x32\x08\x00\x03cmd\x00\x07x")
        await wire.expect(0x40)
        await wire.expect(0xE0)

    original = asyncio.open_connection

    async def opening(*arguments: Any, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await original(*arguments, **options)
        writer.__class__ = Counting
        return reader, writer

    asyncio.open_connection = opening
    try:
        async with playing(play) as client:
            client.subscribe("cmd")
            client.publish("a/long/topic", bytes(1000))
            assert await client.wait_delivered(PATIENCE_SECONDS)
            await eventually_async(lambda: 0x40 in [write[0] for write in writes])
            assert await client.close()
    finally:
        asyncio.open_connection = original
    assert [write[0] for write in writes] == [0x10, 0x82, 0x32, 0x40, 0xE0]


async def test_close_gives_up_on_a_broker_that_does_not_answer() -> None:
    async def play(wire: Wire) -> None:
        await wire.accept()
        await wire.hang()

    async with playing(play, timeout_seconds=5) as client:
        await eventually_async(lambda: client.connected)
        client.publish("t", b"x")
        started = asyncio.get_running_loop().time()
        assert not await client.close(0.2)
        assert asyncio.get_running_loop().time() - started < 4


async def test_close_ends_the_pause_between_two_attempts() -> None:
    async with playing(backoff=Backoff(60, 60)) as client:
        await eventually_async(lambda: client.last_error)
        started = asyncio.get_running_loop().time()
        assert not await client.close(1)
        assert asyncio.get_running_loop().time() - started < 2


async def test_what_waits_makes_room_for_the_connection_that_it_waits_for() -> None:
    """A small memory that is full of messages: they go by halves, counted, until the births fit; none goes before."""
    told: list[str] = []
    attempts: list[int] = []

    def births() -> list[Message]:
        attempts.append(len(client.ring.messages))
        if len(client.ring.messages) > 5:
            raise MemoryError("memory allocation failed, allocating 455 bytes")
        return [Message("s", b"online")]

    async def full(wire: Wire) -> None:
        await wire.accept()

    async def take_all(wire: Wire) -> None:
        await wire.accept()
        for _ in range(6):
            await wire.publish()
        await wire.hang()

    async with playing(full, full, full, take_all, births=births, on_progress=told.append) as client:
        for number in range(20):
            client.publish("t", b"%d" % number)
        await eventually_async(lambda: client.acknowledged == 6)
        assert client.ring.dropped == 15
        assert attempts == [20, 20, 10, 5]
        assert told.count("memory") == 3


async def test_no_network_means_no_attempt() -> None:
    answers = iter([False, False, True])

    async def ready() -> bool:
        return next(answers)

    async def play(wire: Wire) -> None:
        await wire.accept()
        await wire.hang()

    async with playing(play, ready=ready) as client:
        await eventually_async(lambda: client.connected)
    assert next(answers, None) is None


# -- against a real broker


async def test_a_thousand_messages_through_a_real_broker(mosquitto: Broker, prefix: str) -> None:
    received: list[bytes] = []
    client = Client(
        "127.0.0.1",
        mosquitto.port,
        client_id=prefix,
        clean_session=True,
        ring=Ring(1000, 1_000_000),
        on_message=lambda _topic, payload, _retained: received.append(payload),
    )
    client.subscribe(f"{prefix}/#")
    task = asyncio.create_task(client.run())
    for number in range(1000):
        client.publish(f"{prefix}/t", b"%d" % number)
    await eventually_async(lambda: len(received) == 1000, 20)
    assert received == [b"%d" % number for number in range(1000)]
    assert await client.close()
    await task


async def test_a_name_in_local_is_looked_up_as_it_stands_and_must_be_the_certificates(
    make_mosquitto: MakeMosquitto, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    look_up = socket.getaddrinfo

    def answer(host: str, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        return look_up("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    broker = make_mosquitto(BrokerOptions(server=authority.issue("pi", hosts=("pi.local",))))
    context = tls_context(authority.ca_file.read_bytes())
    for name, works in (("pi.local", True), ("other.local", False)):
        client = Client(name, broker.port, client_id="c", tls=context, timeout_seconds=5)
        task = asyncio.create_task(client.run())
        await eventually_async(lambda client=client: client.connected or client.last_error)  # type: ignore[misc]
        assert client.connected == works
        assert asked[-1] == name
        await client.close(1)
        await task


async def test_tls_is_verified(make_mosquitto: MakeMosquitto, authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("localhost", hosts=("localhost",))
    broker = make_mosquitto(BrokerOptions(server=pair))
    other = Authority(tmp_path / "other").ca_file.read_bytes()
    for host, ca, works in (
        ("localhost", authority.ca_file.read_bytes(), True),
        ("localhost", other, False),
        ("127.0.0.1", authority.ca_file.read_bytes(), False),
    ):
        client = Client(host, broker.port, client_id="c", tls=tls_context(ca), timeout_seconds=5)
        task = asyncio.create_task(client.run())
        await eventually_async(lambda client=client: client.connected or client.last_error)  # type: ignore[misc]
        assert client.connected == works
        if not works:
            assert "certificate verify failed" in (client.last_error or "")
        await client.close(1)
        await task

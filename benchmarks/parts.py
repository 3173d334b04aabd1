"""What each part of the way of a message costs when 100,000 come in a second: `python -m benchmarks.parts`.

The messages are those of S9: 75 bytes, 100 topics, 64 KiB in each read, one subscriber of everything, with a full
history. Each row adds one part to the row before, in this process and without sockets, so the difference is what the
part costs; what S9 itself takes beyond the last row are system calls and the loop.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from benchmarks import wire
from benchmarks.messages import COUNT_BASE, topic
from benchmarks.micro import NullSink, Turns
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.core.since import SINCE_NOW
from gateway.upstream.packets import PacketReader

DEVICES = 100
READ_BYTES = 65_536
SECTION = b"\x0b\x87\xbe\x96\x03"
"""A subscription identifier, as brokers send it with each message."""


def reads(qos: int) -> tuple[list[bytes], int]:
    """Return ten reads of whole packets, and how many messages are in each."""
    size, made = 0, [b""]
    while size < READ_BYTES:
        number = len(made)
        payload = b'{"ts":1790000000.123456,"seq":%d,"boot":17,"n":%d,"t":2%d.5}' % (
            COUNT_BASE, COUNT_BASE + number, number % 10,
        )  # fmt: skip
        packet_id = number if qos else 0
        body = bytes((len(SECTION),)) + SECTION + payload
        made.append(wire.mqtt_publish(topic(number % DEVICES), body, packet_id))
        size += len(made[-1])
    return [b"".join(made)] * 10, len(made) - 1


def reader_for(on_message: Callable[[str, bytes, int], object]) -> PacketReader:
    """Return a reader as `link` makes it."""

    def nothing(*_: object) -> None:
        pass

    reader = PacketReader(
        version=5,
        on_message=on_message,
        on_special=nothing,
        on_packet=nothing,
        on_error=nothing,
        on_oversize=nothing,
        accepts=bool,
        max_message_bytes=1 << 20,
    )
    reader.plain = frozenset({SECTION})
    return reader


def now_ms() -> int:
    """The gateway's own clock of messages."""
    return time.time_ns() // 1_000_000


def hub_of(subscribers: int) -> tuple[Hub, Turns]:
    """Return a hub with a full history."""
    turns = Turns()
    hub = Hub(
        History(),
        call_soon=turns.ready.append,
        call_later=turns.call_later,
        clock=turns.clock,
        wall_clock_ms=now_ms,
        cost_clock=lambda: 0.0,
    )
    for _ in range(subscribers):
        hub.subscribe(hub.add(NullSink()), ["sensors/#"], SINCE_NOW)
    turns.run()
    return hub, turns


def seconds_of(feed: Callable[[bytes], None], data: list[bytes], repeat: int) -> float:
    """Processor time of the fastest of several rounds of ten reads."""
    best = float("inf")
    for _ in range(repeat):
        began = time.thread_time()
        for each in data:
            feed(each)
        best = min(best, time.thread_time() - began)
    return best


def parts(qos: int, repeat: int) -> list[tuple[str, float]]:
    """Return what has been done, and the microseconds for each message, a row for each part that was added."""
    data, count = reads(qos)
    found: list[tuple[str, float]] = []

    def measure(name: str, on_message: Callable[[str, bytes, int], object], then: Callable[[], None]) -> None:
        reader = reader_for(on_message)

        def feed(each: bytes) -> None:
            reader.feed(each)
            b"".join(reader.acknowledgements)
            reader.acknowledgements.clear()
            then()

        for _ in range(20):  # until history is full
            seconds_of(feed, data, 1)
        found.append((name, 1e6 * seconds_of(feed, data, repeat) / count / len(data)))

    def nothing(*_: object) -> None:
        pass

    measure("packets out of the stream", nothing, nothing)
    history = History()
    measure("history: number, envelope, eviction", lambda t, p, q: history.append(t, p, now_ms(), q), nothing)
    hub, turns = hub_of(0)
    measure("hub: arrivals, groups of the topic", lambda t, p, q: hub.publish(t, p, q, False, None, 0), turns.run)
    one, its_turns = hub_of(1)
    measure("a group's frames, joined and written", lambda t, p, q: one.publish(t, p, q, False, None, 0), its_turns.run)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__)
    parser.add_argument("--qos", type=int, choices=[0, 1], default=0)
    parser.add_argument("--repeat", type=int, default=20, help="rounds, of which the fastest counts")
    options = parser.parse_args()
    before = 0.0
    print(f"{'':40} µs a message, QoS {options.qos}")
    for name, total in parts(options.qos, options.repeat):
        print(f"{name:40} {total - before:6.2f}")
        before = total
    print(f"{'all':40} {before:6.2f}")


if __name__ == "__main__":
    main()

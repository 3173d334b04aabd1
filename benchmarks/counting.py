"""Counts what one connection received, and proves that nothing was lost, repeated or reordered.

`SequenceCounter` looks for fixed-width counts in the raw bytes, without parsing frames or JSON, so that one core can
check several hundred thousand deliveries a second. `EnvelopeCounter` parses everything and understands `skipped` and
`gap`; it is for streams that are meant to have holes. Pure: bytes in, numbers out.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.messages import COUNT_BASE, width_of
from benchmarks.wire import CLOSE, PING, TEXT, FrameReader

_expected_texts: list[bytes] = []
"""The ten digits of every count from 0 on; a whole chunk is compared with a slice of this list."""

_SERVER_PING = re.compile(rb"\x89([\x00-\x10])")
"""A ping with a short payload. A text frame of JSON never has `{` so low, and JSON in ASCII never has 0x89."""


def _expected(start: int, count: int) -> list[bytes]:
    if len(_expected_texts) < start + count:
        _expected_texts.extend([b"%d" % (COUNT_BASE + value) for value in range(len(_expected_texts), start + count)])
    return _expected_texts[start : start + count]


@dataclass(slots=True)
class SequenceCounter:
    """Counts messages whose counts must rise by one.

    Attributes:
        pattern: finds a message's count; with two groups, the first is the time of publishing.
        next_count: the count that must come next.
        received: messages seen, whatever their count.
        lost: counts that were jumped over. What is missing at the end is known only to who knows the end.
        repeated: counts at or below one that was seen before, so duplicates and reordering.
        delays: where delays in seconds go; None when this connection isn't sampled.
        times: when each message was published, by its count modulo the length of this; None where the pattern tells.
    """

    pattern: re.Pattern[bytes]
    next_count: int = 0
    received: int = 0
    lost: int = 0
    repeated: int = 0
    delays: array[float] | None = None
    times: memoryview[float] | None = None
    tail: bytes = b""
    width: int = 0

    def __post_init__(self) -> None:
        self.width = width_of(self.pattern)

    def feed(self, data: bytes | bytearray, start: int, end: int, now: float) -> None:
        """Count the messages in `data[start:end]`.

        The caller has put `tail` right before `start`, so that a count across two chunks is found, and only once: the
        tail is shorter than any match.
        """
        start -= len(self.tail)
        texts = self.pattern.findall(data, start, end)
        if self.delays is not None:
            if self.times is None:
                self.delays.extend([now - float(time) for time, _ in texts])
                texts = [text for _, text in texts]
            else:
                times, size = self.times, len(self.times)
                self.delays.extend([now - times[(int(text) - COUNT_BASE) % size] for text in texts])
        # A match has a fixed width, and one that ended at the very end was counted: keep one byte less than that.
        self.tail = bytes(data[max(start, end - self.width + 1) : end])
        if not texts:
            return
        self.received += len(texts)
        if texts == _expected(self.next_count, len(texts)):
            self.next_count += len(texts)
        else:
            self._recount(texts)

    def _recount(self, texts: list[bytes]) -> None:
        for count in (int(text) - COUNT_BASE for text in texts):
            if count < self.next_count:
                self.repeated += 1
            else:
                self.lost += count - self.next_count
                self.next_count = count + 1


def pings_in(data: bytes | bytearray, start: int, end: int) -> list[bytes]:
    """Return the payloads of the WebSocket pings in a stream whose other frames are ASCII JSON."""
    if data.find(b"\x89", start, end) < 0:
        return []
    return [
        bytes(data[match.end() : match.end() + match[1][0]])
        for match in _SERVER_PING.finditer(data, start, end)
        if match.end() + match[1][0] <= end
    ]


@dataclass(slots=True)
class EnvelopeCounter:
    """Reads every frame of a gateway's stream as JSON.

    Attributes:
        received: messages seen.
        skipped: messages that the received ones stand for, as they say themselves.
        gap: messages that `gap` events told of.
        unexplained: messages between two of one device that neither `skipped` nor a gap accounts for.
        repeated: messages at or below one of the same device that was seen before.
        delays: delays in seconds of all messages; None when this connection isn't sampled.
        on_event: called with each frame that has `event`.
    """

    received: int = 0
    skipped: int = 0
    gap: int = 0
    unexplained: int = 0
    repeated: int = 0
    closed: bool = False
    delays: array[float] | None = None
    on_event: Callable[[dict[str, Any]], None] | None = None
    last_count: dict[str, int] = field(default_factory=dict)
    frames: FrameReader = field(default_factory=FrameReader)
    pings: list[bytes] = field(default_factory=list)

    def feed(self, data: bytes, now: float) -> None:
        """Count the messages in the next bytes of the stream."""
        for opcode, body in self.frames.feed(data):
            if opcode == TEXT:
                self._take(json.loads(body), now)
            elif opcode == PING:
                self.pings.append(body)
            elif opcode == CLOSE:
                self.closed = True

    def _take(self, frame: dict[str, Any], now: float) -> None:
        if "event" in frame:
            if frame["event"] == "gap":
                self.gap += frame.get("lost") or 0
            if self.on_event is not None:
                self.on_event(frame)
            return
        self.received += 1
        topic, reading, skipped = frame["topic"], frame["payload"], frame.get("skipped", 0)
        self.skipped += skipped
        count = reading["seq"] - COUNT_BASE
        missing = count - self.last_count.get(topic, -1) - 1
        if missing < 0:
            self.repeated += 1
        else:
            self.last_count[topic] = count
            self.unexplained += missing - skipped
        if self.delays is not None:
            self.delays.append(now - reading["ts"])

"""Publishes a recording again, with its original spacing.

Reads what ``gateway record`` writes and what ``/topics/{filter}`` offers for download: NDJSON with one envelope a line,
and CSV.
"""

import io
import logging
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import NamedTuple

from gateway.core.recordings import is_csv, read_csv, read_ndjson
from sensors_sim.address import BrokerAddress
from sensors_sim.links import Link, Links, LinkState, packed_properties
from sensors_sim.messages import Message

logger = logging.getLogger(__name__)

MAX_UNCONFIRMED = 1000
"""Messages on their way to the broker; further ones wait, since a recording must arrive whole."""


class Recorded(NamedTuple):
    """One message of a recording."""

    offset: float
    """Seconds since the first message."""
    message: Message


def read_recording(path: str) -> list[Recorded]:
    """All messages of a file, in their order.

    Args:
        path: A name that ends in ``.csv`` is CSV, all else NDJSON; ``-`` is standard input.

    Raises:
        ValueError: It can't be read, or a line is wrong (the text names it), or there is no message in it.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else FilePath(path).read_bytes()
    except OSError as error:
        raise ValueError(f"recording {path}: {error.strerror or error}") from None
    try:
        timed = list(_messages(path, data))
    except ValueError as error:
        raise ValueError(f"recording {path}: {error}") from None
    if not timed:
        raise ValueError(f"recording {path}: no message in it")
    first = timed[0][0]
    recording = []
    latest = 0.0
    for moment, message in timed:
        # The order of the file counts: a clock that was set back while recording must not reorder messages.
        latest = max(latest, moment - first)
        recording.append(Recorded(latest, message))
    return recording


def _messages(path: str, data: bytes) -> Iterator[tuple[float, Message]]:
    if is_csv(path, data):
        found = read_csv(io.StringIO(data.decode("utf-8-sig"), newline=""))
    else:
        found = read_ndjson(data.splitlines())
    for line, seconds, topic, payload, qos, retained, properties in found:
        try:
            packed_properties(properties or {})
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from None
        yield seconds, Message(topic, payload, qos, retained, properties)


class Replay:
    """Publishes a recording.

    Args:
        recording: What.
        address: Where to.
        speed: Seconds of the recording in a second.
        loop: Whether to begin again at the end; the gap between two rounds is the mean spacing.
        prefix: Put in front of every topic.
        max_gap: Longer silences are shortened to so many seconds of the recording; None: they are kept.
    """

    def __init__(
        self,
        recording: list[Recorded],
        address: BrokerAddress,
        *,
        speed: float = 1.0,
        loop: bool = False,
        prefix: str = "",
        max_gap: float | None = None,
    ) -> None:
        self._recording = _shortened(recording, max_gap) if max_gap is not None else recording
        self._speed = speed
        self._loop = loop
        self._prefix = prefix
        self._links = Links(address, speaks_5=any(recorded.message.properties for recorded in recording))
        self._link = Link(f"sensors-sim-replay-{secrets.token_hex(4)}", None, [], "replay")
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Make ``run`` return; may be called from a signal handler."""
        self._stopped.set()

    def run(self) -> int:
        """Publish it all, or until stopped; returns how many messages."""
        self._links.open(self._link)
        count = 0
        try:
            while self._link.state is not LinkState.UP and not self._stopped.is_set():
                self._links.turn(0.05)
            start = time.monotonic()
            while not self._stopped.is_set():
                for recorded in self._recording:
                    self._wait_until(start + recorded.offset / self._speed)
                    if self._stopped.is_set():
                        break
                    self._publish(recorded.message)
                    count += 1
                    if count % 100 == 0:
                        self._links.turn(0)
                if not self._loop:
                    break
                length = self._recording[-1].offset
                start += (length + length / max(1, len(self._recording) - 1)) / self._speed
                # A recording of no length would loop without a pause.
                start = max(start, time.monotonic() - 1.0) if length else time.monotonic() + 1.0
            while self._link.backlog and not self._stopped.is_set():
                self._links.turn(0.02)
        finally:
            self._links.close()
        return count

    def _publish(self, message: Message) -> None:
        while not self._stopped.is_set():
            if self._link.state is LinkState.UP and self._link.backlog < MAX_UNCONFIRMED:
                self._links.publish(self._link, message._replace(topic=self._prefix + message.topic))
                return
            self._links.turn(0.02)

    def _wait_until(self, due: float) -> None:
        while not self._stopped.is_set():
            left = due - time.monotonic()
            if left <= 0:
                return
            self._links.turn(min(0.05, left))


def _shortened(recording: list[Recorded], max_gap: float) -> list[Recorded]:
    shortened = []
    last = now = 0.0
    for recorded in recording:
        now += min(max_gap, recorded.offset - last)
        last = recorded.offset
        shortened.append(Recorded(now, recorded.message))
    return shortened

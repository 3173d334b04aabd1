"""A line in user space, where the kernel has no netem: packets from one TUN device to another, late, or never.

Started as `python -m benchmarks.lines.relay '{"lines": [["near0", "far0"], …], "delay_ms": 80, …}'`: makes the devices,
says so, and from then on obeys one JSON command a line: `{"cut": true}`, `{"cut": false}`, `{"count": true}`. The
devices are there as long as the process. What the kernel's TCP makes of late and lost packets is the kernel's: this
program knows nothing of what is in them.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from collections.abc import Iterator

from benchmarks.lines.plan import Line

__all__ = ["Way", "open_tun"]

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
PACKET_BYTES = 65_536
QUEUE_PACKETS = 1_000
"""As netem's default limit: what comes while so many packets are on their way is lost."""


class Way:
    """One direction of a line: what is put in comes out later, or never. Pure: the clock is given to it.

    A packet that was on its way when the line was cut still arrives, as with netem.
    """

    def __init__(self, line: Line, chance: random.Random) -> None:
        self._line = line
        self._chance = chance
        self._number = 0
        self._waiting: list[tuple[float, int, bytes]] = []
        self.is_cut = False
        self.sent = self.dropped = 0

    def put(self, packet: bytes, now: float) -> None:
        """Take a packet at `now`, in seconds of any clock."""
        self.sent += 1
        if self.is_cut or self._chance.random() < self._line.loss or len(self._waiting) >= QUEUE_PACKETS:
            self.dropped += 1
            return
        jitter = self._line.jitter_ms * self._chance.uniform(-1, 1)
        self._number += 1
        due = now + max(0.0, self._line.delay_ms + jitter) / 1000
        heapq.heappush(self._waiting, (due, self._number, packet))

    def take(self, now: float) -> Iterator[bytes]:
        """Give out what has arrived by `now`, in the order of arrival."""
        while self._waiting and self._waiting[0][0] <= now:
            yield heapq.heappop(self._waiting)[2]

    @property
    def next_at(self) -> float | None:
        """When the next packet arrives, None while none is on its way."""
        return self._waiting[0][0] if self._waiting else None


def open_tun(name: str) -> int:
    """Make a TUN device of this name and return its file: a read is an IP packet, and so is a write.

    Raises:
        OSError: it is not permitted, or there is no /dev/net/tun.
    """
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(file)
        raise
    return file


class Relay:
    """All lines, and the loop that moves their packets."""

    def __init__(self, lines: list[tuple[str, str]], line: Line, seed: int) -> None:
        self._ways: dict[int, tuple[int, Way]] = {}
        for number, names in enumerate(lines):
            near, far = map(open_tun, names)
            self._ways[near] = far, Way(line, random.Random(f"{seed} {number} there"))
            self._ways[far] = near, Way(line, random.Random(f"{seed} {number} back"))

    def run(self) -> None:
        """Move packets until standard input ends."""
        poll = select.epoll()
        for file in (0, *self._ways):
            poll.register(file, select.EPOLLIN)
        # unbuffered: epoll must not miss a command that waits in a buffer of ours
        commands = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
        while True:
            for file, _ in poll.poll(self._wait()):
                if file == 0:
                    if not (line := commands.readline()):
                        return
                    self._obey(json.loads(line))
                else:
                    self._read(file)
            now = time.monotonic()
            for out, way in self._ways.values():
                for packet in way.take(now):
                    try:
                        os.write(out, packet)
                    except OSError:
                        way.dropped += 1  # the device is down, or its queue is full

    def _wait(self) -> float | None:
        due = [at for _, way in self._ways.values() if (at := way.next_at) is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _read(self, file: int) -> None:
        way = self._ways[file][1]
        now = time.monotonic()
        while True:
            try:
                packet = os.read(file, PACKET_BYTES)
            except OSError:  # nothing left, or the device is not up yet
                return
            way.put(packet, now)

    def _obey(self, command: dict[str, bool]) -> None:
        for _, way in self._ways.values():
            way.is_cut = command.get("cut", way.is_cut)
        ways = [way for _, way in self._ways.values()]
        say({"packets": sum(way.sent for way in ways), "dropped": sum(way.dropped for way in ways)})


def say(answer: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Make the devices and move their packets."""
    wanted = json.loads(sys.argv[1])
    line = Line(wanted["delay_ms"], wanted["jitter_ms"], wanted["loss"])
    relay = Relay([(near, far) for near, far in wanted["lines"]], line, wanted["seed"])
    say({})
    relay.run()


if __name__ == "__main__":
    main()

"""The publisher: pre-encoded messages to the broker at a steady rate, from one raw socket.

Started as `python -m benchmarks.publisher HOST PORT`; takes one JSON command a line on standard input:
`{"rate": 2000, "devices": 100}` publishes from now on, `{"rate": 0}` stops and is answered with what was published and
how fast, `{"count": 1000, …}` publishes that many and is answered, `{"progress_file": …, "window": 1000, …}` keeps at
most so many messages on their way, which is as fast as the receiver goes without loss.

With `"qos": 1` they go at QoS 1, and acknowledgements are read away. With `"payload_bytes": 16` they have no room for
the time of publishing, so it goes into the memory that all processes of a run share: `TIMES` of them at the start of
`times_file`, by number.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import select
import socket
import struct
import sys
import time
from typing import Any

from benchmarks import messages, wire

TICK_SECONDS = 0.001
BURST = 64
TIMES = 65_536
"""Times of publishing that are remembered: doubles, that of message n at `n % TIMES`."""


class Publisher:
    """Publishes messages 0, 1, 2, … of one run, to the devices in turn."""

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(wire.mqtt_connect("bench-publisher"))
        answer = self.sock.recv(4)
        if answer != b"\x20\x02\x00\x00":
            raise ConnectionError(f"the broker refused the publisher: {answer!r}")
        self.sock.settimeout(None)
        self.published = 0
        self.rate = 0.0
        self.qos = 0
        self.times: mmap.mmap | None = None
        self.stdin = select.poll()
        self.stdin.register(0, select.POLLIN)

    def send(self, count: int, devices: int) -> None:
        """Publish the next `count` messages in one write; blocks while the broker doesn't read."""
        packets = []
        for number in range(self.published, self.published + count):
            device, now = number % devices, time.time()
            if self.times is None:
                payload = messages.payload(now, number // devices, number)
            else:
                payload = messages.short_payload(number)
                struct.pack_into("<d", self.times, number % TIMES * 8, now)
            packet_id = number % 65_535 + 1 if self.qos else 0
            packets.append(wire.mqtt_publish(messages.topic(device), payload, packet_id))
        self.sock.sendall(b"".join(packets))
        if self.qos:
            with contextlib.suppress(BlockingIOError):
                self.sock.recv(65_536, socket.MSG_DONTWAIT)
        self.published += count

    def at_rate(self, rate: float, devices: int) -> None:
        """Publish at `rate` messages a second until the next command comes.

        A broker that blocks for a while is not made up for afterwards: no burst may follow that nobody asked for.
        """
        due, last = 0.0, time.monotonic()
        published, started = self.published, last
        while not self.stdin.poll(0):
            now = time.monotonic()
            due = min(due + (now - last) * rate, max(1.0, rate * 0.05))
            last = now
            if due >= 1:
                self.send(int(due), devices)
                due -= int(due)
            time.sleep(TICK_SECONDS)
        self.rate = (self.published - published) / (time.monotonic() - started)

    def in_window(self, progress_file: str, window: int, devices: int) -> None:
        """Publish whenever fewer than `window` messages are on their way, until the next command comes."""
        with open(progress_file, "r+b") as file:  # noqa: PTH123
            progress = mmap.mmap(file.fileno(), 8)
        start = self.published - struct.unpack_from("<q", progress)[0]
        while not self.stdin.poll(0):
            for _ in range(64):
                room = window - (self.published - start - struct.unpack_from("<q", progress)[0])
                if room >= BURST:
                    self.send(BURST, devices)
                else:
                    time.sleep(0.0002)

    def obey(self, command: dict[str, Any]) -> bool:
        """Do one command; return whether it is to be answered."""
        self.qos = command.get("qos", self.qos)
        if command.get("payload_bytes") == 16 and self.times is None:
            with open(command["times_file"], "r+b") as file:  # noqa: PTH123
                self.times = mmap.mmap(file.fileno(), TIMES * 8)
        if "progress_file" in command:
            self.in_window(command["progress_file"], command["window"], command["devices"])
            return False
        if "count" in command:
            left = command["count"]
            while left:
                size = min(left, 20)
                self.send(size, command["devices"])
                left -= size
                time.sleep(size / command["rate"])
            return True
        if command["rate"]:
            self.at_rate(command["rate"], command["devices"])
            return False
        return True


def main() -> None:
    """Obey commands until standard input ends."""
    publisher = Publisher(sys.argv[1], int(sys.argv[2]))
    # Unbuffered: poll() must not miss a command that waits in a buffer of ours.
    commands = open(0, "rb", buffering=0)  # noqa: SIM115
    while line := commands.readline():
        if publisher.obey(json.loads(line)):
            sys.stdout.write(json.dumps({"published": publisher.published, "rate": publisher.rate}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

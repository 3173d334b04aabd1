"""The load: thousands of WebSocket subscribers in one process, on raw sockets and epoll.

Started as `python -m benchmarks.subscribers`; takes one JSON command a line on standard input, answers each with one
JSON line. Reading is all it does while it waits: big chunks into one buffer, and `counting` looks into the bytes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import re
import select
import socket
import struct
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from benchmarks import messages, wire
from benchmarks.counting import EnvelopeCounter, SequenceCounter, pings_in
from benchmarks.publisher import TIMES

READ_BYTES = 1 << 18
HEADROOM = 256
SLOW_TICK_SECONDS = 0.1
ADDRESSES = 200
_POSITION = re.compile(rb'"position":"([^":]+):(\d+)"')


class Subscriber:
    """One connection: its socket, how far its handshake is, and what it counted."""

    __slots__ = (
        *("counter", "envelopes", "epoch", "fd", "index", "opened_at", "path", "ready", "recovered_at", "rest"),
        *("seq", "slow_bytes", "sock", "topic_filter"),
    )

    def __init__(self, index: int, path: str, topic_filter: str, counter: SequenceCounter) -> None:
        self.index = index
        self.path = path
        self.topic_filter = topic_filter
        self.counter = counter
        self.envelopes: EnvelopeCounter | None = None
        self.sock: socket.socket | None = None
        self.fd = -1
        self.ready = False
        self.rest = b""
        self.opened_at = 0.0
        self.recovered_at = 0.0
        self.epoch = ""
        self.seq = 0
        self.slow_bytes = 0


class Load:
    """All the subscribers of one server.

    A subscriber is *ready* when the server has said that it is subscribed: SUBACK from Mosquitto, the `subscribed`
    event from the gateway. Until then its handshake is parsed in full; from then on its bytes go to its counter.
    """

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.subscribers: list[Subscriber] = []
        self.by_fd: dict[int, Subscriber] = {}
        self.buffer = bytearray(HEADROOM + READ_BYTES)
        self.into = memoryview(self.buffer)[HEADROOM:]
        self.delays = array("d")
        self.measuring = False
        self.closed = 0
        self.errors: dict[str, int] = {}
        self.ready = 0
        self.opening = 0
        self.bytes = 0
        self.reads = 0
        self.spec: dict[str, Any] = {}
        self.stdin_waiting = False
        self.target: int | None = None
        self.recovered = 0
        self.progress: mmap.mmap | None = None
        self.times: memoryview[float] | None = None
        self.slow: list[Subscriber] = []
        self.next_slow_tick = 0.0
        self.poll.register(0, select.EPOLLIN)

    # -- opening --------------------------------------------------------------------------------------------------

    def connect(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Open `count` more subscribers and wait until all are ready or `timeout` seconds have gone."""
        self.spec = spec
        if spec.get("progress_file"):
            with open(spec["progress_file"], "r+b") as file:  # noqa: PTH123
                self.progress = mmap.mmap(file.fileno(), 8)
        if spec["payload_bytes"] == 16 and self.times is None:
            with open(spec["times_file"], "r+b") as file:  # noqa: PTH123
                self.times = memoryview(mmap.mmap(file.fileno(), TIMES * 8)).cast("d")
        start = len(self.subscribers)
        for index in range(start, start + spec["count"]):
            self.subscribers.append(self._new_subscriber(index))
        return self._open_all(self.subscribers[start:])

    def _new_subscriber(self, index: int) -> Subscriber:
        spec = self.spec
        device = index % spec["devices"]
        topic_filter = messages.topic(device) if spec["per_device"] else "sensors/#"
        sampled = index % max(1, spec["count"] // spec["sampled"]) == 0
        times = self.times if sampled else None
        if spec["per_device"]:
            pattern = messages.DEVICE_COUNT_WITH_TIME if sampled else messages.DEVICE_COUNT
            first = messages.messages_of_device(device, spec["devices"], spec["published"])
        else:
            pattern = messages.NUMBER_WITH_TIME if sampled and times is None else messages.NUMBER
            first = spec["published"]
        counter = SequenceCounter(pattern, next_count=first, delays=self.delays if sampled else None, times=times)
        path = "/mqtt"
        if spec["server"] == "gateway":
            path = f"/ws?topic={quote(topic_filter, safe='')}&{spec['query']}"
        subscriber = Subscriber(index, path, topic_filter, counter)
        slow = index < spec["slow"]
        if spec["envelopes"] or slow:
            subscriber.envelopes = EnvelopeCounter(delays=self.delays if sampled and not slow else None)
            for other in range(spec["devices"]):
                done = messages.messages_of_device(other, spec["devices"], spec["published"])
                subscriber.envelopes.last_count[messages.topic(other)] = done - 1
        if slow:
            subscriber.slow_bytes = max(64, int(spec["slow_bytes_per_second"] * SLOW_TICK_SECONDS))
            self.slow.append(subscriber)
        return subscriber

    def _open_all(self, opening: list[Subscriber]) -> dict[str, Any]:
        started = time.monotonic()
        deadline = started + self.spec["timeout"]
        waiting, wanted = iter(opening), self.ready + len(opening)
        more = True
        while self.ready + self.closed < wanted and time.monotonic() < deadline:
            while more and self.opening < self.spec["concurrency"]:
                subscriber = next(waiting, None)
                if subscriber is None:
                    more = False
                else:
                    self._open(subscriber)
            self.turn(0.05)
        return {"ready": self.ready, "seconds": time.monotonic() - started, "errors": self.errors}

    def _open(self, subscriber: Subscriber) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if subscriber.slow_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        elif self.spec["receive_bytes"]:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.spec["receive_bytes"])
        subscriber.sock, subscriber.fd, subscriber.ready, subscriber.rest = sock, sock.fileno(), False, b""
        subscriber.opened_at = time.monotonic()
        self.by_fd[subscriber.fd] = subscriber
        self.opening += 1
        # people are at addresses of their own, and what each may take of the gateway is bounded
        sock.bind((f"127.0.1.{subscriber.index % ADDRESSES + 1}", 0))
        code = sock.connect_ex((self.spec["host"], self.spec["port"]))
        if code not in (0, errno.EINPROGRESS):
            self._close(subscriber, errno.errorcode[code])
            return
        self.poll.register(subscriber.fd, select.EPOLLOUT)

    def _handshake(self, subscriber: Subscriber, event: int) -> None:
        sock = subscriber.sock
        assert sock is not None
        subprotocol = "mqtt" if self.spec["server"] == "mosquitto" else None
        try:
            if event & select.EPOLLOUT:
                sock.send(wire.upgrade_request(self.spec["host"], self.spec["port"], subscriber.path, subprotocol))
                self.poll.modify(subscriber.fd, select.EPOLLIN)
                return
            data = sock.recv(4096)
        except OSError as error:
            self._close(subscriber, errno.errorcode.get(error.errno or 0, "error"))
            return
        if not data:
            self._close(subscriber, "closed in handshake: " + subscriber.rest[:80].decode("latin1"))
            return
        subscriber.rest += data
        head, end, body = subscriber.rest.partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 101"):
            self._close(subscriber, head[:60].decode("latin1"))
        elif self.spec["server"] == "mosquitto":
            self._mqtt_handshake(subscriber, sock, body)
        else:
            found = _POSITION.search(body)
            if found is not None:
                if not subscriber.epoch:  # who comes back has where it began, and counts on from there
                    subscriber.epoch, subscriber.seq = found[1].decode(), int(found[2])
                # What came before or with the event counts too, and so does a first piece of a frame.
                self._now_ready(subscriber, body)

    def _mqtt_handshake(self, subscriber: Subscriber, sock: socket.socket, body: bytes) -> None:
        packets = [packet for _, packet in wire.FrameReader().feed(body)]
        if not body and subscriber.seq == 0:
            subscriber.seq = 1  # CONNECT is under way
            name = f"bench-{os.getpid()}-{subscriber.index}"
            sock.send(
                wire.client_frame(wire.mqtt_connect(name))
                + wire.client_frame(wire.mqtt_subscribe(subscriber.topic_filter))
            )
        elif any(packet[:1] == b"\x90" for packet in packets):
            self._now_ready(subscriber, body)

    def _now_ready(self, subscriber: Subscriber, body: bytes) -> None:
        subscriber.ready, subscriber.rest = True, b""
        self.ready += 1
        self.opening -= 1
        if subscriber.slow_bytes:
            self.poll.unregister(subscriber.fd)  # read on a timer, so that it stays slow
        end = HEADROOM + len(body)
        self.buffer[HEADROOM:end] = body
        self._count(subscriber, end, time.time())

    def _close(self, subscriber: Subscriber, why: str) -> None:
        if subscriber.sock is None:
            return
        with contextlib.suppress(OSError):
            self.poll.unregister(subscriber.fd)
        subscriber.sock.close()
        self.by_fd.pop(subscriber.fd, None)
        subscriber.sock = None
        if why:
            self.errors[why] = self.errors.get(why, 0) + 1
            self.closed += 1
        if subscriber.ready:
            self.ready -= 1
        else:
            self.opening -= 1
        subscriber.ready = False

    # -- reading --------------------------------------------------------------------------------------------------

    def turn(self, timeout: float) -> None:
        """Wait for something to read, at most `timeout` seconds, and read it."""
        if self.slow:
            timeout = min(timeout, SLOW_TICK_SECONDS)
        for fd, event in self.poll.poll(timeout):
            subscriber = self.by_fd.get(fd)
            if subscriber is None:
                self.stdin_waiting = self.stdin_waiting or fd == 0
                if fd == 0:
                    self.poll.modify(0, 0)
            elif subscriber.ready:
                self._read(subscriber, READ_BYTES)
            else:
                self._handshake(subscriber, event)
        if self.slow and time.monotonic() >= self.next_slow_tick:
            self.next_slow_tick = time.monotonic() + SLOW_TICK_SECONDS
            for subscriber in self.slow:
                if subscriber.ready:
                    self._read(subscriber, subscriber.slow_bytes)

    def _read(self, subscriber: Subscriber, limit: int) -> None:
        sock = subscriber.sock
        assert sock is not None
        try:
            size = sock.recv_into(self.into, limit)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(subscriber, errno.errorcode.get(error.errno or 0, "error"))
            return
        if not size:
            self._close(subscriber, "closed by the server")
            return
        self.bytes += size
        self.reads += 1
        self._count(subscriber, HEADROOM + size, time.time())

    def _count(self, subscriber: Subscriber, end: int, now: float) -> None:
        buffer = self.buffer
        if subscriber.envelopes is not None:
            subscriber.envelopes.feed(bytes(buffer[HEADROOM:end]), now)
            pings, subscriber.envelopes.pings = subscriber.envelopes.pings, []
        else:
            counter = subscriber.counter
            start = HEADROOM - len(counter.tail)
            buffer[start:HEADROOM] = counter.tail
            counter.feed(buffer, HEADROOM, end, now)
            pings = pings_in(buffer, start, end) if self.spec["server"] == "gateway" else []
            if self.target is not None and not subscriber.recovered_at and counter.next_count >= self.target:
                subscriber.recovered_at = time.monotonic()
                self.recovered += 1
            if self.progress is not None:
                struct.pack_into("<q", self.progress, 0, counter.received)
        for ping in pings:
            if subscriber.sock is not None:
                with contextlib.suppress(OSError):
                    subscriber.sock.send(wire.client_frame(ping, wire.PONG))

    # -- answers --------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Return the counts so far."""
        times = os.times()
        counters = [s.counter for s in self.subscribers if s.envelopes is None]
        envelopes = [s.envelopes for s in self.subscribers if s.envelopes is not None]
        return {
            "received": sum(c.received for c in counters) + sum(e.received for e in envelopes),
            "lost": sum(c.lost for c in counters),
            "repeated": sum(c.repeated for c in counters) + sum(e.repeated for e in envelopes),
            "skipped": sum(e.skipped for e in envelopes),
            "gap": sum(e.gap for e in envelopes),
            "unexplained": sum(e.unexplained for e in envelopes),
            "ready": self.ready,
            "closed": self.closed,
            "errors": self.errors,
            "bytes": self.bytes,
            "reads": self.reads,
            "cpu_seconds": times.user + times.system,
            "time": time.monotonic(),
        }

    def start_delays(self, _: dict[str, Any]) -> dict[str, Any]:
        """Forget the delays so far."""
        del self.delays[:]
        return self.report()

    def stop_delays(self, _: dict[str, Any]) -> dict[str, Any]:
        """Return the counts with the distribution of the delays since `start_delays`, in milliseconds."""
        delays = sorted(self.delays)
        report = self.report()
        report["delay_samples"] = len(delays)
        for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0)):
            report[name] = 1000 * delays[min(len(delays) - 1, int(part * len(delays)))] if delays else None
        return report

    def drain(self, command: dict[str, Any]) -> dict[str, Any]:
        """Read until everything up to message number `published` is there, or nothing has come for `quiet` seconds.

        What is still missing then is added to `lost`, once.
        """
        deadline = time.monotonic() + command["timeout"]
        last, last_change = -1, time.monotonic()
        while time.monotonic() < deadline:
            received = self.bytes
            if received != last:
                last, last_change = received, time.monotonic()
            if self._missing(command["published"]) == 0 or time.monotonic() - last_change > command["quiet"]:
                break
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                self.turn(0.05)
        report = self.report()
        report["lost"] += self._missing(command["published"])
        return report

    def _missing(self, published: int) -> int:
        missing, devices = 0, self.spec["devices"]
        for subscriber in self.subscribers:
            if subscriber.envelopes is None:
                end = published
                if self.spec["per_device"]:
                    end = messages.messages_of_device(subscriber.index % devices, devices, published)
                missing += max(0, end - subscriber.counter.next_count)
            elif not subscriber.slow_bytes:
                for device in range(devices):
                    end = messages.messages_of_device(device, devices, published)
                    missing += max(0, end - 1 - subscriber.envelopes.last_count.get(messages.topic(device), -1))
        return missing

    def drop(self, _: dict[str, Any]) -> dict[str, Any]:
        """Cut every connection at once, as a network does, and keep what each had."""
        for subscriber in self.subscribers:
            self._close(subscriber, "")
        return {"closed": len(self.subscribers)}

    def rejoin(self, command: dict[str, Any]) -> dict[str, Any]:
        """Open every subscriber again, all at once, each `since` the position after its last message.

        `port`: at another server.

        Waits until each has everything up to message number `target`, and reports how long that took them.
        """
        self.target, self.recovered, self.closed, self.errors = command["target"], 0, 0, {}
        self.spec["concurrency"] = len(self.subscribers)
        self.spec["port"] = command.get("port", self.spec["port"])
        for subscriber in self.subscribers:
            subscriber.recovered_at = 0.0
            subscriber.counter.tail = b""
            since = f"{subscriber.epoch}:{subscriber.seq + subscriber.counter.received}"
            subscriber.path = f"/ws?topic={quote(subscriber.topic_filter, safe='')}&since={since}"
        started = time.monotonic()
        self._open_all(self.subscribers)
        deadline = started + command["timeout"]
        while self.recovered + self.closed < len(self.subscribers) and time.monotonic() < deadline:
            self.turn(0.05)
        seconds = time.monotonic() - started
        times = sorted(s.recovered_at - started for s in self.subscribers if s.recovered_at)
        report = self.report()
        report["recovered"], report["seconds"] = len(times), seconds
        report["recovery_p50_ms"] = 1000 * times[len(times) // 2] if times else None
        report["recovery_max_ms"] = 1000 * times[-1] if times else None
        return report

    def run(self) -> None:
        """Obey commands until standard input ends."""
        commands: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "connect": self.connect,
            "start_delays": self.start_delays,
            "stop_delays": self.stop_delays,
            "drain": self.drain,
            "drop": self.drop,
            "rejoin": self.rejoin,
        }
        while True:
            self.turn(1.0)
            if self.stdin_waiting:
                line = sys.stdin.readline()
                if not line:
                    return
                command = json.loads(line)
                answer = commands[command.pop("do")](command)
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
                self.stdin_waiting = False
                self.poll.modify(0, select.EPOLLIN)


if __name__ == "__main__":
    Load().run()

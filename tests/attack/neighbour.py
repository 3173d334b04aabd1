"""A program of its own: somebody at another address who asks all the time and notes what he feels.

    python -m tests.attack.neighbour ws://127.0.0.1:PORT TOPIC mqtt://BROKER CA_FILE

A token is in NEIGHBOUR_TOKEN. For each line on standard input it writes what was noted since the line before, as JSON,
all in seconds: `pong` (an answer on a WebSocket), `message` (from a sensor to him), `list` and `last` (a list of topics
and a last value over HTTP, each on a connection of its own), and `stolen`: how much longer than its processor time some
short work took, since others had this machine's processors. `slow` is how many times the processor time it took that
it takes on a quiet machine. He publishes the messages himself: only the gateway and the broker are between.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import ssl
import sys
import threading
import time
from urllib.parse import quote, urlsplit

from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.support.publishers import Publisher
from tests.support.yardsticks import YARDSTICK_SECONDS, yardstick_seconds

ADDRESS = "127.0.0.2"
PAUSE_SECONDS = 0.03
REQUEST_PAUSE_SECONDS = 0.1
PATIENCE_SECONDS = 60.0


class Notes:
    """What was felt since it was read last."""

    asked_at: float | None

    def __init__(self) -> None:
        self.asked_at = None
        self.requests: dict[str, float] = {}  # those under way, and when they began
        self._lock = threading.Lock()
        self._felt: dict[str, list[float]] = {}

    def add(self, what: str, seconds: float) -> None:
        with self._lock:
            self._felt.setdefault(what, []).append(seconds)

    def take(self, frame: str | bytes) -> None:
        now = time.monotonic()
        found = json.loads(frame)
        if found.get("event") == "pong" and self.asked_at is not None:
            self.add("pong", now - self.asked_at)
            self.asked_at = None
        elif "seq" in found:
            self.add("message", now - float(found["payload"]))

    def is_waiting(self) -> bool:
        return self.asked_at is not None

    def measure_the_machine(self) -> None:
        began = time.perf_counter()
        seconds = yardstick_seconds(20)
        self.add("stolen", max(0.0, time.perf_counter() - began - seconds * 20))
        # after a pause nothing was in the caches of the processor; now it is
        self.add("slow", max(1.0, yardstick_seconds(20) / YARDSTICK_SECONDS))

    def read(self) -> str:
        # what has not come yet is felt, too
        now = time.monotonic()
        with self._lock:
            felt, self._felt = self._felt, {}
        if self.asked_at is not None:
            felt.setdefault("pong", []).append(now - self.asked_at)
        for what, began in list(self.requests.items()):
            felt.setdefault(what, []).append(now - began)
        return json.dumps(felt)


def watch(websocket: Connection, notes: Notes) -> None:
    """Asks and notes until standard input ends."""
    while True:
        if not notes.is_waiting():
            notes.asked_at = time.monotonic()
            websocket.send('{"command":"ping"}')
        until = time.monotonic() + PAUSE_SECONDS
        while (left := until - time.monotonic()) > 0 or notes.is_waiting():
            try:
                notes.take(websocket.recv(max(left, 0.001)))
            except TimeoutError:
                pass
            if select.select([0], [], [], 0)[0]:
                if not os.read(0, 1):
                    return
                sys.stdout.write(notes.read() + "\n")
                sys.stdout.flush()
        notes.measure_the_machine()


def main() -> None:
    base, topic, broker, ca_file = sys.argv[1:]
    headers = {"Authorization": f"Bearer {os.environ['NEIGHBOUR_TOKEN']}", "Accept": "application/json"}
    host = urlsplit(base).netloc
    context = ssl.create_default_context(cafile=ca_file) if base.startswith("wss") else None
    notes, done = Notes(), threading.Event()

    def publish() -> None:
        while not done.wait(0.02):
            sensor.publish(topic, repr(time.monotonic()), qos=0)

    def ask() -> None:
        while not done.wait(REQUEST_PAUSE_SECONDS):
            for what, path in (("list", "/topics?limit=100"), ("last", f"/topics/{topic}")):
                began = notes.requests[what] = time.monotonic()
                try:
                    status = request(path)
                except OSError:
                    status = 0
                del notes.requests[what]
                # what he is refused he feels as if it never came
                notes.add(what, time.monotonic() - began if status == 200 else PATIENCE_SECONDS)

    def request(path: str) -> int:
        patience, source = PATIENCE_SECONDS, (ADDRESS, 0)
        connection = (
            http.client.HTTPConnection(host, timeout=patience, source_address=source)
            if context is None
            else http.client.HTTPSConnection(host, timeout=patience, source_address=source, context=context)
        )
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    threads = [threading.Thread(target=publish, name="sensor"), threading.Thread(target=ask, name="requests")]
    with (
        Publisher(broker) as sensor,
        connect(
            f"{base}/ws?topic={quote(topic, safe='')}&since=now",
            additional_headers=headers,
            compression=None,
            ping_interval=None,
            open_timeout=20,
            close_timeout=0.5,  # what has come meanwhile and is not read would keep the answer back
            source_address=(ADDRESS, 0),
            ssl=context,
        ) as websocket,
    ):
        for thread in threads:
            thread.start()
        try:
            watch(websocket, notes)
        finally:
            done.set()
            for thread in threads:
                thread.join()


if __name__ == "__main__":
    main()

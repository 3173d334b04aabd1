"""A program of its own: somebody at another address who asks for a pong all the time and notes what he feels.

    python -m tests.attack.neighbour ws://127.0.0.1:PORT TOKEN TOPIC mqtt://BROKER

For each line on standard input it writes the worst since the line before, as JSON: `pong` and `message` in seconds, and
how many of each there were. It publishes the messages itself: only the gateway and the broker are between.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from urllib.parse import quote

from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.support.publishers import Publisher

ADDRESS = "127.0.0.2"
PAUSE_SECONDS = 0.03


class Notes:
    """The worst since they were read last."""

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self.clear()

    def clear(self) -> None:
        self.pong = self.message = 0.0
        self.pongs = self.messages = 0

    def take(self, frame: str | bytes) -> None:
        now = time.monotonic()
        found = json.loads(frame)
        if found.get("event") == "pong" and self.asked_at is not None:
            self.pong, self.pongs = max(self.pong, now - self.asked_at), self.pongs + 1
            self.asked_at = None
        elif "seq" in found:
            self.message, self.messages = max(self.message, now - float(found["payload"])), self.messages + 1

    def read(self) -> str:
        # what has not come yet is felt, too
        pending = 0.0 if self.asked_at is None else time.monotonic() - self.asked_at
        told = {"pong": max(self.pong, pending), "message": self.message}
        told |= {"pongs": self.pongs, "messages": self.messages}
        self.clear()
        return json.dumps(told)


def watch(websocket: Connection) -> None:
    """Asks and notes until standard input ends."""
    notes = Notes()
    while True:
        if notes.asked_at is None:
            notes.asked_at = time.monotonic()
            websocket.send('{"command":"ping"}')
        until = time.monotonic() + PAUSE_SECONDS
        while (left := until - time.monotonic()) > 0 or notes.asked_at is not None:
            try:
                notes.take(websocket.recv(max(left, 0.001)))
            except TimeoutError:
                pass
            if select.select([0], [], [], 0)[0]:
                if not os.read(0, 1):
                    return
                sys.stdout.write(notes.read() + "\n")
                sys.stdout.flush()


def main() -> None:
    base, token, topic, broker = sys.argv[1:]
    done = threading.Event()

    def publish() -> None:
        while not done.wait(0.02):
            sensor.publish(topic, repr(time.monotonic()), qos=0)

    thread = threading.Thread(target=publish, name="sensor")
    with (
        Publisher(broker) as sensor,
        connect(
            f"{base}/ws?topic={quote(topic, safe='')}&since=now",
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            ping_interval=None,
            open_timeout=20,
            source_address=(ADDRESS, 0),
        ) as websocket,
    ):
        thread.start()
        try:
            watch(websocket)
        finally:
            done.set()
            thread.join()


if __name__ == "__main__":
    main()

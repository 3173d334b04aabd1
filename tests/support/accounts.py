"""Messages with running numbers, and browsers that go from node to node and account for every one of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any
from urllib.parse import urlencode, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from .gateways import GatewayProcess
from .publishers import leave

__all__ = ["Numbers", "Walker", "walking"]


class Numbers:
    """Publishes 0, 1, 2, … at QoS 1 from a thread, each to the topic `PREFIX/<number % topics>`.

    Attributes:
        sent: how many were published.
        unsure: numbers that were not acknowledged when the broker went away: the publisher sends them again, so that
            they may be two messages.
    """

    def __init__(self, url: str, prefix: str, *, topics: int, per_second: float) -> None:
        parts = urlsplit(url)
        self.sent = 0
        self.unsure: set[int] = set()
        self.topics = topics
        self._prefix = prefix
        self._per_second = per_second
        self._acknowledged = 0  # in the order in which they were sent
        self._is_ending = False
        self._is_connected = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(1_000)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_publish = self._published
        self._client.on_disconnect = self._disconnected
        self._client.on_connect = lambda *_: self._is_connected.set()
        self._client.connect(parts.hostname or "127.0.0.1", parts.port or 1883, keepalive=30)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run, name="numbers", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def _published(self, *_: object) -> None:
        self._acknowledged += 1

    def _disconnected(self, *_: object) -> None:
        self._is_connected.clear()
        self.unsure.update(range(self._acknowledged, self.sent + 1))

    def _run(self) -> None:
        began = time.monotonic()
        while not self._is_ending:
            ahead = self.sent / self._per_second - (time.monotonic() - began)
            if ahead > 0.002:
                time.sleep(ahead)
            if not self._is_connected.is_set():
                # what paho sends again must come before what is new, which it does not see to by itself
                self._is_connected.wait(1)
                self._wait_acknowledged()
            topic, payload = f"{self._prefix}/{self.sent % self.topics}", b"%d" % self.sent
            self._client.publish(topic, payload, 1)
            self.sent += 1

    def _wait_acknowledged(self) -> None:
        until = time.monotonic() + 60
        while self._acknowledged < self.sent or not self._is_connected.is_set():
            assert time.monotonic() < until, f"{self.sent - self._acknowledged} messages were not acknowledged"
            time.sleep(0.01)

    def end(self) -> int:
        """Publishes no more and waits until the broker has everything; how many there were."""
        self._is_ending = True
        self._thread.join()
        self._wait_acknowledged()
        leave(self._client)
        return self.sent


class Walker:
    """A browser that goes on at the next node, at its position, whenever its connection ends.

    Attributes:
        topic: its topic filter.
        got: what came, in order.
        gaps: events of that name.
        contents: what came under each position.
        pauses: when it got nothing for longest since `mark`, seconds.
    """

    def __init__(self, nodes: list[GatewayProcess], at: int, topic: str = "#") -> None:
        self.nodes = nodes
        self.topic = topic
        self.got: list[int] = []
        self.gaps: list[dict[str, Any]] = []
        self.contents: dict[tuple[str, int], int] = {}
        self.longest = 0.0
        self._at = at
        self._epoch = ""
        self._seq = 0
        self._heard_at = time.monotonic()

    def mark(self) -> None:
        """Measures anew how long nothing comes."""
        self.longest, self._heard_at = 0.0, time.monotonic()

    @property
    def _since(self) -> str:
        return f"{self._epoch}:{self._seq}" if self._epoch else "1h"

    async def walk(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            node = self.nodes[self._at % len(self.nodes)]
            self._at += 1
            query = urlencode({"topic": self.topic, "since": self._since})
            with contextlib.suppress(OSError, TimeoutError, WebSocketException):
                async with connect(
                    f"{node.ws}/ws?{query}",
                    max_size=None,
                    compression=None,
                    ping_interval=None,
                    open_timeout=3,
                    close_timeout=0.1,
                ) as socket:
                    async for frame in socket:
                        self._take(json.loads(frame))
            await asyncio.sleep(0.1)

    def _take(self, frame: dict[str, Any]) -> None:
        event = frame.get("event")
        if event is None:
            now = time.monotonic()
            self.longest, self._heard_at = max(self.longest, now - self._heard_at), now
            self._seq = frame["seq"]
            self.got.append(frame["payload"])
            self.contents[self._epoch, self._seq] = frame["payload"]
        elif event == "subscribed":
            epoch = frame["position"].partition(":")[0]
            if epoch != self._epoch:
                # what comes next begins at the oldest that there is, or behind the gap that is told
                self._epoch, self._seq = epoch, 0
        elif event == "gap":
            self.gaps.append(frame)

    def check(self, count: int, topics: int, unsure: set[int]) -> None:
        """Whether it got everything once and in order."""
        own = None if self.topic == "#" else int(self.topic.rpartition("/")[2])
        expected = [number for number in range(count) if own is None or number % topics == own]
        missing = sorted(set(expected) - set(self.got))
        assert not missing, f"{self.topic}: {len(missing)} lost: {missing[:10]}; {self.gaps}"
        twice = {number: times for number, times in Counter(self.got).items() if times > 1}
        assert set(twice) <= unsure, f"{self.topic}: {sorted(set(twice) - unsure)[:10]} came twice"
        once = list(dict.fromkeys(self.got))
        wrong = [pair for pair in itertools.pairwise(once) if pair[0] > pair[1]]
        assert not wrong, f"{self.topic}: out of order: {wrong[:5]}"
        assert [gap for gap in self.gaps if gap["lost"] != 0] == []


@contextlib.asynccontextmanager
async def walking(walkers: Iterable[Walker]) -> AsyncIterator[None]:
    """They walk meanwhile, and have closed what they opened at its end."""
    tasks = [asyncio.create_task(walker.walk()) for walker in walkers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        gc.collect()  # the library leaves the socket of a handshake that is given up to it: here, where that is known

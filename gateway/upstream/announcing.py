"""What Home Assistant is told of the gateway itself: three entities of one device, and two numbers now and then.

Invariant: it tells while the broker is there and, of a cluster, only where this process leads; what the broker refuses
is said once and not tried again before the next connection. Where the numbers come from is the caller's.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from gateway.upstream.state import PublishRefused, UpstreamUnavailable

__all__ = ["Announcer", "entities"]

logger = logging.getLogger(__name__)

EVERY_SECONDS = 30.0
"""How often the numbers are told; Home Assistant keeps each of them."""


class Publish(Protocol):
    """`Upstream.publish`."""

    async def __call__(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> object:
        """Publishes a message."""


def entities(prefix: str, client_id: str, status_topic: str, version: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The topic for the numbers, and what is published, by topic.

    Args:
        prefix: where Home Assistant looks for what is new.
        client_id: the gateway's on the broker: another one is another device.
        status_topic: where it says whether it is there; empty where it doesn't.
        version: of the gateway.
    """
    own = re.sub(r"[^A-Za-z0-9_-]", "_", client_id)
    numbers = f"{status_topic or own}/numbers"
    common: dict[str, Any] = {
        "device": {
            "identifiers": [f"mqtt_browser_gateway_{own}"],
            "name": f"MQTT gateway {client_id}",
            "sw_version": version,
        },
        "origin": {"name": "mqtt-browser-gateway", "sw_version": version},
    }
    gone = {"payload_available": "online", "payload_not_available": "offline", "availability_topic": status_topic}
    known: dict[str, tuple[str, dict[str, Any]]] = {
        "messages": (
            "sensor",
            {"name": "Messages", "unit_of_measurement": "msg/s", "icon": "mdi:message-flash", "state_topic": numbers,
             "value_template": "{{ value_json.messages }}", "state_class": "measurement"},
        ),
        "subscribers": (
            "sensor",
            {"name": "Subscribers", "icon": "mdi:account-multiple", "state_topic": numbers,
             "value_template": "{{ value_json.subscribers }}", "state_class": "measurement"},
        ),
    }  # fmt: skip
    if status_topic:
        for _, config in known.values():
            config |= gone
        known["connected"] = (
            "binary_sensor",
            {"name": "Connected", "device_class": "connectivity", "entity_category": "diagnostic",
             "state_topic": status_topic, "payload_on": "online", "payload_off": "offline"},
        )  # fmt: skip
    return numbers, {
        f"{prefix}/{kind}/{own}/{name}/config": {**config, "unique_id": f"{own}_{name}", **common}
        for name, (kind, config) in known.items()
    }


class Announcer:
    """Publishes that, and the numbers every half minute."""

    def __init__(
        self,
        topic: str,
        configs: dict[str, dict[str, Any]],
        *,
        publish: Publish,
        may_tell: Callable[[], bool],
        received: Callable[[], int],
        subscribers: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        """Nothing runs yet.

        Args:
            topic: for the numbers.
            configs: what is announced, by topic.
            publish: publishes a message.
            may_tell: whether the broker is there, and this process is the one that tells.
            received: messages that have come so far.
            subscribers: how many there are now.
            clock: monotonic seconds.
        """
        self._topic = topic
        self._configs = configs
        self._publish = publish
        self._may_tell = may_tell
        self._received = received
        self._subscribers = subscribers
        self._clock = clock
        self._is_announced = self._is_refused = False
        self._last: tuple[float, int] = (clock(), received())

    async def run(self, every_seconds: float = EVERY_SECONDS) -> None:
        """Runs until it is cancelled."""
        while True:
            if not self._may_tell():
                # a broker that comes back may have kept nothing
                self._is_announced = self._is_refused = False
                await asyncio.sleep(1)
                continue
            if not self._is_refused:
                await self.tell()
            await asyncio.sleep(every_seconds)

    async def tell(self) -> None:
        """Publishes the numbers, and before them what they are of, once."""
        now, count = self._clock(), self._received()
        seconds, before = max(now - self._last[0], 0.001), self._last[1]
        self._last = now, count
        numbers = {"messages": round((count - before) / seconds, 1), "subscribers": self._subscribers()}
        try:
            if not self._is_announced:
                for topic, config in self._configs.items():
                    await self._publish(topic, msgspec.json.encode(config), qos=1, retain=True)
                self._is_announced = True
            await self._publish(self._topic, msgspec.json.encode(numbers), qos=0, retain=True)
        except UpstreamUnavailable:
            self._is_announced = False
        except PublishRefused as error:
            self._is_refused = True
            logger.warning("Home Assistant is not told of the gateway: %s", error)

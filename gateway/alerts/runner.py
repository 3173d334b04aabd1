"""Alerts in a running gateway: the clock that ticks for them, and what is published.

Invariant: the broker has, sooner or later, each alert's newest report as the retained message of its topic, and none
more often than once a second; a broker that is away or refuses stops nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from gateway import __version__
from gateway.alerts.alerts import Alert, Alerts, encode_report
from gateway.alerts.rules import rules_of
from gateway.alerts.webhooks import Webhooks
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.devices.registry import Registry
from gateway.settings.table import Settings
from gateway.upstream.state import PublishRefused, UpstreamUnavailable

__all__ = ["Discovery", "Runner", "make_runner"]

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""The clock is looked at so often at least: it may have been set."""

LEAST_SECONDS = 0.05
"""And no more often than that."""

PUBLISH_SECONDS = 1.0
"""The least time between two reports of one alert."""

REFUSED_SECONDS = 60.0
"""After so long a report that the broker refused is tried again."""


class Publish(Protocol):
    """`Upstream.publish`."""

    def __call__(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> Awaitable[object]:
        """Publishes a message."""


class Discovery:
    """What Home Assistant is told of each alert, so that it appears there as a binary sensor."""

    def __init__(self, prefix: str, client_id: str, status_topic: str, version: str) -> None:
        """`prefix`: where Home Assistant looks; the others are the gateway's own."""
        self._prefix = prefix
        self._client_id = client_id
        self._status_topic = status_topic
        self._version = version

    def message(self, name: str, topic: str) -> tuple[str, bytes]:
        """Topic and payload for an alert whose report is published to `topic`."""
        gateway = re.sub(r"[^A-Za-z0-9_-]", "_", self._client_id)
        own = f"{gateway}_alert_{name}"
        config: dict[str, Any] = {
            "name": name,
            "unique_id": own,
            "default_entity_id": f"binary_sensor.{own}",
            "device_class": "problem",
            "state_topic": topic,
            "value_template": "{{ 'ON' if value_json.state == 'firing' else 'OFF' }}",
            "json_attributes_topic": topic,
            "device": {"identifiers": [f"mqtt_browser_gateway_{gateway}"], "name": f"MQTT gateway {self._client_id}"},
            "origin": {"name": "mqtt-browser-gateway", "sw_version": self._version},
        }
        if self._status_topic:
            config |= {
                "availability_topic": self._status_topic,
                "payload_available": "online",
                "payload_not_available": "offline",
            }
        return f"{self._prefix}/binary_sensor/{own}/config", msgspec.json.encode(config)


class Runner:
    """Ticks, settles and publishes.

    Attributes:
        published: reports by result: `ok` or an error code.
        webhooks: who is told by HTTP; None: nobody.
    """

    def __init__(
        self,
        alerts: Alerts,
        *,
        publish: Publish,
        is_connected: Callable[[], bool],
        is_complete: Callable[[], bool],
        clock: Callable[[], float],
        discovery: Discovery | None = None,
        webhooks: Webhooks | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            alerts: which.
            publish: publishes a message.
            is_connected: whether the broker is there.
            is_complete: whether all has come that it keeps.
            clock: monotonic seconds.
            discovery: what Home Assistant is told; None: nothing.
            webhooks: who is told by HTTP; None: nobody.
        """
        self.alerts = alerts
        self.published: dict[str, int] = {}
        self._publish = publish
        self._is_connected = is_connected
        self._is_complete = is_complete
        self._clock = clock
        self._discovery = discovery
        self.webhooks = webhooks
        if webhooks is not None:
            alerts.on_notice = webhooks.tell
        self._news = asyncio.Event()
        self._next: dict[str, float] = {}  # when an alert may be published again
        self._is_announced = False
        alerts.listeners.add(lambda _: self._news.set())

    def reconnected(self) -> None:
        """The broker is there again, and may have kept nothing: all is published once more."""
        self._is_announced = False
        if self.alerts.is_settled:
            for alert in self.alerts.alerts.values():
                alert.is_due = True
        self._news.set()

    def others_tell(self) -> None:
        """This node of a cluster leads no more: it goes on to judge, and tells nobody."""
        self.alerts.unsettle()

    async def catch_up(self) -> None:
        """Looks at what a log has that was filled without anybody hearing of it."""
        for _ in self.alerts.begin():
            await asyncio.sleep(0)
        self.alerts.take_up()

    async def watch(self, hub: Hub) -> None:
        """Looks at what the log has, and from then on at all that comes; nothing may come meanwhile."""
        for _ in self.alerts.begin():
            await asyncio.sleep(0)
        self.alerts.watch(hub)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self.webhooks is not None:
                tasks.create_task(self.webhooks.run(), name="webhooks")
            await self._go_on()

    async def _go_on(self) -> None:
        while True:
            self._news.clear()
            self.step()
            wait = await self._publish_due() if self.alerts.is_settled and self._is_connected() else TICK_SECONDS
            wait = min(wait, self.alerts.wait_seconds(), TICK_SECONDS)
            try:
                async with asyncio.timeout(max(wait, LEAST_SECONDS)):
                    await self._news.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(LEAST_SECONDS)  # what else comes about now goes along

    def step(self) -> None:
        """Looks at the clock, and at whether what the broker keeps has come."""
        self.alerts.tick(self._is_connected())
        if not self.alerts.is_settled and self._is_complete():
            self.alerts.settle()

    async def _publish_due(self) -> float:
        """Publishes what is due; returns the seconds until the next one may be."""
        if not self._is_announced and self._discovery is not None:
            for alert in self.alerts.alerts.values():
                topic, payload = self._discovery.message(alert.name, self.alerts.topic_of(alert))
                await self._send(alert, topic, payload)
        self._is_announced = True
        wait = TICK_SECONDS
        for alert in self.alerts.alerts.values():
            if not alert.is_due:
                continue
            left = self._next.get(alert.name, 0.0) - self._clock()
            if left > 0:
                wait = min(wait, left)
                continue
            alert.is_due = False
            self._next[alert.name] = self._clock() + PUBLISH_SECONDS
            payload = encode_report(self.alerts.report(alert))
            if not await self._send(alert, self.alerts.topic_of(alert), payload):
                alert.is_due = True
        return wait

    async def _send(self, alert: Alert, topic: str, payload: bytes) -> bool:
        try:
            await self._publish(topic, payload, qos=1, retain=True)
        except (UpstreamUnavailable, PublishRefused) as error:
            code = error.code
            if isinstance(error, PublishRefused):
                self._next[alert.name] = self._clock() + REFUSED_SECONDS
                if not self.published.get(code):
                    logger.warning("alert %s: the broker does not take %r: %s", alert.name, topic, error)
        else:
            code = "ok"
        self.published[code] = self.published.get(code, 0) + 1
        return code == "ok"


def make_runner(
    settings: Settings,
    *,
    history: History,
    publish: Publish,
    is_connected: Callable[[], bool],
    is_complete: Callable[[], bool],
    wall_clock_ms: Callable[[], int],
    clock: Callable[[], float],
    registry: Registry,
    is_shared: bool = False,
) -> Runner | None:
    """The alerts that are set, None where none is; the other arguments are those of `Alerts` and `Runner`."""
    if not settings.alerts:
        return None
    alerts = Alerts(
        rules_of(settings.alerts),
        history=history,
        prefix=settings.alert_topic,
        wall_clock_ms=wall_clock_ms,
        clock=clock,
        registry=registry,
        is_shared=is_shared,
    )
    discovery = None
    if settings.alert_discovery is not None:
        status = settings.mqtt_status_topic
        discovery = Discovery(settings.alert_discovery, settings.mqtt_client_id, status, __version__)
    webhooks = Webhooks(settings.webhooks, clock=clock, wall_clock_ms=wall_clock_ms) if settings.webhooks else None
    return Runner(
        alerts,
        publish=publish,
        is_connected=is_connected,
        is_complete=is_complete,
        clock=clock,
        discovery=discovery,
        webhooks=webhooks,
    )

"""Runs a fleet against a broker in real time, or faster."""

import logging
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from paho.mqtt.client import MQTTMessage

from sensors_sim.address import BrokerAddress
from sensors_sim.dialects.base import MARKS, SIMULATED, Dialect
from sensors_sim.fleet import Change, Device, Fleet
from sensors_sim.links import Link, Links
from sensors_sim.messages import Message

logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How it goes."""

    devices: int
    clients: int
    up: int
    """Clients that are connected."""
    published: int
    dropped: int
    failures: int
    late_seconds: float
    last_error: str

    def __add__(self, other: object) -> "Progress":
        """Of two processes together."""
        if not isinstance(other, Progress):
            return NotImplemented
        return Progress(
            self.devices + other.devices,
            self.clients + other.clients,
            self.up + other.up,
            self.published + other.published,
            self.dropped + other.dropped,
            self.failures + other.failures,
            max(self.late_seconds, other.late_seconds),
            self.last_error or other.last_error,
        )


class Runner:
    """Moves events from the model to the links when their time has come.

    Args:
        fleet: What happens.
        address: Where to.
        speed: Seconds of the model in a second.
        shared_clients: Clients that devices share; 0 gives each device its own, with its own will.
        qos: QoS of readings in place of the dialect's; None: the dialect's.
        prefix: In front of every topic, those of commands included.
    """

    def __init__(
        self,
        fleet: Fleet,
        address: BrokerAddress,
        *,
        speed: float = 1.0,
        shared_clients: int = 0,
        qos: int | None = None,
        prefix: str = "",
    ) -> None:
        self.fleet = fleet
        self.speed = speed
        self.links = Links(address, self._born, self._command)
        self.late_seconds = 0.0
        """How far publishing is behind the model's clock."""
        self.published_by: dict[str, int] = dict.fromkeys(fleet.devices, 0)
        """Messages so far, by device."""
        self.last_of: dict[str, Message] = {}
        """The newest reading, by device; filled only when ``keep_last``."""
        self.keep_last = False
        self._qos = qos
        self._prefix = prefix
        self._stopping = False
        self._devices_of: dict[Link, list[Device]] = {}
        self._link_of: dict[Device, Link] = {}
        self._shared = shared_clients > 0
        self._started = 0.0
        self._said_fleet_birth = False
        devices = fleet.acting
        self._is_first = fleet.part[0] == 0
        # Two simulators at one broker must not throw each other out.
        client_id = f"sensors-sim-{secrets.token_hex(4)}"
        groups = [devices[n::shared_clients] for n in range(shared_clients)] if self._shared else [[d] for d in devices]
        for number, group in enumerate([group for group in groups if group], 1):
            name = f"sensors-sim-{number}"
            if self._shared:
                link = Link(f"{client_id}-{number}", None, [prefix + device.cmd_topic for device in group], name)
            else:
                first = group[0]
                will = first.dialect.will(first)
                commands = [prefix + first.cmd_topic]
                link = Link(first.client_id, will and self._placed(will), commands, first.id)
            self._devices_of[link] = group
            for device in group:
                self._link_of[device] = link

    @property
    def model_time(self) -> float:
        """What the model's clock shows now."""
        return self.fleet.start + (time.monotonic() - self._started) * self.speed

    @property
    def clients(self) -> int:
        """How many MQTT clients there are."""
        return len(self._devices_of)

    @property
    def progress(self) -> Progress:
        """How it goes."""
        counters = self.links.counters
        return Progress(
            len(self.fleet.acting),
            self.clients,
            self.links.up,
            counters.published,
            counters.dropped,
            counters.failures,
            self.late_seconds,
            counters.last_error,
        )

    def stop(self) -> None:
        """Make ``run`` return; may be called from a signal handler."""
        self._stopping = True

    def run(self, seconds: float | None = None, on_tick: Callable[["Runner"], None] | None = None) -> None:
        """Publish until stopped, or for ``seconds``; then mark the devices offline and leave the broker.

        Args:
            seconds: None: for ever.
            on_tick: Called about twenty times a second.
        """
        self._started = time.monotonic()
        end = self._started + seconds if seconds is not None else float("inf")
        for link, devices in self._devices_of.items():
            if self._shared or devices[0].connected:
                self.links.open(link)
        next_tick = 0.0
        try:
            while not self._stopping:
                now = time.monotonic()
                if now >= end:
                    break
                self._publish_due(now)
                if on_tick is not None and now >= next_tick:
                    next_tick = now + 0.05
                    on_tick(self)
                wait = (self.fleet.next_time - self.model_time) / self.speed
                self.links.turn(min(0.05, wait, max(0.0, end - now)))
        finally:
            self.close()

    def close(self) -> None:
        """Mark the devices offline and disconnect."""
        farewell = []
        for link, devices in self._devices_of.items():
            for device in devices:
                if device.connected or device.sleeps:
                    farewell += [(link, message) for message in device.dialect.death(device)]
                    device.connected = False  # a sleeper that is woken to say goodbye says nothing else
        if farewell and self._is_first:
            first = next(iter(self._devices_of))
            farewell += [(first, message) for dialect in self._dialects() for message in dialect.fleet_death()]
        self.links.close((link, self._placed(message)) for link, message in farewell)

    def _placed(self, message: Message) -> Message:
        return message._replace(topic=self._prefix + message.topic) if self._prefix else message

    def _publish(self, link: Link, message: Message) -> None:
        self.links.publish(link, self._placed(message), len(self._devices_of[link]))

    def _dialects(self) -> list[Dialect]:
        return list({device.dialect.name: device.dialect for device in self.fleet.devices.values()}.values())

    def _publish_due(self, now: float) -> None:
        model_time = self.model_time
        self.late_seconds = max(0.0, (model_time - self.fleet.next_time) / self.speed)
        count = 0
        for device, what in self.fleet.take(model_time):
            self._do(device, what)
            count += 1
            # The sockets need a turn even when the model is behind, or nothing would leave.
            if count >= 500:
                count = 0
                self.links.turn(0)
                if self._stopping or time.monotonic() - now > 0.5:
                    break

    def _do(self, device: Device, what: Message | Change) -> None:
        link = self._link_of[device]
        if isinstance(what, Message):
            if not device.connected and self._shared:
                return  # its link would be down if it had one
            if self._qos is not None:
                what = what._replace(qos=self._qos)
            self._publish(link, what)
            self.published_by[device.id] += 1
            if self.keep_last and what.payload != b"sleeping":
                self.last_of[device.id] = what
        elif what is Change.JOIN:
            device.connected = True
            if self._shared:
                self._birth(link, device)
            else:
                self.links.open(link)
        else:
            # A sleeper stays "connected" until it has really left: its birth may not even be published yet.
            device.connected = what is Change.LEAVE
            self._part(link, device, what)

    def _part(self, link: Link, device: Device, change: Change) -> None:
        if self._shared:
            # The others on this client live on, so the will is published in its stead.
            will = device.dialect.will(device)
            if will is not None and change is not Change.LEAVE:
                self._publish(link, will)
        elif change is Change.LEAVE:
            self.links.leave(link)
        else:
            self.links.cut(link, keeps=change is Change.OUTAGE)

    def _born(self, link: Link) -> None:
        if self._is_first and not self._said_fleet_birth:
            self._said_fleet_birth = True
            for dialect in self._dialects():
                speakers = [device for device in self.fleet.devices.values() if device.dialect is dialect]
                if dialect.fleet_topics():
                    self._publish(link, Message(f"{MARKS}/{dialect.name}", SIMULATED, 1, True))
                for message in dialect.fleet_birth(speakers):
                    self._publish(link, message)
        for device in self._devices_of[link]:
            if device.connected:
                self._birth(link, device)

    def _birth(self, link: Link, device: Device) -> None:
        mark = device.dialect.mark(device)
        for message in [*([mark] if mark else []), *device.dialect.birth(device)]:
            self._publish(link, message)

    def _command(self, message: MQTTMessage) -> None:
        for device, what in self.fleet.command(
            message.topic.removeprefix(self._prefix), bytes(message.payload), self.model_time
        ):
            self._do(device, what)

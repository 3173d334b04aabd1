"""Runs a fleet against a broker in real time, or faster."""

import logging
import time
from collections.abc import Callable

from sensors_sim.fleet import Change, Device, Fleet
from sensors_sim.messages import Message
from sensors_sim.mqtt import BrokerAddress, Link, Links

logger = logging.getLogger(__name__)


class Runner:
    """Moves events from the model to the links when their time has come.

    Args:
        fleet: What happens.
        address: Where to.
        speed: Seconds of the model in a second.
        shared_clients: Clients that devices share; 0 gives each device its own, with its own will.
    """

    def __init__(self, fleet: Fleet, address: BrokerAddress, *, speed: float = 1.0, shared_clients: int = 0) -> None:
        self.fleet = fleet
        self.speed = speed
        self.links = Links(address, self._born, self._command)
        self.late_seconds = 0.0
        """How far publishing is behind the model's clock."""
        self._stopping = False
        self._devices_of: dict[Link, list[Device]] = {}
        self._link_of: dict[Device, Link] = {}
        self._shared = shared_clients > 0
        self._started = 0.0
        devices = list(fleet.devices.values())
        groups = [devices[n::shared_clients] for n in range(shared_clients)] if self._shared else [[d] for d in devices]
        for number, group in enumerate(group for group in groups if group):
            first = group[0]
            if self._shared:
                link = Link(
                    f"sensors-sim-{number + 1}", None, [d.cmd_topic for d in group], f"sensors-sim-{number + 1}"
                )
            else:
                link = Link(f"sensors-sim-{first.id}", first.dialect.will(first), [first.cmd_topic], first.id)
            self._devices_of[link] = group
            for device in group:
                self._link_of[device] = link

    @property
    def model_time(self) -> float:
        """What the model's clock shows now."""
        return self.fleet.start + (time.monotonic() - self._started) * self.speed

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
        for link in self._devices_of:
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
        self.links.close(
            (link, message)
            for link, devices in self._devices_of.items()
            for device in devices
            if device.connected
            for message in device.dialect.death(device)
        )

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
                if self._stopping or time.monotonic() - now > 1.0:
                    break

    def _do(self, device: Device, what: Message | Change) -> None:
        link = self._link_of[device]
        if isinstance(what, Message):
            self.links.publish(link, what, len(self._devices_of[link]))
        elif what is Change.CUT:
            device.connected = False
            if self._shared:
                # The others on this client live on, so the will is published for it.
                self.links.publish(link, device.dialect.will(device))
            else:
                self.links.cut(link)
        else:
            device.connected = True
            if self._shared:
                self._birth(link, device)
            else:
                self.links.open(link)

    def _born(self, link: Link) -> None:
        for device in self._devices_of[link]:
            if device.connected:
                self._birth(link, device)

    def _birth(self, link: Link, device: Device) -> None:
        for message in device.dialect.birth(device):
            self.links.publish(link, message, len(self._devices_of[link]))

    def _command(self, topic: str, payload: bytes) -> None:
        for device, what in self.fleet.command(topic, payload, self.model_time):
            self._do(device, what)

"""Dialects: in which topics and payloads a device speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensors_sim import payloads
from sensors_sim.messages import Message

if TYPE_CHECKING:
    from sensors_sim.fleet import Device
    from sensors_sim.kinds import Readings


class Native:
    """The project's own topics, ``sensors/<id>/…``."""

    name = "native"

    def will(self, device: Device) -> Message:
        """What the broker publishes when the device dies."""
        return Message(payloads.status_topic(device.id), payloads.OFFLINE.encode(), 1, True)

    def birth(self, device: Device) -> list[Message]:
        """What the device says about itself each time it has connected."""
        return [
            Message(payloads.status_topic(device.id), payloads.ONLINE.encode(), 1, True),
            Message(payloads.meta_topic(device.id), device.meta_payload(), 1, True),
        ]

    def readings(self, device: Device, readings: Readings, ts_ms: int) -> list[Message]:
        """What it says of one measurement."""
        return [Message(device.state_topic, payloads.state_payload(readings, device.seq, device.boot, ts_ms=ts_ms), 1)]

    def death(self, device: Device) -> list[Message]:
        """What it says when it leaves of its own will."""
        return [self.will(device)]

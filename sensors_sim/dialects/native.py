"""The project's own dialect, and the same with discovery by Home Assistant."""

# ruff: noqa: ARG002, D102  the base describes the methods

from sensors_sim import payloads
from sensors_sim.dialects.base import Dialect, Speaker
from sensors_sim.kind import Readings
from sensors_sim.messages import Message


class Native(Dialect):
    """The project's own topics, ``sensors/<id>/…``."""

    name = "native"
    knows_sleep = True

    def topics(self, device: Speaker) -> list[str]:
        return [
            payloads.state_topic(device.id),
            payloads.status_topic(device.id),
            payloads.meta_topic(device.id),
        ]

    def mark(self, device: Speaker) -> Message | None:
        return None  # its meta says so

    def will(self, device: Speaker) -> Message | None:
        return Message(payloads.status_topic(device.id), payloads.OFFLINE.encode(), 1, True)

    def birth(self, device: Speaker) -> list[Message]:
        status = Message(payloads.status_topic(device.id), payloads.ONLINE.encode(), 1, True)
        return [status, *self.description(device)]

    def description(self, device: Speaker) -> list[Message]:
        return [Message(payloads.meta_topic(device.id), device.meta_payload(), 1, True)]

    def readings(self, device: Speaker, readings: Readings, ts_ms: int) -> list[Message]:
        return [
            Message(
                payloads.state_topic(device.id),
                payloads.state_payload(readings, device.seq, device.boot, ts_ms=ts_ms),
                1,
            )
        ]

    def sleep(self, device: Speaker) -> list[Message]:
        return [Message(payloads.status_topic(device.id), payloads.SLEEPING.encode(), 1, True)]


class HomeAssistant(Native):
    """The native topics, and a discovery message for Home Assistant.

    Source: Home Assistant, "MQTT", section on device discovery: ``<prefix>/device/<id>/config`` with ``dev``, ``o`` and
    ``cmps``.
    """

    name = "homeassistant"

    def topics(self, device: Speaker) -> list[str]:
        return [*super().topics(device), payloads.discovery_topic(device.id)]

    def description(self, device: Speaker) -> list[Message]:
        discovery = payloads.discovery_parts(
            device.id,
            device.name,
            device.model,
            "sensors-sim",
            device.interval,
            device.fields,
            always_listens=not device.sleeps,
        )
        return [
            Message(payloads.discovery_topic(device.id), b"".join(discovery), 1, True),
            *super().description(device),
        ]

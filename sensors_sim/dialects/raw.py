"""How a device speaks that is described field by field."""

# ruff: noqa: D102  the base describes the methods

import time

from gateway.core.fields import nest
from gateway.core.paths import Path
from sensors_sim import payloads
from sensors_sim.custom import CustomSpec, FieldSpec, decoded, reading_names
from sensors_sim.dialects.base import Dialect, Speaker, json_bytes
from sensors_sim.kind import Readings
from sensors_sim.messages import Message


class Raw(Dialect):
    """The topics of a custom device, and ``meta`` where its readings are those of the native dialect.

    Args:
        spec: The device's own, so each has a dialect of its own.
    """

    name = "raw"

    def __init__(self, spec: CustomSpec) -> None:
        self._spec = spec
        self._names = reading_names(spec)

    def topics(self, device: Speaker) -> list[str]:
        spec = self._spec
        told = [stream.topic for stream in spec.streams] + [constant.topic for constant in spec.constants]
        if spec.status is not None:
            told.append(spec.status.topic)
        if self._is_native(device):
            told.append(payloads.meta_topic(device.id))
        return list(dict.fromkeys(_fill(topic, device) for topic in told))

    def mark(self, device: Speaker) -> Message | None:
        return None if self._is_native(device) else super().mark(device)

    def _is_native(self, device: Speaker) -> bool:
        """Whether its readings are where ``meta`` says that they are."""
        return any(_fill(stream.topic, device) == payloads.state_topic(device.id) for stream in self._spec.streams)

    def will(self, device: Speaker) -> Message | None:
        status = self._spec.status
        if status is None:
            return None
        return Message(_fill(status.topic, device), status.offline.encode(), status.qos, status.retain)

    def birth(self, device: Speaker) -> list[Message]:
        spec = self._spec
        messages = []
        if spec.status is not None:
            status = spec.status
            messages.append(Message(_fill(status.topic, device), status.online.encode(), status.qos, status.retain))
        for constant in spec.constants:
            payload = decoded(constant.payload) if constant.encoding else _fill(constant.payload, device).encode()
            messages.append(Message(_fill(constant.topic, device), payload, constant.qos, constant.retain))
        return messages + self.description(device)

    def description(self, device: Speaker) -> list[Message]:
        # A meta without readings at its side would put a device into every list that never reports.
        return (
            [Message(payloads.meta_topic(device.id), device.meta_payload(), 1, True)] if self._is_native(device) else []
        )

    def readings(self, device: Speaker, readings: Readings, ts_ms: int) -> list[Message]:
        messages = []
        for stream, names in zip(self._spec.streams, self._names, strict=True):
            if device.seq % stream.every:
                continue
            values: dict[Path, object] = {}
            for item in stream.fields:
                if item.model == "seq":
                    values[item.path] = device.seq // stream.every
                elif item.model == "boot":
                    values[item.path] = device.boot
                elif item.model == "iso-clock":
                    values[item.path] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ts_ms / 1000))
                elif item.model == "clock":
                    ticks = ts_ms / 1000 * item.rate
                    values[item.path] = round(ticks, item.decimals) if item.decimals else round(ticks)
                else:
                    values[item.path] = readings.get(names[item.name])
                if item.text:
                    values[item.path] = _as_text(values[item.path], item)
            if stream.format == "json":
                payload = json_bytes(nest(values))
            else:
                value = next(iter(values.values()))
                payload = value.encode() if isinstance(value, str) else json_bytes(value)
                if stream.format == "base64":
                    payload = decoded(str(value))
            messages.append(Message(_fill(stream.topic, device), payload, stream.qos, stream.retain))
        return messages


def _as_text(value: object, item: FieldSpec) -> object:
    """A number as text; anything else as it is."""
    if isinstance(value, float):
        return f"{value:.{item.decimals}f}{item.suffix}"
    return f"{value}{item.suffix}" if type(value) is int else value


def _fill(text: str, device: Speaker) -> str:
    return text.replace("{id}", device.id).replace("{name}", device.name)

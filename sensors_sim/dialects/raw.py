"""How a device speaks that is described field by field."""

# ruff: noqa: D102  the base describes the methods

import re
import time
from collections.abc import Mapping
from typing import Any

from sensors_sim import payloads
from sensors_sim.custom import CustomSpec, decoded, reading_names
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
            values: dict[str, object] = {}
            for item in stream.fields:
                if item.model == "seq":
                    values[item.name] = device.seq // stream.every
                elif item.model == "boot":
                    values[item.name] = device.boot
                elif item.model == "iso-clock":
                    values[item.name] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ts_ms / 1000))
                elif item.model == "clock":
                    ticks = ts_ms / 1000 * item.rate
                    values[item.name] = round(ticks, item.decimals) if item.decimals else round(ticks)
                else:
                    values[item.name] = readings.get(names[item.name])
            if stream.format == "json":
                payload = json_bytes(_nested(values))
            else:
                value = next(iter(values.values()))
                payload = value.encode() if isinstance(value, str) else json_bytes(value)
                if stream.format == "base64":
                    payload = decoded(str(value))
            messages.append(Message(_fill(stream.topic, device), payload, stream.qos, stream.retain))
        return messages


def _fill(text: str, device: Speaker) -> str:
    return text.replace("{id}", device.id).replace("{name}", device.name)


def _nested(values: Mapping[str, object]) -> object:
    """The JSON with those values at their paths."""
    top: dict[str, Any] = {}
    for path, value in values.items():
        inner = top
        *levels, last = re.findall(r"(?:\\.|[^.\\])+", path) or [path]
        for level in levels:
            if not isinstance(inner.get(level), dict):
                inner[level] = {}
            inner = inner[level]
        inner[last] = value
    return _with_arrays(top)


def _with_arrays(value: object) -> object:
    if not isinstance(value, dict):
        return value
    if value and all(re.fullmatch(r"\[\d+\]", key) for key in value):
        return [_with_arrays(item) for item in value.values()]
    return {re.sub(r"\\(.)", r"\1", key): _with_arrays(item) for key, item in value.items()}

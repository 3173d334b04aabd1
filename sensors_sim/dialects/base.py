"""What every dialect is: in which topics and payloads a device speaks.

Commands to a simulated device go to ``sensors/<id>/cmd`` whatever it speaks. The other modules hold a dialect each,
after the documentation of its project, which its class names.
"""

# ruff: noqa: ARG002  not every dialect needs every argument

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol

from sensors_sim import payloads
from sensors_sim.kind import Readings
from sensors_sim.messages import Message
from sensors_sim.model.electricity import Meter

MARKS = "sensors-sim"
"""Topics that begin with it say of one device each that it is simulated."""

SIMULATED = b'{"simulated":true}'


class Speaker(Protocol):
    """What a dialect knows of the device that speaks it."""

    id: str
    interval: float
    """Seconds between readings."""
    seq: int
    boot: int
    fields: Mapping[str, Mapping[str, object] | None]
    """Field to what differs from ``payloads.FIELDS``."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def kind_name(self) -> str:
        """Such as ``climate``."""

    @property
    def model(self) -> str:
        """What hardware it is."""

    @property
    def runs_on_battery(self) -> bool:
        """Whether its kind sleeps between readings, where interval and dialect let it."""

    @property
    def sleeps(self) -> bool:
        """Whether it leaves the broker between readings."""

    @property
    def meter(self) -> Meter | None:
        """What counts its energy, if anything does."""

    def uptime(self, ts_ms: int) -> int:
        """Whole seconds since the start of the simulation."""

    def meta_payload(self) -> bytes:
        """Its description of itself in this project's form."""


class Dialect:
    """What a device publishes, and when."""

    name: ClassVar[str]
    knows_sleep: ClassVar[bool] = False
    """Whether a battery device may leave without being thought dead."""

    def topics(self, device: Speaker) -> list[str]:
        """Topic filters that cover all that the device publishes, and as little else as can be."""
        raise NotImplementedError

    def mark(self, device: Speaker) -> Message | None:
        """What says on a topic of its own that the device is simulated; None where its birth says so."""
        return Message(f"{MARKS}/{device.id}", SIMULATED, 1, True)

    def will(self, device: Speaker) -> Message | None:
        """What the broker publishes when the device dies."""
        raise NotImplementedError

    def birth(self, device: Speaker) -> list[Message]:
        """What the device says about itself each time it has connected."""
        raise NotImplementedError

    def readings(self, device: Speaker, readings: Readings, ts_ms: int) -> list[Message]:
        """What it says of one measurement, taken at ``ts_ms`` milliseconds since 1970."""
        raise NotImplementedError

    def description(self, device: Speaker) -> list[Message]:
        """What of its birth changes with its interval."""
        return []

    def sleep(self, device: Speaker) -> list[Message]:
        """What it says before it goes to sleep."""
        return []

    def death(self, device: Speaker) -> list[Message]:
        """What it says when it leaves of its own will."""
        will = self.will(device)
        return [will] if will is not None else []

    def fleet_topics(self) -> list[str]:
        """Topic filters of the bridge in front of all devices; its mark is ``sensors-sim/<dialect>``."""
        return []

    def fleet_birth(self, devices: Iterable[Speaker]) -> list[Message]:
        """What a bridge in front of all devices says."""
        return []

    def fleet_death(self) -> list[Message]:
        """What that bridge says when it stops."""
        return []


def as_float(value: object) -> float:
    """A number, and 0 for what is none."""
    return float(value) if isinstance(value, (int, float)) else 0.0


def whole(value: object, default: int) -> int:
    """A rounded number, and ``default`` for what is none or not finite."""
    return round(value) if isinstance(value, (int, float)) and math.isfinite(value) else default


def rounded(value: object, decimals: int) -> float:
    """A number with so many decimals."""
    return round(as_float(value), decimals)


def tidy(field: str, value: object) -> object:
    """A number with as many decimals as the field has, everything else as it is."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and field in payloads.FIELDS:
        decimals = payloads.FIELDS[field][4]
        return round(value, decimals) if decimals else round(value)
    return value


def plain(field: str, value: object) -> bytes:
    """A value as text without JSON around it."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and field in payloads.FIELDS:
        return payloads.number_text(value, payloads.FIELDS[field][4]).encode()
    return payloads.json_text(value).encode()


def json_bytes(value: object) -> bytes:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def mac(device_id: str, separator: str = "") -> str:
    """A made-up, locally administered address for a device."""
    digest = bytearray(hashlib.sha256(device_id.encode()).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return separator.join(f"{byte:02X}" for byte in digest) if separator else digest.hex()


def label(text: str) -> str:
    """A field's name for people."""
    words = text.replace("_", " ")
    return words[:1].upper() + words[1:]

"""What goes wrong with a device: with its readings, its messages, its clock and its connection.

One invariant: a fault never changes what the device would have measured without it, only what becomes of it. So the
same seed shows the same room with and without faults.

It leaves to others: cutting the connection (``fleet`` tells ``runner``).
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from gateway.core.durations import parse_duration
from sensors_sim import checks
from sensors_sim.messages import Message


class FaultKind(Enum):
    """What can go wrong."""

    DROP_OUT = "drop-out"
    """Nothing is published; the connection stays."""
    STUCK = "stuck"
    """The value at the start of the fault is repeated."""
    SPIKE = "spike"
    """``size`` is added or taken away."""
    DRIFT = "drift"
    """``size`` per hour is added."""
    NOISE = "noise"
    """Normal noise with a standard deviation of ``size`` is added."""
    CLOCK_SKEW = "clock-skew"
    """``ts`` is wrong by ``size`` seconds."""
    DUPLICATE = "duplicate"
    """Messages are published twice."""
    OUT_OF_ORDER = "out-of-order"
    """Messages change places with the next ones."""
    MALFORMED = "malformed"
    """The payload is broken JSON, or a bare value with something strange in it."""
    REBOOT = "reboot"
    """Power fails shortly: will, then back with ``boot`` + 1 and ``seq`` 0."""
    CRASH = "crash"
    """The socket is cut so that the will fires; back after the fault with ``boot`` + 1."""
    FLAPPING = "flapping"
    """The connection breaks and returns, ``size`` seconds for both; readings of the gaps come late."""


LINK_FAULTS = frozenset({FaultKind.REBOOT, FaultKind.CRASH, FaultKind.FLAPPING})
VALUE_FAULTS = frozenset({FaultKind.STUCK, FaultKind.SPIKE, FaultKind.DRIFT, FaultKind.NOISE})

CRASH_SECONDS = 30.0
FLAPPING_SECONDS = 60.0
FLAPPING_PERIOD = 10.0
CLOCK_SKEW_SECONDS = -120.0

SHORTEST_PERIOD_SECONDS = 0.1
"""How short ``every``, and the period of flapping, may be: shorter ones leave the model no time for the others."""

LARGEST_SIZE = 1e9
"""How large ``size`` may be, up and down: 32 years of a clock, and more than any sensor shows."""

SCALES = {
    "temperature": 5.0,
    "humidity": 12.0,
    "co2": 400.0,
    "pressure": 8.0,
    "illuminance": 4000.0,
    "moisture": 10.0,
    "pm25": 25.0,
    "tvoc": 200.0,
    "power": 400.0,
    "voltage": 10.0,
    "vibration": 1.5,
    "latitude": 0.01,
    "longitude": 0.01,
}
"""What is a lot for a field; without ``size``, a spike is four times this, a drift 0.4 an hour, noise 0.3."""

MAX_FAULTS = 100
"""How many commands may leave a device with; each is asked at each reading."""

_BY_DEFAULT = {FaultKind.SPIKE: 4.0, FaultKind.DRIFT: 0.4, FaultKind.NOISE: 0.3}


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """One fault as described.

    Without ``after``, ``every`` and ``probability`` it lasts from the start, for ``duration``.
    """

    kind: FaultKind
    field: str | None = None
    """Which field; None: all that are numbers for stuck, else the first."""
    size: float | None = None
    """See the kinds; None: what is usual for the field."""
    after: float = 0.0
    """Seconds from the start of the fleet to its first occurrence."""
    every: float | None = None
    """Seconds from one occurrence to the next; None: it occurs once."""
    duration: float | None = None
    """Seconds that an occurrence lasts; None: for ever, or for one reading with ``probability``."""
    probability: float | None = None
    """That it occurs at a reading."""

    @classmethod
    def parse(cls, described: Mapping[str, object], kind_key: str = "kind") -> "FaultSpec":
        """Read what a fleet file or a command says: ``{"kind": "stuck", "field": "co2", "for": "5m"}``.

        Raises:
            ValueError: A name is unknown or a value is wrong.
        """
        known = (kind_key, "field", "size", "after", "every", "for", "probability")
        checks.known_names(checks.table(described, "fault"), known, "fault")
        try:
            kind = FaultKind(described.get(kind_key))
        except ValueError:
            kinds = ", ".join(kind.value for kind in FaultKind)
            raise ValueError(f"unknown fault {checks.shown(described.get(kind_key))}: known are {kinds}") from None
        field = described.get("field")
        if field is not None and not isinstance(field, str):
            raise ValueError(f"fault {kind.value}: field is a text, not {field!r}")
        size = _number(kind, "size", described, LARGEST_SIZE)
        if kind is FaultKind.FLAPPING and size is not None and size < SHORTEST_PERIOD_SECONDS:
            raise ValueError(f"fault flapping: size, its period, is at least {SHORTEST_PERIOD_SECONDS:g} seconds")
        probability = _number(kind, "probability", described)
        if probability is not None and not 0 < probability <= 1:
            raise ValueError(f"fault {kind.value}: probability is over 0 and at most 1, not {probability:g}")
        every = parse_duration(described["every"]) if "every" in described else None
        if every is not None and every < SHORTEST_PERIOD_SECONDS:
            raise ValueError(f"fault {kind.value}: every is at least {SHORTEST_PERIOD_SECONDS:g} seconds")
        if probability is not None and every is not None:
            raise ValueError(f"fault {kind.value}: every and probability exclude each other")
        duration = parse_duration(described["for"]) if "for" in described else None
        return cls(kind, field, size, parse_duration(described.get("after", 0)), every, duration, probability)


class Fault:
    """One fault of one device, in time.

    Args:
        spec: What it is.
        start: Model time from which ``after`` counts.
        rng: The device's generator for faults.
    """

    def __init__(self, spec: FaultSpec, start: float, rng: random.Random) -> None:
        self.spec = spec
        self._start = start
        self._rng = rng
        self._struck_at: float | None = None
        self._until = -math.inf
        self._captured_at: float | None = None
        self._captured: dict[str, object] = {}

    @property
    def lasts(self) -> float:
        """Seconds that an occurrence of a link fault lasts."""
        if self.spec.duration is not None:
            return self.spec.duration
        return {FaultKind.CRASH: CRASH_SECONDS, FaultKind.FLAPPING: FLAPPING_SECONDS}.get(self.spec.kind, 0.0)

    def next_occurrence(self, after: float) -> float:
        """Model time of the first scheduled occurrence later than ``after``; infinity when there is none."""
        spec = self.spec
        if spec.probability is not None:
            return math.inf
        first = self._start + spec.after
        if after < first:
            return first
        if spec.every is None:
            return math.inf
        number = math.floor((after - first) / spec.every) + 1
        # Rounding may give the occurrence that has just been, and it would come again and again.
        while first + number * spec.every <= after:
            number += 1
        return first + number * spec.every

    def strikes(self) -> bool:
        """Whether a fault with a probability occurs now. Asked once a reading, it draws one number."""
        return self.spec.probability is not None and self._rng.random() < self.spec.probability

    def since(self, t: float) -> float | None:
        """Since when it has been going on at ``t``, None when it isn't. Asked once a reading."""
        spec = self.spec
        if spec.probability is not None:
            if t < self._until:
                return self._struck_at
            if t < self._start + spec.after or not self.strikes():
                return None
            self._struck_at = t
            self._until = t + (spec.duration or 0.0)
            return t
        first = self._start + spec.after
        if t < first:
            return None
        occurrence = first if spec.every is None else first + math.floor((t - first) / spec.every) * spec.every
        if spec.duration is not None and t - occurrence >= spec.duration:
            return None
        return occurrence

    def is_over(self, t: float) -> bool:
        """Whether it will not occur again."""
        spec = self.spec
        if spec.every is not None or spec.probability is not None or spec.duration is None:
            return False
        return t >= self._start + spec.after + spec.duration

    def alter(self, readings: dict[str, object], t: float, since: float) -> None:
        """Change readings in place, as a fault of a sensor does."""
        spec = self.spec
        if spec.kind is FaultKind.STUCK:
            if self._captured_at != since:
                self._captured_at = since
                self._captured = dict(readings)
            names = [spec.field] if spec.field else [n for n, v in readings.items() if _is_number(v)]
            for name in names:
                if name in readings and name in self._captured:
                    readings[name] = self._captured[name]
            return
        field = spec.field or next((name for name, value in readings.items() if _is_number(value)), None)
        value = readings.get(field) if field else None
        if field is None or not isinstance(value, (int, float)) or isinstance(value, bool):
            return
        size = spec.size
        if size is None:
            size = SCALES.get(field, 0.1 * abs(value) + 1) * _BY_DEFAULT[spec.kind]
        if spec.kind is FaultKind.SPIKE:
            readings[field] = value + (size if self._rng.random() < 0.5 else -size)
        elif spec.kind is FaultKind.DRIFT:
            readings[field] = value + size * (t - since) / 3600
        else:
            readings[field] = value + self._rng.gauss(0, size)

    def garble(self, message: Message) -> Message:
        """The message with a payload that no reader can take for a reading; never an empty one.

        An object or array loses its end or a quote, or gets a NaN or a stray byte. A bare value gets a stray byte or
        text: cut short it would be another value, and an empty payload erases a retained message.
        """
        payload = message.payload
        way = self._rng.randrange(4)
        at = self._rng.randrange(len(payload) + 1)
        if not payload.startswith((b"{", b"[")):
            payload = (b"ERR:" + payload) if way == 0 else payload[:at] + (b"\xff" if way == 1 else b"?") + payload[at:]
        elif way == 1 and b'"' in payload:
            payload = payload.replace(b'"', b"", 1)
        elif way == 2 and b":" in payload:
            head, _, tail = payload.rpartition(b":")
            payload = head + b":NaN" + (tail[-1:] if tail.endswith((b"}", b"]")) else b"")
        elif way == 3:
            payload = payload[:at] + b"\xff" + payload[at:]
        else:
            payload = payload[: max(1, at - 1)]
        return message._replace(payload=payload)


class Faults:
    """All faults of one device.

    Args:
        specs: As described.
        start: Model time of the fleet's start.
        rng: A generator that nothing else draws from.
    """

    def __init__(self, specs: tuple[FaultSpec, ...], start: float, rng: random.Random) -> None:
        self._rng = rng
        self._faults = [Fault(spec, start, rng) for spec in specs]
        self._held: list[Message] = []

    def __bool__(self) -> bool:
        return bool(self._faults or self._held)

    def add(self, spec: FaultSpec, t: float) -> None:
        """Begin a fault at ``t``, as a command asks; where there are too many, the oldest ends."""
        self._faults = [*self._faults[1 - MAX_FAULTS :], Fault(spec, t, self._rng)]

    def clear(self, kind: FaultKind | None) -> None:
        """End all faults of that kind; None: all."""
        self._faults = [fault for fault in self._faults if kind is not None and fault.spec.kind is not kind]

    @property
    def names(self) -> list[str]:
        """The kinds, for people."""
        return [fault.spec.kind.value for fault in self._faults]

    def next_link_fault(self, after: float) -> tuple[float, Fault | None]:
        """When the next scheduled fault of the connection comes, and which it is."""
        best, which = math.inf, None
        for fault in self._faults:
            if fault.spec.kind in LINK_FAULTS:
                at = fault.next_occurrence(after)
                if at < best:
                    best, which = at, fault
        return best, which

    def struck_link_fault(self) -> Fault | None:
        """A fault of the connection that this reading's chance has brought."""
        struck = [fault for fault in self._faults if fault.spec.kind in LINK_FAULTS and fault.strikes()]
        return struck[0] if struck else None

    def alter(self, readings: dict[str, object], t: float) -> tuple[list[Fault], float]:
        """Apply what concerns readings and clock at ``t``.

        Returns:
            Faults of messages that are going on, and what to add to ``ts`` in seconds.
        """
        others = []
        skew = 0.0
        for fault in self._faults:
            kind = fault.spec.kind
            if kind in LINK_FAULTS:
                continue
            since = fault.since(t)
            if since is None:
                continue
            if kind in VALUE_FAULTS:
                fault.alter(readings, t, since)
            elif kind is FaultKind.CLOCK_SKEW:
                skew += CLOCK_SKEW_SECONDS if fault.spec.size is None else fault.spec.size
            else:
                others.append(fault)
        if any(fault.is_over(t) for fault in self._faults):
            self._faults = [fault for fault in self._faults if not fault.is_over(t)]
        return others, skew

    def pass_on(self, messages: list[Message], going_on: list[Fault]) -> list[Message]:
        """What becomes of messages under the faults that ``alter`` returned."""
        swaps = False
        for fault in going_on:
            match fault.spec.kind:
                case FaultKind.DROP_OUT:
                    return []
                case FaultKind.MALFORMED:
                    messages = [fault.garble(message) for message in messages]
                case FaultKind.DUPLICATE:
                    messages = [message for message in messages for _ in range(2)]
                case FaultKind.OUT_OF_ORDER:
                    swaps = True
        held, self._held = self._held, []
        if swaps and not held:
            self._held = messages
            return []
        return messages + held


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(
    kind: FaultKind, name: str, described: Mapping[str, object], largest: float = checks.LARGEST
) -> float | None:
    value = described.get(name)
    return None if value is None else checks.number(value, f"fault {kind.value}: {name}", -largest, largest)

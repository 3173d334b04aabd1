"""A fleet of simulated devices as a pure, seeded model: time goes in, events come out.

One invariant: the same seed, devices, start and commands give the same events, whatever the speed and however late they
are asked for. Time is the model's own (``climate``); nothing here reads a clock or opens a socket.

It leaves to others: carrying events to a broker (``mqtt``), and waiting (``runner``).
"""

import heapq
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from sensors_sim import payloads
from sensors_sim.dialects import Native
from sensors_sim.kinds import KINDS, Setting, World, setting_generator
from sensors_sim.messages import Message
from sensors_sim.noise import unit_hash

logger = logging.getLogger(__name__)

FIRMWARE = "sensors-sim 1"

SEEDED_START = 1_772_434_800.0
"""Where the model's clock starts when a seed is given and no start: Monday, 2 March 2026, 7:00."""

REBOOT_SECONDS = 3.0
"""How long a restart takes until the device is back on the broker."""

NAMES = (
    ("Living room", "living"),
    ("Kitchen", "kitchen"),
    ("Bedroom", "bedroom"),
    ("Bathroom", "bathroom"),
    ("Study", "study"),
    ("Child's room", "child"),
    ("Office", "office"),
    ("Meeting room", "meeting"),
    ("Cellar", "cellar"),
    ("Greenhouse", "greenhouse"),
)
"""Places of a fleet that is only counted, in turn, with their room profiles."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One device as described."""

    id: str
    kind: str
    name: str
    place: str = ""
    """Devices of the same place share a room; empty: a room of its own."""
    room: str = ""
    """Profile of the room; empty: the kind's."""
    interval: float | None = None
    """Seconds between readings; None: the kind's."""
    options: Mapping[str, object] = field(default_factory=dict)


class Change(Enum):
    """What happens to a device's connection."""

    JOIN = "join"
    """It connects (again)."""
    CUT = "cut"
    """Its socket is cut without DISCONNECT, so that the broker publishes its will."""


class Event(NamedTuple):
    """A message to publish, or a change of the connection."""

    device: "Device"
    what: Message | Change


class Device:
    """One simulated device.

    Args:
        spec: What it is.
        world: Where it is.
        interval: Seconds between readings.
        start: Model time of its start; the first reading follows within an interval.
    """

    def __init__(self, spec: DeviceSpec, world: World, interval: float, start: float, ts_offset: float) -> None:
        if not payloads.is_valid_id(spec.id):
            raise ValueError(f"device id {spec.id!r}: only a-z, 0-9, '_' and '-'")
        if spec.kind not in KINDS:
            raise ValueError(f"device {spec.id}: unknown kind {spec.kind!r}: known are {', '.join(KINDS)}")
        self.spec = spec
        self.id = spec.id
        self.kind = KINDS[spec.kind]
        self.interval = interval
        self.state_topic = payloads.state_topic(spec.id)
        self.cmd_topic = payloads.cmd_topic(spec.id)
        self.dialect = Native()
        self.seq = 0
        self.connected = True
        self._ts_offset = ts_offset
        rng = setting_generator(world.seed, spec.id)
        self.boot = rng.randint(1, 40)
        self._phase_key = rng.getrandbits(64)
        place = spec.place or spec.id
        self._read = self.kind.make(
            Setting(spec.id, place, spec.room or self.kind.room, interval, world, spec.options, rng)
        )
        self._next_reading = start + interval * unit_hash(self._phase_key, 0)
        self._back_at: float | None = None

    @property
    def next_time(self) -> float:
        """Model time of what it does next."""
        return self._next_reading if self._back_at is None else self._back_at

    def meta_payload(self) -> bytes:
        """Its description of itself."""
        return payloads.meta_payload(
            self.spec.name,
            self.kind.model,
            FIRMWARE,
            self.interval if self.interval != int(self.interval) else int(self.interval),
            dict(self.kind.fields),
            simulated=True,
            extra={"place": self.spec.place} if self.spec.place else None,
        )

    def wake(self, t: float) -> list[Event]:
        """What it does at ``t``, which is its ``next_time``."""
        if self._back_at is not None:
            self._back_at = None
            self._next_reading = t + self.interval * unit_hash(self._phase_key, self.boot)
            return [Event(self, Change.JOIN)]
        readings = self._read(t)
        messages = self.dialect.readings(self, readings, round((t + self._ts_offset) * 1000))
        self.seq += 1
        self._next_reading = t + self.interval
        return [Event(self, message) for message in messages]

    def command(self, payload: bytes, t: float) -> list[Event]:
        """Obey a command at ``t``.

        Raises:
            ValueError: It is none.
        """
        command = payloads.parse_command(payload)
        events: list[Event] = []
        if "interval" in command:
            self.interval = float(command["interval"])  # type: ignore[arg-type]
            self._next_reading = t + self.interval
            events.append(Event(self, Message(payloads.meta_topic(self.id), self.meta_payload(), 1, True)))
        if "reboot" in command:
            events += self.reboot(t)
        return events

    def reboot(self, t: float) -> list[Event]:
        """Lose power at ``t`` and come back with ``boot`` + 1 and ``seq`` 0."""
        self.boot += 1
        self.seq = 0
        self._back_at = t + REBOOT_SECONDS
        return [Event(self, Change.CUT)]


class Fleet:
    """All devices and the order in which they act.

    Args:
        specs: The devices.
        seed: Of everything random.
        start: Model time of the start.
        ts_offset: Seconds to add to model time for the ``ts`` of readings.
        interval: Seconds between readings, for all; None: each device's own.

    Raises:
        ValueError: A device is described wrongly, or two have the same id.
    """

    def __init__(
        self, specs: list[DeviceSpec], seed: int, start: float, *, ts_offset: float = 0.0, interval: float | None = None
    ) -> None:
        self.world = World(seed, start)
        self.start = start
        self.devices: dict[str, Device] = {}
        for spec in specs:
            if spec.id in self.devices:
                raise ValueError(f"two devices have the id {spec.id!r}")
            kind = KINDS.get(spec.kind)
            every = interval or spec.interval or (kind.interval if kind else 10.0)
            self.devices[spec.id] = Device(spec, self.world, every, start, ts_offset)
        self._by_topic = {device.cmd_topic: device for device in self.devices.values()}
        self._heap = [(device.next_time, number, device) for number, device in enumerate(self.devices.values())]
        self._numbers = {device.id: number for _, number, device in self._heap}
        heapq.heapify(self._heap)

    @property
    def next_time(self) -> float:
        """Model time of the next event."""
        return self._heap[0][0] if self._heap else float("inf")

    def take(self, until: float) -> Iterator[Event]:
        """Events up to ``until``, in order of time."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            t, number, device = heap[0]
            if device.next_time != t:  # a command has moved it, and left another entry
                heapq.heappop(heap)
                continue
            events = device.wake(t)
            heapq.heapreplace(heap, (device.next_time, number, device))
            yield from events

    def command(self, topic: str, payload: bytes, t: float) -> list[Event]:
        """Hand a message of ``sensors/<id>/cmd`` to its device at model time ``t``.

        A command that makes no sense is logged, as a board would print it.
        """
        device = self._by_topic.get(topic)
        if device is None:
            return []
        try:
            events = device.command(payload, t)
        except ValueError as error:
            logger.warning("%s: %s", device.id, error)
            return []
        heapq.heappush(self._heap, (device.next_time, self._numbers[device.id], device))
        return events


def counted_fleet(count: int) -> list[DeviceSpec]:
    """``count`` room sensors named ``sim-1``, ``sim-2``, …, in rooms of different kinds."""
    specs = []
    for number in range(1, count + 1):
        name, room = NAMES[(number - 1) % len(NAMES)]
        turn = (number - 1) // len(NAMES)
        specs.append(DeviceSpec(f"sim-{number}", "climate", name if turn == 0 else f"{name} {turn + 1}", room=room))
    return specs

"""A fleet of simulated devices as a pure, seeded model: time goes in, events come out.

One invariant: the same seed, devices, start and commands give the same events, whatever the speed and however late they
are asked for. Time is the model's own (``model``); nothing here reads a clock or opens a socket.

It leaves to others: carrying events to a broker (``links``), and waiting (``runner``).

It is long because a device and its fleet share one clock, one world and one order of events.
"""

import heapq
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from sensors_sim import checks, payloads
from sensors_sim.custom import CustomSpec, checked_topic
from sensors_sim.dialects.all import DIALECTS
from sensors_sim.dialects.base import MARKS, Dialect
from sensors_sim.dialects.raw import Raw
from sensors_sim.faults import FLAPPING_PERIOD, FaultKind, Faults, FaultSpec
from sensors_sim.kind import Setting
from sensors_sim.kinds import KINDS, setting_generator
from sensors_sim.messages import Message
from sensors_sim.model.electricity import Meter
from sensors_sim.model.noise import generator, unit_hash
from sensors_sim.model.world import Site, World

logger = logging.getLogger(__name__)

FIRMWARE = "sensors-sim 1"

SEEDED_START = 1_772_434_800.0
"""Where the model's clock starts when a seed is given and no start: Monday, 2 March 2026, 7:00."""

REBOOT_SECONDS = 3.0
"""How long a restart takes until the device is back on the broker."""

FIRST_READING_SECONDS = 10.0
"""A device that is switched on reads within this time, however long its interval is."""

SHORTEST_INTERVAL_SECONDS = 0.001
"""The shortest time between two readings. Below about 1e-7 s the clock, a 64-bit float, would not advance from one
reading to the next, and a single device would hold up the whole fleet."""

SHORTEST_SLEEP_SECONDS = 30.0
"""A device that reads more often than this stays on the broker, even if it is of a kind that sleeps."""

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

MAX_ID_CHARACTERS = 200

FAULT_COMMANDS = ("fault", "field", "size", "after", "every", "for", "probability", "clear")


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
    faults: tuple[FaultSpec, ...] = ()
    dialect: str = ""
    """Empty: the fleet's."""


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """A fleet as described."""

    devices: tuple[DeviceSpec, ...]
    title: str = ""
    site: Site = field(default_factory=Site)

    def resized(self, count: int) -> "FleetSpec":
        """The same with ``count`` devices: the first ones, or all and lookalikes in places of their own."""
        devices = list(self.devices[:count])
        turn = 2
        while len(devices) < count:
            for spec in self.devices[: count - len(devices)]:
                place = f"{spec.place}-{turn}" if spec.place else ""
                copy = replace(spec, id=f"{spec.id}-{turn}", name=f"{spec.name} {turn}", place=place)
                if spec.kind == "custom":  # its name may stand in its topics
                    copy = replace(copy, name=f"{spec.name}-{turn}", options={**spec.options, "vary": True})
                devices.append(copy)
            turn += 1
        return replace(self, devices=tuple(devices))


class Change(Enum):
    """What happens to a device's connection."""

    JOIN = "join"
    """It connects (again)."""
    LEAVE = "leave"
    """It disconnects in order, once everything that it published has arrived."""
    CUT = "cut"
    """Its socket is cut without DISCONNECT, so that the broker publishes its will; what was on its way is lost."""
    OUTAGE = "outage"
    """The same, but the device lives on and keeps what it could not send."""


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
        dialect: What it speaks unless its description says otherwise.

    Raises:
        ValueError: It is described wrongly.
    """

    def __init__(self, spec: DeviceSpec, world: World, interval: float, dialect: str = "native") -> None:
        if not payloads.is_valid_id(spec.id) or len(spec.id) > MAX_ID_CHARACTERS:
            allowed = f"only a-z, 0-9, '_' and '-', at most {MAX_ID_CHARACTERS}"
            raise ValueError(f"device id {checks.shown(spec.id)}: {allowed}")
        if spec.kind not in KINDS:
            raise ValueError(f"unknown kind {spec.kind!r}: known are {', '.join(KINDS)}")
        self.spec = spec
        self.id = spec.id
        self.kind = KINDS[spec.kind]
        unknown = sorted(set(spec.options) - self.kind.options)
        if unknown:
            known = ", ".join(sorted(self.kind.options)) or "none"
            raise ValueError(f"kind {spec.kind!r} has no option {unknown[0]!r}: known are {known}")
        self.interval = _checked_interval(interval)
        self.cmd_topic = payloads.cmd_topic(spec.id)
        self.seq = 0
        self.place = spec.place or spec.id
        self._world = world
        rng = setting_generator(world.seed, spec.id)
        self.boot = rng.randint(1, 40)
        self._phase_key = rng.getrandbits(64)
        self._start = world.start
        setting = Setting(spec.id, self.place, spec.room or self.kind.room, world, spec.options, rng)
        self.fields: Mapping[str, Mapping[str, object] | None] = dict(self.kind.fields_of(setting))
        self._read = self.kind.make(setting)
        self.dialect = self._dialect_of(dialect)
        if isinstance(self.dialect, Raw):
            for topic in self.dialect.topics(self):
                checked_topic(topic)
        self.faults = Faults(spec.faults, world.start, generator(world.seed, "faults", spec.id))
        self._down_by: FaultKind | None = None
        """What took its power; None while it has it."""
        self._next_reading = world.start + min(interval, FIRST_READING_SECONDS) * unit_hash(self._phase_key, 0)
        self._back_at = math.inf
        self._next_flap = math.inf
        self._flaps_until = -math.inf
        self._flap_period = FLAPPING_PERIOD
        self._link_fault_at, self._link_fault = self.faults.next_link_fault(math.nextafter(world.start, -math.inf))
        self.connected = not self.sleeps
        self.next_time = 0.0
        """Model time of what it does next."""
        self._plan()

    def _dialect_of(self, of_fleet: str) -> Dialect:
        if self.kind.dialect == Raw.name:
            return Raw(CustomSpec.parse(self.spec.options))
        name = self.spec.dialect or of_fleet
        if name not in DIALECTS:
            raise ValueError(f"unknown dialect {name!r}: known are {', '.join(DIALECTS)}")
        return DIALECTS[name]

    @property
    def name(self) -> str:
        """For people."""
        return self.spec.name

    @property
    def kind_name(self) -> str:
        """Such as ``climate``."""
        return self.kind.name

    @property
    def model(self) -> str:
        """What hardware it is."""
        return self.kind.model

    @property
    def runs_on_battery(self) -> bool:
        """Whether its kind sleeps between readings, where interval and dialect let it."""
        return self.kind.sleeps

    @property
    def sleeps(self) -> bool:
        """Whether it leaves the broker between readings."""
        return self.kind.sleeps and self.dialect.knows_sleep and self.interval >= SHORTEST_SLEEP_SECONDS

    @property
    def client_id(self) -> str:
        """Of its own MQTT client."""
        return f"sensors-sim-{self.id}"

    def meta_payload(self) -> bytes:
        """Its description of itself."""
        return payloads.meta_payload(
            self.spec.name,
            self.kind.model,
            FIRMWARE,
            self.interval if self.interval != int(self.interval) else int(self.interval),
            self.fields,
            simulated=True,
            extra={"place": self.spec.place} if self.spec.place else None,
        )

    def uptime(self, ts_ms: int) -> int:
        """Whole seconds since the start of the simulation, for dialects that tell it."""
        return max(0, int(ts_ms / 1000 - self._world.ts_offset - self._start))

    @property
    def meter(self) -> Meter | None:
        """What counts its energy, if anything does."""
        return self._world.meters.get(self.id)

    def wake(self, t: float) -> list[Event]:
        """What it does at ``t``, which is its ``next_time``."""
        if t == self._back_at:
            events = self._come_back(t)
        elif t == self._link_fault_at:
            fault = self._link_fault
            self._link_fault_at, self._link_fault = self.faults.next_link_fault(t)
            events = self._break(fault.spec, fault.lasts, t) if fault is not None and self._down_by is None else []
        elif t == self._next_flap:
            events = self._flap(t)
        else:
            events = self._take_reading(t)
        self._plan()
        return events

    def command(self, payload: bytes, t: float) -> list[Event]:
        """Obey a command at ``t``.

        Raises:
            ValueError: It is none.
        """
        command = payloads.parse_command(payload, also=FAULT_COMMANDS)
        described = {name: value for name, value in command.items() if name in FAULT_COMMANDS and name != "clear"}
        fault = FaultSpec.parse(described, "fault") if described else None
        kind = self._kind_to_clear(command["clear"]) if "clear" in command else None
        interval = _checked_interval(float(command["interval"])) if "interval" in command else None  # type: ignore[arg-type]
        events: list[Event] = []
        if "clear" in command:
            self.faults.clear(kind)
            self._mend_link(kind, t)
        if fault is not None:
            self.faults.add(fault, t)
        if interval is not None:
            events += self._set_interval(interval, t)
        if "reboot" in command and self._down_by is None:
            events += self._break(FaultSpec(FaultKind.REBOOT), 0.0, t)
        # A fault that begins at once begins now, and "after now" would miss it.
        after = math.nextafter(t, -math.inf) if fault is not None else t
        self._link_fault_at, self._link_fault = self.faults.next_link_fault(after)
        self._plan()
        return events

    def _set_interval(self, interval: float, t: float) -> list[Event]:
        slept = self.sleeps
        self.interval = interval
        messages = self.dialect.description(self)
        if self._down_by is not None:
            return [Event(self, message) for message in messages]
        self._next_reading = t + interval
        if not slept or self.sleeps:
            return [Event(self, message) for message in messages]
        # It said that it sleeps, and may be on its way out.
        return [Event(self, Change.JOIN), *(Event(self, message) for message in self.dialect.birth(self))]

    def _kind_to_clear(self, value: object) -> FaultKind | None:
        if value is True:
            return None
        try:
            return FaultKind(value)
        except ValueError:
            raise ValueError(f"clear takes true or the name of a fault, not {value!r}") from None

    def _mend_link(self, kind: FaultKind | None, t: float) -> None:
        """End what a fault of the connection began, if it is of that kind; None: of any."""
        if kind in (None, FaultKind.FLAPPING):
            self._next_flap, self._flaps_until = math.inf, -math.inf
            if self._down_by is None and self._back_at < math.inf:
                self._back_at = t
        if self._down_by is not None and kind in (None, self._down_by):
            self._back_at = t

    def _plan(self) -> None:
        self.next_time = min(self._next_reading, self._back_at, self._link_fault_at, self._next_flap)

    def _take_reading(self, t: float) -> list[Event]:
        readings = self._read(t)
        ts_ms = round((t + self._world.ts_offset) * 1000)
        self._next_reading = t + self.interval
        if not self.faults:
            messages = self.dialect.readings(self, readings, ts_ms)
            self.seq += 1
            if not self.sleeps:
                return [Event(self, message) for message in messages]
            return self._nap(messages)
        going_on, skew = self.faults.alter(readings, t)
        messages = self.dialect.readings(self, readings, ts_ms + round(skew * 1000))
        self.seq += 1
        messages = self.faults.pass_on(messages, going_on)
        events = self._nap(messages) if self.sleeps else [Event(self, message) for message in messages]
        fault = self.faults.struck_link_fault()
        if fault is not None:
            events += self._break(fault.spec, fault.lasts, t)
        return events

    def _nap(self, messages: list[Message]) -> list[Event]:
        """Wake up, publish, and go to sleep again."""
        events = [Event(self, Change.JOIN)]
        events += [Event(self, message) for message in messages]
        events += [Event(self, message) for message in self.dialect.sleep(self)]
        events.append(Event(self, Change.LEAVE))
        return events

    def _break(self, spec: FaultSpec, lasts: float, t: float) -> list[Event]:
        if spec.kind is FaultKind.FLAPPING:
            self._flap_period = spec.size or FLAPPING_PERIOD
            self._flaps_until = t + lasts
            return self._flap(t)
        self.boot += 1
        self.seq = 0
        self._down_by = spec.kind
        self._next_reading = math.inf
        self._next_flap, self._flaps_until = math.inf, -math.inf
        self._back_at = t + (REBOOT_SECONDS if spec.kind is FaultKind.REBOOT else lasts)
        return [Event(self, Change.CUT)]

    def _flap(self, t: float) -> list[Event]:
        self._next_flap = math.inf
        if t >= self._flaps_until:
            return []
        self._back_at = t + self._flap_period / 2
        return [Event(self, Change.OUTAGE)]

    def _come_back(self, t: float) -> list[Event]:
        self._back_at = math.inf
        if self._down_by is not None:
            self._down_by = None
            delay = min(self.interval, FIRST_READING_SECONDS) * unit_hash(self._phase_key, self.boot)
            self._next_reading = t + delay
        elif t + self._flap_period / 2 < self._flaps_until:
            self._next_flap = t + self._flap_period / 2
        return [] if self.sleeps else [Event(self, Change.JOIN)]


def _checked_interval(seconds: float) -> float:
    if not seconds >= SHORTEST_INTERVAL_SECONDS:
        raise ValueError(f"interval is at least {SHORTEST_INTERVAL_SECONDS:g} seconds, not {seconds:g}")
    return seconds


class Fleet:
    """All devices and the order in which they act.

    Args:
        spec: The devices and their site.
        seed: Of everything random.
        start: Model time of the start.
        ts_offset: Seconds to add to model time for the ``ts`` of readings.
        interval: Seconds between readings, for all; None: each device's own.
        dialect: What devices speak whose description doesn't say.
        part: Which part of how many acts here, from 0; all devices are made in every part, so that what they share is
            the same.

    Attributes:
        devices: All, by id.
        acting: Those of this part.

    Raises:
        ValueError: Devices are described wrongly, or two have the same id; the text has a line for each.
    """

    def __init__(
        self,
        spec: FleetSpec,
        seed: int,
        start: float,
        *,
        ts_offset: float = 0.0,
        interval: float | None = None,
        dialect: str = "native",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.part = part
        self.world = World(seed, start, spec.site)
        self.world.ts_offset = ts_offset
        self.start = start
        self.devices: dict[str, Device] = {}
        problems = []
        for described in spec.devices:
            try:
                if described.id in self.devices:
                    raise ValueError("another device has this id")
                kind = KINDS.get(described.kind)
                every = interval or described.interval or (kind.interval if kind else 10.0)
                self.devices[described.id] = Device(described, self.world, every, dialect)
            except ValueError as error:
                problems.append(f"device {described.id!r}: {error}")
        if problems:
            raise ValueError("\n".join(problems))
        self.acting = list(self.devices.values())[part[0] :: part[1]]
        self._by_topic = {device.cmd_topic: device for device in self.acting}
        self._heap = [(device.next_time, number, device) for number, device in enumerate(self.acting)]
        self._numbers = {device.id: number for _, number, device in self._heap}
        heapq.heapify(self._heap)

    def wants(self, prefix: str = "") -> tuple[dict[str, str], dict[str, str]]:
        """Filters of what all devices publish, and the topics where each says that it is simulated, with its name."""
        wanted: dict[str, str] = {}
        marks: dict[str, str] = {}
        for device in self.devices.values():
            mark = device.dialect.mark(device)
            marks[prefix + (mark.topic if mark else payloads.meta_topic(device.id))] = device.id
            wanted |= {prefix + topic: device.id for topic in device.dialect.topics(device)}
        for dialect in {device.dialect.name: device.dialect for device in self.devices.values()}.values():
            if dialect.fleet_topics():
                marks[f"{prefix}{MARKS}/{dialect.name}"] = MARKS
                wanted |= {prefix + topic: MARKS for topic in dialect.fleet_topics()}
        return wanted, marks

    def statuses(self, prefix: str = "") -> dict[str, frozenset[bytes]]:
        """Status topics with what stands there while their device is not on the broker."""
        found = {}
        for device in self.devices.values():
            speaks, will = device.dialect, device.dialect.will(device)
            if will is not None:
                away = [will, *speaks.death(device), *speaks.sleep(device)]
                found[prefix + will.topic] = frozenset(message.payload for message in away)
        return found

    def prepare(self) -> None:
        """Let the rooms of the acting devices live through the time before the start: better before than during."""
        for place in {device.place for device in self.acting}:
            room = self.world.room_at(place)
            if room is not None:
                room.at(self.start)

    @property
    def next_time(self) -> float:
        """Model time of the next event."""
        return self._heap[0][0] if self._heap else math.inf

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
        before = device.next_time
        try:
            events = device.command(payload, t)
        except ValueError as error:
            logger.warning("%s: %s", device.id, error)
            return []
        if device.next_time != before:
            heapq.heappush(self._heap, (device.next_time, self._numbers[device.id], device))
        return events


def counted_fleet(count: int) -> FleetSpec:
    """``count`` room sensors named ``sim-1``, ``sim-2``, …, in rooms of different kinds."""
    specs = []
    for number in range(1, count + 1):
        name, room = NAMES[(number - 1) % len(NAMES)]
        turn = (number - 1) // len(NAMES)
        specs.append(DeviceSpec(f"sim-{number}", "climate", name if turn == 0 else f"{name} {turn + 1}", room=room))
    return FleetSpec(tuple(specs))

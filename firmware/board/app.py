"""The sensor: measures, publishes, listens to commands.

One invariant: the watchdog is fed only while every part has lately proved that it works: the sensors by a finished
round of measurements, the link by an answer of the broker or by an attempt that failed within its time limits.

It leaves to others: how a measurement is made (drivers), how messages reach the broker (mqtt.py), what they look like
(payloads.py, which the simulator uses too), wakings between sleeps (battery.py), and everything that only a real board
has (hardware.py).

It is long because measuring and commands share what is due, and each further module costs a board memory.
"""

import asyncio
import gc
import sys
import time

import payloads
import slots

from . import DELIVERED, NAME, VERSION, drivers, mqtt
from .clock import Clock, ClockError
from .logs import Log
from .ticks import const, ticks_add, ticks_diff, ticks_ms
from .wifi import Wifi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Coroutine

FIRMWARE = NAME + " " + VERSION
_RESYNC_SECONDS = const(6 * 3600)  # an ESP32's crystal drifts by less than a second in that time
_WINDOW_MS = const(2000)  # for Ctrl-C, or for settings over the serial line, after every restart
_ROOM_BYTES = const(24_000)  # free: then a command may bring a certificate
_COMMAND_BYTES, _SHORT_BYTES = const(6144), const(2048)
_BOTH = const(2)  # messages for Home Assistant: what is measured, and how the board is
_TRIES_WITHOUT_MEMORY = const(5)  # to measure and to keep it, in a row, before the board restarts
_PAGE_FAILURES = const(3)  # to join a network that the page was told, before the board goes back

RESTART, SLEEP, PORTAL = "restart", "sleep", "portal"


class Source:
    """One sensor, the names that its fields are published under, and its last error.

    Attributes:
        name: The driver's name, or the label given in the settings; what `meta` lists its errors under.
        names: Field of the driver to published field.
        error: None when the last reading was good.
    """

    def __init__(self, sensor: drivers.Sensor, name: str) -> None:
        self.sensor = sensor
        self.name = name
        self.names: "dict[str, str]" = {}
        self.error: "str | None" = None
        self._started = False
        self._read_at: "int | None" = None

    async def read(self) -> "dict[str, float]":
        """Readings under their published names; empty when it failed, or when it is too early for a new one."""
        now = ticks_ms()
        if self._read_at is not None:
            if ticks_diff(now, self._read_at) < self.sensor.minimum_interval_seconds * 1000:
                return {}
        self._read_at = now
        try:
            values: "dict[str, float]" = await asyncio.wait_for(self._measure(), self.sensor.limit_seconds)
        except asyncio.TimeoutError:
            self.error = "no reading within %g s" % self.sensor.limit_seconds
        except Exception as error:  # one sensor's trouble must not be the others'
            self.error = mqtt.describe(error)
        else:
            self.error = None
            return {self.names[field]: values[field] for field in values}
        self._started = False  # it may have been unplugged: set it up again next time
        return {}

    async def _measure(self) -> "dict[str, float]":
        if not self._started:
            await self.sensor.start()
            self._started = True
        return await self.sensor.read()


def make_sources(specs: "list[dict[str, Any]]", board: "Any", reserved: "tuple[str, ...]" = ()) -> "list[Source]":
    """The sensors of the settings, with names that are different from each other's.

    The first sensor that measures something publishes it under its plain name, a second one as temperature_2, one with
    a label as outdoor_temperature.
    """
    sources: "list[Source]" = []
    taken = ["rssi"] + list(reserved)
    for spec in specs:
        sensor = drivers.create(spec, board)
        label = spec.get("label")
        source = Source(sensor, _free(label or sensor.kind, [other.name for other in sources]))
        for field in sensor.fields:
            plain = _plain(field)
            published = _free(label + "_" + plain if label else plain, taken)
            source.names[field] = published
            taken.append(published)
        sources.append(source)
    return sources


def _free(name: str, taken: "list[str]") -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate = "%s_%d" % (name, number)
        number += 1
    return candidate


def _plain(field: str) -> str:
    """Without the number that tells probes apart."""
    name, _, number = field.rpartition("_")
    return name if name and number.isdigit() else field


def make_wifi(
    settings: "dict[str, Any]",
    board: "Any",
    sensor_id: str,
    log: "Callable[[str], None]",
    warn: "Callable[[str], None]",
) -> "Wifi | None":
    """The way into the networks of the settings; None where the network is not ours to start."""
    wifi = settings["wifi"]
    if wifi is None:
        return None
    password, static = wifi.get("password") or "", wifi.get("static")
    return Wifi(
        board.wlan(sensor_id), wifi["ssid"], password, static=static, second=settings["wifi2"], log=log, warn=warn
    )


class Progress:
    """When each part last proved that it works.

    Args:
        limits: Part to the longest time in seconds that it may take for a proof.
    """

    def __init__(self, limits: "dict[str, float]") -> None:
        self.limits = limits
        self._marks = {part: ticks_ms() for part in limits}

    def mark(self, part: str) -> None:
        """The part has proved itself now."""
        self._marks[part] = ticks_ms()

    def late(self) -> "list[str]":
        """The parts without proof for longer than their limit."""
        now = ticks_ms()
        return [part for part in self.limits if ticks_diff(now, self._marks[part]) > self.limits[part] * 1000]


class App:
    """One life of the sensor, from a start to a restart or a deep sleep.

    Args:
        settings: As `settings.load` gives them.
        board: See hardware.py.
        log: Takes one line of text.
    """

    def __init__(self, settings: "dict[str, Any]", board: "Any", log: "Callable[[str], None]" = print) -> None:
        self.settings = settings
        self.board = board
        self.id = settings["id"] or board.id()
        self.outputs: "Any" = None
        if settings["outputs"]:
            from .outputs import Outputs  # before all else: pins get their safe values

            self.outputs = Outputs(settings["outputs"], board)
        names = tuple(spec["name"] for spec in settings["outputs"])
        self.sources = make_sources(settings["sensors"], board, names)
        self.interval = board.load_interval() or settings["interval"]
        self.battery = settings["profile"] == "battery"
        self.sleep_ms = 0
        self.needs_portal = False  # before the board sleeps
        self.notes: "dict[str, str]" = {}  # errors that are no sensor's
        self.trial = slots.on_trial()
        self.build = slots.load()["build"]
        failed = slots.failed()
        if failed:
            self.notes["update"] = "back to the program before: " + failed
        self.changed, failed = _changes("on_trial"), _changes("failed")
        if failed:
            self.notes["settings"] = "back to the settings before: " + failed
        self.by_page = _changes("by_page")  # somebody waits beside the board
        self.updating: "Any" = None  # an Updater while a new program comes
        self.update_task: "Any" = None

        memory = board.recall()
        self.memory = memory
        self.boot = memory.get("boot") or board.count_boot()
        self.seq = memory.get("seq", 0)
        self.dropped_before = memory.get("dropped", 0)

        self.clock = Clock(settings["ntp"], board.set_time)
        self.log = Log(self.id, log, board, self.boot, self.clock.now_ms, settings["log_level"])
        self.heap_lowest: "int | None" = None
        self.charge: float = 100  # of the battery, in %, where a sensor measures it
        self.wifi = make_wifi(settings, board, self.id, self.log, self.log.trouble)
        self.client = self._make_client()

        watchdog = settings["watchdog"] or 3600
        # the longest attempt to connect that keeps all its limits: Wi-Fi, TCP, CONNACK, then a pause
        attempt = (self.wifi.limit_seconds if self.wifi else 0) + 2 * settings["timeout"] + 60 + 10
        self.progress = Progress({"sensors": watchdog * 2 / 3, "link": max(watchdog * 2 / 3, attempt)})

        self._state_topic = payloads.state_topic(self.id)  # one text for all the readings that wait
        self._first: "mqtt.Message | None" = None  # the reading whose delivery is to be told
        self._told_first = False
        self._told_dropped = 0
        self._discovery_due = 0  # messages for Home Assistant that have to be sent yet
        self._telling: "int | None" = None  # checksum of the meta that waits for its acknowledgement, on a battery
        self._outcome: "str | None" = None
        self._finished = asyncio.Event()
        self.retime = asyncio.Event()
        for source in self.sources:
            source.sensor.changed = self.retime.set  # type: ignore[method-assign]
        self._answered_at = ticks_ms()
        self._network_at = board.uptime_seconds()
        self._errors: "dict[str, str]" = {}
        self._fields = [source.sensor.fields for source in self.sources]
        self._tuned = [dict(source.sensor.tuned or {}) for source in self.sources]

    def _make_client(self) -> mqtt.Client:
        broker = self.settings["mqtt"]
        host, port, tls = mqtt.parse_url(broker["url"])
        context = None
        if tls:
            try:
                with open(broker["ca"], "rb") as file:
                    context = mqtt.tls_context(file.read())
            except (OSError, ValueError) as error:
                raise ValueError("no certificate in %s (%s)" % (broker["ca"], mqtt.describe(error))) from None
        client = mqtt.Client(
            host,
            port,
            client_id="sensor-" + self.id,
            username=broker.get("username") or None,
            password=broker.get("password") or None,
            tls=context,
            will=mqtt.Message(payloads.status_topic(self.id), payloads.OFFLINE.encode(), 1, True),
            keepalive_seconds=self.settings["keepalive"],
            timeout_seconds=self.settings["timeout"],
            ring=mqtt.Ring(self.settings["buffer_messages"], self.settings["buffer_bytes"]),
            births=self.births,
            on_message=self._on_message,
            on_progress=self._on_progress,
            ready=self._network,
            log=self.log,
            warn=self.log.trouble,
        )
        client.subscribe(payloads.cmd_topic(self.id))
        return client

    # -- what is published

    def fields(self) -> "dict[str, dict[str, Any] | None]":
        """Published field to what payloads.FIELDS can't know of it, as meta_payload takes them."""
        fields: "dict[str, dict[str, Any] | None]" = {}
        for source in self.sources:
            for field in source.sensor.fields:
                published = source.names[field]
                # a name of ours is described like the one that it came from: temperature_2 like temperature
                fields[published] = None if published in payloads.FIELDS else payloads.field_meta(_plain(field))
        if self.outputs is not None:
            fields.update(self.outputs.fields())
        if self.wifi is not None:
            fields["rssi"] = None
        return fields

    def errors(self) -> "dict[str, str]":
        """Sensor, or part of the program, to its present error."""
        errors = {source.name: source.error for source in self.sources if source.error is not None}
        errors.update(self.notes)
        return errors

    def _describe(self) -> "tuple[str, str]":
        model = self.board.model() + " + " + ", ".join(source.sensor.model for source in self.sources)
        return self.settings["name"] or self.id, model

    def meta(self) -> mqtt.Message:
        """The retained description of the sensor."""
        name, model = self._describe()
        extra: "dict[str, object]" = {"profile": self.settings["profile"], "started_by": self.board.cause()}
        if self.build:
            extra["build"] = self.build
        if self.trial or self.changed:
            extra["trial"] = True
        if self.settings["revision"]:
            extra["revision"] = self.settings["revision"]
        tuned = {source.name: source.sensor.tuned for source in self.sources if source.sensor.tuned}
        if tuned:
            extra["tuned"] = tuned
        self._told_dropped = self.client.ring.dropped
        dropped = self.dropped_before + self._told_dropped
        if dropped:
            extra["dropped"] = dropped
        if self.client.connects > 1:
            extra["reconnects"] = self.client.connects - 1
        payload = payloads.meta_payload(
            name,
            model,
            FIRMWARE,
            self.interval,
            self.fields(),
            simulated=any(source.sensor.simulated for source in self.sources),
            errors=self.errors(),
            extra=extra,
        )
        return mqtt.Message(payloads.meta_topic(self.id), payload, 1, True)

    def births(self) -> "list[mqtt.Message]":
        """What is said after every connect, ahead of all readings."""
        has_room = self.board.heap()[0] > _ROOM_BYTES
        self.client.max_packet_bytes = _COMMAND_BYTES if has_room else _SHORT_BYTES
        messages = [self._status(payloads.ONLINE)]
        if self.settings["diag"]:
            messages.append(self.diag())
        messages.insert(1, self.meta())  # made last: it counts what was dropped until then
        self._discovery_due = _BOTH if self.settings["discovery"] else 0
        return messages

    def diag(self) -> mqtt.Message:
        """How the board is, retained."""
        return mqtt.Message(
            payloads.diag_topic(self.id), payloads.json_text(once("diag", "report", self)).encode(), 1, True
        )

    def _tell_log(self) -> None:
        """Hand lines of the log over, as many as may be under way; they go ahead of readings, and once only."""
        waiting = self.log.waiting
        while waiting and self.client.say(mqtt.Message(self.log.topic, waiting[0], 0)):
            waiting.pop(0)

    def announce(self, changed: bool) -> None:
        """Publish `meta` again; what Home Assistant must know follows when the interval or the fields have changed."""
        if not self.client.connected:
            return  # `births` will say it
        self._telling = None  # the checksum is that of an older one: the next waking tells it again
        self.memory.pop("meta", None)
        self.client.announce(self.meta())
        if changed and self.settings["discovery"]:
            self._discovery_due = _BOTH

    def _status(self, status: str) -> mqtt.Message:
        return mqtt.Message(payloads.status_topic(self.id), status.encode(), 1, True)

    def _discovery(self) -> mqtt.Message:
        gc.collect()
        name, model = self._describe()
        fields = self.fields()
        more = self.outputs.components() if self.outputs is not None else {}
        for output in more:
            del fields[output]
        parts = payloads.discovery_parts(
            self.id,
            name,
            model,
            FIRMWARE,
            self.interval,
            fields,
            always_listens=not self.battery,
            more=more,
        )
        return mqtt.Message(payloads.discovery_topic(self.id), parts, 1, True)

    def _discovery_of_itself(self) -> mqtt.Message:
        """What Home Assistant is told of the board; a message of its own, as both together take twice the memory."""
        gc.collect()
        topic, parts = once("entities", "message", self)
        return mqtt.Message(topic, parts, 1, True)

    async def measure(self) -> "bytes | None":
        """One round over all sensors: a state payload, None when there is nothing to say."""
        ts_ms = self.clock.now_ms()
        readings: "dict[str, object]" = {}
        for source in self.sources:
            values = await source.read()
            if "battery" in values:
                self.charge = values["battery"]
            for name in values:  # payloads.py does not know the decimals of names that are ours
                readings[name] = values[name] if name in payloads.FIELDS else round(values[name], 2)
        self._tell_changes()
        if self.outputs is not None:
            readings.update(self.outputs.readings())
        if not readings:
            return None
        rssi = self.wifi.rssi() if self.wifi is not None else None
        if rssi is not None:
            readings["rssi"] = rssi
        payload = payloads.state_payload(readings, self.seq, self.boot, ts_ms=ts_ms)
        self.seq += 1
        return payload

    def _tell_changes(self) -> None:
        """Publish `meta` again when an error came or went, or a sensor turned out to have other fields."""
        errors, fields = self.errors(), [source.sensor.fields for source in self.sources]
        tuned = [dict(source.sensor.tuned or {}) for source in self.sources]
        if errors == self._errors and fields == self._fields and tuned == self._tuned:
            return
        self._tuned = tuned
        for name in errors:
            if self._errors.get(name) != errors[name]:
                self.log.trouble("%s: %s" % (name, errors[name]))
        changed = fields != self._fields
        self._errors, self._fields = errors, fields
        self.announce(changed)

    def _publish(self, reading: bytes) -> None:
        if self.log.level == "debug":
            self.log.detail("reading: " + reading.decode())
        if self.client.publish(self._state_topic, reading) and self._first is None and not self._told_first:
            self._first = self.client.ring.messages[-1]

    # -- what is heard

    def _on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        if topic.endswith("/piece"):
            if self.updating is not None:
                self.updating.piece(payload)
            return
        try:
            self.announce(once("commands", "take", self, payload, retained))
        except MemoryError:
            gc.collect()
            self.note("cmd", "there was no memory for it: send it again")

    def note(self, part: str, text: str) -> None:
        """Tell of a trouble that is no sensor's, in the log and in `meta`, until it is over."""
        self.log.trouble("%s: %s" % ("command" if part == "cmd" else part, text))
        self.notes[part] = text
        self.announce(False)

    def supervise(self, name: str, part: "Coroutine[Any, Any, None]") -> "asyncio.Task[None]":
        """Let a part of the program run; when it ends by an error, so does this life."""
        return asyncio.create_task(self._supervised(name, part))

    def _confirm(self) -> None:
        """What is on trial has reached the broker, which has answered it."""
        if self.trial:
            slots.confirm()
            self.log("update: %s has proved itself" % VERSION)
        if self.changed:
            _changes("confirm")
            self.log("settings: changed, for the %d. time" % self.settings["revision"])
        self.trial = self.changed = False
        self.announce(False)

    def _on_progress(self, what: str) -> None:
        if what == "memory":
            del self.log.waiting[: (len(self.log.waiting) + 1) // 2]  # their numbers tell of it
            return
        self.progress.mark("link")
        if (self.trial or self.changed) and what == "acknowledged" and self.client.listens():
            self._confirm()
        if what == "acknowledged" and self.client.waiting() < self.client.window:
            # the largest messages by far: they are made when those before have gone and left room
            if self._discovery_due and not self.client.ahead():
                try:
                    first = self._discovery_due == _BOTH
                    self.client.announce(self._discovery() if first else self._discovery_of_itself())
                    self._discovery_due -= 1
                except MemoryError:  # no room in one piece: with the next acknowledgement there may be
                    gc.collect()
            elif self.client.ring.dropped != self._told_dropped:  # some more went before the broker answered
                self.announce(False)
        if what != "attempt":
            self._answered_at = ticks_ms()
            self._tell_log()
        if what == "acknowledged" and self._first is not None and self._first not in self.client.ring.messages:
            if not self.client.ring.dropped:  # otherwise it may be one of those: none is told then
                self._told_first = True
                self.log(DELIVERED + self._first.whole().decode())
            self._first = None

    async def _network(self) -> bool:
        if self.wifi is not None and not await self.wifi.ready():
            return False
        if self.client.tls is not None and self.clock.host and self.clock.now_ms() is None:
            # certificates have dates: without the time they can't be checked
            await self._ask_time()
        return True

    async def _ask_time(self) -> bool:
        try:
            await self.clock.sync()
        except (OSError, ClockError) as error:
            self.log.trouble("clock: " + mqtt.describe(error))
            return False
        self.memory["synced"] = self.clock.now_ms()
        return True

    # -- the life of a sensor on the mains

    def finish(self, outcome: str) -> None:
        """End this life soon: RESTART, SLEEP or PORTAL."""
        if self._outcome is None:
            self._outcome = outcome
        self._finished.set()

    def _greet(self) -> None:
        self.log("%s: %s, boot %d, started by %s" % (self.id, FIRMWARE, self.boot, self.board.cause()))

    async def run(self) -> str:
        """Live until there is a reason not to.

        Returns:
            RESTART, or PORTAL: with an access point, then a restart.
        """
        self._greet()
        if self.settings["watchdog"] or self.trial or self.changed:  # on trial it runs already, see main.py
            self.board.start_watchdog((self.settings["watchdog"] or 360) / 3)
        parts = {
            "link": self.client.run(),
            "sensors": self._sample(),
            "clock": self._keep_time(),
            "watchdog": self._watch(),
            "diag": self._tell_diag(),
        }
        tasks = [self.supervise(name, parts[name]) for name in parts]
        await self._finished.wait()
        self._tell_log()
        self.client.ring.push(self._status(payloads.OFFLINE))
        await self.client.close(self.settings["timeout"])
        for task in tasks:
            task.cancel()
        return self._outcome or RESTART

    async def _supervised(self, name: str, part: "Coroutine[Any, Any, None]") -> None:
        try:
            await part
        except Exception as error:  # a bug: say it, and start afresh rather than live on without this part
            self.finish(RESTART)  # before it is told: there may be no memory for that
            print_exception(error)
            self.log("%s ended: %s" % (name, mqtt.describe(error)), "error")

    async def _sample(self) -> None:
        due, without_memory = ticks_ms(), 0
        while True:
            try:
                payload = await self.measure()
                if payload is not None:
                    self._publish(payload)
                without_memory = 0
            except (
                MemoryError
            ):  # what waits for the broker makes room: this reading and the older half of them are lost
                without_memory += 1
                if without_memory > _TRIES_WITHOUT_MEMORY:
                    raise
                self.client.ring.dropped += 1
                self.client.ring.halve()
                self._on_progress("memory")
            self.progress.mark("sensors")
            gc.collect()
            interval_ms = int(self.interval * 1000)
            due = ticks_add(due, interval_ms)
            if ticks_diff(due, ticks_ms()) < -interval_ms:
                due = ticks_ms()  # a round took longer than the interval: what was missed stays missed
            while True:
                left = ticks_diff(due, ticks_ms())
                try:
                    await asyncio.wait_for(self.retime.wait(), max(0, min(left, 5000)) / 1000)
                    self.retime.clear()
                    due = ticks_ms()
                    break
                except asyncio.TimeoutError:
                    self.progress.mark("sensors")
                    self.board.uptime_seconds()
                    if left <= 5000:
                        break

    async def _keep_time(self) -> None:
        delay: float = 5
        while self.clock.host:
            network = self.wifi is None or await self.wifi.ready()
            if network and await self._ask_time():
                self.log("clock: set")
                delay = _RESYNC_SECONDS
            await asyncio.sleep(delay)
            delay = min(delay * 2, 3600)

    async def _tell_diag(self) -> None:
        while self.settings["diag"]:
            await asyncio.sleep(self.settings["diag"])
            self.client.announce(self.diag())

    async def _watch(self) -> None:
        pause = min(5, (self.settings["watchdog"] or 60) / 12, (self.settings["ap_after"] or 20) / 4)
        told = False
        while True:
            late = self.progress.late()
            if not late:
                self.board.feed()
            elif not told:
                self.log.trouble("watchdog: no progress of %s; the board will reset" % ", ".join(late))
            told = bool(late)
            if self._outcome is None:
                self._judge_networks()
            if self.outputs is not None:
                for name in self.outputs.make_safe(ticks_diff(ticks_ms(), self._answered_at) / 1000):
                    self.log("output: %s is at its safe value: no answer from the broker" % name)
            limit = self.settings["reboot_after"]
            if limit and ticks_diff(ticks_ms(), self._answered_at) > limit * 1000 and self._outcome is None:
                self.log.trouble("link: no answer from the broker for %g s" % limit)
                self.finish(RESTART)
            await asyncio.sleep(pause)

    def _judge_networks(self) -> None:
        """Go back from what is on trial when its time is over; open the access point after long without a network.

        Both come sooner when somebody has told the page of a network that can't be joined.
        """
        now, wifi = self.board.uptime_seconds(), self.wifi
        limit, failures = self.settings["ap_after"], 0
        if wifi is not None and self.by_page and not wifi.joins:
            failures = wifi.failures // (2 if wifi.second else 1)
        if self.trial or self.changed:
            self._network_at = now
            if now > self.settings["trial"]:
                self._give_up("it did not reach the broker within %g s" % self.settings["trial"])
            elif wifi is not None and failures >= _PAGE_FAILURES:
                self._give_up("no network was joined: %s" % wifi.reason)
        elif wifi is None or wifi.wlan.isconnected():
            self._network_at = now
        elif limit and (failures or now - self._network_at >= limit):
            self.log.trouble("wifi: no network for %d s: the access point opens" % (now - self._network_at))
            self.finish(PORTAL)

    def _give_up(self, why: str) -> None:
        self.log.trouble("trial: " + why)
        if self.trial:
            slots.back(why)
        if self.changed:
            _changes("back", why)
        self.finish(RESTART)


def print_exception(error: BaseException) -> None:
    """The traceback, on the console."""
    printer = getattr(sys, "print_exception", None)  # MicroPython
    if printer is None:
        printer = __import__("traceback").print_exception
    printer(error)


def load_settings() -> "dict[str, Any]":
    """The settings; what checks them is needed once and then makes room, as a board's memory is small."""
    from . import settings

    given = _changes("begin")
    if given is not None:
        try:
            loaded = settings.complete(given)
        except ValueError as error:  # of a program that knew other settings
            _changes("back", str(error))
            given = None
    if given is None:
        loaded = settings.load()
    forget("settings")
    return loaded


def listen(board: "Any", log: "Callable[[str], None]", is_called: bool) -> bool:
    """Talk over the serial line; whether the board must restart then; see improv.py."""
    from . import improv

    return improv.listen(board, log, is_called)


def is_called() -> bool:
    """Whether somebody at the serial line speaks Improv; see line.py."""
    from . import line

    called = line.is_called(_WINDOW_MS)
    forget("line")
    return called


def once(module: str, what: str, *arguments: "Any") -> "Any":
    """Do what a function of another module does, which makes room again."""
    package = __name__.rsplit(".", 1)[0]
    try:
        return getattr(__import__(package + "." + module, None, None, (what,)), what)(*arguments)
    finally:
        forget(module)


def _changes(what: str, *arguments: "Any") -> "Any":
    return once("changes", what, *arguments)


def forget(module: str) -> None:
    """Make room: a module that is needed once goes."""
    package, _, name = (__name__.rsplit(".", 1)[0] + "." + module).rpartition(".")
    sys.modules.pop(package + "." + name, None)
    if hasattr(sys.modules[package], name):
        delattr(sys.modules[package], name)
    gc.collect()


def make_app(settings: "dict[str, Any]", board: "Any", log: "Callable[[str], None]") -> App:
    """The sensor that the settings ask for; only the one on a battery has the code for its wakings in memory."""
    if settings["profile"] == "battery":
        from .battery import Waking

        return Waking(settings, board, log)
    return App(settings, board, log)


async def _life(
    settings: "dict[str, Any]", board: "Any", log: "Callable[[str], None]"
) -> "tuple[str, int, dict[str, Any] | None]":
    """One life of the sensor.

    A coroutine of its own: MicroPython keeps all that a frame has ever held for as long as the frame is there.

    Returns:
        How it ended, how many milliseconds of sleep follow, and what the access point must know where it is to open.
    """
    app = make_app(settings, board, log)
    outcome = await app.run()
    opening = None
    if outcome == PORTAL or app.needs_portal:
        from . import after

        opening = after.opening(app)
    return outcome, app.sleep_ms, opening


def run() -> None:
    """What main.py calls: live, then restart or sleep; return to the prompt after Ctrl-C."""
    from .hardware import Board

    board = Board()
    started = ticks_ms()

    def log(line: str) -> None:
        print("%9.3f %s" % (ticks_diff(ticks_ms(), started) / 1000, line))

    outcome, sleep_ms = RESTART, 0
    try:
        if not board.woke_up():
            print("Ctrl-C within two seconds gives the prompt")
        if board.woke_up() or not is_called():
            settings = load_settings()
            outcome, sleep_ms, opening = asyncio.run(_life(settings, board, log))
            if opening is not None:
                from . import after

                if asyncio.run(after.open_portal(settings, board, log, **opening)) or outcome == PORTAL:
                    outcome = RESTART
        else:
            listen(board, log, True)
    except KeyboardInterrupt:
        board.relax_watchdog()
        print("stopped; Ctrl-D starts again")
        return
    except ValueError as error:  # settings that can't be used do not get better by restarting
        if slots.on_trial():
            raise  # but the program before could use them
        print("%s\nrun sensors-flash again, or correct settings.json; or give settings over this line" % error)
        try:
            if not listen(board, log, False):
                return
        except KeyboardInterrupt:
            print("stopped; Ctrl-D starts again")
            return
    except Exception as error:
        print_exception(error)
        if slots.on_trial():
            raise
        print("the board restarts in ten seconds")
        time.sleep(10)
    if outcome == SLEEP:
        log("sleeping for %d ms" % sleep_ms)
        board.sleep(sleep_ms)
    else:
        log("restarting")
        board.restart()

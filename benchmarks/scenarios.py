"""The scenarios, and how one is run: which processes, in which order, and what is read when."""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from benchmarks.processes import (
    HOST,
    BenchmarkError,
    Cores,
    Gateway,
    Mosquitto,
    Process,
    StandIn,
    processor_seconds,
    resident_bytes,
    scratch_directory,
)
from benchmarks.profiling import Attached, Profile
from benchmarks.publisher import TIMES

Server = Literal["mosquitto", "gateway", "aiomqtt"]

KIB = 1024
HISTORY_MESSAGES_PER_TOPIC = 1000
WINDOW_MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is loaded with what.

    Attributes:
        name: S0 to S11.
        title: one line for the table.
        subscribers: connections.
        rate: messages a second that are published, over all devices.
        devices: topics; messages go to them in turn.
        per_device: each subscriber has the topic of one device (in turn) instead of all of them.
        query: added to the gateway's URL.
        slow_share: part of the subscribers that read at `slow_speed` of the stream's bytes.
        envelopes: every frame is parsed, because messages are meant to be skipped.
        held: connections that are opened in the end, to see that they are held and served.
        fill_history: publish until every topic's history is full, before anything is measured.
        warm_up: seconds at the rate before the measurement.
        payload_bytes: 130, or 16 without the time of publishing; the stand-in's have 75.
        qos: at which messages are published. Mosquitto's own subscribers get them at QoS 0, as the gateway's do.
        receive_bytes: receive buffer of each subscriber; 0 leaves it to the system, which on loopback, where segments
            have 64 KiB, gives room for two.
        stand_in: a stand-in takes the place of broker and publisher, where Mosquitto would be the bottleneck.
        servers: what is measured.
    """

    name: str
    title: str
    subscribers: int
    rate: float
    devices: int = 20
    per_device: bool = False
    query: str = "since=now"
    slow_share: float = 0.0
    slow_speed: float = 0.01
    envelopes: bool = False
    held: int = 0
    fill_history: bool = False
    warm_up: float = 2.0
    payload_bytes: int = 130
    qos: int = 0
    receive_bytes: int = 0
    stand_in: bool = False
    servers: tuple[Server, ...] = ("mosquitto", "gateway")

    def scaled(self, scale: float) -> Scenario:
        """Return the scenario with `scale` times the subscribers, at least one."""
        count = max(1, round(self.subscribers * scale))
        return replace(self, subscribers=count, held=round(self.held * scale))


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("S0", "10 subscribers of everything, 50 messages/s", 10, 50),
        Scenario("S1", "200 subscribers of everything, 200 messages/s", 200, 200),
        Scenario("S2", "200 subscribers of everything, 2,000 messages/s", 200, 2000),
        Scenario(
            "S3",
            "1,000 subscribers of one device each, 100 devices, 2,000 messages/s",
            1000,
            2000,
            100,
            per_device=True,
        ),
        Scenario(
            "S4", "5,000 subscribers of one topic each, 100 topics, 100 messages/s", 5000, 100, 100, True, held=10_000
        ),
        Scenario("S5", "one subscriber, as fast as it goes without loss", 1, 0, servers=("aiomqtt", "gateway")),
        Scenario(
            "S6", "2,000 subscribers gone and back at once, 1,000 messages behind", 2000, 50, servers=("gateway",)
        ),
        Scenario(
            name="S7",
            title="S2 with a tenth of the subscribers reading at 1 % speed",
            subscribers=200,
            rate=2000,
            slow_share=0.1,
            fill_history=True,
            warm_up=12,  # until the sockets of the slow ones are as full as they get
            servers=("gateway",),
        ),
        Scenario(
            name="S8",
            title="S2 with max_hz=5 for all",
            subscribers=200,
            rate=2000,
            query="since=now&max_hz=5",
            envelopes=True,
            servers=("gateway",),
        ),
        Scenario(
            name="S8/1",
            title="S8 with one viewer",
            subscribers=1,
            rate=2000,
            query="since=now&max_hz=5",
            envelopes=True,
            servers=("gateway",),
        ),
        Scenario(
            name="S9",
            title="100,000 messages/s to one subscriber",
            subscribers=1,
            rate=100_000,
            devices=100,
            payload_bytes=75,
            receive_bytes=1 << 20,
            stand_in=True,
            servers=("gateway",),
        ),
        Scenario(
            name="S10",
            title="S9 at QoS 1",
            subscribers=1,
            rate=100_000,
            devices=100,
            payload_bytes=75,
            receive_bytes=1 << 20,
            qos=1,
            stand_in=True,
            servers=("gateway",),
        ),
        Scenario(
            name="S11",
            title="5 topics at 50/s each, 16 bytes at QoS 1, to 1,000 subscribers of all",
            subscribers=1000,
            rate=250,
            devices=5,
            payload_bytes=16,
            qos=1,
        ),
    )
}


@dataclass(slots=True)
class Result:
    """What one run of a scenario against one server gave. Times are in the unit of the name; None is not measured."""

    scenario: str
    server: Server
    seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    broker_cpu_seconds: float | None = None
    load_cpu_share: float = 0.0
    published: int = 0
    deliveries: int = 0
    lost: int = 0
    repeated: int = 0
    closed: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    kib_per_connection: float | None = None
    memory_growth_mib: float | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def cpu_us_per_delivery(self) -> float:
        """Processor time of the server per delivery, in microseconds."""
        return 1e6 * self.server_cpu_seconds / max(1, self.deliveries)

    @property
    def cpu_us_per_message(self) -> float:
        """Processor time of the server per published message, in microseconds."""
        return 1e6 * self.server_cpu_seconds / max(1, self.published)

    @property
    def deliveries_per_second(self) -> float:
        """Deliveries per second of the measured time."""
        return self.deliveries / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Bench:
    """Runs scenarios on this machine.

    Attributes:
        seconds: length of the measured part of each run.
        gateway_environment: settings of the gateway, such as `GATEWAY_FLUSH_INTERVAL`.
        profile: a tool to attach to the server while it is measured; None is none.
    """

    seconds: float
    cores: Cores
    gateway_environment: dict[str, str] = field(default_factory=dict)
    profile: Profile | None = None

    def run(self, scenario: Scenario, server: Server) -> Result:
        """Run a scenario once against one server.

        Raises:
            BenchmarkError: something did not start, or fewer subscribers came through than there should be.
        """
        with ExitStack() as stack:
            rig = Rig(self, scenario, server, stack)
            if server == "aiomqtt":
                return rig.bare_sink()
            if scenario.name == "S5":
                return rig.as_fast_as_it_goes()
            if scenario.name == "S6":
                return rig.gone_and_back()
            return rig.steady()


class Rig:
    """The processes of one run."""

    def __init__(self, bench: Bench, scenario: Scenario, server: Server, stack: ExitStack) -> None:
        self.bench = bench
        self.scenario = scenario
        self.server_name = server
        self.stack = stack
        self.result = Result(scenario.name, server)
        self.directory = stack.enter_context(scratch_directory())
        cores = bench.cores
        core = cores.server if server == "mosquitto" else cores.broker
        self.broker: Mosquitto | StandIn
        self.broker = (StandIn if scenario.stand_in else Mosquitto)(self.directory, core)
        stack.enter_context(self.broker)
        self.server: Process = self.broker
        self.port = self.broker.port if isinstance(self.broker, StandIn) else self.broker.websocket_port
        if server == "gateway":
            gateway = Gateway(self.directory, cores.server, self.broker.port, bench.gateway_environment)
            self.server, self.port = stack.enter_context(gateway), gateway.port
        self.published = 0
        self.publisher: Process = self.broker
        if not scenario.stand_in:
            program = [sys.executable, "-m", "benchmarks.publisher", HOST, str(self.broker.port)]
            self.publisher = Process("publisher", program, self.directory, cores.publisher, piped=True)
            stack.enter_context(self.publisher)
        self.load = stack.enter_context(
            Process("load", [sys.executable, "-m", "benchmarks.subscribers"], self.directory, cores.load, piped=True)
        )
        self.progress_file = self.directory / "progress"
        self.progress_file.write_bytes(bytes(8))
        self.times_file = self.directory / "times"
        self.times_file.write_bytes(bytes(8 * TIMES))

    # -- parts ----------------------------------------------------------------------------------------------------

    def connect(self, count: int, **more: Any) -> None:
        """Open `count` more subscribers; all must get ready."""
        scenario = self.scenario
        stream_bytes_per_second = scenario.rate * 230
        answer = self.load.ask(
            {
                "do": "connect",
                "server": self.server_name,
                "host": HOST,
                "port": self.port,
                "count": count,
                "devices": scenario.devices,
                "per_device": scenario.per_device,
                "published": self.published,
                "sampled": 25,
                "slow": round(scenario.slow_share * scenario.subscribers),
                "slow_bytes_per_second": scenario.slow_speed * stream_bytes_per_second,
                "envelopes": scenario.envelopes,
                "query": scenario.query,
                "payload_bytes": scenario.payload_bytes,
                "receive_bytes": scenario.receive_bytes,
                "times_file": str(self.times_file),
                "timeout": 120,
                "concurrency": 64,
                **more,
            }
        )
        self.result.more |= {"connect_seconds": round(answer["seconds"], 3), "connected": answer["ready"]}
        if answer["errors"] or answer["ready"] < count:
            raise BenchmarkError(
                f"{answer['ready']} of {count} subscribers got ready: {answer['errors']} {self.server.last_words()}"
            )

    def publish_count(self, count: int, rate: float) -> None:
        """Publish so many messages and wait until the last is written."""
        if count:
            command = {"count": count, "rate": rate, "devices": self.scenario.devices}
            self.published = self.publisher.ask(command)["published"]

    def stop_publishing(self) -> None:
        """Stop a publisher that runs at a rate or in a window."""
        answer = self.publisher.ask({"rate": 0})
        self.published = answer["published"]
        self.result.more |= {name: answer[name] for name in ("acknowledged", "misordered") if name in answer}
        self.result.published = round(answer["rate"] * self.result.seconds)

    def settle(self) -> None:
        """Wait until the server has been idle for a fifth of a second."""
        deadline, before = time.monotonic() + 10, processor_seconds(self.server.pid)
        while time.monotonic() < deadline:
            time.sleep(0.2)
            now = processor_seconds(self.server.pid)
            if now - before < 0.02:
                return
            before = now

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Read processor times, deliveries and delays before and after the body."""
        result = self.result
        with self._profiled() as tool:
            tool.switch(True)
            before = self.load.ask({"do": "start_delays"})
            server, broker = processor_seconds(self.server.pid), processor_seconds(self.broker.pid)
            memory, started = resident_bytes(self.server.pid), time.monotonic()
            yield
            after = self.load.ask({"do": "stop_delays"})
            tool.switch(False)
            result.server_cpu_seconds = processor_seconds(self.server.pid) - server
            if self.server is not self.broker:
                result.broker_cpu_seconds = processor_seconds(self.broker.pid) - broker
            result.seconds = time.monotonic() - started
            result.memory_growth_mib = (resident_bytes(self.server.pid) - memory) / KIB / KIB
        result.deliveries = after["received"] - before["received"]
        result.more["skipped"] = after["skipped"] - before["skipped"]
        result.load_cpu_share = (after["cpu_seconds"] - before["cpu_seconds"]) / (after["time"] - before["time"])
        result.p50_ms, result.p99_ms, result.max_ms = after["p50_ms"], after["p99_ms"], after["max_ms"]
        result.more["bytes_per_read"] = round(
            (after["bytes"] - before["bytes"]) / max(1, after["reads"] - before["reads"])
        )

    @contextmanager
    def _profiled(self) -> Iterator[Attached]:
        profile = self.bench.profile
        if profile is None or self.server_name == "aiomqtt":
            yield Attached(lambda _: None)
            return
        name = f"{self.scenario.name}-{self.server_name}"
        with profile.attached(self.server.pid, name, self.bench.seconds) as tool:
            yield tool
        if tool.counts:
            self.result.more["syscalls"] = tool.counts

    def check_count(self) -> None:
        """Read what is still on its way, and note what was lost, repeated or cut."""
        report = self.load.ask({"do": "drain", "published": self.published, "quiet": 2.0, "timeout": 15.0})
        self.result.lost, self.result.repeated = report["lost"], report["repeated"]
        self.result.closed = report["closed"]
        self.result.more |= {name: report[name] for name in ("gap", "unexplained", "errors")}

    # -- runs -----------------------------------------------------------------------------------------------------

    def steady(self) -> Result:
        """Run at a steady rate: S0 to S4, S7 to S11."""
        scenario, result = self.scenario, self.result
        if scenario.fill_history:
            self.publish_count(scenario.devices * HISTORY_MESSAGES_PER_TOPIC, 10_000)
            self.settle()
        empty = resident_bytes(self.server.pid)
        self.connect(scenario.subscribers)
        self.settle()
        result.kib_per_connection = (resident_bytes(self.server.pid) - empty) / scenario.subscribers / KIB
        self.publisher.ask(self._at_rate(), answered=False)
        time.sleep(min(scenario.warm_up, 1.2 * self.bench.seconds))
        with self.measured():
            time.sleep(self.bench.seconds)
        self.stop_publishing()
        self.check_count()
        if scenario.held > scenario.subscribers and self.server_name == "gateway":
            self._hold(scenario.held)
        result.more["hold"] = scenario.held
        return result

    def _at_rate(self) -> dict[str, Any]:
        scenario = self.scenario
        return {
            "rate": scenario.rate,
            "devices": scenario.devices,
            "qos": scenario.qos,
            "payload_bytes": scenario.payload_bytes,
            "times_file": str(self.times_file),
        }

    def _hold(self, count: int) -> None:
        # Every one of them must still get its messages, one of each topic.
        self.connect(count - self.scenario.subscribers)
        self.publish_count(self.scenario.devices * 3, self.scenario.rate)
        report = self.load.ask({"do": "drain", "published": self.published, "quiet": 3.0, "timeout": 30.0})
        complete = not (report["lost"] or report["repeated"] or report["closed"])
        self.result.more["held"] = report["ready"] if complete else 0
        self.result.more["held_kib_each"] = round(resident_bytes(self.server.pid) / KIB / count, 1)

    def as_fast_as_it_goes(self) -> Result:
        """Run one subscriber with a window of messages on their way: S5."""
        self.connect(1, progress_file=str(self.progress_file))
        self._run_window()
        self.check_count()
        return self.result

    def bare_sink(self) -> Result:
        """Run the smallest aiomqtt program that sees every message: what S5 is compared with."""
        self.server = self.stack.enter_context(
            Process(
                "aiomqtt",
                [sys.executable, "-m", "benchmarks.bare_sink", str(self.broker.port), str(self.progress_file)],
                self.directory,
                self.bench.cores.server,
                piped=True,
            )
        )
        self.server.ask({"do": "ready"})
        self._run_window()
        self.result.more["uncounted"] = self.published - self._progress()
        return self.result

    def _progress(self) -> int:
        with self.progress_file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as progress:
            return int.from_bytes(progress[:8], "little")

    def _run_window(self) -> None:
        command = {
            "progress_file": str(self.progress_file),
            "window": WINDOW_MESSAGES,
            "devices": self.scenario.devices,
        }
        self.publisher.ask(command, answered=False)
        time.sleep(min(1.0, self.bench.seconds / 2))
        before = self._progress()
        if self.server_name == "gateway":
            with self.measured():
                time.sleep(self.bench.seconds)
        else:
            cpu, started = processor_seconds(self.server.pid), time.monotonic()
            time.sleep(self.bench.seconds)
            self.result.deliveries = self._progress() - before
            self.result.server_cpu_seconds = processor_seconds(self.server.pid) - cpu
            self.result.seconds = time.monotonic() - started
        self.stop_publishing()
        self.result.published = self.result.deliveries
        time.sleep(0.5)

    def gone_and_back(self) -> Result:
        """Cut all subscribers, publish, and let them come back at once: S6."""
        scenario, result = self.scenario, self.result
        behind = min(1000, HISTORY_MESSAGES_PER_TOPIC * scenario.devices)
        self.connect(scenario.subscribers)
        self.publish_count(200, 200)
        self.check_count()
        self.load.ask({"do": "drop"})
        self.settle()
        self.publish_count(behind, 2000)
        self.settle()
        target = self.published
        self.publisher.ask({"rate": scenario.rate, "devices": scenario.devices}, answered=False)
        with self.measured():
            report = self.load.ask({"do": "rejoin", "target": target, "timeout": 120})
        self.stop_publishing()
        result.published = behind
        result.more["subscribers"] = scenario.subscribers
        self.check_count()
        result.more |= {
            name: report[name] for name in ("recovered", "seconds", "recovery_p50_ms", "recovery_max_ms", "errors")
        }
        return result


__all__ = ["SCENARIOS", "Bench", "Result", "Scenario", "Server"]

"""What a cluster costs and carries: `python -m benchmarks.cluster`, with Valkey's or Redis' program on the path.

It compares a gateway alone with two nodes: how much longer a message takes to who is connected to the follower, at the
worst of three rates; what a message takes of the leader's and of the follower's processor without subscribers, less
what they take while nothing comes, and what of that is the log's, which every gateway has. The log is measured beside
the follower, at its pace: a program that sleeps between two batches finds its caches cold, and filled by the others.
Alone and two nodes are measured in turn, several times, and the middle of the differences counts: a machine is now
faster and now slower. Then how many deliveries two nodes carry for the processor time of the busier one, each with as
many subscribers as the gateway alone has: an idle gateway sends smaller batches, so nodes are compared at one load.
Then a node dies, and its subscribers come back at the other one, each with its position.

    python -m benchmarks.cluster --check                  # 10,000 subscribers move: on a quiet machine with four cores
    python -m benchmarks.cluster --seconds 3 --move 500   # a try
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import time
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.micro import PAYLOAD, TOPICS, full_history, hub_with
from benchmarks.processes import (
    HOST,
    BenchmarkError,
    Cores,
    Gateway,
    Mosquitto,
    Process,
    free_port,
    processor_seconds,
    raise_file_limit,
    scratch_directory,
)
from benchmarks.report import Check
from gateway.cluster.questions import Times

DEVICES = 20
RATE = 2_000
"""Messages a second at which processor time is measured."""

ROUNDS = 5
"""Measurements of processor time, of which the middle one counts."""

DELAY_RATES = (200, 1_000, 2_000)
PROGRAMS = ("valkey-server", "redis-server")


@dataclass(slots=True)
class Figures:
    """What was measured; alone and with two nodes.

    Attributes:
        alone_p50_ms, follower_p50_ms: delay to who is connected to the gateway, or the follower, at the rate at which
            they differ most.
        alone_us: processor time of a message, without subscribers.
        added_us: what a leader takes more; the middle of `ROUNDS` measurements, as is the next one.
        way_us: what a follower takes beside what a log takes that this process writes meanwhile.
        shared_ratio: deliveries that two nodes carry, as a multiple of those of one.
        moved: subscribers that went from a dead node to the other one and missed nothing.
        move: how many there were.
        move_seconds: until the last of them had everything.
    """

    alone_p50_ms: float = 0.0
    follower_p50_ms: float = 0.0
    alone_us: float = 0.0
    added_us: float = 0.0
    way_us: float = 0.0
    shared_ratio: float = 0.0
    moved: int = 0
    move: int = 0
    move_seconds: float = 0.0


def checks(figures: Figures) -> list[Check]:
    """Return what has to be reached. Pure."""
    added = figures.follower_p50_ms - figures.alone_p50_ms
    return [
        Check("cluster", "delay that a cluster adds, p50", added, 5, " ms"),
        Check("cluster", "processor time that a leader adds to a message", figures.added_us, 5, " µs"),
        Check("cluster", "a message's way into a follower's log", figures.way_us, 3, " µs"),
        Check("cluster", "deliveries of two nodes, part of those of one", figures.shared_ratio, 1.7, at_least=True),
        Check("cluster", "subscribers that moved and missed nothing", figures.moved, figures.move, at_least=True),
        Check("cluster", "time until all of them had everything", figures.move_seconds, 15, " s"),
    ]


class Shared(Process):
    """The server of the shared log, with nothing on a disk."""

    def __init__(self, directory: Path, core: int | None) -> None:
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            raise BenchmarkError(f"neither {' nor '.join(PROGRAMS)} is on the path")
        self.port = free_port()
        command = [program, "--port", str(self.port), "--bind", HOST, "--save", "", "--dir", str(directory)]
        super().__init__("shared log", command, directory, core)


class Rig:
    """A broker, a publisher, and a gateway alone or two nodes; each has subscribers of its own."""

    def __init__(self, stack: ExitStack, nodes: int, settings: Mapping[str, str]) -> None:
        # with fewer cores than programs the kernel places them better
        enough = len(Cores.available()) >= nodes + 2
        self.cores = Cores.of_this_machine() if enough else Cores(None, None, None, None)
        self.directory = stack.enter_context(scratch_directory())
        broker = stack.enter_context(Mosquitto(self.directory, self.cores.broker))
        environment = dict(settings)
        if nodes > 1:
            shared = stack.enter_context(Shared(self.directory, self.cores.broker))
            environment["GATEWAY_CLUSTER_URL"] = f"valkey://{HOST}:{shared.port}/0"
        cores = [self.cores.server, self.cores.load]
        found = [
            stack.enter_context(
                Gateway(self.directory, cores[at], broker.port, environment | {"GATEWAY_CLUSTER_NODE": f"n{at}"})
            )
            for at in range(nodes)
        ]
        # the leader first
        self.nodes = found if nodes == 1 else sorted(found, key=lambda node: role(node) != "leader")
        self.loads = [
            stack.enter_context(
                Process(
                    f"load {at}",
                    [sys.executable, "-m", "benchmarks.subscribers"],
                    self.directory,
                    self.cores.load,
                    piped=True,
                )
            )
            for at in range(nodes)
        ]
        program = [sys.executable, "-m", "benchmarks.publisher", HOST, str(broker.port)]
        self.publisher = stack.enter_context(
            Process("publisher", program, self.directory, self.cores.publisher, piped=True)
        )
        self.published = 0

    def connect(self, at: int, count: int) -> None:
        """Open subscribers of everything at a node."""
        spec = {
            "do": "connect", "server": "gateway", "host": HOST, "port": self.nodes[at].port, "count": count,
            "devices": DEVICES, "per_device": False, "published": self.published, "sampled": 25, "slow": 0,
            "slow_bytes_per_second": 0, "envelopes": False, "query": "since=now", "payload_bytes": 130,
            "receive_bytes": 0, "times_file": "", "timeout": 120, "concurrency": 64,
        }  # fmt: skip
        answer = self.loads[at].ask(spec)
        if answer["errors"] or answer["ready"] < count:
            raise BenchmarkError(f"{answer['ready']} of {count} got ready: {answer['errors']}")

    def measure(self, rate: float, seconds: float) -> tuple[list[float], list[dict[str, Any]], float]:
        """Publish at a rate: processor time of each node, what each load says, and how many messages it were."""
        self.publisher.ask({"rate": rate, "devices": DEVICES, "qos": 1, "payload_bytes": 130}, answered=False)
        time.sleep(min(2.0, seconds))
        for load in self.loads:
            load.ask({"do": "start_delays"})
        before, began = [processor_seconds(node.pid) for node in self.nodes], time.monotonic()
        time.sleep(seconds)
        used = [processor_seconds(node.pid) - was for node, was in zip(self.nodes, before, strict=True)]
        took = time.monotonic() - began
        said = [load.ask({"do": "stop_delays"}) for load in self.loads]
        self.published = self.publisher.ask({"rate": 0})["published"]
        return used, said, rate * took


def role(node: Gateway) -> str:
    """What a node is."""
    with urllib.request.urlopen(f"http://{HOST}:{node.port}/health/ready", timeout=10) as answer:
        return str(json.load(answer)["cluster"]["role"])


def processor(nodes: int, seconds: float, settings: Mapping[str, str]) -> tuple[list[float], float]:
    """Microseconds of a message at each node, at 2,000 a second without subscribers, and in a log meanwhile."""
    with ExitStack() as stack:
        rig = Rig(stack, nodes, settings)
        time.sleep(2)
        before, began = [processor_seconds(node.pid) for node in rig.nodes], time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        idle = [(processor_seconds(node.pid) - was) / took for node, was in zip(rig.nodes, before, strict=True)]
        with ThreadPoolExecutor(1) as pool:
            log = pool.submit(log_microseconds, seconds)
            used, _, count = rig.measure(RATE, seconds)
        return [1e6 * (each / count - none / RATE) for each, none in zip(used, idle, strict=True)], log.result()


def delay(nodes: int, seconds: float, settings: Mapping[str, str]) -> list[float]:
    """Milliseconds, p50, to 5 subscribers of the last node, at each of `DELAY_RATES`."""
    found = []
    with ExitStack() as stack:
        rig = Rig(stack, nodes, settings)
        rig.connect(nodes - 1, 5)
        for rate in DELAY_RATES:
            _, said, _ = rig.measure(rate, seconds)
            found.append(float(said[-1]["p50_ms"] or 0.0))
    return found


def carried(nodes: int, seconds: float, settings: Mapping[str, str]) -> float:
    """Deliveries for a second of the busiest node's processor: 150 subscribers at each node, 1,000 messages/s."""
    with ExitStack() as stack:
        rig = Rig(stack, nodes, settings)
        for at in range(nodes):
            rig.connect(at, 150)
        used, _, count = rig.measure(1_000, seconds)
        return nodes * 150 * count / max(used)


def log_microseconds(seconds: float) -> float:
    """Microseconds of a message in a log that is full, with no subscriber, in batches as they come to a follower."""
    hub, turns = hub_with(0, history=full_history())
    pause, used, count = Times().gather, 0.0, 0
    batch = round(RATE * pause)
    due = ends = time.monotonic()
    ends += seconds
    while due < ends:
        began = time.thread_time()
        for number in range(count, count + batch):
            hub.publish(TOPICS[number % DEVICES], PAYLOAD, 1)
        turns.run()
        used += time.thread_time() - began
        count += batch
        due += pause
        time.sleep(max(due - time.monotonic(), 0))
    return 1e6 * used / count


def costs(seconds: float, settings: Mapping[str, str]) -> tuple[float, float, float]:
    """See `Figures`: `alone_us`, `added_us`, `way_us`, once."""
    [alone], _ = processor(1, seconds, settings)
    (leader, follower), log = processor(2, seconds, settings)
    print(f"a message: alone {alone:.2f} µs, leader {leader:.2f}, follower {follower:.2f}, of which the log {log:.2f}")
    return alone, leader - alone, follower - log


def move(figures: Figures, count: int, settings: Mapping[str, str]) -> None:
    """Kill the follower, all of whose subscribers then come back at the leader."""
    with ExitStack() as stack:
        rig = Rig(stack, 2, settings)
        rig.connect(1, count)
        rig.published = rig.publisher.ask({"count": 20, "rate": 20, "devices": DEVICES})["published"]
        load, dead = rig.loads[1], rig.nodes[1]
        load.ask({"do": "drain", "published": rig.published, "quiet": 3.0, "timeout": 60.0})
        dead.popen.kill()
        load.ask({"do": "drop"})
        rig.published = rig.publisher.ask({"count": 200, "rate": 200, "devices": DEVICES})["published"]
        answer = load.ask({"do": "rejoin", "port": rig.nodes[0].port, "target": rig.published, "timeout": 120.0})
        figures.move, figures.moved, figures.move_seconds = count, answer["recovered"], answer["seconds"]
        if answer["lost"] or answer["repeated"]:
            print(f"lost {answer['lost']}, repeated {answer['repeated']}: {answer['errors']}")
            figures.moved = 0


def main(argv: list[str] | None = None) -> int:
    """Run it; 1 when `--check` was given and something was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement (default: 10)")
    parser.add_argument("--move", type=int, default=10_000, help="subscribers of the node that dies (default: 10,000)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the gateways")
    parser.add_argument("--check", action="store_true", help="exit with 1 when something required is not reached")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    options = parser.parse_args(argv)
    raise_file_limit(options.move * 2 + 1_000)
    settings = dict(setting.split("=", 1) for setting in options.set)
    figures, seconds = Figures(), options.seconds
    print(Cores.of_this_machine())
    if len(Cores.available()) < 4:
        print("fewer than four cores: two nodes, broker, log and load share them, so that delays are longer, too")
    alone, follower = (delay(nodes, seconds, settings) for nodes in (1, 2))
    for rate, *both in zip(DELAY_RATES, alone, follower, strict=True):
        print(f"{rate:,} messages/s: p50 {both[0]:.2f} ms alone, {both[1]:.2f} ms at the follower")
    worst = max(range(len(DELAY_RATES)), key=lambda at: follower[at] - alone[at])
    figures.alone_p50_ms, figures.follower_p50_ms = alone[worst], follower[worst]
    rounds = [costs(seconds, settings) for _ in range(ROUNDS)]
    figures.alone_us, figures.added_us, figures.way_us = (median(column) for column in zip(*rounds, strict=True))
    figures.shared_ratio = carried(2, seconds, settings) / carried(1, seconds, settings)
    move(figures, options.move, settings)
    for name, value in asdict(figures).items():
        print(f"{name:16} {value:,.2f}")
    found = checks(figures)
    print("\n".join(map(str, found)))
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    return int(options.check and not all(check.passed for check in found))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        raise SystemExit(main())

"""100,000 connections at once: `python -m benchmarks.many [--hold 600] [--check]`.

It starts the gateway and a stand-in for the people (holder.c: one epoll loop, sockets on 100 addresses of loopback),
and lets all of them subscribe: each to a topic of its own, of 100 (as in S4), and to one that all share. Then it holds
them for a while, with pings, sends one message to all of them now and then, and looks at the gateway's memory, at its
longest stall and at what the system holds for it.

Where a process may not open so many files, `--gateways 6` shares them out among six gateways on the same core: each on
a session of its own, with a stand-in of its own. Times are then those of the slowest, memory and processor time those
of all together.

What an operator has to raise for that is in `SETTINGS` and docs/performance.md; the rest are the gateway's defaults.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import socket
import statistics
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import report, wire
from benchmarks.processes import (
    HOST,
    BenchmarkError,
    Cores,
    Gateway,
    Mosquitto,
    Process,
    compiled,
    processor_seconds,
    resident_bytes,
    scratch_directory,
)

KIB = 1024
SETTINGS = {"GATEWAY_LIMIT_CONNECTIONS": "1.1", "GATEWAY_LIMIT_CONNECTIONS_PER_ADDRESS": "1.1"}
"""Settings to raise, as parts of the connections in all and of those from one address."""

DESCRIPTORS_BESIDE = 1_000
"""Files that the gateway needs beside its connections, and room for those that come before others are gone."""


@dataclass(slots=True)
class Figures:
    """What was measured; times are in seconds where the name doesn't say it."""

    connections: int
    gateways: int = 1
    ready: int = 0
    failed: int = 0
    handshake_seconds: float = 0.0
    handshake_ms_of_processor: float = 0.0
    empty_mib: float = 0.0
    resident_mib: float = 0.0
    kib_per_connection: float = 0.0
    kernel_kib_per_connection: float = 0.0
    to_all_seconds: list[float] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    held_seconds: float = 0.0
    idle_core: float = 0.0
    pings: int = 0
    closed: int = 0
    stall_ms: float = 0.0
    connecting_stall_ms: float = 0.0
    drop_seconds: float = 0.0
    drop_stall_ms: float = 0.0
    stop_seconds: float = 0.0
    told_to_come_back: int = 0

    @property
    def handshakes_per_second(self) -> float:
        """Connections that were opened and subscribed in a second."""
        return self.ready / self.handshake_seconds if self.handshake_seconds else 0.0


def checks(figures: Figures, hold: float) -> list[report.Check]:
    """Return what must be reached. Pure."""
    slowest = max(figures.to_all_seconds, default=0.0)
    count = figures.connections
    # with fewer of them, what it has without any would count too much
    memory = figures.empty_mib + figures.kib_per_connection * 100_000 / KIB
    return [
        report.Check("many", "connections held", figures.ready - figures.closed, count, at_least=True),
        report.Check("many", "held with pings", figures.held_seconds, hold, " s", at_least=True),
        report.Check("many", "memory of the gateway with 100,000", memory, 1.1 * KIB, " MiB"),
        report.Check("many", "handshakes", figures.handshakes_per_second, 1_500, "/s", at_least=True),
        report.Check("many", "one message to all of them, the slowest of them", slowest, 2, " s"),
        report.Check("many", "deliveries that are missing", count * len(figures.delivered) - sum(figures.delivered), 0),
        report.Check("many", "longest stall while held", figures.stall_ms, 20, " ms"),
    ]


def stalls_in(metrics: str) -> dict[float, int]:
    """Return how many stalls were at most so long, by seconds, from the text of `/metrics`. Pure."""
    found = re.findall(r'^gateway_loop_stall_seconds_bucket\{le="([^"]+)"\} (\S+)', metrics, re.MULTILINE)
    return {float(bound): int(float(count)) for bound, count in found}


def longest_since(before: dict[float, int], after: dict[float, int]) -> float:
    """Return the bound of the bucket that the longest stall between two looks is in, in seconds. Pure."""
    longest = below = 0.0
    count = 0
    for bound, reached in sorted(after.items()):
        new = reached - before.get(bound, 0)
        if new > count:
            longest = bound if bound != float("inf") else below
        count, below = new, bound
    return longest


def slab_kib() -> int:
    """Return the kernel's memory for objects (sockets, descriptors, entries of epoll), in KiB."""
    found = re.search(r"^Slab:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def sockstat() -> str:
    """Return the line of /proc/net/sockstat about TCP: sockets, and pages of 4 KiB that their buffers take."""
    return next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP"))


def system_limits() -> str:
    """Say what the system allows."""
    names = ("net/core/somaxconn", "net/ipv4/tcp_max_syn_backlog", "net/ipv4/ip_local_port_range", "fs/nr_open")
    paths = {name: Path("/proc/sys", name) for name in (*names, "net/ipv4/tcp_mem")}
    # a network namespace shows only its own
    read = {name: path.read_text().split() for name, path in paths.items() if path.exists()}
    limits = ", ".join(f"{name.rpartition('/')[2]} {' '.join(value)}" for name, value in read.items())
    return f"RLIMIT_NOFILE {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}, {limits}"


def raise_files(wanted: int) -> None:
    """Raise the limit of open files, the hard one too where this process may.

    Raises:
        BenchmarkError: it may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError):
        raise BenchmarkError(f"{wanted} open files are needed and {hard} are allowed: ulimit -Hn {wanted}") from None


class Many:
    """One run."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.options = options
        self.figures = Figures(options.connections, options.gateways)
        cores = Cores.of_this_machine()
        directory = stack.enter_context(scratch_directory())
        broker = stack.enter_context(Mosquitto(directory, cores.broker))
        self.share = -(-options.connections // options.gateways)
        sizes = zip(SETTINGS.items(), (self.share, -(-self.share // options.addresses)), strict=True)
        settings = {name: str(int(float(part) * count) + 10) for (name, part), count in sizes}
        settings |= dict(setting.split("=", 1) for setting in options.set)
        print(f"settings: {settings}\nsystem: {system_limits()}")
        holder = [str(compiled("holder", directory))]
        self.gateways: list[Gateway] = []
        self.holders: list[Process] = []
        for number in range(options.gateways):
            own = directory / f"gateway-{number}"
            own.mkdir()
            session = settings | {"GATEWAY_MQTT_CLIENT_ID": f"many-{number}"}
            self.gateways.append(stack.enter_context(Gateway(own, cores.server, broker.port, session)))
            self.holders.append(stack.enter_context(Process("holder", holder, own, cores.load, piped=True)))
        self.pool = stack.enter_context(ThreadPoolExecutor(options.gateways))
        self.publisher = stack.enter_context(socket.create_connection((HOST, broker.port), 10))
        self.publisher.sendall(wire.mqtt_connect("bench-many"))
        self.publisher.recv(4)

    def metrics(self, gateway: Gateway) -> str:
        """Ask a gateway for its metrics."""
        with urllib.request.urlopen(f"http://{HOST}:{gateway.port}/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    def stalls(self) -> list[dict[float, int]]:
        """Ask each gateway for its stalls."""
        return [stalls_in(self.metrics(gateway)) for gateway in self.gateways]

    def longest_since(self, before: list[dict[float, int]]) -> float:
        """Return the longest stall of any gateway since then, in milliseconds."""
        return 1000 * max(map(longest_since, before, self.stalls()))

    def used(self) -> float:
        """Return the processor time of all gateways, in seconds."""
        return sum(processor_seconds(gateway.pid) for gateway in self.gateways)

    def resident(self) -> int:
        """Return the resident memory of all gateways, in bytes."""
        return sum(resident_bytes(gateway.pid) for gateway in self.gateways)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ask all stand-ins the same at once."""
        return joined(list(self.pool.map(lambda holder: holder.ask(question), self.holders)))

    def run(self) -> Figures:
        """Open, hold, broadcast, drop and stop."""
        figures = self.figures
        slab, sockets, stalls, used = slab_kib(), sockstat(), self.stalls(), self.used()
        empty = self.resident()
        figures.empty_mib = empty / KIB / KIB
        answer = self.open()
        figures.ready, figures.failed = answer["ready"], answer["failed"]
        figures.handshake_seconds = answer["seconds"]
        if figures.failed:
            words = [gateway.last_words()[-600:] for gateway in self.gateways]
            print(f"{figures.failed} failed: {answer['why']} {max(words, key=len)}")
        figures.handshake_ms_of_processor = 1000 * (self.used() - used) / max(1, figures.ready)
        figures.connecting_stall_ms = self.longest_since(stalls)
        print(f"{figures.ready} ready after {figures.handshake_seconds:.1f} s: {figures.handshakes_per_second:,.0f}/s")
        figures.kernel_kib_per_connection = (slab_kib() - slab) / max(1, figures.ready)
        print(f"sockets before: {sockets}\n        now:    {sockstat()}")
        self.hold()
        figures.resident_mib = self.resident() / KIB / KIB
        figures.kib_per_connection = (self.resident() - empty) / KIB / max(1, figures.ready)
        self.drop_and_come_back()
        self.stop()
        return figures

    def open(self) -> dict[str, Any]:
        """Open all connections, those of each gateway beside those of the others."""
        options, count = self.options, len(self.gateways)
        questions = [
            {
                "open": min(self.share, options.connections - number * self.share),
                "port": gateway.port,
                "topics": options.topics,
                "addresses": options.addresses,
                "concurrency": -(-options.concurrency // count),
                "timeout": options.timeout,
            }
            for number, gateway in enumerate(self.gateways)
        ]
        return joined(list(self.pool.map(Process.ask, self.holders, questions)))

    def hold(self) -> None:
        """Hold them, and send one message to all at the start, the end, and about every ten seconds between."""
        figures, began = self.figures, time.monotonic()
        stalls, pings = self.stalls(), self.ask({"report": 1})["pings"]
        used = idle = 0.0
        while True:
            self.broadcast()
            left = self.options.hold - (time.monotonic() - began)
            if left <= 0:
                break
            before, since = self.used(), time.monotonic()
            time.sleep(min(10.0, left))
            used += self.used() - before
            idle += time.monotonic() - since
        figures.held_seconds = time.monotonic() - began
        figures.idle_core = used / idle if idle else 0.0
        figures.stall_ms = self.longest_since(stalls)
        answer = self.ask({"report": 1})
        figures.pings, figures.closed = answer["pings"] - pings, answer["closed"]

    def broadcast(self) -> None:
        """Send one message to all of them, and note when the last had it."""
        self.ask({"reset": 1})
        began = time.monotonic()
        self.publisher.sendall(wire.mqtt_publish("many/all", b'{"t":21.5}'))
        deadline = began + 30
        while True:
            answer = self.ask({"report": 1})
            if answer["broadcasts"] >= answer["ready"] or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        self.figures.to_all_seconds.append(answer["last_delivery"] - began)
        self.figures.delivered.append(answer["broadcasts"])

    def drop_and_come_back(self) -> None:
        """Close all connections at once, as a network does; see how long the gateway needs, and open them again."""
        stalls, began = self.stalls(), time.monotonic()
        self.ask({"drop": 1})
        while self.gateway_connections() > 0 and time.monotonic() < began + 60:
            time.sleep(0.1)
        self.figures.drop_seconds = time.monotonic() - began
        time.sleep(0.3)
        self.figures.drop_stall_ms = self.longest_since(stalls)
        answer = self.open()
        print(f"back: {answer['ready']} after {answer['seconds']:.1f} s {answer['why']}")

    def gateway_connections(self) -> int:
        """Ask the gateways how many are connected."""
        pattern = re.compile(r"^gateway_connections(?:\{[^}]*\})? (\S+)", re.MULTILINE)
        found = (pattern.search(self.metrics(gateway)) for gateway in self.gateways)
        return sum(int(float(match[1])) for match in found if match)

    def stop(self) -> None:
        """SIGTERM, with everybody connected."""
        before = self.ask({"report": 1})["restart_closes"]
        began = time.monotonic()
        for gateway in self.gateways:
            gateway.popen.terminate()
        for gateway in self.gateways:
            gateway.popen.wait(60)
        self.figures.stop_seconds = time.monotonic() - began
        self.figures.told_to_come_back = self.ask({"report": 1})["restart_closes"] - before


def joined(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what several stand-ins answered as if it were one: counts added, the latest of times. Pure."""
    found: dict[str, Any] = {}
    for name, first in answers[0].items():
        values = [answer[name] for answer in answers]
        if isinstance(first, str):
            found[name] = next(filter(None, values), "")
        elif isinstance(first, float):
            found[name] = min(values) if name.startswith("first_") else max(values)
        else:
            found[name] = sum(values)
    return found


def said(figures: Figures) -> str:
    """Return the figures, a line each. Pure."""
    spread = sorted(figures.to_all_seconds)
    return (
        f"handshakes: {figures.handshakes_per_second:,.0f}/s, {figures.handshake_ms_of_processor:.2f} ms of processor "
        f"time each, longest stall meanwhile {figures.connecting_stall_ms:.0f} ms\n"
        f"memory: {figures.resident_mib:,.0f} MiB resident, {figures.kib_per_connection:.1f} KiB a connection; the "
        f"kernel's objects for both ends {figures.kernel_kib_per_connection:.1f} KiB more\n"
        f"held for {figures.held_seconds:.0f} s: {figures.pings:,} pings, {figures.closed} closed, "
        f"{100 * figures.idle_core:.1f} % of a core, longest stall {figures.stall_ms:.0f} ms\n"
        f"one message to all, {len(spread)} times: {statistics.median(spread):.2f} s, at most {spread[-1]:.2f} s\n"
        f"all gone at once: {figures.drop_seconds:.1f} s, longest stall {figures.drop_stall_ms:.0f} ms\n"
        f"stopped with all connected: {figures.stop_seconds:.1f} s, {figures.told_to_come_back:,} told to come back"
    )


def main(argv: list[str] | None = None) -> int:
    """Run it once.

    Returns:
        0, or 1 when `--check` was given and something required was not reached, or 2 when it can't be run here.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--gateways", type=int, default=1, help="gateways on the one core that share them (default: 1)")
    parser.add_argument("--topics", type=int, default=100, help="own topics; as many as connections: one for each")
    parser.add_argument("--addresses", type=int, default=100, help="addresses that the connections come from (≤ 254)")
    parser.add_argument("--concurrency", type=int, default=256, help="handshakes under way at a time")
    parser.add_argument("--hold", type=float, default=60, help="seconds to hold them (required: 600)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for all handshakes")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the gateway")
    parser.add_argument("--check", action="store_true", help="exit with 1 when something required is not reached")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    options = parser.parse_args(argv)
    if sys.platform != "linux":
        print("This benchmark needs Linux: the load waits in epoll.", file=sys.stderr)
        return 2
    try:
        raise_files(-(-options.connections // options.gateways) + DESCRIPTORS_BESIDE)
        with ExitStack() as stack:
            figures = Many(options, stack).run()
    except BenchmarkError as error:
        print(f"benchmarks.many: {error}", file=sys.stderr)
        return 2
    print(said(figures))
    required = checks(figures, options.hold)
    print("\n".join(f"  {check}" for check in required))
    if options.json:
        from dataclasses import asdict

        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    return 1 if options.check and not all(check.passed for check in required) else 0


if __name__ == "__main__":
    raise SystemExit(main())

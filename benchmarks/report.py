"""What must be reached, the medians of several runs, and the table. Pure."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from benchmarks.scenarios import SCENARIOS, Result, Scenario, Server

Results = Mapping[tuple[str, Server], Result]
"""The median result of each scenario and server."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a scenario must reach."""

    scenario: str
    what: str
    reached: float
    required: float
    unit: str = ""
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether it was reached."""
        return self.reached >= self.required if self.at_least else self.reached <= self.required

    @property
    def sign(self) -> str:
        """How what was reached must compare with what is required."""
        return "≥" if self.at_least else "≤"

    def __str__(self) -> str:
        mark = "pass" if self.passed else "FAIL"
        reached, required = (f"{_number(value)}{self.unit}" for value in (self.reached, self.required))
        return f"{mark}  {self.what}: {reached}, must be {self.sign} {required}"


class Bound(NamedTuple):
    """The most that a delay may be."""

    quantile: Literal["p50", "p99"]
    ms: float


DELAYS = {
    "S0": (Bound("p50", 1),),
    "S1": (Bound("p50", 5),),
    "S2": (Bound("p50", 12), Bound("p99", 30)),
    "S3": (Bound("p50", 5), Bound("p99", 25)),
    "S4": (Bound("p50", 2),),
    "S11": (Bound("p50", 25), Bound("p99", 60)),
}
"""What a message may take from the publisher to the subscriber."""

RATIOS = {"S1": 0.6, "S2": 0.1, "S3": 0.6, "S4": 0.4, "S11": 0.3}
"""The part of Mosquitto's processor time that a delivery may take."""


def median(results: Sequence[Result]) -> Result:
    """Return the run with the middle processor time, with the median of every delay and size, and every loss summed."""
    middle = sorted(results, key=lambda result: result.cpu_us_per_delivery)[len(results) // 2]
    values = {each.name: getattr(middle, each.name) for each in fields(Result)}
    for name in ("p50_ms", "p99_ms", "max_ms", "kib_per_connection", "memory_growth_mib"):
        known = [value for result in results if (value := getattr(result, name)) is not None]
        values[name] = statistics.median(known) if known else None
    for name in ("lost", "repeated", "closed"):
        values[name] = sum(getattr(result, name) for result in results)
    return Result(**values)


def checks(results: Results) -> list[Check]:
    """Return what the scenarios that were run must reach, in their order."""
    found: list[Check] = []
    for name, server in results:
        if server == "gateway":
            found.extend(_checks_of(name, results))
    return found


def _checks_of(name: str, results: Results) -> Iterable[Check]:
    gateway = results[name, "gateway"]
    mosquitto = results.get((name, "mosquitto"))

    def ratio(required: float) -> Iterable[Check]:
        if mosquitto is not None:
            part = gateway.cpu_us_per_delivery / mosquitto.cpu_us_per_delivery
            yield Check(name, "processor time per delivery, part of Mosquitto's", part, required)

    if name != "S6":
        yield Check(name, "lost or repeated", gateway.lost + gateway.repeated, 0)
        yield Check(name, "connections cut", gateway.closed, 0)
    for bound in DELAYS.get(name, ()):
        reached = gateway.p50_ms if bound.quantile == "p50" else gateway.p99_ms
        yield Check(name, f"{bound.quantile} delay", reached or 0.0, bound.ms, " ms")
    if name in RATIOS:
        yield from ratio(RATIOS[name])
    if name == "S4":
        yield Check(name, "memory per connection", gateway.kib_per_connection or 0.0, 20, " KiB")
        yield Check(
            name, "connections held and served", gateway.more.get("held", 0), gateway.more["hold"], at_least=True
        )
    elif name == "S5" and (bare := results.get((name, "aiomqtt"))) is not None:
        part = gateway.cpu_us_per_message / bare.cpu_us_per_message
        yield Check(name, "processor time per message, part of a bare aiomqtt sink's", part, 1.2)
    elif name == "S6":
        yield Check(name, "recovered", gateway.more["recovered"], gateway.more["subscribers"], at_least=True)
        yield Check(name, "lost or repeated", gateway.lost + gateway.repeated, 0)
    elif name == "S7":
        if (s2 := results.get(("S2", "gateway"))) is not None and s2.p99_ms:
            part = (gateway.p99_ms or 0.0) / s2.p99_ms
            yield Check(name, "p99 delay of the others, part of S2's", part, 1.5)
        yield Check(name, "growth of memory while measured", gateway.memory_growth_mib or 0.0, 4, " MiB")
        untold = max(0, gateway.more["unexplained"] - gateway.more["gap"])
        yield Check(name, "messages that slow ones missed and were not told of", untold, 0)
    elif name in ("S9", "S10", "S11"):
        asked = SCENARIOS[name].rate * gateway.more["connected"]
        yield Check(name, "deliveries a second", gateway.deliveries_per_second, 0.99 * asked, at_least=True)
        if name == "S10":
            yield Check(name, "acknowledged out of order", gateway.more["misordered"], 0)
            if (s9 := results.get(("S9", "gateway"))) is not None:
                part = gateway.cpu_us_per_message / s9.cpu_us_per_message
                yield Check(name, "processor time per message, part of that at QoS 0", part, 1.3)
    elif name == "S8":
        yield Check(name, "messages neither delivered nor counted as skipped", abs(gateway.more["unexplained"]), 0)
        if (one := results.get(("S8/1", "gateway"))) is not None:
            part = gateway.cpu_us_per_message / one.cpu_us_per_message
            yield Check(name, "processor time per message received, part of that with one viewer", part, 1.3)


_COLUMNS = (
    *("", "µs/delivery", "µs/message", "deliveries/s", "p50 ms", "p99 ms"),
    *("lost", "KiB/conn", "core %", "broker µs/delivery", "load %"),
)


def table(scenario: Scenario, results: Results) -> str:
    """Return the rows of one scenario."""
    rows: list[Sequence[str]] = [_COLUMNS]
    for server in scenario.servers:
        result = results.get((scenario.name, server))
        if result is not None:
            rows.append(_row(result))
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([f"{scenario.name}: {scenario.title}", *("  " + line for line in lines)])


def _row(result: Result) -> Sequence[str]:
    broker = None
    if result.broker_cpu_seconds is not None:
        broker = 1e6 * result.broker_cpu_seconds / max(1, result.deliveries)
    return (
        result.server,
        _number(result.cpu_us_per_delivery),
        _number(result.cpu_us_per_message),
        f"{result.deliveries_per_second:,.0f}",
        _number(result.p50_ms),
        _number(result.p99_ms),
        str(result.lost + result.repeated),
        _number(result.kib_per_connection),
        _number(100 * result.server_cpu_seconds / (result.seconds or 1)),
        _number(broker),
        _number(100 * result.load_cpu_share),
    )


BEGIN, END = "<!-- figures: written by the benchmark -->", "<!-- end of figures -->"


def markdown(scenarios: Iterable[Scenario], results: Results, required: Sequence[Check]) -> str:
    """Return the figures as the table of docs/performance.md."""
    lines = [
        "| | scenario | compared with | µs | p50, p99 ms | gateway, µs | p50, p99 ms | reached (required) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for scenario in scenarios:
        gateway = results.get((scenario.name, "gateway"))
        if gateway is None:
            continue
        other = next(
            (found for (name, _), found in results.items() if name == scenario.name and found is not gateway), None
        )
        compared = "– | – | –"
        if other is not None:
            compared = f"{other.server} | {_number(other.cpu_us_per_delivery)} | {_delays(other)}"
        reached = "; ".join(
            f"{check.what} {_number(check.reached)}{check.unit} ({check.sign} {_number(check.required)})"
            f"{'' if check.passed else ' **missed**'}"
            for check in required
            if check.scenario == scenario.name and (check.required or not check.passed)
        )
        lost = "nothing lost or repeated" if not gateway.lost + gateway.repeated else f"**{gateway.lost} lost**"
        lines.append(
            f"| {scenario.name} | {scenario.title} | {compared} | {_number(gateway.cpu_us_per_delivery)} "
            f"| {_delays(gateway)} | {'; '.join(filter(None, (reached, lost)))} |"
        )
    return "\n".join(lines)


def _delays(result: Result) -> str:
    return f"{_number(result.p50_ms)}, {_number(result.p99_ms)}"


def paragraph(text: str) -> str:
    """Return a text in lines as long as those of a page."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def replaced(page: str, figures: str, begin: str = BEGIN, end: str = END) -> str:
    """Return a page with other figures between its marks.

    Raises:
        ValueError: it has no such marks.
    """
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"there is no {begin} … {end}")
    return f"{before}{begin}\n{figures}\n{end}{after}"


def notes(result: Result) -> list[str]:
    """Return what else is to be said about a run, a line each."""
    said, more = [], result.more
    if result.load_cpu_share > 0.95:
        said.append(f"{result.server}: the load's core was full, so delays are its own in part")
    if "recovered" in more:
        cpu = 1000 * result.server_cpu_seconds / max(1, more["recovered"])
        said.append(
            f"all back in {more['seconds']:.2f} s (half of them within {more['recovery_p50_ms']:,.0f} ms), "
            f"{cpu:.2f} ms of processor time each, {result.deliveries:,} messages"
        )
    if more.get("skipped"):
        said.append(f"{result.deliveries:,} delivered stand for {result.deliveries + more['skipped']:,}")
    if more.get("held"):
        said.append(
            f"{more['held']:,} connections held, {more['held_kib_each']} KiB of resident memory each, all included"
        )
    if syscalls := more.get("syscalls"):
        each = ", ".join(f"{name} {count / max(1, result.deliveries):.3f}" for name, count in syscalls.items())
        said.append(f"{result.server}: system calls per delivery: {each}")
    if more.get("errors"):
        said.append(f"connections that ended: {more['errors']}")
    return said


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.995 else f"{value:.3f}"

"""`python -m benchmarks [S0 S1 …]`: run scenarios, print a table with ratios, say what was reached."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report
from benchmarks.processes import BenchmarkError, Cores, Mosquitto, raise_file_limit, scratch_directory
from benchmarks.profiling import TOOLS, MissingToolError, Profile
from benchmarks.scenarios import SCENARIOS, Bench, Result, Scenario, Server

NEEDS = {"S7": "S2", "S8": "S8/1", "S10": "S9"}
"""What a scenario is compared with."""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="S0 … S11", help="scenarios to run (default: all)")
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement (default: 10)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each N times and take medians")
    parser.add_argument("--check", action="store_true", help="exit with 1 when something required is not reached")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the figures into docs/performance.md")
    parser.add_argument(
        "--scale", type=float, default=1, help="part of the subscribers, for a smaller machine or a test"
    )
    parser.add_argument(
        "--server", choices=["mosquitto", "gateway", "aiomqtt"], action="append", help="measure only this one"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the gateway, such as GATEWAY_FLUSH_INTERVAL=0.005",
    )
    parser.add_argument(
        "--profile",
        choices=TOOLS,
        help="attach a tool; the figures are then not to be compared",
    )
    parser.add_argument("--profile-directory", type=Path, default=Path("build/profiles"), metavar="DIRECTORY")
    parsed = parser.parse_args(argv)
    unknown = [name for name in parsed.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if any("=" not in setting for setting in parsed.set):
        parser.error("--set takes NAME=VALUE")
    return parsed


def chosen(names: list[str]) -> list[Scenario]:
    """Return the scenarios to run, and those that they are compared with."""
    wanted = set(names) or set(SCENARIOS)
    added = {NEEDS[name] for name in wanted & NEEDS.keys()}
    return [scenario for name, scenario in SCENARIOS.items() if name in wanted | added]


def servers_of(scenario: Scenario, options: argparse.Namespace) -> list[Server]:
    """Return what a scenario is run against."""
    only_to_compare = options.scenarios and scenario.name not in options.scenarios
    return [
        server
        for server in scenario.servers
        if (not options.server or server in options.server) and not (only_to_compare and server != "gateway")
    ]


def run(options: argparse.Namespace) -> dict[tuple[str, Server], list[Result]]:
    """Run what was chosen; each scenario's servers take turns, so that a disturbance meets both."""
    profile = None
    if options.profile:
        options.profile_directory.mkdir(parents=True, exist_ok=True)
        profile = Profile(options.profile, options.profile_directory.resolve())
    environment = dict(setting.split("=", 1) for setting in options.set)
    bench = Bench(options.seconds, Cores.of_this_machine(), environment, profile)
    results: dict[tuple[str, Server], list[Result]] = {}
    for scenario in chosen(options.scenarios):
        for turn in range(options.repeat):
            for server in servers_of(scenario, options):
                print(f"{scenario.name} {server}, run {turn + 1} of {options.repeat} …", file=sys.stderr, flush=True)
                result = bench.run(scenario.scaled(options.scale), server)
                results.setdefault((scenario.name, server), []).append(result)
    return results


def machine() -> str:
    """Describe where the figures come from, in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    with scratch_directory() as directory, Mosquitto(directory, None) as mosquitto:
        version = mosquitto.version()
    return (
        f"{model}, {len(Cores.available())} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, Mosquitto {version}"
    )


def commit() -> str:
    """Name what was measured: the commit, and whether something was changed since."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks.

    Returns:
        0, or 1 when `--check` was given and something required was not reached, or 2 when it can't be run here.
    """
    options = arguments(argv)
    if sys.platform != "linux":
        print(
            "The benchmarks need Linux: processor time is read from /proc and the load waits in epoll.", file=sys.stderr
        )
        return 2
    raise_file_limit(20_000)
    try:
        print(f"{machine()}\n{Cores.of_this_machine()}\n")
        runs = run(options)
    except (BenchmarkError, MissingToolError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    medians = {key: report.median(results) for key, results in runs.items()}
    required = report.checks(medians)
    for scenario in chosen(options.scenarios):
        print(report.table(scenario, medians))
        for (name, _), result in medians.items():
            if name == scenario.name:
                for note in report.notes(result):
                    print(f"  {note}")
        for check in required:
            if check.scenario == scenario.name:
                print(f"  {check}")
        print()
    if options.write:
        given = " ".join(sys.argv[1:] if argv is None else argv)
        conditions = report.paragraph(
            f"`python -m benchmarks {given}`, {datetime.now(UTC):%Y-%m-%d}, commit {commit()}: {machine()}; "
            f"{Cores.of_this_machine()}. Delays are from the publisher to the subscriber, of all deliveries."
        )
        figures = f"{conditions}\n\n{report.markdown(chosen(options.scenarios), medians, required)}"
        options.write.write_text(report.replaced(options.write.read_text(), figures))
    if options.json:
        document = {
            "machine": machine(),
            "cores": str(Cores.of_this_machine()),
            "seconds": options.seconds,
            "runs": [
                {**asdict(result), "cpu_us_per_delivery": result.cpu_us_per_delivery}
                for each in runs.values()
                for result in each
            ],
            "checks": [{**asdict(check), "passed": check.passed} for check in required],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if options.check and not all(check.passed for check in required) else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m benchmarks.lines`: clients behind lines that lose packets, and what each of them heard."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report as figures
from benchmarks.__main__ import commit, machine
from benchmarks.lines import report
from benchmarks.lines.namespaces import UnavailableError, means_here
from benchmarks.lines.parts import KINDS, missing_part
from benchmarks.lines.plan import Line, Plan
from benchmarks.lines.run import Options, Outcome, run
from benchmarks.processes import BenchmarkError, scratch_directory

UNAVAILABLE = 3
"""The exit code where network namespaces can't be had."""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    line, plan = Line(), Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lines", description=__doc__)
    names = [kind.name for kind in KINDS]
    parser.add_argument("--client", choices=names, action="append", help="only this kind of client")
    parser.add_argument("--each", type=int, default=1, metavar="N", help="clients of each kind, each with its line")
    parser.add_argument("--seconds", type=float, default=plan.seconds, help=f"of trouble ({plan.seconds:g})")
    parser.add_argument("--delay", type=float, default=line.delay_ms, metavar="MS", help=f"({line.delay_ms:g})")
    parser.add_argument("--jitter", type=float, default=line.jitter_ms, metavar="MS", help=f"± ({line.jitter_ms:g})")
    parser.add_argument("--loss", type=float, default=100 * line.loss, metavar="%", help=f"({100 * line.loss:g})")
    parser.add_argument("--every", type=float, default=plan.every, metavar="SECONDS", help="from cut to cut (30)")
    parser.add_argument("--cut", type=float, default=plan.cut, metavar="SECONDS", help="length of a cut (5)")
    parser.add_argument("--stay", action="store_true", help="no client gets another address by a cut")
    parser.add_argument("--rate", type=float, default=20, help="messages a second (20)")
    parser.add_argument("--settle", type=float, default=120, metavar="SECONDS", help="until all are back (120)")
    parser.add_argument("--seed", type=int, default=1, help="of what is lost, where there is no netem (1)")
    parser.add_argument("--relay", action="store_true", help="delay and lose packets in user space, netem or not")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="an empty place for logs and what was heard")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the gateway")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table into docs/performance.md")
    parsed = parser.parse_args(argv)
    if parsed.every <= parsed.cut:
        parser.error("--every must be longer than --cut")
    if any("=" not in setting for setting in parsed.set):
        parser.error("--set takes NAME=VALUE")
    return parsed


def measured(options: argparse.Namespace) -> tuple[Options, Outcome]:
    """Run what the command line asks for.

    Raises:
        UnavailableError: namespaces can't be had here.
        BenchmarkError: something is missing, or did not do what it was asked.
    """
    means = means_here()
    if options.relay:
        means = "relay"
    if missing := missing_part():
        raise BenchmarkError(f"missing: {missing}")
    wanted = Options(
        kinds=tuple(kind for kind in KINDS if not options.client or kind.name in options.client),
        line=Line(options.delay, options.jitter, options.loss / 100),
        plan=Plan(options.seconds, options.every, options.cut, not options.stay),
        each=options.each,
        rate=options.rate,
        settle=options.settle,
        seed=options.seed,
        settings=dict(setting.split("=", 1) for setting in options.set),
    )
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        if any(options.keep.iterdir()):
            raise BenchmarkError(f"{options.keep} is not empty: what was heard before would be counted again")
        return wanted, run(wanted, means, options.keep.resolve())
    with scratch_directory() as directory:
        return wanted, run(wanted, means, directory)


def conditions(options: Options, outcome: Outcome) -> str:
    """Say under which conditions the figures were measured."""
    means = {
        "netem": "delayed and lost by the kernel's netem",
        "relay": "the kernel has no netem, so packets between two TUN devices are delayed and lost in user space",
    }[outcome.means]
    if outcome.packets:
        means += f": {outcome.packets['dropped']:,} of {outcome.packets['packets']:,} packets lost, cuts included"
    restarts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in outcome.restarts.items())
    return f"Lines: {options.line}; {means}. Restarts took: {restarts or 'none'}."


def main(argv: list[str] | None = None) -> int:
    """Run the clients.

    Returns:
        0; 2 when something is missing or failed; 3 when network namespaces can't be had.
    """
    options = arguments(argv)
    try:
        wanted, outcome = measured(options)
        where = machine()
    except UnavailableError as error:
        print(f"benchmarks.lines: {error}", file=sys.stderr)
        return UNAVAILABLE
    except BenchmarkError as error:
        print(f"benchmarks.lines: {error}", file=sys.stderr)
        return 2
    print(f"{where}\n{conditions(wanted, outcome)}\n\n{report.table(outcome.tallies)}")
    if options.write:
        given = " ".join(sys.argv[1:] if argv is None else argv)
        under = figures.paragraph(
            f"`python -m benchmarks.lines {given}`, {datetime.now(UTC):%Y-%m-%d}, commit {commit()}: {where}. "
            f"{conditions(wanted, outcome)}"
        )
        written = f"{under}\n\n{report.markdown(outcome.tallies)}"
        page = options.write.read_text()
        options.write.write_text(figures.replaced(page, written, report.BEGIN, report.END))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

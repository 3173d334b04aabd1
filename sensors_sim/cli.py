"""The command ``sensors-sim``."""

import argparse
import logging
import random
import signal
import sys
import time
from types import FrameType

from sensors_sim.fleet import SEEDED_START, Fleet, counted_fleet


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="sensors-sim", description="Simulated sensors that publish over MQTT.")
    main.add_argument(
        "--broker", default="mqtt://localhost:1883", metavar="URL", help="mqtt://[user:password@]host:port"
    )
    main.add_argument("--devices", type=_count, default=10, metavar="N", help="how many room sensors (default 10)")
    main.add_argument("--rate", type=_rate, metavar="HZ", help="readings a second of each device (default 0.1)")
    main.add_argument("--seed", type=int, metavar="N", help="same seed, same readings (default: random)")
    main.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="stop after this time")
    main.add_argument("-v", "--verbose", action="store_true", help="say what happens to connections")
    return main


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s")
    # The MQTT library loads only when it is needed: --help is quick.
    from sensors_sim.mqtt import BrokerAddress, raise_file_limit
    from sensors_sim.runner import Runner

    try:
        address = BrokerAddress.parse(arguments.broker)
        seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)  # noqa: S311
        now = time.time()
        start = SEEDED_START if arguments.seed is not None else now + time.localtime(now).tm_gmtoff
        interval = 1 / arguments.rate if arguments.rate else None
        fleet = Fleet(counted_fleet(arguments.devices), seed, start, ts_offset=now - start, interval=interval)
        runner = Runner(fleet, address)
    except ValueError as error:
        print(f"sensors-sim: {error}", file=sys.stderr)
        return 2
    raise_file_limit(len(fleet.devices) + 64)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        runner.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    print(f"{len(fleet.devices)} devices to {address}, seed {seed}", flush=True)
    runner.run(arguments.seconds)
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError("over 0 and at most 1000")
    return value

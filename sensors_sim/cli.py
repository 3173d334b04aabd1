"""The command ``sensors-sim``."""

import argparse
import datetime
import functools
import logging
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gateway.core.durations import parse_duration

if TYPE_CHECKING:
    from sensors_sim.address import BrokerAddress
    from sensors_sim.fleet import Fleet
    from sensors_sim.runner import Runner

DIALECTS = ("native", "homeassistant", "tasmota", "zigbee2mqtt", "esphome", "homie", "senml", "shelly")
# Names only, so that --help loads neither the model nor the MQTT library; a test compares them with the real ones.

EPILOG = """\
commands:
  sensors-sim replay FILE              publish a recording of `gateway record`, or a CSV file
  sensors-sim clone FILTER -o FILE     learn a fleet from live devices
  sensors-sim scenarios                list the ready scenarios
Each has its own --help.

Faults are described in the fleet file, or sent while it runs:
  mosquitto_pub -t sensors/sim-1/cmd -m '{"fault":"stuck","field":"temperature","for":"1m"}'
  mosquitto_pub -t sensors/sim-1/cmd -m '{"clear":true}'

Throughput: a processor core publishes 5,000 messages a second at QoS 1, 10,000 at QoS 0, when devices share clients
(--shared-clients 10); more take --processes. A client for each device needs an open file for each.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    commands: dict[str, Callable[[list[str]], int]] = {"replay": _replay, "clone": _clone, "scenarios": _scenarios}
    try:
        if arguments and arguments[0] in commands:
            return commands[arguments[0]](arguments[1:])
        return _run(arguments)
    except ValueError as error:
        for line in str(error).splitlines():
            print(f"sensors-sim: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line of the simulation itself."""
    main = argparse.ArgumentParser(
        prog="sensors-sim",
        description="Simulated sensors that publish over MQTT.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = main.add_argument_group("what is simulated")
    source = what.add_mutually_exclusive_group()
    source.add_argument("--scenario", metavar="NAME", help="a ready scenario: factory, greenhouse, home or office")
    source.add_argument("--fleet", type=Path, metavar="FILE", help="a fleet described in TOML")
    what.add_argument(
        "--devices",
        type=_count,
        metavar="N",
        help="how many devices: room sensors (default 10), or so many of the scenario or fleet, with lookalikes",
    )
    what.add_argument("--dialect", choices=DIALECTS, default="native", help="topics and payloads (default native)")
    what.add_argument("--seed", type=int, metavar="N", help="same seed, same readings (default: random)")
    when = main.add_argument_group("time")
    when.add_argument("--rate", type=_rate, metavar="HZ", help="readings a second of each device, of the model's time")
    when.add_argument(
        "--speed", type=_speed, default=1.0, metavar="N", help="the model's clock runs N times as fast: 60x"
    )
    when.add_argument(
        "--start", type=_start, metavar="TIME", help="the model's clock begins here, such as 2026-01-15T06:00"
    )
    when.add_argument("--for", dest="seconds", type=_duration, metavar="TIME", help="stop after this time, such as 30s")
    _broker_arguments(main)
    main.add_argument(
        "--shared-clients",
        type=_count,
        metavar="N",
        help="let all devices share N clients, for throughput; they then have no wills of their own",
    )
    main.add_argument(
        "--processes",
        type=_count,
        default=1,
        metavar="N",
        help="share the devices out to N processes, each with its own clients; shows lines and no table",
    )
    main.add_argument("--prefix", default="", metavar="TEXT", help="put in front of every topic: sim/")
    _take_over_argument(main)
    main.add_argument("--qos", type=int, choices=(0, 1, 2), help="QoS of readings (default: the dialect's)")
    output = main.add_argument_group("output")
    output.add_argument("--plain", action="store_true", help="plain lines even in a terminal")
    output.add_argument("-q", "--quiet", action="store_true", help="nothing but errors")
    output.add_argument("-v", "--verbose", action="store_true", help="say what happens to connections")
    return main


def _take_over_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--take-over",
        action="append",
        default=[],
        metavar="FILTER",
        help="publish to topics that match, even where somebody else's messages are; may be given several times",
    )


def _broker_arguments(parser: argparse.ArgumentParser) -> None:
    broker = parser.add_argument_group("broker")
    broker.add_argument(
        "--broker", default="mqtt://localhost:1883", metavar="URL", help="mqtt://[user:password@]host:port, or mqtts://"
    )
    broker.add_argument("--ca", metavar="FILE", help="PEM file of the authority to trust with mqtts://")
    broker.add_argument("--username", metavar="NAME", help="{id} in it stands for the device's id: a user per device")
    broker.add_argument("--password", metavar="TEXT", help="better: SENSORS_SIM_PASSWORD in the environment")
    broker.add_argument(
        "--password-file", type=Path, metavar="FILE", help="user:password per line, for a user per device"
    )


def _run(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    _log(arguments.verbose)
    # The model and the MQTT library load only now: --help is quick.
    from sensors_sim.display import Display, Running
    from sensors_sim.fleet import SEEDED_START
    from sensors_sim.processes import Processes

    address = _address(arguments)
    now = time.time()
    # With a start, ts goes along with what the wall clock shows there and then; else it is the real time.
    arguments.ts_follows = arguments.start is not None
    if arguments.start is None:
        arguments.start = SEEDED_START if arguments.seed is not None else now + _utc_offset(now)
    if arguments.seed is None:
        arguments.seed = random.randrange(1_000_000)  # noqa: S311
    fleet, title = _fleet(arguments)
    _raise_file_limit((arguments.shared_clients or len(fleet.devices) // arguments.processes) + 64)
    stopped = threading.Event()
    _stop_on_signals(stopped.set)
    devices = list(fleet.devices.values())
    silent = [device.interval for device in devices if device.dialect.will(device) is None]
    _refuse_occupied(
        arguments,
        stopped,
        *fleet.wants(arguments.prefix),
        username_id=devices[0].id,
        statuses=fleet.statuses(arguments.prefix),
        look_seconds=max(silent, default=0.0),
        longest_interval=max(device.interval for device in devices) / arguments.speed,
    )
    display = Display(live=False if arguments.plain or arguments.processes > 1 else None)
    on_tick: Callable[[Running], None] | None = None if arguments.quiet else display.tick
    if not arguments.quiet:
        print(f"{len(fleet.devices)} devices{title} to {address}, seed {arguments.seed}", flush=True)
    running: Running
    if stopped.is_set():
        return 0
    if arguments.processes == 1:
        running = runner = _runner(arguments, fleet)
        _stop_on_signals(runner.stop)
        runner.run(arguments.seconds, on_tick)
        is_well = True
    else:
        running = processes = Processes(functools.partial(_part, arguments), arguments.processes)
        _stop_on_signals(processes.stop)
        is_well = processes.run(on_tick)
    if not arguments.quiet:
        print(f"stopped: {display.line(running)}", flush=True)
    return 0 if is_well else 1


def _fleet(arguments: argparse.Namespace, part: tuple[int, int] = (0, 1)) -> "tuple[Fleet, str]":
    """What is simulated, and its title in brackets."""
    from sensors_sim.fleet import Fleet, counted_fleet
    from sensors_sim.scenario import load_fleet, load_scenario

    if arguments.scenario or arguments.fleet:
        spec = load_scenario(arguments.scenario) if arguments.scenario else load_fleet(arguments.fleet)
        if arguments.devices:
            spec = spec.resized(arguments.devices)
    else:
        spec = counted_fleet(arguments.devices or 10)
    interval = 1 / arguments.rate if arguments.rate else None
    fleet = Fleet(spec, arguments.seed, arguments.start, interval=interval, dialect=arguments.dialect, part=part)
    return fleet, f" ({spec.title})" if spec.title else ""


def _runner(arguments: argparse.Namespace, fleet: "Fleet") -> "Runner":
    from sensors_sim.runner import Runner

    fleet.prepare()
    start = arguments.start
    fleet.world.ts_offset = -_utc_offset(start) if arguments.ts_follows else time.time() - start
    return Runner(
        fleet,
        _address(arguments),
        speed=arguments.speed,
        shared_clients=arguments.shared_clients or 0,
        qos=arguments.qos,
        prefix=arguments.prefix,
    )


def _part(arguments: argparse.Namespace, part: tuple[int, int], on_tick: "Callable[[Runner], None]") -> "Runner":
    """Run one process's part of the devices."""
    _log(arguments.verbose)
    runner = _runner(arguments, _fleet(arguments, part)[0])
    runner.run(arguments.seconds, on_tick)
    return runner


def _refuse_occupied(
    arguments: argparse.Namespace,
    stopped: threading.Event,
    wanted: Mapping[str, str],
    marks: Mapping[str, str],
    **options: Any,
) -> None:
    """Wait for the broker, and look whether the topics are free; ``options`` are those of ``occupied``.

    Raises:
        ValueError: Some are not, and may not be taken over.
    """
    from sensors_sim.occupied import occupied

    seconds = getattr(arguments, "seconds", None)
    end = time.monotonic() + (math.inf if seconds is None else seconds)
    taken = occupied(
        _address(arguments),
        wanted,
        marks,
        allowed=arguments.take_over,
        stopping=lambda: stopped.is_set() or time.monotonic() > end,
        **options,
    )
    if time.monotonic() > end:
        stopped.set()
    if taken:
        shown = [f"{topic} is somebody else's: {what}" for topic, what in list(taken.items())[:5]]
        more = [f"and {len(taken) - 5} more topics"] if len(taken) > 5 else []
        advice = "--prefix TEXT publishes beside them, --take-over FILTER over them"
        raise ValueError("\n".join([*shown, *more, advice]))


def _raise_file_limit(wanted: int) -> None:
    from sensors_sim.links import raise_file_limit

    limit = raise_file_limit(wanted)
    if limit < wanted:
        print(
            f"sensors-sim: only {limit} files may be open, so not all clients can connect; see --shared-clients",
            file=sys.stderr,
        )


def _scenarios(argv: list[str]) -> int:
    main = argparse.ArgumentParser(prog="sensors-sim scenarios", description="List the ready scenarios.")
    main.add_argument("--ids", metavar="NAME", help="the ids of this scenario's devices instead, for make_passwords.py")
    wanted = main.parse_args(argv).ids
    from sensors_sim.scenario import load_scenario, scenario_names

    if wanted is not None:
        print(*(device.id for device in load_scenario(wanted).devices))
        return 0
    for name in scenario_names():
        spec = load_scenario(name)
        print(f"{name:12} {len(spec.devices):3} devices  {spec.title}")
    return 0


def _replay(argv: list[str]) -> int:
    main = argparse.ArgumentParser(
        prog="sensors-sim replay",
        description="Publish a recording with its original spacing.",
        epilog="FILE is NDJSON as `gateway record` writes it, or CSV with the columns time, topic and payload "
        "(and qos, retained). A dash reads standard input.",
    )
    main.add_argument("file", help="what to publish")
    main.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="N times as fast: 10x")
    main.add_argument("--loop", action="store_true", help="begin again at the end")
    main.add_argument(
        "--max-gap", type=_duration, metavar="TIME", help="shorten longer silences of the recording to this"
    )
    main.add_argument("--prefix", default="", metavar="TEXT", help="put in front of every topic: replay/")
    _take_over_argument(main)
    main.add_argument("-v", "--verbose", action="store_true", help="say what happens to connections")
    _broker_arguments(main)
    arguments = main.parse_args(argv)
    _log(arguments.verbose)
    from sensors_sim.replay import Replay, read_recording

    address = _address(arguments)
    recording = read_recording(arguments.file)
    stopped = threading.Event()
    _stop_on_signals(stopped.set)
    if not arguments.prefix:  # which would name the place
        topics = {recorded.message.topic: "replay" for recorded in recording}
        _refuse_occupied(arguments, stopped, topics, {}, username_id="replay", statuses={})
    replay = Replay(
        recording,
        address,
        speed=arguments.speed,
        loop=arguments.loop,
        prefix=arguments.prefix,
        max_gap=arguments.max_gap,
    )
    _stop_on_signals(replay.stop)
    print(f"{len(recording)} messages over {recording[-1].offset:.1f} s to {address}", flush=True)
    count = replay.run()
    print(f"stopped: {count} messages published", flush=True)
    return 0


def _clone(argv: list[str]) -> int:
    main = argparse.ArgumentParser(
        prog="sensors-sim clone",
        description="Learn a fleet from live devices: topics, fields, cadence, range, memory and will.",
        epilog="The first wildcard of FILTER is where the device's name stands: 'sensors/#', 'zigbee2mqtt/#', "
        "'tele/#'. A filter that leaves out the status leaves out the will; for 'sensors/+/state', status and meta are "
        "added. Run it with `sensors-sim --fleet FILE`, and `--devices N` for lookalikes.",
    )
    main.add_argument("filter", help="topic filter to listen to")
    main.add_argument(
        "--for", dest="seconds", type=_duration, default=60.0, metavar="TIME", help="how long (default 60s)"
    )
    main.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write (default: standard output)")
    main.add_argument("--devices", type=_count, metavar="N", help="write so many devices: lookalikes of those seen")
    main.add_argument("-v", "--verbose", action="store_true", help="say what happens to connections")
    _broker_arguments(main)
    arguments = main.parse_args(argv)
    _log(arguments.verbose)
    from sensors_sim.clone import Learner, fleet_text, listen

    address = _address(arguments)
    learner = Learner(arguments.filter)
    try:
        if arguments.output:
            arguments.output.open("a").close()  # better now than after listening
    except OSError as error:
        raise ValueError(f"{arguments.output}: {error.strerror}") from None
    print(f"listening to {arguments.filter} on {address} for {arguments.seconds:g} s", file=sys.stderr, flush=True)
    stopped = threading.Event()
    _stop_on_signals(stopped.set)
    listen(address, learner, arguments.seconds, stopped.is_set)
    text = fleet_text(learner, arguments.seconds, arguments.devices)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
        count = text.count("[[device]]")
        print(f"{count} device{'s' if count > 1 else ''} in {arguments.output}", file=sys.stderr)
    else:
        print(text, end="")
    return 0


def _address(arguments: argparse.Namespace) -> "BrokerAddress":
    from sensors_sim.address import BrokerAddress

    return BrokerAddress.parse(
        arguments.broker,
        ca_file=arguments.ca,
        username=arguments.username,
        password=arguments.password or os.environ.get("SENSORS_SIM_PASSWORD"),
        passwords=_passwords(arguments.password_file),
    )


def _passwords(path: Path | None) -> dict[str, str] | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"password file {path}: {error}") from None
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _stop_on_signals(stop: Callable[[], None]) -> None:
    def handler(_signal: int, _frame: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def _log(verbose: bool) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")


def _utc_offset(at: float) -> int:
    return time.localtime(at).tm_gmtoff


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


def _speed(text: str) -> float:
    try:
        value = float(text.strip().removesuffix("x"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r}: a number over 0 and at most 100000, such as 60x")
    return value


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _start(text: str) -> float:
    """Model time: what the wall clock shows, in seconds since 1970."""
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone().replace(tzinfo=None)
        if not 1970 <= moment.year < 3000:
            raise ValueError("a year from 1970 to 2999")
    except (ValueError, OverflowError, OSError):
        expected = "a date and time from 1970 to 2999, such as 2026-01-15T06:00"
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}") from None
    return moment.replace(tzinfo=datetime.UTC).timestamp()

"""sensors_sim/runner.py and display.py against a real Mosquitto, in this process."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sensors_sim.address import BrokerAddress
from sensors_sim.display import Display
from sensors_sim.faults import FaultSpec
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Fleet, FleetSpec, counted_fleet
from sensors_sim.runner import Runner
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

Run = Callable[..., Runner]


@pytest.fixture
def broker(make_mosquitto: Callable[[], Broker]) -> Broker:
    return make_mosquitto()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Publisher]:
    with Publisher(broker.url) as connected:
        connected.subscribe("#")
        yield connected


@pytest.fixture
def run(broker: Broker) -> Iterator[Run]:
    """Runs a fleet on a thread; it is stopped at the end, and must then have ended well."""
    running: list[tuple[Runner, threading.Thread, list[BaseException]]] = []

    def start(spec: FleetSpec, *, interval: float | None = None, dialect: str = "native", **options: Any) -> Runner:
        fleet = Fleet(spec, 7, SEEDED_START, interval=interval, dialect=dialect, ts_offset=time.time() - SEEDED_START)
        runner = Runner(fleet, BrokerAddress.parse(broker.url), **options)
        errors: list[BaseException] = []

        def target() -> None:
            try:
                runner.run()
            except BaseException as error:  # noqa: BLE001  raised again below, in the test's thread
                errors.append(error)

        thread = threading.Thread(target=target, daemon=True)
        running.append((runner, thread, errors))
        thread.start()
        return runner

    yield start
    for runner, thread, errors in running:
        runner.stop()
        thread.join(30)
        assert not thread.is_alive()
        assert not errors, errors


def payloads(listener: Publisher, topic: str) -> list[bytes]:
    return [payload for of, payload in listener.received if of == topic]


def one(kind: str = "climate", **options: Any) -> FleetSpec:
    return FleetSpec((DeviceSpec("a", kind, "A", **options),))


def test_speed_makes_an_hour_pass_in_a_second(run: Run, listener: Publisher) -> None:
    run(one(), interval=60.0, speed=3600.0)
    eventually(lambda: len(payloads(listener, "sensors/a/state")) >= 120, 15, "two hours of readings")
    states = [json.loads(payload) for payload in payloads(listener, "sensors/a/state")[:120]]
    assert states[-1]["ts"] - states[0]["ts"] == pytest.approx(119 * 60, abs=0.01)


def test_a_crash_fires_the_will_and_the_device_comes_back(run: Run, listener: Publisher) -> None:
    run(one(faults=(FaultSpec.parse({"kind": "crash", "after": 1, "for": 2}),)), interval=0.2)
    eventually(lambda: b"offline" in payloads(listener, "sensors/a/status"), 15, "the will")
    assert payloads(listener, "sensors/a/status") == [b"online", b"offline"]
    eventually(lambda: payloads(listener, "sensors/a/status")[-1] == b"online", 15, "it is back")
    boots = {json.loads(payload)["boot"] for payload in payloads(listener, "sensors/a/state")}
    eventually(
        lambda: len(boots | {json.loads(p)["boot"] for p in payloads(listener, "sensors/a/state")}) == 2,
        10,
        "a new boot",
    )


@pytest.mark.slow
def test_flapping_loses_no_reading(run: Run, listener: Publisher) -> None:
    run(one(faults=(FaultSpec.parse({"kind": "flapping", "after": 1, "for": 4, "size": 2}),)), interval=0.1)
    eventually(lambda: payloads(listener, "sensors/a/status").count(b"offline") >= 2, 15, "two wills")
    eventually(lambda: len(payloads(listener, "sensors/a/state")) >= 70, 15, "seven seconds of readings")
    numbers = [json.loads(payload)["seq"] for payload in payloads(listener, "sensors/a/state")]
    assert sorted(set(numbers)) == list(range(max(numbers) + 1))


def test_a_sleeper_says_so_and_is_never_offline_until_the_end(run: Run, listener: Publisher, broker: Broker) -> None:
    runner = run(one("thermometer"), interval=60.0, speed=60.0)
    eventually(lambda: len(payloads(listener, "sensors/a/state")) >= 3, 20, "three readings")
    statuses = payloads(listener, "sensors/a/status")
    assert statuses[:4] == [b"online", b"sleeping", b"online", b"sleeping"]
    assert b"offline" not in statuses
    eventually(lambda: "Client sensors-sim-a disconnected" in broker.log(), 10)
    runner.stop()
    eventually(lambda: payloads(listener, "sensors/a/status")[-1] == b"offline", 10, "marked offline at the end")


@pytest.mark.slow
def test_devices_that_share_clients_speak_as_if_they_had_their_own(
    run: Run, listener: Publisher, broker: Broker
) -> None:
    runner = run(counted_fleet(40), interval=0.5, shared_clients=3)
    names = [f"sim-{number}" for number in range(1, 41)]
    eventually(lambda: all(payloads(listener, f"sensors/{name}/state") for name in names), 15)
    assert (runner.clients, runner.links.up) == (3, 3)
    listener.publish("sensors/sim-7/cmd", b'{"reboot":true}')
    listener.wait_for("sensors/sim-7/status", b"offline")
    eventually(lambda: payloads(listener, "sensors/sim-7/status") == [b"online", b"offline", b"online"], 15)
    runner.stop()
    eventually(lambda: all(payloads(listener, f"sensors/{name}/status")[-1] == b"offline" for name in names), 10)


def test_a_bridge_is_announced_once_and_taken_back(run: Run, listener: Publisher) -> None:
    runner = run(counted_fleet(3), interval=0.5, dialect="zigbee2mqtt")
    eventually(lambda: payloads(listener, "zigbee2mqtt/sim-3"), 10)
    runner.stop()
    eventually(lambda: b'{"state":"offline"}' in payloads(listener, "zigbee2mqtt/bridge/state"), 10)
    assert payloads(listener, "zigbee2mqtt/bridge/state") == [b'{"state":"online"}', b'{"state":"offline"}']
    assert len(payloads(listener, "zigbee2mqtt/bridge/devices")) == 1


def test_faults_may_be_sent_while_it_runs(run: Run, listener: Publisher) -> None:
    run(one(), interval=0.1)
    eventually(lambda: payloads(listener, "sensors/a/state"), 10)
    listener.publish("sensors/a/cmd", b'{"fault":"stuck","field":"co2"}')
    listener.publish("sensors/a/cmd", b'{"fault":"malformed"}')

    def is_broken(payload: bytes) -> bool:
        try:
            json.loads(payload)
        except ValueError:
            return True
        return b"NaN" in payload

    eventually(lambda: any(is_broken(payload) for payload in payloads(listener, "sensors/a/state")), 10)
    listener.publish("sensors/a/cmd", b'{"clear":true}')
    eventually(lambda: not any(is_broken(payload) for payload in payloads(listener, "sensors/a/state")[-5:]), 10)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_tell_devices_rate_and_errors(run: Run, listener: Publisher) -> None:
    runner = run(counted_fleet(2), interval=0.1)
    eventually(lambda: len(payloads(listener, "sensors/sim-1/state")) >= 5, 10)
    line = Display(io.StringIO()).line(runner)
    for part in ("2 devices", "2/2 clients up", "messages", "0 dropped", "0 connection failures"):
        assert part in line


def test_a_terminal_gets_a_table_that_is_drawn_over_itself(run: Run, listener: Publisher) -> None:
    runner = run(counted_fleet(3), interval=0.1)
    terminal = Terminal()
    display = Display(terminal)
    assert display.live
    display.tick(runner)
    first = terminal.getvalue()
    assert first.count("\n") == 5, "head, three devices, summary"
    assert "\x1b[5A" not in first
    eventually(lambda: len(runner.last_of) == 3, 10)
    display._next = 0.0
    display.tick(runner)
    second = terminal.getvalue()[len(first) :]
    assert second.startswith("\x1b[5A"), "back to the first row"
    assert "temperature" in second
    assert "online" in second


def test_a_table_shows_no_more_devices_than_there_are_rows(
    run: Run, listener: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", "12")
    monkeypatch.setenv("COLUMNS", "60")
    lines = Display(Terminal()).table(run(counted_fleet(50), interval=1.0))
    assert len(lines) == 11
    assert "… and 42 more" in lines
    assert max(len(line) for line in lines) < 60

"""The command ``sensors-sim`` as a process, against a real Mosquitto."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually, free_port

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def simulate() -> Iterator[Start]:
    """Starts the simulator with these arguments; what still runs is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(broker: Broker | str, *arguments: object) -> subprocess.Popen[str]:
        url = broker if isinstance(broker, str) else broker.url
        command = [sys.executable, "-m", "sensors_sim", "--broker", url, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def states(publisher: Publisher, device: str = "sim-1") -> list[dict[str, Any]]:
    return [json.loads(payload) for topic, payload in publisher.received if topic == f"sensors/{device}/state"]


def retained(broker: Broker, topic: str) -> bytes | None:
    """What the broker keeps for ``topic``."""
    with Publisher(broker.url) as reader:
        reader.subscribe(topic)
        eventually(lambda: reader.received, 5, f"a retained {topic}")
        return reader.received[0][1]


@pytest.mark.slow
def test_ten_devices_publish_state_status_and_meta(make_mosquitto: Callable[[], Broker], simulate: Start) -> None:
    broker = make_mosquitto()
    with Publisher(broker.url) as listener:
        listener.subscribe("sensors/#")
        process = simulate(broker, "--devices", 10, "--rate", 5, "--seed", 7)
        names = [f"sim-{number}" for number in range(1, 11)]
        eventually(lambda: all(len(states(listener, name)) >= 3 for name in names), 15, "three states of each device")
        state = next(message for message in listener.messages if message.topic == "sensors/sim-1/state")
        assert (state.qos, state.retain) == (1, False)
        assert [reading["seq"] for reading in states(listener)[:3]] == [0, 1, 2]
        assert {"ts", "seq", "boot", "temperature", "humidity", "co2"} <= states(listener)[0].keys()
        assert retained(broker, "sensors/sim-1/status") == b"online"
        meta = json.loads(retained(broker, "sensors/sim-1/meta") or b"")
        assert meta["simulated"] is True
        assert meta["interval"] == 0.2
        assert meta["fields"]["temperature"]["unit"] == "°C"

        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for name in names:
            assert retained(broker, f"sensors/{name}/status") == b"offline"
    # A client that left with DISCONNECT is told apart from one that "closed its connection".
    eventually(lambda: all(f"Client sensors-sim-{name} disconnected" in broker.log() for name in names), 10)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_readings(make_mosquitto: Callable[[], Broker], simulate: Start) -> None:
    def readings() -> list[dict[str, Any]]:
        broker = make_mosquitto()
        with Publisher(broker.url) as listener:
            listener.subscribe("sensors/#")
            process = simulate(broker, "--devices", 2, "--rate", 20, "--seed", 7)
            eventually(lambda: len(states(listener)) >= 10, 15, "ten states")
            process.terminate()
            return [{name: value for name, value in state.items() if name != "ts"} for state in states(listener)[:10]]

    assert readings() == readings()


def test_the_broker_publishes_the_will_of_a_killed_simulator(
    make_mosquitto: Callable[[], Broker], simulate: Start
) -> None:
    broker = make_mosquitto()
    with Publisher(broker.url) as listener:
        listener.subscribe("sensors/+/status")
        process = simulate(broker, "--devices", 2)
        listener.wait_for("sensors/sim-2/status", b"online")
        process.kill()
        listener.wait_for("sensors/sim-2/status", b"offline")


@pytest.mark.slow
def test_a_reboot_by_command_fires_the_will_and_comes_back(
    make_mosquitto: Callable[[], Broker], simulate: Start
) -> None:
    broker = make_mosquitto()
    with Publisher(broker.url) as listener:
        listener.subscribe("sensors/#")
        simulate(broker, "--devices", 1, "--rate", 10)
        eventually(lambda: states(listener), 10, "a state")
        boot = states(listener)[0]["boot"]
        listener.publish("sensors/sim-1/cmd", b'{"reboot":true}')
        listener.wait_for("sensors/sim-1/status", b"offline")
        eventually(lambda: states(listener)[-1]["boot"] == boot + 1, 15, "a state after the restart")
        assert next(state for state in states(listener) if state["boot"] == boot + 1)["seq"] == 0


@pytest.mark.slow
def test_a_broker_that_comes_late_or_restarts_gets_everything_kept(
    make_mosquitto: Callable[[], Broker], simulate: Start
) -> None:
    broker = make_mosquitto()
    broker.stop()
    process = simulate(broker, "--devices", 2, "--rate", 5, "-v")
    assert process.stderr is not None
    assert "trying again" in process.stderr.readline()
    broker.start()
    with Publisher(broker.url) as listener:
        listener.subscribe("sensors/sim-1/state")
        eventually(lambda: len(states(listener)) > 5, 20, "states from the late broker")
    broker.restart()
    with Publisher(broker.url) as listener:
        listener.subscribe("sensors/+/state")
        eventually(lambda: len(states(listener, "sim-2")) > 5, 20, "states after the restart")
    assert process.poll() is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--broker", "http://x"], "expected mqtt://"),
        (["--broker", "mqtt://x:99999"], "Port"),
        (["--devices", "0"], "at least 1"),
        (["--rate", "0"], "over 0"),
    ],
)
def test_a_wrong_argument_is_one_clear_message(arguments: list[str], text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sensors_sim", *arguments], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert text.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_broker_that_is_nowhere_leaves_a_simulator_that_can_be_stopped(simulate: Start, tmp_path: Path) -> None:
    process = simulate(f"mqtt://127.0.0.1:{free_port()}", "--devices", 3, "-v")
    assert process.stderr is not None
    assert "trying again" in process.stderr.readline()
    process.terminate()
    assert process.wait(30) == 0


@pytest.mark.slow
def test_processes_share_the_devices_out_and_speak_as_one(
    make_mosquitto: Callable[[], Broker], simulate: Start
) -> None:
    def first_readings(*arguments: object) -> tuple[list[Any], list[tuple[str, bytes]], str]:
        broker = make_mosquitto()
        with Publisher(broker.url) as listener:
            listener.subscribe("#")
            process = simulate(broker, "--devices", 4, "--rate", 5, "--seed", 7, "--dialect", "zigbee2mqtt", *arguments)
            topics = [f"zigbee2mqtt/sim-{number}" for number in range(1, 5)]
            eventually(lambda: all(topic in dict(listener.received) for topic in topics), 30, "each device speaks")
            process.terminate()
            out, _ = process.communicate(timeout=20)
            assert process.returncode == 0
            listener.wait_for("zigbee2mqtt/bridge/state", b'{"state":"offline"}')
            received = list(listener.received)
        readings = [next(payload for of, payload in received if of == topic) for topic in topics]
        return readings, received, out

    alone, _, _ = first_readings()
    together, received, out = first_readings("--processes", 2)
    assert together == alone
    (bridge,) = [payload for topic, payload in received if topic == "zigbee2mqtt/bridge/devices"]
    assert len(json.loads(bridge)) == 5, "all devices and the coordinator, told by one process"
    last = dict(received)
    assert all(last[f"zigbee2mqtt/sim-{number}/availability"] == b'{"state":"offline"}' for number in range(1, 5))
    assert "stopped: 4 devices, 0/4 clients up" in out


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(make_mosquitto: Callable[[], Broker], simulate: Start) -> None:
    broker = make_mosquitto()
    with Publisher(broker.url) as listener:
        listener.subscribe("sensors/+/status")
        process = simulate(broker, "--devices", 4, "--processes", 2)
        eventually(lambda: len(listener.received) == 4, 30, "four devices online")
        process.kill()
        eventually(lambda: [payload for _, payload in listener.received[4:]] == [b"offline"] * 4, 20, "all offline")

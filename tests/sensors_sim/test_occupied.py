"""sensors_sim/occupied.py, and the command, beside devices that are somebody else's; against a real Mosquitto."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sensors_sim.address import BrokerAddress
from sensors_sim.dialects.all import DIALECTS
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Fleet, FleetSpec
from sensors_sim.messages import Message
from sensors_sim.occupied import occupied
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

META = b'{"schema":1,"name":"Real","model":"ESP32 + BME280","firmware":"1","interval":10,"fields":{"temperature":{}}}'


def sim(broker: Broker, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sensors_sim", *map(str, arguments), "--broker", broker.url]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def retained(broker: Broker, topic_filter: str = "#") -> dict[str, bytes]:
    with Publisher(broker.url) as reader:
        reader.subscribe(topic_filter)
        reader.publish("end", b"1")
        reader.subscribe("end")
        reader.publish("end", b"2")
        reader.wait_for("end", b"2")
        return {message.topic: bytes(message.payload) for message in reader.messages if message.retain}


@pytest.fixture
def real(make_mosquitto: Callable[[], Broker]) -> Broker:
    """A broker that a board has spoken to."""
    broker = make_mosquitto()
    with Publisher(broker.url) as board:
        board.publish("sensors/a/status", b"online", retain=True)
        board.publish("sensors/a/meta", META, retain=True)
    return broker


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text('[[device]]\nid = "a"\n', encoding="utf-8")
    return path


def test_devices_of_somebody_else_are_left_alone(real: Broker, fleet_file: Path) -> None:
    before = retained(real)
    done = sim(real, "--fleet", fleet_file, "--rate", 10, "--for", "3s")
    assert done.returncode == 2
    assert "sensors/a/status is somebody else's: retained there: b'online'" in done.stderr
    assert "--prefix" in done.stderr
    assert retained(real) == before


@pytest.mark.slow
def test_a_prefix_publishes_beside_them(real: Broker, fleet_file: Path) -> None:
    before = retained(real)
    assert sim(real, "--fleet", fleet_file, "--rate", 10, "--for", "3s", "--prefix", "sim/").returncode == 0
    after = retained(real)
    assert {topic: after[topic] for topic in before} == before
    assert after["sim/sensors/a/status"] == b"offline"
    # and again: what this simulator left is its own
    assert sim(real, "--fleet", fleet_file, "--rate", 10, "--for", "1s", "--prefix", "sim/").returncode == 0


@pytest.mark.slow
def test_they_are_taken_over_by_name(real: Broker, fleet_file: Path) -> None:
    done = sim(real, "--fleet", fleet_file, "--rate", 10, "--for", "2s", "--take-over", "sensors/a/#")
    assert done.returncode == 0, done.stderr
    assert json.loads(retained(real)["sensors/a/meta"])["simulated"] is True


@pytest.mark.slow
def test_a_recording_is_not_played_over_live_devices(real: Broker, tmp_path: Path) -> None:
    recording = tmp_path / "r.ndjson"
    recording.write_text('{"topic":"sensors/a/status","payload":"offline","retained":true,"qos":1,"time":1}\n')
    before = retained(real)
    done = sim(real, "replay", recording)
    assert (done.returncode, "sensors/a/status is somebody else's" in done.stderr) == (2, True)
    assert retained(real) == before
    assert sim(real, "replay", recording, "--prefix", "replay/").returncode == 0
    assert sim(real, "replay", recording, "--take-over", "sensors/a/status").returncode == 0
    assert retained(real)["sensors/a/status"] == b"offline"


@pytest.mark.parametrize("kind", ["climate", "plug", "motion"])
@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_a_dialect_names_every_topic_that_it_publishes_to(dialect: str, kind: str) -> None:
    from paho.mqtt.client import topic_matches_sub

    fleet = Fleet(FleetSpec((DeviceSpec("a_1", kind, "A"),)), 7, SEEDED_START, interval=1, dialect=dialect)
    (device,) = fleet.devices.values()
    said = [event.what for event in fleet.take(SEEDED_START + 2) if isinstance(event.what, Message)]
    speaks = device.dialect
    said += [*speaks.birth(device), *speaks.sleep(device), *speaks.death(device)]
    said += [*speaks.fleet_birth([device]), *speaks.fleet_death()]
    wanted, marks = fleet.wants()
    for message in said:
        assert any(topic_matches_sub(wish, message.topic) for wish in wanted), message.topic
    mark = speaks.mark(device)
    assert set(marks.values()) <= {"a_1", "sensors-sim"}
    assert (mark.topic if mark else "sensors/a_1/meta") in marks


@pytest.mark.parametrize("dialect", ["tasmota", "zigbee2mqtt", "homie"])
@pytest.mark.slow
def test_a_simulator_knows_its_own_devices_again(make_mosquitto: Callable[[], Broker], dialect: str) -> None:
    broker = make_mosquitto()
    for _ in range(2):
        done = sim(broker, "--devices", 2, "--dialect", dialect, "--rate", 10, "--for", "2s")
        assert done.returncode == 0, done.stderr


def test_what_is_alive_is_somebody_elses_even_if_it_is_simulated(make_mosquitto: Callable[[], Broker]) -> None:
    broker = make_mosquitto()
    with Publisher(broker.url) as other:
        other.publish("sensors-sim/a", b'{"simulated":true}', retain=True)
        other.publish("tele/a/LWT", b"Online", retain=True)
        heard: dict[str, str] = {}

        def look() -> bool:
            found = occupied(
                BrokerAddress.parse(broker.url),
                {"tele/a/#": "a"},
                {"sensors-sim/a": "a"},
                allowed=[],
                username_id="a",
                statuses={},
                stopping=speak,
            )
            heard.update(found)
            return bool(found)

        def speak() -> bool:
            other.publish("tele/a/SENSOR", b"{}")
            return False

        eventually(look, 20)
    assert list(heard) == ["tele/a/SENSOR"]


@pytest.mark.parametrize("dialect", ["native", "esphome"])
@pytest.mark.slow
def test_a_second_simulator_leaves_the_devices_of_the_first_alone(
    make_mosquitto: Callable[[], Broker], dialect: str
) -> None:
    broker = make_mosquitto()
    words = ["--devices", "2", "--dialect", dialect, "--rate", "1", "--broker", broker.url]
    first = subprocess.Popen([sys.executable, "-m", "sensors_sim", *words, "-q"])
    try:
        with Publisher(broker.url) as listener:
            listener.subscribe("#")
            eventually(lambda: len(listener.received) > 10, 20, "the first one speaks")
        done = sim(broker, *words[:-2], "--for", "5s")
        assert (done.returncode, "is somebody else's: published there" in done.stderr) == (2, True)
    finally:
        first.kill()
        first.wait()


@pytest.mark.slow
def test_what_a_killed_simulator_left_behind_is_its_own(make_mosquitto: Callable[[], Broker]) -> None:
    broker = make_mosquitto()
    with Publisher(broker.url) as left:
        left.publish("sensors/sim-1/meta", b'{"simulated":true}', retain=True)
        left.publish("sensors/sim-1/status", b"online", retain=True)
    assert sim(broker, "--devices", 1, "--rate", 5, "--for", "2s").returncode == 0

"""What stands in a file, comes from a broker or is typed gives one clear error or is passed over, never a traceback."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors_sim.clone import Learner, _toml, fleet_text
from sensors_sim.custom import checked_topic
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Fleet, FleetSpec
from sensors_sim.messages import Message
from sensors_sim.replay import read_recording
from sensors_sim.scenario import ScenarioError, parse_fleet

DEEP = b"[" * 100_000


def test_a_payload_that_is_nested_deep_is_learned_as_text() -> None:
    learner = Learner("d/+/#")
    for t in range(3):
        for payload in (DEEP, b'{"a":' * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500):
            learner.hear(f"d/x/{len(payload)}", payload, float(t))
    learner.hear("sensors/x/meta", DEEP, 4.0, retained=True)
    text = fleet_text(learner, 3)
    assert text.count('format = "text"') == 2
    assert "constant-json" in text, "what is as deep as JSON may be here"
    Fleet(parse_fleet(text), 7, SEEDED_START)


def test_a_deep_meta_is_passed_over() -> None:
    learner = Learner("sensors/#")
    learner.hear("sensors/x/meta", DEEP, 0.0, retained=True)
    learner.hear("sensors/x/state", b"1", 1.0)
    assert fleet_text(learner, 3)


@pytest.mark.parametrize(
    "payload",
    [
        DEEP,
        b'{"fault":"spike","size":1' + b"0" * 400 + b"}",
        b'{"interval":1' + b"0" * 400 + b"}",
        b'{"fault":"stuck","for":1' + b"0" * 400 + b"}",
        b'{"fault":"stuck","after":1e308}',
        b"\xff",
    ],
)
def test_a_command_that_makes_no_sense_is_told_and_the_fleet_goes_on(payload: bytes, caplog: Any) -> None:
    fleet = Fleet(FleetSpec((DeviceSpec("a", "climate", "A"),)), 7, SEEDED_START, interval=1)
    assert fleet.command("sensors/a/cmd", payload, SEEDED_START) == []
    assert "a: " in caplog.text
    assert len(list(fleet.take(SEEDED_START + 5))) == 5


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("r.csv", b"time,topic,payload\n1,a,x\n2,+,x\n", "line 3"),
        ("r.csv", b"time,topic,payload\nnan,a,x\n", "line 2: time"),
        ("r.csv", b"time,topic,payload\n1e300,a,x\n", "line 2: time"),
        ("r.csv", b"time,topic,payload,qos\n1,a,x,\xc2\xb2\n", "line 2: qos"),
        ("r.csv", b"time,topic,payload\n1,a,\xff\n", "utf-8"),
        ("r.csv", b'time,topic,payload\n1,a,"two\nlines"\n2,#,x\n', "line 4"),
        ("r.csv", b"time,topic,payload\n1," + b"a" * 70_000 + b",x\n", "line 2: topic"),
        ("r.ndjson", b'{"topic":"a","payload":1,"time":1}\n{"topic":"a","payload":' + DEEP + b"}\n", "line 2"),
        ("r.ndjson", b'{"topic":"a","payload":1,"time":1e300}\n', "line 1: time"),
        ("r.ndjson", b'{"topic":"a","time":"soon"}\n', "line 1: time"),
        ("r.ndjson", b'{"topic":5}\n', "line 1"),
        ("r.ndjson", b"\n\n", "no message"),
    ],
)
def test_a_recording_that_is_wrong_is_told_with_file_and_line(
    name: str, data: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match="recording") as raised:
        read_recording(str(path))
    assert str(path) in str(raised.value)
    assert told in str(raised.value)
    assert len(str(raised.value)) < 500 + len(str(path))


def test_a_cell_of_a_megabyte_is_played(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("time,topic,payload\n1,a," + "x" * (1 << 20) + "\n", encoding="utf-8")
    assert len(read_recording(str(path))[0].message.payload) == 1 << 20


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "{a=" * 100_000, "\x00"])
def test_a_fleet_file_that_is_nested_deep_is_told(text: str) -> None:
    with pytest.raises(ScenarioError, match="fleet: "):
        parse_fleet(text)


WHOLE: dict[str, Any] = {
    "title": "T",
    "site": {"latitude": 50.0, "altitude": 100.0, "mean": 10.0, "yearly": 9.0, "daily": 5.0},
    "defaults": {"interval": "1s"},
    "device": [
        {"id": "a", "kind": "climate", "count": 2,
         "fault": [{"kind": "stuck", "field": "co2", "size": 1.0, "for": "1s"}]},
        {"id": "b", "kind": "meter", "options": {"appliances": ["fridge"], "base": 10.0}},
        {"id": "c", "kind": "tracker", "options": {"latitude": 1.0, "radius": 500.0, "speed": 30.0, "charge": 0.5}},
        {"id": "d", "kind": "machine", "options": {"onset_hours": 1.0, "growth_hours": 2.0, "watts": 100.0}},
        {
            "id": "e", "kind": "custom", "name": "E", "vary": True, "units": {"x": {"unit": "V"}},
            "status": {"topic": "t/{id}/s", "online": "1", "offline": "0", "qos": 1, "retain": True},
            "constant": [{"topic": "t/{name}/c", "payload": "aGE=", "qos": 0, "retain": True, "encoding": "base64"}],
            "stream": [
                {
                    "topic": "t/{id}/x", "qos": 1, "retain": False, "every": 2,
                    "field": [
                        {"name": "x", "mean": 1.0, "deviation": 1.0, "memory": "1s", "low": 0.0, "high": 2.0,
                         "decimals": 1},
                        {"name": "n", "model": "counter", "start": 1, "rate": 1.0},
                        {"name": "c", "model": "choice", "choices": ["a", 1], "hold": "1s"},
                        {"name": "j", "model": "constant-json", "start": "[1]"},
                        {"name": "t", "model": "clock", "rate": 1000.0},
                    ],
                }
            ],
        },
    ],
}  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each container in ``value`` with each of its keys."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


JUNK = st.sampled_from(
    [0, -1, 1, 2.5, 1e300, -1e300, float("nan"), float("inf"), 10**400, "", "x", "#", "a/+", "\x00", "1h", "{id}",
     "é" * 40_000, True, [], [[]], [1], ["x"], [{}], {}, {"x": 1}, {"x": {"x": [1]}}]
)  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_fleet_file_is_refused_or_runs(data: st.DataObject) -> None:
    described = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 2))):
        holder, key = data.draw(st.sampled_from(places(described)))
        holder[key] = copy.deepcopy(data.draw(JUNK))
    text = "\n".join(f"{name} = {_toml(value)}" for name, value in described.items())
    try:
        fleet = Fleet(parse_fleet(text), 7, SEEDED_START)
    except ValueError:
        return
    messages = [message for device in fleet.devices.values() for message in device.dialect.birth(device)]
    messages += [message for device in fleet.devices.values() for message in device.dialect.death(device)]
    messages += [event.what for event in fleet.take(SEEDED_START + 3) if isinstance(event.what, Message)]
    for message in messages:
        checked_topic(message.topic)
        assert isinstance(message.payload, bytes)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--start", "0001-01-01T00:00+05:00"], "1970 to 2999"),
        (["--start", "9999-12-31T23:59"], "1970 to 2999"),
        (["--for", "1" + "0" * 400], "must be from 0 to 300 years"),
        (["--fleet", "."], "directory"),
        (["--password-file", "{junk}"], "password file"),
        (["--broker", "mqtts://localhost", "--ca", "{junk}"], "CA file"),
        (["replay", "{junk}"], "line 1"),
        (["replay", "."], "directory"),
        (["clone", "a/#", "-o", "/nowhere/fleet.toml"], "/nowhere/fleet.toml"),
        (["clone", "a/#/b"], "topic filter"),
        (["--scenario", "moon"], "unknown scenario"),
    ],
)
def test_what_is_typed_wrong_is_one_clear_message(arguments: list[str], told: str, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(os.urandom(64).replace(b"\n", b"\xff").replace(b"\r", b"\xff") + b"\xff\n")
    words = [word.replace("{junk}", str(junk)) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "sensors_sim", *words], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert told.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert json.dumps(done.stdout) == '""'

"""The ESPHome example and the Arduino sketch publish the same topics and payloads as the simulator and the firmware."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from firmware import files
from sensors_sim import payloads
from tests.support.waiting import missing

FOLDER = Path(files.__file__).parent
ESPHOME = FOLDER / "esphome" / "sensor.yaml"
SKETCH = FOLDER / "arduino" / "sensor" / "sensor.ino"
HOST = Path(__file__).with_name("arduino")


# -- ESPHome


class Tags(yaml.SafeLoader):
    """YAML with ESPHome's tags, which are taken as texts."""


Tags.add_multi_constructor("!", lambda _loader, suffix, node: f"!{suffix} {node.value}")


def example() -> tuple[dict[str, Any], str]:
    """The example as data, and as text with its substitutions made."""
    text = ESPHOME.read_text()
    config = yaml.load(text, Loader=Tags)
    for name, value in config["substitutions"].items():
        text = text.replace("${" + name + "}", value)
    return yaml.load(text, Loader=Tags), text


def test_esphome_uses_the_topics() -> None:
    config, text = example()
    sensor_id = config["substitutions"]["id"]
    assert payloads.is_valid_id(sensor_id)
    used = set(re.findall(r"topic: (sensors/\S+)", text))
    assert used == {
        payloads.state_topic(sensor_id),
        payloads.status_topic(sensor_id),
        payloads.meta_topic(sensor_id),
        payloads.cmd_topic(sensor_id),
    }
    will = config["mqtt"]["will_message"]
    assert will == {"topic": payloads.status_topic(sensor_id), "payload": "offline", "qos": 1, "retain": True}
    assert config["mqtt"]["birth_message"]["payload"] == payloads.ONLINE


def test_esphome_names_and_describes_its_fields_as_we_do() -> None:
    _, text = example()
    described = re.findall(r'field\("(\w+)", "(.*?)", "(\w+)", (-?\d+), (-?\d+)\)', text)
    assert len(described) == 4
    for name, unit, device_class, low, high in described:
        assert payloads.field_meta(name) == {
            "unit": unit,
            "device_class": device_class,
            "min": int(low),
            "max": int(high),
        }
    published = {name: int(decimals) for name, decimals in re.findall(r'add\("(\w+)", .*, (\d)\);', text)}
    assert published == {name: payloads.FIELDS[name][4] for name, *_ in described}


def test_esphome_counts_a_start_in_flash_at_once() -> None:
    config, _ = example()
    steps = config["esphome"]["on_boot"]["then"][0]["lambda"].split("\n")
    code = [step for step in steps if not step.startswith("//")]
    assert code[-3:] == ["id(boot) += 1;", "saved.save(&id(boot));", "global_preferences->sync();"]
    boot = next(each for each in config["globals"] if each["id"] == "boot")
    assert "restore_value" not in boot  # or it would be read and written a second time, and later


@pytest.mark.slow
def test_esphome_accepts_the_example(installed: Callable[[str], Path], tmp_path: Path) -> None:
    program = shutil.which("esphome")
    if program is None:
        program = str(installed("esphome") / "bin" / "esphome")
    shutil.copy(ESPHOME, tmp_path)
    names = sorted(set(re.findall(r"!secret (\w+)", ESPHOME.read_text())))
    (tmp_path / "secrets.yaml").write_text("".join(f"{name}: {name}-1234\n" for name in names))
    done = subprocess.run([program, "config", "sensor.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Configuration is valid!" in done.stdout + done.stderr


# -- Arduino


SKETCH_SECRETS = """\
#pragma once
#define WIFI_SSID "home"
#define WIFI_PASSWORD "correct horse"
#define MQTT_URL "mqtt://192.0.2.1"
#define MQTT_USERNAME nullptr
#define MQTT_PASSWORD nullptr
"""


@pytest.fixture(scope="module")
def sketch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sketch, compiled for this computer."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        missing("a C++ compiler")
    folder = tmp_path_factory.mktemp("arduino")
    program = folder / "sketch"
    # the sketch looks for it in its own folder first, where there is none; git ignores every file of this name
    (folder / "secrets.h").write_text(SKETCH_SECRETS, encoding="utf-8")
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
    command += [f"-I{folder}", f"-I{HOST}"]
    source = [f'-DSKETCH="{SKETCH}"', str(HOST / "host.cpp"), "-o", str(program)]
    done = subprocess.run([*command, *source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def run_sketch(sketch: Path, *commands: str, **environment: str) -> tuple[int, list[tuple[str, int, int, str]]]:
    """Five minutes of the sketch: its end (17 is a restart), and what it published."""
    done = subprocess.run(
        [str(sketch)],
        input="".join(command + "\n" for command in commands),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    published = []
    for line in done.stdout.splitlines():
        topic, qos, retain, payload = line.split("\t")
        published.append((topic, int(qos), int(retain), payload))
    return done.returncode, published


SKETCH_ID = "esp32-123456"  # of the MAC address 24:0a:c4:12:34:56, as on a board with our firmware


def test_the_sketch_announces_itself(sketch: Path) -> None:
    code, published = run_sketch(sketch)
    assert code == 0
    assert published[0] == ("WILL", 1, 1, f"{payloads.status_topic(SKETCH_ID)} offline")
    assert published[1] == ("SUBSCRIBE", 1, 0, payloads.cmd_topic(SKETCH_ID))
    assert published[2] == (payloads.status_topic(SKETCH_ID), 1, 1, payloads.ONLINE)
    topic, qos, retain, text = published[3]
    assert (topic, qos, retain) == (payloads.meta_topic(SKETCH_ID), 1, 1)
    meta = json.loads(text)
    fields = ["temperature", "humidity", "pressure", "rssi"]
    expected = payloads.meta_payload(meta["name"], meta["model"], meta["firmware"], 10, fields)
    assert meta == json.loads(expected)


def test_the_sketchs_readings_are_those_of_our_module(sketch: Path) -> None:
    _, published = run_sketch(sketch)
    states = [entry for entry in published if entry[0] == payloads.state_topic(SKETCH_ID)]
    assert 29 <= len(states) <= 31
    assert {(qos, retain) for _, qos, retain, _ in states} == {(1, 0)}
    for number, (_, _, _, text) in enumerate(states):
        state = json.loads(text)
        readings: dict[str, object] = {"temperature": 21.456, "humidity": 44.14, "pressure": 1006.5327, "rssi": -61}
        ts_ms = round(state["ts"] * 1000)
        assert state == json.loads(payloads.state_payload(readings, number, 7, ts_ms=ts_ms))
        assert re.match(r'\{"ts":\d{10}\.\d{3},', text)


def test_the_sketch_leaves_out_what_it_could_not_measure(sketch: Path) -> None:
    _, published = run_sketch(sketch, NO_HUMIDITY="1")
    state = json.loads(next(text for topic, _, _, text in published if topic.endswith("/state")))
    assert set(state) == {"ts", "seq", "boot", "temperature", "pressure", "rssi"}
    _, published = run_sketch(sketch, NO_BME280="1")
    state = json.loads(next(text for topic, _, _, text in published if topic.endswith("/state")))
    assert set(state) == {"ts", "seq", "boot", "rssi"}
    meta = json.loads(next(text for topic, _, _, text in published if topic.endswith("/meta")))
    assert meta["errors"] == {"bme280": "not found"}


def test_the_sketch_obeys_the_same_commands(sketch: Path) -> None:
    code, published = run_sketch(sketch, "nonsense", '{"interval":0.001}', '{"interval": 2.5}')
    assert code == 0
    metas = [json.loads(text) for topic, _, _, text in published if topic.endswith("/meta")]
    assert [meta["interval"] for meta in metas] == [10, 2.5]
    assert len([entry for entry in published if entry[0].endswith("/state")]) > 100
    assert run_sketch(sketch, 'R{"reboot":true}', '{"reboot":false}')[0] == 0
    code, published = run_sketch(sketch, '{"reboot":true}')
    assert code == 17
    assert published[-1] == (payloads.status_topic(SKETCH_ID), 1, 1, payloads.OFFLINE)

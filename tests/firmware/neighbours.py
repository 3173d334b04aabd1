"""What a sensor with another program than ours publishes, held to our own words, and sent through a broker.

One invariant: what is expected is made by the module that the firmware itself uses, `sensors_sim/payloads.py`, or is
said by docs/sensors.md.

It leaves to others: how the program is run here (test_esphome.py, test_arduino.py).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from firmware.board import entities
from sensors_sim import payloads
from tests.support.waiting import eventually, missing

FIELDS = ["temperature", "humidity", "pressure", "rssi"]
SENSORS_PAGE = Path(__file__).parents[2] / "docs" / "sensors.md"
# our names for why a board started (firmware/board/hardware.py), by the numbers of ESP-IDF's esp_reset_reason_t
RESET_REASONS = dict(
    enumerate(["unknown", "power", *["reset"] * 3, *["watchdog"] * 3, "deep sleep", "power", "unknown"])
)


@dataclass(frozen=True, slots=True)
class Published:
    """One message."""

    topic: str
    qos: int
    retain: bool
    payload: str


@dataclass(frozen=True, slots=True)
class Life:
    """How a program ended (17 is a restart), and what it published."""

    code: int
    messages: list[Published]

    def texts(self, topic: str) -> list[str]:
        """The payloads of a topic, oldest first."""
        return [message.payload for message in self.messages if message.topic == topic]

    def json(self, topic: str) -> list[Any]:
        """The same, as data."""
        return [json.loads(text) for text in self.texts(topic)]

    def metas(self, sensor_id: str) -> list[dict[str, Any]]:
        """Its descriptions of itself."""
        return self.json(payloads.meta_topic(sensor_id))


def compile_host(program: Path, source: Path, *options: str) -> Path:
    """A program for this computer; skips where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        missing("a C++ compiler")
    command = [compiler, "-Wall", "-Werror", *options, str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def run(program: Path, *commands: str, **environment: str) -> Life:
    """Five minutes of it, on its own clock."""
    done = subprocess.run(
        [str(program)],
        input="".join(command + "\n" for command in commands),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    messages = []
    for line in done.stdout.splitlines():
        topic, qos, retain, payload = line.split("\t")
        messages.append(Published(topic, int(qos), retain == "1", payload))
    return Life(done.returncode, messages)


def check_form(life: Life, sensor_id: str) -> None:
    """Every message is for a topic of ours, with its QoS, and retained where ours are."""
    forms = {
        payloads.state_topic(sensor_id): (1, False),
        payloads.status_topic(sensor_id): (1, True),
        payloads.meta_topic(sensor_id): (1, True),
        payloads.diag_topic(sensor_id): (1, True),
        payloads.log_topic(sensor_id): (0, False),
        payloads.discovery_topic(sensor_id): (1, True),
        entities.topic(sensor_id): (1, True),
    }
    assert {message.topic for message in life.messages} == set(forms)
    for message in life.messages:
        assert (message.qos, message.retain) == forms[message.topic], message


def check_announcements(life: Life, sensor_id: str, interval: float = 10, **extra: object) -> None:
    """Its newest description and what Home Assistant is told of it are what our own program would say."""
    meta = life.metas(sensor_id)[-1]
    about = (meta["name"], meta["model"], meta["firmware"], interval, FIELDS)
    extra = {"profile": "mains", "started_by": "power", **extra}
    assert meta == json.loads(payloads.meta_payload(*about, extra=extra))
    discovery = life.json(payloads.discovery_topic(sensor_id))[-1]
    assert discovery == json.loads(b"".join(payloads.discovery_parts(sensor_id, *about)))
    of_itself = life.json(entities.topic(sensor_id))[-1]
    assert of_itself == json.loads(b"".join(entities.parts(sensor_id, meta["firmware"], 300, "uptime")))


def check_states(life: Life, sensor_id: str, readings: dict[str, object], first: int = 0) -> None:
    """Its readings are those of our module, numbered."""
    for number, text in enumerate(life.texts(payloads.state_topic(sensor_id)), first):
        state = json.loads(text)
        expected = payloads.state_payload(readings, number, 7, ts_ms=round(state["ts"] * 1000))
        assert state == json.loads(expected)


def check_logs(life: Life, sensor_id: str) -> list[dict[str, Any]]:
    """Its log has our form; gives the lines."""
    lines = life.json(payloads.log_topic(sensor_id))
    for number, line in enumerate(lines):
        assert line["level"] in payloads.LOG_LEVELS
        up_ms, ts_ms = round(line["up"] * 1000), round(line["ts"] * 1000)
        expected = payloads.log_payload(line["level"], line["text"], number, 7, up_ms, ts_ms)
        assert line == json.loads(expected)
    return lines


def check_diag(life: Life, sensor_id: str) -> dict[str, Any]:
    """How it is has the members that docs/sensors.md names for a sensor on the mains; gives the first."""
    text = SENSORS_PAGE.read_text(encoding="utf-8")
    table = text[text.index("### How a board is") : text.index("### Log of a board")]
    rows = [row for row in table.splitlines() if row.startswith("| `") and "battery" not in row]
    documented = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows)))
    first: dict[str, Any] = life.json(payloads.diag_topic(sensor_id))[0]
    assert set(first) == documented
    assert {**first, "boot": 7, "started_by": "power", "wifi_joins": 1, "rssi": -61, "wifi_quality": 78} == first
    assert first["heap_lowest"] <= first["heap_free"]
    return first


def relay(port: int, client_id: str, will: tuple[str, str], messages: Sequence[Published]) -> paho.Client:
    """Send what was published through a real broker, as its client; the caller cuts or leaves the connection."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
    client.will_set(*will, 1, True)
    client.connect("127.0.0.1", port)
    client.loop_start()
    eventually(client.is_connected, what="the connection")
    for message in messages:
        client.publish(message.topic, message.payload, message.qos, message.retain).wait_for_publish(30)
    return client


def cut(client: paho.Client) -> None:
    """End the connection as a board does that loses power: the broker publishes the will."""
    client.loop_stop()
    client._reset_sockets()


def check_device(device: dict[str, Any], model: str) -> None:
    """The gateway names it, and its fields with their units, as it would a board with our program."""
    assert (device["name"], device["model"]) == ("Kitchen", model)
    fields = {field["id"]: field for field in device["fields"] if field["topic"].endswith("/state")}
    assert list(fields) == FIELDS
    of_itself = [field["name"] for field in device["fields"] if field["id"] not in fields]
    assert of_itself == ["Firmware", "Started by", "Heap free", "Uptime"]
    for field in fields.values():
        known = payloads.field_meta(field["id"])
        assert (field["unit"], field["device_class"]) == (known["unit"], known["device_class"])

"""The Arduino sketch publishes the same topics and payloads as the simulator and the firmware, and obeys alike."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from firmware import files
from firmware.board import portal
from sensors_sim import payloads
from tests.conftest import MakeGateway, MakeMosquitto
from tests.firmware import neighbours
from tests.firmware.neighbours import Life, Published
from tests.support.waiting import eventually

SKETCH = Path(files.__file__).parent / "arduino" / "sensor" / "sensor.ino"
HOST = Path(__file__).with_name("arduino")
ID = "esp32-123456"  # of the MAC address 24:0a:c4:12:34:56, as on a board with our firmware
READINGS: dict[str, object] = {"temperature": 21.456, "humidity": 44.14, "pressure": 1006.5327, "rssi": -61}
SECRETS = """\
#pragma once
#define WIFI_SSID "home"
#define WIFI_PASSWORD "correct horse"
#define AP_PASSWORD "battery staple"
#define MQTT_URL "mqtt://192.0.2.1"
#define MQTT_USERNAME nullptr
#define MQTT_PASSWORD nullptr
"""


@pytest.fixture(scope="module")
def sketch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sketch, compiled for this computer."""
    folder = tmp_path_factory.mktemp("arduino")
    # the sketch looks for it in its own folder first, where there is none; git ignores every file of this name
    (folder / "secrets.h").write_text(SECRETS, encoding="utf-8")
    options = ["-std=c++17", "-Wextra", "-Wno-missing-field-initializers", f"-I{folder}", f"-I{HOST}"]
    return neighbours.compile_host(folder / "sketch", HOST / "host.cpp", *options, f'-DSKETCH="{SKETCH}"')


def away(sketch: Path, *asked: str, **environment: str) -> Life:
    """Twenty minutes of it without the network of secrets.h, and all that it does with its radio."""
    return neighbours.run(
        sketch, *(f"W{each}" for each in asked), **{"NETWORK": "cellar", "MINUTES": "20", **environment}
    )


def run(sketch: Path, *commands: str, **environment: str) -> Life:
    """What it published; what it told its client before is left out."""
    life = neighbours.run(sketch, *commands, **environment)
    client, will = (message for message in life.messages if message.topic in ("CLIENT", "WILL"))
    assert client == Published("CLIENT", 0, False, f"sensor-{ID}")
    assert will == Published("WILL", 1, True, f"{payloads.status_topic(ID)} {payloads.OFFLINE}")
    subscribed = [message for message in life.messages if message.topic == "SUBSCRIBE"]
    assert subscribed[0] == Published("SUBSCRIBE", 1, False, payloads.cmd_topic(ID))
    radio = ("SUBSCRIBE", "JOIN", "AP", "DNS", "WEB", "MEMORY")
    return Life(life.code, [message for message in life.messages if message.topic not in ("CLIENT", "WILL", *radio)])


def test_the_sketch_announces_itself(sketch: Path) -> None:
    life = run(sketch)
    assert life.code == 0
    neighbours.check_form(life, ID)
    assert life.texts(payloads.status_topic(ID)) == [payloads.ONLINE]
    neighbours.check_announcements(life, ID)


def test_the_sketchs_readings_are_those_of_our_module(sketch: Path) -> None:
    life = run(sketch)
    states = life.texts(payloads.state_topic(ID))
    assert 29 <= len(states) <= 31
    neighbours.check_states(life, ID, READINGS)
    assert all(re.match(r'\{"ts":\d{10}\.\d{3},', text) for text in states)


def test_the_sketch_leaves_out_what_it_could_not_measure(sketch: Path) -> None:
    life = run(sketch, NO_HUMIDITY="1")
    neighbours.check_states(life, ID, READINGS | {"humidity": None})
    life = run(sketch, NO_BME280="1")
    assert life.texts(payloads.state_topic(ID)) == []  # like ours: a signal alone is no reading
    assert life.metas(ID)[-1]["errors"] == {"bme280": "not found"}


def test_the_sketch_says_how_it_is(sketch: Path) -> None:
    life = run(sketch)
    assert neighbours.check_diag(life, ID)["reconnects"] == 0
    assert len(life.texts(payloads.diag_topic(ID))) >= 1
    again = run(sketch, CONNECTS="3", OUTBOX_FULL="1")
    neighbours.check_announcements(again, ID, reconnects=2, dropped=1)
    assert again.json(payloads.diag_topic(ID))[-1]["reconnects"] == 2
    assert run(sketch).metas(ID)[-1].keys() & {"reconnects", "dropped"} == set()


@pytest.mark.parametrize(("reason", "name"), neighbours.RESET_REASONS.items())
def test_the_sketch_says_why_it_started_in_our_words(sketch: Path, reason: int, name: str) -> None:
    life = run(sketch, RESET_REASON=str(reason))
    assert life.metas(ID)[0]["started_by"] == name
    assert life.json(payloads.diag_topic(ID))[0]["started_by"] == name


def test_the_sketchs_log_has_our_form_and_level(sketch: Path) -> None:
    lines = neighbours.check_logs(run(sketch), ID)
    assert {line["level"] for line in lines} == {"info"}
    lines = neighbours.check_logs(run(sketch, '{"log":"debug"}'), ID)
    text = next(line["text"] for line in lines if line["text"].startswith("reading: "))
    assert json.loads(text.removeprefix("reading: "))["temperature"] == 21.46
    assert neighbours.check_logs(run(sketch, '{"log":"error"}', '{"interval":5}'), ID)[-1]["text"] == "mqtt: connected"


def test_the_sketch_obeys_the_same_commands(sketch: Path) -> None:
    life = run(sketch, '{"interval": 2.5, "log":"warning"}')
    assert life.code == 0
    assert [meta["interval"] for meta in life.metas(ID)] == [10, 2.5]
    neighbours.check_announcements(run(sketch, '{"interval":25}'), ID, 25)
    assert len(life.texts(payloads.state_topic(ID))) > 100
    assert run(sketch, 'R{"reboot":true}', '{"reboot":false}').code == 0
    life = run(sketch, '{"reboot":true}')
    assert life.code == 17
    assert life.messages[-1] == Published(payloads.status_topic(ID), 1, True, payloads.OFFLINE)


@pytest.mark.parametrize(
    "command",
    [
        "nonsense",
        "{}",
        "[]",
        '{"interval":5}x',
        '{"interval":5',
        '{"interval":0.001}',
        '{"interval":86401}',
        '{"interval":1e9}',
        '{"reboot":false}',
        '{"colour":1}',
        '{"colour":"red"}',
        '{"interval":5,"colour":1}',
        '{"fault":{"kind":"stuck"}}',
        '{"interval":[5]}',
        "{" + '"interval":5,' * 20 + "}",
    ],
)
def test_the_sketch_refuses_what_we_refuse(sketch: Path, command: str) -> None:
    with pytest.raises(ValueError, match=r"command|interval|reboot") as refusal:
        payloads.parse_command(command.encode(), also=("log",))
    life = run(sketch, command)
    meta = life.metas(ID)[-1]
    assert meta["interval"] == 10
    expected = str(refusal.value)
    if command.startswith('{"fault"') or "[5]" in command:  # it takes flat objects alone
        expected = 'a command is a JSON object such as {"interval": 5}'
    assert meta["errors"]["cmd"] == expected.replace("1000000000.0", "1e9")
    assert neighbours.check_logs(life, ID)[-1]["level"] == "warning"
    assert "errors" not in run(sketch, command, '{"interval":5}').metas(ID)[-1]


def test_the_sketch_opens_an_access_point_after_ten_minutes_without_a_network(sketch: Path) -> None:
    life = away(sketch)
    assert life.code == 0
    assert life.texts("AP") == [f"{portal.name_of(ID)} battery staple"]
    assert life.texts("DNS") == ["* 192.168.4.1"]
    assert payloads.state_topic(ID) in {message.topic for message in life.messages}  # it goes on measuring
    topics = [message.topic for message in life.messages]
    before, after = topics[: topics.index("AP")].count("JOIN"), topics[topics.index("AP") :].count("JOIN")
    assert (before, after) == (30, 3)  # every 20 s, then every three minutes: a station takes the radio away meanwhile
    assert away(sketch, CONNECTED="1").texts("JOIN") == ["home correct horse"] * 30
    assert run(sketch, MINUTES="20").json(payloads.diag_topic(ID))[-1]["wifi_joins"] == 1
    assert neighbours.run(sketch, MINUTES="20").texts("AP") == []


def test_the_sketch_takes_another_network_on_its_page_and_tries_both_in_turn(sketch: Path) -> None:
    token = "0000000700000007"
    asked = [
        "GET captive.example /generate_204",
        "GET captive.example /",
        "GET 192.168.4.1 /",
        "POST 192.168.4.1 / ssid=cellar",
        f"POST evil.example / token={token} ssid=cellar",
        f"POST 192.168.4.1 / token={token} ssid={'x' * 33}",
        f"POST 192.168.4.1 / token={token} ssid=cellar password=short",
        f"POST 192.168.4.1 / token={token} ssid=cellar password=correct-pony",
    ]
    life = away(sketch, *asked)
    answers = [message for message in life.messages if message.topic == "WEB"]
    assert [answer.qos for answer in answers] == [302, 302, 200, 403, 403, 400, 400, 200]  # status codes
    assert {answer.payload for answer in answers[:2]} == {"http://192.168.4.1/"}
    assert f'name="token" value="{token}"' in answers[2].payload
    assert "8 to 63" in answers[6].payload
    assert life.texts("MEMORY") == ["ssid=cellar", "password=correct-pony"]
    assert life.code == 17  # it restarts
    given = {"GIVEN_SSID": "cellar", "GIVEN_PASSWORD": "correct-pony"}
    assert away(sketch, **given).texts("JOIN") == ["cellar correct-pony"]
    assert away(sketch, **given, NETWORK="home").texts("JOIN") == ["cellar correct-pony", "home correct horse"]


@pytest.mark.slow
def test_the_gateway_names_the_sketch(sketch: Path, make_mosquitto: MakeMosquitto, make_gateway: MakeGateway) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    will = (payloads.status_topic(ID), payloads.OFFLINE)
    client = neighbours.relay(broker.port, f"sensor-{ID}", will, run(sketch).messages)

    def device() -> dict[str, Any]:
        (found,) = gateway.json("/devices")["devices"]
        return dict(found)

    eventually(lambda: device()["availability"] == "online", 20, "it is online")
    neighbours.check_device(device(), "ESP32 + BME280")
    values = gateway.json(f"/devices/{device()['id']}")["values"]
    assert [value["value"] for value in values][:4] == [21.46, 44.1, 1006.53, -61]
    assert "power" in [value["value"] for value in values]
    neighbours.cut(client)
    eventually(lambda: device()["availability"] == "offline", 20, "its will")

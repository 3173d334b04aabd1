"""The ESPHome example publishes the same topics and payloads as the simulator and the firmware, and obeys alike.

ESPHome itself judges the configuration; what its lambdas publish is seen by running them (lambdas.py), for ESPHome has
its MQTT client for microcontrollers alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from firmware import files
from firmware.board import portal, settings
from sensors_sim import payloads
from tests.conftest import MakeGateway, MakeMosquitto
from tests.firmware import lambdas, neighbours
from tests.firmware.neighbours import Life
from tests.support.waiting import eventually

ESPHOME = Path(files.__file__).parent / "esphome" / "sensor.yaml"
HOST = Path(__file__).with_name("esphome")
READINGS: dict[str, object] = {"temperature": 21.456, "humidity": 44.14, "pressure": 1006.5327, "rssi": -61}


class Tags(yaml.SafeLoader):
    """YAML with ESPHome's tags, which are taken as texts."""


Tags.add_multi_constructor("!", lambda _loader, suffix, node: f"!{suffix} {node.value}")


def example() -> dict[str, Any]:
    """The example with its substitutions made."""
    text = ESPHOME.read_text(encoding="utf-8")
    for name, value in yaml.load(text, Loader=Tags)["substitutions"].items():
        text = text.replace("${" + name + "}", value)
    loaded: dict[str, Any] = yaml.load(text, Loader=Tags)
    return loaded


ID = example()["substitutions"]["id"]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's lambdas as a program for this computer."""
    folder = tmp_path_factory.mktemp("esphome")
    source = folder / "sensor.cpp"
    source.write_text(lambdas.program(example()), encoding="utf-8")
    return neighbours.compile_host(folder / "sensor", source, "-std=c++20", f"-I{HOST}")


def run(board: Path, *commands: str, **environment: str) -> Life:
    """What it published."""
    return neighbours.run(board, *commands, **environment)


def test_esphome_connects_as_we_do() -> None:
    mqtt = example()["mqtt"]
    assert payloads.is_valid_id(ID)
    assert mqtt["client_id"] == f"sensor-{ID}"
    told = {"topic": payloads.status_topic(ID), "qos": 1, "retain": True}
    assert mqtt["birth_message"] == {**told, "payload": payloads.ONLINE}
    assert mqtt["will_message"] == mqtt["shutdown_message"] == {**told, "payload": payloads.OFFLINE}
    (message,) = mqtt["on_json_message"]
    assert (message["topic"], message["qos"]) == (payloads.cmd_topic(ID), 1)
    assert (mqtt["clean_session"], mqtt["topic_prefix"], mqtt["log_topic"]) == (False, None, None)


def test_esphome_opens_the_access_point_that_we_open() -> None:
    config = example()
    point = config["wifi"]["ap"]
    assert (point["ssid"], point["ap_timeout"]) == (portal.name_of(ID), "10min")
    assert settings.DEFAULTS["ap_after"] == 10 * 60
    assert point["password"] == "!secret ap_password"
    assert "captive_portal" in config


def test_esphome_announces_itself(board: Path) -> None:
    life = run(board)
    assert life.code == 0
    neighbours.check_form(life, ID)
    neighbours.check_announcements(life, ID, dropped=1)  # the first reading is made before there is a broker


def test_esphomes_readings_are_those_of_our_module(board: Path) -> None:
    life = run(board)
    assert 29 <= len(life.texts(payloads.state_topic(ID))) <= 31
    neighbours.check_states(life, ID, READINGS, first=1)
    neighbours.check_states(run(board, NO_HUMIDITY="1"), ID, READINGS | {"humidity": None}, first=1)
    assert '"ts"' not in str(run(board, CLOCK_UNSET="1").messages)


def test_esphome_publishes_no_old_value_for_a_sensor_that_fails(board: Path) -> None:
    life = run(board, BREAKS="1")
    assert len(life.texts(payloads.state_topic(ID))) == 5
    assert life.metas(ID)[-1]["errors"] == {"bme280": "no reading"}
    assert "errors" not in life.metas(ID)[-2]
    assert run(board, NO_BME280="1").texts(payloads.state_topic(ID)) == []


def test_esphome_says_how_it_is(board: Path) -> None:
    assert neighbours.check_diag(run(board), ID)["reconnects"] == 0
    again = run(board, CONNECTS="3")
    neighbours.check_announcements(again, ID, dropped=1, reconnects=2)
    assert again.json(payloads.diag_topic(ID))[-1]["reconnects"] == 2


@pytest.mark.parametrize(("reason", "name"), neighbours.RESET_REASONS.items())
def test_esphome_says_why_it_started_in_our_words(board: Path, reason: int, name: str) -> None:
    life = run(board, RESET_REASON=str(reason))
    assert life.metas(ID)[0]["started_by"] == name
    assert life.json(payloads.diag_topic(ID))[0]["started_by"] == name


def test_esphomes_log_has_our_form_and_level(board: Path) -> None:
    lines = neighbours.check_logs(run(board), ID)
    assert [(line["level"], line["text"]) for line in lines] == [("info", "joined")]
    lines = neighbours.check_logs(run(board, '{"log":"error"}', '{"interval":5}', "Ltext", "{}"), ID)
    assert [line["text"] for line in lines] == ["joined"]
    long = "µ" * 79 + "x€"  # the 160th byte is inside a character
    lines = neighbours.check_logs(run(board, "L" + long), ID)
    assert lines[-1]["text"] == "µ" * 79 + "x…"


def test_esphome_obeys_the_same_commands(board: Path) -> None:
    life = run(board, '{"interval":30,"log":"debug"}')
    assert life.code == 0
    neighbours.check_announcements(life, ID, 30, dropped=1)
    assert len(life.texts(payloads.state_topic(ID))) < 15
    assert run(board, '{"reboot":true}').code == 0  # right after the start it is a retained one
    assert run(board, "Lwait", "Lwait", "Lwait", '{"reboot":true}').code == 17


@pytest.mark.parametrize(
    "command",
    [
        "{}",
        '{"interval":0.5}',
        '{"interval":86401}',
        '{"interval":"x"}',
        '{"reboot":false}',
        '{"colour":1}',
        '{"log":"x"}',
    ],
)
def test_esphome_refuses_and_says_so(board: Path, command: str) -> None:
    life = run(board, '{"interval":20}', command, "Lwait")
    meta = life.metas(ID)[-1]
    assert meta["interval"] == 20
    error = meta["errors"]["cmd"]
    assert (
        neighbours.check_logs(life, ID)[-2] | {"level": "warning", "text": error} == neighbours.check_logs(life, ID)[-2]
    )
    if command != '{"interval":0.5}' and "log" not in command:  # it needs half a second to measure
        with pytest.raises(ValueError, match=re.escape(error.partition(":")[0].partition(" from 1 ")[0])):
            payloads.parse_command(command.encode())
    assert "errors" not in run(board, command, '{"interval":5}').metas(ID)[-1]


def test_esphome_counts_a_start_in_flash_at_once() -> None:
    config = example()
    steps = config["esphome"]["on_boot"]["then"][0]["lambda"].split("\n")
    code = [step for step in steps if not step.startswith("//")]
    assert code[-3:] == ["id(boot) += 1;", "saved.save(&id(boot));", "global_preferences->sync();"]
    boot = next(each for each in config["globals"] if each["id"] == "boot")
    assert "restore_value" not in boot  # or it would be read and written a second time, and later


@pytest.mark.slow
def test_esphome_accepts_the_example_and_makes_a_program_of_it(
    installed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("esphome")
    if program is None:
        program = str(installed("esphome") / "bin" / "esphome")
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(ESPHOME, tmp_path)
    names = sorted(set(re.findall(r"!secret (\w+)", ESPHOME.read_text(encoding="utf-8"))))
    (tmp_path / "secrets.yaml").write_text("".join(f"{name}: {name}-1234\n" for name in names))
    for command in (["config"], ["compile", "--only-generate"]):
        done = subprocess.run(
            [program, *command, "sensor.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (made,) = tmp_path.rglob("main.cpp")
    text = made.read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("//"))
    assert "esp_reset_reason()" in code
    assert "${" not in code
    for topic in (payloads.state_topic, payloads.meta_topic, payloads.diag_topic, payloads.log_topic):
        assert f'"{topic(ID)}"' in code


@pytest.mark.slow
def test_the_gateway_names_the_board_with_esphome(
    board: Path, make_mosquitto: MakeMosquitto, make_gateway: MakeGateway
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    will = example()["mqtt"]["will_message"]
    client = neighbours.relay(broker.port, f"sensor-{ID}", (will["topic"], will["payload"]), run(board).messages)

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

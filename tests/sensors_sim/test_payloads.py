"""sensors_sim/payloads.py, on CPython and on MicroPython."""

import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors_sim import payloads

MICROPYTHON_IMAGE = "micropython/unix:latest"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


def discovery(*args: Any, **kwargs: Any) -> Any:
    return json.loads(b"".join(payloads.discovery_parts(*args, **kwargs)))


def test_topics_are_those_of_the_design() -> None:
    assert payloads.state_topic("esp32-1") == "sensors/esp32-1/state"
    assert payloads.status_topic("esp32-1") == "sensors/esp32-1/status"
    assert payloads.meta_topic("esp32-1") == "sensors/esp32-1/meta"
    assert payloads.cmd_topic("esp32-1") == "sensors/esp32-1/cmd"
    assert payloads.discovery_topic("esp32-1") == "homeassistant/device/esp32-1/config"


@pytest.mark.parametrize("name", ["a", "esp32-a1b2c3", "living_room", "0"])
def test_lower_case_letters_digits_hyphen_and_underscore_make_an_id(name: str) -> None:
    assert payloads.is_valid_id(name)


@pytest.mark.parametrize("name", ["", "A", "a/b", "a b", "+", "#", "küche", "a."])
def test_anything_else_makes_no_id(name: str) -> None:
    assert not payloads.is_valid_id(name)


def test_state_payload_is_the_example_of_the_design() -> None:
    readings: dict[str, object] = {"temperature": 21.5312, "humidity": 44.08}
    assert payloads.state_payload(readings, 4711, 17, ts=1790000000.123) == (
        b'{"ts":1790000000.123,"seq":4711,"boot":17,"temperature":21.53,"humidity":44.1}'
    )


def test_time_is_left_out_until_the_clock_is_set() -> None:
    assert payloads.state_payload({"co2": 612.4}, 0, 1) == b'{"seq":0,"boot":1,"co2":612}'


def test_whole_milliseconds_keep_every_digit() -> None:
    assert payloads.state_payload({}, 0, 0, ts_ms=1790000000007).startswith(b'{"ts":1790000000.007,')


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_failed_reading_is_left_out(value: float | None) -> None:
    assert json.loads(payloads.state_payload({"temperature": value, "humidity": 40}, 1, 1)) == {
        "seq": 1,
        "boot": 1,
        "humidity": 40.0,
    }


def test_a_field_that_is_not_listed_goes_out_as_it_is() -> None:
    assert payloads.state_payload({"door": "open", "ok": True, "n": 3, "at": [1.5, None]}, 0, 0) == (
        b'{"seq":0,"boot":0,"door":"open","ok":true,"n":3,"at":[1.5,null]}'
    )


@given(st.floats(-1e6, 1e6) | st.floats(-1.5, 1.5), st.integers(min_value=0, max_value=6))
def test_number_text_is_the_rounded_number(value: float, decimals: int) -> None:
    text = payloads.number_text(value, decimals)
    assert json.loads(text) == pytest.approx(value, abs=0.5000001 * 10**-decimals)
    assert ("." in text) == (decimals > 0)
    assert not text.endswith("00") or decimals == 0


@given(json_values)
def test_json_text_is_json(value: object) -> None:
    assert json.loads(payloads.json_text(value)) == value


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(0.07, 3, "0.07"), (-0.004, 2, "0.0"), (-0.006, 2, "-0.01"), (99.999, 2, "100.0"), (5, 0, "5"), (21.5, 2, "21.5")],
)
def test_number_text_of_numbers_near_a_digit(value: float, decimals: int, text: str) -> None:
    assert payloads.number_text(value, decimals) == text


def test_json_text_has_no_word_for_not_a_number() -> None:
    assert payloads.json_text([math.nan, math.inf]) == "[null,null]"
    with pytest.raises(TypeError):
        payloads.json_text({1, 2})


def test_meta_payload_describes_fields_with_units_and_range() -> None:
    meta = json.loads(payloads.meta_payload("Kitchen", "ESP32", "1.0", 10, ["temperature", "custom"]))
    assert meta == {
        "schema": 1,
        "name": "Kitchen",
        "model": "ESP32",
        "firmware": "1.0",
        "interval": 10,
        "fields": {"temperature": {"unit": "°C", "device_class": "temperature", "min": -40, "max": 85}, "custom": {}},
    }


def test_meta_payload_takes_differences_errors_and_the_mark_of_simulation() -> None:
    meta = json.loads(
        payloads.meta_payload(
            "K", "m", "f", 10, {"temperature": {"max": 60}, "co2": None}, simulated=True, errors={"bme280": "-"},
            extra={"place": "home"},
        )
    )  # fmt: skip
    assert meta["fields"]["temperature"]["max"] == 60
    assert meta["fields"]["co2"]["unit"] == "ppm"
    assert (meta["simulated"], meta["errors"], meta["place"]) == (True, {"bme280": "-"}, "home")


def test_discovery_has_what_home_assistant_requires() -> None:
    found = discovery("k-1", "Kitchen", "ESP32", "1.0", 10, ["temperature", "energy"])
    assert found["dev"]["ids"]
    assert found["o"]["name"]
    assert found["state_topic"] == "sensors/k-1/state"
    temperature = found["cmps"]["temperature"]
    assert temperature["p"] == "sensor"
    assert temperature["unit_of_measurement"] == "°C"
    assert temperature["value_template"] == "{{ value_json.temperature }}"
    assert found["cmps"]["energy"]["state_class"] == "total_increasing"
    unique = [component["unique_id"] for component in found["cmps"].values()]
    assert len(set(unique)) == len(unique)


def test_sleeping_is_available_to_home_assistant_and_offline_is_not() -> None:
    found = discovery("k-1", "K", "m", "f", 10, ["temperature"], always_listens=False)
    (availability,) = found["availability"]
    assert availability["topic"] == "sensors/k-1/status"
    assert availability["value_template"] == "{{ 'offline' if value == 'offline' else 'online' }}"
    assert "restart" not in found["cmps"]


def test_a_field_that_is_no_name_to_jinja_stands_in_quotes() -> None:
    fields = {"living-room_temperature": None, "2nd": None, "co2": None}
    components = discovery("k-1", "K", "m", "f", 10, fields)["cmps"]
    assert components["living-room_temperature"]["value_template"] == "{{ value_json['living-room_temperature'] }}"
    assert components["2nd"]["value_template"] == "{{ value_json['2nd'] }}"
    assert components["co2"]["value_template"] == "{{ value_json.co2 }}"


def test_commands_are_read() -> None:
    assert payloads.parse_command(b'{"interval":5}') == {"interval": 5}
    assert payloads.parse_command(b'{"interval":0.01}') == {"interval": 0.01}
    assert payloads.parse_command(b'{"interval":86400}') == {"interval": 86400}
    assert payloads.parse_command(b'{"reboot":true}') == {"reboot": True}
    assert payloads.parse_command(b'{"fault":"stuck"}', also=("fault",)) == {"fault": "stuck"}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "JSON object"),
        (b"[]", "JSON object"),
        (b"{}", "JSON object"),
        (b"\xff", "JSON object"),
        (b'{"interval":0}', "from 0.01 to 86400 seconds, not 0"),
        (b'{"interval":0.0001}', "from 0.01 to 86400 seconds, not 0.0001"),
        (b'{"interval":1e-300}', "from 0.01 to 86400"),
        (b'{"interval":86401}', "from 0.01 to 86400 seconds, not 86401"),
        (b'{"interval":true}', "number of seconds, not true"),
        (b'{"interval":NaN}', "number of seconds"),
        (b'{"interval":"5"}', 'number of seconds, not "5"'),
        (b'{"reboot":1}', "reboot takes true, not 1"),
        (b'{"launch":1}', 'unknown command "launch": known are interval, reboot'),
    ],
)
def test_a_bad_command_says_what_is_wrong(payload: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=r"command|interval|reboot") as raised:
        payloads.parse_command(payload)
    assert text in str(raised.value)


PROBE = r"""
print(state_payload({"temperature": 21.534, "humidity": 44.06, "note": '°\n"'}, 4711, 17, ts_ms=1790000000123).decode())
print(meta_payload("Küche", "m", "f", 10, ["temperature", "co2"], simulated=True, errors=["a"]).decode())
print(b"".join(discovery_parts("a-1", "n", "m", "f", 10, {"temperature": {"max": 60}, "rssi": None})).decode())
print(json_text([number_text(v, d) for v, d in ((0, 2), (-0.004, 2), (-0.006, 2), (1e6, 1), (99.999, 2), (5, 0))]))
print(json_text(parse_command(b'{"interval":5}')))
for bad in (b"{", b"\xff", b'{"interval":0}', b'{"interval":0.001}', b'{"x":1}'):
    try:
        parse_command(bad)
    except ValueError as error:
        print(json_text(str(error)))
"""


def micropython(code: str) -> str:
    """What ``code`` prints under MicroPython: the one on the PATH, else the one in the image."""
    if shutil.which("micropython"):
        command = ["micropython", "-c", code]
    elif shutil.which("docker") and not subprocess.run(["docker", "info"], check=False, capture_output=True).returncode:
        command = ["docker", "run", "--rm", "--network", "none", MICROPYTHON_IMAGE, "-c", code]
    else:
        missing = "neither micropython nor a Docker engine is here"
        if os.environ.get("GATEWAY_TEST_REQUIRE_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return subprocess.run(command, capture_output=True, check=True, timeout=120, encoding="utf-8").stdout


def test_micropython_gives_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    source = Path(payloads.__file__).read_text(encoding="utf-8")
    exec(compile(source + PROBE, "probe", "exec"), {"__name__": "probe"})
    here = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    there = [json.loads(line) for line in micropython(source + PROBE).splitlines()]
    assert len(here) == 10
    assert there == here

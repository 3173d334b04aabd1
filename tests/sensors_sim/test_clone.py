"""Learning a fleet from messages, and running what was learned."""

import json
import math
import re
import threading
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from sensors_sim.address import BrokerAddress
from sensors_sim.clone import Learner, _flat, fleet_text, listen
from sensors_sim.custom import FieldSpec, StreamSpec
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Event, Fleet, FleetSpec, counted_fleet
from sensors_sim.messages import Message
from sensors_sim.model.noise import Drifting, generator
from sensors_sim.payloads import FIELDS
from sensors_sim.scenario import parse_fleet
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

NOW = 1_790_000_000.0


def learned(learner: Learner, seconds: float = 60.0, count: int | None = None) -> dict[str, Any]:
    return tomllib.loads(fleet_text(learner, seconds, count))


def hear(learner: Learner, topic: str, values: list[Any], *, step: float = 1.0, **options: Any) -> None:
    for number, value in enumerate(values):
        payload = value if isinstance(value, bytes) else json.dumps(value).encode()
        learner.hear(topic, payload, NOW + number * step, **options)


def field_of(learner: Learner, name: str) -> dict[str, Any]:
    fields = learned(learner)["device"][0]["stream"][0]["field"]
    found: dict[str, Any] = next(item for item in fields if item["name"] == name)
    return found


def run(text: str, seconds: float = 30, seed: int = 7) -> list[Event]:
    fleet = Fleet(parse_fleet(text), seed, SEEDED_START, ts_offset=NOW - SEEDED_START)
    return list(fleet.take(SEEDED_START + seconds))


def test_a_value_is_learned_with_mean_deviation_memory_range_and_decimals() -> None:
    drifting = Drifting(generator(1, "x"), 2.0, 20.0)
    learner = Learner("plant/+/data")
    hear(learner, "plant/p1/data", [{"pressure_bar": round(50 + drifting.at(t), 1)} for t in range(1500)])
    field = field_of(learner, "pressure_bar")
    assert field["mean"] == pytest.approx(50, abs=0.6)
    assert field["deviation"] == pytest.approx(2.0, rel=0.2)
    assert float(field["memory"][:-1]) == pytest.approx(20, rel=0.4)
    assert field["decimals"] == 1
    assert field["low"] < 46
    assert field["high"] > 54


def test_seq_boot_clocks_counters_choices_and_constants_are_told_apart() -> None:
    learner = Learner("d/+/s")
    states = [
        {
            "seq": number,
            "boot": 4,
            "ts": NOW + number + 0.1234,
            "ms": int((NOW + number) * 1000),
            "time": f"2026-09-21T13:13:{20 + number:02}",
            "energy": round(100 + number * 0.25, 2),
            "mode": "on" if number % 8 < 4 else "off",
            "model": "X1",
            "fixed": 7,
            "none": None,
            "list": [1, 2],
            "wifi": {"rssi": -60 - number % 3},
        }
        for number in range(30)
    ]
    hear(learner, "d/a/s", states)
    fields = {item["name"]: item for item in learned(learner)["device"][0]["stream"][0]["field"]}
    models = {name: item.get("model", "value") for name, item in fields.items()}
    assert models == {
        "seq": "seq", "boot": "boot", "ts": "clock", "ms": "clock", "time": "iso-clock", "energy": "counter",
        "mode": "choice", "model": "constant", "fixed": "constant", "none": "constant-json", "list[0]": "constant",
        "list[1]": "constant",
        "wifi.rssi": "value",
    }  # fmt: skip
    assert (fields["ts"]["rate"], fields["ms"]["rate"]) == (1, 1000)
    assert fields["energy"]["rate"] == pytest.approx(0.25)
    assert fields["mode"]["choices"] == ["on", "off"]


def test_what_was_learned_has_the_same_form_when_it_runs() -> None:
    learner = Learner("d/+/s")
    original = {"ts": NOW, "seq": 0, "temp": 21.55, "on": True, "wifi": {"rssi": -60, "ip": "10.0.0.1"}, "tags": ["a"]}
    hear(learner, "d/a/s", [original | {"seq": n, "temp": 21.5 + n % 3 / 10, "ts": NOW + n} for n in range(10)])
    states = [
        json.loads(event.what.payload) for event in run(fleet_text(learner, 10)) if isinstance(event.what, Message)
    ]
    assert states
    for number, state in enumerate(states):
        assert list(state) == list(original)
        assert state["seq"] == number
        assert 21 < state["temp"] < 22.5
        assert state["wifi"]["ip"] == "10.0.0.1"
        assert state["tags"] == ["a"]
        assert 0 <= state["ts"] - NOW <= 31


@pytest.mark.parametrize(
    ("gap", "interval"),
    [(1.003, "1s"), (9.98, "10s"), (60.4, "1m"), (0.2501, "250ms"), (37.2, "37s"), (299, "5m"), (0.0337, "0.0337s")],
)
def test_the_interval_is_the_round_number_that_somebody_set(gap: float, interval: str) -> None:
    learner = Learner("d/+/s")
    hear(learner, "d/a/s", [1.5, 2.5, 1.0, 2.0], step=gap)
    assert learned(learner)["device"][0]["interval"] == interval


def test_bare_numbers_and_texts_keep_their_form() -> None:
    learner = Learner("house/+/#")
    hear(learner, "house/k/temperature", [b"21.5", b"21.6", b"21.4", b"21.5"])
    hear(learner, "house/k/door", [b"open", b"closed", b"open", b"closed"])
    (device,) = learned(learner)["device"]
    assert {stream["topic"]: stream.get("format") for stream in device["stream"]} == {
        "house/{id}/temperature": "number",
        "house/{id}/door": "text",
    }
    said = {
        event.what.topic: event.what.payload for event in run(fleet_text(learner, 4)) if isinstance(event.what, Message)
    }
    assert math.isfinite(float(said["house/k/temperature"]))
    assert said["house/k/door"] in (b"open", b"closed")


def test_topics_of_a_slower_cadence_are_published_less_often() -> None:
    learner = Learner("d/+/#")
    hear(learner, "d/a/fast", [1.5, 2.5] * 10, step=1)
    hear(learner, "d/a/slow", [1.5, 2.5] * 2, step=5)
    events = [event.what.topic for event in run(fleet_text(learner, 20), 20) if isinstance(event.what, Message)]
    assert events.count("d/a/fast") == 20
    assert events.count("d/a/slow") == 4


@pytest.mark.parametrize(
    ("topic", "payload", "offline"),
    [
        ("sensors/a/status", b"online", "offline"),
        ("sensors/a/LWT", b"Online", "Offline"),
        ("sensors/a/availability", b'{"state": "online"}', '{"state":"offline"}'),
        ("sensors/a/online", b"true", "false"),
        ("sensors/a/status", b"offline", "offline"),
        ("sensors/a/status", b"sleeping", "offline"),
    ],
)
def test_a_status_is_recognised_and_gives_the_will(topic: str, payload: bytes, offline: str) -> None:
    learner = Learner("sensors/#")
    learner.hear(topic, payload, NOW, retained=True)
    hear(learner, "sensors/a/state", [1.5, 2.5, 1.5])
    (device,) = learned(learner)["device"]
    assert device["status"]["offline"] == offline
    assert device["status"]["topic"] == topic.replace("/a/", "/{id}/")


def test_a_retained_true_that_is_no_status_is_a_constant() -> None:
    learner = Learner("d/#")
    learner.hear("d/a/has_battery", b"true", NOW, retained=True)
    learner.hear("d/a/info", b'{"name":"a","via":"abc"}', NOW, retained=True)
    hear(learner, "d/a/state", [1.5, 2.5])
    (device,) = learned(learner)["device"]
    assert "status" not in device
    assert {item["topic"]: item["payload"] for item in device["constant"]} == {
        "d/{id}/has_battery": "true",
        "d/{id}/info": '{"name":"{id}","via":"abc"}',
    }


def test_the_first_wildcard_is_where_the_device_stands() -> None:
    for topic_filter, topic, device_id, template in (
        ("tele/+/SENSOR", "tele/DVES_12AB/SENSOR", "dves_12ab", "tele/{name}/SENSOR"),
        ("zigbee2mqtt/#", "zigbee2mqtt/Wohn Zimmer", "wohn-zimmer", "zigbee2mqtt/{name}"),
        ("a/+/b/+/c", "a/x/b/y/c", "x", "a/{id}/b/y/c"),
        ("exact/topic", "exact/topic", "topic", "exact/{id}"),
    ):
        learner = Learner(topic_filter)
        hear(learner, topic, [1.5, 2.5])
        (device,) = learned(learner)["device"]
        assert (device["id"], device["stream"][0]["topic"]) == (device_id, template)
        topics = {event.what.topic for event in run(fleet_text(learner, 2)) if isinstance(event.what, Message)}
        assert topics == {topic}


@pytest.mark.parametrize(
    ("topic_filter", "filters"),
    [
        ("sensors/+/state", ["sensors/+/state", "sensors/+/status", "sensors/+/meta"]),
        ("sensors/a/state", ["sensors/a/state", "sensors/a/status", "sensors/a/meta"]),
        ("sensors/#", ["sensors/#"]),
        ("sensors/+/+/state", ["sensors/+/+/state"]),
        ("plant/+/state", ["plant/+/state"]),
        ("tele/+/SENSOR", ["tele/+/SENSOR"]),
    ],
)
def test_who_listens_to_native_readings_hears_status_and_meta_too(topic_filter: str, filters: list[str]) -> None:
    assert Learner(topic_filter).filters == filters


def test_the_range_of_a_known_field_is_that_of_its_name() -> None:
    learner = Learner("sensors/+/state")
    hear(learner, "sensors/a/state", [{"temperature": 20 + n % 3, "humidity": 40.5 + n % 2} for n in range(6)])
    for name in ("temperature", "humidity"):
        _, _, low, high, _ = FIELDS[name]
        assert (field_of(learner, name)["low"], field_of(learner, name)["high"]) == (low, high)


def test_a_field_that_only_has_the_name_has_the_range_that_was_seen() -> None:
    learner = Learner("zigbee2mqtt/+")
    hear(learner, "zigbee2mqtt/a", [{"voltage": 2900 + n % 3 * 10} for n in range(6)])  # mV
    assert (field_of(learner, "voltage")["low"], field_of(learner, "voltage")["high"]) == (2885.4, 2934.6)


@pytest.mark.parametrize("text", ["", "a/#/b", "a+/b", "a/b#"])
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="topic filter"):
        Learner(text)


def test_silence_is_told() -> None:
    learner = Learner("a/#")
    with pytest.raises(ValueError, match="nothing that publishes was heard on a/#"):
        fleet_text(learner)
    learner.hear("a/b", b"online", NOW, retained=True)
    with pytest.raises(ValueError, match="nothing"):
        fleet_text(learner)


def test_payloads_of_all_kinds_do_no_harm() -> None:
    learner = Learner("d/+/#")
    payloads = [b"", b"\xff\xfe", b"NaN", b'{"a":NaN,"b":1e400}', b"[1,2]", b"null", b'{"a":{}}', b"{", b'"text"', b"1"]
    for number, payload in enumerate(payloads):
        hear(learner, f"d/x/{number}", [payload, payload, payload])
    hear(learner, "d/x/mixed", payloads)
    learner.hear("d/x/kept", b"\x80", NOW, retained=True)
    run(fleet_text(learner, 10), 5)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=8,
)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), json_values, st.booleans()), min_size=1, max_size=12))
def test_whatever_is_heard_can_be_learned_and_run(heard: list[tuple[str, Any, bool]]) -> None:
    learner = Learner("d/+/#")
    for number, (topic, value, retained) in enumerate(heard):
        learner.hear(f"d/x/{topic}", json.dumps(value).encode(), NOW + number, retained=retained)
    if all(retained for _, _, retained in heard):
        with pytest.raises(ValueError, match="nothing that publishes"):
            fleet_text(learner, 12)
    else:
        run(fleet_text(learner, 12), 20)


def test_half_a_character_does_no_harm() -> None:
    learner = Learner("d/+")
    hear(learner, "d/x", [b'{"a":"\\ud800"}', b'{"a":"\\udfff"}'])
    run(fleet_text(learner, 2), 5)


def test_lookalikes_are_many_differ_and_say_that_they_are_simulated() -> None:
    learner = Learner("sensors/+/state")
    hear(learner, "sensors/a/state", [{"temperature": 20 + number % 5 / 10} for number in range(20)])
    text = fleet_text(learner, 20, 4)
    assert [device["id"] for device in tomllib.loads(text)["device"]] == ["a", "a-2", "a-3", "a-4"]
    fleet = Fleet(parse_fleet(text), 7, SEEDED_START)
    means = {}
    for device in fleet.devices.values():
        meta = json.loads(device.meta_payload())
        assert meta["simulated"] is True
        assert device.dialect.birth(device)[-1].topic == f"sensors/{device.id}/meta"
        readings = [float(device._read(SEEDED_START + t)["temperature"]) for t in range(2000)]  # type: ignore[arg-type]
        means[device.id] = round(sum(readings) / len(readings), 2)
    assert len(set(means.values())) == 4
    resized = Fleet(parse_fleet(fleet_text(learner, 20)).resized(3), 7, SEEDED_START)
    topics = {event.what.topic for event in resized.take(SEEDED_START + 3) if isinstance(event.what, Message)}
    assert topics == {"sensors/a/state", "sensors/a-2/state", "sensors/a-3/state"}


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        ({"topic": "a/+", "field": [{"name": "x"}]}, "without wildcards"),
        ({"topic": "a", "format": "text", "field": []}, "no field"),
        ({"topic": "a", "qos": 3, "field": [{"name": "x"}]}, "qos is a whole number from 0 to 2"),
        ({"topic": "a", "format": "xml", "field": [{"name": "x"}]}, "unknown format"),
        ({"topic": "a", "every": 0, "field": [{"name": "x"}]}, "every is a whole number"),
        ({"topic": "a", "colour": 1, "field": [{"name": "x"}]}, "unknown 'colour'"),
    ],
)
def test_a_wrong_stream_is_refused(stream: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="stream|topic") as raised:  # noqa: RUF043
        StreamSpec.parse(stream)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({}, "name of a field is a text"),
        ({"name": "x", "model": "magic"}, "unknown model"),
        ({"name": "x", "mean": "much"}, "mean is a number"),
        ({"name": "x", "model": "choice"}, "needs choices"),
        ({"name": "x", "memory": "long"}, "must be such as"),
        ({"name": "x", "size": 1}, "unknown 'size'"),
    ],
)
def test_a_wrong_field_is_refused(field: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        FieldSpec.parse(field)
    assert text in str(raised.value)


@pytest.mark.parametrize("topic_filter", ["sensors/#", "sensors/+/state"])
def test_a_live_fleet_is_learned_from_a_broker(topic_filter: str, make_mosquitto: Callable[[], Broker]) -> None:
    broker = make_mosquitto()
    fleet = Fleet(FleetSpec(counted_fleet(3).devices), 7, SEEDED_START, interval=0.2)
    with Publisher(broker.url) as publisher:
        for device in fleet.devices.values():
            for message in device.dialect.birth(device):
                publisher.publish(message.topic, message.payload, retain=message.retain)
        learner = Learner(topic_filter)
        # The listener is in a thread of the test's making; what it hears is published from here.
        stopped = threading.Event()
        thread = threading.Thread(
            target=listen, args=(BrokerAddress.parse(broker.url), learner, 60.0, stopped.is_set), daemon=True
        )
        thread.start()
        eventually(lambda: learner.started is not None, 10, "the retained messages are heard")
        for event in fleet.take(SEEDED_START + 4):
            assert isinstance(event.what, Message)
            publisher.publish(event.what.topic, event.what.payload)
        stopped.set()
        thread.join(30)
    devices = learned(learner, 4)["device"]
    assert [device["id"] for device in devices] == ["sim-1", "sim-2", "sim-3"]
    assert devices[0]["name"] == "Living room"
    assert devices[0]["status"] == {"topic": "sensors/{id}/status", "online": "online", "offline": "offline"}
    assert devices[0]["units"]["temperature"]["unit"] == "°C"
    assert devices[0]["stream"][0]["qos"] == 1


def overheard(fleet: Fleet, topic_filter: str, seconds: float) -> Learner:
    """What a fleet says, heard without a broker from the births on."""
    learner = Learner(topic_filter)
    now = [SEEDED_START]
    messages: list[tuple[float, Message, bool]] = []
    for device in fleet.devices.values():
        messages += [(NOW, message, True) for message in device.dialect.birth(device)]
    while now[0] < SEEDED_START + seconds:
        now[0] = max(fleet.next_time, now[0])
        events = list(fleet.take(now[0]))
        messages += [
            (NOW + now[0] - SEEDED_START, event.what, False) for event in events if isinstance(event.what, Message)
        ]
        now[0] = fleet.next_time
    for t, message, retained in messages:
        if topic_matches_sub(topic_filter, message.topic):
            learner.hear(message.topic, message.payload, t, qos=message.qos, retained=retained and message.retain)
    return learner


def shape(value: Any) -> Any:
    """The form of a JSON value: names, array lengths and types, numbers being all alike."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def forms(learner: Learner) -> dict[str, Any]:
    """Topic to the form of its newest payload, its QoS and how many came."""
    found = {}
    for topic, heard in learner._topics.items():
        payload = heard.samples[-1].payload
        try:
            form = shape(json.loads(payload))
        except ValueError:
            form = "text"
        found[topic] = form, heard.qos, bool(heard.live)
    return found


def numbers(learner: Learner, skip: int = 0) -> dict[str, list[float]]:
    """Every number by topic and path."""
    found: dict[str, list[float]] = {}
    for topic, heard in learner._topics.items():
        for sample in heard.live[skip:]:
            try:
                value = json.loads(sample.payload)
            except ValueError:
                continue
            for path, item in _flat({"": value}):
                if isinstance(item, (int, float)) and not isinstance(item, bool):
                    found.setdefault(f"{topic} {path}", []).append(item)
    return found


def run_of(text: str) -> Fleet:
    return Fleet(parse_fleet(text), 11, SEEDED_START, ts_offset=NOW - SEEDED_START)


KINDS_OF_FLEET = ("climate", "plug", "motion", "outdoor", "air")
FILTERS = {
    "native": "sensors/#", "homeassistant": "sensors/#", "tasmota": "tele/#", "zigbee2mqtt": "zigbee2mqtt/#",
    "esphome": "+/#", "homie": "homie/5/#", "senml": "senml/#", "shelly": "+/#", "mixed": "#",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dialect", list(FILTERS))
def test_the_clone_of_a_clone_agrees_with_what_was_cloned(dialect: str) -> None:
    dialects = list(FILTERS)[:-1] if dialect == "mixed" else [dialect]
    specs = tuple(
        DeviceSpec(f"{speaks}-{kind}", kind, f"A {kind}", dialect=speaks)
        for speaks in dialects
        for kind in KINDS_OF_FLEET
    )
    original = Fleet(FleetSpec(specs), 7, SEEDED_START, interval=5.0, ts_offset=NOW - SEEDED_START)
    seconds = 300.0
    first = overheard(original, FILTERS[dialect], seconds)
    text = fleet_text(first, seconds)
    second = overheard(run_of(text), FILTERS[dialect], seconds)
    again = fleet_text(second, seconds)
    third = overheard(run_of(again), FILTERS[dialect], seconds)
    # Under "#" a first level is a device, so what is retained under another one is nobody's.
    said = {
        topic: form
        for topic, form in forms(first).items()
        if dialect != "mixed" or "homeassistant/device/" not in topic
    }
    for clone in (second, third):
        known = forms(clone)
        # A number of 21 and one of 21.5 are one form; so is what the simulator says of itself.
        assert {topic: form for topic, form in known.items() if topic in said} == said
        assert {topic for topic in known if not topic.endswith("/meta")} <= set(said)
        counts = {topic: len(heard.live) for topic, heard in first._topics.items() if heard.live}
        for topic, count in counts.items():
            assert len(clone._topics[topic].live) == pytest.approx(count, rel=0.1, abs=1), topic
        told = numbers(clone)
        for path, values in numbers(first).items():
            low, high = min(values), max(values)
            room = max(high - low, 0.05 * max(abs(high), abs(low)), 1.0) * 3
            if not path.endswith((" .seq", " .boot")):
                assert low - room <= min(told[path]), path
                assert max(told[path]) <= high + room + seconds, path
    assert [device["id"] for device in tomllib.loads(again)["device"]] == [
        device["id"] for device in tomllib.loads(text)["device"]
    ]


def test_topics_with_the_same_last_level_have_values_of_their_own() -> None:
    learner = Learner("N/+/#")
    hear(learner, "N/p/Ac/L1/Power", [{"value": 100 + number * 3 % 5} for number in range(20)])
    hear(learner, "N/p/Ac/L2/Power", [{"value": 2000 + number * 3 % 7} for number in range(20)])
    hear(learner, "N/p/temperature/state", [21.5 + number % 3 / 10 for number in range(20)])
    hear(learner, "N/p/co2/state", [600 + number * 5 % 11 for number in range(20)])
    said: dict[str, list[Any]] = {}
    for event in run(fleet_text(learner, 20), 20):
        if isinstance(event.what, Message) and not event.what.retain:
            value = json.loads(event.what.payload)
            said.setdefault(event.what.topic, []).append(value["value"] if isinstance(value, dict) else value)
    assert 90 < min(said["N/p/Ac/L1/Power"]) <= max(said["N/p/Ac/L1/Power"]) < 120
    assert min(said["N/p/Ac/L2/Power"]) > 1900
    assert max(said["N/p/temperature/state"]) < 40
    assert min(said["N/p/co2/state"]) > 500


@pytest.mark.parametrize(
    "payload",
    [
        b"[1,2]", b'[{"n":"t","v":1}]', b"true", b"null", b'"quoted"', b"plain", b"\xff\x00\xfe", b"{}", b"[]",
        b'{"PM2.5":3}', b'{"a.b":{"[0]":1}}', b'{"1,5":{" s ":1}}', b'{"a":{"":[1]}}', b'[{"":[1,{"a":2}]},[3]]',
        b'{"a\\\\b":1}', b'{"":1}', b'{"a":[[1],[{"b":[]}]]}',
    ],
)  # fmt: skip
def test_a_payload_that_never_changes_comes_back_as_it_was(payload: bytes) -> None:
    learner = Learner("d/+")
    hear(learner, "d/x", [payload, payload, payload])
    said = {event.what.payload for event in run(fleet_text(learner, 3)) if isinstance(event.what, Message)}
    assert said == {payload}


def test_numbers_that_are_texts_stay_texts_and_vary_as_numbers() -> None:
    learner = Learner("d/+")
    heard = [f'{{"tempc":"{20 + number % 17 / 10:.1f}","n":"{number}"}}'.encode() for number in range(60)]
    hear(learner, "d/x", heard)
    fields = {item["name"]: item for item in learned(learner)["device"][0]["stream"][0]["field"]}
    assert (fields["tempc"]["text"], fields["tempc"]["decimals"]) == (True, 1)
    assert fields["n"] == {"name": "n", "model": "seq", "text": True}
    said = [event.what.payload for event in run(fleet_text(learner, 60)) if isinstance(event.what, Message)]
    readings = [json.loads(payload) for payload in said]
    assert all(re.fullmatch(r"\d\d\.\d", reading["tempc"]) for reading in readings)
    assert len({reading["tempc"] for reading in readings}) > 1
    assert [reading["n"] for reading in readings] == [str(number) for number in range(len(readings))]


def test_a_payload_that_is_a_number_with_a_unit_varies_and_keeps_it() -> None:
    learner = Learner("d/+")
    hear(learner, "d/x", [f"{20 + number % 17 / 10:.1f} °C".encode() for number in range(60)])
    [field] = learned(learner)["device"][0]["stream"][0]["field"]
    assert (field["text"], field["suffix"], field["decimals"]) == (True, " °C", 1)
    said = {event.what.payload for event in run(fleet_text(learner, 60)) if isinstance(event.what, Message)}
    assert len(said) > 1
    assert all(re.fullmatch(r"\d\d\.\d °C", payload.decode()) for payload in said)


def test_what_is_retained_and_no_text_is_kept_and_not_erased() -> None:
    learner = Learner("d/+/#")
    learner.hear("d/x/kept", b"\x80\x01", NOW, retained=True)
    hear(learner, "d/x/live", [b"\x80", b"\x81", b"\x80"], retained=False)
    hear(learner, "d/x/gone", [b"", b""])
    (device,) = run_of(fleet_text(learner, 3)).devices.values()
    births = {message.topic: message.payload for message in device.dialect.birth(device)}
    assert births["d/x/kept"] == b"\x80\x01"
    said = [event.what for event in run(fleet_text(learner, 3)) if isinstance(event.what, Message)]
    assert {message.payload for message in said} == {b"\x80", b"\x81"}


def test_two_clones_do_not_throw_each_other_out(make_mosquitto: Callable[..., Broker]) -> None:
    broker = make_mosquitto()
    learners = [Learner("a/#"), Learner("a/#")]
    ended = threading.Event()
    threads = [
        threading.Thread(target=listen, args=(BrokerAddress.parse(broker.url), learner, 60.0, ended.is_set))
        for learner in learners
    ]
    for thread in threads:
        thread.start()
    with Publisher(broker.url) as publisher:

        def heard() -> bool:
            publisher.publish("a/b", b"1")
            return all(learner.started is not None for learner in learners)

        eventually(heard, 20, "both hear")
    ended.set()
    for thread in threads:
        thread.join(20)
    assert "already connected" not in broker.log()

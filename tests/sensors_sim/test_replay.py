"""Recordings: what is read, and when it is published."""

import io
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sensors_sim.replay
from gateway.core.frames import json_line
from gateway.core.messages import Message as Arrival
from sensors_sim.address import BrokerAddress
from sensors_sim.links import Link, Links, LinkState
from sensors_sim.messages import Message
from sensors_sim.replay import Recorded, Replay, read_recording
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually


def written(path: Path, *lines: dict[str, Any] | str) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return str(path)


def test_envelopes_become_messages_again(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.ndjson",
        '{"topic":"a/json","payload":{"t": 21.50 , "é":[1,2]},"time":1000,"seq":1}',
        {"topic": "a/text", "payload": "on", "time": 1500, "qos": 1},
        {"topic": "a/bytes", "payload": "/wA=", "encoding": "base64", "time": 2250, "retained": True, "qos": 2},
        "",
        {"event": "gap", "lost": 3},
        {"topic": "a/empty", "payload": "", "time": 2000},
    )
    assert read_recording(path) == [
        Recorded(0.0, Message("a/json", '{"t": 21.50 , "é":[1,2]}'.encode(), 0, False)),
        Recorded(0.5, Message("a/text", b"on", 1, False)),
        Recorded(1.25, Message("a/bytes", b"\xff\x00", 2, True)),
        Recorded(1.25, Message("a/empty", b"", 0, False)),  # never back in time, whatever a clock said
    ]


@pytest.mark.parametrize(
    ("payload", "replayed"),
    [
        (b"21.50", b"21.50"),
        (b'{ "a" : 1e2 }', b'{ "a" : 1e2 }'),
        (b" on", b" on"),
        (b'"on', b'"on'),
        (b"\x80", b"\x80"),
        (b"", b""),
        # the limits that docs/sensors.md names
        (b'{"a":1,\r\n"b":2}\n', b'{"a":1,  "b":2}'),
        (b'"on"', b"on"),
    ],
)
def test_what_the_gateway_writes_is_replayed_byte_for_byte_within_documented_limits(
    payload: bytes, replayed: bytes, tmp_path: Path
) -> None:
    line = json_line(Arrival.arrived(1, "t", payload, 1000).body).decode()
    assert [one.message.payload for one in read_recording(written(tmp_path / "x.ndjson", line))] == [replayed]


def test_csv_with_payloads(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.csv",
        "time,seq,topic,payload",
        '2026-09-21T13:13:20.000Z,1,a,"{""t"":21.5}"',
        "2026-09-21T13:13:21.500Z,2,b,on",
    )
    assert read_recording(path) == [
        Recorded(0.0, Message("a", b'{"t":21.5}')),
        Recorded(1.5, Message("b", b"on")),
    ]


def test_csv_with_a_column_for_each_field(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "time,topic,temperature,mode,qos", "0,a,21.5,auto,1", "1000,a,22,,0")
    assert read_recording(path) == [
        Recorded(0.0, Message("a", b'{"temperature":21.5,"mode":"auto"}', 1)),
        Recorded(1.0, Message("a", b'{"temperature":22}')),
    ]


def test_a_column_is_named_by_the_path_of_its_field(tmp_path: Path) -> None:
    columns = r"time,topic,SDS0X1.PM2\.5,rx[1].rssi,a.b,\time,a["
    path = written(tmp_path / "x.csv", columns, "0,a,4,-60,on,7,1", "0,b,,,,8,")
    assert [json.loads(one.message.payload) for one in read_recording(path)] == [
        {"SDS0X1": {"PM2.5": 4}, "rx": [None, {"rssi": -60}], "a": {"b": "on"}, "time": 7, "a[": 1},
        {"time": 8},
    ]


PROPERTIES = {
    "content_type": "text/plain",
    "response_topic": "answers/1",
    "correlation_data": "/wA=",
    "user_properties": [("a", "1"), ("a", "2")],
    "message_expiry_interval": 600,
}


def test_properties_are_read(tmp_path: Path) -> None:
    line = {"topic": "a", "payload": "on", "time": 0, "properties": PROPERTIES}
    [recorded] = read_recording(written(tmp_path / "x.ndjson", line))
    assert recorded.message == Message("a", b"on", properties=PROPERTIES)
    plain = {"topic": "a", "payload": "on", "time": 0, "properties": {"of_later": 1}}
    [recorded] = read_recording(written(tmp_path / "x.ndjson", plain))
    assert recorded.message == Message("a", b"on")


@pytest.mark.slow
def test_properties_are_published_again(mosquitto: Broker, prefix: str) -> None:
    messages = [Recorded(0.0, Message("t", b"%d" % number, 1, False, PROPERTIES)) for number in range(100)]
    replay = Replay(messages, BrokerAddress.parse(mosquitto.url), prefix=f"{prefix}/")
    heard: list[Any] = []
    links = Links(BrokerAddress.parse(mosquitto.url), on_message=heard.append, speaks_5=True)
    link = Link(f"listener-{prefix}", None, [f"{prefix}/t"], "listener")
    links.open(link)
    try:
        while link.state is not LinkState.UP or link.unanswered:
            links.turn(0.05)
        assert replay.run() == 100

        def all_there() -> bool:
            links.turn(0.05)
            return len(heard) == 100

        eventually(all_there, 10)
    finally:
        links.close()
    first = heard[0].properties
    assert (first.ContentType, first.ResponseTopic, first.CorrelationData) == ("text/plain", "answers/1", b"\xff\x00")
    assert first.UserProperty == [("a", "1"), ("a", "2")]
    assert 590 < first.MessageExpiryInterval <= 600


def test_standard_input_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b'{"topic":"a","payload":1,"time":0}\n')

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert read_recording("-") == [Recorded(0.0, Message("a", b"1"))]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("x.ndjson", "", "no message in it"),
        ("x.ndjson", '{"event":"gap"}', "no message in it"),
        ("x.ndjson", '{"topic":"a","payload":1,"time":0}\n{oops', "line 2:"),
        ("x.ndjson", '{"topic":"a/#","payload":1,"time":0}', "line 1: topic 'a/#'"),
        ("x.ndjson", '{"topic":"a","payload":1,"time":"soon"}', "time 'soon'"),
        ("x.ndjson", '{"topic":"a","payload":"?","encoding":"base64","time":0}', "no base64"),
        ("x.ndjson", '{"topic":"a","payload":1,"qos":7,"time":0}', "qos is 0, 1 or 2"),
        ("x.ndjson", '{"topic":"a","payload":1,"time":0,"properties":{"content_type":3}}', "line 1"),
        ("x.csv", "time,topic,payload,properties\n1,a,1,oops", "line 2: properties"),
        ("x.csv", 'time,topic,payload,properties\n1,a,1,"{""correlation_data"":""?""}"', "can't be encoded"),
        ("x.csv", "when,what\n1,2", "no column 'time'"),
        ("x.csv", "time,topic,payload\n1,,x", "line 2: topic '': must have at least one character"),
    ],
)
def test_a_wrong_recording_is_refused_with_its_line(tmp_path: Path, name: str, text: str, problem: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="recording") as raised:
        read_recording(str(path))
    assert problem in str(raised.value)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ValueError, match="recording /nowhere/x"):
        read_recording("/nowhere/x")


@given(st.lists(st.tuples(st.integers(0, 10**13), st.text(max_size=20)), min_size=1, max_size=10))
def test_offsets_never_go_back(tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[int, str]]) -> None:
    path = tmp_path_factory.mktemp("r") / "x.ndjson"
    recording = read_recording(written(path, *({"topic": "t", "payload": text, "time": ms} for ms, text in lines)))
    offsets = [recorded.offset for recorded in recording]
    assert offsets == sorted(offsets)
    assert [recorded.message.payload.decode() for recorded in recording] == [text for _, text in lines]


def recording(*offsets: float) -> list[Recorded]:
    return [Recorded(offset, Message("t", b"%d" % number, 1)) for number, offset in enumerate(offsets)]


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Callable[[Replay], list[float]]:
    """Runs a replay whose clock is turned by its waiting alone; when it published each message, from the first on."""

    def run(replay: Replay) -> list[float]:
        now, found = 0.0, []
        turn, publish = replay._links.turn, replay._links.publish

        def wait(seconds: float) -> None:
            nonlocal now
            now += seconds
            turn(0)

        def note(*arguments: Any) -> None:
            found.append(now)
            publish(*arguments)

        monkeypatch.setattr(sensors_sim.replay, "time", SimpleNamespace(monotonic=lambda: now))
        monkeypatch.setattr(replay._links, "turn", wait)
        monkeypatch.setattr(replay._links, "publish", note)
        assert replay.run() == len(found)
        return [moment - found[0] for moment in found]

    return run


def test_the_spacing_is_that_of_the_recording_over_the_speed(
    mosquitto: Broker, prefix: str, moments: Callable[[Replay], list[float]]
) -> None:
    address = BrokerAddress.parse(mosquitto.url)
    replay = Replay(recording(0.0, 4.0, 4.0, 8.0), address, speed=10.0, prefix=f"{prefix}/")
    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"{prefix}/t")
        assert moments(replay) == pytest.approx([0.0, 0.4, 0.4, 0.8])
        eventually(lambda: len(listener.received) == 4)


def test_long_silences_can_be_cut_short(
    mosquitto: Broker, prefix: str, moments: Callable[[Replay], list[float]]
) -> None:
    address = BrokerAddress.parse(mosquitto.url)
    replay = Replay(recording(0.0, 3600.0, 7200.0), address, max_gap=0.2, prefix=f"{prefix}/")
    assert moments(replay) == pytest.approx([0.0, 0.2, 0.4])


def test_a_loop_goes_round_until_it_is_stopped(mosquitto: Broker, prefix: str) -> None:
    replay = Replay(recording(0.0, 0.05), BrokerAddress.parse(mosquitto.url), loop=True, prefix=f"{prefix}/")
    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"{prefix}/t")
        thread = threading.Thread(target=replay.run, daemon=True)
        thread.start()
        eventually(lambda: len(listener.received) >= 6, 10, "three rounds")
        replay.stop()
        thread.join(30)
        assert not thread.is_alive()
    assert [payload for _, payload in listener.received[:6]] == [b"0", b"1"] * 3


def test_a_recording_of_no_length_loops_with_a_pause(mosquitto: Broker, prefix: str) -> None:
    replay = Replay(recording(0.0), BrokerAddress.parse(mosquitto.url), loop=True, prefix=f"{prefix}/")
    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"{prefix}/t")
        thread = threading.Thread(target=replay.run, daemon=True)
        thread.start()
        eventually(lambda: len(listener.received) >= 2, 10, "two rounds")
        replay.stop()
        thread.join(30)
        assert len(listener.received) < 10


@pytest.mark.slow
def test_everything_arrives_as_fast_as_the_broker_takes_it(mosquitto: Broker, prefix: str) -> None:
    many = [Recorded(number / 1000, Message("t", b"%d" % number, 1)) for number in range(5000)]
    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"{prefix}/t")
        assert Replay(many, BrokerAddress.parse(mosquitto.url), speed=100_000, prefix=f"{prefix}/").run() == 5000
        eventually(lambda: len(listener.received) == 5000, 20)
    assert [int(payload) for _, payload in listener.received] == list(range(5000))

"""The benchmarks measure what they say: counting is exact, and a short run of each scenario comes through."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import sys
import time
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import cluster, many, messages, micro, page, report, wire
from benchmarks.__main__ import chosen, main
from benchmarks.counting import EnvelopeCounter, SequenceCounter, pings_in
from benchmarks.processes import HOST, BenchmarkError, StandIn, processor_seconds, resident_bytes
from benchmarks.scenarios import SCENARIOS, Result, Server
from gateway.core.frames import frame_text, unframe
from gateway.upstream.packets import PacketReader
from tests.support.brokers import mosquitto_program
from tests.support.waiting import PATIENCE_SECONDS, missing

DEVICES = 3


def stream(numbers: list[int], *, seq: int = 18_273) -> bytes:
    """The bytes that a gateway's subscriber of everything gets for these messages."""
    frames = []
    for number in numbers:
        payload = messages.payload(1_790_000_000.0 + number, number // DEVICES, number)
        topic = messages.topic(number % DEVICES)
        frames.append(b'{"topic":"%b","payload":%b,"time":1,"seq":%d}' % (topic.encode(), payload, seq + number))
    return b"".join(frame_text(frame) for frame in frames)


def feed(counter: SequenceCounter, data: bytes, cuts: list[int]) -> None:
    """Gives the counter the data in pieces, as the load does: with the tail before each."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        piece = counter.tail + data[start:end]
        counter.feed(piece, len(counter.tail), len(piece), 1_790_000_100.0)


PATTERNS = [messages.NUMBER, messages.NUMBER_WITH_TIME]


@given(st.integers(1, 12), st.lists(st.integers(0, 10_000), max_size=30), st.sampled_from(PATTERNS))
def test_each_message_counts_once_wherever_the_stream_is_cut(count: int, cuts: list[int], pattern: object) -> None:
    sampled = pattern is messages.NUMBER_WITH_TIME
    counter = SequenceCounter(PATTERNS[sampled], delays=array("d") if sampled else None)
    feed(counter, stream(list(range(count))), cuts)
    assert (counter.received, counter.lost, counter.repeated, counter.next_count) == (count, 0, 0, count)
    if counter.delays is not None:
        assert list(counter.delays) == [100.0 - number for number in range(count)]


@given(st.lists(st.integers(0, 30), max_size=30), st.lists(st.integers(0, 10_000), max_size=30))
def test_lost_repeated_and_reordered_messages_are_seen(numbers: list[int], cuts: list[int]) -> None:
    counter = SequenceCounter(messages.NUMBER)
    feed(counter, stream(numbers), cuts)
    highest, lost, repeated = -1, 0, 0
    for number in numbers:
        if number > highest:
            lost, highest = lost + number - highest - 1, number
        else:
            repeated += 1
    assert (counter.received, counter.lost, counter.repeated) == (len(numbers), lost, repeated)


def test_a_devices_own_count_is_not_taken_for_the_envelopes() -> None:
    counter = SequenceCounter(messages.DEVICE_COUNT)
    feed(counter, stream([1, 4, 7], seq=1_234_567_890), [])
    assert (counter.received, counter.lost, counter.repeated) == (3, 0, 0)


@given(st.integers(1, 20), st.integers(0, 500))
def test_messages_go_to_the_devices_in_turn(devices: int, published: int) -> None:
    counts = [messages.messages_of_device(device, devices, published) for device in range(devices)]
    assert counts == [len(range(device, published, devices)) for device in range(devices)]


def test_a_parsed_stream_accounts_for_what_was_skipped_and_what_a_gap_told() -> None:
    counter = EnvelopeCounter()

    def envelope(count: int, **more: object) -> bytes:
        payload = json.loads(messages.payload(0.0, count, count))
        return frame_text(json.dumps({"topic": "a", "payload": payload, **more}).encode())

    counter.feed(envelope(0) + envelope(4, skipped=3), 0.0)
    assert (counter.received, counter.skipped, counter.unexplained) == (2, 3, 0)
    gap = frame_text(b'{"event":"gap","reason":"slow","lost":5,"from":1,"to":9}')
    counter.feed(gap + envelope(10), 0.0)
    assert (counter.gap, counter.unexplained, counter.repeated) == (5, 5, 0)
    counter.feed(envelope(10), 0.0)
    assert counter.repeated == 1


def test_pings_are_found_among_text_frames_and_lengths_are_not_taken_for_pings() -> None:
    longest_that_looks_like_one = frame_text(b"{" + b"x" * (0x189 - 1))
    data = longest_that_looks_like_one + b"\x89\x04\x89abc" + frame_text(b"{}") + b"\x89\x00"
    assert pings_in(data, 0, len(data)) == [b"\x89abc", b""]


@given(st.binary(max_size=300), st.lists(st.integers(0, 700), max_size=5))
def test_frames_are_read_as_the_gateway_writes_them(body: bytes, cuts: list[int]) -> None:
    data = frame_text(body) + frame_text(b"{}")
    reader, frames = wire.FrameReader(), list[tuple[int, bytes]]()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        frames += reader.feed(data[start:end])
    assert frames == [(wire.TEXT, body), (wire.TEXT, b"{}")]
    assert [payload for _, payload in unframe(data)] == [body, b"{}"]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 300])
def test_client_frames_are_masked_and_come_out_as_they_were(length: int) -> None:
    body = bytes(number % 251 for number in range(length))
    frame = wire.client_frame(body)
    start = 2 if length < 126 else 4
    assert frame[1] & 0x80
    key, masked = frame[start : start + 4], frame[start + 4 :]
    assert bytes(byte ^ key[at % 4] for at, byte in enumerate(masked)) == body


def test_packets_are_mqtt() -> None:
    found: list[tuple[str, bytes, int]] = []

    def take(topic: str, payload: bytes, qos: int) -> None:
        found.append((topic, payload, qos))

    def fail(*what: object) -> None:
        raise AssertionError(what)

    reader = PacketReader(
        version=4, on_message=take, on_special=fail, on_packet=fail, on_error=fail, on_oversize=fail,
        accepts=bool, max_message_bytes=1 << 20,
    )  # fmt: skip
    reader.plain = frozenset({b""})
    payload = messages.payload(1_790_000_000.5, 7, 21)
    reader.feed(wire.mqtt_publish("sensors/0/state", payload) + wire.mqtt_publish("a", bytes(200)))
    assert found == [("sensors/0/state", payload, 0), ("a", bytes(200), 0)]
    assert json.loads(payload)["n"] == messages.COUNT_BASE + 21


def test_a_failed_requirement_is_marked_and_decides_the_exit_code() -> None:
    def result(server: Server, cpu_seconds: float, **more: object) -> Result:
        found = Result("S1", server, seconds=1, server_cpu_seconds=cpu_seconds, deliveries=100_000, p50_ms=5)
        for name, value in more.items():
            setattr(found, name, value)
        return found

    def marks(gateway: Result) -> dict[str, bool]:
        runs: dict[tuple[str, Server], Result] = {
            ("S1", "mosquitto"): result("mosquitto", 1.0),
            ("S1", "gateway"): gateway,
        }
        return {check.what: check.passed for check in report.checks(runs)}

    assert all(marks(result("gateway", 0.59)).values())
    assert not marks(result("gateway", 0.61))["processor time per delivery, part of Mosquitto's"]
    assert not marks(result("gateway", 0.5, p50_ms=9))["p50 delay"]
    assert not marks(result("gateway", 0.5, lost=1))["lost or repeated"]
    assert report.median([result("gateway", cpu) for cpu in (0.9, 0.1, 0.2)]).server_cpu_seconds == 0.2


def test_figures_are_written_where_the_page_has_their_marks() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter"
    once = report.replaced(page, "| S1 |")
    assert once == f"before\n{report.BEGIN}\n| S1 |\n{report.END}\nafter"
    assert report.replaced(once, "| S1 |") == once
    with pytest.raises(ValueError, match="there is no"):
        report.replaced("no marks", "")
    with pytest.raises(ValueError, match="there is no"):
        report.replaced(page, "", "<!-- other -->")
    assert max(map(len, report.paragraph("Two cores, " * 100).splitlines())) <= 120
    assert report.BEGIN in Path("docs/performance.md").read_text()


def test_what_a_scenario_is_compared_with_is_run_too() -> None:
    assert [scenario.name for scenario in chosen(["S8"])] == ["S8", "S8/1"]
    assert [scenario.name for scenario in chosen(["S7"])] == ["S2", "S7"]
    assert [scenario.name for scenario in chosen(["S10"])] == ["S9", "S10"]
    assert [scenario.name for scenario in chosen([])] == list(SCENARIOS)


def test_an_unknown_scenario_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["S99"])
    assert ended.value.code == 2
    assert "no such scenario: S99" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="processor time is read from /proc")
def test_processor_time_and_memory_of_this_process_are_read() -> None:
    before, own = processor_seconds(os.getpid()), time.process_time()
    while time.process_time() - own < 0.2:
        sum(range(10_000))
    assert processor_seconds(os.getpid()) - before == pytest.approx(time.process_time() - own, abs=0.05)
    assert resident_bytes(os.getpid()) > 1 << 20


def test_counts_of_the_pure_parts_are_the_same_each_time() -> None:
    operation = micro.CASES["encode, JSON"][0]()
    counts = [(micro.count_calls(operation, 5), micro.count_bytecodes(operation, 5)) for _ in range(2)]
    assert counts[0] == counts[1]
    assert all(count > 0 for count in (*counts[0][0], counts[0][1]))


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the counts are those of Python 3.11")
@pytest.mark.parametrize("name", micro.CASES)
def test_no_hot_path_has_become_longer(name: str) -> None:
    """Nor shorter unseen: `python -m benchmarks.micro --keep` writes the counts that it should have from now on."""
    kept = json.loads(micro.COUNTS.read_text())
    assert micro.count(name)[2] == pytest.approx(kept[name], rel=0.02, abs=0.2)


def test_keeping_the_counts_of_some_cases_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(micro, "COUNTS", tmp_path / "counts.json")
    micro.COUNTS.write_text('{"another": {"bytecodes": 1.0}}')
    assert micro.main(["match, cached", "--keep"]) == 0
    assert set(json.loads(micro.COUNTS.read_text())) == {"another", "match, cached"}


def test_a_count_that_changed_is_told() -> None:
    before = {"append": {"bytecodes": 100.0, "nanoseconds": 5.0}}
    assert micro.compare(before, {"append": {"bytecodes": 110.0, "nanoseconds": 9.0}}) == [
        "append: bytecodes 100.0 → 110.0 (+10.0%)"
    ]


def test_the_longest_stall_between_two_looks_is_that_of_the_highest_bucket_with_a_new_one() -> None:
    text = "".join(
        f'gateway_loop_stall_seconds_bucket{{le="{bound}"}} {count}.0\n'
        for bound, count in (("0.005", 7), ("0.02", 9), ("0.05", 9), ("+Inf", 10))
    )
    before = many.stalls_in("# HELP gateway_loop_stall_seconds x\n" + text)
    assert before == {0.005: 7, 0.02: 9, 0.05: 9, float("inf"): 10}
    after = {0.005: 9, 0.02: 12, 0.05: 12, float("inf"): 13}
    assert many.longest_since(before, after) == 0.02
    assert many.longest_since({}, before) == 0.05  # how long beyond the last bound nobody knows
    assert many.longest_since(before, before) == 0.0


def test_what_100_000_connections_must_reach_is_held_to_what_was_measured() -> None:
    figures = many.Figures(
        connections=100_000, ready=100_000, handshake_seconds=50.0, empty_mib=75.0, kib_per_connection=10.5,
        to_all_seconds=[1.5, 1.0], delivered=[100_000, 100_000], held_seconds=600.0, stall_ms=20.0,
    )  # fmt: skip
    assert all(check.passed for check in many.checks(figures, 600))
    changes: list[tuple[str, Any]] = [
        ("closed", 1), ("handshake_seconds", 70.0), ("kib_per_connection", 11.0), ("to_all_seconds", [2.1]),
        ("delivered", [99_999, 100_000]), ("held_seconds", 599.0), ("stall_ms", 50.0),
    ]  # fmt: skip
    for name, value in changes:
        assert [check.passed for check in many.checks(replace(figures, **{name: value}), 600)].count(False) >= 1, name
    assert "2,000/s" in many.said(figures)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the load waits in epoll")
@pytest.mark.parametrize("gateways", [1, 3])
def test_a_few_of_many_are_held_get_their_message_and_are_told_to_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gateways: int
) -> None:
    if mosquitto_program() is None or shutil.which("cc") is None:
        missing("the mosquitto program or a C compiler")
    file = tmp_path / "figures.json"
    options = ["--connections", "60", "--topics", "4", "--addresses", "3", "--hold", "1", "--json", str(file)]
    code = many.main([*options, "--gateways", str(gateways), "--set", "GATEWAY_LIMIT_IDLE_SECONDS=2"])
    assert code == 0, capsys.readouterr().out
    figures = many.Figures(**json.loads(file.read_text()))
    assert (figures.ready, figures.failed, figures.closed) == (60, 0, 0)
    assert figures.pings >= 30
    assert set(figures.delivered) == {60}
    assert figures.told_to_come_back == 60


CONNECT = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x07\x00\x02id"
"""MQTT 5, with a Receive Maximum of 7."""

SUBSCRIBE = b"\x82\x11\x00\x01\x02\x0b\x05\x00\x09sensors/#\x01"
"""At QoS 1, with the subscription identifier 5."""


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in is built for Linux")
@pytest.mark.parametrize("qos", [0, 1])
def test_the_stand_in_sends_each_number_once_and_keeps_to_the_receive_maximum(tmp_path: Path, qos: int) -> None:
    if shutil.which("cc") is None:
        missing("a C compiler")
    found: list[tuple[str, bytes, int]] = []

    def take(*message: Any) -> None:
        found.append(message)

    def fail(*what: object) -> None:
        raise AssertionError(what)

    def other(packet: bytes) -> None:
        packets.append(packet)

    packets: list[bytes] = []
    reader = PacketReader(
        version=5, on_message=take, on_special=fail, on_packet=other, on_error=fail, on_oversize=fail,
        accepts=bool, max_message_bytes=1 << 20,
    )  # fmt: skip
    reader.plain = frozenset({b"\x0b\x05"})
    with (
        StandIn(tmp_path, None) as broker,
        socket.create_connection((HOST, broker.port), timeout=PATIENCE_SECONDS) as sock,
    ):

        def read_until(count: int) -> None:
            while len(found) < count:
                reader.feed(sock.recv(65_536))

        sock.sendall(CONNECT + SUBSCRIBE)
        while len(packets) < 2:
            reader.feed(sock.recv(64))
        assert packets == [b"\x20\x03\x00\x00\x00", b"\x90\x04\x00\x01\x00\x01"]
        broker.ask({"rate": 5000, "devices": DEVICES, "qos": qos}, answered=False)
        if qos:
            read_until(7)
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(10)
            while len(found) < 40:
                sock.sendall(b"".join(reader.acknowledgements))
                reader.acknowledgements.clear()
                reader.feed(sock.recv(65_536))
        read_until(40)
        answer = broker.ask({"rate": 0})
        read_until(answer["published"])
    assert len(found) == answer["published"]
    assert {message[2] for message in found} == {qos}
    assert answer["most_under_way"] == 7 * qos
    assert answer["misordered"] == 0
    assert {len(payload) for _, payload, _ in found} == {75}
    counter = SequenceCounter(messages.NUMBER_WITH_TIME, delays=array("d"))
    counter.feed(b"".join(payload for _, payload, _ in found), 0, 75 * len(found), time.time())
    assert (counter.received, counter.lost, counter.repeated) == (len(found), 0, 0)
    assert counter.delays is not None
    assert all(0 <= delay < 60 for delay in counter.delays)
    for number, (topic, payload, _) in enumerate(found):
        assert topic == messages.topic(number % DEVICES)
        assert json.loads(payload)["seq"] == messages.COUNT_BASE + number // DEVICES


def test_delays_of_short_messages_are_found_by_their_numbers() -> None:
    data = b"".join(frame_text(b'{"topic":"a","payload":%b,"qos":1}' % messages.short_payload(n)) for n in range(9))
    assert len(messages.short_payload(3)) == 16
    times = memoryview(array("d", [8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]).tobytes()).cast(
        "d"
    )  # that of 0 was overwritten by that of 8
    counter = SequenceCounter(messages.NUMBER, delays=array("d"), times=times)
    counter.feed(data, 0, len(data), 10.0)
    assert (counter.received, counter.lost, counter.repeated) == (9, 0, 0)
    assert list(counter.delays or ()) == [2.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]


@pytest.mark.skipif(sys.platform != "linux", reason="the load waits in epoll")
@pytest.mark.timeout(240)
@pytest.mark.slow
def test_a_short_run_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if mosquitto_program() is None:
        missing("the mosquitto program")
    file = tmp_path / "figures.json"
    names = ["S4", "S5", "S6", "S7", "S8", "S10", "S11"]  # S1 to S3 take the ways of S4 and S7
    code = main([*names, "--seconds", "0.5", "--scale", "0.02", "--json", str(file)])
    said = capsys.readouterr().out
    assert code == 0, said
    figures = json.loads(file.read_text())
    servers = {(run["scenario"], run["server"]) for run in figures["runs"]}
    compared = {("S2", "gateway"), ("S8/1", "gateway"), ("S9", "gateway")}
    assert servers == compared | {(name, server) for name in names for server in SCENARIOS[name].servers}
    for run in figures["runs"]:
        assert run["deliveries"] > 0, run
        assert (run["lost"], run["repeated"], run["closed"]) == (0, 0, 0), run
        assert run["server_cpu_seconds"] > 0, run
    # what depends on speed is not for a test that shares its machine; what must hold at any speed is
    exact = {"lost or repeated", "connections cut", "recovered", "connections held and served"}
    exact |= {"acknowledged out of order"}
    exact |= {check["what"] for check in figures["checks"] if "neither" in check["what"] or "not told" in check["what"]}
    failed = [check for check in figures["checks"] if check["what"] in exact and not check["passed"]]
    assert not failed
    assert len([check for check in figures["checks"] if check["what"] in exact]) >= 13


def test_what_a_cluster_has_to_reach_is_compared_with_a_gateway_alone() -> None:
    figures = cluster.Figures(
        alone_p50_ms=2, follower_p50_ms=6.5, alone_us=20, added_us=4, way_us=2.5, shared_ratio=1.8,
        moved=100, move=100, move_seconds=3,
    )  # fmt: skip
    assert all(check.passed for check in cluster.checks(figures))
    figures.follower_p50_ms, figures.added_us, figures.shared_ratio, figures.moved = 7.1, 5.1, 1.6, 99
    assert [check.passed for check in cluster.checks(figures)] == [False, False, True, False, False, True]


def test_frames_are_counted_between_the_first_and_the_last() -> None:
    frames = page.frames_of([100.0, 120.0, 170.0, 200.0], 0.25)
    assert (frames.per_second, frames.worst_ms, frames.busy) == (30.0, 50.0, 0.25)
    with pytest.raises(BenchmarkError, match="no two frames"):
        page.frames_of([100.0], 0.0)

"""The real sensor program, run by the real MicroPython, against a real Mosquitto."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeMosquitto
from tests.firmware.boards import DEEP_SLEEP, RESET, WATCHDOG, Board
from tests.firmware.observers import Observer, listening
from tests.firmware.tunnels import Tunnel
from tests.support.brokers import Broker, BrokerOptions
from tests.support.certificates import Authority
from tests.support.waiting import eventually

HEAP = int(os.environ.get("GATEWAY_TEST_HEAP", "152")) * 1024  # bytes; a program of 32 bits needs less

MakeBoard = Callable[..., Board]
Observe = Callable[..., Observer]


def numbers(observer: Observer) -> list[int]:
    """The seq of every reading once, in the order of first arrival."""
    return list(dict.fromkeys(state["seq"] for state in observer.states()))


def test_first_reading(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    board = make_board(mosquitto.port, name="Kitchen")
    observer = observe(board)
    before = time.time()
    board.power_on()
    first, second = observer.wait_states(2)[:2]
    assert first == {**first, "seq": 0, "boot": 1, "temperature": 25.08, "pressure": 1006.53, "rssi": -61}
    assert before - 1 < first["ts"] < time.time() + 1
    assert second["seq"] == 1
    assert observer.statuses() == ["online"]
    meta = observer.metas()[0]
    assert meta["schema"] == 1
    assert meta["name"] == "Kitchen"
    assert meta["interval"] == 0.2
    assert meta["fields"]["temperature"] == {"unit": "°C", "device_class": "temperature", "min": -40, "max": 85}
    assert set(meta["fields"]) == {"temperature", "humidity", "pressure", "rssi"}
    assert "simulated" not in meta
    assert "errors" not in meta


def test_status_and_meta_are_retained_and_readings_are_not(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    board = make_board(mosquitto.port, discovery=True)
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    eventually(observer.discovery)
    board.cut_power()
    observer.wait_statuses("online", "offline")
    with (
        listening(mosquitto.port, f"+/{board.id}/#") as retained,
        listening(mosquitto.port, "homeassistant/#") as found,
    ):
        eventually(lambda: len(retained) >= 3)
        assert {message.topic.rpartition("/")[2] for message in retained if message.retain} == {
            "status",
            "meta",
            "diag",
        }
        eventually(lambda: any(board.id in message.topic for message in found))
    description = observer.discovery()[0]
    assert description["state_topic"] == f"sensors/{board.id}/state"
    assert description["cmps"]["temperature"]["unit_of_measurement"] == "°C"


def test_every_driver_at_once(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    sensors = [
        {"driver": "dht22", "pin": 4, "label": "outdoor"},
        {"driver": "bme280", "scl": 22, "sda": 21},
        {"driver": "ds18b20", "pin": 5},
        {"driver": "adc", "pin": 34, "field": "battery", "factor": 2, "points": [[3.3, 0], [4.2, 100]]},
        {"driver": "fake", "label": "sham"},
    ]
    board = make_board(mosquitto.port, sensors=sensors, interval=1)
    observer = observe(board)
    board.power_on()
    state = observer.wait_states(1)[0]
    assert state["outdoor_temperature"] == 21.4
    assert state["temperature"] == 25.08
    assert state["pressure"] == 1006.53
    assert 0 < state["humidity"] < 100
    assert state["temperature_2"] == 25.06
    assert state["battery"] == 44
    assert 18 < state["sham_temperature"] < 25
    fields = observer.metas()[0]["fields"]
    assert fields["outdoor_temperature"]["unit"] == fields["temperature_2"]["unit"] == "°C"
    assert observer.metas()[0]["simulated"] is True


def test_serial_lines_pulses_contacts_and_curves(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    sensors = [
        {"driver": "pms5003", "rx": 27, "tx": 26},
        {"driver": "hx711", "sck": 18, "dout": 19, "factor": 1000},
        {"driver": "pulse", "pin": 25, "measures": "water", "per_unit": 2, "debounce": 0},
        {"driver": "gpio", "pin": 32, "debounce": 0},
        {"driver": "battery", "pin": 34, "chemistry": "li-ion"},
        {"driver": "soil", "pin": 35},
        {"driver": "dht11", "pin": 4},
    ]
    board = make_board(mosquitto.port, sensors=sensors, interval=60)
    (board.folder / "pin-32").write_text("1")
    observer = observe(board)
    board.power_on()
    state = observer.wait_states(1)[0]
    assert (state["pm1"], state["pm25"], state["pm10"]) == (5, 12, 20)
    assert state["weight"] == 0  # DT is low all the time
    assert state["water"] == 1.5
    assert state["contact"] == 1
    assert state["voltage"] == 3.7
    assert 10 < state["battery"] < 20
    assert state["moisture"] == 50
    assert list(observer.metas()[-1]["errors"]) == ["dht11"]  # the stand-in answers like a DHT22
    (board.folder / "pin-32").write_text("0")
    assert observer.wait_states(2)[1]["contact"] == 0  # long before the interval is over


def test_outputs_are_safe_at_boot_switched_by_command_and_confirmed(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    outputs = [
        {"output": "relay", "pin": 26, "name": "pump", "inverted": True},
        {"output": "led", "pin": 25, "name": "lamp"},
    ]
    board = make_board(mosquitto.port, outputs=outputs, interval=60, discovery=True)
    observer = observe(board)
    board.power_on()
    first = observer.wait_states(1)[0]
    assert (first["pump"], first["lamp"]) == (0, 0)
    assert (board.folder / "pin-26").read_text() == "1"
    observer.send({"set": {"pump": True, "lamp": 40}})
    second = observer.wait_states(2)[1]
    assert (second["pump"], second["lamp"]) == (1, 40)  # long before the interval is over
    assert (board.folder / "pin-26").read_text() == "0"
    eventually(observer.discovery)
    assert observer.discovery()[0]["cmps"]["lamp"]["p"] == "light"
    observer.send({"set": {"pump": 7}})
    eventually(lambda: "pump takes" in observer.metas()[-1].get("errors", {}).get("cmd", ""))
    board.cut_power()
    board.power_on()
    assert observer.wait_states(3)[2]["pump"] == 0


def test_the_will_after_a_power_cut(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    board = make_board(mosquitto.port)
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    board.cut_power()
    observer.wait_statuses("online", "offline")
    board.power_on()
    observer.wait_statuses("online", "offline", "online")
    eventually(lambda: observer.states()[-1]["boot"] == 2)
    assert next(state["seq"] for state in observer.states() if state["boot"] == 2) == 0


@pytest.mark.slow
def test_a_broker_restart_loses_no_reading(
    make_mosquitto: MakeMosquitto, make_board: MakeBoard, observe: Observe
) -> None:
    broker = make_mosquitto()
    board = make_board(broker.port)
    observer = observe(board, broker)
    board.power_on()
    observer.wait_states(2)
    broker.stop()
    seen = numbers(observer)[-1]
    board.wait_log("the broker closed the connection")
    broker.start()
    eventually(lambda: numbers(observer)[-1] > seen + 6, 20, "readings after the restart")
    assert numbers(observer) == list(range(numbers(observer)[-1] + 1))
    # Mosquitto publishes wills when it ends, or not: that is its business
    assert observer.statuses()[-1] == "online"
    eventually(lambda: observer.metas()[-1].get("reconnects", 0) >= 1, what="meta that tells of the reconnect")


@pytest.mark.slow
def test_a_black_hole_is_noticed_and_survived(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    with Tunnel(mosquitto.port) as tunnel:
        board = make_board(tunnel.port)
        observer = observe(board)
        board.power_on()
        observer.wait_states(2)
        tunnel.black_hole()
        board.wait_log("no PUBACK within 1 s")
        board.wait_log("CONNACK took longer than 1 s")
        tunnel.heal()
        seen = numbers(observer)[-1]
        eventually(lambda: numbers(observer)[-1] > seen + 10, 20, "readings after the black hole")
        assert numbers(observer) == list(range(numbers(observer)[-1] + 1))


@pytest.mark.slow
def test_a_thousand_readings_in_order_over_a_bad_line(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    with Tunnel(mosquitto.port) as tunnel:
        board = make_board(tunnel.port, interval=0.01, buffer_messages=1000, buffer_bytes=200_000)
        observer = observe(board)
        tunnel.cut_every(20_000)
        board.power_on()
        observer.wait_states(1000, 60)
        eventually(lambda: len(numbers(observer)) >= 1000, 30)
        assert numbers(observer)[:1000] == list(range(1000))
        assert tunnel.accepted >= 3  # it was cut at least twice meanwhile
        assert "dropped" not in observer.metas()[-1]


@pytest.mark.slow
def test_a_full_buffer_drops_the_oldest_and_says_how_many(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    with Tunnel(mosquitto.port) as tunnel:
        board = make_board(tunnel.port, interval=0.05, buffer_messages=10)
        observer = observe(board)
        board.power_on()
        observer.wait_states(3)
        tunnel.block()
        board.wait_log("mqtt: ")
        last = numbers(observer)[-1]
        connects = tunnel.accepted
        eventually(lambda: tunnel.accepted > connects + 1, 20, "two attempts that fail")
        tunnel.block(False)
        eventually(lambda: observer.metas()[-1].get("dropped", 0) > 0, 20, "meta that counts what was dropped")
        dropped = int(observer.metas()[-1]["dropped"])
        eventually(lambda: numbers(observer)[-1] > last + dropped + 12, 20)

        def accounted() -> bool:
            missing = set(range(numbers(observer)[-1])) - set(numbers(observer))
            # what was under way when the line was cut counts as dropped although it may have arrived; a board that gets
            # little of the processor drops more, and says so in its next meta
            return dropped - 8 <= len(missing) <= int(observer.metas()[-1]["dropped"])

        eventually(accounted, 20, "meta counts what is missing")


@pytest.mark.slow
@pytest.mark.parametrize("trusted", ["right", "wrong", "wrong name"])
def test_tls(
    trusted: str,
    make_mosquitto: MakeMosquitto,
    make_board: MakeBoard,
    observe: Observe,
    authority: Authority,
    tmp_path: Path,
) -> None:
    hosts = ("127.0.0.1", "localhost") if trusted != "wrong name" else ("broker.example",)
    broker = make_mosquitto(
        BrokerOptions(server=authority.issue(f"server-{trusted[-4:]}", hosts=hosts)), kind="process"
    )
    ca = authority.ca_file if trusted != "wrong" else Authority(tmp_path / "other").ca_file
    board = make_board(broker.port, mqtt={"url": f"mqtts://localhost:{broker.port}", "ca": "ca.pem"}, timeout=5)
    (board.folder / "ca.pem").write_bytes(ca.read_bytes())
    if trusted == "right":
        observer = observe(board, broker, ca)
        board.power_on()
        assert observer.wait_states(20)[0]["temperature"] == 25.08
    else:
        board.power_on()
        # mbedTLS explains it where it has texts, and says -9984 where it has none
        eventually(lambda: "certificate" in board.log() or "-9984" in board.log(), 10)
        assert "connected" not in board.log()
        assert "sensor-" not in broker.log()  # it showed its name, and a password, to nobody


@pytest.mark.slow
def test_fits_into_152_kib(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    # a board's pointers have 32 bits, so there the same program needs about half
    sensors = [{"driver": "dht22", "pin": 4}, {"driver": "bme280", "scl": 22, "sda": 21}]
    with Tunnel(mosquitto.port) as tunnel:
        board = make_board(tunnel.port, sensors=sensors, interval=0.05, discovery=True)  # its largest messages
        observer = observe(board)
        board.power_on(heap=HEAP)
        observer.wait_states(50)
        assert len(observer.discovery()) == len(observer.discovery_of_itself()) == 1
        tunnel.cut()
        observer.send({"interval": 0.02})
        eventually(lambda: observer.metas()[-1]["interval"] == 0.02)
        count = len(observer.states())
        observer.wait_states(count + 150, 30)
        assert len(observer.discovery()) > 1
        assert set(observer.discovery_of_itself()[-1]["cmps"]) == {"firmware", "started_by", "heap_free", "uptime"}
        assert "MemoryError" not in board.log()


def test_a_broken_sensor_does_not_stop_the_others(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    sensors = [{"driver": "ds18b20", "pin": 4}, {"driver": "bme280", "scl": 22, "sda": 21, "label": "attic"}]
    board = make_board(mosquitto.port, sensors=sensors)
    observer = observe(board)
    board.world("bme280-broken")
    board.power_on()
    assert "attic_temperature" not in observer.wait_states(2)[-1]
    assert observer.states()[-1]["temperature"] == 25.06
    eventually(lambda: "attic" in observer.metas()[-1].get("errors", {}), what="the error in meta")
    board.world("bme280-broken", False)
    eventually(lambda: observer.states()[-1].get("attic_temperature") == 25.08, what="the sensor's return")
    eventually(lambda: "errors" not in observer.metas()[-1], what="meta without the error")


def test_readings_of_a_wifi_outage_come_later(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    with Tunnel(mosquitto.port) as tunnel:
        board = make_board(tunnel.port)
        observer = observe(board)
        board.power_on()
        observer.wait_states(2)
        board.world("wifi-down")
        tunnel.cut()
        board.wait_log("wifi: lost home")
        seen = numbers(observer)[-1]
        board.world("wifi-down", False)
        eventually(lambda: numbers(observer)[-1] > seen + 5, 20)
        assert numbers(observer) == list(range(numbers(observer)[-1] + 1))
        assert any("rssi" not in state for state in observer.states())


@pytest.mark.slow
def test_the_watchdog_resets_a_board_that_hangs(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    board = make_board(mosquitto.port, watchdog=6, sensors=[{"driver": "dht22", "pin": 4}])
    observer = observe(board)
    board.power_on()
    assert observer.wait_states(1)[0]["humidity"] == 55.2
    board.world("dht22-hangs")
    assert board.wait_off() == WATCHDOG
    observer.wait_statuses("online", "offline")
    board.world("dht22-hangs", False)
    board.power_on("watchdog")
    eventually(lambda: observer.states()[-1]["boot"] == 2)
    assert observer.metas()[-1]["started_by"] == "watchdog"


@pytest.mark.slow
def test_an_outage_that_lasts_too_long_ends_in_a_reset_but_a_short_one_does_not(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    with Tunnel(mosquitto.port) as tunnel:
        board = make_board(tunnel.port, watchdog=3, reboot_after=5)
        observer = observe(board)
        board.power_on()
        observer.wait_states(1)
        tunnel.block()
        # the hardware's watchdog bites after one second without food: it was fed all the time
        assert board.wait_off(20) == RESET
        assert "no answer from the broker for 5 s" in board.log()


@contextmanager
def time_server(answering: threading.Event) -> Iterator[int]:
    """An SNTP server that answers once it may."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.1)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    question, address = server.recvfrom(64)
                except TimeoutError:
                    continue
                if answering.is_set():
                    seconds, fraction = divmod(time.time() + 2208988800, 1)
                    stamp = struct.pack(">II", int(seconds) & 0xFFFFFFFF, int(fraction * 2**32))
                    server.sendto(b"\x24\x02\x00\xe9" + bytes(20) + question[40:48] + stamp + stamp, address)

        thread = threading.Thread(target=serve, name="time server")
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@pytest.mark.slow
def test_no_time_before_the_clock_is_set(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    answering = threading.Event()
    with time_server(answering) as port:
        board = make_board(mosquitto.port, ntp=f"127.0.0.1:{port}")
        observer = observe(board)
        board.world("clock-unset")
        board.power_on()
        assert all("ts" not in state for state in observer.wait_states(3))
        board.wait_log("no answer from 127.0.0.1")
        answering.set()
        eventually(lambda: "ts" in observer.states()[-1], 15, "a reading with its time")
        assert abs(observer.states()[-1]["ts"] - time.time()) < 5


def test_interval_and_reboot_by_command(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    board = make_board(mosquitto.port, interval=3600, discovery=True)
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    observer.send({"interval": 0.25})
    observer.wait_states(4)
    assert observer.metas()[-1]["interval"] == 0.25
    eventually(lambda: len(observer.discovery()) == 2)  # or Home Assistant would wait for readings as long as before
    assert [each["cmps"]["humidity"]["expire_after"] for each in observer.discovery()] == [10800, 30]
    observer.send("what?")
    eventually(lambda: "cmd" in observer.metas()[-1].get("errors", {}), what="the bad command in meta")
    observer.send({"reboot": True})
    assert board.wait_off() == RESET
    observer.wait_statuses("online", "offline")  # said by the board: the broker had its DISCONNECT
    board.power_on("reset")
    eventually(lambda: observer.states()[-1]["boot"] == 2)
    assert observer.metas()[-1]["interval"] == 0.25  # kept in flash


def test_a_retained_reboot_does_not_make_it_reboot_for_ever(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    board = make_board(mosquitto.port)
    observer = observe(board)
    observer.send({"reboot": True}, retain=True)
    board.power_on()
    board.wait_log("a retained reboot is ignored")
    observer.wait_states(3)
    observer.send("", retain=True)


def test_commands_sent_during_an_outage_arrive(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    with Tunnel(mosquitto.port) as tunnel:
        board = make_board(tunnel.port, interval=1)
        observer = observe(board)
        board.power_on()
        observer.wait_states(1)
        tunnel.block()
        observer.send({"interval": 0.5})
        tunnel.block(False)
        board.wait_log(", resumed")
        eventually(lambda: observer.metas()[-1]["interval"] == 0.5)


@pytest.mark.slow
def test_a_battery_sensor_sleeps_without_a_false_offline(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    with Tunnel(mosquitto.port) as tunnel:
        board = make_board(tunnel.port, profile="battery", interval=60, awake=2)
        observer = observe(board)
        board.power_on()
        assert board.wait_off() == DEEP_SLEEP
        assert 50_000 < int((board.folder / "slept-ms").read_text()) <= 60_000
        observer.wait_statuses("online", "sleeping")
        assert len(observer.metas()) == 1

        observer.send({"interval": 30})  # kept by the broker until it wakes
        board.power_on("deep sleep")
        assert board.wait_off() == DEEP_SLEEP
        assert 20_000 < int((board.folder / "slept-ms").read_text()) <= 30_000

        tunnel.block()  # two wakings without a broker
        for _ in range(2):
            board.power_on("deep sleep")
            assert board.wait_off() == DEEP_SLEEP
        tunnel.block(False)
        board.power_on("deep sleep")
        assert board.wait_off() == DEEP_SLEEP

        observer.wait_states(5)
        assert numbers(observer) == [0, 1, 2, 3, 4]
        assert {state["boot"] for state in observer.states()} == {1}
        assert observer.statuses() == ["online", "sleeping"] * 3


def test_one_write_per_packet(make_board: MakeBoard) -> None:
    """What the board writes arrives in one piece each: header, topic and payload in one segment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        board = make_board(server.getsockname()[1], interval=3600)
        board.power_on()
        connection, _ = server.accept()
        with connection:
            connection.settimeout(10)
            connect = connection.recv(65536)
            assert connect[0] == 0x10
            assert len(connect) == 2 + connect[1]  # MQTT 3.1.1 §2.2.3: less than 128 bytes
            connection.sendall(b"\x20\x02\x00\x00")
            subscribe = connection.recv(65536)
            assert subscribe[0] == 0x82
            connection.sendall(b"\x90\x03" + subscribe[2:4] + b"\x01")


def test_commands_arrive_although_the_link_was_lost_before_the_broker_took_the_subscription(
    make_board: MakeBoard,
) -> None:
    """The broker knows the session, and says so; only the board can know that it has no subscription in it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        board = make_board(server.getsockname()[1], interval=3600)
        board.power_on()

        def subscribe(*, is_taken: bool) -> bytes:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                assert connection.recv(65536)[0] == 0x10
                connection.sendall(b"\x20\x02\x01\x00")  # CONNACK with Session Present
                packet = connection.recv(65536)
                if is_taken:
                    connection.sendall(b"\x90\x03" + packet[2:4] + b"\x01")
                return packet

        filters = [subscribe(is_taken=is_taken) for is_taken in (False, True)]
        for packet in filters:
            assert packet[0] == 0x82
            assert f"sensors/{board.id}/cmd".encode() in packet


def test_what_it_logs_and_how_it_is_and_the_last_lines_before_a_reset(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    board = make_board(mosquitto.port)
    observer = observe(board)

    def texts(*, before: bool = False) -> list[str]:
        lines = [json.loads(payload) for payload in observer.payloads("log")]
        return [line["text"] for line in lines if line.get("before", False) is before]

    board.power_on()
    eventually(lambda: any("mqtt: connected" in text for text in texts()), what="the log at the broker")
    diag = json.loads(observer.payloads("diag")[0])
    assert {**diag, "started_by": "power", "boot": 1, "rssi": -61, "wifi_quality": 78, "reconnects": 0} == diag
    assert diag["heap_free"] > 0
    observer.send({"log": "debug"})
    eventually(lambda: any(text.startswith("reading: ") for text in texts()), what="a line of level debug")
    observer.send({"reboot": True})
    assert board.wait_off() == RESET
    assert "before" not in str(observer.payloads("log"))
    board.power_on("reset")
    eventually(lambda: "command: reboot" in texts(before=True), what="the last lines before the reset")


@pytest.mark.slow
def test_memory_stays_as_free_as_it_was_over_many_faults(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe
) -> None:
    """GATEWAY_TEST_FAULTS says how many rounds of all of them; one more goes before, which brings in what they need."""
    rounds = int(os.environ.get("GATEWAY_TEST_FAULTS", "2"))
    sensors = [{"driver": "dht22", "pin": 4}, {"driver": "bme280", "scl": 22, "sda": 21}]
    with Tunnel(mosquitto.port) as tunnel:
        board = make_board(tunnel.port, sensors=sensors, diag=0.5, discovery=True, buffer_messages=20)
        observer = observe(board)

        def black_hole() -> None:
            tunnel.black_hole()
            board.wait_log("mqtt: ")
            connects = tunnel.accepted
            eventually(lambda: tunnel.accepted > connects, 30, "a new connection, into the hole as well")
            tunnel.heal()

        def refused() -> None:
            tunnel.block()
            connects = tunnel.accepted
            eventually(lambda: tunnel.accepted > connects, 30, "an attempt that fails")
            tunnel.block(False)

        def no_wifi() -> None:
            lost = board.log().count("wifi: lost home")
            board.world("wifi-down")
            tunnel.cut()
            eventually(lambda: board.log().count("wifi: lost home") > lost, 30, "Wi-Fi that is lost")
            board.world("wifi-down", False)

        def broken_sensor() -> None:
            board.world("bme280-broken")
            eventually(lambda: "bme280" in observer.metas()[-1].get("errors", {}), 30, "the error in meta")
            board.world("bme280-broken", False)
            eventually(lambda: "errors" not in observer.metas()[-1], 30, "meta without the error")

        def nonsense() -> None:
            observer.send("x" * 3000)
            observer.send({"log": "debug"})
            observer.send({"interval": 0.3})

        def told_after(fault: Callable[[], None]) -> int:
            """The bytes that are free once it is over and readings come again."""
            fault()
            last = int(observer.states()[-1]["seq"])
            eventually(lambda: observer.states()[-1]["seq"] > last + 10, 60, "readings, the newest among them")
            told = len(observer.payloads("diag"))
            eventually(lambda: len(observer.payloads("diag")) > told + 1, 60, "how the board is")
            return int(json.loads(observer.payloads("diag")[-1])["heap_free"])

        board.power_on(heap=HEAP)
        observer.wait_states(1)
        free = []
        for _ in range(1 + rounds):
            free.append(min(map(told_after, (tunnel.cut, black_hole, refused, no_wifi, broken_sensor, nonsense))))
            print("bytes free:", free[-1])
        assert "MemoryError" not in board.log()
        assert {state["boot"] for state in observer.states()} == {1}
        assert free[-1] > free[1] - 4096, free

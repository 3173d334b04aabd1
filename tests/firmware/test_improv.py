"""Settings over the serial line: packets among other bytes, and the whole talk with the real program."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firmware.board import NAME, VERSION, improv
from tests.firmware.boards import RESET, Board
from tests.firmware.observers import Observer
from tests.firmware.talks import ERROR, RESULT, STATE, Talk, call, packet, packets, texts, wifi
from tests.support.brokers import Broker

JOIN, TELL_STATE, TELL_ABOUT, SCAN, SETTINGS = 1, 2, 3, 4, 0xA0
MakeBoard = Callable[..., Board]


def parsed(data: bytes) -> list[tuple[int, bytes]]:
    parser = improv.Parser()
    return [found for byte in data if (found := parser.feed(byte)) is not None]


# -- packets

# what is between packets can't begin one: a line is kept apart by its newline
NOISE = st.binary(max_size=20).map(lambda noise: noise.replace(b"I", b"i"))
DATA = st.binary(max_size=255)


@given(st.lists(st.tuples(NOISE, st.integers(1, 4), DATA), max_size=6), NOISE)
def test_packets_are_found_among_whatever_else_comes(sent: list[tuple[bytes, int, bytes]], rest: bytes) -> None:
    line = b"".join(noise + packet(kind, data) for noise, kind, data in sent) + rest
    assert parsed(line) == [(kind, data) for _, kind, data in sent]


@given(st.integers(1, 4), DATA, st.integers(0, 264), st.integers(1, 255))
def test_a_packet_with_an_altered_byte_does_nothing(kind: int, data: bytes, position: int, flip: int) -> None:
    altered = bytearray(packet(kind, data)[:-1])
    position %= len(altered)
    altered[position] ^= flip
    if position != 8:  # another length takes bytes of what follows
        assert parsed(bytes(altered)) == []


def test_a_header_that_begins_anew_is_found() -> None:
    good = packet(3, b"\x02\x00")
    assert parsed(b"IMP" + good) == [(3, b"\x02\x00")]
    assert parsed(b"IIMPRO" + good) == [(3, b"\x02\x00")]
    assert parsed(good[:4] + good) == [(3, b"\x02\x00")]


@given(st.integers(1, 4), DATA.filter(lambda data: len(data) < 250))
def test_what_the_board_writes_is_as_the_protocol_says(kind: int, data: bytes) -> None:
    assert improv.packet(kind, data) == packet(kind, data)


@example(["x" * 248 + "\U0001f321"])  # of the last character one byte would have room
@given(st.lists(st.text(max_size=300), max_size=5))
def test_an_answer_fits_into_one_packet_and_cuts_no_character(words: list[str]) -> None:
    [(kind, data)] = packets(improv.answer(SETTINGS, words)) if "IMPROV\x01" not in "".join(words) else [(4, b"")]
    assert kind == RESULT
    if data:
        for word, said in zip(words, texts(data), strict=True):
            assert word.startswith(said)
        assert len(data) <= 255


# -- the whole talk, on MicroPython


@pytest.fixture
def bare(make_board: MakeBoard) -> Callable[[], tuple[Board, Talk]]:
    """A board without settings, powered on, with somebody at its serial port."""

    def start() -> tuple[Board, Talk]:
        board = make_board(1)
        (board.folder / "settings.json").unlink()
        board.power_on(heap=152 * 1024, stdin=subprocess.PIPE)  # as little as test_fits_into_152_kib has
        return board, Talk(board)

    return start


def settings_for(port: int, **more: Any) -> dict[str, Any]:
    return {"mqtt": {"url": f"mqtt://127.0.0.1:{port}"}, "sensors": [{"driver": "fake"}], "ntp": "", **more}


@pytest.mark.slow
def test_a_bare_board_gets_all_that_it_needs_over_the_line(
    mosquitto: Broker, bare: Callable[[], tuple[Board, Talk]], observe: Callable[..., Observer], prefix: str
) -> None:
    board, talk = bare()
    talk.send(b"\r\nIMPROV? no, noise\n" + call(TELL_STATE))
    assert talk.next() == (STATE, b"\x02")
    talk.send(call(TELL_ABOUT))
    about = talk.results(TELL_ABOUT)
    assert about[:2] == [NAME, VERSION]
    assert about[3] == "esp32-123456"
    for part in (call(SCAN)[:4], call(SCAN)[4:]):
        talk.send(part)
    assert sorted([talk.results(SCAN), talk.results(SCAN)]) == [["Café", "-80", "NO"], ["home", "-48", "YES"]]
    assert talk.results(SCAN) == []
    assert talk.give(settings_for(mosquitto.port)) == ["problem", "wifi: join the network first"]

    board.world("wifi-down")
    (board.folder / "wifi-down").write_text("202")
    talk.send(call(JOIN, wifi("home", "wrong horse")))
    assert [talk.next() for _ in range(2)] == [(ERROR, b"\x00"), (STATE, b"\x03")]
    assert [talk.next(40) for _ in range(2)] == [(ERROR, b"\x03"), (STATE, b"\x02")]
    assert "wrong password" in board.log()

    board.world("wifi-down", there=False)
    talk.send(call(JOIN, wifi("home", "correct horse")))
    assert [talk.next() for _ in range(3)] == [(ERROR, b"\x00"), (STATE, b"\x03"), (STATE, b"\x04")]
    assert talk.results(JOIN) == []
    problem, text = talk.give(settings_for(mosquitto.port, sensors=[{"driver": "dht22"}]))
    assert (problem, text) == ("problem", "sensors[0]: dht22 needs pin")
    assert not (board.folder / "settings.json").exists()

    name = "Küche mit einem langen Namen, der mit allem anderen in zwei Stücken kommt"
    assert talk.give(settings_for(mosquitto.port, id=f"{prefix}-bare", name=name, interval=0.2)) == [
        "ok",
        f"{prefix}-bare",
    ]
    assert board.wait_off() == RESET
    kept = json.loads((board.folder / "settings.json").read_text())
    assert kept["wifi"] == {"ssid": "home", "password": "correct horse"}
    assert kept["name"] == name
    assert "horse" not in board.log()
    board.id = f"{prefix}-bare"
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    assert observer.metas()[0]["name"] == name


def test_a_certificate_comes_over_the_line(bare: Callable[[], tuple[Board, Talk]], authority_pem: str) -> None:
    board, talk = bare()
    talk.send(call(JOIN, wifi("home", "correct horse")))
    for _ in range(4):
        talk.next()
    given = {"mqtt": {"url": "mqtts://broker.example"}, "ca_pem": authority_pem}
    assert talk.give(given)[0] == "ok"
    assert board.wait_off() == RESET
    assert (board.folder / "ca.pem").read_text() == authority_pem
    assert json.loads((board.folder / "settings.json").read_text())["mqtt"]["ca"] == "ca.pem"


@pytest.mark.slow
def test_a_key_comes_over_the_line_and_is_kept_by_whoever_sets_the_board_up_again(
    mosquitto: Broker, bare: Callable[[], tuple[Board, Talk]]
) -> None:
    board, talk = bare()
    first, second = "5e" * 32, "ab" * 32
    for more, said in (
        ({"update_key": first}, ["ok", "esp32-123456"]),
        ({"update_key": second}, ["ok", "esp32-123456", "key kept"]),
        ({"update_key": first}, ["ok", "esp32-123456"]),
        ({}, ["ok", "esp32-123456"]),
    ):
        if board.process is None:
            board.power_on(stdin=subprocess.PIPE)
        talk.send(call(JOIN, wifi("home", "correct horse")))
        while talk.next() != (STATE, b"\x04"):
            pass
        assert talk.results(JOIN) == []
        assert talk.give(settings_for(mosquitto.port, **more)) == said
        assert board.wait_off() == RESET
        assert json.loads((board.folder / "settings.json").read_text())["update_key"] == first
    for key in (first, second):
        assert key not in board.log()


@pytest.fixture
def authority_pem(tmp_path: Path) -> str:
    """Some text of the length of a certificate."""
    return "-----BEGIN CERTIFICATE-----\n" + ("A" * 64 + "\n") * 18 + "-----END CERTIFICATE-----\n"


def test_a_board_with_settings_takes_another_network_in_the_first_two_seconds(
    mosquitto: Broker, make_board: MakeBoard
) -> None:
    board = make_board(mosquitto.port, name="Kitchen")
    board.power_on(stdin=subprocess.PIPE)
    talk = Talk(board)
    talk.send(call(TELL_STATE))
    assert talk.next() == (STATE, b"\x02")
    talk.send(call(JOIN, wifi("garden", "correct pony")))
    for _ in range(3):
        talk.next()
    assert talk.results(JOIN) == []
    kept = json.loads((board.folder / "settings.json").read_text())
    assert kept == {**board.settings, "wifi": {"ssid": "garden", "password": "correct pony"}}


def test_nobody_at_the_line_is_waited_for_no_longer_than_the_window(
    mosquitto: Broker, make_board: MakeBoard, observe: Callable[..., Observer]
) -> None:
    board = make_board(mosquitto.port)
    observer = observe(board)
    board.power_on(stdin=subprocess.PIPE)
    Talk(board).send(b"noise, and half a header: IMPR")
    observer.wait_states(1)


def test_ctrl_c_gives_the_prompt_as_before_but_not_inside_a_packet(bare: Callable[[], tuple[Board, Talk]]) -> None:
    board, talk = bare()
    talk.send(call(TELL_STATE))  # its type is the byte of Ctrl-C
    assert talk.next() == (STATE, b"\x02")
    talk.send(b"\x03")
    assert board.wait_off() == 0
    assert "stopped; Ctrl-D starts again" in board.log()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (packet(3, b""), 1),
        (packet(3, b"\x01\x09\x04home"), 1),
        (call(JOIN, b"\x04hom"), 1),
        (call(JOIN, b"\x04home\x02\xff\xfe"), 1),
        (call(JOIN, wifi("home", "short")), 1),
        (call(JOIN, wifi("", "correct horse")), 1),
        (call(SETTINGS, b"\x00\x01{}"), 1),
        (call(SETTINGS, b"\x02\x00{}"), 1),
        (call(0x55), 2),
    ],
    ids=["empty", "length", "ssid", "not text", "short password", "no ssid", "second piece", "bad piece", "unknown"],
)
def test_what_is_wrong_with_a_packet_is_told(data: bytes, error: int, bare: Callable[[], tuple[Board, Talk]]) -> None:
    _, talk = bare()
    talk.send(data)
    assert talk.next() == (ERROR, bytes([error]))
    talk.send(call(TELL_STATE))
    assert talk.next() == (STATE, b"\x02")

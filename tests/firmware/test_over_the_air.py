"""Updates over the air: the real program on real MicroPython, the real `sensors-flash update`, a real Mosquitto."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firmware import files, keys, updates
from firmware.tools import FlashError
from tests.conftest import MakeMosquitto
from tests.firmware.boards import RESET, START, Board
from tests.firmware.observers import Observer, listening
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

MakeBoard = Callable[..., Board]
Observe = Callable[..., Observer]


@pytest.fixture
def newer(flash_image: Path, tmp_path: Path) -> Callable[..., updates.Program]:
    """Makes programs that differ from the one on the boards, in their version and by what replaces a text."""

    def make(version: str, name: str = "board/clock.py", old: str = "", new: str = "") -> updates.Program:
        folder = tmp_path / f"program-{version}"
        shutil.copytree(flash_image, folder)
        for target, before, after in (("board/__init__.py", '"1.0.0"', f'"{version}"'), (name, old, new)):
            text = files.sources()[target].read_text()
            assert before in text
            source = tmp_path / f"{version}-{Path(target).name}"
            source.write_text(text.replace(before, after, 1))
            files.compile_file(source, folder / target.replace(".py", ".mpy"), target)
        return updates.Program.read(folder, version)

    return make


@contextmanager
def mains(*boards: Board, start: str = START) -> Iterator[list[int]]:
    """Gives boards power again whenever they reset, and starts them so; the statuses with which they ended."""
    ended: list[int] = []
    over = threading.Event()

    def supply() -> None:
        while not over.wait(0.05):
            for board in boards:
                process = board._process
                if process is not None and process.poll() is not None:
                    ended.append(board.wait_off(30))
                    board.power_on("reset", start=start)

    thread = threading.Thread(target=supply, name="mains")
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()


def update(broker: Broker, program: updates.Program, *ids: str, wait: float = 120, **more: Any) -> updates.Giver:
    """`sensors-flash update ID…`, or `--all` without one."""
    giver = updates.Giver(program, keys.load(), **more)
    access = {"url": f"mqtt://127.0.0.1:{broker.port}"}
    asyncio.run(updates.give(giver, access, None, ids or None, wait, again_seconds=4))
    return giver


def outcomes(giver: updates.Giver) -> dict[str, tuple[bool, str | None]]:
    return {sensor_id: (progress.good, progress.outcome) for sensor_id, progress in giver.boards.items()}


def with_key(make_board: MakeBoard, port: int, **settings: Any) -> Board:
    """A board with a key that this computer has, too."""
    board = make_board(port, **settings)
    board.write_settings(update_key=keys.of(board.id))
    return board


@pytest.mark.slow
def test_a_board_gets_a_new_program_and_says_so(
    mosquitto: Broker,
    make_board: MakeBoard,
    observe: Observe,
    newer: Callable[..., updates.Program],
    capsys: pytest.CaptureFixture[str],
) -> None:
    board = with_key(make_board, mosquitto.port)
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    program = newer("1.0.1")
    with mains(board) as ended:
        giver = update(mosquitto, program, board.id)
        assert outcomes(giver) == {board.id: (True, f"runs gateway-sensor 1.0.1, build {program.build}")}
        assert ended == [RESET]
        meta = observer.metas()[-1]
        assert (meta["firmware"], meta["build"]) == ("gateway-sensor 1.0.1", program.build)
        assert "trial" not in meta
        assert "errors" not in meta
        assert any(each.get("trial") for each in observer.metas())
        told = capsys.readouterr().out
        assert "board/clock.mpy" not in told  # it did not change
        assert "board/__init__.mpy" in told
        for _ in range(4):  # it stays, for more starts than a trial has
            boot = observer.states()[-1]["boot"]
            board.cut_power()
            board.power_on()

            def restarted(last: int = boot) -> bool:
                return int(observer.states()[-1]["boot"]) > last

            eventually(restarted, 20)
        assert observer.metas()[-1]["firmware"] == "gateway-sensor 1.0.1"
        again = update(mosquitto, program, board.id)
        assert outcomes(again)[board.id][0]
        assert ended == [RESET]  # there was nothing to do
        # and from the second program to a third, into the other slot
        third = newer("1.0.2")
        assert outcomes(update(mosquitto, third, board.id))[board.id][0]
        assert observer.metas()[-1]["firmware"] == "gateway-sensor 1.0.2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        # what is wrong with the new program, and what the board says when the old one is back
        (("board/app.py", "import asyncio\n", "import nothing_of_this_name\n"), "ImportError"),
        (("board/mqtt.py", "\ndef parse_url(", "\ndef parse_nothing("), "ImportError"),
        (("board/mqtt.py", 'b"\\x00\\x04MQTT\\x04"', 'b"\\x00\\x04MQTT\\x99"'), "it did not reach the broker"),
        (
            ("board/app.py", "    async def run(self) -> str:\n", "    async def run(self) -> str:\n        0 / 0\n"),
            "ZeroDivisionError",
        ),
    ],
    ids=["does not start", "lacks a name", "does not reach the broker", "ends"],
)
def test_a_program_that_does_not_work_makes_room_for_the_one_before(
    fault: tuple[str, str, str],
    why: str,
    mosquitto: Broker,
    make_board: MakeBoard,
    observe: Observe,
    newer: Callable[..., updates.Program],
) -> None:
    board = with_key(make_board, mosquitto.port, trial=5)
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    with mains(board):
        giver = update(mosquitto, newer("1.0.1", *fault), board.id, tries=1)
        good, outcome = outcomes(giver)[board.id]
        assert not good
        assert outcome is not None
        assert outcome.startswith("back to the program before: ")
        assert any(part in outcome for part in why.split("|")), (outcome, board.log()[-1500:])
        count = len(observer.states())
        observer.wait_states(count + 2)
        assert observer.metas()[-1]["firmware"] == "gateway-sensor 1.0.0"
        assert "build" not in observer.metas()[-1]


@pytest.mark.slow
def test_power_cuts_and_a_lost_broker_in_the_middle_only_delay_it(
    make_mosquitto: MakeMosquitto,
    make_board: MakeBoard,
    observe: Observe,
    newer: Callable[..., updates.Program],
) -> None:
    broker = make_mosquitto()
    board = with_key(make_board, broker.port)
    observer = observe(board, broker)
    board.power_on()
    observer.wait_states(1)
    program = newer("1.0.1", "board/app.py", '"restarting"', '"restarting now"')  # its largest file
    giver = updates.Giver(program, keys.load())
    access = {"url": f"mqtt://127.0.0.1:{broker.port}"}
    with mains(board):
        give = updates.give(giver, access, None, [board.id], 120, again_seconds=3)
        thread = threading.Thread(target=lambda: asyncio.run(give))
        thread.start()
        eventually(lambda: len(observer.payloads("update")) >= 2, 30, "questions")
        board.cut_power()
        board.power_on()
        eventually(lambda: len(observer.payloads("update")) >= 6, 30, "questions after the power cut")
        broker.stop()
        time.sleep(0.5)  # the outage itself
        broker.start()
        thread.join(120)
    assert outcomes(giver)[board.id][0], (outcomes(giver), board.log()[-2000:])


def test_a_board_without_a_key_says_what_to_do(mosquitto: Broker, make_board: MakeBoard, observe: Observe) -> None:
    board = make_board(mosquitto.port)
    observer = observe(board)
    board.power_on()
    observer.wait_states(1)
    observer.send({"update": True})
    eventually(lambda: "has no key" in observer.metas()[-1].get("errors", {}).get("update", ""))
    with pytest.raises(FlashError, match="there is no key for"):
        update(mosquitto, updates.Program("1.0.1", "b", {"payloads.py": b"x"}), board.id)


@pytest.mark.slow
def test_all_are_those_that_the_broker_knows_and_that_have_a_key_here(mosquitto: Broker, prefix: str) -> None:
    program = updates.Program("1.0.1", "b", {"payloads.py": b"x"})
    ours, keyless, foreign = (f"{prefix}-{name}" for name in ("ours", "keyless", "foreign"))
    firmwares = {ours: "gateway-sensor 1.0.0", keyless: "gateway-sensor 1.0.0", foreign: "esphome 2025.8"}
    for sensor_id in (ours, foreign, f"{prefix}-gone"):
        keys.of(sensor_id)
    with Publisher(mosquitto.url) as publisher, listening(mosquitto.port, f"sensors/{ours}/cmd") as told:
        for sensor_id, firmware in firmwares.items():
            publisher.publish(f"sensors/{sensor_id}/meta", json.dumps({"firmware": firmware}), retain=True)
        giver = update(mosquitto, program, wait=0)
        assert list(giver.boards) == giver.unfinished() == [ours]
        eventually(lambda: [json.loads(message.payload) for message in told] == [{"update": True}])
        for sensor_id in firmwares:
            publisher.publish(f"sensors/{sensor_id}/meta", "", retain=True)
    with pytest.raises(FlashError, match="the broker knows no board that can be updated"):
        update(mosquitto, program, wait=0)


class Sent:
    """Stands where the client is: what would be published."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def publish(self, _topic: str, payload: bytes, *_: object) -> None:
        self.pieces.append(payload)


def test_who_serves_knows_a_board_that_was_set_up_meanwhile_and_its_new_key() -> None:
    program = updates.Program("1.0.1", "b", {"payloads.py": b"x"})
    giver = updates.Giver(program, keys.load(), serve=True, reload=keys.load)
    sent = Sent()
    giver.client = sent  # type: ignore[assignment]

    def asked() -> list[bytes]:
        sent.pieces.clear()
        giver.take("sensors/attic/update", b'{"get":"manifest","at":0}', False)
        return [piece.partition(b"\n")[2] for piece in sent.pieces]

    assert asked() == []
    first = keys.of("attic")  # as the page does it, over the gateway
    assert asked() == [program.manifest("attic", first, giver.serial)]
    with keys.file().open("a") as file:
        file.write(f"attic {'ab' * 32}\n")
    assert asked() == [program.manifest("attic", "ab" * 32, giver.serial)]
    keys.file().write_bytes(b"\xff\xfe")  # in the middle of being edited
    assert asked() == [program.manifest("attic", "ab" * 32, giver.serial)]


@pytest.mark.slow
def test_the_button_of_a_page_is_answered_for_a_board_whose_key_came_later(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe, tmp_path: Path
) -> None:
    key = "5e" * 32
    board = make_board(mosquitto.port, update_key=key)
    observer = observe(board)
    said = tmp_path / "serving.txt"
    command = [sys.executable, "-m", "firmware.flash", "update", "--serve"]
    with said.open("wb") as output:
        serving = subprocess.Popen(
            [*command, "--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        eventually(lambda: "giving" in said.read_text(), 90, "the command")
        keys.file().write_text(f"{board.id} {key}\n")  # as the gateway does, for the page
        board.power_on()
        observer.wait_states(1, 40)
        with mains(board):
            observer.send({"update": True})  # what the button publishes
            eventually(lambda: f"{board.id:<16} done: runs gateway-sensor" in said.read_text(), 90, "the update")
        assert observer.metas()[-1]["build"] in said.read_text()
        assert key not in said.read_text()
    finally:
        serving.kill()
        serving.wait(30)


def test_a_manifest_of_real_files_fits_what_a_board_takes(flash_image: Path) -> None:
    program = updates.Program.read(flash_image)
    signed = program.manifest("x" * 64, "5e" * 32, 1_790_000_000, older=True)
    assert len(signed) < 6000  # of 8,192
    assert len(program.files) > 12
    assert "main.py" not in program.files
    assert "slots.mpy" not in program.files
    text, _, signature = signed.partition(b"\n")
    assert len(signature) == 64
    assert json.loads(text)["older"] is True


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fleet_is_updated_during_broker_restarts_without_one_being_lost(
    make_mosquitto: MakeMosquitto,
    make_board: MakeBoard,
    newer: Callable[..., updates.Program],
) -> None:
    broker = make_mosquitto()
    boards = [with_key(make_board, broker.port, interval=2, timeout=3, watchdog=60) for _ in range(20)]
    program = newer("1.0.1")
    for board in boards:
        board.power_on()
    for board in boards:
        board.wait_log("mqtt: connected", 60)
    with mains(*boards):
        giver = updates.Giver(program, keys.load())
        access = {"url": f"mqtt://127.0.0.1:{broker.port}"}
        ids = [board.id for board in boards]
        give = updates.give(giver, access, None, ids, 400, again_seconds=10)
        thread = threading.Thread(target=lambda: asyncio.run(give))
        thread.start()
        for share in (0.1, 0.3, 0.6, 0.9):  # of all files that have to be given: a restart at each

            def given(share: float = share) -> bool:
                begun = sum(len(progress.given) for progress in giver.boards.values())
                if len(giver.boards) < len(boards):  # not told yet: none is unfinished
                    return False
                return begun >= share * 2 * len(boards) or not giver.unfinished()

            eventually(given, 120, f"{share:.0%} of the files")
            broker.stop()
            broker.start()
        thread.join(400)
        assert giver.unfinished() == []
        assert {good for good, _ in outcomes(giver).values()} == {True}
        broker.stop()  # and all of them come back to work afterwards
        broker.start()
        observers = [Observer(board.id, broker.port) for board in boards]
        try:
            for observer in observers:
                observer.wait_states(1, 60)
                assert observer.metas()[-1]["build"] == program.build
                assert "trial" not in observer.metas()[-1]
        finally:
            for observer in observers:
                observer.close()

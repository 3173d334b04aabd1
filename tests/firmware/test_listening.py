"""`sensors-flash logs`: the real command in a process of its own, a real board's program, a real Mosquitto."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firmware import listening
from tests.conftest import MakeMosquitto
from tests.firmware.boards import RESET, Board
from tests.firmware.observers import Observer
from tests.support.brokers import Broker
from tests.support.waiting import eventually, free_port

LINE = re.compile(r"(\d\d:\d\d:\d\d|        ) +\d+\.\d{3} (debug|info|warning|error) ( *)(before the reset: )?(.+)")


class Following:
    """The running command, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self._path = path

    def text(self) -> str:
        """All of it."""
        return self._path.read_text()

    def texts(self, level: str | None = None) -> list[str]:
        """What the lines of a level say, or of all; each line has the command's form."""
        found = [LINE.fullmatch(line) for line in self.text().splitlines()]
        assert None not in found, self.text()
        return [(match[4] or "") + match[5] for match in found if match and level in (None, match[2])]

    def wait_for(self, text: str) -> None:
        """Wait until a line says it."""

        def said() -> bool:
            assert any(text in each for each in self.texts()), self.text()
            return True

        eventually(said, 40, f"a line with '{text}'")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "firmware.flash", "logs", *arguments]


@contextmanager
def following(folder: Path, *arguments: str) -> Iterator[Following]:
    """Runs it until the end of the block."""
    path = folder / "followed.txt"
    with path.open("wb") as output:
        process = subprocess.Popen(command(*arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield Following(process, path)
    finally:
        process.kill()
        process.wait(30)


@pytest.mark.slow
def test_what_a_board_logs_comes_as_it_says_it_and_its_level_can_be_asked_for(
    mosquitto: Broker,
    make_board: Callable[..., Board],
    observe: Callable[..., Observer],
    tmp_path: Path,
) -> None:
    board = make_board(mosquitto.port)
    observer = observe(board)
    with following(tmp_path, board.id, "--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}", "--level", "debug") as logs:
        eventually(lambda: observer.payloads("cmd") == [b'{"log": "debug"}'], 40, "the command of --level")
        board.power_on()
        logs.wait_for("mqtt: connected to 127.0.0.1")
        assert "reading: " not in logs.text()  # it was not there to hear the command
    observer.wait_states(1)
    with following(tmp_path, board.id, "--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}", "--level", "debug") as logs:
        logs.wait_for("command: log debug")
        logs.wait_for("reading: {")
        assert any(each.startswith("reading: ") for each in logs.texts("debug"))
        observer.send({"interval": -1})
        eventually(lambda: any("interval" in each for each in logs.texts("warning")), 40, "a warning")
        observer.send({"reboot": True})
        assert board.wait_off() == RESET
        board.power_on("reset")
        logs.wait_for("boot 2, started by reset")
        # Ctrl-C ends it, without a traceback
        logs.process.send_signal(signal.SIGINT)
        assert logs.process.wait(30) == 1
        assert logs.text().splitlines()[-1] == "sensors-flash: stopped"


@pytest.mark.slow
def test_it_goes_on_when_the_broker_comes_back(
    make_mosquitto: MakeMosquitto, make_board: Callable[..., Board], tmp_path: Path
) -> None:
    broker = make_mosquitto()
    board = make_board(broker.port)
    with following(tmp_path, board.id, "--mqtt", f"mqtt://127.0.0.1:{broker.port}") as logs:
        observer = Observer(board.id, broker.port)
        try:
            board.power_on()
            observer.wait_states(1, 40)

            def heard(before: int = 0) -> bool:  # whenever it has subscribed
                with contextlib.suppress(RuntimeError):  # the observer itself is not back yet
                    observer.send({"interval": 0.2})
                return any("command: interval" in each for each in logs.texts()[before:])

            eventually(heard, 40, "the first line")
            broker.stop()
            count = len(logs.texts())
            broker.start()
            eventually(lambda: heard(count), 60, "lines after the restart")
            assert logs.process.poll() is None
        finally:
            observer.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Kitchen/#"], "an id has a-z, 0-9, _ and -, not Kitchen/#"),
        (["kitchen", "--level", "loud"], "invalid choice: 'loud'"),
        ([], "the following arguments are required: id"),
    ],
    ids=["no id of a board", "no level", "nothing"],
)
def test_what_it_cannot_follow_it_says(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        command(*arguments, "--mqtt", "mqtt://127.0.0.1:1"),
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_is_not_there_is_told() -> None:
    port = free_port()
    done = subprocess.run(
        command("kitchen", "--mqtt", f"mqtt://127.0.0.1:{port}"),
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"can't reach the broker at mqtt://127.0.0.1:{port}" in done.stderr


@pytest.fixture
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_utc")
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"up": 1.5, "ts": 3661, "level": "info", "text": "hello"}, "01:01:01      1.500 info    hello"),
        ({"up": 2, "level": "error", "text": "no clock"}, "              2.000 error   no clock"),
        (
            {"up": 2, "level": "warning", "text": "last words", "before": True},
            "              2.000 warning before the reset: last words",
        ),
        # a terminal is told nothing by what a board says
        ({"up": 0, "level": "info", "text": "a\x1b[2Jb\nc\x07é"}, "              0.000 info    a?[2Jb?c?é"),
        ({"up": 0, "level": "info"}, None),
        ({"up": "x", "level": "info", "text": "x"}, None),
        ({"up": 0, "level": "info", "text": "x", "ts": 1e300}, None),
        ({"up": 0, "level": "info", "text": "x", "ts": 10**30}, None),
        (["info"], None),
        ("info", None),
    ],
)
def test_a_line_for_people(said: Any, shown: str | None) -> None:
    assert listening.line(json.dumps(said).encode()) == shown


@pytest.mark.parametrize("payload", [b"", b"\xff", b"{", b"[" * 100_000])
def test_what_is_no_line_is_left_out(payload: bytes) -> None:
    assert listening.line(payload) is None

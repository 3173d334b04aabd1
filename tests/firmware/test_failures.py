"""What `sensors-flash` says of each cause of a failure, by the real esptool and mpremote on a stand-in for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import subprocess
import sys
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from firmware import chips, tools
from tests.firmware import devices
from tests.firmware.boards import Board, Interpreter
from tests.support.waiting import missing

DOCS = (Path(__file__).parents[2] / "docs" / "firmware.md").read_text()
ESP32 = chips.CHIPS["ESP32"]
GONE = "/dev/nowhere-at-all"

# a process of root's that may read and write only what its user may
ORDINARY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []


@pytest.fixture(autouse=True)
def needs_tools() -> None:
    for module in ("esptool", "mpremote"):
        pytest.importorskip(module)


@contextlib.contextmanager
def terminal() -> Iterator[str]:
    """A serial port to which nothing is connected."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        yield os.ttyname(slave)
    finally:
        os.close(slave)
        os.close(master)


@contextlib.contextmanager
def busy() -> Iterator[str]:
    """A serial port that another program has locked, as serial monitors do."""
    with terminal() as port, Path(port).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        yield port


@contextlib.contextmanager
def loose_plug(folder: Path) -> Iterator[str]:
    """A serial port that goes away as soon as something is written to it, and is there again at once."""
    first, slave = pty.openpty()
    tty.setraw(slave)
    port = folder / "ttyLoose"
    port.symlink_to(os.ttyname(slave))

    def go_away() -> None:
        os.read(first, 1)
        port.unlink()
        port.symlink_to(second)
        os.close(slave)
        os.close(first)

    with terminal() as second:
        thread = threading.Thread(target=go_away, name="plug", daemon=True)
        thread.start()
        yield str(port)
        thread.join(30)


def told(command: tools.Command, cause: str, text: str) -> None:
    with pytest.raises(tools.FlashError) as caught:
        command.run()
    assert caught.value.cause == cause, caught.value
    assert text in str(caught.value)


def both(port: str) -> list[tools.Command]:
    return [tools.ask_chip(port), tools.mpremote(port, "asking", "exec", "1", limit_seconds=3)]


def test_a_port_that_is_not_there() -> None:
    for command in both(GONE):
        told(command, "gone", f"there is no port {GONE}")


def test_a_port_that_another_program_has() -> None:
    with busy() as port:
        for command in both(port):
            told(command, "busy", f"another program uses {port}")


def test_what_is_no_serial_port(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, tmp_path):
        for command in both(str(path)):
            told(command, "no serial port", f"{path} is no serial port")


@pytest.mark.slow
def test_a_port_that_goes_away_meanwhile(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with loose_plug(folder) as port:
            told(both(port)[number], "lost", f"{port} went away meanwhile")


@pytest.mark.slow
def test_a_port_without_permission_is_told_with_its_group_and_not_as_a_board_without_micropython() -> None:
    if ORDINARY and not Path("/usr/bin/setpriv").exists():
        missing("the program setpriv")
    with terminal() as port:
        if ORDINARY:
            os.chown(port, 65534, 65534)
        Path(port).chmod(0)
        good = ["--wifi", "home", "--mqtt", "mqtt://127.0.0.1:1", "--wait", "0", "--port", port]
        for more in ([], ["--firmware", "image.bin"]):
            done = subprocess.run(
                [*ORDINARY, sys.executable, "-m", "firmware.flash", *good, *more],
                env={**os.environ, "SENSORS_WIFI_PASSWORD": "12345678"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 1
            assert tools.CAUSES["denied"].text.format(port=port, group=Path(port).group()) in done.stderr
            assert "no MicroPython" not in done.stderr
            assert "bootloader" not in done.stderr


@pytest.mark.slow
def test_a_board_that_does_not_answer() -> None:
    with terminal() as port:
        esptool, mpremote = both(port)
        told(esptool, "no bootloader", f"hold BOOT ({chips.boot_pins()})")
        told(mpremote, "no prompt", "press EN/RESET and start again at once")


@pytest.fixture
def board(interpreter: Interpreter, standins: Path, tmp_path: Path) -> Board:
    folder = tmp_path / "board"
    folder.mkdir()
    return Board(interpreter, standins, folder, {"id": "esp32-123456"})


Case = tuple[str, dict[str, object], dict[str, int], Sequence[str], str]
BOOTLOADER: list[Case] = [
    ("another revision", {}, {"revision": 399}, ("write-flash", "0x1000"), "revision v3.99 or higher of the chip"),
    ("flash too small", {}, {"size": 5 << 20}, ("write-flash", "0x1000"), "flash of 4194304 bytes"),
    ("garbled", {"bad_flash": True}, {}, ("write-flash", "0x1000"), "arrives altered"),
    ("locked", {"registers": {**devices.REGISTERS, devices.EFUSE_ABS_DONE: 1 << 4}}, {}, ("erase-flash",), "is locked"),
]


@pytest.mark.parametrize(("cause", "device", "image", "arguments", "text"), BOOTLOADER, ids=[c[0] for c in BOOTLOADER])
def test_what_the_bootloader_can_not_do(
    cause: str,
    device: dict[str, object],
    image: dict[str, int],
    arguments: Sequence[str],
    text: str,
    board: Board,
    tmp_path: Path,
) -> None:
    path = devices.write_image(tmp_path / "image.bin", **image)
    make: Callable[..., devices.Device] = devices.Device
    with make(board, **device) as there:
        files = [str(path)] if arguments[0] == "write-flash" else []
        told(tools.esptool(there.port, ESP32, "writing", *arguments, *files), cause, text)


def test_a_board_with_another_chip_than_was_said(board: Board) -> None:
    with devices.Device(board) as device:
        command = tools.esptool(device.port, chips.CHIPS["ESP32-S2"], "erasing", "erase-flash")
        told(command, "another chip", "the board has an ESP32, no ESP32-S2")
        assert device.erased == 0


@pytest.mark.parametrize(
    ("cause", "error", "text"),
    [
        ("no room", "OSError: [Errno 28] ENOSPC", "file system is full"),
        ("no file system", "OSError: [Errno 19] ENODEV", "file system can't be written"),
        ("no file system", "OSError: [Errno 30] EROFS", "file system can't be written"),
        ("no memory", "MemoryError: memory allocation failed, allocating 4096 bytes", "ran out of memory"),
    ],
)
@pytest.mark.slow
def test_what_micropython_can_not_do(cause: str, error: str, text: str, board: Board, tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    traceback = f"Traceback (most recent call last):\r\n  {error}\r\n"
    with devices.Device(board, has_firmware=True, error=traceback) as device:
        told(tools.mpremote(device.port, "asking", "exec", "1"), cause, text)
        told(tools.copying(device.port, tmp_path, ["main.py"]), cause, text)


def test_every_cause_has_a_stand_in_above_and_a_row_in_the_documentation() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for name, cause in tools.CAUSES.items():
        assert f'"{name}"' in here, name
        head = cause.text.format("", "…", "…", port="PORT", group="dialout").partition(":")[0].partition(". ")[0]
        assert f'| "{head}"' in DOCS, name

"""A stand-in for an ESP32 that boots what was written to its flash, on a cable with reset lines, as a browser has it.

DTR holds GPIO 0 and RTS holds EN, through the two transistors of most boards: a reset with DTR set enters the
bootloader, without it MicroPython mounts the file system of the flash and runs the program in it.
"""

from __future__ import annotations

import os
import subprocess

from tests.firmware.boards import RESET, Board
from tests.firmware.devices import DEFLATE_DATA, ERASE, Device

FILES_AT = 0x200000


class Bootable(Device):
    """One board. Use it as a context manager; bytes go through `write` and `read`, lines through `signals`."""

    def __init__(self, board: Board) -> None:
        super().__init__(board)
        (board.folder / "settings.json").unlink()
        self._cable = os.open(self.port, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
        self._is_written = False
        self._held = False
        self._loads = False

    def close(self) -> None:
        """Unplug it."""
        os.close(self._cable)

    def write(self, data: bytes) -> None:
        """What the computer sends."""
        at = 0
        while at < len(data):
            try:
                at += os.write(self._cable, data[at : at + 1024])
            except BlockingIOError:
                continue

    def read(self) -> bytes:
        """What the board has sent since."""
        try:
            return os.read(self._cable, 65536)
        except BlockingIOError:
            return b""

    def signals(self, *, dtr: bool | None, rts: bool | None) -> None:
        """Set the lines; None leaves one as it is."""
        if dtr is not None:
            self._loads = dtr
        if rts is None or rts == self._held:
            return
        self._held = rts
        if rts:
            self._stop_program()
        elif not self._loads:
            self._boot()

    def _boot(self) -> None:
        if not self.has_firmware:
            return
        if self._is_written:
            (self.board.folder / "flash.img").write_bytes(self.flash[FILES_AT:])
            (self.board.folder / "flash-bytes").write_text(str(len(self.flash) - FILES_AT))
            self._is_written = False
        self._shown = len(self.board.printed())
        self.board.power_on("reset", start="mounted.py", stdin=subprocess.PIPE)
        self._running = True

    def _take(self, byte: int) -> None:
        if not self._running:
            super()._take(byte)
        elif self.board.process is not None and self.board.process.stdin is not None:
            try:
                self.board.process.stdin.write(bytes([byte]))
                self.board.process.stdin.flush()
            except BrokenPipeError:
                pass

    def _take_typed(self, byte: int) -> None:
        """Nobody types at it."""

    def _answer(self, command: int, data: bytes) -> None:
        self._is_written |= command in (DEFLATE_DATA, ERASE)
        super()._answer(command, data)

    def _show_console(self) -> None:
        printed = self.board.printed()
        if len(printed) > self._shown:
            self._say(printed[self._shown :])
            self._shown = len(printed)
        elif self.board.process is not None and self.board.process.poll() is not None:
            self._running = False
            if self.board.wait_off() == RESET:
                self._boot()

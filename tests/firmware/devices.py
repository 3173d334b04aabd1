"""A stand-in for an ESP32 on a serial cable: a pseudo-terminal behind which esptool finds a bootloader, mpremote a
MicroPython prompt, and the broker a sensor.

- What begins with SLIP's 0xC0 is for the bootloader, in which esptool's flasher runs already; flash is an array.
- The prompt is MicroPython's raw REPL; what is typed is executed by the real MicroPython, whose files are the board's.
- `machine.reset()` starts the real sensor program; its console is the terminal; Ctrl-C ends it and gives the prompt.

Sources: Espressif, esptool documentation, "Serial Protocol"; MicroPython documentation, "The MicroPython Interactive
Interpreter Mode", raw mode.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import select
import struct
import subprocess
import threading
import tty
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.firmware.boards import Board

# of an ESP32: what says so; its flash (4 MiB); its eFuses, of which one locks it
FLASH_ID, EFUSE_ABS_DONE = 0x3FF42080, 0x3FF5A018
REGISTERS: Mapping[int, int] = {0x40001000: 0x00F01D83, FLASH_ID: 0x1640EF}
BANNER = b"raw REPL; CTRL-B to exit\r\n>"
BOOTLOADER_READ_REG, MD5, DEFLATE_BEGIN, DEFLATE_DATA, ERASE, SECURITY_INFO = 0x0A, 0x13, 0x10, 0x11, 0xD0, 0x14


class Device:
    """One board on one cable. Use it as a context manager; `port` is what a program opens."""

    def __init__(
        self,
        board: Board,
        *,
        has_firmware: bool = False,
        registers: Mapping[int, int] = REGISTERS,
        bad_flash: bool = False,
        error: str = "",
    ) -> None:
        """One board.

        Args:
            board: What runs on it.
            has_firmware: MicroPython runs on it already.
            registers: What the bootloader reads in the chip, by address.
            bad_flash: What is read is not what was written.
            error: What every piece of code at the prompt ends with.
        """
        self.board = board
        self.registers = registers
        self.bad_flash = bad_flash
        self.error = error
        self.flash = bytearray(b"\xff" * (4 << 20))
        self.erased = 0
        self.has_firmware = has_firmware
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._ended = threading.Event()
        self._repl: subprocess.Popen[bytes] | None = None
        self._raw = False
        self._typed = b""
        self._packet: bytearray | None = None
        self._inflate: zlib._Decompress | None = None
        self._write_at = 0
        self._running = False
        self._shown = 0
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(30)
        self._end_repl()
        self.board.cut_power()
        os.close(self._slave)
        os.close(self._master)

    def _serve(self) -> None:
        while not self._ended.is_set():
            ready, _, _ = select.select([self._master], [], [], 0.02)
            if ready:
                for byte in os.read(self._master, 65536):
                    self._take(byte)
            if self._running:
                self._show_console()

    def _say(self, data: bytes) -> None:
        os.write(self._master, data)

    def _take(self, byte: int) -> None:
        if self._packet is not None or byte == 0xC0:
            self._take_slip(byte)
        elif self.has_firmware:
            self._take_typed(byte)

    # -- the bootloader

    def _take_slip(self, byte: int) -> None:
        if byte != 0xC0:
            assert self._packet is not None
            self._packet.append(byte)
        elif not self._packet:
            self._packet = bytearray()
        else:
            packet = bytes(self._packet).replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
            self._packet = None
            self._stop_program()
            self._answer(packet[1], packet[8:])

    def _answer(self, command: int, data: bytes) -> None:
        value, answer, status = 0, b"", b"\x00\x00"
        if command == BOOTLOADER_READ_REG:
            (register,) = struct.unpack("<I", data)
            value = self.registers.get(register, 0)
        elif command == SECURITY_INFO:
            status = b"\x01\x05"  # an ESP32 does not know this command
        elif command == ERASE:
            self.flash[:] = b"\xff" * len(self.flash)
            self.erased += 1
            self.has_firmware = False
            for path in self.board.folder.iterdir():
                if path.is_file() and path.name != "cause":
                    path.unlink()
        elif command == DEFLATE_BEGIN:
            _, _, _, self._write_at = struct.unpack("<IIII", data[:16])
            self._inflate = zlib.decompressobj()
        elif command == DEFLATE_DATA:
            assert self._inflate is not None
            content = self._inflate.decompress(data[16:])
            self.flash[self._write_at : self._write_at + len(content)] = content
            self._write_at += len(content)
            self.has_firmware = self.flash[0x1000] == 0xE9  # where an ESP32 looks for it
        elif command == MD5:
            start, size = struct.unpack("<II", data[:8])
            answer = hashlib.md5(self.flash[start : start + size] + b"x" * self.bad_flash).digest()
        body = answer + status
        packet = struct.pack("<BBHI", 1, command, len(body), value) + body
        escaped = packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
        for _ in range(8 if command == 0x08 else 1):  # SYNC has eight answers
            self._say(b"\xc0" + escaped + b"\xc0")

    # -- MicroPython's prompt

    def _take_typed(self, byte: int) -> None:
        if byte == 0x03:
            self._stop_program()
            self._typed = b""
        elif self._running:
            return
        elif byte == 0x01:
            self._raw, self._typed = True, b""
            self._say(BANNER)
        elif byte == 0x02:
            self._raw, self._typed = False, b""
            self._say(b"\r\n>>> ")
        elif byte == 0x04 and self._raw and not self._typed.strip():
            self._end_repl()
            self._say(b"OK\r\nMPY: soft reboot\r\n" + BANNER)
        elif byte == 0x04 and self._raw:
            code, self._typed = self._typed, b""
            self._execute(code)
        else:
            self._typed += bytes([byte])
            if self._typed == b"\x05A\x01":  # raw-paste mode, which not every board has
                self._typed = b""
                self._say(b"R\x00")

    def _execute(self, code: bytes) -> None:
        self._say(b"OK")
        if self.error:
            self._say(f"\x04{self.error}\x04>".encode())
            return
        if self._repl is None:
            interpreter, board = self.board.interpreter, self.board
            command = interpreter.command(
                board.folder, board.standins, f"{board.id}-repl-{id(self)}", "/standins/repl.py"
            )
            self._repl = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=board.folder)
        assert self._repl.stdin is not None
        assert self._repl.stdout is not None
        try:
            self._repl.stdin.write(b"%d\n" % len(code) + code)
            self._repl.stdin.flush()
        except BrokenPipeError:
            pass
        output = b""
        while output.count(b"\x04") < 2:
            chunk = os.read(self._repl.stdout.fileno(), 4096)
            if not chunk:
                self._end_repl()
                self._start_program()  # machine.reset()
                return
            output += chunk
        self._say(output.replace(b"\n", b"\r\n") + b">")

    def _end_repl(self) -> None:
        repl, self._repl = self._repl, None
        if repl is not None:
            assert repl.stdin is not None
            assert repl.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                repl.stdin.close()
            repl.wait(30)
            repl.stdout.close()

    # -- the program

    def _start_program(self) -> None:
        self._raw = False
        self._shown = len(self.board.log())
        if (self.board.folder / "main.py").exists():
            self.board.power_on("reset")
            self._running = True

    def _stop_program(self) -> None:
        if self._running:
            self._running = False
            self.board.cut_power()

    def _show_console(self) -> None:
        text = self.board.log()
        if len(text) > self._shown:
            self._say(text[self._shown :].replace("\n", "\r\n").encode())
            self._shown = len(text)


def make_image(
    chip_number: int, offset: int, size: int = 40_000, revision: int = 0, vfs: tuple[int, int] | None = None
) -> bytes:
    """A file that is built like MicroPython's images: bootloader, partition table, program, each with its hash.

    `revision` is the lowest of the chip that it is for, in hundredths; `vfs` the place of a file system that the table
    names, which those of MicroPython before 1.26 do.
    """

    def part(content: bytes) -> bytes:
        header = struct.pack("<BBBBI", 0xE9, 1, 2, 0x20, 0x40080000)
        header += struct.pack("<BBBBHBHH4xB", 0xEE, 0, 0, 0, chip_number, 0, revision, 0xFFFF, 1)
        body = header + struct.pack("<II", 0x40080000, len(content)) + content
        body += bytes(15 - len(body) % 16) + b"\xef"
        return body + hashlib.sha256(body).digest()

    table = struct.pack("<HBBII16sI", 0x50AA, 1, 2, 0x9000, 0x6000, b"nvs", 0)
    table += struct.pack("<HBBII16sI", 0x50AA, 0, 0, 0x10000, 0x1F0000, b"factory", 0)
    if vfs is not None:
        table += struct.pack("<HBBII16sI", 0x50AA, 1, 0x81, *vfs, b"vfs", 0)
    table += struct.pack("<H14s", 0xEBEB, b"\xff" * 14) + hashlib.md5(table).digest()
    image = part(b"bootloader " * 200).ljust(0x8000 - offset, b"\xff") + table
    return image.ljust(0x10000 - offset, b"\xff") + part(os.urandom(size))


def write_image(path: Path, chip_number: int = 0, offset: int = 0x1000, **how: Any) -> Path:
    """`make_image` into a file."""
    path.write_bytes(make_image(chip_number, offset, **how))
    return path

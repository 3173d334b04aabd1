"""A sensor board whose chip is MicroPython on Unix: the real program, and stand-ins for what only a board has."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE_SECONDS, eventually

IMAGE = "micropython/unix:latest"
STANDINS = Path(__file__).with_name("standins")
START = "start.py"

PLENTY = ("-X", "heapsize=4m")  # of memory, for what holds a whole flash in it; a program of 32 bits gives itself 1 MiB

RESET, DEEP_SLEEP, WATCHDOG = 17, 18, 128 + signal.SIGALRM


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How MicroPython is run here: the program, or the image when `program` is None."""

    program: str | None

    @staticmethod
    def find() -> Interpreter | str:
        """The interpreter, or what is missing."""
        if program := shutil.which("micropython"):
            return Interpreter(program)
        if shutil.which("docker") is None:
            return "micropython, or Docker for its image"
        probe = subprocess.run(
            ["docker", "run", "--rm", "--init", IMAGE, "-c", "print(6*7)"], capture_output=True, text=True, check=False
        )
        if probe.stdout.strip() != "42":
            return f"micropython, or the image {IMAGE} ({probe.stderr.strip()[:120]})"
        return Interpreter(None)

    def command(self, folder: Path, standins: Path, name: str, *arguments: str) -> list[str]:
        """What runs MicroPython with `folder` as its working directory."""
        if self.program is not None:
            return [self.program, *(argument.replace("/standins", str(standins)) for argument in arguments)]
        mounts = ["-v", f"{folder}:/flash", "-v", f"{standins}:/standins:ro", "-w", "/flash"]
        user = ["--user", f"{os.getuid()}:{os.getgid()}"]
        # --init: a process with the number 1 would not die of a watchdog's signal
        options = ["--rm", "--init", "-i", "--network", "host", "--name", name, *user, *mounts]
        return ["docker", "run", *options, IMAGE, *arguments]


class Board:
    """One board: a folder that is its flash, and a process while it has power."""

    def __init__(self, interpreter: Interpreter, standins: Path, folder: Path, settings: dict[str, Any]) -> None:
        """`folder` holds the firmware; `settings` is written beside it."""
        self.interpreter = interpreter
        self.standins = standins
        self.folder = folder
        self.settings = settings
        self.id: str = settings.get("id") or "esp32-123456"
        self._process: subprocess.Popen[bytes] | None = None
        self._name = ""
        self._log = folder.parent / (folder.name + ".log")
        self.write_settings()

    def write_settings(self, **changes: Any) -> None:
        """Change settings.json."""
        self.settings.update(changes)
        (self.folder / "settings.json").write_text(json.dumps(self.settings))

    def power_on(
        self, cause: str = "power", heap: int | None = None, start: str = START, stdin: int = subprocess.DEVNULL
    ) -> None:
        """Start it.

        Args:
            cause: What it will believe that it was started by.
            heap: Bytes of memory for the program; None for plenty.
            start: Which of the stand-ins starts the program.
            stdin: What is at its serial port; nobody when not given.
        """
        assert self._process is None
        (self.folder / "cause").write_text(cause)
        self._name = f"firmware-{uuid.uuid4().hex[:12]}"
        options = ["-X", f"heapsize={heap}"] if heap else []
        command = self.interpreter.command(self.folder, self.standins, self._name, *options, f"/standins/{start}")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=stdin, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
            )

    def wait_off(self, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until it resets, sleeps or is reset: RESET, DEEP_SLEEP or WATCHDOG."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the board still runs after {timeout_seconds:g} s:\n{self.log()}") from None
        self._close_stdin()
        self._process = None
        return code if code >= 0 else 128 - code

    def cut_power(self) -> None:
        """End it at once: the broker sees the connection go without DISCONNECT."""
        self._close_stdin()
        process, self._process = self._process, None
        if process is None:
            return
        if self.interpreter.program is None and process.poll() is None:
            subprocess.run(["docker", "kill", self._name], capture_output=True, check=False)
        else:
            process.kill()
        process.wait(30)

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def world(self, name: str, there: bool = True) -> None:
        """Make one of the files true or false that stand for the world outside (standins/README.md)."""
        if there:
            (self.folder / name).touch()
        else:
            (self.folder / name).unlink()

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The program while it has power."""
        return self._process

    def printed(self) -> bytes:
        """What it printed on its console, byte by byte."""
        return self._log.read_bytes() if self._log.exists() else b""

    def log(self) -> str:
        """What it printed on its console."""
        return self.printed().decode(errors="replace")

    def wait_log(self, text: str, timeout_seconds: float = 10) -> None:
        """Wait until it prints `text`."""

        def found() -> bool:
            assert text in self.log(), f"the console says:\n{self.log()[-2000:]}"
            return True

        eventually(found, timeout_seconds, f"'{text}' on the console")

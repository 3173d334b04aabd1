"""Tools that look into the server while a scenario is measured: counts of system calls, and where time goes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

Tool = Literal["syscalls", "strace", "perf", "py-spy"]
TOOLS: tuple[Tool, ...] = ("syscalls", "strace", "perf", "py-spy")

COUNTED_CALLS = (
    *("write", "writev", "sendto", "sendmsg", "read", "recvfrom", "recvmsg"),
    *("epoll_wait", "epoll_pwait", "epoll_ctl", "poll", "io_uring_enter"),
)


class MissingToolError(Exception):
    """The tool is not installed."""


@dataclass(slots=True)
class Attached:
    """A tool that is at work.

    Attributes:
        switch: starts and stops counting, for the tool that can do it at the very moment (`syscalls`).
        counts: how often each system call was made; there once the tool has ended.
    """

    switch: Callable[[bool], None]
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """Which tool is attached to the server, and where its output goes.

    `syscalls` is `perf stat`, whose counts cost little; `strace -c` says also how long calls take but slows the server
    to a third, so that more messages share a call; `perf record` sees kernel and C code, `py-spy` Python's.
    """

    tool: Tool
    directory: Path

    @contextmanager
    def attached(self, pid: int, name: str, seconds: float) -> Iterator[Attached]:
        """Attach to a process for as long as the body runs; py-spy has to know beforehand how long that is.

        Raises:
            MissingToolError: the tool is not on the PATH.
        """
        output = self.directory / f"{name}.{self.tool}"
        control = self.directory / f"{name}.control"
        answers = self.directory / f"{name}.answers"
        program = "perf" if self.tool == "syscalls" else self.tool
        found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
        if found is None:
            raise MissingToolError(f"{program} is not on the PATH")
        events = [part for call in COUNTED_CALLS for part in ("-e", f"syscalls:sys_enter_{call}")]
        arguments = {
            "syscalls": [
                "stat",
                "-x,",
                "-D",
                "-1",
                "--control",
                f"fifo:{control},{answers}",
                *events,
                "-o",
                str(output),
            ],
            "strace": ["-c", "-f", "-o", str(output)],
            "perf": ["record", "-g", "-o", str(output)],
            "py-spy": ["record", "--native", "-r", "500", "-f", "raw", "-d", str(int(seconds) + 1), "-o", str(output)],
        }[self.tool]
        if self.tool == "syscalls":
            for fifo in (control, answers):
                fifo.unlink(missing_ok=True)
                os.mkfifo(fifo)
        with subprocess.Popen(
            [found, *arguments, "-p", str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            if self.tool == "syscalls":
                with control.open("w") as commands, answers.open() as acknowledgements:
                    attached = Attached(_switch(commands, acknowledgements))
                    yield attached
            else:
                time.sleep(0.5)  # none of them says when it is there
                attached = Attached(lambda _: None)
                yield attached
            if self.tool != "py-spy":
                process.send_signal(signal.SIGINT)
            process.wait(60)
        if self.tool == "syscalls":
            control.unlink()
            answers.unlink()
            attached.counts.update(_counts(output.read_text()))


def _switch(commands: IO[str], acknowledgements: IO[str]) -> Callable[[bool], None]:
    def switch(on: bool) -> None:
        commands.write("enable\n" if on else "disable\n")
        commands.flush()
        acknowledgements.readline()

    return switch


def _counts(text: str) -> dict[str, int]:
    # 26019,,syscalls:sys_enter_write,…
    lines = [line.split(",") for line in text.splitlines() if "sys_enter_" in line]
    return {line[2].rpartition("sys_enter_")[2]: int(line[0]) for line in lines if line[0].isdigit() and int(line[0])}

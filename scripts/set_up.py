"""Sets up the virtual environment that `make` uses, and says how far it is.

Invariant: one at a time. A second `make` waits for the first, says so, and then finds everything done; and what an
interrupted one left half made is made anew. Needs only Python's standard library.

    python -m scripts.set_up .venv                      an environment with pip, if there is none yet
    python -m scripts.set_up .venv '.[demo]' --editable --constraint requirements-dev.txt
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from scripts.build_web import locked

__all__ = ["main"]

STEP = re.compile(r"^(Collecting|Downloading|Using cached|Obtaining|Building wheel for|Installing)\b\s*(\S*)")
NARROW = 70


class Progress:
    """One line that is written again and again on a terminal; elsewhere a line for each tenth package."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._began = time.monotonic()
        self._names: set[str] = set()

    def take(self, line: str) -> None:
        """Reads what pip says."""
        found = STEP.match(line.strip())
        if found is None:
            return
        if found[1] == "Collecting":
            self._names.add(found[2])
        name = found[2] if "://" in found[2] else re.split(r"[\[<>=!~;,@(]", found[2])[0]
        if found[1] == "Installing":
            if found[2] == "collected":
                self._show(f"installing {len(self._names)} packages")
            elif self._is_terminal:  # what packages are built with
                self._show("preparing")
        elif self._is_terminal or (found[1] == "Collecting" and len(self._names) % 10 == 0):
            self._show(f"{len(self._names)} packages, {name}")

    def _show(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        line = f"  {seconds:3.0f} s  {text}"[:NARROW]
        self._out.write(f"\r{line:{NARROW}}" if self._is_terminal else f"{line}\n")
        self._out.flush()

    def end(self) -> None:
        """Takes the line away."""
        if self._is_terminal:
            self._out.write(f"\r{'':{NARROW}}\r")
            self._out.flush()


@contextlib.contextmanager
def alone(path: Path, out: TextIO) -> Iterator[None]:
    """One at a time; who has to wait is told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_locked(path):
        out.write("Another `make` is setting up; waiting for it.\n")
        out.flush()
    with locked(path):
        yield


def is_locked(path: Path) -> bool:
    """Whether somebody has the lock at this moment."""
    try:
        import fcntl
    except ImportError:
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def works(python: Path) -> bool:
    """Whether an environment has an interpreter and pip: one that was interrupted as it was made lacks it."""
    try:
        done = subprocess.run([str(python), "-c", "import pip"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def main(arguments: list[str] | None = None, out: TextIO = sys.stdout) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Sets up the virtual environment that `make` uses.")
    parser.add_argument("venv", type=Path)
    parser.add_argument("packages", nargs="*", help="what pip installs into it")
    parser.add_argument("--editable", action="store_true")
    parser.add_argument("--constraint")
    parser.add_argument("--requirement")
    parser.add_argument("--stamp", action="append", default=[], type=Path, help="files that say it was done")
    options = parser.parse_args(arguments)
    python = options.venv / "bin" / "python"
    asked = time.time() - 0.05  # the kernel's time of a file is some milliseconds behind
    with alone(options.venv.with_name(f"{options.venv.name}.lock"), out):
        if options.stamp and all(stamp.exists() and stamp.stat().st_mtime > asked for stamp in options.stamp):
            return 0  # done while we waited
        if not works(python):
            say = (
                "Setting up in " + str(options.venv) + (": about a minute, and only once." if options.packages else ".")
            )
            out.write(f"{say}\n")
            out.flush()
            shutil.rmtree(options.venv, ignore_errors=True)
            made = subprocess.run([sys.executable, "-m", "venv", str(options.venv)], capture_output=True, check=False)
            if made.returncode:
                shutil.rmtree(options.venv, ignore_errors=True)
                sys.stderr.write("Python's venv module is needed (on Debian: apt install python3-venv)\n")
                return 1
        elif options.packages:
            out.write(f"Bringing {options.venv} up to date.\n")
            out.flush()
        if options.packages or options.requirement:
            code = install(python, options, out)
            if code:
                return code
        for stamp in options.stamp:
            stamp.touch()
    return 0


def install(python: Path, options: argparse.Namespace, out: TextIO) -> int:
    """Runs pip, its lines turned into progress; what it printed is shown where it fails."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    for flag in ("constraint", "requirement"):
        if getattr(options, flag):
            command += [f"--{flag}", getattr(options, flag)]
    for package in options.packages:
        command += ["--editable", package] if options.editable else [package]
    progress = Progress(out)
    said: list[str] = []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, stdin=subprocess.DEVNULL
    ) as pip:
        for line in pip.stdout or ():
            said.append(line)
            progress.take(line)
    progress.end()
    if pip.returncode:
        sys.stderr.write("".join(said[-30:]))
    return pip.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

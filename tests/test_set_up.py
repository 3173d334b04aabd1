"""What `make` does before anything runs: the environment, one at a time, with progress."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import venv
from pathlib import Path

import pytest

from scripts.build_web import locked
from scripts.set_up import Progress, is_locked, main, works
from tests.support.waiting import eventually


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


PIP = """Obtaining file:///checkout
  Installing build dependencies: started
Collecting aiomqtt~=2.5 (from mqtt-browser-gateway)
  Downloading aiomqtt-2.5.1-py3-none-any.whl (15 kB)
Collecting PyJWT[crypto]>=2.10 (from mqtt-browser-gateway)
Installing collected packages: aiomqtt, PyJWT
"""


def test_a_terminal_sees_one_line_that_goes_on() -> None:
    out = Terminal()
    progress = Progress(out)
    for line in PIP.splitlines():
        progress.take(line)
    shown = [line.strip() for line in out.getvalue().split("\r") if line.strip()]
    assert "\n" not in out.getvalue()
    assert [line.partition("s  ")[2] for line in shown] == [
        "0 packages, file:///checkout",
        "preparing",
        "1 packages, aiomqtt",
        "1 packages, aiomqtt-2.5.1-py3-none-any.whl",
        "2 packages, PyJWT",
        "installing 2 packages",
    ]
    progress.end()
    assert out.getvalue().endswith("\r")


def test_a_file_gets_few_lines() -> None:
    out = io.StringIO()
    progress = Progress(out)
    for number in range(25):
        progress.take("  Installing build dependencies: started")
        progress.take(f"Collecting package{number}<{number + 1},>=0 (from other)")
        progress.take(f"  Downloading package{number}-1.0.whl")
    progress.take("Installing collected packages: many")
    lines = [line.partition("s  ")[2] for line in out.getvalue().splitlines()]
    assert lines == ["10 packages, package9", "20 packages, package19", "installing 25 packages"]


def test_a_second_one_waits_for_the_first_and_does_nothing_again(tmp_path: Path) -> None:
    lock, stamp = tmp_path / ".venv.lock", tmp_path / ".venv" / ".demo"
    out = io.StringIO()
    codes: list[int] = []
    arguments = [str(tmp_path / ".venv"), "nothing-of-this-name", "--stamp", str(stamp)]
    with locked(lock):
        assert is_locked(lock)
        second = threading.Thread(target=lambda: codes.append(main(arguments, out)))
        second.start()
        eventually(lambda: "waiting for it" in out.getvalue(), 10, "it says that it waits")
        assert not codes
        stamp.parent.mkdir()
        stamp.touch()
    second.join(20)
    assert codes == [0]
    assert not is_locked(lock)


@pytest.mark.slow
def test_what_was_left_half_made_is_made_anew(tmp_path: Path) -> None:
    home = tmp_path / ".venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    assert not works(python)
    done = subprocess.run(
        [sys.executable, "-m", "scripts.set_up", str(home)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Setting up in ")
    assert works(python)


STUB = """#!/bin/sh
case "$*" in
  *last-failed*) echo "alone: $*" >> {log};;
  *pytest*) echo "ran: $*" >> {log}; exit {code};;
esac
"""


@pytest.mark.parametrize(
    ("code", "runs", "is_good"),
    [(0, 2, True), (1, 4, True), (2, 2, False), (3, 2, False)],
    ids=["passed", "failed", "interrupted", "broken"],
)
def test_only_tests_that_failed_get_another_chance(tmp_path: Path, code: int, runs: int, is_good: bool) -> None:
    """A run that broke off says nothing of the tests that it left out, and of those no other run is asked."""
    log, program = tmp_path / "log", tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text(STUB.format(log=log, code=code), "utf-8")
    program.chmod(0o755)
    (tmp_path / ".dev").touch()
    done = subprocess.run(
        ["make", "test", f"VENV={tmp_path}"],
        cwd=Path(__file__).parents[1],
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "ARGS")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (len(log.read_text("utf-8").splitlines()), done.returncode == 0) == (runs, is_good), done.stderr

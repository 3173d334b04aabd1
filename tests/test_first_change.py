"""The first change of CONTRIBUTING.md, made as it says: each diff fits, and each command ends as it says there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.brokers import mosquitto_program
from tests.support.waiting import missing

ROOT = Path(__file__).parents[1]

_BLOCK = re.compile(r"^ *```(diff|sh)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"\.venv/bin/python (.+?) +# (passes|fails with: (.+))")


def steps() -> list[tuple[str, str]]:
    """The diffs and commands in their order, each with its kind."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("\n## A first change\n")[2].partition("\nThe narrowest command")[0]
    return [(found[1], textwrap.dedent(found[2])) for found in _BLOCK.finditer(section)]


def test_the_first_change_has_a_diff_and_a_command_for_each_place() -> None:
    kinds = [kind for kind, _ in steps()]
    assert kinds.count("diff") >= 6
    assert kinds.count("sh") >= 6
    changed = {name for _, text in steps() for name in re.findall(r"^\+\+\+ b/(.+)$", text, re.MULTILINE)}
    assert changed >= {"gateway/core/shapes.py", "gateway/core/shaper.py", "tests/test_shapes.py", "docs/protocol.md"}


@pytest.mark.slow
def test_the_first_change_goes_as_it_is_told(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        missing("a clone, and git, to copy what is in it")
    if shutil.which("patch") is None:
        missing("the program patch")
    if mosquitto_program() is None:
        missing("the program mosquitto")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environment = {**inherited, "PYTHONPATH": str(tmp_path)}
    for kind, text in steps():
        if kind == "diff":
            done = subprocess.run(
                ["patch", "-p1"], cwd=tmp_path, input=text, capture_output=True, text=True, timeout=30, check=False
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
            continue
        for line in text.splitlines():
            command = _COMMAND.fullmatch(line)
            assert command is not None, line
            done = subprocess.run(
                [sys.executable, *command[1].split()],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=250,
                check=False,
            )
            # a test has failed, or can't be read; 5 would be that none has such a name
            wanted = (0,) if command[3] is None else (1, 2)
            assert done.returncode in wanted, f"{line}\n{done.stdout[-3000:]}{done.stderr}"
            if command[3] is None:
                assert " skipped" not in done.stdout.splitlines()[-1], done.stdout
            else:
                assert command[3] in done.stdout, f"{line}\n{done.stdout[-3000:]}"
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "gateway", "tests"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout

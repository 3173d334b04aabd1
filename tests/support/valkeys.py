"""A Valkey server for tests: the program where there is one, else a container; killed, frozen and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.support.brokers import docker_problem
from tests.support.waiting import eventually, free_port

IMAGE = "valkey/valkey:8"
START_SECONDS = 60.0


def valkey_problem() -> str | None:
    """Why there can be none here; None if there can."""
    if shutil.which("valkey-server") or shutil.which("redis-server"):
        return None
    return docker_problem()


def program_of(kind: str = "valkey") -> str | None:
    """The program to start; None: a container. Redis stands in where Valkey can't be had."""
    if kind == "redis":
        return shutil.which("redis-server")
    own = shutil.which("valkey-server")
    return own if own is not None or docker_problem() is None else shutil.which("redis-server")


def _answers(port: int, password: str | None) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(1)
            connection.sendall(b"PING\r\n" if password is None else b"AUTH %b\r\nPING\r\n" % password.encode())
            answer = b""
            while b"+PONG" not in answer and (data := connection.recv(100)):
                answer += data
            return b"+PONG" in answer
    except OSError:
        return False


class ValkeyServer:
    """A server on a free port of loopback, which it keeps; with `appendonly` its data outlives it."""

    def __init__(self, folder: Path, *options: str, password: str | None = None, kind: str = "valkey") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.options = list(options)
        self.password = password
        self.kind = kind
        self._process: subprocess.Popen[bytes] | None = None
        self._container: Any = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"valkey://127.0.0.1:{self.port}/0"

    @property
    def own_address(self) -> tuple[str, str]:
        """Host and port, for another one: containers reach each other at addresses of their own."""
        if self._container is None:
            return "127.0.0.1", str(self.port)
        self._wrapped.reload()
        networks = self._wrapped.attrs["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"]), "6379"

    def tell(self, *words: str) -> bytes:
        """The answer to a command, as it comes."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            connection.sendall(f"*{len(words)}\r\n{parts}".encode())
            return connection.recv(65_536)

    def _command(self, program: str, port: int, folder: str) -> list[str]:
        password = [] if self.password is None else ["--requirepass", self.password]
        return [program, "--port", str(port), "--dir", folder, "--save", "", *password, *self.options]

    def start(self) -> None:
        """Starts it, or starts it again with what it has on its disk, and waits until it answers."""
        program = program_of(self.kind)
        if program is not None:
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(program, self.port, str(self.folder)), stdout=log, stderr=log
                )
        elif self._container is None:
            self._make()
        else:
            self._wrapped.start()
        eventually(lambda: _answers(self.port, self.password), START_SECONDS, "Valkey answers")

    def _make(self) -> None:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(IMAGE)
        ports: dict[str, Any] = {"6379/tcp": ("127.0.0.1", self.port)}
        container.ports.update(ports)
        container.with_command([*self._command("valkey-server", 6379, "/tmp"), "--protected-mode", "no"])
        container.start()
        self._container = container

    @property
    def _wrapped(self) -> Any:
        return self._container.get_wrapped_container()

    def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        else:
            self._wrapped.kill()
            self._wrapped.wait()

    def freeze(self) -> None:
        """It answers nothing any more."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
        else:
            self._wrapped.kill("SIGSTOP")  # the freezer is not to be had within every container

    def thaw(self) -> None:
        """It goes on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        else:
            self._wrapped.kill("SIGCONT")

    def forget(self) -> None:
        """Ends it and forgets its data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        elif self._container is not None:
            self._container.stop()
            self._container = None


class SentinelServer(ValkeyServer):
    """A Sentinel that watches one server; only where there is the program, since it tells addresses as it sees them."""

    def __init__(self, folder: Path, service: str, watched: ValkeyServer, *, password: str | None = None) -> None:
        super().__init__(folder, password=password, kind=watched.kind)
        self.service = service
        self.watched = watched

    def _command(self, program: str, port: int, folder: str) -> list[str]:
        lines = [
            f"port {port}",
            f"dir {folder}",
            f"sentinel monitor {self.service} 127.0.0.1 {self.watched.port} 1",
            *([] if self.password is None else [f"requirepass {self.password}"]),
            *([] if self.watched.password is None else [f"sentinel auth-pass {self.service} {self.watched.password}"]),
        ]
        path = Path(folder) / "sentinel.conf"
        path.write_text("\n".join(lines) + "\n")
        return [program, str(path), "--sentinel"]

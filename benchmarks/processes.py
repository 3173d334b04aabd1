"""The processes of a benchmark: started on chosen cores, measured from /proc, ended by their own handle."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A part of the benchmark did not start or did not do what it was asked."""


def free_port() -> int:
    """Return a TCP port that was free on every address a moment ago.

    Mosquitto listens for WebSockets on all of them, and subscribers of a run before have left theirs on 127.0.1.x.
    """
    with socket.socket() as sock:
        sock.bind(("", 0))
        port: int = sock.getsockname()[1]
        return port


def raise_file_limit(wanted: int) -> int:
    """Raise the soft limit of open files to `wanted`, as far as the hard limit allows; return what it is now.

    The processes that are started later inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        return limit
    return soft


@dataclass(frozen=True, slots=True)
class Cores:
    """Which processor core runs what. With two cores the broker and the publisher share the load's."""

    server: int | None
    load: int | None
    broker: int | None
    publisher: int | None

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Share out the cores that this process may use."""
        available = sorted(cls.available())
        if len(available) < 2:
            return cls(None, None, None, None)
        server, load, *others = available
        return cls(server, load, others[0] if others else load, others[1] if len(others) > 1 else load)

    @staticmethod
    def available() -> set[int]:
        """Return the cores that this process may use."""
        return os.sched_getaffinity(0)

    def __str__(self) -> str:
        if self.server is None:
            return "one core for everything: the delays say little"
        return (
            f"server on core {self.server}, load on {self.load}, broker on {self.broker}, publisher on {self.publisher}"
        )


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process, its threads and its children have used, in seconds.

    Those that live are read from their processor-time clock (clock_getcpuclockid(3)), in nanoseconds; children that
    have ended from cutime and cstime (proc(5)), in hundredths of a second.
    """
    total = 0.0
    for each in _tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            # how Linux makes the number of a process's clock: the inverted pid and CPUCLOCK_SCHED
            total += time.clock_gettime(~each << 3 | 2) + sum(int(value) for value in fields[13:15]) / _TICKS
    return total


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children, in bytes."""
    total = 0
    for each in _tree(pid):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * resource.getpagesize()
    return total


class Process:
    """A child process on a core of its own, with its output in a file.

    Args:
        name: names the process and its log.
        arguments: what is executed.
        directory: where it runs and logs.
        core: the only core that it may use; None leaves it to the system.
        environment: added to this process's own, from which every `GATEWAY_…` is taken away.
        piped: whether `ask` is to be used.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        directory: Path,
        core: int | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.log = directory / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [*_pinned_to(core), *arguments],
                cwd=directory,
                env={**inherited, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **(environment or {})},
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else log,
                stderr=log,
                text=True,
                bufsize=1,
            )
        self.pid = self.popen.pid

    def ask(self, command: Mapping[str, Any], *, answered: bool = True) -> dict[str, Any]:
        """Send a command to a piped process and return its answer.

        Raises:
            BenchmarkError: the process has ended.
        """
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps(command) + "\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            raise BenchmarkError(f"{self.name} has ended: {self.last_words()}") from None
        return self.answer() if answered else {}

    def answer(self) -> dict[str, Any]:
        """Return the next line that a piped process says.

        Raises:
            BenchmarkError: the process has ended.
        """
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self.name} has ended: {self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def last_words(self) -> str:
        """Return the end of what the process wrote."""
        return self.log.read_text(errors="replace")[-2000:].strip()

    def stop(self, seconds: float = 5.0) -> None:
        """End the process; kill it when it doesn't within so many seconds."""
        if self.popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.popen.stdin.close()
        self.popen.terminate()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _pinned_to(core: int | None) -> list[str]:
    # Before exec, so that every thread of the program inherits it.
    if core is None:
        return []
    program = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execvp(sys.argv[2], sys.argv[2:])"
    return [sys.executable, "-S", "-c", program, str(core)]


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """Give a temporary directory that a process of another user may read."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def compiled(name: str, directory: Path) -> Path:
    """Build a program of this folder, such as `broker` from broker.c, and return where it is.

    Raises:
        BenchmarkError: there is no C compiler, or it found fault.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchmarkError("a C compiler is not on the PATH: install it (apt install gcc libc6-dev)")
    source, program = Path(__file__).with_name(f"{name}.c"), directory / name
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise BenchmarkError(f"{source.name} could not be built: {built.stderr[-2000:]}")
    return program


class StandIn(Process):
    """A stand-in for a broker and its publishers (broker.c): it obeys like `benchmarks.publisher`."""

    def __init__(self, directory: Path, core: int | None) -> None:
        program = compiled("broker", directory)
        super().__init__("stand-in", [str(program)], directory, core, piped=True)
        assert self.popen.stdout is not None
        self.port: int = json.loads(self.popen.stdout.readline())["port"]


class Mosquitto(Process):
    """A broker with an MQTT and a WebSocket listener on free ports, everything else as it comes."""

    def __init__(self, directory: Path, core: int | None, name: str = "mosquitto") -> None:
        binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if binary is None:
            raise BenchmarkError(
                "mosquitto is not on the PATH: install it (apt install mosquitto, brew install mosquitto)"
            )
        self.port, self.websocket_port = free_port(), free_port()
        config = directory / f"{name}.conf"
        config.write_text(
            f"listener {self.port} {HOST}\n"
            f"listener {self.websocket_port} {HOST}\nprotocol websockets\n"
            "allow_anonymous true\npersistence false\nconnection_messages false\n"
            "log_dest stderr\nlog_type error\nlog_type warning\n"
        )
        super().__init__(name, [binary, "-c", str(config)], directory, core)
        for port in (self.port, self.websocket_port):
            _wait_until_listening(self, port)

    def version(self) -> str:
        """Return the broker's version, such as `2.0.11`."""
        output = subprocess.run([self.arguments[0], "-h"], capture_output=True, text=True, check=False).stdout
        return output.split("\n", 1)[0].removeprefix("mosquitto version ").strip()


class Gateway(Process):
    """The gateway with its defaults on a free port; only the limits that a load from one address meets are raised."""

    def __init__(
        self, directory: Path, core: int | None, broker_port: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        arguments = [sys.executable, "-m", "gateway", "serve", "--host", HOST, "--port", str(self.port)]
        settings = {
            "GATEWAY_MQTT_URL": f"mqtt://{HOST}:{broker_port}",
            "GATEWAY_LIMIT_CONNECTIONS": "20000",
            "GATEWAY_LIMIT_CONNECTIONS_PER_ADDRESS": "20000",
        }
        super().__init__("gateway", arguments, directory, core, environment={**settings, **(environment or {})})
        deadline = time.monotonic() + 20
        while True:
            url = f"http://{HOST}:{self.port}/health/ready"
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    break
            if self.popen.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BenchmarkError(f"the gateway did not get ready: {self.last_words()}")
            time.sleep(0.05)


def _wait_until_listening(process: Process, port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        if process.popen.poll() is not None or time.monotonic() > deadline:
            process.stop()
            raise BenchmarkError(f"{process.name} does not listen: {process.last_words()}")
        time.sleep(0.02)

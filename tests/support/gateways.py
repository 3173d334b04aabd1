"""A real gateway: `gateway serve` in a process of its own, on a free port, with its log kept."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import processor_seconds

from .lifecycle import Started
from .waiting import PATIENCE_SECONDS, eventually, free_port

START_SECONDS = 60.0


class GatewayProcess(Started):
    """`gateway serve` on a free port of loopback; keeps port and settings when started again."""

    def __init__(self, folder: Path, broker_url: str, **settings: object) -> None:
        """Prepares it; `start` starts it.

        Args:
            folder: where its log goes and where it runs.
            broker_url: the broker, for GATEWAY_MQTT_URL.
            settings: further settings by name; lists and objects are given as JSON.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.settings: dict[str, object] = {"mqtt_url": broker_url, "port": self.port, **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def http(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """`ws://127.0.0.1:PORT`."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        for name, value in self.settings.items():
            text = value if isinstance(value, str) else json.dumps(value)
            kept[f"GATEWAY_{name.upper()}"] = text
        # the working directory is the test's own, the code is where the tests are
        root = str(Path(__file__).parents[2])
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH", "")]))
        return kept

    def start(self, *, ready: bool = True) -> None:
        """Starts it and waits until it serves, and with `ready` until it is connected to the broker."""
        if self.is_alive:
            raise RuntimeError("it runs already")
        with (self.folder / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._serves, START_SECONDS, "the gateway serves")
        if ready:
            self.wait_ready()

    def _serves(self) -> bool:
        if not self.is_alive:
            raise RuntimeError(f"the gateway ended:\n{self.log()}")
        return self.get("/health/live")[0] == 200

    def wait_ready(self, timeout_seconds: float = START_SECONDS) -> None:
        """Waits until it is connected to the broker and subscribed."""
        eventually(lambda: self.get("/health/ready")[0] == 200, timeout_seconds, "the gateway is ready")

    def wait_not_ready(self, timeout_seconds: float = START_SECONDS) -> None:
        """Waits until it has noticed that the broker is gone."""
        eventually(lambda: self.get("/health/ready")[0] == 503, timeout_seconds, "the gateway notices")

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a GET."""
        return self.request("GET", path, headers=headers)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of any request."""
        connection = self.connection()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        except HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def connection(self) -> HTTPConnection:
        """A connection for requests over HTTP."""
        return HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)

    def json(self, path: str) -> Any:
        """The JSON that a GET answers with."""
        status, body = self.get(path, {"Accept": "application/json"})
        assert status == 200, f"{path}: {status} {body[:200]!r}"
        return json.loads(body)

    def metrics(self, headers: dict[str, str] | None = None) -> dict[str, float]:
        """The samples of /metrics by name and labels, as Prometheus writes them: `name{label="value"}`."""
        status, body = self.get("/metrics", headers)
        assert status == 200, f"/metrics: {status}"
        samples = {}
        for line in body.decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def memory(self) -> int:
        """Resident memory in bytes."""
        resident: int = psutil.Process(self.pid).memory_info().rss
        return resident

    def processor_seconds(self) -> float:
        """Processor time used so far, in seconds: to the nanosecond on Linux, elsewhere to about 10 ms."""
        if Path("/proc/self/schedstat").exists():
            return processor_seconds(self.pid)
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def _end(self, sent: signal.Signals, timeout_seconds: float) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(sent)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        try:
            return process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the gateway did not end within {timeout_seconds:g} s:\n{self.log()}") from None

    def stop(self, timeout_seconds: float = 15) -> int:
        """Ends it in order (SIGTERM) and gives its exit code."""
        return self._end(signal.SIGTERM, timeout_seconds)

    def kill(self) -> None:
        """Ends it at once (SIGKILL)."""
        self._end(signal.SIGKILL, 10)

    def freeze(self) -> None:
        """Stops its processor time (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """What it logged so far, over all its starts."""
        file = self.folder / "gateway.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def close(self) -> None:
        """Makes sure that it is gone."""
        if self.is_alive:
            self.kill()
        self._process = None

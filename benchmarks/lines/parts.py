"""The programs of a run: broker, servers and clients, each within its namespace, and the publisher."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks import messages
from benchmarks.lines.accounting import Story, read
from benchmarks.lines.namespaces import Lines
from benchmarks.processes import HOST, REPOSITORY, BenchmarkError, Process

__all__ = ["KINDS", "Client", "Kind", "Publisher", "Server", "broker", "gateway", "missing_part", "socket_io"]

PEERS = REPOSITORY / "tests" / "peers"
LIBRARY = REPOSITORY / "gateway" / "static" / "client.js"
BROKER_PORT, WEBSOCKET_PORT, GATEWAY_PORT, SOCKET_IO_PORT = 1883, 9001, 8000, 3000
"""Every namespace has ports of its own."""

GATEWAY, BROKER, SOCKET_IO = "gateway", "mosquitto", "socket-io"
"""Names of servers."""

START_SECONDS = 30.0
STOP_SECONDS = 10.0
"""Then a server is killed, as Docker does."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of client.

    Attributes:
        name: Its name in tests/peers/line_client.mjs.
        title: Its name in the table.
        behind: The servers whose restart it has to come back from.
    """

    name: str
    title: str
    behind: tuple[str, ...]


KINDS = (
    Kind("gateway-live", "our client library", (GATEWAY, BROKER)),
    Kind("EventSource", "a plain `EventSource` at our event stream", (GATEWAY, BROKER)),
    Kind("MQTT.js", "MQTT.js at Mosquitto, QoS 1, `clean: false`", (BROKER,)),
    Kind("MQTT.js defaults", "MQTT.js at Mosquitto, its defaults", (BROKER,)),
    Kind("Socket.IO", "Socket.IO, connection state recovery", (SOCKET_IO, BROKER)),
)


def missing_part() -> str | None:
    """Return what the clients lack on this machine, None where it is all there."""
    if shutil.which("node") is None:
        return "the program node (on Debian: apt install nodejs npm)"
    if not (PEERS / "node_modules" / "socket.io-client").is_dir():
        return "the npm packages of tests/peers (make peers)"
    if not LIBRARY.is_file():
        return "the client library (make web)"
    if _mosquitto() is None:
        return "the program mosquitto (on Debian: apt install mosquitto)"
    return None


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Server:
    """A server in its namespace, which can be restarted.

    Args:
        lines: whose server's namespace it runs in.
        name: names the process, its log, and what is behind it.
        command: what is executed.
        directory: where it runs and logs.
        is_ready: whether it serves, asked within the namespace; an OSError says no.
        environment: added to its own.
    """

    def __init__(
        self,
        lines: Lines,
        name: str,
        command: Sequence[str],
        directory: Path,
        is_ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._lines = lines
        self.name = name
        self._command = lines.inside(lines.server, command)
        self._directory = directory
        self._is_ready = is_ready
        self._environment = environment
        self._process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            BenchmarkError: it doesn't.
        """
        self._process = Process(self.name, self._command, self._directory, environment=self._environment)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if self._lines.at_server(self._is_ready):
                    return
            if self._process.popen.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"{self.name} does not serve: {self._process.last_words()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as a system does: it may say goodbye."""
        if self._process is not None:
            self._process.stop(STOP_SECONDS)
            self._process = None

    def restart(self) -> None:
        """Stop it and start it at once.

        Raises:
            BenchmarkError: it doesn't serve again.
        """
        self.stop()
        self.start()


def _listens(*ports: int) -> Callable[[], bool]:
    def ask() -> bool:
        for port in ports:
            socket.create_connection((HOST, port), timeout=1).close()
        return True

    return ask


def broker(lines: Lines, directory: Path) -> Server:
    """Return a Mosquitto that keeps its sessions over a restart; everything else as it comes."""
    program = _mosquitto()
    assert program is not None
    config = directory / "mosquitto.conf"
    config.write_text(
        f"user root\nlistener {BROKER_PORT} {HOST}\nlistener {WEBSOCKET_PORT} 0.0.0.0\nprotocol websockets\n"
        f"allow_anonymous true\npersistence true\npersistence_location {directory}/\n"
        "log_dest stderr\nlog_type error\nlog_type warning\n"
    )
    return Server(lines, BROKER, [program, "-c", str(config)], directory, _listens(BROKER_PORT, WEBSOCKET_PORT))


def gateway(lines: Lines, directory: Path, settings: Mapping[str, str]) -> Server:
    """Return a gateway with its defaults, but for these settings by the names of their variables."""

    def is_ready() -> bool:
        with contextlib.closing(http.client.HTTPConnection(HOST, GATEWAY_PORT, timeout=2)) as connection:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200

    command = [sys.executable, "-m", "gateway", "serve", "--host", "0.0.0.0", "--port", str(GATEWAY_PORT)]
    needed = {"GATEWAY_MQTT_URL": f"mqtt://{HOST}:{BROKER_PORT}", "GATEWAY_ACCESS_ALLOW_ANONYMOUS": "true"}
    return Server(lines, GATEWAY, command, directory, is_ready, {**needed, **settings})


def socket_io(lines: Lines, directory: Path) -> Server:
    """Return the Socket.IO server of tests/peers."""
    command = ["node", str(PEERS / "socket_io.mjs"), str(SOCKET_IO_PORT), str(BROKER_PORT)]
    return Server(lines, SOCKET_IO, command, directory, _listens(SOCKET_IO_PORT))


class Client:
    """A client behind its line. What it hears goes to a file."""

    def __init__(self, lines: Lines, number: int, kind: Kind, directory: Path) -> None:
        self.kind = kind
        self._number = number
        self._lines = lines
        name = f"client-{number}"
        ports = json.dumps({"gateway": GATEWAY_PORT, "mqtt": WEBSOCKET_PORT, "socketIo": SOCKET_IO_PORT})
        arguments = [kind.name, lines.server_address(number), ports, name, LIBRARY.as_uri()]
        command = ["node", str(PEERS / "line_client.mjs"), *arguments]
        self._process = Process(name, lines.inside(lines.clients[number], command), directory)

    def story(self) -> Story:
        """Return what it has heard so far.

        Raises:
            BenchmarkError: it has ended, or wrote something else.
        """
        if self._process.popen.poll() is not None:
            raise BenchmarkError(f"{self.kind.name} has ended: {self._process.last_words()}")
        try:
            with self._process.log.open() as lines:
                return read(lines)
        except ValueError:
            raise BenchmarkError(f"{self.kind.name} said: {self._process.last_words()}") from None

    def line_bytes(self) -> int:
        """Return the bytes on its line so far."""
        return self._lines.bytes_of(self._number)

    def stop(self) -> None:
        """End it."""
        self._process.popen.kill()
        self._process.stop()


class Publisher:
    """Publishes readings with running numbers at a steady rate, each of them when the broker has the one before.

    So nothing is on its way while it holds, and the broker can be restarted without a message that comes twice.
    """

    def __init__(self, lines: Lines, rate: float, topics: int) -> None:
        self._rate = rate
        self._topics = topics
        self.times: list[float] = []
        self._turn = threading.Lock()
        self._is_over = threading.Event()
        self._connected = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="publisher")
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.on_disconnect = lambda *_: self._connected.clear()
        self._thread = lines.at_server(self._connect)

    def _connect(self) -> threading.Thread:
        # threads stay where they are made
        self._client.connect(HOST, BROKER_PORT)
        self._client.loop_start()
        return threading.Thread(target=self._run, name="publisher")

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._is_over.wait(max(0.0, due - time.monotonic())):
            with self._turn:
                self._publish()
            # what was held up is not made up for
            due = max(due + 1 / self._rate, time.monotonic())

    def _publish(self) -> None:
        number, now = len(self.times), time.time()
        self.times.append(now)
        topic = messages.topic(number % self._topics)
        payload = messages.payload(now, number // self._topics, number)
        self._client.publish(topic, payload, qos=1).wait_for_publish(START_SECONDS)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Publish nothing meanwhile, nor before the broker can be reached again.

        Raises:
            BenchmarkError: it can't.
        """
        with self._turn:
            yield
            if not self._connected.wait(START_SECONDS):
                raise BenchmarkError("the publisher does not find the broker again")

    def stop(self) -> None:
        """End it; what is published stays in `times`."""
        if self._is_over.is_set():
            return
        self._is_over.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

"""Real brokers under a test's control: Mosquitto in a container or as a process, and amqtt for MQTT 3.1.1 only.

Every broker keeps its port and, until told otherwise, its persistence over `stop`, `kill` and `start`.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gc
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .certificates import KeyPair
from .lifecycle import Started
from .waiting import eventually, free_port, is_listening

IMAGE = "eclipse-mosquitto:2.0"
START_SECONDS = 60.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How a broker is set up.

    Attributes:
        users: Passwords by user name; empty lets anyone in.
        acl: The text of Mosquitto's ACL file, `None` for none.
        server: Certificate and key of a TLS listener, which then is the only one.
        client_ca: With `server`: clients must show a certificate of this authority.
        names_are_ids: The broker takes a user's name for its client id.
        websockets: Adds a listener for MQTT over WebSocket, on `websocket_port`.
        autosave: Writes the persistence at every second change, so that SIGKILL loses at most the newest message.
        extra: Further lines of mosquitto.conf.
        listener: Further lines for the MQTT listener.
    """

    users: Mapping[str, str] = field(default_factory=dict)
    acl: str | None = None
    server: KeyPair | None = None
    client_ca: Path | None = None
    names_are_ids: bool = False
    websockets: bool = False
    autosave: bool = False
    extra: tuple[str, ...] = ()
    listener: tuple[str, ...] = ()


class Broker(Started):
    """One broker on a port of loopback."""

    kind = "none"
    host = "127.0.0.1"

    def __init__(self, folder: Path, options: BrokerOptions | None = None) -> None:
        """`folder` takes configuration, persistence and log; the broker is started by `start`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.options = options or BrokerOptions()
        self.port = free_port()
        self.websocket_port = free_port() if self.options.websockets else 0

    @property
    def url(self) -> str:
        """The address for clients, without user and password."""
        return f"{'mqtts' if self.options.server else 'mqtt'}://{self.host}:{self.port}"

    @abstractmethod
    def start(self) -> None:
        """Starts it and returns when it accepts connections."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it in order (SIGTERM); Mosquitto writes its persistence."""

    @abstractmethod
    def kill(self) -> None:
        """Ends it at once (SIGKILL)."""

    @abstractmethod
    def freeze(self) -> None:
        """Stops its processor time but not the kernel that acknowledges its packets (SIGSTOP)."""

    @abstractmethod
    def thaw(self) -> None:
        """Lets a frozen broker go on."""

    @abstractmethod
    def forget(self) -> None:
        """Throws the persistence of a stopped broker away."""

    @abstractmethod
    def close(self) -> None:
        """Ends it for good and removes what it needed."""

    @abstractmethod
    def log(self) -> str:
        """What it logged so far."""

    def restart(self, *, keep: bool = True) -> None:
        """Stops and starts it, with its persistence or without."""
        self.stop()
        if not keep:
            self.forget()
        self.start()


class _Process(Broker):
    """A broker that is a child process."""

    _process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.kind} ended with {self._process.returncode}:\n{self.log()}")
        return is_listening(self.port)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        if self._process is not None:
            raise RuntimeError("it runs already")
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
            )
        eventually(self._is_ready, START_SECONDS, f"{self.kind} accepts connections on port {self.port}")

    def _end(self, sent: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sent)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()

    def log(self) -> str:
        file = self.folder / "broker.log"
        return file.read_text(errors="replace") if file.exists() else ""


def _mosquitto_files(options: BrokerOptions, port: int, websocket_port: int, at: Path, data: Path) -> dict[str, bytes]:
    """The files of a Mosquitto that finds them in the folder `at` and keeps its persistence in `data`."""
    files: dict[str, bytes] = {}
    lines = [
        "user root",  # its files may lie where only the user who runs the tests can read
        "per_listener_settings false",
        f"allow_anonymous {'false' if options.users else 'true'}",
        "persistence true",
        f"persistence_location {data}/",
        # The default of 1,000 would drop what tests count. Not 0, which means no limit: then Mosquitto cuts off whoever
        # publishes what the ACL forbids, because its queue has at least 0 packets.
        "max_queued_messages 1000000",
        "log_timestamp_format %H:%M:%S",
        "connection_messages true",
    ]
    if options.autosave:
        lines += ["autosave_on_changes true", "autosave_interval 1"]
    if options.users:
        files["passwords"] = "".join(_password_line(user, word) for user, word in options.users.items()).encode()
        lines.append(f"password_file {at / 'passwords'}")
    if options.acl is not None:
        files["acl"] = options.acl.encode()
        lines.append(f"acl_file {at / 'acl'}")
    lines += options.extra
    lines += [
        f"listener {port}",
        f"use_username_as_clientid {str(options.names_are_ids).lower()}",
        *options.listener,
    ]
    if options.server:
        files["server.pem"] = options.server.cert.read_bytes()
        files["server.key"] = options.server.key.read_bytes()
        lines += [f"certfile {at / 'server.pem'}", f"keyfile {at / 'server.key'}"]
        if options.client_ca:
            files["client-ca.pem"] = options.client_ca.read_bytes()
            lines += [f"cafile {at / 'client-ca.pem'}", "require_certificate true"]
    if websocket_port:
        lines += [f"listener {websocket_port}", "protocol websockets"]
    files["mosquitto.conf"] = ("\n".join(lines) + "\n").encode()
    return files


def _password_line(user: str, password: str) -> str:
    """A line of Mosquitto's password file: PBKDF2 with SHA-512 (mosquitto_passwd's format 7)."""
    salt, rounds = os.urandom(12), 101
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds, 64)
    return f"{user}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}\n"


class MosquittoProcess(_Process):
    """The `mosquitto` on the PATH."""

    kind = "process"

    def _command(self) -> list[str]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        files = _mosquitto_files(self.options, self.port, self.websocket_port, self.folder, data)
        for name, content in files.items():
            path = self.folder / name
            path.write_bytes(content)
            path.chmod(0o600)
        program = mosquitto_program()
        assert program is not None
        return [program, "-c", str(self.folder / "mosquitto.conf")]

    def forget(self) -> None:
        shutil.rmtree(self.folder / "data", ignore_errors=True)


class MosquittoContainer(Broker):
    """Mosquitto in a container of its own, its port published on loopback."""

    kind = "container"
    _container: Any = None  # testcontainers' DockerContainer, imported only where Docker is

    def _make(self) -> None:
        from testcontainers.core.container import DockerContainer

        at, data = Path("/mosquitto/config"), Path("/mosquitto/data")
        container = DockerContainer(IMAGE)
        # loopback only, and the same port after a restart: with_bind_ports can say neither
        ports: dict[str, Any] = {"1883/tcp": (self.host, self.port)}
        if self.websocket_port:
            ports["9001/tcp"] = (self.host, self.websocket_port)
        container.ports.update(ports)
        websocket_port = 9001 if self.websocket_port else 0
        for name, content in _mosquitto_files(self.options, 1883, websocket_port, at, data).items():
            container.with_copy_into_container(content, str(at / name))
        container.start()
        self._container = container

    @property
    def wrapped(self) -> Any:
        """The container as the Docker client knows it."""
        assert self._container is not None
        return self._container.get_wrapped_container()

    def start(self) -> None:
        if self._container is None:
            self._make()
        else:
            self.wrapped.start()
        # the published port accepts before the broker does, so it is the log that tells
        eventually(self._is_ready, START_SECONDS, "Mosquitto's container runs")

    def _is_ready(self) -> bool:
        self.wrapped.reload()
        if self.wrapped.status == "exited":
            raise RuntimeError(f"the container ended:\n{self.log()}")
        started = self.wrapped.attrs["State"]["StartedAt"]
        return "running" in self._log_since(started) and is_listening(self.port)

    def _log_since(self, started: str) -> str:
        import datetime

        since = datetime.datetime.fromisoformat(started[:19] + "+00:00").timestamp()
        # a whole second earlier holds the last run's lines when a test is quick, so only the newest start counts
        text: str = self.wrapped.logs(since=int(since)).decode(errors="replace")
        return text[text.rfind(" starting") :]

    def stop(self) -> None:
        self.wrapped.stop(timeout=10)

    def kill(self) -> None:
        self.wrapped.kill()
        self.wrapped.wait()

    def freeze(self) -> None:
        self.wrapped.pause()

    def thaw(self) -> None:
        self.wrapped.unpause()

    def forget(self) -> None:
        self._container.stop()  # removes container and volume
        self._container = None

    def cut(self) -> None:
        """Takes its network away: packets vanish, nobody is told."""
        for network in self._networks():
            network.disconnect(self.wrapped)

    def mend(self) -> None:
        """Gives the network back."""
        import docker  # type: ignore[import-untyped]

        docker.from_env().networks.get("bridge").connect(self.wrapped)

    def _networks(self) -> list[Any]:
        import docker

        self.wrapped.reload()
        names = list(self.wrapped.attrs["NetworkSettings"]["Networks"])
        client = docker.from_env()
        return [client.networks.get(name) for name in names]

    def close(self) -> None:
        if self._container is not None:
            with contextlib.suppress(Exception):
                self.wrapped.unpause()
            self._container.stop()
            self._container = None

    def log(self) -> str:
        text: str = self.wrapped.logs().decode(errors="replace")
        return text


class AmqttBroker(_Process):
    """amqtt, which speaks MQTT 3.1.1 and nothing newer; it has neither persistence nor TLS here."""

    kind = "amqtt"

    def _command(self) -> list[str]:
        config = {
            "listeners": {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
        path = self.folder / "amqtt.yaml"
        path.write_text(yaml.safe_dump(config))
        return [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(path)]

    def forget(self) -> None:
        """It never keeps anything."""


def mosquitto_program() -> str | None:
    """The path of the `mosquitto` program, which Debian keeps out of an ordinary user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def has_amqtt() -> bool:
    """Whether amqtt can be imported."""
    return importlib.util.find_spec("amqtt") is not None


@functools.cache
def docker_problem() -> str | None:
    """Why containers can't be used here, or `None` where they can."""
    try:
        import docker
        import testcontainers  # noqa: F401
    except ImportError as error:
        return f"Docker ({error})"
    client = None
    problem: str | None = None
    try:
        client = docker.from_env(timeout=30)
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no Docker here
        problem = f"Docker ({str(error)[:120]})"
    if client is None:
        # its socket is left open: closed here, it is no warning in the middle of some test
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        return problem
    try:
        try:
            client.images.get(IMAGE)
        except docker.errors.ImageNotFound:
            docker.from_env(timeout=120).images.pull(IMAGE)
    except Exception as error:  # noqa: BLE001 - likewise
        return f"the image {IMAGE} ({str(error)[:120]})"
    finally:
        client.close()
    return None


COMPOSE_VERSION = (2, 20)
"""The first Docker Compose that knows `depends_on.required`, by which profiles share services."""


@functools.cache
def compose_problem() -> str | None:
    """Why docker-compose.yml can't be used here, or `None` where it can."""
    if problem := docker_problem():
        return problem
    wanted = "Docker Compose {}.{} or newer".format(*COMPOSE_VERSION)
    try:
        said = subprocess.run(
            ["docker", "compose", "version", "--short"], capture_output=True, text=True, timeout=30, check=False
        ).stdout.strip()
    except OSError as error:
        return f"{wanted} ({error})"
    version = re.match(r"v?(\d+)\.(\d+)", said)
    if version is None:
        return f"{wanted} (docker has no compose plugin)"
    if (int(version[1]), int(version[2])) < COMPOSE_VERSION:
        return f"{wanted} (it is {said})"
    return None


GATEWAY_IMAGE = os.environ.get("IMAGE", "mqtt-browser-gateway")
"""docker-compose.yml takes it from there, too."""

_HASH_OF_CODE = """
import hashlib, importlib.util, pathlib
root = pathlib.Path(importlib.util.find_spec("gateway").origin).parents[1]
code = sorted(path for name in ("gateway", "sensors_sim") for path in (root / name).rglob("*.py"))
print(hashlib.sha256(b"".join(str(path.relative_to(root)).encode() + path.read_bytes() for path in code)).hexdigest())
"""


@functools.cache
def image_problem() -> str | None:
    """Why the gateway's own image can't be tested here, or `None` where `make image` made it of the code as it is."""

    def hashed(*command: str) -> str:
        return subprocess.run(
            [*command, "-c", _HASH_OF_CODE], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout

    there = hashed("docker", "run", "--rm", "--entrypoint", "python", GATEWAY_IMAGE)
    if not there:
        return f"the image {GATEWAY_IMAGE} (make image)"
    return None if there == hashed(sys.executable) else f"the image {GATEWAY_IMAGE} of this code (make image)"


@functools.cache
def mosquitto_kind() -> str:
    """What stands in for "a real Mosquitto" in this run: `container`, `process`, `amqtt` or `none`.

    GATEWAY_TEST_BROKER names one of them; without it the first that this machine has is taken.
    """
    wanted = os.environ.get("GATEWAY_TEST_BROKER", "auto")
    if wanted != "auto":
        return wanted
    if docker_problem() is None:
        return "container"
    if mosquitto_program():
        return "process"
    return "amqtt" if has_amqtt() else "none"


def describe() -> str:
    """One line for pytest's header."""
    kind = mosquitto_kind()
    if kind == "container":
        return f"container {IMAGE}"
    problem = docker_problem()
    because = f" (no container: {problem})" if problem else ""
    if kind == "process":
        version = subprocess.run([mosquitto_program() or "", "-h"], capture_output=True, text=True, check=False).stdout
        return f"process {mosquitto_program()}, {version.splitlines()[0] if version else '?'}{because}"
    return f"{kind}{because}"


def make_broker(kind: str, folder: Path, options: BrokerOptions | None = None) -> Broker:
    """A broker of this kind, not started."""
    classes: dict[str, type[Broker]] = {
        "container": MosquittoContainer,
        "process": MosquittoProcess,
        "amqtt": AmqttBroker,
    }
    return classes[kind](folder, options)

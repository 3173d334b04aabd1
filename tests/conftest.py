"""Fixtures on real parts, for every test.

    mosquitto         a Mosquitto for the whole run; tests keep apart by `prefix` and by client id
    make_mosquitto    a Mosquitto of the test's own, to be stopped, killed, frozen or secured
    amqtt             a broker that speaks MQTT 3.1.1 only
    any_broker        like `mosquitto`, but amqtt where there is none; with any_publisher and any_gateway
    publisher         a connected publisher on `mosquitto`
    gateway           `gateway serve` on `mosquitto`, for the whole module; readonly, as it were: don't stop it
    make_gateway      a gateway of the test's own
    prefix            topics that no other test uses, such as `t17`
    authority         a certificate authority
    make_valkey       a Valkey server of the test's own, to be killed, frozen and started again
    docker, compose   what makes a test skip where there is no Docker, or no Docker Compose
    yardstick         judges processor time against fixed work beside it

Markers come by themselves where fixtures say enough (`MARKED_BY`): who uses `compose` is marked `docker`.

Which Mosquitto it is (a container, else the program, else amqtt where that can show it) stands in pytest's header;
GATEWAY_TEST_BROKER=process chooses another one.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest

import firmware.board.slots
import sensors_sim.payloads

# containers are removed by the fixtures; the helper container that would do it after a crash needs one more image
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

from tests.support.brokers import (
    AmqttBroker,
    Broker,
    BrokerOptions,
    compose_problem,
    describe,
    docker_problem,
    has_amqtt,
    image_problem,
    make_broker,
    mosquitto_kind,
    mosquitto_program,
)
from tests.support.certificates import Authority
from tests.support.gateways import GatewayProcess
from tests.support.inheritance import forget_parent
from tests.support.publishers import Publisher
from tests.support.reports import pytest_runtest_makereport  # noqa: F401 - a hook
from tests.support.valkeys import ValkeyServer, valkey_problem
from tests.support.waiting import missing
from tests.support.yardsticks import in_yardsticks

forget_parent()

# tests read modules of the board's program, beside which payloads.py and slots.py lie on a board
sys.modules.setdefault("payloads", sensors_sim.payloads)
sys.modules.setdefault("slots", firmware.board.slots)

# how long an example takes says more about what else runs here than about the code
hypothesis.settings.register_profile("gateway", deadline=None)
hypothesis.settings.load_profile("gateway")

_numbers = itertools.count(1)


class MakeMosquitto(Protocol):
    """Starts a Mosquitto with these options; `kind` insists on `container` or `process`."""

    def __call__(self, options: BrokerOptions | None = None, *, kind: str | None = None) -> Broker: ...


class MakeGateway(Protocol):
    """Starts a gateway on this broker; `start=False` leaves that to the test, `ready=False` doesn't await the link."""

    def __call__(
        self, broker: Broker | str, *, start: bool = True, ready: bool = True, **settings: object
    ) -> GatewayProcess: ...


SLOW_SECONDS = 5.0
MARKED_BY = {
    "docker": {"docker", "compose", "make_valkey"},
    "browser": {"chromium"},
    "timing": {"yardstick", "page_tasks"},
}
"""Markers by the fixtures that bring them."""

Yardstick = Callable[[Callable[[], float]], float]


def pytest_report_header() -> str:
    return f"mosquitto: {describe()}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two for each core, or as many as it is told: most tests wait, for a broker or for a gateway that starts."""
    return int(os.environ.get("GATEWAY_TEST_WORKERS_PER_CORE", "2")) * (os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        needed = set(getattr(item, "fixturenames", ()))
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("kind") == "container":
            needed.add("docker")
        if "interpreter" in needed and shutil.which("micropython") is None:
            needed.add("docker")
        for marker, fixtures in MARKED_BY.items():
            if needed & fixtures:
                item.add_marker(marker)
    _longest_files_first(items)


def _longest_files_first(items: list[pytest.Item]) -> None:
    """Lets no worker begin a long file when the others are about to end; a worker takes whole files, in this order.

    What a file takes is guessed from its slow tests and from the longest time that it asks for, in minutes.
    """
    slow: dict[Path, int] = {}
    minutes: dict[Path, float] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            slow[item.path] = slow.get(item.path, 0) + 1
        if (timeout := item.get_closest_marker("timeout")) is not None:
            minutes[item.path] = max(minutes.get(item.path, 0), timeout.args[0] / 60)
    items.sort(key=lambda item: -slow.get(item.path, 0) - minutes.get(item.path, 0))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Names the tests that are slow and not marked so; alone, the machine's other work counts least."""
    seconds: dict[str, float] = {}
    for report in itertools.chain(*terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport) and "slow" not in report.keywords:
            seconds[report.nodeid] = seconds.get(report.nodeid, 0) + report.duration
    for name, taken in sorted(seconds.items(), key=lambda pair: -pair[1]):
        if taken > SLOW_SECONDS:
            terminalreporter.write_line(f"not marked slow: {taken:4.1f} s {name}")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def prefix() -> str:
    """A first topic level of the test's own."""
    return f"t{os.getpid()}-{next(_numbers)}"


def _kind(wanted: str | None) -> str:
    kind = wanted or mosquitto_kind()
    if kind == "container" and (problem := docker_problem()):
        missing(problem)
    if kind == "process" and mosquitto_program() is None:
        missing("the program mosquitto")
    if kind in ("amqtt", "none"):
        missing("a Mosquitto (neither Docker nor the program is here; amqtt can't show this)")
    return kind


@pytest.fixture(scope="session")
def docker() -> None:
    """Containers can be used."""
    if problem := docker_problem():
        missing(problem)


@pytest.fixture(scope="session")
def compose() -> None:
    """docker-compose.yml can be used, with the image that `make image` makes."""
    if problem := compose_problem() or image_problem():
        missing(problem)


@pytest.fixture
def yardstick() -> Yardstick:
    """Seconds of processor time as a multiple of fixed work beside them."""
    return in_yardsticks


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running Mosquitto that all tests share: nobody stops it."""
    broker = make_broker(_kind(None), tmp_path_factory.mktemp("mosquitto"))
    with broker:
        yield broker


@pytest.fixture(scope="session")
def any_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Like `mosquitto`, but amqtt where there is none: for claims that every broker can show."""
    kind = mosquitto_kind()
    if kind == "none":
        missing("a broker: Docker, the program mosquitto, or the package amqtt")
    broker = make_broker(kind, tmp_path_factory.mktemp("broker"))
    with broker:
        yield broker


@pytest.fixture
def make_mosquitto(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeMosquitto]:
    """Makes brokers of the test's own; they end with the test."""
    brokers: list[Broker] = []

    def make(options: BrokerOptions | None = None, *, kind: str | None = None) -> Broker:
        assert kind != "container" or request.node.get_closest_marker("docker"), "mark this test `docker`"
        broker = make_broker(_kind(kind), tmp_path / f"broker{len(brokers)}", options)
        brokers.append(broker)
        broker.start()
        return broker

    yield make
    for broker in brokers:
        broker.close()


class MakeValkey(Protocol):
    """Starts a Valkey server with these options of its command line."""

    def __call__(self, *options: str, password: str | None = None, kind: str = "valkey") -> ValkeyServer: ...


@pytest.fixture
def make_valkey(tmp_path: Path) -> Iterator[MakeValkey]:
    """Makes Valkey servers of the test's own; they end with the test."""
    pytest.importorskip("valkey")
    if (problem := valkey_problem()) is not None:
        missing(problem)
    servers: list[ValkeyServer] = []

    def make(*options: str, password: str | None = None, kind: str = "valkey") -> ValkeyServer:
        server = ValkeyServer(tmp_path / f"valkey{len(servers)}", *options, password=password, kind=kind)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.forget()


@pytest.fixture
def amqtt(tmp_path: Path) -> Iterator[Broker]:
    """A broker that speaks MQTT 3.1.1 only."""
    if not has_amqtt():
        missing("the package amqtt (extra `demo`)")
    broker = AmqttBroker(tmp_path / "amqtt")
    with broker:
        yield broker


@pytest.fixture
def publisher(mosquitto: Broker) -> Iterator[Publisher]:
    """A connected publisher on `mosquitto`."""
    with Publisher(mosquitto.url) as connected:
        yield connected


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[MakeGateway]:
    """Makes gateways of the test's own; they end with the test."""
    gateways: list[GatewayProcess] = []

    def make(broker: Broker | str, *, start: bool = True, ready: bool = True, **settings: object) -> GatewayProcess:
        number = next(_numbers)
        # one Mosquitto serves many tests, and a client id is one session
        settings.setdefault("mqtt_client_id", f"gateway-{os.getpid()}-{number}")
        settings.setdefault("mqtt_status_topic", f"gateway-{os.getpid()}-{number}/status")
        url = broker if isinstance(broker, str) else broker.url
        gateway = GatewayProcess(tmp_path / f"gateway{number}", url, **settings)
        gateways.append(gateway)
        if start:
            gateway.start(ready=ready)
        return gateway

    yield make
    for gateway in gateways:
        gateway.close()


@pytest.fixture(scope="module")
def gateway(mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway on `mosquitto` that the tests of a module share: nobody stops it."""
    number = next(_numbers)
    process = GatewayProcess(
        tmp_path_factory.mktemp("gateway"),
        mosquitto.url,
        mqtt_client_id=f"gateway-{os.getpid()}-{number}",
        mqtt_status_topic=f"gateway-{os.getpid()}-{number}/status",
    )
    with process:
        yield process


@pytest.fixture
def any_publisher(any_broker: Broker) -> Iterator[Publisher]:
    """A connected publisher on `any_broker`."""
    with Publisher(any_broker.url, protocol=4 if any_broker.kind == "amqtt" else 5) as connected:
        yield connected


@pytest.fixture(scope="module")
def any_gateway(any_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway on `any_broker` that the tests of a module share."""
    number = next(_numbers)
    process = GatewayProcess(
        tmp_path_factory.mktemp("gateway"), any_broker.url, mqtt_client_id=f"any-gateway-{os.getpid()}-{number}"
    )
    with process:
        yield process


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of this run."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """What a file leaves open is told at its end, not in the midst of whichever test the collector runs in."""
    yield
    gc.collect()


@pytest.fixture
def called() -> tuple[list[tuple[Any, ...]], Callable[..., None]]:
    """A list, and a function that appends its arguments to it: stands where a callback is asked for."""
    calls: list[tuple[Any, ...]] = []
    return calls, lambda *arguments: calls.append(arguments)

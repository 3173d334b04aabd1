"""The gateways that are attacked: a usual one, one with many topics, one that speaks TLS itself."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.support.brokers import Broker
from tests.support.certificates import Authority
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import PATIENCE_SECONDS, eventually

from .target import SECRET

__all__ = ["STAGES", "Stage"]

HANDSHAKE_SECONDS = 2.0
MANY_TOPICS = 20_000


@dataclass(frozen=True)
class Stage:
    """A gateway that runs.

    Attributes:
        gateway: the process.
        handshake_seconds: time for a handshake.
        ca_file: whom its clients trust, where it speaks TLS.
    """

    gateway: GatewayProcess
    handshake_seconds: float = HANDSHAKE_SECONDS
    ca_file: Path = Path("none")


class TlsGateway(GatewayProcess):
    """A gateway that speaks TLS itself."""

    @property
    def ws(self) -> str:
        return f"wss://localhost:{self.port}"

    def connection(self) -> HTTPConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS, context=context)


@contextlib.contextmanager
def _running(
    folder: Path, broker: Broker, name: str, make: type[GatewayProcess] = GatewayProcess, **settings: object
) -> Iterator[GatewayProcess]:
    common: dict[str, object] = {
        "mqtt_client_id": f"gateway-{name}",
        "mqtt_status_topic": f"gateway-{name}/status",
        "mqtt_websocket": True,
        "access_secret": SECRET,
        "history_bytes": "8MiB",
        "limit_connections_per_address": 200,
        "limit_handshake_seconds": HANDSHAKE_SECONDS,
    }
    process = make(folder, broker.url, **{**common, **settings})
    with process:
        yield process


@contextlib.contextmanager
def usual(folder: Path, broker: Broker) -> Iterator[Stage]:
    """8 MiB of history."""
    with _running(folder, broker, "attacked") as gateway:
        yield Stage(gateway)


@contextlib.contextmanager
def full(folder: Path, broker: Broker) -> Iterator[Stage]:
    """20,000 topics, and 40 MB of messages or more."""
    with _running(folder, broker, "full", history_bytes="128MiB") as gateway, Publisher(broker.url) as publisher:
        publisher.publish_all((f"many/{number % 100}/{number}", b"1") for number in range(MANY_TOPICS))
        publisher.publish_all((f"large/{number % 40}", b'{"x":"%b"}' % (b"x" * 1_000)) for number in range(40_000))
        watcher = {"Authorization": "Bearer " + mint(secret_key(SECRET), ttl_seconds=3600, subscribe=["$SYS/#"])}
        eventually(lambda: gateway.metrics(watcher)["gateway_history_messages"] >= 40_000, 60, "history is there")
        yield Stage(gateway)


@contextlib.contextmanager
def encrypted(folder: Path, broker: Broker) -> Iterator[Stage]:
    """The gateway's own TLS, with a key whose handshakes take long: RSA of 2048 bits."""
    authority = Authority(folder / "ca")
    pair = authority.issue("gateway", hosts=("localhost", "127.0.0.1"), rsa_bits=2_048)
    files = {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}
    with _running(folder, broker, "tls", TlsGateway, **files) as gateway:
        yield Stage(gateway, ca_file=authority.ca_file)


STAGES: dict[str, Callable[[Path, Broker], contextlib.AbstractContextManager[Stage]]] = {
    "usual": usual,
    "full": full,
    "encrypted": encrypted,
}

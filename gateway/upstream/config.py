"""Which broker, as whom, and how a connection to it is secured.

Invariant: what is shown of a broker's address holds neither user nor password. Staying connected is for `upstream`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

__all__ = ["MQTT_3_1_1", "MQTT_5", "VERSION_NAMES", "UpstreamConfig", "Version", "open_broker_stream", "tls_context"]


MQTT_5: Final = 5
MQTT_3_1_1: Final = 4
Version = Literal[5, 4]
VERSION_NAMES: Mapping[Version, Literal["5", "3.1.1"]] = {MQTT_5: "5", MQTT_3_1_1: "3.1.1"}


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """Which broker, as whom, and what to subscribe to.

    Attributes:
        url: `mqtt://host:port`, or `mqtts://` for TLS; may hold `user:password@`.
        topics: valid topic filters.
        client_id: names the session on the broker; two gateways with one id take it from each other.
        username: ranks before the one in the URL.
        password: likewise.
        ca_file: certificates to trust, PEM; the system's if None.
        cert_file: our certificate, PEM.
        key_file: its key; None if `cert_file` holds it.
        keepalive_seconds: the longest silence; a broker is given up that is silent for half as much again, or 5 s more.
        session_expiry_seconds: how long the broker keeps QoS 1 messages for us while we are away (MQTT 5).
        status_topic: where `online` and `offline` are published, retained; empty for nowhere.
        max_message_bytes: larger PUBLISH packets are dropped without being held in memory, and counted.
        connect_timeout_seconds: for name, TCP and TLS together, and again for each answer of the broker.
        reconnect_min_seconds: about the first delay; each further one is about twice as long.
        reconnect_max_seconds: the longest delay.
        stable_seconds: duration of a connection after which the delays start over.
    """

    url: str = field(default="mqtt://localhost:1883", repr=False)
    topics: tuple[str, ...] = ("#",)
    client_id: str = "gateway"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_seconds: float = 30
    session_expiry_seconds: float = 3600
    status_topic: str = "gateway/status"
    max_message_bytes: int = 16 * 2**20
    connect_timeout_seconds: float = 10.0
    reconnect_min_seconds: float = 0.5
    reconnect_max_seconds: float = 30.0
    stable_seconds: float = 60.0

    @property
    def is_tls(self) -> bool:
        """Whether the URL asks for TLS."""
        return urlsplit(self.url).scheme == "mqtts"

    @property
    def host(self) -> str:
        """The broker's name or address."""
        return urlsplit(self.url).hostname or "localhost"

    @property
    def port(self) -> int:
        """The broker's port."""
        return urlsplit(self.url).port or (8883 if self.is_tls else 1883)

    @property
    def address(self) -> str:
        """The URL without user and password, for logs and people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.is_tls else 'mqtt'}://{host}:{self.port}"

    @property
    def credentials(self) -> tuple[str | None, str | None]:
        """User and password."""
        if self.username is not None:
            return self.username, self.password
        parts = urlsplit(self.url)
        user = None if parts.username is None else unquote(parts.username)
        return user, self.password if parts.password is None else unquote(parts.password)


def tls_context(config: UpstreamConfig) -> ssl.SSLContext:
    """Read anew for each connection, so that renewed certificates count; verifies chain and host name."""
    context = ssl.create_default_context(cafile=config.ca_file)
    if config.cert_file is not None:
        # an empty password, so that an encrypted key is an error and not a question on the terminal
        context.load_cert_chain(config.cert_file, config.key_file, password="")
    return context


async def open_broker_stream(config: UpstreamConfig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection to the broker, for clients that speak MQTT themselves.

    Raises:
        OSError: it can't be made (TLS failures included).
    """
    # never with our certificate: the broker would take whoever speaks on it for the gateway
    config = dataclasses.replace(config, cert_file=None, key_file=None)
    context = await asyncio.to_thread(tls_context, config) if config.is_tls else None
    return await asyncio.open_connection(config.host, config.port, ssl=context)

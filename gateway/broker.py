"""The upstream: one MQTT connection that is always there or being made, and that hands every message on at once.

Invariant: a message goes from the socket to `on_message` within one call, in the order of arrival, with nothing awaited
between; whatever breaks is reported through `on_change` and mended here, and never raises out of `run` or into a
publisher of messages. What a message means, and which retained message is no news, is for the hub and history.

aiomqtt (with paho under it) speaks MQTT: handshake, subscriptions, acknowledgements, keep-alive. Its transport is
ours: `_Link` is an asyncio protocol that paho takes for its socket, so that connecting can be cancelled, TLS is
asyncio's, one system call brings many messages, and PUBLISH packets never meet paho at all (benchmarks/ingest.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import errno
import itertools
import logging
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import unquote, urlsplit

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.arrivals import Arrivals, OnMessage
from gateway.core.messages import Properties
from gateway.packets import PacketError, PacketReader

__all__ = [
    "PublishRefused",
    "Upstream",
    "UpstreamConfig",
    "UpstreamError",
    "UpstreamState",
    "UpstreamUnavailable",
    "open_broker_stream",
]

T = TypeVar("T")

logger = logging.getLogger(__name__)
# paho reports every packet, and as errors what is reported here once and better
client_logger = logging.getLogger(f"{__name__}.client")
client_logger.setLevel(logging.CRITICAL)

MAX_PACKET_BYTES = 268_435_455
"""MQTT 5 §2.1.4."""

READ_PAUSE_SECONDS = 0.004
"""While several messages come with one read, the next one is so much later and brings more: waking up costs five times
what a message costs (benchmarks S2, S8)."""

READ_BYTES = 65_536
"""How much is read and handed on before the loop has another turn: some 600 readings of sensors, 3 ms."""

REPEAT_SECONDS = 10.0
"""How long after SUBACK a retained message may still be the broker's repetition (MQTT 5)."""

DEFAULT_RECEIVE_MAXIMUM = 20
"""How many messages at QoS 1 and 2 may await acknowledgement where the broker doesn't say; brokers have 10 to 100."""

MAX_CONCURRENT_PUBLISHES = 200
"""Further publishers wait their turn; far below the 65,535 packet identifiers, which paho reuses without looking."""

REPEATED_WARNING_SECONDS = 60.0

SILENT = "the broker does not answer: it was silent for longer than the keep-alive time"

RIVAL_SECONDS = 5.0
"""The least delay when another client has our client id: whoever hurries throws the other one out."""

SHORT_SECONDS = 10.0
SUSPICIOUS_LIVES = 3

UNCLEAR_FAILURES = 2
"""So many times MQTT 5 may come to nothing, for no reason given, before MQTT 3.1.1 is tried; a broker that is just
starting does that once."""

PROBE_SECONDS = 3.0
"""How long to wait for an answer to MQTT 5 that may never come."""

RETRY_MQTT_5_SECONDS = 3600.0

MQTT_5: Final = 5
MQTT_3_1_1: Final = 4
Version = Literal[5, 4]
VERSION_NAMES: Mapping[Version, Literal["5", "3.1.1"]] = {MQTT_5: "5", MQTT_3_1_1: "3.1.1"}


class UpstreamError(Exception):
    """A message could not be published."""

    code = "internal"


class UpstreamUnavailable(UpstreamError):  # noqa: N818 - the name that the interface has
    """The broker can't be reached, or didn't answer in time; it may work later."""

    code = "upstream_unavailable"


class PublishRefused(UpstreamError):  # noqa: N818 - likewise
    """The broker doesn't take this message, and won't later."""

    code = "publish_refused"


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
        stable_seconds: a connection that lasted so long starts the delays over.
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


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How it stands with the broker at one moment; times are seconds since 1970.

    Attributes:
        address: the broker, without user and password.
        connected: connected, and every SUBSCRIBE answered.
        connected_since: since when; None while not connected.
        attempts: connections tried since the last one that worked.
        last_error: why it is not connected, or what is wrong although it is; None if all is well.
        protocol: the version spoken, or spoken last; None before the first connection.
        retained_as_published: whether every message says if it is retained (MQTT 5), or only repetitions do (3.1.1).
        session_resumed: whether the broker still had our session: if not, QoS 1 messages may have been missed.
        filters: what was subscribed to, and the QoS granted or, as text, why it was refused.
        subscription: the number of this subscription, which is what `repeat` gives; rises, not always by one.
        last_message_at: when the last message arrived; None before the first.
        received: messages so far, dropped ones included.
        dropped: messages that were not handed on, by reason: `too_large`, `not_wanted`, `duplicate` or `failed`.
        reconnects: connections after the first.
    """

    address: str
    connected: bool = False
    connected_since: float | None = None
    attempts: int = 0
    last_error: str | None = None
    protocol: Literal["5", "3.1.1"] | None = None
    retained_as_published: bool = False
    session_resumed: bool = False
    filters: Mapping[str, int | str] = field(default_factory=dict)
    subscription: int = 0
    last_message_at: float | None = None
    received: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    reconnects: int = 0


OnChange = Callable[[UpstreamState], object]


class _Blame(enum.Enum):
    """Whether the version of MQTT is to blame for a failure."""

    NO = enum.auto()
    PERHAPS = enum.auto()
    LIKELY = enum.auto()
    CERTAINLY = enum.auto()


class _Failure(Exception):  # noqa: N818 - it never leaves this module
    """This connection has come to nothing or to its end.

    Attributes:
        version: whether the broker doesn't speak the version of MQTT that was tried.
        wait_seconds: the least delay before the next attempt.
    """

    def __init__(self, text: str, *, version: _Blame = _Blame.NO, wait_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.version = version
        self.wait_seconds = wait_seconds


class Upstream:
    """The gateway's link to the broker."""

    def __init__(self, config: UpstreamConfig, *, on_message: OnMessage, on_change: OnChange) -> None:
        """Prepares it; `run` does everything.

        Args:
            config: which broker.
            on_message: gets every message as (topic, payload, qos, retained, properties, repeat), in the event loop,
                and must neither block nor await. `repeat` is 0 for what is surely new, else the number of the
                subscription that may be repeating a retained message.
            on_change: gets the state whenever it is another one, other than by counting.
        """
        self._config = config
        self._on_message = on_message
        self._on_change = on_change
        self._state = UpstreamState(config.address)
        self._reported: tuple[object, ...] = ()
        self._link: _Link | None = None
        self._versions = _VersionChoice()
        self._warnings = _Warnings()
        self._publishing = asyncio.Semaphore(MAX_CONCURRENT_PUBLISHES)
        self._received = 0
        self._unwanted = 0
        self._last_message_at: float | None = None
        self._dropped = {"too_large": 0, "not_wanted": 0, "duplicate": 0, "failed": 0}
        self._discard_session = False
        self._has_discarded = False
        self._may_say = True
        self._is_held = False
        self._numbers = itertools.count(1)
        self._short_lives = 0

    @property
    def state(self) -> UpstreamState:
        """How it stands now."""
        link = self._link
        return dataclasses.replace(
            self._state,
            received=self._received + (link.reader.received if link else 0),
            last_message_at=(link.last_message_at if link else None) or self._last_message_at,
            dropped={**self._dropped, "not_wanted": self._dropped["not_wanted"] + self._unwanted_in(link)},
        )

    def _unwanted_in(self, link: _Link | None) -> int:
        return self._unwanted + (link.reader.unwanted if link else 0)

    def _note(self, **changes: Any) -> None:
        """Changes the state and reports it if it says something new."""
        self._state = dataclasses.replace(self._state, **changes)
        state = self._state
        says = (state.connected, state.last_error, state.protocol, dict(state.filters), state.subscription)
        if says == self._reported:
            return
        self._reported = says
        try:
            self._on_change(self.state)
        except Exception:
            logger.exception("reporting the state of the upstream failed")

    def hold(self) -> None:
        """Takes no more messages, and acknowledges none: those at QoS 1 wait on the broker for the next gateway.

        Called before subscribers are sent away: what arrives after that would be acknowledged and seen by nobody.
        """
        self._is_held = True
        if self._link is not None:
            self._link.reader.is_held = True

    # staying connected

    async def run(self) -> None:
        """Connects, stays connected and connects again, until it is cancelled; then leaves the broker in order."""
        config = self._config
        backoff = _Backoff(config.reconnect_min_seconds, config.reconnect_max_seconds)
        try:
            while True:
                began = time.monotonic()
                self._note(attempts=self._state.attempts + 1)
                try:
                    failure = await self._live()
                except _Failure as error:
                    failure = error
                except Exception as error:
                    logger.exception("the link to the broker failed in a way that was not foreseen")
                    failure = _Failure(f"{type(error).__name__}: {error}")
                lasted = time.monotonic() - began if self._state.connected else 0.0
                failure = self._suspect_a_rival(failure, lasted)
                self._note(connected=False, connected_since=None, last_error=str(failure))
                if self._versions.refused(failure.version):
                    continue
                if lasted >= config.stable_seconds:
                    backoff.reset()
                delay = max(backoff.next(), failure.wait_seconds)
                if self._warnings.may_say(str(failure)):
                    what = "lost" if lasted else "not made"
                    text = "connection to the broker %s %s: %s; next attempt in %.1f s"
                    logger.warning(text, config.address, what, failure, delay)
                await asyncio.sleep(delay)
        finally:
            self._note(connected=False, connected_since=None, last_error="the gateway is stopping")

    def _suspect_a_rival(self, failure: _Failure, lasted: float) -> _Failure:
        """A broker that doesn't say who took the session over (3.1.1, older Mosquittos) only closes, over and over."""
        self._short_lives = self._short_lives + 1 if 0 < lasted < SHORT_SECONDS else 0
        if self._short_lives < SUSPICIOUS_LIVES or failure.wait_seconds:
            return failure
        text = f"{failure}, soon after it was made, {self._short_lives} times in a row"
        return _Failure(
            f"{text}: perhaps another client uses the client id {self._config.client_id!r}", wait_seconds=RIVAL_SECONDS
        )

    async def _live(self) -> _Failure:
        """One connection, from its making to its end; returns or raises why it ended."""
        version = self._versions.next(time.monotonic())
        if self._discard_session and version == MQTT_3_1_1:
            # a clean session of 3.1.1 ends with its connection: it takes the old one along
            link = await self._open(version, clean=True)
            await self._close(link)
        number = next(self._numbers)
        link = await self._open(version, clean=self._discard_session and version == MQTT_5, number=number)
        self._discard_session = False
        self._link = link
        try:
            self._versions.worked(version)
            filters = await self._subscribe(link)
            self._report_connected(link, filters)
            await self._say(link, "online")
            return await link.wait_closed()
        finally:
            await self._close(link)
            self._received += link.reader.received
            self._unwanted += link.reader.unwanted
            self._last_message_at = link.last_message_at or self._last_message_at
            self._link = None

    def _report_connected(self, link: _Link, filters: dict[str, int | str]) -> None:
        first = self._state.subscription == 0
        refused = {name: why for name, why in filters.items() if isinstance(why, str)}
        error = "; ".join(f"subscription to {name!r} refused: {why}" for name, why in refused.items()) or None
        self._note(
            connected=True,
            connected_since=time.time(),
            attempts=0,
            last_error=error,
            filters=filters,
            subscription=link.arrivals.number,
            reconnects=self._state.reconnects + (not first),
        )
        self._warnings.forget()
        logger.info(
            "connected to the broker %s as %r, MQTT %s, %s session, subscribed to %s",
            self._config.address,
            self._config.client_id,
            VERSION_NAMES[link.version],
            "resumed" if link.session_present else "new",
            ", ".join(name for name in filters if name not in refused) or "nothing",
        )
        for name, why in refused.items():
            logger.warning("the broker refused the subscription to %r: %s", name, why)

    async def _open(self, version: Version, *, clean: bool, number: int = 0) -> _Link:
        """A link whose CONNACK has arrived.

        Raises:
            _Failure: there is none.
        """
        link = _Link(self._config, version, self._arrivals(version, number), clean=clean, on_connack=self._connack)
        link.reader.is_held = self._is_held
        try:
            await link.connect(self._versions.patience(version, self._config.connect_timeout_seconds))
        except BaseException:
            link.abort()
            raise
        return link

    def _connack(self, link: _Link) -> None:
        """The broker has accepted; from the next packet on, messages may arrive."""
        if link.arrivals.number:
            self._note(
                protocol=VERSION_NAMES[link.version],
                retained_as_published=link.version == MQTT_5,
                session_resumed=link.session_present,
            )

    def _arrivals(self, version: Version, number: int) -> Arrivals:
        return Arrivals(
            self._config.topics,
            version,
            number=number,
            numbers=self._numbers,
            on_message=self._on_message,
            on_drop=self._drop,
            on_stale=self._found_stale_subscription,
        )

    async def _close(self, link: _Link) -> None:
        """Leaves in order if the link still works, and makes sure that it is closed."""
        try:
            if not link.closed.done():
                async with asyncio.timeout(2):
                    await self._say(link, "offline")
                    await link.disconnect()
        except Exception as error:  # noqa: BLE001 - it is closed all the same
            logger.debug("the broker was not left in order: %r", error)
        finally:
            link.abort()

    async def _say(self, link: _Link, status: str) -> None:
        """Publishes our status; that it isn't allowed is no reason to do without a connection."""
        if not self._config.status_topic or not self._may_say or not link.arrivals.number:
            return
        try:
            async with asyncio.timeout(self._config.connect_timeout_seconds):
                await link.publish(self._config.status_topic, status.encode(), 1, True, None)
        except PublishRefused as error:
            # not again: some brokers close the connection over it
            self._may_say = False
            logger.info("the status %r was not published to %r: %s", status, self._config.status_topic, error)
        except (UpstreamUnavailable, TimeoutError):
            logger.debug("the status %r was not acknowledged", status)

    async def _subscribe(self, link: _Link) -> dict[str, int | str]:
        """Subscribes to everything; returns what was granted or refused."""
        arrivals = link.arrivals
        granted: dict[str, int | str] = {}
        # from now on the broker may send retained messages, which must not share a number with those before
        arrivals.number = next(self._numbers)
        arrivals.repeat_until = float("inf")
        wanted = arrivals.subscriptions(link.offers_identifiers)
        link.reader.plain = arrivals.plain_sections
        for topic_filter, identifier in wanted.items():
            granted[topic_filter] = await link.subscribe(topic_filter, identifier)
        arrivals.is_subscribed = True
        arrivals.repeat_until = time.monotonic() + REPEAT_SECONDS
        return granted

    # what happens to single messages

    def _drop(self, reason: str, text: str) -> None:
        self._dropped[reason] += 1
        if reason != "duplicate" and self._warnings.may_say(f"{reason} {text}", kind=reason):
            logger.warning("a message was dropped (%s): %s", reason.replace("_", " "), text)

    def _found_stale_subscription(self, topic: str) -> None:
        """The broker's session has a subscription of an earlier configuration, which no packet can list or remove."""
        link = self._link
        if self._has_discarded or link is None or not link.session_present:
            return
        self._has_discarded = self._discard_session = True
        logger.info(
            "the session %r on the broker has a subscription of an earlier configuration (it sent %r): starting anew",
            self._config.client_id,
            topic[:80],
        )
        link.fail(_Failure("the session on the broker belonged to an earlier configuration"))

    # publishing

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
        timeout_seconds: float = 10,
    ) -> None:
        """Publishes a message and waits until the broker has it (QoS 1 and 2) or it is on its way (QoS 0).

        Args:
            topic: a valid topic name, which nobody checks here.
            payload: up to 268,435,455 bytes.
            qos: 0, 1 or 2.
            retain: whether the broker keeps it.
            properties: MQTT 5 properties.
            timeout_seconds: after this it is given up; a message at QoS 1 or 2 may have arrived all the same.

        Raises:
            UpstreamUnavailable: not connected, the connection was lost, or no acknowledgement came in time.
            PublishRefused: the broker refuses it, or can't take it.
        """
        link = self._link
        if link is None or not self._state.connected:
            why = self._state.last_error
            raise UpstreamUnavailable("not connected to the broker" + (f": {why}" if why else ""))
        try:
            async with asyncio.timeout(timeout_seconds), self._publishing:
                await link.publish(topic, payload, qos, retain, properties)
        except TimeoutError:
            raise UpstreamUnavailable(f"the broker did not acknowledge within {timeout_seconds:g} s") from None


class _Link(asyncio.BufferedProtocol):
    """One connection: asyncio's protocol on one side, on the other what paho takes for its socket.

    paho is driven as its documentation says for foreign event loops (`loop_read`, `loop_write`, `loop_misc`, the
    `on_socket_…` callbacks); the one thing that isn't public is that its socket comes from `_create_socket`, and that
    aiomqtt keeps paho in `_client`. tests/test_broker.py has the contract.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        version: Version,
        arrivals: Arrivals,
        *,
        clean: bool,
        on_connack: Callable[[_Link], None],
    ) -> None:
        self.version = version
        self.arrivals = arrivals
        self.session_present = False
        self.offers_identifiers = False
        self.last_message_at: float | None = None
        self.reader = PacketReader(
            version=version,
            on_message=arrivals.plain,
            on_special=arrivals.special,
            on_packet=self._packet_received,
            on_error=arrivals.failed,
            on_oversize=arrivals.oversize,
            accepts=arrivals.accepts,
            max_message_bytes=config.max_message_bytes,
        )
        self._config = config
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[_Failure] = self._loop.create_future()
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._transport: asyncio.Transport | None = None
        self._on_connack = on_connack
        self._client = self._make_client(clean=clean)
        self._paho = self._adopt(self._client)
        self._ticker: asyncio.TimerHandle | None = None
        self._is_up = False
        self._answered = False
        self._heard_at = self._loop.time()
        self._leaving = False
        # what paho reads: one packet, or the end of the stream
        self._window = b""
        self._at_end = False
        self._outgoing: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._published: dict[int, asyncio.Future[str | None]] = {}
        self._refusals: dict[int, str] = {}
        self._broker_limits: dict[str, int] = {}
        self._in_flight = asyncio.Semaphore(DEFAULT_RECEIVE_MAXIMUM)

    # connecting

    async def connect(self, patience: float) -> None:
        """Opens the connection, sends CONNECT and waits `patience` seconds for CONNACK.

        Raises:
            _Failure: it didn't work; the text says why.
        """
        config = self._config
        limit = config.connect_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await self._loop.create_connection(
                    lambda: self,
                    config.host,
                    config.port,
                    ssl=_tls_context(config) if config.is_tls else None,
                    server_hostname=config.host if config.is_tls else None,
                )
        except TimeoutError:
            raise _Failure(f"no answer from {config.host}:{config.port} within {limit:g} s") from None
        except (OSError, ValueError) as error:
            raise _Failure(_explain(error, config)) from error
        try:
            await self._unless_closed(self._client.__aenter__(), patience)
        except (aiomqtt.MqttError, TimeoutError):
            text = f"the broker accepted the connection but sent no CONNACK within {patience:g} s"
            raise _Failure(text, version=_Blame.LIKELY) from None
        self._is_up = True
        self._heard_at = self._loop.time()
        self._ticker = self._loop.call_later(1, self._tick)

    def _make_client(self, *, clean: bool) -> aiomqtt.Client:
        config = self._config
        user, password = config.credentials
        # in 3.1.1 a session has no expiry: it ends with its connection, or never
        options: dict[str, Any] = {"clean_session": clean or config.session_expiry_seconds == 0}
        if self.version == MQTT_5:
            session = PahoProperties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            session.SessionExpiryInterval = min(int(config.session_expiry_seconds), 0xFFFF_FFFE)
            options = {"clean_start": clean, "properties": session}
        will = None
        if config.status_topic and self.arrivals.number:
            will = aiomqtt.Will(config.status_topic, b"offline", 1, True)
        return aiomqtt.Client(
            config.host,
            config.port,
            username=user,
            password=password,
            identifier=config.client_id,
            protocol=aiomqtt.ProtocolVersion(self.version),
            will=will,
            keepalive=max(1, int(config.keepalive_seconds)),
            timeout=config.connect_timeout_seconds,
            max_inflight_messages=MAX_CONCURRENT_PUBLISHES,
            logger=client_logger,
            **options,
        )

    def _adopt(self, client: aiomqtt.Client) -> paho.Client:
        """Puts this link where paho would open a socket, and listens to what paho tells aiomqtt."""
        mqtt = client._client
        mqtt._create_socket = lambda: self  # type: ignore[method-assign]
        mqtt.on_socket_open = None
        mqtt.on_socket_close = None
        mqtt.on_socket_unregister_write = None
        mqtt.on_socket_register_write = self._wants_to_write
        tell_connected = cast("Callable[..., None]", mqtt.on_connect)
        tell_disconnected = cast("Callable[..., None]", mqtt.on_disconnect)

        def on_connect(client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
            self.session_present = flags.session_present
            self._broker_limits = {
                name: getattr(properties, name)
                for name in ("ReceiveMaximum", "MaximumQoS", "RetainAvailable", "MaximumPacketSize")
                if hasattr(properties, name)
            }
            # absent means available (MQTT 5 §3.2.2.3.12)
            self.offers_identifiers = bool(getattr(properties, "SubscriptionIdentifierAvailable", 1))
            # paho doesn't look at it
            window = self._broker_limits.get("ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM)
            self._in_flight = asyncio.Semaphore(min(window, MAX_CONCURRENT_PUBLISHES))
            if code.is_failure:
                # aiomqtt would keep it for a caller that has gone by then
                self._end(_connack_failure(code, self._config))
                return
            self._on_connack(self)
            tell_connected(client, data, flags, code, properties)

        def on_disconnect(client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
            if flags.is_disconnect_packet_from_server:
                self._end(_disconnect_failure(code, self._config))
            elif code.value:
                self._end(_Failure(_broken(code), version=self._blame))
            if self._is_up:
                # the reason is in `closed`; told as a failure it would wait in aiomqtt for somebody to retrieve it
                normal = ReasonCode(PacketTypes.DISCONNECT, "Normal disconnection")
                tell_disconnected(client, data, flags, normal, properties)

        mqtt.on_connect = on_connect
        mqtt.on_disconnect = on_disconnect
        mqtt.on_publish = self._on_published
        return mqtt

    async def _unless_closed(self, work: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
        """The result of `work`, unless the link is closed or time is up before."""
        task = asyncio.create_task(work, name="upstream: waiting for the broker's answer")
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.wait((task, self.closed), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self.closed.result()
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def subscribe(self, topic_filter: str, identifier: int) -> int | str:
        """Sends SUBSCRIBE and waits; returns the QoS granted, or why it was refused.

        `identifier` is the subscription identifier, 0 for none.
        """
        arguments: dict[str, Any] = {"qos": 1}
        if self.version == MQTT_5:
            options = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=0)
            arguments = {"options": options}
            if identifier:
                properties = PahoProperties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
                properties.SubscriptionIdentifier = identifier
                arguments["properties"] = properties
        limit = self._config.connect_timeout_seconds
        try:
            codes = await self._unless_closed(self._client.subscribe(topic_filter, **arguments), limit + 1)
        except (aiomqtt.MqttError, TimeoutError):
            raise _Failure(f"the broker did not answer the subscription to {topic_filter!r} in {limit:g} s") from None
        code = cast("ReasonCode", codes[0])
        return str(code) if code.is_failure else int(code.value)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, size: int) -> None:
        data = bytes(self._view[:size])
        self._heard_at = self._loop.time()
        reader = self.reader
        before = reader.received
        try:
            if not self._answered and not self._is_answer(data):
                return
            reader.feed(data)
        except PacketError as error:
            self.fail(_Failure(f"what the broker sent is not MQTT: {error}", version=self._blame))
            return
        except Exception as error:  # noqa: BLE001 - whatever paho makes of bad bytes, the link is what has failed
            self.fail(_Failure(f"a packet could not be read: {error!r}", version=self._blame))
            return
        if reader.acknowledgements:
            if self._transport is not None:
                self._transport.write(b"".join(reader.acknowledgements))
            reader.acknowledgements.clear()
        if reader.received != before:
            self.last_message_at = time.time()
        if self._transport is not None and not self._transport.is_closing():
            if size == READ_BYTES:
                # uvloop goes on reading up to 32 times before anyone else has a turn
                self._transport.pause_reading()
                self._loop.call_soon(self._read_on)
            elif reader.received > before + 1:
                if hasattr(socket, "TCP_QUICKACK"):
                    # else the broker's Nagle algorithm waits for our delayed acknowledgement, 40 ms
                    found = self._transport.get_extra_info("socket")
                    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                self._transport.pause_reading()
                self._loop.call_later(READ_PAUSE_SECONDS, self._read_on)

    @property
    def _blame(self) -> _Blame:
        """Before CONNACK a failure may be due to the version: what 3.1.1 answers is malformed in MQTT 5."""
        return _Blame.NO if self._is_up else _Blame.PERHAPS

    def _is_answer(self, data: bytes) -> bool:
        """Whether the first bytes can be a CONNACK; gives the link up if not."""
        self._answered = data[0] == 0x20
        if not self._answered:
            hint = "a TLS alert: mqtts:// instead of mqtt://?" if data[:2] == b"\x15\x03" else repr(data[:20])
            self.fail(_Failure(f"what answers on {self._config.host}:{self._config.port} is no MQTT broker: {hint}"))
        return self._answered

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """The broker says no more; the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None or isinstance(exc, ConnectionError):
            text = "the broker closed the connection" + ("" if self._answered else " before it answered")
            self._end(_Failure(text, version=self._blame))
        else:
            self._end(_Failure(_explain(exc, self._config)))
        self._transport = None
        self._writable.set()
        self._window, self._at_end = b"", True
        if self._ticker is not None:
            self._ticker.cancel()
        self._paho.loop_read()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # paho's side

    def _packet_received(self, packet: bytes) -> None:
        """Lets paho read one packet, which is no PUBLISH at QoS 0 or 1."""
        if packet[0] == 0x50 and len(packet) > 4 and packet[4] >= 0x80:
            # A PUBREC that refuses ends the exchange (MQTT 5 §4.3.3), but paho would ask for more: to it, it is over.
            mid = packet[2:4]
            reason = ReasonCode(PacketTypes.PUBREC, identifier=packet[4])
            self._refusals[int.from_bytes(mid, "big")] = str(reason)
            packet = b"\x70\x02" + mid
        self._window = packet
        self._paho.loop_read()

    def recv(self, size: int) -> bytes:
        """The next bytes of the packet that paho was called to read."""
        if not self._window:
            if self._at_end:
                return b""
            raise BlockingIOError
        taken, self._window = self._window[:size], self._window[size:]
        return taken

    def send(self, data: bytes | bytearray) -> int:
        """Takes everything: the transport has a buffer, and publishers wait for it."""
        self._outgoing.append(bytes(data))
        return len(data)

    def _wants_to_write(self, _client: Any, _data: Any, _socket: Any) -> None:
        """Paho has queued something, for CONNECT in a thread of aiomqtt's."""
        self._loop.call_soon_threadsafe(self._write)

    def _write(self) -> None:
        """Lets paho write what it has; called in the loop whenever paho has queued something."""
        self._paho.loop_write()
        self._flush()

    def _flush(self) -> None:
        if self._outgoing:
            if self._transport is not None:
                self._transport.write(b"".join(self._outgoing))
            self._outgoing.clear()

    def close(self) -> None:
        """Called by paho when it is done with its socket: after DISCONNECT, or because something is wrong."""
        self._flush()
        if self._transport is None:
            return
        if self._leaving:
            self._transport.close()
        else:
            self._transport.abort()

    def fileno(self) -> int:
        """None: asyncio has the socket."""
        return -1

    def setblocking(self, _flag: bool) -> None:
        """Nothing here blocks."""

    def _tick(self) -> None:
        """Keep-alive: paho sends PINGREQ, here a broker is given up that doesn't answer (MQTT 5 §3.1.2.10)."""
        keepalive = self._paho.keepalive
        if keepalive and self._loop.time() - self._heard_at > max(1.5 * keepalive, keepalive + 5):
            self.fail(_Failure(SILENT))
        elif self._paho.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS and not self.closed.done():
            self._ticker = self._loop.call_later(1, self._tick)

    # ending

    def _end(self, failure: _Failure) -> None:
        if self.closed.done():
            return
        self.closed.set_result(failure)
        for waiting in self._published.values():
            if not waiting.done():
                waiting.set_exception(UpstreamUnavailable(f"the connection to the broker was lost: {failure}"))
        self._published.clear()

    def fail(self, failure: _Failure) -> None:
        """Gives the link up for this reason."""
        self._end(failure)
        self.abort()

    def abort(self) -> None:
        """Closes at once; harmless when it is closed."""
        self._end(_Failure("closed by the gateway"))
        if self._ticker is not None:
            self._ticker.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> _Failure:
        """Why the link has closed; a caller that is cancelled leaves `closed` as it is."""
        await asyncio.wait((self.closed,))
        return self.closed.result()

    async def disconnect(self) -> None:
        """Sends DISCONNECT, so that the broker doesn't publish the will."""
        self._leaving = True
        await self._client.__aexit__(None, None, None)
        # the bytes are on their way when the transport has closed
        await self.wait_closed()

    # publishing

    def _on_published(self, _client: Any, _data: Any, mid: int, code: Any, _properties: Any) -> None:
        waiting = self._published.pop(mid, None)
        refusal = self._refusals.pop(mid, None) or (str(code) if code.is_failure else None)
        if waiting is not None and not waiting.done():
            waiting.set_result(refusal)

    async def publish(self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties | None) -> None:
        """See `Upstream.publish`; waits without limit."""
        packed = _paho_properties(properties)
        self._check_limits(topic, payload, qos, retain, packed)
        await self._writable.wait()
        async with self._in_flight if qos else contextlib.nullcontext():
            if self.closed.done():
                raise UpstreamUnavailable("the connection to the broker was lost")
            try:
                info = self._paho.publish(topic, payload, qos, retain, packed)
            except (ValueError, TypeError) as error:
                raise PublishRefused(str(error)) from None
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise UpstreamUnavailable(f"the message was not taken: {paho.error_string(info.rc)}")
            waiting: asyncio.Future[str | None] = self._loop.create_future()
            self._published[info.mid] = waiting
            try:
                refusal = await waiting
            finally:
                if self._published.get(info.mid) is waiting:
                    del self._published[info.mid]
        if refusal is not None:
            raise PublishRefused(f"the broker refused the message to {topic!r}: {refusal}")

    def _check_limits(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: PahoProperties | None
    ) -> None:
        """Refuses what the broker said it can't take: it would close the connection, for everyone."""
        limits = self._broker_limits
        if properties is not None and self.version != MQTT_5:
            raise PublishRefused("the broker speaks MQTT 3.1.1, which has no properties")
        if retain and not limits.get("RetainAvailable", 1):
            raise PublishRefused("the broker keeps no retained messages")
        if qos > limits.get("MaximumQoS", 2):
            raise PublishRefused(f"the broker takes QoS {limits['MaximumQoS']} at most")
        largest = limits.get("MaximumPacketSize", MAX_PACKET_BYTES)
        size = 0 if properties is None else len(properties.pack())  # type: ignore[no-untyped-call]
        # the fixed header, the topic's length and the packet identifier have at most nine bytes
        if len(payload) + len(topic.encode()) + size + 9 > largest:
            raise PublishRefused(f"the broker takes packets of up to {largest} bytes")


class _VersionChoice:
    """Which version of MQTT to try: 5, until a broker shows that it needs 3.1.1, and 5 again from time to time."""

    def __init__(self) -> None:
        self._version: Version = MQTT_5
        self._has_spoken_5 = False
        self._unclear = 0
        self._pinned = False
        self._tried_5_at = float("-inf")

    def next(self, now: float) -> Version:
        """The version for the next attempt; `now` in seconds."""
        if self._version == MQTT_3_1_1 and self._pinned:
            # A broker that said nothing may just have been starting: look again each time that a connection has ended.
            certain = self._unclear < UNCLEAR_FAILURES
            if not certain or now - self._tried_5_at >= RETRY_MQTT_5_SECONDS:
                self._version, self._pinned = MQTT_5, False
        if self._version == MQTT_5:
            self._tried_5_at = now
        return self._version

    def patience(self, version: Version, limit: float) -> float:
        """How many seconds to wait for CONNACK: amqtt waits for more when it doesn't understand MQTT 5."""
        return limit if version == MQTT_3_1_1 or self._has_spoken_5 else min(limit, PROBE_SECONDS)

    def worked(self, version: Version) -> None:
        """A connection of this version was made."""
        self._pinned = version == MQTT_3_1_1
        if version == MQTT_5:
            self._has_spoken_5, self._unclear = True, 0

    def refused(self, blame: _Blame) -> bool:
        """A connection of the version tried last was not made, or has ended; whether to try another one at once."""
        if blame is _Blame.NO:
            return False
        if self._version == MQTT_3_1_1:
            self._version, self._pinned = MQTT_5, False
            return False
        if blame is _Blame.CERTAINLY:
            self._unclear = 0
        else:
            self._unclear += UNCLEAR_FAILURES if blame is _Blame.LIKELY else 1
            # one that spoke MQTT 5 before is only being restarted
            if self._has_spoken_5 or self._unclear < UNCLEAR_FAILURES:
                return False
        self._version = MQTT_3_1_1
        return True


class _Backoff:
    """Delays that double, each with jitter, so that many gateways don't come back at once."""

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._next = least

    def next(self) -> float:
        """The next delay in seconds."""
        delay = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        self._next = min(self._next * 2, self._most)
        return delay

    def reset(self) -> None:
        """Starts over."""
        self._next = self._least


class _Warnings:
    """Says a thing when it is new, and else once a minute."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float]] = {}

    def may_say(self, text: str, kind: str = "") -> bool:
        """Whether to say it now; among one `kind`, other than the default, only time counts."""
        now = time.monotonic()
        last, at = self._said.get(kind, ("", float("-inf")))
        if (kind or last == text) and now - at < REPEATED_WARNING_SECONDS:
            return False
        self._said[kind] = (text, now)
        return True

    def forget(self) -> None:
        """What was said about the connection is news when it happens again."""
        self._said.pop("", None)


def _tls_context(config: UpstreamConfig) -> ssl.SSLContext:
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
    context = await asyncio.to_thread(_tls_context, config) if config.is_tls else None
    return await asyncio.open_connection(config.host, config.port, ssl=context)


def _explain(error: BaseException, config: UpstreamConfig) -> str:
    """Why there is no connection, for people."""
    where = f"{config.host}:{config.port}"
    if isinstance(error, socket.gaierror):
        return f"the name {config.host!r} has no address ({error.strerror})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the broker's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        if "wrong version number" in reason or "record layer" in reason:
            return f"TLS: {where} does not speak TLS: mqtt:// instead of mqtts://?"
        if "certificate" in reason or "handshake failure" in reason:
            return f"TLS: the broker refused our certificate, or wants one: {reason}"
        return f"TLS: {reason}"
    # several addresses, several errors: asyncio joins their texts
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return f"connection refused: nothing listens on {where}"
    if isinstance(error, ConnectionError) and config.is_tls:
        return f"{where} closed the connection during the TLS handshake: mqtt:// instead of mqtts://?"
    if isinstance(error, FileNotFoundError):
        return f"TLS: {error.filename or 'a file'} is not there"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _connack_failure(code: ReasonCode, config: UpstreamConfig) -> _Failure:
    text = str(code)
    if text == "Unsupported protocol version":
        return _Failure(f"the broker refused: {text}", version=_Blame.CERTAINLY)
    if text in ("Bad user name or password", "Not authorized"):
        user, _ = config.credentials
        who = f"user {user!r}" if user is not None else "no user name was given"
        return _Failure(f"the broker refused the login: {text} ({who})", wait_seconds=2.0)
    return _Failure(f"the broker refused: {text}")


def _disconnect_failure(code: ReasonCode | None, config: UpstreamConfig) -> _Failure:
    text = str(code) if code is not None else "no reason given"
    if text == "Session taken over":
        # the other one will come back, too: whoever hurries takes it again
        hint = "give each gateway its own client id"
        text = f"another client took over the client id {config.client_id!r}: {hint}"
        return _Failure(text, wait_seconds=RIVAL_SECONDS)
    return _Failure(f"the broker ended the connection: {text}")


def _broken(code: ReasonCode) -> str:
    if str(code) == "Keep alive timeout":
        return SILENT
    return f"the connection broke: {code}"


def _paho_properties(properties: Properties | None) -> PahoProperties | None:
    """The properties as paho wants them.

    Raises:
        PublishRefused: one can't be encoded.
    """
    if not properties:
        return None
    packed = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    try:
        if "content_type" in properties:
            packed.ContentType = properties["content_type"]
        if "response_topic" in properties:
            packed.ResponseTopic = properties["response_topic"]
        if "correlation_data" in properties:
            packed.CorrelationData = properties["correlation_data"]
        if "message_expiry_interval" in properties:
            packed.MessageExpiryInterval = properties["message_expiry_interval"]
        if properties.get("user_properties"):
            packed.UserProperty = [tuple(pair) for pair in properties["user_properties"]]
        # it would raise when the message is already among those in flight
        packed.pack()  # type: ignore[no-untyped-call]
    except (MQTTException, struct.error, ValueError, TypeError, AttributeError, IndexError) as error:
        raise PublishRefused(f"the properties can't be encoded: {error}") from None
    return packed

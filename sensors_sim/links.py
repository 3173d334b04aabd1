"""Carries a fleet's messages to a broker: many paho clients, one selector loop, one thread that publishes.

One invariant: nothing here blocks but ``turn``, which waits for as long as it is told. paho looks names up, connects
and does the TLS handshake in one blocking call, so threads make that call: a client belongs to such a thread until its
socket is open, and to the loop from then on.

It leaves to others: what is published when (``runner``), and MQTT itself (paho-mqtt). It is long because a link and the
loop that turns all of them share sockets, timers and queues.
"""

import base64
import collections
import concurrent.futures
import contextlib
import heapq
import logging
import random
import selectors
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from sensors_sim.address import BrokerAddress
from sensors_sim.messages import Message

logger = logging.getLogger(__name__)

BUFFERED_MESSAGES = 100
"""Messages a device keeps while it has no connection; the oldest go first, as in the firmware."""

MAX_BACKLOG_MESSAGES = 20_000
"""Messages of one client that the broker has not acknowledged; further ones are dropped and counted."""

MAX_BACKLOG_BYTES = 4 << 20
"""Payloads of one client that the broker does not have yet; further messages are dropped and counted."""

CONNECTING_AT_ONCE = 16
"""Connections that are being opened, each on a thread: a broker's queue of new ones is short."""

CONNECT_SECONDS = 10.0
"""For TCP, for TLS, and from there to CONNACK."""

FILTERS_PER_SUBSCRIBE = 50


class LinkState(Enum):
    """Of one client's connection."""

    CLOSED = "closed"
    """Nobody wants it up."""
    WAITING = "waiting"
    """It waits for its turn to connect."""
    CONNECTING = "connecting"
    """A thread opens its socket."""
    GREETING = "greeting"
    """CONNECT is sent, CONNACK awaited."""
    UP = "up"


class Link:
    """One MQTT client.

    Args:
        client_id: As the broker sees it.
        will: What the broker publishes when the link breaks; None for none.
        commands: Topic filters to subscribe to.
        username_id: What ``{id}`` in the user name stands for.

    Attributes:
        state: Of its connection.
        waiting: Messages for when it is up.
        keeps: Whether messages are kept while it is closed.
    """

    __slots__ = (
        "client", "client_id", "commands", "deadline", "failures", "is_leaving", "keeps", "reason", "said_goodbye",
        "state", "unanswered", "unconfirmed", "unconfirmed_bytes", "username_id", "waiting", "will",
    )  # fmt: skip

    def __init__(self, client_id: str, will: Message | None, commands: list[str], username_id: str) -> None:
        self.client_id = client_id
        self.will = will
        self.commands = commands
        self.username_id = username_id
        self.state = LinkState.CLOSED
        self.waiting: collections.deque[Message] = collections.deque()
        self.keeps = False
        self.client: paho.Client | None = None
        """A new one for each connection: the session is clean, so nothing of the last one counts."""
        self.unconfirmed: collections.deque[tuple[paho.MQTTMessageInfo, Message]] = collections.deque()
        """Messages that are not acknowledged or, at QoS 0, not written yet; oldest first."""
        self.unconfirmed_bytes = 0
        self.unanswered = 0
        """SUBSCRIBEs without a SUBACK."""
        self.failures = 0
        self.deadline = 0.0
        self.reason = ""
        """Why the broker refused it."""
        self.is_leaving = False
        self.said_goodbye = False

    @property
    def backlog(self) -> int:
        """Messages that the broker may not have yet."""
        self.settle()
        return len(self.waiting) + len(self.unconfirmed)

    def settle(self) -> None:
        """Forget what has been confirmed since the last time."""
        unconfirmed = self.unconfirmed
        # Asking is cheaper than paho's on_publish, which makes a ReasonCode and Properties for each message.
        while unconfirmed and unconfirmed[0][0].is_published():
            self.unconfirmed_bytes -= len(unconfirmed.popleft()[1].payload)

    def __repr__(self) -> str:
        return f"<Link {self.client_id} {self.state.value}>"


@dataclass(slots=True)
class Counters:
    """What has happened so far."""

    published: int = 0
    dropped: int = 0
    """Not sent: no connection for too long, or a broker too slow."""
    failures: int = 0
    """Connections that could not be opened, or were lost."""
    connects: int = 0
    last_error: str = ""


class Links:
    """All clients of a fleet on one selector.

    Args:
        address: The broker.
        on_up: Called when a link is connected; it publishes what devices say at birth.
        on_message: Called with topic and payload and the rest of what arrives. While it runs, a link may be opened, cut
            or told to leave, and messages may be published.
        speaks_5: Whether MQTT 5 is spoken, which properties of messages need; else 3.1.1.

    Raises:
        ValueError: The authority's file can't be used.
    """

    def __init__(
        self,
        address: BrokerAddress,
        on_up: Callable[[Link], None] = lambda _link: None,
        on_message: Callable[[paho.MQTTMessage], None] = lambda _message: None,
        *,
        speaks_5: bool = False,
    ) -> None:
        self.address = address
        self._speaks_5 = speaks_5
        self.counters = Counters()
        self._on_up = on_up
        self._on_message = on_message
        self._links: dict[Link, None] = {}
        self._up = 0
        self._selector = selectors.DefaultSelector()
        self._queue: collections.deque[Link] = collections.deque()
        self._opening: dict[Link, None] = {}
        self._connects = 0
        self._connected: collections.deque[tuple[Link, paho.Client, concurrent.futures.Future[MQTTErrorCode]]] = (
            collections.deque()
        )
        self._retry: list[tuple[float, int, Link]] = []
        self._retry_number = 0
        self._to_write: dict[Link, None] = {}
        self._leaving: dict[Link, None] = {}
        self._next_check = 0.0
        self._jitter = random.Random()  # noqa: S311
        self._told: set[str] = set()
        self._is_closing = False
        self._ssl = self._ssl_context()
        self._threads = concurrent.futures.ThreadPoolExecutor(CONNECTING_AT_ONCE, "connecting")
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    @property
    def up(self) -> int:
        """Links that are connected."""
        return self._up

    def open(self, link: Link) -> None:
        """Bring ``link`` up, now and again whenever it breaks."""
        link.is_leaving = False
        self._leaving.pop(link, None)
        if link.state is not LinkState.CLOSED:
            return
        self._links[link] = None
        link.state = LinkState.WAITING
        self._queue.append(link)

    def publish(self, link: Link, message: Message, devices: int = 1) -> bool:
        """Send ``message`` with the next ``turn``, or keep it until the link is up.

        Args:
            link: Over which.
            message: What.
            devices: How many share the link: it keeps as many times more.

        Returns:
            Whether it is on its way; False when it is kept or dropped.

        Raises:
            ValueError: No broker takes such a topic or so long a payload.
        """
        client = link.client
        if link.state is not LinkState.UP or client is None:
            if link.state is LinkState.CLOSED and not link.keeps:
                return False
            if len(link.waiting) >= BUFFERED_MESSAGES * devices:
                link.waiting.popleft()
                self.counters.dropped += 1
            link.waiting.append(message)
            return False
        if len(link.unconfirmed) >= MAX_BACKLOG_MESSAGES or link.unconfirmed_bytes > MAX_BACKLOG_BYTES:
            link.settle()
            if len(link.unconfirmed) >= MAX_BACKLOG_MESSAGES or link.unconfirmed_bytes > MAX_BACKLOG_BYTES:
                self.counters.dropped += 1
                return False
        topic, payload, qos, retain, properties = message
        packed = None if properties is None or not self._speaks_5 else packed_properties(properties)
        link.unconfirmed.append((client.publish(topic, payload, qos, retain, packed), message))
        link.unconfirmed_bytes += len(payload)
        self.counters.published += 1
        return True

    def cut(self, link: Link, *, keeps: bool = False) -> None:
        """Break ``link`` without DISCONNECT, so that the broker publishes its will.

        Args:
            link: Which.
            keeps: Whether the device lives on: what is unsent or unacknowledged then goes out when it is opened again.
        """
        link.keeps = keeps
        self._drop(link, LinkState.CLOSED, abort=True)
        if not keeps:
            link.waiting.clear()

    def leave(self, link: Link) -> None:
        """Disconnect ``link`` in order as soon as the broker has everything; it may not even be up yet."""
        if link.state is not LinkState.CLOSED:
            link.is_leaving = True
            self._leaving[link] = None

    def turn(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for something to do, and do it."""
        self._write_all()
        self._connect_next()
        for key, mask in self._selector.select(max(0.0, timeout)):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            else:
                self._ready(key.data, mask)
        while self._connected:
            self._take_over(*self._connected.popleft())
        now = time.monotonic()
        while self._retry and self._retry[0][0] <= now:
            link = heapq.heappop(self._retry)[2]
            if link.state is LinkState.WAITING and link in self._links:
                self._queue.append(link)
        if now >= self._next_check:
            self._next_check = now + 1.0
            self._check_times(now)
        if self._leaving:
            self._let_leave()
        self._write_all()

    def close(self, farewell: Iterable[tuple[Link, Message]] = (), timeout: float = 5.0) -> None:
        """Publish ``farewell``, wait until the broker has it (at most ``timeout`` seconds), and disconnect cleanly.

        A link that is closed, as that of a sleeping device, is opened for its message; one that the broker does not
        answer is left alone.
        """
        if self._is_closing:
            return
        deadline = time.monotonic() + timeout
        self._retry.clear()
        self._queue.clear()
        woken: dict[Link, None] = {}
        for link, message in farewell:
            if link.state is LinkState.CLOSED and not link.failures:
                self.open(link)
                woken[link] = None
            if link.state is LinkState.UP or link in woken:
                self.publish(link, message)
        for link in woken:
            self.leave(link)
        self._wait_until(lambda: not any(link in self._leaving and not link.failures for link in woken), deadline)
        self._is_closing = True
        self._leaving.clear()
        self._wait_until(lambda: all(not link.backlog for link in self._links if link.state is LinkState.UP), deadline)
        for link in list(self._links):
            self._say_goodbye(link)
        self._wait_until(lambda: not self._up, deadline)
        for link in list(self._links):
            self._drop(link, LinkState.CLOSED)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _wait_until(self, is_done: Callable[[], bool], deadline: float) -> None:
        while not is_done() and time.monotonic() < deadline:
            self.turn(0.02)

    # Opening

    def _ssl_context(self) -> ssl.SSLContext | None:
        if not self.address.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.address.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"CA file {self.address.ca_file}: {error}") from None
        context.sslsocket_class = _TlsSocket
        return context

    def _connect_next(self) -> None:
        while self._queue and self._connects < CONNECTING_AT_ONCE:
            link = self._queue.popleft()
            if link.state is LinkState.WAITING and link in self._links:
                self._connect(link)

    def _connect(self, link: Link) -> None:
        address = self.address
        client = self._new_client(link)
        link.client = client
        link.state = LinkState.CONNECTING
        self._connects += 1

        def is_connected(future: concurrent.futures.Future[MQTTErrorCode]) -> None:
            self._connected.append((link, client, future))
            with contextlib.suppress(OSError):  # full, so it wakes anyway; or closed
                self._waker.send(b"\0")

        opened = self._threads.submit(client.connect, address.host, address.port, address.keepalive)
        opened.add_done_callback(is_connected)

    def _new_client(self, link: Link) -> paho.Client:
        version = paho.MQTTv5 if self._speaks_5 else paho.MQTTv311
        client = paho.Client(
            CallbackAPIVersion.VERSION2, link.client_id, userdata=link, reconnect_on_failure=False, protocol=version
        )
        client.connect_timeout = CONNECT_SECONDS
        # No limit, or each acknowledgement looks through all that wait. MQTT 5 has one of the broker's, often 20.
        client.max_inflight_messages_set(20 if self._speaks_5 else 0)
        if self._ssl is not None:
            client.tls_set_context(self._ssl)
        if link.will is not None:
            client.will_set(*link.will[:4])
        username, password = self.address.username, self.address.password
        if username is not None:
            username = username.replace("{id}", link.username_id)
            client.username_pw_set(username, self.address.passwords.get(username, password))
        client.on_connect = self._greeted
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_message = self._arrived
        client.on_socket_close = self._closes
        client.on_socket_register_write = self._has_to_write
        client.on_socket_unregister_write = self._has_written
        return client

    def _take_over(self, link: Link, client: paho.Client, opened: concurrent.futures.Future[MQTTErrorCode]) -> None:
        self._connects -= 1
        error = opened.exception()
        sock = _socket_of(client)
        if link.client is not client:  # it was cut meanwhile
            if sock is not None:
                sock.close()
        elif error is not None:
            self._failed(link, _reason(error, self.address.host))
        elif sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ, link)
            link.state = LinkState.GREETING
            link.deadline = time.monotonic() + CONNECT_SECONDS
            self._opening[link] = None
            self._to_write[link] = None

    # What paho tells. A client that a link has given up may still tell something: it is not heard.

    def _greeted(self, client: paho.Client, link: Link, _flags: object, code: Any, _properties: object) -> None:
        if link.client is not client:
            return
        if code.is_failure:
            link.reason = f"the broker refuses the connection: {code}"
            return
        self._opening.pop(link, None)
        link.state = LinkState.UP
        link.failures = 0
        link.keeps = False
        self._up += 1
        link.unanswered = 0
        self.counters.connects += 1
        for first in range(0, len(link.commands), FILTERS_PER_SUBSCRIBE):
            link.unanswered += 1
            client.subscribe([(text, 1) for text in link.commands[first : first + FILTERS_PER_SUBSCRIBE]])
        self._on_up(link)
        for _ in range(len(link.waiting)):
            self.publish(link, link.waiting.popleft())

    def _disconnected(self, client: paho.Client, link: Link, _flags: object, code: Any, _properties: object) -> None:
        if link.client is not client:
            return
        if link.said_goodbye or self._is_closing:
            self._drop(link, LinkState.CLOSED)
        elif link.state is LinkState.GREETING and not link.reason and code == "Protocol error":
            self._failed(link, "what answers is no MQTT broker")
        else:
            self._failed(link, link.reason or _LOST.get(str(code), f"the connection was lost: {code}"))

    def _subscribed(self, _client: paho.Client, link: Link, _mid: int, codes: list[Any], _properties: object) -> None:
        link.unanswered -= 1
        refused = sum(1 for code in codes if code.is_failure)
        if refused:
            self._tell(f"the broker refuses {refused} of the subscriptions for commands")

    def _arrived(self, client: paho.Client, link: Link, message: paho.MQTTMessage) -> None:
        # A topic that is not UTF-8 is none of ours.
        with contextlib.suppress(UnicodeDecodeError):
            if link.client is client and message.topic:
                self._on_message(message)

    def _closes(self, client: paho.Client, link: Link, sock: Any) -> None:
        if link.client is client:
            with contextlib.suppress(KeyError, ValueError):  # it may not be registered yet
                self._selector.unregister(sock)

    def _has_to_write(self, client: paho.Client, link: Link, _sock: object) -> None:
        if link.client is client and link.state in (LinkState.GREETING, LinkState.UP):
            self._to_write[link] = None

    def _has_written(self, client: paho.Client, link: Link, sock: Any) -> None:
        if link.client is client and link.state in (LinkState.GREETING, LinkState.UP):
            self._watch(sock, link, selectors.EVENT_READ)

    # Failing and closing

    def _failed(self, link: Link, reason: str) -> None:
        self.counters.failures += 1
        self.counters.last_error = reason
        is_leaving = link.is_leaving
        self._drop(link, LinkState.WAITING, abort=True)
        link.is_leaving = is_leaving
        if is_leaving:
            self._leaving[link] = None
        if self._is_closing:
            return
        self._links[link] = None
        link.failures += 1
        delay = min(15.0, 0.25 * 2 ** min(link.failures, 8)) * self._jitter.uniform(0.5, 1.0)
        self._tell(f"{reason}; trying again")
        logger.info("%s: %s; again in %.1f s", link.client_id, reason, delay)
        self._retry_number += 1
        heapq.heappush(self._retry, (time.monotonic() + delay, self._retry_number, link))

    def _tell(self, reason: str) -> None:
        """Warn once of each kind of trouble: a thousand devices would say the same."""
        if reason not in self._told and len(self._told) < 100:
            self._told.add(reason)
            logger.warning("%s: %s", self.address, reason)

    def _drop(self, link: Link, state: LinkState, *, abort: bool = False) -> None:
        """Give the link's client up; what is not confirmed at QoS 1 and 2 waits for the next one."""
        if link.state is LinkState.UP:
            self._up -= 1
        link.settle()
        # The session is clean, so to the broker they are new messages.
        link.waiting.extendleft(message for _, message in reversed(link.unconfirmed) if message.qos)
        link.unconfirmed.clear()
        link.unconfirmed_bytes = 0
        client, link.client = link.client, None
        is_connecting = link.state is LinkState.CONNECTING
        link.state = state
        link.reason = ""
        link.is_leaving = link.said_goodbye = False
        for links in (self._links, self._opening, self._to_write, self._leaving):
            links.pop(link, None)
        sock = _socket_of(client) if client is not None and not is_connecting else None
        if sock is None:
            return
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        if abort:
            with contextlib.suppress(OSError):
                # A reset instead of an orderly end, as a device that lost power never says goodbye.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def _say_goodbye(self, link: Link) -> None:
        if link.state is LinkState.UP and link.client is not None:
            link.said_goodbye = True
            link.client.disconnect()

    def _let_leave(self) -> None:
        for link in [link for link in self._leaving if link.state is LinkState.UP and not link.backlog]:
            self._leaving.pop(link)
            self._say_goodbye(link)

    def _check_times(self, now: float) -> None:
        for link in [link for link in self._opening if now > link.deadline]:
            self._failed(link, f"no answer within {CONNECT_SECONDS:g} s")
        for link in list(self._links):
            if link.state is LinkState.UP and link.client is not None:
                link.client.loop_misc()

    # Reading and writing

    def _ready(self, link: Link, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._write(link)
        client = link.client
        if mask & selectors.EVENT_READ and client is not None:
            client.loop_read()
            # TLS has read more than it gave, and no selector sees that.
            while link.client is client and isinstance(sock := client.socket(), ssl.SSLSocket) and sock.pending():
                client.loop_read()
            link.settle()

    def _write_all(self) -> None:
        links, self._to_write = self._to_write, {}
        for link in links:
            self._write(link)

    def _write(self, link: Link) -> None:
        client = link.client
        if client is None:
            return
        client.loop_write()
        sock = client.socket()
        if link.client is client and sock is not None and client.want_write():
            self._watch(sock, link, selectors.EVENT_READ | selectors.EVENT_WRITE)
        link.settle()

    def _watch(self, sock: Any, link: Link, events: int) -> None:
        if self._selector.get_key(sock).events != events:
            self._selector.modify(sock, events, link)


_LOST = {
    "Keep alive timeout": "no answer to a ping within the keep-alive time",
    "Unspecified error": "the broker closed the connection",
    "Protocol error": "the broker sent what is not MQTT",
}


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when its handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def packed_properties(properties: Mapping[str, Any]) -> PahoProperties:
    """Properties of a message as paho takes them.

    Raises:
        ValueError: One can't be encoded.
    """
    packed = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    try:
        for name, value in properties.items():
            match name:
                case "correlation_data":
                    packed.CorrelationData = base64.b64decode(value, validate=True)
                case "user_properties":
                    packed.UserProperty = [tuple(pair) for pair in value]
                case _:  # content_type is ContentType
                    setattr(packed, name.title().replace("_", ""), value)
        packed.pack()  # type: ignore[no-untyped-call]
    except (MQTTException, struct.error, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"properties can't be encoded: {error}") from None
    return packed


def _socket_of(client: paho.Client) -> socket.socket | None:
    """The client's socket: paho's own type for it knows less than it has."""
    return cast("socket.socket | None", client.socket())


def _reason(error: BaseException, host: str) -> str:
    """Why a connection could not be opened."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"the broker's certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS: {error.reason or error}"
        case socket.gaierror():
            return f"{host}: {error.strerror or error}"
        case OSError():
            return error.strerror or str(error) or type(error).__name__
        case _:
            return str(error)


def raise_file_limit(wanted: int) -> int:
    """Ask for room for ``wanted`` open files, and return how many there may be."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
    return soft

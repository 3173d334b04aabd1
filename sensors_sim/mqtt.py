"""Carries a fleet's messages to a broker: many paho clients, one selector loop, no thread per client.

One invariant: everything but the opening of connections (which can block) happens on the caller's thread, in ``turn``.
A few threads open connections and hand the finished ones over.

It leaves to others: what is published when (``fleet``).
"""

import collections
import contextlib
import heapq
import logging
import queue
import random
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import cast
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from sensors_sim.messages import Message

logger = logging.getLogger(__name__)

BUFFERED_MESSAGES = 100
"""Messages a device keeps while it has no connection; the oldest go first, as in the firmware."""

MAX_BACKLOG = 20_000
"""Messages of one client that the broker has not acknowledged; further ones are dropped and counted."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker is and how to get in."""

    host: str
    port: int
    tls: bool = False
    ca_file: str | None = None
    """PEM file of the authority to trust; None: the system's."""
    username: str | None = None
    """``{id}`` stands for the device's id."""
    password: str | None = field(default=None, repr=False)
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Password by user name, where each device has its own; wins over ``password``."""
    keepalive: int = 30
    """Seconds."""

    @classmethod
    def parse(cls, url: str, **overrides: object) -> "BrokerAddress":
        """Read ``mqtt://[user[:password]@]host[:port]`` or ``mqtts://…``.

        Raises:
            ValueError: It is no such address.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"broker {url!r}: expected mqtt://host:port or mqtts://host:port")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"broker {url!r}: {error}") from None
        tls = parts.scheme == "mqtts"
        values: dict[str, object] = {
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
        }
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(parts.hostname, port or (8883 if tls else 1883), tls, **values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


class LinkState(Enum):
    """Of one client's connection."""

    DOWN = "down"
    OPENING = "opening"
    """A thread is opening the socket."""
    GREETING = "greeting"
    """CONNECT is sent, CONNACK awaited."""
    UP = "up"
    CLOSED = "closed"
    """Nobody wants it up."""


class Link:
    """One MQTT client.

    Args:
        client_id: As the broker sees it.
        will: What the broker publishes when the link breaks; None for none.
        commands: Topics to subscribe to.
        username_id: What ``{id}`` in the user name stands for.
    """

    def __init__(self, client_id: str, will: Message | None, commands: list[str], username_id: str) -> None:
        self.client_id = client_id
        self.will = will
        self.commands = commands
        self.username_id = username_id
        self.state = LinkState.CLOSED
        self.keeps = False
        """Whether messages are kept while it is closed."""
        self.leaving: list[paho.MQTTMessageInfo] | None = None
        """What must have arrived before it disconnects; None: it stays."""
        self.client: paho.Client | None = None
        self.waiting: collections.deque[Message] = collections.deque()
        self.failures = 0
        self.socket: socket.socket | None = None
        self.resume: paho.Client | None = None
        """The client of a connection that broke: it still holds what the broker has not acknowledged."""

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
        on_message: Called with what arrives.
        connectors: Threads that open connections.
    """

    def __init__(
        self,
        address: BrokerAddress,
        on_up: Callable[[Link], None],
        on_message: Callable[[paho.MQTTMessage], None],
        connectors: int = 8,
    ) -> None:
        self.address = address
        self.counters = Counters()
        self._on_up = on_up
        self._on_message = on_message
        self._links: dict[Link, None] = {}
        self._up = 0
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._to_open: queue.SimpleQueue[Link | None] = queue.SimpleQueue()
        self._opened: collections.deque[tuple[Link, paho.Client, Exception | None]] = collections.deque()
        self._retry: list[tuple[float, int, Link]] = []
        self._retry_number = 0
        self._next_misc = 0.0
        self._wants_write: set[Link] = set()
        self._leaving: set[Link] = set()
        self._ssl = self._ssl_context()
        self._jitter = random.Random()  # noqa: S311
        self._threads_wanted = connectors
        self._threads: list[threading.Thread] = []
        self._closing = False

    @property
    def up(self) -> int:
        """Links that are connected."""
        return self._up

    def _ssl_context(self) -> ssl.SSLContext | None:
        if not self.address.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.address.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"CA file {self.address.ca_file}: {error}") from None

    def open(self, link: Link) -> None:
        """Bring ``link`` up, now and again whenever it breaks."""
        link.leaving = None
        self._leaving.discard(link)
        if link.state is not LinkState.CLOSED:
            return
        self._links[link] = None
        self._start_opening(link)

    def publish(self, link: Link, message: Message, devices: int = 1) -> paho.MQTTMessageInfo | None:
        """Send ``message``, or keep it until the link is up.

        Args:
            link: Over which.
            message: What.
            devices: How many share the link: it keeps as many times more.

        Returns:
            What tells whether the broker has it; None when it is not on its way.
        """
        client = link.client
        if link.state is not LinkState.UP or client is None:
            if link.state is LinkState.CLOSED and not link.keeps:
                return None
            if len(link.waiting) >= BUFFERED_MESSAGES * devices:
                link.waiting.popleft()
                self.counters.dropped += 1
            link.waiting.append(message)
            return None
        info = client.publish(message.topic, message.payload, message.qos, message.retain)
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.counters.published += 1
            if link.leaving is not None:
                link.leaving.append(info)
            return info
        self.counters.dropped += 1
        return None

    def cut(self, link: Link, *, keeps: bool = False) -> None:
        """Break ``link`` without DISCONNECT, so that the broker publishes its will.

        Args:
            link: Which.
            keeps: Whether the device lives on: what is unsent or unacknowledged then goes out when it is opened again.
        """
        self._links.pop(link, None)
        self._leaving.discard(link)
        link.keeps = keeps
        if not keeps:
            link.waiting.clear()
        client = link.client
        self._forget(link, LinkState.CLOSED, abort=True)
        link.resume = client if keeps else None

    def leave(self, link: Link) -> None:
        """Disconnect ``link`` in order as soon as the broker has everything; it may not even be up yet."""
        if link.state is not LinkState.CLOSED:
            link.leaving = []
            self._leaving.add(link)

    def turn(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for something to do, and do it."""
        self._write_all()
        for key, mask in self._selector.select(max(0.0, timeout)):
            link: Link | None = key.data
            if link is None:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
                continue
            client = link.client
            if client is None:
                continue
            if mask & selectors.EVENT_WRITE:
                self._write(link, client)
            if mask & selectors.EVENT_READ and link.client is client:
                client.loop_read()
                # What TLS has already decrypted is invisible to the selector.
                while isinstance(link.socket, ssl.SSLSocket) and link.client is client and link.socket.pending():
                    client.loop_read()
        while self._opened:
            self._take_over(*self._opened.popleft())
        now = time.monotonic()
        while self._retry and self._retry[0][0] <= now:
            link = heapq.heappop(self._retry)[2]
            if link.state is LinkState.DOWN:
                self._start_opening(link)
        if now >= self._next_misc:
            self._next_misc = now + 1.0
            for link in list(self._links):
                if link.client is not None and link.state in (LinkState.UP, LinkState.GREETING):
                    link.client.loop_misc()
        if self._leaving:
            self._let_leave()
        self._write_all()

    def _let_leave(self) -> None:
        for link in [link for link in self._leaving if link.state is LinkState.UP and not link.waiting]:
            client = link.client
            if client is None or not all(info.is_published() for info in link.leaving or ()):
                continue
            self._leaving.discard(link)
            link.leaving = None
            self._links.pop(link, None)
            client.on_disconnect = None
            client.disconnect()
            client.loop_write()  # small enough for any socket's buffer
            self._forget(link, LinkState.CLOSED, abort=False)

    def close(self, farewell: Iterable[tuple[Link, Message]] = (), timeout: float = 5.0) -> None:
        """Publish ``farewell``, wait until the broker has it (at most ``timeout`` seconds), and disconnect cleanly.

        A message of a link that is not up goes over another one.
        """
        deadline = time.monotonic() + timeout
        self._retry.clear()
        self._leaving.clear()
        carrier = next((link for link in self._links if link.state is LinkState.UP), None)
        waiting: list[paho.MQTTMessageInfo] = []
        for link, message in farewell:
            over = link if link.state is LinkState.UP else carrier
            if over is not None and over.client is not None:
                waiting.append(over.client.publish(message.topic, message.payload, message.qos, message.retain))
        while waiting and time.monotonic() < deadline:
            self.turn(0.02)
            waiting = [
                info for info in waiting if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS and not info.is_published()
            ]
        self._closing = True
        for link in self._links:
            if link.state is LinkState.UP and link.client is not None:
                link.client.disconnect()
        while any(link.client is not None and link.client.want_write() for link in self._links):
            if time.monotonic() >= deadline:
                break
            self.turn(0.02)
        for link in self._links:
            self._forget(link, LinkState.CLOSED, abort=False)
        self._links.clear()
        for _ in self._threads:
            self._to_open.put(None)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    # Opening

    def _start_opening(self, link: Link) -> None:
        link.state = LinkState.OPENING
        if len(self._threads) < self._threads_wanted:
            thread = threading.Thread(target=self._connector, name=f"connector-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._to_open.put(link)

    def _connector(self) -> None:
        """Open what is asked for, for ever. Runs on a thread of its own."""
        while (link := self._to_open.get()) is not None:
            if link.state is not LinkState.OPENING:
                continue
            resume, link.resume = link.resume, None
            client = resume or self._new_client(link)
            error: Exception | None = None
            try:
                if resume is None:
                    client.connect(self.address.host, self.address.port, self.address.keepalive)
                else:
                    client.reconnect()
            except (OSError, ValueError) as caught:
                error = caught
            self._opened.append((link, client, error))
            with contextlib.suppress(OSError):
                self._wake_write.send(b"0")

    def _new_client(self, link: Link) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=link.client_id, clean_session=True)
        client.max_inflight_messages_set(MAX_BACKLOG)
        client.max_queued_messages_set(MAX_BACKLOG)
        if link.will is not None:
            client.will_set(link.will.topic, link.will.payload, link.will.qos, link.will.retain)
        if self._ssl is not None:
            client.tls_set_context(self._ssl)
        if self.address.username is not None:
            username = self.address.username.replace("{id}", link.username_id)
            client.username_pw_set(username, self.address.passwords.get(username, self.address.password))
        return client

    def _take_over(self, link: Link, client: paho.Client, error: Exception | None) -> None:
        if link.state is not LinkState.OPENING:  # cut or closed meanwhile
            self._abort(client)
            return
        if error is not None:
            link.resume = client
            self._failed(link, str(error) or type(error).__name__)
            return
        link.client = client
        link.state = LinkState.GREETING
        client.on_connect = lambda _c, _u, _f, reason, _p: self._greeted(link, reason)
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._lost(link, client, reason)
        client.on_message = lambda _c, _u, message: self._on_message(message)
        client.on_socket_register_write = lambda *_: self._wants_write.add(link)
        client.on_socket_close = lambda *_: self._unregister(link)
        link.socket = _socket_of(client)
        if link.socket is not None:
            self._selector.register(link.socket, selectors.EVENT_READ, link)
        self._write(link, client)

    def _greeted(self, link: Link, reason: object) -> None:
        if getattr(reason, "is_failure", False):
            return  # the broker closes the connection, and on_disconnect tells why
        link.state = LinkState.UP
        link.failures = 0
        link.keeps = False
        self._up += 1
        self.counters.connects += 1
        client = link.client
        if client is None:
            return
        for first in range(0, len(link.commands), 50):
            client.subscribe([(topic, 1) for topic in link.commands[first : first + 50]])
        self._on_up(link)
        while link.waiting:
            self.publish(link, link.waiting.popleft())

    def _lost(self, link: Link, client: paho.Client, reason: object) -> None:
        if link.client is client and not self._closing:
            link.resume = client
            self._failed(link, str(reason))

    def _failed(self, link: Link, reason: str) -> None:
        self.counters.failures += 1
        self.counters.last_error = reason
        self._forget(link, LinkState.DOWN, abort=False)
        link.failures += 1
        delay = min(15.0, 0.25 * 2 ** min(link.failures, 8)) * self._jitter.uniform(0.5, 1.0)
        logger.info("%s: %s; again in %.1f s", link.client_id, reason, delay)
        self._retry_number += 1
        heapq.heappush(self._retry, (time.monotonic() + delay, self._retry_number, link))

    def _forget(self, link: Link, state: LinkState, *, abort: bool) -> None:
        if link.state is LinkState.UP:
            self._up -= 1
        link.state = state
        client, link.client = link.client, None
        self._wants_write.discard(link)
        if client is None:
            return
        self._unregister(link)
        client.on_socket_close = client.on_disconnect = client.on_connect = client.on_message = None
        client.on_socket_register_write = None
        if abort:
            self._abort(client)
        else:
            sock = client.socket()
            if sock is not None:
                sock.close()

    def _abort(self, client: paho.Client) -> None:
        sock = _socket_of(client)
        if sock is None:
            return
        with contextlib.suppress(OSError):
            # A reset instead of an orderly end, as a device that lost power never says goodbye.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            sock.close()

    # Writing

    def _write_all(self) -> None:
        wants, self._wants_write = self._wants_write, set()
        for link in wants:
            if link.client is not None:
                self._write(link, link.client)

    def _write(self, link: Link, client: paho.Client) -> None:
        client.loop_write()
        if link.client is client:
            blocked = selectors.EVENT_WRITE if client.want_write() else 0
            self._select(link, selectors.EVENT_READ | blocked)

    def _select(self, link: Link, events: int) -> None:
        if link.socket is not None and self._selector.get_key(link.socket).events != events:
            self._selector.modify(link.socket, events, link)

    def _unregister(self, link: Link) -> None:
        # Called while the socket is still open: paho tells before it closes.
        if link.socket is not None:
            self._selector.unregister(link.socket)
            link.socket = None


def _socket_of(client: paho.Client) -> socket.socket | None:
    # paho's own type also covers sockets under WebSocket, which is not used here.
    return cast("socket.socket | None", client.socket())


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

"""Carries a fleet's messages to a broker: many clients, one selector loop, one thread.

One invariant: nothing here blocks but ``turn``, which waits for as long as it is told; only names are looked up on
another thread, because the system offers no other way.

It leaves to others: what is published when (``runner``), and what the bytes mean (``packets``).
"""

import collections
import concurrent.futures
import contextlib
import heapq
import logging
import os
import random
import selectors
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import unquote, urlsplit

from sensors_sim.messages import Message
from sensors_sim.packets import (
    DISCONNECT,
    PINGREQ,
    REFUSALS,
    Delivery,
    PacketError,
    Session,
    encode_connect,
)

logger = logging.getLogger(__name__)

BUFFERED_MESSAGES = 100
"""Messages a device keeps while it has no connection; the oldest go first, as in the firmware."""

MAX_BACKLOG_MESSAGES = 20_000
"""Messages of one client that the broker has not acknowledged; further ones are dropped and counted."""

MAX_BACKLOG_BYTES = 4 << 20
"""What one client has not written yet; further messages are dropped and counted."""

CONNECTING_AT_ONCE = 64
"""Connections that are being opened: a broker's queue of new ones is short."""

CONNECT_SECONDS = 10.0
"""From the first packet of TCP to CONNACK."""

FILTERS_PER_SUBSCRIBE = 50
READ_BYTES = 65_536
WRITE_BYTES = 65_536


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

        Args:
            url: The address.
            overrides: Attributes that win over what the address says; None says nothing.

        Raises:
            ValueError: It is no such address. The text has no password in it.
        """
        shown = url.rpartition("@")[2]
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"broker {shown!r}: {error}") from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"broker {shown!r}: expected mqtt://host:port or mqtts://host:port")
        tls = parts.scheme == "mqtts"
        values: dict[str, object] = {
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
        }
        values.update({name: value for name, value in overrides.items() if value is not None})
        if values.get("password") and not values.get("username"):
            raise ValueError("a password needs a user name")
        return cls(parts.hostname, port or (8883 if tls else 1883), tls, **values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


class LinkState(Enum):
    """Of one client's connection."""

    CLOSED = "closed"
    """Nobody wants it up."""
    WAITING = "waiting"
    """It waits for its turn to connect."""
    CONNECTING = "connecting"
    """TCP is being opened."""
    SHAKING_HANDS = "shaking hands"
    """TLS is."""
    GREETING = "greeting"
    """CONNECT is sent, CONNACK awaited."""
    UP = "up"


_OPENING = (LinkState.CONNECTING, LinkState.SHAKING_HANDS, LinkState.GREETING)


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
        "client_id", "commands", "deadline", "failures", "heard_at", "is_leaving", "keeps", "pending", "pinged_at",
        "sent_at", "session", "socket", "state", "username_id", "waiting", "will",
    )  # fmt: skip

    def __init__(self, client_id: str, will: Message | None, commands: list[str], username_id: str) -> None:
        self.client_id = client_id
        self.will = will
        self.commands = commands
        self.username_id = username_id
        self.state = LinkState.CLOSED
        self.waiting: collections.deque[Message] = collections.deque()
        self.keeps = False
        self.session: Session | None = None
        self.socket: socket.socket | None = None
        self.pending = b""
        """What the socket has not taken yet."""
        self.failures = 0
        self.deadline = 0.0
        self.sent_at = 0.0
        self.heard_at = 0.0
        self.pinged_at: float | None = None
        self.is_leaving = False

    @property
    def backlog(self) -> int:
        """Messages that the broker may not have yet."""
        session = self.session
        if session is None:
            return len(self.waiting)
        return len(self.waiting) + len(session.unacknowledged) + len(session.out) + bool(self.pending)

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

    Raises:
        ValueError: The authority's file can't be used.
    """

    def __init__(
        self, address: BrokerAddress, on_up: Callable[[Link], None], on_message: Callable[[Delivery], None]
    ) -> None:
        self.address = address
        self.counters = Counters()
        self._on_up = on_up
        self._on_message = on_message
        self._links: dict[Link, None] = {}
        self._up = 0
        self._selector = selectors.DefaultSelector()
        self._queue: collections.deque[Link] = collections.deque()
        self._opening: dict[Link, None] = {}
        self._retry: list[tuple[float, int, Link]] = []
        self._retry_number = 0
        self._to_write: dict[Link, None] = {}
        self._leaving: dict[Link, None] = {}
        self._next_check = 0.0
        self._jitter = random.Random()  # noqa: S311
        self._told: set[str] = set()
        self._is_closing = False
        self._ssl = self._ssl_context()
        self._names = concurrent.futures.ThreadPoolExecutor(1, "names")
        self._lookup: concurrent.futures.Future[list[tuple[int, tuple[object, ...]]]] | None = None
        self._looked_up_at = 0.0

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
        """
        session = link.session
        if link.state is not LinkState.UP or session is None:
            if link.state is LinkState.CLOSED and not link.keeps:
                return False
            if len(link.waiting) >= BUFFERED_MESSAGES * devices:
                link.waiting.popleft()
                self.counters.dropped += 1
            link.waiting.append(message)
            return False
        if (
            len(session.unacknowledged) >= MAX_BACKLOG_MESSAGES
            or session.out_bytes + len(link.pending) > MAX_BACKLOG_BYTES
        ):
            self.counters.dropped += 1
            return False
        session.publish(message)
        self._to_write[link] = None
        self.counters.published += 1
        return True

    def cut(self, link: Link, *, keeps: bool = False) -> None:
        """Break ``link`` without DISCONNECT, so that the broker publishes its will.

        Args:
            link: Which.
            keeps: Whether the device lives on: what is unsent or unacknowledged then goes out when it is opened again.
        """
        link.keeps = keeps
        if keeps:
            self._keep_unacknowledged(link)
        else:
            link.waiting.clear()
        self._drop(link, LinkState.CLOSED, abort=True)

    def leave(self, link: Link) -> None:
        """Disconnect ``link`` in order as soon as the broker has everything; it may not even be up yet."""
        if link.state is not LinkState.CLOSED:
            link.is_leaving = True
            self._leaving[link] = None

    def turn(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for something to do, and do it."""
        self._write_all()
        if self._queue or self._lookup is not None:
            self._connect_next()
            timeout = min(timeout, 0.02) if self._queue else timeout
        for key, mask in self._selector.select(max(0.0, timeout)):
            self._ready(key.data, mask)
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
        for link in self._links:
            if link.state is LinkState.UP and link.session is not None:
                link.session.send(DISCONNECT)
                self._to_write[link] = None
        self._wait_until(lambda: not any(self._has_unwritten(link) for link in self._links), deadline)
        for link in list(self._links):
            self._drop(link, LinkState.CLOSED, abort=False)
        self._selector.close()
        self._names.shutdown(wait=False, cancel_futures=True)

    def _wait_until(self, is_done: Callable[[], bool], deadline: float) -> None:
        while not is_done() and time.monotonic() < deadline:
            self.turn(0.02)

    @staticmethod
    def _has_unwritten(link: Link) -> bool:
        return link.state is LinkState.UP and bool(link.pending or (link.session is not None and link.session.out))

    # Opening

    def _ssl_context(self) -> ssl.SSLContext | None:
        if not self.address.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.address.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"CA file {self.address.ca_file}: {error}") from None

    def _connect_next(self) -> None:
        addresses = self._addresses()
        while addresses and self._queue and len(self._opening) < CONNECTING_AT_ONCE:
            link = self._queue.popleft()
            if link.state is LinkState.WAITING and link in self._links:
                # The next address of the host with each failure in a row.
                self._connect(link, *addresses[link.failures % len(addresses)])

    def _addresses(self) -> list[tuple[int, tuple[object, ...]]]:
        """The host's addresses; empty while they are looked up."""
        now = time.monotonic()
        lookup = self._lookup
        if lookup is None or (lookup.done() and now - self._looked_up_at > 30 and self.counters.failures):
            self._looked_up_at = now
            lookup = self._lookup = self._names.submit(_resolve, self.address.host, self.address.port)
            concurrent.futures.wait([lookup], 0.005)  # a literal or localhost is there at once
        if not lookup.done():
            return []
        error = lookup.exception()
        if error is None:
            return lookup.result()
        self._lookup = None
        while self._queue:
            self._failed(self._queue.popleft(), f"{self.address.host}: {getattr(error, 'strerror', None) or error}")
        return []

    def _connect(self, link: Link, family: int, target: tuple[object, ...]) -> None:
        link.state = LinkState.CONNECTING
        link.deadline = time.monotonic() + CONNECT_SECONDS
        self._opening[link] = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.socket = sock
            with contextlib.suppress(BlockingIOError):
                sock.connect(target)
            self._selector.register(sock, selectors.EVENT_WRITE, link)
        except OSError as error:
            self._failed(link, error.strerror or str(error))

    def _connected(self, link: Link) -> None:
        sock = link.socket
        if sock is None:
            return
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed(link, os.strerror(error))
        elif self._ssl is None:
            self._greet(link)
        else:
            self._selector.unregister(sock)
            link.socket = secure = self._ssl.wrap_socket(
                sock, server_hostname=self.address.host, do_handshake_on_connect=False
            )
            self._selector.register(secure, selectors.EVENT_READ | selectors.EVENT_WRITE, link)
            link.state = LinkState.SHAKING_HANDS
            self._shake_hands(link)

    def _shake_hands(self, link: Link) -> None:
        sock = link.socket
        if not isinstance(sock, ssl.SSLSocket):
            return
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(sock, selectors.EVENT_READ, link)
        except ssl.SSLWantWriteError:
            self._selector.modify(sock, selectors.EVENT_WRITE, link)
        except ssl.SSLCertVerificationError as error:
            self._failed(link, f"the broker's certificate is not trusted: {error.verify_message}")
        except OSError as error:
            self._failed(link, f"TLS: {error.strerror or error}")
        else:
            self._greet(link)

    def _greet(self, link: Link) -> None:
        link.state = LinkState.GREETING
        link.session = session = Session(
            lambda code: self._greeted(link, code),
            self._on_message,
            lambda count: self._tell(f"the broker refuses {count} of the subscriptions for commands"),
        )
        username = self.address.username
        password = self.address.password
        if username is not None:
            username = username.replace("{id}", link.username_id)
            password = self.address.passwords.get(username, password)
        session.send(
            encode_connect(
                link.client_id,
                keepalive=self.address.keepalive,
                will=link.will,
                username=username,
                password=password,
            )
        )
        link.heard_at = time.monotonic()
        if link.socket is not None:
            self._selector.modify(link.socket, selectors.EVENT_READ, link)
        self._to_write[link] = None

    def _greeted(self, link: Link, code: int) -> None:
        session = link.session
        if session is None or link.state is not LinkState.GREETING:
            return
        if code:
            self._failed(link, REFUSALS.get(code, f"the broker refuses the connection with code {code}"))
            return
        self._opening.pop(link, None)
        link.state = LinkState.UP
        link.failures = 0
        link.keeps = False
        self._up += 1
        self.counters.connects += 1
        for first in range(0, len(link.commands), FILTERS_PER_SUBSCRIBE):
            session.subscribe(link.commands[first : first + FILTERS_PER_SUBSCRIBE])
        self._to_write[link] = None
        self._on_up(link)
        for _ in range(len(link.waiting)):
            self.publish(link, link.waiting.popleft())

    # Failing and closing

    def _failed(self, link: Link, reason: str) -> None:
        self.counters.failures += 1
        self.counters.last_error = reason
        self._keep_unacknowledged(link)
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

    def _keep_unacknowledged(self, link: Link) -> None:
        session = link.session
        if session is not None:
            # The session is clean, so to the broker they are new messages.
            link.waiting.extendleft(reversed(session.unacknowledged.values()))

    def _drop(self, link: Link, state: LinkState, *, abort: bool) -> None:
        if link.state is LinkState.UP:
            self._up -= 1
        link.state = state
        link.session = None
        link.pending = b""
        link.pinged_at = None
        link.is_leaving = False
        self._links.pop(link, None)
        self._opening.pop(link, None)
        self._to_write.pop(link, None)
        self._leaving.pop(link, None)
        sock, link.socket = link.socket, None
        if sock is None:
            return
        with contextlib.suppress(KeyError, ValueError):  # it may not be registered yet
            self._selector.unregister(sock)
        if abort:
            with contextlib.suppress(OSError):
                # A reset instead of an orderly end, as a device that lost power never says goodbye.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def _let_leave(self) -> None:
        for link in [link for link in self._leaving if link.state is LinkState.UP and not link.backlog]:
            if link.session is not None:
                link.session.send(DISCONNECT)
                self._write(link)  # two bytes: an empty buffer takes them
            self._drop(link, LinkState.CLOSED, abort=False)

    def _check_times(self, now: float) -> None:
        keepalive = self.address.keepalive
        for link in [link for link in self._opening if now > link.deadline]:
            self._failed(link, f"no answer within {CONNECT_SECONDS:g} s")
        late = []
        for link in self._links:
            if link.state is not LinkState.UP or link.session is None:
                continue
            if link.pinged_at is not None:
                # [MQTT-3.1.2-24] gives the broker one and a half times as long to miss us; we take the same.
                if link.heard_at < link.pinged_at and now - link.pinged_at > 0.5 * keepalive:
                    late.append(link)
                elif link.heard_at >= link.pinged_at:
                    link.pinged_at = None
            elif now - min(link.sent_at, link.heard_at) > 0.75 * keepalive:
                # Asked also when only one direction is silent: at QoS 0 nothing else would show that nobody listens.
                link.pinged_at = now
                link.session.send(PINGREQ)
                self._to_write[link] = None
        for link in late:
            self._failed(link, f"no answer to a ping within {0.5 * keepalive:g} s")

    # Reading and writing

    def _ready(self, link: Link, mask: int) -> None:
        match link.state:
            case LinkState.CONNECTING:
                self._connected(link)
            case LinkState.SHAKING_HANDS:
                self._shake_hands(link)
            case LinkState.GREETING | LinkState.UP:
                if mask & selectors.EVENT_WRITE:
                    self._write(link)
                if mask & selectors.EVENT_READ:
                    self._read(link)
            case _:
                pass

    def _read(self, link: Link) -> None:
        while link.socket is not None and link.session is not None:
            try:
                data = link.socket.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._lost(link, error.strerror or str(error))
                return
            if not data:
                self._lost(link, "the broker closed the connection")
                return
            link.heard_at = time.monotonic()
            try:
                link.session.feed(data)
            except PacketError as error:
                self._failed(link, f"the broker sent {error}")
                return
            self._to_write[link] = None
            # A short read has emptied a plain socket. TLS gives one record at a time, and some that no selector sees.
            if len(data) < READ_BYTES and self._ssl is None:
                return

    def _lost(self, link: Link, reason: str) -> None:
        if self._is_closing:
            self._drop(link, LinkState.CLOSED, abort=False)
        else:
            self._failed(link, reason)

    def _write_all(self) -> None:
        links, self._to_write = self._to_write, {}
        for link in links:
            self._write(link)

    def _write(self, link: Link) -> None:
        session, sock = link.session, link.socket
        if session is None or sock is None:
            return
        while link.pending or session.out:
            if not link.pending:
                link.pending = b"".join(session.out)
                session.out.clear()
                session.out_bytes = 0
            try:
                # In pieces, so that TLS repeats a piece it could not write, and nothing is copied over and over.
                sent = sock.send(memoryview(link.pending)[:WRITE_BYTES])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, link)
                return
            except OSError as error:
                self._lost(link, error.strerror or str(error))
                return
            link.pending = link.pending[sent:]
            link.sent_at = time.monotonic()
        if self._selector.get_key(sock).events & selectors.EVENT_WRITE:
            self._selector.modify(sock, selectors.EVENT_READ, link)


def _resolve(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, target) for family, _, _, _, target in found]


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

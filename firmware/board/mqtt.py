"""An MQTT 3.1.1 client for boards: QoS 0 and 1, the same file on MicroPython and on CPython.

One invariant: no wait of its own is without a time limit, and a message given to `publish` with QoS 1 is sent again, in
order, until the broker acknowledged it or the ring had no room for it any more, which is counted.

One wait is not its own: MicroPython looks names up (`getaddrinfo`) in a call that stops the whole program, sensors
included, until its resolver gives up, many seconds later where no name server answers. An address is not looked up.

Per connection there are two tasks: one only reads, one only writes (so no lock is needed, and every packet is one
write). What runs beside them watches the clock. A connection on which an answer is overdue is given up, because a
black-holed connection never reports an error by itself.

It leaves to others: the network under it (`ready`), what is published, and what a message means. It does not handle
QoS 2 and MQTT 5.

It is long because both tasks, the ring and the watch over them share the state of one connection.

Source of the rules: OASIS, MQTT Version 3.1.1; their identifiers stand beside the code ([MQTT-4.4.0-1]).
"""

import asyncio
import gc
import random
import sys

from .ticks import const, ticks_add, ticks_diff, ticks_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Awaitable, Callable, Coroutine

_CONNECT = const(0x10)
_CONNACK = const(0x20)
_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_SUBSCRIBE = const(0x82)
_SUBACK = const(0x90)
_UNSUBACK = const(0xB0)
_PINGREQ = const(0xC0)
_PINGRESP = const(0xD0)
_DISCONNECT = const(0xE0)

# of getaddrinfo: EAI_NONAME, EAI_AGAIN and EAI_NODATA on a computer; EAI_NONAME and EAI_FAIL of a board's lwIP. mbedTLS
# has negative numbers, too, but gives a text with them.
_NO_ADDRESS = (-2, -3, -5, -200, -202)
_COPIED = const(1024)  # bytes of a payload that go in one write with what stands before them
_GOODBYE_MS = const(2000)  # how long the broker may take to close the connection after DISCONNECT

# MQTT 3.1.1 §3.2.2.3
REFUSALS = {
    1: "the broker does not speak MQTT 3.1.1",
    2: "the broker does not accept this client id",
    3: "the broker is not available",
    4: "wrong user name or password",
    5: "not authorised",
}


class ProtocolError(Exception):
    """The broker said what it must not say, or nothing in time. The text says which."""


class RefusedError(ProtocolError):
    """The broker answered CONNECT with a refusal; `code` is its return code (1 to 5)."""

    def __init__(self, code: int) -> None:
        super().__init__("connection refused: " + REFUSALS.get(code, "code %d" % code))
        self.code = code


class Message:
    """A message on its way out.

    `packet_id` is 0 until it was sent for the first time; `sent_at` is the tick at which the present connection sent
    it, None when it didn't. A payload may be given in parts: a long one may have no room in one piece.
    """

    def __init__(self, topic: str, payload: "bytes | list[bytes]", qos: int = 1, retain: bool = False) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.packet_id = 0
        self.sent_at: "int | None" = None

    def size(self) -> int:
        """Bytes that it keeps busy, about."""
        return len(self.topic) + self.length() + 16

    def parts(self) -> "list[bytes]":
        """Its payload."""
        return self.payload if isinstance(self.payload, list) else [self.payload]

    def whole(self) -> bytes:
        """Its payload in one piece."""
        return b"".join(self.payload) if isinstance(self.payload, list) else self.payload

    def length(self) -> int:
        """Bytes of its payload."""
        return sum([len(part) for part in self.parts()])


class Ring:
    """Messages that wait, oldest first, bounded twice; a full ring drops the oldest and counts it.

    Args:
        max_messages: At least 1.
        max_bytes: Topics and payloads together; a message larger than this is refused, and counted.
    """

    def __init__(self, max_messages: int = 100, max_bytes: int = 16384) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.messages: "list[Message]" = []
        self.bytes = 0
        self.dropped = 0

    def push(self, message: Message) -> bool:
        """Take a message in. False when it alone is larger than the ring."""
        size = message.size()
        if size > self.max_bytes:
            self.dropped += 1
            return False
        while len(self.messages) >= self.max_messages or self.bytes + size > self.max_bytes:
            self.bytes -= self.messages.pop(0).size()
            self.dropped += 1
        self.messages.append(message)
        self.bytes += size
        return True

    def halve(self) -> None:
        """Make room: the older half is dropped, and counted."""
        for _ in range((len(self.messages) + 1) // 2):
            self.bytes -= self.messages.pop(0).size()
            self.dropped += 1

    def remove(self, message: Message) -> None:
        """Forget a message that was delivered."""
        self.messages.remove(message)
        self.bytes -= message.size()


class Backoff:
    """Delays between attempts: they double up to a limit, and half of each is chance, so that a fleet spreads out."""

    def __init__(self, first_seconds: float = 1.0, longest_seconds: float = 60.0) -> None:
        self.first_seconds = first_seconds
        self.longest_seconds = longest_seconds
        self.failures = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = min(self.longest_seconds, self.first_seconds * 2 ** min(self.failures, 16))
        self.failures += 1
        return float(delay * (0.5 + random.random() / 2))

    def reset(self) -> None:
        """The connection has proved itself: begin again with short delays."""
        self.failures = 0


class Client:
    """Keeps one connection to a broker for as long as `run` runs.

    Args:
        host: Name or address of the broker; with TLS also the name that its certificate must carry.
        port: 1883 usually, 8883 with TLS.
        client_id: The broker keeps the session under this name.
        username: None for none.
        password: None for none.
        tls: An `ssl.SSLContext`; None for plain TCP.
        will: What the broker publishes when this client vanishes; its QoS and retain flag count.
        keepalive_seconds: Longest silence towards the broker; a ping is sent after half of it.
        clean_session: False keeps the session: commands sent meanwhile arrive after a reconnect.
        timeout_seconds: Limit for each wait: connecting, writing, and every answer that is due.
        window: QoS 1 messages that may wait for their acknowledgement at the same time.
        ring: What holds the messages that wait.
        backoff: The delays between attempts.
        max_packet_bytes: A larger message from the broker is skipped, not held in memory.
        births: Called after every connect: messages to send ahead of all others, such as the status.
        on_message: Called with topic, payload and retained flag.
        on_progress: Called whenever something is proved: "acknowledged", "pong", "attempt" (one that failed in time);
            and with "memory" when there was none for a connection.
        ready: Awaited before every attempt; False means that there is no network yet.
        log: Takes one line of text.
        warn: Takes a line that tells of trouble; `log` when it isn't given.
    """

    def __init__(
        self,
        host: str,
        port: int = 1883,
        *,
        client_id: str,
        username: "str | None" = None,
        password: "str | None" = None,
        tls: "Any" = None,
        will: "Message | None" = None,
        keepalive_seconds: int = 30,
        clean_session: bool = False,
        timeout_seconds: float = 10,
        window: int = 8,
        ring: "Ring | None" = None,
        backoff: "Backoff | None" = None,
        max_packet_bytes: int = 2048,
        births: "Callable[[], list[Message]] | None" = None,
        on_message: "Callable[[str, bytes, bool], None] | None" = None,
        on_progress: "Callable[[str], None] | None" = None,
        ready: "Callable[[], Awaitable[bool]] | None" = None,
        log: "Callable[[str], None] | None" = None,
        warn: "Callable[[str], None] | None" = None,
    ) -> None:
        self.host = host
        self.port = port
        self.client_id = client_id
        self.username = username
        self.password = password
        self.tls = tls
        self.will = will
        self.keepalive_seconds = keepalive_seconds
        self.clean_session = clean_session
        self.timeout_seconds = timeout_seconds
        self.window = window
        self.ring = ring or Ring()
        self.backoff = backoff or Backoff()
        self.max_packet_bytes = max_packet_bytes
        self.births = births
        self.on_message = on_message
        self.on_progress = on_progress
        self.ready = ready
        self.log = log
        self.warn = warn or log

        self.connected = False
        self.connects = 0
        self.session_present = False  # what the broker said when it accepted the present connection
        self.resumed = False  # whether it is the session of an earlier connection of this client
        self.acknowledged = 0
        self.skipped = 0  # messages from the broker that were larger than max_packet_bytes
        self.last_error: "str | None" = None

        self._subscriptions: "dict[str, int]" = {}
        self._granted: "set[str]" = set()  # filters that the broker took in the session that it holds now
        self._next_packet_id = 1
        self._closing = False
        self._close_by: "int | None" = None  # tick after which DISCONNECT is sent whatever waits
        self._stop = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False
        self._wake = asyncio.Event()  # the writer has something to do
        self._forget_connection()

    def _forget_connection(self) -> None:
        self._birth_messages: "list[Message]" = []
        self._to_subscribe: "list[tuple[str, int]]" = []
        self._subscribing: "dict[int, tuple[str, int]]" = {}  # packet id: filter, tick
        self._acknowledgements: "list[int]" = []  # packet ids that the broker waits for
        self._ping_due = False
        self._pinged_at: "int | None" = None
        self._writing_since: "int | None" = None
        self._said_goodbye = False
        self._left = False
        self._failure: "Exception | None" = None
        self._changed = asyncio.Event()  # the connection's watcher has something to look at
        for message in self.ring.messages:
            message.sent_at = None

    # -- what callers use

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        """Hand a message over; it never waits.

        Returns:
            False when the message alone is larger than the ring.
        """
        taken = self.ring.push(Message(topic, payload, qos, retain))
        self._wake.set()
        return taken

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Subscribe now, and after every reconnect until the broker has taken it in the session that it keeps."""
        self._subscriptions[topic_filter] = qos
        self._granted.discard(topic_filter)
        if self.connected:
            self._to_subscribe.append((topic_filter, qos))
            self._wake.set()

    def announce(self, message: Message) -> None:
        """Send a message ahead of the ring, instead of an older one for the same topic.

        Nothing happens while there is no connection: `births` will say it.
        """
        if self.connected:
            self._birth_messages = [
                m for m in self._birth_messages if m.sent_at is not None or m.topic != message.topic
            ]
            self._birth_messages.append(message)
            self._wake.set()

    def say(self, message: Message) -> bool:
        """Send a message ahead of the ring, after others that were said; it is not kept for another connection.

        Returns:
            False when there is no connection, or when as many wait as may be under way.
        """
        if not self.connected or len(self._birth_messages) >= self.window:
            return False
        self._birth_messages.append(message)
        self._wake.set()
        return True

    def listens(self) -> bool:
        """Whether the broker has answered every subscription of this connection."""
        return self.connected and not self._to_subscribe and not self._subscribing

    def waiting(self) -> int:
        """Messages that were not delivered yet."""
        return len(self.ring.messages) + len(self._birth_messages)

    def ahead(self) -> int:
        """Those of them that go ahead of the ring and will be acknowledged: births, and what was announced."""
        return len([message for message in self._birth_messages if message.qos])

    async def wait_delivered(self, timeout_seconds: float) -> bool:
        """Wait until nothing waits any more; False when the time was too short."""
        started = ticks_ms()
        while self.waiting() or self._acknowledgements or self._subscribing or not self.connected:
            if ticks_diff(ticks_ms(), started) > timeout_seconds * 1000:
                return False
            await asyncio.sleep(0.02)
        return True

    async def close(self, timeout_seconds: float = 5) -> bool:
        """Deliver what waits, send DISCONNECT, so that the will is not published, and end `run`.

        Args:
            timeout_seconds: After this much time DISCONNECT is sent all the same.

        Returns:
            Whether everything was delivered and the broker took the goodbye.
        """
        self._closing = True
        self._close_by = ticks_add(ticks_ms(), int(timeout_seconds * 1000))
        self._stop.set()
        self._wake.set()
        self._changed.set()
        if not self._running:
            return False
        try:
            await asyncio.wait_for(self._ended.wait(), timeout_seconds + 2 * self.timeout_seconds)
        except asyncio.TimeoutError:
            return False
        return self._left and not self.waiting()

    async def run(self) -> None:
        """Connect, serve, and connect again, until `close`; errors end an attempt, never this."""
        self._running = True
        try:
            while not self._closing:
                try:
                    if self.ready is None or await self.ready():
                        await self._connection()
                    else:
                        self.last_error = "no network"
                except Exception as error:  # whatever goes wrong with a connection must not end the sensor
                    if isinstance(error, MemoryError):
                        self._make_room()
                    self.last_error = describe(error)
                    if self.warn and not self._said_goodbye:
                        self.warn("mqtt: " + self.last_error)
                if self._closing:
                    break
                self._progress("attempt")
                try:
                    await asyncio.wait_for(self._stop.wait(), self.backoff.next())
                except asyncio.TimeoutError:
                    pass
        finally:
            self._running = False
            self._ended.set()

    def _make_room(self) -> None:
        """What waits for a connection must not take the memory without which there will be none."""
        self._birth_messages = []
        if self.backoff.failures:  # not the first time: the broker has acknowledged nothing since then
            self.ring.halve()
        self._progress("memory")
        gc.collect()

    # -- one connection

    async def _connection(self) -> None:
        self._forget_connection()
        gc.collect()  # a socket that was given up while connecting is closed by its finaliser
        if self.tls is None:
            opening: "Coroutine[Any, Any, tuple[Any, Any]]" = asyncio.open_connection(self.host, self.port)
        else:
            opening = asyncio.open_connection(self.host, self.port, ssl=self.tls, server_hostname=self.host)
        reader, writer = await self._limited(opening, "connecting")
        try:
            session_present = await self._limited(self._handshake(reader, writer), "CONNACK")
            # MQTT-3.2.2-2. After a restart of the board only the broker knows the session, but not whether it holds
            # the subscriptions of the program that runs now: subscribe at least once.
            self.session_present = session_present
            self.resumed = session_present and self.connects > 0
            self.connects += 1
            if not self.resumed:
                self._granted.clear()
            # a SUBSCRIBE whose SUBACK was lost may never have arrived, although the session did
            self._to_subscribe = [each for each in self._subscriptions.items() if each[0] not in self._granted]
            if not session_present:
                for message in self.ring.messages:
                    message.packet_id = 0  # a new session: nothing of it was sent before
            self._birth_messages = self.births() if self.births else []
            self.connected = True
            self.last_error = None
            if self.log:
                self.log("mqtt: connected to %s:%d%s" % (self.host, self.port, ", resumed" if self.resumed else ""))
            await self._serve(reader, writer)
        finally:
            self.connected = False
            await _close(writer)

    async def _handshake(self, reader: "Any", writer: "Any") -> bool:
        writer.write(
            connect_packet(
                self.client_id,
                self.username,
                self.password,
                self.will,
                self.keepalive_seconds,
                self.clean_session,
            )
        )
        await writer.drain()
        header = await reader.readexactly(2)
        if header[0] != _CONNACK or header[1] != 2:
            raise ProtocolError("expected CONNACK, got packet type 0x%02x" % header[0])
        flags, code = await reader.readexactly(2)
        if code:
            raise RefusedError(code)
        self._sent_at = self._received_at = ticks_ms()
        return bool(flags & 1)

    async def _serve(self, reader: "Any", writer: "Any") -> None:
        tasks = [
            asyncio.create_task(self._guard(self._receive(reader))),
            asyncio.create_task(self._guard(self._send(writer))),
        ]
        tick = max(0.02, min(self.timeout_seconds, self.keepalive_seconds / 2) / 4)
        try:
            while self._failure is None:
                try:
                    await asyncio.wait_for(self._changed.wait(), min(tick, 0.1) if self._closing else tick)
                except asyncio.TimeoutError:
                    pass
                self._changed.clear()
                if self._failure is None:
                    self._check_clock()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._said_goodbye:
            self._left = True  # DISCONNECT makes the broker close the connection [MQTT-3.14.4-2]
        elif self._failure is not None:
            raise self._failure

    async def _guard(self, coroutine: "Coroutine[Any, Any, None]") -> None:
        try:
            await coroutine
        except Exception as error:
            if self._failure is None:
                self._failure = error
            self._changed.set()

    def _check_clock(self) -> None:
        """Raise when an answer is overdue; ask for a ping when it was quiet for too long."""
        now = ticks_ms()
        limit = self.timeout_seconds * 1000
        if self._writing_since is not None and ticks_diff(now, self._writing_since) > limit:
            raise ProtocolError("writing took longer than %g s" % self.timeout_seconds)
        message = self._oldest_unacknowledged()
        if message is not None and message.sent_at is not None and ticks_diff(now, message.sent_at) > limit:
            raise ProtocolError("no PUBACK within %g s" % self.timeout_seconds)
        for topic_filter, since in self._subscribing.values():
            if ticks_diff(now, since) > limit:
                raise ProtocolError("no SUBACK for '%s' within %g s" % (topic_filter, self.timeout_seconds))
        if self._pinged_at is not None:
            if ticks_diff(now, self._pinged_at) > limit:
                raise ProtocolError("no PINGRESP within %g s" % self.timeout_seconds)
        elif not self._ping_due:
            quiet = max(ticks_diff(now, self._sent_at), ticks_diff(now, self._received_at))
            if quiet > self.keepalive_seconds * 500:
                self._ping_due = True
                self._wake.set()
        if self._closing and self._close_by is not None and ticks_diff(now, self._close_by) > 0:
            if ticks_diff(now, self._close_by) > min(limit, _GOODBYE_MS):
                raise ProtocolError("the broker did not take the goodbye")
            self._wake.set()

    def _oldest_unacknowledged(self) -> "Message | None":
        for messages in (self._birth_messages, self.ring.messages):
            if messages and messages[0].sent_at is not None:
                return messages[0]
        return None

    # -- writing

    async def _send(self, writer: "Any") -> None:
        while True:
            pieces = self._next_packet()
            if pieces is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._writing_since = self._sent_at = ticks_ms()
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            self._writing_since = None
            if self._said_goodbye:
                return  # the broker closes the connection, and the reader sees it

    def _next_packet(self) -> "list[bytes] | None":
        """What goes next, in pieces that are to be written one after another."""
        if self._acknowledgements:
            return [_packet(_PUBACK, _u16(self._acknowledgements.pop(0)))]
        if self._ping_due:
            self._ping_due = False
            self._pinged_at = ticks_ms()
            return [_packet(_PINGREQ, b"")]
        if self._to_subscribe:
            topic_filter, qos = self._to_subscribe.pop(0)
            packet_id = self._new_packet_id()
            self._subscribing[packet_id] = (topic_filter, ticks_ms())
            return [subscribe_packet(packet_id, topic_filter, qos)]
        message = self._next_message()
        if message is not None:
            # MQTT-4.4.0-1, MQTT-3.3.1-1: the second sending in one session keeps its id and carries DUP
            again = message.packet_id != 0
            if message.qos and not again:
                message.packet_id = self._new_packet_id()
            message.sent_at = ticks_ms()
            if not message.qos:
                self._forget(message)
            return publish_pieces(message, again)
        if self._closing and not self._said_goodbye:
            overdue = self._close_by is not None and ticks_diff(ticks_ms(), self._close_by) > 0
            if overdue or not (self.waiting() or self._subscribing):
                self._said_goodbye = True
                return [_packet(_DISCONNECT, b"")]
        return None

    def _next_message(self) -> "Message | None":
        """The first message that this connection has not sent, unless the window is full. [MQTT-4.6.0-1]"""
        unacknowledged = 0
        for messages in (self._birth_messages, self.ring.messages):
            for message in messages:
                if unacknowledged >= self.window:
                    return None
                if message.sent_at is None:
                    return message
                unacknowledged += 1
        return None

    def _new_packet_id(self) -> int:
        used = [message.packet_id for message in self._birth_messages + self.ring.messages]
        while True:
            packet_id = self._next_packet_id
            self._next_packet_id = packet_id % 65535 + 1
            if packet_id not in used and packet_id not in self._subscribing:
                return packet_id

    # -- reading

    async def _receive(self, reader: "Any") -> None:
        while True:
            first, length = await self._read_header(reader)
            if length > self.max_packet_bytes:
                await self._skip(reader, first, length)
            else:
                body = await reader.readexactly(length) if length else b""
                self._handle(first, body)
            self._received_at = ticks_ms()

    async def _read_header(self, reader: "Any") -> "tuple[int, int]":
        first = (await reader.readexactly(1))[0]
        length = 0
        for position in range(4):
            byte = (await reader.readexactly(1))[0]
            length |= (byte & 0x7F) << (7 * position)
            if byte < 0x80:
                return first, length
        raise ProtocolError("remaining length has more than four bytes")

    def _handle(self, first: int, body: bytes) -> None:
        kind = first & 0xF0
        if kind == _PUBLISH:
            topic, payload, packet_id = parse_publish(first, body)
            self._deliver(topic, payload, bool(first & 1))
            if packet_id:  # acknowledged when it was handled, not before
                self._acknowledgements.append(packet_id)
                self._wake.set()
        elif kind == _PUBACK:
            self._handle_acknowledgement(_read_u16(body, 0))
        elif kind == _PINGRESP:
            self._pinged_at = None
            self.backoff.reset()
            self._progress("pong")
        elif first == _SUBACK:
            topic_filter, _ = self._subscribing.pop(_read_u16(body, 0), ("", 0))
            if not body[-1] & 0x80:
                self._granted.add(topic_filter)
            elif self.warn:
                self.warn("mqtt: the broker refuses the subscription to '%s'" % topic_filter)
            self._wake.set()
        elif first != _UNSUBACK:
            raise ProtocolError("unexpected packet type 0x%02x" % first)

    def _handle_acknowledgement(self, packet_id: int) -> None:
        for messages in (self._birth_messages, self.ring.messages):
            for message in messages:
                if message.sent_at is None:
                    break
                if message.packet_id == packet_id:
                    self._forget(message)
                    self.acknowledged += 1
                    self.backoff.reset()
                    self._progress("acknowledged")
                    self._wake.set()
                    return
        # otherwise: of a message that the ring has dropped meanwhile

    def _forget(self, message: Message) -> None:
        if message in self._birth_messages:
            self._birth_messages.remove(message)
        else:
            self.ring.remove(message)

    async def _skip(self, reader: "Any", first: int, length: int) -> None:
        """Read past a message that is too large to hold, and acknowledge it: otherwise it would come again."""
        if first & 0xF0 != _PUBLISH:
            raise ProtocolError("a packet of %d bytes is too large" % length)
        self.skipped += 1
        topic_length = _read_u16(await reader.readexactly(2), 0)
        length -= 2
        packet_id = 0
        while length:
            chunk = await reader.readexactly(min(length, topic_length or 256, 256))
            length -= len(chunk)
            if topic_length:
                topic_length -= len(chunk)
                if not topic_length and first & 0x06 and length >= 2:
                    packet_id = _read_u16(await reader.readexactly(2), 0)
                    length -= 2
        if self.warn:
            self.warn("mqtt: skipped a message that is too large")
        if packet_id:
            self._acknowledgements.append(packet_id)
            self._wake.set()

    def _deliver(self, topic: str, payload: bytes, retained: bool) -> None:
        if self.on_message is None:
            return
        try:
            self.on_message(topic, payload, retained)
        except Exception as error:  # a bad message must not cost the connection
            if self.warn:
                self.warn("mqtt: %s: %s" % (topic, describe(error)))

    # -- small things

    def _progress(self, what: str) -> None:
        if self.on_progress:
            self.on_progress(what)

    async def _limited(self, awaitable: "Awaitable[Any]", what: str) -> "Any":
        try:
            return await asyncio.wait_for(awaitable, self.timeout_seconds)
        except asyncio.TimeoutError:
            raise ProtocolError("%s took longer than %g s" % (what, self.timeout_seconds)) from None


def tls_context(authority: bytes) -> "Any":
    """A context that accepts only servers whose certificate carries their name and is signed by `authority`.

    Args:
        authority: The certificate of the authority (CA), PEM or DER.
    """
    if sys.implementation.name == "micropython":
        import tls  # what its ssl module wraps; not every build has the wrapper

        context: "Any" = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_REQUIRED
        context.load_verify_locations(authority)
    else:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.decode() if authority[:5] == b"-----" else authority)
    return context


def parse_url(url: str) -> "tuple[str, int, bool]":
    """Host, port and whether TLS of mqtt://host[:port] or mqtts://host[:port].

    Raises:
        ValueError: It has another form; names and passwords are given apart, not inside it.
    """
    tls = url.startswith("mqtts://")
    if not tls and not url.startswith("mqtt://"):
        raise ValueError("expected a url such as mqtt://192.168.1.10 or mqtts://broker.example:8883")
    rest = url.split("://", 1)[1].rstrip("/")
    if "@" in rest:
        raise ValueError("username and password are settings of their own, not part of the url")
    host, colon, port = rest.rpartition(":") if ":" in rest and not rest.endswith("]") else (rest, "", "")
    host = host.strip("[]")
    if not host or "/" in host:
        raise ValueError("the url has no host")
    if not colon:
        return host, 8883 if tls else 1883, tls
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("a port is a number from 1 to 65535, not '%s'" % port)
    return host, int(port), tls


# -- packets


def connect_packet(
    client_id: str,
    username: "str | None" = None,
    password: "str | None" = None,
    will: "Message | None" = None,
    keepalive_seconds: int = 30,
    clean_session: bool = False,
) -> bytes:
    """CONNECT, MQTT 3.1.1 §3.1."""
    flags = 0x02 if clean_session else 0
    payload = _text(client_id)
    if will is not None:
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        payload += _text(will.topic) + _u16(will.length()) + will.whole()
    if username is not None:
        flags |= 0x80
        payload += _text(username)
        if password is not None:  # MQTT-3.1.2-22: no password without a user name
            flags |= 0x40
            payload += _text(password)
    return _packet(_CONNECT, b"\x00\x04MQTT\x04" + bytes([flags]) + _u16(keepalive_seconds) + payload)


def publish_pieces(message: Message, again: bool = False) -> "list[bytes]":
    """PUBLISH, MQTT 3.1.1 §3.3; `again` sets DUP. A long payload is not copied: it may have no room twice."""
    first = _PUBLISH | message.qos << 1 | message.retain
    head = _text(message.topic)
    if message.qos:
        head += _u16(message.packet_id)
        if again:
            first |= 0x08
    head = _header(first, len(head) + message.length()) + head
    parts = message.parts()
    return [head + parts[0]] if len(parts) == 1 and len(parts[0]) <= _COPIED else [head] + parts


def subscribe_packet(packet_id: int, topic_filter: str, qos: int) -> bytes:
    """SUBSCRIBE to one filter, MQTT 3.1.1 §3.8."""
    return _packet(_SUBSCRIBE, _u16(packet_id) + _text(topic_filter) + bytes([qos]))


def parse_publish(first: int, body: bytes) -> "tuple[str, bytes, int]":
    """Topic, payload and packet id (0 with QoS 0) of a PUBLISH.

    Raises:
        ProtocolError: The packet is cut short, has QoS 2, or its topic is not UTF-8.
    """
    qos = first >> 1 & 3
    end = 2 + _read_u16(body, 0)
    if qos > 1 or end + 2 * qos > len(body):
        raise ProtocolError("malformed PUBLISH")
    try:
        topic = bytes(body[2:end]).decode()
    except ValueError:  # UnicodeError is one
        raise ProtocolError("malformed PUBLISH: the topic is not UTF-8") from None
    if qos:
        return topic, bytes(body[end + 2 :]), _read_u16(body, end)
    return topic, bytes(body[end:]), 0


def _packet(first: int, body: bytes) -> bytes:
    return _header(first, len(body)) + body


def _header(first: int, length: int) -> bytes:
    header = bytearray([first])
    while True:  # MQTT 3.1.1 §2.2.3: seven bits a byte, low ones first
        length, digit = length >> 7, length & 0x7F
        header.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(header)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _u16(len(encoded)) + encoded


def _u16(number: int) -> bytes:
    if not 0 <= number <= 0xFFFF:
        raise ValueError("%d does not fit into 16 bits" % number)
    return bytes([number >> 8, number & 0xFF])


def _read_u16(data: bytes, at: int) -> int:
    if len(data) < at + 2:
        raise ProtocolError("a packet is cut short")
    return data[at] << 8 | data[at + 1]


def describe(error: BaseException) -> str:
    """An error in one line, for logs and for `meta`."""
    text = " ".join(str(error).split())  # mbedTLS explains itself in several lines
    if isinstance(error, EOFError):
        return "the broker closed the connection"
    if isinstance(error, OSError) and error.args and error.args[0] in _NO_ADDRESS and "MBEDTLS" not in text:
        return "no address for this name: is it spelt right, and is its computer on?"
    name = type(error).__name__
    return "%s: %s" % (name, text) if text else name


async def _close(writer: "Any") -> None:
    transport = getattr(writer, "transport", None)
    if transport is not None:
        transport.abort()  # CPython: close() would wait for a peer that may be gone
        return
    try:
        writer.close()
        await writer.wait_closed()
    except OSError:
        pass

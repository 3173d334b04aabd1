"""One connection to the broker: an asyncio protocol that paho takes for its socket.

Invariant: a message goes from the socket to `Arrivals` within one call, in the order of arrival, with nothing awaited
between; PUBLISH packets never meet paho (benchmarks/ingest.py). Connecting again is for `upstream`.

It is long because it is one socket with two sides, asyncio's and paho's, that share every attribute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.core.messages import Properties
from gateway.upstream.acknowledging import PINGREQ, RECEIVE_MAXIMUM, Acknowledgements, Keeper, Unacknowledged
from gateway.upstream.arrivals import Arrivals
from gateway.upstream.config import MQTT_5, UpstreamConfig, Version, tls_context
from gateway.upstream.failures import (
    SILENT,
    Blame,
    Failure,
    connack_failure,
    describe_break,
    describe_failure,
    disconnect_failure,
)
from gateway.upstream.packets import PacketError, PacketReader
from gateway.upstream.state import PublishRefused, UpstreamUnavailable
from gateway.upstream.terms import Form, PublishKey

__all__ = ["MAX_CONCURRENT_PUBLISHES", "UNPROVEN_SECONDS", "Link"]


T = TypeVar("T")
# paho reports every packet, and as errors what is reported here once and better
client_logger = logging.getLogger(f"{__name__}.client")
client_logger.setLevel(logging.CRITICAL)

MAX_PACKET_BYTES = 268_435_455
"""MQTT 5 §2.1.4."""

READ_PAUSE_SECONDS = 0.004
"""Longest wait before the next read while several messages come with one, so that it brings more: waking up costs five
times what a message costs (benchmarks S2, S8)."""

READ_BYTES = 65_536
"""How much is read and handed on before the loop has another turn: some 600 readings of sensors, 3 ms."""

RECEIVE_BYTES = 524_288
"""What the system takes from the broker while we are busy. On loopback, where a segment has 64 KiB, it would take two
by itself, and half of a flood's time would go into waiting for the window to open (benchmark S9)."""

SO_BUF_LOCK = 72
"""socket(7), of which Python has no name: 0 lets the system make a buffer larger whose size was set."""

NO_MATCHING_SUBSCRIBERS = 0x10
"""Reason code of PUBACK (MQTT 5 §3.4.2.1); at QoS 2 Mosquitto looks for subscribers after its PUBREC."""

MAX_CONCURRENT_PUBLISHES = 200
"""Further publishers wait their turn; far below the 65,535 packet identifiers, which paho reuses without looking."""

UNPROVEN_SECONDS = 1.0
"""How long after a message at QoS 0 the end of the connection may be due to it."""

DEFAULT_RECEIVE_MAXIMUM = 20
"""How many messages at QoS 1 and 2 may await acknowledgement where the broker doesn't say; brokers have 10 to 100."""


class Link(asyncio.BufferedProtocol):
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
        exchanges: set[bytes],
        unacknowledged: Unacknowledged,
        keeper: Keeper | None,
        will: Form | None,
        on_connack: Callable[[Link], None],
    ) -> None:
        self.version = version
        self.arrivals = arrivals
        self.session_present = False
        self.will = will
        self.max_qos = 2
        self.retains = True
        self.offers_wildcards = True
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
            exchanges=exchanges,
            unacknowledged=unacknowledged,
        )
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._keeper = keeper
        self._acknowledgements: Acknowledgements | None = None
        if keeper is not None:
            self._acknowledgements = Acknowledgements(
                keeper,
                unacknowledged,
                write=self._acknowledge,
                clock=self._loop.time,
                call_later=self._loop.call_later,
            )
        self.closed: asyncio.Future[Failure] = self._loop.create_future()
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._may_read = False
        self._has_read_on = False
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
        self._unheard: set[int] = set()  # what the broker has, and nobody is subscribed to
        self._max_packet_bytes = MAX_PACKET_BYTES
        self._unproven: Counter[PublishKey] = Counter()
        self._sent: deque[tuple[float, PublishKey]] = deque(maxlen=MAX_CONCURRENT_PUBLISHES)
        self._in_flight = asyncio.Semaphore(DEFAULT_RECEIVE_MAXIMUM)

    # connecting

    async def connect(self, patience: float) -> None:
        """Opens the connection, sends CONNECT and waits `patience` seconds for CONNACK.

        Raises:
            Failure: it didn't work; the text says why.
        """
        config = self._config
        limit = config.connect_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await self._loop.create_connection(
                    lambda: self,
                    config.host,
                    config.port,
                    ssl=tls_context(config) if config.is_tls else None,
                    server_hostname=config.host if config.is_tls else None,
                )
        except TimeoutError:
            raise Failure(f"no answer from {config.host}:{config.port} within {limit:g} s") from None
        except (OSError, ValueError) as error:
            raise Failure(describe_failure(error, config)) from error
        try:
            await self._unless_closed(self._client.__aenter__(), patience)
        except (aiomqtt.MqttError, TimeoutError):
            text = f"the broker accepted the connection but sent no CONNACK within {patience:g} s"
            raise Failure(text, version=Blame.LIKELY) from None
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
            if self._acknowledgements is not None:
                session.ReceiveMaximum = RECEIVE_MAXIMUM
            options = {"clean_start": clean, "properties": session}
        will = None
        if self.will is not None:
            will = aiomqtt.Will(config.status_topic, b"offline", self.will.qos, self.will.retain)
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
            # absent means available (MQTT 5 §3.2.2.3)
            self.max_qos = getattr(properties, "MaximumQoS", 2)
            self.retains = bool(getattr(properties, "RetainAvailable", 1))
            self.offers_wildcards = bool(getattr(properties, "WildcardSubscriptionAvailable", 1))
            self.offers_identifiers = bool(getattr(properties, "SubscriptionIdentifierAvailable", 1))
            self._max_packet_bytes = getattr(properties, "MaximumPacketSize", MAX_PACKET_BYTES)
            # paho doesn't look at it
            window = getattr(properties, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM)
            self._in_flight = asyncio.Semaphore(min(window, MAX_CONCURRENT_PUBLISHES))
            if code.is_failure:
                # aiomqtt would keep it for a caller that has gone by then
                self._end(connack_failure(code.value, self._config, said=_said(properties)))
                return
            self._on_connack(self)
            tell_connected(client, data, flags, code, properties)

        def on_disconnect(client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
            if flags.is_disconnect_packet_from_server:
                reason = None if code is None or not code.is_failure else code.value
                self._end(disconnect_failure(reason, self._config, said=_said(properties)))
            elif code.value:
                self._end(Failure(describe_break(code), version=self._blame))
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

    async def subscribe(self, topic_filter: str, qos: int, identifier: int) -> int | str:
        """Sends SUBSCRIBE and waits; returns the QoS granted, or why it was refused.

        `identifier` is the subscription identifier, 0 for none.
        """
        arguments: dict[str, Any] = {"qos": qos}
        if self.version == MQTT_5:
            options = SubscribeOptions(qos=qos, retainAsPublished=True, retainHandling=0)
            arguments = {"options": options}
            if identifier:
                properties = PahoProperties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
                properties.SubscriptionIdentifier = identifier
                arguments["properties"] = properties
        limit = self._config.connect_timeout_seconds
        try:
            codes = await self._unless_closed(self._client.subscribe(topic_filter, **arguments), limit + 1)
        except (aiomqtt.MqttError, TimeoutError):
            raise Failure(f"the broker did not answer the subscription to {topic_filter!r} in {limit:g} s") from None
        code = cast("ReasonCode", codes[0])
        return str(code) if code.is_failure else int(code.value)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast("asyncio.Transport", transport)
        found = transport.get_extra_info("socket")
        widen(found)
        if hasattr(socket, "TCP_QUICKACK"):
            # uvloop's own makes a socket for each call; this one is detached before the loop closes the file
            self._socket = socket.socket(found.family, found.type, found.proto, fileno=found.fileno())
            self._may_read = transport.get_extra_info("sslcontext") is None  # else what comes is for TLS to read

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the loop reads into."""
        return self._view

    def buffer_updated(self, size: int) -> None:
        """`size` bytes have been read."""
        before = self.reader.received
        pause = self._take_all(size)
        if self._finish(before) and pause is not None:
            self._pause(pause)

    def _take_all(self, size: int) -> float | None:
        """Takes what has been read, and what comes at once; returns how long to read nothing, None: read on."""
        before = self.reader.received
        if not self._take(size):
            return None
        if size == READ_BYTES:
            return 0  # uvloop goes on reading up to 32 times before anyone else has a turn
        rest = 0.0 if self._keeper is None else self._keeper.rest_seconds()
        if not rest and self.reader.received <= before + 1:
            return None
        held = self._read_held()
        if held and not self._take(held):
            return None
        if rest and self._keeper is not None:
            if held:
                rest = self._keeper.rest_seconds(has_all=True)
            elif not self._has_read_on:
                # perhaps it is still on its way, and would wait for the end of a pause
                self._has_read_on = True
                return None
        self._has_read_on = False
        return max(rest, READ_PAUSE_SECONDS) * pause_part(size + held)

    def _take(self, size: int) -> bool:
        """Takes apart what has been read; returns whether it can be."""
        data = bytes(self._view[:size])
        self._heard_at = self._loop.time()
        try:
            if not self._answered and not self._is_answer(data):
                return False
            self.reader.feed(data)
        except PacketError as error:
            self.fail(Failure(f"what the broker sent is not MQTT: {error}", version=self._blame))
            return False
        except Exception as error:  # noqa: BLE001 - whatever paho makes of bad bytes, the link is what has failed
            self.fail(Failure(f"a packet could not be read: {error!r}", version=self._blame))
            return False
        return self._is_open

    @property
    def _is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _finish(self, before: int) -> bool:
        """Sees to the acknowledgements of what has been taken; returns whether the connection goes on."""
        reader = self.reader
        if reader.acknowledgements:
            if self._acknowledgements is not None:
                self._acknowledgements.hold(reader.acknowledgements, reader.sent_again)
            else:
                self._acknowledge(b"".join(reader.acknowledgements))
            reader.acknowledgements.clear()
            reader.sent_again.clear()
        if reader.received != before:
            self.last_message_at = time.time()
        return self._is_open

    def _read_held(self) -> int:
        """Reads what the broker has held back until what came before was acknowledged (Nagle's algorithm); its bytes.

        A small packet that comes during a pause is not acknowledged before it is read, and the broker sends nothing
        behind it meanwhile: it would wait for two pauses.
        """
        if self._socket is None:
            return 0
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if not self._may_read:
            return 0
        try:
            held = os.readv(self._socket.fileno(), [self._view])  # on loopback it is there when the call above returns
        except OSError:  # nothing is; a real error the loop will meet, too
            return 0
        if held:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return held

    def _pause(self, seconds: float) -> None:
        assert self._transport is not None  # noqa: S101 - its caller has asked
        self._transport.pause_reading()
        if seconds:
            self._loop.call_later(seconds, self._read_on)
        else:
            self._loop.call_soon(self._read_on)

    def _acknowledge(self, packets: bytes) -> None:
        if self._transport is not None:
            self._transport.write(packets)

    @property
    def _blame(self) -> Blame:
        """Before CONNACK a failure may be due to the version: what 3.1.1 answers is malformed in MQTT 5."""
        return Blame.NO if self._is_up else Blame.PERHAPS

    def _is_answer(self, data: bytes) -> bool:
        """Whether the first bytes can be a CONNACK; gives the link up if not."""
        self._answered = data[0] == 0x20
        if not self._answered:
            hint = "a TLS alert: mqtts:// instead of mqtt://?" if data[:2] == b"\x15\x03" else repr(data[:20])
            self.fail(Failure(f"what answers on {self._config.host}:{self._config.port} is no MQTT broker: {hint}"))
        return self._answered

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """The broker says no more; the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if exc is None or isinstance(exc, ConnectionError):
            text = "the broker closed the connection" + ("" if self._answered else " before it answered")
            self._end(Failure(text, version=self._blame, is_closed=True))
        else:
            self._end(Failure(describe_failure(exc, self._config)))
        self._transport = None
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
        if self._acknowledgements is not None:
            self._acknowledgements.close()
        self._writable.set()
        self._window, self._at_end = b"", True
        if self._ticker is not None:
            self._ticker.cancel()
        self._paho.loop_read()

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable.set()

    # paho's side

    def _packet_received(self, packet: bytes) -> None:
        """Lets paho read one packet, which is neither PUBLISH nor PUBREL."""
        if packet[0] == 0x50 and len(packet) > 4 and packet[4] >= 0x80:
            # A PUBREC that refuses ends the exchange (MQTT 5 §4.3.3), but paho would ask for more: to it, it is over.
            mid = packet[2:4]
            reason = ReasonCode(PacketTypes.PUBREC, identifier=packet[4])
            self._refusals[int.from_bytes(mid, "big")] = str(reason)
            packet = b"\x70\x02" + mid
        elif packet[0] == 0xD0:
            ended = self.reader.end_earlier()
            if self._acknowledgements is not None:
                self._acknowledgements.answered(ended)
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
        if data == PINGREQ and self._acknowledgements is not None:
            self._flush()
            self._acknowledgements.pinged()
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
            self.fail(Failure(SILENT))
        elif self._paho.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS and not self.closed.done():
            self._ticker = self._loop.call_later(1, self._tick)

    # ending

    def _end(self, failure: Failure) -> None:
        if self.closed.done():
            return
        self.closed.set_result(failure)
        for waiting in self._published.values():
            if not waiting.done():
                waiting.set_exception(UpstreamUnavailable(f"the connection to the broker was lost: {failure}"))
        self._published.clear()

    def fail(self, failure: Failure) -> None:
        """Gives the link up for this reason."""
        self._end(failure)
        self.abort()

    def abort(self) -> None:
        """Closes at once; harmless when it is closed."""
        self._end(Failure("closed by the gateway"))
        if self._ticker is not None:
            self._ticker.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> Failure:
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
        if code.value == NO_MATCHING_SUBSCRIBERS:
            self._unheard.add(mid)
        if waiting is not None and not waiting.done():
            waiting.set_result(refusal)
        else:
            self._unheard.discard(mid)

    async def publish(self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties | None) -> bool:
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
            key = (topic, qos, retain)
            self._unproven[key] += 1
            try:
                refusal = await waiting
                is_heard = info.mid not in self._unheard
                self._unheard.discard(info.mid)
                if not qos:
                    self._sent.append((self._loop.time(), key))
            finally:
                if not self.closed.done():
                    self._unproven[key] -= 1
                    if not self._unproven[key]:
                        del self._unproven[key]
                if self._published.get(info.mid) is waiting:
                    del self._published[info.mid]
        if refusal is not None:
            raise PublishRefused(f"the broker refused the message to {topic!r}: {refusal}")
        return is_heard

    def under_way(self) -> set[PublishKey]:
        """What was published and not acknowledged; at QoS 0, what was sent in the last second of the connection."""
        since = self._loop.time() - UNPROVEN_SECONDS
        return set(self._unproven) | {key for at, key in self._sent if at > since}

    def _check_limits(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: PahoProperties | None
    ) -> None:
        """Refuses what the broker said it can't take: it would close the connection, for everyone."""
        if properties is not None and self.version != MQTT_5:
            raise PublishRefused("the broker speaks MQTT 3.1.1, which has no properties")
        if retain and not self.retains:
            raise PublishRefused("the broker keeps no retained messages")
        if qos > self.max_qos:
            raise PublishRefused(f"the broker takes QoS {self.max_qos} at most")
        size = 0 if properties is None else len(properties.pack())  # type: ignore[no-untyped-call]
        # the fixed header, the topic's length and the packet identifier have at most nine bytes
        if len(payload) + len(topic.encode()) + size + 9 > self._max_packet_bytes:
            raise PublishRefused(f"the broker takes packets of up to {self._max_packet_bytes} bytes")


def pause_part(size: int) -> float:
    """What to wait of a pause after so many bytes: less the more came, lest the broker wait for room to write."""
    return max(1 - size / READ_BYTES, 0)


def widen(found: socket.socket) -> None:
    """Lets the system take `RECEIVE_BYTES` from the broker while we are busy, and more as it sees fit."""
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # before 5.14
            found.setsockopt(socket.SOL_SOCKET, SO_BUF_LOCK, 0)


def _said(properties: PahoProperties | None) -> str | None:
    """What the broker added for people, or as its new address (MQTT 5 §3.2.2.3.9, §3.2.2.3.16)."""
    found = (getattr(properties, name, None) for name in ("ReasonString", "ServerReference"))
    return ", ".join(text for text in found if text) or None


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

"""One WebSocket connection: its subscriber, its commands, its answers, its token.

Invariant: a command gets exactly one answer, in the order of the commands (a publish answers when the broker has); a
bad one gets an `error` event and the connection lives. What is said is `protocol`'s, who may is `access`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from gateway.access.budget import Budget, TokenBucket
from gateway.access.grants import (
    AccessError,
    Owner,
    Principal,
    check_publication,
    may_subscribe,
    require_subscribe,
)
from gateway.access.limits import Client, LimitError
from gateway.core.conditions import ShapeError
from gateway.core.frames import frame_text
from gateway.core.jobs import Subscription
from gateway.core.messages import encode_json
from gateway.core.protocol import (
    Authenticate,
    CloseCode,
    Ping,
    ProtocolError,
    Publish,
    Subscribe,
    Unsubscribe,
    command_id,
    encode_event,
    error_event,
    parse_command,
)
from gateway.core.shapes import Format, Shape, shape_from
from gateway.core.since import BEHIND, parse_since
from gateway.core.subscribers import Sink, Subscriber
from gateway.core.topics import TopicError
from gateway.door.expiry import Expiry
from gateway.door.refusals import Refusal
from gateway.runtime import Gateway
from gateway.transport.websockets import SocketSink

__all__ = ["MAX_WAITING", "Session"]

logger = logging.getLogger(__name__)


MAX_PUBLISHES_UNDER_WAY = 64
MAX_BYTES_UNDER_WAY = 1024 * 1024
"""With so many messages or bytes on their way to the broker, a connection's commands wait in its socket."""

FLOOD_FACTOR = 10
"""Seconds' worth of refused commands in a row after which the connection is closed."""

MAX_WAITING = 100
"""Commands that may come while a token is judged, where the server can't be told to stop reading."""


class Session:
    """One WebSocket connection: its subscriber, its commands, its events."""

    __slots__ = (
        "_bucket",
        "_expiry",
        "_flood",
        "_gateway",
        "_is_raw",
        "_is_reading",
        "_is_stream",
        "_opened_at",
        "_outbox",
        "_publish_bucket",
        "_publishing",
        "_publishing_bytes",
        "_sink",
        "_wait_timer",
        "_waiting",
        "address",
        "is_refused",
        "label",
        "payer",
        "principal",
        "subscriber",
    )

    def __init__(self, gateway: Gateway, shape: Shape, principal: Principal, label: str) -> None:
        self._gateway = gateway
        self._is_raw = shape.format is not Format.JSON
        self._is_stream = shape.format is Format.STREAM
        self._sink: Sink | None = None
        self._bucket: TokenBucket | None = None
        self._publish_bucket: TokenBucket | None = None
        self._publishing = 0
        self._publishing_bytes = 0
        self._outbox: Budget | None = None
        self._is_reading = True
        self._expiry: Expiry | None = None
        self._wait_timer: asyncio.TimerHandle | None = None
        self._flood = 0
        self._waiting: list[str | bytes] | None = None
        self._opened_at = gateway.clock()
        self.address: str | None = None
        self.payer: Client = None
        self.is_refused = False
        self.principal = principal
        self.label = label
        self.subscriber: Subscriber

    def open(self, sink: Sink, shape: Shape) -> None:
        """Becomes a subscriber on this sink."""
        self._sink = sink
        tell = None if self._is_raw else self._tell
        self.subscriber = self._gateway.hub.add(
            sink,
            shape=shape,
            tell=tell,
            label=self.label,
            owner=Owner(self.principal, self.address),
            payer=self._gateway.guard.accounts.payer(self.payer),
        )
        self._allow_messages()
        self._watch_expiry()

    def tell_upstream(self) -> None:
        """Says so where the broker isn't there now, or what arrives is not kept."""
        if not self._is_raw and not self._gateway.is_connected:
            self._write(encode_event("upstream", connected=False, **self._gateway.upstream_trouble))
        if not self._is_raw and (trouble := self._gateway.archive_trouble) is not None:
            self._write(encode_event("archive", kept=False, reason=str(trouble.trouble)))

    def start(self, filters: list[str], since: str | None) -> None:
        """Subscribes to what the address names.

        Raises:
            ProtocolError, TopicError, AccessError: it can't be had.
        """
        began = time.thread_time()
        try:
            self._subscribe(filters, since, None, is_told=not self._is_raw)
        finally:
            self._gateway.guard.accounts.spend(self.payer, time.thread_time() - began)

    # the transport's side

    def receive(self, data: str | bytes) -> None:
        """Follows one command and answers it."""
        if self._is_stream:
            self._close(CloseCode.BAD_REQUEST, "a stream takes no commands; /ws does")
            return
        if self._waiting is not None:
            if len(self._waiting) >= MAX_WAITING:
                self._close(CloseCode.FLOOD, f"more than {MAX_WAITING} commands behind one that takes time")
                return
            self._waiting.append(data)
            return
        answer_id: int | str | None = None
        try:
            self._check_rate(data)
            if isinstance(data, bytes):
                text = "command: must be a text frame, this one is binary"
                raise ProtocolError("bad_command", text, command_id(data))
            command = parse_command(data, self._gateway.limits.short_command_bytes)
            answer_id = command.id
            match command:
                case Subscribe():
                    shape = command.shape_parameters()
                    chosen = shape_from(shape, self.subscriber.shape) if shape else None
                    self._subscribe(command.topics, command.since, chosen, command.id)
                case Unsubscribe():
                    gone = self._gateway.hub.unsubscribe(self.subscriber, command.topics)
                    self._write(encode_event("unsubscribed", id=command.id, topics=gone))
                case Publish():
                    self._publish(command)
                case Authenticate():
                    self._authenticate(command)
                case Ping():
                    # who may read nothing would count and time by it what is hidden
                    may_know = bool(self.principal.subscribe)
                    position = self._gateway.hub.position_of(self.subscriber) if may_know else None
                    self._write(
                        encode_event("pong", id=command.id, time=self._gateway.wall_clock_ms(), position=position)
                    )
        except ProtocolError as error:
            error.id = error.id if error.id is not None else answer_id
            if error.reason == BEHIND:
                # another node has it, and this one soon: no mistake of who asked
                self._note(BEHIND, str(error), "a command")
                self._close(CloseCode.RESTART, str(error))
            else:
                self._refuse(error)
        except LimitError as error:
            self._refuse(ProtocolError("limit", str(error), answer_id, reason=error.limit))
        except AccessError as error:
            reason = self._gateway.guard.refused(self.principal, error).reason
            self._refuse(ProtocolError(error.code, str(error), answer_id, reason=reason))
        except (TopicError, ShapeError) as error:
            self._refuse(ProtocolError(error.code, str(error), answer_id))

    def socket_full(self) -> None:
        """The hub stops writing; the transport takes no commands, whose answers would need room, too."""
        self._gateway.hub.pause(self.subscriber)

    def socket_drained(self) -> None:
        """The hub goes on."""
        self._gateway.hub.resume(self.subscriber)

    def disconnected(self) -> None:
        """The connection is gone or going: nothing is delivered to it any more."""
        self._sink = None
        self._gateway.hub.silence(self.subscriber)

    def end(self) -> None:
        """Leaves the hub, and says what it was given."""
        gateway = self._gateway
        delivered, skipped, lost = gateway.hub.counts(self.subscriber)
        gateway.hub.remove(self.subscriber)
        self._stop_timers()
        if self.is_refused:
            return  # that was told, with its reason
        # connections that come and go all the time are no reason to fill a disk
        level = logging.INFO if gateway.closings.take(gateway.clock()) else logging.DEBUG
        logger.log(
            level,
            "%s: closed after %.1f s, %d messages delivered, %d skipped, %d lost",
            self.label,
            gateway.clock() - self._opened_at,
            delivered,
            skipped,
            lost,
            extra={"connection": self._connection, "subject": self.principal.subject},
        )

    # commands

    def _check_rate(self, data: str | bytes) -> None:
        limits = self._gateway.limits
        now = self._gateway.clock()
        if self._bucket is None:
            self._bucket = TokenBucket(limits.commands_per_second, limits.commands_per_second * 2)
        if self._bucket.take(now):
            self._flood = 0
        else:
            self._flood += 1
            if self._flood > FLOOD_FACTOR * limits.commands_per_second:
                self._close(CloseCode.FLOOD, f"more than {limits.commands_per_second} commands a second")
            text = f"limit: at most {limits.commands_per_second} commands a second"
            raise ProtocolError("limit", text, command_id(data), reason="commands_per_second")

    def _subscribe(
        self,
        topics: list[str],
        since: str | None,
        shape: Shape | None,
        id_: int | str | None = None,
        *,
        is_told: bool = True,
    ) -> None:
        filters = self._gateway.limits.check_filters(topics, self.subscriber.filters)
        require_subscribe(self.principal, filters)
        tell_id = None if self._is_raw else id_
        found = self._gateway.hub.subscribe(
            self.subscriber, filters, parse_since(since), shape=shape, replay_id=tell_id
        )

        def tell(answer: Subscription) -> None:
            if is_told:
                members: dict[str, Any] = {"topics": filters, "position": answer.position}
                members |= {"recovered": answer.recovered, "from": answer.after}
                if self._gateway.node is not None:
                    members["node"] = self._gateway.node
                self._write(encode_event("subscribed", id=id_, **members))
                if tell_id is not None and not answer.is_replaying:
                    self._write(encode_event("replayed", id=tell_id))
            self._stop_waiting()

        if found.recovered is None:
            self._waiting = []  # what follows is answered behind this
            self._update_reading()
        found.when_known(tell)

    def _publish(self, command: Publish) -> None:
        limits = self._gateway.limits
        properties = command.properties.to_properties() if command.properties else None
        check_publication(self.principal, command.topic, properties)
        payload = command.payload_bytes()
        if len(payload) > limits.payload_bytes:
            text = f"payload: has {len(payload)} bytes, at most {limits.payload_bytes} are allowed"
            raise ProtocolError("bad_payload", text, reason="payload_bytes")
        if self._publish_bucket is None:
            rate = limits.publishes_per_second
            self._publish_bucket = TokenBucket(rate, rate * 2)
        if not self._publish_bucket.take(self._gateway.clock()):
            text = f"limit: at most {limits.publishes_per_second} messages a second"
            raise ProtocolError("limit", text, reason="publishes_per_second")
        if self._outbox is None:
            self._outbox = Budget(self._gateway.guard.accounts, self.payer)
        if not self._outbox.hold(self._publishing_bytes + len(payload)):
            text = "limit: too much of this address waits for the broker"
            raise ProtocolError("limit", text, reason="unfinished_bytes")
        self._gateway.guard.accounts.relay(self.payer, len(payload))
        self._publishing += 1
        self._publishing_bytes += len(payload)
        self._update_reading()
        self._gateway.spawn(self._finish_publish(command, payload, properties), f"publish for {self.label}")

    async def _finish_publish(self, command: Publish, payload: bytes, properties: Any) -> None:
        try:
            await self._gateway.publish(
                command.topic, payload, qos=command.qos, retain=command.retain, properties=properties
            )
            self._write(encode_event("published", id=command.id, topic=command.topic))
        except ProtocolError as error:
            error.id = command.id
            self._refuse(error)
        finally:
            self._publishing -= 1
            self._publishing_bytes -= len(payload)
            assert self._outbox is not None  # noqa: S101 - it holds this payload
            self._outbox.hold(self._publishing_bytes)
            self._update_reading()

    def _update_reading(self) -> None:
        """Takes commands unless a token is being judged, or too much is being published."""
        is_enough = self._publishing >= MAX_PUBLISHES_UNDER_WAY or self._publishing_bytes >= MAX_BYTES_UNDER_WAY
        wanted = self._waiting is None and not is_enough
        if wanted != self._is_reading and isinstance(self._sink, SocketSink):
            self._is_reading = wanted
            (self._sink.resume_reading if wanted else self._sink.pause_reading)()

    # tokens

    def _authenticate(self, command: Authenticate) -> None:
        if self._gateway.guard.verifier is None:
            # nobody has to be somebody here: a page with a token works on a laptop, too
            self._write(encode_event("authenticated", id=command.id))
            return
        # what follows may need the new grants, so it waits
        self._waiting = []
        self._update_reading()
        self._gateway.spawn(self._finish_authenticate(command), f"token of {self.label}")

    async def _finish_authenticate(self, command: Authenticate) -> None:
        guard = self._gateway.guard
        try:
            principal = guard.renewed(self.principal, await guard.authenticate(command.token, self.payer))
            self._become(principal)
            expires = None if principal.expires_at is None else int(principal.expires_at * 1000)
            self._write(encode_event("authenticated", id=command.id, subject=principal.subject, expires=expires))
        except Refusal as error:
            self._refuse(ProtocolError(error.code, str(error), command.id, reason=error.reason))
        finally:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        """Follows the commands that had to wait."""
        if self._waiting is None:
            return
        waiting, self._waiting = self._waiting, None
        for data in waiting:
            if self._sink is not None:
                self.receive(data)
        self._update_reading()

    def _become(self, principal: Principal) -> None:
        """Goes on as this principal; filters that it may not have are taken away."""
        self.principal = principal
        if self._sink is None:
            return
        self.subscriber.owner = Owner(principal, self.address)
        if principal.subject is not None:
            self.label = " ".join((*self.label.split(" ", 2)[:2], repr(principal.subject[:64])))
            self.subscriber.label = self.label
        gone = [text for text in self.subscriber.filters.filters if not may_subscribe(principal, text)]
        if gone:
            self._gateway.hub.unsubscribe(self.subscriber, gone)
            if not self._is_raw:
                self._write(encode_event("unsubscribed", topics=gone, reason="forbidden"))
        self._allow_messages()
        self._watch_expiry()

    def _allow_messages(self) -> None:
        """Long commands are for those who may publish: others have nothing long to say."""
        if isinstance(self._sink, SocketSink):
            limits = self._gateway.limits
            self._sink.allow_message(limits.command_bytes if self.principal.publish else limits.short_command_bytes)

    def _watch_expiry(self) -> None:
        """Sets the timer for the end of the token, or for one that has to come."""
        self._stop_timers()
        principal = self.principal
        call_later = asyncio.get_running_loop().call_later
        if principal.expires_at is not None:
            self._expiry = Expiry(self._gateway.guard, call_later, self._warn, self._close)
            self._expiry.watch(principal)
        elif self._gateway.guard.could_authenticate(principal) and not (principal.subscribe or principal.publish):
            self._wait_timer = call_later(self._gateway.limits.handshake_seconds, self._end_waiting)

    def _stop_timers(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._wait_timer is not None:
            self._wait_timer.cancel()
            self._wait_timer = None

    def _warn(self, left: float) -> None:
        if not self._is_raw:
            self._write(encode_event("expiring", seconds=round(left)))

    def _end_waiting(self) -> None:
        text = f"no token within {self._gateway.limits.handshake_seconds:g} s"
        self._note("no_token", text, "a WebSocket")
        self.is_refused = True
        self._close(CloseCode.UNAUTHORIZED, text)

    def _close(self, code: CloseCode, reason: str) -> None:
        if self._sink is not None:
            self._sink.close(code, reason)

    # answers

    def _write(self, event: bytes) -> None:
        if self._sink is not None:
            self._sink.write(frame_text(event))

    def _tell(self, event: dict[str, Any]) -> None:
        self._write(encode_json(event))

    def _refuse(self, error: ProtocolError) -> None:
        self._note(error.reason or error.code, str(error), "a command")
        self._write(error_event(error))

    def _note(self, reason: str, text: str, what: str) -> None:
        self._gateway.guard.note_of(reason, text, what, self._connection, self.address)

    @property
    def _connection(self) -> str:
        """The request id."""
        return self.label.partition(" ")[0]

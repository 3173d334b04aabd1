"""The upstream: one MQTT connection that is always there or being made, and that hands every message on at once.

Invariant: a message goes from the socket to `on_message` within one call, in the order of arrival, with nothing awaited
between; whatever breaks is reported through `on_change` and mended here, and never raises out of `run` or into a
publisher of messages. What a message means, and which retained message is no news, is for the hub and history.

aiomqtt (with paho under it) speaks MQTT: handshake, subscriptions, acknowledgements, keep-alive. Its transport is
ours: `Link` is an asyncio protocol that paho takes for its socket, so that connecting can be cancelled, TLS is
asyncio's, one system call brings many messages, and PUBLISH packets never meet paho at all (benchmarks/ingest.py).

It is long because making a connection, judging its end and publishing over it share one state.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.core.messages import Properties
from gateway.core.topics import has_wildcard
from gateway.upstream.acknowledging import Keeper, Unacknowledged
from gateway.upstream.arrivals import Arrivals, OnMessage
from gateway.upstream.config import MQTT_3_1_1, MQTT_5, VERSION_NAMES, UpstreamConfig, Version
from gateway.upstream.failures import RIVAL_SECONDS, Failure, Reason, VersionChoice
from gateway.upstream.link import MAX_CONCURRENT_PUBLISHES, UNPROVEN_SECONDS, Link
from gateway.upstream.state import OnChange, PublishRefused, UpstreamState, UpstreamUnavailable
from gateway.upstream.terms import ForbiddenPublishes, Pace, PublishKey, Stage, Terms, Verdict

__all__ = ["REPEAT_SECONDS", "Upstream"]

logger = logging.getLogger(__name__)


REPEAT_SECONDS = 10.0
"""How long after SUBACK a retained message may still be the broker's repetition (MQTT 5)."""

REPEATED_WARNING_SECONDS = 60.0

SHORT_SECONDS = 10.0
SUSPICIOUS_LIVES = 3


class Upstream:
    """The gateway's link to the broker."""

    def __init__(
        self,
        config: UpstreamConfig,
        *,
        on_message: OnMessage,
        on_change: OnChange,
        keeper: Keeper | None = None,
        on_refused: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepares it; `run` does everything.

        Args:
            config: which broker.
            on_message: gets every message as (topic, payload, qos, retained, properties, repeat), in the event loop,
                and must neither block nor await. `repeat` is 0 for what is surely new, else the number of the
                subscription that may be repeating a retained message.
            on_change: gets the state whenever it is another one, other than by counting.
            keeper: messages at QoS 1 and 2 are acknowledged when it has settled them; None: when they were handed on.
            on_refused: called when the broker refuses who we are, before the next attempt: it may `renew`.
        """
        self._config = config
        self._on_message = on_message
        self._on_change = on_change
        self._state = UpstreamState(config.address)
        self._reported: tuple[object, ...] = ()
        self._link: Link | None = None
        self._versions = VersionChoice()
        self._warnings = _Warnings()
        self._publishing = asyncio.Semaphore(MAX_CONCURRENT_PUBLISHES)
        self._received = 0
        self._last_message_at: float | None = None
        self._dropped = {"too_large": 0, "not_wanted": 0, "duplicate": 0, "failed": 0, "stopping": 0}
        self._keeper = keeper
        self._on_refused = on_refused
        self._exchanges: set[bytes] = set()
        self._unacknowledged = Unacknowledged()
        self._discard_session = False
        self._has_discarded = False
        self._terms = Terms(config.status_topic)
        self._forbidden = ForbiddenPublishes()
        self._suspected = asyncio.Lock()
        self._pace = Pace()
        self._stage = Stage.CONNECT
        self._asked = ""
        self._under_way: set[PublishKey] = set()
        self._is_held = False
        self._numbers = itertools.count(1)
        self._short_lives = 0

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there now; `state` is more work, and each new connection asks."""
        return self._state.connected

    @property
    def state(self) -> UpstreamState:
        """How it stands now."""
        link = self._link
        return dataclasses.replace(
            self._state,
            received=self._received + (link.reader.received if link else 0),
            last_message_at=(link.last_message_at if link else None) or self._last_message_at,
            dropped=dict(self._dropped) if link is None else _with_dropped(self._dropped, link),
        )

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

    def inherit(self, published: Iterable[list[bytes]], exchanges: Iterable[bytes]) -> None:
        """Takes over, before it runs, what another gateway knew of the session.

        Args:
            published: packet identifiers of messages at QoS 1 that are kept, in the batches in which they came, oldest
                first. Whether they have been acknowledged nobody knows.
            exchanges: packet identifiers of messages at QoS 2 that are kept and whose PUBREL has not come.
        """
        before = None
        for identifiers in published:
            self._unacknowledged.written(self._unacknowledged.add(identifiers, before))
            before = identifiers[-1]
        self._exchanges.update(exchanges)

    def renew(self, username: str | None, password: str | None) -> None:
        """Shows these to the broker from the next attempt on."""
        self._config = dataclasses.replace(self._config, username=username, password=password)

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
                self._stage = Stage.CONNECT
                self._terms.begin(began)
                self._note(attempts=self._state.attempts + 1)
                try:
                    failure = await self._live()
                except Failure as error:
                    failure = error
                except Exception as error:
                    logger.exception("the link to the broker failed in a way that was not foreseen")
                    failure = Failure(f"{type(error).__name__}: {error}")
                lasted = time.monotonic() - began if self._state.connected else 0.0
                verdict = self._judge(failure)
                if verdict is Verdict.NOTHING:
                    failure = self._suspect_a_rival(failure, lasted)
                self._note(connected=False, connected_since=None, last_error=str(failure))
                if failure.reason in (Reason.LOGIN, Reason.NOT_AUTHORIZED):
                    self._on_refused()
                if self._versions.refused(failure.version) or verdict is Verdict.CONCEDED:
                    continue
                if lasted >= config.stable_seconds:
                    backoff.reset()
                # a question about what the broker takes is answered sooner
                delay = config.reconnect_min_seconds if verdict is Verdict.SUSPECTED else backoff.next()
                delay = max(delay, failure.wait_seconds)
                if self._warnings.may_say(str(failure)):
                    what = "lost" if lasted else "not made"
                    text = "connection to the broker %s %s: %s; next attempt in %.1f s"
                    logger.warning(text, config.address, what, failure, delay)
                await asyncio.sleep(delay)
        finally:
            self._note(connected=False, connected_since=None, last_error="the gateway is stopping")

    def _judge(self, failure: Failure) -> Verdict:
        """Whether the connection has ended over something that we asked."""
        verdict = self._terms.judge(self._stage, self._asked, failure)
        if self._stage is Stage.LIVE and failure.is_closed and (keys := self._under_way):
            verdict = self._forbidden.closed_over(keys, time.monotonic())
        elif self._stage is Stage.LIVE and failure.reason == Reason.MESSAGE_RATE:
            verdict = self._pace.was_too_fast(time.monotonic())
        self._under_way = set()
        if verdict is not Verdict.NOTHING:
            self._short_lives = 0
        return verdict

    def _suspect_a_rival(self, failure: Failure, lasted: float) -> Failure:
        """A broker that doesn't say who took the session over (3.1.1, older Mosquittos) only closes, over and over."""
        self._short_lives = self._short_lives + 1 if 0 < lasted < SHORT_SECONDS else 0
        if self._short_lives < SUSPICIOUS_LIVES or failure.wait_seconds:
            return failure
        text = f"{failure}, soon after it was made, {self._short_lives} times in a row"
        return Failure(
            f"{text}: perhaps another client uses the client id {self._config.client_id!r}", wait_seconds=RIVAL_SECONDS
        )

    async def _live(self) -> Failure:
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
            if self._terms.accepted(max_qos=link.max_qos, retains=link.retains):
                await link.disconnect()
                return Failure("the broker accepts a connection without a last will: once more with it")
            filters = await self._subscribe(link)
            self._report_connected(link, filters)
            self._stage = Stage.STATUS
            await self._say(link, "online")
            if not link.closed.done():
                self._stage = Stage.LIVE
            return await link.wait_closed()
        finally:
            if self._stage is Stage.LIVE:
                self._under_way = link.under_way()
            await self._close(link)
            self._received += link.reader.received
            self._dropped = _with_dropped(self._dropped, link)
            self._last_message_at = link.last_message_at or self._last_message_at
            self._link = None

    def _report_connected(self, link: Link, filters: dict[str, int | str]) -> None:
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

    async def _open(self, version: Version, *, clean: bool, number: int = 0) -> Link:
        """A link whose CONNACK has arrived.

        Raises:
            Failure: there is none.
        """
        arrivals = self._arrivals(version, number)
        link = Link(
            self._config,
            version,
            arrivals,
            clean=clean,
            exchanges=self._exchanges,
            unacknowledged=self._unacknowledged,
            keeper=self._keeper,
            will=self._terms.will if number else None,
            on_connack=self._connack,
        )
        link.reader.is_held = self._is_held
        try:
            await link.connect(self._versions.patience(version, self._config.connect_timeout_seconds))
        except BaseException:
            link.abort()
            raise
        return link

    def _connack(self, link: Link) -> None:
        """The broker has accepted; from the next packet on, messages may arrive."""
        if not link.session_present:
            self._exchanges.clear()
            self._unacknowledged.clear()
            link.reader.end_earlier()
            if self._keeper is not None:
                self._keeper.begin_session()
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

    async def _close(self, link: Link) -> None:
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

    async def _say(self, link: Link, status: str) -> None:
        """Publishes our status; that it isn't allowed is no reason to do without a connection."""
        form = self._terms.status
        if form is None or not link.arrivals.number:
            return
        try:
            async with asyncio.timeout(self._config.connect_timeout_seconds):
                await link.publish(self._config.status_topic, status.encode(), form.qos, form.retain, None)
            if form.qos == 0 and self._stage is Stage.STATUS:
                # what isn't acknowledged shows only by the connection whether it was allowed
                await asyncio.wait((link.closed,), timeout=UNPROVEN_SECONDS)
            if not link.closed.done():
                self._terms.said()
        except PublishRefused as error:
            self._terms.may_not_say(str(error))
        except (UpstreamUnavailable, TimeoutError):
            logger.debug("the status %r was not acknowledged", status)

    async def _subscribe(self, link: Link) -> dict[str, int | str]:
        """Subscribes to everything; returns what was granted or refused."""
        arrivals, terms = link.arrivals, self._terms
        granted: dict[str, int | str] = {}
        for topic_filter, why in terms.refused.items():
            granted[topic_filter] = why
            arrivals.refused(topic_filter)
        # from now on the broker may send retained messages, which must not share a number with those before
        arrivals.number = next(self._numbers)
        arrivals.repeat_until = float("inf")
        self._stage = Stage.SUBSCRIBE
        offers_identifiers = link.offers_identifiers and terms.identifiers
        while wanted := {f: i for f, i in arrivals.subscriptions(offers_identifiers).items() if f not in granted}:
            link.reader.plain = arrivals.plain_sections
            for topic_filter in terms.in_order(wanted):
                if has_wildcard(topic_filter) and not link.offers_wildcards:
                    answer: int | str = "the broker offers no wildcard subscriptions"
                else:
                    self._asked = topic_filter
                    answer = await link.subscribe(topic_filter, terms.qos_for(topic_filter), wanted[topic_filter])
                    terms.subscribed(topic_filter)
                granted[topic_filter] = answer
                if isinstance(answer, str):
                    arrivals.refused(topic_filter)
        for topic_filter in arrivals.left_out:
            granted[topic_filter] = "it overlaps another one, and without MQTT 5 nothing tells copies apart"
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
        if self._warnings.may_say(topic, kind="not_wanted"):
            logger.warning("a message was dropped (not wanted): no configured filter matches %r", topic[:80])
        if self._has_discarded or link is None or not link.session_present:
            return
        self._has_discarded = self._discard_session = True
        logger.info(
            "the session %r on the broker has a subscription of an earlier configuration (it sent %r): starting anew",
            self._config.client_id,
            topic[:80],
        )
        link.fail(Failure("the session on the broker belonged to an earlier configuration"))

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
    ) -> bool:
        """Publishes a message and waits until the broker has it (QoS 1 and 2) or it is on its way (QoS 0).

        Returns whether anybody may get it: False where the broker said that nobody is subscribed.

        Args:
            topic: a valid topic name, which nobody checks here.
            payload: up to 268,435,455 bytes.
            qos: 0, 1 or 2.
            retain: whether the broker keeps it.
            properties: MQTT 5 properties.
            timeout_seconds: after this it is given up; a message at QoS 1 or 2 may have arrived all the same.

        Raises:
            UpstreamUnavailable: not connected, the connection was lost, or no acknowledgement came in time.
            PublishRefused: the broker refuses it, can't take it, or has closed the connection over its like.
        """
        link = self._link
        key = (topic, qos, retain)
        if self._forbidden.is_refused(key, time.monotonic()):
            raise PublishRefused(f"the broker closes the connection over messages to {topic!r} of QoS {qos}")
        if link is None or not self._state.connected:
            why = self._state.last_error
            raise UpstreamUnavailable("not connected to the broker" + (f": {why}" if why else ""))
        try:
            async with asyncio.timeout(timeout_seconds), self._publishing:
                if (wait := self._pace.wait(time.monotonic())) > 0:
                    await asyncio.sleep(wait)
                if not self._forbidden.is_suspected(key):
                    return await link.publish(topic, payload, qos, retain, properties)
                async with self._suspected:
                    is_heard = await link.publish(topic, payload, qos, retain, properties)
                    if qos == 0:
                        await asyncio.wait((link.closed,), timeout=UNPROVEN_SECONDS)
                    if not link.closed.done():
                        self._forbidden.worked(key)
                    return is_heard
        except TimeoutError:
            raise UpstreamUnavailable(f"the broker did not acknowledge within {timeout_seconds:g} s") from None


def _with_dropped(dropped: Mapping[str, int], link: Link) -> dict[str, int]:
    """What was dropped so far, that which a link's reader counts included."""
    reader = link.reader
    return {
        **dropped,
        "not_wanted": dropped["not_wanted"] + reader.unwanted,
        "duplicate": dropped["duplicate"] + reader.repeated,
        "stopping": dropped["stopping"] + reader.held,
    }


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

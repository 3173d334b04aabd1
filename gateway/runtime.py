"""The parts of one running gateway, their life and their end.

Invariant: everything that lives as long as the gateway hangs on one `Gateway` object, and its tasks end in order when
`run` ends. Settings are read here, once: what routes need of them they find on the gateway. What routes do with it is
theirs.

It is long because all parts are made, joined and ended in one place, in an order that matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway import __version__
from gateway.access.budget import Accounts, Buckets, Memory, TokenBucket
from gateway.access.grants import AccessError
from gateway.access.keys import Key, KeyFile, Keys, KeySource, KeyUrl, parse_keys, secret_key
from gateway.access.limits import Client, Connections, LimitError, Refusals
from gateway.access.origins import Origins, is_loopback
from gateway.access.policy import Policy, Role
from gateway.access.revocations import Revocation, RevocationFile
from gateway.access.sharing import Sharing
from gateway.access.tokens import Verifier
from gateway.alerts.runner import Runner, make_runner
from gateway.archive.archive import Archive, KeptHistory
from gateway.archive.failures import ArchiveError, Trouble
from gateway.archive.keeping import Keep, Rules
from gateway.cluster.address import Address
from gateway.cluster.cluster import Cluster
from gateway.cluster.leading import Leading
from gateway.cluster.member import CONNECTING
from gateway.cluster.questions import ServerError, Times
from gateway.cluster.recalls import Recalls
from gateway.cluster.server import RefusedError, Server
from gateway.core.collector import Collections
from gateway.core.distribution import STALLS, Distribution
from gateway.core.filters import NO_FILTERS, FilterSet
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.core.messages import Properties
from gateway.core.protocol import CloseCode, ProtocolError
from gateway.core.subscribers import State
from gateway.core.topics import TopicError, check_characters, validate_filter
from gateway.decoders.decoding import Decoding
from gateway.devices.feed import feed
from gateway.devices.registry import Registry
from gateway.door.guard import Guard
from gateway.door.lines import FairLock
from gateway.door.refusals import Refusal
from gateway.settings.problems import SettingsError
from gateway.settings.table import Settings, StreamSettings
from gateway.transport.certificates import Certificate
from gateway.upstream.announcing import Announcer, entities
from gateway.upstream.config import UpstreamConfig
from gateway.upstream.state import PublishRefused, UpstreamState, UpstreamUnavailable
from gateway.upstream.upstream import REPEAT_SECONDS, Upstream

__all__ = ["Gateway", "Limits", "Revoked", "make_guard", "signing_key"]

logger = logging.getLogger(__name__)

CATCH_UP_SECONDS = 10.0
"""How long a node may read the shared log before it serves what it has read so far."""

PULSE_SECONDS = 0.1
"""How often the loop is asked whether it comes in time."""

SWITCH_SECONDS = 0.0005
"""How long a thread of the archive may compute while the loop has something to do."""

REVOCATION_SECONDS = 1.0
"""How soon a gateway does what another process has written into the file of tokens that are called back."""

AGE_SECONDS = 1.0
"""The longest time for which messages that are too old stay in an idle log."""

SHORT_COMMAND_BYTES = 64 * 1024
"""What a command other than `publish` may have beside its filters."""

LOGGED_CLOSINGS_PER_SECOND = 20.0
"""Connections that end are logged, as many as that after the first thousand."""

MAX_EXPLANATIONS = 4
"""Questions of one address to `/explain` that may be under way; with wildcards and many topics each takes a second."""


@dataclass(frozen=True, slots=True)
class _Facts:
    connected: bool
    filters: Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client is held to, wherever it comes in.

    Attributes:
        filters: topic filters of one subscriber or request.
        filter_bytes: UTF-8 bytes of all of them together.
        commands_per_second: commands of one WebSocket.
        publishes_per_second: messages that one WebSocket, or one address by requests, may publish.
        command_bytes: of a command, or a frame of `/mqtt`.
        payload_bytes: of a message that is published.
        buffer_bytes: unsent bytes above which a subscriber is slow.
        handshake_seconds: how long a client without a token may take to show one.
    """

    filters: int
    filter_bytes: int
    commands_per_second: int
    publishes_per_second: int
    command_bytes: int
    payload_bytes: int
    buffer_bytes: int
    handshake_seconds: float

    @property
    def short_command_bytes(self) -> int:
        """The length of any command but `publish`: room for a shape, and all filters in escapes."""
        return min(self.command_bytes, SHORT_COMMAND_BYTES + 2 * self.filter_bytes)

    def check_filters(self, asked: Iterable[str], had: FilterSet | None = None) -> list[str]:
        """Topic filters of a client, valid and few enough.

        Args:
            asked: what it asks for, looked at one by one until there are too many.
            had: what it has already, and may name again.

        Returns:
            The filters, each once.

        Raises:
            TopicError: one is no topic filter.
            LimitError: they are too many, or too long together.
        """
        had = had or NO_FILTERS
        found: dict[str, None] = {}
        count, size = len(had), sum(len(text.encode()) for text in had.filters)
        for text in asked:
            if text in found:
                continue
            found[validate_filter(text)] = None
            if text not in had:
                count += 1
                size += len(text.encode())
            if count > self.filters:
                text = f"limit: more than {self.filters} topic filters, at most {self.filters} are allowed"
                raise LimitError("limit", "filters", text)
            if size > self.filter_bytes:
                text = f"limit: topic filters of more than {self.filter_bytes} bytes in all, that is the most allowed"
                raise LimitError("limit", "filter_bytes", text)
        return list(found)


@dataclass(frozen=True, slots=True)
class Revoked:
    """What came of calling tokens back.

    Attributes:
        ended: connections of this gateway that ended by it.
        is_kept: whether it outlives the process, in a file or on the server of the cluster.
        is_told: whether the other nodes of the cluster hear of it now; they will when the server is there again. None
            where there is no cluster.
    """

    ended: int
    is_kept: bool
    is_told: bool | None = None


class Closable(Protocol):
    """What is closed when the gateway stops."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Ends it, in order."""


class Gateway:
    """The parts of a running gateway.

    Attributes:
        limits: what clients are held to.
        has_access_policy: whether somebody was told who may do what; if not, everybody may, on loopback.
        is_metrics_public: whether `/metrics` is for everybody all the same.
        offers_mqtt: whether `/mqtt` is open.
        streams: the streams `/ws/<name>/`, by name.
        history, hub, upstream: the log, the fan-out, the link to the broker; there once it has started.
        decoding: the rules by which payloads that are not JSON are read.
        devices: what announces itself as a device.
        cluster: what makes this gateway a node; None where it is alone.
        recalls: what tells the other nodes of tokens that are called back; None where there are neither.
        session: the link of the leader to the broker; None while this node leads nothing. `upstream` of a node only
            publishes.
        archive: the file in which the log is kept; None where there is none.
        alerts: rules that watch the log, and what publishes their states; None where none is set.
        connections: how many are open, in all and for each address.
        guard: who may ask, and who is asking.
        refusals: how often each limit or check said no.
        unsent_bytes: what the system had not yet taken for all subscribers, when `count_unsent` was asked last.
    """

    def __init__(self, settings: Settings) -> None:
        self.limits = Limits(
            filters=settings.limit_filters,
            filter_bytes=settings.limit_filter_bytes,
            commands_per_second=settings.limit_commands_per_second,
            publishes_per_second=settings.limit_publishes_per_second,
            command_bytes=settings.limit_command_bytes,
            payload_bytes=settings.limit_payload_bytes,
            buffer_bytes=settings.limit_buffer_bytes,
            handshake_seconds=settings.limit_handshake_seconds,
        )
        self.has_access_policy = settings.has_access_policy
        self.is_metrics_public = not settings.has_access_policy or settings.access_public_metrics
        self.offers_mqtt = settings.mqtt_websocket
        self.streams: Mapping[str, StreamSettings] = settings.streams
        self.connections = Connections(settings.limit_connections, settings.limit_connections_per_address)
        self.refusals = Refusals()
        self._secret = _secret(settings)
        self.guard = make_guard(settings, self.refusals, self._secret)
        self.sharing = _sharing(settings)
        path = settings.revocation_file
        self._revoked = None if path is None or self.guard.verifier is None else RevocationFile(path)
        self.read_revocations()
        self.view_topic = settings.view_topic
        self.flash_folder = settings.flash_folder
        self.flash_broker = _flash_broker(settings)
        self.flash_keys_file = settings.flash_keys_file
        self.upstream_config = _upstream_config(settings)
        kind = History if settings.archive_file is None else KeptHistory
        self.history = kind(
            max_messages=settings.history_messages,
            max_topics=settings.history_topics,
            max_bytes=settings.history_bytes,
            max_age_ms=int(settings.history_age * 1000),
        )
        self.decoding = Decoding([rule.make() for rule in settings.decode])
        # before the archive brings its topics back: of these it learns what was known
        self.devices = Registry(self.history, max_devices=settings.limit_devices, max_bytes=settings.limit_device_bytes)
        self.archive: Archive | None = None
        self.archive_error: ArchiveError | None = None
        """Why there is no archive although one is asked for."""
        # uvloop's own clock stands still within a turn: what is bounded by it would never end
        self.clock = time.monotonic
        self.stalls = Distribution(STALLS)
        self.unsent_bytes = 0
        self.collections = Collections(time.thread_time)
        self.hub: Hub
        self.upstream: Upstream
        self.cluster: Cluster | None = None
        self.recalls: Recalls | None = None
        self.session: Upstream | None = None
        self._session_task: asyncio.Task[None] | None = None
        self.alerts: Runner | None = None
        self.published: Counter[str] = Counter()
        """Messages that clients published, by result: `ok` or an error code."""
        self.certificate: Certificate | None = None
        """The gateway's own, where it speaks TLS itself."""
        self.closing = False
        self._settle_at = math.inf  # when all that the broker keeps has come, by `clock`; until that was seen to
        self._complete_at = math.inf  # the same
        self.event_streams: set[Closable] = set()
        """Event streams that are open."""
        self.explaining = FairLock()
        self.explanations = Connections(settings.limit_connections, MAX_EXPLANATIONS)
        self._post_buckets = Buckets(settings.limit_publishes_per_second, settings.limit_publishes_per_second * 2)
        self.closings = TokenBucket(LOGGED_CLOSINGS_PER_SECOND, 1_000)
        """What of ended connections is logged."""
        self.started_at = time.time()
        self._settings = settings
        self._tasks: asyncio.TaskGroup
        self._was_connected: bool | None = None
        self._lost_at: int | None = None
        self._has_caught_up = False  # this node of a cluster
        self._alerts_know = False  # they have looked at what was there when it had

    def open_archive(self) -> None:
        """Opens the archive, if there is to be one, and fills the log from it; a second call does nothing.

        Whatever else is wrong with it, the gateway relays without it, and says so.

        Raises:
            ArchiveError: another gateway has it open.
        """
        path = self._settings.archive_file
        is_tried = self.archive is not None or self.archive_error is not None
        if path is None or is_tried or not isinstance(self.history, KeptHistory):
            return
        began = time.monotonic()
        settings = self._settings
        rules = Rules([Keep(rule.topics, *rule.ages_ms) for rule in settings.archive_keep])
        try:
            self.archive = Archive(
                path, self.history, now_ms=self.wall_clock_ms(), rules=rules,
                max_bytes=settings.archive_bytes, max_series=settings.archive_series,
                is_shared=settings.cluster_url is not None,
            )  # fmt: skip
        except ArchiveError as error:
            if error.trouble is Trouble.IN_USE:
                raise
            self.archive_error = error
            logger.error("history is in memory only: the archive %s can't be used: %s", path, error)
            return
        text = "archive %s: %d topics and %d messages taken into memory in %.2f s, at %s"
        history, took = self.history, time.monotonic() - began
        logger.info(text, path, history.topic_count, history.message_count, took, history.position)

    def _start_archive(self) -> None:
        if self.archive is None:
            return
        loop, settings = asyncio.get_running_loop(), self._settings
        # while the archive's threads compute, the loop must not wait for its turn as long as it would by default (5 ms)
        sys.setswitchinterval(SWITCH_SECONDS)
        self.archive.start(
            flush_seconds=settings.archive_flush_interval,
            max_bytes=settings.archive_buffer_bytes,
            call_soon_threadsafe=loop.call_soon_threadsafe,
            call_later=loop.call_later,
            clock=self.clock,
            on_trouble=self._archive_changed,
        )

    def _archive_changed(self, trouble: ArchiveError | None) -> None:
        assert self.archive is not None  # noqa: S101 - it is what has changed
        self.hub.archive_changed(trouble is None, None if trouble is None else str(trouble.trouble))
        if trouble is None:
            logger.info("the archive %s is written again", self.archive.path)
        else:
            logger.error("the archive %s is not written: %s; the relay goes on", self.archive.path, trouble)

    @property
    def has_archive(self) -> bool:
        """Whether there is to be an archive."""
        return self._settings.archive_file is not None

    @property
    def archive_trouble(self) -> ArchiveError | None:
        """Why what arrives is not kept, where there is to be an archive; None if it is kept, or needn't be."""
        return self.archive_error if self.archive is None else self.archive.trouble

    @property
    def archive_reason(self) -> str | None:
        """The same in words; where there is an access policy only of which kind it is, since a path says more."""
        trouble = self.archive_trouble
        return None if trouble is None else str(trouble.trouble) if self.has_access_policy else str(trouble)

    async def _end_archive(self) -> None:
        """Writes what is not yet on the disk; what waits for that is done after this."""
        if self.archive is None:
            return
        self.upstream.hold()
        self.archive.close()
        await asyncio.to_thread(self.archive.wait_closed)
        await asyncio.sleep(0)

    # the cluster

    async def check_cluster(self) -> None:
        """Looks whether the server of the cluster can be used, if there is to be one.

        Raises:
            RefusedError: it can't. One that can't be reached is waited for later.
        """
        address = self._cluster_address
        if address is None:
            return
        server = Server(address, self._settings.cluster_name, lease_seconds=Times().lease)
        try:
            logger.info("the shared log is on %s, %s", address, await server.check())
        except RefusedError:
            raise
        except ServerError as error:
            logger.error("the shared log can't be reached yet: %s", error)
        except ImportError:
            text = "a cluster needs the package valkey: pip install 'mqtt-browser-gateway[cluster]'"
            raise RefusedError(text) from None
        finally:
            server.close()

    @property
    def _cluster_address(self) -> Address | None:
        settings = self._settings
        if settings.cluster_url is None:
            return None
        password = settings.cluster_password
        return replace(
            Address.parse(settings.cluster_url),
            username=settings.cluster_username,
            password=None if password is None else password.get_secret_value(),
            ca_file=settings.cluster_ca_file,
        )

    def _make_cluster(self) -> None:
        """Makes this gateway a node: its log is read from the shared one, and its own link only publishes."""
        address, settings = self._cluster_address, self._settings
        if address is None:
            return
        self.history.is_followed = self.history.is_filling = True
        node = settings.cluster_node or f"{socket.gethostname()[:60]}-{secrets.token_hex(2)}"
        self.cluster = Cluster(
            address,
            settings.cluster_name,
            node,
            self.hub,
            clock=self.clock,
            wall_clock_ms=self.wall_clock_ms,
            on_lead=self._lead,
            on_follow=self._follow,
            leave=self._leave_session,
            on_change=self._cluster_changed,
            is_able=lambda: self.upstream.is_connected,
        )
        if self.guard.verifier is not None:
            self.recalls = Recalls(
                address,
                settings.cluster_name,
                self.guard.revocations,
                wall_clock=time.time,
                on_news=self._hear_revocations,
            )
        config = self.upstream_config
        client_id = f"{config.client_id}-{node}"
        self.upstream = Upstream(
            replace(config, topics=(), client_id=client_id, session_expiry_seconds=0, status_topic=""),
            on_message=lambda *_: None,
            on_change=lambda _: None,
            on_refused=self.renew_secrets,
        )

    def _lead(self, leading: Leading) -> None:
        """This node leads: it takes the session with the broker over."""
        assert self.cluster is not None  # noqa: S101 - it is what leads
        inherited = self.cluster.member.follower.inherited
        self.cluster.member.broker = CONNECTING
        self.session = session = Upstream(
            self.upstream_config,
            on_message=leading.take,
            on_change=self._session_changed,
            keeper=leading,
            on_refused=self.renew_secrets,
        )
        session.inherit(inherited.published, inherited.exchanges)
        self._session_task = self._tasks.create_task(session.run(), name="session")

    def _follow(self, _why: str) -> None:
        session, self.session = self.session, None
        if session is not None and self._session_task is not None:
            session.hold()
            self._session_task.cancel()
        self._settle_at = self._complete_at = math.inf
        if self.alerts is not None:
            self.alerts.others_tell()

    async def _leave_session(self) -> None:
        task = self._session_task
        self._follow("it stops")
        if task is not None:
            await asyncio.wait((task,), timeout=2)

    def _session_changed(self, state: UpstreamState) -> None:
        cluster = self.cluster
        if cluster is not None and not state.connected:
            cluster.member.check_lease()
        if cluster is None or cluster.member.leading is None or self.session is None:
            return
        cluster.member.broker = "" if state.connected else state.last_error or CONNECTING
        cluster.member.leading.as_published = state.retained_as_published
        if state.connected and state.subscription != self.history.subscription:
            self.history.subscription = state.subscription
            self._settle_at = self.clock() + REPEAT_SECONDS
        if state.connected and self._complete_at == math.inf:
            self._complete_at = self.clock() + REPEAT_SECONDS
            if self.alerts is not None:
                self.alerts.reconnected()
        self._cluster_changed()

    @property
    def _tells(self) -> bool:
        """Whether this process tells of alerts: of a cluster the leader does, when it knows what the log has."""
        return self.cluster is None or (self.cluster.member.leading is not None and self._alerts_know)

    async def _let_alerts_catch_up(self) -> None:
        assert self.alerts is not None  # noqa: S101 - it is what catches up
        await self.alerts.catch_up()
        self._alerts_know = True

    def _cluster_changed(self) -> None:
        if self.cluster is not None and self.cluster.member.is_caught_up != self._has_caught_up:
            self._has_caught_up, self._alerts_know = self.cluster.member.is_caught_up, False
            if self._has_caught_up and self.alerts is not None:
                self.spawn(self._let_alerts_catch_up(), "alerts")
        self._link_changed(self.is_connected)

    @property
    def node(self) -> str | None:
        """The name of this node; None where the gateway is alone."""
        return None if self.cluster is None else self.cluster.member.node

    @property
    def arriving(self) -> Upstream:
        """The link by which messages arrive at this process; that of a node that doesn't lead brings none."""
        return self.session or self.upstream

    @property
    def upstream_facts(self) -> UpstreamState | _Facts:
        """What may be told of the link by which messages arrive, wherever it is."""
        if self.cluster is None:
            return self.upstream.state
        filters: Mapping[str, int | str] = dict.fromkeys(self.upstream_config.topics, 1)
        if self.session is not None:
            filters = self.session.state.filters
        return _Facts(self.is_connected, filters)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Connects to the broker and serves until the context ends."""
        loop = asyncio.get_running_loop()
        settings = self._settings
        self.open_archive()
        self._start_archive()
        self.decoding.start(self.history)
        self.hub = Hub(
            self.history,
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            clock=self.clock,
            wall_clock_ms=self.wall_clock_ms,
            cost_clock=self._unpaid_seconds,
            flush_interval_seconds=settings.flush_interval,
            stall_seconds=settings.limit_stall_seconds,
            max_replay_messages=settings.limit_replay_messages,
            max_shape_bytes=settings.limit_shape_bytes,
        )
        self.upstream = Upstream(
            self.upstream_config,
            on_message=self.hub.publish,
            on_change=self._upstream_changed,
            keeper=None if self.archive is None else self.archive.writer,
            on_refused=self.renew_secrets,
        )
        self._make_cluster()
        self.alerts = make_runner(
            settings,
            history=self.history,
            publish=self.upstream.publish,
            is_connected=lambda: self.is_connected,
            is_complete=lambda: self.is_connected and self._tells and self.clock() >= self._complete_at,
            wall_clock_ms=self.wall_clock_ms,
            clock=self.clock,
            registry=self.devices,
            is_shared=self.cluster is not None,
        )
        async with asyncio.TaskGroup() as self._tasks:
            watching = None
            if self.alerts is not None:
                await self.alerts.watch(self.hub)
                watching = self._tasks.create_task(self.alerts.run(), name="alerts")
            announcing = self._announce(settings)
            link = self._tasks.create_task(self.upstream.run(), name="upstream")
            node = recalling = None
            if self.cluster is not None:
                node = self._tasks.create_task(self.cluster.run(), name="cluster")
                if self.recalls is not None:
                    recalling = self._tasks.create_task(self.recalls.run(), name="what other nodes call back")
                    await self.recalls.wait_heard(CATCH_UP_SECONDS)
                await self.cluster.wait_caught_up(CATCH_UP_SECONDS)
            warming = self._tasks.create_task(self.guard.prepare(), name="token keys")
            aging = self._tasks.create_task(self._age(), name="age of history")
            pulse = self._tasks.create_task(self._feel_pulse(), name="pulse of the loop")
            revoking = self._tasks.create_task(self._follow_revocations(), name="tokens that are called back")
            devices = self._tasks.create_task(feed(self.devices, self.wall_clock_ms), name="devices")
            if self.guard.policy.is_open and not is_loopback(settings.host):
                logger.warning("without a token one may read or publish: everyone who reaches %s", settings.host)
            try:
                yield
            finally:
                self.closing = True
                for told in (watching, announcing, recalling):
                    if told is not None:
                        told.cancel()
                if self.cluster is not None and node is not None:
                    await self.cluster.stop(node)
                    self._follow("it has stopped")
                await self._end_archive()
                for task in (link, warming, aging, pulse, revoking, devices):
                    task.cancel()

    def _announce(self, settings: Settings) -> asyncio.Task[None] | None:
        """Tells Home Assistant of this gateway, where it is set to."""
        if settings.mqtt_discovery is None:
            return None
        announced = entities(settings.mqtt_discovery, settings.mqtt_client_id, settings.mqtt_status_topic, __version__)
        announcer = Announcer(
            *announced,
            publish=self.upstream.publish,
            may_tell=lambda: self.is_connected and (self.cluster is None or self.cluster.member.leading is not None),
            received=lambda: self.hub.counters.received,
            subscribers=lambda: self.hub.subscriber_count,
            clock=self.clock,
        )
        return self._tasks.create_task(announcer.run(), name="announcing")

    async def _feel_pulse(self) -> None:
        """Measures how late the loop comes to what is due: others waited as long."""
        while True:
            due = self.clock() + PULSE_SECONDS
            await asyncio.sleep(PULSE_SECONDS)
            self.stalls.add(max(self.clock() - due, 0.0))

    async def _age(self) -> None:
        """Lets messages expire although no more arrive, and finds out what the broker keeps, a few in each turn."""
        while True:
            if self.clock() >= self._settle_at and self.is_connected:
                self._settle_at = math.inf
                await self._settle_retained()
            if self.archive is not None and not self.closing:
                for _ in self.archive.maybe_snapshot():
                    await asyncio.sleep(0)
            now = self.wall_clock_ms()
            is_more = self.history.expire(now)
            # expiry intervals are whole seconds: none ends before this looks again
            left = max((self.history.next_expiry - now) / 1000, 0.0)
            await asyncio.sleep(0 if is_more else min(AGE_SECONDS, left))

    async def _settle_retained(self) -> None:
        """What a subscription has not brought again the broker keeps no longer; other nodes are told."""
        for names in self.history.unkept():
            if self.cluster is None:
                self.history.release(names)
            elif self.cluster.member.leading is not None:
                self.cluster.member.leading.release(names)
            await asyncio.sleep(0)

    async def count_unsent(self) -> None:
        """Adds up what waits in the buffers of all subscribers, a thousand in each turn of the loop."""
        total = 0
        for number, subscriber in enumerate(list(self.hub.subscribers()), start=1):
            total += subscriber.sink.buffered() if subscriber.state is not State.CLOSED else 0
            if number % 1_000 == 0:
                await asyncio.sleep(0)
        self.unsent_bytes = total

    async def stop(self) -> None:
        """Writes what is pending and ends event streams, one in each turn; connections are closed after this."""
        self.closing = True
        self.guard.stop()
        self.upstream.hold()  # what nobody would see any more stays with the broker
        if self.session is not None:
            self.session.hold()
        for _ in self.hub.flush():
            await asyncio.sleep(0)
        for sink in list(self.event_streams):
            sink.close(CloseCode.RESTART, "the gateway stops")
            await asyncio.sleep(0)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs a task that the gateway owns."""
        self._tasks.create_task(self._guarded(work, name), name=name)

    async def _guarded(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception:
            logger.exception("%s failed", name)

    def _unpaid_seconds(self) -> float:
        """Processor time of this thread less what was done for somebody who pays.

        The time between flushes follows the cost of a flush: it must not grow with what clients do between two of them.
        """
        return time.thread_time() - self.guard.accounts.processor

    @staticmethod
    def wall_clock_ms() -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    # secrets

    def renew_secrets(self) -> None:
        """Reads the broker's name and password and the secret of tokens once more; other settings stay as they are.

        Where something is wrong with the settings now, what was read before stays in use, and the log says so.
        """
        before = self._settings
        try:
            now = before.again()
        except SettingsError as error:
            logger.error("secrets were not read again, those read before stay in use: %s", error)
            return
        names = ("mqtt_username", "mqtt_password", "access_secret")
        changed = {name: getattr(now, name) for name in names if getattr(now, name) != getattr(before, name)}
        # whether there are any is what other settings were judged by
        changed = {name: value for name, value in changed.items() if value is not None or name == "mqtt_username"}
        if not changed:
            return
        self._settings = settings = before.model_copy(update=changed)
        self.upstream_config = config = _upstream_config(settings)
        for link in (self.upstream, self.session):
            if link is not None:
                link.renew(config.username, config.password)
        if "access_secret" in changed and self._secret is not None and settings.access_secret is not None:
            self._secret.replace([secret_key(settings.access_secret.get_secret_value())])
            self.sharing = _sharing(settings)
        logger.info("read again: %s", ", ".join(changed))

    # tokens that are called back

    async def revoke(self, revocation: Revocation) -> Revoked:
        """Calls tokens back.

        Raises:
            LimitError: there are too many.
            OSError: it holds until the gateway ends and other nodes are told, but its file can't be written.
        """
        now = time.time()
        self.guard.revocations.add(revocation, now)
        telling = None if self.recalls is None else self.recalls.say(revocation)
        count = await self._end_revoked(revocation)
        if self._revoked is not None:
            try:
                await asyncio.to_thread(self._revoked.add, [revocation], now)
            except ValueError as error:
                raise OSError(0, str(error)) from None
        is_told = None if telling is None else await telling
        return Revoked(count, self._revoked is not None or is_told is True, is_told)

    async def _hear_revocations(self, news: list[Revocation]) -> None:
        """Does what another node was told, and keeps it where there is a file."""
        for revocation in news:
            await self._end_revoked(revocation)
        if self._revoked is not None:
            try:
                await asyncio.to_thread(self._revoked.add, news, time.time())
            except (OSError, ValueError, LimitError) as error:
                logger.error("what another node called back is not kept over a restart: %s", error)

    async def _end_revoked(self, revocation: Revocation) -> int:
        work = self.guard.revocations.end(revocation)
        while True:
            try:
                next(work)
            except StopIteration as done:
                count: int = done.value
                return count
            await asyncio.sleep(0)

    def read_revocations(self) -> list[Revocation]:
        """What stands in the file that was not known yet; what can't be read is logged."""
        if self._revoked is None:
            return []
        now = time.time()
        try:
            return [each for each in self._revoked.changed() if self.guard.revocations.add(each, now)]
        except (OSError, ValueError, LimitError) as error:
            logger.error("tokens that were called back can't be read: %s", error)
            return []

    async def _follow_revocations(self) -> None:
        """Does what another process of this machine has written."""
        while self._revoked is not None:
            await asyncio.sleep(REVOCATION_SECONDS)
            for revocation in self.read_revocations():
                if self.recalls is not None:
                    self.recalls.say(revocation)
                await self._end_revoked(revocation)

    # upstream

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there now."""
        return self.upstream.is_connected if self.cluster is None else self.cluster.reason is None

    @property
    def upstream_reason(self) -> str | None:
        """Why it isn't; None where there is an access policy, since it may name a broker in a private network."""
        if self.has_access_policy:
            return None
        return self.upstream.state.last_error if self.cluster is None else self.cluster.reason

    def _upstream_changed(self, state: UpstreamState) -> None:
        self.history.retained_as_published = state.retained_as_published
        if state.connected and state.subscription != self.history.subscription:
            self.history.subscription = state.subscription
            self._settle_at = self._complete_at = self.clock() + REPEAT_SECONDS
            if self.alerts is not None:
                self.alerts.reconnected()
        self._link_changed(state.connected)

    def _link_changed(self, connected: bool) -> None:
        """Tells everyone if the broker has come or gone."""
        if connected == self._was_connected:
            return
        # what was never there isn't lost
        self._lost_at = self.wall_clock_ms() if self._was_connected else None
        self._was_connected = connected
        self.hub.upstream_changed(connected, **({} if connected else self.upstream_trouble))

    @property
    def upstream_trouble(self) -> dict[str, Any]:
        """What is told of a broker that isn't there: why, and since when if it ever was."""
        return {"reason": self.upstream_reason, "lost_at": self._lost_at}

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> bool:
        """Publishes to the broker; False where it said that nobody is subscribed, not even this gateway.

        Raises:
            ProtocolError: the broker is not there or refused the message, or would close the connection for it.
        """
        try:
            check_characters("topic", topic)
            for text in _texts(properties or {}):
                check_characters("property", text)
            is_heard = await self.upstream.publish(topic, payload, qos=qos, retain=retain, properties=properties)
            self.published["ok"] += 1
        except (UpstreamUnavailable, PublishRefused, TopicError) as error:
            self.published[error.code] += 1
            raise ProtocolError(error.code, str(error)) from None
        return is_heard

    def take_publish(self, address: Client) -> None:
        """Counts a message that is published by a request against its address.

        Raises:
            Refusal: there were too many (429).
        """
        wait = self._post_buckets.wait(address, self.clock())
        if wait > 0:
            text = f"limit: at most {self.limits.publishes_per_second} messages a second"
            raise Refusal(429, "limit", "publishes_per_second", text, [("retry-after", str(math.ceil(wait)))])
        self._post_buckets.count(address, self.clock())


def _texts(properties: Properties) -> Iterator[str]:
    """The strings of a message's properties."""
    for name in ("content_type", "response_topic"):
        if name in properties:
            yield properties[name]
    for pair in properties.get("user_properties", ()):
        yield from pair


def _flash_broker(settings: Settings) -> dict[str, str] | None:
    """What a board's settings say of the broker; None where none is offered."""
    if settings.flash_broker_url is None:
        return None
    broker = {"url": settings.flash_broker_url}
    if settings.flash_broker_username:
        broker["username"] = settings.flash_broker_username
        if settings.flash_broker_password is not None:
            broker["password"] = settings.flash_broker_password.get_secret_value()
    return broker


def _upstream_config(settings: Settings) -> UpstreamConfig:
    return UpstreamConfig(
        url=settings.mqtt_url,
        topics=settings.relayed_topics,
        client_id=settings.mqtt_client_id,
        username=settings.mqtt_username,
        password=settings.mqtt_password.get_secret_value() if settings.mqtt_password else None,
        ca_file=settings.mqtt_ca_file,
        cert_file=settings.mqtt_cert_file,
        key_file=settings.mqtt_key_file,
        keepalive_seconds=settings.mqtt_keepalive,
        session_expiry_seconds=settings.mqtt_session_expiry,
        status_topic=settings.mqtt_status_topic,
    )


def signing_key(settings: Settings) -> Key:
    """The key that signs tokens, with the algorithms that are accepted here.

    Raises:
        AccessError: there is none, or only its public part.
    """
    if settings.access_secret is not None:
        found = secret_key(settings.access_secret.get_secret_value())
    elif settings.access_key_file is not None:
        keys = parse_keys(settings.access_key_file.read_bytes())
        found = next((key for key in keys if key.private is not None), keys[0])
    else:
        raise AccessError("there is no key to sign with: set GATEWAY_ACCESS_SECRET or GATEWAY_ACCESS_KEY_FILE")
    accepted = settings.access_algorithms
    usable = tuple(name for name in found.algorithms if not accepted or name in accepted)
    return replace(found, algorithms=usable or found.algorithms)


def _sharing(settings: Settings) -> Sharing | None:
    if settings.access_share_max is None:
        return None
    key = signing_key(settings)
    if key.private is None:
        raise AccessError("GATEWAY_ACCESS_SHARE_MAX needs a key that signs; GATEWAY_ACCESS_KEY_FILE is a public one")
    return Sharing(key, settings.access_share_max, settings.access_audience, settings.access_issuer)


def _secret(settings: Settings) -> Keys | None:
    """The secret that verifies tokens, None where there is none."""
    if settings.access_secret is None:
        return None
    return Keys([secret_key(settings.access_secret.get_secret_value())])


def make_guard(settings: Settings, refusals: Refusals, secret: Keys | None = None) -> Guard:
    """The guard that these settings describe; `secret` is theirs, for who means to replace it.

    Raises:
        AccessError: a key or a role is unusable.
    """
    sources: list[KeySource] = []
    if (secret := secret or _secret(settings)) is not None:
        sources.append(secret)
    sources += [KeyFile(path) for path in (settings.access_key_file, settings.access_jwks_file) if path is not None]
    if settings.access_jwks_url is not None:
        sources.append(KeyUrl(settings.access_jwks_url))
    verifier = Verifier(
        sources,
        algorithms=settings.access_algorithms or None,
        audience=settings.access_audience,
        issuer=settings.access_issuer,
    )
    roles = {name: Role(role.subscribe, role.publish) for name, role in settings.roles.items()}
    return Guard(
        policy=(
            Policy(roles, settings.access_anonymous_role, settings.access_user_role)
            if settings.has_access_policy
            else Policy.open(settings.relayed_topics)
        ),
        verifier=verifier if sources else None,
        origins=Origins.parse(settings.access_origins),
        cookie=settings.access_cookie,
        user_headers=settings.access_user_header,
        max_url_bytes=settings.limit_url_bytes,
        max_body_bytes=settings.limit_payload_bytes,
        body_seconds=settings.limit_handshake_seconds,
        max_failed_tokens=settings.limit_failed_tokens,
        max_requests=settings.limit_connections,
        max_requests_per_address=settings.limit_connections_per_address,
        requests_per_second=settings.limit_requests_per_second,
        refusals=refusals,
        accounts=Accounts(time.monotonic, Memory.for_messages(settings.limit_command_bytes)),
    )

"""The application: one gateway with its parts, and the routes over it.

Invariant: everything that lives as long as the gateway hangs on one `Gateway` object, and its tasks end in order when
the lifespan ends. Routes are thin; what they do is in the modules they come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute

from gateway import __version__
from gateway.access import AccessError, Origins, Owner, Policy, Principal, Role, is_loopback, require_subscribe
from gateway.asyncapi import describe
from gateway.broker import PublishRefused, Upstream, UpstreamConfig, UpstreamState, UpstreamUnavailable
from gateway.certificates import Certificate
from gateway.dashboard import Pages, embed_policy, identity, page_at
from gateway.explain import explain_topic
from gateway.guard import Door, Guard, Refusal, content_security_policy, principal_of, subject_of
from gateway.history import History
from gateway.hub import Hub
from gateway.limits import Attempts, Connections, LimitError, Refusals
from gateway.messages import Properties
from gateway.metrics import Exporter, Sample
from gateway.mqtt_pipe import mqtt_socket
from gateway.protocol import CloseCode, ProtocolError
from gateway.settings import Settings
from gateway.shapes import Condition
from gateway.sinks import PulledSink
from gateway.slices import in_slices
from gateway.tokens import KeyFile, Keys, KeySource, KeyUrl, Verifier, secret_key
from gateway.topics import TopicError, check_characters
from gateway.topics_api import TOPICS_METHODS, list_topics, topics, topics_socket
from gateway.websocket import no_socket_here, stream_endpoint, upgrade_required, websocket_endpoint

__all__ = ["Gateway", "create_app", "make_guard"]

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
STATIC = HERE / "static"
PAGES = HERE / "pages"

AGE_SECONDS = 1.0
"""So long at most, messages that are too old stay in an idle log."""

MAX_EXPLANATIONS = 4
"""Questions of one address to `/explain` that may be under way; with wildcards and many topics each takes a second."""

STATISTICS = "$SYS/#"
"""Where brokers publish statistics of theirs: who is granted that may read ours, `/metrics`."""


class Gateway:
    """The parts of a running gateway.

    Attributes:
        settings: what it was told.
        history, hub, upstream: the log, the fan-out, the link to the broker; there once it has started.
        connections: how many are open, in all and for each address.
        guard: who may ask, and who is asking.
        refusals: how often each limit or check said no.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connections = Connections(settings.limit_connections, settings.limit_connections_per_address)
        self.refusals = Refusals()
        self.guard = make_guard(settings, self.refusals)
        self.upstream_config = _upstream_config(settings)
        self.history = History(
            max_messages=settings.history_messages,
            max_topics=settings.history_topics,
            max_bytes=settings.history_bytes,
            max_age_ms=int(settings.history_age * 1000),
        )
        self.hub: Hub
        self.upstream: Upstream
        self.published: Counter[str] = Counter()
        """Messages that clients published, by result: `ok` or an error code."""
        self.certificate: Certificate | None = None
        """The gateway's own, where it speaks TLS itself."""
        self.closing = False
        self.streams: set[PulledSink] = set()
        """Event streams that are open."""
        self.exporter = Exporter(self.samples)
        self.explaining = asyncio.Lock()
        self.explanations = Connections(settings.limit_connections, MAX_EXPLANATIONS)
        self._post_buckets = Attempts(settings.limit_publishes_per_second, settings.limit_publishes_per_second * 2)
        self.started_at = time.time()
        self._tasks: asyncio.TaskGroup
        self._was_connected: bool | None = None

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Connects to the broker and serves until the context ends."""
        loop = asyncio.get_running_loop()
        settings = self.settings
        # uvloop's own clock stands still within a turn: what is bounded by it would never end
        self.clock = time.monotonic
        self.hub = Hub(
            self.history,
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            clock=self.clock,
            wall_clock_ms=self.wall_clock_ms,
            cost_clock=time.thread_time,
            flush_interval_seconds=settings.flush_interval,
            stall_seconds=settings.limit_stall_seconds,
            max_replay_messages=settings.limit_replay_messages,
            max_shape_bytes=settings.limit_shape_bytes,
        )
        self.upstream = Upstream(self.upstream_config, on_message=self.hub.publish, on_change=self._upstream_changed)
        async with asyncio.TaskGroup() as self._tasks:
            link = self._tasks.create_task(self.upstream.run(), name="upstream")
            warming = self._tasks.create_task(self.guard.prepare(), name="token keys")
            aging = self._tasks.create_task(self._age(), name="age of history")
            if self.guard.policy.is_open and not is_loopback(settings.host):
                logger.warning("without a token one may read or publish: everyone who reaches %s", settings.host)
            try:
                yield
            finally:
                self.closing = True
                link.cancel()
                warming.cancel()
                aging.cancel()

    async def _age(self) -> None:
        """Lets messages expire although no more arrive, a few in each turn of the loop."""
        while True:  # noqa: ASYNC110 - no event tells that time has passed
            await asyncio.sleep(0 if self.history.expire(self.wall_clock_ms()) else AGE_SECONDS)

    def stop(self) -> None:
        """Writes what is pending; connections are closed after this."""
        self.closing = True
        self.upstream.hold()  # what nobody would see any more stays with the broker
        self.hub.flush()
        for sink in list(self.streams):
            sink.close(CloseCode.RESTART, "the gateway stops")

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs a task that the gateway owns."""
        self._tasks.create_task(self._guarded(work, name), name=name)

    async def _guarded(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception:
            logger.exception("%s failed", name)

    @staticmethod
    def wall_clock_ms() -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    # upstream

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there now."""
        return self.upstream.state.connected

    @property
    def upstream_reason(self) -> str | None:
        """Why it isn't; None where there is an access policy, since it may name a broker in a private network."""
        return None if self.settings.has_access_policy else self.upstream.state.last_error

    def _upstream_changed(self, state: UpstreamState) -> None:
        self.history.retained_as_published = state.retained_as_published
        if state.connected != self._was_connected:
            self._was_connected = state.connected
            self.hub.upstream_changed(state.connected, None if state.connected else self.upstream_reason)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publishes to the broker.

        Raises:
            ProtocolError: the broker is not there or refused the message, or would close the connection for it.
        """
        try:
            check_characters("topic", topic)
            for text in _texts(properties or {}):
                check_characters("property", text)
            await self.upstream.publish(topic, payload, qos=qos, retain=retain, properties=properties)
            self.published["ok"] += 1
        except (UpstreamUnavailable, PublishRefused, TopicError) as error:
            self.published[error.code] += 1
            raise ProtocolError(error.code, str(error)) from None

    def take_publish(self, request: Request) -> None:
        """Counts a message that is published by a request against its address.

        Raises:
            Refusal: there were too many (429).
        """
        address = request.client.host if request.client else None
        wait = self._post_buckets.wait(address, self.clock())
        if wait > 0:
            rate = self.settings.limit_publishes_per_second
            text = f"limit: at most {rate} messages a second"
            raise Refusal(429, "limit", "publishes_per_second", text, [("retry-after", str(math.ceil(wait)))])
        self._post_buckets.failed(address, self.clock())

    def samples(self) -> dict[str, Sample]:
        """What there is to measure now, by the names of `metrics.METRICS`."""
        hub, history, upstream = self.hub, self.history, self.upstream.state
        counted = hub.counters
        granted = sum(isinstance(qos, int) for qos in upstream.filters.values())
        age = None if upstream.last_message_at is None else max(0.0, time.time() - upstream.last_message_at)
        return {
            "gateway_info": {(__version__, history.epoch): 1},
            "gateway_messages_received_total": counted.received,
            "gateway_messages_repeated_total": history.repeated,
            "gateway_messages_delivered_total": counted.delivered,
            "gateway_messages_replayed_total": counted.replayed,
            "gateway_messages_skipped_total": counted.skipped,
            "gateway_messages_beyond_where_total": Condition.too_large,
            "gateway_messages_lost_total": dict(counted.lost),
            "gateway_delivery_delay_seconds": counted.delays,
            "gateway_flushes_total": counted.flushes,
            "gateway_flush_seconds_total": counted.flush_seconds,
            "gateway_flush_writes_total": counted.batches,
            "gateway_flush_bytes_total": counted.bytes_written,
            "gateway_subscribers": hub.subscriber_count,
            "gateway_groups": hub.group_count,
            "gateway_subscribers_slow": hub.paused_count,
            "gateway_subscribers_slowed_total": counted.slow,
            "gateway_subscribers_closed_slow_total": counted.closed_slow,
            "gateway_shapes_shed_total": counted.shapes_shed,
            "gateway_buffer_bytes": sum(subscriber.sink.buffered() for subscriber in hub.subscribers()),
            "gateway_connections": self.connections.total,
            "gateway_requests": self.guard.requests.total,
            "gateway_connections_limit": self.settings.limit_connections,
            "gateway_tls_expiry_timestamp_seconds": self.certificate.expires_at if self.certificate else None,
            "gateway_refused_total": dict(self.refusals.by_reason),
            "gateway_authentications_total": dict(self.guard.authentications),
            "gateway_publishes_total": dict(self.published),
            "gateway_history_messages": history.message_count,
            "gateway_history_topics": history.topic_count,
            "gateway_history_topics_limit": history.max_topics,
            "gateway_history_bytes": history.bytes,
            "gateway_history_bytes_limit": history.max_bytes,
            "gateway_history_evicted_total": history.evicted,
            "gateway_history_dropped_topics_total": history.dropped_topics,
            "gateway_upstream_connected": float(upstream.connected),
            "gateway_upstream_reconnects_total": upstream.reconnects,
            "gateway_upstream_attempts": upstream.attempts,
            "gateway_upstream_received_total": upstream.received,
            "gateway_upstream_dropped_total": dict(upstream.dropped),
            "gateway_upstream_last_message_age_seconds": age,
            "gateway_upstream_filters": {"yes": granted, "no": len(upstream.filters) - granted},
        }

    # who asks

    def label_of(self, connection: HTTPConnection) -> str:
        """Who it is, for logs: its request id, its address and, if it is somebody, its quoted subject."""
        address = f"{connection.client.host}:{connection.client.port}" if connection.client else "local"
        return f"{connection.scope['state']['request_id']} {address}{subject_of(connection.scope)}"

    def principal_of(self, connection: HTTPConnection) -> Principal:
        """Who asks.

        Raises:
            Refusal: it showed a token that is not accepted.
        """
        return principal_of(connection.scope)


def _texts(properties: Properties) -> Iterator[str]:
    """The strings of a message's properties."""
    for name in ("content_type", "response_topic"):
        if name in properties:
            yield properties[name]
    for pair in properties.get("user_properties", ()):
        yield from pair


def _upstream_config(settings: Settings) -> UpstreamConfig:
    return UpstreamConfig(
        url=settings.mqtt_url,
        topics=settings.mqtt_topics,
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


def make_guard(settings: Settings, refusals: Refusals) -> Guard:
    """The guard that these settings describe.

    Raises:
        AccessError: a key or a role is unusable.
    """
    sources: list[KeySource] = []
    if settings.access_secret is not None:
        sources.append(Keys([secret_key(settings.access_secret.get_secret_value())]))
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
        policy=Policy(roles, settings.access_anonymous_role) if settings.has_access_policy else Policy.open(),
        verifier=verifier if sources else None,
        origins=Origins.parse(settings.access_origins),
        cookie=settings.access_cookie,
        max_url_bytes=settings.limit_url_bytes,
        max_body_bytes=settings.limit_payload_bytes,
        body_seconds=settings.limit_handshake_seconds,
        max_failed_tokens=settings.limit_failed_tokens,
        max_requests=settings.limit_connections,
        max_requests_per_address=settings.limit_connections_per_address,
        requests_per_second=settings.limit_requests_per_second,
        refusals=refusals,
    )


async def live(_request: Request) -> Response:
    """`/health/live`: the process answers."""
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """`/metrics`: for Prometheus."""
    gateway: Gateway = request.app.state.gateway
    # not `policy.is_open`: a role for everybody may be granted little
    if gateway.settings.has_access_policy and not gateway.settings.access_public_metrics:
        principal = principal_of(request.scope)
        try:
            require_subscribe(principal, [STATISTICS])
        except AccessError as error:
            raise gateway.guard.refused(principal, AccessError(f"/metrics: {error}")) from None
    body, content_type = gateway.exporter.render(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


async def explain(request: Request) -> Response:
    """`/explain?topic=…`: why the asker sees nothing of a topic."""
    gateway: Gateway = request.app.state.gateway
    address = request.client.host if request.client else None
    asker = Owner(principal_of(request.scope), address)
    try:
        place = gateway.explanations.open(address)
    except LimitError:
        text = f"limit: {MAX_EXPLANATIONS} questions from this address are being answered: wait for one"
        raise Refusal(429, "limit", "explanations", text, [("retry-after", "2")]) from None
    try:
        await request.body()  # what follows it tells that the client has gone
        async with gateway.explaining:  # one at a time: many at once would take turns of the loop from everyone
            if await request.is_disconnected():
                raise ClientDisconnect
            answer = await in_slices(
                explain_topic(
                    request.query_params.get("topic", ""),
                    asker,
                    upstream=gateway.upstream.state,
                    upstream_reason=gateway.upstream_reason,
                    hub=gateway.hub,
                    now_ms=gateway.wall_clock_ms(),
                    started_ms=int(gateway.started_at * 1000),
                )
            )
    except ClientDisconnect:
        return Response(status_code=204)  # for nobody
    finally:
        gateway.explanations.close(place)
    return JSONResponse(answer.to_json(), headers={"Cache-Control": "no-store"})


async def ready(request: Request) -> Response:
    """`/health/ready`: 200 when the broker is connected, else 503 and why."""
    gateway: Gateway = request.app.state.gateway
    state = gateway.upstream.state
    body = {
        "status": "ok" if state.connected else "waiting",
        "upstream": {"connected": state.connected, "error": gateway.upstream_reason},
    }
    return JSONResponse(body, 200 if state.connected else 503, {"Cache-Control": "no-store"})


async def asyncapi(_request: Request) -> Response:
    """`/asyncapi.json`: the description of the protocol, for tools."""
    return JSONResponse(describe(__version__), headers={"Cache-Control": "no-cache"})


async def index(request: Request) -> Response:
    """`/`, and `/topics/…` for a browser: the dashboard where it was built, else the small page."""
    built = STATIC / "index.html"
    page = (built if built.exists() else PAGES / "index.html").read_text(encoding="utf-8")
    # only what shows a chart and nothing else may be put into a frame
    is_chart = "embed" in request.query_params and bool(request.path_params.get("filter"))
    origins = request.app.state.gateway.settings.access_origins
    policy = embed_policy(origins) if is_chart else content_security_policy(page)
    raw_path = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    page = page_at(page, raw_path.decode("latin-1"), request.scope.get("root_path", ""))
    return HTMLResponse(page, headers={"Cache-Control": "no-cache", "Content-Security-Policy": policy})


async def whoami(request: Request) -> Response:
    """`/whoami`: who the asker is taken for, until when, and what that allows."""
    takes_tokens = request.app.state.gateway.guard.verifier is not None
    return JSONResponse(identity(principal_of(request.scope), takes_tokens), headers={"Cache-Control": "no-store"})


async def not_built(request: Request) -> Response:
    """Every other path where the web pages were not built."""
    return PlainTextResponse(
        f"{request.url.path} is not here: the dashboard and the client library were not built. In a checkout, "
        "`make web` builds them.\n",
        status_code=404,
    )


def create_app(settings: Settings) -> Starlette:
    """The ASGI application of a gateway with these settings."""
    gateway = Gateway(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with gateway.run():
            yield

    app = Starlette(
        routes=[
            WebSocketRoute("/ws", websocket_endpoint),
            WebSocketRoute("/ws/{stream}", stream_endpoint),
            WebSocketRoute("/ws/{stream}/", stream_endpoint),
            WebSocketRoute("/ws/", websocket_endpoint),
            Route("/ws", upgrade_required),
            Route("/ws/{rest:path}", upgrade_required),
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", metrics),
            Route("/explain", explain),
            Route("/asyncapi.json", asyncapi),
            WebSocketRoute("/mqtt", mqtt_socket),
            Route("/topics", list_topics),
            WebSocketRoute("/topics/{filter:path}", topics_socket),
            Route("/topics/{filter:path}", topics, methods=TOPICS_METHODS),
            Route("/whoami", whoami),
            Route("/", index),
            WebSocketRoute("/{path:path}", no_socket_here),
            Mount("/", Pages(directory=STATIC)) if STATIC.is_dir() else Route("/{path:path}", not_built),
        ],
        middleware=[Middleware(Door, guard=gateway.guard)],
        lifespan=lifespan,
    )
    app.state.gateway = gateway
    app.state.page = index
    return app

"""Runs the application on uvicorn with our WebSocket protocol, and stops it in order.

Invariant: on SIGTERM or SIGINT nothing new is accepted, what is pending is flushed, every subscriber gets a close that
says to come back, and only then the broker is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from gateway.access.limits import Connections
from gateway.app import create_app
from gateway.routes.dashboard import why_not_built
from gateway.runtime import Gateway
from gateway.settings.table import Settings
from gateway.transport.certificates import CHECK_SECONDS, Certificate, server_context
from gateway.transport.endings import Endings
from gateway.transport.http import HttpProtocol
from gateway.transport.listening import Listener
from gateway.transport.proxies import BehindProxies, TrustedProxies
from gateway.transport.rounds import Rounds
from gateway.transport.sockets import INHERITS_OPTIONS, bound, listen
from gateway.transport.turns import Turns
from gateway.transport.websockets import WebSocketProtocol

__all__ = ["GatewayServer", "serve"]

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 5
CUT_SECONDS = 0.5
"""So long before the end of that time answers are cut off."""

GOODBYE_SECONDS = 0.003
"""Processor time that goes into ending connections in one turn of the loop; closing their files takes as long again."""

PING_STEPS_PER_SECOND = 1


class GatewayServer(uvicorn.Server):
    """A uvicorn server that flushes the hub before it closes connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: Gateway,
        settings: Settings,
        on_started: Callable[[], None] | None,
        listener: Listener,
    ) -> None:
        super().__init__(config)
        self.gateway = gateway
        self._settings = settings
        self._listener = listener
        self._pinged: Rounds[WebSocketProtocol] = config.ws.rounds  # type: ignore[union-attr]
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, then says so."""
        protocol: type[WebSocketProtocol] = self.config.ws  # type: ignore[assignment]
        for sock in sockets or []:
            bound(sock, protocol.max_buffer_bytes, protocol.gone_seconds)
        await super().startup([])
        self._listener.start(
            sockets or [],
            lambda: self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            ),
        )
        self._watch_certificate()
        self._rounds = asyncio.create_task(self._ping(self._settings.limit_idle_seconds / 2), name="pings")
        for sock in sockets or []:
            logger.info("listening on %s", _address(sock, "http" if self._listener.context is None else "https"))
        if (reason := why_not_built()) is not None:
            logger.warning("there is only a small page, no dashboard and no client library: %s", reason)
        if self.started and self._on_started is not None:
            self._on_started()

    def _watch_certificate(self) -> None:
        """Takes renewed certificate files within seconds, and at once on SIGHUP, as secrets; it ends no service."""
        settings, loop, context = self._settings, asyncio.get_running_loop(), self._listener.context
        certificate: Certificate | None = None
        if context is not None and settings.tls_cert is not None and settings.tls_key is not None:
            certificate = self.gateway.certificate = Certificate(context, settings.tls_cert, settings.tls_key)

        def check() -> None:
            if certificate is not None:
                certificate.check()

        def watch() -> None:
            check()
            loop.call_later(CHECK_SECONDS, watch)

        if certificate is not None:
            watch()

        def hang_up() -> None:
            check()
            self.gateway.renew_secrets()

        # In a terminal SIGHUP says that its window was closed, and whoever runs us may have a use for it, too.
        if sys.stdin is not None and sys.stdin.isatty():
            return
        # there is none on Windows, and no handler outside of the main thread
        with contextlib.suppress(AttributeError, ValueError, RuntimeError, NotImplementedError):
            if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
                loop.add_signal_handler(signal.SIGHUP, hang_up)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Flush, close with a reconnectable code, leave the broker."""
        self._rounds.cancel()
        await self._listener.stop()
        for sock in sockets or []:
            sock.close()  # who comes from here on finds the next gateway
        cutting = asyncio.create_task(self._cut(), name="end of answers")
        until = time.monotonic() + SHUTDOWN_SECONDS
        await self.gateway.stop()
        await asyncio.sleep(0)  # the loop hands flushed bytes to the system at the end of a turn
        await self._say_goodbye()
        self.config.timeout_graceful_shutdown = max(until - time.monotonic(), CUT_SECONDS)  # type: ignore[assignment]
        await super().shutdown(sockets)
        cutting.cancel()
        if self.force_exit:
            # asked twice: whoever is still served is cut off, and the broker is left as it should be
            self._cut_now()
            for task in list(self.server_state.tasks):
                task.cancel()
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks, timeout=1)
            await self.lifespan.shutdown()

    async def _say_goodbye(self) -> None:
        """Ends all connections, some in each turn of the loop: with thousands of them one would take a second."""
        began = time.thread_time()
        waiting = list(self.server_state.connections)
        while waiting:
            waiting.pop().shutdown()  # and held by nothing here: freeing thousands takes its time, too
            if time.thread_time() - began > GOODBYE_SECONDS and not self.force_exit:
                await asyncio.sleep(0)
                began = time.thread_time()

    async def _cut(self) -> None:
        """Cuts answers off that take too long, before their tasks are cancelled: nobody waits for them any more."""
        await asyncio.sleep(SHUTDOWN_SECONDS - CUT_SECONDS)
        self._cut_now()

    def _cut_now(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.cut()

    async def _ping(self, interval_seconds: float) -> None:
        """Pings every WebSocket once in an interval, a few in each turn of the loop."""
        rounds = self._pinged
        for step in itertools.count():
            await asyncio.sleep(interval_seconds / len(rounds))
            for some in rounds.step(step):
                for connection in some:
                    connection.ping()
                await asyncio.sleep(0)


def _address(sock: socket.socket, scheme: str) -> str:
    """Where a listening socket is: with `port` 0 nobody else knows."""
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def pending_connections(settings: Settings) -> Connections:
    """Counts connections without a request; those of a trusted proxy are of many clients."""
    return Connections(
        settings.limit_connections,
        settings.limit_connections_per_address,
        TrustedProxies(settings.forwarded_allow_ips).__contains__ if settings.forwarded_allow_ips else None,
    )


def make_config(settings: Settings, gateway_app: Starlette, shared_turns: Turns) -> uvicorn.Config:
    """Uvicorn's configuration for these settings; connections take these turns."""
    gateway: Gateway = gateway_app.state.gateway
    shared_endings = Endings()
    parts = max(int(settings.limit_idle_seconds / 2 * PING_STEPS_PER_SECOND), 1)

    class Protocol(WebSocketProtocol):
        head_seconds = settings.limit_handshake_seconds
        accounts = gateway.guard.accounts
        turns = shared_turns
        rounds = Rounds[WebSocketProtocol](parts)
        endings = shared_endings
        max_buffer_bytes = settings.limit_buffer_bytes
        inherits_options = INHERITS_OPTIONS
        gone_seconds = max(settings.limit_idle_seconds, settings.limit_stall_seconds)
        refusals = gateway.refusals

    class Http(HttpProtocol):
        accounts = gateway.guard.accounts
        turns = shared_turns
        collections = gateway.collections
        head_seconds = settings.limit_handshake_seconds
        stall_seconds = settings.limit_stall_seconds
        max_buffer_bytes = settings.limit_buffer_bytes
        inherits_options = INHERITS_OPTIONS
        pending = pending_connections(settings)
        refusals = gateway.refusals

    return uvicorn.Config(
        BehindProxies(gateway_app, settings.forwarded_allow_ips) if settings.forwarded_allow_ips else gateway_app,
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        http=Http,
        ws=Protocol,
        ws_max_size=settings.limit_command_bytes,
        ws_per_message_deflate=False,  # a frame is made once for everyone
        ws_ping_interval=None,  # the gateway's own rounds
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,  # BehindProxies reads them
        root_path=settings.root_path,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=settings.limit_url_bytes + 32 * 1024,
    )


def serve(
    settings: Settings,
    *,
    sockets: list[socket.socket] | None = None,
    on_started: Callable[[], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        settings: what the gateway is told.
        sockets: listening sockets; None opens one on `host` and `port`.
        on_started: called once it listens.

    Raises:
        ArchiveError: another gateway has the archive open.
        RefusedError: the server of the cluster can't be used.
    """
    app = create_app(settings)
    gateway: Gateway = app.state.gateway
    gateway.open_archive()
    if settings.cluster_url is not None:
        asyncio.run(gateway.check_cluster())
    context = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        context = server_context(settings.tls_cert, settings.tls_key)
    turns = Turns()
    listener = Listener(
        context,
        pending=pending_connections(settings),
        handshake_seconds=settings.limit_handshake_seconds,
        refusals=gateway.refusals,
        accounts=gateway.guard.accounts,
        turns=turns,
    )
    gateway.collections.watch()
    server = GatewayServer(make_config(settings, app, turns), gateway, settings, on_started, listener)
    server.run(sockets or [listen(settings.host, settings.port)])

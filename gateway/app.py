"""The application: the table of routes over one gateway.

Invariant: routes are thin; what they do is in the modules they come from, and what lives as long as the gateway hangs
on its `Gateway`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route, WebSocketRoute

from gateway.door.door import Door
from gateway.ops.metrics import Exporter
from gateway.ops.samples import samples
from gateway.routes.alerts import alerts
from gateway.routes.dashboard import STATIC, Pages, index, not_built, whoami
from gateway.routes.devices import device, devices
from gateway.routes.mqtt_pipe import mqtt_socket
from gateway.routes.sharing import share
from gateway.routes.status import asyncapi, explain, live, metrics, ready
from gateway.routes.topics import TOPICS_METHODS, list_topics, topics, topics_socket
from gateway.routes.websocket import no_socket_here, stream_endpoint, upgrade_required, websocket_endpoint
from gateway.runtime import Gateway
from gateway.settings.table import Settings

__all__ = ["create_app"]


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
            Route("/alerts", alerts),
            Route("/asyncapi.json", asyncapi),
            WebSocketRoute("/mqtt", mqtt_socket),
            Route("/topics", list_topics),
            WebSocketRoute("/topics/{filter:path}", topics_socket),
            Route("/topics/{filter:path}", topics, methods=TOPICS_METHODS),
            Route("/devices", devices),
            Route("/devices/{id:path}", device),
            Route("/whoami", whoami),
            Route("/tokens", share, methods=["POST"]),
            Route("/", index),
            WebSocketRoute("/{path:path}", no_socket_here),
            Mount("/", Pages(directory=STATIC)) if STATIC.is_dir() else Route("/{path:path}", not_built),
        ],
        middleware=[Middleware(Door, guard=gateway.guard)],
        lifespan=lifespan,
    )
    app.state.gateway = gateway
    app.state.exporter = Exporter(partial(samples, gateway))
    return app

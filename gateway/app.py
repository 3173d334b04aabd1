"""The application: the table of routes over one gateway.

Invariant: routes are thin; what they do is in the modules they come from, and what lives as long as the gateway hangs
on its `Gateway`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Mount, Route, WebSocketRoute

from gateway.door.door import Door
from gateway.door.refusals import Refusal
from gateway.ops.metrics import Exporter
from gateway.ops.samples import samples
from gateway.routes.alerts import alerts
from gateway.routes.dashboard import STATIC, Pages, index, not_built, whoami, why_not_built
from gateway.routes.devices import device, devices
from gateway.routes.flashing import broker_for_sensors, flash_file, keep_key
from gateway.routes.mqtt_pipe import mqtt_socket
from gateway.routes.revoking import revoke
from gateway.routes.sharing import share
from gateway.routes.status import asyncapi, explain, live, metrics, openapi, ready
from gateway.routes.topics import TOPICS_METHODS, list_topics, topics, topics_socket
from gateway.routes.websocket import no_socket_here, stream_endpoint, upgrade_required, websocket_endpoint
from gateway.runtime import Gateway
from gateway.settings.table import Settings

__all__ = ["create_app"]


class Whole(Convertor[str]):
    """The rest of a path, line breaks and all: a topic may have any."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("whole", Whole())


async def nothing_there(request: Request, error: Exception) -> Response:
    """What has no meaning at an address is told as all refusals are, with what there is instead (RFC 9110 §15.5.6).

    Files have all addresses that no route has, so it is asked here which methods an address has otherwise.
    """
    assert isinstance(error, HTTPException)  # noqa: S101 - nothing else has such a status
    matching = (route for route in request.app.routes if isinstance(route, Route))
    there = {
        method
        for route in matching
        if route.methods is not None and route.matches(request.scope)[0] is Match.PARTIAL
        for method in route.methods
    }
    if not there and error.status_code == 404:
        if not STATIC.is_dir():
            return await not_built(request)
        return PlainTextResponse("Not Found", 404)
    allow = ", ".join(sorted(there or {"GET", "HEAD"}))
    text = f"{request.method[:20]} has no meaning here: there is {allow}"
    raise Refusal(405, "bad_request", "method", text, [("allow", allow)])


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
            Route("/ws/{rest:whole}", upgrade_required),
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", metrics),
            Route("/explain", explain),
            Route("/alerts", alerts),
            Route("/asyncapi.json", asyncapi),
            Route("/openapi.json", openapi),
            WebSocketRoute("/mqtt", mqtt_socket),
            Route("/topics", list_topics),
            WebSocketRoute("/topics/{filter:whole}", topics_socket),
            Route("/topics/{filter:whole}", topics, methods=TOPICS_METHODS),
            Route("/devices", devices),
            Route("/devices/{id:whole}", device),
            Route("/whoami", whoami),
            Route("/tokens", share, methods=["POST"]),
            Route("/tokens/revoke", revoke, methods=["POST"]),
            Route("/flash", index),
            Route("/flash/broker", broker_for_sensors),
            Route("/flash/keys/{id}", keep_key, methods=["POST"]),
            Route("/flash/{name}", flash_file),
            Route("/", index),
            WebSocketRoute("/{path:whole}", no_socket_here),
            Mount("/", Pages(directory=STATIC)) if why_not_built() is None else Route("/{path:whole}", not_built),
        ],
        middleware=[Middleware(Door, guard=gateway.guard)],
        exception_handlers={404: nothing_there, 405: nothing_there},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    app.state.exporter = Exporter(partial(samples, gateway))
    return app

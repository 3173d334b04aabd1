"""The application: the table of routes over one gateway.

Invariant: routes are thin; what they do is in the modules they come from, and what lives as long as the gateway hangs
on its `Gateway`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute

from gateway import __version__
from gateway.access.grants import AccessError, Owner, require_subscribe
from gateway.access.limits import LimitError
from gateway.asyncapi import describe
from gateway.dashboard import Pages, embed_policy, identity, page_at
from gateway.door.content_policy import content_security_policy
from gateway.door.door import Door
from gateway.door.refusals import Refusal, principal_of
from gateway.explain import explain_topic
from gateway.metrics import Exporter
from gateway.mqtt_pipe import mqtt_socket
from gateway.ops.samples import samples
from gateway.runtime import MAX_EXPLANATIONS, Gateway
from gateway.settings import Settings
from gateway.slices import in_slices
from gateway.topics_api import TOPICS_METHODS, list_topics, topics, topics_socket
from gateway.websocket import no_socket_here, stream_endpoint, upgrade_required, websocket_endpoint

__all__ = ["create_app"]

HERE = Path(__file__).parent
STATIC = HERE / "static"
PAGES = HERE / "pages"

STATISTICS = "$SYS/#"
"""Where brokers publish statistics of theirs: who is granted that may read ours, `/metrics`."""


async def live(_request: Request) -> Response:
    """`/health/live`: the process answers."""
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """`/metrics`: for Prometheus."""
    gateway: Gateway = request.app.state.gateway
    # not `policy.is_open`: a role for everybody may be granted little
    if not gateway.is_metrics_public:
        principal = principal_of(request.scope)
        try:
            require_subscribe(principal, [STATISTICS])
        except AccessError as error:
            raise gateway.guard.refused(principal, AccessError(f"/metrics: {error}")) from None
    body, content_type = request.app.state.exporter.render(request.headers.get("accept", ""))
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
    origins = sorted(request.app.state.gateway.guard.origins.listed)
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
    app.state.exporter = Exporter(partial(samples, gateway))
    app.state.page = index
    return app

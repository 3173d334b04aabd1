"""What operators and tools ask: health, metrics, explanations, the description of the protocol.

Invariant: none of it changes anything, and none tells more than its asker is granted.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from gateway import __version__
from gateway.access.grants import AccessError, Owner, require_subscribe
from gateway.access.limits import LimitError
from gateway.devices.views import about_topic
from gateway.door.refusals import Refusal, payer_of, principal_of
from gateway.ops.asyncapi import describe
from gateway.ops.explain import explain_topic
from gateway.ops.openapi import describe_http
from gateway.routes.devices import asker_of
from gateway.routes.request import check_query
from gateway.routes.slices import in_slices
from gateway.runtime import MAX_EXPLANATIONS, Gateway
from gateway.transport.scopes import address_of

__all__ = ["asyncapi", "explain", "live", "metrics", "openapi", "ready"]


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
    await gateway.count_unsent()
    body, content_type = request.app.state.exporter.render(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


async def explain(request: Request) -> Response:
    """`/explain?topic=…`: why the asker sees nothing of a topic."""
    gateway: Gateway = request.app.state.gateway
    asker = Owner(principal_of(request.scope), address_of(request.scope))
    check_query(request.query_params, "explain")
    topic = request.query_params.get("topic", "")
    try:
        place = gateway.explanations.open(payer_of(request.scope))
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
                    topic,
                    asker,
                    upstream=gateway.upstream_facts,
                    upstream_reason=gateway.upstream_reason,
                    cluster=None if gateway.cluster is None else gateway.cluster.explain(gateway.wall_clock_ms()),
                    hub=gateway.hub,
                    now_ms=gateway.wall_clock_ms(),
                    started_ms=int(gateway.started_at * 1000),
                    archive=gateway.archive_reason,
                    archive_lacks=0 if gateway.archive is None else gateway.archive.lacking,
                    left_out_of=gateway.archive.rollups.left_out_of if gateway.archive else lambda _: [],
                    alerts=() if gateway.alerts is None else gateway.alerts.alerts.told_of(topic),
                    devices=about_topic(gateway.devices, topic, asker_of(asker.principal)),
                    decoding=gateway.decoding,
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
    is_connected = gateway.is_connected
    body: dict[str, Any] = {
        "status": "ok" if is_connected else "waiting",
        "upstream": {"connected": is_connected, "error": gateway.upstream_reason},
    }
    if (cluster := gateway.cluster) is not None:
        member = cluster.member
        body["cluster"] = {"role": member.role, "node": member.node, "leader": cluster.leader, "behind": member.lag}
    if gateway.has_archive:
        # the relay goes on without it: no reason to send nobody here any more
        body["archive"] = {"kept": gateway.archive_trouble is None, "error": gateway.archive_reason}
        if gateway.archive is not None and gateway.cluster is not None:
            body["archive"]["lacks"] = gateway.archive.lacking
    return JSONResponse(body, 200 if is_connected else 503, {"Cache-Control": "no-store"})


async def openapi(_request: Request) -> Response:
    """`/openapi.json`: the description of what there is over HTTP, for tools."""
    return JSONResponse(describe_http(__version__), headers={"Cache-Control": "no-cache"})


async def asyncapi(_request: Request) -> Response:
    """`/asyncapi.json`: the description of the protocol, for tools."""
    return JSONResponse(describe(__version__), headers={"Cache-Control": "no-cache"})

"""`/topics` and `/topics/{filter}`: every filter is a URL; what the request accepts decides what comes.

Invariant: thin: each representation has a module of its own.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from gateway.core.filters import FilterSet
from gateway.core.messages import encode_json
from gateway.core.walks import describe_topics, first_names, readable_names
from gateway.door.refusals import principal_of
from gateway.routes.badge import badge
from gateway.routes.dashboard import index_among
from gateway.routes.downloads import download
from gateway.routes.event_stream import event_stream
from gateway.routes.json_page import json_page
from gateway.routes.payload_file import payload_file
from gateway.routes.publishing import publish
from gateway.routes.question import Question, check_filters
from gateway.routes.request import check_query, integer, position_in, representation_of
from gateway.routes.series import series
from gateway.routes.slices import in_slices, place
from gateway.routes.websocket import query_of, run_session
from gateway.runtime import Gateway

__all__ = ["TOPICS_METHODS", "list_topics", "topics", "topics_socket"]


TOPICS_METHODS = ("GET", "POST")
"""What there is at `/topics/{filter}`, besides HEAD."""


async def topics(request: Request) -> Response:
    """`/topics/{filter}`."""
    return await (publish if request.method == "POST" else read_topics)(request)


async def read_topics(request: Request) -> Response:
    """`GET /topics/{filter}`."""
    if "points" in request.query_params:
        return await series(request)
    representation = representation_of(request, "messages")
    if representation == "html":
        return await index_among(request)
    question = Question(request, representation)
    if representation == "sse":
        return event_stream(request, question)
    if representation == "payload":
        return payload_file(request, question)
    question.refuse_live_shapes()
    await question.look_back()
    match representation:
        case "ndjson":
            return await download(request, question, "application/x-ndjson")
        case "csv":
            return await download(request, question, "text/csv; charset=utf-8")
        case "svg":
            return await badge(request, question)
    return await json_page(request, question)


async def topics_socket(websocket: WebSocket) -> None:
    """An upgrade of `/topics/{filter}`: the WebSocket, subscribed to the filter."""
    await run_session(websocket, [websocket.path_params["filter"], *query_of(websocket.scope).getlist("topic")], None)


async def list_topics(request: Request) -> Response:
    """`GET /topics`: the topics that the asker may read, by name, with counts, rates and times.

    `prefix` and `filter` narrow it; `limit` and `after` (a name) make pages. Messages are counted up to the position
    `until`; one of another life of the log changes nothing.
    """
    gateway: Gateway = request.app.state.gateway
    query = request.query_params
    if representation_of(request, "list") == "html":
        return await index_among(request)
    check_query(query, "list")
    limit = integer(query, "limit", "list")
    wanted: FilterSet | None = None
    if named := query.getlist("filter"):
        wanted = FilterSet(check_filters(gateway, named))
    history = gateway.history
    position = history.position
    until = None
    if named_position := query.get("until"):
        epoch, seq = position_in(named_position)
        until = seq if epoch == history.epoch else None
    allowed = FilterSet(grant.topic_filter for grant in principal_of(request.scope).subscribe)
    readable = readable_names(history, wanted, allowed, query.get("prefix", ""))
    async with place():
        names, total = await in_slices(first_names(readable, query.get("after", ""), limit + 1))
        listed = await in_slices(describe_topics(history, names[:limit], gateway.wall_clock_ms(), until))
        # who may read nothing would count and time by it what is hidden
        body: dict[str, Any] = {"position": position if allowed else None, "total": total, "topics": listed}
        if len(names) > limit:
            body["next"] = names[limit - 1]
        answer = encode_json(body)
    headers = {"Cache-Control": "no-cache", "Vary": "Accept"}
    return Response(answer, headers=headers, media_type="application/json")

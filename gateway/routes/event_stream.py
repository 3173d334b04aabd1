"""Live messages as server-sent events.

Invariant: a plain EventSource resumes by itself, since every message's id is its position; a stream ends with the token
that opened it. What is written is the hub's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.access.grants import Owner
from gateway.access.limits import Client, LimitError
from gateway.core.filters import FilterSet
from gateway.core.frames import sse_event
from gateway.core.jobs import Subscription
from gateway.core.messages import encode_json
from gateway.core.parameters import last_event_id
from gateway.core.protocol import CloseCode, ProtocolError, encode_event
from gateway.core.shapes import SHAPE_PARAMETERS, Format, Framing, Shape, shape_from
from gateway.core.since import Since, SinceKind, parse_position
from gateway.door.expiry import Expiry
from gateway.door.refusals import label_of, payer_of, principal_of
from gateway.routes.question import Question
from gateway.routes.request import ApiError, head_only
from gateway.routes.sinks import PulledSink
from gateway.runtime import Gateway
from gateway.transport.http import EXTENSION as PACE
from gateway.transport.scopes import address_of

__all__ = ["KEEP_ALIVE_SECONDS", "RETRY_MS", "event_stream", "stream_of"]


KEEP_ALIVE_SECONDS = 15.0
"""Silence after which an event stream sends a comment, for proxies that close what is silent (nginx after 60 s)."""

PART_BYTES = 64 * 1024
"""The most bytes of an event stream that are handed to the server at once."""

RETRY_MS = 2_000
"""What an EventSource is told to wait before it comes back."""


def event_stream(request: Request, question: Question) -> Response:
    """Server-sent events: a plain EventSource resumes by itself, since every message's id is its position."""
    since = question.since
    # an address is made once, a header for each attempt: where both are, it is the later one
    if last := request.headers.get("last-event-id") or last_event_id(request.query_params.multi_items()):
        try:
            epoch, seq = parse_position(last)
            since = Since(SinceKind.POSITION, epoch=epoch, seq=seq)
        except ProtocolError as error:
            raise ApiError(400, error.code, f"Last-Event-ID: {error}") from None
    named = request.query_params.get("format")
    shape = shape_from(
        {k: v for k, v in request.query_params.items() if k in SHAPE_PARAMETERS and k != "format"},
        Shape(framing=Framing.SSE, format=Format.RAW if named == "raw" else Format.JSON),
    )
    owner, payer = Owner(principal_of(request.scope), address_of(request.scope)), payer_of(request.scope)
    pace = request.scope.get("extensions", {}).get(PACE)
    events = _events(question.gateway, question.filters, shape, since, owner, payer, label_of(request.scope), pace)
    return stream_of(request, events)


def stream_of(request: Request, events: AsyncGenerator[bytes]) -> Response:
    """The answer that these events are, for as long as its client stays; it counts as a connection.

    Args:
        request: what asks for them; a HEAD gets the headers only, since events have no end.
        events: not begun yet. Where there is no room for them, or only headers were asked for, they never begin.

    Raises:
        ApiError: there are too many connections (503).
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
    if request.method == "HEAD":
        return head_only(headers, "text/event-stream")
    connections = request.app.state.gateway.connections
    try:
        key = connections.open(payer_of(request.scope))
    except LimitError as error:
        raise ApiError(503, "limit", str(error), [("retry-after", "10")], reason=error.limit) from None
    return _EventStream(events, headers, partial(connections.close, key))


class _EventStream(StreamingResponse):
    """A streaming response that ends its events, and gives back its place, also when the client went before the first.

    Events that never began have nothing to end: what was taken before them is given back here.
    """

    def __init__(self, events: AsyncGenerator[bytes], headers: dict[str, str], leave: Callable[[], None]) -> None:
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._events = events
        self._leave = leave

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends the events (ASGI)."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            try:
                await self._events.aclose()
            finally:
                self._leave()


async def _events(
    gateway: Gateway,
    filters: FilterSet,
    shape: Shape,
    since: Since,
    owner: Owner,
    payer: Client,
    label: str,
    pace: Callable[[int], Callable[[], int]] | None,
) -> AsyncGenerator[bytes]:
    max_bytes = gateway.limits.buffer_bytes
    sink = PulledSink(gateway.hub, max_bytes, unsent=None if pace is None else pace(max_bytes))

    def tell(event: dict[str, Any]) -> None:
        sink.write(sse_event(encode_json(event), event=event["event"]))

    def mark(position: str) -> None:
        # By HTML §9.2.6 an id alone would do, and reach no listener. But httpx-sse and fetch-event-source make an event
        # with empty data of it, on which their users' JSON parsers fail.
        sink.write(sse_event(encode_event("position", position=position), event="position", position=position))

    def live_from(seq: int) -> None:
        mark(f"{gateway.history.epoch}:{seq}")

    def subscribed(answer: Subscription) -> None:
        members = {"topics": filters.filters, "position": answer.position, "recovered": answer.recovered}
        if gateway.node is not None:
            members["node"] = gateway.node
        # without an id: while the replay is under way a cut connection starts over, or goes on from a message
        sink.write(sse_event(encode_event("subscribed", **members), event="subscribed", retry_ms=RETRY_MS))

    budget = gateway.guard.accounts.payer(payer)
    subscriber = gateway.hub.add(
        sink, shape=shape, tell=tell, label=label, owner=owner, payer=budget, on_live=live_from
    )
    sink.subscriber = subscriber
    gateway.event_streams.add(sink)
    expiry = Expiry(
        gateway.guard,
        asyncio.get_running_loop().call_later,
        lambda left: tell({"event": "expiring", "seconds": round(left)}),
        sink.close,
    )
    expiry.watch(owner.principal)
    try:
        try:
            found = gateway.hub.subscribe(subscriber, filters.filters, since)
        except ProtocolError as error:
            told = encode_event("error", code=error.code, message=str(error))
            sink.write(sse_event(told, event="error", retry_ms=RETRY_MS))
            sink.close(CloseCode.BAD_REQUEST, str(error))
        else:
            found.when_known(subscribed)
            if not gateway.is_connected:
                event = encode_event("upstream", connected=False, **gateway.upstream_trouble)
                sink.write(sse_event(event, event="upstream"))
            if (trouble := gateway.archive_trouble) is not None:
                event = encode_event("archive", kept=False, reason=str(trouble.trouble))
                sink.write(sse_event(event, event="archive"))
        async for data in sink.parts(KEEP_ALIVE_SECONDS, max_bytes=PART_BYTES):
            # no empty line: clients that make an event of a comment would make an empty one
            yield data or b": \n"
            if not data and (position := gateway.hub.position_of(subscriber)) is not None:
                # so that what comes back after hours of silence is still within history
                mark(position)
    finally:
        expiry.cancel()
        gateway.event_streams.discard(sink)
        gateway.hub.remove(subscriber)

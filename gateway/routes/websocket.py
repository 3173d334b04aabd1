"""`/ws` and `/ws/<stream>/`: from a handshake to a session.

Invariant: whatever is wrong with a handshake that was accepted is told in band and by a close code, since a page sees
nothing else.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from urllib.parse import parse_qsl

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.access.grants import AccessError, Principal
from gateway.access.limits import LimitError
from gateway.access.redaction import one_line
from gateway.core.conditions import ShapeError
from gateway.core.frames import frame_text, unframe
from gateway.core.parameters import check_parameters
from gateway.core.protocol import SUBPROTOCOLS, CloseCode, ProtocolError, error_event
from gateway.core.shapes import SHAPE_PARAMETERS, Format, Shape, shape_from
from gateway.core.since import BEHIND
from gateway.core.subscribers import Sink
from gateway.core.topics import TopicError
from gateway.door.refusals import Refusal, label_of, payer_of, principal_of
from gateway.routes.places import take_place
from gateway.routes.session import Session
from gateway.routes.sinks import PulledSink
from gateway.runtime import Gateway
from gateway.transport.scopes import Scope, address_of
from gateway.transport.websockets import EXTENSION

__all__ = [
    "no_socket_here",
    "query_of",
    "run_session",
    "stream_endpoint",
    "upgrade_required",
    "websocket_endpoint",
]


PLAIN = Shape()

CACHED_CHARACTERS = 64
"""A longer parameter is read each time: it is seldom what many send alike, and may be a token."""


def query_of(scope: Scope) -> QueryParams:
    """The parameters of an address; those that many send alike, such as `topic`, are read once."""
    parts = filter(None, scope["query_string"].decode("latin-1").split("&"))
    return QueryParams([_cached(part) if len(part) <= CACHED_CHARACTERS else _parameter(part) for part in parts])


def _parameter(part: str) -> tuple[str, str]:
    return parse_qsl(part, keep_blank_values=True)[0]


_cached = lru_cache(maxsize=1024)(_parameter)


async def run_session(websocket: WebSocket, filters: list[str] | None, shape: Shape | None) -> None:
    """Accepts, subscribes, and leaves the connection to its session."""
    gateway: Gateway = websocket.app.state.gateway
    leave = take_place(websocket)
    try:
        adopt = websocket.scope.get("extensions", {}).get(EXTENSION)
        if adopt is None:
            await websocket.accept(_subprotocol(websocket))
        query = query_of(websocket.scope)
        since = query.get("since")
        refusal: Refusal | None = None
        try:
            check_parameters(query, "ws" if shape is None else "stream")
            chosen = shape_from(_shape_parameters(query), shape or PLAIN)
        except (ShapeError, ProtocolError) as error:
            refusal, chosen = Refusal(400, error.code, error.code, str(error)), shape or PLAIN
        try:
            principal = principal_of(websocket.scope)
        except Refusal as error:
            refusal, principal = error, Principal()
        session = Session(gateway, chosen, principal, label_of(websocket.scope))
        session.address = address_of(websocket.scope)
        session.payer = payer_of(websocket.scope)
        sink: Sink
        pulled: PulledSink | None = None
        if adopt is not None:
            sink = adopt(session, _subprotocol(websocket))
        else:
            sink = pulled = PulledSink(gateway.hub, gateway.limits.buffer_bytes)
        session.open(sink, chosen)
        if pulled is not None:
            pulled.subscriber = session.subscriber
        if refusal is None:
            try:
                topics = query.getlist("topic") if filters is None else filters
                if topics:
                    session.start(topics, since)
            except LimitError as error:
                refusal = Refusal(400, "limit", error.limit, str(error))
            except AccessError as error:
                refusal = gateway.guard.refused(principal, error)
            except ProtocolError as error:
                refusal = Refusal(400, error.code, error.reason or error.code, str(error))
            except (TopicError, ShapeError) as error:
                refusal = Refusal(400, error.code, error.code, str(error))
        if refusal is not None:
            gateway.guard.note(refusal, websocket.scope, websocket.scope["state"]["request_id"])
            session.is_refused = True
            if chosen.format is Format.JSON and refusal.reason != BEHIND:
                told = ProtocolError(refusal.code, str(refusal), reason=refusal.reason)
                sink.write(frame_text(error_event(told)))
            sink.close(_close_code(refusal), str(refusal))
        else:
            session.tell_upstream()
        if pulled is not None:
            await _pull(websocket, session, pulled)
    finally:
        leave()


def _subprotocol(websocket: WebSocket) -> str | None:
    """The first that the client asks for and we know: a browser gives up a connection without any that it asked for."""
    return next((name for name in websocket.scope["subprotocols"] if name in SUBPROTOCOLS), None)


def _close_code(error: Refusal) -> CloseCode:
    if error.reason == "expired":
        return CloseCode.TOKEN_EXPIRED
    if error.reason == BEHIND:
        return CloseCode.RESTART
    if error.reason in ("failed_tokens", "keys_unavailable"):
        return CloseCode.BUSY
    codes = {"forbidden": CloseCode.FORBIDDEN, "unauthorized": CloseCode.UNAUTHORIZED}
    return codes.get(error.code, CloseCode.BAD_REQUEST)


def _shape_parameters(query: QueryParams) -> dict[str, str]:
    return {name: value for name, value in query.items() if name in SHAPE_PARAMETERS}


async def _pull(websocket: WebSocket, session: Session, sink: PulledSink) -> None:
    """The same connection on any other ASGI server: frames are taken apart and sent one by one."""

    async def write() -> None:
        async for data in sink.parts():
            for is_text, body in unframe(data):
                if is_text:
                    await websocket.send_text(body.decode())
                else:
                    await websocket.send_bytes(body)
        assert sink.closed is not None  # noqa: S101 - parts() ends when the sink is closed
        await websocket.close(sink.closed[0], sink.closed[1][:120])

    writer = asyncio.create_task(write(), name=f"writes of {session.label}")
    try:
        while True:
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                break
            session.receive(event["text"] if event.get("text") is not None else event["bytes"])
    except WebSocketDisconnect:
        pass
    finally:
        session.disconnected()
        session.end()
        writer.cancel()


async def websocket_endpoint(websocket: WebSocket) -> None:
    """`/ws`."""
    await run_session(websocket, None, None)


async def no_socket_here(websocket: WebSocket) -> None:
    """A handshake at any other path."""
    principal_of(websocket.scope)  # a bad token counts as one wherever it is tried
    path = one_line(websocket.url.path[:80])
    text = f"no WebSocket is at {path}: there are /ws, /ws/<stream>/ and /topics/<filter>"
    raise Refusal(404, "bad_request", "path", text)


async def upgrade_required(_request: Request) -> Response:
    """`/ws` and streams, asked for without an upgrade (RFC 9110 §15.5.22)."""
    text = "This address is a WebSocket: open it with new WebSocket(…). Over HTTP the same is at /topics/<filter>.\n"
    return Response(text, 426, {"Upgrade": "websocket", "Connection": "Upgrade"}, "text/plain")


async def stream_endpoint(websocket: WebSocket) -> None:
    """`/ws/<stream>/`: data only, no events, for pages that know nothing of MQTT."""
    gateway: Gateway = websocket.app.state.gateway
    name = websocket.path_params["stream"]
    stream = gateway.streams.get(name)
    if stream is None:
        leave = take_place(websocket)
        # accepted, since a browser tells a page of a refused handshake neither status nor text
        try:
            await websocket.accept(_subprotocol(websocket))
            known = ", ".join(sorted(gateway.streams)) or "none"
            text = f"stream {name[:40]!r} is not configured; there are: {known}"
            refusal = Refusal(404, "unknown_stream", "unknown_stream", text)
            gateway.guard.note(refusal, websocket.scope, websocket.scope["state"]["request_id"])
            await websocket.close(CloseCode.UNKNOWN_STREAM, text[:120])
        finally:
            leave()
        return
    await run_session(websocket, list(stream.topics), Shape(format=Format.STREAM, field=stream.field))

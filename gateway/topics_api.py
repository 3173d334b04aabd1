"""`/topics/{filter}`: every filter is a URL; what the request accepts decides what comes.

Invariant: whatever the representation, the same grant is asked for, the same messages come out in the same order, and
what is missing is said. Live events take the hub's way, everything else reads the log in short steps.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket

from gateway.access import AccessError, Owner, may_read, require_publish, require_subscribe
from gateway.guard import Expiry, Refusal, principal_of
from gateway.history import FilterSet, Topic
from gateway.limits import LimitError
from gateway.messages import Message, Properties, json_line, sse_event, unframe
from gateway.protocol import CloseCode, ProtocolError, Since, SinceKind, encode_event, parse_position, parse_since
from gateway.shapes import Format, Framing, Shape, ShapeError, look_up, pick, shape_from
from gateway.sinks import PulledSink
from gateway.topics import TopicError, validate_filter, validate_topic
from gateway.websocket import SHAPE_PARAMETERS, run_session

if TYPE_CHECKING:
    from gateway.app import Gateway

__all__ = ["list_topics", "publish", "read_topics", "topics_socket"]

_encode = msgspec.json.Encoder().encode

KEEP_ALIVE_SECONDS = 15.0
"""A quiet event stream sends a comment so often, for proxies that close what is silent (nginx after 60 s)."""

RETRY_MS = 2_000
"""What an EventSource is told to wait before it comes back."""

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 10_000
"""Messages in one JSON answer."""

LISTED_AT_ONCE = 2_000
"""So many topics are looked at before the loop gets a turn."""

BADGE_AT_ONCE = 200
"""And so many messages when each may have to be decoded."""

CONFIRM_SECONDS = 5.0

REPRESENTATIONS = {
    "application/json": "json",
    "text/event-stream": "sse",
    "application/x-ndjson": "ndjson",
    "text/csv": "csv",
    "text/html": "html",
    "image/svg+xml": "svg",
}


class ApiError(Refusal):
    """A request that can't be answered, as a problem document (RFC 9457)."""

    def __init__(self, status: int, code: str, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(status, code, code, message, headers)


def representation_of(request: Request) -> str:
    """What the request asks for: by `format=`, else the first of its `Accept` types that there is, by preference.

    Raises:
        ApiError: it accepts nothing that there is.
    """
    named = request.query_params.get("format")
    if named is not None:
        if named not in (*REPRESENTATIONS.values(), "raw"):
            raise ApiError(400, "bad_shape", f"format {named!r}: must be json, sse, ndjson, csv, html or svg")
        return "sse" if named == "raw" else named
    accepted: list[tuple[float, int, str]] = []
    header = request.headers.get("accept", "*/*")
    for number, part in enumerate(header.split(",")):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if quality > 0:
            accepted.append((-quality, number, media_type))
    for _, _, media_type in sorted(accepted):
        if media_type in REPRESENTATIONS:
            return REPRESENTATIONS[media_type]
        if media_type in ("*/*", "application/*"):
            return "json"
        if media_type == "text/*":
            return "csv"
    raise ApiError(406, "bad_shape", f"Accept {header[:100]!r}: there are {', '.join(REPRESENTATIONS)}")


class _Question:
    """A request for messages, read and allowed."""

    __slots__ = ("after", "filters", "gap", "gateway", "is_history", "limit", "order", "shape", "since", "until")

    def __init__(self, request: Request) -> None:
        self.gateway: Gateway = request.app.state.gateway
        query = request.query_params
        try:
            found = [validate_filter(f) for f in (request.path_params["filter"], *query.getlist("topic"))]
            if len(found) > self.gateway.settings.limit_filters:
                text = f"limit: {len(found)} topic filters, at most {self.gateway.settings.limit_filters} are allowed"
                raise ApiError(400, "limit", text)
            parameters = {name: value for name, value in query.items() if name in SHAPE_PARAMETERS}
            if parameters.get("format") != "raw":
                parameters.pop("format", None)
            self.shape = shape_from(parameters)
            self.since = parse_since(query.get("since"))
        except (TopicError, ShapeError, ProtocolError) as error:
            raise ApiError(400, error.code, str(error)) from None
        self.filters = FilterSet(found)
        principal = principal_of(request.scope)
        try:
            require_subscribe(principal, self.filters.filters)
        except AccessError as error:
            raise self.gateway.guard.refused(principal, error) from None
        self.order = query.get("order", "asc")
        if self.order not in ("asc", "desc"):
            raise ApiError(400, "bad_shape", f"order {self.order!r}: must be asc or desc")
        self.limit = _integer(query.get("limit"), "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        history = self.gateway.history
        self.until = history.seq
        if (until := query.get("until")) is not None:
            try:
                epoch, seq = parse_position(until)
            except ProtocolError as error:
                raise ApiError(400, error.code, str(error)) from None
            self.until = min(seq, history.seq) if epoch == history.epoch else 0
        # with an `until` and no `since`, or in descending order, it is history that is asked for
        self.is_history = query.get("since") not in (None, "", "last") or "until" in query or "order" in query
        self.after, self.gap = self._start() if query.get("since") else (0, None)

    def _start(self) -> tuple[int, dict[str, Any] | None]:
        """The number to read on from, and what is missing before it."""
        history = self.gateway.history
        since = self.since
        match since.kind:
            case SinceKind.LAST:
                return 0, None
            case SinceKind.NOW:
                return history.seq, None
            case SinceKind.TIME:
                after = history.before_time(since.time)
                if history.reaches(self.filters, since.time):
                    return after, None
                return after, {"reason": "evicted", "lost": None}
            case SinceKind.POSITION:
                if since.epoch != history.epoch:
                    return 0, {"reason": "epoch", "lost": None}
                if since.seq > history.seq:
                    text = f"since {since.epoch}:{since.seq}: is ahead of the log, which is at {history.position}"
                    raise ApiError(400, "bad_since", text)
                lost = history.lost(self.filters, since.seq)
                return since.seq, None if lost == 0 else {"reason": "evicted", "lost": lost}

    def refuse_live_shapes(self) -> None:
        """Says that what needs a stream of messages is not for a snapshot, rather than leaving it out."""
        shape = self.shape
        if shape.is_windowed or shape.deadband is not None:
            text = "max_hz, mode and deadband are for live messages (text/event-stream, /ws), not for answers"
            raise ApiError(400, "bad_shape", text)

    async def messages(self, last_only: bool) -> AsyncIterator[Message]:
        """What is asked for, oldest first; the loop gets a turn after every chunk."""
        history = self.gateway.history
        cursor = self.after
        while cursor < self.until:
            chunk = history.read(self.filters, cursor, self.until, last_only=last_only)
            for message in chunk.messages:
                yield message
            cursor = chunk.cursor
            await asyncio.sleep(0)


def _integer(text: str | None, name: str, default: int, least: int, most: int) -> int:
    if text is None or text == "":
        return default
    if len(text) > 12 or not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ApiError(400, "limit", f"{name} {text[:40]!r}: must be a whole number from {least} to {most}")
    return int(text)


async def read_topics(request: Request) -> Response:
    """`GET /topics/{filter}`."""
    representation = representation_of(request)
    vary = {"Vary": "Accept", "Cache-Control": "no-cache"}
    if representation == "html":
        page: Response = await request.app.state.page(request)
        page.headers["Vary"] = "Accept"
        return page
    question = _Question(request)
    if representation != "sse":
        question.refuse_live_shapes()
    match representation:
        case "sse":
            return _event_stream(request, question)
        case "ndjson":
            return StreamingResponse(_ndjson(question), headers=vary, media_type="application/x-ndjson")
        case "csv":
            name = quote("-".join(question.filters.filters)[:80].replace("/", "-"), safe="")
            headers = {**vary, "Content-Disposition": f"attachment; filename*=UTF-8''{name}.csv"}
            return StreamingResponse(_csv(question), headers=headers, media_type="text/csv; charset=utf-8")
        case "svg":
            return await _badge(request, question)
    return await _json(request, question)


# JSON


async def _json(request: Request, question: _Question) -> Response:
    gateway = question.gateway
    last_only = not question.is_history
    found: list[Message] = []
    bodies: list[bytes] = []
    more = False
    async for message in _newest(question) if question.order == "desc" else question.messages(last_only):
        body = pick(question.shape, message)
        if body is None:
            continue
        if len(found) == question.limit:
            more = True
            break
        found.append(message)
        bodies.append(body)
    epoch = gateway.history.epoch
    edge = found[-1].seq if found else 0
    # what a representation is made of: the messages, and whether they are complete
    parts = (epoch, found[0].seq if found else 0, edge, len(found), int(more), question.shape.properties)
    tag = 'W/"' + "-".join(map(str, parts)) + '"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept"}
    following = ""
    if more:
        following = f"{epoch}:{edge - 1}" if question.order == "desc" else f"{epoch}:{edge}"
        query = [(k, v) for k, v in request.query_params.multi_items() if k not in ("since", "until", "token")]
        if question.order == "desc":
            query += [("until", following), *(("since", v) for v in request.query_params.getlist("since"))]
        else:
            query += [("since", following)] if question.is_history else []
        if question.is_history:
            path = quote(request.path_params["filter"], safe="/")
            headers["Link"] = f'<{request.scope.get("root_path", "")}/topics/{path}?{urlencode(query)}>; rel="next"'
    if any(tag == given.strip() for given in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    head: dict[str, Any] = {"position": f"{epoch}:{question.until}", "recovered": question.gap is None}
    if question.gap is not None:
        head["gap"] = question.gap
    if more:
        head["more"] = True
        if question.is_history:
            head["next"] = following
    answer = b'%b,"messages":[%b]}' % (_encode(head)[:-1], b",".join(bodies))
    return Response(answer, headers=headers, media_type="application/json")


async def _newest(question: _Question) -> AsyncIterator[Message]:
    """What is asked for, newest first; the loop gets a turn now and then."""
    newest = question.gateway.history.backwards(question.filters, question.after, question.until)
    for number, message in enumerate(newest, start=1):
        if message is not None:
            yield message
        if number % LISTED_AT_ONCE == 0:
            await asyncio.sleep(0)


async def _badge(request: Request, question: _Question) -> Response:
    """A sparkline of the newest numbers of the first topic that has some."""
    from gateway.badge import badge_svg

    query = request.query_params
    field = query.get("field")
    name, values, times = "", [], []
    newest = question.gateway.history.backwards(question.filters, question.after, question.until)
    for number, message in enumerate(newest, start=1):
        if number % BADGE_AT_ONCE == 0:
            await asyncio.sleep(0)
        if message is None or (name and message.topic != name):
            continue
        value = message.value()
        if isinstance(value, dict):
            if field is None:
                field = next((k for k, v in value.items() if _is_number(v) and k not in ("ts", "seq", "boot")), None)
            value = look_up(value, field) if field else None
        if _is_number(value):
            name = message.topic
            values.append(float(value))
            times.append(message.time)
            if len(values) >= 120:
                break
    title = query.get("title") or (f"{name} {field}" if field else name) or question.filters.filters[0]
    svg = badge_svg(title[:80], values[::-1], times[::-1], (query.get("unit") or "")[:12], query.get("theme") == "dark")
    return Response(svg, headers={"Cache-Control": "no-cache", "Vary": "Accept"}, media_type="image/svg+xml")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# downloads


async def _ndjson(question: _Question) -> AsyncIterator[bytes]:
    if question.gap is not None:
        yield _encode({"event": "gap", **question.gap}) + b"\n"
    batch: list[bytes] = []
    async for message in question.messages(last_only=False):
        body = pick(question.shape, message)
        if body is not None:
            batch.append(json_line(body))
        if len(batch) >= 200:
            yield b"\n".join(batch) + b"\n"
            batch.clear()
    if batch:
        yield b"\n".join(batch) + b"\n"


async def _csv(question: _Question) -> AsyncIterator[bytes]:
    fields = question.shape.fields
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["time", "seq", "topic", *(fields or ["payload"])])
    async for message in question.messages(last_only=False):
        if pick(question.shape, message) is None:
            continue
        moment = datetime.fromtimestamp(message.time / 1000, UTC).isoformat(timespec="milliseconds")
        if fields:
            value = message.value()
            cells = [_cell(look_up(value, path)) for path in fields]
        else:
            cells = [message.payload.decode() if message.kind.name != "BASE64" else message.token[1:-1].decode()]
        writer.writerow([moment.replace("+00:00", "Z"), message.seq, message.topic, *cells])
        if buffer.tell() > 32_768:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _encode(value).decode()


# live


def _event_stream(request: Request, question: _Question) -> Response:
    """Server-sent events: a plain EventSource resumes by itself, since every message's id is its position."""
    gateway = question.gateway
    since = question.since
    if (last := request.headers.get("last-event-id")) is not None:
        try:
            epoch, seq = parse_position(last)
            since = Since(SinceKind.POSITION, epoch=epoch, seq=seq)
        except ProtocolError as error:
            raise ApiError(400, error.code, f"Last-Event-ID: {error}") from None
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
    if request.method == "HEAD":
        return Response(headers=headers, media_type="text/event-stream")  # the events would never end
    named = request.query_params.get("format")
    shape = shape_from(
        {k: v for k, v in request.query_params.items() if k in SHAPE_PARAMETERS and k != "format"},
        Shape(framing=Framing.SSE, format=Format.RAW if named == "raw" else Format.JSON),
    )
    try:
        key = gateway.connections.open(request.client.host if request.client else None)
    except LimitError as error:
        gateway.refusals.count(error.limit)
        raise ApiError(503, "limit", str(error), [("retry-after", "10")]) from None
    principal = principal_of(request.scope)
    owner = Owner(principal, request.client.host if request.client else None)
    events = _events(gateway, question.filters, shape, since, owner, gateway.label_of(request), key)
    return _EventStream(events, headers)


class _EventStream(StreamingResponse):
    """A streaming response that ends its events also when the client has gone before the first one."""

    def __init__(self, events: AsyncGenerator[bytes], headers: dict[str, str]) -> None:
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def _events(
    gateway: Gateway,
    filters: FilterSet,
    shape: Shape,
    since: Since,
    owner: Owner,
    label: str,
    key: str,
) -> AsyncGenerator[bytes]:
    sink = PulledSink(gateway.hub, gateway.settings.limit_buffer_bytes)

    def tell(event: dict[str, Any]) -> None:
        sink.write(sse_event(_encode(event), event=event["event"]))

    subscriber = gateway.hub.add(sink, shape=shape, tell=tell, label=label, owner=owner)
    sink.subscriber = subscriber
    gateway.streams.add(sink)
    expiry = Expiry(
        gateway.guard,
        asyncio.get_running_loop().call_later,
        lambda left: tell({"event": "expiring", "seconds": round(left)}),
        lambda: sink.close(CloseCode.TOKEN_EXPIRED, "the token has expired"),
    )
    expiry.watch(owner.principal)
    try:
        sink.write(b"retry: %d\n\n" % RETRY_MS)
        try:
            answer = gateway.hub.subscribe(subscriber, filters.filters, since)
        except ProtocolError as error:
            sink.write(sse_event(encode_event("error", code=error.code, message=str(error)), event="error"))
            sink.close(CloseCode.BAD_REQUEST, str(error))
        else:
            members = {"topics": filters.filters, "position": answer.position, "recovered": answer.recovered}
            # without an id: until the first message a cut connection starts over as it began
            sink.write(sse_event(encode_event("subscribed", **members), event="subscribed"))
            if not gateway.is_connected:
                event = encode_event("upstream", connected=False, reason=gateway.upstream_reason)
                sink.write(sse_event(event, event="upstream"))
        async for data in sink.parts(KEEP_ALIVE_SECONDS):
            yield data or b": \n\n"
    finally:
        expiry.cancel()
        gateway.streams.discard(sink)
        gateway.hub.remove(subscriber)
        gateway.connections.close(key)


async def topics_socket(websocket: WebSocket) -> None:
    """An upgrade of `/topics/{filter}`: the WebSocket, subscribed to the filter."""
    await run_session(websocket, [websocket.path_params["filter"], *websocket.query_params.getlist("topic")], None)


# publishing


async def publish(request: Request) -> Response:
    """`POST /topics/{topic}`: publishes the body; `qos`, `retain` and `confirm` in the query.

    With `confirm=1` the answer waits until the message has come back from the broker, and gives its position.
    """
    gateway: Gateway = request.app.state.gateway
    topic = request.path_params["filter"]
    principal = principal_of(request.scope)
    try:
        validate_topic(topic)
        require_publish(principal, topic)
    except TopicError as error:
        raise ApiError(400, error.code, str(error)) from None
    except AccessError as error:
        raise gateway.guard.refused(principal, error) from None
    query = request.query_params
    qos = _integer(query.get("qos"), "qos", 0, 0, 2)
    retain = query.get("retain", "") in ("1", "true", "yes")
    gateway.take_publish(request)
    payload = await request.body()
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/json":
        try:
            msgspec.json.decode(payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ApiError(400, "bad_payload", f"the body is not valid JSON: {error}") from None
    properties: Properties | None = None
    if query.get("properties") in ("1", "true", "yes") and content_type:
        properties = {"content_type": content_type}
    waiter = _Echo(gateway, topic, payload) if query.get("confirm") in ("1", "true", "yes") else None
    try:
        try:
            await gateway.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        except ProtocolError as error:
            if error.code == "bad_topic":
                raise ApiError(400, error.code, str(error)) from None
            status = HTTPStatus.SERVICE_UNAVAILABLE if error.code == "upstream_unavailable" else HTTPStatus.BAD_GATEWAY
            raise ApiError(status, error.code, str(error), [("retry-after", "5")]) from None
        answer: dict[str, Any] = {"topic": topic, "qos": qos, "retain": retain}
        if waiter is not None:
            answer["position"] = await waiter.position()
        return Response(_encode(answer), 202, media_type="application/json")
    finally:
        if waiter is not None:
            waiter.close()


class _Echo:
    """Waits for a message to come back from the broker."""

    def __init__(self, gateway: Gateway, topic: str, payload: bytes) -> None:
        self._gateway = gateway
        self._start = Message.arrived(0, topic, payload, 0).body.partition(b',"time":')[0] + b',"time":'
        self._found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._subscriber = gateway.hub.add(self, label="confirmation of a publish")
        gateway.hub.subscribe(self._subscriber, [topic], Since(SinceKind.NOW))

    def write(self, data: bytes) -> None:
        for _, body in unframe(data):
            if body.startswith(self._start) and not self._found.done():
                seq = msgspec.json.decode(body)["seq"]
                self._found.set_result(f"{self._gateway.history.epoch}:{seq}")

    def buffered(self) -> int:
        return 0

    def close(self, _code: CloseCode = CloseCode.NORMAL, _reason: str = "") -> None:
        self._gateway.hub.remove(self._subscriber)

    async def position(self) -> str | None:
        """Its position; None when it has not come back in time (the gateway may not subscribe to this topic)."""
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                return await self._found
        except TimeoutError:
            return None


# the list of topics


async def list_topics(request: Request) -> Response:
    """`GET /topics`: the topics that the asker may read, by name, with counts, rates and times.

    `prefix` and `filter` narrow it; `limit` and `after` (a name) make pages.
    """
    gateway: Gateway = request.app.state.gateway
    query = request.query_params
    if representation_of(request) == "html":
        page: Response = await request.app.state.page(request)
        return page
    principal = principal_of(request.scope)
    prefix, after = query.get("prefix", ""), query.get("after", "")
    limit = _integer(query.get("limit"), "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    filters = None
    if named := query.getlist("filter"):
        try:
            filters = FilterSet(validate_filter(f) for f in named)
        except TopicError as error:
            raise ApiError(400, error.code, str(error)) from None
    history = gateway.history
    position = history.position
    reads_all = any(grant.topic_filter == "#" for grant in principal.subscribe)
    names: list[str] = []
    for number, topic in enumerate(list(history.topics(filters)), start=1):
        name = topic.name
        if name.startswith(prefix) and name > after and ((reads_all and name[0] != "$") or may_read(principal, name)):
            names.append(name)
        if number % LISTED_AT_ONCE == 0:
            await asyncio.sleep(0)
    names.sort()
    shown = [state for name in names[:limit] if (state := history.topic(name)) is not None]
    body: dict[str, Any] = {
        "position": position,
        "total": len(names),
        "topics": [_listed(state) for state in shown],
    }
    if len(names) > limit:
        body["next"] = names[limit - 1]
    return Response(_encode(body), headers={"Cache-Control": "no-cache"}, media_type="application/json")


def _listed(topic: Topic) -> dict[str, Any]:
    last = topic.last
    return {
        "topic": topic.name,
        "count": topic.count,
        "kept": len(topic),
        "rate": float(f"{topic.rate():.4g}"),
        "time": last.time if last else None,
        "retained": bool(last and last.retained),
        "bytes": len(last.token) if last else 0,
    }

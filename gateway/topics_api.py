"""`/topics/{filter}`: every filter is a URL; what the request accepts decides what comes.

Invariant: whatever the representation, the same grant is asked for, the same messages come out in the same order, and
what is missing is said, also where it went while an answer was being written. Live events take the hub's way,
everything else reads the log in short steps.
"""

from __future__ import annotations

import asyncio
import csv
import io
import logging
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket

from gateway.access.grants import AccessError, Owner, require_publish, require_subscribe
from gateway.access.limits import LimitError
from gateway.core.filters import FilterSet
from gateway.core.frames import json_line, sse_event, unframe
from gateway.core.history import History
from gateway.core.messages import Message, Properties
from gateway.core.protocol import CloseCode, ProtocolError, encode_event
from gateway.core.shapes import (
    BOOKKEEPING,
    MAX_DEPTH,
    MAX_FIELDS_LENGTH,
    Field,
    Format,
    Framing,
    Shape,
    ShapeError,
    is_number,
    look_up,
    pick,
    shape_from,
)
from gateway.core.since import Since, SinceKind, parse_position, parse_since
from gateway.core.topics import TopicError, validate_filter, validate_topic
from gateway.door.expiry import Expiry
from gateway.door.refusals import Refusal, label_of, principal_of
from gateway.runtime import Gateway
from gateway.sinks import PulledSink
from gateway.slices import Stride, in_slices
from gateway.transport.http import EXTENSION as PACE
from gateway.websocket import SHAPE_PARAMETERS, run_session

__all__ = ["TOPICS_METHODS", "list_topics", "topics", "topics_socket"]

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode

KEEP_ALIVE_SECONDS = 15.0
"""A quiet event stream sends a comment so often, for proxies that close what is silent (nginx after 60 s)."""

PART_BYTES = 64 * 1024
"""An event stream is handed to the server in parts of so many bytes at most."""

RETRY_MS = 2_000
"""What an EventSource is told to wait before it comes back."""

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 10_000
"""Messages in one JSON answer."""

MAX_PAGE_BYTES = 8 * 2**20
"""And about so many bytes of them."""

MAX_DOWNLOAD = 1_000_000_000
"""Messages in one download."""

AT_ONCE = 200
"""So many topics are looked at before the loop may get a turn."""

SHORT_STRETCH = 2_000
"""So many numbers of the log are sooner walked than the topics."""

CONFIRM_SECONDS = 5.0

TOPICS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What is answered at `/topics/{filter}`, be it with what there is instead."""

REPRESENTATIONS = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "text/csv": "csv",
    "text/html": "html",
    "image/svg+xml": "svg",
    "text/event-stream": "sse",
}
"""What there is by media type; of those that are as welcome, the first."""

_MESSAGE_PARAMETERS = SHAPE_PARAMETERS | {"topic", "since", "token"}
_PAGE_PARAMETERS = _MESSAGE_PARAMETERS | {"until", "order", "limit", "after"}

PARAMETERS = {
    "json": _PAGE_PARAMETERS,
    "ndjson": _PAGE_PARAMETERS,
    "csv": _PAGE_PARAMETERS,
    "sse": _MESSAGE_PARAMETERS,
    "svg": frozenset({"topic", "since", "until", "where", "format", "token", "field", "title", "unit", "theme"}),
    "list": frozenset({"prefix", "filter", "limit", "after", "format", "token"}),
    "publish": frozenset({"qos", "retain", "confirm", "properties", "token"}),
}
"""What a query may hold, by what is asked for. A page (html) reads its own."""


class ApiError(Refusal):
    """A request that can't be answered, as a problem document (RFC 9457)."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        reason: str | None = None,
    ) -> None:
        """`reason`: what is counted and told besides the code, where it says more."""
        super().__init__(status, code, reason or code, message, headers)


def representation_of(request: Request) -> str:
    """What the request asks for: by `format=`, else what its `Accept` prefers (RFC 9110 §12.5.1).

    Raises:
        ApiError: it accepts nothing that there is.
    """
    named = request.query_params.get("format")
    if named is not None:
        if named not in (*REPRESENTATIONS.values(), "raw"):
            raise ApiError(400, "bad_shape", f"format {named!r}: must be json, sse, ndjson, csv, html or svg")
        return "sse" if named == "raw" else named
    header = request.headers.get("accept", "").strip() or "*/*"
    ranges: dict[str, tuple[float, int]] = {}
    for number, part in enumerate(header.split(",")):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        ranges.setdefault(media_range, (_quality(parameters), -number))
    best = (0.0, 0)
    chosen = None
    for media_type, name in REPRESENTATIONS.items():
        # the most specific range is the one that counts, the first one of those that are as welcome
        candidates = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        rank = next((ranges[candidate] for candidate in candidates if candidate in ranges), (0.0, 0))
        if rank[0] > 0 and (chosen is None or rank > best):
            best, chosen = rank, name
    if chosen is not None:
        return chosen
    raise ApiError(406, "bad_shape", f"Accept {header[:100]!r}: there are {', '.join(REPRESENTATIONS)}")


def _quality(parameters: list[str]) -> float:
    """How welcome a media range is, from 0 (not at all) to 1."""
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                return 0.0
            return min(quality, 1.0) if quality > 0 else 0.0
    return 1.0


def _check_parameters(query: QueryParams, what: str) -> None:
    """Refuses a parameter that would have no effect; one that begins with `_` is the asker's own, against caches."""
    known = PARAMETERS[what]
    for name in query:
        if name not in known and not name.startswith("_"):
            text = f"query parameter {name[:40]!r}: is not known; known are {', '.join(sorted(known))}"
            raise ApiError(400, "bad_request", text)


class _Question:
    """A request for messages, read and allowed.

    Attributes:
        after, until: numbers between which history is asked for; `until` is included.
        after_name: the topic behind which last values go on.
        is_history: whether history is asked for, not last values.
        gap: what is known to be missing before anything was read.
        is_promise: whether what has been evicted since `after` is to be told.
    """

    __slots__ = (
        "after",
        "after_name",
        "filters",
        "gap",
        "gateway",
        "is_history",
        "is_promise",
        "limit",
        "order",
        "shape",
        "since",
        "until",
    )

    def __init__(self, request: Request, representation: str) -> None:
        self.gateway: Gateway = request.app.state.gateway
        query = request.query_params
        try:
            found = [validate_filter(f) for f in (request.path_params["filter"], *query.getlist("topic"))]
            _require_few(self.gateway, found)
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
        _check_parameters(query, representation)
        self.order = query.get("order", "asc")
        if self.order not in ("asc", "desc"):
            raise ApiError(400, "bad_shape", f"order {self.order!r}: must be asc or desc")
        is_download = representation in ("ndjson", "csv")
        if is_download:
            self.limit = _integer(query.get("limit"), "limit", MAX_DOWNLOAD, 1, MAX_DOWNLOAD)
        else:
            self.limit = _integer(query.get("limit"), "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        since = query.get("since") or ("" if is_download else "last")
        self.is_history = since != "last" or "until" in query or "order" in query
        self.after_name = query.get("after", "")
        if self.after_name and self.is_history:
            raise ApiError(400, "bad_request", "after: is for last values; history goes on with since, or with until")
        self.is_promise = False
        self.gap: dict[str, Any] | None = None
        self.after = self._start()
        history = self.gateway.history
        self.until = history.seq
        if (until := query.get("until")) is not None:
            try:
                epoch, seq = parse_position(until)
            except ProtocolError as error:
                raise ApiError(400, error.code, str(error)) from None
            if epoch == history.epoch:
                self.until = min(seq, history.seq)
            else:
                self.until, self.gap = 0, {"reason": "epoch", "lost": None}

    def _start(self) -> int:
        """The number to read on from."""
        history = self.gateway.history
        since = self.since
        match since.kind:
            case SinceKind.LAST:
                return 0
            case SinceKind.NOW:
                return history.seq
            case SinceKind.TIME:
                self.is_promise = True
                return history.before_time(since.time)
            case SinceKind.POSITION:
                if since.epoch != history.epoch:
                    self.gap = {"reason": "epoch", "lost": None}
                    return 0
                if since.seq > history.seq:
                    text = f"since {since.epoch}:{since.seq}: is ahead of the log, which is at {history.position}"
                    raise ApiError(400, "bad_since", text)
                self.is_promise = True
                return since.seq

    async def look_back(self) -> None:
        """Finds out whether history reaches back to the time that is asked for."""
        if self.since.kind is not SinceKind.TIME or self.gap is not None:
            return
        if not await in_slices(_reaches(self.gateway.history, self.filters, self.since.time)):
            self.gap = {"reason": "evicted", "lost": None}

    def refuse_live_shapes(self) -> None:
        """Says that what needs a stream of messages is not for a snapshot, rather than leaving it out."""
        shape = self.shape
        if shape.is_windowed or shape.deadband is not None:
            text = "max_hz, mode and deadband are for live messages (text/event-stream, /ws), not for answers"
            raise ApiError(400, "bad_shape", text)

    def messages(self) -> AsyncIterator[Message]:
        """What is asked for, in order; the loop gets a turn now and then."""
        if not self.is_history:
            return self._last_values()
        return self._newest() if self.order == "desc" else self._oldest()

    async def _oldest(self) -> AsyncIterator[Message]:
        history = self.gateway.history
        cursor = self.after
        stride = Stride()
        while cursor < self.until:
            chunk = history.read(self.filters, cursor, self.until)
            for message in chunk.messages:
                yield message
                if stride.is_over:
                    await stride.rest()
            cursor = chunk.cursor
            if stride.is_over:
                await stride.rest()

    async def _newest(self) -> AsyncIterator[Message]:
        stride = Stride()
        for message in self.gateway.history.backwards(self.filters, self.after, self.until):
            if message is not None:
                yield message
            if stride.is_over:
                await stride.rest()

    async def _last_values(self) -> AsyncIterator[Message]:
        """The newest message of every topic, by name: as of when it is read, so that none is missed for its haste."""
        history = self.gateway.history
        after = self.after_name
        stride = Stride()
        while True:
            names, _ = await in_slices(_first(_names(history, self.filters), after, MAX_LIMIT))
            for name in names:
                state = history.topic(name)
                if state is not None and state.last is not None:
                    yield state.last
                if stride.is_over:
                    await stride.rest()
            if len(names) < MAX_LIMIT:
                return
            after = names[-1]


def _require_few(gateway: Gateway, filters: list[str]) -> None:
    """Refuses more filters than one subscriber may have."""
    limits = gateway.limits
    if len(filters) > limits.filters:
        text = f"limit: {len(filters)} topic filters, at most {limits.filters} are allowed"
        raise ApiError(400, "limit", text, reason="filters")
    size = sum(len(text.encode()) for text in filters)
    if size > limits.filter_bytes:
        text = f"limit: topic filters of {size} bytes in all, at most {limits.filter_bytes} are allowed"
        raise ApiError(400, "limit", text, reason="filter_bytes")


# long walks, made for `in_slices`: each begins with its first turn


def _names(history: History, filters: FilterSet) -> Iterator[str]:
    for state in list(history.topics(filters)):
        yield state.name


def _first(names: Iterable[str | None], after: str, count: int) -> Generator[None, None, tuple[list[str], int]]:
    """The first `count` of these names behind `after`, sorted, and how many names there are in all; None is none."""
    total = 0
    first: list[str] = []
    more: list[str] = []
    for number, name in enumerate(names, start=1):
        if name is not None:
            total += 1
            if name > after and (len(first) < count or name < first[-1]):
                more.append(name)
        if number % AT_ONCE == 0:
            if len(more) > 5 * AT_ONCE:
                first = sorted(first + more)[:count]
                more = []
            yield
    return sorted(first + more)[:count], total


def _parts(history: History, filters: FilterSet) -> Iterator[FilterSet]:
    """The same topics in parts that are each soon looked through."""
    if filters.is_exact:
        yield filters
        return
    states = list(history.topics(filters))
    for at in range(0, max(len(states), 1), AT_ONCE):
        yield FilterSet(state.name for state in states[at : at + AT_ONCE])


def _reaches(history: History, filters: FilterSet, time: int) -> Generator[None, None, bool]:
    """`History.reaches`."""
    for part in _parts(history, filters):
        if not history.reaches(part, time):
            return False
        yield
    return True


def _account(
    history: History, filters: FilterSet, after: int, until: int
) -> Generator[None, None, tuple[int, int | None]]:
    """How many matching messages with `after` < seq <= `until` are kept, and how many evicted (None: unknown).

    For each topic the sum of both stays the same whatever is evicted meanwhile, so the answer may take its time.
    """
    if after >= until:
        return 0, 0
    if after >= history.evicted_seq and until - after <= SHORT_STRETCH:
        return history.count(filters, after, until), 0
    kept = 0
    lost: int | None = 0
    for part in _parts(history, filters):
        kept += history.count(part, after, until)
        if lost is not None:
            found = history.lost(part, after, until)
            lost = None if found is None else lost + found
        yield
    return kept, lost


def _integer(text: str | None, name: str, default: int, least: int, most: int) -> int:
    if text is None or text == "":
        return default
    if len(text) > 12 or not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ApiError(400, "limit", f"{name} {text[:40]!r}: must be a whole number from {least} to {most}")
    return int(text)


def _flag(query: QueryParams, name: str) -> bool:
    text = query.get(name, "")
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("", "0", "false", "no"):
        return False
    raise ApiError(400, "bad_request", f"{name} {text[:40]!r}: must be 1 or 0, true or false")


async def topics(request: Request) -> Response:
    """`/topics/{filter}`."""
    match request.method:
        case "GET" | "HEAD":
            return await read_topics(request)
        case "POST":
            return await publish(request)
    text = f"{request.method} has no meaning here: there are GET, HEAD, and POST to publish"
    raise ApiError(405, "bad_request", text, [("allow", "GET, HEAD, POST")], reason="method")


async def read_topics(request: Request) -> Response:
    """`GET /topics/{filter}`."""
    representation = representation_of(request)
    if representation == "html":
        page: Response = await request.app.state.page(request)
        page.headers.add_vary_header("Accept")
        return page
    question = _Question(request, representation)
    if representation == "sse":
        return _event_stream(request, question)
    question.refuse_live_shapes()
    await question.look_back()
    match representation:
        case "ndjson":
            return await _download(request, question, "application/x-ndjson")
        case "csv":
            return await _download(request, question, "text/csv; charset=utf-8")
        case "svg":
            return await _badge(request, question)
    return await _json(request, question)


# JSON


async def _json(request: Request, question: _Question) -> Response:
    """A page of history or of last values."""
    history = question.gateway.history
    epoch = history.epoch
    position = f"{epoch}:{question.until if question.is_history else history.seq}"
    is_falling = question.order == "desc"
    found: list[Message] = []
    bodies: list[bytes] = []
    size = seen = 0
    edge: Message | None = None  # the first of the next page
    async for message in question.messages():
        body = pick(question.shape, message)
        if body is not None:
            if len(found) == question.limit or (found and size + len(body) > MAX_PAGE_BYTES):
                edge = message
                break
            found.append(message)
            bodies.append(body)
            size += len(body)
        seen += 1
    gap = question.gap
    if gap is None and question.is_promise:
        low = question.after if edge is None or not is_falling else edge.seq
        high = question.until if edge is None or is_falling else edge.seq - 1
        gap = await _missing(question, low, high, seen)
    # what a representation is made of: the messages, and whether they are complete
    numbers = array("Q", (message.seq for message in found))
    digest = blake2b(numbers.tobytes(), digest_size=12).hexdigest()
    parts = [epoch, digest, len(found), int(edge is not None), int(question.shape.properties)]
    if gap is not None:
        parts += [gap["reason"], gap["lost"]]
    tag = 'W/"' + "-".join(map(str, parts)) + '"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept"}
    head: dict[str, Any] = {"position": position, "recovered": gap is None}
    if gap is not None:
        head["gap"] = gap
    if edge is not None:
        if not question.is_history:
            name, following = "after", found[-1].topic
        elif is_falling:
            name, following = "until", f"{epoch}:{edge.seq}"
        else:
            name, following = "since", f"{epoch}:{edge.seq - 1}"
        head |= {"more": True, "next": following}
        query = [(k, v) for k, v in request.query_params.multi_items() if k not in (name, "token")]
        path = quote(request.path_params["filter"], safe="/")
        target = f"{request.scope.get('root_path', '')}/topics/{path}?{urlencode([*query, (name, following)])}"
        headers["Link"] = f'<{target}>; rel="next"'
    given = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    if tag.removeprefix("W/") in given or "*" in given:  # RFC 9110 §13.1.2: the weak comparison
        return Response(status_code=304, headers=headers)
    answer = b'%b,"messages":[%b]}' % (_encode(head)[:-1], b",".join(bodies))
    return Response(answer, headers=headers, media_type="application/json")


async def _missing(question: _Question, low: int, high: int, seen: int) -> dict[str, Any] | None:
    """The gap if fewer messages were seen than there were with `low` < seq <= `high`."""
    history = question.gateway.history
    if low >= history.evicted_seq:
        return None
    kept, lost = await in_slices(_account(history, question.filters, low, high))
    if lost is None:
        return {"reason": "evicted", "lost": None}
    return {"reason": "evicted", "lost": kept + lost - seen} if kept + lost > seen else None


async def _badge(request: Request, question: _Question) -> Response:
    """A sparkline of the newest numbers of the first topic that has some."""
    from gateway.badge import badge_svg

    query = request.query_params
    field = None if "field" not in query else _field(query["field"])
    name, values, times = "", [], []
    stride = Stride()
    for message in question.gateway.history.backwards(question.filters, question.after, question.until):
        if stride.is_over:
            await stride.rest()
        if message is None or (name and message.topic != name) or pick(question.shape, message) is None:
            continue
        value = message.value()
        if isinstance(value, dict):
            if field is None:
                names = (k for k, v in value.items() if is_number(v) and k not in BOOKKEEPING)
                field = next((Field(k, (k,)) for k in names), None)
            value = look_up(value, field) if field else None
        if is_number(value):
            name = message.topic
            values.append(float(value))
            times.append(message.time)
            if len(values) >= 120:
                break
    title = query.get("title") or (f"{name} {field.text}" if field else name) or question.filters.filters[0]
    unit, is_dark, now = (query.get("unit") or "")[:12], query.get("theme") == "dark", question.gateway.wall_clock_ms()
    svg = badge_svg(title[:80], values[::-1], times[::-1], unit, is_dark, now)
    return Response(svg, headers={"Cache-Control": "no-cache", "Vary": "Accept"}, media_type="image/svg+xml")


def _field(text: str) -> Field | None:
    """The member that a badge is asked for; None for the first number."""
    if len(text) > MAX_FIELDS_LENGTH or text.count(".") >= MAX_DEPTH:
        limits = f"{MAX_FIELDS_LENGTH} characters and {MAX_DEPTH} levels"
        raise ApiError(400, "bad_shape", f"field {text[:40]!r}…: has more than {limits}")
    return Field.at(text) if text else None


# downloads


class _Incomplete(Exception):  # noqa: N818 - it is no error
    """A download can't be completed: what was still to come has been evicted."""


class _Download:
    """What a download reads, and what went missing while its reader took its time.

    Attributes:
        gap: what had gone at the start of what was promised.
        begins_late: what had gone at the start of what is read, promised or not; None if it can be complete.
    """

    def __init__(self, question: _Question) -> None:
        self.question = question
        self.gap = question.gap
        self.begins_late = self.gap
        self._expected = 0
        self._seen = 0
        self._evicted = 0
        self._edge: int | None = None  # the number of the first message beyond the limit

    async def start(self) -> None:
        """Counts what is to come, and sets `gap` to what has gone already."""
        question = self.question
        history = question.gateway.history
        if question.is_history:
            self._evicted = history.evicted
            work = _account(history, question.filters, question.after, question.until)
            self._expected, lost = await in_slices(work)
            if self.gap is None and lost != 0:
                self.begins_late = {"reason": "evicted", "lost": lost}
                if question.is_promise:
                    self.gap = self.begins_late

    async def messages(self) -> AsyncIterator[tuple[Message, bytes]]:
        """The messages and their envelopes, up to the limit."""
        question = self.question
        count = 0
        async for message in question.messages():
            body = pick(question.shape, message)
            if body is not None:
                if count == question.limit:
                    self._edge = message.seq
                    return
                count += 1
                yield message, body
            self._seen += 1

    async def missing(self) -> dict[str, Any] | None:
        """What has been evicted before it was read."""
        question = self.question
        history = question.gateway.history
        if not question.is_history or history.evicted == self._evicted:
            return None
        left = self._expected - self._seen
        if self._edge is not None:
            is_falling = question.order == "desc"
            low, high = (question.after, self._edge) if is_falling else (self._edge - 1, question.until)
            left -= (await in_slices(_account(history, question.filters, low, high)))[0]
        if left <= 0:
            return None
        # with a limit some of it may be what would not have come anyway
        return {"reason": "evicted", "lost": left if self._edge is None else None}


class _DownloadResponse(StreamingResponse):
    """A streaming response that breaks off where it can't be completed, so that whoever downloads it sees a failure."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except _Incomplete as reason:
            logger.warning("%s: a download is broken off: %s", scope["state"]["request_id"], reason)


async def _download(request: Request, question: _Question, media_type: str) -> Response:
    is_csv = media_type.startswith("text/csv")
    headers = {"Vary": "Accept", "Cache-Control": "no-cache"}
    if is_csv:
        name = quote("-".join(question.filters.filters)[:80].replace("/", "-"), safe="")
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}.csv"
    download = _Download(question)
    await download.start()
    if is_csv and (late := download.begins_late) is not None:
        # a table has no place for it
        headers["Gateway-Gap"] = f"reason={late['reason']}, lost={'unknown' if late['lost'] is None else late['lost']}"
    if request.method == "HEAD":
        return _head(headers, media_type)
    return _DownloadResponse((_csv if is_csv else _ndjson)(download), headers=headers, media_type=media_type)


def _head(headers: dict[str, str], media_type: str) -> Response:
    """What a GET would begin with, whose length nobody knows."""
    response = Response(headers=headers, media_type=media_type)
    del response.headers["content-length"]
    return response


async def _ndjson(download: _Download) -> AsyncIterator[bytes]:
    if download.gap is not None:
        yield _encode({"event": "gap", **download.gap}) + b"\n"
    lines: list[bytes] = []
    size = 0
    async for _, body in download.messages():
        lines.append(json_line(body))
        size += len(body)
        if size > 32_768:
            yield b"\n".join(lines) + b"\n"
            lines.clear()
            size = 0
    if (gap := await download.missing()) is not None:
        lines.append(_encode({"event": "gap", **gap}))
    if lines:
        yield b"\n".join(lines) + b"\n"


async def _csv(download: _Download) -> AsyncIterator[bytes]:
    fields = download.question.shape.kept
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["time", "seq", "topic", *([field.text for field in fields] or ["payload"])])
    async for message, _ in download.messages():
        moment = datetime.fromtimestamp(message.time / 1000, UTC).isoformat(timespec="milliseconds")
        if fields:
            value = message.value()
            cells = [_cell(look_up(value, field)) for field in fields]
        else:
            cells = [message.payload.decode() if message.kind.name != "BASE64" else message.token[1:-1].decode()]
        writer.writerow([moment.replace("+00:00", "Z"), message.seq, message.topic, *cells])
        if buffer.tell() > 32_768:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    # what has no beginning any more goes on losing it, and would be broken off on every busy gateway
    if download.begins_late is None and (gap := await download.missing()) is not None:
        raise _Incomplete(f"{gap['lost'] or 'some'} of its messages were evicted before the reader took them")
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
    if last := request.headers.get("last-event-id"):
        try:
            epoch, seq = parse_position(last)
            since = Since(SinceKind.POSITION, epoch=epoch, seq=seq)
        except ProtocolError as error:
            raise ApiError(400, error.code, f"Last-Event-ID: {error}") from None
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
    if request.method == "HEAD":
        return _head(headers, "text/event-stream")  # the events would never end
    named = request.query_params.get("format")
    shape = shape_from(
        {k: v for k, v in request.query_params.items() if k in SHAPE_PARAMETERS and k != "format"},
        Shape(framing=Framing.SSE, format=Format.RAW if named == "raw" else Format.JSON),
    )
    try:
        key = gateway.connections.open(request.client.host if request.client else None)
    except LimitError as error:
        raise ApiError(503, "limit", str(error), [("retry-after", "10")], reason=error.limit) from None
    principal = principal_of(request.scope)
    owner = Owner(principal, request.client.host if request.client else None)
    pace = request.scope.get("extensions", {}).get(PACE)
    events = _events(gateway, question.filters, shape, since, owner, label_of(request.scope), pace)
    return _EventStream(events, headers, partial(gateway.connections.close, key))


class _EventStream(StreamingResponse):
    """A streaming response that ends its events, and gives back its place, also when the client went before the first.

    Events that never began have nothing to end: what was taken before them is given back here.
    """

    def __init__(self, events: AsyncGenerator[bytes], headers: dict[str, str], leave: Callable[[], None]) -> None:
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._events = events
        self._leave = leave

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
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
    label: str,
    pace: Callable[[int], Callable[[], int]] | None,
) -> AsyncGenerator[bytes]:
    max_bytes = gateway.limits.buffer_bytes
    sink = PulledSink(gateway.hub, max_bytes, unsent=None if pace is None else pace(max_bytes))

    def tell(event: dict[str, Any]) -> None:
        sink.write(sse_event(_encode(event), event=event["event"]))

    def mark(position: str) -> None:
        # an event with nothing but an id reaches no listener, but the next Last-Event-ID has it (HTML §9.2.6)
        sink.write(f"id: {position}\n\n".encode())

    def live_from(seq: int) -> None:
        mark(f"{gateway.history.epoch}:{seq}")

    subscriber = gateway.hub.add(sink, shape=shape, tell=tell, label=label, owner=owner, on_live=live_from)
    sink.subscriber = subscriber
    gateway.event_streams.add(sink)
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
            # without an id: while the replay is under way a cut connection starts over, or goes on from a message
            sink.write(sse_event(encode_event("subscribed", **members), event="subscribed"))
            if not gateway.is_connected:
                event = encode_event("upstream", connected=False, reason=gateway.upstream_reason)
                sink.write(sse_event(event, event="upstream"))
        async for data in sink.parts(KEEP_ALIVE_SECONDS, max_bytes=PART_BYTES):
            yield data or b": \n\n"
            if not data and (position := gateway.hub.position_of(subscriber)) is not None:
                # so that what comes back after hours of silence is still within history
                mark(position)
    finally:
        expiry.cancel()
        gateway.event_streams.discard(sink)
        gateway.hub.remove(subscriber)


async def topics_socket(websocket: WebSocket) -> None:
    """An upgrade of `/topics/{filter}`: the WebSocket, subscribed to the filter."""
    await run_session(websocket, [websocket.path_params["filter"], *websocket.query_params.getlist("topic")], None)


# publishing


async def publish(request: Request) -> Response:
    """`POST /topics/{topic}`: publishes the body; `qos`, `retain` and `confirm` in the query.

    With `confirm=1` the answer waits until the message has come back from the broker, and gives its position; that is
    reading, so it takes a grant to read.
    """
    gateway: Gateway = request.app.state.gateway
    topic = request.path_params["filter"]
    principal = principal_of(request.scope)
    query = request.query_params
    _check_parameters(query, "publish")
    qos = _integer(query.get("qos"), "qos", 0, 0, 2)
    retain = _flag(query, "retain")
    confirm = _flag(query, "confirm")
    with_properties = _flag(query, "properties")
    try:
        validate_topic(topic)
        require_publish(principal, topic)
        if confirm:
            require_subscribe(principal, [topic])
    except TopicError as error:
        raise ApiError(400, error.code, str(error)) from None
    except AccessError as error:
        raise gateway.guard.refused(principal, error) from None
    gateway.take_publish(request.client.host if request.client else None)
    payload = await request.body()
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/json":
        try:
            msgspec.json.decode(payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ApiError(400, "bad_payload", f"the body is not valid JSON: {error}") from None
    properties: Properties | None = None
    if with_properties and content_type:
        properties = {"content_type": content_type}
    waiter = _Echo(gateway, topic, payload) if confirm else None
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
        # the payload may have such a member, what stands behind it has numbers and names of ours only
        head, time, _ = Message.arrived(0, topic, payload, 0).body.rpartition(b',"time":')
        self._start = head + time
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
        page.headers.add_vary_header("Accept")
        return page
    _check_parameters(query, "list")
    limit = _integer(query.get("limit"), "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    wanted: FilterSet | None = None
    if named := query.getlist("filter"):
        try:
            _require_few(gateway, named)
            wanted = FilterSet(validate_filter(f) for f in named)
        except TopicError as error:
            raise ApiError(400, error.code, str(error)) from None
    history = gateway.history
    position = history.position
    allowed = FilterSet(grant.topic_filter for grant in principal_of(request.scope).subscribe)
    readable = _readable(history, wanted, allowed, query.get("prefix", ""))
    names, total = await in_slices(_first(readable, query.get("after", ""), limit + 1))
    listed = await in_slices(_listed(history, names[:limit], gateway.wall_clock_ms()))
    body: dict[str, Any] = {"position": position, "total": total, "topics": listed}
    if len(names) > limit:
        body["next"] = names[limit - 1]
    headers = {"Cache-Control": "no-cache", "Vary": "Accept"}
    return Response(_encode(body), headers=headers, media_type="application/json")


def _readable(history: History, wanted: FilterSet | None, allowed: FilterSet, prefix: str) -> Iterator[str | None]:
    """The names of the topics that are wanted and allowed; None for each that isn't.

    Who may read little is shown from that little, however much is asked for.
    """
    if not allowed:
        return
    reads_all = "#" in allowed
    for state in list(history.topics(wanted if reads_all else allowed)):
        name = state.name
        is_allowed = (reads_all and name[0] != "$") or allowed.matches(name)
        is_wanted = name.startswith(prefix) and (wanted is None or wanted.matches(name))
        yield name if is_allowed and is_wanted else None


def _listed(history: History, names: list[str], now: int) -> Generator[None, None, list[dict[str, Any]]]:
    listed: list[dict[str, Any]] = []
    for number, name in enumerate(names, start=1):
        topic = history.topic(name)
        if topic is not None and (last := topic.last) is not None:
            # once it is silent, its silence is all that is known of its rate
            rate = min(topic.rate(), 1000 / max(now - last.time, 1))
            listed.append(
                {
                    "topic": name,
                    "count": topic.count,
                    "kept": len(topic),
                    "rate": float(f"{rate:.4g}"),
                    "time": last.time,
                    "retained": last.retained,
                    "bytes": len(last.token),
                }
            )
        if number % AT_ONCE == 0:
            yield
    return listed

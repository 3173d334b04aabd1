"""History as NDJSON or CSV, of any length.

Invariant: what was evicted before the reader took it is told at the end of an NDJSON file, and breaks a CSV off;
nothing is left out in silence.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.core.fields import Field, look_up
from gateway.core.frames import json_line
from gateway.core.messages import Message, encode_json, encode_properties
from gateway.core.recordings import csv_line
from gateway.core.selection import Selection
from gateway.core.shaper import choose, envelope
from gateway.door.asker import metered
from gateway.routes.question import Question
from gateway.routes.request import head_only
from gateway.routes.slices import in_slices

__all__ = ["download"]

logger = logging.getLogger(__name__)


class _Incomplete(Exception):  # noqa: N818 - it is no error
    """A download can't be completed: what was still to come has been evicted."""


class _Download:
    """What a download reads, and what went missing while its reader took its time.

    Attributes:
        gap: what had gone at the start of what was promised.
        begins_late: what had gone at the start of what is read, promised or not; None if it can be complete.
    """

    def __init__(self, question: Question) -> None:
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
            work = Selection(question.filters).tally(history, question.after, question.until)
            self._expected, lost = await in_slices(work)
            late = question.missing(question.after, question.until)
            if late is None and history.beyond is None and lost != 0:
                late = {"reason": "evicted", "lost": lost}
            if self.gap is None and late is not None:
                self.begins_late = late
                if question.is_promise:
                    self.gap = self.begins_late

    async def messages(self) -> AsyncIterator[tuple[Message, Any, bytes | None]]:
        """The messages up to the limit, each with what `choose` makes of it."""
        question = self.question
        count = 0
        async for message in question.messages():
            chosen = choose(question.shape, message)
            if chosen is not None:
                if count == question.limit:
                    self._edge = message.seq
                    return
                count += 1
                yield message, *chosen
            self._seen += 1

    async def missing(self) -> dict[str, Any] | None:
        """What has been evicted before it was read."""
        question = self.question
        history = question.gateway.history
        if history.beyond is not None:
            is_torn = question.is_torn or (question.is_thinned and self.begins_late is None)
            return {"reason": "evicted", "lost": None} if is_torn else None
        if not question.is_history or history.evicted == self._evicted:
            return None
        left = self._expected - self._seen
        if self._edge is not None:
            is_falling = question.order == "desc"
            low, high = (question.after, self._edge) if is_falling else (self._edge - 1, question.until)
            left -= (await in_slices(Selection(question.filters).tally(history, low, high)))[0]
        if left <= 0:
            return None
        # with a limit some of it may be what would not have come anyway
        return {"reason": "evicted", "lost": left if self._edge is None else None}


class _DownloadResponse(StreamingResponse):
    """A streaming response that breaks off where it can't be completed, so that whoever downloads it sees a failure."""

    async def stream_response(self, send: Any) -> None:
        """Runs in a task of its own, whose work is charged like that of the request."""
        await metered(super().stream_response(send))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except _Incomplete as reason:
            logger.warning("%s: a download is broken off: %s", scope["state"]["request_id"], reason)


async def download(request: Request, question: Question, media_type: str) -> Response:
    """The answer in a form that is written as it is read."""
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
        return head_only(headers, media_type)
    return _DownloadResponse((_csv if is_csv else _ndjson)(download), headers=headers, media_type=media_type)


async def _ndjson(download: _Download) -> AsyncIterator[bytes]:
    if download.gap is not None:
        yield encode_json({"event": "gap", **download.gap}) + b"\n"
    lines: list[bytes] = []
    size = 0
    question = download.question
    async for message, _, token in download.messages():
        body = envelope(question.shape, message, token, question.gateway.wall_clock_ms())
        lines.append(json_line(body))
        size += len(body)
        if size > 32_768:
            yield b"\n".join(lines) + b"\n"
            lines.clear()
            size = 0
    if (gap := await download.missing()) is not None:
        lines.append(encode_json({"event": "gap", **gap}))
    if lines:
        yield b"\n".join(lines) + b"\n"


CSV_COLUMNS = ("payload", "encoding", "qos", "retained")
"""What a table has of each message behind its time, number and topic, where no fields are asked for."""


async def _csv(download: _Download) -> AsyncIterator[bytes]:
    question = download.question
    fields, has_properties = question.shape.kept, question.shape.properties
    columns = ["time", "seq", "topic", *([_heading(field) for field in fields] or CSV_COLUMNS)]
    if has_properties:
        columns.append("properties")
    lines = [csv_line(columns)]
    size = 0
    async for message, value, _ in download.messages():
        moment = datetime.fromtimestamp(message.time / 1000, UTC).isoformat(timespec="milliseconds")
        if fields:
            cells = [_cell(look_up(value, field)) for field in fields]
        else:
            cells = _whole(message)
        if has_properties:
            waited_ms = question.gateway.wall_clock_ms() - message.time
            properties = message.properties
            cells.append(encode_json(encode_properties(properties, waited_ms)).decode() if properties else "")
        lines.append(csv_line([moment.replace("+00:00", "Z"), str(message.seq), message.topic, *cells]))
        size += len(lines[-1])
        if size > 32_768:
            yield "".join(lines).encode()
            lines.clear()
            size = 0
    # what has no beginning any more goes on losing it, and would be broken off on every busy gateway
    if download.begins_late is None and (gap := await download.missing()) is not None:
        raise _Incomplete(f"{gap['lost'] or 'some'} of its messages were evicted before the reader took them")
    yield "".join(lines).encode()


def _whole(message: Message) -> list[str]:
    """A message's `CSV_COLUMNS`: what is needed to publish the same again."""
    return [
        message.text.decode(),
        "" if message.is_text else "base64",
        str(message.qos),
        "true" if message.retained else "",
    ]


def _heading(field: Field) -> str:
    """A field's path; with a backslash more where it would be taken for another column."""
    is_taken = field.text in ("time", "seq", "topic", "properties", *CSV_COLUMNS)
    return f"\\{field.text}" if is_taken else field.text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else encode_json(value).decode()

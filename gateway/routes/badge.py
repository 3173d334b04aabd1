"""The newest numbers of a topic as a small picture.

Invariant: it shows what a JSON page of the same address would. How it is drawn is for `sparkline`.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.fields import BOOKKEEPING, MAX_DEPTH, Field, is_number, look_up
from gateway.core.shaper import pick
from gateway.core.shapes import MAX_FIELDS_LENGTH
from gateway.routes.question import ApiError, Question
from gateway.routes.slices import Stride
from gateway.routes.sparkline import badge_svg

__all__ = ["badge"]


async def badge(request: Request, question: Question) -> Response:
    """A sparkline of the newest numbers of the first topic that has some."""
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

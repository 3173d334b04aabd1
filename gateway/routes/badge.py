"""The newest numbers or states of a topic as a small picture.

Invariant: it shows what a JSON page of the same address would. How it is drawn is for `sparkline`.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.conditions import ShapeError
from gateway.core.fields import Field, first_shown, look_up, reading_of, state_of
from gateway.core.messages import Kind
from gateway.core.parameters import THEMES
from gateway.core.shaper import pick
from gateway.core.shapes import field_at
from gateway.devices.views import Asker, words_for
from gateway.door.refusals import principal_of
from gateway.routes.devices import asker_of
from gateway.routes.question import Question
from gateway.routes.request import ApiError
from gateway.routes.slices import Stride
from gateway.routes.sparkline import badge_svg

__all__ = ["badge"]


async def badge(request: Request, question: Question) -> Response:
    """A sparkline of the newest numbers or states of the first topic that has some.

    Raises:
        ApiError: what is named as its field is no path, or there is no such theme.
    """
    query = request.query_params
    try:
        field = field_at("field", query["field"]) if query.get("field") else None
    except ShapeError as error:
        raise ApiError(400, error.code, str(error)) from None
    if (theme := query.get("theme") or "light") not in THEMES:
        raise ApiError(400, "bad_request", f"theme {theme[:40]!r}: must be {' or '.join(THEMES)}")
    name = state = ""
    values: list[float] = []
    times: list[int] = []
    stride = Stride()
    for message in question.gateway.history.backwards(question.filters, question.after, question.until):
        if stride.is_over:
            await stride.rest()
        if message is None or (name and message.topic != name) or message.kind is Kind.BASE64:
            continue
        if pick(question.shape, message) is None:
            continue
        value = message.value()
        at = field if field is not None and isinstance(value, (dict, list)) else _BARE
        if field is None and (found := first_shown(value)) is not None:
            at = field = found
        number = reading_of(value, at)
        if number is not None:
            if not values:
                name, state = message.topic, _state_text(look_up(value, at))
            values.append(number)
            times.append(message.time)
            if len(values) >= 120:
                break
    asker = asker_of(principal_of(request.scope))
    words = _words(question, name, field, asker) if name else None
    title = query.get("title") or (f"{name} {field.label}".rstrip() if field else name) or question.filters.filters[0]
    if words is not None:
        title = query.get("title") or words[0]
    unit = query.get("unit", words[1] if words is not None and not state else "")[:12]
    is_dark, now = theme == "dark", question.gateway.wall_clock_ms()
    svg = badge_svg(title[:80], values[::-1], times[::-1], unit, is_dark, now, state)
    return Response(svg, headers={"Cache-Control": "no-cache", "Vary": "Accept"}, media_type="image/svg+xml")


def _words(question: Question, topic: str, field: Field | None, asker: Asker) -> tuple[str, str] | None:
    """What the device that has this value calls it, and its unit, as far as the asker may know of it."""
    path = () if field is None else field.path
    return words_for(question.gateway.devices, topic, path, asker)


_BARE = Field("", (), None)
"""The payload itself."""


def _state_text(value: Any) -> str:
    """A state as it was sent, "" for what is none."""
    if state_of(value) is None:
        return ""
    return value.strip() if isinstance(value, str) else str(value).lower()

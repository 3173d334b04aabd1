"""What requests of all kinds say, read in one way, and answers that are alike for all.

Invariant: what can't be read or would have no effect is refused, and the refusal names it. What a request is about is
for the route that got it; a request for messages is `routes/question`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from gateway.core.parameters import BOUNDS, FORMATS, check_parameters
from gateway.core.protocol import ProtocolError
from gateway.core.shapes import SWITCHES
from gateway.core.since import parse_position
from gateway.door.refusals import Refusal

__all__ = [
    "ApiError",
    "check_query",
    "flag",
    "has_newest",
    "head_only",
    "integer",
    "json_body",
    "position_in",
    "representation_of",
]


REPRESENTATIONS = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "text/csv": "csv",
    "text/html": "html",
    "image/svg+xml": "svg",
    "text/event-stream": "sse",
}
"""What there is by media type; of those that are as welcome, the first."""


T = TypeVar("T")


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


def representation_of(request: Request, of: str) -> str:
    """What the request asks for: by `format=`, else what its `Accept` prefers (RFC 9110 §12.5.1).

    Args:
        request: the request.
        of: what is asked for, a key of `FORMATS`.

    Raises:
        ApiError: it accepts nothing that there is.
    """
    offered = FORMATS[of]
    if named := request.query_params.get("format"):
        if named == "raw" and of == "messages":
            return "sse"
        if named not in offered:
            text = f"format {named[:40]!r}: must be {', '.join(offered[:-1])} or {offered[-1]}"
            raise ApiError(400, "bad_shape", text)
        return named
    header = request.headers.get("accept", "").strip() or "*/*"
    ranges: dict[str, tuple[float, int]] = {}
    for number, part in enumerate(header.split(",")):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        ranges.setdefault(media_range, (_quality(parameters), -number))
    best = (0.0, 0)
    chosen = None
    there = {media_type: name for media_type, name in REPRESENTATIONS.items() if name in offered}
    for media_type, name in there.items():
        # the most specific range is the one that counts, the first one of those that are as welcome
        candidates = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        rank = next((ranges[candidate] for candidate in candidates if candidate in ranges), (0.0, 0))
        if rank[0] > 0 and (chosen is None or rank > best):
            best, chosen = rank, name
    if chosen is not None:
        return chosen
    raise ApiError(406, "bad_shape", f"Accept {header[:100]!r}: there are {', '.join(there)}")


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


def check_query(query: QueryParams, use: str) -> None:
    """`check_parameters`, as an answer."""
    try:
        check_parameters(query, use)
    except ProtocolError as error:
        raise ApiError(400, error.code, str(error)) from None


def position_in(text: str) -> tuple[str, int]:
    """`parse_position`, as an answer."""
    try:
        return parse_position(text)
    except ProtocolError as error:
        raise ApiError(400, error.code, str(error)) from None


def integer(query: QueryParams, name: str, use: str) -> int:
    """A parameter's whole number, for one use of it.

    Raises:
        ApiError: it is none, or out of its `BOUNDS`.
    """
    bounds = BOUNDS[name][use]
    text = query.get(name, "")
    if text == "":
        return bounds.default
    least, most = bounds.least, bounds.most
    if len(text) > 12 or not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ApiError(400, "limit", f"{name} {text[:40]!r}: must be a whole number from {least} to {most}")
    return int(text)


def flag(query: QueryParams, name: str) -> bool:
    """A parameter that is on or off.

    Raises:
        ApiError: it is neither.
    """
    text = query.get(name, "")
    if (found := SWITCHES.get(text.lower())) is None:
        raise ApiError(400, "bad_request", f"{name} {text[:40]!r}: must be 1 or 0, true or false")
    return found


def head_only(headers: dict[str, str], media_type: str) -> Response:
    """What a GET would begin with, whose length nobody knows."""
    response = Response(headers=headers, media_type=media_type)
    del response.headers["content-length"]
    return response


async def json_body(request: Request, form: type[T], max_bytes: int, *, problem: str | None = None) -> T:
    """The body of a POST, read as JSON of this form.

    Args:
        request: the request.
        form: a type that msgspec knows.
        max_bytes: the most that the body may have.
        problem: what is said of a body of another form; None quotes what is wrong, which may quote the body.

    Raises:
        ApiError: it is too long (413), or of another form (400).
    """
    body = await request.body()
    if len(body) > max_bytes:
        raise ApiError(413, "bad_request", f"the body has {len(body)} bytes, at most {max_bytes} are taken")
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ApiError(400, "bad_request", problem or f"the body can't be read: {error}") from None


def has_newest(request: Request, tag: str) -> bool:
    """Whether the asker has already what this entity tag stands for (`If-None-Match`): the answer is a 304.

    Tags are compared weakly (RFC 9110 §13.1.2).
    """
    given = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    return tag.removeprefix("W/") in given or "*" in given

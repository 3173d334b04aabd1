"""`format=payload`: the newest payload of a topic, as it came, to be kept or looked at.

Invariant: nothing that a publisher sent is run or shown as a page. Only what begins like a picture of a kind that can't
hold scripts is named so; all else is bytes, or plain text. The policy of the answer allows nothing, and it is an
attachment.
"""

from __future__ import annotations

from hashlib import blake2b
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.messages import Message
from gateway.routes.question import Question
from gateway.routes.request import ApiError, has_newest, head_only

__all__ = ["media_type_of", "payload_file", "tag_of"]

POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"


def media_type_of(data: bytes) -> tuple[str, str]:
    """The media type of a payload by its first bytes, and the end of a file's name for it; never that of a page."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png", "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg", "jpg"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif", "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp", "webp"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "application/octet-stream", "bin"
    return "text/plain; charset=utf-8", "txt"


def tag_of(data: bytes) -> str:
    """The entity tag of a payload (RFC 9110 §8.8.3)."""
    return f'"{blake2b(data, digest_size=12).hexdigest()}"'


def payload_file(request: Request, question: Question) -> Response:
    """The answer.

    Raises:
        ApiError: more than one topic is asked for (400), or there is no message of it (404).
    """
    names = question.filters.filters
    if len(names) != 1 or not question.filters.is_exact:
        raise ApiError(400, "bad_request", "format=payload is for one topic, without wildcards")
    [name] = names
    topic = question.gateway.history.topic(name)
    last: Message | None = None if topic is None else topic.last
    if last is None:
        raise ApiError(404, "bad_request", f"no message to {name[:80]!r} has come", reason="no_message")
    data = last.payload
    media_type, ending = media_type_of(data)
    file = quote(f"{name[-80:].replace('/', '-')}.{ending}", safe="")
    headers = {
        "Cache-Control": "no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{file}",
        "Content-Security-Policy": POLICY,
        "ETag": tag_of(data),
        "Vary": "Accept",
    }
    if has_newest(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return head_only(headers, media_type)
    return Response(data, headers=headers, media_type=media_type)

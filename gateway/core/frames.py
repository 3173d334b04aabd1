"""Bytes on the wire: WebSocket frames, server-sent events, lines of JSON.

Invariant: whole frames only, so that bytes can be joined with the next ones. What is in them is for the caller.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["TEXT_HEADERS", "frame_binary", "frame_text", "json_line", "sse_event", "text_header", "unframe"]


_ENDS_OF_LINES = tuple((text.encode(), b"\\u%04x" % ord(text)) for text in "\u0085\u2028\u2029")


def _text_header(size: int) -> bytes:
    if size < 126:
        return bytes((0x81, size))
    if size < 65_536:
        return struct.pack(">BBH", 0x81, 126, size)
    return struct.pack(">BBQ", 0x81, 127, size)


TEXT_HEADERS = tuple(map(_text_header, range(1_024)))
"""What `text_header` gives for small sizes, for those who have no time for a call."""


def text_header(size: int) -> bytes:
    """What stands before `size` bytes of UTF-8 in a whole unmasked text frame (RFC 6455 §5.2)."""
    return TEXT_HEADERS[size] if size < 1_024 else _text_header(size)


def frame_text(body: bytes) -> bytes:
    """A whole unmasked text frame; `body` must be UTF-8."""
    return text_header(len(body)) + body


def frame_binary(body: bytes) -> bytes:
    """A whole unmasked binary frame (RFC 6455 §5.2)."""
    size = len(body)
    if size < 126:
        return bytes((0x82, size)) + body
    if size < 65_536:
        return struct.pack(">BBH", 0x82, 126, size) + body
    return struct.pack(">BBQ", 0x82, 127, size) + body


def unframe(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """Takes joined frames of this module apart again: (is text, body) of each."""
    position = 0
    while position < len(data):
        size = data[position + 1]
        is_text = data[position] == 0x81
        position += 2
        if size == 126:
            size = int.from_bytes(data[position : position + 2], "big")
            position += 2
        elif size == 127:
            size = int.from_bytes(data[position : position + 8], "big")
            position += 8
        yield is_text, data[position : position + size]
        position += size


def json_line(body: bytes) -> bytes:
    """The same JSON on one line, also to those who break lines at more than what JSON and HTTP call their end.

    A line break can only be white space between tokens (RFC 8259 §2, §7). What `str.splitlines` breaks at beside it
    (U+0085, U+2028, U+2029) can only be in a string, where it may be written as an escape.
    """
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    if not body.isascii() and (b"\xe2\x80" in body or b"\xc2\x85" in body):
        for raw, escaped in _ENDS_OF_LINES:
            body = body.replace(raw, escaped)
    return body


def sse_event(
    data: bytes, *, position: str | None = None, event: str | None = None, retry_ms: int | None = None
) -> bytes:
    """One server-sent event with one line of data (HTML Living Standard §9.2.6).

    Args:
        data: JSON.
        position: becomes the id, which an EventSource sends back as `Last-Event-ID`.
        event: its name; None for a message.
        retry_ms: how long to wait before coming back. It stands in an event since many clients take a line before an
            empty one for an event without data.
    """
    head = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    if event is not None:
        head += b"event: %b\n" % event.encode()
    if position is not None:
        head += b"id: %b\n" % position.encode()
    return b"%bdata: %b\n\n" % (head, json_line(data))

"""Opening handshakes of WebSockets as browsers send them, read from bytes at once (RFC 6455 §4.2.1).

Invariant: what is read here h11, uvicorn and websockets would read in the same way, and would accept. Whatever is not
whole, not usual or not right is left to them, who answer it; so nothing is refused here. Thousands of browsers come
back at once, and the long way parses each request twice (`python -m benchmarks.many`).
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from gateway.transport.scopes import Headers

__all__ = ["Handshake", "accepted", "plain_handshake"]

MAX_FIELDS = 64
"""Header fields of a usual request; websockets takes 128."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELD = rb"(%b): ?([!-~](?:[ -~]*[!-~])?)\r\n" % _TOKEN
# RFC 9112 §3 and §5, less what is seldom: another form of the target, other white space, bytes beyond ASCII
_HEAD = re.compile(rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:%b)+)\r\n" % _FIELD)
_FIELDS = re.compile(_FIELD)
_KEY = re.compile(rb"[+/0-9A-Za-z]{22}==")  # 16 bytes
_SUBPROTOCOLS = re.compile(rb"%b(?:, ?%b)*" % (_TOKEN, _TOKEN))
_CONNECTION = {b"upgrade", b"keep-alive, upgrade"}
_WITH_A_BODY = {b"content-length", b"expect", b"te", b"trailer", b"transfer-encoding"}

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


@dataclass(frozen=True, slots=True)
class Handshake:
    """A request that is a handshake and may be accepted.

    Attributes:
        target: path and query, as they came.
        headers: each name once, in lower case.
        key: `Sec-WebSocket-Key`.
        subprotocols: those that the client asks for, its favourite first.
    """

    target: bytes
    headers: Headers
    key: bytes
    subprotocols: list[str]


def plain_handshake(data: bytes) -> Handshake | None:
    """The handshake that these bytes are, no more and no less; None for all that is to be read the long way."""
    found = _HEAD.fullmatch(data)
    if found is None:
        return None
    headers = [(name.lower(), value) for name, value in _FIELDS.findall(found[2])]
    fields = dict(headers)
    if (
        not len(fields) == len(headers) <= MAX_FIELDS
        or b"host" not in fields
        or fields.get(b"upgrade", b"").lower() != b"websocket"
        or fields.get(b"connection", b"").lower() not in _CONNECTION
        or fields.get(b"sec-websocket-version") != b"13"
        or not _KEY.fullmatch(key := fields.get(b"sec-websocket-key", b""))
        or not fields.keys().isdisjoint(_WITH_A_BODY)
    ):
        return None
    asked = fields.get(b"sec-websocket-protocol")
    if asked is None:
        return Handshake(found[1], headers, key, [])
    if not _SUBPROTOCOLS.fullmatch(asked):
        return None
    return Handshake(found[1], headers, key, asked.decode("ascii").replace(" ", "").split(","))


def accepted(key: bytes, headers: Headers) -> bytes:
    """The answer that opens the connection, with these headers behind those that it has to have (RFC 6455 §4.2.2)."""
    answer = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return b"".join(
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
            answer,
            b"\r\n",
            *(b"%b: %b\r\n" % header for header in headers),
            b"\r\n",
        )
    )

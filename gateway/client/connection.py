"""A WebSocket to a running gateway: how it is opened, what comes over it, and what its end means.

Invariant: what goes wrong becomes a `RefusedError` (trying again would not help) or a `LostError` (it might), with a
text for people that holds no token.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from websockets import asyncio as websockets_asyncio
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from gateway.access.origins import is_loopback
from gateway.core.protocol import CloseCode

__all__ = [
    "ClientError",
    "Event",
    "LostError",
    "Message",
    "RefusedError",
    "decode",
    "explain_close",
    "http_url",
    "open_async",
    "open_connection",
    "socket_url",
]

Socket = websockets_asyncio.client.ClientConnection


class ClientError(Exception):
    """Something did not work; the text says why.

    Attributes:
        code: stable: of the gateway (docs/protocol.md), or `unreachable`, `disconnected`, `closed`, `token`.
        close_code: that of the connection's end, None where there was none.
    """

    def __init__(self, message: str, code: str = "internal", close_code: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.close_code = close_code


class LostError(ClientError):
    """The gateway can't be reached now, or the connection was cut."""


class RefusedError(ClientError):
    """The gateway refuses this."""


class Message(msgspec.Struct, repr_omit_defaults=True):
    """One arrival on the broker, as in docs/protocol.md.

    Attributes:
        topic: its topic.
        token: the payload as the gateway wrote it in JSON.
        time: arrival at the gateway, milliseconds since 1970.
        seq: its number in the log.
        encoding: `base64` where the payload is neither JSON nor text; else None.
        decode: `failed` where a rule of the gateway's is to make JSON of it and can't.
        retained: whether the broker keeps it.
        qos: as the broker delivered it.
        skipped: messages of this topic that were left out before it.
        mode, count, interval: what an aggregate is.
        properties: MQTT 5 properties, where they were asked for.
        frame: all of it as it came.
    """

    topic: str
    token: msgspec.Raw = msgspec.field(name="payload", default=msgspec.Raw(b"null"))
    time: int = 0
    seq: int = 0
    encoding: str | None = None
    decode: str | None = None
    retained: bool = False
    qos: int = 0
    skipped: int = 0
    mode: str | None = None
    count: int | None = None
    interval: float | None = None
    properties: dict[str, Any] | None = None
    frame: bytes = b""

    @property
    def is_text(self) -> bool:
        """Whether the payload is a text or bytes, not another JSON value."""
        return bytes(self.token)[:1] == b'"'

    @property
    def payload(self) -> Any:
        """The JSON value, else the text, else bytes."""
        raw = bytes(self.token)
        if self.encoding == "base64":
            return self.data
        try:
            return msgspec.json.decode(raw)
        except msgspec.MsgspecError:
            return json.loads(raw)  # numbers that no double holds

    @property
    def data(self) -> bytes:
        """The bytes that were published; of JSON as the gateway writes it."""
        raw = bytes(self.token)
        if not raw.startswith(b'"'):
            return raw
        text = msgspec.json.decode(raw, type=str)
        return base64.b64decode(text) if self.encoding == "base64" else text.encode()


class Event(msgspec.Struct, repr_omit_defaults=True):
    """What is told besides messages: the events of docs/protocol.md, and `state`, the connection's own.

    Attributes:
        event: which: `gap`, `upstream`, `subscribed`, `expiring`, `error`, `state`, …
        lost: of a gap, how many messages will not come; None where nobody knows.
        after: `from`: of a gap, the number above which they are.
        to: of a gap, the number up to which.
        state: of `state`: `connecting`, `open`, `waiting` (with `delay`, in seconds, and `reason`) or `closed`.
    """

    event: str
    id: int | str | None = None
    code: str | None = None
    message: str | None = None
    reason: str | None = None
    lost: int | None = None
    after: int | None = msgspec.field(name="from", default=None)
    to: int | None = None
    topics: list[str] | None = None
    topic: str | None = None
    position: str | None = None
    recovered: bool | None = None
    connected: bool | None = None
    lost_at: int | None = None
    kept: bool | None = None
    seconds: float | None = None
    subject: str | None = None
    expires: int | None = None
    time: int | None = None
    node: str | None = None
    state: str | None = None
    delay: float | None = None


_decode_message = msgspec.json.Decoder(Message).decode
_decode_event = msgspec.json.Decoder(Event).decode


def decode(frame: str | bytes) -> Message | Event:
    """What a frame says: an event is a member `event` first of all.

    Raises:
        RefusedError: it is not from a gateway.
    """
    data = frame.encode() if isinstance(frame, str) else frame
    try:
        if data.startswith(b'{"event":'):
            return _decode_event(data)
        message = _decode_message(data)
    except (msgspec.MsgspecError, UnicodeError):
        raise RefusedError("what answers there is not this gateway") from None
    message.frame = data
    return message


def socket_url(url: str, query: Sequence[tuple[str, str]] = ()) -> str:
    """The address of `/ws` for any way to write a gateway's address.

    Args:
        url: `ws://host:8000`, `https://host/prefix/`, `host:8000`, with or without `/ws`.
        query: pairs to add.

    Raises:
        ValueError: it names no host or another scheme.
    """
    if "://" not in url:
        url = f"ws://{url}"
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"{url!r} is not the address of a gateway; write it as ws://127.0.0.1:8000")
    path = parts.path.rstrip("/").removesuffix("/ws")
    return f"{scheme}://{parts.netloc}{path}/ws{'?' if query else ''}{urlencode(query)}"


def http_url(url: str) -> str:
    """Where the gateway is over HTTP, without a slash at its end, for any way to write its address.

    Raises:
        ValueError: it names no host or another scheme.
    """
    return socket_url(url).removesuffix("/ws").replace("ws", "http", 1)


def _options(url: str, token: str | None, timeout_seconds: float) -> Mapping[str, Any]:
    return {
        "additional_headers": {"Authorization": f"Bearer {token}"} if token else {},
        "open_timeout": timeout_seconds,
        "max_size": None,
        "user_agent_header": "gateway-client",
        "proxy": None if is_loopback(urlsplit(url).hostname or "") else True,
    }


def open_connection(url: str, token: str | None = None, timeout_seconds: float = 10) -> ClientConnection:
    """Connects, and blocks until it has.

    Args:
        url: from `socket_url`.
        token: an access token, sent as a header.
        timeout_seconds: for all of the handshake.

    Raises:
        RefusedError: the gateway, or what is there in its place, refuses.
        LostError: nothing answers.
    """
    try:
        return connect(url, **_options(url, token, timeout_seconds))
    except (OSError, WebSocketException) as error:
        raise _explain_handshake(url, error) from None


async def open_async(url: str, token: str | None = None, timeout_seconds: float = 10) -> Socket:
    """`open_connection` for an event loop; whether the connection lives is for who reads it.

    Raises:
        RefusedError, LostError: likewise.
    """
    try:
        return await connect_async(url, **_options(url, token, timeout_seconds), ping_interval=None, close_timeout=2)
    except (OSError, WebSocketException) as error:
        raise _explain_handshake(url, error) from None


def _explain_handshake(url: str, error: Exception) -> ClientError:
    """Why there is no connection."""
    where = url.partition("?")[0]
    match error:
        case InvalidStatus(response=response):
            text = f"{where} refuses: {_detail(response.body) or f'status {response.status_code}'}"
            kind = LostError if response.status_code in (502, 503, 504, 429) else RefusedError
            return kind(text, "unreachable")
        case InvalidURI():
            return RefusedError(str(error), "unreachable")
        case OSError():  # a TimeoutError is one
            # asyncio has words of its own for what the system says
            known = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
            reason = "no answer" if isinstance(error, TimeoutError) else known or str(error)
            return LostError(f"can't connect to {where}: {reason}", "unreachable")
        case InvalidHandshake():
            return RefusedError(f"what answers at {where} is not this gateway: {error}", "unreachable")
    return LostError(f"can't connect to {where}: {error}", "unreachable")


def _detail(body: bytes | None) -> str | None:
    """The text of an error response (RFC 9457, or plain)."""
    text = (body or b"").decode(errors="replace").strip()
    try:
        problem = json.loads(text)
    except ValueError:
        return text[:500] if text and not text.startswith("<") else None
    if isinstance(problem, dict):
        found = problem.get("detail") or problem.get("message") or problem.get("title")
        return str(found) if found else None
    return None


def explain_close(error: ConnectionClosed) -> LostError | RefusedError:
    """What a closed connection means."""
    received = error.rcvd
    if received is None:
        return LostError("the connection was cut", "disconnected", 1006)
    text = f"the gateway closed the connection: {received.reason or 'no reason given'} ({received.code})"
    try:
        come_back = CloseCode(received.code).is_reconnectable
    except ValueError:
        # not the gateway's: a proxy's, or the protocol's own (RFC 6455 §7.4.1), where only going away is temporary
        come_back = received.code in (1001, 1005, 1006, 1014) or received.code >= 4100
    return (LostError if come_back else RefusedError)(text, "closed", received.code)

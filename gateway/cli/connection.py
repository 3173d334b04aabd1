"""A WebSocket to a running gateway, for `gateway sub` and `gateway pub`.

Invariant: what goes wrong becomes a `RefusedError` (trying again would not help) or a `LostError` (it might), with a
text for people that holds no token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit

import msgspec
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from gateway.access.origins import is_loopback
from gateway.core.protocol import CloseCode

__all__ = ["LostError", "Received", "RefusedError", "decode", "explain_close", "open_connection", "socket_url"]


class LostError(Exception):
    """The gateway can't be reached now, or the connection was cut."""


class RefusedError(Exception):
    """The gateway refuses this."""


class Received(msgspec.Struct):
    """A text frame from the gateway: a message when it has a topic, else an event (docs/protocol.md)."""

    topic: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"")
    encoding: str | None = None
    seq: int = 0
    event: str | None = None
    id: int | str | None = None
    code: str | None = None
    message: str | None = None
    reason: str | None = None
    lost: int | None = None
    position: str | None = None
    after: int | None = msgspec.field(name="from", default=None)
    connected: bool | None = None


_decode = msgspec.json.Decoder(Received).decode


def decode(frame: str | bytes) -> Received:
    """What a frame says.

    Raises:
        RefusedError: it is not from a gateway.
    """
    try:
        return _decode(frame)
    except (msgspec.MsgspecError, UnicodeError):
        raise RefusedError("what answers there is not this gateway") from None


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


def open_connection(url: str, token: str | None = None, timeout_seconds: float = 10) -> ClientConnection:
    """Connects.

    Args:
        url: from `socket_url`.
        token: an access token, sent as a header.
        timeout_seconds: for all of the handshake.

    Raises:
        RefusedError: the gateway, or what is there in its place, refuses.
        LostError: nothing answers.
    """
    where = url.partition("?")[0]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return connect(
            url,
            additional_headers=headers,
            open_timeout=timeout_seconds,
            max_size=None,
            user_agent_header="gateway-cli",
            proxy=None if is_loopback(urlsplit(url).hostname or "") else True,
        )
    except InvalidStatus as error:
        response = error.response
        text = f"{where} refuses: {_detail(response.body) or f'status {response.status_code}'}"
        raise (LostError if response.status_code in (502, 503, 504, 429) else RefusedError)(text) from None
    except InvalidURI as error:
        raise RefusedError(str(error)) from None
    except (TimeoutError, OSError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise LostError(f"can't connect to {where}: {reason}") from None
    except InvalidHandshake as error:
        raise RefusedError(f"what answers at {where} is not this gateway: {error}") from None
    except WebSocketException as error:
        raise LostError(f"can't connect to {where}: {error}") from None


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
        return LostError("the connection was cut")
    text = f"the gateway closed the connection: {received.reason or 'no reason given'} ({received.code})"
    try:
        come_back = CloseCode(received.code).is_reconnectable
    except ValueError:
        # not the gateway's: a proxy's, or the protocol's own (RFC 6455 §7.4.1), where only going away is temporary
        come_back = received.code in (1001, 1006, 1014)
    return LostError(text) if come_back else RefusedError(text)

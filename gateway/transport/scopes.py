"""ASGI's words: what a request is to those who handle it (ASGI 3, HTTP and WebSocket).

Invariant: only what a scope itself says; who asks is for the door.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["App", "Headers", "Message", "Receive", "Scope", "Send", "address_of", "is_health"]


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


def is_health(scope: Scope) -> bool:
    """Whether it asks for our health, which is answered whatever the limits say."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) in ("/health/live", "/health/ready")


def address_of(scope: Scope) -> str | None:
    """The client's address; behind a trusted proxy the one that the proxy names."""
    client = scope.get("client")
    return client[0] if client else None

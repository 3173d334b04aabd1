"""Requests that a trusted proxy passes on: who asked there, and that it was the proxy who says so.

Invariant: what a request carries in `X-Forwarded-…` counts, and `FROM_PROXY` is set, only where the connection itself
comes from an address that the settings name. Which further headers are believed of a proxy is decided elsewhere.
"""

from __future__ import annotations

from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _TrustedHosts

__all__ = ["FROM_PROXY", "BehindProxies", "TrustedProxies"]

FROM_PROXY = "gateway.from_proxy"
"""Key of `scope["extensions"]`: there if the request came over a trusted proxy."""

TrustedProxies = _TrustedHosts


class BehindProxies:
    """An ASGI application that learns of each request whether a trusted proxy passes it on."""

    def __init__(self, app: Any, trusted: str) -> None:
        """`trusted`: addresses and networks, separated by commas."""
        self._app = ProxyHeadersMiddleware(app, trusted)
        self._trusted = TrustedProxies(trusted)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handles one request or connection."""
        client = scope.get("client")
        # before the middleware puts the browser's address in its place
        if client is not None and client[0] in self._trusted:
            scope.setdefault("extensions", {})[FROM_PROXY] = True
        await self._app(scope, receive, send)

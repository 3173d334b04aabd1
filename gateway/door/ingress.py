"""What comes over Ingress, the proxy of Home Assistant: whether a request does, and its address put right.

Invariant: only what a trusted proxy passes on counts as Ingress. The prefix under which it shows the gateway is never
needed here: whatever we answer has addresses that are relative to the one that was asked.
"""

from __future__ import annotations

from gateway.transport.proxies import FROM_PROXY
from gateway.transport.scopes import Scope

__all__ = ["put_right", "via_ingress"]


def via_ingress(scope: Scope) -> bool:
    """Whether a trusted proxy says that Home Assistant passes the request on."""
    if FROM_PROXY not in scope.get("extensions", {}):
        return False
    return any(name == b"x-ingress-path" for name, _ in scope["headers"])


def put_right(scope: Scope) -> None:
    """Puts back the `#` that ends most topic filters.

    The Supervisor decodes a path and then reads it as an address, in which `#` begins what is not sent: of
    `/topics/sensors/%23` comes `/topics/sensors/`. A filter that really ends with an empty level is taken for the
    other one; over Ingress nobody can tell them apart, and it is the one that nobody has.
    """
    if via_ingress(scope) and scope["path"].endswith("/"):
        root = scope.get("root_path", "")
        if scope["path"].startswith(f"{root}/topics/"):
            scope["path"] += "#"
            scope["raw_path"] = (scope.get("raw_path") or scope["path"][:-1].encode()) + b"%23"

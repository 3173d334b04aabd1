"""A place for each WebSocket, until its socket is gone.

Invariant: whatever route it is on, a connection is counted before it is accepted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from starlette.websockets import WebSocket

from gateway.access.limits import LimitError
from gateway.door.refusals import Refusal, payer_of
from gateway.runtime import Gateway
from gateway.transport.websockets import CHARGE, ON_LOST

__all__ = ["take_place"]


def take_place(websocket: WebSocket) -> Callable[[], None]:
    """Counts a connection until its socket is gone: one that is being closed costs a descriptor, too.

    Returns:
        What to call when the route is done with it; it does nothing where the transport itself says when.

    Raises:
        Refusal: there are too many.
    """
    gateway: Gateway = websocket.app.state.gateway
    payer = payer_of(websocket.scope)
    try:
        key = gateway.connections.open(payer)
    except LimitError as error:
        raise Refusal(503, "limit", error.limit, str(error), [("retry-after", "10")]) from None
    release = functools.partial(gateway.connections.close, key)
    extensions = websocket.scope.get("extensions", {})
    on_lost = extensions.get(ON_LOST)
    if on_lost is None:
        return release
    extensions[CHARGE](payer)
    on_lost(release)
    return lambda: None

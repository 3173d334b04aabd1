"""`POST /tokens`: a token that reads some of what the asker may read, for a link.

Invariant: what it allows is `access/sharing`'s; the token is in the answer and nowhere else: not in a log, not in a
cache.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.access.grants import AccessError
from gateway.core.topics import TopicError
from gateway.door.refusals import payer_of, principal_of
from gateway.routes.request import ApiError, json_body
from gateway.runtime import Gateway

__all__ = ["share"]

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    subscribe: list[str]
    seconds: float


async def share(request: Request) -> Response:
    """`POST /tokens` with `{"subscribe": […], "seconds": 3600}`: the token, and when it ends."""
    gateway: Gateway = request.app.state.gateway
    principal = principal_of(request.scope)
    sharing = gateway.sharing
    if sharing is None:
        raise ApiError(404, "bad_request", "nothing is shared by links here: GATEWAY_ACCESS_SHARE_MAX is not set")
    gateway.take_publish(payer_of(request.scope))
    asked = await json_body(request, _Asked, MAX_BODY_BYTES)
    try:
        token, ends = sharing.token(principal, asked.subscribe, asked.seconds, time.time())
    except TopicError as error:
        raise ApiError(400, error.code, str(error)) from None
    except AccessError as error:
        if error.code == "bad_claims":
            raise ApiError(400, "bad_request", str(error)) from None
        raise gateway.guard.refused(principal, error) from None
    count, seconds = len(asked.subscribe), ends - time.time()
    logger.info("%s shared what %d topic filters bring, for %d s", principal.name, count, seconds)
    answer: dict[str, Any] = {"token": token, "expires": ends * 1000, "subscribe": asked.subscribe}
    return JSONResponse(answer, 201, headers={"Cache-Control": "no-store"})

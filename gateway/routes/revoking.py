"""`POST /tokens/revoke`: a token, or all that a subject has been given so far, called back before its end.

Invariant: whoever shows a token may end that very token; any other takes the grant to publish to `REVOKE_TOPIC`. When
the answer is there no connection to this gateway goes on by it, and, where there is a file, it is on the disk. The
answer says whether the other nodes of a cluster hear of it.
"""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.access.grants import AccessError, require_publish
from gateway.access.limits import LimitError
from gateway.access.revocations import REVOKE_TOPIC, Revocation
from gateway.door.refusals import payer_of, principal_of
from gateway.routes.request import ApiError, json_body
from gateway.routes.sharing import MAX_BODY_BYTES
from gateway.runtime import Gateway

__all__ = ["revoke"]

logger = logging.getLogger(__name__)

MAX_NAME = 1_000
"""Characters of a `jti` or a subject."""

MAX_TIME_MS = 253_402_300_799_999
"""The end of the year 9999, milliseconds since 1970."""


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    token: str | None = None
    jti: str | None = None
    subject: str | None = None
    expires: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)] | None = None


async def revoke(request: Request) -> Response:
    """`POST /tokens/revoke` with one of `token`, `jti` and `subject`: how many connections ended by it."""
    gateway: Gateway = request.app.state.gateway
    principal = principal_of(request.scope)
    if gateway.guard.verifier is None:
        raise ApiError(404, "bad_request", "there are no tokens here: no key that verifies any is set")
    payer = payer_of(request.scope)
    gateway.take_publish(payer)
    asked = await json_body(request, _Asked, MAX_BODY_BYTES)
    named = [name for name in (asked.token, asked.jti, asked.subject) if name is not None]
    if len(named) != 1 or not named[0] or (asked.token is None and len(named[0]) > MAX_NAME):
        text = f"the body has one of token, jti and subject, of 1 to {MAX_NAME} characters"
        raise ApiError(400, "bad_request", text)
    ends = None if asked.expires is None else asked.expires / 1000
    if asked.token is not None:
        if asked.expires is not None:
            raise ApiError(400, "bad_request", "expires: a token says itself when it ends")
        owner = await gateway.guard.authenticate(asked.token, payer)
        revocation = Revocation(owner.token_id, None, time.time(), owner.expires_at)
        what = f"a token of {owner.name}"
    else:
        try:
            require_publish(principal, REVOKE_TOPIC)
        except AccessError as error:
            raise gateway.guard.refused(principal, error) from None
        revocation = Revocation(asked.jti, asked.subject, time.time(), ends)
        what = f"a token, {asked.jti!r}," if asked.jti is not None else f"all tokens of {asked.subject!r}"
    try:
        done = await gateway.revoke(revocation)
    except LimitError as error:
        raise ApiError(503, "limit", str(error), reason=error.limit) from None
    except OSError as error:
        text = f"it holds until the gateway ends, and could not be written to its file: {error.strerror}"
        raise ApiError(503, "internal", text) from None
    logger.info("%s called %s back: %d connections ended", principal.name, what[:200], done.ended)
    answer: dict[str, Any] = {"ended": done.ended, "kept": done.is_kept}
    if done.is_told is not None:
        answer["told"] = done.is_told
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})

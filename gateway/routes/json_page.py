"""A page of history or of last values as JSON.

Invariant: pages that follow each other's `next` give every message once, and what is missing is said in the page in
which it would have stood.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.messages import Message, encode_json
from gateway.core.selection import Selection
from gateway.core.shaper import pick
from gateway.door.asker import asker
from gateway.door.refusals import no_room
from gateway.routes.question import Question
from gateway.routes.request import has_newest
from gateway.routes.slices import in_slices, place

__all__ = ["json_page"]


MAX_PAGE_BYTES = 8 * 2**20
"""Bytes of the messages of one page, about."""


async def json_page(request: Request, question: Question) -> Response:
    """A page of history or of last values.

    Raises:
        Refusal: there is no room for it, or no place to make it in (429).
    """
    async with place():
        return await _make_page(request, question)


async def _make_page(request: Request, question: Question) -> Response:
    budget = asker()
    history = question.gateway.history
    epoch = history.epoch
    position = f"{epoch}:{question.until if question.is_history else history.seq}"
    is_falling = question.order == "desc"
    found: list[Message] = []
    bodies: list[bytes] = []
    size = seen = 0
    edge: Message | None = None  # the first of the next page
    async for message in question.messages():
        body = pick(question.shape, message, question.gateway.wall_clock_ms())
        if body is not None:
            if len(found) == question.limit or (found and size + len(body) > MAX_PAGE_BYTES):
                edge = message
                break
            found.append(message)
            bodies.append(body)
            size += len(body)
            if budget is not None and not budget.hold(size):
                raise no_room()
        seen += 1
    gap = question.gap
    if gap is None and question.is_promise:
        low = question.after if edge is None or not is_falling else edge.seq
        high = question.until if edge is None or is_falling else edge.seq - 1
        gap = await _missing(question, low, high, seen)
    # what a representation is made of: the messages, and whether they are complete
    numbers = array("Q", (message.seq << 1 | message.retained for message in found))
    digest = blake2b(numbers.tobytes(), digest_size=12).hexdigest()
    parts = [epoch, digest, len(found), int(edge is not None), int(question.shape.properties)]
    if gap is not None:
        parts += [gap["reason"], gap["lost"]]
    tag = 'W/"' + "-".join(map(str, parts)) + '"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept"}
    head: dict[str, Any] = {"position": position, "recovered": gap is None}
    if gap is not None:
        head["gap"] = gap
    if edge is not None:
        if not question.is_history:
            name, following = "after", found[-1].topic
        elif is_falling:
            name, following = "until", f"{epoch}:{edge.seq}"
        else:
            name, following = "since", f"{epoch}:{edge.seq - 1}"
        head |= {"more": True, "next": following}
        query = [(k, v) for k, v in request.query_params.multi_items() if k not in (name, "epoch", "token")]
        if question.is_history:
            query.append(("epoch", epoch))
        # relative to the page that was asked for: no proxy tells all of the prefixes under which it shows us
        headers["Link"] = f'<?{urlencode([*query, (name, following)])}>; rel="next"'
    if has_newest(request, tag):
        return Response(status_code=304, headers=headers)
    answer = b'%b,"messages":[%b]}' % (encode_json(head)[:-1], b",".join(bodies))
    return Response(answer, headers=headers, media_type="application/json")


async def _missing(question: Question, low: int, high: int, seen: int) -> dict[str, Any] | None:
    """The gap if fewer messages were seen than there were with `low` < seq <= `high`."""
    history = question.gateway.history
    if (gap := question.missing(low, high)) is not None or history.beyond is not None:
        return gap
    if low >= history.evicted_seq:
        return None
    kept, lost = await in_slices(Selection(question.filters).tally(history, low, high))
    if lost is None:
        return {"reason": "evicted", "lost": None}
    return {"reason": "evicted", "lost": kept + lost - seen} if kept + lost > seen else None

"""A request for messages, read and allowed: what it asks for, of what, since when, in which form.

Invariant: whatever the representation, the same grant is asked for and the same parameters mean the same; what would
have no effect is refused. How an answer is written is for each representation's own module.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

from starlette.requests import Request

from gateway.access.grants import AccessError, require_subscribe
from gateway.access.limits import LimitError
from gateway.core.beyond import Asked, as_of_now
from gateway.core.conditions import ShapeError
from gateway.core.filters import FilterSet
from gateway.core.messages import Message
from gateway.core.parameters import BOUNDS, ORDERS
from gateway.core.protocol import ProtocolError
from gateway.core.selection import Selection
from gateway.core.shapes import SHAPE_PARAMETERS, shape_from
from gateway.core.since import BEHIND, SinceKind, Start, parse_since, start_of
from gateway.core.topics import TopicError
from gateway.core.walks import first_names, reaches, topic_names
from gateway.door.asker import asker
from gateway.door.refusals import principal_of
from gateway.routes.request import ApiError, check_query, integer, position_in
from gateway.routes.slices import Stride, in_slices
from gateway.runtime import Gateway

__all__ = ["Question", "allowed_filters", "answered", "asker_key", "check_filters"]


NAMES_AT_ONCE = 10_000
"""Topics whose names are looked up in one go."""

PART_BYTES = 64 * 1024
"""Bytes that are read at a time of what memory has no longer."""

T = TypeVar("T")


class Question:
    """A request for messages, read and allowed.

    Attributes:
        after, until: numbers between which history is asked for; `until` is included.
        after_name: the topic behind which last values go on.
        is_history: whether history is asked for, not last values.
        gap: what is known to be missing before anything was read.
        is_promise: whether what has been evicted since `after` is to be told.
        is_torn: whether some of it could not be read.
        is_thinned: whether some of what was read beyond memory may have been let go.
    """

    __slots__ = (
        "after",
        "after_name",
        "filters",
        "gap",
        "gateway",
        "is_history",
        "is_promise",
        "is_thinned",
        "is_torn",
        "limit",
        "order",
        "shape",
        "since",
        "until",
    )

    def __init__(self, request: Request, representation: str) -> None:
        self.gateway: Gateway = request.app.state.gateway
        query = request.query_params
        self.filters = allowed_filters(request)
        try:
            parameters = {name: value for name, value in query.items() if name in SHAPE_PARAMETERS}
            if parameters.get("format") != "raw":
                parameters.pop("format", None)
            self.shape = shape_from(parameters)
            self.since = parse_since(query.get("since"))
        except (ShapeError, ProtocolError) as error:
            raise ApiError(400, error.code, str(error)) from None
        self.is_torn = self.is_thinned = False
        check_query(query, representation)
        self.order = query.get("order") or "asc"
        if self.order not in ORDERS:
            raise ApiError(400, "bad_shape", f"order {self.order[:40]!r}: must be asc or desc")
        is_download = representation in ("ndjson", "csv")
        # a picture looks for what it draws, however far back that is
        self.limit = integer(query, "limit", representation if representation in BOUNDS["limit"] else "json")
        since = query.get("since") or ("" if is_download else "last")
        self.is_history = since != "last" or bool(query.get("until") or query.get("order"))
        self.after_name = query.get("after", "")
        if self.after_name and self.is_history:
            raise ApiError(400, "bad_request", "after: is for last values; history goes on with since, or with until")
        history = self.gateway.history
        try:
            start = start_of(self.since, history)
        except ProtocolError as error:
            if error.reason != BEHIND:
                raise ApiError(400, error.code, str(error)) from None
            if representation != "sse":  # an EventSource that is answered so never comes back
                raise ApiError(503, error.code, str(error), [("retry-after", "1")], reason=BEHIND) from None
            start = Start(history.seq)
        if (epoch := query.get("epoch")) and epoch != history.epoch:
            # whoever followed would get all of that log, and then, of the next gateway, all of this one
            text = (
                f"epoch {epoch[:40]!r}: the pages before this one are of another log than this one, {history.epoch!r}: "
                "the gateway was restarted, or another one answers; begin anew"
            )
            raise ApiError(409, "bad_since", text, reason="epoch")
        self.after, self.is_promise = start.after, start.is_promise
        self.gap: dict[str, Any] | None = {"reason": "epoch", "lost": None} if start.is_other_epoch else None
        self.until = history.seq
        if until := query.get("until"):
            epoch, seq = position_in(until)
            if epoch == history.epoch:
                self.until = min(seq, history.seq)
            else:
                self.until, self.gap = 0, {"reason": "epoch", "lost": None}

    async def look_back(self) -> None:
        """Finds out whether history reaches back to the time that is asked for."""
        if self.since.kind is not SinceKind.TIME or self.gap is not None:
            return
        history = self.gateway.history
        if await in_slices(reaches(history, self.filters, self.since.time)):
            if history.beyond is not None:
                self.after = history.past_evicted(self.after)  # what memory has let go between is older than that
            return
        if (beyond := history.beyond) is not None:
            self.after = await answered(beyond.find(self.since.time, asker_key()))
            # what came before the oldest message there may have come later than that
            if self.after > beyond.begins_after or beyond.begins_after == 0:
                return
        self.gap = {"reason": "evicted", "lost": None}

    def missing(self, low: int, high: int) -> dict[str, Any] | None:
        """The gap if messages with `low` < seq <= `high` are neither in memory nor beyond it, where there is a beyond.

        With `low` and `high` of what was read, after it was read.
        """
        history = self.gateway.history
        if history.crashed_between(low, high):
            return {"reason": "crash", "lost": None}
        beyond = history.beyond
        if beyond is None:
            return None
        is_whole = beyond.is_whole(self.filters, low, history.floor(self.filters, low, high))
        is_whole = is_whole and not self.is_torn and not self.is_thinned
        return None if is_whole else {"reason": "evicted", "lost": None}

    def refuse_live_shapes(self) -> None:
        """Says that what needs a stream of messages is not for a snapshot, rather than leaving it out."""
        shape = self.shape
        if shape.is_windowed or shape.deadband is not None:
            text = "max_hz, mode and deadband are for live messages (text/event-stream, /ws), not for answers"
            raise ApiError(400, "bad_shape", text)

    def messages(self) -> AsyncIterator[Message]:
        """What is asked for, in order; the loop gets a turn now and then."""
        if not self.is_history:
            return self._last_values()
        return self._newest() if self.order == "desc" else self._oldest()

    async def _oldest(self) -> AsyncIterator[Message]:
        history = self.gateway.history
        cursor = self.after
        stride = Stride()
        while cursor < self.until:
            floor = cursor if history.beyond is None else history.floor(self.filters, cursor, self.until)
            if floor > cursor:
                messages, cursor = await self._read_beyond(cursor, floor)
            else:
                chunk = history.read(self.filters, cursor, self.until)
                messages, cursor = chunk.messages, chunk.cursor
            for message in messages:
                yield message
                if stride.is_over:
                    await stride.rest()
            if stride.is_over:
                await stride.rest()

    async def _read_beyond(self, after: int, until: int, *, backwards: bool = False) -> tuple[list[Message], int]:
        """The next messages of what memory has no longer, and up to (or down to) where they go."""
        history = self.gateway.history
        if history.beyond is None:  # it has just ended
            self.is_torn = True
            return [], after if backwards else until
        asked = history.beyond.read(
            self.filters, after, until, max_bytes=PART_BYTES, key=asker_key(), backwards=backwards
        )
        part = await answered(asked)
        if not part.is_whole:
            low, high = (part.cursor, until) if backwards else (after, part.cursor)
            part = history.patched(self.filters, low, high, part, backwards=backwards)
            low, high = (part.cursor, high) if backwards else (low, part.cursor)
            # what could not be read beyond memory may all be in memory still
            self.is_torn |= (await in_slices(Selection(self.filters).tally(history, low, high)))[1] != 0
        self.is_thinned |= part.is_thinned
        return as_of_now(part.messages, self.gateway.wall_clock_ms(), history.is_kept), part.cursor

    async def _newest(self) -> AsyncIterator[Message]:
        history = self.gateway.history
        stride = Stride()
        floor, cursor = self.after, self.until
        is_again = True
        while is_again:
            is_again = False
            evicted = history.evicted
            if history.beyond is not None:
                floor = history.floor(self.filters, self.after, cursor)
            for message in history.backwards(self.filters, floor, cursor):
                if message is not None:
                    cursor = message.seq - 1
                    yield message
                if stride.is_over:
                    await stride.rest()
                if history.beyond is not None and history.evicted != evicted:
                    is_again = True  # what memory has let go meanwhile is read beyond it
                    break
        cursor = floor
        while cursor > self.after:
            messages, cursor = await self._read_beyond(self.after, cursor, backwards=True)
            for message in messages:
                yield message
                if stride.is_over:
                    await stride.rest()

    async def _last_values(self) -> AsyncIterator[Message]:
        """The newest message of every topic, by name: as of when it is read, so that none is missed for its haste."""
        history = self.gateway.history
        after = self.after_name
        stride = Stride()
        while True:
            names, _ = await in_slices(first_names(topic_names(history, self.filters), after, NAMES_AT_ONCE))
            for name in names:
                state = history.topic(name)
                if state is not None and state.last is not None:
                    yield state.last
                if stride.is_over:
                    await stride.rest()
            if len(names) < NAMES_AT_ONCE:
                return
            after = names[-1]


def asker_key() -> str | None:
    """What counts as the address of who asks."""
    budget = asker()
    return None if budget is None else budget.key


async def answered(asked: Asked[T]) -> T:
    """The answer to a question, when it is there; who asks pays for it, and is not refused next for what it owes."""
    if not asked.is_answered:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def go_on() -> None:
            if not waiting.done():
                waiting.set_result(None)

        asked.then(go_on)
        await waiting
    if (budget := asker()) is not None:
        budget.spend(asked.seconds)
        if (wait := budget.wait()) > 0:
            await asyncio.sleep(wait)
    return asked.answer


def check_filters(gateway: Gateway, filters: Iterable[str]) -> list[str]:
    """The filters, valid and no more of them than one subscriber may have.

    Raises:
        ApiError: one is not, or there are too many.
    """
    try:
        return gateway.limits.check_filters(filters)
    except TopicError as error:
        raise ApiError(400, error.code, str(error)) from None
    except LimitError as error:
        raise ApiError(400, error.code, str(error), reason=error.limit) from None


def allowed_filters(request: Request) -> FilterSet:
    """The filters that a request names in its path and as `topic`, all of which the asker may read.

    Raises:
        ApiError: one is not valid, or there are too many.
        Refusal: the asker may not read one of them.
    """
    gateway: Gateway = request.app.state.gateway
    found = FilterSet(check_filters(gateway, (request.path_params["filter"], *request.query_params.getlist("topic"))))
    principal = principal_of(request.scope)
    try:
        require_subscribe(principal, found.filters)
    except AccessError as error:
        raise gateway.guard.refused(principal, error) from None
    return found

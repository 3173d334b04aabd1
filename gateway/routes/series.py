"""Charts: `GET /topics/{filter}?since=30d&points=1200`, points of each topic's numbers and texts.

Invariant: a series never has more points than were asked for, whatever the span; where there is nothing there is a gap;
live messages go on behind `position` without one.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from gateway.access.budget import Budget
from gateway.core.beyond import Drawn
from gateway.core.conditions import ShapeError
from gateway.core.fields import BOOKKEEPING, Field, look_up, numbers_of, rank_of, reading_of, text_of, texts_of
from gateway.core.messages import encode_json
from gateway.core.parameters import FORMATS
from gateway.core.paths import parse_path, path_text, split_paths
from gateway.core.points import Grid, Points
from gateway.core.protocol import ProtocolError
from gateway.core.recordings import csv_line
from gateway.core.shapes import field_at
from gateway.core.since import SinceKind, parse_since
from gateway.core.texts import TextPoints, number_in, numbered
from gateway.core.topic import Topic
from gateway.core.walks import first_names, reaches, topic_names
from gateway.door.asker import asker
from gateway.door.refusals import no_room
from gateway.routes.question import allowed_filters, answered, asker_key
from gateway.routes.request import ApiError, check_query, head_only, integer
from gateway.routes.slices import Stride, in_slices, place, rest_while_little_is_left
from gateway.runtime import Gateway

__all__ = ["series"]


MAX_SERIES = 100
"""Numbers of one topic of which a series is made, and as many texts; of more, the first that come. `field` names
others."""

MAX_ANSWER_BYTES = 8 * 2**20
"""Beyond it an answer ends behind the topic that it is at, and says where to go on."""


AT_ONCE = 20
"""Topics for which the archive is asked in one go."""

WRITTEN_AT_ONCE = 100
"""Points that are written in one go: half a millisecond."""

RAW = "raw"
"""The level of what is made of single messages."""


class _Series(NamedTuple):
    topic: str
    field: str
    level: str
    points: Points


class _Texts(NamedTuple):
    topic: str
    field: str
    level: str
    points: TextPoints


class _Ask:
    """What is asked for.

    Attributes:
        since, until: milliseconds since 1970; `until` is not included.
        grid: the stretches of time of which each makes one point.
        fields: the paths that are asked for; empty where all numbers are.
        form: `json`, `columns` or `csv`.
        is_beyond: whether memory doesn't reach back so far, and the archive is asked.
        is_torn: whether something of it was evicted while the answer was made.
        level: what its points are called.
    """

    def __init__(self, request: Request) -> None:
        query = request.query_params
        self.gateway: Gateway = request.app.state.gateway
        self.filters = allowed_filters(request)
        check_query(query, "points")
        self.form = _form(request)
        points = integer(query, "points", "points")
        now = self.gateway.wall_clock_ms()
        self.since = _time(query, "since", now)
        self.until = _time(query, "until", now) if query.get("until") else now + 1
        if self.since >= self.until:
            raise ApiError(400, "bad_since", "since: must be earlier than until, which is now by default")
        try:
            self.fields = tuple(field_at("field", text) for text in split_paths(query.get("field") or "") if text)
        except ShapeError as error:
            raise ApiError(400, error.code, str(error)) from None
        self.points = points
        self.limit = integer(query, "limit", "points")
        self.after = query.get("after", "")
        self.grid = Grid.over(self.since, self.until, points)
        self.is_beyond = False
        self.is_torn = False
        self.level = RAW

    def rank(self, text: str) -> int:
        """The place of a path: as it was asked for, else as a list of devices has it."""
        if self.fields:
            return next((place for place, field in enumerate(self.fields) if path_text(field.path) == text), 0)
        return rank_of(parse_path(text))


def _form(request: Request) -> str:
    named = request.query_params.get("format")
    if not named:
        return "csv" if request.headers.get("accept", "").lower().startswith("text/csv") else "json"
    if named not in (offered := FORMATS["points"]):
        text = f"format {named[:40]!r}: with points it must be {', '.join(offered[:-1])} or {offered[-1]}"
        raise ApiError(400, "bad_shape", text)
    return named


def _time(query: QueryParams, name: str, now: int) -> int:
    """A parameter's time, milliseconds since 1970.

    Raises:
        ApiError: it is none.
    """
    text = query.get(name, "")
    try:
        found = parse_since(text, now_ms=now)
    except ProtocolError as error:
        raise ApiError(400, error.code, str(error).replace("since", name, 1)) from None
    if found.kind is not SinceKind.TIME:
        text = f"{name} {text[:80]!r}: with points it must be a time back (30d), an ISO time or milliseconds since 1970"
        raise ApiError(400, "bad_since", text)
    return found.time


async def series(request: Request) -> Response:
    """The answer to a question with `points`.

    Raises:
        Refusal: there is no room for it, or no place to make it in (429).
    """
    ask = _Ask(request)
    async with place():
        return await _answer(request, ask)


async def _answer(request: Request, ask: _Ask) -> Response:
    history = ask.gateway.history
    position = history.position
    until = history.seq
    gap = await _look_back(ask)
    names, _ = await in_slices(first_names(topic_names(history, ask.filters), ask.after, ask.limit + 1))
    body = _Body(ask, asker())
    following: str | None = None
    drawn: Drawn | None = None
    for number, name in enumerate(names):
        if number == ask.limit or body.size > MAX_ANSWER_BYTES:
            following = names[number - 1]
            break
        if ask.is_beyond and number % AT_ONCE == 0:
            drawn = await _drawn(ask, names[number : min(number + AT_ONCE, ask.limit)])
        topic = history.topic(name)
        if topic is None:
            ask.is_torn = True
            continue
        if ask.is_beyond and gap is None and (drawn is None or _is_torn(ask, topic, drawn.seq)):
            gap = {"reason": "evicted", "lost": None}
        await in_slices(body.add(await _series_of(topic, ask, until, drawn)))
    if gap is None and ask.is_torn:
        gap = {"reason": "evicted", "lost": None}
    headers = {"Vary": "Accept", "Cache-Control": "no-cache"}
    if ask.form == "csv":
        content, media_type = b"".join([_CSV_HEAD, *body.series, *body.texts]), "text/csv; charset=utf-8"
    else:
        head: dict[str, Any] = {"position": position, "recovered": gap is None}
        if gap is not None:
            head["gap"] = gap
        head |= {"start": ask.grid.start, "step": ask.grid.step, "points": ask.grid.count}
        if following is not None:
            head |= {"more": True, "next": following}
        # one copy of up to 20 MB
        parts = [encode_json(head)[:-1], b',"series":[', *body.series, b'],"texts":[', *body.texts, b"]}"]
        content, media_type = b"".join(parts), "application/json"
    if request.method == "HEAD":
        return head_only(headers, media_type)
    return Response(content, headers=headers, media_type=media_type)


async def _look_back(ask: _Ask) -> dict[str, Any] | None:
    """Finds out whether memory reaches back so far, else whether the archive does; the gap if neither does."""
    history = ask.gateway.history
    if await in_slices(reaches(history, ask.filters, ask.since)):
        return None
    beyond = history.beyond
    if beyond is None:
        return {"reason": "evicted", "lost": None}
    ask.is_beyond = True
    ask.level, unit, reaches_back = beyond.width(ask.filters, ask.since, ask.grid.step)
    ask.grid = Grid.over(ask.since, ask.until, ask.points, unit)
    after = await answered(beyond.find(ask.since, asker_key()))
    if history.crashed_between(after, history.seq):
        return {"reason": "crash", "lost": None}
    is_whole = reaches_back and not beyond.has_holes(after, history.seq)
    return None if is_whole else {"reason": "evicted", "lost": None}


async def _drawn(ask: _Ask, names: list[str]) -> Drawn | None:
    """What the archive has of some topics; None where it can't be read."""
    beyond = ask.gateway.history.beyond
    if beyond is None:  # it has just ended
        return None
    fields = [path_text(field.path) for field in ask.fields]
    await rest_while_little_is_left()
    return await answered(beyond.draw(names, fields, ask.grid, ask.level, asker_key()))


def _is_torn(ask: _Ask, topic: Topic, seq: int) -> bool:
    """Whether memory begins behind what the archive has made points of."""
    return max(topic.newest_evicted, ask.gateway.history.dropped_seq) > seq


class _Column:
    """What single messages say of one number or text.

    Attributes:
        times: milliseconds since 1970, rising.
        numbers: what came; of texts their numbers.
    """

    __slots__ = ("numbers", "times")

    def __init__(self) -> None:
        self.times = array("q")
        self.numbers = array("d")

    def add(self, time: int, number: float) -> None:
        """Adds what a message says; of a clock that was set back, the points are in the order of time."""
        self.times.append(max(time, self.times[-1]) if self.times else time)
        self.numbers.append(number)


async def _series_of(topic: Topic, ask: _Ask, until: int, drawn: Drawn | None) -> list[_Series | _Texts]:
    """The series of one topic, those first that a list of devices shows first."""
    history = ask.gateway.history
    rolled = {} if drawn is None else drawn.points.get(topic.name, {})
    rolled_texts = {} if drawn is None else drawn.texts.get(topic.name, {})
    after = history.before_time(ask.since) if drawn is None else drawn.seq
    columns: dict[str, _Column] = {}
    text_columns: dict[str, _Column] = {}
    known = {field: texts.numbers for field, texts in rolled_texts.items()}
    stride = Stride()
    ask.is_torn |= drawn is None and topic.evicted_time >= ask.since
    messages = topic.after(after)
    while (message := next(messages, None)) is not None and message.seq <= until and message.time < ask.until:
        value = message.value() if message.time >= ask.since else None
        for field, number in _numbers(value, ask.fields):
            if field in columns or len(columns) < MAX_SERIES:
                columns.setdefault(field, _Column()).add(message.time, number)
        for field, text in _texts(value, ask.fields):
            if field in text_columns or len(text_columns) < MAX_SERIES:
                number = number_in(known.setdefault(field, {}), text)
                text_columns.setdefault(field, _Column()).add(message.time, number)
        if stride.is_over:
            await stride.rest()
            # evictions move what is left of it
            ask.is_torn |= topic.is_dropped or topic.newest_evicted > message.seq
            messages = topic.after(message.seq)
    found: list[_Series | _Texts] = []
    for field in sorted({**columns, **dict.fromkeys(list(rolled)[:MAX_SERIES])}, key=ask.rank):
        column, before = columns.get(field), rolled.get(field)
        newest = None if column is None else Points.of_numbers(column.times, column.numbers)
        points = await _joined(ask.grid, before, newest)
        found.append(_Series(topic.name, field, RAW if before is None else ask.level, points))
    for field in sorted({**text_columns, **dict.fromkeys(list(rolled_texts)[:MAX_SERIES])}, key=ask.rank):
        column, texts = text_columns.get(field), rolled_texts.get(field)
        before = None if texts is None else texts.points
        last = before.lasts[-1] if before else None
        newest = None if column is None else numbered(column.times, column.numbers, last)
        points = await _joined(ask.grid, before, newest)
        found.append(_Texts(topic.name, field, RAW if before is None else ask.level, TextPoints(points, known[field])))
    return found


async def _joined(grid: Grid, before: Points | None, newest: Points | None) -> Points:
    """The points of the archive, and behind them those of single messages."""
    parts = [] if before is None else [before]
    if newest is not None:
        parts.append(await in_slices(newest.on(grid)))
    return parts[0] if len(parts) == 1 else Points.merged(parts)


def _numbers(value: Any, fields: tuple[Field, ...]) -> Iterator[tuple[str, float]]:
    """The numbers of a payload by path. States are 1 and 0, as in all charts."""
    if fields:
        for field in fields:
            number = reading_of(value, field)
            if number is not None:
                yield path_text(field.path), number
        return
    for path, number in numbers_of(value, with_states=True):
        if not path or path[-1] not in BOOKKEEPING:
            yield path_text(path), number


def _texts(value: Any, fields: tuple[Field, ...]) -> Iterator[tuple[str, str]]:
    """The texts of a payload by path."""
    if fields:
        for field in fields:
            text = text_of(look_up(value, field))
            if text is not None:
                yield path_text(field.path), text
        return
    for path, text in texts_of(value):
        if not path or path[-1] not in BOOKKEEPING:
            yield path_text(path), text


_CSV_COLUMNS = ("time", "topic", "field", "first", "min", "max", "last", "mean", "count", "changes")
_CSV_HEAD = ",".join(_CSV_COLUMNS).encode() + b"\r\n"


class _Body:
    """What is written of an answer so far.

    Attributes:
        series, texts: those of numbers, and those of texts, with what stands between them.
        size: bytes of both.
    """

    def __init__(self, ask: _Ask, budget: Budget | None) -> None:
        self.series: list[bytes] = []
        self.texts: list[bytes] = []
        self.size = 0
        self._ask = ask
        self._budget = budget

    def add(self, found: Iterable[_Series | _Texts]) -> Generator[None, None, None]:
        """Writes those of a topic; it yields now and then, so that others may have a turn.

        Raises:
            Refusal: there is no room for them.
        """
        for each in found:
            written = yield from _written(each, self._ask)
            parts = self.series if isinstance(each, _Series) else self.texts
            if parts and self._ask.form != "csv":
                parts.append(b",")
            parts.append(written)
            self.size += len(written)
            if self._budget is not None and not self._budget.hold(self.size):
                raise no_room()


def _written(found: _Series | _Texts, ask: _Ask) -> Generator[None, None, bytes]:
    head = {"topic": found.topic, "field": found.field, "level": found.level}
    if ask.form == "columns":
        yield
        return encode_json(head | found.points.columns(ask.grid))
    points = found.points.shown()
    parts: list[bytes] = []
    while part := list(islice(points, WRITTEN_AT_ONCE)):
        parts.append(b"".join(_row(found, point) for point in part) if ask.form == "csv" else encode_json(part)[1:-1])
        yield
    if ask.form == "csv":
        return b"".join(parts)
    return b'%b,"points":[%b]}' % (encode_json(head)[:-1], b",".join(parts))


def _row(found: _Series | _Texts, point: dict[str, Any]) -> bytes:
    moment = datetime.fromtimestamp(point["time"] / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    cells = [moment, found.topic, found.field, *(str(point.get(name, "")) for name in _CSV_COLUMNS[3:])]
    return csv_line(cells).encode()

"""Questions to the gateway over HTTP: last values, history, charts, devices, alerts; and publishing.

Invariant: an answer is whole or says what is missing: pages are fetched one after the other until there are no more,
and a gap of any of them is kept. Answers become a pandas DataFrame where pandas is installed; nothing else needs it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from gateway.client.connection import ClientError, LostError, Message, RefusedError, http_url
from gateway.client.live import Token, token_of
from gateway.core.parameters import BOUNDS
from gateway.core.topics import validate_filter, validate_topic

if TYPE_CHECKING:
    import httpx
    import pandas

__all__ = ["Chart", "History", "alerts", "devices", "history", "last", "publish"]

PAGE = BOUNDS["limit"]["json"].most

_messages = msgspec.json.Decoder(list[Message])


class _Page(msgspec.Struct):
    position: str | None = None
    recovered: bool = True
    gap: dict[str, Any] | None = None
    next: str | None = None
    messages: msgspec.Raw = msgspec.Raw(b"[]")
    series: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    step: int = 0
    devices: list[dict[str, Any]] = []
    alerts: list[dict[str, Any]] = []


@dataclass(slots=True)
class History:
    """Messages of the past.

    Attributes:
        messages: in the order that was asked for.
        position: what comes behind them: the `since` of `connect`, or of the next question.
        recovered: whether everything between `since` and the end is there.
        gap: what is not (`reason`, `lost`), of the first page that lacks something; None where nothing is known.
        more: whether there are more than `limit`.
    """

    messages: list[Message] = field(default_factory=list)
    position: str = ""
    recovered: bool = True
    gap: Mapping[str, Any] | None = None
    more: bool = False

    def frame(self) -> pandas.DataFrame:
        """A row for each message, by time: `topic`, `seq`, and a column for each member of the payload.

        Members of members are named by a path (`outdoor.temperature`); what is no object is in `payload`.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        rows = []
        for message in self.messages:
            payload = message.payload
            rows.append(
                {
                    "time": message.time,
                    "topic": message.topic,
                    "seq": message.seq,
                    **(_flat(payload) if isinstance(payload, dict) else {"payload": payload}),
                }
            )
        return _by_time(pandas.DataFrame(rows, columns=None if rows else ["time", "topic", "seq"]))


@dataclass(slots=True)
class Chart:
    """Points of numbers and texts over time, as in docs/protocol.md ("Charts").

    Attributes:
        series: of numbers, each with `topic`, `field`, `level` and `points`.
        texts: the same of texts.
        position: what comes behind them: the `since` of `connect`.
        recovered, gap: whether a part of the time is gone, and which.
        step: milliseconds that a point stands for.
    """

    series: list[dict[str, Any]] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)
    position: str = ""
    recovered: bool = True
    gap: Mapping[str, Any] | None = None
    step: int = 0

    def frame(self) -> pandas.DataFrame:
        """A row for each point of a number, by time: `topic`, `field`, `first`, `min`, `max`, `last`, `mean`, `count`.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        names = ["time", "topic", "field", "first", "min", "max", "last", "mean", "count"]
        rows = [
            {"topic": one["topic"], "field": one["field"], **point} for one in self.series for point in one["points"]
        ]
        return _by_time(pandas.DataFrame(rows, columns=names))


def _flat(payload: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in payload.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def _by_time(frame: pandas.DataFrame) -> pandas.DataFrame:
    import pandas

    frame["time"] = pandas.to_datetime(frame["time"], unit="ms", utc=True)
    return frame.set_index("time")


class _Asker:
    """One question: pages of it over one connection."""

    def __init__(self, http: httpx.AsyncClient, base: str, token: Token) -> None:
        self._http = http
        self._base = base
        self._token = token

    async def request(self, method: str, path: str, query: Mapping[str, Any], body: bytes | None = None) -> bytes:
        """The body of a good answer.

        Raises:
            LostError: nothing answers, or only later.
            RefusedError: the gateway refuses; `code` says why.
        """
        import httpx

        token = await token_of(self._token)
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        wanted = [
            (name, text)
            for name, value in query.items()
            if value not in (None, False, "")
            for text in (value if isinstance(value, list) else [1 if value is True else value])
        ]
        try:
            answer = await self._http.request(
                method, f"{self._base}/{path}", params=wanted, headers=headers, content=body
            )
        except httpx.HTTPError as error:
            text = f"no answer from {self._base}: {str(error) or type(error).__name__}"
            raise LostError(text, "unreachable") from None
        if answer.is_success:
            return answer.content
        try:
            problem = json.loads(answer.content)
            text, code = str(problem["detail"]), str(problem["code"])
        except (ValueError, KeyError, TypeError):
            text, code = f"what answers at {self._base} is not this gateway ({answer.status_code})", "internal"
        raise (LostError if answer.status_code in (429, 502, 503, 504) else RefusedError)(text, code)

    async def page(self, path: str, query: Mapping[str, Any]) -> _Page:
        """One page."""
        body = await self.request("GET", path, query)
        try:
            return msgspec.json.decode(body, type=_Page)
        except (msgspec.MsgspecError, UnicodeError):
            raise RefusedError(f"what answers at {self._base} is not this gateway") from None


@asynccontextmanager
async def _asking(url: str, token: Token, timeout_seconds: float) -> AsyncIterator[_Asker]:
    try:
        import httpx
    except ImportError:
        text = "questions need the package httpx: pip install 'mqtt-browser-gateway[client]'"
        raise ClientError(text, "unreachable") from None
    base = http_url(url)
    async with httpx.AsyncClient(timeout=timeout_seconds) as http:
        yield _Asker(http, base, token)


def _path_of(topics: str | Sequence[str]) -> tuple[str, list[str]]:
    """The path of one filter or several, and the further ones."""
    first, *others = [validate_filter(text) for text in ([topics] if isinstance(topics, str) else topics)]
    # as one segment: what an address would take for a way up or for nothing is no level of its path
    return f"topics/{quote(first, safe='')}", others


async def last(
    url: str,
    topics: str | Sequence[str],
    *,
    token: Token = None,
    where: str | None = None,
    fields: Sequence[str] = (),
    properties: bool = False,
    timeout_seconds: float = 30.0,
) -> list[Message]:
    """The newest message of each topic, by topic.

    Args:
        url: the gateway's address.
        topics: a topic filter or several.
        token: an access token, or a function that fetches one.
        where: only messages for which it holds.
        fields: only these members of a JSON payload.
        properties: with MQTT 5 properties.
        timeout_seconds: time that each answer may take.

    Raises:
        ClientError: it can't be had.
        TopicError: a filter is none.
    """
    path, others = _path_of(topics)
    query: dict[str, Any] = {"topic": others, "where": where, "fields": ",".join(fields), "properties": properties}
    found: list[Message] = []
    async with _asking(url, token, timeout_seconds) as asker:
        after: str | None = ""
        while after is not None:
            page = await asker.page(path, {**query, "limit": PAGE, "after": after})
            found += _messages.decode(page.messages)
            after = page.next
    return found


async def history(
    url: str,
    topics: str | Sequence[str],
    *,
    token: Token = None,
    since: str | None = None,
    until: str | None = None,
    points: int | None = None,
    order: str = "asc",
    limit: int = PAGE,
    where: str | None = None,
    fields: Sequence[str] = (),
    properties: bool = False,
    timeout_seconds: float = 30.0,
) -> History | Chart:
    """What was published; with `points`, a chart of it.

    Args:
        url: the gateway's address.
        topics: a topic filter or several.
        token: an access token, or a function that fetches one.
        since: a time back such as `10m`, an ISO time or a position; all that is kept unless told.
        until: the last position that is wanted; of a chart a time.
        points: at most so many points of each number or text, over all of the time. It needs `since` to be a time.
        order: `asc`, or `desc` for the newest first. Of messages only.
        limit: the greatest number of messages. Of messages only.
        where: only messages for which it holds.
        fields: only these members of a JSON payload; of a chart, those that are drawn.
        properties: with MQTT 5 properties.
        timeout_seconds: time that each answer may take.

    Raises:
        ClientError: it can't be had.
        TopicError: a filter is none.
    """
    path, others = _path_of(topics)
    async with _asking(url, token, timeout_seconds) as asker:
        if points is not None:
            query = {"topic": others, "since": since, "until": until, "points": points, "field": ",".join(fields)}
            return await _chart(asker, path, query)
        shape = {"topic": others, "where": where, "fields": ",".join(fields), "properties": properties}
        return await _history(asker, path, shape, since, until, order, limit)


async def _history(
    asker: _Asker, path: str, shape: Mapping[str, Any], since: str | None, until: str | None, order: str, limit: int
) -> History:
    found = History()
    moves = "since" if order == "asc" else "until"
    span: dict[str, Any] = {"since": since, "until": until}
    while True:
        left = min(PAGE, limit - len(found.messages))
        page = await asker.page(path, {**shape, **span, "order": order, "limit": left})
        found.messages += _messages.decode(page.messages)
        if order == "asc":
            found.position = page.next or page.position or ""
        else:
            found.position = found.position or page.position or ""
        found.recovered = found.recovered and page.recovered
        found.gap = found.gap or page.gap
        found.more = page.next is not None
        span[moves], span["epoch"] = page.next, (page.position or "").partition(":")[0]
        if not found.more or len(found.messages) >= limit:
            return found


async def _chart(asker: _Asker, path: str, query: Mapping[str, Any]) -> Chart:
    found = Chart()
    after: str | None = ""
    while after is not None:
        page = await asker.page(path, {**query, "limit": 1_000, "after": after})
        found.series += page.series
        found.texts += page.texts
        found.position = found.position or page.position or ""
        found.recovered = found.recovered and page.recovered
        found.gap = found.gap or page.gap
        found.step = page.step
        after = page.next
    return found


async def devices(url: str, *, token: Token = None, timeout_seconds: float = 30.0) -> list[dict[str, Any]]:
    """What announced itself on the broker (docs/devices.md), by id.

    Raises:
        ClientError: it can't be had.
    """
    found: list[dict[str, Any]] = []
    async with _asking(url, token, timeout_seconds) as asker:
        after: str | None = ""
        while after is not None:
            page = await asker.page("devices", {"after": after})
            found += page.devices
            after = page.next
    return found


async def alerts(url: str, *, token: Token = None, timeout_seconds: float = 30.0) -> list[dict[str, Any]]:
    """The alerts that are set, and what fires.

    Raises:
        ClientError: it can't be had.
    """
    async with _asking(url, token, timeout_seconds) as asker:
        return (await asker.page("alerts", {})).alerts


async def publish(
    url: str,
    topic: str,
    payload: object,
    *,
    token: Token = None,
    qos: int = 0,
    retain: bool = False,
    confirm: bool = False,
    timeout_seconds: float = 30.0,
) -> dict[str, Any]:
    """Publishes a message, and returns the gateway's answer: with `confirm`, its `position`.

    Args:
        url: the gateway's address.
        topic: its topic.
        payload: bytes as they are, a string as its text, anything else as JSON.
        token: an access token, or a function that fetches one.
        qos: 0, 1 or 2; at 1 and 2 the broker has it when this returns.
        retain: whether the broker keeps it.
        confirm: waits until it has come back from the broker.
        timeout_seconds: time that the answer may take.

    Raises:
        ClientError: it was refused, or nothing answers: then it may have been published all the same.
        TopicError: the topic is none.
    """
    data = payload if isinstance(payload, bytes) else payload.encode() if isinstance(payload, str) else None
    if data is None:
        data = msgspec.json.encode(payload)
    path = f"topics/{quote(validate_topic(topic), safe='')}"
    async with _asking(url, token, timeout_seconds) as asker:
        body = await asker.request("POST", path, {"qos": qos, "retain": retain, "confirm": confirm}, data)
    answer: dict[str, Any] = json.loads(body)
    return answer

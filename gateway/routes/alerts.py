"""`/alerts`: how it is with the alerts, as one answer or as server-sent events.

Invariant: whoever asks hears of an alert only if it may read something that the alert watches, and of topics only that
it may read. A slow reader of events gets the newest state of what changed: nothing queues up for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from hashlib import blake2b
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.access.grants import Principal, may_read
from gateway.alerts.alerts import Alert, Alerts
from gateway.core.frames import sse_event
from gateway.core.messages import encode_json
from gateway.core.protocol import CloseCode
from gateway.core.topics import overlap
from gateway.door.expiry import Expiry
from gateway.door.refusals import principal_of
from gateway.routes.event_stream import KEEP_ALIVE_SECONDS, RETRY_MS, stream_of
from gateway.routes.request import check_query, has_newest, representation_of
from gateway.routes.slices import in_slices
from gateway.runtime import Gateway

__all__ = ["alerts"]

PAUSE_SECONDS = 0.25
"""The least time between two rounds of events: what comes about meanwhile goes along."""


async def alerts(request: Request) -> Response:
    """`/alerts`: JSON with an ETag, or server-sent events."""
    gateway: Gateway = request.app.state.gateway
    check_query(request.query_params, "alerts")
    principal = principal_of(request.scope)
    if representation_of(request, "alerts") == "sse":
        return stream_of(request, _events(gateway, principal))
    known = None if gateway.alerts is None else gateway.alerts.alerts
    reports = [] if known is None else [await _report(known, alert, principal) for alert in visible(known, principal)]
    body = encode_json({"alerts": reports})
    tag = f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept"}
    if has_newest(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def visible(known: Alerts, principal: Principal) -> list[Alert]:
    """The alerts that watch something which somebody may read."""
    granted = [grant.topic_filter for grant in principal.subscribe]
    return [
        alert
        for alert in known.alerts.values()
        if any(overlap(text, grant) for text in alert.rule.filters.filters for grant in granted)
    ]


async def _report(known: Alerts, alert: Alert, principal: Principal) -> dict[str, Any]:
    return await in_slices(known.report_in_steps(alert, partial(may_read, principal)))


class _Feed:
    """What changed since it was looked at; the gateway closes it as it does the sinks of other event streams."""

    def __init__(self, may_see: set[str]) -> None:
        self.changed: dict[str, Alert] = {}
        self.is_closed = False
        self.news = asyncio.Event()
        self._may_see = may_see

    def note(self, alert: Alert) -> None:
        """An alert changed."""
        if alert.name in self._may_see:
            self.changed[alert.name] = alert
            self.news.set()

    def write(self, data: bytes) -> None:
        """Nothing is written to it."""

    def buffered(self) -> int:
        """Nothing waits here."""
        return 0

    def close(self, _code: CloseCode, _reason: str) -> None:
        """Ends the stream."""
        self.is_closed = True
        self.news.set()


async def _events(gateway: Gateway, principal: Principal) -> AsyncGenerator[bytes]:
    known = None if gateway.alerts is None else gateway.alerts.alerts
    seen = [] if known is None else visible(known, principal)
    feed = _Feed({alert.name for alert in seen})
    told: list[bytes] = []

    def tell(event: dict[str, Any]) -> None:
        told.append(sse_event(encode_json(event), event=event["event"]))
        feed.news.set()

    expiry = Expiry(
        gateway.guard,
        asyncio.get_running_loop().call_later,
        lambda left: tell({"event": "expiring", "seconds": round(left)}),
        feed.close,
    )
    gateway.event_streams.add(feed)
    if known is not None:
        known.listeners.add(feed.note)
    expiry.watch(principal)
    try:
        feed.changed = {alert.name: alert for alert in seen}
        retry: int | None = RETRY_MS
        while not feed.is_closed:
            feed.news.clear()
            changed, feed.changed = feed.changed, {}
            for alert in changed.values():
                assert known is not None  # noqa: S101 - one of its alerts changed
                body = encode_json({"event": "alert", **await _report(known, alert, principal)})
                yield sse_event(body, event="alert", retry_ms=retry)
                retry = None
            while told:
                yield told.pop(0)
            if changed:
                await asyncio.sleep(PAUSE_SECONDS)
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    await feed.news.wait()
            except TimeoutError:
                yield b": \n"
    finally:
        expiry.cancel()
        gateway.event_streams.discard(feed)
        if known is not None:
            known.listeners.discard(feed.note)

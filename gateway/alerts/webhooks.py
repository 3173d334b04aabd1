"""Webhooks: who is told by HTTP that a topic began or ceased to fire.

Invariant: each webhook is told in order, one at a time; what waits is bounded in number, and what is tried again in
number and time. Addresses, tokens and secrets are in no log. How a request is sent is for `posting`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import random
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.alerts.alerts import Notice
from gateway.alerts.machine import State
from gateway.alerts.posting import Answer, PostError, Request, send
from gateway.core.templates import Template
from gateway.settings.alerting import WebhookSettings, in_body

__all__ = ["MAX_ATTEMPTS", "MAX_WAITING", "Hook", "Told", "Webhooks", "request_for"]

logger = logging.getLogger(__name__)

MAX_WAITING = 100
"""Notices that wait for one webhook; beyond it the oldest go."""

MAX_ATTEMPTS = 8
MAX_SECONDS = 3_600.0
"""A notice is tried so often, and for so long."""

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
"""The wait before the second attempt; each further one is about twice as long, up to the longest."""

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which another attempt may help."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook, as it is set; what is secret is not shown.

    Attributes:
        body: the JSON that it gets in place of the format's, with a `Template` for each text; None: the format's.
    """

    name: str
    url: str = field(repr=False)
    format: str = "json"
    body: Any = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    secret: bytes | None = field(default=None, repr=False)
    allow_private: bool = False

    @classmethod
    def of(cls, name: str, settings: WebhookSettings) -> Hook:
        """The webhook that these settings describe."""
        return cls(
            name=name,
            url=settings.url.get_secret_value(),
            format=settings.format,
            body=_taken_apart(settings.body),
            token=None if settings.token is None else settings.token.get_secret_value(),
            secret=None if settings.secret is None else key_of(settings.secret.get_secret_value()),
            allow_private=settings.allow_private,
        )

    @property
    def host(self) -> str:
        """What may be told of its address."""
        return urlsplit(self.url).hostname or ""


def _taken_apart(value: Any) -> Any:
    """JSON with a template in place of each text."""
    match value:
        case str():
            return in_body(value)
        case dict():
            return {name: _taken_apart(each) for name, each in value.items()}
        case list():
            return [_taken_apart(each) for each in value]
    return value


def _filled(value: Any, topic: str, values: Mapping[str, Any]) -> Any:
    """The same with the texts that the templates make."""
    match value:
        case Template():
            return value.fill(topic, None, values)
        case dict():
            return {name: _filled(each, topic, values) for name, each in value.items()}
        case list():
            return [_filled(each, topic, values) for each in value]
    return value


@dataclass(frozen=True, slots=True)
class Told:
    """What one webhook is to be told.

    Attributes:
        id: the same for each attempt, so that a receiver knows a repetition.
        notice: what came about.
        at: when, by a monotonic clock, in seconds.
    """

    id: str
    notice: Notice
    at: float


def key_of(secret: str) -> bytes:
    """The key of a secret: the bytes behind `whsec_` in base64, as Standard Webhooks has them, else its own."""
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def signature(key: bytes, name: str, timestamp: int, body: bytes) -> str:
    """`webhook-signature` of Standard Webhooks 1.0.0: HMAC-SHA256 of id, time and body."""
    signed = b"%b.%d.%b" % (name.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def request_for(hook: Hook, told: Told, now: int) -> Request:
    """The request that tells a webhook.

    Args:
        hook: whom.
        told: what.
        now: seconds since 1970.
    """
    notice, change = told.notice, told.notice.change
    name, url, method = notice.rule.name, hook.url, "POST"
    is_firing = change.after is State.FIRING
    headers: list[tuple[str, str]] = [("user-agent", "mqtt-browser-gateway")]
    document: Any = None
    body = b""
    match hook.format:
        case "ntfy":  # https://docs.ntfy.sh/publish/
            body = notice.summary.encode()
            headers += [
                ("title", f"{name}: {change.after}"),
                ("priority", "4" if is_firing else "3"),
                ("tags", "warning" if is_firing else "white_check_mark"),
                ("content-type", "text/plain; charset=utf-8"),
            ]
        case "slack":  # Mattermost, Rocket.Chat and Discord's /slack take it, too
            text = notice.summary.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            document = {"text": f"*{name}* {change.after}: {text}"}
        case "matrix":  # client-server API, §11.6 of v1.11: the transaction id makes repetitions one message
            method, url = "PUT", f"{hook.url.rstrip('/')}/{told.id}"
            document = {"msgtype": "m.text", "body": f"{name} {change.after}: {notice.summary}"}
        case _:
            document = {
                "id": told.id,
                "alert": name,
                "state": change.after.value,
                "topic": change.topic,
                "since": change.since,
                "time": change.time,
                "value": change.value,
                "summary": notice.summary,
            }
            if hook.body is not None:
                document = _filled(hook.body, change.topic, document)
    if document is not None:
        body = msgspec.json.encode(document)
        headers.append(("content-type", "application/json"))
    if hook.token is not None:
        headers.append(("authorization", f"Bearer {hook.token}"))
    if hook.secret is not None:
        headers += [
            ("webhook-id", told.id),
            ("webhook-timestamp", str(now)),
            ("webhook-signature", signature(hook.secret, told.id, now, body)),
        ]
    return Request(method, url, tuple(headers), body)


Send = Callable[[Request, bool], Awaitable[Answer]]


async def _send(request: Request, allow_private: bool) -> Answer:
    return await send(request, allow_private=allow_private)


class Webhooks:
    """All webhooks, and what waits for each.

    Attributes:
        results: requests and notices by webhook and result: `ok`; `retried`, an attempt that is made again; `refused`
            by the receiver; `private`, an address that may not be reached; `failed`, after the last attempt;
            `dropped`, since too many waited.
    """

    def __init__(
        self,
        settings: Mapping[str, WebhookSettings],
        *,
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        send: Send = _send,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Nothing waits yet; `run` sends."""
        self.results: Counter[tuple[str, str]] = Counter()
        self.hooks = {name: Hook.of(name, one) for name, one in settings.items()}
        self._waiting: dict[str, deque[Told]] = {name: deque() for name in self.hooks}
        self._news = {name: asyncio.Event() for name in self.hooks}
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._send = send
        self._sleep = sleep

    @property
    def waiting(self) -> dict[str, int]:
        """How many notices wait, by webhook."""
        return {name: len(waiting) for name, waiting in self._waiting.items()}

    def tell(self, notice: Notice) -> None:
        """Has the webhooks of an alert told."""
        told = Told(secrets.token_hex(12), notice, self._clock())
        for name in notice.rule.webhooks:
            waiting = self._waiting[name]
            if len(waiting) >= MAX_WAITING:
                waiting.popleft()
                if not self.results[name, "dropped"]:
                    logger.warning("webhook %s: more than %d notices wait, the oldest go", name, MAX_WAITING)
                self.results[name, "dropped"] += 1
            waiting.append(told)
            self._news[name].set()

    async def run(self) -> None:
        """Tells each webhook what waits for it, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name in self.hooks:
                tasks.create_task(self._work(name), name=f"webhook {name}")

    async def _work(self, name: str) -> None:
        hook, waiting, news = self.hooks[name], self._waiting[name], self._news[name]
        while True:
            while waiting:
                told = waiting.popleft()
                try:
                    result = await self._deliver(hook, told)
                except Exception:
                    logger.exception("webhook %s: a notice could not be sent", name)
                    result = "failed"
                self.results[name, result] += 1
            news.clear()
            await news.wait()

    async def _deliver(self, hook: Hook, told: Told) -> str:
        """Tells a webhook, as often as it takes; returns the result."""
        wait = FIRST_SECONDS
        for attempt in range(1, MAX_ATTEMPTS + 1):
            asked: float | None = None
            try:
                answer = await self._send(request_for(hook, told, self._wall_clock_ms() // 1000), hook.allow_private)
            except PostError as error:
                problem = str(error)
                if error.code == "private":
                    logger.warning("webhook %s: %s", hook.name, problem)
                    return "private"
            else:
                if 200 <= answer.status < 300:
                    return "ok"
                problem, asked = f"{hook.host} answered {answer.status}", answer.retry_seconds
                if answer.status not in _AGAIN:
                    logger.warning("webhook %s: %s", hook.name, problem)
                    return "refused"
            delay = min(max(wait * random.uniform(0.5, 1.0), asked or 0.0), LONGEST_SECONDS)  # noqa: S311 - no secret
            if attempt == MAX_ATTEMPTS or self._clock() + delay - told.at > MAX_SECONDS:
                logger.warning("webhook %s: given up after %d attempts: %s", hook.name, attempt, problem)
                return "failed"
            if attempt == 1:
                logger.warning("webhook %s: %s; it is tried again", hook.name, problem)
            self.results[hook.name, "retried"] += 1
            await self._sleep(delay)
            wait = min(wait * 2, LONGEST_SECONDS)
        raise AssertionError  # the last attempt returns

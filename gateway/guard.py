"""The door: what is asked of every request before a route sees it, and who is asking.

Invariant: no route, whatever it serves, is reached by a page of a foreign origin, under a host name that is not ours to
trust, or with a URL or body over its limit; and a token is believed only after `tokens` has verified it. What a
principal may do is `access`'s business, and every route that touches a topic asks there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import html.parser
import itertools
import json
import logging
import math
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from gateway.access.grants import AccessError, Principal
from gateway.access.limits import COST_SECONDS, Attempts, Connections, LimitError, Refusals, TokenBucket
from gateway.access.origins import Origins
from gateway.access.policy import Policy
from gateway.access.redaction import one_line, redact
from gateway.access.tokens import Verifier

__all__ = [
    "EXPIRY_WARNING_SECONDS",
    "Door",
    "Expiry",
    "Guard",
    "Refusal",
    "content_security_policy",
    "label_of",
    "literal_plus",
    "principal_of",
    "problem",
    "subject_of",
]

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# RFC 6750 §2.1 allows more; a JSON Web Token has only these.
BEARER = "bearer "

FAILED_TOKENS_PER_SECOND = 0.5
FAILED_TOKENS_AT_ONCE = 10

LOGGED_REFUSALS_PER_SECOND = 1.0
MAX_TOLD_ORIGINS = 100

EXPIRY_WARNING_SECONDS = 60.0
"""A subscriber hears so long before its token ends, or when a quarter of its time is left if that is less."""


MAX_TIMER_SECONDS = 86_400.0
"""A timer for longer than this is set in steps: a token may be good for centuries."""


class Refusal(Exception):  # noqa: N818 - it is an answer
    """A request that goes no further.

    Attributes:
        status: HTTP status.
        code: stable, as in `protocol.ERROR_CODES`.
        reason: what is counted, and what a program may look at: `origin`, `host`, `url_bytes`, a token's code, …
        headers: further response headers.
    """

    def __init__(
        self, status: int, code: str, reason: str, message: str, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.reason = reason
        self.headers = tuple(headers)


def problem(status: int, code: str, detail: str, **members: object) -> bytes:
    """A problem document (RFC 9457) with our stable `code`."""
    title = HTTPStatus(status).phrase
    return json.dumps({"title": title, "status": status, "code": code, "detail": detail, **members}).encode()


@dataclass(frozen=True, slots=True)
class _Seen:
    """The headers that decide, each at most once."""

    host: str | None
    origin: str | None
    authorization: str | None
    cookie: str | None
    fetch_site: str | None


_DECISIVE = {b"host", b"origin", b"authorization", b"cookie", b"sec-fetch-site"}


def _seen(scope: Scope) -> _Seen:
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name not in _DECISIVE:
            continue
        text = value.decode("latin-1")
        if name in found:
            if name == b"cookie":  # HTTP/2 proxies split it (RFC 9113 §8.2.3)
                found[name] += "; " + text
                continue
            # two parties could read two different ones
            raise Refusal(400, "bad_request", "headers", f"the header {name.decode()} is there twice")
        found[name] = text
    return _Seen(
        found.get(b"host"),
        found.get(b"origin"),
        found.get(b"authorization"),
        found.get(b"cookie"),
        found.get(b"sec-fetch-site"),
    )


def principal_of(scope: Scope) -> Principal:
    """Who asks, as the door found out.

    Raises:
        Refusal: it showed a token that is not accepted.
    """
    found: Principal | Refusal = scope["state"]["principal"]
    if isinstance(found, Refusal):
        raise found
    return found


def subject_of(scope: Scope) -> str:
    """The subject of the one who asks for a label: a space and its quoted name; nothing for nobody."""
    found: Principal | Refusal = scope["state"]["principal"]
    return "" if isinstance(found, Refusal) or found.subject is None else f" {found.subject[:64]!r}"


def label_of(scope: Scope) -> str:
    """Who asks, for logs: the request id, the address and, if it is somebody, the quoted subject."""
    client = scope.get("client")
    address = f"{client[0]}:{client[1]}" if client else "local"
    return f"{scope['state']['request_id']} {address}{subject_of(scope)}"


def is_health(scope: Scope) -> bool:
    """Whether it asks for our health, which is answered whatever the limits say."""
    path: str = scope["path"]
    return path.startswith(scope.get("root_path", "") + "/health/")


def address_of(scope: Scope) -> str | None:
    """The client's address; behind a trusted proxy the one that the proxy names."""
    client = scope.get("client")
    return client[0] if client else None


class Guard:
    """Judges requests and tokens, and counts what it refuses.

    Attributes:
        policy: what roles and anonymous clients may do.
        origins: whose pages may ask.
        refusals: how often it said no, by reason.
        authentications: tokens judged, by result: `ok` or the code of `tokens.TokenError`.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        verifier: Verifier | None = None,
        origins: Origins | None = None,
        cookie: str | None = None,
        max_url_bytes: int = 8_192,
        max_body_bytes: int = 1_048_576,
        body_seconds: float = 10.0,
        max_failed_tokens: int = FAILED_TOKENS_AT_ONCE,
        max_requests: int = 10_000,
        max_requests_per_address: int = 1_000,
        requests_per_second: float = 200.0,
        public: Iterable[str] = ("/client.js", "/client-shared.js", "/client-worker.js"),
        refusals: Refusals | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """A guard.

        Args:
            policy: what roles and anonymous clients may do.
            verifier: judges tokens; None: there is no key, and nobody has to be somebody.
            origins: pages that may ask besides our own.
            cookie: the name of a cookie that may carry the token; None: cookies are not looked at.
            max_url_bytes: the longest path and query.
            max_body_bytes: the largest body of a request.
            body_seconds: a body that makes no progress for so long is given up.
            max_failed_tokens: bad tokens of one address at once, before it is told to wait.
            max_requests: HTTP requests that are being answered at a time.
            max_requests_per_address: of these, from one address.
            requests_per_second: HTTP requests from one address, twice as many at once; and as many handshakes of
                WebSockets, as many at once as connections may be open from one address.
            public: paths of files that pages of all origins may load.
            refusals: counts; its own by default.
            clock: monotonic seconds.
            wall_clock: seconds since 1970.
        """
        self.policy = policy
        self.verifier = verifier
        self.origins = origins or Origins()
        self.refusals = refusals or Refusals()
        self.authentications: Counter[str] = Counter()
        self.max_body_bytes = max_body_bytes
        self.body_seconds = body_seconds
        self._cookie = cookie
        self._public = frozenset(public)
        self._max_url_bytes = max_url_bytes
        self._clock = clock
        self._wall_clock = wall_clock
        self._anonymous = policy.anonymous()
        self._attempts = Attempts(FAILED_TOKENS_PER_SECOND, max_failed_tokens)
        self.requests = Connections(max_requests, max_requests_per_address)
        self._rates = Attempts(requests_per_second, int(requests_per_second * 2))
        # a gateway that was restarted gets all its browsers back at once
        self._upgrade_rates = Attempts(requests_per_second, max(int(requests_per_second * 2), max_requests_per_address))
        self._requests_per_second = requests_per_second
        self._log_bucket = TokenBucket(LOGGED_REFUSALS_PER_SECOND, 10)
        self._unlogged = 0
        self._told_origins: set[str | None] = set()
        # Names a connection in the log; random at the start so that two runs don't share names.
        self._prefix = secrets.token_hex(3)
        self._numbers = itertools.count(1)

    def next_id(self) -> str:
        """A request id."""
        return f"{self._prefix}-{next(self._numbers):x}"

    # requests

    def check(self, scope: Scope) -> None:
        """Returns if the request may reach a route.

        Raises:
            Refusal: it may not.
        """
        size = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        if size > self._max_url_bytes:
            text = f"the URL has {size} bytes, at most {self._max_url_bytes} are allowed"
            raise Refusal(414, "limit", "url_bytes", text)
        seen = _seen(scope)
        scheme = scope.get("scheme", "http")
        # Health is asked for by machines, under any name, and tells nothing.
        if self.policy.is_open and not is_health(scope) and not self.origins.permits_host(seen.host, scheme=scheme):
            raise Refusal(
                403,
                "forbidden",
                "host",
                f"the host name {_quoted(seen.host)} could be somebody else's, pointed at this address; "
                f"if it is yours, list it: GATEWAY_ACCESS_ORIGINS=https://{_hostname(seen.host)}",
            )
        if not self._is_public(scope) and not self.origins.permits(seen.origin, scheme=scheme, host=seen.host):
            raise Refusal(
                403,
                "forbidden",
                "origin",
                f"pages of the origin {_quoted(seen.origin)} may not use this gateway; if they should, list it: "
                "GATEWAY_ACCESS_ORIGINS, or gateway demo --origin",
            )

    def enter(self, scope: Scope) -> str | None:
        """Counts an HTTP request as being answered, and returns the key with which `requests.close` ends that.

        None if it isn't counted: who asks for our health must get an answer, above all when there is too much to do. Of
        a WebSocket handshake only the rate is looked at; its route counts the connection.

        Raises:
            Refusal: too many are, or came from this address in too short a time.
        """
        is_upgrade = scope["type"] == "websocket"
        if is_health(scope) and not is_upgrade:
            return None
        address, now = address_of(scope), self._clock()
        rates = self._upgrade_rates if is_upgrade else self._rates
        wait = rates.wait(address, now)
        if wait > 0:
            what = "WebSocket handshakes" if is_upgrade else "requests"
            text = f"limit: at most {self._requests_per_second:g} {what} a second"
            raise Refusal(429, "limit", "requests_per_second", text, [("retry-after", str(math.ceil(wait)))])
        rates.failed(address, now)
        if is_upgrade:
            return None
        try:
            return self.requests.open(address)
        except LimitError as error:
            text = f"limit: {error}".replace("connections are open", "requests are being answered")
            raise Refusal(503, "limit", error.limit, text, [("retry-after", "10")]) from None

    def charge(self, address: str | None, seconds: float) -> None:
        """Counts processor time that one asker's filters took as handshakes of its address, one for each 5 ms."""
        if (count := int(seconds / COST_SECONDS)) > 0:
            self._upgrade_rates.debit(address, self._clock(), count)

    async def prepare(self) -> None:
        """Fetches key sets, so that the first token doesn't wait for them."""
        if self.verifier is not None:
            await self.verifier.refresh()

    def _is_public(self, scope: Scope) -> bool:
        """Whether it is one of the files that pages of all origins may load: code, the same for everyone."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return path in self._public and scope["type"] == "http" and scope["method"] in ("GET", "HEAD")

    def cors_headers(self, scope: Scope) -> Headers:
        """What lets a page of a listed origin read the answer; nothing for any other request."""
        if self._is_public(scope):
            return [(b"access-control-allow-origin", b"*"), (b"cross-origin-resource-policy", b"cross-origin")]
        if not self.origins.listed:
            return []
        headers: Headers = [(b"vary", b"origin")]
        try:
            seen = _seen(scope)
        except Refusal:
            return headers
        if seen.origin is None or not self.origins.lists(seen.origin):
            return headers
        headers.append((b"access-control-allow-origin", seen.origin.encode("latin-1")))
        if self._cookie and self.origins.may_carry_cookie(seen.origin, scheme=scope["scheme"], host=seen.host):
            headers.append((b"access-control-allow-credentials", b"true"))
        headers.append((b"access-control-expose-headers", b"gateway-gap, link, x-request-id"))
        return headers

    def preflight(self, scope: Scope) -> Headers | None:
        """The answer to a CORS preflight; None if the request is none."""
        if scope["method"] != "OPTIONS":
            return None
        asked = dict(scope["headers"])
        if b"access-control-request-method" not in asked:
            return None
        headers: Headers = [
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (b"access-control-allow-headers", b"accept, authorization, cache-control, content-type, last-event-id"),
            (b"access-control-max-age", b"7200"),
        ]
        if asked.get(b"access-control-request-private-network") == b"true":
            headers.append((b"access-control-allow-private-network", b"true"))
        return headers

    def note(self, refusal: Refusal, scope: Scope, request_id: str) -> None:
        """Counts a refusal, and logs it unless there are too many."""
        self.refusals.count(refusal.reason)
        if not self._log_bucket.take(self._clock()):
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more were not logged)" if self._unlogged else ""
        self._unlogged = 0
        # A page's author sees nothing but a closed connection; the first time, whoever runs the gateway is told why.
        origin = _seen(scope).origin if refusal.reason == "origin" else None
        is_news = origin is not None and origin not in self._told_origins and len(self._told_origins) < MAX_TOLD_ORIGINS
        if is_news:
            self._told_origins.add(origin)
        logger.log(
            logging.WARNING if is_news else logging.INFO,
            "refused %s %s: %s%s",
            scope.get("method", "WebSocket"),
            one_line(redact(scope["path"][:200])),
            one_line(redact(str(refusal))),
            more,
            extra={"connection": request_id, "client": address_of(scope), "reason": refusal.reason},
        )

    # tokens

    async def principal_of(self, scope: Scope) -> Principal:
        """Who is asking, by the token in the `Authorization` header, `?token=` or the cookie, in this order.

        Raises:
            Refusal: the token is not accepted (401), or too many of this address were not (429).
        """
        token = self._token_of(scope)
        if token is None or self.verifier is None:
            return self._anonymous
        return await self.authenticate(token, address_of(scope))

    async def authenticate(self, token: str, address: str | None) -> Principal:
        """The principal of a token.

        Raises:
            Refusal: the token is not accepted (401), or too many of this address were not (429).
        """
        if self.verifier is None:
            raise Refusal(401, "unauthorized", "no_keys", "this gateway has no key to verify tokens with")
        try:
            principal = self.policy.principal(await self.verifier.verify(token))
        except AccessError as error:
            self.authentications[error.code] += 1
            if error.code == "keys_unavailable":
                raise Refusal(503, "unauthorized", error.code, str(error), [("retry-after", "30")]) from None
            # A good token is never held up: its owner may share an address with one who guesses.
            wait = self._attempts.wait(address, self._clock())
            self._attempts.failed(address, self._clock())
            if wait > 0:
                text = "limit: too many tokens of this address were not accepted; try again later"
                raise Refusal(429, "limit", "failed_tokens", text, [("retry-after", str(math.ceil(wait)))]) from None
            # RFC 6750 §3: the text has to be quotable
            quoted = str(error).replace("\\", "").replace('"', "'")
            challenge = f'Bearer realm="gateway", error="invalid_token", error_description="{one_line(quoted)}"'
            headers = [("www-authenticate", challenge.encode("ascii", "replace").decode())]
            raise Refusal(401, "unauthorized", error.code, str(error), headers) from None
        self.authentications["ok"] += 1
        return principal

    def renewed(self, old: Principal, new: Principal) -> Principal:
        """The principal of a connection that shows a further token.

        Raises:
            Refusal: it would make somebody else of it, so that what one may read goes to another.
        """
        if not old.anonymous and old.subject != new.subject:
            text = f"this connection is that of {old.name}; another subject needs a connection of its own"
            raise Refusal(403, "forbidden", "other_subject", text)
        return new

    def seconds_left(self, principal: Principal) -> float | None:
        """How long its token is valid; None for ever, 0 if no longer."""
        if principal.expires_at is None:
            return None
        return max(0.0, principal.expires_at - self._wall_clock())

    def could_authenticate(self, principal: Principal) -> bool:
        """Whether a token might get it further."""
        return principal.anonymous and self.verifier is not None

    def refused(self, principal: Principal, refused: AccessError) -> Refusal:
        """What a refused subscription or publish is over HTTP: 401 for those who could show a token, else 403."""
        if self.could_authenticate(principal):
            headers = [("www-authenticate", 'Bearer realm="gateway"')]
            return Refusal(401, "unauthorized", "no_token", str(refused), headers)
        return Refusal(403, "forbidden", "grant", str(refused))

    def _token_of(self, scope: Scope) -> str | None:
        seen = _seen(scope)
        # Another scheme is for another party, such as a proxy that asks for a password.
        if seen.authorization is not None and seen.authorization[: len(BEARER)].lower() == BEARER:
            return seen.authorization[len(BEARER) :].strip()
        if b"token" in scope["query_string"]:
            try:
                tokens = [
                    value for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name == "token"
                ]
            except ValueError:
                tokens = []
            if len(tokens) > 1:
                raise Refusal(400, "bad_request", "token", "the URL holds more than one token")
            if tokens:
                return str(tokens[0])
        if self._cookie is not None and seen.cookie is not None and self._cookie_counts(seen, scope):
            for part in seen.cookie.split(";"):
                name, _, value = part.strip().partition("=")
                if name == self._cookie:
                    return value.strip('"')
        return None

    def _cookie_counts(self, seen: _Seen, scope: Scope) -> bool:
        """Whether a cookie may speak for the user: a page of somebody else could have made the browser send it."""
        if not self.origins.may_carry_cookie(seen.origin, scheme=scope["scheme"], host=seen.host):
            return False
        changes_something = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS")
        # Browsers name the origin of a POST; an old one might not, and what isn't a browser needs no cookie.
        return seen.origin is not None or not changes_something or seen.fetch_site in ("same-origin", "none")


def _quoted(text: str | None) -> str:
    return repr(text if text is None or len(text) <= 80 else text[:77] + "...")


def _hostname(host: str | None) -> str:
    name = (host or "").rpartition(":")[0] or (host or "")
    return one_line(name[:80])


class Expiry:
    """The timer of one connection's token: a warning some time before it ends, and then the end.

    Wall-clock time decides, so a clock that is set or a timer that would be too long only make it look again.
    """

    __slots__ = ("_call_later", "_end", "_guard", "_principal", "_timer", "_warn")

    def __init__(
        self,
        guard: Guard,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        warn: Callable[[float], None],
        end: Callable[[], None],
    ) -> None:
        """`warn` gets the seconds that are left."""
        self._guard = guard
        self._call_later = call_later
        self._warn = warn
        self._end = end
        self._principal: Principal
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, principal: Principal) -> None:
        """Waits for the end of this principal's token from now on."""
        self.cancel()
        self._principal = principal
        left = self._guard.seconds_left(principal)
        if left is not None:
            wait = left - min(EXPIRY_WARNING_SECONDS, left / 4)
            self._timer = self._call_later(min(wait, MAX_TIMER_SECONDS), self._near)

    def cancel(self) -> None:
        """Waits no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _near(self) -> None:
        left = self._guard.seconds_left(self._principal) or 0.0
        if left > EXPIRY_WARNING_SECONDS + 1:
            self.watch(self._principal)
            return
        self._warn(left)
        self._timer = self._call_later(left, self._over)

    def _over(self) -> None:
        if self._guard.seconds_left(self._principal):
            self.watch(self._principal)
        else:
            self._end()


_TOPICS = re.compile(rb"(?:^|(?<=&))(topic|filter)=([^&]*)")
_PLUS_LEVEL = re.compile(rb"(?:^|(?<=/)|(?<=%2[Ff]))\+(?=/|%2[Ff]|$)")


def literal_plus(query: bytes) -> bytes:
    """A query in which a `+` that is a whole level of a topic filter stands for itself and not for a space.

    People type it so, and a level that is one space is not what anybody means; it can be written `%20`.
    """
    if b"+" not in query:
        return query
    return _TOPICS.sub(lambda found: b"%b=%b" % (found[1], _PLUS_LEVEL.sub(b"%2B", found[2])), query)


LINGER_SECONDS = 2.0
"""A body that is too large is read and dropped for so long."""


class Door:
    """The ASGI application around all others: checks, counts, and adds the headers that every answer has."""

    def __init__(self, app: App, guard: Guard) -> None:
        self.app = app
        self.guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request or connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request_id = self.guard.next_id()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        scope["query_string"] = literal_plus(scope["query_string"])
        if scope["type"] == "websocket":
            try:
                self.guard.check(scope)
                self.guard.enter(scope)
                state["principal"] = await self._principal(scope)
                await self.app(scope, receive, send)
            except Refusal as refusal:
                # a route that has accepted the connection answers in band instead
                await self._deny(refusal, scope, send, request_id)
            return
        body = _Body(receive, self.guard.max_body_bytes, self.guard.body_seconds)
        answer = _Answer(send, self.guard.cors_headers(scope), request_id)
        key: str | None = None
        try:
            self.guard.check(scope)
            key = self.guard.enter(scope)
            if (headers := self.guard.preflight(scope)) is not None:
                await answer({"type": "http.response.start", "status": 204, "headers": headers})
                await answer({"type": "http.response.body"})
                return
            body.check(scope)
            state["principal"] = await self._principal(scope)
            await self.app(scope, body, answer)
        except Refusal as refusal:
            self.guard.note(refusal, scope, request_id)
            if not answer.started:
                document = problem(refusal.status, refusal.code, str(refusal), reason=refusal.reason)
                # who waits for a "100 Continue" will not send what is refused already
                if refusal.status == 413 and all(name != b"expect" for name, _ in scope["headers"]):
                    await body.discard()
                await answer(_start(refusal, len(document)))
                await answer({"type": "http.response.body", "body": document})
        finally:
            if key is not None:
                self.guard.requests.close(key)

    async def _principal(self, scope: Scope) -> Principal | Refusal:
        """Who asks, or why that can't be said; that matters only to routes that `principal_of`."""
        try:
            return await self.guard.principal_of(scope)
        except Refusal as refusal:
            return refusal

    async def _deny(self, refusal: Refusal, scope: Scope, send: Send, request_id: str) -> None:
        """Refuses a WebSocket before it is one."""
        self.guard.note(refusal, scope, request_id)
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": str(refusal)[:120]})
            return
        document = problem(refusal.status, refusal.code, str(refusal), reason=refusal.reason)
        await send({**_start(refusal, len(document)), "type": "websocket.http.response.start"})
        await send({"type": "websocket.http.response.body", "body": document})


def _start(refusal: Refusal, size: int) -> dict[str, Any]:
    headers: Headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % size),
        (b"cache-control", b"no-store"),
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in refusal.headers),
    ]
    if refusal.status in (400, 408, 413):
        # what is left of the body must not be taken for the next request
        headers.append((b"connection", b"close"))
    return {"type": "http.response.start", "status": refusal.status, "headers": headers}


class _Body:
    """A request's body under its limits; reading on after its end is waiting for the client to go."""

    __slots__ = ("_is_complete", "_max_bytes", "_receive", "_seconds", "_size")

    def __init__(self, receive: Receive, max_bytes: int, seconds: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._size = 0
        self._is_complete = False

    def check(self, scope: Scope) -> None:
        """Refuses by the headers alone what would be refused later."""
        names = {name for name, _ in scope["headers"]}
        if b"content-length" in names and b"transfer-encoding" in names:
            # a proxy before us may go by the one and we by the other (RFC 9112 §6.1)
            raise Refusal(400, "bad_request", "headers", "there is both a Content-Length and a Transfer-Encoding")
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self._max_bytes:
                raise self._too_large(value[:20].decode())
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                text = "a compressed body is not accepted: send it as it is"
                raise Refusal(415, "bad_payload", "content_encoding", text)

    def _too_large(self, size: str) -> Refusal:
        return Refusal(
            413, "bad_payload", "payload_bytes", f"the body has {size} bytes, at most {self._max_bytes} are allowed"
        )

    async def __call__(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._seconds):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, "limit", "body_seconds", f"the body did not come within {self._seconds:g} s") from None
        self._size += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._size > self._max_bytes:
            raise self._too_large(f"more than {self._max_bytes}")
        return message

    async def discard(self) -> None:
        """Reads on for a while what has been refused.

        A connection that is answered and closed while its client still sends is reset, and then the client, or a proxy
        between, never sees the answer.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._is_complete:
                    self._is_complete = not (await self._receive()).get("more_body", False)


# Content types that a browser may run or show as a page get the strictest policy; a route may bring its own.
_COMMON: Headers = [
    (b"x-content-type-options", b"nosniff"),
    # an address may hold a token
    (b"referrer-policy", b"no-referrer"),
]
_PAGE: Headers = [
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
]


class _Answer:
    """Sends the application's answer with the headers that every answer has."""

    __slots__ = ("_headers", "_send", "started")

    def __init__(self, send: Send, cors: Headers, request_id: str) -> None:
        self._send = send
        self._headers = [*cors, (b"x-request-id", request_id.encode()), *_COMMON]
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            own = dict(message.get("headers", []))
            added = list(self._headers)
            is_page = own.get(b"content-type", b"").startswith(b"text/html")
            if is_page:
                policy = own.get(b"content-security-policy", _PAGE_POLICY)
                # a page whose policy names who may frame it: the older header would forbid it to all
                may_be_framed = b"frame-ancestors 'none'" not in policy
                added += [header for header in _PAGE if not (may_be_framed and header[0] == b"x-frame-options")]
            if b"content-security-policy" not in own:
                if is_page:
                    added.append((b"x-frame-options", b"DENY"))
                is_script = own.get(b"content-type", b"").startswith(b"text/javascript")
                policy = _PAGE_POLICY if is_page else _SCRIPT_POLICY if is_script else _DATA_POLICY
                added.append((b"content-security-policy", policy))
            if b"cross-origin-resource-policy" not in own and not any(
                n == b"access-control-allow-origin" for n, _ in added
            ):
                added.append((b"cross-origin-resource-policy", b"same-origin"))
            if b"vary" in own:
                # two lines are one list (RFC 9110 §5.3)
                added = [(name, value) for name, value in added if name != b"vary" or value != own[b"vary"].lower()]
            message["headers"] = [*message.get("headers", []), *added]
        await self._send(message)


class _Inline(html.parser.HTMLParser):
    """Collects the text of scripts and styles that stand in a page itself."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: dict[str, list[str]] = {"script": [], "style": []}
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.found and "src" not in dict(attrs):
            self._inside = tag
            self.found[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self.found[self._inside][-1] += data


def content_security_policy(page: str = "") -> str:
    """A policy under which a page runs its own scripts and styles, and nothing that was smuggled into it.

    Args:
        page: HTML whose inline scripts and styles are allowed by their hash; nothing else that is inline is.
    """
    inline = _Inline()
    inline.feed(page)
    sources: Mapping[str, str] = {
        tag: "".join(f" 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
        for tag, texts in inline.found.items()
    }
    return (
        "default-src 'none'; "
        f"script-src 'self'{sources['script']}; style-src 'self'{sources['style']}; "
        "img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )


_PAGE_POLICY = content_security_policy().encode()
_DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"
# a shared worker lives by the policy of its own script (HTML 10.2.6), and the client library's has to connect
_SCRIPT_POLICY = b"default-src 'none'; connect-src 'self'; frame-ancestors 'none'"

"""The door: what is asked of every request before a route sees it, and who is asking.

Invariant: no route, whatever it serves, is reached by a page of a foreign origin, under a host name that is not ours to
trust, or with a URL or body over its limit; and a token is believed only after `tokens` has verified it. What a
principal may do is `access`'s business, and every route that touches a topic asks there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from gateway.access.budget import Accounts, Buckets, TokenBucket
from gateway.access.grants import AccessError, Principal
from gateway.access.limits import Client, Connections, LimitError, Refusals, User
from gateway.access.origins import Origins
from gateway.access.policy import Policy
from gateway.access.redaction import one_line, redact, without_query
from gateway.access.revocations import Revocations, fingerprint
from gateway.access.tokens import TokenError, Verifier
from gateway.door.refusals import Refusal
from gateway.transport.proxies import FROM_PROXY
from gateway.transport.scopes import Headers, Scope, address_of, is_health

__all__ = ["PUBLIC_FILES", "Guard"]

logger = logging.getLogger(__name__)


# RFC 6750 §2.1 allows more; a JSON Web Token has only these.
BEARER = "bearer "

ALLOWED_HEADERS = b"accept, authorization, cache-control, content-type, if-match, if-none-match, last-event-id"
"""What pages of listed origins may send besides what every page may."""

PUBLIC_FILES = ("/client.js", "/client-shared.js", "/client-worker.js", "/client-ask.js")
"""Files that pages of all origins may load."""

FAILED_TOKENS_PER_SECOND = 0.5
FAILED_TOKENS_AT_ONCE = 10

LOGGED_REFUSALS_PER_SECOND = 1.0
MAX_TOLD_ORIGINS = 100


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


class Guard:
    """Judges requests and tokens, and counts what it refuses.

    Attributes:
        policy: what roles and anonymous clients may do.
        origins: whose pages may ask.
        refusals: how often it said no, by reason.
        accounts: what addresses owe for what they used: those who owe have to wait.
        revocations: tokens that were called back, and who wants to know.
        is_stopping: the gateway stops; what is not answered yet is refused.
        authentications: tokens judged, by result: `ok` or the code of `tokens.TokenError`.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        verifier: Verifier | None = None,
        origins: Origins | None = None,
        cookie: str | None = None,
        user_headers: Iterable[str] = (),
        max_url_bytes: int = 8_192,
        max_body_bytes: int = 1_048_576,
        body_seconds: float = 10.0,
        max_failed_tokens: int = FAILED_TOKENS_AT_ONCE,
        max_requests: int = 10_000,
        max_requests_per_address: int = 1_000,
        requests_per_second: float = 200.0,
        public: Iterable[str] = PUBLIC_FILES,
        refusals: Refusals | None = None,
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """A guard.

        Args:
            policy: what roles and anonymous clients may do.
            verifier: judges tokens; None: there is no key, and nobody has to be somebody.
            origins: pages that may ask besides our own.
            cookie: the name of a cookie that may carry the token; None: cookies are not looked at.
            user_headers: in which a trusted proxy names the user; the first that has a name counts.
            max_url_bytes: the longest path and query.
            max_body_bytes: the largest body of a request.
            body_seconds: time without progress after which a body is given up.
            max_failed_tokens: bad tokens of one address at once, before it is told to wait.
            max_requests: HTTP requests that are being answered at a time.
            max_requests_per_address: of these, from one address.
            requests_per_second: HTTP requests from one address, twice as many at once; and as many handshakes of
                WebSockets, as many at once as connections may be open from one address.
            public: paths of files that pages of all origins may load.
            refusals: counts; its own by default.
            accounts: what addresses owe; its own by default.
            clock: monotonic seconds.
            wall_clock: seconds since 1970.
        """
        self.policy = policy
        self.verifier = verifier
        self.origins = origins or Origins()
        self.refusals = refusals or Refusals()
        # not `or`: accounts of which nobody has used anything are empty
        self.accounts = Accounts(clock) if accounts is None else accounts
        self.authentications: Counter[str] = Counter()
        self.revocations = Revocations()
        self.max_body_bytes = max_body_bytes
        self.body_seconds = body_seconds
        self._cookie = cookie
        self._user_headers = [name.lower().encode("ascii") for name in user_headers]
        self._public = frozenset(public)
        self._max_url_bytes = max_url_bytes
        self._clock = clock
        self._wall_clock = wall_clock
        self._anonymous = policy.anonymous()
        self._attempts = Buckets(FAILED_TOKENS_PER_SECOND, max_failed_tokens)
        self.requests = Connections(max_requests, max_requests_per_address)
        self._rates = Buckets(requests_per_second, int(requests_per_second * 2))
        # a gateway that was restarted gets all its browsers back at once
        self._upgrade_rates = Buckets(requests_per_second, max(int(requests_per_second * 2), max_requests_per_address))
        self._requests_per_second = requests_per_second
        self.is_stopping = False
        self._unfinished: set[asyncio.Timeout] = set()
        self._log_bucket = TokenBucket(LOGGED_REFUSALS_PER_SECOND, 10)
        self._unlogged = 0
        self._told_origins: set[str | None] = set()
        # Names a connection in the log; random at the start so that two runs don't share names.
        self._prefix = secrets.token_hex(3)
        self._numbers = itertools.count(1)

    def stop(self) -> None:
        """The gateway stops: nobody waits for the rest of a request any more."""
        self.is_stopping = True
        now = asyncio.get_running_loop().time()
        for timeout in self._unfinished:
            with contextlib.suppress(RuntimeError):  # it has expired already
                timeout.reschedule(now)

    @contextlib.asynccontextmanager
    async def patience(self, until: float) -> AsyncIterator[None]:
        """Waits inside for a part of a request, until a time of the loop or until the gateway stops.

        Raises:
            TimeoutError: it came too late.
        """
        timeout = asyncio.timeout_at(0 if self.is_stopping else until)
        self._unfinished.add(timeout)
        try:
            async with timeout:
                yield
        finally:
            self._unfinished.discard(timeout)

    def next_id(self) -> str:
        """A request id."""
        return f"{self._prefix}-{next(self._numbers):x}"

    # requests

    def payer_of(self, scope: Scope) -> Client:
        """Whose limits count: the user's whom a trusted proxy names, since all of them may have one address."""
        with contextlib.suppress(Refusal):  # `check` or `principal_of` raises it again
            if (user := self._user_of(scope)) is not None:
                return User(user)
        return address_of(scope)

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
        address, now = self.payer_of(scope), self._clock()
        rates = self._upgrade_rates if is_upgrade else self._rates
        wait = rates.wait(address, now)
        if wait > 0:
            what = "WebSocket handshakes" if is_upgrade else "requests"
            text = f"limit: at most {self._requests_per_second:g} {what} a second"
            raise Refusal(429, "limit", "requests_per_second", text, [("retry-after", str(math.ceil(wait)))])
        if (wait := self.accounts.wait(address)) > 0:
            text = (
                f"limit: what this address asked for took too much of the processor; try again in {math.ceil(wait)} s"
            )
            raise Refusal(429, "limit", "processor", text, [("retry-after", str(math.ceil(wait)))])
        rates.count(address, now)
        if is_upgrade:
            return None
        try:
            return self.requests.open(address)
        except LimitError as error:
            text = f"limit: {error}".replace("connections are open", "requests are being answered")
            raise Refusal(503, "limit", error.limit, text, [("retry-after", "10")]) from None

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
        headers.append((b"access-control-expose-headers", b"etag, gateway-gap, link, x-request-id"))
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
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", b"7200"),
        ]
        if asked.get(b"access-control-request-private-network") == b"true":
            headers.append((b"access-control-allow-private-network", b"true"))
        return headers

    def note(self, refusal: Refusal, scope: Scope, request_id: str) -> None:
        """Counts the refusal of a request, and logs it unless there are too many."""
        what = f"{scope.get('method', 'WebSocket')} {one_line(redact(scope['path'][:200]))}"
        origin = _seen(scope).origin if refusal.reason == "origin" else None
        text = without_query(str(refusal), scope["query_string"])
        self.note_of(refusal.reason, text, what, request_id, address_of(scope), origin=origin)

    def note_of(
        self, reason: str, text: str, what: str, connection: str, address: str | None, *, origin: str | None = None
    ) -> None:
        """Counts a refusal on whatever way in, and logs it unless there are too many.

        Args:
            reason: what is counted, a name from the code.
            text: what the client is told.
            what: what is refused.
            connection: the request id.
            address: the client's.
            origin: the page's, where that is the reason.
        """
        self.refusals.count(reason)
        if not self._log_bucket.take(self._clock()):
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more were not logged)" if self._unlogged else ""
        self._unlogged = 0
        # A page's author sees nothing but a closed connection; the first time, whoever runs the gateway is told why.
        is_news = origin is not None and origin not in self._told_origins and len(self._told_origins) < MAX_TOLD_ORIGINS
        if is_news:
            self._told_origins.add(origin)
        logger.log(
            logging.WARNING if is_news else logging.INFO,
            "refused %s: %s%s",
            what,
            one_line(redact(text)),
            more,
            extra={"connection": connection, "client": address, "reason": reason},
        )

    # tokens

    async def principal_of(self, scope: Scope) -> Principal:
        """Who is asking, by the token in the `Authorization` header, `?token=` or the cookie, in this order.

        Without one it is the user whom a trusted proxy names, where that is set.

        Raises:
            Refusal: the token is not accepted (401), or too many of this address were not (429).
        """
        token = self._token_of(scope)
        if token is None or self.verifier is None:
            user = self._user_of(scope)
            return self._anonymous if user is None else self.policy.user(user)
        return await self.authenticate(token, self.payer_of(scope))

    async def authenticate(self, token: str, address: Client) -> Principal:
        """The principal of a token.

        Raises:
            Refusal: the token is not accepted (401), or too many of this address were not (429).
        """
        if self.verifier is None:
            raise Refusal(401, "unauthorized", "no_keys", "this gateway has no key to verify tokens with")
        try:
            principal = self.policy.principal(await self.verifier.verify(token))
            if principal.token_id is None:
                principal = replace(principal, token_id=fingerprint(token))
            if self.revocations.covers(principal):
                raise TokenError("the token was called back", "revoked")
        except AccessError as error:
            self.authentications[error.code] += 1
            if error.code == "keys_unavailable":
                raise Refusal(503, "unauthorized", error.code, str(error), [("retry-after", "30")]) from None
            # A good token is never held up: its owner may share an address with one who guesses.
            wait = self._attempts.wait(address, self._clock())
            self._attempts.count(address, self._clock())
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
                # only these are white space here (RFC 6265 §4.1.1): a name with another one is another name
                name, _, value = part.strip(" \t").partition("=")
                if name == self._cookie:
                    return value.strip('"')
        return None

    def _user_of(self, scope: Scope) -> str | None:
        """The user whom a trusted proxy names; a page of somebody else gets nothing by it, as by a cookie."""
        if not self._user_headers or FROM_PROXY not in scope.get("extensions", {}):
            return None
        given: dict[bytes, bytes] = {}
        for header, value in scope["headers"]:
            if header in self._user_headers:
                if header in given:
                    raise Refusal(400, "bad_request", "headers", "a header with the user's name is there twice")
                given[header] = value
        if not given or not self._cookie_counts(_seen(scope), scope):
            return None
        names = (_text(given.get(header, b"")).strip() for header in self._user_headers)
        return next(filter(None, names), None)

    def _cookie_counts(self, seen: _Seen, scope: Scope) -> bool:
        """Whether a cookie may speak for the user: a page of somebody else could have made the browser send it."""
        if not self.origins.may_carry_cookie(seen.origin, scheme=scope["scheme"], host=seen.host):
            return False
        changes_something = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS")
        # Browsers name the origin of a POST; an old one might not, and what isn't a browser needs no cookie.
        return seen.origin is not None or not changes_something or seen.fetch_site in ("same-origin", "none")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _quoted(text: str | None) -> str:
    return repr(text if text is None or len(text) <= 80 else text[:77] + "...")


def _hostname(host: str | None) -> str:
    name = (host or "").rpartition(":")[0] or (host or "")
    return one_line(name[:80])

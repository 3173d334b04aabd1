"""The application around all others: each request is checked, counted and answered with the headers that all have.

Invariant: no route is reached by what the guard refuses, nor by a body over its limits. What is refused is the guard's
to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

from gateway.access.budget import Budget, Pace
from gateway.access.grants import Principal
from gateway.access.limits import Client
from gateway.door.asker import asks, metered
from gateway.door.content_policy import content_security_policy
from gateway.door.guard import Guard
from gateway.door.ingress import put_right
from gateway.door.refusals import Refusal, no_memory, no_room, problem
from gateway.transport.scopes import App, Headers, Message, Receive, Scope, Send

__all__ = ["Door", "literal_plus"]


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
"""Time for which a body that is too large is read and dropped."""


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
        put_right(scope)
        payer = state["payer"] = self.guard.payer_of(scope)
        if scope["type"] == "websocket":
            try:
                self.guard.check(scope)
                self.guard.enter(scope)
                asks(self.guard.accounts.payer(payer))
                state["principal"] = await self._principal(scope)
                await self.app(scope, receive, send)
            except Refusal as refusal:
                # a route that has accepted the connection answers in band instead
                await self._deny(refusal, scope, send, request_id)
            return
        budget = self.guard.accounts.payer(payer)
        asks(budget)
        answer = _Answer(send, self.guard.cors_headers(scope), request_id, budget)
        body = _Body(receive, self.guard, payer, answer)
        try:
            # what is refused takes its time, too
            await metered(self._answer(scope, body, answer, request_id))
        finally:
            budget.hold(0)
            body.let_go()

    async def _answer(self, scope: Scope, body: _Body, answer: _Answer, request_id: str) -> None:
        key: str | None = None
        try:
            check_framing(scope)
            self.guard.check(scope)
            key = self.guard.enter(scope)
            if (headers := self.guard.preflight(scope)) is not None:
                await answer({"type": "http.response.start", "status": 204, "headers": headers})
                await answer({"type": "http.response.body"})
                return
            body.check(scope)
            await self._serve(scope, body, answer)
        except _Left:
            self.guard.refusals.count("left")
        except asyncio.CancelledError:
            if not self.guard.is_stopping:
                raise
            # the server has waited long enough; who is still there is told, without a fault in the log
            await self._refuse(stopping(), scope, body, answer, request_id)
        except Refusal as refusal:
            await self._refuse(refusal, scope, body, answer, request_id)
        finally:
            if key is not None:
                self.guard.requests.close(key)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["principal"] = await self._principal(scope)
        try:
            await self.app(scope, receive, send)
        except BaseExceptionGroup as group:
            # a streaming answer waits in a task of its own for its client to go
            ours, others = group.split((_Left, Refusal))
            if ours is None or others is not None:
                raise
            raise _first(ours) from None

    async def _refuse(self, refusal: Refusal, scope: Scope, body: _Body, answer: _Answer, request_id: str) -> None:
        """Answers a request that goes no further, unless its answer has begun."""
        self.guard.note(refusal, scope, request_id)
        if answer.started:
            return
        document = problem(refusal.status, refusal.code, str(refusal), reason=refusal.reason)
        # who waits for a "100 Continue" will not send what is refused already
        if refusal.status == 413 and all(name != b"expect" for name, _ in scope["headers"]):
            await body.discard()
        await answer(_start(refusal, len(document)))
        await answer({"type": "http.response.body", "body": document})

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


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def stopping() -> Refusal:
    """What is not answered yet when the gateway stops."""
    return Refusal(503, "stopping", "stopping", "the gateway stops; come back in a moment", [("retry-after", "2")])


def check_framing(scope: Scope) -> None:
    """Refuses a request whose end two parties could see in two places, before anything else is looked at.

    A proxy before us may go by the one header and we by the other (RFC 9112 §6.1); the connection ends with the answer.

    Raises:
        Refusal: it has both a Content-Length and a Transfer-Encoding (400).
    """
    names = {name for name, _ in scope["headers"]}
    if b"content-length" in names and b"transfer-encoding" in names:
        raise Refusal(400, "bad_request", "headers", "there is both a Content-Length and a Transfer-Encoding")


def _start(refusal: Refusal, size: int) -> dict[str, Any]:
    headers: Headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % size),
        (b"cache-control", b"no-store"),
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in refusal.headers),
    ]
    if refusal.status in (400, 408, 413) or refusal.code == "stopping":
        # what is left of the body must not be taken for the next request
        headers.append((b"connection", b"close"))
    return {"type": "http.response.start", "status": refusal.status, "headers": headers}


class _Left(Exception):  # noqa: N818 - no error: clients leave
    """The client has left before its request was whole: there is nobody to answer."""


class _Body:
    """A request's body under its limits; reading on after its end is waiting for the client to go.

    Whoever reads it keeps it until the request is answered, so what has come is held as long. When the answer has begun
    nobody wants the rest: it is dropped.
    """

    __slots__ = ("_answer", "_guard", "_held", "_is_complete", "_max_bytes", "_pace", "_receive", "_seconds", "_size")

    def __init__(self, receive: Receive, guard: Guard, payer: Client, answer: _Answer) -> None:
        self._receive = receive
        self._guard = guard
        self._max_bytes = guard.max_body_bytes
        self._seconds = guard.body_seconds
        self._pace: Pace | None = None
        self._size = 0
        self._held = Budget(guard.accounts, payer)
        self._answer = answer
        self._is_complete = False

    def check(self, scope: Scope) -> None:
        """Refuses by the headers alone what would be refused later."""
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
        if self._is_complete or self._is_unwanted():
            return await self._end()
        now = asyncio.get_running_loop().time()
        if self._pace is None:
            self._pace = Pace(now, self._seconds)
        try:
            async with self._guard.patience(self._pace.deadline(self._size)):
                message = await self._receive()
        except TimeoutError:
            if self._is_unwanted():
                return await self._end()
            if self._guard.is_stopping:
                raise stopping() from None
            least = f"{self._seconds:g} s, and a second more for each {self._pace.bytes_per_second // 1024:g} KiB"
            raise Refusal(408, "limit", "body_seconds", f"the body comes too slowly: it has {least}") from None
        if message["type"] == "http.disconnect":
            raise _Left
        if self._is_unwanted():
            return message
        self._size += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._size > self._max_bytes:
            raise self._too_large(f"more than {self._max_bytes}")
        if not self._held.hold(self._size):
            raise no_memory()
        return message

    def _is_unwanted(self) -> bool:
        return self._answer.started

    async def _end(self) -> Message:
        while (message := await self._receive()).get("more_body", False):
            pass
        return message

    def let_go(self) -> None:
        """The request is answered."""
        self._held.hold(0)

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
    """Sends the application's answer with the headers that every answer has, if there is room for it."""

    __slots__ = ("_budget", "_headers", "_send", "_start", "started")

    def __init__(self, send: Send, cors: Headers, request_id: str, budget: Budget) -> None:
        self._send = send
        self._budget = budget
        self._start: Message | None = None
        self._headers = [*cors, (b"x-request-id", request_id.encode()), *_COMMON]
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
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
            if b"content-length" in own:
                self._start = message  # its body follows at once
                return
            self.started = True
        elif self._start is not None:
            # a whole answer waits here for whoever reads it; one in parts comes at the reader's pace
            if not message.get("more_body", False) and not self._budget.hold(len(message.get("body", b""))):
                self._start = None
                raise no_room()
            start, self._start = self._start, None
            self.started = True
            await self._send(start)
        await self._send(message)


_PAGE_POLICY = content_security_policy().encode()
_DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"
# a shared worker lives by the policy of its own script (HTML 10.2.6), and the client library's has to connect
_SCRIPT_POLICY = b"default-src 'none'; connect-src 'self'; frame-ancestors 'none'"

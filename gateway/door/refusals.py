"""A request that goes no further, and who asked.

Invariant: one form of refusal for every way in: status, stable code, what is counted, and a text. Who refuses is for
others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus

from gateway.access.grants import Principal
from gateway.access.limits import Client
from gateway.transport.scopes import Scope

__all__ = ["Refusal", "label_of", "no_memory", "no_room", "payer_of", "principal_of", "problem", "subject_of"]


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


def no_room() -> Refusal:
    """What an answer is for which there is no room: too much was asked for and not read yet."""
    text = "limit: too much that was asked for is not read yet; read it, ask for less (limit), or come back later"
    return Refusal(429, "limit", "answer_bytes", text, [("retry-after", "2")])


def no_memory() -> Refusal:
    """What a body is answered for which there is no room: too much is not finished, or waits for the broker."""
    text = "limit: too much that is not finished waits here; come back later"
    return Refusal(503, "limit", "unfinished_bytes", text, [("retry-after", "2")])


def problem(status: int, code: str, detail: str, **members: object) -> bytes:
    """A problem document (RFC 9457) with our stable `code`."""
    title = HTTPStatus(status).phrase
    return json.dumps({"title": title, "status": status, "code": code, "detail": detail, **members}).encode()


def principal_of(scope: Scope) -> Principal:
    """Who asks, as the door found out.

    Raises:
        Refusal: it showed a token that is not accepted.
    """
    found: Principal | Refusal = scope["state"]["principal"]
    if isinstance(found, Refusal):
        raise found
    return found


def payer_of(scope: Scope) -> Client:
    """Whose limits count, as the door found out."""
    found: Client = scope["state"]["payer"]
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

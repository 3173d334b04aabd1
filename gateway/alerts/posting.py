"""One HTTP request to somebody outside, on a connection of its own.

Invariant: it goes to an address that was looked at, after the name was resolved and before anything was sent: a private
network is reached only where a setting allows it, whatever a name server says meanwhile. Redirects are not followed,
and of the answer no more is read than its head. h11 writes and reads HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import h11

__all__ = ["Answer", "PostError", "Request", "is_public", "send"]

TIMEOUT_SECONDS = 10.0
"""For name, connection, TLS, request and answer together."""

READ_BYTES = 16 * 1024
MAX_HEAD_BYTES = 64 * 1024
"""Of an answer."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SPECIAL = [ipaddress.ip_network(text) for text in ("192.0.0.0/24", "64:ff9b:1::/48")]
"""Not of the Internet by IANA's registries, though `is_global` (of some versions of Python) says so."""

Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    Attributes:
        method: of HTTP.
        url: `http` or `https`; it may hold a secret.
        headers: names and values, without those of the connection.
        body: the content.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP.
        retry_seconds: how long to wait before another attempt, if it says so in seconds.
    """

    status: int
    retry_seconds: float | None = None


class PostError(Exception):
    """There is no answer; the text has no secret.

    Attributes:
        code: `private` (no address that may be reached) or `unreachable`.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def is_public(address: str) -> bool:
    """Whether an IP address is one of the Internet: not of this machine, of a private network, of a link, of a group.

    An address of IPv6 that stands for one of IPv4 is judged by that.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local:
            return False
    if any(found in network for network in _SPECIAL):
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved


async def resolve_name(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system has them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def send(
    request: Request,
    *,
    allow_private: bool = False,
    resolve: Resolve = resolve_name,
    context: ssl.SSLContext | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Answer:
    """Sends a request, and returns the answer.

    Args:
        request: what.
        allow_private: whether addresses may be reached that are not `is_public`.
        resolve: gives the addresses of a name.
        context: which certificates are trusted; None: those that the system does.
        timeout_seconds: for all of it.

    Raises:
        PostError: there was none.
    """
    parts = urlsplit(request.url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    tls = (context or _tls()) if is_tls else None
    try:
        async with asyncio.timeout(timeout_seconds):
            addresses = await resolve(host, port)
            allowed = [address for address in addresses if allow_private or is_public(address)]
            if not allowed:
                raise PostError("private", f"{host} has no address that is not private (allow_private)")
            reader, writer = await _connect(allowed, port, host, tls)
            try:
                return await _exchange(reader, writer, request)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise PostError("unreachable", f"{host} did not answer within {timeout_seconds:g} s") from None
    except (OSError, h11.ProtocolError, UnicodeError, ValueError) as error:
        raise PostError("unreachable", f"{host}: {_words(error)}") from None


async def _connect(
    addresses: list[str], port: int, host: str, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address that takes one."""
    failure: OSError | None = None
    for address in addresses:
        try:
            return await asyncio.open_connection(
                address, port, ssl=tls, server_hostname=host if tls is not None else None
            )
        except OSError as error:
            failure = error
    assert failure is not None  # noqa: S101 - there was an address
    raise failure


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> Answer:
    parts = urlsplit(request.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    headers = [
        ("host", parts.netloc.rpartition("@")[2]),
        ("content-length", str(len(request.body))),
        ("connection", "close"),
        *request.headers,
    ]
    events = (
        h11.Request(method=request.method, target=target, headers=headers),
        h11.Data(request.body),
        h11.EndOfMessage(),
    )
    writer.write(b"".join(connection.send(event) or b"" for event in events))
    await writer.drain()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Response):
            return Answer(event.status_code, _retry_seconds(event))
        elif not isinstance(event, h11.InformationalResponse):
            raise ConnectionError("the connection was closed before an answer came")


def _retry_seconds(response: h11.Response) -> float | None:
    """Seconds of Retry-After (RFC 9110 §10.2.3); a date is passed over."""
    for name, value in response.headers:
        if name == b"retry-after" and value.isdigit() and len(value) < 7:
            return float(value)
    return None


def _words(error: Exception) -> str:
    """What went wrong, in short and without what was sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__

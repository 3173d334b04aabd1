"""Which web pages may use the gateway with a visitor's browser.

Invariant: a page of another origin is let in only if that origin is listed, and a host name is believed only if nobody
else's DNS can point it here. What those who are let in may do is in `grants`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from gateway.access.grants import AccessError, shortened

__all__ = ["Origins", "is_loopback", "listed_origin", "normal_origin"]


_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
# A name that the public DNS can't point at somebody else's machine: one label (`localhost`, `raspberrypi`, a compose
# service), or below a suffix that isn't delegated (RFC 6761, RFC 6762, RFC 8375, ICANN's `internal`).
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa", ".test")


_ANY_PORT = ":*"


_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+(?:%\w+)?)\]|([\w.-]+))(?::(\d{1,5})?)?", re.ASCII)
"""A `Host` header: an address in brackets or a name, and a port (RFC 9110 §7.2)."""


def _host_and_port(netloc: str, scheme: str) -> tuple[str, int] | None:
    """A `Host` header's name in lower case and its port; None if it isn't one."""
    found = _HOST.fullmatch(netloc)
    if found is None:
        return None
    name, port = found[1] or found[2], int(found[3] or 0)
    return None if port > 65_535 else (name.lower().rstrip("."), port or _DEFAULT_PORTS[scheme])


@lru_cache(maxsize=256)
def _is_address(name: str) -> bool:
    """Whether this is an address; all clients of a gateway name the same few."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether an address or name to listen on is reachable from this machine only."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def normal_origin(text: str) -> str:
    """An origin as browsers write it: lower case, without the scheme's own port (RFC 6454 §6.2).

    Raises:
        AccessError: it is not `scheme://host[:port]`, `null` or `*` (`bad_origin`).
    """
    if text in ("null", "*"):
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    bare = parts.path in ("", "/") and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
        raise AccessError(
            f"origin {shortened(text)!r}: must be scheme://host or scheme://host:port, such as https://example.com",
            "bad_origin",
        )
    if parts.query or parts.fragment:
        raise AccessError(f"origin {shortened(text)!r}: must have no query and no fragment", "bad_origin")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    suffix = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{host}{suffix}"


def listed_origin(text: str) -> str:
    """An origin as a setting names it: as above, or `http://localhost:*` for every port of a loopback host.

    Raises:
        AccessError: it is neither (`bad_origin`).
    """
    if not text.endswith(_ANY_PORT):
        return normal_origin(text)
    origin = normal_origin(text.removesuffix(_ANY_PORT))
    if not is_loopback(urlsplit(origin).hostname or ""):
        rule = "every port may be meant of a loopback host only, such as http://localhost:*"
        raise AccessError(f"origin {shortened(text)!r}: {rule}", "bad_origin")
    return origin + _ANY_PORT


@dataclass(frozen=True, slots=True)
class Origins:
    """The web pages that may use the gateway: its own, and those of listed origins.

    The `Origin` header is the browser's word, which a page can't change (RFC 6454 §7). A request without one does not
    come from a page of another origin and is allowed; the opaque `null` only if it is listed.

    Attributes:
        listed: origins in normal form; may hold `null`, `*`, and loopback hosts with `*` for a port.
    """

    listed: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, origins: Iterable[str]) -> Origins:
        """From a list of settings.

        Raises:
            AccessError: one of them is no origin (`bad_origin`).
        """
        return cls(frozenset(listed_origin(text) for text in origins))

    def permits(self, origin: str | None, *, scheme: str, host: str | None) -> bool:
        """Whether a page of this origin may ask.

        Args:
            origin: the `Origin` header; None without one.
            scheme: how the request came, `http`, `https`, `ws` or `wss`.
            host: the `Host` header.
        """
        return origin is None or self.lists(origin) or _same_origin(origin, scheme, host)

    def lists(self, origin: str) -> bool:
        """Whether this origin is one of the configured ones (so that it gets CORS headers)."""
        if "*" in self.listed:
            return True
        try:
            normal = normal_origin(origin)
        except AccessError:
            return False
        return normal in self.listed or _with_any_port(normal) in self.listed

    def may_carry_cookie(self, origin: str | None, *, scheme: str, host: str | None) -> bool:
        """Whether a cookie counts: never for an origin that only `*` lets in."""
        if origin is None or _same_origin(origin, scheme, host):
            return True
        return self.lists(origin) and ("*" not in self.listed or Origins(self.listed - {"*"}).lists(origin))

    def permits_host(self, host: str | None, *, scheme: str = "http") -> bool:
        """Whether a `Host` header can be trusted to be no trick of somebody else's DNS.

        A page of `evil.example` can have that name point at 127.0.0.1 and then is of the same origin as the gateway
        ("DNS rebinding"). It can't do so with an address, with a name of one label or one outside of the public DNS.
        Hosts of listed origins are fine, too. Without a `Host` header (HTTP/1.0) there is no browser.
        """
        if host is None or "*" in self.listed:
            return True
        found = _host_and_port(host, scheme)
        if found is None:
            return False
        name = found[0]
        if "." not in name or name.endswith(_LOCAL_SUFFIXES) or (len(name) < 64 and _is_address(name)):
            return True
        return any(urlsplit(origin).hostname == name for origin in self.listed if origin not in ("null", "*"))


def _with_any_port(origin: str) -> str | None:
    """`http://localhost:*` for `http://localhost:5173`; None for what has no host."""
    host = urlsplit(origin).netloc.removesuffix(f":{urlsplit(origin).port}")
    return f"{urlsplit(origin).scheme}://{host}{_ANY_PORT}" if host else None


def _same_origin(origin: str, scheme: str, host: str | None) -> bool:
    if host is None:
        return False
    secure = scheme in ("https", "wss")
    try:
        parts = urlsplit(normal_origin(origin))
    except AccessError:
        return False
    # Behind a proxy that ends TLS the page is https and the request looks like http; the reverse would let a page
    # that an eavesdropper can rewrite into the secure one.
    if not parts.hostname or (secure and parts.scheme != "https"):
        return False
    asked = _host_and_port(host, parts.scheme)
    return asked is not None and asked == (parts.hostname.rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme])

"""Where the server of a cluster is: `valkey://host:6379/0`, or the Sentinels that know it.

Invariant: what is shown of an address holds neither user nor password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["SCHEMES", "Address", "AddressError"]

SCHEMES = {
    "valkey": False,
    "redis": False,
    "valkeys": True,
    "rediss": True,
    "valkey+sentinel": False,
    "redis+sentinel": False,
    "valkeys+sentinel": True,
    "rediss+sentinel": True,
}
"""Schemes, and whether it is TLS."""

PORT = 6379
SENTINEL_PORT = 26379


class AddressError(ValueError):
    """It is no address of a server."""


@dataclass(frozen=True, slots=True)
class Address:
    """Which server.

    Attributes:
        hosts: names or addresses, and ports; with Sentinel those of the Sentinels, else one.
        database: its number, from 0.
        service: what the Sentinels call it; None: `hosts` has the server itself.
        is_tls: whether TLS is spoken.
        username: for the server.
        password: for the server and, where they ask for one, the Sentinels.
        ca_file: certificates of authorities that may vouch for the server; None: those of the system.
    """

    hosts: tuple[tuple[str, int], ...]
    database: int = 0
    service: str | None = None
    is_tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Reads `valkey://user:password@host:6379/0` or `valkey+sentinel://host1:26379,host2:26379/service/0`.

        Raises:
            AddressError: it is none.
        """
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in SCHEMES:
            raise AddressError("must start with valkey://, valkeys:// (TLS) or valkey+sentinel://")
        before, _, after = rest.rpartition("@")
        places, _, path = after.partition("/")
        is_sentinel = scheme.endswith("+sentinel")
        hosts = tuple(_place(text, SENTINEL_PORT if is_sentinel else PORT) for text in places.split(","))
        if not is_sentinel and len(hosts) > 1:
            raise AddressError("names more than one host: for Sentinel write valkey+sentinel://")
        parts = [unquote(part) for part in path.rstrip("/").split("/") if part]
        service = None
        if is_sentinel:
            if not parts:
                raise AddressError("must name the service behind the Sentinels: valkey+sentinel://host:26379/SERVICE")
            service, *parts = parts
        if len(parts) > 1 or (parts and not parts[0].isdecimal()):
            raise AddressError("must end with the number of a database, such as /0")
        username, _, password = before.partition(":")
        return cls(
            hosts,
            int(parts[0]) if parts else 0,
            service,
            SCHEMES[scheme],
            unquote(username) or None,
            unquote(password) or None,
        )

    def __str__(self) -> str:
        scheme = ("valkeys" if self.is_tls else "valkey") + ("+sentinel" if self.service else "")
        places = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{places}/{f'{self.service}/' if self.service else ''}{self.database}"


def _place(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, given = parts.hostname, parts.port
    except ValueError:
        host, given = None, None
    if not host:
        raise AddressError(f"{text[:80]!r} is no host with a port from 1 to 65535")
    return host, given or port

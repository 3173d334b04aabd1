"""Limits in numbers: how many connections, from whom, and how often somebody was refused.

Invariant: whoever goes over a limit is the only one who feels it, and what is remembered of clients is bounded by the
number of open connections. Rates, and what a client may use, are for `budget`.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Client", "Connections", "LimitError", "Refusals", "User", "network_of"]


class LimitError(Exception):
    """A client is over a limit.

    Attributes:
        code: which one, for clients: `too_many_connections`, `too_many_filters`, `rate_limited`, …
        limit: the setting's name, for people and for the counter.
        retry_after_seconds: when it may help to try again; None if waiting doesn't help.
    """

    def __init__(self, code: str, limit: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom a trusted proxy names: one client wherever they are, and apart from all others behind that proxy.

    Attributes:
        name: by its first 256 characters users are told apart.
    """

    name: str


Client = str | User | None
"""Whom a limit is for: an address, or a user with a name; None where there is neither, as on a Unix socket."""


@lru_cache(maxsize=4096)
def network_of(address: Client) -> str:
    """What counts as one address: an IPv4 address, or the /64 that one IPv6 customer has (RFC 6177).

    An IPv4 address inside of IPv6 is that IPv4 address; what is no address (a Unix socket) is one client. A user counts
    as an address that nobody else has.
    """
    if isinstance(address, User):
        return f"user {address.name[:256]!r}"
    if not address:
        return "local"
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "local"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


class Connections:
    """How many connections are open, in all and for each address.

    Attributes:
        is_shared: whether an address is that of many clients.
    """

    def __init__(
        self, max_total: int, max_per_address: int, is_shared: Callable[[str | None], bool] | None = None
    ) -> None:
        """Prepares it.

        Args:
            max_total: how many in all.
            max_per_address: how many for each address.
            is_shared: whether an address is that of many clients, such as a proxy's: it is bounded in all only.
        """
        self.max_total = max_total
        self._max_per_address = max_per_address
        self.is_shared = is_shared or (lambda _: False)
        self._open: Counter[str] = Counter()
        self.total = 0

    def open(self, address: Client) -> str:
        """Counts one more and returns the key that `close` wants.

        Raises:
            LimitError: there are too many (`too_many_connections`).
        """
        key = network_of(address)
        if self._open[key] >= self._max_per_address and (isinstance(address, User) or not self.is_shared(address)):
            raise LimitError(
                "too_many_connections",
                "limit_connections_per_address",
                f"{self._open[key]} connections are open from {key}, at most {self._max_per_address} are allowed",
                retry_after_seconds=10,
            )
        if self.total >= self.max_total:
            raise LimitError(
                "too_many_connections",
                "limit_connections",
                f"{self.total} connections are open, at most {self.max_total} are allowed",
                retry_after_seconds=10,
            )
        self._open[key] += 1
        self.total += 1
        return key

    def close(self, key: str) -> None:
        """Counts one less; `key` is what `open` returned."""
        self.total -= 1
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]

    def of(self, address: Client) -> int:
        """How many are open from this address."""
        return self._open.get(network_of(address), 0)

    def __len__(self) -> int:
        return len(self._open)


class Refusals:
    """How often each limit, check or rule said no: plain counters that `metrics` reads."""

    __slots__ = ("by_reason",)

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()

    def count(self, reason: str) -> None:
        """One more. `reason` is a name from the code, never from a client, so that there are few of them."""
        self.by_reason[reason] += 1

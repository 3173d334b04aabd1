"""Limits on what one client may cost: rates, connections, failed attempts.

Invariant: whoever goes over a limit is the only one who feels it, and what is remembered of clients is bounded by the
number of open connections or by a constant. Time is an argument (monotonic seconds), so that nothing here waits.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable

__all__ = ["COST_SECONDS", "Attempts", "Connections", "LimitError", "Refusals", "TokenBucket", "network_of"]


COST_SECONDS = 0.005
"""So much of the processor's time counts as one more command, request or handshake."""


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


class TokenBucket:
    """So many a second on average, and as many at once (the token bucket of RFC 3290 §5.1.3).

    It starts full. Time that runs backwards is time that stands still.
    """

    __slots__ = ("_burst", "_filled_at", "_level", "_rate")

    def __init__(self, rate_per_second: float, burst: float | None = None) -> None:
        """`burst`: how many at once; None is one second's worth, at least 1."""
        self._rate = rate_per_second
        self._burst = max(1.0, rate_per_second) if burst is None else burst
        self._level = self._burst
        self._filled_at: float | None = None

    def _fill(self, now: float) -> None:
        if self._filled_at is None:
            self._filled_at = now
        elif now > self._filled_at:
            self._level = min(self._burst, self._level + (now - self._filled_at) * self._rate)
            self._filled_at = now

    def take(self, now: float, count: float = 1) -> bool:
        """Whether `count` more may happen now; only then they are counted."""
        self._fill(now)
        # a part in a billion for the rounding of a thousand small refills
        if self._level + 1e-9 < count:
            return False
        self._level -= count
        return True

    def debit(self, now: float, count: float) -> None:
        """Counts `count` more that have happened already: what is not there now is owed."""
        self._fill(now)
        self._level -= count

    def wait(self, now: float, count: float = 1) -> float:
        """Seconds until `take` would succeed; 0 now, infinite if never."""
        self._fill(now)
        if count > self._burst or self._rate <= 0:
            return 0.0 if self._level >= count else float("inf")
        return max(0.0, (count - self._level) / self._rate)

    def is_full(self, now: float) -> bool:
        """Whether it holds all it can, so that forgetting it would change nothing."""
        self._fill(now)
        return self._level >= self._burst


def network_of(address: str | None) -> str:
    """What counts as one address: an IPv4 address, or the /64 that one IPv6 customer has (RFC 6177).

    An IPv4 address inside of IPv6 is that IPv4 address; what is no address (a Unix socket) is one client.
    """
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
    """How many connections are open, in all and for each address."""

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
        self._is_shared = is_shared or (lambda _: False)
        self._open: Counter[str] = Counter()
        self.total = 0

    def open(self, address: str | None) -> str:
        """Counts one more and returns the key that `close` wants.

        Raises:
            LimitError: there are too many (`too_many_connections`).
        """
        key = network_of(address)
        if self._open[key] >= self._max_per_address and not self._is_shared(address):
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

    def of(self, address: str | None) -> int:
        """How many are open from this address."""
        return self._open.get(network_of(address), 0)

    def __len__(self) -> int:
        return len(self._open)


class Attempts:
    """Failed attempts for each address, such as bad tokens: a few at once, then a slow rate.

    Remembers at most `max_addresses`; beyond that the one that failed longest ago is forgotten. So whoever has more
    IPv6 /64 networks than that (a /48 holds 65,536) is not held up by it; the limits in all remain.
    """

    def __init__(self, rate_per_second: float, burst: int, max_addresses: int = 10_000) -> None:
        self._rate = rate_per_second
        self._burst = burst
        self._max_addresses = max_addresses
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def wait(self, address: str | None, now: float) -> float:
        """Seconds that this address has to wait before its next attempt; 0 for none."""
        bucket = self._buckets.get(network_of(address))
        return 0.0 if bucket is None else bucket.wait(now)

    def failed(self, address: str | None, now: float) -> None:
        """Notes that an attempt failed."""
        self._bucket(address, now).take(now)

    def debit(self, address: str | None, now: float, count: float) -> None:
        """Notes what counts as `count` attempts, all of them made already."""
        self._bucket(address, now).debit(now, count)

    def _bucket(self, address: str | None, now: float) -> TokenBucket:
        key = network_of(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            while self._buckets and (
                len(self._buckets) >= self._max_addresses or next(iter(self._buckets.values())).is_full(now)
            ):
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst)
        self._buckets.move_to_end(key)
        return bucket

    def __len__(self) -> int:
        return len(self._buckets)


class Refusals:
    """How often each limit, check or rule said no: plain counters that `metrics` reads."""

    __slots__ = ("by_reason",)

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()

    def count(self, reason: str) -> None:
        """One more. `reason` is a name from the code, never from a client, so that there are few of them."""
        self.by_reason[reason] += 1

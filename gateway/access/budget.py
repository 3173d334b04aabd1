"""What one client may use of the gateway: processor time, bytes, frames, memory, and time to finish what it began.

Invariant: what a connection uses is owed by it and by its address, so that neither more connections nor new ones get
more. What is remembered of addresses is bounded by a constant. Clocks are arguments, and nothing here waits: whoever
reads from a socket asks `Budget.wait`, and stops reading for the seconds that it says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.access.limits import Client, network_of

__all__ = ["Accounts", "Buckets", "Budget", "Memory", "Pace", "Tariff", "TokenBucket"]


class TokenBucket:
    """A number a second on average, and a number at once (the token bucket of RFC 3290 §5.1.3).

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


B = TypeVar("B", bound=TokenBucket)


class _ByAddress(Generic[B]):
    """A bucket for each address, of which at most `max_addresses` are remembered.

    Beyond that the one that was used longest ago is forgotten. So whoever has more IPv6 /64 networks than that (a /48
    holds 65,536) is not held up by it; the limits in all remain.
    """

    def __init__(self, make: Callable[[], B], max_addresses: int) -> None:
        self._make = make
        self._max_addresses = max_addresses
        self._buckets: OrderedDict[str, B] = OrderedDict()

    def find(self, address: Client) -> B | None:
        return self._buckets.get(network_of(address))

    def of(self, address: Client, now: float) -> B:
        key = network_of(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            while self._buckets and (
                len(self._buckets) >= self._max_addresses or next(iter(self._buckets.values())).is_full(now)
            ):
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = self._make()
        self._buckets.move_to_end(key)
        return bucket

    def __len__(self) -> int:
        return len(self._buckets)


class Buckets:
    """A rate for each address: of requests, of handshakes, of bad tokens."""

    def __init__(self, rate_per_second: float, burst: float, max_addresses: int = 10_000) -> None:
        self._buckets = _ByAddress(lambda: TokenBucket(rate_per_second, burst), max_addresses)

    def wait(self, address: Client, now: float) -> float:
        """Seconds that this address has to wait before its next one; 0 for none."""
        bucket = self._buckets.find(address)
        return 0.0 if bucket is None else bucket.wait(now)

    def count(self, address: Client, now: float) -> None:
        """Notes one more of this address, if there is room for it: what is refused costs nothing."""
        self._buckets.of(address, now).take(now)

    def __len__(self) -> int:
        return len(self._buckets)


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a second of a budget buys, of one thing or in parts of several.

    Attributes:
        processor: seconds of processor time, a share of one core.
        frames: frames of a WebSocket, whatever is in them.
        size: bytes read.
        burst_seconds: seconds' worth that may be used at once.
    """

    processor: float
    frames: float
    size: float
    burst_seconds: float

    def price(self, processor: float, frames: int, size: int) -> float:
        """Seconds of a budget that this is."""
        return processor / self.processor + frames / self.frames + size / self.size

    def bucket(self) -> TokenBucket:
        """What has this tariff's burst, and gets a second each second."""
        return TokenBucket(1.0, self.burst_seconds)


CONNECTION = Tariff(processor=0.1, frames=2_000, size=4 * 2**20, burst_seconds=2.0)
"""One connection: a tenth of the core, 2,000 frames or 4 MiB a second, and twice as much at once."""

ADDRESS = Tariff(processor=0.25, frames=20_000, size=8 * 2**20, burst_seconds=8.0)
"""All connections of one address together: a quarter of the core, 20,000 frames or 8 MiB a second, and eight times as
much at once: all browsers behind one router come back together."""


MAX_ANSWER_BYTES, MAX_ANSWER_BYTES_OF_ADDRESS = 128 * 2**20, 32 * 2**20
"""Answers to requests that are made or not read yet: in all, and of one address. The largest message has 22 MiB."""

MAX_STREAM_BYTES, MAX_STREAM_BYTES_OF_ADDRESS = 256 * 2**20, 64 * 2**20
"""What streams of devices remember of what they told: in all, and of one address."""


RELAYED = 15
RELAY_BYTES = 1024
"""Bytes for the broker cost 15 times as much again, and a message as much as a KiB more: the broker takes them and
brings them back, and what others publish stands behind them in its line to the gateway. So an address may publish half
a MiB or 500 messages a second, and eight times as much at once."""


class Memory:
    """What clients have begun and not finished, and what waits for the broker: in all, and for each address."""

    @classmethod
    def for_messages(cls, max_bytes: int) -> Memory:
        """64 MiB, and 16 MiB for an address; more where a single message may be so large."""
        return cls(max(64 * 2**20, 8 * max_bytes), max(16 * 2**20, 2 * max_bytes))

    def __init__(self, max_total: int = 64 * 2**20, max_per_address: int = 16 * 2**20) -> None:
        """Both in bytes."""
        self._max_total = max_total
        self._max_per_address = max_per_address
        self._held: dict[str, int] = {}
        self.total = 0

    def has_room(self, key: str | None, size: int) -> bool:
        """Whether an address may hold `size` more bytes; None is bounded in all only."""
        held = 0 if key is None else self._held.get(key, 0)
        return self.total + size <= self._max_total and held + size <= self._max_per_address

    def change(self, key: str | None, size: int) -> None:
        """Counts more bytes, or fewer where the number is negative."""
        self.total += size
        if key is None:
            return
        held = self._held.get(key, 0) + size
        if held > 0:
            self._held[key] = held
        else:
            self._held.pop(key, None)


class Accounts:
    """What each address owes, whatever road it came on.

    Attributes:
        clock: monotonic seconds.
        memory: what all of them hold.
        answers: answers to requests that are made, or not read yet.
        streams: what streams of devices remember.
        processor: seconds of processor time that were counted so far, for all of them.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        memory: Memory | None = None,
        tariff: Tariff = ADDRESS,
        max_addresses: int = 10_000,
    ) -> None:
        """`tariff`: what one address may use; `max_addresses`: how many are remembered."""
        self.clock = clock
        self.memory = memory or Memory()
        self.processor = 0.0
        self.answers = Memory(MAX_ANSWER_BYTES, MAX_ANSWER_BYTES_OF_ADDRESS)
        self.streams = Memory(MAX_STREAM_BYTES, MAX_STREAM_BYTES_OF_ADDRESS)
        self._tariff = tariff
        self._buckets = _ByAddress(tariff.bucket, max_addresses)

    def spend(self, address: Client, processor: float = 0.0, frames: int = 0, size: int = 0) -> None:
        """Counts what was used for this address."""
        self.processor += processor
        now = self.clock()
        self._buckets.of(address, now).debit(now, self._tariff.price(processor, frames, size))

    def relay(self, address: Client, size: int) -> None:
        """Counts bytes of this address that go on to the broker, beyond what reading them cost."""
        self.spend(address, size=(size + RELAY_BYTES) * RELAYED)

    def wait(self, address: Client, reserve: float = 0.0) -> float:
        """Seconds until this address owes nothing and has a reserve of so many seconds' worth; 0 if it has."""
        bucket = self._buckets.find(address)
        return 0.0 if bucket is None else bucket.wait(self.clock(), reserve)

    def payer(self, address: Client) -> Budget:
        """Who pays at this address for work that belongs to no bytes of a connection, and holds answers."""
        return Budget(self, address, ADDRESS, self.answers)

    def remembers(self, address: Client) -> Budget:
        """Who pays at this address for what a stream remembers."""
        return Budget(self, address, ADDRESS, self.streams)

    def __len__(self) -> int:
        return len(self._buckets)


class Budget:
    """What one connection may use; all of it is charged to its address, too."""

    __slots__ = ("_accounts", "_address", "_bucket", "_held", "_memory", "_tariff", "key")

    FREE_BYTES = 4_096
    """Bytes that a connection may hold uncounted, so that small things always find room."""

    def __init__(
        self, accounts: Accounts, address: Client, tariff: Tariff = CONNECTION, memory: Memory | None = None
    ) -> None:
        """One that has used nothing.

        Args:
            accounts: where the address pays.
            address: who pays; None: nobody but the connection, as long as it is not known who is behind a proxy.
            tariff: what it may use itself.
            memory: where it holds bytes; None: with all that is begun and not finished.
        """
        self._accounts = accounts
        self._memory = memory or accounts.memory
        self._tariff = tariff
        self._bucket: TokenBucket | None = None  # an idle browser needs none
        self._held = 0
        self._address = address
        self.key = None if address is None else network_of(address)

    def charge_to(self, address: Client) -> None:
        """Says who pays from here on: behind a proxy that is another one than the socket's."""
        held = self._held
        self._memory.change(self.key, -held)
        self._address = address
        self.key = None if address is None else network_of(address)
        self._memory.change(self.key, held)

    def spend(self, processor: float = 0.0, frames: int = 0, size: int = 0) -> None:
        """Counts what was used: seconds of processor time, frames, bytes read."""
        if self._bucket is None:
            self._bucket = self._tariff.bucket()
        self._bucket.debit(self._accounts.clock(), self._tariff.price(processor, frames, size))
        if self._address is not None:
            self._accounts.spend(self._address, processor, frames, size)

    def wait(self, reserve: float = 0.0) -> float:
        """Seconds until more may be used, and a reserve of so many seconds' worth is left; 0 for now."""
        own = 0.0 if self._bucket is None else self._bucket.wait(self._accounts.clock(), reserve)
        return own if self._address is None else max(own, self._accounts.wait(self._address, reserve))

    def hold(self, size: int) -> bool:
        """Counts `size` bytes as all that this connection holds now; False, and nothing changes, if there is no room.

        Less than before is always possible.
        """
        counted = max(0, size - self.FREE_BYTES)
        more = counted - self._held
        if more > 0 and not self._memory.has_room(self.key, more):
            return False
        if more:
            self._held = counted
            self._memory.change(self.key, more)
        return True


@dataclass(slots=True)
class Pace:
    """The least rate at which what was begun must come: a whole time that grows with what has come.

    Attributes:
        began: when it was begun, monotonic seconds.
        grace_seconds: time that it may take whatever its size.
        bytes_per_second: bytes that have to come for each second beyond that.
    """

    began: float
    grace_seconds: float
    bytes_per_second: float = 16 * 1024

    def deadline(self, size: int) -> float:
        """When it is given up, after `size` bytes of it have come."""
        return self.began + self.grace_seconds + size / self.bytes_per_second

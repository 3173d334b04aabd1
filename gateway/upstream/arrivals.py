"""What becomes of each PUBLISH that arrives: handed on or not, once, and whether it may be a repetition.

Invariant: of a message that a configured filter matches exactly one copy is handed on, however many of our
subscriptions, or of those that an earlier run left on the broker, it came by. Where a broker offers no way to tell
copies apart (MQTT 3.1.1 has none), no two subscriptions overlap. Swallowing retained messages that are no news is
history's.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from gateway.core.messages import Properties
from gateway.core.topics import covers, disjoint_cover, has_overlap, matches, minimal_cover, overlap
from gateway.upstream.packets import Property, encode_varint, parse_properties

__all__ = ["Arrivals", "OnMessage"]


MQTT_5 = 5


class OnMessage(Protocol):
    """Gets each message, and the number of the subscription that may be repeating it; of most only the first three."""

    def __call__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retained: bool = False,
        properties: Properties | None = None,
        repeat: int = 0,
        /,
    ) -> object:
        """Takes it."""


class Arrivals:
    """Decides what becomes of each PUBLISH: which are handed on, once, and which may be repetitions.

    Where filters overlap, a broker may send one copy for each (MQTT 5 §3.3.4; Mosquitto does). In MQTT 5 each of our
    subscriptions has an identifier that its copies carry, and the copy of the first filter that matches is the one. In
    3.1.1 nothing tells copies apart, so overlapping filters are joined into a wider one there.

    Attributes:
        plain: takes an ordinary message; it is whoever messages are handed to, with no call between (benchmark S9).
        number: what messages get as `repeat`; one before SUBSCRIBE, another one from then on, because a stored message
            may be sent again before and repeated after. 0 for a connection that only comes and goes. A message that is
            sent again gets one of its own, because the broker may do so even after SUBSCRIBE.
        is_subscribed: every SUBSCRIBE has been answered.
        repeat_until: until when a retained message may be a repetition (MQTT 5), in seconds of the clock.
    """

    def __init__(
        self,
        filters: Iterable[str],
        version: int,
        *,
        number: int,
        numbers: Iterator[int],
        on_message: OnMessage,
        on_drop: Callable[[str, str], None],
        on_stale: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number = number
        self.is_subscribed = False
        self.repeat_until = 0.0
        self._wanted = list(filters)
        self._refused: set[str] = set()
        self._filters = minimal_cover(self._wanted)
        self._version = version
        self._numbers = numbers
        self.plain = self._on_message = on_message
        self._on_drop = on_drop
        self._on_stale = on_stale
        self._clock = clock
        self._subscribed: list[str] = list(self._filters)
        self._identifiers: dict[str, int] = {}
        self._owners: dict[str, int | None] = {}
        # before SUBSCRIBE, every copy of MQTT 5 with properties is looked at
        self._plain_sections: frozenset[bytes] = frozenset({b""})

    def refused(self, topic_filter: str) -> None:
        """The broker does not take this subscription: what it covered has to stand for itself."""
        self._refused.add(topic_filter)

    def subscriptions(self, offers_identifiers: bool) -> dict[str, int]:
        """The filters to subscribe to and their identifiers, 0 for none; what arrives is then judged by these.

        Each time that the broker has refused some, what is left may be other filters.
        """
        self._filters = minimal_cover(f for f in self._wanted if f not in self._refused)
        self._owners.clear()
        self._subscribed = list(self._filters)
        if self._version == MQTT_5 and offers_identifiers:
            # Always the same for one filter, so that a copy of a subscription which an earlier run left behind in the
            # session is known by its foreign one.
            self._identifiers = {f: zlib.crc32(f.encode()) % 268_435_455 + 1 for f in self._filters}
            if not has_overlap(self._filters):
                header = bytes([Property.SUBSCRIPTION_ID])
                self._plain_sections = frozenset(header + encode_varint(i) for i in self._identifiers.values())
            else:
                self._plain_sections = frozenset()
        else:
            # where the wider one is refused: those of its parts that don't overlap
            self._subscribed = [f for f in disjoint_cover(self._filters) if f not in self._refused]
            for each in self._filters:
                if not any(overlap(each, f) for f in self._subscribed):
                    self._subscribed.append(each)
        return {f: self._identifiers.get(f, 0) for f in self._subscribed}

    @property
    def left_out(self) -> list[str]:
        """Filters that are not subscribed to because they overlap another one, and nothing tells copies apart."""
        return [f for f in self._filters if not any(covers(wider, f) for wider in self._subscribed)]

    @property
    def plain_sections(self) -> frozenset[bytes]:
        """Property sections that need no look; see `PacketReader.plain`."""
        return self._plain_sections

    def accepts(self, topic: str) -> bool:
        """Whether a configured filter matches; asked once for each topic. The reader counts what it drops for it."""
        if any(matches(f, topic) for f in self._filters):
            return True
        if not any(matches(f, topic) for f in self._subscribed):
            self._on_stale(topic)
        return False

    def special(self, topic: str, payload: bytes, qos: int, retained: bool, section: bytes, dup: bool) -> None:
        """Hands a message on that is retained or has properties, unless it is another subscription's copy."""
        properties: Properties | None = None
        if section:
            properties, identifiers = parse_properties(section)
            if identifiers and self._identifiers and not self._is_ours(topic, identifiers):
                return
        repeat = 0
        if retained and dup:
            # sent again after a reconnect (MQTT-3.3.1-1): perhaps a repetition that wasn't acknowledged
            repeat = next(self._numbers)
        elif retained and (self._version != MQTT_5 or self._clock() < self.repeat_until):
            repeat = self.number
        self._on_message(topic, payload, qos, retained, properties or None, repeat)

    def _is_ours(self, topic: str, identifiers: list[int]) -> bool:
        """Whether this is the one copy to hand on."""
        owner = self._owners.get(topic)
        if owner is None:
            owner = next((self._identifiers[f] for f in self._filters if matches(f, topic)), 0)
            if len(self._owners) >= 10_000:
                self._owners.clear()
            self._owners[topic] = owner
        if owner in identifiers:
            return True
        if any(known in identifiers for known in self._identifiers.values()):
            self._on_drop("duplicate", topic)
            return False
        if self.is_subscribed:
            # a subscription of an earlier run, besides which ours brings its own copy
            self._on_drop("not_wanted", f"{topic[:80]!r} came by a subscription of an earlier configuration")
            self._on_stale(topic)
            return False
        return True

    def failed(self, topic: str, error: Exception) -> None:
        """A message could not be handed on."""
        self._on_drop("failed", f"topic {topic[:80]!r}: {error!r:.200}")

    def oversize(self, size: int) -> None:
        """A message was too large."""
        self._on_drop("too_large", f"it had {size} bytes")

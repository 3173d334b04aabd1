"""How it stands with the broker, and what goes wrong with a message for it, as others see it.

Invariant: plain values that outlive the connection they tell of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["OnChange", "PublishRefused", "UpstreamError", "UpstreamState", "UpstreamUnavailable"]


class UpstreamError(Exception):
    """A message could not be published."""

    code = "internal"


class UpstreamUnavailable(UpstreamError):  # noqa: N818 - the name that the interface has
    """The broker can't be reached, or didn't answer in time; it may work later."""

    code = "upstream_unavailable"


class PublishRefused(UpstreamError):  # noqa: N818 - likewise
    """The broker doesn't take this message, and won't later."""

    code = "publish_refused"


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How it stands with the broker at one moment; times are seconds since 1970.

    Attributes:
        address: the broker, without user and password.
        connected: connected, and every SUBSCRIBE answered.
        connected_since: since when; None while not connected.
        attempts: connections tried since the last one that worked.
        last_error: why it is not connected, or what is wrong although it is; None if all is well.
        protocol: the version spoken, or spoken last; None before the first connection.
        retained_as_published: whether every message says if it is retained (MQTT 5), or only repetitions do (3.1.1).
        session_resumed: whether the broker still had our session: if not, QoS 1 messages may have been missed.
        filters: what was subscribed to, and the QoS granted or, as text, why it was refused.
        subscription: the number of this subscription, which is what `repeat` gives; rises, not always by one.
        last_message_at: when the last message arrived; None before the first.
        received: messages so far, dropped ones included.
        dropped: messages that were not handed on, by reason: `too_large`, `not_wanted`, `duplicate`, `failed` or
            `stopping` (at QoS 0, while the gateway stops).
        reconnects: connections after the first.
    """

    address: str
    connected: bool = False
    connected_since: float | None = None
    attempts: int = 0
    last_error: str | None = None
    protocol: Literal["5", "3.1.1"] | None = None
    retained_as_published: bool = False
    session_resumed: bool = False
    filters: Mapping[str, int | str] = field(default_factory=dict)
    subscription: int = 0
    last_message_at: float | None = None
    received: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    reconnects: int = 0


OnChange = Callable[[UpstreamState], object]

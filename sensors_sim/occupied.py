"""Looks which topics are somebody else's before anything is published.

One invariant: what is alive or retained on a topic counts as somebody else's, unless its device says that it is
simulated (``Dialect.mark``).

It leaves to others: which topics are wanted (``dialects``), and what to do when they are taken (``cli``).
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from paho.mqtt.client import MQTTMessage, topic_matches_sub
from paho.mqtt.matcher import MQTTMatcher

from sensors_sim.address import BrokerAddress
from sensors_sim.links import Link, Links, LinkState

SHORTEST_LOOK_SECONDS = 0.5
"""From the answer to the last subscription; what is retained has come by then."""

LONGEST_LOOK_SECONDS = 10.0
"""For devices that leave nothing retained, so that only their next message shows them."""


def occupied(
    address: BrokerAddress,
    wanted: Mapping[str, str],
    marks: Mapping[str, str],
    *,
    allowed: list[str],
    username_id: str,
    statuses: Mapping[str, frozenset[bytes]],
    look_seconds: float = SHORTEST_LOOK_SECONDS,
    longest_interval: float = 0.0,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, str]:
    """Topics that are somebody else's, each with what is there; empty where all are free.

    Args:
        address: The broker, which is waited for.
        wanted: Topic filter to the device that wants what it matches.
        marks: Topic to the device that is simulated when it says so there.
        allowed: Topic filters that may be taken over.
        username_id: What ``{id}`` in the user name stands for.
        statuses: Topic to what a device says or leaves there that is not on the broker.
        look_seconds: How long to listen for what is not retained.
        longest_interval: How long instead, where a status says that a device is on the broker: a simulator that was
            killed may have left that behind, and only one that runs says more.
        stopping: Whether to give up.
    """
    owners: Any = MQTTMatcher()  # type: ignore[no-untyped-call]
    for topic_filter, device in wanted.items():
        owners[topic_filter] = device
    simulated: set[str] = set()
    there: dict[str, MQTTMessage] = {}
    until: float | None = None
    wait = look_seconds

    def hear(message: MQTTMessage) -> None:
        nonlocal wait, until
        topic = message.topic
        if message.retain and topic in statuses and bytes(message.payload) not in statuses[topic]:
            wait = max(wait, 1.5 * longest_interval)
            until = None
        if topic in marks and message.retain and _says_simulated(bytes(message.payload)):
            simulated.add(marks[topic])
        elif (
            message.payload
            and (topic not in there or not message.retain)
            and not any(topic_matches_sub(part, topic) for part in allowed)
        ):
            there[topic] = message

    links = Links(address, on_message=hear)
    link = Link(f"sensors-sim-look-{secrets.token_hex(4)}", None, list({**wanted, **marks}), username_id)
    links.open(link)
    try:
        while not stopping() and (until is None or time.monotonic() < until):
            links.turn(0.05)
            if link.state is not LinkState.UP or link.unanswered:
                until = None
            elif until is None:
                until = time.monotonic() + min(LONGEST_LOOK_SECONDS, max(SHORTEST_LOOK_SECONDS, wait))
    finally:
        links.close()
    return {
        topic: f"{'retained' if message.retain else 'published'} there: {bytes(message.payload[:40])!r}"
        for topic, message in there.items()
        if not message.retain or not any(device in simulated for device in owners.iter_match(topic))
    }


def _says_simulated(payload: bytes) -> bool:
    try:
        described = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return isinstance(described, dict) and described.get("simulated") is True

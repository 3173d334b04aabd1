"""The broker, tried from the computer that flashes with the name and password that the board will have.

One invariant: nothing that is published here is retained, so nothing of a trial stays behind.

It leaves to others: the protocol (board/mqtt.py, the board's own client, which runs here as well), what topics are
called (payloads.py), and what is done about a broker that can't be used (flash.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from sensors_sim import payloads

from .board import mqtt

CONNECT_SECONDS = 15.0
ECHO_SECONDS = 2.0  # after the broker has acknowledged the message that should come back


class BrokerError(Exception):
    """The broker can't be used; the text says why."""


class NoReadingError(Exception):
    """The sensor said nothing in time; `online` is whether it had reached the broker."""

    def __init__(self, online: bool) -> None:
        super().__init__("no reading")
        self.online = online


def may_speak(broker: dict[str, Any], ca: Path | None, sensor_id: str | None) -> bool:
    """Whether the broker lets this user publish and read a sensor's topics; without an id, whether it is there at all.

    A refusal can only be seen by what does not come: MQTT 3.1.1 has none for PUBLISH, and Mosquitto grants every
    subscription. So `offline`, which is true while a board is flashed, is published and has to come back.

    Args:
        broker: `mqtt` of the settings.
        ca: Certificate of the authority, for mqtts://.
        sensor_id: The sensor in the topics, or None.

    Raises:
        BrokerError: It can't be reached, or refuses the connection.
    """
    return asyncio.run(_may_speak(broker, ca, sensor_id))


async def _may_speak(broker: dict[str, Any], ca: Path | None, sensor_id: str | None) -> bool:
    if sensor_id is None:
        async with connected(broker, ca, None, lambda *_: None):
            return True
    topic = payloads.status_topic(sensor_id)
    came_back = asyncio.Event()

    def take(arrived: str, _payload: bytes, retained: bool) -> None:
        if arrived == topic and not retained:
            came_back.set()

    async with connected(broker, ca, f"sensors/{sensor_id}/#", take) as client:
        client.publish(topic, payloads.OFFLINE.encode())
        await client.wait_delivered(CONNECT_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(came_back.wait(), ECHO_SECONDS)
        return came_back.is_set()


def knows_names_only(broker: dict[str, Any], ca: Path | None, sensor_id: str) -> bool:
    """Whether the broker takes a user's name for the client id, so that a second connection of a user ends the first.

    Mosquitto does so with `use_username_as_clientid`, as in mosquitto/secure: whoever watches a sensor with its own
    name throws it off.

    Raises:
        BrokerError: It can't be reached, or refuses the connection.
    """
    return asyncio.run(_knows_names_only(broker, ca, sensor_id))


async def _knows_names_only(broker: dict[str, Any], ca: Path | None, sensor_id: str) -> bool:
    if not broker.get("username"):
        return False
    async with connected(broker, ca, None, lambda *_: None) as first:
        async with connected(broker, ca, None, lambda *_: None):
            pass
        first.subscribe(payloads.cmd_topic(sensor_id))  # its answer comes over the same connection, or a new one
        await first.wait_delivered(CONNECT_SECONDS)
        return first.connects > 1


def first_reading(
    broker: dict[str, Any], ca: Path | None, sensor_id: str, start: Callable[[], None], wait_seconds: float
) -> tuple[str, str | None]:
    """Start the sensor and wait for its first reading.

    Args:
        broker: `mqtt` of the settings.
        ca: Certificate of the authority, for mqtts://.
        sensor_id: As in its topics.
        start: Called, in a thread, when the broker is listened to.
        wait_seconds: After the start.

    Returns:
        The reading and the sensor's description of itself, which may be missing.

    Raises:
        BrokerError: This computer can't reach it.
        NoReadingError: Nothing came in time.
    """
    return asyncio.run(_first_reading(broker, ca, sensor_id, start, wait_seconds))


async def _first_reading(
    broker: dict[str, Any], ca: Path | None, sensor_id: str, start: Callable[[], None], wait_seconds: float
) -> tuple[str, str | None]:
    state = payloads.state_topic(sensor_id)
    seen: dict[str, str] = {}
    arrived = asyncio.Event()

    def take(topic: str, payload: bytes, retained: bool) -> None:
        if not retained:
            seen[topic] = payload.decode(errors="replace")
            if topic == state:
                arrived.set()

    async with connected(broker, ca, f"sensors/{sensor_id}/#", take):
        await asyncio.to_thread(start)
        try:
            await asyncio.wait_for(arrived.wait(), wait_seconds)
        except TimeoutError:
            status = seen.get(payloads.status_topic(sensor_id))
            raise NoReadingError(status is not None) from None
    return seen[state], seen.get(payloads.meta_topic(sensor_id))


@contextlib.asynccontextmanager
async def connected(
    broker: dict[str, Any], ca: Path | None, topic_filter: str | None, take: Callable[[str, bytes, bool], None]
) -> AsyncIterator[mqtt.Client]:
    """A client that has reached the broker, and reaches it again when it was lost.

    Args:
        broker: `mqtt` of the settings.
        ca: Certificate of the authority, for mqtts://.
        topic_filter: What is subscribed; None for nothing.
        take: Gets topic, payload and retained flag.

    Raises:
        BrokerError: It can't be reached, or refuses the connection.
    """
    client = _client(broker, ca, take)
    if topic_filter is not None:
        client.subscribe(topic_filter)
    failed = asyncio.Event()
    attempts = 0

    def count(what: str) -> None:
        nonlocal attempts
        attempts += what == "attempt"
        # a refusal stays one; anything else may have been a bad moment
        if attempts > 1 or (client.last_error or "").startswith(mqtt.RefusedError.__name__):
            failed.set()

    client.on_progress = count
    running = asyncio.create_task(client.run(), name="broker")
    delivered = asyncio.create_task(client.wait_delivered(CONNECT_SECONDS), name="connect")
    refused = asyncio.create_task(failed.wait(), name="refused")
    try:
        await asyncio.wait((delivered, refused), return_when=asyncio.FIRST_COMPLETED)
        if not client.connected or not delivered.done() or not delivered.result():
            raise BrokerError(
                f"this computer can't reach the broker at {broker['url']}: {client.last_error or 'no answer'}"
            )
        client.on_progress = None
        yield client
        await client.close(2)
    finally:
        for task in (refused, delivered, running):
            task.cancel()
        await asyncio.gather(refused, delivered, running, return_exceptions=True)
        await asyncio.sleep(0)  # a connection that was given up closes its socket in the next turn


def _client(broker: dict[str, Any], ca: Path | None, take: Callable[[str, bytes, bool], None]) -> mqtt.Client:
    host, port, tls = mqtt.parse_url(broker["url"])
    try:
        context = mqtt.tls_context(ca.read_bytes()) if tls and ca is not None else None
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BrokerError(f"{ca} is no certificate ({mqtt.describe(error)})") from None
    return mqtt.Client(
        host,
        port,
        client_id=f"sensors-flash-{secrets.token_hex(4)}",
        username=broker.get("username") or None,
        password=broker.get("password") or None,
        tls=context,
        clean_session=True,
        max_packet_bytes=64 * 1024,
        on_message=take,
    )

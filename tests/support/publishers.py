"""Publishing to a broker from a test, over paho, and seeing what is published."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from .waiting import eventually


def leave(client: paho.Client) -> None:
    """Leaves the broker, and closes all of a client's sockets.

    Two of them, by which its thread is woken, paho closes only when the client is collected. Where the client holds
    whoever holds it, the collector may find the sockets first, and complains of them in the midst of any other test.
    """
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()


class Publisher:
    """A connected MQTT client whose `publish` returns when the broker has the message.

    Use it as a context manager. `received` holds `(topic, payload)` of what arrives for `subscribe`.
    """

    def __init__(
        self, url: str, *, protocol: int = 5, client_id: str = "", clean_session: bool | None = None, **tls: Any
    ) -> None:
        """`url` as in settings, user and password included; `tls` goes to paho's `tls_set`.

        `clean_session` is for MQTT 3.1.1, where False leaves a session behind.
        """
        parts = urlsplit(url)
        version = MQTTProtocolVersion(protocol)
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=clean_session, protocol=version
        )
        if parts.username is not None:
            self._client.username_pw_set(parts.username, parts.password)
        if parts.scheme == "mqtts":
            self._client.tls_set(**tls)
        self._client.max_inflight_messages_set(1_000)
        # paho doubles its patience up to two minutes, more than any test waits for a broker that is started again
        self._client.reconnect_delay_set(1, 1)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 1883)
        self._connected = threading.Event()
        self._subscribed = threading.Event()
        self.received: list[tuple[str, bytes]] = []
        self.messages: list[paho.MQTTMessage] = []
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._acknowledged = 0

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.messages.append(message)
        self.received.append((message.topic, bytes(message.payload)))

    def _on_publish(self, *_: object) -> None:
        self._acknowledged += 1

    def __enter__(self) -> Self:
        self._client.connect(*self._address, keepalive=60)
        self._client.loop_start()
        if not self._connected.wait(30):
            leave(self._client)
            raise TimeoutError("no CONNACK within 10 s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self._client)

    def publish(
        self,
        topic: str,
        payload: bytes | str = b"",
        *,
        qos: int = 1,
        retain: bool = False,
        properties: dict[str, Any] | None = None,
    ) -> None:
        """Publishes one message and waits until the broker has it (QoS 1 and 2) or it is written (QoS 0).

        `properties` are paho's names, such as `ContentType`.
        """
        packed = None
        if properties:
            packed = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in properties.items():
                setattr(packed, name, value)
        info = self._client.publish(topic, payload, qos, retain, packed)
        info.wait_for_publish(10)
        if not info.is_published():
            raise TimeoutError(f"{topic}: not acknowledged within 10 s")

    def publish_all(
        self, messages: Iterable[tuple[str, bytes | str]], *, qos: int = 0, per_second: float = 0, retain: bool = False
    ) -> int:
        """Publishes many and waits for the last; returns how many. At QoS 1 and 2 the broker may be away meanwhile.

        `per_second` spreads them evenly, 0 sends as fast as it goes.
        """
        count = 0
        start = time.monotonic()
        acknowledged = self._acknowledged
        for topic, payload in messages:
            if per_second:
                ahead = count / per_second - (time.monotonic() - start)
                if ahead > 0.002:
                    time.sleep(ahead)
            self._client.publish(topic, payload, qos, retain)
            count += 1
        # by counting: paho's own answer for a message that was queued while the broker was away stays an error
        eventually(lambda: self._acknowledged - acknowledged >= count, 30, f"{count} messages are acknowledged")
        return count

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """Subscribes and waits for the SUBACK."""
        self._subscribed.clear()
        self._client.subscribe(topic_filter, qos)
        if not self._subscribed.wait(30):
            raise TimeoutError("no SUBACK within 10 s")

    def wait_for(self, topic: str, payload: bytes, timeout_seconds: float = 10) -> None:
        """Returns when this message has arrived."""
        eventually(lambda: (topic, payload) in self.received, timeout_seconds, f"{topic} {payload!r} at the broker")


@contextmanager
def publishing(url: str, messages: Iterable[tuple[str, bytes]], *, qos: int, per_second: float) -> Iterator[list[int]]:
    """Publishes from a thread while the test does something else; the list holds how many were sent at the end."""
    sent: list[int] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with Publisher(url) as publisher:
                sent.append(publisher.publish_all(messages, qos=qos, per_second=per_second))
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            failed.append(error)

    thread = threading.Thread(target=run, name="publishing", daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        thread.join(60)
    if failed:
        raise failed[0]
    if thread.is_alive():
        raise TimeoutError("still publishing 60 s after the test has gone on")

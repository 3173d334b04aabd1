"""What a board publishes, as a subscriber sees it who misses nothing: the broker keeps its session."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.publishers import leave
from tests.support.waiting import eventually


class Observer:
    """Subscribes to all topics of one board, with QoS 1."""

    def __init__(self, board_id: str, port: int, ca: Path | None = None) -> None:
        """Returns when it has subscribed."""
        self.id = board_id
        self.messages: list[paho.MQTTMessage] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"observer-{board_id}",
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        if ca is not None:
            self._client.tls_set(ca_certs=str(ca))
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"sensors/{board_id}/#", 1), (f"homeassistant/device/{board_id}/#", 1)]
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.messages.append(message)
        self._client.connect("127.0.0.1", port, keepalive=10)
        self._client.loop_start()
        assert self._subscribed.wait(30), "no SUBACK within 10 s"

    def close(self) -> None:
        """Leave the broker."""
        leave(self._client)

    def send(self, command: object, *, retain: bool = False) -> None:
        """Publish a command, with QoS 1."""
        payload = command if isinstance(command, (str, bytes)) else json.dumps(command)
        info = self._client.publish(f"sensors/{self.id}/cmd", payload, 1, retain)
        info.wait_for_publish(10)
        assert info.is_published()

    def payloads(self, leaf: str) -> list[bytes]:
        """The payloads of sensors/<id>/<leaf>, oldest first."""
        topic = f"sensors/{self.id}/{leaf}"
        return [bytes(message.payload) for message in list(self.messages) if message.topic == topic]

    def states(self) -> list[dict[str, Any]]:
        """The readings, oldest first; those that came twice because of QoS 1 are there twice."""
        return [json.loads(payload) for payload in self.payloads("state")]

    def metas(self) -> list[dict[str, Any]]:
        """The descriptions, oldest first."""
        return [json.loads(payload) for payload in self.payloads("meta")]

    def statuses(self) -> list[str]:
        """online, offline, sleeping, oldest first."""
        return [payload.decode() for payload in self.payloads("status")]

    def discovery(self) -> list[dict[str, Any]]:
        """Home Assistant's discovery messages of what is measured."""
        return self._discovery("config")

    def discovery_of_itself(self) -> list[dict[str, Any]]:
        """Home Assistant's discovery messages of the board."""
        return self._discovery("diag/config")

    def _discovery(self, leaf: str) -> list[dict[str, Any]]:
        topic = f"homeassistant/device/{self.id}/{leaf}"
        return [json.loads(message.payload) for message in list(self.messages) if message.topic == topic]

    def wait_states(self, count: int, timeout_seconds: float = 15) -> list[dict[str, Any]]:
        """The readings, as soon as there are `count` of them."""
        eventually(lambda: len(self.states()) >= count, timeout_seconds, f"{count} readings of {self.id}")
        return self.states()

    def wait_statuses(self, *statuses: str, timeout_seconds: float = 15) -> None:
        """Returns when exactly these were published so far."""

        def seen() -> bool:
            assert self.statuses() == list(statuses)
            return True

        eventually(seen, timeout_seconds, f"statuses {statuses} of {self.id}")


@contextmanager
def listening(port: int, topic_filter: str) -> Iterator[list[paho.MQTTMessage]]:
    """What a newcomer gets: retained messages first."""
    messages: list[paho.MQTTMessage] = []
    subscribed = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, message: messages.append(message)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe(topic_filter, 1)
    assert subscribed.wait(30), "no SUBACK within 10 s"
    try:
        yield messages
    finally:
        leave(client)

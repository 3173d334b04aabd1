"""On an ASGI server that knows nothing of our transport the same endpoint works, frame by frame."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from gateway.app import create_app
from gateway.settings.loading import load_settings
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber
from tests.support.waiting import eventually, free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
def plain_server(mosquitto: Broker, prefix: str) -> Iterator[str]:
    """Uvicorn with its own WebSocket protocol."""
    overrides = {"mqtt_url": mosquitto.url, "mqtt_client_id": prefix, "mqtt_status_topic": f"{prefix}-status"}
    app = create_app(load_settings(overrides, environ={}))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, ws="websockets-sansio", log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, name="plain server")
    thread.start()
    eventually(lambda: server.started)
    eventually(lambda: app.state.gateway.is_connected)
    yield f"ws://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


async def test_messages_commands_and_closes_work(plain_server: str, publisher: Publisher, prefix: str) -> None:
    async with Subscriber(plain_server, f"{prefix}/#", since="now") as client:
        await client.wait(lambda: client.events)
        for number in range(500):
            publisher.publish(f"{prefix}/{number % 3}", json.dumps(number), qos=0)
        messages = await client.wait_messages(500)
        assert [m["payload"] for m in messages] == list(range(500))
        await client.send("ping", id=1)
        await client.wait(lambda: client.events[-1]["event"] == "pong")
        await client.send_raw(b"\x00")
        await client.wait(lambda: client.events[-1]["event"] == "error")
    async with Subscriber(plain_server, "a/#/b") as client:
        await client.wait(lambda: client.code)
        assert client.code == 4000
    async with Subscriber(plain_server, f"{prefix}/x", format="raw", since="now") as client:
        await asyncio.sleep(0.1)
        publisher.publish(f"{prefix}/x", b"\xff")
        await client.wait(lambda: client.frames == [b"\xff"])

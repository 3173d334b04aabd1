"""`gateway explain` and `GET /explain` of a real gateway: the asker's own connections are part of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber
from tests.support.waiting import eventually

NO_BROKER = "mqtt://127.0.0.1:1"
SECRET = "0123456789abcdef0123456789abcdef"


def token(subject: str | None, *subscribe: str) -> str:
    claims = {"exp": time.time() + 600, "topics": {"subscribe": list(subscribe)}}
    return jwt.encode(claims | ({"sub": subject} if subject else {}), SECRET, algorithm="HS256")


async def explained(gateway: GatewayProcess, topic: str, folder: Path) -> tuple[int, str]:
    """Exit code and text of `gateway explain TOPIC`."""
    root = str(Path(__file__).parents[2])
    environment = {n: v for n, v in os.environ.items() if not n.startswith("GATEWAY_")} | {"PYTHONPATH": root}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gateway", "explain", topic, "--url", gateway.http],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.slow
async def test_the_command_names_a_connection_that_asked_for_something_else(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"])
    async with Subscriber(gateway, f"{prefix}/other", since="now") as client:
        await client.wait_event("subscribed")
        async with Subscriber(gateway, f"{prefix}/#", since="now") as witness:
            await witness.wait_event("subscribed")
            await asyncio.to_thread(publisher.publish, f"{prefix}/a", b'{"x":1}')
            await witness.wait_messages(1)
        code, text = await explained(gateway, f"{prefix}/a", tmp_path)
        assert code == 1
        assert "NO  delivery" in text
        assert f"none subscribes to '{prefix}/a'" in text
    async with Subscriber(gateway, f"{prefix}/a", where="payload.x > 5") as filtered:
        await filtered.wait_event("subscribed")
        code, text = await explained(gateway, f"{prefix}/a", tmp_path)
        assert code == 1
        assert "is not let through by what it asked for" in text
    async with Subscriber(gateway, f"{prefix}/a") as well:
        await well.wait_messages(1)
        assert (await explained(gateway, f"{prefix}/a", tmp_path))[0] == 0


@pytest.mark.slow
async def test_the_command_names_a_connection_that_does_not_read_and_then_what_it_lost(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], limit_buffer_bytes="16KiB", history_messages=20
    )
    async with Subscriber(gateway, f"{prefix}/a", since="now", small_buffers=True) as client:
        await client.wait_event("subscribed")
        client.pause()
        messages = [(f"{prefix}/a", b"%05d" % number + b"." * 4_000) for number in range(1_000)]
        await asyncio.to_thread(publisher.publish_all, messages, qos=1)
        code, text = await explained(gateway, f"{prefix}/a", tmp_path)
        assert code == 1
        assert "NO  delivery" in text
        assert "its socket takes no more" in text
        client.resume()
        await client.wait(lambda: client.lost and client.messages[-1:], 20)
        await client.wait(lambda: client.messages[-1]["payload"].startswith("00999"), 20)
        code, text = await explained(gateway, f"{prefix}/a", tmp_path)
        assert code == 1
        assert f"{client.lost} lost; what is lost was let go from history" in text


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["https://idp.example.com/realms/a-very-long-tenant-name/users/0000alice", None])
async def test_the_connection_of_another_is_not_told(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str, subject: str | None
) -> None:
    """Neither to one whose subject begins with the same 64 characters, nor to who shows no token."""
    gateway = await asyncio.to_thread(
        make_gateway,
        mosquitto,
        mqtt_topics=[f"{prefix}/#"],
        access_secret=SECRET,
        access_anonymous_role="public",
        roles={"public": {"subscribe": [f"{prefix}/a"]}},
    )
    mine = token(subject, f"{prefix}/#")
    async with Subscriber(
        gateway, f"{prefix}/+", where="topic != 'secret-of-alice'", headers={"Authorization": f"Bearer {mine}"}
    ) as client:
        await client.wait_event("subscribed")
        await asyncio.to_thread(publisher.publish, f"{prefix}/a", b"1")
        await client.wait_messages(1)
        own = json.loads(gateway.get(f"/explain?topic={prefix}/a", {"Authorization": f"Bearer {mine}"})[1])
        assert "secret-of-alice" in own["steps"][-1]["text"]
        others = [{}, {"Authorization": f"Bearer {token((subject or '')[:68] + 'bob', f'{prefix}/#')}"}]
        for headers in others:
            answer = gateway.get(f"/explain?topic={prefix}/a", headers)[1].decode()
            assert "no connection open" in answer
            assert "secret-of-alice" not in answer


@pytest.mark.slow
async def test_a_connection_that_becomes_somebody_is_theirs(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], access_secret=SECRET)
    mine = token("alice", f"{prefix}/#")
    async with Subscriber(gateway) as client:
        await client.send("authenticate", token=mine)
        await client.wait_event("authenticated")
        await client.send("subscribe", topics=[f"{prefix}/a"])
        await client.wait_event("subscribed")
        await asyncio.to_thread(publisher.publish, f"{prefix}/a", b"1")
        await client.wait_messages(1)
        answer = json.loads(gateway.get(f"/explain?topic={prefix}/a", {"Authorization": f"Bearer {mine}"})[1])
        assert "your connection" in answer["steps"][-1]["text"]


@pytest.mark.slow
@pytest.mark.parametrize("shown", ["a token", "nothing"])
async def test_why_the_broker_is_away_is_told_only_without_a_policy(make_gateway: MakeGateway, shown: str) -> None:
    """It may name a host in a private network; a role for everybody is a policy, too."""
    closed = await asyncio.to_thread(
        make_gateway,
        NO_BROKER,
        ready=False,
        access_secret=SECRET,
        access_anonymous_role="public",
        roles={"public": {"subscribe": ["a/#"]}},
    )
    headers = {"Authorization": f"Bearer {token('alice', 'a/#')}"} if shown == "a token" else {}
    for path in ("/explain?topic=a/b", "/health/ready"):
        answer = closed.get(path, headers)[1]
        assert b"connected" in answer
        assert b"127.0.0.1" not in answer
    if shown == "nothing":
        opened = await asyncio.to_thread(make_gateway, NO_BROKER, ready=False)
        eventually(lambda: b"127.0.0.1" in opened.get("/health/ready")[1], 10, "the reason is known")
        assert b"127.0.0.1" in opened.get("/explain?topic=a/b")[1]


@pytest.mark.timing
async def test_who_asks_a_lot_and_hangs_up_holds_up_nobody(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"])
    topics = [(f"{prefix}/{number % 100}/{number}", b"1") for number in range(10_000)]
    await asyncio.to_thread(publisher.publish_all, topics)
    eventually(lambda: gateway.metrics()["gateway_history_topics"] >= 10_000, 30, "history")
    path = f"/explain?topic={prefix}/%2B/nowhere"
    began = gateway.processor_seconds()
    assert gateway.get(path)[0] == 200
    alone = gateway.processor_seconds() - began
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        asking = []
        for number in range(75):
            source = (f"127.0.1.{number // 5 + 1}", 0)
            asking.append(
                stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), 10, source_address=source))
            )
            asking[-1].sendall(request)
        # the fifth from each address is told so while the others wait
        refused = asking[-1].recv(65_536)
        assert refused.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 2" in refused.lower()
    # a neighbour waits for the one that is being answered, and for none of those that have gone
    began = gateway.processor_seconds()
    with socket.create_connection(("127.0.0.1", gateway.port), 30, source_address=("127.0.0.2", 0)) as neighbour:
        neighbour.sendall(request)
        assert neighbour.recv(65_536).startswith(b"HTTP/1.1 200")
    assert gateway.processor_seconds() - began < 3 * alone
    assert gateway.metrics()['gateway_refused_total{reason="explanations"}'] >= 10

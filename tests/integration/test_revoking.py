"""`gateway revoke` on a running gateway: every kind of connection by that token ends at once, and stays away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from gateway.client import connect
from gateway.core.protocol import CloseCode
from tests.conftest import MakeGateway, MakeValkey
from tests.integration.test_mqtt_pipe import CONNACK, CONNECT
from tests.integration.test_python_client import Reader, reading
from tests.support.brokers import Broker
from tests.support.event_streams import EventStream
from tests.support.gateways import GatewayProcess
from tests.support.valkeys import ValkeyServer
from tests.support.waiting import eventually, eventually_async

pytestmark = pytest.mark.anyio

SECRET = "more than thirty-two bytes of a secret"


def token(subject: str, **claims: Any) -> str:
    return mint(secret_key(SECRET), **{"ttl_seconds": 3600, "subject": subject, "subscribe": ["#"], **claims})


@pytest.mark.slow
async def test_open_connections_end_at_once_and_a_restart_forgets_nothing(
    make_gateway: MakeGateway, mosquitto: Broker, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, access_secret=SECRET, archive_file=str(tmp_path / "a.db")
    )
    (tmp_path / "gateway.toml").write_text(f'[access]\nsecret = "{SECRET}"\n')
    annas, berts = token("anna"), token("bert")
    streams = [
        await asyncio.to_thread(EventStream, gateway, address, Authorization=f"Bearer {annas}")
        for address in ("/topics/%23", "/alerts?format=sse", "/devices?format=sse")
    ]
    async with (
        reading(connect(gateway.ws, "#", token=annas)) as anna,
        reading(connect(gateway.ws, "#", token=berts)) as bert,
    ):
        await eventually_async(lambda: anna.named("subscribed") and bert.named("subscribed"))
        command = [sys.executable, "-m", "gateway", "revoke", "--subject", "anna", "--ttl", "1h", "--url", gateway.http]
        run = await asyncio.to_thread(
            subprocess.run, [*command, "--config", str(tmp_path / "gateway.toml")], capture_output=True, text=True
        )
        assert (run.returncode, run.stdout) == (0, f"{gateway.http}: 4 connections ended\n"), run.stderr
        await eventually_async(lambda: anna.error)
        assert anna.error.close_code == CloseCode.UNAUTHORIZED  # type: ignore[union-attr]
        assert "called back" in str(anna.error)
        await eventually_async(lambda: all(stream.is_over for stream in streams))
        assert bert.error is None
        assert gateway.request("GET", "/whoami", headers={"Authorization": f"Bearer {annas}"})[0] == 401
        await asyncio.to_thread(gateway.stop)
        await asyncio.to_thread(gateway.start)
        assert gateway.request("GET", "/whoami", headers={"Authorization": f"Bearer {annas}"})[0] == 401
        assert gateway.request("GET", "/whoami", headers={"Authorization": f"Bearer {berts}"})[0] == 200


MakeNodes = Callable[..., tuple[ValkeyServer, list[GatewayProcess]]]


@pytest.fixture
def make_nodes(make_valkey: MakeValkey, make_gateway: MakeGateway, mosquitto: Broker, prefix: str) -> MakeNodes:
    """Makes nodes of one cluster, without a file, and their server, which forgets unless it is durable."""

    def make(count: int, *, is_durable: bool = False) -> tuple[ValkeyServer, list[GatewayProcess]]:
        valkey = make_valkey(*(("--appendonly", "yes", "--appendfsync", "always") if is_durable else ()))
        found = [
            make_gateway(
                mosquitto,
                mqtt_topics=[f"{prefix}/#"],
                mqtt_client_id=f"cluster-{prefix}",
                mqtt_status_topic="none",
                mqtt_websocket=True,
                access_secret=SECRET,
                cluster_url=valkey.url,
                cluster_name=prefix,
                cluster_node=f"n{number}",
            )
            for number in range(count)
        ]
        return valkey, found

    return make


def refusal(node: GatewayProcess, shown: str) -> str | None:
    """Why a node refuses a token; None if it takes it."""
    status, body = node.request("GET", "/whoami", headers={"Authorization": f"Bearer {shown}"})
    assert status in (200, 401), status
    return None if status == 200 else str(json.loads(body)["reason"])


async def call_back(node: GatewayProcess, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "gateway.toml").write_text(f'[access]\nsecret = "{SECRET}"\n')
    command = [sys.executable, "-m", "gateway", "revoke", "--url", node.http, "--config", str(folder / "gateway.toml")]
    return await asyncio.to_thread(
        subprocess.run, [*command, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
@pytest.mark.docker
async def test_what_one_node_calls_back_ends_at_all_nodes_and_no_restart_forgets_it(
    make_nodes: MakeNodes, tmp_path: Path
) -> None:
    valkey, nodes = await asyncio.to_thread(make_nodes, 3, is_durable=True)
    all_of: dict[str, Any] = {"subscribe": ["#", "$SYS/#"], "publish": ["#", "$SYS/#"]}
    annas, berts = token("anna", **all_of), token("bert", **all_of)
    bearer = {"Authorization": f"Bearer {annas}"}
    addresses = ("/topics/%23", "/alerts?format=sse", "/devices?format=sse")
    async with contextlib.AsyncExitStack() as stack:
        streams: list[EventStream] = []
        pages: list[Reader] = []
        pipes: list[websockets.ClientConnection] = []
        others: list[Reader | websockets.ClientConnection] = []
        for node in nodes:
            streams += [await asyncio.to_thread(EventStream, node, address, **bearer) for address in addresses]
            pages.append(await stack.enter_async_context(reading(connect(node.ws, "#", token=annas))))
            others.append(await stack.enter_async_context(reading(connect(node.ws, "#", token=berts))))
            for shown, found in ((annas, pipes), (berts, others)):
                pipe = await stack.enter_async_context(
                    websockets.connect(f"{node.ws}/mqtt?token={shown}", subprotocols=[Subprotocol("mqtt")])
                )
                await pipe.send(CONNECT[:-4] + f"{len(pipes):02}{len(others):02}".encode())
                assert await pipe.recv() == CONNACK
                found.append(pipe)
        await eventually_async(lambda: all(page.named("subscribed") for page in pages))
        run = await call_back(nodes[1], tmp_path, "--subject", "anna", "--ttl", "1h")
        assert (run.returncode, run.stdout) == (0, f"{nodes[1].http}: 5 connections ended\n"), run.stderr
        began = time.monotonic()
        await eventually_async(lambda: all(page.error for page in pages))
        assert {page.error.close_code for page in pages} == {CloseCode.UNAUTHORIZED}  # type: ignore[union-attr]
        await eventually_async(lambda: all(stream.is_over for stream in streams))
        for pipe in pipes:
            with pytest.raises(ConnectionClosed) as ended:
                await pipe.recv()
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.code == CloseCode.UNAUTHORIZED
        print(f"all had ended {time.monotonic() - began:.2f} s after the answer")
        for other in others:
            if isinstance(other, websockets.ClientConnection):
                await other.send(b"\xc0\x00")
                assert await other.recv() == b"\xd0\x00", "a pipe by another token goes on"
            else:
                assert other.error is None
    assert [refusal(node, annas) for node in nodes] == ["revoked"] * 3
    for node in nodes:
        await asyncio.to_thread(node.stop)
    await asyncio.to_thread(valkey.kill)
    await asyncio.to_thread(valkey.start)
    for node in nodes:
        await asyncio.to_thread(node.start)
        assert refusal(node, annas) == "revoked", "it knows before it serves"
        assert refusal(node, berts) is None
        assert refusal(node, token("anna")) is None, "one that was issued later is good"


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.parametrize("how", ["it is frozen", "it is gone and comes back empty"])
async def test_without_the_server_it_holds_at_once_where_it_was_said_and_elsewhere_when_the_server_is_back(
    make_nodes: MakeNodes, tmp_path: Path, how: str
) -> None:
    valkey, (first, second, away) = await asyncio.to_thread(make_nodes, 3)
    annas, berts = token("anna"), token("bert")
    run = await call_back(first, tmp_path, "--token", berts)
    assert run.returncode == 0, run.stderr
    eventually(lambda: refusal(second, berts) == "revoked", 10, "it was told")
    await asyncio.to_thread(away.stop)
    if how == "it is frozen":
        await asyncio.to_thread(valkey.freeze)
    else:
        await asyncio.to_thread(valkey.kill)
    run = await call_back(first, tmp_path, "--token", annas)
    assert run.returncode == 1, run.stdout
    assert "the other nodes of its cluster are told when their server can be reached again" in run.stderr
    assert run.stdout == (
        f"{first.http}: 0 connections ended; it is forgotten when that gateway ends (GATEWAY_ACCESS_REVOCATIONS)\n"
    )
    assert [refusal(node, annas) for node in (first, second)] == ["revoked", None]
    counted = ("gateway_revocations", "gateway_cluster_revocations_untold", "gateway_cluster_revocations_shared")
    reader = {"Authorization": f"Bearer {token('prometheus', subscribe=['$SYS/#'])}"}
    assert [first.metrics(reader)[name] for name in counted] == [2, 1, 0]
    await asyncio.to_thread(valkey.thaw if how == "it is frozen" else valkey.start)
    eventually(lambda: refusal(second, annas) == "revoked", 20, "it is told on")
    eventually(lambda: [first.metrics(reader)[name] for name in counted] == [2, 0, 1], 10, "nothing waits any more")
    await asyncio.to_thread(away.start)
    assert [refusal(away, shown) for shown in (annas, berts)] == ["revoked"] * 2, "it knows before it serves"


@pytest.mark.slow
@pytest.mark.docker
async def test_a_node_keeps_in_its_file_what_it_heard_and_tells_it_to_a_server_that_forgot(
    make_nodes: MakeNodes, tmp_path: Path
) -> None:
    valkey, (first, second) = await asyncio.to_thread(make_nodes, 2)
    second.settings["access_revocations"] = str(tmp_path / "revoked")
    await asyncio.to_thread(second.stop)
    await asyncio.to_thread(second.start)
    annas = token("anna")
    assert (await call_back(first, tmp_path, "--token", annas)).returncode == 0
    eventually(lambda: refusal(second, annas) == "revoked", 10, "it is heard")
    eventually((tmp_path / "revoked").exists, 10, "it is kept")
    await asyncio.to_thread(first.stop)
    await asyncio.to_thread(second.stop)
    await asyncio.to_thread(valkey.kill)  # it had nothing on a disk
    await asyncio.to_thread(valkey.start)
    await asyncio.to_thread(second.start)
    await asyncio.to_thread(first.start)
    assert [refusal(node, annas) for node in (first, second)] == ["revoked"] * 2

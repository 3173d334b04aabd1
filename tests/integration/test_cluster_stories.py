"""Three nodes through all that can happen to them, one thing after the other: no message at QoS 1 is lost or twice.

GATEWAY_TEST_CLUSTER_SECONDS=600 does it for ten minutes, with 300 browsers and 1,000 messages a second. How long
nothing came while each thing happened is printed (`pytest -rP`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import websockets
from websockets.exceptions import ConnectionClosedError

from gateway.client import connect
from gateway.core.protocol import CloseCode
from tests.conftest import MakeGateway, MakeMosquitto, MakeValkey
from tests.integration.test_python_client import reading
from tests.support.accounts import Numbers, Walker, walking
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import publishing
from tests.support.relays import Pipe
from tests.support.valkeys import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS, eventually_async, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.docker,
    # a walker's handshake that is given up, with a frozen node, leaves the library's socket to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SECONDS = float(os.environ.get("GATEWAY_TEST_CLUSTER_SECONDS", "0"))
IS_LONG = SECONDS > 0
BROWSERS = 300 if IS_LONG else 30
PER_SECOND = 1_000 if IS_LONG else 200
TOPICS = 100 if IS_LONG else 10
PAUSE_SECONDS = 10.0 if IS_LONG else 5.0
"""How long a node stands still or is cut off: longer than its lease."""


@dataclass
class Cluster:
    """What the stories happen to; each node has a way of its own to the server and to the broker."""

    nodes: list[GatewayProcess]
    valkey: ValkeyServer
    broker: Broker
    to_valkey: list[Pipe]
    to_broker: list[Pipe]

    async def find(self, role: str) -> int:
        """A node of that role."""

        def look() -> int | None:
            for number, node in enumerate(self.nodes):
                if node.is_alive:
                    with contextlib.suppress(OSError, ValueError, KeyError, AssertionError):
                        if node.json("/health/ready")["cluster"]["role"] == role:
                            return number
            return None

        found: list[int] = []

        async def has_one() -> bool:
            number = await asyncio.to_thread(look)
            if number is not None:
                found.append(number)
            return number is not None

        until = time.monotonic() + 30
        while not await has_one():
            assert time.monotonic() < until, f"there is no {role}"
            await asyncio.sleep(0.1)
        return found[0]


async def kill_the_leader(cluster: Cluster) -> None:
    node = cluster.nodes[await cluster.find("leader")]
    await asyncio.to_thread(node.kill)
    await asyncio.sleep(PAUSE_SECONDS / 2)
    await asyncio.to_thread(node.start)


async def freeze_the_leader(cluster: Cluster) -> None:
    node = cluster.nodes[await cluster.find("leader")]
    node.freeze()
    await asyncio.sleep(PAUSE_SECONDS)
    node.thaw()


async def kill_a_follower(cluster: Cluster) -> None:
    node = cluster.nodes[await cluster.find("follower")]
    await asyncio.to_thread(node.kill)
    await asyncio.to_thread(node.start)


async def restart_valkey(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.valkey.kill)
    await asyncio.to_thread(cluster.valkey.start)


async def cut_the_leader_off_from_valkey(cluster: Cluster) -> None:
    pipe = cluster.to_valkey[await cluster.find("leader")]
    pipe.hold()
    await asyncio.sleep(PAUSE_SECONDS)
    pipe.release()


async def cut_the_leader_off_from_the_broker(cluster: Cluster) -> None:
    pipe = cluster.to_broker[await cluster.find("leader")]
    pipe.hold()
    await asyncio.sleep(PAUSE_SECONDS)
    pipe.release()


async def restart_the_broker(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.broker.stop)
    await asyncio.to_thread(cluster.broker.start)


async def restart_all_nodes_one_by_one(cluster: Cluster) -> None:
    for node in cluster.nodes:
        await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.start)


STORIES: list[Callable[[Cluster], Awaitable[None]]] = [
    kill_the_leader,
    freeze_the_leader,
    kill_a_follower,
    restart_valkey,
    cut_the_leader_off_from_valkey,
    cut_the_leader_off_from_the_broker,
    restart_all_nodes_one_by_one,
    restart_the_broker,
]


@contextlib.asynccontextmanager
async def running(
    broker: Broker, valkey: ValkeyServer, make_gateway: MakeGateway, prefix: str
) -> AsyncIterator[Cluster]:
    """A cluster of three."""
    async with contextlib.AsyncExitStack() as stack:
        to_valkey = [await stack.enter_async_context(Pipe(valkey.port).running()) for _ in range(3)]
        to_broker = [await stack.enter_async_context(Pipe(broker.port).running()) for _ in range(3)]
        nodes = []
        for number in range(3):
            node = await asyncio.to_thread(
                make_gateway,
                f"mqtt://127.0.0.1:{to_broker[number].port}",
                mqtt_topics=[f"{prefix}/#"],
                mqtt_client_id=f"cluster-{prefix}",
                mqtt_status_topic="none",
                mqtt_keepalive="5s",
                history_messages=100_000,
                cluster_url=f"valkey://127.0.0.1:{to_valkey[number].port}/0",
                cluster_name=prefix,
                cluster_node=f"n{number}",
            )
            nodes.append(node)
        yield Cluster(nodes, valkey, broker, to_valkey, to_broker)


async def test_every_browser_gets_every_message_once_and_in_order_whatever_happens(
    make_mosquitto: MakeMosquitto, make_valkey: MakeValkey, make_gateway: MakeGateway, prefix: str
) -> None:
    broker = await asyncio.to_thread(make_mosquitto)
    valkey = await asyncio.to_thread(make_valkey, "--appendonly", "yes")
    async with running(broker, valkey, make_gateway, prefix) as cluster:
        watchers = [Walker(cluster.nodes, number) for number in range(3)]
        walkers = watchers + [
            Walker(cluster.nodes, number, f"{prefix}/{number % TOPICS}") for number in range(BROWSERS - 3)
        ]
        numbers = Numbers(broker.url, prefix, topics=TOPICS, per_second=PER_SECOND)
        async with walking(walkers):
            numbers.start()
            await asyncio.sleep(2)
            began = time.monotonic()
            for at, story in enumerate(STORIES):
                for walker in watchers:
                    walker.mark()
                await story(cluster)
                later = began + (at + 1) * SECONDS / len(STORIES) - time.monotonic()
                await asyncio.sleep(max(later, 5.0))
                longest = sorted(walker.longest for walker in watchers)
                text = " ".join(f"{seconds:5.2f}" for seconds in longest)
                print(f"{story.__name__:40} nothing came for {text} s at three browsers", flush=True)
            count = await asyncio.to_thread(numbers.end)
            await eventually_async(
                lambda: (
                    all(len(set(walker.got)) >= count for walker in watchers)
                    and sum(len(set(walker.got)) for walker in walkers[3:]) >= (BROWSERS - 3) * (count // TOPICS)
                ),
                60,
                "everything has arrived",
            )
            await asyncio.sleep(1)
        contents: dict[tuple[str, int], int] = {}
        for walker in walkers:
            walker.check(count, TOPICS, numbers.unsure)
            for position, number in walker.contents.items():
                assert contents.setdefault(position, number) == number, "two contents under one position"
        print(f"{count} messages, {BROWSERS} browsers: none lost, none twice; {len(numbers.unsure)} were sent again")


async def test_a_replica_that_lacks_the_newest_messages_makes_a_new_epoch_and_never_a_wrong_message(
    make_mosquitto: MakeMosquitto, make_valkey: MakeValkey, make_gateway: MakeGateway, prefix: str
) -> None:
    broker = await asyncio.to_thread(make_mosquitto)
    valkey, replica = await asyncio.to_thread(make_valkey), await asyncio.to_thread(make_valkey)
    async with running(broker, valkey, make_gateway, prefix) as cluster:
        replica.tell("REPLICAOF", *valkey.own_address)
        await eventually_async(
            lambda: b"master_link_status:up" in replica.tell("INFO", "replication"), 20, "the replica follows"
        )
        walkers = [Walker(cluster.nodes, number) for number in range(3)]
        numbers = Numbers(broker.url, prefix, topics=10, per_second=200)
        async with walking(walkers):
            numbers.start()
            await asyncio.sleep(2)
            # what comes from here on is on the first server alone
            replica.tell("REPLICAOF", "NO", "ONE")
            await asyncio.sleep(1)
            before = [len(walker.got) for walker in walkers]
            await asyncio.to_thread(valkey.kill)
            for pipe in cluster.to_valkey:
                pipe.lead_to(replica.port)
            await cluster.find("leader")
            await asyncio.sleep(3)
            count = await asyncio.to_thread(numbers.end)
            await eventually_async(
                lambda: all(walker.got and walker.got[-1] == count - 1 for walker in walkers), 30, "it goes on"
            )
    contents: dict[tuple[str, int], int] = {}
    for walker, had in zip(walkers, before, strict=True):
        assert len(walker.got) > had
        assert len({epoch for epoch, _ in walker.contents}) == 2
        assert [gap["reason"] for gap in walker.gaps] == ["epoch"]
        for position, number in walker.contents.items():
            assert contents.setdefault(position, number) == number, "two contents under one position"


async def test_a_leader_that_cannot_reach_the_broker_hands_over_to_a_node_that_can(
    make_mosquitto: MakeMosquitto, make_valkey: MakeValkey, make_gateway: MakeGateway, prefix: str
) -> None:
    broker = await asyncio.to_thread(make_mosquitto)
    valkey = await asyncio.to_thread(make_valkey)
    async with running(broker, valkey, make_gateway, prefix) as cluster:
        await eventually_async(lambda: b"able" in valkey.tell("KEYS", "*"), 10, "a follower reaches the broker")
        first = await cluster.find("leader")
        cluster.to_broker[first].lead_to(free_port())
        began = time.monotonic()
        while await cluster.find("leader") == first:
            assert time.monotonic() < began + PATIENCE_SECONDS, "it leads on"
            await asyncio.sleep(0.2)
        numbers = Numbers(broker.url, prefix, topics=10, per_second=100)
        walker = Walker(cluster.nodes, first - 1)  # at the node that led
        async with walking([walker]):
            numbers.start()
            await asyncio.sleep(1)
            count = await asyncio.to_thread(numbers.end)
            await eventually_async(
                lambda: walker.got and walker.got[-1] == count - 1, 20, "it has what the others have"
            )


async def test_a_browser_that_is_ahead_of_a_node_comes_back_and_misses_nothing(
    make_mosquitto: MakeMosquitto, make_valkey: MakeValkey, make_gateway: MakeGateway, prefix: str
) -> None:
    broker = await asyncio.to_thread(make_mosquitto)
    valkey = await asyncio.to_thread(make_valkey)
    async with running(broker, valkey, make_gateway, prefix) as cluster:
        leader, behind = cluster.nodes[await cluster.find("leader")], await cluster.find("follower")
        cluster.to_valkey[behind].hold()
        topic = f"{prefix}/a"
        with publishing(broker.url, [(topic, b"1"), (topic, b"2")], qos=1, per_second=10):
            pass
        page: dict[str, Any] = {"position": ""}
        until = time.monotonic() + 20
        while len(page.get("messages", ())) < 2:
            assert time.monotonic() < until, "the leader has both"
            page = await asyncio.to_thread(leader.json, f"/topics/{prefix}/a?since=1h")
        address = f"{cluster.nodes[behind].ws}/ws?topic={topic}&since={page['position']}"
        told: list[str | bytes] = []
        async with websockets.connect(address) as socket:
            with contextlib.suppress(ConnectionClosedError):
                while True:
                    told.append(await socket.recv())
        assert (socket.close_code, told) == (CloseCode.RESTART, []), "a page would show an error"
        live = connect(cluster.nodes[behind].ws, topic, since=page["position"], max_delay=0.5)
        async with reading(live) as reader:
            await eventually_async(lambda: "waiting" in reader.states(), 20, "it is sent away")
            cluster.to_valkey[behind].release()
            await eventually_async(lambda: reader.named("subscribed"), 30, "it came back")
            with publishing(broker.url, [(topic, b"3")], qos=1, per_second=10):
                pass
            await eventually_async(lambda: reader.messages, 20, "it goes on")
            assert [message.payload for message in reader.messages] == [3]
            assert (reader.error, reader.named("gap")) == (None, [])

"""Three nodes, a broker and a Valkey, killed, frozen and restarted: nothing at QoS 1 is lost or comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway, MakeValkey
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher, publishing
from tests.support.subscribers import Subscriber
from tests.support.valkeys import ValkeyServer
from tests.support.waiting import eventually, free_port

pytestmark = [pytest.mark.slow, pytest.mark.docker]

PER_SECOND = 200


class Walker:
    """A browser that goes on at the next node whenever its connection ends."""

    def __init__(self, nodes: list[GatewayProcess], at: int) -> None:
        self.nodes = nodes
        self.at = at
        self.got: list[int] = []
        self.gaps: list[dict[str, Any]] = []
        self.since = "1h"
        self._is_enough = asyncio.Event()
        self._count = 0

    async def wait(self, count: int) -> None:
        """Waits until it got so many."""
        self._count = count
        self._is_enough.clear()
        if len(self.got) < count:
            await self._is_enough.wait()

    async def walk(self) -> None:
        while True:
            self.at += 1
            node = self.nodes[self.at % len(self.nodes)]
            with contextlib.suppress(Exception):
                async with Subscriber(node, "#", since=self.since) as client:
                    taken = 0
                    while client.code is None:
                        await asyncio.sleep(0.02)
                        for message in client.messages[taken:]:
                            self.got.append(message["payload"])
                            taken += 1
                        if self._count and len(self.got) >= self._count:
                            self._is_enough.set()
                        head = [event["position"] for event in client.events if event["event"] == "subscribed"]
                        if head and client.messages:
                            self.since = f"{head[0].partition(':')[0]}:{client.messages[taken - 1]['seq']}"
                    self.gaps += [event for event in client.events if event["event"] == "gap"]
            await asyncio.sleep(0.1)


@pytest.fixture
def nodes(
    make_valkey: MakeValkey, mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> tuple[ValkeyServer, list[GatewayProcess]]:
    valkey = make_valkey("--appendonly", "yes")
    found = [
        make_gateway(
            mosquitto,
            mqtt_topics=[f"{prefix}/#"],
            mqtt_client_id=f"cluster-{prefix}",
            mqtt_status_topic="none",
            cluster_url=valkey.url,
            cluster_name=prefix,
            cluster_node=f"n{number}",
        )
        for number in range(3)
    ]
    return valkey, found


def roles(nodes: list[GatewayProcess]) -> dict[str, GatewayProcess]:
    """The nodes that answer, by role; the last one of each."""
    found = {}
    for node in nodes:
        if node.is_alive:
            with contextlib.suppress(OSError, ValueError, KeyError):
                found[str(node.json("/health/ready")["cluster"]["role"])] = node
    return found


def the(role: str, nodes: list[GatewayProcess]) -> GatewayProcess:
    eventually(lambda: role in roles(nodes), 20, f"there is a {role}")
    return roles(nodes)[role]


def kill_the_leader(valkey: ValkeyServer, nodes: list[GatewayProcess]) -> Callable[[], None]:
    leader = the("leader", nodes)
    leader.kill()
    return leader.start


def stop_the_leader(valkey: ValkeyServer, nodes: list[GatewayProcess]) -> Callable[[], None]:
    leader = the("leader", nodes)
    leader.stop()
    return leader.start


def freeze_the_leader(valkey: ValkeyServer, nodes: list[GatewayProcess]) -> Callable[[], None]:
    leader = the("leader", nodes)
    leader.freeze()
    return leader.thaw


def kill_a_follower(valkey: ValkeyServer, nodes: list[GatewayProcess]) -> Callable[[], None]:
    follower = the("follower", nodes)
    follower.kill()
    return follower.start


def restart_valkey(valkey: ValkeyServer, nodes: list[GatewayProcess]) -> Callable[[], None]:
    valkey.kill()
    valkey.start()
    return lambda: None


def freeze_valkey(valkey: ValkeyServer, nodes: list[GatewayProcess]) -> Callable[[], None]:
    valkey.freeze()
    return valkey.thaw


def fill_valkey(valkey: ValkeyServer, nodes: list[GatewayProcess]) -> Callable[[], None]:
    assert b"OK" in valkey.tell("CONFIG", "SET", "maxmemory", "1")
    eventually(lambda: all(b"is full" in node.get("/health/ready")[1] for node in nodes), 20, "all nodes say why")

    def undo() -> None:
        valkey.tell("CONFIG", "SET", "maxmemory", "0")

    return undo


@pytest.mark.parametrize(
    "story",
    [kill_the_leader, stop_the_leader, freeze_the_leader, kill_a_follower, restart_valkey, freeze_valkey, fill_valkey],
    ids=lambda story: story.__name__,
)
async def test_nothing_is_lost_or_twice(
    story: Callable[[ValkeyServer, list[GatewayProcess]], Callable[[], None]],
    nodes: tuple[ValkeyServer, list[GatewayProcess]],
    mosquitto: Broker,
    prefix: str,
) -> None:
    valkey, gateways = nodes
    count = PER_SECOND * 10
    walkers = [Walker(gateways, number) for number in range(3)]
    tasks = [asyncio.create_task(walker.walk()) for walker in walkers]
    messages = [(f"{prefix}/{number % 3}", b"%d" % number) for number in range(count)]
    try:
        with publishing(mosquitto.url, messages, qos=1, per_second=PER_SECOND):
            await asyncio.sleep(2)
            undo = await asyncio.to_thread(story, valkey, gateways)
            await asyncio.sleep(4)
            await asyncio.to_thread(undo)
            await asyncio.wait([asyncio.create_task(walker.wait(count)) for walker in walkers], timeout=40)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for walker in walkers:
        missing = sorted(set(range(count)) - set(walker.got))
        assert not missing, f"{len(missing)} lost: {missing[:10]}; {walker.gaps}"
        assert len(walker.got) == count, "some came twice"
        assert walker.got == sorted(walker.got)
        assert [gap for gap in walker.gaps if gap["lost"] != 0] == []


async def test_a_node_tells_who_leads_and_how_far_it_is(
    nodes: tuple[ValkeyServer, list[GatewayProcess]], mosquitto: Broker, prefix: str
) -> None:
    valkey, gateways = nodes
    leader, follower = the("leader", gateways), the("follower", gateways)
    with publishing(mosquitto.url, [(f"{prefix}/a", b"1")], qos=1, per_second=10):
        pass
    eventually(lambda: follower.json("/topics/%23")["messages"], 10, "the message is at the follower")
    told = {
        node: next(step for step in node.json(f"/explain?topic={prefix}/a")["steps"] if step["step"] == "cluster")
        for node in (leader, follower)
    }
    assert "which is this node" in told[leader]["text"]
    assert "is 0 messages behind" in told[follower]["text"]
    assert [node.metrics()["gateway_cluster_leading"] for node in (leader, follower)] == [1, 0]
    assert [node.json("/whoami")["node"] for node in gateways] == ["n0", "n1", "n2"]
    async with Subscriber(gateways[1], f"{prefix}/a") as client:
        answer = await client.wait_event("subscribed")
        assert answer["node"] == "n1"
    status, _ = follower.request("POST", f"/topics/{prefix}/b", body=b"2")
    assert status < 300
    eventually(lambda: leader.json(f"/topics/{prefix}/b")["messages"], 10, "it was published by a follower")
    valkey.freeze()
    eventually(lambda: follower.metrics()["gateway_cluster_reachable"] == 0, 20, "it is told that it is away")
    status, body = follower.get("/health/ready")
    assert status == 503
    assert b"the shared log can't be reached" in body
    assert follower.json(f"/topics/{prefix}/a")["messages"], "what is in memory is served"
    valkey.thaw()
    follower.wait_ready(30)


async def test_a_wrong_password_ends_the_start_with_a_clear_word(
    make_valkey: MakeValkey, mosquitto: Broker, make_gateway: MakeGateway
) -> None:
    valkey = await asyncio.to_thread(make_valkey, password="right-one")
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, start=False, cluster_url=f"valkey://:wrong-one@127.0.0.1:{valkey.port}"
    )
    with pytest.raises((AssertionError, RuntimeError)):
        await asyncio.to_thread(gateway.start)
    assert "refuses this user or password" in gateway.log()
    assert "wrong-one" not in gateway.log()


def test_an_alert_is_the_same_on_all_nodes_and_told_once_over_a_failover(
    make_valkey: MakeValkey, mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    valkey = make_valkey()
    own = f"{prefix}-alerts"
    gateways = [
        make_gateway(
            mosquitto,
            mqtt_topics=[f"{prefix}/+"],
            mqtt_client_id=f"alerts-{prefix}",
            mqtt_status_topic="none",
            cluster_url=valkey.url,
            cluster_name=prefix,
            cluster_node=f"n{number}",
            alert_topic=own,
            alerts=[{"name": "hot", "topics": f"{prefix}/+", "where": "payload.t > 30"}],
        )
        for number in range(2)
    ]

    def firing(node: GatewayProcess) -> list[str]:
        [alert] = node.json("/alerts")["alerts"]
        return [item["topic"].rpartition("/")[2] for item in alert["topics"]]

    def reported(node: GatewayProcess) -> list[str]:
        messages = node.json(f"/topics/{own}/hot")["messages"]
        topics = messages[0]["payload"]["topics"] if messages else []
        return sorted(item["topic"].rpartition("/")[2] for item in topics)

    leader, follower = the("leader", gateways), the("follower", gateways)
    publisher.publish(f"{prefix}/a", b'{"t":31}')
    for node in gateways:
        eventually(lambda node=node: firing(node) == ["a"], 20, "it fires")  # type: ignore[misc]
        eventually(lambda node=node: reported(node) == ["a"], 20, "it is told")  # type: ignore[misc]
    leader.kill()
    publisher.publish(f"{prefix}/b", b'{"t":35}')
    publisher.publish(f"{prefix}/a", b'{"t":20}')
    eventually(lambda: reported(follower) == ["b"], 30, "the successor tells it")
    leader.start()
    eventually(lambda: firing(leader) == ["b"], 20, "it is known to who comes back")
    logs = [line for node in gateways for line in node.log().splitlines() if "alert hot: " in line]
    told = [line.partition("alert hot: ")[2] for line in logs]
    assert sorted(text.partition(":")[0] for text in told) == ["firing", "firing", "ok"], told


def two_nodes(
    make_gateway: MakeGateway,
    mosquitto: Broker,
    valkey: ValkeyServer,
    prefix: str,
    archive: Path | None = None,
    **settings: Any,
) -> list[GatewayProcess]:
    """Two nodes of one cluster, each with a file of its own in the folder `archive`."""

    def of(number: int) -> dict[str, Any]:
        file = {} if archive is None else {"archive_file": str(archive / f"{number}.db")}
        return settings | file

    return [
        make_gateway(
            mosquitto,
            mqtt_topics=[f"{prefix}/+"],
            mqtt_client_id=f"nodes-{prefix}",
            mqtt_status_topic="none",
            cluster_url=valkey.url,
            cluster_name=prefix,
            cluster_node=f"n{number}",
            **of(number),
        )
        for number in range(2)
    ]


def test_each_node_keeps_a_file_over_restarts_of_all_and_a_server_that_forgot(
    make_valkey: MakeValkey,
    mosquitto: Broker,
    make_gateway: MakeGateway,
    publisher: Publisher,
    prefix: str,
    tmp_path: Path,
) -> None:
    valkey = make_valkey()
    gateways = two_nodes(make_gateway, mosquitto, valkey, prefix, archive=tmp_path, history_messages=5)

    def numbers(node: GatewayProcess) -> list[int]:
        found = node.json(f"/topics/{prefix}/a?since=1h&order=asc&limit=1000")["messages"]
        return [message["payload"] for message in found]

    def publish(first: int) -> None:
        for number in range(first, first + 20):
            publisher.publish(f"{prefix}/a", b"%d" % number)

    publish(0)
    for node in gateways:
        eventually(lambda node=node: numbers(node) == list(range(20)), 20, "it has all")  # type: ignore[misc]
    for node in gateways:
        node.stop()
    valkey.kill()
    valkey.start()  # it had nothing on a disk
    publish(20)
    for node in gateways:
        node.start()
    for node in gateways:
        eventually(lambda node=node: numbers(node) == list(range(40)), 30, "it has all again")  # type: ignore[misc]
    gateways[0].kill()
    publish(40)
    gateways[0].start()
    kept = {"kept": True, "error": None, "lacks": 0}
    for node in gateways:
        eventually(lambda node=node: numbers(node) == list(range(60)), 30, "it lacks nothing")  # type: ignore[misc]
        # for a moment nobody may lead, on a busy machine
        eventually(lambda node=node: node.json("/health/ready")["archive"] == kept, 30, "it is ready")  # type: ignore[misc]


@pytest.mark.parametrize("forged", ["no entry", "an entry twice"])
def test_what_somebody_else_writes_into_the_log_costs_what_was_before_it_and_no_more(
    make_valkey: MakeValkey,
    mosquitto: Broker,
    make_gateway: MakeGateway,
    publisher: Publisher,
    prefix: str,
    forged: str,
) -> None:
    valkey = make_valkey()
    nodes = two_nodes(make_gateway, mosquitto, valkey, prefix)

    def last(node: GatewayProcess) -> Any:
        found = node.json(f"/topics/{prefix}/a?since=1h&limit=1&order=desc")["messages"]
        return found[0]["payload"] if found else None

    def arrives(number: int) -> None:
        publisher.publish(f"{prefix}/a", b"%d" % number)
        for node in nodes:
            eventually(lambda: last(node) == number, 30, f"{number} arrives at {node.port}")  # noqa: B023

    arrives(1)
    log = f"gateway:{{{prefix}}}:log"
    if forged == "no entry":
        valkey.tell("XADD", log, "900-0", "e", "?")
    else:
        script = "local found = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)\n"
        script += "return redis.call('XADD', KEYS[1], '900-0', 'e', found[1][2][2])"
        assert b"900-0" in valkey.tell("EVAL", script, "1", log)
    arrives(2)
    epochs = {node.json(f"/topics/{prefix}/a")["position"].partition(":")[0] for node in nodes}
    for number in range(3, 8):
        time.sleep(1)  # as long as a lease and more, in all: no other epoch begins
        arrives(number)
    assert {node.json(f"/topics/{prefix}/a")["position"].partition(":")[0] for node in nodes} == epochs
    for node in nodes:
        assert node.get("/health/ready")[0] == 200


def test_a_gateway_that_cannot_reach_the_server_listens_all_the_same_and_says_so(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    pytest.importorskip("valkey")
    gateway = make_gateway(
        mosquitto,
        ready=False,
        mqtt_topics=[f"{prefix}/#"],
        cluster_url=f"valkey://127.0.0.1:{free_port()}",
        cluster_name=prefix,
    )
    status, body = gateway.get("/health/ready")
    assert status == 503
    assert b"the shared log can't be reached" in body

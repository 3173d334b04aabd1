"""The profiles `secure` and `cluster` together: three gateways, one log, TLS and passwords between all parts."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.integration.test_cluster_compose import NODES
from tests.integration.test_cluster_compose import Stack as ClusterStack
from tests.integration.test_secure_compose import Stack as SecureStack
from tests.support.waiting import PATIENCE_SECONDS, eventually, free_port

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


class Stack(SecureStack):
    """Both profiles of the Compose file, asked at the balancer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environment |= ClusterStack().versions
        self.http_port = free_port()
        self.environment["CLUSTER_PORT"] = str(self.http_port)

    def compose(self, *arguments: str, profile: str = "secure", stdin: str = "") -> str:
        return super().compose("--profile", "cluster", *arguments, profile=profile, stdin=stdin)

    def fails(self, *arguments: str) -> str:
        """What a command says that has to fail or to say nothing good."""
        command = ["docker", "compose", "-p", self.name, "--profile", "cluster", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def readings(self, token: str) -> set[str]:
        """Topics of the next readings that come through the balancer."""
        topics: set[str] = set()
        address = f"wss://127.0.0.1:{self.http_port}/ws?topic=sensors/%2B/state&since=now&token={token}"
        with connect(address, ssl=self.tls()) as websocket:
            while len(topics) < 5:
                message = json.loads(websocket.recv(30))
                if "topic" in message:
                    topics.add(message["topic"])
        return topics

    def leader(self) -> str:
        """The service that leads."""
        name = str(self.http("/health/ready")[1]["cluster"]["leader"])
        for service in NODES:
            container = self.compose("ps", "-q", service).strip()
            if container and name.startswith(container[:12]):
                return service
        raise LookupError(name)


@pytest.fixture(scope="module")
def stack(compose: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.compose("up", "--no-build", "--detach")
        stack.ca_file.write_text(stack.compose("run", "--rm", "--no-deps", "secrets", "cat", "/secrets/sensors/ca.pem"))
        eventually(stack.is_ready, 180, "the cluster is connected to the broker")
        yield stack
    finally:
        subprocess.run(
            ["docker", "compose", "-p", stack.name, "--profile", "*", "down", "--volumes", "--timeout", "1"],
            env=stack.environment,
            capture_output=True,
            timeout=120,
            check=False,
        )


def test_readings_come_through_any_node_and_without_a_token_nothing_does(stack: Stack) -> None:
    token = stack.token("--subscribe", "sensors/+/state", "--ttl", "5m")
    assert len(stack.readings(token)) == 5
    assert stack.http("/topics/%23")[0] == 401
    with pytest.raises((OSError, HTTPException)):
        urllib.request.urlopen(f"http://127.0.0.1:{stack.http_port}/health/live", timeout=PATIENCE_SECONDS)
    answered: set[str] = set()
    while len(answered) < len(NODES):
        answered.add(stack.http("/whoami", token)[1]["node"])


def test_each_node_speaks_tls_to_broker_and_server_and_nothing_else(stack: Stack) -> None:
    for service in NODES:
        table = stack.compose("exec", "-T", service, "cat", "/proc/net/tcp", "/proc/net/tcp6")
        remote = [line.split()[2].rpartition(":")[2] for line in table.splitlines() if " 01 " in line[:60]]
        established = {int(port, 16) for port in remote if re.fullmatch(r"[0-9A-F]{4}", port)}
        assert {8885, 6379} <= established, service
        assert established.isdisjoint({1883, 8883}), service
    # the server speaks TLS only, and wants its password
    assert "PONG" not in stack.fails("exec", "-T", "valkey", "valkey-cli", "ping")
    tls = ("--tls", "--cacert", "/secrets/ca.pem", "-h", "localhost")
    assert "NOAUTH" in stack.fails("exec", "-T", "valkey", "valkey-cli", *tls, "ping")
    password = stack.compose("exec", "-T", "gateway", "cat", "valkey.password")
    given = ("-e", f"REDISCLI_AUTH={password}", "-e", f"VALKEYCLI_AUTH={password}")
    assert stack.compose("exec", "-T", *given, "valkey", "valkey-cli", *tls, "ping").strip() == "PONG"
    assert password not in stack.compose("logs", "--no-color")


def test_each_part_sees_only_its_own_secrets(stack: Stack) -> None:
    named = "-name '*.key' -o -name passwords -o -name '*.password' -o -name gateway.toml -o -name valkey.conf"
    command = f"find / \\( -path /proc -o -path /sys -o -path /usr \\) -prune -o -type f \\( {named} \\) -print; true"

    def found(service: str) -> set[str]:
        files = stack.compose("exec", "-T", "--user", "0", service, "sh", "-c", command).split()
        return {name for name in files if not name.startswith("/etc/valkey/")}

    own = {f"/etc/gateway/{name}" for name in ("gateway.toml", "server.key", "node.key", "valkey.password")}
    assert found("gateway-2") == own
    assert found("valkey") == {"/secrets/valkey.conf", "/secrets/server.key"}
    assert found("balancer") == {"/secrets/server.key"}


def test_the_death_of_the_leader_is_hardly_seen(stack: Stack) -> None:
    token = stack.token("--subscribe", "sensors/+/state", "--ttl", "5m")
    leader = eventually(stack.leader, 30, "a node leads")
    stack.compose("kill", leader)
    assert len(stack.readings(token)) == 5
    eventually(lambda: stack.leader() != leader, 30, "another one leads")
    stack.compose("start", leader)
    eventually(stack.is_ready, 60, "all is whole again")


def test_a_token_that_is_called_back_through_the_balancer_is_refused_by_all_nodes(stack: Stack) -> None:
    token = stack.token("--subscribe", "sensors/+/state", "--ttl", "5m")
    status, answer = stack.http("/tokens/revoke", body=json.dumps({"token": token}).encode())
    assert (status, answer["told"]) == (200, True)

    def refused() -> bool:
        # who asks on and on with a token that is not accepted is told 429 in the end, by the node that refuses it
        return {stack.http("/topics/%23", token)[0] for _ in range(12)} <= {401, 429}

    eventually(refused, 10, "whichever node answers refuses it")


def test_it_stays_secure_and_a_cluster_without_its_profiles(stack: Stack) -> None:
    """The last test of this file."""
    found: Any = SecureStack.compose(
        stack, "up", "--detach", "--force-recreate", "mosquitto", "gateway", profile="demo"
    )
    assert isinstance(found, str)
    eventually(stack.is_ready, 90, "the gateway is connected again")
    assert stack.http("/topics/%23")[0] == 401
    assert stack.http("/health/ready")[1]["cluster"]["leader"]

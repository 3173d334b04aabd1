"""`docker compose --profile cluster up` as it is: any one container may be killed, and the page goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.accounts import Walker, walking
from tests.support.waiting import eventually, free_port

ROOT = Path(__file__).parents[2]
NODES = ("gateway", "gateway-2", "gateway-3")

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow, pytest.mark.anyio]


class Stack:
    """Broker, sensors, Valkey, three gateways and their balancer, under a name and on ports of the test's own."""

    def __init__(self) -> None:
        self.name = f"gateway-cluster-{uuid.uuid4().hex[:8]}"
        names = ("HTTP_PORT", "MQTT_PORT", "MQTTS_PORT", "CLUSTER_PORT")
        self.ports = {name: free_port() for name in names}
        # where there is no registry, the images that there are
        versions = {"VALKEY_VERSION": ("valkey/valkey", "8"), "CADDY_VERSION": ("caddy", "2")}
        self.versions = {
            name: tag
            for name, (image, tag) in versions.items()
            if subprocess.run(["docker", "image", "inspect", f"{image}:{tag}"], capture_output=True).returncode == 0  # noqa: PLW1510
        }

    # as a node of a `Walker`: what answers there is any of the three
    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.ports['CLUSTER_PORT']}"

    def compose(self, *arguments: str) -> None:
        done = subprocess.run(
            ["docker", "compose", "-p", self.name, "--profile", "demo", "--profile", "cluster", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.versions, **{name: str(port) for name, port in self.ports.items()}},
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4_000:]

    def answers(self, path: str) -> bool:
        with contextlib.suppress(OSError):
            address = f"http://127.0.0.1:{self.ports['CLUSTER_PORT']}{path}"
            with urllib.request.urlopen(address, timeout=5) as response:
                return bool(response.status == 200)
        return False


@pytest.fixture
def stack(compose: None) -> Iterator[Stack]:
    found = Stack()
    try:
        found.compose("up", "--no-build", "--detach", "mosquitto", "valkey", *NODES, "balancer", "sensors")
        eventually(lambda: found.answers("/health/ready"), 120, "the cluster is ready")
        yield found
    finally:
        found.compose("down", "--volumes", "--timeout", "1")


class Watcher(Walker):
    """A browser that looks at how long nothing came; what came are numbers of no account."""

    def check_seqs(self) -> None:
        """Whether each number of the log came once, in order, and nothing is missing."""
        seqs = [seq for _, seq in self.contents]
        assert seqs == sorted(seqs)
        assert len({epoch for epoch, _ in self.contents}) == 1
        assert not self.gaps


async def test_any_one_container_may_be_killed(stack: Stack) -> None:
    assert stack.answers("/"), "the dashboard is there"
    browser = Watcher([stack], 0)  # type: ignore[list-item]
    async with walking([browser]):
        for victim in (*NODES, "valkey"):
            await asyncio.sleep(3)
            browser.mark()
            before = len(browser.got)
            await asyncio.to_thread(stack.compose, "kill", victim)
            # the others do without it
            await asyncio.sleep(8)
            await asyncio.to_thread(stack.compose, "start", victim)
            until = asyncio.get_running_loop().time() + 60
            while not await asyncio.to_thread(stack.answers, "/health/ready"):
                assert asyncio.get_running_loop().time() < until, f"the cluster is whole again after {victim}"
                await asyncio.sleep(0.5)
            await asyncio.sleep(2)
            assert len(browser.got) > before, victim
            print(f"{victim:10} killed: nothing came for {browser.longest:.2f} s", flush=True)
            if victim in NODES:
                # a lease lasts 2 s; the sensors report each second
                assert browser.longest < 8, victim
    browser.check_seqs()

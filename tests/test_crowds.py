"""Thousands of connections that come, go, or are ended together hold nobody up, on either loop."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import eventually
from tests.support.yardsticks import YARDSTICK_SECONDS
from tests.test_stalls import STALL_SECONDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timing,
    pytest.mark.skipif(
        sys.platform != "linux", reason="needs many addresses of loopback, and a process that is stopped"
    ),
]

COUNT = 1_000
ADDRESSES = 40

PROGRAM = """
import asyncio, json, os, sys, time
import gateway.server
from gateway.settings.table import Settings
from gateway.transport.sockets import listen
from tests.support.yardsticks import yardstick_seconds

LOOP, COUNT = sys.argv[1], int(sys.argv[2])
listening = listen("127.0.0.1", 0)
turns, asked, servers = [], [], []

class Server(gateway.server.GatewayServer):
    def __init__(self, config, *others):
        config.loop = LOOP
        servers.append(self)
        super().__init__(config, *others)

    async def shutdown(self, sockets=None):
        await super().shutdown(sockets)
        tell()

class Bare(asyncio.Protocol):
    open = 0

    def connection_made(self, transport):
        Bare.open += 1

    def connection_lost(self, error):
        Bare.open -= 1

async def watch():
    last = time.thread_time()
    while True:
        await asyncio.sleep(0)
        now = time.thread_time()
        turns.append(now - last)
        last = now

def tell():
    found = servers[0].gateway
    counters = found.hub.counters
    print(json.dumps({
        "longest": max(turns, default=0.0), "yardstick": yardstick_seconds(50), "connections": found.connections.total,
        "subscribers": found.hub.subscriber_count, "delivered": counters.delivered, "groups": found.hub.group_count,
        "protocols": len(servers[0].server_state.connections), "bare": Bare.open,
    }), flush=True)
    turns.clear()

def obey():
    for line in os.read(0, 4096).decode().splitlines():
        match line.split():
            case ["publish", topic]:
                servers[0].gateway.hub.publish(topic, b"1")
            case ["tell"]:
                asyncio.get_running_loop().call_soon(tell)

def started():
    loop = asyncio.get_running_loop()
    bare = listen("127.0.0.1", 0)
    asked.append(loop.create_task(watch()))
    asked.append(loop.create_task(loop.create_server(Bare, sock=bare, backlog=COUNT)))
    loop.add_reader(0, obey)
    print(listening.getsockname()[1], bare.getsockname()[1], flush=True)

gateway.server.GatewayServer = Server
settings = Settings(
    mqtt_url="mqtt://127.0.0.1:1", limit_connections_per_address=COUNT, limit_requests_per_second=COUNT,
    log_level="error",
)
gateway.server.serve(settings, sockets=[listening], on_started=started)
"""


class Crowd:
    """A gateway in a process of its own that measures its turns, and those who are connected to it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.port, self.bare_port = map(int, process.stdout.readline().split())
        self.sockets: list[socket.socket] = []

    def ask(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def look(self) -> dict[str, Any]:
        """What it says of itself; its longest turn is since the last look."""
        self.ask("tell")
        return self.told()

    def longest_until(self, condition: Callable[[dict[str, Any]], bool]) -> float:
        """Looks until something is so; the longest turn, in seconds of a quiet machine."""
        longest = [0.0]

        def is_so() -> bool:
            found = self.look()
            longest.append(seconds_of(found))
            return condition(found)

        eventually(is_so, 60)
        is_so()  # the turn in which it was seen is measured when it has ended
        return max(longest)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done inside reaches it in one turn."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _sockets(self, port: int) -> Iterator[tuple[int, socket.socket]]:
        for number in range(COUNT):
            sock = socket.socket()
            self.sockets.append(sock)
            sock.settimeout(60)
            sock.bind((f"127.0.2.{number % ADDRESSES + 1}", 0))
            sock.connect(("127.0.0.1", port))
            yield number, sock

    def connect(self, topic: str) -> None:
        """Opens all connections together: each of them subscribes to one of these and to `all`."""
        with self.stopped():
            for number, sock in self._sockets(self.port):
                sock.sendall(
                    f"GET /ws?topic={topic.format(number)}&topic=all&since=now HTTP/1.1\r\nHost: localhost\r\n"
                    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n".encode()
                )

    def read_until(self, text: bytes) -> None:
        """Reads of each socket until it has brought this."""
        for sock in self.sockets:
            read = b""
            while text not in read:
                data = sock.recv(65_536)
                assert data, read
                read += data

    def connect_bare(self) -> None:
        """Opens as many connections to a protocol that does nothing."""
        for _ in self._sockets(self.bare_port):
            pass
        eventually(lambda: self.look()["bare"] == COUNT)

    def reset(self) -> None:
        """Ends all connections in a way that leaves the other side no choice of when to close."""
        for sock in self.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with self.stopped():
            self.close()

    def close(self) -> None:
        while self.sockets:
            self.sockets.pop().close()


def seconds_of(found: dict[str, Any]) -> float:
    """The longest turn, as it would be on a quiet machine."""
    seconds: float = found["longest"] / max(1.0, found["yardstick"] / YARDSTICK_SECONDS)
    print(f"{found['longest'] * 1000:.1f} ms, yardstick {found['yardstick'] * 1e6:.1f} µs: {found}")
    return seconds


@pytest.fixture(params=["uvloop", "asyncio"])
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < COUNT + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(COUNT + 200, hard), hard))
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", PROGRAM, request.param, str(COUNT)]
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
    ) as process:
        crowd = Crowd(process)
        try:
            yield crowd
        finally:
            crowd.close()
            process.kill()


def test_those_who_come_together_hold_nobody_up(crowd: Crowd) -> None:
    crowd.look()
    crowd.connect("own/{}")
    longest = crowd.longest_until(lambda found: found["subscribers"] == COUNT)
    crowd.read_until(b'"subscribed"')
    assert longest < STALL_SECONDS


def is_empty(found: dict[str, Any]) -> bool:
    return bool(found["connections"] == found["subscribers"] == found["groups"] == found["protocols"] == 0)


def test_those_who_go_together_hold_nobody_up_and_get_nothing_more(crowd: Crowd) -> None:
    crowd.connect("own/{}")
    crowd.read_until(b'"subscribed"')
    crowd.ask("publish all")
    crowd.read_until(b'"topic":"all"')
    assert crowd.look()["delivered"] == COUNT
    with crowd.stopped():
        crowd.close()
    crowd.ask("publish all")  # comes after the ends, and while they are seen to
    longest = crowd.longest_until(is_empty)
    assert crowd.look()["delivered"] == COUNT
    assert longest < STALL_SECONDS


def test_those_who_are_cut_off_together_take_little_more_than_the_loop_does_by_itself(crowd: Crowd) -> None:
    """A reset is closed by the loop as soon as it is seen, so all of them in one turn."""
    crowd.connect_bare()
    crowd.reset()
    bare = crowd.longest_until(lambda found: found["bare"] == 0)
    crowd.connect("own/{}")
    crowd.read_until(b'"subscribed"')
    crowd.look()
    crowd.reset()
    crowd.ask("publish all")
    longest = crowd.longest_until(is_empty)
    assert crowd.look()["delivered"] == 0
    assert longest < bare + STALL_SECONDS


def test_all_who_are_connected_are_told_to_come_back_and_nobody_else_waits(crowd: Crowd) -> None:
    crowd.connect("shared")
    crowd.read_until(b'"subscribed"')
    crowd.ask("publish all")
    crowd.look()
    crowd.process.terminate()
    crowd.read_until(b"\x88\x13\x03\xf4the gateway stops")  # 1012
    ended = crowd.told()
    crowd.process.wait(30)
    assert ended["delivered"] == COUNT
    assert seconds_of(ended) < STALL_SECONDS

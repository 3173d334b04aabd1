"""transport.listening: connections are opened address by address, and none of one that owes much."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.access.budget import Accounts
from gateway.access.limits import Connections, Refusals
from gateway.transport import listening
from gateway.transport.listening import OPENING_SECONDS, OWED_SECONDS, Listener
from gateway.transport.sockets import listen
from gateway.transport.turns import TURN_SECONDS, Turns
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

FIRST, SECOND = "127.0.8.1", "127.0.8.2"
A_TURN = round(TURN_SECONDS / OPENING_SECONDS)
"""So many connections are opened in a turn of the loop at most."""


class Scene:
    """A listener on a port of its own, and who was opened, in order."""

    def __init__(self, max_per_address: int = 1_000, is_shared: Any = None) -> None:
        self.opened: list[str] = []
        self.transports: list[Any] = []
        self.refusals = Refusals()
        self.accounts = Accounts(time.monotonic)
        self.pending = Connections(10_000, max_per_address, is_shared)
        self.socket = listen("127.0.0.1", 0)
        self.listener = Listener(
            None, pending=self.pending, handshake_seconds=1, refusals=self.refusals, accounts=self.accounts,
            turns=Turns(),
        )  # fmt: skip
        self.clients: list[socket.socket] = []

    def connect(self, address: str, count: int = 1) -> None:
        for _ in range(count):
            client = socket.socket()
            client.settimeout(10)
            client.bind((address, 0))
            client.connect(self.socket.getsockname())
            self.clients.append(client)

    def protocol(self) -> asyncio.Protocol:
        scene = self

        class Opened(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                scene.opened.append(transport.get_extra_info("peername")[0])
                scene.transports.append(transport)

        return Opened()

    def start(self) -> None:
        self.listener.start([self.socket], self.protocol)

    def close(self) -> None:
        for transport in self.transports:
            transport.abort()
        for client in self.clients:
            client.close()
        self.socket.close()


@contextlib.contextmanager
def scene_of(**options: Any) -> Iterator[Scene]:
    scene = Scene(**options)
    try:
        yield scene
    finally:
        scene.close()


async def test_addresses_take_turns_and_one_behind_a_flood_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "OPENING_SECONDS", TURN_SECONDS)  # one in a turn
    with scene_of() as scene:
        scene.accounts.spend(FIRST, size=-(2**30))
        scene.connect(FIRST, 200)
        scene.connect(SECOND)
        scene.start()
        await eventually_async(lambda: len(scene.opened) == 201, 20, "all are opened")
        assert scene.opened.index(SECOND) < 100
        assert scene.pending.total == 0
        await scene.listener.stop()


async def test_one_that_owes_much_is_closed_at_once_and_one_that_owes_little_is_told_in_http() -> None:
    with scene_of() as scene:
        second = 0.25  # of the processor are a second of an address
        scene.accounts.spend(FIRST, processor=(8 + OWED_SECONDS * 2) * second)
        scene.accounts.spend(SECOND, processor=(8 + OWED_SECONDS / 2) * second)
        scene.connect(FIRST)
        scene.connect(SECOND)
        scene.start()
        await eventually_async(lambda: scene.opened == [SECOND], 20, "one of them is opened")
        assert await asyncio.to_thread(scene.clients[0].recv, 1) == b""
        assert scene.refusals.by_reason == {"processor": 1}
        await scene.listener.stop()


async def test_each_connection_is_charged_and_none_that_is_refused_or_of_many_clients() -> None:
    with scene_of(is_shared=lambda address: address == SECOND) as scene:
        scene.start()
        scene.connect(FIRST, 10)
        await eventually_async(lambda: len(scene.opened) == 10, 20, "all are opened")
        assert scene.accounts.processor == pytest.approx(10 * OPENING_SECONDS)
        scene.connect(SECOND, 10)
        await eventually_async(lambda: len(scene.opened) == 20, 20, "all are opened")
        assert scene.accounts.processor == pytest.approx(10 * OPENING_SECONDS)
        await scene.listener.stop()


async def test_of_one_address_no_more_wait_than_it_may_have() -> None:
    with scene_of(max_per_address=A_TURN * 2) as scene:
        scene.connect(FIRST, A_TURN * 5)
        scene.start()
        await eventually_async(
            lambda: len(scene.opened) + scene.refusals.by_reason.total() == A_TURN * 5, 20, "all are seen"
        )
        assert scene.pending.total == 0
        assert set(scene.refusals.by_reason) <= {"limit_connections_per_address"}
        await scene.listener.stop()


async def test_whoever_waits_when_the_gateway_stops_is_closed() -> None:
    with scene_of() as scene:
        scene.connect(FIRST, 200)
        scene.start()
        await eventually_async(lambda: scene.pending.total > 0, 20, "some wait")
        await scene.listener.stop()
        await eventually_async(lambda: scene.pending.total == 0, 20, "nobody waits any more")
        assert len(scene.opened) < 200
        assert await asyncio.to_thread(scene.clients[-1].recv, 1) == b""

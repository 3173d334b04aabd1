"""What the garbage collector is spared, and that nobody needs it: connections that end are freed at once."""

from __future__ import annotations

import gc
import json
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.collector import LONG_SECONDS, MANY_OBJECTS, MOST_CUT_OFF, Collections, untracked
from tests.support.waiting import PATIENCE_SECONDS, eventually

PROGRAM = """
import asyncio, collections, gc, json, signal, sys
from gateway.core.collector import Collections
from gateway.server import serve
from gateway.settings.table import Settings
from gateway.transport.sockets import listen

Collections.watch = lambda self: gc.disable()
listening = listen("127.0.0.1", 0)

def tell():
    found = collections.Counter(name for each in gc.get_objects() for name in [type(each).__name__]
                                if name in ("Protocol", "Http", "Session", "Subscriber", "ServerProtocol"))
    print(json.dumps(dict(found)), flush=True)

def started():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
    print(listening.getsockname()[1], flush=True)

serve(Settings(mqtt_url="mqtt://127.0.0.1:1"), sockets=[listening], on_started=started)
"""
UPGRADE = (
    b"GET /ws?topic=a/%23 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
)


class FakeClock:
    """Every look is `step` later."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr(gc, "get_objects", lambda *, generation: {2: []}[generation])
    for name in ("freeze", "unfreeze", "collect"):
        monkeypatch.setattr(gc, name, lambda name=name: made.append(name))
    return made


def collected(collections: Collections, generation: int) -> None:
    for phase in ("start", "stop"):
        collections.seen(phase, {"generation": generation, "collected": 0, "uncollectable": 0})


def test_collections_go_on_as_they_are_while_they_are_short(calls: list[str]) -> None:
    clock = FakeClock()
    collections = Collections(clock)
    for generation in (0, 1, 2, 1, 2):
        collected(collections, generation)
    clock.step = 2 * LONG_SECONDS
    for generation in (0, 1):  # these can't grow
        collected(collections, generation)
    assert not collections.is_crowded
    assert calls == []


def test_after_a_long_one_old_objects_are_left_out(calls: list[str]) -> None:
    clock = FakeClock()
    collections = Collections(clock)
    clock.step = 2 * LONG_SECONDS
    collected(collections, 2)
    assert collections.is_crowded
    assert calls == ["freeze"]
    clock.step = 0.0
    for generation in (0, 1, 0, 0, 1):
        collected(collections, generation)
    assert calls == ["freeze"] * 3


def test_old_objects_are_left_out_before_a_full_collection_of_too_many(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old: list[object] = []
    monkeypatch.setattr(gc, "get_objects", lambda *, generation: {2: old}[generation])
    collections = Collections(FakeClock())
    old[:] = [None] * MANY_OBJECTS
    collected(collections, 1)
    old.append(None)
    collected(collections, 0)
    assert calls == []
    collected(collections, 1)
    assert calls == ["freeze"]
    assert collections.is_crowded


def test_answers_that_were_cut_off_are_collected_when_they_are_many(calls: list[str]) -> None:
    clock = FakeClock()
    collections = Collections(clock)
    for _ in range(2 * MOST_CUT_OFF):
        collections.cut_off()  # the collector still comes by itself
    assert calls == []
    clock.step = 2 * LONG_SECONDS
    collected(collections, 2)
    calls.clear()
    for _ in range(MOST_CUT_OFF + 1):
        collections.cut_off()
    assert calls == ["unfreeze", "collect", "freeze"]


def test_what_is_untracked_is_freed_by_its_count() -> None:
    class Kept:
        pass

    kept = Kept()
    gone = weakref.ref(kept)
    held = untracked([kept])
    del kept
    assert gone() is held[0]
    held.clear()
    assert gone() is None


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield process
        process.terminate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the gateway is asked by a signal")
def test_connections_that_end_are_freed_without_the_collector(gateway: subprocess.Popen[str]) -> None:
    assert gateway.stdout is not None
    port = int(gateway.stdout.readline())

    def objects() -> dict[str, Any]:
        gateway.send_signal(signal.SIGUSR1)
        assert gateway.stdout is not None
        found: dict[str, Any] = json.loads(gateway.stdout.readline())
        return found

    def connect(request: bytes, answer: bytes) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        sock.sendall(request)
        said = b""
        while answer not in said:
            said += sock.recv(65_536)
        return sock

    get = b"GET /topics/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sockets = [connect(UPGRADE, b'"subscribed"') for _ in range(20)] + [connect(get, b"\r\n\r\n") for _ in range(20)]
    before = objects()
    assert before["Session"] == before["Protocol"] == before["ServerProtocol"] == before["Http"] == 20
    for sock in sockets:
        sock.close()
    # the timer of a closing handshake, and what the loop itself holds until its next turn
    eventually(lambda: sum(objects().values()) <= 2)

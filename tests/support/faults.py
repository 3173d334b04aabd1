"""What must hold after any fault, and connections that behave badly on purpose."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from .gateways import GatewayProcess
from .subscribers import Subscriber


def assert_sound(gateway: GatewayProcess, *, ceiling_mib: float) -> None:
    """Alive, under its memory ceiling, its metrics readable, nothing in its log that nobody foresaw."""
    assert gateway.is_alive, gateway.log()[-2000:]
    assert gateway.get("/health/live")[0] == 200
    used = gateway.memory() / 2**20
    assert used < ceiling_mib, f"{used:.0f} MiB of resident memory, {ceiling_mib} allowed"
    samples = gateway.metrics()
    assert samples["gateway_history_bytes"] <= samples["gateway_history_bytes_limit"]
    log = gateway.log()
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]


async def assert_accounted(
    gateway: GatewayProcess, everything: Subscriber, *, from_the_start: bool = False, timeout_seconds: float = 20
) -> None:
    """received = delivered + lost, for a subscriber of `#` since its first answer, up to what has arrived by now.

    Numbers count the messages of all topics, so that such a subscriber can tell each one that it did not get. One that
    asked for history that is all there is owed everything `from_the_start` of the gateway.
    """
    start = 0 if from_the_start else _start_of(everything)
    received = int((await asyncio.to_thread(gateway.metrics))["gateway_messages_received_total"])

    def balance() -> bool:
        seqs = [message["seq"] for message in everything.messages]
        assert all(before < after for before, after in pairwise(seqs)), "out of order, or twice"
        told = [event["to"] for event in everything.events if event["event"] == "gap" and "to" in event]
        end: int = max([start, *seqs[-1:], *told])
        return end >= received and end - start == len(seqs) + everything.lost

    await everything.wait(balance, timeout_seconds, "every message is delivered or told as lost")


@contextlib.contextmanager
def neighbour(gateway: GatewayProcess) -> Iterator[list[float]]:
    """Somebody else who asks whether it is alive, all the time: what the gateway did before each answer.

    In seconds of its processor time, which what else runs on this machine does not lengthen.
    """
    waits: list[float] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            began = gateway.processor_seconds()
            with contextlib.suppress(OSError):
                gateway.get("/health/live")
            waits.append(gateway.processor_seconds() - began)
            done.wait(0.005)

    thread = threading.Thread(target=ask, name="neighbour")
    thread.start()
    try:
        yield waits
    finally:
        done.set()
        thread.join()


def _start_of(subscriber: Subscriber) -> int:
    """The number after which everything is live for it."""
    subscribed = next(event for event in subscriber.events if event["event"] == "subscribed")
    return int(subscribed["position"].partition(":")[2])


def assert_unbroken(everything: Subscriber) -> None:
    """Of a subscriber of `#` since now whose connection has ended: it got everything up to its last message."""
    start = _start_of(everything)
    seqs = [message["seq"] for message in everything.messages]
    assert seqs == list(range(start + 1, start + 1 + len(seqs)))


def upgrade(path: str, host: str = "127.0.0.1") -> bytes:
    """The request of an opening handshake (RFC 6455 §4.1)."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


def raw_websocket(
    gateway: GatewayProcess, *topics: str, receive_buffer: int | None = None, **query: Any
) -> socket.socket:
    """A WebSocket after its handshake, on which nobody reads or answers from here on."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", gateway.port))
    pairs = [f"topic={quote(topic, safe='')}" for topic in topics] + [f"{k}={quote(str(v))}" for k, v in query.items()]
    sock.sendall(upgrade("/ws?" + "&".join(pairs), f"127.0.0.1:{gateway.port}"))
    head = b""
    while b"\r\n\r\n" not in head:
        # byte by byte, so that no frame is taken with it
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError(f"no handshake: {head!r}")
        head += byte
    if not head.startswith(b"HTTP/1.1 101"):
        sock.close()
        raise ConnectionError(head.split(b"\r\n")[0].decode())
    return sock


def client_frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    """A frame as a client sends it (RFC 6455 §5.2), right or wrong."""
    head = bytes([(0x80 if fin else 0) | opcode])
    size, mask_bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65_536:
        head += bytes([mask_bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", size)
    # a mask of zeros is allowed, and leaves the payload as it is
    return head + (b"\0\0\0\0" if masked else b"") + payload

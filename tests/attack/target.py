"""The gateway that is attacked, as an attacker sees it who has an address of his own for each attempt."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import struct
import time
from collections.abc import Iterator

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.support.faults import client_frame, upgrade
from tests.support.gateways import GatewayProcess

SECRET = "0123456789abcdef0123456789abcdef"
_addresses = itertools.count(1)
MIB = 2**20


class Target:
    """Sockets to a gateway, open until the attack is over.

    Attributes:
        gateway: the process.
        seconds: how long an attack that goes on goes on.
    """

    def __init__(self, gateway: GatewayProcess, seconds: float = 3.0) -> None:
        self.gateway = gateway
        self.seconds = seconds
        everything = ["#", "$SYS/#"]
        self.token = mint(
            secret_key(SECRET), ttl_seconds=3600, subject="mallory", subscribe=everything, publish=everything
        )
        self._sockets: list[socket.socket] = []
        self._address = f"127.0.3.{next(_addresses)}"

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A connection, with a small receive buffer, that has sent something."""
        sock = socket.socket()
        self._sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.settimeout(10)
        sock.bind((self._address, 0))
        sock.connect(("127.0.0.1", self.gateway.port))
        if sent:
            sock.sendall(sent)
        return sock

    def websocket(self, path: str = "/ws", *, has_token: bool = True, headers: bytes = b"") -> socket.socket:
        """A WebSocket after its handshake, non-blocking from here on."""
        if has_token:
            headers += f"Authorization: Bearer {self.token}\r\n".encode()
        sock = self.connect(upgrade(path, "localhost")[:-2] + headers + b"\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head
        sock.setblocking(False)
        return sock

    def websockets(self, count: int, path: str = "/ws", *, has_token: bool = True) -> list[socket.socket]:
        """Several of them."""
        return [self.websocket(path, has_token=has_token) for _ in range(count)]

    def flood(self, sockets: list[socket.socket], data: bytes) -> None:
        """Sends the same bytes over and over into whatever takes them, for `seconds`."""
        views = {sock: memoryview(data) for sock in sockets}
        for _ in self.rounds():
            for sock in list(views):
                try:
                    view = views[sock][sock.send(views[sock]) :]
                    views[sock] = view or memoryview(data)
                except BlockingIOError:
                    continue
                except OSError:
                    del views[sock]  # closed for it

    def push(self, sockets: list[socket.socket], data: bytes) -> None:
        """Sends these bytes once on each, as far as they are taken within `seconds`."""
        self.push_each(dict.fromkeys(sockets, data))

    def push_each(self, waiting: dict[socket.socket, bytes]) -> None:
        """The same with bytes of its own for each."""
        views = {sock: memoryview(data) for sock, data in waiting.items()}
        for _ in self.rounds():
            for sock in list(views):
                try:
                    views[sock] = views[sock][sock.send(views[sock]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    del views[sock]
                    continue
                if not views[sock]:
                    del views[sock]

    def rounds(self) -> Iterator[None]:
        """Goes on for `seconds`, a little at a time."""
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            yield
            time.sleep(0.001)  # an attacker that leaves this machine's other core to the one who measures

    def leave(self, sock: socket.socket) -> None:
        """Resets a connection and forgets it."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        self._sockets.remove(sock)

    def open_sockets(self) -> int:
        """How many of them the gateway has not closed."""
        count = 0
        for sock in self._sockets:
            sock.setblocking(False)
            try:
                while sock.recv(65_536):
                    pass
            except BlockingIOError:
                count += 1
            except OSError:
                pass
        return count

    def close(self) -> None:
        """Leaves, without a word, and comes back from elsewhere."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.close()
        self._sockets.clear()
        self._address = f"127.0.3.{next(_addresses)}"


def command(name: str, **members: object) -> bytes:
    """A frame with a command."""
    return client_frame(1, json.dumps({"command": name, **members}).encode())

"""A TCP tunnel to a broker that can be cut, blocked or turned into a black hole while connections go through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Tunnel:
    """Forwards connections from a free port of loopback to another one. Use it as a context manager."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._is_blocked = False
        self._limit: int | None = None
        self._ended = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="tunnel", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._open.set()
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections; new ones are welcome."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    # linger 0: a reset, as from a router that has forgotten the connection
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def black_hole(self) -> None:
        """From now on bytes are taken and go nowhere, and no end of a connection is told; new connections as well."""
        self._open.clear()

    def heal(self) -> None:
        """Forward again; what the black hole swallowed is lost, and so are the connections that were in it."""
        self.cut()
        self._open.set()

    def block(self, blocked: bool = True) -> None:
        """Reset the connections, and every new one, until unblocked."""
        self._is_blocked = blocked
        if blocked:
            self.cut()

    def cut_every(self, received_bytes: int | None) -> None:
        """Reset a connection whenever its client has sent this many bytes."""
        self._limit = received_bytes

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self._is_blocked:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to_port), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((near, far))
            for source, target in ((near, far), (far, near)):
                threading.Thread(
                    target=self._pump, args=(source, target, source is near), name="tunnel pump", daemon=True
                ).start()

    def _pump(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        total = 0
        try:
            while data := source.recv(4096):
                if not self._open.is_set():
                    continue  # swallowed
                total += len(data)
                if from_client and self._limit is not None and total > self._limit:
                    break
                target.sendall(data)
        except OSError:
            pass
        if not self._open.is_set():
            return  # nobody is told
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

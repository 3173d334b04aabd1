"""A network between a browser and a gateway that a test can cut, silence and put back."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading

PAGE_PATH = "/a-page.html"


class Network:
    """Forwards TCP connections to a port of loopback, from a port of its own.

    `cut` breaks every connection and refuses new ones; `silence` keeps them and forwards nothing, which neither end is
    told of; `mend` undoes both. `limit` ends every WebSocket after so many bytes to the browser. It serves `files` by
    itself, `page` among them, so that a page of the test's own has the gateway's origin. HTTP connections serve one
    request.
    """

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None, prefix: str = "") -> None:
        """Starts to listen.

        Args:
            target_port: where the gateway listens.
            tls: terminates TLS with this.
            prefix: what a path begins with here and doesn't there, such as `/house`.
        """
        self._target = target_port
        self._tls = tls
        self._prefix = prefix
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.origin = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self.page = self.origin + prefix + PAGE_PATH
        self.files = {PAGE_PATH: b"<!doctype html><meta charset=utf-8><title>a page</title>"}
        """What it answers by itself, by path."""
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._flows = threading.Event()
        self._flows.set()
        self._refuses = False
        self.limit: int | None = None
        self.websockets = 0
        """WebSocket connections so far."""
        threading.Thread(target=self._accept, name="network-accept", daemon=True).start()

    @property
    def html(self) -> str:
        """What `page` shows."""
        return self.files[PAGE_PATH].decode()

    @html.setter
    def html(self, text: str) -> None:
        self.files[PAGE_PATH] = text.encode()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                near.close()
                continue
            threading.Thread(target=self._serve, args=(near,), name="network", daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                near = self._tls.wrap_socket(near, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                data = near.recv(65_536)
                if not data:
                    break
                head += data
            self._flows.wait()
            method, _, rest = head.partition(b" ")
            path, _, rest = rest.partition(b" ")
            file = path.decode("latin-1").removeprefix(self._prefix)
            if file in self.files:
                body = self.files[file]
                kind = b"text/javascript" if file.endswith(".js") else b"text/html"
                near.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                    % (kind, len(body), body)
                )
            elif path.startswith(self._prefix.encode()) and rest:
                limit = None
                if b"upgrade: websocket" in rest.lower():
                    self.websockets += 1
                    limit = self.limit
                else:
                    rest = rest.replace(b"keep-alive", b"close")
                path = path.removeprefix(self._prefix.encode())
                with socket.create_connection(("127.0.0.1", self._target), timeout=5) as far:
                    far.settimeout(None)
                    far.sendall(b"%b %b %b" % (method, path, rest))
                    with self._lock:
                        self._pairs.add((near, far))
                    self._forward(near, far, limit)
        near.close()

    def _forward(self, near: socket.socket, far: socket.socket, limit: int | None) -> None:
        to_browser = 0
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in selector.select():
                    self._flows.wait()
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    data = source.recv(65_536)
                    while isinstance(source, ssl.SSLSocket) and source.pending():
                        data += source.recv(source.pending())
                    is_last = not data
                    if source is far and limit is not None:
                        is_last = is_last or len(data) >= limit - to_browser
                        data = data[: limit - to_browser]
                    if source is far:
                        to_browser += len(data)
                    key.data.sendall(data)
                    if is_last:
                        self._end(near, far)
                        return
        self._end(near, far)

    def _end(self, near: socket.socket, far: socket.socket) -> None:
        with self._lock:
            self._pairs.discard((near, far))
        for end in (near, far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Breaks all connections and lets none in."""
        self._refuses = True
        self.drop()

    def drop(self) -> None:
        """Breaks all connections; new ones are let in."""
        with self._lock:
            pairs = list(self._pairs)
        for near, far in pairs:
            self._end(near, far)

    def silence(self) -> None:
        """Forwards nothing any more and tells nobody; new connections get no answer either."""
        self._flows.clear()

    def mend(self) -> None:
        """As it was at the start."""
        self._refuses = False
        self.limit = None
        self._flows.set()

    def close(self) -> None:
        """Ends everything."""
        self._listener.close()
        self.mend()
        self.drop()

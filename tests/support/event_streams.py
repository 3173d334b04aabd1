"""A client of server-sent events for tests, over a plain socket: it reads all the time and keeps what it read."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import Any

from .gateways import GatewayProcess


class EventStream:
    """A client of server-sent events that reads in a thread, until the test's end or `cut`."""

    def __init__(self, gateway: GatewayProcess, path: str, **headers: str) -> None:
        named = {"Host": "localhost", "Accept": "text/event-stream", **headers}
        # by HTTP/1.0 the body comes without chunks around it
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), 20)
        self._socket.sendall(f"GET {path} HTTP/1.0\r\n{head}\r\n".encode())
        self._lines = self._socket.makefile("r", encoding="utf-8", newline="\n")
        assert " 200 " in self._lines.readline()
        self.headers: dict[str, str] = {}
        while line := self._lines.readline().strip():
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        self.events: list[dict[str, Any]] = []
        self.last_id = ""
        self.is_over = False
        threading.Thread(target=self._read, daemon=True).start()

    def cut(self) -> None:
        """Ends the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        event: dict[str, Any] = {}
        with contextlib.suppress(OSError), self._socket, self._lines:
            for text in self._lines:
                line = text.rstrip("\n")
                if line == "":
                    if "data" in event:
                        self.events.append(event)
                    event = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    if name == "id":
                        self.last_id = value
                    event[name] = json.loads(value) if name == "data" else value
        self.is_over = True

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [event for event in self.events if "event" not in event]

"""Connections accepted under limits, and TLS spoken on them where it is the gateway's own.

Invariant: a connection counts from the moment when it was accepted, and one whose handshake takes too long is closed.
Connections that wait take turns address by address, and of one that owes much none is opened; so a flood of them leaves
the processor, and the way in, to others. A loop's own server takes one in each turn, whosever it is, and counts none.
The certificate is `certificates`' business.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.access.budget import Accounts
from gateway.access.limits import Connections, LimitError, Refusals
from gateway.transport.turns import Turns

__all__ = ["Listener"]

logger = logging.getLogger(__name__)


SHUTDOWN_SECONDS = 3.0
"""How long a client may take to say in TLS that it has seen the end, and to take what was left of the last answer."""

HANDSHAKE_SECONDS = 0.002
"""Processor time that a handshake of TLS is charged as: what it takes is not seen from here."""

OPENING_SECONDS = 0.0001
"""Processor time that a connection is charged as beside what is done on it: it is made, and ends."""

OWED_SECONDS = 2.0
"""Time for which an address may have to wait before its connections are closed at once: one that owes less is told so
on them, in HTTP. A handshake of TLS would cost more than that answer: there nothing may be owed."""

ACCEPTING_SECONDS = 0.002
"""Processor time for accepting in one turn of the loop: a few hundred connections, so that a flood that is refused
fills no queue of the system."""

RETRY_SECONDS = 1.0
"""Where a connection can't be accepted there are no descriptors left: that takes a while."""


class _Arrival:
    """A connection that waits for its turn to be opened."""

    __slots__ = ("_begin", "_key", "_turns")

    def __init__(self, key: str, begin: Callable[[], None], turns: Turns) -> None:
        self._key = key
        self._begin = begin
        self._turns = turns

    def key(self) -> str:
        """What counts as its address."""
        return self._key

    def step(self) -> bool:
        """Opens it."""
        began = time.thread_time()
        self._begin()
        self._turns.spend(time.thread_time() - began + OPENING_SECONDS)
        return False


class Listener:
    """Accepts connections and hands them on, with TLS when that is spoken.

    Attributes:
        context: what TLS is spoken with; None: none is.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None,
        *,
        pending: Connections,
        handshake_seconds: float,
        refusals: Refusals,
        accounts: Accounts,
        turns: Turns,
    ) -> None:
        """Prepares it.

        Args:
            context: what TLS is spoken with; None: none is.
            pending: counts connections that wait for their turn, or whose handshake is not done.
            handshake_seconds: how long one may take.
            refusals: counts what was closed for either, or because its address owes too much.
            accounts: what addresses owe.
            turns: whose connection is opened next.
        """
        self.context = context
        self._pending = pending
        self._handshake_seconds = handshake_seconds
        self._refusals = refusals
        self._accounts = accounts
        self._turns = turns
        self._price, self._owed = (OPENING_SECONDS, OWED_SECONDS) if context is None else (HANDSHAKE_SECONDS, 0.0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_stopped = False

    def start(self, sockets: list[socket.socket], make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Accepts on these sockets, which listen and don't block, until `stop`."""
        for sock in sockets:
            self._spawn(self._accept(sock, make_protocol), "connections")

    async def stop(self) -> None:
        """Accepts nothing more, and gives up handshakes that are under way."""
        self._has_stopped = True
        await asyncio.sleep(0)  # what has not begun would not be closed
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, sock: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(sock)
            except OSError as error:
                logger.warning("a connection can't be accepted: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            until = time.thread_time() + ACCEPTING_SECONDS
            self._admit(connection, address, make_protocol)
            while time.thread_time() < until:
                try:
                    connection, address = sock.accept()
                except OSError:
                    break  # there are no more; what else it may be the next wait tells
                connection.setblocking(False)
                self._admit(connection, address, make_protocol)
            await asyncio.sleep(0)

    def _admit(self, connection: socket.socket, address: Any, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Lets it wait for its turn, unless its address owes too much or has too many that wait."""
        host = address[0] if isinstance(address, tuple) else None
        if not self._pending.is_shared(host):
            if self._accounts.wait(host) > self._owed:
                self._refusals.count("processor")
                connection.close()
                return
            self._accounts.spend(host, self._price)
        try:
            key = self._pending.open(host)
        except LimitError as error:
            self._refusals.count(error.limit)
            connection.close()
            return

        def begin() -> None:
            if self._has_stopped:
                connection.close()
                self._pending.close(key)
            else:
                self._spawn(self._open(connection, make_protocol, key), "opening")

        self._turns.ask(_Arrival(key, begin, self._turns), asyncio.get_running_loop().call_soon)

    async def _open(self, connection: socket.socket, make_protocol: Callable[[], asyncio.Protocol], key: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self.context is None:
                await loop.connect_accepted_socket(make_protocol, connection)
            else:
                await loop.connect_accepted_socket(
                    make_protocol,
                    connection,
                    ssl=self.context,
                    ssl_handshake_timeout=self._handshake_seconds,
                    ssl_shutdown_timeout=SHUTDOWN_SECONDS,
                )
        except ConnectionAbortedError:
            self._refusals.count("handshake_seconds")
        except OSError as error:  # those of TLS are among them
            logger.debug("a connection could not be opened: %s", error)
        finally:
            self._pending.close(key)

"""The gateway's own TLS: connections are accepted and their handshakes done under the limits of a request's head.

Invariant: a connection counts from the moment when it was accepted, and one whose handshake takes too long is closed.
A loop's own server counts nothing before the handshake and waits a minute. The certificate is `certificates`' business.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from gateway.access.budget import Accounts
from gateway.access.limits import Connections, LimitError, Refusals
from gateway.transport.certificates import CIPHERS

__all__ = ["TlsListener", "server_context"]

logger = logging.getLogger(__name__)


SHUTDOWN_SECONDS = 3.0
"""How long a client may take to say in TLS that it has seen the end, and to take what was left of the last answer."""

HANDSHAKE_SECONDS = 0.002
"""Processor time that a handshake is charged as: what it takes is not seen from here."""

ACCEPTED_AT_ONCE = 16
"""Connections that are taken in one turn of the loop, so that nobody waits long behind a flood that is refused."""

RETRY_SECONDS = 1.0
"""Where a connection can't be accepted there are no descriptors left: that takes a while."""


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """What TLS is spoken with: 1.2 and 1.3.

    Raises:
        OSError: the files can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.load_cert_chain(cert_file, key_file, password="")
    return context


class TlsListener:
    """Accepts connections and hands them on when TLS is spoken.

    Attributes:
        context: what TLS is spoken with.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        pending: Connections,
        handshake_seconds: float,
        refusals: Refusals,
        accounts: Accounts,
    ) -> None:
        """Prepares it.

        Args:
            context: what TLS is spoken with.
            pending: counts connections whose handshake is not done.
            handshake_seconds: how long one may take.
            refusals: counts what was closed for either, or because its address owes too much.
            accounts: what addresses owe.
        """
        self.context = context
        self._pending = pending
        self._handshake_seconds = handshake_seconds
        self._refusals = refusals
        self._accounts = accounts
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, sockets: list[socket.socket], make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Accepts on these sockets, which listen and don't block, until `stop`."""
        for sock in sockets:
            self._spawn(self._accept(sock, make_protocol), "TLS connections")

    def stop(self) -> None:
        """Accepts nothing more, and gives up handshakes that are under way."""
        for task in self._tasks:
            task.cancel()

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
            self._admit(connection, address, make_protocol)
            for _ in range(ACCEPTED_AT_ONCE - 1):
                try:
                    connection, address = sock.accept()
                except OSError:
                    break  # there are no more; what else it may be the next wait tells
                connection.setblocking(False)
                self._admit(connection, address, make_protocol)
            await asyncio.sleep(0)

    def _admit(self, connection: socket.socket, address: Any, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """Begins a handshake, unless its address owes too much or has too many under way."""
        host = address[0] if isinstance(address, tuple) else None
        if not self._pending.is_shared(host):
            if self._accounts.wait(host) > 0:
                self._refusals.count("processor")
                connection.close()
                return
            self._accounts.spend(host, HANDSHAKE_SECONDS)
        try:
            key = self._pending.open(host)
        except LimitError as error:
            self._refusals.count(error.limit)
            connection.close()
            return
        self._spawn(self._shake_hands(connection, make_protocol, key), "TLS handshake")

    async def _shake_hands(
        self, connection: socket.socket, make_protocol: Callable[[], asyncio.Protocol], key: str
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                make_protocol,
                connection,
                ssl=self.context,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except ConnectionAbortedError:
            self._refusals.count("handshake_seconds")
        except OSError as error:  # those of TLS are among them
            logger.debug("a TLS handshake failed: %s", error)
        finally:
            self._pending.close(key)

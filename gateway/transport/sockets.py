"""Listening sockets, made before anything else starts, so that a port that is taken is a clear message."""

from __future__ import annotations

import errno
import socket

__all__ = ["BACKLOG", "ListenError", "is_free", "listen"]

BACKLOG = 2_048
"""Connections that the system keeps for us: a burst of reconnecting browsers waits there, not in their retries."""


class ListenError(Exception):
    """There can't be a listening socket at this address; the text says why and what to do."""

    code = "cannot_listen"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: an address, or a name of which the first address is taken.
        port: 0 takes any free one.

    Raises:
        ListenError: the port is taken, or the address isn't ours.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise ListenError(
            f"host {host!r}: this name has no address; 127.0.0.1 is this machine only, 0.0.0.0 all its addresses"
        ) from None
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    # a restart must not wait for connections that are still being closed
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        reasons = {
            errno.EADDRINUSE: "something else listens there; stop it, or choose another port with --port",
            errno.EACCES: "ports below 1024 need a privilege; choose another with --port",
            errno.EADDRNOTAVAIL: "this machine has no such address; choose one of its own with --host",
        }
        reason = reasons.get(error.errno or 0, error.strerror)
        raise ListenError(f"can't listen on port {port} of {host}: {reason}") from None
    sock.setblocking(False)
    return sock


def is_free(port: int) -> bool:
    """Whether nothing listens on this port, neither on loopback nor on every address."""
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as sock:
            try:
                sock.bind((host, port))
            except OSError:
                return False
    return True

"""Listening sockets, made before anything else starts, so that a port that is taken is a clear message."""

from __future__ import annotations

import errno
import socket
import sys

__all__ = ["BACKLOG", "INHERITS_OPTIONS", "TCP_KEEPALIVE", "ListenError", "bound", "is_free", "listen"]

BACKLOG = 65_535
"""Connections that the system keeps for us, or as many as it allows (Linux: `net.core.somaxconn`, 4,096 by itself): a
burst of reconnecting browsers waits there, not in the retries of their systems, after 1, 3, 7, 15 and 31 seconds."""

INHERITS_OPTIONS = sys.platform == "linux"
"""Whether a connection has the options of the socket that listened: then nothing is to be set for each."""

# A peer that vanished without a word is noticed by the kernel: nothing to do here for each connection and interval.
TCP_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


def bound(sock: socket.socket | None, max_buffer_bytes: int, gone_seconds: float) -> None:
    """Bounds what the system buffers for a client, and the time after which it gives up one that vanished.

    Args:
        sock: a connection, or the socket that listens; one that is not of TCP, or None, is left alone.
        max_buffer_bytes: left alone the buffer would grow to megabytes for a reader that doesn't read: memory that
            nobody counts, and news that are old before they leave.
        gone_seconds: time without progress after which a client is given up that is sent something. Keep-alive is
            silent while data is under way; and if too little is to make a socket slow, nobody else looks.
    """
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max_buffer_bytes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*TCP_KEEPALIVE, ("TCP_USER_TIMEOUT", int(gone_seconds * 1000))):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class ListenError(Exception):
    """There can't be a listening socket at this address; the text says why and what to do."""

    code = "cannot_listen"


def listen(host: str, port: int, *, is_shared: bool = False, is_reserved: bool = False) -> socket.socket:
    """A listening socket.

    Args:
        host: an address, or a name of which the first address is taken.
        port: 0 takes any free one.
        is_shared: whether other processes of this user may listen there, too: the system deals connections out.
        is_reserved: whether the port is only to be held for them; nothing arrives here.

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
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        if not is_reserved:
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
    """Whether nothing listens on this port, neither on loopback nor on every address.

    Connections of a server that is gone, which the system remembers for a minute, take no port away.
    """
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except OSError:
                return False
    return True

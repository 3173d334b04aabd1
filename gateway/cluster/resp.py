"""Commands as a Valkey server reads them: RESP2 and 3, as described at https://valkey.io/topics/protocol/. Pure.

Invariant: a command has as many parts as it says.
"""

from __future__ import annotations

__all__ = ["Part", "command", "parts"]

Part = bytes | str | int


def parts(*values: Part) -> bytes:
    """Parts of a command, as they are sent."""
    return b"".join([_part(value) for value in values])


def _part(value: Part) -> bytes:
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def command(count: int, *ready: bytes) -> bytes:
    """A command of so many parts."""
    return b"*%d\r\n%b" % (count, b"".join(ready))

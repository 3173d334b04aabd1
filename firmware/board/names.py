"""Answers every look-up of a name with the board's own address while its access point is open.

One invariant: an answer is made of the question alone, is at most 16 bytes longer, and goes to who asked.

A phone asks its maker's page, after it has joined a network, whether there is an Internet; told that every name is the
board, it comes to the board's page, is sent on to its address, and opens it by itself.

It leaves to others: what the page says to who asks for another one (portal.py).

Source: RFC 1035 §4.1 (messages), RFC 6895 §2 (header).
"""

import socket

from .ticks import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PORT = const(53)
_QUESTION_BYTES = const(512)  # RFC 1035 §2.3.4
_AT_ONCE = const(8)  # answered before the page has its turn


def answer(question: bytes, address: bytes) -> "bytes | None":
    """The answer to a question for one name; None for anything else.

    A question of another type, for IPv6 say, is told that the name has none.

    Args:
        question: As it came.
        address: Four bytes.
    """
    # a question, not an answer; a standard query; exactly one
    if len(question) < 12 or question[2] & 0xF8 or question[4:6] != b"\x00\x01":
        return None
    at = 12
    while at < len(question) and 0 < question[at] < 64:  # from 64 on it would be no label, but a pointer
        at += 1 + question[at]
    end = at + 5
    if end > len(question) or question[at] or question[at + 3 : end] != b"\x00\x01":
        return None
    has = question[at + 1 : at + 3] in (b"\x00\x01", b"\x00\xff")  # A, ANY
    # AA, and RD as it was asked; the name is the one at offset 12; to be asked again next time
    head = question[:2] + bytes([0x84 | question[2] & 1, 0]) + b"\x00\x01\x00" + bytes([has]) + bytes(4)
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04" + address if has else b""
    return head + question[12:end] + record


class Names:
    """The socket for it.

    Args:
        address: Of the board, such as "192.168.4.1".
    """

    def __init__(self, address: str) -> None:
        self._address = bytes([int(part) for part in address.split(".")])
        self._socket: "Any" = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind(socket.getaddrinfo(address, PORT)[0][-1])
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def serve(self) -> None:
        """Answer what has come, and return at once."""
        try:
            for _ in range(_AT_ONCE):
                question, asker = self._socket.recvfrom(_QUESTION_BYTES)
                said = answer(question, self._address)
                if said is not None:
                    self._socket.sendto(said, asker)
        except OSError:  # nothing has come, or who asked has gone
            pass

    def close(self) -> None:
        """Answer nothing more."""
        self._socket.close()

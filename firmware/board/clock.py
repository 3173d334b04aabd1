"""The time of day, from the network (SNTP); nothing at all until it is known.

One invariant: `now_ms` is None until a server has answered, on this start or before a deep sleep.

It leaves to others: when to ask, and keeping the clock running (the board's RTC does). The limit for an answer is not
one for the server's name: see mqtt.py.

Source: RFC 4330 (SNTP version 4): §4 the packet, §5 the checks of a reply.
"""

import asyncio
import os
import socket
import time

from .ticks import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# MicroPython counts from 2000 on most boards, CPython and MicroPython on Unix from 1970
EPOCH_MS = (946684800 if time.gmtime(0)[0] == 2000 else 0) * 1000
_NTP_TO_UNIX = const(2208988800)
_FIRST_YEAR = const(2024)  # a clock that says less was never set


class ClockError(Exception):
    """The server did not give a time that one may believe."""


class Clock:
    """The board's clock.

    Args:
        server: host or host:port; "" when the clock is set by others, or never.
        set_time: Takes (year, month, day, hour, minute, second) in UTC, and microseconds.
        timeout_seconds: Limit for an answer.
    """

    def __init__(self, server: str, set_time: "Any", timeout_seconds: float = 2) -> None:
        host, colon, port = server.partition(":")
        self.host = host
        self.port = int(port) if colon else 123
        self.set_time = set_time
        self.timeout_seconds = timeout_seconds

    def now_ms(self) -> "int | None":
        """Milliseconds since 1970, None while nobody knows."""
        if time.gmtime()[0] < _FIRST_YEAR:
            return None
        return time.time_ns() // 1_000_000 + EPOCH_MS

    async def sync(self) -> None:
        """Ask the server once, and set the clock.

        Raises:
            OSError: No such host, or no network.
            ClockError: No answer in time, or not one that may be believed.
        """
        family, _, _, _, address = socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_DGRAM)[0]
        client = socket.socket(family, socket.SOCK_DGRAM)
        try:
            client.setblocking(False)
            started = time.time_ns()
            cookie = os.urandom(8)
            client.sendto(request(cookie), address)
            while True:
                await asyncio.sleep(0.02)
                waited_ms = (time.time_ns() - started) // 1_000_000
                if not 0 <= waited_ms < self.timeout_seconds * 1000:
                    raise ClockError("no answer from %s within %g s" % (self.host, self.timeout_seconds))
                try:
                    reply = client.recv(64)
                except OSError:  # nothing there yet
                    continue
                unix_ms = parse(reply, cookie)
                break
        finally:
            client.close()
        unix_ms += waited_ms // 2  # the way back took about half of the wait
        moment = time.gmtime((unix_ms - EPOCH_MS) // 1000)
        self.set_time(moment[:6], unix_ms % 1000 * 1000)


def request(cookie: bytes) -> bytes:
    """An SNTP client's question; the server repeats the eight bytes of the cookie."""
    return b"\x23" + bytes(39) + cookie  # no leap warning, version 4, mode 3


def parse(reply: bytes, cookie: bytes) -> int:
    """The time in a server's reply, in milliseconds since 1970.

    Raises:
        ClockError: Too short, not the answer to our question, or from a server that isn't synchronised itself.
    """
    if len(reply) < 48 or reply[24:32] != cookie:
        raise ClockError("not an answer to our question")
    if reply[0] & 0x07 != 4 or reply[0] >> 6 == 3 or not 1 <= reply[1] <= 15:
        raise ClockError("the server is not synchronised")
    seconds = int.from_bytes(reply[40:44], "big")
    fraction = int.from_bytes(reply[44:48], "big")
    if seconds < 1 << 31:  # RFC 4330 §3: the second era begins in 2036
        seconds += 1 << 32
    return (seconds - _NTP_TO_UNIX) * 1000 + (fraction * 1000 >> 32)

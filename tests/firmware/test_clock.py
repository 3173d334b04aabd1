"""The board's clock: what a time server's reply may say, and what is not believed."""

from __future__ import annotations

import calendar
import socket
import struct
import threading

import pytest

from firmware.board.clock import Clock, ClockError, parse, request

COOKIE = b"cookie!!"


def reply(
    seconds: int, fraction: int = 0, *, mode: int = 4, leap: int = 0, stratum: int = 2, cookie: bytes = COOKIE
) -> bytes:
    """An SNTP packet (RFC 4330 §4)."""
    head = bytes([leap << 6 | 4 << 3 | mode, stratum, 0, 0]) + bytes(20)
    return head + cookie + struct.pack(">II", seconds, fraction) * 2


def test_a_request_carries_the_cookie_where_the_server_copies_it_from() -> None:
    packet = request(COOKIE)
    assert len(packet) == 48
    assert packet[0] == 0x23  # version 4, client
    assert packet[40:48] == COOKIE


def test_known_moments() -> None:
    # RFC 4330 has none; RFC 5905 figure 4: 1 January 1970 is 2,208,988,800; 8 February 2036 starts the second era at 0
    assert parse(reply(2_208_988_800), COOKIE) == 0
    assert parse(reply(0), COOKIE) == calendar.timegm((2036, 2, 7, 6, 28, 16)) * 1000
    assert parse(reply(3_976_214_400, 1 << 31), COOKIE) == calendar.timegm((2026, 1, 1, 0, 0, 0)) * 1000 + 500


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        reply(3_976_214_400)[:47],
        reply(3_976_214_400, cookie=b"another!"),
        reply(3_976_214_400, mode=3),
        reply(3_976_214_400, leap=3),
        reply(3_976_214_400, stratum=0),
        reply(3_976_214_400, stratum=16),
    ],
)
def test_what_is_not_believed(packet: bytes) -> None:
    with pytest.raises(ClockError):
        parse(packet, COOKIE)


async def test_sync_sets_the_clock_from_a_server() -> None:
    times: list[tuple[tuple[int, ...], int]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)

        def answer() -> None:
            question, address = server.recvfrom(64)
            server.sendto(reply(3_976_214_400, 1 << 31, cookie=question[40:48]), address)

        thread = threading.Thread(target=answer)
        thread.start()
        clock = Clock(f"127.0.0.1:{server.getsockname()[1]}", lambda moment, us: times.append((tuple(moment), us)))
        await clock.sync()
        thread.join()
    ((moment, microseconds),) = times
    assert moment == (2026, 1, 1, 0, 0, 0)
    assert 500_000 <= microseconds < 900_000


async def test_a_silent_server_is_given_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        clock = Clock(f"127.0.0.1:{server.getsockname()[1]}", None, timeout_seconds=0.1)
        with pytest.raises(ClockError, match=r"no answer from 127\.0\.0\.1 within 0\.1 s"):
            await clock.sync()

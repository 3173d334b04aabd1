"""The other end of a board's serial line: speaks Improv as its published protocol has it, without the board's own code.

Source: Improv Wi-Fi, "Serial".
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.firmware.boards import Board
from tests.support.waiting import eventually

PIECE_BYTES = 200
STATE, ERROR, RPC, RESULT = 1, 2, 3, 4


def packet(kind: int, data: bytes) -> bytes:
    """A packet as it goes over the line."""
    body = b"IMPROV" + bytes([1, kind, len(data)]) + data
    return body + bytes([sum(body) % 256]) + b"\n"


def call(command: int, data: bytes = b"") -> bytes:
    """The packet of a command."""
    return packet(RPC, bytes([command, len(data)]) + data)


def wifi(ssid: str, password: str) -> bytes:
    """The data of the command that joins a network."""
    name, secret = ssid.encode(), password.encode()
    return bytes([len(name)]) + name + bytes([len(secret)]) + secret


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """Every packet in what a board printed, by type and data."""
    found = []
    for match in re.finditer(rb"IMPROV\x01(.)(.)", data, re.DOTALL):
        kind, length = match[1][0], match[2][0]
        end = match.end() + length
        assert data[end] == sum(data[match.start() : end]) % 256, "a wrong checksum"
        assert data[end + 1 : end + 2] == b"\n"
        found.append((kind, data[match.end() : end]))
    return found


def texts(data: bytes) -> list[str]:
    """The texts of a result."""
    found, at = [], 2
    assert data[1] == len(data) - 2
    while at < len(data):
        found.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return found


class Talk:
    """A talk with a board that was powered on with a pipe at its serial port."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._seen = 0

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        assert self.board.process is not None
        assert self.board.process.stdin is not None
        self.board.process.stdin.write(data)
        self.board.process.stdin.flush()

    def next(self, timeout_seconds: float = 10) -> tuple[int, bytes]:
        """The next packet of the board."""

        def come() -> tuple[int, bytes]:
            found = packets(self.board.printed())
            assert len(found) > self._seen, self.board.log()[-500:]
            return found[self._seen]

        packet = eventually(come, timeout_seconds, "a packet of the board")
        self._seen += 1
        return packet

    def results(self, command: int) -> list[str]:
        """The texts of the result of a command, which must be the next packet."""
        kind, data = self.next()
        assert (kind, data[0]) == (RESULT, command)
        return texts(data)

    def give(self, settings: dict[str, Any]) -> list[str]:
        """Send settings in pieces; what the board says to the last one."""
        text = json.dumps(settings, ensure_ascii=False).encode()
        pieces = [text[at : at + PIECE_BYTES] for at in range(0, len(text), PIECE_BYTES)]
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1
            self.send(call(0xA0, bytes([is_last, number]) + piece))
            said = self.results(0xA0)
            if is_last:
                return said
            assert said == []
        raise AssertionError("no settings")

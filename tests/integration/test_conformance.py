"""RFC 6455 on our protocol class, frame by frame, in the groups of the Autobahn test suite (which needs Python 2).

The gateway echoes nothing, so `ping` commands stand for echoes: the answer repeats the command's id, whatever it is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, Self

import pytest

from gateway.settings.table import Settings
from tests.support.gateways import GatewayProcess
from tests.support.waiting import PATIENCE_SECONDS

LONGEST: int = Settings.model_fields["limit_command_bytes"].default
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(
        tmp_path_factory.mktemp("conformance"),
        "mqtt://127.0.0.1:1",
        limit_commands_per_second=100_000,
        limit_handshake_seconds=5,
    )
    try:
        gateway.start(ready=False)
        yield gateway
    finally:
        gateway.close()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """A client's frame (RFC 6455 §5.2)."""
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    flag = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([flag | len(payload)])
    elif len(payload) < 65_536:
        head += bytes([flag | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([flag | 127]) + struct.pack("!Q", len(payload))
    if not masked:
        return head + payload
    mask = os.urandom(4)
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked_payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
    return head + mask + masked_payload


MAX_ID = 1_024


def command(marker: str) -> bytes:
    return json.dumps({"command": "ping", "id": marker}, ensure_ascii=False).encode()


def publication(text: str, command_id: int) -> bytes:
    return json.dumps({"command": "publish", "id": command_id, "topic": "t", "payload": text}).encode()


class Peer:
    """A client that sends what it is told and reads frames."""

    def __init__(self, gateway: GatewayProcess, path: str = "/ws") -> None:
        self._sock = socket.create_connection(("127.0.0.1", gateway.port), PATIENCE_SECONDS)
        self._buffer = b""
        key = base64.b64encode(os.urandom(16))
        request = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n\r\n"
        )
        self._sock.sendall(request.encode())
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        assert b"sec-websocket-accept: " + accept.lower() in head.lower()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _more(self) -> None:
        data = self._sock.recv(65_536)
        if not data:
            raise EOFError
        self._buffer += data

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def send(self, *frames: bytes, chop: int = 0) -> None:
        """Sends frames at once, or in pieces of `chop` bytes."""
        data = b"".join(frames)
        for start in range(0, len(data), chop or len(data)):
            self._sock.sendall(data[start : start + (chop or len(data))])

    def receive(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame, which is whole, unmasked and has no reserved bits."""
        first, second = self._take(2)
        assert first & 0xF0 == 0x80, f"{first:#x}"
        assert second < 128, "a server must not mask"
        length = second
        if second == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif second == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first & 0x0F, self._take(length)

    def echo(self) -> Any:
        """The id in the next answer to a `ping` command; other events are passed over."""
        while True:
            opcode, payload = self.receive()
            if opcode == TEXT and (event := json.loads(payload))["event"] == "pong":
                return event["id"]
            assert opcode in (TEXT, PING), (opcode, payload)

    def answer_to(self, command_id: int) -> Any:
        """The event that answers the command with this id; others are passed over."""
        while True:
            opcode, payload = self.receive()
            if opcode == TEXT and (event := json.loads(payload)).get("id") == command_id:
                return event
            assert opcode in (TEXT, PING), (opcode, payload)

    def pong(self) -> bytes:
        """The payload of the next pong frame."""
        while True:
            opcode, payload = self.receive()
            if opcode == PONG:
                return payload
            assert opcode in (TEXT, PING), (opcode, payload)

    def closed(self) -> int | None:
        """The code of the close frame that ends the connection; None if it ends without one."""
        while True:
            try:
                opcode, payload = self.receive()
            except (EOFError, ConnectionResetError):
                return None
            if opcode == CLOSE:
                code: int = struct.unpack("!H", payload[:2])[0] if payload else 1005
                # nothing may follow (RFC 6455 §5.5.1), and the server closes TCP first (§7.1.1)
                with pytest.raises((EOFError, ConnectionResetError)):
                    self.receive()
                return code


@pytest.fixture
def peer(served: GatewayProcess) -> Iterator[Peer]:
    with Peer(served) as peer:
        yield peer


# 1 Framing, 9 sizes, 10 pieces


@pytest.mark.parametrize("size", [0, 1, 90, 100, 125, 126, 127, 128, 65_490, 65_536, 70_000, 1_000_000])
@pytest.mark.parametrize("chop", [0, 997])
def test_texts_of_every_size_are_taken(peer: Peer, size: int, chop: int) -> None:
    if size <= MAX_ID:
        peer.send(frame(TEXT, command("x" * size)), chop=chop)
        assert peer.echo() == "x" * size
        return
    # only a message to publish may be so long; that there is no broker to take it is said of the whole of it
    peer.send(frame(TEXT, publication("x" * size, size)), chop=chop)
    answer = peer.answer_to(size)
    assert (answer["event"], answer["code"]) == ("error", "upstream_unavailable")


def test_a_text_may_come_byte_by_byte(peer: Peer) -> None:
    peer.send(frame(TEXT, command("é€𝄞")), chop=1)
    assert peer.echo() == "é€𝄞"


def test_many_frames_may_come_at_once(peer: Peer) -> None:
    peer.send(*(frame(TEXT, command(str(number))) for number in range(500)))
    assert [peer.echo() for _ in range(500)] == [str(number) for number in range(500)]


def test_a_binary_frame_is_answered_with_an_error_and_no_more(peer: Peer) -> None:
    peer.send(frame(BINARY, b"\x00\xff"), frame(TEXT, command("after")))
    while True:
        _, payload = peer.receive()
        event = json.loads(payload)
        if event["event"] == "error":
            assert event["code"] == "bad_command"
            break
    assert peer.echo() == "after"


# 2 Pings and pongs


@pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125])
def test_a_ping_is_answered_with_its_payload(peer: Peer, payload: bytes) -> None:
    peer.send(frame(PING, payload), chop=1)
    assert peer.pong() == payload


def test_ten_pings_get_ten_pongs_in_order(peer: Peer) -> None:
    peer.send(*(frame(PING, f"payload-{number}".encode()) for number in range(10)))
    assert [peer.pong() for _ in range(10)] == [f"payload-{number}".encode() for number in range(10)]


def test_a_pong_that_nobody_asked_for_is_passed_over(peer: Peer) -> None:
    peer.send(frame(PONG), frame(PONG, b"unsolicited"), frame(PING, b"real"))
    assert peer.pong() == b"real"


# 5 Fragments


def test_a_text_in_fragments_is_one_text(peer: Peer) -> None:
    whole = command("fragments é")
    pieces = [whole[start : start + 5] for start in range(0, len(whole), 5)]
    frames = [frame(TEXT, pieces[0], fin=False), *(frame(CONTINUATION, piece, fin=False) for piece in pieces[1:])]
    peer.send(*frames, frame(CONTINUATION))
    assert peer.echo() == "fragments é"


def test_a_ping_between_fragments_is_answered_at_once(peer: Peer) -> None:
    whole = command("later")
    peer.send(frame(TEXT, whole[:7], fin=False), frame(PING, b"now"))
    assert peer.pong() == b"now"
    peer.send(frame(CONTINUATION, whole[7:]))
    assert peer.echo() == "later"


# 3, 4, 5, 6, 7 What breaks the protocol

TOO_LONG_UTF8 = [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
BROKEN_UTF8 = [b"\x80", b"\xbf", b"\xfe", b"\xff", b"\xc3", b"\xe2\x82", b"a\xf8\x88\x80\x80\x80", *TOO_LONG_UTF8]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        # 2.5 a control frame of more than 125 bytes
        ([frame(PING, b"\xfe" * 126)], 1002),
        ([frame(CLOSE, b"\x03\xe8" + b"x" * 124)], 1002),
        # 3 reserved bits, which no extension gives a meaning
        *(([frame(TEXT, command("x"), reserved=bits)], 1002) for bits in range(1, 8)),
        ([frame(PING, b"x", reserved=1)], 1002),
        ([frame(CLOSE, b"", reserved=7)], 1002),
        # 4 reserved opcodes
        *(([frame(opcode, b"x")], 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        # 5 fragments in the wrong order, control frames in fragments
        ([frame(CONTINUATION, b"x")], 1002),
        ([frame(CONTINUATION, b"x", fin=False)], 1002),
        ([frame(TEXT, b"a", fin=False), frame(TEXT, b"b")], 1002),
        ([frame(TEXT, b"a", fin=False), frame(BINARY, b"b")], 1002),
        ([frame(PING, b"x", fin=False)], 1002),
        ([frame(PONG, b"x", fin=False)], 1002),
        # a client that doesn't mask (§5.1)
        ([frame(TEXT, command("x"), masked=False)], 1002),
        # 6 texts that are not UTF-8
        *(([frame(TEXT, text)], 1007) for text in BROKEN_UTF8),
        ([frame(TEXT, b"\xce", fin=False), frame(CONTINUATION, b"x")], 1007),
        # 7 close frames
        ([frame(CLOSE, b"\x03")], 1002),
        ([frame(CLOSE, b"\x03\xe8" + b"\xce\xba\xff")], 1007),
        *(
            ([frame(CLOSE, struct.pack("!H", bad))], 1002)
            for bad in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)
        ),
        # 9 a message over the limit, whole, in fragments, and only announced
        ([frame(TEXT, b"x" * (LONGEST + 1))], 1009),
        ([frame(TEXT, b"x" * (LONGEST - 9), fin=False), frame(CONTINUATION, b"x" * 10)], 1009),
        ([b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + b"mask"], 1009),
        ([b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff" + b"mask"], 1009),
    ],
)
def test_a_broken_frame_fails_the_connection(served: GatewayProcess, frames: list[bytes], code: int) -> None:
    with Peer(served) as peer, Peer(served) as neighbour:
        peer.send(*frames)
        assert peer.closed() in (code, *([1002] if code == 1009 else []))
        neighbour.send(frame(TEXT, command("well")))
        assert neighbour.echo() == "well"
    assert "Traceback" not in served.log()


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_a_close_is_answered_with_its_code(peer: Peer, code: int) -> None:
    peer.send(frame(CLOSE, struct.pack("!H", code) + b"bye \xc3\xa9"))
    assert peer.closed() == code


def test_a_close_without_a_code_is_answered(peer: Peer) -> None:
    peer.send(frame(CLOSE))
    assert peer.closed() in (1000, 1005)


def test_what_comes_after_a_close_is_passed_over(peer: Peer) -> None:
    peer.send(frame(CLOSE, b"\x03\xe8"), frame(TEXT, command("late")), frame(PING, b"late"), frame(CLOSE, b"\x03\xe8"))
    assert peer.closed() == 1000


# The handshake (§4.2)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", b"400"),
        (
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n",
            b"400",
        ),
        (
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: {key}\r\n",
            b"426",
        ),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n", b"426"),
        ("Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n", b"426"),
        ("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n", b"426"),
    ],
)
def test_a_handshake_that_lacks_something_is_refused(served: GatewayProcess, headers: str, status: bytes) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    with socket.create_connection(("127.0.0.1", served.port), PATIENCE_SECONDS) as sock:
        sock.sendall(f"GET /ws HTTP/1.1\r\nHost: localhost\r\n{headers.format(key=key)}\r\n".encode())
        found = sock.recv(65_536).split(b" ")[1]
    assert found in (status, b"400")

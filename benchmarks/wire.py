"""MQTT 3.1.1 packets and WebSocket handshakes and frames, written by hand.

The load must cost less than what it measures, so no client library is used. Pure: no sockets.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def _mqtt_packet(first_byte: int, body: bytes) -> bytes:
    """Put the fixed header (MQTT 3.1.1 §2.2) before a packet's body."""
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes((first_byte,)) + bytes(encoded) + body


def _mqtt_string(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def mqtt_connect(client_id: str) -> bytes:
    """Return a CONNECT packet: clean session, no keep-alive, so that an idle connection sends nothing."""
    return _mqtt_packet(0x10, _mqtt_string("MQTT") + b"\x04\x02\x00\x00" + _mqtt_string(client_id))


def mqtt_subscribe(topic_filter: str) -> bytes:
    """Return a SUBSCRIBE packet with packet identifier 1 and QoS 0."""
    return _mqtt_packet(0x82, b"\x00\x01" + _mqtt_string(topic_filter) + b"\x00")


def mqtt_publish(topic: str, payload: bytes, packet_id: int = 0) -> bytes:
    """Return a PUBLISH packet of QoS 1, or of QoS 0 without a packet identifier."""
    if packet_id:
        return _mqtt_packet(0x32, _mqtt_string(topic) + packet_id.to_bytes(2, "big") + payload)
    return _mqtt_packet(0x30, _mqtt_string(topic) + payload)


def upgrade_request(host: str, port: int, path: str, subprotocol: str | None = None) -> bytes:
    """Return the request that opens a WebSocket (RFC 6455 §4.1). It offers no compression."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode(),
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def client_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """Return a masked frame, as a client must send it (RFC 6455 §5.3); payloads up to 65,535 bytes."""
    length = len(payload)
    header = (
        bytes((0x80 | opcode, 0x80 | length)) if length < 126 else bytes((0x80 | opcode, 0xFE, *divmod(length, 256)))
    )
    key = os.urandom(4)
    mask = (key * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return header + key + masked.to_bytes(length, "big")


@dataclass(slots=True)
class FrameReader:
    """Takes an unmasked stream of a server apart into frames; fragments are given out as they come."""

    rest: bytes = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield opcode and payload of each frame that is now complete."""
        data = self.rest + data
        at, end = 0, len(data)
        while end - at >= 2:
            length, start = data[at + 1] & 0x7F, at + 2
            if length == 126:
                length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            elif length == 127:
                length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            if start + length > end:
                break
            yield data[at] & 0x0F, data[start : start + length]
            at = start + length
        self.rest = data[at:]

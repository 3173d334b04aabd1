"""How many packets of MQTT are in a stream of bytes that goes on unread (MQTT 5 §2.1).

Invariant: where a packet ends is read, and of what kind it is; nothing else. What can't be a packet counts as the rest
of one: it is for the broker to end that connection.
"""

from __future__ import annotations

__all__ = ["PacketCounter"]

ANSWERS = {0x40, 0x50, 0x60, 0x70}
"""PUBACK, PUBREC, PUBREL and PUBCOMP: of these a client sends one for what it is sent."""

LENGTH_BYTES = 4
"""A remaining length has no more (MQTT-1.5.5)."""


class PacketCounter:
    """Follows one stream."""

    def __init__(self) -> None:
        self._left = 0  # bytes of a packet that are still to come
        self._is_head = False  # a packet has begun whose length is not whole
        self._length = 0
        self._shift = 0
        self._is_broken = False

    def take(self, data: bytes, start: int, most: int) -> tuple[int, int]:
        """Goes on until so many packets have begun that are no answers.

        Args:
            data: bytes of the stream.
            start: where to go on in them.
            most: how many packets, at least 1.

        Returns:
            Where it has come to, at the end of a packet or of the bytes, and how many such packets have begun.
        """
        at, end, found = start, len(data), 0
        while at < end and not self._is_broken:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            if not self._is_head:
                if found == most:
                    return at, found
                self._is_head, self._length, self._shift = True, 0, 0
                found += data[at] & 0xF0 not in ANSWERS
                at += 1
                continue
            byte = data[at]
            at += 1
            self._length |= (byte & 0x7F) << self._shift
            self._shift += 7
            if byte < 0x80:
                self._is_head, self._left = False, self._length
            elif self._shift == 7 * LENGTH_BYTES:
                self._is_broken = True
        return end, found

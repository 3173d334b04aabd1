"""Cayenne LPP, the Low Power Payload of LoRaWAN sensors: channel, type, value, again and again.

Each becomes a member named by type and channel (`temperature_1`), as The Things Stack and ChirpStack name them. The
types are those of the 2.0 reference and of ElectronicCats' extension, which the arduino library CayenneLPP sends.

Invariant: a type that is not known ends it, since nothing says how long it is.
"""

from __future__ import annotations

from typing import Any

from gateway.decoders.failures import DecodeError

__all__ = ["Cayenne"]

MAX_BYTES = 4 * 1024
"""A LoRaWAN payload has at most 242."""

_TYPES: dict[int, tuple[str, int, bool, float]] = {
    0: ("digital_in", 1, False, 1),
    1: ("digital_out", 1, False, 1),
    2: ("analog_in", 2, True, 100),
    3: ("analog_out", 2, True, 100),
    100: ("generic", 4, False, 1),
    101: ("luminosity", 2, False, 1),
    102: ("presence", 1, False, 1),
    103: ("temperature", 2, True, 10),
    104: ("relative_humidity", 1, False, 2),
    115: ("barometric_pressure", 2, False, 10),
    116: ("voltage", 2, False, 100),
    117: ("current", 2, False, 1000),
    118: ("frequency", 4, False, 1),
    120: ("percentage", 1, False, 1),
    121: ("altitude", 2, True, 1),
    125: ("concentration", 2, False, 1),
    128: ("power", 2, False, 1),
    130: ("distance", 4, False, 1000),
    131: ("energy", 4, False, 1000),
    132: ("direction", 2, False, 1),
    133: ("unix_time", 4, False, 1),
    142: ("switch", 1, False, 1),
}
"""By number: name, bytes, whether it has a sign, and by what it is divided."""

_AXES = ("x", "y", "z")
_VECTORS: dict[int, tuple[str, tuple[tuple[str, int, float], ...]]] = {
    113: ("accelerometer", tuple((axis, 2, 1000) for axis in _AXES)),
    134: ("gyrometer", tuple((axis, 2, 100) for axis in _AXES)),
    136: ("gps", (("latitude", 3, 10_000), ("longitude", 3, 10_000), ("altitude", 3, 100))),
}
"""Those of several numbers, all with a sign: name, bytes and divisor of each."""

COLOUR = 135


class Cayenne:
    """All that one payload says."""

    max_bytes = MAX_BYTES
    is_plain = True

    def decode(self, _topic: str, data: bytes) -> Any:
        """An object of what was measured, by type and channel."""
        found: dict[str, Any] = {}
        at = 0

        def take(size: int, is_signed: bool, divisor: float) -> float:
            nonlocal at
            if at + size > len(data):
                raise DecodeError(f"the value at byte {at} is cut short")
            number = int.from_bytes(data[at : at + size], "big", signed=is_signed)
            at += size
            return number if divisor == 1 else number / divisor

        while at < len(data):
            if at + 2 > len(data):
                raise DecodeError(f"the type at byte {at + 1} is cut short")
            channel, kind = data[at], data[at + 1]
            at += 2
            if (plain := _TYPES.get(kind)) is not None:
                name, size, is_signed, divisor = plain
                found[f"{name}_{channel}"] = take(size, is_signed, divisor)
            elif (vector := _VECTORS.get(kind)) is not None:
                found[f"{vector[0]}_{channel}"] = {part: take(size, True, by) for part, size, by in vector[1]}
            elif kind == COLOUR:
                found[f"colour_{channel}"] = {part: take(1, False, 1) for part in ("r", "g", "b")}
            else:
                raise DecodeError(f"type {kind} at byte {at - 1} is not known")
        return found

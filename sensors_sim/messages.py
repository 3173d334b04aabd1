"""What a simulated device publishes, before any client carries it."""

from typing import NamedTuple


class Message(NamedTuple):
    """One publication."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False

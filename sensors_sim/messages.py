"""What a simulated device publishes, before any client carries it."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Message(NamedTuple):
    """One publication."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Mapping[str, Any] | None = None
    """Those of MQTT 5, as they stand in an envelope of the gateway: correlation data is base64."""

"""Readings for a bare board: a believable day of temperature and humidity, marked as simulated in `meta`."""

import math
import random

from . import Sensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def create(spec: "dict[str, Any]", board: "Any") -> "Fake":  # noqa: ARG001
    """Make it from the entry {"driver": "fake"}."""
    return Fake(board.uptime_seconds)


class Fake(Sensor):
    """A period of ten minutes instead of a day, so that one sees it move.

    Args:
        uptime_seconds: Called for the time.
    """

    kind = "fake"
    model = "no sensor"
    fields = ("temperature", "humidity")
    simulated = True

    def __init__(self, uptime_seconds: "Any") -> None:
        self.uptime_seconds = uptime_seconds

    async def read(self) -> "dict[str, float]":
        swing = math.sin(self.uptime_seconds() * 2 * math.pi / 600)
        return {
            "temperature": 21.5 + 3 * swing + (random.random() - 0.5) / 5,
            "humidity": 45 - 8 * swing + (random.random() - 0.5),
        }

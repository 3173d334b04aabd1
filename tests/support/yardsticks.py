"""Yardsticks: fixed work that runs beside what is measured, so that a slow or busy machine makes both longer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

YARDSTICK_SECONDS = 10e-6
"""What the yardstick takes on a quiet machine such as those that limits in seconds were found on."""


def yardstick_seconds(rounds: int = 200) -> float:
    """Processor time of a fixed piece of work, in seconds: about 10 µs where Python 3.11 writes and reads its JSON."""
    began = time.thread_time()
    for _ in range(rounds):
        text = json.dumps({"temperature": 20.5, "humidity": 44.25, "seq": 17, "ts": 1_700_000_000.125})
        sum(len(name) + int(value) for name, value in json.loads(text).items())
        b"".join(bytes([len(text) & 127]) + text.encode() for _ in range(4))
    return (time.thread_time() - began) / rounds


def in_yardsticks(measured: Callable[[], float], turns: int = 5) -> float:
    """The seconds of processor time that `measured` gives, as a multiple of the yardstick beside: the least of all."""
    least = float("inf")
    for _ in range(turns):
        before = yardstick_seconds()
        seconds = measured()
        least = min(least, 2 * seconds / (before + yardstick_seconds()))
    return least

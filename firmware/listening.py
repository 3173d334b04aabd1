"""`sensors-flash logs`: what a board logs, as it comes.

It leaves to others: what a line is (payloads.py), and the connection (broker.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sensors_sim import payloads

from . import broker, plan
from .tools import FlashError, say


def line(payload: bytes) -> str | None:
    """A line of the log for people; None when it is none."""
    try:
        said = json.loads(payload)
        uptime, level, text = float(said["up"]), str(said["level"]), str(said["text"])
        ts = said.get("ts")
        when = time.strftime("%H:%M:%S", time.localtime(ts)) if isinstance(ts, (int, float)) else ""
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return None
    before = "before the reset: " if said.get("before") else ""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return f"{when:<8} {uptime:>10.3f} {level:<7} {before}{shown}"


async def follow(access: dict[str, Any], ca: Path | None, sensor_id: str, level: str | None) -> None:
    """Print what a board logs until it is stopped.

    Raises:
        BrokerError: It can't be reached, or refuses the connection.
    """

    def take(_topic: str, payload: bytes, _retained: bool) -> None:
        shown = line(payload)
        if shown is not None:
            say(shown)

    async with broker.connected(access, ca, payloads.log_topic(sensor_id), take) as client:
        if level is not None:
            client.publish(payloads.cmd_topic(sensor_id), json.dumps({"log": level}).encode())
        await asyncio.Event().wait()


def parser() -> argparse.ArgumentParser:
    """The options of `sensors-flash logs`."""
    options = argparse.ArgumentParser(prog="sensors-flash logs", description="What a board logs, as it comes.")
    options.add_argument("id", help="the board")
    options.add_argument("--level", choices=payloads.LOG_LEVELS, help="ask the board for these lines and worse")
    plan.add_broker(options)
    return options


def main(arguments: Sequence[str]) -> None:
    """The command `sensors-flash logs`.

    Raises:
        FlashError: The id is none.
        BrokerError: The broker can't be used.
    """
    options = parser().parse_args(arguments)
    if not payloads.is_valid_id(options.id):
        raise FlashError(f"an id has a-z, 0-9, _ and -, not {options.id}")
    access, ca = plan.broker_access(options)
    asyncio.run(follow(access, ca, options.id, options.level))

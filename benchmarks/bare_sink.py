"""The smallest aiomqtt program that sees every message: what the gateway's ingest is compared with.

`python -m benchmarks.bare_sink BROKER_PORT PROGRESS_FILE`: `queue_type` is a queue whose `put_nowait` counts, so that
no task is woken and nothing is awaited per message. It runs on uvloop, as the gateway does.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
from typing import Any

import aiomqtt
import uvloop

COUNTED_AT_ONCE = 32
"""The count is written for the publisher to see once in so many messages, to keep the cost out of the measurement."""


def counting_queue(progress: mmap.mmap) -> type[asyncio.Queue[Any]]:
    """Return a queue class that counts what is put and keeps nothing."""

    class CountingQueue(asyncio.Queue[Any]):
        received = 0

        def put_nowait(self, item: Any) -> None:  # noqa: ARG002
            received = self.received + 1
            self.received = received
            if not received % COUNTED_AT_ONCE:
                struct.pack_into("<q", progress, 0, received)

    return CountingQueue


async def run(port: int, progress_file: str) -> None:
    """Subscribe to everything and count until standard input ends."""
    with open(progress_file, "r+b") as file:  # noqa: PTH123
        progress = mmap.mmap(file.fileno(), 8)
    async with aiomqtt.Client(
        "127.0.0.1",
        port,
        protocol=aiomqtt.ProtocolVersion.V5,
        queue_type=counting_queue(progress),
    ) as client:
        await client.subscribe("#", qos=1)
        print("{}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1]), sys.argv[2]))

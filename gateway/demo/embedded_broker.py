"""`python -m gateway.demo.embedded_broker HOST PORT`: the broker of `gateway demo` where no Mosquitto is installed.

It is amqtt (extra `demo`), in a process of its own; it stores nothing and lets everyone in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from amqtt.broker import Broker


async def run(host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await broker.start()
    await stop.wait()
    # clients that are still connected at this point are none of the demo's
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(broker.shutdown(), 3)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(run(sys.argv[1], int(sys.argv[2])))

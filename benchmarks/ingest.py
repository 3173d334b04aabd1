"""What a message costs on its way in: bare aiomqtt against `gateway.broker`, and against both ends without a hub.

`python -m benchmarks.ingest` starts a Mosquitto and, one after the other, a process for each way to receive; each gets
the same messages, and its processor time from the first to the last is divided by their number. The bare sink is
aiomqtt's `queue_type` with a queue that hands over in `put_nowait`, its fastest documented way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks.processes import HOST, Process, free_port, scratch_directory
from benchmarks.wire import mqtt_connect, mqtt_publish

PAYLOAD = b'{"ts":1790000000.123,"seq":4711,"boot":17,"temperature":21.53,"humidity":44.1,"co2":612}'
DEVICES = 100
WAYS = ["aiomqtt", "upstream", "upstream+hub"]


class Done:
    """Counts messages and notes the processor time of the first and the last."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.count = count
        self.began: float | None = None
        self.used = 0.0
        self.event = asyncio.Event()

    def one(self, *_: object) -> None:
        """Takes a message."""
        if self.began is None:
            self.began = time.process_time()
        self.left -= 1
        if not self.left:
            self.used = time.process_time() - self.began
            self.event.set()


async def receive_with_aiomqtt(port: int, done: Done, version: int) -> None:
    """Aiomqtt's own reader and `Message`, handed over in `put_nowait`."""
    import aiomqtt

    class Sink(asyncio.Queue[aiomqtt.Message]):
        def put_nowait(self, item: aiomqtt.Message) -> None:
            done.one(item)

    async with aiomqtt.Client(HOST, port, queue_type=Sink, protocol=aiomqtt.ProtocolVersion(version)) as client:
        await client.subscribe("sensors/#", qos=1)
        print("ready", flush=True)
        await done.event.wait()


async def receive_with_upstream(port: int, done: Done, on_message: Callable[..., object]) -> None:
    """`gateway.broker`, which hands over to `on_message`."""
    from gateway.upstream.config import UpstreamConfig
    from gateway.upstream.state import UpstreamState
    from gateway.upstream.upstream import Upstream

    connected = asyncio.Event()

    def changed(state: UpstreamState) -> None:
        if state.connected:
            connected.set()

    config = UpstreamConfig(f"mqtt://{HOST}:{port}", ("sensors/#",), client_id="bench-ingest", status_topic="")
    task = asyncio.create_task(Upstream(config, on_message=on_message, on_change=changed).run(), name="upstream")
    await connected.wait()
    print("ready", flush=True)
    await done.event.wait()
    task.cancel()
    await asyncio.wait((task,))


async def receive(way: str, port: int, count: int, version: int) -> float:
    """Seconds of processor time that `count` messages took."""
    done = Done(count)
    if way == "aiomqtt":
        await receive_with_aiomqtt(port, done, version)
    elif way == "upstream":
        await receive_with_upstream(port, done, done.one)
    else:
        from gateway.core.history import History
        from gateway.core.hub import Hub

        loop = asyncio.get_running_loop()
        hub = Hub(
            History(),
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            clock=loop.time,
            wall_clock_ms=lambda: time.time_ns() // 1_000_000,
        )

        def publish(*message: object) -> None:
            hub.publish(*message)  # type: ignore[arg-type]
            done.one()

        await receive_with_upstream(port, done, publish)
    return done.used


def packets(count: int, qos: int) -> Iterator[bytes]:
    """The messages, as a publisher writes them."""
    for number in range(count):
        packet_id = number % 65_000 + 1 if qos else 0
        yield mqtt_publish(f"sensors/device-{number % DEVICES}/state", PAYLOAD, packet_id)


def publish(port: int, count: int, qos: int, per_second: float) -> None:
    """Writes all messages, evenly or as fast as the broker takes them, and reads away what it answers."""
    with socket.create_connection((HOST, port)) as sock:
        sock.sendall(mqtt_connect("bench-ingest-publisher"))
        sock.recv(4)

        def drain() -> None:
            # to close with answers unread would reset the connection, and what the broker hasn't read would be lost
            with contextlib.suppress(OSError):
                while sock.recv(65_536):
                    pass

        reader = threading.Thread(target=drain, name="drain")
        reader.start()
        began = time.monotonic()
        step = max(1, int(per_second / 200)) if per_second else 500
        batch: list[bytes] = []
        for number, packet in enumerate(packets(count, qos), 1):
            batch.append(packet)
            if len(batch) == step or number == count:
                sock.sendall(b"".join(batch))
                batch.clear()
                if per_second:
                    time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        sock.sendall(b"\xe0\x00")  # DISCONNECT
        reader.join(60)


@contextlib.contextmanager
def mosquitto() -> Iterator[int]:
    """A broker whose queues have no limit, so that a receiver that is slower than the publisher gets everything."""
    binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise SystemExit("mosquitto is not on the PATH: install it (apt install mosquitto, brew install mosquitto)")
    port = free_port()
    with scratch_directory() as directory:
        config = directory / "mosquitto.conf"
        config.write_text(f"listener {port} {HOST}\nallow_anonymous true\nmax_queued_messages 0\nlog_type error\n")
        with Process("mosquitto", [binary, "-c", str(config)], directory, None):
            deadline = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                    break
                if time.monotonic() > deadline:
                    raise SystemExit("mosquitto did not start")
                time.sleep(0.01)
            yield port


def measure(way: str, loop: str, port: int, options: argparse.Namespace) -> float:
    """Microseconds of processor time for each message."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--receive", way, "--loop", loop, "--port", str(port)]
    command += ["--messages", str(options.messages), "--version", str(options.version)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        publish(port, options.messages, options.qos, options.rate)
        used = float(child.stdout.readline())
    return used / int(options.messages) * 1e6


def main() -> None:
    """Measures, or, as a child, receives."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--qos", type=int, choices=[0, 1], default=0)
    parser.add_argument("--rate", type=float, default=0, help="messages a second; 0: as fast as it goes (default)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--version", type=int, choices=[4, 5], default=5, help="MQTT version of the bare sink")
    parser.add_argument("--receive", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        if options.loop == "uvloop":
            import uvloop

            used: float = uvloop.run(receive(options.receive, options.port, options.messages, options.version))
        else:
            used = asyncio.run(receive(options.receive, options.port, options.messages, options.version))
        print(used, flush=True)
        return
    with mosquitto() as port:
        speed = f"{options.rate:g}/s" if options.rate else "as fast as it goes"
        print(f"{options.messages} messages of {len(PAYLOAD)} bytes at QoS {options.qos}, {speed}")
        bare = 0.0
        for way in WAYS:
            for loop in ("asyncio", "uvloop"):
                runs = [measure(way, loop, port, options) for _ in range(options.repeat)]
                cost = statistics.median(runs)
                bare = bare or cost
                print(f"{way:14} {loop:8} {cost:6.2f} µs a message, {cost / bare:5.2f} of bare aiomqtt on asyncio")


if __name__ == "__main__":
    main()

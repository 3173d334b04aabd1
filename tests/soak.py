"""A gateway under everyday trouble for a while: `make soak ARGS="--seconds 600"`.

Simulated sensors publish through a real Mosquitto that is restarted every minute, in order and by SIGKILL in turn.
Subscribers come, stall, leave and come back to their position. At the end it prints for each kind of subscriber
*received = delivered + skipped + lost*, counted by the subscribers themselves, and how the gateway's memory grew. The
exit code is 1 if a sum is wrong, the gateway died or complained, or its memory grew faster than allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from gateway.core.resume import Resume
from tests.support.brokers import BrokerOptions, MosquittoProcess, mosquitto_program
from tests.support.gateways import GatewayProcess
from tests.support.waiting import eventually_async

RESTART_SECONDS = 60.0
MEMORY_SECONDS = 5.0
SLOPE_SECONDS = 300.0
"""A shorter run says nothing about growth: caches and history are still filling."""

DEVICES = 20


@dataclass(slots=True)
class Sum:
    """What all subscribers of one kind were owed and what became of it."""

    connections: int = 0
    received: int = 0
    delivered: int = 0
    skipped: int = 0
    lost: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def is_balanced(self) -> bool:
        return not self.wrong and self.received == self.delivered + self.skipped + self.lost


class Reader:
    """One connection that counts; it keeps no message.

    Attributes:
        start: everything after this number is owed; None until the gateway said it.
        last: the number of the newest message.
        end: everything up to this number came or was told as lost; ahead of `last` between a gap and the last values
            that follow it.
    """

    def __init__(self, address: str, sums: Sum, *, on_message: Any = None) -> None:
        self._address = address
        self._sums = sums
        self._on_message = on_message
        self.resume = Resume("now")
        self.start: int | None = None
        self.last = self.end = 0
        self.delivered = 0
        self.skipped = 0
        self.lost = 0
        self.connected = True

    async def read(self, *, seconds: float, pause: float = 0.0, small: bool = False, **query: object) -> None:
        """Reads until time is up or the connection ends; `pause` seconds between frames make it slow."""
        options: dict[str, Any] = {}
        if small:
            options = {"sock": await self._small_socket(), "max_queue": 1}
        url = f"{self._address}/ws?{urlencode(query)}"
        async with connect(url, max_size=None, compression=None, ping_interval=None, **options) as websocket:
            self._sums.connections += 1
            # `wait_for` around recv could drop a frame; a timer that closes can't
            timer = asyncio.get_running_loop().call_later(seconds, lambda: asyncio.ensure_future(websocket.close()))
            try:
                async for frame in websocket:
                    self._take(json.loads(frame))
                    if pause:
                        await asyncio.sleep(pause)
            finally:
                timer.cancel()

    async def _small_socket(self) -> socket.socket:
        host, _, port = self._address.removeprefix("ws://").rpartition(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        return sock

    def _take(self, frame: dict[str, Any]) -> None:
        if "event" not in frame:
            seq = frame["seq"]
            if seq <= self.last:
                self._sums.wrong.append(f"{seq} came after {self.last}")
            self.last = seq
            self.resume.heard(seq)
            self.end = max(self.end, seq)
            self.delivered += 1
            self.skipped += frame.get("skipped", 0)
            if self._on_message is not None:
                self._on_message(frame)
        elif frame["event"] == "subscribed":
            self.resume.subscribed(frame["position"], frame["from"])
            if self.start is None:
                self.start = self.last = self.end = int(frame["position"].partition(":")[2])
        elif frame["event"] == "gap":
            self._sums.reasons[frame["reason"]] += 1
            if frame.get("lost") is None:
                self._sums.wrong.append(f"a gap of unknown size: {frame}")
            self.lost += frame.get("lost") or 0
            self.end = max(self.end, frame.get("to") or 0)

    def settle(self, owed: int) -> None:
        """Adds what was owed and what came to the sum."""
        if owed != self.delivered + self.skipped + self.lost:
            counted = f"{self.delivered} + {self.skipped} + {self.lost}"
            self._sums.wrong.append(f"{owed} owed, {counted} accounted for, from {self.start} to {self.end}")
        self._sums.received += owed
        self._sums.delivered += self.delivered
        self._sums.skipped += self.skipped
        self._sums.lost += self.lost


class Soak:
    """The whole run."""

    def __init__(self, seconds: float, folder: Path) -> None:
        self.seconds = seconds
        self.broker = MosquittoProcess(folder / "broker", BrokerOptions(autosave=True))
        self.gateway = GatewayProcess(
            folder / "gateway",
            self.broker.url,
            history_bytes="16MiB",
            history_messages=50,
            limit_buffer_bytes="16KiB",
            limit_connections_per_address=5_000,
            limit_commands_per_second=1_000,
        )
        self.sums: dict[str, Sum] = {name: Sum() for name in ("steady", "resuming", "stalling", "short", "conflating")}
        self.memory: list[tuple[float, float]] = []
        self.restarts = 0
        self.by_topic: dict[str, array[int]] = {}
        self.seconds_down = 0.0
        self._end = 0.0
        self._witness: Reader | None = None
        self._chance = random.Random(1)

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    async def run(self) -> None:
        """Everything, for the given time."""
        await asyncio.to_thread(self.broker.start)
        await asyncio.to_thread(self.gateway.start)
        sensors = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sensors_sim", "--devices", str(DEVICES), "--rate", "5", "--seed", "7"),
            *("--broker", self.broker.url, "--quiet"),
            stdout=subprocess.DEVNULL,
        )
        self._end = time.monotonic() + self.seconds
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._steady(), name="steady")
                # first the witness, so that it knows of everything that the others see
                await eventually_async(lambda: self._witness is not None and self._witness.start is not None)
                for number in range(5):
                    group.create_task(self._resuming(), name=f"resuming {number}")
                    group.create_task(self._stalling(), name=f"stalling {number}")
                    group.create_task(self._short(), name=f"short {number}")
                    group.create_task(self._conflating(number), name=f"conflating {number}")
                group.create_task(self._restart_broker(), name="restarts")
                group.create_task(self._watch_memory(), name="memory")
        finally:
            sensors.terminate()
            await sensors.wait()

    async def _steady(self) -> None:
        """Reads everything from beginning to end, and is the witness of what there was."""

        def witness(message: dict[str, Any]) -> None:
            self.by_topic.setdefault(message["topic"], array("Q")).append(message["seq"])

        reader = self._witness = Reader(self.gateway.ws, self.sums["steady"], on_message=witness)
        # longer than the others, so that it has seen what they have
        await reader.read(seconds=self.left + 3, topic="#", since="now")
        await self._settle(reader)

    async def _settle(self, reader: Reader) -> None:
        """Settles a subscriber of `#`, to whom everything was owed.

        After a gap come the last values of all topics; who leaves between them was owed only those that had come, and
        the witness knows how many had not.
        """
        if reader.start is None:
            return
        await self._witnessed(reader.end)
        newest = [seqs[place - 1] for seqs in self.by_topic.values() if (place := bisect_right(seqs, reader.end))]
        owed = reader.end - reader.start
        if reader.delivered + reader.skipped + reader.lost != owed:
            # else history had evicted those last values, too, and the gap told of them
            owed -= sum(seq > reader.last for seq in newest)
        reader.settle(owed)

    async def _resuming(self) -> None:
        reader = Reader(self.gateway.ws, self.sums["resuming"])
        while self.left > 0:
            with contextlib.suppress(ConnectionClosed, InvalidHandshake):
                seconds = min(self.left, self._chance.uniform(1, 10))
                await reader.read(seconds=seconds, topic="#", since=reader.resume.since)
            await asyncio.sleep(self._chance.uniform(0, 3))
        await self._settle(reader)

    async def _stalling(self) -> None:
        while self.left > 0:
            reader = Reader(self.gateway.ws, self.sums["stalling"])
            pause = self._chance.choice([0.005, 0.02, 0.1])
            with contextlib.suppress(ConnectionClosed):
                await reader.read(
                    seconds=min(self.left, self._chance.uniform(5, 40)), pause=pause, small=True, topic="#", since="now"
                )
            await self._settle(reader)

    async def _short(self) -> None:
        while self.left > 0:
            reader = Reader(self.gateway.ws, self.sums["short"])
            with contextlib.suppress(ConnectionClosed):
                await reader.read(seconds=min(self.left, self._chance.uniform(0.01, 0.3)), topic="#", since="now")
            await self._settle(reader)

    async def _conflating(self, number: int) -> None:
        topic = None
        while self.left > 0:
            names = sorted(name for name in self.by_topic if name.endswith("/state"))
            if len(names) < DEVICES:
                await asyncio.sleep(0.1)
                continue
            topic = names[(number * 3) % len(names)]
            break
        while self.left > 0 and topic is not None:
            reader = Reader(self.gateway.ws, self.sums["conflating"])
            with contextlib.suppress(ConnectionClosed):
                seconds = min(self.left, self._chance.uniform(5, 20))
                await reader.read(seconds=seconds, topic=topic, since="now", max_hz=1)
            if reader.start is None or not reader.delivered:
                continue
            await self._witnessed(reader.last)
            seqs = self.by_topic[topic]
            reader.settle(bisect_right(seqs, reader.last) - bisect_right(seqs, reader.start))

    async def _witnessed(self, seq: int) -> None:
        """Returns when the witness has seen this far."""
        await eventually_async(
            lambda: self._witness is not None and self._witness.end >= seq, 30, f"{seq} is witnessed"
        )

    async def _restart_broker(self) -> None:
        while self.left > RESTART_SECONDS / 2:
            await asyncio.sleep(min(RESTART_SECONDS, max(self.left - RESTART_SECONDS / 2, 0)))
            began = time.monotonic()
            await asyncio.to_thread(self.broker.kill if self.restarts % 2 else self.broker.stop)
            await asyncio.sleep(1)
            await asyncio.to_thread(self.broker.start)
            await asyncio.to_thread(self.gateway.wait_ready, 60)
            self.restarts += 1
            self.seconds_down += time.monotonic() - began

    async def _watch_memory(self) -> None:
        began = time.monotonic()
        while self.left > 0:
            self.memory.append((time.monotonic() - began, self.gateway.memory() / 2**20))
            await asyncio.sleep(min(MEMORY_SECONDS, max(self.left, 0.1)))

    def slope(self) -> float:
        """Growth of the second half's memory in MiB an hour, by least squares; the first half fills history."""
        late = self.memory[len(self.memory) // 2 :]
        if len(late) < 3:
            return 0.0
        mean_t = sum(t for t, _ in late) / len(late)
        mean_m = sum(m for _, m in late) / len(late)
        spread = sum((t - mean_t) ** 2 for t, _ in late)
        return sum((t - mean_t) * (m - mean_m) for t, m in late) / spread * 3600

    def report(self, allowed_slope: float) -> bool:
        """Prints it all; whether all is well."""
        print("subscribers   connections   received =  delivered +   skipped +     lost")
        sound = True
        for name, sums in self.sums.items():
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(sums.reasons.items()))
            verdict = "ok" if sums.is_balanced else "WRONG"
            print(
                f"{name:12} {sums.connections:11} {sums.received:10} = {sums.delivered:10} + {sums.skipped:9} + "
                f"{sums.lost:8}  {verdict}{f'  gaps: {reasons}' if reasons else ''}"
            )
            for problem in sums.wrong[:5]:
                print(f"    {problem}")
            sound = sound and sums.is_balanced and sums.received > 0
        slope = self.slope()
        first, last = self.memory[0][1], self.memory[-1][1]
        print(f"broker restarts: {self.restarts}, away for {self.seconds_down:.0f} s in all")
        print(
            f"memory: {first:.1f} MiB at first, {max(m for _, m in self.memory):.1f} at most, {last:.1f} at last; "
            f"slope of the second half {slope:+.1f} MiB/h ({allowed_slope:g} allowed from {SLOPE_SECONDS:g} s on)"
        )
        if slope > allowed_slope and self.seconds >= SLOPE_SECONDS:
            sound = False
        lines = self.gateway.log().splitlines()
        complaints = [line for line in lines if "Traceback" in line or '"level": "error"' in line]
        if complaints:
            sound = False
            print(f"the gateway's log has {len(complaints)} errors, such as: {complaints[0][:300]}")
        print("all is well" if sound else "something is WRONG")
        return sound


def main() -> int:
    """Runs it and says how it went."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (default: 600)")
    parser.add_argument(
        "--slope", type=float, default=30.0, metavar="MIB", help="growth allowed, in MiB an hour (default: 30)"
    )
    options = parser.parse_args()
    if mosquitto_program() is None:
        print("mosquitto is not there: install it (apt install mosquitto, brew install mosquitto)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as name:
        soak = Soak(options.seconds, Path(name))
        try:
            asyncio.run(soak.run())
            sound = soak.report(options.slope)
            if soak.gateway.stop() != 0:
                print("the gateway did not end in order")
                sound = False
        finally:
            soak.gateway.close()
            soak.broker.close()
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())

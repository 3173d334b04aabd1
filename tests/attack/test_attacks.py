"""Hostile clients against a real gateway, while somebody else measures what he feels of them.

He may wait 100 ms for 99 of 100 of his messages and pongs, and a second for an answer over HTTP; and longer, as far as
others on this machine keep him from its processors or make them slow, which he measures, too. Nor may the gateway be
blamed for what keeps it from a processor that it wants: the attack itself, where both share one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.attack.attacks import ATTACKS, Attack
from tests.attack.stages import STAGES, Stage
from tests.attack.target import SECRET, Target
from tests.support.brokers import Broker
from tests.support.waiting import eventually

pytestmark = [pytest.mark.timing, pytest.mark.slow]

TOPIC = "neighbour/beat"
BOUNDS = {"pong": 0.1, "message": 0.1, "list": 1.0, "last": 1.0}
"""So many seconds 99 of 100 may take on a quiet machine: pongs, messages, and answers over HTTP."""

PROCESSES = 4
"""A message goes from him to the broker, the gateway and back: each may be kept from the processor as he was."""

LEAST_SECONDS = 1.5
"""So long he measures at least."""

MOST_SHARERS = 4.0
"""Of a machine that has more to do, nothing can be said."""

QUIET_SECONDS = 0.5
"""So long he looks at least whether it is quiet."""

LOG_BYTES = 64 * 1024

Felt = dict[str, list[float]]


class Neighbour:
    """The program `neighbour`."""

    def __init__(self, stage: Stage, broker: Broker) -> None:
        token = mint(secret_key(SECRET), ttl_seconds=3600, subject="neighbour", subscribe=[TOPIC])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attack.neighbour", stage.gateway.ws, TOPIC, broker.url, str(stage.ca_file)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "NEIGHBOUR_TOKEN": token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> Felt:
        """What he felt since he was asked last."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told: Felt = json.loads(self._process.stdout.readline())
        return told

    def quiet(self) -> Felt:
        """A moment without an attack."""
        self.read()
        return self.read_after(time.monotonic() + QUIET_SECONDS)

    def read_after(self, when: float) -> Felt:
        """What he felt since he was asked last, as soon as it is this time (monotonic) and something has come."""
        felt: Felt = {}
        while True:
            for what, seconds in self.read().items():
                felt.setdefault(what, []).extend(seconds)
            if time.monotonic() >= when and felt.keys() >= BOUNDS.keys():
                return felt
            threading.Event().wait(0.1)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def high(seconds: list[float]) -> float:
    """What 99 of 100 are below; of fewer, the greatest."""
    return sorted(seconds)[math.ceil(len(seconds) * 0.99) - 1]


class Share:
    """How many times longer the gateway's work takes since it is not alone on its processor, from now on."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/schedstat")
        self._before = self._read()

    def _read(self) -> tuple[int, int]:
        """Nanoseconds in which its loop ran, and in which it waited to run."""
        ran, waited = self._file.read_text().split()[:2]
        return int(ran), int(waited)

    def factor(self) -> float:
        (ran, waited), now = self._before, self._read()
        return min(1 + (now[1] - waited) / max(now[0] - ran, 1), MOST_SHARERS)


def complaints(felt: Felt, share: float = 1.0) -> str:
    """What was more than it may be, of a gateway whose work takes `share` times as long."""
    more = PROCESSES * high(felt.get("stolen", [0.0]))
    slow = median(felt.get("slow", [1.0]))
    return ", ".join(
        f"{what}: {high(felt[what]):.3f} s of {len(felt[what])}, {allowed:.3f} allowed"
        for what, allowed in ((what, seconds * slow * share + more) for what, seconds in BOUNDS.items())
        if high(felt[what]) > allowed
    )


class Scene:
    """A gateway on a stage, and the neighbour who watches it."""

    def __init__(self, stage: Stage, neighbour: Neighbour) -> None:
        self.stage = stage
        self.gateway = stage.gateway
        self.neighbour = neighbour


@pytest.fixture(scope="module")
def scenes(mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    with contextlib.ExitStack() as stack:
        yield _Scenes(mosquitto, tmp_path_factory, stack)


class _Scenes(dict[str, Scene]):
    """Each is made when it is asked for first."""

    def __init__(self, broker: Broker, folders: pytest.TempPathFactory, stack: contextlib.ExitStack) -> None:
        super().__init__()
        self._broker, self._folders, self._stack = broker, folders, stack

    def __missing__(self, name: str) -> Scene:
        stage = self._stack.enter_context(STAGES[name](self._folders.mktemp(name), self._broker))
        neighbour = Neighbour(stage, self._broker)
        self._stack.callback(neighbour.close)
        eventually(lambda: "message" in neighbour.read(), 20, "the neighbour gets messages")
        found = self[name] = Scene(stage, neighbour)
        return found


ATTEMPTS = 3
"""The best of so many counts: what others do on this machine is felt, too, but not each time."""


def least_felt(attack: Attack, target: Target, neighbour: Neighbour) -> str | None:
    """Lets an attack be; what the neighbour felt that he should not have, if he did each time."""
    found = ""
    for _ in range(ATTEMPTS):
        # what the last one has left behind is over
        eventually(lambda: complaints(neighbour.quiet()) == "", 60, "it is quiet")
        until, share = time.monotonic() + LEAST_SECONDS, Share(target.gateway.pid)
        attack.run(target)
        felt = neighbour.read_after(until)
        print({what: round(high(seconds), 4) for what, seconds in felt.items()}, f"{share.factor():.2f}")
        found = complaints(felt, share.factor())
        if not found:
            return None
        target.close()
    return found


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_neighbour_does_not_feel_it(attack: Attack, scenes: dict[str, Scene]) -> None:
    scene = scenes[attack.stage]
    gateway = scene.gateway
    target = Target(gateway)
    memory, logged = gateway.memory(), len(gateway.log())
    peak, done = [memory], threading.Event()

    def watch_memory() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], gateway.memory())

    watcher = threading.Thread(target=watch_memory, name="memory")
    watcher.start()
    try:
        try:
            found = least_felt(attack, target, scene.neighbour)
        finally:
            done.set()
            watcher.join()
        print(f"{(peak[0] - memory) / 2**20:.0f} MiB more")
        assert found is None, found
        assert peak[0] - memory <= attack.max_memory, f"{(peak[0] - memory) / 2**20:.0f} MiB more"
        if attack.max_open is not None:
            allowed = attack.max_open
            seconds = scene.stage.handshake_seconds * 5
            eventually(lambda: target.open_sockets() <= allowed, seconds, "all of them are closed")
    finally:
        target.close()
    log = gateway.log()[logged:]
    assert "Traceback" not in log, log[:2_000]
    assert len(log) <= LOG_BYTES, f"{len(log)} bytes logged: {log[:1_000]}"

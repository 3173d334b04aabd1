"""Micro-benchmarks without sockets: what the pure parts execute for one operation.

`python -m benchmarks.micro` prints JSON. Times depend on the machine and on who else uses it; the counts don't, and
are what is compared between commits: Python calls (of Python and of C functions, by `sys.setprofile`), bytecode
instructions (`sys.settrace`), and with `--callgrind` those of the processor (valgrind; the difference of two runs).

    python -m benchmarks.micro --json before.json
    python -m benchmarks.micro --compare before.json

A test holds the counts to `counts.json`, so that what makes a hot path longer shows where changes are reviewed:
`--keep` writes them anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import messages, wire
from gateway.core.history import History
from gateway.core.hub import Hub
from gateway.core.messages import Message, encode_topic
from gateway.core.protocol import CloseCode
from gateway.core.shapes import Mode, Shape
from gateway.core.since import SINCE_NOW
from gateway.core.tries import FilterTrie
from gateway.upstream.packets import PacketReader

COUNTS = Path(__file__).with_name("counts.json")
"""The counts with Python 3.11."""

DEVICES = 100
TIME_MS = 1_790_000_000_000
PAYLOAD = messages.payload(TIME_MS / 1000, 4711, 815)
TOPICS = [messages.topic(device) for device in range(DEVICES)]


class NullSink:
    """A sink whose `write` costs one call of a C function, as the transport's does."""

    def __init__(self) -> None:
        self.write: Callable[[bytes], None] = deque[bytes](maxlen=1).append

    def buffered(self) -> int:
        """Nothing is ever kept."""
        return 0

    def close(self, code: CloseCode, reason: str) -> None:
        """Nothing is open."""


class Turns:
    """The loop's `call_soon`, run by hand."""

    def __init__(self) -> None:
        self.ready: deque[Callable[[], None]] = deque()
        self.now = 0.0

    def clock(self) -> float:
        """Every look at the clock is a second later, so that no flush has to wait."""
        self.now += 1.0
        return self.now

    def call_later(self, delay_seconds: float, function: Callable[[], None]) -> Any:
        """Run in the next turn whatever should wait."""
        del delay_seconds
        self.ready.append(function)

    def run(self) -> None:
        """Run what is ready until nothing is."""
        while self.ready:
            self.ready.popleft()()


def full_history() -> History:
    """Return a log in its steady state: each further message evicts one."""
    history = History()
    for number in range(DEVICES * (history.max_messages + 1)):
        history.append(TOPICS[number % DEVICES], PAYLOAD, TIME_MS)
    return history


def hub_with(sinks: int, shape: Shape | None = None, history: History | None = None) -> tuple[Hub, Turns]:
    """Return a hub with so many subscribers of everything."""
    turns = Turns()
    hub = Hub(
        history or History(),
        call_soon=turns.ready.append,
        call_later=turns.call_later,
        clock=turns.clock,
        wall_clock_ms=lambda: TIME_MS,
        cost_clock=lambda: 0.0,
    )
    for _ in range(sinks):
        subscriber = hub.add(NullSink(), shape=shape)
        hub.subscribe(subscriber, ["sensors/#"], SINCE_NOW)
    turns.run()
    return hub, turns


Operation = Callable[[], object]


def match_cached() -> Operation:
    """Find the groups of a topic that was seen before, among 10,000 filters."""
    trie = _trie()
    trie.match("sensors/77/state")
    return lambda: trie.match("sensors/77/state")


def match_new_topic() -> Operation:
    """Find the groups of a topic that was never seen, among 10,000 filters."""
    trie, numbers = _trie(), iter(range(1 << 60))
    return lambda: trie.match(f"sensors/new-{next(numbers)}/state")


def _trie() -> FilterTrie[int]:
    trie: FilterTrie[int] = FilterTrie()
    for number in range(9_990):
        trie.add(messages.topic(number), number)
    for number, topic_filter in enumerate(["#", "sensors/#", "sensors/+/state", "+/+/state", "+/#"]):
        trie.add(topic_filter, 9_990 + number)
    return trie


def encode_json() -> Operation:
    """Make a message of a JSON payload: envelope and frame."""
    head = encode_topic(TOPICS[0])  # history keeps it
    return lambda: Message.arrived(18_273, TOPICS[0], PAYLOAD, TIME_MS, 0, False, None, head)


def encode_text() -> Operation:
    """Make a message of a payload that is text but not JSON."""
    return lambda: Message.arrived(18_273, TOPICS[0], b"door open since \xc2\xbd hour", TIME_MS)


def encode_binary() -> Operation:
    """Make a message of a payload of 128 bytes that is not text."""
    return lambda: Message.arrived(18_273, TOPICS[0], bytes(range(128, 256)), TIME_MS)


def append() -> Operation:
    """Append a message to a full log: one is evicted."""
    history, numbers = full_history(), iter(range(1 << 60))
    return lambda: history.append(TOPICS[next(numbers) % DEVICES], PAYLOAD, TIME_MS)


def ingest() -> Operation:
    """Take one PUBLISH packet, of 400 that came in one read, to the log; nobody subscribed."""
    hub, turns = hub_with(0, history=full_history())

    def nothing(*_: object) -> None:
        pass

    reader = PacketReader(
        version=5,
        on_message=hub.publish,
        on_special=nothing,
        on_packet=nothing,
        on_error=nothing,
        on_oversize=nothing,
        accepts=bool,
        max_message_bytes=1 << 20,
    )
    reader.plain = frozenset({b""})
    # MQTT 5 has a property length, here 0, between topic and payload.
    packets = b"".join(wire.mqtt_publish(TOPICS[n % DEVICES], b"\x00" + PAYLOAD) for n in range(400))

    def read() -> None:
        reader.feed(packets)
        turns.run()

    return read


def _flush(sinks: int, batch: int, shape: Shape | None = None) -> Operation:
    hub, turns = hub_with(sinks, shape)

    def publish_and_flush() -> None:
        for number in range(batch):
            hub.publish(TOPICS[number % DEVICES], PAYLOAD)
        turns.run()

    return publish_and_flush


CASES: dict[str, tuple[Callable[[], Operation], int]] = {
    "match, cached": (match_cached, 1),
    "match, new topic": (match_new_topic, 1),
    "encode, JSON": (encode_json, 1),
    "encode, text": (encode_text, 1),
    "encode, binary": (encode_binary, 1),
    "append, full log": (append, 1),
    "ingest, 400 in one read": (ingest, 400),
    "flush, 1 sink": (lambda: _flush(1, 1), 1),
    "flush, 100 sinks": (lambda: _flush(100, 1), 1),
    "flush, 10,000 sinks": (lambda: _flush(10_000, 1), 1),
    "flush, 20 messages, 100 sinks": (lambda: _flush(100, 20), 1),
    "flush, max_hz, 20 messages, 100 sinks": (lambda: _flush(100, 20, Shape(max_hz=5.0)), 1),
    "flush, fields, 20 messages, 100 sinks": (lambda: _flush(100, 20, Shape(fields=("temperature",))), 1),
    "flush, deadband, 20 messages, 100 sinks": (lambda: _flush(100, 20, Shape(deadband=0.5)), 1),
    "flush, mean, 20 messages, 100 sinks": (lambda: _flush(100, 20, Shape(mode=Mode.MEAN, max_hz=5.0)), 1),
}
"""Name to what prepares the operation, and how many results one run of it stands for."""


def count_calls(operation: Operation, runs: int) -> tuple[int, int]:
    """Return how many Python and how many C functions were called in so many runs."""
    python = c = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal python, c
        if event == "call":
            python += 1
        elif event == "c_call":
            c += 1

    sys.setprofile(profile)
    try:
        for _ in range(runs):
            operation()
    finally:
        sys.setprofile(None)
    return python, c - 1  # the call that ends it


def count_bytecodes(operation: Operation, runs: int) -> int:
    """Return how many bytecode instructions were executed in so many runs, those of the operation alone."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            count += 1
        return trace

    sys.settrace(trace)
    try:
        for _ in range(runs):
            operation()
    finally:
        sys.settrace(None)
    return count


def count(name: str) -> tuple[Operation, int, dict[str, float]]:
    """Return the operation of a case, how often it was run, and its counts for one result each."""
    prepare, results = CASES[name]
    operation = prepare()
    for _ in range(20):
        operation()
    runs = 8 if "10,000" in name or results > 1 else 200
    python, c = count_calls(operation, runs)
    bytecodes = count_bytecodes(operation, runs)
    per = runs * results
    return (
        operation,
        runs,
        {
            "python_calls": round(python / per, 2),
            "c_calls": round(c / per, 2),
            "bytecodes": round(bytecodes / per, 1),
        },
    )


def measure(name: str) -> dict[str, float]:
    """Return the counts of one case and its time in nanoseconds, best of five, for one result each."""
    operation, runs, counts = count(name)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter_ns()
        for _ in range(runs):
            operation()
        best = min(best, time.perf_counter_ns() - started)
    return {**counts, "nanoseconds": round(best / (runs * CASES[name][1]))}


def count_instructions(name: str) -> int:
    """Return the processor's instructions for one result of a case, by callgrind.

    Two runs that differ in the number of operations cancel what starting and preparing cost.

    Raises:
        FileNotFoundError: there is no valgrind.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise FileNotFoundError("valgrind is not on the PATH")
    few, many = (10, 30) if "10,000" in name or CASES[name][1] > 1 else (50, 250)
    totals = []
    for runs in (few, many):
        command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
        command += ["-m", "benchmarks.micro", "--run", name, "--runs", str(runs)]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stderr
        found = re.search(r"Collected : (\d+)", said)
        if found is None:
            raise RuntimeError(f"valgrind said nothing of instructions: {said[-300:]}")
        totals.append(int(found[1]))
    return round((totals[1] - totals[0]) / (many - few) / CASES[name][1])


def compare(before: dict[str, dict[str, float]], now: dict[str, dict[str, float]]) -> list[str]:
    """Return a line for each count that is not what it was."""
    lines = []
    for name, counts in now.items():
        for what, count in counts.items():
            old = before.get(name, {}).get(what)
            if old is not None and old != count and what != "nanoseconds":
                lines.append(f"{name}: {what} {old:,} → {count:,} ({(count - old) / (old or 1):+.1%})")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Print the counts of all cases, or of those named."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.micro", description=__doc__.split("\n", 1)[0] if __doc__ else ""
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="part of a case's name (default: all)")
    parser.add_argument("--callgrind", action="store_true", help="count the processor's instructions too (slow)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write to a file as well")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="say what differs from an earlier --json FILE")
    parser.add_argument("--keep", action="store_true", help=f"write the counts to {COUNTS.name}")
    parser.add_argument("--run", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.run:
        operation = CASES[options.run][0]()
        for _ in range(options.runs):
            operation()
        return 0
    now: dict[str, dict[str, float]] = {}
    for name in CASES:
        if not options.cases or any(part in name for part in options.cases):
            now[name] = measure(name)
            if options.callgrind:
                now[name]["instructions"] = count_instructions(name)
    text = json.dumps(now, indent=1, ensure_ascii=False)
    print(text)
    if options.keep:
        kept = {name: {what: n for what, n in counts.items() if what != "nanoseconds"} for name, counts in now.items()}
        if options.cases:  # the others stay as they are
            kept = {**json.loads(COUNTS.read_text()), **kept}
        COUNTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    if options.json:
        options.json.write_text(text + "\n")
    if options.compare:
        print("\n".join(compare(json.loads(options.compare.read_text()), now)) or "no count has changed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

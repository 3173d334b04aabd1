"""A run: every client behind its line, the troubles of the plan, and the account of each."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.lines.accounting import Span, Tally, tally
from benchmarks.lines.namespaces import Means, lines
from benchmarks.lines.parts import Client, Kind, Publisher, Server, broker, gateway, socket_io
from benchmarks.lines.plan import Event, Line, Plan, What
from benchmarks.processes import BenchmarkError

__all__ = ["Options", "Outcome", "run"]

SUBSCRIBED_SECONDS = 60.0
LAST_SECONDS = 15.0
"""The longest wait for what was published last."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be run.

    Attributes:
        kinds: The kinds of clients.
        line: What each line does.
        plan: The troubles.
        each: How many clients of each kind.
        rate: Messages a second.
        topics: To how many topics they go, in turn.
        settle: The longest time that is published further until every client is back, in seconds.
        seed: Of the relay's chance.
        settings: Of the gateway, by the names of their variables.
    """

    kinds: tuple[Kind, ...]
    line: Line
    plan: Plan
    each: int = 1
    rate: float = 20.0
    topics: int = 20
    settle: float = 120.0
    seed: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        tallies: The sum for each kind.
        means: What delayed and lost packets.
        packets: Packets that the relay saw and dropped; None with netem.
        restarts: How many seconds it took until each server served again.
    """

    tallies: dict[Kind, Tally]
    means: Means
    packets: dict[str, int] | None
    restarts: dict[str, float]


@dataclass(frozen=True, slots=True)
class Done:
    """A trouble that is over.

    Attributes:
        what: Which one.
        span: When.
        server: Which server it was; None is everybody's line.
    """

    what: What
    span: Span
    server: str | None = None


def run(options: Options, means: Means, directory: Path) -> Outcome:
    """Run all clients at once, in a directory that takes logs and what they heard.

    Raises:
        BenchmarkError: a part did not start, or ended.
    """
    kinds = [kind for kind in options.kinds for _ in range(options.each)]
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(lines(len(kinds), options.line, directory, means=means, seed=options.seed))
        mosquitto = broker(made, directory)
        servers = [gateway(made, directory, options.settings), socket_io(made, directory)]
        for server in (mosquitto, *servers):
            stack.callback(server.stop)
            server.start()
        clients = []
        for number, kind in enumerate(kinds):
            clients.append(Client(made, number, kind, directory))
            stack.callback(clients[-1].stop)
        _await(lambda: all(_is_subscribed(client) for client in clients), SUBSCRIBED_SECONDS)
        if missing := [client.kind.name for client in clients if not _is_subscribed(client)]:
            raise BenchmarkError(f"not subscribed within {SUBSCRIBED_SECONDS:g} s: {', '.join(missing)}")
        publisher = Publisher(made, options.rate, options.topics)
        stack.callback(publisher.stop)
        before = [client.line_bytes() for client in clients]
        publisher.start()

        def restart(server: Server) -> Done:
            began = time.time()
            server.restart()
            return Done(What.BROKER if server is mosquitto else What.SERVER, Span(began, time.time()), server.name)

        def do(event: Event) -> list[Done]:
            match event.what:
                case What.CUT | What.MOVE:
                    began = time.time()
                    made.cut(True)
                    time.sleep(event.seconds)
                    if event.what is What.MOVE:
                        made.move()
                    made.cut(False)
                    return [Done(event.what, Span(began, time.time()))]
                case What.SERVER:
                    with ThreadPoolExecutor() as pool:
                        return list(pool.map(restart, servers))
                case What.BROKER:
                    with publisher.held():
                        return [restart(mosquitto)]

        done = _through(options.plan, do)
        # life goes on until the last one is back: what is dropped for it meanwhile is missing, not late
        _await_number(clients, len(publisher.times) - 1, options.settle)
        publisher.stop()
        _await_number(clients, len(publisher.times) - 1, LAST_SECONDS)
        tallies: dict[Kind, Tally] = {}
        for client, bytes_before in zip(clients, before, strict=True):
            events: dict[str, list[Span]] = {}
            for each in done:
                if each.server is None or each.server in client.kind.behind:
                    events.setdefault(each.what.value, []).append(each.span)
            line_bytes = client.line_bytes() - bytes_before
            account = tally(client.story(), publisher.times, events, line_bytes=line_bytes)
            tallies.setdefault(client.kind, Tally()).add(account)
        restarts = {each.server: each.span.ended - each.span.began for each in done if each.server is not None}
        return Outcome(tallies, means, made.packets(), restarts)


def _is_subscribed(client: Client) -> bool:
    return any(text == "subscribed" for _, text in client.story().states)


def _await_number(clients: list[Client], number: int, seconds: float) -> None:
    _await(lambda: all(client.story().newest >= number for client in clients), seconds)


def _await(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(1)


def _through(plan: Plan, do: Callable[[Event], list[Done]]) -> list[Done]:
    """Go through a plan; return what was done."""
    began = time.monotonic()
    done = []
    for event in plan.events():
        time.sleep(max(0.0, began + event.at - time.monotonic()))
        print(f"{time.monotonic() - began:5.1f} s: {event.what.value}", file=sys.stderr, flush=True)
        done += do(event)
    time.sleep(max(0.0, began + plan.seconds - time.monotonic()))
    return done

"""The client library on the real hub: subscriptions that overlap, cut at any frame, miss nothing.

Nothing here depends on time: the test moves the hub's loop, hands frames over one by one, and cuts between any two.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.filters import FilterSet
from gateway.core.frames import frame_text
from gateway.core.protocol import encode_event
from gateway.core.since import SinceKind, parse_since
from gateway.core.topics import matches
from tests.fakes import FakeLoop, FakeSocket, make_hub
from tests.support.waiting import missing

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "gateway" / "static" / "client.js"
DRIVER = Path(__file__).with_name("resume_driver.mjs")

TOPICS = ["t/a/x", "t/a/y", "t/b/x", "t/b/y", "t/c/x"]
FILTERS = ["t/#", "t/+/x", "t/a/+", "t/a/x", "t/b/x", "t/a/y", "t/b/#", "t/+/y", "t/c/x"]


class Page:
    """A page with the client, the gateway's hub, and the frames and commands that are on their way between them."""

    def __init__(self, driver: subprocess.Popen[str]) -> None:
        self.driver = driver
        self.loop = FakeLoop()
        self.loop.now = 1e6
        self.hub = make_hub(self.loop)
        self.socket: FakeSocket | None = None
        self.commands: list[dict[str, Any]] = []
        self.frames: list[str] = []
        self.taken = 0
        self.messages: list[int] = []
        self.handled: dict[str, list[int]] = {}
        self.told: list[dict[str, Any]] = []
        self.do("connect")
        self.commands.clear()

    def do(self, what: str, **members: Any) -> list[dict[str, Any]]:
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write(json.dumps({"do": what, **members}) + "\n")
        self.driver.stdin.flush()
        happened: list[dict[str, Any]] = json.loads(self.driver.stdout.readline())
        for one in happened:
            match one.pop("type"):
                case "command":
                    self.commands.append(one)
                case "message":
                    self.messages.append(one["seq"])
                case "handled":
                    self.handled.setdefault(one["name"], []).append(one["seq"])
                case type_:
                    self.told.append({"type": type_, **one})
        return happened

    def open(self) -> None:
        self.socket = FakeSocket(self.hub)
        self.taken = 0
        self.do("open")

    def cut(self) -> None:
        assert self.socket is not None
        self.hub.remove(self.socket.subscriber)
        self.commands.clear()
        self.do("cut")
        self.open()

    def follow(self, count: int) -> None:
        """The gateway takes so many commands within one turn of its loop."""
        assert self.socket is not None
        taken, self.commands = self.commands[:count], self.commands[count:]
        for command in taken:
            subscriber, topics, command_id = self.socket.subscriber, command["topics"], command["id"]
            if command["command"] == "unsubscribe":
                answers = [encode_event("unsubscribed", id=command_id, topics=self.hub.unsubscribe(subscriber, topics))]
            else:
                since = parse_since(command["since"], now_ms=self.loop.wall_clock_ms())
                found = self.hub.subscribe(subscriber, topics, since, replay_id=command_id)
                members = {"position": found.position, "recovered": found.recovered, "from": found.after}
                answers = [encode_event("subscribed", id=command_id, topics=topics, **members)]
                if not found.is_replaying:
                    answers.append(encode_event("replayed", id=command_id))
            for answer in answers:
                self.socket.write(frame_text(answer))

    def deliver(self, count: int) -> None:
        """So many frames reach the page."""
        assert self.socket is not None
        frames = self.socket.bodies[self.taken : self.taken + count]
        self.taken += len(frames)
        if frames:
            self.do("frames", frames=[frame.decode() for frame in frames])

    def settle(self) -> None:
        assert self.socket is not None
        for _ in range(20):
            self.follow(99)
            self.loop.run(0.1)
            self.deliver(10_000)
            if not self.commands and self.taken == len(self.socket.bodies):
                return
        raise AssertionError("it does not come to rest")


class Wanted:
    """What a subscription has been promised since it was first answered."""

    def __init__(self, topics: list[str], since: str) -> None:
        self.topics = topics
        self.since = since
        self.after: int | None = None
        self.lasts: set[int] = set()

    def matches(self, topic: str) -> bool:
        return any(matches(topic_filter, topic) for topic_filter in self.topics)

    def ask(self, page: Page) -> None:
        """It is asked for as it was the first time."""
        history = page.hub.history
        if self.since in ("last", "now"):
            self.after = history.seq
            self.lasts = set()
            if self.since == "last":
                self.lasts = {state.last.seq for state in history.topics() if state.last and self.matches(state.name)}
        elif self.after is None:
            since = parse_since(self.since, now_ms=page.loop.wall_clock_ms())
            self.after = since.seq if since.kind is SinceKind.POSITION else history.before_time(since.time)


def story(page: Page, seed: int, *, leaves: bool) -> None:
    """A page's life, drawn from a seed, and what it must have had at its end.

    Args:
        page: the page.
        seed: of the story.
        leaves: whether subscriptions are ended, too; what is subscribed to again is replayed again.
    """
    draw = random.Random(seed)
    wanted: dict[str, Wanted] = {}
    lasts: set[int] = set()

    def publish() -> None:
        page.hub.publish(draw.choice(TOPICS), b"1")

    def subscribe() -> None:
        used = {topic for one in wanted.values() for topic in one.topics}
        free = [topic for topic in FILTERS if topic not in used]
        topics = draw.sample(free, min(len(free), draw.choice([1, 1, 1, 2])))
        since = draw.choice(["last", "last", "now", "2h", "1d", "90m", f"k3f9:{draw.randint(0, page.hub.history.seq)}"])
        name = f"{len(wanted)}-{draw.random()}"
        wanted[name] = Wanted(topics, since)
        page.do("subscribe", name=name, topics=topics, since=since)

    def unsubscribe() -> None:
        name = draw.choice(list(wanted))
        before = len(page.told)
        page.do("unsubscribe", name=name)
        if len(page.told) > before:
            page.told.pop()  # it has no answer yet, so the page has nothing to end it with
        else:
            del wanted[name]

    def follow(count: int) -> None:
        for command in page.commands[:count]:
            for one in wanted.values():
                if command["command"] == "subscribe" and (one.topics, one.since) == (
                    command["topics"],
                    command["since"],
                ):
                    one.ask(page)
                    lasts.update(one.lasts)
        page.follow(count)

    for _ in range(draw.randint(0, 25)):
        if draw.random() < 0.2:
            page.loop.run(3_700)
        publish()
    if draw.random() < 0.3:
        page.loop.run(3 * 3_700)
    if draw.random() < 0.7:
        for _ in range(draw.randint(1, 3)):
            subscribe()
    page.open()
    for _ in range(draw.randint(5, 40)):
        steps = ["subscribe", "unsubscribe", "publish", "follow", "run", "deliver", "cut"]
        match draw.choices(steps, [2, 0.5 if leaves else 0, 4, 4, 4, 4, 1.5])[0]:
            case "subscribe" if len(wanted) < 5:
                subscribe()
            case "unsubscribe" if wanted:
                unsubscribe()
            case "publish":
                for _ in range(draw.randint(1, 3)):
                    publish()
            case "follow":
                follow(draw.choice([1, 2, 9]))
            case "run":
                page.loop.run(0.01)
            case "deliver":
                page.deliver(draw.choice([1, 3, 6, 99]))
            case "cut":
                page.cut()
    follow(99)
    page.settle()
    assert page.told == [], seed
    kept = page.hub.history.read(FilterSet(["#"]), 0, 10**9, max_bytes=10**9).messages
    for name, one in wanted.items():
        assert one.after is not None
        due = one.lasts | {message.seq for message in kept if message.seq > one.after and one.matches(message.topic)}
        assert due <= set(page.messages), f"seed {seed}: {name} {one.topics} since {one.since}"
    twice = {seq for seq in page.messages if page.messages.count(seq) > 1}
    # a last value comes before the history that it is a part of, and once more if that was cut in between
    assert leaves or twice <= lasts, f"seed {seed}"


@pytest.fixture(scope="module")
def driver() -> Iterator[subprocess.Popen[str]]:
    node = shutil.which("node")
    if node is None or not CLIENT.is_file():
        missing("Node.js and the built client library (make web)")
    command = [node, str(DRIVER), CLIENT.as_uri()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.slow
def test_overlapping_subscriptions_that_are_cut_anywhere_miss_nothing(
    driver: subprocess.Popen[str], leaves: bool
) -> None:
    for seed in range(400):
        story(Page(driver), seed, leaves=leaves)

"""The rule by which clients in Python go on, on the real hub: cut at any frame, nothing is missed or given twice."""

from __future__ import annotations

import json
import random

import pytest

from gateway.core.filters import FilterSet
from gateway.core.frames import frame_text
from gateway.core.protocol import encode_event
from gateway.core.resume import Resume
from gateway.core.since import parse_since

from .fakes import FakeLoop, FakeSocket, make_hub

TOPICS = ["t/a/x", "t/a/y", "t/b/x", "u"]
FILTERS = ["t/#", "t/+/x", "t/a/y", "#"]


class Follower:
    """A client that subscribes once on each connection, and hears frame by frame."""

    def __init__(self, since: str | None, topic_filter: str) -> None:
        self.loop = FakeLoop()
        self.loop.now = 1e6
        self.hub = make_hub(self.loop)
        self.resume = Resume(since)
        self.topic_filter = topic_filter
        self.heard: list[int] = []
        self.socket: FakeSocket | None = None
        self.taken = 0
        self.after: int | None = None
        self.lasts: set[int] = set()

    def matching(self) -> list[int]:
        kept = self.hub.history.read(FilterSet([self.topic_filter]), 0, 10**9, max_bytes=10**9).messages
        return [message.seq for message in kept]

    def connect(self) -> None:
        self.socket = FakeSocket(self.hub)
        self.taken = 0
        asked = self.resume.since
        since = parse_since(asked, now_ms=self.loop.wall_clock_ms())
        if asked == "last":
            topics = self.hub.history.topics()
            lasts = {state.last.seq for state in topics if state.last is not None}
            self.lasts = lasts & set(self.matching())
            self.after = None  # nothing was heard yet: it is asked for as it was the first time
        found = self.hub.subscribe(self.socket.subscriber, [self.topic_filter], since, replay_id=1)
        members = {"position": found.position, "from": found.after}
        self.socket.write(frame_text(encode_event("subscribed", id=1, **members)))
        if not found.is_replaying:
            self.socket.write(frame_text(encode_event("replayed", id=1)))

    def cut(self) -> None:
        assert self.socket is not None
        self.hub.remove(self.socket.subscriber)
        self.socket = None

    def hear(self, count: int) -> None:
        assert self.socket is not None
        for body in self.socket.bodies[self.taken : self.taken + count]:
            self.taken += 1
            match json.loads(body):
                case {"event": "subscribed", "position": position, "from": after}:
                    if self.after is None:
                        self.after = after
                    self.resume.subscribed(position, after)
                case {"event": "replayed"}:
                    self.resume.replayed()
                case {"seq": seq}:
                    self.resume.heard(seq)
                    self.heard.append(seq)
                case other:
                    raise AssertionError(other)


@pytest.mark.parametrize("since", [None, "last", "now", "2h", "1d", "k3f9:5"])
def test_a_client_that_is_cut_at_any_frame_misses_nothing_and_hears_nothing_twice(since: str | None) -> None:
    for seed in range(200):
        draw = random.Random(f"{since} {seed}")
        follower = Follower(since, draw.choice(FILTERS))
        for _ in range(draw.randint(5, 25)):
            follower.loop.run(draw.choice([0, 0, 600]))
            follower.hub.publish(draw.choice(TOPICS), b"1")
        follower.connect()
        for _ in range(draw.randint(5, 40)):
            match draw.choices(["publish", "run", "hear", "cut"], [4, 4, 4, 2])[0]:
                case "publish":
                    for _ in range(draw.randint(1, 3)):
                        follower.hub.publish(draw.choice(TOPICS), b"1")
                case "run":
                    follower.loop.run(0.01)
                case "hear":
                    follower.hear(draw.choice([1, 1, 2, 6, 99]))
                case "cut":
                    was_answered = follower.after is not None and follower.resume.since != since
                    follower.cut()
                    if not was_answered:
                        follower.after = None  # nothing has been promised to it yet
                    if draw.random() < 0.5:
                        follower.loop.run(draw.choice([1, 1_200]))
                        follower.hub.publish(draw.choice(TOPICS), b"1")
                    follower.connect()
        follower.loop.run(1)
        follower.hear(10_000)
        assert follower.after is not None
        owed = {seq for seq in follower.matching() if seq > follower.after} | follower.lasts
        assert owed <= set(follower.heard), f"since {since}, seed {seed}"
        assert len(set(follower.heard)) == len(follower.heard), f"since {since}, seed {seed}"


def test_last_values_that_were_answered_but_not_heard_are_asked_for_again() -> None:
    resume = Resume()
    resume.subscribed("k3f9:7", 7)
    assert resume.since == "last"
    resume.heard(3)
    assert resume.since == "k3f9:3"
    resume.replayed()
    assert resume.since == "k3f9:7"
    resume.subscribed("new:2", 0)
    assert resume.since == "new:0"


def test_a_time_back_is_the_time_at_which_it_was_asked_for_first() -> None:
    resume = Resume("10m")
    resume.subscribed("k3f9:7", 2)
    assert resume.since == "k3f9:2"

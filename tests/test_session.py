"""A session on a hub, without a socket: what it says, and what it doesn't wait for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.app import create_app
from gateway.core.frames import unframe
from gateway.core.protocol import CloseCode
from gateway.core.shapes import Format, Shape
from gateway.routes.session import MAX_WAITING, Session
from gateway.settings.table import Settings
from tests.fakes import FakeLoop, make_hub

pytestmark = pytest.mark.anyio


class Sink:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed: tuple[int, str] | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    def buffered(self) -> int:
        return 0

    def close(self, code: CloseCode, reason: str) -> None:
        self.closed = (code, reason)

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in unframe(self.written)]


class Open:
    """An open session, and all around it."""

    def __init__(self, settings: Settings | None = None, shape: Shape | None = None) -> None:
        self.gateway = create_app(settings or Settings()).state.gateway
        self.loop = FakeLoop()
        self.gateway.hub = make_hub(self.loop)
        self.gateway.history = self.gateway.hub.history
        self.gateway.clock = self.loop.clock
        # a token that is judged for ever
        self.gateway.spawn = lambda work, _name: work.close()
        self.sink = Sink()
        principal = self.gateway.guard.policy.anonymous()
        self.session = Session(self.gateway, shape or Shape(), principal, "t-1 127.0.0.1:1")
        self.session.open(self.sink, shape or Shape())

    def ask(self, **command: Any) -> dict[str, Any]:
        self.session.receive(json.dumps(command))
        return self.sink.objects()[-1]


async def test_a_pongs_position_is_one_up_to_which_everything_has_been_written() -> None:
    opened = Open()
    hub = opened.gateway.hub
    hub.publish("a", b"0")
    opened.ask(command="subscribe", topics=["a"])
    assert "position" not in opened.ask(command="ping")  # its last value has not been written yet
    opened.loop.run(1)
    assert opened.ask(command="ping")["position"] == hub.history.position
    before = hub.history.position
    hub.publish("a", b"1")  # waits for the next flush
    assert opened.ask(command="ping")["position"] == before
    opened.loop.run(1)
    hub.publish("elsewhere", b"2")
    assert opened.ask(command="ping")["position"] == hub.history.position
    received = [message["payload"] for message in opened.sink.objects() if "topic" in message]
    assert received == [0, 1]


async def test_a_position_without_filters_is_that_of_the_log() -> None:
    opened = Open()
    opened.gateway.hub.publish("a", b"0")
    assert opened.ask(command="ping")["position"] == opened.gateway.hub.history.position


async def test_who_may_read_nothing_learns_no_position_from_a_pong() -> None:
    opened = Open(Settings(access_secret=SecretStr("0123456789abcdef" * 2)))
    opened.gateway.hub.publish("a", b"1")
    assert "position" not in opened.ask(command="ping")
    opened.session.disconnected()
    opened.session.end()


async def test_commands_behind_a_token_that_is_judged_are_bounded() -> None:
    opened = Open(Settings(access_secret=SecretStr("0123456789abcdef" * 2)))
    opened.session.receive('{"command":"authenticate","token":"x"}')
    for _ in range(MAX_WAITING):
        opened.session.receive('{"command":"ping"}')
    closed = [opened.sink.closed]
    opened.session.receive('{"command":"ping"}')
    closed.append(opened.sink.closed)
    assert closed == [None, (CloseCode.FLOOD, f"more than {MAX_WAITING} commands behind one that takes time")]
    assert opened.sink.written == b""
    opened.session.disconnected()
    opened.session.end()


async def test_a_subscription_that_takes_time_is_answered_before_what_follows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.core.replays.WORK_SECONDS", -1.0)
    monkeypatch.setattr("gateway.core.selection.AT_ONCE", 1)
    monkeypatch.setattr("gateway.core.history.SCAN_LIMIT", 1)
    opened = Open()
    for number in range(20):
        opened.gateway.hub.publish(f"a/{number}", b"1")
    since = f"{opened.gateway.history.epoch}:5"
    opened.session.receive(json.dumps({"command": "subscribe", "topics": ["+/+"], "since": since, "id": 1}))
    opened.session.receive('{"command":"ping","id":2}')
    opened.session.receive('{"command":"unsubscribe","topics":["+/+"],"id":3}')
    assert opened.sink.written == b"", "it is still found out what is missing"
    opened.gateway.hub.publish("a/1", b"2")
    opened.loop.run(1)
    told = [message.get("event") or message["seq"] for message in opened.sink.objects()]
    assert told == ["subscribed", "pong", "replayed", "unsubscribed"]
    assert opened.sink.objects()[0]["recovered"] is True
    assert opened.sink.objects()[0]["from"] == 5


async def test_a_stream_closes_at_a_command_and_says_nothing_in_band() -> None:
    opened = Open(shape=Shape(format=Format.STREAM, field="temperature"))
    opened.session.receive('{"command":"ping"}')
    assert opened.sink.closed == (CloseCode.BAD_REQUEST, "a stream takes no commands; /ws does")
    assert opened.sink.written == b""


async def test_every_command_whose_id_can_be_read_is_answered_with_it() -> None:
    opened = Open(Settings(limit_commands_per_second=10, limit_filters=2))
    bad: list[str | bytes] = [
        '{"id":1,"command":"publish","topic":"a","payload":"\\ud83d"}',
        b'{"id":2,"command":"ping"}',
        '{"id":3,"command":"subscribe","topics":["a","b","c"]}',
        '{"id":4,"command":"subscribe","topics":["a/#/b"]}',
        '{"id":5,"command":"subscribe","topics":["a"],"since":"x"}',
        '{"id":6,"command":"subscribe","topics":["a"],"max_hz":-1}',
        '{"id":7,"command":"publish","topic":"a","payload":1,"encoding":"x"}',
        '{"id":8,"command":"publish","topic":"+","payload":1}',
        '{"command":"subscribe","topics":["' + "x" * 200_000 + '"],"id":9}',
        '{"id":10,"command":"authenticate","token":7}',
    ]
    for number, text in enumerate(bad, start=1):
        opened.session.receive(text)
        answer = opened.sink.objects()[-1]
        assert (answer["event"], answer.get("id")) == ("error", number), answer
    for number in range(11, 40):  # more than it may say
        answer = opened.ask(id=number, command="ping")
        assert answer["id"] == number
    assert opened.sink.objects()[-1]["code"] == "limit"


async def test_who_is_ahead_of_this_node_of_a_cluster_is_sent_away_to_come_back() -> None:
    opened = Open()
    since = f"{opened.gateway.history.epoch}:9"
    refused = opened.ask(command="subscribe", topics=["a"], since=since, id=1)
    assert (refused["code"], opened.sink.closed) == ("bad_since", None), "alone, it is a mistake"
    written = opened.sink.written
    opened.gateway.history.is_followed = True
    opened.session.receive(json.dumps({"command": "subscribe", "topics": ["a"], "since": since, "id": 2}))
    assert opened.sink.closed is not None
    code, reason = opened.sink.closed
    assert CloseCode(code).is_reconnectable
    assert "is ahead of the log" in reason
    assert opened.sink.written == written, "no error that a page would show"

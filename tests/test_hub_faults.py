"""A fault in one group's shape stays in that group: the others get their messages, at once and later."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gateway.core.conditions import ShapeError
from gateway.core.hub import Hub
from gateway.core.protocol import CloseCode
from gateway.core.shapes import Mode, Shape
from gateway.core.since import Since, SinceKind
from tests.fakes import FakeLoop, FakeSocket, make_hub

NOW = Since(SinceKind.NOW)
LAST = Since(SinceKind.LAST)


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def run(loop: FakeLoop, seconds: float = 2.0) -> None:
    end = loop.now + seconds
    while loop.now < end:
        while loop.turn():
            pass
        loop.now += 0.01


def test_whoever_was_removed_stays_so(loop: FakeLoop) -> None:
    hub: Hub = make_hub(loop)
    gone = FakeSocket(hub)
    hub.subscribe(gone.subscriber, ["a", "b"], NOW)
    hub.remove(gone.subscriber)
    hub.subscribe(gone.subscriber, ["#"], LAST)
    hub.unsubscribe(gone.subscriber, ["a"])
    hub.publish("b", b"1")
    run(loop)
    hub.remove(gone.subscriber)
    assert gone.messages == []
    assert (hub.subscriber_count, hub.group_count) == (0, 0)


def fails(*_: Any) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("method", ["offer", "take"])
def test_a_shape_that_fails_closes_its_own_subscribers_only(
    loop: FakeLoop, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub: Hub = make_hub(loop)
    broken, well = FakeSocket(hub, shape=Shape(max_hz=10)), FakeSocket(hub)
    for socket in (broken, well):
        hub.subscribe(socket.subscriber, ["#"], NOW)
    run(loop)
    group = broken.subscriber.group
    assert group is not None
    with monkeypatch.context() as patch:
        patch.setattr("gateway.core.shaper.Shaper." + method, fails)
        hub.publish("a", b"1")
        run(loop)
    hub.publish("a", b"2")
    run(loop)
    assert [message["payload"] for message in well.messages] == [1, 2]
    assert broken.closed is not None
    assert broken.closed[0] is CloseCode.INTERNAL
    assert CloseCode.INTERNAL.is_reconnectable
    assert hub.subscriber_count == 1
    assert "their shape failed" in caplog.text
    assert "a bug" in caplog.text


def test_a_replay_that_fails_closes_its_own_subscriber_only(
    loop: FakeLoop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub: Hub = make_hub(loop)
    hub.publish("a", b"1")
    broken, well = FakeSocket(hub, shape=Shape(max_hz=10)), FakeSocket(hub)
    with monkeypatch.context() as patch:
        patch.setattr("gateway.core.shaper.Shaper.offer", fails)
        hub.subscribe(broken.subscriber, ["#"], LAST)
        hub.subscribe(well.subscriber, ["#"], LAST)
        run(loop)
    assert [message["payload"] for message in well.messages] == [1]
    assert broken.closed is not None
    assert "a replay failed" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.ERROR]


@pytest.mark.parametrize(
    "shape",
    [
        Shape(where="1 / 0 == 1"),
        Shape(where="x % 0 == 1"),
        Shape(where="x / y > 1"),
        Shape(deadband=0.5),
        Shape(deadband=0.5, fields=("x",)),
        Shape(mode=Mode.MEAN),
        Shape(mode=Mode.MINMAX, max_hz=10),
        Shape(fields=("x.y", "z")),
    ],
)
def test_no_payload_breaks_a_shape(loop: FakeLoop, shape: Shape, caplog: pytest.LogCaptureFixture) -> None:
    hub: Hub = make_hub(loop)
    shaped, plain = FakeSocket(hub, shape=shape), FakeSocket(hub)
    for socket in (shaped, plain):
        hub.subscribe(socket.subscriber, ["#"], NOW)
    huge = b"9" * 400
    payloads = [
        b'{"x":1,"y":0}',
        huge,
        b"1.5",
        b'{"x":%b,"y":1.5}' % huge,
        b'{"x":0.5,"y":%b}' % huge,
        b"-1e308",
        b"1e308",
        b"[]",
        b"\xff",
    ]
    for payload in payloads:
        hub.publish("a", payload)
        run(loop, 0.2)
    run(loop)
    assert len(plain.messages) == len(payloads)
    assert shaped.closed is None
    assert not caplog.records


def test_a_condition_that_costs_more_than_its_text_is_refused() -> None:
    for text in ("[1,2].all(a, a > 1)", "payload.matches('(a+)+$')", "x" * 501, "(" * 400, "payload.map(a, a) == x"):
        with pytest.raises(ShapeError):
            Shape(where=text)


def test_whoever_is_sent_away_since_the_log_begins_anew_gets_what_was_pending(loop: FakeLoop) -> None:
    hub: Hub = make_hub(loop)
    sockets = [FakeSocket(hub) for _ in range(300)]  # more than are written to in one turn
    slow = FakeSocket(hub, shape=Shape(max_hz=0.01))
    for socket in (*sockets, slow):
        hub.subscribe(socket.subscriber, ["#"], NOW)
    run(loop)
    for payload in (b"1", b"2"):
        hub.publish("a", payload)
    hub.begin_anew()
    assert all(socket.seqs == [1, 2] for socket in sockets)
    assert slow.seqs[-1] == 2
    run(loop)
    assert hub.group_count == 0

"""shaping: the work of shapes is bounded while it is done and paid for by those who asked; nobody else waits for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway.access.budget import ADDRESS, Accounts, Tariff
from gateway.core.fields import MAX_VALUES
from gateway.core.hub import Hub
from gateway.core.messages import Message
from gateway.core.rotation import Rotation
from gateway.core.shaper import Shaper
from gateway.core.shapes import Mode, Shape
from gateway.core.shaping import SHAPING_SECONDS
from gateway.core.since import SINCE_NOW, Since, SinceKind
from tests.fakes import FakeLoop, FakeSocket, make_hub

WORK_SECONDS = 0.004


class Work:
    """Processor time: each message that a shaper is given takes 4 ms, each flush of a shape nothing."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.shapes: list[Shape] = []

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    work = Work()
    offer = Shaper.offer

    def toil(shaper: Shaper, message: Message) -> None:
        work.seconds += WORK_SECONDS
        work.shapes.append(shaper.shape)
        offer(shaper, message)

    with monkeypatch.context() as patch:
        patch.setattr(Shaper, "offer", toil)
        patch.setattr("gateway.core.shaping.SAMPLE", 1)
        yield work


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def viewers(hub: Hub, count: int, accounts: Accounts | None = None, address: str = "10.0.0.1") -> list[FakeSocket]:
    """As many subscribers, each with a shape of its own."""
    sockets = []
    for number in range(count):
        socket = FakeSocket(hub, shape=Shape(deadband=number / 1_000 + 0.1))
        if accounts is not None:
            socket.subscriber.payer = accounts.payer(address)
        hub.subscribe(socket.subscriber, ["a"], SINCE_NOW)
        sockets.append(socket)
    return sockets


def test_one_message_over_many_groups_gives_the_loop_back(loop: FakeLoop, work: Work) -> None:
    hub = make_hub(loop, cost_clock=work)
    sockets, plain = viewers(hub, 60), FakeSocket(hub)
    hub.subscribe(plain.subscriber, ["a"], SINCE_NOW)
    loop.run()
    hub.publish("a", b"1")
    longest = work.seconds
    assert longest <= SHAPING_SECONDS + WORK_SECONDS
    while True:
        before = work.seconds
        if not loop.turn():
            break
        longest = max(longest, work.seconds - before)
        assert plain.messages, "who wants no shape waits for none"
        loop.now += 0.001
    assert longest <= SHAPING_SECONDS + WORK_SECONDS
    loop.run(1)
    assert [socket.seqs for socket in sockets] == [[1]] * 60


def test_who_was_put_off_gets_all_in_order(loop: FakeLoop, work: Work) -> None:
    hub = make_hub(loop, cost_clock=work)
    sockets = viewers(hub, 20)
    loop.run()
    for number in range(5):
        hub.publish("a", b"%d" % number)
        hub.publish("b", b"1")
    assert hub.counts(sockets[-1].subscriber) == (0, 0, 0)
    loop.run(2)
    assert [socket.seqs for socket in sockets] == [[1, 3, 5, 7, 9]] * 20
    assert {hub.counts(socket.subscriber) for socket in sockets} == {(5, 0, 0)}


def test_what_history_has_let_go_of_before_its_turn_is_told(loop: FakeLoop, work: Work) -> None:
    hub = make_hub(loop, cost_clock=work, max_messages=5)
    sockets = viewers(hub, 20)
    loop.run()
    for number in range(50):
        hub.publish("a", b"%d" % number)
    loop.run(2)
    for socket in sockets:
        assert len(socket.seqs) + socket.told_lost == 50
        assert socket.seqs[-1] == 50
    assert sockets[-1].told_lost > 0


def test_an_address_with_many_shapes_waits_for_itself_and_no_other(loop: FakeLoop, work: Work) -> None:
    hub = make_hub(loop, cost_clock=work)
    accounts = Accounts(loop.clock, tariff=Tariff(1e9, 1e9, 1e9, 1e9))
    viewers(hub, 200, accounts)
    [neighbour] = viewers(hub, 1, accounts, "10.0.0.2")
    loop.run()
    hub.publish("a", b"1")
    for _ in range(4):
        loop.turn()
        loop.now += 0.05
    loop.turn()
    assert neighbour.seqs == [1]
    assert len(work.shapes) < 30


def test_those_who_asked_for_a_shape_pay_for_it_and_wait_while_they_owe(loop: FakeLoop, work: Work) -> None:
    hub = make_hub(loop, cost_clock=work)
    accounts = Accounts(loop.clock, tariff=Tariff(processor=0.25, frames=1, size=1, burst_seconds=0.04))
    [one] = viewers(hub, 1, accounts)
    [other] = viewers(hub, 1, accounts, "10.0.0.2")
    loop.run()
    for number in range(10):
        hub.publish("a", b"%d" % number)
        loop.run()
    assert 0 < len(one.seqs) < 10
    assert accounts.wait("10.0.0.1") > 0
    assert one.seqs == other.seqs, "one group, as they want the same"
    loop.run(1)
    assert one.seqs == list(range(1, 11))
    assert accounts.wait("10.0.0.1") == accounts.wait("10.0.0.2")


def test_a_group_goes_on_while_one_of_its_members_owes_nothing(loop: FakeLoop, work: Work) -> None:
    hub = make_hub(loop, cost_clock=work)
    accounts = Accounts(loop.clock)
    [one], [other] = viewers(hub, 1, accounts), viewers(hub, 1, accounts, "10.0.0.2")
    accounts.spend("10.0.0.1", processor=100)
    loop.run()
    for number in range(5):
        hub.publish("a", b"%d" % number)
        loop.run()
    assert one.seqs == other.seqs == [1, 2, 3, 4, 5]


def test_a_payload_is_read_once_for_all_groups(loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub(loop)
    shapes = [Shape(mode=Mode.MEAN, max_hz=number + 1.0) for number in range(10)]
    shapes += [Shape(mode=Mode.MINMAX, max_hz=number + 1.0) for number in range(10)]
    shapes += [Shape(deadband=number + 1.0) for number in range(10)]
    shapes += [Shape(where=f"x > {number}") for number in range(10)]
    shapes += [Shape(fields=("x", f"y{number}")) for number in range(10)]
    for shape in shapes:
        hub.subscribe(FakeSocket(hub, shape=shape).subscriber, ["a"], SINCE_NOW)
    loop.run()
    read: list[int] = []
    value = Message.value

    def noted(message: Message) -> object:
        read.append(message.seq)
        return value(message)

    with monkeypatch.context() as patch:
        patch.setattr(Message, "value", noted)
        hub.publish("a", b'{"x":1}')
        loop.run()
    assert read == [1]


def shaped(shape: Shape, *payloads: object) -> list[dict[str, object]]:
    shaper = Shaper(shape)
    for seq, payload in enumerate(payloads, start=1):
        shaper.offer(Message.arrived(seq, "a", json.dumps(payload).encode(), 0))
    return [json.loads(frame[frame.index(b"{") :]) for frame in shaper.take()]


MANY = {f"n{number}": number for number in range(MAX_VALUES + 1)}


@pytest.mark.parametrize("mode", [Mode.MEAN, Mode.MINMAX])
def test_a_payload_with_too_many_numbers_stands_for_itself(mode: Mode) -> None:
    [one] = shaped(Shape(mode=mode), MANY, {**MANY, "n0": 7})
    assert one["payload"] == {**MANY, "n0": 7}
    assert one["skipped"] == 1
    few = {name: number for name, number in MANY.items() if number > 1}
    [one] = shaped(Shape(mode=mode), few)
    assert (one["mode"], one["count"]) == (mode.value, 1)


def test_a_payload_with_too_many_numbers_is_news_when_anything_changed() -> None:
    assert len(shaped(Shape(deadband=5), MANY, MANY, {**MANY, "n0": 1})) == 2
    assert len(shaped(Shape(deadband=5, fields=("n0",)), MANY, MANY, {**MANY, "n0": 1})) == 1


def test_a_line_takes_addresses_in_turn_and_each_of_them_in_order() -> None:
    line: Rotation[str] = Rotation()
    for item in ("a1", "a2", "a3", "b1", "b2", "n1"):
        line.add(None if item[0] == "n" else item[0], item)
    assert line.size == 6
    assert [line.next() for _ in range(4)] == ["a1", "b1", "n1", "a2"]
    line.add("c", "c1")
    assert [line.next() for _ in range(3)] == ["b2", "a3", "c1"]
    with pytest.raises(KeyError):
        line.next()


def test_replays_of_an_address_wait_for_its_own_and_not_those_of_others(loop: FakeLoop) -> None:
    def clock() -> float:
        loop.now += 0.001  # a turn is over after two steps
        return loop.now

    loop.clock = clock  # type: ignore[method-assign]
    hub = make_hub(loop)
    accounts = Accounts(loop.clock)
    for number in range(500):
        hub.publish("a", b"%d" % number + b" " * 4_000)

    def joined(address: str) -> FakeSocket:
        socket = FakeSocket(hub)
        socket.subscriber.payer = accounts.payer(address)
        hub.subscribe(socket.subscriber, ["a"], Since(SinceKind.TIME, time=0))
        return socket

    many = [joined("10.0.0.1") for _ in range(50)]
    neighbour = joined("10.0.0.2")
    while len(neighbour.seqs) < 500:
        assert loop.turn()
    assert sum(len(socket.seqs) == 500 for socket in many) <= 1
    assert sum(len(socket.seqs) for socket in many) <= 2 * 500


def test_a_replay_that_is_shaped_for_one_is_charged_to_it(loop: FakeLoop, work: Work) -> None:
    hub = make_hub(loop, cost_clock=work)
    accounts = Accounts(loop.clock)
    for number in range(100):
        hub.publish("a", b"%d" % number)
    socket = FakeSocket(hub, shape=Shape(deadband=0.1))
    socket.subscriber.payer = accounts.payer("10.0.0.1")
    hub.subscribe(socket.subscriber, ["a"], Since(SinceKind.TIME, time=0))
    loop.run()
    assert len(socket.seqs) == 100
    full = ADDRESS.burst_seconds
    assert accounts.wait("10.0.0.1", full) == pytest.approx(100 * WORK_SECONDS / ADDRESS.processor)

"""Acknowledgements wait for the disk, in order, and never wait for nothing."""

from __future__ import annotations

from collections.abc import Callable

from gateway.upstream.acknowledging import (
    HURRY_SECONDS,
    LEAST_WINDOW,
    PING_SECONDS,
    PINGREQ,
    Acknowledgements,
    Unacknowledged,
)
from tests.fakes import FakeLoop


class Disk:
    """A keeper that settles when told."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.hurries = 0
        self.ended: list[bytes] = []
        self.identified: list[bytes] = []

    def when_settled(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def rest_seconds(self, *, has_all: bool = False) -> float:
        return 0

    def identify(self, packets: list[bytes]) -> None:
        self.identified += packets

    def hurry(self) -> None:
        self.hurries += 1

    def end_exchanges(self, identifiers: list[bytes]) -> None:
        self.ended += identifiers

    def begin_session(self) -> None:
        pass

    def settle(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Bench:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.disk = Disk()
        self.written: list[bytes] = []
        self.unacknowledged = Unacknowledged()
        self.connect()

    def connect(self) -> None:
        self.held = Acknowledgements(
            self.disk,
            self.unacknowledged,
            write=self.written.append,
            clock=self.loop.clock,
            call_later=self.loop.call_later,
        )
        self._next = 0

    def arrive(self, count: int, first: int | None = None) -> None:
        if first is not None:
            self._next = first - 1
        for _ in range(count):
            self._next = self._next % 65_535 + 1
            self.held.hold([b"\x40\x02" + self._next.to_bytes(2, "big")])

    def known(self) -> list[int]:
        """What would be taken for a repetition."""
        return [number for number in range(1, 65_536) if number.to_bytes(2, "big") in self.unacknowledged]

    def settle_in_silence(self) -> None:
        self.loop.run(1.0)
        self.disk.settle()


def test_what_is_sent_again_is_acknowledged_and_not_identified_once_more() -> None:
    bench = Bench()
    first, second, new = b"\x40\x02\x00\x01", b"\x40\x02\x00\x02", b"\x40\x02\x00\x03"
    bench.held.hold([first, second])
    bench.held.close()
    bench.connect()
    bench.held.hold([first, second, new], [b"\0\1", b"\0\2"])
    assert bench.disk.identified == [first, second, new]
    # so a successor, who is told what was identified, sees identifiers that rise
    inherited = Unacknowledged()
    before = None
    for packet in bench.disk.identified:
        inherited.written(inherited.add([packet[2:4]], before))
        before = packet[2:4]
    assert b"\0\3" in inherited
    bench.disk.settle()
    assert bench.written == [first + second + new]


def test_what_arrived_is_acknowledged_when_it_is_settled_in_order() -> None:
    bench = Bench()
    bench.held.hold([b"\x40\x02\x00\x01", b"\x50\x02\x00\x02"])
    bench.held.hold([b"\x40\x02\x00\x03"])
    assert bench.written == []
    assert bench.known() == [1, 3]
    bench.disk.settle()
    assert bench.written == [b"\x40\x02\x00\x01\x50\x02\x00\x02", b"\x40\x02\x00\x03"]


def test_an_acknowledgement_has_arrived_when_a_ping_behind_it_is_answered() -> None:
    bench = Bench()
    bench.arrive(2)
    bench.disk.settle()
    bench.held.pinged()  # the client's own, for keep-alive
    bench.arrive(1)
    bench.disk.settle()
    bench.loop.run(PING_SECONDS)
    assert bench.known() == [1, 2, 3]
    assert PINGREQ not in bench.written  # one at a time
    bench.held.answered([])
    assert bench.known() == [3]
    bench.loop.run(PING_SECONDS)
    assert bench.written[-1] == PINGREQ
    bench.held.answered([])
    assert len(bench.unacknowledged) == 0
    bench.loop.run(10)
    assert bench.written.count(PINGREQ) == 1


def test_an_acknowledgement_that_was_on_the_way_when_the_line_was_cut_is_not_counted_upon() -> None:
    bench = Bench()
    bench.arrive(3)
    bench.disk.settle()
    bench.arrive(2)
    bench.held.close()
    bench.disk.settle()
    bench.connect()
    assert bench.known() == [1, 2, 3, 4, 5]
    bench.arrive(3, first=3)  # the broker had two of them
    assert bench.known() == [1, 2, 3, 4, 5]
    bench.disk.settle()
    bench.loop.run(PING_SECONDS)
    bench.held.answered([])
    assert bench.known() == []  # the other two will never be sent again


def test_a_message_that_comes_under_an_identifier_again_is_not_forgotten_with_the_one_before() -> None:
    bench = Bench()
    bench.arrive(2, first=65_534)
    bench.disk.settle()
    bench.loop.run(PING_SECONDS)
    bench.arrive(65_535)  # round once
    bench.held.answered([])
    assert len(bench.known()) == 65_535


def test_where_identifiers_come_again_at_once_only_what_waits_is_known() -> None:
    bench = Bench()
    bench.arrive(3)
    bench.disk.settle()
    bench.arrive(2, first=1)  # the lowest that are free
    assert bench.known() == [1, 2]
    bench.disk.settle()
    assert bench.known() == []
    bench.unacknowledged.clear()
    bench.arrive(2)
    bench.disk.settle()
    assert bench.known() == [3, 4]  # another session, perhaps of another broker


def test_the_end_of_an_exchange_waits_for_nothing() -> None:
    bench = Bench()
    bench.held.hold([b"\x40\x02\x00\x01", b"\x70\x02\x00\x09"])
    assert bench.written == [b"\x70\x02\x00\x09"]
    bench.held.hold([b"\x70\x02\x00\x0a"])
    assert len(bench.disk.calls) == 1


def test_what_can_not_be_written_any_more_is_still_known() -> None:
    bench = Bench()
    bench.arrive(2)
    bench.held.close()
    bench.disk.settle()
    assert bench.written == []
    assert bench.known() == [1, 2]


def test_a_broker_that_waits_for_acknowledgements_is_not_kept_waiting_again() -> None:
    bench = Bench()
    bench.arrive(20)
    bench.settle_in_silence()
    assert bench.held.window == 20
    bench.arrive(19)
    bench.loop.run()
    assert bench.disk.hurries == 0
    bench.arrive(1)
    bench.loop.run()
    assert bench.disk.hurries == 1
    bench.disk.settle()
    bench.arrive(20)
    bench.loop.run()
    assert bench.disk.hurries == 1  # not too often
    bench.loop.run(HURRY_SECONDS)
    assert bench.disk.hurries == 2


def test_a_broker_that_sends_more_was_not_waiting() -> None:
    bench = Bench()
    bench.arrive(20)
    bench.settle_in_silence()
    bench.arrive(21)
    assert bench.held.window is None
    bench.disk.settle()
    bench.arrive(500)
    bench.loop.run()
    assert bench.disk.hurries <= 1


def test_few_messages_and_a_steady_flow_teach_nothing() -> None:
    bench = Bench()
    bench.arrive(LEAST_WINDOW - 1)
    bench.settle_in_silence()
    assert bench.held.window is None
    bench.arrive(100)
    bench.disk.settle()
    assert bench.held.window is None

"""What a server pushes of the log: whatever is missing, late or forged, entries are read in a row, and all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cluster.entries import NOTHING, Id
from gateway.cluster.pushes import PUSHED_ENTRIES, Pushes

LOG = [(Id(seq), b"%d \r\n" % seq) for seq in range(1, 200)]
ALL = 1_000


def push(before: Id, at: Id, data: bytes) -> bytes:
    """What the server pushes of an entry behind another one."""
    return b"%b %b %b" % (str(before).encode(), str(at).encode(), data)


def pushed(pushes: Pushes, first: int, last: int) -> None:
    """Entries of the log as they are pushed."""
    for seq in range(first, last + 1):
        pushes.take(push(Id(seq - 1), *LOG[seq - 1]))


def test_what_is_pushed_behind_what_was_read_is_read_once() -> None:
    pushes = Pushes()
    pushed(pushes, 1, 3)
    assert pushes.read(NOTHING, ALL) is None  # nobody knows of what was before
    pushes.begin(Id(3))
    assert pushes.read(Id(3), ALL) == []
    pushed(pushes, 4, 6)
    assert pushes.read(Id(3), 2) == LOG[3:5]
    assert pushes.read(Id(5), ALL) == LOG[5:6]
    assert pushes.read(Id(6), ALL) == []
    assert pushes.is_near


def test_an_entry_without_messages_has_its_place() -> None:
    pushes = Pushes()
    pushes.begin(Id(3))
    pushes.take(push(Id(3), Id(3, 1), b""))
    pushes.take(push(Id(3, 1), Id(4), b"x"))
    assert pushes.read(Id(3), ALL) == [(Id(3, 1), b""), (Id(4), b"x")]


@pytest.mark.parametrize(
    "other",
    [push(Id(4), *LOG[4]), push(NOTHING, *LOG[0]), b"", b"3-0", b"3-0 4-0", b"3-0 x x", b" 4-0 x", b"\xff \xff \xff"],
)
def test_what_does_not_follow_has_the_stream_asked(other: bytes) -> None:
    pushes = Pushes()
    pushes.begin(Id(3))
    pushes.take(other)
    assert pushes.read(Id(3), ALL) is None
    assert not pushes.is_near  # it is to be read to its end first
    pushed(pushes, 4, 5)
    assert pushes.read(Id(3), ALL) is None


def test_who_reads_from_elsewhere_is_told_to_ask() -> None:
    pushes = Pushes()
    pushes.begin(Id(3))
    pushed(pushes, 4, 5)
    assert pushes.read(Id(4), ALL) is None
    assert not pushes.is_near


@pytest.mark.parametrize("tail", [Id(6), Id(4), None])
def test_an_entry_that_was_not_pushed_is_missed_when_the_server_says_how_long_the_stream_is(tail: Id | None) -> None:
    pushes = Pushes()
    pushes.begin(Id(3))
    pushed(pushes, 4, 5)
    pushes.check(Id(5))
    assert pushes.read(Id(3), 1) == LOG[3:4]
    pushes.check(tail)
    assert pushes.read(Id(4), ALL) is None


def test_an_empty_stream_has_an_end_too() -> None:
    pushes = Pushes()
    pushes.begin(NOTHING)
    pushes.check(None)
    assert pushes.read(NOTHING, ALL) == []


def test_what_nobody_reads_has_a_bound() -> None:
    pushes = Pushes()
    pushes.begin(NOTHING)
    pushed(pushes, 1, PUSHED_ENTRIES)
    pushes.check(Id(PUSHED_ENTRIES))
    pushed(pushes, PUSHED_ENTRIES + 1, PUSHED_ENTRIES + 1)
    assert pushes.read(NOTHING, ALL) is None
    assert pushes._entries == []


@given(st.lists(st.sampled_from(["append", "append", "miss", "look", "read", "read"]), max_size=80), st.integers(1, 5))
def test_whatever_is_missing_all_is_read_in_order_once(steps: list[str], count: int) -> None:
    """As `Server` uses it: the stream is asked where it has to be, and says how it ends now and then."""
    pushes, end, read = Pushes(), 0, 0

    def read_on() -> None:
        nonlocal read
        found = pushes.read(Id(read), count)
        if found is None:
            found = LOG[read:end][:count]
            if len(found) < count:
                pushes.begin(found[-1][0] if found else Id(read))
        assert found == LOG[read : read + len(found)]
        read += len(found)

    for step in [*steps, "look"]:
        match step:
            case "append":
                end += 1
                pushed(pushes, end, end)
            case "miss":
                end += 1
            case "look":
                pushes.check(Id(end))
            case "read":
                read_on()
    for _ in range(end + 2):
        read_on()
    assert read == end

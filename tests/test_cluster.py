"""Entries of the shared log, what a leader makes of arrivals, and how what was read stands to the stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.cluster.entries import FORM, NOTHING, Entry, EntryError, Id, Row, decode, encode, flags_of
from gateway.cluster.follower import (
    CHUNK_BYTES,
    ENTRY_BYTES,
    INHERITED_IDENTIFIERS,
    Extent,
    Follower,
    Inherited,
    MisfitError,
    Standing,
)
from gateway.cluster.leading import AHEAD_SECONDS, ENTRY_ROWS, Leading
from gateway.cluster.log import HubLog
from gateway.cluster.views import Led, Meta, Reason, View, why_anew
from gateway.core.history import History
from gateway.core.protocol import ProtocolError
from gateway.core.since import BEHIND, parse_since
from tests.fakes import FakeLoop, FakeSocket, make_hub

IDENTIFIERS = st.lists(st.binary(min_size=2, max_size=2), max_size=5).map(b"".join)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": st.text(max_size=5),
        "correlation_data": st.binary(max_size=5),
        "user_properties": st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=3),
        "message_expiry_interval": st.integers(0, 2**32 - 1),
    },
)
ROWS = st.builds(
    Row,
    st.text(min_size=1, max_size=10),
    st.binary(max_size=20),
    st.integers(-(10**9), 10**9),
    st.builds(flags_of, st.integers(0, 2), st.booleans()),
    st.none() | PROPERTIES,
)
ENTRIES = st.builds(
    Entry,
    st.just(FORM),
    st.text("abc123", min_size=1, max_size=6),
    st.text("abc123", max_size=6),
    st.integers(1, 2**53),
    st.integers(0, 2**45),
    st.lists(ROWS, max_size=5),
    IDENTIFIERS,
    IDENTIFIERS,
    IDENTIFIERS,
    st.booleans(),
    st.lists(st.text(min_size=1, max_size=5), max_size=2),
    st.booleans(),
)
META = Meta("e1", Id(0, 1), "t1", "n1", 0, "s1", Id(5))
VIEW = View(META, None, 0, Id(0, 1), Id(5), "s1")


@given(entry=ENTRIES)
def test_an_entry_comes_back_with_all_that_its_messages_came_with(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@given(data=st.binary(max_size=30))
@example(data=b"\x94\x00\xa8\x00\x00\x00\x00\x00\x00\x00\x80")  # a text that is no UTF-8
def test_other_bytes_are_no_entry(data: bytes) -> None:
    with pytest.raises(EntryError):
        decode(data)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(FORM, "e", "t", 1, 2**63),
        Entry(FORM, "e", "t", 1, -1),
        Entry(FORM, "e", "t", 2**63),
        Entry(FORM, "e", "t", -1),
        Entry(FORM, "e", "t", 1, 0, [Row("a", b"", 2**62)]),
        Entry(FORM, "e", "t", 1, 0, [Row("a", b"", -(2**62))]),
        Entry(FORM, "e", "t", 1, 0, [Row("a", b"", 0, 2**40)]),
        Entry(FORM, "e", "t", 1, 0, [Row("", b"")]),
    ],
)
def test_an_entry_that_no_log_can_hold_is_refused(entry: Entry) -> None:
    with pytest.raises(EntryError):
        decode(encode(entry))


def test_an_entry_of_another_form_says_which() -> None:
    with pytest.raises(EntryError, match="the form 2, known is 1"):
        decode(encode(Entry(2, "e", "t", 1)))


@given(seq=st.integers(0, 2**53), sub=st.integers(0, 2**20))
def test_ids_are_written_as_a_stream_has_them(seq: int, sub: int) -> None:
    assert Id.parse(str(Id(seq, sub))) == Id.parse(str(Id(seq, sub)).encode()) == Id(seq, sub)
    assert Id(seq, sub) < Id(seq, sub).following < Id(seq + 1)


# epochs


@pytest.mark.parametrize(
    ("view", "led", "read", "why"),
    [
        (VIEW, None, Id(5), None),
        (VIEW, None, None, None),
        (replace(VIEW, meta=None, tail=None), None, None, Reason.FIRST),
        (replace(VIEW, meta=None, tail=None), None, Id(5), Reason.GONE),
        (replace(VIEW, tail=None), None, Id(5), Reason.GONE),
        (replace(VIEW, tail=Id(4)), None, Id(3), Reason.LOST),
        (VIEW, None, Id(6), Reason.LOST),
        (replace(VIEW, server="s2"), None, Id(5), Reason.RESTARTED),
        (replace(VIEW, server="s2"), Led("t0", (Id(5),)), Id(5), Reason.RESTARTED),
        (replace(VIEW, server="s2"), Led("t1", (Id(4), Id(5))), Id(5), None),
        (replace(VIEW, server="s2"), Led("t1", (Id(6), Id(7))), Id(5), Reason.LOST),
        (VIEW, Led("t1", (Id(6),)), Id(5), Reason.LOST),
    ],
)
def test_an_epoch_goes_on_only_where_nothing_of_it_can_be_missing(
    view: View, led: Led | None, read: Id | None, why: str | None
) -> None:
    assert why_anew(view, led, read) == why


# following


def followed(*ids: Id) -> Follower:
    follower = Follower(Extent(10**9, 10**9))
    follower.begin(META)
    seq = 0
    for at in ids:
        follower.take(at, Entry(FORM, "e1", "t1", seq + 1, rows=[Row("t", b"")] * (at.seq - seq)), 1)
        seq = at.seq
    return follower


def test_entries_that_do_not_follow_each_other_are_refused() -> None:
    follower = followed(Id(0, 1), Id(2), Id(5))
    for at, entry in [
        (Id(7), Entry(FORM, "e1", "t1", 7, rows=[Row("t", b"")])),  # a hole
        (Id(6), Entry(FORM, "e2", "t1", 6, rows=[Row("t", b"")])),  # another epoch
        (Id(7), Entry(FORM, "e1", "t1", 6, rows=[Row("t", b"")])),  # it says another number
        (Id(5), Entry(FORM, "e1", "t1", 6)),  # the same again
    ]:
        with pytest.raises(MisfitError):
            follower.take(at, entry, 1)
    follower.take(Id(6), Entry(FORM, "e1", "t2", 6, rows=[Row("t", b"")]), 1)
    assert (follower.position, follower.token) == (Id(6), "t2")


def test_what_came_before_an_epoch_began_belongs_to_it() -> None:
    follower = Follower(Extent(10**9, 10**9))
    follower.begin(replace(META, epoch="e2", base=Id(5, 1)))
    follower.take(Id(5), Entry(FORM, "e1", "t1", 5, rows=[Row("t", b"")]), 1)
    follower.take(Id(5, 1), Entry(FORM, "e2", "t2", 6), 1)
    with pytest.raises(MisfitError):
        follower.take(Id(6), Entry(FORM, "e1", "t1", 6, rows=[Row("t", b"")]), 1)


def test_what_stands_before_an_epoch_began_and_is_of_none_that_it_goes_on_from_is_of_another_log() -> None:
    follower = Follower(Extent(10**9, 10**9))
    follower.begin(replace(META, epoch="e2", base=Id(5, 1), before=(("e1", 4),)))
    for at, epoch in ((Id(1), "e3"), (Id(5), "e1")):
        with pytest.raises(MisfitError):
            follower.take(at, Entry(FORM, epoch, "t1", at.seq, rows=[Row("t", b"")]), 1)
    follower.take(Id(4), Entry(FORM, "e1", "t1", 4, rows=[Row("t", b"")]), 1)


def test_an_epoch_takes_over_no_more_of_those_before_than_there_is() -> None:
    meta = replace(META, epoch="e3", before=(("e1", 4), ("e2", 9)))
    assert meta.descent(7) == (("e1", 4), ("e2", 7), ("e3", 7))


@pytest.mark.parametrize(
    ("view", "found", "standing"),
    [
        (VIEW, Entry(FORM, "e1", "t1", 5), Standing.FITS),
        (VIEW, Entry(FORM, "e1", "t2", 5), Standing.WAIT),  # another one of that number
        (VIEW, None, Standing.WAIT),  # it is gone, and nobody has begun another epoch yet
        (replace(VIEW, first=Id(7), tail=Id(9)), None, Standing.ANEW),  # it is too old
        (replace(VIEW, meta=replace(META, epoch="e2")), None, Standing.ANEW),
        (replace(VIEW, meta=None), None, Standing.WAIT),
    ],
)
def test_what_was_read_is_looked_for_after_a_connection_was_lost(
    view: View, found: Entry | None, standing: Standing
) -> None:
    assert followed(Id(0, 1), Id(2), Id(5)).stands(view, found) is standing


def test_a_successor_knows_the_newest_packet_identifiers_and_open_exchanges() -> None:
    inherited = Inherited()
    for number in range(INHERITED_IDENTIFIERS * 3 // 2):
        inherited.add(Entry(FORM, "e", "t", number + 1, published=number.to_bytes(2, "big")))
    assert len(inherited.published) == INHERITED_IDENTIFIERS
    inherited.add(Entry(FORM, "e", "t", 1, received=b"\0\1\0\2\0\3"))
    inherited.add(Entry(FORM, "e", "t", 1, completed=b"\0\1\0\3"))
    assert inherited.exchanges == {b"\0\2"}


def test_what_the_broker_knows_no_more_a_successor_does_not_take_for_known() -> None:
    inherited = Inherited()
    inherited.add(Entry(FORM, "e", "t", 1, published=b"\0\1\0\2", received=b"\0\3"))
    inherited.add(Entry(FORM, "e", "t", 1, published=b"\0\1", received=b"\0\4", begins_session=True))
    assert inherited.published == [[b"\0\1"]]
    assert inherited.exchanges == {b"\0\4"}


@given(
    sizes=st.lists(st.integers(1, 100_000), min_size=1, max_size=60),
    max_bytes=st.integers(100_000, 1_000_000),
    max_age=st.integers(5, 50),
)
def test_the_stream_stays_within_its_bounds_and_keeps_its_newest_entries(
    sizes: list[int], max_bytes: int, max_age: int
) -> None:
    extent = Extent(max_bytes, max_age)
    stream: list[tuple[Id, int, int]] = []
    for time, size in enumerate(sizes):
        stream.append((Id(time), size, time))
        extent.add(*stream[-1])
        first = extent.trim(time)
        if first is not None:
            gone = [entry for entry in stream if entry[0] < first]
            assert gone
            stream = [entry for entry in stream if entry[0] >= first]
            whole = sum(size + ENTRY_BYTES for _, size, _ in [*gone, *stream])
            assert whole > max_bytes or gone[0][2] < time - max_age
        assert stream
        taken = sum(size + ENTRY_BYTES for _, size, _ in stream)
        assert taken == extent.bytes
        assert taken <= max_bytes or taken - stream[-1][1] <= CHUNK_BYTES + 2 * ENTRY_BYTES + 100_000


# leading


def leading_of(
    history: History | None = None,
    *,
    clock: Callable[[], float] = lambda: 0.0,
    wake: Callable[[], None] = lambda: None,
) -> Leading:
    history = history or History(epoch="e1")
    return Leading(
        history,
        epoch="e1",
        token="t1",
        tail=NOTHING.following,
        since=0,
        clock=clock,
        wall_clock_ms=lambda: 1_000,
        wake=wake,
    )


def append(leading: Leading) -> tuple[Id, Entry]:
    """One append that works."""
    found = leading.next()
    assert found is not None
    assert leading.next() == found, "the same again while it is under way"
    at, entry = leading.appended()
    assert (at, encode(entry)) == found
    leading.settle()
    return at, entry


def test_the_broker_is_read_shortly_before_an_append_and_then_not_until_shortly_before_the_next() -> None:
    now, woken = 100.0, []
    leading = leading_of(clock=lambda: now, wake=lambda: woken.append(now))
    assert leading.rest_seconds() == leading.rest_seconds(has_all=True) == 0, "nothing is gathered yet"
    woken.clear()
    leading.gather, leading.gathers_until = 0.01, now + 0.01
    now += 0.004
    assert leading.rest_seconds(has_all=True) == pytest.approx(0.006 - AHEAD_SECONDS)
    assert (woken, leading.gathers_until) == ([], 100.01), "what has come waits for its turn"
    now = 100.01 - AHEAD_SECONDS + 1e-6
    assert leading.rest_seconds() == pytest.approx(0.01, abs=1e-5)
    assert not woken, "more may come"
    assert leading.rest_seconds(has_all=True) == pytest.approx(0.01, abs=1e-5)
    assert (woken, leading.gathers_until) == ([now], 0), "nothing more comes: it is appended at once"
    leading.gathers_until = now - 0.02
    assert leading.rest_seconds() == 0, "after a silence the next message is awaited"


def test_what_arrives_during_an_append_goes_with_the_next_one() -> None:
    leading = leading_of()
    leading.take("a", b"1")
    assert leading.next() is not None
    leading.take("b", b"2", 1, True, {"content_type": "x"})
    leading.take("a", b"3")
    at, entry = append(leading)
    assert (at, [row.payload for row in entry.rows]) == (Id(1), [b"1"])
    at, entry = append(leading)
    assert (at, entry.first, [row.payload for row in entry.rows]) == (Id(3), 2, [b"2", b"3"])
    assert (entry.rows[0].qos, entry.rows[0].retained, entry.rows[0].properties) == (1, True, {"content_type": "x"})
    assert leading.next() is None
    assert leading.waiting_bytes == 0


def test_a_session_that_begins_is_told_before_what_came_in_it() -> None:
    leading = leading_of()
    leading.take("a", b"1", 1)
    leading.identify([b"\x40\x02\0\1"])
    leading.begin_session()
    leading.take("a", b"2", 2)
    leading.identify([b"\x50\x02\0\1"])
    leading.end_exchanges([b"\0\7"])
    entries = [append(leading)[1] for _ in range(2)]
    assert not leading.has_more
    assert [(e.begins_session, e.published, e.received, e.completed, len(e.rows)) for e in entries] == [
        (False, b"\0\1", b"", b"", 1),
        (True, b"", b"\0\1", b"\0\7", 1),
    ]


def test_who_waits_is_called_when_all_that_came_before_is_appended() -> None:
    leading = leading_of()
    called: list[str] = []
    leading.when_settled(lambda: called.append("nothing"))
    assert called == ["nothing"]
    leading.take("a", b"1", 1)
    leading.identify([b"\x40\x02\0\1", b"\x50\x02\0\2", b"\x70\x02\0\3"])
    leading.when_settled(lambda: called.append("first"))
    assert leading.next() is not None
    leading.when_settled(lambda: called.append("under way"))
    leading.take("a", b"2", 1)
    leading.when_settled(lambda: called.append("second"))
    assert called == ["nothing"]
    _, entry = append(leading)
    assert (entry.published, entry.received, entry.completed) == (b"\0\1", b"\0\2", b"\0\3")
    assert called == ["nothing", "first", "under way"]
    append(leading)
    assert called[-1] == "second"


def test_a_packet_identifier_is_in_the_entry_of_its_message_however_much_comes_at_once() -> None:
    leading = leading_of()
    for _ in range(ENTRY_ROWS + 10):
        leading.take("a", b"", 1)
    leading.identify([b"\x40\x02\0\1"] * (ENTRY_ROWS + 10))
    for _ in range(ENTRY_ROWS + 10):
        leading.take("a", b"")
    sizes = []
    while leading.has_more:
        _, entry = append(leading)
        sizes.append((len(entry.rows), len(entry.published) // 2))
    assert sizes == [(ENTRY_ROWS + 10, ENTRY_ROWS + 10), (ENTRY_ROWS, 0), (10, 0)]


def test_a_repeated_retained_message_is_no_news_while_the_first_one_is_on_its_way() -> None:
    history = History(epoch="e1")
    history.retained_as_published = True
    leading = leading_of(history)
    leading.take("a", b"1", 0, True, None, 0)
    leading.take("a", b"1", 0, True, None, 7)  # the broker repeats it
    leading.take("a", b"1", 0, True, None, 7)  # once only: this is another one
    leading.take("a", b"2", 0, True, None, 8)
    _, entry = append(leading)
    assert [row.payload for row in entry.rows] == [b"1", b"1", b"2"]
    assert history.repeated == 1


@given(
    arrivals=st.lists(
        st.tuples(
            st.sampled_from("ab"), st.sampled_from([b"1", b"2"]), st.booleans(), st.integers(0, 3), st.booleans()
        ),
        max_size=40,
    ),
    as_published=st.booleans(),
)
def test_with_messages_on_their_way_the_same_is_swallowed_as_without(
    arrivals: list[tuple[str, bytes, bool, int, bool]], as_published: bool
) -> None:
    alone, shared = History(epoch="e1"), History(epoch="e1")
    alone.retained_as_published = shared.retained_as_published = as_published
    leading = leading_of(shared)

    def land() -> None:
        while leading.next() is not None:
            _, entry = leading.appended()
            for row in entry.rows:
                shared.append(row.topic, row.payload, 1_000, row.qos, row.retained)
            leading.settle()

    for topic, payload, retained, repeat, lands in arrivals:
        alone.append(topic, payload, 1_000, 0, retained, None, repeat)
        leading.take(topic, payload, 0, retained, None, repeat)
        if lands:
            land()
    land()
    assert [m.payload for m in alone._log] == [m.payload for m in shared._log]
    assert alone.repeated == shared.repeated


def test_what_the_broker_keeps_no_longer_is_told_unless_another_one_is_on_its_way() -> None:
    history = History(epoch="e1")
    history.retained_as_published = True
    leading = leading_of(history)
    leading.take("a", b"1", 0, True)
    leading.release(["a", "b"])
    _, entry = append(leading)
    assert entry.released == ["b"]


# the log of a node


def test_whoever_is_connected_when_the_log_begins_anew_comes_back_and_is_told() -> None:
    loop = FakeLoop()
    hub = make_hub(loop)
    log = HubLog(hub)
    log.begin("e1", 0, 0, {})
    log.fill(Entry(FORM, "e1", "t", 1, 5_000, [Row("a", b"1")]))
    log.complete()
    socket = FakeSocket(hub)
    hub.subscribe(socket.subscriber, ["#"], parse_since("last"))
    loop.run()
    log.take(Entry(FORM, "e1", "t", 2, 6_000, [Row("a", b"2", 7)]))
    loop.run()
    assert [message["payload"] for message in socket.messages] == [1, 2]
    assert socket.messages[-1]["time"] == 6_007
    log.begin("e2", 10, 7_000, {})
    assert socket.closed is not None
    assert hub.subscriber_count == 0
    assert hub.history.position == "e2:10"
    log.fill(Entry(FORM, "e2", "t", 11, 8_000, [Row("a", b"3")]))
    back = FakeSocket(hub)
    with pytest.raises(ProtocolError) as refused:
        hub.subscribe(back.subscriber, ["#"], parse_since("e1:2"))
    assert refused.value.reason == BEHIND, "which of it the log takes over is known when it has been read"
    hub.subscribe(FakeSocket(hub).subscriber, ["#"], parse_since("last"))
    log.complete()
    back = FakeSocket(hub)
    hub.subscribe(back.subscriber, ["#"], parse_since("e1:2"), replay_id=1)
    loop.run()
    assert [event["reason"] for event in back.events("gap")] == ["epoch"]
    assert [message["payload"] for message in back.messages] == [3]

"""The log's segments against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import log as log_module
from gateway.core.log import Log
from gateway.core.messages import Message


def message(seq: int, time: int) -> Message:
    return Message.arrived(seq, "a", b"1", time)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_segments_answer_as_a_list_would(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "SEGMENT", data.draw(st.sampled_from([1, 2, 3, 8])))
        patch.setattr(log_module, "MIN_HOLES", data.draw(st.sampled_from([0, 1, 4])))
        log = Log()
        kept: dict[int, Message] = {}
        seq, time = 0, 100
        for step in data.draw(st.lists(st.one_of(st.integers(0, 3), st.floats(0, 0.999)), max_size=60)):
            if isinstance(step, int):
                # numbers may be left out, times only grow
                seq, time = seq + 1 + step // 3, time + step
                kept[seq] = message(seq, time)
                log.append(kept[seq])
            elif kept:
                gone = sorted(kept)[int(step * len(kept))]
                del kept[gone]
                log.remove(gone)
            numbers = sorted(kept)
            assert list(log) == [kept[number] for number in numbers]
            assert log.count == len(kept)
            assert len(log.segments) <= 2 + 4 * len(kept)
        after, until = data.draw(st.integers(0, seq + 2)), data.draw(st.integers(0, seq + 2))
        wanted = [number for number in numbers if after < number <= until] if (numbers := sorted(kept)) else []
        entries, count = log.count_between(after, until)
        assert count == len(wanted) <= entries
        for number in range(seq + 2):
            assert log.find(number) is kept.get(number)
        assert log.first is None or log.first <= min(kept, default=seq)
        assert log.first_kept(after) == next((number for number in numbers if number > after), None)
        # forwards, in parts
        forwards, reached, part = [], after, data.draw(st.integers(1, 5))
        while True:
            some, end = log.entries(reached, part)
            assert len(some) <= part
            forwards += [entry.seq for entry in some if entry is not None]
            if end is None:
                break
            assert end > reached
            reached = end
        assert forwards == [number for number in numbers if number > after]
        # backwards
        backwards, number = [], until + 1
        while (found := log.newest_before(number)) is not None:
            number, entry = found
            backwards += [number] if entry is not None else []
        assert backwards == [number for number in reversed(numbers) if number <= until]
        # by time
        at = data.draw(st.integers(99, time + 2))
        first = log.first_at(at, after, until)
        late = [number for number in wanted if kept[number].time >= at]
        if first is None:
            assert not late
        else:
            assert after < first <= until
            assert not late or first <= late[0]
            assert all(kept[number].time >= at for number in wanted if number >= first)
        assert (log.first_at(at, after) is None) <= (not [n for n in numbers if n > after and kept[n].time >= at])
        # from the end
        behind = data.draw(st.integers(1, 8))
        start = log.before_newest(behind)
        assert log.count_between(start, seq)[0] <= behind


def test_a_segment_that_was_joined_to_another_is_not_looked_at_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SEGMENT", 8)
    monkeypatch.setattr(log_module, "MIN_HOLES", 0)
    log = Log()
    for seq in range(1, 18):
        log.append(message(seq, 100))
    # of the first eight one is left; the fifth of the next eight to go lets both be joined
    for gone in (2, 3, 4, 5, 6, 7, 8, 13, 14, 15, 16, 9, 11):
        log.remove(gone)
    assert [entry.seq for entry in log] == [1, 10, 12, 17]
    assert log.count == 4

"""Lines that lose packets: what a client heard is counted right, and ours is told of all that it misses."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lines import __main__ as program
from benchmarks.lines import report
from benchmarks.lines.accounting import Heard, Span, Story, Tally, Told, quantile, read, tally
from benchmarks.lines.namespaces import Means, UnavailableError, ip, means_here, netem
from benchmarks.lines.parts import KINDS, missing_part
from benchmarks.lines.plan import Event, Line, Plan, What
from benchmarks.lines.relay import QUEUE_PACKETS, Way
from benchmarks.lines.run import Options, run
from tests.support.waiting import missing

TIMES = [100.0 + number / 20 for number in range(1_000)]


def story(*heard: int | Told, late: float = 0.1) -> Story:
    """What came, each message a while after it was published."""
    return Story([event if isinstance(event, Told) else Heard(event, TIMES[event] + late) for event in heard])


def gap(lost: int | None) -> Told:
    return Told(lost, "evicted", 0.0)


# What is counted


def test_what_a_client_wrote_is_read_and_half_a_line_is_left_out() -> None:
    found = read(['[1500,"state","open"]\n', '[2000,"message",7]\n', '[2500,"gap",null,"epoch"]\n', '[3000,"mess'])
    assert found.events == [Heard(7, 2.0), Told(None, "epoch", 2.5)]
    assert found.states == [(1.5, "open")]
    assert found.newest == 7


def test_what_is_missing_before_the_next_message_counts_as_told_and_the_rest_as_not_told() -> None:
    account = tally(story(0, 1, gap(2), 4, 6), TIMES[:7], {})
    assert (account.delivered, account.missing) == (4, 3)
    assert (account.told, account.told_number, account.untold, account.counted_wrong) == (2, 2, 1, 0)


def test_a_loss_without_a_number_covers_what_is_missing_there_and_no_more() -> None:
    account = tally(story(0, 3, gap(None), 5, 7), TIMES[:8], {})
    assert (account.told, account.unknown, account.untold) == (1, 1, 3)


def test_a_number_that_is_not_what_is_missing_is_seen() -> None:
    assert tally(story(0, gap(5), 3), TIMES[:4], {}).counted_wrong == 3
    assert tally(story(0, gap(1), gap(1), 3), TIMES[:4], {}).counted_wrong == 0


def test_what_comes_twice_or_late_is_counted_once() -> None:
    account = tally(story(0, 2, 2, 1, 3), TIMES[:4], {})
    assert (account.delivered, account.duplicates, account.out_of_order, account.missing) == (4, 1, 1, 0)


def test_what_is_behind_the_newest_message_may_still_come_unless_its_loss_was_told() -> None:
    assert tally(story(0, 1), TIMES[:5], {}).outstanding == 3
    told = tally(story(0, 1, gap(3)), TIMES[:5], {})
    assert (told.outstanding, told.told, told.counted_wrong) == (0, 3, 0)
    nothing = tally(Story(), TIMES[:5], {})
    assert (nothing.delivered, nothing.outstanding, nothing.missing) == (0, 5, 0)


def test_a_client_is_back_when_it_has_what_was_published_after_the_end() -> None:
    heard = [Heard(0, TIMES[0]), Heard(1, 109.0), Heard(2, 110.0), Heard(3, 110.5)]
    spans = [Span(TIMES[0] + 0.01, TIMES[1] + 0.01), Span(TIMES[1], TIMES[5])]
    found = tally(Story([*heard]), TIMES[:6], {"cut": spans}).back
    assert found == {"cut": [pytest.approx(110.0 - TIMES[1] - 0.01), None]}


def test_an_event_that_meets_a_client_which_is_not_back_yet_does_not_count() -> None:
    heard = [Heard(number, TIMES[number]) for number in (*range(100), *range(300, 400))]
    away = Span(TIMES[100], TIMES[200])
    further = Span(TIMES[250], TIMES[260])
    later = Span(TIMES[399], TIMES[399] + 1)
    found = tally(Story([*heard]), TIMES, {"cut": [away, later], "new address": [further]}).back
    assert found == {"cut": [pytest.approx(TIMES[300] - TIMES[200]), None], "new address": []}


def test_a_number_that_was_never_published_is_refused() -> None:
    with pytest.raises(ValueError, match="number 5 came"):
        tally(story(5), TIMES[:5], {})


@given(st.lists(st.one_of(st.integers(0, 29), st.none(), st.integers(1, 9)), max_size=60), st.data())
def test_every_message_is_delivered_told_untold_or_outstanding(numbers: list[int | None], data: st.DataObject) -> None:
    events = [gap(number) if number is None or data.draw(st.booleans()) else number for number in numbers]
    account = tally(story(*events), TIMES[:30], {})
    assert account.delivered + account.told + account.untold + account.outstanding == 30
    assert min(account.told, account.untold, account.outstanding) >= 0
    assert account.duplicates == sum(isinstance(event, int) for event in events) - account.delivered


def test_accounts_add_up() -> None:
    one = tally(story(0, 2), TIMES[:3], {"cut": [Span(TIMES[0], TIMES[1])]}, line_bytes=7)
    both = Tally()
    both.add(one)
    both.add(tally(story(0, 1), TIMES[:3], {"cut": [Span(TIMES[0], TIMES[2])]}, line_bytes=5))
    assert (both.published, both.delivered, both.untold, both.outstanding, both.line_bytes) == (6, 4, 1, 1, 12)
    assert len(both.delays) == 4
    assert len(both.back["cut"]) == 2


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 1))
def test_a_quantile_is_one_of_the_values(values: list[float], part: float) -> None:
    found = quantile(values, part)
    assert found in values
    assert sum(value <= found for value in values) >= part * len(values)


# What happens, and when


@pytest.mark.parametrize("seconds", [1.0, 20.0, 30.0, 60.0, 150.0, 600.0])
def test_no_trouble_overlaps_another_and_none_is_cut_short(seconds: float) -> None:
    events = Plan(seconds, every=10.0, cut=3.0).events()
    for one, other in itertools.pairwise([*events, Event(seconds, 0.0, What.CUT)]):
        assert one.at + one.seconds < other.at


def test_a_whole_run_has_every_trouble() -> None:
    assert [event.what.name for event in Plan().events()] == ["CUT", "SERVER", "MOVE", "CUT", "BROKER", "MOVE", "CUT"]
    assert {event.what for event in Plan(moves=False).events()} == {What.CUT, What.SERVER, What.BROKER}


def test_netem_is_told_what_a_line_does() -> None:
    line = Line(80, 20, 0.02)
    assert netem("add", "line", line)[6:] == ["limit", "1000", "delay", "80ms", "20ms", "loss", "2%"]
    assert netem("change", "line", line, is_cut=True)[-2:] == ["loss", "100%"]


# The relay


def through(line: Line, count: int, seed: int = 1) -> list[float]:
    """When each of `count` packets arrives that are sent at once, in seconds after that."""
    way, arrived = Way(line, random.Random(seed)), []
    for _ in range(count):
        way.put(b"packet", 10.0)
    while (at := way.next_at) is not None:
        arrived += [at - 10.0 for _ in way.take(at)]
    return arrived


def test_packets_take_the_delay_and_as_many_are_lost_as_was_said() -> None:
    arrived = through(Line(80, 20, 0.25), 900)
    assert 900 * 0.70 < len(arrived) < 900 * 0.80
    assert arrived == sorted(arrived)
    assert 0.0599 < arrived[0] < 0.062
    assert 0.098 < arrived[-1] < 0.1001
    assert through(Line(80, 20, 0.25), 900) == arrived
    assert len(through(Line(80, 0, 0), 5)) == 5
    assert through(Line(0, 20, 0), 5)[0] >= 0


def test_a_packet_does_not_arrive_before_its_time_and_a_cut_lets_none_in() -> None:
    way = Way(Line(80, 0, 0), random.Random(1))
    way.put(b"before", 0.0)
    way.is_cut = True
    way.put(b"within", 0.01)
    way.is_cut = False
    way.put(b"after", 0.02)
    assert list(way.take(0.079)) == []
    assert list(way.take(0.2)) == [b"before", b"after"]
    assert (way.sent, way.dropped, way.next_at) == (3, 1, None)


def test_a_queue_has_an_end() -> None:
    assert len(through(Line(80, 20, 0), QUEUE_PACKETS + 5)) == QUEUE_PACKETS


# The table


def test_the_table_has_a_column_for_each_kind_and_says_what_did_not_come_back() -> None:
    cuts = [Span(TIMES[0], TIMES[1]), Span(TIMES[0], TIMES[5])]
    found = tally(story(0, 1, gap(2), 4), TIMES[:6], {"cut": cuts}, line_bytes=900)
    found.add(tally(story(0, gap(None), 2), TIMES[:3], {}))
    page = report.markdown({KINDS[0]: found})
    rows = {name.strip(): cell.strip() for _, name, cell, _ in (line.split("|") for line in page.splitlines())}
    assert rows[""] == "our client library"
    assert (rows["missing, told of"], rows["what was told"]) == ("3", "2 lost, 1 × “some, perhaps”")
    assert rows["not there yet"] == "1"
    assert rows["back after a cut: the same"] == "0.10, 0.10, 0.10; 1 × not"
    assert rows["back after a new address"] == "–"
    assert rows["bytes a message"] == "180"
    assert "what was told" in report.table({KINDS[0]: found})


def test_figures_have_marks_of_their_own_in_the_page() -> None:
    page = Path("docs/performance.md").read_text(encoding="utf-8")
    assert page.count(report.BEGIN) == page.count(report.END) == 1


# Real lines


def test_a_machine_without_namespaces_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert program.main(["--seconds", "1"]) == program.UNAVAILABLE
    assert "need root" in capsys.readouterr().err


def test_what_was_heard_before_is_not_counted_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(program, "means_here", lambda: "relay")
    monkeypatch.setattr(program, "missing_part", lambda: None)
    (tmp_path / "client-0.log").write_text("")
    assert program.main(["--seconds", "1", "--keep", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err


class Moved(Plan):
    """Another address, and no other trouble."""

    def events(self) -> list[Event]:
        return [Event(5.0, 1.0, What.MOVE)]


@pytest.fixture
def means() -> Means:
    """What delays and loses packets here; skips where nothing can, or where a client is missing."""
    try:
        found = means_here()
    except UnavailableError as error:
        pytest.skip(f"missing: {error}")  # no package brings it: it is a matter of the kernel, or of who may do what
    if lacking := missing_part():
        missing(lacking)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_our_clients_are_told_of_all_that_they_miss_behind_lines_that_lose_packets(
    means: Means, tmp_path: Path
) -> None:
    before = ip("netns", "list")
    said = io.StringIO()
    plan = Plan(30, every=10, cut=3, moves=False)
    with contextlib.redirect_stderr(said):
        outcome = run(Options(KINDS[:2], Line(), plan, settle=120), means, tmp_path)
    assert ip("netns", "list") == before
    assert said.getvalue().count("restarted") == 2, said.getvalue()
    for kind, account in outcome.tallies.items():
        told = (kind.name, vars_of(account), outcome.packets)
        assert account.published > 300, told
        assert account.delivered > account.published / 2, told
        assert (account.untold, account.outstanding, account.counted_wrong) == (0, 0, 0), told
        assert account.delivered + account.told == account.published, told
        assert (account.duplicates, account.out_of_order) == (0, 0), told
        assert account.line_bytes > 100 * account.delivered, told
        assert None not in itertools.chain(*account.back.values()), told


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_client_whose_connection_died_unnoticed_is_told_how_many_the_log_kept_no_longer(
    means: Means, tmp_path: Path
) -> None:
    settings = {"GATEWAY_HISTORY_MESSAGES": "3"}  # for each of 20 topics: three seconds
    with contextlib.redirect_stderr(io.StringIO()):
        outcome = run(Options(KINDS[:1], Line(), Moved(10), settle=90, settings=settings), means, tmp_path)
    account = outcome.tallies[KINDS[0]]
    told = (vars_of(account), outcome.packets)
    assert account.told_number > 100, told
    assert (account.unknown, account.told) == (0, account.told_number), told
    assert (account.untold, account.outstanding, account.counted_wrong) == (0, 0, 0), told
    assert (account.duplicates, account.out_of_order) == (0, 0), told


def vars_of(account: Tally) -> dict[str, object]:
    return {name: getattr(account, name) for name in account.__slots__ if name != "delays"}

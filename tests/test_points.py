"""Points of numbers over time: whatever the grid, nothing is lost but where within a stretch a number stood."""

from __future__ import annotations

from array import array
from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.points import MAX_POINTS, Grid, Points
from tests.fakes import finished


def of(rows: list[tuple[int, float]]) -> Points:
    return Points.of_numbers(array("q", (time for time, _ in rows)), array("d", (number for _, number in rows)))


@settings(max_examples=300, deadline=None)
@given(
    since=st.integers(0, 2**41),
    span=st.integers(1, 10**10),
    points=st.integers(1, MAX_POINTS),
    unit=st.sampled_from([1, 1_000, 60_000, 3_600_000]),
)
def test_a_grid_covers_the_time_with_no_more_than_is_asked_for(since: int, span: int, points: int, unit: int) -> None:
    grid = Grid.over(since, since + span, points, unit)
    assert grid.start <= since
    assert grid.end >= since + span
    assert 1 <= grid.count <= points
    assert grid.step % unit == grid.start % unit == 0
    # charts that move on keep their stretches
    assert points == 1 or grid.start % grid.step == 0
    # and it isn't much coarser than it has to be
    assert grid.step <= 2 * span / max(points - 1, 1) + 2 * unit


NUMBERS = st.floats(-1e6, 1e6)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 10_000), NUMBERS), max_size=100).map(sorted),
    since=st.integers(0, 9_000),
    span=st.integers(1, 10_000),
    points=st.integers(1, 50),
)
def test_points_of_a_grid_are_what_its_numbers_make(
    rows: list[tuple[int, float]], since: int, span: int, points: int
) -> None:
    grid = Grid.over(since, since + span, points)
    found = {point["time"]: point for point in finished(of(rows).on(grid)).shown()}
    for place in range(grid.count):
        start = grid.start + place * grid.step
        numbers = [number for time, number in rows if start <= time < start + grid.step]
        point = found.pop(start, None)
        if not numbers:
            assert point is None
            continue
        assert point is not None
        assert (point["first"], point["last"]) == (numbers[0], numbers[-1])
        assert (point["min"], point["max"], point["count"]) == (min(numbers), max(numbers), len(numbers))
        assert point["mean"] == pytest.approx(fsum(numbers) / len(numbers), rel=1e-6, abs=1e-3)
    assert found == {}


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 10_000), st.integers(-100, 100).map(float)), max_size=100).map(sorted),
    points=st.integers(1, 20),
)
def test_points_of_points_are_those_of_the_numbers(rows: list[tuple[int, float]], points: int) -> None:
    fine = Grid(0, 60, 200)
    coarse = Grid.over(0, 10_001, points, fine.step)
    merged = finished(finished(of(rows).on(fine)).on(coarse))
    assert list(merged.shown()) == list(finished(of(rows).on(coarse)).shown())


def test_columns_have_gaps_where_nothing_is() -> None:
    grid = Grid(1_000, 100, 4)
    points = finished(of([(1_000, 1.0), (1_020, 2.5), (1_310, 7.0)]).on(grid))
    assert points.columns(grid) == {
        "first": [1, None, None, 7],
        "min": [1, None, None, 7],
        "max": [2.5, None, None, 7],
        "last": [2.5, None, None, 7],
        "mean": [1.75, None, None, 7],
        "count": [2, 0, 0, 1],
    }


def test_1200_points_take_60_kb() -> None:
    import msgspec

    grid = Grid.over(0, 86_400_000, 1_200)
    rows = [(number * 60_000, 20 + number % 400 / 100) for number in range(1_440)]
    columns = finished(of(rows).on(grid)).columns(grid)
    assert len(msgspec.json.encode(columns)) < 60_000

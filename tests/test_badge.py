"""The picture of a topic: a document that stands alone, whatever the payloads were."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes.sparkline import LINE_BOTTOM, LINE_TOP, LINE_WIDTH, badge_svg

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def path_of(svg: str) -> str:
    path = parse(svg).find(f".//{SVG}path")
    return "" if path is None else path.attrib["d"]


def test_it_shows_title_value_and_unit() -> None:
    svg = badge_svg("sensors/kitchen", [20.0, 21.53], [0, 1000], "°C")
    assert [text.text for text in parse(svg).iter(f"{SVG}text")] == ["sensors/kitchen", "21.53 °C"]
    assert parse(svg).attrib["aria-label"] == "sensors/kitchen: 21.53 °C"
    assert path_of(svg).startswith("M2.0 22.0L94.0 6.0")


def test_without_a_value_it_says_so_and_draws_nothing() -> None:
    svg = badge_svg("a", [], [], "°C")
    assert "no data" in svg
    assert "°C" not in svg
    assert path_of(svg) == ""


def test_one_value_has_no_line() -> None:
    assert path_of(badge_svg("a", [1.0], [0])) == ""


def test_a_flat_line_lies_in_the_middle() -> None:
    assert path_of(badge_svg("a", [5, 5], [0, 1])) == "M2.0 14.0L94.0 14.0"


def test_a_silence_and_a_value_that_is_no_number_break_the_line() -> None:
    steady = [0, 1, 2, 3, 4, 5, 50, 51]
    assert path_of(badge_svg("a", [1] * 8, steady)).count("M") == 2
    assert path_of(badge_svg("a", [1, 2, math.nan, 3, 4], [0, 1, 2, 3, 4])).count("M") == 2


def test_spikes_survive_thinning() -> None:
    values = [1.0] * 50_000
    values[31_234] = 100.0
    path = path_of(badge_svg("a", values, range(50_000)))
    assert f" {LINE_TOP:.1f}" in path
    assert len(path) < 8000


def test_payload_text_cannot_leave_its_place() -> None:
    svg = badge_svg('"><script>alert(1)</script>', [1, 2], [0, 1], "<b>&")
    root = parse(svg)
    assert not list(root.iter(f"{SVG}script"))
    assert [text.text for text in root.iter(f"{SVG}text")][1] == "2 <b>&"


def test_a_long_title_keeps_its_end() -> None:
    text = next(parse(badge_svg("x" * 500 + "/state", [1], [0])).iter(f"{SVG}text")).text
    assert text is not None
    assert len(text) == 60
    assert text.startswith("…")
    assert text.endswith("/state")


def test_it_asks_for_nothing_from_elsewhere() -> None:
    svg = badge_svg("a", [1, 2, 3], [0, 1, 2], "W", dark=True)
    assert set(re.findall(r"https?://[^\"']+", svg)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in svg


def test_light_and_dark_differ() -> None:
    assert badge_svg("a", [1], [0]) != badge_svg("a", [1], [0], dark=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (21.5, "21.5"),
        (1013.25, "1013.2"),
        (123456, "123456"),
        (1e12, "1.00e+12"),
        (-3e-7, "-3.00e-07"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert f">{text}</text>" in badge_svg("a", [value], [0])


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 values need as many times, got 1"):
        badge_svg("a", [1, 2], [0])


@given(
    # a topic may hold control characters, which XML can't
    title=st.text(st.characters(), max_size=100),
    unit=st.text(st.characters(), max_size=8),
    values=st.lists(st.floats(), max_size=60),
    dark=st.booleans(),
)
def test_any_input_gives_a_document_whose_line_stays_inside(
    title: str, unit: str, values: list[float], dark: bool
) -> None:
    svg = badge_svg(title, values, range(len(values)), unit, dark)
    root = parse(svg)
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path_of(svg)):
        assert 0 <= float(x) <= LINE_WIDTH
        assert LINE_TOP <= float(y) <= LINE_BOTTOM
    assert float(root.attrib["width"]) >= 30


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.9, "2 W"), (1, "2 W, 1 min ago"), (119, "2 W, 119 min ago"), (120, "2 W, 2 h ago"), (2880, "2 W, 2 d ago")],
)
def test_an_old_value_says_how_old_it_is(minutes: float, text: str) -> None:
    svg = badge_svg("a", [1, 2, math.nan], [0, 1000, 2000], "W", now=1000 + minutes * 60_000)
    assert f">{text}</text>" in svg
    assert f"<title>a: {text}</title>" in svg

"""Paths and numbers: what the dashboard offers of a payload every other part of the gateway takes, too.

`tests/paths.json` and `tests/offered.json` are read by the tests of `web/dashboard` as well.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.micro import count_calls
from gateway.core.fields import (
    BOOKKEEPING,
    KNOWN_UNITS,
    MAX_VALUES,
    Field,
    contents_of,
    first_shown,
    is_clock,
    look_up,
    nest,
    numbers_of,
    project,
    reading_of,
    state_of,
)
from gateway.core.frames import unframe
from gateway.core.messages import Message
from gateway.core.paths import MAX_DEPTH, Path, PathError, parse_path, path_text, split_paths
from gateway.core.shaper import Shaper, pick
from gateway.core.shapes import Mode, Shape, shape_from
from tests.support import offered
from tests.test_topics_api import ask, running

TABLE = json.loads((FilePath(__file__).parent / "paths.json").read_text("utf-8"))
OFFERED = json.loads(offered.FILE.read_text("utf-8"))

NAMES = st.text(st.sampled_from('ab.[]\\, 0"é\n'), min_size=1, max_size=4)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["19.2", "ON", "x", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just(""), inner, max_size=3),
    max_leaves=8,
)


def value_of(payload: str) -> Any:
    """A payload as the gateway looks into it."""
    return Message.arrived(1, "t", payload.encode(), 0).value()


def shown(shape: Shape, *payloads: str) -> list[Any]:
    """The payloads that come of these."""
    shaper, shown = Shaper(shape), []
    for seq, payload in enumerate(payloads, start=1):
        shaper.offer(Message.arrived(seq, "t", payload.encode(), 0))
        shown += [json.loads(body)["payload"] for frame in shaper.take() for _, body in unframe(frame)]
    return shown


# paths


@pytest.mark.parametrize("case", TABLE["paths"], ids=lambda case: case["text"])
def test_a_path_is_read_and_written(case: dict[str, Any]) -> None:
    assert parse_path(case["text"]) == tuple(case["steps"])
    assert path_text(tuple(case["steps"])) == case.get("written", case["text"])


@pytest.mark.parametrize("text", TABLE["refused"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(PathError):
        Field.at(text)


@pytest.mark.parametrize("case", TABLE["lists"], ids=lambda case: case["text"])
def test_paths_stand_in_a_list_with_commas(case: dict[str, Any]) -> None:
    assert split_paths(case["text"]) == case["paths"]


@given(st.lists(st.lists(NAMES | st.integers(0, 99), min_size=1, max_size=5).map(tuple), min_size=1, max_size=4))
def test_every_path_is_read_as_it_was_written_alone_and_in_a_list(paths: list[Path]) -> None:
    texts = [path_text(path) for path in paths]
    assert [parse_path(text) for text in texts] == paths
    assert [parse_path(text) for text in split_paths(" , ".join(texts))] == paths


@given(st.text(st.sampled_from("ab.[]\\, 01")))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    for part in split_paths(text):
        try:
            path = Field.at(part).path
        except PathError:
            continue
        assert parse_path(path_text(path)) == path


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the protocol's page, code without its marks."""
    page = (FilePath(__file__).parents[1] / "docs/protocol.md").read_text("utf-8")
    section = page.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_shows_paths_as_they_are_read() -> None:
    rows = rows_of("Paths")
    assert len(rows) > 4
    for path, payload, leads_to in rows:
        assert look_up(json.loads(payload.strip("`")), Field.at(path.strip("`"))) == json.loads(leads_to)


def test_units_are_those_that_the_dashboard_knows() -> None:
    assert sorted(KNOWN_UNITS) == TABLE["units"]


def test_another_unit_is_another_payload() -> None:
    said = [contents_of({"p": text}, b"") for text in ("5 W", "5 kW", "6 W")]
    assert said[0].others != said[1].others
    assert (said[2].numbers, said[2].others) == ({("p",): 6}, said[0].others)


def test_the_page_shows_what_counts_as_what() -> None:
    number, state, clock, text = (row[1] for row in rows_of("Numbers, states, texts"))
    for word in ("on", "off", "open", "closed", "online", "offline", "true", "false"):
        assert word in state
        assert state_of(word) is not None
    assert [path for path, _ in numbers_of([21.5, "19.2"])] == [(0,), (1,)]
    assert list(numbers_of("21.5 °C")) == [((), 21.5)]
    for example in ("`21.5`", '`"19.2"`', '`"45 %"`', "`21.5 °C`"):
        assert example in number
    assert is_clock(json.loads(clock.partition("`")[2].strip("`")))
    for unit in KNOWN_UNITS:
        assert list(numbers_of([f"5 {unit}"])) == [((0,), 5)], unit
    for example in ("auto", "4f", "5 zones"):
        assert f'`"{example}"`' in text
        assert not list(numbers_of([example], with_states=True))


# what is found


@pytest.mark.parametrize("case", TABLE["payloads"], ids=lambda case: case["payload"])
def test_numbers_and_states_are_found(case: dict[str, Any]) -> None:
    value = value_of(case["payload"])
    found = {path_text(path): number for path, number in numbers_of(value, with_states=True) if "" not in path}
    assert found == case["offered"]
    states = [text for text in found if state_of(look_up(value, field_of(text))) is not None]
    assert states == case.get("states", [])
    numbers = {path_text(path) for path, _ in numbers_of(value) if "" not in path}
    assert numbers == set(found) - set(states)
    for clock in case.get("clocks", ()):
        assert is_clock(look_up(value, Field.at(clock)))
    first = first_shown(value)
    assert (None if first is None else first.text) == case["first"]


def field_of(text: str) -> Field:
    """The field at a path, that of the payload itself among them."""
    return Field.at(text) if text else Field("", (), None)


@given(VALUES)
def test_what_is_found_is_at_its_path(value: Any) -> None:
    numbers = dict(numbers_of(value, with_states=True))
    for path, number in numbers.items():
        if "" not in path:
            assert reading_of(value, field_of(path_text(path))) == number
    if numbers and isinstance(value, (dict, list)):
        again = dict(numbers_of(nest(numbers), with_states=True))
        assert {path: again[path] for path in numbers} == numbers


@given(VALUES.filter(lambda value: isinstance(value, (dict, list))))
def test_fields_keep_their_places(value: Any) -> None:
    paths = [path for path, _ in numbers_of(value, with_states=True) if "" not in path]
    for chosen in (paths, paths[::2], paths[-1:]):
        kept = project(value, tuple(Field.at(path_text(path)) for path in chosen))
        assert (kept is None) == (not chosen)
        for path in chosen:
            field = Field.at(path_text(path))
            assert look_up(kept, field) == look_up(value, field)
        assert {path for path, _ in numbers_of(kept, with_states=True) if "" not in path} == set(chosen)


def test_a_name_with_dots_is_found_as_it_is_where_the_path_leads_nowhere() -> None:
    assert shown(shape_from({"fields": "PM2.5"}), '{"PM2.5":4}') == [{"PM2.5": 4}]
    assert shown(shape_from({"fields": "a.b"}), '{"a.b":4,"a":{"b":5}}') == [{"a": {"b": 5}}]
    assert shown(shape_from({"fields": r"a\.b"}), '{"a.b":4,"a":{"b":5}}') == [{"a.b": 4}]


def test_items_of_arrays_are_kept_by_number() -> None:
    payload = '{"rx_metadata":[{"rssi":-50},{"rssi":-60,"snr":9}],"f":1}'
    assert shown(shape_from({"fields": "rx_metadata[1].rssi"}), payload) == [{"rx_metadata": [None, {"rssi": -60}]}]
    assert shown(shape_from({"fields": "[1]"}), "[4,5,6]") == [[None, 5]]
    assert shown(shape_from({"fields": "rx_metadata[99999]"}), payload) == []
    assert shown(shape_from({"fields": "f[0]"}), '{"f":"text"}') == []


def test_an_array_has_a_mean_of_each_of_its_numbers() -> None:
    assert shown(Shape(mode=Mode.MEAN), '{"box":[1,"x",3],"t":"19.5"}') == [{"box": [1, None, 3], "t": 19.5}]


def test_a_payload_that_is_an_object_and_then_an_array_has_the_mean_of_the_first() -> None:
    shaper = Shaper(Shape(mode=Mode.MEAN))
    for seq, payload in enumerate((b'{"a":1}', b"[5]", b'{"a":2}'), start=1):
        shaper.offer(Message.arrived(seq, "t", payload, 0))
    [(_, body)] = [part for frame in shaper.take() for part in unframe(frame)]
    assert json.loads(body)["payload"] == {"a": 1.5}


# what changes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"battery":100,"water_leak":false}', '{"battery":100,"water_leak":true}'),
        ('{"t":20,"state":"OFF"}', '{"t":20,"state":"ON"}'),
        ('{"t":20,"mode":"auto"}', '{"t":20,"mode":"heat"}'),
        ('{"t":20,"error":null}', '{"t":20,"error":"E5"}'),
        ('{"t":20}', '{"t":20,"error":null}'),
        ('{"t":20,"list":[]}', '{"t":20,"list":{}}'),
        ('{"box":[1,2]}', '{"box":[1,9]}'),
        ('{"box":[1,2]}', '{"box":[1,2,2]}'),
        ('{"aenergy":{"by_minute":[1,2,3]}}', '{"aenergy":{"by_minute":[7,1,2]}}'),
        ('{"tempc":"19.2"}', '{"tempc":"29.2"}'),
        ("19.2 °C", "29.2 °C"),
        ("19.2 °C", "19.2 °F"),
        ("ON", "OFF"),
        ("true", "false"),
        ('{"a":1,"b":1e301}', '{"a":1,"b":2e301}'),
        ('{"deep":' + '{"a":' * 40 + "1" + "}" * 41, '{"deep":' + '{"a":' * 40 + "9" + "}" * 41),
        (json.dumps([0] * 5_000), json.dumps([*[0] * 4_999, 9])),
    ],
)
def test_a_deadband_lets_every_change_through_that_is_more_than_a_little_of_a_number(before: str, after: str) -> None:
    assert len(shown(Shape(deadband=1.0), before, before, after, after, before)) == 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"tempc":"19.2","on":true}', '{"tempc":"19.9","on":true}'),
        ('{"tempc":"19.2"}', '{"tempc":19.3}'),
        ('{"a":1,"b":"x"}', '{"b":"x","a":1.5}'),
        ('{"box":[1,2]}', '{"box":[1.5,2.5]}'),
        ("19.2 °C", "19.3 °C"),
        ('{"ts":1,"seq":1,"boot":1,"t":20}', '{"ts":"2","seq":9,"boot":2,"t":20}'),
        ('{"Time":"2026-11-27T00:14:58","E":{"P":1}}', '{"Time":"2026-11-27T00:15:08","E":{"P":1}}'),
    ],
)
def test_a_deadband_holds_back_little_changes_and_clocks(before: str, after: str) -> None:
    assert len(shown(Shape(deadband=1.0), before, after)) == 1


def test_bytes_that_look_like_a_number_in_base64_are_none() -> None:
    data = b"\xd7\x6d\xf8"
    shaper = Shaper(Shape(mode=Mode.MEAN))
    shaper.offer(Message.arrived(1, "t", data, 0))
    [(_, body)] = [part for frame in shaper.take() for part in unframe(frame)]
    assert json.loads(body)["payload"] == "1234"
    compared = Shaper(Shape(deadband=5_000.0))
    for payload in (data, b"\xd7\x6d\xf9"):
        compared.offer(Message.arrived(1, "t", payload, 0))
    assert len(compared.take()) == 2


# what it costs


def test_what_is_looked_at_in_one_payload_has_a_bound() -> None:
    wide: list[Any] = [[1] * 100 for _ in range(2_000)]
    deep: Any = 1
    for _ in range(MAX_DEPTH + 5):
        deep = [deep]
    assert list(numbers_of(wide)) == []
    assert len(list(numbers_of([1] * MAX_VALUES))) == MAX_VALUES
    assert len(contents_of([1] * MAX_VALUES, b"").numbers) == MAX_VALUES
    for one_more in ([1] * (MAX_VALUES + 1), [[], *[1] * MAX_VALUES], [[1] * MAX_VALUES]):
        assert list(numbers_of(one_more)) == []
        assert contents_of(one_more, b"").numbers == {}
    assert contents_of([deep, 1], b"").numbers == dict(numbers_of([deep, 1])) == {(1,): 1}
    assert contents_of([deep, 1], b"x") != contents_of([deep, 1], b"y")
    assert MAX_VALUES * 0.98 < len(list(numbers_of(wide, with_states=True))) < MAX_VALUES
    assert len(contents_of(wide, b"").numbers) == 0
    parts: list[Any] = [[1] * 100, deep, {}]
    for part in parts:
        few, many = [part] * (MAX_VALUES + 10), [part] * (100 * MAX_VALUES)
        assert calls_of(many) < 1.01 * calls_of(few) < 50 * MAX_VALUES


def calls_of(value: Any) -> int:
    """How many functions are called to look into a payload."""

    def look() -> None:
        list(numbers_of(value))
        contents_of(value, b"")
        first_shown(value)

    return sum(count_calls(look, 1))


# what is offered


def test_the_table_of_what_is_offered_is_that_of_the_dialects() -> None:
    def forms(rows: list[dict[str, Any]]) -> set[tuple[str, str, tuple[str, ...]]]:
        return {(row["dialect"], row["topic"], tuple(row["offered"])) for row in rows}

    assert forms(OFFERED) == forms(offered.payloads()), "python -m tests.support.offered writes it anew"
    assert len({row["dialect"] for row in OFFERED}) > 5
    assert any(r"SDS0X1.PM2\.5" in row["offered"] for row in OFFERED)


def without_bookkeeping(texts: list[str]) -> list[str]:
    return [text for text in texts if text and text not in BOOKKEEPING]


@pytest.mark.parametrize("row", OFFERED, ids=lambda row: f"{row['dialect']} {row['topic']}")
def test_fields_deadband_and_where_take_what_the_dashboard_offers(row: dict[str, Any]) -> None:
    payload = row["payload"]
    message, value = Message.arrived(1, "t", payload.encode(), 0), value_of(payload)
    for text in filter(None, row["offered"]):
        field = Field.at(text)
        found = look_up(value, field)
        assert found is not None
        assert shown(shape_from({"fields": text}), payload) == [nest({field.path: found})]
        expression = "payload" + "".join(f"[{json.dumps(step, ensure_ascii=False)}]" for step in field.path)
        assert pick(Shape(where=f"{expression} == {expression}"), message) is not None
    for text in without_bookkeeping(row["offered"]):
        other = changed(value, Field.at(text).path)
        assert len(shown(Shape(deadband=1e-9), payload, payload, json.dumps(other))) == 2


def changed(value: Any, path: Path) -> Any:
    """The same payload with another number or state at a path."""
    copy = json.loads(json.dumps(value))
    inner: Any = copy
    for step in path[:-1]:
        inner = inner[step]
    at: Any = path[-1]
    if state_of(inner[at]) is not None:
        inner[at] = "ON" if state_of(inner[at]) == 0 else "OFF"
    else:
        inner[at] = float(inner[at]) + 1
    return copy


@pytest.mark.anyio
async def test_badges_and_tables_take_what_the_dashboard_offers() -> None:
    async with running(limit_requests_per_second=100_000) as (app, gateway):
        for number, row in enumerate(OFFERED):
            gateway.hub.publish(f"t/{number}", row["payload"].encode())
        for number, row in enumerate(OFFERED):
            value, texts = value_of(row["payload"]), [text for text in row["offered"] if text][:50]
            if texts:
                answer = await ask(app, f"/topics/t/{number}?format=csv&fields={quote(','.join(texts))}")
                assert answer.status == 200, answer.body
                heading, cells = csv.reader(io.StringIO(answer.body.decode()))
                assert [parse_path(text) for text in heading[3:]] == [parse_path(text) for text in texts]
                for text, cell in zip(texts, cells[3:], strict=True):
                    found = look_up(value, Field.at(text))
                    assert cell == found if isinstance(found, str) else json.loads(cell) == found
            for text in row["offered"]:
                badge = (await ask(app, f"/topics/t/{number}?format=svg&field={quote(text)}")).body
                assert b"no data" not in badge, text

"""shapes: any payload gives a frame or a skip, never an exception, and what is remembered has a ceiling."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway.core.deadband as deadband_module
from gateway.core.conditions import Condition, ShapeError
from gateway.core.frames import unframe
from gateway.core.messages import Message
from gateway.core.shaper import Shaper, pick
from gateway.core.shapes import Format, Framing, Mode, Shape, shape_from

NAMES = st.sampled_from(["a", "b", "a.b", "", ".", "seq"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
SHAPES = [
    Shape(max_hz=5),
    Shape(mode=Mode.MEAN),
    Shape(mode=Mode.MINMAX),
    Shape(mode=Mode.MEAN, deadband=0.5, framing=Framing.SSE),
    Shape(mode=Mode.MINMAX, fields=("a", "a.b", "b")),
    Shape(deadband=1.0),
    Shape(deadband=0.0, fields=("a.b",)),
    Shape(where="a > 1 || size(payload) > 1"),
    Shape(format=Format.STREAM, field="a.b"),
    Shape(format=Format.RAW, fields=("a",)),
]


def shaped(shape: Shape, *payloads: bytes | str, topic: str = "t") -> list[dict[str, Any]]:
    """What comes of these messages in one interval."""
    shaper = Shaper(shape)
    for seq, payload in enumerate(payloads, start=1):
        shaper.offer(Message.arrived(seq, topic, payload if isinstance(payload, bytes) else payload.encode(), 0))
    bodies = [json.loads(body) for frame in shaper.take() for _, body in unframe(frame)]
    assert shaper.delivered == len(bodies)
    assert shaper.delivered + shaper.skipped == shaper.offered
    return bodies


@settings(max_examples=300, deadline=None)
@given(shape=st.sampled_from(SHAPES), values=st.lists(VALUES, max_size=5))
def test_any_payloads_in_a_row_are_counted_once_each(shape: Shape, values: list[Any]) -> None:
    shaper = Shaper(shape, "k3f9")
    for seq, value in enumerate(values, start=1):
        shaper.offer(Message.arrived(seq, "ab"[seq % 2], json.dumps(value).encode(), 0))
    frames = shaper.take()
    assert len(frames) == shaper.delivered
    assert shaper.delivered + shaper.skipped == shaper.offered == len(values)


def test_a_name_with_a_dot_is_a_name_of_its_own() -> None:
    [mean] = shaped(Shape(mode=Mode.MEAN), '{"a":1,"a.b":2}', '{"a":3,"a.b":4}')
    assert mean["payload"] == {"a": 2, "a.b": 3}


@pytest.mark.parametrize("mode", [Mode.MEAN, Mode.MINMAX])
def test_a_member_that_becomes_an_object_within_an_interval_stays_a_number(mode: Mode) -> None:
    one = {"min": 1, "max": 1} if mode is Mode.MINMAX else 1
    for payloads in (('{"a":1}', '{"a":{"b":2}}'), ('{"a":{"b":2}}', '{"a":1}')):
        [result] = shaped(Shape(mode=mode), *payloads)
        assert result["payload"] == {"a": one}


@pytest.mark.parametrize("shape", SHAPES)
def test_nesting_up_to_the_limit_of_the_decoder_is_no_fault(shape: Shape) -> None:
    for depth in (31, 33, *range(930, 1_001)):
        payload = b'{"a":' * depth + b"1" + b"}" * depth
        shaper = Shaper(shape)
        for seq in (1, 2):
            shaper.offer(Message.arrived(seq, "t", payload, 0))
        shaper.take()
        assert shaper.delivered + shaper.skipped == 2


@pytest.mark.parametrize(
    ("where", "payload"),
    [
        ("temperature * 2 > 62", {"temperature": 31.5}),
        ("temperature - 5 > 20", {"temperature": 31.5}),
        ("2 + temperature == 33", {"temperature": 31}),
        ("a + b * 2 - 1 == 5", {"a": 1, "b": 2.5}),
        ("1 - 2 + 3 == 2", {}),
        ("x / 2 > 1", {"x": 3}),
        ("x / 2 > 1", {"x": 3.0}),
        ("x % 2 == 1 && y % 2 == 1", {"x": 5, "y": 5.0}),
        ("x - -1 == 2 && -x + 3 == 2", {"x": 1}),
        ("size(payload) * 1.5 > 4 && payload.size() + 1 == 4", [1, 2, 3]),
        ("int(x / 10) * 10 == 30", {"x": 37}),
        ("payload[1 + 1] + payload[0] == 4", [1, 2, 3]),
        ("x > 0 ? x + 1 > 5 : x - 1 < -5", {"x": -7}),
        ("x + 1 in [2, 3] && topic == 't'", {"x": 1}),
        ("!(x + 0x10 > 5u + 1e2) && has(payload.x)", {"x": 1}),
        ("payload['a + b'] + 1 == 2", {"a + b": 1}),
        ("x == 9007199254740993", {"x": 9007199254740993}),
        ("double(tempc) > 18 && double(tempc) + 1.0 < 21", {"tempc": "19.2"}),
        ('payload["PM2.5"] > 3 && SDS0X1["PM2.5"] > 3', {"PM2.5": 4, "SDS0X1": {"PM2.5": 4}}),
        ("rx_metadata[0].rssi < -50", {"rx_metadata": [{"rssi": -57}]}),
    ],
)
def test_a_condition_calculates_however_a_number_is_written(where: str, payload: object) -> None:
    assert shaped(Shape(where=where), json.dumps(payload))


@pytest.mark.parametrize("where", ["'a' + x == 'ab'", "x + [1] == x", "(" * 200 + "1 + 1" + ")" * 200 + " > 1"])
def test_what_no_arithmetic_is_for_is_refused(where: str) -> None:
    with pytest.raises(ShapeError, match=r"adds numbers only|nested too deeply|Recursion"):
        Shape(where=where)


@pytest.mark.parametrize("payload", [{"a": [1], "b": [2]}, {"a": "x", "b": "y"}])
def test_nothing_but_numbers_is_added(payload: object) -> None:
    # lists and strings would be copied with every further plus
    assert not shaped(Shape(where="size(a + b) > 0 || a + b != a"), json.dumps(payload))


@pytest.mark.parametrize("payload", [list(range(3_000)), "a" * 16_000, [[[]] * 50] * 100])
@pytest.mark.parametrize(
    "where",
    [
        "size(" + "+".join(["payload"] * 55) + ") > 0",
        "size(" + " + ".join(["string(payload)"] * 25) + ") > 0",
        "size([" + ",".join(["payload"] * 55) + "]) > 0",
        "payload in [" + ",".join(["[payload]"] * 40) + "]",
        " || ".join(["payload - 1 > 2"] * 25),
    ],
)
def test_no_text_makes_a_condition_cost_more_than_its_length_times_the_payload(where: str, payload: object) -> None:
    def seconds(text: str) -> float:
        condition, best = Condition(text), 1.0
        for _ in range(5):
            start = time.process_time()
            condition.holds("t", payload)
            best = min(best, time.process_time() - start)
        return best

    # what copies cumulatively takes a thousand times as long
    assert seconds(where) < len(where) * max(seconds("payload == topic"), 0.000_02)


@pytest.mark.parametrize(
    ("large", "where"),
    [
        ({"x": 1, "pad": "p" * 20_000}, "x == 1"),
        ({"x": [1] * 6_000}, "1 in x"),
        ({"x": {"y": [[1]] * 2_600}}, "[1] in x.y"),
        ({"x": [[]] * 120}, "[x, x] == [x]"),
    ],
)
def test_a_payload_that_is_too_large_to_be_compared_is_counted_and_matches_nothing_but_its_topic(
    large: dict[str, object], where: str
) -> None:
    message = Message.arrived(1, "t", json.dumps(large).encode(), 0)
    found: list[str] = []
    shaper = Shaper(Shape(where=where), on_too_large=lambda: found.append("too large"))
    shaper.offer(message)
    assert (shaper.take(), shaper.skipped, found) == ([], 1, ["too large"])
    assert pick(Shape(where=where), message) is None
    assert shaped(Shape(where="topic == 't'"), json.dumps(large))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (["z0" + ".a" * 1_000_000], "at most 4096"),
        (["a" * 100 + str(number) for number in range(50)], "at most 4096"),
        (["a" + ".a" * 32], "33 levels, at most 32"),
        ("a,b" + ".a" * 32, "33 levels, at most 32"),
        (["a..b"], "a path such as"),
    ],
)
def test_paths_that_are_long_or_deep_are_refused_in_few_words(fields: object, problem: str) -> None:
    with pytest.raises(ShapeError, match=problem) as refused:
        shape_from({"fields": fields})
    assert len(str(refused.value)) < 200


def test_a_path_goes_as_deep_as_one_may_look() -> None:
    deepest = ".".join("abcdefgh" * 4)
    payload: Any = {"x": 7}
    for name in reversed(deepest.split(".")[:-1]):
        payload = {name: payload | {"h": 1}}
    [shown] = shaped(shape_from({"fields": f"{deepest},a.b,x.y"}), json.dumps(payload))
    assert shown["payload"]["a"]["b"]["h"] == 1
    assert shape_from({"fields": ["a.b"]}) == Shape(fields=("a.b",))
    assert shape_from({"deadband": 1}, Shape(fields=("a.b",))).kept == Shape(fields=("a.b",)).kept


def test_a_stream_has_no_aggregates() -> None:
    with pytest.raises(ShapeError, match="format=json"):
        Shape(format=Format.STREAM, field="a", mode=Mode.MEAN)


@pytest.mark.parametrize(
    ("field", "payload", "shown"),
    [
        (r"SDS0X1.PM2\.5", '{"SDS0X1":{"PM2.5":4}}', {"PM2.5": 4}),
        ("rx[1].rssi", '{"rx":[1,{"rssi":-57}]}', {"rssi": -57}),
        ("by_minute[0]", '{"by_minute":[7,8]}', {"by_minute": 7}),
        ("[1]", "[7,8]", {"payload": 8}),
        ("temperature", "21.5", {"temperature": 21.5}),
    ],
)
def test_a_stream_shows_what_is_at_the_path_of_its_field(field: str, payload: str, shown: dict[str, Any]) -> None:
    [body] = shaped(Shape(format=Format.STREAM, field=field), payload)
    assert {name: value for name, value in body.items() if name not in ("topic", "time")} == shown
    assert not shaped(Shape(format=Format.STREAM, field=field), '{"other":1}')


def test_what_a_deadband_remembers_has_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadband_module, "MAX_TOPICS", 100)
    monkeypatch.setattr(deadband_module, "MAX_BASELINE_NUMBERS", 1_000)
    shaper = Shaper(Shape(deadband=1.0))
    wide = json.dumps({str(n): n for n in range(100)}).encode()
    text = json.dumps("x" * 10_000).encode()

    def flood(start: int, count: int) -> None:
        for number in range(start, start + count):
            for _ in range(2):  # the second one is suppressed
                shaper.offer(Message.arrived(1, f"{number}", (b"1", wide, text)[number % 3], 0))
            shaper.take()

    flood(0, 600)
    tracemalloc.start()
    flood(600, 3_000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 400_000
    assert shaper.skipped == 3_600


def test_a_forgotten_topic_is_news_again_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadband_module, "MAX_TOPICS", 2)
    shaper = Shaper(Shape(deadband=1.0))
    for seq, topic in enumerate("abcca", start=1):
        shaper.offer(Message.arrived(seq, topic, b"1", 0))
    assert (len(shaper.take()), shaper.skipped) == (4, 1)


def test_a_deadband_compares_what_is_sent_at_the_end_of_an_interval() -> None:
    shaper = Shaper(Shape(deadband=1.0, max_hz=1.0))
    sent: list[Any] = []
    for seq, value in enumerate((20, 25, 20.1, None, 25, 22, None), start=1):
        if value is None or seq == 1:
            sent += [json.loads(body) for frame in shaper.take() for _, body in unframe(frame)]
        if value is not None:
            shaper.offer(Message.arrived(seq, "t", str(value).encode(), 0))
        if seq == 1:
            sent += [json.loads(body) for frame in shaper.take() for _, body in unframe(frame)]
    assert [(body["payload"], body.get("skipped")) for body in sent] == [(20, None), (22, 3)]
    assert (shaper.delivered, shaper.skipped) == (2, 3)


def test_a_deadband_compares_means_and_leaves_them_whole() -> None:
    shaper = Shaper(Shape(deadband=1.0, mode=Mode.MEAN, max_hz=1.0))
    sent: list[Any] = []
    for start, values in enumerate(((20, 20.5, 20.9, 20.2, 25), (21, 22), (30,))):
        for offset, value in enumerate(values):
            shaper.offer(Message.arrived(10 * start + offset + 1, "t", str(value).encode(), 0))
        sent += [json.loads(body) for frame in shaper.take() for _, body in unframe(frame)]
    assert [(b["payload"], b["count"], b.get("skipped")) for b in sent] == [(21.32, 5, None), (30, 1, 2)]
    assert shaper.delivered + shaper.skipped == shaper.offered


def test_an_interval_of_a_stream_shows_the_newest_message_that_has_the_field() -> None:
    stream = Shape(format=Format.STREAM, field="a", max_hz=1.0)
    shown = shaped(stream, '{"a":1}', '{"a":2}', '{"b":3}', '{"a":NaN}')
    assert [body["a"] for body in shown] == [2]


def test_a_deadband_compares_what_is_no_number_as_it_is() -> None:
    shown = shaped(Shape(deadband=1.0), '"on"', '"on"', '"off"', "1", "1.5", '"off"')
    assert [body["payload"] for body in shown] == ["on", "off", 1, "off"]
    assert [body.get("skipped") for body in shown] == [None, 1, None, 1]

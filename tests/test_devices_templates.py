"""Templates of discovery messages: what they lead to, what they make of a payload, and that none of them costs much."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.devices.templates import MAX_LENGTH, Linear, Template, TemplateError


def of(source: str, payload: Any) -> Any:
    return Template(source).evaluate(json.dumps(payload), payload)


@pytest.mark.parametrize(
    ("source", "linear"),
    [
        ("{{ value_json.temperature }}", Linear(("temperature",))),
        ("{{value_json.temperature}}", Linear(("temperature",))),
        ("{{- value_json.a.b -}}", Linear(("a", "b"))),
        ("{{ value_json['PM2.5'] }}", Linear(("PM2.5",))),
        ('{{ value_json["a b"][0].c }}', Linear(("a b", 0, "c"))),
        ("{{ value_json.sensors.0.t }}", Linear(("sensors", 0, "t"))),
        ("{{ value_json.get('t') }}", Linear(("t",))),
        ("{{ value_json.t | float }}", Linear(("t",))),
        ("{{ value_json.t | round(1) | is_defined }}", Linear(("t",))),
        ("{{ value_json.t | default('', true) }}", Linear(("t",))),
        ("{{ float(value_json.t) }}", Linear(("t",))),
        ("{{ value_json.t if value_json.t is defined else 0 }}", Linear(("t",))),
        ("{{ value | float / 10 }}", Linear((), 0.1)),
        ("{{ (value_json.t | float * 1.8 + 32) | round(1) }}", Linear(("t",), 1.8, 32.0)),
        ("{{ 0.001 * value_json.mv }}", Linear(("mv",), 0.001)),
        ("{{ value }}", Linear(())),
        ("{# a comment #}{{ value_json.t }}", Linear(("t",))),
        ("{{ value_json }}", Linear(())),
        ("{{ 'ON' if value_json.t else 'OFF' }}", None),
        ("{{ value[0] }}", None),
        ("{{ value_json.t + value_json.u }}", None),
    ],
)
def test_most_templates_are_a_path(source: str, linear: Linear | None) -> None:
    found = Template(source).linear
    if linear is None or found is None:
        assert found is linear
    else:
        assert found.path == linear.path
        assert found[1:] == pytest.approx(linear[1:])


@pytest.mark.parametrize(
    ("source", "payload", "result"),
    [
        ("{{ 'ON' if value_json.open else 'OFF' }}", {"open": True}, "ON"),
        ("{{ 'offline' if value == 'offline' else 'online' }}", "sleeping", "online"),
        ("{% if value_json.p > 5 %}high{% elif value_json.p == 5 %}five{% else %}low{% endif %}", {"p": 5}, "five"),
        ("{% if value_json.p > 5 %}{% if value_json.p > 9 %}a{% else %}b{% endif %}{% endif %}", {"p": 7}, "b"),
        ("{% set x = value_json.a * 2 %}{{ x }} W", {"a": 21}, "42 W"),
        ("{{ {'0': 'off', '1': 'heat'}[value_json.m] }}", {"m": "1"}, "heat"),
        ("{% set m = {'a': {'b': 3}} %}{{ m.a.b }}", {}, "3"),
        ("{{ value_json.a ~ '-' ~ value_json.b }}", {"a": 1, "b": "x"}, "1-x"),
        ("{{ value_json.x | default(7) }}", {}, 7),
        ("{{ (value_json.a / 1000) | round(2) }}", {"a": 1234}, 1.23),
        ("{{ value_json.s | lower | replace('_', ' ') }}", {"s": "A_B"}, "a b"),
        ("{{ value_json.state.split(';')[1] }}", {"state": "a;b"}, "b"),
        ("{{ value_json.a is not defined }}", {}, True),
        ("{{ value_json.a in ['x', 'y'] and not value_json.b }}", {"a": "y", "b": False}, True),
        ("{{ value_json.items | length }}", {"items": [1, 2]}, 2),
        ("{{ -value_json.a | abs }}", {"a": 3}, -3),
        ("{{ value_json.a | int(0) % 7 }}", {"a": "10"}, 3),
        ("{{ iif(value_json.a, 'yes', 'no') }}", {"a": 0}, "no"),
        ("{{ value | multiply(2) }}", 21, 42),
        ("{{ value_json.list | last }}", {"list": [1, 5]}, 5),
    ],
)
def test_what_is_computed(source: str, payload: Any, result: Any) -> None:
    if isinstance(payload, str):
        assert Template(source).evaluate(payload, None) == result
    else:
        assert of(source, payload) == result


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("{{ states('sensor.x') }}", "states"),
        ("{{ value | timestamp_custom('%H') }}", "timestamp_custom"),
        ("{{ now() }}", "now"),
        ("{% for x in value_json %}{{ x }}{% endfor %}", "for"),
        ("{{ value_json.__class__.__mro__() }}", "__mro__"),
        ("{{ ''.join(value) }}", "join"),
        ("{{ 'a' * 10 ** 9 }}", r"\*\*"),
        ("{{ range(99999999) }}", "range"),
        ("{{ value", "not closed"),
        ("{% if value %}a", "endif"),
        ("{{ 1 + }}", "too early"),
        ("{{ value | d" + "|d" * 400 + " }}", "more than 300"),
        ("{{ " + "(" * 90 + "1" + ")" * 90 + " }}", "deep"),
        ("x" * (MAX_LENGTH + 1), "2001 characters"),
        ("{{ value @ 1 }}", "@"),
        ("{% include 'x' %}", "include"),
    ],
)
def test_what_is_not_understood_is_named(source: str, word: str) -> None:
    with pytest.raises(TemplateError, match=word):
        Template(source)


@pytest.mark.parametrize(
    ("source", "payload"),
    [
        ("{{ value_json.a.b }}", {}),
        ("{{ value_json.a / 0 }}", {"a": 1}),
        ("{{ value_json.a * 2 }}", {"a": "x"}),
        ("{{ value_json.a > 3 }}", {"a": "x"}),
        ("{{ value_json.a | float }}", {"a": "x"}),
        ("{{ value_json.a | round(1) }}", {"a": 1e999}),
        ("{{ value_json.a }}", {}),
        ("{{ value_json.a | float(1, 2) }}", {"a": "1"}),
        ("{{ value_json.a ~ 'x' }}", {"a": 10**400}),
        ("{{ value_json.a * 2 }}", {"a": 10**400}),
        ("{{ value_json.a | upper }}", {"a": 10**400}),
        ("{{ value_json.a ~ '' }}", {"a": [10**4000] * 10}),
        ("{{ 1e300 | round(12, 'floor') }}", {}),
    ],
)
def test_what_a_payload_lacks_is_an_error_of_its_own(source: str, payload: Any) -> None:
    with pytest.raises(TemplateError):
        of(source, payload)


@pytest.mark.parametrize(
    ("source", "around"),
    [
        ("{{ value }}", ("", "")),
        ('{"brightness": {{ value }}}', ('{"brightness": ', "}")),
        ('{"t":{{ value | float }},"unit":"C"}', ('{"t":', ',"unit":"C"}')),
        ("{{ value * 10 }}", None),
        ("{{ value }}{{ value }}", None),
        ("{% if value %}1{% endif %}", None),
    ],
)
def test_what_stands_around_the_value_of_a_command(source: str, around: tuple[str, str] | None) -> None:
    assert Template(source).around == around


HOSTILE = [
    "{{" * 1_000,
    "{{ '" * 400,
    "{%" * 1_000,
    "{{ " + "value ~ " * 140 + "value }}",
    "{{ " + "[" * 900 + " }}",
    "{{ " + "not " * 290 + "1 }}",
    "{{ " + "-" * 1_900 + "1 }}",
    "{{ " + "{1:" * 600 + " }}",
    "{% if 1 %}" * 190,
    "{% set a = 'x' ~ value %}" + "{% set a = a ~ a %}" * 90 + "{{ a }}",
    "{{ 999999999999999999 " + "* 999999999999999999 " * 80 + "}}",
    "{{ value.replace('', 'xxxxxxxxxxxxxxxxxxxxxxx') }}",
    "{{ value" + ".replace('x', 'xxxxxxxx')" * 60 + " }}",
    "{{ value" + "|default" * 140 + " }}",
    "{{ " + "1 if 1 else " * 100 + "1 }}",
    "{{ '\\" * 500,
    "{" * 2_000,
    "{#" * 1_000,
    "{% set a = [value, value] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}",
    "{% set a = [value, value] %}" + "{% set a = [a, a] %}" * 40 + "{{ a ~ 'x' }}",
    "{% set a = [value] %}" + "{% set a = {'b': a, 'c': a} %}" * 40 + "{{ a | upper }}",
    "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40 + "{{ a == b }}",
    "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40 + "{{ a < b }}",
    "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40 + "{{ a in [b] }}",
    "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ {a: 1} }}",
    "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ value_json[a] }}",
]


@pytest.mark.parametrize("source", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_template_costs_next_to_nothing(source: str) -> None:
    began = time.thread_time()
    for _ in range(5):
        try:
            template = Template(source)
        except TemplateError:
            continue
        try:
            assert len(template.render("x" * 10_000, None)) <= 10_000
        except TemplateError:
            continue
    assert (time.thread_time() - began) / 5 < 0.05


@pytest.mark.parametrize(
    "source",
    [
        "{% set v = value_json %}{{ " + "v ~ " * 140 + "v }}",
        "{% set v = value_json %}{{ " + "'x' in v or " * 70 + "v }}",
        "{% set v = value_json %}{{ " + "v == [v] or " * 40 + "v }}",
    ],
)
def test_a_long_list_is_not_walked_again_and_again(source: str) -> None:
    payload = ["a"] * 60_000
    began = time.thread_time()
    with contextlib.suppress(TemplateError):
        Template(source).render("", payload)
    assert time.thread_time() - began < 0.05


def test_all_options_of_a_command_share_a_number_of_steps() -> None:
    words = [str(number) for number in range(100)]
    assert Template('{"mode": "{{ value }}"}').fill(words) == [f'{{"mode": "{word}"}}' for word in words]
    assert Template("{{ value | int + 1 }}{% if value %}.{% endif %}").fill(words)[:2] == ["1.", "2."]
    with pytest.raises(TemplateError, match="2000 for all options"):
        Template("{{ " + "value ~ " * 140 + "value }}").fill(words)


PIECES = st.sampled_from((
    "{{", "}}", "{%", "%}", "value", "value_json", ".", "[", "]", "(", ")", "|", "float", "round", "default",
    "if", "else", "endif", "elif", "set", "x", "=", "==", ">", "+", "*", "/", "~", "not", "and", "or", "is",
    "defined", "in", "'a'", "1", "2.5", "{", "}", ":", ",", "-", "text",
))  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=30).map(" ".join) | st.text(max_size=60), st.sampled_from([None, 1, {"a": [1]}, "x"]))
def test_any_text_is_a_template_or_says_why_not(source: str, value: Any) -> None:
    with contextlib.suppress(TemplateError):
        Template(source).evaluate("x", value)

"""protocol: what is read, what is refused and how, and that docs/protocol.md says the same."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.protocol import (
    CLOSE_CODES,
    ERROR_CODES,
    EVENTS,
    ProtocolError,
    Publish,
    encode_event,
    error_event,
    parse_command,
)
from gateway.core.since import Since, SinceKind, parse_since

NOW = 1_790_000_000_000
PAGE = (Path(__file__).parents[1] / "docs/protocol.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, Since(SinceKind.LAST)),
        ("last", Since(SinceKind.LAST)),
        ("now", Since(SinceKind.NOW)),
        ("90s", Since(SinceKind.TIME, time=NOW - 90_000)),
        ("1.5h", Since(SinceKind.TIME, time=NOW - 5_400_000)),
        ("1h30m", Since(SinceKind.TIME, time=NOW - 5_400_000)),
        ("2w", Since(SinceKind.TIME, time=NOW - 14 * 86_400_000)),
        ("1789995200000", Since(SinceKind.TIME, time=1_789_995_200_000)),
        ("2026-09-21t12:53:20z", Since(SinceKind.TIME, time=1_789_995_200_000)),
        ("2026-09-21T14:53:20+0200", Since(SinceKind.TIME, time=1_789_995_200_000)),
        ("2026-09-21T14:53:20 0200", Since(SinceKind.TIME, time=1_789_995_200_000)),
        ("2026-09-21T12:53:20Z", Since(SinceKind.TIME, time=1_789_995_200_000)),
        ("2026-09-21T12:53:20", Since(SinceKind.TIME, time=1_789_995_200_000)),
        ("2026-09-21T14:53:20 02:00", Since(SinceKind.TIME, time=1_789_995_200_000)),
        ("k3f9:18273", Since(SinceKind.POSITION, epoch="k3f9", seq=18273)),
    ],
)
def test_since_takes_all_its_forms(text: str | None, expected: Since) -> None:
    assert parse_since(text, now_ms=NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "10", "m10", "k3f9:", "K:1", "1e9s", "٣m", "-5m", "99999-01-01"])
def test_any_other_since_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ProtocolError, match="must be last, now, a time back") as refused:
        parse_since(text)
    assert refused.value.code == "bad_since"


@given(st.text() | st.binary())
def test_any_input_is_a_command_or_a_documented_error(data: str | bytes) -> None:
    try:
        parse_command(data)
    except ProtocolError as error:
        assert error.code in ERROR_CODES  # noqa: PT017
        assert json.loads(error_event(error))["event"] == "error"  # noqa: PT017


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from(["subscribe", "unsubscribe", "publish", "authenticate", "ping"]),
    st.dictionaries(
        st.sampled_from(
            ["id", "topics", "topic", "payload", "qos", "retain", "token", "since", "max_hz", "properties"]
        ),
        values,
    ),
)
def test_any_member_of_any_type_is_taken_or_refused(command: str, members: dict[str, Any]) -> None:
    try:
        parsed = parse_command(json.dumps({"command": command, **members}))
        if isinstance(parsed, Publish):
            parsed.payload_bytes()
    except ProtocolError as error:
        assert error.code in ERROR_CODES  # noqa: PT017


@pytest.mark.parametrize(
    ("payload", "extra", "expected"),
    [
        ('{"on": true}', "", b'{"on": true}'),
        ('"text"', "", b"text"),
        ('"z\\u00fc"', "", "zü".encode()),
        ("21.50", "", b"21.50"),
        ("null", "", b"null"),
        ('"AP8="', ',"encoding":"base64"', b"\x00\xff"),
    ],
)
def test_payloads_to_publish_are_sent_as_they_are_written(payload: str, extra: str, expected: bytes) -> None:
    command = parse_command(f'{{"command":"publish","topic":"a","payload":{payload}{extra}}}')
    assert isinstance(command, Publish)
    assert command.payload_bytes() == expected


@pytest.mark.parametrize("text", ['{"command":"nope"}', '{"command":7}', "{}"])
def test_an_unknown_command_is_told_the_known_ones(text: str) -> None:
    with pytest.raises(ProtocolError, match="known are subscribe, unsubscribe, publish, authenticate, ping"):
        parse_command(text)


LONE = "\\ud83d"


@pytest.mark.parametrize(
    "text",
    [
        f'{{"command":"publish","topic":"a","payload":"half {LONE}","id":7}}',
        f'{{"id":7,"command":"publish","topic":"{LONE}"}}',
        f'{{"command":"subscribe","topics":["\\ude00\\ud83d\\ude00{LONE}"],"id":7}}',
        f'{{"command":"authenticate","token":"{LONE}","id":7}}',
        f'{{"command":"{LONE}","id":7}}',
        f'{{"{LONE}":1,"id":7}}',
        '{"id":7,"command":5}',
        '{"id":7,"command":["ping"]}',
        '{"id":7}',
        '{"id":7,"command":"nope"}',
        '{"id":7,"command":"ping","surprise":1}',
        '{"command":"subscribe","topics":[1],"id":7}',
        '{"command":"publish","topic":"a","payload":1e999999,"qos":7,"id":7}',
        '{"command":"publish","topic":"a","payload":' + "[" * 5_000 + "]" * 5_000 + ',"id":7}',
        '{"id":7,"command":"publish","topic":"a","payload":' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"id":7,"command":"ping"',
        '{"id" : 7,"command":"ping","x":tru}',
        '{"id":7,"command":"ping"} and more',
        '{"payload":{"id":1,"x":[{"id":2}]},"note":"\\"id\\":3,","id":7,}',
        "{'command':'ping',\"id\":7}",
        '{"id":7,"command":"subscribe","topics":["' + "x" * 70_000 + '"]}',
        '{"command":"subscribe","topics":["' + "x" * 70_000 + f'{LONE}"],"id":7}}',
    ],
)
def test_the_id_of_a_bad_command_is_told_whatever_else_is_wrong(text: str, request: pytest.FixtureRequest) -> None:
    # what other tests load raises it; a gateway has the interpreter's own
    request.addfinalizer(partial(sys.setrecursionlimit, sys.getrecursionlimit()))
    sys.setrecursionlimit(1_000)
    for data in (text, text.encode()):
        with pytest.raises(ProtocolError) as refused:
            parse_command(data, 65_536)
        assert refused.value.id == 7
        assert json.loads(error_event(refused.value))["id"] == 7


@pytest.mark.parametrize(
    "text",
    [
        '{"command":"nope","id":7.5}',
        '{"command":"nope","id":true}',
        '{"command":"nope","id":[7]}',
        f'{{"command":"nope","id":"{LONE}"}}',
        '{"command":"nope","id":"' + "x" * 2_000 + '"}',
        '{"command":"nope","id":7',  # of which a digit may be missing
        '{"command":"nope","payload":{"id":7}',
        '["id",7]',
        '"id":7,',
        "",
    ],
)
def test_what_is_no_id_is_not_told(text: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse_command(text)
    assert refused.value.id is None


def test_half_a_pair_of_surrogates_is_named() -> None:
    """What `JSON.stringify` makes of a cut emoji."""
    with pytest.raises(ProtocolError, match="half of a surrogate pair") as refused:
        parse_command(f'{{"command":"publish","topic":"a","payload":"{LONE}","id":7}}')
    assert refused.value.code == "bad_command"
    whole = parse_command('{"command":"publish","topic":"a","payload":"\\ud83d\\ude00"}')
    assert isinstance(whole, Publish)
    assert whole.payload_bytes() == "😀".encode()


@given(values, st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20), st.integers(1, 10))
def test_an_id_is_read_out_of_any_json_that_is_cut_behind_it(value: Any, id_: int | str, cut: int) -> None:
    text = json.dumps({"command": "nope", "payload": {"id": value}, "id": id_, "more": value})
    start = text.rindex(', "more"')
    readable = not isinstance(id_, str) or id_.isascii() or not any("\ud800" <= c <= "\udfff" for c in id_)
    with pytest.raises(ProtocolError) as refused:
        parse_command(text[: min(start + cut, len(text) - 1)])
    if readable:
        assert refused.value.id == id_


def test_a_token_is_not_in_the_text_of_a_command() -> None:
    assert "secret" not in repr(parse_command('{"command":"authenticate","token":"secret"}'))


def test_events_leave_out_what_they_do_not_say() -> None:
    assert encode_event("pong", id=None, time=5) == b'{"event":"pong","time":5}'


def test_the_page_has_every_code_and_event_as_the_code_has_it() -> None:
    for code, meaning in ERROR_CODES.items():
        assert f"| `{code}` | {meaning} |" in PAGE
    for close, (again, meaning) in CLOSE_CODES.items():
        assert f"| {int(close)} | {'yes' if again else 'no'} | {meaning} |" in PAGE
    for event, meaning in EVENTS.items():
        assert f"| `{event}` | {meaning} |" in PAGE

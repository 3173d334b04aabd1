"""protocol: what is read, what is refused and how, and that docs/protocol.md says the same."""

from __future__ import annotations

import json
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

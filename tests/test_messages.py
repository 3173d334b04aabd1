"""messages: what a payload becomes in the envelope, and that the payload comes back unchanged."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.frames import frame_binary, frame_text, json_line, sse_event, unframe
from gateway.core.messages import Kind, Message

payloads = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value, indent=1).encode("utf-8", "surrogatepass")),
)


def envelope(message: Message) -> dict[str, object]:
    [(is_text, body)] = unframe(message.frame)
    assert is_text
    decoded: dict[str, object] = json.loads(body)
    return decoded


def test_a_number_stands_in_the_envelope_as_it_came() -> None:
    message = Message.arrived(18273, "sensors/esp32-1/state", b'{"temperature": 21.50}', 1790000000123)
    assert (
        message.body
        == b'{"topic":"sensors/esp32-1/state","payload":{"temperature": 21.50},"time":1790000000123,"seq":18273}'
    )


def test_flags_appear_only_when_they_say_something() -> None:
    assert envelope(Message.arrived(1, "a", b"1", 5)) == {"topic": "a", "payload": 1, "time": 5, "seq": 1}
    assert envelope(Message.arrived(1, "a", b"1", 5, qos=1, retained=True)) == {
        "topic": "a", "payload": 1, "time": 5, "seq": 1, "retained": True, "qos": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "kind", "shown"),
    [
        (b"21.5", Kind.JSON, 21.5),
        (b'"on"', Kind.JSON, "on"),
        (b" [1, 2]\n", Kind.JSON, [1, 2]),
        (b"", Kind.TEXT, ""),
        (b"on", Kind.TEXT, "on"),
        (b"NaN", Kind.TEXT, "NaN"),
        (b'{"t":NaN}', Kind.TEXT, '{"t":NaN}'),
        (b"-Infinity", Kind.TEXT, "-Infinity"),
        (b"01", Kind.TEXT, "01"),
        (b"1 2", Kind.TEXT, "1 2"),
        (b"\xef\xbb\xbf1", Kind.TEXT, "\ufeff1"),
        ("zwölf °C".encode(), Kind.TEXT, "zwölf °C"),
        (b'"\\ud800"', Kind.TEXT, '"\\ud800"'),
        (b"[" * 100_000, Kind.TEXT, "[" * 100_000),
        (b"1" * 4_300, Kind.JSON, int("1" * 4_300)),
        (b"-" + b"1" * 4_300, Kind.JSON, -int("1" * 4_300)),
        (b"1" * 4_301, Kind.TEXT, "1" * 4_301),
        (b"-" + b"1" * 4_301, Kind.TEXT, "-" + "1" * 4_301),
        (b'{"a":[' + b"9" * 5_000 + b"]}", Kind.TEXT, '{"a":[' + "9" * 5_000 + "]}"),
        (b'["' + b"x" * 9_000 + b'",' + b"9" * 4_301 + b"]", Kind.TEXT, '["' + "x" * 9_000 + '",' + "9" * 4_301 + "]"),
        (b'"' + b"1" * 9_000 + b'"', Kind.JSON, "1" * 9_000),
        (b"0." + b"1" * 9_000, Kind.JSON, 1 / 9),
        (b"[1e5," * 500 + b"1" + b"]" * 500, Kind.JSON, json.loads("[1e5," * 500 + "1" + "]" * 500)),
        (b'"\xff"', Kind.BASE64, base64.b64encode(b'"\xff"').decode()),
        (b"\x00\xff\xfe", Kind.BASE64, "AP/+"),
        (b"\xed\xa0\x80", Kind.BASE64, "7aCA"),
    ],
)
def test_payloads_are_json_else_text_else_base64(payload: bytes, kind: Kind, shown: object) -> None:
    message = Message.arrived(1, "t", payload, 0)
    decoded = envelope(message)
    assert message.kind is kind
    assert decoded["payload"] == shown
    assert decoded.get("encoding") == ("base64" if kind is Kind.BASE64 else None)
    assert message.payload == payload


@given(payloads, st.text(min_size=1).filter(lambda topic: topic.isprintable()), st.integers(0, 2), st.booleans())
def test_any_payload_is_relayed_and_comes_back_unchanged(payload: bytes, topic: str, qos: int, retained: bool) -> None:
    message = Message.arrived(7, topic, payload, 1790000000123, qos, retained)
    assert message.is_empty is (payload == b"")
    decoded = envelope(message)
    assert decoded["topic"] == topic
    assert (decoded["seq"], decoded["time"]) == (7, 1790000000123)
    assert message.payload == payload
    [(is_text, raw)] = unframe(message.raw_frame())
    assert raw == payload
    assert is_text == (message.kind is not Kind.BASE64)


@given(payloads)
def test_members_and_another_payload_keep_the_envelope_valid(payload: bytes) -> None:
    message = Message.arrived(7, "t", payload, 1)
    decoded = json.loads(message.with_members({"skipped": 3}))
    assert decoded["skipped"] == 3
    replaced = json.loads(message.with_members({"count": 2, "interval": 0.2}, token=b'{"min":1}'))
    assert replaced == {"topic": "t", "payload": {"min": 1}, "time": 1, "seq": 7, "count": 2, "interval": 0.2}
    assert message.with_members({}) == message.body


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536])), max_size=5))
def test_joined_frames_come_apart_again(parts: list[tuple[bool, int]]) -> None:
    joined = b"".join((frame_text if is_text else frame_binary)(b"x" * size) for is_text, size in parts)
    assert [(is_text, len(body)) for is_text, body in unframe(joined)] == parts


def test_a_value_that_no_float_holds_is_none_but_is_relayed() -> None:
    message = Message.arrived(1, "t", b"1e999", 0)
    assert message.kind is Kind.JSON
    assert message.token == b"1e999"
    assert message.value() is None


def test_server_sent_events_have_one_line_of_data() -> None:
    assert sse_event(b'{"a":\r\n1}', position="k3f9:5") == b'id: k3f9:5\ndata: {"a":  1}\n\n'
    assert sse_event(b"{}", event="gap") == b"event: gap\ndata: {}\n\n"
    assert json_line(b'{"a":"x\\ny"}') == b'{"a":"x\\ny"}'


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_what_python_takes_for_the_end_of_a_line_is_none_in_a_line_of_json(separator: str) -> None:
    """Iterators over lines in httpx and requests break where `str.splitlines` does."""
    value = {"a": f"x{separator}y", f"b{separator}": [separator * 2]}
    message = Message.arrived(1, f"t/{separator}", json.dumps(value, ensure_ascii=False).encode(), 0)
    line = json_line(message.body)
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == json.loads(message.body)
    assert json.loads(line)["payload"] == value
    assert len(sse_event(message.body).decode().splitlines()) == 2


@given(st.text(alphabet='a\u2028\u2029\u0085\u00c2\u20a8é\\"\n', max_size=8))
def test_a_line_of_json_means_what_it_meant(text: str) -> None:
    body = json.dumps({"a": text}, ensure_ascii=False, indent=1).encode()
    line = json_line(body)
    assert json.loads(line) == {"a": text}
    assert len(line.decode().splitlines()) == 1

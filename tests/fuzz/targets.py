"""What is fed with anything at all, and what must hold for it: one function for each way in, from bytes to nothing.

Each takes a `Source`, which Hypothesis (test_fuzz.py) or atheris (run_atheris.py) fills, and raises nothing unless a
rule is broken. Documented errors are swallowed here and nowhere else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from gateway.access.grants import AccessError, Owner, explain, may_read, may_subscribe
from gateway.access.keys import Keys, secret_key
from gateway.access.origins import Origins
from gateway.access.policy import Policy, Role
from gateway.access.redaction import one_line, redact
from gateway.access.tokens import TokenError, Verifier
from gateway.app import create_app
from gateway.core.conditions import ShapeError
from gateway.core.frames import unframe
from gateway.core.history import History
from gateway.core.messages import Message
from gateway.core.protocol import ERROR_CODES, CloseCode, ProtocolError, parse_command
from gateway.core.shaper import Shaper
from gateway.core.shapes import Framing, Mode, Shape, shape_from
from gateway.core.since import parse_since
from gateway.core.topics import (
    TopicError,
    covers,
    intersection,
    matches,
    minimal_cover,
    validate_filter,
    validate_topic,
)
from gateway.decoders.decoding import make_rule
from gateway.devices.registry import Registry
from gateway.devices.views import Asker, about_topic, tell, values_of
from gateway.ops.explain import explain_topic
from gateway.routes.session import Session
from gateway.settings.table import Settings
from gateway.upstream.packets import PacketError, PacketReader
from tests.fakes import FakeLoop, finished, make_hub
from tests.support.tokens import verified

__all__ = ["TARGETS", "Source"]

T = TypeVar("T")

SECRET = b"0123456789abcdef" * 2
TOKEN_CODES = {
    *("malformed", "too_long", "bad_algorithm", "unknown_key", "bad_signature", "expired", "not_yet_valid"),
    *("bad_audience", "bad_issuer", "missing_claim", "bad_claims", "keys_unavailable", "revoked"),
}


def check(holds: bool, error: object) -> None:
    """An error that was expected, but not like this."""
    if not holds:
        raise AssertionError(f"undocumented: {error!r}")


class Source(Protocol):
    """Where arbitrary values come from."""

    def text(self, most: int = 200) -> str:
        """Any text, lone surrogates included."""

    def data(self, most: int = 400) -> bytes:
        """Any bytes."""

    def number(self, least: int, most: int) -> int:
        """A whole number."""

    def choice(self, options: list[T]) -> T:
        """One of these."""

    def value(self) -> Any:
        """Any JSON value."""


def commands(source: Source) -> None:
    """A frame of a client is a command or a documented error."""
    words = ["subscribe", "unsubscribe", "publish", "authenticate", "ping", source.text(10)]
    frames: list[str | bytes] = [source.text(), source.data(), json.dumps(source.value())]
    frame = source.choice(frames)
    if source.number(0, 1):
        names = [
            "id",
            "topics",
            "since",
            "max_hz",
            "mode",
            "fields",
            "where",
            "topic",
            "payload",
            "qos",
            "token",
            "properties",
        ]
        members = {source.choice(names): source.value() for _ in range(source.number(0, 4))}
        frame = json.dumps({"command": source.choice(words), **members})
    try:
        command = parse_command(frame)
        getattr(command, "shape_parameters", dict)()
        getattr(command, "payload_bytes", bytes)()
    except ProtocolError as error:
        check(error.code in ERROR_CODES and len(str(error)) < 1_000, error)


def queries(source: Source) -> None:
    """`since` and a shape from a query are what they say or a documented error."""
    try:
        parse_since(source.text(40))
    except ProtocolError as error:
        check(error.code == "bad_since", error)
    names = ["max_hz", "mode", "fields", "deadband", "where", "format", "properties"]
    words = ["1", "1e9", "nan", "-1", "mean", "raw", "json", "a.b", "a > 1", "1/0==1", source.text(30), source.text(30)]
    parameters: dict[str, Any] = {source.choice(names): source.choice(words) for _ in range(source.number(0, 4))}
    if source.number(0, 1):
        # as the types of a command let them through
        parameters["max_hz"] = source.choice([None, source.number(-5, 5), 1e-300, 1e300])
        parameters["fields"] = source.choice([None, [], [source.text(10), source.text(10)], ["a"] * 100])
        parameters["properties"] = source.choice([True, False])
    try:
        shape = shape_from(parameters)
        assert shape_from({}, shape) == shape
    except ShapeError as error:
        check(error.code in ERROR_CODES, error)


def a_filter(source: Source) -> str:
    levels = ["a", "b", "+", "#", "", "$SYS", "é", source.text(5)]
    return "/".join(source.choice(levels) for _ in range(source.number(1, 5)))


def filters(source: Source) -> None:
    """Everything that is said of filters agrees with matching."""
    valid = []
    for text in (a_filter(source), a_filter(source), source.text(20)):
        try:
            valid.append(validate_filter(text))
        except TopicError as error:
            check(error.code == "bad_topic", error)
    try:
        topic = validate_topic(source.choice([a_filter(source), source.text(20)]))
    except TopicError:
        return
    for one in valid:
        for other in valid:
            if covers(one, other) and matches(other, topic):
                assert matches(one, topic)
            common = intersection(one, other)
            assert (common is not None and matches(common, topic)) is (matches(one, topic) and matches(other, topic))
    kept = minimal_cover(valid)
    assert any(matches(text, topic) for text in valid) is any(matches(text, topic) for text in kept)


def _segment(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def tokens(source: Source) -> None:
    """A token is claims or a documented error, and nothing in it gives more than was granted."""
    verifier = Verifier([Keys([secret_key(SECRET)])])
    header = source.choice([b'{"alg":"HS256"}', json.dumps(source.value()).encode(), source.data(60)])
    claims: Any = source.value()
    if source.number(0, 1):
        names = ["sub", "topics", "roles", "role", "nbf", "iat", "aud", "iss", "jti"]
        claims = {"exp": 9_999_999_999, **{source.choice(names): source.value() for _ in range(source.number(0, 4))}}
        if source.number(0, 1):
            claims["topics"] = {"subscribe": [a_filter(source)], "publish": [source.text(10)]}
            claims["sub"] = source.choice(["$SYS", "+", "#", "a/b", "a", source.text(10)])
            claims["role"] = "device"
    start = f"{_segment(header)}.{_segment(json.dumps(claims).encode())}"
    token = f"{start}.{_segment(hmac.new(SECRET, start.encode(), hashlib.sha256).digest())}"
    for text in (token, source.text(100)):
        try:
            found = verified(verifier, text)
        except TokenError as error:
            check(error.code in TOKEN_CODES, error)
            continue
        policy = Policy({"device": Role(("sensors/{sub}/#", "{sub}"), ("sensors/{sub}/x",))})
        try:
            principal = policy.principal(found)
        except AccessError as error:
            check(error.code == "bad_claims", error)
            continue
        for grant in (*principal.subscribe, *principal.publish):
            validate_filter(grant.topic_filter)
            if grant.source != "the token":
                assert grant.topic_filter[0] not in "$+#"
                assert "+" not in grant.topic_filter
        asked = a_filter(source)
        try:
            validate_filter(asked)
        except TopicError:
            continue
        assert len(explain(principal, asked)) < 3_000
        if may_subscribe(principal, asked) and "+" not in asked and "#" not in asked:
            assert may_read(principal, asked)


SHAPES = [
    Shape(),
    Shape(framing=Framing.SSE),
    Shape(fields=("a", "b.c")),
    Shape(deadband=0.5),
    Shape(mode=Mode.MEAN),
    Shape(mode=Mode.MINMAX, max_hz=10),
    Shape(where="a / b > 1"),
    Shape(where="payload == topic || a > c"),
    Shape(max_hz=1, fields=("a",), deadband=1),
]


def payloads(source: Source) -> None:
    """Whatever a sensor sends becomes frames of valid JSON, in every shape."""
    shapers = [Shaper(shape, "abc") for shape in SHAPES]
    for seq in range(1, source.number(1, 5) + 1):
        names = ["a", "b", "c", source.text(5)]
        value = {source.choice(names): source.choice([0, 1, -1.5, source.value()]) for _ in range(source.number(0, 4))}
        payload = source.choice(
            [source.data(), json.dumps(source.value()).encode(), json.dumps(value).encode(), b"9" * 400]
        )
        message = Message.arrived(seq, source.choice(["a", "a/é", 'a"b\\c', "\u2028"]), payload, 1_790_000_000_000)
        [(is_text, body)] = unframe(message.frame)
        envelope = json.loads(body)
        assert is_text
        assert envelope["topic"] == message.topic
        assert envelope["seq"] == seq
        message.raw_frame()
        for shaper in shapers:
            shaper.offer(message)
            if source.number(0, 1):
                _check_frames(shaper)
    for shaper in shapers:
        _check_frames(shaper)
        assert shaper.offered >= shaper.delivered + shaper.skipped


RULES = [
    make_rule(["#"], names)
    for names in (["sparkplug"], ["cbor"], ["msgpack"], ["line"], ["senml"], ["cayenne"], ["gzip"], ["cbor", "senml"])
]


def decoders(source: Source) -> None:
    """Whatever a device sends becomes valid JSON, or nothing."""
    topic = f"spBv1.0/g/{source.choice(['NBIRTH', 'NDATA', 'NDEATH', 'STATE'])}/n"
    text = source.text().encode("utf-8", "replace")
    payload = source.choice([source.data(), json.dumps(source.value()).encode(), text])
    for rule in RULES:
        token = rule.decode(topic, payload)
        if token:
            json.loads(token, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def _check_frames(shaper: Shaper) -> None:
    for frame in shaper.take():
        if shaper.shape.framing is Framing.WEBSOCKET:
            for is_text, body in unframe(frame):
                assert is_text
                json.loads(body)
        else:
            lines = frame.split(b"\n")
            assert lines[-2:] == [b"", b""]
            assert all(line == b"" or line.startswith((b"id: abc:", b"data: ")) for line in lines)


def packets(source: Source) -> None:
    """Whatever a broker sends is packets or a documented error."""

    def ignore(*_: object) -> None:
        pass

    for version in (5, 4):
        reader = PacketReader(
            version=version,
            on_message=ignore,
            on_special=ignore,
            on_packet=ignore,
            on_error=ignore,
            on_oversize=ignore,
            accepts=lambda _topic: True,
            max_message_bytes=1_000,
        )
        starts = [b"\x30", b"\x32\x0a\x00\x01a", b"\x30\x05\x00\x01a\x00x", b"\x20\x03\x00\x00\x00", b"\xd0\x00", b""]
        try:
            for _ in range(source.number(1, 5)):
                reader.feed(source.choice(starts) + source.data(60))
        except PacketError:
            pass


def texts(source: Source) -> None:
    """Redaction, escaping and origins take any text."""
    text = source.text()
    assert one_line(redact(text)).isprintable()
    origins = Origins(frozenset({"https://app.example", "null"}))
    origins.permits(text, scheme="ws", host=source.text(30))
    origins.permits_host(source.text(30))


class _Upstream:
    connected = True
    filters: Mapping[str, int | str] = {"#": 1}


def questions(source: Source) -> None:
    """`/explain` has an answer to everything."""
    hub = make_hub(FakeLoop())
    for _ in range(3):
        topic = a_filter(source)
        try:
            hub.publish(validate_topic(topic), source.data(5))
        except TopicError:
            continue
    principal = Policy({"a": Role(("a/#", "b"))}, "a").anonymous()
    asked = source.choice([a_filter(source), source.text(30)])
    asker = Owner(principal, None)
    work = explain_topic(asked, asker, upstream=_Upstream(), upstream_reason=None, hub=hub, now_ms=1, started_ms=0)
    answer = finished(work)
    assert answer.steps
    for near in answer.near:
        assert may_read(principal, near.topic)


class _Sink:
    def __init__(self) -> None:
        self.written = b""
        self.closed: tuple[int, str] | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    def buffered(self) -> int:
        return 0

    def close(self, code: CloseCode, reason: str) -> None:
        self.closed = (code, reason)


def sessions(source: Source) -> None:
    """Any run of commands on one connection gets an answer each, and leaves nothing behind."""

    async def main() -> None:
        settings = Settings(
            access_anonymous_role="guest", roles={"guest": {"subscribe": ["a/#", "+"], "publish": ["a/#"]}}
        )
        gateway = create_app(settings).state.gateway
        loop = FakeLoop()
        gateway.hub = make_hub(loop)
        gateway.clock = loop.clock
        gateway.spawn = lambda work, _name: work.close()
        sink = _Sink()
        session = Session(gateway, Shape(), gateway.guard.policy.anonymous(), "f-1 127.0.0.1:1")
        session.open(sink, Shape())
        count = source.number(1, 8)
        for _ in range(count):
            words = ["subscribe", "unsubscribe", "publish", "authenticate", "ping"]
            members: dict[str, Any] = {"command": source.choice(words)}
            names = [
                "id",
                "since",
                "max_hz",
                "mode",
                "fields",
                "deadband",
                "where",
                "payload",
                "qos",
                "token",
                "properties",
            ]
            for _ in range(source.number(0, 3)):
                members[source.choice(names)] = source.choice([source.value(), 1, "last", "1m", "a > 1", "mean"])
            members["topics"] = source.choice([[a_filter(source)], [a_filter(source), "a/b"], source.value()])
            if members["command"] in ("publish", "ping", "authenticate"):
                members["topic"] = source.choice(["a/b", a_filter(source)])
                members.pop("topics")
            session.receive(json.dumps(members))
            gateway.hub.publish(source.choice(["a/b", "a", "b/c"]), source.data(20))
            loop.run(0.1)
        for is_text, body in unframe(sink.written):
            assert is_text
            event = json.loads(body)
            if event.get("event") == "error":
                assert event["code"] in ERROR_CODES, event
            if "topic" in event and "event" not in event:
                assert event["topic"] != "b/c", "not granted"
        session.disconnected()
        session.end()
        assert gateway.hub.subscriber_count == 0
        assert gateway.hub.group_count == 0

    asyncio.run(main())


def requests(source: Source) -> None:
    """Any request gets an answer that is no fault of ours."""

    async def main() -> None:
        gateway = create_app(Settings())
        state = gateway.state.gateway
        loop = FakeLoop()
        state.hub = make_hub(loop, history=state.history)
        state.clock = loop.clock
        state.upstream = type("Upstream", (), {"state": _state(), "is_connected": True})()
        state.hub.publish("a/b", b"1")
        paths = ["/topics/", "/topics", "/explain", "/", "/metrics", "/whoami", "/ws", "/asyncapi.json", "/health/live"]
        path = source.choice(paths) + source.choice(["", "a/b", "%23", source.text(20)])
        names = [
            "topic",
            "since",
            "until",
            "order",
            "limit",
            "format",
            "fields",
            "where",
            "token",
            "filter",
            "prefix",
            "after",
        ]
        words = ["a", "#", "1m", "1", "desc", "csv", "x:1", "-1", "9" * 30, source.text(15)]
        query = "&".join(
            f"{source.choice(names)}={quote(source.choice(words), safe='', errors='replace')}"
            for _ in range(source.number(0, 4))
        )
        if source.number(0, 5) == 0:
            query = source.text(30).encode("ascii", "replace").decode()
        heads = [
            "accept",
            "origin",
            "authorization",
            "if-none-match",
            "last-event-id",
            "range",
            "cookie",
            "content-type",
        ]
        values = [
            "application/json",
            "text/csv",
            "image/svg+xml",
            "application/x-ndjson",
            "text/html",
            "*/*",
            source.text(20),
        ]
        headers = [(b"host", b"localhost")]
        for _ in range(source.number(0, 3)):
            value = source.choice(values).encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"")
            headers.append((source.choice(heads).encode(), value))
        method = source.choice(["GET", "GET", "GET", "HEAD", "OPTIONS", "DELETE"])
        statuses: list[int] = []
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
            "path": path.encode("utf-8", "replace").decode(), "raw_path": quote(path, errors="replace").encode(),
            "query_string": query.encode(), "headers": headers, "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000), "state": {}, "app": gateway,
        }  # fmt: skip
        received: list[Any] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Any:
            # then the client is gone, which ends an event stream
            return received.pop() if received else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                for name, value in message["headers"]:
                    assert b"\n" not in name + value
                    assert b"\r" not in name + value

        await gateway(scope, receive, send)
        assert statuses
        assert statuses[0] < 500, (path, query, headers, statuses)

    asyncio.run(main())


def _state() -> Any:
    from gateway.upstream.state import UpstreamState

    return UpstreamState("mqtt://localhost:1883", connected=True)


ANNOUNCED = [
    "sensors/x/meta", "sensors/x/state", "homeassistant/sensor/x/config", "homeassistant/device/x/config",
    "homeassistant/climate/x/config", "zigbee2mqtt/bridge/devices", "zigbee2mqtt/bridge/groups",
    "zigbee2mqtt/bridge/info", "tasmota/discovery/AABBCCDDEEFF/config", "tasmota/discovery/AABBCCDDEEFF/sensors",
    "tele/x/SENSOR", "homie/5/x/$description", "homie/x/$nodes", "homie/x/n/$properties", "spBv1.0/g/DBIRTH/n/d",
    "shellies/x/announce", "shellies/x/relay/0", "x/status/switch:0", "esphome/discover/x", "x/temperature",
]  # fmt: skip
MEMBERS = [
    "stat_t", "name", "dev", "ids", "cmps", "p", "t", "tp", "ft", "rl", "sn", "definition", "exposes", "type",
    "property", "access", "values", "ieee_address", "friendly_name", "nodes", "properties", "metrics", "value",
    "fields", "cmd_t", "avty", "val_tpl", "cmd_tpl", "~", "state", "mac", "min", "components", "availability",
    "features",
]  # fmt: skip


def announcements(source: Source) -> None:
    """Whatever is announced, devices are read, told and evaluated, and all of it goes again."""
    history = History()
    registry = Registry(history, max_devices=50, max_bytes=200_000)
    asker = Asker(lambda topic: hash(topic) % 7 > 0, lambda _: True)
    for number in range(source.number(1, 4)):
        topic = source.choice(ANNOUNCED)
        value = source.value()
        if source.number(0, 3):
            value = {source.choice(MEMBERS): source.value() for _ in range(source.number(1, 8))}
            if source.number(0, 1):
                value["val_tpl"] = "{{ value_json." + source.text(60) + " }}"
            if source.number(0, 1):
                value |= {"stat_t": "a/b", "cmps": {"c": {"p": "sensor", **value}}, "friendly_name": "f"}
            value = [value] if "bridge/" in topic else value
        try:
            payload = json.dumps(value).encode()
        except (TypeError, ValueError):
            payload = source.data()
        history.append(topic, payload if source.number(0, 9) else source.data(), 1_000 + number, 0, True)
        for _ in registry.work():
            pass
        assert not registry.problems_of(topic) or "fault" not in registry.problems_of(topic)[0]
    for device in list(registry.devices()):
        tell(device, asker, history, 2_000)
        list(values_of(device, asker, history))
    for topic in ANNOUNCED:
        about_topic(registry, topic, asker)


TARGETS: dict[str, Callable[[Source], None]] = {
    target.__name__: target
    for target in (
        *(commands, queries, filters, tokens, payloads, decoders),
        *(packets, texts, questions, sessions, requests, announcements),
    )
}

"""Grants, roles, explanations, origins, hosts, redaction: every rule of gateway.access, without a socket."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.grants import (
    AccessError,
    Action,
    ForbiddenError,
    Grant,
    Principal,
    explain,
    may_publish,
    may_read,
    may_subscribe,
    require_publish,
    require_subscribe,
)
from gateway.access.origins import Origins, is_loopback
from gateway.access.policy import Policy, Role, is_topic_level
from gateway.access.redaction import one_line, redact
from gateway.core.topics import covers, intersection, matches, validate_filter

LEVELS = ("a", "b", "", "$SYS", "é")
topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.builds(
    lambda levels, last: "/".join(levels + last) or "+",
    st.lists(st.sampled_from((*LEVELS, "+")), min_size=1, max_size=3),
    st.sampled_from(([], ["#"])),
)


def holding(*subscribe: str, publish: tuple[str, ...] = (), subject: str = "alice") -> Principal:
    return Principal(
        subject,
        tuple(Grant(text, "the token") for text in subscribe),
        tuple(Grant(text, "the token") for text in publish),
    )


# Grants


@pytest.mark.parametrize(
    ("granted", "asked", "allowed"),
    [
        ("sensors/a/#", "sensors/a/x", True),
        ("sensors/a/#", "sensors/a", True),
        ("sensors/a/#", "sensors/a/+/y", True),
        ("sensors/a/#", "sensors/+/x", False),
        ("sensors/a/#", "sensors/#", False),
        ("sensors/a/#", "#", False),
        ("sensors/a/#", "+/a/x", False),
        ("sensors/+/state", "sensors/+/state", True),
        ("sensors/+/state", "sensors/+/+", False),
        ("sensors/+/state", "sensors/a/state/x", False),
        ("#", "$SYS/#", False),
        ("#", "$SYS/broker/uptime", False),
        ("+/#", "$SYS/#", False),
        ("+/broker/uptime", "$SYS/broker/uptime", False),
        ("$SYS/#", "$SYS/broker/uptime", True),
        ("$SYS/broker/+", "$SYS/#", False),
        ("#", "#", True),
        ("#", "/", True),
        ("sensors/A/#", "sensors/a/x", False),
        ("sensors", "sensors/", False),
    ],
)
def test_a_filter_is_allowed_only_when_a_grant_covers_it(granted: str, asked: str, allowed: bool) -> None:
    assert may_subscribe(holding(granted), asked) is allowed


def test_two_grants_do_not_add_up_to_a_wider_filter() -> None:
    assert not may_subscribe(holding("sensors/a/#", "sensors/b/#"), "sensors/+/x")


@given(st.lists(filters, max_size=4), filters, topics)
def test_a_subscription_never_shows_a_topic_that_is_not_granted(granted: list[str], asked: str, topic: str) -> None:
    principal = holding(*granted)
    if may_subscribe(principal, asked) and matches(asked, topic):
        assert may_read(principal, topic)


def test_publishing_needs_a_grant_for_publishing() -> None:
    principal = holding("sensors/#", publish=("sensors/a/cmd",))
    assert may_publish(principal, "sensors/a/cmd")
    assert not may_publish(principal, "sensors/b/cmd")
    assert not may_subscribe(holding(publish=("#",)), "a")


@pytest.mark.parametrize("topic", ["$SYS/broker/uptime", "$share/group/a", "$aws/things/x"])
def test_a_wildcard_grant_never_lets_a_client_publish_to_a_dollar_topic(topic: str) -> None:
    assert not may_publish(holding(publish=("#", "+/broker/uptime", "+/#")), topic)


def test_a_dollar_topic_can_be_granted_by_name() -> None:
    assert may_publish(holding(publish=("$aws/things/#",)), "$aws/things/x")


def test_requiring_names_the_first_filter_that_is_refused() -> None:
    require_subscribe(holding("a/#"), ["a/b", "a/c"])
    with pytest.raises(ForbiddenError, match="'c/d': not granted to 'alice'") as caught:
        require_subscribe(holding("a/#"), ["a/b", "c/d", "e"])
    assert caught.value.code == "forbidden"
    with pytest.raises(ForbiddenError, match="topic 'a/b': not granted to 'alice', which may publish to nothing"):
        require_publish(holding("a/#"), "a/b")


# Explanations


def test_a_grant_is_explained_by_the_filter_that_covers_it() -> None:
    assert explain(holding("x", "a/#"), "a/b") == "topic filter 'a/b': granted to 'alice' by 'a/#' (the token)"


def test_a_refusal_names_the_nearest_grant_and_what_it_allows_instead() -> None:
    text = explain(holding("alerts/#", "sensors/a/#"), "sensors/+/state")
    assert "the nearest grant is 'sensors/a/#' (the token)" in text
    assert "ask for 'sensors/a/state'" in text


def test_a_refusal_of_a_dollar_topic_names_the_rule() -> None:
    assert "a leading wildcard never stands for a '$'-topic" in explain(holding("#"), "$SYS/#")


def test_the_nearest_grant_may_differ_in_case() -> None:
    assert "the nearest grant is 'Sensors/a/#'" in explain(holding("x/y", "Sensors/a/#"), "sensors/a/b")


def test_an_explanation_is_short_however_long_the_filter() -> None:
    assert len(explain(holding("a"), "x" * 60_000)) < 400


@given(filters, filters, topics)
def test_the_intersection_matches_what_both_match(one: str, other: str, topic: str) -> None:
    common = intersection(one, other)
    both = matches(one, topic) and matches(other, topic)
    if common is None:
        assert not both
    else:
        assert matches(validate_filter(common), topic) is both


@given(st.lists(filters, min_size=1, max_size=4), filters)
def test_what_an_explanation_offers_is_granted(granted: list[str], asked: str) -> None:
    principal = holding(*granted)
    offered = re.search(r"ask for ('.*?')$", explain(principal, asked))
    if offered:
        assert may_subscribe(principal, offered[1].strip("'"))


# Roles and claims

POLICY = Policy(
    {
        "viewer": Role(("sensors/+/state", "alerts/#")),
        "device": Role(("sensors/{sub}/cmd",), ("sensors/{sub}/#",)),
    }
)


def test_a_role_gives_its_grants() -> None:
    principal = POLICY.principal({"sub": "alice", "roles": ["viewer"], "exp": 1_790_000_000})
    assert may_subscribe(principal, "sensors/+/state")
    assert not may_subscribe(principal, "sensors/+/cmd")
    assert principal.roles == ("viewer",)
    assert principal.expires_at == 1_790_000_000
    assert "role 'viewer'" in explain(principal, "alerts/x")


def test_a_single_role_may_be_a_string() -> None:
    assert POLICY.principal({"role": "viewer"}).roles == ("viewer",)


def test_an_unknown_role_gives_nothing_and_is_named() -> None:
    principal = POLICY.principal({"sub": "alice", "roles": ["admin"]})
    assert not principal.subscribe
    assert "its role 'admin' is not defined here" in explain(principal, "a")


def test_the_subject_fills_the_placeholder_in_roles_and_claims() -> None:
    principal = POLICY.principal({"sub": "esp32-1", "role": "device", "topics": {"subscribe": ["log/{sub}"]}})
    assert may_publish(principal, "sensors/esp32-1/state")
    assert not may_publish(principal, "sensors/esp32-2/state")
    assert may_subscribe(principal, "log/esp32-1")


@pytest.mark.parametrize(
    "subject", ["", "+", "#", "a/b", "../x", "+/x", "a/#", "$SYS", "a\0", "a\n", "\x7f", "\u200b", "x" * 257]
)
def test_a_subject_that_is_not_one_level_widens_nothing(subject: str) -> None:
    assert not is_topic_level(subject)
    policy = Policy({"device": Role(("{sub}/#", "sensors/{sub}/#"), ("sensors/{sub}/x",))})
    principal = policy.principal({"sub": subject, "role": "device", "topics": {"subscribe": ["x/{sub}"]}})
    assert principal.subscribe == ()
    assert principal.publish == ()
    assert "can't be a topic level" in explain(principal, "sensors/a/x")


def test_without_a_subject_nothing_is_filled_in() -> None:
    assert POLICY.principal({"role": "device"}).publish == ()


@given(st.text(max_size=8), topics)
def test_whatever_the_subject_a_device_reaches_only_its_own_level(subject: str, topic: str) -> None:
    principal = Policy({"device": Role(("sensors/{sub}/#",))}).principal({"sub": subject, "role": "device"})
    if may_read(principal, topic):
        assert topic.split("/")[:2] == ["sensors", subject]


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 7},
        {"topics": []},
        {"topics": "#"},
        {"topics": {"subscribe": "#"}},
        {"topics": {"subscribe": [1]}},
        {"topics": {"subscribe": {"#": True}}},
        {"topics": {"subscribe": ["a/#/b"]}},
        {"topics": {"publish": [""]}},
        {"topics": {"subscribe": ["$share/g/#"]}},
        {"topics": {"subscribe": ["a"] * 1_001}},
        {"roles": "viewer"},
        {"roles": {"viewer": 1}},
        {"role": ["viewer"]},
        {"exp": "never"},
        {"exp": True},
    ],
)
def test_claims_of_the_wrong_form_are_refused_and_never_guessed(claims: dict[str, object]) -> None:
    with pytest.raises(AccessError) as caught:
        POLICY.principal(claims)
    assert caught.value.code == "bad_claims"


def test_a_policy_checks_its_filters_when_it_is_made() -> None:
    with pytest.raises(AccessError, match="role 'x', publish: topic filter 'a/#/b': '#' must be the last level"):
        Policy({"x": Role((), ("a/#/b",))})
    with pytest.raises(AccessError, match="'guest', is not defined; defined are: x"):
        Policy({"x": Role()}, "guest")


def test_by_default_those_without_a_token_get_nothing() -> None:
    principal = POLICY.anonymous()
    assert not POLICY.is_open
    assert explain(principal, "a").startswith("topic filter 'a': not granted to an anonymous client")
    assert "it showed no token" in explain(principal, "a")


def test_those_without_a_token_get_their_role() -> None:
    policy = Policy({"guest": Role(("public/#",))}, "guest")
    assert policy.is_open
    assert may_subscribe(policy.anonymous(), "public/x")
    assert not may_subscribe(policy.anonymous(), "#")
    assert "an anonymous client" in explain(policy.anonymous(), "#")


def test_the_open_policy_keeps_dollar_topics_from_publishers() -> None:
    anyone = Policy.open().anonymous()
    assert may_subscribe(anyone, "#")
    assert may_subscribe(anyone, "$SYS/#")
    assert may_publish(anyone, "a")
    assert not may_publish(anyone, "$SYS/x")
    assert explain(anyone, "a", Action.PUBLISH).endswith("by '#' (role 'anonymous')")


def test_the_open_policy_lets_everyone_read_the_dollar_topics_that_are_subscribed_to() -> None:
    anyone = Policy.open(("#", "$data/#", "a/$b")).anonymous()
    assert may_subscribe(anyone, "$data/#")
    assert may_read(anyone, "$data/a")
    assert not may_publish(anyone, "$data/a")
    assert not may_subscribe(anyone, "$other/#")


# Origins

LISTED = Origins.parse(["https://example.com", "HTTP://Dev.Example:80", "http://[::1]:3000"])


@pytest.mark.parametrize(
    ("origin", "scheme", "host", "allowed"),
    [
        (None, "ws", "localhost:8000", True),
        ("http://localhost:8000", "ws", "localhost:8000", True),
        ("http://LOCALHOST:8000", "http", "localhost:8000", True),
        ("http://gateway", "http", "gateway:80", True),
        ("https://gateway", "wss", "gateway", True),
        ("https://gateway", "ws", "gateway", True),  # a proxy ended TLS
        ("http://gateway", "wss", "gateway", False),  # a page without TLS must not use the one with it
        ("http://[::1]:8000", "ws", "[::1]:8000", True),
        ("http://localhost:8001", "ws", "localhost:8000", False),
        ("http://127.0.0.1:8000", "ws", "localhost:8000", False),
        ("https://evil.example", "ws", "localhost:8000", False),
        ("http://localhost:8000.evil.example", "ws", "localhost:8000", False),
        ("http://localhost:8000@evil.example", "ws", "localhost:8000", False),
        ("null", "ws", "localhost:8000", False),
        ("", "ws", "localhost:8000", False),
        ("file://", "ws", "localhost:8000", False),
        ("https://example.com", "ws", "localhost:8000", True),
        ("https://example.com:443", "ws", "localhost:8000", True),
        ("http://example.com", "ws", "localhost:8000", False),
        ("https://sub.example.com", "ws", "localhost:8000", False),
        ("https://example.com.evil.example", "ws", "localhost:8000", False),
        ("http://dev.example", "ws", "localhost:8000", True),
        ("http://[::1]:3000", "ws", "localhost:8000", True),
        ("http://localhost:8000", "ws", None, False),
        ("http://x:99999", "ws", "x:99999", False),
    ],
)
def test_a_page_may_ask_from_the_same_or_a_listed_origin(
    origin: str | None, scheme: str, host: str | None, allowed: bool
) -> None:
    assert LISTED.permits(origin, scheme=scheme, host=host) is allowed


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_origin_and_no_host_raise(origin: str, host: str) -> None:
    LISTED.permits(origin, scheme="ws", host=host)
    LISTED.permits_host(host)


def test_the_star_and_null_are_origins_only_when_listed() -> None:
    assert Origins.parse(["*"]).permits("https://evil.example", scheme="ws", host="h")
    assert Origins.parse(["null"]).permits("null", scheme="ws", host="h")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:5173", True),
        ("http://LOCALHOST", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("https://localhost:5173", False),
        ("http://127.0.0.2:3000", False),
        ("http://localhost.evil.example:5173", False),
        ("http://localhost:*", False),
        ("http://localhost:99999", False),
        ("null", False),
    ],
)
def test_every_port_of_a_loopback_host_may_be_listed(origin: str, allowed: bool) -> None:
    origins = Origins.parse(["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"])
    assert origins.permits(origin, scheme="ws", host="127.0.0.1:8000") is allowed
    assert not origins.permits_host("evil.example", scheme="ws")


def test_a_cookie_does_not_count_for_an_origin_that_only_the_star_lets_in() -> None:
    origins = Origins.parse(["*", "https://example.com"])
    assert origins.may_carry_cookie("https://example.com", scheme="https", host="h")
    assert origins.may_carry_cookie("https://h", scheme="https", host="h")
    assert not origins.may_carry_cookie("https://evil.example", scheme="https", host="h")
    assert not origins.may_carry_cookie("null", scheme="https", host="h")


@pytest.mark.parametrize(
    "text",
    [
        "example.com",
        "ftp://example.com",
        "https://",
        "https://a/b",
        "https://u@a",
        "https://a?x",
        "https://a:b",
        "https://a:*",
        "http://localhost.evil.example:*",
        "http://localhost:8*",
    ],
)
def test_a_setting_that_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(AccessError) as caught:
        Origins.parse([text])
    assert caught.value.code == "bad_origin"


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        (None, True),
        ("localhost:8000", True),
        ("gateway.localhost", True),
        ("127.0.0.1:8000", True),
        ("192.168.1.5", True),
        ("[::1]:8000", True),
        ("raspberrypi", True),
        ("raspberrypi.local:8000", True),
        ("gateway.home.arpa.", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("a@localhost", False),
        ("", False),
        ("localhost/x", False),
        ("[::1].evil.example", False),
        ("[::1]evil.example:80", False),
        ("localhost:80:81", False),
        ("[::1]:x", False),
        ("example.com", True),
        ("sub.example.com", False),
    ],
)
def test_a_name_that_anyone_can_point_at_us_is_not_trusted(host: str | None, trusted: bool) -> None:
    assert LISTED.permits_host(host) is trusted


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# Redaction

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2VjcmV0LXNpZ25hdHVyZQ"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"GET /ws?topic=a&token={JWT}&since=last HTTP/1.1", "GET /ws?topic=a&token=[redacted]&since=last HTTP/1.1"),
        ("/ws?token=not-a-jwt", "/ws?token=[redacted]"),
        ("/ws?token%3Dsecret", "/ws?token%3D[redacted]"),
        ("/ws?access_token=abc&x=1", "/ws?access_token=[redacted]&x=1"),
        (f"Authorization: Bearer {JWT}", "Authorization: [redacted]"),
        ("sent Bearer abc.def", "sent Bearer [redacted]"),
        (f'{{"command":"authenticate","token":"{JWT}"}}', '{"command":"authenticate","token":"[redacted]"}'),
        (f"cookie {JWT}", "cookie [redacted]"),
        ("mqtt://user:pa55@broker:1883", "mqtt://user:[redacted]@broker:1883"),
        ("password=hunter2 next", "password=[redacted] next"),
        ("topic sensors/tokens/state 21.5", "topic sensors/tokens/state 21.5"),
        ("http://localhost:8000/topics/a", "http://localhost:8000/topics/a"),
    ],
)
def test_secrets_are_hidden_and_the_rest_stays(text: str, kept: str) -> None:
    assert redact(text) == kept


def test_what_could_begin_a_new_log_line_is_escaped() -> None:
    assert one_line("a\nb\r\x1b[31m\u2028\x85é") == "a\\nb\\r\\x1b[31m\\u2028\\x85é"
    assert one_line("plain é") == "plain é"


@given(filters, filters)
def test_covering_is_what_the_decision_uses(granted: str, asked: str) -> None:
    assert may_subscribe(holding(granted), asked) is covers(granted, asked)


@pytest.mark.parametrize(
    "invisible",
    ["\u2028", "\u2029", "\u3164", "\u2800", "\u034f", "\ufe0f", "\u00a0", "\u200b", "\u115f", "\uffa0", "\U000e0100"],
)
def test_what_nobody_can_see_fills_no_level(invisible: str) -> None:
    assert not is_topic_level(invisible)
    assert not is_topic_level(f"alice{invisible}")


@pytest.mark.parametrize("subject", ["alice", "Zoë", "a b", "温度", "o'neil@example.com"])
def test_a_name_that_can_be_seen_fills_a_level(subject: str) -> None:
    assert is_topic_level(subject)


@pytest.mark.parametrize(
    "claims", [{"exp": 1e308}, {"exp": 10**400}, {"exp": float("inf")}, {"exp": -1}, {"sub": "a\ud800"}]
)
def test_claims_that_no_clock_and_no_text_can_hold_are_refused(claims: dict[str, object]) -> None:
    with pytest.raises(AccessError) as refused:
        Policy().principal(claims)
    assert refused.value.code == "bad_claims"

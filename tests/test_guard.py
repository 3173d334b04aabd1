"""The door before every route, without a socket: what it lets in, what it answers, and what it adds to answers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.budget import Accounts, Memory
from gateway.access.grants import AccessError, Principal
from gateway.access.keys import Keys, secret_key
from gateway.access.limits import User
from gateway.access.origins import Origins
from gateway.access.policy import Policy, Role
from gateway.access.tokens import Verifier, mint
from gateway.door.content_policy import content_security_policy
from gateway.door.door import Door, literal_plus
from gateway.door.guard import Guard
from gateway.door.refusals import Refusal, payer_of, principal_of, problem
from gateway.transport.proxies import FROM_PROXY

KEY = secret_key("0123456789abcdef" * 2)
POLICY = Policy({"guest": Role(("public/#",)), "viewer": Role(("sensors/#",), ("cmd/{sub}",))})
VERIFIER = Verifier([Keys([KEY])])

Headers = dict[str, str]


# some are minted when tests are collected, and have to last until the last of all tests
def token(subject: str = "alice", ttl_seconds: float = 36_000, **claims: Any) -> str:
    return mint(KEY, ttl_seconds=ttl_seconds, subject=subject, **{"roles": ["viewer"], **claims})


def closed_guard(**options: Any) -> Guard:
    return Guard(**{"policy": POLICY, "verifier": VERIFIER, **options})


def scope_of(
    path: str = "/topics",
    method: str = "GET",
    headers: Headers | list[tuple[str, str]] | None = None,
    query: str = "",
    kind: str = "http",
    **more: Any,
) -> dict[str, Any]:
    pairs = list(headers.items()) if isinstance(headers, dict) else headers or []
    if not any(name == "host" for name, _ in pairs):
        pairs = [("host", "localhost:8000"), *pairs]
    return {
        "type": kind,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "ws" if kind == "websocket" else "http",
        "client": ("10.0.0.9", 1234),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "extensions": {"websocket.http.response": {}},
        **more,
    }


class Answer:
    """What came out of the door."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.principal: Principal | None = None
        self.reached = False

    async def send(self, message: Any) -> None:
        if message["type"].endswith("response.start"):
            self.status = message["status"]
            self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
        elif message["type"].endswith("response.body"):
            self.body += message.get("body", b"")

    def __getitem__(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def parts(body: bytes, size: int = 1_000) -> AsyncIterator[dict[str, Any]]:
    for start in range(0, len(body) or 1, size):
        yield {"type": "http.request", "body": body[start : start + size], "more_body": start + size < len(body)}


def through(
    guard: Guard,
    scope: dict[str, Any],
    body: bytes = b"",
    content_type: str = "application/json",
    receive: Callable[[], Awaitable[Any]] | None = None,
    needs_principal: bool = True,
) -> Answer:
    """Sends a request through the door to a route that reads its body and says who asked."""
    answer = Answer()

    async def route(scope: Any, receive: Any, send: Any) -> None:
        answer.reached = True
        if needs_principal:
            answer.principal = principal_of(scope)
        if scope["type"] == "websocket":
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", content_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data"})

    async def main() -> None:
        stream = parts(body)
        await Door(route, guard)(scope, receive or stream.__anext__, answer.send)

    asyncio.run(main())
    return answer


# Who is asking


def test_without_a_token_one_is_anonymous() -> None:
    answer = through(closed_guard(policy=Policy(POLICY.roles, "guest")), scope_of())
    assert answer.principal is not None
    assert answer.principal.anonymous
    assert [grant.topic_filter for grant in answer.principal.subscribe] == ["public/#"]


@pytest.mark.parametrize(
    "scope",
    [
        scope_of(headers={"authorization": f"Bearer {token()}"}),
        scope_of(headers={"authorization": f"bearer   {token()}"}),
        scope_of(query=f"topic=a&token={token()}"),
        scope_of(headers={"cookie": f"other=1; session={token()}"}),
        scope_of(headers=[("cookie", "other=1"), ("cookie", f"session={token()}")]),
        scope_of(kind="websocket", headers={"cookie": f"session={token()}", "origin": "http://localhost:8000"}),
    ],
)
def test_a_token_is_found_wherever_it_may_be(scope: dict[str, Any]) -> None:
    answer = through(closed_guard(cookie="session"), scope)
    assert answer.principal is not None
    assert answer.principal.subject == "alice"


def test_the_header_ranks_before_the_query_and_the_cookie() -> None:
    scope = scope_of(
        query=f"token={token('query')}",
        headers={"authorization": f"Bearer {token('header')}", "cookie": f"session={token('cookie')}"},
    )
    answer = through(closed_guard(cookie="session"), scope)
    assert answer.principal is not None
    assert answer.principal.subject == "header"


def test_another_authorization_scheme_is_for_somebody_else() -> None:
    answer = through(closed_guard(), scope_of(headers={"authorization": "Basic dXNlcjpwYXNz"}))
    assert answer.principal is not None
    assert answer.principal.anonymous


def test_a_cookie_is_not_looked_at_unless_it_is_configured() -> None:
    answer = through(closed_guard(), scope_of(headers={"cookie": f"session={token()}"}))
    assert answer.principal is not None
    assert answer.principal.anonymous


def test_without_a_key_tokens_are_not_looked_at() -> None:
    answer = through(Guard(policy=Policy.open()), scope_of(headers={"authorization": "Bearer nonsense"}))
    assert answer.status == 200
    assert answer.principal is not None
    assert answer.principal.anonymous


def test_a_bad_token_is_401_and_says_why() -> None:
    guard = closed_guard()
    answer = through(guard, scope_of(headers={"authorization": f"Bearer {token(ttl_seconds=1)[:-3]}abc"}))
    assert answer.status == 401
    assert answer.json["code"] == "unauthorized"
    assert answer.json["reason"] == "bad_signature"
    assert answer["content-type"] == "application/problem+json"
    assert 'error="invalid_token"' in (answer["www-authenticate"] or "")
    assert guard.authentications == {"bad_signature": 1}
    assert guard.refusals.by_reason == {"bad_signature": 1}


def test_a_bad_token_does_not_keep_pages_from_loading() -> None:
    answer = through(closed_guard(), scope_of("/", query="token=x"), needs_principal=False)
    assert answer.status == 200


def test_two_tokens_are_none() -> None:
    answer = through(closed_guard(), scope_of(query=f"token={token()}&token={token('bob')}"))
    assert answer.status == 400 or not answer.reached


@pytest.mark.parametrize("name", ["host", "origin", "authorization"])
def test_a_header_that_decides_must_not_be_there_twice(name: str) -> None:
    pairs = [("host", "localhost"), (name, "localhost"), (name, "evil.example")]
    answer = through(closed_guard(), scope_of(headers=pairs if name != "host" else pairs[1:]))
    assert answer.status == 400
    assert answer.json["detail"] == f"the header {name} is there twice"


def test_guessing_is_slowed_down_and_nobody_else() -> None:
    now = [0.0]
    guard = closed_guard(clock=lambda: now[0])
    bad = {"authorization": "Bearer x.y.z"}
    assert [through(guard, scope_of(headers=bad)).status for _ in range(12)] == [401] * 10 + [429] * 2
    assert through(guard, scope_of(headers=bad))["retry-after"] == "2"
    # whoever shares the address and has a good token doesn't notice
    assert through(guard, scope_of(headers={"authorization": f"Bearer {token()}"})).status == 200
    assert through(guard, scope_of(headers=bad, client=("10.0.0.10", 1))).status == 401
    now[0] = 2.0
    assert through(guard, scope_of(headers=bad)).status == 401
    assert guard.authentications == {"malformed": 15, "ok": 1}


def test_a_key_set_that_cannot_be_had_is_no_fault_of_the_client() -> None:
    class Unreachable(Verifier):
        async def verify(self, token: str) -> dict[str, Any]:
            raise AccessError("no key", "keys_unavailable")

    guard = closed_guard(verifier=Unreachable([]))
    for _ in range(20):
        answer = through(guard, scope_of(headers={"authorization": "Bearer x"}))
        assert answer.status == 503
        assert answer["retry-after"] == "30"


def test_a_connection_stays_that_of_its_subject() -> None:
    guard = closed_guard()
    alice = POLICY.principal({"sub": "alice"})
    assert guard.renewed(alice, POLICY.principal({"sub": "alice", "role": "viewer"})).roles == ("viewer",)
    assert guard.renewed(POLICY.anonymous(), alice) is alice
    with pytest.raises(Refusal, match="is that of 'alice'"):
        guard.renewed(alice, POLICY.principal({"sub": "bob"}))
    with pytest.raises(Refusal):
        guard.renewed(POLICY.principal({"role": "viewer"}), POLICY.principal({"sub": "bob"}))


def test_the_time_left_is_that_of_the_token() -> None:
    guard = closed_guard(wall_clock=lambda: 1_000.0)
    assert guard.seconds_left(Principal(expires_at=1_060.0)) == 60
    assert guard.seconds_left(Principal(expires_at=900.0)) == 0
    assert guard.seconds_left(Principal()) is None


# Which pages


OPEN = Guard(policy=Policy.open(), origins=Origins.parse(["https://app.example"]))


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:9999", "https://localhost:8000.evil.example"]
)
def test_pages_of_other_origins_get_nothing(kind: str, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = through(OPEN, scope_of(headers={"origin": origin}, method=method, kind=kind))
        assert answer.status == 403
        assert not answer.reached
        assert answer["access-control-allow-origin"] is None
        assert answer.json["reason"] == "origin"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "a b"])
def test_a_name_that_was_pointed_at_us_gets_nothing(host: str) -> None:
    answer = through(OPEN, scope_of(headers={"host": host}))
    assert answer.status == 403
    assert not answer.reached
    assert answer.json["reason"] == "host"


def test_where_everyone_needs_a_token_any_host_name_is_fine() -> None:
    assert through(closed_guard(), scope_of(headers={"host": "sensors.example"})).status == 200


def test_health_is_answered_under_any_name() -> None:
    assert through(OPEN, scope_of("/health/live", headers={"host": "pod.example"})).status == 200
    assert through(OPEN, scope_of("/healthy", headers={"host": "pod.example"})).status == 403


def test_listed_pages_may_read_answers_and_others_may_not() -> None:
    listed = through(OPEN, scope_of(headers={"origin": "https://app.example"}))
    assert listed.status == 200
    assert listed["access-control-allow-origin"] == "https://app.example"
    assert listed["access-control-allow-credentials"] is None
    assert listed["vary"] == "origin"
    own = through(OPEN, scope_of(headers={"origin": "http://localhost:8000"}))
    assert own["access-control-allow-origin"] is None
    assert own["vary"] == "origin"


def test_credentials_are_for_listed_origins_where_cookies_count() -> None:
    guard = closed_guard(cookie="session", origins=Origins.parse(["https://app.example", "*"]))
    listed = through(guard, scope_of(headers={"origin": "https://app.example"}))
    assert listed["access-control-allow-credentials"] == "true"
    star = through(guard, scope_of(headers={"origin": "https://evil.example", "cookie": f"session={token()}"}))
    assert star["access-control-allow-credentials"] is None
    assert star.principal is not None
    assert star.principal.anonymous


def test_a_preflight_is_answered_without_reaching_a_route() -> None:
    headers = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-private-network": "true",
    }
    answer = through(OPEN, scope_of(method="OPTIONS", headers=headers))
    assert answer.status == 204
    assert not answer.reached
    assert answer["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in (answer["access-control-allow-headers"] or "")
    assert answer["access-control-allow-private-network"] == "true"


def test_the_client_library_may_be_loaded_by_every_page() -> None:
    answer = through(OPEN, scope_of("/client.js", headers={"origin": "https://evil.example"}))
    assert answer.status == 200
    assert answer["access-control-allow-origin"] == "*"
    assert answer["cross-origin-resource-policy"] == "cross-origin"
    for method, path in (("POST", "/client.js"), ("GET", "/client.js/"), ("GET", "/topics")):
        assert through(OPEN, scope_of(path, method, headers={"origin": "https://evil.example"})).status == 403


@pytest.mark.parametrize(
    ("headers", "counts"),
    [
        ({"origin": "http://localhost:8000"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({}, False),
    ],
)
def test_a_cookie_alone_does_not_publish(headers: Headers, counts: bool) -> None:
    scope = scope_of(method="POST", headers={"cookie": f"session={token()}", **headers})
    answer = through(closed_guard(cookie="session"), scope)
    assert answer.principal is not None
    assert (not answer.principal.anonymous) is counts


# Sizes


def test_a_long_url_is_414() -> None:
    guard = closed_guard(max_url_bytes=100)
    assert through(guard, scope_of("/" + "a" * 99)).status == 200
    for scope in (
        scope_of("/" + "a" * 100),
        scope_of(query="a" * 100),
        scope_of("/a", kind="websocket", query="a" * 99),
    ):
        answer = through(guard, scope)
        assert answer.status == 414
        assert answer.json["reason"] == "url_bytes"


def test_a_large_body_is_413_by_its_length_and_by_its_bytes() -> None:
    guard = closed_guard(max_body_bytes=10_000)
    assert through(guard, scope_of(method="POST"), body=b"x" * 10_000).status == 200
    declared = through(guard, scope_of(method="POST", headers={"content-length": "10001"}))
    assert declared.status == 413
    assert not declared.reached
    assert declared["connection"] == "close"
    assert through(guard, scope_of(method="POST"), body=b"x" * 10_001).status == 413
    assert through(guard, scope_of(method="POST", headers={"content-length": "9" * 5_000})).status == 413


def test_what_is_left_of_a_large_body_is_read_so_that_its_sender_sees_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.door.door.LINGER_SECONDS", 0.05)
    guard = closed_guard(max_body_bytes=10_000)
    taken = 0

    def sender(parts: float) -> Callable[[], Awaitable[Any]]:
        async def receive() -> dict[str, Any]:
            nonlocal taken
            taken += 1
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"x" * 1_000, "more_body": taken < parts}

        return receive

    for headers in ({"content-length": "20000"}, {}):
        taken = 0
        answer = through(guard, scope_of(method="POST", headers=headers), receive=sender(20))
        assert answer.status == 413
        assert answer.json["code"] == "bad_payload"
        assert taken == 20
    # not for ever; and not where nothing comes without a "100 Continue"
    assert through(guard, scope_of(method="POST"), receive=sender(math.inf)).status == 413
    taken = 0
    headers = {"content-length": "20000", "expect": "100-continue"}
    assert through(guard, scope_of(method="POST", headers=headers), receive=sender(20)).status == 413
    assert taken == 0


def test_a_body_whose_end_can_be_read_in_two_ways_is_400() -> None:
    headers = {"content-length": "4", "transfer-encoding": "chunked"}
    answer = through(closed_guard(), scope_of(method="POST", headers=headers))
    assert answer.status == 400
    assert not answer.reached
    assert answer["connection"] == "close"


def test_a_compressed_body_is_415() -> None:
    answer = through(closed_guard(), scope_of(method="POST", headers={"content-encoding": "gzip"}))
    assert answer.status == 415
    assert not answer.reached
    assert through(closed_guard(), scope_of(method="POST", headers={"content-encoding": "identity"})).status == 200


def test_a_body_that_does_not_come_is_408() -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    answer = through(closed_guard(body_seconds=0.01), scope_of(method="POST"), receive=never)
    assert answer.status == 408
    assert answer["connection"] == "close"


def test_a_body_is_held_until_its_request_is_answered_and_refused_without_room() -> None:
    accounts = Accounts(time.monotonic, Memory(max_total=100_000, max_per_address=50_000))
    guard = closed_guard(accounts=accounts)
    held: list[int] = []

    def whole(size: int) -> Callable[[], Awaitable[Any]]:
        async def receive() -> Any:
            held.append(accounts.memory.total)
            return {"type": "http.request", "body": b"x" * 20_000, "more_body": len(held) * 20_000 < size}

        return receive

    assert through(guard, scope_of(method="POST"), receive=whole(40_000)).status == 200
    assert held[1] > 15_000
    assert accounts.memory.total == 0
    held.clear()
    answer = through(guard, scope_of(method="POST"), receive=whole(80_000))
    assert answer.status == 503
    assert answer.json["reason"] == "unfinished_bytes"
    assert guard.refusals.by_reason["unfinished_bytes"] == 1
    assert accounts.memory.total == 0


async def listening(_scope: Any, receive: Any, send: Any) -> None:
    """An answer that goes on, and listens for its client to go in a task of its own, as Starlette's do."""

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data", "more_body": True})


@pytest.mark.parametrize("waits", [0, 0.05])
def test_who_leaves_a_stream_before_its_request_was_whole_is_no_error(waits: float) -> None:
    """Its body may be left out for longer than a body may take: nobody reads it."""
    guard, answer = closed_guard(body_seconds=0.01), Answer()
    left = {"type": "http.disconnect"}

    async def receive() -> Any:
        if waits:
            await asyncio.sleep(waits)
        return left

    asyncio.run(Door(listening, guard)(scope_of(headers={"content-length": "10"}), receive, answer.send))
    assert guard.refusals.by_reason == ({} if waits else {"left": 1})


def test_what_follows_after_an_answer_has_begun_is_dropped() -> None:
    guard, answer = closed_guard(max_body_bytes=100), Answer()
    pieces = iter([{"type": "http.request", "body": b"x" * 80, "more_body": True}] * 100)

    async def receive() -> Any:
        await asyncio.sleep(0)
        return next(pieces, {"type": "http.disconnect"})

    asyncio.run(Door(listening, guard)(scope_of(), receive, answer.send))
    assert answer.body == b"data"
    assert not guard.refusals.by_reason
    assert guard.accounts.memory.total == 0


def test_what_is_refused_is_charged_too() -> None:
    accounts = Accounts(time.monotonic)
    guard = closed_guard(accounts=accounts)
    for _ in range(20):
        assert through(guard, scope_of(headers={"origin": "http://evil.example"})).status == 403
    assert accounts.processor > 0


# Headers of answers


def test_every_answer_says_how_it_may_be_used() -> None:
    answer = through(OPEN, scope_of())
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["referrer-policy"] == "no-referrer"
    assert answer["cross-origin-resource-policy"] == "same-origin"
    assert answer["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert re.fullmatch(r"[0-9a-f]{6}-[0-9a-f]+", answer["x-request-id"] or "")
    assert [name for name, _ in answer.headers].count("content-security-policy") == 1


def test_a_page_gets_a_strict_policy() -> None:
    answer = through(OPEN, scope_of("/"), content_type="text/html; charset=utf-8")
    policy = answer["content-security-policy"] or ""
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer["x-frame-options"] == "DENY"


def test_a_worker_may_connect_to_where_its_script_is_from() -> None:
    answer = through(OPEN, scope_of("/client-worker.js"), content_type="text/javascript; charset=utf-8")
    assert answer["content-security-policy"] == "default-src 'none'; connect-src 'self'; frame-ancestors 'none'"


def test_request_ids_differ() -> None:
    assert through(OPEN, scope_of())["x-request-id"] != through(OPEN, scope_of())["x-request-id"]


def test_only_the_pages_own_scripts_and_styles_run() -> None:
    page = "<style>a{}</style><script src=x.js></script><script>go()</script><script type=module>é</script>"
    policy = content_security_policy(page)
    scripts = policy.partition("script-src ")[2].partition(";")[0]
    styles = policy.partition("style-src ")[2].partition(";")[0]
    assert scripts.count("'sha256-") == 2
    assert styles.count("'sha256-") == 1
    # echo -n 'go()' | openssl dgst -sha256 -binary | base64
    assert "'sha256-5KYv+PUboo5h+0+YAtGRPbwv5d/QxzHslP4YGnUaxRw='" in scripts


def test_the_gateways_own_page_has_only_what_its_policy_allows() -> None:
    page = (Path(__file__).parents[1] / "gateway" / "pages" / "index.html").read_text()
    assert not re.search(r"\son\w+\s*=|javascript:|<[^>]+\sstyle=", page)
    assert "'sha256-" in content_security_policy(page)


# Refusals


def test_refusals_are_logged_without_secrets_and_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gateway.door.guard")
    hostile = "/topics/a\nINFO forged\x1b[31m"
    guard = Guard(policy=Policy.open())
    through(guard, scope_of(hostile, query=f"token={token()}", headers={"origin": "https://evil.example/\r\nx"}))
    assert "refused GET" in caplog.text
    assert "eyJ" not in caplog.text
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()
    assert "\x1b" not in caplog.records[0].getMessage()


def test_a_storm_of_refusals_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gateway.door.guard")
    now = [0.0]
    guard = Guard(policy=Policy.open(), clock=lambda: now[0])
    for _ in range(1_000):
        through(guard, scope_of(headers={"origin": "https://evil.example"}))
    assert len(caplog.records) == 10
    now[0] = 5.0
    through(guard, scope_of(headers={"origin": "https://evil.example"}))
    assert "(990 more were not logged)" in caplog.text
    assert guard.refusals.by_reason == {"origin": 1_001}


def test_a_websocket_is_refused_even_where_it_cannot_have_an_answer() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def route(*_: Any) -> None:
        raise AssertionError("reached")

    scope = scope_of(kind="websocket", headers={"origin": "https://evil.example"}, extensions={})
    asyncio.run(Door(route, OPEN)(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["type"] == "websocket.close"


def test_a_problem_document_has_a_stable_code() -> None:
    assert json.loads(problem(403, "forbidden", "no", reason="grant")) == {
        "title": "Forbidden",
        "status": 403,
        "code": "forbidden",
        "detail": "no",
        "reason": "grant",
    }


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["host", "origin", "authorization", "cookie", "sec-fetch-site", "content-length", "content-encoding"]
            ),
            st.text(st.characters(max_codepoint=255), max_size=30),
        ),
        max_size=5,
    ),
    st.text(st.characters(max_codepoint=127), max_size=30),
)
def test_whatever_a_request_holds_it_gets_an_answer(headers: list[tuple[str, str]], query: str) -> None:
    for guard in (OPEN, closed_guard(cookie="a")):
        answer = through(guard, scope_of(headers=headers, query=query))
        assert answer.status in (200, 400, 401, 403, 413, 415, 429)


# Handshakes


def handshakes(guard: Guard, count: int, address: str = "10.0.0.9") -> list[int]:
    """What so many handshakes at once are answered with; 101 for those that may go on."""
    found = []
    for _ in range(count):
        try:
            guard.enter(scope_of("/ws", kind="websocket", client=(address, 1)))
            found.append(101)
        except Refusal as refusal:
            found.append(refusal.status)
    return found


def test_all_browsers_of_one_address_may_come_back_at_once_and_then_at_a_rate() -> None:
    now = 0.0
    guard = closed_guard(requests_per_second=10, max_requests_per_address=100, clock=lambda: now)
    assert handshakes(guard, 120) == [101] * 100 + [429] * 20
    assert handshakes(guard, 1, "10.0.0.8") == [101]
    now = 1.0
    assert handshakes(guard, 20) == [101] * 10 + [429] * 10
    # requests have their own measure
    assert guard.enter(scope_of("/topics")) is not None


def test_an_address_that_owes_processor_time_waits_and_nobody_else() -> None:
    now = 0.0
    guard = closed_guard(requests_per_second=10, max_requests_per_address=100, clock=lambda: now)
    guard.accounts.spend("10.0.0.9", processor=0.1)
    assert handshakes(guard, 1) == [101]
    guard.accounts.spend("10.0.0.9", processor=4)
    assert handshakes(guard, 1) == [429]
    with pytest.raises(Refusal) as caught:
        guard.enter(scope_of("/topics", client=("10.0.0.9", 1)))
    assert caught.value.reason == "processor"
    assert guard.enter(scope_of("/health/live", client=("10.0.0.9", 1))) is None
    assert handshakes(guard, 1, "10.0.0.8") == [101]
    now = 60.0
    assert handshakes(guard, 1) == [101]


def test_of_those_whom_a_proxy_names_each_has_limits_of_their_own() -> None:
    """Over Home Assistant's Ingress all of them have one address."""
    now = 0.0
    guard = closed_guard(
        policy=dataclasses.replace(POLICY, user_role="viewer"),
        user_headers=["X-User"],
        requests_per_second=10,
        max_requests_per_address=100,
        max_failed_tokens=2,
        clock=lambda: now,
    )

    def ask(user: str, kind: str = "http", query: str = "", **more: Any) -> Answer:
        scope = scope_of(headers={"x-user": user}, kind=kind, query=query, **more)
        if not more:
            scope["extensions"][FROM_PROXY] = True
        answer = through(guard, scope, needs_principal=bool(query))
        assert payer_of(scope) == (User(user) if user and not more else "10.0.0.9")
        return answer

    for kind, count in (("http", 20), ("websocket", 100)):
        assert all(ask("anna", kind).reached for _ in range(count))
        assert ask("anna", kind).status == 429
        assert ask("bert", kind).reached
        # who has no name has the address, and so has whom nobody vouches for
        assert all(ask("", kind).reached for _ in range(count))
        assert ask("bert", kind, client=("10.0.0.9", 1)).status == 429
    now = 60.0
    guard.accounts.spend(User("anna"), processor=4)
    assert ask("anna").json["reason"] == "processor"
    assert ask("bert").status == 200
    assert [ask("bert", query="token=x").status for _ in range(3)] == [401, 401, 429]
    assert ask("carl", query="token=x").status == 401


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        (b"topic=a/+", b"topic=a/%2B"),
        (b"topic=+/b&since=1h&topic=+", b"topic=%2B/b&since=1h&topic=%2B"),
        (b"topic=a%2F+%2fb/+", b"topic=a%2F%2B%2fb/%2B"),
        (b"filter=+/+/+", b"filter=%2B/%2B/%2B"),
        (b"topic=living+room/+", b"topic=living+room/%2B"),
        (b"topic=a=+/b", b"topic=a=+/b"),
        (b"where=a+/+b&topics=+", b"where=a+/+b&topics=+"),
        (b"topic=a%2B", b"topic=a%2B"),
        (b"", b""),
    ],
)
def test_a_plus_is_itself_only_where_it_is_a_level_of_a_filter(query: bytes, meant: bytes) -> None:
    assert literal_plus(query) == meant
    assert literal_plus(meant) == meant


@pytest.mark.parametrize(
    "path", ["/health/../client.js", "/health/", "/health/live/", "/health/x", "/health/live/../../topics"]
)
def test_only_the_two_paths_of_health_are_asked_under_any_name_and_at_any_rate(path: str) -> None:
    guard = Guard(policy=Policy.open(), requests_per_second=1)
    assert through(guard, scope_of("/health/live", headers={"host": "evil.example"})).status == 200
    assert through(guard, scope_of(path, headers={"host": "evil.example"})).status == 403
    answers = [through(guard, scope_of(path)).status for _ in range(4)]
    assert 429 in answers


FRAMED_TWICE = {"content-length": "4", "transfer-encoding": "chunked"}


@pytest.mark.parametrize(
    "scope",
    [
        scope_of(headers={**FRAMED_TWICE, "origin": "http://evil.example"}),
        scope_of(method="OPTIONS", headers={**FRAMED_TWICE, "access-control-request-method": "GET"}),
        scope_of(f"/{'x' * 9_000}", headers=FRAMED_TWICE),
    ],
)
def test_framing_is_judged_before_all_else_and_ends_the_connection(scope: dict[str, Any]) -> None:
    answer = through(closed_guard(), scope)
    assert (answer.status, answer["connection"]) == (400, "close")


@pytest.mark.parametrize("prefix", ["\xa0", "\x85", "\x1c"])
def test_a_cookie_of_a_sibling_site_is_not_taken_for_ours(prefix: str) -> None:
    ours, planted = token("alice"), token("mallory")
    guard = closed_guard(cookie="__Host-token")
    headers = {"cookie": f"{prefix}__Host-token={planted}; \t__Host-token={ours}"}
    answer = through(guard, scope_of(headers=headers))
    assert answer.principal is not None
    assert answer.principal.subject == "alice"


# What waits to be read


def test_a_guard_keeps_the_accounts_that_it_is_given_though_nobody_has_used_anything() -> None:
    accounts = Accounts(time.monotonic)
    assert closed_guard(accounts=accounts).accounts is accounts


def test_an_answer_for_which_there_is_no_room_is_429_and_what_is_read_makes_room() -> None:
    accounts = Accounts(time.monotonic)
    accounts.answers = Memory(100_000, 50_000)
    guard = closed_guard(accounts=accounts)

    async def route(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"40000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 40_000})

    async def main() -> list[int]:
        statuses: list[int] = []
        is_read = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            elif len(message["body"]) == 40_000:
                await is_read.wait()

        async def receive() -> Any:
            return {"type": "http.request"}

        door = Door(route, guard)
        first = asyncio.create_task(door(scope_of(), receive, send))
        await asyncio.sleep(0)
        await door(scope_of(), receive, send)
        await door(scope_of(), receive, send)
        is_read.set()
        await first
        await door(scope_of(), receive, send)
        return statuses

    assert asyncio.run(main()) == [200, 429, 429, 200]
    assert accounts.answers.total == 0
    assert guard.refusals.by_reason["answer_bytes"] == 2

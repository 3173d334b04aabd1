"""Webhooks: what is sent, where to, how often, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.alerts.alerts import Notice
from gateway.alerts.machine import Change, State
from gateway.alerts.posting import Answer, PostError, Request, is_public, send
from gateway.alerts.rules import Rule
from gateway.alerts.webhooks import (
    LONGEST_SECONDS,
    MAX_ATTEMPTS,
    MAX_SECONDS,
    MAX_WAITING,
    Hook,
    Told,
    Webhooks,
    key_of,
    request_for,
    signature,
)
from gateway.settings.alerting import AlertSettings, WebhookSettings
from gateway.settings.loading import load_settings, read_settings
from gateway.settings.rows import SETTINGS
from tests.support.certificates import Authority

TOKEN = "tk_secret_of_somebody"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def notice(summary: str = "attic has 31 °C", state: State = State.FIRING, webhook: str = "phone") -> Notice:
    settings = AlertSettings(name="hot", topics=("s/+",), where="t > 30", webhook=(webhook,))
    before = State.OK if state is State.FIRING else State.FIRING
    return Notice(Rule.of(settings), Change("s/attic", before, state, 2_000, 1_000, 31), summary)


# a body of one's own


def own_body(body: dict[str, Any], **more: Any) -> Any:
    """What a webhook with that body gets."""
    settings = WebhookSettings(url=SecretStr("https://example.com/in"), body=body)
    told = Told("id-1", notice(**more), 0.0)
    request = request_for(Hook.of("own", settings), told, 1)
    assert ("content-type", "application/json") in request.headers
    return json.loads(request.body)


def test_a_body_of_ones_own_has_its_texts_filled_and_all_else_as_it_stands() -> None:
    body = {
        "chat_id": -12, "silent": False, "none": None, "ratio": 0.5, "brace": "{{}}",
        "text": "{alert} {state}: {summary}", "in": [{"topic": "{topic}", "room": "{topic[1]}"}, "{value}", 7],
        "times": "{since} {time} {id}",
    }  # fmt: skip
    assert own_body(body) == {
        "chat_id": -12, "silent": False, "none": None, "ratio": 0.5, "brace": "{}",
        "text": "hot firing: attic has 31 °C", "in": [{"topic": "s/attic", "room": "attic"}, "31", 7],
        "times": "1000 2000 id-1",
    }  # fmt: skip


def test_what_a_summary_says_ends_no_text_of_a_body() -> None:
    summary = 'a "quote", a \\ and a {brace} ' + "x" * 900
    assert own_body({"text": "{summary}"}, summary=summary) == {"text": summary}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"text": "{sumary}"}, "did you mean {summary}?"),
        ({"a": {"b": ["{payload.t}"]}}, " a.b[0]: names {payload.t}"),
        ({"text": "{"}, "has a single {"),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, " at: JSON has no datetime"),
        ({"x": float("nan")}, " x: JSON has no float"),
        ({"\ud800": 1}, "can't be written as JSON"),
        ({"text": "\ud800"}, "can't be written as JSON"),
        ({str(number): 1 for number in range(200)}, "has more than 200 values"),
        ({"x": [[[[[[[[[[1]]]]]]]]]]}, "nested deeper than 10"),
    ],
)
def test_a_body_that_could_not_be_sent_is_refused_at_the_start(body: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(word)):
        WebhookSettings(url=SecretStr("https://example.com/in"), body=body)


def test_a_body_goes_with_no_format() -> None:
    with pytest.raises(ValueError, match="leave one of them out"):
        WebhookSettings(url=SecretStr("https://example.com/in"), format="ntfy", body={"text": "x"})


# addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "192.0.0.8", "192.0.0.170", "198.18.0.1", "203.0.113.9", "224.0.0.251", "239.1.1.1", "240.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    ],
)  # fmt: skip
def test_an_address_that_is_not_of_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_of_ipv6_that_stands_for_one_of_ipv4_is_judged_as_that(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for inner in (f"::ffff:{address}", str(ipaddress.IPv6Address((0x64FF9B << 96) | number))):
        assert is_public(inner) is is_public(str(address))


# requests


class Receiver:
    """A server that answers each request with the next of its answers, and keeps what it got."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.news = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append((head[0], headers, body))
            self.news.set()
            writer.write(self.answers.pop(0) if self.answers else b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
            await reader.read()


@contextlib.asynccontextmanager
async def receiving(*answers: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(*answers)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        for writer in receiver.writers:
            writer.transport.abort()
        server.close()
        await asyncio.sleep(0)


def post(url: str, body: bytes = b"{}") -> Request:
    return Request("POST", url, (("x-a", "1"),), body)


def at(*addresses: str, asked: list[str] | None = None) -> Callable[[str, int], Awaitable[list[str]]]:
    async def resolve(host: str, port: int) -> list[str]:
        if asked is not None:
            asked.append(host)
        return list(addresses)

    return resolve


async def test_a_request_goes_to_the_address_that_was_looked_at_under_its_name() -> None:
    asked: list[str] = []
    async with receiving() as receiver:
        url = f"http://hooks.example:{receiver.port}/a/b?c=%C3%A4"
        answer = await send(post(url, b"hello"), allow_private=True, resolve=at("127.0.0.1", asked=asked))
    assert answer.status == 204
    assert asked == ["hooks.example"]
    [(line, headers, body)] = receiver.requests
    assert (line, body) == ("POST /a/b?c=%C3%A4 HTTP/1.1", b"hello")
    assert (headers["host"], headers["x-a"], headers["connection"]) == (f"hooks.example:{receiver.port}", "1", "close")


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["::1", "10.0.0.1", "169.254.169.254"]])
async def test_a_private_address_is_not_reached_unless_that_is_allowed(addresses: list[str]) -> None:
    async with receiving() as receiver:
        with pytest.raises(PostError, match="no address that is not private") as caught:
            await send(post(f"http://hooks.example:{receiver.port}/"), resolve=at(*addresses))
    assert caught.value.code == "private"
    assert not receiver.requests


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
async def test_however_a_private_address_is_written_it_is_one(host: str) -> None:
    async with receiving() as receiver:
        with pytest.raises(PostError):
            await send(post(f"http://{host}:{receiver.port}/"), timeout_seconds=5)
    assert not receiver.requests


async def test_of_a_name_with_several_addresses_the_private_ones_are_left_out() -> None:
    async with receiving() as receiver:
        resolve = at("127.0.0.1", "8.8.8.8")
        with pytest.raises(PostError) as caught:
            await send(post(f"http://x.example:{receiver.port}/"), resolve=resolve, timeout_seconds=0.2)
    assert caught.value.code == "unreachable"
    assert not receiver.requests


async def test_the_next_address_is_tried_where_the_first_takes_no_connection() -> None:
    async with receiving() as receiver:
        resolve = at("127.0.0.77", "127.0.0.1")
        assert (
            await send(post(f"http://x.example:{receiver.port}/"), allow_private=True, resolve=resolve)
        ).status == 204


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "did not answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000, "RemoteProtocolError"),
    ],
)
async def test_what_is_no_answer_is_told_and_bounded(answer: bytes, text: str) -> None:
    async with receiving(answer) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/s3cret"
        with pytest.raises(PostError, match=text) as caught:
            await send(post(url), allow_private=True, timeout_seconds=0.5)
    assert "s3cret" not in str(caught.value)


async def test_nobody_there_is_told() -> None:
    with pytest.raises(PostError, match=r"127\.0\.0\.1: "):
        await send(post("http://127.0.0.1:1/"), allow_private=True)


async def test_a_certificate_is_for_the_name_and_from_somebody_who_is_trusted(authority: Authority) -> None:
    pair = authority.issue("hooks.example", hosts=("hooks.example",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    trusting = ssl.create_default_context(cafile=authority.ca_file)
    async with receiving(context=context) as receiver:
        resolve = at("127.0.0.1")
        url = f"https://hooks.example:{receiver.port}/"
        answer = await send(post(url), allow_private=True, resolve=resolve, context=trusting)
        assert answer.status == 204
        with pytest.raises(PostError, match="certificate is not accepted"):
            await send(post(url), allow_private=True, resolve=resolve)
        other = url.replace("hooks", "other")
        with pytest.raises(PostError, match="certificate is not accepted"):
            await send(post(other), allow_private=True, resolve=resolve, context=trusting)


# what is said


def told_by(form: str, told: Notice, **settings: Any) -> tuple[Request, dict[str, str]]:
    hook = Hook("phone", "https://hooks.example/x", format=form, **settings)
    request = request_for(hook, Told("id1", told, 0.0), 1_614_265_330)
    return request, dict(request.headers)


def test_json_has_all_of_it() -> None:
    request, headers = told_by("json", notice(), token=TOKEN)
    assert json.loads(request.body) == {
        "id": "id1", "alert": "hot", "state": "firing", "topic": "s/attic", "since": 1_000, "time": 2_000, "value": 31,
        "summary": "attic has 31 °C",
    }  # fmt: skip
    assert (headers["content-type"], headers["authorization"]) == ("application/json", f"Bearer {TOKEN}")


def test_ntfy_has_the_summary_with_a_title() -> None:
    request, headers = told_by("ntfy", notice())
    assert (request.method, request.body.decode()) == ("POST", "attic has 31 °C")
    assert (headers["title"], headers["priority"], headers["tags"]) == ("hot: firing", "4", "warning")
    assert told_by("ntfy", notice(state=State.OK))[1]["priority"] == "3"


def test_slack_is_not_told_links_or_names_that_a_message_made_up() -> None:
    request, _ = told_by("slack", notice("<!channel> & <https://evil.example|here>"))
    text = json.loads(request.body)["text"]
    assert text == "*hot* firing: &lt;!channel&gt; &amp; &lt;https://evil.example|here&gt;"


def test_matrix_is_told_once_however_often_it_is_tried() -> None:
    request, _ = told_by("matrix", notice())
    assert (request.method, request.url) == ("PUT", "https://hooks.example/x/id1")
    assert json.loads(request.body) == {"msgtype": "m.text", "body": "hot firing: attic has 31 °C"}


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification."""
    key, body = key_of(SECRET), b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body) == expected
    request, headers = told_by("json", notice(), secret=key)
    assert headers["webhook-signature"] == signature(key, "id1", 1_614_265_330, request.body)
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("id1", "1614265330")
    assert key_of("not base64 at all") == b"not base64 at all"


# how often


class World:
    """One webhook whose receiver gives the answers of a list, and a clock that only waiting moves."""

    def __init__(self, *answers: int | Answer | PostError) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[float, str]] = []
        self.now = 0.0
        settings = WebhookSettings(url=SecretStr("https://hooks.example/s3cret"), token=SecretStr(TOKEN))
        self.webhooks = Webhooks(
            {"phone": settings},
            clock=lambda: self.now,
            wall_clock_ms=lambda: int(self.now * 1000),
            send=self.send,
            sleep=self.sleep,
        )

    async def send(self, request: Request, allow_private: bool) -> Answer:
        assert not allow_private
        self.sent.append((self.now, json.loads(request.body)["summary"]))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, PostError):
            raise answer
        return Answer(answer) if isinstance(answer, int) else answer

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def run(self) -> None:
        """Until nothing is left to do."""
        task = asyncio.create_task(self.webhooks.run())
        for _ in range(1_000):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def results(self) -> dict[str, int]:
        return {result: count for (_, result), count in self.webhooks.results.items()}


async def test_a_receiver_that_is_away_is_told_later_and_in_order() -> None:
    world = World(PostError("unreachable", "x"), 503, 429, 200)
    world.webhooks.tell(notice("one"))
    world.webhooks.tell(notice("two"))
    await world.run()
    assert [summary for _, summary in world.sent] == ["one", "one", "one", "one", "two"]
    assert world.results() == {"retried": 3, "ok": 2}
    waits = [b - a for (a, _), (b, _) in zip(world.sent[:3], world.sent[1:4], strict=True)]
    assert all(0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits))


async def test_it_is_given_up_after_some_attempts_and_an_hour() -> None:
    world = World(*[500] * 100)
    world.webhooks.tell(notice())
    await world.run()
    assert (len(world.sent), world.results()["failed"]) == (MAX_ATTEMPTS, 1)
    assert world.sent[-1][0] <= MAX_SECONDS


async def test_what_waited_for_too_long_is_tried_once() -> None:
    world = World(500, 500)
    world.webhooks.tell(notice())
    world.now = MAX_SECONDS + 1
    await world.run()
    assert (len(world.sent), world.results()) == (1, {"failed": 1})


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 410])
async def test_a_redirect_or_a_refusal_is_not_tried_again(status: int) -> None:
    world = World(status)
    world.webhooks.tell(notice())
    await world.run()
    assert (len(world.sent), world.results()) == (1, {"refused": 1})


async def test_a_private_address_is_not_tried_again() -> None:
    world = World(PostError("private", "x"))
    world.webhooks.tell(notice())
    await world.run()
    assert world.results() == {"private": 1}


async def test_a_receiver_says_how_long_to_wait_within_bounds() -> None:
    world = World(Answer(429, 60.0), Answer(503, 99_999.0), 200)
    world.webhooks.tell(notice())
    await world.run()
    times = [time for time, _ in world.sent]
    assert (times[1] - times[0], times[2] - times[1]) == (60.0, LONGEST_SECONDS)


async def test_what_waits_is_bounded_and_the_oldest_go() -> None:
    world = World()
    for number in range(MAX_WAITING + 7):
        world.webhooks.tell(notice(str(number)))
    assert world.webhooks.waiting == {"phone": MAX_WAITING}
    await world.run()
    assert world.results() == {"dropped": 7, "ok": MAX_WAITING}
    assert world.sent[0][1] == "7"


async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World(500, 403, PostError("private", "hooks.example has no address"), PostError("unreachable", "x"))
    for _ in range(4):
        world.webhooks.tell(notice())
    await world.run()
    text = caplog.text + repr(world.webhooks.hooks)
    assert "hooks.example" in caplog.text
    assert "s3cret" not in text
    assert TOKEN not in text


# settings


def test_settings_show_nothing_secret(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    hook = f'[webhooks.phone]\nurl = "https://hooks.example/s3cret"\ntoken = "{TOKEN}"\nsecret = "{SECRET}"\n'
    path.write_text(hook + '[[alerts]]\nname = "a"\ntopics = ["a"]\nsilent = 9\nwebhook = "phone"\n')
    settings = load_settings(config_file=path, environ={})
    assert settings.alerts[0].webhook == ("phone",)
    shown = repr(settings) + SETTINGS["webhooks"].show(settings.webhooks)
    assert not any(text in shown for text in ("s3cret", TOKEN, SECRET))
    assert SETTINGS["webhooks"].show(settings.webhooks) == "phone"


@pytest.mark.parametrize(
    ("text", "place", "rule", "way_out"),
    [
        ('url = "ftp://s3cret"', "url", "http:// or https://", ""),
        ('url = "https://s3cret:s3cret@a.example/"', "url", "a user or a password", "token"),
        ('url = "https://a.example/#s3cret"', "url", "neither spaces nor a fragment", "%23"),
        ('url = "https://a.example:99999/s3cret"', "url", "a port", "%C3%A4"),
        ('url = "http://a.example/s3cret"\ntoken = "s3cret"', "", "token over http", "allow_private"),
        ('url = "https://a.example/"\nsecret = "s3cret"', "secret", "bytes", "openssl"),
        ('url = "https://a.example/"\ntoken = "s3 cret"', "token", "without spaces", "Bearer"),
        ('url = "https://a.example/"\nformat = "slak"', "format", "one of json, ntfy, slack, matrix", "mean slack?"),
        ('uri = "https://a.example/s3cret"', "uri", "no key 'uri'", "did you mean url?"),
    ],
)
def test_what_is_wrong_is_told_without_secrets(tmp_path: Path, text: str, place: str, rule: str, way_out: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"[webhooks.phone]\n{text}\n")
    problems = [str(problem) for problem in read_settings(None, path, {}).problems]
    start = f"{path}: [webhooks.phone] {place}".rstrip() + ": "
    [problem] = [problem for problem in problems if problem.startswith(start)]
    assert rule in problem.partition("→")[0]
    assert way_out in problem.partition("→")[2]
    assert not any("s3cret" in problem or "s3 cret" in problem for problem in problems)


def test_a_webhook_that_is_not_there_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    alert = '[[alerts]]\nname = "a"\ntopics = ["a"]\nsilent = 9\nwebhook = ["fone", "pager"]\n'
    path.write_text('[webhooks.phone]\nurl = "https://a.example/"\n' + alert)
    problems = [str(problem) for problem in read_settings(None, path, {}).problems]
    assert ["did you mean phone?" in problem for problem in problems] == [True, False]
    assert "add a table [webhooks.pager]" in problems[1]

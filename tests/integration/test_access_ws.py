"""Tokens and grants on a real gateway's WebSocket: who gets in, what they may do, and how it ends."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber

SECRET = "0123456789abcdef0123456789abcdef"
KEY = secret_key(SECRET)
ROOT = "acc"

pytestmark = pytest.mark.anyio


def token(subject: str | None = "alice", ttl_seconds: float = 60, **claims: Any) -> str:
    claims.setdefault("subscribe", [f"{ROOT}/a/#"])
    return mint(KEY, ttl_seconds=ttl_seconds, subject=subject, **claims)


@pytest.fixture(scope="module")
def guarded(mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(
        tmp_path_factory.mktemp("guarded"),
        mosquitto.url,
        mqtt_client_id=f"guarded-{os.getpid()}",
        mqtt_status_topic=f"{ROOT}/status",
        access_secret=SECRET,
        roles={
            "viewer": {"subscribe": [f"{ROOT}/+/state"]},
            "device": {"subscribe": [f"{ROOT}/{{sub}}/cmd"], "publish": [f"{ROOT}/{{sub}}/#"]},
            "guest": {"subscribe": [f"{ROOT}/public/#"]},
        },
        access_anonymous_role="guest",
        limit_handshake_seconds=1.0,
        limit_failed_tokens=1_000,
        streams={"states": {"topics": [f"{ROOT}/+/state"], "field": "value"}},
        log_format="json",
    )
    with process:
        yield process


@pytest.fixture(scope="module")
def messages(mosquitto: Broker, guarded: GatewayProcess) -> None:
    """One retained message in each corner."""
    with Publisher(mosquitto.url) as publisher:
        for topic in ("a/state", "a/x", "b/state", "b/secret", "public/news"):
            publisher.publish(f"{ROOT}/{topic}", json.dumps({"value": topic}), retain=True)


@pytest.mark.slow
@pytest.mark.usefixtures("messages")
async def test_a_token_in_each_place_opens_what_it_grants(guarded: GatewayProcess) -> None:
    bearer = {"Authorization": f"Bearer {token()}"}
    async with Subscriber(guarded, f"{ROOT}/a/#", headers=bearer) as by_header:
        await by_header.wait_messages(2)
    async with Subscriber(guarded, f"{ROOT}/a/#", token=token()) as by_query:
        await by_query.wait_messages(2)
    async with Subscriber(guarded) as by_command:
        before = time.time()
        await by_command.send("authenticate", id=1, token=token())
        minted = time.time()
        await by_command.send("subscribe", id=2, topics=[f"{ROOT}/a/#"])
        await by_command.wait_messages(2)
        event = await by_command.wait_event("authenticated", id=1)
        assert event["subject"] == "alice"
        assert before - 1 < event["expires"] / 1000 - 60 < minted + 1
        assert [event["event"] for event in by_command.events][:2] == ["authenticated", "subscribed"]
    assert {message["topic"] for message in by_header.messages} == {f"{ROOT}/a/state", f"{ROOT}/a/x"}


@pytest.mark.usefixtures("messages")
@pytest.mark.parametrize(
    "asked", ["#", "+/#", f"{ROOT}/#", f"{ROOT}/+/state", f"{ROOT}/b/secret", "$SYS/#", "+/a/#", f"{ROOT}/A/x"]
)
async def test_a_wider_filter_is_refused_and_nothing_of_it_arrives(guarded: GatewayProcess, asked: str) -> None:
    async with Subscriber(guarded) as subscriber:
        await subscriber.send("authenticate", token=token())
        await subscriber.send("subscribe", id=1, topics=[f"{ROOT}/a/x", asked])
        error = await subscriber.wait_event("error", id=1)
        assert error["code"] == "forbidden"
        assert "not granted to 'alice'" in error["message"]
        await subscriber.send("ping", id=2)
        await subscriber.wait_event("pong", id=2)
        assert subscriber.messages == []
    async with Subscriber(guarded, asked, token=token()) as by_address:
        assert await by_address.wait_closed() == 4003
        assert by_address.messages == []


async def test_what_is_refused_in_band_is_counted_as_well(guarded: GatewayProcess) -> None:
    watcher = {"Authorization": f"Bearer {token(subscribe=['$SYS/#'])}"}
    name = 'gateway_refused_total{reason="grant"}'
    before = guarded.metrics(watcher).get(name, 0)
    async with Subscriber(guarded, token=token()) as subscriber:
        await subscriber.send("subscribe", id=1, topics=["#"])
        await subscriber.send("publish", id=2, topic="elsewhere", payload=1)
        for number in (1, 2):
            assert (await subscriber.wait_event("error", id=number))["code"] == "forbidden"
    assert guarded.metrics(watcher)[name] == before + 2


@pytest.mark.usefixtures("messages")
async def test_replay_and_last_values_need_the_same_grant(guarded: GatewayProcess) -> None:
    for since in ("last", "1h", "now"):
        async with Subscriber(guarded, f"{ROOT}/b/secret", token=token(), since=since) as subscriber:
            assert await subscriber.wait_closed() == 4003
            assert subscriber.messages == []


@pytest.mark.usefixtures("messages")
async def test_those_without_a_token_have_the_anonymous_role(guarded: GatewayProcess) -> None:
    async with Subscriber(guarded, f"{ROOT}/public/#") as guest:
        await guest.wait_messages(1)
    async with Subscriber(guarded, f"{ROOT}/a/#") as curious:
        assert await curious.wait_closed() == 4001
        error = await curious.wait_event("error")
        assert (error["code"], error["reason"]) == ("unauthorized", "no_token")
        assert curious.messages == []


@pytest.mark.usefixtures("messages")
async def test_a_stream_needs_its_filters_granted(guarded: GatewayProcess) -> None:
    async with Subscriber(guarded, path="/ws/states/", token=token(roles=["viewer"])) as viewer:
        await viewer.wait(lambda: len(viewer.frames) >= 2)
    async with Subscriber(guarded, path="/ws/states/", token=token()) as other:
        assert await other.wait_closed() == 4003
        assert other.frames == []
    async with Subscriber(guarded, path="/ws/states/") as anonymous:
        assert await anonymous.wait_closed() == 4001
        assert anonymous.frames == []


@pytest.mark.usefixtures("messages")
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (token(ttl_seconds=36_000)[:-4] + "AAAA", "bad_signature"),
        (mint(KEY, ttl_seconds=1, now=time.time() - 3_600, subscribe=["#"]), "expired"),
        (mint(KEY, ttl_seconds=36_000, now=time.time() + 3_600, subscribe=["#"]), "not_yet_valid"),
        (mint(KEY, ttl_seconds=36_000, audience="other", subscribe=["#"]), "bad_audience"),
        (mint(secret_key("another secret of 32 bytes or more"), ttl_seconds=36_000, subscribe=["#"]), "bad_signature"),
        ("eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTksInRvcGljcyI6eyJzdWJzY3JpYmUiOlsiIyJdfX0.", "bad_algorithm"),
        ("nonsense", "malformed"),
        ("a" * 8_193, "too_long"),
    ],
)
async def test_a_bad_token_is_refused_with_its_reason(
    mosquitto: Broker, guarded: GatewayProcess, bad: str, reason: str
) -> None:
    async with Subscriber(guarded) as subscriber:
        await subscriber.send("authenticate", id=7, token=bad)
        error = await subscriber.wait_event("error", id=7)
        assert (error["code"], error["reason"]) == ("unauthorized", reason)
        # the connection lives, as whom it was before
        await subscriber.send("subscribe", id=8, topics=[f"{ROOT}/public/#"])
        await subscriber.wait_event("subscribed", id=8)
        await subscriber.send("subscribe", id=9, topics=[f"{ROOT}/a/#"])
        assert (await subscriber.wait_event("error", id=9))["code"] == "forbidden"
    if len(bad) < 8_000:
        async with Subscriber(guarded, f"{ROOT}/a/#", token=bad) as by_address:
            assert await by_address.wait_closed() == (4005 if reason == "expired" else 4001)
            assert by_address.messages == []


async def test_a_token_of_another_subject_does_not_take_a_connection_over(guarded: GatewayProcess) -> None:
    async with Subscriber(guarded, token=token("alice")) as subscriber:
        await subscriber.send("authenticate", id=1, token=token("bob", subscribe=["#"]))
        error = await subscriber.wait_event("error", id=1)
        assert (error["code"], error["reason"]) == ("forbidden", "other_subject")
        await subscriber.send("subscribe", id=2, topics=["#"])
        assert (await subscriber.wait_event("error", id=2))["code"] == "forbidden"


@pytest.mark.usefixtures("messages")
async def test_a_narrower_token_takes_filters_away(mosquitto: Broker, guarded: GatewayProcess) -> None:
    wide = token(subscribe=[f"{ROOT}/a/#", f"{ROOT}/b/#"])
    async with Subscriber(guarded, f"{ROOT}/a/x", f"{ROOT}/b/secret", token=wide) as subscriber:
        await subscriber.wait_messages(2)
        await subscriber.send("authenticate", token=token())
        gone = await subscriber.wait_event("unsubscribed")
        assert gone["topics"] == [f"{ROOT}/b/secret"]
        assert gone["reason"] == "forbidden"
        with Publisher(mosquitto.url) as publisher:
            publisher.publish(f"{ROOT}/b/secret", "no longer")
            publisher.publish(f"{ROOT}/a/x", "still")
        await subscriber.wait(lambda: "still" in subscriber.payloads())
        assert "no longer" not in subscriber.payloads()


async def test_a_token_that_ends_is_announced_and_then_closes_the_connection(guarded: GatewayProcess) -> None:
    began = time.monotonic()
    async with Subscriber(guarded, f"{ROOT}/a/#", token=token(ttl_seconds=2)) as subscriber:
        warning = await subscriber.wait_event("expiring")
        assert 0 <= warning["seconds"] <= 1
        assert await subscriber.wait_closed() == 4005
        assert subscriber.reason == "the token has expired"
        assert time.monotonic() - began > 0.5
        # and the same token does not open it again, once the leeway for clocks is over
    late = mint(KEY, ttl_seconds=1, now=time.time() - 12, subscribe=[f"{ROOT}/a/#"])
    async with Subscriber(guarded, f"{ROOT}/a/#", token=late) as replayed:
        assert await replayed.wait_closed() == 4005


@pytest.mark.slow
async def test_a_renewed_token_keeps_the_connection(mosquitto: Broker, guarded: GatewayProcess) -> None:
    async with Subscriber(guarded, f"{ROOT}/a/#", token=token(ttl_seconds=2)) as subscriber:
        await subscriber.wait_event("expiring")
        await subscriber.send("authenticate", id=1, token=token(ttl_seconds=600))
        await subscriber.wait_event("authenticated", id=1)
        deadline = time.monotonic() + 2.5
        with Publisher(mosquitto.url) as publisher:
            while time.monotonic() < deadline:
                publisher.publish(f"{ROOT}/a/x", "tick")
                await subscriber.wait(lambda: subscriber.payloads() and subscriber.payloads()[-1] == "tick")
        assert subscriber.code is None


@pytest.mark.slow
async def test_one_who_may_nothing_has_to_show_a_token_soon(mosquitto: Broker, make_gateway: Any) -> None:
    gateway = make_gateway(mosquitto, access_secret=SECRET, limit_handshake_seconds=0.5)
    async with Subscriber(gateway) as silent, Subscriber(gateway) as known:
        await known.send("authenticate", id=1, token=token())
        await known.wait_event("authenticated", id=1)
        assert await silent.wait_closed() == 4001
        assert "no token within" in silent.reason
        await known.send("ping", id=2)
        await known.wait_event("pong", id=2)


@pytest.mark.usefixtures("messages")
async def test_publishing_is_allowed_where_a_grant_says_so(mosquitto: Broker, guarded: GatewayProcess) -> None:
    device = token("dev-1", subscribe=[], roles=["device"])
    async with Subscriber(guarded, token=device) as subscriber:
        await subscriber.send("publish", id=1, topic=f"{ROOT}/dev-1/state", payload={"value": 1}, qos=1)
        await subscriber.wait_event("published", id=1)
        for number, topic in enumerate((f"{ROOT}/dev-2/state", "$SYS/x", "a", f"{ROOT}/dev-1/+", "$share/g/x"), 2):
            await subscriber.send("publish", id=number, topic=topic, payload=1)
            error = await subscriber.wait_event("error", id=number)
            assert error["code"] in ("forbidden", "bad_topic"), topic
    async with Subscriber(guarded) as anonymous:
        await anonymous.send("publish", id=1, topic=f"{ROOT}/public/news", payload=1)
        assert (await anonymous.wait_event("error", id=1))["code"] == "forbidden"


async def test_the_subject_cannot_widen_a_role(guarded: GatewayProcess) -> None:
    for subject in ("+", "#", "a/b", f"x/../{ROOT}", "$SYS", ""):
        async with Subscriber(guarded, token=token(subject, subscribe=[], roles=["device"])) as subscriber:
            for number, topic in enumerate((f"{ROOT}/+/cmd", f"{ROOT}/a/cmd", f"{ROOT}/#")):
                await subscriber.send("subscribe", id=number, topics=[topic])
                assert (await subscriber.wait_event("error", id=number))["code"] == "forbidden"


async def test_no_token_reaches_the_log(guarded: GatewayProcess) -> None:
    sent = token("mallory")
    async with Subscriber(guarded, f"{ROOT}/a/#", token=sent) as subscriber:
        await subscriber.send("authenticate", id=1, token=sent)
        await subscriber.wait_event("authenticated", id=1)
    guarded.get(f"/nothing?token={sent}", {"Origin": "https://evil.example"})
    guarded.get(f"/topics/a?token={sent}")
    guarded.get("/topics/a", {"Authorization": f"Bearer {sent}"})
    log = guarded.log()
    assert "closed after" in log
    for part in sent.split("."):
        assert part not in log
    assert SECRET not in log
    assert "token=" not in log


async def test_the_log_names_each_connection(guarded: GatewayProcess) -> None:
    async with Subscriber(guarded, f"{ROOT}/a/#", token=token("trent")) as subscriber:
        await subscriber.wait_event("subscribed")

    def entry() -> dict[str, Any] | None:
        lines = [json.loads(line) for line in guarded.log().splitlines() if line.startswith("{")]
        return next((line for line in lines if line.get("subject") == "trent"), None)

    await subscriber.wait(entry)
    found = entry()
    assert found is not None
    assert found["connection"] in found["message"]

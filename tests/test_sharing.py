"""Links that read some of what their maker may read, and publishes that say what they replace."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.grants import AccessError, Grant, Principal, may_read
from gateway.access.keys import secret_key
from gateway.access.policy import Policy
from gateway.access.sharing import MAX_GENERATIONS, MAX_SHARED, Sharing
from gateway.access.tokens import Verifier, mint
from gateway.core.topics import TopicError
from tests.test_topics_api import ask, running

pytestmark = pytest.mark.anyio

SECRET = "a secret of more than thirty-two bytes"
KEY = secret_key(SECRET)
SHARING = Sharing(KEY, 86_400.0)


def claims_of(token: str, **expected: Any) -> dict[str, Any]:
    import jwt

    found: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"], **expected)
    return found


def person(*filters: str, expires_at: float | None = None) -> Principal:
    grants = tuple(Grant(each, "the token") for each in filters)
    return Principal("ann", grants, grants, expires_at=expires_at)


def test_a_shared_token_reads_what_was_asked_and_nothing_else() -> None:
    token, ends = SHARING.token(person("sensors/#"), ["sensors/a/state"], 600, time.time())
    claims = claims_of(token)
    assert claims["topics"] == {"subscribe": ["sensors/a/state"]}
    assert claims["exp"] == ends
    assert "sub" not in claims
    principal = Policy().principal(claims)
    assert (principal.publish, principal.subject) == ((), None)


@given(
    have=st.lists(st.sampled_from(["a/#", "a/+", "b/x", "+/x", "#"]), max_size=3),
    asked=st.lists(st.sampled_from(["a/#", "a/+", "a/x", "b/x", "b/#", "+/x", "#", "$SYS/#", "{sub}/x"]), min_size=1),
    topic=st.sampled_from(["a", "a/x", "a/x/y", "b/x", "b/y", "$SYS/x", "ann/x", "{sub}/x"]),
)
def test_nobody_gives_more_than_he_has(have: list[str], asked: list[str], topic: str) -> None:
    maker = person(*have)
    try:
        token, _ = SHARING.token(maker, asked, 600, time.time())
    except AccessError:
        return
    shared = Policy().principal(claims_of(token))
    assert may_read(maker, topic) or not may_read(shared, topic)


def test_a_shared_token_ends_with_its_makers_and_no_later_than_may_be() -> None:
    now = time.time()
    assert SHARING.token(person("#"), ["a"], 1e9, now)[1] == int(now) + 86_400
    assert SHARING.token(person("#", expires_at=now + 60), ["a"], 600, now)[1] <= now + 60
    with pytest.raises(AccessError):
        SHARING.token(person("#", expires_at=now), ["a"], 600, now)


@pytest.mark.parametrize(
    ("maker", "filters", "seconds", "error"),
    [
        (person("#"), [], 600.0, AccessError),
        (person("#"), ["a"] * (MAX_SHARED + 1), 600.0, AccessError),
        (person("#"), ["a"], 0.0, AccessError),
        (person("#"), ["a"], float("nan"), AccessError),
        (person("#"), ["a/#/b"], 600.0, TopicError),
        (Principal(None, (Grant("#", "role"),), anonymous=True), ["a"], 600.0, AccessError),
    ],
)
def test_what_can_not_be_shared_is_told(
    maker: Principal, filters: list[str], seconds: float, error: type[Exception]
) -> None:
    with pytest.raises(error):
        SHARING.token(maker, filters, seconds, time.time())


async def test_a_link_is_made_where_the_setting_allows_it_and_its_token_is_verified() -> None:
    token = mint(KEY, ttl_seconds=600, subject="ann", subscribe=["sensors/#"], audience="us", issuer="we")
    bearer = f"Bearer {token}"
    asked = json.dumps({"subscribe": ["sensors/a"], "seconds": 60}).encode()
    policy = {"access_secret": SECRET, "access_audience": "us", "access_issuer": "we"}
    async with running(**policy) as (app, _):
        assert (await ask(app, "/tokens", "POST", data=asked, authorization=bearer)).status == 404
        assert (await ask(app, "/whoami", authorization=bearer)).json()["share_seconds"] is None
    async with running(**policy, access_share_max="1h") as (app, gateway):
        gateway.hub.publish("sensors/a", b"1")
        gateway.hub.publish("sensors/b", b"2")
        assert (await ask(app, "/whoami", authorization=bearer)).json()["share_seconds"] == 3600
        answer = await ask(app, "/tokens", "POST", data=asked, authorization=bearer)
        assert (answer.status, answer.headers["cache-control"]) == (201, "no-store")
        made = json.loads(answer.body)
        shared = f"Bearer {made['token']}"
        assert made["expires"] <= (time.time() + 61) * 1000
        assert (await ask(app, "/topics/sensors/a", authorization=shared)).status == 200
        assert (await ask(app, "/topics/sensors/b", authorization=shared)).status == 403
        assert (await ask(app, "/topics/sensors/a", "POST", authorization=shared)).status == 403
        for body, status in (
            (b"{", 400),
            (b"[]", 400),
            (json.dumps({"subscribe": ["#"], "seconds": 60}).encode(), 403),
            (json.dumps({"subscribe": ["a/#/b"], "seconds": 60}).encode(), 400),
            (json.dumps({"subscribe": ["sensors/a"], "seconds": 60, "publish": ["a"]}).encode(), 400),
            (b" " * 70_000, 413),
        ):
            assert (await ask(app, "/tokens", "POST", data=body, authorization=bearer)).status == status
        assert (await ask(app, "/tokens", "POST", data=asked)).status == 401


async def test_what_is_made_of_a_token_ends_when_that_is_called_back() -> None:
    policy = {"access_secret": SECRET, "access_share_max": "1h"}
    by = mint(KEY, ttl_seconds=600, subject="boss", publish=["$gateway/revocations"])
    for how in ("token", "subject", "link"):
        async with running(**policy) as (app, _):
            chain = [mint(KEY, ttl_seconds=600, subject="ann", subscribe=["a/#"])]
            for _ in range(3):
                data = json.dumps({"subscribe": ["a/#"], "seconds": 60}).encode()
                answer = await ask(app, "/tokens", "POST", data=data, authorization=f"Bearer {chain[-1]}")
                chain.append(json.loads(answer.body)["token"])
            other = mint(KEY, ttl_seconds=600, subject="bert", subscribe=["a/#"])
            assert "ann" not in json.dumps(claims_of(chain[-1]))
            called = {
                "token": {"token": chain[0]},
                "subject": {"subject": "ann"},
                "link": {"token": chain[2]},
            }[how]
            bearer = f"Bearer {by if how == 'subject' else called['token']}"
            data = json.dumps(called).encode()
            assert (await ask(app, "/tokens/revoke", "POST", data=data, authorization=bearer)).status == 200
            asked = [await ask(app, "/topics/a", authorization=f"Bearer {each}") for each in (*chain, other)]
            lives = 2 if how == "link" else 0
            assert [answer.status for answer in asked] == [200] * lives + [401] * (4 - lives) + [200], how


def test_links_of_links_have_an_end() -> None:
    maker = person("#")
    for _ in range(1 + MAX_GENERATIONS):  # the first one is made of no link
        token, _ = SHARING.token(maker, ["#"], 600, time.time())
        maker = Policy().principal(claims_of(token))
    with pytest.raises(AccessError, match="8 times at most"):
        SHARING.token(maker, ["#"], 600, time.time())


async def test_a_gateway_that_can_not_sign_says_so_at_its_start() -> None:
    with pytest.raises(AccessError, match="no key to sign with"):
        async with running(access_share_max="1h"):
            pass


async def test_a_verifier_of_narrower_algorithms_takes_the_shared_token() -> None:
    secret = "s" * 20 + "0123456789abcdefghijklmnopqrstuvwxyz-and-some-more-bytes"
    async with running(access_secret=secret, access_algorithms=["HS384"], access_share_max="1h") as (_, gateway):
        assert gateway.sharing is not None
        token, _ = gateway.sharing.token(person("a"), ["a"], 60, time.time())
        verifier = gateway.guard.verifier
        assert isinstance(verifier, Verifier)
        assert (await verifier.verify(token))["topics"] == {"subscribe": ["a"]}


# a publish that says what it replaces


async def test_of_two_who_save_at_once_one_is_told_that_he_did_not_see_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(view_topic="views") as (app, gateway):

        async def publish(topic: str, payload: bytes, **_: object) -> None:
            await asyncio.sleep(0)
            gateway.hub.publish(topic, payload)

        monkeypatch.setattr(gateway, "publish", publish)
        assert (await ask(app, "/whoami")).json()["views"] == "views"
        path = "/topics/views/kitchen?retain=1"
        assert (await ask(app, path, "POST", data=b"0", if_match='"x"')).status == 412
        made = await ask(app, path, "POST", data=b"1", if_none_match="*")
        assert made.status == 202
        tag = made.headers["etag"]
        assert (await ask(app, "/topics/views/kitchen?format=payload")).headers["etag"] == tag
        assert (await ask(app, path, "POST", data=b"2", if_none_match="*")).status == 412
        both = await asyncio.gather(*(ask(app, path, "POST", data=data, if_match=tag) for data in (b"3", b"4")))
        assert sorted(answer.status for answer in both) == [202, 412]
        [won] = [answer for answer in both if answer.status == 202]
        [lost] = [answer for answer in both if answer.status == 412]
        assert json.loads(lost.body)["reason"] == "precondition"
        # what was taken away may be made anew
        assert (await ask(app, path, "POST", data=b"", if_match=won.headers["etag"])).status == 202
        assert (await ask(app, path, "POST", data=b"5", if_match="*")).status == 412
        assert (await ask(app, path, "POST", data=b"5", if_none_match="*")).status == 202
        assert (await ask(app, path, "POST", data=b"5", if_none_match='"x"')).status == 400


async def test_a_condition_is_reading_and_takes_a_grant_for_it() -> None:
    async with running(access_secret=SECRET) as (app, gateway):
        gateway.hub.publish("views/a", b"secret")
        bearer = f"Bearer {mint(KEY, ttl_seconds=60, publish=['views/#'])}"
        answers = [
            await ask(app, "/topics/views/a", "POST", data=b"1", authorization=bearer, if_match='"x"'),
            await ask(app, "/topics/views/a", "POST", data=b"1", authorization=bearer, if_none_match="*"),
        ]
        assert [answer.status for answer in answers] == [403, 403]

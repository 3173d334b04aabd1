"""Tokens that are called back: which they are, for how long, in a file, and what goes on by them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from gateway.access import revocations as module
from gateway.access.grants import Principal
from gateway.access.keys import secret_key
from gateway.access.limits import LimitError
from gateway.access.revocations import REVOKE_TOPIC, Revocation, RevocationFile, Revocations, fingerprint
from gateway.access.tokens import mint
from gateway.core.protocol import CloseCode
from gateway.door.expiry import Expiry
from tests.fakes import finished
from tests.support.waiting import eventually_async
from tests.test_topics_api import ask, running

pytestmark = pytest.mark.anyio

SECRET = "more than thirty-two bytes of a secret"


def token(**claims: object) -> str:
    return mint(secret_key(SECRET), **{"ttl_seconds": 3600, "subject": "anna", "subscribe": ["#"], **claims})  # type: ignore[arg-type]


def test_a_token_is_called_back_by_its_name_and_a_subject_up_to_a_time() -> None:
    known = Revocations()
    anna, later = Principal("anna", token_id="a", issued_at=100.0), Principal("anna", token_id="b", issued_at=301.0)
    bert = Principal("bert", token_id="c", issued_at=100.0)
    timeless = Principal("anna", token_id="d")
    assert known.add(Revocation("c", None, 200.0), 200.0)
    assert [known.covers(each) for each in (anna, later, bert, timeless)] == [False, False, True, False]
    assert known.add(Revocation(None, "anna", 300.0), 300.0)
    assert [known.covers(each) for each in (anna, later, bert, timeless)] == [True, False, True, True]
    assert not known.add(Revocation(None, "anna", 200.0), 300.0), "an earlier one is no news"
    assert not known.covers(Principal(anonymous=True))
    assert not known.covers(Principal(token_id="z"))


def test_nothing_is_forgotten_before_its_end_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 3)
    known = Revocations()
    for name, ends in (("a", 1_000.0), ("b", 5_000.0), ("c", None)):
        known.add(Revocation(name, None, 0.0, ends), 0.0)
    with pytest.raises(LimitError, match="3 tokens and subjects are called back already"):
        known.add(Revocation("d", None, 900.0), 900.0)
    assert len(known) == 3
    assert known.add(Revocation("d", None, 1_100.0), 1_100.0)
    assert [known.covers(Principal("x", token_id=name)) for name in "abcd"] == [False, True, True, True]


def test_whoever_watches_is_told_once() -> None:
    known = Revocations()
    ended: list[str] = []
    for number in range(1_200):
        name = "anna" if number % 2 else "bert"
        known.watch(Principal(name, token_id=str(number), issued_at=1.0), lambda name=name: ended.append(name))  # type: ignore[misc]
    gone = known.watch(Principal("anna", issued_at=1.0), lambda: ended.append("gone"))
    known.forget(gone)
    revocation = Revocation(None, "anna", 2.0)
    known.add(revocation, 2.0)
    assert finished(known.end(revocation)) == 600
    assert ended == ["anna"] * 600
    assert finished(known.end(revocation)) == 0


def test_two_processes_share_a_file_and_what_has_ended_goes(tmp_path: Path) -> None:
    mine, theirs = RevocationFile(tmp_path / "revoked"), RevocationFile(tmp_path / "revoked")
    assert mine.changed() == []
    mine.add([Revocation("a", None, 1.0, 10.0)], 1.0)
    theirs.add([Revocation(None, "anna", 2.0)], 2.0)
    assert [each.token_id or each.subject for each in mine.changed()] == ["a", "anna"]
    assert mine.changed() == []
    theirs.add([Revocation("b", None, 100.0)], 100.0)
    assert [each.token_id or each.subject for each in mine.changed()] == ["b", "anna"]
    assert (tmp_path / "revoked").stat().st_mode & 0o077 == 0
    (tmp_path / "revoked").write_text('{"x": 1}\n')
    with pytest.raises(ValueError, match="calls nothing back"):
        mine.changed()


def test_a_name_of_a_token_is_of_what_is_signed() -> None:
    made = token()
    head, _, signature = made.rpartition(".")
    assert fingerprint(made) == fingerprint(f"{head}.{signature[:-1]}A")
    assert fingerprint(made) != fingerprint(token(subject="bert"))


async def revoke(app: object, bearer: str | None, **asked: object) -> tuple[int, dict[str, object]]:
    headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
    answer = await ask(app, "/tokens/revoke", "POST", data=json.dumps(asked).encode(), **headers)  # type: ignore[arg-type]
    return answer.status, json.loads(answer.body)


async def test_who_may_call_back_what() -> None:
    async with running(access_secret=SECRET) as (app, _):
        mine = token(publish=["#"])
        admin = token(subject="root", publish=[REVOKE_TOPIC])
        assert (await revoke(app, mine, subject="bert"))[0] == 403, "a wildcard is no grant for it"
        assert (await revoke(app, None, subject="bert"))[0] == 401
        assert (await revoke(app, None, jti="x"))[0] == 401
        for wrong in (
            {}, {"subject": ""}, {"jti": "a", "subject": "b"}, {"jti": "x" * 1001}, {"surprise": 1},
            {"jti": "a", "expires": 10**400}, {"jti": "a", "expires": -1},
        ):  # fmt: skip
            assert (await revoke(app, admin, **wrong))[0] == 400, wrong
        assert (await revoke(app, admin, token=mine, expires=1))[0] == 400
        assert (await revoke(app, None, token="x"))[0] == 401
        assert await revoke(app, None, token=mine) == (200, {"ended": 0, "kept": False}), "who has it may end it"
        answer = await ask(app, "/topics", authorization=f"Bearer {mine}")
        assert answer.status == 401
        assert json.loads(answer.body)["reason"] == "revoked"
        other = token()
        assert (await ask(app, "/topics", authorization=f"Bearer {other}")).status == 200
        assert (await revoke(app, admin, subject="anna"))[0] == 200
        assert (await ask(app, "/topics", authorization=f"Bearer {other}")).status == 401
        assert (await ask(app, "/topics", authorization=f"Bearer {admin}")).status == 200
    async with running() as (app, _):
        assert (await revoke(app, None, subject="anna"))[0] == 404


async def test_it_is_kept_over_a_restart_and_told_to_another_gateway(tmp_path: Path) -> None:
    file = str(tmp_path / "revoked")
    admin, mine = token(subject="root", publish=[REVOKE_TOPIC]), token()
    async with (
        running(access_secret=SECRET, access_revocations=file) as (app, _),
        running(access_secret=SECRET, access_revocations=file) as (other, gateway),
    ):
        ended: list[tuple[CloseCode, str]] = []
        expiry = Expiry(
            gateway.guard, asyncio.get_running_loop().call_later, lambda _: None, lambda *end: ended.append(end)
        )
        expiry.watch(await gateway.guard.authenticate(mine, None))
        assert await revoke(app, admin, subject="anna") == (200, {"ended": 0, "kept": True})
        await eventually_async(lambda: ended)
        assert ended == [(CloseCode.UNAUTHORIZED, "the token was called back")]
        assert (await ask(other, "/topics", authorization=f"Bearer {mine}")).status == 401
    async with running(access_secret=SECRET, access_revocations=file) as (app, _):
        assert (await ask(app, "/topics", authorization=f"Bearer {mine}")).status == 401


async def test_what_was_called_back_while_it_was_judged_ends_all_the_same() -> None:
    async with running(access_secret=SECRET) as (_, gateway):
        principal = await gateway.guard.authenticate(token(), None)
        await gateway.revoke(Revocation(None, "anna", time.time()))
        ended: list[tuple[CloseCode, str]] = []
        expiry = Expiry(
            gateway.guard, asyncio.get_running_loop().call_later, lambda _: None, lambda *end: ended.append(end)
        )
        expiry.watch(principal)
        await asyncio.sleep(0.01)
        assert [code for code, _ in ended] == [CloseCode.UNAUTHORIZED]


async def test_a_file_that_can_not_be_written_is_told_and_it_holds_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "none" / "revoked"
    mine = token()
    async with running(access_secret=SECRET, access_revocations=str(file)) as (app, _):
        status, answer = await revoke(app, None, token=mine)
        assert status == 503
        assert "could not be written" in str(answer["detail"])
        assert (await ask(app, "/topics", authorization=f"Bearer {mine}")).status == 401

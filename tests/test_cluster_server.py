"""The scripts against the model of them, and what a server says that can't be used."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.access.revocations import GRACE_SECONDS, Revocation
from gateway.cluster import server as server_module
from gateway.cluster.address import Address, AddressError
from gateway.cluster.entries import FORM, Entry, Id, Row, encode
from gateway.cluster.questions import Append, Begin, Look, Meet, Read, ServerError
from gateway.cluster.resp import command, parts
from gateway.cluster.revoked import Revoke, Revoked
from gateway.cluster.server import RefusedError, Server
from gateway.cluster.views import Meta, View
from tests.conftest import MakeMosquitto, MakeValkey
from tests.support import streams
from tests.support.certificates import Authority
from tests.support.streams import ModelServer
from tests.support.valkeys import SentinelServer, ValkeyServer, program_of
from tests.support.waiting import free_port, missing


@pytest.mark.parametrize(
    ("url", "address", "shown"),
    [
        ("valkey://localhost", Address((("localhost", 6379),)), "valkey://localhost:6379/0"),
        (
            "rediss://me:p%40ss@db.example:1234/5",
            Address((("db.example", 1234),), 5, None, True, "me", "p@ss"),
            "valkeys://db.example:1234/5",
        ),
        ("valkey://:secret@[::1]", Address((("::1", 6379),), password="secret"), "valkey://[::1]:6379/0"),
        (
            "valkey+sentinel://a,b:1/main/2",
            Address((("a", 26379), ("b", 1)), 2, "main"),
            "valkey+sentinel://a:26379,b:1/main/2",
        ),
    ],
)
def test_an_address_says_where_the_server_is_and_shows_no_password(url: str, address: Address, shown: str) -> None:
    assert Address.parse(url) == address
    assert str(address) == shown
    assert address.password is None or address.password not in repr(address) + str(address)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("localhost:6379", "must start with"),
        ("http://localhost", "must start with"),
        ("valkey://", "no host"),
        ("valkey://a:0x1", "no host"),
        ("valkey://a,b", "more than one host"),
        ("valkey+sentinel://a", "must name the service"),
        ("valkey://a/x", "number of a database"),
    ],
)
def test_what_is_no_address_says_what_it_has_to_be(url: str, rule: str) -> None:
    with pytest.raises(AddressError, match=rule):
        Address.parse(url)


@pytest.fixture(params=["valkey", "redis"])
def make_valkey(request: pytest.FixtureRequest, make_valkey: MakeValkey) -> MakeValkey:
    """Redis as well, where its program is."""
    if request.param == "redis" and program_of("redis") is None:
        missing("the program redis-server")

    def make(*options: str, password: str | None = None, kind: str = request.param) -> ValkeyServer:
        return make_valkey(*options, password=password, kind=kind)

    return make


def server_of(valkey: ValkeyServer, url: str | None = None, lease_seconds: float = 30) -> Server:
    return Server(Address.parse(url or valkey.url), "test", lease_seconds=lease_seconds)


def begin(token: str, before: Id | None, epoch: str = "e1", server: str = "s") -> Begin:
    at = Id(0, 1) if before is None else before.following
    meta = Meta(epoch, at, token, "n1", 5, server, at, "no broker")
    return Begin(before, at, meta, encode(Entry(FORM, epoch, token, at.seq + 1)))


def append(token: str, before: Id, count: int = 1, **options: Any) -> Append:
    entry = Entry(FORM, "e1", token, before.seq + 1, rows=[Row("t", b"x" * 5)] * count)
    at = Id(entry.last) if count else before.following
    return Append(token, before, at, encode(entry), **({"server": "s"} | options))


@pytest.mark.anyio
async def test_scripts_do_what_the_model_of_them_does(make_valkey: MakeValkey) -> None:
    server = server_of(make_valkey())
    model = ModelServer(time.monotonic, lease_seconds=30)
    choose = random.Random(7)
    tokens = ["t1", "t2"]
    try:
        for _ in range(400):
            ids = [at for at, _ in model.entries] or [Id(0, 1)]
            tail = choose.choice([ids[-1]] * 4 + ids[-3:])
            token = choose.choice(tokens)
            questions: list[Meet | Begin | Append | Read | Look] = [
                Meet(choose.choice([None, token]), choose.choice([None, "", "no broker"])),
                begin(token, choose.choice([None, tail])),
                append(token, tail, choose.randint(0, 3), is_end=choose.random() < 0.05),
                append(token, tail, choose.randint(1, 3), server=choose.choice("ab")),
                Read(tail, 0.0, 3),
                Look(tail),
            ]
            question = choose.choice(questions)
            for _ in range(choose.randint(1, 2)):  # the second time it changes nothing
                found = await server.ask(question)
                expected: Any = model.ask(question)
                if isinstance(question, Meet):
                    assert found.server
                    assert isinstance(expected, View)
                    assert isinstance(found, View)
                    assert replace(found, server="", free_in_ms=0) == replace(expected, server="", free_in_ms=0)
                    assert (found.free_in_ms > 0) == (expected.free_in_ms > 0)
                else:
                    assert found == expected, question
        assert len(model.entries) > 20
    finally:
        server.close()


@pytest.mark.anyio
async def test_scripts_keep_what_was_called_back_as_the_model_of_them_does(
    make_valkey: MakeValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (server_module, streams):
        monkeypatch.setattr(module, "ROWS", 4)
        monkeypatch.setattr(module, "MAX_REVOCATIONS", 12)
    server, model = server_of(make_valkey()), ModelServer(time.time)
    choose = random.Random(7)
    now = time.time()
    versions = ["", "other:3"]
    fullness: set[bool] = set()
    try:
        for _ in range(300):
            told = [
                Revocation(
                    *choose.choice([(f"t{choose.randint(0, 9)}", None), (None, f"ä {choose.randint(0, 9)}")]),
                    at=now + choose.randint(0, 5) + choose.random(),
                    # those that have ended go with the next one that is told
                    ends=choose.choice([None, now + choose.random() * 1e6, now - 3_600, 9e15]),
                )
                for _ in range(choose.randint(0, 4))
            ]
            questions: list[Revoke | Revoked] = [
                Revoke("list", told),
                Revoked(choose.choice(versions[:2] + versions[-3:])),
            ]
            question = choose.choice(questions)
            found: Any = await server.ask(question)
            assert found == model.ask(question), question
            if isinstance(question, Revoked):
                versions.append(found.version)
            else:
                fullness.add(found.is_full)
        assert fullness == {True, False}
        assert len(set(versions)) > 20
    finally:
        server.close()


@pytest.mark.anyio
async def test_what_was_called_back_goes_when_all_of_it_has_ended(make_valkey: MakeValkey) -> None:
    valkey = make_valkey()
    server = server_of(valkey)

    async def left(*revocations: Revocation) -> list[int]:
        """Seconds, of each key; -1 is for good."""
        await server.ask(Revoke("list", revocations))
        wire = server._wire
        assert wire is not None
        keys = [f"gateway:{{test}}:revoked{part}" for part in ("", ":version", ":numbers", ":ends")]
        return [await wire.ask(command(2, parts("TTL", key)), 5.0) for key in keys]

    try:
        ends = time.time() + 1_000
        for seconds in await left(Revocation("a", None, 1.0, ends)):
            assert 1_000 < seconds <= 1_000 + GRACE_SECONDS + 2
        assert await left(Revocation(None, "anna", 1.0)) == [-1] * 4
    finally:
        server.close()


@pytest.mark.anyio
async def test_a_lease_ends_by_itself_and_a_server_that_was_restarted_is_another_one(make_valkey: MakeValkey) -> None:
    valkey = make_valkey("--appendonly", "yes")
    server = server_of(valkey, lease_seconds=0.3)
    try:
        before = await server.ask(Meet("t1"))
        assert before.holder == "t1"
        assert await server.ask(begin("t1", None))
        assert (await server.ask(Meet(None))).holder == "t1"
        await asyncio.sleep(0.4)
        assert (await server.ask(Meet(None))).holder is None
        assert not await server.ask(append("t1", Id(0, 1)))
        valkey.kill()
        with pytest.raises(ServerError):
            await server.ask(Meet(None))
        valkey.start()
        after = await server.ask(Meet(None))
        assert after.tail == Id(0, 1)
        assert after.meta == begin("t1", None).meta
        assert after.server != before.server
    finally:
        server.close()


@pytest.mark.anyio
async def test_entries_are_waited_for_and_old_ones_dropped(make_valkey: MakeValkey) -> None:
    valkey = make_valkey()
    server, other = server_of(valkey), server_of(valkey)
    try:
        await server.ask(Meet("t1"))
        await server.ask(begin("t1", None))
        tail = Id(0, 1)
        assert await other.ask(Read(tail, 0.05)) == []
        for _ in range(300):
            trim = Id(tail.seq - 100) if tail.seq > 100 else None
            found = append("t1", tail, trim=trim)
            assert await server.ask(found)
            tail = found.at
        assert [at for at, _ in await other.ask(Read(Id(295), 1.0))] == [Id(seq) for seq in range(296, 301)]
        view = await server.ask(Meet("t1"))
        assert view.first.seq > 50
    finally:
        server.close()
        other.close()


async def said(server: Server, *words: str | int) -> Any:
    """What the server answers to something that a node doesn't ask."""
    wire = server._wire
    assert wire is not None
    return await wire.ask(command(len(words), parts(*words)), 5.0)


@pytest.mark.anyio
async def test_entries_are_pushed_to_who_has_read_all_before_and_asked_for_by_who_has_not(
    make_valkey: MakeValkey,
) -> None:
    valkey = make_valkey()
    leader, follower = server_of(valkey), server_of(valkey)
    found: list[Id] = []

    async def append_some(count: int) -> None:
        tail = found[-1] if found else Id(0, 1)
        for _ in range(count):
            question = append("t1", tail)
            assert await leader.ask(question)
            tail = question.at

    async def read_up_to(end: Id) -> None:
        while not found or found[-1] < end:
            entries = await follower.ask(Read(found[-1] if found else Id(0, 1), 5.0, 8))
            found.extend(at for at, _ in entries)

    async def asked() -> int:
        """How often the stream was asked for what is in it."""
        return int(re.search(rb"cmdstat_xread:calls=(\d+)", await said(leader, "INFO", "commandstats"))[1])  # type: ignore[index]

    async def subscribed() -> int:
        return int((await said(leader, "PUBSUB", "NUMSUB", "gateway:{test}:log"))[1])

    try:
        await leader.ask(Meet("t1"))
        await leader.ask(begin("t1", None))
        await append_some(50)
        await read_up_to(Id(50))
        while await asyncio.wait_for(follower.ask(Read(found[-1], 0.05, 8)), 5):
            pass
        assert await subscribed() == 1
        before = await asked()
        reading = asyncio.create_task(read_up_to(Id(150)))
        await append_some(100)
        await asyncio.wait_for(reading, 10)
        await follower.ask(Meet(None))  # all of them were pushed, as it says
        reading = asyncio.create_task(read_up_to(Id(160)))
        await append_some(10)
        await asyncio.wait_for(reading, 10)
        assert await asked() == before
        # who begins to lead knows by itself what it appends
        assert await leader.ask(append("t1", Id(160), 0, is_end=True))
        tail = (await follower.ask(Meet("t2"))).tail
        assert await follower.ask(begin("t2", tail))
        assert await subscribed() == 0
    finally:
        leader.close()
        follower.close()


@pytest.mark.anyio
async def test_an_entry_of_which_nobody_was_told_is_found_with_the_next_look(make_valkey: MakeValkey) -> None:
    valkey = make_valkey()
    server, follower = server_of(valkey), server_of(valkey)
    try:
        await server.ask(Meet("t1"))
        await server.ask(begin("t1", None))
        for _ in range(3):  # the third time it waits
            assert await follower.ask(Read(Id(0, 1), 0.05)) == []
        await said(server, "XADD", "gateway:{test}:log", "7-0", "e", "x")
        assert await follower.ask(Read(Id(0, 1), 0.05)) == []
        await follower.ask(Meet(None))
        assert await follower.ask(Read(Id(0, 1), 5.0)) == [(Id(7), b"x")]
    finally:
        server.close()
        follower.close()


@pytest.mark.anyio
async def test_who_may_use_no_channel_is_told_at_the_start(make_valkey: MakeValkey) -> None:
    valkey = make_valkey()
    server = server_of(valkey)
    await server.check()
    await said(server, "ACL", "SETUSER", "anna", "on", ">secret", "~*", "+@all", "resetchannels")
    server.close()
    anna = server_of(valkey, f"valkey://anna:secret@127.0.0.1:{valkey.port}")
    try:
        with pytest.raises(RefusedError, match="does not permit this user what a cluster needs"):
            await anna.check()
    finally:
        anna.close()


@pytest.mark.anyio
async def test_a_server_that_can_not_be_used_says_why(make_valkey: MakeValkey, make_mosquitto: MakeMosquitto) -> None:
    locked = make_valkey(password="right-one")
    evicting = make_valkey("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    mosquitto = make_mosquitto()
    cases = [
        (f"valkey://:wrong-one@127.0.0.1:{locked.port}", RefusedError, "user or password"),
        (f"valkey://127.0.0.1:{locked.port}", RefusedError, "user or password"),
        (evicting.url, RefusedError, "noeviction"),
        (f"valkey://127.0.0.1:{mosquitto.port}", ServerError, "127.0.0.1"),
        ("valkey://127.0.0.1:1", ServerError, "can't be asked"),
        (f"valkeys://127.0.0.1:{locked.port}", ServerError, "can't be asked"),
    ]
    for url, kind, text in cases:
        server = Server(Address.parse(url), "test", lease_seconds=2)
        with pytest.raises(kind, match=text) as raised:
            await server.check()
        assert "wrong-one" not in str(raised.value)
        server.close()
    server = Server(Address.parse(f"valkey://:right-one@127.0.0.1:{locked.port}"), "test", lease_seconds=2)
    assert (await server.check()).split()[0] in ("Valkey", "Redis")
    server.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("info", "rule"),
    [
        ("redis_version:5.0.14", "is Redis 5.0.14: a cluster needs Valkey, or Redis from 6.2 on"),
        (
            "redis_version:7.2.4\r\nvalkey_version:8.1.0\r\ncluster_enabled:1",
            "is a Valkey cluster, which has no database",
        ),
    ],
)
async def test_a_server_of_another_kind_says_what_is_needed(info: str, rule: str) -> None:
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1_000):
                if b"SELECT" in data:
                    writer.write(b"+OK\r\n")
                else:
                    writer.write(f"${len(info)}\r\n{info}\r\n".encode() if b"INFO" in data else b"+none\r\n")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    database = 3 if "cluster" in info else 0
    server = Server(Address.parse(f"valkey://127.0.0.1:{port}/{database}"), "test", lease_seconds=2)
    try:
        with pytest.raises(RefusedError, match=rule):
            await server.check()
    finally:
        server.close()
        await ended.wait()
        listening.close()


@pytest.mark.anyio
async def test_a_full_server_says_so_and_one_that_is_frozen_is_not_waited_for(make_valkey: MakeValkey) -> None:
    valkey = make_valkey("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    server = server_of(valkey)
    try:
        await server.ask(Meet("t1"))
        await server.ask(begin("t1", None))
        tail = Id(0, 1)
        with pytest.raises(ServerError, match="is full"):  # noqa: PT012 - which one is the last is not known
            while True:
                found = append("t1", tail)
                await server.ask(Append(found.token, found.before, found.at, b"x" * 100_000, found.server))
                tail = found.at
        valkey.freeze()
        with pytest.raises(ServerError, match="does not answer"):
            await server.ask(Look(tail))
        valkey.thaw()
        assert await server.ask(Look(tail)) is not None
    finally:
        server.close()


def own_program() -> str:
    """The kind of server of which this machine has the program: a container knows no addresses and files of ours."""
    kind = next((kind for kind in ("valkey", "redis") if shutil.which(f"{kind}-server")), None)
    return kind or missing("the program valkey-server or redis-server")


@pytest.mark.parametrize("password", [None, "for-sentinels"])
async def test_sentinels_say_where_the_server_is(make_valkey: MakeValkey, tmp_path: Path, password: str | None) -> None:
    valkey = make_valkey(password=password, kind=own_program())
    sentinel = SentinelServer(tmp_path / "sentinel", "main", valkey, password=password)
    await asyncio.to_thread(sentinel.start)
    address = replace(Address.parse(f"valkey+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main"), password=password)
    server = Server(address, "test", lease_seconds=30)
    try:
        assert (await server.ask(Meet("t1"))).holder == "t1"
        server.close()
        unknown = Server(replace(address, service="other"), "test", lease_seconds=30)
        with pytest.raises(ServerError, match="know no server 'other'"):
            await unknown.ask(Meet("t1"))
    finally:
        server.close()
        sentinel.forget()


async def test_over_tls_the_server_has_to_be_vouched_for(make_valkey: MakeValkey, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    pair = authority.issue("localhost", hosts=("localhost",))
    port = free_port()
    valkey = make_valkey(
        "--tls-port", str(port), "--tls-cert-file", str(pair.cert), "--tls-key-file", str(pair.key),
        "--tls-ca-cert-file", str(authority.ca_file), "--tls-auth-clients", "no", kind=own_program(),
    )  # fmt: skip
    address = Address.parse(f"valkeys://localhost:{port}/0")
    server = Server(replace(address, ca_file=authority.ca_file), "test", lease_seconds=30)
    stranger = server_of(valkey, str(address))
    try:
        assert (await server.ask(Meet("t1"))).holder == "t1"
        with pytest.raises(ServerError, match=r"(?i)certificate"):
            await stranger.ask(Meet("t2"))
    finally:
        server.close()
        stranger.close()

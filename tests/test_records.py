"""transport.records: however small the records of TLS are, one connection's are a step of a turn, and are paid for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.access.budget import Accounts, Budget
from gateway.transport import records
from gateway.transport.certificates import server_context
from gateway.transport.records import Records, let_go
from gateway.transport.turns import Turns
from tests.support.certificates import Authority
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

COUNT = 2_000


class Clock:
    """Processor time that only decrypting takes: a tenth of a step for each record."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_within = False

    def thread_time(self) -> float:
        self.is_within = not self.is_within
        if not self.is_within:
            self.now += records.STEP_SECONDS / 10
        return self.now


class Connection:
    """Both ends of TLS in memory; the near one is read as a loop's own TLS does, until there is nothing more."""

    def __init__(self, near: Records, far: ssl.SSLObject, to_near: ssl.MemoryBIO, to_far: ssl.MemoryBIO) -> None:
        self.near = near
        self.far = far
        self._to_near = to_near
        self._to_far = to_far
        self.read: list[bytes] = []
        self.reads = True
        self.rounds: list[int] = []

    def shake_hands(self) -> None:
        for _ in range(4):
            for end in (self.far, self.near):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
        while self._to_far.pending:
            try:
                self.far.read()
            except ssl.SSLWantReadError:
                break

    def write(self, data: bytes) -> None:
        """Each byte in a record of its own."""
        for at in range(len(data)):
            self.far.write(data[at : at + 1])

    def read_all(self) -> None:
        before = len(self.read)
        try:
            while self._to_near.pending:
                self.read.append(self.near.read(65_536))
        except ssl.SSLWantReadError:
            pass
        self.rounds.append(len(self.read) - before)

    # as a transport

    def is_reading(self) -> bool:
        return self.reads

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True
        asyncio.get_running_loop().call_soon(self.read_all)

    def get_extra_info(self, name: str) -> Any:
        return {"ssl_object": self.near}.get(name)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("gateway", hosts=("localhost",))
    trusting = ssl.create_default_context(cafile=authority.ca_file)
    to_near, to_far = ssl.MemoryBIO(), ssl.MemoryBIO()
    far = trusting.wrap_bio(to_far, to_near, server_hostname="localhost")
    near = server_context(pair.cert, pair.key).wrap_bio(to_near, to_far, server_side=True)
    assert isinstance(near, Records)
    found = Connection(near, far, to_near, to_far)
    found.shake_hands()
    yield found
    let_go(found)  # type: ignore[arg-type]


DATA = bytes(number % 256 for number in range(COUNT))


async def test_records_are_decrypted_in_steps_that_are_paid_for(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "time", Clock())
    accounts = Accounts(lambda: 0.0)
    connection.near.take_turns(Turns(), Budget(accounts, "10.0.0.1"), connection)  # type: ignore[arg-type]
    connection.write(DATA)
    connection.read_all()
    assert connection.rounds == [10]
    await eventually_async(lambda: len(connection.read) == COUNT, 20, "everything is read")
    assert b"".join(connection.read) == DATA
    assert max(connection.rounds) <= 11
    # what the last step took is charged with the next one
    assert accounts.processor == pytest.approx(COUNT / 10 * records.STEP_SECONDS, abs=2 * records.STEP_SECONDS)


async def test_who_owes_is_read_on_when_that_is_paid(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "time", Clock())
    now = 0.0
    budget = Budget(Accounts(lambda: now), "10.0.0.1")
    connection.near.take_turns(Turns(), budget, connection)  # type: ignore[arg-type]
    budget.spend(processor=0.3)  # two seconds at once are 0.2 s of the core
    assert 0.9 < budget.wait() < 1.1
    later: list[tuple[float, Any]] = []
    monkeypatch.setattr(
        asyncio.get_running_loop(), "call_later", lambda wait, call: later.append((wait, call)), raising=False
    )
    connection.write(DATA[:30])
    connection.read_all()
    connection.read_all()
    assert connection.rounds == [10, 0]
    assert len(later) == 1
    monkeypatch.undo()
    monkeypatch.setattr(records, "time", Clock())
    now = 5.0
    later[0][1]()
    await eventually_async(lambda: len(connection.read) == 30, 20, "the rest is read")


async def test_one_to_whom_nobody_listens_is_not_read(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "time", Clock())
    connection.near.take_turns(Turns(), Budget(Accounts(lambda: 0.0), None), connection)  # type: ignore[arg-type]
    connection.write(DATA[:30])
    connection.pause_reading()
    connection.read_all()
    for _ in range(5):
        await asyncio.sleep(0)
    assert connection.rounds == [10]
    connection.resume_reading()
    await eventually_async(lambda: len(connection.read) == 30, 20, "the rest is read")


async def test_whole_records_are_read_at_once(connection: Connection) -> None:
    connection.near.take_turns(Turns(), Budget(Accounts(lambda: 0.0), None), connection)  # type: ignore[arg-type]
    connection.far.write(b"x" * 16_000)
    connection.read_all()
    assert connection.read == [b"x" * 16_000]

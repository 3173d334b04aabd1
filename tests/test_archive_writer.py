"""The writer: it keeps everything or says what it didn't, and nobody waits for the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.archive import writer as writer_module
from gateway.archive.blocks import Block
from gateway.archive.failures import ArchiveError, Trouble
from gateway.archive.file import ArchiveFile, Hole, SnapshotParts
from gateway.archive.writer import MAX_LAG_SECONDS, Writer
from gateway.core.messages import Message
from tests.support.archives import FaultyFile, ThreadedLoop

NOW = 1_700_000_000_000


class Bench:
    """A writer on a file that fails when told to."""

    def __init__(self, path: Path, **options: int) -> None:
        self.loop = ThreadedLoop()
        self.file = FaultyFile(path)
        self.troubles: list[ArchiveError | None] = []
        self.replaced = 0
        self.seq = self.file.seq
        self.writer = Writer(
            self.file,
            flush_seconds=1.0,
            max_bytes=options.get("max_bytes", 10**6),
            call_soon_threadsafe=self.loop.call_soon_threadsafe,
            call_later=self.loop.call_later,
            clock=self.loop.clock,
            on_trouble=self.troubles.append,
            on_replaced=self._count,
        )

    def _count(self, _seq: int) -> None:
        self.replaced += 1

    def publish(self, count: int, *, payload: bytes = b"1", time: int = NOW) -> None:
        for _ in range(count):
            self.seq += 1
            self.writer.append(Message.arrived(self.seq, "a", payload, time), payload)

    def until_written(self) -> None:
        self.loop.until(lambda: self.writer.written_seq == self.seq, "all is written")

    def close(self) -> None:
        self.file.gate.set()
        self.writer.close()
        assert self.writer.join(20)
        self.file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


@pytest.fixture
def bench(path: Path) -> Iterator[Bench]:
    bench = Bench(path)
    yield bench
    bench.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.02)


def rows(path: Path) -> list[list[int]]:
    """The numbers in each block."""
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT first_seq, topics, data FROM blocks ORDER BY first_seq").fetchall()
    finally:
        connection.close()
    return [list(range(block.first_seq, block.last_seq + 1)) for block in (Block(*row) for row in found)]


def test_a_second_of_messages_becomes_one_block(bench: Bench, path: Path) -> None:
    bench.publish(3)
    bench.loop.run(0.9)
    assert bench.file.appends == 0
    bench.loop.run(0.2)
    bench.until_written()
    bench.publish(2)
    bench.loop.run(1.1)
    bench.until_written()
    assert rows(path) == [[1, 2, 3], [4, 5]]
    counters = bench.writer.counters
    assert (counters.blocks, counters.messages, counters.commits, counters.dropped) == (2, 5, 2, 0)
    assert bench.writer.waiting_bytes == 0


def test_nothing_is_written_while_nothing_comes(bench: Bench) -> None:
    bench.loop.run(60)
    assert bench.file.appends == 0


def test_many_bytes_are_handed_over_before_the_second_is_over(bench: Bench, path: Path) -> None:
    bench.publish(3, payload=bytes(500_000))
    bench.loop.until(lambda: bench.writer.written_seq == 3)
    assert rows(path) == [[1, 2, 3]]


def test_times_rise_within_each_block(bench: Bench, path: Path) -> None:
    bench.publish(2)
    bench.publish(2, time=NOW - 5_000)
    bench.publish(1, time=NOW + 3600_000)
    bench.writer.hand_over()
    bench.until_written()
    assert rows(path) == [[1, 2], [3, 4], [5]]
    assert bench.file.steps == [3]


def test_who_waits_is_called_when_what_was_appended_before_is_on_the_disk(bench: Bench, path: Path) -> None:
    called: list[int] = []
    bench.writer.when_settled(lambda: called.append(0))
    assert called == [0]  # nothing was to be waited for
    bench.publish(2)
    bench.writer.when_settled(lambda: called.append(2))
    bench.file.gate.clear()
    bench.loop.run(1.1)
    bench.publish(1)
    bench.writer.when_settled(lambda: called.append(3))
    bench.loop.run(0.5)
    assert called == [0]
    bench.file.gate.set()
    bench.loop.until(lambda: called == [0, 2])
    assert rows(path) == [[1, 2]]
    bench.loop.run(1.1)
    bench.loop.until(lambda: called == [0, 2, 3])


def test_an_error_of_one_who_waits_holds_up_nobody_else(bench: Bench) -> None:
    called: list[int] = []
    bench.publish(1)
    bench.writer.when_settled(lambda: called.remove(1))
    bench.writer.when_settled(lambda: called.append(2))
    bench.writer.hurry()
    bench.loop.until(lambda: called == [2])


def test_a_disk_that_is_too_slow_costs_what_has_no_room_and_says_so(path: Path) -> None:
    bench = Bench(path, max_bytes=2_500)
    bench.file.gate.clear()
    called: list[int] = []
    for _ in range(6):
        bench.publish(2, payload=bytes(400))
        bench.writer.hand_over()
    bench.writer.when_settled(lambda: called.append(1))
    assert called == [1]  # nobody waits any more
    assert bench.writer.counters.dropped == 8
    assert bench.writer.waiting_bytes <= 2_500
    assert [t.trouble for t in bench.troubles if t] == [Trouble.SLOW]
    bench.file.gate.set()
    bench.loop.until(lambda: bench.writer.waiting_bytes == 0)
    bench.publish(2)
    bench.writer.hand_over()
    bench.until_written()
    assert bench.troubles[-1] is None
    assert [seq for row in rows(path) for seq in row] == [1, 2, 3, 4, 13, 14]
    assert bench.file.holes == [Hole(5, 12, "overload")]
    bench.close()


def test_one_batch_may_wait_however_large_it_is(path: Path) -> None:
    bench = Bench(path, max_bytes=1_000)
    bench.publish(1, payload=bytes(50_000))
    bench.writer.hand_over()
    bench.until_written()
    assert bench.writer.counters.dropped == 0
    bench.close()


def test_what_is_not_kept_at_the_end_is_a_hole_after_the_restart(path: Path) -> None:
    bench = Bench(path, max_bytes=1_000)
    bench.file.gate.clear()
    for _ in range(3):
        bench.publish(2, payload=bytes(400))
        bench.writer.hand_over()
    bench.file.gate.set()
    bench.close()
    file = ArchiveFile(path)
    assert (file.seq, file.last_seq, file.holes) == (6, 2, [Hole(3, 6, "overload")])
    file.close()


def test_after_so_long_nobody_waits_for_the_disk_any_more(bench: Bench) -> None:
    called: list[int] = []
    bench.file.gate.clear()
    bench.publish(1)
    bench.loop.run(1.1)
    bench.writer.when_settled(lambda: called.append(1))
    bench.loop.run(MAX_LAG_SECONDS)
    assert called == []
    bench.publish(1)
    bench.loop.run(1.1)
    assert called == [1]
    assert [t.trouble for t in bench.troubles if t] == [Trouble.SLOW]
    bench.file.gate.set()
    bench.until_written()
    assert bench.writer.trouble is None


@pytest.mark.parametrize("trouble", [Trouble.FULL, Trouble.READ_ONLY, Trouble.IO])
def test_what_could_not_be_written_is_written_when_it_can(bench: Bench, path: Path, trouble: Trouble) -> None:
    called: list[int] = []
    bench.file.error = ArchiveError(trouble, "so it is")
    bench.publish(2)
    bench.writer.when_settled(lambda: called.append(1))
    bench.writer.hand_over()
    bench.loop.until(lambda: bench.writer.counters.failures[trouble] >= 2)
    # the relay goes on: nobody waits
    assert called == [1]
    bench.publish(1)
    bench.writer.when_settled(lambda: called.append(2))
    assert called == [1, 2]
    bench.writer.hand_over()
    bench.file.error = None
    bench.until_written()
    assert [t and t.trouble for t in bench.troubles] == [trouble, None]
    assert [seq for row in rows(path) for seq in row] == [1, 2, 3]
    assert bench.file.holes == []


def test_a_file_that_is_found_damaged_is_replaced_and_what_waits_is_kept(bench: Bench, path: Path) -> None:
    bench.publish(2)
    bench.writer.hand_over()
    bench.until_written()
    epoch = bench.file.epoch
    bench.file.error = ArchiveError(Trouble.CORRUPT, "malformed")
    bench.publish(2)
    bench.writer.hand_over()
    bench.loop.until(lambda: bench.replaced == 1)
    bench.file.error = None
    bench.until_written()
    assert bench.file.set_aside is not None
    assert (rows(bench.file.set_aside), rows(path)) == ([[1, 2]], [[3, 4]])
    assert (bench.file.epoch, bench.file.first_seq) == (epoch, 3)


def test_the_end_is_written_with_all_that_waits(bench: Bench, path: Path) -> None:
    bench.publish(3)
    bench.writer.close(SnapshotParts(3, [b"x"]))
    assert bench.writer.join(20)
    bench.file.close()
    file = ArchiveFile(path)
    assert (file.seq, file.last_seq, file.snapshot_seq, file.holes) == (3, 3, 3, [])
    file.close()


def test_an_end_that_can_not_be_written_counts_as_a_crash(bench: Bench, path: Path) -> None:
    bench.file.error = ArchiveError(Trouble.FULL, "no room")
    bench.publish(3)
    bench.writer.close()
    assert bench.writer.join(20)
    bench.file.close()
    file = ArchiveFile(path)
    assert [hole.reason for hole in file.holes] == ["crash"]
    assert file.seq > 3
    file.close()


def test_the_thread_rests_between_chores_and_what_comes_meanwhile_is_written_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "CHORE_REST", 1e9)  # of a chore that takes nothing
    chores: list[int] = []

    def chore() -> bool:
        chores.append(bench.seq)
        return True  # there is always another one

    bench.until_written()
    monkeypatch.setattr(bench.file, "do_chore", chore)
    for _ in range(10):
        bench.publish(3)
        bench.writer.hand_over()
        bench.until_written()
    assert 0 < len(chores) <= 11

"""The bound of the file: the oldest goes, the newest stays, and nobody is told that nothing is missing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gateway.archive import trimming
from gateway.archive.blocks import Batch
from gateway.archive.file import ArchiveFile
from gateway.archive.offline import Offline
from gateway.core.filters import FilterSet
from gateway.core.messages import Message
from tests.support.archives import Life

START = 1_699_920_000_000
EVERYTHING = FilterSet(["#"])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "KEPT_BLOCKS", 5)
    monkeypatch.setattr(trimming, "PAGES_AT_ONCE", 5)


def write(file: ArchiveFile, blocks: int, *, hours_each: int = 0) -> None:
    """Writes blocks of a hundred messages that can hardly be compressed."""
    chance = random.Random(1)
    for _ in range(blocks):
        first = (file.last_seq or file.seq) + 1
        batch = Batch(first)
        for seq in range(first, first + 100):
            payload = b'{"v":%f,"x":"%s"}' % (chance.random(), chance.randbytes(100).hex().encode())
            time = START + seq * (hours_each * 36_000 or 10)
            batch.add(Message.arrived(seq, f"a/{seq % 10}", payload, time), payload)
        file.append([batch])
        while file.do_chore():
            pass


def test_the_file_stays_within_its_bound_and_keeps_the_newest(tmp_path: Path) -> None:
    bound = 400_000
    file = ArchiveFile(tmp_path / "archive.db", max_bytes=bound)
    write(file, 200)
    assert file.last_seq == 20_000
    assert 1 < file.first_seq < 20_000 - 500
    assert trimming.Trimmer.used(file._connection) <= bound
    assert (tmp_path / "archive.db").stat().st_size <= bound * 1.3  # the room is given back
    file.append([], end=file.last_seq)
    file.close()
    found = Offline(tmp_path / "archive.db")
    assert [fault for fault in found.verify() if fault] == []
    found.close()
    again = ArchiveFile(tmp_path / "archive.db")
    assert again.last_seq == 20_000
    again.close()


@pytest.mark.slow
def test_roll_ups_go_when_no_older_messages_are_left(tmp_path: Path) -> None:
    file = ArchiveFile(tmp_path / "archive.db")
    write(file, 40, hours_each=24)
    one = "SELECT count(*), min(start) FROM chunks WHERE level = ?"
    minutes, hours = ([*file._connection.execute(one, (level,)).fetchone()] for level in (0, 1))
    assert minutes[0] > 300
    assert hours[0] > 100
    file.trimmer.max_bytes = 1
    for _ in range(1_000):
        if not file.do_chore():
            break
    assert file._connection.execute("SELECT count(*) FROM blocks").fetchone()[0] == 5
    assert file._connection.execute(one, (0,)).fetchone()[0] == 0
    assert file._connection.execute(one, (1,)).fetchone()[0] == 0
    # what is not packed yet stays, and so does what comes
    write(file, 1)
    assert file.last_seq == 4_100
    file.close()


def test_without_a_bound_nothing_goes(tmp_path: Path) -> None:
    file = ArchiveFile(tmp_path / "archive.db")
    write(file, 20)
    assert (file.first_seq, file.last_seq) == (1, 2_000)
    file.close()


def test_who_asks_for_what_has_gone_is_told(tmp_path: Path) -> None:
    life = Life(tmp_path / "archive.db", max_messages=3)
    for _ in range(20):
        for number in range(100):
            life.publish(f"a/{number % 10}", b"x" * 50)
        life.flush()
    assert life.archive.is_whole(EVERYTHING, 0, 100)
    life.archive._file.trimmer.max_bytes = 1
    life.publish("a/1", b"x")
    life.flush()
    life.loop.until(lambda: life.archive.begins_after > 0)
    assert not life.archive.is_whole(EVERYTHING, 0, 100)
    assert life.archive.is_whole(EVERYTHING, life.archive.begins_after, life.history.seq)
    life.close()

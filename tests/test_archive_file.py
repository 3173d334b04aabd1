"""The file of the archive: numbers are never given twice, one gateway at a time, damage is set aside and told."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from gateway.archive.blocks import Batch, Block
from gateway.archive.failures import ArchiveError, Trouble, trouble_of
from gateway.archive.file import RESERVED, ArchiveFile, Hole, SnapshotParts
from gateway.archive.schema import UPGRADES
from gateway.core.messages import Message

NOW = 1_700_000_000_000


def batch_of(first: int, count: int, *, time: int = NOW, topic: str = "a", payload: bytes = b"1") -> Batch:
    batch = Batch(first)
    for seq in range(first, first + count):
        batch.add(Message.arrived(seq, topic, payload, time + seq), payload)
    return batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


def seqs(path: Path) -> list[int]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT first_seq, topics, data FROM blocks ORDER BY first_seq").fetchall()
    connection.close()
    return [block.first_seq + at for block in (Block(*row) for row in rows) for at in range(len(block))]


def test_a_new_file_begins_at_nothing_under_an_epoch_of_its_own(path: Path) -> None:
    file = ArchiveFile(path)
    assert (file.seq, file.first_seq, file.last_seq, file.holes, file.set_aside) == (0, 0, 0, [], None)
    assert file.reserved == RESERVED
    epoch = file.epoch
    file.close()
    with_another_name = ArchiveFile(path.with_name("other.db"))
    assert len(epoch) == 6
    assert with_another_name.epoch != epoch
    with_another_name.close()


def test_after_an_orderly_end_the_numbers_go_on_without_a_hole(path: Path) -> None:
    file = ArchiveFile(path)
    file.append([batch_of(1, 5)])
    file.append([], end=5)
    epoch = file.epoch
    file.close()
    again = ArchiveFile(path)
    assert (again.epoch, again.seq, again.first_seq, again.last_seq, again.holes) == (epoch, 5, 1, 5, [])
    again.close()


def test_after_a_crash_no_number_is_given_twice_and_the_hole_is_known(path: Path) -> None:
    file = ArchiveFile(path)
    file.append([batch_of(1, 5)])
    file.close()
    again = ArchiveFile(path)
    assert (again.seq, again.last_seq, again.holes) == (RESERVED, 5, [Hole(6, RESERVED, "crash")])
    again.append([batch_of(RESERVED + 1, 2)])
    again.close()
    third = ArchiveFile(path)
    assert third.seq == 2 * RESERVED
    assert third.holes == [Hole(6, RESERVED, "crash"), Hole(RESERVED + 3, 2 * RESERVED, "crash")]
    third.close()


def test_the_reservation_is_raised_before_it_is_used_up(path: Path) -> None:
    file = ArchiveFile(path)
    for first in range(1, 10):
        file.append([batch_of(first * RESERVED // 3, 1)])
        assert file.reserved - file.last_seq >= RESERVED // 2
    file.close()
    again = ArchiveFile(path)
    assert again.seq >= file.reserved
    again.close()


def test_what_was_reserved_counts_however_often_it_crashes_before_anything_is_written(path: Path) -> None:
    for crash in range(3):
        file = ArchiveFile(path)
        assert file.seq == crash * RESERVED
        file.close()


def test_a_transaction_that_fails_leaves_nothing_behind(path: Path) -> None:
    file = ArchiveFile(path)
    file.append([batch_of(1, 3)])
    with pytest.raises(ArchiveError):
        file.append([batch_of(4, 2, topic="new"), batch_of(1, 1)])
    assert (file.last_seq, seqs(path)) == (3, [1, 2, 3])
    # its ids are not taken for known
    file.append([batch_of(4, 2, topic="new")])
    assert seqs(path) == [1, 2, 3, 4, 5]
    file.close()


def test_a_clock_that_was_set_back_is_noted(path: Path) -> None:
    file = ArchiveFile(path)
    file.append([batch_of(1, 2), batch_of(3, 2, time=NOW - 60_000), batch_of(5, 2)])
    assert file.steps == [3]
    file.close()
    again = ArchiveFile(path)
    assert again.steps == [3]
    again.close()


def test_a_snapshot_takes_the_place_of_the_one_before(path: Path) -> None:
    file = ArchiveFile(path)
    file.append([batch_of(1, 2)], snapshot=SnapshotParts(1, [b"x", b"y", b"z"]))
    file.append([], snapshot=SnapshotParts(2, [b"w"]))
    file.close()
    again = ArchiveFile(path)
    assert again.snapshot_seq == 2
    again.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT data FROM snapshot").fetchall() == [(zlib.compress(b"w"),)]
    connection.close()


def test_a_second_gateway_is_told_and_does_not_start(path: Path) -> None:
    file = ArchiveFile(path)
    code = (
        "import sys; from pathlib import Path; from gateway.archive.file import ArchiveFile\n"
        "try: ArchiveFile(Path(sys.argv[1]))\nexcept Exception as error: print(error.trouble, error)"
    )
    told = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False)
    assert told.stdout.startswith("in_use another gateway has the archive"), told
    with pytest.raises(ArchiveError, match="another gateway"):
        ArchiveFile(path)
    file.close()
    ArchiveFile(path).close()


def test_the_lock_dies_with_its_process(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from gateway.archive.file import ArchiveFile\n"
        "file = ArchiveFile(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, path], timeout=60, check=False)
    file = ArchiveFile(path)
    assert file.seq == RESERVED
    file.close()


@pytest.mark.parametrize("damage", ["garbage", "torn", "page"])
def test_a_damaged_file_is_set_aside_under_a_name_that_is_told(path: Path, damage: str) -> None:
    file = ArchiveFile(path)
    file.append([batch_of(first, 1, payload=os.urandom(5_000)) for first in range(1, 50)])
    file.close()
    data = bytearray(path.read_bytes())
    match damage:
        case "garbage":
            data[:] = os.urandom(len(data))
        case "torn":
            del data[6_000:]
        case "page":
            data[100:4096] = os.urandom(3996)
    path.write_bytes(data)
    again = ArchiveFile(path)
    assert again.set_aside is not None
    assert again.set_aside.name.startswith("archive.db.damaged-")
    assert again.set_aside.read_bytes()[:50] == data[:50]
    assert (again.first_seq, again.seq) == (0, 0)
    assert again.epoch != file.epoch
    again.append([batch_of(1, 2)])
    again.close()
    assert seqs(path) == [1, 2]


def test_a_file_that_is_replaced_while_it_runs_goes_on_under_the_same_epoch(path: Path) -> None:
    file = ArchiveFile(path)
    file.append([batch_of(1, 5)])
    file.replace_damaged(5)
    epoch = file.epoch
    file.append([batch_of(6, 2)])
    file.append([], end=7)
    file.close()
    assert file.set_aside is not None
    assert seqs(file.set_aside) == [1, 2, 3, 4, 5]
    again = ArchiveFile(path)
    assert (again.epoch, again.seq, again.first_seq, again.last_seq) == (epoch, 7, 6, 7)
    again.close()


def test_a_file_of_a_newer_gateway_is_left_alone(path: Path) -> None:
    ArchiveFile(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(UPGRADES) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ArchiveError, match="newer gateway") as told:
        ArchiveFile(path)
    assert told.value.trouble is Trouble.NEWER
    assert path.read_bytes() == before


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ArchiveError, match="no archive") as told:
        ArchiveFile(path)
    assert told.value.trouble is Trouble.FOREIGN
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(ArchiveError) as told:
        ArchiveFile(path.parent / "nowhere" / "archive.db")
    assert told.value.trouble is Trouble.IO


def test_what_may_not_be_written_is_told_as_such() -> None:
    assert trouble_of(PermissionError(13, "Permission denied")).trouble is Trouble.READ_ONLY


def test_a_file_from_before_the_form_of_now_is_brought_up_to_it(path: Path) -> None:
    # version 0 is what a crash leaves between making the file and its tables
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {0x4D516757}")
    connection.close()
    file = ArchiveFile(path)
    file.append([batch_of(1, 2)])
    file.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(UPGRADES),)
    connection.close()
    assert seqs(path) == [1, 2]


def test_a_folder_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"there is no folder .*nowhere"):
        ArchiveFile(path.parent / "nowhere" / "archive.db")

"""The file of a node: filled from a log that others write, too, over absences, other epochs and lost ends."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from gateway.archive.failures import ArchiveError
from gateway.archive.file import ArchiveFile, Hole
from gateway.archive.offline import Importer
from gateway.cluster.entries import FORM, Entry, Row
from gateway.cluster.log import HubLog
from gateway.core.filters import FilterSet
from gateway.core.since import parse_since
from gateway.core.subscribers import State
from tests.fakes import FakeSocket
from tests.support.archives import NOW, Life

SIZE = 10


def entry(first: int, epoch: str = "e1", count: int = SIZE, topic: str = "a") -> Entry:
    """Messages that say their numbers."""
    rows = [Row(topic, b"%d" % number, number - first) for number in range(first, first + count)]
    return Entry(FORM, epoch, "t", first, NOW + first, rows)


class Node(Life):
    """One run of a node on its file; `stream` is what it reads first."""

    def __init__(self, path: Path, epoch: str, stream: list[Entry], before: dict[str, int] | None = None) -> None:
        super().__init__(path, is_shared=True)
        self.log = HubLog(self.hub)
        self.fill(epoch, stream, before)

    def fill(self, epoch: str, stream: list[Entry], before: dict[str, int] | None = None) -> None:
        self.log.begin(epoch, stream[0].first - 1, stream[0].time, before or {})
        for each in stream:
            self.log.fill(each)
        self.log.complete()
        self.loop.run()

    def kept(self, after: int = 0, until: int = 10**6) -> list[tuple[int, int]]:
        """The numbers that the file has, each with what it says."""
        self.flush()
        reader = self.archive.reader
        found: list[tuple[int, int]] = []
        while after < (end := min(until, self.archive.writer.settled_seq)):
            asked = reader.read(FilterSet(("#",)), after, end, 10**6, None, False)
            self.loop.until(lambda asked=asked: asked.is_answered)  # type: ignore[misc]
            found += [(message.seq, int(message.payload)) for message in asked.answer.messages]
            after = asked.answer.cursor
        return found

    def asked(self, since: str, topic: str = "#") -> FakeSocket:
        socket = FakeSocket(self.hub)
        self.hub.subscribe(socket.subscriber, [topic], parse_since(since), replay_id=1)
        self.loop.until(lambda: socket.subscriber.state is State.LIVE)
        return socket


def numbers(first: int, last: int) -> list[tuple[int, int]]:
    return [(number, number) for number in range(first, last + 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


def test_a_file_has_each_message_of_the_shared_log_under_its_number(path: Path) -> None:
    node = Node(path, "e1", [entry(1), entry(11)])
    node.log.take(entry(21))
    assert node.kept() == numbers(1, 30)
    node.close()


def test_a_node_that_was_killed_goes_on_without_a_hole_and_takes_nothing_twice(path: Path) -> None:
    node = Node(path, "e1", [entry(1)])
    node.flush()
    node.log.take(entry(11))  # not on the disk yet
    node.crash()
    again = Node(path, "e1", [entry(6, count=5), entry(11), entry(21)])
    assert again.history.position == "e1:30"
    assert again.kept() == numbers(1, 30)
    assert again.archive.writer.holes == []
    assert [message["seq"] for message in again.asked("e1:2").messages] == list(range(3, 31))
    again.close()


def test_who_begins_at_a_stream_that_was_trimmed_has_nothing_before_and_lacks_nothing(path: Path) -> None:
    node = Node(path, "e1", [entry(101)])
    assert node.kept() == numbers(101, 110)
    assert node.archive.writer.holes == []
    assert node.archive.begins_after == 100
    node.close()
    again = Node(path, "e1", [entry(101), entry(111)])
    assert again.kept() == numbers(101, 120)
    again.close()


def test_what_passed_while_a_node_was_away_for_too_long_is_told_to_who_asks_for_it(path: Path) -> None:
    node = Node(path, "e1", [entry(1), entry(11, count=1, topic="silent")])
    node.close()
    again = Node(path, "e1", [entry(101), entry(111)])
    again.flush()
    assert again.archive.writer.holes == [Hole(12, 100, "away")]
    assert again.archive.lacking == 89
    socket = again.asked("e1:5")
    assert [(gap["reason"], gap["lost"]) for gap in socket.events("gap")] == [("evicted", None)]
    assert [message["seq"] for message in socket.messages] == [*range(6, 12), *range(101, 121)]
    assert again.asked("e1:105").events("gap") == []
    # what was silent since is known all the same
    assert [message["payload"] for message in again.asked("last", "silent").messages] == [11]
    again.close()
    third = Node(path, "e1", [entry(111), entry(121)])
    assert third.archive.lacking == 89
    assert third.kept(100) == numbers(101, 130)
    third.close()


def test_a_hole_at_the_end_of_the_file_is_known_after_a_crash(path: Path) -> None:
    Node(path, "e1", [entry(1)]).close()
    node = Node(path, "e1", [entry(101)])
    node.archive.writer._batch = None
    node.loop.until(lambda: node.archive._file.holes != [])
    node.crash()
    again = Node(path, "e1", [entry(101), entry(111)])
    assert [(gap["reason"], gap["lost"]) for gap in again.asked("e1:5").events("gap")] == [("evicted", None)]
    assert again.kept() == [*numbers(1, 10), *numbers(101, 120)]
    again.close()


def test_another_epoch_that_lost_nothing_goes_on_with_file_and_memory(path: Path) -> None:
    node = Node(path, "e1", [entry(1)])
    node.fill("e2", [entry(1), entry(11, "e2")], {"e1": 10})
    assert node.history.position == "e2:20"
    assert node.kept() == numbers(1, 20)
    assert [message["seq"] for message in node.asked("e2:3").messages] == list(range(4, 21))
    node.close()
    with closing(ArchiveFile(path, is_shared=True)) as file:
        assert file.epoch == "e2"


def test_what_the_shared_log_lost_goes_from_the_file_too(path: Path) -> None:
    node = Node(path, "e1", [entry(1), entry(11)])
    node.snapshot()
    lost = entry(16, "e2", 5)
    for row in lost.rows:
        row.payload = b"-1"
    node.fill("e2", [entry(11, count=5), lost], {"e1": 15})
    wanted = [*numbers(1, 15), *((number, -1) for number in range(16, 21))]
    assert node.kept() == wanted
    assert [message["payload"] for message in node.asked("e2:3").messages] == [said for _, said in wanted[3:]]
    node.close()
    again = Node(path, "e2", [lost])
    assert again.kept() == wanted
    again.close()


def test_nothing_that_was_lost_is_read_from_the_file_before_it_went(path: Path) -> None:
    node = Node(path, "e1", [entry(1), entry(11)])
    node.flush()
    node.log.begin("e2", 15, NOW, {"e1": 15})
    assert node.archive.writer.settled_seq == 15
    node.close()


def test_a_file_of_another_log_is_set_aside(path: Path) -> None:
    Node(path, "e1", [entry(1)]).close()
    node = Node(path, "other", [entry(1), entry(11)], {"x": 5})
    assert node.history.position == "other:20"
    assert node.kept() == numbers(1, 20)
    [old] = path.parent.glob("archive.db.other-epoch-*[0-9]")
    node.close()
    with closing(ArchiveFile(old)) as file:
        assert file.last_seq == 10


def test_old_files_keep_to_the_bound_of_one(path: Path) -> None:
    for number in range(3):
        old = path.with_name(f"{path.name}.other-epoch-{number}")
        old.write_bytes(b"x" * 40_000)
    file = ArchiveFile(path, max_bytes=100_000, is_shared=True)
    file.go_on_under("e9", None, 0, NOW)
    assert len(list(path.parent.glob("archive.db.other-epoch-*"))) < 4
    file.close()


def test_a_gateway_alone_becomes_a_node_and_is_alone_again_with_all_its_history(path: Path) -> None:
    alone = Life(path)
    for number in range(1, 6):
        alone.publish("a", b"%d" % number)
    epoch = alone.history.epoch
    alone.close()
    node = Node(path, "e1", [entry(6)], {epoch: 5})
    assert node.kept() == numbers(1, 15)
    node.close()
    back = Life(path)
    assert back.history.epoch not in ("e1", epoch)
    assert back.history.seq == 15  # nothing is reserved: no number was given under this epoch
    back.publish("a", b"16")
    back.flush()
    back.close()
    # and it is no node any more
    Node(path, "e1", [entry(6), entry(16)]).close()
    assert list(path.parent.glob("archive.db.other-epoch-*[0-9]"))


def test_nothing_is_imported_into_the_file_of_a_node(path: Path) -> None:
    Node(path, "e1", [entry(1)]).close()
    with pytest.raises(ArchiveError, match="the archive of a node"):
        Importer(path)
    Node(path, "e1", [entry(1)]).close()
    assert not list(path.parent.glob("archive.db.other-epoch-*"))

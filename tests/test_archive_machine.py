"""The archive and the log against a plain list, over any mix of appends, flushes, crashes, restarts and replays."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.archive import archive as archive_module
from gateway.core.since import Since, SinceKind
from gateway.core.topics import matches
from tests.fakes import FakeSocket
from tests.support.archives import NOW, Life

TOPICS = ["a/1", "a/2", "b", "c/2"]
FILTERS = ["#", "a/#", "+/2", "b"]


class Machine(RuleBasedStateMachine):
    """One file, one gateway after another.

    The model: `given` has each message that ever got a number, `lost` the numbers that a crash took, `crashes` the
    stretches of numbers that are told as one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "archive.db"
        self.given: dict[int, tuple[str, bytes, int]] = {}
        self.lost: set[int] = set()
        self.crashes: list[tuple[int, int]] = []
        self.settled = 0
        self.counts = dict.fromkeys(TOPICS, 0)
        self.number = 0
        self.now = NOW
        self.life = self.begin()
        self.epoch = self.life.history.epoch

    def begin(self) -> Life:
        return Life(self.path, now_ms=self.now, max_messages=3)

    @rule(topics=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=12))
    def publish(self, topics: list[str]) -> None:
        for topic in topics:
            self.number += 1
            payload = b"%d" % self.number
            message = self.life.publish(topic, payload)
            assert message is not None
            assert message.seq not in self.given, "a number was given twice"
            assert message.seq > max(self.given, default=0)
            self.given[message.seq] = (topic, payload, message.time)
            self.counts[topic] += 1
        self.now = self.life.now

    @rule()
    def flush(self) -> None:
        self.life.flush()

    @rule()
    def settle(self) -> None:
        """Whoever waits for what was appended is called when it is on the disk."""
        seq = max(self.given, default=0)
        called: list[int] = []
        self.life.archive.writer.when_settled(lambda: called.append(seq))
        self.life.loop.until(lambda: bool(called), "it is settled")
        self.settled = max(self.settled, seq)

    @rule()
    def snapshot(self) -> None:
        self.life.loop.run(archive_module.SNAPSHOT_LATEST_SECONDS)
        list(self.life.archive.maybe_snapshot())
        self.now = self.life.now = self.life.loop.wall_clock_ms()

    @rule()
    def restart(self) -> None:
        self.life.close()
        self.life = self.begin()
        assert self.life.history.seq == max([*self.given, self.after_crash])

    @rule(garbage=st.binary(max_size=40))
    def crash(self, garbage: bytes) -> None:
        """The process is gone in the middle of a write: the disk has what was synced, and garbage."""
        self.life.history.keep = None
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        # at some moment: the writer may be at work
        for ending in ("", "-wal"):
            file = self.path.with_name(self.path.name + ending)
            if file.exists():
                shutil.copy(file, copy / file.name)
        self.life.crash()
        for ending in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        for file in copy.iterdir():
            if file.name.endswith("-wal"):
                file.write_bytes(file.read_bytes() + garbage)
            shutil.move(file, self.path) if not file.name.endswith("-wal") else shutil.move(
                file, self.path.with_name(self.path.name + "-wal")
            )
        self.life = self.begin()
        [*_, (first, last)] = self.life.history.crashes
        assert first > self.settled, "what was acknowledged is lost"
        for seq in [seq for seq in self.given if first <= seq <= last]:
            topic, _, _ = self.given.pop(seq)
            self.counts[topic] -= 1
            self.lost.add(seq)
        self.crashes = self.life.history.crashes
        self.settled = max(self.given, default=0)

    @property
    def after_crash(self) -> int:
        return self.crashes[-1][1] if self.crashes else 0

    @invariant()
    def the_log_goes_on(self) -> None:
        history = self.life.history
        assert history.epoch == self.epoch
        assert history.seq >= max([*self.given, *self.lost, self.after_crash], default=0)

    @invariant()
    def last_values_and_counts_are_those_of_the_model(self) -> None:
        history = self.life.history
        for topic in TOPICS:
            state = history.topic(topic)
            newest = max((seq for seq, (name, _, _) in self.given.items() if name == topic), default=None)
            assert (state.last.seq if state is not None and state.last is not None else None) == newest
            assert (0 if state is None else state.count) == self.counts[topic]

    @precondition(lambda self: self.given)
    @rule(data=st.data(), topic_filter=st.sampled_from(FILTERS), is_time=st.booleans())
    def replay(self, data: st.DataObject, topic_filter: str, is_time: bool) -> None:
        start = data.draw(st.sampled_from([0, *sorted(self.given), *sorted(self.lost)]))
        client = FakeSocket(self.life.hub)
        since = Since(SinceKind.POSITION, epoch=self.epoch, seq=start)
        wanted = [seq for seq in sorted(self.given) if matches(topic_filter, self.given[seq][0])]
        expected = [seq for seq in wanted if seq > start]
        if is_time:
            moment = self.given[start][2] if start in self.given else NOW
            since = Since(SinceKind.TIME, time=moment)
            expected = [seq for seq in wanted if self.given[seq][2] >= moment]
        self.life.hub.subscribe(client.subscriber, [topic_filter], since, replay_id=1)
        self.life.loop.until(lambda: bool(client.events("replayed")), "the replay is over")
        assert client.seqs == expected
        gaps = [gap["reason"] for gap in client.events("gap")]
        if not is_time:
            has_crashed = any(first <= self.life.history.seq and last > start for first, last in self.crashes)
            assert gaps == ["crash"] * has_crashed
        assert set(gaps) <= {"crash"}
        self.life.hub.remove(client.subscriber)

    def teardown(self) -> None:
        self.life.close()
        shutil.rmtree(self.folder)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)

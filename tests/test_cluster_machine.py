"""Nodes, a broker and a server in all orders of appends, crashes, pauses, restarts, failovers and lost answers.

The model: `told` is what was ever told under a number, `acknowledged` what the broker has forgotten since.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.archive.archive import common_seq
from gateway.cluster.entries import Entry, Id, encode
from gateway.cluster.leading import Leading
from gateway.cluster.member import CONNECTING, Member, Role
from gateway.cluster.questions import Append, Leave, Meet, Pause, Question, Read, ServerError, Times, Wait
from gateway.core.history import History
from gateway.upstream.acknowledging import Unacknowledged
from tests.support.streams import ModelServer

NODES = 3


@dataclass
class Disk:
    """What a node has in a file: it outlives its crashes."""

    epoch: str = "none"
    seq: int = 0
    rows: dict[int, bytes] = field(default_factory=dict)
    set_aside: int = 0

    def go_on(self, epoch: str, seq: int, before: Mapping[str, int]) -> None:
        common = common_seq(self.epoch, self.seq, epoch, before)
        self.set_aside += common is None
        self.epoch, self.seq = epoch, max(common or 0, seq)
        self.rows = {number: payload for number, payload in self.rows.items() if number <= (common or 0)}


class ListLog:
    """A log without subscribers: what was told, in order, and how often it began."""

    def __init__(self, told: dict[tuple[str, int], bytes], disk: Disk) -> None:
        self.history = History(max_messages=1_000, epoch=disk.epoch)
        self.history.seq = disk.seq
        self.rows: list[tuple[int, bytes]] = []
        self.begun = 0
        self.disk = disk
        self._told = told

    def begin(self, epoch: str, seq: int, time: int, before: Mapping[str, int]) -> None:
        self.history.begin_anew(epoch, seq, time)
        self.disk.go_on(epoch, seq, before)
        self.rows.clear()
        self.begun += 1
        for number, payload in self.disk.rows.items():
            self.tell(number, payload)

    def tell(self, seq: int, payload: bytes) -> None:
        key = self.history.epoch, seq
        assert self._told.setdefault(key, payload) == payload, f"two contents under {key}"

    def fill(self, entry: Entry) -> None:
        self.take(entry)

    def complete(self) -> None:
        pass

    def take(self, entry: Entry) -> None:
        history = self.history
        assert entry.first == history.seq + 1, "a hole that nobody was told of"
        for row in entry.rows:
            history.append(row.topic, row.payload, entry.time + row.time, row.qos, row.retained)
            self.rows.append((history.seq, row.payload))
            self.tell(history.seq, row.payload)
            if history.seq > self.disk.seq:
                self.disk.seq = history.seq
                self.disk.rows[history.seq] = row.payload
            else:
                assert self.disk.rows.get(history.seq, row.payload) == row.payload


class Broker:
    """One session: what is not acknowledged is sent again, in order, under the same identifiers."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, bytes] = {}
        self.acknowledged: list[bytes] = []
        self.leading: Leading | None = None
        self._numbers = itertools.count(1)

    def publish(self, payload: bytes) -> None:
        identifier = next(self._numbers).to_bytes(2, "big")
        self.waiting[identifier] = payload
        if self.leading is not None:
            self._send(self.leading, {identifier: payload})

    def connect(self, leading: Leading, inherited: list[list[bytes]]) -> None:
        """Another connection takes the session over."""
        self.leading = leading
        known = Unacknowledged()
        before = None
        for identifiers in inherited:
            known.written(known.add(identifiers, before))
            before = identifiers[-1]
        # what it took before its connection ended, and has not appended yet, it knows by itself
        under_way = [] if leading._under_way is None else [leading._under_way[0]]
        taken = {each for pending in (*under_way, *leading._full, leading._next) for each in pending.published}
        news = {
            identifier: payload
            for identifier, payload in self.waiting.items()
            if identifier not in known and identifier not in taken
        }
        for identifier in list(self.waiting):
            if identifier not in news:
                leading.when_settled(lambda identifier=identifier: self._acknowledge(leading, identifier))  # type: ignore[misc]
        self._send(leading, news)

    def disconnect(self, leading: Leading) -> None:
        if self.leading is leading:
            self.leading = None

    def _send(self, leading: Leading, messages: dict[bytes, bytes]) -> None:
        for payload in messages.values():
            leading.take("t", payload, 1)
        leading.identify([b"\x40\x02" + identifier for identifier in messages])
        for identifier in messages:
            leading.when_settled(lambda identifier=identifier: self._acknowledge(leading, identifier))  # type: ignore[misc]

    def _acknowledge(self, leading: Leading, identifier: bytes) -> None:
        # over a connection that has ended it does not arrive
        if leading is self.leading and identifier in self.waiting:
            self.acknowledged.append(self.waiting.pop(identifier))


class Node:
    """A process: `question` is what it waits for the answer of."""

    def __init__(self, machine: Machine, name: str, disk: Disk | None = None) -> None:
        self.is_able = False
        self.log = ListLog(machine.told, disk or Disk())
        self.member = Member(
            name,
            self.log,
            clock=lambda: machine.now,
            wall_clock_ms=lambda: int(machine.now * 1000),
            make_token=lambda: f"token{next(machine.numbers)}",
            make_epoch=lambda: f"epoch{next(machine.numbers)}",
            wake=lambda: None,
            on_lead=self.lead,
            on_follow=self.follow,
            is_able=lambda: self.is_able,
        )
        self.machine = machine
        self.leading: Leading | None = None
        self.steps: Generator[Question, Any, None] = self.member.run()
        self.question: Question | None = next(self.steps)

    def lead(self, leading: Leading) -> None:
        self.leading = leading
        self.machine.broker.connect(leading, self.member.follower.inherited.published)

    def follow(self, why: str) -> None:
        if self.leading is not None:
            self.machine.broker.disconnect(self.leading)

    def step(self, fate: str = "done") -> None:
        """The next answer: `done`; `lost`: it was done and the answer is lost; `late`: it may be done later."""
        question = self.question
        if question is None:
            return
        machine = self.machine
        if self.member.leading is not None and machine.broker.leading is not self.member.leading:
            self.member.check_lease()  # its session has ended
        if machine.broker.leading is None and self.member.leading is not None:
            self.lead(self.member.leading)  # whoever was thrown out connects again as long as it leads
        try:
            if isinstance(question, Wait | Pause):
                if isinstance(question, Pause):
                    machine.advance(question.seconds)
                elif self.member.leading is None or not self.member.leading.has_more:
                    machine.advance(min(max(question.seconds, 0.01), 0.1))
                else:
                    machine.advance(question.seconds)  # it gathers what comes
                self.question = self.steps.send(None)
            elif isinstance(question, Leave):
                if self.leading is not None:
                    machine.broker.disconnect(self.leading)
                self.question = self.steps.send(None)
            elif fate == "late":
                machine.late.append(question)
                self.question = self.steps.throw(ServerError("timeout"))
            else:
                answer = machine.server.ask(question)
                if fate == "lost":
                    self.question = self.steps.throw(ServerError("connection reset"))
                else:
                    if isinstance(question, Read) and not answer:
                        machine.advance(min(max(question.seconds, 0.01), 0.1))
                    self.question = self.steps.send(answer)
        except StopIteration:
            self.question = None


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.numbers = itertools.count()
        self.told: dict[tuple[str, int], bytes] = {}
        self.server = ModelServer(lambda: self.now)
        self.broker = Broker()
        self.late: list[Question] = []
        self.is_whole = True  # nothing was taken from the server that it had
        self.nodes = [Node(self, f"n{number}") for number in range(NODES)]
        self.messages = itertools.count()

    def advance(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.broker.publish(b"%d" % next(self.messages))

    @rule(which=st.integers(0, NODES - 1), count=st.integers(1, 12))
    def run_some(self, which: int, count: int) -> None:
        for _ in range(count):
            self.nodes[which].step()

    @rule(order=st.lists(st.integers(0, NODES - 1), min_size=5, max_size=40))
    def run_all(self, order: list[int]) -> None:
        for which in order:
            self.nodes[which].step()

    @rule(which=st.integers(0, NODES - 1), fate=st.sampled_from(["lost", "late"]))
    def lose(self, which: int, fate: str) -> None:
        self.nodes[which].step(fate)

    @precondition(lambda self: self.late)
    @rule()
    def arrive_late(self) -> None:
        self.server.ask(self.late.pop(0))

    @rule(which=st.integers(0, NODES - 1))
    def crash(self, which: int) -> None:
        node = self.nodes[which]
        node.follow("it is dead")
        self.nodes[which] = Node(self, f"n{which}", node.log.disk)

    @rule(which=st.integers(0, NODES - 1))
    def stop(self, which: int) -> None:
        node = self.nodes[which]
        node.member.stop()
        for _ in range(50):
            node.step()
        node.follow("it has ended")
        self.nodes[which] = Node(self, f"n{which}", node.log.disk)

    @rule(which=st.integers(0, NODES - 1), part=st.floats(0, 1))
    def cut_power(self, which: int, part: float) -> None:
        """The disk lacks the newest."""
        self.crash(which)
        log = self.nodes[which].log
        disk = log.disk
        disk.rows = dict(list(disk.rows.items())[: int(part * len(disk.rows))])
        disk.seq = log.history.seq = max(disk.rows, default=0)

    @rule(which=st.integers(0, NODES - 1), is_able=st.booleans())
    def reach_the_broker(self, which: int, is_able: bool) -> None:
        node = self.nodes[which]
        node.is_able = is_able
        node.member.broker = "" if is_able else "cut off"

    @rule(seconds=st.floats(0.1, 5))
    def pause(self, seconds: float) -> None:
        self.advance(seconds)

    @rule()
    def restart_server(self) -> None:
        self.server.restart()
        self.late.clear()

    @rule()
    def replicate(self) -> None:
        self.server.replicate()

    @rule(how=st.sampled_from(["fail_over", "wipe", "flush"]))
    def lose_data(self, how: str) -> None:
        getattr(self.server, how)()
        if how != "flush":
            self.late.clear()
        self.is_whole = False

    @rule(part=st.floats(0, 1))
    def trim(self, part: float) -> None:
        entries = self.server.entries
        if entries:
            self.server.trim(entries[int(part * (len(entries) - 1))][0])

    @invariant()
    def one_content_once(self) -> None:
        payloads = [row.payload for _, entry in self.server.entries for row in entry.rows]
        assert len(payloads) == len(set(payloads)), "a message is twice in the log"
        seq = None
        for at, entry in self.server.entries:
            assert seq is None or entry.first == seq + 1
            assert at.seq == entry.last
            seq = entry.last

    @invariant()
    def acknowledged_is_told(self) -> None:
        told = set(self.told.values())
        assert told.issuperset(self.broker.acknowledged)
        assert len(self.broker.acknowledged) == len(set(self.broker.acknowledged))

    def teardown(self) -> None:
        """Left alone, everything is told everywhere, and in order."""
        self.late.clear()
        for _ in range(400):
            for node in self.nodes:
                node.step()
        assert [node.member.role for node in self.nodes].count(Role.LEADER) == 1
        assert not self.broker.waiting
        entries = self.server.entries
        stream = [(entry.first + n, row.payload) for _, entry in entries for n, row in enumerate(entry.rows)]
        first = entries[0][1].first
        assert self.server.meta is not None
        for node in self.nodes:
            assert node.member.is_caught_up
            assert node.log.history.epoch == self.server.meta.epoch
            assert node.member.follower.position == entries[-1][0]
            assert [row for row in node.log.rows if row[0] >= first] == stream
            disk = node.log.disk
            assert disk.epoch == self.server.meta.epoch
            assert disk.seq == node.log.history.seq
            # what it was away for stays a hole, also where a failover brings it again
            assert not set(disk.rows.items()) - set(stream) - {row for row in disk.rows.items() if row[0] < first}
            assert list(disk.rows) == sorted(disk.rows)
        if self.is_whole:
            # as the broker had them
            payloads = [int(payload) for _, payload in stream]
            assert payloads == sorted(payloads)
            epochs = {epoch for epoch, _ in self.told}
            by_number = [int(self.told[key]) for key in sorted(self.told, key=lambda key: key[1])]
            if len(epochs) == 1:
                assert by_number == list(range(len(by_number))), "lost, twice or out of order"


TestCluster = pytest.mark.slow(Machine.TestCase)
TestCluster.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def settle(machine: Machine, steps: int = 200) -> None:
    for _ in range(steps):
        for node in machine.nodes:
            node.step()


def asks(node: Node, kind: type[Question]) -> bool:
    return isinstance(node.question, kind)


def the_leader(machine: Machine) -> Node:
    [leader] = [node for node in machine.nodes if node.member.role is Role.LEADER]
    return leader


def test_a_restarted_server_that_has_everything_keeps_its_epoch() -> None:
    machine = Machine()
    settle(machine)
    machine.publish(3)
    settle(machine)
    epoch = machine.nodes[0].log.history.epoch
    for node in machine.nodes:
        node.step("late")
    machine.restart_server()
    machine.publish(3)
    settle(machine)
    assert {node.log.history.epoch for node in machine.nodes} == {epoch}
    assert [node.log.begun for node in machine.nodes] == [1] * NODES
    assert [payload for _, payload in machine.nodes[1].log.rows] == [b"%d" % number for number in range(6)]
    machine.teardown()


@pytest.mark.parametrize("forged", ["no entry", "an entry that does not follow"])
def test_an_entry_of_somebody_else_costs_one_epoch_and_what_was_before_it(forged: str) -> None:
    machine = Machine()
    settle(machine)
    machine.publish(3)
    settle(machine)
    tail, entry = machine.server.entries[-1]
    machine.server.forge(Id(tail.seq + 50), b"?" if forged == "no entry" else encode(entry))
    epochs = set()
    for _ in range(20):
        machine.advance(1.0)
        settle(machine, 20)
        machine.publish(1)
        settle(machine, 20)
        epochs |= {node.log.history.epoch for node in machine.nodes}
    assert len(epochs) == 1
    for node in machine.nodes:
        assert node.member.is_caught_up
        assert node.member.trouble is None
        assert node.log.rows[-1][1] == b"22"
    late = Node(machine, "late")
    for _ in range(30):
        late.step()
    assert late.member.is_caught_up
    assert late.log.rows == machine.nodes[0].log.rows


def test_who_has_read_what_a_failover_lost_gets_another_epoch() -> None:
    machine = Machine()
    settle(machine)
    machine.publish(3)
    settle(machine)
    machine.server.replicate()
    machine.publish(3)
    settle(machine)
    epoch = machine.nodes[0].log.history.epoch
    leader = the_leader(machine)
    machine.lose_data("fail_over")
    machine.crash(machine.nodes.index(leader))
    machine.publish(1)
    settle(machine)
    assert epoch not in {node.log.history.epoch for node in machine.nodes}
    machine.teardown()


def test_an_epoch_ends_where_nobody_can_tell_whether_a_failover_lost_something() -> None:
    machine = Machine()
    settle(machine)
    machine.server.replicate()
    slow = next(node for node in machine.nodes if node.member.role is Role.FOLLOWER)
    leader = the_leader(machine)
    machine.publish(3)
    for _ in range(20):
        for node in machine.nodes:
            if node is not slow:
                node.step()
    assert slow.log.rows == []
    told = dict(machine.told)
    assert told
    machine.lose_data("fail_over")
    machine.nodes = [slow]
    machine.broker.disconnect(leader.leading)  # type: ignore[arg-type]
    machine.publish(3)
    settle(machine)
    assert [payload for _, payload in slow.log.rows] == [b"3", b"4", b"5"]
    assert not {(slow.log.history.epoch, seq) for seq, _ in slow.log.rows} & set(told)


def test_a_clean_stop_hands_the_lease_over_without_waiting_for_its_end() -> None:
    machine = Machine()
    settle(machine)
    leader = the_leader(machine)
    began = machine.now
    leader.member.stop()
    while leader.question is not None:
        leader.step()
    others = [node for node in machine.nodes if node is not leader]
    while all(node.member.role is Role.FOLLOWER for node in others):
        for node in others:
            node.step()
    assert machine.now - began < 0.5


def test_a_leader_that_was_paused_for_longer_than_its_lease_appends_nothing_any_more() -> None:
    machine = Machine()
    settle(machine)
    leader = the_leader(machine)
    others = [node for node in machine.nodes if node is not leader]
    machine.publish(2)  # taken, and not appended yet
    machine.advance(10)
    while all(node.member.role is Role.FOLLOWER for node in others):
        for node in others:
            node.step()
    tail = machine.server.entries[-1][0]
    for _ in range(20):
        leader.step()
    assert leader.member.role is Role.FOLLOWER
    assert machine.server.entries[-1][0] == tail
    settle(machine)
    assert [payload for _, payload in leader.log.rows] == [b"0", b"1"]
    assert Id(2) in dict(machine.server.entries)
    machine.teardown()


def test_files_go_on_when_all_nodes_and_the_server_are_started_again() -> None:
    machine = Machine()
    settle(machine)
    machine.publish(3)
    settle(machine)
    epoch = machine.nodes[0].log.history.epoch
    machine.restart_server()
    for which in range(NODES):
        machine.crash(which)
    machine.publish(2)
    settle(machine)
    for node in machine.nodes:
        assert node.log.disk.epoch != epoch
        assert node.log.disk.set_aside == 0
        assert list(node.log.disk.rows.values()) == [b"%d" % number for number in range(5)]
    machine.teardown()


def test_files_go_on_when_the_server_has_forgotten_everything() -> None:
    machine = Machine()
    settle(machine)
    machine.publish(3)
    settle(machine)
    machine.lose_data("wipe")
    machine.publish(2)
    settle(machine)
    for node in machine.nodes:
        assert node.log.disk.set_aside == 0
        assert list(node.log.disk.rows.values()) == [b"%d" % number for number in range(5)]
    machine.teardown()


def test_the_first_node_begins_where_its_file_ends() -> None:
    machine = Machine()
    disk = Disk("alone", 7, {number: b"%d" % (number - 10) for number in range(1, 8)})
    machine.nodes = [Node(machine, "n0", disk)]
    machine.publish(2)
    settle(machine)
    machine.nodes.append(Node(machine, "n1"))
    settle(machine)
    assert list(disk.rows) == list(range(1, 10))
    assert [seq for seq, _ in machine.nodes[1].log.rows] == [8, 9]


def test_a_leader_that_is_cut_off_from_the_broker_hands_over_to_a_node_that_reaches_it() -> None:
    machine = Machine()
    settle(machine)
    leader = the_leader(machine)
    others = [node for node in machine.nodes if node is not leader]
    leader.member.broker = "cut off"
    settle(machine)
    assert the_leader(machine) is leader, "nobody else reaches it"
    others[1].is_able = True
    for node in others:
        node.member.broker = ""
    settle(machine)
    assert the_leader(machine) is others[1]
    machine.publish(3)
    settle(machine)
    machine.teardown()


def test_a_leader_whose_first_connection_takes_long_leads_on_while_that_may_still_be_made() -> None:
    machine = Machine()
    settle(machine)
    leader = the_leader(machine)
    for node in machine.nodes:
        node.is_able, node.member.broker = True, ""
    settle(machine)
    leader.member.broker = CONNECTING
    began = machine.now
    while machine.now - began < Times().connect - 1:
        for node in machine.nodes:
            node.step()
    assert the_leader(machine) is leader
    while machine.now - began < Times().connect + 3:
        for node in machine.nodes:
            node.step()
    assert the_leader(machine) is not leader


def test_a_leader_that_loses_its_session_after_its_lease_leads_no_more_before_it_hears_from_the_server() -> None:
    machine = Machine()
    settle(machine)
    leader = the_leader(machine)
    others = [node for node in machine.nodes if node is not leader]
    machine.advance(Times().lease / 2)
    leader.member.check_lease()
    assert the_leader(machine) is leader, "it may renew it"
    machine.publish(1)
    machine.advance(Times().lease)
    while not any(node.member.role is Role.LEADER for node in others):
        for node in others:
            node.step()
    assert leader.member.leading is not None, "it waits for an answer"
    leader.member.check_lease()
    assert the_leader(machine) in others
    settle(machine)
    assert the_leader(machine) in others
    machine.teardown()


def test_a_follower_that_reads_what_a_new_leader_wrote_looks_who_that_is_before_anything_else() -> None:
    machine = Machine()
    settle(machine)
    reader, heir = [node for node in machine.nodes if node.member.role is Role.FOLLOWER][:2]
    heir.is_able = True
    machine.advance(Times().lease + 0.1)  # the leader is dead
    while not (isinstance(heir.question, Meet) and heir.question.token):
        heir.step()
    while not asks(reader, Read) or reader.member.view.holder is not None:  # type: ignore[union-attr]
        reader.step()
    while heir.member.role is Role.FOLLOWER:
        heir.step()
    reader.step()
    assert asks(reader, Meet)


def test_two_nodes_that_cannot_make_a_session_hand_over_seldom() -> None:
    machine = Machine()
    settle(machine)
    for node in machine.nodes:
        node.is_able = True
        node.member.broker = "refused"
    turns, before, began = 0, the_leader(machine), machine.now
    while machine.now - began < 60:
        for node in machine.nodes:
            node.step()
        leaders = [node for node in machine.nodes if node.member.role is Role.LEADER]
        if leaders and leaders[0] is not before:
            turns, before = turns + 1, leaders[0]
    assert turns <= 2 * NODES


def test_a_leader_that_finds_the_broker_again_soon_leads_on() -> None:
    machine = Machine()
    settle(machine)
    leader = the_leader(machine)
    for node in machine.nodes:
        node.is_able = node is not leader
        node.member.broker = ""
    settle(machine)
    began = machine.now
    leader.member.broker = "cut off"
    while machine.now - began < 2:
        for node in machine.nodes:
            node.step()
    leader.member.broker = ""
    settle(machine)
    assert the_leader(machine) is leader


@pytest.mark.parametrize("is_busy", [True, False])
def test_what_comes_soon_after_an_append_of_a_busy_leader_shares_the_next_one_and_else_nothing_waits(
    is_busy: bool,
) -> None:
    now = 1_000.0
    woken: list[None] = []
    server = ModelServer(lambda: now)
    times = Times(gather=0.004, busy_rate=1e-9 if is_busy else 1_000)  # one message in all
    leadings: list[Leading] = []
    member = Member(
        "n", ListLog({}, Disk()), clock=lambda: now, wall_clock_ms=lambda: int(now * 1000), make_token=lambda: "t",
        make_epoch=lambda: "e", wake=lambda: woken.append(None), on_lead=leadings.append, on_follow=lambda _: None,
        times=times,
    )  # fmt: skip
    steps = member.run()
    question = next(steps)
    while not (leadings and isinstance(question, Wait)):
        question = steps.send(None if isinstance(question, Wait) else server.ask(question))
    leading = leadings[0]
    now += 0.1
    leading.take("a", b"1", 1)
    leading.identify([b"\x40\x02\0\1"])
    leading.when_settled(lambda: None)
    assert len(woken) == 1  # by the first message, not by all that follows
    question = steps.send(None)
    assert isinstance(question, Append)  # at once, after a silence
    question = steps.send(server.ask(question))
    if not is_busy:
        now += 0.001
        leading.take("a", b"2")
        question = steps.send(None)
        assert isinstance(question, Append)
        return
    for number in (2, 3):
        leading.take("a", b"%d" % number)
        question = steps.send(None)
        assert isinstance(question, Wait)
        assert question.seconds < 0.005
        now += 0.001
    now += 0.0018  # no timer of the loop is shorter than what is left
    assert len(woken) == 1  # what it waits for anyway wakes nobody
    question = steps.send(None)
    assert isinstance(question, Append)
    question = steps.send(server.ask(question))
    assert [row.payload for row in server.entries[-1][1].rows] == [b"2", b"3"]
    assert isinstance(question, Wait)
    now += question.seconds
    question = steps.send(None)  # nothing has come
    assert isinstance(question, Wait)
    assert question.seconds > 0.1
    leading.take("a", b"4")
    assert len(woken) == 2
    assert isinstance(steps.send(None), Append)

"""Tokens that were called back at one node and are refused at all, in all orders of what goes wrong on the way."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.access import revocations as access
from gateway.access.keys import secret_key
from gateway.access.revocations import GRACE_SECONDS, Revocation, Revocations
from gateway.access.tokens import mint
from gateway.cluster import revoked
from gateway.cluster.address import Address
from gateway.cluster.revoked import Revoke, Revoked, SharedRevocations, Standing, Told, name_of, times_of
from gateway.cluster.server import Server
from tests.conftest import MakeValkey
from tests.support import streams
from tests.support.streams import ModelServer
from tests.test_topics_api import ask, running

SECRET = "more than thirty-two bytes of a secret"

NODES = 3
ROWS = 3


class Node:
    """A process with a connection: `question` is what it waits for the answer of; None while it looks at nothing."""

    def __init__(self, server: ModelServer, clock: Any, make_name: Callable[[], str], known: list[Revocation]) -> None:
        self.known = Revocations()
        for each in known:
            self.known.add(each, clock())
        self.heard: list[str] = []
        self.shared = SharedRevocations(self.known, clock)
        self._make_name = make_name
        self._server = server
        self._clock = clock
        self._steps: Generator[Revoked | Revoke, Any, str | None] | None = None
        self.question: Revoked | Revoke | None = None

    def say(self, revocation: Revocation) -> None:
        if self.known.add(revocation, self._clock()):
            self.shared.say(revocation)

    def step(self, fate: str = "done") -> None:
        """The next answer: `done`; `lost`: it was done, and the answer is lost; `cut`: it was not done."""
        if self._steps is None:
            self._steps = self.shared.look(self._make_name)
            self.question = next(self._steps)
            return
        answer = None if fate == "cut" else self._server.ask(self.question)  # type: ignore[arg-type]
        if fate != "done":
            self._steps = None
            self.shared.disconnected()
            return
        try:
            self.question = self._steps.send(answer)
        except StopIteration:
            self._steps = None
        self.heard += [name_of(each) for each in self.shared.news]
        self.shared.news.clear()

    def look(self) -> None:
        """One look from its beginning to its end."""
        self.step()
        while self._steps is not None:
            self.step()

    @property
    def refused(self) -> dict[str, Revocation]:
        """What is refused here, by name."""
        return {name_of(each): each for each in self.known if not each.has_ended(self._clock())}


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.server = ModelServer(lambda: self.now)
        self.names = itertools.count()
        self.nodes = [self.start([]) for _ in range(NODES)]

    def start(self, known: list[Revocation]) -> Node:
        return Node(self.server, lambda: self.now, lambda: f"list{next(self.names)}", known)

    @rule(which=st.integers(0, NODES - 1), number=st.integers(0, 12), life=st.sampled_from([None, 50.0, 500.0]))
    def say(self, which: int, number: int, life: float | None) -> None:
        ends = None if life is None else self.now + life
        one = Revocation(f"t{number}", None, self.now, ends) if number % 2 else Revocation(None, "s", self.now, ends)
        self.nodes[which].say(one)

    @rule(which=st.integers(0, NODES - 1), count=st.integers(1, 8))
    def run_some(self, which: int, count: int) -> None:
        for _ in range(count):
            self.nodes[which].step()

    @rule(which=st.integers(0, NODES - 1), fate=st.sampled_from(["lost", "cut"]))
    def lose(self, which: int, fate: str) -> None:
        self.nodes[which].step()
        self.nodes[which].step(fate)

    @rule(which=st.integers(0, NODES - 1), has_file=st.booleans())
    def crash(self, which: int, has_file: bool) -> None:
        self.nodes[which] = self.start(list(self.nodes[which].known) if has_file else [])

    @rule(seconds=st.floats(0.1, 300))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def replicate(self) -> None:
        self.server.replicate()

    @rule(how=st.sampled_from(["fail_over", "wipe"]))
    def lose_data(self, how: str) -> None:
        getattr(self.server, how)()
        for node in self.nodes:
            node._steps = None
            node.shared.disconnected()

    @precondition(lambda self: self.server.revoked)
    @rule()
    def flush(self) -> None:
        """Somebody removes everything, and no connection ends."""
        self.server.flush()

    @invariant()
    def there_is_one_of_a_name(self) -> None:
        names = [name_of(each) for each in self.server.revoked]
        assert len(names) == len(set(names))

    def teardown(self) -> None:
        """Left alone, every node refuses what any of them refuses, and so does one that starts now."""
        all_of: dict[str, Revocation] = {}
        for node in self.nodes:
            for name, each in node.refused.items():
                all_of[name] = each.joined(all_of.get(name))
        for _ in range(3):
            for node in self.nodes:
                while node._steps is not None:
                    node.step()
                node.look()
        new = self.start([])
        new.look()
        for node in (*self.nodes, new):
            assert all(node.refused[name] == each.joined(node.refused[name]) for name, each in all_of.items())
            assert node.refused == new.refused


def test_a_list_that_one_node_begins_again_after_somebody_removed_it_is_another_one() -> None:
    machine = Machine()
    machine.say(which=0, number=0, life=None)
    machine.run_some(which=0, count=3)
    machine.say(which=0, number=1, life=None)
    machine.run_some(which=0, count=2)
    machine.flush()
    machine.teardown()


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (revoked, streams):
        monkeypatch.setattr(module, "ROWS", ROWS)


TestRevoking = pytest.mark.slow(Machine.TestCase)
TestRevoking.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def row(revocation: Revocation) -> tuple[bytes, bytes]:
    """As the server has it."""
    return name_of(revocation).encode(), " ".join(times_of(revocation)).encode()


def look(shared: SharedRevocations, server: ModelServer, name: str) -> tuple[list[Revoked | Revoke], str | None]:
    """All that one look asks, and what is wrong."""
    steps = shared.look(lambda: name)
    questions = [next(steps)]
    try:
        while True:
            questions.append(steps.send(server.ask(questions[-1])))
    except StopIteration as done:
        return questions, done.value


def known(*names: str) -> Revocations:
    found = Revocations()
    for name in names:
        found.add(Revocation(name, None, 1.0), 1.0)
    return found


def test_what_has_ended_adds_nothing_to_what_others_say_of_the_same() -> None:
    known = Revocations()
    known.add(Revocation(None, "s", 1004.0, 1054.0), 1004.0)
    later = 1054.0 + GRACE_SECONDS + 1
    assert known.add(Revocation(None, "s", 1000.0), later)
    assert list(known) == [Revocation(None, "s", 1000.0)]


def test_what_a_node_knows_from_its_file_it_tells_once_it_has_read_what_there_is() -> None:
    server = ModelServer(lambda: 2.0)
    told = [Revocation(name, None, 1.0) for name in "abc"]
    assert server.ask(Revoke("first", told)) == Told("first:3")
    shared = SharedRevocations(known("c", "d"), lambda: 2.0)
    questions, trouble = look(shared, server, "second")
    assert trouble is None
    assert [type(each) for each in questions] == [Revoked, Revoked, Revoke]
    assert questions[-1] == Revoke("second", [Revocation("d", None, 1.0)])
    assert [each.token_id for each in shared.news] == ["a", "b"]
    assert [each.token_id for each in server.revoked] == ["a", "b", "c", "d"]
    assert server.ask(Revoked("first:3")) == Standing("first:4", [row(Revocation("d", None, 1.0))])


def test_a_full_list_is_told_and_the_rest_is_told_on_when_something_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr(streams, "MAX_REVOCATIONS", 2)
    server = ModelServer(lambda: now)
    server.ask(Revoke("a", [Revocation("a", None, 1.0, 20.0), Revocation("b", None, 1.0)]))
    node = Node(server, lambda: now, lambda: "b", [])
    node.say(Revocation("c", None, 5.0))
    assert look(node.shared, server, "b")[1] == "their list is full"
    assert node.shared.untold == 1
    now = 20.0 + GRACE_SECONDS + 1
    node.look()
    assert [each.token_id for each in server.revoked] == ["b", "c"]
    assert node.shared.untold == 0


def test_what_can_not_be_read_or_kept_stops_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access, "MAX_REVOCATIONS", 2)
    mine = known("a")
    shared = SharedRevocations(mine, lambda: 2.0)
    rows = [(b"x", b"{"), *(row(Revocation(name, None, 1.0)) for name in "bc")]
    steps = shared.look(lambda: "x")
    next(steps)
    steps.send(Standing("l:3", rows))
    assert steps.send(Standing("l:3")) == Revoke("x", [Revocation("a", None, 1.0)])
    assert sorted(str(each.token_id) for each in mine) == ["a", "b"]
    assert ["can't be read" in text or "is not refused here" in text for text in caplog.messages] == [True, True]


def test_one_that_has_ended_is_not_taken_up() -> None:
    shared = SharedRevocations(Revocations(), lambda: 1_000.0)
    steps = shared.look(lambda: "x")
    next(steps)
    with pytest.raises(StopIteration):
        steps.send(Standing("l:1", [row(Revocation("a", None, 1.0, 2.0))]))
    assert shared.news == []


def test_a_server_that_forgets_while_it_is_connected_is_told_everything_again() -> None:
    server = ModelServer(lambda: 2.0)
    shared = SharedRevocations(known("a", "b"), lambda: 2.0)
    look(shared, server, "first")
    server.flush()
    assert look(shared, server, "second")[1] is None
    assert [each.token_id for each in server.revoked] == ["a", "b"]
    assert [type(each) for each in look(shared, server, "third")[0]] == [Revoked], "and then it is left alone"


@pytest.mark.anyio
async def test_a_node_serves_when_it_has_heard_and_not_before_however_slow_the_answer(
    make_valkey: MakeValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey = await asyncio.to_thread(make_valkey)
    shown = mint(secret_key(SECRET), ttl_seconds=3600, subject="anna", subscribe=["#"])
    server = Server(Address.parse(valkey.url), "gateway", lease_seconds=2.0)
    await server.ask(Revoke("list", [Revocation(None, "anna", time.time() + 1)]))
    server.close()
    ask_server = Server.ask

    async def late(self: Server, question: Any) -> Any:
        if isinstance(question, Revoked):
            await asyncio.sleep(1.0)
        return await ask_server(self, question)

    monkeypatch.setattr(Server, "ask", late)
    async with running(access_secret=SECRET, cluster_url=valkey.url) as (app, _):
        answer = await ask(app, "/topics", authorization=f"Bearer {shown}")
    assert answer.status == 401
    assert json.loads(answer.body)["reason"] == "revoked"

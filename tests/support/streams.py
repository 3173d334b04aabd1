"""A server for a cluster, in memory: what its scripts do, and what can go wrong with it and on the way to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gateway.access.revocations import GRACE_SECONDS, MAX_REVOCATIONS, Revocation
from gateway.cluster.entries import Entry, Id, decode
from gateway.cluster.questions import Append, Begin, Look, Meet, Question, Read
from gateway.cluster.revoked import ROWS, Revoke, Revoked, Standing, Told, name_of, times_of
from gateway.cluster.views import Meta, View

__all__ = ["ModelServer"]


@dataclass
class _State:
    meta: Meta | None = None
    lease: tuple[str, float] | None = None
    stream: dict[Id, bytes] = field(default_factory=dict)
    able_until: float = 0.0
    revoked_list: str = ""
    revoked_number: int = 0
    revoked: dict[str, tuple[int, Revocation]] = field(default_factory=dict)


class ModelServer:
    """Answers as `gateway.cluster.server` does.

    Attributes:
        server: which server it is: another one after `restart` and `fail_over`.
    """

    def __init__(self, clock: Callable[[], float], lease_seconds: float = 2.0) -> None:
        self.number = 1
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._state = _State()
        self._replica = _State()

    @property
    def server(self) -> str:
        return f"server {self.number}"

    # what goes wrong

    def restart(self) -> None:
        """It is started again and has everything."""
        self.number += 1

    def wipe(self) -> None:
        """It is started again and has nothing."""
        self.number += 1
        self._state = _State()

    def flush(self) -> None:
        """Somebody removes everything."""
        self._state = _State()

    def replicate(self) -> None:
        """The replica has everything up to now."""
        self._replica = copy.deepcopy(self._state)

    def fail_over(self) -> None:
        """The replica takes its place, with what it has."""
        self.number += 1
        self._state = copy.deepcopy(self._replica)

    def forge(self, at: Id, data: bytes) -> None:
        """Somebody else adds an entry."""
        self._state.stream[at] = data

    # what it does

    @property
    def _holder(self) -> str | None:
        lease = self._state.lease
        return lease[0] if lease is not None and self._clock() < lease[1] else None

    @property
    def _tail(self) -> Id | None:
        return max(self._state.stream, default=None)

    @property
    def entries(self) -> list[tuple[Id, Entry]]:
        """What is in the stream."""
        return [(at, decode(self._state.stream[at])) for at in sorted(self._state.stream)]

    @property
    def meta(self) -> Meta | None:
        """What is noted beside it."""
        return self._state.meta

    def trim(self, at: Id) -> None:
        """Drops what is older than an entry."""
        self._state.stream = {each: data for each, data in self._state.stream.items() if each >= at}

    @property
    def revoked(self) -> list[Revocation]:
        """What was called back, as it was told."""
        return [each for _, each in sorted(self._state.revoked.values(), key=lambda pair: pair[0])]

    def ask(self, question: Question | Revoked | Revoke) -> object:
        """The answer to a question that is for the server."""
        state = self._state
        match question:
            case Meet(token, broker, is_able):
                holder = self._holder
                if is_able:
                    state.able_until = self._clock() + self._lease_seconds
                if token is not None and holder in (None, token):
                    state.lease = token, self._clock() + self._lease_seconds
                    if broker is not None and state.meta is not None and state.meta.token == token:
                        state.meta = replace(state.meta, broker=broker)
                left = 0 if self._holder is None or state.lease is None else state.lease[1] - self._clock()
                first = min(state.stream, default=None)
                able = self._clock() < state.able_until
                return View(state.meta, self._holder, int(left * 1000), first, self._tail, self.server, able)
            case Begin(before, at, meta, data):
                if self._holder != meta.token or self._tail != before:
                    return False
                state.stream[at] = data
                state.meta = meta
                return True
            case Append():
                return self._append(question)
            case Read(after, _, count):
                found = sorted(at for at in state.stream if at > after)[:count]
                return [(at, state.stream[at]) for at in found]
            case Look(at):
                return state.stream.get(at)
            case Revoked(version):
                return self._read_revoked(version)
            case Revoke(list_name, revocations):
                return self._revoke(list_name, revocations)
        raise AssertionError(question)

    def _append(self, append: Append) -> bool:
        state = self._state
        if self._holder != append.token or state.meta is None:
            return False
        if state.meta.tail != append.at:
            if state.meta.tail != append.before:
                return False
            assert append.at > (self._tail or Id(0)), "the server would refuse the id"
            state.stream[append.at] = append.data
            state.meta = replace(state.meta, tail=append.at, server=append.server)
            if append.trim is not None:
                self.trim(append.trim)
        if append.is_end:
            state.lease = None
        return True

    def _read_revoked(self, version: str) -> Standing:
        state = self._state
        list_name, _, number = version.partition(":")
        after = int(number) if number and list_name == state.revoked_list else -1
        rows = sorted((pair for pair in state.revoked.values() if pair[0] > after), key=lambda pair: pair[0])[:ROWS]
        up_to = rows[-1][0] if len(rows) == ROWS else state.revoked_number
        version = f"{state.revoked_list}:{up_to}" if state.revoked_list else ""
        return Standing(version, [(name_of(each).encode(), " ".join(times_of(each)).encode()) for _, each in rows])

    def _revoke(self, list_name: str, revocations: Sequence[Revocation]) -> Told:
        state, is_full = self._state, False
        limit = self._clock() - GRACE_SECONDS
        state.revoked = {name: pair for name, pair in state.revoked.items() if (pair[1].ends or limit + 1) > limit}
        state.revoked_list = state.revoked_list or list_name
        for each in revocations:
            _, before = state.revoked.get(name_of(each), (0, None))
            if before is None and len(state.revoked) >= MAX_REVOCATIONS:
                is_full = True
            elif each.joined(before) != before:
                state.revoked_number += 1
                state.revoked[name_of(each)] = state.revoked_number, each.joined(before)
        return Told(f"{state.revoked_list}:{state.revoked_number}", is_full)

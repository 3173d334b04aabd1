"""Which tokens were called back, as one node and the server of its cluster have it. Pure.

Invariant: what this node knows and the server lacks is told until the server has it. Of a server that was connected to
anew, or that has forgotten, everything is read once more before anything is told. `look` is a generator that knows no
socket: between a question and its answer anything may have happened.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.access.limits import LimitError
from gateway.access.revocations import Revocation, Revocations

__all__ = ["ROWS", "Revoke", "Revoked", "SharedRevocations", "Standing", "Told", "name_of", "revocation_of", "times_of"]

logger = logging.getLogger(__name__)

ROWS = 500
"""Revocations that are read or told at once."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """Asks for what was called back behind a version, `ROWS` at most: a `Standing`."""

    version: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """Tells what was called back: a `Told`.

    Attributes:
        list_name: what the list is called where there is none yet: a name that no other list ever has.
        revocations: `ROWS` at most; telling one twice changes nothing.
    """

    list_name: str
    revocations: Sequence[Revocation]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the server has.

    Attributes:
        version: `<list>:<number>`, up to where that is; empty where there is no list.
        rows: what each revocation is about (`name_of`) and its times (`times_of`), oldest first.
    """

    version: str = ""
    rows: Sequence[tuple[bytes, bytes]] = ()

    @property
    def is_all(self) -> bool:
        """Whether there is nothing more to read."""
        return len(self.rows) < ROWS


@dataclass(frozen=True, slots=True)
class Told:
    """What came of telling.

    Attributes:
        version: of the list now.
        is_full: whether the server has no place for all of it.
    """

    version: str
    is_full: bool = False


def _list_of(version: str) -> str:
    """Which list it is: another one when the server had forgotten everything."""
    return version.partition(":")[0]


def name_of(revocation: Revocation) -> str:
    """What it is about: there is one of a name."""
    if revocation.token_id is not None:
        return f"token:{revocation.token_id}"
    return f"subject:{revocation.subject}"


def times_of(revocation: Revocation) -> tuple[str, str]:
    """When it was said and when it ends, as they are on the server, which puts the later ones together."""
    return repr(revocation.at), "+inf" if revocation.ends is None else repr(revocation.ends)


def revocation_of(name: bytes, times: bytes) -> Revocation:
    """What the server says.

    Raises:
        ValueError: it is something else.
    """
    kind, _, rest = name.decode().partition(":")
    at, ends = (float(text) for text in times.split(b" "))
    if kind not in ("token", "subject") or not rest:
        raise ValueError(f"{name[:80]!r} is neither a token nor a subject")
    is_token = kind == "token"
    return Revocation(rest if is_token else None, None if is_token else rest, at, None if ends == math.inf else ends)


class SharedRevocations:
    """What one node knows, and what of it the server lacks.

    Attributes:
        is_whole: whether all that the server has was read since the connection was made.
        news: what was read and not known before, until somebody takes it from here.
    """

    def __init__(self, known: Revocations, wall_clock: Callable[[], float]) -> None:
        """Nothing has been read; `known` is where news go, `wall_clock` has seconds since 1970."""
        self.is_whole = False
        self.news: list[Revocation] = []
        self._known = known
        self._wall_clock = wall_clock
        self._version = ""
        self._seen: dict[str, Revocation] | None = {}  # what was read of a list that is read from its beginning
        self._untold: dict[str, Revocation] = {}

    def disconnected(self) -> None:
        """Whatever the server has next is looked at from its beginning: it may lack what it had."""
        self.is_whole = False
        self._begin_anew("")

    def _begin_anew(self, version: str) -> None:
        self._version = version
        self._seen = {}

    @property
    def untold(self) -> int:
        """How much of what was called back here the server is not known to have."""
        return len(self._untold)

    def say(self, revocation: Revocation) -> None:
        """It was called back here: the server is to be told."""
        self._untold[name_of(revocation)] = revocation

    def look(self, make_name: Callable[[], str]) -> Generator[Revoked | Revoke, Any, str | None]:
        """Hears everything that is new, and tells everything that the server lacks; what is wrong with it.

        Args:
            make_name: makes a list's name, another one each time; see `Revoke`. With one name for all, a list that this
                node began could be removed and begun again between two questions, and would look like the same one.
        """
        while True:
            standing: Standing = yield Revoked(self._version)
            self._take(standing)
            if standing.is_all:
                break
        self._find_untold()
        while untold := list(self._untold.values())[:ROWS]:
            told: Told = yield Revoke(make_name(), untold)
            if _list_of(told.version) != _list_of(self._version):
                self._begin_anew(f"{_list_of(told.version)}:0")
            if told.is_full:
                return "their list is full"
            self._forget(untold)
        return None

    def _take(self, standing: Standing) -> None:
        if _list_of(standing.version) != _list_of(self._version):
            self._seen = {}
        now = self._wall_clock()
        for row in standing.rows:
            try:
                revocation = revocation_of(*row)
            except ValueError as error:
                logger.error("what was called back at another node can't be read: %s", error)
                continue
            if self._seen is not None:
                self._seen[name_of(revocation)] = revocation
            if revocation.has_ended(now):
                continue
            try:
                if self._known.add(revocation, now):
                    self.news.append(revocation)
            except LimitError as error:
                logger.error("a token that was called back at another node is not refused here: %s", error)
        self._version = standing.version

    def _find_untold(self) -> None:
        """All has been read: what the server lacks it is told."""
        self.is_whole = True
        seen, self._seen = self._seen, None
        if seen is None:
            return
        now = self._wall_clock()
        for each in self._known:
            if not each.has_ended(now) and each.joined(seen.get(name_of(each))) != seen.get(name_of(each)):
                self.say(each)

    def _forget(self, told: Iterable[Revocation]) -> None:
        """The server has these; one that was said again meanwhile it has not."""
        for each in told:
            if self._untold.get(name_of(each)) == each:
                del self._untold[name_of(each)]

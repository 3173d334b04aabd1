"""Tokens that are called back before they end: one by one, or all that a subject has been given so far.

Invariant: with a token go the links that were made of it. What was called back stays so until it would have ended
anyway; nothing is forgotten to make room, so a further one is refused where there are too many. In a file they outlive
the process, and are those of every gateway that has the same file. Whose connection ends by it is for those who
`watch`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gateway.access.grants import Principal
from gateway.access.limits import LimitError

__all__ = ["MAX_REVOCATIONS", "REVOKE_TOPIC", "Revocation", "RevocationFile", "Revocations", "fingerprint"]

MAX_REVOCATIONS = 10_000
"""Tokens and subjects that are called back at a time; a lookup costs the same for one and for all."""

REVOKE_TOPIC = "$gateway/revocations"
"""Who is granted to publish there may call back any token. No wildcard at the start of a grant covers it."""

GRACE_SECONDS = 60.0
"""So much longer than to its token's end one is kept: clocks differ."""

AT_ONCE = 500
"""Connections that are looked at before others get a turn."""


def fingerprint(token: str) -> str:
    """A name for a token without `jti`: of what is signed, since a signature can be written in more than one way."""
    return "sha256:" + hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()[:32]


def subject_name(subject: str) -> str:
    """A name for a subject, in links that it made: a hash, so that a link doesn't say whose it is."""
    return "subject:" + hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def names_of(principal: Principal) -> tuple[str, ...]:
    """The names by which what is made of somebody's token is called back with it: the token's and the subject's."""
    subject = None if principal.anonymous or principal.subject is None else subject_name(principal.subject)
    return tuple(name for name in (principal.token_id, subject) if name)


@dataclass(frozen=True, slots=True)
class Revocation:
    """One token, or all of a subject that were issued up to a time.

    Attributes:
        token_id: of the one token, its `jti` or `fingerprint`; None where it is about a subject.
        subject: whose tokens; None where it is about one token.
        at: when it was said, in seconds since 1970.
        ends: when no such token can be good any more, likewise; None where nobody knows.
    """

    token_id: str | None
    subject: str | None
    at: float
    ends: float | None = None

    def joined(self, other: Revocation | None) -> Revocation:
        """This and another one about the same, in either order: the later times count."""
        if other is None:
            return self
        ends = None if self.ends is None or other.ends is None else max(self.ends, other.ends)
        return replace(self, at=max(self.at, other.at), ends=ends)

    @property
    def name(self) -> str:
        """Of what it is about, among those of `names_of`."""
        return self.token_id if self.token_id is not None else subject_name(self.subject or "")

    def covers(self, principal: Principal) -> bool:
        """Whether it calls the token back by which somebody is this principal, or one of which that was made."""
        # without a time of issue nobody can say that it was made later
        is_earlier = self.token_id is not None or principal.issued_at is None or principal.issued_at <= self.at
        return is_earlier and self.name in (*names_of(principal), *principal.lineage)

    def has_ended(self, now: float) -> bool:
        """Whether it may be forgotten."""
        return self.ends is not None and self.ends + GRACE_SECONDS < now


class Revocations:
    """What has been called back, and who wants to know."""

    def __init__(self) -> None:
        self._tokens: dict[str, Revocation] = {}
        self._subjects: dict[str, Revocation] = {}  # by `subject_name`
        self._watchers: dict[int, tuple[Principal, Callable[[], None]]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._tokens) + len(self._subjects)

    def __iter__(self) -> Iterator[Revocation]:
        return iter([*self._tokens.values(), *self._subjects.values()])

    def covers(self, principal: Principal) -> bool:
        """Whether the token of this principal was called back."""
        if not self._tokens and not self._subjects:
            return False
        names = (*names_of(principal), *principal.lineage)
        found = (each for name in names for each in (self._tokens.get(name), self._subjects.get(name)))
        return any(each is not None and each.covers(principal) for each in found)

    def add(self, revocation: Revocation, now: float) -> bool:
        """Takes one up, joined with one about the same; whether it is news.

        Raises:
            LimitError: there are too many.
        """
        found, name = self._tokens if revocation.token_id is not None else self._subjects, revocation.name
        before = found.get(name)
        revocation = revocation.joined(before)
        if revocation == before:
            return False
        if before is None and len(self) >= MAX_REVOCATIONS:
            for entries in (self._tokens, self._subjects):
                for old in [key for key, each in entries.items() if each.has_ended(now)]:
                    del entries[old]
            if len(self) >= MAX_REVOCATIONS:
                text = f"limit: {MAX_REVOCATIONS} tokens and subjects are called back already; change the key instead"
                raise LimitError("limit", "revocations", text)
        found[name] = revocation
        return True

    def watch(self, principal: Principal, end: Callable[[], None]) -> int:
        """Has `end` called when this principal's token is called back; the number takes that back by `forget`."""
        number = next(self._numbers)
        self._watchers[number] = principal, end
        return number

    def forget(self, number: int) -> None:
        """Watches no longer."""
        self._watchers.pop(number, None)

    def end(self, revocation: Revocation) -> Generator[None, None, int]:
        """Ends what goes on by a token that was called back; how much that was is what the generator returns."""
        count = 0
        for done, (number, (principal, end)) in enumerate(list(self._watchers.items()), start=1):
            if revocation.covers(principal) and number in self._watchers:
                count += 1
                self.forget(number)
                end()
            if done % AT_ONCE == 0:
                yield
        return count


class RevocationFile:
    """What was called back, in a file: a line of JSON for each. Several processes may have it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None

    def changed(self) -> list[Revocation]:
        """All that are in it if it is another one than when it was looked at last, else none.

        Raises:
            OSError: it can't be read.
            ValueError: it holds something else.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return []
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp == self._stamp:
            return []
        found = list(self._read())
        self._stamp = stamp
        return found

    def _read(self) -> Iterator[Revocation]:
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    yield Revocation(**json.loads(line))
                except TypeError:
                    raise ValueError(f"{self.path}: a line that calls nothing back") from None

    def add(self, more: Iterable[Revocation], now: float) -> None:
        """Writes further ones; those that have ended go. It is on the disk when this returns.

        Raises:
            OSError: it can't be written; then it is as it was.
            ValueError: it holds something else.
        """
        with self._locked():
            kept = Revocations()
            before = list(self._read())
            for each in before:
                if not each.has_ended(now):
                    kept.add(each, now)
            is_same = len(kept) == len(before)
            for each in more:
                if not each.has_ended(now) and kept.add(each, now):
                    is_same = False
            if is_same:
                return  # another process that has the file was told as well
            new = self.path.with_name(self.path.name + ".new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(each)) + "\n" for each in kept)
                file.flush()
                os.fsync(descriptor)
            new.replace(self.path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            import fcntl
        except ImportError:  # not on Windows, where one gateway has it
            yield
            return
        with self.path.with_name(self.path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

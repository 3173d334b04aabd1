"""What a node sees of the shared log at one moment, and what follows from it for its epoch.

Invariant: an epoch is kept only where it is certain that no entry of it that anybody has read is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.cluster.entries import NOTHING, Id

__all__ = ["EPOCHS", "Led", "Meta", "Reason", "View", "why_anew"]

EPOCHS = 16
"""So many epochs before the one of now are remembered."""


class Reason:
    """Why an epoch ends, for logs and people."""

    FIRST = "the cluster begins"
    GONE = "the shared log is gone"
    LOST = "the newest messages of the shared log are gone"
    RESTARTED = "the server was restarted or replaced, and nobody can tell whether messages were lost"


@dataclass(frozen=True, slots=True)
class Meta:
    """What is noted beside the stream.

    Attributes:
        epoch: of the log.
        base: the entry at which this epoch began; what is before it belongs to it whatever epoch it names.
        token: of who leads, or led last.
        node: its name.
        since: when it began to lead, milliseconds since 1970.
        server: which server it was when that was written.
        tail: id of the newest entry.
        broker: how the leader stands with the broker: empty when it is connected, else why not.
        before: epochs before this one, each with the number up to which this one has what that had, oldest first.
    """

    epoch: str
    base: Id
    token: str
    node: str
    since: int
    server: str
    tail: Id
    broker: str = ""
    before: tuple[tuple[str, int], ...] = ()

    def descent(self, seq: int) -> tuple[tuple[str, int], ...]:
        """`before` of an epoch that takes over what this one has up to the number `seq`."""
        return (*((epoch, min(last, seq)) for epoch, last in self.before), (self.epoch, seq))[-EPOCHS:]


@dataclass(frozen=True, slots=True)
class View:
    """The answer of the server.

    Attributes:
        meta: None where there is nothing.
        holder: the token in the lease; None while it is free.
        free_in_ms: when the lease ends; 0 while it is free.
        first: id of the oldest entry; None in an empty stream.
        tail: id of the newest one.
        server: which server it is.
        is_somebody_able: whether a node that doesn't lead reaches the broker.
    """

    meta: Meta | None
    holder: str | None
    free_in_ms: int
    first: Id | None
    tail: Id | None
    server: str
    is_somebody_able: bool = False


@dataclass(frozen=True, slots=True)
class Led:
    """The last time that this node led.

    Attributes:
        token: what it led with.
        ends: ids of the newest entry, one of which the stream must end with: one was appended, the other perhaps.
    """

    token: str
    ends: tuple[Id, ...]


def why_anew(view: View, led: Led | None, read: Id | None) -> str | None:
    """Why the log can't go on under its epoch; None if it can.

    Args:
        view: while nobody but who asks can append.
        led: the last time that who asks led; None if it never did.
        read: up to where it has read this epoch; None if it hasn't.
    """
    meta = view.meta
    if meta is None:
        return Reason.FIRST if read is None and view.tail is None else Reason.GONE
    if view.tail is None:
        return Reason.GONE
    if view.tail != meta.tail or (read or NOTHING) > view.tail:
        return Reason.LOST
    if led is not None and led.token == meta.token:
        # nobody else has appended since, and what it appended is known
        return None if view.tail in led.ends else Reason.LOST
    return None if view.server == meta.server else Reason.RESTARTED

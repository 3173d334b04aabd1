"""What a node asks of the server, one thing at a time, and what it waits for between.

Invariant: a question may be asked twice, and be answered late or never; what it changes is changed once.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.cluster.entries import Id
from gateway.cluster.views import Meta

__all__ = [
    "READ_ENTRIES", "Append", "Begin", "Leave", "Look", "Meet", "Pause", "Question", "Read", "ServerError", "Times",
    "Wait",
]  # fmt: skip

READ_ENTRIES = 32
"""Entries that are asked for at once; while they are taken, nothing else has a turn."""


class ServerError(Exception):
    """The server can't be reached, or refuses what it is asked."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, but for a rate.

    Attributes:
        gather: between two appends of a busy leader: what comes meanwhile shares the second one. After a longer silence
            none waits. With fewer messages the time is shorter, a quarter with half of them: an append costs the same
            for one, and while there is room nobody is to wait.
        busy_rate: messages a second from which a leader is busy.
        lease: how long a leader that is silent leads on.
        renew: how often it renews its lease, and others look whether it is free.
        retry: how long to wait after the server could not be reached.
        cut_off: how long a leader waits for the broker before it hands over to a node that reaches it.
        connect: the same for its first attempt, as long as that has not failed: on a busy machine, with many messages
            that wait, one takes seconds at every node.
        aside: how long a node that handed over leaves the lease to others.
    """

    gather: float = 0.014
    busy_rate: float = 2_000.0
    lease: float = 2.0
    renew: float = 0.5
    retry: float = 0.2
    cut_off: float = 3.0
    connect: float = 10.0
    aside: float = 30.0


@dataclass(frozen=True, slots=True)
class Meet:
    """Asks for a `View`. With a token the lease is taken where it is free, or renewed.

    Attributes:
        token: the node's.
        broker: how the leader stands with the broker.
        is_able: this node doesn't lead, and reaches the broker: a leader that doesn't may hand the lease over.
    """

    token: str | None
    broker: str | None = None
    is_able: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """Begins to lead behind the entry `before`: whether it worked; not if the lease is another's or the stream is."""

    before: Id | None
    at: Id
    meta: Meta
    data: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """Appends behind the entry `before`, once however often it is asked; the answer is that of `Begin`.

    Attributes:
        server: which one it is now: nothing of the stream is missing on it.
        trim: what is older is dropped.
        is_end: the lease is given back.
    """

    token: str
    before: Id
    at: Id
    data: bytes
    server: str
    trim: Id | None = None
    is_end: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Asks for entries behind one: pairs of `Id` and bytes.

    Who has had all of them, as an answer before said, waits so many seconds for the next one.
    """

    after: Id
    seconds: float
    count: int = READ_ENTRIES


@dataclass(frozen=True, slots=True)
class Look:
    """Asks for the bytes of one entry; None if it isn't there."""

    at: Id


@dataclass(frozen=True, slots=True)
class Wait:
    """Waits until there is something to append, or so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Waits so many seconds, after which the connection is made anew."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Leave:
    """Everything has been appended: the session with the broker is to be left in order."""


Question = Meet | Begin | Append | Read | Look | Wait | Pause | Leave

"""Where a client of ours goes on after a cut: one rule, for whatever it is written in Python.

Invariant: asked again with `since`, the gateway gives every message that the subscription was promised and that was not
heard, whichever frame was the last one: the replay is not taken for given because it was answered. The client library
for browsers has the same rule for subscriptions that overlap (`readTo` in web/client/src/connect.ts).
"""

from __future__ import annotations

__all__ = ["Resume"]


class Resume:
    """How far the one subscription of a connection was heard, over many connections.

    It hears all that comes, in its order. The subscription is made by a command with an `id`: only then is the end of
    its replay told.

    Attributes:
        since: what to ask for now.
    """

    __slots__ = ("_epoch", "_head", "_seq", "since")

    def __init__(self, since: str | None = None) -> None:
        """Begins at `since`; None is `last`, as for the gateway."""
        self.since = since or "last"
        self._epoch = ""
        self._head = self._seq = 0

    def subscribed(self, position: str, after: int | None = None) -> None:
        """The gateway has answered `subscribed`: what comes next is the replay.

        Args:
            position: the head of the log.
            after: `from` of the answer: the number above which every message comes. Last values come from below it.
        """
        self._epoch, _, head = position.partition(":")
        self._head, self._seq = int(head), 0
        if self.since != "last" and after is not None:
            self._go_on_behind(after)  # a time back would be another time when it is asked for again

    def heard(self, seq: int) -> None:
        """A message: replays as well as what is live come in the order of numbers."""
        self._seq = seq
        self._go_on_behind(seq)

    def replayed(self) -> None:
        """The gateway has told `replayed`: nothing up to the head is missing, though nothing may have matched."""
        self._go_on_behind(max(self._head, self._seq))

    def _go_on_behind(self, seq: int) -> None:
        self.since = f"{self._epoch}:{seq}"

"""Commands to a Valkey server and their answers, one at a time, on a connection that valkey-py has made and signed in.

What the server pushes between them (RESP3) is told as it comes. A node hears from its server some hundred times a
second: valkey-py's own way there and back takes 95 to 190 µs of processor time, this one a third of that, and less
where nobody waits in a task. libvalkey reads the answers.

Invariant: an answer belongs to the command before it; after anything else the connection is of no use any more. Pushes
and answers are told in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import libvalkey
from valkey.asyncio.connection import Connection
from valkey.exceptions import ConnectionError as NoConnectionError
from valkey.exceptions import InvalidResponse

__all__ = ["Wire"]

STALL_SECONDS = 0.05
"""A timer that is so late says that the loop stood still; uvloop runs it before it reads what has come meanwhile."""


class Wire(asyncio.Protocol):
    """A connection."""

    def __init__(self, connection: Connection, on_push: Callable[[bytes], None] = lambda _: None) -> None:
        """Takes over a connection that has been made; its own ways of asking are closed from now on.

        `on_push` is called with each message of the channels that it has subscribed to.
        """
        self._on_push = on_push
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._reader = libvalkey.Reader(
            protocolError=InvalidResponse, replyError=connection._parser.parse_error, notEnoughData=self
        )
        self._then: Callable[[Any], None] | None = None
        self._is_asked = False  # or it is waited for a push
        self._deadline = 0.0
        self._is_extended = False
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = 0.0  # uvloop's timers that are due at once don't know when they are
        self._failure: Exception | None = None
        # valkey-py has no public way to its transport; where that moves to, every test of the cluster says so
        assert connection._writer is not None  # noqa: S101 - it was made
        self._transport: asyncio.WriteTransport = connection._writer.transport
        self._transport.set_protocol(self)

    def send(self, data: bytes, seconds: float, then: Callable[[Any], None]) -> None:
        """Sends a command, and calls a function with its answer, or with what went wrong.

        It is called in the turn in which the answer comes; at once where the connection is lost already. What goes
        wrong is a `TimeoutError` where there was no answer for so many seconds, and a `ValkeyError` where the server
        says so, or the connection is lost.
        """
        self._is_asked = True
        self._wait(seconds, then)
        if self._failure is None:
            self._transport.write(data)

    def wait(self, seconds: float, then: Callable[[Any], None]) -> None:
        """Sends nothing, and calls a function when `end_wait` is called, or as `send` does."""
        self._is_asked = False
        self._wait(seconds, then)

    def end_wait(self) -> None:
        """There is something that was waited for: who waits is called, with None."""
        if not self._is_asked:
            self._answer(None)

    def _wait(self, seconds: float, then: Callable[[Any], None]) -> None:
        if self._failure is not None:
            then(self._failure)
            return
        self._then = then
        self._deadline = self._loop.time() + seconds
        self._is_extended = False
        if self._timer is None or self._looks_at > self._deadline:
            self._arm()

    async def ask(self, data: bytes, seconds: float) -> Any:
        """As `send`, for who waits in a task: returns the answer, and raises what goes wrong."""
        answered = self._loop.create_future()
        self.send(data, seconds, answered.set_result)
        try:
            answer = await answered
        except asyncio.CancelledError:
            self.close()
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        """Gives up on an answer that is late; one timer serves many commands."""
        self._timer = None
        if self._then is None:
            return
        late = self._loop.time() - self._deadline
        if late < 0:
            self._arm()
        elif late > STALL_SECONDS and not self._is_extended:
            self._is_extended = True
            self._deadline = self._loop.time() + STALL_SECONDS
            self._arm()
        else:
            self._answer(TimeoutError())

    def _answer(self, answer: Any) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(answer)

    def close(self) -> None:
        """Ends the connection; nothing can be asked any more, and who waits for an answer gets none."""
        self._then = None
        self._end(NoConnectionError("closed"))
        self._transport.abort()
        self._connection._writer = self._connection._reader = None

    def _end(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._answer(self._failure)

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Takes a part of an answer, one or several, and pushes."""
        try:
            self._reader.feed(data)
            while self._failure is None and (answer := self._reader.gets()) is not self:
                # libvalkey gives a push as a list: nothing else that is asked here is answered by one that begins so
                kind = answer[0] if type(answer) is list and len(answer) == 3 else None
                if kind == b"message":
                    self._on_push(answer[2])
                elif kind == b"subscribe" or kind == b"unsubscribe":
                    pass
                elif self._is_asked and self._then is not None:
                    self._answer(answer)
                else:
                    raise InvalidResponse("an answer that nothing was asked for")
        except InvalidResponse as error:
            self._end(error)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hears that it has ended."""
        self._end(NoConnectionError(str(exc) if exc is not None else "the server has closed the connection"))

"""Records of TLS, decrypted in turns: a record may have one byte of what it carries.

Invariant: of one connection no more than `STEP_SECONDS` and one record are decrypted in a turn of the loop, and what it
takes is charged to who sent them, whether anything is in them or not. What they carry is charged where it is read. A
loop's own TLS decrypts whatever has come at once: 11,000 records in 256 KiB, of all connections in one turn.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

from gateway.access.budget import Budget
from gateway.transport.turns import Turns

__all__ = ["STEP_SECONDS", "Records", "let_go"]

STEP_SECONDS = 0.0005
"""Processor time for records of one connection in one turn of the loop: 50 of 16 KiB, or 300 of a byte."""


def let_go(transport: asyncio.BaseTransport) -> None:
    """A connection is gone: what was made for it holds nothing any more."""
    if isinstance(tls := transport.get_extra_info("ssl_object"), Records):
        tls.let_go()


class Records(ssl.SSLObject):
    """The TLS of one connection; a context makes it where it is its `sslobject_class`."""

    _spent = 0.0  # since it had its turn, in seconds of processor time
    _waits = False  # for its turn, or until it has paid
    _turns: Turns | None = None  # None before the handshake is done, and at the end
    _budget: Budget
    _transport: asyncio.Transport

    def take_turns(self, turns: Turns, budget: Budget, transport: asyncio.Transport) -> None:
        """From here on others have their turns, too.

        Args:
            turns: whose records are decrypted next.
            budget: pays for it.
            transport: what is decrypted goes to its protocol.
        """
        self._turns = turns
        self._budget = budget
        self._transport = transport

    def let_go(self) -> None:
        """The connection is gone: this and its transport no longer hold each other."""
        if self._turns is not None:
            self._turns = None
            del self._transport

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - its name in the standard library
        """Decrypts a record; says that more has to come where others have to have their turns first."""
        if self._spent >= STEP_SECONDS and self._turns is not None:
            if not self._waits:
                self._waits = True
                self._turns.ask(self, asyncio.get_running_loop().call_soon)
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "others have their turns")
        began = time.thread_time()
        try:
            return super().read(len) if buffer is None else super().read(len, buffer)
        finally:
            self._spent += time.thread_time() - began

    def key(self) -> str | None:
        """What counts as its address."""
        return self._budget.key

    def step(self) -> bool:
        """Pays, and reads on in the next turn of the loop, or when it owes nothing any more."""
        if self._turns is not None:
            self._turns.spend(self._spent)
            self._budget.spend(self._spent)
            if (wait := self._budget.wait()) > 0:
                asyncio.get_running_loop().call_later(wait, self._read_on)
            else:
                self._read_on()
        return False

    def _read_on(self) -> None:
        self._spent, self._waits = 0.0, False
        if self._turns is not None and self._transport.is_reading():
            # what has come is looked at again
            self._transport.pause_reading()
            self._transport.resume_reading()

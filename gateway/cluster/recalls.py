"""Tokens that were called back, told to the other nodes of a cluster and heard from them, in the event loop.

Invariant: it has a connection of its own, so that neither waits for the log nor holds it up. What could not be told is
told when the server is there again, before anybody hears that it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable

from gateway.access.revocations import Revocation, Revocations
from gateway.cluster.address import Address
from gateway.cluster.questions import ServerError, Times
from gateway.cluster.revoked import SharedRevocations
from gateway.cluster.server import Server

__all__ = ["POLL_SECONDS", "Recalls"]

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""How often the server is asked for news: an answer of a few bytes where there are none."""


class Recalls:
    """What one node tells and hears.

    Attributes:
        trouble: why the server can't be asked now; None if it can.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        known: Revocations,
        *,
        wall_clock: Callable[[], float],
        on_news: Callable[[list[Revocation]], Awaitable[None]],
    ) -> None:
        """Connects to nothing; `run` does.

        Args:
            address: where the server is.
            name: of the cluster.
            known: what this node knows, filled with what it hears.
            wall_clock: seconds since 1970.
            on_news: hears what has just been filled in.
        """
        self.trouble: str | None = None
        self._server = Server(address, name, lease_seconds=Times().lease)
        self._shared = SharedRevocations(known, wall_clock)
        self._is_over = False
        self._on_news = on_news
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._waiting: list[asyncio.Future[bool]] = []

    @property
    def is_sharing(self) -> bool:
        """Whether this node knows what the others know, and they hear what it is told."""
        return self.trouble is None and self._shared.is_whole

    @property
    def untold(self) -> int:
        """How many tokens and subjects were called back here that the others have yet to hear of."""
        return self._shared.untold

    def say(self, revocation: Revocation) -> asyncio.Future[bool]:
        """Tells a revocation that is in `known`: whether the others hear of it now; else they will."""
        self._shared.say(revocation)
        told = asyncio.get_running_loop().create_future()
        if self._is_over:
            told.set_result(False)
        self._waiting.append(told)
        self._wake.set()
        return told

    async def wait_heard(self, timeout_seconds: float) -> bool:
        """Waits until this node knows what the server has, or the server can't be reached; whether it knows."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._answered.wait()
        except TimeoutError:
            return False
        return self._shared.is_whole

    async def run(self) -> None:
        """Tells and hears until it is cancelled."""
        try:
            while True:
                self._wake.clear()
                count = len(self._waiting)  # who says something while the server is asked is told the next time
                try:
                    self._judge(await self._look())
                except ServerError as error:
                    self._server.close()
                    self._shared.disconnected()
                    self._judge(str(error))
                self._answer(count, self.trouble is None)
                self._answered.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
        finally:
            self._is_over = True
            self._answer(len(self._waiting), False)
            self._server.close()

    def _answer(self, count: int, is_told: bool) -> None:
        for told in self._waiting[:count]:
            if not told.done():
                told.set_result(is_told)
        del self._waiting[:count]

    async def _look(self) -> str | None:
        steps = self._shared.look(lambda: secrets.token_hex(8))
        question = next(steps)
        while True:
            answer = await self._server.ask(question)
            try:
                question = steps.send(answer)
            except StopIteration as done:
                trouble: str | None = done.value
                return trouble
            finally:
                if self._shared.news:
                    news, self._shared.news = self._shared.news, []
                    await self._on_news(news)

    def _judge(self, trouble: str | None) -> None:
        before, self.trouble = self.trouble, trouble
        if trouble is not None and trouble != before:
            logger.error("tokens that are called back are not told to other nodes, nor heard of: %s", trouble)
        elif trouble is None and before is not None:
            logger.info("tokens that are called back are told to other nodes again")

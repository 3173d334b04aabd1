"""One node of a cluster at work: a member whose questions a server answers, in the event loop.

Invariant: one question is under way at a time. Who talks to the broker while this node leads is told, and is not here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.cluster.address import Address
from gateway.cluster.leading import Leading
from gateway.cluster.log import HubLog
from gateway.cluster.member import Member, Role
from gateway.cluster.questions import (
    Append,
    Begin,
    Leave,
    Look,
    Meet,
    Pause,
    Question,
    Read,
    ServerError,
    Times,
    Wait,
)
from gateway.cluster.server import Server
from gateway.core.durations import duration_text
from gateway.core.history import make_epoch
from gateway.core.hub import Hub

__all__ = ["Cluster"]

logger = logging.getLogger(__name__)

STOP_SECONDS = 4.0
"""How long leaving may take, with a server that doesn't answer."""


class _Alarm:
    """Something that is waited for, for so long at most."""

    def __init__(self) -> None:
        self._has_rung = False
        self._then: Callable[[None], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def ring(self) -> None:
        """Ends a wait: this one, in another turn, or the next."""
        self._has_rung = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        then, self._then, self._timer = self._then, None, None
        self._has_rung = False
        if then is not None:
            then(None)

    def wait(self, seconds: float, then: Callable[[None], None]) -> bool:
        """Calls a function when it rings, or after so many seconds; not, and False, where it has rung already."""
        if self._has_rung:
            self._has_rung = False
            return False
        self._then = then
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)
        return True

    def cancel(self) -> None:
        """Nothing is waited for."""
        self._then = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Cluster:
    """The part of a gateway that makes it a node.

    Attributes:
        member: what it does.
        address: where the server is.
        name: of the cluster.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        node: str,
        hub: Hub,
        *,
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        on_lead: Callable[[Leading], None],
        on_follow: Callable[[str], None],
        leave: Callable[[], Awaitable[None]],
        on_change: Callable[[], None],
        is_able: Callable[[], bool],
    ) -> None:
        """Connects to nothing; `run` does.

        Args:
            address: where the server is.
            name: of the cluster: nodes of one name have one log.
            node: name of this node.
            hub: whose log is written.
            clock: monotonic seconds.
            wall_clock_ms: milliseconds since 1970.
            on_lead: see `Member`.
            on_follow: see `Member`.
            leave: leaves the session with the broker in order, before another node takes it over.
            on_change: see `Member`.
            is_able: see `Member`.
        """
        self.address = address
        self.name = name
        self._times = Times()
        self._server = Server(address, name, lease_seconds=self._times.lease)
        self._alarm = _Alarm()
        self._answered = asyncio.Event()
        self._aside: asyncio.Future[Question | None]  # a question that takes a task; None: it is over
        self._on_change = on_change
        self._leave = leave
        self._said: str | None = None
        self.member = Member(
            node,
            HubLog(hub),
            clock=clock,
            wall_clock_ms=wall_clock_ms,
            make_token=lambda: secrets.token_hex(8),
            make_epoch=make_epoch,
            wake=self._alarm.ring,
            on_lead=on_lead,
            on_follow=on_follow,
            on_change=self._changed,
            is_able=is_able,
            times=self._times,
        )
        self._steps = self.member.run()

    def _changed(self) -> None:
        trouble = self.member.trouble
        if trouble != self._said:
            self._said = trouble
            if trouble is None:
                logger.info("the shared log on %s can be reached again", self.address)
            else:
                logger.error("the shared log can't be reached, what is in memory is served: %s", trouble)
        if self.member.is_caught_up or trouble is not None:
            self._answered.set()
        self._on_change()

    async def wait_caught_up(self, timeout_seconds: float) -> bool:
        """Waits until this node has what the shared log has, or the server can't be reached; whether it has it."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._answered.wait()
        except TimeoutError:
            return False
        return self.member.is_caught_up

    @property
    def leader(self) -> str | None:
        """The name of the node that leads, as far as is known; None: nobody does."""
        if self.member.role is Role.LEADER:
            return self.member.node
        view = self.member.view
        if view is None or view.meta is None or view.holder != view.meta.token:
            return None
        return view.meta.node

    @property
    def reason(self) -> str | None:
        """Why nothing new arrives at this node now; None if it does."""
        member, view = self.member, self.member.view
        if member.trouble is not None:
            return f"the shared log can't be reached: {member.trouble}"
        if member.role is Role.LEADER:
            return member.broker or None
        if not member.is_caught_up:
            return "this node has not read the shared log yet"
        if self.leader is None or view is None or view.meta is None:
            return "no node leads"
        return view.meta.broker or None

    def explain(self, now_ms: int) -> tuple[bool, str]:
        """Whether this node does what it should, and what that is."""
        member, view = self.member, self.member.view
        if member.trouble is not None or view is None or view.meta is None:
            return False, "the shared log can't be reached: what this node has is served, and nothing new arrives"
        if self.leader is None:
            return False, f"no node leads; the last one was {view.meta.node}"
        since = f"{self.leader} leads for {duration_text(max(now_ms - view.meta.since, 0) // 1000)}"
        if member.leading is None:
            return member.is_caught_up, f"{since}; this node, {member.node}, is {member.lag} messages behind it"
        if not member.leading.appended_at:
            return True, f"{since}, which is this node; nothing has arrived yet"
        age = max(now_ms - member.leading.appended_at, 0) / 1000
        return True, f"{since}, which is this node; it appended something {age:.1f} s ago"

    async def run(self) -> None:
        """Follows, leads where it has to, and ends after `stop`."""
        self._aside = asyncio.get_running_loop().create_future()
        try:
            self._proceed(None)
            while (question := await self._aside) is not None:
                self._aside = asyncio.get_running_loop().create_future()
                try:
                    answer = await self._answer(question)
                except ServerError as error:
                    answer = error
                self._proceed(answer)
        finally:
            self._alarm.cancel()
            self._server.close()
            self._steps.close()

    def _proceed(self, answer: Any) -> None:
        """Hands an answer on, and asks what is asked then.

        That is in the turn in which the answer came, some hundred times a second: a task would need another turn.
        """
        steps = self._steps
        try:
            while True:
                question = steps.throw(answer) if isinstance(answer, ServerError) else steps.send(answer)
                match question:
                    case Wait(seconds):
                        is_asked = self._alarm.wait(seconds, self._proceed)
                        if not is_asked:
                            answer = None
                            continue
                    case Pause() | Leave():
                        is_asked = False
                    case _:
                        is_asked = self._server.put(question, self._proceed)
                if not is_asked:
                    self._aside.set_result(question)
                return
        except StopIteration:
            self._aside.set_result(None)
        except BaseException as error:  # noqa: BLE001 - whoever runs it hears of it
            self._aside.set_exception(error)

    async def _answer(self, question: Question) -> Any:
        """The answer to a question that takes a task."""
        match question:
            case Pause(seconds):
                self._server.close()
                await asyncio.sleep(seconds)
            case Leave():
                await self._leave()
            case Meet() | Begin() | Append() | Read() | Look():
                return await self._server.ask(question)
        return None

    async def stop(self, running: asyncio.Task[None]) -> None:
        """Leaves in order, `STOP_SECONDS` at most: what has arrived is appended, and another node leads at once."""
        self.member.stop()
        await asyncio.wait((running,), timeout=STOP_SECONDS)
        running.cancel()

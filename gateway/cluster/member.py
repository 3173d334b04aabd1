"""What a node does, one question to the server at a time: it follows, takes over, leads and leaves.

Invariant: `run` is a generator that knows no socket. It yields a question, and is sent the answer or thrown a
`ServerError`; between two questions anything may have happened, a crash of this node among it.

It is long because all that it does is one generator over what this node knows of the server.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from gateway.cluster.entries import FORM, NOTHING, Entry, EntryError, Id, decode, encode
from gateway.cluster.follower import Extent, Follower, MisfitError, Standing
from gateway.cluster.leading import Leading
from gateway.cluster.questions import (
    READ_ENTRIES,
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
from gateway.cluster.views import Led, Meta, Reason, View, why_anew
from gateway.core.history import History

__all__ = ["CONNECTING", "Member", "Role", "SharedLog"]

logger = logging.getLogger(__name__)

CONNECTING = "the leader is not connected to the broker yet"
"""What a leader tells of the broker until its first attempt has come to something."""

LEAST_WAIT_SECONDS = 0.0005
"""A timer of the loop counts whole milliseconds: a shorter wait ends at once, and would be waited again and again."""


class SharedLog(Protocol):
    """The log of this node, as it is written."""

    @property
    def history(self) -> History:
        """What has been read."""

    def begin(self, epoch: str, seq: int, time: int, before: Mapping[str, int]) -> None:
        """Is to be filled, from behind the number `seq` on, all of which came up to `time`.

        What was there goes, but for what is certain to be the same: of epochs in `before` up to the number there.
        """

    def fill(self, entry: Entry) -> None:
        """Takes the messages of the next entry, which are no news to anybody; it may have them already."""

    def complete(self) -> None:
        """It has what the stream has: what comes from now on is news."""

    def take(self, entry: Entry) -> None:
        """Takes the messages of the next entry, for all who want them."""


class Role(enum.StrEnum):
    """What a node is."""

    FOLLOWER = "follower"
    LEADER = "leader"


class Member:
    """One node.

    Attributes:
        node: its name.
        follower: where it is in the stream.
        leading: its part as the leader; None while it is none.
        view: what the server said last; None before.
        trouble: why the server can't be asked now; None if it can.
        is_caught_up: whether it has had everything that the stream had. It stays so while the server is away.
        broker: how it stands with the broker while it leads: empty when it is connected, else why not.
    """

    def __init__(
        self,
        node: str,
        log: SharedLog,
        *,
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        make_token: Callable[[], str],
        make_epoch: Callable[[], str],
        wake: Callable[[], None],
        on_lead: Callable[[Leading], None],
        on_follow: Callable[[str], None],
        on_change: Callable[[], None] = lambda: None,
        is_able: Callable[[], bool] = lambda: False,
        times: Times | None = None,
    ) -> None:
        """Has asked nothing yet.

        Args:
            node: its name.
            log: what it writes.
            clock: monotonic seconds.
            wall_clock_ms: milliseconds since 1970.
            make_token: a name for one time of leading that nobody else ever has.
            make_epoch: the same for an epoch.
            wake: ends a `Wait`.
            on_lead: hears that this node leads: from now on it may talk to the broker.
            on_follow: hears that it leads no more, and why: nothing that comes from the broker counts any more.
            on_change: hears that something else may be told now: trouble, who leads, whether it has caught up.
            is_able: whether this node reaches the broker while it doesn't lead.
            times: how long things take.
        """
        self.node = node
        self.follower = Follower(Extent(log.history.max_bytes, log.history.max_age_ms))
        self.leading: Leading | None = None
        self.view: View | None = None
        self.trouble: str | None = None
        self.is_caught_up = False
        self.broker = CONNECTING
        self._log = log
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._make_token = make_token
        self._make_epoch = make_epoch
        self._wake = wake
        self._on_lead = on_lead
        self._on_follow = on_follow
        self._on_change = on_change
        self._is_able = is_able
        self._times = times or Times()
        self._token = make_token()
        self._led: Led | None = None
        self._fits = False  # what was read is in the stream, as far as this connection knows
        self._misfit = NOTHING  # what did not follow what was read, when that was read last
        self._is_broken = False  # that was read again, and is still there: another epoch has to begin
        self._wants = False
        self._meet_at = 0.0
        self._free_since: float | None = None
        self._cut_off_since: float | None = None
        self._aside_until = 0.0
        self._appended_at = 0.0
        self._is_stopping = False

    @property
    def role(self) -> Role:
        """What it is now."""
        return Role.FOLLOWER if self.leading is None else Role.LEADER

    @property
    def lag(self) -> int:
        """How many messages the stream has that this node had not when it looked last."""
        tail = None if self.view is None else self.view.tail
        return 0 if tail is None else max(tail.seq - self.follower.position.seq, 0)

    def stop(self) -> None:
        """Leaves in order: what has arrived is appended, and the lease is given back."""
        self._is_stopping = True
        self._wake()

    def run(self) -> Generator[Question, Any, None]:
        """Does it all, until `stop`."""
        while not self._is_stopping:
            try:
                yield from self._live()
            except ServerError as error:
                self._fail(str(error))
                yield Pause(self._times.retry)
        try:
            yield from self._leave()
        except ServerError as error:
            logger.warning("the cluster was not left in order: %s", error)

    def _fail(self, why: str) -> None:
        self._fits = False
        if self.trouble != why:
            self.trouble = why
            self._on_change()
        self.check_lease()

    def check_lease(self) -> None:
        """A leader that could not renew its lease in time leads no more: another one may.

        To be called when the broker ends its session, too: another leader may have taken it over, and whoever takes it
        back throws that one out.
        """
        if self.leading is not None and self._clock() >= self.leading.ends_at:
            self._step_down("the lease has ended")

    def _step_down(self, why: str) -> None:
        leading, self.leading = self.leading, None
        if leading is None:
            return
        self._led = Led(leading.token, leading.ends)
        # a late append of this time must not be taken for one of another
        self._token = self._make_token()
        self._wants = False
        self._free_since = self._cut_off_since = None
        logger.warning("this node, %s, leads no more: %s", self.node, why)
        self._on_follow(why)
        self._on_change()

    # one connection

    def _live(self) -> Generator[Question, Any, None]:
        while not self._is_stopping:
            token = self._token if self.leading is not None or self._wants else None
            asked_at = self._clock()
            view = yield self._meet(token)
            self._see(view)
            if self.leading is not None:
                meta = view.meta
                if view.holder != self._token or meta is None or meta.token != self._token:
                    self._step_down("another node leads" if view.holder else "the shared log is another one")
                elif view.tail not in self.leading.ends:
                    self._step_down(Reason.LOST)
                else:
                    self.leading.ends_at = asked_at + self._times.lease
                    if self._is_to_hand_over(view):
                        yield from self._hand_over(view)
                    else:
                        yield from self._lead(view)
            elif view.holder == self._token:
                yield from self._take_over(view, asked_at)
            else:
                yield from self._follow(view)

    def _meet(self, token: str | None) -> Meet:
        if self.leading is not None:
            return Meet(token, self.broker)
        return Meet(token, is_able=self._clock() >= self._aside_until and self._is_able())

    def _is_to_hand_over(self, view: View) -> bool:
        """Whether this leader has been without the broker for so long that a node which reaches it is to lead."""
        if not self.broker:
            self._cut_off_since = None
            return False
        if self._cut_off_since is None:
            self._cut_off_since = self._clock()
        patience = self._times.connect if self.broker == CONNECTING else self._times.cut_off
        return view.is_somebody_able and self._clock() - self._cut_off_since >= patience

    def _hand_over(self, view: View) -> Generator[Question, Any, None]:
        leading = self.leading
        while leading is not None and (found := leading.next()) is not None:
            yield from self._append(view, found)
            leading = self.leading
        if leading is None:
            return
        yield from self._append(view, leading.nothing(is_end=True), is_end=True)
        self._aside_until = self._clock() + self._times.aside
        self._cut_off_since = None
        self._step_down(f"it is cut off from the broker, which another node reaches: {self.broker}")

    def _see(self, view: View) -> None:
        before, self.view = self.view, view
        had_trouble, self.trouble = self.trouble, None
        self._meet_at = self._clock() + self._times.renew
        if (
            had_trouble
            or before is None
            or (before.holder, before.meta and before.meta.broker) != (view.holder, view.meta and view.meta.broker)
        ):
            self._on_change()

    # following

    def _follow(self, view: View) -> Generator[Question, Any, None]:
        yield from self._find_place(view)
        self._wants = self._may_lead(view)
        if self._wants:
            return
        if not self._fits:
            yield Wait(self._times.renew)
            return
        if 0 < view.free_in_ms < self._times.renew * 1000:
            self._meet_at = min(self._meet_at, self._clock() + view.free_in_ms / 1000)
        while not self._is_stopping and self._fits:
            left = self._meet_at - self._clock()
            if left <= 0 or (yield from self._read(left)):
                break

    def _may_lead(self, view: View) -> bool:
        """Whether to take the lease with the next question."""
        if view.holder is not None:
            self._free_since = None
            return False
        if self._free_since is None:
            self._free_since = self._clock()
        meta = view.meta
        is_aside = self._clock() < self._aside_until or (view.is_somebody_able and not self._is_able())
        if is_aside and self._clock() - self._free_since < self._times.lease:
            return False  # who reaches the broker is to lead
        if meta is None:
            return True
        if self._fits and not self.is_caught_up and not self._is_broken:
            return False
        knows_end = self._led is not None and self._led.token == meta.token
        # who led last can perhaps say that nothing was lost
        return meta.server == view.server or knows_end or self._clock() - self._free_since >= self._times.lease

    def _find_place(self, view: View) -> Generator[Question, Any, None]:
        """Finds out whether what was read is still there; begins anew where it is not and something else is."""
        meta = view.meta
        if meta is None or (self._fits and meta.epoch == self.follower.epoch):
            self._fits = self._fits and meta is not None
            return
        found: Entry | None = None
        if meta.epoch == self.follower.epoch and not self.follower.is_at_beginning:
            data = yield Look(self.follower.position)
            found = None if data is None else self._decode(data)
        standing = self.follower.stands(view, found)
        if standing is Standing.ANEW:
            self._begin(meta, "of another epoch" if meta.epoch != self.follower.epoch else "older than all it has")
        self._fits = standing is not Standing.WAIT

    def _begin(self, meta: Meta, why: str) -> None:
        """Forgets the log of this node."""
        if self.follower.epoch:
            logger.warning("the log of this node, at %s, is %s: it begins anew", self._log.history.position, why)
        self.follower.begin(meta)
        self.is_caught_up = self._is_broken = False
        self._fits = True
        self._on_change()

    def _read(self, seconds: float) -> Generator[Question, Any, bool]:
        """Takes the next entries; whether it is time to look who leads."""
        token = self.follower.token
        entries = yield Read(self.follower.cursor, seconds)
        is_end, at = False, NOTHING
        try:
            for at, data in entries:
                try:
                    entry = self._decode(data)
                    self._take(at, entry, len(data))
                except (MisfitError, ServerError) as error:
                    if at >= self.follower.base:
                        raise
                    logger.error("an entry of the shared log, %s, and all before it are left out: %s", at, error)
                    self.follower.begin_behind(at)
                else:
                    is_end = entry.is_end
        except MisfitError as error:
            if at == self._misfit:
                self._is_broken = True
                raise ServerError(f"the shared log is broken: {error}") from None
            logger.warning("%s", error)
            self._misfit = at
            self._fits = False
            self.follower.epoch = ""
            return True
        if self.is_caught_up and self.follower.token != token:
            return True  # another node leads, which is to be told
        if not self.is_caught_up and len(entries) < READ_ENTRIES and self._is_at_end():
            self._complete()
        return is_end and not entries[READ_ENTRIES - 1 :]

    def _complete(self) -> None:
        if not self.is_caught_up:
            self.is_caught_up = True
            self._log.complete()
            self._on_change()

    def _is_at_end(self) -> bool:
        tail = None if self.view is None else self.view.tail
        return tail is None or self.follower.cursor >= tail

    def _take(self, at: Id, entry: Entry, size: int) -> None:
        is_first = self.follower.is_at_beginning
        self.follower.take(at, entry, size)
        if is_first:
            self._log.begin(self.follower.epoch, entry.first - 1, entry.time, self.follower.before)
        if self.is_caught_up:
            self._log.take(entry)
        else:
            self._log.fill(entry)

    @staticmethod
    def _decode(data: bytes) -> Entry:
        try:
            return decode(data)
        except EntryError as error:
            raise ServerError(str(error)) from None

    # taking over

    def _take_over(self, view: View, asked_at: float) -> Generator[Question, Any, None]:
        """The lease is this node's: reads what is left, and begins to lead."""
        ends_at = asked_at + self._times.lease
        meta = view.meta
        is_known = meta is not None and meta.epoch == self.follower.epoch
        why = why_anew(view, self._led, self.follower.position if is_known else None)
        if why is None:
            assert meta is not None  # noqa: S101 - else there is a reason
            yield from self._find_place(view)
            if not self._fits:
                why = Reason.LOST
            elif not (yield from self._read_up_to(view.tail or NOTHING)):
                return
        since = self._wall_clock_ms()
        at, before = self._descent(view)
        epoch = self._make_epoch() if why is not None or meta is None else meta.epoch
        begun = Meta(epoch, at, self._token, self.node, since, view.server, at, self.broker, before)
        if why is None and meta is not None:
            begun = replace(begun, base=meta.base, before=meta.before)
        published = self._log.history.retained_as_published
        data = encode(Entry(FORM, epoch, self._token, at.seq + 1, since, as_published=published))
        if not (yield Begin(view.tail, at, begun, data)):
            self._wants = False
            return
        # from here on nobody else leads under what was before
        self._led = Led(self._token, (at,))
        if why is not None:
            logger.warning("a new epoch begins, %s: %s", epoch, why)
            self._begin(begun, "of another epoch")
        if not (yield from self._read_up_to(at)):
            return
        self._lead_from(at, since, ends_at)

    def _descent(self, view: View) -> tuple[Id, tuple[tuple[str, int], ...]]:
        """Where another epoch would begin, and what it would take over: what is there, else what this node has."""
        if view.tail is not None:
            return view.tail.following, () if view.meta is None else view.meta.descent(view.tail.seq)
        history = self._log.history
        if view.meta is not None and view.meta.epoch == history.epoch:
            return Id(history.seq, 1), view.meta.descent(history.seq)
        return Id(history.seq, 1), ((history.epoch, history.seq),) if history.seq else ()

    def _read_up_to(self, tail: Id) -> Generator[Question, Any, bool]:
        """Takes what is left before it leads, while it renews its lease; whether it still may."""
        while self.follower.position < tail:
            if self._clock() >= self._meet_at:
                view = yield Meet(self._token)
                self._see(view)
                if view.holder != self._token:
                    self._wants = False
                    return False
                is_there = view.tail is not None and view.tail >= tail
                if not is_there or view.meta is None or view.meta.epoch != self.follower.epoch:
                    return False
            yield from self._read(0.0)
            if not self._fits:
                return False
        self._complete()
        return True

    def _lead_from(self, tail: Id, since: int, ends_at: float) -> None:
        self.leading = Leading(
            self._log.history,
            epoch=self.follower.epoch,
            token=self._token,
            tail=tail,
            since=since,
            clock=self._clock,
            wall_clock_ms=self._wall_clock_ms,
            wake=self._wake,
        )
        self.leading.ends_at = ends_at
        self._fits = True
        logger.info("this node, %s, leads, at %s", self.node, self._log.history.position)
        self._on_lead(self.leading)
        self._on_change()

    # leading

    def _lead(self, view: View) -> Generator[Question, Any, None]:
        """Appends what arrives until the lease is to be renewed."""
        is_noted = False
        while self.leading is not None and not self._is_stopping:
            now = self._clock()
            if now >= self._meet_at:
                return
            leading = self.leading
            if leading.gathers_until - now >= LEAST_WAIT_SECONDS:
                leading.is_gathering = True
                yield Wait(min(leading.gathers_until, self._meet_at) - now)
                leading.is_gathering = False
                continue
            found = leading.next()
            if found is None and view.meta is not None and view.meta.server != view.server and not is_noted:
                found = leading.nothing()  # this server has everything: that is noted where a successor looks
            if found is not None:
                is_noted = yield from self._append(view, found)
            else:
                yield Wait(self._meet_at - self._clock())

    def _append(self, view: View, found: tuple[Id, bytes], *, is_end: bool = False) -> Generator[Question, Any, bool]:
        leading = self.leading
        assert leading is not None  # noqa: S101 - it is what appends
        trim = self.follower.extent.trim(self._wall_clock_ms())
        now = self._clock()
        rate = (found[0].seq - leading.tail.seq) / max(now - self._appended_at, 1e-6)
        self._appended_at = now
        leading.gather = self._times.gather * min((rate / self._times.busy_rate) ** 2, 1)
        leading.gathers_until = now + leading.gather
        done = yield Append(leading.token, leading.tail, *found, view.server, trim, is_end)
        if self.leading is not leading:
            return False
        if not done:
            self._step_down("an append was refused: another node leads, or the newest messages are gone")
            return False
        at, entry = leading.appended()
        self.follower.take(at, entry, len(found[1]))
        self._log.take(entry)
        leading.settle()
        return True

    # leaving

    def _leave(self) -> Generator[Question, Any, None]:
        view = self.view
        while view is not None and self.leading is not None and (found := self.leading.next()) is not None:
            yield from self._append(view, found)
        yield Leave()
        if view is not None and self.leading is not None:
            yield from self._append(view, self.leading.nothing(is_end=True), is_end=True)
            self.leading = None

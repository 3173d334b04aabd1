"""What a broker does not take from us: said in CONNACK, by a reason code, or by nothing but a closed connection.

Invariant: nothing is given up for a single connection that was closed without a reason, since that may be chance; what
is given up is the least that lets the rest work, is said once, and is tried again after an hour. Connecting again is
for `upstream`.
"""

from __future__ import annotations

import enum
import logging
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.upstream.failures import Failure, Reason

__all__ = ["ForbiddenPublishes", "Form", "Pace", "PublishKey", "Stage", "Terms", "Verdict"]

logger = logging.getLogger(__name__)


RETRY_SECONDS = 3600.0
"""How long something is left out before it is tried again, with the next connection."""

REFUSED_SECONDS = 60.0
"""How long messages are refused over which the broker closed the connection twice."""

MAX_KEYS = 1_000
"""Of how many kinds of messages it is remembered that a connection ended with one of them under way."""

SUSPICIOUS = frozenset({Reason.UNSPECIFIED, Reason.PROTOCOL_ERROR, Reason.IMPLEMENTATION, Reason.QUOTA})
"""Reason codes that say no more about the cause than a closed connection does."""

PublishKey = tuple[str, int, bool]
"""Topic, QoS and retain flag of a message: what a broker may forbid of it."""


class Stage(enum.Enum):
    """What a connection was at when it ended."""

    CONNECT = enum.auto()
    """CONNECT was not accepted."""
    SUBSCRIBE = enum.auto()
    """A SUBSCRIBE was not answered."""
    STATUS = enum.auto()
    """Our status was not acknowledged."""
    LIVE = enum.auto()
    """Everything was answered."""


class Verdict(enum.Enum):
    """What a failure has to do with what we asked."""

    NOTHING = enum.auto()
    SUSPECTED = enum.auto()
    """Perhaps that was the cause: the next attempt shows more."""
    CONCEDED = enum.auto()
    """That was the cause: the next attempt goes without it, and needs not wait."""


@dataclass(frozen=True, slots=True)
class Form:
    """How our status is published."""

    qos: int
    retain: bool

    def __str__(self) -> str:
        return f"at QoS {self.qos}, {'retained' if self.retain else 'not retained'}"


FORMS = (Form(1, True), Form(0, True), Form(1, False), Form(0, False))
LEAST = FORMS[-1]


class Terms:
    """What the next connection asks for.

    Attributes:
        identifiers: whether subscriptions may have identifiers.
        subscribe_qos: the QoS to subscribe at.
        refused: filters over which the broker closes the connection, and how that is told.
    """

    def __init__(self, status_topic: str) -> None:
        """`status_topic` may be empty: no status."""
        self._status_topic = status_topic
        self._said: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        self.identifiers = True
        self.subscribe_qos = 1
        self.refused: dict[str, str] = {}
        self._will: tuple[Form, ...] = FORMS if self._status_topic else ()
        self._status: tuple[Form, ...] = self._will
        self._strikes: Counter[str | Stage] = Counter()
        self._leaves_will_out = False
        self._will_reason: int | None = None
        self._changed_at: float | None = None
        self._now = 0.0

    def begin(self, now: float) -> None:
        """A connection is about to be made; `now` in seconds."""
        if self._changed_at is not None and now - self._changed_at > RETRY_SECONDS:
            self._forget()
        self._now = now

    @property
    def will(self) -> Form | None:
        """How the will is to be published; None for no will."""
        return self._will[0] if self._will and not self._leaves_will_out else None

    @property
    def status(self) -> Form | None:
        """How our status is to be published; None for not at all."""
        return self._status[0] if self._status else None

    def accepted(self, *, max_qos: int, retains: bool) -> bool:
        """CONNACK has come; whether to connect once more to make sure that the will is to blame for its delay.

        Args:
            max_qos: the Maximum QoS of the broker (MQTT 5 §3.2.2.3.4).
            retains: its Retain Available.
        """
        self.limit(max_qos, retains)
        if not self._leaves_will_out:
            del self._strikes[Stage.CONNECT]
            return False
        self._leaves_will_out = False
        if self._will_reason is None:
            self._strikes[Stage.CONNECT] += 1
            return self._strikes[Stage.CONNECT] == 1
        self._give_up_will("it refuses a connection that has one, and none without")
        return False

    def limit(self, max_qos: int, retains: bool) -> None:
        """Comes down to what the broker says that it offers."""
        wanted = self.status
        self._will, self._status = (
            tuple(form for form in forms if form.qos <= max_qos and (retains or not form.retain))
            for forms in (self._will, self._status)
        )
        if wanted is not None and self.status != wanted:
            self._concede(
                f"the broker takes QoS {max_qos} at most{'' if retains else ' and keeps no retained messages'}"
            )

    def judge(self, stage: Stage, asked: str, failure: Failure) -> Verdict:
        """What a connection ended over.

        Args:
            stage: what it was at.
            asked: at SUBSCRIBE the filter.
            failure: how it ended.
        """
        match stage:
            case Stage.CONNECT:
                return self._judge_connect(failure)
            case Stage.SUBSCRIBE:
                return self._judge_filter(asked, failure)
            case Stage.STATUS:
                return self._judge_status(failure)
            case Stage.LIVE:
                return Verdict.NOTHING

    def _judge_connect(self, failure: Failure) -> Verdict:
        will = self.will
        match failure.reason:
            case Reason.RETAIN | Reason.QOS if will is not None:
                is_qos = failure.reason == Reason.QOS
                self._will = tuple(f for f in self._will if (f.qos == 0 if is_qos else not f.retain))
                self._concede(f"the broker refused the last will {will}: {failure}")
                return Verdict.CONCEDED
            case Reason.TOPIC_NAME | Reason.PAYLOAD_FORMAT if will is not None:
                self._give_up_will(str(failure))
                return Verdict.CONCEDED
        if not (failure.is_closed or failure.reason in SUSPICIOUS or failure.reason == Reason.NOT_AUTHORIZED):
            return Verdict.NOTHING
        if will is not None and self._strikes[Stage.CONNECT]:
            self._give_up_will("it closes a connection that has one, and none without")
            return Verdict.CONCEDED
        # the next attempt goes without; were that no better, the one after it has the will again
        self._leaves_will_out = will is not None
        self._will_reason = failure.reason
        return Verdict.NOTHING

    def _give_up_will(self, why: str) -> None:
        self._will = ()
        self._concede(f"the broker takes no last will for {self._status_topic!r}: {why}")

    def _judge_filter(self, topic_filter: str, failure: Failure) -> Verdict:
        match failure.reason:
            case Reason.NOT_AUTHORIZED | Reason.TOPIC_FILTER | Reason.WILDCARDS | Reason.SHARED:
                self._refuse(topic_filter, str(failure))
                return Verdict.CONCEDED
            case Reason.IDENTIFIERS:
                self.identifiers = False
                self._concede(f"the broker takes no subscription identifiers: {failure}")
                return Verdict.CONCEDED
        if not (failure.is_closed or failure.reason in SUSPICIOUS or failure.reason == Reason.QOS):
            return Verdict.NOTHING
        self._strikes[topic_filter] += 1
        if self._strikes[topic_filter] < (3 if self.subscribe_qos else 2):
            return Verdict.SUSPECTED
        self._refuse(topic_filter, "the broker closed the connection over it")
        return Verdict.CONCEDED

    def _refuse(self, topic_filter: str, why: str) -> None:
        self.refused[topic_filter] = why
        self._changed_at = self._now

    def qos_for(self, topic_filter: str) -> int:
        """The QoS at which to subscribe: 0 where QoS 1 has ended two connections."""
        return 0 if self._strikes[topic_filter] >= 2 else self.subscribe_qos

    def in_order(self, topic_filters: Iterable[str]) -> list[str]:
        """The filters, those last over which a connection may have ended."""
        return sorted(topic_filters, key=lambda each: self._strikes[each])

    def subscribed(self, topic_filter: str) -> None:
        """A SUBSCRIBE was answered, by whatever."""
        if self.qos_for(topic_filter) < self.subscribe_qos:
            self.subscribe_qos = 0
            self._concede("the broker closes the connection over subscriptions at QoS 1: QoS 0 is asked for")
            self.limit(0, retains=True)
        del self._strikes[topic_filter]

    def _judge_status(self, failure: Failure) -> Verdict:
        form = self.status
        if form is None:
            return Verdict.NOTHING
        why = f"the broker does not take our status {form}"
        match failure.reason:
            case Reason.RETAIN | Reason.QOS:
                is_qos = failure.reason == Reason.QOS
                self._status = tuple(f for f in self._status if (f.qos == 0 if is_qos else not f.retain))
            case Reason.NOT_AUTHORIZED | Reason.TOPIC_NAME:
                self._status = ()
            case _ if failure.is_closed or failure.reason in SUSPICIOUS:
                self._strikes[Stage.STATUS] += 1
                if self._strikes[Stage.STATUS] == 1:
                    return Verdict.SUSPECTED
                self._status = () if form == LEAST else (LEAST,)
            case _:
                return Verdict.NOTHING
        self._concede(f"{why}: {failure}")
        return Verdict.CONCEDED

    def said(self) -> None:
        """Our status was published."""
        del self._strikes[Stage.STATUS]

    def may_not_say(self, why: str) -> None:
        """Our status was refused by a PUBACK; some brokers close the connection if it is tried again."""
        self._status = ()
        self._concede(f"the broker does not take our status: {why}")

    def _concede(self, why: str) -> None:
        self._changed_at = self._now
        if why in self._said:
            return
        self._said.add(why)
        if self._status_topic:
            will, status = (f"{form}" if form else "none" for form in (self.will, self.status))
            logger.warning("%s; on %r: status %s, last will %s", why, self._status_topic, status, will)
        else:
            logger.warning("%s", why)


class ForbiddenPublishes:
    """Messages over which the broker closes the connection, which is everyone's.

    Two connections that ended with the same kind of message under way, without one that was acknowledged between them,
    are no chance. Of those that are suspected, one is under way at a time (`is_suspected`).
    """

    def __init__(self) -> None:
        self._strikes: dict[PublishKey, int] = {}
        self._refused_until: dict[PublishKey, float] = {}

    def is_suspected(self, key: PublishKey) -> bool:
        """Whether a connection ended with such a message under way, and none was acknowledged since."""
        return key in self._strikes

    def is_refused(self, key: PublishKey, now: float) -> bool:
        """Whether such messages must not be sent; `now` in seconds."""
        return bool(self._refused_until) and self._refused_until.get(key, 0.0) > now

    def worked(self, key: PublishKey) -> None:
        """Such a message was acknowledged."""
        self._strikes.pop(key, None)

    def closed_over(self, keys: Iterable[PublishKey], now: float) -> Verdict:
        """A connection was closed, without a better reason, with these under way."""
        verdict = Verdict.NOTHING
        if len(self._strikes) + len(self._refused_until) > MAX_KEYS:
            self._strikes.clear()
            self._refused_until.clear()
        for key in keys:
            strikes = self._strikes.get(key, 0) + 1
            if strikes >= 2:
                self._refused_until[key] = now + REFUSED_SECONDS
                strikes = 1  # when its time is over, the next one decides
                verdict = Verdict.CONCEDED
                topic, qos, retain = key
                logger.warning(
                    "the broker closes the connection over messages to %r %s: they are refused for %g s",
                    topic[:80], Form(qos, retain), REFUSED_SECONDS,
                )  # fmt: skip
            elif verdict is Verdict.NOTHING:
                verdict = Verdict.SUSPECTED
            self._strikes[key] = strikes
        return verdict


class Pace:
    """How fast messages are published: as they come, until a broker ends the connection because that was too fast."""

    def __init__(self) -> None:
        self._per_second: float | None = None
        self._next = 0.0
        self._changed_at = 0.0
        self._times: deque[float] = deque(maxlen=MAX_KEYS)

    def wait(self, now: float) -> float:
        """How many seconds the next message has to wait; it counts from now on. `now` in seconds."""
        if self._per_second is not None and now - self._changed_at > RETRY_SECONDS:
            self._per_second = None
        at = now
        if self._per_second is not None:
            at = max(now, self._next)
            self._next = at + 1 / self._per_second
        self._times.append(at)
        return at - now

    def was_too_fast(self, now: float) -> Verdict:
        """The broker said so: half of what the last second had is all that a second may have from now on."""
        recent = sum(now - 1 < at <= now for at in self._times)
        self._per_second = max(1.0, recent / 2)
        self._next, self._changed_at = now, now
        logger.warning("the broker takes fewer messages a second: %g are published from now on", self._per_second)
        return Verdict.CONCEDED

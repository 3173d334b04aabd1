"""Turns messages into what a shape wants of them; once for a group, or for a replay.

Invariant: every message that is offered is, in the end, counted once as delivered or as skipped. A shaper knows no
clock: its owner says when an interval is over by calling `take`, and frames come out in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from gateway.core.conditions import compile_condition
from gateway.core.deadband import Deadband
from gateway.core.fields import Contents, Path, contents_of, look_up, nest, numbers_of, project
from gateway.core.frames import frame_text, json_line
from gateway.core.memory import MemoryBudget, MemoryShare
from gateway.core.messages import Kind, Message, encode_json, encode_properties
from gateway.core.readings import Readings
from gateway.core.shapes import Format, Framing, Mode, Shape

__all__ = ["Shaper", "choose", "envelope", "pick"]


MAX_WINDOW_TOPICS = 10_000
"""Topics that one interval of one group may hold; beyond it the interval ends early, so that memory has a ceiling."""

MAX_WINDOW_BYTES = 8 * 2**20
"""Bytes of messages and sums that one interval of one group may hold, about."""

INTERVAL_COST = 250
"""Bytes that a topic takes in an interval, its frame not counted."""

SUMS_COST = 250
"""Bytes that the sums of one number take."""


def encode_or_none(value: Any) -> bytes | None:
    """As JSON; None for a nesting that only just fitted when it was decoded."""
    try:
        return encode_json(value)
    except RecursionError:
        return None


def choose(shape: Shape, message: Message) -> tuple[Any, bytes | None] | None:
    """What `where` and `fields` alone make of one message, None if they leave it out.

    It is the payload's value (None where neither asks for it), and the JSON of the `fields` (None without them).
    """
    if shape.where is None and not shape.fields:
        return None, None
    condition = None if shape.where is None else compile_condition(shape.where)
    if condition is not None and condition.is_too_large(message):
        return None
    value = message.value()
    if condition is not None and not condition.holds(message.topic, value):
        return None
    if not shape.fields:
        return value, None
    projected = project(value, shape.kept)
    token = None if projected is None else encode_or_none(projected)
    return None if token is None else (value, token)


def envelope(shape: Shape, message: Message, token: bytes | None, now_ms: int = 0) -> bytes:
    """The envelope of one message, with another payload if `token` (JSON) is given, and with `properties`.

    `now_ms`, milliseconds since 1970, is for its expiry interval; 0 leaves that as it came.
    """
    if shape.properties and message.properties:
        shown = encode_properties(message.properties, now_ms - message.time)
        return message.with_members({"properties": shown}, token=token)
    return message.body if token is None else message.with_members({}, token=token)


def pick(shape: Shape, message: Message, now_ms: int = 0) -> bytes | None:
    """The envelope of one message under `where`, `fields` and `properties` alone; None if it is left out."""
    chosen = choose(shape, message)
    return None if chosen is None else envelope(shape, message, chosen[1], now_ms)


class _Interval:
    """The messages of one topic in one interval."""

    __slots__ = ("cost", "count", "first_seq", "message", "sums", "token")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.first_seq = message.seq
        self.cost = 0  # with the longest frame that it has held
        self.token: bytes | None = None
        self.count = 0
        self.sums: dict[Path, list[float]] = {}


class Shaper:
    """Turns the messages of one group, or of one replay, into frames.

    Attributes:
        offered: messages put in.
        delivered: frames that came out.
        skipped: messages without a frame of their own: left out, or shown by the frame of another one.
        taken_seqs: numbers of the messages that the frames of the last `take` show, in the same order.
    """

    __slots__ = (
        "_condition",
        "_deadband",
        "_due",
        "_epoch",
        "_needs_value",
        "_on_too_large",
        "_readings",
        "_ready",
        "_seqs",
        "_share",
        "_wall_clock_ms",
        "delivered",
        "offered",
        "shape",
        "skipped",
        "taken_seqs",
    )

    def __init__(
        self,
        shape: Shape,
        epoch: str = "",
        budget: MemoryBudget | None = None,
        on_too_large: Callable[[], None] | None = None,
        wall_clock_ms: Callable[[], int] | None = None,
        readings: Readings | None = None,
    ) -> None:
        """Nothing is held yet.

        Args:
            shape: what is wanted.
            epoch: makes the positions of server-sent events.
            budget: is charged with what this holds.
            on_too_large: hears of each message that is too large to be compared with `where`.
            wall_clock_ms: milliseconds since 1970, by which expiry intervals count down; None leaves them as they came.
            readings: shared with others who look into the same messages; None: its own.
        """
        self._readings = readings or Readings()
        self._wall_clock_ms = wall_clock_ms
        self._on_too_large = on_too_large
        self.shape = shape
        self._epoch = epoch
        self._share = share = MemoryShare(budget or MemoryBudget(0))
        self._condition = None if shape.where is None else compile_condition(shape.where)
        self._deadband = None if shape.deadband is None else Deadband(shape.deadband, share)
        is_compared = shape.deadband is not None and not shape.is_windowed  # else at the end of the interval
        self._needs_value = shape.where is not None or bool(shape.fields) or is_compared or not shape.is_sample
        self._due: dict[str, _Interval] = {}
        self._ready: list[bytes] = []
        self._seqs: list[int] = []
        self.taken_seqs: list[int] = []
        self.offered = 0
        self.delivered = 0
        self.skipped = 0

    def offer(self, message: Message) -> None:
        """Takes a message in; numbers must not fall."""
        self.offered += 1
        shape = self.shape
        token: bytes | None = None
        value: Any = None
        if self._needs_value:
            if self._condition is not None:
                is_met = None
                if not self._condition.is_too_large(message):
                    value = self._readings.value(message)
                    is_met = self._condition.holds(message.topic, value)
                if not is_met:
                    self.skipped += 1
                    if is_met is None and self._on_too_large is not None:
                        self._on_too_large()
                    return
            else:
                value = self._readings.value(message)
            if shape.fields:
                value = project(value, shape.kept)
                token = None if value is None else encode_or_none(value)
                if token is None:
                    self.skipped += 1
                    return
            if shape.format is Format.STREAM and self._shown(message, value) is None:
                self.skipped += 1
                return
        if shape.max_hz is None:
            self._emit(message, token, value)
            return
        interval = self._due.get(message.topic)
        cost = INTERVAL_COST + len(message.frame)
        if token is not None:
            cost += len(token)
        if interval is None:
            interval = self._due[message.topic] = _Interval(message)
        else:
            interval.message = message
        interval.token = token
        interval.count += 1
        if cost > interval.cost:
            self._share.charge(cost - interval.cost)
            interval.cost = cost
        if shape.mode is not Mode.LATEST and message.kind is not Kind.BASE64:
            numbers = self._readings.numbers(message) if token is None else dict(numbers_of(value))
            for path, number in numbers.items():
                sums = interval.sums.get(path)
                if sums is None:
                    interval.sums[path] = [number, number, number, 1]
                    self._share.charge(SUMS_COST)
                else:
                    sums[0] += number
                    sums[1] = min(sums[1], number)
                    sums[2] = max(sums[2], number)
                    sums[3] += 1

    @property
    def cost(self) -> int:
        """About how many bytes it holds."""
        return self._share.cost

    @property
    def is_full(self) -> bool:
        """Whether the interval holds `MAX_WINDOW_TOPICS` topics and should end now."""
        return len(self._due) >= MAX_WINDOW_TOPICS

    def is_heavy(self) -> bool:
        """Whether it holds more than one interval may; walks all of it, so not to be asked for each message."""
        if self.is_full:
            return True
        intervals = self._due.values()
        return sum(len(i.message.frame) + SUMS_COST * len(i.sums) for i in intervals) > MAX_WINDOW_BYTES

    @property
    def is_waiting(self) -> bool:
        """Whether `take` has anything to give."""
        return bool(self._due or self._ready)

    def take(self) -> list[bytes]:
        """Ends the interval: the frames of what was offered and not skipped, in the order of their numbers."""
        if self._due:
            self._end_interval()
        ready, self._ready = self._ready, []
        self.taken_seqs, self._seqs = self._seqs, []
        return ready

    def _end_interval(self) -> None:
        if self.shape.mode is Mode.LATEST:
            intervals = sorted(self._due.values(), key=_last_seq)
            self._due.clear()
            self._share.charge(-sum(map(_cost_of, intervals)))
            for interval in intervals:
                conflated = interval.count - 1
                self.skipped += conflated
                self._emit(interval.message, interval.token, None, conflated)
            return
        intervals = sorted(self._due.values(), key=_first_seq)
        self._due.clear()
        self._share.charge(-sum(interval.cost + SUMS_COST * len(interval.sums) for interval in intervals))
        end = max(map(_last_seq, intervals))
        for index, interval in enumerate(intervals, start=1):
            message = interval.message
            self.skipped += interval.count - 1
            # what comes behind this frame begins after its number: a connection that is cut here misses nothing of it
            number = intervals[index].first_seq - 1 if index < len(intervals) else end
            if interval.sums:
                self._emit_aggregate(message, interval, number)
            else:
                self._emit(message, interval.token, None, interval.count - 1, number)

    def pass_over(self, count: int) -> None:
        """Counts messages as offered and left out: nobody is there who would be shown them."""
        self.offered += count
        self.skipped += count

    def settle(self) -> tuple[int, int]:
        """The counts of delivered and skipped messages since the last call; starts both over."""
        counts = self.delivered, self.skipped
        self.delivered = self.skipped = 0
        return counts

    def forget(self) -> None:
        """Starts the deadband anew: the next message of every topic is news."""
        if self._deadband is not None:
            self._deadband.forget()

    def welcome(self, other: Shaper) -> None:
        """Takes in what `other` showed to somebody who joins: a change has to differ from that as well."""
        if self._deadband is not None and other._deadband is not None:
            self._deadband.welcome(other._deadband)

    def adopt(self, other: Shaper) -> None:
        """Goes on where `other` ended: whoever it showed something to is alone now."""
        if self._deadband is not None and other._deadband is not None:
            self._deadband.adopt(other._deadband)

    def _suppress(self, topic: str, count: int) -> None:
        """Counts `count` messages that a deadband leaves out; all but one were counted as skipped before."""
        assert self._deadband is not None  # noqa: S101 - it is what left it out
        self.skipped += 1
        self._deadband.suppress(topic, count)

    def _emit_aggregate(self, message: Message, interval: _Interval, number: int) -> None:
        shape = self.shape
        numbers: dict[Path, float]
        if shape.mode is Mode.MEAN:
            numbers = {path: float(f"{sums[0] / sums[3]:.12g}") for path, sums in interval.sums.items()}
            result = nest(numbers)
        else:
            numbers = {(*path, end): sums[at] for path, sums in interval.sums.items() for end, at in _ENDS}
            result = nest({path: {"min": sums[1], "max": sums[2]} for path, sums in interval.sums.items()})
        suppressed = 0
        if self._deadband is not None:
            if not self._deadband.is_news(message.topic, Contents(numbers, 0)):
                self._suppress(message.topic, interval.count)
                return
            suppressed = self._deadband.take_suppressed(message.topic)
        assert shape.max_hz is not None  # noqa: S101 - aggregates have an interval
        members: dict[str, Any] = {}
        if suppressed:
            members["skipped"] = suppressed
        members |= {"mode": shape.mode.value, "count": interval.count, "interval": float(f"{1 / shape.max_hz:.6g}")}
        self._finish(message, message.with_members(members, token=encode_json(result)), number)

    def _emit(
        self, message: Message, token: bytes | None, value: Any, conflated: int = 0, number: int | None = None
    ) -> None:
        """Makes a message's frame, unless a deadband leaves it out.

        Args:
            message: what is shown.
            token: its payload as JSON where that isn't as it came.
            value: its payload as a value, None where that isn't known.
            conflated: messages of its interval that it stands for.
            number: the position that it is given, None for its own.
        """
        shape = self.shape
        skipped = conflated
        if self._deadband is not None:
            if token is None:
                contents = self._readings.contents(message)
            elif message.kind is Kind.BASE64:
                contents = contents_of(None, token)
            else:
                contents = contents_of(msgspec.json.decode(token) if value is None else value, token)
            if not self._deadband.is_news(message.topic, contents):
                self._suppress(message.topic, conflated + 1)
                return
            skipped += self._deadband.take_suppressed(message.topic)
        if shape.format is Format.JSON:
            if token is None and not skipped and not (shape.properties and message.properties):
                if shape.framing is Framing.WEBSOCKET and number in (None, message.seq):
                    self._ready.append(message.frame)
                    self._seqs.append(message.seq)
                    self.delivered += 1
                else:
                    self._finish(message, message.body, number)
                return
            members: dict[str, Any] = {}
            if skipped:
                members["skipped"] = skipped
            if shape.properties and message.properties:
                now = message.time if self._wall_clock_ms is None else self._wall_clock_ms()
                members["properties"] = encode_properties(message.properties, now - message.time)
            self._finish(message, message.with_members(members, token=token), number)
            return
        if shape.format is Format.STREAM:
            body = self._stream_body(message)
            if body is None:
                self.skipped += 1
            else:
                self._finish(message, body)
            return
        if shape.framing is Framing.SSE:
            # server-sent events are text: what isn't UTF-8 comes as base64, as in the envelope
            self._finish(message, token if token is not None else message.text)
        elif token is not None:
            self._finish(message, token)
        else:
            self._ready.append(message.raw_frame())
            self._seqs.append(message.seq)
            self.delivered += 1

    def _shown(self, message: Message, value: Any) -> Any:
        """What a stream shows of a message; None when it lacks the field, or is no text where none is named."""
        field = self.shape.shown
        if field is None:
            return None if message.kind is Kind.BASE64 else value
        if message.kind is not Kind.JSON:
            return None  # a reading that failed, such as {"temperature": NaN}, is no reading
        is_inside = isinstance(value, dict) or isinstance(field.path[0], int)
        return look_up(value, field) if is_inside else value

    def _stream_body(self, message: Message) -> bytes | None:
        shown = self._shown(message, self._readings.value(message))
        if shown is None:
            return None
        name = "payload" if self.shape.shown is None else self.shape.shown.name
        return encode_or_none({name: shown, "topic": message.topic, "time": message.time})

    def _finish(self, message: Message, body: bytes, number: int | None = None) -> None:
        self.delivered += 1
        seq = message.seq
        self._seqs.append(seq)
        if number is not None and number != seq:
            # what stands behind the payload holds numbers and names of ours only
            head, _, tail = body.rpartition(b'"seq":%d' % seq)
            body = b'%b"seq":%d%b' % (head, number, tail)
            seq = number
        if self.shape.framing is Framing.WEBSOCKET:
            self._ready.append(frame_text(body))
        elif self.shape.format is Format.RAW:
            lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            data = b"".join(b"data: %b\n" % line for line in lines)
            self._ready.append(b"id: %b:%d\n%b\n" % (self._epoch.encode(), seq, data))
        else:
            self._ready.append(b"id: %b:%d\ndata: %b\n\n" % (self._epoch.encode(), seq, json_line(body)))


_ENDS = (("min", 1), ("max", 2))
_last_seq = attrgetter("message.seq")
_first_seq = attrgetter("first_seq")
_cost_of = attrgetter("cost")

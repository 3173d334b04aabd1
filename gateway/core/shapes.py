"""What a subscriber wants of its messages: format, rate, mode, fields, deadband, condition; computed once per group.

Invariant: every message that is offered is, in the end, counted once as delivered or as skipped. A shaper knows no
clock: its owner says when an interval is over by calling `take`, and frames come out in the order of their numbers.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple

import cel
import msgspec

from gateway.core.frames import frame_text, json_line
from gateway.core.messages import Kind, Message, encode_properties

__all__ = [
    "BOOKKEEPING",
    "MAX_DEPTH",
    "MAX_FIELDS_LENGTH",
    "SHAPE_PARAMETERS",
    "Condition",
    "Field",
    "Format",
    "Framing",
    "Mode",
    "Room",
    "Shape",
    "ShapeError",
    "Shaper",
    "is_number",
    "look_up",
    "pick",
    "shape_from",
]


BOOKKEEPING = frozenset({"ts", "seq", "boot"})
"""Members of a sensor's state that number or date it: no measurements, so deadband and aggregates pass them over."""

MAX_CONDITION_LENGTH = 500
"""Characters of a `where` expression."""

MAX_CONDITION_BYTES = 16 * 1024
"""A message with a larger envelope meets no `where` that looks at its payload: a list is turned over and over for as
long as its text says, some 15 ms for the worst text at this size."""

MAX_FIELDS = 50

MAX_FIELDS_LENGTH = 4_096
"""Characters of all paths of `fields` together."""

MAX_WINDOW_TOPICS = 10_000
"""Topics that one interval of one group may hold; beyond it the interval ends early, so that memory has a ceiling."""

MAX_DEPTH = 32
"""Levels of nesting that a path of `fields` may have, and in which deadband and aggregates look for numbers."""

MAX_WINDOW_BYTES = 8 * 2**20
"""And about so many bytes of messages and sums."""

INTERVAL_COST = 250
"""Bytes that a topic takes in an interval, its frame not counted."""

SUMS_COST = 250
"""Bytes that the sums of one number take."""

BASELINE_COST = 170
"""Bytes that a deadband takes for a topic, and for each number of it."""

MAX_BASELINE_NUMBERS = 100_000
"""Numbers that the deadband of one group remembers, of all topics; beyond it the longest known topics are forgotten."""

MIN_HZ, MAX_HZ = 0.001, 1_000.0


SHAPE_PARAMETERS = frozenset({"max_hz", "mode", "fields", "deadband", "where", "format", "properties"})
"""What a query or a command may say of a shape."""


class ShapeError(ValueError):
    """A shape can't be had; the text names the parameter, the value and what is allowed."""

    code = "bad_shape"


class Format(enum.StrEnum):
    """What a message looks like to the subscriber."""

    JSON = "json"
    """The envelope."""
    RAW = "raw"
    """The payload only."""
    STREAM = "stream"
    """One object with one field of the payload under its own name, for pages that know nothing of MQTT."""


class Framing(enum.StrEnum):
    """What carries a message: bytes that can be joined with the next ones."""

    WEBSOCKET = "websocket"
    SSE = "sse"


class Mode(enum.StrEnum):
    """What stands for the messages of an interval."""

    LATEST = "latest"
    MEAN = "mean"
    MINMAX = "minmax"


_encode_json = msgspec.json.Encoder().encode

# Every function that an expression may call takes a time that grows with its arguments alone. Comprehensions (all,
# exists, map, …) nest to any power and regular expressions compile to any size: they are left out, as is `+` on lists
# and strings, which copies what it has already copied. An evaluation is then bounded by its text times its payload.
_FUNCTIONS = frozenset({"size", "startsWith", "endsWith", "contains", "has", "int", "uint", "double", "string", "bool"})
_ARITHMETIC = frozenset({"_+_", "_-_", "_*_", "_/_", "_%_"})
_BOOLEAN = frozenset(
    {
        "_>_",
        "_<_",
        "_>=_",
        "_<=_",
        "_==_",
        "_!=_",
        "_&&_",
        "_||_",
        "!_",
        "@in",
        "_in_",
        "startsWith",
        "endsWith",
        "contains",
    }
)
_QUOTED = r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
_STRING = re.compile(_QUOTED)
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
_TOKEN = re.compile(
    rf"{_QUOTED}|0[xX][0-9a-fA-F]+[uU]?|(?:\d*\.)?\d+(?:[eE][+-]?\d+)?[uU]?|[A-Za-z_]\w*|&&|\|\||[<>=!]=|\S"
)
_OPERATORS = (("||",), ("&&",), ("<", "<=", ">", ">=", "==", "!=", "in"), ("+", "-"), ("*", "/", "%"))


class _Doubles:
    """Rewrites an expression that calculates so that every number in it is a double.

    JSON knows one kind of number, CEL several that don't mix: `temperature * 2` would hold or not by whether a sensor
    writes 31 or 31.5. `a + b` becomes `a - -b`, which there is for numbers only.
    """

    def __init__(self, text: str) -> None:
        """`text` has been parsed before: it is known to be an expression."""
        self._tokens: list[str] = [*_TOKEN.findall(text), ""]
        self._at = 0

    def rewrite(self) -> str:
        """The same expression on doubles.

        Raises:
            ShapeError: it has what can't be had together with arithmetic.
        """
        text = self._binary(0)
        if self._next:
            raise ShapeError(f"{self._next!r} can't be used in an expression that calculates")
        return text

    @property
    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _expect(self, token: str) -> str:
        if self._next != token:
            raise ShapeError(f"{self._next!r} can't be used in an expression that calculates")
        return self._take()

    def _binary(self, level: int) -> str:
        if level == len(_OPERATORS):
            return self._unary()
        left = self._binary(level + 1)
        while self._next in _OPERATORS[level]:
            operator = self._take()
            right = self._binary(level + 1)
            if operator == "+":
                if left[0] in "\"'[" or right[0] in "\"'[":
                    raise ShapeError("+ adds numbers only")
                left = f"{left} - -{right}"
            elif operator == "%":
                left = f"double(int({left}) % int({right}))"
            else:
                left = f"{left} {operator} {right}"
        if level == 0 and self._next == "?":
            self._take()
            first = self._binary(0)
            self._expect(":")
            left = f"{left} ? {first} : {self._binary(0)}"
        return left

    def _unary(self) -> str:
        signs = ""
        while self._next in ("!", "-"):
            signs += self._take() + " "
        text = self._primary()
        while self._next in (".", "["):
            if self._take() == ".":
                name = self._take()
                text += "." + name
                if self._next == "(":
                    text += self._list("(", ")")
                    if name == "size":
                        text = f"double({text})"
            else:
                start = self._at
                index = self._binary(0)
                text += f"[{self._tokens[start]}]" if self._at == start + 1 else f"[int({index})]"
                self._expect("]")
        return signs + text

    def _primary(self) -> str:
        word = self._next
        if word == "(":
            self._take()
            text = f"({self._binary(0)})"
            self._expect(")")
            return text
        if word == "[":
            return self._list("[", "]")
        if word[:1] not in ('"', "'", "_", ".") and not word[:1].isalnum():
            raise ShapeError(f"{word!r} can't be used in an expression that calculates")
        self._take()
        if word[0].isdigit() or word[0] == ".":
            is_hexadecimal = word[:2] in ("0x", "0X")
            digits = word.rstrip("uU")
            return repr(float(int(digits, 16))) if is_hexadecimal else repr(float(digits))
        if self._next == "(":
            call = word + self._list("(", ")")
            return f"double({call})" if word in ("size", "int", "uint") else call
        return word

    def _list(self, opening: str, closing: str) -> str:
        self._expect(opening)
        items: list[str] = []
        while self._next != closing:
            items.append(self._binary(0))
            if self._next != closing:
                self._expect(",")
        return opening + ", ".join(items) + self._take()


def _as_doubles(value: Any) -> Any:
    """A JSON value whose numbers are floats."""
    if isinstance(value, dict):
        return {name: _as_doubles(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_doubles(inner) for inner in value]
    return float(value) if type(value) is int else value


class Condition:
    """A `where` expression in the Common Expression Language, compiled once.

    Names are the members of a JSON object payload; `payload` is the whole payload and `topic` the topic. A message for
    which the expression can't be evaluated (a member is missing, the types don't fit) does not match, nor does one
    that is larger than `MAX_CONDITION_BYTES`.

    Attributes:
        text: as it was given.
        too_large: how many messages were too large, counted for all conditions together.
    """

    __slots__ = ("_calculates", "_program", "_reads_payload", "_variables", "text")

    too_large: ClassVar[int] = 0

    def __init__(self, text: str) -> None:
        """Compiles the expression.

        Raises:
            ShapeError: it is too long, malformed, no condition, or calls what is not allowed.
        """
        self.text = text
        if len(text) > MAX_CONDITION_LENGTH:
            raise ShapeError(f"where: has {len(text)} characters, at most {MAX_CONDITION_LENGTH} are allowed")
        bare = _STRING.sub("''", text)
        if "'''" in text or '"""' in text or re.search(r"\b[rRbB]{1,2}'", bare):
            raise ShapeError(f"where {text!r}: only plain strings in single or double quotes are allowed")
        if "//" in bare:
            raise ShapeError(f"where {text!r}: comments are not allowed")
        for name in _CALL.findall(bare):
            if name not in _FUNCTIONS:
                raise ShapeError(f"where {text!r}: '{name}' is not allowed, only {', '.join(sorted(_FUNCTIONS))}")
        self._program = self._compile(text)
        functions = set(self._program.functions())
        if not (_BOOLEAN & functions or "has(" in bare.replace(" ", "")):
            raise ShapeError(f"where {text!r}: must be a condition, such as temperature > 30")
        self._calculates = not _ARITHMETIC.isdisjoint(functions)
        if self._calculates:
            try:
                self._program = self._compile(_Doubles(text).rewrite())
            except ShapeError as error:
                raise ShapeError(f"where {text!r}: {error}") from None
            except RecursionError:
                raise ShapeError(f"where {text!r}: is nested too deeply") from None
        self._variables = tuple(self._program.variables())
        self._reads_payload = self._variables != ("topic",)

    def _compile(self, text: str) -> Any:
        try:
            return cel.compile(text)
        except ValueError as error:
            detail = str(error).partition("ERROR: ")[2].partition("\n")[0] or str(error)
            raise ShapeError(f"where {self.text!r}: {detail[:200]}") from None

    def is_beyond(self, message: Message) -> bool:
        """Whether the message is too large to be looked at; then it is counted and does not match."""
        if len(message.frame) <= MAX_CONDITION_BYTES or not self._reads_payload:
            return False
        Condition.too_large += 1
        return True

    def holds(self, topic: str, value: Any) -> bool:
        """Whether a message with this payload value matches."""
        members = value if isinstance(value, dict) else {}
        names: dict[str, Any] = {}
        for name in self._variables:
            if name == "topic":
                names[name] = topic
            elif name == "payload":
                names[name] = value
            elif name in members:
                names[name] = members[name]
        try:
            return self._program.execute(_as_doubles(names) if self._calculates else names) is True
        except Exception:  # noqa: BLE001 - whatever a client wrote, it must not stop the message's way to the others
            return False


@lru_cache(maxsize=1_024)
def _condition(text: str) -> Condition:
    return Condition(text)


Path = tuple[str, ...]
"""Names of members from the outside in. No dotted text: a name may have dots of its own."""


class Field(NamedTuple):
    """A member of a JSON object, as it is asked for.

    Attributes:
        text: its dotted path, or the name of a member that has the dots in its name.
        path: the same, taken apart.
    """

    text: str
    path: Path

    @classmethod
    def at(cls, text: str) -> Field:
        """The field at a dotted path; long work for a long text, so to be done once and not for each message."""
        return cls(text, tuple(text.split(".")))


@dataclass(frozen=True, slots=True)
class Shape:
    """What a subscriber wants; equal shapes with equal filters share one group.

    Attributes:
        format: the form of a message.
        framing: what carries it.
        properties: whether MQTT 5 properties are relayed.
        field: for streams: the dotted path that is shown.
        max_hz: at most so many updates a second for each topic; None is every message.
        mode: what stands for an interval of `1 / max_hz` seconds.
        fields: dotted paths of a JSON object payload that are kept; empty is all.
        deadband: least change of a number that is news; None is every message.
        where: condition in the Common Expression Language; None is every message.
        kept: `fields`, taken apart.
        shown: `field`, taken apart.
    """

    format: Format = Format.JSON
    framing: Framing = Framing.WEBSOCKET
    properties: bool = False
    field: str | None = None
    max_hz: float | None = None
    mode: Mode = Mode.LATEST
    fields: tuple[str, ...] = ()
    deadband: float | None = None
    where: str | None = None
    kept: tuple[Field, ...] = dataclasses.field(init=False, repr=False, compare=False)
    shown: Field | None = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_hz is not None and not MIN_HZ <= self.max_hz <= MAX_HZ:
            raise ShapeError(f"max_hz {self.max_hz:g}: must be between {MIN_HZ:g} and {MAX_HZ:g}")
        if self.mode is not Mode.LATEST and self.max_hz is None:
            object.__setattr__(self, "max_hz", 1.0)
        if self.mode is not Mode.LATEST and self.format is not Format.JSON:
            raise ShapeError(f"mode {self.mode}: needs format=json, an aggregate is no payload that was published")
        if self.deadband is not None and not (math.isfinite(self.deadband) and self.deadband >= 0):
            raise ShapeError(f"deadband {self.deadband:g}: must be a number from 0 up")
        if len(self.fields) > MAX_FIELDS:
            raise ShapeError(f"fields: {len(self.fields)} are named, at most {MAX_FIELDS} are allowed")
        if (length := sum(map(len, self.fields))) > MAX_FIELDS_LENGTH:
            raise ShapeError(f"fields: have {length} characters together, at most {MAX_FIELDS_LENGTH} are allowed")
        kept = tuple(map(Field.at, self.fields))
        if not all(all(member.path) for member in kept):
            raise ShapeError(
                f"fields {','.join(self.fields)!r}: each must be a name or a dotted path such as outdoor.temperature"
            )
        if (depth := max((len(member.path) for member in kept), default=0)) > MAX_DEPTH:
            raise ShapeError(f"fields: a path has {depth} levels, at most {MAX_DEPTH} are allowed")
        object.__setattr__(self, "kept", kept)
        object.__setattr__(self, "shown", None if self.field is None else Field.at(self.field))
        if self.where is not None:
            _condition(self.where)

    @property
    def is_plain(self) -> bool:
        """Whether every message goes out as the frame that history made."""
        return self == _PLAIN

    @property
    def is_sample(self) -> bool:
        """Whether a message's value need not be known: what it shows is as it came."""
        return self.mode is Mode.LATEST and self.format is not Format.STREAM

    @property
    def is_stateless(self) -> bool:
        """Whether what is made of a message depends on that message alone."""
        return self.max_hz is None and self.deadband is None

    @property
    def is_windowed(self) -> bool:
        """Whether messages wait for the end of an interval."""
        return self.max_hz is not None


_PLAIN = Shape()


def shape_from(parameters: Mapping[str, Any], base: Shape = _PLAIN) -> Shape:
    """Builds a shape from the parameters of a query or a command, over what `base` already says.

    Args:
        parameters: any of max_hz, mode, fields, deadband, where, format, properties; strings as in a query or JSON
            values. An empty string or None means the default.
        base: where parameters that are absent come from.

    Raises:
        ShapeError: a parameter is malformed or out of its range.
    """
    changes: dict[str, Any] = {}
    for name in ("max_hz", "deadband"):
        if name in parameters:
            changes[name] = _number(name, parameters[name])
    if "mode" in parameters:
        changes["mode"] = _choice("mode", parameters["mode"], Mode, Mode.LATEST)
    if "format" in parameters:
        chosen = _choice("format", parameters["format"], Format, Format.JSON)
        if chosen is Format.STREAM:
            raise ShapeError("format 'stream': must be json or raw; a stream has an address of its own, /ws/<stream>/")
        changes["format"] = chosen
    if "fields" in parameters:
        given = parameters["fields"] or ()
        if isinstance(given, str):
            given = given.split(",")
        changes["fields"] = tuple(dict.fromkeys(part.strip() for part in given))
    if "where" in parameters:
        changes["where"] = parameters["where"] or None
    if "properties" in parameters:
        changes["properties"] = parameters["properties"] in (True, "1", "true", "yes")
    if not changes:
        return base
    return dataclasses.replace(base, **changes)


def _number(name: str, value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ShapeError(f"{name} {value!r}: must be a number") from None
    if not math.isfinite(number):
        raise ShapeError(f"{name} {value!r}: must be a finite number")
    return number


def _choice(name: str, value: Any, kind: type[Format | Mode], default: Any) -> Any:
    if value is None or value == "":
        return default
    try:
        return kind(value)
    except ValueError:
        allowed = [member.value for member in kind if member is not Format.STREAM]
        raise ShapeError(f"{name} {value!r}: must be one of {', '.join(allowed)}") from None


def _encode(value: Any) -> bytes | None:
    """As JSON; None for a nesting that only just fitted when it was decoded."""
    try:
        return _encode_json(value)
    except RecursionError:
        return None


def look_up(value: Any, field: Field) -> Any:
    """The member of a JSON object at a dotted path (a member that has the dots in its name comes first), or None."""
    if not isinstance(value, dict):
        return None
    if field.text in value:
        return value[field.text]
    for part in field.path:
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def _project(value: Any, fields: tuple[Field, ...]) -> dict[str, Any] | None:
    """Only these fields of an object, nested as they were; None when none of them is there."""
    if not isinstance(value, dict):
        return None
    kept: dict[str, Any] = {}
    for field in fields:
        found = look_up(value, field)
        if found is None:
            continue
        if field.text in value:
            kept[field.text] = found
            continue
        *parents, name = field.path
        inner = kept
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                break
        else:
            inner[name] = found
    return kept or None


def is_number(value: Any) -> bool:
    """Whether one can calculate with it: JSON has integers that no float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _numbers(value: Any, path: Path = ()) -> Iterator[tuple[Path, float]]:
    """The numbers of a payload by path; a bare number has the empty one."""
    if is_number(value):
        yield path, value
    elif isinstance(value, dict) and len(path) < MAX_DEPTH:
        for name, inner in value.items():
            if path or name not in BOOKKEEPING:
                yield from _numbers(inner, (*path, name))


def _nested(results: Mapping[Path, Any]) -> Any:
    """The reverse of `_numbers`. Where a member was once a number and once an object, the number stands."""
    if () in results:
        return results[()]
    tree: dict[str, Any] = {}
    for path, result in results.items():
        if any(path[:length] in results for length in range(1, len(path))):
            continue
        inner = tree
        for parent in path[:-1]:
            inner = inner.setdefault(parent, {})
        inner[path[-1]] = result
    return tree


def pick(shape: Shape, message: Message) -> bytes | None:
    """The envelope of one message under `where`, `fields` and `properties` alone; None if it is left out."""
    token: bytes | None = None
    if shape.where is not None or shape.fields:
        condition = None if shape.where is None else _condition(shape.where)
        if condition is not None and condition.is_beyond(message):
            return None
        value = message.value()
        if condition is not None and not condition.holds(message.topic, value):
            return None
        if shape.fields:
            projected = _project(value, shape.kept)
            token = None if projected is None else _encode(projected)
            if token is None:
                return None
    if shape.properties and message.properties:
        return message.with_members({"properties": encode_properties(message.properties)}, token=token)
    return message.body if token is None else message.with_members({}, token=token)


class Room:
    """What all shapers of a gateway together hold, and may hold.

    Attributes:
        used: about so many bytes. Frames of an interval are counted although history may have them, too: it may
            let go of them before the interval ends.
        limit: above it somebody has to let go.
        is_crowded: somebody has gone above it; whoever sees to that takes it back.
    """

    __slots__ = ("is_crowded", "limit", "used")

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self.limit = limit
        self.used = 0
        self.is_crowded = False


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
        skipped: messages that no frame was made for, or that another one stands for.
        taken_seqs: of the frames that `take` gave last, the numbers of the messages that they show.
    """

    __slots__ = (
        "_baseline",
        "_baseline_numbers",
        "_condition",
        "_cost",
        "_due",
        "_epoch",
        "_needs_value",
        "_ready",
        "_room",
        "_seqs",
        "_spread",
        "_suppressed",
        "delivered",
        "offered",
        "shape",
        "skipped",
        "taken_seqs",
    )

    def __init__(self, shape: Shape, epoch: str = "", room: Room | None = None) -> None:
        """`epoch` makes the positions of server-sent events; `room` is told what this holds."""
        self.shape = shape
        self._epoch = epoch
        self._room = room or Room(0)
        self._cost = 0
        self._condition = None if shape.where is None else _condition(shape.where)
        is_compared = shape.deadband is not None and not shape.is_windowed  # else at the end of the interval
        self._needs_value = shape.where is not None or bool(shape.fields) or is_compared or not shape.is_sample
        # the numbers that each topic sent last, or the hash of a payload that has none
        self._baseline: dict[str, dict[Path, float] | int] = {}
        self._baseline_numbers = 0
        # where subscribers were shown different numbers: the least and the greatest
        self._spread: dict[str, dict[Path, tuple[float, float]]] = {}
        self._suppressed: dict[str, int] = {}
        self._due: dict[str, _Interval] = {}
        self._ready: list[bytes] = []
        self._seqs: list[int] = []
        self.taken_seqs: list[int] = []
        self.offered = 0
        self.delivered = 0
        self.skipped = 0

    def __del__(self) -> None:
        self._room.used -= self._cost

    def _charge(self, cost: int) -> None:
        self._cost += cost
        room = self._room
        room.used += cost
        if room.used > room.limit:
            room.is_crowded = True

    def offer(self, message: Message) -> None:
        """Takes a message in; numbers must not fall."""
        self.offered += 1
        shape = self.shape
        token: bytes | None = None
        value: Any = None
        if self._needs_value:
            if self._condition is not None and self._condition.is_beyond(message):
                self.skipped += 1
                return
            value = message.value()
            if self._condition is not None and not self._condition.holds(message.topic, value):
                self.skipped += 1
                return
            if shape.fields:
                value = _project(value, shape.kept)
                token = None if value is None else _encode(value)
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
            self._charge(cost - interval.cost)
            interval.cost = cost
        if shape.mode is not Mode.LATEST:
            for path, number in _numbers(value):
                sums = interval.sums.get(path)
                if sums is None:
                    interval.sums[path] = [number, number, number, 1]
                    self._charge(SUMS_COST)
                else:
                    sums[0] += number
                    sums[1] = min(sums[1], number)
                    sums[2] = max(sums[2], number)
                    sums[3] += 1

    @property
    def cost(self) -> int:
        """About how many bytes it holds."""
        return self._cost

    @property
    def is_full(self) -> bool:
        """Whether the interval holds so many topics that it should end now."""
        return len(self._due) >= MAX_WINDOW_TOPICS

    def is_heavy(self) -> bool:
        """Whether it should end for what it holds in all; walks it, so not to be asked for each message."""
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
            self._charge(-sum(map(_cost_of, intervals)))
            for interval in intervals:
                conflated = interval.count - 1
                self.skipped += conflated
                self._emit(interval.message, interval.token, None, conflated)
            return
        intervals = sorted(self._due.values(), key=_first_seq)
        self._due.clear()
        self._charge(-sum(interval.cost + SUMS_COST * len(interval.sums) for interval in intervals))
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

    def settle(self) -> tuple[int, int]:
        """The delivered and skipped messages since the last call of this; starts both counts over."""
        counts = self.delivered, self.skipped
        self.delivered = self.skipped = 0
        return counts

    def _is_news(self, topic: str, now: dict[Path, float] | int) -> bool:
        """Whether this differs enough from what was sent last; then it counts as sent."""
        deadband = self.shape.deadband
        assert deadband is not None  # noqa: S101 - asked for shapes with one
        before = self._baseline.get(topic)
        if isinstance(before, dict) and isinstance(now, dict):
            if before.keys() == now.keys() and all(abs(now[path] - before[path]) < deadband for path in now):
                spread = self._spread.get(topic) if self._spread else None
                if spread is None or all(
                    now[path] - low < deadband and high - now[path] < deadband for path, (low, high) in spread.items()
                ):
                    return False
        elif before == now:
            return False
        if before is not None:
            self._forget(topic)
        self._remember(topic, now)
        while len(self._baseline) > MAX_WINDOW_TOPICS or (
            self._baseline_numbers > MAX_BASELINE_NUMBERS and len(self._baseline) > 1
        ):
            oldest = next(iter(self._baseline))
            self._forget(oldest)
            self._suppressed.pop(oldest, None)
        return True

    def _remember(self, topic: str, now: dict[Path, float] | int) -> None:
        self._baseline[topic] = now
        size = len(now) if isinstance(now, dict) else 0
        self._baseline_numbers += size
        self._charge(BASELINE_COST * (size + 1))

    def _forget(self, topic: str) -> None:
        """Its next message is news again."""
        gone = self._baseline.pop(topic)
        size = len(gone) if isinstance(gone, dict) else 0
        self._baseline_numbers -= size
        self._charge(-BASELINE_COST * (size + 1))
        if self._spread and (spread := self._spread.pop(topic, None)) is not None:
            self._charge(-BASELINE_COST * len(spread))

    def forget(self) -> None:
        """Lets go of what was sent last: the next message of every topic is news."""
        for topic in list(self._baseline):
            self._forget(topic)
        self._suppressed.clear()

    def welcome(self, other: Shaper) -> None:
        """Somebody joins who was shown what `other` gave: changes count from there as well."""
        for topic, shown in other._baseline.items():
            before = self._baseline.get(topic)
            if before is None or before == shown:
                continue
            if not isinstance(before, dict) or not isinstance(shown, dict) or before.keys() != shown.keys():
                self._forget(topic)
                continue
            spread = self._spread.get(topic)
            if spread is None:
                spread = {path: (number, number) for path, number in before.items()}
                self._charge(BASELINE_COST * len(spread))
            self._spread[topic] = {
                path: (min(low, shown[path]), max(high, shown[path])) for path, (low, high) in spread.items()
            }

    def _suppress(self, topic: str, count: int) -> None:
        """Counts what a deadband leaves out: `count` messages, all but one of them counted as skipped before."""
        self.skipped += 1
        self._suppressed[topic] = self._suppressed.get(topic, 0) + count

    def _emit_aggregate(self, message: Message, interval: _Interval, number: int) -> None:
        shape = self.shape
        numbers: dict[Path, float]
        if shape.mode is Mode.MEAN:
            numbers = {path: float(f"{sums[0] / sums[3]:.12g}") for path, sums in interval.sums.items()}
            result = _nested(numbers)
        else:
            numbers = {(*path, end): sums[at] for path, sums in interval.sums.items() for end, at in _ENDS}
            result = _nested({path: {"min": sums[1], "max": sums[2]} for path, sums in interval.sums.items()})
        if shape.deadband is not None and not self._is_news(message.topic, numbers):
            self._suppress(message.topic, interval.count)
            return
        assert shape.max_hz is not None  # noqa: S101 - aggregates have an interval
        members: dict[str, Any] = {}
        if suppressed := self._suppressed.pop(message.topic, 0) if self._suppressed else 0:
            members["skipped"] = suppressed
        members |= {"mode": shape.mode.value, "count": interval.count, "interval": float(f"{1 / shape.max_hz:.6g}")}
        self._finish(message, message.with_members(members, token=_encode_json(result)), number)

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
        if shape.deadband is not None:
            if value is None:
                value = message.value() if token is None else msgspec.json.decode(token)
            now = dict(_numbers(value)) or hash(message.token if token is None else token)
            if not self._is_news(message.topic, now):
                self._suppress(message.topic, conflated + 1)
                return
        skipped = conflated
        if self._suppressed:
            skipped += self._suppressed.pop(message.topic, 0)
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
                members["properties"] = encode_properties(message.properties)
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
            text = message.payload if message.kind is not Kind.BASE64 else message.token[1:-1]
            self._finish(message, token if token is not None else text)
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
        return look_up(value, field) if isinstance(value, dict) else value

    def _stream_body(self, message: Message) -> bytes | None:
        shown = self._shown(message, message.value())
        if shown is None:
            return None
        name = "payload" if self.shape.shown is None else self.shape.shown.path[-1]
        return _encode({name: shown, "topic": message.topic, "time": message.time})

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

"""`where`: a condition on a message in the Common Expression Language.

Invariant: whatever a client wrote, an evaluation takes a time that its text and the payload bound, and never raises.
What becomes of a message that does not match is for the shaper.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

# The package loads its command line with it, and with that a toolkit for terminals: 0.35 s of processor time at each
# start, for what nobody asks for here. Whoever imports `cel.cli` later gets it.
_is_ours = sys.modules.setdefault("cel.cli", _unused := ModuleType("cel.cli")) is _unused
import cel  # noqa: E402

if _is_ours:
    del sys.modules["cel.cli"]

from gateway.core.messages import Message  # noqa: E402

__all__ = ["Condition", "ShapeError", "compile_condition"]


MAX_CONDITION_LENGTH = 500
"""Characters of a `where` expression."""

MAX_CONDITION_BYTES = 16 * 1024
"""A message with a larger envelope meets no `where` that looks at its payload."""

MAX_CONDITION_NAMES = 64
"""How often a `where` may name a value: a list of names copies what they stand for, a text of 16 KiB in 10 µs."""

MAX_CONDITION_VALUES = 300
"""Values that the lists and objects may hold which a `where` names, each counted as often as it is named, a member of
an object twice. The library takes up to 7 µs for each that it is handed, so the worst text takes 2 ms with the worst
payload (tests/test_conditions.py)."""


class ShapeError(ValueError):
    """A shape can't be had; the text names the parameter, the value and what is allowed."""

    code = "bad_shape"


# Every function that an expression may call takes a time that grows with its arguments alone. Comprehensions (all,
# exists, map, …) nest to any power and regular expressions compile to any size: they are left out, as is `+` on lists
# and strings, which copies what it has already copied.
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
_ENDS_A_PRODUCT = frozenset({"||", "&&", "<", "<=", ">", ">=", "==", "!=", "in", "+", "-", "?", ":", ",", ""})
_WORD = r"(?!(?:in|true|false|null)\b)[A-Za-z_]\w*+(?!\s*\()"
_KEY = r"""\[\s*+(?:\d++|'[^'\\\n]*+'|"[^"\\\n]*+")\s*+\]"""
_PATH = rf"{_WORD}(?:\s*+(?:\.\s*+{_WORD}|{_KEY}))*+"
_NAME = re.compile(
    rf"{_QUOTED}|(?P<of>\.\s*+)?+(?<!\w)"
    rf"(?:(?P<call>has|size)\s*+\(\s*+(?P<argument>{_PATH})\s*+\)|(?P<path>{_PATH})(?P<size>\s*\.\s*size\s*\(\s*\))?)"
)
_STEP = re.compile(r"[A-Za-z_]\w*|\d+|'[^']*'|" + '"[^"]*"')
_STEP_OF_A_RESULT = re.compile(r"\.\s*[A-Za-z_]\w*+(?!\s*\()|[)\]]\s*\[|\b_\d+\s*\[")


def _in_doubles(text: str) -> str:
    """Rewrites an expression that calculates so that every number in it is a double.

    JSON knows one kind of number, CEL several that don't mix: `temperature * 2` would hold or not by whether a sensor
    writes 31 or 31.5. The library compares numbers of all kinds, but calculates with two of one kind only, and has no
    `%` for doubles. Its operators can't be overloaded; functions in Python instead of them would cost more than the
    rest of such an evaluation (4 µs), and it shows no syntax tree. So this changes the text token by token: literals
    get a fraction, counts are converted, `a % b` becomes `double(int(a) % int(b))`, and `a + b` becomes `a - -b`, which
    there is for numbers only. The library has parsed `text` before, and parses the result.

    Raises:
        ShapeError: it has what can't be had together with arithmetic.
    """
    words = [*_TOKEN.findall(text), ""]
    out: list[str] = []
    opened: list[tuple[str, int, int, str, str]] = []
    product = operand = 0  # where in `out` the present ones begin
    due = ""  # what is to stand behind the second operand of `%`
    left = ""  # the last word of an operand; empty where one begins
    key = -1  # the word that is an index as it stands
    for at, word in enumerate(words):
        if not left:
            if word in ("-", "!"):
                out.append(f"{word} ")
                continue
            operand = len(out)
        if word == "{":
            raise ShapeError("'{' can't be used in an expression that calculates")
        if word in ("(", "["):
            end = ")" if word == "(" else "]"
            if word == "[" and left:
                if words[at + 2] == "]":
                    key = at + 1
                else:
                    word, end = "[int(", ")]"
            opened.append((left, product, operand, due, end))
            out.append(word)
            product, due, left = len(out), "", ""
        elif word in (")", "]"):
            out.append(due)
            before, product, operand, due, end = opened.pop()
            out.append(end)
            if word == ")" and before in ("size", "int", "uint"):
                out[operand] = f"double({out[operand]}"
                out.append(")")
            left = word if before or word == ")" else "["
        elif word in ("*", "/"):
            out.append(f"{due} {word} ")
            due = left = ""
        elif word == "%":
            out[product] = f"double(int({out[product]}"
            out.append(f"{due}) % int(")
            due, left = "))", ""
        elif word in _ENDS_A_PRODUCT:
            if word == "+":
                if left[0] in "\"'[" or (words[at + 1][0] in "\"'[" and words[at + 2] != "."):
                    raise ShapeError("+ adds numbers only")
                word = "- -"
            out.append(f"{due} {word} ")
            product, due, left = len(out), "", ""
        else:
            left = word
            if at != key and (word[0].isdigit() or (word[0] == "." and word != ".")):
                digits = word.rstrip("uU")
                word = repr(float(int(digits, 16) if digits[:2] in ("0x", "0X") else float(digits)))
            out.append(word)
    return "".join(out)


def _as_doubles(value: Any) -> Any:
    """A JSON value whose numbers are floats."""
    if isinstance(value, dict):
        return {name: _as_doubles(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_doubles(inner) for inner in value]
    return float(value) if type(value) is int else value


def _values_in(value: Any, most: int) -> int:
    """How many values a list or an object holds, those within them and the names of members included.

    Stops counting above `most`.
    """
    count = 0
    todo = [value]
    while todo:
        inner = todo.pop()
        is_object = isinstance(inner, dict)
        count += 2 * len(inner) if is_object else len(inner)
        if count > most:
            break
        items = inner.values() if is_object else inner
        todo += [item for item in items if isinstance(item, (dict, list))]
    return count


_ABSENT: Any = object()


class _Name(NamedTuple):
    """Something that an expression names.

    Attributes:
        steps: from the payload inwards, to members by name and to items by number; None is the topic.
        size: whether its size is asked for.
        has: the member that is asked for, None for none.
    """

    steps: tuple[str | int, ...] | None
    size: bool
    has: str | None

    @classmethod
    def of(cls, path: str, call: str | None) -> _Name:
        """What is at the end of a path, or what a call says of it."""
        root, *words = _STEP.findall(path)
        if root == "topic" and not words:
            return cls(None, call == "size", None)
        # a topic has no members: that leads nowhere
        steps: list[str | int] = [] if root == "payload" else [0, root] if root == "topic" else [root]
        steps += [word[1:-1] if word[0] in "'\"" else int(word) if word[0].isdigit() else word for word in words]
        has = str(steps.pop()) if call == "has" else None
        return cls(tuple(steps), call == "size", has)

    @property
    def is_plain(self) -> bool:
        """Whether it is a member's value, to which names alone lead."""
        return not self.size and self.has is None and self.steps is not None and int not in map(type, self.steps)

    def ask(self, topic: str, value: Any) -> Any:
        """What is wanted of a message; `_ABSENT` where there is no such thing."""
        found: Any = topic if self.steps is None else value
        for step in self.steps or ():
            if not isinstance(found, (dict, list)):
                return _ABSENT
            try:
                found = found[step]  # type: ignore[index]  # which of both it is that is asked for shows here
            except (LookupError, TypeError):
                return _ABSENT
        if self.size:
            return len(found) if isinstance(found, (str, list, dict)) else _ABSENT
        if self.has is not None:
            return self.has in found if isinstance(found, dict) else _ABSENT
        return found


_TOPIC = _Name(None, False, None)


def _take_names(text: str) -> tuple[str, dict[_Name, int]]:
    """Puts a variable, `_0`, `_1`, …, for everything that an expression names.

    An evaluation is then handed what is named instead of the objects and lists around it, each value of which would
    take 2 µs. `has` and `size` of a name are answered without handing it over.

    Returns:
        The expression with the variables; and what they stand for, in their order, with how often each is named.
    """
    names: dict[_Name, int] = {}
    variables: dict[_Name, str] = {}

    def variable(match: re.Match[str]) -> str:
        path = match["path"] or match["argument"]
        if path is None or match["of"] or (match["call"] == "has" and not re.search(r"\.\s*\w+$", path)):
            return match[0]
        name = _Name.of(path, match["call"] or (match["size"] and "size"))
        names[name] = names.get(name, 0) + 1
        return variables.setdefault(name, f"_{len(variables)}")

    return _NAME.sub(variable, text), names


class Condition:
    """A `where` expression in the Common Expression Language, compiled once.

    Names are the members of a JSON object payload; `payload` is the whole payload and `topic` the topic. A message for
    which the expression can't be evaluated (a member is missing, the types don't fit) does not match, nor does one that
    is too large: its envelope has more than `MAX_CONDITION_BYTES`, or the lists and objects that the expression names
    hold more than `MAX_CONDITION_VALUES`.

    Attributes:
        text: as it was given.
        subject: the place in the payload that it names first, what it is about; None where it names none.
    """

    __slots__ = ("_calculates", "_execute", "_max_values", "_names", "_reads_payload", "_topic", "subject", "text")

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
        rewritten, names = _take_names(text)
        if (count := sum(names.values())) > MAX_CONDITION_NAMES:
            raise ShapeError(
                f"where {text!r}: names values {count} times, at most {MAX_CONDITION_NAMES} times are allowed: "
                "x in [1, 2] names x once"
            )
        program = self._compile(rewritten)
        functions = set(program.functions())
        if not (_BOOLEAN & functions or "has(" in bare.replace(" ", "")):
            raise ShapeError(f"where {text!r}: must be a condition, such as temperature > 30")
        variables = {name: f"_{at}" for at, name in enumerate(names)}
        self._topic = variables.pop(_TOPIC, None)
        self._names = [
            (variable, name.steps or (), None, names[name]) if name.is_plain else (variable, (), name.ask, names[name])
            for name, variable in variables.items()
        ]
        self._reads_payload = any(name.steps is not None for name in names)
        self.subject = next((n.steps for n in names if n.steps is not None and not n.size and n.has is None), None)
        # each of these copies what it is taken from
        steps_of_results = len(_STEP_OF_A_RESULT.findall(_STRING.sub("''", rewritten)))
        self._max_values = MAX_CONDITION_VALUES // (1 + steps_of_results)
        self._calculates = not _ARITHMETIC.isdisjoint(functions)
        if self._calculates:
            try:
                program = self._compile(_in_doubles(rewritten))
            except ShapeError as error:
                raise ShapeError(f"where {text!r}: {error}") from None
        self._execute = program.execute

    def _compile(self, rewritten: str) -> cel.Program:
        try:
            return cel.compile(rewritten)
        except ValueError:
            pass
        try:
            cel.compile(self.text)  # so that the error speaks of what was written
        except ValueError as error:
            detail = str(error).partition("ERROR: ")[2].partition("\n")[0] or str(error)
            raise ShapeError(f"where {self.text!r}: {detail[:200]}") from None
        raise ShapeError(f"where {self.text!r}: can't be understood")

    def is_too_large(self, message: Message) -> bool:
        """Whether the message, or its topic where that is all that is asked about, has too many bytes."""
        if len(message.frame) <= MAX_CONDITION_BYTES:
            return False
        return self._reads_payload or len(message.topic) > MAX_CONDITION_BYTES

    def holds(self, topic: str, value: Any) -> bool | None:
        """Whether a message with this payload value matches; None when it has too many values to be looked at."""
        left = self._max_values
        variables: dict[str, Any] = {} if self._topic is None else {self._topic: topic}
        try:
            for variable, steps, ask, times in self._names:
                found: Any = value
                try:
                    for step in steps:
                        found = found[step]
                except (LookupError, TypeError):
                    continue  # what is not there is an error only where it decides
                if ask is not None:
                    found = ask(topic, value)
                    if found is _ABSENT:
                        continue
                kind = found.__class__
                if kind is dict or kind is list:
                    left -= times * _values_in(found, left)
                    if left < 0:
                        return None
                if self._calculates and kind is not str:
                    found = _as_doubles(found)
                variables[variable] = found
            return self._execute(variables) is True
        except Exception:  # noqa: BLE001 - whatever a client wrote, it must not stop the message's way to the others
            return False


@lru_cache(maxsize=1_024)
def compile_condition(text: str) -> Condition:
    """A condition, compiled once for all who ask the same.

    Raises:
        ShapeError: it can't be had.
    """
    return Condition(text)

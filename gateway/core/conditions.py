"""`where`: a condition on a message in the Common Expression Language.

Invariant: whatever a client wrote, an evaluation takes a time that its text and the payload bound, and never raises.
What becomes of a message that does not match is for the shaper.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import cel

from gateway.core.messages import Message

__all__ = ["Condition", "ShapeError", "compile_condition"]


MAX_CONDITION_LENGTH = 500
"""Characters of a `where` expression."""

MAX_CONDITION_BYTES = 16 * 1024
"""A message with a larger envelope meets no `where` that looks at its payload."""

MAX_CONDITION_VALUES = 10_000
"""Nor does one whose values, in the lists and objects that a `where` names, are more than this, each counted once for
every name and step in the text: the library copies what is named, at 0.1 to 0.8 µs a value, so that the worst text
takes some 8 ms with the worst payload."""


class ShapeError(ValueError):
    """A shape can't be had; the text names the parameter, the value and what is allowed."""

    code = "bad_shape"


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
_COPIES = re.compile(r"[A-Za-z_]\w*|\[")  # names, steps to a member or an item, lists
_OPERATORS = (("||",), ("&&",), ("<", "<=", ">", ">=", "==", "!=", "in"), ("+", "-"), ("*", "/", "%"))


class _Doubles:
    """Rewrites an expression that calculates so that every number in it is a double.

    JSON knows one kind of number, CEL several that don't mix: `temperature * 2` would hold or not by whether a sensor
    writes 31 or 31.5. The library compares numbers of all kinds, but calculates with two of one kind only and has no
    `%` for doubles. Its operators can't be overloaded, functions in Python in their place cost more than the rest of
    an evaluation, and it shows no syntax tree: so the text is rewritten, and the library parses it again. `a + b`
    becomes `a - -b`, which there is for numbers only.
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


def _has_more_values(value: Any, most: int) -> bool:
    """Whether a list or an object holds more values than this, those in its lists and objects included."""
    count = 0
    todo = [value]
    while todo:
        inner = todo.pop()
        count += len(inner)
        if count > most:
            return True
        todo += [item for item in (inner.values() if isinstance(inner, dict) else inner) if type(item) in (dict, list)]
    return False


class Condition:
    """A `where` expression in the Common Expression Language, compiled once.

    Names are the members of a JSON object payload; `payload` is the whole payload and `topic` the topic. A message for
    which the expression can't be evaluated (a member is missing, the types don't fit) does not match, nor does one
    that is too large to be looked at.

    Attributes:
        text: as it was given.
    """

    __slots__ = ("_calculates", "_max_values", "_program", "_reads_payload", "_variables", "text")

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
        self._max_values = MAX_CONDITION_VALUES // max(len(_COPIES.findall(bare)), 1)

    def _compile(self, text: str) -> Any:
        try:
            return cel.compile(text)
        except ValueError as error:
            detail = str(error).partition("ERROR: ")[2].partition("\n")[0] or str(error)
            raise ShapeError(f"where {self.text!r}: {detail[:200]}") from None

    def is_too_large(self, message: Message) -> bool:
        """Whether the message has more bytes than are looked at."""
        return self._reads_payload and len(message.frame) > MAX_CONDITION_BYTES

    def holds(self, topic: str, value: Any) -> bool | None:
        """Whether a message with this payload value matches; None when it has too many values to be looked at."""
        members = value if isinstance(value, dict) else {}
        names: dict[str, Any] = {}
        for name in self._variables:
            if name == "topic":
                names[name] = topic
                continue
            if name == "payload":
                found = value
            elif name in members:
                found = members[name]
            else:
                continue
            if type(found) in (dict, list) and _has_more_values(found, self._max_values):
                return None
            names[name] = found
        try:
            return self._program.execute(_as_doubles(names) if self._calculates else names) is True
        except Exception:  # noqa: BLE001 - whatever a client wrote, it must not stop the message's way to the others
            return False


@lru_cache(maxsize=1_024)
def compile_condition(text: str) -> Condition:
    """A condition, compiled once for all who ask the same.

    Raises:
        ShapeError: it can't be had.
    """
    return Condition(text)

"""Templates of discovery messages: what of Jinja's language they really use, read once and followed with bounds.

Nothing of a template is run: it is read into a tree, from which most become a path (`value_json.temperature`). What is
left is walked with a bound on steps and lengths. Jinja's own sandbox bounds neither time nor memory, so it is not used.

Invariant: whatever the template and the payload are, reading and walking take a time that is bounded by `MAX_LENGTH`
and `MAX_STEPS`, and raise nothing but `TemplateError`. What is not understood is named by it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.core.paths import MAX_DEPTH, Path, Step
from gateway.devices.functions import (
    FILTERS,
    MAX_TEXT,
    METHODS,
    TESTS,
    UNDEFINED,
    TemplateError,
    Undefined,
    calculate,
    compare,
    is_true,
    item,
    key_of,
    text_of,
)
from gateway.devices.syntax import Node, read_template

__all__ = ["MAX_LENGTH", "Linear", "Template", "TemplateError", "template_of"]


MAX_LENGTH = 2_000
"""Characters of a template."""

MAX_STEPS = 500
"""Nodes of a template that are walked for one payload."""

MAX_FILL_STEPS = 2_000
"""For all payloads that a command may have."""

MAX_REMEMBERED = 4_096
"""Templates that are remembered after they were read."""


class Linear(NamedTuple):
    """A value that stands at a path, times a number plus a number; the empty path is the payload itself."""

    path: Path
    scale: float = 1.0
    offset: float = 0.0


_HARMLESS = frozenset({"float", "int", "round", "default", "d", "string", "is_defined", "trim"})
"""Filters after which a number is still, about, the number that it was."""


def _linear(node: Node) -> Linear | None:
    """Where the value of an expression stands, if it is one that does."""
    match node:
        case ("name", "value" | "value_json"):
            return Linear(())
        case ("item", inner, ("constant", str() | int() as step)) if not isinstance(step, bool):
            found = _linear(inner)
            is_path = found is not None and found[1:] == (1.0, 0.0) and _root(inner) == "value_json"
            if found is None or not is_path or len(found.path) >= MAX_DEPTH:
                return None
            return Linear((*found.path, _step(step)))
        case ("method", "get", inner, (("constant", str() as name), *_)):
            return _linear(("item", inner, ("constant", name)))
        case ("filter", name, inner, _) if name in _HARMLESS:
            return _linear(inner)
        case ("if", ("test", "defined", tested), inner, ("constant", _)) if tested == inner:
            return _linear(inner)
        case ("binary", "*" | "/" | "+" | "-" as sign, inner, ("constant", int() | float() as number)):
            found = _linear(inner)
            if found is None or isinstance(number, bool):
                return None
            if sign in "+-":
                return found._replace(offset=found.offset + (number if sign == "+" else -number))
            if number == 0:
                return None
            factor = float(number) if sign == "*" else 1 / number
            return Linear(found.path, found.scale * factor, found.offset * factor)
        case ("binary", "*" | "+" as sign, ("constant", int() | float()) as first, inner):
            return _linear(("binary", sign, inner, first))
    return None


def _root(node: Node) -> str:
    while node[0] in ("item", "filter", "method"):
        node = node[1] if node[0] == "item" else node[2]
    return str(node[1]) if node[0] == "name" else ""


def _step(step: str | int) -> Step:
    return step if isinstance(step, str) else min(max(step, 0), 99_999)


class Template:
    """A template that was read.

    Attributes:
        source: its text.
        linear: where the value stands, if it needs no more than that; None where it is computed.
        around: what stands before and after the value of a payload to publish; None where that is computed.
    """

    __slots__ = ("_body", "around", "linear", "source")

    def __init__(self, source: str) -> None:
        """Reads a template.

        Raises:
            TemplateError: it has something that is not known here, or is too long.
        """
        if len(source) > MAX_LENGTH:
            raise TemplateError(f"it has {len(source)} characters, at most {MAX_LENGTH} are read")
        self.source = source
        self._body = read_template(source)
        self.linear = _linear(self._body[0][1]) if len(self._body) == 1 and self._body[0][0] == "output" else None
        self.around = self._around()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def _around(self) -> tuple[str, str] | None:
        outputs = [number for number, node in enumerate(self._body) if node[0] != "text"]
        if len(outputs) != 1 or self._body[outputs[0]][0] != "output":
            return None
        found = _linear(self._body[outputs[0]][1])
        if found is None or found != Linear(()):
            return None
        parts = ["".join(node[1] for node in some) for some in (self._body[: outputs[0]], self._body[outputs[0] + 1 :])]
        return parts[0], parts[1]

    def fill(self, words: list[str]) -> list[str]:
        """The text that it makes of each of these, in `MAX_FILL_STEPS` for all of them together.

        Raises:
            TemplateError: it can't be followed for one of them, or takes more.
        """
        if self.around is not None:
            before, after = self.around
            return [f"{before}{word[:MAX_TEXT]}{after}"[:MAX_TEXT].strip() for word in words]
        found, left = [], MAX_FILL_STEPS
        for word in words:
            walk = _Walk(word, word, min(left, MAX_STEPS))
            found.append(walk.rendered(self._body).strip())
            left -= walk.steps
        return found

    def render(self, text: str, value: Any) -> str:
        """The text that it makes of a payload.

        Args:
            text: the payload.
            value: the same as a JSON value; None where it is no JSON.

        Raises:
            TemplateError: it can't be followed for this payload.
        """
        return _Walk(text, value).rendered(self._body).strip()

    def evaluate(self, text: str, value: Any) -> Any:
        """The same, but a number, a bool or a list where the template is a single expression.

        Raises:
            TemplateError: it can't be followed for this payload.
        """
        if len(self._body) == 1 and self._body[0][0] == "output":
            found = _Walk(text, value).value(self._body[0][1])
            if isinstance(found, Undefined):
                raise TemplateError("what it asks for is not in the payload")
            return found
        return self.render(text, value)


@lru_cache(MAX_REMEMBERED)
def template_of(source: str) -> Template:
    """`Template`, remembered: a fleet has few different ones.

    Raises:
        TemplateError: as there.
    """
    return Template(source)


class _Walk:
    """Follows a template for one payload."""

    def __init__(self, text: str, value: Any, most: int = MAX_STEPS) -> None:
        self._names: dict[str, Any] = {"value": text[:MAX_TEXT], "value_json": UNDEFINED if value is None else value}
        self._most = self._left = most

    @property
    def steps(self) -> int:
        """How many it took."""
        return self._most - self._left

    def rendered(self, body: tuple[Node, ...]) -> str:
        parts: list[str] = []
        for node in body:
            match node:
                case ("text", text):
                    parts.append(text)
                case ("output", inner):
                    parts.append(text_of(self.value(inner)))
                case ("set", name, inner):
                    self._names[name] = self.value(inner)
                case ("choice", branches):
                    for condition, inner in branches:
                        if condition is None or is_true(self.value(condition)):
                            parts.append(self.rendered(inner))
                            break
        return "".join(parts)[:MAX_TEXT]

    def value(self, node: Node) -> Any:
        self._left -= 1
        if self._left < 0:
            raise TemplateError(f"it takes more than {MAX_STEPS} steps, or {MAX_FILL_STEPS} for all options")
        match node:
            case ("constant", value):
                return value
            case ("name", name):
                return self._names.get(name, UNDEFINED)
            case ("item", inner, key):
                return item(self.value(inner), self.value(key))
            case ("if", condition, inner, other):
                return self.value(inner if is_true(self.value(condition)) else other)
            case ("or", first, second):
                found = self.value(first)
                return found if is_true(found) else self.value(second)
            case ("and", first, second):
                found = self.value(first)
                return self.value(second) if is_true(found) else found
            case ("not", inner):
                return not is_true(self.value(inner))
            case ("compare", sign, first, second):
                return compare(sign, self.value(first), self.value(second))
            case ("binary", sign, first, second):
                return calculate(sign, self.value(first), self.value(second))
            case ("filter", name, inner, arguments):
                return _called(FILTERS[name], self.value(inner), [self.value(each) for each in arguments[:2]])
            case ("method", name, inner, arguments):
                return _called(METHODS[name], self.value(inner), [self.value(each) for each in arguments[:2]])
            case ("test", name, inner):
                return TESTS[name](self.value(inner))
            case ("list", items):
                return [self.value(each) for each in items]
            case ("dict", pairs):
                return {key_of(self.value(key)): self.value(each) for key, each in pairs}
        raise TemplateError(f"{node[0]} is not known here")


def _called(function: Callable[..., Any], value: Any, arguments: list[Any]) -> Any:
    try:
        return function(value, *arguments)
    except TemplateError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise TemplateError(str(error)) from None

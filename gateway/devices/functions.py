"""What the templates of discovery messages call: filters, methods, tests, operators, each with a bound.

Invariant: nothing here makes a text of more than `MAX_TEXT` characters, makes a text of or compares a list or an object
that holds more than `MAX_PARTS` values, calculates with more than 64 bits of a whole number, or raises anything but
`TemplateError`. A value that stands in a list twice counts twice: `[x, x]`, again and again, is small only in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "FILTERS",
    "MAX_TEXT",
    "METHODS",
    "TESTS",
    "UNDEFINED",
    "TemplateError",
    "Undefined",
    "calculate",
    "compare",
    "is_true",
    "item",
    "key_of",
    "text_of",
]


MAX_TEXT = 10_000
"""Characters of any text on the way."""

MAX_PARTS = 200
"""Values within a list or an object that becomes a text or is compared, names among them."""


class TemplateError(ValueError):
    """A template can't be followed, or not for this payload; the text names what is in the way."""


class Undefined:
    """What is not there; any use but for a default is an error."""

    def __repr__(self) -> str:
        return ""


UNDEFINED = Undefined()


def text_of(value: Any) -> str:
    """A value as text, cut; "" for what is not there."""
    if isinstance(value, Undefined):
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1 << 64:
        try:
            return str(float(value))
        except OverflowError:
            raise TemplateError("a number is beyond what can be calculated with") from None
    return str(_small(value))[:MAX_TEXT]


def _small(value: Any) -> Any:
    """A value of which every part may be looked at.

    Raises:
        TemplateError: it holds too many, or too long ones.
    """
    if not isinstance(value, (list, dict)):
        return value
    parts, characters = MAX_PARTS, MAX_TEXT
    waiting: list[Any] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, (list, dict)):
            inner = each if isinstance(each, list) else [*each, *each.values()]
            parts -= len(inner)
            if parts < 0:
                raise TemplateError(f"a list or an object holds more than {MAX_PARTS} values")
            waiting += inner
        elif isinstance(each, str):
            characters -= len(each)
        elif isinstance(each, int):
            characters -= each.bit_length()
        if characters < 0:
            raise TemplateError(f"a list or an object holds more than {MAX_TEXT} characters")
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, (int, float)) and not (isinstance(value, int) and abs(value) > 1 << 64):
        return value
    raise TemplateError(f"expected a number, got {text_of(value)[:20]!r}")


def key_of(value: Any) -> Any:
    """A value as what an object may have as a name."""
    return value if isinstance(value, (str, int, float)) or value is None else text_of(value)


def is_true(value: Any) -> bool:
    """Whether a condition holds."""
    return not isinstance(value, Undefined) and bool(value)


def item(value: Any, key: Any) -> Any:
    """A member of an object, an item of a list, a character of a text; `UNDEFINED` where there is none."""
    if isinstance(value, Undefined):
        raise TemplateError("what it asks for is not in the payload")
    try:
        if isinstance(value, Mapping):
            return value.get(key_of(key), UNDEFINED)
        if isinstance(value, (list, str)) and isinstance(key, int) and not isinstance(key, bool):
            return value[key]
    except IndexError:
        pass
    return UNDEFINED


def compare(sign: str, first: Any, second: Any) -> bool:
    """Whether a comparison holds.

    Raises:
        TemplateError: they can't be compared.
    """
    if sign == "in" and isinstance(second, dict):
        _small(first)
    else:
        _small(first), _small(second)
    try:
        match sign:
            case "==":
                return bool(first == second)
            case "!=":
                return bool(first != second)
            case "in":
                return isinstance(second, (str, list, dict)) and first in second
            case "<":
                return bool(first < second)
            case ">":
                return bool(first > second)
            case "<=":
                return bool(first <= second)
            case _:
                return bool(first >= second)
    except TypeError:
        raise TemplateError(f"{text_of(first)[:20]!r} and {text_of(second)[:20]!r} can't be compared") from None


def calculate(sign: str, first: Any, second: Any) -> Any:
    """The result of an operator.

    Raises:
        TemplateError: there is none.
    """
    if sign == "~" or (sign == "+" and isinstance(first, str) and isinstance(second, str)):
        return (text_of(first) + text_of(second))[:MAX_TEXT]
    left, right = _number(first), _number(second)
    try:
        match sign:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case "/":
                return left / right
            case "//":
                return left // right
            case _:
                return left % right
    except (ArithmeticError, ValueError) as error:
        raise TemplateError(str(error)) from None


def _float(value: Any, default: Any = UNDEFINED) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        if isinstance(default, Undefined):
            raise TemplateError(f"{text_of(value)[:20]!r} is no number") from None
        return default


def _int(value: Any, default: Any = UNDEFINED) -> Any:
    number = _float(value, default)
    return int(number) if isinstance(number, float) and math.isfinite(number) else number


def _round(value: Any, digits: Any = 0, how: Any = "common") -> Any:
    number = _number(_float(value))
    places = digits if isinstance(digits, int) and 0 <= digits <= 12 else 0
    if not math.isfinite(number):
        raise TemplateError("there is no such number")
    if how in ("floor", "ceil"):
        return (math.floor if how == "floor" else math.ceil)(number * 10**places) / 10**places
    rounded = round(number, places)
    return rounded if places else float(rounded)


def _default(value: Any, default: Any = "", also_false: Any = False) -> Any:
    return default if isinstance(value, Undefined) or (also_false is True and not value) else value


def _defined(value: Any) -> Any:
    if isinstance(value, Undefined):
        raise TemplateError("what it asks for is not in the payload")
    return value


def _iif(value: Any, yes: Any = True, no: Any = False) -> Any:
    return yes if is_true(value) else no


def _replace(value: Any, old: Any = "", new: Any = "") -> str:
    text, part, other = text_of(value), text_of(old), text_of(new)
    if part and len(text) + text.count(part) * len(other) > MAX_TEXT:
        raise TemplateError(f"its text would be longer than {MAX_TEXT} characters")
    return text.replace(part, other) if part else text


def _get(value: Any, key: Any = None, default: Any = None) -> Any:
    found = item(value, key)
    return default if isinstance(found, Undefined) else found


def _split(value: Any, separator: Any = None, _most: Any = None) -> list[str]:
    return text_of(value).split(separator if isinstance(separator, str) and separator else None)


def _end(number: int) -> Callable[..., Any]:
    return lambda value, *_: value[number] if isinstance(value, (list, str)) and value else UNDEFINED


def _length(value: Any, *_: Any) -> int:
    return len(value) if isinstance(value, (str, list, dict)) else 0


FILTERS: Mapping[str, Callable[..., Any]] = {
    "float": _float,
    "int": _int,
    "round": _round,
    "default": _default,
    "d": _default,
    "is_defined": lambda value, *_: _defined(value),
    "string": lambda value, *_: text_of(value),
    "lower": lambda value, *_: text_of(value).lower(),
    "upper": lambda value, *_: text_of(value).upper(),
    "title": lambda value, *_: text_of(value).title(),
    "capitalize": lambda value, *_: text_of(value).capitalize(),
    "trim": lambda value, *_: text_of(value).strip(),
    "replace": _replace,
    "abs": lambda value, *_: abs(_number(value)),
    "length": _length,
    "count": _length,
    "first": _end(0),
    "last": _end(-1),
    "iif": _iif,
    "bool": lambda value, *_: text_of(value).lower() in ("true", "yes", "on", "enable", "1"),
    "multiply": lambda value, by=1, *_: calculate("*", _float(value), by),
    "add": lambda value, by=0, *_: calculate("+", _float(value), by),
}
"""Filters, and functions of the same name."""

METHODS: Mapping[str, Callable[..., Any]] = {
    "get": _get,
    "lower": lambda value, *_: text_of(value).lower(),
    "upper": lambda value, *_: text_of(value).upper(),
    "strip": lambda value, *_: text_of(value).strip(),
    "title": lambda value, *_: text_of(value).title(),
    "replace": _replace,
    "split": _split,
    "startswith": lambda value, start="", *_: text_of(value).startswith(text_of(start)),
    "endswith": lambda value, end="", *_: text_of(value).endswith(text_of(end)),
}

TESTS: Mapping[str, Callable[[Any], bool]] = {
    "defined": lambda value: not isinstance(value, Undefined),
    "undefined": lambda value: isinstance(value, Undefined),
    "none": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)),
    "string": lambda value: isinstance(value, str),
    "mapping": lambda value: isinstance(value, Mapping),
    "iterable": lambda value: isinstance(value, (str, list, dict)),
    "true": lambda value: value is True,
    "false": lambda value: value is False,
}

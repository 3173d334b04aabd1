"""Checks of what stands in fleet files and commands; each names what is wrong and what was expected."""

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 1e100
"""What a computation may still square."""


def table(value: object, what: str) -> Mapping[str, Any]:
    """A table.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is a table, not {shown(value)}")
    return value


def tables(value: object, what: str) -> list[Mapping[str, Any]]:
    """A list of tables.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{what} is a list of tables, not {shown(value)}")
    return [table(item, what) for item in value]


def number(value: object, what: str, low: float = -LARGEST, high: float = LARGEST) -> float:
    """A number in a range.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what} is a number, not {shown(value)}")
    if not low <= value <= high:
        raise ValueError(f"{what} is from {low:g} to {high:g}, not {shown(value)}")
    return float(value)


def whole(value: object, what: str, low: int, high: float = math.inf) -> int:
    """A whole number in a range.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        upper = "" if high == math.inf else f" to {high}"
        raise ValueError(f"{what} is a whole number from {low}{upper}, not {shown(value)}")
    return value


def text(value: object, what: str) -> str:
    """A text.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} is a text, not {shown(value)}")
    return value


def known_names(described: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    """Only names that are known.

    Raises:
        ValueError: There is another.
    """
    for name in described:
        if name not in known:
            raise ValueError(f"{what}: unknown {name!r}: known are {', '.join(known)}")


def shown(value: object) -> str:
    """A value for a message, cut short."""
    whole_text = repr(value)
    return whole_text if len(whole_text) <= 60 else whole_text[:60] + "…"

"""The members and numbers of a JSON payload, by path.

Invariant: one idea of what a number is and where a path leads, for all that look into payloads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["BOOKKEEPING", "MAX_DEPTH", "Field", "Path", "is_number", "look_up", "nest", "numbers_of", "project"]


BOOKKEEPING = frozenset({"ts", "seq", "boot"})
"""Members of a sensor's state that number or date it: no measurements, so deadband and aggregates pass them over."""

MAX_DEPTH = 32
"""Levels of nesting that a path of `fields` may have, and in which deadband and aggregates look for numbers."""

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


def project(value: Any, fields: tuple[Field, ...]) -> dict[str, Any] | None:
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


def numbers_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, float]]:
    """The numbers of a payload by path; a bare number has the empty one."""
    if is_number(value):
        yield path, value
    elif isinstance(value, dict) and len(path) < MAX_DEPTH:
        for name, inner in value.items():
            if path or name not in BOOKKEEPING:
                yield from numbers_of(inner, (*path, name))


def nest(results: Mapping[Path, Any]) -> Any:
    """The reverse of `numbers_of`. Where a member was once a number and once an object, the number stands."""
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

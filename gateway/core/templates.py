"""Short texts with places that a message fills: `{topic[1]} has {payload.temperature} °C`.

A place in braces is one of the names that its user allows, `topic[1]` (a level, from 0), `payload`, or
`payload.outdoor.temperature` (a path, as `fields` has them). A brace of the text itself is written twice.

Invariant: a template that exists can be filled whatever comes, in a time that grows with its own length; what is not
there is a question mark, and what is long is cut. Nothing in it calls anything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

from gateway.core.fields import Field, look_up
from gateway.core.messages import encode_json
from gateway.core.paths import PathError

__all__ = ["MAX_TEMPLATE_LENGTH", "Template", "TemplateError", "shown"]

MAX_TEMPLATE_LENGTH = 1_000
MAX_VALUE_LENGTH = 200
"""Characters of one value in a text."""

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LEVEL = re.compile(r"topic\[([0-9]{1,3})\]")


class TemplateError(ValueError):
    """A template can't be had; `way_out` says what to do."""

    def __init__(self, rule: str, way_out: str) -> None:
        super().__init__(f"{rule}; {way_out}")
        self.rule = rule
        self.way_out = way_out


def shown(value: Any, longest: int = MAX_VALUE_LENGTH) -> str:
    """A value as people read it; cut where it has more characters than that."""
    match value:
        case None:
            return "?"
        case str():
            text = value
        case bool():
            text = "true" if value else "false"
        case float() | int():
            text = f"{value:.10g}" if isinstance(value, float) else str(value)
        case _:
            try:
                text = encode_json(value).decode()
            except (RecursionError, TypeError, ValueError):
                return "?"
    text = "".join(char if char.isprintable() else " " for char in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"


class Template:
    """A text with places, taken apart once.

    Attributes:
        text: as it was written.
    """

    __slots__ = ("_longest", "_parts", "text")

    def __init__(
        self, text: str, names: Collection[str], *, longest: int = MAX_VALUE_LENGTH, has_payload: bool = True
    ) -> None:
        """Takes it apart.

        Args:
            text: as it was written.
            names: the places that may be named, besides `topic`, `topic[…]`, `payload` and `payload.…`.
            longest: characters of one value in the text; a longer one is cut.
            has_payload: whether there is a message whose payload may be named.

        Raises:
            TemplateError: it is too long, a brace is open, or a place is not known.
        """
        self.text = text
        self._longest = longest
        if len(text) > MAX_TEMPLATE_LENGTH:
            rule = f"has {len(text)} characters, at most {MAX_TEMPLATE_LENGTH} are allowed"
            raise TemplateError(rule, "make it shorter")
        self._parts: list[str | int | Field | tuple[str]] = []  # text; level; path; name
        at = 0
        for found in _PART.finditer(text):
            self._parts.append(text[at : found.start()])
            at = found.end()
            if found[0] in ("{{", "}}"):
                self._parts.append(found[0][0])
            elif found[1] is None:
                raise TemplateError(f"has a single {found[0]}", "write it twice where it belongs to the text")
            else:
                self._parts.append(_place(found[1].strip(), names, has_payload))
        self._parts.append(text[at:])

    def fill(self, topic: str, payload: Any, values: Mapping[str, Any]) -> str:
        """The text for one message; `payload` is its value, None where there is none."""
        out: list[str] = []
        for part in self._parts:
            match part:
                case str():
                    out.append(part)
                case Field():
                    out.append(shown(look_up(payload, part), self._longest))
                case (name,):
                    found = topic if name == "topic" else payload if name == "payload" else values.get(name)
                    out.append(shown(found, self._longest))
                case level:
                    levels = topic.split("/")
                    out.append(shown(levels[level] if level < len(levels) else None, self._longest))
        return "".join(out)


def _place(name: str, names: Collection[str], has_payload: bool) -> int | Field | tuple[str]:
    if (level := _LEVEL.fullmatch(name)) is not None:
        return int(level[1])
    if has_payload and name.startswith("payload."):
        try:
            return Field.at(name.removeprefix("payload."))
        except PathError as error:
            raise TemplateError(
                f"{{{name[:80]}}}: the path {error}", "write it such as {payload.temperature}"
            ) from None
    known = sorted({"topic", *(["payload"] if has_payload else []), *names})
    if name in known:
        return (name,)
    near = difflib.get_close_matches(name.lower(), known, 1, 0.6)
    if near:
        way_out = f"did you mean {{{near[0]}}}?"
    elif not has_payload:
        way_out = f"there are {', '.join(known)} and topic[1]"
    elif re.fullmatch(r"[\w.\[\]]+", name):
        way_out = f"a member of the payload is {{payload.{name}}}; there are {', '.join(known)} and topic[1]"
    else:
        way_out = f"there are {', '.join(known)}, topic[1] and payload.temperature"
    raise TemplateError(f"names {{{name[:80]}}}, which is no place", way_out)

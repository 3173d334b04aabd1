r"""How the place of a value in a JSON payload is written: `SDS0X1.PM2\.5`, `rx_metadata[0].rssi`.

Names stand from the outside in with a dot between them, the number of an array's item in brackets behind its name. A
backslash stands before what belongs to a name itself and would be read otherwise: `.`, `[`, `]`, `\`, a comma, a space
at either end. `web/dashboard/src/core/paths.ts` is the same for pages; both read `tests/paths.json`.

Invariant: `parse_path(path_text(path)) == path` for every path without empty names. What is at a place is for `fields`.
"""

from __future__ import annotations

import re

__all__ = [
    "MAX_DEPTH",
    "MAX_PATH_LENGTH",
    "Path",
    "PathError",
    "Step",
    "parse_path",
    "path_text",
    "split_paths",
    "without_space",
]


MAX_DEPTH = 32
"""Steps that a path of a client may have; further in no values are looked for."""

MAX_PATH_LENGTH = 4_096
"""Characters of a path of a client."""

Step = str | int
"""The name of a member, or the number of an array's item, at most 99,999."""

Path = tuple[Step, ...]
"""Steps from the outside in; the empty one leads to the payload itself."""

_TOKEN = re.compile(r"\\(.)|\[(0|[1-9][0-9]{0,4})\]|([.\[\]\\])|([^.\[\]\\]+)", re.DOTALL)
_ESCAPED = re.compile(r"[.\[\],\\]|^[ \t\r\n]|[ \t\r\n]\Z")
_UP_TO_COMMA = re.compile(r"(?:[^\\,]|\\.|\\\Z)*+", re.DOTALL)
_SPACE = " \t\r\n"


class PathError(ValueError):
    """A text is no path; the message says why."""

    code = "bad_shape"


def parse_path(text: str) -> Path:
    """Takes a written path apart.

    Raises:
        PathError: it has a bracket or a backslash that means nothing.
    """
    steps: list[Step] = []
    name: str | None = ""  # None behind an item, where no name can go on
    for token in _TOKEN.finditer(text):
        escaped, item, sign, plain = token.groups()
        if item is not None:
            if name is not None and token.start() > 0:
                steps.append(name)
            steps.append(int(item))
            name = None
        elif sign == ".":
            if name is not None:
                steps.append(name)
            name = ""
        elif sign is not None:
            raise PathError(rf"has a {sign} that leads nowhere: an item is written [0], the sign in a name \{sign}")
        elif name is None:
            raise PathError("goes on behind a ] without a dot")
        else:
            name += escaped or plain
    if name is not None:
        steps.append(name)
    return tuple(steps)


def path_text(path: Path) -> str:
    """Writes a path; one with an empty name can't be written where an item follows."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            if parts:
                parts.append(".")
            parts.append(_ESCAPED.sub(r"\\\g<0>", step))
    return "".join(parts)


def split_paths(text: str) -> list[str]:
    """The paths of a list with commas between them, without the space around each."""
    parts: list[str] = []
    at = 0
    while at <= len(text) and (part := _UP_TO_COMMA.match(text, at)):
        parts.append(without_space(part[0]))
        at = part.end() + 1
    return parts


def without_space(text: str) -> str:
    """A path without the space around it; one that a backslash stands before belongs to a name."""
    text = text.lstrip(_SPACE)
    bare = text.rstrip(_SPACE)
    belongs = (len(bare) - len(bare.rstrip("\\"))) % 2  # an odd number of backslashes: the last is for what follows
    return text[: len(bare) + belongs]

"""What docstrings name is there: modules, what they define, and what their classes have."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gateway"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name not in ("static", "pages"))
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}


def texts(path: Path) -> Iterator[str]:
    """Every string of a file that stands as a statement: docstrings, of attributes and constants too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def defined(path: Path) -> set[str]:
    """What a file defines: names, attributes and members, whatever they belong to."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Name(ctx=ast.Store()):
                found.add(node.id)
            case ast.Attribute(ctx=ast.Store()):
                found.add(node.attr)
    return found


MODULES: dict[str, set[str]] = {}
"""By the last part of its name, what each module defines; for a room, its modules."""
for file in FILES:
    MODULES.setdefault(file.stem, set()).update(defined(file))
for room in ROOMS:
    MODULES.setdefault(room, set()).update(file.stem for file in (PACKAGE / room).glob("*.py"))


def unknown(text: str) -> list[str]:
    """The names in backticks that say `module.name` or `room/module` of something that is not there."""
    missing = []
    for name in re.findall(r"`([\w./]+?)(?:\.py|\(\))?`", text):
        parts = re.split(r"[./]", name.removeprefix("gateway/").removeprefix("gateway."))
        known = ROOMS if "/" in name else MODULES.keys()
        if (
            len(parts) > 1
            and parts[0] in known
            and not all(part in MODULES.get(before, {part}) for before, part in itertools.pairwise(parts))
        ):
            missing.append(name)
    return missing


def test_a_name_that_is_gone_is_found() -> None:
    assert unknown("`core/websocket`, `hub.Nobody` and `door.guard.Guard.nothing`") == ["core/websocket", "hub.Nobody"]
    assert not unknown("`core/hub`, `hub.Hub`, `Hub.publish`, `door.guard.Guard`, `a/b`, `json.loads`, `gateway.toml`")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_modules_and_members_that_a_docstring_names_are_there(path: Path) -> None:
    assert not [name for text in texts(path) for name in unknown(text)]

"""The layers of docs/architecture.md: imports point one way, and pure modules stay pure."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gateway"
PAGE = PACKAGE.parent / "docs" / "architecture.md"
ROOMS = [
    "core", "decoders", "archive", "devices", "access", "cluster", "upstream", "transport", "settings", "alerts",
    "door", "runtime", "ops", "routes", "app", "server", "demo", "client", "cli", "__main__",
]  # fmt: skip
"""From the ground up; imports point to the left."""

IMPURE_PACKAGES = {"asyncio", "starlette", "uvicorn", "aiomqtt", "paho", "prometheus_client", "websockets", "socket"}


def name_of(path: Path) -> str:
    """A module's name below `gateway`: `hub`, `ops.samples`; a package's `__init__` has the package's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in PACKAGE.rglob("*.py") if path.parent.name not in ("static", "pages")}
MODULES = sorted(name for name in FILES if name)


def pure_modules() -> list[str]:
    """What the page of the architecture calls pure."""
    rows = re.findall(r"^\| (`[^|]+) \|[^|]*\| yes \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [name.replace("/", ".") for row in rows for name in re.findall(r"`([\w/]+)`", row)]


USED = {
    "gateway": set(),
    "sensors_sim": {"gateway.core"},
    "firmware": {"sensors_sim.payloads"},
    "benchmarks": {"gateway"},
    "scripts": {"gateway"},
}
"""What each package uses of the others."""


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports, for types only included: top-level packages, and `gateway.x` for ours."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] != "gateway":
                found.add(node.module.partition(".")[0])
                continue
            here = node.module.removeprefix("gateway").removeprefix(".")
            for alias in node.names:
                inner = f"{here}.{alias.name}".removeprefix(".")
                found.add(f"gateway.{inner if inner in FILES else here}")
    return frozenset(found)


@cache
def reaches(module: str) -> frozenset[str]:
    """Everything of ours that importing a module brings in."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in imports(todo.pop()):
            ours = name.removeprefix("gateway.")
            if name.startswith("gateway.") and ours in FILES and ours not in seen:
                seen.add(ours)
                todo.append(ours)
    return frozenset(seen)


@pytest.mark.parametrize("module", pure_modules())
def test_pure_modules_know_no_loop_no_socket_and_no_library_of_either(module: str) -> None:
    for name in [module, *reaches(module)]:
        assert not imports(name) & IMPURE_PACKAGES, f"{module} reaches {name}"


@pytest.mark.parametrize("module", MODULES)
def test_no_import_runs_upward(module: str) -> None:
    here = ROOMS.index(module.partition(".")[0])
    above = {name for name in reaches(module) if name and ROOMS.index(name.partition(".")[0]) > here}
    assert not above


@pytest.mark.parametrize("module", MODULES)
def test_no_module_reaches_itself(module: str) -> None:
    assert module not in reaches(module)


@pytest.mark.parametrize("package", USED)
def test_a_package_uses_of_the_others_what_the_page_says(package: str) -> None:
    ours = re.compile(r"(gateway|sensors_sim|firmware|benchmarks|scripts|tests)\b")
    for path in (PACKAGE.parent / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                is_own = name.partition(".")[0] == package or not ours.match(name)
                assert is_own or any(f"{name}.".startswith(f"{used}.") for used in USED[package]), f"{path}: {name}"


def test_each_library_has_its_one_place() -> None:
    assert all(m.startswith("upstream.") for m in MODULES if imports(m) & {"aiomqtt", "paho"})
    assert [m for m in MODULES if "valkey" in imports(m)] == ["cluster.server", "cluster.wire"]
    assert [m for m in MODULES if "prometheus_client" in imports(m)] == ["ops.metrics"]
    assert not any(name.startswith("upstream.") for name in reaches("transport.websockets"))
    assert not any(name.startswith("transport.") for name in reaches("upstream.upstream"))


def test_no_route_reads_settings() -> None:
    readers = {m for m in MODULES if any(name.startswith("gateway.settings.") for name in imports(m))}
    rooms = {name.partition(".")[0] for name in readers}
    assert rooms == {"alerts", "app", "cli", "demo", "runtime", "server", "settings"}


def test_a_file_beyond_five_hundred_lines_says_why() -> None:
    """Tests are lists, and long where there is much to hold."""
    root = PACKAGE.parent
    folders = [PACKAGE, *(root / name for name in ("sensors_sim", "firmware", "scripts", "benchmarks", "examples"))]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    files += [path for name in ("client", "dashboard") for path in (root / "web" / name / "src").rglob("*.*")]
    for path in files:
        if path.is_relative_to(PACKAGE / "static") or path.suffix not in (".py", ".ts", ".tsx", ".css"):
            continue
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 500:
            head = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text.partition("*/")[0]
            assert re.search(r"It is\s+(\*\s+)?long because", head or ""), path

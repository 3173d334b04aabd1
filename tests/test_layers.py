"""The layers of docs/architecture.md: imports point one way, and pure modules stay pure."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gateway"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "__main__"))

PURE = ["topics", "messages", "shapes", "protocol", "history", "selection", "hub", "access", "limits"]
IMPURE_PACKAGES = {"asyncio", "starlette", "uvicorn", "aiomqtt", "paho", "prometheus_client", "websockets", "socket"}
CORE_ORDER = ["topics", "messages", "shapes", "protocol", "history", "selection", "hub"]


def imports(module: str) -> set[str]:
    """What a module imports when it runs: top-level packages, and `gateway.x` for ours."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "gateway":
                found.update([".".join(parts[:2])] if len(parts) > 1 else [f"gateway.{a.name}" for a in node.names])
            else:
                found.add(parts[0])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8")))
    return found


def reaches(module: str) -> set[str]:
    """Everything of ours that importing a module brings in."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in imports(todo.pop()):
            short = name.removeprefix("gateway.")
            if name.startswith("gateway.") and short in MODULES and short not in seen:
                seen.add(short)
                todo.append(short)
    return seen


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_know_no_loop_no_socket_and_no_library_of_either(module: str) -> None:
    for name in [module, *reaches(module)]:
        assert not imports(name) & IMPURE_PACKAGES, f"{module} reaches {name}"


@pytest.mark.parametrize("module", CORE_ORDER)
def test_the_core_imports_only_what_stands_before_it(module: str) -> None:
    allowed = set(CORE_ORDER[: CORE_ORDER.index(module)]) | {"distribution"}
    assert reaches(module) <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_no_module_reaches_itself(module: str) -> None:
    assert module not in reaches(module)


def test_each_library_has_its_one_place() -> None:
    assert [m for m in MODULES if "aiomqtt" in imports(m)] == ["broker"]
    assert [m for m in MODULES if "prometheus_client" in imports(m)] == ["metrics"]
    assert "broker" not in reaches("transport")
    assert "transport" not in reaches("broker")
    assert "settings" not in reaches("websocket") | reaches("topics_api") | reaches("hub") | reaches("broker")

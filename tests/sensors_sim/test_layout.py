"""How the modules of sensors_sim import each other; imports for types alone and those inside functions count."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import sensors_sim

ROOT = Path(sensors_sim.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def imported_by(module: str) -> set[str]:
    """What a module imports: of this project the modules, of others the packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            source = str(node.module)
            names |= {name if (name := f"{source}.{alias.name}") in MODULES else source for alias in node.names}
    return {name if name in MODULES else name.split(".")[0] for name in names}


IMPORTS = {module: imported_by(module) for module in MODULES}


def test_no_module_imports_itself_on_whatever_way() -> None:
    order = list(TopologicalSorter(IMPORTS).static_order())  # CycleError names the circle
    assert set(MODULES) <= set(order)


def test_the_model_knows_of_no_dialect_and_no_network() -> None:
    allowed = {"gateway.core.durations"} | {name for name in MODULES if name.startswith("sensors_sim.model")}
    for module, imports in IMPORTS.items():
        if module.startswith("sensors_sim.model"):
            assert {name for name in imports if name.startswith("sensors_sim")} <= allowed, module
            assert not imports & {"paho", "socket", "ssl", "selectors", "asyncio"}, module


def test_only_what_carries_messages_knows_of_mqtt() -> None:
    knowing = {module.removeprefix("sensors_sim.") for module, imports in IMPORTS.items() if "paho" in imports}
    assert knowing == {"clone", "links", "occupied", "runner"}

"""Fleet files: reading the TOML that describes a fleet, and the ready scenarios.

One invariant: all problems of a file are told at once, each with the device that it is in.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from gateway.core.durations import parse_duration
from sensors_sim.checks import number, shown, tables
from sensors_sim.faults import FaultSpec
from sensors_sim.fleet import DeviceSpec, FleetSpec
from sensors_sim.model.world import Site

_DEVICE_KEYS = (
    "id", "kind", "name", "place", "room", "interval", "count", "dialect", "options", "fault",
    "stream", "status", "constant", "units", "vary",
)  # fmt: skip
_CUSTOM_KEYS = ("stream", "status", "constant", "units", "vary")
_FLEET_KEYS = ("title", "site", "defaults", "device")
_SITE_RANGES = {
    "latitude": (-90, 90),
    "longitude": (-180, 180),
    "altitude": (-500, 9000),
    "mean": (-60, 60),
    "yearly": (0, 60),
    "daily": (0, 60),
}
_DEFAULT_KEYS = ("interval", "kind", "room", "place", "dialect", "fault")


class ScenarioError(ValueError):
    """A fleet file is wrong; the text has a line for each problem."""


def scenario_names() -> list[str]:
    """The ready scenarios."""
    folder = files("sensors_sim") / "scenarios"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_scenario(name: str) -> FleetSpec:
    """A ready scenario by name.

    Raises:
        ScenarioError: There is none of that name.
    """
    if name not in scenario_names():
        raise ScenarioError(f"unknown scenario {name!r}: known are {', '.join(scenario_names())}")
    return parse_fleet((files("sensors_sim") / "scenarios" / f"{name}.toml").read_text(encoding="utf-8"), name)


def load_fleet(path: Path) -> FleetSpec:
    """A fleet file.

    Raises:
        ScenarioError: It can't be read, or is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from None
    return parse_fleet(text, str(path))


def parse_fleet(text: str, source: str = "fleet") -> FleetSpec:
    """Read a fleet file's text.

    Args:
        text: TOML.
        source: What problems are said to be in.

    Raises:
        ScenarioError: It is wrong.
    """
    try:
        described = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{source}: {error}") from None
    except RecursionError:
        raise ScenarioError(f"{source}: arrays or tables are nested too deep") from None
    problems: list[str] = []
    _check_names(described, _FLEET_KEYS, "", problems)
    defaults = described.get("defaults", {})
    if isinstance(defaults, Mapping):
        _check_names(defaults, _DEFAULT_KEYS, "[defaults]: ", problems)
    else:
        problems.append("defaults is a table")
        defaults = {}
    site = _site(described.get("site", {}), problems)
    described_devices = described.get("device", [])
    devices: list[DeviceSpec] = []
    if not isinstance(described_devices, list) or not described_devices:
        problems.append("no [[device]]")
        described_devices = []
    for position, table in enumerate(described_devices, 1):
        where = f"device {position}"
        if not isinstance(table, Mapping):
            problems.append(f"{where} is a table, not {shown(table)}")
            continue
        if isinstance(table.get("id"), str):
            where += f" ({table['id']})"
        devices += _devices({**defaults, **table}, where + ": ", problems)
    title = described.get("title", "")
    if not isinstance(title, str):
        problems.append("title is a text")
    if problems:
        raise ScenarioError("\n".join(f"{source}: {problem}" for problem in problems))
    return FleetSpec(tuple(devices), title, site)


def _check_names(table: Mapping[str, Any], known: tuple[str, ...], where: str, problems: list[str]) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {near[0]!r}?" if near else f": known are {', '.join(known)}"
            problems.append(f"{where}unknown {name!r}{hint}")


def _site(table: object, problems: list[str]) -> Site:
    if not isinstance(table, Mapping):
        problems.append("site is a table")
        return Site()
    names = tuple(item.name for item in fields(Site))
    _check_names(table, names, "[site]: ", problems)
    values = {}
    for name in names:
        if name in table:
            try:
                values[name] = number(table[name], f"[site]: {name}", *_SITE_RANGES[name])
            except ValueError as error:
                problems.append(str(error))
    return Site(**values)


def _devices(table: Mapping[str, Any], where: str, problems: list[str]) -> list[DeviceSpec]:
    before = len(problems)
    _check_names(table, _DEVICE_KEYS, where, problems)
    problems += [
        f"{where}{name} is a text, not {table[name]!r}"
        for name in ("id", "kind", "name", "place", "room", "dialect")
        if not isinstance(table.get(name, ""), str)
    ]
    if not table.get("id"):
        problems.append(f"{where}no id")
    kind = table.get("kind", "climate")
    options = table.get("options", {})
    if not isinstance(options, Mapping):
        problems.append(f"{where}options is a table, not {shown(options)}")
    options = dict(options) if isinstance(options, Mapping) else {}
    for name in _CUSTOM_KEYS:
        if name in table:
            if kind != "custom":
                problems.append(f"{where}{name} is for devices of kind 'custom'")
            options[name] = table[name]
    interval = None
    if "interval" in table:
        try:
            interval = parse_duration(table["interval"])
            if interval <= 0:
                raise ValueError("interval is over 0")
        except ValueError as error:
            problems.append(f"{where}{error}")
    count = table.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 100_000:
        problems.append(f"{where}count is a whole number from 1 to 100000, not {count!r}")
    faults: list[FaultSpec] = []
    try:
        faults = [FaultSpec.parse(described) for described in tables(table.get("fault", ()), "fault")]
    except ValueError as error:
        problems.append(f"{where}{error}")
    if len(problems) > before:
        return []
    base = DeviceSpec(
        table["id"],
        kind,
        table.get("name") or table["id"],
        table.get("place", ""),
        table.get("room", ""),
        interval,
        options,
        tuple(faults),
        table.get("dialect", ""),
    )
    if count == 1:
        return [base]
    return [replace(base, id=f"{base.id}-{number}", name=f"{base.name} {number}") for number in range(1, count + 1)]

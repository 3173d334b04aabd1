"""Settings from environment, file and flags.

Invariant: one call finds every problem, each with the place where it stands and a name that was perhaps meant, and
shows no secret. What a value must be like is in `values` and `table`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.core.durations import duration_text
from gateway.settings.problems import Problem, RuleError, SettingsError, masked
from gateway.settings.rows import KEYS, SETTINGS, Setting
from gateway.settings.table import Settings, Source
from gateway.settings.values import CONFIG_FILE, NOTHING, PREFIX, SECTIONS, without_credentials

__all__ = ["Loaded", "load_settings", "read_settings"]


# Variables with our prefix that are no settings: the file's name, the client commands' own and the test suite's.
_OTHER_VARIABLES = re.compile(r"GATEWAY_(CONFIG|URL|TOKEN|TEST_.*)")
# What Kubernetes sets in each pod for a service called "gateway", or "gateway-" and more; nobody means a setting by it.
_SERVICE_LINKS = re.compile(
    r"GATEWAY(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
"""The value of such a variable that only ends in `_PORT`."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each comes from, and what is wrong with them.

    Attributes:
        settings: the settings in force, with the default in place of each value that is wrong; None if even so they
            can't be made.
        origins: for each setting that was given, the variable, flag or key of the file that gave it.
        problems: everything that is wrong; empty if nothing is.
        config_file: the file that was read; None if there was none.
    """

    settings: Settings | None
    origins: Mapping[str, str]
    problems: tuple[Problem, ...]
    config_file: Path | None


def load_settings(
    overrides: Mapping[str, object] | None = None,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings from file, environment and flags, in rising order.

    Args:
        overrides: values of flags by setting, as text or as values; None stands for a flag that wasn't given.
        config_file: the file to read; None takes `GATEWAY_CONFIG`, or `gateway.toml` here if there is one.
        environ: the environment; None is the process's own.

    Raises:
        SettingsError: something is wrong with them; the text lists every problem.
    """
    loaded = read_settings(overrides, config_file, environ)
    if loaded.problems or loaded.settings is None:
        raise SettingsError(loaded.problems)
    loaded.settings._source = Source(partial(load_settings, overrides, config_file, environ))
    return loaded.settings


def read_settings(
    overrides: Mapping[str, object] | None = None,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Like `load_settings`, but never raises and says where each value comes from."""
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    path, file_values = _read_file(config_file, environ, problems)
    for name, value in without_credentials(file_values).items():
        values[name] = value
        origins[name] = f"{path}: {SETTINGS[name].key}" if SETTINGS[name].kind not in ("table", "tables") else str(path)
    variables = _read_environment(environ, problems)
    # credentials in a URL rank with their URL: they take the place of those from a weaker source
    for name, value in without_credentials({name: value for name, (value, _) in variables.items()}).items():
        values[name] = value
        origins[name] = variables[name if name in variables else _url_of(name)][1]
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    given = {name: _or_nothing(SETTINGS[name], value) for name, value in given.items()}
    for name, value in without_credentials(given).items():
        values[name] = value
        origins[name] = SETTINGS[name if SETTINGS[name].flag or name in given else _url_of(name)].flag or name
    settings = _validate(values, origins, problems)
    order = {name: number for number, name in enumerate(SETTINGS)}
    problems.sort(key=lambda problem: min((order.get(name, -1) for name in problem.names), default=-1))
    return Loaded(settings, origins, tuple(problems), path)


def _or_nothing(row: Setting, value: object) -> object:
    """The value of a flag or a variable, or what stands for nothing if it says so and may."""
    return row.empty if row.empty is not ... and value in ("", NOTHING, [""], [NOTHING]) else value


def _read_file(
    config_file: Path | None, environ: Mapping[str, str], problems: list[Problem]
) -> tuple[Path | None, dict[str, object]]:
    path = config_file or Path(environ.get(PREFIX + "CONFIG") or CONFIG_FILE)
    asked_for = config_file is not None or bool(environ.get(PREFIX + "CONFIG"))
    if not asked_for and not path.exists():
        return None, {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(Problem((), str(path), f"can't be read: {error.strerror}", "give the path of a TOML file"))
        return path, {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(Problem((), str(path), f"is not valid TOML: {error}", 'text is written in quotes: "…"'))
        return path, {}
    values: dict[str, object] = {}

    def take(name: str, where: str, value: object) -> None:
        if name not in SETTINGS:
            problems.append(Problem((), f"{path}: {where}", "is not a setting", _near_miss_in_file(where)))
        elif name in values:
            problems.append(Problem((name,), f"{path}: {where}", "is there twice", "keep one of them"))
        else:
            # not for a secret: an empty one is a mistake
            is_nothing = value == "" and SETTINGS[name].empty is None and SETTINGS[name].kind != "secret"
            values[name] = None if is_nothing else value

    for key, value in data.items():
        if key in SECTIONS and isinstance(value, dict):
            for inner, inner_value in value.items():
                take(f"{key}_{inner}", f"[{key}] {inner}", inner_value)
        else:
            take(key, key, value)
    return path, values


def _near_miss_in_file(where: str) -> str:
    places = {row.key.replace(".NAME", ""): row.key for row in SETTINGS.values()}
    places |= {row.name: row.key for row in SETTINGS.values()} | {section: f"[{section}]" for section in SECTIONS}
    near = difflib.get_close_matches(where, places, 1, 0.7)
    return f"did you mean {places[near[0]]}?" if near else "docs/settings.md lists them all"


def _url_of(name: str) -> str:
    """The setting whose URL had these credentials."""
    return f"{name.rpartition('_')[0]}_url"


def _read_environment(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, tuple[object, str]]:
    values: dict[str, tuple[object, str]] = {}
    variables = {row.variable: row for row in SETTINGS.values()}
    variables_of_files = {f"{row.variable}_FILE": row for row in SETTINGS.values() if row.kind == "secret"}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        value = environ[variable]
        if variable in variables:
            # Compose passes ${NAME:-} on as an empty variable
            if value:
                row = variables[variable]
                values[row.name] = _or_nothing(row, value), variable
        elif variable in variables_of_files:
            row = variables_of_files[variable]
            if environ.get(row.variable):
                rule = f"{row.variable} is set, too"
                problems.append(Problem((row.name,), variable, rule, "keep one of them"))
            elif value:
                try:
                    values[row.name] = Path(value).read_text(encoding="utf-8").rstrip("\r\n"), variable
                except (OSError, UnicodeDecodeError) as error:
                    reason = error.strerror if isinstance(error, OSError) else "it is not text"
                    rule = f"can't be read: {reason}"
                    problems.append(Problem((row.name,), variable, rule, "give the path of a file", repr(value)))
        elif not (_OTHER_VARIABLES.fullmatch(variable) or _is_service_link(variable, value)):
            # no value: it may well be a secret under a misspelt name
            # without the prefix, which would make everything alike
            names = [name.removeprefix(PREFIX) for name in (*variables, *variables_of_files)]
            near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, 1, 0.75)
            way_out = f"did you mean {PREFIX}{near[0]}?" if near else "docs/settings.md lists them all"
            problems.append(Problem((), variable, "is not a setting", way_out))
    return values


def _is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes set this for a service whose name begins as our variables do."""
    is_port = variable.endswith("_PORT") and _SERVICE_LINK.fullmatch(value) is not None
    return is_port or _SERVICE_LINKS.fullmatch(variable) is not None


def _validate(values: dict[str, object], origins: Mapping[str, str], problems: list[Problem]) -> Settings | None:
    """The settings, with the default in place of each wrong value; what is wrong is added to `problems`."""
    between: list[Problem] = []
    bad: set[str] = set()
    settings: Settings | None = None
    while settings is None:
        between.clear()
        given = {name: value for name, value in values.items() if name not in bad}
        try:
            settings = Settings.model_validate(given, context=between)
        except ValidationError as error:
            found = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
            if not found - bad:
                return None
            # a list is too short only because its items were bad: one problem, not two
            parents = {item["loc"][:end] for item in error.errors() for end in range(1, len(item["loc"]))}
            problems += [
                _problem(item, values, origins)
                for item in error.errors()
                if not (item["type"] == "too_short" and item["loc"] in parents)
            ]
            bad |= found
    for problem in between:
        # what an unusable value would have changed can't be judged
        if not bad.intersection(problem.names):
            where = ", ".join(dict.fromkeys(origins.get(name, name) for name in problem.names if name in origins))
            problems.append(Problem(problem.names, where or problem.where, problem.rule, problem.way_out))
    return settings


def _problem(error: Any, values: Mapping[str, object], origins: Mapping[str, str]) -> Problem:
    """A problem in our words from an error of pydantic's."""
    name = str(error["loc"][0])
    row = SETTINGS[name]
    inner = [str(part) for part in error["loc"][1:]]
    cause = error.get("ctx", {}).get("error")
    value = values.get(name)
    for part in error["loc"][1:]:
        if isinstance(value, dict) and part in value:
            value = value[part]
    way_out: str | None = None
    if isinstance(cause, RuleError):
        rule, way_out = cause.rule, cause.way_out
    elif error["type"] in ("greater_than_equal", "less_than_equal"):
        rule = f"must be in the range {row.bounds}"
        if inner:
            limit = error["ctx"].get("ge", error["ctx"].get("le"))
            rule = f"must be {'at least' if 'ge' in error['ctx'] else 'at most'} {duration_text(limit)}"
    elif error["type"] == "literal_error":
        bounds = str(error["ctx"]["expected"]).replace(" or ", ", ").replace("'", "") if inner else row.bounds
        near = difflib.get_close_matches(str(value).lower(), bounds.split(", "), 1)
        rule, way_out = f"must be one of {bounds}", f"did you mean {near[0]}?" if near else None
    elif error["type"] == "extra_forbidden":
        keys = KEYS[name]
        near = difflib.get_close_matches(inner[-1], keys, 1, 0.6)
        rule, way_out = f"has no key {inner[-1]!r}", f"did you mean {near[0]}?" if near else f"it has {', '.join(keys)}"
    elif error["type"] == "missing":
        rule = f"lacks {inner[-1]!r}"
    else:
        expected = {
            "int": "a whole number",
            "float": "a number",
            "bool": "true or false",
            "string": "text",
            "tuple": "a list",
            "dict": "a table",
            "model": "a table",
            "path": "a path",
            "too": "a list with at least one item",
        }.get(error["type"].partition("_")[0])
        rule = f"must be {expected}" if expected else str(error["msg"])
    if name == "port" and str(value).startswith("tcp://"):
        way_out = "Kubernetes sets this for a service called 'gateway': turn enableServiceLinks off for the pod"
    if way_out is None:
        way_out = f"the default is {row.default}" if row.default and not inner else "docs/settings.md has examples"
    shown = None if row.kind in ("secret", "table", "tables") or value is None else masked(repr(value))[:200]
    where = origins.get(name, name)
    if row.kind == "tables" and inner:
        parts = " ".join(part for part in inner[1:] if not part.isdecimal())
        where += f": {row.key} rule {int(inner[0]) + 1} {parts}".rstrip()
    elif row.kind == "table" and inner:
        where += f": [{name}.{inner[0]}] {' '.join(part for part in inner[1:] if not part.isdecimal())}".rstrip()
    return Problem((name,), where, rule, masked(way_out), shown)

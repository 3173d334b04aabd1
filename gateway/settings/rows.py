"""The table of settings as rows: variable, key of the file, flag, default, bounds and help of each.

Invariant: all of it is derived from the fields of `Settings`, so that flags, documents and checks can't fall behind.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from gateway.core.durations import duration_text
from gateway.settings.problems import masked
from gateway.settings.table import Settings
from gateway.settings.values import (
    MAY_BE_EMPTY,
    PREFIX,
    SECTIONS,
    OptionalDuration,
    format_size,
    parse_size,
    read_duration,
)

__all__ = ["KEYS", "SETTINGS", "Setting", "markdown"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        name: the field of `Settings`.
        kind: text, number, size, duration, switch, choice, list, file, secret, table (of tables by name) or tables (a
            list of them).
        default: as a user would write it; empty for none.
        bounds: the least and the greatest value, or the choices, as a user would write them; empty for none.
        help: what it does.
        empty: its value where it is left empty; `...` where it must not be.
        flag: its flag of `gateway serve`. A secret has none, because everyone on a machine can see the command lines
            of its processes; tables have none either.
    """

    name: str
    kind: str
    default: str
    bounds: str
    help: str
    flag: str | None
    empty: object

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def key(self) -> str:
        """Its place in the file: `port`, `[mqtt] url`, `[streams.NAME]`, `[[archive.keep]]` or `[[alerts]]`."""
        if self.kind == "table":
            return f"[{self.name}.NAME]"
        section, _, rest = self.name.partition("_")
        if self.kind == "tables":
            return f"[[{section}.{rest}]]" if section in SECTIONS else f"[[{self.name}]]"
        return f"[{section}] {rest}" if section in SECTIONS else self.name

    def show(self, value: object) -> str:
        """A value as a user would write it; of a secret only that it is set."""
        if value is None or value == () or value == "":
            return ""
        if self.kind == "secret":
            return "(set, not shown)"
        return masked(self._as_text(value))

    def _as_text(self, value: object) -> str:
        match value:
            case bool():
                return "true" if value else "false"
            case int() if self.kind == "size":
                return format_size(value)
            case int() | float() if self.kind == "duration":
                return duration_text(value)
            case tuple() | list() if self.kind == "tables":
                return ", ".join(getattr(item, "name", None) or " ".join(item.topics) for item in value)
            case tuple() | list():
                return ", ".join(str(item) for item in value)
            case dict():
                return ", ".join(value)
            case _:
                return str(value)


def _kind(annotation: Any) -> str:
    """The kind, as in `Setting.kind`, that a type annotation of `Settings` stands for."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _kind(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _kind(next(item for item in typing.get_args(annotation) if item is not type(None)))
    names: dict[Any, str] = {bool: "switch", int: "number", float: "number", Path: "file", SecretStr: "secret"}
    if origin is Literal:
        return "choice"
    if origin is tuple and isinstance(inner := typing.get_args(annotation)[0], type) and issubclass(inner, BaseModel):
        return "tables"
    return {tuple: "list", dict: "table"}.get(origin) or names.get(annotation, "text")


def _rows() -> Iterator[Setting]:
    parsers: dict[Any, str] = {parse_size: "size", read_duration: "duration"}
    hints = typing.get_type_hints(Settings, include_extras=True)
    for name, field in Settings.model_fields.items():
        kind = "duration" if hints[name] is OptionalDuration else _kind(hints[name])
        for item in field.metadata:
            kind = parsers.get(getattr(item, "func", None), kind)
        row = Setting(name, kind, "", "", "", None, ...)
        least = next((row.show(item.ge) for item in field.metadata if isinstance(item, Ge)), "")
        most = next((row.show(item.le) for item in field.metadata if isinstance(item, Le)), "")
        bounds = f"{least} – {most}" if least or most else ""
        if kind == "choice":
            bounds = ", ".join(typing.get_args(hints[name]))
        default = field.default or None if kind == "table" else field.default
        flag = None if kind in ("secret", "table", "tables") else "--" + name.replace("_", "-")
        if isinstance(field.json_schema_extra, dict):
            flag = str(field.json_schema_extra.get("flag", flag))
        empty = _empty(kind, field, hints[name])
        yield Setting(name, kind, row.show(default), bounds, field.description or "", flag, empty)


def _empty(kind: str, field: FieldInfo, hint: Any) -> object:
    """What stands for nothing; `...` where there must be something."""
    if kind in ("list", "table", "tables"):
        is_needed = any(isinstance(item, MinLen) for item in field.metadata)
        return ... if is_needed else {} if kind == "table" else ()
    if type(None) in _leaves(hint):
        return None
    return "" if field.default == "" or field.json_schema_extra == MAY_BE_EMPTY else ...


def _leaves(hint: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    inner = typing.get_args(hint)[:1] if typing.get_origin(hint) is Annotated else typing.get_args(hint)
    yield from (leaf for item in inner for leaf in _leaves(item)) if inner else (hint,)


SETTINGS: Mapping[str, Setting] = {row.name: row for row in _rows()}


def _keys() -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, hint in typing.get_type_hints(Settings, include_extras=True).items():
        for leaf in _leaves(hint):
            if isinstance(leaf, type) and issubclass(leaf, BaseModel):
                yield name, tuple(field.alias or key for key, field in leaf.model_fields.items())


KEYS: Mapping[str, tuple[str, ...]] = dict(_keys())
"""What a table of each setting that is made of tables may have."""


def markdown() -> str:
    """The table for docs/settings.md."""
    titles = {
        "mqtt": "Broker",
        "history": "History",
        "archive": "Archive",
        "cluster": "Cluster",
        "alert": "Alerts",
        "flash": "Boards",
        "access": "Access",
        "limit": "Limits",
        "table": "Tables",
        "": "Server",
    }
    lines: list[str] = []
    last = None
    for row in SETTINGS.values():
        section = row.name.partition("_")[0]
        title = titles["table"] if row.kind in ("table", "tables") else titles.get(section, titles[""])
        if title != last:
            lines += ["", f"### {title}", "", "| variable, flag | in the file | default | |", "|---|---|---|---|"]
            last = title
        names = f"`{row.variable}`" + (f"<br>`{row.flag}`" if row.flag else "")
        bounds = f" ({row.bounds})" if row.bounds else ""
        lines.append(f"| {names} | `{row.key}` | {f'`{row.default}`' if row.default else ''} | {row.help}{bounds} |")
    return "\n".join(lines[1:]) + "\n"

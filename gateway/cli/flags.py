"""Flags that several commands share: those made from the table of settings, and those that name a running gateway."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gateway.settings.rows import SETTINGS, Setting

_METAVARS = {
    "text": "TEXT",
    "number": "NUMBER",
    "size": "SIZE",
    "duration": "TIME",
    "list": "ITEM",
    "file": "FILE",
}
_PANELS = {
    "mqtt": "Broker",
    "history": "History",
    "access": "Access",
    "limit": "Limits",
    "log": "Log",
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command a flag for every setting that has one.

    Args:
        command: takes a dict of the values that were given, by setting (`overrides`), and the path of the file or
            None (`config`); any further parameters are its own.
    """

    def run(**values: Any) -> None:
        overrides = {name: values.pop(name) for name in SETTINGS if name in values}
        command(overrides={name: value for name, value in overrides.items() if value not in (None, [])}, **values)

    own = [item for item in inspect.signature(command, eval_str=True).parameters.values() if item.name != "overrides"]
    parameters = own + [_parameter(row) for row in SETTINGS.values() if row.flag]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    return run


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The settings file; otherwise GATEWAY_CONFIG, or gateway.toml in the current directory if there is one.",
    ),
]

Url = Annotated[
    str,
    typer.Option(
        "--url", "-u", envvar="GATEWAY_URL", metavar="URL", help="The gateway: ws://, wss://, http:// or https://."
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="GATEWAY_TOKEN",
        metavar="TOKEN",
        help="Access token; the variable is safer, since everyone on a machine can see its command lines.",
        show_envvar=True,
    ),
]


def _parameter(row: Setting) -> inspect.Parameter:
    assert row.flag is not None  # noqa: S101  chosen by the caller
    names = row.flag
    annotation: Any = str | None
    if row.kind == "switch":
        names = f"{row.flag}/--no-{row.flag[2:]}"
        annotation = bool | None
    elif row.kind == "list":
        annotation = list[str] | None
    repeated = "; may be repeated" if row.kind == "list" else ""
    notes = "; ".join(text for text in (row.bounds, f"default {row.default}" if row.default else "") if text)
    option = typer.Option(
        names,
        metavar=None if row.kind == "switch" else _METAVARS.get(row.kind, "NAME"),
        help=f"{row.help}{repeated}.{f' ({notes})' if notes else ''}",
        show_default=False,
        rich_help_panel=_PANELS.get(row.name.partition("_")[0], "Server"),
    )
    return inspect.Parameter(
        row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def fail(message: object, code: int = 1) -> NoReturn:
    """Ends the command with a message on standard error."""
    print(f"gateway: {message}", file=sys.stderr)
    raise typer.Exit(code)

"""The command `gateway`: one module for each command, and the rules that they share.

Invariant: whatever goes wrong, a command ends with one clear message and an exit code, never a traceback: 0 done, 1 it
couldn't be done, 2 wrong settings or arguments, 27 out of time, 130 interrupted. A command imports what it
needs when it runs, so that `gateway sub` doesn't load a server.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import archive, check, demo, explain, pub, record, revoke, serve, sub, token

__all__ = ["app", "main"]

app = typer.Typer(
    name="gateway",
    help="Relays messages from an MQTT broker to browsers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (serve, demo, sub, pub, record, check, token, revoke, explain, archive):
    module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gateway {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def open_closed_streams() -> None:
    """Gives this process the standard streams that it was started without (`gateway serve 2>&-`).

    A socket must not get the number of one of them: whatever writes to "standard error" would write to a client. What
    would go to a missing standard error is said on standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = sys.stdout


def main() -> None:
    """Runs the command line of this process."""
    open_closed_streams()
    try:
        app(prog_name="gateway")
    except KeyboardInterrupt:
        sys.exit(130)

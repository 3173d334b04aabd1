"""`gateway serve`: the gateway, until it is told to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn

import typer

from gateway.cli.flags import ConfigFile, fail, with_settings


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve")(with_settings(serve))


def serve(overrides: Mapping[str, object], config: ConfigFile = None) -> None:
    """Relay messages from the broker to browsers, until interrupted.

    Every setting can also be a GATEWAY_… variable or stand in gateway.toml; flags win, then variables, then the file.
    Passwords and secrets have no flag. `gateway check` shows the settings in force.
    """
    from gateway.ops.logs import set_up_logging
    from gateway.settings.loading import load_settings
    from gateway.settings.problems import SettingsError
    from gateway.transport.sockets import ListenError, listen

    try:
        settings = load_settings(overrides, config)
        sockets = [listen(settings.host, settings.port)]
    except (SettingsError, ListenError) as error:
        fail(error, 2)
    from gateway import server
    from gateway.archive.failures import ArchiveError
    from gateway.cluster.server import RefusedError

    try:
        set_up_logging(settings.log_format, settings.log_level, file=settings.log_file)
    except OSError as error:
        fail(f"log_file {str(settings.log_file)!r} can't be written: {error.strerror}", 2)
    # the server stops in order at a signal and then raises it again: to end on request is no failure
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        server.serve(settings, sockets=sockets)
    except (ArchiveError, RefusedError) as error:
        fail(error, 2)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)

"""`gateway serve`: the gateway, until it is told to stop."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import typer

from gateway.cli.flags import ConfigFile, fail, with_settings

if TYPE_CHECKING:
    from gateway.settings.table import Settings


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve")(with_settings(serve))


def serve(overrides: Mapping[str, object], config: ConfigFile = None) -> None:
    """Relay messages from the broker to browsers, until interrupted.

    Every setting can also be a GATEWAY_… variable or stand in gateway.toml; flags win, then variables, then the file.
    Passwords and secrets have no flag. `gateway check` shows the settings in force.
    """
    from gateway.cli.workers import supervise
    from gateway.ops.logs import set_up_logging
    from gateway.settings.loading import load_settings
    from gateway.settings.problems import SettingsError
    from gateway.transport.sockets import ListenError, listen

    try:
        settings = load_settings(overrides, config)
        is_shared = settings.workers > 1
        sockets = [listen(settings.host, settings.port, is_shared=is_shared, is_reserved=is_shared)]
    except (SettingsError, ListenError) as error:
        fail(error, 2)
    try:
        set_up_logging(settings.log_format, settings.log_level, file=settings.log_file)
    except OSError as error:
        fail(f"log_file {str(settings.log_file)!r} can't be written: {error.strerror}", 2)
    if not is_shared:
        _serve(settings, sockets)
        return
    port = sockets[0].getsockname()[1]

    def work(number: int) -> int:
        node = settings.cluster_node and f"{settings.cluster_node}-{number}"
        own = settings.model_copy(
            update={
                "cluster_node": node,
                "port": port,
                "archive_file": _file_of(settings.archive_file, number),
                "access_revocations": settings.revocation_file,  # one for all
            }
        )
        try:
            _serve(own, [listen(settings.host, port, is_shared=True)])
        except typer.Exit as ended:
            return ended.exit_code
        return 0

    if code := supervise(settings.workers, work):
        raise typer.Exit(code)


def _file_of(archive: Path | None, number: int) -> Path | None:
    """Each worker has a file of its own; that of the first is the one of a gateway alone."""
    return archive.with_stem(f"{archive.stem}-{number}") if archive is not None and number else archive


def _serve(settings: Settings, sockets: list[socket.socket]) -> None:
    """Serves until a signal."""
    from gateway import server
    from gateway.archive.failures import ArchiveError
    from gateway.cli.workers import until_orphaned
    from gateway.cluster.server import RefusedError

    # the server stops in order at a signal and then raises it again: to end on request is no failure
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        server.serve(settings, sockets=sockets, on_started=until_orphaned)
    except (ArchiveError, RefusedError) as error:
        fail(error, 2)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)

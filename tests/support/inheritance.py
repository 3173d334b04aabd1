"""What a process gets from its parent, put back to what a terminal would give: tests and what they start rely on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

HANDLERS: dict[signal.Signals, signal.Handlers | Callable[[int, FrameType | None], None]] = {
    signal.SIGINT: signal.default_int_handler,  # a shell without job control starts `command &` deaf to it
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,  # nohup
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGCHLD: signal.SIG_DFL,  # ignored, it would hide every exit code
    signal.SIGALRM: signal.SIG_DFL,
    signal.SIGUSR1: signal.SIG_DFL,
    signal.SIGUSR2: signal.SIG_DFL,
}
PREFIXES = ("GATEWAY_", "SENSORS_SIM_")
DISPLAY = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TERMINAL_WIDTH")


def forget_parent() -> None:
    """Hears and blocks no other signals, makes files for others to read, and knows no settings of the gateway.

    The tests' own variables (`GATEWAY_TEST_…`) stay.
    """
    for number, handler in HANDLERS.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    for name in list(os.environ):
        if name in DISPLAY or (name.startswith(PREFIXES) and not name.startswith("GATEWAY_TEST_")):
            del os.environ[name]

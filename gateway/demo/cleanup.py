"""`python -m gateway.demo.cleanup FOLDER`: ends the processes of a demo that was killed, and removes its folder.

It reads `+PID` and `-PID` lines, of processes that began and ended, until its input ends. That happens when whoever
holds the other end is gone, however it went, which nobody can say of itself after SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable

STOP_SECONDS = 5.0


def clean_up(lines: Iterable[str], folder: str) -> None:
    """Waits for the end of the lines, then ends every process that began and did not end, and removes the folder."""
    pids: list[int] = []
    for line in lines:
        pid = int(line[1:])
        if line[0] == "+":
            pids.append(pid)
        else:
            pids.remove(pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_SECONDS
        # the last that began first: a broker goes after those who use it
        for pid in reversed(pids):
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        while pids and time.monotonic() < deadline:
            pids = [pid for pid in pids if _exists(pid)]
            time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


if __name__ == "__main__":
    clean_up(sys.stdin, sys.argv[1])

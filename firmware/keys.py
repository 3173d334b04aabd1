"""The keys that sign updates, one for each board: made when it is flashed, kept in a file of the user's own.

One invariant: nobody but its owner may read the file, and a key that is in it is never replaced here: the board has it,
too. Of two lines for one board the later one counts: the page that flashes makes a new key for a board that it has
written anew, and the gateway adds it (gateway/routes/flashing.py).

It leaves to others: signing (updates.py) and checking (board/update.py).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

VARIABLE = "SENSORS_KEYS"


def file() -> Path:
    """Where the keys are: the file that `SENSORS_KEYS` names, else one in the user's folder of settings."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sensors-flash" / "keys"


def load() -> dict[str, str]:
    """Sensor's id to key, in 64 hexadecimal digits; empty where there is no file."""
    try:
        lines = file().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return {words[0]: words[1] for line in lines if len(words := line.split()) == 2}


def of(sensor_id: str) -> str:
    """The board's key; one is made when it has none."""
    known = load()
    if sensor_id not in known:
        path = file()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        known[sensor_id] = secrets.token_hex(32)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as keys:
            keys.write(f"{sensor_id} {known[sensor_id]}\n")
    return known[sensor_id]

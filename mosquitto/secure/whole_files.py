"""Writes files for the programs beside it: each is there whole or not at all, and secret from its first moment on."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Writes a file, which stays with its former owner; a secret one only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644), "wb") as file:
        file.write(data)
    if path.exists():
        # who reads the old file must be able to read the new one
        status = path.stat()
        if (status.st_uid, status.st_gid) != (os.getuid(), os.getgid()) and os.getuid() == 0:
            os.chown(new, status.st_uid, status.st_gid)
    new.replace(path)

"""Why the archive can't be used, in words and by kind.

Invariant: whatever SQLite or the system says becomes one of these kinds, so that logs, events, metrics and explanations
name the same. What is done about it is for `file` and `writer`.
"""

from __future__ import annotations

import enum
import sqlite3

from gateway.archive.blocks import BlockError

__all__ = ["ArchiveError", "Trouble", "trouble_of"]


class Trouble(enum.StrEnum):
    """What is wrong with the archive."""

    IN_USE = "in_use"
    """Another gateway has it open."""
    FULL = "full"
    """The file system has no room."""
    READ_ONLY = "read_only"
    """It may not be written."""
    IO = "io"
    """The system could not read or write."""
    NEWER = "newer"
    """A newer version of the gateway made it."""
    FOREIGN = "foreign"
    """It is a database of something else."""
    CORRUPT = "corrupt"
    """It is damaged."""
    SLOW = "slow"
    """Writing takes longer than messages can wait for it."""


class ArchiveError(Exception):
    """The archive can't be used.

    Attributes:
        trouble: of which kind it is.
    """

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble


_BY_CODE = {
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_READONLY: Trouble.READ_ONLY,
    sqlite3.SQLITE_PERM: Trouble.READ_ONLY,
    sqlite3.SQLITE_AUTH: Trouble.READ_ONLY,
    sqlite3.SQLITE_CORRUPT: Trouble.CORRUPT,
    sqlite3.SQLITE_NOTADB: Trouble.CORRUPT,
}


def trouble_of(error: Exception) -> ArchiveError:
    """What an exception of SQLite, of the system or of a block says."""
    if isinstance(error, ArchiveError):
        return error
    if isinstance(error, BlockError):
        return ArchiveError(Trouble.CORRUPT, str(error))
    if isinstance(error, PermissionError):
        return ArchiveError(Trouble.READ_ONLY, error.strerror or str(error))
    code = getattr(error, "sqlite_errorcode", None)
    trouble = Trouble.IO if code is None else _BY_CODE.get(code & 0xFF, Trouble.IO)
    name = getattr(error, "sqlite_errorname", None)
    return ArchiveError(trouble, f"{error} ({name})" if name else str(error))

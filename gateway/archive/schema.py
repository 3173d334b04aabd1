"""The tables of the file, and the way from each form of them to the next.

Invariant: a file of any earlier form becomes one of now, within the transaction in which it is opened. What the tables
mean is in the docstring of the package.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from gateway.archive.rollup_rows import ROLLUP_TABLES, TEXT_TABLES
from gateway.archive.rollups import LEVELS

__all__ = ["APPLICATION_ID", "UPGRADES"]

APPLICATION_ID = 0x4D516757
"""SQLite's mark of whose file it is (`PRAGMA application_id`)."""


def _create(connection: sqlite3.Connection) -> None:
    """Schema version 1."""
    for statement in (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        "CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        """CREATE TABLE blocks (first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, min_time INTEGER NOT NULL,
            max_time INTEGER NOT NULL, topics BLOB NOT NULL, data BLOB NOT NULL)""",
        "CREATE TABLE steps (first_seq INTEGER PRIMARY KEY)",
        "CREATE TABLE holes (first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, reason TEXT NOT NULL)",
        "CREATE TABLE snapshot (part INTEGER PRIMARY KEY, data BLOB NOT NULL)",
        *ROLLUP_TABLES,
    ):
        connection.execute(statement)


def _let_thin(connection: sqlite3.Connection) -> None:
    """Schema version 2: blocks in which numbers are missing, and how far each rule of retention came."""
    connection.execute("ALTER TABLE blocks ADD COLUMN count INTEGER")
    first, time_ms = connection.execute("SELECT min(first_seq), min(min_time) FROM blocks").fetchone()
    if first is not None and first > 1:  # since when roll-ups were there is not known
        rows = ((f"since_{level.name}", time_ms) for level in LEVELS)
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
    connection.execute(
        """CREATE TABLE thinned (topics TEXT NOT NULL, others TEXT NOT NULL, level TEXT NOT NULL,
            until INTEGER NOT NULL, cursor INTEGER NOT NULL, PRIMARY KEY (topics, others, level)) WITHOUT ROWID"""
    )


def _draw_texts(connection: sqlite3.Connection) -> None:
    """Schema version 3: roll-ups of texts. Of what came before there are none."""
    for statement in TEXT_TABLES:
        connection.execute(statement)


UPGRADES: tuple[Callable[[sqlite3.Connection], None], ...] = (_create, _let_thin, _draw_texts)
"""What brings a file from the version that is its place here to the next one."""

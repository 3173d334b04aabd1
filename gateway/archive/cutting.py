"""The newest messages taken out of the file again: a shared log that lost them goes on under another epoch.

Invariant: within the caller's transaction everything above one number goes from blocks, holes, steps and snapshot, and
nothing up to it. Roll-ups keep what they have of it: that did happen.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib

from gateway.archive.blocks import BlockError, decode_states, encode_states, repack
from gateway.archive.rows import Rows

__all__ = ["cut"]

logger = logging.getLogger(__name__)


def cut(connection: sqlite3.Connection, until: int) -> None:
    """Takes what is behind the number `until` out of the tables."""
    connection.execute("UPDATE meta SET value = min(value, ?) WHERE key IN ('rolled', 'joined')", (until,))
    connection.execute("DELETE FROM blocks WHERE first_seq > ?", (until,))
    query = "SELECT first_seq FROM blocks WHERE last_seq > ? ORDER BY first_seq DESC LIMIT 1"
    if (found := connection.execute(query, (until,)).fetchone()) is not None:
        _cut_block(connection, found[0], until)
    connection.execute("DELETE FROM steps WHERE first_seq > ?", (until,))
    connection.execute("DELETE FROM holes WHERE first_seq > ?", (until,))
    connection.execute("UPDATE holes SET last_seq = ? WHERE last_seq > ?", (until, until))
    _cut_snapshot(connection, until)


def _cut_block(connection: sqlite3.Connection, first: int, until: int) -> None:
    try:
        block = Rows(connection).read(first)
    except BlockError as error:
        logger.error("the messages from %d on of the archive can't be read: %s", first, error)
        connection.execute("DELETE FROM blocks WHERE first_seq = ?", (first,))
        return
    places = block.select(lambda _: True, 0, until)
    topics, data, count = repack([(block, places)], first, until)
    connection.execute(
        "UPDATE blocks SET last_seq = ?, topics = ?, data = ?, count = ? WHERE first_seq = ?",
        (until, topics, data, None if count == until - first + 1 else count, first),
    )
    if places:
        times = min(block.times[at] for at in places), max(block.times[at] for at in places)
        connection.execute("UPDATE blocks SET min_time = ?, max_time = ? WHERE first_seq = ?", (*times, first))


def _cut_snapshot(connection: sqlite3.Connection, until: int) -> None:
    """Of topics whose newest message goes no more is known than blocks say."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'snapshot'").fetchone()
    if row is None or row[0] <= until:
        return
    for part, data in connection.execute("SELECT part, data FROM snapshot").fetchall():
        try:
            as_published, states = decode_states(data)
        except BlockError as error:
            logger.error("a part of the snapshot can't be read: %s", error)
            connection.execute("DELETE FROM snapshot WHERE part = ?", (part,))
            continue
        left = encode_states(as_published, [state for state in states if state.last.seq <= until])
        connection.execute("UPDATE snapshot SET data = ? WHERE part = ?", (zlib.compress(left), part))
    connection.execute("UPDATE meta SET value = ? WHERE key = 'snapshot'", (until,))

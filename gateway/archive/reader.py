"""The reader: a thread that reads the file for those who ask for more than memory has.

Invariant: a question is read for about 20 milliseconds and answered with what was found by then, so that addresses take
turns; two questions at most are with the thread, the others wait in the loop, in a line by address. It reads what is on
the disk; what waits for that is `archive`'s.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gateway.archive.blocks import Block, BlockError, decode_ids
from gateway.archive.file import connect
from gateway.archive.keeping import is_thinned
from gateway.archive.rollup_rows import RollupReader, RollupWriter
from gateway.archive.rows import BlockRow, Rows
from gateway.core.beyond import Asked, Drawn, Part
from gateway.core.filters import FilterSet
from gateway.core.messages import encode_topic
from gateway.core.points import Grid, Points
from gateway.core.rotation import Rotation
from gateway.core.texts import TextPoints

__all__ = ["Reader"]

logger = logging.getLogger(__name__)

READ_SECONDS = 0.02
"""So long a question is read before it is answered."""

AT_A_TIME = 2
"""Questions that are with the thread: one that is read, and one more so that it need not wait for the loop."""

MAX_BLOCKS_BYTES = 16 * 2**20
"""Blocks that are kept unpacked: what is asked for next is often in the one that was read last."""

MAX_FILTERS = 64
MAX_MATCHES = 200_000
"""For so many sets of filters, and so many topics in each, it is remembered which match."""

T = TypeVar("T")

_Question = Callable[[], Any]


class Reader:
    """Reads an archive in a thread of its own.

    Attributes:
        questions: how many were answered.
        messages: how many messages were read for them.
        failures: blocks and questions that could not be read.
    """

    def __init__(self, path: Path, *, call_soon_threadsafe: Callable[..., Any]) -> None:
        """Starts the thread.

        Args:
            path: the file.
            call_soon_threadsafe: runs a function in the loop, with arguments.
        """
        self.questions = 0
        self.messages = 0
        self.failures = 0
        self._path = path
        self._call_soon_threadsafe = call_soon_threadsafe
        # the loop's
        self._line: Rotation[tuple[Asked[Any], _Question, Any]] = Rotation()
        self._under_way = 0
        # the thread's
        self._rows: Rows | None = None
        self._connection: sqlite3.Connection | None = None
        self._blocks: OrderedDict[tuple[int, int, int | None], Block] = OrderedDict()
        self._blocks_bytes = 0
        self._matches: OrderedDict[FilterSet, dict[int, bool]] = OrderedDict()
        self._heads: dict[int, tuple[str, bytes]] = {}
        self._queue: queue.SimpleQueue[tuple[Asked[Any], _Question, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="archive reader", daemon=True)
        self._thread.start()

    # the loop's side

    def read(
        self, filters: FilterSet, after: int, until: int, max_bytes: int, key: str | None, backwards: bool
    ) -> Asked[Part]:
        """See `Beyond.read`; what can't be read is left out, and the part says so."""
        work = self._read_back if backwards else self._read
        lost = Part([], after if backwards else until, is_whole=False)
        return self._ask(lambda: self._as_of_now(lambda: work(filters, after, until, max_bytes)), lost, key)

    def find(self, moment: int, key: str | None, otherwise: int) -> Asked[int]:
        """See `Beyond.find`; `otherwise` where there is no such message, or the file can't be read."""
        return self._ask(lambda: self._as_of_now(lambda: self._find(moment, otherwise)), otherwise, key)

    def draw(
        self,
        writer: RollupWriter,
        topics: Sequence[str],
        fields: Sequence[str],
        level: int,
        grid: Grid,
        key: str | None,
    ) -> Asked[Drawn | None]:
        """See `Beyond.draw`; `writer` has what is not in the file yet, `level` is a place in `rollups.LEVELS`."""
        return self._ask(lambda: self._draw(writer, topics, fields, level, grid), None, key)

    def _draw(
        self, writer: RollupWriter, topics: Sequence[str], fields: Sequence[str], level: int, grid: Grid
    ) -> Drawn:
        self._open()
        assert self._connection is not None  # noqa: S101 - it has just been opened
        rollups = RollupReader(self._connection)
        new = [one for one in writer.new_series() if one.topic in topics]  # before those that it may have become
        named = {one.id: one for topic in topics for one in rollups.series_of(topic)} | {one.id: one for one in new}
        known = [one for one in named.values() if not fields or one.field in fields]
        ids = [one.id for one in known]
        points, seq = rollups.read(writer, ids, level, grid.start, grid.end, lambda whole: _folded(whole, grid))
        drawn = Drawn({}, {}, seq)
        for one in known:
            if one.id not in points:
                continue
            if one.is_text:
                texts = TextPoints(points[one.id], writer.texts_of(one.id) or rollups.texts_of(one.id))
                drawn.texts.setdefault(one.topic, {})[one.field] = texts
            else:
                drawn.points.setdefault(one.topic, {})[one.field] = points[one.id]
        return drawn

    def _ask(self, question: _Question, otherwise: Any, key: str | None) -> Asked[Any]:
        asked: Asked[Any] = Asked()
        self._line.add(key, (asked, question, otherwise))
        self._hand_over()
        return asked

    def _hand_over(self) -> None:
        while self._under_way < AT_A_TIME and self._line.size:
            self._under_way += 1
            self._queue.put(self._line.next())

    def _answer(self, asked: Asked[Any], answer: Any, seconds: float) -> None:
        self._under_way -= 1
        self.questions += 1
        if isinstance(answer, Part):
            self.messages += len(answer.messages)
            self.failures += not answer.is_whole
        self._hand_over()
        asked.set(answer, seconds)

    @property
    def is_idle(self) -> bool:
        """Whether every question is answered."""
        return not self._under_way

    def reopen(self) -> None:
        """The file is another one: what is known of the old one is forgotten."""
        self._queue.put((Asked(), self._forget, None))
        self._under_way += 1

    def close(self) -> None:
        """Lets the thread end when it has answered."""
        self._queue.put(None)

    def join(self, timeout_seconds: float) -> None:
        """Waits for the thread, not in the loop."""
        self._thread.join(timeout_seconds)

    # the thread's side

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            asked, question, otherwise = item
            began = time.thread_time()
            try:
                answer = question()
            except (sqlite3.Error, OSError, BlockError) as error:
                logger.error("the archive %s can't be read: %s", self._path, error)
                self._forget()
                answer = otherwise
            except Exception:
                logger.exception("reading the archive failed in a way that was not foreseen")
                answer = otherwise
            try:
                self._call_soon_threadsafe(self._answer, asked, answer, time.thread_time() - began)
            except RuntimeError:
                break  # the loop has ended
        self._forget()

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._rows = None
        self._blocks.clear()
        self._blocks_bytes = 0
        self._matches.clear()
        self._heads.clear()

    def _as_of_now(self, work: Callable[[], T]) -> T:
        """Does something in one state of the file: the writer may thin and join blocks meanwhile."""
        self._open()
        assert self._connection is not None  # noqa: S101 - it has just been opened
        self._connection.execute("BEGIN")
        try:
            return work()
        finally:
            self._connection.execute("COMMIT")

    def _open(self) -> Rows:
        if self._rows is None:
            self._connection = connect(self._path)
            self._connection.execute("PRAGMA query_only = 1")
            self._rows = Rows(self._connection)
        return self._rows

    def _head(self, rows: Rows, number: int) -> tuple[str, bytes]:
        """Name of a topic, and the start of its envelopes."""
        found = self._heads.get(number)
        if found is None:
            name = rows.name_of(number)
            if len(self._heads) >= MAX_MATCHES:
                self._heads.clear()
            found = self._heads[number] = (name, encode_topic(name))
        return found

    def _matching(self, rows: Rows, filters: FilterSet) -> Callable[[int], bool]:
        """Whether the filters match the topic with an id."""
        known = self._matches.setdefault(filters, {})
        self._matches.move_to_end(filters)
        if len(self._matches) > MAX_FILTERS:
            self._matches.popitem(last=False)
        if len(known) > MAX_MATCHES:
            known.clear()

        def matches(number: int) -> bool:
            found = known.get(number)
            if found is None:
                found = known[number] = filters.matches(self._head(rows, number)[0])
            return found

        return matches

    def _block(self, rows: Rows, row: BlockRow) -> Block:
        key = (row.first_seq, row.last_seq, row.left)  # it may have been thinned or joined since
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
            return block
        block = self._blocks[key] = rows.read(row.first_seq)
        self._blocks_bytes += block.size
        while self._blocks_bytes > MAX_BLOCKS_BYTES and len(self._blocks) > 1:
            self._blocks_bytes -= self._blocks.popitem(last=False)[1].size
        return block

    def _read(self, filters: FilterSet, after: int, until: int, max_bytes: int) -> Part:
        rows = self._open()
        wants = self._matching(rows, filters)
        part = Part([], after, is_thinned=self._is_thinned(rows, filters, after))
        size = 0
        end = time.monotonic() + READ_SECONDS
        for row in rows.blocks_from(after + 1, until):
            found = self._select(rows, row, wants, part.cursor, until, part)
            if found is not None:
                block, places = found
                for at in places:
                    name, head = self._head(rows, block.id_at(at))
                    message = block.message_at(at, name, head)
                    part.messages.append(message)
                    size += len(message.frame)
                    if size >= max_bytes:
                        part.cursor = message.seq
                        return part
            part.cursor = min(row.last_seq, until)
            if time.monotonic() > end:
                return part
            time.sleep(0)  # so that the loop need not wait for the interpreter's lock
        part.cursor = until
        return part

    def _read_back(self, filters: FilterSet, after: int, until: int, max_bytes: int) -> Part:
        rows = self._open()
        wants = self._matching(rows, filters)
        part = Part([], until, is_thinned=self._is_thinned(rows, filters, after))
        size = 0
        end = time.monotonic() + READ_SECONDS
        for row in rows.blocks_back_from(until, after):
            found = self._select(rows, row, wants, after, until, part)
            if found is not None:
                block, places = found
                for at in reversed(places):
                    name, head = self._head(rows, block.id_at(at))
                    message = block.message_at(at, name, head)
                    part.messages.append(message)
                    size += len(message.frame)
                    if size >= max_bytes:
                        part.cursor = message.seq - 1
                        return part
            part.cursor = max(row.first_seq - 1, after)
            if time.monotonic() > end:
                return part
            time.sleep(0)
        part.cursor = after
        return part

    def _select(
        self,
        rows: Rows,
        row: BlockRow,
        wants: Callable[[int], bool],
        after: int,
        until: int,
        part: Part,
    ) -> tuple[Block, list[int]] | None:
        """The block of a row and the places in it that are wanted; None if there are none."""
        try:
            if not any(map(wants, decode_ids(row.topics))):
                return None
            block = self._block(rows, row)
        except BlockError as error:
            logger.error("the block %d of the archive %s can't be read: %s", row.first_seq, self._path, error)
            part.is_whole = False
            return None
        return block, block.select(wants, after, until)

    def _find(self, moment: int, otherwise: int) -> int:
        rows = self._open()
        starts = [0, *rows.steps()]
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            first = rows.first_block_at(moment, start, end)
            if first is not None:
                return self._block(rows, rows.row(first)).before_time(moment)
        return otherwise

    @staticmethod
    def _is_thinned(rows: Rows, filters: FilterSet, after: int) -> bool:
        """Whether messages that match, behind `after`, may have been let go, as of the state of the file that is read.

        Who asks found out before whether all are there; but more may have gone since.
        """
        return rows.begins_after > after or is_thinned(rows.thinned(), filters, after)


def _folded(points: Points, grid: Grid) -> Points:
    work = points.on(grid)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: Points = done.value
            return found
        time.sleep(0)  # so that the loop need not wait for the interpreter's lock

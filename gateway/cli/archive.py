"""`gateway archive`: an archive told, checked, copied, written out and filled, apart from a running gateway."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from gateway.cli.flags import fail

if TYPE_CHECKING:
    from gateway.archive.keeping import Rules
    from gateway.archive.offline import Offline
    from gateway.core.filters import FilterSet
    from gateway.core.messages import Message
    from gateway.core.recordings import Recorded

archive = typer.Typer(name="archive", help="Tell, check, copy, write out or fill an archive.", no_args_is_help=True)

LEVELS = ("raw", "minute", "hour")
FORMATS = ("ndjson", "csv", "parquet")
PARQUET_ROWS = 50_000

ArchiveFile = Annotated[Path, typer.Argument(metavar="ARCHIVE", help="The file that GATEWAY_ARCHIVE_FILE names.")]
Filters = Annotated[
    list[str] | None,
    typer.Option("--topic", "-t", metavar="FILTER", help="Only topics that this matches; may be repeated."),
]
SinceTime = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From this time on: back from now (7d), or ISO 8601.")
]
UntilTime = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Up to this time, which is not included.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(archive)


@archive.command("info")
def info(file: ArchiveFile, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Say how large an archive is, what it spans, and which topics take the room.

    A gateway may have it open. Which topics take the room is estimated from a sample.
    """
    with opened(file) as found:
        told = found.info()
        room = found.room().most_common(10)
        rules = found.rules()
        costs = found.costs(rules)
    if as_json:
        print(json.dumps({**vars(told), "room": dict(room), "rules": _rules_json(rules, costs)}))
        return
    whole = sum(told.bytes_by_kind.values())
    print(f"{file}: {_size(whole)}, epoch {told.epoch}")
    print(f"  messages  {told.messages:,} of {told.topics:,} topics, in {told.blocks:,} blocks")
    if told.blocks:
        print(f"  span      {moment(told.first_time)} to {moment(told.last_time)}")
        print(f"  numbers   {told.first_seq:,} to {told.last_seq:,}")
    print(f"  roll-ups  of {told.series:,} numbers")
    for kind, size in told.bytes_by_kind.items():
        print(f"  {kind:9} {_size(size):>10}  {size / max(whole, 1):4.0%}")
    for reason, count in told.holes.items():
        print(f"  missing   {count:,} numbers: {reason}")
    if rules.keeps:
        print("  rules (the first that matches counts), and about what they take:")
        for line in _rule_lines(rules, costs):
            print(line)
    if room:
        print("  room by topic, about:")
        total = sum(size for _, size in room)
        for name, size in room:
            print(f"    {size / max(total, 1):4.0%}  {name}/…")


def _rules_json(rules: Rules, costs: list[dict[str, int]]) -> list[dict[str, Any]]:
    keeps: list[dict[str, Any]]
    keeps = [{"topics": keep.topics, **{name: keep.of(name) for name in costs[0]}} for keep in rules.keeps]
    return [{**keep, "bytes": cost} for keep, cost in zip([*keeps, {"topics": None}], costs, strict=True)]


def _rule_lines(rules: Rules, costs: list[dict[str, int]]) -> Iterator[str]:
    """What each rule keeps how long, and what that takes."""
    from gateway.core.durations import duration_text

    for keep, cost in zip([*rules.keeps, None], costs, strict=True):
        parts = []
        for level, size in cost.items():
            age = None if keep is None else keep.of(level)
            until = "until it is full" if age is None else f"for {duration_text(age / 1000)}"
            parts.append(f"{level} {until}, {_size(size)}")
        yield f"    {' '.join(keep.topics) if keep else 'all others'}: {'; '.join(parts)}"


@archive.command("verify")
def verify(file: ArchiveFile) -> None:
    """Read everything in an archive, and say what is damaged or missing.

    A gateway may have it open. Exit code: 0 all is well, 1 something is wrong.
    """
    faults = 0
    with opened(file) as found:
        told = found.info()
        with _progress(told.blocks, "blocks") as step:
            for fault in found.verify():
                step()
                if fault is not None:
                    faults += 1
                    print(f"{file}: {fault}")
    if faults:
        fail(f"{file}: {faults} faults; `gateway archive export` with --since and --until reads what is around them")
    print(f"{file}: all is well: {told.messages:,} messages in {told.blocks:,} blocks")


@archive.command("backup")
def backup(file: ArchiveFile, target: Annotated[Path, typer.Argument(metavar="TARGET", help="A new file.")]) -> None:
    """Copy an archive, as of one moment, while the gateway goes on writing."""
    from gateway.archive.failures import ArchiveError

    with opened(file) as found, _progress(0, "pages") as step:
        try:
            found.backup(target, step)
        except ArchiveError as error:
            fail(error)
    print(f"{target}: {_size(target.stat().st_size)}")


@archive.command("export")
def export(
    file: ArchiveFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; otherwise standard output.")
    ] = None,
    topic: Filters = None,
    since: SinceTime = None,
    until: UntilTime = None,
    level: Annotated[str, typer.Option(metavar="LEVEL", help="raw (messages), minute or hour (roll-ups).")] = "raw",
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="ndjson, csv or parquet; otherwise as FILE ends, or ndjson."),
    ] = None,
) -> None:
    """Write the messages of an archive, or roll-ups of their numbers and texts, to a file.

    A gateway may have it open. NDJSON has the envelopes that subscribers get, CSV the columns of a download: both can
    be imported again, and `sensors-sim replay` publishes them. Parquet needs the package pyarrow.
    """
    if level not in LEVELS:
        fail(f"--level {level!r}: must be one of {', '.join(LEVELS)}", 2)
    chosen = form or (output.suffix[1:] if output is not None and output.suffix[1:] in FORMATS else "ndjson")
    if chosen not in FORMATS:
        fail(f"--format {chosen!r}: must be one of {', '.join(FORMATS)}", 2)
    first, last = time_of(since, "--since", 0), time_of(until, "--until", 2**62)
    filters = _filters(topic or ["#", "$SYS/#"])
    with opened(file) as found, _progress(found.blocks_between(first, last), "blocks") as step:
        rows: Iterable[dict[str, Any]]
        if level == "raw":
            rows = (_message_row(message) for message in found.messages(filters, first, last, step))
            count = _write(rows, MESSAGE_COLUMNS, chosen, output)
        else:
            rows = _point_rows(found, filters, LEVELS.index(level) - 1, first, last)
            count = _write(rows, POINT_COLUMNS, chosen, output)
    print(f"gateway: {count:,} rows" + (f" in {output}" if output else ""), file=sys.stderr)


MESSAGE_COLUMNS = ("time", "seq", "topic", "payload", "encoding", "qos", "retained", "properties")
POINT_COLUMNS = (
    "time", "topic", "field", "first", "min", "max", "last", "mean", "count", "first_text", "last_text", "changes",
)  # fmt: skip


def _message_row(message: Message) -> dict[str, Any]:
    from gateway.core.frames import json_line
    from gateway.core.messages import encode_json, encode_properties

    shown = encode_properties(message.properties) if message.properties else None
    return {
        "line": json_line(message.with_members({"properties": shown}) if shown else message.body),
        "time": message.time,
        "seq": message.seq,
        "topic": message.topic,
        "payload": message.text.decode(),
        "encoding": "" if message.is_text else "base64",
        "qos": message.qos,
        "retained": "true" if message.retained else "",
        "properties": encode_json(shown).decode() if shown else "",
    }


def _point_rows(found: Offline, filters: FilterSet, level: int, since: int, until: int) -> Iterator[dict[str, Any]]:
    from gateway.core.messages import encode_json

    for series, points in found.points(filters, level, since, until):
        for point in points.shown():
            row = {"topic": series.topic, "field": series.field, **point}
            line = encode_json(row)
            if series.is_text:  # a column has numbers or texts
                row |= {"first_text": row.pop("first"), "last_text": row.pop("last")}
            yield {"line": line, **dict.fromkeys(POINT_COLUMNS), **row}


def _write(rows: Iterable[dict[str, Any]], columns: tuple[str, ...], form: str, output: Path | None) -> int:
    """Writes them, and says how many there were."""
    if form == "parquet":
        return _write_parquet(rows, columns, output)
    count = 0
    try:
        with _target(output) as file:
            if form == "csv":
                file.write((",".join(columns) + "\r\n").encode())
            for row in rows:
                file.write(row["line"] + b"\n" if form == "ndjson" else _csv(row, columns))
                count += 1
    except OSError as error:
        fail(f"can't write {output or 'to standard output'}: {error.strerror or error}")
    return count


def _csv(row: dict[str, Any], columns: tuple[str, ...]) -> bytes:
    from gateway.core.recordings import csv_line

    cells = [moment(row["time"]), *("" if row[name] is None else str(row[name]) for name in columns[1:])]
    return csv_line(cells).encode()


def _write_parquet(rows: Iterable[dict[str, Any]], columns: tuple[str, ...], output: Path | None) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        fail("Parquet needs the package pyarrow: pip install pyarrow, or use --format csv", 2)
    if output is None:
        fail("Parquet needs a file: --output FILE", 2)
    kinds = {
        "time": pyarrow.timestamp("ms", tz="UTC"),
        **dict.fromkeys(("seq", "qos", "count", "changes"), pyarrow.int64()),
        **dict.fromkeys(("first", "min", "max", "last", "mean"), pyarrow.float64()),
    }
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in columns])
    count = 0
    writer = None
    some: list[dict[str, Any]] = []

    def flush() -> None:
        nonlocal writer
        if writer is None:
            writer = parquet.ParquetWriter(output, schema)
        writer.write_table(pyarrow.table({name: [row[name] for row in some] for name in columns}, schema))
        some.clear()

    for row in rows:
        some.append(row)
        count += 1
        if len(some) == PARQUET_ROWS:
            flush()
    if some:
        flush()
    if writer is not None:
        writer.close()
    return count


@contextmanager
def _target(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with output.open("wb") as file:
        yield file


@archive.command("import")
def import_(
    file: ArchiveFile,
    recordings: Annotated[
        list[Path], typer.Argument(metavar="RECORDING", help="NDJSON or CSV, as they come from record and export.")
    ],
) -> None:
    """Add the messages of recordings to an archive, with the times that they have.

    No gateway may have it open. They get numbers behind those that are there already.
    """
    from gateway.archive.failures import ArchiveError
    from gateway.archive.offline import Importer

    try:
        importer = Importer(file)
    except ArchiveError as error:
        fail(error)
    try:
        for path in recordings:
            _import(importer.add, path)
    except (ArchiveError, ValueError) as error:
        fail(f"{error}; {importer.count:,} messages before it were added")
    finally:
        importer.close()
    print(f"{file}: {importer.count:,} messages added")


def _import(add: Any, path: Path) -> None:
    from gateway.core.messages import decode_properties

    try:
        size = path.stat().st_size
        with path.open("rb") as file, _progress(size, "bytes") as step:
            for number, message in enumerate(recorded(path, file)):
                properties = None if message.properties is None else decode_properties(message.properties)
                at = round(message.seconds * 1000)
                add(message.topic, message.payload, at, message.qos, message.retained, properties)
                if number % 1_000 == 0:
                    step(os.lseek(file.fileno(), 0, os.SEEK_CUR), size)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def recorded(path: Path, file: BinaryIO) -> Iterator[Recorded]:
    """The messages of a recording, NDJSON or CSV.

    Raises:
        ValueError: a line is wrong.
    """
    import io

    from gateway.core.recordings import is_csv, read_csv, read_ndjson

    if is_csv(path.name, b""):
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        yield from read_csv(text)
        text.detach()
    else:
        yield from read_ndjson(file)


@contextmanager
def opened(file: Path) -> Iterator[Offline]:
    """The archive, open for reading; what goes wrong with it ends the command."""
    import sqlite3

    from gateway.archive.blocks import BlockError
    from gateway.archive.failures import ArchiveError, trouble_of
    from gateway.archive.offline import Offline

    try:
        found = Offline(file)
    except ArchiveError as error:
        fail(error)
    try:
        yield found
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except (sqlite3.Error, BlockError) as error:
        fail(f"{file}: {trouble_of(error)}; `gateway archive verify` says where")
    finally:
        found.close()


class _Progress:
    """A line that says how far it is, on a terminal."""

    def __init__(self, whole: int, unit: str) -> None:
        self._whole = whole
        self._unit = unit
        self._done = 0
        self._began = self._shown = time.monotonic()
        self._is_shown = sys.stderr.isatty()

    def __call__(self, done: int | None = None, whole: int | None = None) -> None:
        self._done = self._done + 1 if done is None else done
        self._whole = whole or self._whole
        now = time.monotonic()
        if not self._is_shown or now - self._shown < 0.2:
            return
        self._shown = now
        part = min(self._done / max(self._whole, 1), 1.0)
        bar = "█" * int(part * 30)
        left = (now - self._began) * (1 - part) / max(part, 0.001)
        print(f"\r{bar:30} {part:4.0%}  {self._done:,} {self._unit}  {left:.0f} s left ", end="", file=sys.stderr)

    def clear(self) -> None:
        """Takes the line away."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr)


@contextmanager
def _progress(whole: int, unit: str) -> Iterator[_Progress]:
    progress = _Progress(whole, unit)
    try:
        yield progress
    finally:
        progress.clear()


def _filters(texts: list[str]) -> FilterSet:
    from gateway.core.filters import FilterSet
    from gateway.core.topics import TopicError, validate_filter

    try:
        return FilterSet(map(validate_filter, texts))
    except TopicError as error:
        fail(f"--topic: {error}", 2)


def time_of(text: str | None, flag: str, default: int) -> int:
    """Milliseconds since 1970 of what a flag says; what can't be understood ends the command."""
    from gateway.core.protocol import ProtocolError
    from gateway.core.since import SinceKind, parse_since

    if text is None:
        return default
    try:
        found = parse_since(text)
    except ProtocolError as error:
        fail(f"{flag}: {error}", 2)
    if found.kind is not SinceKind.TIME:
        fail(f"{flag} {text!r}: must be a time back (7d), an ISO 8601 time or milliseconds since 1970", 2)
    return found.time


def moment(time_ms: int) -> str:
    """A time, milliseconds since 1970, as ISO 8601."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"

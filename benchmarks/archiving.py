"""What an archive takes: `python -m benchmarks.archiving {write,year,deepen,ask} …`.

`write` writes as a gateway does, with a clock of its own: so many messages a second to so many topics, a block at each
flush. It tells how many bytes went to the disk (`wchar` of proc(5): what is written ahead and what is copied from
there), and what the file keeps, by kind. docs/operations.md and `gateway check` have their constants from it:

    python -m benchmarks.archiving write --hours 0.1 --flush 10 archive.db              # 1,000 topics, 2,000/s
    python -m benchmarks.archiving write --hours 2.1 --topics 100 --rate 200 archive.db  # with roll-ups packed
    python -m benchmarks.archiving write --hours 50 --topics 100 --rate 1.6667 --flush 10 archive.db

`year` makes a file by the way of `gateway archive import`: a reading a minute of each topic, with two numbers. `deepen`
gives each topic of such a file the roll-ups that a topic of another one has of the time before, as rules of retention
leave them; so a year of a thousand topics is there in minutes:

    python -m benchmarks.archiving year --topics 10 ten.db
    python -m benchmarks.archiving year --topics 1000 --days 2 thousand.db
    python -m benchmarks.archiving deepen --by ten.db thousand.db

`ask` opens such a file as a gateway does, and asks for charts of 1,200 points of a year, a month and a day, of one
series and of 20, and for 50 of them at once; before each the system forgets what it has of the file, where it lets us.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gateway.archive.blocks import Batch
from gateway.archive.file import ArchiveFile
from gateway.archive.offline import Importer, Offline
from gateway.archive.rollups import LEVELS
from gateway.archive.writer import MAX_BATCH_BYTES
from gateway.core.messages import Message

START = 1_767_225_600_000
"""The first day of 2026, milliseconds since 1970."""


PAUSE_SECONDS = 4.0
"""Before each question, so that what an address may use doesn't stand in its way."""


class Sensors:
    """Readings of 76 bytes with two numbers, which walk a little each time."""

    def __init__(self, topics: int) -> None:
        self.names = [f"sensors/{number:04}/state" for number in range(topics)]
        self._chance = random.Random(1)
        self._values = [[20.0 + number % 10, 40.0 + number % 20] for number in range(topics)]
        self._counts = [0] * topics

    def reading(self, number: int, time_ms: int) -> bytes:
        """The next reading of a topic."""
        one = self._values[number]
        one[0] += self._chance.gauss(0, 0.05)
        one[1] += self._chance.gauss(0, 0.1)
        self._counts[number] += 1
        return b'{"ts":%.3f,"seq":%d,"temperature":%.2f,"humidity":%.1f,"boot":3}' % (
            time_ms / 1000,
            100 + self._counts[number],
            *one,
        )


def written_bytes() -> int:
    """What this process has handed to the system to write."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def write(path: Path, *, rate: float, topics: int, hours: float, flush: float) -> dict[str, float]:
    """Writes a file as a gateway does; what that took."""
    sensors = Sensors(topics)
    now = [START]
    file = ArchiveFile(path, wall_clock_ms=lambda: now[0])
    file._connection.execute("PRAGMA synchronous = NORMAL")  # syncs take time here, and no bytes
    seq = size = packed = 0
    began, before = time.monotonic(), written_bytes()
    flushes = int(hours * 3600 / flush)
    for turn in range(1, flushes + 1):
        count = int(turn * flush * rate) - seq
        if count:
            batch = Batch(seq + 1)
            for place in range(count):
                at = now[0] + int(place * flush * 1000 / count)
                payload = sensors.reading(seq % topics, at)
                seq += 1
                size += len(payload)
                batch.add(Message.arrived(seq, sensors.names[(seq - 1) % topics], payload, at), payload)
                if batch.size > MAX_BATCH_BYTES:
                    file.append([batch])
                    batch = Batch(seq + 1)
            if len(batch):
                file.append([batch])
        now[0] += int(flush * 1000)
        so_far = written_bytes()
        while file.do_chore():
            pass
        packed += written_bytes() - so_far
    file.append([], end=seq)
    file.close()
    written, took = written_bytes() - before, time.monotonic() - began
    found = Offline(path)
    told = found.info()
    query = "SELECT count(*), ifnull(sum(length(data)), 0) FROM chunks WHERE level = ?"
    (minutes, minute_bytes), (hours_, hour_bytes) = (
        found.connection.execute(query, (level,)).fetchone() for level in (0, 1)
    )
    found.close()
    kinds = told.bytes_by_kind
    return {
        "messages": seq,
        "seconds": took,
        "payload_bytes": size / seq,
        "written_gb_a_day": written / hours * 24 / 1e9,
        "of_that_by_chores": packed / hours * 24 / 1e9,
        "kept_gb_a_day": path.stat().st_size / hours * 24 / 1e9,
        "block_bytes_a_message": kinds["messages"] / seq,
        "minute_bytes_a_chunk": minute_bytes / max(minutes, 1),
        "hour_bytes_a_chunk": hour_bytes / max(hours_, 1),
        "other_bytes": kinds["other"],
        "file_bytes": path.stat().st_size,
        "minute_chunks": minutes,
        "hour_chunks": hours_,
    }


def year(path: Path, *, topics: int, days: float) -> dict[str, float]:
    """A file with a reading a minute of each topic, until now, by the way of an import."""
    sensors = Sensors(topics)
    minutes = int(days * 1_440)
    first = time.time_ns() // 60_000_000_000 * 60_000 - minutes * 60_000
    began = time.monotonic()
    importer = Importer(path)
    for minute in range(minutes):
        at = first + minute * 60_000
        for number, name in enumerate(sensors.names):
            importer.add(name, sensors.reading(number, at), at + number * 59_000 // topics)
        if minute % 14_400 == 0:
            print(f"day {minute // 1_440}: {time.monotonic() - began:.0f} s", flush=True)
    importer.close()
    took = time.monotonic() - began
    count = minutes * topics
    return {"messages": count, "seconds": took, "a_second": count / took, "file_bytes": path.stat().st_size}


def deepen(path: Path, by: Path) -> dict[str, float]:
    """Roll-ups of the time before for all series of a file, from those of another that have the same fields."""
    ArchiveFile(by).close()  # brings it to the form of now
    file = ArchiveFile(path)
    connection = file._connection
    began = time.monotonic()
    connection.execute("ATTACH ? AS older", (str(by),))
    fields: dict[str, list[int]] = {}
    for number, field in connection.execute("SELECT id, field FROM older.series ORDER BY id"):
        fields.setdefault(field, []).append(number)
    series = connection.execute("SELECT id, field FROM main.series ORDER BY id").fetchall()
    rows = 0
    for level in range(len(LEVELS)):
        query = """INSERT INTO main.chunks SELECT level, ?, start, data FROM older.chunks
            WHERE level = ? AND series = ? AND start < (
                SELECT min(start) FROM main.chunks WHERE level = ? AND series = ?)"""
        for place, (number, field) in enumerate(series):
            if place % 100 == 0:
                connection.execute("BEGIN")
            source = fields[field][place // len(fields) % len(fields[field])]
            rows += connection.execute(query, (number, level, source, level, number)).rowcount
            if place % 100 == 99 or place == len(series) - 1:
                connection.execute("COMMIT")
                print(f"{LEVELS[level].name}s: {place + 1} of {len(series)}", flush=True)
    connection.execute("DETACH older")
    file.append([], end=file.seq)
    file.close()
    return {"rows": rows, "seconds": time.monotonic() - began, "file_bytes": path.stat().st_size}


def forget(path: Path) -> bool:
    """Has the system forget what it has read of a file; whether it let us."""
    try:
        import os

        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


async def ask(path: Path) -> Iterator[str]:
    """How long a gateway takes for charts of such a file."""
    import httpx

    from gateway.app import create_app
    from gateway.settings.loading import load_settings

    settings = load_settings({"mqtt_url": "mqtt://127.0.0.1:1", "archive_file": str(path)}, environ={})
    app = create_app(settings)
    lines = []
    forget(path)
    began = time.monotonic()
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    async with app.router.lifespan_context(app), client:
        lines.append(f"open: {time.monotonic() - began:.3f} s, {resident_mb():.0f} MB")
        gateway = app.state.gateway

        async def chart(text: str, since: str, limit: int, field: str) -> tuple[float, int, int]:
            await asyncio.sleep(PAUSE_SECONDS)
            began = time.monotonic()
            address = f"/topics/{text}?since={since}&points=1200&limit={limit}&format=columns{field}"
            answer = await client.get(address)
            found = answer.json()
            assert found["recovered"] is True, found.get("gap")
            return time.monotonic() - began, len(answer.content), len(found["series"])

        one, field = "sensors/0007/state", "&field=temperature"
        for since in ("365d", "30d", "1d"):
            for text, limit, fields in ((one, 1, field), ("sensors/%2B/state", 10, "")):
                forget(path)
                gateway.archive.reader.reopen()
                used = time.process_time()
                took, size, count = await chart(text, since, limit, fields)
                used = time.process_time() - used
                again = min([await chart(text, since, limit, fields) for _ in range(3)])[0]
                lines.append(
                    f"{since:>5}, {count:2} series: {took * 1000:6.0f} ms, "
                    f"{used * 1000:.0f} ms of processor, again {again * 1000:.0f} ms, "
                    f"{size / max(count, 1) / 1000:.1f} KB each"
                )
        before = resident_mb()
        used, began = time.process_time(), time.monotonic()
        topics = gateway.history.topic_count
        asked = (chart(f"sensors/{number % topics:04}/state", "365d", 1, field) for number in range(50))
        answers = await asyncio.gather(*asked)
        took = time.monotonic() - began - PAUSE_SECONDS
        used = time.process_time() - used
        lines.append(f"50 at once: {took:.2f} s, {used:.2f} s of processor, the last one {max(answers)[0]:.2f} s")
        lines.append(f"memory {before:.0f} MB, at its highest {peak_mb():.0f} MB, then {resident_mb():.0f} MB")
    return iter(lines)


def resident_mb() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def peak_mb() -> float:
    """The most that it had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("--rate", type=float, default=2_000)
    writing.add_argument("--hours", type=float, default=0.1)
    writing.add_argument("--flush", type=float, default=1)
    making = commands.add_parser("year")
    making.add_argument("--days", type=float, default=365)
    for each in (writing, making):
        each.add_argument("--topics", type=int, default=1_000 if each is writing else 100)
    asking = commands.add_parser("ask")
    deepening = commands.add_parser("deepen")
    deepening.add_argument("--by", type=Path, required=True, help="a file of a year")
    for each in (writing, making, deepening, asking):
        each.add_argument("path", type=Path)
    given = parser.parse_args()
    work: dict[str, Callable[[], Any]] = {
        "write": lambda: write(given.path, rate=given.rate, topics=given.topics, hours=given.hours, flush=given.flush),
        "year": lambda: year(given.path, topics=given.topics, days=given.days),
        "deepen": lambda: deepen(given.path, given.by),
        "ask": lambda: "\n".join(asyncio.run(ask(given.path))),
    }
    found = work[given.command]()
    print(found if isinstance(found, str) else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

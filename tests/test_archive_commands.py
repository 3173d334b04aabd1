"""`gateway archive`: what people do with a file while no gateway, or one that goes on, has it open."""

from __future__ import annotations

import csv
import json
import sqlite3
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.archiving import write
from gateway.archive import restoring
from gateway.archive.archive import KeptHistory
from gateway.archive.blocks import Batch, Block
from gateway.archive.file import ArchiveFile
from gateway.archive.keeping import Keep, Rules
from gateway.archive.offline import Importer
from gateway.archive.rows import Rows
from gateway.archive.sizing import Flow
from gateway.cli import app
from gateway.core.messages import Message, Properties
from sensors_sim.replay import read_recording
from tests.conftest import Yardstick

NOW = 1_700_000_000_000


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["archive", *map(str, arguments)])


def messages() -> list[Message]:
    told: Properties = {"content_type": "x", "correlation_data": b"\xff\x00", "user_properties": [("a", "b")]}
    return [
        Message.arrived(1, "house/a", b'{"t":21.5,"on":true}', NOW, 1, True),
        Message.arrived(2, "house/b", b'text, "quoted"\nand more', NOW + 1, 0),
        Message.arrived(3, "house/c", b"\xff\xfe", NOW + 60_000, 2),
        Message.arrived(4, "house/a", b'{"t":22.5}', NOW + 61_000, 0, False, told),
        Message.arrived(5, "$SYS/x", b"1", NOW + 62_000),
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "archive.db"
    file = ArchiveFile(found)
    batch = Batch(1)
    for message in messages():
        batch.add(message, message.payload)
    file.append([batch])
    file.append([], end=5)
    file.close()
    return found


def test_info_says_how_much_there_is_and_of_what(path: Path) -> None:
    text = run("info", path).output
    assert "5 of 4 topics" in text
    assert "2023-11-14T22:13:20.000Z" in text
    told = json.loads(run("info", path, "--json").output)
    assert (told["messages"], told["first_seq"], told["last_seq"], told["series"]) == (5, 1, 5, 5)
    assert set(told["room"]) == {"house/a", "house/b", "house/c", "$SYS/x"}


def test_info_says_what_each_rule_costs(path: Path) -> None:
    rules = Rules([Keep(("house/a",)), Keep(("house/#",), raw=7 * 86_400_000, hour=365 * 86_400_000)])
    file = ArchiveFile(path, rules=rules)
    batch = Batch(6)
    for seq in range(6, 200):
        batch.add(Message.arrived(seq, "house/b", b"%d" % seq, NOW + seq * 60_000), b"%d" % seq)
    file.append([batch], end=200)
    while file.do_chore():
        pass
    file.close()
    text = run("info", path).output
    assert "house/a: raw until it is full, " in text
    assert "house/#: raw for 7d, " in text
    assert "hour for 365d, " in text
    assert "all others: raw until it is full, " in text
    one, two, others = json.loads(run("info", path, "--json").output)["rules"]
    assert (one["topics"], two["topics"], others["topics"]) == (["house/a"], ["house/#"], None)
    assert (one["raw"], two["raw"], two["minute"], two["hour"]) == (None, 604_800_000, None, 31_536_000_000)
    assert two["bytes"]["raw"] > one["bytes"]["raw"] > others["bytes"]["raw"] > 0
    assert two["bytes"]["minute"] > others["bytes"]["minute"]


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_what_is_exported_and_imported_is_the_same(path: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / f"out.{form}"
    assert "5 rows" in run("export", path, "-o", out).output
    again = tmp_path / "again.db"
    assert "5 messages added" in run("import", again, out).output
    second = tmp_path / f"second.{form}"
    run("export", again, "-o", second)
    assert second.read_bytes() == out.read_bytes()
    assert "all is well: 5 messages" in run("verify", again).output
    # and the simulator can play it
    recorded = [(one.message.topic, one.message.payload) for one in read_recording(str(out))]
    assert recorded == [(message.topic, message.payload) for message in messages()]
    # behind what is there
    run("import", again, out)
    assert json.loads(run("info", again, "--json").output)["last_seq"] == 10


def test_a_gateway_opens_what_was_imported_without_reading_it_all(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "FILL_MESSAGES", 50)
    importer = Importer(path)  # it has five messages already
    for number in range(20_000):
        importer.add(f"t/{number % 30}", b"%d" % number, NOW + 100_000 + number)
    importer.close()
    read: list[int] = []
    as_it_is = Rows.read

    def counted(self: Rows, first_seq: int) -> Block:
        read.append(first_seq)
        return as_it_is(self, first_seq)

    monkeypatch.setattr(Rows, "read", counted)
    history = KeptHistory()
    file = ArchiveFile(path)
    restoring.restore(history, file, NOW + 200_000)
    file.close()
    assert len(read) <= 2
    known = {topic.name: (topic.count, topic.last and topic.last.payload) for topic in history.topics()}
    assert known["house/a"] == (2, b'{"t":22.5}')
    assert known["t/29"] == (666, b"19979")
    assert len(known) == 34


def test_the_names_of_many_topics_are_looked_up_together(tmp_path: Path) -> None:
    importer = Importer(tmp_path / "many.db")
    for number in range(3_000):
        importer.add(f"t/{number}", b"1", NOW + number)
    importer.close()
    statements: list[str] = []
    file = ArchiveFile(tmp_path / "many.db")
    file._connection.set_trace_callback(statements.append)
    history = KeptHistory()
    restoring.restore(history, file, NOW + 5_000)
    file.close()
    assert history.topic_count == 3_000
    assert len(statements) < 100


@pytest.mark.slow
def test_fifty_thousand_topics_are_there_within_a_second(tmp_path: Path, yardstick: Yardstick) -> None:
    """Judged by a tenth of them: 0.1 s are 10,000 yardsticks."""
    importer = Importer(tmp_path / "many.db")
    for number in range(10_000):
        importer.add(f"sensors/{number % 5_000}/state", b'{"temperature":21.5,"humidity":44.1}', NOW + number)
    importer.close()

    def opened() -> float:
        file = ArchiveFile(tmp_path / "many.db")
        began = time.thread_time()
        restoring.restore(KeptHistory(), file, NOW + 20_000)
        took = time.thread_time() - began
        file.close()
        return took

    # half of the messages are beside the last values, which fifty thousand topics would not have
    assert yardstick(opened) < 15_000


def test_an_export_has_what_is_asked_for(path: Path) -> None:
    lines = run("export", path, "--topic", "house/+", "--since", NOW + 1, "--until", NOW + 61_000).stdout.splitlines()
    assert [json.loads(line)["topic"] for line in lines] == ["house/b", "house/c"]
    points = run("export", path, "--level", "minute", "--topic", "house/a", "--format", "csv").stdout.splitlines()
    rows = list(csv.DictReader(points))
    assert [(row["field"], row["last"], row["last_text"], row["changes"], row["count"]) for row in rows] == [
        ("t", "21.5", "", "", "1"),
        ("t", "22.5", "", "", "1"),
        ("on", "1", "", "", "1"),
        ("on", "", "true", "0", "1"),
    ]
    told = run("export", path, "--level", "minute", "--topic", "house/a").stdout.splitlines()
    assert json.loads(told[-1]) == {
        "topic": "house/a", "field": "on", "time": NOW // 60_000 * 60_000,
        "first": "true", "last": "true", "changes": 0, "count": 1,
    }  # fmt: skip


def test_parquet_is_written_where_pyarrow_is(path: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out.parquet"
    assert run("export", path, "-o", out).exit_code == 0
    assert parquet.read_table(out).num_rows == 5
    assert run("export", path, "-o", out, "--level", "minute", "--topic", "house/a").exit_code == 0
    found = parquet.read_table(out).to_pydict()
    assert found["last"] == [21.5, 22.5, 1.0, None]
    assert found["last_text"] == [None, None, None, "true"]


def test_parquet_without_pyarrow_says_what_to_do(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    result = run("export", path, "-o", tmp_path / "out.parquet")
    assert result.exit_code == 2
    assert "pip install pyarrow" in result.stderr


def test_a_backup_is_made_while_the_gateway_writes(path: Path, tmp_path: Path) -> None:
    file = ArchiveFile(path)
    copy = tmp_path / "copy.db"
    assert run("backup", path, copy).exit_code == 0
    first = file.epoch
    file.close()
    # what comes to the file from now on comes not to the copy, and the other way round: no position is of both
    restored = ArchiveFile(copy)
    assert restored.epoch != first
    assert (restored.seq, restored.holes) == (5, [])
    restored.append([], end=5)
    restored.close()
    assert "all is well: 5 messages" in run("verify", copy).output
    again = run("backup", path, copy)
    assert again.exit_code == 1
    assert "is there already" in again.stderr


def test_what_is_damaged_or_missing_is_found(path: Path) -> None:
    connection = sqlite3.connect(path)
    (data,) = connection.execute("SELECT data FROM blocks").fetchone()
    connection.execute("UPDATE blocks SET data = ?", (data[:20],))
    connection.execute("INSERT INTO blocks SELECT 9, 9, min_time, max_time, topics, data, NULL FROM blocks")
    connection.commit()
    connection.close()
    result = run("verify", path)
    assert result.exit_code == 1
    assert "block 1: " in result.stdout
    assert "the messages 6 to 8 are missing" in result.stdout
    exported = run("export", path)
    assert exported.exit_code == 1
    assert "gateway archive verify" in exported.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["info", "nowhere.db"], 1, "there is no such file"),
        (["export", "PATH", "--since", "now"], 2, "must be a time back"),
        (["export", "PATH", "--topic", "a/#/b"], 2, "--topic"),
        (["export", "PATH", "--level", "day"], 2, "must be one of raw, minute, hour"),
        (["export", "PATH", "--format", "xml"], 2, "must be one of ndjson, csv, parquet"),
        (["import", "PATH", "nowhere.ndjson"], 1, "nowhere.ndjson"),
        (["info", __file__], 1, "archive"),
    ],
)
def test_what_is_wrong_is_said(path: Path, arguments: list[str], code: int, words: str) -> None:
    result = run(*(str(path) if part == "PATH" else part for part in arguments))
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr


def test_an_import_waits_for_no_gateway(path: Path, tmp_path: Path) -> None:
    file = ArchiveFile(path)
    (tmp_path / "x.ndjson").write_text('{"topic":"a","payload":1,"time":5}\n')
    result = run("import", path, tmp_path / "x.ndjson")
    file.close()
    assert result.exit_code == 1
    assert "another gateway has the archive" in result.stderr


def test_a_line_that_is_wrong_is_named_and_what_was_before_it_stays(path: Path, tmp_path: Path) -> None:
    (tmp_path / "x.ndjson").write_text('{"topic":"a","payload":1,"time":5}\n{"topic":"a/#","payload":1,"time":5}\n')
    result = run("import", path, tmp_path / "x.ndjson")
    assert result.exit_code == 1
    assert "line 2: topic 'a/#'" in result.stderr
    assert "1 messages before it were added" in result.stderr
    assert json.loads(run("info", path, "--json").output)["messages"] == 6


def test_a_check_says_what_rules_mean_in_bytes(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[archive]\nfile = "archive.db"\n[[archive.keep]]\ntopics = ["a/#"]\nraw = "7d"\nminute = "90d"\n'
        '[[archive.keep]]\ntopics = ["#"]\n'
    )

    def said(*arguments: str) -> str:
        return CliRunner().invoke(app, ["check", "--config", str(file), *arguments]).output

    text = said("--rate", "2000", "--bytes", "76", "--topics", "1000", "--fields", "2")
    assert "about 1.7 GB of messages a day, 72 MB of roll-ups by minute and 1.2 MB by hour" in text
    assert (
        "rule 1 (a/#), if all of it came there: raw for 7d 12.0 GB, minute for 90d 6.5 GB, hour until it is full"
        in text
    )
    assert "rule 2 (#), if all of it came there: raw until it is full" in text
    assert "GATEWAY_ARCHIVE_BYTES (8.6 GB) is full after 4.8 days" in text
    assert "is full after" not in said()


@pytest.mark.parametrize(("rate", "topics"), [(2_000, 1_000), (1.6667, 100)])
def test_the_rule_of_thumb_is_what_an_archive_takes(tmp_path: Path, rate: float, topics: int) -> None:
    """`benchmarks/archiving.py` measures longer."""
    topics //= 10
    told = write(tmp_path / "archive.db", rate=rate / 10, topics=topics, hours=0.02 if rate > 100 else 2.1, flush=30)
    flow = Flow(rate / 10, told["payload_bytes"], topics, 2)
    kept = told["block_bytes_a_message"] * flow.rate * 86_400
    assert flow.bytes_a_day("raw") == pytest.approx(kept, rel=0.7)
    if rate < 100:
        minutes = told["minute_bytes_a_chunk"] * topics * 2 * 24
        assert flow.bytes_a_day("minute") == pytest.approx(minutes, rel=0.4)


@pytest.mark.slow
def test_two_thousand_messages_a_second_write_less_than_eight_gigabytes_a_day(tmp_path: Path) -> None:
    """Half of what `benchmarks/archiving.py` found over a longer time would do; chunks take a tenth more."""
    told = write(tmp_path / "archive.db", rate=2_000, topics=1_000, hours=0.02, flush=1)
    assert told["written_gb_a_day"] < 7
    assert told["kept_gb_a_day"] < 3

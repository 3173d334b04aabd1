"""`gateway check --alert`: what an alert would have done, from an archive and from a recording."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.archive.offline import Importer
from gateway.cli import app

ALERT = '[[alerts]]\nname = "hot"\ntopics = ["s/+"]\nwhere = "t > 30"\nsummary = "{topic[1]} has {payload.t}"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(f'[archive]\nfile = "{tmp_path / "archive.db"}"\n\n{ALERT}')
    return path


def check(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", "--config", str(config), *arguments], env={"COLUMNS": "200"})


def test_from_the_archive(config: Path, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    importer = Importer(tmp_path / "archive.db")
    for hours, value in ((50, 40), (40, 20), (5, 31), (4, 20), (3, 32)):
        importer.add("s/a", b'{"t":%d}' % value, now - hours * 3_600_000, 0, False, None)
    importer.close()
    result = check(config, "--alert", "hot")
    assert result.exit_code == 0, result.output
    first, second, third, last = result.output.splitlines()
    assert [line.partition("Z  ")[2] for line in (first, second, third)] == [
        "firing   s/a: a has 31", "ok       s/a: a has 20", "firing   s/a: a has 32",
    ]  # fmt: skip
    assert last == "hot: would have fired 2 times, for 1 topic; of 3 messages"
    assert "would have fired 3 times" in check(config, "--alert", "hot", "--since", "7d").output


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_from_a_recording(config: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"recording.{form}"
    messages = [(1_000, "s/a", {"t": 31}), (2_000, "s/a", {"t": 2}), (3_000, "x", {"t": 99})]
    if form == "ndjson":
        lines = [json.dumps({"topic": topic, "payload": payload, "time": at}) for at, topic, payload in messages]
    else:
        lines = ["time,topic,payload", *(f'{at},{topic},"{{""t"":{p["t"]}}}"' for at, topic, p in messages)]
    path.write_text("\n".join(lines) + "\n")
    result = check(config, "--alert", "hot", "--recording", str(path))
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == "1970-01-01T00:00:01.000Z  firing   s/a: a has 31"
    assert result.output.splitlines()[-1] == "hot: would have fired once, for 1 topic; of 2 messages"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--alert", "hto"], 2, "did you mean hot?"),
        (["--alert", "hot", "--since", "yesterday"], 2, "--since"),
        (["--alert", "hot"], 1, "there is no such file"),
        (["--alert", "hot", "--recording", "nowhere.ndjson"], 1, "No such file"),
        (["--alert", "hot", "--recording", "broken.ndjson"], 1, "line 1"),
    ],
)
def test_what_is_wrong_is_told(
    config: Path, tmp_path: Path, arguments: list[str], code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.ndjson").write_text("{\n")
    result = check(config, *arguments)
    assert (result.exit_code, text in result.output) == (code, True), result.output


def test_without_an_archive_a_recording_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(ALERT)
    result = check(path, "--alert", "hot")
    assert (result.exit_code, "--recording" in result.output) == (2, True)

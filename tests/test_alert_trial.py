"""`gateway check --alert`: what an alert would have done, from an archive and from a recording."""

from __future__ import annotations

import json
import time
from datetime import datetime
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


# devices


OFFLINE = '[[alerts]]\nname = "lost"\ntopics = ["home/#"]\noffline = true\n'


def announcement(name: str, **members: object) -> bytes:
    said: dict[str, object] = {
        "name": "Temperature", "uniq_id": name, "stat_t": f"home/{name}/state",
        "val_tpl": "{{ value_json.temp }}", "dev": {"ids": name, "name": name.title()}, **members,
    }  # fmt: skip
    return json.dumps(said).encode()


def devices_config(tmp_path: Path, alert: str = OFFLINE) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(f'[archive]\nfile = "{tmp_path / "archive.db"}"\n\n{alert}')
    return path


def fill(path: Path, messages: list[tuple[float, str, bytes]]) -> int:
    """An archive with messages that came so many hours ago; returns the time of now."""
    now = time.time_ns() // 1_000_000
    importer = Importer(path)
    for hours, topic, payload in messages:
        importer.add(topic, payload, now - round(hours * 3_600_000), 0, topic.startswith("homeassistant/"), None)
    importer.close()
    return now


def told(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.partition("Z  ")[2] or line for line in result.output.splitlines()]


def test_devices_are_announced_and_say_goodbye_in_the_archive(tmp_path: Path) -> None:
    fill(
        tmp_path / "archive.db",
        [
            (100, "homeassistant/sensor/attic/config", announcement("attic", avty_t="home/attic/lwt")),
            (100, "homeassistant/sensor/mute/config", announcement("mute")),
            (99, "home/attic/lwt", b"online"),
            (50, "home/attic/lwt", b"offline"),
            (40, "home/attic/lwt", b"online"),
            (30, "home/mute/state", b'{"temp":1}'),
            (5, "home/attic/lwt", b"offline"),
            (4, "home/attic/lwt", b"online"),
            (3, "home/attic/lwt", b"offline"),
        ],
    )
    config = devices_config(tmp_path)
    assert told(check(config, "--alert", "lost")) == [
        "firing   home/attic/state: Attic is offline (home/attic/state)",
        "ok       home/attic/state: Attic is offline (home/attic/state)",
        "firing   home/attic/state: Attic is offline (home/attic/state)",
        "lost: would have fired 2 times, for 1 topic; of 3 messages",
        "it watched 2 devices",
        "1 of them never said whether they are there: of these nothing is known",
    ]
    assert "would have fired 3 times" in check(config, "--alert", "lost", "--since", "7d").output
    held = devices_config(tmp_path, f'{OFFLINE}for = "2h"\n')
    assert "would have fired once" in check(held, "--alert", "lost").output


def test_a_silence_of_a_device_counts_at_its_time_and_with_what_came_before(tmp_path: Path) -> None:
    talk = [(hours / 100, "home/other/x", b"1") for hours in range(2500, 0, -1)]
    messages = [
        (100, "homeassistant/sensor/attic/config", announcement("attic", exp_aft=3600)),
        (100, "homeassistant/sensor/cellar/config", announcement("cellar", exp_aft=3600)),
        (90, "home/cellar/state", b'{"temp":1}'),  # gone for long: nothing comes about
        *((hours, "home/attic/state", b'{"temp":1}') for hours in (24.5, 24, 23.5, 5, 4.5)),
    ]
    now = fill(tmp_path / "archive.db", sorted([*messages, *talk], key=lambda each: -each[0]))
    result = check(devices_config(tmp_path), "--alert", "lost")
    assert [line for line in told(result) if "home/" in line] == [
        "firing   home/attic/state: Attic is offline (home/attic/state)",
        "ok       home/attic/state: Attic is offline (home/attic/state)",
        "firing   home/attic/state: Attic is offline (home/attic/state)",
    ]
    times = [
        datetime.fromisoformat(line.partition("  ")[0]).timestamp() * 1000 for line in result.output.splitlines()[:3]
    ]
    assert [round((now - at) / 360_000) for at in times] == [225, 50, 35]
    assert "perhaps" not in result.output
    fired = check(devices_config(tmp_path), "--alert", "lost", "--since", "7d").output
    assert "would have fired 3 times, for 2 topics" in fired
    assert "1 of the times nothing at all had come" in fired, "before the others began to talk"


def test_devices_from_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "recording.ndjson"
    messages: list[tuple[int, str, object]] = [
        (1_000, "sensors/a/meta", {"name": "Attic", "interval": 5}),
        (2_000, "sensors/a/status", "online"),
        (3_000, "sensors/a/state", {"t": 1}),
        (60_000, "x", 1),
        (70_000, "sensors/a/state", {"t": 2}),
        (80_000, "sensors/a/status", "offline"),
    ]
    path.write_text("\n".join(json.dumps({"time": at, "topic": t, "payload": p}) for at, t, p in messages) + "\n")
    config = devices_config(tmp_path, OFFLINE.replace("home/#", "sensors/#"))
    result = check(config, "--alert", "lost", "--recording", str(path))
    assert [line[11:23] + line[24:] for line in result.output.splitlines()[:3]] == [
        "00:00:33.001  firing   sensors/a/state: Attic is offline (sensors/a/state)",
        "00:01:10.000  ok       sensors/a/state: Attic is offline (sensors/a/state)",
        "00:01:20.000  firing   sensors/a/state: Attic is offline (sensors/a/state)",
    ]


def test_where_no_device_is_announced_it_says_what_is_missing(tmp_path: Path) -> None:
    fill(tmp_path / "archive.db", [(5, "home/attic/lwt", b"offline")])
    assert "no device is known" in check(devices_config(tmp_path), "--alert", "lost").output

"""A new program over the air, on real MicroPython: what is brought, and what a power failure or a wrong file leaves."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firmware import files
from firmware.board import update
from tests.firmware.boards import PLENTY, STANDINS, Interpreter

KEY = "5e" * 32
SCRIPT = STANDINS / "update_on_lfs.py"


@pytest.mark.parametrize(
    ("key", "message", "digest"),
    [  # RFC 4231 §4.2, §4.3, §4.7
        ("0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe".hex(),
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            "aa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ],
)
def test_hmac_is_the_one_of_the_rfc(key: str, message: bytes, digest: str) -> None:
    assert update.hmac(bytes.fromhex(key), message).hex() == digest


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("board/app.mpy", True),
        ("board/drivers/adc.py", True),
        ("payloads.mpy", True),
        ("main.py", False),
        ("slots.mpy", False),
        ("slot.json", False),
        ("settings.json", False),
        ("/board/app.mpy", False),
        ("board/../main.py", False),
        ("board//app.mpy", False),
        ("board/app.txt", False),
        ("board/" + "x" * 80 + ".py", False),
        (5, False),
    ],
)
def test_only_files_of_the_program_come_over_the_air(name: Any, good: bool) -> None:
    assert update._is_name(name) is good


async def test_a_board_that_gets_no_answer_subscribes_again() -> None:
    """A broker that was killed comes back with the session as it was written last, and says that it knows it."""
    subscribed_at: list[int] = []
    questions: list[bytes] = []

    def ask(question: bytes) -> None:
        questions.append(question)
        if len(subscribed_at) == 2:
            updater.piece(b'{"of":"manifest","at":0,"size":1}\nx')

    updater = update.Updater(
        "kitchen", KEY, "1.0.0", lambda: subscribed_at.append(len(questions)), ask, print, 0.001, 30
    )
    with pytest.raises(update.UpdateError, match="wrong signature"):
        await updater.run()
    assert subscribed_at == [0, 4]
    assert len(questions) == 5


def program(marker: str) -> dict[str, bytes]:
    """Some files, of which one tells which program it is; `common.py` is the same in all."""
    return {
        "board/__init__.py": b"",
        "board/app.py": f"NAME = {marker!r}  # {marker * 300}\n".encode(),
        "board/drivers/common.py": b"SAME = 1\n" * 40,
        **{f"board/drivers/d{number}.py": f"# {number} {marker * 500}\n".encode() for number in range(4)},
        "payloads.py": f"PAYLOADS = {marker!r}\n".encode(),
    }


def manifest(
    content: dict[str, bytes], serial: int = 10, version: str = "1.1.0", key: str = KEY, **more: Any
) -> tuple[bytes, dict[str, bytes]]:
    """A signed manifest, and the files by their hashes."""
    listed = [[name, len(data), hashlib.sha256(data).hexdigest()] for name, data in content.items() if data]
    said = {"version": version, "serial": serial, "build": f"build{serial}", "files": listed, **more}
    text = json.dumps(said).encode()
    signature = hmac.new(bytes.fromhex(key), b"kitchen\n" + text, hashlib.sha256).hexdigest()
    by_hash = {hashlib.sha256(data).hexdigest(): data for data in content.values()}
    return text + b"\n" + signature.encode(), by_hash


Run = Callable[..., list[str]]


@pytest.fixture
def run(interpreter: Interpreter, standins: Path, tmp_path: Path) -> Run:
    """Runs update_on_lfs.py under MicroPython with the real update.py and slots.py on a real LittleFS; its lines."""

    def running(mode: str, signed: bytes, by_hash: dict[str, bytes], **more: Any) -> list[str]:
        folder = tmp_path / "computer"
        folder.mkdir(exist_ok=True)
        for name in ("slots.py", "update.py", "ticks.py"):
            target = folder / ("slots.mpy" if name == "slots.py" else f"board/{name[:-3]}.mpy")
            target.parent.mkdir(exist_ok=True)
            files.compile_file(files.BOARD / name, target, name)
        files.compile_file(files.sources()["payloads.py"], folder / "payloads.mpy", "payloads.py")
        (folder / "board" / "__init__.py").write_text("")
        (folder / "script.py").write_text(SCRIPT.read_text())
        (folder / "lfs.py").write_text(SCRIPT.with_name("lfs.py").read_text())
        old = {name: data.decode() for name, data in program("old").items()}
        asked = {"mode": mode, "old": old, "manifest": signed.decode(), "key": KEY, **more}
        asked["files"] = {digest: data.decode() for digest, data in by_hash.items()}
        (folder / "asked.json").write_text(json.dumps(asked))
        command = interpreter.command(folder, standins, f"update-{tmp_path.name[-12:]}", *PLENTY, "script.py")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout.splitlines()

    return running


def test_a_new_program_is_brought_and_starts_on_trial(run: Run) -> None:
    said = run("once", *manifest(program("new")))
    assert said == ["switched", "slot a left 3", "starts new", "asked 6 files"]  # the others were there


def test_the_same_program_is_not_brought_again(run: Run) -> None:
    said = run("once", *manifest(program("old")))
    assert said == ["same", "slot  left None", "starts old", "asked 0 files"]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"key": "00" * 32}, "wrong signature"),
        ({"version": "0.9.9"}, "0.9.9 is older"),
        ({"serial": 4}, "1.1.0 is older"),
        ({"version": "x"}, "a manifest that this program does not understand"),
        ({"files": [["main.py", 5, "0" * 64]]}, "a manifest that this program does not understand"),
        ({"files": [["board/app.py", 1 << 30, "0" * 64]]}, "a manifest that this program does not understand"),
        ({"files": []}, "a manifest that this program does not understand"),
    ],
)
def test_a_manifest_that_is_not_good_changes_nothing(run: Run, what: dict[str, Any], why: str) -> None:
    said = run("once", *manifest(program("new"), **what), serial=5)
    assert said[0].startswith(f"refused: {why}"), said
    assert said[1:] == ["slot  left None", "starts old", "asked 0 files"]


def test_an_older_version_is_taken_when_whoever_signs_says_so(run: Run) -> None:
    assert run("once", *manifest(program("new"), version="0.9.9", older=True))[0] == "switched"


def test_another_boards_manifest_is_refused(run: Run) -> None:
    said = run("once", *manifest(program("new")), id="attic")
    assert said[0].startswith("refused: wrong signature")


def test_a_broken_file_changes_nothing(run: Run) -> None:
    signed, by_hash = manifest(program("new"))
    digest = hashlib.sha256(program("new")["board/app.py"]).hexdigest()
    by_hash[digest] = by_hash[digest].replace(b"new", b"evi", 1)
    said = run("once", signed, by_hash)
    assert said[0] == "refused: board/app.py does not have the hash that the manifest names"
    assert said[1:3] == ["slot  left None", "starts old"]


def test_a_file_that_flash_spoils_is_noticed_before_the_switch(run: Run) -> None:
    said = run("once", *manifest(program("new")), spoil="board/app.py")
    assert said[0] == "refused: board/app.py was written and reads as something else"
    assert said[2] == "starts old"


def test_no_room_is_told_and_changes_nothing(run: Run) -> None:
    said = run("once", *manifest(program("new")), blocks=14)
    assert said[0].startswith("refused: there is no room for it")
    assert said[2] == "starts old"


def test_somebody_who_stops_giving_is_given_up(run: Run) -> None:
    said = run("once", *manifest(program("new")), stop_after=3)
    assert said[0].startswith("refused: nobody gave it")
    assert said[2] == "starts old"


def test_questions_and_pieces_may_get_lost_come_twice_or_come_late(run: Run) -> None:
    said = run("once", *manifest(program("new")), lossy=True)
    assert said[:3] == ["switched", "slot a left 3", "starts new"]


@pytest.mark.slow
def test_power_may_fail_at_every_write(run: Run) -> None:
    """A LittleFS whose block device stops at the n-th write or erase, for each n, then once more while it starts."""
    said = run("cuts", *manifest(program("new")))
    told = dict(line.split(": ") for line in said)
    assert int(told["cuts"]) > 60
    assert int(told["old"]) > 50
    assert int(told["new"]) >= 1
    assert int(told["old"]) + int(told["new"]) == int(told["cuts"])
    assert told["broken"] == "0"
    assert told["completed afterwards"] == told["cuts"]


def test_a_program_that_does_not_prove_itself_goes_back(run: Run) -> None:
    later, _ = manifest(program("new"), serial=11)
    said = run("trial", *manifest(program("new")), later=later.decode())
    assert said == [
        "switched",
        *["starts new"] * 3,
        "starts old",
        "failed it did not reach the broker in 3 starts",
        "build None",
        "switched",  # offered again, signed later
        "starts new",
        "confirmed",
        *["starts new"] * 5,
        "build build11",
    ]

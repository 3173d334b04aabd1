"""The log: its two forms, what never gets into it, and that neither rotation nor a full disk stops anything."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from gateway.ops.logs import set_up_logging
from tests.conftest import MakeGateway
from tests.support.waiting import eventually

TOKEN = mint(secret_key("0123456789abcdef" * 2), ttl_seconds=86_400, subject="alice")
logger = logging.getLogger("gateway.test")


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    """Leaves the process's logging as it was."""
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises
    logging.getLogger("uvicorn.access").disabled = False


def logged(form: str, text: str, error: Exception | None = None, **extra: object) -> str:
    stream = io.StringIO()
    set_up_logging(form, "info", stream)
    logger.info("%s", text, exc_info=error, extra=extra)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_token_is_hidden_wherever_it_stands(form: str) -> None:
    error = ValueError(f"bad address ws://localhost/ws?topic=a&token={TOKEN}")
    for text in (
        f"GET /ws?topic=a&token={TOKEN}",
        f"Authorization: Bearer {TOKEN}",
        f'< TEXT {{"token":"{TOKEN}"}}',
        TOKEN,
    ):
        entry = logged(form, text, error, path=f"/ws?token={TOKEN}")
        assert "[redacted]" in entry
        for part in TOKEN.split("."):
            assert part not in entry


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize(
    "text",
    [
        "< authorization: Basic dXNlcjpTRUNSRVQ=",
        "< Proxy-Authorization: Digest username=x, response=SECRET",
        "< cookie: theme=dark; sid=SECRET",
        "> set-cookie: sid=SECRET; HttpOnly",
        "headers {'cookie': 'sid=SECRET', 'host': 'seen'}",
        "headers [(b'authorization', b'Basic dXNlcjpTRUNSRVQ=')]",
    ],
)
def test_the_whole_value_of_a_header_with_credentials_is_hidden(form: str, text: str) -> None:
    entry = logged(form, text)
    assert "[redacted]" in entry
    assert "SECRET" not in entry
    assert "dXNlcjp" not in entry
    assert ("'seen'" in entry) == ("'seen'" in text)


def test_an_entry_is_a_json_object_with_what_was_added() -> None:
    entry = json.loads(logged("json", "connected", connection="a-1", count=3))
    assert entry["message"] == "connected"
    assert (entry["connection"], entry["count"], entry["level"], entry["logger"]) == ("a-1", 3, "info", "gateway.test")
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize("hostile", ["a\nb", "a\r\nb", "\x1b[31m", "\u2028", "\x85", "\0"])
def test_no_text_begins_a_line_or_drives_a_terminal(hostile: str) -> None:
    error = ValueError(f"x{hostile}2026-01-01 forged")
    human = logged("human", hostile, error)
    first, *trace = human.splitlines()
    assert not set(first) & set(hostile.replace("a", "").replace("b", "").replace("[31m", ""))
    assert all(line.startswith("    ") for line in trace)
    assert "\x1b" not in human
    assert logged("json", hostile, error).count("\n") == 1


def test_a_file_that_is_rotated_away_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "gateway.log"
    set_up_logging("human", "info", file=file)
    logger.info("one")
    file.rename(tmp_path / "gateway.log.1")
    logger.info("two")
    file.unlink()
    logger.info("three")
    assert "one" in (tmp_path / "gateway.log.1").read_text()
    assert "two" not in (tmp_path / "gateway.log.1").read_text()
    assert "three" in file.read_text()


def test_a_file_whose_folder_comes_and_goes_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    set_up_logging("human", "info", file=folder / "gateway.log")
    logger.info("one")
    shutil.rmtree(folder)
    logger.info("lost")
    folder.mkdir()
    logger.info("again")
    assert "again" in (folder / "gateway.log").read_text()


def test_a_full_disk_stops_nothing(make_gateway: MakeGateway) -> None:
    gateway = make_gateway("mqtt://127.0.0.1:1", ready=False, log_file="/dev/full", log_level="debug")
    for _ in range(20):
        assert gateway.get("/topics/a", {"Origin": "https://evil.example"})[0] == 403
    assert gateway.is_alive
    assert gateway.log() == ""
    assert gateway.stop() == 0


@pytest.mark.slow
def test_a_gateway_whose_log_is_rotated_goes_on(make_gateway: MakeGateway, tmp_path: Path) -> None:
    file = tmp_path / "rotated.log"
    gateway = make_gateway("mqtt://127.0.0.1:1", ready=False, log_file=str(file))
    eventually(file.exists, 10, "the log")
    file.rename(tmp_path / "rotated.log.1")
    gateway.get("/topics/a", {"Origin": "https://evil.example"})
    eventually(lambda: "refused GET" in file.read_text(), 10, "the new log")
    assert gateway.is_alive


@pytest.mark.slow
def test_a_debug_log_holds_no_token(make_gateway: MakeGateway) -> None:
    from websockets.sync.client import connect

    gateway = make_gateway("mqtt://127.0.0.1:1", ready=False, log_level="debug", access_secret="0123456789abcdef" * 2)
    headers = {"Authorization": f"Bearer {TOKEN}", "Cookie": "sid=OPAQUECOOKIE"}
    with connect(f"{gateway.ws}/ws?token={TOKEN}", additional_headers=headers, open_timeout=30) as ws:
        ws.send(json.dumps({"command": "authenticate", "token": TOKEN, "id": "PAYLOADMARK"}))
        ws.recv(30)
    basic = {"Authorization": "Basic dXNlcjpCQVNJQ1BBU1M="}
    with connect(f"{gateway.ws}/ws?topic=QUERYMARK", additional_headers=basic, open_timeout=30) as ws:
        ws.recv(30)
    gateway.get(f"/topics/QUERYPATH?token={TOKEN}&x=QUERYMARK", basic)
    assert gateway.stop() == 0
    log = gateway.log()
    assert "closed after" in log
    for part in (*TOKEN.split("."), "OPAQUECOOKIE", "QUERYMARK", "PAYLOADMARK", "dXNlcjp"):
        assert part not in log


def test_a_log_that_cannot_be_written_is_said_at_the_start(make_gateway: MakeGateway) -> None:
    gateway = make_gateway("mqtt://127.0.0.1:1", start=False, log_file="/nonexistent/gateway.log")
    with pytest.raises(RuntimeError, match=r"log_file '/nonexistent/gateway.log' can't be written: No such file"):
        gateway.start(ready=False)

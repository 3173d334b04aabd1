"""`gateway record` as a process against a real gateway, and what it writes played again by `sensors-sim replay`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as socket_server

from gateway.core.recordings import read_ndjson
from sensors_sim.replay import read_recording

from .support.brokers import Broker
from .support.gateways import GatewayProcess
from .support.publishers import Publisher
from .support.waiting import eventually

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def record(gateway: GatewayProcess) -> Iterator[Start]:
    """Starts `gateway record` on the gateway; what still runs is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object, limit: int | None = None) -> subprocess.Popen[str]:
        """`limit`: how many bytes a file of its may have."""
        command = [sys.executable, "-m", "gateway", "record", "--url", gateway.ws, *map(str, arguments)]
        if limit is not None:
            script = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
            script += "sys.argv = ['gateway', *sys.argv[1:]]; runpy.run_module('gateway', run_name='__main__')"
            command[1:3] = ["-B", "-c", script.format(limit)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def recording(path: Path, publisher: Publisher, topic: str) -> None:
    """Returns when what is published on the topic is recorded: it is published until then."""

    def is_there() -> bool:
        publisher.publish(topic, b"0")
        return path.exists() and path.stat().st_size > 0

    eventually(is_there, 15, f"{topic} in {path}")


def test_messages_are_recorded_as_they_came_and_played_again(
    mosquitto: Broker, publisher: Publisher, record: Start, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "recorded.ndjson"
    process = record(f"{prefix}/#", "-o", path)
    recording(path, publisher, f"{prefix}/start")
    said = {
        f"{prefix}/json": b'{"a": 1.50,\n "b": "\xc3\xa9"}',
        f"{prefix}/text": b"on",
        f"{prefix}/bytes": b"\xff\x00",
        f"{prefix}/empty": b"",
        f"{prefix}/end": b"1",
    }
    publisher.publish(f"{prefix}/told", b"1", properties={"ContentType": "text/plain", "UserProperty": ("a", "b")})
    for topic, payload in said.items():
        publisher.publish(topic, payload)
    eventually(lambda: lines(path)[-1]["topic"] == f"{prefix}/end", 10, "the last message in the file")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert f"messages in {path}" in (process.stderr.read() if process.stderr else "")

    messages = {item.message.topic: item.message for item in read_recording(str(path))}
    told = messages[f"{prefix}/told"].properties
    assert told == {"content_type": "text/plain", "user_properties": [("a", "b")]}
    played = {topic: message.payload for topic, message in messages.items()}
    for topic, payload in said.items():
        # a line break between tokens becomes a space, for a message is one line
        assert played[topic] == payload.replace(b"\n", b" ")

    with Publisher(mosquitto.url) as listener:
        listener.subscribe(f"again/{prefix}/#")
        done = subprocess.run(
            [
                sys.executable, "-m", "sensors_sim", "replay", str(path), "--broker", mosquitto.url,
                "--prefix", "again/", "--speed", "100x",
            ],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        listener.wait_for(f"again/{prefix}/end", b"1")
    again = {topic.removeprefix("again/"): payload for topic, payload in listener.received}
    assert again == played


@pytest.mark.slow
def test_recording_ends_after_a_count_or_a_time(
    publisher: Publisher, record: Start, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "counted.ndjson"
    process = record(f"{prefix}/#", "-o", path, "--count", 1)
    recording(path, publisher, f"{prefix}/a")
    assert process.wait(30) == 0
    assert len(lines(path)) == 1
    assert record(f"{prefix}/none", "-o", tmp_path / "x", "--for", "0.3s").wait(30) == 0
    assert (tmp_path / "x").read_bytes() == b""


def test_recording_may_begin_in_the_past_and_append(
    publisher: Publisher, record: Start, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "past.ndjson"
    for number in range(3):
        publisher.publish(f"{prefix}/a", b"%d" % number)
    assert record(f"{prefix}/a", "-o", path, "--since", "1m", "--count", 3).wait(30) == 0
    assert [line["payload"] for line in lines(path)] == [0, 1, 2]
    assert record(f"{prefix}/a", "-o", path, "--append", "--since", "last", "--count", 1).wait(30) == 0
    assert [line["payload"] for line in lines(path)] == [0, 1, 2, 2]


def test_a_full_disk_is_one_clear_message(publisher: Publisher, record: Start, prefix: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    publisher.publish(f"{prefix}/a", b"1")
    process = record(f"{prefix}/a", "-o", "/dev/full", "--since", "1m", "--count", 1)
    assert process.wait(30) == 1
    stderr = process.stderr.read() if process.stderr else ""
    assert "can't write /dev/full: No space left on device" in stderr
    assert "gateway: 0 messages in /dev/full" in stderr
    assert "Traceback" not in stderr


def test_what_was_written_before_the_disk_was_full_stays_in_whole_lines(
    publisher: Publisher, record: Start, prefix: str, tmp_path: Path
) -> None:
    pytest.importorskip("resource", reason="limits on the size of files are POSIX")
    path = tmp_path / "cut.ndjson"
    path.write_text('{"topic":"before","payload":1}\n', encoding="utf-8")
    for number in range(10):
        publisher.publish(f"{prefix}/a", b'"%d%s"' % (number, b"." * 200))
    # a file that may have 1,500 bytes takes a part of a message, as a disk does that runs full
    process = record(f"{prefix}/a", "-o", path, "--append", "--since", "1m", "--count", 10, limit=1_500)
    assert process.wait(30) == 1
    stderr = process.stderr.read() if process.stderr else ""
    assert f"can't write {path}: File too large" in stderr
    assert "Traceback" not in stderr
    kept = lines(path)
    assert kept[0] == {"topic": "before", "payload": 1}
    assert 1 < len(kept) < 11
    assert [line["payload"][0] for line in kept[1:]] == [str(number) for number in range(len(kept) - 1)]
    assert f"gateway: {len(kept) - 1} messages in {path}" in stderr


@pytest.mark.slow  # it waits between its four reconnects
def test_a_cut_right_after_the_answer_loses_nothing_of_the_replay(tmp_path: Path) -> None:
    """A gateway that is cut off before each of its frames, one further each time."""
    epoch, head = "k3f9", 14
    log = {seq: f'{{"topic":"t","payload":{seq},"time":1,"seq":{seq}}}' for seq in range(1, head + 1)}
    asked: list[str] = []

    def serve(socket: ServerConnection) -> None:
        command = json.loads(socket.recv())
        asked.append(command["since"])
        after = 4 if command["since"] == "10m" else int(command["since"].partition(":")[2])
        members = {"topics": ["t"], "position": f"{epoch}:{head}", "recovered": True, "from": after}
        frames = [json.dumps({"event": "subscribed", "id": command["id"], **members})]
        frames += [text for seq, text in log.items() if seq > after]
        frames += [json.dumps({"event": "replayed", "id": command["id"]})]
        for frame in frames[: len(asked)]:
            socket.send(frame)
        socket.close(1012)

    path = tmp_path / "cut.ndjson"
    with socket_server(serve, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        arguments = ["record", "t", "--url", url, "-o", str(path), "--since", "10m", "--count", "10"]
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments], check=False, capture_output=True, text=True, timeout=60
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert [line["seq"] for line in lines(path)] == list(range(5, 15))
    assert asked == ["10m", f"{epoch}:4", f"{epoch}:5", f"{epoch}:7", f"{epoch}:10"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["a/#/b"], 2, "'#' must be the last level"),
        (["a", "--for", "soon"], 2, "expected a time such as"),
        (["a", "-o", "/nowhere/x"], 2, "can't write /nowhere/x"),
    ],
)
def test_what_is_wrong_is_one_clear_message(record: Start, arguments: list[str], code: int, text: str) -> None:
    process = record(*arguments)
    assert process.wait(30) == code
    stderr = process.stderr.read() if process.stderr else ""
    assert text in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("line", [b"{", b'{"topic":"\xff","payload":1,"time":1}', b'{"topic":' + b"[" * 5_000])
def test_a_line_that_is_none_is_named(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^line 2: "):
        list(read_ndjson([b"\n", line]))

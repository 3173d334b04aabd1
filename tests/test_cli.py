"""The command line, as processes: what is printed where, and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection
from websockets.typing import Origin

from gateway.client.connection import RefusedError, decode, socket_url
from gateway.demo import demo as demo_module
from gateway.transport.sockets import is_free
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker, BrokerOptions, has_amqtt, mosquitto_program
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import PATIENCE_SECONDS, eventually, free_port, missing

ROOT = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"} | more


def run(
    *arguments: str, environ: Mapping[str, str] | None = None, stdin: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env=environment(**(environ or {})),
        input=stdin,
        capture_output=True,
        timeout=60,
        cwd=cwd,
        check=False,
    )


class Running:
    """A command that goes on until it is told to stop; its output is collected as it comes."""

    def __init__(self, *arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "gateway", *arguments],
            env=environment(**(environ or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._threads = []
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            assert stream is not None
            thread = threading.Thread(target=self._collect, args=(stream, lines), daemon=True)
            thread.start()
            self._threads.append(thread)

    @staticmethod
    def _collect(stream: Iterator[bytes], lines: list[str]) -> None:
        for line in stream:
            lines += [line.decode(errors="replace").rstrip("\n")]  # seen by the test at once

    def stop(self, number: signal.Signals = signal.SIGINT, timeout_seconds: float = 15) -> int:
        self.process.send_signal(number)
        return self.wait(timeout_seconds)

    def wait(self, timeout_seconds: float = 15) -> int:
        code = self.process.wait(timeout_seconds)
        for thread in self._threads:
            thread.join(30)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                # what a demo leaves behind then goes by itself
                self.process.kill()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def running(*arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Iterator[Running]:
    command = Running(*arguments, environ=environ, cwd=cwd)
    try:
        yield command
    finally:
        command.close()


def is_clean(result: subprocess.CompletedProcess[bytes] | Running) -> bool:
    error = result.stderr.decode() if isinstance(result, subprocess.CompletedProcess) else "\n".join(result.err)
    return "Traceback" not in error


class TestServe:
    @pytest.mark.parametrize(
        ("arguments", "environ", "text"),
        [
            (["--prot", "1"], {}, "No such option"),
            (["--mqtt-url", "localhost"], {}, "--mqtt-url = 'localhost': has no scheme\n    → write mqtt://localhost"),
            (["--mqtt-topics", "a/#/b"], {}, "topic filter 'a/#/b': '#' must be the last level"),
            ([], {"GATEWAY_PROT": "1"}, "GATEWAY_PROT: is not a setting\n    → did you mean GATEWAY_PORT?"),
            (["--host", "0.0.0.0"], {}, "listens on loopback addresses only"),
            (["--host", "192.0.2.1", "--allow-anonymous"], {}, "this machine has no such address"),
            (["--host", "name.invalid", "--allow-anonymous"], {}, "this name has no address"),
            (["--config", "none.toml"], {}, "none.toml: can't be read"),
        ],
    )
    def test_wrong_settings_give_one_clear_message_and_code_2(
        self, arguments: list[str], environ: dict[str, str], text: str, tmp_path: Path
    ) -> None:
        result = run("serve", *arguments, environ=environ, cwd=tmp_path)
        assert result.returncode == 2
        assert text in result.stderr.decode()
        assert is_clean(result)
        assert result.stdout == b""

    def test_an_unknown_key_in_the_file_is_told_with_what_was_meant(self, tmp_path: Path) -> None:
        (tmp_path / "gateway.toml").write_text("[mqtt]\nurll = 'x'\n")
        result = run("serve", cwd=tmp_path)
        assert result.returncode == 2
        assert "did you mean [mqtt] url?" in result.stderr.decode()

    def test_a_port_that_is_taken_is_told_before_anything_starts(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            result = run("serve", "--port", str(taken.getsockname()[1]))
        assert result.returncode == 2
        assert "something else listens there; stop it, or choose another port with --port" in result.stderr.decode()
        assert is_clean(result)

    def test_a_broker_that_refuses_the_password_is_a_visible_state(
        self, make_mosquitto: MakeMosquitto, make_gateway: MakeGateway
    ) -> None:
        broker = make_mosquitto(BrokerOptions(users={"gateway": "right"}))
        gateway = make_gateway(broker, ready=False, mqtt_username="gateway", mqtt_password="wrong-password")
        status, body = gateway.get("/health/ready")
        assert status == 503
        eventually(lambda: "Not authorized" in gateway.get("/health/ready")[1].decode(), 10, "readiness says why")
        assert "Not authorized" in gateway.log()
        assert "wrong-password" not in gateway.log() + body.decode()
        assert "Traceback" not in gateway.log()
        assert gateway.is_alive

    def test_it_starts_and_serves_while_the_broker_is_down(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway(f"mqtt://127.0.0.1:{free_port()}", ready=False)
        assert gateway.get("/health/live")[0] == 200
        assert gateway.get("/health/ready")[0] == 503
        assert gateway.get("/")[0] == 200
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log()

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_in_order(self, number: signal.Signals, mosquitto: Broker, prefix: str) -> None:
        arguments = ["--port", "0", "--mqtt-url", mosquitto.url, "--mqtt-client-id", prefix, "--log-format", "human"]
        with running("serve", *arguments) as gateway:
            eventually(lambda: any("connected to the broker" in line for line in gateway.err), 15, "it is connected")
            assert gateway.stop(number) == 0
        assert is_clean(gateway)

    def test_it_logs_json_where_nobody_looks(self, make_gateway: MakeGateway, mosquitto: Broker) -> None:
        gateway = make_gateway(mosquitto)
        entries = [json.loads(line) for line in gateway.log().splitlines()]
        assert entries
        assert all({"time", "level", "logger", "message"} <= set(entry) for entry in entries)


class TestCheck:
    def test_shows_each_setting_with_its_origin(self, tmp_path: Path) -> None:
        (tmp_path / "gateway.toml").write_text("[history]\nbytes = '512MiB'\n")
        result = run("check", "--port", "8001", environ={"GATEWAY_LOG_LEVEL": "debug"}, cwd=tmp_path)
        assert result.returncode == 0
        table, _, memory = result.stdout.decode().rstrip().rpartition("\n\n")
        lines = dict(re.split(r"\s+", line, maxsplit=1) for line in table.splitlines() if line)
        assert re.fullmatch(r"8001\s+--port", lines["port"])
        assert re.fullmatch(r"512MiB\s+gateway.toml: \[history\] bytes", lines["history_bytes"])
        assert re.fullmatch(r"debug\s+GATEWAY_LOG_LEVEL", lines["log_level"])
        assert re.fullmatch(r"mqtt://localhost:1883\s+default", lines["mqtt_url"])
        assert "History takes at most 512 MiB" in memory

    def test_never_shows_a_secret(self) -> None:
        environ = {
            "GATEWAY_MQTT_URL": "mqtt://me:hunter2@host",
            "GATEWAY_ACCESS_SECRET": "s3cret0123456789" * 2,
        }
        result = run("check", environ=environ)
        assert result.returncode == 0
        assert b"hunter2" not in result.stdout + result.stderr
        assert b"s3cret" not in result.stdout + result.stderr
        assert result.stdout.count(b"(set, not shown)") == 2

    def test_ends_with_code_2_where_serve_would(self) -> None:
        result = run("check", "--port", "x", "--history-age", "y")
        assert result.returncode == 2
        assert result.stderr.startswith(b"gateway: 2 problems with the settings:\n")
        assert is_clean(result)


class TestSub:
    @pytest.mark.slow
    def test_shows_on_a_terminal_what_would_steer_it(
        self, gateway: GatewayProcess, publisher: Publisher, prefix: str
    ) -> None:
        attack = b"\x1b]52;c;ZXZpbA==\x07\x1b[2J\xc2\x9b31m\ttwo\nlines"
        publisher.publish(f"{prefix}/a", attack, retain=True)
        leader, follower = pty.openpty()
        command = [sys.executable, "-m", "gateway", "sub", f"{prefix}/#", "--url", gateway.ws, "--count", "1"]
        with subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE) as sub:
            assert sub.wait(30) == 0
        os.close(follower)
        shown = os.read(leader, 10_000)
        os.close(leader)
        assert shown == f"{prefix}/a ".encode() + rb"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m" + b"\ttwo\r\nlines\r\n"
        piped = subprocess.run(command, capture_output=True, check=True, timeout=30)
        assert piped.stdout == f"{prefix}/a ".encode() + attack + b"\n"

    def test_prints_topic_and_payload_line_by_line(
        self, gateway: GatewayProcess, publisher: Publisher, prefix: str
    ) -> None:
        payloads = [b"21.50", b'{"a": 1,\n "b": 2}', b"plain text", b"\xff\x00\xfe", b"", b'"quoted"', b"NaN"]
        with running("sub", f"{prefix}/#", "--url", gateway.ws, "--count", str(len(payloads) + 1)) as sub:
            self._wait_until_subscribed(sub, publisher, prefix)
            for payload in payloads:
                publisher.publish(f"{prefix}/x", payload)
            assert sub.wait() == 0
        assert sub.out[-len(payloads) :] == [
            f"{prefix}/x 21.50",
            f'{prefix}/x {{"a": 1,  "b": 2}}',
            f"{prefix}/x plain text",
            prefix + "/x " + b"\xff\x00\xfe".decode(errors="replace"),
            f"{prefix}/x ",
            f"{prefix}/x quoted",
            f"{prefix}/x NaN",
        ]
        assert sub.err == []

    @staticmethod
    def _wait_until_subscribed(sub: Running, publisher: Publisher, prefix: str) -> None:
        # the last value is replayed, so it arrives whether it is published before or after the subscription
        publisher.publish(f"{prefix}/first", b"1")
        eventually(lambda: sub.out, 15, "the subscription works")

    def test_json_is_the_message_as_it_came(self, gateway: GatewayProcess, publisher: Publisher, prefix: str) -> None:
        publisher.publish(f"{prefix}/x", b'{"a":\n1}')
        result = run("sub", f"{prefix}/#", "--url", gateway.ws, "--count", "1", "--json", "--timeout", "10")
        assert result.returncode == 0
        [line] = result.stdout.splitlines()
        message = json.loads(line)
        assert message["topic"] == f"{prefix}/x"
        assert message["payload"] == {"a": 1}
        assert {"time", "seq"} <= set(message)

    def test_payload_only(self, gateway: GatewayProcess, publisher: Publisher, prefix: str) -> None:
        publisher.publish(f"{prefix}/x", b"21.5")
        result = run("sub", f"{prefix}/#", "-u", gateway.ws, "-C", "1", "-p", "-W", "10")
        assert (result.returncode, result.stdout) == (0, b"21.5\n")

    def test_out_of_time_is_code_27_as_with_mosquitto_sub(self, gateway: GatewayProcess, prefix: str) -> None:
        result = run("sub", f"{prefix}/none", "--url", gateway.ws, "--timeout", "0.5")
        assert (result.returncode, result.stdout, result.stderr) == (27, b"", b"")

    def test_nobody_there_is_code_1(self) -> None:
        result = run("sub", "a", "--url", f"ws://127.0.0.1:{free_port()}")
        assert result.returncode == 1
        assert b"Connection refused" in result.stderr
        assert is_clean(result)

    def test_something_else_there_is_code_1(self, mosquitto: Broker) -> None:
        result = run("sub", "a", "--url", mosquitto.url.replace("mqtt://", "ws://"))
        assert result.returncode == 1
        assert is_clean(result)

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["a/#/b"], "'#' must be the last level"),
            (["a", "--url", "ftp://x"], "is not the address of a gateway"),
            (["a", "--since", "yesterday"], "since 'yesterday': must be last, now, a time back"),
            (["a", "--count", "0"], "--count"),
            ([], "FILTER"),
        ],
    )
    def test_wrong_arguments_are_code_2(self, arguments: list[str], text: str) -> None:
        result = run("sub", *arguments)
        assert result.returncode == 2
        assert text in result.stderr.decode()

    def test_what_the_gateway_refuses_is_code_1_with_its_words(self, gateway: GatewayProcess) -> None:
        result = run("sub", *(f"a/{number}" for number in range(101)), "--url", gateway.ws, "--timeout", "10")
        assert result.returncode == 1
        assert "at most 100" in result.stderr.decode()

    def test_a_reader_that_leaves_ends_it_quietly(
        self, gateway: GatewayProcess, publisher: Publisher, prefix: str
    ) -> None:
        publisher.publish(f"{prefix}/x", b"1")
        with subprocess.Popen(
            [sys.executable, "-m", "gateway", "sub", f"{prefix}/#", "--url", gateway.ws],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as sub:
            assert sub.stdout is not None
            assert sub.stderr is not None
            assert sub.stdout.readline() == f"{prefix}/x 1\n".encode()
            sub.stdout.close()
            publisher.publish(f"{prefix}/x", b"2")
            assert sub.wait(30) == 0
            assert sub.stderr.read() == b""

    def test_ctrl_c_ends_it_quietly(self, gateway: GatewayProcess, publisher: Publisher, prefix: str) -> None:
        with running("sub", f"{prefix}/#", "--url", gateway.ws) as sub:
            self._wait_until_subscribed(sub, publisher, prefix)
            assert sub.stop(signal.SIGINT) == 130
        assert sub.err == []

    @pytest.mark.slow
    def test_it_comes_back_after_a_restart_of_the_gateway(
        self, make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str
    ) -> None:
        gateway = make_gateway(mosquitto)
        with running("sub", f"{prefix}/#", "--url", gateway.ws) as sub:
            self._wait_until_subscribed(sub, publisher, prefix)
            gateway.stop()
            eventually(lambda: any("trying again" in line for line in sub.err), 10, "the cut is told")
            gateway.start()
            publisher.publish(f"{prefix}/x", b"after")
            eventually(lambda: f"{prefix}/x after" in sub.out, 20, "messages come again")
        assert is_clean(sub)

    @pytest.mark.slow
    def test_without_reconnect_a_cut_is_code_1(
        self, make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str
    ) -> None:
        gateway = make_gateway(mosquitto)
        with running("sub", f"{prefix}/#", "--url", gateway.ws, "--no-reconnect") as sub:
            self._wait_until_subscribed(sub, publisher, prefix)
            gateway.stop()
            assert sub.wait() == 1


class TestPub:
    @pytest.mark.parametrize("qos", ["0", "1", "2"])
    def test_publishes_the_text_as_it_is(
        self, qos: str, gateway: GatewayProcess, publisher: Publisher, prefix: str
    ) -> None:
        publisher.subscribe(f"{prefix}/#")
        result = run("pub", f"{prefix}/x", '{"a": 1}', "--url", gateway.ws, "--qos", qos)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
        eventually(lambda: (f"{prefix}/x", b'{"a": 1}') in publisher.received)

    def test_each_line_of_standard_input(self, gateway: GatewayProcess, publisher: Publisher, prefix: str) -> None:
        lines = [f"line {n}" for n in range(30)] + ["", '"quoted"', "ünïcode"]
        publisher.subscribe(f"{prefix}/#")
        result = run(
            "pub", f"{prefix}/x", "-l", "--url", gateway.ws, "-q", "1", stdin="\r\n".join(lines).encode() + b"\n"
        )
        assert result.returncode == 0, result.stderr
        eventually(lambda: [payload.decode() for _, payload in publisher.received] == lines, 10, "all lines, in order")

    @pytest.mark.slow
    def test_more_than_the_limit_per_second_takes_its_time_and_loses_nothing(
        self, make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str
    ) -> None:
        gateway = make_gateway(mosquitto, limit_commands_per_second=20, limit_publishes_per_second=20)
        lines = [str(n) for n in range(60)]
        publisher.subscribe(f"{prefix}/#")
        result = run("pub", f"{prefix}/x", "-l", "--url", gateway.ws, "-q", "1", stdin="\n".join(lines).encode())
        assert result.returncode == 0, result.stderr
        eventually(lambda: [payload.decode() for _, payload in publisher.received] == lines, 10, "all lines, in order")

    @pytest.mark.slow
    def test_bytes_from_a_file(
        self, gateway: GatewayProcess, publisher: Publisher, prefix: str, tmp_path: Path
    ) -> None:
        (tmp_path / "payload").write_bytes(b"\xff\x00\n\xfe")
        publisher.subscribe(f"{prefix}/#")
        assert run("pub", f"{prefix}/x", "-f", str(tmp_path / "payload"), "--url", gateway.ws).returncode == 0
        assert run("pub", f"{prefix}/x", "-s", "--url", gateway.ws, stdin=b"a\nb").returncode == 0
        assert run("pub", f"{prefix}/x", "-n", "--url", gateway.ws).returncode == 0
        eventually(lambda: [payload for _, payload in publisher.received] == [b"\xff\x00\n\xfe", b"a\nb", b""])

    def test_a_retained_message_is_kept_by_the_broker(
        self, gateway: GatewayProcess, publisher: Publisher, prefix: str
    ) -> None:
        assert run("pub", f"{prefix}/x", "kept", "--retain", "--qos", "1", "--url", gateway.ws).returncode == 0
        publisher.subscribe(f"{prefix}/#")
        eventually(lambda: (f"{prefix}/x", b"kept") in publisher.received)

    @pytest.mark.slow
    def test_without_a_broker_is_code_1(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway(f"mqtt://127.0.0.1:{free_port()}", ready=False)
        result = run("pub", "a/b", "x", "--url", gateway.ws)
        assert result.returncode == 1
        assert "broker" in result.stderr.decode()
        assert is_clean(result)

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["a/#", "x"], "'#' is allowed only in a topic filter"),
            (["a"], "give one payload"),
            (["a", "x", "-l"], "give one payload"),
            (["a", "-f", "none.bin"], "none.bin can't be read"),
            (["a", "x", "--qos", "3"], "--qos"),
        ],
    )
    def test_wrong_arguments_are_code_2(self, arguments: list[str], text: str, tmp_path: Path) -> None:
        result = run("pub", *arguments, cwd=tmp_path)
        assert result.returncode == 2
        assert text in result.stderr.decode()
        assert is_clean(result)


def address_in(demo: Running) -> str:
    """The page's address, once the demo has printed everything."""
    eventually(
        lambda: any("Ctrl-C" in line for line in demo.out) or demo.process.poll() is not None, 60, "the addresses"
    )
    found = re.search(r"http://127\.0\.0\.1:\d+/", "\n".join(demo.out))
    assert found, "\n".join(demo.out + demo.err)
    return found[0]


def received(socket: Connection) -> Iterator[dict[str, Any]]:
    """The messages that come, less the events between them."""
    while True:
        event = json.loads(socket.recv(timeout=30))
        if "event" not in event:
            yield event


@pytest.mark.parametrize("embedded", [False, True], ids=["mosquitto", "amqtt"])
class TestDemo:
    @pytest.fixture
    def arguments(self, embedded: bool) -> list[str]:
        if embedded and not has_amqtt():
            missing("the package amqtt (extra `demo`)")
        if not embedded and mosquitto_program() is None:
            missing("the program mosquitto")
        return ["demo", "--port", "0", "--rate", "5", *(["--embedded"] if embedded else [])]

    def test_shows_readings_where_it_says(self, arguments: list[str], tmp_path: Path) -> None:
        with running(*arguments, cwd=tmp_path) as demo:
            page = address_in(demo)
            url = page.replace("http", "ws", 1)
            printed = "\n".join(demo.out)
            assert f"{url}ws?topic=sensors/%23" in printed
            assert f"{url}ws/temperature/" in printed
            broker = re.search(r"mqtt://127\.0\.0\.1:\d+", printed)
            assert broker
            with connect(f"{url}ws?topic=sensors/%2B/state&since=now") as socket:
                readings = received(socket)
                messages = [next(readings) for _ in range(30)]
                assert len({message["topic"] for message in messages}) == 12
                temperatures = [message["payload"].get("temperature") for message in messages]
                assert all(-40 < value < 85 for value in temperatures if value is not None)
                assert any(temperatures)
                with Publisher(broker[0], protocol=4) as own_sensor:
                    own_sensor.publish("sensors/mine/state", b'{"temperature": 1}', qos=1)
                    # far more than come before it
                    own = next(
                        message for message in islice(readings, 1_000) if message["topic"] == "sensors/mine/state"
                    )
                assert own["payload"] == {"temperature": 1}

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_leaves_nothing_behind(self, number: signal.Signals, arguments: list[str], tmp_path: Path) -> None:
        with running(*arguments, environ={"TMPDIR": str(tmp_path)}, cwd=tmp_path) as demo:
            address_in(demo)
            children = psutil.Process(demo.process.pid).children(recursive=True)
            assert len(children) >= 2
            assert demo.stop(number) == 0
            assert not [child for child in children if child.is_running()]
        assert list(tmp_path.iterdir()) == []
        assert is_clean(demo)
        assert demo.out[-1] == "Stopped."

    @pytest.mark.slow
    def test_leaves_nothing_behind_even_if_it_is_killed(self, arguments: list[str], tmp_path: Path) -> None:
        with running(*arguments, environ={"TMPDIR": str(tmp_path)}, cwd=tmp_path) as demo:
            address_in(demo)
            children = psutil.Process(demo.process.pid).children(recursive=True)
            demo.stop(signal.SIGKILL)
            eventually(lambda: not [child for child in children if child.is_running()], 20, "its processes are gone")
        eventually(lambda: list(tmp_path.iterdir()) == [], 10, "its folder is gone")

    @pytest.mark.slow
    def test_a_part_that_dies_ends_it_with_a_message(self, arguments: list[str], tmp_path: Path) -> None:
        with running(*arguments, cwd=tmp_path) as demo:
            address_in(demo)
            children = psutil.Process(demo.process.pid).children(recursive=True)
            next(child for child in children if "sensors_sim" in " ".join(child.cmdline())).kill()
            assert demo.wait(30) == 1
            assert any("the simulator ended" in line for line in demo.err)
            assert not [child for child in children if child.is_running()]


@pytest.mark.slow
def test_demo_ends_with_its_terminal_whoever_leads_there(mosquitto: Broker, tmp_path: Path) -> None:
    """The system tells only the session's leader that the terminal was closed; `make` then waits for the demo."""
    arguments = ["demo", "--broker", mosquitto.url, "--port", "0", "--devices", "1"]
    script = "import signal, subprocess, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    script += f"subprocess.run([sys.executable, '-m', 'gateway', *{arguments}], preexec_fn=lambda: "
    script += "signal.signal(signal.SIGHUP, signal.SIG_DFL))"
    leader, master = pty.fork()
    if leader == 0:
        os.execve(sys.executable, [sys.executable, "-c", script], environment(TMPDIR=str(tmp_path)))
    said = b""
    while b"Ctrl-C" not in said:
        said += os.read(master, 4096)
    [demo] = psutil.Process(leader).children()
    os.close(master)
    try:
        eventually(lambda: not demo.is_running() or demo.status() == psutil.STATUS_ZOMBIE, 15, "the demo has ended")
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            demo.kill()
        os.waitpid(leader, 0)
    eventually(lambda: list(tmp_path.iterdir()) == [], 10, "its folder is gone")


def test_a_port_is_free_again_as_soon_as_nobody_listens_there() -> None:
    """The system remembers connections that a server closed for a minute (TIME_WAIT); they take no port away."""
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host, 0))
            server.listen()
            port = server.getsockname()[1]
            assert not is_free(port)
            with socket.create_connection(("127.0.0.1", port)) as client:
                accepted, _ = server.accept()
                accepted.close()
                assert client.recv(1) == b""
        assert is_free(port)


def test_demo_says_why_it_has_other_ports() -> None:
    with socket.socket() as page:
        page.bind(("127.0.0.1", 0))
        taken = demo_module._taken(None, page, "mqtt://127.0.0.1:20000")
        assert [re.findall(r"port (\d+)", line) for line in taken] == [["8000"], ["1883"]]
        assert demo_module._taken(page.getsockname()[1], page, "mqtt://127.0.0.1:1883") == []
        assert demo_module._taken(0, page, None) == []


def test_demo_names_the_command_as_it_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / ".venv" / "bin" / "gateway"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(own), "demo"])
    monkeypatch.setenv("PATH", "/usr/bin")
    assert demo_module._own_command() == ".venv/bin/gateway"
    monkeypatch.setenv("PATH", f"{own.parent}:/usr/bin")
    assert demo_module._own_command() == "gateway"


@pytest.mark.slow
def test_demo_takes_a_broker_that_is_there(mosquitto: Broker) -> None:
    with running("demo", "--broker", mosquitto.url, "--port", "0", "--devices", "2", "--rate", "5") as demo:
        url = address_in(demo).replace("http", "ws", 1)
        assert run("sub", "sensors/+/state", "-u", url, "-C", "3", "-W", "20").returncode == 0
        assert demo.stop() == 0


@pytest.mark.slow
def test_demo_shows_no_password_to_who_lists_processes(make_mosquitto: MakeMosquitto) -> None:
    broker = make_mosquitto(BrokerOptions(users={"maker": "se:cret/1"}))
    address = broker.url.removeprefix("mqtt://")
    url = f"mqtt://maker:se%3Acret%2F1@{address}"
    with running("demo", "--broker", url, "--port", "0", "--devices", "2", "--rate", "5") as demo:
        page = address_in(demo).replace("http", "ws", 1)
        assert run("sub", "sensors/+/state", "-u", page, "-C", "3", "-W", "20").returncode == 0
        started = [" ".join(child.cmdline()) for child in psutil.Process(demo.process.pid).children(recursive=True)]
        assert any("sensors_sim" in line and "--username maker" in line for line in started)
        assert not [line for line in started if "cret" in line]
        assert f"mqtt://{address}" in "\n".join(demo.out)
        assert "cret" not in "\n".join(demo.out + demo.err)


@pytest.mark.parametrize(
    ("arguments", "count", "said"),
    [
        (["--scenario", "office", "--devices", "3"], 3, "3 simulated sensors (scenario office) →"),
        (["--devices", "1"], 1, "1 simulated sensor →"),
    ],
)
@pytest.mark.slow
def test_demo_simulates_what_is_asked_for(mosquitto: Broker, arguments: list[str], count: int, said: str) -> None:
    with running("demo", "--broker", mosquitto.url, "--port", "0", *arguments) as demo:
        url = address_in(demo).replace("http", "ws", 1)
        result = run("sub", "sensors/+/state", "-u", url, "-C", str(4 * count), "-W", "20", "--since", "now", "--json")
        assert len({json.loads(line)["topic"] for line in result.stdout.splitlines()}) == count
        assert said in "\n".join(demo.out)


def test_demo_says_when_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("demo", "--port", str(taken.getsockname()[1]))
    assert result.returncode == 2
    assert b"something else listens there" in result.stderr
    assert is_clean(result)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--broker", "localhost"], "--broker: has no scheme; write mqtt://localhost"),
        (["--broker", "mqtt://localhost", "--lan"], "--lan and --embedded are for one that the demo starts"),
        (["--broker", "mqtt://localhost", "--origin", "localhost:5173"], "--origin: origin 'localhost:5173': must be"),
        (["--devices", "-1"], "--devices"),
        (["--scenario", "castle"], "castle"),
    ],
)
def test_demo_refuses_what_it_cannot_do(arguments: list[str], text: str) -> None:
    result = run("demo", "--port", "0", *arguments)
    assert result.returncode == 2
    assert text in result.stderr.decode()
    assert is_clean(result)


def test_demo_lets_pages_of_a_named_origin_in(mosquitto: Broker) -> None:
    arguments = ["--broker", mosquitto.url, "--port", "0", "--devices", "0", "--origin", "http://localhost:5173"]
    with running("demo", *arguments) as demo:
        url = socket_url(address_in(demo), [("topic", "a")])
        with connect(url, origin=Origin("http://localhost:5173"), open_timeout=PATIENCE_SECONDS) as allowed:
            assert json.loads(allowed.recv(timeout=PATIENCE_SECONDS))["event"] == "subscribed"
        assert [line for line in demo.err if "small page" not in line] == []
        # a page that was opened as a file
        for _ in range(2):
            with pytest.raises(InvalidStatus), connect(url, origin=Origin("null"), open_timeout=PATIENCE_SECONDS):
                pass
        assert demo.stop() == 0
    [said] = [line for line in demo.err if "'null' may not use this gateway" in line]
    assert "gateway demo --origin" in said


@pytest.mark.slow
def test_demo_with_a_broker_of_its_own_lets_pages_of_this_machines_servers_in_and_no_others() -> None:
    with running("demo", "--port", "0", "--devices", "0") as demo:
        url = socket_url(address_in(demo), [("topic", "a")])
        for origin in ("http://localhost:5173", "http://127.0.0.1:3000"):
            with connect(url, origin=Origin(origin), open_timeout=PATIENCE_SECONDS) as allowed:
                assert json.loads(allowed.recv(timeout=PATIENCE_SECONDS))["event"] == "subscribed"
        for origin in ("null", "https://evil.example", "http://localhost.evil.example:5173"):
            with pytest.raises(InvalidStatus), connect(url, origin=Origin(origin), open_timeout=PATIENCE_SECONDS):
                pass


def test_version_and_help() -> None:
    assert re.fullmatch(rb"gateway \d+\.\d+\.\d+\S*\n", run("--version").stdout)
    text = run("--help").stdout.decode()
    assert all(name in text for name in ("serve", "demo", "sub", "pub", "check"))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://h:1", "ws://h:1/ws"),
        ("http://h:1/", "ws://h:1/ws"),
        ("https://h/gateway/", "wss://h/gateway/ws"),
        ("wss://h/ws", "wss://h/ws"),
        ("h:1", "ws://h:1/ws"),
    ],
)
def test_any_way_to_write_a_gateway_leads_to_its_socket(url: str, address: str) -> None:
    assert socket_url(url) == address
    assert socket_url(url, [("topic", "a/+")]) == f"{address}?topic=a%2F%2B"


class TestCheckPayload:
    def test_says_what_becomes_of_a_payload(self, tmp_path: Path) -> None:
        (tmp_path / "gateway.toml").write_text('[[decode]]\ntopics = ["lora/#"]\nas = "cayenne"\n')
        (tmp_path / "up").write_bytes(bytes.fromhex("03670110"))
        result = run("check", "--payload", "up", "--topic", "lora/a", cwd=tmp_path)
        assert (result.returncode, result.stdout) == (0, b'{"temperature_3":27.2}\n')
        assert result.stderr == b"the rule for lora/# reads 'lora/a' as cayenne\n"
        (tmp_path / "up").write_bytes(b"\x03")
        result = run("check", "--payload", "up", "--topic", "lora/a", cwd=tmp_path)
        assert (result.returncode, result.stdout) == (1, b"")
        assert b"the type at byte 1 is cut short" in result.stderr
        assert is_clean(result)

    def test_says_that_no_rule_is_for_a_topic(self, tmp_path: Path) -> None:
        (tmp_path / "up").write_bytes(b"\xff")
        result = run("check", "--payload", "up", "--topic", "a", cwd=tmp_path)
        assert (result.returncode, result.stdout) == (0, b'"/w=="\n')
        assert b"no rule is for 'a'" in result.stderr

    @pytest.mark.parametrize("arguments", [[], ["--topic", "a", "--topic", "b"], ["--topic", "a/#"]])
    def test_needs_one_topic(self, arguments: list[str], tmp_path: Path) -> None:
        (tmp_path / "up").write_bytes(b"1")
        result = run("check", "--payload", "up", *arguments, cwd=tmp_path)
        assert result.returncode == 2
        assert is_clean(result)
        assert run("check", "--payload", "none", "--topic", "a", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("frame", ["hello", b'{"topic":"\xff"}', b"\xff"])
def test_a_frame_of_another_server_is_refused(frame: str | bytes) -> None:
    with pytest.raises(RefusedError, match="not this gateway"):
        decode(frame)

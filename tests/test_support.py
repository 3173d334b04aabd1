"""Brokers, processes, ports and yardsticks do what tests rely on."""

from __future__ import annotations

import gc
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.conftest import MakeMosquitto, Yardstick
from tests.support.brokers import Broker, BrokerOptions, MosquittoContainer
from tests.support.certificates import Authority
from tests.support.publishers import Publisher
from tests.support.waiting import eventually, is_listening
from tests.support.yardsticks import yardstick_seconds

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", ["process", "container"])
def test_a_broker_keeps_port_and_retained_messages_over_a_restart_until_told_to_forget(
    make_mosquitto: MakeMosquitto, kind: str
) -> None:
    broker = make_mosquitto(kind=kind)
    with Publisher(broker.url) as publisher:
        publisher.publish("a", b"kept", retain=True)
    port = broker.port
    broker.restart()
    assert broker.port == port
    with Publisher(broker.url) as reader:
        reader.subscribe("a")
        reader.wait_for("a", b"kept")
    broker.restart(keep=False)
    with Publisher(broker.url) as reader:
        reader.subscribe("a")
        reader.publish("b", b"afterwards")
        reader.subscribe("b")
        reader.publish("b", b"again")
        reader.wait_for("b", b"again")
        assert ("a", b"kept") not in reader.received


@pytest.mark.parametrize("kind", ["process", "container"])
def test_killed_with_autosave_it_has_lost_at_most_the_newest_message(make_mosquitto: MakeMosquitto, kind: str) -> None:
    broker = make_mosquitto(BrokerOptions(autosave=True), kind=kind)
    with Publisher(broker.url) as publisher:
        publisher.publish("a", b"kept", retain=True)
        publisher.publish("b", b"newest", retain=True)
        broker.kill()
        eventually(lambda: not is_listening(broker.port))
    broker.start()
    with Publisher(broker.url) as reader:
        reader.subscribe("a")
        reader.wait_for("a", b"kept")


@pytest.mark.parametrize("kind", ["process", "container"])
def test_a_frozen_broker_answers_nobody_until_it_thaws(make_mosquitto: MakeMosquitto, kind: str) -> None:
    broker = make_mosquitto(kind=kind)
    with Publisher(broker.url) as publisher:
        broker.freeze()
        done = threading.Event()

        def publish() -> None:
            publisher.publish("a", b"x")
            done.set()

        thread = threading.Thread(target=publish)
        thread.start()
        assert not done.wait(0.5)
        broker.thaw()
        assert done.wait(30)
        thread.join()


@pytest.mark.parametrize("kind", ["process", "container"])
def test_users_and_tls_are_demanded(make_mosquitto: MakeMosquitto, authority: Authority, kind: str) -> None:
    server = authority.issue("broker", hosts=("localhost", "127.0.0.1"))
    broker = make_mosquitto(BrokerOptions(users={"ann": "secret"}, server=server), kind=kind)
    url = broker.url.replace("//", "//ann:secret@")
    with Publisher(url, ca_certs=str(authority.ca_file)) as publisher:
        publisher.publish("a", b"x")


def test_a_container_can_lose_its_network_and_get_it_back(docker: None, make_mosquitto: MakeMosquitto) -> None:
    broker = make_mosquitto(kind="container")
    assert isinstance(broker, MosquittoContainer)
    broker.cut()
    with pytest.raises((OSError, TimeoutError)), Publisher(broker.url):
        pass
    broker.mend()
    with Publisher(broker.url) as publisher:
        publisher.publish("a", b"x")


def test_who_has_left_a_broker_has_no_socket_open(mosquitto: Broker) -> None:
    gc.collect()
    before = open_sockets()
    with Publisher(mosquitto.url) as publisher:
        assert len(open_sockets() - before) == 3
    # not only once it is collected
    assert open_sockets() <= before
    del publisher


def open_sockets() -> set[object]:
    """The addresses of this process."""
    return {connection.laddr for connection in psutil.Process().net_connections("tcp")}


def test_amqtt_speaks_3_1_1(amqtt: Broker, tmp_path: Path) -> None:
    with Publisher(amqtt.url, protocol=4) as publisher:
        publisher.subscribe("a")
        publisher.publish("a", b"x")
        publisher.wait_for("a", b"x")


GRANDCHILD = """
import os, signal
heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
print(*heard, oct(os.umask(0)), os.environ.get("GATEWAY_PORT"))
"""
CHILD = f"""
import subprocess, sys
from tests.support.inheritance import forget_parent
forget_parent()
subprocess.run([sys.executable, "-c", {GRANDCHILD!r}], check=True)
"""


def test_nothing_that_the_parent_of_a_test_run_left_reaches_what_tests_start() -> None:
    """As with `nohup make test > file &`, and with settings of a gateway in the environment."""
    shell = f"trap '' INT HUP; umask 077; exec {shlex.join([sys.executable, '-c', CHILD])}"
    environment = {**os.environ, "GATEWAY_PORT": "1"}
    done = subprocess.run(["sh", "-c", shell], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "0o22", "None"]


STUMBLES = """
import ast
import pytest

calls = []
parse = ast.parse

def stumble(*arguments, **named):
    calls.append(1)
    if len(calls) == 1:
        raise SystemError("AST constructor recursion depth mismatch (before=147, after=94)")
    return parse(*arguments, **named)

def test_fails(monkeypatch):
    monkeypatch.setattr(ast, "parse", stumble)
    assert [1] == [2]

def test_comes_after():
    pass
"""


def test_a_stumble_over_the_report_of_one_test_ends_no_other(tmp_path: Path) -> None:
    (tmp_path / "test_stumbles.py").write_text(STUMBLES, "utf-8")
    options = f"-p tests.support.reports -p no:cacheprovider -W error -c {os.devnull} --rootdir".split()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "assert [1] == [2]" in done.stdout
    assert done.returncode == 1


def test_two_workers_of_a_run_are_given_different_ports() -> None:
    program = "from tests.support.waiting import free_port; print(*(free_port() for _ in range(50)))"
    given: list[str] = []
    for number in range(2):
        environment = {**os.environ, "PYTEST_XDIST_WORKER": f"gw{number}", "PYTEST_XDIST_WORKER_COUNT": "2"}
        command = [sys.executable, "-c", program]
        given += subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
    assert len(set(given)) == 100


def test_a_busy_machine_makes_the_yardstick_longer_with_what_is_measured(yardstick: Yardstick) -> None:
    """Ten times the yardstick's work is about ten yardsticks, also where another process takes this core."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            found = yardstick(lambda: 10 * yardstick_seconds())
        finally:
            busy.kill()
    assert 5 < found < 20

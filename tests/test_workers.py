"""Workers: many gateways behind one port, started again when they end, stopped together."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gateway.cli.serve import _file_of
from gateway.cli.workers import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, SETTLED_SECONDS, WRONG_SETTINGS, Crew
from gateway.transport.sockets import ListenError, listen
from tests.conftest import MakeGateway, MakeValkey
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.waiting import eventually


def test_who_ends_soon_is_started_later_each_time() -> None:
    crew, now, waits = Crew(1), 0.0, []
    for pid in range(10, 20):
        assert list(crew.due(now)) == [0]
        crew.started(0, pid, now)
        assert list(crew.due(now)) == []
        wait = crew.ended(pid, 1, now + 1)
        assert wait is not None
        waits.append(wait)
        assert list(crew.due(now + 1)) == []
        assert crew.next_start() == now + 1 + wait
        now = crew.next_start() or 0.0
    assert waits[:3] == [FIRST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2, FIRST_WAIT_SECONDS * 4]
    assert waits[-1] == LONGEST_WAIT_SECONDS
    crew.started(0, 30, now)
    assert crew.ended(30, -9, now + SETTLED_SECONDS + 1) == FIRST_WAIT_SECONDS


def test_each_worker_has_an_archive_of_its_own() -> None:
    assert _file_of(None, 2) is None
    assert [_file_of(Path("/a/x.db"), number) for number in range(3)] == [
        Path("/a/x.db"),
        Path("/a/x-1.db"),
        Path("/a/x-2.db"),
    ]


def test_settings_that_no_worker_can_be_started_with_end_them_all() -> None:
    crew = Crew(2)
    for number in crew.due(0.0):
        crew.started(number, 10 + number, 0.0)
    assert crew.ended(10, WRONG_SETTINGS, 1.0) is None
    assert (crew.is_stopping, crew.exit_code, crew.running) == (True, WRONG_SETTINGS, [11])
    assert crew.next_start() is None
    # later the same code is a trouble like others: the server of the cluster has another password since, say
    crew = Crew(2)
    for number in crew.due(0.0):
        crew.started(number, 10 + number, 0.0)
    crew.ended(11, -9, SETTLED_SECONDS)
    assert crew.ended(10, WRONG_SETTINGS, SETTLED_SECONDS) is not None


def test_nobody_is_started_while_they_stop() -> None:
    crew = Crew(2)
    for number in crew.due(0.0):
        crew.started(number, 10 + number, 0.0)
    crew.is_stopping = True
    assert crew.ended(10, 0, 1.0) is None
    assert list(crew.due(100.0)) == []
    assert crew.running == [11]
    assert crew.ended(99, 0, 1.0) is None, "a child of somebody else"


@pytest.mark.skipif(sys.platform == "win32", reason="no port can be shared on Windows")
def test_a_port_that_is_reserved_is_shared_with_workers_and_nobody_else() -> None:
    reserved = listen("127.0.0.1", 0, is_shared=True, is_reserved=True)
    port = reserved.getsockname()[1]
    with contextlib.closing(reserved), contextlib.closing(listen("127.0.0.1", port, is_shared=True)):
        with contextlib.closing(listen("127.0.0.1", port, is_shared=True)):
            pass
        with pytest.raises(ListenError):
            listen("127.0.0.1", port)


def workers_of(gateway: GatewayProcess) -> list[psutil.Process]:
    return psutil.Process(gateway.pid).children()


@pytest.fixture
def crew(any_broker: Broker, make_valkey: MakeValkey, make_gateway: MakeGateway, prefix: str) -> GatewayProcess:
    return make_gateway(
        any_broker, workers=2, cluster_url=make_valkey().url, cluster_name=prefix, cluster_node="n", log_format="human"
    )


def nodes_of(gateway: GatewayProcess) -> set[str]:
    """Who answers: the system deals connections out."""
    found = set()
    for _ in range(20):
        with contextlib.suppress(OSError, ValueError):
            found.add(gateway.json("/health/ready")["cluster"]["node"])
    return found


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.skipif(sys.platform == "win32", reason="no port can be shared on Windows")
def test_workers_share_a_port_are_started_again_and_stop_together(crew: GatewayProcess) -> None:
    eventually(lambda: nodes_of(crew) == {"n-0", "n-1"}, 20, "both answer")
    before = workers_of(crew)
    before[0].kill()
    eventually(lambda: len(workers_of(crew)) == 2 and before[0] not in workers_of(crew), 20, "it is started again")
    eventually(lambda: nodes_of(crew) == {"n-0", "n-1"}, 20, "both answer again")
    assert "it is started again in" in crew.log()
    workers = workers_of(crew)
    assert crew.stop() == 0
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.skipif(sys.platform == "win32", reason="no port can be shared on Windows")
def test_workers_stop_in_order_when_their_supervisor_is_gone(crew: GatewayProcess) -> None:
    workers = workers_of(crew)
    crew.kill()
    eventually(lambda: not any(worker.is_running() for worker in workers), 20, "they end")


@pytest.mark.skipif(sys.platform == "win32", reason="no port can be shared on Windows")
def test_many_workers_without_a_shared_log_are_refused(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    found = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--workers", "2"],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(Path(__file__).parents[1])}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert "many workers need a log that they share" in found.stderr

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.ops.healthcheck import is_live
from tests.conftest import MakeGateway
from tests.support.certificates import Authority
from tests.support.gateways import GatewayProcess
from tests.support.waiting import eventually, free_port


def test_is_true_while_the_gateway_answers(gateway: GatewayProcess) -> None:
    assert is_live({"GATEWAY_PORT": str(gateway.port)})


def test_is_false_where_nothing_answers() -> None:
    assert not is_live({"GATEWAY_PORT": str(free_port())})


def test_the_settings_file_says_where_it_answers(
    gateway: GatewayProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gateway.toml").write_text(f"port = {gateway.port}\n", "ascii")
    assert is_live({})
    assert not is_live({"GATEWAY_PORT": str(free_port())})
    Path("gateway.toml").write_text(f'port = {gateway.port}\n[tls]\ncert = "a"\nkey = "b"\n', "ascii")
    assert not is_live({})
    Path("other.toml").write_text(f"port = {gateway.port}\n", "ascii")
    assert is_live({"GATEWAY_CONFIG": "other.toml"})


def test_needs_no_broker(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(f"mqtt://127.0.0.1:{free_port()}", ready=False)
    assert is_live({"GATEWAY_PORT": str(gateway.port)})


def test_speaks_tls_where_the_gateway_does(authority: Authority, gateway: GatewayProcess) -> None:
    pair = authority.issue("gateway", hosts=("gateway.example",))
    environ = {"GATEWAY_TLS_CERT": str(pair.cert), "GATEWAY_TLS_KEY": str(pair.key), "GATEWAY_PORT": str(free_port())}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    # only this test has a gateway that `GatewayProcess` can't ask
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve"], env=kept | environ, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: is_live(environ), 20, "it answers over TLS")
        assert not is_live({"GATEWAY_PORT": environ["GATEWAY_PORT"]})
        assert not is_live({**environ, "GATEWAY_PORT": str(gateway.port)})
    finally:
        process.kill()
        process.wait()

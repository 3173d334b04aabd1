"""Passwords and secrets in files are changed while the gateway goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import BrokerOptions
from tests.support.waiting import eventually

OLD, NEW = "the old secret of at least 32 bytes.", "the new secret of at least 32 bytes."


@pytest.mark.slow
def test_secret_files_are_read_again_when_the_broker_refuses_and_on_sighup(
    make_mosquitto: MakeMosquitto, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    broker = make_mosquitto(BrokerOptions(users={"gateway": "right"}))
    password, secret = tmp_path / "password", tmp_path / "secret"
    password.write_text("of yesterday\n")
    secret.write_text(OLD + "\n")
    gateway = make_gateway(
        broker,
        ready=False,
        mqtt_username="gateway",
        mqtt_password_file=str(password),
        access_secret_file=str(secret),
    )

    def accepts(key: str) -> bool:
        token = mint(secret_key(key), ttl_seconds=600, subscribe=["#"])
        return gateway.request("GET", "/whoami", headers={"Authorization": f"Bearer {token}"})[0] == 200

    eventually(lambda: "Not authorized" in gateway.log())
    password.write_text("right\n")
    gateway.wait_ready()
    assert (accepts(OLD), accepts(NEW)) == (True, False)
    secret.write_text("short")
    os.kill(gateway.pid, signal.SIGHUP)
    eventually(lambda: "secrets were not read again" in gateway.log())
    assert accepts(OLD), "what can't be used changes nothing"
    secret.write_text(NEW)
    os.kill(gateway.pid, signal.SIGHUP)
    eventually(lambda: accepts(NEW))
    assert not accepts(OLD)
    assert gateway.get("/health/ready")[0] == 200
    assert "right" not in gateway.log()
    assert NEW not in gateway.log()

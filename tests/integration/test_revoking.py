"""`gateway revoke` on a running gateway: every kind of connection by that token ends at once, and stays away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from gateway.client import connect
from gateway.core.protocol import CloseCode
from tests.conftest import MakeGateway
from tests.integration.test_python_client import reading
from tests.support.brokers import Broker
from tests.support.event_streams import EventStream
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

SECRET = "more than thirty-two bytes of a secret"


def token(subject: str) -> str:
    return mint(secret_key(SECRET), ttl_seconds=3600, subject=subject, subscribe=["#"])


@pytest.mark.slow
async def test_open_connections_end_at_once_and_a_restart_forgets_nothing(
    make_gateway: MakeGateway, mosquitto: Broker, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, access_secret=SECRET, archive_file=str(tmp_path / "a.db")
    )
    (tmp_path / "gateway.toml").write_text(f'[access]\nsecret = "{SECRET}"\n')
    annas, berts = token("anna"), token("bert")
    streams = [
        await asyncio.to_thread(EventStream, gateway, address, Authorization=f"Bearer {annas}")
        for address in ("/topics/%23", "/alerts?format=sse", "/devices?format=sse")
    ]
    async with (
        reading(connect(gateway.ws, "#", token=annas)) as anna,
        reading(connect(gateway.ws, "#", token=berts)) as bert,
    ):
        await eventually_async(lambda: anna.named("subscribed") and bert.named("subscribed"))
        command = [sys.executable, "-m", "gateway", "revoke", "--subject", "anna", "--ttl", "1h", "--url", gateway.http]
        run = await asyncio.to_thread(
            subprocess.run, [*command, "--config", str(tmp_path / "gateway.toml")], capture_output=True, text=True
        )
        assert (run.returncode, run.stdout) == (0, f"{gateway.http}: 4 connections ended\n"), run.stderr
        await eventually_async(lambda: anna.error)
        assert anna.error.close_code == CloseCode.UNAUTHORIZED  # type: ignore[union-attr]
        assert "called back" in str(anna.error)
        await eventually_async(lambda: all(stream.is_over for stream in streams))
        assert bert.error is None
        assert gateway.request("GET", "/whoami", headers={"Authorization": f"Bearer {annas}"})[0] == 401
        await asyncio.to_thread(gateway.stop)
        await asyncio.to_thread(gateway.start)
        assert gateway.request("GET", "/whoami", headers={"Authorization": f"Bearer {annas}"})[0] == 401
        assert gateway.request("GET", "/whoami", headers={"Authorization": f"Bearer {berts}"})[0] == 200

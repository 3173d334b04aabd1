"""A tool that takes the OpenAPI description at its word finds nothing wrong with a running gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from gateway.ops.openapi import describe_http
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.publishers import Publisher

SECRET = "more than thirty-two bytes of a secret"
HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(make_mosquitto: MakeMosquitto, make_gateway: MakeGateway, tmp_path: Path) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(
        broker,
        access_secret=SECRET,
        access_share_max="1h",
        limit_requests_per_second=10_000,
        limit_publishes_per_second=10_000,
    )
    token = mint(secret_key(SECRET), ttl_seconds=3600, subject="tool", subscribe=["#", "$SYS/#"], publish=["#"])
    with Publisher(broker.url) as publisher:
        for number in range(9):
            publisher.publish(f"sensors/{number % 3}/state", json.dumps({"t": number, "mode": "on"}), retain=True)
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"),
        "run", f"{gateway.http}/openapi.json", "--header", f"Authorization: Bearer {token}",
        "--phases", "examples,coverage,fuzzing", "--max-examples", os.environ.get("GATEWAY_TEST_EXAMPLES", "5"),
        "--seed", "1", "--request-timeout", "60", "--no-color",
    ]  # fmt: skip
    # it writes into the folder that it runs in
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    environment["SCHEMATHESIS_HOOKS"] = "tests.integration.schemathesis_hooks"
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=800, check=False
    )
    lines = [line[:300] for line in run.stdout.splitlines() if line.strip()]
    assert run.returncode == 0, "\n".join(lines)
    # all of them, the document's own address, too
    paths = describe_http("1")["paths"]
    count = sum(method != "parameters" for item in paths.values() for method in item)
    assert f"Selected: {count}/{count}" in run.stdout
    assert "Traceback" not in gateway.log()

"""`gateway token`, `gateway check --token` and `gateway explain`, as one runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

SECRET = "0123456789abcdef0123456789abcdef"


def run(folder: Path, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    kept["PYTHONPATH"] = str(Path(__file__).parents[1])
    kept.update({f"GATEWAY_{name}": value for name, value in environment.items()})
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=folder,
        env=kept,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_token_is_made_with_the_secret(tmp_path: Path) -> None:
    asked = ("--subject", "alice", "--subscribe", "sensors/#", "--publish", "cmd/{sub}", "--ttl", "90m")
    before = int(time.time())
    done = run(tmp_path, "token", *asked, ACCESS_SECRET=SECRET, ACCESS_AUDIENCE="gw")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"], audience="gw")
    assert claims["sub"] == "alice"
    assert claims["topics"] == {"subscribe": ["sensors/#"], "publish": ["cmd/{sub}"]}
    assert before <= claims["exp"] - 5_400 <= time.time()


def test_a_token_is_made_with_a_private_key(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "gateway.toml").write_text(
        '[access]\nkey_file = "key.pem"\n[roles.viewer]\nsubscribe = ["sensors/#"]\n'
    )
    done = run(tmp_path, "token", "--role", "viewer")
    assert done.returncode == 0, done.stderr
    assert jwt.decode(done.stdout.strip(), key.public_key(), algorithms=["ES256"])["roles"] == ["viewer"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--subscribe", "#"], {}, "there is no key to sign with"),
        (["--subscribe", "a/#/b"], {"ACCESS_SECRET": SECRET}, "'#' must be the last level"),
        (["--subscribe", "a", "--ttl", "soon"], {"ACCESS_SECRET": SECRET}, "duration 'soon': must be"),
        (["--subscribe", "a", "--ttl", "0"], {"ACCESS_SECRET": SECRET}, "more than 0 seconds"),
        (["--subscribe", "a"], {"ACCESS_SECRET": "short"}, "at least 32 are needed"),
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], says: str
) -> None:
    done = run(tmp_path, "token", *arguments, **environment)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_token_that_allows_nothing_is_made_with_a_warning(tmp_path: Path) -> None:
    done = run(tmp_path, "token", "--role", "nobody", ACCESS_SECRET=SECRET)
    assert done.returncode == 0
    assert "its role 'nobody' is not defined here" in done.stderr
    assert "this token allows nothing" in done.stderr


@pytest.mark.slow
def test_a_token_is_explained(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        f'[access]\nsecret = "{SECRET}"\n[roles.viewer]\nsubscribe = ["sensors/+/state"]\n'
    )
    made = run(tmp_path, "token", "--subject", "alice", "--role", "viewer", "--publish", "cmd/{sub}").stdout.strip()
    done = run(tmp_path, "check", "--token", made, "--topic", "sensors/a/state")
    assert done.returncode == 0, done.stderr
    assert "subject    alice" in done.stdout
    assert "subscribe  sensors/+/state  (role 'viewer')" in done.stdout
    assert "publish    cmd/alice  (the token)" in done.stdout
    assert "yes  subscribe: topic filter 'sensors/a/state': granted to 'alice'" in done.stdout
    refused = run(tmp_path, "check", "--token", "-", "--topic", "sensors/#", stdin=made + "\n")
    assert refused.returncode == 1
    assert "the nearest grant is 'sensors/+/state' (role 'viewer')" in refused.stdout
    assert made not in done.stdout + refused.stdout


@pytest.mark.slow
def test_a_token_that_is_not_accepted_says_why(tmp_path: Path) -> None:
    done = run(tmp_path, "check", "--token", "nonsense", ACCESS_SECRET=SECRET)
    assert done.returncode == 1
    assert "not accepted" in done.stderr
    assert "(malformed)" in done.stderr
    without = run(tmp_path, "check", "--token", "nonsense")
    assert without.returncode == 1
    assert "no key to verify tokens with" in without.stderr


@pytest.mark.slow
def test_a_running_gateway_explains(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str, tmp_path: Path
) -> None:
    gateway = make_gateway(mosquitto, access_secret=SECRET, mqtt_topics=[f"{prefix}/#"])
    publisher.publish(f"{prefix}/sensors/a/state", b"1", retain=True)
    made = run(tmp_path, "token", "--subscribe", f"{prefix}/sensors/#", ACCESS_SECRET=SECRET).stdout.strip()
    where = {"URL": gateway.http, "TOKEN": made}

    def explained(topic: str, *more: str) -> subprocess.CompletedProcess[str]:
        return run(tmp_path, "explain", topic, *more, **where)

    eventually(lambda: explained(f"{prefix}/sensors/a/state").returncode == 0, 20, "the message is there")
    near = explained(f"{prefix}/sensors/A/State")
    assert near.returncode == 1
    assert "NO  messages" in near.stdout
    assert f"near miss     '{prefix}/sensors/a/state': upper and lower case differ" in near.stdout
    refused = json.loads(explained("#", "--json").stdout)
    assert refused["failed"] == "grant"
    assert f"ask for '{prefix}/sensors/#'" in refused["answer"]
    bad = run(tmp_path, "explain", "a", URL=gateway.http, TOKEN="nonsense")
    assert bad.returncode == 2
    assert "not a JSON Web Token" in bad.stderr
    gone = run(tmp_path, "explain", "a", URL="http://127.0.0.1:1")
    assert gone.returncode == 2
    assert "can't reach a gateway" in gone.stderr

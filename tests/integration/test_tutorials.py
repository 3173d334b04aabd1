"""Tutorials, as somebody follows them: their files, their commands, in their order. The one about pages runs in
tests/browser/test_snippets.py."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually
from tests.test_cli import run
from tests.test_docs import blocks

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"
WRITTEN = "mqtt://127.0.0.1:1883"

pytestmark = [pytest.mark.slow]


def lines(page: str, command: str) -> list[list[str]]:
    """The words of the lines of a page that begin so, up to where they are redirected."""
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    found = [line for block in blocks(text, "sh") for line in block.splitlines() if line.startswith(command)]
    return [shlex.split(re.split(r" [<>|] ?", line)[0])[1:] for line in found]


def test_who_follows_the_operators_tutorial_has_a_gateway_for_others(
    mosquitto: Broker, prefix: str, tmp_path: Path
) -> None:
    page = (TUTORIALS / "operator.md").read_text(encoding="utf-8")
    first, second = blocks(page, "toml")
    file = tmp_path / "gateway.toml"
    file.write_text(first.replace(WRITTEN, mosquitto.url), encoding="utf-8")
    # the broker is one that other tests use, too, and this machine's network is no part of it
    own = {"GATEWAY_MQTT_CLIENT_ID": prefix, "GATEWAY_MQTT_STATUS_TOPIC": "none", "GATEWAY_HOST": "127.0.0.1"}
    [check, token_check] = lines("operator.md", "gateway check")
    checked = run(*check, environ=own, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert lines("operator.md", "gateway serve") == [["serve"]]

    # GatewayProcess gives what a shell would: the variables; the file is in the folder where it runs
    gateway = GatewayProcess(tmp_path, mosquitto.url, **{name.removeprefix("GATEWAY_"): own[name] for name in own})
    [[_, topic, _, payload]] = lines("operator.md", "mosquitto_pub")
    with gateway:
        with Publisher(mosquitto.url) as publisher:
            publisher.publish(topic, payload, retain=False)
            publisher.publish("elsewhere/a", b"1")
        [message] = eventually(lambda: gateway.json(f"/topics/{topic}")["messages"], 10, "it has come")
        assert message["payload"] == {"temperature": 21.5}
        assert gateway.json("/topics/elsewhere/a")["messages"] == []
        gateway.stop()
        assert (tmp_path / "archive.db").exists()

        file.write_text(second.replace(WRITTEN, mosquitto.url), encoding="utf-8")
        [make_secret] = [block for block in blocks(page, "sh") if "umask" in block]
        command = ["bash", "-euc", f"{make_secret}\nprintf %s $GATEWAY_ACCESS_SECRET_FILE"]
        made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30)
        assert Path(made.stdout).stat().st_mode & 0o777 == 0o600
        gateway.settings["access_secret_file"] = own["GATEWAY_ACCESS_SECRET_FILE"] = made.stdout
        gateway.start()
        # over the restart the value was kept, and a guest may read it
        assert gateway.json(f"/topics/{topic}")["messages"][0]["payload"] == {"temperature": 21.5}
        assert gateway.get("/topics/%23", {"Accept": "application/json"})[0] in (401, 403)
        [make] = lines("operator.md", "gateway token")
        token = run(*make, environ=own, cwd=tmp_path).stdout.decode().strip()
        said = run(*token_check, environ=own, cwd=tmp_path, stdin=token.encode())
        assert said.returncode == 0, said.stdout + said.stderr
        assert b"sensors/a/cmd" in said.stdout
        bearer = {"Authorization": f"Bearer {token}"}
        assert gateway.get("/topics/%23", {"Accept": "application/json", **bearer})[0] == 200
        assert gateway.request("POST", "/topics/sensors/a/cmd", b"{}", bearer)[0] == 202
        assert gateway.request("POST", "/topics/sensors/a/state", b"{}", bearer)[0] == 403
        assert gateway.request("POST", "/topics/sensors/a/cmd", b"{}")[0] in (401, 403)


@pytest.mark.parametrize("words", lines("shell.md", "sensors-sim"), ids=" ".join)
def test_the_simulator_runs_as_it_is_shown(words: list[str], mosquitto: Broker) -> None:

    arguments = [word.replace(WRITTEN, mosquitto.url) for word in words]
    with Publisher(mosquitto.url) as listener:
        listener.subscribe("sensors/+/state")
        process = subprocess.Popen([sys.executable, "-m", "sensors_sim", *arguments], stdout=subprocess.DEVNULL)
        try:
            eventually(lambda: len(listener.received) > 10, 30, "readings come")
        finally:
            process.terminate()
            process.wait(20)


def test_settings_that_tutorials_show_are_toml() -> None:
    for page in TUTORIALS.glob("*.md"):
        for block in blocks(page.read_text(encoding="utf-8"), "toml"):
            assert tomllib.loads(block)

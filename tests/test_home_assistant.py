"""The app (add-on) of Home Assistant: its folder, its start with a Supervisor, and a user who comes over Ingress."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from websockets.sync.client import connect

import gateway
from gateway.settings.loading import load_settings
from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually, free_port

ROOT = Path(__file__).parents[1]
APP = ROOT / "deploy" / "home-assistant"
CONFIG = yaml.safe_load((APP / "config.yaml").read_text(encoding="utf-8"))
ROLE = {"subscribe": ["#"], "publish": ["house/#"]}
USER = "X-Remote-User-Name"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run", APP / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = _load()


# the folder


@pytest.mark.parametrize("language", ["en", "de"])
def test_each_option_has_a_form_and_words(language: str) -> None:
    words = yaml.safe_load((APP / "translations" / f"{language}.yaml").read_text(encoding="utf-8"))
    assert set(words["configuration"]) == set(CONFIG["schema"])
    assert set(words["network"]) == set(CONFIG["ports"])
    assert all(entry["name"] and entry["description"] for entry in words["configuration"].values())
    # what has no default may be left out
    left_out = {name for name, form in CONFIG["schema"].items() if isinstance(form, str) and form.endswith("?")}
    assert set(CONFIG["options"]) == set(CONFIG["schema"]) - left_out


def test_the_folder_is_of_this_version_and_as_the_supervisor_wants_it() -> None:
    assert CONFIG["version"] == gateway.__version__
    assert f":{gateway.__version__}" in (APP / "Dockerfile").read_text()
    # what the published schema of apps demands of what is used here
    wanted = {
        "type": "object",
        "required": ["arch", "description", "name", "slug", "version"],
        "properties": {
            "arch": {"items": {"enum": ["aarch64", "amd64"]}},
            "services": {"items": {"pattern": "^(mqtt|mysql):(provide|want|need)$"}},
            "startup": {"enum": ["application", "initialize", "once", "services", "system"]},
            "backup": {"enum": ["hot", "cold"]},
            "ingress_port": {"type": "integer", "minimum": 0, "maximum": 65535},
            "ports": {"additionalProperties": {"type": ["integer", "null"]}},
            "slug": {"pattern": "^[-_.A-Za-z0-9]+$"},
        },
    }
    jsonschema.validate(CONFIG, wanted)


# its start


BROKER = {"host": "core-mosquitto", "port": 1883, "ssl": False, "username": "addons", "password": "p w"}


@pytest.mark.parametrize("broker", [BROKER, {**BROKER, "ssl": True}, None])
def test_options_as_they_come_are_valid_settings(broker: dict[str, Any] | None) -> None:
    found = load_settings(environ=run.settings_of(CONFIG["options"], broker))
    assert found.mqtt_topics == ("#",)
    assert found.has_access_policy
    if broker is not None:
        assert found.mqtt_url.endswith("://core-mosquitto:1883")
        assert found.mqtt_url.startswith("mqtts" if broker["ssl"] else "mqtt:")
        assert found.mqtt_username == "addons"


def test_an_option_counts_more_than_the_supervisor() -> None:
    options = {
        **CONFIG["options"],
        "mqtt_url": "mqtts://other:8883",
        "mqtt_username": "me",
        "mqtt_password": "mine",
        "topics": ["sensors/#", "a,b/+"],
        "access_secret": "0123456789abcdef0123456789abcdef",
        "origins": ["https://example.com"],
        "may_publish": False,
        "alerts_as_sensors": False,
    }
    found = load_settings(environ=run.settings_of(options, BROKER))
    assert (found.mqtt_url, found.mqtt_username) == ("mqtts://other:8883", "me")
    assert found.mqtt_topics == ("sensors/#", "a,b/+")
    assert found.access_origins == ("https://example.com",)
    assert found.roles[run.ROLE].publish == ()
    assert found.alert_discovery is None


@contextlib.contextmanager
def supervisor(broker: dict[str, Any] | None) -> Iterator[tuple[str, list[str]]]:
    """A stand-in for the Supervisor: its address, and the tokens that it was shown."""
    shown: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers.get("Authorization", ""))
            is_there = self.path == "/services/mqtt" and broker is not None
            answer = {"result": "ok", "data": broker} if is_there else {"result": "error", "message": "no service"}
            body = json.dumps(answer).encode()
            self.send_response(200 if is_there else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", shown
        finally:
            server.shutdown()
            thread.join()


def test_where_the_supervisor_knows_no_broker_none_is_found() -> None:
    with supervisor(None) as (address, _):
        assert run.broker_of(address, "t") is None
    assert run.broker_of(f"http://127.0.0.1:{free_port()}", "t") is None


@pytest.mark.slow
def test_it_starts_at_the_supervisors_broker_and_keeps_history(mosquitto: Broker, tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(json.dumps({**CONFIG["options"], "topics": ["ha-start/#"]}))
    (tmp_path / "gateway.toml").write_text("port = 1\n[mqtt]\nclient_id = 'ha-start'\nstatus_topic = 'ha-start/own'\n")
    parts, port = urlsplit(mosquitto.url), free_port()
    script = (APP / "run.py").read_text().replace('"GATEWAY_PORT": "8000"', f'"GATEWAY_PORT": "{port}"')
    (tmp_path / "run.py").write_text(script)
    with supervisor({"host": parts.hostname, "port": parts.port, "ssl": False}) as (address, shown):
        command = [sys.executable, str(tmp_path / "run.py"), "--data", str(tmp_path), "--config", str(tmp_path)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SUPERVISOR_TOKEN": "secret"}
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--supervisor", address], env=environment, stderr=log, cwd=tmp_path)
        try:

            def status_of(path: str, headers: dict[str, str]) -> int:
                with (
                    contextlib.suppress(OSError),
                    contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection,
                ):
                    connection.request("GET", path, headers=headers)
                    return connection.getresponse().status
                return 0

            eventually(lambda: status_of("/health/ready", {}) == 200, 30, "the gateway is connected")
            # nobody who comes another way than over Ingress gets anything, whatever name is given
            assert status_of("/topics/%23", {USER: "anna", "X-Forwarded-For": "172.30.32.2"}) == 403
        finally:
            process.terminate()
            assert process.wait(20) == 0, (tmp_path / "log").read_text()
    assert shown == ["Bearer secret"]
    assert (tmp_path / "history" / "archive.db").exists()


# who comes over Ingress


@pytest.fixture(scope="module")
def ingress(mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(
        tmp_path_factory.mktemp("ingress"),
        mosquitto.url,
        mqtt_client_id=f"ingress-{os.getpid()}",
        mqtt_status_topic="house/own",
        forwarded_allow_ips="127.0.0.1",
        access_user_header=USER,
        access_user_role="home",
        roles=json.dumps({"home": ROLE}),
    )
    try:
        process.start()
        with Publisher(mosquitto.url) as publisher:
            publisher.publish("house/door", b'{"open":true}')
        yield process
    finally:
        process.close()


def get(process: GatewayProcess, path: str, *headers: tuple[str, str], method: str = "GET") -> tuple[int, Any, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", process.port, timeout=10)) as connection:
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value.encode())
        connection.endheaders()
        response = connection.getresponse()
        data = response.read()
    is_json = "json" in (response.headers["Content-Type"] or "")
    return response.status, json.loads(data) if is_json else data, response.headers


@pytest.mark.slow
def test_who_is_named_by_the_proxy_has_the_role_and_the_name(ingress: GatewayProcess) -> None:
    status, answer, _ = get(ingress, "/whoami", (USER, "Jörg"), ("X-Forwarded-For", "192.0.2.9"))
    assert status == 200
    assert (answer["name"], answer["anonymous"]) == ("Jörg", False)
    assert answer["subscribe"] == ["#"]
    assert answer["publish"] == ["house/#"]
    assert get(ingress, "/topics/house/%23", (USER, "anna"))[0] == 200
    with connect(f"ws://127.0.0.1:{ingress.port}/ws?topic=house/%23", additional_headers={USER: "anna"}) as socket:
        eventually(lambda: json.loads(socket.recv(5)).get("topic") == "house/door", 10, "the last value comes")


def test_who_is_not_named_has_nothing(ingress: GatewayProcess) -> None:
    for headers in ((), ((USER, ""),), ((USER, "  "),)):
        assert get(ingress, "/topics/house/%23", *headers)[0] == 403
    assert get(ingress, "/whoami")[1]["anonymous"] is True


def test_two_names_are_none(ingress: GatewayProcess) -> None:
    assert get(ingress, "/topics/house/%23", (USER, "anna"), (USER, "root"))[0] == 400


@pytest.mark.slow
def test_a_name_from_elsewhere_counts_for_nothing(make_gateway: MakeGateway, mosquitto: Broker) -> None:
    other = make_gateway(
        mosquitto,
        forwarded_allow_ips="192.0.2.1",
        access_user_header=USER,
        access_user_role="home",
        roles=json.dumps({"home": ROLE}),
    )
    headers = ((USER, "anna"), ("X-Forwarded-For", "192.0.2.1"))
    assert get(other, "/topics/house/%23", *headers)[0] == 403


def test_pages_of_other_sites_get_nothing_by_the_name(ingress: GatewayProcess) -> None:
    foreign = ("Origin", "https://evil.example")
    assert get(ingress, "/topics/house/%23", (USER, "anna"), foreign)[0] == 403
    assert get(ingress, "/topics/house/x", (USER, "anna"), ("Content-Length", "0"), method="POST")[0] == 403


def test_home_assistant_may_show_the_page_in_a_frame_and_others_may_not(ingress: GatewayProcess) -> None:
    def ancestors(*headers: tuple[str, str]) -> str:
        policy = str(get(ingress, "/", ("Accept", "text/html"), *headers)[2]["Content-Security-Policy"])
        return policy.partition("frame-ancestors ")[2].partition(";")[0]

    assert ancestors((USER, "anna"), ("X-Ingress-Path", "/api/hassio_ingress/abc")) == "'self'"
    assert ancestors((USER, "anna")) == "'none'"


NGINX = """
server {
    listen 127.0.0.1:PORT;
    location /api/hassio_ingress/abc/ {
        proxy_pass http://127.0.0.1:UPSTREAM/;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Ingress-Path /api/hassio_ingress/abc;
        proxy_set_header X-Remote-User-Name anna;
    }
}
"""


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_works_under_ingress(docker: None, ingress: GatewayProcess, tmp_path: Path) -> None:
    """nginx stands for Home Assistant: the same prefix, the same headers, and a page with a frame around it."""
    from playwright.sync_api import sync_playwright
    from testcontainers.core.container import DockerContainer

    port = free_port()
    site = tmp_path / "ingress.conf"
    frame = "location = / { default_type text/html; return 200 \"<iframe src='/api/hassio_ingress/abc/'></iframe>\"; }"
    text = NGINX.replace("PORT", str(port)).replace("UPSTREAM", str(ingress.port))
    site.write_text(text.rstrip().removesuffix("}") + frame + "\n}\n")
    container = DockerContainer("nginx:stable").with_volume_mapping(str(site), "/etc/nginx/conf.d/ingress.conf", "ro")
    container.with_kwargs(network_mode="host")
    container.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page()
            eventually(lambda: _opens(page, f"http://127.0.0.1:{port}/"), 20, "nginx answers")
            inside = page.frame_locator("iframe")
            inside.get_by_text("door").first.wait_for(timeout=20_000)
            browser.close()
    finally:
        container.stop()


def _opens(page: Any, url: str) -> bool:
    with contextlib.suppress(Exception):
        page.goto(url)
        return True
    return False

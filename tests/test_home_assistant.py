"""The app (add-on) of Home Assistant: its folder, its start with a Supervisor, and a user who comes over Ingress."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import jsonschema
import pytest
import yaml
from websockets.sync.client import connect

import gateway
from gateway.settings.loading import load_settings
from tests.browser.conftest import chromium_program
from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.ingress import Ingress
from tests.support.publishers import Publisher
from tests.support.sites import Quiet, served
from tests.support.waiting import PATIENCE_SECONDS, eventually, free_port, missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]
APP = ROOT / "deploy" / "home-assistant"
CONFIG = yaml.safe_load((APP / "config.yaml").read_text(encoding="utf-8"))
ROLE = {"subscribe": ["#"], "publish": ["house/#"]}
USER, USER_ID, SHOWN = "X-Remote-User-Name", "X-Remote-User-Id", "X-Remote-User-Display-Name"
ANNA = {USER_ID: "0f" * 16, USER: "anna", SHOWN: "Anna Müller"}


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
    # what the published schema of apps demands of what is used here; what has a default must not be that
    text, flag = {"type": "string"}, {"type": "boolean"}
    wanted: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["arch", "description", "name", "slug", "version"],
        "properties": {
            **dict.fromkeys(("name", "version", "description", "panel_icon", "panel_title"), text),
            **{name: {**flag, "default": False} for name in ("ingress", "ingress_stream")},
            **{name: {**flag, "default": True} for name in ("init", "panel_admin")},
            "slug": {"pattern": "^[-_.A-Za-z0-9]+$"},
            "arch": {"items": {"enum": ["aarch64", "amd64"]}},
            "services": {"items": {"pattern": "^(mqtt|mysql):(provide|want|need)$"}},
            "ingress_port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 8099},
            "ports": {"additionalProperties": {"type": ["integer", "null"]}},
            "ports_description": {"additionalProperties": text},
            "map": {
                "items": {
                    "required": ["type"],
                    "additionalProperties": False,
                    "properties": {"type": {"enum": ["addon_config"]}, "read_only": flag},
                }
            },
            "backup": {"enum": ["hot", "cold"], "default": "hot"},
            "options": {"type": "object"},
            "schema": {"type": "object"},
        },
    }
    jsonschema.validate(CONFIG, wanted)
    for name, form in wanted["properties"].items():
        assert "default" not in form or CONFIG.get(name) != form["default"], name
    # in place of `watchdog`, which is obsolete: the Supervisor looks at what the image says of itself
    assert "\nHEALTHCHECK " in (ROOT / "Dockerfile").read_text()


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

    class Handler(Quiet):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server asks for
            shown.append(self.headers.get("Authorization", ""))
            is_there = self.path == "/services/mqtt" and broker is not None
            answer = {"result": "ok", "data": broker} if is_there else {"result": "error", "message": "no service"}
            body = json.dumps(answer).encode()
            self.send_response(200 if is_there else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with served(Handler) as address:
        yield address, shown


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
                    contextlib.closing(
                        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
                    ) as connection,
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
        mqtt_topics=["house/#"],  # the broker has what other tests retain, too
        mqtt_client_id=f"ingress-{os.getpid()}",
        mqtt_status_topic="house/own",
        forwarded_allow_ips="127.0.0.1",
        access_user_header=run.USER_HEADERS,
        access_user_role="home",
        roles=json.dumps({"home": ROLE}),
    )
    with process:
        with Publisher(mosquitto.url) as publisher:
            publisher.publish("house/door", b'{"open":true}')
            publisher.publish_all((f"house/rooms/{n}/lamp", str(n).encode()) for n in range(5))
        eventually(lambda: len(get(process, "/topics/house/%23", (USER, "x"))[1]["messages"]) > 5, 25, "all has come")
        yield process


def get(process: GatewayProcess, path: str, *headers: tuple[str, str], method: str = "GET") -> tuple[int, Any, Any]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", process.port, timeout=PATIENCE_SECONDS)
    ) as connection:
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
    assert get(ingress, "/topics/house/%23", (USER, "anna"), (USER_ID, "1"), (USER_ID, "2"))[0] == 400


@pytest.mark.slow
def test_each_user_of_home_assistant_has_connections_of_their_own(make_gateway: MakeGateway, mosquitto: Broker) -> None:
    process = make_gateway(
        mosquitto,
        forwarded_allow_ips="127.0.0.1",
        access_user_header=run.USER_HEADERS,
        access_user_role="home",
        roles=json.dumps({"home": ROLE}),
        limit_connections_per_address=2,
    )
    # what Home Assistant adds is the address of one of its own parts, the same for everybody
    core = ("X-Forwarded-For", "172.30.32.1")
    socket, streams = f"ws://127.0.0.1:{process.port}/ws?topic=house/%23", "/topics/house/%23"
    with contextlib.ExitStack() as open_ones:
        for user in ("anna", "bert"):
            for _ in range(2):
                open_ones.enter_context(connect(socket, additional_headers={USER: user, core[0]: core[1]}))
            events = ("Accept", "text/event-stream")
            status, answer, _ = get(process, streams, (USER, user), core, events)
            assert (status, answer["reason"]) == (503, "limit_connections_per_address")
            assert f"user '{user}'" in answer["detail"]


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


@pytest.fixture
def home(ingress: GatewayProcess) -> Iterator[Ingress]:
    """Home Assistant with the gateway in its side bar, and Anna logged in."""
    with Ingress(ingress.port) as stand_in:
        stand_in.user = ANNA
        yield stand_in


def asked(home: Ingress, address: str, **headers: str) -> tuple[int, Any, Any]:
    """What is answered over Ingress; `address`: relative to the app's page."""
    request = urllib.request.Request(urljoin(home.url, address), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read()), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), error.headers


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (ANNA, "anna"),
        # one who logs in by another provider than Home Assistant's own has no user name; display names may be anyone's
        ({USER_ID: "0f" * 16, SHOWN: "root"}, "0f" * 16),
        ({USER_ID: "0f" * 16, USER: "", SHOWN: "root"}, "0f" * 16),
        # the Supervisor could not ask who it is
        ({}, "core.ingress"),
    ],
)
def test_everybody_whom_home_assistant_has_let_in_has_the_role_and_a_name(
    home: Ingress, user: dict[str, str], name: str
) -> None:
    home.user = user
    status, answer, _ = asked(home, "whoami", **{USER: "admin", "X-Hass-Source": "admin"})
    assert (status, answer["name"], answer["anonymous"]) == (200, name, False)
    assert answer["publish"] == ["house/#"]
    assert asked(home, "topics/house/door")[1]["messages"]


@pytest.mark.parametrize("topics", ["house/rooms/%23", "house/rooms/+/%23", "%23?topic=house/rooms/%23", "%23"])
def test_a_filter_comes_through_with_the_sign_at_its_end(home: Ingress, topics: str) -> None:
    status, answer, _ = asked(home, f"topics/{topics}{'&' if '?' in topics else '?'}limit=100")
    assert status == 200
    found = {message["topic"] for message in answer["messages"]}
    assert {f"house/rooms/{n}/lamp" for n in range(5)} <= found


def test_a_socket_at_a_filter_has_its_topics(home: Ingress) -> None:
    with connect(urljoin(home.url, "topics/house/rooms/%23").replace("http", "ws")) as socket:
        eventually(lambda: json.loads(socket.recv(5)).get("topic") == "house/rooms/4/lamp", 10, "the last values come")


def test_without_ingress_a_path_is_what_it_says(ingress: GatewayProcess) -> None:
    assert get(ingress, "/topics/house/rooms/", (USER, "anna"))[1]["messages"] == []
    other = ("X-Forwarded-For", "192.0.2.9")
    assert get(ingress, "/topics/house/rooms/", (USER, "anna"), other)[1]["messages"] == []


def test_what_names_an_address_names_it_under_the_prefix(home: Ingress) -> None:
    seen: list[int] = []
    address: str | None = "topics/house/rooms/%23?since=1h&limit=2"
    while address:
        status, answer, headers = asked(home, address)
        assert status == 200
        seen += [message["payload"] for message in answer["messages"]]
        link = headers["Link"]
        # as a browser resolves it: against the address that was asked for
        address = urljoin(urljoin(home.url, address), link.partition("<")[2].partition(">")[0]) if link else None
    assert seen == [0, 1, 2, 3, 4]
    [server] = asked(home, "openapi.json")[1]["servers"]
    assert urljoin(urljoin(home.url, "openapi.json"), server["url"]) == home.url
    assert asked(home, urljoin(home.url, server["url"]) + "whoami")[0] == 200
    manifest = urljoin(home.url, "manifest.webmanifest")
    if (ROOT / "gateway" / "static").is_dir():
        assert urljoin(manifest, asked(home, manifest)[1]["start_url"]) == home.url


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
        proxy_set_header X-Hass-Source core.ingress;
        proxy_set_header X-Remote-User-Id 0f0f;
        proxy_set_header X-Remote-User-Name anna;
    }
}
"""


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_works_under_a_prefix_of_nginx(docker: None, ingress: GatewayProcess, tmp_path: Path) -> None:
    """The same prefix and headers as those of Ingress, and a page with a frame around it, by another's proxy."""
    from testcontainers.core.container import DockerContainer

    port = free_port()
    site = tmp_path / "ingress.conf"
    shown = "<iframe src='/api/hassio_ingress/abc/' width=900 height=600></iframe>"
    frame = f'location = / {{ default_type text/html; return 200 "{shown}"; }}'
    text = NGINX.replace("PORT", str(port)).replace("UPSTREAM", str(ingress.port))
    site.write_text(text.rstrip().removesuffix("}") + frame + "\n}\n")
    container = DockerContainer("nginx:stable").with_volume_mapping(str(site), "/etc/nginx/conf.d/ingress.conf", "ro")
    container.with_kwargs(network_mode="host")
    container.start()
    try:
        with _browser() as browser:
            page = browser.new_page()
            failed: list[str] = []
            page.on("requestfailed", lambda request: failed.append(f"{request.url} {request.failure}"))
            page.on("console", lambda line: failed.append(line.text))

            def shows() -> bool:
                # again as a whole: a browser drops what it is loading when an interface of the machine comes or goes
                page.goto(f"http://127.0.0.1:{port}/", timeout=10_000)
                page.frame_locator("iframe").get_by_text("door").first.wait_for(timeout=10_000)
                return True

            eventually(lambda: _tried(shows, failed), 60, "the page shows a topic")
    finally:
        container.stop()


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_works_under_ingress(home: Ingress) -> None:
    home.user = {USER_ID: "0f" * 16, SHOWN: "Kiosk"}
    with _browser() as browser:
        page = browser.new_page()
        refused: list[str] = []
        page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
        page.goto(f"http://127.0.0.1:{home.port}/")
        inside = page.frame_locator("iframe")
        inside.get_by_text("door").first.wait_for(timeout=30_000)
        # an address of a topic filter, opened as a bookmark is: its table and its chart come from the gateway
        page.goto(urljoin(home.url, "topics/house/rooms/%23"))
        page.get_by_text("lamp").first.wait_for(timeout=30_000)
        assert refused == []


@contextlib.contextmanager
def _browser() -> Iterator[Browser]:
    # not the module's: while Playwright's loop is there, no other test could run one in this thread
    from playwright.sync_api import sync_playwright

    program = chromium_program()
    if program is None:
        missing("Chromium (on Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def _tried(shows: Callable[[], bool], failed: Sequence[str]) -> bool:
    """What `shows` says.

    Raises:
        LookupError: the browser says that it did not; with what it could not load.
    """
    from playwright.sync_api import Error

    try:
        return shows()
    except Error as error:
        raise LookupError(f"{error}; in the browser: {failed}") from None

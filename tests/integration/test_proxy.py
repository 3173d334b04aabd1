"""The examples in deploy/ as they are, but for names and ports: a real nginx and a real Caddy before a real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.support.brokers import Broker
from tests.support.certificates import Authority
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import PATIENCE_SECONDS, eventually, free_port, is_listening, missing

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRET = "0123456789abcdef0123456789abcdef"
ROOT = "proxied"

pytestmark = pytest.mark.anyio


@dataclass
class Answer:
    """What a request got."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Proxied:
    """A proxy with its gateway behind it."""

    kind: str
    port: int
    gateway: GatewayProcess
    context: ssl.SSLContext
    container: Any
    prefix: str = ""

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def token(self, **claims: Any) -> str:
        return mint(secret_key(SECRET), ttl_seconds=300, **{"subscribe": ["#"], "publish": [f"{ROOT}/#"], **claims})

    @contextlib.contextmanager
    def response(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.context, timeout=20)
        try:
            connection.request(method, self.prefix + path, body, headers or {})
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def get(self, path: str, *, token: str | None = None, **headers: str) -> Answer:
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        with self.response(path, headers={**bearer, **headers}) as response:
            return Answer(response.status, response.headers, response.read())

    def post(self, path: str, body: bytes, token: str, origin: str) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Origin": origin}
        with self.response(path, "POST", body, headers) as response:
            return Answer(response.status, response.headers, response.read())

    def socket(self, path: str, origin: str | None = "", **headers: str) -> Any:
        found = f"https://{self.host}" if origin == "" else origin
        url = f"wss://{self.host}{self.prefix}{path}"
        more = {"Origin": found} if found else {}
        return connect(url, ssl=self.context, additional_headers={**headers, **more}, ping_interval=None)

    def log(self) -> str:
        container = self.container.get_wrapped_container()
        text: bytes = container.logs()
        if self.kind != "caddy":
            # error.log leads to the container's own log, or is a file
            files = "cd /var/log/nginx; cat gateway.log; test -f error.log && cat error.log"
            text += container.exec_run(["sh", "-c", files]).output
        return text.decode()


def nginx_files(folder: Path, port: int, upstream: int, authority: Authority, prefix: str) -> dict[str, str]:
    pair = authority.issue("nginx", hosts=("localhost",))
    for source in (pair.cert, pair.key):
        shutil.copy(source, folder / f"sensors.example.com{source.suffix}")
    text = (DEPLOY / "nginx.conf").read_text()
    if prefix:
        # the site that is there already: everything of the example but its locations
        head, _, rest = text.partition("    location / {")
        location = (DEPLOY / "nginx-prefix.conf").read_text().replace("gateway:8000", f"127.0.0.1:{upstream}")
        assert rest.rstrip().endswith("}")
        text = head + location + "}\n"
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace(
        "sensors.example.com;", "localhost;", 1
    )
    text = text.replace("server gateway:8000", f"server 127.0.0.1:{upstream}")
    (folder / "gateway.conf").write_text(text)
    return {str(folder / "gateway.conf"): "/etc/nginx/conf.d/gateway.conf", str(folder): "/etc/nginx/certs"}


def caddy_files(folder: Path, port: int, upstream: int, authority: Authority) -> dict[str, str]:
    pair = authority.issue("caddy", hosts=("localhost",))
    for source in (pair.cert, pair.key):
        shutil.copy(source, folder / f"caddy{source.suffix}")
    text = (DEPLOY / "Caddyfile").read_text()
    text = text.replace(
        "sensors.example.com {",
        f"https://localhost:{port} {{\n\ttls /certs/caddy.pem /certs/caddy.key\n\tbind 127.0.0.1",
        1,
    )
    # into the global options, which come first
    text = text.replace("\n{\n", "\n{\n\tadmin off\n\tauto_https disable_redirects\n", 1)
    text = text.replace("gateway:8000", f"127.0.0.1:{upstream}")
    (folder / "Caddyfile").write_text(text)
    return {str(folder / "Caddyfile"): "/etc/caddy/Caddyfile", str(folder): "/certs"}


@pytest.fixture(scope="module", params=["nginx", "caddy", "nginx below a path"])
def proxied(
    docker: None,
    request: pytest.FixtureRequest,
    mosquitto: Broker,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxied]:
    from testcontainers.core.container import DockerContainer

    folder = tmp_path_factory.mktemp("proxy")
    port = free_port()
    prefix = "/sensors" if "path" in request.param else ""
    gateway = GatewayProcess(
        folder / "gateway",
        mosquitto.url,
        access_secret=SECRET,
        forwarded_allow_ips="127.0.0.1",
        root_path=prefix,
        mqtt_client_id=f"proxied-{port}",
        mqtt_status_topic=f"{ROOT}/status",
        log_format="json",
    )
    image = "caddy:2" if request.param == "caddy" else "nginx:stable"
    certs = folder / "certs"
    certs.mkdir()
    if request.param == "caddy":
        files = caddy_files(certs, port, gateway.port, authority)
    else:
        files = nginx_files(certs, port, gateway.port, authority, prefix)
    container = DockerContainer(image)
    for source, target in files.items():
        container.with_volume_mapping(source, target, "ro")
    # loopback is where the gateway listens; a network of its own would have to be let in there first
    container.with_kwargs(network_mode="host")
    try:
        gateway.start()
        container.start()
        eventually(
            lambda: is_listening(port), 20, f"{request.param} listens: {container.get_wrapped_container().logs()}"
        )
        context = ssl.create_default_context(cafile=authority.ca_file)
        yield Proxied(request.param, port, gateway, context, container, prefix)
    finally:
        container.stop()
        gateway.close()


def test_the_page_comes_over_https_with_its_headers(proxied: Proxied) -> None:
    answer = proxied.get("/", Accept="text/html")
    page = answer.body.decode()
    assert answer.status == 200
    assert "<!doctype html>" in page.lower()
    assert "default-src 'none'" in (answer.headers["Content-Security-Policy"] or "")
    for path in re.findall(r'(?:src|href)="\./([^"]+)"', page):
        assert proxied.get("/" + path).status == 200, path


async def test_a_websocket_of_the_same_origin_is_let_in(proxied: Proxied, mosquitto: Broker) -> None:
    async with proxied.socket(f"/ws?topic={ROOT}/a&since=now&token={proxied.token()}") as websocket:
        assert json.loads(await websocket.recv())["event"] == "subscribed"
        with Publisher(mosquitto.url) as publisher:
            publisher.publish(f"{ROOT}/a", b"1")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert json.loads(await websocket.recv())["payload"] == 1
        await websocket.send(json.dumps({"command": "publish", "id": 1, "topic": f"{ROOT}/b", "payload": 2, "qos": 1}))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while json.loads(await websocket.recv()).get("event") != "published":
                pass


async def test_a_websocket_of_another_origin_is_not(proxied: Proxied) -> None:
    for origin in ("https://evil.example", f"http://{proxied.host}", "null"):
        with pytest.raises(InvalidStatus) as caught:
            async with proxied.socket(f"/ws?topic={ROOT}/a&token={proxied.token()}", origin=origin):
                pass
        assert caught.value.response.status_code == 403


def test_an_event_leaves_when_it_comes(proxied: Proxied, mosquitto: Broker) -> None:
    """It does not wait for the next one, nor for the end of the answer: no other follows, and the socket waits 20 s."""
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {proxied.token()}"}
    with proxied.response(f"/topics/{ROOT}/live?since=now", headers=headers) as response:
        assert response.status == 200
        while b"subscribed" not in response.readline():
            pass
        with Publisher(mosquitto.url) as publisher:
            publisher.publish(f"{ROOT}/live", b"1")
            while b'"payload":1' not in response.readline():
                pass


def test_publishing_and_payloads_at_the_limit_pass(proxied: Proxied) -> None:
    token, own = proxied.token(), f"https://{proxied.host}"
    assert proxied.post(f"/topics/{ROOT}/x?qos=1", b"x" * 1_048_576, token, own).status == 202
    over = proxied.post(f"/topics/{ROOT}/x", b"x" * 1_048_577, token, own)
    assert over.status == 413
    assert over.json["code"] == "bad_payload"
    assert proxied.post(f"/topics/{ROOT}/x", b"1", token, "https://evil.example").status == 403


async def test_who_a_client_claims_to_be_is_not_believed(proxied: Proxied) -> None:
    spoofed = {"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    async with proxied.socket(f"/ws?topic={ROOT}/a&token={proxied.token(subject='spoofer')}", **spoofed) as websocket:
        await websocket.recv()
    entry = ""

    def closed() -> bool:
        nonlocal entry
        lines = [line for line in proxied.gateway.log().splitlines() if "'spoofer'" in line and "closed after" in line]
        entry = lines[-1] if lines else ""
        return bool(lines)

    eventually(closed, 10, "the connection is in the log")
    assert "203.0.113.7" not in entry
    assert " 127.0.0.1:" in json.loads(entry)["message"]


def test_numbers_are_for_the_operator(proxied: Proxied) -> None:
    granted = proxied.token(subscribe=["$SYS/#"])
    assert proxied.get("/metrics", token=granted).status == 403
    assert proxied.gateway.get("/metrics", {"Authorization": f"Bearer {granted}"})[0] == 200


def test_links_lead_back_through_the_proxy(proxied: Proxied, mosquitto: Broker) -> None:
    topic, token = f"{ROOT}/page{proxied.port}", proxied.token()
    with Publisher(mosquitto.url) as publisher:
        publisher.publish_all((topic, str(n).encode()) for n in range(5))
    everything = f"/topics/{topic}?since=1h"
    eventually(lambda: len(proxied.get(everything, token=token).json["messages"]) == 5, 10, "all have arrived")
    seen: list[int] = []
    path: str | None = f"{everything}&limit=2"
    while path:
        answer = proxied.get(path, token=token)
        seen += [message["payload"] for message in answer.json["messages"]]
        link = re.match(r"<([^>]+)>", answer.headers["Link"] or "")
        path = urljoin(path, link[1]) if link else None
    assert seen == [0, 1, 2, 3, 4]


async def test_no_token_is_in_the_proxys_log(proxied: Proxied) -> None:
    token = proxied.token(subject="secretive")
    async with proxied.socket(f"/ws?topic={ROOT}/a&token={token}") as websocket:
        await websocket.recv()
    path = f"/topics/{ROOT}/a?token={token}"
    assert proxied.get(path, Referer=f"https://localhost/?token={token}").status == 200
    eventually(lambda: f"/topics/{ROOT}/a" in proxied.log(), 10, "the request is in the proxy's log")
    log = proxied.log()
    assert token not in log
    assert token.split(".")[2] not in log


@pytest.mark.slow
async def test_no_token_is_in_the_proxys_log_when_the_gateway_is_away(proxied: Proxied) -> None:
    token, path = proxied.token(subject="unlucky"), f"/topics/{ROOT}/away"
    proxied.gateway.stop()
    try:
        assert proxied.get(f"{path}?token={token}", Referer=f"https://localhost/?token={token}").status == 502
        with pytest.raises(InvalidStatus):
            async with proxied.socket(f"/ws?topic={ROOT}/a&token={token}"):
                pass
        eventually(lambda: path in proxied.log() and "502" in proxied.log(), 10, "the failure is in the proxy's log")
        log = proxied.log()
        assert token not in log
        assert token.split(".")[2] not in log
    finally:
        proxied.gateway.start()


def test_traefiks_example_is_well_formed() -> None:
    found = yaml.safe_load((DEPLOY / "traefik.yml").read_text())["http"]
    for router in found["routers"].values():
        assert router["service"] in found["services"]
        assert set(router.get("middlewares", [])) <= set(found["middlewares"])


def test_the_systemd_unit_is_valid_and_hardened(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("the program systemd-analyze")
    unit = tmp_path / "gateway.service"
    text = (DEPLOY / "gateway.service").read_text()
    # it has to be there to be looked at; the real place is only known on the real machine
    unit.write_text(text.replace("/usr/local/lib/gateway/bin/gateway", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False
    )
    assert str(unit) not in verified.stderr + verified.stdout
    assert "LimitCORE=0" in text.splitlines()  # no password lands in a core dump
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, timeout=60, check=False
    )
    exposure = re.search(r"exposure level for .*: ([\d.]+)", judged.stdout)
    assert exposure is not None, judged.stdout + judged.stderr
    assert float(exposure[1]) < 2

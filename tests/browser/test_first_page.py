"""The page without a library, and the script of the article that started it all, in a real Chromium."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.sites import Quiet, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PACKAGE = Path(__file__).parents[2] / "gateway"

ARTICLE = """<!doctype html>
<h1>Temperature: <span id="temperature">?</span></h1>
<script>
  const ws = new WebSocket("ws://HOST/ws/temperature/");
  ws.onmessage = function (e) {
    document.getElementById("temperature").textContent = JSON.parse(e.data).temperature;
  };
</script>
"""


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a gateway runs that has no dashboard: `python -m` takes the package that is in the current directory."""
    shutil.copytree(PACKAGE, tmp_path / "bare/gateway", ignore=shutil.ignore_patterns("static", "__pycache__"))
    return tmp_path / "bare"


@pytest.fixture
def gateway(folder: Path, mosquitto: Broker, prefix: str) -> Iterator[GatewayProcess]:
    process = GatewayProcess(folder, mosquitto.url, mqtt_client_id=prefix, mqtt_status_topic=f"{prefix}-own/status")
    with process:
        yield process


@pytest.mark.slow
def test_what_was_not_built_is_not_found_and_how_to_build_it_is_said(gateway: GatewayProcess) -> None:
    for path in ("/client.js", "/favicon.ico", "/a/b"):
        status, body = gateway.get(path)
        assert status == 404
        assert f"{path} is not here".encode() in body
        assert b"`make web` in a checkout builds" in body
    assert b"<code>make web</code> in a checkout builds" in gateway.get("/")[1]
    assert "there is only a small page, no dashboard and no client library: they were not built" in gateway.log()
    assert "Traceback" not in gateway.log()


def open_first_page(page: Page, gateway: GatewayProcess, topic: str) -> None:
    page.goto(f"{gateway.http}/?topic={quote(topic, safe='')}")
    expect(page.get_by_role("heading", name="Live values")).to_be_visible()


@contextlib.contextmanager
def web_server(page: bytes) -> Iterator[str]:
    """A site of somebody's own with one page; gives its origin."""

    class Handler(Quiet):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server asks for
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

    with served(Handler) as origin:
        yield origin


def test_the_articles_script_works_unchanged(
    page: Page, make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher
) -> None:
    gateway = make_gateway(mosquitto, start=False)
    with web_server(ARTICLE.replace("HOST", f"127.0.0.1:{gateway.port}").encode()) as origin:
        gateway.settings["access_origins"] = [origin]
        gateway.start()
        publisher.publish("sensors/article/state", b'{"temperature":21.5}')
        page.goto(f"{origin}/")
        expect(page.locator("#temperature")).to_have_text("21.5")
        publisher.publish("sensors/article/state", b'{"temperature":-3,"humidity":40}')
        expect(page.locator("#temperature")).to_have_text("-3")


@pytest.mark.slow
def test_shows_the_last_values_and_then_those_that_come(
    page: Page, gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    publisher.publish(f"{prefix}/sensor-10/state", b'{"temperature":21.5,"seq":7,"on":true}')
    publisher.publish(f"{prefix}/sensor-2/state", b"plain text")
    open_first_page(page, gateway, f"{prefix}/#")
    rows = page.locator("#values li")
    expect(rows).to_have_count(2)
    expect(rows.nth(0).locator(".topic")).to_have_text(f"{prefix}/sensor-2/state")
    expect(rows.nth(0).locator(".value")).to_have_text("plain text")
    expect(rows.nth(1).locator(".value")).to_have_text("temperature 21.5on true")
    expect(page.locator("#state")).to_have_text("live")
    publisher.publish(f"{prefix}/sensor-10/state", b'{"temperature":22}')
    expect(rows.nth(1).locator(".value")).to_have_text("temperature 22")
    publisher.publish(f"{prefix}/sensor-1/state", b"\xff\x00")
    expect(rows).to_have_count(3)


@pytest.mark.slow
def test_a_payload_is_never_taken_for_html(
    page: Page, gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    hostile = '<img src=x onerror="document.title=1">'
    publisher.publish(f"{prefix}/{hostile}", hostile.encode())
    publisher.publish(f"{prefix}/x", b'{"<b>bold</b>":"<i>i</i>"}')
    open_first_page(page, gateway, f"{prefix}/#")
    expect(page.locator("#values li")).to_have_count(2)
    expect(page.locator("#values img, #values i")).to_have_count(0)
    assert page.title() == "Live values"


@pytest.mark.slow
def test_says_what_it_waits_for(page: Page, gateway: GatewayProcess, prefix: str) -> None:
    open_first_page(page, gateway, f"{prefix}/none")
    expect(page.locator("#empty")).to_contain_text(f"No message to {prefix}/none yet")


@pytest.mark.slow
def test_shows_what_the_gateway_refuses(page: Page, gateway: GatewayProcess) -> None:
    open_first_page(page, gateway, "a/#/b")
    expect(page.get_by_role("alert")).to_contain_text("'#' must be the last level")
    expect(page.locator("#state")).to_have_text("refused")


@pytest.mark.slow
def test_shows_the_state_of_the_connection(
    page: Page, make_mosquitto: MakeMosquitto, gateway: GatewayProcess, prefix: str
) -> None:
    broker = make_mosquitto()
    gateway.stop()
    gateway.settings["mqtt_url"] = broker.url
    gateway.start()
    open_first_page(page, gateway, f"{prefix}/#")
    state = page.locator("#state")
    expect(state).to_have_text("live")
    broker.stop()
    expect(state).to_contain_text("no connection to the broker")
    broker.start()
    expect(state).to_have_text("live", timeout=30_000)
    gateway.stop()
    expect(state).to_contain_text("not connected to the gateway")
    gateway.start()
    expect(state).to_have_text("live", timeout=30_000)
    _publish(broker, f"{prefix}/x")
    expect(page.locator("#values li")).to_have_count(1)


def _publish(broker: Broker, topic: str) -> None:
    with Publisher(broker.url) as publisher:
        publisher.publish(topic, b"1")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_telephone_light_and_dark(
    chromium: Browser, gateway: GatewayProcess, publisher: Publisher, prefix: str, scheme: str
) -> None:
    publisher.publish(f"{prefix}/{'long' * 40}", b"x" * 300)
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    open_first_page(page, gateway, f"{prefix}/#")
    expect(page.locator("#values li")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    colours: list[str] = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    back, text = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
    assert (back < text) == (scheme == "dark")
    context.close()

"""The dashboard in the visitor's language: the browser's, or the one that was chosen."""

from __future__ import annotations

import re
import time

import jwt
import pytest
from playwright.sync_api import expect

from tests.browser.watched import NARROW, WIDE, Watched, meta, rows
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.publishers import Publisher
from tests.support.waiting import missing

from .test_dashboard_views import BUILT, SECRET


@pytest.fixture(scope="module", autouse=True)
def _is_built() -> None:
    if not BUILT.exists():
        missing("the built dashboard (python scripts/build_web.py)")


@pytest.mark.slow
def test_a_german_browser_gets_a_german_page_and_may_choose_another(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish("sensors/a/meta", meta("Devices", 600, temperature=("°C", "temperature")), retain=True)
        publisher.publish("sensors/a/state", '{"temperature": 20}')
        page = watched.open(f"{gateway.http}/", locale="de-DE")
        assert page.locator("html").get_attribute("lang") == "de"
        expect(page.get_by_role("navigation")).to_contain_text("Geräte")
        expect(page.get_by_placeholder("Suchen")).to_be_visible()
        # what people wrote is as they wrote it
        expect(rows(page)).to_contain_text("Devices")
        page.get_by_role("link", name="Verbindung").click()
        expect(page.get_by_role("heading", name="Aussehen")).to_be_visible()
        page.get_by_role("button", name="English").click()
        expect(page.get_by_role("heading", name="Look")).to_be_visible()
        assert page.locator("html").get_attribute("lang") == "en"
        page.get_by_role("button", name="As the browser").click()
        expect(page.get_by_role("heading", name="Aussehen")).to_be_visible()


@pytest.mark.slow
def test_what_the_gateway_says_is_in_german_with_its_own_words_behind(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    gateway = make_gateway(make_mosquitto(), access_secret=SECRET)
    page = watched.open(f"{gateway.http}/health/live", locale="de-DE")

    def show(token: str, path: str) -> None:
        page.evaluate("(token) => sessionStorage.setItem('gateway.token', token)", token)
        page.goto(f"{gateway.http}/{path}")

    show(jwt.encode({"exp": int(time.time()) - 60, "topics": {"subscribe": ["#"]}}, SECRET, "HS256"), "")
    expect(page.get_by_role("heading", name="Ihr Token ist abgelaufen")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^Das Token ist abgelaufen \(the token.*\)$"))
    show(jwt.encode({"sub": "eve", "exp": 4_000_000_000}, "x" * 40, "HS256"), "")
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^Die Unterschrift des Tokens stimmt nicht \(.+\)$"))
    grants = {"subscribe": ["#"], "publish": ["a"]}
    show(jwt.encode({"exp": int(time.time()) + 600, "topics": grants}, SECRET, "HS256"), "topics/no/such")
    expect(page.locator(".verdict")).to_have_text("Noch ist keine Nachricht gekommen, die passt")
    expect(page.locator(".said")).to_have_text(re.compile("^No message to 'no/such' has come"))
    page.locator(".explain summary").click()
    expect(page.locator(".explain li b")).to_have_text(
        ["Filter", "Broker", "Abonnement", "Berechtigung", "Nachrichten"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_german_words_have_room(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto, size: dict[str, int]
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish("sensors/a/state", '{"temperature": 20, "mode": "heating"}')
        for place in ("", "?view=topics", "?view=saved", "topics/sensors/a/state", "?view=publish", "?view=connection"):
            page = watched.open(f"{gateway.http}/{place}", locale="de-DE", viewport=size)
            expect(page.locator("main")).to_be_visible()
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over <= 0, place or "list"
            expect(page.locator("body")).not_to_contain_text(re.compile(r"\{\w+\}"))
            page.close()


@pytest.mark.slow
def test_tools_that_have_no_room_beside_their_heading_begin_where_it_begins(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        for name in ("a", "b"):
            publisher.publish(f"sensors/{name}/state", '{"temperature": 20, "humidity": 40}')
        page = watched.open(f"{gateway.http}/?group=area", locale="de-DE")
        expect(rows(page)).to_have_count(2)
        expect(page.locator(".view-head select")).to_have_count(2)
        below = 0
        for width in range(820, 1060, 20):
            page.set_viewport_size({"width": width, "height": 800})
            heading, tools = (page.locator(f".view-head {each}").first.bounding_box() for each in ("h1", ".tools"))
            assert heading is not None
            assert tools is not None
            if tools["y"] > heading["y"] + heading["height"] - 1:
                below += 1
                assert tools["x"] == pytest.approx(heading["x"], abs=1), width
            else:
                assert tools["x"] + tools["width"] == pytest.approx(width - heading["x"], abs=1), width
        assert 0 < below < 12

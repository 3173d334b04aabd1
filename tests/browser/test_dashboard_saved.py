"""Views that people put together: in their address, kept under a name, and shared by a link that reads only them."""

from __future__ import annotations

import json
import re
import time
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.browser.test_dashboard_views import AXE, axe
from tests.browser.watched import NARROW, Watched, meta
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.gateways import GatewayProcess
from tests.support.pictures import png
from tests.support.publishers import Publisher
from tests.support.waiting import eventually, missing

SECRET = "a secret of at least thirty-two bytes, for tests"


def fill(publisher: Publisher) -> None:
    for name in ("kitchen", "attic"):
        publisher.publish(
            f"sensors/{name}/meta", meta(name.title(), 10, temperature=("°C", "temperature")), retain=True
        )
    for step in range(6):
        for offset, name in enumerate(("kitchen", "attic")):
            state = {"temperature": 20 + offset + step / 10, "humidity": 40 + step}
            publisher.publish(f"sensors/{name}/state", json.dumps(state))
        time.sleep(0.1)
    publisher.publish("events/deploy", "firmware 2.1")
    publisher.publish("secret/thing", "7")
    time.sleep(0.3)


def address(gateway: GatewayProcess, view: dict[str, object]) -> str:
    return f"{gateway.http}/?view=saved&is={quote(json.dumps(view))}"


VIEW: dict[str, object] = {
    "title": "Upstairs",
    "since": "15m",
    "marks": "events/#",
    "parts": [
        {"kind": "value", "topic": "sensors/attic/state", "fields": ["temperature"], "title": "Attic"},
        {"kind": "chart", "topic": "sensors/+/state", "fields": ["temperature"]},
        {"kind": "chart", "topic": "sensors/kitchen/state", "fields": ["humidity"]},
    ],
}


@pytest.mark.slow
def test_a_view_is_wholly_in_its_address_with_charts_values_and_marks(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        fill(publisher)
        for viewport in (None, NARROW):
            page = watched.open(address(gateway, VIEW), viewport)
            expect(page.get_by_role("heading", name="Upstairs")).to_be_visible()
            expect(page.locator(".saved-part .plot canvas")).to_have_count(2)
            expect(page.locator(".saved-part.value .reading-now")).to_have_text("21.5 °C")
            expect(page.locator(".marks summary").first).to_have_text("1 mark")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            part, area = (page.locator(each).first.bounding_box() for each in (".saved-part.chart", ".chart-area"))
            assert part is not None
            assert area is not None
            assert part["x"] < area["x"], "a chart lies over the edge of its card"
            assert area["x"] + area["width"] < part["x"] + part["width"], "a chart lies over the edge of its card"
        page = watched.open(address(gateway, VIEW))
        expect(page.locator(".saved-part.value .reading-now")).to_contain_text("21.5")
        publisher.publish("sensors/attic/state", '{"temperature": 25.5}')
        expect(page.locator(".saved-part.value .reading-now")).to_contain_text("25.5")
        publisher.publish("events/door", "door opened")
        expect(page.locator(".marks summary").first).to_have_text("2 marks")
        # one window for all charts, and it stays where it was put
        now = int(time.time() * 1000)
        fixed = {**VIEW, "from": now - 60_000, "to": now - 1_000}
        page = watched.open(address(gateway, fixed))
        expect(page).to_have_url(re.compile(f"from={now - 60_000}&to={now - 1_000}"))
        expect(page.locator(".saved-part .plot canvas")).to_have_count(2)
        # what is no view is said
        page = watched.open(f"{gateway.http}/?view=saved&is=%7B")
        expect(page.get_by_role("heading", name="No such view")).to_be_visible()


@pytest.mark.slow
def test_a_view_is_put_together_kept_and_never_lost_to_somebody_who_saves_at_once(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker, view_topic="gateway/views")
    with Publisher(broker.url) as publisher:
        fill(publisher)
        page = watched.open(f"{gateway.http}/?view=saved")
        page.get_by_role("link", name="New view").click()
        page.get_by_label("Topic", exact=True).fill("sensors/+/state")
        page.get_by_label("Fields").fill("temperature")
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.locator(".saved-part .plot canvas")).to_have_count(1)
        page.get_by_label("Topic", exact=True).fill("a/#/b")
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.get_by_text("This is no topic or topic filter.")).to_be_visible()
        page.get_by_label("Keep as").fill("up/stairs")
        expect(page.get_by_role("button", name="Save")).to_be_disabled()
        page.get_by_label("Keep as").fill("upstairs")
        page.get_by_role("button", name="Save").click()
        expect(page).to_have_url(re.compile(r"view=saved&name=upstairs$"))
        expect(page.locator(".saved-part .plot canvas")).to_have_count(1)
        kept = gateway.json("/topics/gateway/views/upstairs")["messages"][0]
        assert kept["retained"]
        assert kept["payload"]["parts"][0]["topic"] == "sensors/+/state"
        # two change it at once
        other = watched.open(page.url)
        for each, title in ((page, "Mine"), (other, "Theirs")):
            expect(each.locator(".saved-part .plot canvas")).to_have_count(1)
            each.get_by_role("button", name="Edit").click()
            each.get_by_label("Title").fill(title)
            each.get_by_label("Title").press("Tab")
            expect(each.get_by_role("heading", name=title)).to_be_visible()
        page.get_by_role("button", name="Save").click()
        expect(page).to_have_url(re.compile(r"view=saved&name=upstairs$"))
        other.get_by_role("button", name="Save").click()
        expect(other.get_by_text("Somebody has kept another one under this name meanwhile.")).to_be_visible()
        assert gateway.json("/topics/gateway/views/upstairs")["messages"][0]["payload"]["title"] == "Mine"
        other.get_by_role("button", name="Replace it").click()
        expect(other).to_have_url(re.compile(r"view=saved&name=upstairs$"))
        assert gateway.json("/topics/gateway/views/upstairs")["messages"][0]["payload"]["title"] == "Theirs"
        # it is in the list, and goes
        listed = watched.open(f"{gateway.http}/?view=saved")
        listed.get_by_role("link", name="upstairs").click()
        expect(listed.get_by_role("heading", name="Theirs")).to_be_visible()
        listed.on("dialog", lambda dialog: dialog.accept())
        listed.get_by_role("button", name="Delete").click()
        expect(listed.get_by_role("heading", name="No view is kept here")).to_be_visible()


@pytest.mark.slow
def test_views_pictures_and_tracks_are_accessible(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    if not AXE.exists():
        missing("axe-core (npm ci in web/)")
    broker = make_mosquitto()
    gateway = make_gateway(broker, view_topic="gateway/views")
    with Publisher(broker.url) as publisher:
        fill(publisher)
        publisher.publish("cam/door", png(64, 48), retain=True)
        for step in range(5):
            publisher.publish("van", json.dumps({"lat": 52.5 + step / 1000, "lon": 13.4}))
        publisher.publish("gateway/views/upstairs", json.dumps(VIEW), retain=True)
        for path, there in (
            ("/?view=saved", ".saved-list li"),
            ("/?view=saved&name=upstairs&edit=1", ".saved-part canvas"),
            ("/topics/cam/door", ".picture img"),
            ("/topics/van", ".track canvas"),
        ):
            page = watched.open(f"{gateway.http}{path}")
            expect(page.locator(there).first).to_be_visible()
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert axe(page) == [], path
            page.close()


@pytest.mark.slow
def test_a_shared_link_reads_the_view_and_nothing_else(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker, access_secret=SECRET, access_share_max="7d")
    token = mint(secret_key(SECRET), ttl_seconds=3600, subject="ann", subscribe=["sensors/#", "events/#", "secret/#"])
    with Publisher(broker.url) as publisher:
        fill(publisher)
        page = watched.open(f"{address(gateway, VIEW)}#token={token}")
        expect(page.locator(".saved-part .plot canvas")).to_have_count(2)
        assert "token" not in page.url
        page.get_by_role("button", name="Share").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("li code")).to_have_text(["sensors/+/state", "events/#", "sensors/+/meta"])
        dialog.get_by_role("button", name="Make a link").click()
        link = dialog.get_by_role("textbox", name="Link").input_value()
        assert "#token=" in link
        guest = watched.open(link)
        expect(guest.locator(".saved-part .plot canvas")).to_have_count(2)
        expect(guest.locator(".saved-part.value .reading-now")).to_have_text("21.5 °C")
        assert "token" not in guest.url
        # kept in the tab, so that loading it again shows it again
        guest.reload()
        expect(guest.locator(".saved-part .plot canvas")).to_have_count(2)
        guest.goto(f"{gateway.http}/topics/secret/thing")
        expect(guest.get_by_role("heading", name="Your token doesn’t cover this")).to_be_visible()
        expect(guest.get_by_role("link", name="Publish")).to_have_count(0)
        eventually(lambda: "shared what" in gateway.log(), 10, "the log says who shared")
        assert link.partition("#token=")[2] not in gateway.log()

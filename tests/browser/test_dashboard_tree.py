"""The tree of topics in a real Chromium: what it counts, what a click does, what is found, and that nothing moves."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.watched import NARROW, Watched
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

LONG = "zigbee2mqtt/ground floor/the long corridor between hall and garden/0x00158d0001a2b3c4/climate"


def tree_of(gateway: GatewayProcess, query: str = "") -> str:
    return f"{gateway.http}/?view=topics{query}"


def listed(gateway: GatewayProcess, topic: str, count: int) -> None:
    """Returns when the gateway has counted so many messages of a topic."""

    def counts() -> dict[str, int]:
        return {each["topic"]: each["count"] for each in gateway.json("/topics?limit=10000")["topics"]}

    eventually(lambda: counts().get(topic) == count, 20, f"{count} messages of {topic}")


def names(page: Page) -> list[str]:
    found: list[str] = page.locator(".t-row .cut").evaluate_all("rows => rows.map(row => row.title)")
    return found


@pytest.mark.slow
def test_counts_and_rates_are_there_at_once_from_the_gateway(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish_all((("home/a/t", str(number)) for number in range(40)), qos=1, per_second=20)
        publisher.publish("home/b", "1")
        publisher.publish("home/a", "1")
        listed(gateway, "home/a/t", 40)
        listed(gateway, "home/a", 1)
        page = watched.open(tree_of(gateway))

        def row(path: str) -> list[str]:
            found = page.locator(".t-row").filter(has=page.locator(f".cut[title='{path}']"))
            return [found.locator(f".t-{cell}").inner_text() for cell in ("count", "rate")]

        page.locator(".t-row").first.wait_for()
        # in the first picture, not after messages came
        assert row("home/a/t")[0] == "40"
        assert row("home/a")[0] == "41"
        assert row("home")[0] == "42"
        assert 10 < float(row("home/a/t")[1].replace(",", "")) <= 1300
        assert row("home/b")[1] == "–"
        assert float(row("home")[1].replace(",", "")) > 10
        expect(page.locator(".hint")).to_contain_text("Counted since the gateway started")
        for number in range(3):
            publisher.publish("home/b", str(number))
        expect(page.locator(".t-row").filter(has=page.locator(".cut[title=home]")).locator(".t-count")).to_have_text(
            "45"
        )
        # many of one topic at once: the page gets two a second, and counts all
        publisher.publish_all((("home/a/t", str(number)) for number in range(500)), qos=1)
        listed(gateway, "home/a/t", 540)
        expect(
            page.locator(".t-row").filter(has=page.locator(".cut[title='home/a/t']")).locator(".t-count")
        ).to_have_text("540")


@pytest.mark.slow
def test_rows_stay_where_they_are_from_the_first_picture_on(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        topics = [f"home/{room}/{field}" for room in ("hall", "attic", "cellar") for field in "tuvw"]
        publisher.publish_all(((topic, "1") for topic in topics), qos=1, retain=True)
        publisher.publish_all(((f"lamps/{number}/state", "ON") for number in range(9)), qos=1)
        listed(gateway, "lamps/8/state", 1)
        for _ in range(3):
            page = watched.open(tree_of(gateway))
            page.locator(".t-row").first.wait_for()
            first = names(page)
            page.wait_for_function("document.querySelectorAll('.t-value:not(:empty)').length >= 12")
            page.wait_for_timeout(700)
            assert names(page) == first
            assert {"home/attic/t", "home/hall/w", "lamps/0/state"} <= set(first), "as far as they are drawn"
            page.close()


@pytest.mark.slow
def test_rows_are_drawn_when_messages_come_before_the_list(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        # nothing can be opened: the number of rows is the same before and after
        publisher.publish_all(((f"flat{number}", "21.5") for number in range(200)), qos=1)
        listed(gateway, "flat199", 1)
        page = watched.open(f"{gateway.http}/?view=publish")
        held: list[Route] = []

        def hold(route: Route) -> None:
            held.append(route)

        page.route("**/topics?*", hold)
        page.get_by_role("link", name="Topics", exact=True).click()
        expect(page.locator(".figures")).to_contain_text("201 topics")
        expect(page.locator(".t-row")).to_have_count(0)
        assert held
        for route in held:
            route.continue_()
        expect(page.locator(".t-row").first).to_be_visible()
        page.locator(".tree").evaluate("tree => tree.scrollTo(0, tree.scrollHeight)")
        expect(page.locator(".t-row .cut").last).to_have_text(re.compile("gateway|status"))
        # a list that can't be had keeps nobody from the tree
        page.unroute("**/topics?*")
        page.route("**/topics?*", lambda route: route.abort())
        page.reload()
        page.get_by_role("link", name="Topics", exact=True).click()
        expect(page.locator(".t-row").first).to_be_visible()
        expect(page.locator(".hint")).to_contain_text("Counted since this page opened")
        expect(page.locator(".t-row .t-count").first).to_have_text("0")


@pytest.mark.slow
def test_a_click_selects_and_opens_and_never_leaves_the_tree(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        # too many to be opened by themselves
        publisher.publish_all(((f"site/{n}/{m}/t", "21") for n in range(30) for m in range(3)), qos=1, retain=True)
        for n in range(4):
            publisher.publish(f"other{n}", "1", retain=True)
        listed(gateway, "site/29/2/t", 1)
        page = watched.open(tree_of(gateway))
        here = re.compile(r"\?view=topics")

        def name(path: str) -> None:
            page.locator(f".t-row .cut[title='{path}']").click()

        for path in ("site", "site/2", "site/2/1"):
            name(path)
            expect(page.locator(".t-row.selected")).to_have_attribute("aria-expanded", "true")
            expect(page).to_have_url(here)
        name("site/2/1/t")
        expect(page.locator(".t-row.selected .cut")).to_have_attribute("title", "site/2/1/t")
        page.locator(".t-row.selected .cut").dblclick()
        expect(page).to_have_url(re.compile("at=site/2/1/t"))
        # the way to it, each level a link that stays here
        crumbs = page.get_by_role("navigation", name="Levels").get_by_role("link")
        expect(crumbs).to_have_text(["site", "2", "1", "t"])
        crumbs.nth(1).click()
        expect(page.locator(".t-row.selected .cut")).to_have_attribute("title", "site/2")
        expect(crumbs).to_have_text(["site", "2"])
        expect(page).to_have_url(re.compile("at=site/2$"))
        # a second click closes what is chosen
        expect(page.locator(".t-row.selected")).to_have_attribute("aria-expanded", "true")
        name("site/2")
        expect(page.locator(".t-row.selected")).to_have_attribute("aria-expanded", "false")
        # out of a search, to a level that it hasn't
        page.get_by_label("Search topics").fill("site/9/2/t")
        page.get_by_role("treeitem").click()
        crumbs.nth(2).click()
        expect(page.get_by_label("Search topics")).to_have_value("")
        expect(page.locator(".t-row.selected .cut")).to_have_attribute("title", "site/9/2")
        expect(page.locator(".t-row.selected")).to_be_in_viewport()
        page.get_by_role("link", name="Show all 1 below").click()
        expect(page).to_have_url(re.compile("/topics/site/9/2/"))


@pytest.mark.slow
def test_a_search_finds_values_and_shows_where_and_long_topics_show_their_end(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish("lamp/a", json.dumps({"state": "ON", "note": "x" * 300 + " needle"}))
        publisher.publish("lamp/b", json.dumps({"state": "OFF"}))
        publisher.publish(LONG, "1")
        listed(gateway, LONG, 1)
        page = watched.open(tree_of(gateway), NARROW)
        search = page.get_by_label("Search topics")
        search.fill("needle")
        expect(page.locator(".t-row .cut")).to_have_text(["lamp/a"])
        expect(page.locator(".t-row .t-value mark")).to_have_text("needle")
        search.fill("LAMP off")
        expect(page.locator(".t-row .cut")).to_have_text(["lamp/b"])
        # a value that changes is found, and no longer
        publisher.publish("lamp/b", json.dumps({"state": "ON"}))
        expect(page.locator(".t-row")).to_have_count(0)
        expect(page.locator(".nothing")).to_contain_text("No topic and no value holds")
        search.fill("zigbee")
        cut = page.locator(".t-row .cut")
        expect(cut).to_have_text(LONG)
        expect(cut).to_have_attribute("title", LONG)
        assert cut.evaluate("cut => cut.scrollWidth > cut.clientWidth"), "it is cut"
        whole, box = cut.locator("bdi").bounding_box(), cut.bounding_box()
        assert whole is not None
        assert box is not None
        assert whole["x"] < box["x"]
        assert abs(whole["x"] + whole["width"] - box["x"] - box["width"]) < 1, "at its beginning"


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 820])
def test_on_small_pages_actions_are_where_the_topic_is(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto, width: int
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish_all(((f"home/{n}/t", "21.5") for n in range(25)), qos=1, retain=True)
        listed(gateway, "home/24/t", 1)
        page = watched.open(tree_of(gateway), {"width": width, "height": 844}, has_touch=True)
        expect(page.get_by_label("Selected topic")).to_have_count(0)
        # one far down: it stays in view when what is known of it takes its room
        last = page.locator(".t-row").filter(has=page.locator(".cut[title='home/6/t']"))
        last.scroll_into_view_if_needed()
        last.tap()
        details = page.get_by_label("Selected topic")
        for role, name in (
            ("link", "Publish here"),
            ("link", "Show live"),
            ("button", "Copy topic"),
            ("button", "Copy value"),
            ("button", "Clear retained…"),
            ("button", "Close"),
        ):
            expect(details.get_by_role(role, name=name)).to_be_in_viewport()  # type: ignore[arg-type]
        expect(details).to_contain_text("1 message")
        expect(page.locator(".t-row.selected")).to_be_in_viewport()
        assert overlaps(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        details.get_by_role("button", name="Close").click()
        expect(details).to_have_count(0)
        expect(page).not_to_have_url(re.compile("at="))


def overlaps(page: Page) -> list[str]:
    """Pairs of visible controls and cells of which one covers a part of the other."""
    found: list[str] = page.evaluate(
        """() => {
          const seen = [...document.querySelectorAll("main a, main button, main input, main .t-row > *, main h1")]
            .filter((one) => one.checkVisibility() && one.getBoundingClientRect().width > 0);
          const box = document.querySelector(".tree").getBoundingClientRect();
          const parts = seen.map((one) => {
            const { left, right, top, bottom } = one.getBoundingClientRect();
            const inTree = one.closest(".t-row");
            return inTree
              ? { one, left, right, top: Math.max(top, box.top), bottom: Math.min(bottom, box.bottom) }
              : { one, left, right, top, bottom };
          }).filter(({ top, bottom }) => bottom > top);
          const pairs = [];
          for (const a of parts) for (const b of parts) {
            if (a === b || a.one.contains(b.one) || b.one.contains(a.one)) continue;
            const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (wide > 1 && high > 1) pairs.push(`${a.one.outerHTML.slice(0, 60)} | ${b.one.outerHTML.slice(0, 60)}`);
          }
          return pairs;
        }"""
    )
    return found

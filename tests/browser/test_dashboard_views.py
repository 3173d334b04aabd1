"""The dashboard in a real Chromium, before a real gateway and a real broker: what each view promises.

Every page of these tests is watched: a fault in its code, a breach of the content security policy or a request to any
other host fails the test.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import jwt
import pytest
from playwright.sync_api import expect

from tests.browser.watched import NARROW, WIDE, Site, Watched, meta, rows
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import make_broker, mosquitto_kind
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher, publishing
from tests.support.waiting import eventually, missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.conftest import MakeNetwork, Tasks

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
BUILT = ROOT / "gateway" / "static" / "index.html"

SECRET = "a secret of at least thirty-two bytes, for tests"


@pytest.fixture(scope="module", autouse=True)
def _is_built() -> None:
    if not BUILT.exists():
        missing("the built dashboard (python scripts/build_web.py)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three sensors with some history, a plug, a switch and a topic of broken payloads."""
    if mosquitto_kind() == "none":
        missing("a broker: Docker, the program mosquitto, or the package amqtt")
    broker = make_broker(mosquitto_kind(), tmp_path_factory.mktemp("broker"))
    gateway = None
    try:
        broker.start()
        gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), broker.url)
        gateway.start()
        with Publisher(broker.url) as publisher:
            site = Site(broker, gateway, publisher)
            units = {
                "temperature": ("°C", "temperature"),
                "battery": ("%", "battery"),
                "rssi": ("dBm", "signal_strength"),
            }
            for name, status, interval in (
                ("Kitchen", "online", 600),
                ("Attic", "offline", 600),
                ("Garden", "sleeping", 900),
            ):
                identity = name.lower()
                publisher.publish(f"sensors/{identity}/meta", meta(name, interval, **units), retain=True)
                publisher.publish(f"sensors/{identity}/status", status, retain=True)
            states = [
                (
                    f"sensors/{identity}/state",
                    json.dumps(
                        {
                            "seq": index,
                            "boot": 1,
                            "temperature": round(20 + offset + math.sin(index / 6), 2),
                            "battery": 80 - 20 * offset,
                            "rssi": -50 - 12 * offset,
                        }
                    ),
                )
                for index in range(40)
                for offset, identity in enumerate(("kitchen", "attic", "garden"))
            ]
            # over half a second: columns of the youngest window are 63 ms wide
            publisher.publish_all(states, qos=1, per_second=240)
            for value in (1.5, 2.5, 3.5):
                publisher.publish("home/boiler", str(value))
            publisher.publish("home/lamp", '{"on": false, "level": 1.50, "nested": {"a": 1}}')
            publisher.publish("home/lamp", '{"on": true,  "level": 1.50, "nested": {"a": 1}}')
            for broken in (b"\xff\x00\x01", b'{"temperature": 21.', b"NaN", b"", b"12.5"):
                publisher.publish("broken/thing", broken)
            site.seen("sensors/garden/state", 40)
            site.seen("broken/thing", 5)
            yield site
    finally:
        if gateway is not None:
            gateway.close()
        broker.close()


# Devices


@pytest.mark.slow
def test_a_device_shows_name_status_readings_with_units_and_a_line_full_of_history(
    watched: Watched, site: Site
) -> None:
    page = watched.open(site.home)
    row = rows(page).filter(has_text="Kitchen")
    expect(row.locator(".status")).to_have_text("Online")
    expect(row.locator(".reading .value").first).to_have_text(re.compile(r"^[\d.]+°C$"))
    expect(row.locator(".battery")).to_have_text("80 %")
    expect(row.locator(".signal")).to_have_text("-50 dBm")
    # nothing is published meanwhile: what is drawn is history
    path = row.locator(".spark path")
    expect(path).to_have_attribute("d", re.compile(r"^M[\d. ]+(L[\d. -]+){3,}"))


@pytest.mark.slow
def test_a_field_whose_name_holds_a_dot_is_shown_with_its_history(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        site = Site(broker, gateway, publisher)
        # each in a column of its own: those of the youngest window are 63 ms wide
        for count, value in enumerate((4, 5, 6, 5, 4), 1):
            publisher.publish("sensors/dust/state", json.dumps({"SDS0X1": {"PM2.5": value}}))
            site.seen("sensors/dust/state", count)
            time.sleep(0.2)
        page = watched.open(f"{gateway.http}/")
        expect(rows(page).locator(".reading .label")).to_have_text("SDS0X1.PM2.5")
        expect(rows(page).locator(".spark path")).to_have_attribute("d", re.compile(r"^M[\d. ]+(L[\d. -]+){3,}"))
        rows(page).get_by_role("link").click()
        expect(page.locator(".panel-value .figure")).to_have_text("4")
        # and in a link
        page.goto(f"{gateway.http}/topics/sensors/dust/state?field=SDS0X1.PM2%5C.5")
        expect(page.locator(".panel-value .figure")).to_have_text("4")


@pytest.mark.slow
def test_statuses_are_as_the_devices_say_and_can_be_filtered(watched: Watched, site: Site) -> None:
    page = watched.open(site.home)
    expect(rows(page)).to_have_count(3)
    page.get_by_role("button", name=re.compile("Offline")).click()
    expect(rows(page)).to_have_count(1)
    expect(rows(page).locator(".name a")).to_have_text("Attic")
    # the address holds it: whoever gets the link sees the same
    again = watched.open(page.url)
    expect(rows(again)).to_have_count(1)
    expect(again.get_by_role("button", name=re.compile("Offline"))).to_have_attribute("aria-pressed", "true")


@pytest.mark.slow
def test_devices_are_sorted_and_searched(watched: Watched, site: Site) -> None:
    page = watched.open(site.home)
    expect(rows(page).locator(".name a")).to_have_text(["Attic", "Garden", "Kitchen"])
    page.get_by_role("columnheader", name="Battery").get_by_role("button").click()
    expect(rows(page).locator(".name a")).to_have_text(["Garden", "Attic", "Kitchen"])
    page.keyboard.press("/")
    page.keyboard.type("kit")
    expect(rows(page).locator(".name a")).to_have_text(["Kitchen"])
    page.get_by_label("Search devices").fill("nothing like it")
    expect(page.get_by_role("heading", name="No device matches")).to_be_visible()
    page.get_by_role("button", name="Show all devices").click()
    expect(rows(page)).to_have_count(3)


@pytest.mark.slow
def test_a_device_that_fell_silent_is_stale_by_its_own_rhythm(
    watched: Watched, site: Site, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish("sensors/quick/meta", meta("Quick", 0.5), retain=True)
        publisher.publish("sensors/quick/status", "online", retain=True)
        publisher.publish("sensors/quick/state", '{"temperature": 20}')
        publisher.publish("sensors/slow/meta", meta("Slow", 3600), retain=True)
        publisher.publish("sensors/slow/state", '{"temperature": 20}')
        page = watched.open(f"{gateway.http}/")
        expect(rows(page).filter(has_text="Quick").locator(".status")).to_have_text("Stale")
        expect(rows(page).filter(has_text="Slow").locator(".status")).to_have_text("Online")
        publisher.publish("sensors/quick/state", '{"temperature": 21}')
        expect(rows(page).filter(has_text="Quick").locator(".status")).to_have_text("Online")


@pytest.mark.slow
def test_five_thousand_devices_scroll_and_are_found(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto, page_tasks: Tasks
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    count = 5000
    with Publisher(broker.url) as publisher:
        publisher.publish_all(
            ((f"sensors/n{index}/meta", meta(f"Node {index}")) for index in range(count)), qos=1, retain=True
        )
        publisher.publish_all(
            ((f"sensors/n{index}/state", '{"temperature": 20.5, "battery": 50}') for index in range(count)), qos=1
        )
    eventually(lambda: gateway.json("/topics?prefix=sensors/&limit=1")["total"] >= 2 * count, 30, "all are there")
    page = watched.open(f"{gateway.http}/")
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", str(count + 1), timeout=20_000)
    assert rows(page).count() < 60
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(rows(page).filter(has_text="Node 4999")).to_be_visible()
    # sixty steps through the list: frames take little work, and none much
    with page_tasks.noted() as tasks:
        page.evaluate(
            """async () => {
              for (let step = 0; step < 60; step++) {
                scrollTo(0, step * 400);
                await new Promise(requestAnimationFrame);
              }
            }"""
        )
    print(f"{sum(tasks):.2f} s in {len(tasks)} tasks, the longest {max(tasks):.3f} s")
    assert sum(tasks) / 60 < 0.1
    assert max(tasks) < 0.4
    page.get_by_label("Search devices").fill("node 1234")
    expect(rows(page).locator(".name a")).to_have_text(["Node 1234"])


@pytest.mark.slow
def test_a_broker_without_sensors_shows_what_is_there(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish_all((("plant/tank/level", str(value)) for value in range(5)), per_second=20)
        page = watched.open(f"{gateway.http}/")
        expect(page.get_by_role("heading", name="No sensors report here yet")).to_be_visible()
        item = page.locator(".any li").filter(has_text="plant/tank/level")
        expect(item.locator("code")).to_have_text("4")
        expect(item.locator(".spark path")).to_have_attribute("d", re.compile("L"))
        # the first sensor takes the place of the explanation by itself
        publisher.publish("sensors/new/state", '{"temperature": 1}')
        expect(rows(page)).to_have_count(1)


# Topics


def test_the_tree_is_walked_by_keyboard(watched: Watched, site: Site) -> None:
    page = watched.open(f"{site.home}?view=topics")
    tree = page.get_by_role("tree")
    item = page.get_by_role("treeitem")
    expect(item.filter(has_text="boiler")).to_be_visible()
    tree.focus()
    page.keyboard.press("Home")
    active = page.locator(".t-row.selected .t-name")
    expect(active).to_contain_text("broken")
    page.keyboard.press("ArrowLeft")
    expect(item.filter(has_text="thing")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect(item.filter(has_text="thing")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(active).to_have_text("thing")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("h")
    expect(active).to_contain_text("home")
    page.keyboard.press("ArrowDown")
    expect(active).to_have_text("boiler")
    expect(tree).to_have_attribute("aria-activedescendant", re.compile(r"row-\d+"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/topics/home/boiler")
    page.go_back()
    expect(page.get_by_role("heading", name="Topics")).to_be_visible()


def test_topics_are_found_as_one_types_and_show_their_last_value(watched: Watched, site: Site) -> None:
    page = watched.open(f"{site.home}?view=topics")
    page.get_by_label("Search topics").fill("boil")
    expect(page.get_by_role("treeitem")).to_have_count(1)
    expect(page.locator(".t-row .t-value")).to_have_text("3.5")
    site.publisher.publish("home/boiler", "4.5")
    expect(page.locator(".t-row .t-value")).to_have_text("4.5")
    page.get_by_role("treeitem").click()
    expect(page.get_by_label("Selected topic").locator("pre")).to_have_text("4.5\n")


@pytest.mark.slow
def test_counts_do_not_grow_by_looking_or_by_a_lost_connection(
    watched: Watched, site: Site, network_to: MakeNetwork
) -> None:
    topic = "count/me"
    site.publisher.publish(topic, "0", retain=True)
    site.seen(topic)
    network = network_to(site.gateway.port)
    page = watched.open(f"{network.origin}/?view=topics&q=count")
    row = page.locator(".t-row").filter(has_text=topic)
    expect(row.locator(".t-value")).to_have_text("0")
    expect(row.locator(".t-count")).to_have_text("1")
    site.publisher.publish(topic, "1")
    expect(row.locator(".t-count")).to_have_text("2")
    for _ in range(2):
        page.get_by_role("link", name="Connection", exact=True).click()
        expect(page.get_by_role("heading", name="Connection")).to_be_visible()
        page.go_back()
        expect(row.locator(".t-value")).to_have_text("1")
        expect(page.locator(".pulse")).to_contain_text("Live")
    site.publisher.publish(topic, "2")
    expect(row.locator(".t-value")).to_have_text("2")
    expect(row.locator(".t-count")).to_have_text("3")
    network.cut()
    expect(page.locator(".banner")).to_contain_text("No connection", timeout=40_000)
    site.publisher.publish(topic, "3")
    network.mend()
    expect(row.locator(".t-value")).to_have_text("3", timeout=40_000)
    # what came meanwhile is one message more, once
    expect(row.locator(".t-count")).to_have_text("4")


@pytest.mark.slow
def test_a_chosen_topic_is_in_the_address(watched: Watched, site: Site) -> None:
    page = watched.open(f"{site.home}?view=topics&q=boil")
    page.get_by_role("treeitem").click()
    page.wait_for_url("**at=home/boiler*")
    again = watched.open(f"{site.home}?view=topics&at=home/boiler")
    expect(again.locator(".t-row.selected .t-name")).to_have_text("boiler")


@pytest.mark.slow
def test_numbers_that_a_page_cannot_hold_are_marked(watched: Watched, site: Site) -> None:
    site.publisher.publish("big/number", '{"id": 12345678901234567890}')
    page = watched.open(f"{site.home}?view=topics&q=big/number")
    expect(page.locator(".t-row .t-value")).to_have_text("id ≈12345678901234567000")
    page = watched.open(site.live("big/number"))
    expect(page.locator("pre.json")).to_contain_text("≈12345678901234567000")
    page.get_by_role("button", name="Raw").click()
    expect(page.locator("pre.raw")).to_have_text('{"id": 12345678901234567890}')


def test_broker_topics_that_the_gateway_does_not_take_are_explained(watched: Watched, site: Site) -> None:
    page = watched.open(f"{site.home}?view=topics")
    page.get_by_label("Broker’s own").check()
    expect(page.get_by_role("status").filter(has_text="GATEWAY_MQTT_TOPICS")).to_be_visible()


@pytest.mark.slow
def test_a_hundred_thousand_topics_and_five_thousand_messages_a_second(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto, page_tasks: Tasks
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker, history_topics=120_000)
    count = 100_000
    with Publisher(broker.url) as publisher:
        publisher.publish_all(
            ((f"site/{index % 100}/node-{index}/state", f'{{"v": {index}}}') for index in range(count)), per_second=9000
        )
    eventually(lambda: gateway.json("/topics?prefix=site/&limit=1")["total"] >= count * 0.99, 60, "all are there")
    total = gateway.json("/topics?prefix=site/&limit=1")["total"]
    page = watched.open(f"{gateway.http}/?view=topics")
    expect(page.locator(".view-head .figures")).to_contain_text(f"{total + 1:,} topics", timeout=60_000)
    load = ((f"site/{index % 100}/node-{index % count}/state", b'{"v": 1}') for index in range(5000 * 8))
    with publishing(broker.url, load, qos=0, per_second=5000):
        # while they come, frames are drawn and keys are answered
        before = gateway.metrics()["gateway_messages_received_total"]
        with page_tasks.noted() as drawing:
            frames = page.evaluate(
                """async () => {
                  let frames = 0;
                  const end = performance.now() + 3000;
                  while (performance.now() < end) { await new Promise(requestAnimationFrame); frames++; }
                  return frames;
                }"""
            )
        messages = gateway.metrics()["gateway_messages_received_total"] - before
        with page_tasks.noted() as searching:
            page.get_by_label("Search topics").fill("node-4711/")
            expect(page.get_by_role("treeitem")).to_have_count(1, timeout=20_000)
    print(f"{frames=} {messages=} {sum(drawing)=:.2f} {max(drawing)=:.3f} {sum(searching)=:.2f}")
    assert frames > 0
    assert max(drawing) < 1 / 8, f"a frame took {max(drawing):.3f} s of processor time"
    assert sum(drawing) < messages / 5000, "it keeps up with 5,000 messages a second"
    assert sum(searching) < 2.5


# A topic or filter


def test_a_filter_opened_in_a_browser_is_its_view_with_its_history(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/+/state"))
    chart = page.get_by_role("img", name=re.compile("Chart of Temperature in °C"))
    expect(chart).to_have_attribute("aria-label", re.compile("Attic: now .*; Garden: now .*; Kitchen: now "))
    expect(page.locator(".legend .entry")).to_have_count(3)
    expect(page.locator(".live-tools")).to_contain_text("120 here, 3 topics")
    assert "sensors/+/state" in page.title()


@pytest.mark.slow
def test_lines_fields_range_and_thresholds_are_in_the_address(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/+/state"))
    page.get_by_role("button", name=re.compile("^Kitchen")).click()
    page.get_by_role("button", name="Battery", exact=True).click()
    page.get_by_text("Thresholds").click()
    page.get_by_label("Value", exact=True).fill("21.5")
    page.get_by_role("button", name="Add").click()
    expect(page.locator(".crossed")).to_have_text(re.compile(r"\d of 2 beyond a threshold"))
    again = watched.open(page.url)
    expect(again.locator(".panel")).to_have_count(2)
    expect(again.locator(".legend [aria-pressed=true]")).to_have_count(2)
    expect(again.locator(".thresholds")).to_contain_text("Temperature above 21.5")


@pytest.mark.slow
def test_plain_numbers_are_charted_and_pausing_loses_nothing(watched: Watched, site: Site) -> None:
    topic = "home/counter"
    site.publisher.publish(topic, "1")
    site.seen(topic)
    page = watched.open(site.live(topic))
    value = page.locator(".panel-value")
    expect(value).to_have_text("1")
    page.get_by_role("button", name="Pause").click()
    for number in range(2, 7):
        site.publisher.publish(topic, str(number))
    expect(page.locator(".live-tools")).to_contain_text("5 came meanwhile")
    expect(value).to_have_text("1")
    expect(page.locator(".m-row")).to_have_count(1)
    page.get_by_role("button", name="Resume").click()
    expect(value).to_have_text("6")
    expect(page.locator(".m-row")).to_have_count(6)


def test_a_chart_is_zoomed_by_mouse_and_by_keyboard_and_goes_back_to_live(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/kitchen/state"))
    plot = page.locator(".u-over").first
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 40, steps=4)
    page.mouse.up()
    page.wait_for_url("**from=*")
    page.get_by_role("button", name="Back to live").click()
    page.wait_for_url(lambda url: "from=" not in url)
    page.get_by_role("group", name=re.compile("Charts")).focus()
    page.keyboard.press("+")
    page.wait_for_url("**from=*")
    page.keyboard.press("0")
    expect(page.get_by_role("button", name="Back to live")).to_have_count(0)


@pytest.mark.slow
def test_messages_are_listed_as_they_come_without_a_touch(watched: Watched, site: Site) -> None:
    site.publisher.publish("home/steady", "1")
    site.seen("home/steady")
    page = watched.open(site.live("home/steady"))
    expect(page.locator(".m-payload")).to_have_text(["1"])
    for value in ("2", "3", "4"):
        site.publisher.publish("home/steady", value)
    expect(page.locator(".m-payload")).to_have_text(["4", "3", "2", "1"])
    expect(page.locator(".inspector pre")).to_have_text("4\n")


@pytest.mark.slow
def test_more_than_is_kept_comes_while_paused_and_nothing_of_the_picture_goes(watched: Watched, site: Site) -> None:
    topic = "flood/counter"
    site.publisher.publish_all(((topic, str(number)) for number in (101, 102, 103)), qos=1)
    site.seen(topic, 3)
    page = watched.open(site.live(topic))
    expect(page.locator(".m-payload")).to_have_text(["103", "102", "101"])
    page.get_by_role("button", name="Pause").click()
    site.publisher.publish_all(((topic, str(number)) for number in range(21_000)), per_second=8000)
    expect(page.locator(".figures")).to_have_text("21,000 came meanwhile", timeout=30_000)
    expect(page.locator(".m-payload")).to_have_text(["103", "102", "101"])
    expect(page.get_by_role("img", name=re.compile("now 103, between 101 and 103"))).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".m-payload").first).to_have_text("20999")


def test_a_threshold_is_drawn_while_paused(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/kitchen/state", "?field=temperature"))
    expect(page.locator(".panel-value")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.get_by_text("Thresholds").click()
    before = page.evaluate("document.querySelector('.plot canvas').toDataURL()")
    page.get_by_label("Value", exact=True).fill("20.1")
    page.get_by_role("button", name="Add").click()
    page.wait_for_function(
        "(before) => document.querySelector('.plot canvas').toDataURL() !== before", arg=before, timeout=5000
    )


@pytest.mark.slow
def test_a_link_to_a_zoomed_window_shows_it_however_old_it_is(watched: Watched, site: Site) -> None:
    messages = site.gateway.json("/topics/sensors/kitchen/state?since=1h")["messages"]
    first, last = messages[0]["time"], messages[30]["time"]
    page = watched.open(site.live("sensors/kitchen/state", f"?field=temperature&since=1s&from={first}&to={last}"))
    drawn = page.get_by_role("img", name=re.compile("now [0-9.]+, between"))
    expect(drawn).to_be_visible()
    # into what was not asked for when the page opened
    page = watched.open(site.live("home/boiler", "?since=1s"))
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    site.publisher.publish("home/boiler", "9.5")
    expect(page.locator(".m-payload")).to_have_count(1)
    charts = page.get_by_role("group", name=re.compile("Charts"))
    charts.focus()
    for _ in range(18):  # as far as these tests may have taken until here
        page.keyboard.press("-")
    expect(page.get_by_role("img", name=re.compile("between 1 and|between 1.5 and|between 2.5"))).to_be_visible()
    expect(page.locator(".note")).to_contain_text(re.compile(r"Nothing from before [\d:.]+ is kept"))


@pytest.mark.slow
def test_units_and_figures_stand_still_while_values_change(watched: Watched, site: Site) -> None:
    topic = "sensors/loft/state"
    site.publisher.publish("sensors/loft/meta", meta("Loft", temperature=("°C", "temperature")), retain=True)
    site.publisher.publish(topic, '{"temperature": 18.31}')
    site.seen(topic)
    page = watched.open(site.live(topic))
    expect(page.locator(".device-name")).to_have_text("Loft")
    unit = page.locator(".panel-value .unit")
    expect(unit).to_have_text("°C")
    places = set()
    for value, text in ((18.3, "18.30"), (9.31, "9.31"), (18.31, "18.31"), (-7, "-7.00")):
        site.publisher.publish(topic, json.dumps({"temperature": value}))
        expect(page.locator(".panel-value .figure")).to_have_text(text)
        box = unit.bounding_box()
        assert box is not None
        places.add(round(box["x"]))
    assert len(places) == 1
    widths = page.evaluate(
        """() => {
          const rate = document.querySelector(".figures .rate");
          return ["1/s", "54/min", "< 1/h", "12.3k/s"].map((text) => {
            rate.textContent = text;
            return rate.getBoundingClientRect().width;
          });
        }"""
    )
    assert len(set(widths)) == 1


def test_a_hover_says_when_and_what(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/kitchen/state", "?field=temperature"))
    value = page.locator(".panel-value .figure")
    expect(value).to_be_visible()
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.02, box["y"] + 40)
    page.mouse.move(box["x"] + box["width"] * 0.03, box["y"] + 40)
    expect(page.locator(".panel time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))


def test_the_list_of_messages_has_the_keys_of_a_list(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/kitchen/state"))
    rows_shown = page.get_by_role("listbox")
    expect(page.locator(".m-row").first).to_be_visible()
    rows_shown.focus()
    selected = page.locator(".m-row.selected .m-payload")
    page.keyboard.press("End")
    expect(selected).to_contain_text("seq 0")
    page.keyboard.press("PageUp")
    expect(selected).not_to_contain_text("seq 0,")
    page.keyboard.press("Home")
    expect(page.locator(".m-row").first).to_have_class(re.compile("selected"))


def test_what_changed_is_marked_and_the_bytes_are_exact(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("home/lamp"))
    expect(page.locator("pre.json .changed")).to_have_text(re.compile(r'^\s*"on": true,\s*$'))
    page.get_by_role("button", name="Raw").click()
    # as it was sent: two spaces, and a zero that a parser would drop
    expect(page.locator("pre.raw")).to_have_text('{"on": true,  "level": 1.50, "nested": {"a": 1}}')
    page.get_by_role("button", name="Hex").click()
    expect(page.locator("pre.hex")).to_contain_text("7b 22 6f 6e 22")
    expect(page.locator(".inspector")).not_to_contain_text("no longer")
    # an older one, by keyboard
    page.get_by_role("button", name="Formatted").click()
    page.get_by_role("listbox").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("pre.json")).to_contain_text('"on": false')


def test_broken_payloads_are_shown_as_what_they_are(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("broken/thing"))
    expect(page.locator(".m-row")).to_have_count(5)
    expect(page.locator(".m-payload")).to_have_text(["12.5", "(empty)", "NaN", '{"temperature": 21.', "(binary)"])
    expect(page.locator(".note")).to_have_text("4 of 5 messages here hold no number.")
    page.locator(".m-row").last.click()
    expect(page.locator("pre.hex")).to_contain_text("ff 00 01")


def test_a_loss_is_admitted(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("home/boiler", "?since=anotherlife:1"))
    expect(page.locator(".losses")).to_contain_text("the gateway was restarted")
    expect(page.locator(".m-row.gap")).to_contain_text("missing")


def test_history_is_downloaded_as_csv_and_ndjson(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/+/state"))
    for form, first in (("CSV", "time,seq,topic,payload"), ("NDJSON", '{"topic":"sensors/')):
        with page.expect_download() as found:
            page.get_by_role("button", name=form, exact=True).click()
        assert found.value.suggested_filename == f"sensors_state.{form.lower()}"
        text = Path(found.value.path()).read_text("utf-8")
        assert text.startswith(first)
        assert len(text.splitlines()) >= 120


@pytest.mark.slow
def test_the_subscription_is_copied_in_four_languages(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/#"), permissions=["clipboard-read", "clipboard-write"])
    for name, part in (
        ("JavaScript", 'topics: ["sensors/#"]'),
        ("curl", f"'{site.gateway.http}/topics/sensors/%23?since=15m'"),
        ("gateway sub", "gateway sub"),
        ("mosquitto_sub", "mosquitto_sub -h \"$BROKER\" -v -t 'sensors/#'"),
    ):
        page.get_by_role("button", name=name, exact=True).click()
        page.get_by_role("button", name=f"Copy as {name}").click()
        expect(page.locator(".copy-as .copy-said")).to_have_text("Copied")
        assert part in page.evaluate("navigator.clipboard.readText()")


def test_the_copied_javascript_runs(watched: Watched, site: Site, network_to: MakeNetwork) -> None:
    network = network_to(site.gateway.port)
    page = watched.open(site.live("home/boiler").replace(site.gateway.http, network.origin))
    code = page.locator(".copy-as pre").inner_text().replace("console.log(", "document.body.append(")
    # an answer that is made up by the test's tools would count as a public page, which may not reach loopback
    network.html = f"<!doctype html><body><script type=module>{code}</script>"
    other = watched.open(network.page)
    expect(other.locator("body")).to_contain_text("home/boiler3.5")


def test_a_topic_that_says_nothing_says_so(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensor/kitchen/state"))
    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    expect(page.locator(".explain .bad")).to_contain_text("Messages")
    expect(page.locator(".explain .near a").first).to_have_text("sensors/kitchen/state")
    site.publisher.publish("sensor/kitchen/state", "7")
    expect(page.locator(".panel-value")).to_have_text("7")


def test_a_filter_that_is_none_is_explained_and_mended(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("home/#/x"))
    expect(page.get_by_role("heading", name="This isn’t a topic filter")).to_be_visible()
    page.get_by_label("Topic filter").fill("home/boiler")
    page.keyboard.press("Enter")
    expect(page.locator(".panel-value")).to_be_visible()


def test_an_embedded_chart_is_only_that(watched: Watched, site: Site, network_to: MakeNetwork) -> None:
    address = site.live("sensors/kitchen/state", "?embed=1&field=temperature&theme=dark")
    page = watched.open(address, {"width": 480, "height": 240})
    expect(page.get_by_role("img", name=re.compile("Chart of Temperature"))).to_be_visible()
    assert page.get_by_role("navigation").count() == 0
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    # a page of this origin may frame it
    html = f'<!doctype html><iframe src="{address}" width=480 height=240></iframe>'
    host = watched.open(f"{site.home}a-page.html", html=html)
    expect(host.frame_locator("iframe").get_by_role("img", name=re.compile("Chart of Temperature"))).to_be_visible()


def test_the_dashboard_itself_is_not_framed(chromium: Browser, site: Site) -> None:
    page = chromium.new_page()
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text))
    html = f'<!doctype html><iframe src="{site.home}?view=publish"></iframe>'
    page.route(f"{site.home}a-page.html", lambda route: route.fulfill(body=html, content_type="text/html"))
    try:
        page.goto(f"{site.home}a-page.html")
        assert page.frames[-1].locator("nav").count() == 0
        assert any("frame" in text for text in said)
    finally:
        page.close()


def test_only_a_chart_can_be_framed(site: Site) -> None:
    def may_be_framed(path: str) -> bool:
        with urlopen(Request(f"{site.gateway.http}{path}", headers={"Accept": "text/html"})) as answer:
            policy: str = answer.headers["Content-Security-Policy"]
        return "frame-ancestors 'none'" not in policy

    assert may_be_framed("/topics/home/boiler?embed=1")
    assert not may_be_framed("/topics/home/boiler")
    for path in ("/?embed=1", "/?view=publish&embed=1", "/?view=connection&embed=1", "/topics?embed=1"):
        assert not may_be_framed(path), path


@pytest.mark.slow
def test_an_embedded_chart_says_when_it_is_dead(
    watched: Watched, site: Site, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish_all((("sensors/a/state", '{"temperature": 20}') for _ in range(3)), qos=1)
    page = watched.open(f"{gateway.http}/topics/sensors/a/state?embed=1", {"width": 480, "height": 240})
    expect(page.get_by_role("img", name=re.compile("Chart of Temperature"))).to_be_visible()
    told = page.locator(".embed-problem")
    expect(told).to_have_count(0)
    broker.stop()
    expect(told).to_have_text(re.compile(r"The broker is away, as of \d\d:\d\d:\d\d"))
    gateway.stop()
    expect(told).to_have_text(re.compile(r"No connection, as of \d\d:\d\d:\d\d"))
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    guarded = make_gateway(site.broker, access_secret=SECRET)
    page = watched.open(f"{guarded.http}/topics/sensors/a/state?embed=1")
    expect(page.locator(".embed-problem")).to_have_text("Sign in to see this")


def test_a_badge_is_a_picture(site: Site) -> None:
    # an old number is shown with its age
    site.publisher.publish("sensors/kitchen/state", '{"temperature": 21.5}', qos=1)
    address = "/topics/sensors/kitchen/state?field=temperature&unit=%C2%B0C"
    picture = {"Accept": "image/svg+xml"}
    eventually(lambda: b">21.5 \xc2\xb0C</text>" in site.gateway.get(address, picture)[1])
    status, body = site.gateway.get(address, picture)
    assert status == 200
    assert body.startswith(b"<svg")


# Publish


def test_a_message_is_published_listed_and_used_again(watched: Watched, site: Site) -> None:
    with Publisher(site.broker.url) as listener:
        listener.subscribe("cmd/#")
        page = watched.open(f"{site.home}?view=publish")
        page.get_by_label("Topic").fill("cmd/led")
        page.get_by_label("Payload").fill('{"on": tru')
        expect(page.locator("#payload-kind")).to_contain_text("Not valid JSON")
        page.get_by_label("Payload").fill('{"on":true}')
        page.get_by_role("button", name="1", exact=True).click()
        page.get_by_label("Retained").check()
        page.get_by_role("button", name="Publish", exact=True).click()
        listener.wait_for("cmd/led", b'{"on":true}')
        assert listener.messages[-1].qos == 1
        expect(page.locator(".sent li")).to_contain_text("sent, QoS 1, retained")
        page.reload()
        page.get_by_role("button", name="Use again: cmd/led").click()
        expect(page.get_by_label("Payload")).to_have_value('{"on":true}')
        page.get_by_label("Topic").fill("cmd/+")
        page.get_by_role("button", name="Publish", exact=True).click()
        expect(page.locator("#topic-problem")).to_contain_text("one topic")
        expect(page.locator(".sent li")).to_have_count(1)


def test_publishing_changes_no_byte(watched: Watched, site: Site) -> None:
    with Publisher(site.broker.url) as listener:
        listener.subscribe("exact/#")
        page = watched.open(f"{site.home}?view=publish")
        page.get_by_label("Topic").fill("exact/x")
        texts = ['{"id": 12345678901234567890,  "level": 1.50}', '"hello"', "1.0", "  7", "null", "[1,\n 2]"]
        for number, text in enumerate(texts):
            page.get_by_label("Payload").fill(text)
            page.get_by_role("button", name="Publish", exact=True).click()
            listener.wait_for("exact/x", text.encode())
            assert len(listener.received) == number + 1
        # the key for the search of a view is its first field here
        page.get_by_role("button", name="Publish", exact=True).focus()
        page.keyboard.press("/")
        expect(page.get_by_label("Topic")).to_be_focused()


def token(**claims: object) -> str:
    return jwt.encode({"sub": "ann", "exp": int(time.time()) + 3600, **claims}, SECRET, "HS256")


@pytest.mark.slow
def test_a_visitor_signs_in_and_sees_and_does_what_the_token_allows(
    watched: Watched, site: Site, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(site.broker, access_secret=SECRET)
    site.publisher.publish("sensors/kitchen/state", '{"temperature": 20}')
    site.publisher.publish("home/boiler", "1")
    page = watched.open(f"{gateway.http}/")
    expect(page.get_by_role("heading", name="Sign in to see this")).to_be_visible()
    # part of the sensors: only that is asked for, so that nothing is refused
    page.get_by_label("Access token").fill(token(topics={"subscribe": ["sensors/kitchen/#"]}))
    page.get_by_role("button", name="Sign in").click()
    expect(rows(page)).to_have_count(1)
    expect(rows(page).locator(".name a")).to_have_text("Kitchen")
    page.get_by_role("link", name="Topics", exact=True).click()
    expect(page.locator(".view-head .figures")).to_contain_text("3 topics")
    expect(page.locator(".banner")).to_have_count(0)
    page.get_by_role("link", name="Connection", exact=True).click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in to see this")).to_be_visible()
    page.goto(f"{gateway.http}/")
    page.get_by_label("Access token").fill(token(topics={"subscribe": ["sensors/#"]}))
    page.get_by_role("button", name="Sign in").click()
    expect(rows(page).filter(has_text="Garden")).to_have_count(1)
    # reading only: there is no way to the publish view, and its address explains itself
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_count(4)
    page.goto(f"{gateway.http}/?view=publish")
    expect(page.get_by_role("heading", name="Reading only")).to_be_visible()
    page.goto(f"{gateway.http}/?view=connection")
    who = page.get_by_role("region", name="Who am I")
    expect(who).to_contain_text("ann")
    expect(who).to_contain_text(re.compile(r"\(\d+ min left\)"))
    expect(who).to_contain_text("sensors/#")
    page.goto(f"{gateway.http}/topics/home/boiler")
    expect(page.get_by_role("heading", name="Your token doesn’t cover this")).to_be_visible()
    page.get_by_label("Access token").fill(token(topics={"subscribe": ["#"], "publish": ["home/#"]}))
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".panel-value")).to_have_text("1")
    page.goto(f"{gateway.http}/?view=publish")
    page.get_by_label("Topic").fill("garden/x")
    expect(page.locator("#topic-problem")).to_contain_text("don’t cover")
    # no address and no storage beyond the tab holds the token
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.slow
def test_a_visitor_who_may_see_nothing_gets_one_card_that_says_why(
    watched: Watched, site: Site, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(site.broker, access_secret=SECRET)
    past, wrong = int(time.time()) - 60, jwt.encode({"sub": "eve", "exp": 4e9}, "x" * 40, "HS256")
    for held, title in (
        (None, "Sign in to see this"),
        (token(exp=past, topics={"subscribe": ["#"]}), "Your token has expired"),
        (wrong, "This token isn’t valid"),
        (token(topics={"publish": ["a"]}), "Your token doesn’t cover this"),
    ):
        page = watched.open(f"{gateway.http}/health/live")
        if held is not None:
            page.evaluate("(held) => sessionStorage.setItem('gateway.token', held)", held)
        for path in ("", "?view=topics", "topics/home/boiler", "?view=connection") if held is None else ("",):
            page.goto(f"{gateway.http}/{path}")
            expect(page.get_by_role("heading", name=title)).to_be_visible()
            expect(page.get_by_label("Access token")).to_have_count(1)
            expect(page.locator(".pulse")).to_contain_text("Signed out" if held is None else "No access")
            assert page.locator("main h1").count() == (2 if "connection" in path else 1), path
        if AXE.exists():
            assert axe(page) == []


@pytest.mark.slow
def test_the_exact_bytes_are_fetched_without_a_token_in_an_address(
    watched: Watched, site: Site, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(site.broker, access_secret=SECRET)
    page = watched.open(f"{gateway.http}/health/live")
    held = token(topics={"subscribe": ["#"]})
    page.evaluate("(held) => sessionStorage.setItem('gateway.token', held)", held)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("websocket", lambda socket: addresses.append(socket.url))
    page.goto(f"{gateway.http}/topics/home/guarded?as=raw")
    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    site.publisher.publish("home/guarded", '{"level":  1.50}')
    expect(page.locator("pre.raw")).to_have_text('{"level":  1.50}')
    expect(page.locator(".inspector")).not_to_contain_text("no longer")
    assert len([address for address in addresses if "/ws" in address]) >= 2
    assert not [address for address in addresses if held in address or "token=" in address]


# Connection


@pytest.mark.slow
def test_losses_are_told_by_reason_and_silence_is_explained(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("home/boiler", "?since=anotherlife:1"))
    expect(page.locator(".losses")).to_be_visible()
    page.get_by_role("link", name="Connection", exact=True).click()
    flow = page.get_by_role("region", name="Received")
    expect(flow).to_contain_text("the gateway was restarted")
    expect(flow).to_contain_text("in 1 gap")
    expect(flow).to_contain_text(re.compile(r"Since this page opened\s*\d+ messages"))
    page.keyboard.press("/")
    page.keyboard.type("sensor/attic/state")
    page.keyboard.press("Enter")
    why = page.get_by_role("region", name="Why do I see nothing?")
    expect(why.locator(".verdict")).not_to_be_empty()
    expect(why.locator(".near a").first).to_have_text("sensors/attic/state")
    with publishing(site.broker.url, ((f"rate/{n}", b"1") for n in range(200)), qos=0, per_second=40):
        expect(flow.locator("dd").first).to_have_text(re.compile(r"^[1-9][\d.]*/s$"))


@pytest.mark.slow
def test_a_restart_is_one_loss_of_an_unknown_number_however_many_subscriptions_are_told_of_it(
    watched: Watched, site: Site, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(site.broker)
    page = watched.open(f"{gateway.http}/")
    # the feed of the devices stays for a while, and a view of states subscribes to units as well
    rows(page).filter(has_text="Kitchen").get_by_role("link").click()
    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    site.publisher.publish("sensors/kitchen/state", '{"temperature": 20, "humidity": 40}')
    expect(page.locator(".m-row").first).to_be_visible()
    gateway.stop()
    expect(page.locator(".banner")).to_be_visible()
    gateway.start()
    expect(page.locator(".banner")).to_have_count(0, timeout=40_000)
    expect(page.locator(".losses")).to_contain_text("Some missing: the gateway was restarted")
    # what is told of a restart is told before the first message
    site.publisher.publish("sensors/kitchen/state", '{"temperature": 20, "humidity": 40}')
    expect(page.locator(".m-row.gap")).to_have_count(1)
    expect(page.locator(".m-row.gap")).to_have_text(re.compile("Messages missing: the gateway was restarted"))
    page.get_by_role("link", name="Connection", exact=True).click()
    expect(page.get_by_role("region", name="Received")).to_contain_text("unknown how many in 1 gap")


def test_the_connection_view_splits_the_delay_and_knows_the_visitor(watched: Watched, site: Site) -> None:
    page = watched.open(f"{site.home}?view=connection")
    expect(page.get_by_role("region", name="State")).to_contain_text("Connected")
    legs = page.locator(".legs li")
    for _ in range(5):
        site.publisher.publish("sensors/kitchen/state", json.dumps({"ts": round(time.time(), 3), "temperature": 20}))
    expect(legs.nth(0)).to_contain_text(re.compile(r"\d+(\.\d)? m?s"))
    expect(legs.nth(1)).to_contain_text(re.compile(r"\d+(\.\d)? m?s"))
    expect(legs.nth(3)).to_contain_text(re.compile(r"Device to this page.*\d+(\.\d)? m?s"))
    expect(page.get_by_role("region", name="Who am I")).to_contain_text("whoever reaches it")


@pytest.mark.slow
def test_a_broker_that_goes_and_comes_is_told(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish("sensors/a/state", '{"temperature": 20}')
        page = watched.open(f"{gateway.http}/")
        expect(rows(page)).to_have_count(1)
    broker.stop()
    expect(page.locator(".banner")).to_contain_text("The gateway has lost the broker")
    expect(rows(page)).to_have_count(1)
    # who comes now is told as well, and as of when
    other = watched.open(f"{gateway.http}/?view=topics")
    expect(other.locator(".banner")).to_contain_text("lost the broker")
    as_of = re.compile(r"as of (\d\d:\d\d:\d\d)")
    said = [as_of.search(each.locator(".banner").inner_text()) for each in (page, other)]
    assert said[0] is not None
    assert said[1] is not None
    assert said[0][1] == said[1][1]
    broker.start()
    expect(page.locator(".banner")).to_have_count(0, timeout=30_000)


@pytest.mark.slow
def test_a_broker_that_was_never_there_is_not_lost(watched: Watched, make_gateway: MakeGateway) -> None:
    gateway = make_gateway("mqtt://127.0.0.1:1", ready=False)
    page = watched.open(f"{gateway.http}/?view=topics")
    expect(page.locator(".banner")).to_contain_text("The gateway hasn’t reached the broker yet")
    expect(page.locator(".banner")).not_to_contain_text("as of")
    expect(page.locator(".pulse")).to_contain_text("No broker yet")
    page.get_by_role("link", name="Connection", exact=True).click()
    expect(page.get_by_role("region", name="State")).to_contain_text("Not reached yet")


@pytest.mark.slow
def test_a_gateway_that_goes_and_comes_leaves_what_was_known(
    watched: Watched, site: Site, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(site.broker)
    site.publisher.publish("sensors/kitchen/state", '{"temperature": 20}')
    page = watched.open(f"{gateway.http}/?view=topics")
    expect(page.get_by_role("treeitem").first).to_be_visible()
    devices = watched.open(f"{gateway.http}/")
    kitchen = rows(devices).filter(has_text="Kitchen").locator(".status")
    expect(kitchen).to_have_text("Online")
    gateway.stop()
    for view in (page, devices):
        expect(view.locator(".banner")).to_contain_text(
            re.compile(r"No connection to the gateway. What you see is as of \d\d:\d\d:\d\d")
        )
    expect(page.get_by_role("treeitem").first).to_be_visible()
    # that the gateway is away says nothing of the devices, however long it lasts
    devices.evaluate("{ const now = Date.now; Date.now = () => now() + 7_200_000 }")
    said = devices.locator(".banner").inner_text()
    expect(devices.locator(".banner")).not_to_have_text(said)
    expect(kitchen).to_have_text("Online")
    devices.evaluate("Date.now = () => performance.timeOrigin + performance.now()")
    gateway.start()
    expect(page.locator(".banner")).to_have_count(0, timeout=40_000)


def test_it_works_behind_a_path_prefix(watched: Watched, site: Site, network_to: MakeNetwork) -> None:
    network = network_to(site.gateway.port, prefix="/house")
    page = watched.open(f"{network.origin}/house/")
    rows(page).filter(has_text="Kitchen").get_by_role("link").click()
    page.wait_for_url("**/house/topics/sensors/kitchen/state")
    expect(page.locator(".panel-value").first).to_be_visible()
    page.reload()
    expect(page.locator(".panel-value").first).to_be_visible()
    page.get_by_role("navigation").get_by_role("link", name="Connection").click()
    page.wait_for_url("**/house/?view=connection")


# For everyone, on everything


VIEWS: list[tuple[str, Callable[[Site], str], str]] = [
    ("devices", lambda site: site.home, ".devices .spark circle"),
    ("topics", lambda site: f"{site.home}?view=topics", ".t-row"),
    ("topic", lambda site: f"{site.home}?view=topics&at=home/lamp", ".details pre"),
    ("found", lambda site: f"{site.home}?view=topics&q=true", ".t-row mark"),
    ("device", lambda site: f"{site.gateway.http}/devices/sensors_kitchen", ".device-view .item .value"),
    ("quantity", lambda site: f"{site.home}?view=quantity&of=temperature", ".u-over"),
    ("live", lambda site: site.live("sensors/+/state", "?limit=temperature%3E21"), ".u-over"),
    ("live of a device", lambda site: site.live("sensors/kitchen/state"), ".device-name a"),
    ("nothing", lambda site: site.live("no/such/topic"), ".empty"),
    ("embed", lambda site: site.live("sensors/+/state", "?embed=1"), ".u-over"),
    ("publish", lambda site: f"{site.home}?view=publish", "textarea"),
    ("connection", lambda site: f"{site.home}?view=connection", ".legs"),
]


def axe(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 AA and good practice."""
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate(
        "axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })"
    )
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:160]} {node.get('failureSummary', '')}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.slow
def test_wcag_2_2_aa_in_states_that_come_and_go(
    watched: Watched, site: Site, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    if not AXE.exists():
        missing("axe-core (npm ci in web/)")

    def check(page: Page) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert axe(page) == []
        page.close()

    # a broken payload, chosen, while paused, with a loss
    page = watched.open(site.live("broken/thing", "?since=anotherlife:1"))
    page.locator(".m-row").last.click()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    check(page)
    page = watched.open(site.live("home/#/x"))
    expect(page.get_by_role("heading", name="This isn’t a topic filter")).to_be_visible()
    check(page)
    page = watched.open(f"{site.home}?view=publish&topic=axe/x")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.locator(".sent li")).to_contain_text("sent")
    check(page)
    page = watched.open(f"{site.home}?view=topics")
    page.locator(".t-row").first.click()
    expect(page.locator(".t-row.selected")).to_be_visible()
    check(page)
    # a broker without sensors, and then without the broker
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    page = watched.open(f"{gateway.http}/")
    expect(page.locator(".explain")).to_be_visible()
    broker.stop()
    expect(page.locator(".banner")).to_be_visible()
    check(page)


@pytest.mark.slow
def test_no_width_scrolls_sideways(watched: Watched, site: Site) -> None:
    for name, address, ready in VIEWS:
        page = watched.open(address(site))
        page.locator(ready).first.wait_for()
        for width in (390, 600, 768, 830, 900, 1024, 1070, 1920, 3840):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=3000)
            if name != "embed":
                button = page.get_by_role("button", name=re.compile("theme")).bounding_box()
                assert button is not None
                assert button["x"] + button["width"] <= width, f"{name} at {width} px"
        page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize(("name", "address", "ready"), VIEWS, ids=[view[0] for view in VIEWS])
def test_wcag_2_2_aa(
    watched: Watched,
    site: Site,
    name: str,
    address: Callable[[Site], str],
    ready: str,
    viewport: dict[str, int],
    scheme: str,
) -> None:
    if not AXE.exists():
        missing("axe-core (npm ci in web/)")
    page = watched.open(address(site), viewport, color_scheme=scheme)
    page.locator(ready).first.wait_for()
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"


@pytest.mark.slow
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_wcag_2_2_aa_in_german(watched: Watched, site: Site, viewport: dict[str, int]) -> None:
    if not AXE.exists():
        missing("axe-core (npm ci in web/)")
    for name, address, ready in VIEWS:
        page = watched.open(address(site), viewport, locale="de-DE")
        page.locator(ready).first.wait_for()
        assert page.locator("html").get_attribute("lang") == "de"
        assert axe(page) == [], name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
        page.close()


@pytest.mark.slow
def test_a_phone_counts_the_readings_that_it_has_no_room_for(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish("sensors/a/state", '{"temperature": 20, "humidity": 50, "pressure": 1000, "co2": 500}')
        page = watched.open(f"{gateway.http}/", NARROW)
        expect(rows(page).locator(".reading")).to_have_count(2)
        more = rows(page).locator(".more")
        expect(more).to_have_text("+2")
        inside, outside = more.bounding_box(), rows(page).locator(".readings").bounding_box()
        assert inside is not None
        assert outside is not None
        assert inside["x"] + inside["width"] <= outside["x"] + outside["width"], "it is cut"


@pytest.mark.slow
def test_a_phone_shows_the_whole_value_of_each_line_of_a_chart(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/+/state"), NARROW, has_touch=True, is_mobile=True)
    page.locator(".legend .only").nth(2).wait_for()
    for entry in page.locator(".legend .entry").all():
        value, only = entry.locator(".num").first.bounding_box(), entry.locator(".only").bounding_box()
        button = entry.get_by_role("button").first.bounding_box()
        assert value is not None
        assert only is not None
        assert button is not None
        assert value["x"] + value["width"] <= only["x"], "the button that shows one line alone covers its value"
        assert value["x"] + value["width"] <= button["x"] + button["width"], "the value is cut"


@pytest.mark.slow
def test_every_control_of_a_view_is_reached_by_keyboard(watched: Watched, site: Site) -> None:
    page = watched.open(site.live("sensors/+/state"))
    page.locator(".u-over").first.wait_for()
    wanted = page.evaluate(
        "document.querySelectorAll('main a, main button:not(:disabled), main input, main select').length"
    )
    reached: set[str] = set()
    for _ in range(int(wanted) + 30):
        page.keyboard.press("Tab")
        where = page.evaluate(
            """() => {
              const at = document.activeElement;
              if (!at || !at.closest("main")) return "";
              at.dataset.reached ??= String(document.querySelectorAll("[data-reached]").length);
              const unseen = getComputedStyle(at).outlineStyle === "none" && at.tagName !== "MAIN";
              return at.tagName + at.dataset.reached + (unseen ? " unseen" : "");
            }"""
        )
        if where:
            reached.add(where)
    assert not [where for where in reached if where.endswith("unseen")]
    assert len(reached) >= wanted - 3


@pytest.mark.slow
def test_nothing_moves_while_values_change(watched: Watched, site: Site) -> None:
    site.publisher.publish("sensors/kitchen/state", '{"temperature": 20.25, "humidity": 40, "battery": 9, "rssi": -5}')
    page = watched.open(site.home)
    expect(rows(page).filter(has_text="Kitchen").locator(".reading")).to_have_count(2)
    page.locator(".spark circle").first.wait_for()
    page.evaluate(
        """() => {
          globalThis.moved = [];
          new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) {
              for (const source of entry.sources) {
                const { node } = source;
                const at = node?.nodeType === Node.TEXT_NODE ? node.parentElement : node;
                if (!at || at.className === "unit" || getComputedStyle(at).textAlign === "right") continue;
                // a figure that ends at the right begins elsewhere when it gets longer, and a unit follows its value
                const [a, b] = [source.previousRect, source.currentRect];
                const way = `from ${a.x},${a.y} to ${b.x},${b.y}`;
                if (a.x !== b.x || a.y !== b.y) moved.push(`${at.outerHTML.slice(0, 80)} ${way}`);
              }
            }
          }).observe({ type: "layout-shift" });
        }"""
    )
    for value in (9.5, 10.25, 100, -7.125, 21):
        site.publisher.publish(
            "sensors/kitchen/state", json.dumps({"temperature": value, "humidity": 40, "battery": 100, "rssi": -101})
        )
        expect(rows(page).filter(has_text="Kitchen").locator(".reading .value").first).to_contain_text(
            f"{value:.2f}"[:-1]
        )
    assert page.evaluate("moved") == []


_NOTES_FIRST_DEVICE = """
globalThis.firstDevice = Infinity;
new MutationObserver((_, observer) => {
  if (!document.querySelector(".device .name a")) return;
  globalThis.firstDevice = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true });
"""


@pytest.mark.slow
def test_the_first_device_takes_less_than_a_second_of_work_and_few_bytes(
    watched: Watched, site: Site, page_tasks: Tasks
) -> None:
    seconds, sizes = [], []
    for _ in range(3):
        with page_tasks.noted() as tasks:
            page = watched.open(site.home, prepare=lambda page: page.add_init_script(_NOTES_FIRST_DEVICE))
            page.locator(".device .name a").first.wait_for()
        seconds.append(sum(tasks))
        # what came before it: the charts' code and the sparklines follow
        size: int = page.evaluate(
            """() => performance.getEntriesByType("resource")
                .filter((entry) => entry.responseEnd <= firstDevice)
                .reduce((sum, entry) => sum + entry.decodedBodySize, 0)"""
        )
        sizes.append(size)
    assert 0 < min(seconds) < 1, seconds
    assert 200_000 < max(sizes) < 400_000, sizes

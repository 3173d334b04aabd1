"""Charts that reach back into the archive, in a real Chromium before a real gateway and broker.

What a chart draws is told in words to those who can't see it; these tests read that: the newest reading, how far they
go, how many there are, and how often the line is broken.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from gateway.archive.offline import Importer
from tests.browser.watched import Site, Watched, meta, rows
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import make_broker, mosquitto_kind
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher, publishing
from tests.support.waiting import eventually, missing

from .test_dashboard_views import BUILT

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page, Request, Route

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
KITCHEN = "sensors/kitchen/state"
DAYS, STEP_MS = 40, 10 * MINUTE
MODES = ("heating", "sleeping", "idle")


@pytest.fixture(scope="module", autouse=True)
def _is_built() -> None:
    if not BUILT.exists():
        missing("the built dashboard (python scripts/build_web.py)")


def fill(path: Path, now: int) -> int:
    """Two sensors, a reading each ten minutes for forty days until a minute ago; how many each has."""
    importer = Importer(path)
    times = range(now - DAYS * DAY, now - MINUTE, STEP_MS)
    for number, at in enumerate(times):
        for offset, name in enumerate(("kitchen", "attic")):
            state = {"temperature": round(20 + offset + 3 * math.sin(number / 23), 2), "humidity": 40 + offset}
            importer.add(f"sensors/{name}/state", json.dumps(state).encode(), at)
        importer.add("boiler/state", json.dumps({"mode": MODES[number // 144 % 3]}).encode(), at)
    importer.close()
    return len(times)


class Archived(Site):
    """A gateway with forty days in its archive, and only the newest of it in memory.

    Attributes:
        count: readings of each sensor that were there from the beginning.
    """

    count = 0


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archived]:
    if mosquitto_kind() == "none":
        missing("a broker: Docker, the program mosquitto, or the package amqtt")
    path = tmp_path_factory.mktemp("archive") / "archive.db"
    count = fill(path, int(time.time() * 1000))
    broker = make_broker(mosquitto_kind(), tmp_path_factory.mktemp("broker"))
    gateway = None
    try:
        broker.start()
        folder = tmp_path_factory.mktemp("gateway")
        gateway = GatewayProcess(folder, broker.url, archive_file=str(path), history_messages=2_500)
        gateway.start()
        with Publisher(broker.url) as publisher:
            site = Archived(broker, gateway, publisher)
            site.count = count
            for name in ("Kitchen", "Attic"):
                described = meta(name, 600, temperature=("°C", "temperature"))
                publisher.publish(f"sensors/{name.lower()}/meta", described, retain=True)
            yield site
    finally:
        if gateway is not None:
            gateway.close()
        broker.close()


class Asked:
    """The questions of a page for columns, as they were asked."""

    def __init__(self, page: Page) -> None:
        self.addresses: list[str] = []
        self._page = page
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if "points=" in request.url and "format=columns" in request.url:
            self.addresses.append(request.url)

    def __len__(self) -> int:
        self._page.evaluate("0")  # lets events in
        return len(self.addresses)

    def last(self) -> dict[str, str]:
        """The parameters of the last one."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.addresses[-1]).query).items()}


def told(page: Page) -> Locator:
    """What is said of the first chart."""
    return page.get_by_role("img", name=re.compile("^Chart of ")).first


def readings(page: Page, line: str = "Kitchen") -> int:
    """How many readings a line of the first chart is made of."""
    if told(page).count() == 0:
        return 0
    words = told(page).get_attribute("aria-label") or ""
    found = re.search(rf"{re.escape(line)}: now [^;]*?([\d,]+) readings", words)
    return int(found[1].replace(",", "")) if found else 0


def wait_readings(page: Page, least: int, most: int | None = None, line: str = "Kitchen") -> None:
    """Returns when a line is made of so many readings."""
    wanted = range(least, (least if most is None else most) + 1)
    eventually(lambda: readings(page, line) in wanted, 20, f"{wanted} readings of {line}")


def drag(page: Page, begin: float, end: float) -> None:
    """Drags over the first chart, from one part of its width to another."""
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * begin, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * end, box["y"] + 30, steps=5)
    page.mouse.up()


def window_of(page: Page) -> tuple[int, int] | None:
    """`from` and `to` of the address."""
    query = parse_qs(urlsplit(page.evaluate("location.href")).query)
    return (int(query["from"][0]), int(query["to"][0])) if "from" in query else None


# Ranges


@pytest.mark.slow
def test_each_range_shows_all_of_its_time_and_stands_in_the_address(watched: Watched, archived: Archived) -> None:
    page = watched.open(archived.live("sensors/+/state", "?field=temperature"))
    for label, since, hours in (("24 h", "24h", 24), ("7 d", "7d", 7 * 24), ("30 d", "30d", 30 * 24)):
        page.get_by_role("button", name=label, exact=True).click()
        page.wait_for_url(f"**since={since}**")
        # a reading each ten minutes; columns at the edges may hold one more
        wait_readings(page, hours * 6 - 12, hours * 6 + 12)
    page.get_by_role("button", name="1 year", exact=True).click()
    eventually(lambda: readings(page) == archived.count, 20, f"all {archived.count} readings")
    expect(page.locator(".note")).to_contain_text(re.compile(r"Nothing from before \d\d-\d\d [\d:]+ is kept"))
    # Back undoes it
    page.go_back()
    expect(page.get_by_role("button", name="30 d", exact=True)).to_have_attribute("aria-pressed", "true")
    again = watched.open(page.url)
    eventually(lambda: abs(readings(again) - 30 * 24 * 6) <= 12, 20, "the link shows the same")


def test_a_range_of_ones_own_is_typed_in(watched: Watched, archived: Archived) -> None:
    page = watched.open(archived.live(KITCHEN, "?field=temperature"))
    page.get_by_role("button", name="From – to").click()
    begin, end = (time.time() * 1000 - days * DAY for days in (20, 18))
    written = [time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(moment / 1000)) for moment in (begin, end)]
    page.get_by_label("From", exact=True).fill(written[1])
    page.get_by_label("to", exact=True).fill(written[0])
    expect(page.get_by_role("button", name="Show", exact=True)).to_be_disabled()
    page.get_by_label("From", exact=True).fill(written[0])
    page.get_by_label("to", exact=True).fill(written[1])
    page.get_by_role("button", name="Show", exact=True).click()
    eventually(lambda: abs(readings(page) - 2 * 24 * 6) <= 2, 20, "two days")
    found = window_of(page)
    assert found is not None
    assert abs(found[1] - found[0] - 2 * DAY) < 2000


def test_a_narrow_page_chooses_the_range_from_a_list(watched: Watched, archived: Archived) -> None:
    page = watched.open(archived.live("sensors/+/state", "?field=temperature"), {"width": 390, "height": 844})
    page.get_by_label("How far back").select_option("7 d")
    eventually(lambda: abs(readings(page) - 7 * 24 * 6) <= 12, 20, "seven days")


# Zooming and moving


@pytest.mark.slow
def test_a_zoom_loads_what_the_pixels_need_down_to_single_readings_and_back_undoes_it(
    watched: Watched, archived: Archived
) -> None:
    page = watched.open(archived.live(KITCHEN, "?field=temperature&since=30d"))
    asked = Asked(page)
    eventually(lambda: readings(page) > 4000, 20, "thirty days")
    page.wait_for_timeout(300)
    before = len(asked)
    drag(page, 0.4, 0.6)
    page.wait_for_url("**from=*")
    first = window_of(page)
    assert first is not None
    eventually(lambda: len(asked) == before + 1, 10, "one question")
    width = float(page.evaluate("document.querySelector('.u-over').clientWidth"))
    query = asked.last()
    span = first[1] - first[0]
    # about a column for each pixel of what is asked for, which is a little more than what is shown
    asked_span = int(query["until"]) - int(query["since"])
    assert span < asked_span <= 1.7 * span
    assert int(query["points"]) == pytest.approx(asked_span / span * width, rel=0.02)
    eventually(lambda: abs(readings(page) - span / STEP_MS) <= 3, 20, "what is in the window")
    # far in there are single readings, each as exact as it came
    for _ in range(2):
        last = window_of(page)
        drag(page, 0.45, 0.55)
        eventually(lambda last=last: window_of(page) not in (last, None), what="a narrower window")  # type: ignore[misc]
    found = window_of(page)
    assert found is not None
    messages = archived.gateway.json(f"/topics/{KITCHEN}?since={found[0]}&limit=50")["messages"]
    inside = [each["payload"]["temperature"] for each in messages if found[0] <= each["time"] < found[1]]
    assert 1 <= len(inside) < 20
    expect(told(page)).to_have_attribute(
        "aria-label", re.compile(rf"now {inside[-1]:g}, between {min(inside):g} and {max(inside):g}, {len(inside)} ")
    )
    page.go_back()
    page.go_back()
    assert window_of(page) == first
    before = len(asked)
    eventually(lambda: abs(readings(page) - span / STEP_MS) <= 3, 20, "the first zoom again")
    page.go_back()
    expect(page.get_by_role("button", name="Back to live")).to_have_count(0)
    # both were here already
    assert len(asked) == before


def test_keys_that_come_quickly_ask_once_and_are_one_step_back(watched: Watched, archived: Archived) -> None:
    page = watched.open(archived.live(KITCHEN, "?field=temperature&since=24h"))
    eventually(lambda: readings(page) > 100, 20, "a day")
    asked = Asked(page)
    charts = page.get_by_role("group", name=re.compile("Charts"))
    charts.focus()
    # all in one turn of the page: on a busy machine, presses from outside come as slowly as separate steps
    charts.evaluate(
        "charts => { for (let press = 0; press < 20; press++)"
        " charts.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', bubbles: true, cancelable: true})) }"
    )
    page.wait_for_url("**from=*")
    found = window_of(page)
    assert found is not None
    assert found[1] - found[0] == pytest.approx(DAY, rel=0.01)
    assert time.time() * 1000 - found[1] == pytest.approx(5 * DAY, rel=0.05)
    eventually(lambda: abs(readings(page) - 144) <= 2, 20, "a day, five days ago")
    assert len(asked) <= 3
    page.go_back()
    expect(page.get_by_role("button", name="24 h", exact=True)).to_have_attribute("aria-pressed", "true")


@pytest.mark.slow
def test_a_wheel_moves_and_stretches_and_shift_drags(watched: Watched, archived: Archived) -> None:
    page = watched.open(archived.live(KITCHEN, "?field=temperature&since=7d"))
    eventually(lambda: readings(page) > 900, 20, "a week")
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    page.mouse.wheel(0, 200)
    page.wait_for_timeout(400)
    assert window_of(page) is None, "a plain wheel scrolls the page"
    page.evaluate("scrollTo(0, 0)")
    page.mouse.wheel(-box["width"] / 2, 0)
    page.wait_for_url("**from=*")
    moved = window_of(page)
    assert moved is not None
    assert moved[1] - moved[0] == pytest.approx(7 * DAY, rel=0.01)
    assert time.time() * 1000 - moved[1] == pytest.approx(3.5 * DAY, rel=0.1)
    page.keyboard.down("Shift")
    drag(page, 0.5, 0.75)
    page.keyboard.up("Shift")
    eventually(lambda: (window_of(page) or moved)[0] < moved[0] - DAY, 10, "dragged")
    dragged = window_of(page)
    assert dragged is not None
    assert moved[0] - dragged[0] == pytest.approx(7 * DAY / 4, rel=0.05)


def fingers(page: Page, *paths: list[tuple[float, float]]) -> None:
    """Moves fingers over a page, each along its path."""
    session = page.context.new_cdp_session(page)
    for step in range(len(paths[0])):
        points = [{"x": path[step][0], "y": path[step][1], "id": number} for number, path in enumerate(paths)]
        kind = "touchStart" if step == 0 else "touchMove"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.slow
def test_one_finger_moves_a_chart_and_two_stretch_it(watched: Watched, archived: Archived) -> None:
    page = watched.open(
        archived.live(KITCHEN, "?field=temperature&since=7d"), {"width": 390, "height": 844}, has_touch=True
    )
    eventually(lambda: readings(page) > 900, 20, "a week")
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    left, width, y = box["x"], box["width"], box["y"] + box["height"] / 2
    fingers(page, [(left + width * (0.4 + part / 20), y) for part in range(11)])
    page.wait_for_url("**from=*")
    moved = window_of(page)
    assert moved is not None
    assert moved[1] - moved[0] == pytest.approx(7 * DAY, rel=0.01)
    assert time.time() * 1000 - moved[1] == pytest.approx(3.5 * DAY, rel=0.1)
    # two fingers that go apart to twice their distance
    fingers(
        page,
        [(left + width * (0.4 - part / 100), y) for part in range(11)],
        [(left + width * (0.6 + part / 100), y) for part in range(11)],
    )
    eventually(lambda: window_of(page) != moved, 10, "stretched")
    stretched = window_of(page)
    assert stretched is not None
    assert stretched[1] - stretched[0] == pytest.approx(3.5 * DAY, rel=0.05)
    # up and down is for the page
    fingers(page, [(left + width / 2, y - part * 12) for part in range(11)])
    eventually(lambda: page.evaluate("scrollY") > 50, 5, "the page scrolls")
    assert window_of(page) == stretched


# Seams


@pytest.mark.slow
def test_there_is_no_seam_between_file_memory_and_live(watched: Watched, archived: Archived) -> None:
    topic = "seam/counter"
    archived.publisher.publish_all(((topic, str(number)) for number in range(3_000)), per_second=3_000)
    archived.seen(topic, 500)
    page = watched.open(archived.live(topic, "?since=1h"))
    eventually(lambda: readings(page, topic) == 3_000, 20, "what was there")
    load = ((topic, b"%d" % number) for number in range(3_000, 3_600))
    with publishing(archived.broker.url, load, qos=1, per_second=200):
        again = watched.open(archived.live(topic, "?since=1h"))
        eventually(lambda: readings(again, topic) > 3_050, 20, "it goes on")
    for each in (page, again):
        wait_readings(each, 3_600, line=topic)
        expect(each.get_by_role("img", name=re.compile("now 3599, between 0 and 3599"))).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("since", ["15m", "1h"])
def test_a_restart_of_a_gateway_with_an_archive_leaves_no_gap_in_a_chart_and_nothing_twice(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto, tmp_path: Path, since: str
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker, archive_file=str(tmp_path / "archive.db"), archive_flush_interval="0.2s")
    topic, count = "steady/counter", 200
    with Publisher(broker.url) as publisher:
        site = Site(broker, gateway, publisher)
        with publishing(broker.url, ((topic, b"%d" % number) for number in range(count)), qos=1, per_second=10):
            site.seen(topic)
            page = watched.open(site.live(topic, f"?since={since}"))
            asked = Asked(page)
            expect(told(page)).to_be_visible()
            eventually(lambda: readings(page, topic) > 50, 30, "it runs")
            gateway.stop()
            expect(page.locator(".banner")).to_contain_text("No connection")
            gateway.start()
            expect(page.locator(".banner")).to_have_count(0, timeout=40_000)
    eventually(lambda: readings(page, topic) >= count, 40, "all came")
    words = told(page).get_attribute("aria-label") or ""
    assert f"now {count - 1}, between 0 and {count - 1}, {count} readings" in words
    assert "gap" not in words
    expect(page.locator(".losses")).to_have_count(0)
    expect(page.locator(".m-row.gap")).to_have_count(0)
    # what was here was not loaded again
    assert len(asked) <= 1
    numbers = page.evaluate("[...document.querySelectorAll('.m-payload')].map((each) => each.textContent)")
    assert numbers[:10] == [str(count - 1 - number) for number in range(10)]
    page.reload()
    eventually(lambda: readings(page, topic) == count, 20, "all are kept")


# What is drawn, and how


@pytest.mark.slow
def test_the_dot_stands_on_the_reading_that_is_told(watched: Watched, archived: Archived) -> None:
    page = watched.open(archived.live("sensors/+/state", "?field=temperature&since=7d&y=temperature:0..40"))
    wait_readings(page, 7 * 144 - 12, 7 * 144 + 12)
    page.get_by_role("button", name="Pause").click()
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    for part in (0.31, 0.62):
        page.mouse.move(box["x"] + box["width"] * part, box["y"] + 40)
        expect(page.locator(".panel time")).to_be_visible()
        page.wait_for_timeout(200)
        dots = page.evaluate(
            """() => [...document.querySelectorAll(".u-cursor-pt")].map((dot) => dot.getBoundingClientRect())
              .filter(({ x }) => x > 20).map(({ y, height }) => y + height / 2)"""
        )
        values = [
            float(text.split("°")[0]) for text in page.locator(".legend .entry > button > .num").all_inner_texts()
        ]
        assert len(dots) == len(values) == 2
        for dot, value in zip(dots, values, strict=True):
            assert dot == pytest.approx(box["y"] + box["height"] * (1 - value / 40), abs=1.5)


@pytest.mark.slow
def test_one_reading_that_is_far_off_does_not_rule_the_scale(watched: Watched, archived: Archived) -> None:
    topic = "far/off"
    for number in range(60):
        archived.publisher.publish(topic, "85" if number == 30 else f"{20 + number % 5 / 10}", qos=1)
    page = watched.open(archived.live(topic))
    beyond = page.get_by_role("button", name="beyond the scale")
    expect(beyond).to_have_text(re.compile("▲ 1 beyond the scale"))
    # what is told is all of it
    expect(page.get_by_role("img", name=re.compile("between 20 and 85"))).to_be_visible()
    before = page.evaluate("document.querySelector('.plot canvas').toDataURL()")
    beyond.click()
    assert page.evaluate("new URLSearchParams(location.search).get('y')") == ":all"
    expect(beyond).to_have_count(0)
    page.wait_for_function(
        "(before) => document.querySelector('.plot canvas').toDataURL() !== before", arg=before, timeout=5000
    )
    page.get_by_label("Scale of value").select_option("Logarithmic")
    expect(page.get_by_role("img", name=re.compile("between 20 and 85"))).to_be_visible()
    page.get_by_label("Scale of value").select_option("From – to")
    page.get_by_label("value, scale from").fill("19")
    page.get_by_label("value, scale to").fill("21")
    page.wait_for_function("new URLSearchParams(location.search).get('y') === ':19..21'")


def test_a_line_is_shown_alone_and_all_come_back(watched: Watched, archived: Archived) -> None:
    page = watched.open(archived.live("sensors/+/state", "?field=temperature&since=24h"))
    wait_readings(page, 132, 156)
    expect(page.locator(".legend .stats").first).to_have_text(re.compile(r"^[\d.]+ to [\d.]+, mean [\d.]+$"))
    page.get_by_role("button", name="Only Kitchen").click()
    expect(told(page)).not_to_have_attribute("aria-label", re.compile("Attic"))
    page.get_by_role("button", name="Only Kitchen").click()
    expect(told(page)).to_have_attribute("aria-label", re.compile("Attic: .*Kitchen: "))


def test_texts_are_lanes_of_states_and_sleeping_is_not_1(watched: Watched, archived: Archived) -> None:
    topic = "heater/state"
    for state in ("online", "sleeping", "online", "offline", "sleeping"):
        archived.publisher.publish(topic, json.dumps({"mode": state, "power": 5}), qos=1)
        time.sleep(0.05)
    page = watched.open(archived.live(topic))
    lane = page.get_by_role("img", name=re.compile("^Mode: online from .*sleeping from .*offline from"))
    expect(lane).to_be_visible()
    expect(page.locator(".lane figcaption b")).to_have_text("sleeping")
    expect(page.locator(".panel")).to_have_count(1)
    expect(told(page)).to_have_attribute("aria-label", re.compile("^Chart of Power"))


def test_lanes_go_back_as_far_as_the_archive(watched: Watched, archived: Archived) -> None:
    archived.publisher.publish("boiler/state", '{"mode":"defrosting"}', qos=1)
    page = watched.open(archived.live("boiler/state", "?since=30d"))
    lane = page.get_by_role("img", name=re.compile("(heating from .*){5}"))
    expect(lane).to_be_visible()
    expect(lane).to_have_attribute("aria-label", re.compile("defrosting from [^,]*$"))
    eventually(lambda: page.locator(".lane .state").count() in range(30, 33), 20, "a state for each day")


# Without an archive, and when it doesn't work


@pytest.mark.slow
def test_without_an_archive_a_range_that_memory_can_not_fill_says_so(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker, history_messages=100)
    with Publisher(broker.url) as publisher:
        publisher.publish_all((("small/counter", str(number)) for number in range(300)), qos=1)
        site = Site(broker, gateway, publisher)
        eventually(lambda: gateway.json("/topics?prefix=small/")["topics"][0]["count"] == 300, 20)
        for since in ("24h", "30d"):
            page = watched.open(site.live("small/counter", f"?since={since}"))
            expect(page.locator(".note")).to_contain_text(re.compile("Nothing from before [\\d:]+ is kept"))
            wait_readings(page, 90, 100, "small/counter")
        publisher.publish("small/counter", "300", qos=1)
        eventually(lambda: "now 300" in (told(page).get_attribute("aria-label") or ""), 10)


@pytest.mark.slow
def test_a_history_that_is_late_is_waited_for_and_one_that_fails_is_named(watched: Watched, archived: Archived) -> None:
    page = watched.open(archived.live(KITCHEN, "?field=temperature"))
    expect(page.get_by_role("button", name="30 d", exact=True)).to_be_visible()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(re.compile("points="), hold)
    page.get_by_role("button", name="30 d", exact=True).click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator(".loading")).to_contain_text("Loading what is older")
    problem = {"status": 403, "code": "forbidden", "detail": "the archive is closed on Sundays"}
    eventually(lambda: page.evaluate("0") == 0 and len(held) == 1, 10, "it is asked")
    held[0].fulfill(status=403, content_type="application/problem+json", body=json.dumps(problem))
    expect(page.locator(".note")).to_contain_text("What is older couldn’t be loaded: the archive is closed on Sundays")
    page.unroute(re.compile("points="))
    page.get_by_role("button", name="Try again").click()
    eventually(lambda: readings(page) > 4000, 20, "thirty days")
    expect(page.locator(".note")).to_have_count(0)


@pytest.mark.slow
def test_an_older_question_is_broken_off_when_there_is_a_newer_one(watched: Watched, archived: Archived) -> None:
    page = watched.open(archived.live(KITCHEN, "?field=temperature&since=24h"))
    eventually(lambda: readings(page) > 100, 20, "a day")
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.route(re.compile("points="), lambda _: None)
    group = page.get_by_role("group", name=re.compile("Charts"))
    group.focus()
    for _ in range(2):
        with page.expect_request(re.compile("points=")):
            page.keyboard.press("ArrowLeft")
            page.keyboard.press("-")
    eventually(lambda: page.evaluate("0") == 0 and len(failed) == 1, 10, "the older one is broken off")


@pytest.mark.slow
def test_an_archive_that_keeps_nothing_is_told(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto, tmp_path: Path
) -> None:
    gateway = make_gateway(make_mosquitto(), archive_file=str(tmp_path / "nowhere" / "archive.db"))
    page = watched.open(f"{gateway.http}/")
    expect(page.locator(".banner")).to_contain_text("The gateway’s archive doesn’t keep what arrives")
    page.get_by_role("link", name="Connection", exact=True).click()
    expect(page.get_by_role("region", name="State")).to_contain_text("Not kept:")


# Devices


def test_the_list_of_devices_draws_a_day_with_one_question_for_all(watched: Watched, archived: Archived) -> None:
    page = watched.open(f"{archived.gateway.http}/health/live")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "points=" in request.url else None)
    page.goto(archived.home)
    expect(rows(page)).to_have_count(2)
    for name in ("Kitchen", "Attic"):
        path = rows(page).filter(has_text=name).locator(".spark path")
        expect(path).to_have_attribute("d", re.compile(r"^M[\d. ]+(L[\d. -]+){60,}"))
    expect(page.get_by_role("columnheader", name="Last 24 hours")).to_be_visible()
    assert len(asked) == 1, asked


# Notes of each socket how many messages a second it asked for last, and when those of pace/3 came that left out others.
NOTING = r"""
globalThis.sockets = [];
globalThis.WebSocket = class extends WebSocket {
  constructor(url, ...options) {
    super(url, ...options);
    const asked = new URL(url).searchParams.get("max_hz");
    this.noted = { hz: asked === null ? null : Number(asked), times: [] };
    sockets.push(this.noted);
    this.addEventListener("message", ({ data }) => {
      for (const [message] of String(data).matchAll(/\{"topic":"pace\/3".*?\}/g)) {
        const { time, skipped } = JSON.parse(message);
        if (skipped > 0) this.noted.times.push(time);
      }
    });
  }
  send(data) {
    const asked = /"max_hz":(null|[\d.]+)/.exec(data);
    if (asked) this.noted.hz = JSON.parse(asked[1]);
    super.send(data);
  }
};
"""


@pytest.mark.slow
@pytest.mark.parametrize("query", ["?embed=1", ""], ids=["frame", "list"])
def test_a_chart_asks_for_no_more_messages_than_it_can_draw(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto, query: str
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    drawable_hz = 4  # of 15 minutes on as many pixels as this page has
    is_enough = threading.Event()

    def load() -> Iterator[tuple[str, bytes]]:
        for index in itertools.count():
            if is_enough.is_set():
                return
            yield f"pace/{index % 4}", b"%d.5" % (20 + index % 7)

    with Publisher(broker.url) as publisher:
        for number in range(4):
            publisher.publish(f"pace/{number}", "20.5")
        page = watched.open(f"{gateway.http}/health/live")
        page.add_init_script(NOTING)
        page.goto(f"{gateway.http}/topics/pace/+{query}")
        expect(page.locator(".legend .entry")).to_have_count(4)
        with publishing(broker.url, load(), qos=0, per_second=1000):
            try:
                page.wait_for_function(
                    "(hz) => sockets.some((each) => each.hz === hz && each.times.length >= 20)",
                    arg=drawable_hz,
                    timeout=60_000,
                )
            finally:
                is_enough.set()
        publisher.publish("pace/3", "77.5")
        expect(page.locator(".legend .entry").last).to_contain_text("77.5")
        [times] = [each["times"] for each in page.evaluate("sockets") if each["times"]]
        # by the gateway's clock: however slow this machine is, so many in so much time; one more, as both ends count
        assert len(times) <= drawable_hz * (times[-1] - times[0]) / 1000 + 2
        if not query:
            # one that lists messages takes all of them until there are too many, and says what it left out
            expect(page.locator(".losses")).to_contain_text(re.compile(r"[\d,]+ left out"))
            # what the other connection sent before may come behind it, more of it than there are rows
            row = page.locator(".m-payload").filter(has_text="77.5").first
            until = time.monotonic() + 30
            while not row.is_visible() and time.monotonic() < until:
                publisher.publish("pace/3", "77.5")
                page.wait_for_timeout(500)
            expect(row).to_be_visible()
